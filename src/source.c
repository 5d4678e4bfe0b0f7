/*
 * source.c
 *		Tables that are tracked for storage usage: the triggers that append
 *		what a statement changed, and counting a table.
 *
 * The columns are named by the user, so the queries are built for each table,
 * with quoted names, and kept. They run with the rights of the table's owner in
 * a security-restricted operation, because a column's type or a row's cast can
 * bring code along.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "access.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "source.h"
#include "value.h"

/* Columns of storage_source, counted from 0. */
enum
{
	SOURCE_RELATION,
	SOURCE_ORG,
	SOURCE_BYTES,
	SOURCE_KIND,
	SOURCE_KIND_COLUMN,
	SOURCE_DURATION,
	SOURCE_ID
};

/* The queries that are kept for a source. */
enum
{
	SOURCE_INSERTED,
	SOURCE_UPDATED,
	SOURCE_DELETED,
	SOURCE_ALL,
	SOURCE_ONE_ORG,
	SOURCE_QUERIES
};

/* What is kept for a source in this session. */
typedef struct SourcePlans
{
	Oid relation; /* hash key */
	pg_uuid_t id; /* of the source they were made for */
	char *texts[SOURCE_QUERIES];
	SPIPlanPtr plans[SOURCE_QUERIES];
} SourcePlans;

/* Who was running before the owner's rights were taken. */
typedef struct OwnerScope
{
	Oid user;
	int context;
	int nest_level;
} OwnerScope;

static HTAB *kept_plans = NULL;

PG_FUNCTION_INFO_V1(ub_storage_changed);

static UbSource *
source_load(TupleTableSlot *slot)
{
	UbSource *source = palloc0(sizeof(UbSource));
	Datum *values = slot->tts_values;
	bool *nulls = slot->tts_isnull;

	slot_getallattrs(slot);
	source->relation = DatumGetObjectId(values[SOURCE_RELATION]);
	source->org_column = pstrdup(NameStr(*DatumGetName(values[SOURCE_ORG])));
	source->bytes_column = pstrdup(
		NameStr(*DatumGetName(values[SOURCE_BYTES])));
	source->kind = nulls[SOURCE_KIND] ?
		NULL :
		TextDatumGetCString(values[SOURCE_KIND]);
	source->kind_column = nulls[SOURCE_KIND_COLUMN] ?
		NULL :
		pstrdup(NameStr(*DatumGetName(values[SOURCE_KIND_COLUMN])));
	source->duration_column = nulls[SOURCE_DURATION] ?
		NULL :
		pstrdup(NameStr(*DatumGetName(values[SOURCE_DURATION])));
	source->id = *DatumGetUUIDP(values[SOURCE_ID]);
	return source;
}

/* All sources (UbSource *), as of now. */
List *
ub_sources(void)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	Relation rel = table_open(ub_catalog()->storage_source, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	List *sources = NIL;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		sources = lappend(sources, source_load(slot));
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
	UnregisterSnapshot(snapshot);
	return sources;
}

/* Finds the source that a table is, as of now. */
bool
ub_source_find(Oid relation, UbSource *source)
{
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	UbScan scan;
	ScanKeyData key;
	bool found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relation));
	ub_scan_begin(&scan, ub_catalog()->storage_source,
				  ub_catalog()->storage_source_pkey, snapshot, &key, 1);
	found = ub_scan_next(&scan);
	if (found)
		*source = *source_load(scan.slot);
	ub_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * Locks the source's table for counting, before the snapshot is taken: a
 * TRUNCATE takes effect for older snapshots too. False if the table is gone.
 */
bool
ub_source_lock(const UbSource *source)
{
	Relation rel = try_relation_open(source->relation, AccessShareLock);

	if (rel == NULL)
		return false;
	/*
	 * A statement of this session that is still writing to it has its rows
	 * there already, and appends them only at its end.
	 */
	if (rel->rd_refcnt > 1 &&
		CheckRelationLockedByMe(rel, RowExclusiveLock, false))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot count a tracked table while a statement writes to it"),
				 errdetail("Table \"%s\" is in use by this session.",
						   RelationGetRelationName(rel)),
				 errhint("Refresh or recount after the statement.")));
	table_close(rel, NoLock);
	return true;
}

