-- Generated from sql/install/ by make.
\echo Use "CREATE EXTENSION usage_billing" to load this file. \quit
-- What a usage is: credits that are taken from the balance, or a feature
-- that is only counted.
CREATE TYPE usage_billing.usage_type AS ENUM ('credit', 'feature');

COMMENT ON TYPE usage_billing.usage_type IS
'What a usage is counted in
credit: the amount is taken from the account''s balance. feature: the amount is counted and never touches the balance.';
-- The facts. People COPY into these tables, so their names and columns are
-- part of the contract. There are no foreign keys between them: a parallel
-- restore could not be ordered.

CREATE TABLE usage_billing.billing_account (
	billing_id		text COLLATE "C" NOT NULL,
	org_id			text COLLATE "C" NOT NULL,
	is_default		boolean NOT NULL,
	credit_min		bigint NOT NULL DEFAULT 0,
	state			text COLLATE "C" NOT NULL DEFAULT 'active'
		CONSTRAINT billing_account_state_check CHECK (state IN ('active', 'closed')),
	last_billed_at	timestamptz,
	metadata		jsonb NOT NULL DEFAULT '{}',
	created_at		timestamptz NOT NULL,
	updated_at		timestamptz NOT NULL,
	CONSTRAINT billing_account_pkey PRIMARY KEY (billing_id)
);
CREATE INDEX billing_account_org ON usage_billing.billing_account (org_id);
CREATE UNIQUE INDEX billing_account_default
	ON usage_billing.billing_account (org_id) WHERE is_default;

CREATE TABLE usage_billing.project (
	project_id		text COLLATE "C" NOT NULL,
	org_id			text COLLATE "C" NOT NULL,
	created_at		timestamptz NOT NULL,
	CONSTRAINT project_pkey PRIMARY KEY (project_id)
);
CREATE INDEX project_org ON usage_billing.project (org_id);

CREATE TABLE usage_billing.credit_grant (
	billing_id		text COLLATE "C" NOT NULL,
	id				uuid NOT NULL,
	amount			bigint NOT NULL,
	source			text COLLATE "C" NOT NULL DEFAULT 'system.buy',
	description		text,
	user_id			text COLLATE "C",
	metadata		jsonb NOT NULL DEFAULT '{}',
	created_at		timestamptz NOT NULL,
	CONSTRAINT credit_grant_pkey PRIMARY KEY (billing_id, id)
);
CREATE INDEX credit_grant_time ON usage_billing.credit_grant (billing_id, created_at);

CREATE TABLE usage_billing.usage (
	billing_id		text COLLATE "C" NOT NULL,
	id				uuid NOT NULL,
	type			usage_billing.usage_type NOT NULL DEFAULT 'credit',
	amount			bigint NOT NULL,
	source			text COLLATE "C" NOT NULL DEFAULT 'system',
	description		text,
	user_id			text COLLATE "C",
	metadata		jsonb NOT NULL DEFAULT '{}',
	created_at		timestamptz NOT NULL,
	updated_at		timestamptz NOT NULL,
	CONSTRAINT usage_pkey PRIMARY KEY (billing_id, id)
);
CREATE INDEX usage_time ON usage_billing.usage (billing_id, created_at);

CREATE TABLE usage_billing.usage_revert (
	billing_id		text COLLATE "C" NOT NULL,
	usage_id		uuid NOT NULL,
	revert_no		smallint NOT NULL DEFAULT 1,
	id				uuid NOT NULL,
	amount			bigint NOT NULL,
	description		text,
	user_id			text COLLATE "C",
	metadata		jsonb NOT NULL DEFAULT '{}',
	created_at		timestamptz NOT NULL,
	usage_type		usage_billing.usage_type NOT NULL,
	usage_source	text COLLATE "C" NOT NULL,
	usage_at		timestamptz NOT NULL,
	usage_events	smallint NOT NULL,
	viewing_seconds	bigint NOT NULL,
	viewing_bytes	bigint NOT NULL,
	egress_seconds	bigint NOT NULL,
	egress_seconds_additional_targets bigint NOT NULL,
	egress_bytes	bigint NOT NULL,
	CONSTRAINT usage_revert_pkey PRIMARY KEY (billing_id, usage_id, revert_no),
	CONSTRAINT usage_revert_id_key UNIQUE (billing_id, id)
);
CREATE INDEX usage_revert_time ON usage_billing.usage_revert (billing_id, created_at);

-- What prune_usage took out of usage, summed up. A row is what one batch took of
-- an hour; an hour may have several. So it is a fact like any other: it never
-- changes, and loading it again adds nothing.
CREATE TABLE usage_billing.usage_archive (
	billing_id		text COLLATE "C" NOT NULL,
	id				uuid NOT NULL,
	hour			timestamptz NOT NULL,
	source			text COLLATE "C" NOT NULL DEFAULT 'system',
	type			usage_billing.usage_type NOT NULL DEFAULT 'credit',
	amount			bigint NOT NULL,
	events			bigint NOT NULL,
	viewing_seconds	bigint NOT NULL DEFAULT 0,
	viewing_bytes	bigint NOT NULL DEFAULT 0,
	egress_seconds	bigint NOT NULL DEFAULT 0,
	egress_seconds_additional_targets bigint NOT NULL DEFAULT 0,
	egress_bytes	bigint NOT NULL DEFAULT 0,
	created_at		timestamptz NOT NULL,
	CONSTRAINT usage_archive_pkey PRIMARY KEY (billing_id, id)
);

