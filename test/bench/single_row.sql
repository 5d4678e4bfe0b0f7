\set amount random(1, 1000)
WITH stored AS (INSERT INTO bare (billing_id, id, type, amount, source) VALUES ('ours', gen_random_uuid(), 'credit', :amount, 'ai.tokens') ON CONFLICT DO NOTHING RETURNING billing_id, amount) UPDATE balance_row AS b SET balance = b.balance - stored.amount FROM stored WHERE b.billing_id = stored.billing_id;
