# A small model of the ledger. It is told what a caller does and answers what
# the server has to answer: the text of the result, or the SQLSTATEs that the
# contract allows for it.
#
# Every change goes through put(), which notes how to take it back, so that
# transactions and savepoints are a matter of going back to a mark.
package UsageModel;

use strict;
use warnings;
use Math::BigInt;

our @MEASURES = qw(viewing_seconds viewing_bytes egress_seconds
  egress_seconds_additional_targets egress_bytes);

sub new
{
	my ($class) = @_;
	return bless {
		account => {},
		default => {},    # org_id => billing_id
		project => {},    # project_id => org_id
		undo => [],
		savepoints => undef,    # a list while a transaction is open
		aborted => 0,
		revert_once => 1,
	}, $class;
}

# An answer: rows may be left out where it does not matter.
sub success
{
	my ($out, $rows) = @_;
	return { state => { '00000' => 1 }, out => $out, rows => $rows };
}

sub failure
{
	my (@states) = @_;
	return { state => { map { $_ => 1 } @states } };
}

sub put
{
	my ($self, $hash, $key, $value) = @_;
	push @{ $self->{undo} }, [ $hash, $key, exists $hash->{$key}, $hash->{$key} ];
	$hash->{$key} = $value;
	return;
}

sub go_back
{
	my ($self, $mark) = @_;
	while (@{ $self->{undo} } > $mark)
	{
		my ($hash, $key, $existed, $value) = @{ pop @{ $self->{undo} } };
		if ($existed) { $hash->{$key} = $value; }
		else { delete $hash->{$key}; }
	}
	return;
}

# Runs one statement of the model: a method that returns an answer.
sub call
{
	my ($self, $method, @args) = @_;

	return failure('25P02') if $self->{aborted};
	$self->{undo} = [] unless $self->{savepoints};

	my $mark = @{ $self->{undo} };
	my $answer = $self->$method(@args);
	if (!$answer->{state}{'00000'})
	{
		$self->go_back($mark);
		$self->{aborted} = 1 if $self->{savepoints};
	}
	return $answer;
}

sub begin
{
	my ($self) = @_;
	$self->{undo} = [];
	$self->{savepoints} = [];
	return success('');
}

sub finish
{
	my ($self, $commit) = @_;
	$self->go_back(0) if $self->{aborted} || !$commit;
	$self->{savepoints} = undef;
	$self->{aborted} = 0;
	return success('');
}

sub savepoint
{
	my ($self) = @_;
	return failure('25P02') if $self->{aborted};
	push @{ $self->{savepoints} }, scalar @{ $self->{undo} };
	return success('');
}

sub rollback_to
{
	my ($self) = @_;
	$self->go_back($self->{savepoints}[-1]);
	$self->{aborted} = 0;
	return success('');
}

sub release
{
	my ($self) = @_;
	return failure('25P02') if $self->{aborted};
	pop @{ $self->{savepoints} };
	return success('');
}

# ---------------------------------------------------------------------------

sub create_account
{
	my ($self, %p) = @_;
	my $known = $self->{account}{ $p{billing_id} };

	if ($known)
	{
		return failure('23505')
		  if $known->{org_id} ne $p{org_id}
		  || $known->{credit_min} != $p{credit_min};
		return success($p{billing_id});
	}
	$self->put($self->{default}, $p{org_id}, $p{billing_id})
	  unless exists $self->{default}{ $p{org_id} };
	$self->put(
		$self->{account},
		$p{billing_id},
		{
			%p,
			state => 'active',
			balance => 0,
			debited => 0,
			usage => {},
			grant => {},
			revert => {},       # by id, where the caller gave one
			reverts => {},      # by usage: how many, how much
			revert_row => {},   # by usage and number
			hours => {},
		});
	return success($p{billing_id});
}

sub create_project
{
	my ($self, $project_id, $org_id) = @_;
	my $known = $self->{project}{$project_id};

	return failure('23505') if defined $known && $known ne $org_id;
	$self->put($self->{project}, $project_id, $org_id);
	return success($project_id);
}

