-- What PostgREST makes its OpenAPI page of: everything that a role can be let
-- see has a comment whose first line is a summary and whose rest describes it.
\set QUIET on
BEGIN;
\ir common/helpers.sql
SELECT no_plan();

CREATE TEMP TABLE described AS
SELECT p.oid::regprocedure::text AS name, obj_description(p.oid, 'pg_proc') AS comment,
	CASE WHEN p.prorettype = 'trigger'::regtype OR p.proname ~ '^(require_unscoped|request_worker|delivery_measures|derived_|read_stats)' THEN 'internal' ELSE 'function' END AS sort,
	p.proargnames[1:p.pronargs] AS parameters
FROM pg_proc p
WHERE p.pronamespace = 'usage_billing'::regnamespace
UNION ALL
SELECT c.oid::regclass::text, coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')), 'table', '{}'
FROM pg_class c
WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind IN ('r', 'v', 'c', 'p', 'm')
UNION ALL
SELECT format_type(t.oid, NULL), obj_description(t.oid, 'pg_type'), 'table', '{}'
FROM pg_type t
WHERE t.typnamespace = 'usage_billing'::regnamespace AND t.typtype IN ('e', 'd')
UNION ALL
SELECT format('%s.%I', a.attrelid::regclass, a.attname), col_description(a.attrelid, a.attnum), 'column', '{}'
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind IN ('r', 'v', 'c', 'p', 'm') AND a.attnum > 0 AND NOT a.attisdropped;

SELECT cmp_ok(count(*), '>', 20::bigint, format('there are %ss', sort)) FROM described WHERE sort <> 'internal' GROUP BY sort;
SELECT ok(comment IS NOT NULL AND btrim(comment) <> '', format('%s has a comment', name)) FROM described;
SELECT ok(length(split_part(comment, E'\n', 1)) BETWEEN 10 AND 90 AND comment !~ '\A[^\n]*\.(\n|\Z)' AND comment ~ '\A[[:upper:]]',
	format('%s: the first line is a summary', name)) FROM described WHERE sort IN ('function', 'table');
SELECT ok(split_part(comment, E'\n', 2) ~ '^\S.*\S$', format('%s: the rest describes it', name)) FROM described WHERE sort IN ('function', 'table');
SELECT is((SELECT array_agg(p) FROM unnest(parameters) p WHERE regexp_replace(comment, '^.*?\n', '') !~ ('\m' || p || '\M')), NULL,
	format('%s: every parameter is named', name)) FROM described WHERE sort = 'function' AND cardinality(parameters) > 0;
SELECT ok(comment ~ '\m[Ee]rrors\M', format('%s: its errors', name)) FROM described WHERE sort = 'function';
SELECT ok(comment !~ '\n', format('%s: one line', name)) FROM described WHERE sort IN ('column', 'internal');
SELECT is((SELECT array_agg(name) FROM described WHERE comment ~ '[\t\r]| \n|\n\n'), NULL, 'no stray blanks');

SELECT * FROM finish();
ROLLBACK;
