# Every way to back a database up and to get it back, with workers at work on
# both sides: pg_dump in its formats, pg_dumpall, a copy of the files of a
# server that stands still and of one under load, and recovery to a point in
# time. The restored database answers as the first one did, a dump of it is the
# same, and verify() finds nothing.
#
# 002_restore has the order in which a dump is loaded, loads that broke half-way
# and disabled triggers; 030_storage what a restore does to tracked tables.
#
# BACKUP_SEED repeats a run's random choices, BACKUP_SECONDS is how long each
# load lasts.

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
use Picture;
use Workers;

my $SEED = $ENV{BACKUP_SEED} // int rand 2**31;
my $SECONDS = $ENV{BACKUP_SECONDS} // 3;
my $directory = PostgreSQL::Test::Utils::tempdir();

diag("seed $SEED (repeat with BACKUP_SEED=$SEED)");

# Workers fold all the time. They leave snapshots alone, which a refresh would
# rightly change after the dump.
my $CONF = <<'CONF';
shared_preload_libraries = 'usage_billing'
usage_billing.fold_interval = 20ms
usage_billing.storage_refresh_interval = 1d
max_prepared_transactions = 20
max_connections = 60
max_worker_processes = 20
log_line_prefix = '%m [%p] %b %q%a =%e '
log_statement = none
timezone = 'Asia/Kathmandu'
CONF

my $source = PostgreSQL::Test::Cluster->new('source');
$source->init(allows_streaming => 1, has_archiving => 1, extra => [ '--encoding=UTF8', '--locale=C' ]);
$source->append_conf('postgresql.conf', $CONF);
$source->start;
$source->safe_psql('postgres', 'CREATE EXTENSION usage_billing');

# ---------------------------------------------------------------------------
# A source with everything in it, a part of it from a load beside which a copy
# of the running server's files was made.

my $load = Load->new(seed => $SEED, clients => 5, rounds => 3, prepares => 1);
$load->server($source);
$load->set_up;
$source->safe_psql('postgres', <<'SQL');
CREATE ROLE billing_service LOGIN;
CREATE ROLE billing_tenant NOLOGIN;
GRANT USAGE ON SCHEMA usage_billing TO billing_service;
GRANT EXECUTE ON FUNCTION usage_billing.account_balance, usage_billing.create_usage TO billing_service;
GRANT SELECT ON usage_billing.usage TO billing_tenant;
ALTER ROLE billing_service SET usage_billing.revert_once = off;

SELECT usage_billing.create_billing_account('org-odd', 'apart-odd', -5, metadata => '{"a": ["b", null]}'), usage_billing.create_billing_account('org-odd', 'apart-second', 7), usage_billing.create_project('project-odd', 'org-odd');
SELECT usage_billing.grant_credits(md5('odd')::uuid, 5, 'apart-odd', source => 'gift', description => E'two\nlines\t\\', user_id => 'o''user', metadata => '{"n": 1.50}');
INSERT INTO usage_billing.usage (billing_id, id, amount, source, description, user_id, metadata, created_at) VALUES
	('apart-odd', md5('history')::uuid, 9000000, 'Import', E'tab\t, back\\slash, \u20ac', 'user', '{"k": "\\u0001"}', '2024-03-01 12:00:00+00'),
	('apart-odd', md5('early')::uuid, 0, 'x', NULL, NULL, '{}', '2024-03-02 23:59:59.999999+00');
INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, metadata, created_at) VALUES
	('apart-second', md5('viewed')::uuid, 'feature', 7, 'vod_streams', '{"viewing_seconds": 1000, "viewing_bytes": "4611686018427387905", "egress_bytes": 3}', '2024-03-03 10:00:00+00');
SET usage_billing.revert_once = off;
SELECT usage_billing.revert_usage(md5('viewed')::uuid, n, 'apart-second', description => 'part') FROM generate_series(1, 3) n;
SELECT usage_billing.close_billing_period('2024-03-02 12:30:00+00', 'apart-second');
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'apart-odd';
SELECT usage_billing.set_storage_limits('org-odd', 1, NULL, 3);
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, total_video_minutes, last_updated) VALUES ('org-odd', '2024-02-29', 5, 12.345, '2024-02-29 23:59:59Z');
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds) VALUES ('apart-odd', 'org-odd', 'video', 5, 61.5);
SELECT usage_billing.refresh_storage_usage('org-odd');
SQL

