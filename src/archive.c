/*
 * archive.c
 *		Usage that is kept as sums only: prune_usage, and the triggers of the
 *		table that it moves usage to.
 *
 * A batch takes usages out of their table and stores what they add up to, an
 * hour, source and type, in one statement. What is derived holds them already,
 * so nothing is posted; it is when the rows come in any other way, from a dump
 * or by COPY.
 *
 * A batch waits for nobody: usages that somebody has locked, to revert them or
 * to prune them, are passed over. Whoever meets one that is being pruned waits
 * for the batch, and then it is not there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "document.h"
#include "errors.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"
#include "stats.h"

/* Columns of usage_archive, counted from 0. */
enum
{
	ARCHIVE_BILLING_ID,
	ARCHIVE_ID,
	ARCHIVE_HOUR,
	ARCHIVE_SOURCE,
	ARCHIVE_TYPE,
	ARCHIVE_AMOUNT,
	ARCHIVE_EVENTS,
	ARCHIVE_MEASURES,
	ARCHIVE_CREATED_AT = ARCHIVE_MEASURES + UB_MEASURES,
	ARCHIVE_COLUMNS
};

/*
 * $1 older than, $2 the last account (null: all), $3 rows, $4 the first account,
 * $5 from which time on in that. An account's old usages are found by
 * usage_time, one after the other, so a batch costs what it moves. Answers how
 * many rows were moved, and the last one's account and time.
 */
static UbQuery prune_batch = {
	.text =
		"WITH batch AS MATERIALIZED ("
		" SELECT u.place, a.billing_id, u.created_at"
		" FROM (SELECT billing_id, least($1, date_trunc('hour', last_billed_at, 'UTC')) AS until"
		" FROM usage_billing.billing_account WHERE last_billed_at IS NOT NULL"
		" AND billing_id >= $4 AND ($2 IS NULL OR billing_id <= $2) ORDER BY billing_id) AS a,"
		" LATERAL (SELECT x.ctid AS place, x.created_at FROM usage_billing.usage AS x"
		" WHERE x.billing_id = a.billing_id AND x.created_at < a.until"
		" AND x.created_at >= CASE WHEN a.billing_id = $4 THEN $5 ELSE '-infinity' END"
		" ORDER BY x.created_at LIMIT $3 FOR UPDATE SKIP LOCKED) AS u LIMIT $3),"
		" gone AS (DELETE FROM usage_billing.usage"
		" WHERE ctid = ANY (ARRAY(SELECT place FROM batch))"
		" RETURNING billing_id, date_trunc('hour', created_at, 'UTC') AS hour, source, type, amount,"
		" usage_billing.delivery_measures(type, source, metadata) AS m),"
		" kept AS (INSERT INTO usage_billing.usage_archive"
		" SELECT billing_id, gen_random_uuid(), hour, source, type, sum(amount)::bigint, count(*),"
		" coalesce(sum(m[1]), 0)::bigint, coalesce(sum(m[2]), 0)::bigint, coalesce(sum(m[3]), 0)::bigint,"
		" coalesce(sum(m[4]), 0)::bigint, coalesce(sum(m[5]), 0)::bigint, now()"
		" FROM gone GROUP BY billing_id, hour, source, type)"
		" SELECT (SELECT count(*) FROM gone), billing_id, created_at FROM batch"
		" ORDER BY billing_id DESC, created_at DESC LIMIT 1",
	.nargs = 5,
	.custom = true,
	.argtypes = {TIMESTAMPTZOID, TEXTOID, INT8OID, TEXTOID, TIMESTAMPTZOID}};

/*
 * Where this session's last batch ended, so that the next one doesn't look
 * again at what was before. Only a hint: nothing is found missing by it, since
 * a batch that isn't full looks from the beginning too.
 */
typedef struct PrunePlace
{
	TimestampTz older_than;
	TimestampTz at;
	int len;
	char billing_id[UB_ID_BYTES];
} PrunePlace;

static PrunePlace last_place;

