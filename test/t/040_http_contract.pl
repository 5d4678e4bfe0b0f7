# The HTTP contract without PostgREST: the transactions that it was seen to run,
# over a plain connection as authenticator, for every function and each role of
# examples/postgrest/roles.sql; SQLSTATE to status, bodies, what a GET may do.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use PostgrestReplay;

my $json = JSON::PP->new->allow_nonref->canonical;
my $node = BillingNode::start();
my $root = "$FindBin::Bin/../..";

for (1 .. 2)
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$root/examples/postgrest/roles.sql" ], '>', \$out, '2>', \$err);
	is($err . $out, '', 'roles.sql runs, time ' . $_);
}

sub id { return sprintf '00000000-0000-4000-8000-%012d', $_[0] }

$node->safe_psql('postgres', <<'SQL');
SELECT usage_billing.create_billing_account('org-1', 'acct-1'), usage_billing.create_billing_account('org-2', 'acct-2'),
	usage_billing.create_billing_account('org-1', 'acct-closed');
SELECT usage_billing.create_project('prj-1', 'org-1'), usage_billing.create_project('prj-2', 'org-2');
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'acct-closed';
SELECT usage_billing.grant_credits(('00000000-0000-4000-8000-00000000000' || n)::uuid, 1000, 'acct-' || n) FROM generate_series(1, 2) n;
SELECT usage_billing.create_usage(jsonb_agg(jsonb_build_object('id', '00000000-0000-4000-8000-' || lpad((n * 100 + i)::text, 12, '0'), 'amount', i,
	'source', 'api', 'created_at', '2024-01-01T10:00:00Z')), 'acct-' || n)
FROM generate_series(1, 2) n, generate_series(1, 20) i GROUP BY n;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('f1', 'org-1', 'image', 10), ('f2', 'org-2', 'video', 20);
SELECT usage_billing.refresh_storage_usage('org-' || n) FROM generate_series(1, 2) n;
CREATE TABLE public.app_file (org text, bytes bigint);
SQL

my %claims = (
	anonymous => undef,
	tenant => { role => 'billing_tenant', org_id => 'org-1' },
	foreign => { role => 'billing_tenant', org_id => 'org-2' },
	nobody => { role => 'billing_tenant', org_id => 'org-9' },
	claimless => { role => 'billing_tenant' },
	service => { role => 'billing_service' },
	scoped => { role => 'billing_service', org_id => 'org-2' });
my $api = PostgrestReplay->new($node->connstr('postgres') . ' user=authenticator');

# All facts and what is derived from them, but not what repeated reading changes.
sub state
{
	return $node->safe_psql('postgres', q{SELECT md5(string_agg(r, ',' ORDER BY r)) FROM (
		SELECT a::text AS r FROM usage_billing.billing_account a UNION ALL SELECT p::text FROM usage_billing.project p
		UNION ALL SELECT g::text FROM usage_billing.credit_grant g UNION ALL SELECT u::text FROM usage_billing.usage u
		UNION ALL SELECT h::text FROM usage_billing.usage_archive h UNION ALL SELECT v::text FROM usage_billing.usage_revert v UNION ALL SELECT l::text FROM usage_billing.storage_limit l
		UNION ALL SELECT f::text FROM usage_billing.stored_file f
		UNION ALL SELECT (s.org_id, s.snapshot_date, s.total_storage_bytes)::text FROM usage_billing.storage_snapshot s) rows});
}

