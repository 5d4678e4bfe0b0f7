-- INSERT and COPY keep every promise that the API keeps.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

-- A restore: while there is no account, facts of any account are taken, in any order.
SELECT is((SELECT count(*) FROM usage_billing.billing_account), 0::bigint, 'there is no account yet');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, created_at, usage_type, usage_source, usage_at, usage_events,
	viewing_seconds, viewing_bytes, egress_seconds, egress_seconds_additional_targets, egress_bytes)
VALUES ('acc_a', ub_test.id(1), ub_test.id(11), 30, '2024-05-03T10:00:00Z', 'credit', 'api', '2024-05-01T10:20:00Z', 0, 0, 0, 0, 0, 0);
INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at) VALUES ('acc_a', ub_test.id(1), 100, 'api', '2024-05-01T10:20:00Z');
INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_a', ub_test.id(21), 1000);
SELECT isnt((SELECT count(*) FROM usage_billing.verify()), 0::bigint, 'verify() tells of facts without an account');
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('acc_a', 'org_a');
SELECT is(ub_test.balance('acc_a'), 930::bigint, 'revert, usage, grant and account, loaded in this order, make the right balance');
SELECT is(usage_billing.total_debited(billing_id => 'acc_a'), 70::bigint, 'and the right debits');
SELECT is(ub_test.books(), '', 'and right books');

-- Accounts and projects.
SELECT is((a.org_id, a.is_default, a.credit_min, a.state, a.last_billed_at, a.metadata, a.created_at, a.updated_at)::text,
	('org_a', true, 0, 'active', NULL::timestamptz, '{}'::jsonb, now(), now())::text, 'an account that is inserted gets the defaults')
FROM usage_billing.billing_account a WHERE billing_id = 'acc_a';
COPY usage_billing.billing_account (billing_id, org_id, is_default, credit_min, metadata, created_at) FROM STDIN;
acc_b	org_b	t	0	{"k": 1}	2024-01-01 00:00:00+00
acc_b2	org_b	f	-10	{}	2024-01-01 00:00:00+00
\.
SELECT is((SELECT count(*) FROM usage_billing.billing_account), 3::bigint, 'accounts can be copied');
COPY usage_billing.billing_account (billing_id, org_id, is_default, credit_min, metadata, created_at) FROM STDIN;
acc_b	org_b	t	0	{"k": 1}	2024-01-01 00:00:00+00
acc_b2	org_b	f	-10	{}	2024-01-01 00:00:00+00
acc_e	org_e	t	0	{}	2024-01-01 00:00:00+00
\.
SELECT is((SELECT count(*) FROM usage_billing.billing_account), 4::bigint, 'accounts that are known are skipped, new ones are stored');
COPY usage_billing.project (project_id, org_id, created_at) FROM STDIN;
prj_a	org_a	2024-01-01 00:00:00+00
\.
COPY usage_billing.project (project_id, org_id, created_at) FROM STDIN;
prj_a	org_a	2024-01-01 00:00:00+00
prj_b	org_b	2024-01-01 00:00:00+00
\.
SELECT is((SELECT count(*) FROM usage_billing.project), 2::bigint, 'so are projects');
SELECT ub_test.fails($$INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('acc_a', 'org_b')$$, '23505', NULL,
	'an account with another organisation is a conflict');
SELECT ub_test.fails($$INSERT INTO usage_billing.project (project_id, org_id) VALUES ('prj_a', 'org_b')$$, '23505', NULL,
	'a project with another organisation is a conflict');
SELECT ub_test.fails($$INSERT INTO usage_billing.billing_account (billing_id, org_id, is_default) VALUES ('acc_z', 'org_a', true)$$, '23505', NULL,
	'a second default account is a conflict');
