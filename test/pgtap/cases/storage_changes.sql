-- Every kind of column and every kind of statement: what the triggers note is
-- what a plain count finds.

-- Column types. Each table is filled before it is tracked, and changed in the
-- same way afterwards. orgs are three organisations in the type of the column.
CREATE EXTENSION IF NOT EXISTS citext SCHEMA ub_test;
CREATE TYPE ub_test.org_enum AS ENUM ('enum-1', 'enum-2', 'enum-3');
CREATE TYPE ub_test.kind_enum AS ENUM ('video', 'other', 'image');
CREATE DOMAIN ub_test.org_domain AS varchar(40) CHECK (VALUE ~ '^[a-z0-9-]*$');
CREATE DOMAIN ub_test.org_domain2 AS ub_test.org_domain NOT NULL;
CREATE DOMAIN ub_test.kind_domain AS ub_test.kind_enum;
CREATE DOMAIN ub_test.size AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN ub_test.money AS numeric(12,2);
CREATE DOMAIN ub_test.spell AS interval;
CREATE DOMAIN ub_test.uuid_domain AS uuid;

CREATE TABLE ub_test.type_case (n int, org text, orgs text[], bytes text, kind text, seconds text);
INSERT INTO ub_test.type_case VALUES
	(1, 'int2', '{11,12,13}', 'int2', 'text', 'int2'),
	(2, 'int4', '{21,22,-23}', 'int4', 'varchar(5)', 'int4'),
	(3, 'int8', '{31,32,3333333333333}', 'int8', 'char(5)', 'int8'),
	(4, 'numeric(10,0)', '{41,42,43}', 'numeric', 'ub_test.kind_enum', 'numeric'),
	(5, 'text', '{text-1,Text-1,"text 1"}', 'text', 'ub_test.kind_domain', 'text'),
	(6, 'varchar(40)', '{varchar-1,varchar-2,"é''\"\\$1"}', 'varchar(20)', 'name', 'varchar(20)'),
	(7, 'char(10)', '{char-1,char-2,char-3}', 'char(9)', 'text', 'interval'),
	(8, 'uuid', '{00000000-0000-4000-8000-000000000081,00000000-0000-4000-8000-000000000082,00000000-0000-4000-8000-000000000083}',
		'ub_test.size', 'text', 'ub_test.spell'),
	(9, 'ub_test.org_enum', '{enum-1,enum-2,enum-3}', 'ub_test.money', 'text', 'numeric(10,3)'),
	(10, 'ub_test.org_domain2', '{domain-1,domain-2,domain-3}', 'numeric(20,5)', 'ub_test.citext', 'text'),
	(11, 'ub_test.uuid_domain', '{00000000-0000-4000-8000-000000000111,00000000-0000-4000-8000-000000000112,00000000-0000-4000-8000-000000000113}',
		'bigint', 'uuid', 'interval day to second'),
	(12, 'ub_test.citext', '{citext-1,CITEXT-1,citext-2}', 'bigint', 'int4', 'bigint');

CREATE FUNCTION ub_test.type_case(c ub_test.type_case) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
	t text := 'ub_test.typed_' || c.n;
	name text := format('%s, %s, %s, %s', c.org, c.bytes, c.kind, c.seconds);
	-- three kinds, in the type of the column
	kinds text[] := CASE c.kind WHEN 'uuid' THEN ARRAY[ub_test.id(1)::text, ub_test.id(2)::text, NULL]
		WHEN 'int4' THEN '{1,2,NULL}' ELSE '{image,video,NULL}' END;