SELECT pg_catalog.pg_extension_config_dump('usage_billing.billing_account', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.project', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.credit_grant', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.usage', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.usage_archive', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.usage_revert', '');
-- What is derived from the facts. Never dumped: a restore rebuilds it, because
-- the triggers on the facts fire then as they always do.

-- What statements append. A row says how one statement changed an account's
-- balance and the sums of one hour (UTC); a grant has none, which is -infinity.
-- A sum of 0 is null, which takes no room. No key: rows are only appended here
-- and moved out by folding. xact is the transaction that appended the row: an
-- account's rows are read from credit_balance.folded_below on, so that what was
-- folded before costs nothing, also while an old snapshot keeps it from being
-- vacuumed.
CREATE TABLE usage_billing.usage_delta (
	billing_id		text COLLATE "C" NOT NULL,
	hour			timestamptz NOT NULL,
	source			text COLLATE "C" NOT NULL,
	type			usage_billing.usage_type,
	xact			xid8 NOT NULL DEFAULT pg_current_xact_id(),
	credits			bigint,
	debited			bigint,
	amount			bigint,
	events			bigint,
	viewing_seconds	bigint,
	viewing_bytes	bigint,
	egress_seconds	bigint,
	egress_seconds_additional_targets bigint,
	egress_bytes	bigint
) WITH (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0,
		autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0,
		autovacuum_analyze_threshold = 100000, autovacuum_analyze_scale_factor = 0);
CREATE INDEX usage_delta_key ON usage_billing.usage_delta (billing_id, xact);
ALTER TABLE usage_billing.usage_delta REPLICA IDENTITY FULL;

-- numeric, so that folding can't overflow; readers answer in bigint. No delta of
-- a transaction below folded_below is left: all of those had ended when the
-- account was folded last. That is about the transactions of the cluster that
-- folded: folded_by is the one that wrote the row, so where replication wrote it,
-- it isn't the row's xmin.
CREATE TABLE usage_billing.credit_balance (
	billing_id		text COLLATE "C" NOT NULL,
	balance			numeric NOT NULL,
	debited			numeric NOT NULL,
	folded_below	xid8 NOT NULL DEFAULT '0',
	folded_by		xid8 NOT NULL DEFAULT '0',
	CONSTRAINT credit_balance_pkey PRIMARY KEY (billing_id)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000,
		autovacuum_vacuum_scale_factor = 0.05);

-- Accounts that had a posting so large that their sums may leave bigint. Every
-- later posting of theirs is checked against it.
CREATE TABLE usage_billing.large_account (
	billing_id		text COLLATE "C" NOT NULL,
	CONSTRAINT large_account_pkey PRIMARY KEY (billing_id)
);

CREATE TABLE usage_billing.usage_hourly (
	billing_id		text COLLATE "C" NOT NULL,
	hour			timestamptz NOT NULL,
	source			text COLLATE "C" NOT NULL,
	type			usage_billing.usage_type NOT NULL,
	amount			bigint NOT NULL,
	events			bigint NOT NULL,
	viewing_seconds	bigint NOT NULL DEFAULT 0,
	viewing_bytes	bigint NOT NULL DEFAULT 0,
	egress_seconds	bigint NOT NULL DEFAULT 0,
	egress_seconds_additional_targets bigint NOT NULL DEFAULT 0,
	egress_bytes	bigint NOT NULL DEFAULT 0,
	CONSTRAINT usage_hourly_pkey PRIMARY KEY (billing_id, hour, source, type)
) WITH (fillfactor = 80, autovacuum_vacuum_threshold = 5000,
		autovacuum_vacuum_scale_factor = 0.02);
-- The triggers that keep every promise for every way in. Row triggers check
-- and complete a fact and skip the ones that are there already; statement
-- triggers post what was stored; the others keep facts from changing.

CREATE FUNCTION usage_billing.account_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_insert';
CREATE FUNCTION usage_billing.account_before_update() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_update';
CREATE FUNCTION usage_billing.account_before_delete() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_delete';
CREATE FUNCTION usage_billing.account_after_delete() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_after_delete';
CREATE FUNCTION usage_billing.project_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_project_before_insert';
CREATE FUNCTION usage_billing.usage_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_usage_before_insert';
CREATE FUNCTION usage_billing.usage_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_usage_after_insert';
CREATE FUNCTION usage_billing.grant_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_grant_before_insert';
CREATE FUNCTION usage_billing.grant_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_grant_after_insert';
CREATE FUNCTION usage_billing.revert_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_revert_before_insert';
CREATE FUNCTION usage_billing.revert_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_revert_after_insert';
CREATE FUNCTION usage_billing.archive_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_archive_before_insert';
CREATE FUNCTION usage_billing.archive_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_archive_after_insert';
CREATE FUNCTION usage_billing.fact_is_append_only() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_fact_is_append_only';

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.billing_account
	FOR EACH ROW EXECUTE FUNCTION usage_billing.account_before_insert();
CREATE TRIGGER before_update BEFORE UPDATE ON usage_billing.billing_account
	FOR EACH ROW EXECUTE FUNCTION usage_billing.account_before_update();
CREATE TRIGGER before_delete BEFORE DELETE OR TRUNCATE ON usage_billing.billing_account
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.account_before_delete();
CREATE TRIGGER after_delete AFTER DELETE ON usage_billing.billing_account
	REFERENCING OLD TABLE AS removed
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.account_after_delete();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.project
	FOR EACH ROW EXECUTE FUNCTION usage_billing.project_before_insert();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage
	FOR EACH ROW EXECUTE FUNCTION usage_billing.usage_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.usage_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.credit_grant
	FOR EACH ROW EXECUTE FUNCTION usage_billing.grant_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.credit_grant
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.grant_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.credit_grant
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage_revert
	FOR EACH ROW EXECUTE FUNCTION usage_billing.revert_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage_revert
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.revert_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage_revert
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage_archive
	FOR EACH ROW EXECUTE FUNCTION usage_billing.archive_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage_archive
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.archive_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage_archive
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();
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
-- Keeping derived state small, proving it and making it anew.

CREATE FUNCTION usage_billing.run_maintenance() RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_run_maintenance';

CREATE FUNCTION usage_billing.rebuild(billing_id text DEFAULT NULL) RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_rebuild';

CREATE FUNCTION usage_billing.prune_usage(
	older_than timestamptz, billing_id text DEFAULT NULL, max_rows integer DEFAULT 10000)
	RETURNS bigint
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_prune_usage';

CREATE FUNCTION usage_billing.require_unscoped() RETURNS void
	LANGUAGE c STABLE
	AS 'MODULE_PATHNAME', 'ub_require_unscoped';

-- The measurements of a delivery usage, in the order of usage_hourly's columns;
-- null for other usages.
CREATE FUNCTION usage_billing.delivery_measures(
	type usage_billing.usage_type, source text, metadata jsonb) RETURNS bigint[]
	LANGUAGE c STABLE
	AS 'MODULE_PATHNAME', 'ub_delivery_measures';

-- What the facts say (is_fact) and what the derived state holds, pending and
-- folded, by key. An account's balance and debits stand at the hour -infinity,
-- the sums of an hour at that hour. account null: all.
CREATE FUNCTION usage_billing.derived_sums(account text)
	RETURNS TABLE (is_fact boolean, billing_id text, hour timestamptz, source text,
		type usage_billing.usage_type, credits numeric, debited numeric, amount numeric,
		events numeric, viewing_seconds numeric, viewing_bytes numeric,
		egress_seconds numeric, egress_seconds_additional_targets numeric,
		egress_bytes numeric)
	LANGUAGE sql STABLE
BEGIN ATOMIC
	-- the deltas that readers see, by credit_balance.folded_below
	WITH pending AS (
		SELECT x.*
		FROM usage_billing.usage_delta x
		LEFT JOIN usage_billing.credit_balance b ON b.billing_id = x.billing_id
			AND b.xmin = xid(b.folded_by)
		WHERE (account IS NULL OR x.billing_id = account)
			AND (b.billing_id IS NULL OR x.xact >= b.folded_below)
	), fact_hours AS (
		SELECT u.billing_id, u.hour, u.source, u.type, sum(u.amount) AS amount, count(*) AS events,
			sum(u.m[1]) AS m1, sum(u.m[2]) AS m2, sum(u.m[3]) AS m3, sum(u.m[4]) AS m4, sum(u.m[5]) AS m5
		FROM (SELECT x.billing_id, date_trunc('hour', x.created_at, 'UTC') AS hour, x.source, x.type,
				x.amount, usage_billing.delivery_measures(x.type, x.source, x.metadata) AS m
			FROM usage_billing.usage x
			WHERE account IS NULL OR x.billing_id = account) AS u
		GROUP BY u.billing_id, u.hour, u.source, u.type
		UNION ALL
		SELECT a.billing_id, a.hour, a.source, a.type, sum(a.amount), sum(a.events), sum(a.viewing_seconds),
			sum(a.viewing_bytes), sum(a.egress_seconds), sum(a.egress_seconds_additional_targets), sum(a.egress_bytes)
		FROM usage_billing.usage_archive a
		WHERE account IS NULL OR a.billing_id = account
		GROUP BY a.billing_id, a.hour, a.source, a.type
		UNION ALL
		SELECT r.billing_id, date_trunc('hour', r.usage_at, 'UTC'), r.usage_source, r.usage_type,
			-sum(r.amount), -sum(r.usage_events), -sum(r.viewing_seconds), -sum(r.viewing_bytes),
			-sum(r.egress_seconds), -sum(r.egress_seconds_additional_targets), -sum(r.egress_bytes)
		FROM usage_billing.usage_revert r
		WHERE account IS NULL OR r.billing_id = account
		GROUP BY 1, 2, 3, 4
	)
	SELECT true, f.billing_id, f.hour, f.source, f.type, 0, 0, f.amount, f.events,
		f.m1, f.m2, f.m3, f.m4, f.m5
	FROM fact_hours f
	UNION ALL
	SELECT true, f.billing_id, '-infinity', '', NULL, -f.amount, f.amount, 0, 0, 0, 0, 0, 0, 0
	FROM fact_hours f
	WHERE f.type = 'credit'
	UNION ALL
	SELECT true, g.billing_id, '-infinity', '', NULL, sum(g.amount), 0, 0, 0, 0, 0, 0, 0, 0
	FROM usage_billing.credit_grant g
	WHERE account IS NULL OR g.billing_id = account
	GROUP BY g.billing_id
	UNION ALL
	SELECT false, d.billing_id, d.hour, d.source, d.type, 0, 0, d.amount, d.events, d.viewing_seconds,
		d.viewing_bytes, d.egress_seconds, d.egress_seconds_additional_targets, d.egress_bytes
	FROM pending d
	WHERE d.hour > '-infinity' AND (account IS NULL OR d.billing_id = account)
	UNION ALL
	SELECT false, d.billing_id, '-infinity', '', NULL, d.credits, d.debited, 0, 0, 0, 0, 0, 0, 0
	FROM pending d
	WHERE account IS NULL OR d.billing_id = account
	UNION ALL
	SELECT false, h.billing_id, h.hour, h.source, h.type, 0, 0, h.amount, h.events, h.viewing_seconds,
		h.viewing_bytes, h.egress_seconds, h.egress_seconds_additional_targets, h.egress_bytes
	FROM usage_billing.usage_hourly h
	WHERE account IS NULL OR h.billing_id = account
	UNION ALL
	SELECT false, b.billing_id, '-infinity', '', NULL, b.balance, b.debited, 0, 0, 0, 0, 0, 0, 0
	FROM usage_billing.credit_balance b
	WHERE account IS NULL OR b.billing_id = account;
END;

-- Where the facts and the derived state differ. The nine sums stand in the order
-- of usage_delta's columns.
CREATE FUNCTION usage_billing.derived_differences(account text)
	RETURNS TABLE (billing_id text, hour timestamptz, source text,
		type usage_billing.usage_type, expected numeric[], actual numeric[])
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT d.billing_id, d.hour, d.source, d.type, d.expected, d.actual
	FROM (SELECT s.billing_id, s.hour, s.source, s.type,
			ARRAY[coalesce(sum(s.credits) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.debited) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.amount) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.events) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.viewing_seconds) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.viewing_bytes) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.egress_seconds) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.egress_seconds_additional_targets) FILTER (WHERE s.is_fact), 0),
				coalesce(sum(s.egress_bytes) FILTER (WHERE s.is_fact), 0)] AS expected,
			ARRAY[coalesce(sum(s.credits) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.debited) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.amount) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.events) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.viewing_seconds) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.viewing_bytes) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.egress_seconds) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.egress_seconds_additional_targets) FILTER (WHERE NOT s.is_fact), 0),
				coalesce(sum(s.egress_bytes) FILTER (WHERE NOT s.is_fact), 0)] AS actual
		FROM usage_billing.derived_sums(account) AS s
		GROUP BY s.billing_id, s.hour, s.source, s.type) AS d
	WHERE d.expected <> d.actual;
END;

