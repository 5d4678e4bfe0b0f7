# What fails is logged once, written down, tried again later, and doesn't stop
# the rest; by the worker and by run_maintenance() alike. And packing hours.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Workers;

my $node = Workers::start('usage_billing.storage_refresh_interval' => '1s', 'usage_billing.storage_recount_interval' => '1s');
my $FAILED = 'a maintenance duty of usage_billing failed';

sub value { return $node->safe_psql('postgres', $_[0]); }
sub within { return Workers::within($node, $_[0], 'postgres', @_[ 1, 2 ]); }

# What the log got since an offset of every failure.
sub failures { return Workers::logged($node, $FAILED, $_[0]); }

sub last_error
{
	my ($duty) = @_;
	return value("SELECT last_error FROM usage_billing.maintenance_status WHERE duty = '$duty'");
}

# ---------------------------------------------------------------------------
# One account that can't be folded.

within(5, Workers::has_workers(1, 'postgres'), 'there is a worker');
Workers::accounts($node, 'postgres', 500);
value("ALTER TABLE usage_billing.usage_hourly ADD CONSTRAINT no_a7 CHECK (billing_id <> 'a7')");
my $offset = -s $node->logfile;
Workers::usage($node, 'postgres', 500, 1000);
within(10, q{SELECT count(*) > 0 AND bool_and(billing_id = 'a7') FROM usage_billing.usage_delta},
	'an account that can\'t be folded doesn\'t stop the others');
within(5, q{SELECT last_error_at IS NOT NULL AND backlog > 0 FROM usage_billing.maintenance_status WHERE duty = 'fold'},
	'the status has when it failed and what waits');
like(last_error('fold'), qr/^account "a7": .*no_a7.* \(SQLSTATE 23514\)$/, 'the status has what failed, and how');
for my $i (1 .. 3)
{
	Workers::usage($node, 'postgres', 500, 500);
	within(5, q{SELECT bool_and(billing_id = 'a7') FROM usage_billing.usage_delta}, "others are folded at once, $i");
}
my $tries = value(q{SELECT last_error_at FROM usage_billing.maintenance_status WHERE duty = 'fold'});
within(10, qq{SELECT last_error_at > '$tries' FROM usage_billing.maintenance_status WHERE duty = 'fold'}, 'it is tried again');
is(failures($offset), 1, 'it is logged once');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/$FAILED\n.*DETAIL:  Duty fold, account "a7": /, 'with what failed');

# The same without a worker.
value('ALTER SYSTEM SET usage_billing.maintenance_worker = off');
value('SELECT pg_reload_conf()');
within(5, Workers::has_workers(0), 'there is no worker');
Workers::usage($node, 'postgres', 500, 500);
value(q{INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('f1', 'o1', 100)});
$offset = -s $node->logfile;
my ($state, $out) = BillingNode::outcome($node, 'postgres', 'SELECT usage_billing.run_maintenance()');
is($state, '00000', 'run_maintenance() succeeds though an account fails');
is(value('SELECT string_agg(DISTINCT billing_id, \',\') FROM usage_billing.usage_delta'), 'a7', 'and folds the others');
is(value('SELECT total_storage_bytes FROM usage_billing.storage_snapshot'), '100', 'and refreshes storage');
is(failures($offset), 1, 'and says so once');
value('ALTER TABLE usage_billing.usage_hourly DROP CONSTRAINT no_a7');
value('SELECT usage_billing.run_maintenance()');
is(value('SELECT count(*) FROM usage_billing.usage_delta'), '0', 'what failed is folded when it can be');

# More failures than a unit's fault can explain.
value('ALTER TABLE usage_billing.usage_hourly ADD CONSTRAINT nothing CHECK (false) NOT VALID');
Workers::usage($node, 'postgres', 500, 500);
$offset = -s $node->logfile;
value('SELECT usage_billing.run_maintenance()');
cmp_ok(failures($offset), '<', 20, 'a duty that fails for everybody is given up');
value('ALTER TABLE usage_billing.usage_hourly DROP CONSTRAINT nothing');

# ---------------------------------------------------------------------------
# Packing.

my $pages = q{SELECT count(DISTINCT (ctid::text::point)[0]) FROM usage_billing.usage_hourly WHERE billing_id = 'a1'};
my $sums = q{SELECT md5(string_agg(h::text, '|' ORDER BY billing_id, hour, source, type)) FROM usage_billing.usage_hourly h};
for my $hour (0 .. 47)
{
	value(<<"SQL");
INSERT INTO usage_billing.usage (billing_id, id, amount, created_at)
SELECT 'a' || i, gen_random_uuid(), 1, date_trunc('day', now(), 'UTC') - interval '5 days' + $hour * interval '1 hour' FROM generate_series(1, 500) i;
SELECT usage_billing.run_maintenance();
SQL
}
my ($before, $sum) = (value($pages), value($sums));
value(q{UPDATE usage_billing.maintenance_duty SET done_until = now() - interval '10 days' WHERE duty = 'pack_hours'});
is(value(q{SELECT backlog >= 9 FROM usage_billing.maintenance_status WHERE duty = 'pack_hours'}), 't',
	'the status tells how many days are to be packed');
