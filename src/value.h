/*
 * value.h
 *		Single values that callers give: their limits, times, ids, numbers, and
 *		how an error names the place where one stands.
 */
#ifndef UB_VALUE_H
#define UB_VALUE_H

#include "compat.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/uuid.h"

#define UB_ID_BYTES			 255
#define UB_DESCRIPTION_BYTES 4096
#define UB_METADATA_BYTES	 65536

/*
 * Where a value stands, for error details: an element of create_usage's array
 * (index >= 0), a column of a fact table (table), or a parameter (neither).
 */
typedef struct UbPlace
{
	const char *table;
	int index;
} UbPlace;

#define UB_PLACE_PARAMETER	((UbPlace){NULL, -1})
#define UB_PLACE_TABLE(t)	((UbPlace){(t), -1})
#define UB_PLACE_ELEMENT(i) ((UbPlace){NULL, (i)})

/* A piece of somebody else's memory; where there is none, data may be null. */
typedef struct UbSlice
{
	const char *data;
	int len;
} UbSlice;

extern bool ub_slice_is(UbSlice slice, const char *text);
extern bool ub_slices_equal(UbSlice a, UbSlice b);
extern int ub_slices_compare(UbSlice a, UbSlice b);

extern const char *ub_place_text(UbPlace place, const char *field);
UB_NORETURN extern void ub_value_error(UbPlace place, const char *field,
									   int sqlstate, const char *found,
									   const char *hint);

extern UbSlice ub_value_slice(text *value);
extern text *ub_value_text(UbSlice slice);
extern void ub_value_check_id(UbPlace place, const char *field, UbSlice value);
extern void ub_value_check_length(UbPlace place, const char *field,
								  UbSlice value, int limit);
extern void ub_value_check_not_negative(UbPlace place, const char *field,
										int64 value);
extern void ub_value_check_metadata(UbPlace place, JsonbContainer *metadata);
extern text *ub_value_lower(UbSlice value);

extern bool ub_value_number(Numeric number, int64 *result, bool *fraction);
extern bool ub_value_decimal(UbSlice value, int64 *result, bool *malformed);
extern bool ub_value_time(UbSlice value, TimestampTz *result);
extern bool ub_value_time_or_date(UbSlice value, TimestampTz *result);
extern bool ub_value_uuid(UbSlice value, pg_uuid_t *result);
extern const char *ub_value_uuid_text(const pg_uuid_t *id);
extern pg_uuid_t *ub_value_made_uuid(const char *name);
extern TimestampTz ub_value_hour(TimestampTz at);

#endif /* UB_VALUE_H */
