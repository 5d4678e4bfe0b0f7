# Replicas. A streaming standby answers what only reads and refuses the rest; a
# primary that is lost under load is followed by the standby, which with
# synchronous replication has all that was acknowledged. The same with a logical
# subscriber of all tables: it has the right balances and trends at any moment,
# and keeps them when it becomes the primary. One that gets the facts only makes
# the rest anew then.
#
# 013_crash has the workers of a standby, 020_trend readers beside replayed
# folds.
#
# REPLICA_SEED repeats a run's random choices, REPLICA_SECONDS is how long each
# load lasts.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use BillingNode;
use Killer;
use Load;
use Picture;
use Workers;

my $SEED = $ENV{REPLICA_SEED} // int rand 2**31;
my $SECONDS = $ENV{REPLICA_SECONDS} // 4;

diag("seed $SEED (repeat with REPLICA_SEED=$SEED)");

my $CONF = <<'CONF';
shared_preload_libraries = 'usage_billing'
usage_billing.fold_interval = 50ms
usage_billing.storage_refresh_interval = 1s
usage_billing.storage_recount_interval = 3s
max_prepared_transactions = 20
max_connections = 60
max_worker_processes = 20
max_logical_replication_workers = 10
max_sync_workers_per_subscription = 4
hot_standby_feedback = on
max_standby_streaming_delay = -1
log_line_prefix = '%m [%p] %b %q%a =%e '
log_statement = none
deadlock_timeout = 200ms
CONF

# 08006: who hung up
my @MAY = qw(08006 UB001 UB002 UB003 23505 PT404 57P01 40001 40P01 25P02 42704 55000 25006 57P02 57P03);

sub server
{
	my ($name, %p) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(%p, extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', $CONF);
	$node->start;
	return $node;
}

# Looks at one snapshot of a replica after the other, and writes down what it
# must not see there.
sub watcher
{
	my ($file) = @_;
	return sub {
		my ($session) = @_;
		for my $sql ($Load::UNDER, 'SELECT * FROM usage_billing.verify()')
		{
			my ($state, $out) = $session->ask($sql);
			append_to_file($file, $state eq '00000' ? $out eq '' ? "look\n" : "not sound: $out\n" : "failed: $state\n");
		}
		sleep 0.05;
	};
}

# On a busy machine a look may take its time.
sub enough_looks
{
	my ($file) = @_;
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	sleep 0.1 until -e $file && (() = slurp_file($file) =~ /\n/g) > 5 || time > $until;
	return;
}

sub watched
{
	my ($file, $name) = @_;
	my @seen = split /\n/, slurp_file($file);
	Load::none([ grep { $_ ne 'look' } @seen ], "$name: every snapshot is sound");
	cmp_ok(scalar @seen, '>', 5, "$name: and some were looked at");
	return;
}

# Without its worker, nothing changes by itself.
sub stand_still
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'ALTER SYSTEM SET usage_billing.maintenance_worker = off');
	$node->reload;
	Workers::within($node, 30, 'postgres', Workers::has_workers(0), $node->name . ': the worker ends');
	return;
}

sub go_on
{
	my ($node) = @_;
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET usage_billing.maintenance_worker');
	$node->reload;
	return;
}

# The server goes down with all of its processes. Before, the replica falls
# behind for a moment: what is acknowledged then would be lost.
sub lose
{
	my ($node, $replica, $receiver) = @_;
	my @behind = Killer::titled($replica, $receiver);

	is(scalar @behind, 1, $node->name . ': there is a replica that falls behind');
	kill 'STOP', @behind;
	sleep 0.4;
	Killer::crash($node, 1);
	kill 'CONT', @behind;
	return;
}

# ---------------------------------------------------------------------------
# A streaming standby

my $primary = server('primary', allows_streaming => 1);
$primary->safe_psql('postgres', 'CREATE EXTENSION usage_billing');
my $load = Load->new(seed => $SEED, clients => 6, rounds => 2, prepares => 1, hangs => 1);
$load->server($primary);
$load->set_up;
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'standby'");
$primary->reload;

$load->begin;
$load->beside('watch', watcher("$load->{directory}/watched"), $standby);
sleep $SECONDS;
enough_looks("$load->{directory}/watched");
$load->end;
watched("$load->{directory}/watched", 'standby');
$load->as_told($primary, 'before the failover');
stand_still($primary);

# All that only reads, and with what it is asked.
my %READS = (
	account_balance => "usage_billing.account_balance('tight-1')",
	total_debited => "usage_billing.total_debited(org_id => 'org-loose-1')",
	account_transactions => "usage_billing.account_transactions(max_rows => 1000, billing_id => 'tight-1')",
	account_usage_trend => "usage_billing.account_usage_trend('2024-03-01', '2024-03-20', include => 'trend', billing_id => 'loose-1')",
	usage_series => "usage_billing.usage_series('2024-03-01Z', '2100-01-01Z', 'day', billing_id => 'loose-1')",
	get_storage_usage => "usage_billing.get_storage_usage('org-c1')",
	get_storage_usage_history => "usage_billing.get_storage_usage_history(30, 'org-c1')",
	verify => 'usage_billing.verify()');
