# A server that is killed at random moments under a mixed load, again and again,
# also while it recovers: the clients repeat what they did not hear back, and in
# the end every fact that was acknowledged is there once, whole transactions
# only, and all that is derived is what the facts say. Once without and once
# with the library preloaded.
#
# SIGKILL leaves the operating system's caches alone, so that fsync = off loses
# nothing; each start runs a full crash recovery.
#
# CRASH_SEED repeats a run's random choices (not its timing), CRASH_SECONDS is
# how long each of the two lasts.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use List::Util qw(sum);
use Time::HiRes qw(sleep time);

use BillingNode;
use Killer;
use Load;
use UsageInput;

my $SEED = $ENV{CRASH_SEED} // int rand 2**31;
my $SECONDS = $ENV{CRASH_SECONDS} // 22;
my $CLIENTS = 8;

diag("seed $SEED, twice $SECONDS s (repeat with CRASH_SEED=$SEED)");

# What is killed, and how often: the postmaster, it and all of its processes,
# or one process, whose death makes the postmaster start all anew.
my %KINDS = (postmaster => 3, everything => 3, backend => 3, worker => 2, launcher => 1, checkpointer => 1, 'walwriter' => 1, 'immediate stop' => 1);

sub some_kind
{
	my ($preloaded) = @_;
	return one_of(map { ($_) x $KINDS{$_} } grep { $preloaded || !/worker|launcher/ } sort keys %KINDS);
}

# Kills it; false if there was none.
sub strike
{
	my ($node, $kind) = @_;

	if ($kind eq 'immediate stop')
	{
		$node->stop('immediate');
		return 1;
	}
	if ($kind eq 'postmaster' || $kind eq 'everything')
	{
		Killer::crash($node, $kind eq 'everything');
		return 1;
	}
	my $title = $kind eq 'backend' ? qr/load-c|\[local\]/ : $kind =~ /worker|launcher/ ? qr/usage_billing $kind/ : qr/: $kind/;
	my @some = Killer::titled($node, $title) or return 0;
	my $pid = one_of(@some);
	my $offset = -s $node->logfile;
	Killer::kill_one($pid) or return 0;
	# one that was ending by itself went before the signal came
	return slurp_file($node->logfile, $offset) =~ /\(PID $pid\) was terminated by signal 9/;
}

# Starts the server, and kills it now and then before it has recovered.
sub start_again
{
	my ($node) = @_;
	my $again = 0;

	while (chance(0.3))
	{
		Killer::begin_start($node);
		sleep rand 0.25;
		Killer::crash($node, chance(0.5));
		$again++;
	}
	$node->start;
	return $again;
}

# Looks, while the clients go on, whether all is sound.
sub is_sound
{
	my ($node) = @_;
	for my $sql ('SELECT * FROM usage_billing.verify()', $Load::UNDER)
	{
		my (undef, $found) = Killer::ask($node, $sql);
		return $found if $found ne '';
	}
	return '';
}

sub crashes
{
	my ($name, $seed, %settings) = @_;
	my $preloaded = exists $settings{shared_preload_libraries};
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	my %conf = (log_statement => 'none', log_line_prefix => '%m [%p] %b %q%a =%e ', max_connections => 40, restart_after_crash => 'on',
		max_prepared_transactions => 20, wal_level => 'replica', checkpoint_timeout => '30s', max_wal_size => '100MB', %settings);
	$node->append_conf('postgresql.conf', join '', map { "$_ = '$conf{$_}'\n" } sort keys %conf);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION usage_billing');

	srand $seed;
	my $load = Load->new(seed => $seed, clients => $CLIENTS, hangs => 1, prepares => 1, pause => 0.002);
	$load->server($node);
	$load->set_up;
	$load->begin;

	my $until = time + $SECONDS;
	my (%killed, @unsound);
	my ($recoveries, $looks) = (0, 0);
	while (time < $until || time < $until + 120 && sum(0, values %killed) < $SECONDS / 6)
	{
		sleep 0.1 + rand 0.9;
		Killer::ask($node, 'CHECKPOINT') if chance(0.2);
		my $kind = some_kind($preloaded);
		strike($node, $kind) or next;
		$killed{$kind}++;
		unless (defined $node->{_pid})
		{
			my $again = start_again($node);
			$killed{'while it recovered'} += $again if $again;
		}
		Killer::is_up($node) or BAIL_OUT('the server does not come back');
		next unless chance(0.4);
		my $found = is_sound($node);
		push @unsound, $found if $found ne '';
		$looks++;
	}
	$load->end;
	my $kills = sum(0, values %killed);
	note("$name: killed ", join ', ', map { "$_ $killed{$_}" } sort keys %killed);

	my $counts = $load->as_told($node, $name);
	Load::summary($counts);
	Load::none(\@unsound, "$name: all was sound whenever somebody looked") or diag("$looks looks");
	$load->derived($node, $name);
	is($node->safe_psql('postgres', $Load::UNDER), '', "$name: no account of short credit is under its credit_min");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), 0, "$name: no transaction is left prepared");

	# what happened at all
	my $log = slurp_file($node->logfile);
	my $recovered = () = $log =~ /redo starts at|redo is not required/g;
	cmp_ok($kills, '>=', $SECONDS / 6, "$name: the server was killed $kills times");
	cmp_ok($recovered, '>=', $kills - ($killed{'while it recovered'} // 0), "$name: and recovered from each");
	cmp_ok(Load::count($counts, qr/lost$/), '>=', $kills, "$name: clients lost connections");
	cmp_ok(Load::count($counts, qr/^unheard there/), '>', 0, "$name: there were transactions that were stored and not acknowledged");
	cmp_ok(Load::count($counts, qr/^(?:use|use_pool|load|grant|revert|files|own_files|COMMIT|COMMIT PREPARED) 00000/), '>', 20 * $SECONDS, "$name: there was a load");
	unlike($log, qr/PANIC|TRAP|=XX/, "$name: nothing else broke");
	$node->stop;
	return;
}

crashes('plain', $SEED);
crashes('preloaded', $SEED + 500, shared_preload_libraries => 'usage_billing', 'usage_billing.fold_interval' => '50ms',
	'usage_billing.storage_refresh_interval' => '1s', 'usage_billing.storage_recount_interval' => '3s');
done_testing();
