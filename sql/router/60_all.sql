-- What concerns every bucket.

-- Runs a call that returns rows in all buckets at once. failure names a bucket
-- that is not available, or is the error of one of them.
CREATE FUNCTION usage_billing.route_to_all(call text, parameters text[],
	OUT failure jsonb, OUT buckets integer[], OUT items jsonb[])
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	one integer;
BEGIN
	-- says so if there are none
	PERFORM usage_billing.bucket_of('');
	LOOP
		one := NULL;
		BEGIN
			SELECT array_agg(r.bucket) FILTER (WHERE r.failure IS NULL), array_agg(r.item) FILTER (WHERE r.failure IS NULL),
				(array_agg(r.failure) FILTER (WHERE r.failure IS NOT NULL))[1],
				min(r.bucket) FILTER (WHERE r.failure ? 'moved')
			INTO buckets, items, failure, one
			FROM usage_billing.remote_rows_of_all(
				(SELECT array_agg(b.bucket ORDER BY b.bucket) FROM usage_billing.bucket AS b), call, parameters,
				usage_billing.request()) AS r;
		EXCEPTION WHEN OTHERS THEN
			failure := usage_billing.unavailable(usage_billing.unavailable_bucket(), SQLERRM);
		END;
		EXIT WHEN one IS NULL OR failure IS NULL;
		failure := usage_billing.wait_for_move(one, begun);
		EXIT WHEN failure IS NOT NULL;
	END LOOP;
END;
$$;

-- Which bucket does not answer: the first one. Null: all do, by now.
CREATE FUNCTION usage_billing.unavailable_bucket() RETURNS integer
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	RETURN (SELECT min(s.bucket) FROM usage_billing.bucket_status() AS s WHERE s.problem IS NOT NULL);
END;
$$;

CREATE FUNCTION usage_billing.bucket_status()
	RETURNS TABLE (bucket integer, connection text, problem text)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	answer jsonb;
BEGIN
	FOR bucket, connection IN SELECT b.bucket, b.connection FROM usage_billing.bucket AS b ORDER BY b.bucket LOOP
		problem := NULL;
		BEGIN
			answer := usage_billing.remote_call(bucket_status.bucket, 'require_unscoped', ARRAY[]::text[], NULL, ARRAY[]::text[]);
			problem := CASE WHEN answer ? 'moved' THEN 'moved away' ELSE answer ->> 'message' END;
		EXCEPTION WHEN OTHERS THEN
			problem := SQLERRM;
		END;
		RETURN NEXT;
	END LOOP;
END;
$$;

-- Returns the rows of one account's bucket, or of all.
CREATE FUNCTION usage_billing.route_by_account(call text, billing_id text) RETURNS SETOF jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	failure jsonb;
	items jsonb[];
BEGIN
	IF billing_id <> '' THEN
		RETURN QUERY SELECT * FROM usage_billing.route_rows(usage_billing.bucket_for(billing_id, NULL, NULL),
			call, ARRAY[billing_id]);
		RETURN;
	END IF;
	SELECT r.failure, r.items INTO failure, items FROM usage_billing.route_to_all(call, ARRAY[]::text[]) AS r;
	IF failure IS NOT NULL THEN
		PERFORM usage_billing.raise_failure(failure);
	END IF;
	RETURN QUERY SELECT unnest(items);
END;
$$;

