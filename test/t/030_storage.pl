# Storage usage under load: random inserts, updates, deletes and truncates by
# many clients, with refreshes and recounts in between, always end in what a
# plain count finds. A dump brings all of it along. What a refresh costs is
# measured and reported.
#
# STORAGE_SEED repeats a run's random choices, STORAGE_SECONDS is a round's time,
# STORAGE_FILES the files of the large organisation that is measured.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

my $SEED = $ENV{STORAGE_SEED} // int rand 2**31;
my $SECONDS = $ENV{STORAGE_SECONDS} // 4;
my $FILES = $ENV{STORAGE_FILES} // 1_000_000;
my $CLIENTS = 8;
my $ORGS = 8;

my $node = BillingNode::start(deadlock_timeout => '100ms');
my $directory = PostgreSQL::Test::Utils::tempdir();
diag("seed $SEED");

sub value { return $node->safe_psql($_[0], $_[1]); }

# ---------------------------------------------------------------------------
# Four tables of three kinds: ours, a partitioned one and two with odd types,
# which belong to a role that owns nothing else. Organisations are 1 to 8.

$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', <<'SQL');
CREATE EXTENSION usage_billing;
CREATE ROLE app_owner;
CREATE SCHEMA "App Data" AUTHORIZATION app_owner;
GRANT USAGE ON SCHEMA usage_billing TO app_owner;
GRANT EXECUTE ON FUNCTION usage_billing.track_storage, usage_billing.untrack_storage TO app_owner;
SET ROLE app_owner;
CREATE TYPE "App Data".kind AS ENUM ('image', 'video', 'text');
CREATE TABLE "App Data"."Files" (id int, "Org" text, "Bytes" numeric, kind "App Data".kind, "for" interval) PARTITION BY HASH (id);
CREATE TABLE "App Data"."Files 0" PARTITION OF "App Data"."Files" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE "App Data"."Files 1" PARTITION OF "App Data"."Files" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON "App Data"."Files" (id);
CREATE TABLE "App Data".videos (id int PRIMARY KEY, org int, size text, seconds numeric(10,3));
CREATE TABLE "App Data".cache (org varchar(10), size int);
INSERT INTO "App Data"."Files" SELECT n, 1 + n % 8, n, (ARRAY['image', 'video', 'text'])[1 + n % 3]::"App Data".kind, n * interval '1 second' FROM generate_series(1, 500) n;
SELECT usage_billing.track_storage('"App Data"."Files"', 'Org', 'Bytes', kind_column => 'kind', duration_column => 'for');
SELECT usage_billing.track_storage('"App Data".videos', 'org', 'size', kind => 'video', duration_column => 'seconds');
SELECT usage_billing.track_storage('"App Data".cache', 'org', 'size', kind => 'image');
RESET ROLE;
SELECT usage_billing.set_storage_limits(n::text, n, 10 * n, NULL), usage_billing.create_project('project-' || n, n::text) FROM generate_series(1, 8) n;

CREATE VIEW all_files AS
	SELECT org_id AS org, bytes::numeric, kind, duration_seconds AS seconds FROM usage_billing.stored_file
	UNION ALL SELECT "Org", "Bytes", kind::text, extract(epoch FROM "for") FROM "App Data"."Files"
	UNION ALL SELECT org::text, size::numeric, 'video', seconds FROM "App Data".videos
	UNION ALL SELECT org, size, (SELECT kind FROM usage_billing.storage_source WHERE relation = '"App Data".cache'::regclass), 0 FROM "App Data".cache;
CREATE FUNCTION counted(wanted text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', count(*) FILTER (WHERE kind = 'image'), coalesce(sum(bytes) FILTER (WHERE kind = 'image'), 0),
		count(*) FILTER (WHERE kind = 'video'), coalesce(sum(bytes) FILTER (WHERE kind = 'video'), 0), count(*), coalesce(sum(bytes), 0),
		round(coalesce(sum(seconds) FILTER (WHERE kind = 'video'), 0) / 60, 2)) FROM all_files WHERE org = wanted $$;
