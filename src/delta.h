/*
 * delta.h
 *		What a statement appends, and folding it: the one way from facts to
 *		derived state.
 */
#ifndef UB_DELTA_H
#define UB_DELTA_H

#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

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

/* Deltas by key. */
typedef struct UbDeltaSet UbDeltaSet;

extern UbDeltaSet *ub_deltas_new(void);
extern UbDelta *ub_deltas_at(UbDeltaSet *set, const UbDeltaKey *key);
extern int ub_deltas_count(UbDeltaSet *set);
extern List *ub_deltas_sorted(UbDeltaSet *set);
extern void ub_deltas_free(UbDeltaSet *set);
extern void ub_deltas_append(List *deltas);
extern void ub_hour_load(TupleTableSlot *slot, UbDelta *hour);
extern void ub_delta_load(TupleTableSlot *slot, UbDelta *delta);

/* Called for each pending delta that a snapshot sees of an account. */
typedef void (*UbDeltaVisitor)(void *state, const UbDelta *delta);
extern void ub_deltas_visit(text *billing_id, Snapshot snapshot,
							UbDeltaVisitor visitor, void *state);

/* Where a pass of folding goes on; all zero at its beginning. */
typedef struct UbFoldCursor
{
	text *billing_id;
	TimestampTz hour;
	bool done;
} UbFoldCursor;

extern uint64 ub_deltas_fold(UbFoldCursor *cursor, uint64 limit);
extern bool ub_deltas_fold_account(text *billing_id);

extern bool ub_sum_fits(int128 sum);
extern const char *ub_sum_text(int128 sum);
extern Datum ub_sum_numeric(int128 sum);

#endif /* UB_DELTA_H */
