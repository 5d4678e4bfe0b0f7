/*
 * range.c
 *		The range of time that a reader of the hours is asked for: its rules
 *		for what is given, what is not, and what is last_bill_date.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "errors.h"
#include "range.h"

#define RANGE_MOST (90 * USECS_PER_DAY)

/*
 * Ranges keep away from the ends of time, so that what is reckoned from their
 * own ends, up to the next buckets, is a time too.
 */
#define RANGE_FIRST	   (MIN_TIMESTAMP + 2 * RANGE_MOST)
#define RANGE_LAST	   (END_TIMESTAMP - 2 * RANGE_MOST)
#define LAST_BILL_DATE "last_bill_date"

/* The hour at or after a time. */
static TimestampTz
hour_up(TimestampTz at)
{
	TimestampTz hour = ub_value_hour(at);

	return hour == at ? hour : hour + USECS_PER_HOUR;
}

/* When the account was billed last, or made. */
static TimestampTz
range_last_bill(const UbAccount *account)
{
	return ub_value_hour(account->has_last_billed_at ? account->last_billed_at :
													   account->created_at);
}

/* The end of the current day, in UTC. */
static TimestampTz
range_end_of_today(void)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	int64 rest = now % USECS_PER_DAY;

	return now - (rest < 0 ? rest + USECS_PER_DAY : rest) + USECS_PER_DAY;
}

/* An end of a range, rounded up to the hour. */
static TimestampTz
range_end(const char *parameter, TimestampTz at)
{
	if (TIMESTAMP_NOT_FINITE(at))
		ub_value_error(UB_PLACE_PARAMETER, parameter,
					   ERRCODE_INVALID_PARAMETER_VALUE, "is not finite", NULL);
	if (at < RANGE_FIRST || at > RANGE_LAST)
		ub_value_error(UB_PLACE_PARAMETER, parameter,
					   ERRCODE_INVALID_PARAMETER_VALUE,
					   "is less than 180 days from the first or the last time that there is",
					   NULL);
	return hour_up(at);
}

static TimestampTz
range_time(const char *parameter, UbSlice text, const UbAccount *account)
{
	TimestampTz at;

	if (ub_slice_is(text, LAST_BILL_DATE))
		return range_end(parameter, range_last_bill(account));
	if (!ub_value_time_or_date(text, &at))
		ub_value_error(
			UB_PLACE_PARAMETER, parameter, ERRCODE_INVALID_DATETIME_FORMAT,
			psprintf(
				"is \"%s\"; allowed are YYYY-MM-DD HH:00:00, YYYY-MM-DD, an RFC 3339 time and last_bill_date",
				ub_clip(text.data, text.len)),
			"Times without an offset are UTC.");
	return range_end(parameter, at);
}

/*
 * Fills in the end that was not given. With a last billing date outside of
 * what the other end allows, 90 days are the range.
 */
static void
range_complete(UbRange *range, bool has_from, bool has_to,
			   const UbAccount *account)
{
	TimestampTz last = range_last_bill(account);

	if (!has_to)
	{
		range->to = range_end_of_today();
		if (has_from && range->from + RANGE_MOST < range->to)
			range->to = range->from + RANGE_MOST;
	}
	if (!has_from)
	{
		range->from = range->to - RANGE_MOST;
		if (last > range->from && last < range->to)
			range->from = last;
	}
	if (range->from >= range->to)
		ub_value_error(
			UB_PLACE_PARAMETER, "from", ERRCODE_INVALID_PARAMETER_VALUE,
			psprintf("is %s, which is not before to, %s",
					 ub_range_text(range->from), ub_range_text(range->to)),
			"from is included and to is not; both are rounded up to the hour.");
}

/* The range of account_usage_trend; empty texts are not given. */
void
ub_range_of_trend(UbRange *range, UbSlice from, UbSlice to,
				  const UbAccount *account)
{
	if (from.len > 0)
		range->from = range_time("from", from, account);
	if (to.len > 0)
		range->to = range_time("to", to, account);
	range_complete(range, from.len > 0, to.len > 0, account);
	if (range->from < range->to - RANGE_MOST)
		ub_value_error(UB_PLACE_PARAMETER, "to", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is more than 90 days after from, %s; allowed are 90 days",
								ub_range_text(range->from)),
					   NULL);
}

