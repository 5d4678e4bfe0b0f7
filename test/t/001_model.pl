# A random test against a model: thousands of statements whose every result is
# predicted, first by one client, then by eight at once. SEED repeats a run,
# OPS says how many statements (of each part).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use ScriptRun;
use UsageInput;
use UsageScript;

my $seed = $ENV{SEED} // (time ^ $$) & 0x7fffffff;
my $ops = $ENV{OPS} // 4000;
my $CLIENTS = 8;

srand $seed;
diag("seed $seed, $ops statements (repeat with SEED=$seed OPS=$ops)");

my $node = BillingNode::start();
my $began = $node->safe_psql('postgres',
	"SELECT extract(epoch FROM date_trunc('hour', now(), 'UTC'))::bigint");
my $directory = PostgreSQL::Test::Utils::tempdir();

sub run_scripts { return ScriptRun::run($node->connstr('postgres'), $directory, @_); }
sub check_predictions { return ScriptRun::check($directory, @_); }

# Sums of the hours of an account: folded and not yet folded together. All that
# happened during the test is one hour to the model.
my $SUMS = join ', ', map { "coalesce(sum($_), 0)" } qw(amount events), @UsageModel::MEASURES;
my $COLUMNS = join ', ', qw(billing_id hour source type amount events), @UsageModel::MEASURES;
my $HOURS = <<"SQL";
SELECT CASE WHEN extract(epoch FROM hour) >= :began THEN 'now' ELSE extract(epoch FROM hour)::bigint::text END, source, type, $SUMS
FROM (
	SELECT $COLUMNS FROM usage_billing.usage_hourly
	UNION ALL
	SELECT $COLUMNS FROM usage_billing.usage_delta WHERE type IS NOT NULL
) t WHERE billing_id = :'account' GROUP BY 1, 2, 3
HAVING ($SUMS) <> (0, 0, 0, 0, 0, 0, 0)
SQL

sub hours_now
{
	my ($billing_id) = @_;
	my $sql = "\\set began $began\n\\set account $billing_id\n$HOURS;";
	return join "\n", sort split /\n/, $node->safe_psql('postgres', $sql);
}

sub hours_predicted
{
	my ($account) = @_;
	my $hours = $account->{hours};
	return join "\n", sort map { join '|', $_, @{ $hours->{$_} } }
	  grep { grep { $_ != 0 } @{ $hours->{$_} } } keys %$hours;
}

# An account's end state against the model's.
sub check_account
{
	my ($script, $billing_id) = @_;
	my $account = $script->model->{account}{$billing_id};

	ScriptRun::same_lines(hours_now($billing_id), hours_predicted($account), "$billing_id: sums of all hours");
	is($node->safe_psql('postgres', <<"SQL"),
SELECT (SELECT count(*) FROM usage_billing.usage WHERE billing_id = '$billing_id'),
	(SELECT count(*) FROM usage_billing.credit_grant WHERE billing_id = '$billing_id'),
	(SELECT count(*) FROM usage_billing.usage_revert WHERE billing_id = '$billing_id'),
	usage_billing.account_balance('$billing_id') ->> 'balance', usage_billing.total_debited('$billing_id')
SQL
		join('|', scalar keys %{ $account->{usage} }, scalar keys %{ $account->{grant} },
			scalar keys %{ $account->{revert_row} }, $account->{balance}, $account->{debited}),
		"$billing_id: number of facts, balance and total");
	is($node->safe_psql('postgres', <<"SQL"),
SELECT string_agg(concat_ws('/', usage_id, revert_no, amount), ',' ORDER BY usage_id::text COLLATE "C", revert_no)
FROM usage_billing.usage_revert WHERE billing_id = '$billing_id'
SQL
		join(',', map { "$_/$account->{revert_row}{$_}{amount}" }
			sort keys %{ $account->{revert_row} }),
		"$billing_id: each revert");
	is($node->safe_psql('postgres', "\\set account $billing_id\n$ScriptRun::PAGES;"), '0|0',
		"$billing_id: pages of account_transactions make up the whole, newest first");
	return;
}

# ---------------------------------------------------------------------------
# One client.

my $script = UsageScript->new(name => 'alone', directory => $directory, alone => 1);
$script->step while $script->ops < $ops;
$script->settle;
run_scripts($script);
check_predictions($script);
check_account($script, $_) for @{ $script->{billing_ids} };
is(BillingNode::differences($node, 'postgres'), '', 'verify() finds nothing after one client');

# ---------------------------------------------------------------------------
# Eight clients: each with accounts of its own, where all is predicted, and one
# account for all. There the ids are drawn from a small pool, and an id stands
# for one payload, so that clients repeat each other's usages; who comes first
# is open, what it must add up to is not.

my $POOL = 600;
my $CREDIT_MIN = -50;
srand $seed;
my @pool = map { {
	id => uuid(), amount => 1 + $_ % 40,
	type => $_ % 4 ? 'credit' : 'feature', source => $_ % 8 ? 'pool' : 'vod_streams' } } 0 .. $POOL - 1;
my @grants = map { { id => uuid(), amount => 50 + $_ } } 0 .. 39;

$node->safe_psql('postgres', "SELECT usage_billing.create_billing_account('shared-org', 'shared', $CREDIT_MIN)");

