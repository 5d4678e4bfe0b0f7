/*
 * maintenance.c
 *		What was done for each duty, all duties in one call, and making derived
 *		state anew from the facts.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "escrow.h"
#include "maintenance.h"
#include "query.h"
#include "roster.h"
#include "stats.h"

/*
 * How many rows a duty handles in one call of run_maintenance: all of them are
 * in one transaction, and some under locks that end with it.
 */
static const uint64 call_limits[UB_DUTIES] = {
	[UB_DUTY_FOLD] = 2000000,
	[UB_DUTY_PACK_HOURS] = 200000,
	[UB_DUTY_STORAGE_RECOUNT] = PG_UINT64_MAX,
	[UB_DUTY_STORAGE_REFRESH] = 1000};

static UbQuery read_records = {
	.text = "SELECT duty, last_start,"
			" CASE WHEN last_error_at > now() - interval '10 minutes' THEN last_error END"
			" FROM usage_billing.maintenance_duty",
	.nargs = 0};

/*
 * Passes over a row that another transaction has changed and not committed:
 * nobody waits for a status.
 */
static UbQuery write_record = {
	.text = "UPDATE usage_billing.maintenance_duty SET last_start = $2,"
			" duration = clock_timestamp() - $2, rows_done = $3,"
			" last_error = coalesce($4, last_error),"
			" last_error_at = CASE WHEN $4 IS NULL THEN last_error_at ELSE clock_timestamp() END"
			" WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_billing.maintenance_duty"
			" WHERE duty = $1 FOR UPDATE SKIP LOCKED))",
	.nargs = 4,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, INT8OID, TEXTOID}};

/*
 * What is wrong is put right by appending the difference. Readers are right at
 * once, and no row that a folder or a call works on is touched.
 */
static UbQuery rebuild_differences = {
	.text = "INSERT INTO usage_billing.usage_delta (billing_id, hour, source, type,"
			" credits, debited, amount, events, viewing_seconds, viewing_bytes, egress_seconds,"
			" egress_seconds_additional_targets, egress_bytes)"
			" SELECT billing_id, hour, source, type,"
			" expected[1] - actual[1], expected[2] - actual[2], expected[3] - actual[3],"
			" expected[4] - actual[4], expected[5] - actual[5], expected[6] - actual[6],"
			" expected[7] - actual[7], expected[8] - actual[8], expected[9] - actual[9]"
			" FROM usage_billing.derived_differences($1)",
	.nargs = 1,
	.argtypes = {TEXTOID}};

PG_FUNCTION_INFO_V1(ub_run_maintenance);
PG_FUNCTION_INFO_V1(ub_rebuild);
PG_FUNCTION_INFO_V1(ub_request_worker);
PG_FUNCTION_INFO_V1(ub_require_unscoped);
PG_FUNCTION_INFO_V1(ub_read_stats);
PG_FUNCTION_INFO_V1(ub_reset_stats);

/*
 * Reads what is remembered of each duty, into the current memory context. A
 * snapshot is active.
 */
void
ub_maintenance_read(UbDutyRecord records[UB_DUTIES])
{
	MemoryContext context = CurrentMemoryContext;

	memset(records, 0, UB_DUTIES * sizeof(UbDutyRecord));
	SPI_connect();
	(void) ub_query_read(&read_records, NULL, NULL, GetActiveSnapshot());
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *name = SPI_getvalue(tuple, desc, 1);
		char *error = SPI_getvalue(tuple, desc, 3);
		bool isnull;
		Datum last_start = SPI_getbinval(tuple, desc, 2, &isnull);

		for (int duty = 0; duty < UB_DUTIES; duty++)
		{
			if (strcmp(name, ub_duty_name(duty)) != 0)
				continue;
			if (!isnull)
				records[duty].last_start = DatumGetTimestampTz(last_start);
			if (error != NULL)
				records[duty].last_error = MemoryContextStrdup(context, error);
		}
	}
	SPI_finish();
}

/*
 * Writes down what a pass did and what failed, if there is anything to tell. A
 * transaction is open.
 */
void
ub_maintenance_record(const UbPass *pass)
{
	Datum values[4];
	const char *nulls = pass->error ? "    " : "   n";
	Snapshot snapshot;

	if (pass->rows == 0 && pass->error == NULL)
		return;
	values[0] = CStringGetTextDatum(ub_duty_name(pass->duty));
	values[1] = TimestampTzGetDatum(pass->started);
	values[2] = Int64GetDatum((int64) pass->rows);
	values[3] = pass->error ? CStringGetTextDatum(pass->error) : (Datum) 0;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SPI_connect();
	(void) ub_query_change(&write_record, values, nulls, snapshot,
						   SPI_OK_UPDATE);
	SPI_finish();
	UnregisterSnapshot(snapshot);
}

/* Tells of what failed in a pass. */
void
ub_maintenance_report(int elevel, const UbPass *pass, const ErrorData *error)
{
	ereport(elevel,
			(errcode(error->sqlerrcode),
			 errmsg("a maintenance duty of usage_billing failed"),
			 errdetail("Duty %s, %s%s%s", ub_duty_name(pass->duty), pass->error,
					   error->detail ? ": " : "", error->detail ? error->detail : ""),
			 error->detail_log ? errdetail_log("Duty %s, %s: %s",
											   ub_duty_name(pass->duty),
											   pass->error, error->detail_log) :
								 0,
			 errhint("It is tried again, less and less often; the others go on. See usage_billing.maintenance_status."),
			 error->context ? errcontext("%s", error->context) : 0));
}

