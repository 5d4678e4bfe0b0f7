/*
 * storage.c
 *		Storage usage of organisations: refresh, recount and reading.
 *
 * A recount puts totals right by appending the difference between a count and
 * what the derived tables held in the same snapshot. It touches no row that a
 * writer or a refresh works on, so nobody waits and nothing is counted twice.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "errors.h"
#include "source.h"
#include "stats.h"
#include "storage.h"

#define STORAGE_DIFFERENCE(condition) \
	"INSERT INTO usage_billing.storage_delta" \
	" SELECT org_id, source_id, kind, sum(files), sum(bytes), sum(seconds) FROM (" \
	"SELECT org_id, source_id, kind, files, bytes, seconds FROM counted" \
	" UNION ALL SELECT org_id, source_id, kind, -files, -bytes, -seconds" \
	" FROM usage_billing.storage_total WHERE source_id = $1" condition \
	" UNION ALL SELECT org_id, source_id, kind, -files, -bytes, -seconds" \
	" FROM usage_billing.storage_delta WHERE source_id = $1" condition \
	") AS sums GROUP BY 1, 2, 3 HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(seconds) <> 0"

static UbQuery difference_of_all = {
	.text = STORAGE_DIFFERENCE(""),
	.nargs = 1,
	.argtypes = {UUIDOID},
	.rows_name = "counted"};

static UbQuery difference_of_org = {
	.text = STORAGE_DIFFERENCE(" AND org_id = $2"),
	.nargs = 2,
	.argtypes = {UUIDOID, TEXTOID},
	.rows_name = "counted"};

static UbQuery mark_counted = {
	.text = "INSERT INTO usage_billing.storage_counted VALUES ($1, now())"
			" ON CONFLICT (source_id) DO UPDATE SET counted_at = excluded.counted_at",
	.nargs = 1,
	.argtypes = {UUIDOID}};

static UbQuery mark_uncounted = {
	.text = "DELETE FROM usage_billing.storage_counted WHERE source_id = $1",
	.nargs = 1,
	.argtypes = {UUIDOID}};

static UbQuery forget_source = {
	.text = "WITH totals AS (DELETE FROM usage_billing.storage_total WHERE source_id = $1),"
			" deltas AS (DELETE FROM usage_billing.storage_delta WHERE source_id = $1),"
			" counted AS (DELETE FROM usage_billing.storage_counted WHERE source_id = $1)"
			" DELETE FROM usage_billing.storage_source WHERE source_id = $1",
	.nargs = 1,
	.argtypes = {UUIDOID}};

static UbQuery fold_org = {
	.text = "WITH gone AS (DELETE FROM usage_billing.storage_delta WHERE org_id = $1 RETURNING *)"
			" INSERT INTO usage_billing.storage_total AS t"
			" SELECT org_id, source_id, kind, sum(files), sum(bytes), sum(seconds)"
			" FROM gone GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
			" ON CONFLICT (org_id, source_id, kind) DO UPDATE SET files = t.files + excluded.files,"
			" bytes = t.bytes + excluded.bytes, seconds = t.seconds + excluded.seconds",
	.nargs = 1,
	.argtypes = {TEXTOID}};

static UbQuery store_snapshot = {
	.text = "INSERT INTO usage_billing.storage_snapshot"
			" SELECT $1, (clock_timestamp() AT TIME ZONE 'UTC')::date,"
			" (SELECT count(*) FROM usage_billing.project AS p WHERE p.org_id = $1),"
			" coalesce(sum(t.files) FILTER (WHERE t.kind = 'image'), 0),"
			" coalesce(sum(t.bytes) FILTER (WHERE t.kind = 'image'), 0),"
			" coalesce(sum(t.files) FILTER (WHERE t.kind = 'video'), 0),"
			" coalesce(sum(t.bytes) FILTER (WHERE t.kind = 'video'), 0),"
			" coalesce(sum(t.files), 0), coalesce(sum(t.bytes), 0),"
			" coalesce(sum(t.seconds) FILTER (WHERE t.kind = 'video'), 0) / 60, clock_timestamp()"
			" FROM usage_billing.storage_total AS t"
			" JOIN usage_billing.storage_source AS s ON s.source_id = t.source_id"
			" JOIN pg_catalog.pg_class AS c ON c.oid = s.relation"
			" WHERE t.org_id = $1",
	.nargs = 1,
	.argtypes = {TEXTOID}};

#define STORAGE_USAGE \
	"SELECT ROW(s.org_id, s.snapshot_date, s.last_updated, s.project_count," \
	" s.image_file_count, s.image_storage_bytes, s.video_file_count, s.video_storage_bytes," \
	" s.total_file_count, s.total_storage_bytes, round(s.total_video_minutes, 2)::text," \
	" l.max_image_count, l.max_video_count, l.max_project_count)::usage_billing.storage_usage" \
	" FROM usage_billing.storage_snapshot AS s" \
	" LEFT JOIN usage_billing.storage_limit AS l ON l.org_id = s.org_id" \
	" WHERE s.org_id = $1"

static UbQuery latest_usage = {
	.text = STORAGE_USAGE " ORDER BY s.snapshot_date DESC LIMIT 1",
	.nargs = 1,
	.argtypes = {TEXTOID}};

static UbQuery usage_history = {
	.text = STORAGE_USAGE " AND s.snapshot_date > (now() AT TIME ZONE 'UTC')::date - $2"
						  " ORDER BY s.snapshot_date",
	.nargs = 2,
	.argtypes = {TEXTOID, INT4OID}};

static UbQuery org_is_known = {
	.text = "SELECT 1 WHERE EXISTS (SELECT FROM usage_billing.billing_account WHERE org_id = $1)"
			" OR EXISTS (SELECT FROM usage_billing.project WHERE org_id = $1)"
			" OR EXISTS (SELECT FROM usage_billing.storage_limit WHERE org_id = $1)"
			" OR EXISTS (SELECT FROM usage_billing.storage_snapshot WHERE org_id = $1)"
			" OR EXISTS (SELECT FROM usage_billing.storage_delta WHERE org_id = $1)"
			" OR EXISTS (SELECT FROM usage_billing.storage_total WHERE org_id = $1)",
	.nargs = 1,
	.argtypes = {TEXTOID}};

static UbQuery changed_orgs = {
	/* steps from one organisation to the next, however many rows each has */
	.text = "WITH RECURSIVE orgs AS ((SELECT org_id FROM usage_billing.storage_delta"
			" ORDER BY org_id LIMIT 1) UNION ALL"
			" SELECT (SELECT d.org_id FROM usage_billing.storage_delta AS d"
			" WHERE d.org_id > orgs.org_id ORDER BY d.org_id LIMIT 1) FROM orgs"
			" WHERE orgs.org_id IS NOT NULL)"
			" SELECT org_id FROM orgs WHERE org_id IS NOT NULL",
	.nargs = 0};

