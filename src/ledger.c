/*
 * ledger.c
 *		Balance and admission.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "document.h"
#include "errors.h"
#include "escrow.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"

/* A call that sees more pending deltas of its account folds them. */
#define LEDGER_MANY_PENDING 24

/*
 * A posting larger than this makes its account a large one, whose sums are
 * checked against bigint from then on. It would take more than a
 * hundred thousand smaller ones in one hour to get there.
 */
#define LEDGER_LARGE (INT64CONST(1) << 46)

/* How often a call stands in line again because of a deadlock of others. */
#define LEDGER_LINES 3

/* A set of deltas is posted when it has this many. */
#define LEDGER_MOST_DELTAS 10000

PG_FUNCTION_INFO_V1(ub_account_balance);
PG_FUNCTION_INFO_V1(ub_total_debited);

/* The transaction that took a turn last in this session. */
static TransactionId turn_taken_by = InvalidTransactionId;

/* Waits for a turn; false if that ended in a deadlock of others. */
static bool
ledger_wait_once(const LOCKTAG *tag)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) LockAcquire(tag, ExclusiveLock, false, false);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED ||
			ub_fact_is_waited_for())
			ReThrowError(error);
		FreeErrorData(error);
		taken = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return taken;
}

/*
 * Takes a turn. Returns whether it had to wait.
 *
 * Transactions of several calls can deadlock over their turns, and then those
 * who stand in line before one of them are taken for a part of it, although
 * nobody waits for what they have. Such a call goes to the end of the line,
 * where it isn't in anybody's way.
 */
static bool
ledger_wait_for_turn(const LOCKTAG *tag)
{
	TransactionId top = GetTopTransactionId();
	bool waited = LockAcquire(tag, ExclusiveLock, false, true) ==
		LOCKACQUIRE_NOT_AVAIL;

	if (waited)
	{
		bool taken = false;

		for (int i = 0; i < LEDGER_LINES && turn_taken_by != top && !taken; i++)
			taken = ledger_wait_once(tag);
		if (!taken)
			(void) LockAcquire(tag, ExclusiveLock, false, false);
	}
	turn_taken_by = top;
	return waited;
}

/*
 * Takes the account's turn, held to the end of the (sub)transaction. The
 * caller must have done everything before that could wait for another call.
 * Returns whether it had to wait.
 */
bool
ub_ledger_take_turn(UbSlice billing_id)
{
	LOCKTAG tag;
	uint64 hash = hash_bytes_extended((const unsigned char *) billing_id.data,
									  billing_id.len, 0);

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, UB_LOCK_TURN);
	return ledger_wait_for_turn(&tag);
}

/* Adds up what a snapshot sees of the account's pending deltas. */
static void
ledger_add_pending(text *billing_id, Snapshot snapshot, UbBalance *balance)
{
	UbScan scan;

	ub_deltas_scan(&scan, billing_id, balance->from, snapshot);
	while (ub_scan_next(&scan))
	{
		int64 credits;
		int64 debited;

		CHECK_FOR_INTERRUPTS();
		ub_delta_load_credits(scan.slot, &credits, &debited);
		balance->balance += credits;
		balance->debited += debited;
		balance->pending++;
	}
	ub_scan_end(&scan);
}

