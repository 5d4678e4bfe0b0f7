-- Who may do what: a token reaches its own organisation only, and can't tell
-- what belongs to others from what doesn't exist; nobody has a right that
-- nobody gave.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE ROLE ub_test_app;
CREATE ROLE ub_test_none;
CREATE ROLE ub_test_service;
CREATE ROLE ub_test_group IN ROLE ub_test_service;
CREATE ROLE ub_test_worker IN ROLE ub_test_group;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_app, ub_test_none, ub_test_service, ub_test_worker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usage_billing TO ub_test_app, ub_test_service, ub_test_worker;

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a');
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a2', credit_min => -10);
	PERFORM usage_billing.create_billing_account(org_id => 'org_b', billing_id => 'acc_b');
	PERFORM usage_billing.create_project(project_id => 'prj_a', org_id => 'org_a');
	PERFORM usage_billing.create_project(project_id => 'prj_b', org_id => 'org_b');
	PERFORM usage_billing.grant_credits(ub_test.id(1), 1000, billing_id => 'acc_a');
	PERFORM usage_billing.grant_credits(ub_test.id(2), 2000, billing_id => 'acc_b');
	PERFORM ub_test.use('acc_a', 'id', ub_test.id(3)::text, 'amount', '30');
	PERFORM ub_test.use('acc_b', 'id', ub_test.id(4)::text, 'amount', '40');
END $$;

-- Runs a call as a role with claims (null: none) in a subtransaction that is
-- undone; says how it ended and what it answered.
CREATE FUNCTION ub_test.ask(role_name text, claims text, call text,
	OUT code text, OUT message text, OUT detail text, OUT hint text, OUT answer text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true), set_config('role', role_name, true);
	EXECUTE format('SELECT string_agg(r::text, E''\n'') FROM %s AS r', call) INTO answer;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		code := '00000';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		answer := NULL;
END $$;
CREATE FUNCTION ub_test.code(role_name text, claims text, call text) RETURNS text
LANGUAGE sql AS $$ SELECT code FROM ub_test.ask(role_name, claims, call) $$;

CREATE TEMP TABLE state_before AS SELECT ub_test.state() AS state;

-- The functions that choose an account, with the rest of their arguments.
CREATE TEMP TABLE function_of_account (f text, arguments text);
INSERT INTO function_of_account VALUES
	('create_usage', format('%L, ', jsonb_build_array(jsonb_build_object('id', ub_test.id(60), 'amount', 1)))),
	('revert_usage', format('%L, ', ub_test.id(3))),
	('grant_credits', format('%L, 5, ', ub_test.id(61))),
	('account_balance', ''),
	('account_transactions', ''),
	('total_debited', '');

-- What a token of org_a reaches.
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a", "role": "tenant"}', format('usage_billing.%s(%s%s)', f, rtrim(arguments, ', '),
		CASE WHEN choice <> '' THEN CASE WHEN arguments <> '' THEN ', ' ELSE '' END || choice ELSE '' END)), '00000',
	format('own: %s(%s)', f, choice))
FROM function_of_account CROSS JOIN (VALUES
	(''), ($$billing_id => 'acc_a'$$), ($$org_id => 'org_a'$$), ($$project_id => 'prj_a'$$), ($$billing_id => 'acc_a', org_id => 'org_a'$$),
	($$billing_id => 'acc_a', project_id => 'prj_a'$$)
) AS choices (choice);
SELECT is((ub_test.ask('ub_test_app', '{"org_id": "org_b"}', 'usage_billing.account_balance()')).answer::jsonb,
	'{"billing_id": "acc_b", "org_id": "org_b", "balance": 1960, "credit_min": 0, "available": 1960}', 'a token chooses its organisation''s default account');
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a"}', $$usage_billing.account_balance(billing_id => 'acc_a2')$$), '00000', 'another account of its own');