# and all that writes
my $ID = '00000000-0000-4000-8000-000000000001';
my %WRITES = (
	create_billing_account => "usage_billing.create_billing_account('org', 'new')",
	create_project => "usage_billing.create_project('new', 'org')",
	grant_credits => "usage_billing.grant_credits('$ID', 5, 'tight-1')",
	create_usage => "usage_billing.create_usage('[{\"id\": \"$ID\", \"amount\": 1}]', 'loose-1')",
	revert_usage => "usage_billing.revert_usage('$ID', billing_id => 'loose-1')",
	close_billing_period => "usage_billing.close_billing_period(billing_id => 'loose-1')",
	run_maintenance => 'usage_billing.run_maintenance()',
	rebuild => 'usage_billing.rebuild()',
	refresh_storage_usage => "usage_billing.refresh_storage_usage('org-c1')",
	recount_storage_usage => "usage_billing.recount_storage_usage('org-c1')",
	prune_usage => "usage_billing.prune_usage('2024-01-01Z')",
	set_storage_limits => "usage_billing.set_storage_limits('org-c1', 5)",
	track_storage => "usage_billing.track_storage('files_c1', 'org', 'size')",
	untrack_storage => "usage_billing.untrack_storage('files_c1')");

# Those that the others are made of, and what row-level security asks.
my $INNER = "'require_unscoped', 'delivery_measures', 'derived_sums', 'derived_differences', 'request_org', 'request_accounts', 'request_worker', 'read_stats', 'reset_usage_billing_stats',"
  . " 'routed_batch', 'routed_begin', 'routed_call', 'routed_owner', 'routed_rows'";

sub functions
{
	my ($volatility) = @_;
	return $primary->safe_psql('postgres', "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'usage_billing'::regnamespace AND provolatile = '$volatility'"
		  . " AND prorettype <> 'trigger'::regtype AND proname NOT IN ($INNER) ORDER BY 1");
}

is(functions('s'), join("\n", sort keys %READS), 'every STABLE function is asked on the standby');
is(functions('v'), join("\n", sort keys %WRITES), 'and so is every other one');
$primary->wait_for_catchup($standby);
for my $function (sort keys %READS)
{
	my ($state, $out) = BillingNode::outcome($standby, 'postgres', "SELECT * FROM $READS{$function}");
	is("$state $out", '00000 ' . $primary->safe_psql('postgres', "SELECT * FROM $READS{$function}"), "$function: the standby answers as the primary does");
	isnt($out, '', "$function: and there is an answer") if $function ne 'verify';
}
Picture::same(Picture::picture($standby, 'postgres'), Picture::picture($primary, 'postgres'), 'of all accounts and organisations the standby answers as the primary does');
for my $function (sort keys %WRITES)
{
	my $err = '';
	$standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $WRITES{$function}", stderr => \$err);
	like($err, qr/ERROR:  25006: cannot execute \S+(?: \S+)? (?:in a read-only transaction|during recovery)/, "$function: the standby refuses it and says why") or diag($err);
}
is((BillingNode::outcome($standby, 'postgres', "INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('loose-1', '$ID', 1)"))[0], '25006', 'the standby refuses a load');
$load->derived($standby, 'standby', stable => 1);
go_on($primary);

# The primary is lost in the middle of a load; the clients find the standby in its
# place and repeat what they didn't hear back.
$load->begin;
sleep $SECONDS / 2;
lose($primary, $standby, qr/walreceiver/);
$standby->promote;
$load->server($standby);
sleep $SECONDS;
$load->end;
my $counts = $load->as_told($standby, 'after the failover');
Load::summary($counts);
cmp_ok(Load::count($counts, qr/lost$/), '>', 0, 'after the failover: connections were lost');
Workers::within($standby, 30, 'postgres', Workers::has_workers(1, 'postgres'), 'after the failover: a worker starts');
$load->derived($standby, 'after the failover');
is($standby->safe_psql('postgres', $Load::UNDER), '', 'after the failover: no account of short credit is under its credit_min');
Load::none([ Load::unexpected_states($standby, @MAY) ], 'after the failover: the log has no other errors');
$standby->stop;

# ---------------------------------------------------------------------------
# A logical subscriber, set up beside a load as docs/operations.md says

