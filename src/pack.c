/*
 * pack.c
 *		Putting an account's hours close together on disk.
 *
 * Folding appends the hours of all accounts as they pass, so an account's days
 * lie scattered over as many pages as they have hours, and a reader of a month
 * fetches hundreds. Once a day (UTC) is over, its rows are written anew,
 * account by account. That is for speed only: an account that somebody else
 * works on is passed over, and so are rows that come later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "delta.h"
#include "pack.h"
#include "query.h"

/* How long usage of a day may come late and still be packed with it. */
#define PACK_GRACE (2 * USECS_PER_HOUR)

/* How many accounts one step looks at, and about how many rows it moves. */
#define PACK_ACCOUNTS 200
#define PACK_ROWS	  20000

/* Rows of an account that lie on few pages, 25 or more on each, stay. */
#define PACK_FEW_PAGES	   2
#define PACK_ROWS_ON_PAGES 25

static UbQuery packed_until = {
	.text = "SELECT done_until FROM usage_billing.maintenance_duty WHERE duty = 'pack_hours'",
	.nargs = 0};

/* Passes over a row that another transaction has changed: it is about the same. */
static UbQuery mark_packed = {
	.text = "UPDATE usage_billing.maintenance_duty SET done_until = $1"
			" WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_billing.maintenance_duty"
			" WHERE duty = 'pack_hours' FOR UPDATE SKIP LOCKED))",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID}};

static UbQuery look_at_accounts = {
	.text = "SELECT a.billing_id, h.hours, h.pages"
			" FROM (SELECT billing_id FROM usage_billing.billing_account"
			" WHERE billing_id > $1 ORDER BY billing_id LIMIT $4) AS a,"
			" LATERAL (SELECT count(*) AS hours, count(DISTINCT (ctid::text::point)[0]) AS pages"
			" FROM usage_billing.usage_hourly AS u WHERE u.billing_id = a.billing_id"
			" AND u.hour >= $2 AND u.hour < $3) AS h"
			" ORDER BY a.billing_id",
	.nargs = 4,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID}};

static UbQuery move_hours = {
	.text = "WITH moved AS (DELETE FROM usage_billing.usage_hourly"
			" WHERE billing_id = ANY ($1) AND hour >= $2 AND hour < $3 RETURNING *)"
			" INSERT INTO usage_billing.usage_hourly"
			" SELECT * FROM moved ORDER BY billing_id, hour, source, type",
	.nargs = 3,
	.argtypes = {TEXTARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID}};

/*
 * Tells which hours are to be packed: those of whole days since the last time.
 * False if there are none.
 */
bool
ub_pack_period(TimestampTz *from, TimestampTz *until)
{
	TimestampTz late = GetCurrentTimestamp() - PACK_GRACE;
	bool isnull = true;

	/* TimestampTz counts from a midnight in UTC */
	*until = late - late % USECS_PER_DAY;
	SPI_connect();
	if (ub_query_read(&packed_until, NULL, NULL, GetActiveSnapshot()) > 0)
		*from = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
												  SPI_tuptable->tupdesc, 1,
												  &isnull));
	if (isnull)
		*from = DT_NOBEGIN;
	SPI_finish();
	return *from < *until;
}

/* Puts accounts from the query's result into group, until they have enough. */
static void
pack_choose(UbPackGroup *group)
{
	TupleDesc desc = SPI_tuptable->tupdesc;
	int64 rows = 0;

	for (uint64 i = 0; i < SPI_processed && rows < PACK_ROWS; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		bool isnull;
		Datum billing_id = SPI_getbinval(tuple, desc, 1, &isnull);
		int64 hours = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		int64 pages = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));

		group->last = DatumGetTextPCopy(billing_id);
		if (pages <= PACK_FEW_PAGES + hours / PACK_ROWS_ON_PAGES)
			continue;
		group->scattered = lappend(group->scattered, group->last);
		rows += hours;
	}
}

/*
 * Looks at the accounts that follow after (null: the first ones). False if
 * there are none. The group is in the current memory context.
 */
bool
ub_pack_look(text *after, TimestampTz from, TimestampTz until,
			 UbPackGroup *group)
{
	MemoryContext context = CurrentMemoryContext;
	Datum values[4];

	memset(group, 0, sizeof(UbPackGroup));
	values[0] = after ? PointerGetDatum(after) : CStringGetTextDatum("");
	values[1] = TimestampTzGetDatum(from);
	values[2] = TimestampTzGetDatum(until);
	values[3] = Int64GetDatum(PACK_ACCOUNTS);
	SPI_connect();
	if (ub_query_read(&look_at_accounts, values, NULL, GetActiveSnapshot()) > 0)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		pack_choose(group);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return group->last != NULL;
}

/*
 * Moves the hours of those accounts in the group that nobody else works on, and
 * returns how many. Nobody writes an account's hours without its fold lock.
 */
uint64
ub_pack_move(const UbPackGroup *group, TimestampTz from, TimestampTz until)
{
	Datum ids[PACK_ACCOUNTS];
	int n = 0;
	Datum values[3];
	Snapshot snapshot;
	uint64 moved;
	ListCell *cell;

	foreach (cell, group->scattered)
	{
		if (ub_fold_try_lock(ub_value_slice(lfirst(cell))))
			ids[n++] = PointerGetDatum(lfirst(cell));
	}
	if (n == 0)
		return 0;

	values[0] = PointerGetDatum(construct_array(ids, n, TEXTOID, -1, false,
												TYPALIGN_INT));
	values[1] = TimestampTzGetDatum(from);
	values[2] = TimestampTzGetDatum(until);
	/* not older than the locks */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SPI_connect();
	moved = ub_query_change(&move_hours, values, NULL, snapshot, SPI_OK_INSERT);
	SPI_finish();
	UnregisterSnapshot(snapshot);
	return moved;
}

/* Remembers up to when all is packed. */
void
ub_pack_done(TimestampTz until)
{
	Datum value = TimestampTzGetDatum(until);

	SPI_connect();
	(void) ub_query_change(&mark_packed, &value, NULL, InvalidSnapshot,
						   SPI_OK_UPDATE);
	SPI_finish();
}
