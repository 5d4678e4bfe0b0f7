-- A million rows of 200 accounts with ids of one version, on both sides.
CREATE OR REPLACE FUNCTION new_id(ids text) RETURNS uuid LANGUAGE sql VOLATILE AS
	$$ SELECT CASE ids WHEN 'v7' THEN uuid_v7(clock_timestamp()) ELSE gen_random_uuid() END $$;
CREATE TEMP TABLE row_of AS
SELECT :'ids' || '-' || i % 200 AS billing_id, new_id(:'ids') AS id, i % 1000 AS amount FROM generate_series(1, 1000000) AS i;
INSERT INTO usage_billing.billing_account (billing_id, org_id, credit_min)
SELECT :'ids' || '-' || i, 'bytes', -1000000000000000 FROM generate_series(0, 199) AS i;
INSERT INTO usage_billing.usage (billing_id, id, amount, source, description, user_id, metadata)
SELECT billing_id, id, amount, 'ai.tokens', 'completion', 'user-' || amount % 100, '{"model": "large", "region": "eu"}' FROM row_of;
INSERT INTO bare (billing_id, id, amount, source, description, user_id, metadata)
SELECT billing_id, id, amount, 'ai.tokens', 'completion', 'user-' || amount % 100, '{"model": "large", "region": "eu"}' FROM row_of;
SELECT usage_billing.run_maintenance() \g /dev/null
VACUUM ANALYZE usage_billing.usage, bare, usage_billing.usage_delta, usage_billing.usage_hourly, usage_billing.credit_balance;
