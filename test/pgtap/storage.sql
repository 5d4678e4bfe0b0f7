-- Storage: tracked tables, refresh, recount, snapshots and limits; what they
-- refuse, and who may ask for what. Each answer is compared with a plain count.
\set QUIET on
BEGIN;
\ir common/helpers.sql
\ir cases/storage_helpers.sql
SELECT no_plan();

-- What is there.
SELECT is((SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = type::regclass AND attnum > 0), columns, type || ' has the columns of the contract')
FROM (VALUES ('usage_billing.storage_usage', 'org_id text, snapshot_date date, last_updated timestamp with time zone, project_count bigint, image_file_count bigint, '
		'image_storage_bytes bigint, video_file_count bigint, video_storage_bytes bigint, total_file_count bigint, total_storage_bytes bigint, '
		'total_video_minutes text, max_image_count bigint, max_video_count bigint, max_project_count bigint'),
	('usage_billing.stored_file', 'file_id text, org_id text, project_id text, kind text, bytes bigint, duration_seconds numeric, created_at timestamp with time zone'),
	('usage_billing.storage_limit', 'org_id text, max_image_count bigint, max_video_count bigint, max_project_count bigint')) AS c (type, columns);
SELECT is(ub_test.triggers('usage_billing.stored_file') - 1, 4::bigint, 'stored_file is tracked from the start');
CREATE TEMP TABLE api (name text, volatility text, arguments text);
INSERT INTO api VALUES
	('track_storage', 'v', 'relation regclass, org_column name, bytes_column name, kind text, kind_column name, duration_column name'), ('untrack_storage', 'v', 'relation regclass'),
	('refresh_storage_usage', 'v', 'org_id text'), ('recount_storage_usage', 'v', 'org_id text'), ('get_storage_usage', 's', 'org_id text'),
	('get_storage_usage_history', 's', 'days integer, org_id text'), ('set_storage_limits', 'v', 'org_id text, max_image_count bigint, max_video_count bigint, max_project_count bigint');
SELECT is((p.provolatile::text, regexp_replace(pg_get_function_arguments(p.oid), ' DEFAULT [^,]*', '', 'g')), (volatility, arguments), format('%s: volatility and arguments', name))
	FROM api LEFT JOIN pg_proc p ON proname = name AND pronamespace = 'usage_billing'::regnamespace;
SELECT set_eq($$SELECT name FROM api JOIN pg_proc p ON proname = name AND pronamespace = 'usage_billing'::regnamespace
	WHERE NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c ~ '^search_path=.*(^|[=, ])pg_temp$')$$, ARRAY[]::text[], 'each has a search_path that ends with pg_temp');
SELECT set_eq($$SELECT d FROM (
		SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class WHERE relnamespace = 'usage_billing'::regnamespace AND relname ~ '^stor' AND relkind IN ('r', 'c')
			AND relname <> 'storage_usage'
		UNION ALL SELECT typname::text, obj_description(oid, 'pg_type') FROM pg_type WHERE typnamespace = 'usage_billing'::regnamespace AND typname = 'storage_usage'
		UNION ALL SELECT c.relname || '.' || attname, col_description(attrelid, attnum) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
			WHERE relnamespace = 'usage_billing'::regnamespace AND relname ~ '^stor' AND relkind IN ('r', 'c') AND attnum > 0 AND NOT attisdropped
		UNION ALL SELECT proname::text, obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'usage_billing'::regnamespace AND proname ~ 'stor|snapshot|check_ids') AS c (d, comment)
	WHERE coalesce(comment, '') = '' OR length(split_part(comment, E'\n', 1)) > 160$$, ARRAY[]::text[], 'everything of storage has a comment whose first line is a summary');

\ir cases/storage_changes.sql
\ir cases/storage_tables.sql
\ir cases/storage_rights.sql
\ir cases/storage_refusals.sql

