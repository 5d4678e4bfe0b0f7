-- Calls that must fail: the call, its SQLSTATE, a pattern that its detail must
-- match (null: any) and whether it must have a hint. They stand on
-- bad_input_fixture.sql. A runner executes each in a subtransaction of its own.
-- @07 is short for the uuid that ends with 07. What the caller made up has
-- mArKeR or 98765 in it, so that a message that repeats it can be told.

CREATE TEMP TABLE bad_input_case (
	case_no		integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name		text NOT NULL UNIQUE,
	call		text NOT NULL,
	code		text NOT NULL CHECK (length(code) = 5),
	detail		text,
	hint		boolean NOT NULL DEFAULT false
);

-- create_usage: what stands for the whole array.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT 'usages is ' || name, format('SELECT usage_billing.create_usage(%s, billing_id => ''acc_a'')', usages), '22023', 'usages'
FROM (VALUES
	('SQL null', 'NULL'),
	('JSON null', $$'null'$$),
	('an object', $$'{"id": "@60", "amount": 1}'$$),
	('a string', $$'"mArKeR"'$$),
	('an array inside a string', $$to_jsonb('[{"id": "@60", "amount": 1}]'::text)$$),
	('a number', $$'98765'$$),
	('true', $$'true'$$),
	('an array of 10,001 elements',
		$$(SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'amount', 1)) FROM generate_series(1, 10001))$$)
) AS c (name, usages);

INSERT INTO bad_input_case (name, call, code, detail) VALUES
('usages is longer than usage_billing.max_batch_size',
 $$SET LOCAL usage_billing.max_batch_size = 2;
   SELECT usage_billing.create_usage('[{"id": "@60", "amount": 1}, {"id": "@61", "amount": 1}, {"id": "@62", "amount": 1}]',
       billing_id => 'acc_a')$$, '22023', 'usages');

-- create_usage: arrays with one bad element.
INSERT INTO bad_input_case (name, call, code, detail, hint)
SELECT 'usages: ' || name, format('SELECT usage_billing.create_usage(%L, billing_id => ''acc_a'')', usages), code, detail, hint
FROM (VALUES
	('element that is a number', '[98765]', '22023', 'usages\[0\]', false),
	('element that is a string', '[{"id": "@60", "amount": 1}, "mArKeR"]', '22023', 'usages\[1\]', false),
	('element that is null', '[{"id": "@60", "amount": 1}, null]', '22023', 'usages\[1\]', false),
	('element that is true', '[true]', '22023', 'usages\[0\]', false),
	('element that is an array', '[[{"id": "@60", "amount": 1}]]', '22023', 'usages\[0\]', false),
	('element without keys', '[{}]', '22023', 'usages\[0\]\.(id|amount)', false),
	('element without id', '[{"amount": 1}]', '22023', 'usages\[0\]\.id', false),
	('element without amount', '[{"id": "@60"}]', '22023', 'usages\[0\]\.amount', false),
	('eighteenth element bad',
		'[' || (SELECT string_agg(format('{"id": "@%s", "amount": 1}', n), ', ') FROM generate_series(60, 76) n)
		|| ', {"id": "@77", "amount": -1}]', '22023', 'usages\[17\]\.amount', false),
	('unknown key', '[{"id": "@60", "amount": 1}, {"id": "@61", "amount": 1, "mArKeR": 1}]', '22023', 'usages\[1\].*mArKeR', true),
	('unknown key with a null value', '[{"id": "@60", "amount": 1, "mArKeR": null}]', '22023', 'usages\[0\].*mArKeR', true),
	('key in another case', '[{"id": "@60", "amount": 1, "Source": "api"}]', '22023', 'usages\[0\].*Source', true),
	('key in camel case', '[{"id": "@60", "amount": 1, "createdAt": "2024-05-01T10:00:00Z"}]', '22023', 'usages\[0\].*createdAt', true),
	('key of a column that is no key', '[{"id": "@60", "amount": 1, "billing_id": "acc_a"}]', '22023', 'usages\[0\].*billing_id', true),
	('unknown key with a line break', '[{"id": "@60", "amount": 1, "mArKeR\r\nx": 1}]', '22023', 'usages\[0\]', true),
	('empty key', '[{"id": "@60", "amount": 1, "": 1}]', '22023', 'usages\[0\]', true),
	('one id with two amounts', '[{"id": "@60", "amount": 1}, {"id": "@60", "amount": 2}]', '23505', 'usages\[[01]\].*amount', false),
	('one id with two sources', '[{"id": "@60", "amount": 1, "source": "a"}, {"id": "@60", "amount": 1, "source": "b"}]',
		'23505', 'usages\[[01]\].*source', false),
	('one id with two times', '[{"id": "@60", "amount": 1, "created_at": "2024-05-01T10:00:00Z"},
		{"id": "@60", "amount": 1, "created_at": "2024-05-01T10:00:01Z"}]', '23505', 'usages\[[01]\].*created_at', false),
	('more than the balance', '[{"id": "@60", "amount": 98765}]', 'UB001', NULL, false),
	('one more than the balance', '[{"id": "@60", "amount": 829}]', 'UB001', NULL, false),
	('more than the balance in two elements', '[{"id": "@60", "amount": 500}, {"id": "@61", "amount": 500}]', 'UB001', NULL, false),
	('more than the balance beside a duplicate', '[{"id": "@02", "amount": 50}, {"id": "@61", "amount": 829}]', 'UB001', NULL, false),
	('bad element behind a good one and a duplicate', '[{"id": "@02", "amount": 50}, {"id": "@61", "amount": 1}, {"id": "@62", "amount": "x"}]',
		'22023', 'usages\[2\]\.amount', false)
) AS c (name, usages, code, detail, hint);

