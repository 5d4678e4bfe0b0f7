/*
 * grant.c
 *		Credit grants: the triggers of their table and grant_credits.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "access.h"
#include "catalog.h"
#include "document.h"
#include "errors.h"
#include "fact.h"
#include "ledger.h"
#include "query.h"
#include "stats.h"

/* Columns of credit_grant, counted from 0. */
enum
{
	GRANT_BILLING_ID,
	GRANT_ID,
	GRANT_AMOUNT,
	GRANT_SOURCE,
	GRANT_DESCRIPTION,
	GRANT_USER_ID,
	GRANT_METADATA,
	GRANT_CREATED_AT,
	GRANT_COLUMNS
};

#define GRANT_SOURCE_DEFAULT "system.buy"

static UbQuery store_grant = {
	.text = "INSERT INTO usage_billing.credit_grant SELECT * FROM grants"
			" ON CONFLICT (billing_id, id) DO NOTHING",
	.rows_name = "grants"};

PG_FUNCTION_INFO_V1(ub_grant_before_insert);
PG_FUNCTION_INFO_V1(ub_grant_after_insert);
PG_FUNCTION_INFO_V1(ub_grant_credits);

/* Checks a grant, wherever it comes from. */
static void
grant_check(UbPlace place, Datum *values, bool *nulls)
{
	int64 amount = DatumGetInt64(values[GRANT_AMOUNT]);

	ub_value_check_id(place, "billing_id", ub_fact_text(values, nulls, GRANT_BILLING_ID));
	if (amount <= 0)
		ub_value_error(place, "amount", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT "; it must be positive", amount), NULL);
	ub_value_check_length(place, "source", ub_fact_text(values, nulls, GRANT_SOURCE),
						  UB_ID_BYTES);
	ub_value_check_length(place, "description",
						  ub_fact_text(values, nulls, GRANT_DESCRIPTION),
						  UB_DESCRIPTION_BYTES);
	ub_value_check_length(place, "user_id", ub_fact_text(values, nulls, GRANT_USER_ID),
						  UB_ID_BYTES);
	ub_fact_check_metadata(place, values, nulls, GRANT_METADATA);
	ub_fact_check_time(place, "created_at", values, nulls, GRANT_CREATED_AT);
}

/* Fills what a grant leaves open; empty texts are none. */
static void
grant_complete(Datum *values, bool *nulls)
{
	if (ub_fact_text(values, nulls, GRANT_SOURCE).len == 0)
		values[GRANT_SOURCE] = CStringGetTextDatum(GRANT_SOURCE_DEFAULT);
	nulls[GRANT_SOURCE] = false;
	ub_fact_empty_is_null(values, nulls, GRANT_DESCRIPTION);
	ub_fact_empty_is_null(values, nulls, GRANT_USER_ID);
	ub_fact_default_metadata(values, nulls, GRANT_METADATA);
}

/*
 * Whether a completed grant is stored already. Raises 23505 if with another
 * payload; created_at counts if it is not null.
 */
static bool
grant_is_stored(Relation rel, Datum *values, bool *nulls)
{
	ScanKeyData keys[2];
	TupleTableSlot *slot;
	const char *fields = NULL;

	ub_scan_key_text(&keys[0], GRANT_BILLING_ID + 1, values[GRANT_BILLING_ID]);
	ub_scan_key_uuid(&keys[1], GRANT_ID + 1, values[GRANT_ID]);
	slot = ub_fact_find(rel, ub_catalog()->credit_grant_pkey, keys, 2);
	if (slot == NULL)
		return false;

	slot_getallattrs(slot);
	for (int column = GRANT_AMOUNT; column < GRANT_COLUMNS; column++)
		fields = ub_fact_column_differs(fields, slot, values, nulls, column);
	if (fields != NULL)
		ub_error_reused(NULL,
						ub_value_uuid_text(DatumGetUUIDP(values[GRANT_ID])),
						fields);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* Trigger, before each row: completes and checks a grant. */
Datum
ub_grant_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo,
											  ub_catalog()->credit_grant,
											  "grant_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	Datum values[GRANT_COLUMNS];
	bool nulls[GRANT_COLUMNS];

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[GRANT_BILLING_ID] || nulls[GRANT_ID] || nulls[GRANT_AMOUNT])
		return PointerGetDatum(trigger->tg_trigtuple);

	grant_check(UB_PLACE_TABLE("credit_grant"), values, nulls);
	grant_complete(values, nulls);
	ub_fact_check_account(fcinfo,
						  ub_fact_text(values, nulls, GRANT_BILLING_ID));
	if (grant_is_stored(trigger->tg_relation, values, nulls))
	{
		ub_stats_add(UB_STAT_DUPLICATES, 1);
		return PointerGetDatum(NULL);
	}
	ub_fact_default_now(values, nulls, GRANT_CREATED_AT);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/* Trigger, after a statement: posts the grants that it stored. */