-- What it does not, in one way for what is another's and for what is not there.
CREATE TEMP TABLE refusal AS
SELECT f, choice, r.*
FROM function_of_account CROSS JOIN (VALUES
	($$billing_id => 'acc_b'$$), ($$billing_id => 'mArKeR'$$),
	($$org_id => 'org_b'$$), ($$org_id => 'mArKeR'$$),
	($$project_id => 'prj_b'$$), ($$project_id => 'mArKeR'$$),
	($$billing_id => 'acc_a', org_id => 'org_b'$$), ($$billing_id => 'acc_a', org_id => 'mArKeR'$$),
	($$billing_id => 'acc_b', org_id => 'org_b'$$), ($$billing_id => 'acc_b', org_id => 'org_a'$$), ($$billing_id => 'mArKeR', org_id => 'org_a'$$),
	($$billing_id => 'acc_a', project_id => 'prj_b'$$), ($$billing_id => 'acc_a', project_id => 'mArKeR'$$),
	($$billing_id => 'acc_b', project_id => 'prj_a'$$), ($$billing_id => 'mArKeR', project_id => 'prj_a'$$)
) AS choices (choice)
CROSS JOIN LATERAL ub_test.ask('ub_test_app', '{"org_id": "org_a"}', format('usage_billing.%s(%s%s)', f, arguments, choice)) r;
SELECT is(code, '42501', format('not its own: %s(%s)', f, choice)) FROM refusal;
SELECT is((SELECT count(DISTINCT (message, detail, hint)) FROM refusal), 1::bigint, 'all these answers are the same, down to message, detail and hint');
SELECT ok((SELECT bool_and(message ~ '^[^[:upper:]]' AND message !~ '\.$' AND concat(message, detail, hint) !~* 'marker|_a|_b') FROM refusal), 'and name no one');
SELECT is(ub_test.ask('ub_test_app', '{"org_id": "org_a"}', $$usage_billing.account_balance(org_id => 'org_a', project_id => 'prj_b')$$),
	ub_test.ask('ub_test_app', '{"org_id": "org_a"}', $$usage_billing.account_balance(org_id => 'org_a', project_id => 'mArKeR')$$),
	'a contradictory choice doesn''t tell them apart either');
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a"}', $$usage_billing.account_balance(org_id => 'org_a', project_id => 'prj_a')$$), '22023',
	'a contradictory choice of its own is bad input');
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a"}', format('usage_billing.revert_usage(%L)', ub_test.id(n))), 'PT404', name)
FROM (VALUES (4, 'another''s usage is not found'), (99, 'as one that is not there')) AS c (n, name);

-- Making accounts and projects.
SELECT is((ub_test.ask('ub_test_app', '{"org_id": "org_a"}', 'usage_billing.' || call)).answer, answer, 'own: ' || call)
FROM (VALUES
	($$create_billing_account(billing_id => 'acc_a')$$, (SELECT a::text FROM usage_billing.billing_account a WHERE billing_id = 'acc_a')),
	($$create_billing_account(org_id => 'org_a', billing_id => 'acc_a')$$, (SELECT a::text FROM usage_billing.billing_account a WHERE billing_id = 'acc_a')),
	($$create_project('prj_a')$$, (SELECT p::text FROM usage_billing.project p WHERE project_id = 'prj_a')),
	($$create_project('prj_a2')$$, ('prj_a2', 'org_a', now())::text),
	($$create_project('prj_a2', org_id => 'org_a')$$, ('prj_a2', 'org_a', now())::text)
) AS c (call, answer);
SELECT matches((ub_test.ask('ub_test_app', '{"org_id": "org_a"}', $$usage_billing.create_billing_account(billing_id => 'acc_a3')$$)).answer, '^\(acc_a3,org_a,f,',
	'a new account belongs to the token''s organisation');
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a"}', 'usage_billing.' || call), '42501', 'not its own: ' || call)
FROM (VALUES
	($$create_billing_account(org_id => 'org_b')$$),
	($$create_billing_account(org_id => 'mArKeR')$$),
	($$create_billing_account(org_id => 'org_b', billing_id => 'acc_b')$$),
	($$create_billing_account(billing_id => 'acc_b')$$),
	($$create_project('prj_new', org_id => 'org_b')$$),
	($$create_project('prj_b', org_id => 'org_b')$$),
	($$create_project('prj_b')$$)
) AS c (call);

-- What is for requests without an organisation's scope only.
SELECT is(ub_test.code('ub_test_app', claims, call), code, format('%s with claims %s', call, coalesce(quote_literal(claims), 'not set')))
FROM (VALUES ('usage_billing.verify()'), ($$usage_billing.verify(billing_id => 'acc_a')$$), ('usage_billing.rebuild()'),
	($$usage_billing.rebuild(billing_id => 'acc_a')$$), ('usage_billing.run_maintenance()'), ('usage_billing.reset_usage_billing_stats()'),
	($$usage_billing.prune_usage('2024-01-01Z')$$), ($$usage_billing.prune_usage('2024-01-01Z', 'acc_a')$$)) AS calls (call)
