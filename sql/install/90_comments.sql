-- What psql's \d+ and \df+ show and what PostgREST puts into its OpenAPI page:
-- there the first line is the summary and the rest the description.

COMMENT ON SCHEMA usage_billing IS
'Metered usage, credits and what is derived from them
Facts are appended and never changed. Callers use the functions; people who load or read data in bulk use the tables.';


-- Functions that callers use

COMMENT ON FUNCTION usage_billing.create_billing_account(text, text, bigint, boolean, jsonb) IS
'Creates a billing account for an organisation
org_id: 1 to 255 bytes; absent: the organisation of the request''s token.
billing_id: 1 to 255 bytes; absent: a new random uuid, so give one if the call may be repeated.
credit_min: credits below which usage is refused; negative is an overdraft, positive a reserve. Default 0.
is_default: the account that is used where only org_id or project_id is given; absent: true for an organisation''s first account.
metadata: a JSON object, at most 65,536 bytes as text.
Returns the account''s row. The same call again returns the row that is there.
Errors: 22023 malformed input; 23505 the billing_id is taken by another organisation or has other settings; 42501 another organisation''s under a token.';

COMMENT ON FUNCTION usage_billing.create_project(text, text) IS
'Records which organisation a project belongs to
project_id: 1 to 255 bytes. org_id: 1 to 255 bytes; absent: the organisation of the request''s token.
Afterwards the project_id can be given wherever an account is chosen; it stands for the organisation''s default account.
Returns the project''s row. The same call again returns the row that is there.
Errors: 22023 malformed input; 23505 the project belongs to another organisation; 42501 another organisation''s under a token.';

COMMENT ON FUNCTION usage_billing.grant_credits(uuid, bigint, text, text, text, text, text, text, jsonb) IS
'Adds credits to an account
id: the caller''s own uuid; repeating the call with it never grants twice.
amount: credits, more than 0. source: where they come from, default system.buy, at most 255 bytes.
description: at most 4,096 bytes. user_id: at most 255 bytes. metadata: a JSON object, at most 65,536 bytes as text.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"id", "amount", "balance", "duplicate"}: balance is the account''s balance after the call; duplicate is true if the grant was there before.
Errors: 22023 malformed input; 22003 out of range; 23505 the id was used with other content; UB003 the account is closed; PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.create_usage(jsonb, text, text, text) IS
'Reports usage of an account, and takes its credits from the balance
usages: an array of 0 to 10,000 objects (setting usage_billing.max_batch_size). Keys of an object:
id (uuid, required), amount (whole number from 0, as number or decimal string, required),
type (credit or feature, default credit), source (default system, stored in lower case), description, user_id, metadata (object),
created_at (RFC 3339, default now, UTC where it has no offset), customer_id (if given: the account''s billing_id), updated_at (ignored).
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"created", "duplicates", "balance"}. The call is stored as a whole or not at all. Repeating it with the same ids counts nothing twice.
Errors: UB001 not enough credits; UB003 the account is closed; 23505 an id was used with other content; 22023, 22P02, 22003, 22007 malformed input
(the detail names element and field, like usages[17].amount); PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.revert_usage(uuid, bigint, text, text, text, uuid, text, text, jsonb) IS
'Gives back all or part of a usage
usage_id: the usage to revert. amount: how much of it, more than 0; absent: all that is left.
id: the caller''s own uuid for this revert, which makes repeating the call safe; absent: made from the usage.
description: at most 4,096 bytes. user_id: at most 255 bytes. metadata: a JSON object, at most 65,536 bytes as text.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"id", "usage_id", "amount", "balance", "duplicate"}: duplicate is true if this very revert was there before.
A usage can be reverted once, unless the setting usage_billing.revert_once is off. Works on a closed account too.
Errors: UB002 more than is left; 22023 malformed input, or nothing is left; 23505 reverted before, or the id was used with other content;
PT404 no such account or usage; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.account_balance(text, text, text) IS
'Tells how many credits an account has
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"billing_id", "org_id", "balance", "credit_min", "available"}, all amounts in credits; available is balance less credit_min.
Exact to the last commit. Errors: 22023 no or contradictory choice of an account; PT404 no such account; 42501 not allowed; 22003 out of range.';

COMMENT ON FUNCTION usage_billing.total_debited(text, text, text) IS
'Tells how many credits an account has used in all
Credit usage less what was reverted, over the whole life of the account. Grants and feature usage don''t count.
billing_id, org_id, project_id: which account; see the reference on account choice.
Errors: 22023 no or contradictory choice of an account; PT404 no such account; 42501 not allowed; 22003 out of range.';

