/*
 * track.c
 *		Beginning and ending to track a table: track_storage and
 *		untrack_storage.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "access.h"
#include "compat.h"
#include "errors.h"
#include "source.h"
#include "storage.h"
#include "value.h"

/* The triggers of a tracked table; %s is the table. */
static const char *const track_triggers[][2] = {
	{"usage_billing_insert", "CREATE TRIGGER usage_billing_insert AFTER INSERT ON %s"
							 " REFERENCING NEW TABLE AS usage_billing_new"
							 " FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.storage_changed()"},
	{"usage_billing_update", "CREATE TRIGGER usage_billing_update AFTER UPDATE ON %s"
							 " REFERENCING OLD TABLE AS usage_billing_old NEW TABLE AS usage_billing_new"
							 " FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.storage_changed()"},
	{"usage_billing_delete", "CREATE TRIGGER usage_billing_delete AFTER DELETE ON %s"
							 " REFERENCING OLD TABLE AS usage_billing_old"
							 " FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.storage_changed()"},
	{"usage_billing_truncate", "CREATE TRIGGER usage_billing_truncate AFTER TRUNCATE ON %s"
							   " FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.storage_truncated()"}};

/* A new definition is a new source, so that it is counted afresh. */
static UbQuery store_source = {
	.text = "INSERT INTO usage_billing.storage_source"
			" (relation, org_column, bytes_column, kind, kind_column, duration_column)"
			" VALUES ($1, $2, $3, $4, $5, $6)",
	.nargs = 6,
	.argtypes = {REGCLASSOID, NAMEOID, NAMEOID, TEXTOID, NAMEOID, NAMEOID}};

static UbQuery remove_source = {
	.text = "WITH gone AS (DELETE FROM usage_billing.storage_source WHERE relation = $1"
			" RETURNING source_id),"
			" totals AS (DELETE FROM usage_billing.storage_total USING gone"
			" WHERE storage_total.source_id = gone.source_id),"
			" deltas AS (DELETE FROM usage_billing.storage_delta USING gone"
			" WHERE storage_delta.source_id = gone.source_id)"
			" DELETE FROM usage_billing.storage_counted USING gone"
			" WHERE storage_counted.source_id = gone.source_id",
	.nargs = 1,
	.argtypes = {REGCLASSOID}};

PG_FUNCTION_INFO_V1(ub_track_storage);
PG_FUNCTION_INFO_V1(ub_untrack_storage);

static void
track_wrong_table(Relation rel, const char *found)
{
	ub_value_error(UB_PLACE_PARAMETER, "relation", ERRCODE_INVALID_PARAMETER_VALUE,
				   psprintf("\"%s\" %s", ub_clip(RelationGetRelationName(rel), strlen(RelationGetRelationName(rel))), found),
				   "Only plain and partitioned tables can be tracked.");
}

/* Raises 42501 if the role that calls doesn't own the table. */
static void
track_check_owner(Oid relation)
{
	char *name = get_rel_name(relation);

	if (name == NULL)
		ub_value_error(UB_PLACE_PARAMETER, "relation",
					   ERRCODE_INVALID_PARAMETER_VALUE, "is no table", NULL);
	if (!ub_owns_relation(relation, GetOuterUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the table"),
				 errdetail("Table \"%s\" belongs to another role.", name),
				 errhint("Let its owner call this function.")));
}

/*
 * Opens the table of a call, locked against writers, after checking that it can
 * be tracked and that the caller owns it.
 */
static Relation
track_open(FunctionCallInfo fcinfo, const char *function)
{
	Relation rel;
	UbSource source;
	LOCKMODE lock = ShareRowExclusiveLock;

	PreventCommandIfReadOnly(function);
	ub_access_require_unscoped();
	/* in such an operation it isn't the caller whom the outer role names */
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot change tracked tables within a security-restricted operation"),
				 errhint("Call the function directly.")));
	if (PG_ARGISNULL(0))
		ub_value_error(UB_PLACE_PARAMETER, "relation", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is missing", NULL);
	/* before the lock, which would stop writers, and after it */
	track_check_owner(PG_GETARG_OID(0));
	/* a source that ends waits for those who count it */
	if (ub_source_find(PG_GETARG_OID(0), &source))
		lock = AccessExclusiveLock;
	rel = try_relation_open(PG_GETARG_OID(0), lock);
	if (rel == NULL)
		ub_value_error(UB_PLACE_PARAMETER, "relation",
					   ERRCODE_INVALID_PARAMETER_VALUE, "is no table", NULL);
	track_check_owner(PG_GETARG_OID(0));
	return rel;
}

