-- The directory: which organisation an account or a project belongs to, in which
-- bucket an organisation is, and which database a bucket is. The nodes hold the
-- facts; the directory only says where.

-- One row, made by set_buckets.
CREATE TABLE usage_billing.routing (
	only_row		boolean NOT NULL DEFAULT true CHECK (only_row),
	buckets			integer NOT NULL CHECK (buckets > 0 AND buckets & (buckets - 1) = 0),
	-- counts the changes of bucket, so that sessions know when theirs is old
	version			integer NOT NULL DEFAULT 1,
	-- how long a call waits for a bucket that is being moved
	move_timeout	interval NOT NULL DEFAULT '30 seconds',
	CONSTRAINT routing_pkey PRIMARY KEY (only_row)
);

CREATE TABLE usage_billing.bucket (
	bucket			integer NOT NULL,
	connection		text NOT NULL,
	CONSTRAINT bucket_pkey PRIMARY KEY (bucket)
);

-- An organisation without a row here is in the bucket that its hash says.
CREATE TABLE usage_billing.directory_organisation (
	org_id			text COLLATE "C" NOT NULL,
	bucket			integer NOT NULL,
	CONSTRAINT directory_organisation_pkey PRIMARY KEY (org_id)
);

CREATE TABLE usage_billing.directory_account (
	billing_id		text COLLATE "C" NOT NULL,
	org_id			text COLLATE "C" NOT NULL,
	CONSTRAINT directory_account_pkey PRIMARY KEY (billing_id)
);

CREATE TABLE usage_billing.directory_project (
	project_id		text COLLATE "C" NOT NULL,
	org_id			text COLLATE "C" NOT NULL,
	CONSTRAINT directory_project_pkey PRIMARY KEY (project_id)
);

SELECT pg_catalog.pg_extension_config_dump('usage_billing.routing', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.bucket', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.directory_organisation', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.directory_account', '');
SELECT pg_catalog.pg_extension_config_dump('usage_billing.directory_project', '');

-- md5 and not the server's own hash: that one may change with a version.
CREATE FUNCTION usage_billing.bucket_of(org_id text) RETURNS integer
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	mask integer;
BEGIN
	SELECT r.buckets - 1 INTO mask FROM usage_billing.routing AS r;
	IF mask IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'the router has no buckets',
			DETAIL = 'Nobody has said yet which databases the buckets are.', HINT = 'Call set_buckets.';
	END IF;
	RETURN ('x' || substr(md5(org_id), 1, 8))::bit(32)::integer & mask;
END;
$$;

CREATE FUNCTION usage_billing.set_buckets(connections text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n integer := cardinality(connections);
BEGIN
	IF coalesce(n, 0) = 0 OR n & (n - 1) <> 0 OR array_position(connections, NULL) IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'invalid parameter',
			DETAIL = format('connections has %s elements; a router has 1, 2, 4, 8, 16 ... buckets.', coalesce(n, 0)),
			HINT = 'Give a connection string for each bucket. Several may be on one server.';
	END IF;
	IF n <> (SELECT r.buckets FROM usage_billing.routing AS r) THEN
		RAISE EXCEPTION USING ERRCODE = '55000', MESSAGE = 'the number of buckets is fixed',
			DETAIL = 'The hash of every organisation counts on it.', HINT = 'Move buckets to more servers instead.';
	END IF;
	INSERT INTO usage_billing.routing (buckets) VALUES (n)
	ON CONFLICT (only_row) DO UPDATE SET version = routing.version + 1;
	INSERT INTO usage_billing.bucket SELECT c.n - 1, c.connection FROM unnest(connections) WITH ORDINALITY AS c (connection, n)
	ON CONFLICT (bucket) DO UPDATE SET connection = excluded.connection;
END;
$$;

CREATE FUNCTION usage_billing.set_bucket(bucket integer, connection text) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	-- the version first: its row makes two changes take turns
	UPDATE usage_billing.routing AS r SET version = r.version + 1;
	UPDATE usage_billing.bucket AS b SET connection = set_bucket.connection WHERE b.bucket = set_bucket.bucket;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'invalid parameter',
			DETAIL = format('bucket %s does not exist.', bucket), HINT = 'Buckets are counted from 0.';
	END IF;
END;
$$;

-- What PL/Proxy asks at every call, and when the version has changed.
CREATE SCHEMA IF NOT EXISTS plproxy;

CREATE FUNCTION plproxy.get_cluster_version(cluster_name text) RETURNS integer
	LANGUAGE plpgsql STABLE
AS $$
BEGIN
	RETURN (SELECT r.version FROM usage_billing.routing AS r WHERE cluster_name = 'usage_billing');
END;
$$;

CREATE FUNCTION plproxy.get_cluster_partitions(cluster_name text) RETURNS SETOF text
	LANGUAGE sql STABLE
AS $$
	SELECT connection FROM usage_billing.bucket WHERE cluster_name = 'usage_billing' ORDER BY bucket
$$;

CREATE FUNCTION plproxy.get_cluster_config(cluster_name text, OUT key text, OUT val text) RETURNS SETOF record
	LANGUAGE sql STABLE
AS $$
	SELECT 'connection_lifetime', '3600'
$$;
