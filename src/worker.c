/*
 * worker.c
 *		The process that maintains one database.
 *
 * It goes round its duties and does one step of each that is due, so that a
 * long one doesn't keep the others waiting. Each step is a transaction of its
 * own; between steps it holds no lock and no snapshot. It works as the
 * extension's owner. It ends by itself where nobody wants it: without the
 * extension, where the setting is off, and on a logical subscriber, which gets
 * what the publisher's worker does.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/vacuum.h"
#include "miscadmin.h"
#include "parser/parse_node.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "maintenance.h"
#include "roster.h"
#include "settings.h"
#include "worker.h"

/* Dead rows that are worth a VACUUM of a table of deltas. */
#define VACUUM_DEAD_ROWS 20000

/*
 * As many that a VACUUM leaves are kept by an old snapshot. Fewer may be what the
 * fold before it deleted beside statements that were still under way.
 */
#define VACUUM_KEPT_ROWS (2 * VACUUM_DEAD_ROWS)

/* Milliseconds between two looks whether the duty has something to do. */
#define VACUUM_INTERVAL		 5000
#define VACUUM_LONG_INTERVAL 60000
#define PACK_INTERVAL		 60000
#define RECOUNT_INTERVAL	 60000

/* Milliseconds of rest at most, and where something is locked or set back. */
#define WORKER_REST		  60000
#define WORKER_SHORT_REST 1000

/* How long a turn lasts at most where databases take turns. */
#define WORKER_TURN 10000

/* What became of a step. */
typedef enum StepEnd
{
	STEP_DONE,
	STEP_FAILED,
	STEP_BARRED,  /* somebody changes or drops the extension */
	STEP_UNWANTED /* the database has no use for a worker */
} StepEnd;

/* A duty's passes. */
typedef struct Shift
{
	UbPass pass;
	MemoryContext context;
	TimestampTz next;
} Shift;

static Shift shifts[UB_DUTIES];
static UbSetbacks setbacks;

/* Errors that the last worker has told about. */
static char *known_errors[UB_DUTIES];

/* Emptied after each step. */
static MemoryContext step_context;

/* How long the last VACUUM was of no use. */
static int vacuum_interval = VACUUM_INTERVAL;

static const char *const vacuum_tables[] = {"usage_delta", "storage_delta"};

PGDLLEXPORT void ub_worker_main(Datum arg);

/*
 * Asks the server for a worker that takes the post. False if it has none to
 * spare.
 */
bool
ub_worker_start(int post, uint32 number, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = Int32GetDatum(post);
	memcpy(worker.bgw_extra, &number, sizeof(number));
	strlcpy(worker.bgw_name, "usage_billing worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "usage_billing worker", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "usage_billing", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ub_worker_main", BGW_MAXLEN);
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/*
 * What a database or a role may have set for its clients is not meant for a
 * worker.
 */
static void
worker_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "usage_billing worker"},
		{"default_transaction_deferrable", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"idle_in_transaction_session_timeout", "0"},
		/* whoever keeps an account or an organisation locked holds up that only */
		{"lock_timeout", "1s"},
		{"role", "none"},
		{"row_security", "on"},
		{"search_path", "pg_catalog, pg_temp"},
		{"session_replication_role", "origin"},
		{"statement_timeout", "0"},
		/* what a crash takes away is done again */
		{"synchronous_commit", "off"},
		{"transaction_timeout", "0"}};

	for (int i = 0; i < (int) lengthof(settings); i++)
	{
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/* Finds the extension and its owner. Needs a transaction. */
static Oid
worker_find_extension(Oid *owner)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid extension = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("usage_billing"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_extension form = (Form_pg_extension) GETSTRUCT(tuple);

		extension = form->oid;
		*owner = form->extowner;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return extension;
}

/* Whether a subscription replicates the table of pending deltas into here. */
static bool
worker_is_subscriber(void)
{
	Oid schema = get_namespace_oid("usage_billing", true);
	Oid relation = get_relname_relid("usage_delta", schema);
	CatCList *list;
	bool found;

	list = SearchSysCacheList1(SUBSCRIPTIONRELMAP, ObjectIdGetDatum(relation));
	found = list->n_members > 0;
	ReleaseSysCacheList(list);
	return found;
}

/*
 * Decides whether a step may be done, and as whom. The extension stays locked
 * to the end of the transaction, so that it can't go meanwhile.
 */
static StepEnd
worker_gate(Oid *owner)
{
	LOCKTAG tag;
	Oid extension = worker_find_extension(owner);

	if (!OidIsValid(extension) || !ub_maintenance_worker)
		return STEP_UNWANTED;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) ==
		LOCKACQUIRE_NOT_AVAIL)
		return STEP_BARRED;
	AcceptInvalidationMessages();
	if (worker_find_extension(owner) != extension || worker_is_subscriber())
		return STEP_UNWANTED;
	return STEP_DONE;
}

