# examples/gateway with the real nginx: what it makes of each original request,
# first in front of a server that records, then of one that answers from a
# database as PostgREST does.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(hmac_sha256);
use JSON::PP ();
use MIME::Base64 qw(encode_base64 decode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;
use GatewayNode;
use HttpPeer;
use PostgrestReplay;

my $json = JSON::PP->new->allow_nonref->canonical;
my $root = "$FindBin::Bin/../..";
my $directory = PostgreSQL::Test::Utils::tempdir();

# ---------------------------------------------------------------------------
# A server that records. It knows one client, and refuses a call as its body
# asks for.
my $recorder = HttpPeer::serve(
	"$directory/requests",
	sub {
		my ($request) = @_;
		my $headers = $request->{headers};
		if ($request->{target} eq '/rpc/basic_auth')
		{
			return (503, '{}') if $headers->{'x-billing-authorization'} =~ /ZG93bg/;
			return $headers->{'x-billing-authorization'} eq 'Basic Y2xpZW50OnNlY3JldA=='
			  ? (204, '', 'X-Billing-Token' => 'made.token.here')
			  : (401, '{"code":"PT401","message":"Unauthorized","details":null,"hint":null}');
		}
		return ($1, $2) if $request->{body} =~ /"answer-(\d+)":(\{.*?\})\}/;
		return (502, '<html>', 'Content-Type' => 'text/html') if $request->{body} =~ /break-html/;
		return (200, '[' . join(',', ('{"n":1234567890123456789}') x 20000) . ']') if $request->{body} =~ /"days":"20000"/;
		return (200, '{"upstream":9007199254740993}');
	});
my $gateway = GatewayNode::start($root, $recorder->{port});
my %bearer = (Authorization => 'Bearer a.b.c');

sub ask { return HttpPeer::ask($gateway->{port}, @_) }

