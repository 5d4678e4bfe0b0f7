/*
 * usage.h
 *		Usages: what others need of them.
 */
#ifndef UB_USAGE_H
#define UB_USAGE_H

#include "executor/tuptable.h"

#include "delta.h"
#include "document.h"

/* A stored usage, as far as a revert needs it. */
typedef struct UbUsage
{
	bool feature;
	int64 amount;
	text *source;
	TimestampTz created_at;
	int64 measures[UB_MEASURES];
} UbUsage;

/* Columns of usage, counted from 0. */
enum
{
	USAGE_BILLING_ID,
	USAGE_ID,
	USAGE_TYPE,
	USAGE_AMOUNT,
	USAGE_SOURCE,
	USAGE_DESCRIPTION,
	USAGE_USER_ID,
	USAGE_METADATA,
	USAGE_CREATED_AT,
	USAGE_UPDATED_AT,
	USAGE_COLUMNS
};

/*
 * A create_usage call. Its rows are complete and checked, and it leaves
 * duplicates out itself, so the row trigger has nothing to do for them. What it
 * stored is collected here, to be posted when it is admitted.
 */
typedef struct UbUsageCall
{
	int trigger_depth; /* of its statement's own triggers, if it needs one */
	UbSlice billing_id;
	uint64 created;
	bool stored_credit;
	int128 taken; /* credits that it stored */
	UbDeltaSet *set;
} UbUsageCall;

extern UbUsageCall *ub_usage_call;

extern Datum ub_usage_type(bool feature);
extern void ub_usage_normalise(UbPlace place, UbUsageItem *item);
extern const char *ub_usage_differences(const UbUsageItem *item,
										const UbUsageItem *stored);
extern void ub_usage_load(Datum *values, bool *nulls, UbUsageItem *item);
extern void ub_usage_post_call(UbUsageCall *call, const UbUsageItem *item);

extern bool ub_usage_lock(text *billing_id, const pg_uuid_t *id,
						  UbUsage *usage);

#endif /* UB_USAGE_H */
