-- HTTP Basic for the gateway: client ids with hashed secrets, exchanged for a
-- token that lives one minute. After examples/postgrest/roles.sql, as a superuser:
--
--   psql -d app -v secret_file=/etc/postgrest/jwt.secret -f basic_auth.sql
--
-- secret_file holds PostgREST's jwt-secret, 32 bytes or more. PostgREST needs
-- db-schemas = "usage_billing, billing_gateway". Then, for each client:
--
--   SELECT billing_gateway.create_client('client-1', 'billing_service', 'org-1');
--
-- which returns the secret, once. A client of role billing_service without an
-- organisation reaches every account. Clients that already have a secret with a
-- bcrypt hash keep it: insert the hash into billing_gateway.client.
\set ON_ERROR_STOP on
\set jwt_secret `cat -- :'secret_file'`
BEGIN;
SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS billing_gateway;
REVOKE ALL ON SCHEMA billing_gateway FROM PUBLIC;
COMMENT ON SCHEMA billing_gateway IS 'HTTP Basic for the gateway in front of PostgREST';
CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE TABLE IF NOT EXISTS billing_gateway.client (
	client_id text COLLATE "C" PRIMARY KEY CHECK (client_id <> '' AND client_id !~ ':'),
	secret_hash text NOT NULL,
	role name NOT NULL,
	org_id text CHECK (org_id <> ''),
	created_at timestamptz NOT NULL DEFAULT now(),
	CHECK (org_id IS NOT NULL OR role = 'billing_service')
);
CREATE TABLE IF NOT EXISTS billing_gateway.signing_key (
	only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
	secret bytea NOT NULL CHECK (octet_length(secret) >= 32)
);
REVOKE ALL ON billing_gateway.client, billing_gateway.signing_key FROM PUBLIC;
INSERT INTO billing_gateway.signing_key (secret) VALUES (convert_to(:'jwt_secret', 'UTF8'))
	ON CONFLICT (only_one) DO UPDATE SET secret = excluded.secret;

-- The bodies below are bound to pgcrypto's functions now, wherever it is
-- installed; no search_path changes what they call.
SELECT set_config('search_path', format('pg_catalog, %s, pg_temp', extnamespace::regnamespace), true)
FROM pg_extension WHERE extname = 'pgcrypto' \g /dev/null

CREATE OR REPLACE FUNCTION billing_gateway.token(claims jsonb) RETURNS text
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT signed.input || '.' || translate(encode(hmac(convert_to(signed.input, 'UTF8'), k.secret, 'sha256'), 'base64'), E'+/=\n', '-_')
	FROM billing_gateway.signing_key k,
		LATERAL (SELECT string_agg(translate(encode(convert_to(part, 'UTF8'), 'base64'), E'+/=\n', '-_'), '.' ORDER BY n) AS input
			FROM (VALUES (1, '{"alg":"HS256","typ":"JWT"}'), (2, claims::text)) AS parts (n, part)) AS signed;
END;

-- One comparison, whether there is such a client or not: the hash that stands in
-- for a missing one is of the same kind.
CREATE OR REPLACE FUNCTION billing_gateway.matching_client(wanted_id text, secret text) RETURNS billing_gateway.client
	LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT c FROM (SELECT 1) AS always
		LEFT JOIN billing_gateway.client c ON c.client_id = wanted_id
	WHERE crypt(secret, coalesce(c.secret_hash, '$2a$04$abcdefghijklmnopqrstuuBq1jLqUTCA2pXkRYYSzDkNvjxZ3eZqO')) = c.secret_hash;
END;

-- Makes a client, or a new secret for one that is there. The secret is 256 random
-- bits, so a cheap hash is enough, and a request costs a millisecond.
CREATE OR REPLACE FUNCTION billing_gateway.create_client(client_id text, role name, org_id text DEFAULT NULL) RETURNS text
	LANGUAGE sql VOLATILE
BEGIN ATOMIC
	WITH made AS MATERIALIZED (SELECT encode(gen_random_bytes(32), 'hex') AS secret)
	INSERT INTO billing_gateway.client AS c (client_id, secret_hash, role, org_id)
	SELECT $1, crypt(made.secret, gen_salt('bf', 4)), $2, $3 FROM made
	ON CONFLICT ON CONSTRAINT client_pkey DO UPDATE
		SET secret_hash = excluded.secret_hash, role = excluded.role, org_id = excluded.org_id
	RETURNING (SELECT secret FROM made);
END;

CREATE OR REPLACE FUNCTION billing_gateway.basic_auth() RETURNS void
	LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	header text := current_setting('request.headers', true)::json ->> 'x-billing-authorization';
	credentials text;
	client billing_gateway.client;
	claims jsonb;
BEGIN
	IF length(header) <= 1024 AND header ~* '^basic +[a-z0-9+/]+=* *$' THEN
		BEGIN
			credentials := convert_from(decode(regexp_replace(header, '^\S+ +', ''), 'base64'), 'UTF8');
		EXCEPTION WHEN data_exception THEN
			NULL;
		END;
	END IF;
	IF strpos(credentials, ':') > 0 THEN
		client := billing_gateway.matching_client(split_part(credentials, ':', 1),
			substr(credentials, strpos(credentials, ':') + 1));
	END IF;
	IF client.client_id IS NULL THEN
		RAISE SQLSTATE 'PT401' USING MESSAGE = 'Unauthorized', DETAIL = 'Client id or secret is wrong.';
	END IF;

	claims := jsonb_build_object('role', client.role, 'sub', client.client_id,
		'exp', ceil(extract(epoch FROM clock_timestamp()))::bigint + 60);
	IF client.org_id IS NOT NULL THEN
		claims := claims || jsonb_build_object('org_id', client.org_id);
	END IF;
	PERFORM set_config('response.headers', jsonb_build_array(
		jsonb_build_object('X-Billing-Token', billing_gateway.token(claims)),
		jsonb_build_object('Cache-Control', 'no-store'))::text, true);
END;
$$;
COMMENT ON FUNCTION billing_gateway.basic_auth() IS
'Exchanges a client id and secret for a short-lived token
For the gateway''s auth_request: reads the header X-Billing-Authorization (HTTP Basic), answers in the header X-Billing-Token.
Errors: PT401 client id or secret is wrong.';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA billing_gateway FROM PUBLIC;
GRANT USAGE ON SCHEMA billing_gateway TO web_anon;
GRANT EXECUTE ON FUNCTION billing_gateway.basic_auth() TO web_anon;
COMMIT;

NOTIFY pgrst, 'reload schema';
