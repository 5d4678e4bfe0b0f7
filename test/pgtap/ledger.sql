-- The ledger: folding changes no answer, verify() sees what is wrong, rebuild()
-- mends it, nothing overflows unseen, and a statement can be read page by page.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_' || x, billing_id => 'acc_' || x, credit_min => CASE x WHEN 'd' THEN -500 ELSE 0 END)
	FROM unnest('{a,b,c,d}'::text[]) x;
	PERFORM usage_billing.grant_credits(ub_test.id(1), 1000, billing_id => 'acc_a');
	PERFORM usage_billing.grant_credits(ub_test.id(1), 70, billing_id => 'acc_b');
	-- some hours, sources and types, in calls of their own and over COPY's way
	PERFORM usage_billing.create_usage(jsonb_build_array(
		jsonb_build_object('id', ub_test.id(100 + n), 'amount', n, 'source', 'api', 'created_at', timestamptz '2024-05-01 08:00:00+00' + n * interval '17 minutes'),
		jsonb_build_object('id', ub_test.id(200 + n), 'amount', n, 'source', 'images', 'type', 'feature',
			'created_at', timestamptz '2024-05-01 08:00:00+00' + n * interval '31 minutes'),
		jsonb_build_object('id', ub_test.id(300 + n), 'amount', 2, 'source', 'vod_streams', 'type', 'feature',
			'metadata', jsonb_build_object('viewing_seconds', n * 10, 'viewing_bytes', n * 1000, 'egress_bytes', n),
			'created_at', timestamptz '2024-05-01 08:00:00+00' + n * interval '7 minutes')), billing_id => 'acc_a')
	FROM generate_series(1, 20) n;
	INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at)
	SELECT x, ub_test.id(400 + n), n, 'batch', timestamptz '2024-05-02 08:00:00+00' + n * interval '29 minutes'
	FROM generate_series(1, 20) n, unnest('{acc_a,acc_b,acc_d}'::text[]) x;
	PERFORM usage_billing.revert_usage(ub_test.id(105), billing_id => 'acc_a'), usage_billing.revert_usage(ub_test.id(110), 4, billing_id => 'acc_a'),
		usage_billing.revert_usage(ub_test.id(203), 1, billing_id => 'acc_a'), usage_billing.revert_usage(ub_test.id(307), 1, billing_id => 'acc_a'),
		usage_billing.revert_usage(ub_test.id(308), billing_id => 'acc_a'), usage_billing.revert_usage(ub_test.id(411), 3, billing_id => 'acc_b');
END $$;

-- Folding.
CREATE FUNCTION ub_test.answers() RETURNS jsonb
LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_array(usage_billing.account_balance(billing_id => a), usage_billing.total_debited(billing_id => a),
		(SELECT jsonb_agg(to_jsonb(t)) FROM usage_billing.account_transactions(billing_id => a, max_rows => 1000) t)))
	FROM unnest('{acc_a,acc_b,acc_c,acc_d}'::text[]) a
$$;
CREATE TEMP TABLE unfolded AS SELECT ub_test.answers(), ub_test.state();
SELECT is((SELECT jsonb_agg((usage_billing.account_balance(billing_id => a) ->> 'balance')::bigint) FROM unnest('{acc_a,acc_b,acc_c,acc_d}'::text[]) a),
	'[589, -137, 0, -210]', 'balances before folding');
SELECT is(ub_test.books(), '', 'the books are right before folding');
SELECT isnt((SELECT count(*) FROM usage_billing.usage_delta), 0::bigint, 'something waits to be folded');
SELECT lives_ok('SELECT usage_billing.run_maintenance()', 'run_maintenance() folds');
SELECT is((SELECT count(*) FROM usage_billing.usage_delta), 0::bigint, 'all of it');
SELECT is(ub_test.answers(), answers, 'folding changes no answer') FROM unfolded;
SELECT is(ub_test.state(), state, 'and no sum') FROM unfolded;
SELECT is(ub_test.books(), '', 'the books are right after folding');
SELECT lives_ok('SELECT usage_billing.run_maintenance()', 'folding nothing is fine');
SELECT is(ub_test.answers(), answers, 'and changes nothing') FROM unfolded;
SELECT is(ub_test.use('acc_a', 'id', ub_test.id(500)::text, 'amount', '589'), '{"created": 1, "duplicates": 0, "balance": 0}', 'a folded balance can be used');
SELECT ub_test.fails($$SELECT ub_test.use('acc_a', 'id', ub_test.id(501)::text, 'amount', '1')$$, 'UB001', NULL, 'to its end');
SELECT is(ub_test.balance('acc_a'), 0::bigint, 'folded and pending count together');

