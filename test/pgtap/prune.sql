-- Retention: old usage that is billed out becomes sums by the hour, and nothing
-- that is summed up changes by that.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

DO $$ BEGIN
	INSERT INTO usage_billing.billing_account (billing_id, org_id, created_at, credit_min)
	SELECT name, 'org_' || name, '2023-01-01Z', -1000000 FROM unnest('{a,b,never}'::text[]) name;
	PERFORM usage_billing.grant_credits(ub_test.id(900), 5000, billing_id => 'a');
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, metadata, created_at)
	SELECT account, ub_test.id(n), (CASE WHEN n % 3 = 0 THEN 'feature' ELSE 'credit' END)::usage_billing.usage_type,
		CASE WHEN n % 6 = 0 THEN 'vod_streams' WHEN n % 2 = 0 THEN 'api' ELSE 'images' END, n,
		CASE WHEN n % 6 = 0 THEN jsonb_build_object('viewing_seconds', n * 7, 'viewing_bytes', n * 11, 'egress_seconds', n,
			'egress_seconds_additional_targets', 1, 'egress_bytes', n * 3) ELSE '{}' END,
		timestamptz '2024-01-01 00:00Z' + n * interval '20 min'
	FROM unnest('{a,b,never}'::text[]) account, generate_series(1, 90) n;
	PERFORM usage_billing.revert_usage(ub_test.id(n), amount, billing_id => 'a', id => ub_test.id(1000 + n))
	FROM (VALUES (1, NULL), (4, 2), (6, 3), (12, NULL), (50, NULL)) AS r (n, amount);
	UPDATE usage_billing.billing_account SET last_billed_at = '2024-01-01 20:59:59Z' WHERE billing_id = 'a';
	UPDATE usage_billing.billing_account SET last_billed_at = '2024-01-01 05:00Z' WHERE billing_id = 'b';
END $$;

-- What must not change: all sums that anybody can ask for.
CREATE FUNCTION ub_test.sums() RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object(
		'balances', (SELECT jsonb_agg(usage_billing.account_balance(billing_id) ORDER BY billing_id) FROM usage_billing.billing_account),
		'debited', (SELECT jsonb_agg(usage_billing.total_debited(billing_id) ORDER BY billing_id) FROM usage_billing.billing_account),
		'trends', (SELECT jsonb_agg(usage_billing.account_usage_trend('2024-01-01', '2024-01-03', NULL, 'trend', billing_id) ORDER BY billing_id) FROM usage_billing.billing_account),
		'series', (SELECT jsonb_agg(s ORDER BY billing_id, s.bucket_start, s.source, s.type)
			FROM usage_billing.billing_account, usage_billing.usage_series('2024-01-01Z', '2024-01-03Z', billing_id => billing_id) s),
		'reverts', (SELECT jsonb_agg(r ORDER BY billing_id, id) FROM usage_billing.usage_revert r))
$$;
CREATE FUNCTION ub_test.kept(account text) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s from %s', count(*), to_char(min(created_at), 'HH24:MI')) FROM usage_billing.usage WHERE billing_id = account $$;
CREATE TEMP TABLE before AS SELECT ub_test.sums() AS sums;
SELECT is(ub_test.books(), '', 'the books are right before');

-- Bad input.
SELECT ub_test.fails(format('SELECT usage_billing.prune_usage(%s)', arguments), code, detail, format('prune_usage(%s)', arguments))
FROM (VALUES ('NULL', '22023', 'older_than is missing'), ('''infinity''', '22023', 'not finite'), ('''-infinity''', '22023', 'not finite'),
	('now(), max_rows => 0', '22023', 'max_rows is 0'), ('now(), max_rows => -5', '22023', 'max_rows is -5'), ('now(), ''mArKeR''', 'PT404', 'mArKeR')) AS c (arguments, code, detail);

