-- What the storage cases share. A plain count of the tables that a test names
-- in ub_test.source is what every answer is compared with.

-- Tables and the expressions that say what a row means.
CREATE TABLE ub_test.source (relation regclass PRIMARY KEY, org text, bytes text, kind text, seconds text);
INSERT INTO ub_test.source VALUES ('usage_billing.stored_file', 'org_id', 'bytes', 'kind', 'duration_seconds');
CREATE TABLE ub_test.org (org_id text COLLATE "C" PRIMARY KEY);

-- Sums as one line; minutes as text, as the API has them.
CREATE FUNCTION ub_test.line(org text, image_files numeric, image_bytes numeric, video_files numeric, video_bytes numeric,
	files numeric, bytes numeric, minutes text) RETURNS text
LANGUAGE sql IMMUTABLE AS
$$ SELECT format('%s: image %s/%s, video %s/%s, all %s/%s, %s min', org, image_files, image_bytes, video_files, video_bytes, files, bytes, minutes) $$;

CREATE FUNCTION ub_test.line(u usage_billing.storage_usage) RETURNS text
LANGUAGE sql IMMUTABLE AS
$$ SELECT ub_test.line(u.org_id, u.image_file_count, u.image_storage_bytes, u.video_file_count, u.video_storage_bytes,
	u.total_file_count, u.total_storage_bytes, u.total_video_minutes) $$;

CREATE FUNCTION ub_test.plain(org text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	files text := (SELECT string_agg(format('SELECT (%s)::text COLLATE "C" AS org, (%s)::numeric AS b, (%s)::text COLLATE "C" AS kind, (%s)::numeric AS s FROM %s',
		s.org, s.bytes, s.kind, s.seconds, s.relation), ' UNION ALL ') FROM ub_test.source s);
	result text;
BEGIN
	EXECUTE format($q$SELECT ub_test.line($1, count(*) FILTER (WHERE kind = 'image'), coalesce(sum(b) FILTER (WHERE kind = 'image'), 0)::bigint,
		count(*) FILTER (WHERE kind = 'video'), coalesce(sum(b) FILTER (WHERE kind = 'video'), 0)::bigint,
		count(*), coalesce(sum(b), 0)::bigint, round(coalesce(sum(s) FILTER (WHERE kind = 'video'), 0) / 60, 2)::text)
		FROM (%s) AS f WHERE org = $1$q$, files) INTO result USING org;
	RETURN result;
END $$;

-- Makes organisations known, so that they can be asked for without files.
CREATE FUNCTION ub_test.add_orgs(VARIADIC orgs text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	one text;
BEGIN
	FOREACH one IN ARRAY orgs LOOP
		INSERT INTO ub_test.org VALUES (one) ON CONFLICT DO NOTHING;
		IF FOUND THEN
			PERFORM usage_billing.set_storage_limits(one);
		END IF;
	END LOOP;
END $$;

-- What an API function says of every organisation, where a plain count says
-- something else. The function's name is given.
CREATE FUNCTION ub_test.inexact(function text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	one text;
	got text;
	lines text := '';
BEGIN
	FOR one IN SELECT org_id FROM ub_test.org ORDER BY 1 LOOP
		EXECUTE format('SELECT ub_test.line(usage_billing.%I($1))', function) INTO got USING one;
		IF got IS DISTINCT FROM ub_test.plain(one) THEN
			lines := lines || format(E'%s, but counted:\n%s\n', got, ub_test.plain(one));
		END IF;
	END LOOP;
	RETURN lines;
END $$;

-- Refreshes and recounts every organisation and compares with a plain count:
-- what the triggers noted must be exact before a recount could mend it.
CREATE FUNCTION ub_test.exact(name text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT is(ub_test.inexact('refresh_storage_usage'), '', name || ': a refresh is exact');
	RETURN NEXT is(ub_test.inexact('recount_storage_usage'), '', name || ': and so is a recount');
END $$;

-- After something that triggers can't see: a recount puts it right.
CREATE FUNCTION ub_test.mended(name text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT is(ub_test.inexact('recount_storage_usage'), '', name || ': a recount mends it');
	RETURN QUERY SELECT ub_test.exact(name || ', afterwards');
END $$;

-- Runs a call as a role with claims (null: none) in a subtransaction that is
-- undone; says how it ended and what it answered.
CREATE FUNCTION ub_test.ask(role_name text, claims text, call text,
	OUT code text, OUT message text, OUT detail text, OUT hint text, OUT answer text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('request.jwt.claims', claims, true), set_config('role', role_name, true);
	EXECUTE format('SELECT string_agg(r::text, E''\n'') FROM %s AS r', call) INTO answer;
	RAISE SQLSTATE 'UNDO1';
EXCEPTION
	WHEN SQLSTATE 'UNDO1' THEN
		code := '00000';
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
			detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		answer := NULL;
END $$;

-- Runs statements and says how they ended; what succeeds stays.
CREATE FUNCTION ub_test.run(call text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	code text;
BEGIN
	EXECUTE call;
	RETURN '00000';
EXCEPTION
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE;
		RETURN code;
END $$;

-- Our triggers on a table, as psql shows them.
CREATE FUNCTION ub_test.triggers(of regclass) RETURNS bigint
LANGUAGE sql AS $$
	SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
	WHERE t.tgrelid = of AND NOT t.tgisinternal AND p.pronamespace = 'usage_billing'::regnamespace
$$;
