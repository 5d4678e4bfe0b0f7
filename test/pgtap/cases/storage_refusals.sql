-- What is refused, with which code and detail, and what a token reaches.

CREATE TABLE ub_test."mArKeR" (o text, b bigint, k text, s interval, flag boolean, f float8, j jsonb, a int[], "98765" point, ts timestamptz);
CREATE VIEW ub_test.a_view AS SELECT * FROM ub_test."mArKeR";
CREATE MATERIALIZED VIEW ub_test.a_matview AS SELECT * FROM ub_test."mArKeR";
CREATE SEQUENCE ub_test.a_sequence;
CREATE INDEX an_index ON ub_test."mArKeR" (o);
CREATE TYPE ub_test.a_type AS (o text, b bigint);
CREATE FOREIGN DATA WRAPPER ub_test_wrapper;
CREATE SERVER ub_test_server FOREIGN DATA WRAPPER ub_test_wrapper;
CREATE FOREIGN TABLE ub_test.a_foreign_table (o text, b bigint) SERVER ub_test_server;
CREATE TEMP TABLE a_temp_table (o text, b bigint);
CREATE TABLE ub_test.a_parent (o text, b bigint) PARTITION BY LIST (o);
CREATE TABLE ub_test.a_partition PARTITION OF ub_test.a_parent DEFAULT;
CREATE TABLE ub_test.ancestor (o text, b bigint);
CREATE TABLE ub_test.heir (x int) INHERITS (ub_test.ancestor);
CREATE TABLE ub_test.dropped_column (o text, b bigint, gone int);
ALTER TABLE ub_test.dropped_column DROP COLUMN gone;

