/*
 * maintenance.c
 *		One pass of the duties that keep derived state small, and making it
 *		anew from the facts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "access.h"
#include "catalog.h"
#include "delta.h"
#include "maintenance.h"
#include "query.h"

/* How many deltas one batch moves, and one call of run_maintenance at most. */
#define MAINTENANCE_BATCH 20000
#define MAINTENANCE_CALL  2000000

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
PG_FUNCTION_INFO_V1(ub_require_unscoped);

/* Folds everything that is pending, up to limit deltas, in this transaction. */
uint64
ub_maintenance_fold(uint64 limit)
{
	UbFoldCursor cursor = {0};
	uint64 folded = 0;

	while (!cursor.done && folded < limit)
		folded += ub_deltas_fold(&cursor, MAINTENANCE_BATCH);
	return folded;
}

/* SQL: run_maintenance() */
Datum
ub_run_maintenance(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("run_maintenance()");
	ub_access_require_unscoped();
	(void) ub_maintenance_fold(MAINTENANCE_CALL);
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
	PG_RETURN_VOID();
}

/* SQL: require_unscoped(), for the functions that are written in SQL */
Datum
ub_require_unscoped(PG_FUNCTION_ARGS)
{
	ub_access_require_unscoped();
	PG_RETURN_VOID();
}
