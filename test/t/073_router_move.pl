# A bucket moves to another server while it is being used, by the script of the
# examples: no call fails, nothing is lost and nothing counted twice.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use RouterNodes;

my $cluster = RouterNodes::start();
my ($old, $new) = @{ $cluster->{servers} };
my $script = "$FindBin::Bin/../../examples/scale-out/move-bucket";
my $directory = PostgreSQL::Test::Utils::tempdir();
my $BUCKET = 3;
my $CLIENTS = 4;

# Organisations of this bucket and of others; each client has an account here and
# one anywhere.
my @here = split /\n/, $cluster->sql("SELECT 'org-' || i FROM generate_series(1, 500) i WHERE usage_billing.bucket_of('org-' || i) = $BUCKET LIMIT $CLIENTS");
is(scalar @here, $CLIENTS, 'there are organisations for the bucket');
for my $client (0 .. $CLIENTS - 1)
{
	$cluster->sql("SELECT usage_billing.create_billing_account('$here[$client]', 'here-$client')");
	$cluster->sql("SELECT usage_billing.create_billing_account('other-$client', 'there-$client')");
	$cluster->sql("SELECT usage_billing.grant_credits(md5('$_-$client')::uuid, 1000000, '$_-$client')") for 'here', 'there';
}
$cluster->bucket_sql($BUCKET, "INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) SELECT 'file-' || i, '$here[0]', i FROM generate_series(1, 50) i");
$cluster->sql("SELECT usage_billing.refresh_storage_usage('$here[0]')");

# pgbench stops a client at its first error, so that all that it counts was
# acknowledged. An id names its client and its call; all five calls of a round
# are in one transaction here, and commit one by one there.
append_to_file("$directory/load.sql", <<'SQL');
\set i :i + 1
\set sleep random(1, 4)
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5(:client_id || '-here-' || :i), 'amount', 2, 'source', 'load')), 'here-' || :client_id);
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5(:client_id || '-there-' || :i), 'amount', 2)), 'there-' || :client_id);
SELECT usage_billing.revert_usage(md5(:client_id || '-here-' || :i)::uuid, 1, 'here-' || :client_id);
SELECT usage_billing.account_balance('here-' || :client_id);
\sleep :sleep ms
SQL

# Round after round, until the file stop is there.
sub load
{
	my $load = { out => '' };
	append_to_file("$directory/load.sh", <<'SH');
n=0
until [ -e "$1/stop" ]; do
	n=$((n + 1))
	pgbench -n -c "$2" -j 2 -T 2 -D "i=$((n * 1000000))" -f "$1/load.sql" -h "$3" -p "$4" router 2>&1
done
SH
	$load->{run} = IPC::Run::start([ 'sh', "$directory/load.sh", $directory, $CLIENTS, $old->host, $old->port ], '>', \$load->{out}, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 4));
	return $load;
}

sub move
{
	my (%more) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ $script, '--router', $cluster->router_dsn, '--bucket', $BUCKET, '--from', $old->connstr("bucket_$BUCKET"),
			'--to', $new->connstr('postgres'), '--database', 'bucket_moved',
			'--connection', sprintf('host=%s port=%d dbname=bucket_moved user=router', $new->host, $new->port), %more ],
		'>', \$out, '2>', \$err, IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 2));
	note($out, $err);
	return ($?, $out, $err);
}

# ---------------------------------------------------------------------------

my $load = load();
$old->poll_query_until("bucket_$BUCKET", 'SELECT count(*) > 20 FROM usage_billing.usage') or die 'no load';

