# What PostgREST makes of a request, over a plain connection: the same
# transaction, in one session for all requests (a pool serves every tenant with
# the same backends), with prepared statements that stay.
#
#   my $api = PostgrestReplay->new($node->connstr('postgres'));
#   my $answer = $api->post($claims, 'create_usage', { usages => [...] });
#   my $answer = $api->get($claims, 'usage_series', { from => '2024-01-01' });
#   my $answer = $api->rows($claims, 'usage', 'amount > 5');
#
# claims: a hash, whose role is the database role; undef: no token. An answer
# has status, body (JSON text), code, message, details and hint.
package PostgrestReplay;

use strict;
use warnings;
use IPC::Run ();
use JSON::PP ();

our $ANONYMOUS = 'web_anon';
my $json = JSON::PP->new->ascii->canonical->allow_nonref;

# SQLSTATE to HTTP status, the first pattern that fits.
my @STATUS = (
	[ qr/^PT(\d{3})$/ => undef ],
	[ qr/^23503$|^23505$/ => 409 ],
	[ qr/^25006$/ => 405 ],
	[ qr/^4[0]|^5[3457]|^P0002$|^XX/ => 500 ],
	[ qr/./ => 400 ]);

sub new
{
	my ($class, $connstr, %more) = @_;
	my $self = bless { in => '', out => '', err => '', count => 0, prepared => {}, schema => 'usage_billing', %more }, $class;

	$self->{psql} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-v', 'SHOW_CONTEXT=never', '-d', $connstr ],
		\$self->{in}, \$self->{out}, \$self->{err}, IPC::Run::timeout(300));
	$self->read_functions;
	return $self;
}

sub finish
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	$self->{psql}->finish;
	return;
}

# Sends SQL as it is and returns (output, errors).
sub send
{
	my ($self, $sql) = @_;
	my $mark = 'mark-' . ++$self->{count};

	$self->{out} = $self->{err} = '';
	$self->{in} .= "$sql\n\\echo $mark\n\\warn $mark\n";
	$self->{psql}->pump until $self->{out} =~ /^\Q$mark\E\n/m && $self->{err} =~ /^\Q$mark\E\n/m;
	my ($out, $err) = ($self->{out}, $self->{err});
	s/^\Q$mark\E\n//m for $out, $err;
	return ($out, $err);
}

# What PostgREST reads at its start.
sub read_functions
{
	my ($self) = @_;
	my ($out) = $self->send(<<"SQL");
SELECT json_agg(json_build_object('name', p.proname, 'volatility', p.provolatile, 'set', p.proretset,
	'composite', t.typtype = 'c' OR p.proallargtypes IS NOT NULL, 'void', p.prorettype = 'void'::regtype,
	'parameters', (SELECT json_object_agg(n.name, format_type((p.proargtypes::oid[])[n.i - 1 + array_lower(p.proargtypes::oid[], 1)], NULL))
		FROM unnest(p.proargnames) WITH ORDINALITY AS n (name, i) WHERE n.i <= p.pronargs),
	'required', p.pronargs - p.pronargdefaults))
FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
WHERE p.pronamespace = '$self->{schema}'::regnamespace AND p.prorettype <> 'trigger'::regtype;
SQL
	$self->{functions} = { map { $_->{name} => $_ } @{ $json->decode($out) } };
	return;
}

sub literal
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return "'$text'";
}

sub identifier
{
	my ($name) = @_;
	$name =~ s/"/""/g;
	return qq("$name");
}

sub status_of
{
	my ($state, $authenticated) = @_;

	return $authenticated ? 403 : 401 if $state eq '42501';
	for (@STATUS)
	{
		my ($pattern, $status) = @$_;
		return $status // $1 if $state =~ $pattern;
	}
	die;
}

# Runs one prepared statement as PostgREST runs a request's.
sub transaction
{
	my ($self, $claims, $request, $query, @values) = @_;
	my $role = $claims ? $claims->{role} // $ANONYMOUS : $ANONYMOUS;
	my $path = defined $request->{search_path} ? $request->{search_path} : qq("$self->{schema}");
	my %setting = (
		search_path => $path,
		role => $role,
		'request.jwt.claims' => $request->{raw_claims} // $json->encode($claims || { role => $ANONYMOUS }),
		'request.method' => $request->{method},
		'request.path' => $request->{path},
		'request.headers' => $json->encode($request->{headers} || {}),
		'request.cookies' => '{}');
	my $name = $self->{prepared}{$query} // 'pgrst_' . (1 + keys %{ $self->{prepared} }) . '_' . $self->{count};
	my $prepare = $self->{prepared}{$query} ? '' : "PREPARE $name AS $query;\n\\if :ERROR\n\\else\n\\echo prepared\n\\endif\n";
	my $mode = $request->{read_only} ? 'READ ONLY' : 'READ WRITE';

	my ($out, $err) = $self->send("BEGIN ISOLATION LEVEL READ COMMITTED $mode;\n"
		  . 'select ' . join(', ', map { "set_config('$_', " . literal($setting{$_}) . ', true)' } sort keys %setting) . " \\g /dev/null\n"
		  . $prepare
		  . "EXECUTE $name" . (@values ? '(' . join(', ', map { literal($_) } @values) . ')' : '') . ";\n"
		  . "COMMIT;\n");
	$self->{prepared}{$query} = $name if $out =~ s/^prepared\n//m;
	return $self->answer($out, $err, $claims && $claims->{role});
}