-- What goes.
SELECT is(usage_billing.prune_usage('2023-12-31Z'), 0::bigint, 'nothing is so old');
SELECT is(usage_billing.prune_usage('2024-01-01 00:59:59Z'), 0::bigint, 'an hour that is not over by then stays');
SELECT is(usage_billing.prune_usage(now(), 'never'), 0::bigint, 'what was never billed stays');
SELECT is(usage_billing.prune_usage('2024-01-01 02:59:59Z', 'a'), 5::bigint, 'whole hours go');
SELECT is(ub_test.kept('a'), '85 from 02:00', 'the hour that was begun stays');
SELECT is(ub_test.kept('b'), '90 from 00:20', 'and so does another account');
SELECT is(ub_test.books(), '', 'the books are right');
SELECT is(ub_test.sums(), sums, 'no sum changed') FROM before;
SELECT is(usage_billing.prune_usage('2024-01-01 02:59:59Z', ''), 5::bigint, 'an empty account is none: all');
SELECT is(usage_billing.prune_usage('2024-02-01Z', max_rows => 4), 4::bigint, 'a batch has so many rows');
SELECT is(ub_test.kept('a'), '81 from 03:20', 'the oldest of an account go first');
SELECT is(usage_billing.prune_usage('2024-02-01Z', max_rows => 52), 52::bigint, 'the next goes on there');
SELECT is(usage_billing.prune_usage('2024-02-01Z', max_rows => 5), 5::bigint, 'and reaches the next account');
SELECT is(usage_billing.prune_usage('2024-02-01Z', max_rows => NULL), 2::bigint, 'until nothing is left');
SELECT is(ub_test.kept(name), kept, format('%s: what was billed is gone', name)) FROM (VALUES ('a', '31 from 20:00'), ('b', '76 from 05:00'), ('never', '90 from 00:20')) AS c (name, kept);
SELECT is(ub_test.books(), '', 'the books are right after all batches');
SELECT is(ub_test.sums(), sums, 'and no sum changed') FROM before;
SELECT is((SELECT (sum(events), sum(amount))::text FROM usage_billing.usage_archive WHERE billing_id = 'a'), '(59,1770)', 'the archive has what went');
DO $$ BEGIN PERFORM usage_billing.run_maintenance(); END $$;
SELECT is(ub_test.sums(), sums, 'nor does one when all is folded') FROM before;
DO $$ BEGIN PERFORM usage_billing.rebuild(); END $$;
SELECT is(ub_test.sums(), sums, 'nor by rebuild') FROM before;

-- Single usages of that time are gone.
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(2), billing_id => 'a')$$, 'PT404', NULL, 'one that is pruned can''t be reverted');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(1), billing_id => 'a')$$, 'PT404', NULL, 'nor one that was reverted before');
SELECT is(usage_billing.revert_usage(ub_test.id(1), billing_id => 'a', id => ub_test.id(1001)) -> 'duplicate', 'true', 'but a revert''s retry still is one');
SELECT is((SELECT string_agg(kind, ',' ORDER BY kind) FROM usage_billing.account_transactions(NULL, '2024-01-01 19:00Z', billing_id => 'a')), NULL, 'a statement lists no usage of that time');
SELECT is((SELECT count(*) FROM usage_billing.account_transactions(max_rows => 1000, billing_id => 'a') WHERE kind <> 'usage'), 4::bigint, 'but grants and reverts');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, usage_type, usage_source, usage_at, usage_events)
VALUES ('a', ub_test.id(5), ub_test.id(1005), 5, 'credit', 'images', '2024-01-01 01:40Z', 1);
SELECT is(ub_test.books(), '', 'a revert that says itself what it takes back may be loaded');

-- The past is open: what comes late for an archived hour counts, and goes later.
CREATE TEMP TABLE balance AS SELECT ub_test.balance('a') AS balance;
SELECT is((ub_test.use('a', 'id', ub_test.id(2001)::text, 'amount', '7', 'source', 'api', 'created_at', '2024-01-01T00:30:00Z') ->> 'balance')::bigint, balance - 7,
	'late usage of an archived hour') FROM balance;
SELECT is((ub_test.use('a', 'id', ub_test.id(2)::text, 'amount', '2', 'source', 'api', 'created_at', '2024-01-01T00:40:00Z') ->> 'created')::int, 1, 'an id that was pruned is new');
CREATE TEMP TABLE late AS SELECT ub_test.sums() AS sums;
SELECT is(usage_billing.prune_usage('2024-02-01Z'), 2::bigint, 'both go with the next call');
SELECT is((SELECT array_agg(events ORDER BY events) FROM usage_billing.usage_archive WHERE billing_id = 'a' AND hour = '2024-01-01Z' AND source = 'api' AND type = 'credit'),
	'{1,2}', 'beside what went before');
SELECT is(ub_test.books(), '', 'the books are right');
SELECT is(ub_test.sums(), sums, 'no sum changed') FROM late;

-- Nobody else changes facts, not even from within.
CREATE FUNCTION ub_test.meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE tg_argv[0];
	RETURN OLD;
