/*
 * value.c
 *		Single values that callers give.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_collation.h"
#include "common/int.h"
#include "common/md5.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "value.h"

bool
ub_slice_is(UbSlice slice, const char *text)
{
	return slice.len == (int) strlen(text) &&
		memcmp(slice.data, text, slice.len) == 0;
}

bool
ub_slices_equal(UbSlice a, UbSlice b)
{
	return a.len == b.len &&
		(a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* The order of collation C. */
int
ub_slices_compare(UbSlice a, UbSlice b)
{
	int shorter = Min(a.len, b.len);
	int order = shorter > 0 ? memcmp(a.data, b.data, shorter) : 0;

	return order != 0 ? order : a.len - b.len;
}

/* "usages[17].amount", "usage.amount" or "amount". */
const char *
ub_place_text(UbPlace place, const char *field)
{
	if (place.index >= 0)
		return psprintf("usages[%d]%s%s", place.index, *field ? "." : "", field);
	if (place.table != NULL)
		return psprintf("%s.%s", place.table, field);
	return field;
}

/*
 * Raises sqlstate for the value at place; found says what stands there,
 * beginning with a verb ("is missing").
 */
void
ub_value_error(UbPlace place, const char *field, int sqlstate,
			   const char *found, const char *hint)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 place.index >= 0		 ? errmsg("invalid usage in the batch") :
				 place.table != NULL ? errmsg("invalid value in a billing fact") :
									   errmsg("invalid parameter"),
			 errdetail("%s %s.", ub_place_text(place, field), found),
			 errhint("%s", hint ? hint : "Correct the value and repeat the call.")));
}

/* The bytes of a text, none if it is null or empty. */
UbSlice
ub_value_slice(text *value)
{
	UbSlice slice = {"", 0};

	if (value != NULL && VARSIZE_ANY_EXHDR(value) > 0)
	{
		slice.data = VARDATA_ANY(value);
		slice.len = VARSIZE_ANY_EXHDR(value);
	}
	return slice;
}

text *
ub_value_text(UbSlice slice)
{
	return cstring_to_text_with_len(slice.data, slice.len);
}

void
ub_value_check_id(UbPlace place, const char *field, UbSlice value)
{
	if (value.len == 0)
		ub_value_error(place, field, ERRCODE_INVALID_PARAMETER_VALUE,
					   "is missing or empty", "An id has 1 to 255 bytes.");
	ub_value_check_length(place, field, value, UB_ID_BYTES);
}

void
ub_value_check_length(UbPlace place, const char *field, UbSlice value,
					  int limit)
{
	if (value.len > limit)
		ub_value_error(place, field, ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("has %d bytes; the most is %d", value.len, limit),
					   NULL);
}

/* How many bytes a string takes as JSON. */
static int64
value_string_bytes(const char *text, int len)
{
	int64 bytes = 2 + (int64) len;

	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' ||
			c == '\r' || c == '\t')
			bytes++;
		else if (c < ' ')
			bytes += 5; /* \u001f */
	}
	return bytes;
}

static int64
value_scalar_bytes(JsonbValue *value)
{
	char *text;
	int64 bytes;

	switch (value->type)
	{
		case jbvString:
			return value_string_bytes(value->val.string.val,
									  value->val.string.len);
		case jbvNumeric:
			text = DatumGetCString(DirectFunctionCall1(
				numeric_out, NumericGetDatum(value->val.numeric)));
			bytes = strlen(text);
			pfree(text);
			return bytes;
		case jbvBool:
			return value->val.boolean ? strlen("true") : strlen("false");
		default:
			return strlen("null");
	}
}

/*
 * Whether the object's text, as jsonb prints it, has more bytes than limit. It
 * is not printed for that: a few bytes can stand for a number of 130,000 digits,
 * so there may be too much of it.
 */
static bool
value_prints_longer(JsonbContainer *object, int limit)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue value;
	int64 bytes = 0;

	while (bytes <= limit &&
		   (token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			/* brackets and the ", " between what they hold */
			case WJB_BEGIN_ARRAY:
				bytes += 2 + 2 * (int64) Max(value.val.array.nElems - 1, 0);
				break;
			case WJB_BEGIN_OBJECT:
				bytes += 2 + 2 * (int64) Max(value.val.object.nPairs - 1, 0);
				break;
			case WJB_KEY:
				bytes += value_string_bytes(value.val.string.val,
											value.val.string.len) +
					strlen(": ");
				break;
			case WJB_ELEM:
			case WJB_VALUE:
				bytes += value_scalar_bytes(&value);
				break;
			default:
				break;
		}
	}
	return bytes > limit;
}

