# A database with something of everything, folded and not, and all that can be
# seen of it: for tests that move it from one version to another.
package Estate;

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use BillingNode;

# Usage and credits of ten accounts, under a key that makes its ids.
sub _post
{
	my ($key, $day) = @_;
	return <<"SQL";
SELECT usage_billing.grant_credits(md5('$key/grant/' || a)::uuid, 100000 + a, 'account-' || a) FROM generate_series(1, 9) a;
SELECT usage_billing.create_usage((
	SELECT jsonb_agg(jsonb_build_object('id', md5(concat_ws('/', '$key', a, n))::uuid, 'amount', n % 50,
		'type', CASE WHEN n % 3 = 0 THEN 'feature' ELSE 'credit' END,
		'source', CASE WHEN n % 6 = 0 THEN 'vod_streams' WHEN n % 3 = 0 THEN 'transcoders' ELSE 'api' END,
		'description', 'usage ' || n, 'user_id', 'user-' || n % 7,
		'metadata', CASE WHEN n % 3 = 0 THEN jsonb_build_object('viewing_seconds', n * 7, 'egress_bytes', n::bigint * 1000003) ELSE '{}' END,
		'created_at', timestamptz '$day' + n * interval '11 minutes'))
	FROM generate_series(1, 200) n), 'account-' || a)
FROM generate_series(1, 9) a;
INSERT INTO usage_billing.usage (billing_id, id, amount, source, metadata, created_at)
	SELECT 'account-' || 1 + n % 9, md5('$key/load/' || n)::uuid, n % 100, 'Import', '{"a": [1, 2]}', timestamptz '$day' + n * interval '90 seconds'
	FROM generate_series(1, 1000) n;
SELECT usage_billing.revert_usage(id, amount / 2, billing_id, description => 'half') FROM usage_billing.usage u
	WHERE amount % 10 = 6 AND NOT EXISTS (SELECT FROM usage_billing.usage_revert r WHERE (r.billing_id, r.usage_id) = (u.billing_id, u.id));
SELECT usage_billing.revert_usage(id, billing_id => billing_id) FROM usage_billing.usage u
	WHERE amount % 20 = 7 AND NOT EXISTS (SELECT FROM usage_billing.usage_revert r WHERE (r.billing_id, r.usage_id) = (u.billing_id, u.id));
SQL
}

# What is folded and refreshed, and then what is not.
sub fill
{
	my ($node, $database) = @_;

	$node->safe_psql($database, <<'SQL' . _post('first', '2024-05-01 00:00Z') . <<'SQL' . _post('second', '2024-05-02 12:00Z') . <<'SQL');
SELECT usage_billing.create_billing_account('org-' || a % 3, 'account-' || a, credit_min => -1000, metadata => '{"plan": "b"}') FROM generate_series(0, 9) a;
SELECT usage_billing.create_project('project-' || o, 'org-' || o), usage_billing.set_storage_limits('org-' || o, 10 + o, NULL, 3) FROM generate_series(0, 2) o;
CREATE TABLE public.photo (id int PRIMARY KEY, owner text, size bigint);
SELECT usage_billing.track_storage('photo', 'owner', 'size', kind => 'image');
INSERT INTO photo SELECT n, 'org-' || n % 3, n * 100 FROM generate_series(1, 300) n;
INSERT INTO usage_billing.stored_file (file_id, org_id, kind, bytes, duration_seconds)
	SELECT 'file-' || n, 'org-' || n % 3, (ARRAY['image', 'video', 'text'])[1 + n % 3], n * 1000, n / 7.0 FROM generate_series(1, 300) n;
INSERT INTO usage_billing.storage_snapshot (org_id, snapshot_date, total_file_count, last_updated)
	SELECT 'org-' || n % 3, date '2024-01-01' + n, n, timestamptz '2024-01-01 12:00Z' + n * interval '1 day' FROM generate_series(1, 60) n;
SQL
SELECT usage_billing.refresh_storage_usage('org-' || o) FROM generate_series(0, 2) o;
SELECT usage_billing.close_billing_period('2024-05-02 00:00Z', billing_id => 'account-' || a) FROM generate_series(1, 4) a;
SELECT usage_billing.run_maintenance();
SQL
UPDATE usage_billing.billing_account SET state = 'closed' WHERE billing_id = 'account-3';
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('account-7', md5('history')::uuid, 9000000);
INSERT INTO usage_billing.usage (billing_id, id, amount) VALUES ('account-8', md5('large')::uuid, 5000000000000000000);
DELETE FROM photo WHERE id % 5 = 0;
UPDATE usage_billing.stored_file SET bytes = bytes + 7, org_id = 'org-0' WHERE file_id LIKE '%3';
SQL
	return;
}