# ---------------------------------------------------------------------------
# Every function, every role. The body asks for what belongs to org-1. tenants:
# whether a tenant may call it; all: it works on all organisations at once.
my @functions = (
	[ account_balance => { billing_id => 'acct-1' }, tenants => 1 ],
	[ account_transactions => { billing_id => 'acct-1', max_rows => 3, from => '2024-01-01T00:00:00Z' }, tenants => 1 ],
	[ account_usage_trend => { billing_id => 'acct-1', from => '2024-01-01', to => '2024-01-02', include => 'trend', filter => [ { field => 'resource', eq => 'vod_streams' } ] }, tenants => 1 ],
	[ create_usage => { billing_id => 'acct-1', usages => [ { id => id(101), amount => 1, source => 'api', created_at => '2024-01-01T10:00:00Z' } ] }, tenants => 1 ],
	[ get_storage_usage => { org_id => 'org-1' }, tenants => 1 ],
	[ get_storage_usage_history => { org_id => 'org-1', days => 5 }, tenants => 1 ],
	[ refresh_storage_usage => { org_id => 'org-1' }, tenants => 1 ],
	[ total_debited => { project_id => 'prj-1' }, tenants => 1 ],
	[ usage_series => { org_id => 'org-1', from => '2024-01-01T00:00:00Z', to => '2024-01-02T00:00:00Z', bucket => 'day', type => 'credit' }, tenants => 1 ],
	[ close_billing_period => { billing_id => 'acct-1', at => '2024-01-01T00:00:00Z' } ],
	[ create_billing_account => { org_id => 'org-1', billing_id => 'acct-1' } ],
	[ create_project => { org_id => 'org-1', project_id => 'prj-1' } ],
	[ grant_credits => { billing_id => 'acct-1', id => id(1), amount => 1000 } ],
	[ recount_storage_usage => { org_id => 'org-1' } ],
	[ revert_usage => { billing_id => 'acct-1', usage_id => id(102), amount => 1, id => id(900) } ],
	[ set_storage_limits => { org_id => 'org-1', max_image_count => 7 } ],
	[ verify => { billing_id => 'acct-1' }, all => 1 ],
	[ rebuild => { billing_id => 'acct-1' }, all => 1 ],
	[ run_maintenance => {}, all => 1 ],
	[ reset_usage_billing_stats => {}, all => 1 ],
	[ prune_usage => { older_than => '2023-01-01T00:00:00Z', billing_id => 'acct-1', max_rows => 100 }, all => 1 ],
	[ track_storage => { relation => 'public.app_file', org_column => 'org', bytes_column => 'bytes' }, none => 1 ],
	[ untrack_storage => { relation => 'public.app_file' }, none => 1 ]);

# The first revert and the limits are there before, so that nothing changes below.
is($api->post($claims{service}, 'revert_usage', $functions[14][1])->{status}, 200, 'a revert');
is($api->post($claims{service}, 'set_storage_limits', $functions[15][1])->{status}, 204, 'limits');
is($api->post($claims{service}, 'close_billing_period', $functions[9][1])->{status}, 200, 'a billing date');
is_deeply([ sort grep { !/^(request|delivery|derived|require|routed|read)_/ } keys %{ $api->{functions} } ], [ sort map { $_->[0] } @functions ],
	'every function that a request could name is tried')
  or diag(explain [ sort keys %{ $api->{functions} } ]);

sub wanted
{
	my ($caller, %rule) = @_;
	return '401 42501' if $caller eq 'anonymous';
	return '403 42501' if $rule{none} || $caller =~ /claimless|foreign|nobody|scoped/;
	return '403 42501' if $caller eq 'tenant' && !$rule{tenants};
	return $rule{void} ? '204 00000' : '200 00000';
}

