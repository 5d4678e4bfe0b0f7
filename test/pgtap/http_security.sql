-- The surface as an attacker sees it: what runs with the owner's rights, names
-- that look like ours, ids of others, claims and documents of every kind,
-- functions that are meant for the inside.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE ROLE ub_test_tenant;
CREATE ROLE ub_test_service;
CREATE ROLE ub_test_attacker;
CREATE SCHEMA ub_test_evil AUTHORIZATION ub_test_attacker;
GRANT USAGE ON SCHEMA usage_billing, ub_test, ub_test_evil TO ub_test_tenant, ub_test_service, ub_test_attacker;
-- the worst that a DBA can grant in a hurry
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usage_billing TO ub_test_tenant, ub_test_service, ub_test_attacker;
GRANT SELECT ON ALL TABLES IN SCHEMA usage_billing TO ub_test_tenant, ub_test_attacker;

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account('org_a', 'acc_a'), usage_billing.create_billing_account('org_b', 'acc_b');
	PERFORM usage_billing.create_project('prj_a', 'org_a'), usage_billing.create_project('prj_b', 'org_b');
	PERFORM usage_billing.grant_credits(ub_test.id(1), 1000, 'acc_a'), usage_billing.grant_credits(ub_test.id(2), 1000, 'acc_b');
	PERFORM ub_test.use('acc_a', 'id', ub_test.id(10)::text, 'amount', '3', 'user_id', 'secret_a', 'created_at', '2024-05-01T10:00:00Z');
	PERFORM ub_test.use('acc_b', 'id', ub_test.id(11)::text, 'amount', '4', 'user_id', 'secret_b', 'created_at', '2024-05-01T10:00:00Z');
	INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('f_a', 'org_a', 'image', 5), ('f_b', 'org_b', 'image', 6);
	PERFORM usage_billing.refresh_storage_usage('org_a'), usage_billing.refresh_storage_usage('org_b');
END $$;
CREATE TEMP TABLE state_before AS SELECT ub_test.state() AS state;

-- A call as a role with claims, undone; how it ended and what it answered.
CREATE FUNCTION ub_test.ask(role_name text, claims text, call text, OUT code text, OUT message text, OUT detail text, OUT hint text, OUT answer text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true), set_config('role', role_name, true);
	EXECUTE format('SELECT string_agg(r::text, E''\n'') FROM %s AS r', call) INTO answer;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		code := '00000';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		answer := NULL;
END $$;
CREATE FUNCTION ub_test.code(role_name text, claims text, call text) RETURNS text
LANGUAGE sql AS $$ SELECT code FROM ub_test.ask(role_name, claims, call) $$;

-- ---------------------------------------------------------------------------
-- What runs with the owner's rights, and what may be called by whom.

CREATE TEMP TABLE own AS SELECT p.*, p.oid::regprocedure::text AS signature FROM pg_proc p WHERE p.pronamespace = 'usage_billing'::regnamespace;
SELECT is(proconfig, '{"search_path=pg_catalog, pg_temp"}', format('%s: runs with the owner''s rights and a path that ends with pg_temp', signature))
FROM own WHERE prosecdef;
SELECT is(string_agg(proname, ' ' ORDER BY proname), 'delivery_measures derived_differences derived_sums read_stats request_accounts request_org request_worker require_unscoped',
	'what runs with the caller''s rights, beside triggers') FROM own WHERE NOT prosecdef AND prorettype <> 'trigger'::regtype;
SELECT ok(prosqlbody IS NOT NULL OR proconfig IS NOT NULL OR prolang = (SELECT oid FROM pg_language WHERE lanname = 'c'),
	format('%s: nothing of its text is looked up in the caller''s path', signature)) FROM own;
