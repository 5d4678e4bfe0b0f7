-- The same deliveries as an expert would keep them for this question: typed
-- columns, a covering index of the deliveries only, statistics on the hour so
-- that the planner hashes and goes parallel.
CREATE TABLE delivery AS
SELECT billing_id, id, type, source, created_at, (metadata ->> 'viewing_seconds')::bigint AS viewing_seconds,
	(metadata ->> 'viewing_bytes')::bigint AS viewing_bytes
FROM usage_billing.usage WHERE billing_id = 'much';
CREATE INDEX ON delivery (billing_id, created_at) INCLUDE (viewing_seconds, viewing_bytes)
	WHERE type = 'feature' AND source IN ('transcoders', 'vod_streams');
CREATE STATISTICS delivery_hour ON (date_trunc('hour', created_at, 'UTC')) FROM delivery;
CREATE STATISTICS delivery_bin ON (date_bin('1 hour', created_at, '2000-01-01Z')) FROM delivery;
VACUUM ANALYZE delivery;