/* Takes the rights of the table's owner, restricted, and a safe search_path. */
static void
owner_begin(OwnerScope *scope, Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relation);
	GetUserIdAndSecContext(&scope->user, &scope->context);
	SetUserIdAndSecContext(((Form_pg_class) GETSTRUCT(tuple))->relowner,
						   scope->context | SECURITY_RESTRICTED_OPERATION);
	ReleaseSysCache(tuple);
	scope->nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* a count that policies cut short would be a wrong one: rather an error */
	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
owner_end(OwnerScope *scope)
{
	AtEOXact_GUC(false, scope->nest_level);
	SetUserIdAndSecContext(scope->user, scope->context);
}

/* The type of a column of the source, as it is now. */
static Oid
source_column_type(const UbSource *source, const char *column)
{
	AttrNumber attno = get_attnum(source->relation, column);

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column of a table tracked for storage usage is missing"),
				 errdetail("Table \"%s\" has no column \"%s\" any more.",
						   get_rel_name(source->relation), column),
				 errhint("Call track_storage with the new name, or untrack_storage.")));
	return getBaseType(get_atttype(source->relation, attno));
}

/* Adds a SELECT that reads the source's columns from "from". */
static void
source_add_select(StringInfo query, const UbSource *source, const char *from,
				  int sign)
{
	(void) source_column_type(source, source->org_column);
	(void) source_column_type(source, source->bytes_column);
	appendStringInfo(query,
					 "SELECT r.%s::text COLLATE \"C\" AS org_id, %d AS n,"
					 " coalesce(r.%s::numeric, 0) AS bytes, ",
					 quote_identifier(source->org_column), sign,
					 quote_identifier(source->bytes_column));
	if (source->kind_column != NULL)
	{
		(void) source_column_type(source, source->kind_column);
		appendStringInfo(query, "r.%s::text COLLATE \"C\" AS kind, ",
						 quote_identifier(source->kind_column));
	}
	else
		appendStringInfo(query, "%s::text COLLATE \"C\" AS kind, ",
						 quote_literal_cstr(source->kind ? source->kind : "file"));
	if (source->duration_column == NULL)
		appendStringInfoString(query, "0::numeric AS seconds");
	else if (source_column_type(source, source->duration_column) == INTERVALOID)
		appendStringInfo(query,
						 "coalesce(extract(epoch FROM r.%s), 0)::numeric AS seconds",
						 quote_identifier(source->duration_column));
	else
		appendStringInfo(query, "coalesce(r.%s::numeric, 0) AS seconds",
						 quote_identifier(source->duration_column));
	appendStringInfo(query, " FROM %s AS r", from);
}

/* The text of one of a source's queries: sums by organisation and kind. */
static char *
source_query_text(const UbSource *source, int which)
{
	StringInfoData query;
	const char *table;

	table = quote_qualified_identifier(get_namespace_name(
										   get_rel_namespace(source->relation)),
									   get_rel_name(source->relation));
	initStringInfo(&query);
	appendStringInfoString(&query,
						   "SELECT org_id, CASE WHEN kind IN ('image', 'video') THEN kind ELSE 'other' END,"
						   " sum(n), sum(n * bytes), sum(n * seconds) FROM (");
	if (which == SOURCE_INSERTED || which == SOURCE_UPDATED)
		source_add_select(&query, source, "usage_billing_new", 1);
	if (which == SOURCE_UPDATED)
		appendStringInfoString(&query, " UNION ALL ");
	if (which == SOURCE_DELETED || which == SOURCE_UPDATED)
		source_add_select(&query, source, "usage_billing_old", -1);
	if (which == SOURCE_ALL || which == SOURCE_ONE_ORG)
		source_add_select(&query, source, table, 1);
	if (which == SOURCE_ONE_ORG)
		appendStringInfo(&query,
						 " WHERE r.%s::text = $1 AND r.%s::text COLLATE \"C\" = $1",
						 quote_identifier(source->org_column),
						 quote_identifier(source->org_column));
	appendStringInfoString(&query,
						   ") AS files WHERE org_id <> '' GROUP BY 1, 2"
						   " HAVING sum(n) <> 0 OR sum(n * bytes) <> 0 OR sum(n * seconds) <> 0");
	return query.data;
}