static void
track_check_table(Relation rel)
{
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		track_wrong_table(rel, "is not a table");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		track_wrong_table(rel, "is a temporary table");
	if (rel->rd_rel->relispartition)
		track_wrong_table(rel, "is a partition; track the table that it belongs to");
	if (rel->rd_rel->relkind == RELKIND_RELATION &&
		(has_subclass(RelationGetRelid(rel)) ||
		 has_superclass(RelationGetRelid(rel))))
		track_wrong_table(rel, "inherits or is inherited from");
	if (IsCatalogRelation(rel))
		track_wrong_table(rel, "belongs to the system catalogs");
	/* what its owner can't see isn't counted */
	if (check_enable_rls(RelationGetRelid(rel), rel->rd_rel->relowner, true) ==
		RLS_ENABLED)
		ub_value_error(UB_PLACE_PARAMETER, "relation", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("\"%s\" forces row-level security on its owner",
								RelationGetRelationName(rel)),
					   "Take FORCE ROW LEVEL SECURITY from it, or let a role with BYPASSRLS own it.");
}

/* What a column may hold. */
typedef enum TrackColumn
{
	TRACK_TEXT,
	TRACK_NUMBER,
	TRACK_DURATION
} TrackColumn;

/* Whether a type casts to what the column is read as. */
static bool
track_type_fits(Oid type, TrackColumn wanted)
{
	Oid base = getBaseType(type);
	char category;
	bool preferred;

	get_type_category_preferred(base, &category, &preferred);
	if (wanted == TRACK_DURATION && base == INTERVALOID)
		return true;
	if (category == TYPCATEGORY_STRING || base == INT2OID || base == INT4OID ||
		base == INT8OID || base == NUMERICOID)
		return true;
	return wanted == TRACK_TEXT &&
		(base == UUIDOID || category == TYPCATEGORY_ENUM);
}

/* Checks a column that a parameter names; none if it is null. */
static void
track_check_column(FunctionCallInfo fcinfo, int n, Relation rel,
				   const char *parameter, TrackColumn wanted, bool required)
{
	const char *name;
	AttrNumber attno;

	if (PG_ARGISNULL(n) || NameStr(*PG_GETARG_NAME(n))[0] == '\0')
	{
		if (required)
			ub_value_error(UB_PLACE_PARAMETER, parameter,
						   ERRCODE_INVALID_PARAMETER_VALUE, "is missing", NULL);
		return;
	}
	name = NameStr(*PG_GETARG_NAME(n));
	attno = get_attnum(RelationGetRelid(rel), name);
	if (attno <= 0)
		ub_value_error(UB_PLACE_PARAMETER, parameter,
					   ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("\"%s\" is no column of the table", name),
					   NULL);
	if (!track_type_fits(get_atttype(RelationGetRelid(rel), attno), wanted))
		ub_value_error(
			UB_PLACE_PARAMETER, parameter, ERRCODE_INVALID_PARAMETER_VALUE,
			psprintf("\"%s\" is of type %s", name,
					 format_type_be(get_atttype(RelationGetRelid(rel), attno))),
			wanted == TRACK_TEXT ?
				"Use a column of an integer, text, uuid or enum type." :
				wanted == TRACK_NUMBER ?
				"Use a column of an integer, numeric or text type." :
				"Use a column of an integer, numeric, interval or text type.");
}

static bool
track_same_text(FunctionCallInfo fcinfo, int n, const char *stored)
{
	const char *given = NULL;

	if (!PG_ARGISNULL(n))
		given = n == 3 ? text_to_cstring(PG_GETARG_TEXT_PP(n)) :
						 NameStr(*PG_GETARG_NAME(n));
	if (given != NULL && *given == '\0')
		given = NULL;
	return given == NULL || stored == NULL ? given == stored :
											 strcmp(given, stored) == 0;
}

