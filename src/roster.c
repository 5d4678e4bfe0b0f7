/*
 * roster.c
 *		Which databases have a worker, in shared memory.
 *
 * There is a post for each background worker that the server can have. A post
 * is numbered anew each time it is opened, so that a process that starts late
 * can't take one that was given to another database meanwhile.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "roster.h"

#define ROSTER_NAME "usage_billing"

/* Databases that sessions tell the launcher about and it hasn't read yet. */
#define ROSTER_HINTS 32

/* A transaction that posts this many deltas wakes the worker. */
#define ROSTER_MANY_DELTAS 10000

typedef struct Roster
{
	LWLock *lock; /* guards all that follows */
	Latch *launcher;
	bool crowded;
	bool hints_overflowed;
	int nhints;
	Oid hints[ROSTER_HINTS];
	int nposts;
	UbPost posts[FLEXIBLE_ARRAY_MEMBER];
} Roster;

static Roster *roster = NULL;
static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

/* This worker's post. */
static int my_post = -1;

/* What this session does when its transaction commits. */
static bool callback_registered = false;
static bool hint_wanted = false;
static int64 deltas_posted = 0;

static Size
roster_bytes(void)
{
	return offsetof(Roster, posts) +
		mul_size(max_worker_processes, sizeof(UbPost));
}

static void
roster_request(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(roster_bytes());
	RequestNamedLWLockTranche(ROSTER_NAME, 1);
}

static void
roster_startup(void)
{
	bool found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	roster = ShmemInitStruct(ROSTER_NAME, roster_bytes(), &found);
	if (!found)
	{
		memset(roster, 0, roster_bytes());
		roster->lock = &GetNamedLWLockTranche(ROSTER_NAME)->lock;
		roster->nposts = max_worker_processes;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Asks for the shared memory. Called while the library is preloaded. */
void
ub_roster_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = roster_request;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = roster_startup;
}

/* Tells the launcher, if the lock is held, that there is something to see. */
static void
roster_wake_launcher(void)
{
	if (roster->launcher != NULL)
		SetLatch(roster->launcher);
}

static void
roster_add_hint(void)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	if (roster->nhints < ROSTER_HINTS)
		roster->hints[roster->nhints++] = MyDatabaseId;
	else
		roster->hints_overflowed = true;
	roster_wake_launcher();
	LWLockRelease(roster->lock);
}

static void
roster_wake_worker(void)
{
	LWLockAcquire(roster->lock, LW_SHARED);
	for (int i = 0; i < roster->nposts; i++)
	{
		UbPost *post = &roster->posts[i];

		if (post->database == MyDatabaseId && post->latch != NULL)
			SetLatch(post->latch);
	}
	LWLockRelease(roster->lock);
}

/* After the commit, when others see what the transaction did. */
static void
roster_at_transaction_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
	{
		if (hint_wanted)
			roster_add_hint();
		if (deltas_posted >= ROSTER_MANY_DELTAS)
			roster_wake_worker();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		hint_wanted = false;
		deltas_posted = 0;
	}
}

static void
roster_register_callback(void)
{
	if (callback_registered)
		return;
	RegisterXactCallback(roster_at_transaction_end, NULL);
	callback_registered = true;
}

/* This database will have the extension if the transaction commits. */
void
ub_roster_hint_at_commit(void)
{
	if (roster == NULL)
		return;
	roster_register_callback();
	hint_wanted = true;
}

/* The transaction appended deltas. */
void
ub_roster_posted(int deltas)
{
	if (roster == NULL)
		return;
	roster_register_callback();
	deltas_posted += deltas;
}

static void
roster_detach_launcher(int code, Datum arg)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	roster->launcher = NULL;
	LWLockRelease(roster->lock);
}

/* Makes this process the launcher that is woken. */
void
ub_roster_attach_launcher(void)
{
	before_shmem_exit(roster_detach_launcher, (Datum) 0);
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	roster->launcher = MyLatch;
	LWLockRelease(roster->lock);
}

int
ub_roster_size(void)
{
	return roster->nposts;
}

