/*
 * usage.h
 *		Usages: what others need of them.
 */
#ifndef UB_USAGE_H
#define UB_USAGE_H

#include "executor/tuptable.h"

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

extern bool ub_usage_lock(text *billing_id, const pg_uuid_t *id,
						  UbUsage *usage);

#endif /* UB_USAGE_H */