# Which account a call means: (account) or (undef, SQLSTATE).
sub choose
{
	my ($self, $by) = @_;
	my ($billing_id, $org_id, $project_id) =
	  map { defined $_ && length $_ ? $_ : undef } @$by{qw(billing_id org_id project_id)};

	return (undef, '22023') if defined $org_id && defined $project_id;
	if (defined $project_id)
	{
		$org_id = $self->{project}{$project_id};
		return (undef, 'PT404') unless defined $org_id;
	}
	if (defined $billing_id)
	{
		my $account = $self->{account}{$billing_id};
		return (undef, 'PT404') unless $account;
		return (undef, '22023') if defined $org_id && $account->{org_id} ne $org_id;
		return ($account);
	}
	return (undef, '22023') unless defined $org_id;
	return (undef, 'PT404') unless defined $self->{default}{$org_id};
	return ($self->{account}{ $self->{default}{$org_id} });
}

sub set_account
{
	my ($self, $billing_id, %settings) = @_;
	my $account = $self->{account}{$billing_id};
	$self->put($account, $_, $settings{$_}) for sort keys %settings;
	return success('', 1);
}

# ---------------------------------------------------------------------------

sub same
{
	my ($one, $other) = @_;
	return defined $one
	  ? defined $other && $one eq $other
	  : !defined $other;
}

# created_at counts only where the second payload gives one.
sub same_payload
{
	my ($stored, $again, @fields) = @_;
	for my $field (@fields)
	{
		return 0 unless same($stored->{$field}, $again->{$field});
	}
	return !defined $again->{created_at}
	  || same($stored->{created_at}, $again->{created_at});
}

my @USAGE_PAYLOAD = qw(type amount source description user_id metadata);
my @GRANT_PAYLOAD = qw(amount source description user_id metadata);
my @REVERT_PAYLOAD = qw(usage_id description user_id metadata);

sub hour_of
{
	my ($usage) = @_;
	return 'now' unless defined $usage->{created_at};
	return int($usage->{created_at} / 3600) * 3600;
}

