-- Bytes a row, of half a million in a table with the columns and indexes of
-- usage_billing.usage, by what stands in them.
CREATE TABLE sample ();
CREATE TABLE sized (n serial, rows_are text, heap numeric, usage_pkey numeric, usage_time numeric, in_all numeric);

CREATE PROCEDURE size_of(rows_are text, account text, id text, created text, rest text, key text DEFAULT 'billing_id, id', afterwards text DEFAULT NULL)
	LANGUAGE plpgsql AS $$
BEGIN
	DROP TABLE sample;
	CREATE TABLE sample (LIKE usage_billing.usage);
	ALTER TABLE sample ALTER updated_at DROP NOT NULL, ALTER metadata DROP NOT NULL;
	EXECUTE format('ALTER TABLE sample ADD CONSTRAINT sample_pkey PRIMARY KEY (%s)', key);
	CREATE INDEX sample_time ON sample (billing_id, created_at);
	EXECUTE format('INSERT INTO sample (billing_id, id, created_at, type, amount, source, description, user_id, metadata, updated_at)
		SELECT %s, %s, %s, ''credit'', i %% 1000, %s
		FROM generate_series(1, 500000) AS i, LATERAL (SELECT timestamptz ''2026-01-01'' + i * interval ''7.2 ms'' AS at) AS x',
		account, id, created, rest);
	IF afterwards IS NOT NULL THEN EXECUTE afterwards; END IF;
	INSERT INTO sized (rows_are, heap, usage_pkey, usage_time, in_all) SELECT $1, round(pg_table_size('sample') / 5e5, 1),
		round(pg_relation_size('sample_pkey') / 5e5, 1), round(pg_relation_size('sample_time') / 5e5, 1),
		round(pg_total_relation_size('sample') / 5e5, 1);
	COMMIT;
END;
$$;

\set whole '$$\'ai.tokens\', \'completion\', \'user-\' || i % 100, \'{"model": "large", "region": "eu"}\', at$$'
\set account '$$\'account-\' || (random() * 199)::int$$'
CALL size_of('version-4 ids, as calls of one event bring them', :account, 'gen_random_uuid()', 'at', :whole);
CALL size_of('the same, indexes built anew (REINDEX)', :account, 'gen_random_uuid()', 'at', :whole, afterwards => 'REINDEX TABLE sample');
CALL size_of('the same, indexes built anew with fillfactor 100', :account, 'gen_random_uuid()', 'at', :whole,
	afterwards => 'ALTER INDEX sample_pkey SET (fillfactor = 100); ALTER INDEX sample_time SET (fillfactor = 100); REINDEX TABLE sample');
CALL size_of('version-7 ids', :account, 'uuid_v7(at)', 'at', :whole);
CALL size_of('version-7 ids, the key is (id, billing_id), which usage''s isn''t', :account, 'uuid_v7(at)', 'at', :whole, 'id, billing_id');
CALL size_of('version-4 ids, 1,000 events of an account with one created_at (batches)', '$$account-$$ || i / 1000 % 200', 'gen_random_uuid()',
	'timestamptz ''2026-01-01'' + i / 1000 * interval ''7.2 s''', :whole);
CALL size_of('version-7 ids, the same batches', '$$account-$$ || i / 1000 % 200', 'uuid_v7(at)',
	'timestamptz ''2026-01-01'' + i / 1000 * interval ''7.2 s''', :whole);
CALL size_of('version-4 ids, account ids of 36 characters', 'md5((random() * 199)::int::text)::uuid::text', 'gen_random_uuid()', 'at', :whole);
CALL size_of('version-4 ids, no description, user_id and metadata ({})', :account, 'gen_random_uuid()', 'at', '$$ai.tokens$$, NULL, NULL, $${}$$, at');
CALL size_of('  and updated_at and metadata null, which usage doesn''t allow', :account, 'gen_random_uuid()', 'at', '$$ai.tokens$$, NULL, NULL, NULL, NULL');
SELECT rows_are, heap, usage_pkey, usage_time, in_all FROM sized ORDER BY n;

-- A row of the sums of an hour.
INSERT INTO usage_billing.usage_hourly (billing_id, hour, source, type, amount, events)
SELECT 'account-' || i % 200, timestamptz '2020-01-01' + i / 200 * interval '1 hour', 'ai.tokens', 'credit', i, i FROM generate_series(0, 199999) AS i;
SELECT 'bytes a row of usage_hourly, an account, hour, source and type' AS what,
	round(pg_relation_size('usage_billing.usage_hourly') / count(*)::numeric) AS heap,
	round(pg_relation_size('usage_billing.usage_hourly_pkey') / count(*)::numeric) AS usage_hourly_pkey FROM usage_billing.usage_hourly;
