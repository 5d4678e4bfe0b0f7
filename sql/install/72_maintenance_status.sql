-- What the maintenance did last, and what waits for it.

CREATE TABLE usage_billing.maintenance_duty (
	duty			text COLLATE "C" NOT NULL,
	last_start		timestamptz,
	duration		interval,
	rows_done		bigint,
	last_error		text,
	last_error_at	timestamptz,
	done_until		timestamptz,
	CONSTRAINT maintenance_duty_pkey PRIMARY KEY (duty)
) WITH (fillfactor = 10);

INSERT INTO usage_billing.maintenance_duty (duty) VALUES
	('fold'), ('pack_hours'), ('storage_recount'), ('storage_refresh'), ('vacuum_deltas');

CREATE VIEW usage_billing.maintenance_status AS
SELECT m.duty, m.last_start, m.duration, m.rows_done,
	CASE m.duty
		WHEN 'fold' THEN (SELECT count(*) FROM usage_billing.usage_delta)
		WHEN 'pack_hours' THEN
			(date_trunc('day', now() - interval '2 hours', 'UTC') AT TIME ZONE 'UTC')::date
			- (m.done_until AT TIME ZONE 'UTC')::date
		WHEN 'storage_recount' THEN
			(SELECT count(*)
			 FROM usage_billing.storage_source s
			 LEFT JOIN usage_billing.storage_counted c USING (source_id)
			 WHERE c.counted_at IS NULL OR c.counted_at < now()
				- coalesce(current_setting('usage_billing.storage_recount_interval', true), '1 day')::interval)
		WHEN 'storage_refresh' THEN (SELECT count(DISTINCT d.org_id) FROM usage_billing.storage_delta d)
		WHEN 'vacuum_deltas' THEN
			pg_stat_get_dead_tuples('usage_billing.usage_delta'::regclass)
			+ pg_stat_get_dead_tuples('usage_billing.storage_delta'::regclass)
	END AS backlog,
	m.last_error, m.last_error_at
FROM usage_billing.maintenance_duty m;

-- What happened in this database since the counts began. The number of pending
-- deltas is the statistics collector's, which costs nothing.
CREATE FUNCTION usage_billing.read_stats(
	OUT usages_created bigint, OUT duplicates bigint, OUT reverts bigint, OUT grants bigint,
	OUT usages_pruned bigint, OUT folds bigint, OUT deltas_folded bigint, OUT refreshes bigint,
	OUT conflicts bigint, OUT refused bigint, OUT admissions bigint, OUT admissions_waited bigint,
	OUT admissions_read bigint, OUT maintenance_errors bigint, OUT stats_reset timestamptz)
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'ub_read_stats';

CREATE VIEW usage_billing.usage_billing_stats AS
SELECT s.usages_created, s.duplicates, s.conflicts, s.refused, s.reverts, s.grants, s.usages_pruned,
	s.admissions, s.admissions_waited, s.admissions_read, s.folds, s.deltas_folded,
	pg_stat_get_live_tuples('usage_billing.usage_delta'::regclass) AS deltas_pending,
	s.refreshes, s.maintenance_errors, s.stats_reset
FROM usage_billing.read_stats() AS s;

CREATE FUNCTION usage_billing.reset_usage_billing_stats() RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'ub_reset_stats';

-- The only things that are granted to anybody: who may watch the server may watch
-- these. The views give no access to the tables that they count.
GRANT USAGE ON SCHEMA usage_billing TO pg_monitor;
GRANT SELECT ON usage_billing.maintenance_status, usage_billing.usage_billing_stats TO pg_monitor;
GRANT EXECUTE ON FUNCTION usage_billing.read_stats() TO pg_monitor;

-- Tells the launcher, when this transaction commits, to start a worker for this
-- database.
CREATE FUNCTION usage_billing.request_worker() RETURNS void
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'ub_request_worker';

SELECT usage_billing.request_worker();

COMMENT ON TABLE usage_billing.maintenance_duty IS
'What the maintenance did last
Never dumped. Read maintenance_status instead.';
COMMENT ON COLUMN usage_billing.maintenance_duty.duty IS 'name of the duty';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_start IS 'when the last pass began that did something or failed; null: there was none';
COMMENT ON COLUMN usage_billing.maintenance_duty.duration IS 'how long that pass took';
COMMENT ON COLUMN usage_billing.maintenance_duty.rows_done IS 'what that pass did: see maintenance_status';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_error IS 'what failed last, and with which error';
COMMENT ON COLUMN usage_billing.maintenance_duty.last_error_at IS 'when it failed';
COMMENT ON COLUMN usage_billing.maintenance_duty.done_until IS 'pack_hours: the days before this time are done';