-- Whoever folds, what was folded here is known as such.
SAVEPOINT elsewhere;
SELECT usage_billing.run_maintenance();
SELECT is((SELECT count(*) FROM usage_billing.credit_balance WHERE xmin <> xid(folded_by)), 0::bigint, 'folded by run_maintenance(): the row names its transaction');
DO $$ BEGIN FOR n IN 1 .. 250 LOOP PERFORM usage_billing.grant_credits(ub_test.id(600 + n), 1, billing_id => 'acc_c'); END LOOP; END $$;
SELECT cmp_ok((SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id = 'acc_c'), '<', 250::bigint, 'calls fold');
SELECT is((SELECT count(*) FROM usage_billing.credit_balance WHERE billing_id = 'acc_c' AND xmin = xid(folded_by)), 1::bigint, 'folded by a call: the row names its transaction');
ROLLBACK TO elsewhere;

-- A row that another cluster folded, far ahead in its transactions, as a logical
-- subscription brings it.
SELECT usage_billing.run_maintenance();
UPDATE usage_billing.credit_balance SET folded_below = (folded_below::text::bigint + 1000000)::text::xid8, folded_by = (folded_by::text::bigint + 1000000)::text::xid8;
SELECT usage_billing.grant_credits(ub_test.id(501), 30, billing_id => 'acc_a') IS NOT NULL AS granted \g /dev/null
SELECT is(ub_test.use('acc_a', 'id', ub_test.id(502)::text, 'amount', '10'), '{"created": 1, "duplicates": 0, "balance": 20}', 'folded elsewhere: a call sees what is pending here');
SELECT is(ub_test.balance('acc_a'), 20::bigint, 'folded elsewhere: so does a reader');
SELECT is_empty($$SELECT * FROM usage_billing.verify()$$, 'folded elsewhere: verify() finds nothing');
SELECT usage_billing.run_maintenance();
SELECT is((SELECT count(*) FROM usage_billing.usage_delta), 0::bigint, 'folded elsewhere: all can be folded here');
SELECT is(ub_test.balance('acc_a'), 20::bigint, 'folded elsewhere: to the same balance');
ROLLBACK TO elsewhere;
DO $$ BEGIN PERFORM usage_billing.revert_usage(ub_test.id(500), 89, billing_id => 'acc_a'), usage_billing.run_maintenance(); END $$;
SELECT is(ub_test.balance('acc_a'), 89::bigint, 'a second folding adds to the first');
SELECT is(ub_test.books(), '', 'and the books are right');

