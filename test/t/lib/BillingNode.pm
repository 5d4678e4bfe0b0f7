# A server for one test file, with the extension in database postgres.
package BillingNode;

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Settings of the server; its name, where a test has several, and install_path,
# where it is another than that of the tests.
sub start
{
	my (%settings) = @_;
	my $name = delete $settings{name} // 'main';
	my $path = delete $settings{install_path};
	my $node = PostgreSQL::Test::Cluster->new($name, install_path => $path);
	my %conf = (
		log_statement => 'none',
		autovacuum_naptime => '5s',
		max_connections => 60,
		%settings);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
	$node->append_conf('postgresql.conf', "$_ = '$conf{$_}'") for sort keys %conf;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION usage_billing');
	return $node;
}

# Runs sql in a session of its own and returns (SQLSTATE, output); the SQLSTATE
# is 00000 where nothing failed.
sub outcome
{
	my ($node, $database, $sql) = @_;
	my ($out, $err) = ('', '');

	$node->psql($database, $sql, stdout => \$out, stderr => \$err,
		on_error_stop => 1, extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	my ($state) = $err =~ /(?:ERROR|FATAL):\s+(\w{5})/;
	return ($state // '00000', $out);
}

# What verify() finds; empty where all is sound.
sub differences
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, 'SELECT * FROM usage_billing.verify()');
}

1;
