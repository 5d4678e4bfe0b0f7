/*
 * escrow.c
 *		Counters in shared memory of what accounts may still spend.
 *
 * A counter says what an account has at least: its committed balance, less
 * all that is being taken from it by transactions that have not ended. It is
 * never more than that, and everything here follows from keeping it so:
 *
 * - A call takes its amount from the counter and appends its delta while it
 *	 holds the account's lock, so whoever reads the tables under that lock finds
 *	 every admitted call in usage_delta, committed or in flight.
 * - Other facts that take credits (a COPY) append their deltas first and then
 *	 lower the counter. A counter that is made in between found the delta.
 * - Nothing raises a counter but reading the tables anew. So commit, abort,
 *	 savepoints, prepared transactions and grants need no bookkeeping here: a
 *	 commit keeps what was taken, and what an abort gave back or a grant brought
 *	 is found by the next call for which the counter isn't enough, because it
 *	 reads the tables before it is refused (admission.c).
 *
 * Therefore a counter may also vanish at any time: the ones used longest ago
 * make room for others, and after a crash or on a promoted standby there are
 * none. The lock does not depend on the counter being there.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "catalog.h"
#include "compat.h"
#include "escrow.h"
#include "settings.h"

#define ESCROW_NAME "usage_billing_escrow"

/* Locks; each covers many accounts. */
#define ESCROW_LOCKS 256

/* An account's counter is in one of this many places. */
#define ESCROW_WAYS 8

/*
 * The table of deltas is part of the key: accounts of an extension that was
 * dropped and created again are others.
 */
typedef struct EscrowKey
{
	Oid database;
	Oid deltas;
	int len;
	char billing_id[UB_ID_BYTES];
} EscrowKey;

typedef struct EscrowCounter
{
	bool used;
	uint64 hash;
	uint64 used_at; /* of the set's clock */
	int128 funds;
	EscrowKey key;
} EscrowCounter;

typedef struct EscrowSet
{
	uint64 clock;
	EscrowCounter counters[ESCROW_WAYS];
} EscrowSet;

typedef struct Escrow
{
	LWLockPadded *locks;
	int nsets;
	EscrowSet sets[FLEXIBLE_ARRAY_MEMBER];
} Escrow;

static Escrow *escrow = NULL;
static shmem_request_hook_type next_request_hook = NULL;
static shmem_startup_hook_type next_startup_hook = NULL;

static int
escrow_sets(void)
{
	return (ub_escrow_accounts + ESCROW_WAYS - 1) / ESCROW_WAYS;
}

static Size
escrow_bytes(void)
{
	return add_size(offsetof(Escrow, sets),
					mul_size(escrow_sets(), sizeof(EscrowSet)));
}

static void
escrow_request(void)
{
	if (next_request_hook)
		next_request_hook();
	RequestAddinShmemSpace(escrow_bytes());
	RequestNamedLWLockTranche(ESCROW_NAME, ESCROW_LOCKS);
}

