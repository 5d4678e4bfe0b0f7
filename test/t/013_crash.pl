# Workers and servers that are killed, shut down, promoted or upgraded.

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
use Workers;

my $node = Workers::start(restart_after_crash => 'on', wal_level => 'replica', max_wal_senders => 5, hot_standby => 'on');
my $TOTALS = q{SELECT count(*), sum(amount), (SELECT count(*) FROM usage_billing.verify()) FROM usage_billing.usage};
my $used = 0;

sub value { return $node->safe_psql('postgres', $_[0]); }
sub within { return Workers::within($node, $_[0], 'postgres', @_[ 1, 2 ]); }

# Reports usage and sees it folded: everything works.
sub works
{
	my ($name) = @_;
	Workers::usage($node, 'postgres', 10, 100);
	$used += 100;
	Workers::within($node, 15, 'postgres', $Workers::FOLDED, "$name: usage is folded");
	is($node->safe_psql('postgres', $TOTALS), "$used|$used|0", "$name: nothing is lost or doubled");
	return;
}

# From now on folding takes a minute, and a worker is at it.
sub slow
{
	value('CREATE TRIGGER slow AFTER INSERT ON usage_billing.usage_hourly EXECUTE FUNCTION slow()');
	Workers::usage($node, 'postgres', 10, 10);
	$used += 10;
	within(10, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND wait_event = 'PgSleep'",
		'a worker is in the middle of folding');
	return;
}

# A worker that is at it again has to be stopped: it keeps the table locked.
sub not_slow
{
	value(<<'SQL');
SET lock_timeout = '100ms';
DO $$ BEGIN
	FOR i IN 1 .. 100 LOOP
		BEGIN
			DROP TRIGGER slow ON usage_billing.usage_hourly;
			RETURN;
		EXCEPTION WHEN lock_not_available THEN
			PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'usage_billing worker';
		END;
	END LOOP;
	RAISE EXCEPTION 'the table stays locked';
END $$;
SQL
	return;
}

Workers::accounts($node, 'postgres', 10);
works('at first');

# ---------------------------------------------------------------------------
# A worker killed in the middle of folding: the server restarts.

value('CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$');
slow();
my $pid = Workers::worker_pid($node, 'postgres');
is(kill('KILL', $pid), 1, 'it is killed');
within(30, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND pid <> $pid",
	'the server restarts, and a worker with it');
not_slow();
works('after a worker was killed');

# ---------------------------------------------------------------------------
# The launcher ends by itself or an administrator; the worker stays.

$pid = Workers::worker_pid($node, 'postgres');
my $launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'usage_billing launcher'";
my $old = value($launcher);
value("SELECT pg_terminate_backend($old)");
within(15, "SELECT count(*) = 1 FROM ($launcher) AS l WHERE pid <> $old", 'a launcher that was terminated comes back');
sleep 2;
is(Workers::worker_pid($node, 'postgres'), $pid, 'the worker that was there is kept, and no other started');
value("SELECT pg_terminate_backend($pid)");
within(10, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND pid <> $pid",
	'the new launcher watches over it');
works('after the launcher was terminated');

# ---------------------------------------------------------------------------
# Shutdown.

for my $mode ('fast', 'smart')
{
	my $begun = time;
	$node->stop($mode);
	cmp_ok(time - $begun, '<', 5 + $Workers::PATIENCE, "$mode shutdown is prompt");
	$node->start;
	works("after a $mode shutdown");
}
slow();
my $begun = time;
$node->stop('fast');
cmp_ok(time - $begun, '<', 5 + $Workers::PATIENCE, 'fast shutdown in the middle of folding is prompt');
$node->start;
not_slow();
works('after it');

# ---------------------------------------------------------------------------
# The postmaster killed: nobody stays behind.

my @children = split /\n/, value("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'usage_billing%'");
is(scalar @children, 2, 'launcher and worker run');
$begun = time;
Killer::crash($node);
cmp_ok(time - $begun, '<', 10 + $Workers::PATIENCE, 'all processes end soon when the postmaster is killed');
is(scalar(grep { Killer::runs($_) } @children), 0, 'launcher and worker end when the postmaster is killed');
$node->start;
works('after the postmaster was killed');

# ---------------------------------------------------------------------------
# A standby: none before promotion, at once after it.

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
Workers::usage($node, 'postgres', 10, 100);
$used += 100;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'usage_billing%'"), '0',
	'a standby has no launcher and no worker');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM usage_billing.maintenance_status'), '5', 'maintenance_status answers on a standby');
is((BillingNode::outcome($standby, 'postgres', 'SELECT usage_billing.run_maintenance()'))[0], '25006',
	'run_maintenance() does not run on a standby');
$node->stop;
$standby->promote;
my $primary = $node;
$node = $standby;
within(15, Workers::has_workers(1, 'postgres'), 'a promoted standby starts a worker by itself');
works('after promotion');
is(Workers::logged($standby, 'ERROR:  cannot execute', 0), 1, 'nothing but run_maintenance() tried to write before');
$standby->stop;

# ---------------------------------------------------------------------------
# A server that pg_upgrade started.

$node = $primary;
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start');
$node->_update_pid(1);
sleep 2;
is(value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'usage_billing%'"), '0',
	'a server that pg_upgrade started has no launcher and no worker');
$node->stop;

done_testing();
