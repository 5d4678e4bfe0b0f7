-- What the cases of bad_input_cases.sql stand on. Needs ub_test.id() from
-- common/helpers.sql; every other name in it is plain SQL.

DO $$
BEGIN
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a');
	PERFORM usage_billing.create_billing_account(org_id => 'org_a', billing_id => 'acc_a2', is_default => false);
	PERFORM usage_billing.create_billing_account(org_id => 'org_b', billing_id => 'acc_b');
	PERFORM usage_billing.create_billing_account(org_id => 'org_closed', billing_id => 'acc_closed');
	PERFORM usage_billing.create_billing_account(org_id => 'org_reserve', billing_id => 'acc_reserve', credit_min => 100);
	PERFORM usage_billing.create_billing_account(org_id => 'org_x', billing_id => 'acc_x', credit_min => 5, metadata => '{"k": 1}');
	PERFORM usage_billing.create_project(project_id => 'prj_a', org_id => 'org_a');
	PERFORM usage_billing.create_project(project_id => 'prj_b', org_id => 'org_b');
	PERFORM usage_billing.create_project(project_id => 'prj_lonely', org_id => 'org_lonely');

	PERFORM usage_billing.grant_credits(ub_test.id(11), 1000, billing_id => 'acc_a', source => 'shop',
		description => 'first', user_id => 'u1', metadata => '{"k": 1}');
	PERFORM usage_billing.grant_credits(ub_test.id(12), 500, billing_id => 'acc_closed');
	PERFORM usage_billing.grant_credits(ub_test.id(13), 120, billing_id => 'acc_reserve');
	PERFORM usage_billing.grant_credits(ub_test.id(14), 10, billing_id => 'acc_b');

	PERFORM usage_billing.create_usage(jsonb_build_array(
		jsonb_build_object('id', ub_test.id(1), 'amount', 100, 'source', 'api', 'description', 'first',
			'user_id', 'u1', 'metadata', '{"k": 1}'::jsonb, 'created_at', '2024-05-01T10:00:00Z'),
		jsonb_build_object('id', ub_test.id(2), 'amount', 50),
		jsonb_build_object('id', ub_test.id(3), 'amount', 7, 'type', 'feature', 'source', 'images'),
		jsonb_build_object('id', ub_test.id(4), 'amount', 0),
		jsonb_build_object('id', ub_test.id(5), 'amount', 40),
		jsonb_build_object('id', ub_test.id(6), 'amount', 9),
		jsonb_build_object('id', ub_test.id(7), 'amount', 20)), billing_id => 'acc_a');
	PERFORM usage_billing.create_usage(jsonb_build_array(
		jsonb_build_object('id', ub_test.id(8), 'amount', 3)), billing_id => 'acc_b');
	PERFORM usage_billing.create_usage(jsonb_build_array(
		jsonb_build_object('id', ub_test.id(9), 'amount', 60)), billing_id => 'acc_closed');
	UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'acc_closed';

	-- 30 of usage 2 are back, all of usage 6, and 8 of usage 7.
	INSERT INTO usage_billing.usage_revert (billing_id, usage_id, id, amount, created_at)
	VALUES ('acc_a', ub_test.id(2), ub_test.id(22), 30, '2024-05-02T12:00:00Z');
	PERFORM usage_billing.revert_usage(ub_test.id(6), billing_id => 'acc_a');
	PERFORM usage_billing.revert_usage(ub_test.id(7), 8, billing_id => 'acc_a', id => ub_test.id(27),
		description => 'first', user_id => 'u1', metadata => '{"k": 1}');
END $$;
