/*
 * sums.c
 *		Adding what is folded to credit_balance and usage_hourly.
 *
 * Whoever adds holds the accounts' fold locks, so nobody else changes their
 * rows. They are looked up and updated directly: a busy account is folded often,
 * a few deltas at a time.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "query.h"
#include "sums.h"

/* Columns of usage_hourly: the key, then the sums from UB_SUM_AMOUNT on. */
#define HOURLY_KEY	   4
#define HOURLY_COLUMNS (HOURLY_KEY + UB_SUMS - UB_SUM_AMOUNT)

/*
 * Sums that have come half the way to the end of bigint make their account a
 * large one, see ub_ledger_post.
 */
#define SUMS_LARGE (INT64CONST(1) << 62)
#define SUMS_MARK_LARGE \
	" INSERT INTO usage_billing.large_account" \
	" SELECT DISTINCT billing_id FROM folded WHERE large ON CONFLICT DO NOTHING"

/* A table that sums are added to. */
typedef struct SumsTable
{
	MemoryContext context;
	Relation rel;
	EState *estate;
	ResultRelInfo *info;
	TupleTableSlot *row;
	UbScan scan;
} SumsTable;

/*
 * What does the same where somebody has put triggers or constraints on the
 * tables, and in a transaction whose snapshot may be older than the rows.
 */
static UbQuery fold_hours = {
	.text =
		"WITH folded AS (INSERT INTO usage_billing.usage_hourly AS h"
		" SELECT * FROM folded_hours"
		" ON CONFLICT (billing_id, hour, source, type) DO UPDATE SET"
		" amount = h.amount + excluded.amount,"
		" events = h.events + excluded.events,"
		" viewing_seconds = h.viewing_seconds + excluded.viewing_seconds,"
		" viewing_bytes = h.viewing_bytes + excluded.viewing_bytes,"
		" egress_seconds = h.egress_seconds + excluded.egress_seconds,"
		" egress_seconds_additional_targets = h.egress_seconds_additional_targets"
		" + excluded.egress_seconds_additional_targets,"
		" egress_bytes = h.egress_bytes + excluded.egress_bytes"
		" RETURNING h.billing_id, greatest(h.amount, h.viewing_seconds,"
		" h.viewing_bytes, h.egress_seconds, h.egress_seconds_additional_targets,"
		" h.egress_bytes) > 4611686018427387904 AS large)" SUMS_MARK_LARGE,
	.rows_name = "folded_hours"};

static UbQuery fold_balances = {
	.text = "WITH folded AS (INSERT INTO usage_billing.credit_balance AS b"
			" SELECT * FROM folded_balances"
			" ON CONFLICT (billing_id) DO UPDATE SET"
			" balance = b.balance + excluded.balance,"
			" debited = b.debited + excluded.debited,"
			" folded_below = excluded.folded_below,"
			" folded_by = excluded.folded_by"
			" RETURNING b.billing_id, abs(b.balance) > 4611686018427387904"
			" AS large)" SUMS_MARK_LARGE,
	.rows_name = "folded_balances"};

static UbQuery mark_large = {
	.text = "INSERT INTO usage_billing.large_account SELECT * FROM large_accounts"
			" ON CONFLICT DO NOTHING",
	.rows_name = "large_accounts"};

/* The row of usage_hourly that a delta makes. */
static void
hour_values(const UbDelta *delta, Datum *values)
{
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
		values[HOURLY_KEY + i - UB_SUM_AMOUNT] = Int64GetDatum(
			(int64) delta->sums[i]);
	}
}

/* The row of credit_balance that an account's sums make. */
static void
balance_values(const UbFoldedAccount *account, int128 balance, int128 debited,
			   Datum *values)
{
	values[0] = PointerGetDatum(ub_value_text(account->billing_id));
	values[UB_BALANCE_BALANCE] = ub_sum_numeric(balance);
	values[UB_BALANCE_DEBITED] = ub_sum_numeric(debited);
	values[UB_BALANCE_FOLDED_BELOW] =
		FullTransactionIdGetDatum(FullTransactionIdFromU64(account->below));
	values[UB_BALANCE_FOLDED_BY] =
		FullTransactionIdGetDatum(GetCurrentFullTransactionId());
}

/*
 * Adds up an account's deltas, the first of which is next, and returns the index
 * of the one after them. Deltas and accounts have the same order.
 */
