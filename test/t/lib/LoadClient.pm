# One client of the mixed load. It sends random steps, alone or several in a
# transaction, and writes down in its journal what was acknowledged. What it
# did not hear back it repeats until it knows.
#
# The journal: "+" and a fact that is stored, "~" and what came of a step, "!"
# and something that must not be.
package LoadClient;

use strict;
use warnings;
use Time::HiRes qw(sleep time);

use LoadSteps;
use Session;
use UsageInput;

# What may come of any statement where others cancel, and in a transaction of
# several calls or of a stricter level.
my @CANCELLED = qw(57014 55P03);
my @TOGETHER = qw(40P01);
my @STRICT = qw(40P01 40001);

# A statement in a transaction of its own may be the one that pays for others'
# transactions of several. The server's log tells, by these marks, who took part.
my @ALONE = qw(40P01);
our %MARK = (call => '/* call */', load => '/* load */');

my $LAST_TRY = 60;    # seconds for one step to come to an end

sub new
{
	my ($class, %p) = @_;
	my $self = bless {
		%p, usages => [], accounts => [], files => {}, busy => {}, balance => {}, staged => [],
		loads => 0, opened => 0, filed => 0, projects => 1, gids => 0,
	}, $class;

	open $self->{journal}, '>>', "$self->{base}.journal" or die "$self->{base}.journal: $!";
	$self->{journal}->autoflush(1);
	return $self;
}

sub run
{
	my ($self) = @_;
	my $parent = getppid;
	my $ok = eval {
		$self->{session} = Session->new(server => $self->{server}, name => "load-$self->{name}", log => "$self->{base}.log",
			settings => ['SET usage_billing.revert_once = off']);
		until (-e $self->{stop} || getppid != $parent)
		{
			$self->turn;
			$self->{busy} = {};
			sleep $self->{pause} if $self->{pause};
		}
		1;
	};
	$self->wrong("gave up: $@" . $self->stuck) unless $ok;
	$self->{session}->end if $self->{session};
	close $self->{journal};
	return;
}

sub note
{
	my ($self, $mark, $text) = @_;
	$text =~ s/\n/ /g;
	print { $self->{journal} } "$mark$text\n";
	return;
}

sub wrong { return $_[0]->note('!', "$_[1]"); }

# Who waits for whom, for a client that got no answer.
sub stuck
{
	my ($self) = @_;
	open my $file, '<', $self->{server} or return '';
	chomp(my $server = <$file>);
	local $ENV{PGCONNECT_TIMEOUT} = 5;
	open my $psql, '-|', 'psql', '-X', '-A', '-t', '-d', $server, '-c',
	  "SELECT pid, pg_blocking_pids(pid), application_name, wait_event_type, wait_event, left(query, 200) FROM pg_stat_activity WHERE state <> 'idle'"
	  or return '';
	local $/;
	return <$psql> // '';
}

sub turn
{
	my ($self) = @_;
	my $at = rand;

	$self->{staged} = [];
	return $self->single if $at < 0.6;
	return $self->look_twice if $at < 0.63;
	return $self->transaction;
}

sub ask { return $_[0]{session}->ask($_[1]); }

# ---------------------------------------------------------------------------
# One step, and what came of it.

# done, absent, again or wrong.
sub judge
{
	my ($self, $step, $state, $retried, @more) = @_;
	my %transient = map { $_ => 1 } @more, @{ $step->{again} }, $self->{cancels} ? @CANCELLED : ();
	my %refused = map { $_ => 1 } @{ $step->{may} };

	return 'again' if $state eq 'lost' || $transient{$state};
	return $state eq $step->{must} ? 'absent' : 'wrong' if $step->{must};
	return 'done' if $state eq '00000' || ($state eq '23505' && $step->{fresh} && $retried);
	return $refused{$state} ? 'absent' : 'wrong';
}