/*
 * Runs something in a subtransaction. Returns null, or the error that undid it,
 * in the current memory context. What the caller should hear of is raised.
 */
static ErrorData *
maintenance_try(void (*work)(UbPass *pass), UbPass *pass)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "usage_billing step",
												  ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(scratch);
	PG_TRY();
	{
		work(pass);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	MemoryContextDelete(scratch);
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

/* Whether the transaction has to be repeated because of its isolation level. */
static bool
error_is_serialization(const ErrorData *error)
{
	return IsolationUsesXactSnapshot() &&
		ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_TRANSACTION_ROLLBACK;
}

static void
maintenance_record_pass(UbPass *pass)
{
	ub_maintenance_record(pass);
}

/* One pass of a duty, in the caller's transaction. */
static void
maintenance_pass(UbDuty duty, UbSetbacks *setbacks, MemoryContext context)
{
	UbPass pass;
	ErrorData *error;

	ub_pass_begin(&pass, duty, setbacks, context);
	while (pass.active && pass.rows < call_limits[duty])
	{
		error = maintenance_try(ub_pass_step, &pass);
		if (error == NULL)
			ub_pass_succeeded(&pass);
		else if (error_is_serialization(error))
			ReThrowError(error);
		else
		{
			ub_pass_failed(&pass, error);
			if (pass.report)
				ub_maintenance_report(WARNING, &pass, error);
			FreeErrorData(error);
		}
	}
	/* a status that can't be written is no reason to undo the work */
	error = maintenance_try(maintenance_record_pass, &pass);
	if (error != NULL && !error_is_serialization(error))
	{
		ub_pass_failed(&pass, error);
		ub_maintenance_report(WARNING, &pass, error);
	}
}

/* SQL: run_maintenance() */
Datum
ub_run_maintenance(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "usage_billing pass",
												  ALLOCSET_DEFAULT_SIZES);
	UbSetbacks setbacks = {.context = CurrentMemoryContext};

	PreventCommandIfReadOnly("run_maintenance()");
	ub_access_require_unscoped();
	for (int duty = 0; duty < UB_DUTIES; duty++)
	{
		/* packing is for rows that others may have written since the snapshot */
		if (duty == UB_DUTY_PACK_HOURS && IsolationUsesXactSnapshot())
			continue;
		maintenance_pass(duty, &setbacks, context);
	}
	PG_RETURN_VOID();
}

/* SQL: rebuild(billing_id) */
Datum
ub_rebuild(PG_FUNCTION_ARGS)
{
	UbSlice billing_id = ub_access_text_arg(fcinfo, 0);
	LOCKTAG tag;
	Datum value = (Datum) 0;
	const char *null = billing_id.len == 0 ? "n" : " ";
	Snapshot snapshot;

	PreventCommandIfReadOnly("rebuild()");
	ub_access_require_unscoped();
	if (billing_id.len > 0)
		value = PointerGetDatum(ub_value_text(billing_id));

	/* of two at once the second must see what the first appended */
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, UB_LOCK_REBUILD);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	SPI_connect();
	ub_query_change(&rebuild_differences, &value, null, snapshot,
					SPI_OK_INSERT);
	SPI_finish();
	UnregisterSnapshot(snapshot);
	/* a difference may take credits from any account */
	ub_escrow_forget_all();
	PG_RETURN_VOID();
}

/* SQL: require_unscoped(), for the functions that are written in SQL */
Datum
ub_require_unscoped(PG_FUNCTION_ARGS)
{
	ub_access_require_unscoped();
	PG_RETURN_VOID();
}

/*
 * SQL: request_worker(), for the end of the install script: the launcher learns
 * that this database has something to do for a worker.
 */
Datum
ub_request_worker(PG_FUNCTION_ARGS)
{
	ub_roster_hint_at_commit();
	PG_RETURN_VOID();
}

/*
 * SQL: read_stats(), for the view usage_billing_stats: the counts in the order of
 * UbStat, and since when; null if nothing is counted
 */
Datum
ub_read_stats(PG_FUNCTION_ARGS)
{
	uint64 counts[UB_STATS];
	TimestampTz reset_at;
	Datum values[UB_STATS + 1] = {0};
	bool nulls[UB_STATS + 1];
	TupleDesc desc;
	bool counted = ub_stats_read(counts, &reset_at);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != UB_STATS + 1)
		elog(ERROR, "read_stats() was declared with other columns");
	memset(nulls, !counted, sizeof(nulls));
	for (int i = 0; counted && i < UB_STATS; i++)
		values[i] = Int64GetDatum((int64) counts[i]);
	if (counted)
		values[UB_STATS] = TimestampTzGetDatum(reset_at);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}

/* SQL: reset_usage_billing_stats() */
Datum
ub_reset_stats(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("reset_usage_billing_stats()");
	ub_access_require_unscoped();
	ub_stats_reset();
	PG_RETURN_VOID();
}