sub answer
{
	my ($self, $out, $err, $authenticated) = @_;

	if ($err =~ /^ERROR:  (\w{5}): (.*)$/m)
	{
		my %error = (code => $1, message => $2);
		my ($first) = $err =~ /^(ERROR:  .*?)(?=^ERROR:|^WARNING:|\z)/ms;
		$error{details} = $1 if $first =~ /^DETAIL:  (.*)$/m;
		$error{hint} = $1 if $first =~ /^HINT:  (.*)$/m;
		my $status = status_of($error{code}, $authenticated);
		return { %error, status => $status, error => \%error,
			body => $json->encode({ map { $_ => $error{$_} } qw(code message details hint) }),
			headers => $status == 401 ? { 'WWW-Authenticate' => 'Bearer' } : {} };
	}
	chomp $out;
	my ($headers, $body) = $out =~ /\A(.*?)\x{1f}(.*)\z/s or die "unexpected answer: $out$err";
	my %headers = map { %$_ } @{ $headers eq '' ? [] : $json->decode($headers) };
	return { status => 200, code => '00000', body => $body, headers => \%headers };
}

# The outer query, around what calls the function or reads the rows.
sub around
{
	my ($source, $body) = @_;
	return "WITH pgrst_source AS ($source) SELECT coalesce(nullif(current_setting('response.headers', true), ''), '')"
	  . " || chr(31) || $body FROM (SELECT * FROM pgrst_source) _postgrest_t";
}

sub body_of
{
	my ($function) = @_;
	return "coalesce(json_agg(_postgrest_t), '[]')" if $function->{set};
	return "coalesce(json_agg(_postgrest_t)->0, 'null')" if $function->{composite};
	return "coalesce(json_agg(_postgrest_t.pgrst_scalar)->0, 'null')";
}

# The function of a request, or the answer that there is none with such
# parameters.
sub find
{
	my ($self, $name, @given) = @_;
	my $function = $self->{functions}{$name};

	if ($function && !grep { !exists $function->{parameters}{$_} } @given)
	{
		return ($function, undef);
	}
	return (undef, { status => 404, code => 'PGRST202', body => '{"code":"PGRST202"}', headers => {} });
}

sub call_of
{
	my ($self, $function, $arguments, $from) = @_;
	my $call = identifier($self->{schema}) . '.' . identifier($function->{name}) . "($arguments)";
	return $function->{set} || $function->{composite}
	  ? "SELECT pgrst_call.* FROM $from LATERAL $call pgrst_call"
	  : "SELECT pgrst_call.pgrst_scalar FROM $from LATERAL (SELECT $call pgrst_scalar) pgrst_call";
}

# POST /rpc/NAME. body: a hash or the JSON text itself; more: columns (a list),
# search_path, headers.
sub post
{
	my ($self, $claims, $name, $body, %more) = @_;
	my $text = ref $body ? $json->encode($body) : $body;
	my $decoded = $more{columns} ? undef : eval { $json->decode($text) };

	return { status => 400, code => 'PGRST102', body => '{"code":"PGRST102"}', headers => {} }
	  if !$more{columns} && ref $decoded ne 'HASH';
	my @given = $more{columns} ? @{ $more{columns} } : sort keys %$decoded;
	my ($function, $missing) = $self->find($name, @given);
	return $missing if $missing;

	my $record = join ', ', map { identifier($_) . " $function->{parameters}{$_}" } @given;
	my $from = @given
	  ? 'json_to_record($1::json) AS _(' . $record . ')'
	  : '(SELECT $1::json) AS _';
	my $source = $self->call_of($function, join(', ', map { identifier($_) . ' := pgrst_body.' . identifier($_) } @given),
		'(SELECT ' . (join(', ', map { identifier($_) } @given) || '1') . " FROM $from LIMIT 1) pgrst_body,");
	my $answer = $self->transaction($claims,
		{ method => 'POST', path => "/rpc/$name", read_only => $function->{volatility} ne 'v', %more },
		around($source, body_of($function)), $text);
	return finished($function, $answer);
}

# GET /rpc/NAME?...; every parameter is a text.
sub get
{
	my ($self, $claims, $name, $query, %more) = @_;
	my @given = sort keys %{ $query || {} };
	my ($function, $missing) = $self->find($name, @given);
	return $missing if $missing;

	my $i = 0;
	my $source = $self->call_of($function,
		join(', ', map { $i++; identifier($_) . " := \$$i\::$function->{parameters}{$_}" } @given), '');
	$source =~ s/FROM  ?LATERAL/FROM/;
	my $answer = $self->transaction($claims, { method => 'GET', path => "/rpc/$name", read_only => 1, %more },
		around($source, body_of($function)), map { $query->{$_} } @given);
	return finished($function, $answer);
}

sub finished
{
	my ($function, $answer) = @_;
	@$answer{qw(status body)} = (204, '') if $answer->{status} == 200 && $function->{void};
	return $answer;
}

# GET /TABLE?..., with the filter as SQL.
sub rows
{
	my ($self, $claims, $table, $filter, %more) = @_;
	return $self->transaction($claims, { method => 'GET', path => "/$table", read_only => 1, %more },
		around("SELECT * FROM " . identifier($self->{schema}) . '.' . identifier($table) . ($filter ? " WHERE $filter" : ''),
			"coalesce(json_agg(_postgrest_t), '[]')"));
}

# POST, PATCH or DELETE /TABLE as SQL.
sub change
{
	my ($self, $claims, $sql, %more) = @_;
	return $self->transaction($claims, { method => 'POST', path => '/', read_only => 0, %more },
		"WITH pgrst_source AS ($sql RETURNING 1) SELECT chr(31) || count(*)::text FROM pgrst_source");
}

1;