-- What only reads may be called in a read-only transaction.
CREATE FUNCTION ub_test.read_only(call text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('transaction_read_only', 'on', true);
	EXECUTE call;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE SQLSTATE WHEN 'UNDO1' THEN '00000' ELSE SQLSTATE END;
END $$;
DO $$ BEGIN PERFORM usage_billing.grant_credits(ub_test.id(1), 70, billing_id => 'acc_c'); END $$;
SELECT is(ub_test.read_only(format('SELECT * FROM usage_billing.%s', call)), code, 'read only: ' || call)
FROM (VALUES
	($$account_balance(billing_id => 'acc_c')$$, '00000'), ($$total_debited(billing_id => 'acc_c')$$, '00000'),
	($$account_transactions(billing_id => 'acc_c')$$, '00000'), ('verify()', '00000'),
	($$create_usage('[{"id": "00000000-0000-4000-8000-000000000001", "amount": 1}]', billing_id => 'acc_c')$$, '25006'),
	($$grant_credits('00000000-0000-4000-8000-000000000002', 1, billing_id => 'acc_c')$$, '25006')
) AS c (call, code);

-- verify() and rebuild(). Each damage is undone after it was looked at.
CREATE FUNCTION ub_test.damage_and_mend(damage text, wanted text, name text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	sound jsonb := ub_test.state();
	seen text;
	n int;
BEGIN
	BEGIN
		EXECUTE damage;
		SELECT count(*), string_agg(concat_ws(' | ', v.subject, v.key, v.expected, v.actual), E'\n' ORDER BY subject, key) INTO n, seen FROM usage_billing.verify() v;
		RETURN NEXT matches(coalesce(seen, ''), wanted, name || ': verify() tells of it');
		RETURN NEXT is((SELECT count(*) FROM usage_billing.verify('acc_d')), 0::bigint, name || ': nothing is said of an account that is sound');
		RETURN NEXT is((SELECT string_agg(concat_ws(' | ', v.subject, v.key, v.expected, v.actual), E'\n' ORDER BY subject, key) FROM usage_billing.verify('acc_a') v),
			seen, name || ': asked for the account, verify() says the same');
		PERFORM usage_billing.rebuild('acc_d');
		RETURN NEXT is((SELECT count(*) FROM usage_billing.verify())::int, n, name || ': rebuild() of another account mends nothing');
		PERFORM usage_billing.rebuild('acc_a');
		RETURN NEXT is(ub_test.books(), '', name || ': rebuild() of the account mends it');
		PERFORM usage_billing.run_maintenance();
		RETURN NEXT is(ub_test.books(), '', name || ': it stays mended');
		RETURN NEXT is(ub_test.state() - 'facts', sound - 'facts', name || ': every answer is as it was');
		RAISE SQLSTATE 'UNDO1';
	EXCEPTION WHEN SQLSTATE 'UNDO1' THEN NULL;
	END;
	BEGIN
		EXECUTE damage;
		PERFORM usage_billing.rebuild();
		RETURN NEXT is(ub_test.books(), '', name || ': rebuild() of all mends it');
		PERFORM usage_billing.rebuild();
		RETURN NEXT is(ub_test.books(), '', name || ': a second time changes nothing');
		RAISE SQLSTATE 'UNDO1';
	EXCEPTION WHEN SQLSTATE 'UNDO1' THEN NULL;
	END;
END $$;
SELECT ub_test.damage_and_mend(damage, wanted, name)
FROM (VALUES
	($$UPDATE usage_billing.credit_balance SET balance = balance + 7 WHERE billing_id = 'acc_a'$$, '^[^|]*balance[^|]* \| [^|]*acc_a[^|]* \| [^|]*89[^|]* \| [^|]*96[^|]*$',
		'a wrong balance'),
	($$UPDATE usage_billing.credit_balance SET debited = debited - 1 WHERE billing_id = 'acc_a'$$, '^[^|]*debited[^|]* \| [^|]*acc_a[^|]* \| [^|]*911[^|]* \| [^|]*910[^|]*$',
		'wrong debits'),
	($$DELETE FROM usage_billing.credit_balance WHERE billing_id = 'acc_a'$$, 'balance[^|]* \| [^|]*acc_a[^|]* \| [^|]*89[^|]* \| [^|]*0',
		'a balance that is lost'),
	($$UPDATE usage_billing.usage_hourly SET amount = amount + 5 WHERE billing_id = 'acc_a' AND source = 'api' AND hour = '2024-05-01 08:00:00+00'$$,
		'^[^|]*hour[^|]* \| [^|]*acc_a[^|]*2024-05-01[^|]*api[^|]* \| [^|]*6[^|]* \| [^|]*11[^|]*$', 'a wrong amount in an hour'),
	($$UPDATE usage_billing.usage_hourly SET events = events - 1 WHERE billing_id = 'acc_a' AND source = 'images' AND hour = '2024-05-01 09:00:00+00'$$,
		'^[^|]*hour[^|]* \| [^|]*acc_a[^|]*2024-05-01[^|]*images[^|]* \| [^|]*2[^|]* \| [^|]*1[^|]*$', 'a wrong number of events in an hour'),
	($$UPDATE usage_billing.usage_hourly SET viewing_seconds = 98765 WHERE billing_id = 'acc_a' AND source = 'vod_streams' AND hour = '2024-05-01 08:00:00+00'$$,
		'^[^|]*hour[^|]* \| [^|]*acc_a[^|]*2024-05-01[^|]*vod_streams[^|]* \| [^|]* \| [^|]*98765[^|]*$', 'a wrong measurement in an hour'),
	($$DELETE FROM usage_billing.usage_hourly WHERE billing_id = 'acc_a' AND source = 'batch' AND hour = '2024-05-02 08:00:00+00'$$,
		'^[^|]*hour[^|]* \| [^|]*acc_a[^|]*2024-05-02[^|]*batch[^|]* \| [^|]*3[^|]* \| [^|]*0[^|]*$', 'an hour that is lost'),
	($$INSERT INTO usage_billing.usage_hourly (billing_id, hour, source, type, amount, events) VALUES ('acc_a', '2023-01-01 00:00:00+00', 'ghost', 'feature', 3, 1)$$,
		'^[^|]*hour[^|]* \| [^|]*acc_a[^|]*2023-01-01[^|]*ghost[^|]* \| [^|]*0[^|]* \| [^|]*3[^|]*$', 'an hour without facts'),
	($$INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at) VALUES ('acc_a', ub_test.id(600), 9, 'lost', '2024-05-03 08:00:00+00');
		DELETE FROM usage_billing.usage_delta WHERE billing_id = 'acc_a'; SELECT set_config('session_replication_role', 'replica', true);
		DELETE FROM usage_billing.usage WHERE source = 'lost'; SELECT set_config('session_replication_role', 'origin', true);
		UPDATE usage_billing.credit_balance SET balance = balance * 2, debited = 0 WHERE billing_id = 'acc_a';
		UPDATE usage_billing.usage_hourly SET amount = 0, events = 0 WHERE billing_id = 'acc_a'$$,
		'balance(.|\n)*hour', 'all numbers of an account'),
	($$DELETE FROM usage_billing.credit_balance WHERE billing_id = 'acc_a'; DELETE FROM usage_billing.usage_hourly WHERE billing_id = 'acc_a';
		DELETE FROM usage_billing.usage_delta WHERE billing_id = 'acc_a'$$,
		'balance(.|\n)*hour', 'all derived rows of an account')
) AS c (damage, wanted, name);
SELECT is(ub_test.books(), '', 'no damage is left');

-- Pending deltas that are lost.
SAVEPOINT deltas;
DO $$ BEGIN PERFORM usage_billing.grant_credits(ub_test.id(700), 11, billing_id => 'acc_b'); END $$;
SELECT is(ub_test.balance('acc_b'), -126::bigint, 'a grant that is pending counts');
DELETE FROM usage_billing.usage_delta;
SELECT is((SELECT string_agg(concat_ws(' | ', v.subject, v.key, v.expected, v.actual), E'\n') FROM usage_billing.verify('acc_b') v), 'balance | acc_b | -126 | -137',
	'verify() tells of its loss');
DO $$ BEGIN PERFORM usage_billing.rebuild(); END $$;
SELECT is(ub_test.books(), '', 'rebuild() mends it');
ROLLBACK TO deltas;

-- A load with triggers disabled.
SAVEPOINT no_triggers;
SET LOCAL session_replication_role = replica;
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at, updated_at) VALUES
	('acc_c', ub_test.id(1), 'credit', 25, 'api', '{}', '2024-05-01 08:30:00+00', now()),
	('acc_c', ub_test.id(2), 'feature', 2, 'transcoders', '{"egress_seconds": 9, "viewing_bytes": "4"}', '2024-05-01 08:31:00+00', now());
