-- Whose code runs with whose rights. Counting reads an application's tables,
-- and what a column's type brings along runs then. The owner of such a table
-- is an ordinary role here, and wants more.

CREATE ROLE ub_test_owner;
CREATE ROLE ub_test_writer;
CREATE ROLE ub_test_victim SUPERUSER;
CREATE SCHEMA ub_test_owned AUTHORIZATION ub_test_owner;
GRANT USAGE ON SCHEMA usage_billing TO ub_test_owner;
GRANT EXECUTE ON FUNCTION usage_billing.track_storage, usage_billing.untrack_storage TO ub_test_owner;
GRANT USAGE ON SCHEMA ub_test TO ub_test_owner;
SELECT ok(NOT rolsuper AND NOT rolcreaterole, 'the owner of the tables is an ordinary role') FROM pg_roles WHERE rolname = 'ub_test_owner';

SET LOCAL ROLE ub_test_owner;

-- What the owner's code finds out and tries, each time that it runs while it
-- is armed: a superuser who casts to the owner's domains has only itself to blame.
CREATE TABLE ub_test_owned.armed (yes boolean);
CREATE TABLE ub_test_owned.seen (who text, path text, attempt text, result text);
CREATE FUNCTION ub_test_owned.attack() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	attempt text;
	result text;
BEGIN
	IF NOT EXISTS (SELECT FROM ub_test_owned.armed) OR EXISTS (SELECT FROM ub_test_owned.seen OFFSET 1000) THEN
		RETURN;
	END IF;
	FOREACH attempt IN ARRAY ARRAY[
		'ALTER ROLE ub_test_owner SUPERUSER',
		'GRANT ub_test_victim TO ub_test_owner',
		'CREATE ROLE ub_test_new SUPERUSER',
		'SET ROLE ub_test_victim',
		'RESET ROLE',
		'SET SESSION AUTHORIZATION DEFAULT',
		'CREATE TEMP TABLE ub_test_temp (n int)',
		'CREATE TABLE usage_billing.trap (n int)',
		'CREATE FUNCTION ub_test.trap() RETURNS int LANGUAGE sql AS ''SELECT 1''',
		'SELECT count(*) FROM usage_billing.storage_total',
		'INSERT INTO usage_billing.storage_total VALUES (''victim'', gen_random_uuid(), ''image'', 1, 1, 1)',
		'SELECT usage_billing.recount_storage_usage(''victim'')',
		'SET usage_billing.service_role = ub_test_owner',
		'DECLARE trap CURSOR WITH HOLD FOR SELECT 1',
		'INSERT INTO ub_test_owned.deferred VALUES (1)',
		'COPY (SELECT 1) TO PROGRAM ''true'''] LOOP
		BEGIN
			EXECUTE attempt;
			result := '00000';
		EXCEPTION WHEN OTHERS THEN
			result := SQLSTATE;
		END;
		INSERT INTO ub_test_owned.seen VALUES (current_user, current_setting('search_path'), attempt, result);
	END LOOP;
END $$;

-- A trigger that would run when the transaction ends, with the session's rights.
CREATE TABLE ub_test_owned.deferred (n int);
CREATE FUNCTION ub_test_owned.deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ub_test_owned.attack();
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON ub_test_owned.deferred DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION ub_test_owned.deferred();

-- Types whose cast to text, or whose check, is the owner's code.
CREATE TYPE ub_test_owned.kind AS ENUM ('image', 'video');
CREATE FUNCTION ub_test_owned.kind_text(value ub_test_owned.kind) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ub_test_owned.attack();
	RETURN enum_out(value);
END $$;
CREATE CAST (ub_test_owned.kind AS text) WITH FUNCTION ub_test_owned.kind_text(ub_test_owned.kind) AS IMPLICIT;
CREATE TYPE ub_test_owned.org AS ENUM ('org-a', 'org-b');
CREATE FUNCTION ub_test_owned.org_text(value ub_test_owned.org) RETURNS text
LANGUAGE sql AS $$ SELECT ub_test_owned.attack(); SELECT 'org-' || right(enum_out(value)::text, 1) $$;
CREATE CAST (ub_test_owned.org AS text) WITH FUNCTION ub_test_owned.org_text(ub_test_owned.org);
CREATE FUNCTION ub_test_owned.check_value(value anyelement) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM ub_test_owned.attack();
	RETURN true;