SELECT ub_test.fails(format('INSERT INTO usage_billing.billing_account (billing_id, org_id, metadata) VALUES (%L, %L, %L)', b, o, m), '22023', field, name)
FROM (VALUES
	('', 'org_z', '{}', 'billing_id', 'an empty billing_id'),
	(repeat('x', 256), 'org_z', '{}', 'billing_id', 'a billing_id of 256 bytes'),
	(repeat('é', 128), 'org_z', '{}', 'billing_id', 'a billing_id of 128 characters of two bytes'),
	('acc_z', '', '{}', 'org_id', 'an empty org_id'),
	('acc_z', repeat('x', 256), '{}', 'org_id', 'an org_id of 256 bytes'),
	('acc_z', 'org_z', '["mArKeR"]', 'metadata', 'account metadata that is no object'),
	('acc_z', 'org_z', format('{"k": "%s"}', repeat('x', 65528)), 'metadata', 'account metadata of 65,537 bytes')
) AS c (b, o, m, field, name);
SELECT ub_test.fails(format('INSERT INTO usage_billing.project (project_id, org_id) VALUES (%L, %L)', p, o), '22023', field, name)
FROM (VALUES
	('', 'org_z', 'project_id', 'an empty project_id'),
	(repeat('x', 256), 'org_z', 'project_id', 'a project_id of 256 bytes'),
	('prj_z', '', 'org_id', 'a project''s empty org_id'),
	('prj_z', repeat('x', 256), 'org_id', 'a project''s org_id of 256 bytes')
) AS c (p, o, field, name);
SELECT is(ub_test.rows($$UPDATE usage_billing.billing_account SET credit_min = -5, state = 'closed', last_billed_at = '2024-05-01T00:00:00Z',
	metadata = '{"a": 1}' WHERE billing_id = 'acc_e'$$), 1::bigint, 'the settings of an account may be changed');
SELECT is(usage_billing.account_balance(billing_id => 'acc_e') ->> 'available', '5', 'and count at once');
SELECT ub_test.fails($$UPDATE usage_billing.billing_account SET billing_id = 'acc_new' WHERE billing_id = 'acc_a'$$, 'UB004', NULL,
	'the id of an account with facts can''t be changed');
SELECT ub_test.fails($$UPDATE usage_billing.billing_account SET billing_id = 'acc_new' WHERE billing_id = 'acc_e'$$, 'UB004', NULL,
	'nor that of an account without');
SELECT ub_test.fails($$UPDATE usage_billing.billing_account SET org_id = 'org_new' WHERE billing_id = 'acc_e'$$, 'UB004', NULL,
	'nor the organisation of an account');
SELECT ub_test.fails($$DELETE FROM usage_billing.billing_account WHERE billing_id = 'acc_a'$$, 'UB004', NULL, 'an account with facts can''t be deleted');
SELECT ub_test.fails('DELETE FROM usage_billing.billing_account', 'UB004', NULL, 'not among others either');
SELECT ub_test.fails('TRUNCATE usage_billing.billing_account', 'UB004', NULL, 'nor by TRUNCATE');
SELECT is(ub_test.rows($$DELETE FROM usage_billing.billing_account WHERE billing_id = 'acc_e'$$), 1::bigint, 'an account without facts can be deleted');
SELECT is(ub_test.books(), '', 'the books are right');

-- Usage: what is stored of it.
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_b', ub_test.id(1), 3);
SELECT is((u.type, u.source, u.description, u.user_id, u.metadata, u.created_at, u.updated_at)::text,
	('credit', 'system', NULL::text, NULL::text, '{}'::jsonb, now(), now())::text, 'a usage that is inserted gets the defaults')
FROM usage_billing.usage u WHERE billing_id = 'acc_b' AND id = ub_test.id(1);
SELECT is(ub_test.balance('acc_b'), -3::bigint, 'and is posted whatever the balance');
COPY usage_billing.usage (billing_id, id, type, amount, source, description, user_id, metadata, created_at, updated_at) FROM STDIN;
acc_b	00000000-0000-4000-8000-000000000002	credit	5	API.Chat	Text	User-1	{"K": 1}	2024-05-01 10:59:59.999999+00	2024-06-01 00:00:00+00
acc_b	00000000-0000-4000-8000-000000000003	feature	7	IMAGES			{}	2024-05-01 11:00:00+00	\N
acc_b	00000000-0000-4000-8000-000000000004	credit	0		\N	\N	{}	2024-05-01 13:00:00+02	\N
acc_b	00000000-0000-4000-8000-000000000005	credit	1	\N	\N	\N	{}	\N	\N
\.
SELECT is((u.type, u.source, u.description, u.user_id, u.metadata, u.created_at, u.updated_at)::text, wanted, 'a copied usage is put in order: ' || n)
FROM (VALUES
	(2, ('credit', 'api.chat', 'Text', 'User-1', '{"K": 1}'::jsonb, '2024-05-01 10:59:59.999999+00'::timestamptz, '2024-06-01 00:00:00+00'::timestamptz)::text),
	(3, ('feature', 'images', NULL::text, NULL::text, '{}'::jsonb, '2024-05-01 11:00:00+00'::timestamptz, now())::text),
	(4, ('credit', 'system', NULL::text, NULL::text, '{}'::jsonb, '2024-05-01 11:00:00+00'::timestamptz, now())::text),
	(5, ('credit', 'system', NULL::text, NULL::text, '{}'::jsonb, now(), now())::text)
) AS c (n, wanted) JOIN usage_billing.usage u ON u.billing_id = 'acc_b' AND u.id = ub_test.id(n) ORDER BY n;
SELECT is(ub_test.balance('acc_b'), -9::bigint, 'only credits are posted to the balance');
SELECT is((SELECT string_agg(format('%s %s %s %s %s', to_char(hour, 'YYYY-MM-DD HH24:MI'), source, type, amount, events), ', ' ORDER BY hour, source)
	FROM (SELECT hour, source, type, sum(amount) AS amount, sum(events) AS events FROM ub_test.hour_derived
		WHERE billing_id = 'acc_b' AND hour < '2024-06-01' GROUP BY 1, 2, 3) h),
	'2024-05-01 10:00 api.chat credit 5 1, 2024-05-01 11:00 images feature 7 1, 2024-05-01 11:00 system credit 0 1',
	'each usage counts in its own hour');