/*
 * Does work in a transaction of its own, as the extension's owner. *error is
 * what undid it, in step_context. Nothing of it stays but what work put into
 * contexts that it knows.
 */
static StepEnd
worker_transaction(void (*work)(UbPass *pass), UbPass *pass,
				   ErrorData **error)
{
	volatile StepEnd end = STEP_DONE;
	Oid user;
	int security;
	Oid owner = InvalidOid;

	GetUserIdAndSecContext(&user, &security);
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		MemoryContextSwitchTo(step_context);
		end = worker_gate(&owner);
		if (end == STEP_DONE && work != NULL)
		{
			SetUserIdAndSecContext(owner,
								   security | SECURITY_LOCAL_USERID_CHANGE);
			PushActiveSnapshot(GetTransactionSnapshot());
			work(pass);
			PopActiveSnapshot();
		}
		/* deferred triggers run here, as the owner too */
		CommitTransactionCommand();
		SetUserIdAndSecContext(user, security);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(step_context);
		*error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		end = STEP_FAILED;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(step_context);
	return end;
}

/* The dead rows of a table of deltas; 0 if there is no such table. */
static int64
vacuum_dead_rows(const char *table)
{
	Oid schema = get_namespace_oid("usage_billing", true);
	Oid relation = get_relname_relid(table, schema);

	if (!OidIsValid(relation))
		return 0;
	return DatumGetInt64(DirectFunctionCall1(pg_stat_get_dead_tuples,
											 ObjectIdGetDatum(relation)));
}

/* Chooses the table, as pass->unit, that needs a VACUUM most; null: none does. */
static void
vacuum_choose(UbPass *pass)
{
	int64 most = VACUUM_DEAD_ROWS - 1;

	pass->unit = NULL;
	for (int i = 0; i < (int) lengthof(vacuum_tables); i++)
	{
		int64 dead = vacuum_dead_rows(vacuum_tables[i]);

		if (dead <= most)
			continue;
		most = dead;
		pass->unit = unconstify(char *, vacuum_tables[i]);
	}
	pass->done = pass->unit == NULL;
	if (!pass->done)
		pass->rows = most;
}

/* Sees what the VACUUM of pass->unit left, because an old snapshot needs it. */
static void
vacuum_judge(UbPass *pass)
{
	int64 left = vacuum_dead_rows(pass->unit);

	vacuum_interval = VACUUM_INTERVAL;
	if (left >= VACUUM_KEPT_ROWS)
		vacuum_interval = VACUUM_LONG_INTERVAL;
	pass->rows -= Min(pass->rows, (uint64) left);
	pass->done = true;
}

/*
 * Runs VACUUM on pass->unit: here, because autovacuum wakes up once a minute,
 * and the table would grow by a minute's deltas. The end of the table is left
 * to autovacuum: cutting it off needs a lock that keeps everybody out. VACUUM
 * takes the rights of the table's owner by itself.
 */
