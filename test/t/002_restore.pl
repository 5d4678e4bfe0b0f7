# Dump and restore: the facts are dumped, all else comes from the triggers that
# fire while they are loaded. In any order, once or twice, with folds going on.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

my $node = BillingNode::start(log_statement => 'none');
my $directory = PostgreSQL::Test::Utils::tempdir();
my $connstr = $node->connstr;

sub database
{
	my ($name, $extension) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION usage_billing') if $extension;
	return $name;
}

# Facts of every kind, by every way in; an account that is closed, one that
# history left far under its credit_min, one without any facts.
my $source = database('source', 1);
$node->safe_psql($source, <<'SQL');
SET usage_billing.revert_once = off;
SELECT usage_billing.create_billing_account('org-' || n % 5, 'account-' || n, credit_min => -1000) FROM generate_series(1, 20) n;
SELECT usage_billing.create_project('project-' || n, 'org-' || n) FROM generate_series(0, 4) n;
SELECT usage_billing.grant_credits(md5('grant' || n)::uuid, 100000 + n, 'account-' || n) FROM generate_series(1, 19) n;
SELECT usage_billing.create_usage((
	SELECT jsonb_agg(jsonb_build_object('id', md5(concat_ws('/', 'call', a, n))::uuid, 'amount', n % 50,
		'type', CASE WHEN n % 3 = 0 THEN 'feature' ELSE 'credit' END,
		'source', CASE WHEN n % 6 = 0 THEN 'vod_streams' ELSE 'api' END,
		'metadata', CASE WHEN n % 6 = 0 THEN jsonb_build_object('viewing_seconds', n * 7, 'viewing_bytes', n::bigint * 1000003) ELSE '{}' END,
		'created_at', timestamptz '2024-05-01 00:00Z' + n * interval '7 minutes'))
	FROM generate_series(1, 400) n), 'account-' || a)
FROM generate_series(1, 19) a;
INSERT INTO usage_billing.usage (billing_id, id, amount, source, description, user_id, metadata)
	SELECT 'account-' || 1 + n % 19, md5('load' || n)::uuid, n % 100, 'Import', E'line\n\t' || n, '', '{"a": [1, 2]}'
	FROM generate_series(1, 5000) n;
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('account-7', md5('history')::uuid, 9000000);
SELECT usage_billing.revert_usage(id, amount / 2, billing_id, description => 'half') FROM usage_billing.usage WHERE amount % 10 = 6;
SELECT usage_billing.revert_usage(id, billing_id => billing_id) FROM usage_billing.usage WHERE amount % 20 = 6 OR amount % 10 = 7;
UPDATE usage_billing.billing_account SET state = 'closed', last_billed_at = '2024-05-02 00:00Z' WHERE billing_id = 'account-3';
SQL

# All that can be seen of a database: facts, balances, and the sums of hours.
my $PICTURE = <<'SQL';
SELECT 'account', count(*), md5(string_agg(t::text, ',' ORDER BY billing_id)) FROM usage_billing.billing_account t
UNION ALL
SELECT 'project', count(*), md5(string_agg(t::text, ',' ORDER BY project_id)) FROM usage_billing.project t
UNION ALL
SELECT 'usage', count(*), md5(string_agg(t::text, ',' ORDER BY billing_id, id)) FROM usage_billing.usage t
UNION ALL
SELECT 'grant', count(*), md5(string_agg(t::text, ',' ORDER BY billing_id, id)) FROM usage_billing.credit_grant t
UNION ALL
SELECT 'revert', count(*), md5(string_agg(t::text, ',' ORDER BY billing_id, id)) FROM usage_billing.usage_revert t
UNION ALL
SELECT 'balance ' || billing_id, usage_billing.total_debited(billing_id), usage_billing.account_balance(billing_id)::text
FROM usage_billing.billing_account
UNION ALL
SELECT 'hours', count(*), md5(string_agg(t::text, ',' ORDER BY billing_id, hour, source, type)) FROM (
	SELECT billing_id, hour, source, type, SUMS FROM (
		SELECT COLUMNS FROM usage_billing.usage_hourly
		UNION ALL
		SELECT COLUMNS FROM usage_billing.usage_delta WHERE type IS NOT NULL) u
	GROUP BY 1, 2, 3, 4 HAVING (SUMS) <> (0, 0, 0, 0, 0, 0, 0)) t
ORDER BY 1
SQL