CREATE TEMP TABLE track_case (arguments text, code text, detail text, hint boolean, name text);
INSERT INTO track_case VALUES
	($$NULL, 'o', 'b'$$, '22023', 'relation is missing', false, 'no table'),
	($$'ub_test."mArKeR"', NULL, 'b'$$, '22023', 'org_column is missing', false, 'no organisation column'),
	($$'ub_test."mArKeR"', '', 'b'$$, '22023', 'org_column is missing', false, 'an empty organisation column'),
	($$'ub_test."mArKeR"', 'o', NULL$$, '22023', 'bytes_column is missing', false, 'no bytes column'),
	($$'ub_test."mArKeR"', 'o', ''$$, '22023', 'bytes_column is missing', false, 'an empty bytes column'),
	($$'ub_test.a_view', 'o', 'b'$$, '22023', 'a_view', true, 'a view'),
	($$'ub_test.a_matview', 'o', 'b'$$, '22023', 'a_matview', true, 'a materialized view'),
	($$'ub_test.a_sequence', 'last_value', 'last_value'$$, '22023', 'a_sequence', true, 'a sequence'),
	($$'ub_test.an_index', 'o', 'o'$$, '22023', 'an_index', true, 'an index'),
	($$'ub_test.a_type', 'o', 'b'$$, '22023', 'a_type', true, 'a composite type'),
	($$'ub_test.a_foreign_table', 'o', 'b'$$, '22023', 'a_foreign_table', true, 'a foreign table'),
	($$'a_temp_table', 'o', 'b'$$, '22023', 'a_temp_table.*temporary', true, 'a temporary table'),
	($$'ub_test.a_partition', 'o', 'b'$$, '22023', 'a_partition.*partition', true, 'a partition'),
	($$'ub_test.ancestor', 'o', 'b'$$, '22023', 'ancestor.*inherit', true, 'a table that others inherit from'),
	($$'ub_test.heir', 'o', 'b'$$, '22023', 'heir.*inherit', true, 'a table that inherits'),
	($$'pg_catalog.pg_class', 'relname', 'relpages'$$, '22023', 'pg_class.*system', true, 'a system catalog'),
	($$'4294967295'::regclass, 'o', 'b'$$, '22023', 'relation', false, 'an OID that no table has'),
	($$'ub_test."mArKeR"', 'missing', 'b'$$, '22023', 'org_column "missing"', false, 'an unknown organisation column'),
	($$'ub_test."mArKeR"', 'O', 'b'$$, '22023', 'org_column "O"', false, 'a column in the wrong case'),
	($$'ub_test."mArKeR"', '"o"', 'b'$$, '22023', 'org_column', false, 'a column in quotes'),
	($$'ub_test."mArKeR"', 'o', 'missing'$$, '22023', 'bytes_column "missing"', false, 'an unknown bytes column'),
	($$'ub_test."mArKeR"', 'o', 'b', kind_column => 'missing'$$, '22023', 'kind_column "missing"', false, 'an unknown kind column'),
	($$'ub_test."mArKeR"', 'o', 'b', duration_column => 'missing'$$, '22023', 'duration_column "missing"', false, 'an unknown duration column'),
	($$'ub_test."mArKeR"', 'ctid', 'b'$$, '22023', 'org_column "ctid"', false, 'a system column'),
	($$'ub_test.dropped_column', 'o', '........pg.dropped.3........'$$, '22023', 'bytes_column', false, 'a dropped column'),
	($$'ub_test."mArKeR"', 'o', 'b', kind => 'image', kind_column => 'k'$$, '22023', 'kind_column', true, 'a kind beside a kind column'),
	($$'ub_test."mArKeR"', 'flag', 'b'$$, '22023', 'org_column "flag".*boolean', true, 'an organisation of type boolean'),
	($$'ub_test."mArKeR"', 'ts', 'b'$$, '22023', 'org_column "ts".*timestamp', true, 'an organisation of type timestamptz'),
	($$'ub_test."mArKeR"', 'j', 'b'$$, '22023', 'org_column "j".*jsonb', true, 'an organisation of type jsonb'),
	($$'ub_test."mArKeR"', 's', 'b'$$, '22023', 'org_column "s".*interval', true, 'an organisation of type interval'),
	($$'ub_test."mArKeR"', 'o', 'f'$$, '22023', 'bytes_column "f".*double precision', true, 'bytes of type double precision'),
	($$'ub_test."mArKeR"', 'o', 's'$$, '22023', 'bytes_column "s".*interval', true, 'bytes of type interval'),
	($$'ub_test."mArKeR"', 'o', 'flag'$$, '22023', 'bytes_column "flag".*boolean', true, 'bytes of type boolean'),
	($$'ub_test."mArKeR"', 'o', 'a'$$, '22023', 'bytes_column "a".*integer\[\]', true, 'bytes of an array type'),
	($$'ub_test."mArKeR"', 'o', '98765'$$, '22023', 'bytes_column "98765".*point', true, 'bytes of type point'),
	($$'ub_test."mArKeR"', 'o', 'b', kind_column => 'a'$$, '22023', 'kind_column "a".*integer\[\]', true, 'a kind of an array type'),
	($$'ub_test."mArKeR"', 'o', 'b', duration_column => 'ts'$$, '22023', 'duration_column "ts".*timestamp', true, 'a duration of type timestamptz'),
	($$'ub_test."mArKeR"', 'o', 'b', duration_column => 'f'$$, '22023', 'duration_column "f".*double precision', true, 'a duration of type double precision');
SELECT is(ub_test.problems(format('SELECT usage_billing.track_storage(%s)', arguments), code, detail, hint), '{}'::text[], 'track_storage: ' || name) FROM track_case;
SELECT is((SELECT count(*) FROM usage_billing.storage_source s WHERE relation::text ~ 'mArKeR|a_|ancestor|heir|dropped'), 0::bigint, 'nothing of these is tracked');
SELECT is(ub_test.problems(call, code, detail, hint), '{}'::text[], call) FROM (VALUES
	('SELECT usage_billing.untrack_storage(NULL)', '22023', 'relation is missing', false),
	('SELECT usage_billing.untrack_storage(''4294967295''::regclass)', '22023', 'relation', false)) AS c (call, code, detail, hint);

-- Organisations that are missing, malformed or unknown.
CREATE TEMP TABLE org_case (call text);
INSERT INTO org_case VALUES ('refresh_storage_usage(%s)'), ('recount_storage_usage(%s)'), ('get_storage_usage(%s)'), ('get_storage_usage_history(30, %s)'), ('set_storage_limits(%s)');
SELECT ub_test.fails(format('SELECT usage_billing.' || call, org), '22023', detail, format(call, name)) FROM org_case CROSS JOIN (VALUES
	('NULL', 'org_id is missing', 'no organisation'), ('''''', 'org_id is missing', 'an empty organisation'),
	(quote_literal(repeat('é', 128)), 'org_id has 256 bytes', '256 bytes')) AS c (org, detail, name);