BEGIN
	PERFORM ub_test.add_orgs(VARIADIC c.orgs);
	EXECUTE format('CREATE TABLE %s (n int, o %s, b %s, k %s, s %s)', t, c.org, c.bytes, c.kind, c.seconds);
	EXECUTE format('INSERT INTO %1$s SELECT g, ($1)[1 + g %% 3]::text::%2$s, (g * 7 %% 100)::text::%3$s, ($2)[1 + g / 3 %% 3]::text::%4$s, CASE WHEN g %% 7 > 0 THEN (g %% 100)::text::%5$s END'
		' FROM generate_series(1, 100) g', t, c.org, c.bytes, c.kind, c.seconds) USING c.orgs, kinds;
	PERFORM usage_billing.track_storage(t::regclass, 'o', 'b', kind_column => 'k', duration_column => 's');
	INSERT INTO ub_test.source VALUES (t::regclass, 'o', 'coalesce(b::text::numeric, 0)', 'k',
		CASE WHEN c.seconds ~ 'interval|spell' THEN 'coalesce(extract(epoch FROM s::interval), 0)' ELSE 'coalesce(s::text::numeric, 0)' END);
	RETURN QUERY SELECT ub_test.exact(name || ', filled before it is tracked');

	EXECUTE format('INSERT INTO %1$s SELECT g, ($1)[1 + g %% 3]::text::%2$s, (g %% 90)::text::%3$s, ($2)[1 + g / 3 %% 3]::text::%4$s, (g %% 50)::text::%5$s'
		' FROM generate_series(101, 160) g', t, c.org, c.bytes, c.kind, c.seconds) USING c.orgs, kinds;
	RETURN QUERY SELECT ub_test.exact(name || ', INSERT');
	EXECUTE format('UPDATE %s SET o = ($1)[2]::text::%s WHERE n %% 5 = 0', t, c.org) USING c.orgs;
	EXECUTE format('UPDATE %s SET b = ''41'', s = ''9'' WHERE n %% 5 = 1', t);
	EXECUTE format('UPDATE %s SET k = ($1)[1]::text::%s WHERE n %% 5 = 2', t, c.kind) USING kinds;
	EXECUTE format('UPDATE %s SET b = NULL, s = NULL, k = NULL WHERE n %% 5 = 3', t);
	EXECUTE format('DELETE FROM %s WHERE n %% 7 = 0', t);
	RETURN QUERY SELECT ub_test.exact(name || ', UPDATE and DELETE');
	PERFORM usage_billing.untrack_storage(t::regclass);
	DELETE FROM ub_test.source WHERE relation = t::regclass;
	RETURN NEXT is(ub_test.inexact('refresh_storage_usage'), '', name || ', untracked');
	DELETE FROM ub_test.org WHERE org_id = ANY (c.orgs);
END $$;
SELECT ub_test.type_case(c) FROM ub_test.type_case c ORDER BY n;

-- Fractions and small things are summed before anything is rounded.
CREATE TABLE ub_test.fraction (o text, b numeric, s text);
DO $$ BEGIN
	PERFORM ub_test.add_orgs('fraction');
	PERFORM usage_billing.track_storage('ub_test.fraction', 'o', 'b', kind => 'video', duration_column => 's');
END $$;
INSERT INTO ub_test.fraction VALUES ('fraction', 1.5, ' 20 ');
INSERT INTO ub_test.fraction VALUES ('fraction', 1.5, '2e1');
INSERT INTO ub_test.fraction VALUES ('fraction', 0.25, '20.0');
INSERT INTO ub_test.source VALUES ('ub_test.fraction', 'o', 'b', $$'video'$$, 's');
SELECT ub_test.exact('fractions');
SELECT is(ub_test.line(usage_billing.refresh_storage_usage('fraction')), 'fraction: image 0/0, video 3/3, all 3/3, 1.00 min', 'three times 20 seconds are a minute');

-- Names that need quoting, everywhere; one column for two things.
CREATE SCHEMA "Ub Test";
CREATE TABLE "Ub Test"."select ""x"".%s;'" ("Org Id" text, "by""tes" bigint, "order" text, "a.b $1 %I" interval, usage_billing_new int, r int DEFAULT 1);
INSERT INTO "Ub Test"."select ""x"".%s;'" VALUES ('quoted-1', 5, 'image', '90 s'), ('quoted-2', 6, 'video', '2 min'), ('quoted-2', 7, 'video', NULL);
DO $$ BEGIN
	PERFORM ub_test.add_orgs('quoted-1', 'quoted-2', '7', '8');
	PERFORM usage_billing.track_storage('"Ub Test"."select ""x"".%s;''"', 'Org Id', 'by"tes', kind_column => 'order', duration_column => 'a.b $1 %I');
