/*
 * escrow.h
 *		Counters in shared memory of what accounts may still spend.
 */
#ifndef UB_ESCROW_H
#define UB_ESCROW_H

#include "value.h"

extern void ub_escrow_init(void);
extern bool ub_escrow_is_there(void);

/* Between these two nobody else is admitted to the account. */
extern void ub_escrow_lock(UbSlice billing_id);
extern void ub_escrow_unlock(UbSlice billing_id);

/* With the lock held. */
extern bool ub_escrow_take(UbSlice billing_id, int128 amount, int64 least);
extern void ub_escrow_set(UbSlice billing_id, int128 funds);
extern void ub_escrow_drop(UbSlice billing_id);

/* Without it. */
extern void ub_escrow_spent(UbSlice billing_id, int128 amount);
extern void ub_escrow_forget_all(void);

#endif /* UB_ESCROW_H */
