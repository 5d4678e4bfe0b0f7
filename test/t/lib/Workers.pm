# What tests of the background workers ask again and again.
package Workers;

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use BillingNode;

# Starts a server with the library preloaded; the extension is in database
# postgres.
sub start
{
	my (%settings) = @_;
	return BillingNode::start(shared_preload_libraries => 'usage_billing', %settings);
}

# What a busy machine gets more than an idle one takes. It is less than the minute
# after which a launcher and a worker look by themselves at what they weren't told.
our $PATIENCE = 25;

# Waits until a query in database says t; returns the seconds that it took. On an
# idle machine it takes so many at most.
sub within
{
	my ($node, $seconds, $database, $query, $name) = @_;
	my $begun = time;
	my $said = '';

	while (time - $begun < $seconds + $PATIENCE)
	{
		$node->psql($database, $query, stdout => \$said);
		last if ($said // '') eq 't';
		sleep 0.05;
	}
	is($said, 't', $name);
	return time - $begun;
}

# A condition for within: the database has so many workers.
sub has_workers
{
	my ($n, $database) = @_;
	my $which = defined $database ? "AND datname = '$database'" : '';
	return "SELECT count(*) = $n FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' $which";
}

sub worker_pid
{
	my ($node, $database) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND datname = '$database'");
}

# A condition for within: nothing waits to be folded, and something was.
our $FOLDED = 'SELECT NOT EXISTS (SELECT FROM usage_billing.usage_delta) AND EXISTS (SELECT FROM usage_billing.usage_hourly)';

# Makes accounts a1 ... an, and usage of one credit in each.
sub accounts
{
	my ($node, $database, $n) = @_;
	$node->safe_psql($database,
		"SELECT count(usage_billing.create_billing_account('o' || i, 'a' || i, -1000000)) FROM generate_series(1, $n) i");
	return;
}

sub usage
{
	my ($node, $database, $n, $rows) = @_;
	$node->safe_psql($database, <<"SQL");
INSERT INTO usage_billing.usage (billing_id, id, amount)
SELECT 'a' || 1 + i % $n, gen_random_uuid(), 1 FROM generate_series(1, $rows) i
SQL
	return;
}

# How often the server's log has a text, from an offset on.
sub logged
{
	my ($node, $text, $offset) = @_;
	my $log = substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $offset // 0);
	my @found = $log =~ /\Q$text\E/g;
	return scalar @found;
}

1;
