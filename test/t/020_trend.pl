# Trends where servers fail and replicate: a hot standby answers as its primary
# does, also while folds are replayed, and a folder that is killed half-way,
# or a server that crashes with it, neither loses nor doubles an hour.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use BillingNode;
use Killer;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $KILLS = 4;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
$primary->append_conf('postgresql.conf', <<'CONF');
log_statement = none
restart_after_crash = on
timezone = 'Asia/Tokyo'
CONF
$primary->start;

sub value { return $primary->safe_psql('postgres', $_[0]); }

# ---------------------------------------------------------------------------
# Five accounts with two weeks of usage, some of it folded, some reverted.

value(<<'SQL');
CREATE EXTENSION usage_billing;
SELECT usage_billing.create_billing_account('org-' || n, 'acct-' || n) FROM generate_series(1, 5) n;
SELECT usage_billing.grant_credits(md5('grant')::uuid, 1000000, 'acct-' || n) FROM generate_series(1, 5) n;

-- n usages of each account, beginning with number first
CREATE FUNCTION use(first int, n int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, metadata, created_at)
	SELECT 'acct-' || a, md5('usage' || u)::uuid, CASE WHEN u % 3 = 0 THEN 'credit' ELSE 'feature' END::usage_billing.usage_type,
		(ARRAY['transcoders', 'vod_streams', 'api'])[1 + u % 3], 4, jsonb_build_object('viewing_seconds', u, 'viewing_bytes', u::text),
		timestamptz '2025-03-20 00:00:00Z' + u % 400 * interval '53 minutes'
	FROM generate_series(1, 5) a, generate_series(use.first, use.first + use.n - 1) u;
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount)
	SELECT 'acct-' || a, md5('usage' || u)::uuid, 1 + u % 4
	FROM generate_series(1, 5) a, generate_series(use.first, use.first + use.n - 1) u WHERE u % 7 = 0;
$$;

CREATE FUNCTION line(s usage_billing.usage_bucket) RETURNS text LANGUAGE sql STABLE
	RETURN concat_ws(' ', s.bucket_start AT TIME ZONE 'UTC', s.source, coalesce(s.type::text, '-'), s.events, s.amount);

-- What readers answer of all five accounts.
CREATE VIEW answer AS
SELECT jsonb_build_array(usage_billing.account_usage_trend('2025-03-15', '2025-04-15', NULL, 'trend', billing_id),
	usage_billing.account_usage_trend('last_bill_date', '2025-04-10 10:00:01', '[{"field": "resource", "eq": "transcoders"}]', NULL, billing_id),
	(SELECT jsonb_agg(line(s)) FROM usage_billing.usage_series('2025-03-15 00:00:00Z', '2025-04-15 00:00:00Z', 'day', 'Europe/Berlin', 'api', billing_id => a.billing_id) s),
	(SELECT jsonb_agg(line(s)) FROM usage_billing.usage_series('2025-03-15 00:00:00Z', '2025-04-15 00:00:00Z', billing_id => a.billing_id) s),
	usage_billing.account_balance(billing_id), usage_billing.total_debited(billing_id))::text AS answer
FROM usage_billing.billing_account a WHERE billing_id LIKE 'acct-%' ORDER BY billing_id;

-- Where the hours that readers answer differ from the facts, of all accounts.
CREATE VIEW wrong_hour AS
SELECT billing_id, hour, source, type, sum(events) AS events, sum(amount) AS amount FROM (
	SELECT billing_id, date_trunc('hour', created_at, 'UTC') AS hour, source, type, 1 AS events, amount FROM usage_billing.usage
	UNION ALL
	SELECT billing_id, date_trunc('hour', usage_at, 'UTC'), usage_source, usage_type, -usage_events, -amount FROM usage_billing.usage_revert
	UNION ALL
	SELECT a.billing_id, s.bucket_start, s.source, s.type, -s.events, -s.amount FROM usage_billing.billing_account a,
		LATERAL usage_billing.usage_series('2020-01-01 00:00:00Z', '2025-12-31 00:00:00Z', billing_id => a.billing_id) s) h
GROUP BY billing_id, hour, source, type HAVING sum(events) <> 0 OR sum(amount) <> 0;
SQL

