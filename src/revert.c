/*
 * revert.c
 *		Reverts: the triggers of their table and revert_usage.
 *
 * Whoever reverts a usage locks its row first, so reverts of one usage come
 * one after the other and their sum can be checked.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "errors.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"
#include "settings.h"
#include "stats.h"
#include "usage.h"

/* Columns of usage_revert, counted from 0. */
enum
{
	REVERT_BILLING_ID,
	REVERT_USAGE_ID,
	REVERT_NO,
	REVERT_ID,
	REVERT_AMOUNT,
	REVERT_DESCRIPTION,
	REVERT_USER_ID,
	REVERT_METADATA,
	REVERT_CREATED_AT,
	REVERT_USAGE_TYPE,
	REVERT_USAGE_SOURCE,
	REVERT_USAGE_AT,
	REVERT_USAGE_EVENTS,
	REVERT_MEASURES,
	REVERT_COLUMNS = REVERT_MEASURES + UB_MEASURES
};

/* The reverts of one usage so far. */
typedef struct RevertsSoFar
{
	int count;
	int last_no;
	int128 amount;
	TimestampTz last_at;
} RevertsSoFar;

static UbQuery store_revert = {
	.text = "INSERT INTO usage_billing.usage_revert SELECT * FROM reverts"
			" ON CONFLICT DO NOTHING",
	.rows_name = "reverts"};

PG_FUNCTION_INFO_V1(ub_revert_before_insert);
PG_FUNCTION_INFO_V1(ub_revert_after_insert);
PG_FUNCTION_INFO_V1(ub_revert_usage);

/* Adds up the reverts of a usage, whose row the caller has locked. */
static void
revert_so_far(text *billing_id, const pg_uuid_t *usage_id, RevertsSoFar *so_far)
{
	UbScan scan;
	ScanKeyData keys[2];

	memset(so_far, 0, sizeof(RevertsSoFar));
	ub_scan_key_text(&keys[0], REVERT_BILLING_ID + 1,
					 PointerGetDatum(billing_id));
	ub_scan_key_uuid(&keys[1], REVERT_USAGE_ID + 1, UUIDPGetDatum(usage_id));
	ub_scan_begin(&scan, ub_catalog()->usage_revert,
				  ub_catalog()->usage_revert_pkey, SnapshotSelf, keys, 2);
	while (ub_scan_next(&scan))
	{
		Datum *values = scan.slot->tts_values;

		slot_getallattrs(scan.slot);
		so_far->count++;
		so_far->last_no = DatumGetInt16(values[REVERT_NO]);
		so_far->amount += DatumGetInt64(values[REVERT_AMOUNT]);
		so_far->last_at = DatumGetTimestampTz(values[REVERT_CREATED_AT]);
	}
	ub_scan_end(&scan);
}

/*
 * The id of a revert that was given none: made from its key, so that loading
 * the same rows again makes the same ids.
 */
static pg_uuid_t *
revert_made_id(UbSlice billing_id, const pg_uuid_t *usage_id, int revert_no)
{
	char *name = psprintf("usage_revert:%s:%d:%.*s", ub_value_uuid_text(usage_id),
						  revert_no, billing_id.len, billing_id.data);

	return ub_value_made_uuid(name);
}