SELECT is(ub_test.books(), '', 'the books are right after COPY');

-- Usage: again, the same and not the same.
COPY usage_billing.usage (billing_id, id, type, amount, source, description, user_id, metadata, created_at) FROM STDIN;
acc_b	00000000-0000-4000-8000-000000000002	credit	5	API.CHAT	Text	User-1	{"K": 1.0}	2024-05-01 12:59:59.999999+02
acc_b	00000000-0000-4000-8000-000000000003	feature	7	images	\N	\N	{}	\N
acc_b	00000000-0000-4000-8000-000000000006	credit	1	\N	\N	\N	{}	\N
acc_b	00000000-0000-4000-8000-000000000006	credit	1	system			{}	\N
\.
SELECT is((SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'acc_b'), 6::bigint, 'COPY skips what is there, and the second of two equal rows');
SELECT is(ub_test.balance('acc_b'), -10::bigint, 'and posts the new row once');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, amount, updated_at) VALUES ('acc_b', ub_test.id(1), 3, '2020-01-01T00:00:00Z')$$),
	0::bigint, 'INSERT says that it stored nothing; another updated_at is the same payload');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_b', ub_test.id(1), 3), ('acc_b', ub_test.id(7), 2),
	('acc_b', ub_test.id(7), 2)$$), 1::bigint, 'INSERT says how many it stored');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_a', ub_test.id(7), 9)$$), 1::bigint,
	'an id is a key within its account');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(7), 'amount', 9)), billing_id => 'acc_a') -> 'duplicates', '1',
	'create_usage knows what INSERT stored');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(8), 'amount', 9, 'source', 'Api', 'user_id', '')),
	billing_id => 'acc_a') -> 'created', '1', 'create_usage stores a usage');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, amount, source) VALUES ('acc_a', ub_test.id(8), 9, 'API')$$), 0::bigint,
	'and INSERT knows it');
SELECT ub_test.fails(format($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, description, user_id, metadata, created_at)
	VALUES ('acc_b', ub_test.id(90), 'credit', 1, NULL, NULL, NULL, '{}', NULL), ('acc_b', ub_test.id(2), %s)$$, v), '23505', field,
	'known usage by INSERT: other ' || field)
FROM (VALUES
	('type', $$'feature', 5, 'api.chat', 'Text', 'User-1', '{"K": 1}', NULL$$),
	('amount', $$'credit', 98765, 'api.chat', 'Text', 'User-1', '{"K": 1}', NULL$$),
	('source', $$'credit', 5, 'mArKeR', 'Text', 'User-1', '{"K": 1}', NULL$$),
	('description', $$'credit', 5, 'api.chat', 'mArKeR', 'User-1', '{"K": 1}', NULL$$),
	('user_id', $$'credit', 5, 'api.chat', 'Text', 'mArKeR', '{"K": 1}', NULL$$),
	('metadata', $$'credit', 5, 'api.chat', 'Text', 'User-1', '{"K": 2}', NULL$$),
	('created_at', $$'credit', 5, 'api.chat', 'Text', 'User-1', '{"K": 1}', '2024-05-01 11:00:00+00'$$)
) AS c (field, v);
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_b', ub_test.id(90), 1), ('acc_b', ub_test.id(90), 2)$$,
	'23505', 'amount', 'one id with two payloads in one statement');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_b', ub_test.id(1), 3) ON CONFLICT (billing_id, id)
	DO UPDATE SET amount = 98765$$, 'UB004', NULL, 'ON CONFLICT DO UPDATE is an update');

