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
