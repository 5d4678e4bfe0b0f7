# What a client of the mixed load asks for: random statements, each with the
# facts that are there once it succeeded and the SQLSTATEs that it may meet.
# Each can be repeated as it is until its outcome is known.
#
# A step: sql; facts (lines as Load makes them of the tables); may (it failed for
# good, nothing of it is there); again (so much for now: repeat it); must (it has
# to fail so); is_load (COPY or INSERT, where a deadlock is nothing wrong); fresh
# (23505 on a repetition says that it was stored); check (a complaint about the
# answer, or none); done (tells the client that it was stored); probe (table and
# ids of its own, for looking whether it was stored); moves (accounts, and by how
# much it changes their balances); answers (the account whose balance it tells).
package LoadSteps;

use strict;
use warnings;
use Digest::MD5 qw(md5_hex);
use JSON::PP;
use Time::HiRes qw(time);

use UsageInput;

# credit is short, credit_min only falls, and nothing but create_usage takes
# credits: so no snapshot may show one under its credit_min
our @TIGHT = map { "tight-$_" } 1 .. 3;
# anything goes
our @LOOSE = map { "loose-$_" } 1 .. 3;
# closed now and then
our $DOOR = 'door';

my @KEPT = (300, 40);    # how many usages and files of its own a client thinks of
my @SOURCES = qw(api render system vod_streams transcoders);
my $json = JSON::PP->new->utf8;

# How often each is asked for.
my %WEIGHTS = (
	use => 34, use_pool => 10, repeat => 5, conflict => 3, load => 7, load_pool => 4, grant => 9, load_grant => 2,
	revert => 8, revert_pool => 4, load_revert => 2, revert_more => 1, floor => 2, door => 2, account => 2,
	project => 1, period => 1, files => 8, own_files => 4, refresh => 3, recount => 1, maintain => 1, rebuild => 1,
	read => 8);

sub some_step
{
	my ($client, %but) = @_;
	my $sum = 0;
	my @kinds = grep { !$but{$_} } sort keys %WEIGHTS;
	$sum += $WEIGHTS{$_} for @kinds;

	for (1 .. 100)
	{
		my $at = rand $sum;
		my $kind;
		for (@kinds)
		{
			$kind = $_;
			last if ($at -= $WEIGHTS{$_}) < 0;
		}
		my $step = main_step($client, $kind) or next;
		return { may => [], again => [], facts => [], probe => [], moves => [], answers => '', %$step, kind => $kind };
	}
	die 'nothing to do';
}

sub main_step
{
	my ($client, $kind) = @_;
	no strict 'refs';
	return &{"step_$kind"}($client);
}

# ---------------------------------------------------------------------------
# Usages

sub some_account
{
	my ($client) = @_;
	my $own = $client->{accounts};
	my $at = rand;

	return one_of(@TIGHT) if $at < 0.5;
	return one_of(@$own) if $at < 0.65 && @$own;
	return $at < 0.75 ? $DOOR : one_of(@LOOSE);
}

# Where credits may be taken without asking.
sub open_account
{
	my ($client) = @_;
	return one_of(@LOOSE, @LOOSE, $DOOR, @{ $client->{accounts} });
}

# Perl's own random numbers, so that a seed means the same again.
sub shuffle
{
	my (@all) = @_;
	return map { splice @all, int rand @all, 1 } 1 .. @all;
}

sub is_tight { return $_[0] =~ /^tight/; }

sub usage
{
	my ($account, %p) = @_;
	my $usage = { account => $account, metadata => '{}', %p };

	if ($usage->{type} eq 'feature' && $usage->{source} =~ /^(?:vod_streams|transcoders)$/)
	{
		my $seconds = $usage->{seconds} // int rand 1000;
		$usage->{metadata} = qq({"viewing_seconds": $seconds});
	}
	return $usage;
}