-- An organisation from its first file on.
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds) VALUES
	('a1', 'first', 'image', 100, 5), ('a2', 'first', 'image', 23, NULL), ('a3', 'first', 'video', 1000, 725), ('a4', 'first', 'video', 500, 25.2),
	('a5', 'first', 'text', 7, 9), ('a6', 'first', 'Image', 1, 9), ('a7', 'first', 'video ', 2, 9);
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('first')), 'first: image 2/123, video 2/1500, all 7/1633, 12.50 min', 'a refresh counts by kind');
SELECT is(jsonb_build_object('project_count', u.project_count, 'limits', ARRAY[u.max_image_count, u.max_video_count, u.max_project_count],
		'today', u.snapshot_date BETWEEN (now() AT TIME ZONE 'UTC')::date AND (clock_timestamp() AT TIME ZONE 'UTC')::date, 'now', u.last_updated BETWEEN now() AND clock_timestamp()),
	'{"project_count": 0, "limits": [null, null, null], "today": true, "now": true}', 'no project, no limits, today (UTC), now')
	FROM usage_billing.refresh_storage_usage('first') u;
CREATE TEMP TABLE refreshed AS SELECT r.* FROM usage_billing.refresh_storage_usage('first') r;
SELECT is(usage_billing.get_storage_usage('first')::text, r::text, 'get_storage_usage gives what the last refresh gave') FROM refreshed r;
DO $$ BEGIN
	PERFORM usage_billing.create_project('prj-1', 'first'), usage_billing.create_project('prj-2', 'first'), usage_billing.create_project('prj-3', 'second');
	PERFORM usage_billing.set_storage_limits('first', 10, 20, 30);
END $$;
UPDATE usage_billing.stored_file SET bytes = 200 WHERE file_id = 'a1';
SELECT is(ub_test.line(usage_billing.get_storage_usage('first')), 'first: image 2/123, video 2/1500, all 7/1633, 12.50 min', 'get_storage_usage gives the last snapshot, not what came after it');
SELECT is(ARRAY[u.project_count, u.image_storage_bytes, u.max_image_count, u.max_video_count, u.max_project_count], '{2,223,10,20,30}', 'projects and limits')
	FROM usage_billing.refresh_storage_usage('first') u;
SELECT is((SELECT count(*) FROM usage_billing.storage_snapshot WHERE org_id = 'first'), 1::bigint, 'one snapshot a day');
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('second')), 'second: image 0/0, video 0/0, all 0/0, 0.00 min', 'an organisation with no more than a project');
SELECT is(pg_typeof((usage_billing.get_storage_usage('first')).total_video_minutes)::text, 'text', 'minutes are text');

-- Minutes: two decimals, rounded once.
CREATE FUNCTION ub_test.minutes(seconds numeric) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO usage_billing.stored_file (file_id, org_id, kind, duration_seconds) VALUES ('minutes', 'minutes', 'video', seconds)
		ON CONFLICT (file_id) DO UPDATE SET duration_seconds = excluded.duration_seconds;
	RETURN (usage_billing.refresh_storage_usage('minutes')).total_video_minutes;
END $$;
SELECT is(ub_test.minutes(s), m, format('%s seconds', s)) FROM (VALUES (0, '0.00'), (60, '1.00'), (750, '12.50'), (0.29, '0.00'), (0.3, '0.01'), (59.9, '1.00'),
	(NULL, '0.00'), (6000000, '100000.00'), (1e20, '1666666666666666666.67'), (0.000001, '0.00')) AS c (s, m);

-- More than a bigint: refused, and right again when it is gone.
SELECT is(ub_test.run($$DO 'BEGIN
	INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) SELECT ''large'' || n, ''first'', 9223372036854775807 FROM generate_series(1, 2) n;
	PERFORM usage_billing.refresh_storage_usage(''first'');
	END'$$), '22003', 'bytes that would leave int64');
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('first')), 'first: image 2/223, video 2/1500, all 7/1733, 12.50 min', 'nothing of it is left');
INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('large', 'large', 9223372036854775807);
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('large')), 'large: image 0/0, video 0/0, all 1/9223372036854775807, 0.00 min', 'as much as a bigint holds');

