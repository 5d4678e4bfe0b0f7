-- The comments of what a node has too are the node's. These are about the rest.

COMMENT ON SCHEMA usage_billing IS
'Metered usage, credits and what is derived from them, over many databases
The functions are those of usage_billing. Each works in the database that has the organisation, and its call commits there by itself.';

COMMENT ON FUNCTION usage_billing.track_storage(regclass, name, name, text, name, name) IS
'Refuses: a router tracks no tables
relation, org_column, bytes_column, kind, kind_column, duration_column: as on a node. Call it there, in the database that has the table.
Errors: 0A000 always; 42501 under an organisation''s token.';
COMMENT ON FUNCTION usage_billing.untrack_storage(regclass) IS
'Refuses: a router tracks no tables
relation: as on a node. Call it there, in the database that has the table.
Errors: 0A000 always; 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.create_usage_many(jsonb) IS
'Reports usage of many accounts, in all buckets at the same time
calls: an array of objects with usages, and billing_id, org_id or project_id, as create_usage takes them.
Returns a row for each: call_no (from 1), and result or error ({"code", "message", "details", "hint"}). Each call is all or nothing by itself,
and one that fails stops no other. Calls in a bucket that is not available have error 08006; usage of the others may then show up among their duplicates.
Errors: 22023 calls is no array of objects.';
COMMENT ON FUNCTION usage_billing.set_buckets(text[]) IS
'Says which databases the buckets are
connections: a libpq connection string for each bucket, with user=, in the order of the buckets; 1, 2, 4, 8, 16 ... of them. Several may be on one server.
The number can''t be changed later. Sessions follow with their next call.
Errors: 22023 not a power of 2; 55000 another number than before.';
COMMENT ON FUNCTION usage_billing.set_bucket(integer, text) IS
'Says that a bucket is another database now
bucket: its number, from 0. connection: a libpq connection string with user=. It moves no data: see docs/scale-out.md.
Errors: 22023 no such bucket.';
COMMENT ON FUNCTION usage_billing.bucket_of(text) IS
'Tells which bucket an organisation''s hash says
org_id: the organisation. It is there unless directory_organisation says otherwise. The hash is made of md5, so it is the same in every version.
Errors: 55000 no buckets are set.';
COMMENT ON FUNCTION usage_billing.bucket_status() IS
'Tries every bucket
Returns a row for each: problem is null if it answers, else why not. connection and problem name hosts: grant it with care. Errors: none.';
COMMENT ON FUNCTION usage_billing.refresh_directory() IS
'Enters what the nodes have and the directory lacks
After a creation that broke between node and directory, and when databases that have accounts already become buckets. Changes no entry.
Returns how many accounts and projects were entered. Errors: 08006 a bucket is not available; 42501 under an organisation''s token.';
COMMENT ON FUNCTION usage_billing.verify_directory() IS
'Compares the directory with the nodes
Returns a row for each difference: subject (account or project), key (its id), expected (what the node has), actual (what the directory says).
Reads all accounts and projects. Errors: 08006 a bucket is not available; 42501 under an organisation''s token.';

COMMENT ON TABLE usage_billing.routing IS 'How this router is set up
Made by set_buckets; one row.';
COMMENT ON COLUMN usage_billing.routing.only_row IS 'true';
COMMENT ON COLUMN usage_billing.routing.buckets IS 'number of buckets, a power of 2';
COMMENT ON COLUMN usage_billing.routing.version IS 'counts the changes of bucket, so that sessions notice them';
COMMENT ON COLUMN usage_billing.routing.move_timeout IS 'how long a call waits for a bucket that is being moved';
COMMENT ON TABLE usage_billing.bucket IS 'Which database each bucket is
Changed with set_bucket.';
COMMENT ON COLUMN usage_billing.bucket.bucket IS 'number, from 0';
COMMENT ON COLUMN usage_billing.bucket.connection IS 'libpq connection string';
COMMENT ON TABLE usage_billing.directory_organisation IS 'Which bucket an organisation is in
Without a row: the one that bucket_of says.';
COMMENT ON COLUMN usage_billing.directory_organisation.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.directory_organisation.bucket IS 'its bucket';
COMMENT ON TABLE usage_billing.directory_account IS 'Which organisation a billing account belongs to
Its key is what makes an account''s id one in all buckets.';
COMMENT ON COLUMN usage_billing.directory_account.billing_id IS 'the account';
COMMENT ON COLUMN usage_billing.directory_account.org_id IS 'its organisation';
COMMENT ON TABLE usage_billing.directory_project IS 'Which organisation a project belongs to
Its key is what makes a project''s id one in all buckets.';
COMMENT ON COLUMN usage_billing.directory_project.project_id IS 'the project';
COMMENT ON COLUMN usage_billing.directory_project.org_id IS 'its organisation';

COMMENT ON VIEW usage_billing.bucket_maintenance_status IS
'What the maintenance of each bucket did last, and what waits for it
The rows of maintenance_status with their bucket. One that is not available has a row with duty connection.';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.bucket IS 'the bucket';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.duty IS 'name of the duty';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.last_start IS 'when the last pass began that did something or failed; null: there was none';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.duration IS 'how long that pass took';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.rows_done IS 'what that pass did, in the duty''s unit';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.backlog IS 'what waits, in the duty''s unit';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.last_error IS 'what failed last, and with which error';
COMMENT ON COLUMN usage_billing.bucket_maintenance_status.last_error_at IS 'when it failed';

COMMENT ON FUNCTION plproxy.get_cluster_version(text) IS 'for PL/Proxy: the version of the list of buckets';
COMMENT ON FUNCTION plproxy.get_cluster_partitions(text) IS 'for PL/Proxy: the buckets'' connection strings';
COMMENT ON FUNCTION plproxy.get_cluster_config(text) IS 'for PL/Proxy: its settings';
