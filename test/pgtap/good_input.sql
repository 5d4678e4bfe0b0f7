-- What create_usage accepts, what it stores of it, and what counts as the same.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE FUNCTION ub_test.result(created int, duplicates int, balance bigint) RETURNS jsonb
LANGUAGE sql AS $$ SELECT jsonb_build_object('created', created, 'duplicates', duplicates, 'balance', balance) $$;

-- create_usage from a text with @07 for uuids.
CREATE FUNCTION ub_test.create(usages text, account text DEFAULT 'acc_a') RETURNS jsonb
LANGUAGE sql AS $$ SELECT usage_billing.create_usage(ub_test.expand(usages)::jsonb, billing_id => account) $$;

CREATE FUNCTION ub_test.stored(n bigint, account text DEFAULT 'acc_a') RETURNS usage_billing.usage
LANGUAGE sql AS $$ SELECT u FROM usage_billing.usage u WHERE billing_id = account AND id = ub_test.id(n) $$;

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a');
	PERFORM usage_billing.create_billing_account(org_id => 'org_b', billing_id => 'acc_b');
	PERFORM usage_billing.create_project(project_id => 'prj_a', org_id => 'org_a');
	PERFORM usage_billing.grant_credits(ub_test.id(1), 1000, billing_id => 'acc_a');
END $$;

-- Accounts and grants.
SELECT is((a.billing_id, a.org_id, a.is_default, a.credit_min, a.state, a.last_billed_at, a.metadata)::text,
	'(acc_a,org_a,t,0,active,,{})', 'an organisation''s first account is its default, active, and must not be overdrawn')