CROSS JOIN (VALUES (NULL, '00000'), ('', '00000'), ('{"org_id": "org_a"}', '42501'), ('{"role": "web_anon"}', '42501')) AS claims (claims, code);

-- What is for routers takes nobody's token off, whoever was granted it.
SELECT is(ub_test.code('ub_test_app', claims, call), code, format('%s with claims %s', call, coalesce(quote_literal(claims), 'not set')))
FROM (VALUES ($$usage_billing.routed_call('account_balance', '{acc_b}', NULL, '{}')$$), ($$usage_billing.routed_rows('verify', '{acc_b}', '{}')$$),
	($$usage_billing.routed_batch('{1}', '{}', '{}')$$), ($$usage_billing.routed_begin(ARRAY['{"org_id": "org_b"}'])$$)) AS calls (call)
CROSS JOIN (VALUES (NULL, '00000'), ('', '00000'), ('{"org_id": "org_a"}', '42501'), ('{"role": "web_anon"}', '42501'), ('mArKeR', '42501')) AS claims (claims, code);

-- Claims that name no organisation, or no JSON at all, open nothing.
CREATE TEMP TABLE bad_claims AS
SELECT claims, call, r.*
FROM (VALUES ('{}'), ('{"role": "web_anon"}'), ('{"org_id": null}'), ('{"org_id": ""}'), ('{"org_id": 5}'), ('{"org_id": true}'),
	('{"org_id": ["org_b"]}'), ('{"org_id": {"org_id": "org_b"}}'), ('{"x": {"org_id": "org_b"}}'), ('{"x": ["org_id", "org_b"]}'),
	('[{"org_id": "org_b"}]'), ('{"ORG_ID": "org_b"}'), ('{" org_id": "org_b"}'), ('{"org_id": "org_b ", "x": 1}'), ('{"org_id": "ORG_B"}'),
	('{"org_id": "org_b", "org_id": "org_a"}'), ('{"org_id": "org_b", "org_id": null}'), ('{"org_id": "mArKeR"}'), ('[]'), ('["mArKeR"]'), ('"org_b"'),
	('5'), ('null'), ('true'), ('mArKeR'), (' '), ('{'), ('{"org_id": "org_b"'), ('{"org_id": "org_b"} mArKeR'), ('{"org_id": "org_b"}{}'),
	('{''org_id'': ''org_b''}'), ('{"org_id": "org_b\u0000"}'), ('{"mArKeR": "\ud800", "org_id": "org_b"}'), ('{"org_id": "org_b",}')) AS c (claims)
CROSS JOIN (VALUES ($$usage_billing.account_balance(billing_id => 'acc_b')$$),
	(format($$usage_billing.create_usage(%L, billing_id => 'acc_b')$$, jsonb_build_array(jsonb_build_object('id', ub_test.id(60), 'amount', 1))))) AS d (call)
CROSS JOIN LATERAL ub_test.ask('ub_test_app', claims, call) r;
SELECT is(string_agg(DISTINCT code, ','), '42501', 'claims ' || claims) FROM bad_claims GROUP BY claims;
SELECT ok((SELECT bool_and(message ~ '^[^[:upper:]]' AND message !~ '\.$' AND message !~* 'marker|org_b') FROM bad_claims), 'the messages repeat nothing of them');
SELECT is(ub_test.code('ub_test_app', claims, $$usage_billing.account_balance(billing_id => 'acc_b')$$), '00000', 'good claims ' || coalesce(quote_literal(claims), 'not set'))
FROM (VALUES ('{"org_id": "org_b"}'), ('{"org_id":"org_b","exp":1e400,"aud":["a",{"org_id":"x"}]}'), ('{"org_\u0069d": "org\u005fb"}'),
	('{"org_id": "org_a", "org_id": "org_b"}'), (E'\n{"org_id"\t: "org_b"} '), (''), (NULL)) AS c (claims);

