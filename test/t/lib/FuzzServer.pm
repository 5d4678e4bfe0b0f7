# The server's side of the fuzz test: every document is one call in a
# subtransaction of its own, by a function that notes what came of it.
package FuzzServer;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw($FUZZ_COLUMNS $FUZZ_SETUP fuzz_memory fuzz_session);

our $FUZZ_COLUMNS = 12;

# What all sessions share: a row a call, and what was not as expected.
our $FUZZ_SETUP = <<'SQL';
CREATE SCHEMA fuzz;
CREATE UNLOGGED TABLE fuzz.result (worker int, n int, target text, outcome text, stored int, took interval);
CREATE UNLOGGED TABLE fuzz.message (worker int, target text, outcome text, message text, n int, times bigint,
	PRIMARY KEY (worker, target, outcome, message));
CREATE UNLOGGED TABLE fuzz.problem (worker int, n int, target text, expected text, outcome text, message text, detail text, arguments text[]);
CREATE UNLOGGED TABLE fuzz.memory (worker int, n int, contexts bigint, resident bigint);
-- What an application may track.
CREATE DOMAIN fuzz.size AS bigint;
CREATE TYPE fuzz.kind AS ENUM ('image', 'video', 'text');
CREATE VIEW fuzz.some_view AS SELECT 'x' AS org, 1 AS bytes;

-- One document: calls the target and tells what came of it: the SQLSTATE, with
-- "c" before it if an argument wasn't even of the parameter's type, and how many
-- facts were stored.
CREATE FUNCTION fuzz.call(target text, a text[], OUT outcome text, OUT stored int, OUT message text, OUT detail text)
LANGUAGE plpgsql AS $$
DECLARE
	stage text := 'c';
	j jsonb; u uuid; u2 uuid; i bigint; i2 bigint; i3 bigint; k int; o oid; b boolean; t timestamptz; t2 timestamptz;
	d date; x numeric; y usage_billing.usage_type; s smallint; m bigint[]; answer jsonb; c1 name; c2 name; c3 name; c4 name; r fuzz.kind; v interval;
