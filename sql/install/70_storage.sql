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
