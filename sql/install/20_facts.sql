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
