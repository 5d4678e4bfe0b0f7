/*
 * trend.c
 *		Reading the hours: account_usage_trend and usage_series.
 *
 * Both add the folded hours and the pending deltas in the caller's snapshot,
 * by two range scans, so what they cost depends on the hours in the range and
 * never on how many usages there were.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "delta.h"
#include "document.h"
#include "errors.h"
#include "range.h"

/* The resources of account_usage_trend, in the order of its answer. */
static const char *const resource_names[UB_RESOURCES] = {"transcoders", "vod_streams"};

/* What account_usage_trend adds up. */
typedef struct TrendHour
{
	int128 events;
	int128 viewing_seconds;
	int128 viewing_bytes;
} TrendHour;

typedef struct Trend
{
	UbRange range;
	bool resources[UB_RESOURCES];
	int128 sums[UB_SUMS];
	TrendHour *hours; /* one for each hour of the range */
} Trend;

/* What usage_series adds up, by bucket. */
typedef struct Series
{
	UbSlice source; /* empty: all */
	bool has_type;
	UbKind type;
	Datum unit; /* for date_trunc */
	bool by_hour;
	Datum zone;
	TimestampTz bucket;		/* the last hour's bucket … */
	TimestampTz bucket_end; /* … and where it ends */
	UbDeltaSet *sums;
} Series;

/* How many buckets usage_series fills at most. */
#define SERIES_MOST_BUCKETS 100000

PG_FUNCTION_INFO_V1(ub_account_usage_trend);
PG_FUNCTION_INFO_V1(ub_usage_series);

/*
 * Calls visitor for every folded hour and every pending delta of the account
 * in the range, as the snapshot sees them.
 */
static void
hours_visit(text *billing_id, const UbRange *range, Snapshot snapshot,
			UbDeltaVisitor visitor, void *state)
{
	UbScan scan;
	ScanKeyData keys[3];

	ub_scan_key_text(&keys[0], 1, PointerGetDatum(billing_id));
	ub_scan_key_time(&keys[1], 2, BTGreaterEqualStrategyNumber,
					 TimestampTzGetDatum(range->from));
	ub_scan_key_time(&keys[2], 2, BTLessStrategyNumber,
					 TimestampTzGetDatum(range->to));

	ub_scan_begin(&scan, ub_catalog()->usage_hourly,
				  ub_catalog()->usage_hourly_pkey, snapshot, keys, 3);
	while (ub_scan_next(&scan))
	{
		UbDelta hour;

		CHECK_FOR_INTERRUPTS();
		ub_hour_load(scan.slot, &hour);
		visitor(state, &hour);
	}
	ub_scan_end(&scan);

	ub_deltas_scan(&scan, billing_id, ub_deltas_floor(billing_id, snapshot),
				   snapshot);
	while (ub_scan_next(&scan))
	{
		UbDelta delta;

		CHECK_FOR_INTERRUPTS();
		ub_delta_load(scan.slot, &delta);
		if (delta.key.hour >= range->from && delta.key.hour < range->to)
			visitor(state, &delta);
	}
	ub_scan_end(&scan);
}

static int64
trend_number(int128 sum, const char *what)
{
	if (!ub_sum_fits(sum))
		ub_error_sum_range(what);
	return (int64) sum;
}

static void
trend_add(void *state, const UbDelta *delta)
{
	Trend *trend = state;
	TrendHour *hour;
	bool wanted = false;

	if (delta->key.kind != UB_KIND_FEATURE)
		return;
	for (int i = 0; i < UB_RESOURCES; i++)
		wanted = wanted ||
			(trend->resources[i] &&
			 ub_slice_is(delta->key.source, resource_names[i]));
	if (!wanted)
		return;

	for (int i = 0; i < UB_SUMS; i++)
		trend->sums[i] += delta->sums[i];
	hour = &trend
				->hours[(delta->key.hour - trend->range.from) / USECS_PER_HOUR];
	hour->events += delta->sums[UB_SUM_EVENTS];
	hour->viewing_seconds += delta->sums[UB_SUM_MEASURES];
	hour->viewing_bytes += delta->sums[UB_SUM_MEASURES + 1];
}

/* viewing_seconds a session, rounded; 0 if there were none. */
static int64
trend_average(const Trend *trend)
{
	int128 sessions = trend->sums[UB_SUM_AMOUNT];
	int128 seconds = trend->sums[UB_SUM_MEASURES];

	return sessions > 0 ? (int64) ((seconds * 2 + sessions) / (sessions * 2)) :
						  0;
}

