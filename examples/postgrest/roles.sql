-- Roles for PostgREST, and exactly what each may do. Run it once as a superuser
-- in the database that has the extension; running it again changes nothing.
--
--   psql -d app -f roles.sql
--
-- authenticator     logs in for PostgREST, owns nothing, and becomes one of:
-- web_anon          a request without a token: may do nothing
-- billing_tenant    a token with an org_id: reads what belongs to that
--                   organisation, reports its usage, refreshes its storage
-- billing_service   the application: all that goes over HTTP. A token of this
--                   role without an org_id reaches every organisation.
\set ON_ERROR_STOP on
BEGIN;
SET LOCAL client_min_messages = warning;

SELECT format('CREATE ROLE %I %s', name, login)
FROM (VALUES ('authenticator', 'LOGIN NOINHERIT'), ('web_anon', 'NOLOGIN'),
	('billing_tenant', 'NOLOGIN'), ('billing_service', 'NOLOGIN')) AS wanted (name, login)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

GRANT web_anon, billing_tenant, billing_service TO authenticator;

GRANT USAGE ON SCHEMA usage_billing TO billing_tenant, billing_service;

-- What a tenant reads, and what only adds to what it owes.
GRANT EXECUTE ON FUNCTION
	usage_billing.account_balance(text, text, text),
	usage_billing.account_transactions(timestamptz, timestamptz, integer, text, text, text, text),
	usage_billing.account_usage_trend(text, text, jsonb, text, text, text, text),
	usage_billing.create_usage(jsonb, text, text, text),
	usage_billing.get_storage_usage(text),
	usage_billing.get_storage_usage_history(integer, text),
	usage_billing.refresh_storage_usage(text),
	usage_billing.request_accounts(),
	usage_billing.request_org(),
	usage_billing.total_debited(text, text, text),
	usage_billing.usage_series(timestamptz, timestamptz, text, text, text, usage_billing.usage_type, text, text, text)
TO billing_tenant, billing_service;

-- Rows, for GET /usage?…: row-level security shows a tenant its own.
GRANT SELECT ON
	usage_billing.account_statement,
	usage_billing.billing_account,
	usage_billing.credit_grant,
	usage_billing.project,
	usage_billing.storage_limit,
	usage_billing.storage_snapshot,
	usage_billing.stored_file,
	usage_billing.usage,
	usage_billing.usage_archive,
	usage_billing.usage_remaining,
	usage_billing.usage_revert
TO billing_tenant, billing_service;

-- What gives credits, makes accounts, moves billing dates or costs a lot.
GRANT EXECUTE ON FUNCTION
	usage_billing.close_billing_period(timestamptz, text, text, text),
	usage_billing.create_billing_account(text, text, bigint, boolean, jsonb),
	usage_billing.create_project(text, text),
	usage_billing.grant_credits(uuid, bigint, text, text, text, text, text, text, jsonb),
	usage_billing.prune_usage(timestamptz, text, integer),
	usage_billing.rebuild(text),
	usage_billing.recount_storage_usage(text),
	usage_billing.reset_usage_billing_stats(),
	usage_billing.revert_usage(uuid, bigint, text, text, text, uuid, text, text, jsonb),
	usage_billing.run_maintenance(),
	usage_billing.set_storage_limits(text, bigint, bigint, bigint),
	usage_billing.verify(text)
TO billing_service;

-- track_storage and untrack_storage are for the owner of a table, in psql.

SELECT format('ALTER DATABASE %I SET usage_billing.service_role = %L', current_database(), 'billing_service')
\gexec

-- A request that takes longer is not what HTTP is for.
ALTER ROLE web_anon SET statement_timeout = '1s';
ALTER ROLE billing_tenant SET statement_timeout = '15s';
ALTER ROLE billing_service SET statement_timeout = '60s';

COMMIT;

-- PostgREST reads functions, rights and comments once, at its start: tell a
-- running one to read them again.
NOTIFY pgrst, 'reload schema';
