TRUNCATE pair;
SELECT set_config('bench.rounds', :'rounds', false) \g /dev/null
DO $$
DECLARE
	t timestamptz;
	a float8;
	answer text;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int LOOP
		t := clock_timestamp();
		answer := usage_billing.account_usage_trend('2026-01-01', '2026-04-01', include => 'trend', billing_id => 'much');
		a := ms_since(t);
		t := clock_timestamp();
		answer := (SELECT jsonb_agg(hours) FROM (SELECT date_trunc('hour', created_at, 'UTC') AS sampled_at,
			sum((metadata ->> 'viewing_seconds')::bigint) AS viewing_seconds,
			sum((metadata ->> 'viewing_bytes')::bigint) AS viewing_bytes
			FROM usage_billing.usage
			WHERE billing_id = 'much' AND type = 'feature' AND source IN ('transcoders', 'vod_streams')
				AND created_at >= '2026-01-01Z' AND created_at < '2026-04-01Z'
			GROUP BY 1 ORDER BY 1) AS hours);
		INSERT INTO pair (ours, other) VALUES (a, ms_since(t));
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
