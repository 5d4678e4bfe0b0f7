/*
 * account.c
 *		Billing accounts and projects: the triggers of their tables,
 *		create_billing_account and create_project.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "document.h"
#include "errors.h"
#include "fact.h"
#include "query.h"

/* Columns of billing_account and project, counted from 0. */
enum
{
	ACCOUNT_BILLING_ID,
	ACCOUNT_ORG_ID,
	ACCOUNT_IS_DEFAULT,
	ACCOUNT_CREDIT_MIN,
	ACCOUNT_STATE,
	ACCOUNT_LAST_BILLED_AT,
	ACCOUNT_METADATA,
	ACCOUNT_CREATED_AT,
	ACCOUNT_UPDATED_AT,
	ACCOUNT_COLUMNS
};
enum
{
	PROJECT_ID,
	PROJECT_ORG_ID,
	PROJECT_CREATED_AT,
	PROJECT_COLUMNS
};

static UbQuery store_account = {
	.text = "INSERT INTO usage_billing.billing_account SELECT * FROM accounts"
			" ON CONFLICT (billing_id) DO NOTHING",
	.rows_name = "accounts"};

static UbQuery store_project = {
	.text = "INSERT INTO usage_billing.project SELECT * FROM projects"
			" ON CONFLICT (project_id) DO NOTHING",
	.rows_name = "projects"};

/* A concurrent call that went further is seen by the condition's recheck. */
static UbQuery close_period = {
	.text = "UPDATE usage_billing.billing_account SET last_billed_at = $2"
			" WHERE billing_id = $1 AND (last_billed_at IS NULL OR last_billed_at < $2)",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID}};

PG_FUNCTION_INFO_V1(ub_account_before_insert);
PG_FUNCTION_INFO_V1(ub_account_before_update);
PG_FUNCTION_INFO_V1(ub_account_before_delete);
PG_FUNCTION_INFO_V1(ub_account_after_delete);
PG_FUNCTION_INFO_V1(ub_project_before_insert);
PG_FUNCTION_INFO_V1(ub_create_billing_account);
PG_FUNCTION_INFO_V1(ub_create_project);
PG_FUNCTION_INFO_V1(ub_close_billing_period);

/*
 * Makes the calls that create accounts of one organisation take turns, so that
 * exactly one of its accounts is the first.
 */
static void
account_take_org_turn(UbSlice org_id)
{
	LOCKTAG tag;
	uint64 hash = hash_bytes_extended((const unsigned char *) org_id.data,
									  org_id.len, 0);

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, UB_LOCK_ORG);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* Whether the organisation has no account, after those being written. */
static bool
account_is_first(Relation rel, Datum org_id)
{
	ScanKeyData key;
	TupleTableSlot *slot;

	ub_scan_key_text(&key, 1, org_id);
	slot = ub_fact_find(rel, ub_catalog()->billing_account_org, &key, 1);
	if (slot == NULL)
		return true;
	ExecDropSingleTupleTableSlot(slot);
	return false;
}

static void
account_check(UbPlace place, Datum *values, bool *nulls)
{
	ub_value_check_id(place, "billing_id", ub_fact_text(values, nulls, ACCOUNT_BILLING_ID));
	ub_value_check_id(place, "org_id", ub_fact_text(values, nulls, ACCOUNT_ORG_ID));
	ub_fact_check_metadata(place, values, nulls, ACCOUNT_METADATA);
	ub_fact_check_time(place, "last_billed_at", values, nulls, ACCOUNT_LAST_BILLED_AT);
	ub_fact_check_time(place, "created_at", values, nulls, ACCOUNT_CREATED_AT);
}

/* Finds the row stored under the key in values[0]; the caller drops the slot. */
static TupleTableSlot *
row_find(Relation rel, Oid index, Datum *values)
{
	ScanKeyData key;
	TupleTableSlot *slot;

	ub_scan_key_text(&key, 1, values[0]);
	slot = ub_fact_find(rel, index, &key, 1);
	if (slot != NULL)
		slot_getallattrs(slot);
	return slot;
}