/*
 * Returns the kept plan of a query, made now if there is none or the table or
 * its columns have other names or types by now. SPI is connected.
 */
static SPIPlanPtr
source_plan(const UbSource *source, int which)
{
	char *text = source_query_text(source, which);
	SourcePlans *entry;
	bool found;
	Oid argtypes[1] = {TEXTOID};
	SPIPlanPtr plan;

	if (kept_plans == NULL)
	{
		HASHCTL control = {.keysize = sizeof(Oid),
						   .entrysize = sizeof(SourcePlans)};

		kept_plans = hash_create("usage_billing sources", 16, &control,
								 HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(kept_plans, &source->relation, HASH_ENTER, &found);
	if (!found)
	{
		memset(entry->texts, 0, sizeof(entry->texts));
		memset(entry->plans, 0, sizeof(entry->plans));
	}
	if (entry->plans[which] != NULL && strcmp(entry->texts[which], text) == 0)
		return entry->plans[which];

	if (entry->plans[which] != NULL)
	{
		SPI_freeplan(entry->plans[which]);
		pfree(entry->texts[which]);
		entry->plans[which] = NULL;
	}
	plan = SPI_prepare(text, which == SOURCE_ONE_ORG ? 1 : 0, argtypes);
	if (plan == NULL)
		elog(ERROR, "could not prepare query: %s",
			 SPI_result_code_string(SPI_result));
	entry->texts[which] = MemoryContextStrdup(TopMemoryContext, text);
	SPI_keepplan(plan);
	entry->plans[which] = plan;
	return plan;
}

/* Raises 22003 for a sum that no later change could take away again. */
static void
source_check_sum(const UbSource *source, const char *column, Datum sum)
{
	if (numeric_is_nan(DatumGetNumeric(sum)) ||
		numeric_is_inf(DatumGetNumeric(sum)))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("size or duration of a tracked file is not a number"),
				 errdetail("%s.%s is NaN or infinite; the table is tracked for storage usage.",
						   get_rel_name(source->relation), column),
				 errhint("Store a number, or null. A row that holds none already: mend it with the table's user triggers disabled, then call recount_storage_usage for its organisation.")));
}

/*
 * Turns the result that is in SPI_tuptable into rows of storage_delta's shape.
 */
static void
source_result_rows(const UbSource *source, UbRows *rows)
{
	TupleDesc desc = SPI_tuptable->tupdesc;

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		Datum values[6];
		bool nulls[6] = {0};
		bool isnull;

		values[0] = SPI_getbinval(tuple, desc, 1, &isnull);
		ub_value_check_length(UB_PLACE_TABLE(get_rel_name(source->relation)),
							  source->org_column,
							  ub_value_slice(DatumGetTextPP(values[0])),
							  UB_ID_BYTES);
		values[1] = UUIDPGetDatum(&source->id);
		values[2] = SPI_getbinval(tuple, desc, 2, &isnull);
		values[3] = SPI_getbinval(tuple, desc, 3, &isnull);
		values[4] = SPI_getbinval(tuple, desc, 4, &isnull);
		values[5] = SPI_getbinval(tuple, desc, 5, &isnull);
		source_check_sum(source, source->bytes_column, values[4]);
		/* without such a column it is 0 */
		source_check_sum(source, source->duration_column, values[5]);
		ub_rows_add(rows, values, nulls);
	}
}

/*
 * Raises the current error anew. The server's message about a value that can't
 * be read quotes it, and the row may be of another organisation than the one
 * that asks; so only those who may see the row are told, and the log. What the
 * maintenance notes down is the message alone.
 */
