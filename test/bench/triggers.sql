-- Rows go into each fact table with its triggers on and off, in turns: as one
-- statement of 10,000 rows, and as 2,000 statements of one row each. Without its
-- BEFORE trigger a row is given whole, as that trigger would leave it; so the
-- same rows serve all.
SET synchronous_commit = off;
SELECT set_config('bench.rounds', :'rounds', false) \g /dev/null
CREATE TABLE taken (fact text, triggers text, many float8, one float8, copied float8);
CREATE TABLE bare_grant (LIKE usage_billing.credit_grant INCLUDING ALL);
CREATE TABLE bare_revert (LIKE usage_billing.usage_revert INCLUDING ALL);
INSERT INTO usage_billing.usage (billing_id, id, amount) SELECT 'each-0', gen_random_uuid(), 1000 FROM generate_series(1, 12000);

CREATE PROCEDURE switch(fact text, before boolean, after boolean) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE usage_billing.%I %s TRIGGER before_insert, %s TRIGGER after_insert', fact,
		CASE WHEN before THEN 'ENABLE' ELSE 'DISABLE' END, CASE WHEN after THEN 'ENABLE' ELSE 'DISABLE' END);
END;
$$;

CREATE TABLE usage_row (LIKE usage_billing.usage);
CREATE TABLE grant_row (LIKE usage_billing.credit_grant);
CREATE TABLE revert_row (LIKE usage_billing.usage_revert);

-- Facts that nobody has yet. A usage has up to 32,767 reverts: every round takes the next number.
CREATE PROCEDURE make_rows(fact text, round int) LANGUAGE plpgsql AS $$
BEGIN
	TRUNCATE usage_row, grant_row, revert_row;
	IF fact = 'usage' THEN
		INSERT INTO usage_row SELECT 'each-' || i % 16, gen_random_uuid(), 'credit', i, 'ai.tokens', 'completion', 'user-' || i % 100,
			'{"model": "large"}', now(), now() FROM generate_series(1, 12000) AS i;
	ELSIF fact = 'credit_grant' THEN
		INSERT INTO grant_row SELECT 'each-' || i % 16, gen_random_uuid(), 1 + i, 'system.buy', 'bought', 'user-' || i % 100,
			'{"order": 1}', now() FROM generate_series(1, 12000) AS i;
	ELSE
		INSERT INTO revert_row SELECT billing_id, id, round, gen_random_uuid(), 1, 'returned', 'user-1', '{}', now(),
			type, source, created_at, 0, 0, 0, 0, 0, 0 FROM usage_billing.usage WHERE billing_id = 'each-0' AND amount = 1000 ORDER BY random() LIMIT 12000;
	END IF;
	COMMIT;
END;
$$;

CREATE PROCEDURE take(fact text, triggers text, target regclass, source regclass) LANGUAGE plpgsql AS $$
DECLARE
	file text := current_setting('data_directory') || '/bench.txt';
	t timestamptz;
	many float8;
	one float8;
	r record;
BEGIN
	t := clock_timestamp();
	EXECUTE format('INSERT INTO %s SELECT * FROM %s LIMIT 10000', target, source);
	COMMIT;
	many := ms_since(t) / 10;
	-- the statement is planned once, whichever table it is for
	EXECUTE format('CREATE OR REPLACE PROCEDURE take_one() LANGUAGE plpgsql AS $f$ DECLARE r %s; BEGIN FOR r IN SELECT * FROM %s OFFSET 10000 LOOP INSERT INTO %s SELECT r.*; END LOOP; END $f$',
		source, source, target);
	t := clock_timestamp();
	CALL take_one();
	COMMIT;
	one := ms_since(t) / 2;
	INSERT INTO taken VALUES (fact, triggers, many, one);
	COMMIT;
END;
$$;

DO $$
DECLARE
	f text;
	source regclass;
	variant int;
BEGIN
	FOR i IN 1 .. current_setting('bench.rounds')::int LOOP
		FOREACH f IN ARRAY ARRAY['usage', 'credit_grant', 'usage_revert'] LOOP
			source := CASE f WHEN 'usage' THEN 'usage_row' WHEN 'credit_grant' THEN 'grant_row' ELSE 'revert_row' END;
			FOR variant IN 0 .. 4 LOOP
				CALL make_rows(f, i * 5 + variant);
				IF variant = 0 THEN
					CALL take(f, 'a bare table with the same indexes', CASE f WHEN 'usage' THEN 'bare' WHEN 'credit_grant' THEN 'bare_grant' ELSE 'bare_revert' END::regclass, source);
				ELSE
					CALL switch(f, variant IN (2, 4), variant IN (3, 4));
					CALL take(f, (ARRAY['none', 'before_insert', 'after_insert', 'both'])[variant], ('usage_billing.' || f)::regclass, source);
				END IF;
			END LOOP;
			CALL switch(f, true, true);
			COMMIT;
		END LOOP;
		PERFORM usage_billing.rebuild();
		PERFORM usage_billing.run_maintenance();
		COMMIT;
	END LOOP;
END;
$$;

SELECT fact, triggers, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY many)::numeric, 2) AS "10,000 rows, µs a row",
	round(percentile_cont(0.5) WITHIN GROUP (ORDER BY one)::numeric, 2) AS "one row a statement, µs"
FROM taken GROUP BY fact, triggers
ORDER BY fact COLLATE "C" DESC, array_position(ARRAY['a bare table with the same indexes', 'none', 'before_insert', 'after_insert', 'both'], triggers);
