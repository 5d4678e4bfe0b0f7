-- account_usage_trend: its shape, every rule for its parameters, and the hours
-- of a real file, counted exactly whatever way they came.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

-- A whole hour as the trend shows it.
CREATE FUNCTION ub_test.shown(at timestamptz) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS".000Z"') $$;

CREATE FUNCTION ub_test.account(name text, created_at timestamptz DEFAULT '2024-01-01 00:00:00Z', last_billed_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$
	INSERT INTO usage_billing.billing_account (billing_id, org_id, created_at, last_billed_at)
	VALUES (name, 'org_' || name, created_at, last_billed_at)
$$;

-- A delivery with the given measurements; n is its id.
CREATE FUNCTION ub_test.deliver(account text, n bigint, at timestamptz, sessions bigint, measures jsonb DEFAULT '{}', resource text DEFAULT 'vod_streams')
RETURNS void
LANGUAGE sql AS $$
	SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(n), 'type', 'feature', 'source', resource,
		'amount', sessions, 'metadata', measures, 'created_at', ub_test.shown(at))), billing_id => account)
$$;

-- ---------------------------------------------------------------------------
-- The answer's shape.

DO $$ BEGIN
	PERFORM ub_test.account('shape');
	PERFORM ub_test.account('other');
	PERFORM ub_test.deliver('shape', 1, '2024-03-01 08:00:00Z', 3, '{"viewing_seconds": 45, "viewing_bytes": "20"}');
	PERFORM ub_test.deliver('shape', 2, '2024-03-01 08:59:59Z', 2, '{"viewing_seconds": "5", "egress_seconds": 7, "more": "of the caller''s own"}', 'transcoders');
	PERFORM ub_test.deliver('shape', 3, '2024-03-01 11:30:00Z', 0, '{"egress_bytes": "7066810", "egress_seconds_additional_targets": 345}', 'Transcoders');
	PERFORM ub_test.deliver('shape', 4, '2024-03-02 00:00:00Z', 1, '{"viewing_seconds": 1000, "viewing_bytes": 1000}');
	-- what no trend counts
	PERFORM ub_test.deliver('shape', 5, '2024-03-01 09:00:00Z', 1, '{"viewing_seconds": 1000}', 'images');
	PERFORM ub_test.deliver('other', 1, '2024-03-01 08:00:00Z', 1, '{"viewing_seconds": 1000}');
	INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at)
	VALUES ('shape', ub_test.id(6), 'credit', 1, 'vod_streams', '{"viewing_seconds": 1000}', '2024-03-01 08:00:00Z');
	PERFORM usage_billing.create_project(project_id => 'prj_shape', org_id => 'org_shape');
END $$;

CREATE FUNCTION ub_test.shape(include text DEFAULT NULL) RETURNS jsonb
LANGUAGE sql AS $$ SELECT usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', include => include, billing_id => 'shape') $$;

SELECT is(ub_test.shape('trend')::text, '{"account": {"id": "shape", "viewing_seconds": 50, "avg_viewing_seconds": 10, "viewing_bytes": 20, "egress_seconds": 7,
	"egress_seconds_additional_targets": 345, "egress_bytes": 7066810,
	"trend": [{"sampled_at": "2024-03-01T08:00:00.000Z", "viewing_seconds": 50, "viewing_bytes": 20},
		{"sampled_at": "2024-03-01T11:00:00.000Z", "viewing_seconds": 0, "viewing_bytes": 0}]},
	"limits": {"resources": ["transcoders", "vod_streams"], "from": "2024-03-01T00:00:00.000Z", "to": "2024-03-02T00:00:00.000Z"}}'::jsonb::text,
	'the answer has exactly the contract''s shape');
SELECT is(ub_test.shape(), ub_test.shape('trend') #- '{account,trend}', 'without include=trend there are no hours');
SELECT is(usage_billing.account_usage_trend("from" => '2024-04-01', "to" => '2024-04-02', include => 'trend', billing_id => 'shape')::text,
	'{"account": {"id": "shape", "viewing_seconds": 0, "avg_viewing_seconds": 0, "viewing_bytes": 0, "egress_seconds": 0,
	"egress_seconds_additional_targets": 0, "egress_bytes": 0, "trend": []},
	"limits": {"resources": ["transcoders", "vod_streams"], "from": "2024-04-01T00:00:00.000Z", "to": "2024-04-02T00:00:00.000Z"}}'::jsonb::text,
	'a range without usage has the same shape');
SELECT is(usage_billing.account_usage_trend("from" => '2024-03-01 08:00:00', "to" => '2024-03-02 00:00:00', billing_id => 'shape') #> '{account,viewing_seconds}',
	'50', 'from is included, to is not');
SELECT is(usage_billing.account_usage_trend("from" => '2024-03-01 09:00:00', "to" => '2024-03-02 01:00:00', billing_id => 'shape') #> '{account,viewing_seconds}',
	'1000', 'an hour is in the range or not');