static void
row_reused(const char *what, Datum id, const char *fields)
{
	UbSlice slice = ub_value_slice(DatumGetTextPP(id));

	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("id is taken with other settings"),
			 errdetail("%s \"%s\" is stored with another %s.", what,
					   ub_clip(slice.data, slice.len), fields),
			 errhint("Use another id, or update the settings of the one that is there.")));
}

/*
 * Whether an arriving row is stored already. Raises 23505 if with something
 * else in it; what was left open doesn't count.
 */
static bool
row_is_stored(Relation rel, Oid index, const char *what, Datum *values,
			  bool *nulls, bool *open, int columns)
{
	TupleTableSlot *slot = row_find(rel, index, values);
	const char *fields = NULL;

	if (slot == NULL)
		return false;
	for (int column = 1; column < columns; column++)
	{
		if (!open[column])
			fields = ub_fact_column_differs(fields, slot, values, nulls,
											column);
	}
	if (fields != NULL)
		row_reused(what, values[0], fields);
	ExecDropSingleTupleTableSlot(slot);
	return true;
}

/* Trigger, before each row: completes and checks an account. */
Datum
ub_account_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo,
											  ub_catalog()->billing_account,
											  "account_before_insert()");
	TupleTableSlot *slot = trigger->tg_trigslot;
	Datum values[ACCOUNT_COLUMNS];
	bool nulls[ACCOUNT_COLUMNS];
	bool open[ACCOUNT_COLUMNS] = {0};

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[ACCOUNT_BILLING_ID] || nulls[ACCOUNT_ORG_ID])
		return PointerGetDatum(trigger->tg_trigtuple);

	account_check(UB_PLACE_TABLE("billing_account"), values, nulls);
	ub_fact_default_metadata(values, nulls, ACCOUNT_METADATA);
	if (nulls[ACCOUNT_CREDIT_MIN])
		values[ACCOUNT_CREDIT_MIN] = Int64GetDatum(0);
	if (nulls[ACCOUNT_STATE])
		values[ACCOUNT_STATE] = CStringGetTextDatum("active");
	nulls[ACCOUNT_CREDIT_MIN] = nulls[ACCOUNT_STATE] = false;
	open[ACCOUNT_IS_DEFAULT] = nulls[ACCOUNT_IS_DEFAULT];
	if (row_is_stored(trigger->tg_relation, ub_catalog()->billing_account_pkey,
					  "billing_id", values, nulls, open, ACCOUNT_COLUMNS))
		return PointerGetDatum(NULL);

	if (nulls[ACCOUNT_IS_DEFAULT])
	{
		values[ACCOUNT_IS_DEFAULT] = BoolGetDatum(
			account_is_first(trigger->tg_relation, values[ACCOUNT_ORG_ID]));
		nulls[ACCOUNT_IS_DEFAULT] = false;
	}
	ub_fact_default_now(values, nulls, ACCOUNT_CREATED_AT);
	ub_fact_default_now(values, nulls, ACCOUNT_UPDATED_AT);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/* Trigger, before each row: settings may change, ids may not. */
Datum
ub_account_before_update(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *before;
	TupleTableSlot *after;
	Datum values[ACCOUNT_COLUMNS];
	bool nulls[ACCOUNT_COLUMNS];

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != ub_catalog()->billing_account)
		ub_error_not_trigger("account_before_update()");

	before = trigger->tg_trigslot;
	after = trigger->tg_newslot;
	slot_getallattrs(before);
	slot_getallattrs(after);
	memcpy(values, after->tts_values, sizeof(values));
	memcpy(nulls, after->tts_isnull, sizeof(nulls));
	for (int column = ACCOUNT_BILLING_ID; column <= ACCOUNT_ORG_ID; column++)
	{
		if (nulls[column] ||
			!datum_image_eq(values[column], before->tts_values[column], false,
							-1))
			ereport(ERROR,
					(errcode(UB_ERRCODE_APPEND_ONLY),
					 errmsg("ids of a billing account can't be changed"),
					 errdetail("%s of account \"%s\" stays as it is.",
							   column == ACCOUNT_BILLING_ID ? "billing_id" :
															  "org_id",
							   TextDatumGetCString(
								   before->tts_values[ACCOUNT_BILLING_ID])),
					 errhint("Create another account.")));
	}
	account_check(UB_PLACE_TABLE("billing_account"), values, nulls);
	if (!nulls[ACCOUNT_UPDATED_AT] &&
		DatumGetTimestampTz(values[ACCOUNT_UPDATED_AT]) ==
			DatumGetTimestampTz(before->tts_values[ACCOUNT_UPDATED_AT]))
	{
		nulls[ACCOUNT_UPDATED_AT] = true;
		ub_fact_default_now(values, nulls, ACCOUNT_UPDATED_AT);
	}
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/*
 * Whether facts of the account are stored; billing_id null: of any account.
 */
