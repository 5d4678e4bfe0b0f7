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