-- create_usage: one bad value in the second element. A key that comes twice
-- counts with its last value, so the bad one is put behind good ones.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT format('usages[].%s: %s', field, name),
	format('SELECT usage_billing.create_usage(%L, billing_id => ''acc_a'')',
		format('[{"id": "@60", "amount": 1}, {"id": "@61", "amount": 1, "%s": %s}]', field, value)),
	code, format('usages\[1\]\.%s%s', field, '.*' || found)
FROM (VALUES
	('id', 'null', 'null', '22023', NULL),
	('id', 'number', '98765', '22023', NULL),
	('id', 'true', 'true', '22023', NULL),
	('id', 'object', '{}', '22023', NULL),
	('id', 'array', '["@61"]', '22023', NULL),
	('id', 'no uuid', '"mArKeR"', '22P02', 'mArKeR'),
	('id', 'empty', '""', '22P02', NULL),
	('id', 'one digit short', '"00000000-0000-4000-8000-00000098765"', '22P02', '98765'),
	('id', 'one digit long', '"00000000-0000-4000-8000-0000000987650"', '22P02', '98765'),
	('id', 'no hexadecimal digit', '"g0000000-0000-4000-8000-000000098765"', '22P02', '98765'),
	('id', 'line break behind it', '"00000000-0000-4000-8000-000000098765\n"', '22P02', NULL),
	('amount', 'null', 'null', '22023', NULL),
	('amount', 'true', 'true', '22023', NULL),
	('amount', 'object', '{"mArKeR": 1}', '22023', NULL),
	('amount', 'array', '[1]', '22023', NULL),
	('amount', 'negative', '-98765', '22023', '-98765'),
	('amount', 'negative string', '"-98765"', '22023', '-98765'),
	('amount', 'smallest int64', '-9223372036854775808', '22023', NULL),
	('amount', 'fraction', '98765.5', '22023', '98765\.5'),
	('amount', 'small fraction', '1e-1', '22023', NULL),
	('amount', 'very small fraction', '1e-300', '22023', NULL),
	('amount', 'fraction beyond the digits of a double', '9007199254740993.5', '22023', NULL),
	('amount', 'one beyond int64', '9223372036854775808', '22003', '9223372036854775808'),
	('amount', '100 digits', '1e100', '22003', NULL),
	('amount', '100,000 digits', '1e100000', '22003', NULL),
	('amount', 'string one beyond int64', '"9223372036854775808"', '22003', '9223372036854775808'),
	('amount', 'string of 5,000 digits', format('"%s"', repeat('98765', 1000)), '22003', NULL),
	('amount', 'empty string', '""', '22023', NULL),
	('amount', 'no number', '"mArKeR"', '22023', 'mArKeR'),
	('amount', 'fraction in a string', '"98765.5"', '22023', '98765\.5'),
	('amount', 'digits and more', '"98765mArKeR"', '22023', NULL),
	('amount', 'hexadecimal string', '"0x98765"', '22023', NULL),
	('amount', 'underscores in a string', '"98_765"', '22023', NULL),
	('amount', 'commas in a string', '"98,765"', '22023', NULL),
	('amount', 'not a number', '"NaN"', '22023', NULL),
	('amount', 'infinity', '"Infinity"', '22023', NULL),
	('amount', 'other digits', '"٩٨"', '22023', NULL),
	('amount', 'two numbers', '"1 2"', '22023', NULL),
	('type', 'unknown', '"mArKeR"', '22023', 'mArKeR'),
	('type', 'number', '98765', '22023', NULL),
	('type', 'true', 'true', '22023', NULL),
	('type', 'array', '["credit"]', '22023', NULL),
	('source', 'number', '98765', '22023', NULL),
	('source', 'object', '{}', '22023', NULL),
	('source', '256 bytes', format('"%s"', repeat('x', 256)), '22023', NULL),
	('source', '129 characters of two bytes', format('"%s"', repeat('é', 129)), '22023', NULL),
	('description', 'number', '98765', '22023', NULL),
	('description', 'array', '["mArKeR"]', '22023', NULL),
	('description', '4,097 bytes', format('"%s"', repeat('x', 4097)), '22023', NULL),
	('description', '2,049 characters of two bytes', format('"%s"', repeat('é', 2049)), '22023', NULL),
	('user_id', 'number', '98765', '22023', NULL),
	('user_id', 'false', 'false', '22023', NULL),
	('user_id', '256 bytes', format('"%s"', repeat('x', 256)), '22023', NULL),
	('metadata', 'string', '"mArKeR"', '22023', NULL),
	('metadata', 'object in a string', '"{}"', '22023', NULL),
	('metadata', 'number', '98765', '22023', NULL),
	('metadata', 'true', 'true', '22023', NULL),
	('metadata', 'array', '[{"k": 1}]', '22023', NULL),
	('metadata', '65,537 bytes', format('{"k": "%s"}', repeat('x', 65528)), '22023', NULL),
	('metadata', '20,000 numbers of 130,000 digits', '{"k": [1e131071' || repeat(', 1e131071', 19999) || ']}', '22023', '65536 bytes'),
	('metadata', 'fewer characters than bytes', format('{"k": "%s"}', repeat('é', 32764)), '22023', NULL),
	('customer_id', 'number', '98765', '22023', NULL),
	('customer_id', 'unknown account', '"mArKeR"', '22023', 'mArKeR'),
	('customer_id', 'another account', '"acc_b"', '22023', 'acc_b'),
	('customer_id', 'another account of the same organisation', '"acc_a2"', '22023', 'acc_a2'),
	('created_at', 'number', '1714557600', '22023', NULL),
	('created_at', 'object', '{}', '22023', NULL),
	('created_at', 'no time', '"mArKeR"', '22007', 'mArKeR'),
	('created_at', 'month 13', '"2024-13-01T00:00:00Z"', '22007', '2024-13-01'),
	('created_at', '30 February', '"2024-02-30T00:00:00Z"', '22007', '2024-02-30'),
	('created_at', 'hour 25', '"2024-05-01T25:00:00Z"', '22007', NULL),
	('created_at', 'minute 61', '"2024-05-01T10:61:00Z"', '22007', NULL),
	('created_at', 'offset of 99 hours', '"2024-05-01T10:00:00+99:00"', '22007', NULL),
	('created_at', 'only a time of day', '"10:00:00"', '22007', NULL),
	('created_at', 'month first', '"05/01/2024 10:00:00"', '22007', NULL),
	('created_at', 'name of a zone', '"2024-05-01T10:00:00 Europe/Berlin"', '22007', NULL),
	('created_at', 'text behind it', '"2024-05-01T10:00:00ZmArKeR"', '22007', NULL),
	('created_at', 'infinity', '"infinity"', '22007', NULL),
	('created_at', 'minus infinity', '"-infinity"', '22007', NULL),
	('created_at', 'now', '"now"', '22007', NULL),
	('created_at', 'tomorrow', '"tomorrow"', '22007', NULL),
	('created_at', 'six-digit year', '"298765-01-01T00:00:00Z"', '22007', NULL),
	('created_at', 'far in the future', '"9999-01-01T00:00:00Z"', '22023', '9999')
) AS c (field, name, value, code, found);

