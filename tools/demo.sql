-- The main job, step by step; run by tools/demo. What is not worth a reader's
-- eye is done with ECHO off.

SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE FUNCTION pg_temp.must(what text, holds boolean) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN IF holds IS NOT TRUE THEN RAISE EXCEPTION 'the demo found that not: %', what; END IF; END $$;
\set QUIET off

\echo
\echo '== 1. An account, and credits to spend ======================================'
\echo
\set ECHO queries
CREATE EXTENSION usage_billing;

SELECT billing_id, org_id, is_default, credit_min, state
  FROM usage_billing.create_billing_account(org_id => 'acme', billing_id => 'acme-main');

SELECT usage_billing.grant_credits(
	id => '00000000-0000-4000-8000-000000000001', amount => 1000, billing_id => 'acme-main',
	description => 'invoice 17');

\set ECHO none
\echo '== 2. Usage is reported, taken from the balance, and counted once ==========='
\echo
\set ECHO queries
SELECT usage_billing.create_usage('[
	{"id": "10000000-0000-4000-8000-000000000001", "amount": 20, "source": "api"},
	{"id": "10000000-0000-4000-8000-000000000002", "amount": 30, "source": "api", "user_id": "ann",
	 "description": "a longer answer", "metadata": {"model": "large"}},
	{"id": "10000000-0000-4000-8000-000000000003", "amount": 1, "type": "feature", "source": "export"}
]', billing_id => 'acme-main');

\set ECHO none
\echo 'The answer got lost; the caller sends the same again, with one more:'
\echo
\set ECHO queries
SELECT usage_billing.create_usage('[
	{"id": "10000000-0000-4000-8000-000000000001", "amount": 20, "source": "api"},
	{"id": "10000000-0000-4000-8000-000000000002", "amount": 30, "source": "api", "user_id": "ann",
	 "description": "a longer answer", "metadata": {"model": "large"}},
	{"id": "10000000-0000-4000-8000-000000000004", "amount": 50, "source": "api"}
]', billing_id => 'acme-main');

\set ECHO none
SELECT pg_temp.must('two duplicates, one new', count(*) = 4 AND
	(usage_billing.account_balance(billing_id => 'acme-main') ->> 'balance')::int = 900) FROM usage_billing.usage \gset
\echo 'An id that comes again with another amount is a mistake, and is called one:'
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT usage_billing.create_usage('[
	{"id": "10000000-0000-4000-8000-000000000001", "amount": 21, "source": "api"}
]', billing_id => 'acme-main');
\set ON_ERROR_STOP on
\set ECHO none
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT pg_temp.must('23505', :'LAST_ERROR_SQLSTATE' = '23505') \gset

\echo
\echo '== 3. The limit ============================================================='
\echo
\set ECHO queries
\set ON_ERROR_STOP off
SELECT usage_billing.create_usage('[
	{"id": "10000000-0000-4000-8000-000000000005", "amount": 100},
	{"id": "10000000-0000-4000-8000-000000000006", "amount": 801}
]', billing_id => 'acme-main');
\set ON_ERROR_STOP on
\set ECHO none
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT pg_temp.must('UB001', :'LAST_ERROR_SQLSTATE' = 'UB001') \gset
\echo
\echo 'All or nothing: the first of the two was not taken either.'
\echo
\set ECHO queries
SELECT usage_billing.account_balance(billing_id => 'acme-main');

\set ECHO none
\echo '== 4. Taking usage back ====================================================='
\echo
\set ECHO queries
SELECT usage_billing.revert_usage('10000000-0000-4000-8000-000000000002', amount => 10,
	billing_id => 'acme-main', description => 'half an answer',
	id => '20000000-0000-4000-8000-000000000001');

\set ECHO none
\echo '== 5. The statement ========================================================='
\echo
\set ECHO queries
SELECT kind, type, amount, source, description, user_id
  FROM usage_billing.account_transactions(billing_id => 'acme-main');

\set ECHO none
\echo '== 6. A DBA loads a file, and loads it again ================================'
\echo
\! cat usage.csv
\echo
\echo '\\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from usage.csv csv header'
\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from 'usage.csv' csv header
\echo '\\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from usage.csv csv header'
\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from 'usage.csv' csv header
SELECT pg_temp.must('nothing is stored twice', :ROW_COUNT = 0) \gset
\echo
\set ECHO queries
SELECT usage_billing.account_balance(billing_id => 'acme-main');

\set ECHO none
SELECT pg_temp.must('a balance of 760', (usage_billing.account_balance(billing_id => 'acme-main') ->> 'balance')::int = 760) \gset