# Sends a step, together with others in a transaction or alone. Returns its end
# and SQLSTATE; what it answered is looked at.
sub try_step
{
	my ($self, $step, $retried, @together) = @_;
	my @more = @together ? @together : @ALONE;
	my $mark = @together ? '' : $MARK{ $step->{is_load} ? 'load' : 'call' } . ' ';
	my ($state, $out, $rows) = $self->ask($mark . $step->{sql});
	my $end = $self->judge($step, $state, $retried, @more);
	my $short = substr $step->{sql}, 0, 700;

	$self->note('~', "$step->{kind} $state");
	my $complaint = '';
	if ($state eq '00000')
	{
		$complaint = $step->{check}->($out, $rows || 0, $retried) if $step->{check};
		$complaint ||= $self->check_balance($step, $out);
	}
	$complaint ||= $state if $end eq 'wrong';
	$self->wrong("$step->{kind}: $complaint (" . ($retried ? 'again ' : '') . "$short)") if $complaint;
	return ($end, $state);
}

# An account of its own has the balance that this client brought it to, what it
# did in an open transaction included.
sub check_balance
{
	my ($self, $step, $out) = @_;
	my $balance = $self->{balance}{ $step->{answers} };

	return '' if !defined $balance || $self->{unsure};
	$balance += $_->[1] for grep { $_->[0] eq $step->{answers} } map { @{ $_->{moves} } } @{ $self->{staged} }, $step;
	$self->note('~', 'balance told');
	my ($told) = $out =~ /"balance": (-?\d+)/;
	return defined $told && $told == $balance ? '' : "the balance should be $balance: $out";
}

sub stored
{
	my ($self, $step) = @_;
	$self->note('+', $_) for @{ $step->{facts} };
	$self->{balance}{ $_->[0] } += $_->[1] for grep { exists $self->{balance}{ $_->[0] } } @{ $step->{moves} };
	$step->{done}->() if $step->{done};
	return;
}

# Repeats a step until it is known what came of it. Where the client hung up, the
# first one may go on meanwhile: it can store what the repetition was refused,
# and change what has no id that tells that it was done.
sub settle
{
	my ($self, $step, $orphan) = @_;
	my $until = time + $LAST_TRY;

	if ($orphan && !@{ $step->{probe} })
	{
		$self->wait_until_gone($orphan);
		$orphan = undef;
	}
	for (;;)
	{
		my ($end, $state) = $self->try_step($step, 1);
		return $self->stored($step) if $end eq 'done';
		return if $end ne 'again' && !$orphan;
		$self->{session}->reconnect if $state eq 'lost';
		die "still $state after $LAST_TRY s: $step->{sql}\n" if time > $until;
		if ($orphan && $end ne 'again')
		{
			$self->wait_until_gone($orphan);
			$orphan = undef;
		}
		sleep 0.02 * rand;
	}
}

# Waits until the server has noticed that a session was hung up.
sub wait_until_gone
{
	my ($self, $backend) = @_;
	for (;;)
	{
		my ($state, $out) = $self->ask("SELECT count(*) FROM pg_stat_activity WHERE pid = $backend");
		return if $state eq '00000' && $out eq '0';
		$self->{session}->reconnect if $state eq 'lost';
		sleep 0.005;
	}
}

# Hangs up on a statement that was just sent, now and then, and returns the
# session that is left behind; a new one stands there.
sub hung_up
{
	my ($self, $sql, $how_often) = @_;
	my $backend = $self->{session}{backend};

	return unless $self->{hangs} && chance($how_often);
	$self->{session}->hang_up_on($sql);
	$self->{session}->reconnect;
	return $backend;
}