FROM usage_billing.billing_account a WHERE billing_id = 'acc_a';
SELECT is((usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a2')).is_default, false,
	'the second account is no default');
SELECT is(usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a')::text,
	(SELECT a::text FROM usage_billing.billing_account a WHERE billing_id = 'acc_a'), 'the same account again returns what is there');
SELECT is((SELECT count(*) FROM usage_billing.billing_account WHERE org_id = 'org_a'), 2::bigint, 'and makes no other');
SELECT isnt((usage_billing.create_billing_account(org_id => 'org_c')).billing_id, NULL, 'an account without an id gets one');
SELECT matches((SELECT billing_id FROM usage_billing.billing_account WHERE org_id = 'org_c'), '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$',
	'the id of such an account is a uuid');
SELECT is((usage_billing.create_billing_account(org_id => 'org_c', billing_id => '')).is_default, false,
	'an empty billing_id is none: another account is made');
SELECT is(usage_billing.create_project(project_id => 'prj_a', org_id => 'org_a')::text,
	(SELECT p::text FROM usage_billing.project p WHERE project_id = 'prj_a'), 'the same project again returns what is there');
SELECT is((usage_billing.create_billing_account(org_id => repeat('o', 255), billing_id => repeat('b', 255))).billing_id, repeat('b', 255),
	'ids of 255 bytes are accepted');
SELECT is(usage_billing.grant_credits(ub_test.id(2), 5, billing_id => 'acc_b', source => 'shop', description => 'ten years', user_id => 'u1',
	metadata => '{"order": 7}'), jsonb_build_object('id', ub_test.id(2), 'amount', 5, 'balance', 5, 'duplicate', false), 'a grant answers with the new balance');
SELECT is((g.source, g.description, g.user_id, g.metadata, g.created_at)::text, ('shop', 'ten years', 'u1', '{"order": 7}'::jsonb, now())::text,
	'a grant is stored as it came') FROM usage_billing.credit_grant g WHERE billing_id = 'acc_b';
SELECT is(usage_billing.grant_credits(ub_test.id(2), 5, billing_id => 'acc_b', source => 'shop', description => 'ten years', user_id => 'u1',
	metadata => '{"order": 7.0}'), jsonb_build_object('id', ub_test.id(2), 'amount', 5, 'balance', 5, 'duplicate', true), 'a grant again is a duplicate');
SELECT is(usage_billing.grant_credits(ub_test.id(3), 5, billing_id => 'acc_b', source => '', description => '', user_id => '') ->> 'balance', '10',
	'a grant with empty texts is accepted');
SELECT is((g.source, g.description, g.user_id, g.metadata)::text, '(system.buy,,,{})', 'its empty texts are none')
FROM usage_billing.credit_grant g WHERE id = ub_test.id(3);
SELECT is(usage_billing.grant_credits(ub_test.id(3), 5, billing_id => 'acc_b') -> 'duplicate', 'true', 'the same grant without the texts is a duplicate');
SELECT is(usage_billing.grant_credits(ub_test.id(1), 7, billing_id => 'acc_b') -> 'duplicate', 'false', 'an id is a key within its account (grants)');

-- Account choice.
SELECT is(usage_billing.account_balance(billing_id => 'acc_a'),
	'{"billing_id": "acc_a", "org_id": "org_a", "balance": 1000, "credit_min": 0, "available": 1000}', 'the balance by account');
SELECT is(usage_billing.account_balance(org_id => 'org_a'), usage_billing.account_balance(billing_id => 'acc_a'), 'the balance by organisation');
SELECT is(usage_billing.account_balance(project_id => 'prj_a'), usage_billing.account_balance(billing_id => 'acc_a'), 'the balance by project');
SELECT is(usage_billing.account_balance(billing_id => 'acc_a2', org_id => 'org_a') ->> 'billing_id', 'acc_a2', 'an account beside its organisation');
SELECT is(usage_billing.account_balance(billing_id => 'acc_a2', project_id => 'prj_a') ->> 'billing_id', 'acc_a2', 'an account beside its project');
SELECT is(usage_billing.account_balance(billing_id => 'acc_a', org_id => '', project_id => '') ->> 'billing_id', 'acc_a', 'empty texts choose nothing');
SELECT is(usage_billing.account_balance(billing_id => '', org_id => 'org_a') ->> 'billing_id', 'acc_a', 'an empty account chooses nothing');

-- Empty and small calls.
SELECT is(usage_billing.create_usage('[]', billing_id => 'acc_a'), ub_test.result(0, 0, 1000), 'an empty array is fine');
SELECT is(usage_billing.create_usage('[]', org_id => 'org_a'), ub_test.result(0, 0, 1000), 'by organisation');
SELECT is(usage_billing.create_usage('[]', project_id => 'prj_a'), ub_test.result(0, 0, 1000), 'by project');

-- Numbers.
SELECT is(ub_test.create('[{"id": "@01", "amount": 20}]'), ub_test.result(1, 0, 980), 'amount 20');
SELECT is(ub_test.create('[{"id": "@02", "amount": 20.0}]'), ub_test.result(1, 0, 960), 'amount 20.0');
SELECT is(ub_test.create('[{"id": "@03", "amount": 2e1}]'), ub_test.result(1, 0, 940), 'amount 2e1');
SELECT is(ub_test.create('[{"id": "@04", "amount": "20"}]'), ub_test.result(1, 0, 920), 'amount "20"');
SELECT is(ub_test.create('[{"id": "@05", "amount": 200e-1}]'), ub_test.result(1, 0, 900), 'amount 200e-1');
SELECT is(ub_test.create('[{"id": "@06", "amount": 0}]'), ub_test.result(1, 0, 900), 'amount 0');
SELECT is(ub_test.create('[{"id": "@07", "amount": "0"}]'), ub_test.result(1, 0, 900), 'amount "0"');
SELECT is((SELECT array_agg(amount ORDER BY id) FROM usage_billing.usage WHERE billing_id = 'acc_a'), '{20,20,20,20,20,0,0}'::bigint[],
	'all are stored as the number that they are');
SELECT is(ub_test.create('[{"id": "@01", "amount": "20"}, {"id": "@02", "amount": 2e1}, {"id": "@03", "amount": 20.000}]'),
	ub_test.result(0, 3, 900), 'one number in another form is the same payload');
SELECT is(ub_test.create('[{"id": "@08", "amount": 9223372036854775807, "type": "feature"}]'), ub_test.result(1, 0, 900), 'amount 2^63-1 as a number');
SELECT is(ub_test.create('[{"id": "@09", "amount": "9223372036854775807", "type": "feature", "source": "other"}]'), ub_test.result(1, 0, 900),
	'amount 2^63-1 as a string');
SELECT is(ub_test.create('[{"id": "@08", "amount": 9223372036854775806, "type": "feature"}]', 'acc_a2'), ub_test.result(1, 0, 0),
	'an id is a key within its account (usages)');
SELECT is((ub_test.stored(8)).amount - (ub_test.stored(8, 'acc_a2')).amount, 1::bigint, 'no digit of a large number is lost');

-- Null, empty and left out.
SELECT is(ub_test.create('[{"id": "@10", "amount": 1, "type": null, "source": null, "description": null, "user_id": null,
	"metadata": null, "customer_id": null, "created_at": null, "updated_at": null}]'), ub_test.result(1, 0, 899), 'null for every optional key');
SELECT is(ub_test.create('[{"id": "@11", "amount": 1, "type": "", "source": "", "description": "", "user_id": "", "customer_id": ""}]'),
	ub_test.result(1, 0, 898), 'an empty string for every optional text');
SELECT is(ub_test.create('[{"id": "@12", "amount": 1}]'), ub_test.result(1, 0, 897), 'no optional key');
SELECT is((u.type, u.source, u.description, u.user_id, u.metadata, u.created_at, u.updated_at)::text,
	('credit', 'system', NULL::text, NULL::text, '{}'::jsonb, now(), now())::text, 'usage ' || right(u.id::text, 2) || ' has the defaults')
FROM usage_billing.usage u WHERE billing_id = 'acc_a' AND id IN (ub_test.id(10), ub_test.id(11), ub_test.id(12)) ORDER BY id;
SELECT is(ub_test.create('[{"id": "@10", "amount": 1}, {"id": "@11", "amount": 1, "user_id": null}, {"id": "@12", "amount": 1, "type": "", "source": ""}]'),
	ub_test.result(0, 3, 897), 'null, empty and left out are the same payload');
SELECT is(ub_test.create('[{"id": "@10", "amount": 1, "type": "credit", "source": "system", "metadata": {}}]'), ub_test.result(0, 1, 897),
	'the defaults said aloud are the same payload');

-- Texts.
SELECT is(ub_test.create('[{"id": "@13", "amount": 1, "type": "credit", "source": "API.Chat-V2", "description": "Ein Wort, größer",
	"user_id": "User-1", "metadata": {"Model": "M", "n": [1, {"a": null}]}, "customer_id": "acc_a", "updated_at": "2001-01-01T00:00:00Z"}]'),
	ub_test.result(1, 0, 896), 'every key at once');