# One request, the body that must arrive, and where.
sub arrives
{
	my ($method, $target, $rpc, $body, $name, %more) = @_;
	my $answer = ask($method, $target, headers => { %bearer, %{ $more{headers} || {} } }, exists $more{body} ? (body => $more{body}) : ());
	my @seen = $recorder->requests;
	my ($path, $columns) = @seen ? split /\?/, $seen[-1]{target} : ('nothing', '');

	is("$seen[-1]{method} $path", "POST /rpc/$rpc", "$name: goes to $rpc") or diag(explain [ $answer, @seen ], $gateway->errors);
	like($columns, qr/^columns=[a-z_,]+$/, "$name: nothing else is in its URL");
	is($seen[-1]{body}, $body, "$name: the body");
	is($seen[-1]{headers}{'content-type'}, 'application/json', "$name: JSON");
	is($seen[-1]{headers}{authorization}, $more{token} // 'Bearer a.b.c', "$name: the token");
	is($answer->{status}, 200, "$name: answers");
	is($answer->{body}, $more{answer} // '{"upstream":9007199254740993}', "$name: what is expected");
	return $answer;
}

# One that must not arrive.
sub refused
{
	my ($method, $target, $status, $name, %more) = @_;
	my $answer = ask($method, $target, headers => { %bearer, %{ $more{headers} || {} } }, exists $more{body} ? (body => $more{body}) : ());
	my @seen = grep { $_->{target} !~ /basic_auth/ } $recorder->requests;

	is($answer->{status}, $status, "$name: $status") or diag($answer->{body});
	is(scalar @seen, 0, "$name: nothing arrives") or diag(explain \@seen);
	ok(ref $json->decode($answer->{body}) eq 'HASH', "$name: the answer is JSON") if $status != 414 && $status != 400 || $answer->{body} =~ /^\{/;
	return $answer;
}

my $usages = '{"org_id":"o","usages":[{"id":"00000000-0000-4000-8000-000000000001","amount":9223372036854775807}]}';
my $v1 = '/v1beta1/organizations';

# Creating and reverting usage.
arrives('POST', "$v1/billing/usages", 'create_usage', $usages, 'create', body => $usages, answer => '{}');
arrives('POST', "$v1/billing/usages/revert", 'revert_usage', '{"usage_id":"u","amount":"5"}', 'revert', body => '{"usage_id":"u","amount":"5"}', answer => '{}');
arrives('POST', "$v1/org-1/billing/usages", 'create_usage', '{"usages":[],"org_id":"org-1"}', 'create, path', body => '{"usages":[]}', answer => '{}');
arrives('POST', "$v1/org-1/billing/acct-1/usages", 'create_usage', '{"usages":[],"org_id":"org-1","billing_id":"acct-1"}', 'create, path with account', body => '{"usages":[]}', answer => '{}');
arrives('POST', "$v1/org-1/billing/acct-1/usages/u-1/revert", 'revert_usage', '{"amount":1 ,"org_id":"org-1","billing_id":"acct-1","usage_id":"u-1"}', 'revert, path', body => ' {"amount":1 } ', answer => '{}');
arrives('POST', "$v1/org-1/billing/acct-1/usages/u-1/revert", 'revert_usage', '{"org_id":"org-1","billing_id":"acct-1","usage_id":"u-1"}', 'revert, path, no body', answer => '{}');
arrives('POST', "$v1/org-1/billing/usages/revert", 'revert_usage', '{"usage_id":"u","org_id":"org-1"}', 'revert, org in the path', body => '{"usage_id":"u"}', answer => '{}');
arrives('POST', "$v1/billing/usages?org_id=org-1", 'create_usage', '{"usages":[],"org_id":"org-1"}', 'org_id in the query', body => "{\"usages\":[]}\r\n", answer => '{}');
arrives('POST', "$v1/billing/usages?org_id=org-1&select=*&limit=5&usages=eq.1&columns=x&foo", 'create_usage', "{\n\"org_id\":\"org-1\"}", 'other parameters', body => " {\n} ", answer => '{}');
arrives('POST', "$v1/org-1/billing/usages?org_id=org-1&project_id=p", 'create_usage', '{"usages":[],"org_id":"org-1","project_id":"p"}', 'the same org twice', body => '{"usages":[]}', answer => '{}');
arrives('POST', "$v1/a%2Fb%22%7D/billing/%C3%BC/usages", 'create_usage', '{"org_id":"a/b\"}","billing_id":"' . "\xc3\xbc" . '"}', 'encoded path', body => '{}', answer => '{}');
{
	my $big = '{"usages":[' . join(',', ('{"id":"00000000-0000-4000-8000-000000000001","amount":1,"description":"' . "\xc3\xa4" x 150 . '"}') x 10000) . ']}';
	arrives('POST', "$v1/billing/usages?org_id=o", 'create_usage', substr($big, 0, -1) . ',"org_id":"o"}', sprintf('a body of %.1f MB', length($big) / 1e6), body => $big, answer => '{}');
	my $chunked = join '', map { sprintf("%x\r\n%s\r\n", length, $_) } '{"usages":[', ']}', '';
	arrives('POST', "$v1/billing/usages?org_id=o", 'create_usage', '{"usages":[],"org_id":"o"}', 'a chunked body', body => $chunked, headers => { 'Transfer-Encoding' => 'chunked' }, answer => '{}');
	is(refused('POST', "$v1/billing/usages", 413, 'a body over the limit', body => 'x' x (9 << 20))->{body}, '{"code":3,"message":"request body is too large","details":[]}', 'in the usual shape');
}

# Headers that PostgREST would act on stay here.
arrives('POST', "$v1/billing/usages", 'create_usage', '{}', 'other headers', body => '{}', answer => '{}',
	headers => { Prefer => 'tx=rollback', 'Content-Profile' => 'billing_gateway', 'Accept-Profile' => 'pg_catalog', Accept => 'text/csv', Range => '0-1',
		'Content-Type' => 'text/csv', 'X-Billing-Authorization' => 'Basic x', 'X-Billing-Token' => 'forged', Cookie => 'c=1' });
{
	ask('POST', "$v1/billing/usages", headers => { %bearer, Prefer => 'tx=rollback', 'Accept-Profile' => 'x', 'X-Billing-Token' => 'x', Cookie => 'c=1' }, body => '{}');
	my ($seen) = $recorder->requests;
	is(join(' ', sort keys %{ $seen->{headers} }), 'accept authorization content-length content-type host', 'only these headers arrive');
	is($seen->{headers}{accept}, 'application/json', 'and ask for JSON');
}

# Client id and secret.
arrives('POST', "$v1/billing/usages", 'create_usage', '{}', 'HTTP Basic', body => '{}', answer => '{}', token => 'Bearer made.token.here',
	headers => { Authorization => 'Basic Y2xpZW50OnNlY3JldA==' });
arrives('POST', "$v1/billing/usages", 'create_usage', '{}', 'bearer in small letters', body => '{}', answer => '{}', token => 'bearer a.b.c', headers => { Authorization => 'bearer a.b.c' });
{
	ask('POST', "$v1/billing/usages", headers => { Authorization => 'Basic Y2xpZW50OnNlY3JldA==' }, body => '{}');
	my @seen = $recorder->requests;
	is("$seen[0]{method} $seen[0]{target} $seen[0]{headers}{'accept-profile'} $seen[0]{body}", 'GET /rpc/basic_auth billing_gateway ', 'the secret is asked about once, without the body');
	is($seen[0]{headers}{authorization}, undef, 'and is no token there');
	is(scalar @seen, 2, 'before the call');
}
for my $bad ('Basic Y2xpZW50Ondyb25n', 'Basic !!!', 'basic x')
{
	my $answer = refused('POST', "$v1/billing/usages", 401, "Authorization: $bad", body => '{}', headers => { Authorization => $bad });
	is($answer->{headers}{'www-authenticate'}, 'Basic realm="usage_billing"', "$bad: asks for Basic");
	is($json->decode($answer->{body})->{code}, 16, "$bad: in the usual shape");
}
is($json->decode(refused('POST', "$v1/billing/usages", 503, 'nobody checks secrets', body => '{}', headers => { Authorization => 'Basic ZG93bg==' })->{body})->{code}, 14, 'unavailable, in the usual shape');
for my $none ('', 'Digest x', 'Bearer', 'Negotiate Basic x')
{
	ask('POST', "$v1/billing/usages", headers => { Authorization => $none }, body => '{}');
	my ($seen) = $recorder->requests;
	is($seen->{headers}{authorization}, undef, "Authorization '$none' is no token");
}
ask('GET', '/usage/account', headers => { Authorization => 'Basic Y2xpZW50OnNlY3JldA==' });
is(($recorder->requests)[0]{headers}{authorization}, undef, 'Basic is for the first service only');

# Its errors.
for ([ 400, '22023', 3 ], [ 400, 'UB001', 3 ], [ 400, 'UB002', 3 ], [ 401, '42501', 16 ], [ 403, '42501', 7 ], [ 404, 'PT404', 5 ], [ 409, '23505', 6 ], [ 500, '40001', 13 ], [ 503, '53300', 14 ])
{
	my ($status, $state, $code) = @$_;
	my $error = qq({"code":"$state","message":"what happened","details":"usages[1].amount is -1","hint":null});
	my $answer = ask('POST', "$v1/billing/usages", headers => {%bearer}, body => qq({"answer-$status":$error}));
	is($answer->{status}, $status, "$state: status $status");
	is_deeply($json->decode($answer->{body}), { code => $code, message => 'what happened', details => [ { '@type' => 'type.googleapis.com/google.rpc.ErrorInfo',
		reason => $state, domain => 'usage_billing', metadata => { details => 'usages[1].amount is -1' } } ] }, "$state: code $code");
	is($answer->{headers}{'www-authenticate'}, $status == 401 ? 'Basic realm="usage_billing"' : undef, "$state: asks for credentials or not");
	is($answer->{headers}{'content-type'}, 'application/json; charset=utf-8', "$state: is JSON");
}
is_deeply($json->decode(ask('POST', "$v1/billing/usages", headers => {%bearer}, body => '"break-html"')->{body}), { code => 14, message => 'service unavailable', details => [] },
	'an answer that is not PostgREST\'s');
$recorder->requests;

# What the first service has no route for.
refused('GET', "$v1/billing/usages", 405, 'GET of a POST');
refused('PUT', "$v1/billing/usages", 405, 'PUT', body => '{}');
refused('POST', "$v1/billing", 404, 'another path', body => '{}');
refused('POST', "$v1/a/b/billing/usages", 404, 'too long a path', body => '{}');
refused('POST', "$v1/billing/usages/", 404, 'a slash at the end', body => '{}');
refused('POST', "$v1//billing/usages", 404, 'an empty part', body => '{}');
refused('POST', "$v1/x/../billing/usages", 404, 'dots', body => '{}');
refused('POST', "$v1/a/billing/usages?org_id=b", 400, 'two organisations', body => '{}');
refused('POST', "$v1/billing/usages?org_id=a&org_id=b", 400, 'org_id twice', body => '{}');
refused('POST', "$v1/billing/usages?org_id=a&%6frg_id=a", 400, 'org_id twice, encoded', body => '{}');
refused('POST', "$v1/billing/usages?org_id=%FF", 400, 'bytes that are no text', body => '{}');
refused('POST', "$v1/%C0%AF/billing/usages", 400, 'such bytes in the path', body => '{}');
refused('POST', "$v1/billing/usages?org_id=a", 400, 'a body that is no object', body => $_) for '[]', '[{}', '}{', '5', 'null', '{} x', 'x {}', '"{}"', '{"a":1', '}';
for my $path ('/', '/rpc/create_usage', '/usage', '/_postgrest/create_usage', '/_basic_auth', '/_unauthorized', '/%5fpostgrest/create_usage', '/billing/v1/storage-usage/', '/usage/account/', '/usage/account;x')
{
	refused($_, $path, 404, "$_ $path", $_ eq 'POST' ? (body => '{}') : ()) for 'GET', 'POST';
}

# Storage.
my $storage = '/billing/v1/storage-usage';
arrives('POST', "$storage/refresh", 'refresh_storage_usage', '{}', 'refresh');
arrives('POST', "$storage/refresh?org_id=org-1", 'refresh_storage_usage', '{"org_id":"org-1"}', 'refresh of an org');
arrives('POST', "$storage/refresh?org_id=org-1", 'refresh_storage_usage', '{"org_id":"org-1"}', 'refresh, with a body', body => '{"org_id":"x","days":1}');
arrives('GET', $storage, 'get_storage_usage', '{}', 'usage');
arrives('GET', "$storage?org_id=%22%7d", 'get_storage_usage', '{"org_id":"\"}"}', 'usage of an org');
arrives('GET', "$storage/history", 'get_storage_usage_history', '{}', 'history');
arrives('GET', "$storage/history?days=7&org_id=o", 'get_storage_usage_history', '{"days":"7","org_id":"o"}', 'history of days');
arrives('GET', "$storage/history?days=7;drop", 'get_storage_usage_history', '{"days":"7;drop"}', 'what days may be is left to the database');
refused('GET', "$storage/refresh", 405, 'GET refresh');
refused('POST', $storage, 405, 'POST usage', body => '{}');
refused('GET', "$storage/history?days=1&days=2", 400, 'days twice');
{
	my $answer = ask('GET', "$storage/history?days=20000", headers => {%bearer});
	is(length $answer->{body}, 20000 * 26 + 1, 'a long history comes whole');
	like($answer->{body}, qr/^\[\{"n":1234567890123456789\}/, 'with its integers as they are');
	$recorder->requests;
}

# Trends.
my $trend = 'account_usage_trend';
arrives('GET', '/usage/account', $trend, '{}', 'trend');
for my $filter ('filter[0][field]=resource&filter[0][eq]=vod_streams', 'filter%5B0%5D%5Bfield%5D=resource&filter%5B0%5D%5Beq%5D=vod%5Fstreams')
{
	arrives('GET', "/usage/account?$filter", $trend, '{"filter":{"0":{"field":"resource","eq":"vod_streams"}}}', 'eq');
	arrives('GET', "/usage/account?from=2021-01-07+08:00:00&$filter&to=last_bill_date&include=trend", $trend,
		'{"from":"2021-01-07 08:00:00","to":"last_bill_date","include":"trend","filter":{"0":{"field":"resource","eq":"vod_streams"}}}', 'from, to, include, eq');
}
arrives('GET', '/usage/account?filter[0][field]=resource&filter[0][in]=transcoders,vod_streams', $trend, '{"filter":{"0":{"field":"resource","in":"transcoders,vod_streams"}}}', 'in');
arrives('GET', '/usage/account?filter[0][field]=resource&filter[0][in]=transcoders%2Cvod_streams', $trend, '{"filter":{"0":{"field":"resource","in":"transcoders,vod_streams"}}}', 'in, encoded');
arrives('GET', '/usage/account?filter[0][field]=resource&filter[1][field]=resource&filter[1][eq]=vod_streams&filter[0][in]=transcoders,vod_streams', $trend,
	'{"filter":{"0":{"field":"resource","in":"transcoders,vod_streams"},"1":{"field":"resource","eq":"vod_streams"}}}', 'two conditions');
arrives('GET', '/usage/account?filter[0][eq]=vod_streams&filter[12][field]=x', $trend, '{"filter":{"0":{"eq":"vod_streams"},"12":{"field":"x"}}}', 'half a condition is left to the database');
arrives('GET', '/usage/account?from=2021-01-07%2008%3A00%3A00&to=2021-02-05', $trend, '{"from":"2021-01-07 08:00:00","to":"2021-02-05"}', 'encoded times');
arrives('GET', '/usage/account?from=&include=', $trend, '{"from":"","include":""}', 'empty values');
arrives('GET', '/usage/account?from=eq.5&select=*&limit=1&order=x&columns=y&billing_id=acct-2', $trend, '{"from":"eq.5"}', 'what PostgREST would take for a filter');
arrives('GET', '/usage/account?%66rom=a%26to=b', $trend, '{"from":"a&to=b"}', 'a & in a value');
arrives('GET', '/usage/account?from=%22%2C%22org_id%22%3A%22x', $trend, '{"from":"\",\"org_id\":\"x"}', 'a quote in a value');
arrives('GET', '/usage/account?from=%5C%22%7D%0A%0D%00%1F', $trend, '{"from":"\\\\\"}\n\r\u0000\u001f"}', 'backslash and control characters');
arrives('GET', '/usage/account?filter[0][eq]=%22%7D%7D%2C%22org_id%22%3A%22x', $trend, '{"filter":{"0":{"eq":"\"}},\"org_id\":\"x"}}}', 'a quote in a filter');
arrives('GET', '/usage/account?filter[0][__proto__]=x&filter[0][constructor]=y', $trend, '{"filter":{"0":{"__proto__":"x","constructor":"y"}}}', 'names that JavaScript knows');
arrives('GET', '/usage/account?__proto__=x&constructor=y&toString=z', $trend, '{}', 'and as parameters');
arrives('GET', '/usage/account?&&=&=x&from', $trend, '{"from":""}', 'odd pieces');
arrives('GET', "/usage/account?from=%F0%9F%98%80", $trend, "{\"from\":\"\xf0\x9f\x98\x80\"}", 'beyond the first plane');
refused('GET', "/usage/account?$_", 400, $_) for 'filter=x', 'filter[]=x', 'filter[0]=x', 'filter[0][eq][]=x', 'filter[x][eq]=y', 'filter[-1][eq]=y', 'filter[0][a%22b]=x',
  'filter%5B0%5D%5Beq%5D=a&filter[0][eq]=a', 'filter[0][eq]=a&filter[00][eq]=a', 'filter[9999][eq]=a', 'from=a&from=b', 'include=a&include=trend', 'from=%', 'from=%zz', 'from=%ED%A0%80', '%FF=1';
refused('POST', '/usage/account', 405, 'POST trend', body => '{}');
refused('GET', '/usage/account?from=' . 'x' x 40000, 414, 'a long URL');

# Errors of the other two are PostgREST's, as they are.
{
	my $error = '{"code":"42501","message":"m","details":null,"hint":null}';
	my $down = GatewayNode::start($root, GatewayNode::free_port());
	my $answer = HttpPeer::ask($down->{port}, 'GET', '/usage/account', headers => {%bearer});
	is($answer->{status}, 502, 'no PostgREST: 502');
	is($json->decode($answer->{body})->{message}, 'service unavailable', 'in JSON');
	$answer = HttpPeer::ask($down->{port}, 'POST', "$v1/billing/usages", headers => {%bearer}, body => '{}');
	is_deeply($json->decode($answer->{body}), { code => 14, message => 'service unavailable', details => [] }, 'in the first service\'s shape');
	$down->stop;
}
unlike($gateway->errors, qr/\[(crit|alert|emerg)\]|js exception/, 'nginx complains of nothing serious') or diag($gateway->errors);
$gateway->stop;
$recorder->stop;

# ---------------------------------------------------------------------------
# The whole chain: nginx, what PostgREST does, the database.

my $node = BillingNode::start();
my $secret = 'a secret of more than thirty-two bytes';
append_to_file("$directory/jwt.secret", "$secret\n");

for my $file ('postgrest/roles.sql', 'gateway/basic_auth.sql', 'gateway/basic_auth.sql')
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-v', "secret_file=$directory/jwt.secret", '-f', "$root/examples/$file" ], '>', \$out, '2>', \$err);
	is($out . $err, '', "$file runs");
}
$node->safe_psql('postgres', <<'SQL');
SELECT usage_billing.create_billing_account('org-1', 'acct-1'), usage_billing.create_billing_account('org-2', 'acct-2');
SELECT usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 100, 'acct-1');
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds) VALUES ('f1', 'org-1', 'video', 10, 90);
SQL
my ($key, $everything, $tenant) = split /\n/, $node->safe_psql('postgres', q{
	SELECT billing_gateway.create_client('client-1', 'billing_service', 'org-1');
	SELECT billing_gateway.create_client('everything', 'billing_service');
	SELECT billing_gateway.create_client('tenant', 'billing_tenant', 'org-1')});
my $bcrypt = $node->safe_psql('postgres', q{INSERT INTO billing_gateway.client SELECT 'old', crypt('päss:word', gen_salt('bf', 8)), 'billing_tenant', 'org-2' RETURNING secret_hash});
like($bcrypt, qr/^\$2a\$08\$/, 'a client with a bcrypt hash from elsewhere');

sub base64url { return encode_base64($_[0], '') =~ tr{+/=}{-_}dr }

sub token
{
	my ($claims, $with) = @_;
	my $input = base64url('{"alg":"HS256","typ":"JWT"}') . '.' . base64url($json->encode($claims));
	return "$input." . base64url(hmac_sha256($input, $with // $secret));
}

# The claims of a token, as PostgREST takes them; none if it is not valid.
sub claims_of
{
	my ($header) = @_;
	my ($token) = ($header // '') =~ /^bearer +(\S+)$/i or return { role => 'web_anon' };
	my ($head, $payload, $signature) = split /\./, $token;
	my $claims = eval { $json->decode(decode_base64($payload =~ tr{-_}{+/}r)) };
	return $claims if defined $signature && base64url(hmac_sha256("$head.$payload", $secret)) eq $signature && $claims && ($claims->{exp} // 9e9) > time;
	return;
}

my %api;
my $postgrest = HttpPeer::serve(
	"$directory/live",
	sub {
		my ($request) = @_;
		my $claims = claims_of($request->{headers}{authorization})
		  or return (401, '{"code":"PGRST301","message":"JWT invalid","details":null,"hint":null}', 'WWW-Authenticate' => 'Bearer error="invalid_token"');
		my ($name, $columns) = $request->{target} =~ m{^/rpc/(\w+)(?:\?columns=([\w,]+))?$} or return (404, '{}');
		my $schema = $request->{headers}{'accept-profile'} // 'usage_billing';
		my $connstr = $node->connstr('postgres') . ' user=authenticator';
		$api{$schema} //= PostgrestReplay->new($connstr, schema => $schema);
		my $api = $api{$schema};
		$claims = undef if $claims->{role} eq 'web_anon';
		my $answer = $request->{method} eq 'GET'
		  ? $api->get($claims, $name, {}, headers => $request->{headers})
		  : $api->post($claims, $name, $request->{body}, columns => [ split /,/, $columns ], headers => $request->{headers});
		return ($answer->{status}, $answer->{body}, %{ $answer->{headers} });
	});
$gateway = GatewayNode::start($root, $postgrest->{port});

sub basic { return (Authorization => 'Basic ' . encode_base64("$_[0]:$_[1]", '')) }
sub id { return sprintf '00000000-0000-4000-8000-%012d', $_[0] }
sub usage { return $json->encode({ usages => [ { id => id($_[0]), amount => "$_[1]", source => 'api', created_at => '2024-01-01T10:00:00Z' } ] }) }

sub outcome
{
	my ($answer) = @_;
	my $body = eval { $json->decode($answer->{body}) } // {};
	my $reason = ref $body eq 'HASH' && ref $body->{details} eq 'ARRAY' && @{ $body->{details} } ? $body->{details}[0]{reason} : ref $body eq 'HASH' ? $body->{code} : undef;
	return join ' ', $answer->{status}, grep { defined } $reason;
}
sub balance { return $node->safe_psql('postgres', "SELECT usage_billing.account_balance('$_[0]') ->> 'balance'") }

is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => usage(11, 30))), '200', 'a client reports usage');
is(balance('acct-1'), 70, 'it is taken from the balance');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => usage(11, 30))), '200', 'and again');
is(balance('acct-1'), 70, 'once');
is(outcome(ask('POST', "$v1/org-1/billing/acct-1/usages", headers => { basic('client-1', $key) }, body => usage(12, 5))), '200', 'with a path of the older guide');
is(outcome(ask('POST', "$v1/billing/usages/revert", headers => { basic('client-1', $key) }, body => $json->encode({ org_id => 'org-1', project_id => '', billing_id => '', usage_id => id(11), amount => '10' }))), '200', 'a revert as the guide shows it');
is(balance('acct-1'), 75, 'gives back');
is(outcome(ask('POST', "$v1/billing/usages/revert", headers => { basic('client-1', $key) }, body => $json->encode({ usage_id => id(11), amount => '10' }))), '409 23505', 'a usage is reverted once');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => usage(13, 1000))), '400 UB001', 'no credits');
is(outcome(ask('POST', "$v1/billing/usages?org_id=org-2", headers => { basic('client-1', $key) }, body => usage(13, 1))), '403 42501', 'another organisation, by the query');
is(outcome(ask('POST', "$v1/org-2/billing/usages", headers => { basic('client-1', $key) }, body => usage(13, 1))), '403 42501', 'by the path');
is(outcome(ask('POST', "$v1/org-1/billing/usages", headers => { basic('client-1', $key) }, body => '{"org_id":"org-2","usages":[]}')), '200', 'the path counts more than the body');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => '{"usages":[')), '400 22P02', 'no JSON');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => '{}')), '400 22023', 'no usages');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('client-1', $key) }, body => '{"usages":[],"unknown":{"x":1}}')), '200', 'a key that the first service does not know');
is(outcome(ask('POST', "$v1/billing/usages?org_id=org-2", headers => { basic('everything', $everything) }, body => usage(14, 0))), '200', 'a client of every organisation');
is(outcome(ask('POST', "$v1/billing/usages?org_id=org-9", headers => { basic('everything', $everything) }, body => usage(14, 0))), '404 PT404', 'which learns what there is not');
is(outcome(ask('POST', "$v1/billing/usages/revert", headers => { basic('tenant', $tenant) }, body => $json->encode({ usage_id => id(12) }))), '403 42501', 'a tenant may not revert');
is(outcome(ask('POST', "$v1/billing/usages", headers => { basic('old', 'päss:word') }, body => '{"usages":[]}')), '200', 'a secret with a colon and an umlaut');
for ([ 'client-1', 'wrong' ], [ 'client-1', '' ], [ 'client-1', $tenant ], [ 'nobody', $key ], [ '', $key ], [ 'client-1', "$key " ], [ "client-1' OR true --", 'x' ], [ "client-1\0", $key ], [ "\xff", 'x' ], [ 'x' x 2000, 'x' ])
{
	my ($id, $with) = @$_;
	is(outcome(ask('POST', "$v1/billing/usages", headers => { basic($id, $with) }, body => '{"usages":[]}')), '401 16', 'wrong: ' . substr("$id:$with", 0, 30) =~ s/[^ -~]/?/gr);
}
is(outcome(ask('POST', "$v1/billing/usages", body => '{"usages":[]}')), '401 42501', 'no credentials');
for ([ 'expired', token({ role => 'billing_tenant', org_id => 'org-1', exp => time - 5 }) ], [ 'signed by another', token({ role => 'billing_tenant', org_id => 'org-1' }, 'x' x 32) ])
{
	is(outcome(ask('GET', '/usage/account', headers => { Authorization => "Bearer $_->[1]" })), '401 PGRST301', "a token that is $_->[0]");
}

