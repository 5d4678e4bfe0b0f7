-- usage_series: the same as grouping the raw rows by date_trunc, in any time
-- zone of whole hours, ready for a chart. And close_billing_period.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE FUNCTION ub_test.shown(at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') $$;

CREATE TEMP TABLE known_zone AS SELECT name FROM pg_timezone_names;

DO $$ BEGIN
	INSERT INTO usage_billing.billing_account (billing_id, org_id, created_at)
	SELECT name, 'org_' || name, '2018-01-01 00:00:00Z' FROM unnest('{chart,random,steady,other}'::text[]) name;
	PERFORM usage_billing.create_project(project_id => 'prj_chart', org_id => 'org_chart');
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at) VALUES
		('chart', ub_test.id(1), 'credit', 'api', 5, '2024-03-01 08:00:00Z'), ('chart', ub_test.id(2), 'credit', 'api', 7, '2024-03-01 08:59:59Z'),
		('chart', ub_test.id(3), 'feature', 'api', 2, '2024-03-01 10:30:00Z'), ('chart', ub_test.id(4), 'credit', 'images', 0, '2024-03-01 10:45:00Z'),
		('chart', ub_test.id(5), 'feature', 'images', 9, '2024-03-02 23:00:00Z'), ('chart', ub_test.id(6), 'credit', 'api', 3, '2024-03-04 00:00:00Z'),
		('other', ub_test.id(1), 'credit', 'api', 100, '2024-03-01 08:00:00Z');
END $$;

-- The series as lines, in the order in which they come.
CREATE FUNCTION ub_test.series("from" timestamptz, "to" timestamptz, bucket text DEFAULT 'hour', time_zone text DEFAULT 'UTC',
	source text DEFAULT NULL, type usage_billing.usage_type DEFAULT NULL, account text DEFAULT 'chart') RETURNS text
LANGUAGE sql AS $$
	SELECT coalesce(string_agg(concat_ws(' ', ub_test.shown(s.bucket_start), s.source, coalesce(s.type::text, '-'), s.events, s.amount), E'\n' ORDER BY s.ordinality), '')
	FROM usage_billing.usage_series("from", "to", bucket, time_zone, source, type, billing_id => account) WITH ORDINALITY s
$$;

SELECT is(ub_test.series('2024-03-01 08:00:00Z', '2024-03-03 00:00:00Z'), concat_ws(E'\n', '2024-03-01 08:00 api credit 2 12', '2024-03-01 10:00 api feature 1 2',
	'2024-03-01 10:00 images credit 1 0', '2024-03-02 23:00 images feature 1 9'), 'by hour: every source and type that was used, and nothing else');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-05 00:00:00Z', 'day'), concat_ws(E'\n', '2024-03-01 00:00 api credit 2 12', '2024-03-01 00:00 api feature 1 2',
	'2024-03-01 00:00 images credit 1 0', '2024-03-02 00:00 images feature 1 9', '2024-03-04 00:00 api credit 1 3'), 'by day');
SELECT is(ub_test.series('2024-02-26 00:00:00Z', '2024-03-05 00:00:00Z', 'week'), concat_ws(E'\n', '2024-02-26 00:00 api credit 2 12', '2024-02-26 00:00 api feature 1 2',
	'2024-02-26 00:00 images credit 1 0', '2024-02-26 00:00 images feature 1 9', '2024-03-04 00:00 api credit 1 3'), 'by week: it begins on Monday');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-04-01 00:00:00Z', 'month'), concat_ws(E'\n', '2024-03-01 00:00 api credit 3 15', '2024-03-01 00:00 api feature 1 2',
	'2024-03-01 00:00 images credit 1 0', '2024-03-01 00:00 images feature 1 9'), 'by month');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-05 00:00:00Z', 'day', 'Europe/Berlin', source => NULL, type => 'feature'),
	concat_ws(E'\n', '2024-02-29 23:00 api feature 1 2', '2024-03-02 23:00 images feature 1 9'), 'one type, in a zone: no bucket is filled');
SELECT is(ub_test.series('2024-03-01 08:00:00Z', '2024-03-01 11:00:00Z', source => 'api'), concat_ws(E'\n', '2024-03-01 08:00 api credit 2 12', '2024-03-01 09:00 api - 0 0',
	'2024-03-01 10:00 api feature 1 2'), 'one source: hours without usage are zeros, their type is null');
