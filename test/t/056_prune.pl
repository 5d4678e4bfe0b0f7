# Retention on a server that goes on working: batches beside writers, reverts
# and folds; what a batch costs; a crash in the middle; and dumps of what is
# left, which restore to the same books.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Killer;

my $node = BillingNode::start(autovacuum => 'off', restart_after_crash => 'on');
my $directory = PostgreSQL::Test::Utils::tempdir();

sub value { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

value(<<'SQL');
SELECT count(usage_billing.create_billing_account('org-' || n, 'account-' || n, credit_min => -100000000)) FROM generate_series(1, 20) n;
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at)
	SELECT 'account-' || 1 + n % 20, md5('old' || n)::uuid, (ARRAY['credit', 'credit', 'feature'])[1 + n % 3]::usage_billing.usage_type, n % 100,
		(ARRAY['api', 'vod_streams'])[1 + n % 2], jsonb_build_object('viewing_seconds', n % 60, 'viewing_bytes', n),
		timestamptz '2024-05-01 00:00Z' + n * interval '6 minutes'
	FROM generate_series(1, 12000) n;
SELECT count(usage_billing.revert_usage(id, greatest(amount / 2, 1), billing_id)) FROM usage_billing.usage WHERE amount % 20 = 7;
SELECT count(usage_billing.close_billing_period('2024-06-15 00:00Z', billing_id)) FROM usage_billing.billing_account WHERE billing_id <> 'account-20';
SELECT pg_stat_force_next_flush();
SQL

# All sums that can be asked for, and the facts but for single usages.
my $SUMS = <<'SQL';
SELECT 'account ' || billing_id, usage_billing.total_debited(billing_id)::text, usage_billing.account_balance(billing_id)::text,
	md5((SELECT string_agg(s::text, ',' ORDER BY s) FROM usage_billing.usage_series('2024-05-01Z', '2024-07-01Z', billing_id => billing_id) s)),
	md5(usage_billing.account_usage_trend('2024-05-01', '2024-07-01', NULL, 'trend', billing_id)::text)
FROM usage_billing.billing_account
UNION ALL
SELECT 'reverts', count(*)::text, md5(string_agg(r::text, ',' ORDER BY billing_id, id)), '', '' FROM usage_billing.usage_revert r
ORDER BY 1
SQL
my $FACTS = <<'SQL';
SELECT 'usage', count(*), md5(string_agg(u::text, ',' ORDER BY billing_id, id)) FROM usage_billing.usage u
UNION ALL
SELECT 'archive', count(*), md5(string_agg(a::text, ',' ORDER BY billing_id, id)) FROM usage_billing.usage_archive a
ORDER BY 1
SQL

# ---------------------------------------------------------------------------
# A batch costs what it moves, wherever it is and however much is there.

value('ANALYZE usage_billing.usage, usage_billing.billing_account');
my $before = value($SUMS);
my $counts = q{SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relid = 'usage_billing.usage'::regclass};
my $flush = 'SELECT pg_stat_force_next_flush()';
my ($scans, $fetched) = split /\|/, value("$flush; $counts") =~ s/^\n//r;
is(value(<<"SQL") =~ s/\n//gr, '10' x 10, 'ten batches');
DO 'BEGIN PERFORM usage_billing.prune_usage(''2024-06-01Z'', max_rows => 1000); END';
SELECT usage_billing.prune_usage('2024-06-01Z', max_rows => 10) FROM generate_series(1, 10);
$flush
SQL
my ($scans_after, $fetched_after) = split /\|/, value($counts);
is($scans_after, $scans, 'no batch reads the whole table');
cmp_ok($fetched_after - $fetched, '<', 3 * 1100 + 500, 'nor more of it than a few rows for each that it moves');
is(value($SUMS), $before, 'and no sum changes');

# ---------------------------------------------------------------------------
# The loop of the documentation, beside writers, reverts and folds.

sub running
{
	my ($sql) = @_;
	my $file = "$directory/script-" . int(rand 1e9) . '.sql';
	my $run = { err => '', out => '' };
	append_to_file($file, $sql);
	$run->{psql} = IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 4, '-f', $file, $node->connstr('postgres') ], '>', \$run->{out}, '2>', \$run->{err});
	return $run;
}

my @beside = (running(<<'SQL'), running(<<'SQL'), running(<<'SQL'), running('SELECT usage_billing.run_maintenance();'));
\set a random(1, 20)
\set n random(1, 12000)
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 3, 'source', 'api',
	'created_at', timestamptz '2024-05-01 00:00Z' + :n * interval '6 minutes')), 'account-' || :a);
SQL
\set a random(1, 20)
DO $$ BEGIN
	PERFORM usage_billing.revert_usage(u.id, billing_id => u.billing_id) FROM (SELECT * FROM usage_billing.usage u
		WHERE NOT EXISTS (SELECT FROM usage_billing.usage_revert r WHERE (r.billing_id, r.usage_id) = (u.billing_id, u.id)) AND amount > 0
		ORDER BY billing_id, created_at OFFSET (random() * 50)::int LIMIT 1) u;
EXCEPTION WHEN SQLSTATE 'PT404' OR unique_violation THEN
	NULL;
