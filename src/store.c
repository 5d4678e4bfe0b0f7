/*
 * store.c
 *		Storing rows of a fact without a query.
 *
 * A row is stored as the server's INSERT … ON CONFLICT DO NOTHING does it:
 * the index of keys is probed, then the row is inserted speculatively, so that
 * of two sessions with one key the second waits for the first and neither can
 * be the victim of a deadlock. What a query would do besides is left out, so
 * this is only for tables on which nobody but us has put anything that an
 * INSERT has to obey; ub_store_begin tells.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "store.h"

struct UbStore
{
	MemoryContext context;
	Relation rel;
	Relation key;
	EState *estate;
	ResultRelInfo *info;
	List *arbiters;
	TupleTableSlot *row;
	TupleTableSlot *found;
	SnapshotData dirty;
	IndexScanDesc probe;
	enum
	{
		UB_NONE,
		UB_ALL_NEW,
		UB_SOME_THERE
	} rows; /* that came so far */
};

/*
 * Whether all rows of the session's last statement were new. Then the first of
 * the next is taken for new too.
 */
static bool last_were_new = false;

/* Whether our two triggers, as we made them, are all that an INSERT fires. */
static bool
store_has_own_triggers_only(Relation rel, const UbStoreTable *table)
{
	TriggerDesc *triggers = rel->trigdesc;
	int ours = 0;

	if (triggers == NULL ||
		SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return false;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!TRIGGER_FOR_INSERT(trigger->tgtype))
			continue;
		if ((trigger->tgfoid != table->before_insert &&
			 trigger->tgfoid != table->after_insert) ||
			trigger->tgenabled != TRIGGER_FIRES_ON_ORIGIN ||
			trigger->tgqual != NULL)
			return false;
		ours++;
	}
	return ours == 2;
}

/* Whether a row can be put into the table without a query. */
static bool
store_is_plain(Relation rel, const UbStoreTable *table)
{
	const TupleConstr *constraints = RelationGetDescr(rel)->constr;

	return rel->rd_rel->relkind == RELKIND_RELATION &&
		!rel->rd_rel->relispartition && !rel->rd_rel->relhasrules &&
		!rel->rd_rel->relforcerowsecurity &&
		(constraints == NULL ||
		 (constraints->num_check == 0 && !constraints->has_generated_stored)) &&
		store_has_own_triggers_only(rel, table);
}

/* Whether another index than that of keys could refuse a row. */
static bool
store_has_other_keys(const UbStore *store)
{
	for (int i = 0; i < store->info->ri_NumIndices; i++)
	{
		const IndexInfo *index = store->info->ri_IndexRelationInfo[i];

		if (store->info->ri_IndexRelationDescs[i] != store->key &&
			(index->ii_Unique || index->ii_ExclusionOps != NULL))
			return true;
	}
	return false;
}

/*
 * Begins to store rows in a table that the caller keeps open, in the current
 * memory context. Returns null where it takes a query: somebody has put triggers,
 * rules or constraints on the table, or the transaction's level makes a row that
 * its snapshot doesn't see an error.
 */
UbStore *
ub_store_begin(Relation rel, const UbStoreTable *table)
{
	UbStore *store;

	if (IsolationUsesXactSnapshot() || !store_is_plain(rel, table))
		return NULL;
	store = palloc0(sizeof(UbStore));
	store->context = CurrentMemoryContext;
	store->rel = rel;
	store->arbiters = list_make1_oid(table->key);
	store->estate = CreateExecutorState();
	store->info = makeNode(ResultRelInfo);
	store->rows = last_were_new ? UB_ALL_NEW : UB_NONE;
	InitResultRelInfo(store->info, rel, 1, NULL, 0);
	/* what it knows of conflicts is for exclusion constraints only */
	ExecOpenIndices(store->info, false);
	for (int i = 0; i < store->info->ri_NumIndices; i++)
	{
		if (RelationGetRelid(store->info->ri_IndexRelationDescs[i]) ==
			table->key)
			store->key = store->info->ri_IndexRelationDescs[i];
	}
	if (store->key == NULL)
		elog(ERROR, "the index of keys is missing");
	/* an index besides would raise an error for a row that is there */
	if (store_has_other_keys(store))
		store->rows = UB_SOME_THERE;
	store->row = MakeSingleTupleTableSlot(RelationGetDescr(rel),
										  &TTSOpsVirtual);
	InitDirtySnapshot(store->dirty);
	return store;
}

/*
 * Looks for a row with the key by the dirty snapshot. The scan is kept for all
 * rows, and so is what it allocates on its way.
 */
