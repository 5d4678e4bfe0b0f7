# Hostile documents for every function and every table that takes text or JSON:
# the call, what may come of it, and its arguments. A good part of them is valid,
# so that refusing everything would be noticed too.
package FuzzDocument;

use strict;
use warnings;
use parent 'FuzzFacts';
use POSIX qw(strftime);

use FuzzValue;

my $CASTS = $FuzzFacts::CASTS;
my $CHOICE = $FuzzFacts::CHOICE;
my $SERIES = "00000 $CHOICE 0A000 22003 $CASTS";
my $TREND = "00000 $CHOICE 22007 22003 $CASTS";
my $TRACK = '00000 40P01 22023 42501 c42P01 c42602 c22023 c3F000 c0A000 22003 c22P02 c22003 c42601';
# Under a token everything that isn't the organisation's own is one and the same.
my $CLAIMED = '42501 PT404 22023';

# How often each kind of document comes.
my @KINDS = (
	[ 40, 'create_usage' ], [ 4, 'create_usage_other' ], [ 8, 'insert_usage' ], [ 3, 'copy' ], [ 6, 'grant_credits' ], [ 3, 'insert_credit_grant' ],
	[ 6, 'revert_usage' ], [ 3, 'insert_usage_revert' ], [ 1, 'insert_wrong_revert' ], [ 4, 'repeated' ], [ 8, 'account_usage_trend' ], [ 3, 'usage_series' ], [ 3, 'account_transactions' ],
	[ 2, 'balances' ], [ 2, 'claims' ], [ 2, 'create_billing_account' ], [ 1, 'create_project' ], [ 1, 'insert_billing_account' ], [ 0.5, 'insert_project' ],
	[ 1, 'close_billing_period' ], [ 1, 'set_storage_limits' ], [ 2, 'storage' ], [ 1, 'insert_stored_file' ], [ 0.5, 'insert_storage_snapshot' ],
	[ 0.5, 'insert_storage_limit' ], [ 0.2, 'track' ], [ 0.5, 'change_file' ], [ 0.005, 'maintain' ]);
my $WEIGHT = 0;
$WEIGHT += $_->[0] for @KINDS;

# The next document: target, what is expected, arguments.
sub next
{
	my ($self) = @_;
	my $at = rand $WEIGHT;

	$self->{n}++;
	for (@KINDS)
	{
		my ($weight, $kind) = @$_;
		next if ($at -= $weight) >= 0;
		my @document = $self->$kind;
		$self->remember(@document);
		return @document;
	}
}

# ---------------------------------------------------------------------------
# Readers

sub trend_time
{
	my @good = ('2024-05-01', '2024-05-01 10:00:00', '2024-05-01T10:00:00Z', '2024-05-01T10:59:59.999999+14:00', '2024-04-30t23:00:01z');
	my @bad = (
		'soon', 'mArKeR', 'now', 'infinity', '2023-02-29', '2024-5-01', '2024-05-01 10', '2024-05-01 10:00', '2024-05-01 24:00:00', '2024-05-01T10:00:00 UTC', 'last_bill_date ',
		'LAST_BILL_DATE', 'last_bill', '0000-01-01', '2024-13-01', "2024-05-01\x01", 'x' x 70000, ' ', '2024-05-01 BC', '{}', '1714557600');

	return (any(@bad), '22007') if one_in(8);
	return (any('last_bill_date', '0001-01-01', '9999-12-31', '9999-12-31T23:59:60-23:59', '0001-01-01T00:00:00+23:59', '2024-02-01', '2030-01-01'), 'far') if one_in(8);
	return (any(@good), '');
}