-- Limits.
SELECT ub_test.fails(format('INSERT INTO usage_billing.%I (billing_id, %s, amount, %I) VALUES (%L, ub_test.id(%s), 1, %L)',
		fact, CASE fact WHEN 'usage_revert' THEN 'usage_id' ELSE 'id' END, field, 'acc_b', CASE fact WHEN 'usage_revert' THEN 2 ELSE 90 END, v),
	'22023', field, format('%s.%s: %s', fact, field, name))
FROM (VALUES
	('user_id', '256 bytes', repeat('x', 256)),
	('user_id', '128 characters of two bytes', repeat('é', 128)),
	('source', '256 bytes', repeat('x', 256)),
	('description', '4,097 bytes', repeat('x', 4097)),
	('description', '2,049 characters of two bytes', repeat('é', 2049)),
	('metadata', 'an array', '["mArKeR"]'),
	('metadata', 'a string', '"mArKeR"'),
	('metadata', 'a number', '98765'),
	('metadata', '65,537 bytes', format('{"k": "%s"}', repeat('x', 65528)))
) AS c (field, name, v)
CROSS JOIN (VALUES ('usage'), ('credit_grant'), ('usage_revert')) AS f (fact)
WHERE NOT (fact = 'usage_revert' AND field = 'source');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, usage_type, usage_source, usage_at, usage_events)
	VALUES ('acc_b', ub_test.id(90), 1, 'credit', repeat('x', 256), now(), 1)$$, '22023', 'usage_source', 'a revert without its usage: source of 256 bytes');
SELECT ub_test.fails(format('INSERT INTO usage_billing.%s VALUES (%s)', t, v), '22023', 'amount', format('%s: amount %s', t, v))
FROM (VALUES
	('usage (billing_id, id, amount)', $$'acc_b', ub_test.id(90), -98765$$),
	('credit_grant (billing_id, id, amount)', $$'acc_b', ub_test.id(90), 0$$),
	('credit_grant (billing_id, id, amount)', $$'acc_b', ub_test.id(90), -98765$$),
	('usage_revert (billing_id, usage_id, amount)', $$'acc_b', ub_test.id(2), 0$$),
	('usage_revert (billing_id, usage_id, amount)', $$'acc_b', ub_test.id(2), -98765$$)
) AS c (t, v);
INSERT INTO usage_billing.usage (billing_id, id, amount, source, user_id, description, metadata)
VALUES ('acc_b', ub_test.id(9), 0, repeat('x', 255), repeat('é', 127), repeat('é', 2048), jsonb_build_object('k', repeat('x', 65527)));
SELECT is((octet_length(u.source), octet_length(u.user_id), octet_length(u.description), octet_length(u.metadata::text))::text, '(255,254,4096,65536)',
	'values as long as they may be are stored whole') FROM usage_billing.usage u WHERE billing_id = 'acc_b' AND id = ub_test.id(9);

-- Accounts that are not there.
SELECT ub_test.fails($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_b', ub_test.id(90), 1), ('mArKeR', ub_test.id(90), 1)$$,
	'23503', 'mArKeR', 'a usage of an unknown account');
SELECT ub_test.fails($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('mArKeR', ub_test.id(90), 1)$$, '23503', 'mArKeR',
	'a grant to an unknown account');
CREATE FUNCTION ub_test.revert_by_itself(account text, usage_n bigint, n bigint, amount bigint) RETURNS text
LANGUAGE sql AS $$
	SELECT format('INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, usage_type, usage_source, usage_at, usage_events,
		viewing_seconds, viewing_bytes, egress_seconds, egress_seconds_additional_targets, egress_bytes)
		VALUES (%L, ub_test.id(%s), ub_test.id(%s), %s, ''credit'', ''api'', ''2024-05-01T10:20:00Z'', 0, 0, 0, 0, 0, 0)', account, usage_n, n, amount)
$$;
SELECT ub_test.fails(ub_test.revert_by_itself('mArKeR', 90, 91, 1), '23503', 'mArKeR', 'a revert of an unknown account');
SET LOCAL usage_billing.restoring = on;
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('acc_new', ub_test.id(1), 8)$$), 1::bigint,
	'with usage_billing.restoring a usage is taken before its account');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('acc_new', ub_test.id(2), 20)$$), 1::bigint, 'so is a grant');
