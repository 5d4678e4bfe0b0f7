# A worker keeps its database fresh, does what the settings say, leaves
# everybody alone, and goes when the extension goes.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Workers;

my $node = Workers::start(autovacuum => 'off', 'usage_billing.storage_refresh_interval' => '1s');

sub value { return $node->safe_psql('postgres', $_[0]); }
sub within { return Workers::within($node, $_[0], 'postgres', @_[ 1, 2 ]); }

sub set
{
	my ($name, $value) = @_;
	value("ALTER SYSTEM SET usage_billing.$name = '$value'");
	value('SELECT pg_reload_conf()');
	return;
}

# ---------------------------------------------------------------------------
# CREATE EXTENSION in a running server.

within(5, Workers::has_workers(1, 'postgres'), 'CREATE EXTENSION in a running server gets its worker within seconds');
is(value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'usage_billing launcher' AND datname IS NULL"),
	'1', 'one launcher, connected to no database');
is(value('SELECT string_agg(duty, \',\' ORDER BY duty) FROM usage_billing.maintenance_status'),
	'fold,pack_hours,storage_recount,storage_refresh,vacuum_deltas', 'maintenance_status has every duty');
is(value(q{SELECT last_start IS NULL AND duration IS NULL AND rows_done IS NULL AND backlog = 0 AND last_error IS NULL
	FROM usage_billing.maintenance_status WHERE duty = 'fold'}), 't', 'a duty that never did anything has nulls');

# ---------------------------------------------------------------------------
# Folding, storage, status.

Workers::accounts($node, 'postgres', 2000);
Workers::usage($node, 'postgres', 2000, 20000);
within(5, $Workers::FOLDED, 'usage_delta is empty within seconds of the load\'s end');
# on a slow machine it takes more than one run, of which the status shows the last
within(5, q{SELECT rows_done BETWEEN 1 AND 2000 AND backlog = 0 AND duration > '0' AND last_start <= now() AND last_error IS NULL
	FROM usage_billing.maintenance_status WHERE duty = 'fold'}, 'the status tells what was folded');
is(value('SELECT deltas_folded FROM usage_billing.usage_billing_stats'), 2000, 'which was each delta once');
value(q{INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('f1', 'o1', 'image', 100), ('f2', 'o2', 'video', 7)});
within(5, q{SELECT count(*) = 2 AND sum(total_storage_bytes) = 107 FROM usage_billing.storage_snapshot},
	'organisations with changes are refreshed');
within(5, q{SELECT rows_done > 0 AND backlog = 0 FROM usage_billing.maintenance_status WHERE duty = 'storage_refresh'},
	'the status tells what was refreshed');
is(value('SELECT count(*) FROM usage_billing.verify()'), '0', 'verify() finds nothing');

value('CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE ROLE nobody');
is(value('SET ROLE watcher; SELECT count(*), count(last_start) > 0 FROM usage_billing.maintenance_status'), '5|t',
	'pg_monitor may read maintenance_status');
is((BillingNode::outcome($node, 'postgres', 'SET ROLE nobody; SELECT * FROM usage_billing.maintenance_status'))[0], '42501',
	'others may not');
is((BillingNode::outcome($node, 'postgres', 'SET ROLE watcher; SELECT * FROM usage_billing.maintenance_duty'))[0], '42501',
	'pg_monitor may not read the table behind it');

# ---------------------------------------------------------------------------
# It leaves everybody alone while it rests.

my $old = Workers::worker_pid($node, 'postgres');
set('fold_interval', '1h');
within(5, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND pid <> $old AND state = 'idle'
	AND backend_xmin IS NULL AND backend_xid IS NULL AND xact_start IS NULL
	AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_stat_activity.pid)",
	'a resting worker has no transaction, snapshot or lock');

# ---------------------------------------------------------------------------
# Settings reload, and waking early.

within(5, $Workers::FOLDED, 'all is folded');
Workers::usage($node, 'postgres', 10, 10);
sleep 2;
is(value('SELECT count(*) FROM usage_billing.usage_delta'), '10', 'a longer fold_interval takes effect at a reload');
is(value(q{SELECT backlog FROM usage_billing.maintenance_status WHERE duty = 'fold'}), '10', 'the status tells what waits');
value(<<'SQL');
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at)
SELECT 'a' || 1 + i % 2000, gen_random_uuid(), 1, '2024-01-01'::timestamptz + i / 2000 * interval '1 hour' FROM generate_series(0, 11999) i
SQL
within(5, $Workers::FOLDED, 'a transaction that posts much wakes the worker');
Workers::usage($node, 'postgres', 10, 10);
set('fold_interval', '100ms');
within(5, $Workers::FOLDED, 'a shorter fold_interval takes effect at a reload');

