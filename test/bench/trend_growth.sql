TRUNCATE pair;
SELECT set_config('bench.rounds', :'rounds', false) \g /dev/null
DO $$
DECLARE
	t timestamptz;
	a float8;
	answer text;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int * 10 LOOP
		t := clock_timestamp();
		answer := usage_billing.account_usage_trend('2026-01-01', '2026-04-01', include => 'trend', billing_id => 'much');
		a := ms_since(t);
		t := clock_timestamp();
		answer := usage_billing.account_usage_trend('2026-01-01', '2026-04-01', include => 'trend', billing_id => 'little');
		INSERT INTO pair (ours, other) VALUES (a, ms_since(t));
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
