-- One call to one bucket, and what becomes of its error.

CREATE FUNCTION usage_billing.remote_call(
	bucket integer, call text, parameters text[], document jsonb, request text[]) RETURNS jsonb
	LANGUAGE plproxy VOLATILE
AS $$
	CLUSTER 'usage_billing';
	RUN ON bucket;
	SELECT usage_billing.routed_call(call, parameters, document, request);
$$;

CREATE FUNCTION usage_billing.remote_rows(
	bucket integer, call text, parameters text[], request text[])
	RETURNS TABLE (failure jsonb, item jsonb)
	LANGUAGE plproxy VOLATILE
AS $$
	CLUSTER 'usage_billing';
	RUN ON bucket;
	SELECT failure, item FROM usage_billing.routed_rows(call, parameters, request);
$$;

-- The same on many buckets at once: each gets the array's element that is its.
CREATE FUNCTION usage_billing.remote_rows_of_all(
	buckets integer[], call text, parameters text[], request text[])
	RETURNS TABLE (bucket integer, failure jsonb, item jsonb)
	LANGUAGE plproxy VOLATILE
AS $$
	CLUSTER 'usage_billing';
	SPLIT buckets;
	RUN ON buckets;
	SELECT (buckets)[1] AS bucket, r.failure, r.item FROM usage_billing.routed_rows(call, parameters, request) AS r;
$$;

CREATE FUNCTION usage_billing.remote_batch(
	buckets integer[], positions integer[], calls jsonb[], request text[])
	RETURNS TABLE (call_no integer, failure jsonb, result jsonb)
	LANGUAGE plproxy VOLATILE
AS $$
	CLUSTER 'usage_billing';
	SPLIT buckets, positions, calls;
	RUN ON buckets;
	SELECT call_no, failure, result FROM usage_billing.routed_batch(positions, calls, request);
$$;