sub single
{
	my ($self) = @_;
	my $step = LoadSteps::some_step($self);
	my $limit = $self->{cancels} && chance(0.06) && one_of('statement_timeout', 'lock_timeout');

	if ($limit)
	{
		my ($state) = $self->ask("SET $limit = " . one_of(1, 2, 5, 20));
		$limit = undef if $state ne '00000';
	}
	my $orphan = $self->hung_up($step->{sql}, 0.01);
	return $self->settle($step, $orphan) if $orphan;
	my ($end, $state) = $self->try_step($step, 0);
	if ($state eq 'lost')
	{
		$self->{session}->reconnect;
		return $self->settle($step);
	}
	$self->insist("RESET $limit") if $limit;
	return $self->stored($step) if $end eq 'done';
	return $self->settle($step) if $end eq 'again' && chance(0.5);
	return;
}

# A statement that has to succeed in the end; true unless the connection was
# lost on the way, and another one stands there.
sub insist
{
	my ($self, $sql) = @_;
	for (;;)
	{
		my ($state) = $self->ask($sql);
		return 1 if $state eq '00000';
		if ($state eq 'lost')
		{
			$self->{session}->reconnect;
			return 0;
		}
		$self->wrong("$state: $sql") unless grep { $_ eq $state } @CANCELLED;
	}
}

# ---------------------------------------------------------------------------
# Several steps in a transaction

my @LEVELS = ('READ COMMITTED', 'READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE');

# A statement of the transaction itself. False: it is over, and what was done
# in it is gone.
sub within
{
	my ($self, $sql, @more) = @_;
	my ($state) = $self->ask($sql);
	my %may = map { $_ => 1 } @more, $self->{cancels} ? @CANCELLED : ();

	return 1 if $state eq '00000';
	if ($state eq 'lost') { $self->{session}->reconnect; }
	else
	{
		$self->wrong("$state: $sql") unless $may{$state};
		$self->insist('ROLLBACK');
	}
	return 0;
}

sub transaction
{
	my ($self) = @_;
	my $level = one_of(@LEVELS);
	my @more = $level eq 'READ COMMITTED' ? @TOGETHER : @STRICT;
	# a session of its own must not wait for what it has prepared
	my @steps = map { LoadSteps::some_step($self, refresh => 1, recount => 1) } 1 .. one_of(1, 2, 2, 3, 5);
	my @staged;
	$self->{staged} = \@staged;

	# what deletes or empties files decides what the next one finds
	return if 1 < grep { $_->{kind} =~ /files/ } @steps;
	$self->within("BEGIN ISOLATION LEVEL $level") or return;
	for my $step (@steps)
	{
		my $savepoint = chance(0.35);
		return if $savepoint && !$self->within('SAVEPOINT s');
		my ($end, $state) = $self->try_step($step, 0, @more);
		if ($state eq 'lost') { return $self->{session}->reconnect; }
		elsif ($end eq 'done' && !($savepoint && chance(0.3)))
		{
			push @staged, $step;
			next;
		}
		return $self->insist('ROLLBACK') unless $savepoint;
		$self->within('ROLLBACK TO SAVEPOINT s') or return;
	}
	return $self->insist('ROLLBACK') if chance(0.1);
	return $self->prepare(\@staged, @more) if $self->{prepares} && chance(0.12);
	return $self->commit(\@staged, @more);
}

sub commit
{
	my ($self, $staged, @more) = @_;
	my $orphan = $self->hung_up('COMMIT', 0.05);
	return $self->unheard($staged, $orphan) if $orphan;
	my ($state) = $self->ask('COMMIT');
	my %may = map { $_ => 1 } @more, $self->{cancels} ? @CANCELLED : ();

	$self->note('~', "COMMIT $state");
	if ($state eq '00000')
	{
		$self->stored($_) for @$staged;
		return;
	}
	if ($state ne 'lost')
	{
		$self->wrong("$state: COMMIT") unless $may{$state};
		$self->insist('ROLLBACK');
		return;
	}
	$self->{session}->reconnect;
	return $self->unheard($staged);
}

