# Single values for the fuzz test. Each comes with what a call may answer to it:
# '' it is good; '22023' the call must fail so; '?22003' it may. A code with "c"
# before it means that the value isn't even of the parameter's type. Texts are
# bytes of UTF-8.
package FuzzValue;

use strict;
use warnings;
use Exporter 'import';
use POSIX qw(strftime);

our @EXPORT = qw(any broken_json chance expected json_string json_value
  nested number_amount one_in some_account_id some_bigint some_json_time
  some_measures some_metadata some_text some_time some_uuid some_zone
  uuid_for wrong_type $INT64_MAX);

our $INT64_MAX = '9223372036854775807';

sub any { return $_[ int rand @_ ]; }
sub chance { return rand() < $_[0]; }
sub one_in { return int(rand $_[0]) == 0; }

# What a call may answer, from what may be said about each of its values.
sub expected
{
	my @codes = map { split ' ' } @_;
	my %must = map { $_ => 1 } grep { !/^\?/ } @codes;
	my %may = map { substr($_, 1) => 1 } grep { /^\?/ } @codes;

	# what isn't of its type fails before anything else is looked at
	my %cast = map { $_ => 1 } grep { /^c/ } keys %must;
	return join ' ', sort keys %cast, grep { /^c/ } keys %may if %cast;
	return join ' ', sort keys %{ { %must, %may } } if %must;
	return join ' ', '00000', sort keys %may;
}

# Every document makes ids of its own, so that what is stored can be traced back.
sub uuid_for
{
	my ($worker, $n, $k) = @_;
	return sprintf '%08x-%04x-4000-8000-%012x', $n, $worker, $k;
}

# ---------------------------------------------------------------------------
# Texts

my @LETTERS = (
	[ 'a' .. 'z', '0' .. '9', '.', '_', '-' ], [ 'A' .. 'Z', ' ' ],
	[ "\xc3\xa9", "\xc3\x9f", "\xd0\x96", "\xe6\x97\xa5" ],    # é ß Ж 日
	[ "\xf0\x9f\x98\x80", "\xf0\x9d\x94\xb8", "\xf4\x8f\xbf\xbf" ],    # beyond the first plane
	[ "\xe2\x80\xae", "\xe2\x80\x8b", "\xef\xbb\xbf", "a\xcc\x81", "\xe2\x80\xa8", "\xc2\x85" ],    # directions, marks, breaks
	[ "\xc8\xba", "\xc4\xb0", "\xe2\x84\xaa", "\xce\xa3", "\xe1\xba\x9e" ],    # other lengths in lower case
	[ "\x01", "\x07", "\x08", "\x09", "\x0a", "\x0d", "\x1b", "\x1f", "\x7f" ],
	[ "'", '"', '\\', '%s', '%n', '%d', '$1', '{', '}', ',', ';', '/', '..', '<', '&' ]);
my @WORDS = ("mArKeR", "x\r\nSet-Cookie: mArKeR", "'; DROP SCHEMA usage_billing CASCADE; --", '%s%s%s%n', 'null', 'NULL', '\\N', '\\.',
	"\xef\xbf\xbe", '0', 'true', '[]', ' ', '../../../etc/passwd', '${mArKeR}');

# A text of exactly so many bytes, of letters of all kinds or of one.
sub text_of
{
	my ($bytes) = @_;
	my $letters = any(@LETTERS);
	my $text = one_in(3) && $bytes >= 6 ? 'mArKeR' : '';

	if (one_in(4) && $bytes > 12)
	{
		my $letter = any(@$letters);
		$text .= $letter x int(($bytes - length $text) / length $letter);
	}
	else
	{
		my $pattern = join '', map { any(@$letters) } 1 .. 12;
		$text .= $pattern while length $text < $bytes && length $text < 500;
		$text .= $pattern x int(($bytes - length $text) / length $pattern) if length $text < $bytes;
		$text = substr $text, 0, $bytes;
		# not in the middle of a letter
		$text =~ s/[\x80-\xff]*\z//;
	}
	return $text . 'x' x ($bytes - length $text);
}

# A text with a limit in bytes.
sub some_text
{
	my ($limit) = @_;
	my $text =
	    one_in(12) ? text_of(any($limit - 1, $limit, $limit, $limit + 1, $limit + 1))
	  : one_in(400) ? text_of(any(4096, 4097, 65536, 100000))
	  : one_in(8) ? any(@WORDS)
	  : text_of(1 + int rand 24);

	return ($text, length $text > $limit ? '22023' : '');
}

