/*
 * call.c
 *		create_usage: storing the usages of one call, and having them admitted.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "admission.h"
#include "catalog.h"
#include "document.h"
#include "errors.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"
#include "stats.h"
#include "store.h"
#include "usage.h"

static UbQuery store_usages = {
	.text = "INSERT INTO usage_billing.usage SELECT * FROM usages"
			" ON CONFLICT (billing_id, id) DO NOTHING",
	.rows_name = "usages"};

PG_FUNCTION_INFO_V1(ub_create_usage);

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
			const char *fields = ub_usage_differences(&items[i],
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
	values[USAGE_TYPE] = ub_usage_type(item->feature);
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
usage_store_rows(UbUsageCall *call, UbStore *store, text *billing_id,
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
			ub_usage_post_call(call, &items[i]);
		}
	}
}

/*
 * Stores a call's rows by a query, which does all that somebody may have put on
 * the table. Its trigger tells what it stored.
 */
static void
usage_store_query(UbUsageCall *call, text *billing_id, const UbUsageItem *items,
				  int count, MemoryContext scratch)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	UbUsageCall *outer = ub_usage_call;
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
	ub_usage_call = call;
	PG_TRY();
	{
		call->created += ub_query_write(&store_usages, &rows, SPI_OK_INSERT);
	}
	PG_FINALLY();
	{
		ub_usage_call = outer;
	}
	PG_END_TRY();
	ub_rows_end(&rows);
}

/*
 * Stores a call's usages, in the order of their ids, unless they are there. The
 * call is all zero at first.
 */
static void
usage_store(UbUsageCall *call, text *billing_id, const UbUsageItem *items,
			int count)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "usage_billing row",
												  ALLOCSET_SMALL_SIZES);
	Relation usage = table_open(ub_catalog()->usage, RowExclusiveLock);
	UbStoreTable table;
	UbStore *store;

	/* its index may have been made anew while we waited for the lock */
	table.key = ub_catalog()->usage_pkey;
	table.before_insert = ub_catalog()->usage_before_insert;
	table.after_insert = ub_catalog()->usage_after_insert;
	store = ub_store_begin(usage, &table);

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
	table_close(usage, NoLock);
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
		ub_usage_load(scan.slot->tts_values, scan.slot->tts_isnull, &stored);
		fields = ub_usage_differences(&items[i], &stored);
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
	UbUsageCall call = {0};
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
		ub_usage_normalise(UB_PLACE_ELEMENT(items[i].index), &items[i]);
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
