-- What the pgTAP files share. Included with \ir inside a transaction that is
-- rolled back at the end, so nothing of it stays.

SET LOCAL client_min_messages = warning;
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, YMD';
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS usage_billing;
CREATE SCHEMA ub_test;

-- A short name for a uuid: id(7) is 00000000-0000-4000-8000-000000000007.
CREATE FUNCTION ub_test.id(n bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE AS
$$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;

-- The same inside a longer text: @07 stands for the uuid that ends with 07.
CREATE FUNCTION ub_test.expand(template text) RETURNS text
LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(template, '@(\d\d)', '00000000-0000-4000-8000-0000000000\1', 'g') $$;

-- What the facts say about each hour.
CREATE VIEW ub_test.hour_of_facts AS
WITH measured AS (
	SELECT u.*, CASE WHEN u.type = 'feature' AND u.source IN ('transcoders', 'vod_streams')
		THEN u.metadata ELSE '{}' END AS m
	FROM usage_billing.usage u)
SELECT billing_id, date_trunc('hour', created_at, 'UTC') AS hour, source, type, amount::numeric, 1::numeric AS events,
	coalesce(m ->> 'viewing_seconds', '0')::numeric AS viewing_seconds,
	coalesce(m ->> 'viewing_bytes', '0')::numeric AS viewing_bytes,
	coalesce(m ->> 'egress_seconds', '0')::numeric AS egress_seconds,
	coalesce(m ->> 'egress_seconds_additional_targets', '0')::numeric AS egress_seconds_additional_targets,
	coalesce(m ->> 'egress_bytes', '0')::numeric AS egress_bytes
FROM measured
UNION ALL
SELECT billing_id, hour, source, type, amount, events, viewing_seconds, viewing_bytes, egress_seconds,
	egress_seconds_additional_targets, egress_bytes
FROM usage_billing.usage_archive
UNION ALL
SELECT billing_id, date_trunc('hour', usage_at, 'UTC'), usage_source, usage_type, -amount, -usage_events,
	-viewing_seconds, -viewing_bytes, -egress_seconds, -egress_seconds_additional_targets, -egress_bytes
FROM usage_billing.usage_revert;

-- What the derived tables say about each hour. In a delta a sum of 0 is null,
-- and what has no hour (a grant) stands at -infinity.
CREATE VIEW ub_test.hour_derived AS
SELECT billing_id, hour, source, type, amount, events, viewing_seconds, viewing_bytes,
	egress_seconds, egress_seconds_additional_targets, egress_bytes
FROM usage_billing.usage_hourly
UNION ALL
SELECT billing_id, hour, source, type, coalesce(amount, 0), coalesce(events, 0),
	coalesce(viewing_seconds, 0), coalesce(viewing_bytes, 0), coalesce(egress_seconds, 0),
	coalesce(egress_seconds_additional_targets, 0), coalesce(egress_bytes, 0)
FROM usage_billing.usage_delta WHERE isfinite(hour);

-- Where facts and derived state differ, as text; empty if the books are right.
-- It asks the API, the tables and verify(), each by itself.
CREATE FUNCTION ub_test.books() RETURNS text
LANGUAGE sql SET request.jwt.claims = '' AS $$
	SELECT coalesce(string_agg(line, E'\n' ORDER BY line), '') FROM (
		SELECT format('hour: %s', (h.billing_id, h.hour, h.source, h.type)) AS line
		FROM (SELECT * FROM ub_test.hour_of_facts
			UNION ALL
			SELECT billing_id, hour, source, type, -amount, -events, -viewing_seconds, -viewing_bytes,
				-egress_seconds, -egress_seconds_additional_targets, -egress_bytes
			FROM ub_test.hour_derived) h
		GROUP BY h.billing_id, h.hour, h.source, h.type
		HAVING sum(amount) <> 0 OR sum(events) <> 0 OR sum(viewing_seconds) <> 0 OR sum(viewing_bytes) <> 0
			OR sum(egress_seconds) <> 0 OR sum(egress_seconds_additional_targets) <> 0 OR sum(egress_bytes) <> 0
		UNION ALL
		SELECT format('account %s: balance %s, debited %s by the facts, %s and %s by the API',
			a.billing_id, g.granted - d.debited, d.debited, b.balance, b.debited)
		FROM usage_billing.billing_account a
		CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS granted
			FROM usage_billing.credit_grant WHERE billing_id = a.billing_id) g
		CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS debited FROM (
				SELECT amount::numeric FROM usage_billing.usage WHERE billing_id = a.billing_id AND type = 'credit'
				UNION ALL
				SELECT amount FROM usage_billing.usage_archive WHERE billing_id = a.billing_id AND type = 'credit'
				UNION ALL
				SELECT -amount FROM usage_billing.usage_revert WHERE billing_id = a.billing_id AND usage_type = 'credit') f) d
		CROSS JOIN LATERAL (SELECT (usage_billing.account_balance(billing_id => a.billing_id) ->> 'balance')::numeric AS balance,
			usage_billing.total_debited(billing_id => a.billing_id)::numeric AS debited) b
		WHERE b.balance IS DISTINCT FROM g.granted - d.debited OR b.debited IS DISTINCT FROM d.debited
		UNION ALL
		SELECT format('verify: %s', v) FROM usage_billing.verify() v) lines
