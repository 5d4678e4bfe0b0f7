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
use UsageInput;
use UsageScript;

my $seed = $ENV{SEED} // (time ^ $$) & 0x7fffffff;
my $ops = $ENV{OPS} // 4000;
my $CLIENTS = 8;
my $SHOWN = 5;    # failures that are shown of each client

srand $seed;
diag("seed $seed, $ops statements (repeat with SEED=$seed OPS=$ops)");

my $node = BillingNode::start();
my $began = $node->safe_psql('postgres',
	"SELECT extract(epoch FROM date_trunc('hour', now(), 'UTC'))::bigint");
my $directory = PostgreSQL::Test::Utils::tempdir();

# Runs scripts at once, each in a psql of its own, and notes with each op what
# came of it.
sub run_scripts
{
	my (@scripts) = @_;
	my @running;

	for my $script (@scripts)
	{
		my $base = "$directory/$script->{name}";
		append_to_file("$base.sql", $script->text);
		push @running, IPC::Run::start(
			[ 'psql', '-X', '-q', '-A', '-t', '-d', $node->connstr('postgres'),
				'-v', 'VERBOSITY=verbose', '-f', "$base.sql" ],
			'>', "$base.out", '2>', "$base.err",
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 3));
	}
	$_->finish for @running;

	for my $script (@scripts)
	{
		my $output = slurp_file("$directory/$script->{name}.out");
		my @ops = $script->ops;
		while ($output =~ /\G(.*?)^@@(\d+) (\w{5}) (\d*)\n/gms)
		{
			@{ $ops[$2] }{qw(out state rows)} = ($1, $3, $4);
			$ops[$2]{out} =~ s/\n\z//;
		}
	}
	return;
}

# Whether an op's outcome is the predicted one.
sub as_predicted
{
	my ($op) = @_;
	my $answer = $op->{answer};

	return 0 unless defined $op->{state} && $answer->{state}{ $op->{state} };
	return 1 if $op->{state} ne '00000';
	return 0 if defined $answer->{rows} && $answer->{rows} != $op->{rows};
	return 1 if !defined $answer->{out} || $op->{out} eq $answer->{out};
	return 0 unless $answer->{out} =~ /"id": "\*"/;

	my $given = $op->{out};
	$given =~ s/"id": "[0-9a-f-]{36}"/"id": "*"/;
	return $given eq $answer->{out};
}

sub check_predictions
{
	my ($script) = @_;
	my @ops = $script->ops;
	my @wrong = grep { !as_predicted($ops[$_]) } 0 .. $#ops;
	my %states;

	$states{ $_->{state} // 'none' }++ for @ops;
	is(scalar @wrong, 0, sprintf 'client %s: all %d results as predicted', $script->{name}, scalar @ops);
	note(join ', ', map { "$_: $states{$_}" } sort keys %states);
	for my $no (grep { defined } @wrong[ 0 .. $SHOWN - 1 ])
	{
		my $op = $ops[$no];
		diag(sprintf "client %s, statement %d: %s", $script->{name}, $no,
			length $op->{sql} > 3000 ? substr($op->{sql}, 0, 3000) . '…' : $op->{sql});
		diag('  expected ' . join(' or ', sort keys %{ $op->{answer}{state} })
			  . ' rows ' . ($op->{answer}{rows} // 'any') . ': ' . ($op->{answer}{out} // 'anything'));
		diag('  got ' . ($op->{state} // 'nothing') . ' rows ' . ($op->{rows} // '') . ': ' . ($op->{out} // ''));
	}
	diag(slurp_file("$directory/$script->{name}.err") =~ s/(.{4000}).*/$1…/sr)
	  if grep { !defined $_->{state} } @ops;
	return;
}

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

# Pages of seven rows, one after the other by cursor, against all at once.
my $PAGES = <<'SQL';
WITH RECURSIVE page AS (
	SELECT 0 AS no, NULL::text[] AS rows, NULL::text AS before, true AS more
	UNION ALL
	SELECT page.no + 1, p.rows, p.last, p.last IS NOT NULL
	FROM page, LATERAL (
		SELECT array_agg(t::text ORDER BY t.ordinality) AS rows, max(t.cursor) FILTER (WHERE t.ordinality = 7) AS last
		FROM (
			SELECT a.id, a.kind, a.amount, a.created_at, a.cursor, a.ordinality
			FROM usage_billing.account_transactions(max_rows => 7, billing_id => :'account', before => page.before)
				WITH ORDINALITY a
		) t
	) p
	WHERE page.more
), paged AS (
	SELECT (no - 1) * 7 + i AS n, rows[i] AS t FROM page, generate_subscripts(rows, 1) i
), whole AS (
	SELECT ordinality AS n, (id, kind, amount, created_at, cursor, 1 + (ordinality - 1) % 7)::text AS t, created_at
	FROM usage_billing.account_transactions(max_rows => 1000000, billing_id => :'account') WITH ORDINALITY
), ordered AS (
	SELECT *, lag(created_at) OVER (ORDER BY n) AS newer FROM whole
)
SELECT count(*) FILTER (WHERE w.t IS DISTINCT FROM p.t), count(*) FILTER (WHERE w.created_at > w.newer)
FROM ordered w FULL JOIN paged p USING (n)
SQL

# Compares two lists of lines and shows only the lines that differ.
sub same_lines
{
	my ($got, $expected, $name) = @_;
	my %got = map { $_ => 1 } split /\n/, $got;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my @wrong = ((map { "got only:      $_" } grep { !$expected{$_} } sort keys %got),
		(map { "expected only: $_" } grep { !$got{$_} } sort keys %expected));

	ok(!@wrong, $name) or diag(join "\n", grep { defined } @wrong[ 0 .. 2 * $SHOWN ]);
	return;
}

# An account's end state against the model's.
sub check_account
{
	my ($script, $billing_id) = @_;
	my $account = $script->model->{account}{$billing_id};

	same_lines(hours_now($billing_id), hours_predicted($account), "$billing_id: sums of all hours");
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
	is($node->safe_psql('postgres', "\\set account $billing_id\n$PAGES;"), '0|0',
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