value(q{BEGIN; SELECT usage_billing.run_maintenance(); ROLLBACK});
is(value($pages), $before, 'packing is the transaction\'s, like all else');
value('SELECT usage_billing.run_maintenance()');
cmp_ok($before, '>=', 40, 'before, the hours of an account lie on as many pages');
cmp_ok(value($pages), '<=', 4, 'packed, the days that are over lie together');
is(value($sums), $sum, 'packing changes no sum');
is(value(q{SELECT rows_done || ' ' || backlog FROM usage_billing.maintenance_status WHERE duty = 'pack_hours'}), '24000 0',
	'the status tells what was packed');
value(q{UPDATE usage_billing.maintenance_duty SET done_until = NULL WHERE duty = 'pack_hours'});
my $where = value(q{SELECT md5(string_agg(ctid::text, '|' ORDER BY billing_id, hour)) FROM usage_billing.usage_hourly});
value('SELECT usage_billing.run_maintenance()');
is(value(q{SELECT md5(string_agg(ctid::text, '|' ORDER BY billing_id, hour)) FROM usage_billing.usage_hourly}), $where,
	'what lies together is left alone');
is(value('SELECT count(*) FROM usage_billing.verify()'), '0', 'verify() finds nothing');

# ---------------------------------------------------------------------------
# With a worker again: storage.

value('ALTER SYSTEM RESET usage_billing.maintenance_worker');
value('SELECT pg_reload_conf()');
within(5, Workers::has_workers(1, 'postgres'), 'there is a worker again');
within(5, q{SELECT NOT EXISTS (SELECT FROM usage_billing.usage_delta)}, 'what was left is folded');

value(<<'SQL');
CREATE TABLE video (org text, size bigint, bad boolean);
INSERT INTO video VALUES ('o1', 10), ('o2', 20);
SELECT usage_billing.track_storage('video', 'org', 'size', kind => 'video');
SQL
within(5, q{SELECT count(*) = 2 FROM usage_billing.storage_counted}, 'every tracked table is counted');
value('ALTER TABLE video DISABLE TRIGGER ALL; INSERT INTO video VALUES (\'o3\', 30); ALTER TABLE video ENABLE TRIGGER ALL');
within(10, q{SELECT coalesce((SELECT video_storage_bytes = 30 FROM usage_billing.storage_snapshot WHERE org_id = 'o3'), false)},
	'and again at every storage_recount_interval');

# An organisation that somebody keeps locked.
my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN');
$session->query_safe(q{SELECT usage_billing.refresh_storage_usage('o1')});
value(q{INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('f2', 'o1', 1), ('f3', 'o4', 1)});
within(10, q{SELECT EXISTS (SELECT FROM usage_billing.storage_snapshot WHERE org_id = 'o4')},
	'an organisation that is locked doesn\'t stop the others');
Workers::usage($node, 'postgres', 10, 10);
within(10, 'SELECT NOT EXISTS (SELECT FROM usage_billing.usage_delta)', 'nor the other duties');
$session->query_safe('COMMIT');
$session->quit;
within(30, q{SELECT total_storage_bytes = 111 FROM usage_billing.storage_snapshot WHERE org_id = 'o1'},
	'it is refreshed when it can be');

# A source and an organisation that fail.
$offset = -s $node->logfile;
value('ALTER TABLE video RENAME COLUMN size TO bytes');
within(10, q{SELECT last_error ~ 'table "public.video": .*SQLSTATE' FROM usage_billing.maintenance_status WHERE duty = 'storage_recount'},
	'a tracked table that can\'t be counted is in the status');
value(q{ALTER TABLE usage_billing.storage_snapshot ADD CONSTRAINT no_o5 CHECK (org_id <> 'o5') NOT VALID});
value(q{INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('f5', 'o5', 5), ('f6', 'o6', 6)});
within(10, q{SELECT EXISTS (SELECT FROM usage_billing.storage_snapshot WHERE org_id = 'o6')},
	'an organisation that can\'t be refreshed doesn\'t stop the others');
within(10, q{SELECT last_error ~ '^organisation "o5": .*no_o5' FROM usage_billing.maintenance_status WHERE duty = 'storage_refresh'},
	'and is in the status');
is(failures($offset), 2, 'each is logged once');
value('ALTER TABLE video RENAME COLUMN bytes TO size');
value('ALTER TABLE usage_billing.storage_snapshot DROP CONSTRAINT no_o5');
within(30, q{SELECT EXISTS (SELECT FROM usage_billing.storage_snapshot WHERE org_id = 'o5')}, 'it is refreshed when it can be');

# A crash of the worker's work, by an administrator.
value('SELECT pg_cancel_backend(' . Workers::worker_pid($node, 'postgres') . ')');
my $pid = Workers::worker_pid($node, 'postgres');
value("SELECT pg_terminate_backend($pid)");
within(10, "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'usage_billing worker' AND pid <> $pid",
	'a worker that was terminated is replaced');
is(value('SELECT count(*) FROM usage_billing.verify()'), '0', 'verify() finds nothing');

$node->stop;
done_testing();