PG_FUNCTION_INFO_V1(ub_archive_before_insert);
PG_FUNCTION_INFO_V1(ub_archive_after_insert);
PG_FUNCTION_INFO_V1(ub_delivery_measures);
PG_FUNCTION_INFO_V1(ub_prune_usage);

/* Checks a row that came from a dump or by COPY. */
static void
archive_check(Datum *values, bool *nulls)
{
	UbPlace place = UB_PLACE_TABLE("usage_archive");
	TimestampTz hour = DatumGetTimestampTz(values[ARCHIVE_HOUR]);

	ub_value_check_id(place, "billing_id", ub_fact_text(values, nulls, ARCHIVE_BILLING_ID));
	ub_value_check_length(place, "source", ub_fact_text(values, nulls, ARCHIVE_SOURCE),
						  UB_ID_BYTES);
	ub_fact_check_time(place, "hour", values, nulls, ARCHIVE_HOUR);
	ub_fact_check_time(place, "created_at", values, nulls, ARCHIVE_CREATED_AT);
	if (ub_value_hour(hour) != hour)
		ub_value_error(place, "hour", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not the start of an hour (UTC)", NULL);
	for (int i = ARCHIVE_AMOUNT; i < ARCHIVE_CREATED_AT; i++)
	{
		const char *name = i == ARCHIVE_AMOUNT ? "amount" : "events";

		if (i >= ARCHIVE_MEASURES)
			name = ub_measure_names[i - ARCHIVE_MEASURES];
		if (!nulls[i])
			ub_value_check_not_negative(place, name, DatumGetInt64(values[i]));
	}
}

/*
 * The id of a row that was given none: made from its hour, source and type, so
 * that loading the same rows again makes the same ids.
 */
static pg_uuid_t *
archive_made_id(Datum *values, bool *nulls)
{
	UbSlice billing_id = ub_fact_text(values, nulls, ARCHIVE_BILLING_ID);
	UbSlice source = ub_fact_text(values, nulls, ARCHIVE_SOURCE);
	char *name = psprintf("usage_archive:" INT64_FORMAT ":%s:%d:%.*s:%.*s",
						  DatumGetTimestampTz(values[ARCHIVE_HOUR]),
						  DatumGetObjectId(values[ARCHIVE_TYPE]) ==
								  ub_catalog()->usage_type_feature ?
							  "feature" :
							  "credit",
						  source.len, source.len, source.data, billing_id.len,
						  billing_id.data);

	return ub_value_made_uuid(name);
}

/* Fills what a row leaves open, but for created_at. */
static void
archive_complete(Datum *values, bool *nulls)
{
	UbSlice source = ub_fact_text(values, nulls, ARCHIVE_SOURCE);

	values[ARCHIVE_SOURCE] = PointerGetDatum(
		source.len == 0 ? cstring_to_text("system") : ub_value_lower(source));
	nulls[ARCHIVE_SOURCE] = false;
	if (nulls[ARCHIVE_TYPE])
		values[ARCHIVE_TYPE] = ObjectIdGetDatum(
			ub_catalog()->usage_type_credit);
	nulls[ARCHIVE_TYPE] = false;
	for (int i = 0; i < UB_MEASURES; i++)
	{
		if (nulls[ARCHIVE_MEASURES + i])
			values[ARCHIVE_MEASURES + i] = Int64GetDatum(0);
		nulls[ARCHIVE_MEASURES + i] = false;
	}
	if (nulls[ARCHIVE_ID])
		values[ARCHIVE_ID] = UUIDPGetDatum(archive_made_id(values, nulls));
	nulls[ARCHIVE_ID] = false;
}

/* Whether the row is stored already. Raises 23505 if with another payload. */
static bool
archive_is_stored(Relation rel, Datum *values, bool *nulls)
{
	ScanKeyData keys[2];
	TupleTableSlot *slot;
	const char *fields = NULL;

	ub_scan_key_text(&keys[0], ARCHIVE_BILLING_ID + 1,
					 values[ARCHIVE_BILLING_ID]);
	ub_scan_key_uuid(&keys[1], ARCHIVE_ID + 1, values[ARCHIVE_ID]);
	slot = ub_fact_find(rel, ub_catalog()->usage_archive_pkey, keys, 2);
	if (slot == NULL)
		return false;

	slot_getallattrs(slot);
	for (int column = ARCHIVE_HOUR; column < ARCHIVE_COLUMNS; column++)
		fields = ub_fact_column_differs(fields, slot, values, nulls, column);
	if (fields != NULL)
		ub_error_reused(NULL,
						ub_value_uuid_text(DatumGetUUIDP(values[ARCHIVE_ID])),
						fields);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* Trigger, before each row: completes and checks sums of usage. */
Datum
ub_archive_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo,
											  ub_catalog()->usage_archive,
											  "archive_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	Datum values[ARCHIVE_COLUMNS];
	bool nulls[ARCHIVE_COLUMNS];

	if (ub_facts_are_moving())
		return PointerGetDatum(trigger->tg_trigtuple);
	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[ARCHIVE_BILLING_ID] || nulls[ARCHIVE_HOUR] ||
		nulls[ARCHIVE_AMOUNT] || nulls[ARCHIVE_EVENTS])
		return PointerGetDatum(trigger->tg_trigtuple);

	archive_check(values, nulls);
	archive_complete(values, nulls);
	ub_fact_check_account(fcinfo,
						  ub_fact_text(values, nulls, ARCHIVE_BILLING_ID));
	if (archive_is_stored(trigger->tg_relation, values, nulls))
	{
		ub_stats_add(UB_STAT_DUPLICATES, 1);
		return PointerGetDatum(NULL);
	}
	ub_fact_default_now(values, nulls, ARCHIVE_CREATED_AT);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/* Trigger, after a statement: posts the sums that it stored, unless pruned. */
Datum
ub_archive_after_insert(PG_FUNCTION_ARGS)
{
	UbStored stored;
	UbDeltaSet *set;

	ub_stored_begin(&stored, fcinfo, ub_catalog()->usage_archive,
					"archive_after_insert()");
	set = ub_deltas_new();
	while (!ub_facts_are_moving() && ub_stored_next(&stored))
	{
		Datum *values = stored.slot->tts_values;
		UbDeltaKey key;
		UbDelta *delta;
		int64 amount;

		slot_getallattrs(stored.slot);
		amount = DatumGetInt64(values[ARCHIVE_AMOUNT]);
		key.billing_id = ub_value_slice(
			DatumGetTextPP(values[ARCHIVE_BILLING_ID]));
		key.source = ub_value_slice(DatumGetTextPP(values[ARCHIVE_SOURCE]));
		key.hour = DatumGetTimestampTz(values[ARCHIVE_HOUR]);
		key.kind = DatumGetObjectId(values[ARCHIVE_TYPE]) ==
				ub_catalog()->usage_type_feature ?
			UB_KIND_FEATURE :
			UB_KIND_CREDIT;

		delta = ub_deltas_at(set, &key);
		if (key.kind == UB_KIND_CREDIT)
		{
			delta->sums[UB_SUM_CREDITS] -= amount;
			delta->sums[UB_SUM_DEBITED] += amount;
		}
		delta->sums[UB_SUM_AMOUNT] += amount;
		delta->sums[UB_SUM_EVENTS] += DatumGetInt64(values[ARCHIVE_EVENTS]);
		for (int i = 0; i < UB_MEASURES; i++)
			delta->sums[UB_SUM_MEASURES + i] += DatumGetInt64(
				values[ARCHIVE_MEASURES + i]);
		set = ub_ledger_post_if_many(set);
	}
	ub_ledger_post(set);
	ub_deltas_free(set);
	ub_stored_end(&stored);
	return PointerGetDatum(NULL);
}

/* SQL: delivery_measures(type, source, metadata) */
Datum
ub_delivery_measures(PG_FUNCTION_ARGS)
{
	int64 measures[UB_MEASURES];
	Datum elements[UB_MEASURES];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) ||
		!ub_document_delivers(PG_GETARG_OID(0) ==
								  ub_catalog()->usage_type_feature,
							  ub_value_slice(PG_GETARG_TEXT_PP(1))))
		PG_RETURN_NULL();
	ub_document_measures(UB_PLACE_TABLE("usage"), &PG_GETARG_JSONB_P(2)->root, measures);
	for (int i = 0; i < UB_MEASURES; i++)
		elements[i] = Int64GetDatum(measures[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, UB_MEASURES, INT8OID,
										  sizeof(int64), FLOAT8PASSBYVAL,
										  TYPALIGN_DOUBLE));
}