/* Whether the call says what is stored already. */
static bool
track_is_same(FunctionCallInfo fcinfo, const UbSource *source)
{
	return track_same_text(fcinfo, 1, source->org_column) &&
		track_same_text(fcinfo, 2, source->bytes_column) &&
		track_same_text(fcinfo, 3, source->kind) &&
		track_same_text(fcinfo, 4, source->kind_column) &&
		track_same_text(fcinfo, 5, source->duration_column);
}

/* Puts the triggers on the table, or takes them off. */
static void
track_set_triggers(Relation rel, bool wanted)
{
	char *table = quote_qualified_identifier(get_namespace_name(
												 RelationGetNamespace(rel)),
											 RelationGetRelationName(rel));

	for (int i = 0; i < (int) lengthof(track_triggers); i++)
	{
		const char *name = track_triggers[i][0];
		int code = SPI_OK_UTILITY;

		bool there = OidIsValid(
			get_trigger_oid(RelationGetRelid(rel), name, true));

		if (there == wanted)
			continue;
		if (there)
			code = SPI_execute(psprintf("DROP TRIGGER %s ON %s", name, table), false, 0);
		else
			code = SPI_execute(psprintf(track_triggers[i][1], table), false, 0);
		if (code != SPI_OK_UTILITY)
			elog(ERROR, "could not set trigger: %s", SPI_result_code_string(code));
	}
}

/*
 * SQL: track_storage(relation, org_column, bytes_column, kind, kind_column,
 * duration_column)
 */
Datum
ub_track_storage(PG_FUNCTION_ARGS)
{
	Relation rel = track_open(fcinfo, "track_storage()");
	Oid relation = RelationGetRelid(rel);
	UbSource source;
	Datum values[6];
	char nulls[7] = "      ";
	bool tracked;

	track_check_table(rel);
	track_check_column(fcinfo, 1, rel, "org_column", TRACK_TEXT, true);
	track_check_column(fcinfo, 2, rel, "bytes_column", TRACK_NUMBER, true);
	track_check_column(fcinfo, 4, rel, "kind_column", TRACK_TEXT, false);
	track_check_column(fcinfo, 5, rel, "duration_column", TRACK_DURATION, false);
	for (int i = 0; i < 6; i++)
	{
		bool empty = !PG_ARGISNULL(i) &&
			((i == 3 && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(i)) == 0) ||
			 (i > 3 && NameStr(*PG_GETARG_NAME(i))[0] == '\0'));

		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) || empty ? 'n' : ' ';
	}
	if (nulls[3] == ' ' && nulls[4] == ' ')
		ub_value_error(UB_PLACE_PARAMETER, "kind_column", ERRCODE_INVALID_PARAMETER_VALUE,
					   "stands beside kind", "Give one kind for the table, or a column.");

	tracked = ub_source_find(relation, &source);
	SPI_connect();
	if (!tracked || !track_is_same(fcinfo, &source))
	{
		(void) ub_query_change(&remove_source, values, NULL, InvalidSnapshot,
							   SPI_OK_DELETE);
		(void) ub_query_change(&store_source, values, nulls, InvalidSnapshot,
							   SPI_OK_INSERT);
	}
	track_set_triggers(rel, true);
	SPI_finish();
	table_close(rel, NoLock);
	/* a row that can't be counted would make every refresh fail later */
	if (!creating_extension ||
		CurrentExtensionObject != get_extension_oid("usage_billing", true))
	{
		CommandCounterIncrement();
		ub_storage_count_source(relation);
	}
	PG_RETURN_VOID();
}

/* SQL: untrack_storage(relation) */
Datum
ub_untrack_storage(PG_FUNCTION_ARGS)
{
	Relation rel = track_open(fcinfo, "untrack_storage()");
	Datum value = PG_GETARG_DATUM(0);

	SPI_connect();
	(void) ub_query_change(&remove_source, &value, NULL, InvalidSnapshot,
						   SPI_OK_DELETE);
	track_set_triggers(rel, false);
	SPI_finish();
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}
