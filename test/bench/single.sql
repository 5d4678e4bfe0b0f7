\set amount random(1, 1000)
SELECT usage_billing.create_usage(('[{"id":"' || gen_random_uuid() || '","amount":' || :amount::int || ',"source":"ai.tokens"}]')::jsonb, billing_id => :account);
