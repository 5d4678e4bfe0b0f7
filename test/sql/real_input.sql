-- Real input, in by every way and each way twice: the requests to an LLM
-- service over one hour, one credit usage a request, its amount the tokens.
-- USAGE_BILLING_DATA names the directory with llm_requests.csv.
\set skip `test -r "$USAGE_BILLING_DATA/llm_requests.csv" && echo false || echo true`
\if :skip
\echo skipped: there is no llm_requests.csv in the directory that USAGE_BILLING_DATA names
\quit
\endif
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS usage_billing;
RESET client_min_messages;
SET TimeZone = 'Asia/Kathmandu';

SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'llm', billing_id => 'llm-api');
SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'llm', billing_id => 'llm-insert');
SELECT billing_id FROM usage_billing.create_billing_account(org_id => 'llm', billing_id => 'llm-copy');
SELECT billing_id, usage_billing.grant_credits('00000000-0000-4000-8000-000000000001', 18305870, billing_id => billing_id) ->> 'balance' AS balance
FROM unnest('{llm-api,llm-insert,llm-copy}'::text[]) AS billing_id;

-- The file has no ids: a line's number makes one.
CREATE TEMP TABLE request (line int GENERATED ALWAYS AS IDENTITY, requested_at text, context_tokens int, generated_tokens int);
\copy request (requested_at, context_tokens, generated_tokens) FROM PROGRAM 'cat "$USAGE_BILLING_DATA/llm_requests.csv"' (FORMAT csv, HEADER)
CREATE TEMP VIEW event AS
SELECT line, ('00000000-0000-4000-8000-' || lpad(line::text, 12, '0'))::uuid AS id, context_tokens + generated_tokens AS amount,
  replace(requested_at, ' ', 'T') AS created_at
FROM request;
SELECT count(*), sum(amount) FROM event;

-- By create_usage, 1,000 a call. The last call takes the last credit.
CREATE FUNCTION pg_temp.report() RETURNS TABLE (calls bigint, created bigint, duplicates bigint, last_balance bigint)
LANGUAGE sql AS $$
  SELECT count(*), sum((answer ->> 'created')::bigint), sum((answer ->> 'duplicates')::bigint), (array_agg((answer ->> 'balance')::bigint ORDER BY batch DESC))[1]
  FROM (SELECT batch, usage_billing.create_usage(usages, billing_id => 'llm-api') AS answer
    FROM (SELECT (line - 1) / 1000 AS batch,
        jsonb_agg(jsonb_build_object('id', id, 'amount', amount, 'source', 'llm', 'created_at', created_at) ORDER BY line) AS usages
      FROM event GROUP BY 1 ORDER BY 1) batches) answers
$$;
SELECT * FROM pg_temp.report();
SELECT * FROM pg_temp.report();

-- By INSERT.
WITH stored AS (INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at)
  SELECT 'llm-insert', id, amount, 'LLM', (created_at || 'Z')::timestamptz FROM event RETURNING amount)
SELECT count(*), sum(amount) FROM stored;
WITH stored AS (INSERT INTO usage_billing.usage (billing_id, id, amount, source, created_at)
  SELECT 'llm-insert', id, amount, 'LLM', (created_at || 'Z')::timestamptz FROM event RETURNING amount)
SELECT count(*), sum(amount) FROM stored;

-- By COPY of a file as a DBA would prepare it: first the half of it that
-- arrived before the line broke, then all of it, then all of it again.
\copy usage_billing.usage (billing_id, id, amount, source, created_at) FROM PROGRAM 'awk -F, "NR > 1 && NR <= 4410 { printf \"llm-copy,00000000-0000-4000-8000-%012d,%d,LLM,%sZ\\n\", NR - 1, \$2 + \$3, \$1 }" "$USAGE_BILLING_DATA/llm_requests.csv"' (FORMAT csv)
SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'llm-copy';
\copy usage_billing.usage (billing_id, id, amount, source, created_at) FROM PROGRAM 'awk -F, "NR > 1 { printf \"llm-copy,00000000-0000-4000-8000-%012d,%d,LLM,%sZ\\n\", NR - 1, \$2 + \$3, \$1 }" "$USAGE_BILLING_DATA/llm_requests.csv"' (FORMAT csv)
SELECT count(*) FROM usage_billing.usage WHERE billing_id = 'llm-copy';
\copy usage_billing.usage (billing_id, id, amount, source, created_at) FROM PROGRAM 'awk -F, "NR > 1 { printf \"llm-copy,00000000-0000-4000-8000-%012d,%d,LLM,%sZ\\n\", NR - 1, \$2 + \$3, \$1 }" "$USAGE_BILLING_DATA/llm_requests.csv"' (FORMAT csv)

-- Each way has counted each request exactly once, at the same time.
SELECT billing_id, count(*) AS usages, sum(amount) AS amount, usage_billing.total_debited(billing_id => billing_id),
  usage_billing.account_balance(billing_id => billing_id) ->> 'balance' AS balance
FROM usage_billing.usage WHERE billing_id LIKE 'llm-%' GROUP BY billing_id ORDER BY billing_id;
SELECT count(*) AS differ FROM usage_billing.usage a FULL JOIN usage_billing.usage b USING (id)
WHERE a.billing_id = 'llm-api' AND b.billing_id = 'llm-copy' AND (a.amount, a.source, a.created_at) IS DISTINCT FROM (b.amount, b.source, b.created_at);
SELECT count(*) AS differ FROM usage_billing.usage a FULL JOIN usage_billing.usage b USING (id)
WHERE a.billing_id = 'llm-insert' AND b.billing_id = 'llm-copy' AND (a.amount, a.source, a.created_at) IS DISTINCT FROM (b.amount, b.source, b.created_at);

-- A file of one way is known to the others.
SELECT usage_billing.create_usage(jsonb_agg(jsonb_build_object('id', id, 'amount', amount, 'source', 'llm', 'created_at', created_at)), billing_id => 'llm-copy')
FROM event WHERE line <= 1000;

-- The hours, before and after folding.
SELECT billing_id, to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS hour, source, type, sum(amount) AS amount, sum(events) AS events
FROM (SELECT billing_id, hour, source, type, amount, events FROM usage_billing.usage_hourly
  UNION ALL SELECT billing_id, hour, source, type, amount, events FROM usage_billing.usage_delta WHERE isfinite(hour)) hours
WHERE billing_id LIKE 'llm-%' GROUP BY billing_id, hour, source, type ORDER BY billing_id, hour;
SELECT usage_billing.run_maintenance();
SELECT billing_id, to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS hour, source, type, amount, events
FROM usage_billing.usage_hourly WHERE billing_id LIKE 'llm-%' ORDER BY billing_id, hour;
SELECT billing_id, usage_billing.total_debited(billing_id => billing_id), usage_billing.account_balance(billing_id => billing_id) ->> 'balance' AS balance
FROM unnest('{llm-api,llm-insert,llm-copy}'::text[]) AS billing_id;
SELECT v.* FROM unnest('{llm-api,llm-insert,llm-copy}'::text[]) AS billing_id, usage_billing.verify(billing_id => billing_id) v;
