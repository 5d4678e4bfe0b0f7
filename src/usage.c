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
#include "utils/array.h"
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

/* Columns of usage, counted from 0. */
enum
{
	USAGE_BILLING_ID,
	USAGE_ID,
	USAGE_TYPE,
	USAGE_AMOUNT,
	USAGE_SOURCE,
	USAGE_DESCRIPTION,
	USAGE_USER_ID,
	USAGE_METADATA,
	USAGE_CREATED_AT,
	USAGE_UPDATED_AT,
	USAGE_COLUMNS
};

/*
 * A create_usage call. Its rows are complete and checked, and it leaves
 * duplicates out itself, so the row trigger has nothing to do for them. What it
 * stored is collected here, to be posted when it is admitted.
 */
typedef struct UsageCall
{
	int trigger_depth; /* of its statement's own triggers, if it needs one */
	UbSlice billing_id;
	uint64 created;
	bool stored_credit;
	int128 taken; /* credits that it stored */
	UbDeltaSet *set;
} UsageCall;

static UsageCall *current_call = NULL;

static UbQuery store_usages = {
	.text = "INSERT INTO usage_billing.usage SELECT * FROM usages"
			" ON CONFLICT (billing_id, id) DO NOTHING",
	.rows_name = "usages"};

PG_FUNCTION_INFO_V1(ub_usage_before_insert);
PG_FUNCTION_INFO_V1(ub_usage_after_insert);
PG_FUNCTION_INFO_V1(ub_create_usage);

/* Whether the row at hand comes from create_usage's own statement. */
static bool
usage_is_from_call(void)
{
	return current_call != NULL &&
		current_call->trigger_depth == ub_trigger_depth();
}

static Datum
usage_type_datum(bool feature)
{
	return ObjectIdGetDatum(feature ? ub_catalog()->usage_type_feature :
									  ub_catalog()->usage_type_credit);
}

/* Gives the source its stored form: lower case, "system" if there is none. */
static void
usage_normalise(UbPlace place, UbUsageItem *item)
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
static const char *
usage_differences(const UbUsageItem *item, const UbUsageItem *stored)
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
static void
usage_load(Datum *values, bool *nulls, UbUsageItem *item)
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
	if (item->amount < 0)
		ub_value_error(place, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT "; it must not be negative",
								item->amount),
					   NULL);
	ub_value_check_length(place, "source", item->source, UB_ID_BYTES);
	ub_value_check_length(place, "description", item->description, UB_DESCRIPTION_BYTES);
	ub_value_check_length(place, "user_id", item->user_id, UB_ID_BYTES);
	if (item->metadata != NULL)
		ub_value_check_metadata(place, item->metadata, item->metadata_len);
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
	usage_load(slot->tts_values, slot->tts_isnull, &stored);
	fields = usage_differences(item, &stored);
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
		values[USAGE_TYPE] = usage_type_datum(false);
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

	usage_load(values, nulls, &item);
	usage_check(ub_fact_text(values, nulls, USAGE_BILLING_ID), &item);
	usage_normalise(UB_PLACE_TABLE("usage"), &item);
	ub_fact_check_account(fcinfo,
						  ub_fact_text(values, nulls, USAGE_BILLING_ID));
	if (usage_is_stored(trigger->tg_relation, values[USAGE_BILLING_ID],
						values[USAGE_ID], &item))
	{
		ub_stats_add(UB_STAT_DUPLICATES, 1);
		return PointerGetDatum(NULL);
	}
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
static void
usage_post_call(UsageCall *call, const UbUsageItem *item)
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

	ub_stored_begin(&stored, fcinfo, ub_catalog()->usage, "usage_after_insert()");
	if (!from_call)
		set = ub_deltas_new();
	while (ub_stored_next(&stored))
	{
		Datum *values = stored.slot->tts_values;
		UbUsageItem item = {.index = -1};
		Jsonb *metadata = NULL;

		slot_getsomeattrs(stored.slot, USAGE_CREATED_AT + 1);
		item.feature = DatumGetObjectId(values[USAGE_TYPE]) ==
			ub_catalog()->usage_type_feature;
		item.amount = DatumGetInt64(values[USAGE_AMOUNT]);
		item.source = ub_value_slice(DatumGetTextPP(values[USAGE_SOURCE]));
		item.created_at = DatumGetTimestampTz(values[USAGE_CREATED_AT]);
		if (ub_document_delivers(item.feature, item.source))
		{
			metadata = DatumGetJsonbP(values[USAGE_METADATA]);
			item.metadata = &metadata->root;
		}
		if (from_call)
			usage_post_call(current_call, &item);
		else
		{
			usage_post(set,
					   ub_value_slice(DatumGetTextPP(values[USAGE_BILLING_ID])),
					   &item);
			set = ub_ledger_post_if_many(set);
			posted++;
		}
		if (metadata != NULL &&
			(Pointer) metadata != DatumGetPointer(values[USAGE_METADATA]))
			pfree(metadata);
	}
	if (!from_call)
	{
		ub_ledger_post(set);
		ub_deltas_free(set);
	}
	ub_stored_end(&stored);
	ub_stats_add(UB_STAT_USAGES_CREATED, posted);
	return PointerGetDatum(NULL);
}