END $$;
SQL
SELECT usage_billing.prune_usage('2024-05-20Z', max_rows => 37);
SQL
my $loop = <<'SQL';
DO $$
BEGIN
	LOOP
		EXIT WHEN usage_billing.prune_usage('2024-06-01Z', max_rows => 300) = 0;
		COMMIT;
	END LOOP;
END $$;
SQL
for my $round (1 .. 3)
{
	is((BillingNode::outcome($node, 'postgres', $loop))[0], '00000', "the loop, round $round");
	is(BillingNode::differences($node, 'postgres'), '', "round $round: verify() finds nothing meanwhile");
}
ok($_->{psql}->finish, 'no client beside it met an error') or diag($_->{err}) for @beside;
value($loop);
is(value(q{SELECT count(*) FROM usage_billing.usage u JOIN usage_billing.billing_account USING (billing_id)
	WHERE last_billed_at IS NOT NULL AND u.created_at < '2024-06-01Z'}), 0, 'in the end nothing is left that should have gone');
is(value(q{SELECT count(*) > 0 FROM usage_billing.usage WHERE billing_id = 'account-20' AND created_at < '2024-06-01Z'}), 't', 'what was not billed stays');
is(BillingNode::differences($node, 'postgres'), '', 'verify() finds nothing');

# ---------------------------------------------------------------------------
# A crash in the middle of a batch leaves nothing or all of it.

$before = value($SUMS);
my $facts = value($FACTS);
my $pruner = $node->background_psql('postgres');
$pruner->query_safe("BEGIN; SELECT usage_billing.prune_usage('2024-06-10Z', max_rows => 500)");
my $pid = $pruner->query_safe('SELECT pg_backend_pid()');
value('CHECKPOINT');
Killer::kill_one($pid);
eval { $pruner->quit };
ok($node->poll_query_until('postgres', 'SELECT true'), 'the server is there again');
is(value($FACTS), $facts, 'a batch that was not committed is undone');
is(value($SUMS), $before, 'and no sum changed');
value("SELECT usage_billing.prune_usage('2024-06-10Z', max_rows => 500)");
$facts = value($FACTS);
$node->stop('immediate');
$node->start;
is(value($FACTS), $facts, 'one that was committed stays');
is(value($SUMS), $before, 'and no sum changed by that');

# ---------------------------------------------------------------------------
# Dumps, with late usage beside the archive of its hour, and an hour that was
# archived twice.

value(<<'SQL');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('late')::uuid, 'amount', 11, 'created_at', '2024-05-02T10:10:00Z')), 'account-1');
SELECT usage_billing.prune_usage('2024-06-10Z', 'account-1');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('later')::uuid, 'amount', 12, 'created_at', '2024-05-02T10:20:00Z')), 'account-1');
SQL
$before = value($SUMS);
$facts = value($FACTS);
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('postgres'), '-f', "$directory/custom" ], 'pg_dump -Fc');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$directory/plain" ], 'pg_dump as text');

sub restored
{
	my ($database, $name) = @_;
	is(value($FACTS, $database), $facts, "$name: the same usage and archive");
	is(value($SUMS, $database), $before, "$name: the same sums");
	is(BillingNode::differences($node, $database), '', "$name: verify() finds nothing");
	return;
}

value("CREATE DATABASE $_ TEMPLATE template0") for qw(whole text data);
$node->command_ok([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr('whole'), "$directory/custom" ], 'pg_restore -j 4');
restored('whole', 'whole');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('text'), '-f', "$directory/plain" ], 'text');
restored('text', 'text');
value('CREATE EXTENSION usage_billing', 'data');
for my $time ('once', 'twice')
{
	$node->command_ok([ 'pg_restore', '-e', '-a', '-j', '4', '-d', $node->connstr('data'), "$directory/custom" ], "pg_restore --data-only $time");
	restored('data', "data $time");
}

# The restored database goes on: retention, reverts, the next dump over an older
# restore adds what is new in it.
is(value(q{SELECT usage_billing.revert_usage(md5('later')::uuid, billing_id => 'account-1') ->> 'amount'}, 'whole'), 12, 'late usage can be reverted');
is((BillingNode::outcome($node, 'whole', q{SELECT usage_billing.revert_usage(md5('late')::uuid, billing_id => 'account-1')}))[0], 'PT404', 'what was pruned is not there');
value("SELECT usage_billing.prune_usage('2024-06-10Z', 'account-1')", 'whole');
is(BillingNode::differences($node, 'whole'), '', 'and it goes with the next batch');
value(q{DELETE FROM usage_billing.billing_account WHERE billing_id = 'nobody'});
my $archive = "$directory/archive.copy";
value(q{INSERT INTO usage_billing.usage_archive (billing_id, hour, amount, events) VALUES ('account-2', '2020-01-01Z', 5, 1)});
value("COPY usage_billing.usage_archive TO '$archive'");
value("COPY usage_billing.usage_archive FROM '$archive'", 'data');
is(value($SUMS, 'data'), value($SUMS), 'an archive that has grown adds what is new');
value("COPY usage_billing.usage_archive FROM '$archive'", 'data');
is(value($SUMS, 'data'), value($SUMS), 'once');

$node->stop;
done_testing();