COMMENT ON FUNCTION usage_billing.account_transactions(timestamptz, timestamptz, integer, text, text, text, text) IS
'Lists what changed an account''s balance, newest first
from: included; to: not included; absent: no bound. max_rows: 1 or more, default 100.
before: the cursor of the last row of a page gives the page after it.
billing_id, org_id, project_id: which account; see the reference on account choice.
kind: usage, revert or grant. type: debit for a usage, credit for a revert or a grant. amount: credits, never negative.
Feature usage and usage of amount 0 aren''t listed.
Errors: 22023 malformed input; PT404 no such account; 42501 not allowed.';

COMMENT ON FUNCTION usage_billing.run_maintenance() IS
'Does one pass of the background work, for databases without the worker
Folds what statements appended into balances and hourly sums. Answers are right without it too; it keeps them fast.
Call it from a scheduler, every minute or so. May run beside any load and beside itself.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.verify(text) IS
'Compares balances and hourly sums with the facts
billing_id: the account to check; absent: all accounts, and facts without an account.
Returns a row for each difference: subject (what was compared), key (of which account and hour), expected (from the facts), actual (what is kept).
No row: everything is sound. Reads all facts in one snapshot; it blocks nobody.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.rebuild(text) IS
'Makes balances and hourly sums anew from the facts
billing_id: the account to rebuild; absent: all accounts.
For use after a load with triggers disabled. Exact while usage is being reported; what is right already doesn''t change.
Errors: 42501 under an organisation''s token.';

COMMENT ON FUNCTION usage_billing.prune_usage(timestamptz, text, integer) IS
'Moves old usage that is billed out into sums by the hour
older_than: usage of hours (UTC) that ended by then and by its account''s last billing date is moved; rounded down to the hour.
billing_id: the account to prune; absent: all accounts. max_rows: usages that one call moves at most, 1 or more, default 10000.
Returns how many usages were moved; repeat the call until it is 0. No balance, trend or sum changes; single usages of that time are gone:
they can''t be listed or reverted any more, and one that arrives again with its old id is new.
Passes over usage that another transaction has locked. Errors: 22023 malformed input; PT404 no such account; 42501 under an organisation''s token.';


-- Functions that triggers call

COMMENT ON FUNCTION usage_billing.account_before_insert() IS 'trigger: completes and checks a new billing account, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.account_before_update() IS 'trigger: keeps an account''s ids from changing';
COMMENT ON FUNCTION usage_billing.account_before_delete() IS 'trigger: takes the locks that removing accounts needs, and refuses TRUNCATE while there are facts';
COMMENT ON FUNCTION usage_billing.account_after_delete() IS 'trigger: refuses to remove an account that has facts';
COMMENT ON FUNCTION usage_billing.project_before_insert() IS 'trigger: completes and checks a new project, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.usage_before_insert() IS 'trigger: completes and checks a new usage, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.usage_after_insert() IS 'trigger: posts the usages that a statement stored';
COMMENT ON FUNCTION usage_billing.grant_before_insert() IS 'trigger: completes and checks a new grant, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.grant_after_insert() IS 'trigger: posts the grants that a statement stored';
COMMENT ON FUNCTION usage_billing.revert_before_insert() IS 'trigger: completes and checks a new revert, and skips one that is there already';
COMMENT ON FUNCTION usage_billing.revert_after_insert() IS 'trigger: posts the reverts that a statement stored';
COMMENT ON FUNCTION usage_billing.archive_before_insert() IS 'trigger: completes and checks new sums of usage, and skips those that are there already';
COMMENT ON FUNCTION usage_billing.archive_after_insert() IS 'trigger: posts the sums of usage that a statement stored, unless they were posted as usage';
COMMENT ON FUNCTION usage_billing.fact_is_append_only() IS 'trigger: keeps facts from being changed or removed';


-- Functions that other functions call

COMMENT ON FUNCTION usage_billing.require_unscoped() IS 'refuses a request that is scoped to an organisation; for verify';
COMMENT ON FUNCTION usage_billing.delivery_measures(usage_billing.usage_type, text, jsonb) IS 'the measurements that a delivery usage carries in its metadata; for verify, rebuild and prune_usage';
COMMENT ON FUNCTION usage_billing.derived_sums(text) IS 'what the facts and the derived tables say, by account and hour; for verify and rebuild';
COMMENT ON FUNCTION usage_billing.derived_differences(text) IS 'where the facts and the derived tables differ; for verify and rebuild';