UbPost
ub_roster_look(int post)
{
	UbPost seen;

	LWLockAcquire(roster->lock, LW_SHARED);
	seen = roster->posts[post];
	LWLockRelease(roster->lock);
	return seen;
}

/* Opens a post for a database; -1 if there is none left. */
int
ub_roster_open(Oid database)
{
	int found = -1;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	for (int i = 0; i < roster->nposts && found < 0; i++)
	{
		UbPost *post = &roster->posts[i];

		if (post->state != UB_POST_CLOSED)
			continue;
		found = i;
		post->database = database;
		post->state = UB_POST_OPEN;
		post->end = UB_END_DIED;
		post->number++;
		post->changed_at = GetCurrentTimestamp();
	}
	LWLockRelease(roster->lock);
	return found;
}

/* Closes a post that nobody took, or whose worker has ended. */
void
ub_roster_close(int post)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	roster->posts[post].state = UB_POST_CLOSED;
	roster->posts[post].database = InvalidOid;
	LWLockRelease(roster->lock);
}

/* Tells the post's worker, if it runs, to end. */
void
ub_roster_stop(int post)
{
	LWLockAcquire(roster->lock, LW_SHARED);
	if (roster->posts[post].pid != 0)
		kill(roster->posts[post].pid, SIGTERM);
	LWLockRelease(roster->lock);
}

void
ub_roster_set_crowded(bool crowded)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	roster->crowded = crowded;
	LWLockRelease(roster->lock);
}

/*
 * Returns the databases (Oid) that sessions told about, and forgets them;
 * *overflowed is set if there were others.
 */
List *
ub_roster_take_hints(bool *overflowed)
{
	Oid hints[ROSTER_HINTS];
	int nhints;
	List *databases = NIL;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	nhints = roster->nhints;
	memcpy(hints, roster->hints, nhints * sizeof(Oid));
	*overflowed = roster->hints_overflowed;
	roster->nhints = 0;
	roster->hints_overflowed = false;
	LWLockRelease(roster->lock);

	for (int i = 0; i < nhints; i++)
		databases = list_append_unique_oid(databases, hints[i]);
	return databases;
}

static void
roster_leave(int code, Datum arg)
{
	UbPost *post = &roster->posts[my_post];

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	post->state = UB_POST_ENDED;
	post->pid = 0;
	post->latch = NULL;
	post->changed_at = GetCurrentTimestamp();
	roster_wake_launcher();
	LWLockRelease(roster->lock);
}

/*
 * Takes the post that was opened under that number and returns its database;
 * InvalidOid if the launcher has given up waiting.
 */
Oid
ub_roster_take(int post, uint32 number)
{
	UbPost *mine = &roster->posts[post];
	Oid database = InvalidOid;

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	if (mine->number == number && mine->state == UB_POST_OPEN)
	{
		database = mine->database;
		mine->state = UB_POST_TAKEN;
		mine->pid = MyProcPid;
		mine->latch = MyLatch;
		mine->changed_at = GetCurrentTimestamp();
	}
	LWLockRelease(roster->lock);
	if (OidIsValid(database))
	{
		my_post = post;
		before_shmem_exit(roster_leave, (Datum) 0);
	}
	return database;
}

/* This worker has found that it is needed. */
void
ub_roster_serve(void)
{
	UbPost *mine = &roster->posts[my_post];

	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	if (mine->state != UB_POST_SERVING)
	{
		mine->state = UB_POST_SERVING;
		mine->changed_at = GetCurrentTimestamp();
		roster_wake_launcher();
	}
	LWLockRelease(roster->lock);
}

/* Says why this worker is about to end. */
void
ub_roster_end(UbPostEnd end)
{
	LWLockAcquire(roster->lock, LW_EXCLUSIVE);
	roster->posts[my_post].end = end;
	LWLockRelease(roster->lock);
}

/* Whether there are more databases to serve than workers to be had. */
bool
ub_roster_crowded(void)
{
	bool crowded;

	LWLockAcquire(roster->lock, LW_SHARED);
	crowded = roster->crowded;
	LWLockRelease(roster->lock);
	return crowded;
}