static void
revert_check(UbPlace place, Datum *values, bool *nulls)
{
	int64 amount = DatumGetInt64(values[REVERT_AMOUNT]);

	ub_value_check_id(place, "billing_id", ub_fact_text(values, nulls, REVERT_BILLING_ID));
	if (amount <= 0)
		ub_value_error(place, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT "; it must be positive", amount), NULL);
	ub_value_check_length(place, "description",
						  ub_fact_text(values, nulls, REVERT_DESCRIPTION),
						  UB_DESCRIPTION_BYTES);
	ub_value_check_length(place, "user_id", ub_fact_text(values, nulls, REVERT_USER_ID),
						  UB_ID_BYTES);
	ub_fact_check_metadata(place, values, nulls, REVERT_METADATA);
	ub_fact_check_time(place, "created_at", values, nulls, REVERT_CREATED_AT);
	ub_value_check_length(place, "usage_source",
						  ub_fact_text(values, nulls, REVERT_USAGE_SOURCE),
						  UB_ID_BYTES);
	ub_fact_check_time(place, "usage_at", values, nulls, REVERT_USAGE_AT);
	for (int i = 0; i < UB_MEASURES; i++)
	{
		if (!nulls[REVERT_MEASURES + i])
			ub_value_check_not_negative(place, ub_measure_names[i],
										DatumGetInt64(
											values[REVERT_MEASURES + i]));
	}
	if (!nulls[REVERT_USAGE_EVENTS] &&
		(uint16) DatumGetInt16(values[REVERT_USAGE_EVENTS]) > 1)
		ub_value_error(place, "usage_events", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is neither 0 nor 1", NULL);
}

/* Fills what a row leaves open about itself. */
static void
revert_complete(Datum *values, bool *nulls)
{
	if (nulls[REVERT_NO])
		values[REVERT_NO] = Int16GetDatum(1);
	nulls[REVERT_NO] = false;
	if (nulls[REVERT_ID])
		values[REVERT_ID] = UUIDPGetDatum(
			revert_made_id(ub_fact_text(values, nulls, REVERT_BILLING_ID),
						   DatumGetUUIDP(values[REVERT_USAGE_ID]),
						   DatumGetInt16(values[REVERT_NO])));
	nulls[REVERT_ID] = false;
	ub_fact_empty_is_null(values, nulls, REVERT_DESCRIPTION);
	ub_fact_empty_is_null(values, nulls, REVERT_USER_ID);
	ub_fact_default_metadata(values, nulls, REVERT_METADATA);
	ub_fact_empty_is_null(values, nulls, REVERT_USAGE_SOURCE);
	if (!nulls[REVERT_USAGE_SOURCE])
	{
		text *source = ub_value_lower(
			ub_fact_text(values, nulls, REVERT_USAGE_SOURCE));

		/* in lower case it may have more bytes */
		ub_value_check_length(UB_PLACE_TABLE("usage_revert"), "usage_source",
							  ub_value_slice(source), UB_ID_BYTES);
		values[REVERT_USAGE_SOURCE] = PointerGetDatum(source);
	}
}

/*
 * Whether a completed revert is stored already under its key or its id. Raises
 * 23505 if with another payload.
 */