static int
usage_compare(const void *a, const void *b)
{
	const UbUsageItem *x = a;
	const UbUsageItem *y = b;
	int order = memcmp(&x->id, &y->id, UUID_LEN);

	return order != 0 ? order : x->index - y->index;
}

/*
 * Puts the items into id order, the order in which all calls wait for each
 * other, and drops repeated ones. Returns how many are left.
 */
static int
usage_sort_unique(UbUsageItem *items, int count)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int kept = 0;

	qsort(items, count, sizeof(UbUsageItem), usage_compare);
	for (int i = 0; i < count; i++)
	{
		/* when it was used counts for a comparison only where it was given */
		if (!items[i].has_created_at)
			items[i].created_at = now;
		if (kept > 0 &&
			memcmp(&items[kept - 1].id, &items[i].id, UUID_LEN) == 0)
		{
			const char *fields = usage_differences(&items[i],
												   &items[kept - 1]);

			if (fields != NULL)
				ub_error_reused(ub_place_text(UB_PLACE_ELEMENT(items[i].index), ""),
								ub_value_uuid_text(&items[i].id), fields);
		}
		else
			items[kept++] = items[i];
	}
	return kept;
}

/* Makes a row of usage of an item, in the current memory context. */
static void
usage_row(text *billing_id, const UbUsageItem *item, TimestampTz now,
		  Datum *values, bool *nulls)
{
	memset(nulls, false, USAGE_COLUMNS);
	values[USAGE_BILLING_ID] = PointerGetDatum(billing_id);
	values[USAGE_ID] = UUIDPGetDatum(&item->id);
	values[USAGE_TYPE] = usage_type_datum(item->feature);
	values[USAGE_AMOUNT] = Int64GetDatum(item->amount);
	values[USAGE_SOURCE] = PointerGetDatum(ub_value_text(item->source));
	nulls[USAGE_DESCRIPTION] = item->description.len == 0;
	if (!nulls[USAGE_DESCRIPTION])
		values[USAGE_DESCRIPTION] = PointerGetDatum(
			ub_value_text(item->description));
	nulls[USAGE_USER_ID] = item->user_id.len == 0;
	if (!nulls[USAGE_USER_ID])
		values[USAGE_USER_ID] = PointerGetDatum(ub_value_text(item->user_id));
	values[USAGE_METADATA] = JsonbPGetDatum(
		ub_document_metadata(item->metadata, item->metadata_len));
	values[USAGE_CREATED_AT] = TimestampTzGetDatum(item->created_at);
	values[USAGE_UPDATED_AT] = TimestampTzGetDatum(now);
}

/* Stores a call's rows one by one, without a query. */
static void
usage_store_rows(UsageCall *call, UbStore *store, text *billing_id,
				 const UbUsageItem *items, int count, MemoryContext scratch)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	ScanKeyData keys[2];

	ub_scan_key_text(&keys[0], USAGE_BILLING_ID + 1,
					 PointerGetDatum(billing_id));
	for (int i = 0; i < count; i++)
	{
		Datum values[USAGE_COLUMNS];
		bool nulls[USAGE_COLUMNS];
		MemoryContext old = MemoryContextSwitchTo(scratch);
		bool stored;

		usage_row(billing_id, &items[i], now, values, nulls);
		ub_scan_key_uuid(&keys[1], USAGE_ID + 1, values[USAGE_ID]);
		stored = ub_store_put(store, keys, 2, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
		if (stored)
		{
			call->created++;
			usage_post_call(call, &items[i]);
		}
	}
}

/*
 * Stores a call's rows by a query, which does all that somebody may have put on
 * the table. Its trigger tells what it stored.
 */
