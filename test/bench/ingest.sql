SELECT usage_billing.create_usage(deliveries(10), billing_id => 'much');