sub filter
{
	my @values = qw(transcoders vod_streams);
	my $value = any(@values);
	my @good = (
		undef, 'null', '[]', '{}', qq([{"field": "resource", "eq": "$value"}]), qq({"0": {"eq": "$value", "field": "resource"}}),
		'[{"field": "resource", "in": "transcoders,vod_streams"}]', qq([{"in": ["$value", "$value"], "field": "resource"}]), '[{"field": "resource", "in": []}]',
		qq([{"field": "resource", "eq": "transcoders"}, {"field": "resource", "eq": "vod_streams"}]), qq([{"field": "resource", "eq": "$value", "in": "$value"}]),
		'{"00": {"field": "resource", "eq": "vod_streams"}, "99999999999999999999": {"field": "resource", "eq": "vod_streams"}}',
		'[' . join(',', ('{"field": "resource", "in": "vod_streams"}') x 500) . ']');
	my @bad = (
		'"mArKeR"', '1e400', 'true', '[1]', '[null]', '[[]]', '[{}]', '{"a": {}}', '{"": {"field": "resource", "eq": "vod_streams"}}', '{"0x1": 1}', '{"-1": {}}',
		'[{"field": "resource"}]', qq([{"eq": "$value"}]), '[{"field": "mArKeR", "eq": "vod_streams"}]', '[{"field": "resource", "ne": "vod_streams"}]',
		'[{"field": "resource", "eq": "mArKeR"}]', '[{"field": "resource", "eq": ""}]', '[{"field": "resource", "in": ""}]', '[{"field": "resource", "in": ","}]',
		'[{"field": "resource", "in": "vod_streams,"}]', '[{"field": "resource", "in": "vod_streams, transcoders"}]', '[{"field": "resource", "eq": ["vod_streams"]}]',
		'[{"field": null, "eq": "vod_streams"}]', '[{"field": "resource", "eq": null}]', '[{"field": "resource", "in": [1]}]', '[{"field": "resource", "in": [["vod_streams"]]}]',
		'[{"field": "resource", "in": {"0": "vod_streams"}}]', '[{"field": "Resource", "eq": "vod_streams"}]', '[{"field": "resource", "eq": "vod_streams", "": 1}]',
		'[{"field": "resource", "eq": "vod_streams"}, {"mArKeR": 1}]', '[{"field": "resource", "eq": "' . 'x' x 70000 . '"}]', nested(1000));

	if (one_in(30))
	{
		my ($broken, $code) = broken_json();
		return ("[$broken]", $code) if $broken ne '';
	}
	return (any(@bad), '22023') if one_in(4);
	return (FuzzFacts::mutated(any(@good[ 4 .. 10 ])), 'mutated') if one_in(4);
	# the value null is no filter, and neither array nor object
	my $good = any(@good);
	return ($good, defined $good && $good eq 'null' ? '22023' : '');
}

sub account_usage_trend
{
	my ($self) = @_;
	my ($choice, $choice_code) = $self->choice;
	my ($from, $from_code) = one_in(4) ? (any(undef, ''), '') : trend_time();
	my ($to, $to_code) = one_in(4) ? (any(undef, ''), '') : trend_time();
	my ($filter, $filter_code) = filter();
	my ($include, $include_code) = @{ any([ undef, '' ], [ '', '' ], [ 'trend', '' ], [ 'trend', '' ], [ 'trend,trend', '' ],
			one_in(4) ? [ any('mArKeR', 'Trend', 'trend,', ',', 'trend mArKeR', ' trend', 'x' x 70000, 'trend,' x 5000 . 'x'), '22023' ] : [ 'trend', '' ]) };
	my @codes = ($choice_code, $filter_code, $include_code);

	if ($filter_code eq 'mutated')
	{
		return ('account_usage_trend', $TREND, $from, $to, $filter, $include, @$choice);
	}
	if ($from_code eq '' && $to_code eq '')
	{
		# a range that is known to be one: at most 90 days, from before to
		my $at = 1640995200 + 3600 * int rand 20000;
		$from = strftime(any('%Y-%m-%d %H:00:00', '%Y-%m-%dT%H:00:00Z'), gmtime $at);
		$to = strftime('%Y-%m-%d %H:00:00', gmtime $at + 3600 * (1 + int rand 24 * 90));
		if (one_in(5))
		{
			($from, $to) = ($to, $from);
			push @codes, '22023';
		}
	}
	else
	{
		push @codes, map { $_ eq 'far' ? '?22023' : $_ } $from_code, $to_code;
		push @codes, '?22023';
	}
	return ('account_usage_trend', expected(@codes), $from, $to, $filter, $include, @$choice);
}

