-- The main job, as a user of psql sees it: an account gets credits, uses them,
-- repeats itself, meets its limit, takes something back, reads its statement,
-- and a file of usage is copied in twice.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS usage_billing;
RESET client_min_messages;
SET TimeZone = 'UTC';

-- An account for an organisation. The same call again returns what is there.
SELECT billing_id, org_id, is_default, credit_min, state
FROM usage_billing.create_billing_account(org_id => 'acme', billing_id => 'acme-main');
SELECT billing_id, org_id, is_default, credit_min, state
FROM usage_billing.create_billing_account(org_id => 'acme', billing_id => 'acme-main');
SELECT project_id, org_id FROM usage_billing.create_project(project_id => 'website', org_id => 'acme');

-- It buys 1,000 credits. The id makes a retry safe.
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 1000, org_id => 'acme', description => 'first purchase');
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 1000, org_id => 'acme', description => 'first purchase');

-- Usage is reported, and reported again because the answer got lost.
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000011", "amount": 20, "source": "api", "description": "chat", "created_at": "2024-05-01T10:00:00Z"},
  {"id": "00000000-0000-4000-8000-000000000012", "amount": "10", "source": "API", "user_id": "ann", "created_at": "2024-05-01T10:30:00"}
]', project_id => 'website');
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000011", "amount": 20, "source": "api", "description": "chat", "created_at": "2024-05-01T10:00:00Z"},
  {"id": "00000000-0000-4000-8000-000000000012", "amount": "10", "source": "API", "user_id": "ann", "created_at": "2024-05-01T10:30:00"},
  {"id": "00000000-0000-4000-8000-000000000013", "amount": 5, "source": "api", "created_at": "2024-05-01T11:00:00Z"}
]', project_id => 'website');

-- A feature is counted and takes no credits.
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000014", "amount": 3, "type": "feature", "source": "images", "created_at": "2024-05-01T11:00:00Z"}
]', org_id => 'acme');
SELECT usage_billing.account_balance(org_id => 'acme');

-- More than there is: all of the call or nothing.
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000015", "amount": 900, "created_at": "2024-05-01T12:00:00Z"},
  {"id": "00000000-0000-4000-8000-000000000016", "amount": 66, "created_at": "2024-05-01T12:05:00Z"}
]', org_id => 'acme');
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000015", "amount": 900, "created_at": "2024-05-01T12:00:00Z"},
  {"id": "00000000-0000-4000-8000-000000000016", "amount": 65, "created_at": "2024-05-01T12:05:00Z"}
]', org_id => 'acme');

-- A retry needs no credits.
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000016", "amount": 65, "created_at": "2024-05-01T12:05:00Z"}
]', org_id => 'acme');

-- A part of a usage is given back, once.
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000015', 400, org_id => 'acme',
  id => '00000000-0000-4000-8000-000000000021', description => 'was too slow');
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000015', 400, org_id => 'acme',
  id => '00000000-0000-4000-8000-000000000021', description => 'was too slow');

-- The statement, newest first; here without what is of the moment.
SELECT kind, type, amount, source, description, user_id
FROM usage_billing.account_transactions(org_id => 'acme', "from" => '2024-05-01', "to" => '2024-05-02');
SELECT kind, type, amount, description
FROM usage_billing.account_transactions(org_id => 'acme', "from" => '2024-05-02') ORDER BY kind;
SELECT usage_billing.account_balance(org_id => 'acme'), usage_billing.total_debited(org_id => 'acme');

-- A file of usage is copied in. Only half of it arrives the first time.
COPY usage_billing.usage (billing_id, id, amount, source, created_at) FROM STDIN;
acme-main	00000000-0000-4000-8000-000000000031	100	Batch	2024-05-03 09:00:00+00
acme-main	00000000-0000-4000-8000-000000000032	100	Batch	2024-05-03 09:00:01+00
\.
COPY usage_billing.usage (billing_id, id, amount, source, created_at) FROM STDIN;
acme-main	00000000-0000-4000-8000-000000000031	100	Batch	2024-05-03 09:00:00+00
acme-main	00000000-0000-4000-8000-000000000032	100	Batch	2024-05-03 09:00:01+00
acme-main	00000000-0000-4000-8000-000000000033	100	Batch	2024-05-03 09:00:02+00
acme-main	00000000-0000-4000-8000-000000000034	200	Batch	2024-05-03 09:00:03+00
\.
SELECT source, type, count(*), sum(amount)
FROM usage_billing.usage WHERE billing_id = 'acme-main' GROUP BY source, type ORDER BY source, type;

-- COPY is never refused: the account is overdrawn now, and gets no more.
SELECT usage_billing.account_balance(org_id => 'acme');
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000041", "amount": 1, "created_at": "2024-05-03T10:00:00Z"}]', org_id => 'acme');

-- What is stored stays.
UPDATE usage_billing.usage SET amount = 1 WHERE billing_id = 'acme-main';
DELETE FROM usage_billing.usage WHERE billing_id = 'acme-main';

-- The account is closed. What it used can still be given back.
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'acme-main';
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000042", "amount": 1, "type": "feature"}]', org_id => 'acme');
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000034', org_id => 'acme', id => '00000000-0000-4000-8000-000000000022');

-- Housekeeping changes no answer, and the books are right.
SELECT usage_billing.run_maintenance();
SELECT usage_billing.account_balance(org_id => 'acme'), usage_billing.total_debited(org_id => 'acme');
SELECT * FROM usage_billing.verify(billing_id => 'acme-main');
