-- As on a node: nothing is granted to anyone, but that who may watch the server
-- may watch the maintenance.

REVOKE ALL ON SCHEMA usage_billing, plproxy FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA usage_billing FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usage_billing, plproxy FROM PUBLIC;
GRANT USAGE ON SCHEMA usage_billing TO pg_monitor;
GRANT SELECT ON usage_billing.maintenance_status, usage_billing.bucket_maintenance_status TO pg_monitor;
GRANT EXECUTE ON FUNCTION usage_billing.maintenance_of_buckets() TO pg_monitor;
