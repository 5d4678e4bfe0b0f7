/*
 * catalog.c
 *		The extension's own tables and indexes by OID, and direct look-ups
 *		through an index.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "catalog.h"
#include "compat.h"

static UbCatalog cache;
static bool callback_registered = false;

/* Forgets the OIDs when one of our tables was changed or dropped. */
static void
catalog_invalidate(Datum arg, Oid relid)
{
	const Oid *oid = &cache.billing_account;

	if (!OidIsValid(relid))
		cache.valid = false;
	for (; oid <= &cache.usage_revert_pkey; oid++)
		if (*oid == relid)
			cache.valid = false;
}

static Oid
catalog_relation(const char *name, Oid schema)
{
	Oid relid = get_relname_relid(name, schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("extension usage_billing is not complete"),
				 errdetail("Relation usage_billing.%s is missing.", name),
				 errhint("Create or update the extension.")));
	return relid;
}

/*
 * Checks that a table has the columns that the code was made for: rows are
 * formed and read by their numbers.
 */
static void
catalog_check_columns(Oid relid, int columns)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	if (((Form_pg_class) GETSTRUCT(tuple))->relnatts != columns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table of usage_billing has other columns than it was made with"),
				 errdetail("Table usage_billing.%s must keep its %d columns.",
						   get_rel_name(relid), columns),
				 errhint("Keep data of your own in metadata or in a table of your own.")));
	ReleaseSysCache(tuple);
}

static Oid
catalog_label(Oid type, const char *label)
{
	return GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
						   ObjectIdGetDatum(type), CStringGetDatum(label));
}

/* One of our trigger functions; invalid if there is none. */
static Oid
catalog_function(Oid schema, const char *name)
{
	oidvector *no_arguments = buildoidvector(NULL, 0);

	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum(name), PointerGetDatum(no_arguments),
						   ObjectIdGetDatum(schema));
}

/*
 * Returns the OIDs of the extension's relations in this database. Needs an
 * open transaction. The result stays right until the next lock is taken.
 */
const UbCatalog *
ub_catalog(void)
{
	UbCatalog found;
	Oid schema;

	if (cache.valid)
		return &cache;

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(catalog_invalidate, (Datum) 0);
		callback_registered = true;
	}

	schema = get_namespace_oid("usage_billing", false);
	found.billing_account = catalog_relation("billing_account", schema);
	found.billing_account_pkey = catalog_relation("billing_account_pkey", schema);
	found.billing_account_default = catalog_relation("billing_account_default", schema);
	found.billing_account_org = catalog_relation("billing_account_org", schema);
	found.credit_balance = catalog_relation("credit_balance", schema);
	found.credit_balance_pkey = catalog_relation("credit_balance_pkey", schema);
	found.credit_grant = catalog_relation("credit_grant", schema);
	found.credit_grant_pkey = catalog_relation("credit_grant_pkey", schema);
	found.large_account = catalog_relation("large_account", schema);
	found.large_account_pkey = catalog_relation("large_account_pkey", schema);
	found.storage_counted = catalog_relation("storage_counted", schema);
	found.storage_counted_pkey = catalog_relation("storage_counted_pkey", schema);
	found.storage_delta = catalog_relation("storage_delta", schema);
	found.storage_delta_org = catalog_relation("storage_delta_org", schema);
	found.storage_snapshot = catalog_relation("storage_snapshot", schema);
	found.storage_snapshot_pkey = catalog_relation("storage_snapshot_pkey", schema);
	found.storage_source = catalog_relation("storage_source", schema);
	found.storage_source_pkey = catalog_relation("storage_source_pkey", schema);
	found.project = catalog_relation("project", schema);
	found.project_pkey = catalog_relation("project_pkey", schema);
	found.usage = catalog_relation("usage", schema);
	found.usage_pkey = catalog_relation("usage_pkey", schema);
	found.usage_archive = catalog_relation("usage_archive", schema);
	found.usage_archive_pkey = catalog_relation("usage_archive_pkey", schema);
	found.usage_delta = catalog_relation("usage_delta", schema);
	found.usage_delta_key = catalog_relation("usage_delta_key", schema);
	found.usage_hourly = catalog_relation("usage_hourly", schema);
	found.usage_hourly_pkey = catalog_relation("usage_hourly_pkey", schema);
	found.usage_revert = catalog_relation("usage_revert", schema);
	found.usage_revert_id_key = catalog_relation("usage_revert_id_key", schema);
	found.usage_revert_pkey = catalog_relation("usage_revert_pkey", schema);
	found.usage_before_insert = catalog_function(schema, "usage_before_insert");
	found.usage_after_insert = catalog_function(schema, "usage_after_insert");
	found.usage_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum("usage_type"),
									   ObjectIdGetDatum(schema));
	found.usage_type_credit = catalog_label(found.usage_type, "credit");
	found.usage_type_feature = catalog_label(found.usage_type, "feature");
	catalog_check_columns(found.billing_account, 9);
	catalog_check_columns(found.credit_balance, 5);
	catalog_check_columns(found.credit_grant, 8);
	catalog_check_columns(found.large_account, 1);
	catalog_check_columns(found.project, 3);
	catalog_check_columns(found.storage_counted, 2);
	catalog_check_columns(found.storage_delta, 6);
	catalog_check_columns(found.storage_snapshot, 11);
	catalog_check_columns(found.storage_source, 7);
	catalog_check_columns(found.usage, 10);
	catalog_check_columns(found.usage_archive, 13);
	catalog_check_columns(found.usage_delta, 14);
	catalog_check_columns(found.usage_hourly, 11);
	catalog_check_columns(found.usage_revert, 18);
	found.valid = true;
	cache = found;
	return &cache;
}