# A transaction whose end nobody heard of is there as a whole or not at all; its
# steps are repeated one by one.
sub unheard
{
	my ($self, $staged, $orphan) = @_;

	$self->whole($staged);
	# it is about to end, but a file may not be changed before it has
	$self->wait_until_gone($orphan) if $orphan;
	# when the first of them is repeated, the others may be there already
	$self->{unsure} = 1;
	$self->settle($_) for @$staged;
	$self->{unsure} = 0;
	return;
}

sub whole
{
	my ($self, $staged) = @_;
	my @probes = map { @{ $_->{probe} } } @$staged or return;
	my $count = join ' + ', map {
		my ($table, $column, $account, $id) = @$_;
		"(SELECT count(*) FROM usage_billing.$table WHERE billing_id = '$account' AND $column = '$id')"
	} @probes;

	for (;;)
	{
		my ($state, $out) = $self->ask("SELECT $count");
		if ($state eq '00000')
		{
			$self->note('~', 'unheard ' . ($out ? 'there' : 'gone'));
			$self->wrong("a transaction is there in part: $out of " . @probes . " facts: SELECT $count") if $out && $out != @probes;
			return;
		}
		$self->{session}->reconnect if $state eq 'lost';
	}
}

# Until it is decided, a prepared transaction keeps its locks; a client that
# waited for somebody else meanwhile might wait for itself.
sub prepare
{
	my ($self, $staged, @more) = @_;
	my $gid = "$self->{name}-" . ++$self->{gids};
	my ($state) = $self->ask("PREPARE TRANSACTION '$gid'");
	my %may = map { $_ => 1 } @more, $self->{cancels} ? @CANCELLED : ();

	$self->note('~', "PREPARE $state");
	if ($state eq 'lost')
	{
		$self->{session}->reconnect;
		return unless $self->is_prepared($gid);
	}
	elsif ($state ne '00000')
	{
		$self->wrong("$state: PREPARE TRANSACTION") unless $may{$state};
		$self->insist('ROLLBACK');
		return;
	}
	sleep rand 0.1;
	my $commit = chance(0.75);
	$self->decide($gid, $commit ? 'COMMIT' : 'ROLLBACK');
	return unless $commit;
	$self->stored($_) for @$staged;
	return;
}

sub is_prepared
{
	my ($self, $gid) = @_;
	for (;;)
	{
		my ($state, $out) = $self->ask("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '$gid'");
		return $out if $state eq '00000';
		$self->{session}->reconnect if $state eq 'lost';
	}
}

sub decide
{
	my ($self, $gid, $how) = @_;
	for (;;)
	{
		my ($state) = $self->ask("$how PREPARED '$gid'");
		$self->note('~', "$how PREPARED $state");
		return if $state eq '00000';
		$self->{session}->reconnect if $state eq 'lost';
		# busy: the connection that was lost is still at it
		$self->wrong("$state: $how PREPARED '$gid'") unless grep { $_ eq $state } 'lost', '55000', '42704', @CANCELLED;
		return unless $self->is_prepared($gid);
	}
}

# In one snapshot, answers stay what they are and are what the facts say.
sub look_twice
{
	my ($self) = @_;
	my $account = LoadSteps::some_account($self);
	my $balance = "SELECT usage_billing.account_balance('$account'), usage_billing.total_debited('$account')";
	my @seen;

	$self->within('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY') or return;
	for my $sql ($balance, "SELECT count(*) FROM usage_billing.verify('$account')", $balance)
	{
		my ($state, $out) = $self->ask($sql);
		if ($state ne '00000')
		{
			return $self->{session}->reconnect if $state eq 'lost';
			$self->wrong("$state: $sql") unless $self->{cancels} && grep { $_ eq $state } @CANCELLED;
			return $self->insist('ROLLBACK');
		}
		push @seen, $out;
	}
	$self->wrong("one snapshot shows $seen[0] and $seen[2]") if $seen[0] ne $seen[2];
	$self->wrong("verify finds $seen[1] differences in $account") if $seen[1] ne '0';
	$self->within('COMMIT');
	return;
}

1;
