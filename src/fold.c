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

#include "access/genam.h"
#include "access/itup.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "delta.h"
#include "stats.h"
#include "sums.h"

#define FOLD_LOCKS 512

/* How many deltas a call folds at most of its own account. */
#define FOLD_IN_CALL 10000

/*
 * Tries for the lock under which an account is folded, and its hours are
 * written in any other way; it is held to the end of the (sub)transaction.
 */
bool
ub_fold_try_lock(UbSlice billing_id)
{
	LOCKTAG tag;
	uint32 slot = hash_bytes((const unsigned char *) billing_id.data,
							 billing_id.len) %
		FOLD_LOCKS;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, slot, UB_LOCK_FOLD);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/* What is being folded: the sums, and of which accounts. */
typedef struct Fold
{
	UbDeltaSet *sums;
	List *accounts; /* UbFoldedAccount *, in order */
} Fold;

/* The 64-bit form of a transaction id that is in use. */
static uint64
fold_full_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32 epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return U64FromFullTransactionId(
		FullTransactionIdFromEpochAndXid(epoch, xid));
}

/*
 * Takes up to limit of an account's deltas out of usage_delta, in the order of
 * their transactions from cursor->from on. The account's fold lock is held. The
 * cursor stays within the account if the limit ended it. Returns how many were
 * taken.
 *
 * What is left was appended by transactions that the snapshot doesn't see, so
 * none that had ended before the oldest one still running.
 */
static uint64
fold_take(Fold *fold, text *billing_id, uint64 limit, UbFoldCursor *cursor)
{
	/* a transaction that keeps its snapshot reads the sums by it afterwards */
	Snapshot snapshot = RegisterSnapshot(IsolationUsesXactSnapshot() ?
											 GetTransactionSnapshot() :
											 GetLatestSnapshot());
	CommandId command = GetCurrentCommandId(true);
	UbFoldedAccount *account = palloc(sizeof(UbFoldedAccount));
	UbScan scan;
	UbDelta row;
	uint64 taken = 0;

	cursor->within = false;
	account->billing_id = ub_value_slice(billing_id);
	account->below = Min(fold_full_xid(snapshot->xmin), cursor->hold);
	ub_deltas_scan(&scan, billing_id, cursor->from, snapshot);
	while (ub_scan_next(&scan))
	{
		TM_FailureData failure;
		TM_Result result;
		uint64 xact;

		CHECK_FOR_INTERRUPTS();
		ub_delta_load(scan.slot, &row);
		xact = U64FromFullTransactionId(
			DatumGetFullTransactionId(scan.slot->tts_values[UB_DELTA_XACT]));
		if (taken >= limit)
		{
			/* what this snapshot didn't see is not left behind by a later one */
			cursor->within = true;
			cursor->from = xact;
			cursor->hold = account->below;
			account->below = Min(account->below, xact);
			break;
		}
		/* whoever deletes the row has it; others pass on */
		result = table_tuple_delete(scan.heap, &scan.slot->tts_tid, command,
									snapshot, InvalidSnapshot, false, &failure,
									false);
		if (result == TM_Ok)
		{
			UbDelta *sum = ub_deltas_at(fold->sums, &row.key);

			for (int i = 0; i < UB_SUMS; i++)
				sum->sums[i] += row.sums[i];
			taken++;
		}
		else if (result == TM_BeingModified)
			account->below = cursor->hold = Min(account->below, xact);
	}
	ub_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	if (taken > 0)
	{
		fold->accounts = lappend(fold->accounts, account);
		ub_stats_add(UB_STAT_FOLDS, 1);
		ub_stats_add(UB_STAT_DELTAS_FOLDED, taken);
	}
	return taken;
}

/* Writes what was taken to where it belongs. */
static void
fold_write(const Fold *fold)
{
	ub_sums_add(fold->accounts, ub_deltas_sorted(fold->sums));
}

/*
 * Returns the account of the first entry in usage_delta's index after the given
 * account (null: the very first), null if there is none. Entries of rows that
 * are gone count too: to step over them is what their account's floor is for.
 */