# In one transaction each, so that the fold is of its own.
value('SELECT use(1, 300)');
value(q{SELECT usage_billing.close_billing_period('2025-03-25 10:20:00Z', billing_id) FROM usage_billing.billing_account});
value('SELECT usage_billing.run_maintenance()');
value('SELECT use(301, 300)');

# ---------------------------------------------------------------------------
# A hot standby.

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "hot_standby_feedback = on\ntimezone = 'America/Sao_Paulo'");
$standby->start;

sub answers_agree
{
	my ($what) = @_;
	$primary->wait_for_catchup($standby);
	my $answer = value('TABLE answer');
	is($standby->safe_psql('postgres', 'TABLE answer'), $answer, "$what: the standby answers as the primary does");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM wrong_hour'), 0, "$what: and as the facts say");
	is(BillingNode::differences($standby, 'postgres'), '', "$what: verify() finds nothing there");
	return $answer;
}

sub wait_for_line
{
	my ($file) = @_;
	for (1 .. 1800)
	{
		return if -e $file && slurp_file($file) =~ /\n/;
		usleep(100_000);
	}
	die "nothing was written to $file";
}

my $first = answers_agree('partly folded');
isnt($first, '', 'there are answers');
isnt(value('SELECT count(*) FROM usage_billing.usage_delta'), 0, 'a part waits to be folded');
isnt(value('SELECT count(*) FROM usage_billing.usage_hourly'), 0, 'a part is folded');

# A reader on the standby keeps its snapshot while the primary folds, takes
# more usage and folds again.
append_to_file("$directory/reader.sql", <<"SQL");
BEGIN ISOLATION LEVEL REPEATABLE READ;
\\o $directory/before
TABLE answer;
\\o
\\! while [ ! -e $directory/go ]; do sleep 0.1; done
\\o $directory/after
TABLE answer;
COMMIT;
\\o $directory/new
TABLE answer;
SQL
my $reader = IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-d', $standby->connstr('postgres'),
		'-f', "$directory/reader.sql" ], '>', \my $reader_out, '2>', \my $reader_err);
wait_for_line("$directory/before");
value('SELECT usage_billing.run_maintenance()');
is(answers_agree('folded'), $first, 'folding changes no answer');
is(value('SELECT count(*) FROM usage_billing.usage_delta'), 0, 'all of it is folded');
value('SELECT use(601, 200)');
value('SELECT usage_billing.run_maintenance()');
value('VACUUM usage_billing.usage_delta, usage_billing.usage_hourly');
my $second = answers_agree('more usage, folded');
isnt($second, $first, 'more usage changes the answers');
append_to_file("$directory/go", '');
ok($reader->finish, 'the reader on the standby met no error') or diag($reader_err);
is(slurp_file("$directory/before"), "$first\n", 'what it saw first');
is(slurp_file("$directory/after"), "$first\n", 'it saw until its transaction ended');
is(slurp_file("$directory/new"), "$second\n", 'and then what is new');

for my $call ('run_maintenance()', "rebuild('acct-1')", "close_billing_period(billing_id => 'acct-1')")
{
	is((BillingNode::outcome($standby, 'postgres', "SELECT usage_billing.$call"))[0], '25006', "the standby refuses $call");
}

# ---------------------------------------------------------------------------
# A folder is killed half-way, again and again, while usage comes in.

# A backlog that takes a fold several batches: an hour a row.
value(<<'SQL');
SELECT usage_billing.create_billing_account('org', 'backlog-' || n) FROM generate_series(1, 60) n;
CREATE FUNCTION backlog(round int) RETURNS void LANGUAGE sql AS $$
	INSERT INTO usage_billing.usage (billing_id, id, type, source, amount, created_at)
	SELECT 'backlog-' || a, md5(round || 'backlog' || h)::uuid, 'feature', 'vod_streams', a, timestamptz '2023-01-01 00:00:00Z' + h * interval '1 hour'
	FROM generate_series(1, 60) a, generate_series(1, 1000) h
$$;
SQL

# Sessions that report usage one by one and write down what was acknowledged.
my $CLIENTS = 3;
my $round = 0;
my @clients;