static UbQuery store_limits = {
	.text = "INSERT INTO usage_billing.storage_limit VALUES ($1, $2, $3, $4)"
			" ON CONFLICT (org_id) DO UPDATE SET max_image_count = excluded.max_image_count,"
			" max_video_count = excluded.max_video_count, max_project_count = excluded.max_project_count",
	.nargs = 4,
	.argtypes = {TEXTOID, INT8OID, INT8OID, INT8OID}};

PG_FUNCTION_INFO_V1(ub_get_storage_usage);
PG_FUNCTION_INFO_V1(ub_get_storage_usage_history);
PG_FUNCTION_INFO_V1(ub_recount_storage_usage);
PG_FUNCTION_INFO_V1(ub_refresh_storage_usage);
PG_FUNCTION_INFO_V1(ub_set_storage_limits);
PG_FUNCTION_INFO_V1(ub_storage_truncated);

static void
storage_lock_tag(LOCKTAG *tag, uint16 class, const void *key, int len)
{
	uint64 hash = hash_bytes_extended(key, len, 0);

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, class);
}

/*
 * Takes a lock of ours on anything, to the end of the transaction. False if it
 * isn't to be waited for and somebody has it. Who waits takes the locks of
 * sources before those of organisations, and before them the one of all sources;
 * the maintenance, which keeps many, never waits.
 */
static bool
storage_lock(uint16 class, const void *key, int len, bool wait)
{
	LOCKTAG tag;

	storage_lock_tag(&tag, class, key, len);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) !=
		LOCKACQUIRE_NOT_AVAIL;
}

static bool
storage_lock_org(const char *org_id, bool wait)
{
	return storage_lock(UB_LOCK_STORAGE, org_id, strlen(org_id), wait);
}