static int
account_sums(const UbFoldedAccount *account, List *deltas, int next,
			 int128 *balance, int128 *debited)
{
	*balance = *debited = 0;
	for (; next < list_length(deltas); next++)
	{
		const UbDelta *delta = list_nth(deltas, next);

		if (!ub_slices_equal(delta->key.billing_id, account->billing_id))
			break;
		*balance += delta->sums[UB_SUM_CREDITS];
		*debited += delta->sums[UB_SUM_DEBITED];
	}
	return next;
}

static void
sums_by_query(List *accounts, List *deltas)
{
	Datum values[HOURLY_COLUMNS];
	bool nulls[HOURLY_COLUMNS] = {0};
	UbRows rows;
	int next = 0;
	ListCell *cell;

	ub_rows_begin(&rows, ub_catalog()->credit_balance);
	foreach (cell, accounts)
	{
		int128 balance;
		int128 debited;

		next = account_sums(lfirst(cell), deltas, next, &balance, &debited);
		balance_values(lfirst(cell), balance, debited, values);
		ub_rows_add(&rows, values, nulls);
	}
	if (rows.count > 0)
		ub_query_write(&fold_balances, &rows, SPI_OK_INSERT);
	ub_rows_end(&rows);

	ub_rows_begin(&rows, ub_catalog()->usage_hourly);
	foreach (cell, deltas)
	{
		const UbDelta *delta = lfirst(cell);

		if (delta->key.kind == UB_KIND_GRANT)
			continue;
		hour_values(delta, values);
		ub_rows_add(&rows, values, nulls);
	}
	if (rows.count > 0)
		ub_query_write(&fold_hours, &rows, SPI_OK_INSERT);
	ub_rows_end(&rows);
}

/* Opens a table, to be looked up with the given snapshot. */
static void
table_begin(SumsTable *table, Oid relid, Oid index, Snapshot snapshot,
			int nkeys)
{
	table->context = CurrentMemoryContext;
	table->rel = table_open(relid, RowExclusiveLock);
	table->estate = CreateExecutorState();
	table->info = makeNode(ResultRelInfo);
	InitResultRelInfo(table->info, table->rel, 1, NULL, 0);
	ExecOpenIndices(table->info, false);
	table->row = MakeSingleTupleTableSlot(RelationGetDescr(table->rel),
										  &TTSOpsVirtual);
	table->scan.heap = table->rel;
	table->scan.index = index_open(index, AccessShareLock);
	table->scan.slot = table_slot_create(table->rel, NULL);
	table->scan.desc = ub_index_beginscan(table->rel, table->scan.index,
										  snapshot, nkeys);
}

static void
table_end(SumsTable *table)
{
	ub_scan_end(&table->scan);
	ExecCloseIndices(table->info);
	ExecDropSingleTupleTableSlot(table->row);
	FreeExecutorState(table->estate);
}

/* Finds the row with the keys; its columns are in table->scan.slot. */
static bool
table_find(SumsTable *table, ScanKey keys, int nkeys)
{
	/* what the scan allocates on its way is kept as long as it */
	MemoryContext old = MemoryContextSwitchTo(table->context);
	bool found;

	index_rescan(table->scan.desc, keys, nkeys, NULL, 0);
	found = ub_scan_next(&table->scan);
	MemoryContextSwitchTo(old);
	if (found)
		slot_getallattrs(table->scan.slot);
	return found;
}

/* Stores a row: instead of the one found, or a new one. */
static void
table_store(SumsTable *table, bool found, Datum *values)
{
	CommandId command = GetCurrentCommandId(true);
	TupleTableSlot *row = table->row;
	int columns = RelationGetDescr(table->rel)->natts;

	ExecClearTuple(row);
	memcpy(row->tts_values, values, columns * sizeof(Datum));
	memset(row->tts_isnull, false, columns);
	ExecStoreVirtualTuple(row);
	if (found)
	{
		ItemPointerData tid = table->scan.slot->tts_tid;
		TM_FailureData failure;
		LockTupleMode mode;
		UB_UPDATE_INDEXES indexes;
		TM_Result result = table_tuple_update(table->rel, &tid, row, command,
											  table->scan.desc->xs_snapshot,
											  InvalidSnapshot, true, &failure,
											  &mode, &indexes);

		if (result != TM_Ok)
			elog(ERROR, "sums of usage_billing were changed by somebody else");
		ub_insert_index_tuples_updated(table->info, row, table->estate,
									   indexes);
	}
	else
	{
		table_tuple_insert(table->rel, row, command, 0, NULL);
		ub_insert_index_tuples(table->info, row, table->estate);
	}
	ResetPerTupleExprContext(table->estate);
}