SELECT ok(NOT EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0), format('%s: not for PUBLIC', signature)) FROM own;
SELECT ok(NOT EXISTS (SELECT FROM aclexplode(coalesce(relacl, acldefault('r', relowner))) a WHERE a.grantee = 0), format('%s: not for PUBLIC', oid::regclass))
FROM pg_class WHERE relnamespace = 'usage_billing'::regnamespace AND relkind IN ('r', 'v', 'S', 'm', 'p');
SELECT ok(NOT EXISTS (SELECT FROM aclexplode(nspacl) a WHERE a.grantee = 0), 'the schema: not for PUBLIC') FROM pg_namespace WHERE oid = 'usage_billing'::regnamespace;
SELECT ok(NOT proleakproof AND provolatile <> 'i', format('%s: is not marked as what it is not', signature)) FROM own WHERE prorettype <> 'trigger'::regtype AND proname <> 'delivery_measures';
SELECT is((SELECT count(*) FROM pg_operator WHERE oprnamespace = 'usage_billing'::regnamespace) + (SELECT count(*) FROM pg_cast c JOIN pg_type t ON t.oid IN (c.castsource, c.casttarget)
	WHERE t.typnamespace = 'usage_billing'::regnamespace), 0::bigint, 'there are no operators and casts to take over');

-- Trigger functions do nothing anywhere else.
SELECT is((ub_test.try(format('SELECT usage_billing.%I()', proname))).code, '39P01', format('%s is no function to select', proname)) FROM own WHERE prorettype = 'trigger'::regtype;
SET LOCAL role = ub_test_attacker;
CREATE TABLE ub_test_evil.usage (billing_id text COLLATE "C", id uuid, type usage_billing.usage_type, amount bigint, source text, description text, user_id text, metadata jsonb,
	created_at timestamptz, updated_at timestamptz);