# What the functions answer.
sub answers
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, <<'SQL');
SELECT usage_billing.account_balance(billing_id), usage_billing.total_debited(billing_id) FROM usage_billing.billing_account ORDER BY billing_id;
SELECT usage_billing.account_usage_trend("from" => '2024-04-20', "to" => '2024-05-10', include => 'trend', billing_id => billing_id)
	FROM usage_billing.billing_account ORDER BY billing_id;
SELECT b.billing_id, s.* FROM usage_billing.billing_account b,
	usage_billing.usage_series('2024-04-20', '2024-05-10', 'hour', billing_id => b.billing_id) s ORDER BY 1, 2, 3, 4;
SELECT b.billing_id, t.* FROM usage_billing.billing_account b,
	usage_billing.account_transactions(max_rows => 1000, billing_id => b.billing_id) t ORDER BY 1, cursor;
SELECT usage_billing.get_storage_usage('org-' || o) FROM generate_series(0, 2) o;
SELECT h.* FROM generate_series(0, 2) o, usage_billing.get_storage_usage_history(36500, 'org-' || o) h ORDER BY org_id, snapshot_date;
SQL
}

# What is in the tables: a line each.
sub tables
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, <<'SQL');
SELECT format('SELECT %L, count(*), md5(string_agg(t::text, E''\n'' ORDER BY t::text COLLATE "C")) FROM %s t', c.oid::regclass, c.oid::regclass)
FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace IN ('public'::regnamespace, 'usage_billing'::regnamespace) ORDER BY c.oid::regclass::text \gexec
SQL
}

# It goes on as before: known ids are known, new usage is posted, a table that
# is tracked is counted.
sub goes_on
{
	my ($node, $database) = @_;
	my $value = sub { return $node->safe_psql($database, $_[0]) };

	is($value->(<<'SQL'), '{"created": 0, "duplicates": 1}', 'what was stored is known');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('first/1/1')::uuid, 'amount', 1, 'source', 'api',
	'description', 'usage 1', 'user_id', 'user-1')), 'account-1') - 'balance'
SQL
	my $balance = $value->(q{SELECT usage_billing.account_balance('account-1') ->> 'balance'});
	is($value->(<<'SQL'), $balance - 11, 'usage is taken from the balance');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('next')::uuid, 'amount', 11)), 'account-1') ->> 'balance'
SQL
	is($value->(q{SELECT usage_billing.revert_usage(md5('next')::uuid, 5, 'account-1') ->> 'balance'}), $balance - 6, 'and given back');
	is((BillingNode::outcome($node, $database, <<'SQL'))[0], 'UB001', 'an account that has nothing left is refused');
SELECT usage_billing.create_usage(jsonb_build_array(jsonb_build_object('id', md5('next')::uuid, 'amount', 1)), 'account-7')
SQL
	$value->(q{INSERT INTO photo VALUES (1001, 'org-1', 1)});
	is($value->(<<'SQL'), '0|0|0', 'refreshed storage is what a count finds');
SELECT r.total_file_count - c.files, r.image_file_count - c.images, r.total_storage_bytes - c.bytes
FROM usage_billing.refresh_storage_usage('org-1') r, (
	SELECT count(*) AS files, count(*) FILTER (WHERE kind = 'image') AS images, sum(bytes) AS bytes FROM (
		SELECT kind, bytes FROM usage_billing.stored_file WHERE org_id = 'org-1'
		UNION ALL SELECT 'image', size FROM photo WHERE owner = 'org-1') f) c
SQL
	$value->('SELECT usage_billing.run_maintenance()');
	is(BillingNode::differences($node, $database), '', 'the books are sound after it');
	return;
}

1;
