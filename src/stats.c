/*
 * stats.c
 *		Counts of what happened in each database, in shared memory.
 *
 * A session counts for itself while its transaction runs, and adds that to what
 * all have counted when it ends: one atomic addition for each count that
 * changed, and no lock. What a transaction or savepoint undid never happened
 * and isn't counted; what was refused or failed is counted all the same.
 *
 * Counts begin with the server and are not kept beyond it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "stats.h"

#define STATS_NAME "usage_billing_stats"

/* How many databases are counted; one more takes the place of a dropped one. */
#define STATS_DATABASES 256

/* One database, or a free place. */
typedef struct StatsPlace
{
	Oid database;
	pg_atomic_uint64 reset_at; /* a TimestampTz */
	pg_atomic_uint64 counts[UB_STATS];
} StatsPlace;

typedef struct Stats
{
	LWLock *lock; /* for taking a place */
	TimestampTz started;
	StatsPlace places[STATS_DATABASES];
} Stats;

/* What a subtransaction counted; its parent's is behind it. */
typedef struct StatsLevel
{
	int nesting;
	struct StatsLevel *parent;
	uint64 counts[UB_STATS_AT_COMMIT];
} StatsLevel;

static Stats *stats = NULL;
static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

static StatsPlace *my_place = NULL;
static bool callbacks_registered = false;

/* What this transaction counted, and its subtransactions, innermost first. */
static uint64 counted[UB_STATS];
static bool any_counted = false;
static StatsLevel *levels = NULL; /* in the transaction's memory */

static void
stats_request(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(sizeof(Stats));
	RequestNamedLWLockTranche(STATS_NAME, 1);
}

static void
stats_startup(void)
{
	bool found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	stats = ShmemInitStruct(STATS_NAME, sizeof(Stats), &found);
	if (!found)
	{
		memset(stats, 0, sizeof(Stats));
		stats->lock = &GetNamedLWLockTranche(STATS_NAME)->lock;
		stats->started = GetCurrentTimestamp();
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Asks for the shared memory. Called while the library is preloaded. */
void
ub_stats_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = stats_request;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = stats_startup;
}

/* A database's place, null if it has none; invalid: a free one. */
static StatsPlace *
stats_find(Oid database)
{
	for (int i = 0; i < STATS_DATABASES; i++)
	{
		if (stats->places[i].database == database)
			return &stats->places[i];
	}
	return NULL;
}

/*
 * A database that has a place and isn't there any more, invalid if there is
 * none. Nobody can be connected to it.
 */
static Oid
stats_dropped_database(void)
{
	for (int i = 0; i < STATS_DATABASES; i++)
	{
		Oid database = stats->places[i].database;

		if (OidIsValid(database) && get_database_name(database) == NULL)
			return database;
	}
	return InvalidOid;
}

/*
 * Takes a place for this database. Where there are more databases than places,
 * the last ones aren't counted.
 */
static void
stats_take_place(void)
{
	Oid dropped = InvalidOid;

	LWLockAcquire(stats->lock, LW_SHARED);
	my_place = stats_find(MyDatabaseId);
	LWLockRelease(stats->lock);
	if (my_place != NULL)
		return;

	if (stats_find(InvalidOid) == NULL && IsTransactionState())
		dropped = stats_dropped_database();
	LWLockAcquire(stats->lock, LW_EXCLUSIVE);
	my_place = stats_find(MyDatabaseId);
	if (my_place == NULL)
	{
		my_place = stats_find(dropped);
		if (my_place != NULL)
		{
			pg_atomic_init_u64(&my_place->reset_at, (uint64) stats->started);
			for (int i = 0; i < UB_STATS; i++)
				pg_atomic_init_u64(&my_place->counts[i], 0);
			my_place->database = MyDatabaseId;
		}
	}
	LWLockRelease(stats->lock);
}

/* Adds what was counted from "from" on to what all have counted. */
static void
stats_flush(int from)
{
	for (int i = from; i < UB_STATS && my_place != NULL; i++)
	{
		if (counted[i] > 0)
			pg_atomic_fetch_add_u64(&my_place->counts[i], counted[i]);
	}
	memset(counted, 0, sizeof(counted));
	any_counted = false;
}

/* One that is prepared counts then: who commits it doesn't know of it. */
static void
stats_at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	/* the memory goes with the transaction */
	levels = NULL;
	if (any_counted)
		stats_flush(event == XACT_EVENT_ABORT ? UB_STATS_AT_COMMIT : 0);
}

