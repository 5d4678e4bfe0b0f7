-- What else happens to tables: other triggers, foreign keys, views, partitions,
-- TRUNCATE, changed definitions, renames, drops.

CREATE TABLE ub_test.parent (id int PRIMARY KEY);
CREATE TABLE ub_test.child (id int, parent int REFERENCES ub_test.parent ON DELETE CASCADE ON UPDATE CASCADE, o text, b bigint, k text DEFAULT 'image');
CREATE TABLE ub_test.child2 (id int, parent int REFERENCES ub_test.parent ON DELETE SET NULL, o text, b int GENERATED ALWAYS AS (parent * 3) STORED);
DO $$ BEGIN
	PERFORM usage_billing.track_storage('ub_test.child', 'o', 'b', kind_column => 'k');
	PERFORM usage_billing.track_storage('ub_test.child2', 'o', 'b', kind => 'video', duration_column => 'parent');
END $$;
INSERT INTO ub_test.source VALUES ('ub_test.child', 'o', 'coalesce(b, 0)', 'k', '0'), ('ub_test.child2', 'o', 'coalesce(b, 0)', $$'video'$$, 'coalesce(parent, 0)');
INSERT INTO ub_test.parent SELECT generate_series(1, 9);
INSERT INTO ub_test.child SELECT g, 1 + g % 9, 's' || 1 + g % 2, g FROM generate_series(1, 50) g;
INSERT INTO ub_test.child2 SELECT g, 1 + g % 9, 's' || 1 + g % 2 FROM generate_series(1, 50) g;
SELECT ub_test.exact('two more tables, one with a generated column');
DELETE FROM ub_test.parent WHERE id IN (3, 4);
SELECT ub_test.exact('ON DELETE CASCADE and SET NULL');

-- What the application's own triggers change and add is counted.
CREATE FUNCTION ub_test.more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_WHEN = 'BEFORE' THEN
		NEW.b := NEW.b + 1000;
		IF NEW.id % 10 = 0 THEN
			RETURN NULL;
		END IF;
		RETURN NEW;
	END IF;
	IF NEW.id > 100 AND NEW.id < 108 THEN
		INSERT INTO ub_test.child VALUES (NEW.id + 1, 1, NEW.o, NEW.b);
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER before_row BEFORE INSERT ON ub_test.child FOR EACH ROW EXECUTE FUNCTION ub_test.more();
CREATE TRIGGER after_row AFTER INSERT ON ub_test.child FOR EACH ROW EXECUTE FUNCTION ub_test.more();
INSERT INTO ub_test.child SELECT g, 1, 's1', g FROM generate_series(91, 101) g;
SELECT ub_test.exact('a BEFORE trigger that changes and skips rows, an AFTER trigger that adds some');
CREATE VIEW ub_test.child_view AS SELECT * FROM ub_test.child WHERE id < 1000;
INSERT INTO ub_test.child_view VALUES (201, 1, 's2', 5);
UPDATE ub_test.child_view SET b = b + 1, o = 's1' WHERE id = 201 OR id % 4 = 1;
DELETE FROM ub_test.child_view WHERE id % 6 = 1;
SELECT ub_test.exact('through a view');

-- An application that refreshes in triggers of its own, before ours and after.
CREATE FUNCTION ub_test.refresh_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM usage_billing.refresh_storage_usage('s3');
	RETURN NULL;
END $$;
CREATE TABLE ub_test.eager (o text, b int);
INSERT INTO ub_test.eager VALUES ('s3', 1);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.eager', 'o', 'b'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.eager', 'o', 'b', $$'file'$$, '0');
SELECT ub_test.exact('a table, counted before');
CREATE TRIGGER zz_refresh AFTER INSERT OR UPDATE OR DELETE ON ub_test.eager FOR EACH STATEMENT EXECUTE FUNCTION ub_test.refresh_now();
CREATE TRIGGER aa_refresh AFTER INSERT OR UPDATE OR DELETE ON ub_test.eager FOR EACH STATEMENT EXECUTE FUNCTION ub_test.refresh_now();
CREATE TRIGGER each_row AFTER INSERT OR UPDATE OR DELETE ON ub_test.eager FOR EACH ROW EXECUTE FUNCTION ub_test.refresh_now();
INSERT INTO ub_test.eager VALUES ('s3', 3), ('s2', 4);
UPDATE ub_test.eager SET b = b + 1, o = 's3';
DELETE FROM ub_test.eager WHERE b = 5;
SELECT ub_test.exact('refreshed in the midst of statements');
-- A count in the midst of a statement can be refused; it must not be wrong.
TRUNCATE ub_test.eager;
SELECT ok(code IN ('00000', '55006'), format('a refresh in the midst of a statement, of a table that has to be counted: %s', code))
	FROM ub_test.run($$INSERT INTO ub_test.eager VALUES ('s3', 5), ('s3', 6)$$) AS code;
