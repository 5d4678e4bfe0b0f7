# All that the catalogs hold of the extension in a database, so that what an
# update leaves can be compared with a fresh installation.
package Catalog;

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

# Returns a hash: what pg_dump says of each object, for pg_upgrade, which is all
# it knows of it: definition, owner, rights, comment, membership in the extension.
# OIDs and the like are left out. What a dump says of the extension itself in
# OIDs is asked for by name.
sub objects
{
	my ($node, $database) = @_;
	my ($dump, $error) = run_command([ 'pg_dump', '--schema-only', '--binary-upgrade', '-d', $node->connstr($database) ]);
	die "pg_dump failed: $error" if $error;

	$dump =~ s/^SELECT pg_catalog\.binary_upgrade_set_next.*\n//mg;
	$dump =~ s/^SELECT pg_catalog\.binary_upgrade_create_empty_extension\(.*?;\n//msg;
	$dump =~ s/^-- For binary upgrade, set (?:heap|toast)'s relfrozenxid[^\n]*\nUPDATE .*?;\n//msg;
	$dump =~ s/^\\(?:un)?restrict .*\n//mg;
	# a tracked table has triggers of ours, but is somebody's
	my ($head, @entries) = grep { !/; Schema: public;/ } split /^--\n-- Name: /m, $dump;
	my %objects;

	for my $entry (@entries)
	{
		my ($name, $text) = split /\n--\n/, $entry, 2;
		die "twice: $name" if exists $objects{$name};
		$objects{$name} = $text;
	}
	die "pg_dump said nothing of the extension" unless grep { /^usage_billing; Type: SCHEMA/ } keys %objects;

	$objects{extension} = $node->safe_psql($database, <<'SQL');
SELECT extversion, extrelocatable, extnamespace::regnamespace FROM pg_extension WHERE extname = 'usage_billing';
SELECT c.table_id::regclass, c.condition
FROM pg_extension e, unnest(e.extconfig, e.extcondition) AS c (table_id, condition)
WHERE e.extname = 'usage_billing' ORDER BY 1::text;
SELECT pg_identify_object(d.refclassid, d.refobjid, 0) FROM pg_depend d, pg_extension e
WHERE d.classid = 'pg_extension'::regclass AND d.objid = e.oid AND e.extname = 'usage_billing' ORDER BY 1::text;
SQL
	# rows that the script itself stores
	$objects{rows} = $node->safe_psql($database, <<'SQL');
SELECT duty FROM usage_billing.maintenance_duty ORDER BY 1;
SELECT relation, source_id, org_column, bytes_column, kind, kind_column, duration_column FROM usage_billing.storage_source
WHERE relation = 'usage_billing.stored_file'::regclass;
SQL
	$objects{settings} = $node->safe_psql($database, <<'SQL');
LOAD 'usage_billing';
SELECT name, boot_val, unit, context, vartype, min_val, max_val, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'usage_billing.%' ORDER BY 1;
SQL
	return \%objects;
}

# What differs: a line each, what is missing in the second with "-", what it has
# beyond the first with "+".
sub differences
{
	my ($fresh, $updated) = @_;
	my %names = (%$fresh, %$updated);
	my @found;

	for my $name (sort keys %names)
	{
		my ($one, $other) = map { $_->{$name} // '' } $fresh, $updated;
		next if $one eq $other;
		my %has = map { $_ => 1 } split /\n/, $one;
		my %gets = map { $_ => 1 } split /\n/, $other;
		my @lines = (
			(map { "\t-$_" } grep { !$gets{$_} } split /\n/, $one),
			(map { "\t+$_" } grep { !$has{$_} } split /\n/, $other));
		push @found, $name, @lines ? @lines : "\tin another order";
	}
	return join "\n", @found;
}

1;