/* Gives what a subtransaction counted to its parent, or forgets it. */
static void
stats_at_subtransaction_end(SubXactEvent event, SubTransactionId subxact,
							SubTransactionId parent, void *arg)
{
	StatsLevel *level = levels;
	int nesting = GetCurrentTransactionNestLevel();

	if ((event != SUBXACT_EVENT_COMMIT_SUB &&
		 event != SUBXACT_EVENT_ABORT_SUB) ||
		level == NULL || level->nesting < nesting)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB && nesting > 2 &&
		(level->parent == NULL || level->parent->nesting < nesting - 1))
	{
		level->nesting--;
		return;
	}
	levels = level->parent;
	for (int i = 0;
		 event == SUBXACT_EVENT_COMMIT_SUB && i < UB_STATS_AT_COMMIT; i++)
	{
		uint64 *sums = nesting > 2 ? levels->counts : counted;

		sums[i] += level->counts[i];
	}
	pfree(level);
}

/* What the current subtransaction counts. */
static uint64 *
stats_level_counts(int nesting)
{
	if (levels == NULL || levels->nesting < nesting)
	{
		StatsLevel *level = MemoryContextAllocZero(TopTransactionContext,
												   sizeof(StatsLevel));

		level->nesting = nesting;
		level->parent = levels;
		levels = level;
	}
	return levels->counts;
}

/* Counts that something happened n times. */
void
ub_stats_add(UbStat stat, uint64 n)
{
	int nesting = GetCurrentTransactionNestLevel();

	if (stats == NULL || n == 0)
		return;
	if (!callbacks_registered)
	{
		RegisterXactCallback(stats_at_transaction_end, NULL);
		RegisterSubXactCallback(stats_at_subtransaction_end, NULL);
		callbacks_registered = true;
	}
	if (my_place == NULL)
		stats_take_place();
	any_counted = true;
	if (stat < UB_STATS_AT_COMMIT && nesting > 1)
		stats_level_counts(nesting)[stat] += n;
	else
		counted[stat] += n;
	/* between transactions there is no end to wait for */
	if (nesting == 0)
		stats_flush(0);
}

/*
 * Reads the database's counts, and since when they count. False if nothing is
 * counted.
 */
bool
ub_stats_read(uint64 counts[UB_STATS], TimestampTz *reset_at)
{
	StatsPlace *place;

	if (stats == NULL)
		return false;
	LWLockAcquire(stats->lock, LW_SHARED);
	place = stats_find(MyDatabaseId);
	*reset_at = stats->started;
	memset(counts, 0, UB_STATS * sizeof(uint64));
	if (place != NULL)
	{
		*reset_at = (TimestampTz) pg_atomic_read_u64(&place->reset_at);
		for (int i = 0; i < UB_STATS; i++)
			counts[i] = pg_atomic_read_u64(&place->counts[i]);
	}
	LWLockRelease(stats->lock);
	return true;
}

/* Begins to count anew for this database. */
void
ub_stats_reset(void)
{
	if (stats == NULL)
		return;
	stats_take_place();
	if (my_place == NULL)
		return;
	for (int i = 0; i < UB_STATS; i++)
		pg_atomic_write_u64(&my_place->counts[i], 0);
	pg_atomic_write_u64(&my_place->reset_at, (uint64) GetCurrentTimestamp());
}