static bool
revert_is_stored(Relation rel, Datum *values, bool *nulls)
{
	ScanKeyData keys[3];
	TupleTableSlot *slot;
	const char *fields = NULL;

	ub_scan_key_text(&keys[0], REVERT_BILLING_ID + 1,
					 values[REVERT_BILLING_ID]);
	ub_scan_key_uuid(&keys[1], REVERT_USAGE_ID + 1, values[REVERT_USAGE_ID]);
	ub_scan_key_int2(&keys[2], REVERT_NO + 1, values[REVERT_NO]);
	slot = ub_fact_find(rel, ub_catalog()->usage_revert_pkey, keys, 3);
	if (slot == NULL)
	{
		/* in the index of ids, the id is the second column */
		ub_scan_key_uuid(&keys[1], 2, values[REVERT_ID]);
		slot = ub_fact_find(rel, ub_catalog()->usage_revert_id_key, keys, 2);
	}
	if (slot == NULL)
		return false;

	slot_getallattrs(slot);
	for (int column = REVERT_USAGE_ID; column < REVERT_COLUMNS; column++)
	{
		/* what is filled in from the usage counts only where it was given */
		if (column < REVERT_USAGE_TYPE || !nulls[column])
			fields = ub_fact_column_differs(fields, slot, values, nulls,
											column);
	}
	if (fields != NULL)
		ub_error_reused(NULL,
						ub_value_uuid_text(DatumGetUUIDP(values[REVERT_ID])),
						fields);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* What of a measurement is taken back: floor(m * reverted / amount) in total. */
static int64
revert_share(int64 measure, int128 before, int64 amount, int64 whole)
{
	return (int64) ((int128) measure * (before + amount) / whole -
					(int128) measure * before / whole);
}

static void
revert_fill(Datum *values, bool *nulls, int column, Datum value)
{
	if (nulls[column])
		values[column] = value;
	nulls[column] = false;
}

/* Fills from the usage what the row leaves open, and checks it against it. */
static void
revert_fill_from_usage(UbPlace place, Datum *values, bool *nulls,
					   const UbUsage *usage, const RevertsSoFar *so_far)
{
	int64 amount = DatumGetInt64(values[REVERT_AMOUNT]);
	int128 left = usage->amount - so_far->amount;
	Datum type = ObjectIdGetDatum(usage->feature ?
									  ub_catalog()->usage_type_feature :
									  ub_catalog()->usage_type_credit);

	if (amount > left)
		ereport(ERROR,
				(errcode(UB_ERRCODE_REVERT_EXCEEDS),
				 errmsg("revert exceeds what is left of the usage"),
				 errdetail(
					 "Usage %s has " INT64_FORMAT
					 ", of which %s are left; the revert asks for " INT64_FORMAT
					 ".",
					 ub_value_uuid_text(DatumGetUUIDP(values[REVERT_USAGE_ID])),
					 usage->amount, ub_sum_text(left), amount),
				 errhint("Leave the amount out to revert all that is left.")));

	revert_fill(values, nulls, REVERT_USAGE_TYPE, type);
	revert_fill(values, nulls, REVERT_USAGE_SOURCE,
				PointerGetDatum(usage->source));
	revert_fill(values, nulls, REVERT_USAGE_AT,
				TimestampTzGetDatum(usage->created_at));
	revert_fill(values, nulls, REVERT_USAGE_EVENTS,
				Int16GetDatum(amount == left ? 1 : 0));
	for (int i = 0; i < UB_MEASURES; i++)
		revert_fill(values, nulls, REVERT_MEASURES + i,
					Int64GetDatum(revert_share(usage->measures[i],
											   so_far->amount, amount,
											   usage->amount)));

	if (DatumGetObjectId(values[REVERT_USAGE_TYPE]) != DatumGetObjectId(type))
		ub_value_error(place, "usage_type", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not the type of the usage", NULL);
	if (DatumGetTimestampTz(values[REVERT_USAGE_AT]) != usage->created_at)
		ub_value_error(place, "usage_at", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not the time of the usage", NULL);
	if (!datum_image_eq(values[REVERT_USAGE_SOURCE],
						PointerGetDatum(usage->source), false, -1))
		ub_value_error(place, "usage_source", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not the source of the usage", NULL);
}

/*
 * Fills in what can be known without the usage: the row says itself what it
 * takes back, as it does in a dump.
 */
static void
revert_fill_alone(Datum *values, bool *nulls)
{
	if (nulls[REVERT_USAGE_TYPE] || nulls[REVERT_USAGE_SOURCE] ||
		nulls[REVERT_USAGE_AT] || nulls[REVERT_USAGE_EVENTS])
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("revert of an unknown usage"),
			 errdetail(
				 "Usage %s is not stored, and the row does not say what it takes back.",
				 ub_value_uuid_text(DatumGetUUIDP(values[REVERT_USAGE_ID]))),
			 errhint(
				 "Load the usage first, or give usage_type, usage_source, usage_at and usage_events.")));
	for (int i = 0; i < UB_MEASURES; i++)
		revert_fill(values, nulls, REVERT_MEASURES + i, Int64GetDatum(0));
}

/* Trigger, before each row: completes and checks a revert. */
Datum
ub_revert_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo,
											  ub_catalog()->usage_revert,
											  "revert_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	UbPlace place = UB_PLACE_TABLE("usage_revert");
	Datum values[REVERT_COLUMNS];
	bool nulls[REVERT_COLUMNS];
	UbUsage usage;
	text *billing_id;
	bool found;

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[REVERT_BILLING_ID] || nulls[REVERT_USAGE_ID] ||
		nulls[REVERT_AMOUNT])
		return PointerGetDatum(trigger->tg_trigtuple);

	revert_check(place, values, nulls);
	revert_complete(values, nulls);
	ub_fact_check_account(fcinfo,
						  ub_fact_text(values, nulls, REVERT_BILLING_ID));
	billing_id = DatumGetTextPP(values[REVERT_BILLING_ID]);
	found = ub_usage_lock(billing_id, DatumGetUUIDP(values[REVERT_USAGE_ID]),
						  &usage);
	if (revert_is_stored(trigger->tg_relation, values, nulls))
	{
		ub_stats_add(UB_STAT_DUPLICATES, 1);
		return PointerGetDatum(NULL);
	}
	if (found)
	{
		RevertsSoFar so_far;

		revert_so_far(billing_id, DatumGetUUIDP(values[REVERT_USAGE_ID]),
					  &so_far);
		revert_fill_from_usage(place, values, nulls, &usage, &so_far);
	}
	else
		revert_fill_alone(values, nulls);
	ub_fact_default_now(values, nulls, REVERT_CREATED_AT);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/* Trigger, after a statement: posts the reverts that it stored. */
Datum
ub_revert_after_insert(PG_FUNCTION_ARGS)
{
	UbStored stored;
	UbDeltaSet *set;
	uint64 posted = 0;

	ub_stored_begin(&stored, fcinfo, ub_catalog()->usage_revert, "revert_after_insert()");
	set = ub_deltas_new();
	while (ub_stored_next(&stored))
	{
		Datum *values = stored.slot->tts_values;
		UbDeltaKey key;
		UbDelta *delta;
		int64 amount;

		slot_getallattrs(stored.slot);
		amount = DatumGetInt64(values[REVERT_AMOUNT]);
		key.billing_id = ub_value_slice(
			DatumGetTextPP(values[REVERT_BILLING_ID]));
		key.source = ub_value_slice(
			DatumGetTextPP(values[REVERT_USAGE_SOURCE]));
		key.hour = ub_value_hour(DatumGetTimestampTz(values[REVERT_USAGE_AT]));
		key.kind = DatumGetObjectId(values[REVERT_USAGE_TYPE]) ==
				ub_catalog()->usage_type_feature ?
			UB_KIND_FEATURE :
			UB_KIND_CREDIT;

		delta = ub_deltas_at(set, &key);
		if (key.kind == UB_KIND_CREDIT)
		{
			delta->sums[UB_SUM_CREDITS] += amount;
			delta->sums[UB_SUM_DEBITED] -= amount;
		}
		delta->sums[UB_SUM_AMOUNT] -= amount;
		delta->sums[UB_SUM_EVENTS] -= DatumGetInt16(
			values[REVERT_USAGE_EVENTS]);
		for (int i = 0; i < UB_MEASURES; i++)
			delta->sums[UB_SUM_MEASURES + i] -= DatumGetInt64(
				values[REVERT_MEASURES + i]);
		set = ub_ledger_post_if_many(set);
		posted++;
	}
	ub_ledger_post(set);
	ub_deltas_free(set);
	ub_stored_end(&stored);
	ub_stats_add(UB_STAT_REVERTS, posted);
	return PointerGetDatum(NULL);
}

/*
 * Whether a revert with the call's id is stored already. Raises 23505 if with
 * another payload. The amount counts if one was given, or else the stored
 * revert must be one that left nothing; *values gets the stored amount.
 */
static bool
revert_is_repeated(Datum *values, bool *nulls)
{
	Relation rel = table_open(ub_catalog()->usage_revert, AccessShareLock);
	ScanKeyData keys[2];
	TupleTableSlot *slot;
	const char *fields = NULL;

	ub_scan_key_text(&keys[0], REVERT_BILLING_ID + 1,
					 values[REVERT_BILLING_ID]);
	ub_scan_key_uuid(&keys[1], 2, values[REVERT_ID]);
	slot = ub_fact_find_for_call(rel, ub_catalog()->usage_revert_id_key, keys,
								 2);
	table_close(rel, NoLock);
	if (slot == NULL)
		return false;

	slot_getallattrs(slot);
	fields = ub_fact_column_differs(fields, slot, values, nulls,
									REVERT_USAGE_ID);
	if (nulls[REVERT_AMOUNT])
		fields = ub_fact_differs(fields,
								 DatumGetInt16(
									 slot->tts_values[REVERT_USAGE_EVENTS]) ==
									 0,
								 "amount");
	else
		fields = ub_fact_column_differs(fields, slot, values, nulls,
										REVERT_AMOUNT);
	for (int column = REVERT_DESCRIPTION; column <= REVERT_METADATA; column++)
		fields = ub_fact_column_differs(fields, slot, values, nulls, column);
	if (fields != NULL)
		ub_error_reused(NULL,
						ub_value_uuid_text(DatumGetUUIDP(values[REVERT_ID])),
						fields);
	values[REVERT_AMOUNT] = slot->tts_values[REVERT_AMOUNT];
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* The same before anything is stored. */
static bool
revert_was_repeated(Datum *values, bool *nulls)
{
	bool repeated = revert_is_repeated(values, nulls);

	ub_stats_add(UB_STAT_DUPLICATES, repeated ? 1 : 0);
	return repeated;
}

/*
 * Decides what the call reverts of the usage, which it has locked: fills in
 * number, id and amount.
 */
static void
revert_decide(const UbUsage *usage, Datum *values, bool *nulls)
{
	text *billing_id = DatumGetTextPP(values[REVERT_BILLING_ID]);
	pg_uuid_t *usage_id = DatumGetUUIDP(values[REVERT_USAGE_ID]);
	RevertsSoFar so_far;

	revert_so_far(billing_id, usage_id, &so_far);
	if (so_far.count > 0 && ub_revert_once)
	{
		ub_stats_add(UB_STAT_CONFLICTS, 1);
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("usage was reverted before"),
			 errdetail("Usage %s was reverted at %s by %s of " INT64_FORMAT ".",
					   ub_value_uuid_text(usage_id),
					   timestamptz_to_str(so_far.last_at),
					   ub_sum_text(so_far.amount), usage->amount),
			 errhint(
				 "A usage can be reverted once; give the first revert's id to repeat it safely.")));
	}
	if (nulls[REVERT_AMOUNT])
	{
		if (so_far.amount >= usage->amount)
			ub_value_error(UB_PLACE_PARAMETER, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
						   "is not given, and nothing is left of the usage", NULL);
		values[REVERT_AMOUNT] = Int64GetDatum(
			(int64) (usage->amount - so_far.amount));
		nulls[REVERT_AMOUNT] = false;
	}
	if (so_far.last_no >= PG_INT16_MAX)
		ub_value_error(UB_PLACE_PARAMETER, "usage_id", ERRCODE_INVALID_PARAMETER_VALUE,
					   "has as many reverts as can be stored", NULL);
	values[REVERT_NO] = Int16GetDatum(so_far.last_no + 1);
	nulls[REVERT_NO] = false;
	revert_complete(values, nulls);
}

