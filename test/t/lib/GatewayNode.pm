# Debian's nginx with examples/gateway/nginx.conf, on a port of its own, in front
# of a PostgREST that listens on another.
package GatewayNode;

use strict;
use warnings;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;

our $NGINX = -x '/usr/sbin/nginx' ? '/usr/sbin/nginx' : 'nginx';

sub free_port
{
	my $socket = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or die "no port: $!";
	return $socket->sockport;
}

# Starts nginx; root: the project. Nothing of the example is changed but the two
# addresses.
sub start
{
	my ($root, $upstream) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir();
	my $port = free_port();
	my $conf = slurp_file("$root/examples/gateway/nginx.conf");
	my $replaced = ($conf =~ s/server 127\.0\.0\.1:3000;/server 127.0.0.1:$upstream;/)
	  + ($conf =~ s/listen 127\.0\.0\.1:8080;/listen 127.0.0.1:$port;/);
	die 'the addresses in nginx.conf are not where they were' unless $replaced == 2;

	mkdir "$directory/tmp";
	append_to_file("$directory/nginx.conf", $conf);
	append_to_file("$directory/gateway.js", slurp_file("$root/examples/gateway/gateway.js"));
	my $pid = fork // die "could not fork: $!";
	if (!$pid)
	{
		open STDOUT, '>', "$directory/stdout";
		open STDERR, '>', "$directory/stderr";
		exec $NGINX, '-p', $directory, '-c', 'nginx.conf', '-e', 'stderr' or POSIX::_exit(127);
	}
	my $self = bless { pid => $pid, port => $port, directory => $directory }, __PACKAGE__;
	for (1 .. 100)
	{
		return $self if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		select undef, undef, undef, 0.1;
	}
	die "nginx does not answer:\n" . slurp_file("$directory/stderr");
}

# What it complained of.
sub errors
{
	my ($self) = @_;
	return slurp_file("$self->{directory}/stderr");
}

sub stop
{
	my ($self) = @_;
	kill 'TERM', $self->{pid} if $self->{pid};
	waitpid $self->{pid}, 0 if $self->{pid};
	delete $self->{pid};
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local $?;
	$self->stop;
	return;
}

1;