SELECT is(ub_test.series('2024-03-01 07:00:00Z', '2024-03-01 12:00:00Z', source => 'api', type => 'credit'), concat_ws(E'\n', '2024-03-01 07:00 api credit 0 0', '2024-03-01 08:00 api credit 2 12',
	'2024-03-01 09:00 api credit 0 0', '2024-03-01 10:00 api credit 0 0', '2024-03-01 11:00 api credit 0 0'), 'one source and type: zeros of the type, from the first hour to the last');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-05 00:00:00Z', 'day', source => 'images'), concat_ws(E'\n', '2024-03-01 00:00 images credit 1 0', '2024-03-02 00:00 images feature 1 9',
	'2024-03-03 00:00 images - 0 0', '2024-03-04 00:00 images - 0 0'), 'usage of amount 0 is usage: its day is not filled');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-03 00:00:00Z', 'day', source => 'nobody_used_this'),
	concat_ws(E'\n', '2024-03-01 00:00 nobody_used_this - 0 0', '2024-03-02 00:00 nobody_used_this - 0 0'), 'a source without any usage is all zeros');
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-03 00:00:00Z', 'day', source => ''), ub_test.series('2024-03-01 00:00:00Z', '2024-03-03 00:00:00Z', 'day'), 'an empty source is none');
SELECT is(ub_test.series('2024-05-01 00:00:00Z', '2024-05-03 00:00:00Z'), '', 'nothing used, no source: no rows');
SELECT is(ub_test.series('2018-01-01 00:00:00Z', '2026-01-01 00:00:00Z', 'month'), ub_test.series('2024-03-01 00:00:00Z', '2024-04-01 00:00:00Z', 'month'), 'a range may have more than 90 days');

-- from and to are rounded up to the hour; what of a bucket is in the range counts.
SELECT is(ub_test.series('2024-03-01 08:00:00.000001Z', '2024-03-01 10:00:00.5Z', source => 'api'),
	concat_ws(E'\n', '2024-03-01 09:00 api - 0 0', '2024-03-01 10:00 api feature 1 2'), 'from and to are rounded up to the hour');
SELECT is(ub_test.series('2024-03-01 07:59:59Z', '2024-03-01 10:00:00Z', source => 'api'),
	concat_ws(E'\n', '2024-03-01 08:00 api credit 2 12', '2024-03-01 09:00 api - 0 0'), 'from is included, to is not');
SELECT is(ub_test.series('2024-03-01 10:00:00Z', '2024-03-02 23:00:00Z', 'day', source => 'api'),
	concat_ws(E'\n', '2024-03-01 00:00 api feature 1 2', '2024-03-02 00:00 api - 0 0'), 'a day that the range cuts counts what is in it');

-- Choice of the account.
CREATE FUNCTION ub_test.sum_of(call text) RETURNS numeric
LANGUAGE plpgsql AS $$
DECLARE
	result numeric;
BEGIN
	EXECUTE format($f$SELECT sum(amount) FROM usage_billing.usage_series("from" => '2024-03-01 00:00:00Z', "to" => '2024-04-01 00:00:00Z'%s)$f$, call) INTO result;
	RETURN result;
END $$;
SELECT is(ub_test.sum_of($$, org_id => 'org_chart'$$), 26::numeric, 'by organisation');
SELECT is(ub_test.sum_of($$, project_id => 'prj_chart'$$), 26::numeric, 'by project');
SET LOCAL request.jwt.claims = '{"org_id": "org_chart"}';
SELECT is(ub_test.sum_of(''), 26::numeric, 'by token');
SELECT ub_test.fails($$SELECT * FROM usage_billing.usage_series(billing_id => 'other')$$, '42501', NULL, 'a token opens no other organisation''s series');
SET LOCAL request.jwt.claims = '';
SELECT ub_test.fails($$SELECT * FROM usage_billing.usage_series(billing_id => 'mArKeR')$$, 'PT404', 'mArKeR', 'an unknown account');
SELECT ub_test.fails($$SELECT * FROM usage_billing.usage_series()$$, '22023', 'billing_id', 'no account');

