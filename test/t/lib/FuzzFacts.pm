# Hostile documents for the functions and the tables that store usages, grants
# and reverts: the call, what may come of it, and its arguments.
package FuzzFacts;

use strict;
use warnings;
use FuzzValue;

# What a call may answer to a document that nobody knows: the contract's codes,
# and what the server says to values that aren't of the parameter's type.
our $CASTS = 'c22P02 c22P05 c22003 c54001 c54000 c22007 c22008 c22009 c22023';
our $CHOICE = '22023 PT404';
my $CREATE = "00000 $CHOICE 22P02 22003 22007 UB001 UB003 23505 $CASTS";
my $COPY = '00000 22023 22003 23502 23503 23505 22P02 22P03 22P04 22P05 22007 22008 22009 22021 54001';

my %COPY_ESCAPES = ("\\" => '\\\\', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t');

# directory: where files for COPY are left. The accounts of worker w are fw
# (with the project pw of organisation ow), fwbig for large sums, fwpoor with 10
# credits and fwclosed.
sub new
{
	my ($class, $worker, $directory) = @_;
	return bless { worker => $worker, directory => $directory, n => 0, usages => [], reverted => [], known => [], files => [] }, $class;
}

# What has to be there before: SQL.
sub setup
{
	my ($self) = @_;
	my $w = $self->{worker};
	my $id = uuid_for(0xffff, $w, 1);

	return <<"SQL";
SELECT usage_billing.create_billing_account('o$w', 'f$w', -9000000000000000000);
SELECT usage_billing.create_billing_account('obig$w', 'f${w}big', -9223372036854775808);
SELECT usage_billing.create_billing_account('opoor$w', 'f${w}poor');
SELECT usage_billing.create_billing_account('oclosed$w', 'f${w}closed', -1000);
SELECT usage_billing.create_project('p$w', 'o$w');
SELECT usage_billing.grant_credits('$id', 10, 'f${w}poor');
SELECT usage_billing.create_usage('[{"id": "$id", "amount": 5, "source": "base"}]', 'f$w');
SELECT usage_billing.create_usage('[{"id": "$id", "amount": 5}]', 'f${w}closed');
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'f${w}closed';
SQL
}

# Whether the session has usage_billing.revert_once off.
sub reverts_often { return $_[0]{worker} % 2 == 0; }

# An id of this document's own; of nobody's where it will be changed, or where
# nobody can foretell whether it is stored.
sub id
{
	my ($self, $k) = @_;
	return uuid_for($self->{nobody} ? 0xeeee : $self->{worker}, $self->{n}, $k // 0);
}

# The arguments billing_id, org_id, project_id, and what is said about them.
sub choice
{
	my ($self) = @_;
	my $w = $self->{worker};

	return ([ "f$w", undef, undef ], '') if chance(0.85);
	return @{
		any(
			[ [ undef, "o$w", undef ], '' ], [ [ undef, undef, "p$w" ], '' ], [ [ "f$w", "o$w", '' ], '' ], [ [ "f$w", '', "p$w" ], '' ],
			[ [ undef, undef, undef ], '22023' ], [ [ '', '', '' ], '22023' ], [ [ undef, "o$w", "p$w" ], '22023' ], [ [ "f$w", "o$w", "p$w" ], '22023' ],
			[ [ "f$w", "obig$w", undef ], '22023' ], [ [ "f${w}big", undef, "p$w" ], '22023' ], [ [ uc "f$w", undef, undef ], 'PT404' ]) }
	  if one_in(2);
	my @ids = (undef, undef, undef);
	my $code;
	($ids[ int rand 3 ], $code) = some_account_id('PT404');
	return (\@ids, $code);
}

# ---------------------------------------------------------------------------
# create_usage

# An element: its JSON, what is said about it, and what is stored if all is well.
sub element
{
	my ($self, $k, $account, $large) = @_;
	my $uuid = $self->id($k);
	my ($id, $id_code) = some_uuid($uuid);
	my ($amount, $amount_code) = number_amount($large);
	my @codes = ($id_code, $amount_code);
	my @pairs = ([ id => $id ], [ amount => $amount ]);
	my ($type, $source) = ('credit', 'system');
	my $add = sub { my ($key, $value, $code) = @_; push @pairs, [ $key => $value ]; push @codes, $code; };

	if (one_in(2))
	{
		$type = any('credit', 'feature', 'feature');
		$add->(type => one_in(40) ? (any(wrong_type('string', 'null'), '"mArKeR"', '"Credit"', '"credit\\u0001"'), '22023') : (qq("$type"), ''));
	}
	if ($type eq 'feature' && one_in(2))
	{
		$source = any('transcoders', 'vod_streams', 'Vod_Streams');
		$add->(source => qq("$source"), '');
		$add->(metadata => some_measures($large)) if one_in(2);
	}
	else
	{
		for my $key (qw(source user_id))
		{
			next unless one_in(3);
			my ($text, $code) = some_text(255);
			# in lower case it may have more bytes
			$code ||= '?22023' if $key eq 'source' && length $text > 170 && $text =~ /[\x80-\xff]/;
			$add->($key => one_in(60) ? (wrong_type('string', 'null'), '22023') : (json_string($text), $code));
		}
		$add->(metadata => some_metadata()) if one_in(3);
	}
	if (one_in(5))
	{
		my ($text, $code) = some_text(4096);
		$add->(description => json_string($text), $code);
	}
	$add->(created_at => some_json_time()) if one_in(3);
	$add->(updated_at => json_value(2), '') if one_in(25);
	if (one_in(25))
	{
		my ($text, $code) = any([ $account, '' ], [ '', '' ], [ 'mArKeR', '22023' ], [ "$account ", '22023' ], [ 'x' x 256, '22023' ])->@*;
		$add->(customer_id => json_string($text), $code);
	}
	$add->(any(qw(type source user_id description created_at customer_id metadata)) => 'null', '') if one_in(12) && @pairs == 2;
	$add->(json_inside(any('mArKeR', 'Amount', '', 'billing_id', 'createdAt', "id\x01", 'x' x 300)), json_value(1), '22023') if one_in(60);
	if (one_in(60))
	{
		# of two values of one key the last one holds
		my $twice = any(@pairs);
		unshift @pairs, [ $twice->[0] => json_value(1) ];
	}
	if (one_in(80))
	{
		my $gone = int rand 2;
		@pairs = grep { $_->[0] ne ('id', 'amount')[$gone] } @pairs;
		push @codes, '22023';
	}
	my $json = '{' . join(any(', ', ',', ",\n\t"), map { qq("$_->[0]": $_->[1]) } @pairs) . '}';
	my $plain = { id => $uuid, type => $type, amount => $amount };
	return ($json, join(' ', @codes), $plain);
}

# A text as the inside of a JSON string.
sub json_inside
{
	return substr json_string($_[0]), 1, -1;
}

# Changes a few letters of a document.
sub mutated
{
	my ($text) = @_;
	utf8::decode($text);
	for (1 .. 1 + rand 4)
	{
		my $at = int rand(1 + length $text);
		my $how = int rand 5;
		if ($how == 0) { substr($text, $at, 1 + int rand 3) = ''; }
		elsif ($how == 1) { substr($text, $at, 0) = any('"', '\\', '{', '}', '[', ']', ',', ':', '0', '-', 'e', '.', ' ', '\\u0000', "\x01", 'null'); }
		elsif ($how == 2 && $at < length $text) { substr($text, $at, 1) = chr(1 + rand 126); }
		elsif ($how == 3) { substr($text, $at, 0) = substr $text, int(rand length $text), int rand 20; }
		elsif ($how == 4 && $at < length $text) { substr($text, $at, 1) =~ tr/0-9a-z"{}[]/1-9a-y:{[]}'/; }
	}
	utf8::encode($text);
	return $text;
}

sub create_usage
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($choice, $choice_code) = $self->choice;
	my $large = one_in(30);
	my @codes;
	local $self->{nobody} = one_in(20);

	if ($large)
	{
		$choice = [ "f${w}big", undef, undef ];
		$choice_code = '?22003 ?UB001';
	}
	my $size = one_in(2) ? 1 : one_in(50) ? any(0, 0, 100, 300) : int rand 6;
	my (@elements, @stored);
	for my $k (0 .. $size - 1)
	{
		my ($json, $code, $plain) = $self->element($k, $choice->[0] // '', $large);
		push @elements, $json;
		push @codes, $code;
		push @stored, $plain;
	}
	if (one_in(40))
	{
		push @elements, any([ wrong_type('object'), '22023' ])->[0];
		push @codes, '22023';
	}
	my $json = '[' . join(any(', ', ',', "\n,"), @elements) . ']';

	return ('create_usage', $CREATE, mutated($json), @$choice) if $self->{nobody};
	if (one_in(40))
	{
		my ($broken, $code) = broken_json();
		return ('create_usage', expected($code), qq([{"id": "@{[$self->id]}", "amount": 1, "updated_at": $broken}]), @$choice);
	}
	my $expected = expected($choice_code, @codes);
	push @{ $self->{usages} }, @stored if $expected eq '00000' && $size == 1 && $choice->[0] && $choice->[0] eq "f$w";
	return ('create_usage', $expected, $json, @$choice);
}

# What isn't an array of new usages.
sub create_usage_other
{
	my ($self) = @_;
	my $w = $self->{worker};
	my $id = $self->id;
	my $base = uuid_for(0xffff, $w, 1);

	return (
		'create_usage',
		@{
			any(
				[ '22023', wrong_type('array'), "f$w" ], [ '22023', 'null', "f$w" ], [ '22023', undef, "f$w" ], [ '00000', '[]', "f$w" ],
				[ '22023', nested(any(10, 1000)), "f$w" ], [ '22023 c54001', nested(10000), "f$w" ], [ 'c54001', '[' x 200000 . ']' x 200000, "f$w" ],
				[ '22023', qq([[{"id": "$id", "amount": 1}]]), "f$w" ], [ '22023', '[' . join(',', ('{}') x 10001) . ']', "f$w" ],
				[ '00000', qq([{"id": "$base", "amount": 5, "source": "BASE"}, {"id": "$base", "amount": "5", "source": "base"}]), "f$w" ],
				[ '23505', qq([{"id": "$base", "amount": 6, "source": "base"}]), "f$w" ], [ '23505', qq([{"id": "$base", "amount": 5, "source": "mArKeR"}]), "f$w" ],
				[ '23505', qq([{"id": "$id", "amount": 1}, {"id": "$id", "amount": 2}]), "f$w" ],
				[ '00000', qq([{"id": "$id", "amount": 1}, {"id": "$id", "amount": 1}]), "f$w" ],
				[ 'UB001', qq([{"id": "$id", "amount": 11}]), "f${w}poor" ], [ 'UB001', qq([{"id": "$id", "amount": $INT64_MAX}]), "f${w}poor" ],
				[ 'UB001 22003', qq([{"id": "$id", "amount": $INT64_MAX}, {"id": "@{[$self->id(1)]}", "amount": $INT64_MAX}]), "f${w}poor" ],
				[ 'UB003', qq([{"id": "$id", "amount": 1}]), "f${w}closed" ], [ '00000', qq([{"id": "$base", "amount": 5}]), "f${w}closed" ]) },
		undef,
		undef);
}

# ---------------------------------------------------------------------------
# Facts that come by INSERT and COPY

# The columns of a usage and what is said about them.
sub usage_row
{
	my ($self, $k) = @_;
	my $w = $self->{worker};
	my ($billing, $billing_code) = one_in(30) ? some_account_id('23503') : ("f$w", '');
	($billing, $billing_code) = @{ any([ '', '22023' ], [ undef, '23502' ]) } if one_in(60);
	my ($amount, $amount_code) = some_bigint(0);
	($amount, $amount_code) = (undef, '23502') if one_in(60);
	my ($source, $source_code) = one_in(2) ? (undef, '') : some_text(255);
	$source_code ||= '?22023' if defined $source && length $source > 170;
	my ($type, $type_code) = @{ any([ undef, '' ], [ 'credit', '' ], [ 'credit', '' ], one_in(20) ? [ any('mArKeR', '', 'Credit'), 'c22P02' ] : [ 'feature', '' ]) };
	my ($metadata, $metadata_code) = one_in(2) ? (undef, '') : some_metadata();
	if (($type // '') eq 'feature' && one_in(2))
	{
		($source, $source_code) = (any('vod_streams', 'TRANSCODERS'), '');
		($metadata, $metadata_code) = some_measures(0);
	}
	my ($description, $description_code) = one_in(3) ? some_text(4096) : (undef, '');
	my ($user, $user_code) = one_in(3) ? some_text(255) : (undef, '');
	my ($created, $created_code) = one_in(2) ? (undef, '') : some_time();
	$created_code = $created_code eq 'infinite' ? '22023' : $created_code eq 'far' ? '' : $created_code;
	my ($id, $id_code) = one_in(30) ? (any('mArKeR', '', '0'), 'c22P02') : ($self->id($k), '');
	# the server itself looks for nulls, after the trigger
	my @codes = ($billing_code, $amount_code, $source_code, $type_code, $metadata_code, $description_code, $user_code, $created_code, $id_code);
	@codes = ('23502', grep { /^c/ } @codes) if grep { $_ eq '23502' } @codes;
	return ([ $billing, $id, $type, $amount, $source, $description, $user, $metadata, $created, undef ], join ' ', @codes);
}

sub insert_usage
{
	my ($self) = @_;
	my ($row, $codes) = $self->usage_row(0);
	return ('insert usage', expected($codes), @$row, one_in(20) ? "toasted_$self->{worker}" : undef);
}

# A COPY of several rows from a file. What a value of the wrong type is called
# comes from the server, and what is wrong with the bytes too.
sub copy
{
	my ($self) = @_;
	my @columns = qw(billing_id id type amount source description user_id metadata created_at updated_at);
	my @codes;
	my $text = '';
	local $self->{nobody} = one_in(3);

	for my $k (0 .. rand 5)
	{
		my ($row, $code) = $self->usage_row($k);
		push @codes, $code;
		$text .= join("\t", map { defined $_ ? s/([\\\n\r\t])/$COPY_ESCAPES{$1}/gr : '\\N' } @$row) . "\n";
	}
	my $expected = expected(@codes) =~ tr/c//dr;
	if ($self->{nobody})
	{
		for (1 .. 1 + rand 3)
		{
			substr $text, int(rand length $text), int(rand 2),
			  any("\x00", "\xff", "\xc3", "\xed\xa0\x80", "\t", "\n", '\\', '\\x0', '\\.', "\r", '\\N', "\x01", '"', "\xf0\x9f", chr rand 256);
		}
		$expected = $COPY;
	}
	# a bad row may be behind one that the server can't read
	$expected .= ' 22P02 22P05 22003 22007 22008 22009 22023 23502 23503' unless $expected eq '00000';
	my $name = "$self->{directory}/$self->{worker}_$self->{n}";
	open my $file, '>:raw', $name or die "$name: $!";
	print $file $text;
	close $file or die "$name: $!";
	push @{ $self->{files} }, $name;
	return ('copy', $expected, 'usage', join(', ', @columns), $name);
}

# The files of the documents so far, which may go when those have run.
sub files_done
{
	my ($self) = @_;
	unlink splice @{ $self->{files} };
	return;
}

# ---------------------------------------------------------------------------
# Grants and reverts

sub uuid_argument
{
	my ($uuid) = @_;
	return (any('mArKeR', '', "$uuid!", '{', 'x' x 65536), 'c22P02') if one_in(40);
	return ($uuid, '');
}

sub grant_credits
{
	my ($self) = @_;
	my ($choice, $choice_code) = $self->choice;
	my ($id, $id_code) = uuid_argument($self->id);
	my ($amount, $amount_code) = some_bigint(1, '?22003');
	my ($source, $source_code) = some_text(255);
	my ($description, $description_code) = some_text(4096);
	my ($user, $user_code) = some_text(255);
	my ($metadata, $metadata_code) = some_metadata();

	if (defined $amount_code && $amount_code eq '?22003')
	{
		$choice = [ "f$self->{worker}big", undef, undef ];
		$choice_code = '';
	}
	($id, $id_code) = (undef, '22023') if one_in(80);
	($amount, $amount_code) = (undef, '22023') if one_in(80);
	return ('grant_credits', expected($choice_code, $id_code, $amount_code, $source_code, $description_code, $user_code, $metadata_code),
		$id, $amount, @$choice, $source, $description, $user, $metadata);
}

sub insert_credit_grant
{
	my ($self) = @_;
	my ($billing, $billing_code) = one_in(10) ? some_account_id('23503') : ("f$self->{worker}", '');
	my ($id, $id_code) = uuid_argument($self->id);
	my ($amount, $amount_code) = some_bigint(1);
	my ($source, $source_code) = some_text(255);
	my ($description, $description_code) = some_text(4096);
	my ($user, $user_code) = some_text(255);
	my ($metadata, $metadata_code) = some_metadata();
	my ($at, $at_code) = some_time();

	$at_code = '22023' if $at_code eq 'infinite';
	$at_code = '' if $at_code eq 'far';
	return ('insert credit_grant',
		expected($billing_code, $id_code, $amount_code, $source_code, $description_code, $user_code, $metadata_code, $at_code),
		$billing, $id, $amount, $source, $description, $user, $metadata, $at);
}

sub revert_usage
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($description, $description_code) = some_text(4096);
	my ($user, $user_code) = some_text(255);
	my ($metadata, $metadata_code) = some_metadata();
	my ($id, $id_code) = uuid_argument($self->id);
	my ($usage, $usage_code) = (undef, '');
	my ($amount, $amount_code) = (undef, '');
	my ($choice, $choice_code) = $self->choice;

	my $known = one_in(2) ? shift @{ $self->{usages} } : undef;
	if ($known && $known->{amount} =~ /^[1-9]\d*$/)
	{
		$usage = $known->{id};
		$amount = $known->{amount} if one_in(2);
		($amount, $amount_code) = @{ any([ $known->{amount} + 1, 'UB002' ], [ $INT64_MAX, 'UB002' ], [ 0, '22023' ], [ -1, '22023' ]) } if one_in(5);
	}
	else
	{
		($usage, $usage_code) = @{ any([ $self->id(7), 'PT404' ], [ undef, '22023' ], [ 'mArKeR', 'c22P02' ]) };
		if (@{ $self->{reverted} } && one_in(2))
		{
			$usage = any(@{ $self->{reverted} });
			$amount = any(undef, 1);
			$usage_code = !$self->reverts_often ? '23505' : $amount ? 'UB002' : '22023';
		}
	}
	my $expected = expected($choice_code, $description_code, $user_code, $metadata_code, $id_code, $usage_code, $amount_code);
	if ($expected eq '00000')
	{
		push @{ $self->{reverted} }, $usage;
		shift @{ $self->{reverted} } if @{ $self->{reverted} } > 100;
	}
	elsif ($known && $usage_code eq '')
	{
		unshift @{ $self->{usages} }, $known unless $expected =~ /00000/;
	}
	shift @{ $self->{usages} } if @{ $self->{usages} } > 200;
	return ('revert_usage', $expected, $usage, $amount, @$choice, $id, $description, $user, $metadata);
}

# A revert of a usage that is there, with something of it told wrong.
sub insert_wrong_revert
{
	my ($self) = @_;
	my $known = @{ $self->{usages} } ? any(@{ $self->{usages} }) : undef;

	return $self->insert_usage_revert if !$known || $known->{amount} !~ /^[1-9]\d*$/;
	my ($type, $source, $at) = @{ any([ $known->{type} eq 'credit' ? 'feature' : 'credit', undef, undef ], [ undef, 'another source', undef ], [ undef, undef, '2001-01-01 00:00:00+00' ]) };
	return ('insert usage_revert', '22023', "f$self->{worker}", $known->{id}, 1, $self->id, undef, undef, undef, $type, $source, $at, undef, undef);
}

# Reverts of usages that aren't there, which say themselves what they take back.
sub insert_usage_revert
{
	my ($self) = @_;
	my ($amount, $amount_code) = some_bigint(1);
	my ($description, $description_code) = some_text(4096);
	my ($metadata, $metadata_code) = some_metadata();
	my ($source, $source_code) = some_text(255);
	$source_code ||= '?22023' if length $source > 170;
	my ($at, $at_code) = some_time();
	my ($measures, $measures_code) = @{ any([ '{1,2,3,4,5}', '' ], [ '{0,0,0,0,NULL}', '' ], [ '{-1,0,0,0,0}', '22023' ], [ undef, '' ],
			[ '{0,0,0,0,-9223372036854775808}', '22023' ], one_in(5) ? [ '{mArKeR}', 'c22P02' ] : [ '{7}', '' ]) };
	my ($events, $events_code) = @{ any([ 0, '' ], [ 1, '' ], one_in(5) ? ([ -1, '22023' ], [ 2, '22023' ], [ 32768, 'c22003' ], [ undef, '23503' ]) : [ 1, '' ]) };
	my ($type, $type_code) = one_in(20) ? (undef, '23503') : (any('credit', 'feature'), '');

	$at_code = '22023' if $at_code eq 'infinite';
	$at_code = '' if $at_code eq 'far';
	return ('insert usage_revert',
		expected($amount_code, $description_code, $metadata_code, $source_code, $at_code, $measures_code, $events_code, $type_code),
		"f$self->{worker}", $self->id(9), $amount, $self->id, $description, $metadata, undef, $type, $source, $at, $events, $measures);
}

# Where the description stands in the arguments of what can be repeated.
my %DESCRIPTION = (create_usage => undef, grant_credits => 6, revert_usage => 6, 'insert usage' => 5, 'insert credit_grant' => 4, 'insert usage_revert' => 4);

# Keeps a document that is sure to be accepted, so that it can be sent again.
sub remember
{
	my ($self, $target, $expected, @arguments) = @_;

	return if $expected ne '00000' || !exists $DESCRIPTION{$target} || !one_in(10);
	push @{ $self->{known} }, [ $target, @arguments ];
	shift @{ $self->{known} } if @{ $self->{known} } > 100;
	return;
}

# A document that came before, as it was or with another description.
sub repeated
{
	my ($self) = @_;

	return $self->create_usage_other unless @{ $self->{known} };
	my ($target, @arguments) = @{ any(@{ $self->{known} }) };
	my $place = $DESCRIPTION{$target};
	return ($target, '00000', @arguments) if !defined $place || one_in(2);
	$arguments[$place] = 'mArKeR repeats ' . $self->{n};
	return ($target, '23505', @arguments);
}

1;
