# A router and its nodes for one test file: two servers with eight buckets each,
# the router's database on the first. Role router is what the router is on nodes.
package RouterNodes;

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

our $BUCKETS = 16;

# What a node lets the router's role do.
our $GRANTS = <<'SQL';
GRANT USAGE ON SCHEMA usage_billing TO router;
GRANT EXECUTE ON FUNCTION
	usage_billing.routed_call(text, text[], jsonb, text[]),
	usage_billing.routed_rows(text, text[], text[]),
	usage_billing.routed_batch(integer[], jsonb[], text[])
TO router;
SQL

sub server
{
	my ($name, %settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my %conf = (
		log_statement => 'none',
		autovacuum_naptime => '5s',
		max_connections => 250,
		wal_level => 'logical',
		max_replication_slots => 40,
		max_wal_senders => 20,
		max_worker_processes => 40,
		max_logical_replication_workers => 24,
		max_sync_workers_per_subscription => 4,
		%settings);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C' ], allows_streaming => 'logical');
	$node->append_conf('postgresql.conf', "$_ = '$conf{$_}'") for sort keys %conf;
	$node->start;
	$node->safe_psql('postgres', 'CREATE ROLE router LOGIN');
	$node->safe_psql('postgres', 'CREATE DATABASE empty_bucket');
	$node->safe_psql('empty_bucket', "CREATE EXTENSION usage_billing; $GRANTS");
	return $node;
}

# Returns an object with router, the node that has the router's database, and
# nodes, by bucket.
sub start
{
	my (%settings) = @_;
	my @servers = map { server("node$_", %settings) } 1, 2;
	my $self = bless { servers => \@servers, router => $servers[0], nodes => [] }, 'RouterNodes';

	for my $bucket (0 .. $BUCKETS - 1)
	{
		my $node = $servers[ $bucket < $BUCKETS / 2 ? 0 : 1 ];
		$node->safe_psql('postgres', "CREATE DATABASE bucket_$bucket TEMPLATE empty_bucket");
		push @{ $self->{nodes} }, $node;
	}
	$self->{router}->safe_psql('postgres', 'CREATE DATABASE router');
	$self->sql('CREATE EXTENSION usage_billing_router CASCADE');
	$self->sql("SELECT usage_billing.set_buckets(ARRAY["
		  . join(', ', map { "'" . $self->connection($_) . "'" } 0 .. $BUCKETS - 1) . '])');
	return $self;
}

# The connection string that the router has for a bucket.
sub connection
{
	my ($self, $bucket, $role) = @_;
	my $node = $self->{nodes}[$bucket];
	return sprintf 'host=%s port=%d dbname=bucket_%d user=%s', $node->host, $node->port, $bucket, $role // 'router';
}

sub router_dsn { my ($self) = @_; return $self->{router}->connstr('router'); }

# Runs SQL on the router, or in a bucket, and returns what it prints.
sub sql { my ($self, $sql) = @_; return $self->{router}->safe_psql('router', $sql); }

sub bucket_sql
{
	my ($self, $bucket, $sql) = @_;
	return $self->{nodes}[$bucket]->safe_psql("bucket_$bucket", $sql);
}

# Runs SQL in every bucket and returns all the lines, sorted.
sub all_buckets
{
	my ($self, $sql) = @_;
	return join "\n", sort map { split /\n/, $self->bucket_sql($_, $sql) } 0 .. $BUCKETS - 1;
}

sub bucket_of { my ($self, $org_id) = @_; return $self->sql("SELECT usage_billing.bucket_of('$org_id')"); }

# As in BillingNode: (SQLSTATE, output).
sub outcome { return BillingNode::outcome(@_); }

sub stop { my ($self) = @_; $_->stop for reverse @{ $self->{servers} }; return; }

1;
