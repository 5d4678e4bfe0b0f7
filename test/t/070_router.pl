# A router answers as one node would. The same facts are in one database and, by
# organisation, in sixteen behind a router; each call of a large table is made on
# both, and what comes of it is compared: result, or SQLSTATE and every text.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Utils;
use Test::More;

use RouterNodes;

my $cluster = RouterNodes::start();
my $router = $cluster->{router};
my $pgtap = "$FindBin::Bin/../pgtap";
my $directory = PostgreSQL::Test::Utils::tempdir();

# The one database that it is compared with.
$router->safe_psql('postgres', 'CREATE DATABASE single');
$router->safe_psql('single', 'CREATE EXTENSION usage_billing');

# ---------------------------------------------------------------------------
# The same functions.

my $SIGNATURES = <<'SQL';
SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), p.provolatile, p.proretset, p.prosecdef,
	p.proisstrict, p.proparallel, p.proconfig, p.proacl IS NOT NULL AND NOT has_function_privilege('public', p.oid, 'execute'),
	md5(CASE WHEN p.proname !~ 'track_storage' THEN obj_description(p.oid, 'pg_proc') END)
FROM pg_proc p
WHERE p.pronamespace = 'usage_billing'::regnamespace AND p.proname IN ('create_usage', 'revert_usage', 'grant_credits', 'account_balance',
	'account_transactions', 'total_debited', 'account_usage_trend', 'usage_series', 'refresh_storage_usage', 'get_storage_usage',
	'get_storage_usage_history', 'recount_storage_usage', 'set_storage_limits', 'track_storage', 'untrack_storage',
	'create_billing_account', 'create_project', 'close_billing_period', 'verify', 'rebuild', 'run_maintenance')
ORDER BY 1, 2
SQL
my $TYPES = <<'SQL';
SELECT t.oid::regtype, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation, col_description(a.attrelid, a.attnum)
FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
WHERE t.typnamespace = 'usage_billing'::regnamespace
	AND t.typname IN ('billing_account', 'project', 'usage_bucket', 'storage_usage', 'maintenance_status')
ORDER BY t.typname, a.attnum
SQL
my $of_node = $router->safe_psql('single', $SIGNATURES);
my @functions = split /\n/, $of_node;
is(scalar @functions, 21, 'the contract has 21 functions');
is($cluster->sql($SIGNATURES), $of_node, 'the router has them with the same parameters, results, volatility, rights and comments');
is($cluster->sql($TYPES), $router->safe_psql('single', $TYPES), 'and the same types and view, with their comments');
is($cluster->sql(q{SELECT enumlabel FROM pg_enum WHERE enumtypid = 'usage_billing.usage_type'::regtype ORDER BY enumsortorder}),
	"credit\nfeature", 'usage_type has the same labels');
is($cluster->sql(<<'SQL'), '', 'everything on the router that is no helper has a comment');
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace = 'usage_billing'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
	AND p.proname !~ '^(remote_|route|request|raise_|failure_|unavailable|wait_|claimed_|bucket_for|project_failure|directory_add|refuse_|maintenance_of)'
SQL
is($cluster->sql(<<'SQL'), '', 'nothing on the router is granted to PUBLIC');
SELECT p.oid::regprocedure FROM pg_proc p
WHERE p.pronamespace IN ('usage_billing'::regnamespace, 'plproxy'::regnamespace) AND has_function_privilege('public', p.oid, 'execute')
SQL
like($cluster->sql(q{SELECT string_agg(usage_billing.bucket_of('org-' || i)::text, ' ' ORDER BY i) FROM generate_series(1, 8) i}),
	qr/^8 9 11 8 3 2 6 11$/, 'the hash of an organisation is what it always was');

# ---------------------------------------------------------------------------
# The same facts: the fixture of the error table, as it is, in the one database;
# then by organisation into the buckets, and the directory learns of them.

