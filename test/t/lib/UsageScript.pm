# Makes up what a client does, as a psql script, and asks the model for the
# answer to each statement. The random numbers are perl's own, so the same seed
# makes the same scripts.
package UsageScript;

use strict;
use warnings;

use UsageInput;
use UsageModel;

# directory: for the files that COPY reads. alone: there are no other clients.
# routed: the script is for a router; at(org_id) tells the database that has the
# organisation, router is its own. What a router doesn't do (transactions, loads,
# settings of the session) is left out; what changes an account is done there.
sub new
{
	my ($class, %p) = @_;
	my $self = bless {
		name => $p{name},
		directory => $p{directory},
		alone => $p{alone},
		routed => $p{routed},
		model => UsageModel->new,
		ops => [],
		# by account, what was ever sent as new; it may have been refused
		seen => {},
		seen_grants => {},
		seen_reverts => {},    # ids
		billing_ids => [],
	}, $class;

	$self->add("SET usage_billing.max_batch_size = $MAX_BATCH", UsageModel::success(''));
	$self->add("SET timezone = 'America/St_Johns'", UsageModel::success(''));
	$self->set_up;
	return $self;
}

sub model { return $_[0]{model}; }
sub ops { return @{ $_[0]{ops} }; }

# What was asked, and what must come of it. Others may be added to an op:
# tag, for what is judged after the run.
sub add
{
	my ($self, $sql, $answer, %more) = @_;
	push @{ $self->{ops} }, { sql => $sql, answer => $answer, %more };
	return;
}

# The whole script. Each statement is followed by a line that only the script
# can make: its number, its SQLSTATE and how many rows it touched.
sub text
{
	my ($self) = @_;
	my $no = 0;
	return join '', map {
		my $text = "$_->{sql};\n\\echo \@\@" . $no++ . " :SQLSTATE :ROW_COUNT\n";
		$_->{at} ? "\\connect \"$_->{at}\"\n$text\\connect \"$self->{routed}{router}\"\n" : $text
	} $self->ops;
}

# For an op that works on an account's row: where that is.
sub at
{
	my ($self, $account) = @_;
	return $self->{routed} ? (at => $self->{routed}{at}->($account->{org_id})) : ();
}

# The accounts: two organisations, one with two accounts; an account that may
# be overdrawn and one that keeps a reserve.
sub set_up
{
	my ($self) = @_;
	my $n = $self->{name};

	for my $account ([ "$n-a", "$n-org", 0 ], [ "$n-b", "$n-org", -500 ],
		[ "$n-c", "$n-org2", 100 ])
	{
		my %p;
		@p{qw(billing_id org_id credit_min)} = @$account;
		push @{ $self->{billing_ids} }, $p{billing_id};
		$self->create_account(%p);
	}
	$self->create_project("$n-p", "$n-org");
	$self->create_project("$n-p2", "$n-org2");
	for my $billing_id (@{ $self->{billing_ids} })
	{
		my $grant = { id => uuid(), amount => 5000, source => 'system.buy', metadata => '{}' };
		$self->grant_call({ billing_id => $billing_id }, $grant);
	}
	return;
}

sub create_account
{
	my ($self, %p) = @_;
	$self->add(
		"SELECT (usage_billing.create_billing_account(billing_id => '$p{billing_id}', org_id => '$p{org_id}', credit_min => $p{credit_min})).billing_id",
		$self->model->call('create_account', %p));
	return;
}

sub create_project
{
	my ($self, $project_id, $org_id) = @_;
	$self->add(
		"SELECT (usage_billing.create_project('$project_id', org_id => '$org_id')).project_id",
		$self->model->call('create_project', $project_id, $org_id));
	return;
}

sub some_account
{
	my ($self) = @_;
	return $self->model->{account}{ one_of(@{ $self->{billing_ids} }) };
}