void
ub_value_check_not_negative(UbPlace place, const char *field, int64 value)
{
	if (value < 0)
		ub_value_error(place, field, ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT "; it must not be negative", value),
					   NULL);
}

/* metadata must be an object whose text is not too long. */
void
ub_value_check_metadata(UbPlace place, JsonbContainer *metadata)
{
	if (!JsonContainerIsObject(metadata))
		ub_value_error(place, "metadata", ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not a JSON object", NULL);
	if (value_prints_longer(metadata, UB_METADATA_BYTES))
		ub_value_error(place, "metadata", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("has more than %d bytes as text", UB_METADATA_BYTES),
					   NULL);
}

/*
 * Returns the value in lower case. ASCII is folded the same way in every
 * database; only other letters ask the database's own locale.
 */
text *
ub_value_lower(UbSlice value)
{
	text *result = ub_value_text(value);
	char *at = VARDATA(result);
	char *end = at + value.len;

	for (; at < end; at++)
	{
		if (IS_HIGHBIT_SET(*at))
		{
			char *lower = str_tolower(value.data, value.len,
									  DEFAULT_COLLATION_OID);

			return cstring_to_text(lower);
		}
		*at = pg_ascii_tolower((unsigned char) *at);
	}
	return result;
}

/*
 * Turns an integral numeric into int64. False if it has a fraction (then
 * *fraction is set) or does not fit.
 */
bool
ub_value_number(Numeric number, int64 *result, bool *fraction)
{
	Datum datum = NumericGetDatum(number);
	bool out_of_range = false;
	int32 near = numeric_int4_opt_error(number, &out_of_range);

	*fraction = false;
	if (!out_of_range)
	{
		*result = near;
		/* mostly there are no digits behind the point */
		*fraction = DatumGetInt32(DirectFunctionCall1(numeric_scale, datum)) !=
				0 &&
			!DatumGetBool(DirectFunctionCall2(numeric_eq, datum,
											  NumericGetDatum(
												  int64_to_numeric(near))));
		return !*fraction;
	}

	if (!DatumGetBool(
			DirectFunctionCall2(numeric_eq, datum,
								DirectFunctionCall2(numeric_trunc, datum,
													Int32GetDatum(0)))))
	{
		*fraction = true;
		return false;
	}
	if (DatumGetBool(DirectFunctionCall2(numeric_lt, datum,
										 NumericGetDatum(int64_to_numeric(
											 PG_INT64_MIN)))) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, datum,
										 NumericGetDatum(
											 int64_to_numeric(PG_INT64_MAX)))))
		return false;
	*result = DatumGetInt64(DirectFunctionCall1(numeric_int8, datum));
	return true;
}

/*
 * Turns decimal digits with an optional minus into int64. False if there is
 * anything else (then *malformed is set) or it does not fit.
 */
bool
ub_value_decimal(UbSlice value, int64 *result, bool *malformed)
{
	const char *at = value.data;
	const char *end = value.data + value.len;
	bool negative = at < end && *at == '-';
	bool fits = true;
	int64 sum = 0;

	*malformed = true;
	if (negative)
		at++;
	if (at == end)
		return false;
	for (; at < end; at++)
	{
		if (*at < '0' || *at > '9')
			return false;
		/* downwards, because the smallest int64 has no positive twin */
		if (fits &&
			(pg_mul_s64_overflow(sum, 10, &sum) ||
			 pg_sub_s64_overflow(sum, *at - '0', &sum)))
			fits = false;
	}
	*malformed = false;
	if (fits && !negative)
	{
		fits = sum != PG_INT64_MIN;
		sum = fits ? -sum : 0;
	}
	*result = sum;
	return fits;
}

/* Reads exactly n digits at *at into *number and moves on. */
static bool
value_digits(const char **at, const char *end, int n, int *number)
{
	*number = 0;
	if (end - *at < n)
		return false;
	while (n-- > 0)
	{
		char c = *(*at)++;

		if (c < '0' || c > '9')
			return false;
		*number = *number * 10 + (c - '0');
	}
	return true;
}

static bool
value_expect(const char **at, const char *end, char c)
{
	if (*at >= end || **at != c)
		return false;
	(*at)++;
	return true;
}

/* Reads ".123456789" into microseconds, rounded as timestamptz does. */
static bool
value_fraction(const char **at, const char *end, int64 *micros)
{
	char digits[32] = "0.";
	int n = 2;

	*micros = 0;
	if (!value_expect(at, end, '.'))
		return true;
	if (*at >= end || **at < '0' || **at > '9')
		return false;
	for (; *at < end && **at >= '0' && **at <= '9'; (*at)++)
	{
		if (n < (int) sizeof(digits) - 1)
			digits[n++] = **at;
	}
	digits[n] = '\0';
	*micros = (int64) rint(strtod(digits, NULL) * 1000000);
	return true;
}

