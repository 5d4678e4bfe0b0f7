# Counters in shared memory: more accounts than counters, databases, crashes,
# promotion, and switching them off and on, all under load. What was admitted
# never takes an account under its credit_min, and its credits can be used to the
# last.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use BillingNode;
use Killer;
use Workers;

my $CREDITS = 500;
our $SECONDS = 3;
my $node = Workers::start('usage_billing.escrow_accounts' => 8, restart_after_crash => 'on', wal_level => 'replica',
	max_wal_senders => 5, hot_standby => 'on', log_min_messages => 'warning');
my $directory = PostgreSQL::Test::Utils::tempdir();

sub value { return $node->safe_psql($_[1] // 'postgres', $_[0]); }

# Makes accounts name1 ... namen, each with the same credits.
sub accounts
{
	my ($name, $n, $database, $server) = @_;
	($server // $node)->safe_psql($database // 'postgres', <<"SQL");
SELECT count(usage_billing.create_billing_account('o-$name' || i, '$name' || i)) FROM generate_series(1, $n) i;
SELECT count(usage_billing.grant_credits(gen_random_uuid(), $CREDITS, '$name' || i)) FROM generate_series(1, $n) i;
SQL
	return;
}

# Clients that take 1 to 9 credits at a time from any of the accounts until they
# are told to stop; some give up what they took, in part or wholly.
sub takers
{
	my ($name, $n, $clients, $database, $server) = @_;
	$server //= $node;
	$server->safe_psql($database // 'postgres', <<'SQL');
CREATE OR REPLACE PROCEDURE take(account text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1 + (random() * 8)::int)), account);
EXCEPTION WHEN SQLSTATE 'UB001' THEN
	NULL;
END $$;
SQL
	append_to_file("$directory/$name.sql", <<"SQL") unless -e "$directory/$name.sql";
\\set a random(1, $n)
\\set how random(1, 10)
BEGIN;
CALL take('$name' || :a);
\\if :how = 1
SAVEPOINT s;
CALL take('$name' || :a);
ROLLBACK TO SAVEPOINT s;
\\endif
\\if :how = 2
ROLLBACK;
\\else
COMMIT;
\\endif
SQL
	my $err = '';
	my $out = '';
	my $run = IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-T', $SECONDS, '-f', "$directory/$name.sql",
			$server->connstr($database // 'postgres') . ' application_name=takers' ], '>', \$out, '2>', \$err);
	return { run => $run, err => \$err, name => $name };
}

sub finish
{
	my ($takers) = @_;
	ok($takers->{run}->finish, "$takers->{name}: no client met an error") or diag(${ $takers->{err} });
	return;
}

# Nobody is under its credit_min, the books are right, and what is left can be
# used to the last credit, but no further.
sub exact
{
	my ($name, $n, $database, $server) = @_;
	$server //= $node;
	$database //= 'postgres';
	my $least = "SELECT min((usage_billing.account_balance('$name' || i) ->> 'balance')::int) FROM generate_series(1, $n) i";
	cmp_ok($server->safe_psql($database, $least), '>=', 0, "$name: no account is overdrawn");
	is(BillingNode::differences($server, $database), '', "$name: verify() finds nothing");
	is($server->safe_psql($database, <<"SQL"), '', "$name: calls answer the balance that readers see");
SELECT answered, balance FROM (
	SELECT (usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 0)), '$name' || i) ->> 'balance') AS answered,
		usage_billing.account_balance('$name' || i) ->> 'balance' AS balance FROM generate_series(1, $n) i) AS asked
WHERE answered <> balance
SQL
	is($server->safe_psql($database, <<"SQL"), $n, "$name: what is left can be used");
SELECT count(usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(),
	'amount', usage_billing.account_balance('$name' || i) ->> 'balance')), '$name' || i)) FROM generate_series(1, $n) i
SQL
	my $use = "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1)), '${name}1')";
	is((BillingNode::outcome($server, $database, $use))[0], 'UB001', "$name: and nothing beyond");
	is($server->safe_psql($database, $least), 0, "$name: every credit was used");
	return;
}

# ---------------------------------------------------------------------------
# More accounts than counters: they make room for each other.

accounts('many', 100);
my $takers = takers('many', 100, 8);
finish($takers);
exact('many', 100);

# ---------------------------------------------------------------------------
# A load over many accounts, beside calls to some of them.

