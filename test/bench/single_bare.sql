\set amount random(1, 1000)
INSERT INTO bare (billing_id, id, type, amount, source) VALUES ('ours', gen_random_uuid(), 'credit', :amount, 'ai.tokens');
