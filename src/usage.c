/*
 * usage.c
 *		Usages: the triggers of their table and create_usage.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "admission.h"
#include "catalog.h"
#include "errors.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"
#include "stats.h"
#include "store.h"
#include "usage.h"

/* The call whose statement is running. */
UbUsageCall *ub_usage_call = NULL;

PG_FUNCTION_INFO_V1(ub_usage_before_insert);
PG_FUNCTION_INFO_V1(ub_usage_after_insert);

/* Whether the row at hand comes from create_usage's own statement. */
static bool
usage_is_from_call(void)
{
	return ub_usage_call != NULL &&
		ub_usage_call->trigger_depth == ub_trigger_depth();
}

Datum
ub_usage_type(bool feature)
{
	return ObjectIdGetDatum(feature ? ub_catalog()->usage_type_feature :
									  ub_catalog()->usage_type_credit);
}

/* Gives the source its stored form: lower case, "system" if there is none. */
void
ub_usage_normalise(UbPlace place, UbUsageItem *item)
{
	if (item->source.len == 0)
	{
		item->source.data = "system";
		item->source.len = strlen("system");
		return;
	}
	for (int i = 0; i < item->source.len; i++)
	{
		char c = item->source.data[i];

		if ((c >= 'A' && c <= 'Z') || IS_HIGHBIT_SET(c))
		{
			item->source = ub_value_slice(ub_value_lower(item->source));
			ub_value_check_length(place, "source", item->source, UB_ID_BYTES);
			break;
		}
	}
}

static bool
metadata_differs(JsonbContainer *a, JsonbContainer *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL && JsonContainerSize(a) != 0) ||
			(b != NULL && JsonContainerSize(b) != 0);
	return compareJsonbContainers(a, b) != 0;
}

/*
 * Returns the names of the fields in which an arriving usage differs from the
 * one stored under its id, null if the payload is the same. created_at counts
 * only if the caller gave one.
 */
const char *
ub_usage_differences(const UbUsageItem *item, const UbUsageItem *stored)
{
	const char *fields = NULL;

	fields = ub_fact_differs(fields, item->feature != stored->feature, "type");
	fields = ub_fact_differs(fields, item->amount != stored->amount, "amount");
	fields = ub_fact_differs(fields, !ub_slices_equal(item->source, stored->source), "source");
	fields = ub_fact_differs(fields,
							 !ub_slices_equal(item->description,
											  stored->description),
							 "description");
	fields = ub_fact_differs(fields, !ub_slices_equal(item->user_id, stored->user_id), "user_id");
	fields = ub_fact_differs(fields,
							 metadata_differs(item->metadata, stored->metadata),
							 "metadata");
	return ub_fact_differs(fields, item->has_created_at && item->created_at != stored->created_at, "created_at");
}

/* Reads a row of usage, whose id and amount are not null, into item. */
void
ub_usage_load(Datum *values, bool *nulls, UbUsageItem *item)
{
	memset(item, 0, sizeof(UbUsageItem));
	item->id = *DatumGetUUIDP(values[USAGE_ID]);
	item->feature = !nulls[USAGE_TYPE] &&
		DatumGetObjectId(values[USAGE_TYPE]) ==
			ub_catalog()->usage_type_feature;
	item->amount = DatumGetInt64(values[USAGE_AMOUNT]);
	item->source = ub_fact_text(values, nulls, USAGE_SOURCE);
	item->description = ub_fact_text(values, nulls, USAGE_DESCRIPTION);
	item->user_id = ub_fact_text(values, nulls, USAGE_USER_ID);
	if (!nulls[USAGE_METADATA])
	{
		Jsonb *metadata = DatumGetJsonbP(values[USAGE_METADATA]);

		item->metadata = &metadata->root;
		item->metadata_len = VARSIZE(metadata) - VARHDRSZ;
	}
	item->has_created_at = !nulls[USAGE_CREATED_AT];
	if (item->has_created_at)
		item->created_at = DatumGetTimestampTz(values[USAGE_CREATED_AT]);
}