-- Words that it doesn't know.
SELECT ub_test.fails(format($$SELECT ub_test.series('2024-03-01 00:00:00Z', '2024-03-02 00:00:00Z', %L)$$, bucket), '22023', '^bucket .*hour.*day.*week.*month', 'bucket: ' || bucket)
FROM unnest('{mArKeR,minute,second,quarter,year,decade,Hour,HOUR,hours,days," day","day "}'::text[]) bucket;
SELECT ub_test.fails(format($$SELECT ub_test.series('2024-03-01 00:00:00Z', '2024-03-02 00:00:00Z', 'day', %L)$$, zone), '22023', '^time_zone ', 'time_zone: ' || zone)
FROM unnest(ARRAY['mArKeR', 'Europe/mArKeR', 'Europe', 'Europe/', '/', '../UTC', 'Europe/Berlin ', 'local time', repeat('z', 300)]) zone;
-- Rules instead of names: there is no end of them, and their sign is the other way round.
SELECT ub_test.fails(format($$SELECT ub_test.series('2024-03-01 00:00:00Z', '2024-03-02 00:00:00Z', 'day', %L)$$, zone), '22023', '^time_zone ', 'no name of a zone: ' || zone)
FROM unnest(ARRAY['UTC+3', 'GMT+5', 'X-1', 'CET-1CEST', 'XYZ-3ABC,M3.2.0,M11.1.0', '<+13>-13', '+02', '-3', 'Etc/GMT+13', 'Etc/GMT-15', 'Etc/GMT+01', 'Etc/GMT+1:00', ':UTC', 'right/UTC']) zone;
SELECT is(ub_test.series('2024-03-01 00:00:00Z', '2024-03-02 00:00:00Z', 'hour', name), ub_test.series('2024-03-01 00:00:00Z', '2024-03-02 00:00:00Z'), 'a name of a zone: ' || name)
FROM known_zone WHERE name ~ '[0-9]' AND name !~ 'SystemV|right/';
SELECT CASE WHEN EXISTS (SELECT FROM known_zone WHERE name = zone)
	THEN ub_test.fails(format($$SELECT ub_test.series('2024-07-01 00:00:00Z', '2024-07-02 00:00:00Z', %L, %L)$$, bucket, zone), '0A000', zone, format('by %s in %s: not whole hours', bucket, zone))
	ELSE skip(zone || ' is not in this server''s time zones', 1) END
FROM (VALUES ('Asia/Kolkata', 'day'), ('Asia/Kolkata', 'hour'), ('Asia/Kathmandu', 'day'), ('Australia/Adelaide', 'week'), ('America/St_Johns', 'month'), ('Australia/Lord_Howe', 'day'), ('Asia/Yangon', 'day')) AS c (zone, bucket);

-- The ends of time, further apart than a bigint can tell in microseconds.
SELECT ub_test.fails(format($$SELECT count(*) FROM usage_billing.usage_series(%L, %L, %L, source => 'x', billing_id => 'chart')$$, "from", "to", bucket), '22023', detail,
	format('%s to %s by %s', "from", "to", bucket))
FROM (VALUES ('4713-06-01 BC', '294276-06-01', '^to .*buckets'), ('4714-11-24 BC', '2024-01-01', '^from .*180 days'), ('2024-01-01', '294276-12-31 23:59:59', '^to .*180 days'),
	('294276-12-31', NULL, '^from .*180 days'), (NULL, '4714-11-25 BC', '^to .*180 days'), ('-infinity', NULL, '^from .*finite'), (NULL, 'infinity', '^to .*finite')) AS c ("from", "to", detail),
	unnest('{hour,day,month}'::text[]) bucket;
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at) VALUES ('other', ub_test.id(70), 1, '294276-12-31 23:59:59.999999Z'), ('other', ub_test.id(71), 2, '4714-11-24 00:00:00Z BC');
SELECT is(ub_test.series('4713-06-01 00:00:00Z BC', '294276-06-01 00:00:00Z', bucket, account => 'other'), ub_test.series('2024-03-01 00:00:00Z', '2024-04-01 00:00:00Z', bucket, account => 'other'),
	format('usage at the ends of time is in no range, by %s', bucket))
FROM unnest('{hour,day,week,month}'::text[]) bucket;