sub post_hour
{
	my ($self, $account, $usage, $sign, $amount, $events, @measures) = @_;
	my $key = join('|', hour_of($usage), $usage->{source}, $usage->{type});
	my @sums = @{ $account->{hours}{$key} // [ (0) x 7 ] };
	my @change = ($amount, $events, @measures);
	$sums[$_] += $sign * $change[$_] for 0 .. 6;
	$self->put($account->{hours}, $key, \@sums);
	return;
}

sub measures
{
	my ($usage) = @_;
	return @{ $usage->{measures} // [ (0) x 5 ] };
}

sub post_usage
{
	my ($self, $account, $usage) = @_;
	$self->put($account->{usage}, $usage->{id}, $usage);
	$self->post_hour($account, $usage, 1, $usage->{amount}, 1, measures($usage));
	return if $usage->{type} ne 'credit';
	$self->put($account, 'balance', $account->{balance} - $usage->{amount});
	$self->put($account, 'debited', $account->{debited} + $usage->{amount});
	return;
}

# What of a batch is new; the other payloads are conflicts.
sub sort_out
{
	my ($account, @items) = @_;
	my (%new, @new, $conflict);

	for my $item (@items)
	{
		my $known = $account->{usage}{ $item->{id} } // $new{ $item->{id} };
		if (!$known)
		{
			$new{ $item->{id} } = $item;
			push @new, $item;
		}
		elsif (!same_payload($known, $item, @USAGE_PAYLOAD))
		{
			$conflict = 1;
		}
	}
	return ($conflict, @new);
}

sub create_usage
{
	my ($self, $by, @items) = @_;
	my ($account, $state) = $self->choose($by);
	my %wrong = map { $_->{bad} => 1 } grep { $_->{bad} } @items;

	$wrong{$state} = 1 if $state;
	return failure(keys %wrong) if %wrong;

	my ($conflict, @new) = sort_out($account, @items);
	my $credits = 0;
	my $credit_usages = grep { $_->{type} eq 'credit' } @new;
	$credits += $_->{amount} for grep { $_->{type} eq 'credit' } @new;

	$wrong{'23505'} = 1 if $conflict;
	$wrong{'UB003'} = 1 if @new && $account->{state} eq 'closed';
	# a sum of such a batch may leave int64 before credit is asked for
	$wrong{'22003'} = 1 if grep { $_->{huge} } @new;
	$wrong{'UB001'} = 1
	  if $credit_usages && $account->{balance} - $credits < $account->{credit_min};
	return failure(keys %wrong) if %wrong;

	$self->post_usage($account, $_) for @new;
	return success(
		sprintf '{"balance": %d, "created": %d, "duplicates": %d}',
		$account->{balance}, scalar @new, @items - @new);
}

# INSERT and COPY: each row names its account.
sub load_usage
{
	my ($self, @rows) = @_;
	my (%wrong, %by_account, $stored);

	for my $row (@rows)
	{
		$wrong{ $row->{bad} } = 1 if $row->{bad};
		next if $row->{bad};
		$wrong{'23503'} = 1 unless $self->{account}{ $row->{billing_id} };
		push @{ $by_account{ $row->{billing_id} } }, $row;
	}
	for my $billing_id (sort keys %by_account)
	{
		my $account = $self->{account}{$billing_id} or next;
		my ($conflict, @new) = sort_out($account, @{ $by_account{$billing_id} });
		$wrong{'23505'} = 1 if $conflict;
		next if %wrong;
		$self->post_usage($account, $_) for @new;
		$stored += @new;
	}
	return failure(keys %wrong) if %wrong;
	return success('', $stored // 0);
}

# ---------------------------------------------------------------------------

sub post_grant
{
	my ($self, $account, $grant) = @_;
	$self->put($account->{grant}, $grant->{id}, $grant);
	$self->put($account, 'balance', $account->{balance} + $grant->{amount});
	return;
}

sub grant_credits
{
	my ($self, $by, $grant) = @_;
	my ($account, $state) = $self->choose($by);

	return failure(grep { $_ } $state, $grant->{bad}) if $state || $grant->{bad};

	my $known = $account->{grant}{ $grant->{id} };
	return failure('23505')
	  if $known && !same_payload($known, $grant, @GRANT_PAYLOAD);
	return failure('UB003') if !$known && $account->{state} eq 'closed';
	$self->post_grant($account, $grant) unless $known;
	return success(
		sprintf '{"id": "%s", "amount": %d, "balance": %d, "duplicate": %s}',
		$grant->{id}, $grant->{amount}, $account->{balance},
		$known ? 'true' : 'false');
}

sub load_grant
{
	my ($self, $billing_id, $grant) = @_;
	my $account = $self->{account}{$billing_id};

	return failure($grant->{bad}) if $grant->{bad};
	return failure('23503') unless $account;

	my $known = $account->{grant}{ $grant->{id} };
	return failure('23505')
	  if $known && !same_payload($known, $grant, @GRANT_PAYLOAD);
	$self->post_grant($account, $grant) unless $known;
	return success('', $known ? 0 : 1);
}

# ---------------------------------------------------------------------------

# How many times a usage was reverted, and how much of it.
sub reverted
{
	my ($account, $usage_id) = @_;
	return @{ $account->{reverts}{$usage_id} // [ 0, 0 ] };
}

sub post_revert
{
	my ($self, $account, $revert) = @_;
	my $usage = $account->{usage}{ $revert->{usage_id} };
	my ($times, $before) = reverted($account, $usage->{id});
	my $after = $before + $revert->{amount};
	$revert = { %$revert, left_nothing => $after == $usage->{amount} };

	my @measures = map {
		my $m = $_;
		my @taken = map {
			Math::BigInt->new($m)->bmul($_)->bdiv($usage->{amount})->numify
		} $before, $after;
		$taken[1] - $taken[0];
	} measures($usage);

	$self->put($account->{reverts}, $usage->{id}, [ $times + 1, $after ]);
	$self->put($account->{revert_row}, $usage->{id} . '/' . ($times + 1), $revert);
	$self->put($account->{revert}, $revert->{id}, $revert) if defined $revert->{id};
	$self->post_hour($account, $usage, -1, $revert->{amount},
		$after == $usage->{amount} ? 1 : 0, @measures);
	return if $usage->{type} ne 'credit';
	$self->put($account, 'balance', $account->{balance} + $revert->{amount});
	$self->put($account, 'debited', $account->{debited} - $revert->{amount});
	return;
}

# The id of a revert that was given none stands as * in the answer.
sub revert_usage
{
	my ($self, $by, $revert) = @_;
	my ($account, $state) = $self->choose($by);
	my $amount = $revert->{amount};

	return failure($state) if $state;
	# what else is wrong with such a call may be said as well
	return failure('22023', '23505', 'PT404') if defined $amount && $amount <= 0;

	my $known = defined $revert->{id} && $account->{revert}{ $revert->{id} };
	if ($known)
	{
		my @fields = (@REVERT_PAYLOAD, defined $amount ? 'amount' : ());
		return failure('23505') unless same_payload($known, $revert, @fields);
		# no amount means all that is left
		return failure('23505') unless defined $amount || $known->{left_nothing};
		$amount = $known->{amount};
	}
	else
	{
		my $usage = $account->{usage}{ $revert->{usage_id} };
		return failure('PT404') unless $usage;

		my ($times, $before) = reverted($account, $usage->{id});
		return failure('23505') if $times && $self->{revert_once};

		my $left = $usage->{amount} - $before;
		return failure('22023') if !defined $amount && !$left;
		$amount //= $left;
		return failure('UB002') if $amount > $left;
		$self->post_revert($account, { %$revert, amount => $amount });
	}
	return success(
		sprintf '{"id": "%s", "amount": %d, "balance": %d, "usage_id": "%s", "duplicate": %s}',
		$revert->{id} // '*', $amount, $account->{balance}, $revert->{usage_id},
		$known ? 'true' : 'false');
}

# revert_no is that of a revert that is there, or the next one.
sub load_revert
{
	my ($self, $billing_id, $revert_no, $revert) = @_;
	my $account = $self->{account}{$billing_id};
	my $usage = $account->{usage}{ $revert->{usage_id} };

	return failure($revert->{bad}) if $revert->{bad};
	return failure('23503') unless $usage;

	my $known = $account->{revert_row}{"$revert->{usage_id}/$revert_no"};
	if ($known)
	{
		return failure('23505')
		  unless same_payload($known, $revert, @REVERT_PAYLOAD, 'amount')
		  && (!defined $revert->{id} || same($known->{id}, $revert->{id}));
		return success('', 0);
	}
	return failure('23505')
	  if defined $revert->{id} && $account->{revert}{ $revert->{id} };

	my ($times, $before) = reverted($account, $usage->{id});
	return failure('UB002') if $before + $revert->{amount} > $usage->{amount};
	$self->post_revert($account, $revert);
	return success('', 1);
}

# ---------------------------------------------------------------------------

sub account_balance
{
	my ($self, $by) = @_;
	my ($account, $state) = $self->choose($by);

	return failure($state) if $state;
	return success(
		sprintf '{"org_id": "%s", "balance": %d, "available": %d, "billing_id": "%s", "credit_min": %d}',
		$account->{org_id}, $account->{balance},
		$account->{balance} - $account->{credit_min},
		$account->{billing_id}, $account->{credit_min});
}

sub total_debited
{
	my ($self, $by) = @_;
	my ($account, $state) = $self->choose($by);

	return failure($state) if $state;
	return success($account->{debited});
}

# What moved credits: a line for each transaction, sorted as text. A usage that
# was given no time happened during the test; from and to are never given then.
sub account_transactions
{
	my ($self, $by, $from, $to) = @_;
	my ($account, $state) = $self->choose($by);
	my @lines;

	return failure($state) if $state;
	return failure('22023') if defined $from && defined $to && $from > $to;

	my $within = sub {
		my $at = $_[0]->{created_at} // 1e18;
		return (!defined $from || $at >= $from) && (!defined $to || $at < $to);
	};
	for my $usage (values %{ $account->{usage} })
	{
		push @lines, "usage debit $usage->{amount} $usage->{id} $usage->{source}"
		  if $usage->{type} eq 'credit' && $usage->{amount} > 0 && $within->($usage);
	}
	for my $grant (values %{ $account->{grant} })
	{
		push @lines, "grant credit $grant->{amount} $grant->{id} $grant->{source}"
		  if $within->($grant);
	}
	for my $revert (values %{ $account->{revert_row} })
	{
		push @lines, "revert credit $revert->{amount}"
		  if $account->{usage}{ $revert->{usage_id} }{type} eq 'credit'
		  && $within->($revert);
	}
	return success(join(',', sort @lines));
}

# Folding, rebuilding and verifying change nothing that can be seen.
sub nothing
{
	return success('');
}

1;
