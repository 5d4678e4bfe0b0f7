# pg_upgrade from an older version of PostgreSQL keeps everything: facts, derived
# state folded and pending, tracked tables, snapshots. The library is preloaded
# in both servers meanwhile, and its workers keep out of it. It takes the older
# server: test/run says how to give it.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Estate;
use Workers;

my $path = $ENV{UPGRADE_FROM_PATH};
plan skip_all => 'UPGRADE_FROM names no older server' unless $path;

my @settings = (extra => [ '--encoding=UTF8', '--locale=C' ]);
my $old = PostgreSQL::Test::Cluster->new('old', install_path => $path);
$old->init(@settings);

# as if transactions had gone round seven times
run_log([ "$path/bin/pg_resetwal", '-e', '7', $old->data_dir ]) or die 'pg_resetwal failed';
$old->start;
$old->safe_psql('postgres', 'CREATE DATABASE app');
$old->safe_psql('app', 'CREATE EXTENSION usage_billing');
Estate::fill($old, 'app');
$old->safe_psql('app', <<'SQL');
CREATE ROLE reader;
GRANT USAGE ON SCHEMA usage_billing TO reader;
GRANT EXECUTE ON FUNCTION usage_billing.account_balance TO reader;
SQL

is($old->safe_psql('app', 'SELECT count(*) > 0, min(xact::text::numeric) > 7 * 2::numeric ^ 32 FROM usage_billing.usage_delta'),
	't|t', 'usage waits to be folded, of transactions with long ids');
is($old->safe_psql('app', 'SELECT count(*) > 0, min(folded_below::text::numeric) > 7 * 2::numeric ^ 32 FROM usage_billing.credit_balance'),
	't|t', 'and some is folded');
is($old->safe_psql('app', 'SELECT count(*) > 0 FROM usage_billing.storage_delta'), 't', 'storage waits to be refreshed');
is(BillingNode::differences($old, 'app'), '', 'the old books are sound');

my $version = $old->safe_psql('app', 'SHOW server_version_num');
my $tables = Estate::tables($old, 'app');
my $answers = Estate::answers($old, 'app');
my $SYSTEM = 'SELECT system_identifier FROM pg_control_system()';
my $system = $old->safe_psql('app', $SYSTEM);
$old->stop;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(@settings);
$_->append_conf('postgresql.conf', "shared_preload_libraries = 'usage_billing'") for $old, $new;

chdir PostgreSQL::Test::Utils::tempdir();
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d', $old->data_dir, '-D', $new->data_dir,
		'-b', "$path/bin", '-B', $new->config_data('--bindir'),
		'-s', $new->host, '-p', $old->port, '-P', $new->port ],
	'pg_upgrade');

# ---------------------------------------------------------------------------
# Before a worker has touched anything.

$new->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$new->start;
cmp_ok($new->safe_psql('app', 'SHOW server_version_num'), '>', $version, "from $version");
is(Estate::tables($new, 'app'), $tables, 'every table has the same rows');
is(Estate::answers($new, 'app'), $answers, 'every function answers the same');
is(BillingNode::differences($new, 'app'), '', 'the books are sound');
isnt($new->safe_psql('app', $SYSTEM), $system, 'it is another system');
is($new->safe_psql('app', q{SELECT pg_snapshot_xmin(pg_current_snapshot()) > ALL (SELECT xact FROM usage_billing.usage_delta
	UNION ALL SELECT folded_below FROM usage_billing.credit_balance)}), 't', 'whose transactions come after the old ones');
is($new->safe_psql('app', q{SET ROLE reader; SELECT usage_billing.account_balance('account-1') IS NOT NULL}), 't', 'rights are kept');

# ---------------------------------------------------------------------------
# With workers.

$new->adjust_conf('postgresql.conf', 'shared_preload_libraries', "'usage_billing'");
$new->restart;
Workers::within($new, 30, 'app', Workers::has_workers(1, 'app'), 'a worker starts');
Workers::within($new, 30, 'app', $Workers::FOLDED, 'it folds what the old server left');
is(Estate::answers($new, 'app') =~ s/^\(org-.*//mrs, $answers =~ s/^\(org-.*//mrs, 'every answer on credits and usage is the same');
is(BillingNode::differences($new, 'app'), '', 'the books are sound');
Estate::goes_on($new, 'app');

$new->stop;
done_testing();
