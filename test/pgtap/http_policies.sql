-- Rows by token: row-level security shows what the functions would, costs one
-- question a query, and reads the tenant's rows only.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE ROLE ub_test_tenant;
CREATE ROLE ub_test_service;
CREATE ROLE ub_test_app;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_tenant, ub_test_service, ub_test_app;
GRANT SELECT ON ALL TABLES IN SCHEMA usage_billing TO ub_test_tenant, ub_test_service, ub_test_app;
GRANT EXECUTE ON FUNCTION usage_billing.request_org(), usage_billing.request_accounts() TO ub_test_tenant, ub_test_service, ub_test_app;

DO $$
BEGIN
	FOR n IN 1 .. 60 LOOP
		PERFORM usage_billing.create_billing_account(format('org_%s', n), format('acc_%s', n));
		PERFORM usage_billing.create_project(format('prj_%s', n), format('org_%s', n));
		PERFORM usage_billing.set_storage_limits(format('org_%s', n), n);
	END LOOP;
	PERFORM usage_billing.create_billing_account('org_7', 'zzz');
	PERFORM usage_billing.create_billing_account('org_7', ' first');
END $$;
INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at)
SELECT format('acc_%s', n % 60 + 1), ub_test.id(n), 5, 'x', timestamptz '2024-01-01Z' + n * interval '1 min' FROM generate_series(1, 60000) n;
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at) VALUES ('zzz', ub_test.id(1), 1, '2024-01-01'), (' first', ub_test.id(1), 1, '2024-01-01');
INSERT INTO usage_billing.credit_grant (billing_id, id, amount) SELECT format('acc_%s', n % 60 + 1), ub_test.id(n), 5 FROM generate_series(1, 6000) n;
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) SELECT format('acc_%s', n % 60 + 1), ub_test.id(n), 2 FROM generate_series(1, 6000) n;
INSERT INTO usage_billing.usage_archive (billing_id, hour, source, amount, events)
SELECT format('acc_%s', n % 60 + 1), timestamptz '2020-01-01Z' + n * interval '1 hour', 'x', 5, 1 FROM generate_series(1, 6000) n;
INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) SELECT format('file_%s', n), format('org_%s', n % 60 + 1), 1 FROM generate_series(1, 6000) n;
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date) SELECT format('org_%s', o), date '2024-01-01' + d FROM generate_series(1, 60) o, generate_series(1, 100) d;
INSERT INTO usage_billing.project (project_id, org_id) SELECT format('more_%s', n), format('org_%s', n % 60 + 1) FROM generate_series(1, 6000) n;
ANALYZE usage_billing.usage, usage_billing.credit_grant, usage_billing.usage_revert, usage_billing.usage_archive, usage_billing.stored_file, usage_billing.storage_snapshot, usage_billing.project,
	usage_billing.billing_account;

-- A query as a role with claims: its rows as text, or the SQLSTATE.
CREATE FUNCTION ub_test.see(role_name text, claims text, query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true), set_config('role', role_name, true);
	EXECUTE query INTO answer;
	PERFORM set_config('request.jwt.claims', '', true), set_config('role', 'none', true);
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
CREATE FUNCTION ub_test.plan(role_name text, claims text, query text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	line text;
	answer text := '';
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true), set_config('role', role_name, true);
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		answer := answer || line || E'\n';
	END LOOP;
	PERFORM set_config('request.jwt.claims', '', true), set_config('role', 'none', true);
	RETURN answer;
END $$;

-- Every table is closed; those of tenants have a policy of their own.
SELECT ok(c.relrowsecurity AND NOT c.relforcerowsecurity, format('%s: row-level security', c.oid::regclass))
FROM pg_class c WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind IN ('r', 'p');
SELECT is((SELECT array_agg(DISTINCT tablename::text ORDER BY tablename::text) FROM pg_policies WHERE schemaname = 'usage_billing' AND policyname = 'own'),
	'{billing_account,credit_grant,project,storage_limit,storage_snapshot,stored_file,usage,usage_archive,usage_revert}', 'tenants have something to see in these');
SELECT is((SELECT array_agg(DISTINCT cmd || ' on ' || tablename) FROM pg_policies WHERE schemaname = 'usage_billing' AND cmd <> 'SELECT'),
	'{"ALL on stored_file"}', 'only stored_file has a policy for writing');
SELECT ok(c.reloptions @> '{security_invoker=true}', format('%s has its reader''s rights', c.oid::regclass))
FROM pg_class c WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind = 'v' AND c.relname IN ('usage_remaining', 'account_statement');