INSERT INTO bad_input_case (name, call, code, detail) VALUES
('usages[].created_at: six minutes from now',
 $$SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', '@60', 'amount', 1,
     'created_at', clock_timestamp() + interval '6 minutes')), billing_id => 'acc_a')$$, '22023', 'usages\[0\]\.created_at'),
('usages[].created_at: later than usage_billing.max_future',
 $$SET LOCAL usage_billing.max_future = '1s';
   SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', '@60', 'amount', 1,
     'created_at', clock_timestamp() + interval '1 minute')), billing_id => 'acc_a')$$, '22023', 'usages\[0\]\.created_at');

-- create_usage: measurements of deliveries.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT format('usages[].metadata.%s of %s: %s', field, source, name),
	format('SELECT usage_billing.create_usage(%L, billing_id => ''acc_a'')',
		format('[{"id": "@60", "amount": 1, "type": "feature", "source": "%s", "metadata": {"%s": %s}}]', source, field, value)),
	'22023', format('usages\[0\]\.metadata.*%s', field)
FROM (VALUES
	('vod_streams', 'viewing_seconds', 'negative', '-98765'),
	('vod_streams', 'viewing_bytes', 'fraction', '98765.5'),
	('VOD_Streams', 'viewing_bytes', 'no number', '"mArKeR"'),
	('transcoders', 'egress_seconds', 'true', 'true'),
	('transcoders', 'egress_seconds_additional_targets', 'array', '[1]'),
	('transcoders', 'egress_bytes', 'beyond int64', '9223372036854775808'),
	('transcoders', 'egress_bytes', 'string beyond int64', '"9223372036854775808"')
) AS c (source, field, name, value);