END $$;
INSERT INTO ub_test.source VALUES ('"Ub Test"."select ""x"".%s;''"', '"Org Id"', '"by""tes"', '"order"', 'extract(epoch FROM "a.b $1 %I")');
SELECT ub_test.exact('quoted names, filled before');
INSERT INTO "Ub Test"."select ""x"".%s;'" VALUES ('quoted-1', 8, 'video', '30 s');
UPDATE "Ub Test"."select ""x"".%s;'" SET "order" = 'image', "Org Id" = 'quoted-1' WHERE "by""tes" = 6;
DELETE FROM "Ub Test"."select ""x"".%s;'" WHERE "by""tes" = 7;
SELECT ub_test.exact('quoted names');
CREATE TABLE ub_test."table" ("user" int, usage_billing_old text);
DO $$ BEGIN
	PERFORM usage_billing.track_storage('ub_test."table"', 'user', 'user', kind => E'it''s "x" \\ $1', duration_column => 'usage_billing_old');
END $$;
INSERT INTO ub_test.source VALUES ('ub_test."table"', '"user"', '"user"', $$'file'$$, '0');
INSERT INTO ub_test."table" VALUES (7, '1'), (7, NULL), (8, '2');
UPDATE ub_test."table" SET "user" = 15 - "user";
SELECT ub_test.exact('one column for two things, a fixed kind that needs quoting');

-- A nondeterministic collation compares as it likes; an organisation is its bytes.
CREATE COLLATION ub_test.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE ub_test.blind (o text COLLATE ub_test.blind, b int, k text COLLATE ub_test.blind);
INSERT INTO ub_test.blind VALUES ('Blind', 1, 'IMAGE'), ('blind', 2, 'image'), ('BLIND', 4, 'Video');
DO $$ BEGIN
	PERFORM ub_test.add_orgs('Blind', 'blind', 'BLIND');
	PERFORM usage_billing.track_storage('ub_test.blind', 'o', 'b', kind_column => 'k');
END $$;
INSERT INTO ub_test.source VALUES ('ub_test.blind', 'o', 'b', 'k', '0');
SELECT ub_test.exact('organisations that differ in case only, filled before');
INSERT INTO ub_test.blind VALUES ('blind', 16, 'video'), ('BLIND', 8, 'image');
UPDATE ub_test.blind SET o = 'Blind' WHERE b = 2;
SELECT ub_test.exact('organisations that differ in case only');
DO $$ BEGIN PERFORM usage_billing.untrack_storage('ub_test.blind'); END $$;
DELETE FROM ub_test.source WHERE relation = 'ub_test.blind'::regclass;

-- Statements. stored_file is there to use.
DO $$ BEGIN PERFORM ub_test.add_orgs('s1', 's2', 's3', 's4'); END $$;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds)
	SELECT 'f' || g, 's' || 1 + g % 3, (ARRAY['image', 'video', 'file', 'audio'])[1 + g % 4], g * 1000003, CASE WHEN g % 2 = 1 THEN g * 0.7 END
	FROM generate_series(1, 400) g;