sub usage_series
{
	my ($self) = @_;
	my ($choice, $choice_code) = $self->choice;
	my ($from, $from_code) = one_in(4) ? (undef, '') : some_time();
	my ($to, $to_code) = one_in(4) ? (undef, '') : some_time();
	my $bucket = any(undef, '', 'hour', 'day', 'week', 'month');
	my ($zone, $zone_code) = some_zone();
	my ($source, $source_code) = one_in(2) ? (any('system', 'VOD_STREAMS', '', undef), '') : some_text(255);
	my ($type, $type_code) = one_in(20) ? (any('mArKeR', ''), 'c22P02') : (any(undef, 'credit', 'feature'), '');
	my $bucket_code = '';

	$source_code ||= '?22023' if defined $source && length $source > 170;
	($bucket, $bucket_code) = (any('mArKeR', 'year', 'HOUR', 'hours', ' day', 'x' x 70000, "day\x01"), '22023') if one_in(20);
	if (one_in(3))
	{
		my $at = 1640995200 + int rand 86400 * 600;
		($from, $from_code) = (strftime('%Y-%m-%d %H:%M:%S+00', gmtime $at), '');
		($to, $to_code) = (strftime('%Y-%m-%d %H:%M:%S+00', gmtime $at + 7200 + int rand 86400 * 100), '');
		return ('usage_series', expected($choice_code, $zone_code, $source_code, $type_code, $bucket_code), $from, $to, $bucket, $zone, $source, $type, @$choice);
	}
	my @codes = ($choice_code, $zone_code, $source_code, $type_code, $bucket_code, '?22023');
	push @codes, map { $_ eq 'infinite' ? '22023' : $_ eq 'far' ? '' : $_ } $from_code, $to_code;
	return ('usage_series', expected(@codes), $from, $to, $bucket, $zone, $source, $type, @$choice);
}

sub account_transactions
{
	my ($self) = @_;
	my ($choice, $choice_code) = $self->choice;
	my ($from, $from_code) = one_in(3) ? (undef, '') : some_time();
	my ($to, $to_code) = one_in(3) ? (undef, '') : some_time();
	my ($rows, $rows_code) = @{ any([ undef, '' ], [ 1, '' ], [ 10, '' ], [ 100, '' ], one_in(4) ? ([ 0, '22023' ], [ -2147483648, '22023' ], [ 'x', 'c22P02' ], [ 2147483648, 'c22003' ]) : [ 5, '' ]) };
	my $id = $self->id;
	my ($before, $before_code) = @{ any(
			[ undef, '' ], [ '', '' ], [ "0-usage-$id", '' ], [ "$INT64_MAX-grant-$id", '' ], [ "-9223372036854775808-revert-$id", '' ], [ "-1-usage-{$id}", '' ],
			one_in(2) ? (map { [ $_, '22023' ] } 'mArKeR', '-', '--', '---', "1-usage-$id ", "1-Usage-$id", "9223372036854775808-usage-$id", "1-usages12-$id", "-usage-$id", "1--$id",
				"1-usage-", "1-usage", "1-usage-$id-$id", '-' x 70000, 'x' x 70000, "1-usage\x01-$id", "0x1-usage-$id") : [ undef, '' ]) };
	my @codes = ($choice_code, $rows_code, $before_code, map { /^(?:infinite|far)$/ ? '' : $_ } $from_code, $to_code);

	return ('account_transactions', expected(@codes), $from, $to, $rows, $before, @$choice);
}

sub balances
{
	my ($self) = @_;
	my ($choice, $choice_code) = $self->choice;
	return (any('account_balance', 'total_debited'), expected($choice_code), @$choice);
}