set('maintenance_worker', 'off');
within(5, Workers::has_workers(0), 'maintenance_worker = off sends the worker away');
set('maintenance_worker', 'on');
within(5, Workers::has_workers(1, 'postgres'), 'maintenance_worker = on brings it back');
value('ALTER DATABASE postgres SET usage_billing.maintenance_worker = off');
value('SELECT pg_reload_conf()');
within(5, Workers::has_workers(0), 'ALTER DATABASE can turn it off for one database');
sleep 2;
is(value(Workers::has_workers(0)), 't', 'and it stays off');
value('ALTER DATABASE postgres RESET usage_billing.maintenance_worker');
value('SELECT pg_reload_conf()');
within(5, Workers::has_workers(1, 'postgres'), 'a reload has it looked at again');

# ---------------------------------------------------------------------------
# Under load the table of deltas stays small, without autovacuum.

set('fold_interval', '1s');
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
append_to_file($script, <<'SQL');
\set a random(1, 2000)
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at)
SELECT 'a' || 1 + (:a + i) % 2000, gen_random_uuid(), 1, now() - i * interval '1 hour' FROM generate_series(1, 50) i
SQL
sub load
{
	my ($seconds) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'pgbench', '-n', '-c', 2, '-T', $seconds, '-f', $script, $node->connstr('postgres') ], '>', \$out, '2>', \$err);
	is($?, 0, 'the load runs without an error') or diag($err);
	my ($n) = $out =~ /number of transactions actually processed: (\d+)/;
	return 50 * ($n // 0);
}
my $sizes = q{SELECT pg_relation_size('usage_billing.usage_delta')};
my $first = load(6);
my $size = value($sizes);
my $second = load(12);
my $end = value($sizes);
note("$first and $second deltas, $size and $end bytes");
# left alone it would have three times the size
my $faster = $second / 12 / ($first / 6);
cmp_ok($end, '<', 2 * $size * ($faster > 1 ? $faster : 1), 'usage_delta doesn\'t grow while the load goes on');
within(5, $Workers::FOLDED, 'usage_delta is empty within seconds of the load\'s end');
within(10, q{SELECT rows_done > 0 AND last_error IS NULL FROM usage_billing.maintenance_status WHERE duty = 'vacuum_deltas'},
	'the worker vacuumed by itself');
is(value('SELECT count(*) FROM usage_billing.verify()'), '0', 'verify() finds nothing');

# ---------------------------------------------------------------------------
# DROP EXTENSION, and a role of its own.

my $offset = -s $node->logfile;
value('DROP EXTENSION usage_billing');
within(5, Workers::has_workers(0), 'the worker goes when the extension goes');
value('CREATE EXTENSION usage_billing');
within(5, Workers::has_workers(1, 'postgres'), 'and comes back with it');

value('CREATE ROLE keeper SUPERUSER LOGIN');
$node->safe_psql('postgres', 'DROP EXTENSION usage_billing; DROP SCHEMA usage_billing; CREATE EXTENSION usage_billing', extra_params => [ '-U', 'keeper' ]);
value(<<'SQL');
CREATE TABLE seen (who text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END $$;
GRANT INSERT ON seen TO PUBLIC;
CREATE TRIGGER see AFTER INSERT ON usage_billing.usage_hourly EXECUTE FUNCTION see();
CREATE CONSTRAINT TRIGGER see_late AFTER INSERT ON usage_billing.usage_hourly DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see();
SQL
value('ALTER ROLE keeper NOSUPERUSER NOLOGIN');
Workers::accounts($node, 'postgres', 1);
Workers::usage($node, 'postgres', 1, 1);
within(5, $Workers::FOLDED, 'the worker works for the extension\'s owner');
is(value("SELECT string_agg(who, ',') FROM seen"), 'keeper,keeper', 'and as the owner');

is(Workers::logged($node, 'ERROR', $offset), 0, 'no error was logged');
$node->stop;
done_testing();