SELECT is((u.type, u.source, u.description, u.user_id, u.metadata)::text,
	('credit', 'api.chat-v2', 'Ein Wort, größer', 'User-1', '{"Model": "M", "n": [1, {"a": null}]}'::jsonb)::text,
	'only the source is put into lower case') FROM ub_test.stored(13) u;
SELECT is((ub_test.stored(13)).updated_at, now(), 'updated_at is ignored');
SELECT is(ub_test.create('[{"id": "@13", "amount": 1, "source": "api.CHAT-v2", "description": "Ein Wort, größer",
	"user_id": "User-1", "metadata": {"n": [1.0, {"a": null}], "Model": "M"}, "updated_at": "2002-01-01T00:00:00Z"}]'),
	ub_test.result(0, 1, 896), 'another case of the source, order of keys and updated_at are the same payload');
SELECT is(ub_test.create('[{"id": "0000000A-0000-4000-8000-00000000000B", "amount": 1}]'), ub_test.result(1, 0, 895), 'an id in upper case');
SELECT is(ub_test.create('[{"id": "0000000a-0000-4000-8000-00000000000b", "amount": 1}]'), ub_test.result(0, 1, 895), 'is the same id in lower case');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(14), 'amount', 1,
	'source', repeat('x', 255), 'user_id', repeat('é', 127), 'description', repeat('é', 2048),
	'metadata', jsonb_build_object('k', repeat('x', 65527)))), billing_id => 'acc_a'), ub_test.result(1, 0, 894), 'texts as long as they may be');
SELECT is((octet_length(u.source), octet_length(u.user_id), octet_length(u.description), octet_length(u.metadata::text))::text, '(255,254,4096,65536)',
	'they are stored whole') FROM ub_test.stored(14) u;
-- Metadata is as long as its text, whatever is in it.
CREATE FUNCTION ub_test.long(bytes int) RETURNS jsonb
LANGUAGE sql AS $$
	SELECT jsonb_build_object('k', repeat('x', bytes - octet_length(jsonb_build_object('k', '', 'more', more)::text)), 'more', more)
	FROM (SELECT jsonb_build_array(E'"\\\b\f\n\r\t\u0001\u001f\u007f é\u2028', '', -1.50, 1e30, 1e-20, 0, true, false, NULL, '{}'::jsonb, '[]'::jsonb,
		'{"": {"a": [1, [2, 3]], "b": {}}, "\"\n": null}'::jsonb) AS more) m