my $HELPERS = <<'SQL';
CREATE SCHEMA ub_test;
CREATE FUNCTION ub_test.id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
CREATE FUNCTION ub_test.expand(template text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT regexp_replace(template, '@(\d\d)', '00000000-0000-4000-8000-0000000000\1', 'g') $$;
-- What comes of a call, as one line.
CREATE FUNCTION ub_test.outcome(call text, claims text DEFAULT '') RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	answer jsonb;
	message text;
	detail text;
	hint text;
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true);
	IF call ~ '^SELECT' THEN
		EXECUTE format('SELECT coalesce(jsonb_agg(t), ''[]'') FROM (%s) t', call) INTO answer;
	ELSE
		EXECUTE call;
	END IF;
	RETURN jsonb_build_object('answer', answer);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN jsonb_build_object('code', SQLSTATE, 'message', message, 'detail', detail, 'hint', hint);
END $$;
GRANT USAGE ON SCHEMA ub_test TO PUBLIC;
SQL
$router->safe_psql('single', $HELPERS);
$cluster->sql($HELPERS);
$router->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $router->connstr('single'),
		'-f', "$pgtap/cases/bad_input_fixture.sql" ], 'the fixture in one database');

for my $table (qw(billing_account project usage credit_grant usage_revert))
{
	my $owner = $table =~ /^(?:billing_account|project)$/ ? 'f.org_id'
	  : '(SELECT a.org_id FROM usage_billing.billing_account a WHERE a.billing_id = f.billing_id)';

	for my $line (split /\n/, $router->safe_psql('single', "SELECT $owner, quote_literal(to_jsonb(f)) FROM usage_billing.$table f"))
	{
		my ($org_id, $row) = split /\|/, $line, 2;
		$cluster->bucket_sql($cluster->bucket_of($org_id),
			"INSERT INTO usage_billing.$table SELECT * FROM jsonb_populate_record(NULL::usage_billing.$table, $row)");
	}
}
is($cluster->sql('SELECT count(*) FROM usage_billing.verify_directory()'), 9, 'the directory knows none of nine accounts and projects');
is($cluster->sql('SELECT usage_billing.refresh_directory()'), 9, 'refresh_directory enters them');
is($cluster->sql('SELECT * FROM usage_billing.verify_directory()'), '', 'verify_directory finds nothing then');
cmp_ok($cluster->sql('SELECT count(DISTINCT bucket) FROM usage_billing.directory_organisation'), '>', 3, 'they are in several buckets');

# All that can be seen of the facts.
my $STATE = <<'SQL';
SELECT 'account', to_jsonb(f) FROM usage_billing.billing_account f
UNION ALL SELECT 'project', to_jsonb(f) FROM usage_billing.project f
UNION ALL SELECT 'grant', to_jsonb(f) FROM usage_billing.credit_grant f
UNION ALL SELECT 'usage', to_jsonb(f) FROM usage_billing.usage f
UNION ALL SELECT 'revert', to_jsonb(f) FROM usage_billing.usage_revert f
SQL
sub state_of_single { return join "\n", sort split /\n/, $router->safe_psql('single', $STATE); }
my $before = state_of_single();
is($cluster->all_buckets($STATE), $before, 'the facts are the same');

# ---------------------------------------------------------------------------
# The same outcomes.

# Makes the calls of a file on both; returns what came of them, by name of the call.
sub outcomes
{
	my ($file, @options) = @_;
	return map {
		my ($out, $err) = run_command([ 'psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $router->connstr($_),
				@options, '-v', "pgtap=$pgtap", '-f', $file ]);
		is($err, '', "the calls of $file are made in database $_");
		$out
	} 'router', 'single';
}