-- Facts

COMMENT ON TABLE usage_billing.billing_account IS
'Billing accounts
An organisation may have several, at most one of which is its default. Settings may be updated, ids may not.';
COMMENT ON COLUMN usage_billing.billing_account.billing_id IS 'the account''s id, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.billing_account.org_id IS 'the organisation that owns the account, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.billing_account.is_default IS 'whether this account is used where only the organisation or a project is given; null on insert: true for the organisation''s first account';
COMMENT ON COLUMN usage_billing.billing_account.credit_min IS 'credits that the balance may not fall below: negative is an overdraft, positive a reserve';
COMMENT ON COLUMN usage_billing.billing_account.state IS 'active, or closed: takes no new usage and no grants through the functions';
COMMENT ON COLUMN usage_billing.billing_account.last_billed_at IS 'end of the last billed period; null: never billed';
COMMENT ON COLUMN usage_billing.billing_account.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.billing_account.created_at IS 'when the account was created; null on insert: now';
COMMENT ON COLUMN usage_billing.billing_account.updated_at IS 'when the account was last changed; an update sets it to now';

COMMENT ON TABLE usage_billing.project IS
'Projects and the organisations that they belong to
A project stands for its organisation''s default account wherever an account is chosen.';
COMMENT ON COLUMN usage_billing.project.project_id IS 'the project''s id, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.project.org_id IS 'the organisation that owns the project, 1 to 255 bytes';
COMMENT ON COLUMN usage_billing.project.created_at IS 'when the project was recorded; null on insert: now';

COMMENT ON TABLE usage_billing.credit_grant IS
'Credits that accounts were given
Append-only. Loading a row that is there already changes nothing.';
COMMENT ON COLUMN usage_billing.credit_grant.billing_id IS 'the account that got the credits';
COMMENT ON COLUMN usage_billing.credit_grant.id IS 'the grant''s id, a key within its account';
COMMENT ON COLUMN usage_billing.credit_grant.amount IS 'credits, more than 0';
COMMENT ON COLUMN usage_billing.credit_grant.source IS 'where the credits come from, at most 255 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.user_id IS 'who granted, at most 255 bytes';
COMMENT ON COLUMN usage_billing.credit_grant.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.credit_grant.created_at IS 'when the credits were granted; null on insert: now';

COMMENT ON TABLE usage_billing.usage IS
'Usage as it was reported
Append-only. Loading a row that is there already changes nothing; a row with a known id and other content is an error.';
COMMENT ON COLUMN usage_billing.usage.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage.id IS 'the usage''s id, a key within its account';
COMMENT ON COLUMN usage_billing.usage.type IS 'credit: taken from the balance; feature: counted only';
COMMENT ON COLUMN usage_billing.usage.amount IS 'credits, or what the feature is counted in; 0 or more';
COMMENT ON COLUMN usage_billing.usage.source IS 'what caused the usage, in lower case, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.usage.user_id IS 'who caused the usage, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text; delivery usage carries its measurements here';
COMMENT ON COLUMN usage_billing.usage.created_at IS 'when the usage happened; null on insert: now';
COMMENT ON COLUMN usage_billing.usage.updated_at IS 'when the row was stored; null on insert: now';

COMMENT ON TABLE usage_billing.usage_revert IS
'Usage that was taken back, all or in part
Append-only. usage_type and the columns after it say what is taken back; absent, they are filled in from the usage.';
COMMENT ON COLUMN usage_billing.usage_revert.billing_id IS 'the account of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_id IS 'the usage that is taken back';
COMMENT ON COLUMN usage_billing.usage_revert.revert_no IS 'counts the reverts of one usage from 1';
COMMENT ON COLUMN usage_billing.usage_revert.id IS 'the revert''s id, unique within its account; null on insert: made from billing_id, usage_id and revert_no';
COMMENT ON COLUMN usage_billing.usage_revert.amount IS 'how much is taken back, more than 0, in the unit of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.description IS 'free text, at most 4,096 bytes';
COMMENT ON COLUMN usage_billing.usage_revert.user_id IS 'who reverted, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage_revert.metadata IS 'the caller''s own data, a JSON object of at most 65,536 bytes as text';
COMMENT ON COLUMN usage_billing.usage_revert.created_at IS 'when the usage was reverted; null on insert: now';
COMMENT ON COLUMN usage_billing.usage_revert.usage_type IS 'type of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_source IS 'source of the usage';
COMMENT ON COLUMN usage_billing.usage_revert.usage_at IS 'created_at of the usage; its hour falls in every trend';
COMMENT ON COLUMN usage_billing.usage_revert.usage_events IS '1 if nothing of the usage is left, else 0';
COMMENT ON COLUMN usage_billing.usage_revert.viewing_seconds IS 'seconds of viewing that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.viewing_bytes IS 'bytes of viewing that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_seconds IS 'seconds of egress that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_seconds_additional_targets IS 'seconds of egress to additional targets that are taken back';
COMMENT ON COLUMN usage_billing.usage_revert.egress_bytes IS 'bytes of egress that are taken back';