# What stands in request.jwt.claims.
sub claims
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($choice) = $self->choice;
	my ($text) = some_text(255);

	return (
		'claims',
		@{
			any(
				[ '00000', qq({"org_id": "o$w"}), undef, undef, undef ], [ '00000', qq({"org_id": "x", "org_id": "o$w"}), "f$w", undef, undef ],
				[ '00000', qq({"org\\u005fid": "o$w", "role": {"org_id": "mArKeR"}}), undef, undef, "p$w" ], [ '00000', '', "f$w", undef, undef ],
				[ '00000', qq({"a": [{"org_id": 5}], "org_id": "o$w", "": null}), undef, undef, undef ], [ '42501', qq({"org_id": "obig$w"}), "f$w", undef, undef ],
				[ '42501', qq({"org_id": "o$w"}), 'mArKeR', undef, undef ], [ '42501', qq({"org_id": "o$w"}), undef, undef, 'mArKeR' ], [ '42501', '{}', "f$w", undef, undef ],
				[ '42501', 'mArKeR', "f$w", undef, undef ], [ '42501', '[]', "f$w", undef, undef ], [ '42501', 'null', "f$w", undef, undef ], [ '42501', '"x"', "f$w", undef, undef ],
				[ '42501', ' ', "f$w", undef, undef ], [ '42501', qq({"org_id": ["o$w"]}), "f$w", undef, undef ], [ '42501', '{"org_id": null}', "f$w", undef, undef ],
				[ '42501', '{"org_id": ""}', "f$w", undef, undef ], [ '42501', '{"org_id": 1e400}', "f$w", undef, undef ], [ '42501', qq({"org_id": "o$w"), "f$w", undef, undef ],
				[ '42501', qq({"org_id": "o$w\\u0000"}), "f$w", undef, undef ], [ '42501', qq({"org_id": "\\ud800"}), "f$w", undef, undef ], [ '42501', qq({"org_id": "o$w", "org_id": 1}), "f$w", undef, undef ],
				[ '42501', qq({"ORG_ID": "o$w"}), "f$w", undef, undef ], [ '42501', qq({"org_id": "o$w"} {}), "f$w", undef, undef ], [ '42501', '{"org_id": "' . 'x' x 70000 . '"}', "f$w", undef, undef ],
				[ '42501 54001', '{"a": ' . nested(10000) . '}', "f$w", undef, undef ], [ '42501 54001', '[' x 100000, "f$w", undef, undef ],
				[ "00000 $CLAIMED", json_value(4), @$choice ], [ "00000 $CLAIMED", '{"org_id": ' . json_string($text) . '}', @$choice ],
				[ "00000 $CLAIMED", FuzzFacts::mutated(qq({"org_id": "o$w", "role": "web_anon"})), @$choice ]) });
}

# ---------------------------------------------------------------------------
# Accounts

sub create_billing_account
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($org, $org_code) = one_in(3) ? some_text(200) : ("on$w", '');
	my ($id, $id_code) = one_in(3) ? (any(undef, ''), '') : ("fn$w." . $self->{n}, '');
	my ($min, $min_code) = some_bigint(-1000);
	my $default = any(undef, 'false', 'false');
	my ($metadata, $metadata_code) = some_metadata();

	$min_code = '' if $min_code eq '22023';
	# an organisation of this document's own
	$org = length $org > 200 ? 'x' x 300 : "$org " . $self->id if $org ne "on$w";
	$org_code = length $org > 255 ? '22023' : '';
	($org, $org_code) = (any(undef, ''), '22023') if one_in(30);
	($id, $id_code) = ('x' x 256, '22023') if one_in(30);
	($id, $org, $org_code) = ("f$w", "o$w", '23505') if one_in(30);
	return ('create_billing_account', expected($org_code, $id_code, $min_code, $metadata_code), $org, $id, $min, $default, $metadata);
}

sub create_project
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($project, $code) = some_text(200);

	return ('create_project', @{
			any(
				[ '00000', "p$w", "o$w" ], [ '23505', "p$w", "obig$w" ], [ '22023', any(undef, ''), "o$w" ], [ '22023', 'x' x 256, "o$w" ], [ '22023', "q$w", any(undef, '', 'x' x 256) ],
				[ $code || length $project > 200 ? '00000 22023' : '00000', $project . $self->id, "o$w" ]) });
}

sub insert_billing_account
{
	my ($self) = @_;
	my $w = $self->{worker};
	my ($org, $org_code) = some_text(200);
	my ($min, $min_code) = some_bigint(-1000);
	my ($metadata, $metadata_code) = some_metadata();
	my ($billed, $billed_code) = one_in(2) ? (undef, '') : some_time();
	my ($created, $created_code) = one_in(2) ? (undef, '') : some_time();
	my ($state, $state_code) = one_in(10) ? (any('mArKeR', '', 'Active', 'x' x 70000), '23514') : (any('active', 'closed', undef), '');

	$org = length $org > 200 ? 'x' x 300 : "$org " . $self->id;
	$org_code = length $org > 255 ? '22023' : '';
	($org, $org_code) = ('', '22023') if one_in(30);
	$min_code = '' if $min_code eq '22023';
	s/^infinite$/22023/, s/^far$// for $billed_code, $created_code;
	return ('insert billing_account', expected($org_code, $min_code, $metadata_code, $billed_code, $created_code, $state_code),
		"fi$w." . $self->{n}, $org, any(undef, 'true', 'false'), $min, $state, $billed, $metadata, $created);
}