CREATE FUNCTION usage_billing.verify(billing_id text DEFAULT NULL)
	RETURNS TABLE (subject text, key text, expected text, actual text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	account text := nullif(verify.billing_id, '');
BEGIN
	PERFORM usage_billing.require_unscoped();
	RETURN QUERY
	WITH differences AS (
		SELECT * FROM usage_billing.derived_differences(account)
	), facts AS (
		SELECT 'usage' AS name, u.billing_id, count(*) AS n FROM usage_billing.usage u
		WHERE account IS NULL OR u.billing_id = account GROUP BY u.billing_id
		UNION ALL
		SELECT 'credit_grant', g.billing_id, count(*) FROM usage_billing.credit_grant g
		WHERE account IS NULL OR g.billing_id = account GROUP BY g.billing_id
		UNION ALL
		SELECT 'usage_archive', h.billing_id, count(*) FROM usage_billing.usage_archive h
		WHERE account IS NULL OR h.billing_id = account GROUP BY h.billing_id
		UNION ALL
		SELECT 'usage_revert', r.billing_id, count(*) FROM usage_billing.usage_revert r
		WHERE account IS NULL OR r.billing_id = account GROUP BY r.billing_id
	)
	SELECT 'balance', d.billing_id, d.expected[1]::text, d.actual[1]::text
	FROM differences d WHERE d.hour = '-infinity' AND d.expected[1] <> d.actual[1]
	UNION ALL
	SELECT 'debited', d.billing_id, d.expected[2]::text, d.actual[2]::text
	FROM differences d WHERE d.hour = '-infinity' AND d.expected[2] <> d.actual[2]
	UNION ALL
	SELECT 'hour',
		format('%s %s %s %s', d.billing_id, to_char(d.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:00"Z"'),
			   d.source, d.type),
		format('amount %s, events %s, measurements %s', d.expected[3], d.expected[4], d.expected[5:9]),
		format('amount %s, events %s, measurements %s', d.actual[3], d.actual[4], d.actual[5:9])
	FROM differences d WHERE d.hour > '-infinity'
	UNION ALL
	SELECT 'orphan', format('%s of account %s', f.name, f.billing_id), '0 rows', format('%s rows', f.n)
	FROM facts f
	WHERE NOT EXISTS (SELECT FROM usage_billing.billing_account a WHERE a.billing_id = f.billing_id)
	UNION ALL
	SELECT 'revert', format('%s usage %s', r.billing_id, r.usage_id),
		format('at most %s %s of %s, events %s', u.amount, u.type, u.source, (r.amount = u.amount)::int),
		format('%s %s of %s, events %s, measurements %s', r.amount, r.usage_type, r.usage_source, r.events, r.measures)
	FROM (SELECT x.billing_id, x.usage_id, x.usage_type, x.usage_source, x.usage_at, sum(x.amount) AS amount,
			sum(x.usage_events) AS events, ARRAY[sum(x.viewing_seconds), sum(x.viewing_bytes), sum(x.egress_seconds),
				sum(x.egress_seconds_additional_targets), sum(x.egress_bytes)]::numeric[] AS measures
		FROM usage_billing.usage_revert x
		WHERE account IS NULL OR x.billing_id = account
		GROUP BY x.billing_id, x.usage_id, x.usage_type, x.usage_source, x.usage_at) AS r
	JOIN usage_billing.usage u ON u.billing_id = r.billing_id AND u.id = r.usage_id
	WHERE r.amount > u.amount OR r.usage_type <> u.type OR r.usage_source <> u.source
		OR r.usage_at <> u.created_at
		-- only what leaves nothing takes the event, and no more than was measured
		OR r.events <> (r.amount = u.amount)::int
		OR EXISTS (SELECT FROM unnest(r.measures,
				coalesce(usage_billing.delivery_measures(u.type, u.source, u.metadata), '{0,0,0,0,0}')) AS m (taken, measured)
			WHERE m.taken > m.measured);
END;
$$;
-- Storage: what an organisation's files take, kept by triggers on the tables
-- that hold them, and a snapshot of it a day.

CREATE TABLE usage_billing.storage_limit (
	org_id				text COLLATE "C" NOT NULL,
	max_image_count		bigint CHECK (max_image_count >= 0),
	max_video_count		bigint CHECK (max_video_count >= 0),
	max_project_count	bigint CHECK (max_project_count >= 0),
	CONSTRAINT storage_limit_pkey PRIMARY KEY (org_id)
);

CREATE TABLE usage_billing.storage_source (
	relation			regclass NOT NULL,
	org_column			name NOT NULL,
	bytes_column		name NOT NULL,
	kind				text,
	kind_column			name,
	duration_column		name,
	source_id			uuid NOT NULL DEFAULT gen_random_uuid(),
	CONSTRAINT storage_source_pkey PRIMARY KEY (relation),
	CONSTRAINT storage_source_id_key UNIQUE (source_id),
	CONSTRAINT storage_source_kind_check CHECK (kind IS NULL OR kind_column IS NULL)
);

-- A table of files for those who have none of their own.
CREATE TABLE usage_billing.stored_file (
	file_id				text COLLATE "C" NOT NULL,
	org_id				text COLLATE "C" NOT NULL,
	project_id			text COLLATE "C",
	kind				text NOT NULL DEFAULT 'file',
	bytes				bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
	duration_seconds	numeric CHECK (duration_seconds >= 0),
	created_at			timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT stored_file_pkey PRIMARY KEY (file_id)
);
CREATE INDEX stored_file_org ON usage_billing.stored_file (org_id);

CREATE TABLE usage_billing.storage_snapshot (
	org_id				text COLLATE "C" NOT NULL,
	snapshot_date		date NOT NULL,
	project_count		bigint NOT NULL DEFAULT 0,
	image_file_count	bigint NOT NULL DEFAULT 0,
	image_storage_bytes	bigint NOT NULL DEFAULT 0,
	video_file_count	bigint NOT NULL DEFAULT 0,
	video_storage_bytes	bigint NOT NULL DEFAULT 0,
	total_file_count	bigint NOT NULL DEFAULT 0,
	total_storage_bytes	bigint NOT NULL DEFAULT 0,
	total_video_minutes	numeric NOT NULL DEFAULT 0,
	last_updated		timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT storage_snapshot_pkey PRIMARY KEY (org_id, snapshot_date)
);

-- Derived: what statements on a source appended, what is folded, and when a
-- source was counted last. A source without an entry there has to be counted.
-- A source has an id of its own because the table's OID differs on a logical
-- subscriber.
CREATE TABLE usage_billing.storage_delta (
	org_id				text COLLATE "C" NOT NULL,
	source_id			uuid NOT NULL,
	kind				text COLLATE "C" NOT NULL,
	files				bigint NOT NULL,
	bytes				numeric NOT NULL,
	seconds				numeric NOT NULL
) WITH (autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0,
		autovacuum_vacuum_insert_threshold = -1, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX storage_delta_org ON usage_billing.storage_delta (org_id);
ALTER TABLE usage_billing.storage_delta REPLICA IDENTITY FULL;

CREATE TABLE usage_billing.storage_total (
	org_id				text COLLATE "C" NOT NULL,
	source_id			uuid NOT NULL,
	kind				text COLLATE "C" NOT NULL,
	files				bigint NOT NULL,
	bytes				numeric NOT NULL,
	seconds				numeric NOT NULL,
	CONSTRAINT storage_total_pkey PRIMARY KEY (org_id, source_id, kind)
) WITH (fillfactor = 70);

CREATE TABLE usage_billing.storage_counted (
	source_id			uuid NOT NULL,
	counted_at			timestamptz NOT NULL,
	CONSTRAINT storage_counted_pkey PRIMARY KEY (source_id)
);

CREATE TYPE usage_billing.storage_usage AS (
	org_id				text,
	snapshot_date		date,
	last_updated		timestamptz,
	project_count		bigint,
	image_file_count	bigint,
	image_storage_bytes	bigint,
	video_file_count	bigint,
	video_storage_bytes	bigint,
	total_file_count	bigint,
	total_storage_bytes	bigint,
	total_video_minutes	text,
	max_image_count		bigint,
	max_video_count		bigint,
	max_project_count	bigint
);

SELECT pg_catalog.pg_extension_config_dump('usage_billing.storage_limit', '');
-- the extension itself tracks its own table
SELECT pg_catalog.pg_extension_config_dump('usage_billing.storage_source',
	'WHERE relation <> ''usage_billing.stored_file''::pg_catalog.regclass
	AND EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = relation)');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.stored_file', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.storage_snapshot', '');

CREATE FUNCTION usage_billing.storage_changed() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_storage_changed';
CREATE FUNCTION usage_billing.storage_truncated() RETURNS trigger
	LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_storage_truncated';
CREATE FUNCTION usage_billing.snapshot_before_insert() RETURNS trigger
	LANGUAGE c SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_snapshot_before_insert';

CREATE FUNCTION usage_billing.check_ids() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_check_ids';

CREATE TRIGGER check_ids BEFORE INSERT OR UPDATE ON usage_billing.storage_limit
	FOR EACH ROW EXECUTE FUNCTION usage_billing.check_ids('org_id');
CREATE TRIGGER check_ids BEFORE INSERT OR UPDATE ON usage_billing.stored_file
	FOR EACH ROW EXECUTE FUNCTION usage_billing.check_ids('file_id', 'org_id');
CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.storage_snapshot
	FOR EACH ROW EXECUTE FUNCTION usage_billing.snapshot_before_insert();

CREATE FUNCTION usage_billing.track_storage(
	relation regclass, org_column name, bytes_column name,
	kind text DEFAULT NULL, kind_column name DEFAULT NULL, duration_column name DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_track_storage';

CREATE FUNCTION usage_billing.untrack_storage(relation regclass) RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_untrack_storage';

CREATE FUNCTION usage_billing.refresh_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_refresh_storage_usage';

CREATE FUNCTION usage_billing.recount_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_recount_storage_usage';

CREATE FUNCTION usage_billing.get_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_get_storage_usage';

CREATE FUNCTION usage_billing.get_storage_usage_history(
	days integer DEFAULT 30, org_id text DEFAULT NULL)
	RETURNS SETOF usage_billing.storage_usage
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_get_storage_usage_history';

CREATE FUNCTION usage_billing.set_storage_limits(
	org_id text DEFAULT NULL, max_image_count bigint DEFAULT NULL,
	max_video_count bigint DEFAULT NULL, max_project_count bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_set_storage_limits';

SELECT usage_billing.track_storage('usage_billing.stored_file', 'org_id', 'bytes',
	kind_column => 'kind', duration_column => 'duration_seconds');
-- the same on every node that replicates it
UPDATE usage_billing.storage_source SET source_id = '00000000-0000-0000-0000-000000000001';
-- What the maintenance did last, and what waits for it.

CREATE TABLE usage_billing.maintenance_duty (
	duty			text COLLATE "C" NOT NULL,
	last_start		timestamptz,
	duration		interval,
	rows_done		bigint,
	last_error		text,
	last_error_at	timestamptz,
	done_until		timestamptz,
	CONSTRAINT maintenance_duty_pkey PRIMARY KEY (duty)
) WITH (fillfactor = 10);

INSERT INTO usage_billing.maintenance_duty (duty) VALUES
	('fold'), ('pack_hours'), ('storage_recount'), ('storage_refresh'), ('vacuum_deltas');

CREATE VIEW usage_billing.maintenance_status AS
SELECT m.duty, m.last_start, m.duration, m.rows_done,
	CASE m.duty
		WHEN 'fold' THEN (SELECT count(*) FROM usage_billing.usage_delta)
		WHEN 'pack_hours' THEN
			(date_trunc('day', now() - interval '2 hours', 'UTC') AT TIME ZONE 'UTC')::date
			- (m.done_until AT TIME ZONE 'UTC')::date
		WHEN 'storage_recount' THEN
			(SELECT count(*)
			 FROM usage_billing.storage_source s
			 LEFT JOIN usage_billing.storage_counted c USING (source_id)
			 WHERE c.counted_at IS NULL OR c.counted_at < now()
				- coalesce(current_setting('usage_billing.storage_recount_interval', true), '1 day')::interval)
		WHEN 'storage_refresh' THEN (SELECT count(DISTINCT d.org_id) FROM usage_billing.storage_delta d)
		WHEN 'vacuum_deltas' THEN
			pg_stat_get_dead_tuples('usage_billing.usage_delta'::regclass)
			+ pg_stat_get_dead_tuples('usage_billing.storage_delta'::regclass)
	END AS backlog,
	m.last_error, m.last_error_at
FROM usage_billing.maintenance_duty m;

-- What happened in this database since the counts began. The number of pending
-- deltas is the statistics collector's, which costs nothing.
CREATE FUNCTION usage_billing.read_stats(
	OUT usages_created bigint, OUT duplicates bigint, OUT reverts bigint, OUT grants bigint,
	OUT usages_pruned bigint, OUT folds bigint, OUT deltas_folded bigint, OUT refreshes bigint,
	OUT conflicts bigint, OUT refused bigint, OUT admissions bigint, OUT admissions_waited bigint,
	OUT admissions_read bigint, OUT maintenance_errors bigint, OUT stats_reset timestamptz)
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'ub_read_stats';

CREATE VIEW usage_billing.usage_billing_stats AS
SELECT s.usages_created, s.duplicates, s.conflicts, s.refused, s.reverts, s.grants, s.usages_pruned,
	s.admissions, s.admissions_waited, s.admissions_read, s.folds, s.deltas_folded,
	pg_stat_get_live_tuples('usage_billing.usage_delta'::regclass) AS deltas_pending,
	s.refreshes, s.maintenance_errors, s.stats_reset
FROM usage_billing.read_stats() AS s;

CREATE FUNCTION usage_billing.reset_usage_billing_stats() RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_reset_stats';

-- The only things that are granted to anybody: who may watch the server may watch
-- these. The views give no access to the tables that they count.
GRANT USAGE ON SCHEMA usage_billing TO pg_monitor;
GRANT SELECT ON usage_billing.maintenance_status, usage_billing.usage_billing_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION usage_billing.read_stats() TO pg_monitor;

-- Tells the launcher, when this transaction commits, to start a worker for this
-- database.
CREATE FUNCTION usage_billing.request_worker() RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'ub_request_worker';

SELECT usage_billing.request_worker();

COMMENT ON TABLE usage_billing.maintenance_duty IS
'What the maintenance did last
Never dumped. Read maintenance_status instead.';
COMMENT ON COLUMN usage_billing.maintenance_duty.duty IS 'name of the duty';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_start IS 'when the last pass began that did something or failed; null: there was none';
COMMENT ON COLUMN usage_billing.maintenance_duty.duration IS 'how long that pass took';
COMMENT ON COLUMN usage_billing.maintenance_duty.rows_done IS 'what that pass did: see maintenance_status';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_error IS 'what failed last, and with which error';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_error_at IS 'when it failed';
COMMENT ON COLUMN usage_billing.maintenance_duty.done_until IS 'pack_hours: the days before this time are done';

COMMENT ON VIEW usage_billing.maintenance_status IS
'What the maintenance did last, for each duty, and what waits for it
fold: deltas folded, deltas pending. pack_hours: hourly rows moved, whole days not packed yet (null: never done). storage_recount: tables counted, tables due.
storage_refresh: organisations refreshed, organisations changed. vacuum_deltas: dead rows removed, dead rows left.
Readable by pg_monitor.';
COMMENT ON COLUMN usage_billing.maintenance_status.duty IS 'name of the duty';
COMMENT ON COLUMN usage_billing.maintenance_status.last_start IS 'when the last pass began that did something or failed; null: there was none';
COMMENT ON COLUMN usage_billing.maintenance_status.duration IS 'how long that pass took';
COMMENT ON COLUMN usage_billing.maintenance_status.rows_done IS 'what that pass did, in the duty''s unit';
COMMENT ON COLUMN usage_billing.maintenance_status.backlog IS 'what waits, in the duty''s unit';
COMMENT ON COLUMN usage_billing.maintenance_status.last_error IS 'what failed last, and with which error; it stays when the duty succeeds again';
COMMENT ON COLUMN usage_billing.maintenance_status.last_error_at IS 'when it failed; an error older than last_start of a later pass is over';
COMMENT ON FUNCTION usage_billing.request_worker() IS 'asks for a background worker for this database when the transaction commits; for the install script';

COMMENT ON VIEW usage_billing.usage_billing_stats IS
'What happened in this database since the server started, or since the last reset
One row. Counted in shared memory, so only where the library is preloaded; without that all but deltas_pending is null. Not kept beyond a restart or a crash.
usages_created to usages_pruned (but for conflicts and refused), folds, deltas_folded and refreshes count when their transaction commits; the others as they happen.
Readable by pg_monitor.';
COMMENT ON COLUMN usage_billing.usage_billing_stats.usages_created IS 'usages stored, by create_usage, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.duplicates IS 'usages, grants, reverts and archived sums that arrived and were there already';
COMMENT ON COLUMN usage_billing.usage_billing_stats.conflicts IS 'calls and loads that failed with 23505: an id with another payload, or a second revert';
COMMENT ON COLUMN usage_billing.usage_billing_stats.refused IS 'calls of create_usage that failed with UB001: not enough credits';
COMMENT ON COLUMN usage_billing.usage_billing_stats.reverts IS 'reverts stored, by revert_usage, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.grants IS 'grants stored, by grant_credits, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.usages_pruned IS 'usages that prune_usage moved';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions IS 'calls of create_usage that asked for credits, admitted or refused';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions_waited IS 'of these: had to wait for their account''s turn, which happens with usage_billing.escrow off only';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions_read IS 'of these: read the tables, because the account''s counter was missing, not enough or due for a look';
COMMENT ON COLUMN usage_billing.usage_billing_stats.folds IS 'times that an account''s deltas were folded';
COMMENT ON COLUMN usage_billing.usage_billing_stats.deltas_folded IS 'deltas that were folded';
COMMENT ON COLUMN usage_billing.usage_billing_stats.deltas_pending IS 'deltas that wait to be folded, as the server''s statistics estimate it; maintenance_status counts them';
COMMENT ON COLUMN usage_billing.usage_billing_stats.refreshes IS 'refreshes of an organisation''s storage usage';
COMMENT ON COLUMN usage_billing.usage_billing_stats.maintenance_errors IS 'failures of maintenance duties, by workers and run_maintenance';
COMMENT ON COLUMN usage_billing.usage_billing_stats.stats_reset IS 'since when all this counts';
COMMENT ON FUNCTION usage_billing.read_stats() IS 'the counts of this database; for the view usage_billing_stats';
COMMENT ON FUNCTION usage_billing.reset_usage_billing_stats() IS
'Begins the counts of usage_billing_stats anew, for this database
Does nothing where the library is not preloaded, since nothing is counted there.
Errors: 42501 under an organisation''s token.';
-- This database as one bucket of many: what the router (usage_billing_router)
-- calls here. A call comes with the claims of its request, is decided by the
-- functions above, and its error goes back as a value, so that it arrives as it
-- left and the router's connection stays usable. docs/scale-out.md tells more.

-- A row here means that the bucket was moved away. Every routed call reads the
-- table first and so holds its lock to the end of the transaction: whoever
-- locks it in ACCESS EXCLUSIVE mode waits for the calls under way and keeps new
-- ones waiting. Never dumped and never replicated: it is about this database.
CREATE TABLE usage_billing.routed_gate (
	moved_to		text NOT NULL,
	moved_at		timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT routed_gate_pkey PRIMARY KEY (moved_to)
);

-- Makes this transaction the request's. Returns false if the bucket is here no
-- more. The settings are gone with the transaction. A caller with claims of its
-- own is no router: it must not become somebody else. What a request is comes as
-- one array, which costs less than four parameters: its claims, its session's
-- time zone, whether its role is a service role, whether it may only read.
CREATE FUNCTION usage_billing.routed_begin(request text[]) RETURNS boolean
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('request.jwt.claims', true) <> '' THEN
		RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'not permitted for this token',
			DETAIL = 'Routed calls are for routers, whose own requests have no token.',
			HINT = 'Call the function itself.';
	END IF;
	-- with an older snapshot the gate would seem open for ever
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'routed calls need READ COMMITTED',
			DETAIL = 'default_transaction_isolation of the router''s role is another level.',
			HINT = 'Set it to read committed for that role.';
	END IF;
	IF EXISTS (SELECT FROM usage_billing.routed_gate) THEN
		RETURN false;
	END IF;

	-- the router says whether the role that asks there is a service role
	PERFORM set_config('request.jwt.claims', coalesce(request[1], ''), true),
		set_config('usage_billing.service_role', CASE WHEN request[3]::boolean THEN session_user::text ELSE '' END, true);
	IF request[2] <> current_setting('TimeZone') THEN
		PERFORM set_config('TimeZone', request[2], true);
	END IF;
	IF request[4]::boolean THEN
		PERFORM set_config('transaction_read_only', 'on', true);
	END IF;
	RETURN true;
END;
$$;

-- Refuses what was created for another organisation than the directory says: an
-- id is one organisation's, in whatever bucket.
CREATE FUNCTION usage_billing.routed_owner(result jsonb, owner text) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF result ->> 'org_id' <> owner THEN
		RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'the directory and the bucket disagree',
			DETAIL = 'The directory has the id for another organisation, whose bucket does not know it.',
			HINT = 'Ask whoever runs the router to compare them with verify_directory.';
	END IF;
END;
$$;

-- parameters: billing_id, org_id, project_id where the function has them, then
-- the others in their order; what is jsonb stands in document.
CREATE FUNCTION usage_billing.routed_call(
	call text, parameters text[], document jsonb, request text[]) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p text[] := parameters;
	result jsonb;
	message text;
	detail text;
	hint text;
BEGIN
	IF NOT usage_billing.routed_begin(request) THEN
		RETURN '{"moved": true}';
	END IF;

	BEGIN
		CASE call
			WHEN 'create_usage' THEN
				result := usage_billing.create_usage(document, p[1], p[2], p[3]);
			WHEN 'account_balance' THEN
				result := usage_billing.account_balance(p[1], p[2], p[3]);
			WHEN 'revert_usage' THEN
				result := usage_billing.revert_usage(p[4]::uuid, p[5]::bigint, p[1], p[2], p[3],
					p[6]::uuid, p[7], p[8], document);
			WHEN 'grant_credits' THEN
				result := usage_billing.grant_credits(p[4]::uuid, p[5]::bigint, p[1], p[2], p[3],
					p[6], p[7], p[8], document);
			WHEN 'total_debited' THEN
				result := to_jsonb(usage_billing.total_debited(p[1], p[2], p[3]));
			WHEN 'account_usage_trend' THEN
				result := usage_billing.account_usage_trend(p[4], p[5], document, p[6], p[1], p[2], p[3]);
			WHEN 'close_billing_period' THEN
				result := to_jsonb(usage_billing.close_billing_period(coalesce(p[4]::timestamptz, now()),
					p[1], p[2], p[3]));
			WHEN 'create_billing_account' THEN
				result := to_jsonb(usage_billing.create_billing_account(p[2], p[1], p[4]::bigint,
					p[5]::boolean, document));
				PERFORM usage_billing.routed_owner(result, p[3]);
			WHEN 'create_project' THEN
				result := to_jsonb(usage_billing.create_project(p[3], p[2]));
				PERFORM usage_billing.routed_owner(result, p[1]);
			WHEN 'get_storage_usage' THEN
				result := to_jsonb(usage_billing.get_storage_usage(p[2]));
			WHEN 'refresh_storage_usage' THEN
				result := to_jsonb(usage_billing.refresh_storage_usage(p[2]));
			WHEN 'recount_storage_usage' THEN
				result := to_jsonb(usage_billing.recount_storage_usage(p[2]));
			WHEN 'set_storage_limits' THEN
				PERFORM usage_billing.set_storage_limits(p[2], p[4]::bigint, p[5]::bigint, p[6]::bigint);
			WHEN 'rebuild' THEN
				PERFORM usage_billing.rebuild(p[1]);
			WHEN 'run_maintenance' THEN
				PERFORM usage_billing.run_maintenance();
			WHEN 'require_unscoped' THEN
				PERFORM usage_billing.require_unscoped();
			ELSE
				RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'no such routed call',
					DETAIL = format('The router asks for %s.', call),
					HINT = 'Install the same version on the router and on its nodes.';
		END CASE;
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN jsonb_build_object('sqlstate', SQLSTATE, 'message', message,
			'detail', nullif(detail, ''), 'hint', nullif(hint, ''));
	END;
	RETURN jsonb_build_object('result', result);
END;
$$;

-- The same for functions that return rows: a row each, or one with a failure.
CREATE FUNCTION usage_billing.routed_rows(
	call text, parameters text[], request text[])
	RETURNS TABLE (failure jsonb, item jsonb)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p text[] := parameters;
	message text;
	detail text;
	hint text;
BEGIN
	IF NOT usage_billing.routed_begin(request) THEN
		RETURN QUERY SELECT '{"moved": true}'::jsonb, NULL::jsonb;
		RETURN;
	END IF;

	BEGIN
		CASE call
			WHEN 'account_transactions' THEN
				RETURN QUERY SELECT NULL::jsonb, to_jsonb(t) FROM usage_billing.account_transactions(
					p[4]::timestamptz, p[5]::timestamptz, p[6]::integer, p[7], p[1], p[2], p[3]) AS t;
			WHEN 'usage_series' THEN
				RETURN QUERY SELECT NULL::jsonb, to_jsonb(t) FROM usage_billing.usage_series(
					p[4]::timestamptz, p[5]::timestamptz, p[6], p[7], p[8], p[9]::usage_billing.usage_type,
					p[1], p[2], p[3]) AS t;
			WHEN 'get_storage_usage_history' THEN
				RETURN QUERY SELECT NULL::jsonb, to_jsonb(t)
				FROM usage_billing.get_storage_usage_history(p[4]::integer, p[2]) AS t;
			WHEN 'verify' THEN
				RETURN QUERY SELECT NULL::jsonb, to_jsonb(t) FROM usage_billing.verify(p[1]) AS t;
			WHEN 'rebuild' THEN
				PERFORM usage_billing.rebuild(p[1]);
			WHEN 'run_maintenance' THEN
				PERFORM usage_billing.run_maintenance();
			WHEN 'maintenance_status' THEN
				RETURN QUERY SELECT NULL::jsonb, to_jsonb(t) FROM usage_billing.maintenance_status AS t;
			WHEN 'directory' THEN
				PERFORM usage_billing.require_unscoped();
				RETURN QUERY
				SELECT NULL::jsonb, jsonb_build_object('billing_id', a.billing_id, 'org_id', a.org_id)
				FROM usage_billing.billing_account AS a
				UNION ALL
				SELECT NULL, jsonb_build_object('project_id', j.project_id, 'org_id', j.org_id)
				FROM usage_billing.project AS j;
			ELSE
				RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'no such routed call',
					DETAIL = format('The router asks for %s.', call),
					HINT = 'Install the same version on the router and on its nodes.';
		END CASE;
	EXCEPTION WHEN query_canceled OR OTHERS THEN
		GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN QUERY SELECT jsonb_build_object('sqlstate', SQLSTATE, 'message', message,
			'detail', nullif(detail, ''), 'hint', nullif(hint, '')), NULL::jsonb;
	END;
END;
$$;

-- create_usage for several accounts, each call all or nothing by itself. They
-- take their turns in the order given, which is the accounts', so that two
-- batches can't deadlock.
CREATE FUNCTION usage_billing.routed_batch(
	positions integer[], calls jsonb[], request text[])
	RETURNS TABLE (call_no integer, failure jsonb, result jsonb)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	c jsonb;
	message text;
	detail text;
	hint text;
BEGIN
	IF NOT usage_billing.routed_begin(request) THEN
		RETURN QUERY SELECT n, '{"moved": true}'::jsonb, NULL::jsonb FROM unnest(positions) AS n;
		RETURN;
	END IF;

	FOR i IN 1 .. cardinality(calls) LOOP
		c := calls[i];
		call_no := positions[i];
		failure := NULL;
		result := NULL;
		BEGIN
			result := usage_billing.create_usage(c -> 'usages', c ->> 'billing_id', c ->> 'org_id', c ->> 'project_id');
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			failure := jsonb_build_object('sqlstate', SQLSTATE, 'message', message,
				'detail', nullif(detail, ''), 'hint', nullif(hint, ''));
		END;
		RETURN NEXT;
	END LOOP;
END;
$$;

COMMENT ON TABLE usage_billing.routed_gate IS
'Whether routed calls are refused here, because the bucket was moved
Empty in every database that was not moved. Routed calls hold a lock on it to the end of their transaction.';
COMMENT ON COLUMN usage_billing.routed_gate.moved_to IS 'where the bucket is now, for people';
COMMENT ON COLUMN usage_billing.routed_gate.moved_at IS 'when it was moved';
COMMENT ON FUNCTION usage_billing.routed_begin(text[]) IS
'Makes a transaction that of a routed request
request: the request''s token claims, its session''s time zone, whether its role is a service role, whether its transaction is read-only.
Returns false if the bucket was moved away. For the routed functions only. Errors: 0A000 not READ COMMITTED; 42501 the caller has claims already.';
COMMENT ON FUNCTION usage_billing.routed_owner(jsonb, text) IS
'Compares what a routed call created with the router''s directory
result: the row. owner: the organisation that the directory names. For the routed functions only. Errors: 55000 they differ.';
COMMENT ON FUNCTION usage_billing.routed_call(text, text[], jsonb, text[]) IS
'Runs one call for the router and returns its result or its error
call: the function. parameters: billing_id, org_id, project_id, then the others as text. document: what is jsonb among them.
request: which request the router serves (claims, time zone, service role, read-only). Executable by whom a DBA grants it: the router''s role and nobody else.
Returns {"result"}, {"sqlstate", "message", "detail", "hint"}, or {"moved"}. Errors of the call are returned, not raised, and undo what it did.';
COMMENT ON FUNCTION usage_billing.routed_rows(text, text[], text[]) IS
'Runs one call that returns rows for the router
call: the function. parameters: billing_id, org_id, project_id, then the others as text.
request: which request the router serves. Executable by whom a DBA grants it: the router''s role and nobody else.
Returns an item a row, or a row with failure. Errors of the call are returned, not raised.';
COMMENT ON FUNCTION usage_billing.routed_batch(integer[], jsonb[], text[]) IS
'Runs create_usage for several accounts for the router
positions: the number of each call. calls: each an object with usages and billing_id, org_id or project_id.
request: which request the router serves. Executable by whom a DBA grants it: the router''s role and nobody else.
Returns call_no with failure or result. Each call is all or nothing by itself. Errors of a call are returned, not raised.';
-- Who sees which rows, for roles that a DBA lets read the tables: the rule that
-- the functions follow. A request with an organisation's token sees that
-- organisation's rows, one without a scope sees all, and one whose token is
-- refused gets 42501. The owner of the tables sees all, and so do the functions,
-- which run with its rights.

CREATE FUNCTION usage_billing.request_org() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'ub_request_org';

CREATE FUNCTION usage_billing.request_accounts() RETURNS text[]
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'ub_request_accounts';

-- Policies are joined by OR. Written as a range between bounds that are null
-- under a token, "unscoped" can use the same index as the policy beside it, so
-- that a tenant's query reads the tenant's rows only. The functions stand in
-- subqueries, which run once a query.
DO $$
DECLARE
	everything text := '(SELECT usage_billing.request_org()) IS NULL';
	bound text := '(SELECT CASE WHEN usage_billing.request_org() IS NULL THEN %s END)';
	unscoped text := everything;
	entry record;
BEGIN
	IF getdatabaseencoding() = 'UTF8' THEN
		-- after every text of 255 bytes in the order of collation C
		unscoped := '%1$I BETWEEN ' || format(bound, quote_literal(''))
			|| ' AND ' || format(bound, 'repeat(chr(1114111), 64)');
	END IF;

	FOR entry IN
		SELECT c.oid::regclass AS name,
			CASE
				WHEN c.relname IN ('usage', 'usage_archive', 'usage_revert', 'credit_grant') THEN 'billing_id'
				WHEN c.relname IN ('billing_account', 'project', 'storage_limit', 'storage_snapshot', 'stored_file') THEN 'org_id'
			END AS key
		FROM pg_class c
		WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind = 'r'
	LOOP
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', entry.name);
		IF entry.key IS NULL THEN
			EXECUTE format('CREATE POLICY unscoped ON %s FOR SELECT USING (%s)', entry.name, everything);
			CONTINUE;
		END IF;
		IF entry.name = 'usage_billing.stored_file'::regclass THEN
			-- no fact, but a table for the application to work on
			EXECUTE format('CREATE POLICY unscoped ON %s USING (%s) WITH CHECK (%s)', entry.name,
				format(unscoped, entry.key), everything);
		ELSE
			EXECUTE format('CREATE POLICY unscoped ON %s FOR SELECT USING (%s)', entry.name, format(unscoped, entry.key));
		END IF;
		EXECUTE format('CREATE POLICY own ON %s FOR SELECT USING (%s)', entry.name, CASE entry.key
			WHEN 'org_id' THEN 'org_id = (SELECT usage_billing.request_org())'
			ELSE 'billing_id = ANY ((SELECT usage_billing.request_accounts())::text[])' END);
	END LOOP;
END;
$$;

-- What a tenant may want to read beyond the tables. The views have their
-- reader's rights, so the policies hold in them too.

CREATE VIEW usage_billing.usage_remaining WITH (security_invoker = true) AS
SELECT u.billing_id, u.id, u.type, u.amount, coalesce(r.amount, 0)::bigint AS reverted,
	(u.amount - coalesce(r.amount, 0))::bigint AS remaining,
	u.source, u.description, u.user_id, u.metadata, u.created_at
FROM usage_billing.usage u
LEFT JOIN LATERAL (SELECT sum(x.amount) AS amount FROM usage_billing.usage_revert x
	WHERE x.billing_id = u.billing_id AND x.usage_id = u.id) r ON true;

CREATE VIEW usage_billing.account_statement WITH (security_invoker = true) AS
SELECT billing_id, id, 'usage' AS kind, 'debit' AS type, amount, source, description, user_id, metadata, created_at
FROM usage_billing.usage WHERE type = 'credit' AND amount > 0
UNION ALL
SELECT billing_id, id, 'revert', 'credit', amount, usage_source, description, user_id, metadata, created_at
FROM usage_billing.usage_revert WHERE usage_type = 'credit'
UNION ALL
SELECT billing_id, id, 'grant', 'credit', amount, source, description, user_id, metadata, created_at
FROM usage_billing.credit_grant;
-- Nothing is granted to anyone: a DBA grants what a role needs.
--
-- PostgreSQL lets everyone execute a new function, and these run with their
-- owner's rights, so that right is taken back in the script that makes them.
-- Tables and the schema are closed from the start, unless the database's
-- default privileges, or a schema that was there before, opened them.
-- The type stays usable by everyone: it gives access to nothing, and callers
-- name it in casts.

REVOKE ALL ON SCHEMA usage_billing FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA usage_billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usage_billing FROM PUBLIC;
-- What psql's \d+ and \df+ show and what PostgREST puts into its OpenAPI page:
-- there the first line is the summary and the rest the description.

COMMENT ON SCHEMA usage_billing IS
'Metered usage, credits and what is derived from them
Facts are appended and never changed. Callers use the functions; people who load or read data in bulk use the tables.';


-- Functions that callers use

COMMENT ON FUNCTION usage_billing.create_billing_account(text, text, bigint, boolean, jsonb) IS
'Creates a billing account for an organisation
org_id: 1 to 255 bytes; absent: the organisation of the request''s token.
billing_id: 1 to 255 bytes; absent: a new random uuid, so give one if the call may be repeated.
credit_min: credits below which usage is refused; negative is an overdraft, positive a reserve. Default 0.
is_default: the account that is used where only org_id or project_id is given; absent: true for an organisation''s first account.
metadata: a JSON object, at most 65,536 bytes as text.
Returns the account''s row. The same call again returns the row that is there.
Errors: 22023 malformed input; 23505 the billing_id is taken by another organisation or has other settings; 42501 another organisation''s under a token.';

COMMENT ON FUNCTION usage_billing.create_project(text, text) IS
'Records which organisation a project belongs to
project_id: 1 to 255 bytes. org_id: 1 to 255 bytes; absent: the organisation of the request''s token.
Afterwards the project_id can be given wherever an account is chosen; it stands for the organisation''s default account.
Returns the project''s row. The same call again returns the row that is there.
Errors: 22023 malformed input; 23505 the project belongs to another organisation; 42501 another organisation''s under a token.';

COMMENT ON FUNCTION usage_billing.grant_credits(uuid, bigint, text, text, text, text, text, text, jsonb) IS
'Adds credits to an account
id: the caller''s own uuid; repeating the call with it never grants twice.
amount: credits, more than 0. source: where they come from, default system.buy, at most 255 bytes.
description: at most 4,096 bytes. user_id: at most 255 bytes. metadata: a JSON object, at most 65,536 bytes as text.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"id", "amount", "balance", "duplicate"}: balance is the account''s balance after the call; duplicate is true if the grant was there before.
Errors: 22023 malformed input; 22003 out of range; 23505 the id was used with other content; UB003 the account is closed; PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.create_usage(jsonb, text, text, text) IS
'Reports usage of an account, and takes its credits from the balance
usages: an array of 0 to 10,000 objects (setting usage_billing.max_batch_size). Keys of an object:
id (uuid, required), amount (whole number from 0, as number or decimal string, required),
type (credit or feature, default credit), source (default system, stored in lower case), description, user_id, metadata (object),
created_at (RFC 3339, default now, UTC where it has no offset), customer_id (if given: the account''s billing_id), updated_at (ignored).
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"created", "duplicates", "balance"}. The call is stored as a whole or not at all. Repeating it with the same ids counts nothing twice.
Errors: UB001 not enough credits; UB003 the account is closed; 23505 an id was used with other content; 22023, 22P02, 22003, 22007 malformed input
(the detail names element and field, like usages[17].amount); PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.revert_usage(uuid, bigint, text, text, text, uuid, text, text, jsonb) IS
'Gives back all or part of a usage
usage_id: the usage to revert. amount: how much of it, more than 0; absent: all that is left.
id: the caller''s own uuid for this revert, which makes repeating the call safe; absent: made from the usage.
description: at most 4,096 bytes. user_id: at most 255 bytes. metadata: a JSON object, at most 65,536 bytes as text.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"id", "usage_id", "amount", "balance", "duplicate"}: duplicate is true if this very revert was there before.
A usage can be reverted once, unless the setting usage_billing.revert_once is off. Works on a closed account too.
Errors: UB002 more than is left; 22023 malformed input, or nothing is left; 23505 reverted before, or the id was used with other content;
PT404 no such account or usage; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.account_balance(text, text, text) IS
'Tells how many credits an account has
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"billing_id", "org_id", "balance", "credit_min", "available"}, all amounts in credits; available is balance less credit_min.
Exact to the last commit. Errors: 22023 no or contradictory choice of an account; PT404 no such account; 42501 not allowed; 22003 out of range.';

COMMENT ON FUNCTION usage_billing.total_debited(text, text, text) IS
'Tells how many credits an account has used in all
Credit usage less what was reverted, over the whole life of the account. Grants and feature usage don''t count.
billing_id, org_id, project_id: which account; see the reference on account choice.
Errors: 22023 no or contradictory choice of an account; PT404 no such account; 42501 not allowed; 22003 out of range.';

COMMENT ON FUNCTION usage_billing.account_transactions(timestamptz, timestamptz, integer, text, text, text, text) IS
'Lists what changed an account''s balance, newest first
from: included; to: not included; absent: no bound. max_rows: 1 or more, default 100.
before: the cursor of the last row of a page gives the page after it.
billing_id, org_id, project_id: which account; see the reference on account choice.
kind: usage, revert or grant. type: debit for a usage, credit for a revert or a grant. amount: credits, never negative.
Feature usage and usage of amount 0 aren''t listed.
Errors: 22023 malformed input; PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.run_maintenance() IS
'Does one pass of the background work, for databases without the worker
Folds what statements appended into balances and hourly sums. Answers are right without it too; it keeps them fast.
Call it from a scheduler, every minute or so. May run beside any load and beside itself.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.verify(text) IS
'Compares balances and hourly sums with the facts
billing_id: the account to check; absent: all accounts, and facts without an account.
Returns a row for each difference: subject (what was compared), key (of which account and hour), expected (from the facts), actual (what is kept).
No row: everything is sound. Reads all facts in one snapshot; it blocks nobody.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.rebuild(text) IS
'Makes balances and hourly sums anew from the facts
billing_id: the account to rebuild; absent: all accounts.
For use after a load with triggers disabled. Exact while usage is being reported; what is right already doesn''t change.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.prune_usage(timestamptz, text, integer) IS
'Moves old usage that is billed out into sums by the hour
older_than: usage of hours (UTC) that ended by then and by its account''s last billing date is moved; rounded down to the hour.
billing_id: the account to prune; absent: all accounts. max_rows: usages that one call moves at most, 1 or more, default 10000.
Returns how many usages were moved; repeat the call until it is 0. No balance, trend or sum changes; single usages of that time are gone:
they can''t be listed or reverted any more, and one that arrives again with its old id is new.
Passes over usage that another transaction has locked. Errors: 22023 malformed input; PT404 no such account; 42501 under an organisation''s token.';


-- Functions that triggers call

COMMENT ON FUNCTION usage_billing.account_before_insert() IS 'trigger: completes and checks a new billing account, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.account_before_update() IS 'trigger: keeps an account''s ids from changing';
COMMENT ON FUNCTION usage_billing.account_before_delete() IS 'trigger: takes the locks that removing accounts needs, and refuses TRUNCATE while there are facts';
COMMENT ON FUNCTION usage_billing.account_after_delete() IS 'trigger: refuses to remove an account that has facts';
COMMENT ON FUNCTION usage_billing.project_before_insert() IS 'trigger: completes and checks a new project, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.usage_before_insert() IS 'trigger: completes and checks a new usage, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.usage_after_insert() IS 'trigger: posts the usages that a statement stored';
COMMENT ON FUNCTION usage_billing.grant_before_insert() IS 'trigger: completes and checks a new grant, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.grant_after_insert() IS 'trigger: posts the grants that a statement stored';
COMMENT ON FUNCTION usage_billing.revert_before_insert() IS 'trigger: completes and checks a new revert, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.revert_after_insert() IS 'trigger: posts the reverts that a statement stored';
COMMENT ON FUNCTION usage_billing.archive_before_insert() IS 'trigger: completes and checks new sums of usage, and skips those that are there already';
COMMENT ON FUNCTION usage_billing.archive_after_insert() IS 'trigger: posts the sums of usage that a statement stored, unless they were posted as usage';
COMMENT ON FUNCTION usage_billing.fact_is_append_only() IS 'trigger: keeps facts from being changed or removed';


-- Functions that other functions call

COMMENT ON FUNCTION usage_billing.require_unscoped() IS 'refuses a request that is scoped to an organisation; for verify';
COMMENT ON FUNCTION usage_billing.delivery_measures(usage_billing.usage_type, text, jsonb) IS 'the measurements that a delivery usage carries in its metadata; for verify, rebuild and prune_usage';
COMMENT ON FUNCTION usage_billing.derived_sums(text) IS 'what the facts and the derived tables say, by account and hour; for verify and rebuild';
COMMENT ON FUNCTION usage_billing.derived_differences(text) IS 'where the facts and the derived tables differ; for verify and rebuild';


-- Facts

COMMENT ON TABLE usage_billing.billing_account IS
'Billing accounts
An organisation may have several, at most one of which is its default. Settings may be updated, ids may not.';
COMMENT ON COLUMN usage_billing.billing_account.billing_id IS 'the account''s id, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.billing_account.org_id IS 'the organisation that owns the account, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.billing_account.is_default IS 'whether this account is used where only the organisation or a project is given; null on insert: true for the organisation''s first account';
COMMENT ON COLUMN usage_billing.billing_account.credit_min IS 'credits that the balance may not fall below: negative is an overdraft, positive a reserve';
COMMENT ON COLUMN usage_billing.billing_account.state IS 'active, or closed: takes no new usage and no grants through the functions';
COMMENT ON COLUMN usage_billing.billing_account.last_billed_at IS 'end of the last billed period; null: never billed';
COMMENT ON COLUMN usage_billing.billing_account.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.billing_account.created_at IS 'when the account was created; null on insert: now';
COMMENT ON COLUMN usage_billing.billing_account.updated_at IS 'when the account was last changed; an update sets it to now';

COMMENT ON TABLE usage_billing.project IS
'Projects and the organisations that they belong to
A project stands for its organisation''s default account wherever an account is chosen.';
COMMENT ON COLUMN usage_billing.project.project_id IS 'the project''s id, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.project.org_id IS 'the organisation that owns the project, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.project.created_at IS 'when the project was recorded; null on insert: now';

COMMENT ON TABLE usage_billing.credit_grant IS
'Credits that accounts were given
Append-only. Loading a row that is there already changes nothing.';
COMMENT ON COLUMN usage_billing.credit_grant.billing_id IS 'the account that got the credits';
COMMENT ON COLUMN usage_billing.credit_grant.id IS 'the grant''s id, a key within its account';
COMMENT ON COLUMN usage_billing.credit_grant.amount IS 'credits, more than 0';
COMMENT ON COLUMN usage_billing.credit_grant.source IS 'where the credits come from, at most 255 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.user_id IS 'who granted, at most 255 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.credit_grant.created_at IS 'when the credits were granted; null on insert: now';

COMMENT ON TABLE usage_billing.usage IS
'Usage as it was reported
Append-only. Loading a row that is there already changes nothing; a row with a known id and other content is an error.';
COMMENT ON COLUMN usage_billing.usage.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage.id IS 'the usage''s id, a key within its account';
COMMENT ON COLUMN usage_billing.usage.type IS 'credit: taken from the balance; feature: counted only';
COMMENT ON COLUMN usage_billing.usage.amount IS 'credits, or what the feature is counted in; 0 or more';
COMMENT ON COLUMN usage_billing.usage.source IS 'what caused the usage, in lower case, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.usage.user_id IS 'who caused the usage, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text; delivery usage carries its measurements here';
COMMENT ON COLUMN usage_billing.usage.created_at IS 'when the usage happened; null on insert: now';
COMMENT ON COLUMN usage_billing.usage.updated_at IS 'when the row was stored; null on insert: now';

COMMENT ON TABLE usage_billing.usage_revert IS
'Usage that was taken back, all or in part
Append-only. usage_type and the columns after it say what is taken back; absent, they are filled in from the usage.';
COMMENT ON COLUMN usage_billing.usage_revert.billing_id IS 'the account of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_id IS 'the usage that is taken back';
COMMENT ON COLUMN usage_billing.usage_revert.revert_no IS 'counts the reverts of one usage from 1';
COMMENT ON COLUMN usage_billing.usage_revert.id IS 'the revert''s id, unique within its account; null on insert: made from billing_id, usage_id and revert_no';
COMMENT ON COLUMN usage_billing.usage_revert.amount IS 'how much is taken back, more than 0, in the unit of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.usage_revert.user_id IS 'who reverted, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage_revert.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.usage_revert.created_at IS 'when the usage was reverted; null on insert: now';
COMMENT ON COLUMN usage_billing.usage_revert.usage_type IS 'type of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_source IS 'source of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_at IS 'created_at of the usage; its hour falls in every trend';
COMMENT ON COLUMN usage_billing.usage_revert.usage_events IS '1 if nothing of the usage is left, else 0';
COMMENT ON COLUMN usage_billing.usage_revert.viewing_seconds IS 'seconds of viewing that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.viewing_bytes IS 'bytes of viewing that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_seconds IS 'seconds of egress that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_seconds_additional_targets IS 'seconds of egress to additional targets that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_bytes IS 'bytes of egress that are taken back';

COMMENT ON TABLE usage_billing.usage_archive IS
'Usage that is kept as sums by the hour only
Append-only. A row is what one call of prune_usage took of one hour, source and type. Loading a row that is there already changes nothing.';
COMMENT ON COLUMN usage_billing.usage_archive.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_archive.id IS 'the row''s id, a key within its account; null on insert: made from hour, source and type';
COMMENT ON COLUMN usage_billing.usage_archive.hour IS 'start of the hour, in UTC';
COMMENT ON COLUMN usage_billing.usage_archive.source IS 'source of the usages, in lower case, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage_archive.type IS 'type of the usages';
COMMENT ON COLUMN usage_billing.usage_archive.amount IS 'sum of the amounts; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.events IS 'number of usages, also of those that were reverted';
COMMENT ON COLUMN usage_billing.usage_archive.viewing_seconds IS 'seconds of viewing; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.viewing_bytes IS 'bytes of viewing; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_seconds IS 'seconds of egress; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_seconds_additional_targets IS 'seconds of egress to additional targets; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_bytes IS 'bytes of egress; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.created_at IS 'when the usages were moved; null on insert: now';


-- Derived from the facts

COMMENT ON TABLE usage_billing.usage_delta IS
'Changes that statements appended and that aren''t folded yet
Derived from the facts and never dumped. Rows vanish when they are folded into credit_balance and usage_hourly.';
COMMENT ON COLUMN usage_billing.usage_delta.billing_id IS 'the account that changes';
COMMENT ON COLUMN usage_billing.usage_delta.hour IS 'start of the hour (UTC) that changes; -infinity: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.source IS 'source of the usages; empty: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.type IS 'type of the usages; null: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.xact IS 'the transaction that appended the row';
COMMENT ON COLUMN usage_billing.usage_delta.credits IS 'change of the balance, in credits; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.debited IS 'change of the sum of the account''s debits, in credits; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.amount IS 'change of the hour''s amount; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.events IS 'change of the hour''s number of usages; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.viewing_seconds IS 'change of the hour''s seconds of viewing; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.viewing_bytes IS 'change of the hour''s bytes of viewing; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_seconds IS 'change of the hour''s seconds of egress; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_seconds_additional_targets IS 'change of the hour''s seconds of egress to additional targets; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_bytes IS 'change of the hour''s bytes of egress; null: none';

COMMENT ON TABLE usage_billing.credit_balance IS
'Balances as far as they are folded
Derived from the facts and never dumped. The balance is this row plus the account''s rows in usage_delta: ask account_balance.';
COMMENT ON COLUMN usage_billing.credit_balance.billing_id IS 'the account';
COMMENT ON COLUMN usage_billing.credit_balance.balance IS 'grants and reverts less usage, in credits';
COMMENT ON COLUMN usage_billing.credit_balance.debited IS 'credit usage less what was reverted, in credits';
COMMENT ON COLUMN usage_billing.credit_balance.folded_below IS 'no row in usage_delta of an earlier transaction is left; readers begin there';
COMMENT ON COLUMN usage_billing.credit_balance.folded_by IS 'transaction that folded; where it isn''t the row''s xmin, folded_below is about another cluster''s transactions';

COMMENT ON TABLE usage_billing.large_account IS
'Accounts whose sums are checked against the range of bigint
Derived from the facts and never dumped. An account comes here with its first posting above 2^52.';
COMMENT ON COLUMN usage_billing.large_account.billing_id IS 'the account';

COMMENT ON TABLE usage_billing.usage_hourly IS
'Sums of usage by the hour, as far as they are folded
Derived from the facts and never dumped. The sum of an hour is this row plus the hour''s rows in usage_delta.';
COMMENT ON COLUMN usage_billing.usage_hourly.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_hourly.hour IS 'start of the hour, in UTC';
COMMENT ON COLUMN usage_billing.usage_hourly.source IS 'source of the usages';
COMMENT ON COLUMN usage_billing.usage_hourly.type IS 'type of the usages';
COMMENT ON COLUMN usage_billing.usage_hourly.amount IS 'sum of the amounts, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.events IS 'number of usages, less those of which nothing is left';
COMMENT ON COLUMN usage_billing.usage_hourly.viewing_seconds IS 'seconds of viewing, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.viewing_bytes IS 'bytes of viewing, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_seconds IS 'seconds of egress, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_seconds_additional_targets IS 'seconds of egress to additional targets, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_bytes IS 'bytes of egress, less what was reverted';


-- Trends

COMMENT ON FUNCTION usage_billing.account_usage_trend(text, text, jsonb, text, text, text, text) IS
'Sums up an account''s deliveries over a range of hours
from: included; to: not included. Each is YYYY-MM-DD HH:00:00 or YYYY-MM-DD, also with T, Z or an offset, in UTC where it has none, or last_bill_date; rounded up to the hour.
A range is 90 days at most. Neither given: from the last billing date, at most 90 days back, to the end of today. Only from: to 90 days on or the end of today, whichever is shorter.
Only to: from 90 days back, or the last billing date if that is later and before to. Never billed: the account''s creation is the last billing date.
filter: [{"field": "resource", "eq": "vod_streams"}] or [{"field": "resource", "in": "transcoders,vod_streams"}], also with an array for in, or as an object with the indexes as keys; all conditions must hold.
include: trend, for one entry an hour with usage.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"account": {"id", "viewing_seconds", "avg_viewing_seconds", "viewing_bytes", "egress_seconds", "egress_seconds_additional_targets", "egress_bytes", "trend"}, "limits": {"resources", "from", "to"}}:
seconds and bytes; avg_viewing_seconds is seconds a session. Exact to the last commit.
Errors: 22007 from or to is no time; 22023 malformed input; PT404 no such account; 42501 not allowed; 22003 a sum is out of range.';

