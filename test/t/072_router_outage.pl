# A node dies under load and comes back: calls for its buckets get a clear error
# that names the bucket, the others go on, and after all is repeated everything
# is there once.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use RouterNodes;

my $cluster = RouterNodes::start(fsync => 'on');
my ($router, $victim) = @{ $cluster->{servers} };
my $directory = PostgreSQL::Test::Utils::tempdir();
my $CLIENTS = 6;
my $CALLS = 400;

# Half of the accounts are on each server.
my @bucket;
for my $client (0 .. $CLIENTS - 1)
{
	my $lower = $client % 2 ? 8 : 0;
	my $org_id = $cluster->sql("SELECT 'org-$client-' || i FROM generate_series(1, 500) i WHERE usage_billing.bucket_of('org-$client-' || i) / 8 * 8 = $lower LIMIT 1");
	push @bucket, $cluster->bucket_of($org_id);
	$cluster->sql("SELECT usage_billing.create_billing_account('$org_id', 'acc-$client', -1000000)");
}
my @up = grep { $_ % 2 == 0 } 0 .. $CLIENTS - 1;
my @down = grep { $_ % 2 == 1 } 0 .. $CLIENTS - 1;
my $a_bucket = $bucket[1];

# Every client makes its calls one after the other, whatever comes of them. Some of
# them surely while the node is down, and the last ones when it is back.
my %WAIT = (250 => 'down', 320 => 'back');

sub script
{
	my ($client) = @_;
	my $name = "$directory/client-$client.sql";
	append_to_file($name, join '', map {
		($WAIT{$_} ? "\\! until [ -e $directory/$WAIT{$_} ]; do sleep 0.1; done\n" : '')
		  . "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('$client-$_'), 'amount', 1)), 'acc-$client');\n"
		  . "\\echo $_ :SQLSTATE :ROW_COUNT\nSELECT FROM pg_sleep(0.005);\n" } 1 .. $CALLS);
	return $name;
}
my @scripts = map { script($_) } 0 .. $CLIENTS - 1;

sub run_all
{
	my ($meanwhile) = @_;
	my @running = map {
		my $run = { out => '', err => '' };
		$run->{psql} = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-q', '-v', 'VERBOSITY=verbose', '-d', $cluster->router_dsn, '-f', $_ ],
			'>', \$run->{out}, '2>', \$run->{err}, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 2));
		$run
	} @scripts;
	$meanwhile->() if $meanwhile;
	$_->{psql}->finish for @running;
	for my $run (@running)
	{
		$run->{state} = { map { /^(\d+) (\w{5}) \d+$/ ? ($1 => $2) : () } split /\n/, $run->{out} };
	}
	return @running;
}

my $alone;
my @first = run_all(sub {
	$victim->poll_query_until("bucket_$a_bucket", 'SELECT count(*) > 30 FROM usage_billing.usage') or die 'no load';
	$victim->stop('immediate');
	append_to_file("$directory/down", '');
	my ($state, undef) = RouterNodes::outcome($router, 'router', "SELECT usage_billing.account_balance('acc-1')");
	is($state, '08006', 'a call for a bucket of the dead node has an SQLSTATE of its own');
	$router->psql('router', "SELECT usage_billing.account_balance('acc-1')", stderr => \$alone);
	is($router->safe_psql('router', "SELECT usage_billing.account_balance('acc-0') ->> 'billing_id'"), 'acc-0', 'a call for another bucket is answered');

	# gathering from all names a bucket that is missing; the monitor shows the others
	my $err;
	$router->psql('router', 'SELECT * FROM usage_billing.verify()', stderr => \$err);
	like($err, qr/bucket is not available\nDETAIL:  Bucket 8 does not answer/, 'verify says which bucket is missing');
	is($router->safe_psql('router', "SELECT count(*) FILTER (WHERE duty = 'connection'), count(DISTINCT bucket) FROM usage_billing.bucket_maintenance_status"),
		'8|16', 'maintenance_status shows the others, and which are missing');
	is($router->safe_psql('router', 'SELECT count(*) FROM usage_billing.bucket_status() WHERE problem IS NOT NULL'), 8, 'bucket_status shows which');
	is($router->safe_psql('router', <<'SQL'), "1|1|\n2||08006\n3|1|", 'create_usage_many reports usage of the others');
SELECT call_no, result ->> 'created', error ->> 'code' FROM usage_billing.create_usage_many((
	SELECT jsonb_agg(jsonb_build_object('billing_id', 'acc-' || a, 'usages',
		jsonb_build_array(jsonb_build_object('id', md5('many-' || a), 'amount', 1, 'type', 'feature'))) ORDER BY a)
	FROM generate_series(0, 2) a)) ORDER BY call_no
SQL
	my $cannot_create = $cluster->sql("SELECT i FROM generate_series(1, 500) i WHERE usage_billing.bucket_of('lost-' || i) = 9 LIMIT 1");
	is((RouterNodes::outcome($router, 'router', "SELECT usage_billing.create_billing_account('lost-$cannot_create', 'lost')"))[0], '08006', 'an account there can not be created');
	is($cluster->sql("SELECT count(*) FROM usage_billing.directory_account WHERE billing_id = 'lost'"), 0, 'and is not in the directory');
	$victim->start;
	append_to_file("$directory/back", '');
});

like($alone, qr/bucket is not available\nDETAIL:  Bucket $a_bucket does not answer; the others go on\.\nHINT:  Repeat the call/, 'the error names the bucket');
unlike($alone, qr/port|host|socket|connection to server/, 'and no host');
like(slurp_file($router->logfile), qr/LOG:  bucket $a_bucket is not available: .*connection/, 'the log has the reason');

for my $client (0 .. $CLIENTS - 1)
{
	my %count;
	$count{$_}++ for values %{ $first[$client]{state} };
	is($count{'00000'} + ($count{'08006'} // 0), $CALLS, "client $client: every call succeeds or says that the bucket is not available");
	is($count{'08006'} // 0, 0, "client $client: none fails on the node that is up") if $client % 2 == 0;
	cmp_ok($count{'08006'} // 0, '>', 0, "client $client: some fail on the node that was down") if $client % 2;
	is($first[$client]{state}{$CALLS}, '00000', "client $client: the same session goes on when the node is back");
}

# What was acknowledged is there, whatever came of the rest.
for my $client (@down)
{
	my @acknowledged = grep { $first[$client]{state}{$_} eq '00000' } keys %{ $first[$client]{state} };
	is($cluster->bucket_sql($bucket[$client], "SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'acc-$client' AND id IN ("
			  . join(', ', map { "md5('$client-$_')::uuid" } @acknowledged) . ')'), scalar @acknowledged, "client $client: what was acknowledged is stored");
}

# The same calls again.
my @second = run_all();
for my $client (0 .. $CLIENTS - 1)
{
	is(scalar(grep { $_ eq '00000' } values %{ $second[$client]{state} }), $CALLS, "client $client: repeating all succeeds");
	is($cluster->sql("SELECT usage_billing.total_debited('acc-$client')"), $CALLS, "client $client: each usage is counted once");
}
is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify finds nothing');
is($cluster->sql('SELECT * FROM usage_billing.verify_directory()'), '', 'verify_directory neither');

$cluster->stop;
done_testing();