sub new_usage
{
	my ($account, $type) = @_;
	return usage($account, id => uuid(), type => $type // (chance(0.75) ? 'credit' : 'feature'), source => one_of(@SOURCES),
		amount => one_of(0, 1, 1 + int rand 30, 1 + int rand 30), created => chance(0.3) ? some_time() : undef);
}

# One that other clients send in the same moment, and others after them.
sub pool_usage
{
	my ($client, $account, $type) = @_;
	my $n = int((time - $client->{began}) * 8) - int rand 12;
	my $md5 = md5_hex("$client->{seed} $account $n");
	my $own = hex substr $md5, 0, 6;

	return usage($account, id => join('-', unpack 'A8 A4 A4 A4 A12', $md5), pool => 1, amount => 1 + $own % 25,
		type => $type // ($own % 4 ? 'credit' : 'feature'), source => $SOURCES[ $own % @SOURCES ], seconds => $own % 600);
}

sub usage_line
{
	my ($usage) = @_;
	return join '|', 'usage', @$usage{qw(account id type amount source metadata)}, $usage->{created} // 'now';
}

sub usage_json
{
	my ($usage) = @_;
	my $created = defined $usage->{created} ? sprintf ', "created_at": "%s"', sql_time($usage->{created}) =~ s/ /T/r =~ s/\+00$/Z/r : '';
	return qq({"id": "$usage->{id}", "amount": $usage->{amount}, "type": "$usage->{type}", "source": "$usage->{source}", )
	  . qq("metadata": $usage->{metadata}$created});
}

my $USAGE_COLUMNS = 'billing_id, id, type, amount, source, metadata, created_at';

sub usage_values
{
	my ($usage) = @_;
	return (@$usage{qw(account id type amount source metadata)},
		defined $usage->{created} ? sql_time($usage->{created}) : undef);
}

sub usage_move { return $_[0]{type} eq 'credit' ? -$_[0]{amount} : 0; }

# Notes usages as stored, for reverts and repetitions.
sub keep_usages
{
	my ($client, @usages) = @_;
	my $kept = $client->{usages};

	push @$kept, map { { %$_, left => $_->{amount}, reverts => 0 } } grep { !$_->{pool} } @usages;
	splice @$kept, 0, @$kept - $KEPT[0] if @$kept > $KEPT[0];
	return;
}

# The own ones are counted as new at first, later all or none of them.
sub check_created
{
	my ($client, $out, $retried, @usages) = @_;
	my $own = grep { !$_->{pool} } @usages;
	my $answer = eval { $json->decode($out) } or return "answered $out";
	my ($created, $duplicates) = @$answer{qw(created duplicates)};

	return 'doesn\'t count each element once' if $created + $duplicates != @usages;
	return 'stored the own ones in part' if $own == @usages && $created != $own && !($retried && $created == 0);
	return "took own ones for known: $out" if !$retried && $created < $own;
	return '';
}

sub use_step
{
	my ($client, $account, @usages) = @_;
	my $list = join ', ', map { usage_json($_) } @usages;

	return {
		sql => "SELECT usage_billing.create_usage('[$list]', '$account')",
		facts => [ map { usage_line($_) } @usages ],
		probe => [ map { [ 'usage', 'id', $account, $_->{id} ] } grep { !$_->{pool} } @usages ],
		moves => [ map { [ $account, usage_move($_) ] } @usages ],
		answers => $account,
		may => [ (grep { $_->{type} eq 'credit' } @usages) ? 'UB001' : (), $account eq $DOOR ? 'UB003' : () ],
		check => sub { return check_created($client, $_[0], $_[2], @usages); },
		done => sub { return keep_usages($client, @usages); },
	};
}

sub step_use
{
	my ($client) = @_;
	my $account = some_account($client);
	return use_step($client, $account, map { new_usage($account) } 1 .. one_of(1, 1, 1, 1, 2, 3, 8, 30));
}

# Each of them once: a call's own repetitions are counted as duplicates.
sub step_use_pool
{
	my ($client) = @_;
	my $account = one_of(@TIGHT, @LOOSE, $DOOR);
	my %pool = map { $_->{id} => $_ } map { pool_usage($client, $account) } 1 .. one_of(1, 2, 5, 9);
	my @own = chance(0.3) ? new_usage($account) : ();
	return use_step($client, $account, shuffle((map { $pool{$_} } sort keys %pool), @own));
}

# A pure repetition always succeeds.
sub step_repeat
{
	my ($client) = @_;
	my @usages = known($client) or return;
	my $account = $usages[0]{account};
	return {
		sql => "SELECT usage_billing.create_usage('[" . join(', ', map { usage_json($_) } @usages) . "]', '$account')",
		answers => $account,
		check => sub {
			my ($out) = @_;
			return $out =~ /"created": 0, "duplicates": ${\scalar @usages}\}/ ? '' : "took a known usage for new: $out";
		},
	};
}

