/*
 * snapshot.c
 *		The table of storage snapshots: one a day and organisation, whatever way
 *		it comes.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "errors.h"
#include "fact.h"
#include "query.h"
#include "value.h"

/* Columns of storage_snapshot, counted from 0. */
#define SNAPSHOT_MINUTES 9
#define SNAPSHOT_UPDATED 10

static UbQuery replace_snapshot = {
	.text = "UPDATE usage_billing.storage_snapshot AS s SET project_count = n.project_count,"
			" image_file_count = n.image_file_count, image_storage_bytes = n.image_storage_bytes,"
			" video_file_count = n.video_file_count, video_storage_bytes = n.video_storage_bytes,"
			" total_file_count = n.total_file_count, total_storage_bytes = n.total_storage_bytes,"
			" total_video_minutes = n.total_video_minutes, last_updated = n.last_updated"
			" FROM arrived AS n WHERE s.org_id = n.org_id AND s.snapshot_date = n.snapshot_date"
			" AND s.last_updated < n.last_updated",
	.rows_name = "arrived"};

PG_FUNCTION_INFO_V1(ub_snapshot_before_insert);

/* Refuses a snapshot of no day, and what no later one could replace. */
static void
snapshot_check(Datum *values, bool *nulls)
{
	UbPlace place = UB_PLACE_TABLE("storage_snapshot");

	if (DATE_NOT_FINITE(DatumGetDateADT(values[1])))
		ub_value_error(place, "snapshot_date", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not finite", NULL);
	if (!nulls[SNAPSHOT_MINUTES] &&
		(numeric_is_nan(DatumGetNumeric(values[SNAPSHOT_MINUTES])) ||
		 numeric_is_inf(DatumGetNumeric(values[SNAPSHOT_MINUTES]))))
		ub_value_error(place, "total_video_minutes",
					   ERRCODE_INVALID_PARAMETER_VALUE, "is not a number",
					   NULL);
	ub_fact_check_time(place, "last_updated", values, nulls, SNAPSHOT_UPDATED);
}

/*
 * Trigger, before each row of storage_snapshot: of two for one day the later
 * one stays.
 */
Datum
ub_snapshot_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo,
											  ub_catalog()->storage_snapshot,
											  "snapshot_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	TupleTableSlot *stored;
	ScanKeyData keys[2];
	UbRows rows;
	Snapshot snapshot;

	slot_getallattrs(slot);
	/* the server itself refuses these */
	if (slot->tts_isnull[0] || slot->tts_isnull[1])
		return PointerGetDatum(trigger->tg_trigtuple);
	ub_value_check_id(UB_PLACE_TABLE("storage_snapshot"), "org_id",
					  ub_fact_text(slot->tts_values, slot->tts_isnull, 0));
	snapshot_check(slot->tts_values, slot->tts_isnull);

	ub_scan_key_text(&keys[0], 1, slot->tts_values[0]);
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_DATE_EQ,
				slot->tts_values[1]);
	stored = ub_fact_find(trigger->tg_relation,
						  ub_catalog()->storage_snapshot_pkey, keys, 2);
	if (stored == NULL)
		return PointerGetDatum(trigger->tg_trigtuple);
	ExecDropSingleTupleTableSlot(stored);

	ub_rows_begin(&rows, ub_catalog()->storage_snapshot);
	ub_rows_add(&rows, slot->tts_values, slot->tts_isnull);
	SPI_connect();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ub_query_change_with_rows(&replace_snapshot, &rows, NULL, snapshot,
							  SPI_OK_UPDATE);
	UnregisterSnapshot(snapshot);
	SPI_finish();
	ub_rows_end(&rows);
	return PointerGetDatum(NULL);
}
