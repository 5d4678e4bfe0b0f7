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
COMMENT ON FUNCTION usage_billing.fact_is_append_only() IS 'trigger: keeps facts from being changed or removed';


-- Functions that other functions call

COMMENT ON FUNCTION usage_billing.require_unscoped() IS 'refuses a request that is scoped to an organisation; for verify';
COMMENT ON FUNCTION usage_billing.delivery_measures(usage_billing.usage_type, text, jsonb) IS 'the measurements that a delivery usage carries in its metadata; for verify and rebuild';
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


-- Derived from the facts

COMMENT ON TABLE usage_billing.usage_delta IS
'Changes that statements appended and that aren''t folded yet
Derived from the facts and never dumped. Rows vanish when they are folded into credit_balance and usage_hourly.';
COMMENT ON COLUMN usage_billing.usage_delta.billing_id IS 'the account that changes';
COMMENT ON COLUMN usage_billing.usage_delta.hour IS 'start of the hour (UTC) that changes; -infinity: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.source IS 'source of the usages; empty: only the balance changes';
COMMENT ON COLUMN usage_billing.usage_delta.type IS 'type of the usages; null: only the balance changes';
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