# A move that can't be finished leaves all as it was: here a call never ends.
my $stuck = $old->background_psql("bucket_$BUCKET");
$stuck->query_safe('BEGIN; SELECT FROM usage_billing.routed_gate');
{
	local $ENV{LOCK_TRIES} = 2;
	my ($status, undef, $err) = move();
	isnt($status, 0, 'a move that meets a call without an end gives up');
	like($err, qr/did not end/, 'and says why');
}
$stuck->query_safe('ROLLBACK');
$stuck->quit;
is($old->safe_psql("bucket_$BUCKET", <<'SQL'), '0|0|0', 'it leaves nothing behind on the old server');
SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM usage_billing.routed_gate)
SQL
is($new->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'bucket_moved'"), 0, 'nor on the new one');

my ($status, $out) = move();
is($status, 0, 'the bucket moves');
like($out, qr/calls were held for \d+ ms/, 'and says how long calls were held');
my $moved_at = $new->safe_psql('bucket_moved', 'SELECT count(*) FROM usage_billing.usage');
ok($new->poll_query_until('bucket_moved', "SELECT count(*) > $moved_at + 50 FROM usage_billing.usage"), 'the load goes on in the new database');
append_to_file("$directory/stop", '');
$load->{run}->finish;
my $done = 0;
$done += $1 while $load->{out} =~ /number of transactions actually processed: (\d+)/g;
unlike($load->{out}, qr/error|aborted/i, 'no call failed meanwhile') or diag($load->{out});
cmp_ok($done, '>', 70, 'there was load');

# ---------------------------------------------------------------------------

is($new->safe_psql('bucket_moved', "SELECT count(*), count(DISTINCT id) FROM usage_billing.usage"), "$done|$done", 'every acknowledged usage is in the new database, once');
is($new->safe_psql('bucket_moved', 'SELECT count(*), sum(amount) FROM usage_billing.usage_revert'), "$done|$done", 'and every revert');
is($cluster->sql("SELECT sum((usage_billing.account_balance('here-' || i) ->> 'balance')::bigint) FROM generate_series(0, $CLIENTS - 1) i"),
	$CLIENTS * 1000000 - $done, 'the balances say the same');
is($cluster->sql("SELECT sum((usage_billing.account_balance('there-' || i) ->> 'balance')::bigint) FROM generate_series(0, $CLIENTS - 1) i"),
	$CLIENTS * 1000000 - 2 * $done, 'and so do those of accounts elsewhere');
is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify finds nothing');
is($cluster->sql('SELECT * FROM usage_billing.verify_directory()'), '', 'verify_directory neither');
is($cluster->sql("SELECT total_storage_bytes FROM usage_billing.recount_storage_usage('$here[0]')"), 1275, 'files moved too');

# The old database is left, closed: whoever has not heard of the move gets no answer there.
is($old->safe_psql("bucket_$BUCKET", "SELECT usage_billing.routed_call('account_balance', '{here-0}', NULL, '{}')"), '{"moved": true}', 'the old database answers no more');
my $late = $cluster->connection($BUCKET);
$cluster->sql("UPDATE usage_billing.routing SET move_timeout = '1 second'; SELECT usage_billing.set_bucket($BUCKET, '$late')");
my ($state, undef) = RouterNodes::outcome($old, 'router', "SELECT usage_billing.account_balance('here-0')");
is($state, '08006', 'a router that never hears of the move says so');
my $waiting = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-d', $cluster->router_dsn, '-c', "SET usage_billing.x = 1",
		'-c', "SELECT usage_billing.account_balance('here-0') ->> 'billing_id'" ], '>', \my $answer, '2>', \my $error);
$cluster->sql(sprintf "SELECT pg_sleep(0.3); SELECT usage_billing.set_bucket($BUCKET, 'host=%s port=%d dbname=bucket_moved user=router')", $new->host, $new->port);
$waiting->finish;
like($answer, qr/here-0/, 'one that hears of it a little later goes on') or diag($error);

# The new database is a bucket like any other: it folds, and it can move again.
$cluster->sql('SELECT usage_billing.run_maintenance()');
is($new->safe_psql('bucket_moved', 'SELECT count(*) FROM usage_billing.usage_delta'), 0, 'it folds');
is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify finds nothing after that');
my $log = join '', map { slurp_file($_->logfile) } @{ $cluster->{servers} };
unlike($log, qr/PANIC|TRAP/, 'nothing broke');

$cluster->stop;
done_testing();
