/*
 * query.h
 *		Kept SPI plans: prepared at first use, revalidated by the server, run
 *		with bound values and, where a query wants it, with rows of ours as a
 *		table of their own.
 */
#ifndef UB_QUERY_H
#define UB_QUERY_H

#include "access/tupdesc.h"
#include "executor/spi.h"
#include "utils/snapshot.h"
#include "utils/tuplestore.h"

#define UB_QUERY_MAX_ARGS 8

/*
 * A query. rows_name, rows_like: the name under which the query reads rows
 * handed to it, and the table whose columns they have; null, InvalidOid if it
 * takes none. The plan is filled at first use.
 */
typedef struct UbQuery
{
	const char *text;
	int nargs;
	Oid argtypes[UB_QUERY_MAX_ARGS];
	const char *rows_name;
	bool custom; /* plan for the values, each time */
	SPIPlanPtr plan;
} UbQuery;

/* Rows for a query: what ub_query_rows_begin returns is filled by the caller. */
typedef struct UbRows
{
	Oid like;
	TupleDesc desc;
	Tuplestorestate *store;
	double count;
} UbRows;

extern void ub_rows_begin(UbRows *rows, Oid like);
extern void ub_rows_add(UbRows *rows, Datum *values, bool *nulls);
extern void ub_rows_append(UbRows *rows);
extern void ub_rows_end(UbRows *rows);

extern uint64 ub_query_write(UbQuery *query, UbRows *rows, int expected_code);
extern uint64 ub_query_change(UbQuery *query, Datum *values, const char *nulls,
							  Snapshot snapshot, int expected_code);
extern uint64 ub_query_change_with_rows(UbQuery *query, UbRows *rows,
										Datum *values, Snapshot snapshot,
										int expected_code);
extern Portal ub_query_open(UbQuery *query, Datum *values);
extern uint64 ub_query_read(UbQuery *query, Datum *values, const char *nulls,
							Snapshot snapshot);

#endif /* UB_QUERY_H */
