-- Deliveries number :first to :last of :rows that are spread evenly over the last
-- 90 days (UTC), in the order in which they happened.
COPY (
	SELECT :'account', uuid_v7(at), 'feature', 1, CASE i % 2 WHEN 0 THEN 'vod_streams' ELSE 'transcoders' END,
		'{"viewing_seconds": 30, "viewing_bytes": 1000}', at
	FROM generate_series(:first, :last) AS i,
		LATERAL (SELECT date_trunc('day', now()) - interval '89 days' + i * (interval '89 days' / :rows) AS at) AS x
) TO STDOUT;