# A way to name the account; now and then one that must not work.
sub choice
{
	my ($self, $account) = @_;
	my ($billing_id, $org_id) = @$account{qw(billing_id org_id)};
	my $default = $self->model->{default}{$org_id} eq $billing_id;
	my $project_id = $org_id =~ /2$/ ? "$self->{name}-p2" : "$self->{name}-p";
	my $other_org = $org_id =~ /2$/ ? "$self->{name}-org" : "$self->{name}-org2";

	if (chance(0.02))
	{
		return one_of(
			{},
			{ billing_id => '' },
			{ billing_id => 'nobody' },
			{ org_id => 'nobody' },
			{ project_id => 'nothing' },
			{ org_id => $org_id, project_id => $project_id },
			{ billing_id => $billing_id, org_id => $other_org });
	}
	return { org_id => $org_id } if $default && chance(0.2);
	return { project_id => $project_id } if $default && chance(0.2);
	return { billing_id => $billing_id, org_id => $org_id } if chance(0.1);
	return { billing_id => $billing_id, project_id => $project_id } if chance(0.1);
	return { billing_id => $billing_id, org_id => '' } if chance(0.05);
	return { billing_id => $billing_id };
}

sub arguments
{
	my ($by) = @_;
	return join '', map { ", $_ => '$by->{$_}'" } sort keys %$by;
}

# ---------------------------------------------------------------------------

# One of those that were sent before, as it was or without its time.
sub again
{
	my ($self, $billing_id) = @_;
	my $known = $self->{seen}{$billing_id} or return undef;
	my %usage = %{ one_of(@$known) };
	delete $usage{created_at}
	  if $self->model->{account}{$billing_id}{usage}{ $usage{id} } && chance(0.3);
	return \%usage;
}

# ---------------------------------------------------------------------------
# What a client does. Each adds one statement.

# A usage that takes just what a batch leaves, or one more than that.
sub last_credits
{
	my ($self, $account, @items) = @_;
	my (undef, @new) = UsageModel::sort_out($account, @items);
	my $left = $account->{balance} - $account->{credit_min};
	my $usage = { %{ some_usage() }, billing_id => $account->{billing_id}, type => 'credit' };

	delete $usage->{measures};
	$left -= $_->{amount} for grep { $_->{type} eq 'credit' } @new;
	$usage->{amount} = $left > 0 ? $left + one_of(0, 1) : 1;
	push @{ $self->{seen}{ $account->{billing_id} } }, $usage;
	return $usage;
}

sub do_create_usage
{
	my ($self) = @_;
	my $account = $self->some_account;
	my $by = $self->choice($account);
	my $id = $account->{billing_id};
	my $size = one_of(0, 1, 1, 1, 2, 3, 5, 8, 13, $MAX_BATCH);
	my (@items, %in_batch);

	if (chance(0.01))
	{
		$self->add('SELECT usage_billing.create_usage('
			  . quoted(one_of('{}', 'null', '5', '"[]"')) . '::jsonb'
			  . arguments({ billing_id => $id }) . ')',
			$self->model->call('create_usage', $by, { bad => '22023' }));
		return;
	}
	$size = $MAX_BATCH + 1 if chance(0.005);
	for (1 .. $size)
	{
		my $known = chance(0.15) && $self->again($id);
		$known = one_of(@items) if @items && !$known && chance(0.05);
		# whether one with and one without a time are the same is left open
		$known = $in_batch{ $known->{id} } // $known if $known;
		$known = changed_usage($known) if $known && chance(0.05);
		my $item = $known || { %{ some_usage() }, billing_id => $id };
		push @{ $self->{seen}{$id} }, $item unless $known;
		push @items, $item;
		$in_batch{ $item->{id} } //= $item;
	}
	push @items, $self->last_credits($account, @items) if chance(0.05);
	my @texts = map { item_json($_) } @items;
	my @told = @items;

	# a call that can't be right
	if ($size && chance(0.08))
	{
		my ($text, $state) = @{ one_of(@BAD_ITEMS) };
		my $at = int rand $size;
		my $fresh = uuid();
		$text =~ s/"ID"/"$fresh"/;
		$texts[$at] = $text;
		$told[$at] = { bad => $state };
	}
	elsif (chance(0.01))
	{
		my $huge = { huge => 1, id => uuid(), type => 'credit', amount => $INT64_MAX, source => 'system',
			metadata => '{}', billing_id => $id };
		push @texts, item_json($huge);
		push @told, $huge;
	}
	push @told, { bad => '22023' } if @texts > $MAX_BATCH;

	$self->add('SELECT usage_billing.create_usage('
		  . quoted('[' . join(', ', @texts) . ']') . arguments($by) . ')',
		$self->model->call('create_usage', $by, @told));
	return;
}