-- The claim's name is a setting.
SET LOCAL usage_billing.org_claim = 'tenant';
SELECT is(ub_test.code('ub_test_app', claims, $$usage_billing.account_balance(billing_id => 'acc_b')$$), code, 'claim tenant: ' || claims)
FROM (VALUES ('{"tenant": "org_b"}', '00000'), ('{"tenant": "org_a"}', '42501'), ('{"org_id": "org_b"}', '42501'), ('{"org_id": "org_b", "tenant": "org_a"}', '42501'),
	('{"org_id": "org_a", "tenant": "org_b"}', '00000')) AS c (claims, code);
SET LOCAL usage_billing.org_claim = 'org_id';
SELECT is(ub_test.code('ub_test_app', '{"org_id": "org_a", "tenant": "org_b"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$), '42501',
	'it counts from one call to the next, with the same claims');

-- Service roles.
SELECT is(ub_test.code(r, '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$), '42501', 'no service role is set: ' || r)
FROM (VALUES ('ub_test_app'), ('ub_test_service'), ('ub_test_worker')) AS c (r);
SET LOCAL usage_billing.service_role = 'ub_test_service';
SELECT is(ub_test.code(r, claims, call), code, format('service role is set: %s with %s calls %s', r, claims, call))
FROM (VALUES
	('ub_test_service', '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '00000'),
	('ub_test_worker', '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '00000'),
	('ub_test_worker', '{"role": "x"}', $$usage_billing.account_balance(org_id => 'org_a')$$, '00000'),
	('ub_test_worker', '{"role": "x"}', 'usage_billing.account_balance()', '22023'),
	('ub_test_worker', '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'mArKeR')$$, 'PT404'),
	('ub_test_worker', '{"role": "x"}', 'usage_billing.verify()', '00000'),
	('ub_test_worker', '{"role": "x"}', 'usage_billing.run_maintenance()', '00000'),
	('ub_test_worker', '{"role": "x"}', $$usage_billing.create_billing_account(org_id => 'org_new')$$, '00000'),
	('ub_test_worker', '{"org_id": "org_a"}', $$usage_billing.account_balance(billing_id => 'acc_a')$$, '00000'),
	('ub_test_worker', '{"org_id": "org_a"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '42501'),
	('ub_test_worker', '{"org_id": "org_a"}', 'usage_billing.verify()', '42501'),
	('ub_test_worker', '[]', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '42501'),
	('ub_test_worker', 'mArKeR', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '42501'),
	('ub_test_app', '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '42501'),
	('ub_test_app', '{"role": "ub_test_service"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$, '42501'),
	('ub_test_app', '{"role": "x"}', 'usage_billing.verify()', '42501')
) AS c (r, claims, call, code);
SET LOCAL usage_billing.service_role = 'ub_test_nobody';
SELECT is(ub_test.code('ub_test_worker', '{"role": "x"}', $$usage_billing.account_balance(billing_id => 'acc_b')$$), '42501',
	'a service role that does not exist has no members');
SET LOCAL usage_billing.service_role = '';
SELECT is(ub_test.state(), state, 'nothing of all that changed anything') FROM state_before;

-- Settings.
SELECT set_eq($$SELECT name FROM pg_settings WHERE name LIKE 'usage\_billing.%' AND context NOT IN ('superuser', 'superuser-backend', 'sighup', 'postmaster')$$,
	ARRAY[]::text[], 'every setting is a superuser''s');
SELECT set_eq($$SELECT s FROM unnest(ARRAY['max_batch_size', 'max_future', 'org_claim', 'restoring', 'revert_once', 'service_role']) s
	WHERE NOT EXISTS (SELECT FROM pg_settings WHERE name = 'usage_billing.' || s)$$, ARRAY[]::text[], 'and those that are meant are there');
SELECT is(ub_test.code(r, NULL, format('set_config(%L, %L, true)', s, v)), CASE WHEN s ~ '^request' THEN '00000' ELSE '42501' END, format('%s sets %s', r, s))
FROM (VALUES ('ub_test_app'), ('ub_test_worker')) AS roles (r)
CROSS JOIN (VALUES ('usage_billing.max_batch_size', '5'), ('usage_billing.max_future', '1h'), ('usage_billing.org_claim', 'x'), ('usage_billing.restoring', 'on'),
	('usage_billing.revert_once', 'off'), ('usage_billing.service_role', 'ub_test_app'), ('request.jwt.claims', '{}')) AS settings (s, v);

-- Nothing is granted to PUBLIC.
SELECT set_eq($$SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'usage_billing'::regnamespace
	AND (proacl IS NULL OR EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) OR has_function_privilege('ub_test_none', p.oid, 'EXECUTE'))$$,
	ARRAY[]::text[], 'no function may be executed by PUBLIC');
SELECT set_eq($$SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'usage_billing'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
	AND (EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0)
		OR has_table_privilege('ub_test_none', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		OR has_any_column_privilege('ub_test_none', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))$$, ARRAY[]::text[], 'no table is open to PUBLIC');
SELECT set_eq($$SELECT nspname::text FROM pg_namespace WHERE nspname = 'usage_billing' AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee = 0)$$,
	ARRAY[]::text[], 'nor is the schema');
SELECT is(ub_test.code('ub_test_none', NULL, format('usage_billing.%s(%s)', f, rtrim(arguments, ', '))), '42501', format('without a right: %s', f))
FROM (SELECT * FROM function_of_account UNION ALL VALUES ('create_billing_account', $$'org_n'$$), ('create_project', $$'prj_n', 'org_n'$$), ('verify', ''), ('rebuild', ''),
	('run_maintenance', ''), ('prune_usage', 'now()'), ('reset_usage_billing_stats', '')) c;
SELECT is(ub_test.code(r, NULL, format('(SELECT count(*) FROM usage_billing.%I)', t)), '42501', format('%s reads %s', r, t))
FROM (VALUES ('ub_test_none'), ('ub_test_app')) AS roles (r)
CROSS JOIN (SELECT relname FROM pg_class WHERE relnamespace = 'usage_billing'::regnamespace AND relkind IN ('r', 'p', 'v')) AS tables (t);

-- Every function for callers runs with its owner's rights and a search_path of its own.
SELECT set_eq($$SELECT p.oid::regprocedure::text FROM pg_proc p JOIN (VALUES ('create_billing_account'), ('create_project'), ('grant_credits'), ('create_usage'),
		('revert_usage'), ('account_balance'), ('total_debited'), ('account_transactions'), ('verify'), ('rebuild'), ('run_maintenance'), ('prune_usage')) AS api (name) ON proname = name
	WHERE pronamespace = 'usage_billing'::regnamespace
	AND NOT (prosecdef AND EXISTS (SELECT FROM unnest(proconfig) c WHERE c ~ '^search_path=.*(^|[=, ])pg_temp$'))$$,
	ARRAY[]::text[], 'every API function is SECURITY DEFINER with a search_path that ends in pg_temp');
SELECT set_eq($$SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'usage_billing'::regnamespace AND prosecdef
	AND NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c ~ '^search_path=.*(^|[=, ])pg_temp$')$$,
	ARRAY[]::text[], 'no function is SECURITY DEFINER without that');
SELECT is(provolatile::text, v, format('%s is %s', name, v))
FROM (VALUES ('account_balance', 's'), ('total_debited', 's'), ('account_transactions', 's'), ('verify', 's'), ('create_usage', 'v'), ('revert_usage', 'v'),
	('grant_credits', 'v'), ('create_billing_account', 'v'), ('create_project', 'v'), ('rebuild', 'v'), ('run_maintenance', 'v'), ('prune_usage', 'v')) AS api (name, v)
LEFT JOIN pg_proc ON proname = name AND pronamespace = 'usage_billing'::regnamespace;

-- A role that may read the tables sees in them what the functions show it.
GRANT SELECT ON ALL TABLES IN SCHEMA usage_billing TO ub_test_app, ub_test_worker;
SAVEPOINT readers;
DO $$ BEGIN PERFORM usage_billing.revert_usage(ub_test.id(3), billing_id => 'acc_a'), usage_billing.revert_usage(ub_test.id(4), billing_id => 'acc_b'); END $$;
SET LOCAL usage_billing.service_role = 'ub_test_service';
SELECT is(rtrim(r.code || ' ' || coalesce(translate(r.answer, '()"', ''), '')), wanted, format('%s with %s reads %s', role_name, coalesce(claims, 'no claims'), t))
FROM (VALUES ('usage', '00000 acc_a', '00000 acc_a,acc_b'), ('credit_grant', '00000 acc_a', '00000 acc_a,acc_b'),
	('usage_revert', '00000 acc_a', '00000 acc_a,acc_b'), ('billing_account', '00000 acc_a,acc_a2', '00000 acc_a,acc_a2,acc_b'),
	('usage_delta', '00000', '00000 acc_a,acc_b')) AS tables (t, own, every)
CROSS JOIN LATERAL (VALUES ('ub_test_app', '{"org_id": "org_a"}', own), ('ub_test_worker', '{"org_id": "org_a"}', own), ('ub_test_app', NULL, every),
	('ub_test_worker', '{"role": "x"}', every), ('ub_test_app', '{"org_id": "mArKeR"}', '00000'), ('ub_test_app', '{"role": "x"}', '42501'),
	('ub_test_app', '[]', '42501')) AS c (role_name, claims, wanted)
CROSS JOIN LATERAL ub_test.ask(role_name, claims, format('(SELECT string_agg(DISTINCT billing_id, '','') FROM usage_billing.%I)', t)) r;
SELECT is((ub_test.ask('ub_test_app', '{"org_id": "org_b"}', '(SELECT string_agg(project_id, '','') FROM usage_billing.project)')).answer, '(prj_b)', 'and so with projects');

-- Loading is for the owner and for roles with BYPASSRLS.
CREATE ROLE ub_test_loader BYPASSRLS;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_loader;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA usage_billing TO ub_test_loader, ub_test_app;
CREATE FUNCTION ub_test.load(fact text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO usage_billing.%I (billing_id, %I, amount) VALUES (''acc_a'', ub_test.id(%s), 1)', fact,
		CASE fact WHEN 'usage_revert' THEN 'usage_id' ELSE 'id' END, CASE fact WHEN 'usage_revert' THEN 90 ELSE 91 END);
END $$;
DO $$ BEGIN PERFORM ub_test.use('acc_a', 'id', ub_test.id(90)::text, 'amount', '1'); END $$;
SELECT is(ub_test.code(role_name, claims, format('ub_test.load(%L)', fact)), code, format('%s with %s loads %s', role_name, coalesce(claims, 'no claims'), fact))
FROM (VALUES ('usage'), ('credit_grant'), ('usage_revert')) AS facts (fact)
CROSS JOIN (VALUES ('ub_test_app', NULL, '42501'), ('ub_test_app', '{"org_id": "org_a"}', '42501'), ('ub_test_loader', NULL, '00000')) AS c (role_name, claims, code);
ROLLBACK TO readers;

-- Names of other schemas don't get in between: tables, functions and operators
-- that look like ours or like the server's own, first in the search_path.
CREATE SCHEMA ub_test_evil;
GRANT USAGE ON SCHEMA ub_test_evil TO ub_test_app;
CREATE TEMP TABLE billing_account AS SELECT 'acc_b'::text AS billing_id, 'org_a'::text AS org_id, true AS is_default;
CREATE TEMP TABLE usage AS SELECT * FROM usage_billing.usage WITH NO DATA;
CREATE TEMP TABLE usage_delta AS SELECT 'acc_a'::text AS billing_id, 1000000 AS credits;
CREATE TEMP TABLE credit_balance AS SELECT 'acc_a'::text AS billing_id, 1000000::numeric AS balance;
CREATE TABLE ub_test_evil.credit_grant AS SELECT * FROM usage_billing.credit_grant WITH NO DATA;
CREATE TABLE ub_test_evil.pg_class AS SELECT * FROM pg_catalog.pg_class WITH NO DATA;
CREATE TYPE ub_test_evil.usage_type AS ENUM ('feature', 'credit');
CREATE FUNCTION ub_test_evil.trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was sprung' USING ERRCODE = 'TRAP1'; END $$;
CREATE FUNCTION ub_test_evil.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.equal(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT NULL::boolean FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.add(bigint, bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT NULL::bigint FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.add(numeric, numeric) RETURNS numeric LANGUAGE sql AS $$ SELECT NULL::numeric FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.first(bigint, bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT NULL::bigint FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.date_trunc(text, timestamptz, text) RETURNS timestamptz LANGUAGE sql AS $$ SELECT NULL::timestamptz FROM ub_test_evil.trap() $$;
CREATE FUNCTION ub_test_evil.account_balance(billing_id text) RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb FROM ub_test_evil.trap() $$;
CREATE AGGREGATE ub_test_evil.sum(bigint) (SFUNC = ub_test_evil.first, STYPE = bigint, INITCOND = '0');
CREATE OPERATOR ub_test_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ub_test_evil.equal);
CREATE OPERATOR ub_test_evil.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = ub_test_evil.add);
CREATE OPERATOR ub_test_evil.+ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = ub_test_evil.add);
GRANT ALL ON ALL TABLES IN SCHEMA ub_test_evil, pg_temp TO ub_test_app;

-- The main job as a role, under a search_path; what it answers, call by call.
CREATE FUNCTION ub_test.main_job(role_name text, path text, account text) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
	call text;
	answer text;
	answers text[] := '{}';
BEGIN
	PERFORM pg_catalog.set_config('role', role_name, true), pg_catalog.set_config('search_path', path, true);
	FOREACH call IN ARRAY ARRAY[
		'usage_billing.create_billing_account(''org_h'', %L)', 'usage_billing.create_project(''prj_h'', ''org_h'')',
		'usage_billing.grant_credits(''00000000-0000-4000-8000-000000000070'', 100, %L)',
		'usage_billing.create_usage(''[{"id": "00000000-0000-4000-8000-000000000071", "amount": 60, "created_at": "2024-05-01T10:00:00Z"}]'', %L)',
		'usage_billing.create_usage(''[{"id": "00000000-0000-4000-8000-000000000071", "amount": 60}]'', %L)',
		'usage_billing.run_maintenance()',
		'usage_billing.revert_usage(''00000000-0000-4000-8000-000000000071'', 5, %L, id => ''00000000-0000-4000-8000-000000000072'')',
		'usage_billing.rebuild()', 'usage_billing.run_maintenance()', 'usage_billing.total_debited(%L)', 'usage_billing.account_balance(%L)',
		'usage_billing.account_transactions(billing_id => %L)', 'usage_billing.verify()']
	LOOP
		EXECUTE pg_catalog.format('SELECT pg_catalog.string_agg(r::pg_catalog.text, E''\n'') FROM ' || call || ' AS r', account) INTO answer;
		answers := pg_catalog.array_append(answers, answer);
	END LOOP;
	PERFORM pg_catalog.set_config('role', 'none', true), pg_catalog.set_config('search_path', '"$user", public', true);
	RETURN answers;
END $$;
GRANT EXECUTE ON FUNCTION ub_test.main_job(text, text, text) TO ub_test_app;
SET LOCAL search_path = ub_test_evil, pg_temp, pg_catalog;
SELECT code AS trap_code FROM ub_test.try('SELECT 1::bigint + 1::bigint') \gset
SET LOCAL search_path = "$user", public;
SELECT is(:'trap_code'::text, 'TRAP1', 'the trap is set');
SAVEPOINT honest;
CREATE TEMP TABLE answered AS SELECT ub_test.main_job('ub_test_app', '"$user", public', 'acc_h') AS answers;
SELECT is(answers[7]::jsonb, jsonb_build_object('id', ub_test.id(72), 'usage_id', ub_test.id(71), 'amount', 5, 'balance', 45, 'duplicate', false),
	'the main job works as a role that was given the functions') FROM answered;
SELECT answers::text AS honest_answers FROM answered \gset
ROLLBACK TO honest;
SELECT is(ub_test.main_job('ub_test_app', 'ub_test_evil, pg_temp, pg_catalog', 'acc_h'), :'honest_answers'::text[], 'objects named like ours change no answer');
SELECT is(ub_test.balance('acc_h'), 45::bigint, 'and no balance');

-- The triggers too look at nobody else's names.
SET LOCAL search_path = ub_test_evil, pg_temp, pg_catalog;
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('acc_i', 'org_i');
INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_i', '00000000-0000-4000-8000-000000000080', 50);
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at) VALUES ('acc_i', '00000000-0000-4000-8000-000000000081', 20, '2024-05-01 10:00:00+00'),
	('acc_i', '00000000-0000-4000-8000-000000000081', 20, NULL);
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_i', '00000000-0000-4000-8000-000000000081', 5);
SET LOCAL search_path = "$user", public;
SELECT is(ub_test.balance('acc_i'), 35::bigint, 'objects named like ours change nothing that the triggers do');
SELECT is(ub_test.books(), '', 'the books are right in the end');

SELECT * FROM finish();
ROLLBACK;