$$;
SELECT is(octet_length(ub_test.long(65536)::text), 65536, 'metadata with everything in it that JSON has');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(97), 'amount', 0, 'metadata', ub_test.long(65536))), billing_id => 'acc_a') ->> 'created', '1',
	'of 65,536 bytes is accepted');
SELECT ub_test.fails(format('SELECT usage_billing.create_usage(%L, billing_id => %L)',
	jsonb_build_array(jsonb_build_object('id', ub_test.id(98), 'amount', 0, 'metadata', ub_test.long(65537))), 'acc_a'), '22023', 'metadata.*65536', 'of 65,537 bytes is refused');

-- Features.
SELECT is(ub_test.create('[{"id": "@15", "amount": 5000, "type": "feature", "source": "images"}]'), ub_test.result(1, 0, 894),
	'feature usage never touches the balance');
SELECT is(ub_test.create('[{"id": "@15", "amount": 5000, "type": "feature", "source": "images"}]', 'acc_a2'), ub_test.result(1, 0, 0),
	'an account without credits takes feature usage');
SELECT is(ub_test.create('[{"id": "@16", "amount": 2, "type": "feature", "source": "vod_streams", "metadata":
	{"viewing_seconds": 7, "viewing_bytes": "9223372036854775807", "egress_seconds": 0, "egress_bytes": 5.0, "other": "x"}}]'),
	ub_test.result(1, 0, 894), 'measurements as numbers and as strings');
SELECT is(ub_test.create('[{"id": "@17", "amount": 2, "type": "feature", "source": "images", "metadata": {"viewing_seconds": "many"}},
	{"id": "@18", "amount": 0, "type": "credit", "source": "vod_streams", "metadata": {"viewing_bytes": -1}}]'),
	ub_test.result(2, 0, 894), 'metadata of other usages may say anything');
SELECT is(usage_billing.total_debited(billing_id => 'acc_a'), 106::bigint, 'features are no debits');
SELECT is(ub_test.books(), '', 'the books are right so far');

-- Times. A time without an offset is UTC, whatever the session's zone.
CREATE TEMP TABLE given_time (n int, given text, meant timestamptz);
INSERT INTO given_time VALUES
	(30, '2024-05-01T10:00:00Z', '2024-05-01 10:00:00+00'),
	(31, '2024-05-01T10:00:00', '2024-05-01 10:00:00+00'),
	(32, '2024-05-01T10:00:00+02:00', '2024-05-01 08:00:00+00'),
	(33, '2024-05-01T10:00:00-09:30', '2024-05-01 19:30:00+00'),
	(34, '2024-05-01T10:00:00.5Z', '2024-05-01 10:00:00.5+00'),
	(35, '2024-05-01T10:00:00.123456789Z', '2024-05-01 10:00:00.123457+00'),
	(36, '2024-05-01T10:00:00.9799600', '2024-05-01 10:00:00.97996+00'),
	(37, '2024-05-01t10:00:00z', '2024-05-01 10:00:00+00'),
	(38, '2024-05-01 10:00:00', '2024-05-01 10:00:00+00'),
	(39, '2024-03-31T02:30:00', '2024-03-31 02:30:00+00'),
	(40, '2024-10-27T02:30:00', '2024-10-27 02:30:00+00'),
	(41, '2024-02-29T23:59:59.999999Z', '2024-02-29 23:59:59.999999+00'),
	(42, '1970-01-01T00:00:00Z', '1970-01-01 00:00:00+00'),
	(43, '1850-06-01T12:00:00', '1850-06-01 12:00:00+00');
CREATE FUNCTION ub_test.times_stored(zone text, style text, account text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('TimeZone', zone, true), set_config('DateStyle', style, true);
	PERFORM usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(n), 'amount', 0, 'created_at', given)) FROM given_time),
		billing_id => account);
	PERFORM set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true);
	RETURN (SELECT coalesce(string_agg(format('%s became %s', given, created_at), ', '), '')
		FROM given_time LEFT JOIN usage_billing.usage u ON u.billing_id = account AND u.id = ub_test.id(n)
		WHERE created_at IS DISTINCT FROM meant);