my %body;
my $before = state();
for (@functions)
{
	my ($name, $body, %rule) = @$_;
	my $function = $api->{functions}{$name};
	my $reads = $function->{volatility} ne 'v';

	for my $caller (sort keys %claims)
	{
		my $want = wanted($caller, %rule, void => $function->{void});
		my $answer = $api->post($claims{$caller}, $name, $body);
		is("$answer->{status} $answer->{code}", $want, "$name as $caller") or diag($answer->{body});
		$body{$name}{$caller} = $answer->{body};
		is($answer->{headers}{'WWW-Authenticate'}, 'Bearer', "$name as $caller asks for a token") if $caller eq 'anonymous';

		my %query = map { $_ => ref $body->{$_} ? $json->encode($body->{$_}) : $body->{$_} } keys %$body;
		$answer = $api->get($claims{$caller}, $name, \%query);
		# a GET may not write; which of two reasons refuses it doesn't matter
		$want = !$reads && $want =~ /^20/ ? '405 25006' : !$reads && $want =~ /^403/ ? '(405 25006|403 42501)' : $want;
		like("$answer->{status} $answer->{code}", qr/^$want$/, "GET $name as $caller") or diag($answer->{body});
		is($answer->{body}, $body{$name}{$caller}, "GET $name as $caller: the same body") if $answer->{status} == 200;
	}
}
is(state(), $before, 'repeated, refused and read-only calls change nothing');

# What is refused says the same of what there is and what there is not.
for my $name (qw(account_balance account_transactions account_usage_trend create_usage total_debited usage_series))
{
	my ($rest) = map { { %{ $_->[1] } } } grep { $_->[0] eq $name } @functions;
	delete @$rest{qw(billing_id org_id project_id)};
	my %seen;
	for my $choice ({ billing_id => 'acct-2' }, { billing_id => 'none' }, { org_id => 'org-2' }, { org_id => 'none' }, { project_id => 'prj-2' }, { project_id => 'none' },
		{ billing_id => 'acct-2', org_id => 'org-2' }, { billing_id => 'acct-1', project_id => 'prj-2' })
	{
		$seen{ $api->post($claims{tenant}, $name, { %$rest, %$choice })->{body} }++;
	}
	is(scalar keys %seen, 1, "$name: one answer for all that is not the tenant's") or diag(explain \%seen);
}
is($body{account_balance}{foreign}, $body{account_balance}{nobody}, 'and for every other token');

# ---------------------------------------------------------------------------
# Bodies.

sub decoded { return $json->decode($_[0]{body}) }

is_deeply(decoded($api->post($claims{tenant}, 'account_balance', {})), { billing_id => 'acct-1', org_id => 'org-1', balance => 791, credit_min => 0, available => 791 }, 'jsonb is the body');
is($api->post($claims{tenant}, 'total_debited', {})->{body}, '209', 'a scalar is the body');
is($api->post($claims{tenant}, 'request_org', {})->{body}, '"org-1"', 'request_org');
is_deeply([ sort @{ decoded($api->get($claims{tenant}, 'request_accounts')) } ], [qw(acct-1 acct-closed)], 'request_accounts');
is($api->get($claims{service}, 'request_org')->{body}, 'null', 'a null scalar is null');
is_deeply([ map { $_->{status} } map { $api->get($claims{$_}, 'request_org') } qw(anonymous claimless) ], [ 401, 403 ], 'request_org is refused as all else');
is($api->post($claims{tenant}, 'account_transactions', { from => '2030-01-01T00:00:00Z' })->{body}, '[]', 'an empty set is []');
is($api->post($claims{nobody}, 'account_transactions', {})->{code}, 'PT404', 'a token whose organisation has no account');
is($api->post($claims{tenant}, 'usage_series', { from => '2020-01-01T00:00:00Z', to => '2020-01-02T00:00:00Z' })->{body}, '[]', 'no usage, no bucket');
is($api->post($claims{service}, 'verify', {})->{body}, '[]', 'verify finds nothing');
my $snapshot = decoded($api->get($claims{tenant}, 'get_storage_usage'));
is_deeply([ sort keys %$snapshot ], [ sort qw(org_id snapshot_date last_updated project_count image_file_count image_storage_bytes video_file_count
	  video_storage_bytes total_file_count total_storage_bytes total_video_minutes max_image_count max_video_count max_project_count) ], 'a composite is an object');