BEGIN
	stored := 0;
	outcome := '00000';
	CASE target
	WHEN 'create_usage' THEN
		j := a[1]; stage := '';
		answer := usage_billing.create_usage(j, a[2], a[3], a[4]);
		stored := answer -> 'created';
		IF (answer -> 'created')::int + (answer -> 'duplicates')::int <> jsonb_array_length(j) OR answer -> 'balance' IS NULL THEN
			RAISE 'create_usage does not answer for every element' USING ERRCODE = 'FUZZ1';
		END IF;
	WHEN 'insert usage' THEN
		u := a[2]; y := a[3]; i := a[4]; j := a[8]; t := a[9]; t2 := a[10]; stage := '';
		IF a[11] IS NULL THEN
			INSERT INTO usage_billing.usage (billing_id, id, type, amount, source, description, user_id, metadata, created_at, updated_at)
			VALUES (a[1], u, y, i, a[5], a[6], a[7], j, t, t2);
		ELSE
			-- by way of a table that keeps its values compressed or elsewhere
			EXECUTE format('DELETE FROM fuzz.%I', a[11]);
			EXECUTE format('INSERT INTO fuzz.%I VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)', a[11]) USING a[1], u, y, i, a[5], a[6], a[7], j, t, t2;
			EXECUTE format('INSERT INTO usage_billing.usage SELECT * FROM fuzz.%I', a[11]);
		END IF;
		GET DIAGNOSTICS stored = ROW_COUNT;
	WHEN 'copy' THEN
		stage := '';
		EXECUTE format('COPY usage_billing.%I (%s) FROM %L', a[1], a[2], a[3]);
		GET DIAGNOSTICS stored = ROW_COUNT;
	WHEN 'grant_credits' THEN
		u := a[1]; i := a[2]; j := a[9]; stage := '';
		answer := usage_billing.grant_credits(u, i, a[3], a[4], a[5], a[6], a[7], a[8], j);
		stored := (NOT (answer -> 'duplicate')::boolean)::int;
	WHEN 'insert credit_grant' THEN
		u := a[2]; i := a[3]; j := a[7]; t := a[8]; stage := '';
		INSERT INTO usage_billing.credit_grant (billing_id, id, amount, source, description, user_id, metadata, created_at)
		VALUES (a[1], u, i, a[4], a[5], a[6], j, t);
		GET DIAGNOSTICS stored = ROW_COUNT;
	WHEN 'revert_usage' THEN
		u := a[1]; i := a[2]; u2 := a[6]; j := a[9]; stage := '';
		answer := usage_billing.revert_usage(u, i, a[3], a[4], a[5], u2, a[7], a[8], j);
		stored := (NOT (answer -> 'duplicate')::boolean)::int;
	WHEN 'insert usage_revert' THEN
		u := a[2]; i := a[3]; u2 := a[4]; j := a[6]; t := a[7]; y := a[8]; t2 := a[10]; s := a[11]; m := a[12]; stage := '';
		INSERT INTO usage_billing.usage_revert (billing_id, usage_id, amount, id, description, metadata, created_at,
			usage_type, usage_source, usage_at, usage_events, viewing_seconds, viewing_bytes, egress_seconds,
			egress_seconds_additional_targets, egress_bytes)
		VALUES (a[1], u, i, u2, a[5], j, t, y, a[9], t2, s, m[1], m[2], m[3], m[4], m[5]);
		GET DIAGNOSTICS stored = ROW_COUNT;
	WHEN 'account_usage_trend' THEN
		j := a[3]; stage := '';
		answer := usage_billing.account_usage_trend(a[1], a[2], j, a[4], a[5], a[6], a[7]);
	WHEN 'usage_series' THEN
		t := a[1]; t2 := a[2]; y := a[6]; stage := '';
		SELECT count(*) INTO i FROM usage_billing.usage_series(t, t2, a[3], a[4], a[5], y, a[7], a[8], a[9]);
	WHEN 'account_transactions' THEN
		t := a[1]; t2 := a[2]; k := a[3]; stage := '';
		SELECT count(*) INTO i FROM usage_billing.account_transactions(t, t2, k, a[4], a[5], a[6], a[7]);
	WHEN 'account_balance' THEN
		stage := '';
		answer := usage_billing.account_balance(a[1], a[2], a[3]);
	WHEN 'total_debited' THEN
		stage := '';
		i := usage_billing.total_debited(a[1], a[2], a[3]);
	WHEN 'claims' THEN
		PERFORM set_config('request.jwt.claims', a[1], true);
		stage := '';
		answer := usage_billing.account_balance(a[2], a[3], a[4]);
		PERFORM usage_billing.request_org(), usage_billing.request_accounts();
	WHEN 'create_billing_account' THEN
		i := a[3]; b := a[4]; j := a[5]; stage := '';
		PERFORM usage_billing.create_billing_account(a[1], a[2], i, b, j);
	WHEN 'create_project' THEN
		stage := '';
		PERFORM usage_billing.create_project(a[1], a[2]);
	WHEN 'insert billing_account' THEN
		b := a[3]; i := a[4]; t := a[6]; j := a[7]; t2 := a[8]; stage := '';
		INSERT INTO usage_billing.billing_account (billing_id, org_id, is_default, credit_min, state, last_billed_at, metadata, created_at)
		VALUES (a[1], a[2], b, i, a[5], t, j, t2);
	WHEN 'insert project' THEN
		t := a[3]; stage := '';
		INSERT INTO usage_billing.project (project_id, org_id, created_at) VALUES (a[1], a[2], t);
	WHEN 'close_billing_period' THEN
		t := a[1]; stage := '';
		PERFORM usage_billing.close_billing_period(t, a[2], a[3], a[4]);
	WHEN 'set_storage_limits' THEN
		i := a[2]; i2 := a[3]; i3 := a[4]; stage := '';
		PERFORM usage_billing.set_storage_limits(a[1], i, i2, i3);
	WHEN 'refresh_storage_usage' THEN
		stage := '';
		PERFORM usage_billing.refresh_storage_usage(a[1]);
	WHEN 'recount_storage_usage' THEN
		stage := '';
		PERFORM usage_billing.recount_storage_usage(a[1]);
	WHEN 'get_storage_usage' THEN
		stage := '';
		PERFORM usage_billing.get_storage_usage(a[1]);
	WHEN 'get_storage_usage_history' THEN
		k := a[1]; stage := '';
		PERFORM count(*) FROM usage_billing.get_storage_usage_history(k, a[2]);
	WHEN 'insert stored_file' THEN
		i := a[4]; x := a[5]; stage := '';
		INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds) VALUES (a[1], a[2], a[3], i, x);
	WHEN 'insert storage_snapshot' THEN
		d := a[2]; i := a[3]; x := a[4]; t := a[5]; stage := '';
		INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, total_video_minutes, last_updated)
		VALUES (a[1], d, i, x, t);
	WHEN 'insert storage_limit' THEN
		i := a[2]; stage := '';
		INSERT INTO usage_billing.storage_limit (org_id, max_image_count) VALUES (a[1], i);
	WHEN 'track_storage' THEN
		o := a[1]::regclass; c1 := a[2]; c2 := a[3]; c3 := a[5]; c4 := a[6]; stage := '';
		PERFORM usage_billing.track_storage(o, c1, c2, a[4], c3, c4);
	WHEN 'untrack_storage' THEN
		o := a[1]::regclass; stage := '';
		PERFORM usage_billing.untrack_storage(o);
	WHEN 'change files' THEN
		u := a[4]; i := a[5]; r := a[6]; v := a[7]; x := a[8]; stage := '';
		CASE a[2]
		WHEN 'insert' THEN EXECUTE format('INSERT INTO fuzz.files_%s VALUES ($1, $2, $3, $4, $5, $6)', a[1]) USING a[3], u, i, r, v, x;
		WHEN 'update' THEN EXECUTE format('UPDATE fuzz.files_%s SET org = $1, bytes = $2, length = $3', a[1]) USING a[3], i, v;
		WHEN 'delete' THEN EXECUTE format('DELETE FROM fuzz.files_%s', a[1]);
		END CASE;
	WHEN 'verify' THEN
		stage := '';
		SELECT count(*) INTO i FROM usage_billing.verify(a[1]);
		IF i > 0 THEN
			RAISE 'verify finds something' USING ERRCODE = 'FUZZ1';
		END IF;
	WHEN 'rebuild' THEN
		stage := '';
		PERFORM usage_billing.rebuild(a[1]);
	END CASE;
