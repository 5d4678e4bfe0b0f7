# Every database with the extension is served, however many there are, and
# none is kept from being dropped, copied or renamed.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use BillingNode;
use Workers;

my $DATABASES = 20;

my $node = Workers::start(wal_level => 'logical', max_wal_senders => 5, max_worker_processes => 8, autovacuum => 'off');

sub value { return $node->safe_psql('postgres', $_[0]); }
sub within { return Workers::within($node, $_[0], 'postgres', @_[ 1, 2 ]); }

# Runs a command that needs a database for itself; it may take so many seconds.
sub alone
{
	my ($sql, $name) = @_;
	my $begun = time;
	my ($state, $out) = BillingNode::outcome($node, 'postgres', $sql);
	is($state, '00000', $name);
	cmp_ok(time - $begun, '<', 5 + $Workers::PATIENCE, "$name: promptly");
	return;
}

# ---------------------------------------------------------------------------
# One database after the other.

value('CREATE DATABASE one');
$node->safe_psql('one', 'CREATE EXTENSION usage_billing');
within(5, Workers::has_workers(1, 'one'), 'a database made later gets a worker with the extension');
Workers::accounts($node, 'one', 10);
alone('CREATE DATABASE two TEMPLATE one', 'CREATE DATABASE from a template that is served');
within(10, Workers::has_workers(1, 'two'), 'the copy is served');
Workers::usage($node, 'two', 10, 10);
Workers::within($node, 5, 'two', $Workers::FOLDED, 'and folded');
within(15, Workers::has_workers(1, 'one'), 'the template is served again');
alone('ALTER DATABASE two RENAME TO three', 'ALTER DATABASE RENAME while served');
within(15, Workers::has_workers(1, 'three'), 'the renamed database is served again');
alone('DROP DATABASE three', 'DROP DATABASE while served, without FORCE');

# A worker in the middle of something long.
$node->safe_psql('one', <<'SQL');
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON usage_billing.usage_hourly EXECUTE FUNCTION slow();
SQL
Workers::usage($node, 'one', 10, 10);
within(10, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND datname = 'one' AND wait_event = 'PgSleep'",
	'a worker is in the middle of something long');
alone('DROP DATABASE one', 'DROP DATABASE in the middle of it');

# ---------------------------------------------------------------------------
# A logical subscriber gets what the publisher's worker does.

value('CREATE DATABASE copy');
$node->safe_psql('copy', 'CREATE EXTENSION usage_billing');
within(5, Workers::has_workers(1, 'copy'), 'the copy has a worker');
value('CREATE PUBLICATION billing FOR TABLE usage_billing.usage_delta');
value("SELECT pg_create_logical_replication_slot('billing', 'pgoutput')");
$node->safe_psql('copy', "CREATE SUBSCRIPTION billing CONNECTION \$\$" . $node->connstr('postgres') .
	"\$\$ PUBLICATION billing WITH (create_slot = false, copy_data = false, slot_name = 'billing')");
within(5, Workers::has_workers(0, 'copy'), 'a subscriber to usage_delta has none');
$node->safe_psql('copy', 'DROP SUBSCRIPTION billing');
value('SELECT pg_reload_conf()');
within(5, Workers::has_workers(1, 'copy'), 'and has one when it is none any more');

# ---------------------------------------------------------------------------
# More databases than workers.

my $offset = -s $node->logfile;
$node->safe_psql('copy', 'DROP EXTENSION usage_billing');
value('CREATE DATABASE d1');
$node->safe_psql('d1', 'CREATE EXTENSION usage_billing');
Workers::accounts($node, 'd1', 10);
value('ALTER DATABASE d1 IS_TEMPLATE true ALLOW_CONNECTIONS false');
within(15, Workers::has_workers(0, 'd1'), 'a template has no worker');
value("CREATE DATABASE d$_ TEMPLATE d1 STRATEGY file_copy") for 2 .. $DATABASES;
value('ALTER DATABASE d1 IS_TEMPLATE false ALLOW_CONNECTIONS true');
for my $round (1, 2)
{
	Workers::usage($node, "d$_", 10, 10) for 1 .. $DATABASES;
	my $begun = time;
	for my $n (1 .. $DATABASES)
	{
		Workers::within($node, 20, "d$n", $Workers::FOLDED, "round $round: database $n is folded");
	}
	note(sprintf 'round %d took %.1f s', $round, time - $begun);
}
is(Workers::logged($node, 'usage_billing has no background worker for each database', $offset), 1,
	'that there are too few workers is logged once');
# a worker may be on its way to d1 when that stops accepting connections, or in the
# middle of a step when it is told to end
my $on_its_way = qr/database "d1" is not currently accepting connections|terminating background worker "usage_billing worker" due to administrator command/;
is(join("\n", grep { /FATAL/ && !/$on_its_way/ } split /\n/, substr slurp_file($node->logfile), $offset), '', 'nothing worse is logged');
alone("DROP DATABASE d$_", "DROP DATABASE d$_ while databases take turns") for 1, 2;

$node->stop;
done_testing();