/* Gives the lock of an organisation back, with nothing done under it yet. */
static void
storage_unlock_org(const char *org_id)
{
	LOCKTAG tag;

	storage_lock_tag(&tag, UB_LOCK_STORAGE, org_id, strlen(org_id));
	(void) LockRelease(&tag, ExclusiveLock, false);
}

/* When a snapshot sees the source counted; -infinity if it has to be. */
static TimestampTz
source_counted_in(const UbSource *source, Snapshot snapshot)
{
	UbScan scan;
	ScanKeyData key;
	TimestampTz at = DT_NOBEGIN;

	ub_scan_key_uuid(&key, 1, UUIDPGetDatum(&source->id));
	ub_scan_begin(&scan, ub_catalog()->storage_counted,
				  ub_catalog()->storage_counted_pkey, snapshot, &key, 1);
	if (ub_scan_next(&scan))
	{
		slot_getallattrs(scan.slot);
		at = DatumGetTimestampTz(scan.slot->tts_values[1]);
	}
	ub_scan_end(&scan);
	return at;
}

/* The same, as of now. */
static TimestampTz
source_counted_at(const UbSource *source)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz at = source_counted_in(source, snapshot);

	UnregisterSnapshot(snapshot);
	return at;
}

/*
 * Counts a source for one organisation or all (null) and appends what the
 * derived tables lack. Counting all marks it as counted, unless it was and
 * only_uncounted is set. False if a lock wasn't to be waited for and not free.
 * quote: an error may tell the table's owner what is in its rows.
 */
static bool
source_recount(const UbSource *source, const char *org_id, bool only_uncounted,
			   bool wait, bool quote)
{
	Snapshot snapshot;
	UbRows rows;
	Datum values[2] = {UUIDPGetDatum(&source->id), (Datum) 0};
	UbSource current;

	/* who waits may come to sources in any order, so only one at a time does */
	if (wait)
		(void) storage_lock(UB_LOCK_RECOUNT, "", 0, true);
	else if (!ConditionalLockRelationOid(source->relation, AccessShareLock))
		return false;
	if (!ub_source_lock(source))
	{
		/* the table was dropped, and its files with it */
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		SPI_connect();
		(void) ub_query_change(&forget_source, values, NULL, snapshot,
							   SPI_OK_DELETE);
		SPI_finish();
		UnregisterSnapshot(snapshot);
		return true;
	}
	if (!storage_lock(UB_LOCK_RECOUNT, &source->id, UUID_LEN, wait))
		return false;
	/* whom the locks waited for may have ended or counted it */
	if (!ub_source_find(source->relation, &current) ||
		memcmp(&current.id, &source->id, UUID_LEN) != 0 ||
		(only_uncounted && source_counted_at(source) != DT_NOBEGIN))
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ub_rows_begin(&rows, ub_catalog()->storage_delta);
	ub_source_count(source, org_id, snapshot, &rows, quote);

	SPI_connect();
	if (org_id != NULL)
		values[1] = CStringGetTextDatum(org_id);
	ub_query_change_with_rows(org_id ? &difference_of_org : &difference_of_all,
							  &rows, values, snapshot, SPI_OK_INSERT);
	if (org_id == NULL)
		(void) ub_query_change(&mark_counted, values, NULL, InvalidSnapshot,
							   SPI_OK_INSERT);
	SPI_finish();
	ub_rows_end(&rows);
	UnregisterSnapshot(snapshot);
	CommandCounterIncrement();
	return true;
}

/* Counts the sources that have to be, before anything is answered from them. */
static bool
storage_count_uncounted(bool wait)
{
	ListCell *cell;

	foreach (cell, ub_sources())
	{
		if (source_counted_at(lfirst(cell)) == DT_NOBEGIN &&
			!source_recount(lfirst(cell), NULL, true, wait, false))
			return false;
	}
	return true;
}

/* Whether there is a source that has to be counted, as a snapshot sees it. */
static bool
storage_is_uncounted(Snapshot snapshot)
{
	ListCell *cell;

	foreach (cell, ub_sources())
	{
		if (source_counted_in(lfirst(cell), snapshot) == DT_NOBEGIN)
			return true;
	}
	return false;
}

/* Raises PT404 if nothing is known of the organisation. SPI is connected. */
static void
storage_check_known(const char *org_id, Snapshot snapshot)
{
	Datum value = CStringGetTextDatum(org_id);

	if (ub_query_read(&org_is_known, &value, NULL, snapshot) == 0)
		ereport(ERROR,
				(errcode(UB_ERRCODE_NOT_FOUND),
				 errmsg("organisation not found"),
				 errdetail("Nothing is known of org_id \"%s\".", org_id),
				 errhint("Create a billing account or a project for it, or store a file.")));
}

