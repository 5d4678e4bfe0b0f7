TRUNCATE pair;
SELECT set_config('bench.rounds', :'rounds', false) \g /dev/null
DO $$
DECLARE
	t timestamptz;
	a float8;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int LOOP
		UPDATE usage_billing.stored_file SET bytes = bytes + 1 WHERE file_id IN (SELECT 'm' || j FROM generate_series(i * 10 + 1, i * 10 + 10) AS j);
		COMMIT;
		t := clock_timestamp();
		PERFORM usage_billing.refresh_storage_usage('million');
		COMMIT;
		a := ms_since(t);
		t := clock_timestamp();
		PERFORM kind, count(*), sum(bytes), sum(duration_seconds) FROM usage_billing.stored_file
		WHERE org_id = 'million' GROUP BY kind;
		INSERT INTO pair (ours, other) VALUES (a, ms_since(t));
		COMMIT;
	END LOOP;
END;
$$;
SELECT ours || ' ' || other FROM pair ORDER BY n;
