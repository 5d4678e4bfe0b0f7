-- Reading the hours.

CREATE TYPE usage_billing.usage_bucket AS (
	bucket_start	timestamptz,
	source			text,
	type			usage_billing.usage_type,
	events			bigint,
	amount			bigint
);

CREATE FUNCTION usage_billing.account_usage_trend(
	"from" text DEFAULT NULL, "to" text DEFAULT NULL,
	filter jsonb DEFAULT NULL, include text DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_account_usage_trend';

CREATE FUNCTION usage_billing.usage_series(
	"from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	bucket text DEFAULT 'hour', time_zone text DEFAULT 'UTC',
	source text DEFAULT NULL, type usage_billing.usage_type DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS SETOF usage_billing.usage_bucket
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_usage_series';

CREATE FUNCTION usage_billing.close_billing_period(
	"at" timestamptz DEFAULT now(),
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS timestamptz
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_close_billing_period';
