/*
 * fold.c
 *		Folding: moving deltas into credit_balance and usage_hourly, each
 *		exactly once.
 *
 * A delta is moved by whoever deletes its row, in the transaction that adds
 * it to the sums; a reader's snapshot sees it here or there, never in both.
 * One folder at a time works on an account: folders try for its lock and pass
 * it over if somebody else has it, so folding never makes anybody wait. The
 * locks are shared by many accounts each, because a pass goes over more
 * accounts than the server's lock table could hold.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "delta.h"
#include "errors.h"
#include "query.h"

#define FOLD_LOCKS 512

/* Columns of usage_hourly: the key, then the sums from UB_SUM_AMOUNT on. */
#define HOURLY_SUMS	   4
#define HOURLY_COLUMNS (HOURLY_SUMS + UB_SUMS - UB_SUM_AMOUNT)

/* How many deltas a call folds at most of its own account. */
#define FOLD_IN_CALL 10000

static UbQuery fold_hours = {
	.text = "INSERT INTO usage_billing.usage_hourly AS h"
			" SELECT * FROM folded_hours"
			" ON CONFLICT (billing_id, hour, source, type) DO UPDATE SET"
			" amount = h.amount + excluded.amount,"
			" events = h.events + excluded.events,"
			" viewing_seconds = h.viewing_seconds + excluded.viewing_seconds,"
			" viewing_bytes = h.viewing_bytes + excluded.viewing_bytes,"
			" egress_seconds = h.egress_seconds + excluded.egress_seconds,"
			" egress_seconds_additional_targets = h.egress_seconds_additional_targets"
			" + excluded.egress_seconds_additional_targets,"
			" egress_bytes = h.egress_bytes + excluded.egress_bytes",
	.rows_name = "folded_hours"};

static UbQuery fold_balances = {
	.text = "INSERT INTO usage_billing.credit_balance AS b"
			" SELECT * FROM folded_balances"
			" ON CONFLICT (billing_id) DO UPDATE SET"
			" balance = b.balance + excluded.balance,"
			" debited = b.debited + excluded.debited",
	.rows_name = "folded_balances"};

/*
 * Tries for the lock under which an account is folded; it is held to the end
 * of the (sub)transaction.
 */
static bool
fold_try_lock(UbSlice billing_id)
{
	LOCKTAG tag;
	uint32 slot = hash_bytes((const unsigned char *) billing_id.data,
							 billing_id.len) %
		FOLD_LOCKS;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, slot, UB_LOCK_FOLD);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* Writes the hours of sorted deltas into usage_hourly. */
static void
fold_write_hours(List *deltas)
{
	UbRows rows;
	ListCell *cell;

	ub_rows_begin(&rows, ub_catalog()->usage_hourly);
	foreach (cell, deltas)
	{
		const UbDelta *delta = lfirst(cell);
		Datum values[HOURLY_COLUMNS];
		bool nulls[HOURLY_COLUMNS] = {0};

		if (delta->key.kind == UB_KIND_GRANT)
			continue;
		values[0] = PointerGetDatum(ub_value_text(delta->key.billing_id));
		values[1] = TimestampTzGetDatum(delta->key.hour);
		values[2] = PointerGetDatum(ub_value_text(delta->key.source));
		values[3] = ObjectIdGetDatum(delta->key.kind == UB_KIND_FEATURE ?
										 ub_catalog()->usage_type_feature :
										 ub_catalog()->usage_type_credit);
		for (int i = UB_SUM_AMOUNT; i < UB_SUMS; i++)
		{
			if (!ub_sum_fits(delta->sums[i]))
				ub_error_sum_range("the sum of an hour");
			values[HOURLY_SUMS + i - UB_SUM_AMOUNT] = Int64GetDatum(
				(int64) delta->sums[i]);
		}
		ub_rows_add(&rows, values, nulls);
	}
	if (rows.count > 0)
		ub_query_write(&fold_hours, &rows, SPI_OK_INSERT);
	ub_rows_end(&rows);
}

static bool
same_account(const UbDelta *a, const UbDelta *b)
{
	return ub_slices_equal(a->key.billing_id, b->key.billing_id);
}

/* Writes the balances of sorted deltas into credit_balance. */
static void
fold_write_balances(List *deltas)
{
	UbRows rows;
	int n = list_length(deltas);

	ub_rows_begin(&rows, ub_catalog()->credit_balance);
	for (int i = 0; i < n;)
	{
		const UbDelta *first = list_nth(deltas, i);
		int128 balance = 0;
		int128 debited = 0;
		Datum values[3];
		bool nulls[3] = {0};

		for (; i < n && same_account(first, list_nth(deltas, i)); i++)
		{
			const UbDelta *delta = list_nth(deltas, i);

			balance += delta->sums[UB_SUM_CREDITS];
			debited += delta->sums[UB_SUM_DEBITED];
		}
		if (balance == 0 && debited == 0)
			continue;
		values[0] = PointerGetDatum(ub_value_text(first->key.billing_id));
		values[1] = ub_sum_numeric(balance);
		values[2] = ub_sum_numeric(debited);
		ub_rows_add(&rows, values, nulls);
	}
	if (rows.count > 0)
		ub_query_write(&fold_balances, &rows, SPI_OK_INSERT);
	ub_rows_end(&rows);
}

