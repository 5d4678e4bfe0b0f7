# usage_billing_stats: what happened is counted once, what was undone is not,
# each database for itself.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Workers;

my $node = Workers::start('usage_billing.maintenance_worker' => 'off', autovacuum => 'off', max_prepared_transactions => 5);
my $directory = PostgreSQL::Test::Utils::tempdir();

sub value { return $node->safe_psql($_[1] // 'postgres', $_[0]); }
sub state { return (BillingNode::outcome($node, $_[1] // 'postgres', $_[0]))[0]; }

my @NAMES = qw(usages_created duplicates conflicts refused reverts grants usages_pruned admissions admissions_waited admissions_read
  folds deltas_folded refreshes maintenance_errors);
my %last;

sub stats
{
	my ($database) = @_;
	my %now;
	@now{@NAMES} = split /\|/, value('SELECT ' . join(', ', @NAMES) . ' FROM usage_billing.usage_billing_stats', $database), -1;
	return \%now;
}

# What was counted since the last time, as text without what is 0.
sub counted
{
	my ($want, $name, $database) = @_;
	$database //= 'postgres';
	my $now = stats($database);
	my $before = $last{$database} // {};
	is(join(' ', map { "$_ " . ($now->{$_} - ($before->{$_} // 0)) } grep { $now->{$_} != ($before->{$_} // 0) } @NAMES), $want, $name);
	$last{$database} = $now;
	return;
}

# An array of usages for create_usage, of so many credits each.
sub usages
{
	my ($amount, @n) = @_;
	my $list = join ', ', map { sprintf '{"id": "00000000-0000-4000-8000-%012d", "amount": %d, "created_at": "2024-01-01T10:00:00Z"}', $_, $amount } @n;
	return "'[$list]'";
}
sub id { return sprintf "'00000000-0000-4000-8000-%012d'", $_[0]; }

value('CREATE DATABASE other');
value('CREATE EXTENSION usage_billing', 'other');
counted('', 'nothing happened yet');
value("SELECT usage_billing.create_billing_account('o', 'a'), usage_billing.create_billing_account('o', 'b', credit_min => -1000)", $_) for qw(postgres other);
counted('', 'accounts are not counted');

# Facts by the functions.
value("SELECT usage_billing.grant_credits(${\id(900)}, 100, 'a')");
counted('grants 1', 'a grant');
value("SELECT usage_billing.grant_credits(${\id(900)}, 100, 'a')");
counted('duplicates 1', 'its repetition');
is(state("SELECT usage_billing.grant_credits(${\id(900)}, 101, 'a')"), '23505', 'another one');
counted('conflicts 1', 'with its id');
value("SELECT usage_billing.create_usage(${\usages(2, 1, 2, 3)}, 'a')");
counted('usages_created 3 admissions 1 admissions_read 1', 'usages; the account had no counter');
value("SELECT usage_billing.create_usage(${\usages(2, 2, 3, 4, 4)}, 'a')");
counted('usages_created 1 duplicates 3 admissions 1', 'some of them were there');
is(state("SELECT usage_billing.create_usage(${\usages(3, 4, 5)}, 'a')"), '23505', 'another payload');
counted('conflicts 1', 'is a conflict, and nothing else');
is(state("SELECT usage_billing.create_usage(${\usages(500, 6, 7)}, 'a')"), 'UB001', 'not enough');
counted('refused 1 admissions 1 admissions_read 1', 'is refused, after a look at the tables');
value(q{SELECT usage_billing.create_usage('[{"id": "00000000-0000-4000-8000-000000000050", "amount": 1, "type": "feature"}]', 'a')});
counted('usages_created 1', 'a feature needs no admission');
value("SELECT usage_billing.revert_usage(${\id(1)}, 1, 'a', id => ${\id(801)})");
counted('reverts 1', 'a revert');
value("SELECT usage_billing.revert_usage(${\id(1)}, 1, 'a', id => ${\id(801)})");
counted('duplicates 1', 'its repetition');
is(state("SELECT usage_billing.revert_usage(${\id(1)}, 1, 'a', id => ${\id(802)})"), '23505', 'a second one');
counted('conflicts 1', 'is a conflict');

# By COPY.
append_to_file("$directory/usage.copy", join '', map { "b\t" . id($_) =~ s/'//gr . "\t1\n" } 1 .. 200, 1 .. 10);
my $copy = "COPY usage_billing.usage (billing_id, id, amount) FROM '$directory/usage.copy'";
value($copy);
counted('usages_created 200 duplicates 10', 'COPY');
value($copy);
counted('duplicates 210', 'and again');
value("INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount) VALUES ('b', ${\id(1)}, 1), ('b', ${\id(2)}, 1), ('b', ${\id(1)}, 1)");
counted('duplicates 1 reverts 2', 'reverts by INSERT');
value("INSERT INTO usage_billing.credit_grant (billing_id, id, amount) VALUES ('b', ${\id(1)}, 1), ('b', ${\id(2)}, 1), ('b', ${\id(1)}, 1)");
counted('duplicates 1 grants 2', 'grants by INSERT');

# What is undone.
sub use_b { return "SELECT usage_billing.create_usage(${\usages(0, $_[0])}, 'b');"; }

value("BEGIN; ${\use_b(1001)} ROLLBACK");
counted('admissions 1 admissions_read 1', 'a transaction that is rolled back');
value("BEGIN; ${\use_b(1002)} SAVEPOINT s; ${\use_b(1003)} ROLLBACK TO s; SAVEPOINT t; ${\use_b(1004)} RELEASE t; COMMIT");
counted('usages_created 2 admissions 3', 'savepoints');
value("BEGIN; SAVEPOINT a; SAVEPOINT b; SAVEPOINT c; ${\use_b(1005)} RELEASE c; ${\use_b(1006)} RELEASE b; ROLLBACK TO a; ${\use_b(1007)} COMMIT");
counted('usages_created 1 admissions 3', 'nested savepoints, rolled back from the outside');
value("BEGIN; SAVEPOINT a; SAVEPOINT b; SAVEPOINT c; ${\use_b(1008)} RELEASE c; RELEASE b; ${\use_b(1009)} RELEASE a; ${\use_b(1010)} COMMIT");
counted('usages_created 3 admissions 3', 'and released');
value("BEGIN; SAVEPOINT a; ${\use_b(1011)} SAVEPOINT b; ${\use_b(1012)} SAVEPOINT c; ${\use_b(1013)} ROLLBACK TO b; ${\use_b(1014)} RELEASE a; COMMIT");
counted('usages_created 2 admissions 4', 'and in part');
value(<<"SQL");
DO \$\$ BEGIN
	${\(use_b(1015) =~ s/SELECT/PERFORM/r)}
	BEGIN
		${\(use_b(1016) =~ s/SELECT/PERFORM/r)}
		PERFORM usage_billing.create_usage(${\usages(5000, 1017)}, 'b');
	EXCEPTION WHEN SQLSTATE 'UB001' THEN
		NULL;
	END;
END \$\$
SQL
counted('usages_created 1 refused 1 admissions 3 admissions_read 1', 'an error that is caught is counted, what it undid is not');
value("BEGIN; ${\use_b(1018)} PREPARE TRANSACTION 'p'");
counted('usages_created 1 admissions 1', 'a prepared transaction counts when it is prepared');
value("COMMIT PREPARED 'p'");
counted('', 'not again when it is committed');

# Turns.
value('ALTER SYSTEM SET usage_billing.escrow = off');
value('SELECT pg_reload_conf()');
ok($node->poll_query_until('postgres', q{SELECT current_setting('usage_billing.escrow') = 'off' FROM (SELECT usage_billing.account_balance('a')) x}), 'without escrow');
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; ${\use_b(1019)}");
my ($out, $err) = ('', '');
my $waiter = IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', use_b(1020) ], '>', \$out, '2>', \$err);
ok($node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'a call waits for its turn');
$holder->query_safe('COMMIT');
ok($waiter->finish, 'and gets it') or diag($err);
$holder->quit;
counted('usages_created 2 admissions 2 admissions_waited 1 admissions_read 2', 'turns');
value('ALTER SYSTEM RESET usage_billing.escrow');
value('SELECT pg_reload_conf()');

# Maintenance.
my $deltas = value('SELECT count(*) FROM usage_billing.usage_delta');
cmp_ok($deltas, '>', 0, 'there is something to fold');
# a session that has ended may tell its counts a little later
ok($node->poll_query_until('postgres', "SELECT deltas_pending = $deltas FROM usage_billing.usage_billing_stats"), 'deltas_pending says so');
my $accounts = value('SELECT count(DISTINCT billing_id) FROM usage_billing.usage_delta');
value('SELECT usage_billing.run_maintenance()');
counted("folds $accounts deltas_folded $deltas", 'a fold of all');
value("INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('f', 'o', 1)");
value("SELECT usage_billing.refresh_storage_usage('o')");
counted('refreshes 1', 'a refresh');
value(<<"SQL");
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON usage_billing.credit_balance FOR EACH ROW EXECUTE FUNCTION fail();
${\use_b(1021)}
SELECT usage_billing.run_maintenance();
DROP FUNCTION fail CASCADE;
SQL
counted('usages_created 1 admissions 1 maintenance_errors 1', 'a fold that fails');
value("SELECT usage_billing.close_billing_period('2024-02-01Z', 'a'), usage_billing.run_maintenance()");
$last{postgres} = stats('postgres');
value("SELECT usage_billing.prune_usage('2024-02-01Z')");
counted('usages_pruned 4', 'retention');

# Databases, and a reset of one.
counted('', 'nothing of all that happened in another database', 'other');
value("SELECT usage_billing.create_usage(${\usages(1, 1)}, 'b')", 'other');
counted('usages_created 1 admissions 1 admissions_read 1', 'it counts for itself', 'other');
my $since = value('SELECT stats_reset FROM usage_billing.usage_billing_stats');
is($since, value('SELECT stats_reset FROM usage_billing.usage_billing_stats', 'other'), 'both count since the server started');
is(value("SELECT stats_reset BETWEEN pg_postmaster_start_time() - interval '1 min' AND now() FROM usage_billing.usage_billing_stats"), 't', 'which is when');
value('SELECT usage_billing.reset_usage_billing_stats()');
is_deeply([ sort { $a <=> $b } values %{ stats('postgres') } ], [ map { 0 } @NAMES ], 'reset');
$last{postgres} = undef;
is(value("SELECT stats_reset > '$since' FROM usage_billing.usage_billing_stats"), 't', 'it counts since then');
counted('', 'the other is left alone', 'other');

# Who may see it.
value('CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE nobody');
is(state('SET ROLE watcher; SELECT * FROM usage_billing.usage_billing_stats'), '00000', 'pg_monitor reads it');
is(state('SET ROLE watcher; SELECT usage_billing.reset_usage_billing_stats()'), '42501', 'and can not reset it');
is(state('SET ROLE nobody; SELECT * FROM usage_billing.usage_billing_stats'), '42501', 'others can not read it');

# What the documentation shows for Prometheus runs with that right, and says
# what it answers.
my ($yaml) = slurp_file("$FindBin::Bin/../../docs/operations.md") =~ /^```yaml\n(.*?)^```/ms;
my %metrics;
while ($yaml =~ /^(\w+):\n  query: \|\n((?:    .*\n)+)  metrics:\n((?:    - .*\n)+)/mg)
{
	my ($name, $query, $listed) = ($1, $2, $3);
	my $file = "$directory/$name.sql";
	append_to_file($file, "SET ROLE watcher;\n$query;\n");
	my ($shown, $failed) = run_command([ 'psql', '-X', '-q', '-A', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file ]);
	is($failed, '', "metrics $name: the query runs");
	is([ split /\n/, $shown ]->[0], join('|', $listed =~ /^    - (\w+):/mg), "metrics $name: its columns are the metrics");
	$metrics{$name} = 1;
}
is_deeply([ sort keys %metrics ], [ 'usage_billing', 'usage_billing_maintenance' ], 'both queries were run');

# Many sessions.
append_to_file("$directory/load.sql", <<'SQL');
\set n random(1, 5)
BEGIN;
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 0)), 'b');
SAVEPOINT s;
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 0)), 'a');
\if :n = 1
ROLLBACK TO s;
\endif
\if :n = 2
ROLLBACK;
\else
COMMIT;
\endif
SQL
my $usages = value('SELECT count(*) FROM usage_billing.usage');
$node->command_ok([ 'pgbench', '-n', '-c', 6, '-j', 2, '-t', 200, '-f', "$directory/load.sql", $node->connstr('postgres') ], 'many sessions');
my $now = stats('postgres');
is($now->{usages_created}, value('SELECT count(*) FROM usage_billing.usage') - $usages, 'all that they stored was counted, and no more');
is($now->{admissions}, 6 * 200 * 2, 'and all their calls');
is($now->{deltas_folded} + value('SELECT count(*) FROM usage_billing.usage_delta'), $now->{usages_created}, 'and what was folded meanwhile');

# A dropped database's place is given to another; counts end with the server.
value('DROP DATABASE other');
$node->restart;
is_deeply([ sort { $a <=> $b } values %{ stats('postgres') } ], [ map { 0 } @NAMES ], 'a restart begins anew');
is(value("SELECT stats_reset > '$since' FROM usage_billing.usage_billing_stats"), 't', 'and says so');

# Without preloading nothing is counted.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
value(use_b(1022));
is(value(q{SELECT count(*), count(usages_created), count(stats_reset), count(deltas_pending) FROM usage_billing.usage_billing_stats}), '1|0|0|1', 'without preloading it says so');
is(state('SELECT usage_billing.reset_usage_billing_stats()'), '00000', 'and there is nothing to reset');

$node->stop;
done_testing();
