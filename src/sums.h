/*
 * sums.h
 *		Adding what is folded to credit_balance and usage_hourly.
 */
#ifndef UB_SUMS_H
#define UB_SUMS_H

#include "delta.h"

typedef struct UbFoldedAccount
{
	UbSlice billing_id;
	uint64 below; /* no delta of a transaction below is left */
} UbFoldedAccount;

extern void ub_sums_add(List *accounts, List *deltas);

#endif /* UB_SUMS_H */
