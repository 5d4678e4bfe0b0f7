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

-- The only thing that is granted to anybody: who may watch the server may watch
-- the maintenance. The view gives no access to the tables that it counts.
GRANT USAGE ON SCHEMA usage_billing TO pg_monitor;
GRANT SELECT ON usage_billing.maintenance_status TO pg_monitor;

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
