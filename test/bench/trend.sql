SELECT usage_billing.account_usage_trend(:from, :to, include => 'trend', billing_id => :account);