COMMENT ON FUNCTION usage_billing.usage_series(timestamptz, timestamptz, text, text, text, usage_billing.usage_type, text, text, text) IS
'Counts an account''s usage by hour, day, week or month, ready for a chart
from: included; to: not included; both are rounded up to the hour. Absent: as in account_usage_trend, but a range may have more than 90 days.
bucket: hour, day, week (from Monday) or month, default hour. time_zone: whose days, weeks and months, default UTC; its offset must be whole hours.
source, type: this source or type only; absent: all. With a source, buckets without usage are filled with zeros, 100,000 at most.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns rows in order of time: one a bucket, source and type with usage. Exact to the last commit.
Errors: 22023 malformed input; 0A000 the time zone isn''t whole hours away from UTC; PT404 no such account; 42501 not allowed; 22003 a sum is out of range.';

COMMENT ON FUNCTION usage_billing.close_billing_period(timestamptz, text, text, text) IS
'Moves an account''s last billing date
at: the end of the billed period, rounded down to the hour; default now. Not in the future, and not before the last billing date; the same hour again changes nothing.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns the last billing date.
Errors: 22023 malformed input, or the date would move back; PT404 no such account; 42501 not allowed.';

COMMENT ON TYPE usage_billing.usage_bucket IS
'A row of usage_series
The usage of one source and type in one hour, day, week or month.';
COMMENT ON COLUMN usage_billing.usage_bucket.bucket_start IS 'start of the hour, day, week or month in the time zone asked for';
COMMENT ON COLUMN usage_billing.usage_bucket.source IS 'source of the usages';
COMMENT ON COLUMN usage_billing.usage_bucket.type IS 'type of the usages; null: a bucket without usage, where no type was asked for';
COMMENT ON COLUMN usage_billing.usage_bucket.events IS 'number of usages, less those of which nothing is left';
COMMENT ON COLUMN usage_billing.usage_bucket.amount IS 'sum of the amounts, less what was reverted';