sub same_outcomes
{
	my ($got, $expected, $least, $name) = @_;
	# the time of the call
	s/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00/NOW/g for $got, $expected;
	my @got = split /\n/, $got;
	my @expected = split /\n/, $expected;
	my @wrong = grep { ($got[$_] // '') ne ($expected[$_] // '') } 0 .. (@got > @expected ? $#got : $#expected);

	cmp_ok(scalar @got, '>=', $least, "$name: there are calls enough");
	is(scalar @wrong, 0, "$name: the router's outcomes are a node's");
	diag(map { substr($_, 0, 1000) } "router: $got[$_]\n", "node:   $expected[$_]\n") for grep { defined } @wrong[ 0 .. 4 ];
	return;
}

# A script: its text goes into a file of that name.
sub script
{
	my ($name, $text) = @_;
	append_to_file("$directory/$name", $text);
	return "$directory/$name";
}

# The error table. What changes a table belongs to the nodes, and settings are theirs.
my $table = script('table.sql', <<'SQL');
\i :pgtap/cases/bad_input_cases.sql
SELECT name, code, ub_test.outcome(call) ->> 'code' = code AS as_told,
	detail IS NULL OR coalesce(o ->> 'detail', '') ~ detail AS detail_as_told,
	NOT hint OR coalesce(o ->> 'hint', '') <> '' AS hint_as_told, o
FROM bad_input_case, LATERAL ub_test.outcome(call) o
WHERE call !~ '^(UPDATE|DELETE|TRUNCATE)' AND call !~ '(1e131071, ){2}' AND (call ~ '^SET LOCAL') = :settings
	AND (:'wanted' = '' OR call ~ :'wanted')
ORDER BY case_no
SQL
my ($got, $expected) = outcomes($table, '-v', 'settings=false', '-v', 'wanted=');
same_outcomes($got, $expected, 250, 'error table');
is(scalar(grep { !/\|t\|t\|t\|/ } split /\n/, $got), 0, 'error table: each has the SQLSTATE, detail and hint that the table says')
  or diag(grep { !/\|t\|t\|t\|/ } map { "$_\n" } split /\n/, $got);

# A node's settings decide, whatever a session of the router sets.
for my $setting ([ 'max_batch_size', 2 ], [ 'revert_once', 'off' ])
{
	my ($name, $value) = @$setting;
	$_->safe_psql('empty_bucket', "LOAD 'usage_billing'; ALTER SYSTEM SET usage_billing.$name = $value") for @{ $cluster->{servers} };
	$_->reload for @{ $cluster->{servers} };
	$_->poll_query_until('empty_bucket', "SELECT current_setting('usage_billing.$name', true) = '$value'")
	  for @{ $cluster->{servers} };
	my ($got, $expected) = outcomes($table, '-v', 'settings=true', '-v', "wanted=$name");
	same_outcomes($got, $expected, 1, "error table, $name = $value on the nodes");
	is(scalar(grep { !/\|t\|t\|t\|/ } split /\n/, $got), 0, "error table, $name: as the table says");
	$_->safe_psql('empty_bucket', "LOAD 'usage_billing'; ALTER SYSTEM RESET usage_billing.$name") for @{ $cluster->{servers} };
	$_->reload for @{ $cluster->{servers} };
}

# Who asks for what, in every way: claims, roles, functions, choices.
$router->safe_psql('postgres', 'CREATE ROLE app_service; CREATE ROLE app_member IN ROLE app_service; CREATE ROLE app_plain; CREATE ROLE app_boss SUPERUSER');
for my $database ('router', 'single')
{
	$router->safe_psql('postgres', "ALTER DATABASE $database SET usage_billing.service_role = 'app_service'");
	$router->safe_psql($database, q{
		GRANT USAGE ON SCHEMA usage_billing TO app_service, app_plain;
		GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usage_billing TO app_service, app_plain});
}
my $asking = script('asking.sql', <<'SQL');
SELECT format('%s %s(%s)', claims, f, concat_ws(', ', arguments, choice)),
	ub_test.outcome(format('SELECT * FROM usage_billing.%s(%s)', f, concat_ws(', ', arguments, choice)), claims)
FROM (VALUES (1, ''), (2, '{"org_id": "org_a"}'), (3, '{"role": "x", "org_id": "org_b"}'), (4, '{"org_id": "org_none"}'),
	(5, '{"org_id": "org_lonely"}'), (6, '{"role": "x"}'), (7, '{"org_id": null}'), (8, '{"org_id": 5}'), (9, '{"org_id": ""}'),
	(10, '[]'), (11, '"org_a"'), (12, '{not json'), (13, '{"org_id": "org_a", "org_id": "org_b"}')) AS c (claims_no, claims)
CROSS JOIN (VALUES
	('account_balance', NULL), ('total_debited', NULL), ('account_transactions', 'max_rows => 2'),
	('account_usage_trend', $$"from" => '2024-05-01', "to" => '2024-05-02', include => 'trend'$$),
	('usage_series', $$'2024-05-01', '2024-05-02', source => 'api', type => 'credit'$$),
	('create_usage', $$'[{"id": "x"}]'$$), ('create_usage', $$'[]'$$),
	('grant_credits', $$'00000000-0000-4000-8000-000000000011', 0$$), ('revert_usage', $$'00000000-0000-4000-8000-000000000001', 0$$),
	('close_billing_period', $$'2999-01-01'$$)
) AS functions (f, arguments)
CROSS JOIN (VALUES
	(NULL), ($$billing_id => 'acc_a'$$), ($$billing_id => 'acc_a2', org_id => ''$$), ($$billing_id => 'acc_b'$$), ($$billing_id => 'no'$$),
	($$org_id => 'org_a'$$), ($$org_id => 'org_b'$$), ($$org_id => 'no'$$), ($$org_id => 'org_lonely'$$),
	($$project_id => 'prj_a'$$), ($$project_id => 'prj_b'$$), ($$project_id => 'no'$$), ($$project_id => 'prj_lonely'$$),
	($$billing_id => 'acc_a', org_id => 'org_a'$$), ($$billing_id => 'acc_a', org_id => 'org_b'$$), ($$billing_id => 'acc_a', org_id => 'no'$$),
	($$billing_id => 'acc_a', project_id => 'prj_a'$$), ($$billing_id => 'acc_a', project_id => 'prj_b'$$),
	($$billing_id => 'acc_a', project_id => 'no'$$), ($$billing_id => 'no', project_id => 'prj_b'$$), ($$billing_id => 'no', org_id => 'org_a'$$),
	($$billing_id => 'no', project_id => 'no'$$), ($$org_id => 'org_a', project_id => 'prj_a'$$), ($$org_id => 'org_a', project_id => 'prj_b'$$),
	($$billing_id => 'acc_a', org_id => 'org_b', project_id => 'prj_b'$$), ($$billing_id => repeat('x', 256)$$),
	($$billing_id => 'acc_a', project_id => repeat('x', 300)$$), ($$org_id => repeat('x', 3000)$$)
) AS choices (choice)
ORDER BY claims_no, 1;
SELECT format('%s %s', claims, call), ub_test.outcome('SELECT * FROM usage_billing.' || call, claims)
FROM (VALUES (1, ''), (2, '{"org_id": "org_a"}'), (3, '{"org_id": "org_b"}'), (4, '{"role": "x"}'), (5, '{'), (6, '{"org_id": 5}')) AS c (claims_no, claims)
CROSS JOIN (VALUES
	($$create_billing_account('org_a', 'acc_a')$$), ($$create_billing_account('org_b', 'acc_a')$$), ($$create_billing_account('org_a', 'acc_a', 5)$$),
	($$create_billing_account('org_none', 'acc_a', 7, false, '{"k": 2}')$$), ($$create_billing_account('org_a', 'acc_b', 7)$$),
	($$create_billing_account(billing_id => 'acc_a')$$), ($$create_billing_account(billing_id => 'acc_b')$$),
	($$create_billing_account('org_a', 'new', is_default => true)$$), ($$create_billing_account('org_a', repeat('x', 3000))$$),
	($$create_billing_account(repeat('x', 3000), 'new')$$), ($$create_billing_account('org_a', 'new', metadata => '[]')$$),
	($$create_project('prj_a', 'org_a')$$), ($$create_project('prj_a', 'org_b')$$), ($$create_project('prj_a')$$), ($$create_project('prj_b')$$),
	($$create_project(NULL)$$), ($$create_project('', 'org_a')$$), ($$create_project(repeat('x', 3000), 'org_a')$$),
	($$get_storage_usage('no')$$), ($$get_storage_usage('org_a')$$), ($$get_storage_usage()$$), ($$get_storage_usage(repeat('x', 3000))$$),
	($$get_storage_usage_history(0, 'org_a')$$), ($$get_storage_usage_history(org_id => 'no')$$), ($$get_storage_usage_history(org_id => 'org_a')$$),
	($$refresh_storage_usage('no')$$), ($$recount_storage_usage('no')$$), ($$set_storage_limits('org_a', -1)$$), ($$set_storage_limits(NULL, 1)$$),
	($$verify()$$), ($$verify('acc_a')$$), ($$verify('no')$$), ($$rebuild('acc_b')$$), ($$rebuild()$$), ($$run_maintenance()$$)
) AS calls (call)
ORDER BY claims_no, 1;
SQL
for my $role ('app_plain', 'app_member', 'app_boss')
{
	local $ENV{PGOPTIONS} = "-c role=$role";
	($got, $expected) = outcomes($asking);
	same_outcomes($got, $expected, 3500, "requests by $role");
	cmp_ok(scalar(() = $got =~ /"answer"/g), '>', 100, "requests by $role: many succeed");
}
ok($cluster->all_buckets($STATE) eq state_of_single(), 'the facts are still the same');
ok($before eq state_of_single(), 'and nothing changed them');
is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify finds nothing');
is($cluster->sql('SELECT * FROM usage_billing.verify_directory()'), '', 'no failed creation left anything in the directory');

# Read-only transactions: what only reads works, what writes says so.
my $read_only = script('read_only.sql', <<'SQL');
SET default_transaction_read_only = on;
SELECT call, ub_test.outcome('SELECT * FROM usage_billing.' || call)
FROM (VALUES ('account_balance(org_id => ''org_a'')'), ('total_debited(''acc_a'')'), ('account_transactions(billing_id => ''acc_a'')'),
	('account_usage_trend(billing_id => ''acc_a'', "from" => ''2024-05-01'', "to" => ''2024-05-02'')'), ('verify()'),
	('usage_series(''2024-05-01'', ''2024-05-02'', billing_id => ''acc_a'')'), ('get_storage_usage(''org_a'')'), ('get_storage_usage_history(5, ''org_a'')'),
	('create_usage(''[]'', ''acc_a'')'), ('grant_credits(ub_test.id(90), 5, ''acc_a'')'), ('revert_usage(ub_test.id(3), billing_id => ''acc_a'')'),
	('create_billing_account(''org_new'', ''new'')'), ('create_project(''new'', ''org_a'')'), ('close_billing_period(billing_id => ''acc_a'')'),
	('refresh_storage_usage(''org_a'')'), ('recount_storage_usage(''org_a'')'), ('set_storage_limits(''org_a'', 1)'), ('run_maintenance()'), ('rebuild()')) AS c (call);
SQL
same_outcomes(outcomes($read_only), 19, 'read-only transactions');

# ---------------------------------------------------------------------------
# The directory.

my $made = $cluster->sql("SELECT billing_id FROM usage_billing.create_billing_account('org_new') WHERE is_default");
like($made, qr/^[0-9a-f-]{36}$/, 'create_billing_account makes up an id');
is($cluster->sql("SELECT org_id FROM usage_billing.directory_account WHERE billing_id = '$made'"), 'org_new', 'the same one for node and directory');
$cluster->sql("SELECT usage_billing.create_billing_account('org_new', 'acc_new')");

# The node has committed and the directory has not: the same call again mends it.
my $undone = "SELECT usage_billing.create_billing_account('org_undone', 'acc_undone'); SELECT usage_billing.create_project('prj_undone', 'org_undone')";
$cluster->sql("BEGIN; $undone; ROLLBACK");
is($cluster->sql("SELECT count(*) FROM usage_billing.verify_directory()"), 2, 'a creation that broke after the node is seen');
is((RouterNodes::outcome($router, 'router', "SELECT usage_billing.account_balance('acc_undone')"))[0], 'PT404', 'the account was never acknowledged and is not known');
$cluster->sql($undone);
is($cluster->sql("SELECT count(*) FROM usage_billing.verify_directory()"), 0, 'the same calls again mend it');
is($cluster->sql("SELECT usage_billing.account_balance(project_id => 'prj_undone') ->> 'billing_id'"), 'acc_undone', 'and it is found by its project');

# One id is one organisation's, also where two ask at once for different buckets.
my $one = $router->background_psql('router');
$one->query_safe("BEGIN; SELECT usage_billing.create_billing_account('org_a', 'acc_race')");
my $other = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=sqlstate', '-d', $cluster->router_dsn,
		'-c', "SELECT usage_billing.create_billing_account('org_b', 'acc_race')" ], '>', \my $out, '2>', \my $err);
