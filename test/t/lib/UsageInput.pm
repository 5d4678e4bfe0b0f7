# Makes up usages and the many ways to write them down: random values, times,
# metadata with measurements, JSON elements, and elements that are wrong.
package UsageInput;

use strict;
use warnings;
use Exporter 'import';
use JSON::PP;
use POSIX qw(strftime);

use UsageModel;

our @EXPORT = qw($INT64_MAX $MAX_BATCH @BAD_ITEMS @METADATA @TEXTS chance
  changed_usage item_json one_of quoted some_time some_usage sql_time uuid);

my $json = JSON::PP->new->utf8->allow_nonref;

# Explicit times lie in these five days, long before any test runs.
my $FIRST_TIME = 1709251200;    # 2024-03-01 00:00:00Z
my $TIME_SPAN = 5 * 86400;
our $MAX_BATCH = 40;
our $INT64_MAX = '9223372036854775807';

our @TEXTS = (
	undef, undef, undef, 'gpt call', "it's", 'back\\slash', '"quoted"',
	"two\nlines", "tab\there", "\xc3\xa9t\xc3\xa9 \xe2\x82\xac", ':notavariable');
my @SOURCES = qw(system api.chat render transcoders vod_streams vod_streams);
our @METADATA = ('{}', '{}', '{}', '{"a": 1}', '{"k": [1, "x", null]}', '{"job": {"id": 7}}');

# What a create_usage element may not be. ID stands for a fresh id.
our @BAD_ITEMS = (
	[ '{"amount": 1}', '22023' ],
	[ '{"id": null, "amount": 1}', '22023' ],
	[ '{"id": "not-a-uuid", "amount": 1}', '22P02' ],
	[ '{"id": 5, "amount": 1}', '22023' ],
	[ '{"id": "ID"}', '22023' ],
	[ '{"id": "ID", "amount": null}', '22023' ],
	[ '{"id": "ID", "amount": -1}', '22023' ],
	[ '{"id": "ID", "amount": "-1"}', '22023' ],
	[ '{"id": "ID", "amount": 20.5}', '22023' ],
	[ '{"id": "ID", "amount": true}', '22023' ],
	[ '{"id": "ID", "amount": "ten"}', '22023' ],
	[ '{"id": "ID", "amount": 9223372036854775808}', '22003' ],
	[ '{"id": "ID", "amount": "9223372036854775808"}', '22003' ],
	[ '{"id": "ID", "amount": 1, "type": "gold"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "type": 5}', '22023' ],
	[ '{"id": "ID", "amount": 1, "source": 7}', '22023' ],
	[ '{"id": "ID", "amount": 1, "source": "' . 's' x 256 . '"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "user_id": "' . 'u' x 256 . '"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "description": "' . 'd' x 4097 . '"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "metadata": []}', '22023' ],
	[ '{"id": "ID", "amount": 1, "metadata": "x"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "created_at": "soon"}', '22007' ],
	[ '{"id": "ID", "amount": 1, "created_at": 5}', '22023' ],
	[ '{"id": "ID", "amount": 1, "created_at": "2999-01-01T00:00:00Z"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "colour": "red"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "customer_id": "somebody else"}', '22023' ],
	[ '{"id": "ID", "amount": 1, "type": "feature", "source": "vod_streams", "metadata": {"viewing_seconds": -1}}', '22023' ],
	[ '{"id": "ID", "amount": 1, "type": "feature", "source": "Transcoders", "metadata": {"egress_bytes": 1.5}}', '22023' ],
	[ '{"id": "ID", "amount": 1, "type": "feature", "source": "vod_streams", "metadata": {"viewing_bytes": "x"}}', '22023' ],
	[ 'null', '22023' ],
	[ '5', '22023' ],
	[ '[]', '22023' ],
	[ '"x"', '22023' ]);

sub one_of { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }

sub uuid
{
	my $hex = join '', map { sprintf '%04x', int rand 65536 } 1 .. 8;
	return join '-', unpack 'A8 A4 A4 A4 A12', $hex;
}

sub quoted
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub some_time
{
	return $FIRST_TIME + int rand $TIME_SPAN;
}