SELECT is(ub_test.problems(format('SELECT usage_billing.' || call, '''mArKeR'''), 'PT404', 'mArKeR', true), '{}'::text[], format(call, 'an unknown organisation')) FROM org_case WHERE call !~ 'limits';
SELECT ub_test.fails(format('SELECT usage_billing.' || call, '''mArKeR'''), 'PT404', 'mArKeR', format(call, 'a known name in another case')) FROM org_case
	WHERE call !~ 'limits' AND ub_test.run($$SELECT usage_billing.set_storage_limits('MARKER')$$) = '00000';
SELECT is(ub_test.problems('SELECT usage_billing.get_storage_usage(''fresh'')', 'PT404', 'fresh', true), '{}'::text[], 'get_storage_usage where there was no refresh yet')
	FROM (SELECT ub_test.run($$SELECT usage_billing.create_project('fresh-project', 'fresh')$$)) r (code);
SELECT matches((ub_test.try('SELECT usage_billing.get_storage_usage(''fresh'')')).hint, 'refresh_storage_usage', 'the hint tells what to do');
SELECT isnt((ub_test.try('SELECT usage_billing.get_storage_usage(''fresh'')')).message, (ub_test.try('SELECT usage_billing.get_storage_usage(''mArKeR'')')).message, 'it is told from an unknown one');
SELECT is_empty($$SELECT * FROM usage_billing.get_storage_usage_history(30, 'fresh')$$, 'the history of a known organisation may be empty');

-- What makes an organisation known.
SELECT is(ub_test.run(statement), '00000', statement) FROM (VALUES
	($$SELECT usage_billing.create_billing_account('known-account')$$), ($$SELECT usage_billing.create_project('known-prj', 'known-project')$$),
	($$SELECT usage_billing.set_storage_limits('known-limits', 1)$$), ($$INSERT INTO usage_billing.stored_file (file_id, org_id) VALUES ('known', 'known-file')$$),
	($$INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date) VALUES ('known-snapshot', '2024-01-01')$$)) AS c (statement);
SELECT is(ub_test.run(format('SELECT usage_billing.%s(%L)', f, 'known-' || org)), '00000', format('known-%s: %s', org, f))
	FROM unnest('{account,project,limits,file,snapshot}'::text[]) org CROSS JOIN unnest('{refresh_storage_usage,get_storage_usage,recount_storage_usage}'::text[]) WITH ORDINALITY AS x (f, n) ORDER BY org, n;
CREATE TABLE ub_test.filled (o text, b int);
INSERT INTO ub_test.filled VALUES ('known-filled', 77);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.filled', 'o', 'b', kind => 'image'); END $$;
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('known-filled')), 'known-filled: image 1/77, video 0/0, all 1/77, 0.00 min',
	'files of a table that was filled before it was tracked make it known, and are counted before the first answer');
DELETE FROM ub_test.filled;
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('known-filled')), 'known-filled: image 0/0, video 0/0, all 0/0, 0.00 min', 'one whose files are gone stays known');

-- Numbers.
SELECT ub_test.fails(call, '22023', detail, call) FROM (VALUES
	($$SELECT usage_billing.get_storage_usage_history(0, 'fresh')$$, 'days is 0'), ($$SELECT usage_billing.get_storage_usage_history(-1, 'fresh')$$, 'days is -1'),
	($$SELECT usage_billing.get_storage_usage_history(-2147483648, 'fresh')$$, 'days is -2147483648'),
	($$SELECT usage_billing.set_storage_limits('fresh', -1)$$, 'max_image_count is -1'), ($$SELECT usage_billing.set_storage_limits('fresh', 1, -5)$$, 'max_video_count is -5'),
	($$SELECT usage_billing.set_storage_limits('fresh', 1, 1, -9223372036854775808)$$, 'max_project_count is -9223372036854775808')) AS c (call, detail);

