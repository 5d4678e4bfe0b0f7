-- Events a second and WAL bytes an event of a COPY of :rows rows of now.
SELECT set_config('bench.accounts', :'accounts', false), set_config('bench.rows', :'rows', false) \g /dev/null
CREATE TEMP TABLE result (line text);
DO $$
DECLARE
	file text := current_setting('data_directory') || '/bench.txt';
	n int := current_setting('bench.rows');
	t timestamptz;
	lsn pg_lsn;
	seconds float8;
BEGIN
	EXECUTE format('COPY (SELECT %L || 1 + floor(random() * %s)::int, new_id(clock_timestamp()), i %% 1000, %L, %L || i %% 100, %L, clock_timestamp()
		FROM generate_series(1, %s) AS i) TO %L', 'account-', current_setting('bench.accounts')::int, 'ai.tokens', 'user-', '{"model": "large"}', n, file);
	lsn := pg_current_wal_insert_lsn();
	t := clock_timestamp();
	EXECUTE format('COPY usage_billing.usage (billing_id, id, amount, source, user_id, metadata, created_at) FROM %L', file);
	COMMIT;
	seconds := extract(epoch FROM clock_timestamp() - t);
	INSERT INTO result VALUES (round(n / seconds) || ' ' || round((pg_current_wal_insert_lsn() - lsn) / n));
END;
$$;
SELECT line FROM result;
