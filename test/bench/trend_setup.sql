-- 90 days of deliveries: 1.5 million in one account, a fifteenth of it in another.
SELECT usage_billing.create_billing_account('bench', id) FROM unnest(ARRAY['much', 'little']) AS id;
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at)
SELECT 'much', gen_random_uuid(), 'feature', 1, CASE i % 2 WHEN 0 THEN 'vod_streams' ELSE 'transcoders' END,
	'{"viewing_seconds": 30, "viewing_bytes": 1000}', timestamptz '2026-01-01Z' + i * interval '90 days' / 1500000
FROM generate_series(0, 1499999) AS i;
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at)
SELECT 'little', gen_random_uuid(), 'feature', 1, CASE i % 2 WHEN 0 THEN 'vod_streams' ELSE 'transcoders' END,
	'{"viewing_seconds": 30, "viewing_bytes": 1000}', timestamptz '2026-01-01Z' + i * interval '90 days' / 100000
FROM generate_series(0, 99999) AS i;
SELECT usage_billing.run_maintenance();
VACUUM ANALYZE;