static StepEnd
vacuum_run(UbPass *pass, ErrorData **error)
{
	volatile StepEnd end = STEP_DONE;
	char *command = psprintf("VACUUM (" UB_VACUUM_OPTIONS ", TRUNCATE off) usage_billing.%s",
							 pass->unit);

	PortalContext = step_context;
	PG_TRY();
	{
		RawStmt *raw = linitial_node(RawStmt,
									 raw_parser(command, RAW_PARSE_DEFAULT));

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		ExecVacuum(make_parsestate(NULL), (VacuumStmt *) raw->stmt, true);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(step_context);
		*error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		end = STEP_FAILED;
	}
	PG_END_TRY();
	PortalContext = NULL;
	MemoryContextSwitchTo(step_context);
	return end;
}

static StepEnd
vacuum_step(UbPass *pass, ErrorData **error)
{
	StepEnd end = worker_transaction(vacuum_choose, pass, error);

	if (end != STEP_DONE || pass->done)
		return end;
	pgstat_report_activity(STATE_RUNNING, "VACUUM of deltas");
	end = vacuum_run(pass, error);
	if (end != STEP_DONE)
	{
		pass->rows = 0;
		pass->unit = NULL;
		return end;
	}
	return worker_transaction(vacuum_judge, pass, error);
}

static void
worker_record(UbPass *pass)
{
	ub_maintenance_record(pass);
}

/* Milliseconds from the beginning of a pass to that of the next. */
static int64
shift_interval(UbDuty duty)
{
	switch (duty)
	{
		case UB_DUTY_FOLD:
			return ub_fold_interval;
		case UB_DUTY_PACK_HOURS:
			return PACK_INTERVAL;
		case UB_DUTY_STORAGE_RECOUNT:
			return Min((int64) ub_storage_recount_interval * 1000,
					   RECOUNT_INTERVAL);
		case UB_DUTY_STORAGE_REFRESH:
			return (int64) ub_storage_refresh_interval * 1000;
		case UB_DUTY_VACUUM_DELTAS:
			return vacuum_interval;
	}
	return 0;
}

static TimestampTz
shift_next(UbDuty duty, TimestampTz last_start)
{
	return TimestampTzPlusMilliseconds(last_start, shift_interval(duty));
}

/*
 * Does one step of a duty, beginning a pass if none is under way, and writes
 * down how a pass ended.
 */
static StepEnd
shift_step(UbDuty duty)
{
	Shift *shift = &shifts[duty];
	UbPass *pass = &shift->pass;
	ErrorData *error = NULL;
	StepEnd end;

	if (!pass->active)
	{
		ub_pass_begin(pass, duty, &setbacks, shift->context);
		shift->next = shift_next(duty, pass->started);
	}
	pgstat_report_activity(STATE_RUNNING, ub_duty_name(duty));
	if (duty == UB_DUTY_VACUUM_DELTAS)
		end = vacuum_step(pass, &error);
	else
		end = worker_transaction(ub_pass_step, pass, &error);
	if (end == STEP_DONE)
		ub_pass_succeeded(pass);
	else if (end == STEP_FAILED)
		ub_pass_failed(pass, error);
	else
		return end;

	if (!pass->active || (end == STEP_FAILED && pass->error != NULL))
	{
		ErrorData *record_error = NULL;
		StepEnd recorded = STEP_DONE;

		if (pass->rows > 0 || pass->error != NULL)
			recorded = worker_transaction(worker_record, pass, &record_error);
		/* an error that the end of the extension explains is none */
		if (recorded == STEP_UNWANTED || recorded == STEP_BARRED)
			return recorded;
		if (end == STEP_FAILED && pass->report &&
			(known_errors[duty] == NULL ||
			 strcmp(known_errors[duty], pass->error) != 0))
			ub_maintenance_report(LOG, pass, error);
		if (recorded == STEP_FAILED)
			ereport(LOG,
					(errcode(record_error->sqlerrcode),
					 errmsg("the status of a maintenance duty could not be written"),
					 errdetail("%s", record_error->message)));
	}
	return STEP_DONE;
}

/* Goes on where the last worker of this database stopped. */
static void
worker_begin(UbPass *pass)
{
	UbDutyRecord records[UB_DUTIES];

	ub_maintenance_read(records);
	for (int duty = 0; duty < UB_DUTIES; duty++)
	{
		/* folding anew costs nothing */
		if (records[duty].last_start != 0 && duty != UB_DUTY_FOLD)
			shifts[duty].next = shift_next(duty, records[duty].last_start);
		if (records[duty].last_error != NULL)
			known_errors[duty] = MemoryContextStrdup(TopMemoryContext,
													 records[duty].last_error);
	}
}