/* Stores today's snapshot of what is folded; 22003 if a sum is no bigint. */
static void
storage_take_snapshot(const char *org_id, Datum value, Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		(void) ub_query_change(&store_snapshot, &value, NULL, snapshot,
							   SPI_OK_INSERT);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		if (geterrcode() != ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sum out of range"),
				 errdetail("The sizes of the files of org_id \"%s\" don't add up to a bigint.", org_id),
				 errhint("Mend the sizes in the tracked tables.")));
	}
	PG_END_TRY();
}

/*
 * Folds the organisation's pending changes and stores today's snapshot, as of
 * now, also in REPEATABLE READ. Others that refresh it wait until this
 * transaction ends.
 */
static bool
storage_refresh(const char *org_id, bool wait)
{
	Datum value = CStringGetTextDatum(org_id);
	Snapshot snapshot;

	/* what is folded must not lack a table that was truncated meanwhile */
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!storage_count_uncounted(wait) || !storage_lock_org(org_id, wait))
			return false;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (!storage_is_uncounted(snapshot))
			break;
		UnregisterSnapshot(snapshot);
		storage_unlock_org(org_id);
	}
	SPI_connect();
	storage_check_known(org_id, snapshot);
	(void) ub_query_change(&fold_org, &value, NULL, snapshot, SPI_OK_INSERT);
	UnregisterSnapshot(snapshot);

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	storage_take_snapshot(org_id, value, snapshot);
	UnregisterSnapshot(snapshot);
	SPI_finish();
	CommandCounterIncrement();
	ub_stats_add(UB_STAT_REFRESHES, 1);
	return true;
}

/* The same for the maintenance: not while somebody else is at it. */
void
ub_storage_refresh_org(const char *org_id)
{
	(void) storage_refresh(org_id, false);
}

/* Counts a source for the first time, whose table this transaction has locked. */
void
ub_storage_count_source(Oid relation)
{
	UbSource source;

	/* to whoever waits for the table this lock would not be given otherwise */
	LockRelationOid(relation, AccessShareLock);
	if (ub_source_find(relation, &source))
		(void) source_recount(&source, NULL, true, false, true);
}

/* Counts one source anew, for all organisations; nothing if it is none. */
void
ub_storage_recount_source(Oid relation)
{
	UbSource source;

	if (ub_source_find(relation, &source))
		(void) source_recount(&source, NULL, false, false, false);
}

/* The organisations (char *) with pending changes. A snapshot is active. */
List *
ub_storage_changed_orgs(void)
{
	MemoryContext context = CurrentMemoryContext;
	List *orgs = NIL;

	SPI_connect();
	(void) ub_query_read(&changed_orgs, NULL, NULL, GetActiveSnapshot());
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *org_id = SPI_getvalue(SPI_tuptable->vals[i],
									SPI_tuptable->tupdesc, 1);
		MemoryContext old = MemoryContextSwitchTo(context);

		orgs = lappend(orgs, pstrdup(org_id));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return orgs;
}

/* The sources (table OIDs) that were never counted, or before that time. */
List *
ub_storage_sources_due(TimestampTz before)
{
	List *due = NIL;
	ListCell *cell;

	foreach (cell, ub_sources())
	{
		const UbSource *source = lfirst(cell);

		if (source_counted_at(source) < before)
			due = lappend_oid(due, source->relation);
	}
	return due;
}

/*
 * Returns the organisation's latest snapshot as a composite, in the caller's
 * context; (Datum) 0 if there is none.
 */
static Datum
storage_latest(const char *org_id, Snapshot snapshot)
{
	Datum value = CStringGetTextDatum(org_id);
	Datum result = (Datum) 0;
	bool isnull;

	SPI_connect();
	if (ub_query_read(&latest_usage, &value, NULL, snapshot) > 0)
		result = SPI_datumTransfer(SPI_getbinval(SPI_tuptable->vals[0],
												 SPI_tuptable->tupdesc, 1,
												 &isnull),
								   false, -1);
	SPI_finish();
	return result;
}

static Datum
storage_latest_now(const char *org_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Datum result = storage_latest(org_id, snapshot);

	UnregisterSnapshot(snapshot);
	return result;
}