SELECT ub_test.exact('what came of it');
DROP TRIGGER aa_refresh ON ub_test.eager;
DROP TRIGGER each_row ON ub_test.eager;
DROP TRIGGER zz_refresh ON ub_test.eager;
-- Asking in a statement that writes, for each of its rows.
WITH new AS (INSERT INTO ub_test.eager VALUES ('s3', 7), ('s3', 8), ('s3', 9)
		RETURNING ub_test.run(format('SELECT usage_billing.recount_storage_usage(%L)', o)) AS code)
	SELECT ok(bool_and(code IN ('00000', '55006')), format('a recount in INSERT … RETURNING: %s', array_agg(code))) FROM new;
WITH new AS (UPDATE ub_test.eager SET b = b + 1
		RETURNING ub_test.run(format('SELECT usage_billing.recount_storage_usage(%L)', o)) AS code)
	SELECT ok(bool_and(code IN ('00000', '55006')), format('a recount in UPDATE … RETURNING: %s', array_agg(code))) FROM new;
SELECT ub_test.exact('what came of that');
SELECT ok(code IN ('00000', '55006'), format('a recount beside reading the table: %s', code))
	FROM ub_test.run('SELECT usage_billing.recount_storage_usage(o) FROM ub_test.eager') AS code;

-- Partitions.
CREATE TABLE ub_test.part (n int, o text, b bigint, k text) PARTITION BY RANGE (n);
CREATE TABLE ub_test.part_1 PARTITION OF ub_test.part FOR VALUES FROM (0) TO (100);
CREATE TABLE ub_test.part_2 (k text, o text, gone int, n int, b bigint);
ALTER TABLE ub_test.part_2 DROP COLUMN gone;
ALTER TABLE ub_test.part ATTACH PARTITION ub_test.part_2 FOR VALUES FROM (100) TO (200);
INSERT INTO ub_test.part SELECT g, 's' || g % 4, g, 'video' FROM generate_series(90, 110) g;
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.part', 'o', 'b', kind_column => 'k', duration_column => 'n'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.part', 'o', 'b', 'k', 'n');
SELECT ub_test.exact('a partitioned table, filled before');
INSERT INTO ub_test.part SELECT g, 's' || g % 4, g, 'image' FROM generate_series(50, 150) g;
SELECT ub_test.exact('INSERT into partitions');
UPDATE ub_test.part SET n = 199 - n WHERE n % 3 = 0;
SELECT ub_test.exact('rows that move to another partition');
UPDATE ub_test.part SET n = 199 - n, o = 's1', k = 'video' WHERE n % 5 = 0;
DELETE FROM ub_test.part WHERE n % 7 = 0;
SELECT ub_test.exact('UPDATE and DELETE in partitions');
COPY ub_test.part FROM STDIN;
10	s1	5	image
110	s2	6	video
\.
MERGE INTO ub_test.part p USING (VALUES (10), (110), (120)) AS v (n) ON p.n = v.n
	WHEN MATCHED AND p.k = 'image' THEN UPDATE SET n = p.n + 1, b = 4, o = 's2'
	WHEN MATCHED THEN DELETE
	WHEN NOT MATCHED THEN INSERT VALUES (v.n, 's1', 3, 'video');
SELECT ub_test.exact('COPY and MERGE in partitions');
-- The server tells the triggers nothing of these.
MERGE INTO ub_test.part p USING (VALUES (11), (120)) AS v (n) ON p.n = v.n
	WHEN MATCHED THEN UPDATE SET n = 199 - p.n;