# The text as a JSON string, written in one of many ways.
sub json_string
{
	my ($text) = @_;

	if ($text =~ /[\x80-\xff]/ && one_in(4))
	{
		utf8::decode($text);
		$text =~ s/(["\\])/\\$1/g;
		$text =~ s/([^\x20-\x7e])/ord $1 > 0xffff
			? sprintf '\\u%04x\\u%04X', 0xd800 + (ord($1) - 0x10000 >> 10), 0xdc00 + (ord($1) - 0x10000 & 0x3ff)
			: sprintf '\\u%04x', ord $1/ge;
		utf8::encode($text);
	}
	else
	{
		$text =~ s/(["\\])/\\$1/g;
		$text =~ s/([\x00-\x1f])/sprintf '\\u%04x', ord $1/ge;
	}
	return qq("$text");
}

# ---------------------------------------------------------------------------
# JSON

# A JSON value of another type than those named.
sub wrong_type
{
	my (@right) = @_;
	my %values = (
		null => ['null'], boolean => [ 'true', 'false' ], number => [ 98765, '-1', '1e400', '-0', '1e-400', '0.1e1', '9' x 100 ],
		string => [ '"mArKeR"', '""', '"1"', '"{}"' ], array => [ '[]', '[1]', '["mArKeR"]', '[[[]]]', '[{}]' ],
		object => [ '{}', '{"mArKeR": 1}', '{"": ""}' ]);

	delete @values{@right};
	return any(@{ $values{ any(sort keys %values) } });
}

# Any JSON value, not very large.
sub json_value
{
	my ($depth) = @_;
	my $kind = int rand($depth > 0 ? 8 : 5);

	return any('null', 'true', 'false') if $kind == 0;
	return any('0', '-0', '1', '-1', '1e400', '1e-400', '9223372036854775808', '0.1e1', '1E+2', '12345678901234567890.123456789') if $kind == 1;
	return json_string((some_text(40))[0]) if $kind < 5;
	return '[' . join(any(',', ', ', " ,\n"), map { json_value($depth - 1) } 1 .. rand 5) . ']' if $kind < 7;
	return '{' . join(any(',', ', '), map { json_string(one_in(9) ? '' : (some_text(20))[0]) . ':' . json_value($depth - 1) } 1 .. rand 5) . '}';
}

sub nested
{
	my ($depth) = @_;
	return one_in(2) ? '[' x $depth . ']' x $depth : '{"k":' x $depth . '1' . '}' x $depth;
}

# What no JSON parser takes, in the place of a value. Code "c" or a number that
# the server refuses.
sub broken_json
{
	return @{
		any(
			[ '"\\u0000"', 'c22P05' ], [ '"mArKeR\\u0000"', 'c22P05' ], [ '"\\ud800"', 'c22P02' ], [ '"\\udc00\\ud800"', 'c22P02' ],
			[ '"\\ud83dx"', 'c22P02' ], [ '"\\uZZZZ"', 'c22P02' ], [ '"\\x41"', 'c22P02' ], [ '"\\u00"', 'c22P02' ], [ "\"\x01\"", 'c22P02' ],
			[ "\"\n\"", 'c22P02' ], [ '"', 'c22P02' ], [ "'x'", 'c22P02' ], [ '01', 'c22P02' ], [ '+1', 'c22P02' ], [ '.5', 'c22P02' ],
			[ '1.', 'c22P02' ], [ '1e', 'c22P02' ], [ '0x10', 'c22P02' ], [ 'NaN', 'c22P02' ], [ 'Infinity', 'c22P02' ], [ '-', 'c22P02' ],
			[ 'undefined', 'c22P02' ], [ 'None', 'c22P02' ], [ '{"a" 1}', 'c22P02' ], [ '{a: 1}', 'c22P02' ], [ '{"a": 1,}', 'c22P02' ], [ '[1,]', 'c22P02' ],
			[ '/* x */ 1', 'c22P02' ], [ '', 'c22P02' ], [ '1e999999', 'c22003' ], [ '1e-99999', 'c22003' ], [ '9' x 140000, 'c22003' ],
			[ '[' x 100000, 'c22P02 ?c54001' ]) };
}

# ---------------------------------------------------------------------------
# Amounts, ids and times as JSON

my @SMALL = ('0', '1', '7', '20', '20.0', '2e1', '0.1e1', '10e-1', '1E2', '-0', '-0.0', '0e5', '"0"', '"20"', '"0020"', '"-0"', '5.000000000000000000000000');
my @BAD_AMOUNTS = (
	(map { [ $_, '22023' ] } '-1', '-98765', '"-98765"', '-9223372036854775808', '20.5', '1e-1', '1e-400', '0.000000000000000000000001',
		'9007199254740993.5', '""', '"mArKeR"', '"+5"', '" 5"', '"5 "', '"1e3"', '"0x10"', '"5.0"', '"1,000"', '"٣"', '"NaN"', '"Infinity"',
		'"-"', '"--1"', '"5\\n"', '"' . 'x' x 65536 . '"'),
	(map { [ $_, '22003' ] } '9223372036854775808', '1e400', '1e19', '18446744073709551616', '1e131071', '"9223372036854775808"', '"' . '9' x 5000 . '"'),
	(map { [ $_, '22003 22023' ] } '-9223372036854775809', '-1e400', '"-9223372036854775809"'));

# An amount of a usage; large ones only where the account is meant for them.
sub number_amount
{
	my ($large) = @_;

	return ($INT64_MAX, '') if $large && one_in(3);
	return (any(qq("$INT64_MAX"), '9223372036854775806', '9.2e18', 4e18), '') if $large && one_in(2);
	return @{ any(@BAD_AMOUNTS) } if one_in(14);
	return (wrong_type('number', 'string'), '22023') if one_in(40);
	return (one_in(2) ? any(@SMALL) : int rand 1000, '');
}

# The uuid in one of the forms that are taken, or something that is none.
sub some_uuid
{
	my ($uuid) = @_;
	my $plain = $uuid =~ tr/-//dr;

	return (any('"mArKeR"', '""', '"' . substr($uuid, 1) . '"', qq("${uuid}0"), qq("{$uuid"), qq("$uuid}"), qq(" $uuid"), '"' . 'g' . substr($uuid, 1) . '"',
			qq("$uuid\\n"), '"' . '0' x 65536 . '"', '"{}"', '"{"', '"-' . $plain . '"', '"' . $plain . '-"', '"' . ('0-' x 16) . '"'), '22P02')
	  if one_in(25);
	return (wrong_type('string'), '22023') if one_in(40);
	return (qq("$uuid"), '') if one_in(2);
	return ('"' . any(uc $uuid, "{$uuid}", $plain, "{$plain}", ucfirst $uuid, substr($plain, 0, 4) . '-' . substr($plain, 4), substr($plain, 0, 28) . '-' . substr($plain, 28)) . '"', '');
}

my @BAD_TIMES = (
	'', 'soon', 'now', 'today', 'infinity', '-infinity', 'epoch', '2024-05-01', '2024-05-01T10:00Z', '2024-05-01T10:00:00+0200', '2024-05-01T10:00:00+2',
	'2024-05-01T10:00:00Z ', ' 2024-05-01T10:00:00Z', '2024-05-01T10:00:00.Z', '2024-05-01T10:00:00,5Z', '2024-05-01T24:00:00Z', '2024-05-01T10:60:00Z',
	'2024-05-01T10:00:61Z', '2024-05-01T10:00:00+24:00', '2024-05-01T10:00:00-00:60', '2023-02-29T00:00:00Z', '1900-02-29T00:00:00Z', '2024-04-31T00:00:00Z',
	'2024-13-01T00:00:00Z', '2024-00-01T00:00:00Z', '2024-01-00T00:00:00Z', '0000-01-01T00:00:00Z', '-001-01-01T00:00:00Z', '10000-01-01T00:00:00Z',
	'+2024-05-01T10:00:00Z', '2024-5-1T10:00:00Z', '20240501T100000Z', '44-03-15T12:00:00Z BC', '2024-05-01T10:00:00 Europe/Berlin', '2024-05-01T10:00:00ZZ',
	"2024-05-01T10:00:00Z\x01", '2024-W18-3T10:00:00Z', '2024-122T10:00:00Z', 'mArKeR', 'x' x 65536, '2024-05-01T10:00:00.' . '9' x 65536 . 'x', '1714557600', '٢٠٢٤-٠٥-٠١T١٠:٠٠:٠٠Z');

# A created_at of create_usage.
sub some_json_time
{
	return (json_string(any(@BAD_TIMES)), '22007') if one_in(12);
	return (wrong_type('string', 'null'), '22023') if one_in(40);
	return (any('"9999-12-31T23:59:59Z"', '"2999-01-01T00:00:00Z"', '"9999-12-31T23:59:60-23:59"'), '22023') if one_in(40);
	return (any('"0001-01-01T00:00:00Z"', '"0001-01-01T00:00:00+23:59"', '"2016-12-31T23:59:60Z"', '"1969-12-31 23:59:59.999999999-00:00"', '"2024-02-29t12:00:00z"'), '')
	  if one_in(10);
	my $at = 1640995200 + int rand 86400 * 900;
	my $text = strftime(any('%Y-%m-%dT%H:%M:%S', '%Y-%m-%d %H:%M:%S', '%Y-%m-%dt%H:%M:%S'), gmtime $at);
	$text .= '.' . any('0', '5', '999999', '9999999', '1' x 40, '000000000000001', one_in(50) ? '9' x 65536 : '5') if one_in(3);
	return (qq("$text) . any('Z', 'z', '', '+00:00', '-00:00', '+23:59', '-12:30') . '"', '');
}

# ---------------------------------------------------------------------------
# Metadata

my @MEASURES = qw(viewing_seconds viewing_bytes egress_seconds egress_seconds_additional_targets egress_bytes);

# Metadata of a delivery usage.
sub some_measures
{
	my ($large) = @_;
	my @codes;
	my @pairs = map {
		my $value = one_in(2) ? int rand 1e6 : any('0', '1.0', '1e3', '"5"', '"0012"', $large ? $INT64_MAX : 1e15);
		if (one_in(30))
		{
			$value = any('-1', '1.5', '"x"', 'null', 'true', '{}', '[]', '""', '9223372036854775808', '1e400', '1e-400', '"-1"', '"mArKeR"');
			push @codes, '22023';
		}
		qq("$_": $value);
	} grep { one_in(2) } @MEASURES;

	push @pairs, '"viewing_Seconds": -1' if one_in(20);
	return ('{' . join(', ', @pairs) . '}', join(' ', @codes));
}

# Metadata of anything else.
sub some_metadata
{
	return ('{}', '') if one_in(6);
	return (wrong_type('object', 'null'), '22023') if one_in(25);
	if (one_in(60))
	{
		my $bytes = any(65535, 65536, 65537, 65537, 131072);
		my $letter = any('x', 'x', "\xc3\xa9", '"');
		my $width = $letter eq '"' ? 2 : length $letter;
		my $text = $letter x int(($bytes - 9) / $width);
		$text .= 'x' x ($bytes - 9 - $width * length($text) / length $letter);
		return ('{"k": ' . json_string($text) . '}', $bytes > 65536 ? '22023' : '');
	}
	if (one_in(150))
	{
		my $depth = any(10, 100, 1000, 5000, 10000);
		return ('{"k": ' . nested($depth) . '}', $depth > 1000 ? '?c54001 ?22023' : '');
	}
	return ('{"k": ' . any('1e400', '1e-400', '-1e400') . ', "": null}', '') if one_in(30);
	return (any('{"k": 1e131071}', '{"k": [' . join(',', ('1e131071') x 50) . ']}', '{"k": "' . '\\u0001' x 12000 . '"}'), '22023') if one_in(150);
	my $json = '{' . join(', ', map { json_string((some_text(20))[0]) . ': ' . json_value(3) } 1 .. 1 + rand 4) . '}';
	# printed it may be longer
	return ($json, length $json > 8000 ? '?22023' : '');
}

# ---------------------------------------------------------------------------
# Parameters that are no JSON

my @GOOD_TIMES = (
	'2024-05-01 10:00:00+00', '2024-05-01T10:30:00Z', '20240501T100000Z', '2016-12-31T23:59:60Z', '1999-12-31 24:00:00Z', 'epoch', 'yesterday',
	'2024-02-29 12:00:00.9999999+14:59', '2023-10-29 01:30:00 Europe/Berlin', 'January 8, 1999 04:05 UTC', '2024.05.01 10:00Z');
my @FAR_TIMES = (
	'0044-03-15 12:00:00Z BC', '4714-11-24 00:00:00+00 BC', '4714-11-24 00:30:00+00 BC', '4713-01-01 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00',
	'294276-12-31 23:00:00+00', '294276-01-01 00:00:00+00', '0001-01-01 00:00:00+00', '9999-12-31 23:59:59+00', '100000-06-15 12:34:56+00');
my @WRONG_TIMES = (
	'', 'soon', 'mArKeR', '2023-02-29', '2024-13-01', '294277-01-01 00:00:00+00', '4715-01-01 BC', '99999999999', '2024-05-01 25:00:00', '2024-05-01 10:00:00 Mars/mArKeR',
	'2024-05-01T10:00:00+99:99', 'x' x 70000, '24:00', 'now mArKeR', 'infinity mArKeR', '1e10', "\x01", '{}');

# A timestamptz; $past: one that is over.
sub some_time
{
	my ($past) = @_;

	return (any(@WRONG_TIMES), 'c22007 c22008 c22009 c22023') if one_in(15);
	return (any('infinity', '-infinity'), 'infinite') if one_in(15);
	return ($past ? any('0044-03-15 12:00:00Z BC', '4714-11-24 00:00:00+00 BC', '0001-01-01 00:00:00+00') : any(@FAR_TIMES), 'far') if one_in(8);
	return (any(@GOOD_TIMES), '') if one_in(3);
	return (strftime('%Y-%m-%d %H:%M:%S+00', gmtime 1640995200 + int rand 86400 * 900), '');
}

# A bigint, within the range given.
sub some_bigint
{
	my ($least, $large) = @_;

	return (any('mArKeR', '', '1.5', '0x1g', '9223372036854775808', '-9223372036854775809', '1e3', '9' x 65536, '٣', "5\x01"), 'c22P02 c22003') if one_in(25);
	return (any($least - 1, -1, '-9223372036854775808', $least - 98765), '22023') if one_in(20);
	return ($INT64_MAX, $large) if one_in(25) && defined $large;
	return (any(' 5 ', '+5', '0005'), '') if one_in(15);
	return ($least + int rand 1000, '');
}

my @ZONES = (
	'UTC', 'utc', 'Europe/Berlin', 'europe/berlin', 'America/New_York', 'Asia/Kolkata', 'Asia/Kathmandu', 'Pacific/Apia', 'Pacific/Kiritimati', 'America/Havana',
	'Africa/Casablanca', 'Africa/Monrovia', 'Australia/Lord_Howe', 'Antarctica/Troll', 'Atlantic/Azores', 'America/Sao_Paulo', 'Asia/Gaza', 'Etc/GMT+12', 'Etc/GMT-14',
	'Africa/Cairo', 'Asia/Tehran', 'Europe/Dublin', 'America/Scoresbysund');
# Debian 13 has them in a package of their own.
my @OLD_ZONES = ('GMT0', 'EST5EDT', 'EST', 'CET', 'MET', 'Zulu', 'GB-Eire', 'Factory', 'posix/Europe/Berlin');
my @NO_ZONES = (
	'mArKeR', 'Mars/Olympus', '../../../../etc/passwd', '/etc/passwd', 'Europe', 'Europe/', 'x' x 300, 'x' x 65536, 'right/UTC', 'right/Europe/Berlin', '+02:00', '-3', '1',
	'A0', 'X-1', 'UTC+3', 'GMT+5', '<+13>-13', '<mArKeR>-1', 'XYZ-3ABC,M3.2.0,M11.1.0', 'Etc/GMT+99', 'Etc/GMT+1:00', 'Foo167', 'CET-1CEST', "UTC\x01", "Europe/Berlin\n", '%s%n', 'posixrules1', 'localtime2', ':UTC');

sub some_zone
{
	return ('', '') if one_in(10);
	return (any(@NO_ZONES), '22023') if one_in(6);
	return (any(@OLD_ZONES), '?22023 ?0A000') if one_in(5);
	return (any(@ZONES), '?0A000');
}

# An id that nothing is known of.
sub some_account_id
{
	my ($unknown) = @_;
	my ($id, $code) = some_text(255);

	# a short one may be there by chance
	$id .= ' is unknown' if length $id < 8;
	return ($id, $code || $unknown);
}

1;