$$;

-- All that may be seen of the extension's state, for "nothing changed".
CREATE FUNCTION ub_test.state() RETURNS jsonb
LANGUAGE sql SET request.jwt.claims = '' AS $$
	SELECT jsonb_build_object(
		'facts', (SELECT md5(coalesce(string_agg(f, E'\n' ORDER BY f COLLATE "C"), '')) FROM (
			SELECT 'a' || a::text AS f FROM usage_billing.billing_account a
			UNION ALL SELECT 'p' || p::text FROM usage_billing.project p
			UNION ALL SELECT 'g' || g::text FROM usage_billing.credit_grant g
			UNION ALL SELECT 'u' || u::text FROM usage_billing.usage u
			UNION ALL SELECT 'h' || h::text FROM usage_billing.usage_archive h
			UNION ALL SELECT 'r' || r::text FROM usage_billing.usage_revert r) facts),
		'hours', (SELECT md5(coalesce(string_agg(h::text, E'\n' ORDER BY h::text COLLATE "C"), '')) FROM (
			SELECT billing_id, hour, source, type, sum(amount), sum(events), sum(viewing_seconds), sum(viewing_bytes),
				sum(egress_seconds), sum(egress_seconds_additional_targets), sum(egress_bytes)
			FROM ub_test.hour_derived GROUP BY 1, 2, 3, 4
			HAVING sum(amount) <> 0 OR sum(events) <> 0) h),
		'balances', (SELECT jsonb_agg(usage_billing.account_balance(billing_id => a.billing_id)
				|| jsonb_build_object('debited', usage_billing.total_debited(billing_id => a.billing_id)) ORDER BY a.billing_id)
			FROM usage_billing.billing_account a))
$$;

-- Runs a statement that should fail in a subtransaction and says how it ended.
-- One that succeeds (00000) is undone, so that what follows can be judged.
CREATE FUNCTION ub_test.try(call text, OUT code text, OUT message text, OUT detail text, OUT hint text)
LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE call;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		code := '00000';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
END $$;

-- What is wrong with a statement that must fail: its code, its texts, or that
-- it changed something. What callers made up must not be in the message: in
-- these tests that is anything with mArKeR or 98765 in it.
CREATE FUNCTION ub_test.problems(call text, want_code text, want_detail text DEFAULT NULL, want_hint boolean DEFAULT false)
RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
	before jsonb := ub_test.state();
	after jsonb;
	got record;
	wrong text[] := '{}';
BEGIN
	SELECT * INTO got FROM ub_test.try(call);
	IF got.code <> want_code THEN
		wrong := wrong || format('SQLSTATE is %s, not %s: %s (%s)', got.code, want_code, got.message, left(got.detail, 200));
	END IF;
	IF got.code <> '00000' THEN
		IF got.message ~* 'marker|98765' OR got.message ~ '[\r\n]' THEN
			wrong := wrong || format('the message repeats the caller: %s', got.message);
		END IF;
		IF coalesce(got.message, '') = '' OR got.message ~ '^[[:upper:]]' OR got.message ~ '\.\s*$' THEN
			wrong := wrong || format('the message is not in the usual style: %s', got.message);
		END IF;
		IF want_detail IS NOT NULL AND coalesce(got.detail, '') !~ want_detail THEN
			wrong := wrong || format('the detail is not like %s: %s', want_detail, left(got.detail, 200));
		END IF;
		IF want_hint AND coalesce(got.hint, '') = '' THEN
			wrong := wrong || 'there is no hint'::text;
		END IF;
	END IF;
	after := ub_test.state();
	IF after <> before THEN
		wrong := wrong || format('something changed: %s to %s', before, after);
	END IF;
	RETURN wrong;
END $$;

-- The same as one pgTAP test.
CREATE FUNCTION ub_test.fails(call text, want_code text, want_detail text, name text)
RETURNS text
LANGUAGE sql AS $$ SELECT is(ub_test.problems(call, want_code, want_detail), '{}'::text[], name) $$;

-- How many rows a statement stored (or returned).
CREATE FUNCTION ub_test.rows(call text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	EXECUTE call;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;

-- create_usage with one element, its keys given as pairs.
CREATE FUNCTION ub_test.use(account text, VARIADIC pairs text[]) RETURNS jsonb
LANGUAGE sql AS $$
	SELECT usage_billing.create_usage(jsonb_build_array(jsonb_object(pairs)), billing_id => account)
$$;

CREATE FUNCTION ub_test.balance(account text) RETURNS bigint
LANGUAGE sql SET request.jwt.claims = '' AS $$
	SELECT (usage_billing.account_balance(billing_id => account) ->> 'balance')::bigint
$$;