SELECT ub_test.exact('INSERT of many organisations');
INSERT INTO usage_billing.stored_file (file_id, org_id) VALUES ('default', 's1');
SELECT ub_test.exact('INSERT with defaults');
INSERT INTO usage_billing.stored_file (file_id, org_id) SELECT 'none', 's1' WHERE false;
UPDATE usage_billing.stored_file SET bytes = 1 WHERE false;
DELETE FROM usage_billing.stored_file WHERE false;
SELECT ub_test.exact('statements without rows');
COPY usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds) FROM STDIN;
c1	s1	image	100	\N
c2	s2	video	200	61.5
c3	s4	video	300	59
\.
SELECT ub_test.exact('COPY');
UPDATE usage_billing.stored_file SET org_id = 's4' WHERE file_id LIKE '%7';
SELECT ub_test.exact('UPDATE of the organisation');
UPDATE usage_billing.stored_file SET kind = 'image' WHERE file_id LIKE '%6';
SELECT ub_test.exact('UPDATE of the kind');
UPDATE usage_billing.stored_file SET bytes = bytes / 2 WHERE org_id = 's2';
SELECT ub_test.exact('UPDATE of the bytes');
UPDATE usage_billing.stored_file SET duration_seconds = coalesce(duration_seconds, 0) + 1 WHERE kind = 'video';
SELECT ub_test.exact('UPDATE of the duration');
UPDATE usage_billing.stored_file SET org_id = 's1', kind = 'video', bytes = 5, duration_seconds = 3.25, file_id = file_id || 'x' WHERE file_id LIKE '%5';
SELECT ub_test.exact('UPDATE of all');
UPDATE usage_billing.stored_file SET file_id = 'y' || file_id, project_id = 'p', created_at = '2024-01-01Z';
SELECT is((SELECT count(*) FROM usage_billing.storage_delta), 0::bigint, 'UPDATE of nothing that counts appends nothing');
SELECT ub_test.exact('UPDATE of nothing that counts');
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('yc1', 's3', 'video', 7), ('new', 's3', 'video', 8)
	ON CONFLICT (file_id) DO UPDATE SET bytes = excluded.bytes, org_id = excluded.org_id;
SELECT ub_test.exact('ON CONFLICT DO UPDATE');
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) VALUES ('yc1', 's1', 'video', 9), ('new2', 's1', 'video', 10)
	ON CONFLICT DO NOTHING;
SELECT ub_test.exact('ON CONFLICT DO NOTHING');
MERGE INTO usage_billing.stored_file f
	USING (VALUES ('new', 's1', 11), ('new2', NULL, 0), ('new3', 's2', 13)) AS v (file_id, org_id, bytes) ON f.file_id = v.file_id
	WHEN MATCHED AND v.org_id IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET bytes = v.bytes, org_id = v.org_id
	WHEN NOT MATCHED THEN INSERT (file_id, org_id, kind, bytes) VALUES (v.file_id, v.org_id, 'image', v.bytes);
SELECT ub_test.exact('MERGE');
DELETE FROM usage_billing.stored_file WHERE file_id LIKE '%3';
SELECT ub_test.exact('DELETE');
WITH gone AS (DELETE FROM usage_billing.stored_file WHERE file_id LIKE '%4' RETURNING *),
	moved AS (INSERT INTO "Ub Test"."select ""x"".%s;'" ("Org Id", "by""tes", "order") SELECT org_id, bytes, kind FROM gone RETURNING *),
	changed AS (UPDATE usage_billing.stored_file SET bytes = 17 WHERE file_id LIKE '%2' RETURNING *)
	INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes) SELECT 'w' || "by""tes" || random(), 's4', "order", 19 FROM moved;
SELECT ub_test.exact('DELETE, INSERT into two tables and UPDATE in one statement');
PREPARE ub_put(text, text, bigint) AS INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ($1, $2, $3);
EXECUTE ub_put('p1', 's1', 1);
EXECUTE ub_put('p2', 's2', 2);
DO $$ BEGIN
	FOR n IN 1..20 LOOP
		INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('p1' || n, 's1', 5);
		UPDATE usage_billing.stored_file SET bytes = bytes + n, kind = 'video' WHERE file_id = 'p1' || n;
		DELETE FROM usage_billing.stored_file WHERE file_id = 'p1' || n - 1;
	END LOOP;
END $$;
SELECT ub_test.exact('many statements in one transaction');

-- Savepoints.
SAVEPOINT a;
INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('back', 's1', 12345);
DELETE FROM usage_billing.stored_file WHERE org_id = 's2';
ROLLBACK TO SAVEPOINT a;
SELECT ub_test.exact('a savepoint that is rolled back');
SAVEPOINT b;
DO $$ BEGIN
	INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('back', 's1', 12345);
	PERFORM usage_billing.refresh_storage_usage('s1');
	TRUNCATE usage_billing.stored_file;
	PERFORM usage_billing.recount_storage_usage('s2');
