/*
 * launcher.c
 *		The process that finds databases and starts a worker for each.
 *
 * It is connected to no database and knows no table of ours. A worker is
 * started for every database that wasn't seen before, and tells by how it ends
 * whether the database has a use for one. What the launcher thinks of a
 * database:
 *
 *	unknown		never seen before: a worker shall look
 *	served		a worker runs, or has been asked for
 *	waiting		has the extension; a worker shall be started when it is time
 *	unwanted	has no use for a worker; looked at again after a hint (CREATE
 *				EXTENSION gives one) or a reload, and once in a while
 *
 * DROP DATABASE and CREATE DATABASE ... TEMPLATE lock the database and then want
 * everybody out. So the launcher tries the lock every second, sends the worker
 * away if it can't have it, and starts no worker as long as it is so. It does
 * that for the workers because they may be in the middle of something long.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "launcher.h"
#include "roster.h"
#include "settings.h"
#include "worker.h"

/* Times are in milliseconds. */
#define LAUNCHER_REST	 1000
#define LIST_INTERVAL	 5000
#define LOOK_INTERVAL	 60000 /* between two looks at unwanted databases */
#define AWAY_INTERVAL	 5000  /* for those who wanted everybody out */
#define RESTART_FIRST	 1000  /* after a worker died, doubled each time */
#define RESTART_LAST	 (10 * 60 * 1000)
#define SOUND_AFTER		 60000 /* a worker that lived so long has recovered */
#define START_PATIENCE	 5000  /* for a worker that was asked for */
#define REFUSED_PATIENCE 2000  /* until a lack of workers is no accident */
#define CROWDED_INTERVAL 60000 /* until it is tried again without turns */

/* Starting a process each time costs: so long for each database there is. */
#define TURN_INTERVAL 250

/* So many workers at a time may be on their way into their databases. */
#define MOST_STARTING 2

typedef enum DatabaseState
{
	DATABASE_UNKNOWN,
	DATABASE_SERVED,
	DATABASE_WAITING,
	DATABASE_UNWANTED
} DatabaseState;

typedef struct Database
{
	Oid oid;
	DatabaseState state;
	bool listed;
	bool locked;
	bool hinted;					/* after its worker was started */
	bool away;						/* its worker was sent away */
	int post;						/* if served */
	BackgroundWorkerHandle *handle; /* null: an earlier launcher's */
	int delay;
	TimestampTz next; /* not before; who has waited longest comes first */
} Database;

static List *databases;				/* Database * */
static MemoryContext round_context; /* emptied each round */
static TimestampTz listed_at;
static TimestampTz looked_at;
static TimestampTz refused_since; /* 0: the last worker was granted */
static TimestampTz crowded_until; /* 0: no turns are taken */
static TimestampTz told_at;

PGDLLEXPORT void ub_launcher_main(Datum arg);

/* Registers the launcher. Called while the library is preloaded. */
void
ub_launcher_init(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_name, "usage_billing launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "usage_billing launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "usage_billing", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "ub_launcher_main", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static bool
is_past(TimestampTz since, int milliseconds)
{
	return TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
									  milliseconds);
}

static TimestampTz
from_now(int milliseconds)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);
}