static void
trend_push_hours(JsonbParseState **state, const Trend *trend)
{
	int n = (trend->range.to - trend->range.from) / USECS_PER_HOUR;

	ub_object_array(state, "trend");
	for (int i = 0; i < n; i++)
	{
		const TrendHour *hour = &trend->hours[i];

		if (hour->events <= 0)
			continue;
		pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		ub_object_text(state, "sampled_at",
					   ub_range_text(trend->range.from + i * USECS_PER_HOUR));
		ub_object_int(state, "viewing_seconds",
					  trend_number(hour->viewing_seconds, "viewing_seconds"));
		ub_object_int(state, "viewing_bytes",
					  trend_number(hour->viewing_bytes, "viewing_bytes"));
		pushJsonbValue(state, WJB_END_OBJECT, NULL);
	}
	pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static Datum
trend_result(const UbAccount *account, const Trend *trend, bool with_hours)
{
	JsonbParseState *state;

	ub_object_begin(&state);
	ub_object_nested(&state, "account");
	ub_object_text(&state, "id", account->id);
	ub_object_int(&state, "avg_viewing_seconds", trend_average(trend));
	for (int i = 0; i < UB_MEASURES; i++)
		ub_object_int(&state, ub_measure_names[i],
					  trend_number(trend->sums[UB_SUM_MEASURES + i],
								   ub_measure_names[i]));
	if (with_hours)
		trend_push_hours(&state, trend);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);

	ub_object_nested(&state, "limits");
	ub_object_text(&state, "from", ub_range_text(trend->range.from));
	ub_object_text(&state, "to", ub_range_text(trend->range.to));
	ub_object_array(&state, "resources");
	for (int i = 0; i < UB_RESOURCES; i++)
	{
		if (trend->resources[i])
			ub_array_text(&state, resource_names[i]);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return ub_object_end(&state);
}

/*
 * SQL: account_usage_trend("from", "to", filter, include, billing_id, org_id,
 * project_id)
 */
Datum
ub_account_usage_trend(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 4);
	UbAccount account;
	Trend trend = {0};
	bool with_hours;

	ub_access_account(&choice, GetActiveSnapshot(), &account);
	ub_range_of_trend(&trend.range, ub_access_text_arg(fcinfo, 0),
					  ub_access_text_arg(fcinfo, 1), &account);
	ub_document_filter(PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2),
					   resource_names, trend.resources);
	with_hours = ub_document_include(ub_access_text_arg(fcinfo, 3));

	trend.hours = palloc0(
		sizeof(TrendHour) *
		((trend.range.to - trend.range.from) / USECS_PER_HOUR));
	hours_visit(account.billing_id, &trend.range, GetActiveSnapshot(),
				trend_add, &trend);
	PG_RETURN_DATUM(trend_result(&account, &trend, with_hours));
}

static TimestampTz
series_date_trunc(const Series *series, TimestampTz at)
{
	return DatumGetTimestampTz(
		DirectFunctionCall3(timestamptz_trunc_zone, series->unit,
							TimestampTzGetDatum(at), series->zone));
}

/*
 * The start of the bucket in which a time lies. Where clocks go back over
 * midnight there are two of them, and date_trunc means the second; the day
 * begins with the first.
 */
static TimestampTz
series_trunc(const Series *series, TimestampTz at)
{
	TimestampTz start;

	/* zones are whole hours away */
	if (series->by_hour)
		return ub_value_hour(at);
	start = series_date_trunc(series, at);

	while (series_date_trunc(series, start - USECS_PER_HOUR) == start)
		start -= USECS_PER_HOUR;
	return start;
}

/*
 * Raises 22023 if the range would be filled with very many buckets, for which
 * nobody has to have used anything.
 */
static void
series_check_length(const Series *series, const UbRange *range)
{
	/* each by itself: the ends may be further apart than int64 can tell */
	int64 hours = range->to / USECS_PER_HOUR - range->from / USECS_PER_HOUR;
	int64 buckets = series->by_hour ? hours : hours / HOURS_PER_DAY;

	if (series->source.len > 0 && buckets > SERIES_MOST_BUCKETS)
		ub_value_error(UB_PLACE_PARAMETER, "to", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is " INT64_FORMAT " hours after from; the most are %d buckets",
								hours, SERIES_MOST_BUCKETS),
					   "Ask for a shorter range or larger buckets.");
}

/* The start of the bucket after the one that starts at start. */
static TimestampTz
series_next(const Series *series, TimestampTz start)
{
	static const struct
	{
		const char *unit;
		int hours; /* surely in the next bucket, in any zone */
	} steps[] = {{"day", 36}, {"week", 10 * 24}, {"month", 45 * 24}};
	UbSlice unit = ub_value_slice(DatumGetTextPP(series->unit));

	if (series->by_hour)
		return start + USECS_PER_HOUR;
	for (int i = 0; i < (int) lengthof(steps); i++)
	{
		if (ub_slice_is(unit, steps[i].unit))
			return series_trunc(series,
								start + steps[i].hours * USECS_PER_HOUR);
	}
	elog(ERROR, "unexpected bucket");
}