INSERT INTO usage_billing.credit_grant (billing_id, id, amount, created_at) VALUES ('acc_c', ub_test.id(3), 100, now());
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, created_at, usage_type, usage_source, usage_at, usage_events,
	viewing_seconds, viewing_bytes, egress_seconds, egress_seconds_additional_targets, egress_bytes)
VALUES ('acc_c', ub_test.id(2), ub_test.id(4), 1, now(), 'feature', 'transcoders', '2024-05-01 08:31:00+00', 0, 0, 2, 4, 0, 0);
SET LOCAL session_replication_role = origin;
SELECT is(ub_test.balance('acc_c'), 70::bigint, 'facts that were loaded without triggers are not posted');
SELECT is((SELECT string_agg(concat_ws(' | ', v.subject, v.key, v.expected, v.actual), E'\n' ORDER BY subject) FROM usage_billing.verify() v WHERE subject = 'balance'),
	'balance | acc_c | 145 | 70', 'verify() tells of them');
DO $$ BEGIN PERFORM usage_billing.rebuild(); END $$;
SELECT is(ub_test.balance('acc_c'), 145::bigint, 'rebuild() posts them');
SELECT is(ub_test.books(), '', 'the books are right');
ROLLBACK TO no_triggers;

-- Reverts that say of themselves what their usage doesn't: what a dump says is
-- taken as it is, and verify() tells of it.
SAVEPOINT contradictions;
DO $$
BEGIN
	PERFORM usage_billing.create_usage(jsonb_build_array(
		jsonb_build_object('id', ub_test.id(10 + n), 'amount', 9, 'type', 'feature', 'source', 'transcoders', 'metadata', '{"viewing_bytes": 18}'::jsonb)), billing_id => 'acc_c')
	FROM generate_series(1, 3) n;
