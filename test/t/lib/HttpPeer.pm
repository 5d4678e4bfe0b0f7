# Both ends of HTTP for tests, on 127.0.0.1, with nothing but core Perl: a server
# that records what it is asked, and a client that sends what it is told, byte by
# byte.
package HttpPeer;

use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();

my $json = JSON::PP->new->ascii->canonical->allow_nonref;

# Starts a server process. answer is called there with each request (a hash:
# method, target, headers, body) and returns (status, body, headers...). All
# requests are also written to the file record.
sub serve
{
	my ($record, $answer) = @_;
	my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => 0, ReuseAddr => 1)
	  or die "could not listen: $!";
	my $pid = fork // die "could not fork: $!";

	return bless({ pid => $pid, port => $listener->sockport, record => $record }, __PACKAGE__) if $pid;

	local $SIG{TERM} = sub { POSIX::_exit(0) };
	local $SIG{PIPE} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		my $request = read_message($client) or next;
		my ($status, $body, %headers) = eval { $answer->($request) };
		($status, $body) = (500, "the test's server failed: $@") unless defined $status;

		open my $out, '>>', $record or die "$record: $!";
		print $out $json->encode($request), "\n";
		close $out;

		%headers = ('Content-Type' => 'application/json; charset=utf-8', %headers);
		print $client "HTTP/1.1 $status Status\r\n",
		  (map { "$_: $headers{$_}\r\n" } sort keys %headers),
		  'Content-Length: ' . length($body) . "\r\nConnection: close\r\n\r\n$body";
		close $client;
	}
	POSIX::_exit(0);
}

# What was asked since the last look.
sub requests
{
	my ($self) = @_;
	open my $in, '<', $self->{record} or return ();
	my @requests = map { $json->decode($_) } <$in>;
	close $in;
	unlink $self->{record};
	return @requests;
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

# Reads a request or an answer; the body's length must be told or end with the
# connection.
sub read_message
{
	my ($socket) = @_;
	my $head = '';

	while ($head !~ /\r\n\r\n/)
	{
		sysread($socket, $head, 65536, length $head) or return;
	}
	my ($top, $body) = split /\r\n\r\n/, $head, 2;
	my ($first, @lines) = split /\r\n/, $top;
	my %headers;
	for (@lines)
	{
		my ($name, $value) = /^([^:]+):\s*(.*?)\s*$/ or next;
		$headers{ lc $name } = defined $headers{ lc $name } ? $headers{ lc $name } . ', ' . $value : $value;
	}
	my $length = $headers{'content-length'};
	$length = 0 if !defined $length && $first !~ m{^HTTP/};
	while (!defined $length || length $body < $length)
	{
		sysread($socket, $body, 65536, length $body) or last;
	}
	$body = unchunked($body) if ($headers{'transfer-encoding'} // '') eq 'chunked';
	my ($one, $two) = split / /, $first, 3;
	return $first =~ m{^HTTP/}
	  ? { status => $two, headers => \%headers, body => $body }
	  : { method => $one, target => $two, headers => \%headers, body => $body };
}

sub unchunked
{
	my ($chunks) = @_;
	my $body = '';
	while ($chunks =~ s/\A([0-9a-fA-F]+)[^\r\n]*\r\n//)
	{
		my $length = hex $1 or last;
		$body .= substr $chunks, 0, $length;
		substr($chunks, 0, $length + 2) = '';
	}
	return $body;
}

# Sends a request to a port and returns the answer. target goes out as it is.
sub ask
{
	my ($port, $method, $target, %more) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 30)
	  or die "could not connect to port $port: $!";
	my $body = $more{body};
	my %headers = (Host => 'billing.test', %{ $more{headers} || {} });
	local $SIG{PIPE} = 'IGNORE';

	$headers{'Content-Length'} //= length $body if defined $body && !$headers{'Transfer-Encoding'};
	print $socket "$method $target HTTP/1.1\r\n", (map { "$_: $headers{$_}\r\n" } sort keys %headers),
	  "Connection: close\r\n\r\n", $body // '';
	$socket->flush;
	return read_message($socket) || { status => 0, headers => {}, body => '' };
}

1;