# What Basic buys.
{
	ask('POST', "$v1/billing/usages", headers => { basic('tenant', $tenant) }, body => '{"usages":[]}');
	my ($call) = grep { $_->{target} =~ /create_usage/ } reverse $postgrest->requests;
	my $claims = claims_of($call->{headers}{authorization});
	is_deeply([ sort keys %$claims ], [qw(exp org_id role sub)], 'the token\'s claims');
	is("$claims->{role} $claims->{org_id} $claims->{sub}", 'billing_tenant org-1 tenant', 'name client, role and organisation');
	cmp_ok($claims->{exp} - time, '<=', 61, 'for a minute');
	cmp_ok($claims->{exp} - time, '>', 50, 'or nearly');
}

# The other two services, with a token.
my %token = (Authorization => 'Bearer ' . token({ role => 'billing_tenant', org_id => 'org-1', exp => time + 600 }));
my $refreshed = $json->decode(ask('POST', "$storage/refresh", headers => {%token})->{body});
is("$refreshed->{org_id} $refreshed->{video_storage_bytes} $refreshed->{total_video_minutes}", 'org-1 10 1.50', 'refresh');
is($json->decode(ask('GET', $storage, headers => {%token})->{body})->{total_file_count}, 1, 'storage usage');
is(scalar @{ $json->decode(ask('GET', "$storage/history?days=3", headers => {%token})->{body}) }, 1, 'its history');
is(outcome(ask('GET', "$storage?org_id=org-2", headers => {%token})), '403 42501', 'of another organisation');
is(outcome(ask('GET', "$storage/history?days=x", headers => {%token})), '400 22P02', 'of how many days?');
is(outcome(ask('GET', "$storage/history?days=0", headers => {%token})), '400 22023', 'of no days');
is(outcome(ask('GET', $storage)), '401 42501', 'without a token');
my $answer = $json->decode(ask('GET', '/usage/account?filter[0][field]=resource&filter[0][eq]=vod_streams&from=2024-01-01+00:00:00&to=2024-01-02&include=trend', headers => {%token})->{body});
is_deeply($answer->{limits}, { resources => ['vod_streams'], from => '2024-01-01T00:00:00.000Z', to => '2024-01-02T00:00:00.000Z' }, 'a trend');
is("$answer->{account}{id} @{ $answer->{account}{trend} }", 'acct-1 ', 'of the token\'s account');
is(outcome(ask('GET', '/usage/account?filter[0][field]=resource&filter[0][eq]=evil', headers => {%token})), '400 22023', 'a filter that is none');
is(outcome(ask('GET', '/usage/account?filter[0][__proto__]=x', headers => {%token})), '400 22023', 'an operator that is none');
is(outcome(ask('GET', '/usage/account?from=%00', headers => {%token})), '400 22P05', 'a character that no text holds');
is(outcome(ask('GET', '/usage/account?org_id=org-2', headers => {%token})), '403 42501', 'another organisation\'s');
is(BillingNode::differences($node, 'postgres'), '', 'the books are right');

unlike($gateway->errors, qr/\[(crit|alert|emerg)\]|js exception/, 'nginx complains of nothing serious') or diag($gateway->errors);
$gateway->stop;
$postgrest->stop;
$node->stop;
done_testing();