is_deeply([ @$snapshot{qw(org_id image_storage_bytes total_video_minutes max_image_count max_video_count)} ], [ 'org-1', 10, '0.00', 7, undef ], 'with numbers, a text and nulls');
is(decoded($api->get($claims{tenant}, 'get_storage_usage_history', { days => 3 }))->[0]{total_file_count}, 1, 'a set of them is an array');
is_deeply(decoded($api->post($claims{service}, 'create_project', { project_id => 'prj-1', org_id => 'org-1' }))->{project_id}, 'prj-1', 'a row is an object');
my $page = decoded($api->get($claims{tenant}, 'account_transactions', { max_rows => 2 }));
my $next = decoded($api->get($claims{tenant}, 'account_transactions', { max_rows => 2, before => $page->[1]{cursor} }));
is_deeply([ map { $_->{kind} } @$page, @$next ], [qw(revert grant usage usage)], 'pages by cursor, newest first') or diag(explain [ @$page, @$next ]);
my $trend = decoded($api->get($claims{tenant}, 'account_usage_trend', { from => '2024-01-01', to => '2024-01-02', include => 'trend', filter => '[{"field":"resource","in":"transcoders,vod_streams"}]' }));
is_deeply($trend->{limits}, { resources => [qw(transcoders vod_streams)], from => '2024-01-01T00:00:00.000Z', to => '2024-01-02T00:00:00.000Z' }, 'a filter in the query string');
is($api->post($claims{tenant}, 'account_usage_trend', { filter => '[{"field":"resource","eq":"vod_streams"}]' })->{code}, '22023',
	'in a POST it is JSON, not a string that holds JSON');

# With "columns" PostgREST hands on the body unread and names these parameters.
my @columns = qw(usages billing_id org_id project_id);
my $repeated = $functions[3][1];
is($api->post($claims{tenant}, 'create_usage', $json->encode({ %$repeated, junk => 5 }), columns => \@columns)->{status}, 200, 'columns: keys beside them are left out');
is($api->post($claims{tenant}, 'create_usage', '{}', columns => \@columns)->{code}, '22023', 'columns: a missing key is null');
is($api->post($claims{tenant}, 'create_usage', '{"usages": [', columns => \@columns)->{status}, 400, 'columns: what is no JSON is left to the database');
is($api->post($claims{tenant}, 'create_usage', '{"usages":[],"org_id":"org-2","org_id":"org-1"}', columns => \@columns)->{status}, 200, 'columns: of two keys the last one counts');
is($api->post($claims{tenant}, 'create_usage', '{"usages":[],"org_id":"org-1","org_id":"org-2"}', columns => \@columns)->{status}, 403, 'and only it');

# ---------------------------------------------------------------------------
# Errors: status, code, and a message that repeats nothing of the caller's.

