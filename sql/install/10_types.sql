-- What a usage is: credits that are taken from the balance, or a feature
-- that is only counted.
CREATE TYPE usage_billing.usage_type AS ENUM ('credit', 'feature');

COMMENT ON TYPE usage_billing.usage_type IS
'What a usage is counted in
credit: the amount is taken from the account''s balance. feature: the amount is counted and never touches the balance.';
