/*
 * admission.c
 *		Whether an account can afford what a call has stored, and posting it.
 *
 * Usage is admitted if the balance, less what has been admitted to others and
 * is not committed yet, stays at or above credit_min.
 *
 * Without counters in shared memory, calls of one account take turns to the
 * end of their transactions: whoever has the turn sees all that was admitted as
 * committed. With them (escrow.c) nobody waits for anybody's transaction: the
 * counter decides, and where it isn't enough, reading the tables under the
 * account's lock, where what is in flight counts as spent. There the deltas of a
 * call are appended after it was admitted, so all that is in flight in
 * usage_delta is admitted, or came by a way that needs no admission.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "access.h"
#include "admission.h"
#include "catalog.h"
#include "errors.h"
#include "escrow.h"
#include "ledger.h"
#include "settings.h"
#include "stats.h"

/* A call that waits for its admission. */
typedef struct Admission
{
	UbAccount *account;
	UbSlice id;
	int128 taken;
	UbBalance balance; /* before the call's own deltas */
	bool has_balance;
	bool fold;
} Admission;

/* What reading the tables needs. */
typedef struct AdmissionTables
{
	Relation balance;
	Relation balance_key;
	Relation delta;
	Relation delta_key;
} AdmissionTables;

/* Reads the account as of now, also in REPEATABLE READ. */
static void
admission_read_account(Admission *admission)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	ub_account_look_again(admission->account, snapshot);
	UnregisterSnapshot(snapshot);
}

/* Likewise its balance. */
static void
admission_read_balance(Admission *admission)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

	ub_ledger_read(admission->account->billing_id, snapshot,
				   &admission->balance);
	admission->has_balance = true;
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
 * Collects what others have posted to the account and not committed, from the
 * transaction "from" on. *own_gains gets what this transaction itself has posted
 * that brings credits; all that it has posted goes into the state.
 */
static void
admission_in_flight(const Admission *admission, uint64 from,
					UbEscrowState *state, int128 *own_gains)
{
	TransactionId own_xid = GetTopTransactionIdIfAny();
	UbInFlight *last = NULL;
	SnapshotData dirty;
	UbScan scan;

	state->in_flight = NIL;
	state->own = *own_gains = 0;
	state->own_rows = 0;
	InitDirtySnapshot(dirty);
	ub_deltas_scan(&scan, admission->account->billing_id, from, &dirty);
	while (ub_scan_next(&scan))
	{
		TransactionId xid;
		int64 credits;
		int64 debited;

		ub_delta_load_credits(scan.slot, &credits, &debited);
		xid = XidFromFullTransactionId(DatumGetFullTransactionId(
			scan.slot->tts_values[UB_DELTA_XACT]));
		if (!TransactionIdIsValid(dirty.xmin))
		{
			if (xid == own_xid)
			{
				state->own += credits;
				state->own_rows += credits != 0;
				*own_gains += Max(credits, 0);
			}
			continue;
		}
		/* rows of one transaction follow each other */
		if (last == NULL || last->xid != xid)
		{
			last = palloc0(sizeof(UbInFlight));
			last->xid = xid;
			state->in_flight = lappend(state->in_flight, last);
		}
		last->rows += credits != 0;
		last->credits += credits;
		last->taken -= Min(credits, 0);
	}
	ub_scan_end(&scan);
}

/*
 * Reads the tables to decide, under the account's lock, and sets the counter to
 * what they hold. Returns whether the call is admitted; *in_flight gets what
 * others have taken and not committed. It counts as spent, and once: what ended
 * before the balance was read is in the balance or was undone. What may come
 * counts when it has come.
 */
static bool
admission_by_tables(Admission *admission, int128 *in_flight)
{
	text *billing_id = admission->account->billing_id;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64 from = ub_deltas_floor(billing_id, snapshot);
	UbEscrowState state;
	int128 own_gains;
	bool admitted;
	ListCell *cell;

	UnregisterSnapshot(snapshot);
	admission_in_flight(admission, from, &state, &own_gains);
	state.snapshot = RegisterSnapshot(GetLatestSnapshot());
	ub_ledger_read(billing_id, state.snapshot, &admission->balance);
	admission->has_balance = true;
	state.balance = admission->balance.balance;

	*in_flight = 0;
	foreach (cell, state.in_flight)
	{
		const UbInFlight *other = lfirst(cell);

		if (XidInMVCCSnapshot(other->xid, state.snapshot))
			*in_flight += other->taken;
	}
	state.funds = state.balance - *in_flight;
	admitted = state.funds - admission->taken >= admission->account->credit_min;

	/* others can't have what this transaction brings before it commits */
	state.funds -= own_gains + (admitted ? admission->taken : 0);
	if (admission->balance.own_fold)
		ub_escrow_drop(admission->id);
	else
		ub_escrow_set(admission->id, &state);
	UnregisterSnapshot(state.snapshot);
	return admitted;
}

