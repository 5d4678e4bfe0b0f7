-- What callers use. Every function says in its first line what it does; the
-- rest is for who wants to know (PostgREST shows both).

CREATE FUNCTION usage_billing.create_billing_account(
	org_id text DEFAULT NULL, billing_id text DEFAULT NULL,
	credit_min bigint DEFAULT 0, is_default boolean DEFAULT NULL,
	metadata jsonb DEFAULT '{}')
	RETURNS usage_billing.billing_account
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_create_billing_account';

CREATE FUNCTION usage_billing.create_project(
	project_id text, org_id text DEFAULT NULL)
	RETURNS usage_billing.project
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_create_project';

CREATE FUNCTION usage_billing.grant_credits(
	id uuid, amount bigint,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL,
	source text DEFAULT NULL, description text DEFAULT NULL, user_id text DEFAULT NULL,
	metadata jsonb DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_grant_credits';

CREATE FUNCTION usage_billing.create_usage(
	usages jsonb,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_create_usage';

CREATE FUNCTION usage_billing.revert_usage(
	usage_id uuid, amount bigint DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL,
	id uuid DEFAULT NULL, description text DEFAULT NULL, user_id text DEFAULT NULL,
	metadata jsonb DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_revert_usage';

CREATE FUNCTION usage_billing.account_balance(
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_account_balance';

CREATE FUNCTION usage_billing.total_debited(
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_total_debited';

CREATE FUNCTION usage_billing.account_transactions(
	"from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	max_rows integer DEFAULT 100, before text DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS TABLE (id uuid, kind text, type text, amount bigint, source text,
		description text, user_id text, metadata jsonb, created_at timestamptz, cursor text)
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_account_transactions';