/* Checks a row that didn't come through create_usage. */
static void
usage_check(UbSlice billing_id, const UbUsageItem *item)
{
	UbPlace place = UB_PLACE_TABLE("usage");

	ub_value_check_id(place, "billing_id", billing_id);
	ub_value_check_not_negative(place, "amount", item->amount);
	ub_value_check_length(place, "source", item->source, UB_ID_BYTES);
	ub_value_check_length(place, "description", item->description, UB_DESCRIPTION_BYTES);
	ub_value_check_length(place, "user_id", item->user_id, UB_ID_BYTES);
	if (item->metadata != NULL)
		ub_value_check_metadata(place, item->metadata);
	if (item->has_created_at && TIMESTAMP_NOT_FINITE(item->created_at))
		ub_value_error(place, "created_at", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not finite", NULL);
	if (ub_document_delivers(item->feature, item->source))
	{
		int64 measures[UB_MEASURES];

		ub_document_measures(place, item->metadata, measures);
	}
}

/* Finds the usage with this key by the trigger's own scan, see ub_fact_find. */
static TupleTableSlot *
usage_find(Relation usage, Datum billing_id, Datum id)
{
	ScanKeyData keys[2];

	ub_scan_key_text(&keys[0], USAGE_BILLING_ID + 1, billing_id);
	ub_scan_key_uuid(&keys[1], USAGE_ID + 1, id);
	return ub_fact_find(usage, ub_catalog()->usage_pkey, keys, 2);
}

/*
 * Whether the usage is stored already. Raises 23505 if with another payload.
 */
static bool
usage_is_stored(Relation usage, Datum billing_id, Datum id,
				const UbUsageItem *item)
{
	TupleTableSlot *slot = usage_find(usage, billing_id, id);
	UbUsageItem stored;
	const char *fields;

	if (slot == NULL)
		return false;
	slot_getallattrs(slot);
	ub_usage_load(slot->tts_values, slot->tts_isnull, &stored);
	fields = ub_usage_differences(item, &stored);
	if (fields != NULL)
		ub_error_reused(NULL, ub_value_uuid_text(&item->id), fields);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

static void
usage_set_text(Datum *values, bool *nulls, int column, UbSlice value)
{
	/* only an empty text has to become none; others are left as they are */
	if (value.len == 0 && !nulls[column])
		nulls[column] = true;
	else if (value.len > 0 && nulls[column])
	{
		values[column] = PointerGetDatum(ub_value_text(value));
		nulls[column] = false;
	}
}

/* Fills what the row leaves open. */
static void
usage_complete(Datum *values, bool *nulls, UbUsageItem *item)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();

	if (nulls[USAGE_TYPE])
		values[USAGE_TYPE] = ub_usage_type(false);
	if (nulls[USAGE_METADATA])
		values[USAGE_METADATA] = JsonbPGetDatum(ub_document_empty());
	if (nulls[USAGE_CREATED_AT])
		values[USAGE_CREATED_AT] = TimestampTzGetDatum(now);
	if (nulls[USAGE_UPDATED_AT])
		values[USAGE_UPDATED_AT] = TimestampTzGetDatum(now);
	nulls[USAGE_TYPE] = nulls[USAGE_METADATA] = false;
	nulls[USAGE_CREATED_AT] = nulls[USAGE_UPDATED_AT] = false;
	values[USAGE_SOURCE] = PointerGetDatum(ub_value_text(item->source));
	nulls[USAGE_SOURCE] = false;
	usage_set_text(values, nulls, USAGE_DESCRIPTION, item->description);
	usage_set_text(values, nulls, USAGE_USER_ID, item->user_id);
}

/* Whether a row says all that is stored, in its stored form. */
static bool
usage_is_complete(Datum *values, bool *nulls, const UbUsageItem *item)
{
	return !nulls[USAGE_TYPE] && !nulls[USAGE_METADATA] &&
		!nulls[USAGE_CREATED_AT] && !nulls[USAGE_UPDATED_AT] &&
		!nulls[USAGE_SOURCE] &&
		item->source.data ==
		VARDATA_ANY(DatumGetPointer(values[USAGE_SOURCE])) &&
		(nulls[USAGE_DESCRIPTION] || item->description.len > 0) &&
		(nulls[USAGE_USER_ID] || item->user_id.len > 0);
}

/*
 * Trigger, before each row: completes and checks a usage; one that is stored
 * already is passed over.
 */
Datum
ub_usage_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo, ub_catalog()->usage,
											  "usage_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	Datum values[USAGE_COLUMNS];
	bool nulls[USAGE_COLUMNS];
	UbUsageItem item;

	if (usage_is_from_call())
		return PointerGetDatum(trigger->tg_trigtuple);

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[USAGE_BILLING_ID] || nulls[USAGE_ID] || nulls[USAGE_AMOUNT])
		return PointerGetDatum(trigger->tg_trigtuple);

	ub_usage_load(values, nulls, &item);
	usage_check(ub_fact_text(values, nulls, USAGE_BILLING_ID), &item);
	ub_usage_normalise(UB_PLACE_TABLE("usage"), &item);
	ub_fact_check_account(fcinfo,
						  ub_fact_text(values, nulls, USAGE_BILLING_ID));
	if (usage_is_stored(trigger->tg_relation, values[USAGE_BILLING_ID],
						values[USAGE_ID], &item))
	{
		ub_stats_add(UB_STAT_DUPLICATES, 1);
		return PointerGetDatum(NULL);
	}
	if (usage_is_complete(values, nulls, &item))
		return PointerGetDatum(trigger->tg_trigtuple);
	usage_complete(values, nulls, &item);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/* Adds a usage that was stored to the deltas. */