CREATE FUNCTION told(u usage_billing.storage_usage) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', u.image_file_count, u.image_storage_bytes, u.video_file_count, u.video_storage_bytes, u.total_file_count, u.total_storage_bytes, u.total_video_minutes) $$;
CREATE FUNCTION compare(org text, again boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	got text := CASE WHEN again THEN told(usage_billing.recount_storage_usage(org)) ELSE told(usage_billing.refresh_storage_usage(org)) END;
BEGIN
	IF got IS DISTINCT FROM counted(org) THEN
		RAISE 'organisation % has %, but counted %', org, got, counted(org);
	END IF;
END $$;
SQL

# Runs pgbench's clients with weighted scripts; a deadlock or a serialization
# failure of a transaction of several statements is repeated.
my %SCRIPTS = (
	insert => [ 10, <<'SQL' ],
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds)
	VALUES ('f:id', ':org', (ARRAY['image', 'video', 'text'])[:k], :bytes, :bytes / 7.0) ON CONFLICT DO NOTHING;
SQL
	insert_many => [ 5, <<'SQL' ],
INSERT INTO "App Data"."Files" SELECT :id + n, (1 + (:org + n) % 8)::text, :bytes + n, (ARRAY['image', 'video', 'text', NULL])[1 + n % 4]::"App Data".kind, n * interval '90.5 s'
	FROM generate_series(1, :k * 10) n;
SQL
	update => [ 8, <<'SQL' ],
UPDATE usage_billing.stored_file SET bytes = bytes + :k, org_id = ':org', kind = (ARRAY['image', 'video', 'text'])[:k] WHERE file_id = 'f:id';
UPDATE usage_billing.stored_file SET duration_seconds = :bytes WHERE file_id IN ('f:id', 'f:bytes');
SQL
	update_many => [ 3, <<'SQL' ],
UPDATE "App Data"."Files" SET id = id + :k, "Org" = ':org', "Bytes" = "Bytes" * 2 % 100003 WHERE id BETWEEN :id AND :id + 20;
SQL
	delete => [ 5, <<'SQL' ],
DELETE FROM usage_billing.stored_file WHERE file_id IN ('f:id', 'f:bytes');
DELETE FROM "App Data"."Files" WHERE id BETWEEN :id AND :id + 60;
SQL
	upsert => [ 5, <<'SQL' ],
INSERT INTO "App Data".videos VALUES (:id, :org, ':bytes', :bytes / 3.0) ON CONFLICT (id) DO UPDATE SET size = excluded.size, org = excluded.org;
SQL
	merge => [ 3, <<'SQL' ],
MERGE INTO "App Data".videos v USING (SELECT 10000 * (1 + :client_id) + :id % 50 + n AS id, n FROM generate_series(0, :k) n) AS g ON v.id = g.id
	WHEN MATCHED AND g.n = 1 THEN DELETE
	WHEN MATCHED THEN UPDATE SET seconds = seconds + 1.5, org = :org
	WHEN NOT MATCHED THEN INSERT VALUES (g.id, :org, '7', 2);
SQL
	move => [ 3, <<'SQL' ],
WITH gone AS (DELETE FROM "App Data".videos WHERE id BETWEEN :id AND :id + 5 RETURNING *)
	INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds)
	SELECT 'f' || id, org::text, 'video', size::bigint, seconds FROM gone ON CONFLICT (file_id) DO UPDATE SET bytes = 0;
SQL
	savepoint => [ 3, <<'SQL' ],
BEGIN;
INSERT INTO "App Data".cache VALUES (':org', :bytes);
SAVEPOINT s;
DELETE FROM usage_billing.stored_file WHERE org_id = ':org';
UPDATE "App Data".cache SET size = size + 1 WHERE org = ':org';
ROLLBACK TO SAVEPOINT s;
INSERT INTO "App Data".cache VALUES (':k', :bytes);
COMMIT;
SQL
	rollback => [ 2, <<'SQL' ],
BEGIN;
INSERT INTO "App Data".cache VALUES (':org', :bytes), (':k', :bytes);
TRUNCATE "App Data".cache;
ROLLBACK;
SQL
	truncate => [ 1, <<'SQL' ],
BEGIN;
INSERT INTO "App Data".cache VALUES (':org', 5);
TRUNCATE "App Data".cache;
INSERT INTO "App Data".cache VALUES (':org', :bytes), (':k', 6);
COMMIT;
SQL
	refresh => [ 8, "SELECT /* alone */ usage_billing.refresh_storage_usage(':org');\n" ],
	recount => [ 3, "SELECT /* alone */ usage_billing.recount_storage_usage(':org');\n" ],
	maintenance => [ 1, "SELECT /* alone */ usage_billing.run_maintenance();\n" ],
	read => [ 2, "SELECT /* alone */ usage_billing.get_storage_usage(':org'), usage_billing.get_storage_usage_history(3, ':org');\n" ],
	# writers stand still for a moment, and the answer has to be right
	compare => [ 2, <<'SQL' ],
