# The random test of 001_model.pl through a router: the same statements, made up
# from a seed, and the same model predicts every result. The first part is one
# client, the second eight at once, with usage_billing.revert_once off on the
# nodes. SEED repeats a run, OPS says how many statements (of each part).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Utils;
use Test::More;

use RouterNodes;
use ScriptRun;
use UsageInput;
use UsageScript;

my $seed = $ENV{SEED} // (time ^ $$) & 0x7fffffff;
my $ops = $ENV{OPS} // 1200;
my $CLIENTS = 8;

srand $seed;
diag("seed $seed, $ops statements (repeat with SEED=$seed OPS=$ops)");

my $cluster = RouterNodes::start('usage_billing.max_batch_size' => $MAX_BATCH);
my $directory = PostgreSQL::Test::Utils::tempdir();
my %bucket;

# The organisations that clients use; every one is in some bucket.
sub bucket_of { my ($org_id) = @_; return $bucket{$org_id} //= $cluster->bucket_of($org_id); }

sub client
{
	my ($name, %more) = @_;
	return UsageScript->new(
		name => $name,
		directory => $directory,
		routed => {
			router => $cluster->router_dsn =~ s/'//gr,
			at => sub { my ($org_id) = @_; return $cluster->connection(bucket_of($org_id), scalar getpwuid $<); },
		},
		%more);
}

# An account's end state against the model's: facts in its bucket, the rest through the router.
sub check_account
{
	my ($script, $billing_id) = @_;
	my $account = $script->model->{account}{$billing_id};

	is($cluster->bucket_sql(bucket_of($account->{org_id}), <<"SQL"),
SELECT (SELECT count(*) FROM usage_billing.usage WHERE billing_id = '$billing_id'),
	(SELECT count(*) FROM usage_billing.credit_grant WHERE billing_id = '$billing_id'),
	(SELECT count(*) FROM usage_billing.usage_revert WHERE billing_id = '$billing_id')
SQL
		join('|', scalar keys %{ $account->{usage} }, scalar keys %{ $account->{grant} }, scalar keys %{ $account->{revert_row} }),
		"$billing_id: number of facts");
	is($cluster->sql("SELECT usage_billing.account_balance('$billing_id') ->> 'balance', usage_billing.total_debited('$billing_id')"),
		"$account->{balance}|$account->{debited}", "$billing_id: balance and total");
	is($cluster->sql("\\set account $billing_id\n$ScriptRun::PAGES;"), '0|0',
		"$billing_id: pages of account_transactions make up the whole, newest first");
	return;
}

sub check_all
{
	my (@scripts) = @_;
	for my $script (@scripts)
	{
		ScriptRun::check($directory, $script);
		check_account($script, $_) for @{ $script->{billing_ids} };
	}
	is($cluster->sql('SELECT * FROM usage_billing.verify()'), '', 'verify() finds nothing');
	is($cluster->sql('SELECT * FROM usage_billing.verify_directory()'), '', 'verify_directory() finds nothing');
	return;
}

# ---------------------------------------------------------------------------

my $script = client('alone', alone => 1);
$script->step while $script->ops < $ops;
ScriptRun::run($cluster->router_dsn, $directory, $script);
check_all($script);

for my $server (@{ $cluster->{servers} })
{
	$server->append_conf('postgresql.conf', 'usage_billing.revert_once = off');
	$server->reload;
	$server->poll_query_until('postgres', "SELECT current_setting('usage_billing.revert_once', true) = 'off'") or die 'not reloaded';
}

my @scripts;
for my $client (1 .. $CLIENTS)
{
	my $script = client("c$client");
	$script->model->{revert_once} = 0;
	$script->step while $script->ops < $ops / $CLIENTS;
	push @scripts, $script;
}
ScriptRun::run($cluster->router_dsn, $directory, @scripts);
check_all(@scripts);

my %used = map { bucket_of($_) => 1 } keys %bucket;
cmp_ok(scalar keys %used, '>', 8, 'the organisations are in many buckets');
my $log = join '', map { slurp_file($_->logfile) } @{ $cluster->{servers} };
my @broken = $log =~ /^(.*(?:PANIC|FATAL:  terminating (?!autovacuum)|TRAP:|is not available).*)$/mg;
is(join("\n", @broken), '', 'nothing broke in the servers');

$cluster->stop;
done_testing();