COMMENT ON TABLE usage_billing.usage_archive IS
'Usage that is kept as sums by the hour only
Append-only. A row is what one call of prune_usage took of one hour, source and type. Loading a row that is there already changes nothing.';
COMMENT ON COLUMN usage_billing.usage_archive.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_archive.id IS 'the row''s id, a key within its account; null on insert: made from hour, source and type';
COMMENT ON COLUMN usage_billing.usage_archive.hour IS 'start of the hour, in UTC';
COMMENT ON COLUMN usage_billing.usage_archive.source IS 'source of the usages, in lower case, at most 255 bytes';
COMMENT ON COLUMN usage_billing.usage_archive.type IS 'type of the usages';
COMMENT ON COLUMN usage_billing.usage_archive.amount IS 'sum of the amounts; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.events IS 'number of usages, also of those that were reverted';
COMMENT ON COLUMN usage_billing.usage_archive.viewing_seconds IS 'seconds of viewing; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.viewing_bytes IS 'bytes of viewing; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_seconds IS 'seconds of egress; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_seconds_additional_targets IS 'seconds of egress to additional targets; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.egress_bytes IS 'bytes of egress; what was reverted is not taken off';
COMMENT ON COLUMN usage_billing.usage_archive.created_at IS 'when the usages were moved; null on insert: now';


-- Derived from the facts

COMMENT ON TABLE usage_billing.usage_delta IS
'Changes that statements appended and that aren''t folded yet
Derived from the facts and never dumped. Rows vanish when they are folded into credit_balance and usage_hourly.';
COMMENT ON COLUMN usage_billing.usage_delta.billing_id IS 'the account that changes';
COMMENT ON COLUMN usage_billing.usage_delta.hour IS 'start of the hour (UTC) that changes; -infinity: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.source IS 'source of the usages; empty: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.type IS 'type of the usages; null: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.xact IS 'the transaction that appended the row';
COMMENT ON COLUMN usage_billing.usage_delta.credits IS 'change of the balance, in credits; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.debited IS 'change of the sum of the account''s debits, in credits; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.amount IS 'change of the hour''s amount; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.events IS 'change of the hour''s number of usages; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.viewing_seconds IS 'change of the hour''s seconds of viewing; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.viewing_bytes IS 'change of the hour''s bytes of viewing; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_seconds IS 'change of the hour''s seconds of egress; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_seconds_additional_targets IS 'change of the hour''s seconds of egress to additional targets; null: none';
COMMENT ON COLUMN usage_billing.usage_delta.egress_bytes IS 'change of the hour''s bytes of egress; null: none';

COMMENT ON TABLE usage_billing.credit_balance IS
'Balances as far as they are folded
Derived from the facts and never dumped. The balance is this row plus the account''s rows in usage_delta: ask account_balance.';
COMMENT ON COLUMN usage_billing.credit_balance.billing_id IS 'the account';
COMMENT ON COLUMN usage_billing.credit_balance.balance IS 'grants and reverts less usage, in credits';
COMMENT ON COLUMN usage_billing.credit_balance.debited IS 'credit usage less what was reverted, in credits';
COMMENT ON COLUMN usage_billing.credit_balance.folded_below IS 'no row in usage_delta of an earlier transaction is left; readers begin there';
COMMENT ON COLUMN usage_billing.credit_balance.folded_by IS 'transaction that folded; where it isn''t the row''s xmin, folded_below is about another cluster''s transactions';

COMMENT ON TABLE usage_billing.large_account IS
'Accounts whose sums are checked against the range of bigint
Derived from the facts and never dumped. An account comes here with its first posting above 2^52.';
COMMENT ON COLUMN usage_billing.large_account.billing_id IS 'the account';

