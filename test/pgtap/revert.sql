-- revert_usage gives back what a usage took: all or a part, once, and in the
-- hour of the usage.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

-- A usage of an amount on an account, at a time long ago.
CREATE FUNCTION ub_test.used(n bigint, amount bigint, account text DEFAULT 'acc_a', type text DEFAULT 'credit', source text DEFAULT 'api',
	metadata jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(n), 'amount', amount, 'type', type, 'source', source,
		'metadata', metadata, 'created_at', '2024-05-01T10:20:30Z')), billing_id => account);
END $$;

-- What is counted in that hour: amount and events.
CREATE FUNCTION ub_test.hour(source text DEFAULT 'api', account text DEFAULT 'acc_a') RETURNS text
LANGUAGE sql AS $$ SELECT format('%s/%s', coalesce(sum(amount), 0), coalesce(sum(events), 0)) FROM ub_test.hour_derived h
	WHERE billing_id = account AND h.source = hour.source AND h.hour = '2024-05-01 10:00:00+00' $$;

CREATE FUNCTION ub_test.answer(n bigint, usage_n bigint, amount bigint, balance bigint, duplicate boolean) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('id', ub_test.id(n), 'usage_id', ub_test.id(usage_n), 'amount', amount, 'balance', balance,
	'duplicate', duplicate) $$;

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a');
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a2', credit_min => -1000);
	PERFORM usage_billing.create_billing_account(org_id => 'org_b', billing_id => 'acc_b');
	PERFORM usage_billing.create_project(project_id => 'prj_a', org_id => 'org_a');
	PERFORM usage_billing.grant_credits(ub_test.id(1000), 1000, billing_id => 'acc_a');
	PERFORM usage_billing.grant_credits(ub_test.id(1000), 50, billing_id => 'acc_b');
	PERFORM ub_test.used(n, 100) FROM generate_series(1, 4) n;
END $$;

-- All of it.
SELECT is(ub_test.hour(), '400/4', 'four usages are counted in their hour');
SELECT is(usage_billing.revert_usage(ub_test.id(1), billing_id => 'acc_a') - 'id',
	jsonb_build_object('usage_id', ub_test.id(1), 'amount', 100, 'balance', 700, 'duplicate', false), 'without an amount all is given back');
SELECT is(ub_test.hour(), '300/3', 'amount and event leave the hour of the usage');
SELECT is(usage_billing.total_debited(billing_id => 'acc_a'), 300::bigint, 'and the debits fall');
SELECT is((r.billing_id, r.revert_no, r.amount, r.description, r.user_id, r.metadata, r.created_at, r.usage_type, r.usage_source, r.usage_at, r.usage_events)::text,
	('acc_a', 1, 100, NULL::text, NULL::text, '{}'::jsonb, now(), 'credit', 'api', '2024-05-01 10:20:30+00'::timestamptz, 1)::text,
	'the fact says what was taken back') FROM usage_billing.usage_revert r WHERE usage_id = ub_test.id(1);
SELECT is((SELECT count(*) FROM usage_billing.usage_revert WHERE billing_id = 'acc_a' AND id IS NOT NULL), 1::bigint, 'and has an id');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(1), billing_id => 'acc_a')$$, '23505', '^(?=.*100)(?=.*' || to_char(now(), 'YYYY-MM') || ')',
	'a second revert fails and says when and how much was reverted');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(1), 1, billing_id => 'acc_a')$$, '23505', NULL, 'also with an amount');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(1), 'amount', 100, 'source', 'api')), billing_id => 'acc_a'),
	'{"created": 0, "duplicates": 1, "balance": 700}', 'a usage that was reverted is still known: sent again it takes nothing');

-- A part of it.
SELECT is(usage_billing.revert_usage(ub_test.id(2), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'U1',
	metadata => '{"ticket": 7}'), ub_test.answer(22, 2, 30, 730, false), 'a part is given back');