# In single calls no wait may end in a deadlock or a serialization failure, so
# neither state is in any of these lists, but for loads.
sub shared_step
{
	my ($script) = @_;
	my $usage = one_of(@pool);
	my $kind = int rand 100;
	my $may = sub { return { state => { map { $_ => 1 } '00000', @_ } } };

	if ($kind < 45)
	{
		my @items = map { one_of(@pool) } 1 .. one_of(1, 1, 2, 5, 12);
		my $texts = join ', ', map {
			qq({"id": "$_->{id}", "amount": $_->{amount}, "type": "$_->{type}", "source": "$_->{source}"})
		} @items;
		$script->add("SELECT usage_billing.create_usage('[$texts]', 'shared')",
			$may->('UB001'), tag => 'use', size => scalar @items);
	}
	elsif ($kind < 57)
	{
		$script->add("SELECT usage_billing.revert_usage('$usage->{id}', billing_id => 'shared')",
			$may->('23505', 'PT404', $script->model->{revert_once} ? () : '22023'), tag => 'revert', usage => $usage);
	}
	elsif ($kind < 69)
	{
		my $grant = one_of(@grants);
		$script->add("SELECT usage_billing.grant_credits('$grant->{id}', $grant->{amount}, 'shared')",
			$may->(), tag => 'grant', amount => $grant->{amount});
	}
	elsif ($kind < 79)
	{
		# features only: a load of credit usage would not ask for credit
		my %rows = map { $_->{id} => $_ } grep { $_->{type} eq 'feature' }
		  map { one_of(@pool) } 1 .. 12;
		my $values = join ', ', map { "('shared', '$_->{id}', 'feature', $_->{amount}, '$_->{source}')" } values_in_order(\%rows);
		$script->add("INSERT INTO usage_billing.usage (billing_id, id, type, amount, source) VALUES $values",
			$may->('23505', '40P01'), tag => 'load') if $values;
	}
	elsif ($kind < 89)
	{
		$script->add("SELECT usage_billing.account_balance('shared')", $may->(), tag => 'balance');
	}
	elsif ($kind < 97)
	{
		$script->add('SELECT usage_billing.run_maintenance()', $may->());
	}
	else
	{
		$script->add("SELECT usage_billing.rebuild('shared')", $may->());
	}
	return;
}

# Any order will do, but the same one for the same seed.
sub values_in_order
{
	my ($rows) = @_;
	my @ids = sort keys %$rows;
	@ids = reverse @ids if chance(0.5);
	return @$rows{@ids};
}

my @scripts;
for my $client (1 .. $CLIENTS)
{
	my $script = UsageScript->new(name => "c$client", directory => $directory);
	while ($script->ops < $ops / $CLIENTS)
	{
		$script->step;
		shared_step($script) if !$script->model->{savepoints} && chance(0.4);
	}
	$script->settle;
	push @scripts, $script;
}
run_scripts(@scripts);

check_predictions($_) for @scripts;
for my $script (@scripts)
{
	check_account($script, $_) for @{ $script->{billing_ids} };
}
is(BillingNode::differences($node, 'postgres'), '', 'verify() finds nothing after eight clients');

# What was acknowledged to anybody, against what is there.
my %sum = (created => 0, loaded => 0, granted => 0, reverted => 0, feature_reverted => 0);
my $lowest = 0;
my $miscounted = 0;
for my $op (map { $_->ops } @scripts)
{
	next unless $op->{tag} && ($op->{state} // '') eq '00000';
	my %answer = map { /"(\w+)": (-?\d+|true|false)/ ? ($1 => $2) : () } split /, /, $op->{out};

	if ($op->{tag} eq 'use')
	{
		$sum{created} += $answer{created};
		$miscounted++ if $answer{created} + $answer{duplicates} != $op->{size};
	}
	$sum{loaded} += $op->{rows} if $op->{tag} eq 'load';
	$sum{granted} += $op->{amount} if $op->{tag} eq 'grant' && $answer{duplicate} eq 'false';
	if ($op->{tag} eq 'revert')
	{
		$sum{ $op->{usage}{type} eq 'credit' ? 'reverted' : 'feature_reverted' } += $op->{usage}{amount};
	}
	$lowest = $answer{balance} if defined $answer{balance} && $answer{balance} < $lowest;
}
is($miscounted, 0, 'shared account: every element of every call was created or a duplicate');
cmp_ok($lowest, '>=', $CREDIT_MIN, 'shared account: nobody ever saw a balance under credit_min');
is($node->safe_psql('postgres', "SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'shared'"),
	$sum{created} + $sum{loaded}, 'shared account: usages stored = usages acknowledged');
is($node->safe_psql('postgres', "SELECT coalesce(sum(amount), 0) FROM usage_billing.credit_grant WHERE billing_id = 'shared'"),
	$sum{granted}, 'shared account: credits granted = grants acknowledged');
is($node->safe_psql('postgres', "SELECT coalesce(sum(amount), 0) FROM usage_billing.usage_revert WHERE billing_id = 'shared'"),
	$sum{reverted} + $sum{feature_reverted}, 'shared account: amounts reverted = reverts acknowledged');

my $used = $node->safe_psql('postgres',
	"SELECT coalesce(sum(amount), 0) FROM usage_billing.usage WHERE billing_id = 'shared' AND type = 'credit'");
is($node->safe_psql('postgres', "SELECT usage_billing.account_balance('shared') ->> 'balance'"),
	$sum{granted} - $used + $sum{reverted}, 'shared account: balance = what was acknowledged');

my $log = slurp_file($node->logfile);
unlike($log, qr/PANIC|FATAL:  terminating|XX000/, 'nothing broke in the server');

$node->stop;
done_testing();
