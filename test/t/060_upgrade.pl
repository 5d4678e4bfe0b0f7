# ALTER EXTENSION UPDATE: a database of an older version that is updated is the
# same, in every object of the catalog, as one in which the new version was
# created, and keeps all that it had. Until then the new library serves it.
#
# Every frozen version is updated to the current one. And the way to the next
# version is gone in a copy of the project, with a change of every kind: freeze,
# raise the version, write its script; where that leaves a statement out, the
# comparison sees it.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use Catalog;
use Estate;
use Workers;

my $directory = PostgreSQL::Test::Utils::tempdir();
my $node;

sub slurp { return PostgreSQL::Test::Utils::slurp_file($_[0]); }

sub put
{
	my ($file, $text) = @_;
	open my $out, '>', $file or die "$file: $!";
	print $out $text;
	close $out or die "$file: $!";
	return;
}

# A database with the extension in the given or the current version.
sub database
{
	my ($name, $version) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $name");
	$node->safe_psql($name, 'CREATE EXTENSION usage_billing' . ($version ? " VERSION '$version'" : ''));
	return $name;
}

# A database of an old version, filled under the library of today, updated while
# a worker is at it.
sub updates
{
	my ($name, $from, $to, $fresh) = @_;
	my $database = database($name, $from);

	Estate::fill($node, $database);
	Workers::within($node, 30, $database, Workers::has_workers(1, $database) . " AND state = 'idle'", "$from under the library of $to: a worker, which has done what there was");
	my $answers = Estate::answers($node, $database);
	is(BillingNode::differences($node, $database), '', "$from under the library of $to: the books are sound");

	$node->safe_psql($database, 'ALTER EXTENSION usage_billing UPDATE');
	is($node->safe_psql($database, q{SELECT extversion FROM pg_extension WHERE extname = 'usage_billing'}), $to, "$from to $to");
	is(Catalog::differences($fresh, Catalog::objects($node, $database)), '', "$from to $to: the catalog is that of a fresh installation");
	is(Estate::answers($node, $database), $answers, "$from to $to: every answer is the same");
	is(BillingNode::differences($node, $database), '', "$from to $to: the books are sound");
	Estate::goes_on($node, $database);
	return;
}

my %settings = (shared_preload_libraries => 'usage_billing', 'usage_billing.storage_refresh_interval' => '1h');
my ($version) = slurp('Makefile') =~ /^EXTVERSION = (\S+)$/m;
my @frozen = map { /--([0-9.]+)\.sql$/ ? $1 : () } glob 'sql/frozen/*.sql';

# ---------------------------------------------------------------------------
# What there is.

SKIP:
{
	my @older = grep { $_ ne $version } @frozen;
	skip("no version before $version is frozen", 1) unless @older;

	$node = BillingNode::start(%settings);
	my $fresh = Catalog::objects($node, 'postgres');
	updates('from_' . $older[$_] =~ tr/./_/r, $older[$_], $version, $fresh) for 0 .. $#older;
	$node->stop;
}

# ---------------------------------------------------------------------------
# The next version, in a copy of the project and of the private server.

my $project = "$directory/project";
my ($bindir) = run_command([ 'pg_config', '--bindir' ]);
my ($where) = run_command([ $ENV{PG_CONFIG}, '--bindir' ]);
my $root = $bindir =~ s/\Q$where\E$//r;
my $next = $version =~ s/(\d+)$/$1 + 1/er;

run_log([ 'cp', '-a', '.', $project ]) or die 'no copy of the project';
run_log([ 'cp', '-a', $root, "$directory/server" ]) or die 'no copy of the server';

sub make
{
	return run_command([ 'make', '-s', '-j', '2', '--no-print-directory', '-C', $project, "PG_CONFIG=$ENV{PG_CONFIG}",
		"DESTDIR=$directory/server", 'COPT=-DUSE_ASSERT_CHECKING', @_ ]);
}

# Replaces a piece of a file in the copy.
sub change
{
	my ($file, $from, $to) = @_;
	my $text = slurp("$project/$file");

	$text =~ s/\Q$from\E/$to/ or die "$file has no $from";
	put("$project/$file", $text);
	return;
}

unless (grep { $_ eq $version } @frozen)
{
	my ($out, $err) = make('freeze');
	is($err, '', "$version is frozen");
}
like((make('freeze'))[1], qr/Version \Q$version\E is frozen already/, 'once');
ok(-s "$project/sql/frozen/usage_billing--$version.sql", 'its script is kept');

# Objects of every kind, in rooms old and new.
put("$project/sql/install/73_price.sql", <<'SQL');
CREATE TABLE usage_billing.price (
	source	text COLLATE "C" NOT NULL,
	credits	bigint NOT NULL DEFAULT 1 CHECK (credits >= 0),
	CONSTRAINT price_pkey PRIMARY KEY (source)
);
SELECT pg_catalog.pg_extension_config_dump('usage_billing.price', '');
CREATE TRIGGER check_ids BEFORE INSERT OR UPDATE ON usage_billing.price
	FOR EACH ROW EXECUTE FUNCTION usage_billing.check_ids('source');