COMMENT ON TABLE usage_billing.usage_hourly IS
'Sums of usage by the hour, as far as they are folded
Derived from the facts and never dumped. The sum of an hour is this row plus the hour''s rows in usage_delta.';
COMMENT ON COLUMN usage_billing.usage_hourly.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_hourly.hour IS 'start of the hour, in UTC';
COMMENT ON COLUMN usage_billing.usage_hourly.source IS 'source of the usages';
COMMENT ON COLUMN usage_billing.usage_hourly.type IS 'type of the usages';
COMMENT ON COLUMN usage_billing.usage_hourly.amount IS 'sum of the amounts, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.events IS 'number of usages, less those of which nothing is left';
COMMENT ON COLUMN usage_billing.usage_hourly.viewing_seconds IS 'seconds of viewing, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.viewing_bytes IS 'bytes of viewing, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_seconds IS 'seconds of egress, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_seconds_additional_targets IS 'seconds of egress to additional targets, less what was reverted';
COMMENT ON COLUMN usage_billing.usage_hourly.egress_bytes IS 'bytes of egress, less what was reverted';


-- Trends

COMMENT ON FUNCTION usage_billing.account_usage_trend(text, text, jsonb, text, text, text, text) IS
'Sums up an account''s deliveries over a range of hours
from: included; to: not included. Each is YYYY-MM-DD HH:00:00 or YYYY-MM-DD, also with T, Z or an offset, in UTC where it has none, or last_bill_date; rounded up to the hour.
A range is 90 days at most. Neither given: from the last billing date, at most 90 days back, to the end of today. Only from: to 90 days on or the end of today, whichever is shorter.
Only to: from 90 days back, or the last billing date if that is later and before to. Never billed: the account''s creation is the last billing date.
filter: [{"field": "resource", "eq": "vod_streams"}] or [{"field": "resource", "in": "transcoders,vod_streams"}], also with an array for in, or as an object with the indexes as keys; all conditions must hold.
include: trend, for one entry an hour with usage.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns {"account": {"id", "viewing_seconds", "avg_viewing_seconds", "viewing_bytes", "egress_seconds", "egress_seconds_additional_targets", "egress_bytes", "trend"}, "limits": {"resources", "from", "to"}}:
seconds and bytes; avg_viewing_seconds is seconds a session. Exact to the last commit.
Errors: 22007 from or to is no time; 22023 malformed input; PT404 no such account; 42501 not allowed; 22003 a sum is out of range.';

COMMENT ON FUNCTION usage_billing.usage_series(timestamptz, timestamptz, text, text, text, usage_billing.usage_type, text, text, text) IS
'Counts an account''s usage by hour, day, week or month, ready for a chart
from: included; to: not included; both are rounded up to the hour. Absent: as in account_usage_trend, but a range may have more than 90 days.
bucket: hour, day, week (from Monday) or month, default hour. time_zone: whose days, weeks and months, default UTC; its offset must be whole hours.
source, type: this source or type only; absent: all. With a source, buckets without usage are filled with zeros, 100,000 at most.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns rows in order of time: one a bucket, source and type with usage. Exact to the last commit.
Errors: 22023 malformed input; 0A000 the time zone isn''t whole hours away from UTC; PT404 no such account; 42501 not allowed; 22003 a sum is out of range.';

COMMENT ON FUNCTION usage_billing.close_billing_period(timestamptz, text, text, text) IS
'Moves an account''s last billing date
at: the end of the billed period, rounded down to the hour; default now. Not in the future, and not before the last billing date; the same hour again changes nothing.
billing_id, org_id, project_id: which account; see the reference on account choice.
Returns the last billing date.
Errors: 22023 malformed input, or the date would move back; PT404 no such account; 42501 not allowed.';

COMMENT ON TYPE usage_billing.usage_bucket IS
'A row of usage_series
The usage of one source and type in one hour, day, week or month.';
COMMENT ON COLUMN usage_billing.usage_bucket.bucket_start IS 'start of the hour, day, week or month in the time zone asked for';
COMMENT ON COLUMN usage_billing.usage_bucket.source IS 'source of the usages';
COMMENT ON COLUMN usage_billing.usage_bucket.type IS 'type of the usages; null: a bucket without usage, where no type was asked for';
COMMENT ON COLUMN usage_billing.usage_bucket.events IS 'number of usages, less those of which nothing is left';
COMMENT ON COLUMN usage_billing.usage_bucket.amount IS 'sum of the amounts, less what was reverted';


