/*
 * ledger.h
 *		Balance and admission.
 */
#ifndef UB_LEDGER_H
#define UB_LEDGER_H

#include "access.h"
#include "delta.h"

/* What the ledger holds of an account: folded and pending together. */
typedef struct UbBalance
{
	int128 balance;
	int128 debited;
	uint64 pending; /* deltas not folded yet … */
	uint64 from;	/* … and the transaction from which on they are read */
	bool own_fold;	/* this transaction has folded the account */
} UbBalance;

extern void ub_ledger_read(text *billing_id, Snapshot snapshot,
						   UbBalance *balance);
extern int64 ub_ledger_balance(text *billing_id, Snapshot snapshot);
extern int64 ub_ledger_balance_now(text *billing_id);
extern int64 ub_ledger_settle(text *billing_id);
extern int64 ub_ledger_answer(text *billing_id, const UbBalance *balance);
extern bool ub_ledger_take_turn(UbSlice billing_id);
extern void ub_ledger_check_ranges(List *deltas);
extern void ub_ledger_post(UbDeltaSet *set);
extern UbDeltaSet *ub_ledger_post_if_many(UbDeltaSet *set);

#endif /* UB_LEDGER_H */
