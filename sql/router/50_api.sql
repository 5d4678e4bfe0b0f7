-- What callers use, as on a node: names, parameters, defaults, results and
-- volatility are the same. The functions are written for a node's
-- parameters[1..3], which are billing_id, org_id and project_id.

CREATE FUNCTION usage_billing.create_usage(
	usages jsonb,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('create_usage', ARRAY[billing_id, org_id, project_id], usages);
END;
$$;

CREATE FUNCTION usage_billing.revert_usage(
	usage_id uuid, amount bigint DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL,
	id uuid DEFAULT NULL, description text DEFAULT NULL, user_id text DEFAULT NULL,
	metadata jsonb DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('revert_usage', ARRAY[billing_id, org_id, project_id,
		usage_id::text, amount::text, id::text, description, user_id], metadata);
END;
$$;

CREATE FUNCTION usage_billing.grant_credits(
	id uuid, amount bigint,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL,
	source text DEFAULT NULL, description text DEFAULT NULL, user_id text DEFAULT NULL,
	metadata jsonb DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('grant_credits', ARRAY[billing_id, org_id, project_id,
		id::text, amount::text, source, description, user_id], metadata);
END;
$$;

CREATE FUNCTION usage_billing.account_balance(
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('account_balance', ARRAY[billing_id, org_id, project_id]);
END;
$$;

CREATE FUNCTION usage_billing.total_debited(
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS bigint
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('total_debited', ARRAY[billing_id, org_id, project_id])::bigint;
END;
$$;

-- to_jsonb writes times the same way whatever DateStyle is.
CREATE FUNCTION usage_billing.account_transactions(
	"from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	max_rows integer DEFAULT 100, before text DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS TABLE (id uuid, kind text, type text, amount bigint, source text,
		description text, user_id text, metadata jsonb, created_at timestamptz, cursor text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	SELECT t.* FROM usage_billing.route_rows_of_account('account_transactions', ARRAY[billing_id, org_id, project_id,
			to_jsonb("from") #>> '{}', to_jsonb("to") #>> '{}', max_rows::text, before]) AS r,
		jsonb_to_record(r) AS t (id uuid, kind text, type text, amount bigint, source text,
			description text, user_id text, metadata jsonb, created_at timestamptz, cursor text);
END;
$$;

CREATE FUNCTION usage_billing.account_usage_trend(
	"from" text DEFAULT NULL, "to" text DEFAULT NULL,
	filter jsonb DEFAULT NULL, include text DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('account_usage_trend', ARRAY[billing_id, org_id, project_id,
		"from", "to", include], filter);
END;
$$;

CREATE FUNCTION usage_billing.usage_series(
	"from" timestamptz DEFAULT NULL, "to" timestamptz DEFAULT NULL,
	bucket text DEFAULT 'hour', time_zone text DEFAULT 'UTC',
	source text DEFAULT NULL, type usage_billing.usage_type DEFAULT NULL,
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS SETOF usage_billing.usage_bucket
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	SELECT t.* FROM usage_billing.route_rows_of_account('usage_series', ARRAY[billing_id, org_id, project_id,
			to_jsonb("from") #>> '{}', to_jsonb("to") #>> '{}', bucket, time_zone, source, type::text]) AS r,
		jsonb_populate_record(NULL::usage_billing.usage_bucket, r) AS t;
END;
$$;

-- now() is the node's: its clock decides what is in the future.
CREATE FUNCTION usage_billing.close_billing_period(
	"at" timestamptz DEFAULT now(),
	billing_id text DEFAULT NULL, org_id text DEFAULT NULL, project_id text DEFAULT NULL)
	RETURNS timestamptz
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN usage_billing.route_to_account('close_billing_period', ARRAY[billing_id, org_id, project_id,
		to_jsonb(nullif("at", now())) #>> '{}']) #>> '{}';
END;
$$;

-- Enters an account or a project into the directory, unless it is there. Returns
-- the organisation that it belongs to there, or may belong to. What can't be an
-- id is left to the node, which says so.
CREATE FUNCTION usage_billing.directory_add(projects boolean, id text, org_id text) RETURNS text
	LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_variable
DECLARE
	org text := coalesce(nullif(org_id, ''), usage_billing.claimed_org(current_setting('request.jwt.claims', true)));
	owner text;
BEGIN
	IF (octet_length(id) BETWEEN 1 AND 255 AND octet_length(org) BETWEEN 1 AND 255) IS NOT TRUE THEN
		RETURN org;
	END IF;
	LOOP
		IF projects THEN
			owner := (SELECT j.org_id FROM usage_billing.directory_project AS j WHERE j.project_id = id COLLATE "C");
		ELSE
			owner := (SELECT a.org_id FROM usage_billing.directory_account AS a WHERE a.billing_id = id COLLATE "C");
		END IF;
		-- a transaction that only reads is refused by the node, in its words
		IF owner IS NOT NULL OR current_setting('transaction_read_only')::boolean AND NOT pg_is_in_recovery() THEN
			RETURN coalesce(owner, org);
		END IF;
		-- waits for another transaction that has the id, and then looks again
		IF projects THEN
			INSERT INTO usage_billing.directory_project VALUES (id, org) ON CONFLICT DO NOTHING;
		ELSE
			INSERT INTO usage_billing.directory_account VALUES (id, org) ON CONFLICT DO NOTHING;
		END IF;
		CONTINUE WHEN NOT FOUND;
		INSERT INTO usage_billing.directory_organisation VALUES (org, usage_billing.bucket_of(org)) ON CONFLICT DO NOTHING;
		RETURN org;
	END LOOP;
END;
$$;

-- Node first, directory second: the row in the directory is written before the
-- call but committed after it. Until then its key keeps others from using the
-- id in another bucket. If this transaction fails after the node has committed,
-- the account is there but unknown to the directory: the same call again, or
-- refresh_directory, puts that right.
CREATE FUNCTION usage_billing.create_billing_account(
	org_id text DEFAULT NULL, billing_id text DEFAULT NULL,
	credit_min bigint DEFAULT 0, is_default boolean DEFAULT NULL,
	metadata jsonb DEFAULT '{}')
	RETURNS usage_billing.billing_account
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	owner text;
	failure jsonb;
	result jsonb;
BEGIN
	billing_id := coalesce(nullif(billing_id, ''), gen_random_uuid()::text);
	owner := usage_billing.directory_add(false, billing_id, org_id);
	SELECT r.failure, r.result INTO failure, result
	FROM usage_billing.route(usage_billing.bucket_for(NULL, owner, NULL), 'create_billing_account',
		ARRAY[billing_id, org_id, owner, credit_min::text, is_default::text], metadata) AS r;
	IF failure IS NOT NULL THEN
		PERFORM usage_billing.raise_failure(failure);
	END IF;
	RETURN jsonb_populate_record(NULL::usage_billing.billing_account, result);
END;
$$;

CREATE FUNCTION usage_billing.create_project(
	project_id text, org_id text DEFAULT NULL)
	RETURNS usage_billing.project
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	owner text;
	failure jsonb;
	result jsonb;
BEGIN
	owner := usage_billing.directory_add(true, project_id, org_id);
	SELECT r.failure, r.result INTO failure, result
	FROM usage_billing.route(usage_billing.bucket_for(NULL, owner, NULL), 'create_project',
		ARRAY[owner, org_id, project_id]) AS r;
	IF failure IS NOT NULL THEN
		PERFORM usage_billing.raise_failure(failure);
	END IF;
	RETURN jsonb_populate_record(NULL::usage_billing.project, result);
END;
$$;

CREATE FUNCTION usage_billing.refresh_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN jsonb_populate_record(NULL::usage_billing.storage_usage,
		usage_billing.route_to_account('refresh_storage_usage', ARRAY[NULL, org_id]));
END;
$$;

CREATE FUNCTION usage_billing.recount_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN jsonb_populate_record(NULL::usage_billing.storage_usage,
		usage_billing.route_to_account('recount_storage_usage', ARRAY[NULL, org_id]));
END;
$$;

CREATE FUNCTION usage_billing.get_storage_usage(org_id text DEFAULT NULL)
	RETURNS usage_billing.storage_usage
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN jsonb_populate_record(NULL::usage_billing.storage_usage,
		usage_billing.route_to_account('get_storage_usage', ARRAY[NULL, org_id]));
END;
$$;

CREATE FUNCTION usage_billing.get_storage_usage_history(
	days integer DEFAULT 30, org_id text DEFAULT NULL)
	RETURNS SETOF usage_billing.storage_usage
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	SELECT t.* FROM usage_billing.route_rows_of_account('get_storage_usage_history', ARRAY[NULL, org_id, NULL, days::text]) AS r,
		jsonb_populate_record(NULL::usage_billing.storage_usage, r) AS t;
END;
$$;

CREATE FUNCTION usage_billing.set_storage_limits(
	org_id text DEFAULT NULL, max_image_count bigint DEFAULT NULL,
	max_video_count bigint DEFAULT NULL, max_project_count bigint DEFAULT NULL)
	RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM usage_billing.route_to_account('set_storage_limits', ARRAY[NULL, org_id, NULL,
		max_image_count::text, max_video_count::text, max_project_count::text]);
END;
$$;

-- Tables are tracked where they are: an application's files are on a node.
CREATE FUNCTION usage_billing.refuse_tracking(call text) RETURNS void
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	PERFORM usage_billing.route_to_account('require_unscoped', ARRAY[]::text[]);
	RAISE EXCEPTION USING ERRCODE = '0A000', MESSAGE = 'a router tracks no tables',
		DETAIL = format('%s works on a table of the database that it is called in.', call),
		HINT = 'Call it on the node that has the table, in the bucket of the organisations whose files it holds.';
END;
$$;

CREATE FUNCTION usage_billing.track_storage(
	relation regclass, org_column name, bytes_column name,
	kind text DEFAULT NULL, kind_column name DEFAULT NULL, duration_column name DEFAULT NULL)
	RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM usage_billing.refuse_tracking('track_storage');
END;
$$;

CREATE FUNCTION usage_billing.untrack_storage(relation regclass) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM usage_billing.refuse_tracking('untrack_storage');
END;
$$;