/* The range of usage_series, of any length; null is not given. */
void
ub_range_of_series(UbRange *range, const TimestampTz *from,
				   const TimestampTz *to, const UbAccount *account)
{
	if (from != NULL)
		range->from = range_end("from", *from);
	if (to != NULL)
		range->to = range_end("to", *to);
	range_complete(range, from != NULL, to != NULL, account);
}

/* The unit of usage_series' buckets. */
text *
ub_range_bucket(UbSlice bucket)
{
	if (bucket.len == 0)
		return cstring_to_text("hour");
	if (!ub_slice_is(bucket, "hour") && !ub_slice_is(bucket, "day") &&
		!ub_slice_is(bucket, "week") && !ub_slice_is(bucket, "month"))
		ub_value_error(UB_PLACE_PARAMETER, "bucket", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is \"%s\"; allowed are hour, day, week and month",
								ub_clip(bucket.data, bucket.len)),
					   NULL);
	return ub_value_text(bucket);
}

/*
 * Whether this can be the name of a zone in the time zone database. The server
 * takes rules like XYZ-3 too, any number of them, with the sign the other way
 * round, and a session keeps each that it was ever asked for. A rule has a digit
 * in it, and only few names have one.
 */
static bool
zone_is_name(const char *zone)
{
	static const char *const with_digits[] = {"CST6CDT", "EST5EDT", "GMT+0", "GMT-0",
											  "GMT0", "MST7MDT", "PST8PDT"};
	int hours;
	char *end;

	if (*zone == ':')
		return false;
	if (pg_strncasecmp(zone, "posix/", 6) == 0)
		zone += 6;
	if (strpbrk(zone, "0123456789") == NULL)
		return true;
	for (int i = 0; i < (int) lengthof(with_digits); i++)
	{
		if (pg_strcasecmp(zone, with_digits[i]) == 0)
			return true;
	}
	/* Etc/GMT-14 to Etc/GMT+12 */
	if (pg_strncasecmp(zone, "Etc/GMT", 7) != 0)
		return false;
	zone += 7;
	if (strcmp(zone, "0") == 0)
		return true;
	if ((*zone != '+' && *zone != '-') || !isdigit((unsigned char) zone[1]) ||
		(zone[1] == '0' && zone[2] != '\0'))
		return false;
	hours = strtol(zone, &end, 10);
	return *end == '\0' && hours >= -14 && hours <= 12;
}

/*
 * The time zone of usage_series' buckets. Hours are kept in UTC, so in the
 * range the zone must be whole hours away from it.
 */
text *
ub_range_zone(UbSlice name, const UbRange *range)
{
	pg_tz *zone;
	char *copy;
	pg_time_t at = timestamptz_to_time_t(range->from);
	pg_time_t end = timestamptz_to_time_t(range->to);

	if (name.len == 0)
		return cstring_to_text("UTC");
	copy = pnstrdup(name.data, name.len);
	zone = zone_is_name(copy) ? pg_tzset(copy) : NULL;
	/* a zone that counts leap seconds has no whole hours */
	if (zone == NULL || !pg_tz_acceptable(zone))
		ub_value_error(UB_PLACE_PARAMETER, "time_zone", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is \"%s\", which is no time zone", ub_clip(name.data, name.len)),
					   "Use a name of pg_timezone_names, for example Europe/Berlin.");

	while (at <= end)
	{
		long before;
		long after;
		int before_dst;
		int after_dst;
		pg_time_t boundary;
		int found = pg_next_dst_boundary(&at, &before, &before_dst, &boundary,
										 &after, &after_dst, zone);

		if (found < 0 || before % SECS_PER_HOUR != 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("time zone is not whole hours away from UTC"),
					 errdetail("time_zone \"%s\" has another offset in the range.",
							   ub_clip(name.data, name.len)),
					 errhint("Use UTC or a zone of whole hours.")));
		if (found == 0)
			break;
		at = boundary;
	}
	return ub_value_text(name);
}

/* A whole hour as the trend shows it: 2021-01-07T00:00:00.000Z. */
const char *
ub_range_text(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t fraction;

	if (timestamp2tm(at, NULL, &tm, &fraction, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return psprintf("%04d-%02d-%02dT%02d:00:00.000Z", tm.tm_year, tm.tm_mon,
					tm.tm_mday, tm.tm_hour);
}