my @SUMS = qw(amount events viewing_seconds viewing_bytes egress_seconds egress_seconds_additional_targets egress_bytes);
$PICTURE =~ s/SUMS/join ', ', map { "coalesce(sum($_), 0)" } @SUMS/ge;
$PICTURE =~ s/COLUMNS/join ', ', qw(billing_id hour source type), @SUMS/ge;

sub picture { return $node->safe_psql($_[0], $PICTURE); }

# Runs sql over and over in the background until finish() is called on it.
sub again_and_again
{
	my ($database, $sql) = @_;
	my $running = { stop => "$directory/stop-" . int rand 1e9, out => '', err => '' };
	my $script = "$running->{stop}.sql";

	append_to_file($script, join '',
		map { "$sql;\n\\set stop `test -e $running->{stop} && echo on || echo off`\n\\if :stop\n\\q\n\\endif\n" } 1 .. 3000);
	$running->{psql} = IPC::Run::start(
		[ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', $script ],
		'>', \$running->{out}, '2>', \$running->{err});
	return $running;
}

sub finish
{
	my ($running, $name) = @_;
	append_to_file($running->{stop}, '');
	ok($running->{psql}->finish, $name) or diag($running->{err});
	return;
}

# ---------------------------------------------------------------------------
# Dumps while folds are going on.

is(BillingNode::differences($node, $source), '', 'the source is sound');
my $before = picture($source);
my $folding = again_and_again($source, 'SELECT usage_billing.run_maintenance()');

# there is something to fold all the time, and it adds up to nothing
my $churning = again_and_again($source, <<'SQL');
BEGIN;
SELECT usage_billing.rebuild('account-5');
INSERT INTO usage_billing.usage_delta (billing_id, hour, source, credits)
	VALUES ('account-5', '-infinity', '', 1), ('account-5', '-infinity', '', -1);
COMMIT
SQL
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr($source), '-f', "$directory/custom" ], 'pg_dump -Fc beside folds');
$node->command_ok([ 'pg_dump', '-Fd', '-j', '2', '-d', $node->connstr($source), '-f', "$directory/dir" ], 'pg_dump -Fd -j 2 beside folds');
$node->command_ok([ 'pg_dump', '-Fc', '-a', '-d', $node->connstr($source), '-f', "$directory/data" ], 'pg_dump --data-only beside folds');
$node->command_ok([ 'pg_dump', '-d', $node->connstr($source), '-f', "$directory/plain" ], 'pg_dump as text beside folds');
finish($churning, 'the source changed and changed back beside the dumps');
finish($folding, 'run_maintenance went on beside the dumps');
is(picture($source), $before, 'nothing that can be seen changed in the source');
is(BillingNode::differences($node, $source), '', 'the source is still sound');

my ($contents) = run_command([ 'pg_restore', '-l', "$directory/custom" ]);
like($contents, qr/TABLE DATA usage_billing usage /, 'facts are dumped');
unlike($contents, qr/TABLE DATA usage_billing (?:usage_delta|usage_hourly|credit_balance) /, 'derived tables are not dumped');

sub restores_as_before
{
	my ($database, $name) = @_;
	is(picture($database), $before, "$name: facts, balances and hours are equal");
	is(BillingNode::differences($node, $database), '', "$name: verify() finds nothing");
	return;
}

for my $format ('custom', 'dir')
{
	my $to = database("to_$format");
	$node->command_ok([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr($to), "$directory/$format" ],
		"pg_restore -j 4 of $format into an empty database");
	restores_as_before($to, $format);
}

my $plain = database('to_plain');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($plain), '-f', "$directory/plain" ],
	'the dump as text into an empty database');
restores_as_before($plain, 'text');
$node->safe_psql($plain, 'SELECT usage_billing.run_maintenance()');
restores_as_before($plain, 'text, folded');

# The restored database goes on as the source would: ids are known, credit is
# what it was.
is($node->safe_psql($plain, <<'SQL'), '0|1', 'a restored usage is known');
SELECT j ->> 'created', j ->> 'duplicates' FROM usage_billing.create_usage(
	jsonb_build_array(jsonb_build_object('id', md5('call/1/1')::uuid, 'amount', 1, 'source', 'api')), 'account-1') j
SQL
is((BillingNode::outcome($node, $plain, <<'SQL'))[0], 'UB001', 'a restored balance under credit_min admits nothing');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('new')::uuid, 'amount', 1)), 'account-7')
SQL

# ---------------------------------------------------------------------------
# Data only.

my $data = database('to_data', 1);
$node->command_ok([ 'pg_restore', '-e', '-a', '-j', '4', '-d', $node->connstr($data), "$directory/data" ],
	'pg_restore --data-only -j 4 into a database with a fresh extension');
