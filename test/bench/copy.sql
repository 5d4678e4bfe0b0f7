-- COPY of :rows rows against COPY of the same file into the bare table, in turns;
-- then the same COPY again. Tables as in batches.sql.
TRUNCATE pair;
CREATE TEMP TABLE again (n serial, ours float8, other float8);
SELECT set_config('bench.rows', :'rows', false), set_config('bench.times', :'times', false) \g /dev/null
DO $$
DECLARE
	file text := current_setting('data_directory') || '/bench.txt';
	t timestamptz;
	a float8;
	b float8;
	c float8;
BEGIN
	FOR i IN 1 .. current_setting('bench.times')::int LOOP
		EXECUTE format('COPY (SELECT %L, gen_random_uuid(), %L, (random() * 1000)::int, %L, %L, %L || i %% 100, %L,
			now() - random() * interval ''10 days'', now() FROM generate_series(1, %s) AS i) TO %L',
			'copy', 'credit', 'ai.tokens', 'completion', 'user-', '{"model": "large"}', current_setting('bench.rows')::int, file);
		t := clock_timestamp();
		EXECUTE format('COPY usage_billing.usage FROM %L', file);
		COMMIT;
		a := ms_since(t);
		t := clock_timestamp();
		EXECUTE format('COPY bare FROM %L', file);
		COMMIT;
		b := ms_since(t);
		t := clock_timestamp();
		EXECUTE format('COPY usage_billing.usage FROM %L', file);
		COMMIT;
		c := ms_since(t);
		INSERT INTO pair (ours, other) VALUES (a, b);
		INSERT INTO again (ours, other) VALUES (c, a);
		COMMIT;
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
\o :again
SELECT ours || ' ' || other FROM again ORDER BY n;
