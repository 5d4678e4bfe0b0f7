-- :rows rows; the first half is indexed at once, the others as they come, so that
-- the index is much as inserts leave it.
DROP TABLE keyed;
CREATE TABLE keyed (LIKE usage_billing.usage INCLUDING DEFAULTS);
CREATE TEMP TABLE given AS SELECT now() - interval '2 days' AS begun;
INSERT INTO keyed (billing_id, id, amount, source, user_id, metadata, created_at, updated_at)
SELECT 'account-' || 1 + floor(random() * :accounts)::int, new_id(:'ids', at), i % 1000, 'ai.tokens', 'user-' || i % 100, '{"model": "large"}', at, at
FROM given, generate_series(1, :rows / 2) AS i, LATERAL (SELECT begun + i * interval '10 ms' AS at) AS x;
SET maintenance_work_mem = '1GB';
ALTER TABLE keyed ADD PRIMARY KEY (:key);
INSERT INTO keyed (billing_id, id, amount, source, user_id, metadata, created_at, updated_at)
SELECT 'account-' || 1 + floor(random() * :accounts)::int, new_id(:'ids', at), i % 1000, 'ai.tokens', 'user-' || i % 100, '{"model": "large"}', at, at
FROM given, generate_series(:rows / 2 + 1, :rows) AS i, LATERAL (SELECT begun + i * interval '10 ms' AS at) AS x;
VACUUM ANALYZE keyed;