static void
usage_post(UbDeltaSet *set, UbSlice billing_id, const UbUsageItem *item)
{
	UbDeltaKey key = {.billing_id = billing_id, .source = item->source};
	UbDelta *delta;

	key.hour = ub_value_hour(item->created_at);
	key.kind = item->feature ? UB_KIND_FEATURE : UB_KIND_CREDIT;
	delta = ub_deltas_at(set, &key);
	if (!item->feature)
	{
		delta->sums[UB_SUM_CREDITS] -= item->amount;
		delta->sums[UB_SUM_DEBITED] += item->amount;
	}
	delta->sums[UB_SUM_AMOUNT] += item->amount;
	delta->sums[UB_SUM_EVENTS]++;
	if (ub_document_delivers(item->feature, item->source))
	{
		int64 measures[UB_MEASURES];

		ub_document_measures(UB_PLACE_TABLE("usage"), item->metadata, measures);
		for (int i = 0; i < UB_MEASURES; i++)
			delta->sums[UB_SUM_MEASURES + i] += measures[i];
	}
}

/* The same for a usage that a call stored. */
void
ub_usage_post_call(UbUsageCall *call, const UbUsageItem *item)
{
	usage_post(call->set, call->billing_id, item);
	if (!item->feature)
	{
		call->stored_credit = true;
		call->taken += item->amount;
	}
}

/* Trigger, after a statement: posts the usages that it stored. */
Datum
ub_usage_after_insert(PG_FUNCTION_ARGS)
{
	bool from_call = usage_is_from_call();
	UbStored stored;
	UbDeltaSet *set = NULL;
	uint64 posted = 0;
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "usage_billing row",
											  ALLOCSET_SMALL_SIZES);

	ub_stored_begin(&stored, fcinfo, ub_catalog()->usage, "usage_after_insert()");
	if (!from_call)
		set = ub_deltas_new();
	while (ub_stored_next(&stored))
	{
		MemoryContext old = MemoryContextSwitchTo(row);
		Datum *values = stored.slot->tts_values;
		UbUsageItem item = {.index = -1};

		slot_getsomeattrs(stored.slot, USAGE_CREATED_AT + 1);
		item.feature = DatumGetObjectId(values[USAGE_TYPE]) ==
			ub_catalog()->usage_type_feature;
		item.amount = DatumGetInt64(values[USAGE_AMOUNT]);
		item.source = ub_value_slice(DatumGetTextPP(values[USAGE_SOURCE]));
		item.created_at = DatumGetTimestampTz(values[USAGE_CREATED_AT]);
		if (ub_document_delivers(item.feature, item.source))
			item.metadata = &DatumGetJsonbP(values[USAGE_METADATA])->root;
		if (from_call)
			ub_usage_post_call(ub_usage_call, &item);
		else
			usage_post(set,
					   ub_value_slice(DatumGetTextPP(values[USAGE_BILLING_ID])),
					   &item);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row);
		if (!from_call)
		{
			set = ub_ledger_post_if_many(set);
			posted++;
		}
	}
	MemoryContextDelete(row);
	if (!from_call)
	{
		ub_ledger_post(set);
		ub_deltas_free(set);
	}
	ub_stored_end(&stored);
	ub_stats_add(UB_STAT_USAGES_CREATED, posted);
	return PointerGetDatum(NULL);
}

/* Reads what a revert needs of the usage in slot. */
static void
usage_describe(TupleTableSlot *slot, UbUsage *usage)
{
	UbUsageItem item;

	slot_getallattrs(slot);
	ub_usage_load(slot->tts_values, slot->tts_isnull, &item);
	usage->feature = item.feature;
	usage->amount = item.amount;
	usage->source = ub_value_text(item.source);
	usage->created_at = item.created_at;
	memset(usage->measures, 0, sizeof(usage->measures));
	if (ub_document_delivers(item.feature, item.source))
		ub_document_measures(UB_PLACE_TABLE("usage"), item.metadata,
							 usage->measures);
}

/*
 * Finds a usage and locks it against reverts by others and against pruning, to
 * the end of the transaction. False if there is none.
 */
bool
ub_usage_lock(text *billing_id, const pg_uuid_t *id, UbUsage *usage)
{
	Relation rel = table_open(ub_catalog()->usage, RowShareLock);
	TupleTableSlot *slot;
	TM_Result result = TM_Deleted;

	while (result == TM_Deleted &&
		   (slot = usage_find(rel, PointerGetDatum(billing_id),
							  UUIDPGetDatum(id))) != NULL)
	{
		TM_FailureData failure;
		ItemPointerData tid = slot->tts_tid;

		usage_describe(slot, usage);
		/* one that is pruned meanwhile is looked for again */
		result = table_tuple_lock(rel, &tid, SnapshotSelf, slot,
								  GetCurrentCommandId(true),
								  LockTupleNoKeyExclusive, LockWaitBlock, 0,
								  &failure);
		ExecDropSingleTupleTableSlot(slot);
		/* invisible: of this very statement, so nobody else can see it */
		if (result != TM_Ok && result != TM_Invisible && result != TM_Deleted)
			elog(ERROR, "a usage was changed while it was being reverted");
	}
	table_close(rel, NoLock);
	return result != TM_Deleted;
}
