-- What all comparisons use: accounts, what stands in for code by hand, makers of
-- events, a timer.
CREATE EXTENSION usage_billing;
SELECT usage_billing.create_billing_account('bench', id, credit_min => -1000000000000000)
FROM unnest(ARRAY['ours', 'history', 'copy', 'memory']) AS id;
SELECT usage_billing.create_billing_account('many', 'many-' || i, credit_min => -1000000000000000)
FROM generate_series(1, 1000) AS i;

-- The same columns and indexes as usage_billing.usage, and nothing else.
CREATE TABLE bare (LIKE usage_billing.usage INCLUDING DEFAULTS);
ALTER TABLE bare ADD PRIMARY KEY (billing_id, id);
CREATE INDEX ON bare (billing_id, created_at);
ALTER TABLE bare ALTER created_at SET DEFAULT now(), ALTER updated_at SET DEFAULT now();

-- A balance in a row: every call updates it, the constraint refuses. There is
-- room for versions of the row on its page.
CREATE TABLE balance_row (
	billing_id text PRIMARY KEY,
	balance bigint NOT NULL CHECK (balance >= -1000000000000000)
) WITH (fillfactor = 10);
INSERT INTO balance_row VALUES ('ours', 0);

CREATE FUNCTION events(n int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'amount', (random() * 1000)::int,
		'source', 'ai.tokens', 'description', 'completion', 'user_id', 'user-' || i % 100,
		'metadata', jsonb_build_object('model', 'large', 'region', 'eu')))
	FROM generate_series(1, n) AS i
$$;

CREATE FUNCTION deliveries(n int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'type', 'feature', 'amount', 1,
		'source', CASE i % 2 WHEN 0 THEN 'vod_streams' ELSE 'transcoders' END,
		'metadata', jsonb_build_object('viewing_seconds', 30, 'viewing_bytes', 1000)))
	FROM generate_series(1, n) AS i
$$;

-- A version-7 id, as a client makes one: milliseconds, then chance.
CREATE FUNCTION uuid_v7(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
	SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
		PLACING substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
		52, 1), 53, 1), 'hex')::uuid
$$;

CREATE TABLE pair (n serial, ours float8, other float8);

CREATE FUNCTION ms_since(t timestamptz) RETURNS float8 LANGUAGE sql VOLATILE AS
	$$ SELECT extract(epoch FROM clock_timestamp() - t)::float8 * 1000 $$;

-- A ledger of entries, as it is often built, and an account with a history; once
-- more with an index that has all that the sums need.
CREATE TABLE entry (billing_id text, id uuid, direction text, amount bigint, created_at timestamptz, PRIMARY KEY (billing_id, id));
INSERT INTO entry SELECT 'history', gen_random_uuid(), CASE i % 10 WHEN 0 THEN 'credit' ELSE 'debit' END, i % 100, now()
FROM generate_series(1, 100000) AS i;
CREATE SCHEMA covered;
CREATE TABLE covered.entry (LIKE entry INCLUDING ALL);
INSERT INTO covered.entry SELECT * FROM public.entry;
CREATE INDEX ON entry (billing_id, direction);
CREATE INDEX ON covered.entry (billing_id, direction) INCLUDE (amount);
INSERT INTO usage_billing.usage (billing_id, id, amount)
SELECT 'history', gen_random_uuid(), i % 100 FROM generate_series(1, 100000) AS i;
SELECT usage_billing.run_maintenance();
VACUUM ANALYZE;