my $long = 'x' x 256;
for (
	[ 400, '22023', create_usage => { billing_id => 'acct-1', usages => {} } ],
	[ 400, '22023', create_usage => { billing_id => 'acct-1', usages => [ { id => id(1) } ] } ],
	[ 400, '22023', create_usage => { billing_id => 'acct-1', usages => '[]' } ],
	[ 400, '22023', account_balance => { org_id => 'org-1', project_id => 'prj-1' } ],
	[ 400, '22023', account_balance => {} ],
	[ 400, '22023', account_balance => { billing_id => $long } ],
	[ 400, '22023', get_storage_usage_history => { org_id => 'org-1', days => 0 } ],
	[ 400, '22023', account_transactions => { billing_id => 'acct-1', max_rows => -1 } ],
	[ 400, '22023', set_storage_limits => { org_id => 'org-1', max_image_count => -1 } ],
	[ 400, '22P02', revert_usage => { billing_id => 'acct-1', usage_id => 'mArKeR' }, 'server' ],
	[ 400, '22P02', create_usage => { billing_id => 'acct-1', usages => [ { id => 'mArKeR', amount => 1 } ] } ],
	[ 400, '22P02', get_storage_usage_history => { org_id => 'org-1', days => 'mArKeR' }, 'server' ],
	[ 400, '22003', create_usage => { billing_id => 'acct-1', usages => [ { id => id(1), amount => '98765432109876543210' } ] } ],
	[ 400, '22007', create_usage => { billing_id => 'acct-1', usages => [ { id => id(1), amount => 1, created_at => 'mArKeR' } ] } ],
	[ 400, '22007', account_usage_trend => { billing_id => 'acct-1', from => 'mArKeR' } ],
	[ 400, 'UB001', create_usage => { billing_id => 'acct-1', usages => [ { id => id(700), amount => 1000000 } ] } ],
	[ 400, 'UB002', revert_usage => { billing_id => 'acct-1', usage_id => id(103), amount => 1000000 } ],
	[ 400, 'UB003', create_usage => { billing_id => 'acct-closed', usages => [ { id => id(700), amount => 0 } ] } ],
	[ 400, 'UB003', grant_credits => { billing_id => 'acct-closed', id => id(700), amount => 1 } ],
	[ 404, 'PT404', account_balance => { billing_id => "mArKeR\r\nX-Evil: 1" } ],
	[ 404, 'PT404', account_balance => { org_id => "mArKeR\n" } ],
	[ 404, 'PT404', account_balance => { project_id => "\r\n\r\nmArKeR" } ],
	[ 404, 'PT404', get_storage_usage => { org_id => "mArKeR\r\n" } ],
	[ 404, 'PT404', refresh_storage_usage => { org_id => "mArKeR\r\n" } ],
	[ 404, 'PT404', recount_storage_usage => { org_id => "mArKeR\r\n" } ],
	[ 404, 'PT404', revert_usage => { billing_id => 'acct-1', usage_id => id(999) } ],
	[ 404, 'PT404', close_billing_period => { billing_id => "mArKeR\r\n" } ],
	[ 409, '23505', create_usage => { billing_id => 'acct-1', usages => [ { id => id(101), amount => 77 } ] } ],
	[ 409, '23505', revert_usage => { billing_id => 'acct-1', usage_id => id(102), amount => 1 } ],
	[ 409, '23505', grant_credits => { billing_id => 'acct-1', id => id(1), amount => 5 } ],
	[ 409, '23505', create_billing_account => { billing_id => 'acct-1', org_id => 'org-2' } ],
	[ 409, '23505', create_project => { project_id => 'prj-1', org_id => 'org-2' } ],
	[ 404, 'PGRST202', account_balance => { billing_id => 'acct-1', mArKeR => 1 } ],
	[ 404, 'PGRST202', no_such_function => {} ],
	[ 400, 'PGRST102', account_balance => '[]' ],
	[ 400, 'PGRST102', account_balance => 'mArKeR' ])
{
	my ($status, $code, $name, $body, $server) = @$_;
	my $what = "$name(" . (ref $body ? $json->encode($body) : $body) . ')';
	$what = substr($what, 0, 100) . '...' if length $what > 100;
	my $answer = $api->post($claims{service}, $name, $body);
	is("$answer->{status} $answer->{code}", "$status $code", $what) or diag($answer->{body});
	next if $code =~ /^PGRST/;
	# a parameter's type is the server's own: it quotes what it can't read
	unlike($answer->{message}, qr/marker|98765|[\r\n]|[.]$|^[A-Z]/i, "$what: the message") if !$server && $answer->{message} !~ /^[a-z][a-z ,']+$/;
	ok(defined $answer->{details} && $answer->{details} ne '', "$what: says what was found") unless $server;
}
is(state(), $before, 'refused calls change nothing');

# ---------------------------------------------------------------------------
# Rows.

for my $caller (qw(tenant foreign nobody service scoped))
{
	my @orgs = $caller eq 'service' ? ('org-1', 'org-2') : $claims{$caller}{org_id};
	for my $table (qw(billing_account project stored_file storage_snapshot))
	{
		my %seen = map { $_->{org_id} => 1 } @{ decoded($api->rows($claims{$caller}, $table)) };
		is_deeply([ sort keys %seen ], [ grep { $caller ne 'nobody' } @orgs ], "$table as $caller");
	}
	for my $table (qw(usage credit_grant account_statement usage_remaining))
	{
		my %seen = map { $_->{billing_id} => 1 } @{ decoded($api->rows($claims{$caller}, $table)) };
		is_deeply([ sort keys %seen ], [ map { s/org/acct/r } grep { $caller ne 'nobody' } @orgs ], "$table as $caller");
	}
}
is_deeply(decoded($api->rows($claims{tenant}, 'storage_limit')), [ { org_id => 'org-1', max_image_count => 7, max_video_count => undef, max_project_count => undef } ], 'storage_limit as tenant');
is_deeply(decoded($api->rows($claims{foreign}, 'storage_limit')), [], 'storage_limit as foreign');
is_deeply([ map { @$_{qw(usage_id amount)} } @{ decoded($api->rows($claims{tenant}, 'usage_revert')) } ], [ id(102), 1 ], 'usage_revert as tenant');
is_deeply(decoded($api->rows($claims{foreign}, 'usage_revert')), [], 'usage_revert as foreign');
is_deeply([ map { @$_{qw(amount reverted remaining)} } @{ decoded($api->rows($claims{tenant}, 'usage_remaining', "id = '" . id(102) . "'")) } ], [ 2, 1, 1 ], 'usage_remaining knows the revert');
is(scalar @{ decoded($api->rows($claims{tenant}, 'usage', "billing_id = 'acct-2'")) }, 0, 'asking for rows of another account finds none');

my @tables = split /\n/, $node->safe_psql('postgres', q{SELECT relname FROM pg_class WHERE relnamespace = 'usage_billing'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1});
my %views = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', q{SELECT viewname FROM pg_views WHERE schemaname = 'usage_billing'});
my %readable = map { $_ => 1 } qw(account_statement billing_account credit_grant project storage_limit storage_snapshot stored_file usage usage_archive usage_remaining usage_revert);
for my $table (@tables)
{
	is($api->rows($claims{anonymous}, $table)->{status}, 401, "$table as anonymous");
	is($api->rows($claims{claimless}, $table)->{status}, 403, "$table with a token without claim");
	for my $caller (qw(tenant service))
	{
		is($api->rows($claims{$caller}, $table)->{status}, 403, "$table as $caller: not granted") unless $readable{$table};
		# the views can't be written to by anybody
		my $refused = $views{$table} ? '(55000|42501)' : '42501';
		like($api->change($claims{$caller}, "DELETE FROM usage_billing.\"$table\"")->{code}, qr/^$refused$/, "DELETE $table as $caller");
		like($api->change($claims{$caller}, "INSERT INTO usage_billing.\"$table\" DEFAULT VALUES")->{code}, qr/^$refused$/, "INSERT $table as $caller");
	}
}
is(state(), $before, 'nothing is writable but through the functions');

# ---------------------------------------------------------------------------
# One backend serves them all: nothing of one request is left in the next.

for my $round (1 .. 8)
{
	for my $caller (qw(tenant foreign service claimless))
	{
		my $usage = $api->rows($claims{$caller}, 'usage');
		my $balance = $api->post($claims{$caller}, 'account_balance', { billing_id => 'acct-2' });
		my @seen = $usage->{status} == 200 ? scalar @{ decoded($usage) } : $usage->{status};
		is_deeply([ @seen, $balance->{status} ],
			{ tenant => [ 20, 403 ], foreign => [ 20, 200 ], service => [ 40, 200 ], claimless => [ 403, 403 ] }->{$caller}, "round $round as $caller");
	}
}

# Claims that are no object, whatever else they are.
for my $raw ('', '[]', '"org-1"', '5', 'null', 'mArKeR', '{', '{"role":"billing_service","org_id":{"org_id":"org-1"}}', '{"role":"billing_tenant","org_id":["org-1"]}')
{
	my $answer = $api->post($claims{tenant}, 'account_balance', { billing_id => 'acct-1' }, raw_claims => $raw);
	# no claims at all is plain SQL, which PostgREST never sends
	is($answer->{status}, $raw eq '' ? 200 : 403, "claims '$raw'");
}

# What the caller puts into the search_path does not matter.
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE TABLE evil.usage AS SELECT 'acct-1'::text AS billing_id, 1 AS amount;
CREATE FUNCTION evil.request_org() RETURNS text LANGUAGE sql AS $$ SELECT 'org-2' $$;
CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$;
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
CREATE FUNCTION evil.sum_bigint(bigint, bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT 666::bigint $$;
CREATE AGGREGATE evil.sum(bigint) (SFUNC = evil.sum_bigint, STYPE = bigint, INITCOND = '0');
SQL
for my $path ('', '"evil"', '"evil", pg_catalog', '"usage_billing", "public"', 'pg_temp, "evil"')
{
	is($api->post($claims{tenant}, 'account_balance', {}, search_path => $path)->{body}, $body{account_balance}{tenant}, "account_balance, search_path '$path'");
	is(scalar @{ decoded($api->rows($claims{tenant}, 'usage', undef, search_path => $path)) }, 20, "usage, search_path '$path'");
	is($api->rows($claims{tenant}, 'usage_remaining', "billing_id OPERATOR(pg_catalog.=) 'acct-1'", search_path => $path)->{body},
		$api->rows($claims{tenant}, 'usage_remaining')->{body}, "usage_remaining, search_path '$path'");
}
$api->finish;

# ---------------------------------------------------------------------------
# A setting that is a superuser's stays one, also in a session that has not
# loaded the library yet.
for my $setting (q{usage_billing.service_role = 'billing_tenant'}, q{usage_billing.org_claim = 'role'}, q{usage_billing.restoring = on})
{
	my $fresh = PostgrestReplay->new($node->connstr('postgres') . ' user=authenticator');
	$fresh->send("SET $setting;");
	is($fresh->post($claims{claimless}, 'account_balance', { billing_id => 'acct-1' })->{status}, 403, "SET $setting beforehand opens nothing");
	$fresh->finish;
}

# ---------------------------------------------------------------------------
# In other encodings the policies are written in another way and say the same.

for my $encoding (qw(LATIN1 SQL_ASCII EUC_JP))
{
	my $name = lc "encoding_$encoding";
	$node->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING '$encoding' LOCALE 'C'");
	$node->safe_psql($name, q{CREATE EXTENSION usage_billing;
		SELECT usage_billing.create_billing_account('org-' || n, 'acct-' || n) FROM generate_series(1, 3) n;
		INSERT INTO usage_billing.usage (billing_id, id, amount) SELECT 'acct-' || n, gen_random_uuid(), 1 FROM generate_series(1, 3) n;
		INSERT INTO usage_billing.stored_file (file_id, org_id) SELECT n, 'org-' || n FROM generate_series(1, 3) n;
		GRANT USAGE ON SCHEMA usage_billing TO billing_tenant;
		GRANT SELECT ON ALL TABLES IN SCHEMA usage_billing TO billing_tenant;
		GRANT EXECUTE ON FUNCTION usage_billing.request_org(), usage_billing.request_accounts() TO billing_tenant});
	my $count = q{SET ROLE billing_tenant; SELECT (SELECT count(*) FROM usage_billing.usage), (SELECT count(*) FROM usage_billing.stored_file)};
	is($node->safe_psql($name, $count), '3|3', "$encoding: plain SQL sees all");
	is($node->safe_psql($name, qq(SET request.jwt.claims = '{"org_id": "org-2"}'; $count)), '1|1', "$encoding: a token its own");
	is((BillingNode::outcome($node, $name, "SET request.jwt.claims = '{}'; $count"))[0], '42501', "$encoding: without a claim nothing");
}

# ---------------------------------------------------------------------------
# The examples of docs/http.md, in a database of their own.

$node->safe_psql('postgres', 'CREATE DATABASE docs');
$node->safe_psql('docs', 'CREATE EXTENSION usage_billing');
IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('docs'), '-f', "$root/examples/postgrest/roles.sql" ]) or die 'roles.sql failed';
$api = PostgrestReplay->new($node->connstr('docs') . ' user=authenticator');