-- create_usage: an id that is known with another payload. The base is what the
-- fixture stored; a key behind it changes one field.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT 'known usage: ' || name,
	format('SELECT usage_billing.create_usage(%L, billing_id => ''acc_a'')',
		format('[{"id": "@60", "amount": 1}, {"id": "@01", "amount": 100, "source": "api", "description": "first", "user_id": "u1",'
			' "metadata": {"k": 1}, "created_at": "2024-05-01T10:00:00Z", %s}]', change)), '23505', 'usages\[1\].*' || detail
FROM (VALUES
	('other amount', '"amount": 98765', 'amount'),
	('other type', '"type": "feature"', 'type'),
	('other source', '"source": "mArKeR"', 'source'),
	('no source', '"source": null', 'source'),
	('other description', '"description": "mArKeR"', 'description'),
	('description in another case', '"description": "First"', 'description'),
	('no description', '"description": null', 'description'),
	('other user', '"user_id": "mArKeR"', 'user_id'),
	('no user', '"user_id": ""', 'user_id'),
	('other metadata', '"metadata": {"k": 2}', 'metadata'),
	('more metadata', '"metadata": {"k": 1, "mArKeR": 1}', 'metadata'),
	('no metadata', '"metadata": null', 'metadata'),
	('other time', '"created_at": "2024-05-01T10:00:00.000001Z"', 'created_at'),
	('the same time of day in another zone', '"created_at": "2024-05-01T10:00:00+02:00"', 'created_at'),
	('other amount and user', '"amount": 98765, "user_id": "mArKeR"', '(amount.*user_id|user_id.*amount)')
) AS c (name, change, detail);