-- Raises an error that a node returned, as it was there.
CREATE FUNCTION usage_billing.raise_failure(failure jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	code text := failure ->> 'sqlstate';
	message text := failure ->> 'message';
	detail text := failure ->> 'detail';
	hint text := failure ->> 'hint';
BEGIN
	-- an option that is given can't be null
	IF detail IS NOT NULL AND hint IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail, HINT = hint;
	ELSIF detail IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, DETAIL = detail;
	ELSIF hint IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message, HINT = hint;
	END IF;
	RAISE EXCEPTION USING ERRCODE = code, MESSAGE = message;
END;
$$;

-- The same as a value, with the names that PostgREST gives its parts.
CREATE FUNCTION usage_billing.failure_shown(failure jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	RETURN CASE WHEN failure IS NOT NULL THEN jsonb_build_object('code', failure -> 'sqlstate',
		'message', failure -> 'message', 'details', failure -> 'detail', 'hint', failure -> 'hint') END;
END;
$$;

-- Says which bucket is not available. Why is for the log: it names hosts.
CREATE FUNCTION usage_billing.unavailable(bucket integer, why text) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	RAISE LOG 'bucket % is not available: %', bucket, why;
	RETURN jsonb_build_object('sqlstate', '08006', 'message', 'bucket is not available',
		'detail', CASE WHEN bucket IS NULL THEN 'A bucket did not answer, but does now.'
			ELSE format('Bucket %s does not answer; the others go on.', bucket) END,
		'hint', 'Repeat the call later with the same ids: nothing is ever counted twice.');
END;
$$;

-- Waits a little for a bucket that is being moved. Returns what to raise when it
-- has taken too long.
CREATE FUNCTION usage_billing.wait_for_move(bucket integer, since timestamptz) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	IF clock_timestamp() - since > (SELECT r.move_timeout FROM usage_billing.routing AS r) THEN
		RETURN usage_billing.unavailable(bucket, 'it was moved, and the directory does not say where to');
	END IF;
	PERFORM pg_sleep(0.02);
	RETURN NULL;
END;
$$;

-- Whether the role that makes the request may use tokens without an
-- organisation. A node can't know it: it sees the router's role only.
CREATE FUNCTION usage_billing.request_is_service() RETURNS boolean
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	service_role text := current_setting('usage_billing.service_role', true);
BEGIN
	IF coalesce(service_role, '') = '' THEN
		RETURN false;
	END IF;
	-- as on a node, a superuser is not a member by being one
	RETURN EXISTS (
		WITH RECURSIVE member_of (role) AS (
			SELECT r.oid FROM pg_roles AS r
			WHERE r.rolname = CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END
			UNION
			SELECT m.roleid FROM pg_auth_members AS m JOIN member_of AS o ON m.member = o.role)
		SELECT FROM member_of JOIN pg_roles AS r ON r.oid = role WHERE r.rolname = service_role);
END;
$$;

-- The organisation that the claims name, for finding the bucket only: whether
-- they are valid and what they allow is decided there.
CREATE FUNCTION usage_billing.claimed_org(claims text) RETURNS text
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	RETURN nullif(claims, '')::jsonb ->> coalesce(nullif(current_setting('usage_billing.org_claim', true), ''), 'org_id');
EXCEPTION WHEN OTHERS THEN
	RETURN NULL;
END;
$$;

-- What a node has to know of the request. On a standby of the router every
-- transaction is read-only, and the nodes are none.
CREATE FUNCTION usage_billing.request() RETURNS text[]
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	claims text := current_setting('request.jwt.claims', true);
BEGIN
	RETURN ARRAY[claims, current_setting('TimeZone'),
		CASE WHEN claims <> '' THEN usage_billing.request_is_service()::text END,
		(current_setting('transaction_read_only')::boolean AND NOT pg_is_in_recovery())::text];
END;
$$;

-- Runs one call in a bucket. Waits while the bucket is being moved.
CREATE FUNCTION usage_billing.route(
	bucket integer, call text, parameters text[], document jsonb DEFAULT NULL,
	OUT failure jsonb, OUT result jsonb)
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	answer jsonb;
BEGIN
	LOOP
		BEGIN
			answer := usage_billing.remote_call(bucket, call, parameters, document, usage_billing.request());
		EXCEPTION WHEN OTHERS THEN
			failure := usage_billing.unavailable(bucket, SQLERRM);
			RETURN;
		END;
		IF answer ? 'result' THEN
			result := nullif(answer -> 'result', 'null');
			RETURN;
		ELSIF answer ? 'sqlstate' THEN
			failure := answer;
			RETURN;
		END IF;
		failure := usage_billing.wait_for_move(bucket, begun);
		EXIT WHEN failure IS NOT NULL;
	END LOOP;
END;
$$;

-- The same for a function that returns rows; raises its error.
CREATE FUNCTION usage_billing.route_rows(bucket integer, call text, parameters text[])
	RETURNS SETOF jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	failure jsonb;
	line record;
BEGIN
	LOOP
		failure := NULL;
		BEGIN
			FOR line IN
				SELECT r.failure, r.item
				FROM usage_billing.remote_rows(bucket, call, parameters, usage_billing.request()) AS r
			LOOP
				IF line.failure IS NULL THEN
					RETURN NEXT line.item;
				ELSE
					failure := line.failure;
				END IF;
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			failure := usage_billing.unavailable(bucket, SQLERRM);
		END;
		EXIT WHEN failure IS NULL;
		IF failure ? 'moved' THEN
			failure := usage_billing.wait_for_move(bucket, begun);
			CONTINUE WHEN failure IS NULL;
		END IF;
		PERFORM usage_billing.raise_failure(failure);
	END LOOP;
END;
$$;

-- The bucket of the account that a call means. What the directory doesn't know
-- can go to any bucket, which knows it as little and says so in the usual words.
-- Reads in a snapshot of its own, so that a STABLE caller sees a move too.
CREATE FUNCTION usage_billing.bucket_for(billing_id text, org_id text, project_id text) RETURNS integer
	LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_variable
DECLARE
	org text;
	known integer;
BEGIN
	IF billing_id <> '' THEN
		SELECT a.org_id, o.bucket INTO org, known
		FROM usage_billing.directory_account AS a
		LEFT JOIN usage_billing.directory_organisation AS o ON o.org_id = a.org_id
		WHERE a.billing_id = billing_id COLLATE "C";
	END IF;
	IF org IS NULL AND org_id <> '' THEN
		org := org_id;
		known := (SELECT o.bucket FROM usage_billing.directory_organisation AS o WHERE o.org_id = org COLLATE "C");
	END IF;
	IF org IS NULL AND project_id <> '' THEN
		SELECT j.org_id, o.bucket INTO org, known
		FROM usage_billing.directory_project AS j
		LEFT JOIN usage_billing.directory_organisation AS o ON o.org_id = j.org_id
		WHERE j.project_id = project_id COLLATE "C";
	END IF;
	IF org IS NULL THEN
		org := coalesce(usage_billing.claimed_org(current_setting('request.jwt.claims', true)), billing_id, project_id, '');
		known := (SELECT o.bucket FROM usage_billing.directory_organisation AS o WHERE o.org_id = org COLLATE "C");
	END IF;
	RETURN coalesce(known, usage_billing.bucket_of(org));
END;
$$;

-- The account's node doesn't know another organisation's project that is in
-- another bucket. One node for all would have said that the two don't fit.
CREATE FUNCTION usage_billing.project_failure(failure jsonb, parameters text[]) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
	IF failure ->> 'sqlstate' = 'PT404' AND failure ->> 'message' = 'project not found' AND parameters[1] <> '' AND EXISTS (
		SELECT FROM usage_billing.directory_project AS j WHERE j.project_id = parameters[3] COLLATE "C") THEN
		RETURN jsonb_build_object('sqlstate', '22023', 'message', 'invalid parameter',
			'detail', 'billing_id does not belong to the organisation of project_id.', 'hint', 'Give only one of them.');
	END IF;
	RETURN failure;
END;
$$;

-- Runs a call for the account that the first three parameters choose.
CREATE FUNCTION usage_billing.route_to_account(call text, parameters text[], document jsonb DEFAULT NULL)
	RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_variable
DECLARE
	failure jsonb;
	result jsonb;
BEGIN
	SELECT r.failure, r.result INTO failure, result
	FROM usage_billing.route(usage_billing.bucket_for(parameters[1], parameters[2], parameters[3]),
		call, parameters, document) AS r;
	IF failure IS NOT NULL THEN
		PERFORM usage_billing.raise_failure(usage_billing.project_failure(failure, parameters));
	END IF;
	RETURN result;
END;
$$;

CREATE FUNCTION usage_billing.route_rows_of_account(call text, parameters text[]) RETURNS SETOF jsonb
	LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_variable
DECLARE
	failure jsonb;
BEGIN
	RETURN QUERY SELECT * FROM usage_billing.route_rows(
		usage_billing.bucket_for(parameters[1], parameters[2], parameters[3]), call, parameters);
EXCEPTION WHEN SQLSTATE 'PT404' THEN
	-- only what a node would say had it all projects needs a second look
	failure := usage_billing.project_failure(jsonb_build_object('sqlstate', SQLSTATE, 'message', SQLERRM), parameters);
	IF failure ->> 'sqlstate' = 'PT404' THEN
		RAISE;
	END IF;
	PERFORM usage_billing.raise_failure(failure);
END;
$$;