static bool
store_probe(UbStore *store, ScanKey keys, int nkeys)
{
	MemoryContext old = MemoryContextSwitchTo(store->context);
	bool found;

	if (store->found == NULL)
		store->found = table_slot_create(store->rel, NULL);
	if (store->probe == NULL)
		store->probe = ub_index_beginscan(store->rel, store->key,
										  &store->dirty, nkeys);
	index_rescan(store->probe, keys, nkeys, NULL, 0);
	found = index_getnext_slot(store->probe, ForwardScanDirection,
							   store->found);
	ExecClearTuple(store->found);
	MemoryContextSwitchTo(old);
	return found;
}

/*
 * Whether a row with the key is there, committed or of this transaction; waits
 * for a transaction that is writing one.
 */
static bool
store_finds(UbStore *store, ScanKey keys, int nkeys)
{
	for (;;)
	{
		bool found = store_probe(store, keys, nkeys);
		TransactionId writer = TransactionIdIsValid(store->dirty.xmin) ?
			store->dirty.xmin :
			store->dirty.xmax;
		uint32 token = store->dirty.speculativeToken;

		if (!found || !TransactionIdIsValid(writer))
			return found;

		/* nothing stays pinned while we wait */
		index_endscan(store->probe);
		store->probe = NULL;
		if (token != 0)
			SpeculativeInsertionWait(writer, token);
		else
			XactLockTableWait(writer, store->rel, NULL, XLTW_None);
	}
}

/* Inserts the row in the slot; false if another session was faster. */
static bool
store_insert(UbStore *store)
{
	TransactionId xid = GetCurrentTransactionId();
	uint32 token = SpeculativeInsertionLockAcquire(xid);
	bool conflict = false;

	table_tuple_insert_speculative(store->rel, store->row,
								   GetCurrentCommandId(true), 0, NULL, token);
	ub_insert_index_tuples_unless(store->info, store->row, store->estate,
								  &conflict, store->arbiters);
	table_tuple_complete_speculative(store->rel, store->row, token, !conflict);
	SpeculativeInsertionLockRelease(xid);
	ResetPerTupleExprContext(store->estate);
	return !conflict;
}

/* Raises 23502 for a column that somebody has made NOT NULL. */
static void
store_check_nulls(UbStore *store, const bool *nulls)
{
	TupleDesc desc = RelationGetDescr(store->rel);

	for (int i = 0; i < desc->natts; i++)
	{
		if (nulls[i] && TupleDescAttr(desc, i)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
							NameStr(TupleDescAttr(desc, i)->attname),
							RelationGetRelationName(store->rel)),
					 errtablecol(store->rel, i + 1)));
	}
}

/*
 * Stores a row, complete and checked, unless one with the key is there. keys
 * are scan keys of the index of keys, for the row's own. Returns whether it was
 * stored. Rows come in the order of their keys, or two sessions could wait for
 * each other.
 */
bool
ub_store_put(UbStore *store, ScanKey keys, int nkeys, Datum *values,
			 bool *nulls)
{
	int columns = RelationGetDescr(store->rel)->natts;

	CHECK_FOR_INTERRUPTS();
	store_check_nulls(store, nulls);
	ExecClearTuple(store->row);
	memcpy(store->row->tts_values, values, columns * sizeof(Datum));
	memcpy(store->row->tts_isnull, nulls, columns * sizeof(bool));
	ExecStoreVirtualTuple(store->row);
	/*
	 * While the rows before were all new, this one will be too, and the
	 * insertion itself finds out if it isn't. Whoever repeats rows leaves at most
	 * one dead row behind by that, a statement.
	 */
	for (;;)
	{
		if (store->rows != UB_ALL_NEW && store_finds(store, keys, nkeys))
			break;
		if (store_insert(store))
		{
			if (store->rows == UB_NONE)
				store->rows = UB_ALL_NEW;
			return true;
		}
		store->rows = UB_SOME_THERE;
	}
	store->rows = UB_SOME_THERE;
	return false;
}

void
ub_store_end(UbStore *store)
{
	last_were_new = store->rows == UB_ALL_NEW;
	if (store->probe != NULL)
		index_endscan(store->probe);
	ExecCloseIndices(store->info);
	ExecDropSingleTupleTableSlot(store->row);
	if (store->found != NULL)
		ExecDropSingleTupleTableSlot(store->found);
	FreeExecutorState(store->estate);
	/* what comes next sees the rows */
	CommandCounterIncrement();
}