static void
series_add(void *state, const UbDelta *delta)
{
	Series *series = state;
	UbDeltaKey key = delta->key;
	UbDelta *sum;

	if ((series->source.len > 0 &&
		 !ub_slices_equal(series->source, key.source)) ||
		(series->has_type && series->type != key.kind) ||
		key.kind == UB_KIND_GRANT)
		return;
	if (key.hour < series->bucket || key.hour >= series->bucket_end)
	{
		series->bucket = series_trunc(series, key.hour);
		series->bucket_end = series_next(series, series->bucket);
	}
	key.hour = series->bucket;
	sum = ub_deltas_at(series->sums, &key);
	for (int i = 0; i < UB_SUMS; i++)
		sum->sums[i] += delta->sums[i];
}

static void
series_put(ReturnSetInfo *result, TimestampTz bucket, UbSlice source,
		   UbKind kind, int128 events, int128 amount)
{
	Datum values[5];
	bool nulls[5] = {0};

	values[0] = TimestampTzGetDatum(bucket);
	values[1] = PointerGetDatum(ub_value_text(source));
	nulls[2] = kind == UB_KIND_GRANT;
	values[2] = ObjectIdGetDatum(kind == UB_KIND_FEATURE ?
									 ub_catalog()->usage_type_feature :
									 ub_catalog()->usage_type_credit);
	values[3] = Int64GetDatum(trend_number(events, "events"));
	values[4] = Int64GetDatum(trend_number(amount, "amount"));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Fills the buckets from *next up to (not including) end with zeros. */
static void
series_fill(ReturnSetInfo *result, const Series *series, TimestampTz *next,
			TimestampTz end)
{
	UbKind kind = series->has_type ? series->type : UB_KIND_GRANT;

	if (series->source.len == 0)
		return;
	for (; *next < end; *next = series_next(series, *next))
	{
		CHECK_FOR_INTERRUPTS();
		series_put(result, *next, series->source, kind, 0, 0);
	}
}

static void
series_return(ReturnSetInfo *result, const Series *series, const UbRange *range)
{
	TimestampTz next = series_trunc(series, range->from);
	ListCell *cell;

	foreach (cell, ub_deltas_sorted(series->sums))
	{
		const UbDelta *sum = lfirst(cell);

		if (sum->sums[UB_SUM_EVENTS] == 0 && sum->sums[UB_SUM_AMOUNT] == 0)
			continue;
		series_fill(result, series, &next, sum->key.hour);
		series_put(result, sum->key.hour, sum->key.source, sum->key.kind,
				   sum->sums[UB_SUM_EVENTS], sum->sums[UB_SUM_AMOUNT]);
		if (next <= sum->key.hour)
			next = series_next(series, sum->key.hour);
	}
	series_fill(result, series, &next, range->to);
}

/*
 * SQL: usage_series("from", "to", bucket, time_zone, source, type, billing_id,
 * org_id, project_id)
 */
Datum
ub_usage_series(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 6);
	UbSlice unit = ub_access_text_arg(fcinfo, 2);
	UbSlice zone = ub_access_text_arg(fcinfo, 3);
	UbSlice source = ub_access_text_arg(fcinfo, 4);
	Series series = {0};
	UbAccount account;
	UbRange range;

	InitMaterializedSRF(fcinfo, 0);
	ub_access_account(&choice, GetActiveSnapshot(), &account);
	ub_range_of_series(&range, ub_access_time_arg(fcinfo, 0),
					   ub_access_time_arg(fcinfo, 1), &account);
	series.unit = PointerGetDatum(ub_range_bucket(unit));
	series.by_hour = unit.len == 0 || ub_slice_is(unit, "hour");
	series.zone = PointerGetDatum(ub_range_zone(zone, &range));
	if (source.len > 0)
	{
		ub_value_check_length(UB_PLACE_PARAMETER, "source", source, UB_ID_BYTES);
		series.source = ub_value_slice(ub_value_lower(source));
	}
	series.has_type = !PG_ARGISNULL(5);
	if (series.has_type)
		series.type = PG_GETARG_OID(5) == ub_catalog()->usage_type_feature ?
			UB_KIND_FEATURE :
			UB_KIND_CREDIT;
	series.bucket_end = series.bucket = DT_NOBEGIN;
	series.sums = ub_deltas_new();

	series_check_length(&series, &range);
	hours_visit(account.billing_id, &range, GetActiveSnapshot(), series_add,
				&series);
	series_return((ReturnSetInfo *) fcinfo->resultinfo, &series, &range);
	return (Datum) 0;
}