/* SQL: refresh_storage_usage(org_id) */
Datum
ub_refresh_storage_usage(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 0));

	PreventCommandIfReadOnly("refresh_storage_usage()");
	(void) storage_refresh(org_id, true);
	PG_RETURN_DATUM(storage_latest_now(org_id));
}

/* SQL: recount_storage_usage(org_id) */
Datum
ub_recount_storage_usage(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 0));
	ListCell *cell;

	PreventCommandIfReadOnly("recount_storage_usage()");
	foreach (cell, ub_sources())
	{
		const UbSource *source = lfirst(cell);
		bool counted = source_counted_at(source) != DT_NOBEGIN;

		(void) source_recount(source, counted ? org_id : NULL, false, true,
							  true);
	}
	(void) storage_refresh(org_id, true);
	PG_RETURN_DATUM(storage_latest_now(org_id));
}

/* SQL: get_storage_usage(org_id) */
Datum
ub_get_storage_usage(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 0));
	Datum result = storage_latest(org_id, GetActiveSnapshot());

	if (DatumGetPointer(result) != NULL)
		PG_RETURN_DATUM(result);
	SPI_connect();
	storage_check_known(org_id, GetActiveSnapshot());
	ereport(ERROR,
			(errcode(UB_ERRCODE_NOT_FOUND),
			 errmsg("no storage snapshot yet"),
			 errdetail("Storage usage of org_id \"%s\" was never refreshed.", org_id),
			 errhint("Call refresh_storage_usage first.")));
}

/* SQL: get_storage_usage_history(days, org_id) */
Datum
ub_get_storage_usage_history(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 1));
	int32 days = PG_ARGISNULL(0) ? 30 : PG_GETARG_INT32(0);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum values[2];

	if (days <= 0)
		ub_value_error(UB_PLACE_PARAMETER, "days", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is %d; it must be positive", days), NULL);
	InitMaterializedSRF(fcinfo, 0);
	values[0] = CStringGetTextDatum(org_id);
	values[1] = Int32GetDatum(Min(days, 1000000));

	SPI_connect();
	storage_check_known(org_id, GetActiveSnapshot());
	(void) ub_query_read(&usage_history, values, NULL, GetActiveSnapshot());
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		HeapTupleHeader row = DatumGetHeapTupleHeader(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1,
						  &isnull));
		HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row),
							   .t_data = row};

		tuplestore_puttuple(result->setResult, &tuple);
	}
	SPI_finish();
	return (Datum) 0;
}

/* SQL: set_storage_limits(org_id, max_image_count, max_video_count, max_project_count) */
Datum
ub_set_storage_limits(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"max_image_count", "max_video_count", "max_project_count"};
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 0));
	Datum values[4];
	char nulls[5] = "    ";

	PreventCommandIfReadOnly("set_storage_limits()");
	values[0] = CStringGetTextDatum(org_id);
	for (int i = 1; i <= 3; i++)
	{
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		values[i] = PG_GETARG_DATUM(i);
		if (!PG_ARGISNULL(i) && PG_GETARG_INT64(i) < 0)
			ub_value_error(UB_PLACE_PARAMETER, names[i - 1],
						   ERRCODE_INVALID_PARAMETER_VALUE,
						   psprintf("is " INT64_FORMAT
									"; it must not be negative",
									PG_GETARG_INT64(i)),
						   "Leave it out for no limit.");
	}
	SPI_connect();
	(void) ub_query_change(&store_limits, values, nulls, InvalidSnapshot,
						   SPI_OK_INSERT);
	SPI_finish();
	PG_RETURN_VOID();
}

/* Trigger, after a TRUNCATE of a tracked table: it has to be counted. */
Datum
ub_storage_truncated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	UbSource source;
	Datum value;
	Snapshot snapshot;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ub_error_not_trigger("storage_truncated()");
	if (!ub_source_find(RelationGetRelid(trigger->tg_relation), &source))
		return PointerGetDatum(NULL);
	value = UUIDPGetDatum(&source.id);
	/* what was counted meanwhile counts too, also in REPEATABLE READ */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SPI_connect();
	(void) ub_query_change(&mark_uncounted, &value, NULL, snapshot,
						   SPI_OK_DELETE);
	SPI_finish();
	UnregisterSnapshot(snapshot);
	return PointerGetDatum(NULL);
}