SELECT is(ub_test.hour(), '270/3', 'the amount leaves the hour, the event stays');
SELECT is((r.description, r.user_id, r.metadata)::text, ('too slow', 'U1', '{"ticket": 7}'::jsonb)::text, 'what the caller said is stored as it came')
FROM usage_billing.usage_revert r WHERE id = ub_test.id(22);
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(2), 30, billing_id => 'acc_a')$$, '23505', '30', 'a usage can be reverted once');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(2), 70, billing_id => 'acc_a', id => ub_test.id(23))$$, '23505', '30',
	'also where something is left');

-- A retry.
SELECT is(usage_billing.revert_usage(ub_test.id(2), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'U1',
	metadata => '{"ticket": 7.0}'), ub_test.answer(22, 2, 30, 730, true), 'the same id and payload is a duplicate');
SELECT is(ub_test.hour(), '270/3', 'and changes nothing');
SELECT is(usage_billing.revert_usage(ub_test.id(3), billing_id => 'acc_a', id => ub_test.id(33), description => '', user_id => '', metadata => NULL),
	ub_test.answer(33, 3, 100, 830, false), 'empty texts are accepted');
SELECT is((r.description, r.user_id, r.metadata)::text, (NULL::text, NULL::text, '{}'::jsonb)::text, 'as none')
FROM usage_billing.usage_revert r WHERE id = ub_test.id(33);
SELECT is(usage_billing.revert_usage(ub_test.id(3), billing_id => 'acc_a', id => ub_test.id(33)), ub_test.answer(33, 3, 100, 830, true),
	'a retry without an amount is a duplicate');
SELECT is(usage_billing.revert_usage(ub_test.id(3), 100, billing_id => 'acc_a', id => ub_test.id(33), metadata => '{}'), ub_test.answer(33, 3, 100, 830, true),
	'and so is one with the amount that it was');
SELECT ub_test.fails(format('SELECT usage_billing.revert_usage(%s)', arguments), '23505', field, 'known id, other ' || field)
FROM (VALUES
	('amount', $$ub_test.id(2), 31, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'U1', metadata => '{"ticket": 7}'$$),
	('description', $$ub_test.id(2), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'mArKeR', user_id => 'U1', metadata => '{"ticket": 7}'$$),
	('user_id', $$ub_test.id(2), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'mArKeR', metadata => '{"ticket": 7}'$$),
	('metadata', $$ub_test.id(2), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'U1'$$),
	('usage_id', $$ub_test.id(4), 30, billing_id => 'acc_a', id => ub_test.id(22), description => 'too slow', user_id => 'U1', metadata => '{"ticket": 7}'$$)
) AS c (field, arguments);

-- More than there is, and less than 1.
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(4), 101, billing_id => 'acc_a')$$, 'UB002', '^(?=.*101)(?=.*100)', 'one more than the usage');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(4), 0, billing_id => 'acc_a')$$, '22023', 'amount', 'nothing');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(4), -1, billing_id => 'acc_a')$$, '22023', 'amount', 'less than nothing');
SELECT is(usage_billing.revert_usage(ub_test.id(4), 100, billing_id => 'acc_a', id => ub_test.id(44)), ub_test.answer(44, 4, 100, 930, false), 'exactly the usage');
SELECT is(ub_test.hour(), '70/1', 'then nothing of it is left in its hour');

-- What is no usage of the account.
SELECT ub_test.fails(format($$SELECT usage_billing.revert_usage(ub_test.id(%s), billing_id => 'acc_a')$$, n), 'PT404', 'usage_id', name)
FROM (VALUES (22, 'a revert can''t be reverted'), (1000, 'nor a grant'), (999, 'nor what nobody knows')) AS c (n, name);
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(2), billing_id => 'acc_b')$$, 'PT404', 'usage_id', 'nor a usage through another account');
DO $$ BEGIN PERFORM ub_test.used(1, 7, 'acc_b'); END $$;
SELECT is(usage_billing.revert_usage(ub_test.id(1), org_id => 'org_b', id => ub_test.id(22)), ub_test.answer(22, 1, 7, 50, false),
	'another account may use the same ids for its own');