END $$;
CREATE DOMAIN ub_test_owned.bytes AS bigint CHECK (ub_test_owned.check_value(VALUE));
CREATE DOMAIN ub_test_owned.kind_domain AS ub_test_owned.kind CHECK (ub_test_owned.check_value(VALUE));
CREATE TABLE ub_test_owned.files (o ub_test_owned.org, b ub_test_owned.bytes, k ub_test_owned.kind_domain, s numeric DEFAULT 6);

-- Operators, functions and types of the usual names, for callers whose
-- search_path can be led here.
CREATE FUNCTION ub_test_owned.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN true; END $$;
CREATE FUNCTION ub_test_owned.trap(numeric, numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN 7; END $$;
CREATE FUNCTION ub_test_owned.trap(int, numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN 7; END $$;
CREATE OPERATOR ub_test_owned.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ub_test_owned.trap);
CREATE OPERATOR ub_test_owned.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = ub_test_owned.trap);
CREATE OPERATOR ub_test_owned.+ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = ub_test_owned.trap);
CREATE OPERATOR ub_test_owned.* (LEFTARG = int, RIGHTARG = numeric, FUNCTION = ub_test_owned.trap);
CREATE OPERATOR ub_test_owned./ (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = ub_test_owned.trap);
CREATE AGGREGATE ub_test_owned.sum (numeric) (SFUNC = ub_test_owned.trap, STYPE = numeric, INITCOND = '0');
CREATE FUNCTION ub_test_owned.round(numeric, int) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN 7; END $$;
CREATE FUNCTION ub_test_owned.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN '2001-01-01'; END $$;
CREATE FUNCTION ub_test_owned.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM ub_test_owned.attack(); RETURN '2001-01-01'; END $$;

GRANT USAGE ON SCHEMA ub_test_owned TO ub_test_writer;
GRANT INSERT, SELECT ON ub_test_owned.files TO ub_test_writer;
CREATE FUNCTION ub_test_owned.track() RETURNS void LANGUAGE sql AS
$$ SELECT usage_billing.track_storage('ub_test_owned.files', 'o', 'b', kind_column => 'k', duration_column => 's') $$;
DO $$ BEGIN PERFORM ub_test_owned.track(); END $$;
RESET ROLE;
DO $$ BEGIN PERFORM ub_test.add_orgs('org-a', 'org-b'); END $$;

-- A superuser does something; what the owner's code saw meanwhile is judged.
CREATE TABLE ub_test.made (LIKE ub_test_owned.files);
INSERT INTO ub_test.made VALUES ('org-a', 10, 'image'), ('org-b', 20, 'video');
INSERT INTO ub_test_owned.armed VALUES (true);
CREATE FUNCTION ub_test.attacked(name text, statements text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM ub_test_owned.seen;
	PERFORM set_config('search_path', 'ub_test_owned, pg_catalog, ub_test', true);
	EXECUTE statements;
	PERFORM set_config('search_path', 'public', true);
	RETURN NEXT is(current_user::text, session_user::text, name || ': the session is itself again');
	RETURN NEXT isnt((SELECT count(*) FROM ub_test_owned.seen), 0::bigint, name || ': the owner''s code ran');
	RETURN NEXT is((SELECT array_agg(DISTINCT who) FROM ub_test_owned.seen), '{ub_test_owner}', name || ': with the owner''s rights');
	RETURN NEXT is((SELECT array_agg(DISTINCT path) FROM ub_test_owned.seen), '{"pg_catalog, pg_temp"}', name || ': with a safe search_path');
	RETURN NEXT is((SELECT array_agg(DISTINCT attempt || ': ' || result) FROM ub_test_owned.seen WHERE result <> '42501' AND NOT (attempt ~ 'deferred' AND result = '55000')), NULL,
		name || ': and nothing that it tried was allowed');
END $$;
SELECT ub_test.attacked('INSERT', 'INSERT INTO ub_test_owned.files SELECT * FROM ub_test.made');
SELECT ub_test.attacked('UPDATE', 'UPDATE ub_test_owned.files SET s = s OPERATOR(pg_catalog.+) 1');
SELECT ub_test.attacked('tracking', $$SELECT usage_billing.untrack_storage('ub_test_owned.files');
	SELECT usage_billing.track_storage('ub_test_owned.files', 'o', 'b', kind_column => 'k', duration_column => 's')$$);
SELECT ub_test.attacked('the first count', $$DELETE FROM usage_billing.storage_counted; SELECT usage_billing.refresh_storage_usage('org-a')$$);
SELECT ub_test.attacked('a recount', $$SELECT usage_billing.recount_storage_usage('org-b')$$);
SELECT ub_test.attacked('DELETE', 'DELETE FROM ub_test_owned.files WHERE b::bigint OPERATOR(pg_catalog.=) 20');
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('org-a')), 'org-a: image 1/10, video 0/0, all 1/10, 0.00 min', 'and the sums are right: org-a');
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('org-b')), 'org-b: image 0/0, video 0/0, all 0/0, 0.00 min', 'and the sums are right: org-b');