-- ---------------------------------------------------------------------------
-- Days of 23 and 25 hours. "steady" has one usage in every hour, so that a
-- bucket's events are its hours.

DO $$ BEGIN
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at)
	SELECT 'steady', gen_random_uuid(), 'feature', 'clock', 1, h + interval '59 minutes 59 seconds'
	FROM (VALUES (timestamptz '2018-10-20 00:00:00Z', timestamptz '2018-11-20 00:00:00Z'), ('2019-02-08 00:00:00Z', '2019-02-28 00:00:00Z'),
		('2025-02-24 00:00:00Z', '2025-04-14 00:00:00Z'), ('2025-09-29 00:00:00Z', '2025-11-10 00:00:00Z')) AS r (f, t), generate_series(f, t - interval '1 hour', '1 hour') h;
END $$;

CREATE FUNCTION ub_test.hours("from" timestamptz, "to" timestamptz, bucket text, zone text) RETURNS text
LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s', to_char(bucket_start AT TIME ZONE 'UTC', 'MM-DD HH24'), events), ', ' ORDER BY ordinality)
	FROM usage_billing.usage_series("from", "to", bucket, zone, source => 'clock', billing_id => 'steady') WITH ORDINALITY s
$$;
SELECT is(ub_test.hours('2025-03-28 23:00:00Z', '2025-03-31 22:00:00Z', 'day', 'Europe/Berlin'), '03-28 23 24, 03-29 23 23, 03-30 22 24', 'Berlin, 2025-03-30: a day of 23 hours is one day');
SELECT is(ub_test.hours('2025-10-24 22:00:00Z', '2025-10-27 23:00:00Z', 'day', 'Europe/Berlin'), '10-24 22 24, 10-25 22 25, 10-26 23 24', 'Berlin, 2025-10-26: a day of 25 hours is one day');
SELECT is(ub_test.hours('2025-03-29 23:00:00Z', '2025-03-30 22:00:00Z', 'hour', 'Europe/Berlin'),
	(SELECT string_agg(to_char(h AT TIME ZONE 'UTC', 'MM-DD HH24') || ' 1', ', ' ORDER BY h) FROM generate_series(timestamptz '2025-03-29 23:00:00Z', '2025-03-30 21:00:00Z', '1 hour') h),
	'Berlin, 2025-03-30: each of its 23 hours by itself');
SELECT is(ub_test.hours('2025-10-25 22:00:00Z', '2025-10-26 23:00:00Z', 'hour', 'Europe/Berlin'),
	(SELECT string_agg(to_char(h AT TIME ZONE 'UTC', 'MM-DD HH24') || ' 1', ', ' ORDER BY h) FROM generate_series(timestamptz '2025-10-25 22:00:00Z', '2025-10-26 22:00:00Z', '1 hour') h),
	'Berlin, 2025-10-26: each of its 25 hours by itself');
SELECT is(ub_test.hours('2025-03-16 23:00:00Z', '2025-04-06 22:00:00Z', 'week', 'Europe/Berlin'), '03-16 23 168, 03-23 23 167, 03-30 22 168', 'Berlin: a week of 167 hours');
SELECT is(ub_test.hours('2025-10-12 22:00:00Z', '2025-11-02 23:00:00Z', 'week', 'Europe/Berlin'), '10-12 22 168, 10-19 22 169, 10-26 23 168', 'Berlin: a week of 169 hours');
SELECT is(ub_test.hours('2025-02-28 23:00:00Z', '2025-03-31 22:00:00Z', 'month', 'Europe/Berlin'), '02-28 23 743', 'Berlin: a March of 743 hours');
SELECT is(ub_test.hours('2025-09-30 22:00:00Z', '2025-10-31 23:00:00Z', 'month', 'Europe/Berlin'), '09-30 22 745', 'Berlin: an October of 745 hours');
SELECT is(ub_test.hours('2025-03-29 00:00:00Z', '2025-04-01 00:00:00Z', 'day', 'UTC'), '03-29 00 24, 03-30 00 24, 03-31 00 24', 'UTC: all days have 24 hours');
SELECT is(ub_test.hours('2018-11-03 03:00:00Z', '2018-11-06 02:00:00Z', 'day', 'America/Sao_Paulo'), '11-03 03 24, 11-04 03 23, 11-05 02 24', 'São Paulo, 2018-11-04: a day that begins at 01:00');
SELECT is(ub_test.hours('2019-02-15 02:00:00Z', '2019-02-18 03:00:00Z', 'day', 'America/Sao_Paulo'), '02-15 02 24, 02-16 02 25, 02-17 03 24', 'São Paulo, 2019-02-16: a day that ends with 23:00 twice');