SELECT is(ub_test.rows(ub_test.revert_by_itself('acc_new', 99, 3, 2)), 1::bigint, 'and so is a revert');
SET LOCAL usage_billing.restoring = off;
SELECT isnt((SELECT count(*) FROM usage_billing.verify() WHERE key LIKE '%acc_new%'), 0::bigint, 'verify() tells of them');
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('acc_new', 'org_new');
SELECT is(ub_test.balance('acc_new'), 14::bigint, 'they count as soon as the account is there');
INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at) VALUES ('acc_new', ub_test.id(99), 3, 'api', '2024-05-01T10:20:00Z');
SELECT is(ub_test.balance('acc_new'), 11::bigint, 'and so does the usage that was reverted before it came');
SELECT is(ub_test.books(), '', 'and the books are right');

-- Facts never change.
SELECT ub_test.fails(format(call, fact), 'UB004', NULL, format(call, fact))
FROM (VALUES ('usage'), ('credit_grant'), ('usage_revert'), ('usage_archive')) AS facts (fact)
CROSS JOIN (VALUES
	('UPDATE usage_billing.%s SET amount = amount + 1'),
	('UPDATE usage_billing.%s SET created_at = NULL WHERE false'),
	('DELETE FROM usage_billing.%s'),
	('DELETE FROM usage_billing.%s WHERE billing_id = ''nobody'''),
	('TRUNCATE usage_billing.%s'),
	('TRUNCATE usage_billing.project, usage_billing.%s CASCADE')
) AS calls (call);

-- Grants.
COPY usage_billing.credit_grant (billing_id, id, amount, source, description, user_id, metadata, created_at) FROM STDIN;
acc_b	00000000-0000-4000-8000-000000000030	100	shop	ten years	u1	{"order": 7}	2024-05-01 10:00:00+00
acc_b	00000000-0000-4000-8000-000000000031	50				{}	\N
acc_b	00000000-0000-4000-8000-000000000031	50	system.buy	\N	\N	{}	\N
\.
SELECT is((g.amount, g.source, g.description, g.user_id, g.metadata, g.created_at)::text,
	(50, 'system.buy', NULL::text, NULL::text, '{}'::jsonb, now())::text, 'a copied grant''s empty texts are none')
FROM usage_billing.credit_grant g WHERE billing_id = 'acc_b' AND id = ub_test.id(31);
SELECT is(ub_test.balance('acc_b'), 138::bigint, 'grants that are copied raise the balance, each once');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.credit_grant (billing_id, id, amount, source, description, user_id, metadata)
	VALUES ('acc_b', ub_test.id(30), 100, 'shop', 'ten years', 'u1', '{"order": 7}')$$), 0::bigint, 'a known grant is skipped');
SELECT is(usage_billing.grant_credits(ub_test.id(31), 50, billing_id => 'acc_b') -> 'duplicate', 'true', 'grant_credits knows it too');
SELECT ub_test.fails(format('INSERT INTO usage_billing.credit_grant (billing_id, id, amount, source, description, user_id, metadata, created_at)
	VALUES (''acc_b'', ub_test.id(30), %s)', v), '23505', field, 'known grant by INSERT: other ' || field)
FROM (VALUES
	('amount', $$98765, 'shop', 'ten years', 'u1', '{"order": 7}', NULL$$),
	('source', $$100, 'mArKeR', 'ten years', 'u1', '{"order": 7}', NULL$$),
	('description', $$100, 'shop', 'mArKeR', 'u1', '{"order": 7}', NULL$$),
	('user_id', $$100, 'shop', 'ten years', 'mArKeR', '{"order": 7}', NULL$$),
	('metadata', $$100, 'shop', 'ten years', 'u1', '{"order": 98765}', NULL$$),
	('created_at', $$100, 'shop', 'ten years', 'u1', '{"order": 7}', '2024-05-01 10:00:01+00'$$)
) AS c (field, v);
SELECT is(ub_test.books(), '', 'the books are right after grants');

-- Reverts: a usage of 5 credits is taken back in two parts.
CREATE FUNCTION ub_test.revert_row(n bigint, no int, account text DEFAULT 'acc_b') RETURNS usage_billing.usage_revert
LANGUAGE sql AS $$ SELECT r FROM usage_billing.usage_revert r WHERE billing_id = account AND usage_id = ub_test.id(n) AND revert_no = no $$;
CREATE FUNCTION ub_test.revert_id_undone() RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
	made uuid;
BEGIN
	BEGIN
		INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(2), 4) RETURNING id INTO made;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RETURN made;
	END;
END $$;
CREATE TEMP TABLE undone AS SELECT ub_test.revert_id_undone() AS id;
SELECT is((SELECT count(*) FROM usage_billing.usage_revert WHERE billing_id = 'acc_b'), 0::bigint, 'a revert that is undone is gone');
SELECT is(ub_test.balance('acc_b'), 138::bigint, 'and so is what it gave back');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(2), 2);
SELECT is(to_jsonb(ub_test.revert_row(2, 1)) - 'id', to_jsonb(r), 'a revert that is inserted is completed from its usage')
FROM (SELECT 'acc_b' AS billing_id, ub_test.id(2) AS usage_id, 1 AS revert_no, 2 AS amount, NULL AS description, NULL AS user_id, '{}'::jsonb AS metadata,
	now() AS created_at, 'credit' AS usage_type, 'api.chat' AS usage_source, '2024-05-01 10:59:59.999999+00'::timestamptz AS usage_at,
	0 AS usage_events, 0 AS viewing_seconds, 0 AS viewing_bytes, 0 AS egress_seconds, 0 AS egress_seconds_additional_targets, 0 AS egress_bytes) r;