/* Finds a database, or adds it as unknown. */
static Database *
database_enter(Oid oid)
{
	MemoryContext old;
	Database *database;
	ListCell *cell;

	foreach (cell, databases)
	{
		database = lfirst(cell);
		if (database->oid == oid)
			return database;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	database = palloc0(sizeof(Database));
	database->oid = oid;
	database->post = -1;
	databases = lappend(databases, database);
	MemoryContextSwitchTo(old);
	return database;
}

/* Has those looked at again that had no use for a worker. */
static void
launcher_doubt_unwanted(void)
{
	ListCell *cell;

	foreach (cell, databases)
	{
		Database *database = lfirst(cell);

		if (database->state == DATABASE_UNWANTED)
			database->state = DATABASE_UNKNOWN;
	}
}

/* Draws the conclusions from how a worker ended, and closes its post. */
static void
database_unserved(Database *database, UbPostEnd end)
{
	ub_roster_close(database->post);
	database->post = -1;
	if (database->handle != NULL)
		pfree(database->handle);
	database->handle = NULL;

	if (database->away)
	{
		database->state = DATABASE_WAITING;
		database->next = from_now(AWAY_INTERVAL);
	}
	else if (end == UB_END_UNWANTED)
	{
		/* if it may have looked too early, the next one looks again */
		database->state = database->hinted ? DATABASE_UNKNOWN :
											 DATABASE_UNWANTED;
		database->next = GetCurrentTimestamp();
	}
	else if (end == UB_END_RELOAD)
	{
		database->state = DATABASE_WAITING;
		database->next = GetCurrentTimestamp();
	}
	else if (end == UB_END_TURN)
	{
		database->state = DATABASE_WAITING;
		database->delay = 0;
		database->next = from_now(Max(ub_fold_interval,
									  TURN_INTERVAL * list_length(databases)));
	}
	else
	{
		database->state = DATABASE_WAITING;
		database->delay = Min(Max(2 * database->delay, RESTART_FIRST),
							  RESTART_LAST);
		database->next = from_now(database->delay);
	}
	database->away = false;
}

/* Looks at the post of a database that is served. */
static void
database_check_post(Database *database)
{
	UbPost post = ub_roster_look(database->post);
	pid_t pid;

	switch (post.state)
	{
		case UB_POST_CLOSED:
			break;
		case UB_POST_OPEN:
			/* the process may have failed before it could say so */
			if (database->handle != NULL ?
					GetBackgroundWorkerPid(database->handle, &pid) ==
						BGWH_STOPPED :
					is_past(post.changed_at, START_PATIENCE))
			{
				/* unless it has taken the post and left it just now */
				post = ub_roster_look(database->post);
				database_unserved(database, post.end);
			}
			break;
		case UB_POST_TAKEN:
			break;
		case UB_POST_SERVING:
			if (is_past(post.changed_at, SOUND_AFTER))
				database->delay = 0;
			break;
		case UB_POST_ENDED:
			database_unserved(database, post.end);
			break;
	}
}

/* After a restart of the launcher: the workers are still there. */
static void
launcher_adopt(void)
{
	for (int i = 0; i < ub_roster_size(); i++)
	{
		UbPost post = ub_roster_look(i);
		Database *database;

		if (post.state == UB_POST_CLOSED)
			continue;
		database = database_enter(post.database);
		database->state = DATABASE_SERVED;
		database->post = i;
	}
}

/* Reads pg_database. Needs a transaction. */
static void
launcher_list(void)
{
	Relation rel = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	ListCell *cell;
	HeapTuple tuple;

	foreach (cell, databases)
		((Database *) lfirst(cell))->listed = false;

	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate &&
			!database_is_invalid_form(form))
			database_enter(form->oid)->listed = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	listed_at = GetCurrentTimestamp();

	foreach (cell, databases)
	{
		Database *database = lfirst(cell);

		if (database->listed || database->state == DATABASE_SERVED)
			continue;
		databases = foreach_delete_current(databases, cell);
		pfree(database);
	}
}

/* Whether somebody has locked the database to have it alone. */
static bool
database_is_locked(Oid oid)
{
	LOCKTAG tag;

	/* what a process takes when it connects */
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, oid, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) ==
		LOCKACQUIRE_NOT_AVAIL)
		return true;
	(void) LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

static bool
database_is_due(const Database *database)
{
	return database->listed && !database->locked &&
		(database->state == DATABASE_UNKNOWN ||
		 database->state == DATABASE_WAITING) &&
		database->next <= GetCurrentTimestamp();
}

/* Finds who is locked, and sends away workers that are in the way. */
static void
launcher_check_locks(void)
{
	ListCell *cell;

	foreach (cell, databases)
	{
		Database *database = lfirst(cell);

		database->locked = database_is_locked(database->oid);
		if (database->state != DATABASE_SERVED || database->away)
			continue;
		if (database->locked || !database->listed)
		{
			database->away = true;
			ub_roster_stop(database->post);
		}
	}
}

/* What there is to learn from the databases' posts and from hints. */
static void
launcher_collect(void)
{
	ListCell *cell;
	bool overflowed;
	List *hints;

	foreach (cell, databases)
	{
		Database *database = lfirst(cell);

		if (database->state == DATABASE_SERVED)
			database_check_post(database);
	}

	hints = ub_roster_take_hints(&overflowed);
	foreach (cell, hints)
	{
		Database *database = database_enter(lfirst_oid(cell));

		database->hinted = true;
		if (!database->listed)
			listed_at = 0;
		if (database->state == DATABASE_UNWANTED)
			database->state = DATABASE_UNKNOWN;
	}
	if (overflowed)
		launcher_doubt_unwanted();
}