restores_as_before($data, 'data only');

$node->command_ok([ 'pg_restore', '-e', '-a', '-j', '4', '-d', $node->connstr($data), "$directory/data" ],
	'the same data once more');
restores_as_before($data, 'data twice');

# A load that broke half-way is repeated: one account's facts were there.
my $half = database('to_half', 1);
my $broken = database('broken', 1);
$node->safe_psql($source, "COPY (SELECT * FROM usage_billing.billing_account) TO '$directory/billing_account.copy'");
$node->safe_psql($source, "COPY (SELECT * FROM usage_billing.usage WHERE billing_id IN ('account-1', 'account-7')) TO '$directory/usage.copy'");
$node->safe_psql($half, "COPY usage_billing.billing_account FROM '$directory/billing_account.copy'");
$node->safe_psql($half, "COPY usage_billing.usage FROM '$directory/usage.copy'");
is(BillingNode::differences($node, $half), '', 'half of a load: verify() finds nothing');
$node->command_ok([ 'pg_restore', '-e', '-a', '-j', '4', '-d', $node->connstr($half), "$directory/data" ],
	'the whole after half of it');
restores_as_before($half, 'half, then whole');

# ---------------------------------------------------------------------------
# Triggers disabled: the facts are there, nothing was posted.

my $silent = database('to_silent', 1);
$node->command_ok([ 'pg_restore', '-e', '-a', '--disable-triggers', '-d', $node->connstr($silent), "$directory/data" ],
	'pg_restore --data-only --disable-triggers');
is($node->safe_psql($silent, "SELECT count(*) FROM usage_billing.usage"),
	$node->safe_psql($source, "SELECT count(*) FROM usage_billing.usage"), 'the facts are there');
isnt(BillingNode::differences($node, $silent), '', 'verify() reports what is missing');
isnt($node->safe_psql($silent, "SELECT count(*) FROM usage_billing.verify('account-7')"), '0', 'verify() of one account too');
$node->safe_psql($silent, "SELECT usage_billing.rebuild('account-7')");
is($node->safe_psql($silent, "SELECT count(*) FROM usage_billing.verify('account-7')"), '0', 'rebuild() of one account mends it');
isnt(BillingNode::differences($node, $silent), '', 'and only that one');
$node->safe_psql($silent, 'SELECT usage_billing.rebuild()');
restores_as_before($silent, 'rebuilt');
$node->safe_psql($silent, 'SELECT usage_billing.run_maintenance()');
$node->safe_psql($silent, 'SELECT usage_billing.rebuild()');
restores_as_before($silent, 'rebuilt, folded and rebuilt');

# Facts without an account are reported, not mended.
$node->safe_psql($broken, <<'SQL');
SET usage_billing.restoring = on;
INSERT INTO usage_billing.billing_account (billing_id, org_id) VALUES ('known', 'org');
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('orphan', md5('orphan')::uuid, 5), ('known', md5('orphan')::uuid, 5);
SQL
like(BillingNode::differences($node, $broken), qr/orphan/, 'verify() reports a usage without an account');
unlike(BillingNode::differences($node, $broken), qr/known/, 'and only that');

# ---------------------------------------------------------------------------
# A dump beside writers is a picture of one moment, and sound in itself.

my $writing = again_and_again($source, <<'SQL');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1)), 'account-1');
SELECT usage_billing.grant_credits(gen_random_uuid(), 1, 'account-2');
SELECT usage_billing.revert_usage(id, billing_id => billing_id) FROM usage_billing.usage WHERE billing_id = 'account-1'
	AND created_at > now() - interval '1 second' AND NOT EXISTS (SELECT FROM usage_billing.usage_revert r WHERE r.usage_id = usage.id) LIMIT 1
SQL
$folding = again_and_again($source, 'SELECT usage_billing.run_maintenance()');
$node->command_ok([ 'pg_dump', '-Fd', '-j', '2', '-d', $node->connstr($source), '-f', "$directory/live" ],
	'pg_dump -Fd -j 2 beside writers and folds');
my $live = database('to_live');
$node->command_ok([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr($live), "$directory/live" ], 'pg_restore -j 4 of it');
finish($writing, 'writers went on beside the dump');
finish($folding, 'folds went on beside the dump');
is(BillingNode::differences($node, $live), '', 'live: verify() finds nothing');
is(BillingNode::differences($node, $source), '', 'live: nor in the source');

$node->stop;
done_testing();