-- Which organisations' rows each request sees.
CREATE TEMP TABLE keyed (name text, key text);
INSERT INTO keyed VALUES ('billing_account', 'org_id'), ('project', 'org_id'), ('storage_limit', 'org_id'), ('storage_snapshot', 'org_id'), ('stored_file', 'org_id'),
	('usage', 'billing_id'), ('usage_archive', 'billing_id'), ('credit_grant', 'billing_id'), ('usage_revert', 'billing_id'), ('usage_remaining', 'billing_id'), ('account_statement', 'billing_id');
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', format('SELECT string_agg(DISTINCT %I, '','' ORDER BY %1$I) FROM usage_billing.%I', key, name)),
	CASE key WHEN 'org_id' THEN 'org_3' ELSE 'acc_3' END, format('%s: a tenant sees its own', name)) FROM keyed;
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', format('SELECT count(*) FROM usage_billing.%I WHERE %I LIKE ''%%_4''', name, key)),
	'0', format('%s: and no others, also by name', name)) FROM keyed;
SELECT is(ub_test.see('ub_test_tenant', claims, format('SELECT count(*) FROM usage_billing.%I', name)), '0', format('%s: claims %s see nothing', name, claims))
FROM keyed, (VALUES ('{"org_id": "org_99"}'), ('{"org_id": "org_"}'), ('{"org_id": "ORG_3"}'), ('{"org_id": "org_3 "}'), (format('{"org_id": "%s"}', repeat(chr(1114111), 64)))) AS c (claims);
SELECT is(ub_test.see('ub_test_tenant', claims, format('SELECT count(*) FROM usage_billing.%I', name)), '42501', format('%s: claims %s are refused', name, claims))
FROM keyed, (VALUES ('{}'), ('{"org_id": null}'), ('{"org_id": 3}'), ('[]'), ('mArKeR')) AS c (claims);
SELECT is(ub_test.see('ub_test_app', claims, format('SELECT count(DISTINCT %I) FROM usage_billing.%I', key, name)),
	(CASE WHEN name = 'billing_account' OR key = 'org_id' THEN 60 WHEN name IN ('usage', 'usage_remaining', 'account_statement') THEN 62 ELSE 60 END)::text,
	format('%s: plain SQL sees all', name)) FROM keyed, (VALUES (NULL), ('')) AS c (claims);
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_7"}', 'SELECT string_agg(billing_id, '','' ORDER BY billing_id) FROM (SELECT DISTINCT billing_id FROM usage_billing.usage) u'),
	' first,acc_7,zzz', 'an organisation with several accounts');
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_7"}', 'SELECT string_agg(a, '','' ORDER BY a COLLATE "C") FROM unnest(usage_billing.request_accounts()) a'), ' first,acc_7,zzz', 'which request_accounts lists');

-- A service role without a claim sees all, with one what it says.
SET LOCAL usage_billing.service_role = 'ub_test_service';
SELECT is(ub_test.see('ub_test_service', '{"role": "x"}', 'SELECT count(*) FROM usage_billing.usage'), '60002', 'a service sees all');
SELECT is(ub_test.see('ub_test_service', '{"org_id": "org_3"}', 'SELECT count(*) FROM usage_billing.usage'), '1000', 'with a claim its organisation');
SELECT is(ub_test.see('ub_test_tenant', '{"role": "ub_test_service"}', 'SELECT count(*) FROM usage_billing.usage'), '42501', 'who merely says so does not');
SET LOCAL usage_billing.service_role = '';

-- What is derived, and what belongs to the DBA, is nothing for tenants even
-- where everything was granted.
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', format('SELECT count(*) FROM usage_billing.%I', c.relname)), '0', format('%s: nothing for a tenant', c.relname))
FROM pg_class c WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN (SELECT name FROM keyed);
SELECT cmp_ok(ub_test.see('ub_test_app', NULL, 'SELECT count(*) FROM usage_billing.usage_delta')::int, '>', 0, 'plain SQL sees it');

-- A right on a table alone is not enough: the policies ask these functions.
CREATE ROLE ub_test_half;
GRANT USAGE ON SCHEMA usage_billing TO ub_test_half;
GRANT SELECT ON ALL TABLES IN SCHEMA usage_billing TO ub_test_half;
SELECT is(ub_test.see('ub_test_half', NULL, 'SELECT count(*) FROM usage_billing.usage'), '42501', 'without the right to ask, nothing');

-- Writing: facts are for their owner, stored_file for who has the right and no scope.
GRANT INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA usage_billing TO ub_test_app, ub_test_tenant;
SELECT is(ub_test.see(r, claims, call), '42501', format('%s with %s: %s', r, coalesce(claims, 'no claims'), call))
FROM (VALUES ('ub_test_app', NULL), ('ub_test_tenant', '{"org_id": "org_3"}')) AS w (r, claims),
	(VALUES ('INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES (''acc_3'', gen_random_uuid(), 1) RETURNING 1'),
		('INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES (''acc_3'', gen_random_uuid(), 1) RETURNING 1'),
		('INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES (''acc_3'', ub_test.id(6002), 1) RETURNING 1'),
		('INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES (''acc_new'', ''org_3'') RETURNING 1'),
		('INSERT INTO usage_billing.project (project_id, org_id) VALUES (''prj_new'', ''org_3'') RETURNING 1'),
		('INSERT INTO usage_billing.credit_balance VALUES (''acc_3'', 1, 1) RETURNING 1'),
		('INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date) VALUES (''org_3'', ''2030-01-01'') RETURNING 1')) AS c (call);
SELECT is(ub_test.see(r, claims, 'WITH u AS (UPDATE usage_billing.billing_account SET credit_min = -1000 RETURNING 1) SELECT count(*) FROM u'), '0', format('%s changes no account', r))
FROM (VALUES ('ub_test_app', NULL), ('ub_test_tenant', '{"org_id": "org_3"}')) AS w (r, claims);
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', 'INSERT INTO usage_billing.stored_file (file_id, org_id) VALUES (''new'', ''org_3'') RETURNING 1'), '42501', 'a tenant stores no file');
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', 'WITH d AS (DELETE FROM usage_billing.stored_file RETURNING 1) SELECT count(*) FROM d'), '0', 'and removes none');
SELECT is(ub_test.see('ub_test_app', NULL, 'INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES (''new'', ''org_3'', 5) RETURNING 1'), '1', 'the application does');
SELECT is(ub_test.see('ub_test_app', NULL, 'WITH d AS (UPDATE usage_billing.stored_file SET bytes = 6 WHERE file_id = ''new'' RETURNING bytes) SELECT * FROM d'), '6', 'changes it');
SELECT is(ub_test.see('ub_test_app', NULL, 'WITH d AS (DELETE FROM usage_billing.stored_file WHERE file_id = ''new'' RETURNING bytes) SELECT * FROM d'), '6', 'and removes it');
CREATE ROLE ub_test_loader BYPASSRLS;
GRANT USAGE ON SCHEMA usage_billing, ub_test TO ub_test_loader;
GRANT SELECT, INSERT ON usage_billing.usage, usage_billing.credit_grant TO ub_test_loader;
SELECT is(ub_test.see('ub_test_loader', NULL, 'INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES (''acc_3'', ub_test.id(99999), 17) RETURNING amount'), '17', 'a role with BYPASSRLS loads facts');
SELECT is(ub_test.balance('acc_3'), (100 * 5 + 17 - 1000 * 5 - 100 * 5 + 100 * 2)::bigint, 'and they are posted');

-- What it costs.
CREATE TEMP TABLE plans AS
SELECT name || ' ' || rest AS query, table_name, p
FROM (VALUES ('usage', 'usage', ''), ('usage', 'usage', 'ORDER BY created_at DESC LIMIT 20'), ('usage', 'usage', 'WHERE billing_id = ''acc_3'' ORDER BY created_at DESC LIMIT 20'),
	('usage_remaining', 'usage', ''), ('account_statement', 'usage', 'ORDER BY created_at DESC LIMIT 20'), ('account_statement', 'usage_revert', ''),
	('account_statement', 'credit_grant', ''), ('credit_grant', 'credit_grant', ''), ('usage_revert', 'usage_revert', ''), ('stored_file', 'stored_file', ''),
	('storage_snapshot', 'storage_snapshot', ''), ('project', 'project', '')) AS q (name, table_name, rest)
CROSS JOIN LATERAL ub_test.plan('ub_test_tenant', '{"org_id": "org_3"}', format('SELECT * FROM usage_billing.%I %s', name, rest)) AS p;
SELECT matches(p, 'Index (Only )?Scan [^\n]*on ' || table_name || '\M|Bitmap Heap Scan on ' || table_name || '\M', format('%s: an index of %s', query, table_name)) FROM plans;
SELECT doesnt_match(p, 'Seq Scan on ' || table_name || '\M', format('%s: no scan of all', query)) FROM plans;
SELECT doesnt_match(p, 'request_(org|accounts)', format('%s: the functions are asked before', query)) FROM plans;

SET LOCAL track_functions = 'all';
CREATE FUNCTION ub_test.calls() RETURNS bigint
LANGUAGE sql AS $$ SELECT sum(pg_stat_get_xact_function_calls(p.oid))::bigint FROM pg_proc p WHERE p.proname IN ('request_org', 'request_accounts') $$;
SELECT coalesce(ub_test.calls(), 0) AS before \gset
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', 'SELECT count(*) FROM usage_billing.usage'), '1000', 'a thousand rows of sixty thousand');
SELECT cmp_ok(ub_test.calls() - :before, '<=', 3::bigint, 'take three questions at most');
SELECT ub_test.calls() AS before \gset
SELECT is(ub_test.see('ub_test_app', NULL, 'SELECT count(*) FROM usage_billing.usage'), '60002', 'and all of them');
SELECT cmp_ok(ub_test.calls() - :before, '<=', 3::bigint, 'no more');

-- In parallel workers the request is the same one.
SELECT count(set_config(name, 'on', true)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query') \gset
SELECT is(ub_test.see('ub_test_tenant', '{"org_id": "org_3"}', 'SELECT count(*) FROM usage_billing.usage'), '1000', 'a parallel query');
SELECT is(ub_test.see('ub_test_tenant', '{}', 'SELECT count(*) FROM usage_billing.usage'), '42501', 'one that is refused');

SELECT is(ub_test.books(), '', 'the books are right in the end');
SELECT * FROM finish();
ROLLBACK;