/* Once in a while, has the unwanted database looked at that waited longest. */
static void
launcher_look_again(void)
{
	ListCell *cell;
	Database *longest = NULL;

	if (!is_past(looked_at, LOOK_INTERVAL))
		return;
	looked_at = GetCurrentTimestamp();
	foreach (cell, databases)
	{
		Database *database = lfirst(cell);

		if (database->state == DATABASE_UNWANTED &&
			(longest == NULL || database->next < longest->next))
			longest = database;
	}
	if (longest != NULL)
		longest->state = DATABASE_UNKNOWN;
}

/* The server has no worker to spare: databases take turns, if that lasts. */
static void
launcher_refused(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (refused_since == 0)
		refused_since = now;
	if (crowded_until == 0 && !is_past(refused_since, REFUSED_PATIENCE))
		return;
	if (told_at == 0 || is_past(told_at, 3 * CROWDED_INTERVAL))
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("usage_billing has no background worker for each database"),
				 errdetail("The databases take turns."),
				 errhint("Raise max_worker_processes.")));
	told_at = now;
	crowded_until = from_now(CROWDED_INTERVAL);
	ub_roster_set_crowded(true);
}

/* Returns false if there was no worker to be had. */
static bool
database_start(Database *database)
{
	int post = ub_roster_open(database->oid);
	MemoryContext old;
	bool started;

	if (post < 0)
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	started = ub_worker_start(post, ub_roster_look(post).number,
							  &database->handle);
	MemoryContextSwitchTo(old);
	if (!started)
	{
		ub_roster_close(post);
		return false;
	}
	database->post = post;
	database->state = DATABASE_SERVED;
	database->away = false;
	database->hinted = false;
	refused_since = 0;
	return true;
}

/* How many workers are on their way, those not counted that got stuck. */
static int
launcher_count_starting(void)
{
	int starting = 0;

	for (int i = 0; i < ub_roster_size(); i++)
	{
		UbPost post = ub_roster_look(i);

		if ((post.state == UB_POST_OPEN || post.state == UB_POST_TAKEN) &&
			!is_past(post.changed_at, START_PATIENCE))
			starting++;
	}
	return starting;
}

/* Starts workers where they are due, those first who have waited longest. */
static void
launcher_start_due(void)
{
	int starting = launcher_count_starting();

	while (starting++ < MOST_STARTING)
	{
		ListCell *cell;
		Database *longest = NULL;

		foreach (cell, databases)
		{
			Database *database = lfirst(cell);

			if (database_is_due(database) &&
				(longest == NULL || database->next < longest->next))
				longest = database;
		}
		if (longest == NULL)
			return;
		if (!database_start(longest))
		{
			launcher_refused();
			return;
		}
	}
}

static bool
launcher_has_due(void)
{
	ListCell *cell;

	foreach (cell, databases)
	{
		if (database_is_due(lfirst(cell)))
			return true;
	}
	return false;
}

static void
launcher_round(void)
{
	launcher_collect();
	launcher_look_again();
	if (crowded_until != 0 && crowded_until <= GetCurrentTimestamp())
	{
		crowded_until = 0;
		refused_since = 0;
		ub_roster_set_crowded(false);
	}

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	/* who is to get a worker should still be there */
	if (is_past(listed_at, LIST_INTERVAL) || launcher_has_due())
		launcher_list();
	launcher_check_locks();
	CommitTransactionCommand();

	MemoryContextSwitchTo(round_context);
	launcher_start_due();
}

/* What signals asked for. */
static void
launcher_process_signals(void)
{
	/* not 0, or it would never be started again */
	if (ProcDiePending)
		proc_exit(1);
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		/* who wanted no worker may want one now */
		launcher_doubt_unwanted();
	}
}

/* The entry point of the process. */
void
ub_launcher_main(Datum arg)
{
	uint32 wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	wait_event = ub_wait_event("UsageBillingLauncherMain");
	round_context = AllocSetContextCreate(TopMemoryContext, "usage_billing launcher",
										  ALLOCSET_DEFAULT_SIZES);
	looked_at = GetCurrentTimestamp();
	ub_roster_attach_launcher();
	ub_roster_set_crowded(false);
	launcher_adopt();

	for (;;)
	{
		ResetLatch(MyLatch);
		launcher_process_signals();
		MemoryContextReset(round_context);
		MemoryContextSwitchTo(round_context);
		launcher_round();
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LAUNCHER_REST, wait_event);
	}
}