-- Storage

COMMENT ON FUNCTION usage_billing.refresh_storage_usage(text) IS
'Takes today''s snapshot of an organisation''s storage
org_id: the organisation; absent: the one of the request''s token. What it costs depends on what changed since the last time, not on what is stored.
Two calls at once for one organisation take turns. A tracked table that was never counted is counted first.
Returns the snapshot, with the limits: counts, bytes, and minutes of video as text with two decimals; a limit that is null is none.
Errors: PT404 nothing is known of the organisation; 22023 org_id is missing or too long; 22003 a sum would leave the range of bigint;
55006 a table would have to be counted while a statement of this session is writing to it; 42501 not allowed, or a table''s policies would hide rows from its owner.';
COMMENT ON FUNCTION usage_billing.get_storage_usage(text) IS
'Tells what an organisation had stored when it was refreshed last
org_id: the organisation; absent: the one of the request''s token.
Returns the latest snapshot, with the limits: counts, bytes, and minutes of video as text with two decimals; a limit that is null is none.
Errors: PT404 nothing is known of the organisation, or no snapshot was taken yet; 22023 org_id is missing or too long; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.get_storage_usage_history(integer, text) IS
'Lists the daily snapshots of an organisation''s storage, oldest first
days: how many days back, today included; 1 or more, default 30. org_id: the organisation; absent: the one of the request''s token.
A day without a snapshot is left out.
Errors: PT404 nothing is known of the organisation; 22023 malformed input; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.recount_storage_usage(text) IS
'Counts an organisation''s files anew and takes today''s snapshot
org_id: the organisation; absent: the one of the request''s token. For use after the tables were changed without their triggers; it reads them all.
Writers go on meanwhile, and what they change is neither lost nor counted twice.
Returns the snapshot, and has the errors, of refresh_storage_usage.';
COMMENT ON FUNCTION usage_billing.set_storage_limits(text, bigint, bigint, bigint) IS
'Sets the limits that snapshots of an organisation show
org_id: the organisation; absent: the one of the request''s token.
max_image_count, max_video_count, max_project_count: 0 or more; absent: no limit. All three are set. Nothing is refused because of them.
Errors: 22023 malformed input; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.track_storage(regclass, name, name, text, name, name) IS
'Begins to count the files of a table
relation: a plain or partitioned table of the caller''s. org_column (integer, text, uuid or enum), bytes_column (integer, numeric or text):
which columns hold organisation and size; rows without an organisation aren''t counted.
kind: image, video or any other word, for the whole table; or kind_column: the column that holds it. duration_column: seconds, or an interval.
What the table holds is counted before the next answer. The same call again changes nothing; another definition begins anew. Waits for writers.
Errors: 22023 malformed input; 42501 the table belongs to another role, or an organisation''s token.';
COMMENT ON FUNCTION usage_billing.untrack_storage(regclass) IS
'Ends counting the files of a table, and forgets what was counted
relation: a table of the caller''s. Snapshots that were taken stay.
Errors: 22023 no such table; 42501 the table belongs to another role, or an organisation''s token.';
COMMENT ON FUNCTION usage_billing.storage_changed() IS 'trigger: appends what a statement changed in a tracked table';
COMMENT ON FUNCTION usage_billing.storage_truncated() IS 'trigger: marks a tracked table that was truncated as one to be counted';
COMMENT ON FUNCTION usage_billing.snapshot_before_insert() IS 'trigger: of two snapshots for one day the later one stays';

