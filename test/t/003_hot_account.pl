# Many clients on one account: admission is exact, and no single call fails
# with anything but insufficient credits. 014_hot_escrow.pl runs the same on a
# preloaded server.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

my $CLIENTS = 16;
my $SECONDS = $ENV{HOT_SECONDS} // 3;

my $PRELOADED = $ENV{HOT_PRELOADED};

my $node = BillingNode::start(max_prepared_transactions => 5,
	$PRELOADED ? (shared_preload_libraries => 'usage_billing') : ());
my $directory = PostgreSQL::Test::Utils::tempdir();

sub value { return $node->safe_psql('postgres', $_[0]); }

# Makes account $name with credits, and a floor.
sub account
{
	my ($name, $credits, $credit_min) = @_;
	value("SELECT usage_billing.create_billing_account('org-$name', '$name', $credit_min)");
	value("SELECT usage_billing.grant_credits(gen_random_uuid(), $credits, '$name')");
	return;
}

# Runs pgbench with weighted scripts; returns how many transactions there were.
# pgbench ends a client at its first error, and then fails.
sub bench
{
	my ($name, $scripts, @more) = @_;
	my ($out, $err) = ('', '');
	my @files;

	for my $script (sort keys %$scripts)
	{
		my ($weight, $sql) = @{ $scripts->{$script} };
		append_to_file("$directory/$name-$script.sql", $sql);
		push @files, '-f', "$directory/$name-$script.sql\@$weight";
	}
	IPC::Run::run([ 'pgbench', '-n', '-c', $CLIENTS, '-j', 2, '-T', $SECONDS, @more, @files,
			$node->connstr('postgres') ], '>', \$out, '2>', \$err);
	is($?, 0, "$name: no client met an error") or diag($err);
	my ($done) = $out =~ /number of transactions actually processed: (\d+)/;
	note("$name: $done transactions") if defined $done;
	return $done // 0;
}

# The balance as the facts have it.
sub balance_by_facts
{
	my ($name) = @_;
	return value(<<"SQL");
SELECT (SELECT coalesce(sum(amount), 0) FROM usage_billing.credit_grant WHERE billing_id = '$name')
	- (SELECT coalesce(sum(amount), 0) FROM usage_billing.usage WHERE billing_id = '$name' AND type = 'credit')
	+ (SELECT coalesce(sum(amount), 0) FROM usage_billing.usage_revert WHERE billing_id = '$name' AND usage_type = 'credit')
SQL
}

sub balance
{
	my ($name) = @_;
	return value("SELECT usage_billing.account_balance('$name') ->> 'balance'");
}

sub sound
{
	my ($name) = @_;
	is(balance($name), balance_by_facts($name), "$name: balance = sum of the facts");
	is(BillingNode::differences($node, 'postgres'), '', "$name: verify() finds nothing");
	my $log = slurp_file($node->logfile);
	unlike($log, qr/deadlock detected|could not serialize/, "$name: no deadlock, no serialization failure");
	return;
}

my $ONE = q{jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1))};

# ---------------------------------------------------------------------------
# Credit for all.

account('rich', 1000000000, 0);
my $calls = bench('rich', { use => [ 1, "SELECT usage_billing.create_usage($ONE, 'rich');\n" ] });
is(value("SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'rich'"), $calls, 'rich: as many usages as calls');
is(balance('rich'), 1000000000 - $calls, 'rich: exactly one credit a call is gone');
cmp_ok(value("SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id = 'rich'"), '<', $calls / 2,
	'rich: calls fold what they find, without any worker');
sound('rich');

# ---------------------------------------------------------------------------
# The credit runs out in the middle. Each client asks for 1 to 3 credits at a
# time, more in all than there are.

my $CREDIT_MIN = -7;
my $CREDITS = 1000;
my $EACH = 120;
account('scarce', $CREDITS, $CREDIT_MIN);

my @running;
for my $client (1 .. $CLIENTS)
{
	my $file = "$directory/scarce-$client";
	append_to_file("$file.sql", join '', map {
		my $amount = 1 + ($_ + $client) % 3;
		my $call = "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', $amount)), 'scarce') ->> 'balance';\n"
		  . "\\echo $amount :SQLSTATE\n";
		# some commit a while after they were admitted
		$_ % 4 ? $call : "BEGIN;\n${call}SELECT pg_sleep(0.002) \\g /dev/null\nCOMMIT;\n";
	} 1 .. $EACH);
	push @running, IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $node->connstr('postgres'), '-f', "$file.sql" ],
		'>', "$file.out", '2>', "$file.err");
}
append_to_file("$directory/watch.sql",
	"SELECT usage_billing.account_balance('scarce') ->> 'balance';\nSELECT usage_billing.run_maintenance();\n" x 200);
