/*
 * stats.h
 *		Counts of what happened in each database, in shared memory.
 */
#ifndef UB_STATS_H
#define UB_STATS_H

#include "datatype/timestamp.h"

/* In the order of usage_billing_stats' columns. */
typedef enum UbStat
{
	/* these count when their transaction commits */
	UB_STAT_USAGES_CREATED,
	UB_STAT_DUPLICATES,
	UB_STAT_REVERTS,
	UB_STAT_GRANTS,
	UB_STAT_USAGES_PRUNED,
	UB_STAT_FOLDS,
	UB_STAT_DELTAS_FOLDED,
	UB_STAT_REFRESHES,
	/* these happened, whatever became of the transaction */
	UB_STAT_CONFLICTS,
	UB_STAT_REFUSED,
	UB_STAT_ADMISSIONS,
	UB_STAT_ADMISSIONS_WAITED,
	UB_STAT_ADMISSIONS_READ,
	UB_STAT_MAINTENANCE_ERRORS
} UbStat;

#define UB_STATS_AT_COMMIT (UB_STAT_REFRESHES + 1)
#define UB_STATS		   (UB_STAT_MAINTENANCE_ERRORS + 1)

extern void ub_stats_init(void);

/* Without preloading they do nothing, and reading says so. */
extern void ub_stats_add(UbStat stat, uint64 n);
extern bool ub_stats_read(uint64 counts[UB_STATS], TimestampTz *reset_at);
extern void ub_stats_reset(void);

#endif /* UB_STATS_H */
