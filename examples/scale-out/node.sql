-- Makes a database a bucket: what its router's role needs, and nothing else. Run
-- it as a superuser in the bucket's database; running it again changes nothing.
--
--   psql -d bucket_7 -v router_role=router -f node.sql
\set ON_ERROR_STOP on
\if :{?router_role} \else \set router_role router \endif

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS usage_billing;

SELECT format('CREATE ROLE %I LOGIN', :'router_role')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'router_role')
\gexec

GRANT USAGE ON SCHEMA usage_billing TO :"router_role";
GRANT EXECUTE ON FUNCTION
	usage_billing.routed_call(text, text[], jsonb, text[]),
	usage_billing.routed_rows(text, text[], text[]),
	usage_billing.routed_batch(integer[], jsonb[], text[])
TO :"router_role";

-- a routed call commits by itself, and has to see that its bucket has moved
ALTER ROLE :"router_role" SET default_transaction_isolation = 'read committed';
