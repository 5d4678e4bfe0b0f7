# Hostile documents for every function and table that takes text or JSON, some
# of them valid: each gets the SQLSTATE that is foreseen and a message without a
# word of the caller's, an error leaves nothing behind, no session grows, and the
# books are right afterwards. SEED repeats a run, DOCUMENTS says how many (make
# fuzz: 1,000,000).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

use BillingNode;
use FuzzDocument;
use FuzzServer;

# a run of all tests repeats the same documents; make fuzz makes others each time
my $seed = $ENV{SEED} // 20260101;
my $documents = $ENV{DOCUMENTS} // 40000;
my $WORKERS = 2;
my $BATCH = 250;         # documents in a transaction
my $FOLD_EVERY = 20;     # batches
my $SHOWN = 10;
my $CONTEXTS = 2 << 20;     # bytes by which a session's memory contexts may grow,
my $RESIDENT = 32 << 20;    # and its memory, which has holes

diag("seed $seed, $documents documents (repeat with SEED=$seed DOCUMENTS=$documents)");

my $node = BillingNode::start(shared_buffers => '64MB', max_wal_size => '4GB', autovacuum_naptime => '30s');
# a locale that knows all letters
$node->safe_psql('postgres', "CREATE DATABASE fuzz TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'");
$node->safe_psql('fuzz', 'CREATE EXTENSION usage_billing');
$node->safe_psql('fuzz', $FUZZ_SETUP);

# COPY's own escapes; undef is null.
my %ESCAPES = ("\\" => '\\\\', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t');

sub copied
{
	return join("\t", map { defined $_ ? s/([\\\n\r\t])/$ESCAPES{$1}/gr : '\\N' } @_) . "\n";
}

# Makes one worker's documents and sends them to a psql of its own.
sub work
{
	my ($worker, $count, $directory) = @_;

	srand $seed + $worker;
	my $maker = FuzzDocument->new($worker, $directory);
	open my $psql, '|-', 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $node->connstr('fuzz')
	  or die "psql: $!";
	binmode $psql;
	print $psql fuzz_session($worker, $maker->reverts_often), $maker->setup;
	my $done = 0;
	for (my $batch = 1; $done < $count; $batch++)
	{
		print $psql "COPY document FROM STDIN;\n";
		for (1 .. $BATCH)
		{
			last if $done >= $count;
			my ($target, $expected, @arguments) = $maker->next;
			$#arguments = $FUZZ_COLUMNS - 1;
			print $psql copied(++$done, $target, $expected, @arguments);
		}
		print $psql "\\.\nSELECT fuzz.run($worker);\n";
		print $psql "SELECT usage_billing.run_maintenance();\n" if $batch % $FOLD_EVERY == 0;
		print $psql fuzz_memory($worker, $done) if $batch % $FOLD_EVERY == 0 || $done >= $count;
	}
	return close $psql;
}

my $began = Time::HiRes::time();
my @workers;
for my $worker (1 .. $WORKERS)
{
	my $directory = PostgreSQL::Test::Utils::tempdir();
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		my $ok = eval { work($worker, int($documents / $WORKERS), $directory) };
		print STDERR $@ if $@;
		POSIX::_exit($ok ? 0 : 1);
	}
	push @workers, $pid;
}
for my $pid (@workers)
{
	waitpid $pid, 0;
	is($?, 0, 'a session went through all its documents');
}
my $took = Time::HiRes::time() - $began;

# ---------------------------------------------------------------------------

sub rows
{
	my ($sql) = @_;
	my $out = $node->safe_psql('fuzz', $sql);
	return split /\n/, $out;
}

