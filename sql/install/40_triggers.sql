-- The triggers that keep every promise for every way in. Row triggers check
-- and complete a fact and skip the ones that are there already; statement
-- triggers post what was stored; the others keep facts from changing.

CREATE FUNCTION usage_billing.account_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_insert';
CREATE FUNCTION usage_billing.account_before_update() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_update';
CREATE FUNCTION usage_billing.account_before_delete() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_before_delete';
CREATE FUNCTION usage_billing.account_after_delete() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_account_after_delete';
CREATE FUNCTION usage_billing.project_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_project_before_insert';
CREATE FUNCTION usage_billing.usage_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_usage_before_insert';
CREATE FUNCTION usage_billing.usage_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_usage_after_insert';
CREATE FUNCTION usage_billing.grant_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_grant_before_insert';
CREATE FUNCTION usage_billing.grant_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_grant_after_insert';
CREATE FUNCTION usage_billing.revert_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_revert_before_insert';
CREATE FUNCTION usage_billing.revert_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_revert_after_insert';
CREATE FUNCTION usage_billing.archive_before_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_archive_before_insert';
CREATE FUNCTION usage_billing.archive_after_insert() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_archive_after_insert';
CREATE FUNCTION usage_billing.fact_is_append_only() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'ub_fact_is_append_only';

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.billing_account
	FOR EACH ROW EXECUTE FUNCTION usage_billing.account_before_insert();
CREATE TRIGGER before_update BEFORE UPDATE ON usage_billing.billing_account
	FOR EACH ROW EXECUTE FUNCTION usage_billing.account_before_update();
CREATE TRIGGER before_delete BEFORE DELETE OR TRUNCATE ON usage_billing.billing_account
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.account_before_delete();
CREATE TRIGGER after_delete AFTER DELETE ON usage_billing.billing_account
	REFERENCING OLD TABLE AS removed
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.account_after_delete();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.project
	FOR EACH ROW EXECUTE FUNCTION usage_billing.project_before_insert();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage
	FOR EACH ROW EXECUTE FUNCTION usage_billing.usage_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.usage_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.credit_grant
	FOR EACH ROW EXECUTE FUNCTION usage_billing.grant_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.credit_grant
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.grant_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.credit_grant
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage_revert
	FOR EACH ROW EXECUTE FUNCTION usage_billing.revert_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage_revert
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.revert_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage_revert
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();

CREATE TRIGGER before_insert BEFORE INSERT ON usage_billing.usage_archive
	FOR EACH ROW EXECUTE FUNCTION usage_billing.archive_before_insert();
CREATE TRIGGER after_insert AFTER INSERT ON usage_billing.usage_archive
	REFERENCING NEW TABLE AS stored
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.archive_after_insert();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage_billing.usage_archive
	FOR EACH STATEMENT EXECUTE FUNCTION usage_billing.fact_is_append_only();