END $$;
SELECT is(ub_test.try(format('CREATE TRIGGER meddle BEFORE DELETE ON usage_billing.usage FOR EACH ROW EXECUTE FUNCTION ub_test.meddle(%L);
	UPDATE usage_billing.billing_account SET last_billed_at = ''2024-01-02Z'' WHERE billing_id = ''a''; SELECT usage_billing.prune_usage(now(), ''a'', 1)', call)),
	row('UB004'::text, 'billing facts are append-only'::text, format('Rows of "%s" can''t be changed or removed.', fact),
		'Use revert_usage to take a usage back, and grant_credits to correct a balance.'::text), call)
FROM (VALUES ('DELETE FROM usage_billing.usage WHERE billing_id = ''b''', 'usage'), ('DELETE FROM usage_billing.credit_grant', 'credit_grant'),
	('UPDATE usage_billing.usage_archive SET amount = 0', 'usage_archive')) AS c (call, fact);
SELECT ub_test.fails('DELETE FROM usage_billing.usage', 'UB004', NULL, 'facts are closed after a batch');
SELECT ub_test.fails('DELETE FROM usage_billing.usage', 'UB004', NULL, 'and after one that failed');

-- The archive is a fact: loaded again it adds nothing, with other sums it is an error.
CREATE TEMP TABLE archived AS SELECT * FROM usage_billing.usage_archive;
CREATE TEMP TABLE loaded AS SELECT ub_test.sums() AS sums;
SELECT is(ub_test.rows('INSERT INTO usage_billing.usage_archive SELECT * FROM archived'), 0::bigint, 'a known row is skipped');
SELECT is(ub_test.rows('INSERT INTO usage_billing.usage_archive SELECT * FROM archived UNION ALL SELECT * FROM archived'), 0::bigint, 'twice too');
SELECT is(ub_test.sums(), sums, 'and changes nothing') FROM loaded;
SELECT ub_test.fails(format('INSERT INTO usage_billing.usage_archive SELECT r.* FROM archived a, jsonb_populate_record(a, jsonb_build_object(%L, %L)) r WHERE a.hour = %L',
	field, v, '2024-01-01Z'), '23505', field, format('with another %s it is an error', field))
FROM (VALUES ('amount', '98765'), ('events', '98765'), ('viewing_seconds', '98765'), ('hour', '2024-01-01 23:00Z'), ('source', 'mArKeR'), ('egress_bytes', '98765')) AS c (field, v);
SELECT ub_test.fails(format('INSERT INTO usage_billing.usage_archive (billing_id, hour, amount, events, %s) VALUES (%s)', columns, v), code, detail, v)
FROM (VALUES ('source', '''a'', ''2024-01-01 00:30Z'', 1, 1, ''x''', '22023', 'start of an hour'), ('source', '''a'', ''infinity'', 1, 1, ''x''', '22023', 'not finite'),
	('source', '''a'', ''2024-01-01Z'', -1, 1, ''x''', '22023', 'amount is -1; it must not be negative'), ('source', '''a'', ''2024-01-01Z'', 1, -1, ''x''', '22023', 'events is -1; it must not be negative'),
	('egress_bytes', '''a'', ''2024-01-01Z'', 1, 1, -1', '22023', 'egress_bytes is -1; it must not be negative'), ('source', '''mArKeR'', ''2024-01-01Z'', 1, 1, ''x''', '23503', NULL),
	('source', '''a'', ''2024-01-01Z'', 1, 1, repeat(''x'', 256)', '22023', 'source'), ('source', '''a'', NULL, 1, 1, ''x''', '23502', NULL),
	('created_at', '''a'', ''2024-01-01Z'', 1, 1, ''infinity''', '22023', 'not finite')) AS c (columns, v, code, detail);
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage_archive (billing_id, hour, source, amount, events) VALUES ('b', '2023-05-01 10:00Z', 'LLM', 30, 3),
	('b', '2023-05-01 10:00Z', 'llm', 30, 3), ('b', '2023-05-01 11:00Z', '', 40, 4)$$), 2::bigint, 'history may be loaded as sums');
SELECT is(ub_test.balance('b'), balance - 70, 'it is taken from the balance') FROM (SELECT (sums -> 'balances' -> 1 ->> 'balance')::bigint AS balance FROM loaded) b;
SELECT is((SELECT string_agg(concat_ws(' ', to_char(bucket_start, 'HH24'), source, events, amount), ', ' ORDER BY bucket_start)
	FROM usage_billing.usage_series('2023-05-01Z', '2023-05-02Z', billing_id => 'b')),
	'10 llm 3 30, 11 system 4 40', 'and is in the hours');
SELECT is(ub_test.books(), '', 'the books are right');

-- An account that has nothing but an archive has facts.
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('only', 'org_only');
INSERT INTO usage_billing.usage_archive (billing_id, hour, amount, events) VALUES ('only', '2023-05-01 10:00Z', 30, 3);
SELECT ub_test.fails($$DELETE FROM usage_billing.billing_account WHERE billing_id = 'only'$$, 'UB004', NULL, 'an account with an archive is not removed');
SELECT is((SELECT string_agg(v::text, ' ') FROM usage_billing.verify('stray') v), NULL, 'no orphan');
SET LOCAL usage_billing.restoring = on;
INSERT INTO usage_billing.usage_archive (billing_id, hour, amount, events) VALUES ('stray', '2023-05-01 10:00Z', 30, 3);
SELECT is((SELECT string_agg(v::text, ' ') FROM usage_billing.verify('stray') v), '(orphan,"usage_archive of account stray","0 rows","1 rows")', 'an archive without an account is one');

SELECT * FROM finish();
ROLLBACK;