END $$;
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_c', ub_test.id(11), 4);
SELECT is((SELECT count(*) FROM usage_billing.verify()), 0::bigint, 'a revert that was completed from its usage is sound');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, usage_events) VALUES ('acc_c', ub_test.id(12), 4, 1);
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, viewing_bytes) VALUES ('acc_c', ub_test.id(13), 4, 19);
SELECT is((SELECT string_agg(format('%s: %s', v.subject, right(v.key, 2)), ', ' ORDER BY v.key) FROM usage_billing.verify() v), 'revert: 12, revert: 13',
	'one that takes the event and leaves something, or takes more than was measured, is not');
ROLLBACK TO contradictions;

-- Nothing leaves the range of int64.
DO $$ BEGIN PERFORM usage_billing.create_billing_account(org_id => 'org_m', billing_id => 'acc_m'), usage_billing.create_billing_account(org_id => 'org_n', billing_id => 'acc_n'); END $$;
CREATE FUNCTION ub_test.huge(VARIADIC elements text[]) RETURNS text
LANGUAGE sql AS $$
	SELECT format('SELECT usage_billing.create_usage(%L, billing_id => ''acc_m'')', ub_test.expand('[' || string_agg(
		format('{"amount": 9223372036854775807, "type": "feature", "created_at": "2024-05-01T10:30:00Z", %s}', e), ', ') || ']')) FROM unnest(elements) e