static bool
account_has_facts(Datum billing_id, Snapshot snapshot)
{
	const UbCatalog *catalog = ub_catalog();
	Oid tables[] = {catalog->usage, catalog->credit_grant,
					catalog->usage_revert, catalog->usage_archive};
	Oid indexes[] = {catalog->usage_pkey, catalog->credit_grant_pkey,
					 catalog->usage_revert_pkey, catalog->usage_archive_pkey};
	bool found = false;

	for (int i = 0; i < (int) lengthof(tables) && !found; i++)
	{
		UbScan scan;
		ScanKeyData key;

		if (DatumGetPointer(billing_id) != NULL)
			ub_scan_key_text(&key, 1, billing_id);
		ub_scan_begin(&scan, tables[i], indexes[i], snapshot, &key,
					  DatumGetPointer(billing_id) != NULL ? 1 : 0);
		found = ub_scan_next(&scan);
		ub_scan_end(&scan);
	}
	return found;
}

static void
account_error_has_facts(const char *billing_id)
{
	ereport(ERROR,
			(errcode(UB_ERRCODE_APPEND_ONLY),
			 errmsg("billing account has facts and can't be removed"),
			 errdetail("%s%s%s has usages, grants or reverts.",
					   *billing_id ? "Account \"" : "An account", billing_id,
					   *billing_id ? "\"" : ""),
			 errhint("Set its state to closed instead.")));
}

/*
 * Trigger, before a DELETE or TRUNCATE: waits for the statements that store
 * facts and keeps new ones out, so that none arrives for an account that goes.
 */
Datum
ub_account_before_delete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const UbCatalog *catalog = ub_catalog();

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != catalog->billing_account)
		ub_error_not_trigger("account_before_delete()");

	LockRelationOid(catalog->usage, ShareRowExclusiveLock);
	LockRelationOid(catalog->credit_grant, ShareRowExclusiveLock);
	LockRelationOid(catalog->usage_revert, ShareRowExclusiveLock);
	LockRelationOid(catalog->usage_archive, ShareRowExclusiveLock);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		if (account_has_facts((Datum) 0, snapshot))
			account_error_has_facts("");
		UnregisterSnapshot(snapshot);
	}
	return PointerGetDatum(NULL);
}

/* Trigger, after a DELETE: no account with facts may have gone. */
Datum
ub_account_after_delete(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot;
	Snapshot snapshot;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ||
		trigger->tg_oldtable == NULL ||
		RelationGetRelid(trigger->tg_relation) != ub_catalog()->billing_account)
		ub_error_not_trigger("account_after_delete()");

	slot = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
									&TTSOpsMinimalTuple);
	/* the same statement may have stored facts too */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	while (tuplestore_gettupleslot(trigger->tg_oldtable, true, false, slot))
	{
		slot_getallattrs(slot);
		if (account_has_facts(slot->tts_values[ACCOUNT_BILLING_ID], snapshot))
			account_error_has_facts(
				TextDatumGetCString(slot->tts_values[ACCOUNT_BILLING_ID]));
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	return PointerGetDatum(NULL);
}