-- Rows that no function checks.
SELECT is((ub_test.try(format('INSERT INTO usage_billing.%s', statement))).code, code, 'INSERT INTO ' || left(statement, 90)) FROM (VALUES
	('storage_limit VALUES ('''', 1, 1, 1)', '22023'), (format('storage_limit VALUES (%L)', repeat('x', 256)), '22023'), ('storage_limit VALUES (NULL)', '23502'),
	('storage_limit VALUES (''x'', -1)', '23514'),
	('storage_snapshot (org_id, snapshot_date) VALUES ('''', ''2024-01-01'')', '22023'),
	(format('storage_snapshot (org_id, snapshot_date) VALUES (%L, ''2024-01-01'')', repeat('x', 256)), '22023'),
	('storage_snapshot (org_id, snapshot_date) VALUES (''x'', ''infinity'')', '22023'), ('storage_snapshot (org_id, snapshot_date) VALUES (''x'', ''-infinity'')', '22023'),
	('storage_snapshot (org_id, snapshot_date, last_updated) VALUES (''x'', ''2024-01-01'', ''infinity'')', '22023'),
	('storage_snapshot (org_id, snapshot_date, total_video_minutes) VALUES (''x'', ''2024-01-01'', ''NaN'')', '22023'),
	('storage_snapshot (org_id, snapshot_date, total_video_minutes) VALUES (''x'', ''2024-01-01'', ''-infinity'')', '22023'),
	('storage_snapshot (snapshot_date) VALUES (''2024-01-01'')', '23502'), ('storage_snapshot (org_id) VALUES (''x'')', '23502'),
	(format('stored_file (file_id, org_id) VALUES (''x'', %L)', repeat('x', 256)), '22023'), ('stored_file (file_id) VALUES (''x'')', '23502'),
	('stored_file (file_id, org_id, bytes) VALUES (''x'', ''y'', -1)', '23514'), ('stored_file (file_id, org_id, duration_seconds) VALUES (''x'', ''y'', -0.1)', '23514')) AS c (statement, code);

-- A table with a row that can't be counted isn't tracked, so that no refresh meets it.
CREATE TABLE ub_test.uncountable (o text, b text, s numeric);
CREATE TEMP TABLE uncountable_case (n int, org text, b text, s numeric, code text, detail text);
INSERT INTO uncountable_case VALUES (1, 'x', '12 MB', 0, '22P02', NULL), (2, 'x', 'NaN', 0, '22003', 'uncountable'), (3, 'x', '1', 'infinity', '22003', 'uncountable'),
	(4, repeat('x', 256), '1', 0, '22023', '256 bytes');
SELECT ub_test.fails(format('INSERT INTO ub_test.uncountable VALUES (%L, %L, %L); SELECT usage_billing.track_storage(''ub_test.uncountable'', ''o'', ''b'', duration_column => ''s'')', org, b, s),
	code, detail, format('track_storage: a table with a row (%s, %s, %s)', left(org, 4), b, s)) FROM uncountable_case ORDER BY n;
SELECT ok(NOT EXISTS (SELECT FROM usage_billing.storage_source WHERE relation = 'ub_test.uncountable'::regclass), 'it isn''t tracked then');
-- what gets in behind the triggers' back is not for another organisation to read
CREATE ROLE ub_test_reader;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_reader;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usage_billing TO ub_test_reader;
SELECT is(ub_test.run($$SELECT usage_billing.track_storage('ub_test.uncountable', 'o', 'b', duration_column => 's')$$), '00000', 'it is tracked when the row is gone');
SELECT ub_test.fails(format('INSERT INTO ub_test.uncountable VALUES (''x'', %L, %L)', b, s), code, detail, format('a tracked table gets a row (%s, %s)', b, s))
	FROM (VALUES (1, '98765 MB', 0::numeric, '22P02', '"uncountable" .*98765 MB'), (2, 'NaN', 0, '22003', '^uncountable\.b is NaN'), (3, '1', 'infinity', '22003', '^uncountable\.s is')) AS c (n, b, s, code, detail) ORDER BY n;
SELECT ub_test.fails($$INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('huge1', 'known-file', 9223372036854775807), ('huge2', 'known-file', 1);
	SELECT usage_billing.refresh_storage_usage('known-file')$$, '22003', '"known-file"', 'a refresh whose sum is no bigint');
TRUNCATE ub_test.uncountable;
ALTER TABLE ub_test.uncountable DISABLE TRIGGER USER;
INSERT INTO ub_test.uncountable VALUES ('x', 'secret 12 MB', 0);
ALTER TABLE ub_test.uncountable ENABLE TRIGGER USER;
SELECT is((r.code, concat(r.message, r.detail, r.hint) ~ 'secret', r.detail ~ 'uncountable'), ('22P02'::text, false, true), 'who doesn''t own the table isn''t told what is in its row')
	FROM ub_test.ask('ub_test_reader', NULL, 'usage_billing.refresh_storage_usage(''known-file'')') r;