BEGIN;
LOCK TABLE usage_billing.stored_file, "App Data"."Files", "App Data".videos, "App Data".cache IN SHARE MODE;
SELECT compare(':org', :k = 1);
COMMIT;
SQL
);
my $VARIABLES = "\\set id random_zipfian(1, 3000, 1.05)\n\\set org random(1, $ORGS)\n\\set k random(1, 3)\n\\set bytes random(0, 2000)\n";

sub load_begin
{
	my ($round) = @_;
	my @files;

	for my $name (sort keys %SCRIPTS)
	{
		my ($weight, $sql) = @{ $SCRIPTS{$name} };
		my $file = "$directory/$name-$round.sql";
		append_to_file($file, $VARIABLES . $sql);
		push @files, '-f', "$file\@$weight";
	}
	my $load = { round => $round, out => '', err => '' };
	$load->{run} = IPC::Run::start([ 'pgbench', '-n', '-c', $CLIENTS, '-j', 2, '-T', $SECONDS, '--max-tries=0', '--random-seed=' . ($SEED + $round),
			@files, $node->connstr('app') ], '>', \$load->{out}, '2>', \$load->{err});
	return $load;
}

sub load_end
{
	my ($load) = @_;
	$load->{run}->finish;
	is($?, 0, "round $load->{round}: every answer in between was right, no client met an error") or diag("seed $SEED", $load->{err} =~ s/^pgbench: (?!error).*\n//mgr);
	my ($done) = $load->{out} =~ /number of transactions actually processed: (\d+)/;
	cmp_ok($done // 0, '>', 100, "round $load->{round}: there was a load");
	note("round $load->{round}: $done transactions") if defined $done;
	return;
}

# Organisations with what a function tells of them, and what a plain count finds.
sub told
{
	my ($database, $function) = @_;
	return value($database, "SELECT n, told(usage_billing.$function(n::text)) FROM generate_series(1, $ORGS) n");
}
sub counted { return value($_[0], "SELECT n, counted(n::text) FROM generate_series(1, $ORGS) n"); }

# What is derived of tables that are there, added up.
my $DERIVED = <<'SQL';
SELECT org_id, source_id, d.kind, sum(files), sum(bytes), sum(seconds) FROM (
	SELECT * FROM usage_billing.storage_total UNION ALL SELECT * FROM usage_billing.storage_delta) d
	JOIN usage_billing.storage_source s USING (source_id) JOIN pg_class c ON c.oid = s.relation
GROUP BY 1, 2, 3 HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(seconds) <> 0 ORDER BY 1, 2, 3
SQL

sub exact
{
	my ($database, $name) = @_;
	my $counted = counted($database);

	is(told($database, 'refresh_storage_usage'), $counted, "$name: refreshes equal a plain count") or diag("seed $SEED");
	is(told($database, 'get_storage_usage'), $counted, "$name: and are what get_storage_usage tells");
	is(value($database, 'SELECT count(*) FROM usage_billing.storage_delta'), 0, "$name: nothing is left to fold");
	my $derived = value($database, $DERIVED);
	is(told($database, 'recount_storage_usage'), $counted, "$name: recounts equal a plain count") or diag("seed $SEED");
	is(value($database, $DERIVED), $derived, "$name: recounts found nothing to mend");
	return;
}

# ---------------------------------------------------------------------------
# Rounds. In the second one a definition changes under load, beside the third one
# a dump is made, and in the fourth one workers are there too.

exact('app', 'at the start');
my $load = load_begin(1);
load_end($load);
exact('app', 'round 1');

$load = load_begin(2);
for my $kind ('image', 'video', 'image')
{
	select undef, undef, undef, $SECONDS / 5;
	my ($state) = BillingNode::outcome($node, 'app', qq{SELECT usage_billing.track_storage('"App Data".cache', 'org', 'size', kind => '$kind')});
	$state eq '00000' or $state eq '40P01' or fail("round 2: track_storage failed with $state");
}
load_end($load);
value('app', q{SELECT usage_billing.track_storage('"App Data".cache', 'org', 'size', kind => 'image')});
exact('app', 'round 2');

my $before = value('app', 'SELECT count(*) FROM all_files');
cmp_ok($before, '>', 500, 'there are files');
$load = load_begin(3);
$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('app'), '-f', "$directory/live" ], 'pg_dump beside the load');
load_end($load);
exact('app', 'round 3');
is(value('app', 'SELECT count(*) FROM usage_billing.storage_source s LEFT JOIN pg_class c ON c.oid = relation WHERE c.oid IS NULL'), 0, 'every source is there');

