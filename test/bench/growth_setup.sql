-- A database whose table of usages grows: accounts, and makers of ids.
CREATE EXTENSION usage_billing;
CREATE EXTENSION pg_prewarm;
INSERT INTO usage_billing.billing_account (billing_id, org_id, credit_min)
SELECT 'account-' || i, 'org-' || i, -1000000000000000 FROM generate_series(1, :accounts) AS i;
CREATE TABLE grown (millions int);
CREATE TABLE setting AS SELECT :accounts AS accounts, now() - interval '2 days' AS begun;
CREATE FUNCTION uuid_v4(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$ SELECT gen_random_uuid() $$;
CREATE FUNCTION uuid_v7(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
	SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
		PLACING substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
		52, 1), 53, 1), 'hex')::uuid
$$;
SELECT format('CREATE FUNCTION new_id(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $f$ SELECT uuid_%s(at) $f$', :'ids') \gexec
VACUUM ANALYZE;