/* Trigger, before each row: completes and checks a project. */
Datum
ub_project_before_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = ub_fact_before_row(fcinfo, ub_catalog()->project,
											  "project_before_insert()");
	UbPlace place = UB_PLACE_TABLE("project");
	TupleTableSlot *slot = trigger->tg_trigslot;
	Datum values[PROJECT_COLUMNS];
	bool nulls[PROJECT_COLUMNS];
	bool open[PROJECT_COLUMNS] = {0};

	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(values));
	memcpy(nulls, slot->tts_isnull, sizeof(nulls));
	/* the server itself refuses these */
	if (nulls[PROJECT_ID] || nulls[PROJECT_ORG_ID])
		return PointerGetDatum(trigger->tg_trigtuple);

	ub_value_check_id(place, "project_id", ub_fact_text(values, nulls, PROJECT_ID));
	ub_value_check_id(place, "org_id", ub_fact_text(values, nulls, PROJECT_ORG_ID));
	ub_fact_check_time(place, "created_at", values, nulls, PROJECT_CREATED_AT);
	if (row_is_stored(trigger->tg_relation, ub_catalog()->project_pkey,
					  "project_id", values, nulls, open, PROJECT_COLUMNS))
		return PointerGetDatum(NULL);
	ub_fact_default_now(values, nulls, PROJECT_CREATED_AT);
	return PointerGetDatum(ub_fact_tuple(trigger, values, nulls));
}

/*
 * Stores a row by query unless it is there, and returns the stored one as a
 * composite. What was left open doesn't count against one that is there. One of
 * another organisation is refused without telling so, if the request is scoped.
 */
static Datum
row_store(UbQuery *query, Oid relid, Oid index, const char *what,
		  Datum *values, bool *nulls, bool *open, int columns)
{
	Relation rel = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = row_find(rel, index, values);
	Datum result;

	if (slot == NULL)
	{
		UbRows rows;

		ub_rows_begin(&rows, relid);
		ub_rows_add(&rows, values, nulls);
		(void) ub_query_write(query, &rows, SPI_OK_INSERT);
		ub_rows_end(&rows);
	}
	else if (ub_access_scope() != NULL &&
			 !datum_image_eq(slot->tts_values[1], values[1], false, -1))
		ub_error_forbidden();
	else
		(void) row_is_stored(rel, index, what, values, nulls, open, columns);

	if (slot == NULL)
		slot = row_find(rel, index, values);
	if (slot == NULL)
		elog(ERROR, "row was neither stored nor found");
	result = ExecFetchSlotHeapTupleDatum(slot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	return result;
}

/* Raises 23505 if the organisation has another default account. */
static void
account_check_default(const char *org_id, Datum billing_id)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbAccount account;

	if (ub_account_of_org(org_id, snapshot, &account) &&
		!ub_slices_equal(ub_value_slice(account.billing_id),
						 ub_value_slice(DatumGetTextPP(billing_id))))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("organisation has another default account"),
				 errdetail("It is \"%s\".", account.id),
				 errhint("Leave is_default out, or take it from that account first.")));
	UnregisterSnapshot(snapshot);
}

