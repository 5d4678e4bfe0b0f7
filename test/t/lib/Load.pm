# A mixed load of many clients, each a process of its own, on whatever server a
# file names; what they were told; and whether that is what is there.
package Load;

use strict;
use warnings;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use LoadClient;
use LoadSteps;
use Session;

my $SHOWN = 8;    # of what is wrong, that many of a kind

# seed; clients: how many at once; rounds: how often they may begin; cancels:
# whether others cancel what they do; hangs: whether they hang up now and then;
# prepares: whether the server has room for
# prepared transactions; pause: of a client after each turn, in seconds.
sub new
{
	my ($class, %p) = @_;
	my $self = bless { clients => 8, rounds => 1, round => 0, running => [], %p }, $class;
	$self->{directory} = PostgreSQL::Test::Utils::tempdir();
	$self->{server_file} = "$self->{directory}/server";
	$self->{began} = time;
	return $self;
}

# Which server the clients find when they look for one.
sub server
{
	my ($self, $node) = @_;
	append_to_file("$self->{server_file}.new", $node->connstr('postgres') . "\n");
	rename "$self->{server_file}.new", $self->{server_file} or die "$self->{server_file}: $!";
	$self->{node} = $node;
	return;
}

# All the clients there will be; each round has others.
sub names
{
	my ($self) = @_;
	return map { "c$_" } 1 .. $self->{clients} * $self->{rounds};
}

# The accounts that all use, and for each client a table of files and an
# organisation; the extension is there.
sub set_up
{
	my ($self) = @_;
	my $tables = join '', map { <<"SQL" } $self->names;
CREATE TABLE files_$_ (name text PRIMARY KEY, org text, kind text, size bigint, seconds numeric);
SELECT usage_billing.track_storage('files_$_', 'org', 'size', kind_column => 'kind', duration_column => 'seconds');
SELECT usage_billing.create_project('project-$_', 'org-$_');
SQL
	$self->{node}->safe_psql('postgres', join '', $tables,
		(map { "SELECT usage_billing.create_billing_account('org-$_', '$_', " . (/loose/ ? -1_000_000_000 : 0) . ");\n" }
			@LoadSteps::TIGHT, @LoadSteps::LOOSE, $LoadSteps::DOOR),
		map { "SELECT usage_billing.grant_credits(md5('$_')::uuid, 1000, '$_', source => 'gift');\n" } @LoadSteps::TIGHT, $LoadSteps::DOOR);
	$self->{first_hour} = $self->{node}->safe_psql('postgres', "SELECT extract(epoch FROM date_trunc('hour', now(), 'UTC'))::bigint");
	return;
}

# ---------------------------------------------------------------------------
# Processes

# Runs code in a process of its own that ends without the test's own endings.
sub in_process
{
	my ($code) = @_;
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	eval { $code->(); 1 } or print STDERR $@;
	POSIX::_exit(0);
}

