# Kills servers and parts of them, and waits until they are gone.
package Killer;

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

# Of all processes: the parent's pid and the state.
sub process
{
	my ($pid) = @_;
	open my $stat, '<', "/proc/$pid/stat" or return;
	my $line = <$stat> // return;
	# the program's name may have anything in it
	my ($state, $parent) = $line =~ /.*\) (\S) (\d+)/ or return;
	return ($parent, $state);
}

sub runs
{
	my (undef, $state) = process($_[0]);
	return defined $state && $state ne 'Z';
}

sub children
{
	my ($of) = @_;
	return grep { my ($parent) = process($_); defined $parent && $parent == $of } map { m{(\d+)$} } glob '/proc/[0-9]*';
}

sub title
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/cmdline" or return '';
	return <$file> // '';
}

# The server's processes with such a title.
sub titled
{
	my ($node, $pattern) = @_;
	my $pid = postmaster($node) or return;
	return grep { title($_) =~ $pattern } children($pid);
}

sub postmaster
{
	my ($node) = @_;
	open my $file, '<', $node->data_dir . '/postmaster.pid' or return;
	my ($pid) = (<$file> // '') =~ /^(\d+)/;
	return $pid;
}

# Kills the postmaster, and with all what it started. Returns once nothing of it
# is left, for a server can't start beside the rest of an older one.
sub crash
{
	my ($node, $all) = @_;
	my $pid = postmaster($node) or return;
	my $until = time + 60;

	# standing still it starts nothing more
	kill 'STOP', $pid or return;
	my @children = children($pid);
	$node->{_pid} = $pid;
	$node->kill9;
	kill 'KILL', @children if $all;
	while (grep { runs($_) } $pid, @children)
	{
		die "processes of the server stay behind\n" if time > $until;
		sleep 0.02;
	}
	# to the next server it seems to run until the system has cleared it away
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

# Kills one of the server's processes; false if it wasn't there. Returns once the
# postmaster has taken notice: from then on no client gets in until the server has
# recovered, which is_up and the like can wait for.
sub kill_one
{
	my ($pid) = @_;
	my $until = time + 60;

	runs($pid) && kill 'KILL', $pid or return 0;
	while (process($pid))
	{
		die "the postmaster takes no notice of a dead process\n" if time > $until;
		sleep 0.005;
	}
	return 1;
}

# Runs one statement on a server that may go away meanwhile. Returns whether it
# succeeded and what it printed, or the error.
sub ask
{
	my ($node, $sql) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ], '<', '/dev/null', '>', \$out, '2>', \$err);

	chomp $out;
	return ($ok, $ok ? $out : $err);
}

# Waits until the server lets clients in; false if it doesn't for a minute.
sub is_up
{
	my ($node) = @_;
	my $until = time + 60;

	while (time < $until)
	{
		return 1 if (ask($node, 'SELECT 1'))[0];
		sleep 0.05;
	}
	return 0;
}

# Begins to start a server and doesn't wait until it lets clients in.
sub begin_start
{
	my ($node) = @_;
	my $until = time + 60;

	PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-s', '-W', '-D', $node->data_dir, '-l', $node->logfile, '-o', '--cluster-name=' . $node->name, 'start');
	until (runs(postmaster($node) // 0))
	{
		die "the server doesn't begin to start\n" if time > $until;
		sleep 0.005;
	}
	return;
}

1;