static void
escrow_startup(void)
{
	bool found;

	if (next_startup_hook)
		next_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	escrow = ShmemInitStruct(ESCROW_NAME, escrow_bytes(), &found);
	if (!found)
	{
		memset(escrow, 0, escrow_bytes());
		escrow->locks = GetNamedLWLockTranche(ESCROW_NAME);
		escrow->nsets = escrow_sets();
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Asks for the shared memory. Called while the library is preloaded. */
void
ub_escrow_init(void)
{
	next_request_hook = shmem_request_hook;
	shmem_request_hook = escrow_request;
	next_startup_hook = shmem_startup_hook;
	shmem_startup_hook = escrow_startup;
}

/* Whether there are counters: the library was preloaded. */
bool
ub_escrow_is_there(void)
{
	return escrow != NULL;
}

static uint64
escrow_hash(UbSlice billing_id)
{
	return hash_bytes_extended((const unsigned char *) billing_id.data,
							   billing_id.len, MyDatabaseId);
}

/* All counters of a set are under one lock. */
static EscrowSet *
escrow_set_of(uint64 hash)
{
	return &escrow->sets[hash % escrow->nsets];
}

static LWLock *
escrow_lock_of(uint64 hash)
{
	return &escrow->locks[hash % escrow->nsets % ESCROW_LOCKS].lock;
}

static bool
escrow_is_of(const EscrowCounter *counter, uint64 hash, UbSlice billing_id)
{
	return counter->used && counter->hash == hash &&
		counter->key.database == MyDatabaseId &&
		counter->key.deltas == ub_catalog()->usage_delta &&
		counter->key.len == billing_id.len &&
		memcmp(counter->key.billing_id, billing_id.data, billing_id.len) == 0;
}

/* The account's counter, null if it has none. Its lock is held. */
static EscrowCounter *
escrow_find(uint64 hash, UbSlice billing_id)
{
	EscrowSet *set = escrow_set_of(hash);

	for (int i = 0; i < ESCROW_WAYS; i++)
	{
		EscrowCounter *counter = &set->counters[i];

		if (escrow_is_of(counter, hash, billing_id))
		{
			counter->used_at = ++set->clock;
			return counter;
		}
	}
	return NULL;
}

/* Makes a counter where there is none, or the one used longest ago was. */
static EscrowCounter *
escrow_make(uint64 hash, UbSlice billing_id)
{
	EscrowSet *set = escrow_set_of(hash);
	EscrowCounter *counter = &set->counters[0];

	for (int i = 1; i < ESCROW_WAYS && counter->used; i++)
	{
		EscrowCounter *other = &set->counters[i];

		if (!other->used || other->used_at < counter->used_at)
			counter = other;
	}
	counter->used = true;
	counter->hash = hash;
	counter->used_at = ++set->clock;
	counter->key.database = MyDatabaseId;
	counter->key.deltas = ub_catalog()->usage_delta;
	counter->key.len = billing_id.len;
	memcpy(counter->key.billing_id, billing_id.data, billing_id.len);
	return counter;
}

/*
 * Locks the account. The caller then waits for nothing but I/O: it has every
 * heavyweight lock that it needs. An error releases the lock.
 */
void
ub_escrow_lock(UbSlice billing_id)
{
	/* so that nothing is looked up while the lock is held */
	(void) ub_catalog();
	LWLockAcquire(escrow_lock_of(escrow_hash(billing_id)), LW_EXCLUSIVE);
}

void
ub_escrow_unlock(UbSlice billing_id)
{
	LWLockRelease(escrow_lock_of(escrow_hash(billing_id)));
}

/* Takes the amount if the counter says that at least "least" is left. */
bool
ub_escrow_take(UbSlice billing_id, int128 amount, int64 least)
{
	EscrowCounter *counter = escrow_find(escrow_hash(billing_id), billing_id);

	if (counter == NULL || counter->funds - amount < least)
		return false;
	counter->funds -= amount;
	return true;
}

/* Sets the counter to what the tables hold. */
void
ub_escrow_set(UbSlice billing_id, int128 funds)
{
	uint64 hash = escrow_hash(billing_id);
	EscrowCounter *counter = escrow_find(hash, billing_id);

	if (counter == NULL)
		counter = escrow_make(hash, billing_id);
	counter->funds = funds;
}

void
ub_escrow_drop(UbSlice billing_id)
{
	EscrowCounter *counter = escrow_find(escrow_hash(billing_id), billing_id);

	if (counter != NULL)
		counter->used = false;
}

/*
 * Lowers the counter, if there is one, by what a fact takes from the account
 * without being admitted. Its delta has been appended.
 */
void
ub_escrow_spent(UbSlice billing_id, int128 amount)
{
	EscrowCounter *counter;

	if (escrow == NULL)
		return;
	ub_escrow_lock(billing_id);
	counter = escrow_find(escrow_hash(billing_id), billing_id);
	if (counter != NULL)
		counter->funds -= amount;
	ub_escrow_unlock(billing_id);
}

/* Drops the counters of this database. */
void
ub_escrow_forget_all(void)
{
	if (escrow == NULL)
		return;
	for (int i = 0; i < escrow->nsets; i++)
	{
		LWLock *lock = &escrow->locks[i % ESCROW_LOCKS].lock;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		for (int way = 0; way < ESCROW_WAYS; way++)
		{
			EscrowCounter *counter = &escrow->sets[i].counters[way];

			if (counter->key.database == MyDatabaseId)
				counter->used = false;
		}
		LWLockRelease(lock);
	}
}