# Starts the clients of a round.
sub begin
{
	my ($self) = @_;
	my $first = $self->{clients} * $self->{round}++;

	$self->{stop} = "$self->{directory}/stop-$self->{round}";
	for my $name (($self->names)[ $first .. $first + $self->{clients} - 1 ])
	{
		my $seed = $self->{seed} + ($name =~ s/c//r);
		push @{ $self->{running} }, in_process(sub {
			srand $seed;
			LoadClient->new(
				name => $name, base => "$self->{directory}/$name", server => $self->{server_file}, stop => $self->{stop},
				map { $_ => $self->{$_} } qw(seed began cancels hangs prepares pause))->run;
		});
	}
	return;
}

# A process that does code($session) until the clients end, on their server or
# on another one.
sub beside
{
	my ($self, $name, $code, $node) = @_;
	my $stop = $self->{stop};
	my $server = $self->{server_file};

	if ($node)
	{
		$server = "$self->{directory}/server-$name";
		append_to_file($server, $node->connstr('postgres') . "\n");
	}

	push @{ $self->{running} }, in_process(sub {
		my $parent = getppid;
		my $session = Session->new(server => $server, name => $name, log => "$self->{directory}/$name.log");
		$code->($session) until -e $stop || getppid != $parent;
		$session->end;
	});
	return;
}

# Tells all of them to end, and waits until they have.
sub end
{
	my ($self) = @_;
	append_to_file($self->{stop}, '');
	waitpid $_, 0 for splice @{ $self->{running} };
	return;
}

# ---------------------------------------------------------------------------
# What was acknowledged

# All that stands in the journals: facts, files, counts of what came of steps.
sub told
{
	my ($self) = @_;
	my (%facts, %files, %counts, @wrong);

	for my $file (glob "$self->{directory}/*.journal")
	{
		for my $line (split /\n/, slurp_file($file))
		{
			my ($mark, $text) = $line =~ /^(.)(.*)/;
			if ($mark eq '!') { push @wrong, $file =~ s{.*/(.*)\.journal}{$1: $text}r; }
			elsif ($mark eq '~') { $counts{$text}++; }
			elsif ($text =~ /^emptied\|(.*)/) { delete $files{$_} for grep { /^file\|\Q$1\E\|/ } keys %files; }
			elsif ($text =~ /^(file\|[^|]+\|[^|]+)(\|.*)?/)
			{
				if (defined $2) { $files{$1} = $text; }
				else { delete $files{$1}; }
			}
			else { $facts{$text} = 1; }
		}
	}
	return { facts => { %facts, map { $_ => 1 } values %files }, counts => \%counts, wrong => \@wrong };
}

my $FACTS = <<'SQL';
SELECT concat_ws('|', 'usage', billing_id, id, type, amount, source, metadata,
	CASE WHEN extract(epoch FROM created_at) >= FIRST_HOUR THEN 'now' ELSE extract(epoch FROM created_at)::bigint::text END) FROM usage_billing.usage
UNION ALL SELECT concat_ws('|', 'grant', billing_id, id, amount, source) FROM usage_billing.credit_grant WHERE id <> md5(billing_id)::uuid
UNION ALL SELECT concat_ws('|', 'revert', billing_id, usage_id, revert_no, id, amount) FROM usage_billing.usage_revert
UNION ALL SELECT concat_ws('|', 'account', billing_id, org_id) FROM usage_billing.billing_account WHERE billing_id LIKE 'own-%'
UNION ALL SELECT concat_ws('|', 'project', project_id, org_id) FROM usage_billing.project WHERE project_id LIKE 'project-c%-%'
UNION ALL SELECT concat_ws('|', 'file', 'usage_billing.stored_file', file_id, kind, bytes, duration_seconds) FROM usage_billing.stored_file
SQL

# The facts of a server, as the journals have them; those of accounts and files
# that are named apart-something are of a test's own making.
sub there
{
	my ($self, $node) = @_;
	my $files = join '', map { "UNION ALL SELECT concat_ws('|', 'file', 'files_$_', name, kind, size, seconds) FROM files_$_\n" } $self->names;
	return grep { !/\|apart-/ } split /\n/, $node->safe_psql('postgres', $FACTS =~ s/FIRST_HOUR/$self->{first_hour}/r . $files);
}

# What the clients of a round were told is not true any more.
sub forget_round
{
	my ($self, $round) = @_;
	my $first = $self->{clients} * ($round - 1);
	unlink "$self->{directory}/$_.journal" for ($self->names)[ $first .. $first + $self->{clients} - 1 ];
	return;
}

# Tests that the clients met nothing wrong, and that what is there is what they
# were told, each fact once. Returns the counts of what came of the steps.
sub as_told
{
	my ($self, $node, $name) = @_;
	my $told = $self->told;
	my @there = $self->there($node);
	my %there;

	$there{$_}++ for @there;
	my @lost = grep { !$there{$_} } sort keys %{ $told->{facts} };
	my @more = grep { !$told->{facts}{$_} } sort keys %there;
	my @twice = grep { $there{$_} > 1 } sort keys %there;
	none($told->{wrong}, "$name: clients met nothing but what may be");
	cmp_ok(scalar @there, '>', 200, "$name: there are facts");
	none(\@lost, "$name: what was acknowledged is there");
	none(\@more, "$name: and nothing else");
	none(\@twice, "$name: each fact once");
	return $told->{counts};
}

sub none
{
	my ($list, $name) = @_;
	is(scalar @$list, 0, $name) or diag(join "\n", grep { defined } @$list[ 0 .. $SHOWN - 1 ]);
	return;
}

# What came of each kind of step, on a line for each.
sub summary
{
	my ($counts) = @_;
	my %kinds;

	for my $key (sort keys %$counts)
	{
		my ($kind, $state) = $key =~ /^(.*) (\S+)$/;
		push @{ $kinds{$kind} }, "$state $counts->{$key}";
	}
	note(map { "  $_: " . join(', ', @{ $kinds{$_} }) . "\n" } sort keys %kinds);
	return;
}

sub count
{
	my ($counts, $pattern) = @_;
	my $sum = 0;
	$sum += $counts->{$_} for grep { /$pattern/ } keys %$counts;
	return $sum;
}

# ---------------------------------------------------------------------------
# What is derived. None of it asks verify(), which has a test of its own.

# balances and debits
my $BALANCES = <<'SQL';
SELECT concat_ws(' ', billing_id, t.balance, f.balance, t.debited, f.debited) FROM (
	SELECT billing_id, (usage_billing.account_balance(billing_id) ->> 'balance')::numeric AS balance, usage_billing.total_debited(billing_id) AS debited
	FROM usage_billing.billing_account) t JOIN (
	SELECT billing_id, sum(credits) AS balance, -sum(credits) FILTER (WHERE NOT granted) AS debited FROM (
		SELECT billing_id, -amount AS credits, false AS granted FROM usage_billing.usage WHERE type = 'credit'
		UNION ALL SELECT billing_id, amount, false FROM usage_billing.usage_revert WHERE usage_type = 'credit'
		UNION ALL SELECT billing_id, amount, true FROM usage_billing.credit_grant
		UNION ALL SELECT billing_id, 0, false FROM usage_billing.billing_account) c
	GROUP BY billing_id) f USING (billing_id)
WHERE (t.balance, t.debited) IS DISTINCT FROM (f.balance, f.debited)
SQL

# hours of usage, as usage_series answers them
my $HOURS = <<'SQL';
SELECT concat_ws(' ', billing_id, hour, source, type, sum(events), sum(amount)) FROM (
	SELECT billing_id, date_trunc('hour', created_at, 'UTC') AS hour, source, type, 1 AS events, amount FROM usage_billing.usage
	UNION ALL SELECT billing_id, date_trunc('hour', usage_at, 'UTC'), usage_source, usage_type, -usage_events, -amount FROM usage_billing.usage_revert
	UNION ALL SELECT a.billing_id, s.bucket_start, s.source, s.type, -s.events, -s.amount FROM usage_billing.billing_account a,
		LATERAL usage_billing.usage_series('2024-01-01 00:00:00Z', now() + interval '1 day', billing_id => a.billing_id) s) h
GROUP BY billing_id, hour, source, type HAVING sum(events) <> 0 OR sum(amount) <> 0
SQL

# what was viewed, as account_usage_trend answers it
my $VIEWED = <<'SQL';
SELECT concat_ws(' ', billing_id, period, told, viewed) FROM (
	SELECT a.billing_id, period,
		(usage_billing.account_usage_trend(split_part(period, ' ', 1), split_part(period, ' ', 2), billing_id => a.billing_id) #>> '{account,viewing_seconds}')::numeric AS told,
		(SELECT coalesce(sum((metadata ->> 'viewing_seconds')::numeric), 0) FROM usage_billing.usage u WHERE u.billing_id = a.billing_id AND type = 'feature'
			AND source IN ('vod_streams', 'transcoders') AND created_at >= split_part(period, ' ', 1)::timestamptz AND created_at < split_part(period, ' ', 2)::timestamptz)
		- (SELECT coalesce(sum(viewing_seconds), 0) FROM usage_billing.usage_revert r WHERE r.billing_id = a.billing_id
			AND usage_at >= split_part(period, ' ', 1)::timestamptz AND usage_at < split_part(period, ' ', 2)::timestamptz) AS viewed
	FROM usage_billing.billing_account a, (VALUES ('2024-02-28T00:00:00Z 2024-04-01T00:00:00Z'),
		(to_char(now() - interval '3 days', 'YYYY-MM-DD"T00:00:00Z"') || ' ' || to_char(now() + interval '3 days', 'YYYY-MM-DD"T00:00:00Z"'))) v (period)) t
WHERE told <> viewed
SQL

# The files of each organisation, counted, against what a function tells.
sub storage_sql
{
	my ($self, $function) = @_;
	my $files = join ' ', "SELECT org_id AS org, kind, bytes, duration_seconds AS seconds FROM usage_billing.stored_file",
	  map { "UNION ALL SELECT org, kind, size, seconds FROM files_$_" } $self->names;
	return <<"SQL";
WITH f AS MATERIALIZED ($files), counts AS (
	SELECT org, concat_ws(' ', count(*) FILTER (WHERE kind = 'image'), coalesce(sum(bytes) FILTER (WHERE kind = 'image'), 0), count(*) FILTER (WHERE kind = 'video'),
		coalesce(sum(bytes) FILTER (WHERE kind = 'video'), 0), count(*), sum(bytes), round(coalesce(sum(seconds) FILTER (WHERE kind = 'video'), 0) / 60, 2)) AS counted
	FROM f GROUP BY org)
SELECT concat_ws(' ', org_id, told, counted) FROM (
	SELECT p.org_id, concat_ws(' ', s.image_file_count, s.image_storage_bytes, s.video_file_count, s.video_storage_bytes, s.total_file_count, s.total_storage_bytes, s.total_video_minutes) AS told
	FROM (SELECT DISTINCT org_id FROM usage_billing.project) p, LATERAL usage_billing.$function(p.org_id) s) t
	LEFT JOIN counts ON org = org_id
WHERE told <> coalesce(counted, '0 0 0 0 0 0 0.00')
SQL
}

# Where a function tells anything else than a count of the files finds.
sub storage_differences
{
	my ($self, $node, $database, $function) = @_;
	return split /\n/, $node->safe_psql($database, $self->storage_sql($function));
}

# Tests all that is derived on a server that stands still, or, with stable, on
# one that can't be written to.
sub derived
{
	my ($self, $node, $name, %p) = @_;
	my $differ = sub {
		my ($sql, $what) = @_;
		return none([ split /\n/, $node->safe_psql('postgres', $sql) ], "$name: $what");
	};

	$differ->($BALANCES, 'balances are what the facts say');
	$differ->($HOURS, 'hours are what the facts say');
	$differ->($VIEWED, 'trends are what the facts say');
	$differ->('SELECT * FROM usage_billing.verify()', 'verify() finds nothing');
	return if $p{stable};
	$differ->($self->storage_sql('refresh_storage_usage'), 'refreshed storage is what a count finds');
	$differ->($self->storage_sql('get_storage_usage'), 'and so is the snapshot');
	$node->safe_psql('postgres', 'SELECT usage_billing.run_maintenance()');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM usage_billing.usage_delta'), 0, "$name: all is folded");
	$differ->($BALANCES, 'folded, balances are the same');
	$differ->($HOURS, 'folded, hours are the same');
	$differ->($VIEWED, 'folded, trends are the same');
	$differ->($self->storage_sql('recount_storage_usage'), 'a recount finds the same');
	return;
}

# No account of tight credit is under its credit_min.
our $UNDER = <<'SQL';
SELECT b ->> 'billing_id', b ->> 'balance', b ->> 'credit_min'
FROM (SELECT usage_billing.account_balance(billing_id) AS b FROM usage_billing.billing_account WHERE billing_id LIKE 'tight-%') t
WHERE (b ->> 'balance')::numeric < (b ->> 'credit_min')::numeric
SQL

# The SQLSTATEs that a server logged with an error or worse, but for those that
# may be; log_line_prefix has to end with "=%e ".
sub unexpected_states
{
	my ($node, @may) = @_;
	my %may = map { $_ => 1 } @may;
	my %seen;

	for my $line (split /\n/, slurp_file($node->logfile))
	{
		next unless $line =~ /=(\w{5}) (ERROR|FATAL|PANIC):  (.*)/ && !$may{$1};
		$seen{"$1 $2 $3"}++;
	}
	return map { "$seen{$_} times $_" } sort keys %seen;
}

# Deadlocks in a server's log, as lists of the statements that took part, the one
# that paid first: those that a single call paid without anybody's transaction of
# several, and how many there were at all.
sub deadlocks
{
	my ($node) = @_;
	my @all = map { [ /^\tProcess \d+: (.*)/mg ] } slurp_file($node->logfile) =~ /ERROR:  deadlock detected\n(.*\n(?:\t.*\n)*)/g;
	my ($call, $alone) = (qr/^\Q$LoadClient::MARK{call}\E/, qr/^(?:\Q$LoadClient::MARK{call}\E|\Q$LoadClient::MARK{load}\E)/);
	my @wrong = grep { $_->[0] =~ $call && @$_ == grep { $_ =~ $alone } @$_ } @all;
	return ([ map { join "\n  with ", @$_ } @wrong ], scalar @all);
}

1;