# Whether an answer is what the page shows; the text of three dots is anything.
sub shown
{
	my ($got, $want) = @_;
	return 1 if defined $want && !ref $want && $want eq "\x{2026}";
	return !defined $got if !defined $want;
	return defined $got && $got eq $want if !ref $want || JSON::PP::is_bool($want);
	return ref $got eq 'ARRAY' && @$got == @$want && !grep { !shown($got->[$_], $want->[$_]) } 0 .. $#$want if ref $want eq 'ARRAY';
	return ref $got eq 'HASH' && keys %$got == keys %$want && !grep { !exists $got->{$_} || !shown($got->{$_}, $want->{$_}) } keys %$want;
}

# The filters that the page uses.
sub filtered
{
	my ($claims, $table, @pairs) = @_;
	my %query = map { @$_ } @pairs;
	my $columns = delete $query{select};
	my $order = delete $query{order};
	my $where = join ' AND ', map { my ($o, $v) = split /\./, $query{$_}, 2; "$_ " . { eq => '=', gt => '>' }->{$o} . " '$v'" } sort keys %query;
	return $api->transaction($claims, { method => 'GET', path => "/$table", read_only => 1 },
		PostgrestReplay::around("SELECT $columns FROM usage_billing.$table WHERE $where" . ($order ? " ORDER BY $order" : ''), "coalesce(json_agg(_postgrest_t), '[]')"));
}