-- create_usage: the state and the limit of an account.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT name, format('SELECT usage_billing.create_usage(%L, billing_id => %L)', usages, account), code, NULL
FROM (VALUES
	('closed account: new credit usage', 'acc_closed', '[{"id": "@60", "amount": 1}]', 'UB003'),
	('closed account: new feature usage', 'acc_closed', '[{"id": "@60", "amount": 1, "type": "feature"}]', 'UB003'),
	('closed account: a duplicate and a new usage', 'acc_closed', '[{"id": "@09", "amount": 60}, {"id": "@60", "amount": 1}]', 'UB003'),
	('closed account: known id with another payload', 'acc_closed', '[{"id": "@09", "amount": 61}]', '23505'),
	('reserve: one more than what is above it', 'acc_reserve', '[{"id": "@60", "amount": 21}]', 'UB001'),
	('empty account: credit usage', 'acc_a2', '[{"id": "@60", "amount": 1}]', 'UB001'),
	('reserve above the balance: credit usage', 'acc_x', '[{"id": "@60", "amount": 1}]', 'UB001')
) AS c (name, account, usages, code);

-- Which account is meant, for every function that asks.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT format('%s: %s', f, name),
	format('SELECT * FROM usage_billing.%s(%s)', f, concat_ws(', ', arguments, choice)), code, detail
FROM (VALUES
	('create_usage', $$'[{"id": "@60", "amount": 1}]'$$),
	('revert_usage', $$'@05', 1$$),
	('grant_credits', $$'@61', 5$$),
	('account_balance', NULL),
	('account_transactions', NULL),
	('total_debited', NULL)
) AS functions (f, arguments)
CROSS JOIN (VALUES
	('no account', NULL, '22023', NULL),
	('only empty texts', $$billing_id => '', org_id => '', project_id => ''$$, '22023', NULL),
	('organisation and project', $$org_id => 'org_a', project_id => 'prj_a'$$, '22023', NULL),
	('account, organisation and project', $$billing_id => 'acc_a', org_id => 'org_a', project_id => 'prj_a'$$, '22023', NULL),
	('account of another organisation', $$billing_id => 'acc_a', org_id => 'org_b'$$, '22023', NULL),
	('account of another project', $$billing_id => 'acc_a', project_id => 'prj_b'$$, '22023', NULL),
	('unknown account', $$billing_id => 'mArKeR'$$, 'PT404', 'mArKeR'),
	('account in another case', $$billing_id => 'ACC_A'$$, 'PT404', 'ACC_A'),
	('unknown organisation', $$org_id => 'mArKeR'$$, 'PT404', 'mArKeR'),
	('unknown organisation with a line break', $$org_id => E'x\r\nmArKeR'$$, 'PT404', NULL),
	('unknown project', $$project_id => 'mArKeR'$$, 'PT404', 'mArKeR'),
	('organisation without an account', $$org_id => 'org_lonely'$$, 'PT404', 'org_lonely'),
	('project of an organisation without an account', $$project_id => 'prj_lonely'$$, 'PT404', NULL)
) AS choices (name, choice, code, detail);