static void
usage_store_query(UsageCall *call, text *billing_id, const UbUsageItem *items,
				  int count, MemoryContext scratch)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	UsageCall *outer = current_call;
	UbRows rows;

	ub_rows_begin(&rows, ub_catalog()->usage);
	for (int i = 0; i < count; i++)
	{
		Datum values[USAGE_COLUMNS];
		bool nulls[USAGE_COLUMNS];
		MemoryContext old = MemoryContextSwitchTo(scratch);

		usage_row(billing_id, &items[i], now, values, nulls);
		ub_rows_add(&rows, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	call->trigger_depth = ub_trigger_depth() + 1;
	current_call = call;
	PG_TRY();
	{
		call->created += ub_query_write(&store_usages, &rows, SPI_OK_INSERT);
	}
	PG_FINALLY();
	{
		current_call = outer;
	}
	PG_END_TRY();
	ub_rows_end(&rows);
}

/*
 * Stores a call's usages, in the order of their ids, unless they are there. The
 * call is all zero at first.
 */
static void
usage_store(UsageCall *call, text *billing_id, const UbUsageItem *items,
			int count)
{
	const UbStoreTable table =
		{.table = ub_catalog()->usage,
		 .key = ub_catalog()->usage_pkey,
		 .before_insert = ub_catalog()->usage_before_insert,
		 .after_insert = ub_catalog()->usage_after_insert};
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "usage_billing row",
												  ALLOCSET_SMALL_SIZES);
	UbStore *store = ub_store_begin(&table);

	call->billing_id = ub_value_slice(billing_id);
	if (call->set == NULL)
		call->set = ub_deltas_new();
	if (store != NULL)
	{
		usage_store_rows(call, store, billing_id, items, count, scratch);
		ub_store_end(store);
	}
	else
		usage_store_query(call, billing_id, items, count, scratch);
	MemoryContextDelete(scratch);
}

/*
 * Compares the items with what is stored under their ids, in a fresh snapshot:
 * the statement before may have found rows that its own could not see. Those
 * that it stored are the same by themselves. Returns false if one is gone that
 * was there: it was pruned meanwhile.
 */
static bool
usage_check_stored(text *billing_id, const UbUsageItem *items, int count)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbScan scan;
	ScanKeyData keys[2];
	bool all_there = true;

	ub_scan_key_text(&keys[0], USAGE_BILLING_ID + 1,
					 PointerGetDatum(billing_id));
	ub_scan_key_uuid(&keys[1], USAGE_ID + 1, UUIDPGetDatum(&items[0].id));
	ub_scan_begin(&scan, ub_catalog()->usage, ub_catalog()->usage_pkey,
				  snapshot, keys, 2);
	for (int i = 0; i < count; i++)
	{
		UbUsageItem stored;
		const char *fields;

		ub_scan_key_uuid(&keys[1], USAGE_ID + 1, UUIDPGetDatum(&items[i].id));
		index_rescan(scan.desc, keys, 2, NULL, 0);
		all_there = ub_scan_next(&scan);
		if (!all_there)
			break;
		slot_getallattrs(scan.slot);
		usage_load(scan.slot->tts_values, scan.slot->tts_isnull, &stored);
		fields = usage_differences(&items[i], &stored);
		if (fields != NULL)
			ub_error_reused(ub_place_text(UB_PLACE_ELEMENT(items[i].index), ""),
							ub_value_uuid_text(&items[i].id), fields);
	}
	ub_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return all_there;
}

/* SQL: create_usage(usages, billing_id, org_id, project_id) */
Datum
ub_create_usage(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 1);
	UbAccount account;
	UbUsageItem *items;
	UsageCall call = {0};
	int count;
	int unique;
	int64 balance;
	JsonbParseState *state;

	PreventCommandIfReadOnly("create_usage()");
	ub_access_account(&choice, GetTransactionSnapshot(), &account);
	if (PG_ARGISNULL(0))
		ub_value_error(UB_PLACE_PARAMETER, "usages", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is null", "Send an array of objects.");
	items = ub_document_usages(PG_GETARG_JSONB_P(0),
							   ub_value_slice(account.billing_id), &count);
	for (int i = 0; i < count; i++)
		usage_normalise(UB_PLACE_ELEMENT(items[i].index), &items[i]);
	unique = usage_sort_unique(items, count);

	do
	{
		if (unique > 0)
			usage_store(&call, account.billing_id, items, unique);
	} while (call.created < (uint64) unique &&
			 !usage_check_stored(account.billing_id, items, unique));
	if (call.created > 0)
		balance = ub_admission_post(&account, call.set,
									call.stored_credit, call.taken);
	else
		balance = ub_ledger_balance_now(account.billing_id);

	ub_stats_add(UB_STAT_USAGES_CREATED, call.created);
	ub_stats_add(UB_STAT_DUPLICATES, count - call.created);
	ub_object_begin(&state);
	ub_object_int(&state, "created", (int64) call.created);
	ub_object_int(&state, "duplicates", count - (int64) call.created);
	ub_object_int(&state, "balance", balance);
	PG_RETURN_DATUM(ub_object_end(&state));
}

/* Reads what a revert needs of the usage in slot. */
static void
usage_describe(TupleTableSlot *slot, UbUsage *usage)
{
	UbUsageItem item;

	slot_getallattrs(slot);
	usage_load(slot->tts_values, slot->tts_isnull, &item);
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
