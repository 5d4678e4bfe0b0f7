-- Calls of :size events against the same events by hand, in turns; then the same
-- call again. The statement by hand is planned once. Tables: pair (a call, by hand)
-- and again (the repeated call, its first run).
TRUNCATE pair;
CREATE TEMP TABLE again (n serial, ours float8, other float8);
SELECT set_config('bench.size', :'size', false), set_config('bench.times', :'times', false) \g /dev/null
DO $$
DECLARE
	e jsonb;
	t timestamptz;
	a float8;
	b float8;
	c float8;
BEGIN
	FOR i IN 1 .. current_setting('bench.times')::int LOOP
		e := events(current_setting('bench.size')::int);
		t := clock_timestamp();
		PERFORM usage_billing.create_usage(e, billing_id => 'ours');
		COMMIT;
		a := ms_since(t);
		t := clock_timestamp();
		INSERT INTO bare (billing_id, id, type, amount, source, description, user_id, metadata)
		SELECT 'ours', id, coalesce(type, 'credit')::usage_billing.usage_type, amount, coalesce(source, 'system'),
			description, user_id, coalesce(metadata, '{}')
		FROM jsonb_to_recordset(e) AS e (id uuid, type text, amount bigint, source text, description text,
			user_id text, metadata jsonb)
		ON CONFLICT DO NOTHING;
		COMMIT;
		b := ms_since(t);
		t := clock_timestamp();
		PERFORM usage_billing.create_usage(e, billing_id => 'ours');
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