-- Storage

COMMENT ON FUNCTION usage_billing.refresh_storage_usage(text) IS
'Takes today''s snapshot of an organisation''s storage
org_id: the organisation; absent: the one of the request''s token. What it costs depends on what changed since the last time, not on what is stored.
Two calls at once for one organisation take turns. A tracked table that was never counted is counted first.
Returns the snapshot, with the limits: counts, bytes, and minutes of video as text with two decimals; a limit that is null is none.
Errors: PT404 nothing is known of the organisation; 22023 org_id is missing or too long; 22003 a sum would leave the range of bigint;
55006 a table would have to be counted while a statement of this session is writing to it; 42501 not allowed, or a table''s policies would hide rows from its owner.';
COMMENT ON FUNCTION usage_billing.get_storage_usage(text) IS
'Tells what an organisation had stored when it was refreshed last
org_id: the organisation; absent: the one of the request''s token.
Returns the latest snapshot, with the limits: counts, bytes, and minutes of video as text with two decimals; a limit that is null is none.
Errors: PT404 nothing is known of the organisation, or no snapshot was taken yet; 22023 org_id is missing or too long; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.get_storage_usage_history(integer, text) IS
'Lists the daily snapshots of an organisation''s storage, oldest first
days: how many days back, today included; 1 or more, default 30. org_id: the organisation; absent: the one of the request''s token.
A day without a snapshot is left out.
Errors: PT404 nothing is known of the organisation; 22023 malformed input; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.recount_storage_usage(text) IS
'Counts an organisation''s files anew and takes today''s snapshot
org_id: the organisation; absent: the one of the request''s token. For use after the tables were changed without their triggers; it reads them all.
Writers go on meanwhile, and what they change is neither lost nor counted twice.
Returns the snapshot, and has the errors, of refresh_storage_usage.';
COMMENT ON FUNCTION usage_billing.set_storage_limits(text, bigint, bigint, bigint) IS
'Sets the limits that snapshots of an organisation show
org_id: the organisation; absent: the one of the request''s token.
max_image_count, max_video_count, max_project_count: 0 or more; absent: no limit. All three are set. Nothing is refused because of them.
Errors: 22023 malformed input; 42501 not allowed.';
COMMENT ON FUNCTION usage_billing.track_storage(regclass, name, name, text, name, name) IS
'Begins to count the files of a table
relation: a plain or partitioned table of the caller''s. org_column (integer, text, uuid or enum), bytes_column (integer, numeric or text):
which columns hold organisation and size; rows without an organisation aren''t counted.
kind: image, video or any other word, for the whole table; or kind_column: the column that holds it. duration_column: seconds, or an interval.
What the table holds is counted before the next answer. The same call again changes nothing; another definition begins anew. Waits for writers.
Errors: 22023 malformed input; 42501 the table belongs to another role, or an organisation''s token.';
COMMENT ON FUNCTION usage_billing.untrack_storage(regclass) IS
'Ends counting the files of a table, and forgets what was counted
relation: a table of the caller''s. Snapshots that were taken stay.
Errors: 22023 no such table; 42501 the table belongs to another role, or an organisation''s token.';
COMMENT ON FUNCTION usage_billing.storage_changed() IS 'trigger: appends what a statement changed in a tracked table';
COMMENT ON FUNCTION usage_billing.storage_truncated() IS 'trigger: marks a tracked table that was truncated as one to be counted';
COMMENT ON FUNCTION usage_billing.snapshot_before_insert() IS 'trigger: of two snapshots for one day the later one stays';

COMMENT ON TYPE usage_billing.storage_usage IS
'A snapshot of an organisation''s storage, with its limits
Counts and bytes of all files, and of images and videos among them.';
COMMENT ON COLUMN usage_billing.storage_usage.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_usage.snapshot_date IS 'the day (UTC) of the snapshot';
COMMENT ON COLUMN usage_billing.storage_usage.last_updated IS 'when the snapshot was taken';
COMMENT ON COLUMN usage_billing.storage_usage.project_count IS 'number of projects';
COMMENT ON COLUMN usage_billing.storage_usage.image_file_count IS 'number of images';
COMMENT ON COLUMN usage_billing.storage_usage.image_storage_bytes IS 'bytes of images';
COMMENT ON COLUMN usage_billing.storage_usage.video_file_count IS 'number of videos';
COMMENT ON COLUMN usage_billing.storage_usage.video_storage_bytes IS 'bytes of videos';
COMMENT ON COLUMN usage_billing.storage_usage.total_file_count IS 'number of all files';
COMMENT ON COLUMN usage_billing.storage_usage.total_storage_bytes IS 'bytes of all files';
COMMENT ON COLUMN usage_billing.storage_usage.total_video_minutes IS 'minutes of video, as text with two decimals';
COMMENT ON COLUMN usage_billing.storage_usage.max_image_count IS 'most images; null: no limit';
COMMENT ON COLUMN usage_billing.storage_usage.max_video_count IS 'most videos; null: no limit';
COMMENT ON COLUMN usage_billing.storage_usage.max_project_count IS 'most projects; null: no limit';