COMMENT ON TYPE usage_billing.storage_usage IS
'A snapshot of an organisation''s storage, with its limits
Counts and bytes of all files, and of images and videos among them.';
COMMENT ON COLUMN usage_billing.storage_usage.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_usage.snapshot_date IS 'the day (UTC) of the snapshot';
COMMENT ON COLUMN usage_billing.storage_usage.last_updated IS 'when the snapshot was taken';
COMMENT ON COLUMN usage_billing.storage_usage.project_count IS 'number of projects';
COMMENT ON COLUMN usage_billing.storage_usage.image_file_count IS 'number of images';
COMMENT ON COLUMN usage_billing.storage_usage.image_storage_bytes IS 'bytes of images';
COMMENT ON COLUMN usage_billing.storage_usage.video_file_count IS 'number of videos';
COMMENT ON COLUMN usage_billing.storage_usage.video_storage_bytes IS 'bytes of videos';
COMMENT ON COLUMN usage_billing.storage_usage.total_file_count IS 'number of all files';
COMMENT ON COLUMN usage_billing.storage_usage.total_storage_bytes IS 'bytes of all files';
COMMENT ON COLUMN usage_billing.storage_usage.total_video_minutes IS 'minutes of video, as text with two decimals';
COMMENT ON COLUMN usage_billing.storage_usage.max_image_count IS 'most images; null: no limit';
COMMENT ON COLUMN usage_billing.storage_usage.max_video_count IS 'most videos; null: no limit';
COMMENT ON COLUMN usage_billing.storage_usage.max_project_count IS 'most projects; null: no limit';

