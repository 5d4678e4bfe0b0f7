TRUNCATE pair;
SELECT set_config('bench.rounds', :'rounds', false) \g /dev/null
DO $$
DECLARE
	file text := current_setting('data_directory') || '/bench.txt';
	t timestamptz;
	a float8;
	b float8;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int LOOP
		EXECUTE format('COPY (SELECT %L, gen_random_uuid(), %L, (random() * 1000)::int, %L, %L, %L || i %% 100, %L,
			now() - random() * interval ''10 days'', now() FROM generate_series(1, 100000) AS i) TO %L',
			'copy', 'credit', 'ai.tokens', 'completion', 'user-', '{"model": "large"}', file);
		t := clock_timestamp();
		EXECUTE format('COPY usage_billing.usage FROM %L', file);
		COMMIT;
		b := ms_since(t);
		t := clock_timestamp();
		EXECUTE format('COPY usage_billing.usage FROM %L', file);
		COMMIT;
		a := ms_since(t);
		INSERT INTO pair (ours, other) VALUES (a, b);
		COMMIT;
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