END $$;
SELECT is(ub_test.times_stored('UTC', 'ISO, YMD', 'acc_a'), '', 'times in a session in UTC');
SELECT is(ub_test.times_stored('Asia/Kathmandu', 'ISO, YMD', 'acc_a2'), '', 'times in a session in Asia/Kathmandu');
SELECT is(ub_test.times_stored('America/New_York', 'SQL, DMY', 'acc_b'), '', 'times in a session in America/New_York with another DateStyle');
DO $$ BEGIN PERFORM usage_billing.create_billing_account(org_id => 'org_t', billing_id => 'acc_t'); END $$;
SELECT is(ub_test.times_stored('Europe/Berlin', 'German', 'acc_t'), '', 'times in a session in Europe/Berlin with the German DateStyle');
SELECT is(ub_test.create('[{"id": "@30", "amount": 0, "created_at": "2024-05-01T15:45:00+05:45"}, {"id": "@31", "amount": 0, "created_at": null},
	{"id": "@32", "amount": 0}]'), ub_test.result(0, 3, 894), 'one moment in another zone, or none, is the same payload');
SELECT is(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', ub_test.id(45), 'amount', 0, 'created_at', now() + interval '4 minutes')),
	billing_id => 'acc_a'), ub_test.result(1, 0, 894), 'a clock that is a little ahead is accepted');
SELECT is((ub_test.stored(45)).created_at, now() + interval '4 minutes', 'with its own time');

-- Duplicates.
SELECT is(ub_test.create('[{"id": "@50", "amount": 4}, {"id": "@51", "amount": 5}, {"id": "@50", "amount": 4}, {"id": "@50", "amount": "4"}]'),
	ub_test.result(2, 2, 885), 'the same id with the same payload in one call counts once');
SELECT is(ub_test.create('[{"id": "@52", "amount": 6}, {"id": "@51", "amount": 5}]'), ub_test.result(1, 1, 879), 'old and new in one call');
SELECT is(ub_test.create('[{"id": "@53", "amount": 1, "created_at": "2024-05-01T10:00:00Z"}, {"id": "@53", "amount": 1}]'),
	ub_test.result(1, 1, 878), 'the same id in one call, once without a time');
SELECT is((ub_test.stored(53)).created_at, '2024-05-01 10:00:00+00'::timestamptz, 'keeps the time that was given first');
SELECT is(ub_test.problems(format('SELECT ub_test.create(%L)', '[{"id": "@54", "amount": 1}, {"id": "@50", "amount": 5}]'),
	'23505', '^(?!.*(source|description|user_id|metadata|created_at))(?=.*usages\[1\]).*amount'), '{}'::text[],
	'a conflict names the element and only the field that differs');
SELECT is(ub_test.problems(format('SELECT ub_test.create(%L)', '[{"id": "@50", "amount": 5, "source": "x", "description": "x", "user_id": "x",
	"metadata": {"x": 1}, "type": "feature", "created_at": "2024-05-01T10:00:00Z"}]'),
	'23505', '^(?=.*usages\[0\])(?=.*type)(?=.*amount)(?=.*source)(?=.*description)(?=.*user_id)(?=.*metadata)(?=.*created_at)'), '{}'::text[],
	'a conflict names every field that differs');
SELECT is(ub_test.problems(format('SELECT ub_test.create(%L)', '[{"id": "@54", "amount": 1, "metadata": {"k": 1}}, {"id": "@55", "amount": 1},
	{"id": "@54", "amount": 1, "metadata": {"k": 2}}]'),
	'23505', '^(?!.*(amount|source|description|user_id|created_at))(?=.*usages\[[02]\]).*metadata'), '{}'::text[], 'so it does within one call');

-- A retry always succeeds.
DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_r', billing_id => 'acc_r');
	PERFORM usage_billing.grant_credits(ub_test.id(60), 100, billing_id => 'acc_r');
END $$;
SELECT is(ub_test.create('[{"id": "@61", "amount": 60}, {"id": "@62", "amount": 40}]', 'acc_r'), ub_test.result(2, 0, 0), 'the last credits are used');
SELECT is(ub_test.create('[{"id": "@61", "amount": 60}, {"id": "@62", "amount": 40}]', 'acc_r'), ub_test.result(0, 2, 0), 'the retry of that succeeds');
SELECT is(ub_test.create('[{"id": "@62", "amount": 40}, {"id": "@63", "amount": 4, "type": "feature"}]', 'acc_r'), ub_test.result(1, 1, 0),
	'and so does new feature usage');