END $$;
ROLLBACK TO SAVEPOINT b;
SELECT ub_test.exact('refresh, TRUNCATE and recount in a savepoint that is rolled back');
SAVEPOINT c;
INSERT INTO usage_billing.stored_file (file_id, org_id, bytes) VALUES ('keep', 's1', 54321);
RELEASE SAVEPOINT c;
SELECT ub_test.exact('a savepoint that is released');

-- No organisation: not counted, until there is one.
CREATE TABLE ub_test.loose (n int, o text, b numeric, k text, s numeric);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.loose', 'o', 'b', kind_column => 'k', duration_column => 's'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.loose', 'o', 'coalesce(b, 0)', 'k', 'coalesce(s, 0)');
INSERT INTO ub_test.loose VALUES (1, NULL, 1, 'image', 1), (2, '', 2, 'video', 2), (3, 's1', NULL, NULL, NULL), (4, 's1', 4, 'Image', 4), (5, ' ', 1, 'x', 1);
SELECT ub_test.exact('no organisation, no bytes, no kind');
SELECT is((SELECT count(*) FROM usage_billing.storage_delta WHERE org_id = '') + (SELECT count(*) FROM usage_billing.storage_total WHERE org_id = ''), 0::bigint,
	'nothing is kept for no organisation');
UPDATE ub_test.loose SET o = 's2' WHERE o IS NULL OR o = '';
SELECT ub_test.exact('an organisation is given');
UPDATE ub_test.loose SET o = CASE n WHEN 1 THEN NULL WHEN 2 THEN '' ELSE o END, b = 7, k = 'video', s = 33;
SELECT ub_test.exact('and taken away');

-- What is no number is refused, where it would be stored and where it is counted.
SELECT is(ub_test.run(format('INSERT INTO ub_test.loose VALUES (9, ''s1'', %s, ''video'', %s)', b, s)), '22003', format('INSERT of bytes %s, duration %s', b, s))
FROM (VALUES ('''NaN''', '1'), ('1', '''NaN'''), ('''Infinity''', '1'), ('1', '''-Infinity''')) AS c (b, s);
SELECT is(ub_test.run($$UPDATE ub_test.loose SET b = 'NaN'$$), '22003', 'UPDATE to NaN');
SELECT is(ub_test.run($$INSERT INTO usage_billing.stored_file (file_id, org_id, duration_seconds) VALUES ('nan', 's1', 'NaN')$$), '22003', 'NaN in stored_file');
CREATE TABLE ub_test.words (o text, b text);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.words', 'o', 'b'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.words', 'o', 'b::numeric', $$'file'$$, '0');
SELECT is(ub_test.run(format('INSERT INTO ub_test.words VALUES (''s1'', %L)', b)), '22P02', format('bytes of %L', b)) FROM (VALUES ('abc'), (''), ('1,5')) AS c (b);
SELECT is(ub_test.run(format('INSERT INTO ub_test.loose VALUES (9, %L, 1)', repeat('é', 128))), '22023', 'an organisation of more than 255 bytes');
SELECT is(ub_test.run(format('INSERT INTO ub_test.loose VALUES (9, %L, 1)', repeat('x', 255))), '00000', 'one of 255 bytes is fine');
SELECT ub_test.exact('refused statements change nothing');
ALTER TABLE ub_test.loose DISABLE TRIGGER USER;
INSERT INTO ub_test.loose VALUES (10, 's1', 'NaN', 'video', 1);
ALTER TABLE ub_test.loose ENABLE TRIGGER USER;
SELECT is((ub_test.try($$SELECT usage_billing.recount_storage_usage('s1')$$)).code, '22003', 'NaN that was stored without the trigger can''t be counted');
ALTER TABLE ub_test.loose DISABLE TRIGGER USER;
DELETE FROM ub_test.loose WHERE n = 10;
ALTER TABLE ub_test.loose ENABLE TRIGGER USER;
SELECT ub_test.exact('and can again when it is gone');
