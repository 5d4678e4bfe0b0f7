/*
 * admission.h
 *		Whether an account can afford what a call has stored, and posting it.
 */
#ifndef UB_ADMISSION_H
#define UB_ADMISSION_H

#include "access.h"
#include "delta.h"

extern int64 ub_admission_post(UbAccount *account, UbDeltaSet *set,
							   bool takes_credits, int128 taken);

#endif /* UB_ADMISSION_H */
