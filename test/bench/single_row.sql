\set amount random(1, 1000)
WITH stored AS (INSERT INTO bare (billing_id, id, type, amount, source) VALUES ('ours', gen_random_uuid(), 'credit', :amount, 'ai.tokens')) UPDATE balance_row SET balance = balance - :amount WHERE billing_id = 'ours' AND balance - :amount >= -1000000000000000;
