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
 * - Nothing raises it but reading the tables anew. So commit, abort,
 *	 savepoints, prepared transactions and grants need no bookkeeping for it: a
 *	 commit keeps what was taken, and what an abort gave back or a grant brought
 *	 is found by the next call for which the counter isn't enough, because it
 *	 reads the tables before it is refused (admission.c).
 *
 * Therefore a counter may also vanish at any time: the ones used longest ago
 * make room for others, and after a crash or on a promoted standby there are
 * none. The lock does not depend on the counter being there.
 *
 * Beside that a counter may know the balance exactly, only so that calls can
 * answer it without reading the tables: the balance without what is in flight,
 * and a list of posters, the transactions in flight with the sum of what they
 * posted. The end of a transaction moves its sum into the balance. Between the
 * moment when others see a commit and that end, a snapshot tells which posters
 * count, the same by which the tables would be read. Where it doesn't know all
 * that is in flight, or a transaction is prepared, calls read the tables.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "compat.h"
#include "escrow.h"
#include "settings.h"

#define ESCROW_NAME "usage_billing_escrow"

/* Locks; each covers many accounts. */
#define ESCROW_LOCKS 256

/* An account's counter is in one of this many places. */
#define ESCROW_WAYS 8

/* With more transactions in flight a counter doesn't know the balance. */
#define ESCROW_POSTERS 32

/* The call that appends so many-th delta folds the account. */
#define ESCROW_MANY_DELTAS 250

/* Every so-many-th call that misses the balance reads the tables for it. */
#define ESCROW_ASK_AGAIN 16

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

typedef struct EscrowPoster
{
	TransactionId xid;
	int rows;					/* of usage_delta */
	struct EscrowPosting *last; /* in the memory of the transaction's process */
	int128 credits;
} EscrowPoster;