-- A day is a day of UTC, whatever the session's zone.
CREATE FUNCTION ub_test.in_zone(zone text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
	u usage_billing.storage_usage;
BEGIN
	PERFORM set_config('TimeZone', zone, true);
	INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date) VALUES ('first', today - 1);
	SELECT * INTO u FROM usage_billing.refresh_storage_usage('first');
	RETURN NEXT ok(u.snapshot_date BETWEEN today AND (clock_timestamp() AT TIME ZONE 'UTC')::date, zone || ': refresh');
	RETURN NEXT is((SELECT count(*) FROM usage_billing.get_storage_usage_history(1, 'first')), 1::bigint, zone || ': history of one day');
	RETURN NEXT is((SELECT count(*) FROM usage_billing.get_storage_usage_history(2, 'first')), 2::bigint, zone || ': history of two days');
	DELETE FROM usage_billing.storage_snapshot WHERE org_id = 'first' AND snapshot_date = today - 1;
	PERFORM usage_billing.recount_storage_usage('first');
	RETURN NEXT is((SELECT count(*) FROM usage_billing.storage_snapshot WHERE org_id = 'first' AND snapshot_date NOT IN (today, (clock_timestamp() AT TIME ZONE 'UTC')::date)), 0::bigint,
		zone || ': no other day');
	PERFORM set_config('TimeZone', 'UTC', true);
END $$;
SELECT ok(bool_or((now() AT TIME ZONE z)::date <> (now() AT TIME ZONE 'UTC')::date), 'one of these zones has another day') FROM unnest('{Pacific/Kiritimati,Etc/GMT+12}'::text[]) z;
SELECT ub_test.in_zone(z) FROM unnest('{Pacific/Kiritimati,Etc/GMT+12,Asia/Kolkata}'::text[]) z;

-- History.
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, last_updated)
	SELECT 'history', (now() AT TIME ZONE 'UTC')::date - n, n, now() - n * interval '1 day' FROM generate_series(0, 40) n;
SELECT is((SELECT array_agg(total_file_count ORDER BY total_file_count) FROM usage_billing.get_storage_usage_history(days, 'history')),
	(SELECT array_agg(n) FROM generate_series(0::bigint, least(days, 41)::bigint - 1) n), format('the last %s days, today included', days))
	FROM unnest('{1,2,7,30,41,42,2147483647}'::int[]) AS days;
SELECT is((SELECT count(*) FROM usage_billing.get_storage_usage_history(org_id => 'history')), 30::bigint, '30 days where none are given');
SELECT is((SELECT array_agg(snapshot_date) FROM usage_billing.get_storage_usage_history(10, 'history')),
	(SELECT array_agg(snapshot_date ORDER BY snapshot_date) FROM usage_billing.get_storage_usage_history(10, 'history')), 'oldest first');
SELECT is(h::text, usage_billing.get_storage_usage('history')::text, 'today''s row is what get_storage_usage gives') FROM usage_billing.get_storage_usage_history(1, 'history') h;
DELETE FROM usage_billing.storage_snapshot WHERE org_id = 'history' AND total_file_count < 35;
SELECT is((usage_billing.get_storage_usage('history')).total_file_count, 35::bigint, 'get_storage_usage gives an old snapshot where there is none of today');
SELECT is_empty($$SELECT * FROM usage_billing.get_storage_usage_history(30, 'history')$$, 'a history without days is empty');

-- Limits: all three are set at once.
CREATE FUNCTION ub_test.limits(org text) RETURNS bigint[] LANGUAGE sql AS
$$ SELECT ARRAY[u.max_image_count, u.max_video_count, u.max_project_count] FROM usage_billing.get_storage_usage(org) u $$;
CREATE FUNCTION ub_test.set_limits(arguments text) RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT usage_billing.set_storage_limits(%s)', arguments);
	RETURN ub_test.limits('first');