$router->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'acc_race'")
  or die 'nobody waits';
$one->query_safe('COMMIT');
$one->quit;
$other->finish;
like($err, qr/23505/, 'two organisations at once: the second is told that the id is taken');
is($cluster->all_buckets("SELECT org_id FROM usage_billing.billing_account WHERE billing_id = 'acc_race'"), 'org_a', 'and it is in one bucket only');

# An organisation can be in another bucket than its hash says.
my $elsewhere = ($cluster->bucket_of('org_alone') + 1) % $RouterNodes::BUCKETS;
$cluster->sql("INSERT INTO usage_billing.directory_organisation VALUES ('org_alone', $elsewhere)");
$cluster->sql("SELECT usage_billing.create_billing_account('org_alone', 'acc_alone')");
is($cluster->bucket_sql($elsewhere, "SELECT count(*) FROM usage_billing.billing_account WHERE billing_id = 'acc_alone'"), 1,
	'the directory decides where an organisation is');
is($cluster->sql("SELECT usage_billing.account_balance(org_id => 'org_alone') ->> 'billing_id'"), 'acc_alone', 'for every call');

# The directory has an account that its bucket lost: nobody else gets its id.
$cluster->sql("INSERT INTO usage_billing.directory_account VALUES ('acc_lost', 'org_a')");
is((RouterNodes::outcome($router, 'router', "SELECT usage_billing.create_billing_account('org_b', 'acc_lost')"))[0], '55000',
	'an id that the directory has for another organisation is refused');