-- nor for who changes or deletes more than it can read
CREATE ROLE ub_test_changer;
GRANT USAGE ON SCHEMA ub_test TO ub_test_changer;
GRANT UPDATE, DELETE ON ub_test.uncountable TO ub_test_changer;
CREATE POLICY own ON ub_test.uncountable FOR SELECT TO ub_test_changer USING (o = 'own');
CREATE POLICY all_of_it ON ub_test.uncountable FOR UPDATE TO ub_test_changer USING (true);
SELECT is((r.code, r.message ~ 'secret', r.detail ~ 'secret', r.hint <> ''), ('22P02'::text, false, told, true), format('what a writer is told: %s; %s', rights, call))
	FROM (VALUES (1, '', 'UPDATE ub_test.uncountable SET b = ''1''', false), (2, '', 'DELETE FROM ub_test.uncountable', false),
		(3, 'GRANT SELECT ON ub_test.uncountable TO ub_test_changer', 'UPDATE ub_test.uncountable SET b = ''1''', true),
		(4, 'GRANT SELECT ON ub_test.uncountable TO ub_test_changer', 'DELETE FROM ub_test.uncountable', true),
		(5, 'GRANT SELECT ON ub_test.uncountable TO ub_test_changer; ALTER TABLE ub_test.uncountable ENABLE ROW LEVEL SECURITY', 'UPDATE ub_test.uncountable SET b = ''1''', false)
	) AS c (n, rights, call, told), LATERAL ub_test.try(rights || '; SET LOCAL ROLE ub_test_changer; ' || call) r ORDER BY n;
ALTER TABLE ub_test.uncountable OWNER TO ub_test_reader;
SELECT is((r.code, r.message ~ 'secret', r.detail ~ 'secret'), ('22P02'::text, false, told), format('its owner %s: %s, claims %s', CASE WHEN told THEN 'is' ELSE 'isn''t' END, call, claims))
	FROM (VALUES (1, 'recount_storage_usage(''known-file'')', '', true), (2, 'track_storage(''ub_test.uncountable'', ''o'', ''b'', duration_column => ''s'')', '', true),
		(3, 'recount_storage_usage()', '{"org_id": "known-file"}', false), (4, 'refresh_storage_usage(''known-file'')', '', false)) AS c (n, call, claims, told),
	LATERAL ub_test.ask('ub_test_reader', claims, 'usage_billing.' || call) r ORDER BY n;
CREATE TABLE ub_test.forced (o text, b int);
ALTER TABLE ub_test.forced OWNER TO ub_test_reader;
ALTER TABLE ub_test.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT is((r.code, r.detail ~ 'forces row-level security', r.hint <> ''), ('22023'::text, true, true), 'track_storage: a table whose owner doesn''t see all of it')
	FROM ub_test.ask('ub_test_reader', '', 'usage_billing.track_storage(''ub_test.forced'', ''o'', ''b'')') r;
DO $$ BEGIN PERFORM set_config('client_min_messages', 'error', true); PERFORM usage_billing.run_maintenance(); END $$;
SELECT is((SELECT (last_error ~ 'uncountable', last_error ~ 'secret') FROM usage_billing.maintenance_status WHERE duty = 'storage_recount'), (true, false), 'maintenance_status names the table, not what is in its row');
SELECT is((ub_test.try(mended || '; SELECT usage_billing.recount_storage_usage(''x'')')).code, code, mended) FROM (VALUES
	(1, 'UPDATE ub_test.uncountable SET b = ''1''', '22P02'),
	(2, 'ALTER TABLE ub_test.uncountable DISABLE TRIGGER USER; UPDATE ub_test.uncountable SET b = ''1''; ALTER TABLE ub_test.uncountable ENABLE TRIGGER USER', '00000')) AS c (n, mended, code) ORDER BY n;
SELECT is(ub_test.run($$SELECT usage_billing.untrack_storage('ub_test.uncountable')$$), '00000', 'it can be untracked');
SELECT is(ub_test.run($$SELECT usage_billing.refresh_storage_usage('known-file')$$), '00000', 'and then refreshes work again');