SELECT is(usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', org_id => 'org_shape'), ub_test.shape(), 'by organisation');
SELECT is(usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', project_id => 'prj_shape'), ub_test.shape(), 'by project');
SET LOCAL request.jwt.claims = '{"org_id": "org_shape"}';
SELECT is(usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02'), ub_test.shape(), 'by token');
SELECT ub_test.fails($$SELECT usage_billing.account_usage_trend(billing_id => 'other')$$, '42501', NULL, 'a token opens no other organisation''s trend');
SELECT ub_test.fails($$SELECT usage_billing.account_usage_trend(billing_id => 'mArKeR')$$, '42501', NULL, 'nor one that does not exist');
SET LOCAL request.jwt.claims = '';
SELECT ub_test.fails($$SELECT usage_billing.account_usage_trend(billing_id => 'mArKeR')$$, 'PT404', 'mArKeR', 'an unknown account');
SELECT ub_test.fails($$SELECT usage_billing.account_usage_trend()$$, '22023', 'billing_id', 'no account');

-- The average.
DO $$ BEGIN PERFORM ub_test.account('average'); END $$;
CREATE TEMP TABLE average (n bigint, seconds numeric, sessions numeric, wanted numeric);
INSERT INTO average VALUES (1, 44925498, 17056, 2634), (2, 1, 2, 1), (3, 5, 2, 3), (4, 4, 3, 1), (5, 5, 3, 2), (6, 0, 5, 0), (7, 7, 0, 0), (8, 1, 3, 0),
	(9, 9223372036854775807, 2, 4611686018427387904), (10, 9223372036854775807, 1, 9223372036854775807), (11, 9223372036854775806, 9223372036854775807, 1);
DO $$ BEGIN
	PERFORM ub_test.deliver('average', n, timestamptz '2024-03-01 00:00:00Z' + n * interval '1 hour', sessions::bigint, jsonb_build_object('viewing_seconds', seconds)) FROM average;
END $$;
SELECT is(usage_billing.account_usage_trend("from" => ub_test.shown(at), "to" => ub_test.shown(at + interval '1 hour'), billing_id => 'average') #> '{account,avg_viewing_seconds}',
	to_jsonb(wanted), format('the average of %s seconds in %s sessions', seconds, sessions))
FROM average, LATERAL (SELECT timestamptz '2024-03-01 00:00:00Z' + n * interval '1 hour') h (at);
SELECT ub_test.fails($$SELECT usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', billing_id => 'average')$$, '22003', 'viewing_seconds',
	'a sum over several hours that is beyond bigint');

-- Measurements that aren't.
SELECT ub_test.fails(format($$SELECT ub_test.deliver('other', 98, '2024-03-01 08:00:00Z', 1, '{"%s": %s}')$$, m, v), '22023', m, format('%s is %s', m, v))
FROM unnest('{viewing_seconds,viewing_bytes,egress_seconds,egress_seconds_additional_targets,egress_bytes}'::text[]) m,
	unnest('{-1,"\"-1\"",1.5,"\"1.5\"","\"\"","\"mArKeR\"",9223372036854775808,"\"9223372036854775808\"",true,"[1]","{}"}'::text[]) v;
SELECT ub_test.fails(format($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata) VALUES ('other', ub_test.id(98), 'feature', 1, 'vod_streams', '{"%s": -1}')$$, m),
	'22023', m, format('%s is negative in a loaded row', m))
FROM unnest('{viewing_seconds,viewing_bytes,egress_seconds,egress_seconds_additional_targets,egress_bytes}'::text[]) m;

-- ---------------------------------------------------------------------------
-- from and to.

CREATE FUNCTION ub_test.range(account text, "from" text DEFAULT NULL, "to" text DEFAULT NULL) RETURNS text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', limits ->> 'from', limits ->> 'to')
	FROM (SELECT usage_billing.account_usage_trend("from" => "from", "to" => "to", billing_id => account) -> 'limits' AS limits) l
$$;

-- Each form of a time, as from and as to.
CREATE TEMP TABLE form (given text, wanted text);
INSERT INTO form VALUES
	('2024-03-01 10:00:00', '2024-03-01T10'), ('2024-03-01T10:00:00', '2024-03-01T10'), ('2024-03-01 10:00:00Z', '2024-03-01T10'),
	('2024-03-01T10:00:00Z', '2024-03-01T10'), ('2024-03-01T10:00:00.000Z', '2024-03-01T10'), ('2024-03-01', '2024-03-01T00'),
	('2024-03-01T10:00:00+00:00', '2024-03-01T10'), ('2024-03-01T10:00:00+02:00', '2024-03-01T08'), ('2024-03-01 10:00:00-05:00', '2024-03-01T15'),
	('2024-03-01T10:00:00+05:30', '2024-03-01T05'), ('2024-03-01T10:00:00-03:30', '2024-03-01T14'), ('2024-03-01T01:00:00+02:00', '2024-02-29T23'),
	('2024-03-01 10:00:01', '2024-03-01T11'), ('2024-03-01 10:01:00', '2024-03-01T11'), ('2024-03-01 10:59:59', '2024-03-01T11'),
	('2024-03-01T10:00:00.001Z', '2024-03-01T11'), ('2024-03-01T10:00:00.000001', '2024-03-01T11'), ('2024-02-28 23:00:01', '2024-02-29T00'),
	('2023-12-31 23:30:00', '2024-01-01T00'), ('1999-12-31 22:30:00', '1999-12-31T23'), ('1969-12-31 23:59:59', '1970-01-01T00'), ('0004-02-29', '0004-02-29T00');
SELECT is(ub_test.range('shape', "from" => given), concat(wanted, ':00:00.000Z ', ub_test.shown((wanted || ':00:00Z')::timestamptz + interval '90 days')), 'from = ' || given)
FROM form;
SELECT is(ub_test.range('other', "to" => given), concat(ub_test.shown((wanted || ':00:00Z')::timestamptz - interval '90 days'), ' ', wanted, ':00:00.000Z'), 'to = ' || given)
FROM form WHERE wanted < '2024-01-01';
SELECT is(ub_test.range('shape', "from" => '2024-01-01', "to" => given), concat('2024-01-01T00:00:00.000Z ', wanted, ':00:00.000Z'), 'to = ' || given || ' after a from')
FROM form WHERE wanted > '2024-01-02';
SELECT is(ub_test.range('shape', "to" => '9999-10-05'), '9999-07-07T00:00:00.000Z 9999-10-05T00:00:00.000Z', 'the last year');
SELECT is(ub_test.range('shape', (l ->> 'from'), (l ->> 'to')), concat_ws(' ', l ->> 'from', l ->> 'to'), 'the limits of an answer can be given back')
FROM (SELECT usage_billing.account_usage_trend(billing_id => 'shape') -> 'limits' AS l) t;

-- Accounts whose last billing dates stand in various places before the end of
-- today.
SELECT date_trunc('day', now(), 'UTC') + interval '1 day' AS eod \gset
SELECT set_config('ub_test.eod', :'eod', true) = :'eod' AS done \gset
CREATE FUNCTION ub_test.ago(t interval) RETURNS timestamptz
LANGUAGE sql STABLE AS $$ SELECT current_setting('ub_test.eod')::timestamptz - t $$;
DO $$ BEGIN
	PERFORM ub_test.account('fresh', now());
	PERFORM ub_test.account('new', ub_test.ago('10 days') + interval '17 minutes 33.25 seconds');
	PERFORM ub_test.account('old', ub_test.ago('400 days'));
	PERFORM ub_test.account('billed', ub_test.ago('400 days'), ub_test.ago('20 days 5 hours'));
	PERFORM ub_test.account('long_ago', ub_test.ago('400 days'), ub_test.ago('200 days'));
	PERFORM ub_test.account('edge', ub_test.ago('400 days'), ub_test.ago('90 days'));
	PERFORM ub_test.account('past_edge', ub_test.ago('400 days'), ub_test.ago('90 days 1 hour'));
END $$;

-- from, to and the limits as intervals before the end of today, or words.
CREATE FUNCTION ub_test.at(place text) RETURNS text
LANGUAGE sql STABLE AS $$ SELECT CASE WHEN place ~ '^last' THEN place ELSE ub_test.shown(ub_test.ago(place::interval)) END $$;
SELECT is(ub_test.range(account, ub_test.at("from"), ub_test.at("to")), concat_ws(' ', ub_test.at(wanted_from), ub_test.at(wanted_to)),
	format('%s: from %s, to %s', account, coalesce("from", 'absent'), coalesce("to", 'absent')))
FROM (VALUES
	('new', NULL, NULL, '10 days', '0'),
	('old', NULL, NULL, '90 days', '0'),
	('billed', NULL, NULL, '20 days 5 hours', '0'),
	('long_ago', NULL, NULL, '90 days', '0'),
	('edge', NULL, NULL, '90 days', '0'),
	('past_edge', NULL, NULL, '90 days', '0'),
	-- only from
	('billed', '5 days', NULL, '5 days', '0'),
	('billed', '30 days', NULL, '30 days', '0'),
	('billed', '90 days', NULL, '90 days', '0'),
	('billed', '90 days 1 hour', NULL, '90 days 1 hour', '1 hour'),
	('billed', '400 days', NULL, '400 days', '310 days'),
	('billed', '1 hour', NULL, '1 hour', '0'),
	-- only to
	('billed', NULL, '1 day', '20 days 5 hours', '1 day'),
	('billed', NULL, '20 days 4 hours', '20 days 5 hours', '20 days 4 hours'),
	('billed', NULL, '20 days 5 hours', '110 days 5 hours', '20 days 5 hours'),
	('billed', NULL, '20 days 6 hours', '110 days 6 hours', '20 days 6 hours'),
	('billed', NULL, '-69 days 5 hours', '20 days 5 hours', '-69 days 5 hours'),
	('billed', NULL, '-70 days', '20 days', '-70 days'),
	('long_ago', NULL, '50 days', '140 days', '50 days'),
	('long_ago', NULL, '110 days', '200 days', '110 days'),
	('long_ago', NULL, '111 days', '200 days', '111 days'),
	('new', NULL, '9 days', '10 days', '9 days'),
	('new', NULL, '10 days', '100 days', '10 days'),
	-- last_bill_date
	('billed', 'last_bill_date', NULL, '20 days 5 hours', '0'),
	('billed', 'last_bill_date', '1 day', '20 days 5 hours', '1 day'),
	('billed', '30 days', 'last_bill_date', '30 days', '20 days 5 hours'),
	('billed', NULL, 'last_bill_date', '110 days 5 hours', '20 days 5 hours'),
	('billed', '110 days 5 hours', 'last_bill_date', '110 days 5 hours', '20 days 5 hours'),
	('long_ago', 'last_bill_date', NULL, '200 days', '110 days'),
	('long_ago', 'last_bill_date', '110 days', '200 days', '110 days'),
	('new', 'last_bill_date', NULL, '10 days', '0'),
	('new', '30 days', 'last_bill_date', '30 days', '10 days'),
	('new', NULL, 'last_bill_date', '100 days', '10 days')
) AS c (account, "from", "to", wanted_from, wanted_to);
SELECT is(ub_test.range('fresh'), concat_ws(' ', ub_test.shown(date_trunc('hour', now(), 'UTC')), ub_test.shown(:'eod')), 'an account made in this hour');

-- A range is 90 days at most, counted after rounding, and begins before it ends.
SELECT is(ub_test.range('shape', "from", "to"), wanted, format('%s to %s is allowed', "from", "to"))
FROM (VALUES ('2024-01-01', '2024-03-31', '2024-01-01T00:00:00.000Z 2024-03-31T00:00:00.000Z'),
	('2024-01-01 05:00:00', '2024-03-31 05:00:00', '2024-01-01T05:00:00.000Z 2024-03-31T05:00:00.000Z'),
	('2023-12-31 23:00:01', '2024-03-31', '2024-01-01T00:00:00.000Z 2024-03-31T00:00:00.000Z'),
	('2024-01-01', '2024-03-30 23:00:01', '2024-01-01T00:00:00.000Z 2024-03-31T00:00:00.000Z'),
	('2024-01-01T00:00:00-04:00', '2024-03-31 04:00:00', '2024-01-01T04:00:00.000Z 2024-03-31T04:00:00.000Z'),
	('2024-01-01', '2024-01-01 01:00:00', '2024-01-01T00:00:00.000Z 2024-01-01T01:00:00.000Z'),
	('2024-01-01', '2024-01-01 00:00:01', '2024-01-01T00:00:00.000Z 2024-01-01T01:00:00.000Z')) AS c ("from", "to", wanted);
SELECT ub_test.fails(format('SELECT ub_test.range(%L, %L, %L)', account, ub_test.at("from"), ub_test.at("to")), '22023', detail, format('%s: from %s, to %s is refused', account, "from", "to"))
FROM (VALUES ('billed', '90 days 1 hour', '0', 'to.*90 days'), ('billed', '400 days', '0', 'to.*90 days'), ('long_ago', 'last_bill_date', '109 days 23 hours', 'to.*90 days'),
	('billed', '110 days 6 hours', 'last_bill_date', 'to.*90 days'), ('billed', '5 days', '5 days', 'from.*to'), ('billed', '4 days', '5 days', 'from.*to'),
	('billed', 'last_bill_date', 'last_bill_date', 'from.*to'), ('billed', '10 days', 'last_bill_date', 'from.*to'), ('billed', 'last_bill_date', '21 days', 'from.*to'),
	('billed', '0', NULL, 'from.*to'), ('billed', '-1 days', NULL, 'from.*to')) AS c (account, "from", "to", detail);
SELECT ub_test.fails(format('SELECT ub_test.range(%L, %L, %L)', 'shape', "from", "to"), '22023', detail, format('%s to %s is refused', "from", "to"))
FROM (VALUES ('2024-01-01', '2024-03-31 01:00:00', 'to.*90 days'), ('2024-01-01', '2024-03-31 00:00:01', 'to.*90 days'), ('2024-01-01', '2099-01-01', 'to.*90 days'),
	('2024-01-01 10:00:01', '2024-01-01 11:00:00', 'from.*to'), ('2024-01-01 10:00:01', '2024-01-01 10:30:00', 'from.*to'), ('2024-01-01', '2024-01-01T00:00:00+01:00', 'from.*to')) AS c ("from", "to", detail);

-- A last billing date that was loaded may lie anywhere.
INSERT INTO usage_billing.billing_account (billing_id, org_id, last_billed_at) VALUES ('far_ahead', 'org_ahead', '294276-12-31 23:59:59Z'), ('far_back', 'org_back', '4714-11-24 00:00:00Z BC');
SELECT ub_test.fails(format('SELECT ub_test.range(%L, %L, %L)', account, "from", "to"), '22023', detail, format('%s: %s to %s', account, "from", "to"))
FROM (VALUES ('far_ahead', '0001-01-01', 'last_bill_date', '^to .*180 days'), ('far_ahead', 'last_bill_date', NULL, '^from .*180 days'), ('far_back', NULL, 'last_bill_date', '^to .*180 days'),
	('far_back', 'last_bill_date', '9999-12-31', '^from .*180 days'), ('shape', '0001-01-01', '9999-12-31', 'to.*90 days')) AS c (account, "from", "to", detail);
SELECT is(ub_test.range(account), ub_test.range('long_ago'), account || ': without from and to, the last 90 days') FROM unnest('{far_ahead,far_back}'::text[]) account;

-- What is no time.
SELECT ub_test.fails(format('SELECT usage_billing.account_usage_trend("%s" => %L, billing_id => %L)', parameter, given, 'shape'), '22007',
	'^' || parameter || ' .*YYYY-MM-DD HH:00:00.*last_bill_date', format('%s = %s', parameter, given))
FROM unnest('{from,to}'::text[]) parameter, (VALUES ('mArKeR'), ('now'), ('yesterday'), ('infinity'), ('-infinity'), ('epoch'), ('1709287200'), ('2024'), ('2024-03'), ('20240301'), ('2024-3-1'),
	('2024-13-01'), ('2024-02-30'), ('2023-02-29'), ('2024-00-01'), ('2024-01-00'), ('0000-01-01'), ('10000-01-01'), ('01/03/2024'), ('2024-03-01 10'), ('2024-03-01 10:00'),
	('2024-03-01 24:00:00'), ('2024-03-01 10:60:00'), ('2024-03-01 10:00:61'), ('2024-03-01  10:00:00'), (' 2024-03-01'), ('2024-03-01 '), ('2024-03-01Z'),
	('2024-03-01 10:00:00 Z'), ('2024-03-01 10:00:00 PM'), ('2024-03-01 10:00:00 UTC'), ('2024-03-01T10:00:00 Europe/Berlin'), ('2024-03-01T10:00:00+2'),
	('2024-03-01T10:00:00+24:00'), ('2024-03-01T10:00:00,5Z'), ('2024-03-01T10:00:00.Z'), ('Last_Bill_Date'), ('last_bill_date '), ('2024-03-01''; mArKeR')) AS c (given);

-- ---------------------------------------------------------------------------
-- filter and include.

DO $$ BEGIN
	PERFORM ub_test.account('filter');
	PERFORM ub_test.deliver('filter', 1, '2024-03-01 08:00:00Z', 1, '{"viewing_seconds": 1}', 'transcoders');
	PERFORM ub_test.deliver('filter', 2, '2024-03-01 09:00:00Z', 1, '{"viewing_seconds": 2}', 'vod_streams');
END $$;
CREATE FUNCTION ub_test.filtered(filter jsonb) RETURNS text
LANGUAGE sql AS $$
	SELECT format('%s %s %s', t #> '{limits,resources}', t #> '{account,viewing_seconds}',
		(SELECT array_agg(h ->> 'viewing_seconds') FROM jsonb_array_elements(t #> '{account,trend}') h))
	FROM (SELECT usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', filter => filter, include => 'trend', billing_id => 'filter') AS t) a
$$;
SELECT is(ub_test.filtered(filter::jsonb), wanted, 'filter: ' || coalesce(filter, 'none'))
FROM (VALUES
	(NULL, '["transcoders", "vod_streams"] 3 {1,2}'),
	('[{"field": "resource", "eq": "transcoders"}]', '["transcoders"] 1 {1}'),
	('[{"field": "resource", "eq": "vod_streams"}]', '["vod_streams"] 2 {2}'),
	('[{"eq": "vod_streams", "field": "resource"}]', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "in": "transcoders,vod_streams"}]', '["transcoders", "vod_streams"] 3 {1,2}'),
	('[{"field": "resource", "in": "vod_streams,transcoders"}]', '["transcoders", "vod_streams"] 3 {1,2}'),
	('[{"field": "resource", "in": "vod_streams"}]', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "in": "vod_streams,vod_streams"}]', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "in": ["transcoders", "vod_streams"]}]', '["transcoders", "vod_streams"] 3 {1,2}'),
	('[{"field": "resource", "in": ["transcoders"]}]', '["transcoders"] 1 {1}'),
	('{"0": {"field": "resource", "eq": "vod_streams"}}', '["vod_streams"] 2 {2}'),
	('{"0": {"field": "resource", "in": "transcoders,vod_streams"}, "1": {"field": "resource", "eq": "transcoders"}}', '["transcoders"] 1 {1}'),
	('{"10": {"field": "resource", "eq": "vod_streams"}, "2": {"field": "resource", "in": ["vod_streams"]}}', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "in": "transcoders,vod_streams"}, {"field": "resource", "eq": "vod_streams"}]', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "eq": "vod_streams"}, {"field": "resource", "in": "transcoders,vod_streams"}]', '["vod_streams"] 2 {2}'),
	('[{"field": "resource", "eq": "vod_streams"}, {"field": "resource", "eq": "transcoders"}]', '[] 0 ')
) AS c (filter, wanted);
SELECT ub_test.fails(format('SELECT ub_test.filtered(%L)', filter), '22023', '^filter[^ ]* .*' || detail, 'filter: ' || filter)
FROM (VALUES
	('[{"field": "mArKeR", "eq": "vod_streams"}]', 'mArKeR.*resource'), ('[{"field": "Resource", "eq": "vod_streams"}]', 'resource'),
	('[{"field": "", "eq": "vod_streams"}]', 'resource'), ('[{"field": 1, "eq": "vod_streams"}]', ''), ('[{"field": null, "eq": "vod_streams"}]', ''),
	('[{"eq": "vod_streams"}]', 'field'), ('[{"field": "resource"}]', 'eq.*in'), ('[{}]', 'field'),
	('[{"field": "resource", "mArKeR": "vod_streams"}]', 'mArKeR.*eq.*in'), ('[{"field": "resource", "ne": "vod_streams"}]', 'ne.*eq.*in'),
	('[{"field": "resource", "EQ": "vod_streams"}]', 'eq.*in'), ('[{"field": "resource", "eq": "vod_streams", "like": "x"}]', 'like.*eq.*in'),
	('[{"field": "resource", "eq": "mArKeR"}]', 'mArKeR.*transcoders.*vod_streams'), ('[{"field": "resource", "eq": ""}]', 'transcoders.*vod_streams'),
	('[{"field": "resource", "eq": "Vod_streams"}]', 'transcoders.*vod_streams'), ('[{"field": "resource", "eq": "transcoders,vod_streams"}]', 'transcoders.*vod_streams'),
	('[{"field": "resource", "in": "transcoders,mArKeR"}]', 'mArKeR.*transcoders.*vod_streams'), ('[{"field": "resource", "in": "mArKeR,transcoders"}]', 'mArKeR.*transcoders.*vod_streams'),
	('[{"field": "resource", "in": "transcoders,"}]', 'transcoders.*vod_streams'), ('[{"field": "resource", "in": ""}]', 'transcoders.*vod_streams'),
	('[{"field": "resource", "in": ["transcoders", "mArKeR"]}]', 'mArKeR.*transcoders.*vod_streams'), ('[{"field": "resource", "in": ["transcoders,vod_streams"]}]', 'transcoders.*vod_streams'),
	('[{"field": "resource", "in": ["transcoders", 1]}]', ''), ('[{"field": "resource", "in": ["transcoders", null]}]', ''), ('[{"field": "resource", "in": [["transcoders"]]}]', ''),
	('[{"field": "resource", "in": {"0": "transcoders"}}]', ''), ('[{"field": "resource", "in": 1}]', ''), ('[{"field": "resource", "in": null}]', ''),
	('[{"field": "resource", "eq": ["transcoders"]}]', ''), ('[{"field": "resource", "eq": 1}]', ''), ('[{"field": "resource", "eq": null}]', ''), ('[{"field": "resource", "eq": true}]', ''),
	('["vod_streams"]', ''), ('[1]', ''), ('[null]', ''), ('[[{"field": "resource", "eq": "vod_streams"}]]', ''),
	('{"field": "resource", "eq": "vod_streams"}', ''), ('{"mArKeR": {"field": "resource", "eq": "vod_streams"}}', 'mArKeR'), ('{"": {"field": "resource", "eq": "vod_streams"}}', ''),
	('{"0": "vod_streams"}', ''), ('{"0": {"field": "resource", "eq": "vod_streams"}, "1": {"field": "resource", "eq": "mArKeR"}}', 'mArKeR'),
	('"vod_streams"', ''), ('1', ''), ('true', ''),
	('[{"field": "resource", "eq": "vod_streams"}, {"field": "resource", "eq": "mArKeR"}]', 'mArKeR')
) AS c (filter, detail);

-- The detail says which condition, and what of it.
SELECT ub_test.fails(format('SELECT ub_test.filtered(%L)', filter), '22023', detail, 'where: ' || filter)
FROM (VALUES
	('[1]', '^filter\[0\] is a number'), ('[{"field": "resource", "eq": "vod_streams"}, {"field": 1}]', '^filter\[1\]\.field is a number'),
	('[{"field": "resource", "eq": null}]', '^filter\[0\]\.eq is null'), ('[{"field": "resource", "in": ["transcoders", 1]}]', '^filter\[0\]\.in\[1\] is a number'),
	('{"3": {"field": "resource", "in": 7}}', '^filter\[3\]\.in is a number'), (format('{"%s": 1}', repeat('7', 200)), '^filter\[7{20}\] is a number')
) AS c (filter, detail);

SELECT ub_test.fails(format('SELECT ub_test.shape(%L)', include), '22023', '^include .*trend', 'include: ' || include)
FROM (VALUES ('mArKeR'), ('Trend'), ('trends'), ('tren'), ('trend,mArKeR'), ('mArKeR,trend'), ('trend;'), ('limits')) AS c (include);

-- A revert that says itself what it takes back.
SELECT ub_test.fails(format('INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, usage_type, usage_source, usage_at, usage_events, %s) VALUES (''other'', ub_test.id(97), 1, ''feature'', ''vod_streams'', now(), 0, -5)', m),
	'22023', format('^usage_revert.%s is -5', m), format('%s is negative in a loaded revert', m))
FROM unnest('{viewing_seconds,viewing_bytes,egress_seconds,egress_seconds_additional_targets,egress_bytes}'::text[]) m;

-- ---------------------------------------------------------------------------
-- What the session is set to never matters.

CREATE FUNCTION ub_test.answers(name text DEFAULT NULL, setting text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
	before text;
	answers jsonb;
BEGIN
	IF name IS NOT NULL THEN
		before := current_setting(name);
		PERFORM set_config(name, setting, true);
	END IF;
	SELECT jsonb_agg(usage_billing.account_usage_trend("from" => f, "to" => t, include => 'trend', billing_id => account)) INTO answers
	FROM unnest('{shape,fresh,new,billed,long_ago}'::text[]) account,
		(VALUES (NULL, NULL), ('2024-03-01', '2024-03-02'), ('2024-03-01 08:00:00', '2024-03-01T09:00:00.5'), (NULL, '2024-04-30'), ('last_bill_date', NULL), ('2024-02-29T22:30:00-01:00', '2024-03-01 09:00:00')) AS c (f, t);
	IF name IS NOT NULL THEN
		PERFORM set_config(name, before, true);
	END IF;
	RETURN answers;
END $$;
SELECT is(ub_test.answers(name, setting), ub_test.answers(), format('%s = %s changes nothing', name, setting))
FROM (VALUES ('TimeZone', 'Asia/Kathmandu'), ('TimeZone', 'Pacific/Kiritimati'), ('TimeZone', 'Pacific/Pago_Pago'), ('TimeZone', 'Europe/Berlin'), ('TimeZone', 'America/St_Johns'),
	('TimeZone', '<+0020>-00:20'), ('DateStyle', 'German'), ('DateStyle', 'SQL, DMY'), ('IntervalStyle', 'sql_standard')) AS c (name, setting);

-- It only reads.
SELECT is(provolatile::text, 's', 'account_usage_trend is STABLE') FROM pg_proc WHERE oid = 'usage_billing.account_usage_trend'::regproc;
CREATE FUNCTION ub_test.read_only(call text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('transaction_read_only', 'on', true);
	EXECUTE call;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE SQLSTATE WHEN 'UNDO1' THEN '00000' ELSE SQLSTATE END;
END $$;
SELECT is(ub_test.read_only($$SELECT ub_test.answers(), ub_test.shape('trend')$$), '00000', 'and answers in a READ ONLY transaction');

-- ---------------------------------------------------------------------------
-- Late usage and reverts change the hour of the original usage, folded or not.

DO $$ BEGIN
	PERFORM ub_test.account('late');
	PERFORM ub_test.deliver('late', n, timestamptz '2024-03-01 00:30:00Z' + n * interval '1 hour', 10, jsonb_build_object('viewing_seconds', 100 * n, 'viewing_bytes', 1000, 'egress_bytes', 7))
	FROM generate_series(1, 5) n;
	PERFORM usage_billing.run_maintenance();
END $$;
-- hour: viewing_seconds, then the sums of seconds, egress bytes and the average
CREATE FUNCTION ub_test.late() RETURNS text
LANGUAGE sql AS $$
	SELECT concat_ws(' ', (SELECT string_agg(format('%s:%s', substr(h ->> 'sampled_at', 12, 2), h ->> 'viewing_seconds'), ' ' ORDER BY n)
			FROM jsonb_array_elements(t -> 'trend') WITH ORDINALITY a (h, n)), '=', t -> 'viewing_seconds', t -> 'egress_bytes', t -> 'avg_viewing_seconds')
	FROM (SELECT usage_billing.account_usage_trend("from" => '2024-03-01', "to" => '2024-03-02', include => 'trend', billing_id => 'late') -> 'account' AS t) a
$$;
CREATE FUNCTION ub_test.late_after(call text) RETURNS text
LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT ' || call; RETURN ub_test.late(); END $$;
SELECT is(ub_test.late(), '01:100 02:200 03:300 04:400 05:500 = 1500 35 30', 'before');
SELECT is(ub_test.late_after($$ub_test.deliver('late', 11, '2024-03-01 02:00:00Z', 10, '{"viewing_seconds": 5}')$$), '01:100 02:205 03:300 04:400 05:500 = 1505 35 25', 'late usage counts in its hour');
SELECT is(ub_test.late_after($$ub_test.deliver('late', 12, '2024-03-01 00:59:59Z', 0, '{"viewing_seconds": 1}')$$), '00:1 01:100 02:205 03:300 04:400 05:500 = 1506 35 25', 'also where there was none');
SELECT is(ub_test.late_after('usage_billing.run_maintenance()'), '00:1 01:100 02:205 03:300 04:400 05:500 = 1506 35 25', 'folded, it is the same');
SELECT is(ub_test.late_after($$usage_billing.revert_usage(ub_test.id(3), billing_id => 'late')$$), '00:1 01:100 02:205 04:400 05:500 = 1206 28 24', 'a revert empties the hour of its usage');
SELECT is(ub_test.late_after($$usage_billing.revert_usage(ub_test.id(4), 3, billing_id => 'late')$$), '00:1 01:100 02:205 04:280 05:500 = 1086 26 23', 'a partial one takes its share: floor(400 * 3 / 10), floor(7 * 3 / 10)');
SELECT is(ub_test.late_after($$usage_billing.revert_usage(ub_test.id(2), billing_id => 'late')$$), '00:1 01:100 02:5 04:280 05:500 = 886 19 24', 'another usage of the hour stays');
SELECT is(ub_test.late_after('usage_billing.run_maintenance()'), '00:1 01:100 02:5 04:280 05:500 = 886 19 24', 'folded, they are the same');
SELECT is(ub_test.books(), '', 'the books agree with the facts');

-- ---------------------------------------------------------------------------
-- The real file: one delivery a request.

\set skip `test -r "${USAGE_BILLING_DATA:-../shared/data}/http_delivery.csv" && echo false || echo true`
\if :skip
SELECT skip('there is no http_delivery.csv in the directory that USAGE_BILLING_DATA names', 1);
\else
CREATE TEMP TABLE request (line int GENERATED ALWAYS AS IDENTITY, requested_at timestamptz, bytes bigint);
\copy request (requested_at, bytes) FROM PROGRAM 'cat "${USAGE_BILLING_DATA:-../shared/data}/http_delivery.csv"' (FORMAT csv, HEADER)
SELECT is((count(*), sum(bytes)), (10000::bigint, 2747282740::numeric), 'the file is the one that the figures are known of') FROM request;

-- What the file says of each hour, if reverted parts of each request were
-- taken back.
CREATE FUNCTION ub_test.wanted(parts int, reverted int[]) RETURNS jsonb
LANGUAGE sql AS $$
	WITH left_over AS (
		SELECT date_trunc('hour', requested_at, 'UTC') AS hour, parts - back AS amount, (back < parts)::int AS events,
			bytes - div(bytes::numeric * back, parts) AS viewing_bytes, line - div(line::numeric * back, parts) AS viewing_seconds
		FROM (SELECT r.*, reverted[line % cardinality(reverted) + 1] AS back FROM request r) b
	), hours AS (
		SELECT hour, sum(amount) AS amount, sum(events) AS events, sum(viewing_bytes) AS viewing_bytes, sum(viewing_seconds) AS viewing_seconds
		FROM left_over GROUP BY hour HAVING sum(events) > 0
	)
	SELECT jsonb_build_object('bytes', sum(viewing_bytes), 'seconds', sum(viewing_seconds),
		'average', round(sum(viewing_seconds) / sum(amount)),
		'trend', jsonb_agg(jsonb_build_object('sampled_at', ub_test.shown(hour), 'viewing_bytes', viewing_bytes, 'viewing_seconds', viewing_seconds) ORDER BY hour),
		'series', jsonb_agg(jsonb_build_array(ub_test.shown(hour), events, amount) ORDER BY hour))
	FROM hours
$$;

-- The same from the API.
CREATE FUNCTION ub_test.counted(account text) RETURNS jsonb
LANGUAGE sql AS $$
	SELECT jsonb_build_object('bytes', t -> 'viewing_bytes', 'seconds', t -> 'viewing_seconds', 'average', t -> 'avg_viewing_seconds', 'trend', t -> 'trend',
		'series', (SELECT jsonb_agg(jsonb_build_array(ub_test.shown(bucket_start), events, amount) ORDER BY bucket_start)
			FROM usage_billing.usage_series("from" => '2015-05-17 00:00:00Z', "to" => '2015-05-21 00:00:00Z', billing_id => account)))
	FROM (SELECT usage_billing.account_usage_trend("from" => '2015-05-17', "to" => '2015-05-21', include => 'trend', billing_id => account) -> 'account' AS t) a
$$;

-- viewing_seconds is the number of the line: a second sum, with nothing that
-- is easy to divide.
CREATE TEMP VIEW event AS
SELECT line, ub_test.id(line) AS id, requested_at,
	jsonb_build_object('viewing_bytes', bytes, 'viewing_seconds', line::text) AS measures FROM request;

DO $$ BEGIN PERFORM ub_test.account(name, '2015-05-01 00:00:00Z') FROM unnest('{whole,calls,pieces,shares}'::text[]) name; END $$;

-- Whole, by COPY.
\copy usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at) FROM PROGRAM 'awk -F, ''NR > 1 { printf "whole|00000000-0000-4000-8000-%012d|feature|1|VOD_Streams|{\"viewing_seconds\": %d, \"viewing_bytes\": %s}|%s\n", NR - 1, NR - 1, $2, $1 }'' "${USAGE_BILLING_DATA:-../shared/data}/http_delivery.csv"' (FORMAT csv, DELIMITER '|', QUOTE E'\x01')
SELECT is(ub_test.counted('whole'), ub_test.wanted(1, '{0}'), 'the file, whole: every hour is exact');
SELECT is(usage_billing.account_usage_trend("from" => '2015-05-17', "to" => '2015-05-21', billing_id => 'whole') #>> '{account,viewing_bytes}',
	'2747282740', 'and so is the sum');
SELECT isnt((SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id = 'whole'), 0::bigint, 'before anything is folded');
DO $$ BEGIN PERFORM usage_billing.run_maintenance(); END $$;
SELECT is((SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id = 'whole'), 0::bigint, 'all of it can be folded');
SELECT is(ub_test.counted('whole'), ub_test.wanted(1, '{0}'), 'the file, whole and folded: every hour is exact');

-- In pieces: a hundred statements each of which has rows of every hour, with a
-- fold after each tenth, and ten calls in the file's order, with a fold after
-- each third. Of the account "shares" a request has three sessions.
DO $$ BEGIN
	FOR n IN 0 .. 99 LOOP
		INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, metadata, created_at)
		SELECT account, id, 'feature', 'vod_streams', CASE account WHEN 'shares' THEN 3 ELSE 1 END, measures, requested_at
		FROM event, unnest('{pieces,shares}'::text[]) account WHERE line % 100 = n;
		IF n % 10 = 4 THEN
			PERFORM usage_billing.run_maintenance();
		END IF;
	END LOOP;
END $$;
CREATE FUNCTION ub_test.is_half_folded(account text) RETURNS text
LANGUAGE sql AS $$
	SELECT ok(EXISTS (SELECT FROM usage_billing.usage_delta WHERE billing_id = account AND hour > '-infinity')
		AND EXISTS (SELECT FROM usage_billing.usage_hourly WHERE billing_id = account), format('a part of it (%s) is folded and a part is not', account))
$$;
SELECT ub_test.is_half_folded('pieces');
SELECT is(ub_test.counted('pieces'), ub_test.wanted(1, '{0}'), 'the file, in a hundred pieces: every hour is exact');
SELECT is(ub_test.counted('shares'), ub_test.wanted(3, '{0}'), 'the same with three sessions a request');
DO $$
DECLARE
	usages jsonb;
BEGIN
	FOR n IN 0 .. 9 LOOP
		SELECT jsonb_agg(jsonb_build_object('id', id, 'type', 'feature', 'source', 'vod_streams', 'amount', 1, 'metadata', measures,
			'created_at', to_char(requested_at AT TIME ZONE 'Asia/Kolkata', 'YYYY-MM-DD"T"HH24:MI:SS"+05:30"')) ORDER BY line)
		INTO usages FROM event WHERE (line - 1) / 1000 = n;
		PERFORM usage_billing.create_usage(usages, billing_id => 'calls');
		IF n % 3 = 2 THEN
			PERFORM usage_billing.run_maintenance();
		END IF;
	END LOOP;
END $$;
SELECT ub_test.is_half_folded('calls');
SELECT is(ub_test.counted('calls'), ub_test.wanted(1, '{0}'), 'the file, in ten calls: every hour is exact');

-- Loaded again: nothing changes.
DO $$ BEGIN
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, metadata, created_at)
	SELECT 'pieces', id, 'feature', 'vod_streams', 1, measures, requested_at FROM event;
