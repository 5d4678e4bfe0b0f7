# What a call and a load cost in memory, seen from the system: the highest
# resident size of the backend (VmHWM), in fresh connections. Shared buffers
# count too, so they are kept small.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

plan skip_all => 'no /proc here' unless -r '/proc/self/status';
plan skip_all => 'a checker has memory of its own' if $ENV{CHECKED};

my $LIMIT = 64 * 1024;    # kB
my $WORK_MEM = 4 * 1024;
my $ELEMENTS = 10000;
my $ROWS = 300000;

my $node = BillingNode::start(shared_buffers => '4MB', work_mem => "${WORK_MEM}kB", jit => 'off');
my $directory = PostgreSQL::Test::Utils::tempdir();

# Runs statements in a fresh connection and returns by how many kB each raised
# the backend's highest resident size over what it was at the start.
sub growth
{
	my (@statements) = @_;
	my $size = q{SELECT 'size ' || (regexp_match(pg_read_file('/proc/self/status'), 'VmHWM:\s+(\d+)'))[1];};
	my $file = "$directory/run" . int(rand 1e9) . '.sql';

	# the first look itself costs something
	append_to_file($file, join "\n", $size, $size, (map { ("$_;", $size) } @statements), '');
	my ($out, $err) = ('', '');
	$node->psql('postgres', undef, stdout => \$out, stderr => \$err, extra_params => [ '-f', $file ]);
	diag($err) if $err =~ /ERROR/;
	my @sizes = $out =~ /^size (\d+)$/mg;
	return map { $_ - $sizes[1] } @sizes[ 2 .. $#sizes ];
}

sub under
{
	my ($grown, $limit, $name) = @_;
	cmp_ok($grown // 1e9, '<', $limit, sprintf '%s: %.1f MB', $name, ($grown // 0) / 1024);
	return;
}

$node->safe_psql('postgres', <<'SQL');
SELECT usage_billing.create_billing_account('org', 'a');
SELECT usage_billing.create_billing_account('org', 'b');
SELECT usage_billing.grant_credits(gen_random_uuid(), 1000000000000, 'a');
SQL

# The call as a client sends it.
sub call
{
	my ($key, %more) = @_;
	my @items = map {
		my $n = $_;
		my $at = sprintf '2024-06-%02dT%02d:00:00Z', 1 + $n % 28, $n % 24;
		my $id = sprintf '%08x-0000-4000-8000-%012x', $key, $n;
		my $rest = $more{full}
		  ? qq(, "source": "api.$more{full}", "user_id": "user-$n", "description": "request number $n", "created_at": "$at", "metadata": {"model": "m-1", "trace": ")
		  . ('x' x 200) . '"}'
		  : '';
		qq({"id": "$id", "amount": 1$rest});
	} 1 .. $more{size} // $ELEMENTS;
	push @items, $more{last} if $more{last};
	return "SELECT usage_billing.create_usage('[" . join(', ', @items) . "]', 'a')";
}

under(growth(call(1)), $LIMIT, "$ELEMENTS short elements");
under(growth(call(1)), $LIMIT, "$ELEMENTS short elements, repeated");
under(growth(call(2, full => 'chat')), $LIMIT, "$ELEMENTS elements with all keys");
under(growth(call(2, full => 'chat')), $LIMIT, "$ELEMENTS elements with all keys, repeated");

my ($refused) = growth(
	"\\set ON_ERROR_STOP off\n"
	  . call(3, full => 'chat', size => $ELEMENTS - 1, last => '{"id": "00000001-0000-4000-8000-000000000001", "amount": 2}'));
under($refused, $LIMIT, "$ELEMENTS elements, the last one a conflict");
is($node->safe_psql('postgres', 'SELECT count(*) FROM usage_billing.usage'), 2 * $ELEMENTS, 'the refused call stored nothing');

# The second call may find the freed memory in pieces; after that, more would be
# a leak.
my @rounds = growth(map { call(10 + $_, full => 'chat') } 1 .. 6);
under($rounds[5] - $rounds[1], 8 * 1024, 'six such calls in one session, from the second to the sixth');
is($node->safe_psql('postgres', 'SELECT count(*) FROM usage_billing.usage'), 8 * $ELEMENTS, 'all of them are stored');

# ---------------------------------------------------------------------------
# Loads: two accounts, many hours and sources.

$node->safe_psql('postgres', <<"SQL");
COPY (
	SELECT CASE WHEN n % 3 = 0 THEN 'a' ELSE 'b' END, md5('load' || n)::uuid, n % 20, 'source-' || n % 7,
		timestamptz '2024-01-01 00:00Z' + n % 1000 * interval '1 hour', '{"k": 1}'
	FROM generate_series(1, $ROWS) n
) TO '$directory/load.copy'
SQL
my $copy = "COPY usage_billing.usage (billing_id, id, amount, source, created_at, metadata) FROM '$directory/load.copy'";
my ($loaded, $loaded_again) = growth($copy, $copy);
under($loaded, $LIMIT + $WORK_MEM, "COPY of $ROWS rows");
under($loaded_again, $LIMIT + $WORK_MEM, "COPY of $ROWS rows, repeated");
is($node->safe_psql('postgres', 'SELECT count(*) FROM usage_billing.usage'), 8 * $ELEMENTS + $ROWS, 'every row is stored once');

# Deliveries have measurements, which are read out of each row's document.
$node->safe_psql('postgres', <<"SQL");
COPY (
	SELECT 'a', md5('delivery' || n)::uuid, 'feature', 1, 'vod_streams', timestamptz '2024-01-01 00:00Z' + n % 1000 * interval '1 hour',
		'{"viewing_seconds": 30, "viewing_bytes": 1000, "egress_seconds": 1, "egress_bytes": "2"}'
	FROM generate_series(1, $ROWS) n
) TO '$directory/deliveries.copy'
SQL
my ($delivered) = growth("COPY usage_billing.usage (billing_id, id, type, amount, source, created_at, metadata) FROM '$directory/deliveries.copy'");
under($delivered, $loaded + 4 * 1024, "COPY of $ROWS deliveries, against one of other usages");

my ($folded) = growth('SELECT usage_billing.run_maintenance()');
under($folded, $LIMIT + $WORK_MEM, 'run_maintenance after it');
my ($verified, $rebuilt) = growth('SELECT count(*) FROM usage_billing.verify()', 'SELECT usage_billing.rebuild()');
under($verified, $LIMIT + $WORK_MEM, 'verify');
under($rebuilt, $LIMIT + $WORK_MEM, 'rebuild');
is(BillingNode::differences($node, 'postgres'), '', 'verify() finds nothing');

$node->stop;
done_testing();