void
ub_scan_key_text(ScanKey key, int attno, Datum value)
{
	ScanKeyEntryInitialize(key, 0, attno, BTEqualStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXTEQ, value);
}

/* For what sorts after value. */
void
ub_scan_key_text_after(ScanKey key, int attno, Datum value)
{
	ScanKeyEntryInitialize(key, 0, attno, BTGreaterStrategyNumber, InvalidOid,
						   C_COLLATION_OID, F_TEXT_GT, value);
}

void
ub_scan_key_int2(ScanKey key, int attno, Datum value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_INT2EQ, value);
}

void
ub_scan_key_uuid(ScanKey key, int attno, Datum value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_UUID_EQ, value);
}

void
ub_scan_key_enum(ScanKey key, int attno, Datum value)
{
	ScanKeyInit(key, attno, BTEqualStrategyNumber, F_ENUM_EQ, value);
}

/* strategy: BTGreaterEqualStrategyNumber, BTLessStrategyNumber or equal. */
void
ub_scan_key_time(ScanKey key, int attno, StrategyNumber strategy, Datum value)
{
	RegProcedure proc = F_TIMESTAMPTZ_EQ;

	if (strategy == BTGreaterEqualStrategyNumber)
		proc = F_TIMESTAMPTZ_GE;
	else if (strategy == BTLessStrategyNumber)
		proc = F_TIMESTAMPTZ_LT;
	ScanKeyInit(key, attno, strategy, proc, value);
}

/*
 * Opens heap through index with the given snapshot and keys. The snapshot
 * must stay valid until ub_scan_end.
 */
void
ub_scan_begin(UbScan *scan, Oid heap, Oid index, Snapshot snapshot,
			  ScanKey keys, int nkeys)
{
	scan->heap = table_open(heap, AccessShareLock);
	scan->index = index_open(index, AccessShareLock);
	scan->slot = table_slot_create(scan->heap, NULL);
	scan->desc = ub_index_beginscan(scan->heap, scan->index, snapshot, nkeys);
	index_rescan(scan->desc, keys, nkeys, NULL, 0);
}

bool
ub_scan_next(UbScan *scan)
{
	return index_getnext_slot(scan->desc, ForwardScanDirection, scan->slot);
}

/* Closes the scan; the locks stay until the end of the transaction. */
void
ub_scan_end(UbScan *scan)
{
	index_endscan(scan->desc);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, NoLock);
	table_close(scan->heap, NoLock);
}
