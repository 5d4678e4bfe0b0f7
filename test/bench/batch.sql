\set account random(1, 1000)
SELECT usage_billing.create_usage(events(:size::int), billing_id => 'many-' || :account);