# A time in one of the forms of RFC 3339, or without an offset.
sub time_text
{
	my ($at) = @_;
	my $form = int rand 4;
	return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $at) if $form == 0;
	return strftime('%Y-%m-%dT%H:%M:%S', gmtime $at) if $form == 1;
	return strftime('%Y-%m-%dT%H:%M:%S.000+02:00', gmtime $at + 7200) if $form == 2;
	return strftime('%Y-%m-%dT%H:%M:%S-05:30', gmtime $at - 19800);
}

sub sql_time
{
	my ($at) = @_;
	return strftime('%Y-%m-%d %H:%M:%S+00', gmtime $at);
}

# A usage as it is stored.
sub some_usage
{
	my $usage = {
		id => uuid(),
		type => chance(0.7) ? 'credit' : 'feature',
		source => one_of(@SOURCES),
		description => one_of(@TEXTS),
		user_id => one_of(undef, undef, 'user-1', "o'user"),
		metadata => one_of(@METADATA),
		created_at => chance(0.6) ? some_time() : undef,
	};
	$usage->{amount} = one_of(0, 1, 7, int(rand 100), int(rand 1000));
	if ($usage->{type} eq 'feature' && $usage->{source} =~ /^(?:transcoders|vod_streams)$/)
	{
		my @measures = map { one_of(0, int(rand 1000), int(rand 1e15)) } 1 .. 5;
		$usage->{measures} = \@measures;
		# jsonb's own order of keys and spacing, and no measurement means 0
		my %number = map { $UsageModel::MEASURES[$_] => $measures[$_] } 0 .. 4;
		my @keys = grep { $number{$_} || chance(0.5) }
		  sort { length $a <=> length $b || $a cmp $b } keys %number;
		$usage->{metadata} = '{' . join(', ',
			map { qq("$_": ) . (chance(0.3) ? qq("$number{$_}") : $number{$_}) } @keys) . '}';
	}
	return $usage;
}

# Another payload under the same id, always different in what is stored.
sub changed_usage
{
	my ($usage) = @_;
	my %other = %$usage;
	my $field = one_of(qw(amount source description user_id metadata created_at));

	$other{amount} += 1 if $field eq 'amount';
	$other{source} = 'changed' if $field eq 'source';
	$other{$field} = 'changed' if $field eq 'description' || $field eq 'user_id';
	$other{metadata} = '{"changed": 1}' if $field eq 'metadata';
	$other{created_at} = ($other{created_at} // $FIRST_TIME) + 60 if $field eq 'created_at';
	delete $other{measures} if $field eq 'source' || $field eq 'metadata';
	return \%other;
}

# The element as JSON, in one of the many ways to say the same.
sub item_json
{
	my ($usage) = @_;
	my @pairs;
	my $text = sub { return $json->encode(decoded($_[0])); };

	push @pairs, [ id => $text->(chance(0.1) ? uc $usage->{id} : $usage->{id}) ];
	push @pairs, [ amount => chance(0.2) ? qq("$usage->{amount}")
		: chance(0.05) ? "$usage->{amount}.0" : $usage->{amount} ];
	push @pairs, [ type => qq("$usage->{type}") ]
	  unless $usage->{type} eq 'credit' && chance(0.5);
	push @pairs, [ type => one_of('null', '""') ]
	  if @pairs == 2 && chance(0.1);
	if ($usage->{source} ne 'system' || chance(0.3))
	{
		push @pairs, [ source => $text->(chance(0.3) ? ucfirst $usage->{source} : $usage->{source}) ];
	}
	for my $key (qw(description user_id))
	{
		push @pairs, [ $key => $text->($usage->{$key}) ] if defined $usage->{$key};
		push @pairs, [ $key => one_of('null', '""') ]
		  if !defined $usage->{$key} && chance(0.1);
	}
	push @pairs, [ metadata => $usage->{metadata} ]
	  if $usage->{metadata} ne '{}' || chance(0.1);
	push @pairs, [ created_at => $text->(time_text($usage->{created_at})) ]
	  if defined $usage->{created_at};
	push @pairs, [ updated_at => '"2024-01-01T00:00:00Z"' ] if chance(0.1);
	push @pairs, [ customer_id => $text->($usage->{billing_id}) ] if chance(0.1);

	return '{' . join(', ', map { qq("$_->[0]": $_->[1]) } @pairs) . '}';
}

# The texts here are bytes; JSON::PP wants characters.
sub decoded
{
	my ($text) = @_;
	utf8::decode($text);
	return $text;
}

1;