/*
 * Takes up to limit deltas out of usage_delta into set, in key order, from
 * the rows that keys select. Accounts that somebody else is folding are
 * passed over. Returns how many were taken; *stopped is set, and *cursor
 * tells where to go on, if the limit ended it.
 */
static uint64
fold_take(UbDeltaSet *set, ScanKey keys, int nkeys, uint64 limit,
		  UbFoldCursor *cursor, bool *stopped)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	CommandId command = GetCurrentCommandId(true);
	UbScan scan;
	UbDelta row;
	UbDelta account = {0};
	bool locked = false;
	uint64 taken = 0;

	*stopped = false;
	ub_scan_begin(&scan, ub_catalog()->usage_delta,
				  ub_catalog()->usage_delta_key, snapshot, keys, nkeys);
	while (ub_scan_next(&scan))
	{
		TM_FailureData failure;

		CHECK_FOR_INTERRUPTS();
		ub_delta_load(scan.slot, &row);
		if (account.key.billing_id.data == NULL ||
			!same_account(&account, &row))
		{
			account.key.billing_id = ub_value_slice(
				ub_value_text(row.key.billing_id));
			locked = fold_try_lock(row.key.billing_id);
		}
		if (!locked)
			continue;
		if (taken >= limit)
		{
			cursor->billing_id = ub_value_text(row.key.billing_id);
			cursor->hour = row.key.hour;
			*stopped = true;
			break;
		}
		/* whoever deletes the row has it; others pass on */
		if (table_tuple_delete(scan.heap, &scan.slot->tts_tid, command,
							   snapshot, InvalidSnapshot, false, &failure,
							   false) == TM_Ok)
		{
			UbDelta *sum = ub_deltas_at(set, &row.key);

			for (int i = 0; i < UB_SUMS; i++)
				sum->sums[i] += row.sums[i];
			taken++;
		}
	}
	ub_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return taken;
}

/* Writes what was taken to where it belongs. */
static void
fold_write(UbDeltaSet *set)
{
	List *deltas = ub_deltas_sorted(set);

	fold_write_balances(deltas);
	fold_write_hours(deltas);
}

/*
 * Folds up to limit deltas, going on where *cursor says, and moves the cursor;
 * cursor->done is set when nothing is left beyond it. The cursor's memory is
 * the current context. The caller's transaction decides about all of it.
 */
uint64
ub_deltas_fold(UbFoldCursor *cursor, uint64 limit)
{
	UbDeltaSet *set = ub_deltas_new();
	uint64 taken = 0;
	bool stopped = false;
	ScanKeyData keys[2];

	if (cursor->billing_id != NULL)
	{
		ub_scan_key_text(&keys[0], 1, PointerGetDatum(cursor->billing_id));
		ub_scan_key_time(&keys[1], 2, BTGreaterEqualStrategyNumber,
						 TimestampTzGetDatum(cursor->hour));
		taken = fold_take(set, keys, 2, limit, cursor, &stopped);
	}
	if (!stopped)
	{
		int nkeys = 0;

		if (cursor->billing_id != NULL)
			ub_scan_key_text_after(&keys[nkeys++], 1,
								   PointerGetDatum(cursor->billing_id));
		taken += fold_take(set, keys, nkeys, limit - taken, cursor, &stopped);
	}
	cursor->done = !stopped;
	fold_write(set);
	ub_deltas_free(set);
	return taken;
}

/*
 * Folds the deltas of one account, if nobody else does. A failure is undone
 * and logged, not raised: the caller's work doesn't need it.
 */
bool
ub_deltas_fold_account(text *billing_id)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool folded = true;

	if (!fold_try_lock(ub_value_slice(billing_id)))
		return false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		UbDeltaSet *set = ub_deltas_new();
		UbFoldCursor cursor = {0};
		ScanKeyData key;
		bool stopped;

		ub_scan_key_text(&key, 1, PointerGetDatum(billing_id));
		fold_take(set, &key, 1, FOLD_IN_CALL, &cursor, &stopped);
		fold_write(set);
		ub_deltas_free(set);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("folding of an account's usage failed"),
				 errdetail("%s", error->message)));
		folded = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return folded;
}