push @running, IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-d', $node->connstr('postgres'), '-f', "$directory/watch.sql" ],
	'>', "$directory/watch.out", '2>', "$directory/watch.err");
$_->finish for @running;

my ($taken, $lowest, %states) = (0, $CREDITS);
for my $client (1 .. $CLIENTS)
{
	for my $line (split /\n/, slurp_file("$directory/scarce-$client.out"))
	{
		if ($line =~ /^(\d+) (\w{5})$/)
		{
			$states{$2}++;
			$taken += $1 if $2 eq '00000';
		}
		elsif ($line < $lowest) { $lowest = $line; }
	}
}
is(join(' ', sort keys %states), '00000 UB001', 'scarce: calls succeed or lack credit, nothing else')
  or diag(map { slurp_file("$directory/scarce-$_.err") =~ s/.*insufficient credits.*\n(?:DETAIL.*\n|HINT.*\n)*//gr } 1 .. $CLIENTS);
is($states{'00000'} + $states{UB001}, $CLIENTS * $EACH, 'scarce: every call was answered');
is(balance('scarce'), $CREDITS - $taken, 'scarce: what was acknowledged is what is gone');
is(balance('scarce'), $CREDIT_MIN, 'scarce: the credit was used to the last');
# with counters a call is told of what is committed and its own, so perhaps nobody is told of the last credit
cmp_ok($lowest, $PRELOADED ? '>=' : '==', $CREDIT_MIN, 'scarce: no call was told of a balance under credit_min');
my @seen = grep { length } split /\n/, slurp_file("$directory/watch.out");
is(scalar(grep { $_ < $CREDIT_MIN } @seen), 0, 'scarce: no reader saw a balance under credit_min');
is(slurp_file("$directory/watch.err"), '', 'scarce: reading and folding met no error');
sound('scarce');

# ---------------------------------------------------------------------------
# Everything at once. COPY comes from a session of its own, with new ids.

account('mixed', 1000000, 0);
my $FILES = 25;
my $ROWS = 400;
append_to_file("$directory/load.sql", "\\set ON_ERROR_STOP on\n");
for my $no (1 .. $FILES)
{
	append_to_file("$directory/load-$no.copy",
		join '', map { sprintf "mixed\t%08x-0000-4000-8000-%012x\t%d\n", $no, $_, $_ % 5 } 1 .. $ROWS);
	append_to_file("$directory/load.sql",
		"COPY usage_billing.usage (billing_id, id, amount) FROM '$directory/load-$no.copy';\nSELECT pg_sleep(0.05);\n");
}
my $load_error = '';
my $loading = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-f', "$directory/load.sql" ],
	'>', \my $load_out, '2>', \$load_error);
bench('mixed', {
	use => [ 10, "SELECT usage_billing.create_usage($ONE || $ONE || $ONE, 'mixed');\n" ],
	feature => [ 3, "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 1, "
		. "'type', 'feature', 'source', 'vod_streams', 'metadata', jsonb_build_object('viewing_seconds', 30))), 'mixed');\n" ],
	twice => [ 3, "SELECT gen_random_uuid() AS id \\gset\n"
		. "SELECT usage_billing.create_usage('[{\"id\": \"\:id\", \"amount\": 2}]', 'mixed');\n" x 2 ],
	revert => [ 4, "SELECT gen_random_uuid() AS id \\gset\n"
		. "SELECT usage_billing.create_usage('[{\"id\": \"\:id\", \"amount\": 5}]', 'mixed');\n"
		. "SELECT usage_billing.revert_usage(':id', billing_id => 'mixed');\n" ],
	# the same five ids as every other client in the same moment, in any order
	together => [ 5, "SELECT usage_billing.create_usage((SELECT jsonb_agg(jsonb_build_object('id', md5(moment || '/' || n), 'amount', n) ORDER BY random())"
		. " FROM generate_series(1, 5) n, (SELECT floor(extract(epoch FROM clock_timestamp()) * 100) AS moment) t), 'mixed');\n" ],
	grant => [ 2, "SELECT usage_billing.grant_credits(gen_random_uuid(), 5, 'mixed');\n" ],
	insert => [ 2, "INSERT INTO usage_billing.usage (billing_id, id, amount, type) SELECT 'mixed', gen_random_uuid(), n, 'feature' FROM generate_series(1, 20) n;\n" ],
	fold => [ 2, "SELECT usage_billing.run_maintenance();\n" ],
	balance => [ 2, "SELECT usage_billing.account_balance('mixed');\nSELECT usage_billing.total_debited('mixed');\n" ],
	rebuild => [ 1, "\\set n random(1, 20)\n\\if :n = 1\nSELECT usage_billing.rebuild('mixed');\n\\endif\n" ],
});
ok($loading->finish, 'mixed: every COPY succeeded') or diag($load_error);
is(value("SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'mixed' AND id::text LIKE '%-0000-4000-8000-%'"),
	$FILES * $ROWS, 'mixed: every row of the COPYs is there');
sound('mixed');

# Credits wanted by all, until nothing is left and back again: a usage is
# admitted on credits that a revert gave back.
account('swing', 40, 0);
append_to_file("$directory/swing.sql", <<'SQL');
CREATE FUNCTION swing() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	usage_id uuid := gen_random_uuid();
BEGIN
	BEGIN
		PERFORM usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', usage_id, 'amount', 9)), 'swing');
	EXCEPTION WHEN SQLSTATE 'UB001' THEN
		RETURN;
	END;
	IF (usage_billing.account_balance('swing') ->> 'balance')::bigint < 0 THEN
		RAISE 'overdrawn';
	END IF;
	PERFORM usage_billing.revert_usage(usage_id, billing_id => 'swing');
END $$;
SQL
$node->safe_psql('postgres', slurp_file("$directory/swing.sql"));
bench('swing', {
	swing => [ 10, "SELECT swing();\n" ],
	keep => [ 3, "SELECT gen_random_uuid() AS id \\gset\n"
		. "SELECT usage_billing.create_usage('[{\"id\": \"\:id\", \"amount\": 0}]', 'swing');\n" ],
	fold => [ 2, "SELECT usage_billing.run_maintenance();\n" ],
});
is(balance('swing'), 40, 'swing: all that was taken came back');
sound('swing');

# ---------------------------------------------------------------------------
# The stricter levels: callers repeat what fails with 40001; what is admitted
# is exact all the same.

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION take(account text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM usage_billing.account_balance(account);
	PERFORM usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 3)), account);