COMMENT ON TABLE usage_billing.storage_limit IS
'Limits that an organisation''s storage snapshots show
Set with set_storage_limits. Nothing is refused because of them.';
COMMENT ON COLUMN usage_billing.storage_limit.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_limit.max_image_count IS 'most images; null: no limit';
COMMENT ON COLUMN usage_billing.storage_limit.max_video_count IS 'most videos; null: no limit';
COMMENT ON COLUMN usage_billing.storage_limit.max_project_count IS 'most projects; null: no limit';

COMMENT ON TABLE usage_billing.storage_snapshot IS
'What organisations had stored, a row a day
Can be loaded with COPY. Of two snapshots for one day the one with the later last_updated stays.';
COMMENT ON COLUMN usage_billing.storage_snapshot.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_snapshot.snapshot_date IS 'the day (UTC) of the snapshot';
COMMENT ON COLUMN usage_billing.storage_snapshot.project_count IS 'number of projects';
COMMENT ON COLUMN usage_billing.storage_snapshot.image_file_count IS 'number of images';
COMMENT ON COLUMN usage_billing.storage_snapshot.image_storage_bytes IS 'bytes of images';
COMMENT ON COLUMN usage_billing.storage_snapshot.video_file_count IS 'number of videos';
COMMENT ON COLUMN usage_billing.storage_snapshot.video_storage_bytes IS 'bytes of videos';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_file_count IS 'number of all files';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_storage_bytes IS 'bytes of all files';
COMMENT ON COLUMN usage_billing.storage_snapshot.total_video_minutes IS 'minutes of video';
COMMENT ON COLUMN usage_billing.storage_snapshot.last_updated IS 'when the snapshot was taken';

COMMENT ON TABLE usage_billing.stored_file IS
'Files, for applications that have no table of their own for them
An ordinary table that is tracked from the start: insert, update and delete as you like.';
COMMENT ON COLUMN usage_billing.stored_file.file_id IS 'the file''s id';
COMMENT ON COLUMN usage_billing.stored_file.org_id IS 'the organisation that the file belongs to';
COMMENT ON COLUMN usage_billing.stored_file.project_id IS 'the project that the file belongs to; null: none';
COMMENT ON COLUMN usage_billing.stored_file.kind IS 'image, video, or any other word, which counts in the totals only';
COMMENT ON COLUMN usage_billing.stored_file.bytes IS 'size in bytes';
COMMENT ON COLUMN usage_billing.stored_file.duration_seconds IS 'length of a video in seconds';
COMMENT ON COLUMN usage_billing.stored_file.created_at IS 'when the file was stored';

COMMENT ON TABLE usage_billing.storage_source IS
'Tables whose files are counted
Kept by track_storage and untrack_storage.';
COMMENT ON COLUMN usage_billing.storage_source.relation IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_source.org_column IS 'column that holds the organisation';
COMMENT ON COLUMN usage_billing.storage_source.bytes_column IS 'column that holds the size in bytes';
COMMENT ON COLUMN usage_billing.storage_source.kind IS 'kind of all its files; null: the column''s, or none';
COMMENT ON COLUMN usage_billing.storage_source.kind_column IS 'column that holds the kind; null: none';
COMMENT ON COLUMN usage_billing.storage_source.duration_column IS 'column that holds the duration, in seconds or as an interval; null: none';
COMMENT ON COLUMN usage_billing.storage_source.source_id IS 'what the derived tables call it by';