UB_NORETURN static void
source_read_failed(const UbSource *source, int which, bool quote)
{
	ErrorData *error = CopyErrorData();
	const char *table;

	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
		PG_RE_THROW();
	FlushErrorState();
	table = get_rel_name(source->relation);
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("row of a tracked table can't be counted"),
			 quote ? errdetail("Table \"%s\" is tracked for storage usage: %s.", table, error->message) :
					 errdetail("Table \"%s\" is tracked for storage usage.", table),
			 errdetail_log("Table \"%s\": %s", table, error->message),
			 which == SOURCE_INSERTED ? errhint("Store a number as size and duration, or null.") :
				 quote				  ? errhint("Store a number as size and duration, or null. A row that holds none already: mend it with the table's user triggers disabled, then call recount_storage_usage for its organisation.") :
										errhint("Let the table's owner mend the row; recount_storage_usage tells the owner which value it is.")));
}

/*
 * Runs a query of the source with its owner's rights, in a snapshot or, where it
 * reads transition tables, in the statement's. SPI is connected.
 */
static void
source_run(const UbSource *source, int which, Datum *values, Snapshot snapshot,
		   bool quote)
{
	OwnerScope scope;
	MemoryContext context = CurrentMemoryContext;
	int code;

	owner_begin(&scope, source->relation);
	PG_TRY();
	{
		SPIPlanPtr plan = source_plan(source, which);

		code = snapshot == InvalidSnapshot ?
			SPI_execute_plan(plan, values, NULL, true, 0) :
			SPI_execute_snapshot(plan, values, NULL, snapshot, InvalidSnapshot,
								 true, false, 0);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		source_read_failed(source, which, quote);
	}
	PG_END_TRY();
	owner_end(&scope);
	if (code != SPI_OK_SELECT)
		elog(ERROR, "query returned %s", SPI_result_code_string(code));
}

/*
 * Counts a source's table under a snapshot, for one organisation or all (null),
 * into rows of storage_delta's shape. The table is locked. quote: whether its
 * owner, if it is the one that asks, may be told what a row holds.
 */
void
ub_source_count(const UbSource *source, const char *org_id, Snapshot snapshot,
				UbRows *rows, bool quote)
{
	Datum value = org_id ? CStringGetTextDatum(org_id) : (Datum) 0;

	quote = quote && ub_access_scope() == NULL &&
		ub_owns_relation(source->relation, GetOuterUserId());
	SPI_connect();
	source_run(source, org_id ? SOURCE_ONE_ORG : SOURCE_ALL, &value, snapshot,
			   quote);
	source_result_rows(source, rows);
	SPI_finish();
}

/*
 * May the writer be told what is in the rows of its statement? It knows what it
 * inserts; what it changes or deletes may be more than it can read.
 */
static bool
source_writer_sees(Oid relation, int which)
{
	return which == SOURCE_INSERTED ||
		(pg_class_aclcheck(relation, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		 check_enable_rls(relation, InvalidOid, true) != RLS_ENABLED);
}

/*
 * Trigger, after a statement on a tracked table: appends what it changed, by
 * organisation and kind.
 */
Datum
ub_storage_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	UbSource source;
	UbRows rows;
	int which;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		(trigger->tg_newtable == NULL && trigger->tg_oldtable == NULL))
		ub_error_not_trigger("storage_changed()");
	which = TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ? SOURCE_INSERTED :
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event)	   ? SOURCE_DELETED :
														 SOURCE_UPDATED;
	if (!ub_source_find(RelationGetRelid(trigger->tg_relation), &source))
		return PointerGetDatum(NULL);

	ub_rows_begin(&rows, ub_catalog()->storage_delta);
	SPI_connect();
	if (SPI_register_trigger_data(trigger) != SPI_OK_TD_REGISTER)
		elog(ERROR, "could not register transition tables");
	source_run(&source, which, NULL, InvalidSnapshot,
			   source_writer_sees(source.relation, which));
	source_result_rows(&source, &rows);
	SPI_finish();
	if (rows.count > 0)
		ub_rows_append(&rows);
	ub_rows_end(&rows);
	return PointerGetDatum(NULL);
}