EXCEPTION WHEN SQLSTATE 'UB001' THEN
	NULL;
END $$;
SQL
for my $level ('repeatable read', 'serializable')
{
	my $name = $level =~ s/ /_/r;
	account($name, 200, 1);
	local $ENV{PGOPTIONS} = '-c default_transaction_isolation=' . ($level =~ s/ /\\ /r);
	bench($name, {
		take => [ 20, "SELECT take('$name');\n" ],
		fold => [ 1, "SELECT usage_billing.run_maintenance();\n" ],
	}, '--max-tries=0');
	# on a slow machine something is left
	$node->safe_psql('postgres', "SELECT take('$name') FROM generate_series(1, 700)");
	is(balance($name), balance_by_facts($name), "$level: balance = sum of the facts");
	is(balance($name) % 3, 200 % 3, "$level: whole calls only");
	cmp_ok(balance($name), '>=', 1, "$level: never under credit_min");
	cmp_ok(balance($name), '<', 4, "$level: and used as far as whole calls go");
	is(BillingNode::differences($node, 'postgres'), '', "$level: verify() finds nothing");
}

# ---------------------------------------------------------------------------
# A prepared transaction keeps what it was admitted, until it is decided.

account('prepared', 10, 0);
my $use = "SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', gen_random_uuid(), 'amount', 8)), 'prepared')";
value("BEGIN; $use; PREPARE TRANSACTION 'kept'");
is((BillingNode::outcome($node, 'postgres', "SET lock_timeout = '200ms'; $use"))[0], $PRELOADED ? 'UB001' : '55P03',
	'prepared: others ' . ($PRELOADED ? 'know it as spent' : 'wait'));
is(balance('prepared'), 10, 'prepared: the balance is what is committed');
value("ROLLBACK PREPARED 'kept'");
value("BEGIN; $use; PREPARE TRANSACTION 'kept'");
value("COMMIT PREPARED 'kept'");
is((BillingNode::outcome($node, 'postgres', $use))[0], 'UB001', 'prepared: committed, the credits are gone');
is(balance('prepared'), 2, 'prepared: and counted once');

$node->stop;
done_testing();
