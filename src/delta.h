/*
 * delta.h
 *		What a statement appends, and folding it: the one way from facts to
 *		derived state.
 */
#ifndef UB_DELTA_H
#define UB_DELTA_H

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

#include "catalog.h"
#include "value.h"

/* What a delta is about; a grant moves the balance only and has no hour. */
typedef enum UbKind
{
	UB_KIND_GRANT,
	UB_KIND_CREDIT,
	UB_KIND_FEATURE
} UbKind;

/* The sums of a delta, in the order of usage_delta's columns. */
#define UB_SUM_CREDITS	0 /* change of the balance */
#define UB_SUM_DEBITED	1 /* credits used, less what was reverted */
#define UB_SUM_AMOUNT	2 /* from here on: of the hour */
#define UB_SUM_EVENTS	3
#define UB_SUM_MEASURES 4
#define UB_SUMS			9

typedef struct UbDeltaKey
{
	UbSlice billing_id;
	UbSlice source;
	TimestampTz hour;
	UbKind kind;
} UbDeltaKey;

typedef struct UbDelta
{
	UbDeltaKey key;
	int128 sums[UB_SUMS];
} UbDelta;

/* Columns of usage_delta, counted from 0. */
#define UB_DELTA_BILLING_ID 0
#define UB_DELTA_HOUR		1
#define UB_DELTA_SOURCE		2
#define UB_DELTA_TYPE		3
#define UB_DELTA_XACT		4
#define UB_DELTA_SUMS		5
#define UB_DELTA_COLUMNS	(UB_DELTA_SUMS + UB_SUMS)

/* Columns of credit_balance, counted from 0. */
#define UB_BALANCE_BALANCE		1
#define UB_BALANCE_DEBITED		2
#define UB_BALANCE_FOLDED_BELOW 3
#define UB_BALANCE_FOLDED_BY	4
#define UB_BALANCE_COLUMNS		5

/* Deltas by key. */
typedef struct UbDeltaSet UbDeltaSet;

extern UbDeltaSet *ub_deltas_new(void);
extern UbDelta *ub_deltas_at(UbDeltaSet *set, const UbDeltaKey *key);
extern int ub_deltas_count(UbDeltaSet *set);
extern List *ub_deltas_sorted(UbDeltaSet *set);
extern void ub_deltas_free(UbDeltaSet *set);

/* Appending to usage_delta: the rows are the only step that changes anything. */
typedef struct UbDeltaAppend
{
	Relation rel;
	EState *estate;
	ResultRelInfo *info;
	TupleTableSlot *slot;
} UbDeltaAppend;

extern void ub_deltas_append_begin(UbDeltaAppend *append);
extern void ub_deltas_append_rows(UbDeltaAppend *append, List *deltas);
extern void ub_deltas_append_end(UbDeltaAppend *append);

extern void ub_hour_load(TupleTableSlot *slot, UbDelta *hour);
extern void ub_delta_load(TupleTableSlot *slot, UbDelta *delta);
extern void ub_delta_load_credits(TupleTableSlot *slot, int64 *credits,
								  int64 *debited);

/* Called for each pending delta that a snapshot sees of an account. */
typedef void (*UbDeltaVisitor)(void *state, const UbDelta *delta);
extern void ub_deltas_visit(text *billing_id, uint64 from, Snapshot snapshot,
							UbDeltaVisitor visitor, void *state);
extern void ub_deltas_scan(UbScan *scan, text *billing_id, uint64 from,
						   Snapshot snapshot);
extern uint64 ub_deltas_floor(text *billing_id, Snapshot snapshot);
extern uint64 ub_balance_floor(TupleTableSlot *slot);

/*
 * Where a pass of folding goes on: after an account, or within it from a
 * transaction on. All zero at the beginning. Accounts in skip (char *) are left
 * alone.
 */
typedef struct UbFoldCursor
{
	text *billing_id;
	bool within;
	uint64 from;
	uint64 hold; /* within: what an earlier step may have left begins here */
	bool done;
	List *skip;
} UbFoldCursor;

extern bool ub_fold_try_lock(UbSlice billing_id);

extern uint64 ub_deltas_fold(UbFoldCursor *cursor, uint64 limit);
extern uint64 ub_deltas_fold_one(text *billing_id);
extern bool ub_deltas_fold_account(text *billing_id, uint64 from);
extern text *ub_deltas_next_account(text *after);

extern bool ub_sum_fits(int128 sum);
extern const char *ub_sum_text(int128 sum);
extern Datum ub_sum_numeric(int128 sum);
extern int128 ub_sum_of_numeric(Datum number);

#endif /* UB_DELTA_H */