/* Remembers the account and time in the query's answer. */
static void
place_remember(TimestampTz older_than, HeapTuple row, TupleDesc desc)
{
	bool isnull;
	UbSlice id = ub_value_slice(
		DatumGetTextPP(SPI_getbinval(row, desc, 2, &isnull)));

	last_place.older_than = older_than;
	last_place.at = DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &isnull));
	last_place.len = id.len;
	memcpy(last_place.billing_id, id.data, id.len);
}

/*
 * Moves up to max_rows usages, from the given account and time on, and returns
 * how many. only: of that account.
 */
static int64
prune_from(TimestampTz older_than, UbSlice first, TimestampTz at, bool only,
		   int64 max_rows)
{
	Datum values[5];
	text *account = ub_value_text(first);
	int64 moved = 0;
	int before;

	values[0] = TimestampTzGetDatum(older_than);
	values[1] = PointerGetDatum(account);
	values[2] = Int64GetDatum(max_rows);
	values[3] = PointerGetDatum(account);
	values[4] = TimestampTzGetDatum(at);
	SPI_connect();
	before = ub_facts_move();
	PG_TRY();
	{
		(void) ub_query_change(&prune_batch, values, only ? "     " : " n   ",
							   InvalidSnapshot, SPI_OK_SELECT);
	}
	PG_FINALLY();
	{
		ub_facts_moved(before);
	}
	PG_END_TRY();
	if (SPI_processed > 0)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		bool isnull;

		moved = DatumGetInt64(
			SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		place_remember(older_than, row, SPI_tuptable->tupdesc);
	}
	SPI_finish();
	return moved;
}

