INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes)
SELECT 'm' || i, 'million', CASE i % 2 WHEN 0 THEN 'image' ELSE 'video' END, i FROM generate_series(1, :files) AS i;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes)
SELECT 't' || i, 'thousands', CASE i % 2 WHEN 0 THEN 'image' ELSE 'video' END, i FROM generate_series(1, 10000) AS i;
SELECT usage_billing.refresh_storage_usage('million'), usage_billing.refresh_storage_usage('thousands');
VACUUM ANALYZE;