-- A session may read a table that it counts; if it is writing, not all is there yet.
CREATE TABLE ub_test.in_use AS SELECT 'x' AS o, 1 AS b;
SELECT is(ub_test.run($$SELECT usage_billing.track_storage('ub_test.in_use', 'o', 'b') FROM ub_test.in_use$$), '00000', 'track_storage: a table that is being read');
SELECT is((ub_test.try($$WITH i AS (INSERT INTO ub_test.in_use VALUES ('x', 2) RETURNING 1) SELECT usage_billing.recount_storage_usage('x') FROM i$$)).code, '55006', 'a recount of one that is being written to');

-- The trigger functions are triggers, of our kind.
SELECT is((ub_test.try(format('CREATE TRIGGER x %s ON ub_test.filled %s EXECUTE FUNCTION usage_billing.%s(); INSERT INTO ub_test.filled VALUES (''x'', 1); TRUNCATE ub_test.filled', w, e, f))).code, '39P01',
	format('%s %s %s', f, w, e))
	FROM (VALUES ('storage_changed', 'BEFORE INSERT', 'FOR EACH ROW'), ('storage_changed', 'AFTER INSERT', 'FOR EACH ROW'), ('storage_changed', 'AFTER INSERT', 'FOR EACH STATEMENT'),
		('storage_truncated', 'BEFORE TRUNCATE', 'FOR EACH STATEMENT'), ('storage_truncated', 'AFTER INSERT', 'FOR EACH STATEMENT'),
		('snapshot_before_insert', 'BEFORE INSERT', 'FOR EACH ROW'), ('snapshot_before_insert', 'AFTER INSERT', 'FOR EACH STATEMENT')) AS c (f, w, e);
SELECT is((ub_test.try(format('SELECT usage_billing.%s()', f))).code, '39P01', f || ' is no function to call')
	FROM unnest('{storage_changed,storage_truncated,snapshot_before_insert}'::text[]) f;

-- READ ONLY transactions.
SELECT is((ub_test.try('SET LOCAL transaction_read_only = on; SELECT * FROM usage_billing.' || call)).code, code, 'read only: ' || call) FROM (VALUES
	('get_storage_usage(''known-file'')', '00000'), ('get_storage_usage_history(30, ''known-file'')', '00000'), ('refresh_storage_usage(''known-file'')', '25006'),
	('recount_storage_usage(''known-file'')', '25006'), ('set_storage_limits(''known-file'', 1)', '25006'), ('track_storage(''ub_test.filled'', ''o'', ''b'')', '25006'),
	('untrack_storage(''ub_test.filled'')', '25006')) AS c (call, code);

-- Rights, and what a token reaches.
CREATE ROLE ub_test_app;
CREATE ROLE ub_test_service;
CREATE ROLE ub_test_nobody;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_app, ub_test_service, ub_test_nobody;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usage_billing TO ub_test_app, ub_test_service;
CREATE TABLE ub_test.of_app (o text, b int);
CREATE TABLE ub_test.of_service (o text, b int);
ALTER TABLE ub_test.of_app OWNER TO ub_test_app;
ALTER TABLE ub_test.of_service OWNER TO ub_test_service;
CREATE TEMP TABLE token_case (call text);
INSERT INTO token_case VALUES ('refresh_storage_usage(%s)'), ('recount_storage_usage(%s)'), ('get_storage_usage(%s)'), ('get_storage_usage_history(org_id => %s)'), ('set_storage_limits(%s)');
GRANT SELECT ON token_case TO PUBLIC;
SELECT is((ub_test.ask('ub_test_nobody', NULL, 'usage_billing.' || call)).code, '42501', 'without a right: ' || call)
	FROM (SELECT format(call, '''known-file''') FROM token_case UNION ALL VALUES ('track_storage(''ub_test.of_app'', ''o'', ''b'')'), ('untrack_storage(''ub_test.of_app'')')) AS c (call);
SELECT is((ub_test.ask('ub_test_app', NULL, 'usage_billing.' || format(call, '''known-file'''))).code, '00000', 'plain SQL: ' || call) FROM token_case;
SELECT is((ub_test.ask('ub_test_app', '{"org_id": "known-file"}', 'usage_billing.' || format(call, org))).code, '00000', format('its own: ' || call, org))
	FROM token_case CROSS JOIN (VALUES ('''known-file'''), ('NULL'), ('''''')) AS c (org);