-- In zones where midnight comes twice too, every hour is on its local date.
CREATE FUNCTION ub_test.wrong_dates(f timestamptz, t timestamptz, zone text) RETURNS text
LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s: %s of %s', date, given, wanted), ', ' ORDER BY date), '') FROM (
		SELECT date, sum(given) AS given, sum(wanted) AS wanted FROM (
			SELECT (bucket_start AT TIME ZONE zone)::date AS date, events AS given, 0 AS wanted
			FROM usage_billing.usage_series(f, t, 'day', zone, billing_id => 'steady')
			UNION ALL
			SELECT (created_at AT TIME ZONE zone)::date, 0, 1 FROM usage_billing.usage WHERE billing_id = 'steady' AND created_at >= f AND created_at < t) a
		GROUP BY date HAVING sum(given) <> sum(wanted)) d
$$;
SELECT CASE WHEN EXISTS (SELECT FROM known_zone WHERE name = zone)
	THEN is(ub_test.wrong_dates(f, t, zone), '', format('%s, %s to %s: every hour is on its date', zone, ub_test.shown(f), ub_test.shown(t)))
	ELSE skip(zone || ' is not in this server''s time zones', 1) END
FROM (VALUES ('Atlantic/Azores', timestamptz '2025-03-25 00:00:00Z', timestamptz '2025-04-05 00:00:00Z'), ('Atlantic/Azores', '2025-10-20 00:00:00Z', '2025-10-30 00:00:00Z'),
	('Atlantic/Azores', '2025-10-26 00:00:00Z', '2025-10-30 00:00:00Z'), ('America/Havana', '2025-03-05 00:00:00Z', '2025-03-12 00:00:00Z'),
	('America/Havana', '2018-11-01 00:00:00Z', '2018-11-08 00:00:00Z'), ('America/Havana', '2018-11-04 04:00:00Z', '2018-11-08 00:00:00Z'),
	('Asia/Beirut', '2025-03-25 00:00:00Z', '2025-04-05 00:00:00Z'), ('Asia/Beirut', '2025-10-20 00:00:00Z', '2025-10-30 00:00:00Z'),
	('America/Sao_Paulo', '2018-11-01 00:00:00Z', '2018-11-08 00:00:00Z'), ('America/Sao_Paulo', '2019-02-10 00:00:00Z', '2019-02-20 00:00:00Z')) AS c (zone, f, t);

-- ---------------------------------------------------------------------------
-- The same as date_trunc over the raw rows, for random usage around the changes
-- of the clocks, some of it folded, some reverted.

SELECT setseed(0.0317) IS NULL AS done \gset
DO $$ BEGIN
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at)
	SELECT 'random', ub_test.id(n), (ARRAY['credit', 'feature'])[1 + (random() * 1.4)::int % 2]::usage_billing.usage_type, (ARRAY['api', 'images', 'Videos'])[1 + (random() * 2)::int], (random() * 5)::int,
		(ARRAY['2018-11-04', '2019-02-16', '2025-03-09', '2025-03-30', '2025-04-06', '2025-10-26', '2025-11-02', '2025-01-01'])[1 + (random() * 7)::int]::timestamp AT TIME ZONE 'UTC'
			+ (random() ^ 3 - 0.3) * interval '70 days'
	FROM generate_series(1, 1500) n;
	PERFORM usage_billing.run_maintenance();
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at)
	SELECT 'random', ub_test.id(1500 + n), 'credit', 'api', (random() * 5)::int, timestamptz '2025-03-30 00:00:00Z' + (random() - 0.5) * interval '20 days'
	FROM generate_series(1, 300) n;
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount)
	SELECT billing_id, id, CASE WHEN random() < 0.5 THEN amount ELSE 1 END FROM usage_billing.usage WHERE billing_id = 'random' AND amount > 0 AND random() < 0.2;