# The fourth with workers, which refresh and recount every second.
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'usage_billing'
usage_billing.storage_refresh_interval = 1s
usage_billing.storage_recount_interval = 1s
CONF
$node->restart;
my $recounted = value('app', 'SELECT max(counted_at) FROM usage_billing.storage_counted');
$load = load_begin(4);
load_end($load);
exact('app', 'round 4');
cmp_ok(value('app', 'SELECT max(counted_at) FROM usage_billing.storage_counted'), 'gt', $recounted, 'round 4: workers recounted');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;

# A single call never fails because of others.
my ($error, @failed) = ('');
for my $line (split /\n/, slurp_file($node->logfile))
{
	$error = $line if $line =~ /ERROR:  /;
	push @failed, "$error\n$line\n" if $line =~ m{STATEMENT:  SELECT /\* alone \*/};
}
is(join('', @failed), '', 'no refresh, recount or reading failed');

# ---------------------------------------------------------------------------
# Dump and restore. There are changes that nobody folded, a snapshot of another
# day, and a source whose table was dropped.

$node->safe_psql('app', <<'SQL');
UPDATE "App Data"."Files" SET "Bytes" = "Bytes" + 1 WHERE "Org" = '1';
DELETE FROM usage_billing.stored_file WHERE org_id = '2';
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, total_video_minutes, last_updated) VALUES ('1', '2024-02-29', 5, 12.345, '2024-02-29 23:59:59Z');
CREATE TABLE dropped (org text, bytes int);
INSERT INTO dropped VALUES ('1', 1000);
SELECT usage_billing.track_storage('dropped', 'org', 'bytes');
SELECT usage_billing.refresh_storage_usage('1');
DROP TABLE dropped;
UPDATE "App Data".videos SET size = '3' WHERE org = 3;
SQL

# What is dumped, and equal before anything is asked.
my $PICTURE = <<'SQL';
SELECT 'files', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM usage_billing.stored_file t
UNION ALL SELECT 'app files', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM all_files t
UNION ALL SELECT 'snapshots', md5(string_agg(t::text, ',' ORDER BY t::text)) FROM usage_billing.storage_snapshot t
UNION ALL SELECT 'limits', string_agg(t::text, ',' ORDER BY t::text) FROM usage_billing.storage_limit t
UNION ALL SELECT 'sources', string_agg(t::text, ',' ORDER BY t::text) FROM usage_billing.storage_source t WHERE EXISTS (SELECT FROM pg_class WHERE oid = relation)
UNION ALL SELECT 'usage of ' || n, usage_billing.get_storage_usage(n::text)::text FROM generate_series(1, 8) n
UNION ALL SELECT 'history of ' || n, string_agg(h::text, ',' ORDER BY h::text) FROM generate_series(1, 8) n, usage_billing.get_storage_usage_history(2000, n::text) h GROUP BY n
ORDER BY 1
SQL

$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('app'), '-f', "$directory/quiet" ], 'pg_dump');
my ($contents) = run_command([ 'pg_restore', '-l', "$directory/quiet" ]);
like($contents, qr/TABLE DATA usage_billing $_ /, "$_ is dumped") for qw(stored_file storage_limit storage_snapshot storage_source);
unlike($contents, qr/TABLE DATA usage_billing $_ /, "$_ is not dumped") for qw(storage_delta storage_total storage_counted);

for my $dump ('quiet', 'live')
{
	my $to = "to_$dump";
	$node->safe_psql('postgres', "CREATE DATABASE $to");
	$node->command_ok([ 'pg_restore', '-e', '-j', '4', '-d', $node->connstr($to), "$directory/$dump" ], "$dump: pg_restore -j 4 into an empty database");
	is(value($to, $PICTURE), value('app', $PICTURE), "$dump: all that was dumped is equal") if $dump eq 'quiet';
	is(value($to, 'SELECT count(*) FROM usage_billing.storage_counted'), 0, "$dump: nothing is counted yet");
	is(value($to, 'SELECT count(*) FROM usage_billing.storage_source s LEFT JOIN pg_class c ON c.oid = relation WHERE c.oid IS NULL'), 0, "$dump: no source without a table");
	# the first answer of all
	is(value($to, "SELECT told(usage_billing.refresh_storage_usage('5'))"), value($to, "SELECT counted('5')"), "$dump: the first answer counts");
	$node->safe_psql($to, <<'SQL');
INSERT INTO "App Data".cache VALUES ('5', 77);
UPDATE "App Data"."Files" SET "Org" = '6', id = id + 1 WHERE "Org" = '5';
DELETE FROM usage_billing.stored_file WHERE kind = 'image';
TRUNCATE "App Data".videos;
SQL
	exact($to, "$dump, restored and changed");
}
exact('app', 'the source of the dumps');