/*
 * Opens what reading the tables needs, before the account is locked. It stays
 * open: to open a table for the first time reads catalogs, for which a session
 * may have to wait.
 */
static void
admission_open_tables(AdmissionTables *tables)
{
	tables->balance = table_open(ub_catalog()->credit_balance, AccessShareLock);
	tables->balance_key = index_open(ub_catalog()->credit_balance_pkey,
									 AccessShareLock);
	tables->delta = table_open(ub_catalog()->usage_delta, AccessShareLock);
	tables->delta_key = index_open(ub_catalog()->usage_delta_key,
								   AccessShareLock);
}

static void
admission_close_tables(AdmissionTables *tables)
{
	index_close(tables->delta_key, NoLock);
	table_close(tables->delta, NoLock);
	index_close(tables->balance_key, NoLock);
	table_close(tables->balance, NoLock);
}

/*
 * Admits the call by the account's counter. Leaves the account locked, or
 * raises UB001.
 */
static void
admission_take(Admission *admission)
{
	int64 least = admission->account->credit_min;
	AdmissionTables tables;
	int128 in_flight;

	if (ub_escrow)
	{
		ub_escrow_lock(admission->id);
		if (ub_escrow_take(admission->id, admission->taken, least))
			return;
		ub_escrow_unlock(admission->id);
	}
	ub_stats_add(UB_STAT_ADMISSIONS_READ, 1);
	admission_open_tables(&tables);
	ub_escrow_lock(admission->id);
	if (!admission_by_tables(admission, &in_flight))
	{
		ub_escrow_unlock(admission->id);
		admission_refuse(admission, in_flight);
	}
	admission_close_tables(&tables);
}

/* How many deltas move credits. */
static int
admission_rows(List *deltas)
{
	int rows = 0;
	ListCell *cell;

	foreach (cell, deltas)
		rows += ((UbDelta *) lfirst(cell))->sums[UB_SUM_CREDITS] != 0;
	return rows;
}

static void
admission_take_turn(const Admission *admission)
{
	if (ub_ledger_take_turn(admission->id))
		ub_stats_add(UB_STAT_ADMISSIONS_WAITED, 1);
}

/* Admits the call by the account's counter and appends its deltas. */
static void
admission_by_counter(Admission *admission, UbDeltaAppend *append, List *deltas)
{
	if (!ub_escrow)
		admission_take_turn(admission);
	admission_read_account(admission);
	admission_take(admission);
	if (!admission->has_balance)
		admission->has_balance = ub_escrow_balance(admission->id,
												   &admission->balance.balance);
	ub_deltas_append_rows(append, deltas);
	admission->fold = ub_escrow_posted(admission->id, -admission->taken,
									   admission_rows(deltas));
	ub_escrow_unlock(admission->id);
}

/* Folds what calls have appended since one of them last did. */
static void
admission_fold(const Admission *admission)
{
	text *billing_id = admission->account->billing_id;
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64 from = ub_deltas_floor(billing_id, snapshot);

	UnregisterSnapshot(snapshot);
	(void) ub_deltas_fold_account(billing_id, from);
}

/*
 * Admits the call in the account's turn. Its deltas are appended before, so that
 * as little as possible is done while others wait.
 */
static void
admission_by_turn(Admission *admission, UbDeltaAppend *append, List *deltas)
{
	ub_deltas_append_rows(append, deltas);
	CommandCounterIncrement();
	admission_take_turn(admission);
	admission_read_account(admission);
	admission_read_balance(admission);
	admission->balance.balance += admission->taken;
	if (admission->balance.balance - admission->taken <
		admission->account->credit_min)
		admission_refuse(admission, 0);
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
	ub_stats_add(UB_STAT_ADMISSIONS, takes_credits ? 1 : 0);
	if (!takes_credits)
	{
		admission_read_account(&admission);
		ub_deltas_append_rows(&append, deltas);
	}
	else if (ub_escrow_is_there())
		admission_by_counter(&admission, &append, deltas);
	else
		admission_by_turn(&admission, &append, deltas);
	ub_deltas_append_end(&append);
	CommandCounterIncrement();
	ub_ledger_check_ranges(deltas);

	if (!admission.has_balance)
		admission_read_balance(&admission);
	else
		admission.balance.balance -= taken;
	if (admission.fold)
		admission_fold(&admission);
	return ub_ledger_answer(account->billing_id, &admission.balance);
}