END $$;

CREATE FUNCTION ub_test.raw("from" timestamptz, "to" timestamptz, bucket text, time_zone text, source text, type usage_billing.usage_type) RETURNS text
LANGUAGE sql AS $$
	WITH used AS (
		SELECT date_trunc(raw.bucket, at, raw.time_zone) AS start, r.source, r.type, sum(events) AS events, sum(amount) AS amount
		FROM (SELECT u.created_at AS at, u.source, u.type, 1 AS events, u.amount FROM usage_billing.usage u WHERE u.billing_id = 'random'
			UNION ALL
			SELECT v.usage_at, v.usage_source, v.usage_type, -v.usage_events, -v.amount FROM usage_billing.usage_revert v WHERE v.billing_id = 'random') r
		WHERE at >= raw."from" AND at < raw."to" AND (raw.source IS NULL OR r.source = raw.source) AND (raw.type IS NULL OR r.type = raw.type)
		GROUP BY 1, 2, 3
		HAVING sum(events) <> 0
	), filled AS (
		TABLE used
		UNION ALL
		SELECT DISTINCT date_trunc(raw.bucket, h, raw.time_zone), raw.source, raw.type, 0, 0
		FROM generate_series(raw."from", raw."to" - interval '1 hour', '1 hour') h
		WHERE raw.source IS NOT NULL AND NOT EXISTS (SELECT FROM used WHERE start = date_trunc(raw.bucket, h, raw.time_zone))
	)
	SELECT coalesce(string_agg(concat_ws(' ', ub_test.shown(f.start), f.source, coalesce(f.type::text, '-'), events, amount), E'\n' ORDER BY f.start, f.source COLLATE "C", f.type), '')
	FROM filled f
$$;
SELECT CASE WHEN EXISTS (SELECT FROM known_zone WHERE name = zone)
	THEN is(ub_test.series(f, t, bucket, zone, source, type::usage_billing.usage_type, 'random'), ub_test.raw(f, t, bucket, zone, source, type::usage_billing.usage_type),
		format('by %s in %s, %s to %s, source %s, type %s: the same as from the raw rows', bucket, zone, ub_test.shown(f), ub_test.shown(t), coalesce(source, 'any'), coalesce(type, 'any')))
	ELSE skip(zone || ' is not in this server''s time zones', 1) END
FROM unnest('{UTC,Europe/Berlin,America/New_York,America/Sao_Paulo,Pacific/Auckland,Asia/Tokyo,Asia/Beirut}'::text[]) zone,
	unnest('{hour,day,week,month}'::text[]) bucket,
	(VALUES (timestamptz '2018-10-20 05:00:00Z', timestamptz '2019-03-10 17:00:00Z'), ('2024-11-20 13:00:00Z', '2025-12-31 01:00:00Z'), ('2025-03-29 22:00:00Z', '2025-03-31 00:00:00Z')) AS r (f, t),
	(VALUES (NULL, NULL), ('api', NULL), ('videos', 'feature'), (NULL, 'credit')) AS s (source, type);

-- ---------------------------------------------------------------------------
-- What the session is set to never matters, and it only reads.

