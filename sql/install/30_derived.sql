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
