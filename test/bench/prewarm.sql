-- What every insert needs: the indexes of usage, and the derived tables.
SELECT pg_prewarm(c.oid::regclass) FROM pg_class AS c
WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind = 'i' AND c.relname IN ('usage_pkey', 'usage_time',
	'billing_account_pkey', 'credit_balance_pkey', 'usage_hourly_pkey');
SELECT pg_prewarm('usage_billing.billing_account'), pg_prewarm('usage_billing.credit_balance');