sub do_revert_usage
{
	my ($self) = @_;
	my $account = $self->some_account;
	my $by = $self->choice($account);
	my $seen = $self->{seen}{ $account->{billing_id} } // [ { id => uuid() } ];
	my $reverts = $self->{seen_reverts}{ $account->{billing_id} } //= [];
	my $revert = {
		usage_id => chance(0.95) ? one_of(@$seen)->{id} : uuid(),
		id => chance(0.5) ? uuid() : undef,
		description => chance(0.3) ? one_of(@TEXTS) : undef,
		user_id => chance(0.2) ? 'support' : undef,
		metadata => chance(0.2) ? '{"ticket": 4}' : '{}',
	};
	my $usage = $account->{usage}{ $revert->{usage_id} };
	my $size = $usage ? $usage->{amount} : 10;

	$revert->{amount} = one_of($size, 1, $size + 1, int($size / 2), int($size / 3), 0, -1)
	  if chance(0.6);
	my $known = @$reverts && chance(0.15) && $account->{revert}{ one_of(@$reverts) };
	push @$reverts, $revert->{id} if defined $revert->{id};
	if ($known)
	{
		$revert = {%$known};
		delete $revert->{amount} if chance(0.3);
		$revert->{description} = 'another' if chance(0.2);
	}

	my $arguments = join '', map {
		defined $revert->{$_} ? ", $_ => " . quoted($revert->{$_}) : ''
	} qw(amount id description user_id);
	$arguments .= ", description => ''" if !defined $revert->{description} && chance(0.1);
	$arguments .= ", metadata => '$revert->{metadata}'" if $revert->{metadata} ne '{}';
	$self->add("SELECT usage_billing.revert_usage('$revert->{usage_id}'$arguments" . arguments($by) . ')',
		$self->model->call('revert_usage', $by, $revert));
	return;
}

sub some_grant
{
	my ($self, $account) = @_;
	my $known = $self->{seen_grants}{ $account->{billing_id} };
	my $grant;

	if ($known && chance(0.2))
	{
		$grant = { %{ one_of(@$known) } };
		$grant->{amount}++ if chance(0.2);
		return $grant;
	}
	$grant = {
		id => uuid(),
		billing_id => $account->{billing_id},
		amount => one_of(1, 100, int(1 + rand 2000), int(1 + rand 20000)),
		source => one_of('system.buy', 'system.buy', 'gift'),
		description => one_of(@TEXTS),
		metadata => one_of(@METADATA),
	};
	push @{ $self->{seen_grants}{ $account->{billing_id} } }, { %$grant };
	return $grant;
}

sub grant_call
{
	my ($self, $by, $grant) = @_;
	my $arguments = '';
	$arguments .= ", source => '$grant->{source}'"
	  if $grant->{source} ne 'system.buy' || chance(0.1);
	$arguments .= ', description => ' . quoted($grant->{description})
	  if defined $grant->{description};
	$arguments .= ", user_id => ''" if chance(0.1);
	$arguments .= ", metadata => '$grant->{metadata}'" if $grant->{metadata} ne '{}';
	$self->add("SELECT usage_billing.grant_credits('$grant->{id}', $grant->{amount}$arguments" . arguments($by) . ')',
		$self->model->call('grant_credits', $by, $grant));
	return;
}