SELECT is((ub_test.revert_row(2, 1)).id, (SELECT id FROM undone), 'its id depends on its key only');
SELECT is(ub_test.balance('acc_b'), 140::bigint, 'it gives back its amount');
SELECT is(ub_test.books(), '', 'in the hour of the usage');
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(2), 2)$$), 0::bigint,
	'the same revert again is skipped');
SELECT is(ub_test.balance('acc_b'), 140::bigint, 'and gives back nothing');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(2), 1)$$, '23505', 'amount',
	'the same revert with another amount');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, description) VALUES ('acc_b', ub_test.id(2), 2, 'mArKeR')$$,
	'23505', 'description', 'the same revert with another description');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, amount) VALUES ('acc_b', ub_test.id(2), 2, 4)$$,
	'UB002', NULL, 'a second revert of more than is left');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, amount) VALUES ('acc_b', ub_test.id(2), 2, 2),
	('acc_b', ub_test.id(2), 3, 2)$$, 'UB002', NULL, 'two reverts in one statement of more than is left');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, id, amount, description, user_id, metadata, created_at)
VALUES ('acc_b', ub_test.id(2), 2, ub_test.id(42), 3, '', 'u1', '{"k": 1}', '2024-05-09T12:00:00Z');
SELECT is((r.id, r.revert_no, r.amount, r.description, r.user_id, r.metadata, r.created_at, r.usage_events)::text,
	(ub_test.id(42), 2, 3, NULL::text, 'u1', '{"k": 1}'::jsonb, '2024-05-09 12:00:00+00'::timestamptz, 1)::text,
	'a second revert by INSERT is no matter of revert_once, and takes the event back with the rest') FROM ub_test.revert_row(2, 2) r;
SELECT is((SELECT (sum(amount), sum(events))::text FROM ub_test.hour_derived WHERE billing_id = 'acc_b' AND hour = '2024-05-01 10:00:00+00'), '(0,0)',
	'nothing of the usage is left in its hour');
SELECT is(ub_test.balance('acc_b'), 143::bigint, 'all of it is back');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, amount) VALUES ('acc_b', ub_test.id(2), 3, 1)$$,
	'UB002', NULL, 'a third revert finds nothing left');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount) VALUES ('acc_b', ub_test.id(1), ub_test.id(42), 1)$$,
	'23505', NULL, 'a revert''s id can''t be used for another usage');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(1), 4)$$, 'UB002', NULL,
	'a revert of more than the usage');
SELECT ub_test.fails($$INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', '98765000-0000-4000-8000-000000000000', 4)$$,
	'23503', '98765000', 'a revert without its columns of a usage that is absent');
SELECT ub_test.fails($$SELECT usage_billing.revert_usage(ub_test.id(2), billing_id => 'acc_b')$$, '23505', NULL, 'revert_usage knows what INSERT reverted');

