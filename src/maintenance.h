/*
 * maintenance.h
 *		What was done for each duty, and all duties in one call.
 */
#ifndef UB_MAINTENANCE_H
#define UB_MAINTENANCE_H

#include "duty.h"

/* What maintenance_duty remembers of a duty. */
typedef struct UbDutyRecord
{
	TimestampTz last_start; /* 0: never */
	char *last_error;		/* null: none lately */
} UbDutyRecord;

extern void ub_maintenance_read(UbDutyRecord records[UB_DUTIES]);
extern void ub_maintenance_record(const UbPass *pass);
extern void ub_maintenance_report(int elevel, const UbPass *pass,
								  const ErrorData *error);

#endif /* UB_MAINTENANCE_H */