/* Stores the call's revert. Returns false if it was there already. */
static bool
revert_store(Datum *values, bool *nulls)
{
	const pg_uuid_t *usage_id = DatumGetUUIDP(values[REVERT_USAGE_ID]);
	bool id_given = !nulls[REVERT_ID];
	UbUsage usage;
	UbRows rows;
	bool stored;

	if (id_given && revert_was_repeated(values, nulls))
		return false;
	if (!ub_usage_lock(DatumGetTextPP(values[REVERT_BILLING_ID]), usage_id,
					   &usage))
		ereport(ERROR,
				(errcode(UB_ERRCODE_NOT_FOUND),
				 errmsg("usage not found"),
				 errdetail("usage_id %s is not a usage of the account.",
						   ub_value_uuid_text(usage_id)),
				 errhint("Check the id and the account; a revert can't be reverted, nor can usage that was pruned.")));
	/* while the lock was waited for, the same call may have been stored */
	if (id_given && revert_was_repeated(values, nulls))
		return false;
	revert_decide(&usage, values, nulls);

	ub_rows_begin(&rows, ub_catalog()->usage_revert);
	ub_rows_add(&rows, values, nulls);
	stored = ub_query_write(&store_revert, &rows, SPI_OK_INSERT) > 0;
	ub_rows_end(&rows);
	/* the id alone can be in the way, and then it is another usage's revert */
	if (!stored && !revert_is_repeated(values, nulls))
		elog(ERROR, "revert was neither stored nor found");
	return stored;
}