COMMENT ON TABLE usage_billing.storage_limit IS
'Limits that an organisation''s storage snapshots show
Set with set_storage_limits. Nothing is refused because of them.';
COMMENT ON COLUMN usage_billing.storage_limit.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_limit.max_image_count IS 'most images; null: no limit';
COMMENT ON COLUMN usage_billing.storage_limit.max_video_count IS 'most videos; null: no limit';
COMMENT ON COLUMN usage_billing.storage_limit.max_project_count IS 'most projects; null: no limit';

COMMENT ON TABLE usage_billing.storage_snapshot IS
'What organisations had stored, a row a day
Can be loaded with COPY. Of two snapshots for one day the one with the later last_updated stays.';
COMMENT ON COLUMN usage_billing.storage_snapshot.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_snapshot.snapshot_date IS 'the day (UTC) of the snapshot';
COMMENT ON COLUMN usage_billing.storage_snapshot.project_count IS 'number of projects';
COMMENT ON COLUMN usage_billing.storage_snapshot.image_file_count IS 'number of images';
COMMENT ON COLUMN usage_billing.storage_snapshot.image_storage_bytes IS 'bytes of images';
COMMENT ON COLUMN usage_billing.storage_snapshot.video_file_count IS 'number of videos';
COMMENT ON COLUMN usage_billing.storage_snapshot.video_storage_bytes IS 'bytes of videos';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_file_count IS 'number of all files';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_storage_bytes IS 'bytes of all files';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_video_minutes IS 'minutes of video';
COMMENT ON COLUMN usage_billing.storage_snapshot.last_updated IS 'when the snapshot was taken';

