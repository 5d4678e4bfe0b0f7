# All that a caller can ask of a database, as text, to compare databases by; and
# what a dump of it holds.
package Picture;

use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Test::More;

my $dumps = 0;
my $SHOWN = 6;

# Of every account and organisation.
my $PICTURE = <<'SQL';
SELECT 'balance', usage_billing.account_balance(billing_id)::text, usage_billing.total_debited(billing_id)::text FROM usage_billing.billing_account
UNION ALL SELECT 'transactions', billing_id, string_agg(t::text, ',' ORDER BY n) FROM usage_billing.billing_account a,
	LATERAL usage_billing.account_transactions(max_rows => 1000000, billing_id => a.billing_id)
		WITH ORDINALITY t (id, kind, type, amount, source, description, user_id, metadata, created_at, cursor, n) GROUP BY billing_id
UNION ALL SELECT 'trend', billing_id, usage_billing.account_usage_trend('2024-02-28', '2024-04-01', include => 'trend', billing_id => billing_id)::text
	FROM usage_billing.billing_account
UNION ALL SELECT 'last bill', billing_id, usage_billing.account_usage_trend('last_bill_date', '2024-05-01', include => 'trend', billing_id => billing_id)::text
	FROM usage_billing.billing_account WHERE last_billed_at IS NOT NULL AND billing_id LIKE 'apart-%'
UNION ALL SELECT 'series', billing_id, string_agg(s::text, ',' ORDER BY s::text COLLATE "C") FROM usage_billing.billing_account a,
	LATERAL usage_billing.usage_series('2024-01-01Z', '2100-01-01Z', 'hour', billing_id => a.billing_id) s GROUP BY billing_id
UNION ALL SELECT 'storage', usage_billing.get_storage_usage(org_id)::text, NULL FROM (SELECT DISTINCT org_id FROM usage_billing.storage_snapshot) o
UNION ALL SELECT 'history', o.org_id, string_agg(h::text, ',' ORDER BY h::text COLLATE "C") FROM (SELECT DISTINCT org_id FROM usage_billing.storage_snapshot) o,
	LATERAL usage_billing.get_storage_usage_history(5000, o.org_id) h GROUP BY o.org_id
ORDER BY 1, 2, 3
SQL

sub picture
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, "SET timezone = 'UTC';\n$PICTURE");
}

sub dump_to
{
	my ($node, $database, $file, @options) = @_;
	PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-d', $node->connstr($database), '-f', $file, @options);
	return $file;
}

sub dump_text
{
	my ($node, $database, @options) = @_;
	return slurp_file(dump_to($node, $database, PostgreSQL::Test::Utils::tempdir() . '/dump-' . ++$dumps, @options));
}

# The rows of a dump, each with its table, in one order.
sub data_of
{
	my ($node, $database) = @_;
	my ($table, @rows);

	for my $line (split /\n/, dump_text($node, $database, '-a'))
	{
		if ($line =~ /^COPY (.*) FROM stdin;$/) { $table = $1; }
		elsif ($line eq '\.') { undef $table; }
		elsif (defined $table) { push @rows, "$table: $line"; }
	}
	return join "\n", sort @rows;
}

# The definitions; there is a key in them that is another each time.
sub schema_of
{
	my ($node, $database) = @_;
	return dump_text($node, $database, '-s') =~ s/^\\(?:un)?restrict .*\n//mgr;
}

# Compares texts of many lines and shows only what differs.
sub same
{
	my ($got, $expected, $name) = @_;
	my %got = map { $_ => 1 } split /\n/, $got;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my @differ = ((map { "got only: $_" } grep { !$expected{$_} } sort keys %got), (map { "expected only: $_" } grep { !$got{$_} } sort keys %expected));

	ok($got eq $expected, $name) or diag(join "\n", map { substr $_, 0, 600 } grep { defined } @differ[ 0 .. $SHOWN - 1 ]);
	return;
}

1;