sub insert_project
{
	my ($self) = @_;
	my ($org, $org_code) = some_text(255);
	my ($at, $at_code) = some_time();

	s/^infinite$/22023/, s/^far$// for $at_code;
	($org, $org_code) = @{ any([ '', '22023' ], [ undef, '23502' ]) } if one_in(20);
	my @codes = ($org_code, $at_code);
	@codes = ('23502', grep { /^c/ } @codes) if $org_code eq '23502';
	return ('insert project', expected(@codes), "pi$self->{worker}." . $self->{n}, $org, $at);
}

# On accounts with billing dates of their own, so that those may go far.
sub close_billing_period
{
	my ($self) = @_;
	my ($at, $code) = some_time(1);
	my ($choice, $choice_code) = $self->choice;

	$code = '22023' if $code eq 'infinite';
	$code = '' if $code eq 'far';
	return ('close_billing_period', expected($choice_code, $code, '?22023'), $at, @$choice);
}

# ---------------------------------------------------------------------------
# Storage

sub some_org
{
	my ($self) = @_;
	return (any(undef, ''), '22023') if one_in(20);
	return ("o$self->{worker}", '') if one_in(2);
	return some_account_id('PT404');
}

# An organisation that no other session writes a row for, lest transactions of
# many calls come to wait for each other.
sub own_org
{
	my ($self) = @_;
	my ($org, $code) = some_text(253);
	$org .= " $self->{worker}";
	return ($org, length $org > 255 ? '22023' : '');
}

sub set_storage_limits
{
	my ($self) = @_;
	my ($org, $code) = $self->own_org;
	my @limits = map { one_in(3) ? [ undef, '' ] : [ some_bigint(0, '') ] } 1 .. 3;

	($org, $code) = (any(undef, ''), '22023') if one_in(20);
	return ('set_storage_limits', expected($code, map { $_->[1] } @limits), $org, map { $_->[0] } @limits);
}

sub storage
{
	my ($self) = @_;
	my ($org, $code) = $self->some_org;
	# organisations that other documents made are known
	my $maybe = $code eq 'PT404' ? '00000 PT404 22003' : expected($code, '?PT404 ?22003');

	# many calls in one transaction may come to wait for each other
	# and a table may have files of an organisation with a name too long
	return (one_in(10) ? 'recount_storage_usage' : 'refresh_storage_usage', "$maybe 40P01 22023", $org) if one_in(4);
	return ('get_storage_usage', $maybe, $org) if one_in(2);
	my ($days, $days_code) = @{ any([ undef, '' ], [ 1, '' ], [ 2147483647, '' ], [ 0, '22023' ], [ -1, '22023' ], [ -2147483648, '22023' ], [ 'x', 'c22P02' ], [ 2147483648, 'c22003' ]) };
	return ('get_storage_usage_history', $days_code eq '' ? $maybe : expected($days_code, $code, '?PT404'), $days, $org);
}

# Sizes that aren't finite are refused, because nothing could be taken from them
# again; a sum beyond bigint stays an error of the organisation's own.
sub insert_stored_file
{
	my ($self) = @_;
	my ($org, $org_code) = some_text(255);
	my ($kind) = some_text(255);
	my ($bytes, $bytes_code) = some_bigint(0, '');
	my ($seconds, $seconds_code) = @{ any([ undef, '' ], [ '0.000000000001', '' ], [ '1e1000', '' ],
			one_in(4) ? ([ 'NaN', '22003' ], [ 'Infinity', '22003' ], [ '-1', '23514' ], [ '-Infinity', '23514' ], [ 'mArKeR', 'c22P02' ], [ '1e200000', 'c22003' ]) : [ 12, '' ]) };

	$bytes_code = '23514' if $bytes_code eq '22023';
	($org, $org_code) = ('', '22023') if one_in(20);
	my ($file, $file_code) = one_in(20) ? (any('', 'x' x 256), '22023') : ($self->id, '');
	# checks come after the trigger that looks at the ids, and before the one that sums up
	my @codes = ($org_code, $bytes_code, $seconds_code, $file_code);
	return ('insert stored_file', expected(@codes), $file, $org, any('image', 'video', $kind), $bytes, $seconds);
}