SELECT is(ub_test.balance('acc_a'), 930::bigint, 'which is no matter to the first');
DO $$ BEGIN PERFORM ub_test.used(5, 10); END $$;
SELECT is(usage_billing.revert_usage(ub_test.id(5), project_id => 'prj_a', id => ub_test.id(5)), ub_test.answer(5, 5, 10, 930, false),
	'a revert may have the id of a usage');
SELECT is(usage_billing.revert_usage(ub_test.id(5), billing_id => 'acc_a', id => ub_test.id(5)), ub_test.answer(5, 5, 10, 930, true), 'and is found by it');

-- Nothing to give back.
DO $$ BEGIN PERFORM ub_test.used(6, 0); END $$;
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(6), billing_id => 'acc_a')$$, '22023', NULL, 'nothing is left of a usage of 0');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(6), 1, billing_id => 'acc_a')$$, 'UB002', NULL, 'and 1 is more than that');

-- Several parts, where that is allowed.
SET LOCAL usage_billing.revert_once = off;
DO $$ BEGIN PERFORM ub_test.used(7, 100, 'acc_a2'); END $$;
SELECT is(ub_test.balance('acc_a2'), -100::bigint, 'a usage on credit');
SELECT is(usage_billing.revert_usage(ub_test.id(7), 10, billing_id => 'acc_a2', id => ub_test.id(71)), ub_test.answer(71, 7, 10, -90, false), 'a first part');
SELECT is(usage_billing.revert_usage(ub_test.id(7), 20, billing_id => 'acc_a2', id => ub_test.id(72)), ub_test.answer(72, 7, 20, -70, false), 'a second part');
SELECT is(usage_billing.revert_usage(ub_test.id(7), 10, billing_id => 'acc_a2', id => ub_test.id(71)), ub_test.answer(71, 7, 10, -70, true),
	'the first part again is a duplicate');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(7), 71, billing_id => 'acc_a2')$$, 'UB002', '71', 'more than is left');
SELECT is(ub_test.hour('api', 'acc_a2'), '70/1', 'the event is there while anything is left');
SET LOCAL usage_billing.revert_once = on;
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(7), 1, billing_id => 'acc_a2')$$, '23505', '30', 'the setting counts at once');
SET LOCAL usage_billing.revert_once = off;
SELECT is(usage_billing.revert_usage(ub_test.id(7), billing_id => 'acc_a2') - 'id',
	jsonb_build_object('usage_id', ub_test.id(7), 'amount', 70, 'balance', 0, 'duplicate', false), 'without an amount the rest is given back');
SELECT is(ub_test.hour('api', 'acc_a2'), '0/0', 'then the event goes too');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(7), billing_id => 'acc_a2')$$, '22023', NULL, 'nothing is left');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(7), 1, billing_id => 'acc_a2')$$, 'UB002', NULL, 'not even 1');
SELECT is((SELECT array_agg(row(revert_no, amount, usage_events)::text ORDER BY revert_no) FROM usage_billing.usage_revert WHERE billing_id = 'acc_a2'),
	'{"(1,10,0)","(2,20,0)","(3,70,1)"}', 'reverts are numbered, and the last one takes the event');

-- Features.
DO $$ BEGIN PERFORM ub_test.used(8, 5, type => 'feature', source => 'images'); END $$;
SELECT is(usage_billing.revert_usage(ub_test.id(8), 2, billing_id => 'acc_a', id => ub_test.id(81)), ub_test.answer(81, 8, 2, 930, false),
	'a feature''s revert never touches the balance');
SELECT is(ub_test.hour('images'), '3/1', 'it is counted in its hour');
SELECT is((SELECT count(*) FROM usage_billing.account_transactions(billing_id => 'acc_a', max_rows => 1000) WHERE id = ub_test.id(81)), 0::bigint,
	'and is on no statement');
SELECT is((SELECT row(kind, type, amount, description, user_id, metadata)::text FROM usage_billing.account_transactions(billing_id => 'acc_a', max_rows => 1000)
	WHERE id = ub_test.id(22)), '(revert,credit,30,"too slow",U1,"{""ticket"": 7}")', 'a credit usage''s revert is');
