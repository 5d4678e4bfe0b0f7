# Clients that do anything at random, cancelled and thrown out at random, while
# others fold, refresh and watch: no snapshot shows an account of short credit
# under its credit_min, nothing fails with what it must not, and in the end all
# is what the clients were told. Once without and once with the library
# preloaded.
#
# CHAOS_SEED repeats a run's random choices, CHAOS_SECONDS is how long each of
# the two lasts, CHAOS_CLIENTS how many there are.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use BillingNode;
use Load;

my $SEED = $ENV{CHAOS_SEED} // int rand 2**31;
my $SECONDS = $ENV{CHAOS_SECONDS} // 20;
my $CLIENTS = $ENV{CHAOS_CLIENTS} // 12;

diag("seed $SEED, $CLIENTS clients, twice $SECONDS s (repeat with CHAOS_SEED=$SEED)");

# What may stand in the log: what clients are told when they are cancelled or
# thrown out (57), too late (55P03), short of credit (UB) or in conflict, and
# that they hung up (08006).
my @MAY = qw(08006 UB001 UB002 UB003 23505 PT404 57014 57P01 55P03 40001 40P01 25P02 42704 55000);

# Whoever is in the server's log under a name.
my $SOMEBODY = "FROM pg_stat_activity WHERE (application_name LIKE 'load-%' OR backend_type = 'usage_billing worker') ORDER BY random() LIMIT 1";

# The balance by the facts, in the same snapshot.
my $BY_FACTS = <<'SQL';
SELECT a.billing_id, usage_billing.account_balance(a.billing_id) ->> 'balance',
	(SELECT coalesce(sum(amount), 0) FROM usage_billing.credit_grant g WHERE g.billing_id = a.billing_id)
	- (SELECT coalesce(sum(amount), 0) FROM usage_billing.usage u WHERE u.billing_id = a.billing_id AND type = 'credit')
	+ (SELECT coalesce(sum(amount), 0) FROM usage_billing.usage_revert r WHERE r.billing_id = a.billing_id AND usage_type = 'credit')
FROM usage_billing.billing_account a WHERE billing_id = 'tight-' || 1 + floor(3 * random())
SQL

# How far the accounts of short credit are above their credit_min.
my $LEFT = <<'SQL';
SELECT min((usage_billing.account_balance(billing_id) ->> 'available')::numeric) FROM usage_billing.billing_account WHERE billing_id LIKE 'tight-%'
SQL

sub troublemaker
{
	my ($session) = @_;
	my $what = rand() < 0.06 ? 'pg_terminate_backend' : 'pg_cancel_backend';
	my ($state) = $session->ask("SELECT $what(pid) $SOMEBODY");
	$session->reconnect if $state eq 'lost';
	sleep 0.03;
	return;
}

# Looks at one snapshot after the other, and writes down what it must not see.
sub watcher
{
	my ($file, $looks, $level) = @_;
	return sub {
		my ($session) = @_;
		my ($state, $out) = $session->ask($Load::UNDER);
		append_to_file($file, $state eq '00000' ? $out eq '' ? "look\n" : "under credit_min: $out\n" : "failed: $state\n");
		return if ${$looks}++ % 8;
		($state, $out) = $session->ask($BY_FACTS);
		my (undef, $balance, $facts) = split /\|/, $out;
		append_to_file($file, $state eq '00000' && $balance == $facts ? "look\n" : "facts and balance differ: $state $out\n");
		($state, $out) = $session->ask($LEFT);
		append_to_file($file, "left $out\n");
		return;
	};
}

sub chaos
{
	my ($name, $seed, %settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	my %conf = (log_statement => 'none', log_line_prefix => '%m [%p] %b %q%a =%e ', max_connections => 60, autovacuum_naptime => '2s',
		max_prepared_transactions => 20, deadlock_timeout => '200ms', statement_timeout => '2min', %settings);
	$node->append_conf('postgresql.conf', join '', map { "$_ = '$conf{$_}'\n" } sort keys %conf);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION usage_billing');

	my $load = Load->new(seed => $seed, clients => $CLIENTS, cancels => 1, hangs => 1, prepares => 1);
	my $watched = "$load->{directory}/watched";
	$load->server($node);
	$load->set_up;
	$load->begin;
	$load->beside('trouble', \&troublemaker);
	my $looks = 0;
	$load->beside("watch-$_", watcher("$watched-$_", \$looks)) for 1, 2;
	# half of the time nobody but calls folds
	my $turn = 0;
	$load->beside('folder', sub {
		my ($session) = @_;
		my ($state) = $session->ask('SELECT usage_billing.run_maintenance()');
		append_to_file("$watched-fold", $state eq '00000' ? "look\n" : "failed: $state\n");
		sleep 0.1 + (++$turn % 20 ? 0 : 2);
	});
	sleep $SECONDS;
	$load->end;

	my $counts = $load->as_told($node, $name);
	Load::summary($counts);
	$load->derived($node, $name);

	my @seen = split /\n/, join '', map { slurp_file($_) } glob "$watched-*";
	my ($least) = sort { $a <=> $b } map { /^left (-?\d+)/ ? $1 : () } @seen;
	Load::none([ grep { !/^(?:look|left)/ } @seen ], "$name: no snapshot shows what it must not, and folding never failed");
	cmp_ok(scalar(grep { /^look/ } @seen), '>', 50, "$name: there were snapshots");
	cmp_ok($least, '<', 20, "$name: credit did become short");
	for my $state ('00000', 'UB001')
	{
		cmp_ok(Load::count($counts, qr/^use(?:_pool)? $state$/), '>', 20, "$name: there were calls that ended in $state");
	}
	for my $pattern ('57014$', 'lost$', '^COMMIT 00000', '^COMMIT PREPARED 00000', '^ROLLBACK PREPARED 00000', '^refresh 00000', '^load_revert 00000', '^conflict 23505', '^balance told')
	{
		cmp_ok(Load::count($counts, qr/$pattern/), '>', 0, "$name: there was $pattern");
	}
	Load::none([ Load::unexpected_states($node, @MAY) ], "$name: the log has no other errors");
	my ($wrong, $deadlocks) = Load::deadlocks($node);
	note("$name: $deadlocks deadlocks");
	Load::none($wrong, "$name: no single call paid for a deadlock but where others make several in a transaction");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$name: no transaction is left prepared");
	$node->stop;
	return;
}

chaos('plain', $SEED);
chaos('preloaded', $SEED + 500, shared_preload_libraries => 'usage_billing', 'usage_billing.fold_interval' => '50ms',
	'usage_billing.storage_refresh_interval' => '1s', 'usage_billing.storage_recount_interval' => '4s');
done_testing();
