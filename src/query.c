/*
 * query.c
 *		Kept SPI plans.
 *
 * The texts are constant and qualify every name of ours, and the functions
 * that run them fix their search_path, so a plan means the same for every
 * caller.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "compat.h"
#include "query.h"

/*
 * Begins a set of rows that have the columns of table "like", in the current
 * memory context.
 */
void
ub_rows_begin(UbRows *rows, Oid like)
{
	Relation rel = table_open(like, AccessShareLock);

	rows->like = like;
	rows->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	rows->store = tuplestore_begin_heap(false, false, work_mem);
	rows->count = 0;
	table_close(rel, NoLock);
}

void
ub_rows_add(UbRows *rows, Datum *values, bool *nulls)
{
	tuplestore_putvalues(rows->store, rows->desc, values, nulls);
	rows->count++;
}

/*
 * Appends the rows to the table whose columns they have, as of the current
 * command, directly: for derived tables, which have nothing that a query would
 * add and to which the current role may have no rights.
 */
void
ub_rows_append(UbRows *rows)
{
	Relation rel = table_open(rows->like, RowExclusiveLock);
	EState *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel),
													&TTSOpsMinimalTuple);
	TupleTableSlot *stored = table_slot_create(rel, NULL);

	InitResultRelInfo(info, rel, 1, NULL, 0);
	ExecOpenIndices(info, false);
	while (tuplestore_gettupleslot(rows->store, true, false, slot))
	{
		ExecCopySlot(stored, slot);
		table_tuple_insert(rel, stored, GetCurrentCommandId(true), 0, NULL);
		ub_insert_index_tuples(info, stored, estate);
		ResetPerTupleExprContext(estate);
	}
	ExecCloseIndices(info);
	ExecDropSingleTupleTableSlot(slot);
	ExecDropSingleTupleTableSlot(stored);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

void
ub_rows_end(UbRows *rows)
{
	tuplestore_end(rows->store);
	FreeTupleDesc(rows->desc);
}

/* Makes rows visible to the query under its name. SPI is connected. */
static void
query_register_rows(UbQuery *query, UbRows *rows)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = unconstify(char *, query->rows_name);
	enr->md.reliddesc = rows->like;
	enr->md.tupdesc = NULL;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = rows->count;
	enr->reldata = rows->store;
	if (SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register rows \"%s\"", query->rows_name);
}

static SPIPlanPtr
query_plan(UbQuery *query)
{
	if (query->plan == NULL)
	{
		SPIPlanPtr plan = SPI_prepare_cursor(
			query->text, query->nargs, query->argtypes,
			query->custom ? CURSOR_OPT_CUSTOM_PLAN : 0);

		if (plan == NULL)
			elog(ERROR, "could not prepare query: %s",
				 SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		query->plan = plan;
	}
	return query->plan;
}

/*
 * Runs a query that writes the given rows (null: none) and returns how many
 * rows it processed. SPI is not connected on entry.
 */
uint64
ub_query_write(UbQuery *query, UbRows *rows, int expected_code)
{
	int code;
	uint64 processed;

	SPI_connect();
	if (rows != NULL)
		query_register_rows(query, rows);
	code = SPI_execute_plan(query_plan(query), NULL, NULL, false, 0);
	if (code != expected_code)
		elog(ERROR, "query returned %s", SPI_result_code_string(code));
	processed = SPI_processed;
	SPI_finish();
	return processed;
}

/*
 * Runs a query that writes what it finds under the given snapshot. SPI is
 * connected on entry.
 */
uint64
ub_query_change(UbQuery *query, Datum *values, const char *nulls,
				Snapshot snapshot, int expected_code)
{
	int code = SPI_execute_snapshot(query_plan(query), values, nulls,
									snapshot, InvalidSnapshot,
									false, true, 0);

	if (code != expected_code)
		elog(ERROR, "query returned %s", SPI_result_code_string(code));
	return SPI_processed;
}

/* The same for a query that also reads the given rows. */
uint64
ub_query_change_with_rows(UbQuery *query, UbRows *rows, Datum *values,
						  Snapshot snapshot, int expected_code)
{
	uint64 changed;

	query_register_rows(query, rows);
	changed = ub_query_change(query, values, NULL, snapshot, expected_code);
	(void) SPI_unregister_relation(query->rows_name);
	return changed;
}

/*
 * Runs a query that reads, under the given snapshot. SPI is connected on
 * entry and the result is left in SPI_tuptable.
 */
uint64
ub_query_read(UbQuery *query, Datum *values, const char *nulls,
			  Snapshot snapshot)
{
	int code = SPI_execute_snapshot(query_plan(query), values, nulls,
									snapshot, InvalidSnapshot,
									true, false, 0);

	if (code != SPI_OK_SELECT)
		elog(ERROR, "query returned %s", SPI_result_code_string(code));
	return SPI_processed;
}

/*
 * Opens a query that reads, under the active snapshot, to be fetched in steps.
 * SPI is connected on entry.
 */
Portal
ub_query_open(UbQuery *query, Datum *values)
{
	Portal portal = SPI_cursor_open(NULL, query_plan(query), values, NULL,
									true);

	if (portal == NULL)
		elog(ERROR, "could not open query: %s",
			 SPI_result_code_string(SPI_result));
	return portal;
}