COMMENT ON TABLE usage_billing.stored_file IS
'Files, for applications that have no table of their own for them
An ordinary table that is tracked from the start: insert, update and delete as you like.';
COMMENT ON COLUMN usage_billing.stored_file.file_id IS 'the file''s id';
COMMENT ON COLUMN usage_billing.stored_file.org_id IS 'the organisation that the file belongs to';
COMMENT ON COLUMN usage_billing.stored_file.project_id IS 'the project that the file belongs to; null: none';
COMMENT ON COLUMN usage_billing.stored_file.kind IS 'image, video, or any other word, which counts in the totals only';
COMMENT ON COLUMN usage_billing.stored_file.bytes IS 'size in bytes';
COMMENT ON COLUMN usage_billing.stored_file.duration_seconds IS 'length of a video in seconds';
COMMENT ON COLUMN usage_billing.stored_file.created_at IS 'when the file was stored';

COMMENT ON TABLE usage_billing.storage_source IS
'Tables whose files are counted
Kept by track_storage and untrack_storage.';
COMMENT ON COLUMN usage_billing.storage_source.relation IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_source.org_column IS 'column that holds the organisation';
COMMENT ON COLUMN usage_billing.storage_source.bytes_column IS 'column that holds the size in bytes';
COMMENT ON COLUMN usage_billing.storage_source.kind IS 'kind of all its files; null: the column''s, or none';
COMMENT ON COLUMN usage_billing.storage_source.kind_column IS 'column that holds the kind; null: none';
COMMENT ON COLUMN usage_billing.storage_source.duration_column IS 'column that holds the duration, in seconds or as an interval; null: none';
COMMENT ON COLUMN usage_billing.storage_source.source_id IS 'what the derived tables call it by';

COMMENT ON TABLE usage_billing.storage_delta IS
'Changes of stored files that aren''t folded yet
Derived and never dumped. Rows vanish when a refresh folds them into storage_total.';
COMMENT ON COLUMN usage_billing.storage_delta.org_id IS 'the organisation whose files changed';
COMMENT ON COLUMN usage_billing.storage_delta.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_delta.kind IS 'image, video or other';
COMMENT ON COLUMN usage_billing.storage_delta.files IS 'change of the number of files';
COMMENT ON COLUMN usage_billing.storage_delta.bytes IS 'change of the bytes';
COMMENT ON COLUMN usage_billing.storage_delta.seconds IS 'change of the seconds';

COMMENT ON TABLE usage_billing.storage_total IS
'What organisations have stored, as far as it is folded
Derived and never dumped.';
COMMENT ON COLUMN usage_billing.storage_total.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_total.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_total.kind IS 'image, video or other';
COMMENT ON COLUMN usage_billing.storage_total.files IS 'number of files';
COMMENT ON COLUMN usage_billing.storage_total.bytes IS 'their bytes';
COMMENT ON COLUMN usage_billing.storage_total.seconds IS 'their seconds';

COMMENT ON TABLE usage_billing.storage_counted IS
'When tracked tables were counted last
Derived and never dumped. A table without a row here is counted before the next answer.';
COMMENT ON COLUMN usage_billing.storage_counted.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_counted.counted_at IS 'when all of it was counted last';


-- Who is asking, and views

COMMENT ON FUNCTION usage_billing.request_org() IS
'Tells which organisation the request''s token names
Returns its id; null for a request that may see every organisation. Row-level security asks it.
Errors: 42501 the token names none, or its claims are no JSON object.';
COMMENT ON FUNCTION usage_billing.request_accounts() IS
'Lists the billing accounts of the organisation that the request''s token names
Returns their ids; null for a request that may see every account. Row-level security asks it.
Errors: 42501 the token names no organisation, or its claims are no JSON object.';

COMMENT ON VIEW usage_billing.usage_remaining IS
'Usage with what was reverted of it and what is left
A row for each usage that the reader may see.';
COMMENT ON COLUMN usage_billing.usage_remaining.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_remaining.id IS 'the usage''s id, a key within its account';
COMMENT ON COLUMN usage_billing.usage_remaining.type IS 'credit: taken from the balance; feature: counted only';
COMMENT ON COLUMN usage_billing.usage_remaining.amount IS 'what was reported';
COMMENT ON COLUMN usage_billing.usage_remaining.reverted IS 'what was taken back of it';
COMMENT ON COLUMN usage_billing.usage_remaining.remaining IS 'what is left, which is what may still be reverted';
COMMENT ON COLUMN usage_billing.usage_remaining.source IS 'what caused the usage';
COMMENT ON COLUMN usage_billing.usage_remaining.description IS 'free text';
COMMENT ON COLUMN usage_billing.usage_remaining.user_id IS 'who caused the usage';
COMMENT ON COLUMN usage_billing.usage_remaining.metadata IS 'the caller''s own data';
COMMENT ON COLUMN usage_billing.usage_remaining.created_at IS 'when the usage happened';

COMMENT ON VIEW usage_billing.account_statement IS
'What changed the balances of the accounts that the reader may see
The rows of account_transactions, for filters and orders of one''s own.';
COMMENT ON COLUMN usage_billing.account_statement.billing_id IS 'the account';
COMMENT ON COLUMN usage_billing.account_statement.id IS 'the usage''s, revert''s or grant''s id';
COMMENT ON COLUMN usage_billing.account_statement.kind IS 'usage, revert or grant';
COMMENT ON COLUMN usage_billing.account_statement.type IS 'debit for a usage, credit for a revert or a grant';
COMMENT ON COLUMN usage_billing.account_statement.amount IS 'credits, more than 0';
COMMENT ON COLUMN usage_billing.account_statement.source IS 'what caused it; for a revert, the source of the usage';
COMMENT ON COLUMN usage_billing.account_statement.description IS 'free text';
COMMENT ON COLUMN usage_billing.account_statement.user_id IS 'who caused it';
COMMENT ON COLUMN usage_billing.account_statement.metadata IS 'the caller''s own data';
COMMENT ON COLUMN usage_billing.account_statement.created_at IS 'when it happened';
COMMENT ON FUNCTION usage_billing.check_ids() IS 'trigger: refuses ids that are empty or too long';
