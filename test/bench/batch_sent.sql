\set i :i + 1
SELECT usage_billing.create_usage((SELECT events FROM call WHERE client = :client_id AND i = :i)::jsonb, billing_id => 'ours');
