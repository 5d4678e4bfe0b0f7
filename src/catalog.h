/*
 * catalog.h
 *		The extension's own tables and indexes by OID, and direct look-ups
 *		through an index: what hot paths use instead of a query a row.
 */
#ifndef UB_CATALOG_H
#define UB_CATALOG_H

#include "access/genam.h"
#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

typedef struct UbCatalog
{
	bool valid;
	Oid billing_account;
	Oid billing_account_pkey;
	Oid billing_account_default;
	Oid billing_account_org;
	Oid credit_balance;
	Oid credit_balance_pkey;
	Oid credit_grant;
	Oid credit_grant_pkey;
	Oid large_account;
	Oid large_account_pkey;
	Oid project;
	Oid storage_counted;
	Oid storage_counted_pkey;
	Oid storage_delta;
	Oid storage_delta_org;
	Oid storage_snapshot;
	Oid storage_snapshot_pkey;
	Oid storage_source;
	Oid storage_source_pkey;
	Oid project_pkey;
	Oid usage;
	Oid usage_pkey;
	Oid usage_archive;
	Oid usage_archive_pkey;
	Oid usage_delta;
	Oid usage_delta_key;
	Oid usage_hourly;
	Oid usage_hourly_pkey;
	Oid usage_revert;
	Oid usage_revert_id_key;
	Oid usage_revert_pkey;
	/* from here on nothing that a relation's change could make wrong */
	Oid usage_before_insert; /* the triggers' functions */
	Oid usage_after_insert;
	Oid usage_type; /* the enum, and its labels */
	Oid usage_type_credit;
	Oid usage_type_feature;
} UbCatalog;

/*
 * An index scan over one of our tables. Fields are filled by ub_scan_begin;
 * slot holds the row that ub_scan_next found.
 */
typedef struct UbScan
{
	Relation heap;
	Relation index;
	IndexScanDesc desc;
	TupleTableSlot *slot;
} UbScan;

/*
 * Our heavyweight locks are advisory locks of classes of their own (the fourth
 * field; the server's functions use 1 and 2), held by transactions.
 */
#define UB_LOCK_TURN	0x5542 /* admission to one account */
#define UB_LOCK_FOLD	0x5543 /* folding a group of accounts */
#define UB_LOCK_ORG		0x5544 /* accounts of one organisation */
#define UB_LOCK_REBUILD 0x5545 /* rebuilding derived state */
#define UB_LOCK_STORAGE 0x5546 /* storage totals of one organisation */
#define UB_LOCK_RECOUNT 0x5547 /* counting one tracked table */
#define UB_LOCK_DUTY	0x5548 /* a maintenance duty */

extern const UbCatalog *ub_catalog(void);

extern void ub_scan_key_text(ScanKey key, int attno, Datum value);
extern void ub_scan_key_text_after(ScanKey key, int attno, Datum value);
extern void ub_scan_key_enum(ScanKey key, int attno, Datum value);
extern void ub_scan_key_int2(ScanKey key, int attno, Datum value);
extern void ub_scan_key_uuid(ScanKey key, int attno, Datum value);
extern void ub_scan_key_time(ScanKey key, int attno, StrategyNumber strategy,
							 Datum value);
extern void ub_scan_begin(UbScan *scan, Oid heap, Oid index,
						  Snapshot snapshot, ScanKey keys, int nkeys);
extern bool ub_scan_next(UbScan *scan);
extern void ub_scan_end(UbScan *scan);

#endif /* UB_CATALOG_H */