/* Ends this process quietly: it holds nothing. */
static void
worker_end(UbPostEnd why)
{
	ub_roster_end(why);
	proc_exit(0);
}

/* What signals asked for; called between two steps. */
static void
worker_process_signals(void)
{
	if (ProcDiePending)
		worker_end(UB_END_DIED);
	/* there is nothing to cancel */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	/* what ALTER DATABASE has set, only a new process sees */
	if (ConfigReloadPending)
		worker_end(UB_END_RELOAD);
}

/*
 * Does a step of each duty that is due or under way. *busy is set if one isn't
 * through. Returns how the last one ended.
 */
static StepEnd
worker_round(bool *busy)
{
	*busy = false;
	for (int duty = 0; duty < UB_DUTIES; duty++)
	{
		TimestampTz now = GetCurrentTimestamp();
		StepEnd end;

		worker_process_signals();
		if (!shifts[duty].pass.active &&
			(now < shifts[duty].next ||
			 !ub_setbacks_due(&setbacks, duty, NULL, now)))
			continue;
		MemoryContextReset(step_context);
		end = shift_step(duty);
		if (end != STEP_DONE)
			return end;
		if (shifts[duty].pass.active)
			*busy = true;
	}
	return STEP_DONE;
}

/* Rests until the next duty is due, or somebody has work. */
static void
worker_rest(bool barred, uint32 wait_event)
{
	TimestampTz now = GetCurrentTimestamp();
	long rest = WORKER_REST;

	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	for (int duty = 0; duty < UB_DUTIES; duty++)
	{
		long until = WORKER_SHORT_REST;

		if (!barred && ub_setbacks_due(&setbacks, duty, NULL, now))
			until = TimestampDifferenceMilliseconds(now, shifts[duty].next);
		rest = Min(rest, until);
	}
	if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  rest, wait_event) &
		WL_LATCH_SET)
		shifts[UB_DUTY_FOLD].next = 0;
}

static void
worker_loop(void)
{
	uint32 wait_event = ub_wait_event("UsageBillingWorkerMain");
	TimestampTz turn_ends = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														WORKER_TURN);

	for (;;)
	{
		bool busy;
		StepEnd end;

		ResetLatch(MyLatch);
		end = worker_round(&busy);
		if (end == STEP_UNWANTED)
			worker_end(UB_END_UNWANTED);
		if (ub_roster_crowded() &&
			(!busy || turn_ends <= GetCurrentTimestamp()))
			worker_end(UB_END_TURN);
		if (busy && end == STEP_DONE)
			pgstat_report_stat(false);
		else
			worker_rest(end == STEP_BARRED, wait_event);
	}
}

static MemoryContext
worker_context(void)
{
	return AllocSetContextCreate(TopMemoryContext, "usage_billing worker",
								 ALLOCSET_DEFAULT_SIZES);
}

/* The entry point of the process. */
void
ub_worker_main(Datum arg)
{
	uint32 number;
	Oid database;
	ErrorData *error = NULL;
	StepEnd end;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	memcpy(&number, MyBgworkerEntry->bgw_extra, sizeof(number));
	database = ub_roster_take(DatumGetInt32(arg), number);
	if (!OidIsValid(database))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	worker_settings();

	setbacks.context = worker_context();
	step_context = worker_context();
	for (int duty = 0; duty < UB_DUTIES; duty++)
		shifts[duty].context = worker_context();

	while ((end = worker_transaction(worker_begin, NULL, &error)) ==
		   STEP_BARRED)
	{
		worker_rest(true, ub_wait_event("UsageBillingWorkerMain"));
		ResetLatch(MyLatch);
		worker_process_signals();
	}
	if (end == STEP_FAILED)
		ThrowErrorData(error);
	if (end == STEP_UNWANTED)
		worker_end(UB_END_UNWANTED);
	ub_roster_serve();
	worker_loop();
}