COMMENT ON TABLE usage_billing.storage_delta IS
'Changes of stored files that aren''t folded yet
Derived and never dumped. Rows vanish when a refresh folds them into storage_total.';
COMMENT ON COLUMN usage_billing.storage_delta.org_id IS 'the organisation whose files changed';
COMMENT ON COLUMN usage_billing.storage_delta.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_delta.kind IS 'image, video or other';
COMMENT ON COLUMN usage_billing.storage_delta.files IS 'change of the number of files';
COMMENT ON COLUMN usage_billing.storage_delta.bytes IS 'change of the bytes';
COMMENT ON COLUMN usage_billing.storage_delta.seconds IS 'change of the seconds';

COMMENT ON TABLE usage_billing.storage_total IS
'What organisations have stored, as far as it is folded
Derived and never dumped.';
COMMENT ON COLUMN usage_billing.storage_total.org_id IS 'the organisation';
COMMENT ON COLUMN usage_billing.storage_total.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_total.kind IS 'image, video or other';
COMMENT ON COLUMN usage_billing.storage_total.files IS 'number of files';
COMMENT ON COLUMN usage_billing.storage_total.bytes IS 'their bytes';
COMMENT ON COLUMN usage_billing.storage_total.seconds IS 'their seconds';

COMMENT ON TABLE usage_billing.storage_counted IS
'When tracked tables were counted last
Derived and never dumped. A table without a row here is counted before the next answer.';
COMMENT ON COLUMN usage_billing.storage_counted.source_id IS 'the tracked table';
COMMENT ON COLUMN usage_billing.storage_counted.counted_at IS 'when all of it was counted last';


-- Who is asking, and views

COMMENT ON FUNCTION usage_billing.request_org() IS
'Tells which organisation the request''s token names
Returns its id; null for a request that may see every organisation. Row-level security asks it.
Errors: 42501 the token names none, or its claims are no JSON object.';
COMMENT ON FUNCTION usage_billing.request_accounts() IS
'Lists the billing accounts of the organisation that the request''s token names
Returns their ids; null for a request that may see every account. Row-level security asks it.
Errors: 42501 the token names no organisation, or its claims are no JSON object.';

COMMENT ON VIEW usage_billing.usage_remaining IS
'Usage with what was reverted of it and what is left
A row for each usage that the reader may see.';
COMMENT ON COLUMN usage_billing.usage_remaining.billing_id IS 'the account that used';
COMMENT ON COLUMN usage_billing.usage_remaining.id IS 'the usage''s id, a key within its account';
COMMENT ON COLUMN usage_billing.usage_remaining.type IS 'credit: taken from the balance; feature: counted only';
COMMENT ON COLUMN usage_billing.usage_remaining.amount IS 'what was reported';
COMMENT ON COLUMN usage_billing.usage_remaining.reverted IS 'what was taken back of it';
COMMENT ON COLUMN usage_billing.usage_remaining.remaining IS 'what is left, which is what may still be reverted';
COMMENT ON COLUMN usage_billing.usage_remaining.source IS 'what caused the usage';
COMMENT ON COLUMN usage_billing.usage_remaining.description IS 'free text';
COMMENT ON COLUMN usage_billing.usage_remaining.user_id IS 'who caused the usage';
COMMENT ON COLUMN usage_billing.usage_remaining.metadata IS 'the caller''s own data';
COMMENT ON COLUMN usage_billing.usage_remaining.created_at IS 'when the usage happened';

COMMENT ON VIEW usage_billing.account_statement IS
'What changed the balances of the accounts that the reader may see
The rows of account_transactions, for filters and orders of one''s own.';
COMMENT ON COLUMN usage_billing.account_statement.billing_id IS 'the account';
COMMENT ON COLUMN usage_billing.account_statement.id IS 'the usage''s, revert''s or grant''s id';
COMMENT ON COLUMN usage_billing.account_statement.kind IS 'usage, revert or grant';
COMMENT ON COLUMN usage_billing.account_statement.type IS 'debit for a usage, credit for a revert or a grant';
COMMENT ON COLUMN usage_billing.account_statement.amount IS 'credits, more than 0';
COMMENT ON COLUMN usage_billing.account_statement.source IS 'what caused it; for a revert, the source of the usage';
COMMENT ON COLUMN usage_billing.account_statement.description IS 'free text';
COMMENT ON COLUMN usage_billing.account_statement.user_id IS 'who caused it';
COMMENT ON COLUMN usage_billing.account_statement.metadata IS 'the caller''s own data';
COMMENT ON COLUMN usage_billing.account_statement.created_at IS 'when it happened';
COMMENT ON FUNCTION usage_billing.check_ids() IS 'trigger: refuses ids that are empty or too long';