SELECT ub_test.mended('rows that MERGE moves to another partition');
INSERT INTO ub_test.part_1 VALUES (1, 's1', 111, 'image');
UPDATE ub_test.part_2 SET b = 1 WHERE n < 150;
DELETE FROM ub_test.part_1 WHERE n > 95;
SELECT ub_test.mended('statements on partitions, which the triggers don''t see');
TRUNCATE ub_test.part_2;
SELECT ub_test.mended('TRUNCATE of a partition');
CREATE TABLE ub_test.part_3 (LIKE ub_test.part);
INSERT INTO ub_test.part_3 VALUES (201, 's1', 9, 'image');
ALTER TABLE ub_test.part ATTACH PARTITION ub_test.part_3 FOR VALUES FROM (200) TO (300);
SELECT ub_test.mended('ATTACH of a filled partition');
ALTER TABLE ub_test.part DETACH PARTITION ub_test.part_1;
SELECT ub_test.mended('DETACH of a filled partition');
TRUNCATE ub_test.part;
SELECT ub_test.exact('TRUNCATE of the partitioned table');

-- TRUNCATE.
INSERT INTO ub_test.child VALUES (301, 1, 's1', 5);
TRUNCATE ub_test.child;
SELECT ub_test.exact('TRUNCATE');
INSERT INTO ub_test.child VALUES (302, 1, 's1', 6);
TRUNCATE ub_test.child;
INSERT INTO ub_test.child VALUES (303, 1, 's2', 7);
UPDATE ub_test.child SET o = 's1';
SELECT ub_test.exact('TRUNCATE between other statements');
TRUNCATE ub_test.parent CASCADE;
SELECT ub_test.exact('TRUNCATE CASCADE');
SAVEPOINT t;
TRUNCATE usage_billing.stored_file;
ROLLBACK TO SAVEPOINT t;
SELECT ub_test.exact('TRUNCATE that is rolled back');

-- Disabled triggers.
ALTER TABLE usage_billing.stored_file DISABLE TRIGGER ALL;
DELETE FROM usage_billing.stored_file WHERE file_id LIKE '%8';
INSERT INTO usage_billing.stored_file (file_id, org_id, bytes, kind) VALUES ('silent', 's1', 999, 'image');
TRUNCATE ub_test.loose;
ALTER TABLE usage_billing.stored_file ENABLE TRIGGER ALL;
SELECT ub_test.mended('disabled triggers');
SET LOCAL session_replication_role = replica;
DELETE FROM usage_billing.stored_file WHERE file_id LIKE '%9';
SET LOCAL session_replication_role = origin;
SELECT ub_test.mended('session_replication_role = replica');
DELETE FROM usage_billing.storage_delta;
DELETE FROM usage_billing.storage_total WHERE kind = 'image';
SELECT ub_test.mended('totals that are gone');

-- Tracking the same table again.
CREATE TABLE ub_test.again (o text, p text, b bigint, c bigint, k text, s int);
INSERT INTO ub_test.again VALUES ('s1', 's2', 1, 2, 'image', 60), ('s2', 's1', 3, 4, 'video', 90);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.again', 'o', 'b', kind_column => 'k'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.again', 'o', 'b', 'k', '0');
SELECT is(ub_test.triggers('ub_test.again'), 4::bigint, 'a tracked table has four triggers');
SELECT ub_test.exact('tracked');
CREATE TEMP TABLE before_again AS SELECT s.*, t.org_id, t.files FROM usage_billing.storage_source s JOIN usage_billing.storage_total t USING (source_id) WHERE relation = 'ub_test.again'::regclass;
DO $$ BEGIN
	PERFORM usage_billing.track_storage('ub_test.again', 'o', 'b', kind_column => 'k');
	PERFORM usage_billing.track_storage('ub_test.again', 'o', 'b', kind => '', kind_column => 'k', duration_column => '');
END $$;
SELECT results_eq($$SELECT s.*, t.org_id, t.files FROM usage_billing.storage_source s JOIN usage_billing.storage_total t USING (source_id)
	WHERE relation = 'ub_test.again'::regclass ORDER BY org_id$$, 'SELECT * FROM before_again ORDER BY org_id', 'tracked again in the same way: nothing changes');
