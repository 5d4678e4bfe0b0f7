-- Every other row of those from :have to :millions million: of random accounts, in
-- the order of time, five million an hour.
INSERT INTO usage_billing.usage (billing_id, id, amount, source, user_id, metadata, created_at, updated_at)
SELECT 'account-' || 1 + floor(random() * accounts)::int, new_id(at), i % 1000, 'ai.tokens', 'user-' || i % 100, '{"model": "large"}', at, at
FROM setting, generate_series(:have * 1000000 + :half, :millions * 1000000 - 1, 2) AS i,
	LATERAL (SELECT begun + i * interval '0.72 ms' AS at) AS x;