/* Reads "Z", "+02:00" or nothing (UTC) into seconds east of Greenwich. */
static bool
value_offset(const char **at, const char *end, int *seconds)
{
	int hours;
	int minutes;
	bool west;

	*seconds = 0;
	if (*at == end)
		return true;
	if (value_expect(at, end, 'Z') || value_expect(at, end, 'z'))
		return true;
	west = **at == '-';
	if (!west && **at != '+')
		return false;
	(*at)++;
	if (!value_digits(at, end, 2, &hours) || !value_expect(at, end, ':') ||
		!value_digits(at, end, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*seconds = (hours * 60 + minutes) * 60;
	if (west)
		*seconds = -*seconds;
	return true;
}

/*
 * Reads an RFC 3339 time, in which a blank may stand for the T and no offset
 * means UTC. The session's TimeZone and DateStyle never matter.
 */
bool
ub_value_time(UbSlice value, TimestampTz *result)
{
	const char *at = value.data;
	const char *end = value.data + value.len;
	int year,
		month,
		day,
		hour,
		minute,
		second,
		offset;
	int64 micros;

	if (!value_digits(&at, end, 4, &year) || !value_expect(&at, end, '-') ||
		!value_digits(&at, end, 2, &month) || !value_expect(&at, end, '-') ||
		!value_digits(&at, end, 2, &day))
		return false;
	if (!value_expect(&at, end, 'T') && !value_expect(&at, end, 't') &&
		!value_expect(&at, end, ' '))
		return false;
	if (!value_digits(&at, end, 2, &hour) || !value_expect(&at, end, ':') ||
		!value_digits(&at, end, 2, &minute) || !value_expect(&at, end, ':') ||
		!value_digits(&at, end, 2, &second) ||
		!value_fraction(&at, end, &micros) ||
		!value_offset(&at, end, &offset) || at != end)
		return false;
	if (year < 1 || month < 1 || month > MONTHS_PER_YEAR || day < 1 ||
		day > day_tab[isleap(year)][month - 1] ||
		hour > 23 || minute > 59 || second > 60)
		return false;

	*result = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) *
			USECS_PER_DAY +
		((hour * MINS_PER_HOUR + minute) * (int64) SECS_PER_MINUTE + second -
		 offset) *
			USECS_PER_SEC +
		micros;
	return true;
}

/* The same, or a date alone, which is its midnight in UTC. */
bool
ub_value_time_or_date(UbSlice value, TimestampTz *result)
{
	if (value.len == strlen("YYYY-MM-DD"))
	{
		char *text = psprintf("%.*sT00:00:00Z", value.len, value.data);

		value.data = text;
		value.len = strlen(text);
	}
	return ub_value_time(value, result);
}

static int
value_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = pg_ascii_tolower((unsigned char) c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Reads a uuid in every form that type uuid takes: braces around, hyphens
 * after any group of four digits. Unlike its input function this one doesn't
 * raise an error, so that the caller can name the element.
 */
bool
ub_value_uuid(UbSlice value, pg_uuid_t *result)
{
	const char *at = value.data;
	const char *end = value.data + value.len;

	if (value.len >= 2 && *at == '{')
	{
		if (end[-1] != '}')
			return false;
		at++;
		end--;
	}
	for (int i = 0; i < UUID_LEN; i++)
	{
		int high,
			low;

		if (end - at < 2)
			return false;
		high = value_hex(at[0]);
		low = value_hex(at[1]);
		if (high < 0 || low < 0)
			return false;
		result->data[i] = (unsigned char) (high << 4 | low);
		at += 2;
		if (i % 2 == 1 && i < UUID_LEN - 1 && at < end && *at == '-')
			at++;
	}
	return at == end;
}

/* Makes an id of a name, the same one each time. */
pg_uuid_t *
ub_value_made_uuid(const char *name)
{
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	const char *problem;

	if (!pg_md5_binary(name, strlen(name), id->data, &problem))
		elog(ERROR, "could not make an id: %s", problem);
	/* version 3: made from a name */
	id->data[6] = (id->data[6] & 0x0f) | 0x30;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
	return id;
}

const char *
ub_value_uuid_text(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

/* The UTC hour in which a finite time lies. */
TimestampTz
ub_value_hour(TimestampTz at)
{
	int64 rest = at % USECS_PER_HOUR;

	return at - (rest < 0 ? rest + USECS_PER_HOUR : rest);
}