/* SQL: create_billing_account(org_id, billing_id, credit_min, is_default, metadata) */
Datum
ub_create_billing_account(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 0));
	UbSlice billing_id = ub_access_text_arg(fcinfo, 1);
	Datum values[ACCOUNT_COLUMNS] = {0};
	bool nulls[ACCOUNT_COLUMNS] = {0};
	bool open[ACCOUNT_COLUMNS] = {0};

	PreventCommandIfReadOnly("create_billing_account()");
	if (billing_id.len == 0)
	{
		Datum made = DirectFunctionCall1(gen_random_uuid, (Datum) 0);

		const char *id = ub_value_uuid_text(DatumGetUUIDP(made));

		billing_id = (UbSlice){id, strlen(id)};
	}
	values[ACCOUNT_BILLING_ID] = PointerGetDatum(ub_value_text(billing_id));
	values[ACCOUNT_ORG_ID] = CStringGetTextDatum(org_id);
	nulls[ACCOUNT_IS_DEFAULT] = PG_ARGISNULL(3);
	values[ACCOUNT_IS_DEFAULT] = PG_GETARG_DATUM(3);
	values[ACCOUNT_CREDIT_MIN] = PG_ARGISNULL(2) ? Int64GetDatum(0) :
												   PG_GETARG_DATUM(2);
	values[ACCOUNT_STATE] = CStringGetTextDatum("active");
	nulls[ACCOUNT_LAST_BILLED_AT] = true;
	nulls[ACCOUNT_METADATA] = PG_ARGISNULL(4);
	values[ACCOUNT_METADATA] = PG_GETARG_DATUM(4);
	nulls[ACCOUNT_CREATED_AT] = nulls[ACCOUNT_UPDATED_AT] = true;
	account_check(UB_PLACE_PARAMETER, values, nulls);
	ub_fact_default_metadata(values, nulls, ACCOUNT_METADATA);

	/* what the call doesn't say may have changed since it was first made */
	open[ACCOUNT_STATE] = open[ACCOUNT_LAST_BILLED_AT] = true;
	open[ACCOUNT_IS_DEFAULT] = nulls[ACCOUNT_IS_DEFAULT];
	account_take_org_turn(ub_fact_text(values, nulls, ACCOUNT_ORG_ID));
	if (!nulls[ACCOUNT_IS_DEFAULT] && DatumGetBool(values[ACCOUNT_IS_DEFAULT]))
		account_check_default(org_id, values[ACCOUNT_BILLING_ID]);
	PG_RETURN_DATUM(row_store(&store_account, ub_catalog()->billing_account,
							  ub_catalog()->billing_account_pkey, "billing_id",
							  values, nulls, open, ACCOUNT_COLUMNS));
}

/* SQL: create_project(project_id, org_id) */
Datum
ub_create_project(PG_FUNCTION_ARGS)
{
	char *org_id = ub_access_org(ub_access_text_arg(fcinfo, 1));
	UbSlice project_id = ub_access_text_arg(fcinfo, 0);
	Datum values[PROJECT_COLUMNS] = {0};
	bool nulls[PROJECT_COLUMNS] = {0};
	bool open[PROJECT_COLUMNS] = {0};

	PreventCommandIfReadOnly("create_project()");
	ub_value_check_id(UB_PLACE_PARAMETER, "project_id", project_id);
	values[PROJECT_ID] = PointerGetDatum(ub_value_text(project_id));
	values[PROJECT_ORG_ID] = CStringGetTextDatum(org_id);
	nulls[PROJECT_CREATED_AT] = true;
	PG_RETURN_DATUM(row_store(&store_project, ub_catalog()->project,
							  ub_catalog()->project_pkey, "project_id",
							  values, nulls, open, PROJECT_COLUMNS));
}

/* SQL: close_billing_period("at", billing_id, org_id, project_id) */
Datum
ub_close_billing_period(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 1);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = PG_ARGISNULL(0) ? now : PG_GETARG_TIMESTAMPTZ(0);
	UbAccount account;
	Datum values[2];
	bool moved;

	PreventCommandIfReadOnly("close_billing_period()");
	ub_access_account(&choice, GetTransactionSnapshot(), &account);
	if (TIMESTAMP_NOT_FINITE(at) || at > now)
		ub_value_error(UB_PLACE_PARAMETER, "at", ERRCODE_INVALID_PARAMETER_VALUE,
					   TIMESTAMP_NOT_FINITE(at) ? "is not finite" : "is in the future",
					   "A period can be closed when it is over.");
	at = ub_value_hour(at);
	values[0] = PointerGetDatum(account.billing_id);
	values[1] = TimestampTzGetDatum(at);

	SPI_connect();
	moved = ub_query_change(&close_period, values, NULL, InvalidSnapshot,
							SPI_OK_UPDATE) > 0;
	SPI_finish();
	if (!moved)
	{
		Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());

		if (!ub_account_find(account.billing_id, snapshot, &account))
			ub_error_no_account("billing_id", account.id);
		UnregisterSnapshot(snapshot);
		if (account.last_billed_at > at)
			ub_value_error(UB_PLACE_PARAMETER, "at", ERRCODE_INVALID_PARAMETER_VALUE,
						   psprintf("is before the last billing date, %s",
									timestamptz_to_str(account.last_billed_at)),
						   "A billing date only moves forward.");
	}
	PG_RETURN_TIMESTAMPTZ(at);
}
