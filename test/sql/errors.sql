-- How errors look in psql: a constant message, a detail that says where and
-- what, a hint that says what to do. The SQLSTATE follows each.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS usage_billing;
RESET client_min_messages;
SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD';
\set VERBOSITY default
\set SHOW_CONTEXT never
\set sqlstate '\\echo SQLSTATE :SQLSTATE'

SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'err', billing_id => 'err-1');
SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'err', billing_id => 'err-2', credit_min => 50);
SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'err-closed', billing_id => 'err-3');
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'err-3';
SELECT project_id FROM usage_billing.create_project(project_id => 'err-p', org_id => 'err');
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 100, billing_id => 'err-1');
SELECT usage_billing.create_usage('[
  {"id": "00000000-0000-4000-8000-000000000011", "amount": 40, "source": "api", "created_at": "2024-05-01T10:00:00Z"},
  {"id": "00000000-0000-4000-8000-000000000012", "amount": 20, "source": "api", "created_at": "2024-05-01T10:00:00Z"}
]', billing_id => 'err-1');

-- Which account?
SELECT usage_billing.account_balance();
:sqlstate
SELECT usage_billing.account_balance(org_id => 'err', project_id => 'err-p');
:sqlstate
SELECT usage_billing.account_balance(billing_id => 'err-1', org_id => 'err-closed');
:sqlstate
SELECT usage_billing.account_balance(billing_id => 'err-9');
:sqlstate
SELECT usage_billing.account_balance(org_id => 'nobody');
:sqlstate
SELECT usage_billing.account_balance(project_id => 'err-9');
:sqlstate

-- The shape of usages.
SELECT usage_billing.create_usage(NULL, billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}, 5]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"amount": 1}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021"}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "ammount": 1}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'amount', 1)) FROM generate_series(1, 10001)), billing_id => 'err-1');
:sqlstate

-- The values in it.
SELECT usage_billing.create_usage('[{"id": "abc", "amount": 1}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": -1}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 20.5}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": "many"}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 9223372036854775808}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "type": "credits"}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "source": 5}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', '00000000-0000-4000-8000-000000000021', 'amount', 1, 'user_id', repeat('x', 256))),
  billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "metadata": [1]}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "customer_id": "err-2"}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "created_at": "yesterday"}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1, "type": "feature", "source": "vod_streams", "metadata": {"viewing_seconds": -1}}]',
  billing_id => 'err-1');
:sqlstate

-- An id that is used for something else.
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}, {"id": "00000000-0000-4000-8000-000000000011", "amount": 41, "source": "chat"}]',
  billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}, {"id": "00000000-0000-4000-8000-000000000021", "amount": 2}]',
  billing_id => 'err-1');
:sqlstate
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 101, billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_billing_account(org_id => 'err', billing_id => 'err-2', credit_min => 51);
:sqlstate
SELECT usage_billing.create_project(project_id => 'err-p', org_id => 'err-closed');
:sqlstate

-- Credits and states.
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 41}]', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}]', billing_id => 'err-2');
:sqlstate
SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000021", "amount": 1}]', billing_id => 'err-3');
:sqlstate
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000002', 1, billing_id => 'err-3');
:sqlstate
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000002', 0, billing_id => 'err-1');
:sqlstate
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000002', 9223372036854775807, billing_id => 'err-1');
:sqlstate

-- Reverts.
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, created_at)
VALUES ('err-1', '00000000-0000-4000-8000-000000000011', '00000000-0000-4000-8000-000000000031', 30, '2024-05-02 12:00:00+00');
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000011', billing_id => 'err-1');
:sqlstate
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000012', 21, billing_id => 'err-1');
:sqlstate
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000012', 0, billing_id => 'err-1');
:sqlstate
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000012', 5, billing_id => 'err-1', id => '00000000-0000-4000-8000-000000000031');
:sqlstate
SELECT usage_billing.revert_usage('00000000-0000-4000-8000-000000000031', billing_id => 'err-1');
:sqlstate

-- The statement.
SELECT * FROM usage_billing.account_transactions(max_rows => 0, billing_id => 'err-1');
:sqlstate
SELECT * FROM usage_billing.account_transactions(before => 'page 2', billing_id => 'err-1');
:sqlstate

-- The tables, by INSERT and COPY.
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('err-9', '00000000-0000-4000-8000-000000000021', 1);
:sqlstate
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('err-1', '00000000-0000-4000-8000-000000000021', -1);
:sqlstate
COPY usage_billing.usage (billing_id, id, amount, source) FROM STDIN;
err-1	00000000-0000-4000-8000-000000000021	1	api
err-1	00000000-0000-4000-8000-000000000012	21	api
\.
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('err-1', '00000000-0000-4000-8000-000000000021', 1);
:sqlstate
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('err-1', '00000000-0000-4000-8000-000000000012', 21);
:sqlstate
UPDATE usage_billing.usage SET amount = 0;
:sqlstate
DELETE FROM usage_billing.usage_revert;
:sqlstate
TRUNCATE usage_billing.credit_grant;
:sqlstate
DELETE FROM usage_billing.billing_account WHERE billing_id = 'err-1';
:sqlstate
UPDATE usage_billing.billing_account SET org_id = 'other' WHERE billing_id = 'err-2';
:sqlstate

-- Tokens: what belongs to others looks like what isn't there.
BEGIN;
SET LOCAL request.jwt.claims = '{"org_id": "err"}';
SAVEPOINT token;
SELECT usage_billing.account_balance(billing_id => 'err-3');
:sqlstate
ROLLBACK TO token;
SELECT usage_billing.account_balance(billing_id => 'err-9');
:sqlstate
ROLLBACK TO token;
SELECT * FROM usage_billing.verify();
:sqlstate
ROLLBACK TO token;
SET LOCAL request.jwt.claims = '{"role": "web_anon"}';
SELECT usage_billing.account_balance(billing_id => 'err-1');
:sqlstate
ROLLBACK TO token;
SET LOCAL request.jwt.claims = 'no claims';
SELECT usage_billing.account_balance(billing_id => 'err-1');
:sqlstate
ROLLBACK;

-- After all that, nothing has changed but the revert.
SELECT usage_billing.account_balance(billing_id => 'err-1');
SELECT * FROM usage_billing.verify(billing_id => 'err-1');
