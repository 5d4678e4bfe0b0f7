/*
 * fact.h
 *		What the triggers of the fact tables have in common.
 */
#ifndef UB_FACT_H
#define UB_FACT_H

#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

#include "access/skey.h"
#include "value.h"

/* The rows that a statement stored, read from its transition table. */
typedef struct UbStored
{
	Tuplestorestate *store;
	int pointer;
	TupleTableSlot *slot;
} UbStored;

extern int ub_trigger_depth(void);
extern int ub_facts_move(void);
extern void ub_facts_moved(int before);
extern bool ub_facts_are_moving(void);

extern TriggerData *ub_fact_before_row(FunctionCallInfo fcinfo, Oid relid,
									   const char *function);
extern void ub_stored_begin(UbStored *stored, FunctionCallInfo fcinfo,
							Oid relid, const char *function);
extern bool ub_stored_next(UbStored *stored);
extern void ub_stored_end(UbStored *stored);

extern HeapTuple ub_fact_tuple(TriggerData *trigger, Datum *values,
							   bool *nulls);
extern void ub_fact_check_account(FunctionCallInfo fcinfo, UbSlice billing_id);
extern bool ub_fact_is_waited_for(void);
extern TupleTableSlot *ub_fact_find(Relation heap, Oid index, ScanKey keys,
									int nkeys);
extern TupleTableSlot *ub_fact_find_for_call(Relation heap, Oid index,
											 ScanKey keys, int nkeys);

/* Columns of a fact by number, counted from 0. An empty text is none. */
extern UbSlice ub_fact_text(Datum *values, bool *nulls, int column);
extern void ub_fact_empty_is_null(Datum *values, bool *nulls, int column);
extern void ub_fact_default_now(Datum *values, bool *nulls, int column);
extern void ub_fact_default_metadata(Datum *values, bool *nulls, int column);
extern void ub_fact_check_metadata(UbPlace place, Datum *values, bool *nulls,
								   int column);
extern void ub_fact_check_time(UbPlace place, const char *field,
							   Datum *values, bool *nulls, int column);

/*
 * The names of the fields in which an arriving row differs from the stored one,
 * one added by each call.
 */
extern const char *ub_fact_differs(const char *so_far, bool differs,
								   const char *field);
extern const char *ub_fact_column_differs(const char *so_far,
										  TupleTableSlot *stored, Datum *values,
										  bool *nulls, int column);

#endif /* UB_FACT_H */