CREATE TABLE ub_test_evil.short (i int);
RESET role;
CREATE FUNCTION ub_test.as_trigger(function_name text, table_name text, kind text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	SET LOCAL ROLE ub_test_attacker;
	EXECUTE format('CREATE TRIGGER t %s ON ub_test_evil.%I %s EXECUTE FUNCTION usage_billing.%I()', split_part(kind, '|', 1), table_name, split_part(kind, '|', 2), function_name);
	IF table_name = 'usage' THEN
		INSERT INTO ub_test_evil.usage (billing_id, id, amount) VALUES ('acc_a', gen_random_uuid(), -5);
		DELETE FROM ub_test_evil.usage;
		TRUNCATE ub_test_evil.usage;
	ELSE
		INSERT INTO ub_test_evil.short VALUES (1);
		UPDATE ub_test_evil.short SET i = 2;
		DELETE FROM ub_test_evil.short;
		TRUNCATE ub_test_evil.short;
	END IF;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		RETURN 'harmless';
	WHEN OTHERS THEN
		RETURN sqlstate;
END $$;
SELECT ok(got IN ('39P01', 'harmless') AND (got = '39P01' OR proname ~ '^(storage_|check_ids|fact_is_append_only|account_|snapshot_)' OR kind !~ '^BEFORE INSERT' AND proname ~ 'before'
		OR kind !~ '^AFTER INSERT' AND proname ~ 'after') OR proname = 'fact_is_append_only' AND got = 'UB004',
	format('%s as trigger %s of %s: %s', proname, kind, table_name, got))
FROM own
CROSS JOIN (VALUES ('usage'), ('short')) AS t (table_name)
CROSS JOIN (VALUES ('BEFORE INSERT|FOR EACH ROW'), ('AFTER INSERT|REFERENCING NEW TABLE AS n FOR EACH STATEMENT'), ('AFTER DELETE|REFERENCING OLD TABLE AS o FOR EACH STATEMENT'),
	('BEFORE UPDATE|FOR EACH ROW'), ('AFTER TRUNCATE|FOR EACH STATEMENT'), ('BEFORE DELETE OR TRUNCATE|FOR EACH STATEMENT')) AS k (kind)
CROSS JOIN LATERAL ub_test.as_trigger(proname, table_name, kind) AS got
WHERE prorettype = 'trigger'::regtype;

-- What is for the inside gives nothing away.
SELECT is(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', call), '42501', format('a tenant: %s', call))
FROM (VALUES ('usage_billing.require_unscoped()'), ('usage_billing.verify(''acc_b'')'), ('usage_billing.rebuild(''acc_a'')'), ('usage_billing.run_maintenance()'),
	('usage_billing.prune_usage(''2024-05-01Z'', ''acc_a'')'),
	('usage_billing.track_storage(''ub_test_evil.usage'', ''billing_id'', ''amount'')'), ('usage_billing.untrack_storage(''usage_billing.stored_file'')')) AS c (call);
SELECT is((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', call)).answer, NULL, format('a tenant: %s', call))
FROM (VALUES ('usage_billing.derived_sums(''acc_b'')'), ('usage_billing.derived_differences(''acc_b'')'), ('usage_billing.usage_delta'), ('usage_billing.credit_balance')) AS c (call);
SELECT ok(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.delivery_measures(%s)', arguments)) IN ('00000', '22023'), format('delivery_measures(%s)', arguments))
FROM (VALUES ('''feature'', ''vod_streams'', ''[1, 2, 3]'''), ('''feature'', ''vod_streams'', ''"x"'''), ('''feature'', ''vod_streams'', ''5'''), ('''feature'', ''vod_streams'', ''[]'''),
	('''feature'', ''vod_streams'', ''null'''), ('''feature'', ''vod_streams'', ''{"viewing_seconds": []}'''), ('''feature'', repeat(''vod_streams'', 1000000), ''{}'''),
	('NULL, NULL, NULL'), ('''credit'', ''vod_streams'', NULL'), ('''feature'', ''vod_streams'', ''{"viewing_bytes": 1e131071}''')) AS c (arguments);

-- ---------------------------------------------------------------------------
-- Names that look like ours or the server's, first in the caller's path.

SET LOCAL role = ub_test_attacker;
CREATE FUNCTION ub_test_evil.trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was sprung' USING ERRCODE = 'TRAP1'; END $$;
CREATE FUNCTION ub_test_evil.round(numeric, int) RETURNS numeric LANGUAGE sql AS $$ SELECT 666::numeric FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.request_org() RETURNS text LANGUAGE sql AS $$ SELECT 'org_b'::text FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$ SELECT ''::text FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.of_text(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.of_date(date, date) RETURNS boolean LANGUAGE sql AS $$ SELECT true FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.of_number(numeric, numeric) RETURNS numeric LANGUAGE sql AS $$ SELECT 666::numeric FROM ub_test_evil.trap() $$;
CREATE OPERATOR ub_test_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ub_test_evil.of_text);
CREATE OPERATOR ub_test_evil.> (LEFTARG = date, RIGHTARG = date, FUNCTION = ub_test_evil.of_date);
CREATE OPERATOR ub_test_evil./ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = ub_test_evil.of_number);
CREATE OPERATOR ub_test_evil.+ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = ub_test_evil.of_number);
CREATE AGGREGATE ub_test_evil.sum(numeric) (SFUNC = ub_test_evil.of_number, STYPE = numeric, INITCOND = '0');
CREATE TABLE ub_test_evil.storage_total AS SELECT * FROM usage_billing.storage_total WITH NO DATA;
CREATE TYPE ub_test_evil.storage_usage AS (org_id text);
CREATE DOMAIN ub_test_evil.text AS varchar CHECK (ub_test_evil.trap() IS NULL);
CREATE TABLE ub_test_evil.pg_proc (oid oid);
RESET role;
CREATE TEMP TABLE storage_snapshot AS SELECT * FROM usage_billing.storage_snapshot WITH NO DATA;
CREATE TEMP TABLE storage_limit AS SELECT 'org_a'::text AS org_id, 666 AS max_image_count;
CREATE TEMP TABLE project AS SELECT 'org_a'::text AS org_id FROM generate_series(1, 666);
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO ub_test_tenant, ub_test_service;

-- What a role hears under a path, without what changes by itself.
CREATE FUNCTION ub_test.hears(path text) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
	call text;
	answer text;
	answers text[] := '{}';
BEGIN
	PERFORM pg_catalog.set_config('role', 'ub_test_service', true), pg_catalog.set_config('search_path', path, true);
	FOREACH call IN ARRAY ARRAY['usage_billing.refresh_storage_usage(''org_a'')', 'usage_billing.recount_storage_usage(''org_a'')', 'usage_billing.get_storage_usage(''org_a'')',
		'usage_billing.get_storage_usage_history(9, ''org_a'')', 'usage_billing.set_storage_limits(''org_a'', 3)', 'usage_billing.account_usage_trend(''2024-05-01'', ''2024-05-02'', billing_id => ''acc_a'')',
		'usage_billing.usage_series(''2024-05-01Z'', ''2024-05-02Z'', ''day'', billing_id => ''acc_a'')', 'usage_billing.close_billing_period(''2024-05-01Z'', ''acc_a'')',
		'usage_billing.request_org()', 'usage_billing.prune_usage(''2000-01-01Z'')', 'usage_billing.verify()', 'usage_billing.rebuild()'] LOOP
		EXECUTE 'SELECT pg_catalog.string_agg(r::pg_catalog.text, E''\n'') FROM ' OPERATOR(pg_catalog.||) call OPERATOR(pg_catalog.||) ' AS r' INTO answer;
		answers := pg_catalog.array_append(answers, pg_catalog.regexp_replace(answer, '"[^"]*:[^"]*"', 'a time', 'g'));
	END LOOP;
	PERFORM pg_catalog.set_config('role', 'none', true), pg_catalog.set_config('search_path', '"$user", public', true);
	RETURN answers;
END $$;
GRANT EXECUTE ON FUNCTION ub_test.hears(text) TO ub_test_service;
SAVEPOINT honest;
SELECT ub_test.hears('"$user", public') AS honest \gset
ROLLBACK TO honest;
SELECT matches((:'honest'::text[])[1], '^\(org_a,[-0-9]+,a time,1,1,5,0,0,1,5,0\.00,', 'storage, honestly');
SELECT is(ub_test.hears('ub_test_evil, pg_temp, pg_catalog'), :'honest'::text[], 'and with everything that an attacker can name');
ROLLBACK TO honest;

-- A function of the reader's own sees the reader's rows only, however cheap.
SET LOCAL role = ub_test_tenant;
CREATE TEMP TABLE leaked (what text);
RESET role;
CREATE FUNCTION ub_test_evil.peek(pg_catalog.text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN INSERT INTO pg_temp.leaked VALUES ($1); RETURN true; END $$;
SELECT set_config('request.jwt.claims', '{"org_id": "org_a"}', true), set_config('role', 'ub_test_tenant', true) \g /dev/null
SELECT count(*) FROM usage_billing.usage WHERE ub_test_evil.peek(user_id) AND metadata = '{}' \g /dev/null
SELECT count(*) FROM usage_billing.account_statement WHERE ub_test_evil.peek(user_id) OR ub_test_evil.peek(billing_id) \g /dev/null
SELECT count(*) FROM usage_billing.usage_remaining WHERE ub_test_evil.peek(billing_id) AND ub_test_evil.peek(user_id) \g /dev/null
SELECT set_config('role', 'none', true), set_config('request.jwt.claims', '', true) \g /dev/null
SELECT ok((SELECT bool_and(what ~ '_a$') AND count(*) > 0 FROM leaked WHERE what IS NOT NULL), 'a leaky function is shown nothing of others');
SET LOCAL row_security = off;
SELECT is(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', 'usage_billing.usage'), '42501', 'row_security = off is an error, not a way around');
SET LOCAL row_security = on;

-- ---------------------------------------------------------------------------
-- What belongs to others and what there is not.

CREATE TEMP TABLE refusal AS
SELECT call, other, r.*
FROM (VALUES ('refresh_storage_usage(%L)'), ('recount_storage_usage(%L)'), ('get_storage_usage(%L)'), ('get_storage_usage_history(5, %L)'), ('set_storage_limits(%L, 1)'),
	('account_usage_trend(org_id => %L)'), ('usage_series(org_id => %L)'), ('close_billing_period(org_id => %L)'),
	('create_billing_account(%L)'), ('create_project(''prj_x'', %L)')) AS c (call)
CROSS JOIN (VALUES ('org_b'), ('mArKeR'), ('org_A'), ('org_a '), ('org_'), (E'org_a\n')) AS o (other)
CROSS JOIN LATERAL ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', 'usage_billing.' || format(call, other)) AS r;
SELECT is(code, '42501', format('%s for %L', call, other)) FROM refusal;
SELECT is((SELECT count(DISTINCT (message, detail, hint)) FROM refusal), 1::bigint, 'all in the same words');
SELECT ok((SELECT bool_and(concat(message, detail, hint) !~* 'marker|org_|acc_|prj_') FROM refusal), 'that name no one');

-- Ids of others, guessed right.
SELECT is(ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.revert_usage(%L, id => %L)', ub_test.id(11), ub_test.id(50))),
	ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.revert_usage(%L, id => %L)', ub_test.id(11), ub_test.id(51))), 'another''s usage: not found');
SELECT is(replace((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.revert_usage(%L)', ub_test.id(11)))).detail, ub_test.id(11)::text, ''),
	replace((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.revert_usage(%L)', ub_test.id(99)))).detail, ub_test.id(99)::text, ''), 'as one that is not there');
SELECT is((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.grant_credits(%L, 7)', ub_test.id(2)))).answer::jsonb ->> 'duplicate', 'false', 'another''s grant id is free');
SELECT is((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.create_usage(%L)', jsonb_build_array(jsonb_build_object('id', ub_test.id(11), 'amount', 9))))).answer::jsonb ->> 'created',
	'1', 'and so is another''s usage id');
SELECT cursor AS cursor_of_b FROM usage_billing.account_transactions(billing_id => 'acc_b') LIMIT 1 \gset
SELECT doesnt_match(coalesce((ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.account_transactions(before => %L)', :'cursor_of_b'))).answer, ''), '_b|' || ub_test.id(11),
	'another''s cursor opens no page of theirs');
SELECT is(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.account_transactions(before => %L)', c)), '22023', format('before => %L', left(c, 40)))
FROM (VALUES ('x'), ('0-usage-'), ('0-usage-x'), ('99999999999999999999-usage-' || ub_test.id(1)), ('0-mArKeR-' || ub_test.id(1)), (repeat('0', 1000000)), ('-'), ('--'), ('0--' || ub_test.id(1)),
	('0-usage-' || ub_test.id(1) || ' ')) AS v (c);

-- ---------------------------------------------------------------------------
-- Claims.

SET LOCAL usage_billing.service_role = 'ub_test_service';
SELECT is(ub_test.code('ub_test_service', claims, 'usage_billing.account_balance(''acc_a'')'), '42501', format('a service with claims %s', left(claims, 60)))
FROM (VALUES ('{"org_id": 42}'), ('{"org_id": ["org_a"]}'), ('{"org_id": {"org_id": "org_a"}}'), ('{"org_id": true}'), ('{"org_id": ""}'), ('{"org_id": null}'), ('{"org_id": "org_b"}'),
	('{"org_id": "org_a", "org_id": 5}'), ('{"org_id": "acc_a"}'), ('[]'), ('mArKeR'), ('{"role": "ub_test_service"'), ('{"org_id": "org_a"} {}'), ('""'), ('{"a": tru}')) AS c (claims);
SELECT is(ub_test.code('ub_test_service', claims, 'usage_billing.account_balance(''acc_a'')'), '00000', format('a service with claims %s', claims))
FROM (VALUES ('{}'), ('{"role": "ub_test_service"}'), ('{"org_id": "org_a"}'), ('{"x": {"org_id": "org_b"}, "aud": ["org_id", "org_b"]}')) AS c (claims);
SELECT ok(ub_test.code(r, claims, 'usage_billing.account_balance(''acc_a'')') <> '00000', format('%s with %s... opens nothing', r, left(claims, 20)))
FROM (VALUES ('ub_test_tenant'), ('ub_test_service')) AS w (r),
	(VALUES (repeat('[', 100000)), (repeat('{"a":', 100000)), ('{"a": ' || repeat('[', 50000) || repeat(']', 50000) || ', "org_id": "org_b"}'), ('{"org_id": "org_b", "a": "' || repeat('x', 1000000) || '"}'),
		('{"org_id": "' || repeat('org_a', 100000) || '"}')) AS c (claims);
SET LOCAL usage_billing.service_role = '';
SELECT is(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', 'usage_billing.account_balance()'), '00000', 'the session goes on');
SELECT is((ub_test.try(format('SET LOCAL ROLE ub_test_tenant; SET LOCAL %s', setting))).code, '42501', format('a tenant: SET %s', setting))
FROM (VALUES ('usage_billing.service_role = ''ub_test_tenant'''), ('usage_billing.org_claim = ''role'''), ('usage_billing.restoring = on'), ('usage_billing.revert_once = off'),
	('usage_billing.max_batch_size = 1000000'), ('usage_billing.max_future = 1000000'), ('session_replication_role = replica')) AS c (setting);

-- ---------------------------------------------------------------------------
-- Documents that are large, deep or odd: a code, and the session goes on.

CREATE FUNCTION ub_test.deep(n int) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT repeat('{"a":', n) || '1' || repeat('}', n) $$;
SELECT ok(code IN ('54001', '22023', '22P02', '22003', '54000'), format('%s: %s %s', name, code, left(message, 60)))
FROM (VALUES ('usages, 1,000,000 deep', format('usage_billing.create_usage(%L)', repeat('[', 1000000) || repeat(']', 1000000))),
	('an element, 100,000 deep', format('usage_billing.create_usage(%L)', '[' || ub_test.deep(100000) || ']')),
	('metadata, 100,000 deep', format('usage_billing.grant_credits(%L, 1, metadata => %L)', ub_test.id(60), ub_test.deep(100000))),
	('a filter, 100,000 deep', format('usage_billing.account_usage_trend(filter => %L)', '[' || ub_test.deep(100000) || ']')),
	('10,001 elements', format('usage_billing.create_usage(%L)', '[' || repeat('{},', 10000) || '{}]')),
	('1,000,000 elements', format('usage_billing.create_usage(%L)', '[' || repeat('1,', 999999) || '1]')),
	('metadata of 10 MB', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": 1, "metadata": {"a": "' || repeat('x', 10000000) || '"}}]')),
	('metadata that prints long', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": 1, "metadata": {"a": 1e131071}}]')),
	('an amount that prints long', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": 1e131071}]')),
	('an amount of 100,000 digits', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": "' || repeat('9', 100000) || '"}]')),
	('a small fraction', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": 1e-16000}]')),
	('an id of 10 MB', format('usage_billing.create_usage(%L)', '[{"id": "' || repeat('0', 10000000) || '", "amount": 1}]')),
	('a key of 1 MB', format('usage_billing.create_usage(%L)', '[{"' || repeat('k', 1000000) || '": 1}]')),
	('a billing_id of 10 MB', format('usage_billing.account_balance(%L)', repeat('a', 10000000))),
	('a description of 10 MB', format('usage_billing.grant_credits(%L, 1, description => %L)', ub_test.id(60), repeat('a', 10000000))),
	('a filter of 1,000,000 words', format('usage_billing.account_usage_trend(filter => %L)', '[{"field": "resource", "in": "' || repeat('transcoders,', 1000000) || '"}]')),
	('include, 1,000,000 words', format('usage_billing.account_usage_trend(include => %L)', repeat('trend,', 1000000) || 'x')),
	('a zone of 1 MB', format('usage_billing.usage_series(time_zone => %L)', repeat('x', 1000000))),
	('a zone that is a path', 'usage_billing.usage_series(time_zone => ''../../../../etc/passwd'')'),
	('a bucket of 1 MB', format('usage_billing.usage_series(bucket => %L)', repeat('x', 1000000))),
	('buckets without end', 'usage_billing.usage_series("from" => ''0001-01-01Z'', "to" => ''2400-01-01Z'', source => ''x'')'),
	('days without end', 'usage_billing.usage_series("from" => ''4000-01-01 BC'', "to" => ''200000-01-01'', bucket => ''day'', source => ''x'')'),
	('a limit below 0', 'usage_billing.set_storage_limits(''org_a'', -9223372036854775808)')) AS c (name, call)
CROSS JOIN LATERAL ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', call) AS r;
SELECT is(ub_test.code('ub_test_tenant', '{"org_id": "org_a"}', call), '00000', call)
FROM (VALUES ('usage_billing.usage_series("from" => ''2015-01-01Z'', "to" => ''2025-01-01Z'', source => ''x'')'), ('usage_billing.account_transactions(max_rows => 2147483647)'),
	('usage_billing.get_storage_usage_history(2147483647)'), ('usage_billing.account_transactions("from" => ''-infinity'', "to" => ''infinity'')')) AS c (call);
SELECT ok(r.code = '00000' OR r.code = '54001' OR r.code = '22023', format('metadata %s deep: %s', n, r.code))
FROM (VALUES (10), (1000), (5000), (12000)) AS d (n)
CROSS JOIN LATERAL ub_test.ask('ub_test_tenant', '{"org_id": "org_a"}', format('usage_billing.create_usage(%L)', '[{"id": "' || ub_test.id(60) || '", "amount": 1, "metadata": ' || ub_test.deep(n) || '},
	{"id": "' || ub_test.id(60) || '", "amount": 1, "metadata": ' || ub_test.deep(n) || '}]')) AS r;

-- ---------------------------------------------------------------------------
-- Tables of the application: their owner's word, and nobody else's.

CREATE TABLE ub_test.victim (org text, bytes bigint);
GRANT ALL ON ub_test.victim TO ub_test_attacker;
GRANT CREATE ON SCHEMA ub_test TO ub_test_attacker;
SELECT is(ub_test.code('ub_test_attacker', NULL, format('usage_billing.%s(%L%s)', f, t, CASE f WHEN 'track_storage' THEN ', ''org'', ''bytes''' ELSE '' END)), '42501', format('%s(%s)', f, t))
FROM (VALUES ('track_storage'), ('untrack_storage')) AS f (f), (VALUES ('ub_test.victim'), ('usage_billing.stored_file'), ('usage_billing.usage'), ('pg_catalog.pg_class')) AS t (t);
SET LOCAL role = ub_test_attacker;
CREATE TABLE ub_test_evil.bait (i int);
INSERT INTO ub_test_evil.bait VALUES (1);
CREATE FUNCTION ub_test_evil.pull(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM usage_billing.track_storage('ub_test.victim', 'org', 'bytes');
	RETURN $1;
EXCEPTION WHEN OTHERS THEN
	RETURN $1;
END $$;
CREATE FUNCTION ub_test_evil.push(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM usage_billing.untrack_storage('usage_billing.stored_file');
	RETURN $1;
EXCEPTION WHEN OTHERS THEN
	RETURN $1;
END $$;
CREATE INDEX pull ON ub_test_evil.bait (ub_test_evil.pull(i));
CREATE INDEX push ON ub_test_evil.bait (ub_test_evil.push(i));
RESET role;
REINDEX TABLE ub_test_evil.bait;
ANALYZE ub_test_evil.bait;
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'ub_test.victim'::regclass), 0::bigint, 'an index of the attacker''s, rebuilt by a superuser, tracks nobody''s table');
SELECT is((SELECT count(*) FROM usage_billing.storage_source WHERE relation = 'usage_billing.stored_file'::regclass), 1::bigint, 'and untracks none');

-- The owner's table is read with the owner's rights, whoever asks.
SET LOCAL role = ub_test_attacker;
CREATE TABLE ub_test_evil.file (org text, bytes bigint);
INSERT INTO ub_test_evil.file VALUES ('org_a', 100);
SELECT usage_billing.track_storage('ub_test_evil.file', 'org', 'bytes') \g /dev/null
ALTER TABLE ub_test_evil.file ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION ub_test_evil.who() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'as %', current_user USING ERRCODE = 'TRAP1'; END $$;
CREATE POLICY spy ON ub_test_evil.file USING (ub_test_evil.who());
RESET role;
SELECT matches((ub_test.ask('ub_test_service', NULL, 'usage_billing.recount_storage_usage(''org_a'')')).answer, ',105,', 'a policy of the owner''s runs for nobody');
SET LOCAL role = ub_test_attacker;
ALTER TABLE ub_test_evil.file FORCE ROW LEVEL SECURITY;
RESET role;
SELECT is(ub_test.code('ub_test_service', NULL, 'usage_billing.recount_storage_usage(''org_a'')'), '42501', 'and where it would, counting fails rather than guess');

SELECT is(ub_test.state(), state, 'nothing of all that changed anything') FROM state_before;
SELECT * FROM finish();
ROLLBACK;