SELECT is(ub_test.triggers('ub_test.again'), 4::bigint, 'it still has four triggers');
INSERT INTO ub_test.again VALUES ('s1', 's2', 5, 6, 'image', 60);
SELECT ub_test.exact('tracked again in the same way');
CREATE TEMP TABLE another_way (call text, org text, bytes text, kind text, seconds text);
INSERT INTO another_way VALUES
	($$'p', 'b', kind_column => 'k'$$, 'p', 'b', 'k', '0'),
	($$'p', 'c', kind_column => 'k'$$, 'p', 'c', 'k', '0'),
	($$'p', 'c', kind => 'video'$$, 'p', 'c', '''video''', '0'),
	($$'p', 'c', kind => 'video', duration_column => 's'$$, 'p', 'c', '''video''', 's'),
	($$'o', 'c', kind => 'image'$$, 'o', 'c', '''image''', '0'),
	($$'o', 'c'$$, 'o', 'c', '''file''', '0');
CREATE FUNCTION ub_test.another_way(w another_way) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ub_test.again VALUES ('s1', 's2', 7, 8, 'video', 45);
	EXECUTE format('SELECT usage_billing.track_storage(''ub_test.again'', %s)', w.call);
	UPDATE ub_test.source SET (org, bytes, kind, seconds) = (w.org, w.bytes, w.kind, w.seconds) WHERE relation = 'ub_test.again'::regclass;
	RETURN QUERY SELECT ub_test.exact('tracked again, another way: ' || w.call);
	INSERT INTO ub_test.again VALUES ('s2', 's1', 9, 10, 'image', 30);
	UPDATE ub_test.again SET o = p, p = o, s = s + 1 WHERE b > 4;
	RETURN QUERY SELECT ub_test.exact('and changed: ' || w.call);
END $$;
SELECT ub_test.another_way(w) FROM another_way w;
SELECT is((SELECT count(*) FROM usage_billing.storage_total t WHERE NOT EXISTS (SELECT FROM usage_billing.storage_source s WHERE s.source_id = t.source_id)), 0::bigint,
	'nothing of the former ways is left');
DROP TRIGGER usage_billing_update ON ub_test.again;
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.again', 'o', 'c'); END $$;
SELECT is(ub_test.triggers('ub_test.again'), 4::bigint, 'tracking again brings back a trigger that was dropped');

-- Untracked.
INSERT INTO ub_test.again VALUES ('s1', 's2', 11, 12, 'image', 60);
DO $$ BEGIN PERFORM usage_billing.untrack_storage('ub_test.again'); END $$;
DELETE FROM ub_test.source WHERE relation = 'ub_test.again'::regclass;
SELECT is(ub_test.triggers('ub_test.again'), 0::bigint, 'an untracked table has no triggers');
SELECT ub_test.exact('untracked: its files don''t count any more');
INSERT INTO ub_test.again VALUES ('s1', 's2', 13, 14, 'image', 60);
TRUNCATE ub_test.again;
SELECT ub_test.exact('and what happens to it doesn''t either');
INSERT INTO ub_test.again VALUES ('s1', 's2', 15, 16, 'image', 60);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.again', 'o', 'b', kind_column => 'k'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.again', 'o', 'b', 'k', '0');
SELECT ub_test.exact('tracked once more');

-- Renamed tables and schemas. In the tests above everything was counted in this
-- session already.
CREATE TABLE ub_test.old_name (o text, b bigint);
INSERT INTO ub_test.old_name VALUES ('s1', 1);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.old_name', 'o', 'b'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.old_name', 'o', 'b', $$'file'$$, '0');
SELECT ub_test.exact('before a rename');
ALTER TABLE ub_test.old_name RENAME TO new_name;
SELECT ub_test.exact('a renamed table');
INSERT INTO ub_test.new_name VALUES ('s1', 2), ('s2', 3);
SELECT ub_test.exact('a renamed table, changed');
CREATE TABLE ub_test.old_name (o text, b bigint);
INSERT INTO ub_test.old_name VALUES ('s1', 1000000);
SELECT ub_test.exact('a renamed table, and another by its old name');
ALTER TABLE ub_test.new_name SET SCHEMA "Ub Test";
UPDATE "Ub Test".new_name SET b = b + 5;
SELECT ub_test.exact('a table in another schema');
ALTER SCHEMA "Ub Test" RENAME TO "Ub Test 2";
DELETE FROM "Ub Test 2".new_name WHERE b = 7;
SELECT ub_test.exact('a renamed schema');