sub load_begin
{
	$round++;
	for my $client (1 .. $CLIENTS)
	{
		my $file = "$directory/load-$round-$client";
		append_to_file("$file.sql", join '', map {
			my $hour = sprintf '2025-03-%02dT%02d:10:00Z', 1 + $_ % 28, $_ % 24;
			qq{SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('$round $client $_'), 'amount', 1, }
			  . qq{'type', 'feature', 'source', 'vod_streams', 'created_at', '$hour')), 'acct-$client') ->> 'created';\n}
		} 1 .. 100000);
		push @clients, IPC::Run::start([ 'psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1',
				'-d', $primary->connstr('postgres') . ' application_name=load', '-f', "$file.sql" ], '>', "$file.out", '2>', "$file.err");
	}
	wait_for_line("$directory/load-$round-$_.out") for 1 .. $CLIENTS;
	return;
}

# Ends the sessions, if they haven't ended, and tests that what they were told
# of is there, and nothing twice.
sub load_end
{
	my ($what) = @_;
	value("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'load'");
	$_->finish for splice @clients;
	for my $client (1 .. $CLIENTS)
	{
		my $told = () = slurp_file("$directory/load-$round-$client.out") =~ /^1$/mg;
		my $there = value("SELECT count(*) FROM generate_series(1, $told) n JOIN usage_billing.usage ON billing_id = 'acct-$client' AND id = md5('$round $client ' || n)::uuid");
		cmp_ok($told, '>', 0, "$what: client $client was at work");
		is($there, $told, "$what: all that client $client was told of is there");
	}
	return;
}

# Starts a folder and waits until it has written something: (process, pid).
my $folder_err;

sub folder_begin
{
	$folder_err = '';
	my $folder = IPC::Run::start([ 'psql', '-X', '-q', '-v', 'VERBOSITY=sqlstate', '-d', $primary->connstr('postgres') . ' application_name=folder',
			'-c', 'SELECT usage_billing.run_maintenance()' ], '>', \my $out, '2>', \$folder_err);
	my $pid = value(<<'SQL');
DO $$
DECLARE
	seen boolean := false;
BEGIN
	FOR n IN 1 .. 5000 LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'folder' AND backend_xid IS NOT NULL);
		-- one that has come and gone had nothing left to fold
		EXIT WHEN seen AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'folder');
		seen := seen OR EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'folder');
		PERFORM pg_sleep(0.002);
	END LOOP;
	PERFORM pg_sleep(0.02 * random());
END $$;
SELECT pid FROM pg_stat_activity WHERE application_name = 'folder' AND backend_xid IS NOT NULL;
SQL
	return ($folder, $pid);
}

sub sound
{
	my ($what) = @_;
	is(value('SELECT count(*) FROM wrong_hour'), 0, "$what: readers answer as the facts say");
	is(BillingNode::differences($primary, 'postgres'), '', "$what: verify() finds nothing");
	return;
}

value('SELECT backlog(1)');
my $waiting = value(q{SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id LIKE 'backlog-%'});
is($waiting, 60000, 'a backlog waits');
load_begin();
for my $kill (1 .. $KILLS)
{
	my ($folder, $pid) = folder_begin();
	value("SELECT pg_terminate_backend($pid)") if $pid;
	$folder->finish;
	like($folder_err, qr/57P01/, "terminated, $kill: the folder was at work");
	is(value(q{SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id LIKE 'backlog-%'}), $waiting, "terminated, $kill: nothing of its work stays");
}
load_end('terminated');
sound('terminated');

# The same with SIGKILL: the server goes down with the folder and recovers.
load_begin();
my ($folder, $pid) = folder_begin();
Killer::kill_one($pid) if $pid;
$folder->finish;
like($folder_err, qr/server closed the connection unexpectedly|57P02/, 'crashed: the folder was at work');
ok($primary->poll_query_until('postgres', 'SELECT true'), 'crashed: the server recovers');
like(slurp_file($primary->logfile), qr/was terminated by signal 9/, 'crashed: it did crash');
load_end('crashed');
is(value(q{SELECT count(*) FROM usage_billing.usage_delta WHERE billing_id LIKE 'backlog-%'}), $waiting, 'crashed: nothing of the fold stays');
sound('crashed');

# What could not be folded so far can be now, by two at once.
my @folders = map { (folder_begin())[0] } 1 .. 2;
ok($_->finish, 'folding goes on') for @folders;
value('SELECT usage_billing.run_maintenance()');
is(value('SELECT count(*) FROM usage_billing.usage_delta'), 0, 'all of it is folded');
sound('folded in the end');
answers_agree('in the end');

$standby->stop;
$primary->stop;
done_testing();