is($cluster->all_buckets("SELECT 1 FROM usage_billing.billing_account WHERE billing_id = 'acc_lost'"), '', 'and is created nowhere');
is($cluster->sql('SELECT subject, key FROM usage_billing.verify_directory()'), 'account|acc_lost', 'verify_directory sees it');
$cluster->sql("DELETE FROM usage_billing.directory_account WHERE billing_id = 'acc_lost'");

# ---------------------------------------------------------------------------
# What only a router has.

is($cluster->sql(<<'SQL'), "1|2|0|\n2|||PT404\n3|0|2|\n4|||UB001\n5|||22023", 'create_usage_many: each call by itself, in the order asked for');
SELECT usage_billing.grant_credits(ub_test.id(80), 100, 'acc_new') \g /dev/null
SELECT call_no, result ->> 'created', result ->> 'duplicates', error ->> 'code'
FROM usage_billing.create_usage_many(ub_test.expand('[
	{"billing_id": "acc_new", "usages": [{"id": "@81", "amount": 1}, {"id": "@82", "amount": 2}]},
	{"org_id": "nobody", "usages": []},
	{"billing_id": "acc_new", "usages": [{"id": "@82", "amount": 2}, {"id": "@81", "amount": 1}]},
	{"billing_id": "acc_alone", "usages": [{"id": "@83", "amount": 1}]},
	{"billing_id": "acc_a"}]')::jsonb) ORDER BY call_no
SQL
is((RouterNodes::outcome($router, 'router', "SELECT * FROM usage_billing.create_usage_many('[5]')"))[0], '22023', 'create_usage_many: an array of objects');
is($cluster->sql("SELECT count(*) FROM usage_billing.create_usage_many('[]')"), 0, 'create_usage_many: no calls are fine');
is((RouterNodes::outcome($router, 'router', "SELECT usage_billing.track_storage('pg_class', 'a', 'b')"))[0], '0A000', 'a router tracks no tables');
is($cluster->sql('SELECT count(*), count(DISTINCT duty) FROM usage_billing.maintenance_status'), '80|5', 'maintenance_status has the duties of all buckets');
is($cluster->sql('SET ROLE pg_monitor; SELECT count(DISTINCT bucket) FROM usage_billing.bucket_maintenance_status'), 16, 'who may watch the server sees each bucket');
is($cluster->sql('SELECT count(*) FROM usage_billing.bucket_status() WHERE problem IS NULL'), 16, 'bucket_status: all answer');

# On a node the router's role may make routed calls and nothing else, others not even that.
$_->safe_psql('postgres', 'CREATE ROLE stranger LOGIN') for @{ $cluster->{servers} };
for my $try ([ 'router', 'usage_billing.account_balance(\'acc_a\')', '42501' ], [ 'stranger', 'usage_billing.account_balance(\'acc_a\')', '42501' ],
	[ 'stranger', "usage_billing.routed_call('account_balance', '{acc_a}', NULL, '{}')", '42501' ],
	[ 'router', "1 FROM usage_billing.usage", '42501' ], [ 'router', "usage_billing.routed_begin('{}')", '42501' ],
	[ 'router', "usage_billing.routed_call('account_balance', '{acc_a}', NULL, '{}')", '00000' ])
{
	my ($role, $call, $state) = @$try;
	my (undef, $err) = run_command([ 'psql', '-X', '-q', '-v', 'VERBOSITY=sqlstate', '-d', $cluster->connection($cluster->bucket_of('org_a'), $role), '-c', "SELECT $call" ]);
	is(($err =~ /(\w{5})$/)[0] // '00000', $state, "on a node, $role: $call");
}

# A standby of the router serves everything but creations.
$router->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($router, 'b', has_streaming => 1);
$standby->start;
$router->wait_for_catchup($standby);
is($standby->safe_psql('router', q{SELECT usage_billing.create_usage(ub_test.expand('[{"id": "@85", "amount": 3}]')::jsonb, 'acc_new')}),
	'{"balance": 94, "created": 1, "duplicates": 0}', 'a standby of the router takes usage');
is($standby->safe_psql('router', q{SELECT usage_billing.account_balance('acc_new') ->> 'balance'}), 94, 'and reads');
is((RouterNodes::outcome($standby, 'router', "SELECT usage_billing.create_project('prj_standby', 'org_a')"))[0], '25006', 'and refuses what the directory has to know');
is($cluster->all_buckets("SELECT 1 FROM usage_billing.project WHERE project_id = 'prj_standby'"), '', 'before it is in a bucket');
$standby->stop;

# The router's own state is dumped.
$router->command_ok([ 'pg_dump', '-Fc', '-d', $cluster->router_dsn, '-f', "$directory/router.dump" ], 'pg_dump of a router');
$router->safe_psql('postgres', 'CREATE DATABASE restored');
$router->command_ok([ 'pg_restore', '-e', '-d', $router->connstr('restored'), "$directory/router.dump" ], 'pg_restore of it');
is($router->safe_psql('restored', "SELECT usage_billing.account_balance(project_id => 'prj_undone') ->> 'billing_id'"), 'acc_undone', 'the restored router works');

is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify finds nothing at the end');
my $log = join '', map { slurp_file($_->logfile) } @{ $cluster->{servers} };
unlike($log, qr/PANIC|is not available/, 'nothing broke, and every bucket was always there');

$cluster->stop;
done_testing();