$$;
SELECT is(usage_billing.grant_credits(ub_test.id(1), 9223372036854775807, billing_id => 'acc_m') ->> 'balance', '9223372036854775807', 'the largest balance');
SELECT ub_test.fails($$SELECT usage_billing.grant_credits(ub_test.id(2), 9223372036854775807, billing_id => 'acc_m')$$, '22003', NULL, 'the same again');
SELECT ub_test.fails($$SELECT usage_billing.grant_credits(ub_test.id(2), 1, billing_id => 'acc_m')$$, '22003', NULL, 'one more by grant_credits');
SELECT ub_test.fails($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_m', ub_test.id(2), 1)$$, '22003', NULL, 'one more by INSERT');
SELECT ub_test.fails($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_n', ub_test.id(2), 1), ('acc_n', ub_test.id(3), 9223372036854775807)$$,
	'22003', NULL, 'one more in one statement');
DO $$ BEGIN PERFORM ub_test.use('acc_m', 'id', ub_test.id(10)::text, 'amount', '100'), usage_billing.grant_credits(ub_test.id(4), 100, billing_id => 'acc_m'); END $$;
SELECT is(ub_test.balance('acc_m'), 9223372036854775807, 'used and granted again');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(10), billing_id => 'acc_m')$$, '22003', NULL, 'a revert beyond it');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_m', ub_test.id(10), 1)$$, '22003', NULL, 'a revert by INSERT beyond it');
SELECT ub_test.fails(ub_test.huge('"id": "@20"', '"id": "@21"'), '22003', NULL, 'an hour''s amount in one call');
SELECT lives_ok(ub_test.huge('"id": "@20"', '"id": "@21", "source": "other"', '"id": "@22", "created_at": "2024-05-01T11:00:00Z"', '"id": "@23", "type": "credit", "amount": 0'),
	'other hours, sources and types have sums of their own');
SELECT ub_test.fails(ub_test.huge('"id": "@24"'), '22003', NULL, 'an hour''s amount over two calls');
SELECT ub_test.fails(ub_test.huge('"id": "@24", "amount": 1'), '22003', NULL, 'by one');
SELECT lives_ok(ub_test.huge('"id": "@24", "amount": 0'), 'but not by 0');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, created_at) VALUES ('acc_m', ub_test.id(25), 'feature', 1, '2024-05-01 10:00:00+00')$$,
	'22003', NULL, 'an hour''s amount by INSERT');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata) SELECT 'acc_m', ub_test.id(25 + n), 'feature', 1, 'transcoders',
	'{"egress_bytes": 9223372036854775807}' FROM generate_series(1, 2) n$$, '22003', NULL, 'an hour''s measurement in one statement');
SELECT lives_ok(ub_test.huge('"id": "@27", "amount": 1, "source": "transcoders", "metadata": {"viewing_bytes": 9223372036854775807}'), 'the largest measurement');
SELECT ub_test.fails(ub_test.huge('"id": "@28", "amount": 1, "source": "transcoders", "metadata": {"viewing_bytes": 1}'), '22003', NULL, 'an hour''s measurement over two calls');
SELECT is(ub_test.books(), '', 'the books are right at the limits');
DO $$ BEGIN PERFORM usage_billing.run_maintenance(); END $$;
SELECT ub_test.fails($$SELECT usage_billing.grant_credits(ub_test.id(2), 1, billing_id => 'acc_m')$$, '22003', NULL, 'folded: one more by grant_credits');
SELECT ub_test.fails(ub_test.huge('"id": "@29", "amount": 1'), '22003', NULL, 'folded: an hour''s amount');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(10), billing_id => 'acc_m')$$, '22003', NULL, 'folded: a revert beyond the largest balance');
SELECT ub_test.fails(ub_test.huge('"id": "@28", "amount": 1, "source": "transcoders", "metadata": {"viewing_bytes": 1}'), '22003', NULL, 'folded: an hour''s measurement');
SELECT is(usage_billing.revert_usage(ub_test.id(20), 7, billing_id => 'acc_m') ->> 'amount', '7', 'what is reverted makes room');
SELECT lives_ok(ub_test.huge('"id": "@29", "amount": 7'), 'as much as it was');
SELECT ub_test.fails(ub_test.huge('"id": "@30", "amount": 1'), '22003', NULL, 'and no more');
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at) VALUES ('acc_n', ub_test.id(1), 9223372036854775807, '2024-05-01 10:00:00+00');
SELECT is(ub_test.balance('acc_n'), -9223372036854775807, 'a very negative balance');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, amount, created_at) VALUES ('acc_n', ub_test.id(2), 2, '2024-05-01 11:00:00+00')$$, '22003', NULL,
	'a balance below int64');
DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_o', billing_id => 'acc_o');
	FOR n IN 1..2047 LOOP
		PERFORM usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(n), 'amount', 4503599627370496, 'type', 'feature',
			'created_at', '2024-05-01T10:00:00Z')), billing_id => 'acc_o');
		INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_o', ub_test.id(n), 4503599627370496);
	END LOOP;
END $$;
SELECT is(ub_test.balance('acc_o'), 9218868437227405312, 'a balance of many parts, none of which is very large');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, created_at) VALUES ('acc_o', ub_test.id(2048), 'feature', 4503599627370496,
	'2024-05-01 10:00:00+00')$$, '22003', NULL, 'an hour''s amount of many parts');
SELECT ub_test.fails($$SELECT usage_billing.grant_credits(ub_test.id(2048), 4503599627370496, billing_id => 'acc_o')$$, '22003', NULL, 'one part more by grant_credits');
SELECT ub_test.fails($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_o', ub_test.id(2048), 4503599627370496)$$, '22003', NULL,
	'one part more by INSERT');
SELECT is(ub_test.books(), '', 'the books are right beyond them');

-- A statement: an account with many transactions, most of them at one moment,
-- and the same ids for usages, reverts and grants.
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('acc_s', 'org_s');
INSERT INTO usage_billing.credit_grant (billing_id, id, amount, source, description, user_id, metadata, created_at)
SELECT 'acc_s', ub_test.id(n), 1000, 'shop', 'grant ' || n, 'u' || n, jsonb_build_object('n', n), timestamptz '2024-05-01 10:00:00+00' + n % 3 * interval '1 second'
FROM generate_series(1, 40) n;
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, created_at)
SELECT 'acc_s', ub_test.id(n), CASE n % 10 WHEN 0 THEN 'feature' ELSE 'credit' END::usage_billing.usage_type, n % 7, 'api',
	timestamptz '2024-05-01 10:00:00+00' + n % 2 * interval '1 second'
FROM generate_series(1, 150) n;
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, created_at)
SELECT 'acc_s', id, id, 1, created_at FROM usage_billing.usage WHERE billing_id = 'acc_s' AND amount > 0 AND id <= ub_test.id(60);

CREATE TEMP TABLE wanted AS
SELECT id, 'usage' AS kind, 'debit' AS type, amount, description, user_id, metadata, created_at FROM usage_billing.usage
	WHERE billing_id = 'acc_s' AND type = 'credit' AND amount > 0
UNION ALL SELECT id, 'revert', 'credit', amount, description, user_id, metadata, created_at FROM usage_billing.usage_revert
	WHERE billing_id = 'acc_s' AND usage_type = 'credit'
UNION ALL SELECT id, 'grant', 'credit', amount, description, user_id, metadata, created_at FROM usage_billing.credit_grant WHERE billing_id = 'acc_s';
SELECT set_eq($$SELECT id, kind, type, amount, description, user_id, metadata, created_at
	FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 1000)$$, 'SELECT * FROM wanted', 'a statement holds what moved credits, and nothing else');
SELECT is((SELECT count(*) FROM usage_billing.account_transactions(billing_id => 'acc_s')), 100::bigint, 'a page is 100 rows long');
SELECT is((SELECT (array_agg(DISTINCT source))::text FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 1000) WHERE kind = 'grant'), '{shop}',
	'the source of grants is told');
SELECT is((SELECT (array_agg(DISTINCT source))::text FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 1000) WHERE kind = 'usage'), '{api}',
	'and that of usages');

-- All pages of a statement, each row as text; between them, what meanwhile does.
CREATE FUNCTION ub_test.pages(rows_a_page int, meanwhile text DEFAULT NULL, span text DEFAULT '') RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
	page text[];
	last text;
	read text[] := '{}';