sub insert_storage_snapshot
{
	my ($self) = @_;
	my ($org, $org_code) = $self->own_org;
	my ($files, $files_code) = some_bigint(0, '');
	my ($day, $day_code) = @{ any([ '2024-05-01', '' ], [ '4714-11-24 BC', '' ], [ '5874897-12-31', '' ], [ 'infinity', '22023' ], [ 'mArKeR', 'c22007' ], [ '5874898-01-01', 'c22008' ], [ '', 'c22007' ]) };
	my ($minutes, $minutes_code) = @{ any([ 0, '' ], [ '1e1000', '' ], [ '-1', '?22023' ], [ 'NaN', '22023' ], [ 'Infinity', '22023' ], [ 'x', 'c22P02' ]) };
	my ($at, $at_code) = some_time();

	$files_code = '?22023' if $files_code eq '22023';
	s/^infinite$/?22023/, s/^far$// for $at_code;
	($org, $org_code) = ('', '22023') if one_in(20);
	return ('insert storage_snapshot', expected($org_code, $files_code, $day_code, $minutes_code, $at_code), $org, $day, $files, $minutes, $at);
}

sub insert_storage_limit
{
	my ($self) = @_;
	my ($org) = some_text(200);
	my ($most, $most_code) = some_bigint(0, '');

	$most_code = '?22023 ?23514' if $most_code eq '22023';
	return ('insert storage_limit', expected(length $org > 200 ? '22023 23505' : '?22023', $most_code), length $org > 200 ? 'x' x 300 : "$org " . $self->id, $most);
}

sub track
{
	my ($self) = @_;
	my $table = "fuzz.files_$self->{worker}";
	my ($text) = some_text(60);
	# texts that are no numbers make every later count fail, in the server's words
	my @sizes = grep { $_ ne 'org' } my @columns = ('org', 'or"g', 'bytes', 'kind', 'length', "\xc3\x9cn\\", 'flag', 'ctid', 'tableoid', 'mArKeR', '', 'org; DROP TABLE x', $text, 'x' x 200);

	return ('untrack_storage', $TRACK, any($table, 'fuzz.some_view', 'pg_class', '0', '-1', '4294967295', 'mArKeR', 'a.b.c.d', '', 'fuzz.""')) if one_in(4);
	return ('track_storage', '00000 40P01 22003 22023', $table, any('org', 'or"g'), any('bytes', "\xc3\x9cn\\"), @{ any([ undef, 'kind' ], [ "vid'eo", undef ], [ '', '' ], [ undef, undef ]) }, any('length', undef, 'bytes'))
	  if one_in(3);
	return ('track_storage', $TRACK, one_in(4) ? any('fuzz.some_view', 'pg_catalog.pg_class', 'document', '0', '-1', 'mArKeR', 'usage_billing.usage_pkey', "\x01") : $table,
		any(@columns, undef), any(@sizes, 'bytes', 'bytes', undef), any(undef, undef, '', 'image', "vid'eo", $text), any(undef, undef, @columns), any(undef, undef, @sizes));
}

# Changes a table that may be tracked, under names and with values that are odd.
sub change_file
{
	my ($self) = @_;
	my ($org, $org_code) = some_text(255);
	my ($bytes, $bytes_code) = some_bigint(0, '');
	my @codes = ('?22003', '?22023', '?40P01', $bytes_code eq '22023' ? '' : $bytes_code);

	return ('change files', expected(@codes), $self->{worker}, any('insert', 'insert', 'insert', 'update', 'delete'), one_in(10) ? undef : $org, one_in(3) ? undef : $self->id, $bytes,
		any(undef, 'image', 'video', 'text'), any(undef, '12.5 seconds', '-1 year', '178000000 years'), any(undef, 1, '1e-10', 'NaN', 'Infinity', '1e1000'));
}

# What looks at everything, or makes it anew.
sub maintain
{
	my ($self) = @_;
	my ($text) = some_text(255);
	return (any('verify', 'rebuild'), '00000', any("f$self->{worker}", $text, '', 'x' x 70000));
}

1;