/* Whether this transaction wrote the row. */
static bool
ledger_is_own(TupleTableSlot *slot)
{
	bool isnull;
	Datum xmin = slot_getsysattr(slot, MinTransactionIdAttributeNumber,
								 &isnull);

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

/* Reads what one snapshot sees of the account's balance. */
void
ub_ledger_read(text *billing_id, Snapshot snapshot, UbBalance *balance)
{
	UbScan scan;
	ScanKeyData key;

	memset(balance, 0, sizeof(UbBalance));
	ub_scan_key_text(&key, 1, PointerGetDatum(billing_id));
	ub_scan_begin(&scan, ub_catalog()->credit_balance,
				  ub_catalog()->credit_balance_pkey, snapshot, &key, 1);
	if (ub_scan_next(&scan))
	{
		slot_getallattrs(scan.slot);
		balance->balance =
			ub_sum_of_numeric(scan.slot->tts_values[UB_BALANCE_BALANCE]);
		balance->debited =
			ub_sum_of_numeric(scan.slot->tts_values[UB_BALANCE_DEBITED]);
		balance->from = ub_balance_floor(scan.slot);
		balance->own_fold = ledger_is_own(scan.slot);
	}
	ub_scan_end(&scan);
	ledger_add_pending(billing_id, snapshot, balance);
}

static int64
ledger_in_range(int128 sum, const char *what)
{
	if (!ub_sum_fits(sum))
		ub_error_sum_range(what);
	return (int64) sum;
}

/* The balance as a snapshot sees it; 22003 if it isn't a bigint. */
int64
ub_ledger_balance(text *billing_id, Snapshot snapshot)
{
	UbBalance balance;

	ub_ledger_read(billing_id, snapshot, &balance);
	return ledger_in_range(balance.balance, "The balance");
}

/*
 * Returns the balance that a call answers, and keeps the account's deltas few:
 * a call that saw many folds them.
 */
int64
ub_ledger_answer(text *billing_id, const UbBalance *balance)
{
	if (balance->pending > LEDGER_MANY_PENDING)
		ub_deltas_fold_account(billing_id, balance->from);
	return ledger_in_range(balance->balance, "The balance");
}

/* The balance right now, also in REPEATABLE READ. */
int64
ub_ledger_balance_now(text *billing_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbBalance balance;

	ub_ledger_read(billing_id, snapshot, &balance);
	UnregisterSnapshot(snapshot);
	return ub_ledger_answer(billing_id, &balance);
}

/*
 * Ends a call that brought something new to the account and needs no admission:
 * checks that the account takes it and returns the balance, as of now.
 */
int64
ub_ledger_settle(text *billing_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbAccount account;
	UbBalance balance;

	ub_account_require_open(billing_id, snapshot, &account);
	ub_ledger_read(billing_id, snapshot, &balance);
	UnregisterSnapshot(snapshot);
	return ub_ledger_answer(billing_id, &balance);
}

static void
range_add(void *state, const UbDelta *delta)
{
	UbDelta *sum = ub_deltas_at(state, &delta->key);

	for (int i = 0; i < UB_SUMS; i++)
		sum->sums[i] += delta->sums[i];
}

/* Adds what is folded of the delta's hour to it. */
static void
range_add_folded(UbDelta *delta, text *billing_id, Snapshot snapshot)
{
	UbScan scan;
	ScanKeyData keys[3];

	ub_scan_key_text(&keys[0], 1, PointerGetDatum(billing_id));
	ub_scan_key_time(&keys[1], 2, BTEqualStrategyNumber,
					 TimestampTzGetDatum(delta->key.hour));
	ub_scan_key_text(&keys[2], 3,
					 PointerGetDatum(ub_value_text(delta->key.source)));
	ub_scan_begin(&scan, ub_catalog()->usage_hourly,
				  ub_catalog()->usage_hourly_pkey, snapshot, keys, 3);
	while (ub_scan_next(&scan))
	{
		UbDelta folded;

		ub_hour_load(scan.slot, &folded);
		if (folded.key.kind != delta->key.kind)
			continue;
		for (int i = 0; i < UB_SUMS; i++)
			delta->sums[i] += folded.sums[i];
	}
	ub_scan_end(&scan);
}

static bool
delta_is_large(const UbDelta *delta)
{
	for (int i = 0; i < UB_SUMS; i++)
	{
		if (delta->sums[i] > LEDGER_LARGE || delta->sums[i] < -LEDGER_LARGE)
			return true;
	}
	return false;
}

/*
 * Collects an account's pending deltas by key, with what others have appended
 * and not committed yet. That could be counted twice if it is committed right
 * now, which only refuses a little early. Returns its change of the balance.
 */
static int128
range_collect(UbDeltaSet *pending, text *billing_id, uint64 from,
			  Snapshot snapshot)
{
	int128 in_flight = 0;
	SnapshotData dirty;
	UbScan scan;

	InitDirtySnapshot(dirty);
	ub_deltas_scan(&scan, billing_id, from, &dirty);
	while (ub_scan_next(&scan))
	{
		UbDelta other;

		CHECK_FOR_INTERRUPTS();
		if (!TransactionIdIsValid(dirty.xmin))
			continue;
		ub_delta_load(scan.slot, &other);
		in_flight += other.sums[UB_SUM_CREDITS];
		range_add(pending, &other);
	}
	ub_scan_end(&scan);
	ub_deltas_visit(billing_id, from, snapshot, range_add, pending);
	return in_flight;
}

/*
 * Raises 22003 if the account's sums can't hold its deltas from index first up
 * to next, just appended.
 */
static void
ledger_check_range(List *deltas, int first, int next)
{
	UbDelta *delta = list_nth(deltas, first);
	text *billing_id = ub_value_text(delta->key.billing_id);
	UbDeltaSet *pending = ub_deltas_new();
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbBalance balance;
	int128 in_flight;

	ub_ledger_read(billing_id, snapshot, &balance);
	in_flight = range_collect(pending, billing_id, balance.from, snapshot);
	(void) ledger_in_range(balance.balance + in_flight, "The balance");
	for (int n = first; n < next; n++)
	{
		UbDelta sum;

		delta = list_nth(deltas, n);
		if (delta->key.kind == UB_KIND_GRANT)
			continue;
		sum = *ub_deltas_at(pending, &delta->key);
		range_add_folded(&sum, billing_id, snapshot);
		for (int i = UB_SUM_AMOUNT; i < UB_SUMS; i++)
			(void) ledger_in_range(sum.sums[i], "A sum of the hour");
	}
	UnregisterSnapshot(snapshot);
	ub_deltas_free(pending);
}

/* Whether the account had a large posting before, also one in flight. */
static bool
account_is_large(UbSlice billing_id)
{
	Relation rel;
	SnapshotData dirty;
	UbScan scan;
	ScanKeyData key;
	bool found;

	/* mostly there are none at all, also none being written */
	rel = table_open(ub_catalog()->large_account, AccessShareLock);
	found = RelationGetNumberOfBlocks(rel) > 0;
	table_close(rel, NoLock);
	if (!found)
		return false;

	InitDirtySnapshot(dirty);
	ub_scan_key_text(&key, 1, PointerGetDatum(ub_value_text(billing_id)));
	ub_scan_begin(&scan, ub_catalog()->large_account,
				  ub_catalog()->large_account_pkey, &dirty, &key, 1);
	found = ub_scan_next(&scan);
	ub_scan_end(&scan);
	return found;
}

static void
account_mark_large(UbSlice billing_id)
{
	Datum values[1] = {PointerGetDatum(ub_value_text(billing_id))};
	bool nulls[1] = {false};
	UbRows rows;

	ub_rows_begin(&rows, ub_catalog()->large_account);
	ub_rows_add(&rows, values, nulls);
	ub_rows_append(&rows);
	ub_rows_end(&rows);
	CommandCounterIncrement();
}

/*
 * Checks the sums of one account's deltas, from index first on, if the account
 * is or becomes large: under its turn, so that two can't pass each other. The
 * mark is set before the others' deltas are looked for, and looked for after
 * one's own are appended, so one of two sees the other. Returns the index of
 * the next account's first delta.
 */
static int
ledger_check_account(List *deltas, int first)
{
	UbSlice billing_id = ((UbDelta *) list_nth(deltas, first))->key.billing_id;
	UbDelta total = {0};
	bool any_large = false;
	int next = first;

	for (; next < list_length(deltas); next++)
	{
		const UbDelta *delta = list_nth(deltas, next);

		if (!ub_slices_equal(delta->key.billing_id, billing_id))
			break;
		for (int i = 0; i < UB_SUMS; i++)
			total.sums[i] += delta->sums[i];
		any_large = any_large || delta_is_large(delta);
	}
	any_large = any_large || delta_is_large(&total);
	if (!any_large && !account_is_large(billing_id))
		return next;

	(void) ub_ledger_take_turn(billing_id);
	if (!account_is_large(billing_id))
	{
		/* whoever was marking it gave up */
		if (!any_large)
			return next;
		account_mark_large(billing_id);
	}
	CommandCounterIncrement();
	ledger_check_range(deltas, first, next);
	return next;
}

/* Checks the sums of large accounts, whose deltas were just appended. */
void
ub_ledger_check_ranges(List *deltas)
{
	for (int i = 0; i < list_length(deltas);)
		i = ledger_check_account(deltas, i);
}

/* Tells the accounts' counters of deltas that were just appended. */
static void
ledger_tell_escrow(List *deltas)
{
	int next = 0;

	while (next < list_length(deltas))
	{
		UbSlice id = ((UbDelta *) list_nth(deltas, next))->key.billing_id;
		int128 taken = 0;
		int128 credits = 0;
		int rows = 0;

		for (; next < list_length(deltas); next++)
		{
			const UbDelta *delta = list_nth(deltas, next);

			if (!ub_slices_equal(delta->key.billing_id, id))
				break;
			credits += delta->sums[UB_SUM_CREDITS];
			taken -= Min(delta->sums[UB_SUM_CREDITS], 0);
			rows += delta->sums[UB_SUM_CREDITS] != 0;
		}
		if (rows > 0)
			ub_escrow_fact(id, taken, credits, rows);
	}
}

/*
 * Posts what one statement stored, whatever the balance: appends the deltas, in
 * one order of keys.
 */
void
ub_ledger_post(UbDeltaSet *set)
{
	List *deltas = ub_deltas_sorted(set);
	UbDeltaAppend append;

	if (deltas == NIL)
		return;
	ub_deltas_append_begin(&append);
	ub_deltas_append_rows(&append, deltas);
	ub_deltas_append_end(&append);
	ledger_tell_escrow(deltas);
	ub_ledger_check_ranges(deltas);
}

/*
 * Posts a set that has grown large and returns a new one to go on with, so that
 * a statement over many accounts and hours needs little memory.
 */
UbDeltaSet *
ub_ledger_post_if_many(UbDeltaSet *set)
{
	if (ub_deltas_count(set) < LEDGER_MOST_DELTAS)
		return set;
	ub_ledger_post(set);
	ub_deltas_free(set);
	return ub_deltas_new();
}

/* SQL: account_balance(billing_id, org_id, project_id) */
Datum
ub_account_balance(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 0);
	UbAccount account;
	int64 balance;
	int128 available;
	JsonbParseState *state;

	ub_access_account(&choice, GetActiveSnapshot(), &account);
	balance = ub_ledger_balance(account.billing_id, GetActiveSnapshot());

	ub_object_begin(&state);
	ub_object_text(&state, "billing_id", account.id);
	ub_object_text(&state, "org_id", account.org_id);
	ub_object_int(&state, "balance", balance);
	ub_object_int(&state, "credit_min", account.credit_min);
	available = (int128) balance - account.credit_min;
	ub_object_int(&state, "available",
				  ub_sum_fits(available) ? (int64) available :
					  available > 0		 ? PG_INT64_MAX :
										   PG_INT64_MIN);
	PG_RETURN_DATUM(ub_object_end(&state));
}

/* SQL: total_debited(billing_id, org_id, project_id) */
Datum
ub_total_debited(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 0);
	UbAccount account;
	UbBalance balance;

	ub_access_account(&choice, GetActiveSnapshot(), &account);
	ub_ledger_read(account.billing_id, GetActiveSnapshot(), &balance);
	PG_RETURN_INT64(ledger_in_range(balance.debited, "The sum of debits"));
}
