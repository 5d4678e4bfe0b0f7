/*
 * store.h
 *		Storing rows of a fact without a query.
 */
#ifndef UB_STORE_H
#define UB_STORE_H

#include "access/skey.h"
#include "utils/relcache.h"

/* Which index holds the table's key, and what its own triggers are called. */
typedef struct UbStoreTable
{
	Oid key;
	Oid before_insert;
	Oid after_insert;
} UbStoreTable;

typedef struct UbStore UbStore;

extern UbStore *ub_store_begin(Relation rel, const UbStoreTable *table);
extern bool ub_store_put(UbStore *store, ScanKey keys, int nkeys,
						 Datum *values, bool *nulls);
extern void ub_store_end(UbStore *store);

#endif /* UB_STORE_H */
