TRUNCATE pair;
SELECT set_config('bench.size', :'size', false), set_config('bench.rounds', :'rounds', false) \g /dev/null
DO $$
DECLARE
	e jsonb;
	t timestamptz;
	a float8;
	b float8;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int * 20 LOOP
		e := events(current_setting('bench.size')::int);
		t := clock_timestamp();
		PERFORM usage_billing.create_usage(e, billing_id => 'ours');
		COMMIT;
		a := ms_since(t);
		t := clock_timestamp();
		CALL by_hand(e);
		COMMIT;
		b := ms_since(t);
		INSERT INTO pair (ours, other) VALUES (a, b);
		COMMIT;
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