typedef struct EscrowCounter
{
	bool used;
	bool exact;	  /* balance and posters are right */
	int inexact;  /* calls that found it not so */
	int appended; /* deltas of calls since one of them folded */
	int nposters;
	uint64 number; /* another one for each account that was here */
	uint64 hash;
	uint64 used_at; /* of the set's clock */
	int128 funds;
	int128 balance;
	EscrowPoster posters[ESCROW_POSTERS];
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

/* What this transaction told a counter. */
typedef struct EscrowPosting
{
	EscrowCounter *counter;
	uint64 number;
	LWLock *lock;
	TransactionId xid;
	SubTransactionId subxact;
	int rows;
	struct EscrowPosting *before; /* the poster's last one before */
	int128 credits;
} EscrowPosting;

/*
 * In the transaction's memory. Those of a subtransaction follow the ones of its
 * parent.
 */
static List *postings = NIL;
static bool callbacks_registered = false;

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
escrow_find(UbSlice billing_id)
{
	uint64 hash = escrow_hash(billing_id);
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
escrow_make(UbSlice billing_id)
{
	uint64 hash = escrow_hash(billing_id);
	EscrowSet *set = escrow_set_of(hash);
	EscrowCounter *counter = &set->counters[0];

	for (int i = 1; i < ESCROW_WAYS && counter->used; i++)
	{
		EscrowCounter *other = &set->counters[i];

		if (!other->used || other->used_at < counter->used_at)
			counter = other;
	}
	counter->used = true;
	counter->exact = false;
	counter->inexact = 0;
	counter->appended = 0;
	counter->nposters = 0;
	counter->number++;
	counter->hash = hash;
	counter->used_at = ++set->clock;
	counter->key.database = MyDatabaseId;
	counter->key.deltas = ub_catalog()->usage_delta;
	counter->key.len = billing_id.len;
	memcpy(counter->key.billing_id, billing_id.data, billing_id.len);
	return counter;
}

/* The transaction in the list of posters, null if it isn't there. */
static EscrowPoster *
escrow_poster(EscrowCounter *counter, TransactionId xid)
{
	for (int i = 0; i < counter->nposters; i++)
	{
		if (counter->posters[i].xid == xid)
			return &counter->posters[i];
	}
	return NULL;
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

/*
 * Takes the amount if the counter says that at least "least" is left. If not,
 * the tables have to be read; now and then also where that would tell the
 * counter the balance.
 */
bool
ub_escrow_take(UbSlice billing_id, int128 amount, int64 least)
{
	EscrowCounter *counter = escrow_find(billing_id);

	if (counter == NULL || counter->funds - amount < least)
		return false;
	if (!counter->exact && ++counter->inexact % ESCROW_ASK_AGAIN == 0)
		return false;
	counter->funds -= amount;
	return true;
}

/*
 * What a snapshot sees of the posters' credits: those of this transaction and
 * of the ones that have committed by it and were not moved yet.
 */
static int128
escrow_seen(const EscrowCounter *counter, Snapshot snapshot)
{
	TransactionId own = GetTopTransactionIdIfAny();
	int128 seen = 0;

	for (int i = 0; i < counter->nposters; i++)
	{
		const EscrowPoster *poster = &counter->posters[i];

		if (poster->xid == own ||
			(!XidInMVCCSnapshot(poster->xid, snapshot) &&
			 TransactionIdDidCommit(poster->xid)))
			seen += poster->credits;
	}
	return seen;
}

/*
 * Gets the balance as of now, with what this transaction posted before. False
 * if the counter doesn't know it.
 */
bool
ub_escrow_balance(UbSlice billing_id, int128 *balance)
{
	EscrowCounter *counter = escrow_find(billing_id);
	Snapshot snapshot;

	if (counter == NULL || !counter->exact)
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	*balance = counter->balance + escrow_seen(counter, snapshot);
	UnregisterSnapshot(snapshot);
	return true;
}

/*
 * Whether the counter knows all that a transaction has in the tables. It isn't
 * enough that the sum is the same: one that is 0 may change with a savepoint.
 */
static bool
escrow_knows(const EscrowPoster *poster, int rows, int128 credits)
{
	if (poster == NULL)
		return rows == 0;
	return poster->rows == rows && poster->credits == credits;
}

/* Whether the counter knows all that is in flight, and the tables the same. */
static bool
escrow_knows_all(EscrowCounter *counter, const UbEscrowState *state)
{
	TransactionId own = GetTopTransactionIdIfAny();
	EscrowPoster *poster = escrow_poster(counter, own);
	int running = poster != NULL ? 1 : 0;
	ListCell *cell;

	if (!escrow_knows(poster, state->own_rows, state->own))
		return false;
	foreach (cell, state->in_flight)
	{
		const UbInFlight *other = lfirst(cell);

		/* what has ended meanwhile is in the balance, wholly */
		if (other->rows == 0 ||
			!XidInMVCCSnapshot(other->xid, state->snapshot))
			continue;
		poster = escrow_poster(counter, other->xid);
		if (!escrow_knows(poster, other->rows, other->credits))
			return false;
		running++;
	}
	for (int i = 0; i < counter->nposters; i++)
	{
		poster = &counter->posters[i];
		if (poster->xid != own &&
			(poster->rows == 0 ||
			 !XidInMVCCSnapshot(poster->xid, state->snapshot)))
			running++;
	}
	return running == counter->nposters;
}

/* Sets the counter to what the tables hold, and makes one if there is none. */
void
ub_escrow_set(UbSlice billing_id, const UbEscrowState *state)
{
	EscrowCounter *counter = escrow_find(billing_id);

	if (counter == NULL)
		counter = escrow_make(billing_id);
	counter->funds = state->funds;
	if (escrow_knows_all(counter, state))
	{
		counter->balance = state->balance -
			escrow_seen(counter, state->snapshot);
		counter->exact = true;
	}
}

void
ub_escrow_drop(UbSlice billing_id)
{
	EscrowCounter *counter = escrow_find(billing_id);

	if (counter != NULL)
	{
		counter->used = false;
		counter->number++;
	}
}

/* The transaction in the counter to which a posting went; null if it is gone. */
static EscrowPoster *
posting_poster(const EscrowPosting *posting)
{
	if (posting->counter->number != posting->number)
		return NULL;
	return escrow_poster(posting->counter, posting->xid);
}

/* Takes a posting back from the counter. */
static void
posting_undo(const EscrowPosting *posting)
{
	EscrowCounter *counter = posting->counter;
	EscrowPoster *poster;

	LWLockAcquire(posting->lock, LW_EXCLUSIVE);
	poster = posting_poster(posting);
	if (poster != NULL)
	{
		poster->rows -= posting->rows;
		poster->credits -= posting->credits;
		poster->last = posting->before;
		if (poster->last == NULL)
			*poster = counter->posters[--counter->nposters];
	}
	LWLockRelease(posting->lock);
}

/* Takes back what a subtransaction posted, or gives it to its parent. */
static void
escrow_at_subtransaction_end(SubXactEvent event, SubTransactionId subxact,
							 SubTransactionId parent, void *arg)
{
	int before = list_length(postings);

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (; before > 0; before--)
	{
		EscrowPosting *posting = list_nth(postings, before - 1);

		if (posting->subxact != subxact)
			break;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			posting->subxact = parent;
		else
		{
			posting_undo(posting);
			pfree(posting);
		}
	}
	if (event == SUBXACT_EVENT_ABORT_SUB)
		postings = list_truncate(postings, before);
}

/*
 * Moves what the transaction posted into the balances, or forgets it. Who ends
 * one that is prepared doesn't know of it here.
 */
static void
escrow_at_transaction_end(XactEvent event, void *arg)
{
	ListCell *cell;

	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	foreach (cell, postings)
	{
		EscrowPosting *posting = lfirst(cell);
		EscrowCounter *counter = posting->counter;
		EscrowPoster *poster;

		LWLockAcquire(posting->lock, LW_EXCLUSIVE);
		poster = posting_poster(posting);
		if (poster != NULL)
		{
			if (event == XACT_EVENT_COMMIT)
				counter->balance += poster->credits;
			else if (event == XACT_EVENT_PREPARE)
				counter->exact = false;
			*poster = counter->posters[--counter->nposters];
		}
		LWLockRelease(posting->lock);
	}
	/* the memory goes with the transaction */
	postings = NIL;
}

/* Remembers what was told to a counter, to the end of the transaction. */
static EscrowPosting *
posting_remember(EscrowCounter *counter, TransactionId xid, int128 credits,
				 int rows)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	EscrowPosting *posting = palloc(sizeof(EscrowPosting));

	if (!callbacks_registered)
	{
		RegisterXactCallback(escrow_at_transaction_end, NULL);
		RegisterSubXactCallback(escrow_at_subtransaction_end, NULL);
		callbacks_registered = true;
	}
	posting->counter = counter;
	posting->number = counter->number;
	posting->lock = escrow_lock_of(counter->hash);
	posting->xid = xid;
	posting->subxact = GetCurrentSubTransactionId();
	posting->rows = rows;
	posting->before = NULL;
	posting->credits = credits;
	postings = lappend(postings, posting);
	MemoryContextSwitchTo(old);
	return posting;
}

/* Tells a counter what this transaction posted. */
static void
escrow_post(EscrowCounter *counter, int128 credits, int rows)
{
	TransactionId xid = GetTopTransactionId();
	EscrowPoster *poster = escrow_poster(counter, xid);
	EscrowPosting *posting;

	if (rows == 0)
		return;
	if (poster == NULL && counter->nposters == ESCROW_POSTERS)
	{
		counter->exact = false;
		return;
	}
	if (poster != NULL && poster->last->subxact == GetCurrentSubTransactionId())
	{
		/* a load tells the same counters many times */
		poster->last->rows += rows;
		poster->last->credits += credits;
		poster->rows += rows;
		poster->credits += credits;
		return;
	}
	/* what allocates memory comes first: it can fail */
	posting = posting_remember(counter, xid, credits, rows);
	if (poster == NULL)
	{
		poster = &counter->posters[counter->nposters++];
		poster->xid = xid;
		poster->rows = 0;
		poster->last = NULL;
		poster->credits = 0;
	}
	posting->before = poster->last;
	poster->last = posting;
	poster->rows += rows;
	poster->credits += credits;
}

/*
 * Tells the counter of what a call posted, and in how many rows that move
 * credits, under the lock under which it was appended. Returns whether it is
 * time to fold the account.
 */
bool
ub_escrow_posted(UbSlice billing_id, int128 credits, int rows)
{
	EscrowCounter *counter = escrow_find(billing_id);

	if (counter == NULL)
		return false;
	escrow_post(counter, credits, rows);
	if (++counter->appended < ESCROW_MANY_DELTAS)
		return false;
	counter->appended = 0;
	return true;
}

/*
 * Tells the counter, if there is one, of a fact that needed no admission: what
 * it takes from the account, how it changes the balance, and by how many rows of
 * usage_delta. They have been appended.
 */
void
ub_escrow_fact(UbSlice billing_id, int128 taken, int128 credits, int rows)
{
	EscrowCounter *counter;

	if (escrow == NULL)
		return;
	ub_escrow_lock(billing_id);
	counter = escrow_find(billing_id);
	if (counter != NULL)
	{
		counter->funds -= taken;
		escrow_post(counter, credits, rows);
	}
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

			if (!counter->used || counter->key.database != MyDatabaseId)
				continue;
			counter->used = false;
			counter->number++;
		}
		LWLockRelease(lock);
	}
}