\if :real
\echo '== 7. Real input: an hour of requests to a language model ==================='
\echo
\set QUIET on
CREATE TEMP TABLE request (line int GENERATED ALWAYS AS IDENTITY, at timestamp, context bigint, generated bigint);
\copy request (at, context, generated) from 'llm_requests.csv' csv header
CREATE TEMP TABLE llm AS
	SELECT line, md5('llm' || line)::uuid AS id, context + generated AS amount, at AT TIME ZONE 'UTC' AS created_at
	  FROM request;
CREATE TEMP TABLE batch AS
	SELECT (line - 1) / 1000 + 1 AS n,
		   jsonb_agg(jsonb_build_object('id', id, 'amount', amount, 'source', 'llm', 'created_at', created_at)
					 ORDER BY line) AS usages
	  FROM llm GROUP BY 1;
CREATE TEMP VIEW call AS
	SELECT format('SELECT usage_billing.create_usage(usages, billing_id => ''llm-api'') FROM batch WHERE n = %s', n) AS sql
	  FROM generate_series(1, (SELECT max(n) FROM batch)) AS n;
CREATE TEMP VIEW counted AS
	SELECT billing_id, count(*) AS usages, sum(amount) AS credits,
		   usage_billing.total_debited(billing_id => billing_id) AS total_debited,
		   20000000 - (usage_billing.account_balance(billing_id => billing_id) ->> 'balance')::bigint AS taken
	  FROM usage_billing.usage WHERE billing_id LIKE 'llm-%' GROUP BY billing_id;
\set QUIET off

\set ECHO queries
SELECT count(*) AS requests, sum(amount) AS tokens FROM llm;

SELECT a.billing_id, usage_billing.grant_credits(md5(a.billing_id)::uuid, 20000000, billing_id => a.billing_id)
  FROM unnest(ARRAY['llm-api', 'llm-copy']) AS id,
	   usage_billing.create_billing_account(org_id => id, billing_id => id) AS a;

\set ECHO none
\echo 'By create_usage, 1,000 in a call, each call a transaction:'
\echo
\echo 'SELECT usage_billing.create_usage(usages, billing_id => \'llm-api\') FROM batch WHERE n = ...'
\set QUIET on
\pset tuples_only on
\pset format unaligned
SELECT sql FROM call \gexec
\echo
\echo 'Again, all of it:'
\echo
SELECT sql FROM call \gexec
\pset format aligned
\pset tuples_only off
\echo
\echo 'By COPY, the whole file, and again:'
\echo
\copy (SELECT 'llm-copy', id, 'credit', amount, 'llm', created_at FROM llm ORDER BY line) to 'llm_usage.csv' csv
\set QUIET off
\echo '\\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from llm_usage.csv csv'
\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from 'llm_usage.csv' csv
\echo '\\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from llm_usage.csv csv'
\copy usage_billing.usage (billing_id, id, type, amount, source, created_at) from 'llm_usage.csv' csv
\echo
\echo 'What the facts say, and what the ledger says:'
\echo
TABLE counted ORDER BY billing_id;
SELECT pg_temp.must('8,819 usages and 18,305,870 credits each way', count(*) = 2 AND
	bool_and((usages, credits, total_debited, taken) = (8819, 18305870, 18305870, 18305870))) FROM counted \gset
\endif

\echo '== Behind the scenes ========================================================'
\echo
\echo 'Statements append deltas; maintenance folds them. Readers see the same before and after.'
\echo
\set QUIET on
\pset footer on
\set QUIET off
\set ECHO queries
SELECT count(*) AS deltas FROM usage_billing.usage_delta;

SELECT usage_billing.run_maintenance();

SELECT count(*) AS deltas FROM usage_billing.usage_delta;

SELECT usage_billing.account_balance(billing_id => 'acme-main');

SELECT * FROM usage_billing.verify();

\set ECHO none
SELECT pg_temp.must('the same balance after folding', (usage_billing.account_balance(billing_id => 'acme-main') ->> 'balance')::int = 760) \gset
SELECT pg_temp.must('all deltas folded', count(*) = 0) FROM usage_billing.usage_delta \gset
SELECT pg_temp.must('books that agree with the facts', count(*) = 0) FROM usage_billing.verify() \gset
\if :real
\echo 'demo: 8,819 usages and 18,305,870 credits counted once each way; verify() found nothing wrong'
\else
\echo 'demo: every usage counted once; verify() found nothing wrong (no real input here)'
\endif