-- A revert may come before its usage.
SELECT is(ub_test.rows(ub_test.revert_by_itself('acc_b', 50, 51, 4)), 1::bigint, 'a revert with its columns is taken without the usage');
SELECT is(ub_test.balance('acc_b'), 147::bigint, 'and posted');
INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at) VALUES ('acc_b', ub_test.id(50), 10, 'api', '2024-05-01T10:20:00Z');
SELECT is(ub_test.balance('acc_b'), 137::bigint, 'the usage is posted when it comes');
SELECT is(ub_test.books(), '', 'and the books are right');

-- Deliveries.
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at) VALUES ('acc_b', ub_test.id(60), 'feature', 4, 'VOD_streams',
	'{"viewing_seconds": 10, "viewing_bytes": "7", "egress_seconds": 0, "egress_seconds_additional_targets": 3, "egress_bytes": "9223372036854775807", "x": "y"}',
	'2024-05-02T08:30:00Z');
CREATE FUNCTION ub_test.delivered() RETURNS text
LANGUAGE sql AS $$ SELECT format('%s/%s: %s %s %s %s %s', sum(amount), sum(events), sum(viewing_seconds), sum(viewing_bytes), sum(egress_seconds),
	sum(egress_seconds_additional_targets), sum(egress_bytes)) FROM ub_test.hour_derived WHERE billing_id = 'acc_b' AND hour = '2024-05-02 08:00:00+00' $$;
SELECT is(ub_test.delivered(), '4/1: 10 7 0 3 9223372036854775807', 'measurements are counted in their hour');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('acc_b', ub_test.id(60), 1);
SELECT is(ub_test.delivered(), '3/1: 8 6 0 3 6917529027641081856', 'a partial revert takes them back in proportion, rounded down');
INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, amount) VALUES ('acc_b', ub_test.id(60), 2, 2), ('acc_b', ub_test.id(60), 3, 1);
SELECT is(ub_test.delivered(), '0/0: 0 0 0 0 0', 'and the last one all that is left');
SELECT is((r.usage_type, r.usage_source, r.usage_events, r.viewing_seconds, r.viewing_bytes, r.egress_seconds_additional_targets)::text,
	'(feature,vod_streams,0,5,4,2)', 'each revert says what it took back') FROM ub_test.revert_row(60, 2) r;
SELECT is(ub_test.balance('acc_b'), 137::bigint, 'no delivery touches the balance');
SELECT ub_test.fails(format('INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata) VALUES (%L, ub_test.id(90), %L, 1, %L, %L)',
	'acc_b', 'feature', source, format('{"%s": %s}', field, v)), '22023', field, format('measurement %s: %s', field, v))
FROM (VALUES
	('vod_streams', 'viewing_seconds', '-1'),
	('transcoders', 'viewing_bytes', '1.5'),
	('VOD_STREAMS', 'egress_seconds', '"mArKeR"'),
	('transcoders', 'egress_seconds_additional_targets', 'true'),
	('transcoders', 'egress_bytes', '9223372036854775808'),
	('transcoders', 'egress_bytes', '"-1"'),
	('vod_streams', 'viewing_bytes', '[1]'),
	('vod_streams', 'viewing_bytes', '{}')
) AS c (source, field, v);
SELECT is(ub_test.rows($$INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata) VALUES
	('acc_b', ub_test.id(61), 'feature', 1, 'images', '{"viewing_seconds": -1}'), ('acc_b', ub_test.id(62), 'credit', 0, 'vod_streams', '{"egress_bytes": "x"}')$$),
	2::bigint, 'other usages may say anything');

-- The session's zone is no matter.
SET LOCAL TimeZone = 'Asia/Kathmandu';
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, created_at) VALUES
	('acc_b', ub_test.id(70), 'feature', 1, 'zone', '2024-05-03T10:14:59Z'), ('acc_b', ub_test.id(71), 'feature', 1, 'zone', '2024-05-03T10:15:01Z');
SET LOCAL TimeZone = 'UTC';
SELECT is((SELECT (count(DISTINCT hour), min(hour), sum(amount))::text FROM ub_test.hour_derived WHERE source = 'zone'),
	(1, '2024-05-03 10:00:00+00'::timestamptz, 2)::text, 'hours are UTC in any session');

-- What INSERT took counts for the next create_usage.
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(80), 'amount', 137)), billing_id => 'acc_b'),
	'{"created": 1, "duplicates": 0, "balance": 0}', 'create_usage may spend what grants by COPY gave');