-- grant_credits.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT 'grant_credits: ' || name, format('SELECT usage_billing.grant_credits(%s)', arguments), code, detail
FROM (VALUES
	('no id', $$NULL, 5, billing_id => 'acc_a'$$, '22023', 'id'),
	('no amount', $$'@60', NULL, billing_id => 'acc_a'$$, '22023', 'amount'),
	('amount 0', $$'@60', 0, billing_id => 'acc_a'$$, '22023', 'amount'),
	('negative amount', $$'@60', -98765, billing_id => 'acc_a'$$, '22023', 'amount.*-98765'),
	('balance beyond int64', $$'@60', 9223372036854775807, billing_id => 'acc_a'$$, '22003', NULL),
	('source of 256 bytes', $$'@60', 5, billing_id => 'acc_a', source => repeat('x', 256)$$, '22023', 'source'),
	('description of 4,097 bytes', $$'@60', 5, billing_id => 'acc_a', description => repeat('x', 4097)$$, '22023', 'description'),
	('user of 256 bytes', $$'@60', 5, billing_id => 'acc_a', user_id => repeat('é', 128)$$, '22023', 'user_id'),
	('metadata is an array', $$'@60', 5, billing_id => 'acc_a', metadata => '["mArKeR"]'$$, '22023', 'metadata'),
	('metadata is a string', $$'@60', 5, billing_id => 'acc_a', metadata => '"mArKeR"'$$, '22023', 'metadata'),
	('metadata of 65,537 bytes', $$'@60', 5, billing_id => 'acc_a', metadata => jsonb_build_object('k', repeat('x', 65528))$$,
		'22023', 'metadata'),
	('closed account', $$'@60', 5, billing_id => 'acc_closed'$$, 'UB003', NULL),
	('known id with another amount', $$'@11', 98765, billing_id => 'acc_a', source => 'shop', description => 'first',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'amount'),
	('known id with another source', $$'@11', 1000, billing_id => 'acc_a', source => 'mArKeR', description => 'first',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'source'),
	('known id without source', $$'@11', 1000, billing_id => 'acc_a', description => 'first',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'source'),
	('known id with another description', $$'@11', 1000, billing_id => 'acc_a', source => 'shop', description => 'mArKeR',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'description'),
	('known id with another user', $$'@11', 1000, billing_id => 'acc_a', source => 'shop', description => 'first',
		user_id => 'mArKeR', metadata => '{"k": 1}'$$, '23505', 'user_id'),
	('known id with other metadata', $$'@11', 1000, billing_id => 'acc_a', source => 'shop', description => 'first',
		user_id => 'u1', metadata => '{"k": 1, "mArKeR": 2}'$$, '23505', 'metadata'),
	('known id with another amount on a closed account', $$'@12', 98765, billing_id => 'acc_closed'$$, '23505', 'amount')
) AS c (name, arguments, code, detail);

