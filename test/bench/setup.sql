-- What all comparisons use: accounts, the bare table, makers of events, a timer.
CREATE EXTENSION usage_billing;
SELECT usage_billing.create_billing_account('bench', id, credit_min => -1000000000000000)
FROM unnest(ARRAY['ours', 'history', 'copy']) AS id;

CREATE TABLE bare (LIKE usage_billing.usage INCLUDING DEFAULTS);
ALTER TABLE bare ADD PRIMARY KEY (billing_id, id);
CREATE INDEX ON bare (billing_id, created_at);
ALTER TABLE bare ALTER created_at SET DEFAULT now(), ALTER updated_at SET DEFAULT now();
CREATE TABLE balance_row (billing_id text PRIMARY KEY, balance bigint);
INSERT INTO balance_row VALUES ('ours', 0);

CREATE FUNCTION events(n int) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT jsonb_agg(jsonb_build_object('id', gen_random_uuid(), 'amount', (random() * 1000)::int,
		'source', 'ai.tokens', 'description', 'completion', 'user_id', 'user-' || i % 100,
		'metadata', jsonb_build_object('model', 'large', 'region', 'eu')))
	FROM generate_series(1, n) AS i
$$;

-- What people write by hand.
CREATE PROCEDURE by_hand(events jsonb) LANGUAGE sql AS $$
	INSERT INTO bare (billing_id, id, type, amount, source, description, user_id, metadata)
	SELECT 'ours', id, coalesce(type, 'credit')::usage_billing.usage_type, amount, coalesce(source, 'system'),
		description, user_id, coalesce(metadata, '{}')
	FROM jsonb_to_recordset(events) AS e (id uuid, type text, amount bigint, source text, description text,
		user_id text, metadata jsonb)
	ON CONFLICT DO NOTHING
$$;

CREATE TABLE pair (n serial, ours float8, other float8);

CREATE FUNCTION ms_since(t timestamptz) RETURNS float8 LANGUAGE sql VOLATILE AS
	$$ SELECT extract(epoch FROM clock_timestamp() - t)::float8 * 1000 $$;

-- A ledger of entries, as it is often built, and an account with a history.
CREATE TABLE entry (billing_id text, id uuid, direction text, amount bigint, created_at timestamptz, PRIMARY KEY (billing_id, id));
INSERT INTO entry SELECT 'history', gen_random_uuid(), CASE i % 10 WHEN 0 THEN 'credit' ELSE 'debit' END, i % 100, now()
FROM generate_series(1, 100000) AS i;
INSERT INTO usage_billing.usage (billing_id, id, amount)
SELECT 'history', gen_random_uuid(), i % 100 FROM generate_series(1, 100000) AS i;
SELECT usage_billing.run_maintenance();
VACUUM ANALYZE;
