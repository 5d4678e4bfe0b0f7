/*
 * admission.c
 *		Whether an account can afford what a call has stored, and posting it.
 *
 * Usage is admitted if the balance, less what has been admitted to others and
 * is not committed yet, stays at or above credit_min. The deltas of a call are
 * appended after it was admitted, so all that is in usage_delta is admitted, or
 * came by a way that needs no admission.
 *
 * Without counters in shared memory, calls of one account take turns to the
 * end of their transactions: whoever has the turn sees all that was admitted as
 * committed. With them (escrow.c) nobody waits for anybody's transaction: the
 * counter decides, and where it isn't enough, reading the tables under the
 * account's lock, where what is in flight counts as spent.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/transam.h"
#include "access/xact.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "access.h"
#include "admission.h"
#include "catalog.h"
#include "errors.h"
#include "escrow.h"
#include "ledger.h"
#include "settings.h"

/* A call that waits for its admission. */
typedef struct Admission
{
	UbAccount *account;
	UbSlice id;
	int128 taken;
	UbBalance balance; /* before the call's own deltas */
} Admission;

/* What another transaction takes from the account and has not committed. */
typedef struct InFlight
{
	TransactionId xid;
	int128 credits;
} InFlight;

/* Reads account and balance as of now, also in REPEATABLE READ. */
static void
admission_read(Admission *admission)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	ub_account_look_again(admission->account, snapshot);
	ub_ledger_read(admission->account->billing_id, snapshot,
				   &admission->balance);
	UnregisterSnapshot(snapshot);
}

UB_NORETURN static void
admission_refuse(const Admission *admission, int128 in_flight)
{
	ub_error_credits(admission->account->id,
					 ub_sum_text(admission->balance.balance),
					 in_flight == 0 ? NULL : ub_sum_text(in_flight),
					 ub_sum_text(admission->taken),
					 admission->account->credit_min);
}

/*
 * Collects what others take from the account and have not committed (InFlight).
 * *own_credits gets what this transaction itself brings to it.
 */
static List *
admission_in_flight(const Admission *admission, int128 *own_credits)
{
	FullTransactionId own = GetTopFullTransactionIdIfAny();
	InFlight *last = NULL;
	List *found = NIL;
	SnapshotData dirty;
	UbScan scan;

	*own_credits = 0;
	InitDirtySnapshot(dirty);
	ub_deltas_scan(&scan, admission->account->billing_id, admission->balance.from,
				   &dirty);
	while (ub_scan_next(&scan))
	{
		UbDelta delta;

		ub_delta_load(scan.slot, &delta);
		if (!TransactionIdIsValid(dirty.xmin))
		{
			FullTransactionId writer = DatumGetFullTransactionId(
				scan.slot->tts_values[UB_DELTA_XACT]);

			if (FullTransactionIdEquals(writer, own) &&
				delta.sums[UB_SUM_CREDITS] > 0)
				*own_credits += delta.sums[UB_SUM_CREDITS];
			continue;
		}
		/* what may come counts when it has come */
		if (delta.sums[UB_SUM_CREDITS] >= 0)
			continue;
		if (last == NULL || last->xid != dirty.xmin)
		{
			last = palloc0(sizeof(InFlight));
			last->xid = dirty.xmin;
			found = lappend(found, last);
		}
		last->credits -= delta.sums[UB_SUM_CREDITS];
	}
	ub_scan_end(&scan);
	return found;
}

/*
 * Reads the tables to decide, under the account's lock, and sets the counter to
 * what they hold. Returns whether the call is admitted; *in_flight gets what
 * others have taken and not committed. It counts as spent, and once: what ended
 * before the balance was read is in the balance or was undone.
 */
static bool
admission_by_tables(Admission *admission, int128 *in_flight)
{
	int128 own_credits;
	List *found = admission_in_flight(admission, &own_credits);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	int128 funds;
	bool admitted;
	ListCell *cell;

	ub_ledger_read(admission->account->billing_id, snapshot, &admission->balance);
	*in_flight = 0;
	foreach (cell, found)
	{
		const InFlight *other = lfirst(cell);

		if (XidInMVCCSnapshot(other->xid, snapshot))
			*in_flight += other->credits;
	}
	UnregisterSnapshot(snapshot);

	funds = admission->balance.balance - *in_flight;
	admitted = funds - admission->taken >= admission->account->credit_min;
	/* others can't have what this transaction brings before it commits */
	if (admission->balance.own_fold)
		ub_escrow_drop(admission->id);
	else
		ub_escrow_set(admission->id, funds - own_credits -
						  (admitted ? admission->taken : 0));
	return admitted;
}

/* Admits the call by the account's counter and appends its deltas. */
static void
admission_by_counter(Admission *admission, UbDeltaAppend *append, List *deltas)
{
	int128 in_flight;

	if (!ub_escrow)
		ub_ledger_take_turn(admission->id);
	admission_read(admission);

	ub_escrow_lock(admission->id);
	if (!(ub_escrow && ub_escrow_take(admission->id, admission->taken,
									  admission->account->credit_min)) &&
		!admission_by_tables(admission, &in_flight))
	{
		ub_escrow_unlock(admission->id);
		admission_refuse(admission, in_flight);
	}
	ub_deltas_append_rows(append, deltas);
	ub_escrow_unlock(admission->id);
}

/* Admits the call in the account's turn and appends its deltas. */
static void
admission_by_turn(Admission *admission, UbDeltaAppend *append, List *deltas)
{
	ub_ledger_take_turn(admission->id);
	admission_read(admission);
	if (admission->balance.balance - admission->taken <
		admission->account->credit_min)
		admission_refuse(admission, 0);
	ub_deltas_append_rows(append, deltas);
}

/*
 * Posts what a call has stored for one account and returns the balance after
 * it. takes_credits: there is credit usage among it, of the sum taken; UB001 is
 * raised if the account can't afford it. The caller has done everything before
 * that could wait for another call.
 */
int64
ub_admission_post(UbAccount *account, UbDeltaSet *set, bool takes_credits,
				  int128 taken)
{
	Admission admission = {.account = account, .taken = taken};
	List *deltas = ub_deltas_sorted(set);
	UbDeltaAppend append;

	admission.id = ub_value_slice(account->billing_id);
	ub_deltas_append_begin(&append);
	if (!takes_credits)
	{
		admission_read(&admission);
		ub_deltas_append_rows(&append, deltas);
	}
	else if (ub_escrow_is_there())
		admission_by_counter(&admission, &append, deltas);
	else
		admission_by_turn(&admission, &append, deltas);
	ub_deltas_append_end(&append);
	CommandCounterIncrement();
	ub_ledger_check_ranges(deltas);

	admission.balance.balance -= taken;
	return ub_ledger_answer(account->billing_id, &admission.balance);
}