CREATE FUNCTION usage_billing.verify(billing_id text DEFAULT NULL)
	RETURNS TABLE (subject text, key text, expected text, actual text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	SELECT t.* FROM usage_billing.route_by_account('verify', billing_id) AS r,
		jsonb_to_record(r) AS t (subject text, key text, expected text, actual text);
END;
$$;

CREATE FUNCTION usage_billing.rebuild(billing_id text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM usage_billing.route_by_account('rebuild', billing_id);
END;
$$;

CREATE FUNCTION usage_billing.run_maintenance() RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM usage_billing.route_by_account('run_maintenance', NULL);
END;
$$;

-- A monitor has to see most when something is wrong: a bucket that is not
-- available is a row of its own, and the others are shown.
CREATE FUNCTION usage_billing.maintenance_of_buckets()
	RETURNS TABLE (bucket integer, duty text, last_start timestamptz, duration interval, rows_done bigint,
		backlog bigint, last_error text, last_error_at timestamptz)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	answer record;
	one integer;
BEGIN
	SELECT * INTO answer FROM usage_billing.route_to_all('maintenance_status', ARRAY[]::text[]);
	IF answer.failure IS NULL THEN
		RETURN QUERY
		SELECT r.bucket, t.* FROM unnest(answer.buckets, answer.items) AS r (bucket, item),
			jsonb_to_record(r.item) AS t (duty text, last_start timestamptz, duration interval, rows_done bigint,
				backlog bigint, last_error text, last_error_at timestamptz);
		RETURN;
	END IF;

	FOR one IN SELECT b.bucket FROM usage_billing.bucket AS b ORDER BY b.bucket LOOP
		BEGIN
			RETURN QUERY
			SELECT one, t.* FROM usage_billing.route_rows(one, 'maintenance_status', ARRAY[]::text[]) AS r,
				jsonb_to_record(r) AS t (duty text, last_start timestamptz, duration interval, rows_done bigint,
					backlog bigint, last_error text, last_error_at timestamptz);
		EXCEPTION WHEN OTHERS THEN
			RETURN QUERY SELECT one, 'connection', NULL::timestamptz, NULL::interval, NULL::bigint, NULL::bigint,
				format('bucket %s: %s', one, SQLERRM), now();
		END;
	END LOOP;
END;
$$;

CREATE VIEW usage_billing.maintenance_status AS
SELECT m.duty COLLATE "C" AS duty, m.last_start, m.duration, m.rows_done, m.backlog, m.last_error, m.last_error_at
FROM usage_billing.maintenance_of_buckets() AS m;

CREATE VIEW usage_billing.bucket_maintenance_status AS
SELECT m.bucket, m.duty COLLATE "C" AS duty, m.last_start, m.duration, m.rows_done, m.backlog, m.last_error, m.last_error_at
FROM usage_billing.maintenance_of_buckets() AS m;

-- create_usage for many accounts at once: all buckets work at the same time.
-- Each call is all or nothing by itself, and one that fails stops no other.
CREATE FUNCTION usage_billing.create_usage_many(calls jsonb)
	RETURNS TABLE (call_no integer, result jsonb, error jsonb)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	begun timestamptz := clock_timestamp();
	waiting integer[];
	positions integer[];
	buckets integer[];
	documents jsonb[];
	only_bucket integer;
	not_available integer[] := '{}';
	moved integer;
	failure jsonb;
	answer record;
BEGIN
	IF jsonb_typeof(calls) IS DISTINCT FROM 'array' OR jsonb_path_exists(calls, 'strict $[*] ? (@.type() != "object")') THEN
		RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'invalid parameter',
			DETAIL = 'calls is not an array of objects.',
			HINT = 'Each has usages, and billing_id, org_id or project_id, as create_usage takes them.';
	END IF;
	waiting := ARRAY(SELECT generate_series(1, jsonb_array_length(calls)));

	-- All buckets at once first. If one is not available, PL/Proxy gives up all
	-- of them: then one after the other.
	WHILE cardinality(waiting) > 0 LOOP
		SELECT array_agg(c.no ORDER BY c.account, c.no), array_agg(c.bucket ORDER BY c.account, c.no),
			array_agg(c.call ORDER BY c.account, c.no)
		INTO positions, buckets, documents
		FROM (SELECT w AS no, calls -> (w - 1) AS call,
				coalesce(calls -> (w - 1) ->> 'billing_id', calls -> (w - 1) ->> 'org_id', calls -> (w - 1) ->> 'project_id') COLLATE "C" AS account,
				usage_billing.bucket_for(calls -> (w - 1) ->> 'billing_id', calls -> (w - 1) ->> 'org_id', calls -> (w - 1) ->> 'project_id') AS bucket
			FROM unnest(waiting) AS w) AS c
		WHERE only_bucket IS NULL OR c.bucket = only_bucket;

		moved := NULL;
		BEGIN
			FOR answer IN
				SELECT r.call_no, r.failure, r.result
				FROM usage_billing.remote_batch(buckets, positions, documents, usage_billing.request()) AS r
			LOOP
				IF answer.failure ? 'moved' THEN
					moved := coalesce(moved, buckets[array_position(positions, answer.call_no)]);
					CONTINUE;
				END IF;
				waiting := array_remove(waiting, answer.call_no);
				call_no := answer.call_no;
				result := answer.result;
				error := usage_billing.failure_shown(usage_billing.project_failure(answer.failure, ARRAY[
					calls -> (call_no - 1) ->> 'billing_id', calls -> (call_no - 1) ->> 'org_id', calls -> (call_no - 1) ->> 'project_id']));
				RETURN NEXT;
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			failure := usage_billing.unavailable(only_bucket, SQLERRM);
			IF only_bucket IS NOT NULL THEN
				FOREACH call_no IN ARRAY positions LOOP
					result := NULL;
					error := usage_billing.failure_shown(failure);
					RETURN NEXT;
				END LOOP;
				waiting := ARRAY(SELECT w FROM unnest(waiting) AS w WHERE w <> ALL (positions));
			ELSE
				only_bucket := buckets[1];
				CONTINUE;
			END IF;
		END;

		IF moved IS NOT NULL THEN
			failure := usage_billing.wait_for_move(moved, begun);
			IF failure IS NOT NULL THEN
				PERFORM usage_billing.raise_failure(failure);
			END IF;
		ELSIF only_bucket IS NOT NULL AND cardinality(waiting) > 0 THEN
			only_bucket := usage_billing.bucket_for(calls -> (waiting[1] - 1) ->> 'billing_id',
				calls -> (waiting[1] - 1) ->> 'org_id', calls -> (waiting[1] - 1) ->> 'project_id');
		END IF;
	END LOOP;
END;
$$;

-- What the nodes have and the directory lacks is entered: after a creation that
-- broke between the two, and when a database that has accounts becomes a bucket.
CREATE FUNCTION usage_billing.refresh_directory() RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	one integer;
	added bigint := 0;
	n bigint;
BEGIN
	FOR one IN SELECT b.bucket FROM usage_billing.bucket AS b ORDER BY b.bucket LOOP
		WITH node AS MATERIALIZED (
			SELECT r ->> 'billing_id' AS billing_id, r ->> 'project_id' AS project_id, r ->> 'org_id' AS org_id
			FROM usage_billing.route_rows(one, 'directory', ARRAY[]::text[]) AS r
		), organisations AS (
			INSERT INTO usage_billing.directory_organisation SELECT DISTINCT n.org_id, one FROM node AS n
			ON CONFLICT DO NOTHING
		), accounts AS (
			INSERT INTO usage_billing.directory_account SELECT n.billing_id, n.org_id FROM node AS n WHERE n.billing_id IS NOT NULL
			ON CONFLICT DO NOTHING RETURNING 1
		), projects AS (
			INSERT INTO usage_billing.directory_project SELECT n.project_id, n.org_id FROM node AS n WHERE n.project_id IS NOT NULL
			ON CONFLICT DO NOTHING RETURNING 1
		)
		SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM projects) INTO n;
		added := added + n;
	END LOOP;
	RETURN added;
END;
$$;

CREATE FUNCTION usage_billing.verify_directory()
	RETURNS TABLE (subject text, key text, expected text, actual text)
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	one integer;
BEGIN
	FOR one IN SELECT b.bucket FROM usage_billing.bucket AS b ORDER BY b.bucket LOOP
		RETURN QUERY
		WITH node AS MATERIALIZED (
			SELECT CASE WHEN r ? 'billing_id' THEN 'account' ELSE 'project' END AS subject,
				coalesce(r ->> 'billing_id', r ->> 'project_id') COLLATE "C" AS key, r ->> 'org_id' AS org_id
			FROM usage_billing.route_rows(one, 'directory', ARRAY[]::text[]) AS r
		), directory AS (
			SELECT d.subject, d.key, d.org_id
			FROM (SELECT 'account' AS subject, a.billing_id AS key, a.org_id FROM usage_billing.directory_account AS a
				UNION ALL
				SELECT 'project', j.project_id, j.org_id FROM usage_billing.directory_project AS j) AS d
			LEFT JOIN usage_billing.directory_organisation AS o ON o.org_id = d.org_id
			WHERE coalesce(o.bucket, usage_billing.bucket_of(d.org_id)) = one
		)
		SELECT coalesce(n.subject, d.subject), coalesce(n.key, d.key)::text,
			CASE WHEN n.key IS NULL THEN format('not in bucket %s', one) ELSE format('of %s in bucket %s', n.org_id, one) END,
			CASE WHEN d.key IS NULL THEN format('not in bucket %s', one) ELSE format('of %s in bucket %s', d.org_id, one) END
		FROM node AS n
		FULL JOIN directory AS d ON d.subject = n.subject AND d.key = n.key
		WHERE n.org_id IS DISTINCT FROM d.org_id;
	END LOOP;
END;
$$;
