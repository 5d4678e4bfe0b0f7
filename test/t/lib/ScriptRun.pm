# Runs the scripts that UsageScript makes up, and compares what came of them with
# what the model predicted.
package ScriptRun;

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $SHOWN = 5;    # failures that are shown of each client

# Runs scripts at once, each in a psql of its own in directory, and notes with each op what
# came of it.
sub run
{
	my ($connection, $directory, @scripts) = @_;
	my @running;

	for my $script (@scripts)
	{
		my $base = "$directory/$script->{name}";
		append_to_file("$base.sql", $script->text);
		push @running, IPC::Run::start(
			[ 'psql', '-X', '-q', '-A', '-t', '-d', $connection,
				'-v', 'VERBOSITY=verbose', '-f', "$base.sql" ],
			'>', "$base.out", '2>', "$base.err",
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 3));
	}
	$_->finish for @running;

	for my $script (@scripts)
	{
		my $output = slurp_file("$directory/$script->{name}.out");
		my @ops = $script->ops;
		while ($output =~ /\G(.*?)^@@(\d+) (\w{5}) (\d*)\n/gms)
		{
			@{ $ops[$2] }{qw(out state rows)} = ($1, $3, $4);
			$ops[$2]{out} =~ s/\n\z//;
		}
	}
	return;
}

# Whether an op's outcome is the predicted one.
sub as_predicted
{
	my ($op) = @_;
	my $answer = $op->{answer};

	return 0 unless defined $op->{state} && $answer->{state}{ $op->{state} };
	return 1 if $op->{state} ne '00000';
	return 0 if defined $answer->{rows} && $answer->{rows} != $op->{rows};
	return 1 if !defined $answer->{out} || $op->{out} eq $answer->{out};
	return 0 unless $answer->{out} =~ /"id": "\*"/;

	my $given = $op->{out};
	$given =~ s/"id": "[0-9a-f-]{36}"/"id": "*"/;
	return $given eq $answer->{out};
}

sub check
{
	my ($directory, $script) = @_;
	my @ops = $script->ops;
	my @wrong = grep { !as_predicted($ops[$_]) } 0 .. $#ops;
	my %states;

	$states{ $_->{state} // 'none' }++ for @ops;
	is(scalar @wrong, 0, sprintf 'client %s: all %d results as predicted', $script->{name}, scalar @ops);
	note(join ', ', map { "$_: $states{$_}" } sort keys %states);
	for my $no (grep { defined } @wrong[ 0 .. $SHOWN - 1 ])
	{
		my $op = $ops[$no];
		diag(sprintf "client %s, statement %d: %s", $script->{name}, $no,
			length $op->{sql} > 3000 ? substr($op->{sql}, 0, 3000) . '…' : $op->{sql});
		diag('  expected ' . join(' or ', sort keys %{ $op->{answer}{state} })
			  . ' rows ' . ($op->{answer}{rows} // 'any') . ': ' . ($op->{answer}{out} // 'anything'));
		diag('  got ' . ($op->{state} // 'nothing') . ' rows ' . ($op->{rows} // '') . ': ' . ($op->{out} // ''));
	}
	diag(slurp_file("$directory/$script->{name}.err") =~ s/(.{4000}).*/$1…/sr)
	  if grep { !defined $_->{state} } @ops;
	return;
}

# Pages of seven rows, one after the other by cursor, against all at once.
our $PAGES = <<'SQL';
WITH RECURSIVE page AS (
	SELECT 0 AS no, NULL::text[] AS rows, NULL::text AS before, true AS more
	UNION ALL
	SELECT page.no + 1, p.rows, p.last, p.last IS NOT NULL
	FROM page, LATERAL (
		SELECT array_agg(t::text ORDER BY t.ordinality) AS rows, max(t.cursor) FILTER (WHERE t.ordinality = 7) AS last
		FROM (
			SELECT a.id, a.kind, a.amount, a.created_at, a.cursor, a.ordinality
			FROM usage_billing.account_transactions(max_rows => 7, billing_id => :'account', before => page.before)
				WITH ORDINALITY a
		) t
	) p
	WHERE page.more
), paged AS (
	SELECT (no - 1) * 7 + i AS n, rows[i] AS t FROM page, generate_subscripts(rows, 1) i
), whole AS (
	SELECT ordinality AS n, (id, kind, amount, created_at, cursor, 1 + (ordinality - 1) % 7)::text AS t, created_at
	FROM usage_billing.account_transactions(max_rows => 1000000, billing_id => :'account') WITH ORDINALITY
), ordered AS (
	SELECT *, lag(created_at) OVER (ORDER BY n) AS newer FROM whole
)
SELECT count(*) FILTER (WHERE w.t IS DISTINCT FROM p.t), count(*) FILTER (WHERE w.created_at > w.newer)
FROM ordered w FULL JOIN paged p USING (n)
SQL

# Compares two lists of lines and shows only the lines that differ.
sub same_lines
{
	my ($got, $expected, $name) = @_;
	my %got = map { $_ => 1 } split /\n/, $got;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my @wrong = ((map { "got only:      $_" } grep { !$expected{$_} } sort keys %got),
		(map { "expected only: $_" } grep { !$got{$_} } sort keys %expected));

	ok(!@wrong, $name) or diag(join "\n", grep { defined } @wrong[ 0 .. 2 * $SHOWN ]);
	return;
}

1;