COMMENT ON VIEW usage_billing.maintenance_status IS
'What the maintenance did last, for each duty, and what waits for it
fold: deltas folded, deltas pending. pack_hours: hourly rows moved, whole days not packed yet (null: never done). storage_recount: tables counted, tables due.
storage_refresh: organisations refreshed, organisations changed. vacuum_deltas: dead rows removed, dead rows left.
Readable by pg_monitor.';
COMMENT ON COLUMN usage_billing.maintenance_status.duty IS 'name of the duty';
COMMENT ON COLUMN usage_billing.maintenance_status.last_start IS 'when the last pass began that did something or failed; null: there was none';
COMMENT ON COLUMN usage_billing.maintenance_status.duration IS 'how long that pass took';
COMMENT ON COLUMN usage_billing.maintenance_status.rows_done IS 'what that pass did, in the duty''s unit';
COMMENT ON COLUMN usage_billing.maintenance_status.backlog IS 'what waits, in the duty''s unit';
COMMENT ON COLUMN usage_billing.maintenance_status.last_error IS 'what failed last, and with which error; it stays when the duty succeeds again';
COMMENT ON COLUMN usage_billing.maintenance_status.last_error_at IS 'when it failed; an error older than last_start of a later pass is over';
COMMENT ON FUNCTION usage_billing.request_worker() IS 'asks for a background worker for this database when the transaction commits; for the install script';

COMMENT ON VIEW usage_billing.usage_billing_stats IS
'What happened in this database since the server started, or since the last reset
One row. Counted in shared memory, so only where the library is preloaded; without that all but deltas_pending is null. Not kept beyond a restart or a crash.
usages_created to usages_pruned (but for conflicts and refused), folds, deltas_folded and refreshes count when their transaction commits; the others as they happen.
Readable by pg_monitor.';
COMMENT ON COLUMN usage_billing.usage_billing_stats.usages_created IS 'usages stored, by create_usage, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.duplicates IS 'usages, grants, reverts and archived sums that arrived and were there already';
COMMENT ON COLUMN usage_billing.usage_billing_stats.conflicts IS 'calls and loads that failed with 23505: an id with another payload, or a second revert';
COMMENT ON COLUMN usage_billing.usage_billing_stats.refused IS 'calls of create_usage that failed with UB001: not enough credits';
COMMENT ON COLUMN usage_billing.usage_billing_stats.reverts IS 'reverts stored, by revert_usage, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.grants IS 'grants stored, by grant_credits, COPY or INSERT';
COMMENT ON COLUMN usage_billing.usage_billing_stats.usages_pruned IS 'usages that prune_usage moved';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions IS 'calls of create_usage that asked for credits, admitted or refused';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions_waited IS 'of these: had to wait for their account''s turn, which happens with usage_billing.escrow off only';
COMMENT ON COLUMN usage_billing.usage_billing_stats.admissions_read IS 'of these: read the tables, because the account''s counter was missing, not enough or due for a look';
COMMENT ON COLUMN usage_billing.usage_billing_stats.folds IS 'times that an account''s deltas were folded';
COMMENT ON COLUMN usage_billing.usage_billing_stats.deltas_folded IS 'deltas that were folded';
COMMENT ON COLUMN usage_billing.usage_billing_stats.deltas_pending IS 'deltas that wait to be folded, as the server''s statistics estimate it; maintenance_status counts them';
COMMENT ON COLUMN usage_billing.usage_billing_stats.refreshes IS 'refreshes of an organisation''s storage usage';
COMMENT ON COLUMN usage_billing.usage_billing_stats.maintenance_errors IS 'failures of maintenance duties, by workers and run_maintenance';
COMMENT ON COLUMN usage_billing.usage_billing_stats.stats_reset IS 'since when all this counts';
COMMENT ON FUNCTION usage_billing.read_stats() IS 'the counts of this database; for the view usage_billing_stats';
COMMENT ON FUNCTION usage_billing.reset_usage_billing_stats() IS
'Begins the counts of usage_billing_stats anew, for this database
Does nothing where the library is not preloaded, since nothing is counted there.
Errors: 42501 under an organisation''s token.';