CREATE FUNCTION usage_billing.price_of(source text) RETURNS bigint
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT p.credits FROM usage_billing.price p WHERE p.source = price_of.source;
END;
CREATE VIEW usage_billing.priced WITH (security_invoker = true) AS
SELECT source FROM usage_billing.price;
SQL
change('Makefile', ' 75_policies ', ' 73_price 75_policies ');
change('sql/install/20_facts.sql', "CREATE INDEX credit_grant_time", "CREATE INDEX credit_grant_source ON usage_billing.credit_grant (source);\nCREATE INDEX credit_grant_time");
change('sql/install/60_maintenance.sql', "run_maintenance() RETURNS void\n\tLANGUAGE c VOLATILE", "run_maintenance() RETURNS void\n\tLANGUAGE c VOLATILE COST 1000");
change('sql/install/70_storage.sql', "max_project_count	bigint CHECK (max_project_count >= 0),\n",
	"max_project_count	bigint CHECK (max_project_count >= 0),\n\tmax_file_count	bigint CHECK (max_file_count >= 0),\n");
change('sql/install/72_maintenance_status.sql', "fillfactor = 10", "fillfactor = 20");
append_to_file("$project/sql/install/90_comments.sql", <<'SQL');
COMMENT ON FUNCTION usage_billing.price_of(text) IS 'Tells what a source costs';
COMMENT ON COLUMN usage_billing.storage_limit.max_file_count IS 'how many files it may have';
SQL

like((make())[1], qr/Version \Q$version\E is frozen: what changes/, 'another script of that version is refused');

change('Makefile', "EXTVERSION = $version", "EXTVERSION = $next");
change('usage_billing.control', "default_version = '$version'", "default_version = '$next'");

# A statement a paragraph.
my @statements = split /\n\n/, <<'SQL';
CREATE TABLE usage_billing.price (
	source	text COLLATE "C" NOT NULL,
	credits	bigint NOT NULL DEFAULT 1 CHECK (credits >= 0),
	CONSTRAINT price_pkey PRIMARY KEY (source)
);

SELECT pg_catalog.pg_extension_config_dump('usage_billing.price', '');

CREATE TRIGGER check_ids BEFORE INSERT OR UPDATE ON usage_billing.price
	FOR EACH ROW EXECUTE FUNCTION usage_billing.check_ids('source');

CREATE FUNCTION usage_billing.price_of(source text) RETURNS bigint
	LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT p.credits FROM usage_billing.price p WHERE p.source = price_of.source;
END;

REVOKE ALL ON FUNCTION usage_billing.price_of(text) FROM PUBLIC;

CREATE VIEW usage_billing.priced WITH (security_invoker = true) AS
SELECT source FROM usage_billing.price;

REVOKE ALL ON TABLE usage_billing.price FROM PUBLIC;

REVOKE ALL ON TABLE usage_billing.priced FROM PUBLIC;

ALTER TABLE usage_billing.price ENABLE ROW LEVEL SECURITY;

CREATE POLICY unscoped ON usage_billing.price FOR SELECT
	USING ((SELECT usage_billing.request_org()) IS NULL);

CREATE INDEX credit_grant_source ON usage_billing.credit_grant (source);

ALTER FUNCTION usage_billing.run_maintenance() COST 1000;

ALTER TABLE usage_billing.storage_limit
	ADD COLUMN max_file_count bigint CHECK (max_file_count >= 0);

ALTER TABLE usage_billing.maintenance_duty SET (fillfactor = 20);
SQL
mkdir "$project/sql/upgrade" unless -d "$project/sql/upgrade";
unlink glob "$project/sql/upgrade/*.sql";
put("$project/sql/upgrade/10_price.sql", join "\n\n", @statements, '');
is((make('install'))[1], '', "$next is built and installed");

$node = BillingNode::start(name => 'next', install_path => "$directory/server" . $where =~ s{/bin$}{}r, %settings);
my $fresh = Catalog::objects($node, 'postgres');
updates('machinery', $version, $next, $fresh);

# ---------------------------------------------------------------------------
# What an update script forgets is seen.

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
$node->safe_psql('postgres', 'CREATE DATABASE frozen');
$node->safe_psql('frozen', "CREATE EXTENSION usage_billing VERSION '$version'");

my ($share) = glob "$directory/server" . (run_command([ $ENV{PG_CONFIG}, '--sharedir' ]))[0] . '/extension';
my $script = "$share/usage_billing--$version--$next.sql";
my $whole = slurp($script);

for my $n (0 .. $#statements)
{
	my $what = $statements[$n] =~ s/\s+/ /gr =~ s/^(.{50}).*/$1.../r;

	put($script, $whole =~ s/\Q$statements[$n]\E//r);
	$node->safe_psql('postgres', "CREATE DATABASE forgets_$n TEMPLATE frozen");
	my ($state) = BillingNode::outcome($node, "forgets_$n", 'ALTER EXTENSION usage_billing UPDATE');
	if ($state eq '00000')
	{
		isnt(Catalog::differences($fresh, Catalog::objects($node, "forgets_$n")), '', "seen in the catalog where it forgets: $what");
	}
	else
	{
		like($state, qr/^42/, "fails where it forgets: $what");
	}
}
put($script, $whole =~ s/^COMMENT ON FUNCTION usage_billing\.price_of.*//mr);
$node->safe_psql('postgres', 'CREATE DATABASE uncommented TEMPLATE frozen');
$node->safe_psql('uncommented', 'ALTER EXTENSION usage_billing UPDATE');
like(Catalog::differences($fresh, Catalog::objects($node, 'uncommented')), qr/price_of.*COMMENT/, 'seen in the catalog where it forgets a comment');

$node->stop;
done_testing();