sub do_grant_credits
{
	my ($self) = @_;
	my $account = $self->some_account;
	my $grant = $self->some_grant($account);

	if (chance(0.05))
	{
		$grant = { %$grant, id => uuid(), amount => one_of(0, -5), bad => '22023' };
	}
	elsif ($account->{balance} > 0 && $account->{state} eq 'active' && chance(0.05))
	{
		$grant = { %$grant, id => uuid(), amount => $INT64_MAX, bad => '22003' };
	}
	$self->grant_call($self->choice($account), $grant);
	return;
}

sub do_account_balance
{
	my ($self) = @_;
	my $by = $self->choice($self->some_account);
	$self->add('SELECT usage_billing.account_balance(' . substr(arguments($by) . '  ', 2) . ')',
		$self->model->call('account_balance', $by));
	return;
}

sub do_total_debited
{
	my ($self) = @_;
	my $by = $self->choice($self->some_account);
	$self->add('SELECT usage_billing.total_debited(' . substr(arguments($by) . '  ', 2) . ')',
		$self->model->call('total_debited', $by));
	return;
}

sub do_account_transactions
{
	my ($self) = @_;
	my $by = $self->choice($self->some_account);
	my ($from, $to) = sort { $a <=> $b } some_time(), some_time();
	my $range = '';

	undef $from if chance(0.5);
	undef $to if chance(0.5);
	$range .= ', "from" => ' . quoted(sql_time($from)) if defined $from;
	$range .= ', "to" => ' . quoted(sql_time($to)) if defined $to;
	$self->add(
		q{SELECT coalesce(string_agg(line, ',' ORDER BY line COLLATE "C"), '') FROM (SELECT }
		  . q{CASE kind WHEN 'revert' THEN concat_ws(' ', kind, type, amount) }
		  . q{ELSE concat_ws(' ', kind, type, amount, id, source) END AS line }
		  . "FROM usage_billing.account_transactions(max_rows => 1000000$range" . arguments($by) . ')) t',
		$self->model->call('account_transactions', $by, $from, $to));
	return;
}

sub do_settings
{
	my ($self) = @_;
	my $account = $self->some_account;
	my ($sql, %settings);

	if (chance(0.6))
	{
		%settings = (credit_min => one_of(0, -500, 100, -int(rand 3000), int(rand 500)));
		$sql = "credit_min = $settings{credit_min}";
	}
	else
	{
		%settings = (state => $account->{state} eq 'closed' || chance(0.5) ? 'active' : 'closed');
		$sql = "state = '$settings{state}'";
	}
	$self->add("UPDATE usage_billing.billing_account SET $sql WHERE billing_id = '$account->{billing_id}'",
		$self->model->call('set_account', $account->{billing_id}, %settings), $self->at($account));
	return;
}

# The same call again, or another setting under the same id.
sub do_create_again
{
	my ($self) = @_;
	my $account = $self->some_account;

	if (chance(0.3))
	{
		my $org_id = chance(0.7) ? "$self->{name}-org" : "$self->{name}-org2";
		$self->create_project("$self->{name}-p", $org_id);
		return;
	}
	$self->create_account(
		billing_id => $account->{billing_id},
		org_id => chance(0.2) ? "$self->{name}-org3" : $account->{org_id},
		credit_min => $account->{credit_min} + (chance(0.2) ? 1 : 0));
	return;
}

# Rows for INSERT and COPY, of one or two accounts.
sub load_rows
{
	my ($self) = @_;
	my @rows;

	for (1 .. one_of(1, 2, 5, 20))
	{
		my $id = one_of(@{ $self->{billing_ids} }[ 0, int rand @{ $self->{billing_ids} } ]);
		my $known = chance(0.2) && $self->again($id);
		$known = changed_usage($known) if $known && chance(0.05);
		my $row = $known || { %{ some_usage() }, billing_id => $id };
		push @{ $self->{seen}{$id} }, $row unless $known;
		push @rows, $row;
	}
	if (chance(0.08))
	{
		my $row = one_of(@rows);
		my $bad = one_of([ amount => -1, '22023' ], [ billing_id => 'nobody', '23503' ],
			[ metadata => '[]', '22023' ], [ source => 's' x 256, '22023' ]);
		push @rows, { %$row, id => uuid(), $bad->[0] => $bad->[1], bad => $bad->[2] };
	}
	return @rows;
}

my @LOAD_COLUMNS =
  qw(billing_id id type amount source description user_id metadata created_at);

sub load_values
{
	my ($row) = @_;
	my %value = %$row;
	$value{source} = uc $value{source} if chance(0.2);
	$value{description} = '' if !defined $value{description} && chance(0.2);
	$value{created_at} = sql_time($value{created_at}) if defined $value{created_at};
	return @value{@LOAD_COLUMNS};
}

sub do_insert_usage
{
	my ($self) = @_;
	my @rows = $self->load_rows;
	$self->add('INSERT INTO usage_billing.usage (' . join(', ', @LOAD_COLUMNS) . ') VALUES '
		  . join(', ', map { '(' . join(', ', map { quoted($_) } load_values($_)) . ')' } @rows),
		$self->model->call('load_usage', @rows));
	return;
}

sub do_copy_usage
{
	my ($self) = @_;
	my @rows = $self->load_rows;
	my $file = sprintf '%s/%s-%d.copy', $self->{directory}, $self->{name}, scalar @{ $self->{ops} };
	my %escaped = ("\\" => "\\\\", "\t" => "\\t", "\n" => "\\n");

	open my $copy, '>', $file or die "$file: $!";
	for my $row (@rows)
	{
		my @values = map { defined $_ ? $_ : undef } load_values($row);
		for my $value (@values)
		{
			if (defined $value) { $value =~ s/([\\\t\n])/$escaped{$1}/g; }
			else { $value = '\N'; }
		}
		print $copy join("\t", @values), "\n";
	}
	close $copy or die "$file: $!";
	$self->add('COPY usage_billing.usage (' . join(', ', @LOAD_COLUMNS) . ") FROM '$file'",
		$self->model->call('load_usage', @rows));
	return;
}

sub do_insert_grant
{
	my ($self) = @_;
	my $account = $self->some_account;
	my $grant = $self->some_grant($account);

	$grant = { %$grant, id => uuid(), amount => 0, bad => '22023' } if chance(0.1);
	$self->add('INSERT INTO usage_billing.credit_grant (billing_id, id, amount, source, description, metadata) VALUES ('
		  . join(', ', map { quoted($_) } @$grant{qw(billing_id id amount source description metadata)}) . ')',
		$self->model->call('load_grant', $account->{billing_id}, $grant));
	return;
}

sub do_insert_revert
{
	my ($self) = @_;
	my $account = $self->some_account;
	my $seen = $self->{seen}{ $account->{billing_id} };
	my $usage = $seen && chance(0.95) && $account->{usage}{ one_of(@$seen)->{id} }
	  || { id => uuid(), amount => 5 };
	my ($times, $before) = UsageModel::reverted($account, $usage->{id});
	my $revert_no = $times + 1;
	my $revert = {
		usage_id => $usage->{id},
		id => chance(0.5) ? uuid() : undef,
		amount => one_of($usage->{amount} - $before, $usage->{amount} - $before + 1, 1),
		description => one_of(@TEXTS),
		metadata => '{}',
	};
	if ($times && chance(0.5))
	{
		$revert_no = int(1 + rand $times);
		$revert = { %{ $account->{revert_row}{"$usage->{id}/$revert_no"} } };
		$revert->{amount}++ if chance(0.2);
	}
	$revert->{bad} = '22023' if $revert->{amount} <= 0;
	push @{ $self->{seen_reverts}{ $account->{billing_id} } }, $revert->{id}
	  if defined $revert->{id};
	$self->add('INSERT INTO usage_billing.usage_revert (billing_id, usage_id, revert_no, id, amount, description, user_id, metadata) VALUES ('
		  . join(', ', map { quoted($_) } $account->{billing_id}, $usage->{id}, $revert_no,
			@$revert{qw(id amount description user_id metadata)}) . ')',
		$self->model->call('load_revert', $account->{billing_id}, $revert_no, $revert));
	return;
}

sub do_fold
{
	my ($self) = @_;
	$self->add('SELECT usage_billing.run_maintenance()', $self->model->call('nothing'));
	return;
}

sub do_rebuild
{
	my ($self) = @_;
	my $account = $self->some_account;
	$self->add("SELECT usage_billing.rebuild('$account->{billing_id}')", $self->model->call('nothing'));
	return;
}

sub do_verify
{
	my ($self) = @_;
	my $account = $self->some_account;
	$self->add("SELECT * FROM usage_billing.verify('$account->{billing_id}')", $self->model->call('nothing'));
	return;
}

sub do_revert_once
{
	my ($self) = @_;
	return $self->do_account_balance if $self->model->{savepoints};
	my $on = chance(0.5) ? 1 : 0;
	$self->model->{revert_once} = $on;
	$self->add('SET usage_billing.revert_once = ' . ($on ? 'on' : 'off'), UsageModel::success(''));
	return;
}

my @KINDS = (
	(qw(create_usage)) x 40, (qw(revert_usage)) x 16, (qw(grant_credits)) x 7,
	(qw(account_balance)) x 6, (qw(total_debited)) x 3, (qw(account_transactions)) x 3,
	(qw(settings)) x 4, (qw(insert_usage)) x 5, (qw(copy_usage)) x 3,
	(qw(insert_grant)) x 2, (qw(insert_revert)) x 3, (qw(fold)) x 3,
	qw(create_again rebuild verify revert_once));

# The statements around: transactions, savepoints.
sub do_transaction
{
	my ($self) = @_;
	my $model = $self->model;

	if (!$model->{savepoints})
	{
		$self->add('BEGIN', $model->begin) if chance(0.04);
	}
	elsif (@{ $model->{savepoints} } && chance($model->{aborted} ? 0.6 : 0.1))
	{
		$self->add('ROLLBACK TO SAVEPOINT s', $model->rollback_to);
	}
	elsif ($model->{aborted} || chance(0.2))
	{
		my $commit = chance(0.7);
		$self->add($commit ? 'COMMIT' : 'ROLLBACK', $model->finish($commit));
	}
	elsif (chance(0.2))
	{
		$self->add('SAVEPOINT s', $model->savepoint);
	}
	elsif (@{ $model->{savepoints} } && chance(0.1))
	{
		$self->add('RELEASE SAVEPOINT s', $model->release);
	}
	return;
}

my @ROUTED_KINDS = grep { !/^(?:(?:insert|copy)_|revert_once$)/ } @KINDS;

sub step
{
	my ($self) = @_;
	my $kind = one_of($self->{routed} ? @ROUTED_KINDS : @KINDS);
	my $do = "do_$kind";
	$self->do_transaction unless $self->{routed};

	# a transaction that keeps two kinds of locks may deadlock with others
	$do = 'do_create_usage'
	  if $self->model->{savepoints} && !$self->{alone} && $kind =~ /^(?:fold|rebuild)$/;
	$self->$do;
	return;
}

# Ends an open transaction; what was done stands.
sub settle
{
	my ($self) = @_;
	$self->add('COMMIT', $self->model->finish(1)) if $self->model->{savepoints};
	return;
}

1;
