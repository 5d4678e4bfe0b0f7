-- Stores events in one way (copy, batch, single) on one side (ours, bare). The
-- calls are made before they are sent; nothing else writes WAL.
SELECT set_config('bench.ids', :'ids', false), set_config('bench.side', :'side', false), set_config('bench.way', :'way', false) \g /dev/null
CREATE FUNCTION pg_temp.call_of(n int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_agg(jsonb_build_object('id', new_id(current_setting('bench.ids')), 'amount', (random() * 1000)::int,
		'source', 'ai.tokens', 'description', 'completion', 'user_id', 'user-' || i % 100,
		'metadata', jsonb_build_object('model', 'large', 'region', 'eu')))
	FROM generate_series(1, n) AS i
$$;
DO $$
DECLARE
	file text := current_setting('data_directory') || '/bench.txt';
	ours boolean := current_setting('bench.side') = 'ours';
	way text := current_setting('bench.way');
	account text;
BEGIN
	IF way = 'copy' THEN
		EXECUTE format('COPY (SELECT %L || (random() * 199)::int, new_id(%L), %L, (random() * 1000)::int, %L, %L, %L || i %% 100, %L,
			clock_timestamp(), clock_timestamp() FROM generate_series(1, 100000) AS i) TO %L', current_setting('bench.ids') || '-',
			current_setting('bench.ids'), 'credit', 'ai.tokens', 'completion', 'user-', '{"model": "large", "region": "eu"}', file);
		EXECUTE format('COPY %s FROM %L', CASE WHEN ours THEN 'usage_billing.usage' ELSE 'bare' END, file);
		RETURN;
	END IF;
	FOR i IN 1 .. CASE way WHEN 'batch' THEN 20 ELSE 1000 END LOOP
		account := current_setting('bench.ids') || '-' || (random() * 199)::int;
		IF ours THEN
			PERFORM usage_billing.create_usage(pg_temp.call_of(CASE way WHEN 'batch' THEN 1000 ELSE 1 END), account);
		ELSE
			INSERT INTO bare (billing_id, id, type, amount, source, description, user_id, metadata)
			SELECT account, id, 'credit', amount, source, description, user_id, metadata
			FROM jsonb_to_recordset(pg_temp.call_of(CASE way WHEN 'batch' THEN 1000 ELSE 1 END))
				AS e (id uuid, amount bigint, source text, description text, user_id text, metadata jsonb)
			ON CONFLICT DO NOTHING;
		END IF;
		COMMIT;
	END LOOP;
END;
$$;
