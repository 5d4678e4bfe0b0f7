\set account random(1, :accounts)
\set amount random(1, 1000)
SELECT usage_billing.create_usage(('[{"id":"' || new_id(clock_timestamp()) || '","amount":' || :amount::int || ',"source":"ai.tokens","user_id":"user-1","metadata":{"model":"large"}}]')::jsonb, billing_id => 'account-' || :account);