my $publisher = server('publisher', allows_streaming => 'logical');
$publisher->safe_psql('postgres', 'CREATE EXTENSION usage_billing');
$load = Load->new(seed => $SEED + 500, clients => 6, rounds => 2, hangs => 1);
$load->server($publisher);
$load->set_up;
$load->begin;
sleep $SECONDS / 4;

my $subscriber = server('subscriber', allows_streaming => 'logical');
my $definitions = Picture::dump_to($publisher, 'postgres', "$load->{directory}/definitions", '-s');
my $connection = $publisher->connstr('postgres') =~ s/'/''/gr;

sub subscribe
{
	my ($name, $database, $tables, $own) = @_;

	$subscriber->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $subscriber->connstr($database), '-f', $definitions ],
		"$name: the definitions are on the subscriber");
	$publisher->safe_psql('postgres', "CREATE PUBLICATION $name FOR $tables");
	$subscriber->safe_psql($database, "TRUNCATE $own");
	$subscriber->safe_psql($database, "CREATE SUBSCRIPTION $name CONNECTION '$connection' PUBLICATION $name WITH (synchronous_commit = 'on')");
	ok($subscriber->poll_query_until($database, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel JOIN pg_subscription s ON s.oid = srsubid WHERE subname = '$name'"),
		"$name: beside the load all tables are copied");
	return;
}

subscribe('billing', 'postgres', 'TABLES IN SCHEMA usage_billing, public', 'usage_billing.storage_source, usage_billing.storage_counted, usage_billing.maintenance_duty');
$subscriber->safe_psql('postgres', 'CREATE DATABASE facts');
$subscriber->safe_psql('postgres', 'ALTER DATABASE facts SET usage_billing.maintenance_worker = off');
subscribe('facts', 'facts', 'TABLE ' . join(', ', map { "usage_billing.$_" }
		qw(billing_account project credit_grant usage usage_revert storage_limit storage_source storage_snapshot stored_file)) . ', TABLES IN SCHEMA public',
	'usage_billing.storage_source');
$publisher->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'billing'");
$publisher->reload;
$load->beside('watch', watcher("$load->{directory}/watched"), $subscriber);
sleep $SECONDS;
enough_looks("$load->{directory}/watched");
$load->end;
watched("$load->{directory}/watched", 'subscriber');
$load->as_told($publisher, 'publisher');
stand_still($publisher);
my $began = time;
$publisher->wait_for_catchup('billing');
note(sprintf 'the subscriber was %.1f s behind', time - $began);
my $picture = Picture::picture($publisher, 'postgres');
Picture::same(Picture::picture($subscriber, 'postgres'), $picture, 'the subscriber answers as the publisher does');
Workers::within($subscriber, 30, 'postgres', Workers::has_workers(0), 'it has no worker');
$load->derived($subscriber, 'subscriber', stable => 1);


# Of the facts, what is derived can be made.
$publisher->wait_for_catchup('facts');
$subscriber->safe_psql('facts', 'DROP SUBSCRIPTION facts');
isnt(BillingNode::differences($subscriber, 'facts'), '', 'facts only: nothing is derived');
$subscriber->safe_psql('facts', 'TRUNCATE usage_billing.storage_counted; SELECT usage_billing.rebuild()');
is(BillingNode::differences($subscriber, 'facts'), '', 'facts only, rebuilt: verify() finds nothing');
Picture::same(Picture::picture($subscriber, 'facts'), $picture, 'facts only, rebuilt: it answers as the publisher does');
Load::none([ $load->storage_differences($subscriber, 'facts', 'refresh_storage_usage') ], 'facts only, rebuilt: refreshed storage is what a count finds');
go_on($publisher);

# The publisher is lost in the middle of a load, and the subscriber follows it.
$load->begin;
sleep $SECONDS / 2;
lose($publisher, $subscriber, qr/logical replication (?:apply )?worker/);
$subscriber->safe_psql('postgres', $_) for 'ALTER SUBSCRIPTION billing DISABLE', 'ALTER SUBSCRIPTION billing SET (slot_name = NONE)', 'DROP SUBSCRIPTION billing';
$subscriber->reload;
$load->server($subscriber);
sleep $SECONDS;
$load->end;
$counts = $load->as_told($subscriber, 'the subscriber as primary');
Load::summary($counts);
cmp_ok(Load::count($counts, qr/lost$/), '>', 0, 'the subscriber as primary: connections were lost');
Workers::within($subscriber, 30, 'postgres', Workers::has_workers(1, 'postgres'), 'the subscriber as primary: a worker starts');
$load->derived($subscriber, 'the subscriber as primary');
is($subscriber->safe_psql('postgres', $Load::UNDER), '', 'the subscriber as primary: no account of short credit is under its credit_min');
Load::none([ Load::unexpected_states($subscriber, @MAY) ], 'the subscriber as primary: the log has no other errors');
$subscriber->stop;
done_testing();