CREATE FUNCTION ub_test.series_with(name text, setting text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	before text := current_setting(name);
	answer text;
BEGIN
	PERFORM set_config(name, setting, true);
	answer := ub_test.series('2025-02-24 00:00:00Z', '2025-04-14 00:00:00Z', 'day', 'Europe/Berlin', 'api', account => 'random') || ub_test.series('2025-10-26 00:00:00Z', '2025-11-03 00:00:00Z', account => 'random')
		|| ub_test.series('2025-02-24 00:00:00Z', '2025-04-14 00:00:00Z', 'week', account => 'random');
	PERFORM set_config(name, before, true);
	RETURN answer;
END $$;
SELECT is(ub_test.series_with(name, setting), ub_test.series_with('TimeZone', 'UTC'), format('%s = %s changes nothing', name, setting))
FROM (VALUES ('TimeZone', 'Asia/Kathmandu'), ('TimeZone', 'Pacific/Kiritimati'), ('TimeZone', 'America/Sao_Paulo'), ('TimeZone', 'Europe/Berlin'), ('TimeZone', '<+0020>-00:20'), ('DateStyle', 'SQL, DMY')) AS c (name, setting);
SELECT is(provolatile::text, 's', 'usage_series is STABLE') FROM pg_proc WHERE oid = 'usage_billing.usage_series'::regproc;
CREATE FUNCTION ub_test.read_only(call text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('transaction_read_only', 'on', true);
	EXECUTE call;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE SQLSTATE WHEN 'UNDO1' THEN '00000' ELSE SQLSTATE END;
END $$;
SELECT is(ub_test.read_only($$SELECT ub_test.series('2024-03-01 00:00:00Z', '2024-03-05 00:00:00Z', 'day', 'Europe/Berlin', 'api')$$), '00000', 'and answers in a READ ONLY transaction');

-- Folding changes no answer.
CREATE TEMP TABLE before_fold AS SELECT ub_test.series('2018-01-01 00:00:00Z', '2026-01-01 00:00:00Z', account => 'random') AS answer;
SELECT ok(EXISTS (SELECT FROM usage_billing.usage_delta WHERE billing_id = 'random'), 'something waits to be folded');
DO $$ BEGIN PERFORM usage_billing.run_maintenance(); END $$;
SELECT is(ub_test.series('2018-01-01 00:00:00Z', '2026-01-01 00:00:00Z', account => 'random'), answer, 'folding changes no answer') FROM before_fold;

-- Late usage and reverts change the right hour.
DO $$ BEGIN
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at) VALUES ('chart', ub_test.id(7), 'feature', 'api', 4, '2024-03-01 09:00:00Z');
	PERFORM usage_billing.revert_usage(ub_test.id(1), billing_id => 'chart'), usage_billing.revert_usage(ub_test.id(3), 1, billing_id => 'chart');
END $$;
SELECT is(ub_test.series('2024-03-01 08:00:00Z', '2024-03-01 11:00:00Z', source => 'api'), concat_ws(E'\n', '2024-03-01 08:00 api credit 1 7', '2024-03-01 09:00 api feature 1 4',
	'2024-03-01 10:00 api feature 1 1'), 'late usage and reverts change the hour of the usage');
DO $$ BEGIN PERFORM usage_billing.revert_usage(ub_test.id(2), billing_id => 'chart'); END $$;
SELECT is(ub_test.series('2024-03-01 08:00:00Z', '2024-03-01 10:00:00Z', source => 'api'), concat_ws(E'\n', '2024-03-01 08:00 api - 0 0', '2024-03-01 09:00 api feature 1 4'),
	'an hour of which nothing is left is an hour without usage');
SELECT is(ub_test.series('2024-03-01 08:00:00Z', '2024-03-01 09:00:00Z'), '', 'also where nothing is filled');
SELECT is(ub_test.books(), '', 'the books agree with the facts');

-- ---------------------------------------------------------------------------
-- close_billing_period.

CREATE FUNCTION ub_test.bill(name text, billed_at timestamptz) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO usage_billing.billing_account (billing_id, org_id, created_at, last_billed_at) VALUES (name, 'org_' || name, '2020-01-01 00:00:00Z', billed_at)
$$;
DO $$ BEGIN
	PERFORM ub_test.bill('never', NULL), ub_test.bill('once', '2024-03-01 10:00:00Z'), ub_test.bill('by_now', NULL), ub_test.bill('by_org', NULL), ub_test.bill('by_token', NULL);
	PERFORM usage_billing.create_project(project_id => 'prj_once', org_id => 'org_once');
END $$;
CREATE FUNCTION ub_test.billed(account text) RETURNS text
LANGUAGE sql AS $$ SELECT ub_test.shown(last_billed_at) FROM usage_billing.billing_account WHERE billing_id = account $$;
-- Where a row stands and who wrote it: the same as long as nothing writes it.
CREATE FUNCTION ub_test.row_version(account text) RETURNS text
LANGUAGE sql AS $$ SELECT concat_ws(' ', ctid, a::text) FROM usage_billing.billing_account a WHERE billing_id = account $$;

SELECT is(usage_billing.close_billing_period('2024-03-01 10:59:59.999Z', billing_id => 'never'), '2024-03-01 10:00:00Z'::timestamptz, 'an hour is rounded down');
SELECT is(ub_test.billed('never'), '2024-03-01 10:00', 'and stored');
SELECT is(usage_billing.account_usage_trend("from" => 'last_bill_date', billing_id => 'never') #>> '{limits,from}', '2024-03-01T10:00:00.000Z', 'the trend goes by it');
SELECT is(usage_billing.close_billing_period('2024-03-01 11:00:00Z', billing_id => 'never'), '2024-03-01 11:00:00Z'::timestamptz, 'it moves forward');
SELECT is(usage_billing.close_billing_period('2024-04-01 00:00:00+02', billing_id => 'never'), '2024-03-31 22:00:00Z'::timestamptz, 'hours are those of UTC');
SELECT is(ub_test.billed('never'), '2024-03-31 22:00', 'that is what is stored');
SELECT is((SELECT string_agg(a.billing_id, ' ') FROM usage_billing.billing_account a WHERE last_billed_at IS NOT NULL), 'once never', 'and of no other account');

CREATE TEMP TABLE version AS SELECT ub_test.row_version('once') AS row;
SELECT is(usage_billing.close_billing_period('2024-03-01 10:00:00Z', billing_id => 'once'), '2024-03-01 10:00:00Z'::timestamptz, 'the same hour again is fine');
SELECT is(usage_billing.close_billing_period('2024-03-01 10:45:00Z', billing_id => 'once'), '2024-03-01 10:00:00Z'::timestamptz, 'any minute of it');
SELECT is(ub_test.row_version('once'), row, 'and nothing is written') FROM version;
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-01 09:59:59Z', billing_id => 'once')$$, '22023', '^at .*', 'it does not move back');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2023-03-01 10:00:00Z', billing_id => 'once')$$, '22023', '^at .*', 'nor far back');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period(clock_timestamp() + interval '1 hour', billing_id => 'once')$$, '22023', '^at .*future', 'nor into the future');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period(clock_timestamp() + interval '100 years', billing_id => 'once')$$, '22023', '^at .*future', 'nor far into it');
SELECT ub_test.fails(format($$SELECT usage_billing.close_billing_period('%s', billing_id => 'once')$$, at), '22023', '^at ', 'nor to ' || at) FROM unnest('{infinity,-infinity}'::text[]) at;

