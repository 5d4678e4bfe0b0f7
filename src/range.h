/*
 * range.h
 *		The range of time that a reader of the hours is asked for.
 */
#ifndef UB_RANGE_H
#define UB_RANGE_H

#include "access.h"
#include "value.h"

/* Whole hours in UTC; from is included, to is not. */
typedef struct UbRange
{
	TimestampTz from;
	TimestampTz to;
} UbRange;

extern void ub_range_of_trend(UbRange *range, UbSlice from, UbSlice to,
							  const UbAccount *account);
extern void ub_range_of_series(UbRange *range, const TimestampTz *from,
							   const TimestampTz *to, const UbAccount *account);
extern text *ub_range_bucket(UbSlice bucket);
extern text *ub_range_zone(UbSlice zone, const UbRange *range);
extern const char *ub_range_text(TimestampTz at);

#endif /* UB_RANGE_H */