# Data only, with triggers disabled, into a table that is counted already.
$node->safe_psql('postgres', 'CREATE DATABASE to_silent');
$node->safe_psql('to_silent', 'CREATE EXTENSION usage_billing');
value('to_silent', "SELECT usage_billing.set_storage_limits('1'); SELECT usage_billing.refresh_storage_usage('1')");
$node->command_ok([ 'pg_restore', '-e', '-a', '--disable-triggers', '-t', 'stored_file', '-d', $node->connstr('to_silent'), "$directory/quiet" ], 'pg_restore --data-only --disable-triggers');
my $silent = value('to_silent', "SELECT count(*) FROM usage_billing.stored_file WHERE org_id = '1'");
cmp_ok($silent, '>', 0, 'there are files');
is(value('to_silent', "SELECT (usage_billing.refresh_storage_usage('1')).total_file_count"), 0, 'a refresh does not know of them');
is(value('to_silent', "SELECT (usage_billing.recount_storage_usage('1')).total_file_count"), $silent, 'a recount mends it');

# ---------------------------------------------------------------------------
# What a refresh costs after ten changes, in a large organisation and in a
# smaller one, and what counting costs. Measured in turns; reported, not judged:
# the machine may be busy.

$node->safe_psql('postgres', 'CREATE DATABASE measure');
$node->safe_psql('measure', <<"SQL");
CREATE EXTENSION usage_billing;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds)
	SELECT 'f' || n, CASE WHEN n <= $FILES THEN 'large' WHEN n <= $FILES + 10000 THEN 'small' ELSE 'other-' || n % 100 END,
		(ARRAY['image', 'video', 'text'])[1 + n % 3], n % 100000, n % 600
	FROM generate_series(1, $FILES + 10000 + $FILES / 5) n;
VACUUM ANALYZE usage_billing.stored_file;
SELECT usage_billing.refresh_storage_usage('large'), usage_billing.refresh_storage_usage('small');
CREATE TABLE measured (what text, ms numeric);
SQL
$node->safe_psql('measure', <<'SQL');
CREATE PROCEDURE measure(first int, last int) LANGUAGE plpgsql AS $$
DECLARE
	org text;
	began timestamptz;
BEGIN
	FOR i IN first .. last LOOP
		FOREACH org IN ARRAY CASE WHEN i % 2 = 0 THEN '{large,small}' ELSE '{small,large}' END::text[] LOOP
			FOR n IN 1 .. 10 LOOP
				IF n <= 5 THEN
					INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES (format('%s-%s-%s', org, i, n), org, 'image', n);
				ELSIF n <= 8 THEN
					UPDATE usage_billing.stored_file SET bytes = bytes + 1, kind = 'video' WHERE file_id = format('%s-%s-%s', org, i, n - 5);
				ELSE
					DELETE FROM usage_billing.stored_file WHERE file_id = format('%s-%s-%s', org, i, n - 5);
				END IF;
				COMMIT;
			END LOOP;
			began := clock_timestamp();
			PERFORM usage_billing.refresh_storage_usage(org);
			COMMIT;
			INSERT INTO measured VALUES ('refresh ' || org, 1000 * extract(epoch FROM clock_timestamp() - began));
			COMMIT;
		END LOOP;
		began := clock_timestamp();
		PERFORM kind, count(*), sum(bytes), sum(duration_seconds) FROM usage_billing.stored_file WHERE org_id = 'large' GROUP BY kind;
		COMMIT;
		INSERT INTO measured VALUES ('count large', 1000 * extract(epoch FROM clock_timestamp() - began));
		COMMIT;
	END LOOP;
END $$;
CALL measure(1, 2);
TRUNCATE measured;
CALL measure(3, 17);
SQL
is(value('measure', 'SELECT string_agg(DISTINCT n::text, $$,$$) FROM (SELECT count(*) AS n FROM measured GROUP BY what) m'), 15, 'measured in 15 turns');
is(value('measure', "SELECT (usage_billing.refresh_storage_usage('large')).total_file_count"), value('measure', "SELECT count(*) FROM usage_billing.stored_file WHERE org_id = 'large'"),
	'what was measured is right');
my %median = map { split /\|/ } split /\n/, value('measure', 'SELECT what, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3) FROM measured GROUP BY what');
diag(sprintf 'medians of 15: refresh after ten changes in an organisation of %d files %.3f ms, of 10000 files %.3f ms (%.2f times); counting the former %.1f ms (%.0f times)',
	$FILES, $median{'refresh large'}, $median{'refresh small'}, $median{'refresh large'} / $median{'refresh small'},
	$median{'count large'}, $median{'count large'} / $median{'refresh large'});

$node->stop;
done_testing();