UPDATE usage_billing.billing_account SET credit_min = 50 WHERE billing_id = 'acc_r';
SELECT is(ub_test.create('[{"id": "@61", "amount": 60}]', 'acc_r'), ub_test.result(0, 1, 0), 'a retry succeeds under a limit that was raised');
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'acc_r';
SELECT is(ub_test.create('[{"id": "@61", "amount": 60}, {"id": "@62", "amount": 40}]', 'acc_r'), ub_test.result(0, 2, 0), 'a retry succeeds on a closed account');
SELECT is(usage_billing.create_usage('[]', billing_id => 'acc_r'), ub_test.result(0, 0, 0), 'and so does an empty call');
SELECT is(usage_billing.grant_credits(ub_test.id(60), 100, billing_id => 'acc_r') -> 'duplicate', 'true', 'a grant''s retry succeeds on a closed account');

-- Overdraft and reserve.
DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_o', billing_id => 'acc_o', credit_min => -50);
	PERFORM usage_billing.create_billing_account(org_id => 'org_p', billing_id => 'acc_p', credit_min => 30);
	PERFORM usage_billing.grant_credits(ub_test.id(70), 100, billing_id => 'acc_p');
END $$;
SELECT is(usage_billing.account_balance(billing_id => 'acc_o'),
	'{"billing_id": "acc_o", "org_id": "org_o", "balance": 0, "credit_min": -50, "available": 50}', 'an overdraft is available');
SELECT is(ub_test.create('[{"id": "@71", "amount": 50}]', 'acc_o'), ub_test.result(1, 0, -50), 'an overdraft can be used to its end');
SELECT ub_test.fails($$SELECT ub_test.create('[{"id": "@72", "amount": 1}]', 'acc_o')$$, 'UB001', NULL, 'and not beyond');
SELECT is(usage_billing.account_balance(billing_id => 'acc_p'),
	'{"billing_id": "acc_p", "org_id": "org_p", "balance": 100, "credit_min": 30, "available": 70}', 'a reserve is not available');
SELECT is(ub_test.create('[{"id": "@71", "amount": 70}]', 'acc_p'), ub_test.result(1, 0, 30), 'the balance can be used down to the reserve');
SELECT ub_test.fails($$SELECT ub_test.create('[{"id": "@72", "amount": 1}]', 'acc_p')$$, 'UB001', NULL, 'and not into it');
UPDATE usage_billing.billing_account SET credit_min = 29 WHERE billing_id = 'acc_p';
SELECT is(ub_test.create('[{"id": "@72", "amount": 1}]', 'acc_p'), ub_test.result(1, 0, 29), 'a lower reserve counts at once');

-- Large calls.
DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_l', billing_id => 'acc_l');
	PERFORM usage_billing.grant_credits(ub_test.id(80), 10000, billing_id => 'acc_l');
END $$;
SELECT is(usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(n), 'amount', 1)) FROM generate_series(1, 10000) n),
	billing_id => 'acc_l'), ub_test.result(10000, 0, 0), '10,000 elements are fine');
SELECT is(usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(n), 'amount', 1) ORDER BY n DESC) FROM generate_series(1, 10000) n),
	billing_id => 'acc_l'), ub_test.result(0, 10000, 0), '10,000 duplicates are fine');
SELECT is(usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(1), 'amount', 1)) FROM generate_series(1, 10000) n),
	billing_id => 'acc_l'), ub_test.result(0, 10000, 0), '10,000 times one id is fine');
SELECT is(ub_test.problems($$SELECT usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(n), 'amount', 1))
	FROM generate_series(1, 10001) n), billing_id => 'acc_l')$$, '22023', 'usages'), '{}'::text[], '10,001 elements are an error');
SET LOCAL usage_billing.max_batch_size = 10001;
SELECT is(usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', ub_test.id(n), 'amount', 1)) FROM generate_series(1, 10000) n)
	|| jsonb_build_array(jsonb_build_object('id', ub_test.id(10001), 'amount', 1, 'type', 'feature')), billing_id => 'acc_l'),
	ub_test.result(1, 10000, 0), 'unless the setting allows them');

SELECT is(ub_test.books(), '', 'the books are right in the end');
SELECT * FROM finish();
ROLLBACK;