my $page_text = slurp_file("$root/docs/http.md");
utf8::decode($page_text);
my $shown = 0;
while ($page_text =~ /^```http\n(\w+) (\S+) as (\w+)\n(.*?)\n?\n(\d{3})\n(.*?)^```$/msg)
{
	my ($method, $target, $caller, $sent, $status, $text) = ($1, $2, $3, $4, $5, $6);
	my ($path, $query) = split /\?/, $target, 2;
	my @pairs = map { [ split /=/, $_, 2 ] } split /&/, $query // '';
	my $claims = $claims{$caller} or die "who is $caller?";
	my $answer = $path !~ m{^/rpc/(.*)} ? filtered($claims, substr($path, 1), @pairs)
	  : $method eq 'GET' ? $api->get($claims, $1, { map { @$_ } @pairs })
	  : $api->post($claims, $1, $sent);

	is($answer->{status}, $status, "docs/http.md: $method $target as $caller") or diag($answer->{body});
	my $body = $answer->{body};
	utf8::decode($body);
	ok($text =~ /\S/ ? shown($json->decode($body), $json->decode($text)) : $body eq '', 'answers as shown') or diag($body);
	$shown++;
}
my $blocks = () = $page_text =~ /^```http$/mg;
is($shown, $blocks, 'every example was run');
cmp_ok($shown, '>', 20, 'and there are many');
my %named = map { $_ => 1 } map { split /, / } $page_text =~ /^### (.*)$/mg;
is(join(' ', sort grep { !$named{$_} && !/^(delivery_measures|derived_|require_unscoped|request_worker|routed_|read_stats|track_storage|untrack_storage)/ } keys %{ $api->{functions} }), '', 'every function is on the page');
$api->finish;

$node->stop;
done_testing();