/* Adds to an account's balance. Returns whether it is a large one. */
static bool
balance_add(SumsTable *table, const UbFoldedAccount *account, int128 balance,
			int128 debited)
{
	Datum values[UB_BALANCE_COLUMNS];
	ScanKeyData key;
	bool found;

	ub_scan_key_text(&key, 1,
					 PointerGetDatum(ub_value_text(account->billing_id)));
	found = table_find(table, &key, 1);
	if (found)
	{
		Datum *stored = table->scan.slot->tts_values;

		balance += ub_sum_of_numeric(stored[UB_BALANCE_BALANCE]);
		debited += ub_sum_of_numeric(stored[UB_BALANCE_DEBITED]);
	}
	balance_values(account, balance, debited, values);
	table_store(table, found, values);
	return balance > SUMS_LARGE || balance < -SUMS_LARGE;
}

/* Adds to an hour. Returns whether its account is a large one. */
static bool
hour_add(SumsTable *table, const UbDelta *delta)
{
	Datum values[HOURLY_COLUMNS];
	ScanKeyData keys[4];
	UbDelta sum = *delta;
	bool large = false;
	bool found;

	hour_values(delta, values);
	ub_scan_key_text(&keys[0], 1, values[0]);
	ub_scan_key_time(&keys[1], 2, BTEqualStrategyNumber, values[1]);
	ub_scan_key_text(&keys[2], 3, values[2]);
	ub_scan_key_enum(&keys[3], 4, values[3]);
	found = table_find(table, keys, 4);
	if (found)
	{
		UbDelta stored;

		ub_hour_load(table->scan.slot, &stored);
		for (int i = UB_SUM_AMOUNT; i < UB_SUMS; i++)
			sum.sums[i] += stored.sums[i];
		hour_values(&sum, values);
	}
	table_store(table, found, values);
	for (int i = UB_SUM_AMOUNT; i < UB_SUMS; i++)
		large = large || (i != UB_SUM_EVENTS && sum.sums[i] > SUMS_LARGE);
	return large;
}

static void
sums_directly(List *accounts, List *deltas)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "usage_billing sum",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	SumsTable balances;
	SumsTable hours;
	UbRows large;
	bool nulls[1] = {false};
	int next = 0;
	ListCell *cell;

	ub_rows_begin(&large, ub_catalog()->large_account);
	table_begin(&balances, ub_catalog()->credit_balance,
				ub_catalog()->credit_balance_pkey, snapshot, 1);
	table_begin(&hours, ub_catalog()->usage_hourly,
				ub_catalog()->usage_hourly_pkey, snapshot, 4);
	old = MemoryContextSwitchTo(context);
	foreach (cell, accounts)
	{
		const UbFoldedAccount *account = lfirst(cell);
		int first = next;
		int128 balance;
		int128 debited;
		bool is_large;

		next = account_sums(account, deltas, next, &balance, &debited);
		is_large = balance_add(&balances, account, balance, debited);
		for (int i = first; i < next; i++)
		{
			const UbDelta *delta = list_nth(deltas, i);

			if (delta->key.kind != UB_KIND_GRANT)
				is_large = hour_add(&hours, delta) || is_large;
		}
		if (is_large)
		{
			Datum id = PointerGetDatum(ub_value_text(account->billing_id));

			ub_rows_add(&large, &id, nulls);
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	table_end(&balances);
	table_end(&hours);
	MemoryContextDelete(context);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	if (large.count > 0)
		ub_query_write(&mark_large, &large, SPI_OK_INSERT);
	ub_rows_end(&large);
}

/* Whether somebody has put something on the table that a query obeys. */
static bool
table_is_plain(Oid relid)
{
	Relation rel = table_open(relid, RowExclusiveLock);
	const TupleConstr *constraints = RelationGetDescr(rel)->constr;
	bool result = rel->trigdesc == NULL && !rel->rd_rel->relhasrules &&
		!rel->rd_rel->relforcerowsecurity &&
		(constraints == NULL || constraints->num_check == 0);

	table_close(rel, NoLock);
	return result;
}

/*
 * Adds the sums of deltas, in the order of their keys, to those of the accounts,
 * in the same order and without repetitions. Their fold locks are held.
 */
void
ub_sums_add(List *accounts, List *deltas)
{
	if (accounts == NIL)
		return;
	if (IsolationUsesXactSnapshot() ||
		!table_is_plain(ub_catalog()->credit_balance) ||
		!table_is_plain(ub_catalog()->usage_hourly))
		sums_by_query(accounts, deltas);
	else
		sums_directly(accounts, deltas);
}