sub none
{
	my ($name, $sql) = @_;
	my @rows = rows($sql);

	is(scalar @rows, 0, $name) or diag(join "\n", @rows[ 0 .. ($#rows < $SHOWN ? $#rows : $SHOWN) ]);
	return;
}

my $run = $WORKERS * int($documents / $WORKERS);
is($node->safe_psql('fuzz', 'SELECT count(*) FROM fuzz.result'), $run, 'every document was judged');
diag(sprintf '%d documents in %.0f s', $run, $took);
diag("$_") for rows(<<'SQL');
SELECT format('%s of 100 accepted: %s', lpad((100 * count(*) FILTER (WHERE outcome = '00000') / count(*))::text, 3), target)
FROM fuzz.result GROUP BY target ORDER BY target
SQL

diag("slowest: $_") for rows("SELECT took, target, worker, n, outcome FROM fuzz.result ORDER BY took DESC LIMIT 5");

none('each document got what was foreseen, and no message repeats it', <<'SQL');
SELECT format('%s of worker %s: %s instead of %s: %s (%s) %s', target, worker, outcome, expected, left(message, 200), left(detail, 400),
	left(array_remove(arguments, NULL)::text, 600))
FROM (SELECT *, row_number() OVER (PARTITION BY target, outcome, expected, message ORDER BY n) AS turn FROM fuzz.problem) p
WHERE turn <= 2 ORDER BY target, outcome, n
SQL

# What the functions and triggers say, and what the server does where a table's
# own rules are broken.
my @MESSAGES = (
	'billing account is closed', 'billing account not found', 'fact of an unknown billing account', 'id is taken with other settings',
	'id was used before with another payload', 'insufficient credits', 'invalid parameter', 'invalid usage in the batch', 'invalid value in a billing fact',
	'no storage snapshot yet', 'not permitted for this token', 'organisation not found', 'project not found', 'revert exceeds what is left of the usage',
	'revert of an unknown usage', 'size or duration of a tracked file is not a number', 'sum out of range', 'time zone is not whole hours away from UTC',
	'token claims are not a JSON object', 'token names no organisation', 'usage not found', 'usage was reverted before', 'must be owner of the table',
	'bigint out of range', 'stack depth limit exceeded', 'deadlock detected');
my @RULES = (
	'null value in column "\w+" of relation "\w+" violates not-null constraint', 'new row for relation "\w+" violates check constraint "\w+"',
	'duplicate key value violates unique constraint "storage_limit_pkey"');
# COPY's values are read by the server.
my @COPY = (
	'invalid input syntax for type .*', 'invalid input value for enum .*', 'date/time field value out of range: .*', 'value ".*" is out of range for type \w+',
	'timestamp out of range.*', 'time zone displacement out of range: .*', 'unsupported Unicode escape sequence', 'missing data for column "\w+"',
	'extra data after last expected column', 'invalid byte sequence for encoding .*', 'time zone ".*" not recognized', 'literal (?:carriage return|newline) found in data',
	'end-of-copy marker .*', 'value overflows numeric format');
my ($rules, $copy) = map { my $any = join '|', @$_; qr/^(?:$any)$/s } \@RULES, \@COPY;
my %known = map { $_ => 1 } @MESSAGES;
my @unknown = grep {
	my ($target, $message) = (split /\|/, $_, 4)[ 0, 2 ];
	!$known{$message} && $message !~ $rules && !($target eq 'copy' && $message =~ $copy)
} rows("SELECT target, outcome, translate(message, E'|\n\r', '   '), times FROM fuzz.message ORDER BY 1, 2, 3");
is(scalar @unknown, 0, 'every message is one of those that there are') or diag(join "\n", @unknown);

# Ids of facts tell the document that made them; worker eeee is nobody.
none('what a refused document asked for is not stored', <<'SQL');
SELECT f.id, r.outcome, r.target
FROM (SELECT id FROM usage_billing.usage UNION ALL SELECT id FROM usage_billing.credit_grant UNION ALL SELECT id FROM usage_billing.usage_revert) f
JOIN fuzz.result r ON r.n = ('x' || left(f.id::text, 8))::bit(32)::int AND to_hex(r.worker) = ltrim(substr(f.id::text, 10, 4), '0')
WHERE r.outcome <> '00000'
SQL
is($node->safe_psql('fuzz', "SELECT sum(stored) FROM fuzz.result"),
	$node->safe_psql('fuzz', "SELECT (SELECT count(*) FROM usage_billing.usage WHERE id::text NOT LIKE '%-ffff-4000-%')
		+ (SELECT count(*) FROM usage_billing.credit_grant WHERE id::text NOT LIKE '%-ffff-4000-%') + (SELECT count(*) FROM usage_billing.usage_revert)"),
	'what is stored is what was answered');

# A session keeps plans, and what it knows of tables and time zones, but no more
# with every call.
SKIP:
{
	my @grown = rows(<<'SQL');
SELECT (array_agg(contexts ORDER BY n DESC))[1] - (array_agg(contexts ORDER BY n))[1 + count(*) / 4],
	(array_agg(resident ORDER BY n DESC))[1] - (array_agg(resident ORDER BY n))[1 + count(*) / 4], count(*)
FROM fuzz.memory GROUP BY worker ORDER BY worker
SQL
	skip "memory is measured from $FOLD_EVERY batches on", 1 if (split /\|/, $grown[0])[2] < 3;
	diag("memory contexts and anonymous memory grew by $_") for map { join ' and ', (split /\|/)[ 0, 1 ] } @grown;
	skip 'the checker has memory of its own', 1 if $ENV{CHECKED};
	ok(!(grep { my ($contexts, $resident) = split /\|/; $contexts > $CONTEXTS || $resident > $RESIDENT } @grown), 'no session grows');
}

is(BillingNode::differences($node, 'fuzz'), '', 'verify() finds nothing');
$node->safe_psql('fuzz', 'SELECT usage_billing.run_maintenance()');
# files may add up to more than a snapshot can show, be of no size, or of an
# organisation whose name is too long
none('no duty of the maintenance failed', <<'SQL');
SELECT duty, last_error FROM usage_billing.maintenance_status WHERE last_error !~ 'SQLSTATE 220[02]3'
SQL
is(BillingNode::differences($node, 'fuzz'), '', 'nor after folding');

$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:|terminated by signal|\bXX\w\w\w\b/, 'no process of the server crashed');
done_testing();