SELECT is((ub_test.ask('ub_test_app', '{"org_id": "known-file"}', 'usage_billing.' || f)).code, '00000', 'its own: ' || f) FROM unnest('{refresh_storage_usage(),get_storage_usage_history()}'::text[]) f;
SELECT is((usage_billing.get_storage_usage(NULL)).org_id, 'known-file', 'a token chooses its organisation') FROM set_config('request.jwt.claims', '{"org_id": "known-file"}', true);
DO $$ BEGIN PERFORM set_config('request.jwt.claims', '', true); END $$;
CREATE TEMP TABLE refusal AS SELECT call, org, r.* FROM token_case CROSS JOIN (VALUES ('''known-account'''), ('''fresh'''), ('''mArKeR'''), ('''KNOWN-FILE''')) AS c (org)
	CROSS JOIN LATERAL ub_test.ask('ub_test_app', '{"org_id": "known-file"}', 'usage_billing.' || format(call, org)) r;
SELECT is(code, '42501', format('another''s, or nobody''s: ' || call, org)) FROM refusal;
SELECT is((SELECT count(DISTINCT (message, detail, hint)) FROM refusal), 1::bigint, 'all these answers are the same, down to message, detail and hint');
SELECT ok((SELECT bool_and(concat(message, detail, hint) !~* 'marker|known|fresh') FROM refusal), 'and name no one');
SELECT is((SELECT max_image_count FROM usage_billing.storage_limit WHERE org_id = 'known-limits'), 1::bigint, 'nothing changed');
SELECT is((ub_test.ask(role, claims, 'usage_billing.' || call)).code, code, format('%s with %s: %s', role, claims, call)) FROM (VALUES
	('ub_test_app', '{"role": "x"}', 'get_storage_usage(''known-file'')', '42501'), ('ub_test_app', '[]', 'get_storage_usage(''known-file'')', '42501'),
	('ub_test_app', '{"role": "x"}', 'refresh_storage_usage(''known-file'')', '42501'), ('ub_test_app', '{"role": "x"}', 'set_storage_limits(''known-file'')', '42501'),
	('ub_test_app', NULL, 'track_storage(''ub_test.of_app'', ''o'', ''b'')', '00000'), ('ub_test_app', NULL, 'untrack_storage(''ub_test.of_app'')', '00000'),
	('ub_test_app', '', 'track_storage(''ub_test.of_app'', ''o'', ''b'')', '00000'),
	('ub_test_app', '{"org_id": "known-file"}', 'track_storage(''ub_test.of_app'', ''o'', ''b'')', '42501'), ('ub_test_app', '{"org_id": "known-file"}', 'untrack_storage(''ub_test.of_app'')', '42501'),
	('ub_test_app', '{"role": "x"}', 'track_storage(''ub_test.of_app'', ''o'', ''b'')', '42501'), ('ub_test_app', 'x', 'untrack_storage(''ub_test.of_app'')', '42501')) AS c (role, claims, call, code);
SET LOCAL usage_billing.service_role = 'ub_test_service';
SELECT is((ub_test.ask(role, claims, 'usage_billing.' || call)).code, code, format('a service role is set: %s with %s: %s', role, claims, call)) FROM (VALUES
	('ub_test_service', '{"role": "x"}', 'get_storage_usage(''known-file'')', '00000'), ('ub_test_service', '{"role": "x"}', 'get_storage_usage()', '22023'),
	('ub_test_service', '{"role": "x"}', 'get_storage_usage(''mArKeR'')', 'PT404'), ('ub_test_service', '{"org_id": "known-file"}', 'get_storage_usage(''fresh'')', '42501'),
	('ub_test_service', '{"role": "x"}', 'track_storage(''ub_test.of_service'', ''o'', ''b'')', '00000'), ('ub_test_service', '{"role": "x"}', 'track_storage(''ub_test.of_app'', ''o'', ''b'')', '42501'),
	('ub_test_service', '{"org_id": "x"}', 'track_storage(''ub_test.of_service'', ''o'', ''b'')', '42501'),
	('ub_test_app', '{"role": "x"}', 'get_storage_usage(''known-file'')', '42501')) AS c (role, claims, call, code);
SET LOCAL usage_billing.service_role = '';