-- revert_usage.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT 'revert_usage: ' || name, format('SELECT usage_billing.revert_usage(%s)', arguments), code, detail
FROM (VALUES
	('no usage', $$NULL, 5, billing_id => 'acc_a'$$, '22023', 'usage_id'),
	('unknown usage', $$'98765000-0000-4000-8000-000000000000', billing_id => 'acc_a'$$, 'PT404', '98765000-0000'),
	('usage of another account', $$'@08', billing_id => 'acc_a'$$, 'PT404', 'usage_id'),
	('usage of another account of the organisation', $$'@05', billing_id => 'acc_a2'$$, 'PT404', 'usage_id'),
	('a revert''s id', $$'@22', billing_id => 'acc_a'$$, 'PT404', 'usage_id'),
	('a grant''s id', $$'@11', billing_id => 'acc_a'$$, 'PT404', 'usage_id'),
	('amount 0', $$'@05', 0, billing_id => 'acc_a'$$, '22023', 'amount'),
	('negative amount', $$'@05', -98765, billing_id => 'acc_a'$$, '22023', 'amount.*-98765'),
	('one more than the usage', $$'@05', 41, billing_id => 'acc_a'$$, 'UB002', NULL),
	('much more than the usage', $$'@05', 9223372036854775807, billing_id => 'acc_a'$$, 'UB002', NULL),
	('more than a feature usage', $$'@03', 8, billing_id => 'acc_a'$$, 'UB002', NULL),
	('usage of 0, no amount', $$'@04', billing_id => 'acc_a'$$, '22023', NULL),
	('usage of 0, amount 1', $$'@04', 1, billing_id => 'acc_a'$$, 'UB002', NULL),
	('second revert', $$'@02', 5, billing_id => 'acc_a'$$, '23505', '^(?=.*30)(?=.*2024-05-02)'),
	('second revert of all that is left', $$'@02', billing_id => 'acc_a'$$, '23505', '^(?=.*30)(?=.*2024-05-02)'),
	('second revert with a new id', $$'@02', 30, billing_id => 'acc_a', id => '@60'$$, '23505', '^(?=.*30)(?=.*2024-05-02)'),
	('second revert where all is back', $$'@06', billing_id => 'acc_a'$$, '23505', NULL),
	('id of another usage''s revert', $$'@05', 8, billing_id => 'acc_a', id => '@27', description => 'first',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'usage_id'),
	('known id with another amount', $$'@07', 9, billing_id => 'acc_a', id => '@27', description => 'first',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'amount'),
	('known id with another description', $$'@07', 8, billing_id => 'acc_a', id => '@27', description => 'mArKeR',
		user_id => 'u1', metadata => '{"k": 1}'$$, '23505', 'description'),
	('known id with another user', $$'@07', 8, billing_id => 'acc_a', id => '@27', description => 'first',
		user_id => 'mArKeR', metadata => '{"k": 1}'$$, '23505', 'user_id'),
	('known id with other metadata', $$'@07', 8, billing_id => 'acc_a', id => '@27', description => 'first',
		user_id => 'u1', metadata => '{"k": "mArKeR"}'$$, '23505', 'metadata'),
	('description of 4,097 bytes', $$'@05', 1, billing_id => 'acc_a', description => repeat('x', 4097)$$, '22023', 'description'),
	('user of 256 bytes', $$'@05', 1, billing_id => 'acc_a', user_id => repeat('x', 256)$$, '22023', 'user_id'),
	('metadata is an array', $$'@05', 1, billing_id => 'acc_a', metadata => '["mArKeR"]'$$, '22023', 'metadata'),
	('metadata of 65,537 bytes', $$'@05', 1, billing_id => 'acc_a', metadata => jsonb_build_object('k', repeat('x', 65528))$$,
		'22023', 'metadata')
) AS c (name, arguments, code, detail);

INSERT INTO bad_input_case (name, call, code)
SELECT 'revert_usage, revert_once off: ' || name,
	format('SET LOCAL usage_billing.revert_once = off; SELECT usage_billing.revert_usage(%s, billing_id => ''acc_a'')', arguments), code
FROM (VALUES
	('one more than what is left', $$'@02', 21$$, 'UB002'),
	('nothing left, an amount', $$'@06', 1$$, 'UB002'),
	('nothing left, no amount', $$'@06'$$, '22023'),
	('amount 0', $$'@02', 0$$, '22023')
) AS c (name, arguments, code);

-- account_transactions.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT 'account_transactions: ' || name,
	format('SELECT * FROM usage_billing.account_transactions(%s, billing_id => ''acc_a'')', arguments), '22023', detail
FROM (VALUES
	('max_rows 0', 'max_rows => 0', 'max_rows'),
	('negative max_rows', 'max_rows => -98765', 'max_rows.*-98765'),
	('cursor that is none', $$before => 'mArKeR'$$, 'before'),
	('long cursor that is none', $$before => repeat('mArKeR', 1000)$$, 'before'),
	('cursor with more behind it', $$before => (SELECT t.cursor || 'mArKeR'
		FROM usage_billing.account_transactions(max_rows => 1, billing_id => 'acc_a') t)$$, 'before')
) AS c (name, arguments, detail);