text *
ub_deltas_next_account(text *after)
{
	Relation heap = table_open(ub_catalog()->usage_delta, AccessShareLock);
	Relation index = index_open(ub_catalog()->usage_delta_key, AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan;
	ScanKeyData key;
	text *found = NULL;

	if (after != NULL)
		ub_scan_key_text_after(&key, 1, PointerGetDatum(after));
	scan = ub_index_beginscan(heap, index, snapshot, after != NULL ? 1 : 0);
	scan->xs_want_itup = true;
	index_rescan(scan, &key, after != NULL ? 1 : 0, NULL, 0);
	if (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool isnull;

		found = DatumGetTextPCopy(
			index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, NoLock);
	table_close(heap, NoLock);
	return found;
}

static bool
fold_is_skipped(const UbFoldCursor *cursor)
{
	UbSlice billing_id = ub_value_slice(cursor->billing_id);
	ListCell *cell;

	foreach (cell, cursor->skip)
	{
		if (ub_slice_is(billing_id, lfirst(cell)))
			return true;
	}
	return false;
}

/* Where an account's deltas begin, as of now. */
static uint64
fold_floor(text *billing_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint64 from = ub_deltas_floor(billing_id, snapshot);

	UnregisterSnapshot(snapshot);
	return from;
}

/*
 * Moves the cursor to the next account that can be folded, and takes its lock.
 * False, with cursor->done set, if there is none.
 */
static bool
fold_next(UbFoldCursor *cursor)
{
	if (cursor->within && !fold_is_skipped(cursor) &&
		ub_fold_try_lock(ub_value_slice(cursor->billing_id)))
		return true;
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		cursor->within = false;
		cursor->billing_id = ub_deltas_next_account(cursor->billing_id);
		cursor->hold = UINT64_MAX;
		cursor->done = cursor->billing_id == NULL;
		if (cursor->done)
			return false;
		if (fold_is_skipped(cursor) ||
			!ub_fold_try_lock(ub_value_slice(cursor->billing_id)))
			continue;
		cursor->from = fold_floor(cursor->billing_id);
		return true;
	}
}

/*
 * Folds up to limit deltas, going on where *cursor says, and moves the cursor;
 * cursor->done is set when nothing is left beyond it. The cursor's memory is
 * the current context. The caller's transaction decides about all of it.
 */
uint64
ub_deltas_fold(UbFoldCursor *cursor, uint64 limit)
{
	Fold fold = {ub_deltas_new(), NIL};
	uint64 taken = 0;

	while (taken < limit && fold_next(cursor))
		taken += fold_take(&fold, cursor->billing_id, limit - taken, cursor);
	fold_write(&fold);
	ub_deltas_free(fold.sums);
	return taken;
}

/* Folds an account's deltas from "from" on. Its fold lock is held. */
static uint64
fold_account(text *billing_id, uint64 from)
{
	Fold fold = {ub_deltas_new(), NIL};
	UbFoldCursor cursor = {.from = from, .hold = UINT64_MAX};
	uint64 taken = fold_take(&fold, billing_id, FOLD_IN_CALL, &cursor);

	fold_write(&fold);
	ub_deltas_free(fold.sums);
	return taken;
}

/*
 * Folds deltas of one account, if nobody else does, and returns how many. The
 * caller's transaction decides about them.
 */
uint64
ub_deltas_fold_one(text *billing_id)
{
	if (!ub_fold_try_lock(ub_value_slice(billing_id)))
		return 0;
	return fold_account(billing_id, fold_floor(billing_id));
}

/*
 * Folds the deltas of one account from its floor on, if nobody else does. A
 * failure is undone and logged, not raised: the caller's work doesn't need it.
 */
bool
ub_deltas_fold_account(text *billing_id, uint64 from)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool folded = true;

	/* the sums may have changed since a transaction's own snapshot */
	if (IsolationUsesXactSnapshot() ||
		!ub_fold_try_lock(ub_value_slice(billing_id)))
		return false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		(void) fold_account(billing_id, from);
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