SELECT is(ub_test.books(), '', 'the books are right');

-- Deliveries: after each part, floor(measurement x reverted so far / amount) is back.
CREATE TEMP TABLE delivery (n bigint, amount bigint, parts bigint[], measures jsonb);
INSERT INTO delivery VALUES
	(100, 7, '{1,3,2,1}', '{"viewing_seconds": 10, "viewing_bytes": 100, "egress_seconds": 3, "egress_seconds_additional_targets": 0, "egress_bytes": 6}'),
	(101, 1, '{1}', '{"viewing_seconds": 10, "viewing_bytes": "9223372036854775807"}'),
	(102, 1000, '{999,1}', '{"viewing_seconds": 1, "viewing_bytes": 1000, "egress_bytes": 999}'),
	(103, 4611686018427387904, '{1,4611686018427387902,1}', '{"viewing_bytes": 9223372036854775807, "egress_bytes": "4611686018427387903"}'),
	(104, 3, '{1,1}', '{"viewing_seconds": 2}'),
	(105, 5, '{2}', '{}');
CREATE FUNCTION ub_test.wrong_shares(of_usage bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	d delivery;
	part bigint;
	so_far numeric := 0;
	m text;
	back numeric;
	wanted numeric;
	wrong text := '';
BEGIN
	SELECT * INTO d FROM delivery WHERE n = of_usage;
	PERFORM ub_test.used(d.n, d.amount, type => 'feature', source => 'vod_streams', metadata => d.measures);
	FOREACH part IN ARRAY d.parts LOOP
		PERFORM usage_billing.revert_usage(ub_test.id(d.n), part, billing_id => 'acc_a');
		so_far := so_far + part;
		FOREACH m IN ARRAY '{viewing_seconds,viewing_bytes,egress_seconds,egress_seconds_additional_targets,egress_bytes}'::text[] LOOP
			SELECT sum((to_jsonb(r) ->> m)::numeric) INTO back FROM usage_billing.usage_revert r WHERE usage_id = ub_test.id(d.n);
			wanted := div(coalesce(d.measures ->> m, '0')::numeric * so_far, d.amount);
			IF back <> wanted THEN
				wrong := wrong || format('%s after %s of %s: %s, not %s; ', m, so_far, d.amount, back, wanted);
			END IF;
		END LOOP;
	END LOOP;
	RETURN wrong;
END $$;
SELECT is(ub_test.wrong_shares(n), '', format('a delivery of %s, reverted by %s', amount, parts)) FROM delivery ORDER BY n;
SELECT is(ub_test.books(), '', 'the books are right with deliveries');
SET LOCAL usage_billing.revert_once = on;

-- Credits that are given back can be used.
DO $$ BEGIN PERFORM ub_test.used(9, 930); END $$;
SELECT ub_test.fails('SELECT ub_test.used(10, 1)', 'UB001', NULL, 'an account without credits can use none');
SELECT is((usage_billing.revert_usage(ub_test.id(9), 5, billing_id => 'acc_a') ->> 'balance')::bigint, 5::bigint, 'a revert gives some back');
SELECT lives_ok('SELECT ub_test.used(10, 5)', 'they can be used');
SELECT ub_test.fails('SELECT ub_test.used(11, 1)', 'UB001', NULL, 'and no more');

-- A closed account.
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'acc_a';
SELECT is(usage_billing.revert_usage(ub_test.id(10), billing_id => 'acc_a', id => ub_test.id(110)), ub_test.answer(110, 10, 5, 5, false),
	'a revert works on a closed account');
SELECT is(usage_billing.revert_usage(ub_test.id(10), billing_id => 'acc_a', id => ub_test.id(110)), ub_test.answer(110, 10, 5, 5, true), 'and so does its retry');
SELECT ub_test.fails('SELECT ub_test.used(12, 1)', 'UB003', NULL, 'new usage does not');

SELECT is(ub_test.books(), '', 'the books are right in the end');
SELECT * FROM finish();
ROLLBACK;