-- A caller's search_path changes nothing, in whatever order things are done.
CREATE FUNCTION ub_test.led_astray(path text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	got text;
BEGIN
	DELETE FROM ub_test_owned.seen;
	DISCARD PLANS;
	PERFORM set_config('search_path', path, true);
	PERFORM usage_billing.track_storage('usage_billing.stored_file', 'org_id', 'bytes', kind_column => 'kind', duration_column => 'duration_seconds');
	INSERT INTO usage_billing.stored_file (file_id, org_id, bytes, kind, duration_seconds) VALUES ('astray', 'astray', 3, 'video', 90);
	SELECT ub_test.line(usage_billing.refresh_storage_usage('astray')) INTO got;
	PERFORM set_config('search_path', 'public', true);
	RETURN NEXT is(got, 'astray: image 0/0, video 1/3, all 1/3, 1.50 min', 'search_path ' || path || ': refresh');
	PERFORM set_config('search_path', path, true);
	SELECT ub_test.line(usage_billing.recount_storage_usage('astray')) INTO got;
	PERFORM usage_billing.get_storage_usage('astray'), usage_billing.get_storage_usage_history(5, 'astray'), usage_billing.set_storage_limits('astray', 1, 2, 3);
	DELETE FROM usage_billing.stored_file WHERE file_id OPERATOR(pg_catalog.=) 'astray';
	PERFORM set_config('search_path', 'public', true);
	RETURN NEXT is(got, 'astray: image 0/0, video 1/3, all 1/3, 1.50 min', 'search_path ' || path || ': recount');
	RETURN NEXT is((SELECT array_agg(DISTINCT who) FROM ub_test_owned.seen WHERE who <> 'ub_test_owner'), NULL, 'search_path ' || path || ': nobody''s code ran with other rights');
END $$;
SELECT ub_test.led_astray(path) FROM (VALUES ('ub_test_owned, pg_catalog, pg_temp, public'), ('pg_temp, ub_test_owned'), ('')) AS c (path);
DELETE FROM ub_test_owned.armed;

-- The sessions that write need no right on anything of ours.
CREATE TABLE ub_test_owned.plain (o text, b int);
ALTER TABLE ub_test_owned.plain OWNER TO ub_test_owner;
GRANT INSERT ON ub_test_owned.plain TO ub_test_writer;
SELECT is(code, '00000', 'an owner tracks its own table') FROM ub_test.ask('ub_test_owner', NULL, $$usage_billing.track_storage('ub_test_owned.plain', 'o', 'b')$$);
SET LOCAL ROLE ub_test_owner;
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test_owned.plain', 'o', 'b'); END $$;
SET LOCAL ROLE ub_test_writer;
INSERT INTO ub_test_owned.plain VALUES ('org-a', 5), ('org-b', 6);
RESET ROLE;
INSERT INTO ub_test.source VALUES ('ub_test_owned.plain', 'o', 'b', $$'file'$$, '0'), ('ub_test_owned.files', 'o', 'b', 'k', 's');
SELECT ub_test.exact('rows of a role that may do nothing but INSERT');

-- stored_file is for any role that is given rights on it.
GRANT USAGE ON SCHEMA usage_billing TO ub_test_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_billing.stored_file TO ub_test_writer;
GRANT EXECUTE ON FUNCTION usage_billing.request_org() TO ub_test_writer;
SET LOCAL ROLE ub_test_writer;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('writer-1', 'org-a', 'image', 31), ('writer-2', 'org-b', 'image', 32);
UPDATE usage_billing.stored_file SET bytes = 33, kind = 'video', duration_seconds = 34 WHERE file_id = 'writer-1';
DELETE FROM usage_billing.stored_file WHERE file_id = 'writer-2';
RESET ROLE;
SELECT ub_test.exact('stored_file, written by another role');

-- Another owner, another one's rights.
ALTER TABLE ub_test_owned.plain OWNER TO ub_test_writer;
SELECT ub_test.exact('a table with a new owner');
ALTER TABLE ub_test_owned.plain OWNER TO ub_test_owner;
GRANT INSERT ON ub_test_owned.plain TO ub_test_writer;

-- Row-level security. Policies don't bind a table's owner, unless they are forced:
-- then a count would be cut short, and is refused.
ALTER TABLE ub_test_owned.plain ENABLE ROW LEVEL SECURITY;
CREATE POLICY org_a ON ub_test_owned.plain USING (o = 'org-a') WITH CHECK (true);
SET LOCAL ROLE ub_test_writer;
INSERT INTO ub_test_owned.plain VALUES ('org-a', 7), ('org-b', 8);
RESET ROLE;
SELECT ub_test.exact('row-level security');
ALTER TABLE ub_test_owned.plain FORCE ROW LEVEL SECURITY;
INSERT INTO ub_test_owned.plain VALUES ('org-b', 9);
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('org-b')), ub_test.plain('org-b'), 'forced row-level security: what the triggers note is exact');
SELECT is(code, '42501', 'forced row-level security: a count is refused') FROM ub_test.try($$SELECT usage_billing.recount_storage_usage('org-b')$$);
TRUNCATE ub_test_owned.plain;
INSERT INTO ub_test_owned.plain VALUES ('org-b', 10);
SELECT is(code, '42501', 'forced row-level security: and so is an answer that would need one') FROM ub_test.try($$SELECT usage_billing.refresh_storage_usage('org-b')$$);
ALTER TABLE ub_test_owned.plain NO FORCE ROW LEVEL SECURITY;
SELECT ub_test.exact('not forced any more');

