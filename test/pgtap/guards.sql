-- Odd statements that a table of facts has to stand: several changes in one
-- statement, a source that grows in lower case, a changed table.
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS usage_billing;
SELECT plan(12);

SELECT usage_billing.create_billing_account('o', 'a', credit_min => -1000);

ALTER TABLE usage_billing.usage ALTER COLUMN user_id SET NOT NULL;
SELECT throws_ok($$ SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object(
	'id', gen_random_uuid(), 'amount', 1)), 'a') $$, '23502', NULL, 'a column that was made NOT NULL is obeyed');
ALTER TABLE usage_billing.usage ALTER COLUMN user_id DROP NOT NULL;

SELECT throws_ok($$ WITH d AS (DELETE FROM usage_billing.billing_account WHERE billing_id = 'a' RETURNING 1)
	INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('a', gen_random_uuid(), 5) $$,
	'UB004', NULL, 'an account is not removed by the statement that stores its first usage');
SELECT throws_ok($$ WITH i AS (INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('a', gen_random_uuid(), 5))
	DELETE FROM usage_billing.billing_account WHERE billing_id = 'a' $$,
	'UB004', NULL, 'nor by one that stores its first grant');

SELECT lives_ok($$ WITH u AS (INSERT INTO usage_billing.usage (billing_id, id, amount)
		VALUES ('a', '00000000-0000-4000-8000-000000000001', 7) RETURNING *)
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) SELECT billing_id, id, amount FROM u $$,
	'a usage is reverted in the statement that stores it');
SELECT is(usage_billing.account_balance('a') ->> 'balance', '0', 'and the balance is right');
SELECT is_empty('SELECT * FROM usage_billing.verify()', 'and the books too');

SELECT CASE WHEN octet_length(lower(repeat('Ⱥ', 127))) > 255 THEN
	throws_ok($$ SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object(
		'id', gen_random_uuid(), 'amount', 1, 'source', repeat('Ⱥ', 127))), 'a') $$,
		'22023', NULL, 'a source is measured in lower case')
	ELSE skip('the locale leaves the letter as it is') END;

SELECT usage_billing.create_billing_account('o', 'low', credit_min => -9223372036854775808);
SELECT is(usage_billing.account_balance('low') ->> 'available', '9223372036854775807',
	'what is available ends with bigint');

CREATE UNIQUE INDEX ids ON usage_billing.usage (id);
SELECT is(usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000003", "amount": 1}]', 'a') ->> 'created', '1',
	'a usage is stored beside another unique index');
SELECT is(usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000002", "amount": 1},
	{"id": "00000000-0000-4000-8000-000000000003", "amount": 1}]', 'a') - 'balance', '{"created": 1, "duplicates": 1}',
	'and is a duplicate there, also after one that is new');
DROP INDEX usage_billing.ids;

ALTER TABLE usage_billing.usage_delta ADD COLUMN extra text;
SELECT throws_ok($$ SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object(
	'id', gen_random_uuid(), 'amount', 1)), 'a') $$, '55000', NULL, 'a table with another column is refused');
ALTER TABLE usage_billing.usage_delta DROP COLUMN extra;
SELECT throws_ok($$ SELECT usage_billing.account_balance('a') $$, '55000', NULL,
	'also when the column is gone again, for the numbers of columns stay used');

SELECT * FROM finish();
ROLLBACK;
