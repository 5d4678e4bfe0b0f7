-- Bad input gets the SQLSTATE, the detail and the hint of the contract, repeats
-- nothing of the caller's in its message, and changes nothing.
\set QUIET on
BEGIN;
\ir common/helpers.sql
\ir cases/bad_input_fixture.sql
\ir cases/bad_input_cases.sql

SELECT plan((SELECT count(*) FROM bad_input_case)::int + 6);

SELECT cmp_ok((SELECT count(*) FROM bad_input_case), '>=', 100::bigint, 'there are cases enough');
SELECT is(ub_test.books(), '', 'the books are right before');
SELECT is(ub_test.balance('acc_a'), 828::bigint, 'the balance is as the cases expect');

SELECT is(ub_test.problems(call, code, detail, hint), '{}'::text[], name)
FROM (SELECT * FROM bad_input_case ORDER BY case_no) c;

-- After all that has failed, a good call with the same ids still works.
SELECT is(usage_billing.create_usage(ub_test.expand('[{"id": "@60", "amount": 800}, {"id": "@61", "amount": 28}]')::jsonb, billing_id => 'acc_a'),
	'{"created": 2, "duplicates": 0, "balance": 0}', 'a good call works after all the bad ones');
SELECT is(usage_billing.revert_usage(ub_test.id(5), billing_id => 'acc_a', id => ub_test.id(65)),
	jsonb_build_object('id', ub_test.id(65), 'usage_id', ub_test.id(5), 'amount', 40, 'balance', 40, 'duplicate', false),
	'a good revert works after all the bad ones');
SELECT is(ub_test.books(), '', 'the books are right after');

SELECT * FROM finish();
ROLLBACK;