accounts('load', 5);
value(q{SELECT count(usage_billing.create_billing_account('o-bulk' || i, 'bulk' || i)) FROM generate_series(1, 5000) i});
my $before = value(q{SELECT sum((usage_billing.account_balance('load' || i) ->> 'balance')::int) FROM generate_series(1, 5) i});
$takers = takers('load', 5, 6);
sleep 0.3;
value(<<'SQL');
INSERT INTO usage_billing.usage (billing_id, id, amount)
SELECT CASE WHEN i % 50 = 0 THEN 'load' || 1 + i / 50 % 5 ELSE 'bulk' || 1 + i % 5000 END, gen_random_uuid(), 1
FROM generate_series(1, 20000) i
SQL
finish($takers);
my $loaded = value(q{SELECT sum(amount) FROM usage_billing.usage WHERE billing_id LIKE 'load%'});
is(value(q{SELECT sum((usage_billing.account_balance('load' || i) ->> 'balance')::int) FROM generate_series(1, 5) i}),
	$before - $loaded, 'load: what was loaded and what was admitted is gone, once');
# a load is never refused, a call is if it comes after
cmp_ok(value(q{SELECT min((usage_billing.account_balance('load' || i) ->> 'balance')::int) FROM generate_series(1, 5) i}),
	'>=', -80, 'load: only the load itself may overdraw');
is(BillingNode::differences($node, 'postgres'), '', 'load: verify() finds nothing');

# ---------------------------------------------------------------------------
# The same ids in two databases, and in an extension that is made anew.

value('CREATE DATABASE other');
value('CREATE EXTENSION usage_billing', 'other');
accounts('both', 1);
accounts('both', 1, 'other');
my $all = "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', $CREDITS)), 'both1')";
for my $database ('postgres', 'other')
{
	is((BillingNode::outcome($node, $database, $all))[0], '00000', "$database has credits of its own");
	is((BillingNode::outcome($node, $database, $all))[0], 'UB001', "$database: once");
}
accounts('again', 1, 'other');
my $one = q{SELECT usage_billing.create_usage('[{"id": "00000000-0000-0000-0000-000000000001", "amount": 1}]', 'again1')};
is((BillingNode::outcome($node, 'other', $one))[0], '00000', 'a counter is set');
value('DROP EXTENSION usage_billing; CREATE EXTENSION usage_billing', 'other');
value("SELECT usage_billing.create_billing_account('o', 'again1')", 'other');
is((BillingNode::outcome($node, 'other', $one))[0], 'UB001', 'an extension that is made anew knows no credits of the one before');

# ---------------------------------------------------------------------------
# Switched off and on under load.

accounts('switch', 3);
$takers = takers('switch', 3, 8);
for my $n (1 .. 12)
{
	value('ALTER SYSTEM SET usage_billing.escrow = ' . ($n % 2 ? 'off' : 'on'));
	value('SELECT pg_reload_conf()');
	sleep 0.2;
}
finish($takers);
exact('switch', 3);
value('ALTER SYSTEM SET usage_billing.escrow = off');
value('SELECT pg_reload_conf()');
sleep 0.2;
accounts('off', 1);
my $use = "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', $CREDITS)), 'off1')";
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SET client_min_messages = error; $use");
is((BillingNode::outcome($node, 'postgres', "SET lock_timeout = '200ms'; $use"))[0], '55P03', 'off: calls take turns');
$holder->query_safe('ROLLBACK');
is((BillingNode::outcome($node, 'postgres', $use))[0], '00000', 'off: and are admitted then');
$holder->quit;
value('ALTER SYSTEM RESET usage_billing.escrow');
value('SELECT pg_reload_conf()');

# ---------------------------------------------------------------------------
# A backend that is killed takes the shared memory with it.

accounts('crash', 3);
# they end with the server
$takers = do { local $SECONDS = 60; takers('crash', 3, 8) };
my $connected = "FROM pg_stat_activity WHERE application_name = 'takers'";
ok($node->poll_query_until('postgres', "SELECT count(*) = 8 $connected"), 'crash: the clients are at it');
sleep 0.5;
my $victim = value("SELECT min(pid) $connected");
Killer::kill_one($victim);
$takers->{run}->finish;
ok($node->poll_query_until('postgres', 'SELECT true'), 'crash: the server is there again');
exact('crash', 3);

# ---------------------------------------------------------------------------
# A standby has no counters; promoted, it makes its own.

accounts('standby', 3);
$takers = takers('standby', 3, 4);
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
finish($takers);
$node->wait_for_catchup($standby);
$node->stop;
$standby->promote;
$takers = takers('standby', 3, 4, 'postgres', $standby);
finish($takers);
exact('standby', 3, 'postgres', $standby);
$standby->stop;

done_testing();
