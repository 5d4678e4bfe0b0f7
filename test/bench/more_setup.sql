-- What the sections of test/bench/more share, beside setup.sql.
SELECT usage_billing.create_billing_account('bench', 'each-' || i, credit_min => -1000000000000000) FROM generate_series(0, 15) AS i;

-- Calls as clients send them: text, made beforehand.
CREATE TABLE call (client int, i int, events text, PRIMARY KEY (client, i));
ALTER TABLE call ALTER events SET STORAGE EXTERNAL;
