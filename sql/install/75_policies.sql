-- Who sees which rows, for roles that a DBA lets read the tables: the rule that
-- the functions follow. A request with an organisation's token sees that
-- organisation's rows, one without a scope sees all, and one whose token is
-- refused gets 42501. The owner of the tables sees all, and so do the functions,
-- which run with its rights.

CREATE FUNCTION usage_billing.request_org() RETURNS text
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'ub_request_org';

CREATE FUNCTION usage_billing.request_accounts() RETURNS text[]
	LANGUAGE c STABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'ub_request_accounts';

-- Policies are joined by OR. Written as a range between bounds that are null
-- under a token, "unscoped" can use the same index as the policy beside it, so
-- that a tenant's query reads the tenant's rows only. The functions stand in
-- subqueries, which run once a query.
DO $$
DECLARE
	everything text := '(SELECT usage_billing.request_org()) IS NULL';
	bound text := '(SELECT CASE WHEN usage_billing.request_org() IS NULL THEN %s END)';
	unscoped text := everything;
	entry record;
BEGIN
	IF getdatabaseencoding() = 'UTF8' THEN
		-- after every text of 255 bytes in the order of collation C
		unscoped := '%1$I BETWEEN ' || format(bound, quote_literal(''))
			|| ' AND ' || format(bound, 'repeat(chr(1114111), 64)');
	END IF;

	FOR entry IN
		SELECT c.oid::regclass AS name,
			CASE
				WHEN c.relname IN ('usage', 'usage_archive', 'usage_revert', 'credit_grant') THEN 'billing_id'
				WHEN c.relname IN ('billing_account', 'project', 'storage_limit', 'storage_snapshot', 'stored_file') THEN 'org_id'
			END AS key
		FROM pg_class c
		WHERE c.relnamespace = 'usage_billing'::regnamespace AND c.relkind = 'r'
	LOOP
		EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', entry.name);
		IF entry.key IS NULL THEN
			EXECUTE format('CREATE POLICY unscoped ON %s FOR SELECT USING (%s)', entry.name, everything);
			CONTINUE;
		END IF;
		IF entry.name = 'usage_billing.stored_file'::regclass THEN
			-- no fact, but a table for the application to work on
			EXECUTE format('CREATE POLICY unscoped ON %s USING (%s) WITH CHECK (%s)', entry.name,
				format(unscoped, entry.key), everything);
		ELSE
			EXECUTE format('CREATE POLICY unscoped ON %s FOR SELECT USING (%s)', entry.name, format(unscoped, entry.key));
		END IF;
		EXECUTE format('CREATE POLICY own ON %s FOR SELECT USING (%s)', entry.name, CASE entry.key
			WHEN 'org_id' THEN 'org_id = (SELECT usage_billing.request_org())'
			ELSE 'billing_id = ANY ((SELECT usage_billing.request_accounts())::text[])' END);
	END LOOP;
END;
$$;

-- What a tenant may want to read beyond the tables. The views have their
-- reader's rights, so the policies hold in them too.

CREATE VIEW usage_billing.usage_remaining WITH (security_invoker = true) AS
SELECT u.billing_id, u.id, u.type, u.amount, coalesce(r.amount, 0)::bigint AS reverted,
	(u.amount - coalesce(r.amount, 0))::bigint AS remaining,
	u.source, u.description, u.user_id, u.metadata, u.created_at
FROM usage_billing.usage u
LEFT JOIN LATERAL (SELECT sum(x.amount) AS amount FROM usage_billing.usage_revert x
	WHERE x.billing_id = u.billing_id AND x.usage_id = u.id) r ON true;

CREATE VIEW usage_billing.account_statement WITH (security_invoker = true) AS
SELECT billing_id, id, 'usage' AS kind, 'debit' AS type, amount, source, description, user_id, metadata, created_at
FROM usage_billing.usage WHERE type = 'credit' AND amount > 0
UNION ALL
SELECT billing_id, id, 'revert', 'credit', amount, usage_source, description, user_id, metadata, created_at
FROM usage_billing.usage_revert WHERE usage_type = 'credit'
UNION ALL
SELECT billing_id, id, 'grant', 'credit', amount, source, description, user_id, metadata, created_at
FROM usage_billing.credit_grant;