Datum
ub_grant_after_insert(PG_FUNCTION_ARGS)
{
	UbStored stored;
	UbDeltaSet *set;
	uint64 posted = 0;

	ub_stored_begin(&stored, fcinfo, ub_catalog()->credit_grant, "grant_after_insert()");
	set = ub_deltas_new();
	while (ub_stored_next(&stored))
	{
		UbDeltaKey key = {.hour = DT_NOBEGIN, .kind = UB_KIND_GRANT, .source = {"", 0}};

		slot_getsomeattrs(stored.slot, GRANT_AMOUNT + 1);
		key.billing_id = ub_fact_text(stored.slot->tts_values,
									  stored.slot->tts_isnull,
									  GRANT_BILLING_ID);
		ub_deltas_at(set, &key)->sums[UB_SUM_CREDITS] +=
			DatumGetInt64(stored.slot->tts_values[GRANT_AMOUNT]);
		set = ub_ledger_post_if_many(set);
		posted++;
	}
	ub_ledger_post(set);
	ub_deltas_free(set);
	ub_stored_end(&stored);
	ub_stats_add(UB_STAT_GRANTS, posted);
	return PointerGetDatum(NULL);
}

/* Stores the grant of the parameters. False if it was there already. */
static bool
grant_store(Datum *values, bool *nulls)
{
	UbRows rows;
	Relation rel;
	bool stored;

	ub_rows_begin(&rows, ub_catalog()->credit_grant);
	ub_rows_add(&rows, values, nulls);
	stored = ub_query_write(&store_grant, &rows, SPI_OK_INSERT) > 0;
	ub_rows_end(&rows);
	if (stored)
		return true;

	rel = table_open(ub_catalog()->credit_grant, AccessShareLock);
	(void) grant_is_stored(rel, values, nulls);
	table_close(rel, NoLock);
	return false;
}

/*
 * SQL: grant_credits(id, amount, billing_id, org_id, project_id, source,
 * description, user_id, metadata)
 */
Datum
ub_grant_credits(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 2);
	UbAccount account;
	Datum values[GRANT_COLUMNS] = {0};
	bool nulls[GRANT_COLUMNS] = {0};
	bool stored;
	int64 balance;
	JsonbParseState *state;

	PreventCommandIfReadOnly("grant_credits()");
	/* so that an account that is being removed is gone before we look for it */
	LockRelationOid(ub_catalog()->credit_grant, RowExclusiveLock);
	ub_access_account(&choice, GetTransactionSnapshot(), &account);
	for (int i = 0; i < 2; i++)
	{
		if (PG_ARGISNULL(i))
			ub_value_error(UB_PLACE_PARAMETER, i == 0 ? "id" : "amount",
						   ERRCODE_INVALID_PARAMETER_VALUE, "is missing", NULL);
	}
	values[GRANT_BILLING_ID] = PointerGetDatum(account.billing_id);
	values[GRANT_ID] = PG_GETARG_DATUM(0);
	values[GRANT_AMOUNT] = PG_GETARG_DATUM(1);
	for (int i = 0; i < 4; i++)
	{
		nulls[GRANT_SOURCE + i] = PG_ARGISNULL(5 + i);
		values[GRANT_SOURCE + i] = PG_GETARG_DATUM(5 + i);
	}
	nulls[GRANT_CREATED_AT] = true;
	grant_check(UB_PLACE_PARAMETER, values, nulls);
	grant_complete(values, nulls);

	stored = grant_store(values, nulls);
	balance = stored ? ub_ledger_settle(account.billing_id) :
					   ub_ledger_balance_now(account.billing_id);

	ub_object_begin(&state);
	ub_object_text(&state, "id", ub_value_uuid_text(PG_GETARG_UUID_P(0)));
	ub_object_int(&state, "amount", PG_GETARG_INT64(1));
	ub_object_int(&state, "balance", balance);
	ub_object_bool(&state, "duplicate", !stored);
	PG_RETURN_DATUM(ub_object_end(&state));
}