static void
prune_require_account(UbSlice billing_id)
{
	text *id = ub_value_text(billing_id);

	if (!ub_account_find(id, GetActiveSnapshot(), NULL))
		ub_error_no_account("billing_id", text_to_cstring(id));
}

/* SQL: prune_usage(older_than, billing_id, max_rows) */
Datum
ub_prune_usage(PG_FUNCTION_ARGS)
{
	UbSlice billing_id = ub_access_text_arg(fcinfo, 1);
	int32 max_rows = PG_ARGISNULL(2) ? 10000 : PG_GETARG_INT32(2);
	bool only = billing_id.len > 0;
	TimestampTz older_than;
	int64 moved = 0;

	PreventCommandIfReadOnly("prune_usage()");
	ub_access_require_unscoped();
	if (PG_ARGISNULL(0) || TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(0)))
		ub_value_error(UB_PLACE_PARAMETER, "older_than", ERRCODE_INVALID_PARAMETER_VALUE,
					   PG_ARGISNULL(0) ? "is missing" : "is not finite", NULL);
	if (max_rows <= 0)
		ub_value_error(UB_PLACE_PARAMETER, "max_rows", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is %d; it must be positive", max_rows), NULL);
	if (only)
		prune_require_account(billing_id);
	older_than = ub_value_hour(PG_GETARG_TIMESTAMPTZ(0));

	if (last_place.len > 0 && last_place.older_than == older_than)
	{
		UbSlice place = {last_place.billing_id, last_place.len};

		if (!only || ub_slices_equal(place, billing_id))
			moved = prune_from(older_than, place, last_place.at, only,
							   max_rows);
	}
	if (moved < max_rows)
		moved += prune_from(older_than, billing_id, DT_NOBEGIN, only,
							max_rows - moved);
	ub_stats_add(UB_STAT_USAGES_PRUNED, moved);
	PG_RETURN_INT64(moved);
}