# Some usages of its own in one account that are stored.
sub known
{
	my ($client) = @_;
	my $kept = $client->{usages};

	return unless @$kept;
	my $account = one_of(@$kept)->{account};
	my @all = grep { $_->{account} eq $account } @$kept;
	return @all[ -(@all < 3 ? @all : 3) .. -1 ];
}

sub step_conflict
{
	my ($client) = @_;
	my ($usage) = known($client) or return;
	my %other = (%$usage, amount => $usage->{amount} + 1);

	return {
		sql => chance(0.5)
		? "SELECT usage_billing.create_usage('[" . usage_json(\%other) . "]', '$usage->{account}')"
		: insert('usage', $USAGE_COLUMNS, [ usage_values(\%other) ]),
		must => '23505',
	};
}

sub insert
{
	my ($table, $columns, @rows) = @_;
	return "INSERT INTO usage_billing.$table ($columns) VALUES "
	  . join ', ', map { '(' . join(', ', map { quoted($_) } @$_) . ')' } @rows;
}

# COPY or INSERT, in any order of rows.
sub load_step
{
	my ($client, @usages) = @_;
	my @rows = map { [ usage_values($_) ] } @usages;
	my $own = grep { !$_->{pool} } @usages;
	my ($sql, $file);

	if (chance(0.5))
	{
		$sql = insert('usage', $USAGE_COLUMNS, @rows);
	}
	else
	{
		$file = "$client->{base}-" . ++$client->{loads} . '.copy';
		open my $copy, '>', $file or die "$file: $!";
		print $copy map { join("\t", map { $_ // '\N' } @$_) . "\n" } @rows;
		close $copy or die "$file: $!";
		$sql = "COPY usage_billing.usage ($USAGE_COLUMNS) FROM '$file'";
	}
	return {
		sql => $sql,
		facts => [ map { usage_line($_) } @usages ],
		probe => [ map { [ 'usage', 'id', @$_{qw(account id)} ] } grep { !$_->{pool} } @usages ],
		moves => [ map { [ $_->{account}, usage_move($_) ] } @usages ],
		is_load => 1,
		again => [ $own < @usages ? '23505' : () ],
		check => sub {
			my ($out, $rows, $retried) = @_;
			return $rows >= $own && $rows <= @usages || ($retried && $own == @usages && $rows == 0)
			  || ($retried && $own < @usages) ? '' : "stored $rows of " . @usages;
		},
		done => sub { return keep_usages($client, @usages); },
	};
}

sub step_load
{
	my ($client) = @_;
	my @usages = map { my $account = chance(0.2) ? one_of(@TIGHT) : open_account($client);
		new_usage($account, is_tight($account) ? 'feature' : undef) } 1 .. one_of(1, 2, 10, 60);
	return load_step($client, @usages);
}

sub step_load_pool
{
	my ($client) = @_;
	my $account = one_of(@TIGHT, @LOOSE);
	my %pool = map { $_->{id} => $_ } grep { !is_tight($account) || $_->{type} eq 'feature' }
	  map { pool_usage($client, $account) } 1 .. 8;
	my @ids = sort keys %pool or return;
	return load_step($client, @pool{ shuffle(@ids) });
}

# ---------------------------------------------------------------------------
# Grants, reverts and accounts

sub step_grant
{
	my ($client) = @_;
	my ($account, $id, $amount) = (some_account($client), uuid(), 1 + int rand 150);
	return {
		sql => "SELECT usage_billing.grant_credits('$id', $amount, '$account', source => 'gift')",
		facts => ["grant|$account|$id|$amount|gift"],
		probe => [ [ 'credit_grant', 'id', $account, $id ] ],
		moves => [ [ $account, $amount ] ],
		answers => $account,
		may => [ $account eq $DOOR ? 'UB003' : () ],
		check => sub { return $_[2] || $_[0] =~ /"duplicate": false/ ? '' : "took it for known: $_[0]"; },
	};
}

sub step_load_grant
{
	my ($client) = @_;
	my @rows = map { [ some_account($client), uuid(), 1 + int rand 60, 'gift' ] } 1 .. one_of(1, 2, 5);
	return {
		sql => insert('credit_grant', 'billing_id, id, amount, source', @rows),
		facts => [ map { join '|', 'grant', @$_ } @rows ],
		probe => [ map { [ 'credit_grant', 'id', @$_[ 0, 1 ] ] } @rows ],
		moves => [ map { [ @$_[ 0, 2 ] ] } @rows ],
		is_load => 1,
	};
}

# A usage of its own of which something is left; nobody else reverts it, and
# the client not in the same transaction again.
sub revertible
{
	my ($client) = @_;
	my @some = grep { $_->{left} > 0 && !$client->{busy}{ $_->{id} } } @{ $client->{usages} };

	return unless @some;
	my $usage = one_of(@some);
	$client->{busy}{ $usage->{id} } = 1;
	return $usage;
}

sub reverted
{
	my ($usage, $amount) = @_;
	$usage->{left} -= $amount;
	$usage->{reverts}++;
	return;
}

sub revert_move
{
	my ($usage, $amount) = @_;
	return [ $usage->{account}, $usage->{type} eq 'credit' ? $amount : 0 ];
}

sub revert_line
{
	my ($account, $usage_id, $no, $id, $amount) = @_;
	return join '|', 'revert', $account, $usage_id, $no, $id, $amount;
}

sub step_revert
{
	my ($client) = @_;
	my $usage = revertible($client) or return;
	my $amount = chance(0.5) ? $usage->{left} : 1 + int rand $usage->{left};
	my $id = uuid();

	return {
		sql => "SELECT usage_billing.revert_usage('$usage->{id}', $amount, '$usage->{account}', id => '$id')",
		facts => [ revert_line($usage->{account}, $usage->{id}, $usage->{reverts} + 1, $id, $amount) ],
		probe => [ [ 'usage_revert', 'id', $usage->{account}, $id ] ],
		moves => [ revert_move($usage, $amount) ],
		answers => $usage->{account},
		check => sub { return $_[2] || $_[0] =~ /"duplicate": false/ ? '' : "took it for known: $_[0]"; },
		done => sub { return reverted($usage, $amount); },
	};
}

sub step_load_revert
{
	my ($client) = @_;
	my $usage = revertible($client) or return;
	my $amount = 1 + int rand $usage->{left};
	my ($no, $id) = ($usage->{reverts} + 1, uuid());

	return {
		sql => insert('usage_revert', 'billing_id, usage_id, revert_no, id, amount', [ $usage->{account}, $usage->{id}, $no, $id, $amount ]),
		facts => [ revert_line($usage->{account}, $usage->{id}, $no, $id, $amount) ],
		probe => [ [ 'usage_revert', 'id', $usage->{account}, $id ] ],
		moves => [ revert_move($usage, $amount) ],
		is_load => 1,
		done => sub { return reverted($usage, $amount); },
	};
}

sub step_revert_more
{
	my ($client) = @_;
	my $usage = revertible($client) or return;
	my $amount = $usage->{left} + 1;
	return {
		sql => "SELECT usage_billing.revert_usage('$usage->{id}', $amount, '$usage->{account}')",
		must => 'UB002',
	};
}

# Whoever comes first; the others send the same.
sub step_revert_pool
{
	my ($client) = @_;
	my $account = one_of(@TIGHT, @LOOSE);
	my $usage = pool_usage($client, $account);
	my $id = $usage->{id} =~ tr/0-9a-f/1-9a-f0/r;
	return {
		sql => "SELECT usage_billing.revert_usage('$usage->{id}', $usage->{amount}, '$account', id => '$id')",
		facts => [ revert_line($account, $usage->{id}, 1, $id, $usage->{amount}) ],
		may => ['PT404'],
	};
}

sub step_floor
{
	my ($client) = @_;
	my $account = one_of(@TIGHT, @LOOSE);
	my $to = is_tight($account) ? 'least(credit_min, ' . -int(rand 60) . ')' : one_of(-1_000_000_000, -100, 0, 50, -1_000_000_000);
	return { sql => "UPDATE usage_billing.billing_account SET credit_min = $to WHERE billing_id = '$account'" };
}

sub step_door
{
	my ($client) = @_;
	return { sql => "UPDATE usage_billing.billing_account SET state = '" . one_of('active', 'active', 'closed') . "' WHERE billing_id = '$DOOR'" };
}

sub step_account
{
	my ($client) = @_;
	my $account = "own-$client->{name}-" . ++$client->{opened};
	return {
		sql => "SELECT usage_billing.create_billing_account('org-$client->{name}', '$account', -100000)",
		facts => ["account|$account|org-$client->{name}"],
		probe => [ [ 'billing_account', 'org_id', $account, "org-$client->{name}" ] ],
		done => sub {
			push @{ $client->{accounts} }, $account;
			shift @{ $client->{accounts} } if @{ $client->{accounts} } > 4;
			$client->{balance}{$account} = 0;
		},
	};
}

sub step_project
{
	my ($client) = @_;
	my $project = "project-$client->{name}-" . ++$client->{opened};
	return {
		sql => "SELECT usage_billing.create_project('$project', 'org-$client->{name}')",
		facts => ["project|$project|org-$client->{name}"],
		done => sub { $client->{projects}++; },
	};
}

sub step_period { return { sql => "SELECT usage_billing.close_billing_period(billing_id => '" . some_account($_[0]) . "')" }; }

# ---------------------------------------------------------------------------
# Files. A client has an organisation of its own in the table that is for all,
# and a table of its own.

sub file_line
{
	my ($table, $id, $file) = @_;
	return "file|$table|$id" . ($file ? '|' . join '|', @$file : '');
}

sub keep_files
{
	my ($client, $table, %files) = @_;
	for my $id (keys %files)
	{
		if ($files{$id}) { $client->{files}{$table}{$id} = $files{$id}; }
		else { delete $client->{files}{$table}{$id}; }
	}
	return;
}

sub files_step
{
	my ($client, $table, $columns) = @_;
	my @known = sort keys %{ $client->{files}{$table} };
	my %files;
	my ($sql, $fresh);
	my $list = sub { return join ', ', map { quoted($_) } @_; };

	if (@known < $KEPT[1] && chance(0.5) || !@known)
	{
		%files = map { "$client->{name}-" . ++$client->{filed} => [ one_of(qw(image video text)), int rand 100000, int rand 600 ] } 1 .. one_of(1, 1, 4, 12);
		$sql = "INSERT INTO $table ($columns) VALUES "
		  . join ', ', map { '(' . $list->($_, "org-$client->{name}", @{ $files{$_} }) . ')' } sort keys %files;
		$fresh = 1;
	}
	else
	{
		my ($key, undef, $kind, $bytes) = split /, /, $columns;
		my @some = @known[ map { int rand @known } 1 .. one_of(1, 1, 3, 8) ];
		if (chance(0.5))
		{
			%files = map { $_ => undef } @some;
			$sql = "DELETE FROM $table WHERE $key IN (" . $list->(@some) . ')';
		}
		else
		{
			my @new = (one_of(qw(image video text)), int rand 100000);
			%files = map { $_ => [ @new, $client->{files}{$table}{$_}[2] ] } @some;
			$sql = "UPDATE $table SET $kind = '$new[0]', $bytes = $new[1] WHERE $key IN (" . $list->(@some) . ')';
		}
	}
	return {
		sql => $sql,
		fresh => $fresh,
		facts => [ map { file_line($table, $_, $files{$_}) } sort keys %files ],
		done => sub { return keep_files($client, $table, %files); },
	};
}

sub step_files
{
	my ($client) = @_;
	return files_step($client, 'usage_billing.stored_file', 'file_id, org_id, kind, bytes, duration_seconds');
}

sub step_own_files
{
	my ($client) = @_;
	my $table = "files_$client->{name}";

	return files_step($client, $table, 'name, org, kind, size, seconds') unless chance(0.1);
	return {
		sql => "TRUNCATE $table",
		facts => ["emptied|$table"],
		done => sub { $client->{files}{$table} = {}; },
	};
}

# What the organisation's files have to add up to, as this client knows them.
sub storage_step
{
	my ($client, $function) = @_;
	my @sums = ($client->{projects}, 0, 0, 0, 0, 0, 0);

	for my $file (map { values %$_ } values %{ $client->{files} })
	{
		my ($kind, $bytes) = @$file;
		my $at = $kind eq 'image' ? 1 : $kind eq 'video' ? 3 : undef;
		$sums[5]++;
		$sums[6] += $bytes;
		next unless $at;
		$sums[$at]++;
		$sums[ $at + 1 ] += $bytes;
	}
	my $sums = join ' ', @sums;
	return {
		sql => "SELECT concat_ws(' ', project_count, image_file_count, image_storage_bytes, video_file_count, video_storage_bytes, total_file_count, total_storage_bytes)"
		  . " FROM usage_billing.$function('org-$client->{name}')",
		check => sub { return $_[0] eq $sums ? '' : "counted $_[0], but there are $sums"; },
	};
}

sub step_refresh { return storage_step($_[0], 'refresh_storage_usage'); }
sub step_recount { return storage_step($_[0], 'recount_storage_usage'); }

# ---------------------------------------------------------------------------
# Maintenance and reading

sub step_maintain { return { sql => 'SELECT usage_billing.run_maintenance()' }; }
sub step_rebuild { return { sql => "SELECT usage_billing.rebuild('" . some_account($_[0]) . "')" }; }

sub step_read
{
	my ($client) = @_;
	my $account = some_account($client);
	my $by = "billing_id => '$account'";
	return one_of(
		{ sql => "SELECT usage_billing.account_balance($by)", answers => $account },
		{ sql => "SELECT usage_billing.total_debited($by)" },
		{ sql => "SELECT count(*) FROM usage_billing.account_transactions(max_rows => 50, $by)" },
		{ sql => "SELECT usage_billing.account_usage_trend('2024-03-01', '2024-03-07', include => 'trend', $by)" },
		{ sql => "SELECT count(*) FROM usage_billing.usage_series('2024-03-01 00:00:00Z', '2024-03-07 00:00:00Z', $by)" },
		{ sql => "SELECT count(*) FROM usage_billing.verify('$account')",
			check => sub { return $_[0] eq '0' ? '' : "verify finds $_[0] differences"; } });
}

1;
