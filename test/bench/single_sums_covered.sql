\set amount random(1, 1000)
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT (SELECT coalesce(sum(amount), 0) FROM entry_covered WHERE billing_id = 'history' AND direction = 'credit') - (SELECT coalesce(sum(amount), 0) FROM entry_covered WHERE billing_id = 'history' AND direction = 'debit') AS balance;
INSERT INTO entry_covered VALUES ('history', gen_random_uuid(), 'debit', :amount, now());
INSERT INTO entry_covered VALUES ('system', gen_random_uuid(), 'credit', :amount, now());
COMMIT;