/*
 * SQL: revert_usage(usage_id, amount, billing_id, org_id, project_id, id,
 * description, user_id, metadata)
 */
Datum
ub_revert_usage(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 2);
	UbAccount account;
	Datum values[REVERT_COLUMNS] = {0};
	bool nulls[REVERT_COLUMNS];
	bool stored;
	JsonbParseState *state;

	PreventCommandIfReadOnly("revert_usage()");
	ub_access_account(&choice, GetTransactionSnapshot(), &account);
	if (PG_ARGISNULL(0))
		ub_value_error(UB_PLACE_PARAMETER, "usage_id", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is missing", NULL);
	memset(nulls, true, sizeof(nulls));
	values[REVERT_BILLING_ID] = PointerGetDatum(account.billing_id);
	values[REVERT_USAGE_ID] = PG_GETARG_DATUM(0);
	nulls[REVERT_BILLING_ID] = nulls[REVERT_USAGE_ID] = false;
	nulls[REVERT_AMOUNT] = PG_ARGISNULL(1);
	/* any positive amount stands in for one that is not given */
	values[REVERT_AMOUNT] = nulls[REVERT_AMOUNT] ? Int64GetDatum(1) :
												   PG_GETARG_DATUM(1);
	nulls[REVERT_ID] = PG_ARGISNULL(5);
	values[REVERT_ID] = PG_GETARG_DATUM(5);
	for (int i = 0; i < 3; i++)
	{
		nulls[REVERT_DESCRIPTION + i] = PG_ARGISNULL(6 + i);
		values[REVERT_DESCRIPTION + i] = PG_GETARG_DATUM(6 + i);
	}
	revert_check(UB_PLACE_PARAMETER, values, nulls);
	ub_fact_empty_is_null(values, nulls, REVERT_DESCRIPTION);
	ub_fact_empty_is_null(values, nulls, REVERT_USER_ID);
	ub_fact_default_metadata(values, nulls, REVERT_METADATA);

	stored = revert_store(values, nulls);

	ub_object_begin(&state);
	ub_object_text(&state, "id", ub_value_uuid_text(DatumGetUUIDP(values[REVERT_ID])));
	ub_object_text(&state, "usage_id", ub_value_uuid_text(PG_GETARG_UUID_P(0)));
	ub_object_int(&state, "amount", DatumGetInt64(values[REVERT_AMOUNT]));
	ub_object_int(&state, "balance", ub_ledger_balance_now(account.billing_id));
	ub_object_bool(&state, "duplicate", !stored);
	PG_RETURN_DATUM(ub_object_end(&state));
}