-- Who may track what.
CREATE TABLE ub_test.not_theirs (o text, b int);
GRANT ALL ON ub_test.not_theirs TO ub_test_owner;
GRANT ALL ON SCHEMA ub_test TO ub_test_owner;
CREATE TEMP TABLE refused AS SELECT call, r.* FROM (VALUES
	($$usage_billing.track_storage('ub_test.not_theirs', 'o', 'b')$$), ($$usage_billing.untrack_storage('ub_test.not_theirs')$$),
	($$usage_billing.untrack_storage('usage_billing.stored_file')$$), ($$usage_billing.track_storage('usage_billing.stored_file', 'org_id', 'bytes')$$),
	($$usage_billing.track_storage('pg_class', 'relname', 'relpages')$$), ($$usage_billing.track_storage('pg_authid', 'rolname', 'rolconnlimit')$$)) AS c (call)
	CROSS JOIN LATERAL ub_test.ask('ub_test_owner', NULL, call) r;
SELECT is(code, '42501', 'another role''s table: ' || call) FROM refused;
GRANT ub_test_victim TO ub_test_owner;
SELECT is(code, '00000', 'a member of the owning role may track') FROM (SELECT ub_test.run('ALTER TABLE ub_test.not_theirs OWNER TO ub_test_victim')) o (x),
	LATERAL ub_test.ask('ub_test_owner', NULL, $$usage_billing.track_storage('ub_test.not_theirs', 'o', 'b')$$);
REVOKE ub_test_victim FROM ub_test_owner;

-- Nobody can put our triggers on a table without us.
SELECT is(code, '42501', 'CREATE TRIGGER … ' || f) FROM unnest('{storage_changed,storage_truncated,snapshot_before_insert}'::text[]) AS f,
	LATERAL ub_test.try(format('SET LOCAL ROLE ub_test_owner; CREATE TRIGGER x AFTER INSERT ON ub_test_owned.deferred FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.%I()', f));