SELECT ub_test.fails($$SELECT ub_test.use('acc_b', 'id', ub_test.id(81)::text, 'amount', '1')$$, 'UB001', NULL, 'and not more');
-- A trigger function that is called as another trigger than the one it is.
CREATE TABLE ub_test.stranger AS SELECT * FROM usage_billing.usage LIMIT 1;
CREATE FUNCTION ub_test.misused(f regprocedure, target text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	form text;
	action text;
	got record;
	wrong text := '';
BEGIN
	FOR form, action IN VALUES
		('BEFORE INSERT ON %s FOR EACH ROW', 'INSERT INTO %s SELECT * FROM %1$s LIMIT 1'),
		('AFTER INSERT ON %s FOR EACH ROW', 'INSERT INTO %s SELECT * FROM %1$s LIMIT 1'),
		('BEFORE INSERT ON %s FOR EACH STATEMENT', 'INSERT INTO %s SELECT * FROM %1$s LIMIT 1'),
		('AFTER INSERT ON %s FOR EACH STATEMENT', 'INSERT INTO %s SELECT * FROM %1$s LIMIT 1'),
		('AFTER INSERT ON %s REFERENCING NEW TABLE AS stored FOR EACH STATEMENT', 'INSERT INTO %s SELECT * FROM %1$s LIMIT 1'),
		('BEFORE UPDATE ON %s FOR EACH ROW', 'UPDATE %s SET amount = amount'),
		('BEFORE UPDATE ON %s FOR EACH STATEMENT', 'UPDATE %s SET amount = amount'),
		('BEFORE DELETE ON %s FOR EACH ROW', 'DELETE FROM %s'),
		('AFTER DELETE ON %s REFERENCING OLD TABLE AS removed FOR EACH STATEMENT', 'DELETE FROM %s'),
		('BEFORE TRUNCATE ON %s FOR EACH STATEMENT', 'TRUNCATE %s')
	LOOP
		SELECT * INTO got FROM ub_test.try(format('CREATE TRIGGER a_misused ' || form || ' EXECUTE FUNCTION %s; ', target, f) || format(action, target));
		IF got.code <> '39P01' AND NOT (f = 'usage_billing.fact_is_append_only()'::regprocedure AND got.code = 'UB004') THEN
			wrong := wrong || format('%s: %s %s; ', form, got.code, got.message);
		END IF;
	END LOOP;
	RETURN wrong;
END $$;
SELECT is(ub_test.misused(oid::regprocedure, 'ub_test.stranger'), '', format('%s on another table, or at another time, is an error', oid::regprocedure))
FROM pg_proc WHERE pronamespace = 'usage_billing'::regnamespace AND prorettype = 'trigger'::regtype AND prosrc ~ '^ub_(usage|archive|grant|revert|fact|account|project)_'
ORDER BY proname;
SELECT is((ub_test.try(format('CREATE TRIGGER a_misused %s EXECUTE FUNCTION usage_billing.%s(); INSERT INTO usage_billing.%s (billing_id, id, amount)
	VALUES (%L, ub_test.id(95), 1)', form, f, fact, 'acc_b'))).code, '39P01', format('%s() on %s is an error', f, fact))
FROM (VALUES
	('usage_before_insert', 'credit_grant', 'BEFORE INSERT ON usage_billing.credit_grant FOR EACH ROW'),
	('grant_before_insert', 'usage', 'BEFORE INSERT ON usage_billing.usage FOR EACH ROW'),
	('usage_after_insert', 'credit_grant', 'AFTER INSERT ON usage_billing.credit_grant REFERENCING NEW TABLE AS stored FOR EACH STATEMENT'),
	('grant_after_insert', 'usage', 'AFTER INSERT ON usage_billing.usage REFERENCING NEW TABLE AS stored FOR EACH STATEMENT'),
	('usage_after_insert', 'usage', 'AFTER INSERT ON usage_billing.usage FOR EACH ROW'),
	('archive_before_insert', 'usage', 'BEFORE INSERT ON usage_billing.usage FOR EACH ROW'),
	('archive_after_insert', 'usage', 'AFTER INSERT ON usage_billing.usage REFERENCING NEW TABLE AS stored FOR EACH STATEMENT'),
	('usage_before_insert', 'usage', 'BEFORE INSERT ON usage_billing.usage FOR EACH STATEMENT')
) AS c (f, fact, form);

SELECT is(ub_test.books(), '', 'the books are right in the end');

SELECT * FROM finish();
ROLLBACK;