-- Renamed, dropped and altered columns. A statement is never counted wrong: it
-- is right, or it fails until the table is tracked by the new name.
CREATE TABLE ub_test.columns (o text, b bigint, k text, s interval);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.columns', 'o', 'b', kind_column => 'k', duration_column => 's'); END $$;
INSERT INTO ub_test.source VALUES ('ub_test.columns', 'o', 'b', 'k', 'extract(epoch FROM s)');
INSERT INTO ub_test.columns VALUES ('s1', 1, 'video', '1 min');
SELECT ub_test.exact('before columns change');
CREATE FUNCTION ub_test.rename_column(was text, now_is text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	got record;
BEGIN
	EXECUTE format('ALTER TABLE ub_test.columns RENAME COLUMN %I TO %I', was, now_is);
	UPDATE ub_test.source s SET org = regexp_replace(org, '\m' || was || '\M', now_is), bytes = regexp_replace(bytes, '\m' || was || '\M', now_is),
		kind = regexp_replace(kind, '\m' || was || '\M', now_is), seconds = regexp_replace(seconds, '\m' || was || '\M', now_is)
		WHERE relation = 'ub_test.columns'::regclass;
	SELECT * INTO got FROM ub_test.try($q$INSERT INTO ub_test.columns VALUES ('s2', 2, 'video', '2 min')$q$);
	RETURN NEXT ok(got.code ~ '^(00000|42703|22023|55...)$', format('column %s renamed: a statement is counted or refused (%s)', was, got.code));
	EXECUTE (SELECT format('SELECT usage_billing.track_storage(''ub_test.columns'', %L, %L, kind_column => %L, duration_column => %L)',
		org, bytes, kind, substring(seconds FROM 'FROM (\w+)')) FROM ub_test.source WHERE relation = 'ub_test.columns'::regclass);
	INSERT INTO ub_test.columns VALUES ('s2', 3, 'video', '3 min');
	RETURN QUERY SELECT ub_test.exact(format('column %s renamed, and tracked by the new name', was));
END $$;
SELECT ub_test.rename_column(was, now_is) FROM (VALUES ('o', 'o2'), ('b', 'b2'), ('k', 'k2'), ('s', 's2')) AS c (was, now_is);
ALTER TABLE ub_test.columns ALTER COLUMN s2 TYPE numeric USING extract(epoch FROM s2);
UPDATE ub_test.source SET seconds = 's2' WHERE relation = 'ub_test.columns'::regclass;
INSERT INTO ub_test.columns VALUES ('s1', 4, 'video', 12);
SELECT ub_test.exact('a duration that was an interval is a number now');
ALTER TABLE ub_test.columns ALTER COLUMN b2 TYPE text, ALTER COLUMN o2 TYPE varchar(9), ADD COLUMN x int DEFAULT 5;
INSERT INTO ub_test.columns VALUES ('s1', 5, 'image', 12);
UPDATE ub_test.source SET bytes = 'b2::numeric' WHERE relation = 'ub_test.columns'::regclass;
SELECT ub_test.exact('other types');
ALTER TABLE ub_test.columns DROP COLUMN s2;
SELECT ok(code ~ '^(00000|42703|22023|55...)$', format('a dropped column: a statement is counted or refused (%s)', code))
	FROM ub_test.try($$INSERT INTO ub_test.columns VALUES ('s2', 2, 'video')$$);
DO $$ BEGIN PERFORM usage_billing.track_storage('ub_test.columns', 'o2', 'b2', kind_column => 'k2'); END $$;
UPDATE ub_test.source SET seconds = '0' WHERE relation = 'ub_test.columns'::regclass;
SELECT ub_test.exact('a dropped column, tracked without it');

-- Dropped.
DELETE FROM ub_test.source WHERE relation = 'ub_test.columns'::regclass;
DROP TABLE ub_test.columns;
SELECT ub_test.exact('a dropped table: its files are gone');
SELECT is((SELECT count(*) FROM usage_billing.storage_source s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)), 0::bigint, 'a recount forgets it');