BEGIN
	LOOP
		EXECUTE format('SELECT array_agg(row(t.kind, t.id, t.created_at)::text ORDER BY n), (array_agg(t.cursor ORDER BY n DESC))[1]
			FROM usage_billing.account_transactions(billing_id => ''acc_s'', max_rows => %s, before => %L %s) WITH ORDINALITY
				AS t (id, kind, type, amount, source, description, user_id, metadata, created_at, cursor, n)', rows_a_page, last, span)
			INTO page, last;
		EXIT WHEN page IS NULL;
		ASSERT array_length(page, 1) <= rows_a_page AND cardinality(read) < 2000;
		read := read || page;
		IF meanwhile IS NOT NULL THEN
			EXECUTE meanwhile;
		END IF;
	END LOOP;
	RETURN read;
END $$;
CREATE TEMP TABLE whole AS SELECT ub_test.pages(1000) AS lines;
SELECT is((SELECT array_agg(created_at ORDER BY n) FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 1000) WITH ORDINALITY
		AS t (id, kind, type, amount, source, description, user_id, metadata, created_at, cursor, n)),
	(SELECT array_agg(created_at ORDER BY created_at DESC) FROM wanted), 'newest first');
SELECT is(ub_test.pages(n), lines, format('read %s a page, it is the same, whole and without repeats', n)) FROM whole, unnest('{1,2,7,13,100}'::int[]) n;
SELECT is(ub_test.pages(13, 'SELECT usage_billing.run_maintenance()'), lines, 'also if folding happens in between') FROM whole;
SAVEPOINT newer;
SELECT is(ub_test.pages(13, $$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_s', gen_random_uuid(), 1)$$), lines,
	'rows that come later don''t shift it') FROM whole;
ROLLBACK TO newer;
SELECT is(ub_test.pages(7, NULL, $$, "from" => '2024-05-01 10:00:01+00', "to" => '2024-05-01 10:00:02+00'$$),
	(SELECT array_agg(l ORDER BY n) FROM whole, unnest(lines) WITH ORDINALITY AS x (l, n) WHERE l LIKE '%10:00:01+00%'), 'from is included, to is not');
SELECT is(ub_test.pages(7, NULL, $$, "from" => '2024-05-01 10:00:01+00'$$),
	(SELECT array_agg(l ORDER BY n) FROM whole, unnest(lines) WITH ORDINALITY AS x (l, n) WHERE l NOT LIKE '%10:00:00+00%'), 'only from');
SELECT is(ub_test.pages(7, NULL, $$, "to" => '2024-05-01 10:00:01+00'$$),
	(SELECT array_agg(l ORDER BY n) FROM whole, unnest(lines) WITH ORDINALITY AS x (l, n) WHERE l LIKE '%10:00:00+00%'), 'only to');
SELECT is((SELECT count(*) FROM usage_billing.account_transactions(billing_id => 'acc_s', "from" => '2024-05-01 10:00:03+00')), 0::bigint, 'a span without transactions');
SELECT is((SELECT count(*) FROM usage_billing.account_transactions(billing_id => 'acc_c', "to" => now())), 0::bigint, 'an account without transactions');
SET LOCAL TimeZone = 'Asia/Kathmandu';
CREATE TEMP TABLE elsewhere AS SELECT cursor FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 20);
SET LOCAL TimeZone = 'UTC';
SELECT set_eq('SELECT cursor FROM elsewhere', $$SELECT cursor FROM usage_billing.account_transactions(billing_id => 'acc_s', max_rows => 20)$$,
	'a cursor is the same in any session');

-- What is remembered to the end of the transaction doesn't grow with its statements.
SELECT usage_billing.create_billing_account('many', 'many', -10000);
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1)), 'many');
CREATE TEMP VIEW kept AS SELECT sum(used_bytes) AS bytes FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext';
CREATE TEMP TABLE kept_before AS SELECT * FROM kept;
DO $$ BEGIN
	FOR i IN 1 .. 1000 LOOP
		INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('many', gen_random_uuid(), 1);
	END LOOP;
END $$;
SELECT cmp_ok((SELECT kept.bytes - kept_before.bytes FROM kept, kept_before), '<', 20000::numeric,
	'a thousand statements of one transaction need no more memory than one');

SELECT is(ub_test.books(), '', 'the books are right in the end');
SELECT * FROM finish();
ROLLBACK;
