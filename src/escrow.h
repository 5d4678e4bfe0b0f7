/*
 * escrow.h
 *		Counters in shared memory of what accounts may still spend.
 */
#ifndef UB_ESCROW_H
#define UB_ESCROW_H

#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "value.h"

/* What a transaction in flight has posted to an account. */
typedef struct UbInFlight
{
	TransactionId xid;
	int rows; /* that move credits */
	int128 credits;
	int128 taken; /* the part that takes credits, as a positive number */
} UbInFlight;

/* What the tables hold of an account. */
typedef struct UbEscrowState
{
	Snapshot snapshot;
	int128 balance;	 /* as it sees it, with what this transaction posted */
	int128 own;		 /* of that, what this transaction posted */
	int own_rows;	 /* in as many rows that move credits */
	int128 funds;	 /* what may still be spent */
	List *in_flight; /* UbInFlight *, of other transactions */
} UbEscrowState;

extern void ub_escrow_init(void);
extern bool ub_escrow_is_there(void);

/* Between these two nobody else is admitted to the account. */
extern void ub_escrow_lock(UbSlice billing_id);
extern void ub_escrow_unlock(UbSlice billing_id);

/* With the lock held. */
extern bool ub_escrow_take(UbSlice billing_id, int128 amount, int64 least);
extern bool ub_escrow_balance(UbSlice billing_id, int128 *balance);
extern void ub_escrow_set(UbSlice billing_id, const UbEscrowState *state);
extern void ub_escrow_drop(UbSlice billing_id);
extern bool ub_escrow_posted(UbSlice billing_id, int128 credits, int rows);

/* Without it. */
extern void ub_escrow_fact(UbSlice billing_id, int128 taken, int128 credits,
						   int rows);
extern void ub_escrow_forget_all(void);

#endif /* UB_ESCROW_H */