END $$;
SELECT is(ub_test.counted('pieces'), ub_test.wanted(1, '{0}'), 'the file, loaded again: nothing is counted twice');

-- Whole requests reverted, every third, by calls and by INSERT.
DO $$ BEGIN
	PERFORM usage_billing.revert_usage(id, billing_id => 'calls') FROM event WHERE line % 3 = 2 AND line <= 3000;
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount)
	SELECT account, id, 1 FROM event, unnest('{whole,calls,pieces}'::text[]) account WHERE line % 3 = 2 AND (account <> 'calls' OR line > 3000);
END $$;
SELECT is(ub_test.counted(account), ub_test.wanted(1, '{0,0,1}'), format('a third of the file reverted (%s): every hour is exact', account))
FROM unnest('{whole,calls,pieces}'::text[]) account;

-- Partial reverts: 0, 1, 2 or 3 of 3 sessions, one at a time, with a fold in
-- between; those of the first 1,000 lines in calls, the others loaded. What is
-- back is floor(measurement x reverted so far / amount).
SET LOCAL usage_billing.revert_once = off;
CREATE FUNCTION ub_test.revert_part(part int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM usage_billing.revert_usage(id, 1, billing_id => 'shares') FROM event WHERE line % 4 >= part AND line <= 1000;
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, amount)
	SELECT 'shares', id, part, 1 FROM event WHERE line % 4 >= part AND line > 1000;