-- create_billing_account and create_project.
INSERT INTO bad_input_case (name, call, code, detail)
SELECT name, 'SELECT usage_billing.' || call, code, detail
FROM (VALUES
	('create_billing_account: no organisation', $$create_billing_account()$$, '22023', 'org_id'),
	('create_billing_account: empty organisation', $$create_billing_account(org_id => '')$$, '22023', 'org_id'),
	('create_billing_account: organisation of 256 bytes', $$create_billing_account(org_id => repeat('x', 256))$$, '22023', 'org_id'),
	('create_billing_account: account of 256 bytes', $$create_billing_account(org_id => 'org_a', billing_id => repeat('x', 256))$$,
		'22023', 'billing_id'),
	('create_billing_account: metadata is an array', $$create_billing_account(org_id => 'mArKeR', metadata => '["mArKeR"]')$$,
		'22023', 'metadata'),
	('create_billing_account: metadata of 65,537 bytes',
		$$create_billing_account(org_id => 'mArKeR', metadata => jsonb_build_object('k', repeat('x', 65528)))$$, '22023', 'metadata'),
	('create_billing_account: known account, another organisation',
		$$create_billing_account(org_id => 'mArKeR', billing_id => 'acc_x', credit_min => 5, metadata => '{"k": 1}')$$, '23505', 'org_id'),
	('create_billing_account: known account, another credit_min',
		$$create_billing_account(org_id => 'org_x', billing_id => 'acc_x', credit_min => 98765, metadata => '{"k": 1}')$$,
		'23505', 'credit_min'),
	('create_billing_account: known account, other metadata',
		$$create_billing_account(org_id => 'org_x', billing_id => 'acc_x', credit_min => 5, metadata => '{"mArKeR": 1}')$$,
		'23505', 'metadata'),
	('create_billing_account: known account, no default any more',
		$$create_billing_account(org_id => 'org_x', billing_id => 'acc_x', credit_min => 5, metadata => '{"k": 1}', is_default => false)$$,
		'23505', 'is_default'),
	('create_project: no project', $$create_project(project_id => NULL, org_id => 'org_a')$$, '22023', 'project_id'),
	('create_project: empty project', $$create_project(project_id => '', org_id => 'org_a')$$, '22023', 'project_id'),
	('create_project: project of 256 bytes', $$create_project(project_id => repeat('x', 256), org_id => 'org_a')$$, '22023', 'project_id'),
	('create_project: no organisation', $$create_project(project_id => 'mArKeR')$$, '22023', 'org_id'),
	('create_project: empty organisation', $$create_project(project_id => 'mArKeR', org_id => '')$$, '22023', 'org_id'),
	('create_project: organisation of 256 bytes', $$create_project(project_id => 'mArKeR', org_id => repeat('x', 256))$$, '22023', 'org_id'),
	('create_project: known project, another organisation', $$create_project(project_id => 'prj_a', org_id => 'org_b')$$, '23505', 'org_id')
) AS c (name, call, code, detail);

-- Tables that only grow.
INSERT INTO bad_input_case (name, call, code)
SELECT format('%s usage_billing.%s', split_part(call, ' ', 1), fact), format(call, fact), 'UB004'
FROM (VALUES ('usage'), ('credit_grant'), ('usage_revert')) AS facts (fact)
CROSS JOIN (VALUES
	('UPDATE usage_billing.%I SET amount = 98765'),
	('DELETE FROM usage_billing.%I WHERE amount > 0'),
	('TRUNCATE usage_billing.%I')
) AS calls (call);

UPDATE bad_input_case SET call = ub_test.expand(call);