SELECT is(usage_billing.close_billing_period(billing_id => 'by_now'), date_trunc('hour', now(), 'UTC'), 'no time: now');
SELECT is(usage_billing.close_billing_period('2024-03-02 00:00:00Z', org_id => 'org_by_org'), '2024-03-02 00:00:00Z'::timestamptz, 'by organisation');
SELECT is(ub_test.billed('by_org'), '2024-03-02 00:00', 'it is that organisation''s account');
SELECT is(usage_billing.close_billing_period('2024-03-02 00:00:00Z', project_id => 'prj_once'), '2024-03-02 00:00:00Z'::timestamptz, 'by project');
SELECT is(ub_test.billed('once'), '2024-03-02 00:00', 'it is that project''s account');
SET LOCAL request.jwt.claims = '{"org_id": "org_by_token"}';
SELECT is(usage_billing.close_billing_period('2024-03-03 00:00:00Z'), '2024-03-03 00:00:00Z'::timestamptz, 'by token');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-03 00:00:00Z', billing_id => 'once')$$, '42501', NULL, 'a token closes no other organisation''s period');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-03 00:00:00Z', billing_id => 'mArKeR')$$, '42501', NULL, 'nor one of an account that does not exist');
SET LOCAL request.jwt.claims = '';
SELECT is(ub_test.billed('by_token'), '2024-03-03 00:00', 'it is the token''s account');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-03 00:00:00Z', billing_id => 'mArKeR')$$, 'PT404', 'mArKeR', 'an unknown account');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-03 00:00:00Z')$$, '22023', 'billing_id', 'no account');
SELECT ub_test.fails($$SELECT usage_billing.close_billing_period('2024-03-03 00:00:00Z', org_id => 'org_once', project_id => 'prj_once')$$, '22023', 'project_id', 'a contradictory choice');
SELECT is(ub_test.read_only($$SELECT usage_billing.close_billing_period(billing_id => 'once')$$), '25006', 'it writes: not in a READ ONLY transaction');

SELECT * FROM finish();
ROLLBACK;