END $$;
DO $$ BEGIN PERFORM ub_test.revert_part(1); END $$;
SELECT is(ub_test.counted('shares'), ub_test.wanted(3, '{0,1,1,1}'), 'a session of three reverted: every hour is exact');
DO $$ BEGIN PERFORM usage_billing.run_maintenance(), ub_test.revert_part(2); END $$;
SELECT is(ub_test.counted('shares'), ub_test.wanted(3, '{0,1,2,2}'), 'two sessions of three reverted: every hour is exact');
DO $$ BEGIN PERFORM ub_test.revert_part(3); END $$;
SELECT is(ub_test.counted('shares'), ub_test.wanted(3, '{0,1,2,3}'), 'all that was left reverted: every hour is exact');
SET LOCAL usage_billing.revert_once = on;
DO $$ BEGIN PERFORM usage_billing.run_maintenance(); END $$;
SELECT is(ub_test.counted(account), ub_test.wanted(parts, back), format('all folded (%s): every hour is exact', account))
FROM (VALUES ('whole', 1, '{0,0,1}'::int[]), ('calls', 1, '{0,0,1}'), ('pieces', 1, '{0,0,1}'), ('shares', 3, '{0,1,2,3}')) AS c (account, parts, back);
SELECT is(ub_test.books(), '', 'the books agree with the facts');
\endif

SELECT * FROM finish();
ROLLBACK;