-- an assertion that fails or a cancelled statement isn't caught, and ends the run
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS outcome = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
	outcome := stage || outcome;
	stored := 0;
END $$;

-- Every document in the session's table document.
CREATE FUNCTION fuzz.run(worker int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	d record;
	begun timestamptz;
	c record;
BEGIN
	FOR d IN SELECT n, target, expected, ARRAY[a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12] AS a FROM document ORDER BY n LOOP
		begun := clock_timestamp();
		SELECT * INTO c FROM fuzz.call(d.target, d.a);
		INSERT INTO fuzz.result VALUES (worker, d.n, d.target, c.outcome, c.stored, clock_timestamp() - begun);
		IF c.outcome <> ALL (string_to_array(d.expected, ' ')) OR (c.outcome NOT LIKE 'c%' AND d.target <> 'copy'
				AND (c.message LIKE '%mArKeR%' OR length(c.detail) > 1000)) THEN
			INSERT INTO fuzz.problem VALUES (worker, d.n, d.target, d.expected, c.outcome, c.message, c.detail, d.a);
		END IF;
		IF c.outcome ~ '^[^c0]' THEN
			INSERT INTO fuzz.message AS m VALUES (worker, d.target, c.outcome, c.message, d.n, 1)
			ON CONFLICT ON CONSTRAINT message_pkey DO UPDATE SET times = m.times + 1;
		END IF;
		PERFORM set_config('request.jwt.claims', '', true);
	END LOOP;
	DELETE FROM document;
END $$;
SQL

# What a session runs first.
sub fuzz_session
{
	my ($worker, $often) = @_;
	my $columns = join ', ', map { "a$_ text" } 1 .. $FUZZ_COLUMNS;
	my $once = $often ? 'off' : 'on';

	return <<"SQL";
SET client_min_messages = error;
SET statement_timeout = '5min';
SET temp_buffers = '1MB';
LOAD 'usage_billing';
SET usage_billing.revert_once = $once;
CREATE TEMP TABLE document (n int, target text, expected text, $columns);
CREATE UNLOGGED TABLE fuzz.toasted_$worker (billing_id text, id uuid, type usage_billing.usage_type, amount bigint, source text, description text, user_id text,
	metadata jsonb, created_at timestamptz, updated_at timestamptz) WITH (toast_tuple_target = 128);
ALTER TABLE fuzz.toasted_$worker ALTER billing_id SET STORAGE EXTERNAL, ALTER source SET STORAGE EXTERNAL, ALTER description SET STORAGE EXTENDED, ALTER metadata SET STORAGE EXTENDED;
CREATE TABLE fuzz.files_$worker (org text, "or""g" uuid, bytes fuzz.size, kind fuzz.kind, length interval, "\xc3\x9cn\\" numeric, flag boolean);
SQL
}

# What it runs now and then: its own memory.
sub fuzz_memory
{
	my ($worker, $n) = @_;

	return <<"SQL";
INSERT INTO fuzz.memory SELECT $worker, $n, (SELECT sum(total_bytes) FROM pg_backend_memory_contexts),
	(regexp_match(pg_read_file('/proc/self/status'), 'RssAnon:\\s+(\\d+)'))[1]::bigint * 1024;
SQL
}

1;