$load->begin;
sleep $SECONDS / 2;
my $told_before_backup = $load->told;
# it catches the table of a client that comes later in the middle of something
$source->safe_psql('postgres', "BEGIN; TRUNCATE files_c15; PREPARE TRANSACTION 'apart'");
$source->backup('hot');
$source->safe_psql('postgres', "ROLLBACK PREPARED 'apart'");
sleep $SECONDS / 2;
$load->end;
my $counts = $load->as_told($source, 'the source');
Load::summary($counts);
$load->derived($source, 'the source');
$source->safe_psql('postgres', "SELECT pg_create_restore_point('quiet')");
my $told_quiet = $load->told;

my $picture = Picture::picture($source, 'postgres');
my $data = Picture::data_of($source, 'postgres');
my $schema = Picture::schema_of($source, 'postgres');
like($picture, qr/^balance\|\{"org_id": "org-odd", "balance": -8999995, /m, 'there is an account far under its credit_min');
cmp_ok(length $data, '>', 100_000, 'there is something to dump');

# ---------------------------------------------------------------------------
# pg_dump and pg_restore, into a server whose workers are there at once.

my $target = PostgreSQL::Test::Cluster->new('target');
$target->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$target->append_conf('postgresql.conf', $CONF);
$target->start;
$target->safe_psql('postgres', 'CREATE ROLE billing_service; CREATE ROLE billing_tenant');

sub is_restored
{
	my ($node, $database, $name) = @_;

	Picture::same(Picture::picture($node, $database), $picture, "$name: every answer is the same");
	is(BillingNode::differences($node, $database), '', "$name: verify() finds nothing");
	Picture::same(Picture::data_of($node, $database), $data, "$name: a dump of it has the same rows");
	Picture::same(Picture::schema_of($node, $database), $schema, "$name: and the same definitions");
	Workers::within($node, 30, $database, $Workers::FOLDED, "$name: a worker folds what was loaded");
	Picture::same(Picture::picture($node, $database), $picture, "$name: folded, every answer is the same");
	is(BillingNode::differences($node, $database), '', "$name: folded, verify() finds nothing");
	$node->safe_psql($database, 'SELECT usage_billing.rebuild()');
	is($node->safe_psql($database, 'SELECT count(*) FROM usage_billing.usage_delta'), 0, "$name: rebuild() has nothing to mend");
	return;
}

sub database
{
	my ($name) = @_;
	$target->safe_psql('postgres', "CREATE DATABASE $name");
	return $target->connstr($name);
}

sub restore
{
	my ($name, @command) = @_;
	$target->command_ok(\@command, $name);
	return;
}

my $custom = Picture::dump_to($source, 'postgres', "$directory/custom", '-Fc');
my $dir = Picture::dump_to($source, 'postgres', "$directory/dir", '-Fd', '-j', '2');
my $plain = Picture::dump_to($source, 'postgres', "$directory/plain");
my $facts = Picture::dump_to($source, 'postgres', "$directory/facts", '-Fc', '-a');

restore('pg_restore -j 4 of the custom format', 'pg_restore', '-e', '-j', '4', '-d', database('custom'), $custom);
is_restored($target, 'custom', 'custom');
restore('pg_restore -j 4 of the directory', 'pg_restore', '-e', '-j', '4', '-d', database('dir'), $dir);
is_restored($target, 'dir', 'directory');
restore('psql of the text', 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', database('plain'), '-f', $plain);
is_restored($target, 'plain', 'text');

# The extension and the application's tables are there already, and a worker.
restore('the definitions alone', 'pg_restore', '-e', '-s', '-d', database('facts'), $custom);
Workers::within($target, 30, 'postgres', Workers::has_workers(1, 'facts'), 'data only: a worker is there before the data');
restore('pg_restore --data-only -j 4', 'pg_restore', '-e', '-a', '-j', '4', '-d', $target->connstr('facts'), $facts);
is_restored($target, 'facts', 'data only');

# It goes on as the first would: ids are known, credit is what it was.
is($target->safe_psql('custom', "SELECT usage_billing.grant_credits(md5('odd')::uuid, 5, 'apart-odd', source => 'gift', description => E'two\\nlines\\t\\\\', user_id => 'o''user', metadata => '{\"n\": 1.50}') ->> 'duplicate'"),
	'true', 'custom: a grant is known');
is((BillingNode::outcome($target, 'custom', "SELECT usage_billing.revert_usage(md5('viewed')::uuid, 2, 'apart-second')"))[0], '23505', 'custom: a usage was reverted before');
$target->safe_psql('custom', "UPDATE usage_billing.billing_account SET state = 'active' WHERE billing_id = 'apart-odd'");
is((BillingNode::outcome($target, 'custom', "SELECT usage_billing.create_usage('[{\"id\": \"00000000-0000-4000-8000-000000000001\", \"amount\": 1}]', 'apart-odd')"))[0],
	'UB001', 'custom: credit is what it was');
Load::none([ $load->storage_differences($target, 'custom', 'refresh_storage_usage') ], 'custom: refreshed storage is what a count finds');
Load::none([ $load->storage_differences($target, 'facts', 'refresh_storage_usage') ], 'data only: refreshed storage is what a count finds');

# ---------------------------------------------------------------------------
# pg_dumpall, into a new server: roles, rights and settings come along.

my $SETTINGS = <<'SQL';
SELECT r.rolname, d.datname, s.setconfig FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase
UNION ALL SELECT 'rights', p.oid::regprocedure::text, ARRAY[p.proacl::text] FROM pg_proc p WHERE proacl::text LIKE '%billing_service%'
ORDER BY 1, 2
SQL

$source->safe_psql('postgres', 'CREATE DATABASE other');
$source->safe_psql('postgres', "ALTER DATABASE other SET usage_billing.service_role = 'billing_service'");
$source->safe_psql('other', <<'SQL');
CREATE EXTENSION usage_billing;
SELECT usage_billing.create_billing_account('org', 'a' || n), usage_billing.grant_credits(md5('g' || n)::uuid, n, 'a' || n) FROM generate_series(1, 50) n;
INSERT INTO usage_billing.usage (billing_id, id, amount, type) SELECT 'a' || 1 + n % 50, md5('u' || n)::uuid, n, 'feature' FROM generate_series(1, 2000) n;
SQL
my $whole = PostgreSQL::Test::Cluster->new('whole');
$whole->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$whole->append_conf('postgresql.conf', $CONF);
$whole->start;
PostgreSQL::Test::Utils::system_or_bail('pg_dumpall', '-d', $source->connstr('postgres'), '-f', "$directory/all");
# the role that restores is there already
$whole->command_checks_all([ 'psql', '-X', '-q', '-o', '/dev/null', '-d', $whole->connstr('postgres'), '-f', "$directory/all" ],
	0, [qr/^$/], [qr/\A[^\n]*ERROR:  role "\w+" already exists\n\z/], 'psql of what pg_dumpall wrote');
is_restored($whole, 'postgres', 'pg_dumpall');
Picture::same(Picture::picture($whole, 'other'), Picture::picture($source, 'other'), 'pg_dumpall: so are those of another database');
is(BillingNode::differences($whole, 'other'), '', 'pg_dumpall: where verify() finds nothing either');
is($whole->safe_psql('postgres', $SETTINGS), $source->safe_psql('postgres', $SETTINGS), 'pg_dumpall: settings and rights are the same');
like($whole->safe_psql('postgres', $SETTINGS), qr/service_role/, 'pg_dumpall: and there are some');
$_->stop for $target, $whole;

# ---------------------------------------------------------------------------
# The files of a server: copied while it ran, and while it stood still.

# Starts a server from a copy.
sub copy_of
{
	my ($name, $backup, $conf, %p) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($source, $backup, %p);
	# a copy must not archive over what it is a copy of
	$node->append_conf('postgresql.conf', "archive_mode = off\n$conf");
	$node->start;
	return $node;
}

# What the clients were told of before the copy is in it, and all in it is of
# theirs. Files change, so only facts are compared.
sub has_all_of
{
	my ($node, $before, $after, $name) = @_;
	my %there = map { $_ => 1 } grep { !/^file/ } $load->there($node);

	Load::none([ grep { !/^file/ && !$there{$_} } sort keys %{ $before->{facts} } ], "$name: what was acknowledged before is there");
	Load::none([ grep { !$after->{facts}{$_} } sort keys %there ], "$name: and nothing that was never acknowledged");
	return scalar keys %there;
}

# A transaction that was prepared then waits to be decided, and keeps its locks.
sub decide_prepared
{
	my ($node) = @_;
	my @gids = split /\n/, $node->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	$node->safe_psql('postgres', join '', map { "ROLLBACK PREPARED '$_';\n" } @gids);
	return;
}

my $hot = copy_of('hot', 'hot', '');
decide_prepared($hot);
my $then = has_all_of($hot, $told_before_backup, $told_quiet, 'copied under load');
cmp_ok($then, '<', scalar(grep { !/^file/ } keys %{ $told_quiet->{facts} }), 'copied under load: it is of an earlier moment');
Workers::within($hot, 30, 'postgres', Workers::has_workers(1, 'postgres'), 'copied under load: a worker starts');
$load->derived($hot, 'copied under load');
$hot->stop;

$source->stop;
$source->backup_fs_cold('cold');
$source->start;
my $cold = copy_of('cold', 'cold', '');
Picture::same(Picture::picture($cold, 'postgres'), $picture, 'copied while it stood still: every answer is the same');
Picture::same(Picture::data_of($cold, 'postgres'), $data, 'copied while it stood still: a dump of it has the same rows');
$load->derived($cold, 'copied while it stood still');
$cold->stop;

# ---------------------------------------------------------------------------
# Recovery to a point in time, by the copy that was made under load and the
# archive of what came after it.

$load->begin;
sleep $SECONDS / 2;
my $told_mid = $load->told;
my $lsn = $source->safe_psql('postgres', 'SELECT pg_current_wal_flush_lsn()');
sleep $SECONDS / 2;
$load->end;
my $told_last = $load->told;
# the disaster
$source->safe_psql('postgres', "SELECT pg_create_restore_point('last'); DROP EXTENSION usage_billing CASCADE; SELECT pg_switch_wal()");
my $archived = $source->safe_psql('postgres', "SELECT pg_walfile_name(pg_current_wal_lsn())");
$source->stop;

sub recovered
{
	my ($name, $target) = @_;
	my $node = copy_of($name, 'hot', "recovery_target_action = promote\n$target", has_restoring => 1, standby => 0);
	ok($node->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), "$name: it is recovered");
	return $node;
}

my $mid = recovered('mid', "recovery_target_lsn = '$lsn'");
decide_prepared($mid);
has_all_of($mid, $told_mid, $told_last, 'in the middle of the load');
$load->derived($mid, 'in the middle of the load');
$mid->stop;

my $last = recovered('last', "recovery_target_name = 'last'");
$load->as_told($last, 'before the disaster');
$load->derived($last, 'before the disaster');
$last->stop;

# The quiet moment, and from there a load of its own: what came after it on the
# source never happened here.
my $quiet = recovered('quiet', "recovery_target_name = 'quiet'");
Picture::same(Picture::picture($quiet, 'postgres'), $picture, 'the quiet moment: every answer is the same');
Picture::same(Picture::data_of($quiet, 'postgres'), $data, 'the quiet moment: a dump of it has the same rows');
Workers::within($quiet, 30, 'postgres', Workers::has_workers(1, 'postgres'), 'the quiet moment: a worker starts');
$load->forget_round(2);
$load->server($quiet);
$load->begin;
sleep $SECONDS / 2;
$load->end;
$load->as_told($quiet, 'the quiet moment and what followed');
$load->derived($quiet, 'the quiet moment and what followed');
$quiet->stop;
done_testing();
