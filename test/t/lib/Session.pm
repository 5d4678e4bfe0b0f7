# A psql that stays open and is asked one statement after another, from a
# process of its own. Where the connection is lost it says so, and opens another
# when it is told to, wherever the server is by then. It can also hang up itself.
package Session;

use strict;
use warnings;
use IPC::Open3 qw(open3);
use Time::HiRes qw(sleep time);

my $PATIENCE = $ENV{LOAD_PATIENCE} // 180;    # seconds for an answer, and for a server

# server: a file that holds the connection string; it may change. log: a file
# for what psql says besides. name: the application_name. settings: statements
# for each new connection.
sub new
{
	my ($class, %p) = @_;
	my $self = bless { settings => [], %p, no => 0, parent => getppid }, $class;
	$self->reconnect;
	return $self;
}

# Gives up after a while: a server that stays away is a failure.
sub reconnect
{
	my ($self) = @_;
	my $until = time + $PATIENCE;

	for (;;)
	{
		$self->start;
		my $ready = 1;
		for my $sql (@{ $self->{settings} }, 'SELECT pg_backend_pid()')
		{
			(my $state, $self->{backend}) = $self->ask($sql);
			$ready &&= $state eq '00000';
		}
		return if $ready;
		die "no server for $PATIENCE s\n" if time > $until || getppid != $self->{parent};
		sleep 0.05;
	}
}

sub start
{
	my ($self) = @_;

	$self->end;
	open my $file, '<', $self->{server} or die "$self->{server}: $!";
	chomp(my $server = <$file>);
	close $file;
	open my $log, '>>', $self->{log} or die "$self->{log}: $!";
	$self->{pid} = open3(my $in, my $out, '>&' . fileno $log,
		'psql', '-X', '-q', '-A', '-t', '-v', 'VERBOSITY=verbose',
		'-d', "$server application_name='$self->{name}'");
	close $log;
	$in->autoflush(1);
	@$self{qw(in out read)} = ($in, $out, '');
	return;
}

# Ends psql; what the server makes of it is open.
sub end
{
	my ($self) = @_;

	return unless $self->{pid};
	close $self->{in};
	close $self->{out};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	delete @$self{qw(pid in out)};
	return;
}

# Sends a statement and hangs up; whether it arrives and what comes of it, who
# knows.
sub hang_up_on
{
	my ($self, $sql) = @_;

	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql;\n" if $self->{pid};
	sleep 0.004 * rand;
	$self->end;
	return;
}

# Runs one statement. Returns its SQLSTATE, or "lost" where no answer came, what
# it printed and how many rows it touched.
sub ask
{
	my ($self, $sql) = @_;
	my $no = ++$self->{no};
	my $until = time + $PATIENCE;

	return ('lost', '', 0) unless $self->{pid};
	local $SIG{PIPE} = 'IGNORE';
	print { $self->{in} } "$sql;\n\\echo \@\@$no :SQLSTATE :ROW_COUNT\n";
	for (;;)
	{
		if ($self->{read} =~ s/\A(.*?)^@@\Q$no\E (\w*) (\d*)\n//ms)
		{
			my ($out, $state, $rows) = ($1, $2, $3);
			$out =~ s/\n\z//;
			# psql goes on for a while, without a connection
			return $self->lost if $state eq '';
			return ($state, $out, $rows);
		}
		die "no answer for $PATIENCE s to: $sql\n" if time > $until;
		vec(my $ready = '', fileno $self->{out}, 1) = 1;
		next unless select $ready, undef, undef, 1;
		next if sysread $self->{out}, $self->{read}, 65536, length $self->{read};
		return $self->lost;
	}
}

sub lost
{
	my ($self) = @_;
	$self->end;
	return ('lost', '', 0);
}

1;