END $$;
SELECT is(ub_test.set_limits(arguments), limits, format('set_storage_limits(%s)', arguments)) FROM (VALUES
	(1, '''first'', 1, 2, 3', '{1,2,3}'::bigint[]), (2, '''first'', 0, 0, 0', '{0,0,0}'), (3, '''first'', max_video_count => 9223372036854775807', '{NULL,9223372036854775807,NULL}'),
	(4, '''first'', 5, NULL, 7', '{5,NULL,7}'), (5, '''first''', '{NULL,NULL,NULL}')) AS c (n, arguments, limits) ORDER BY n;
DO $$ BEGIN PERFORM usage_billing.set_storage_limits('first', 1, 2, 3); END $$;
SELECT is((SELECT array_agg(DISTINCT ARRAY[max_image_count, max_video_count, max_project_count]) FROM usage_billing.get_storage_usage_history(40, 'first')), ARRAY[ARRAY[1, 2, 3]]::bigint[],
	'a history shows the limits of today');
COPY usage_billing.storage_limit FROM STDIN;
copied	7	\N	9
\.
SELECT is(ARRAY[u.max_image_count, u.max_video_count, u.max_project_count], '{7,NULL,9}', 'limits can be copied') FROM usage_billing.refresh_storage_usage('copied') u;

-- Two snapshots of one day merge: the later last_updated wins, however they come.
COPY usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, last_updated) FROM STDIN;
merge	2024-01-01	1	2024-01-01 10:00:00Z
merge	2024-01-01	2	2024-01-01 12:00:00Z
merge	2024-01-01	3	2024-01-01 11:00:00Z
merge	2024-01-02	4	2024-01-02 10:00:00Z
merge2	2024-01-01	5	2024-01-01 10:00:00Z
merge	2024-01-02	6	2024-01-02 09:59:59.999999Z
merge	2024-01-02	7	2024-01-02 10:00:00Z
\.
SELECT is((SELECT string_agg(concat_ws(' ', org_id, snapshot_date, total_file_count), ', ' ORDER BY org_id, snapshot_date) FROM usage_billing.storage_snapshot WHERE org_id ~ '^merge'),
	'merge 2024-01-01 2, merge 2024-01-02 4, merge2 2024-01-01 5', 'COPY of several for one day');
CREATE TEMP TABLE copied AS SELECT * FROM usage_billing.storage_snapshot;
INSERT INTO usage_billing.storage_snapshot SELECT * FROM copied;
INSERT INTO usage_billing.storage_snapshot SELECT * FROM copied ON CONFLICT DO NOTHING;
SELECT set_eq('SELECT * FROM usage_billing.storage_snapshot', 'SELECT * FROM copied', 'loading all of them again changes nothing');
INSERT INTO usage_billing.storage_snapshot VALUES ('merge', '2024-01-01', 11, 12, 13, 14, 15, 16, 17, 18.125, '2024-01-03Z'), ('merge', '2024-01-01', 1, 1, 1, 1, 1, 1, 1, 1, '2024-01-02Z');
SELECT is(s::text, '(merge,2024-01-01,11,12,13,14,15,16,17,18.125,"2024-01-03 00:00:00+00")', 'INSERT of a later one replaces all of it') FROM usage_billing.storage_snapshot s
	WHERE org_id = 'merge' AND snapshot_date = '2024-01-01';
SELECT is((usage_billing.get_storage_usage('merge')).total_file_count, 4::bigint, 'get_storage_usage gives the latest day');
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, last_updated)
	SELECT 'first', snapshot_date, 999, last_updated - interval '1 second' FROM usage_billing.refresh_storage_usage('first');
SELECT is((usage_billing.get_storage_usage('first')).total_file_count, 7::bigint, 'an older one of today changes nothing');
UPDATE usage_billing.storage_snapshot SET total_file_count = 998, last_updated = last_updated - interval '1 hour' WHERE org_id = 'first';
SELECT is((usage_billing.refresh_storage_usage('first')).total_file_count, 7::bigint, 'a refresh replaces an older one of today');

SELECT * FROM finish();
ROLLBACK;
