/*
 * duty.c
 *		The duties that keep derived state small and fresh.
 *
 * A duty is a pass of steps. Whoever runs a pass gives each step a transaction
 * or subtransaction and tells the pass how it ended. What fails is set back:
 * tried again later and later, while the rest of the duty goes on.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "duty.h"
#include "pack.h"
#include "settings.h"
#include "stats.h"
#include "storage.h"

/* How many deltas one step of folding moves. */
#define FOLD_BATCH 20000

/* How many accounts are folded one by one where a batch failed. */
#define FOLD_SINGLY 20000

/* A pass in which more units fail is given up: it isn't the units. */
#define PASS_FAILURES 10

/* What failed waits this long, in milliseconds, twice as long each time. */
#define SETBACK_FIRST 1000
#define SETBACK_LAST  (5 * 60 * 1000)

/* A unit that didn't come up again for so long, in milliseconds, is forgotten. */
#define SETBACK_STALE (60 * 60 * 1000)

/* Somebody's lock is no failure as long as it doesn't last. */
#define SETBACK_QUIET_LOCKS 3

typedef struct Setback
{
	UbDuty duty;
	char *unit;
	char *error; /* as it was logged; null: not yet */
	int delay;	 /* milliseconds */
	int times;
	TimestampTz next;
} Setback;

static const struct
{
	const char *name;
	const char *unit;
} duties[UB_DUTIES] = {
	[UB_DUTY_FOLD] = {"fold", "account"},
	[UB_DUTY_PACK_HOURS] = {"pack_hours", "accounts from"},
	[UB_DUTY_STORAGE_RECOUNT] = {"storage_recount", "table"},
	[UB_DUTY_STORAGE_REFRESH] = {"storage_refresh", "organisation"},
	[UB_DUTY_VACUUM_DELTAS] = {"vacuum_deltas", "table"}};

const char *
ub_duty_name(UbDuty duty)
{
	return duties[duty].name;
}

static bool
units_equal(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static Setback *
setback_find(UbSetbacks *setbacks, UbDuty duty, const char *unit)
{
	ListCell *cell;

	foreach (cell, setbacks->list)
	{
		Setback *setback = lfirst(cell);

		if (setback->duty == duty && units_equal(setback->unit, unit))
			return setback;
	}
	return NULL;
}

static void
setback_free(Setback *setback)
{
	if (setback->unit != NULL)
		pfree(setback->unit);
	if (setback->error != NULL)
		pfree(setback->error);
	pfree(setback);
}

static void
setback_forget(UbSetbacks *setbacks, UbDuty duty, const char *unit)
{
	Setback *setback = setback_find(setbacks, duty, unit);

	if (setback == NULL)
		return;
	setbacks->list = list_delete_ptr(setbacks->list, setback);
	setback_free(setback);
}

static void
setbacks_forget_stale(UbSetbacks *setbacks)
{
	TimestampTz since = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													-SETBACK_STALE);
	ListCell *cell;

	foreach (cell, setbacks->list)
	{
		Setback *setback = lfirst(cell);

		if (setback->next >= since)
			continue;
		setbacks->list = foreach_delete_current(setbacks->list, cell);
		setback_free(setback);
	}
}

/* Sets a unit back and returns whether the error is news. */
static bool
setback_add(UbSetbacks *setbacks, UbDuty duty, const char *unit,
			const char *error, bool is_lock)
{
	MemoryContext old = MemoryContextSwitchTo(setbacks->context);
	Setback *setback = setback_find(setbacks, duty, unit);
	bool news;

	if (setback == NULL)
	{
		setback = palloc0(sizeof(Setback));
		setback->duty = duty;
		setback->unit = unit ? pstrdup(unit) : NULL;
		setbacks->list = lappend(setbacks->list, setback);
	}
	setback->times++;
	setback->delay = Min(Max(2 * setback->delay, SETBACK_FIRST), SETBACK_LAST);
	setback->next = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												setback->delay);
	news = (setback->error == NULL || strcmp(setback->error, error) != 0) &&
		!(is_lock && setback->times <= SETBACK_QUIET_LOCKS);
	if (news)
	{
		if (setback->error != NULL)
			pfree(setback->error);
		setback->error = pstrdup(error);
	}
	MemoryContextSwitchTo(old);
	return news;
}

/* Whether a unit, or the duty as a whole, may be tried now. */
bool
ub_setbacks_due(UbSetbacks *setbacks, UbDuty duty, const char *unit,
				TimestampTz now)
{
	Setback *setback = setback_find(setbacks, duty, unit);

	return setback == NULL || setback->next <= now;
}

/*
 * Begins a pass. The context is the pass's own: it is emptied here.
 */
void
ub_pass_begin(UbPass *pass, UbDuty duty, UbSetbacks *setbacks,
			  MemoryContext context)
{
	MemoryContextReset(context);
	memset(pass, 0, sizeof(UbPass));
	pass->duty = duty;
	pass->setbacks = setbacks;
	pass->context = context;
	pass->active = true;
	pass->started = GetCurrentTimestamp();
	setbacks_forget_stale(setbacks);
}

/* The accounts (char *) that failed to be folded, or of them those now due. */
static List *
fold_set_back(UbPass *pass, bool only_due)
{
	TimestampTz now = GetCurrentTimestamp();
	List *accounts = NIL;
	ListCell *cell;

	foreach (cell, pass->setbacks->list)
	{
		const Setback *setback = lfirst(cell);

		if (setback->duty == UB_DUTY_FOLD && setback->unit != NULL &&
			(!only_due || setback->next <= now))
			accounts = lappend(accounts, pstrdup(setback->unit));
	}
	return accounts;
}

/* Takes the next of the units that were listed; null if there is none. */
static char *
pass_next_unit(UbPass *pass)
{
	if (pass->units == NIL)
		return NULL;
	pass->unit = linitial(pass->units);
	pass->units = list_delete_first(pass->units);
	return pass->unit;
}

static text *
pass_copy_text(UbPass *pass, const text *value)
{
	text *copy = MemoryContextAlloc(pass->context, VARSIZE_ANY(value));

	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/* Folds the next account alone, so that a bad one is found. */
static void
fold_step_singly(UbPass *pass)
{
	text *account = ub_deltas_next_account(pass->after);

	if (account == NULL)
	{
		pass->done = true;
		return;
	}
	if (pass->after != NULL)
		pfree(pass->after);
	pass->after = pass_copy_text(pass, account);
	if (--pass->singly == 0)
	{
		pass->cursor.billing_id = pass_copy_text(pass, account);
		pass->cursor.within = false;
	}
	if (setback_find(pass->setbacks, UB_DUTY_FOLD, text_to_cstring(account)))
		return;
	pass->unit = MemoryContextStrdup(pass->context, text_to_cstring(account));
	pass->rows += ub_deltas_fold_one(account);
}

static void
fold_step(UbPass *pass)
{
	UbFoldCursor cursor = pass->cursor;

	if (!pass->begun)
	{
		MemoryContext old = MemoryContextSwitchTo(pass->context);

		pass->units = fold_set_back(pass, true);
		MemoryContextSwitchTo(old);
		pass->begun = true;
	}
	if (pass_next_unit(pass) != NULL)
	{
		pass->rows += ub_deltas_fold_one(cstring_to_text(pass->unit));
		return;
	}
	if (pass->singly > 0)
	{
		fold_step_singly(pass);
		return;
	}
	cursor.skip = fold_set_back(pass, false);
	pass->rows += ub_deltas_fold(&cursor, FOLD_BATCH);
	pass->done = cursor.done;
	if (!cursor.done)
	{
		text *before = pass->cursor.billing_id;

		/* may be the very one, if the batch ended within its account */
		cursor.billing_id = pass_copy_text(pass, cursor.billing_id);
		cursor.skip = NIL;
		pass->cursor = cursor;
		if (before != NULL)
			pfree(before);
	}
}

/* After a batch that failed: goes over its accounts one by one. */
static void
fold_go_singly(UbPass *pass)
{
	MemoryContext old = MemoryContextSwitchTo(pass->context);

	pass->singly = FOLD_SINGLY;
	if (pass->cursor.billing_id != NULL)
	{
		pass->units = list_make1(text_to_cstring(pass->cursor.billing_id));
		pass->after = pass_copy_text(pass, pass->cursor.billing_id);
	}
	MemoryContextSwitchTo(old);
}

/* Goes on with the units that were listed and are due. */
static bool
pass_next_due_unit(UbPass *pass)
{
	TimestampTz now = GetCurrentTimestamp();

	while (pass_next_unit(pass) != NULL)
	{
		if (ub_setbacks_due(pass->setbacks, pass->duty, pass->unit, now))
			return true;
		if (pass->relations != NIL)
			pass->relations = list_delete_first(pass->relations);
	}
	pass->unit = NULL;
	pass->done = true;
	return false;
}

static void
refresh_step(UbPass *pass)
{
	if (!pass->begun)
	{
		MemoryContext old = MemoryContextSwitchTo(pass->context);

		pass->units = ub_storage_changed_orgs();
		MemoryContextSwitchTo(old);
		pass->begun = true;
		pass->done = pass->units == NIL;
		return;
	}
	if (!pass_next_due_unit(pass))
		return;
	ub_storage_refresh_org(pass->unit);
	pass->rows++;
}

static void
recount_step(UbPass *pass)
{
	Oid relation;

	if (!pass->begun)
	{
		TimestampTz before = GetCurrentTimestamp() -
			(int64) ub_storage_recount_interval * USECS_PER_SEC;
		MemoryContext old = MemoryContextSwitchTo(pass->context);
		ListCell *cell;

		pass->relations = ub_storage_sources_due(before);
		foreach (cell, pass->relations)
		{
			Datum relid = ObjectIdGetDatum(lfirst_oid(cell));
			Datum name = DirectFunctionCall1(regclassout, relid);

			pass->units = lappend(pass->units, DatumGetCString(name));
		}
		MemoryContextSwitchTo(old);
		pass->begun = true;
		pass->done = pass->units == NIL;
		return;
	}
	if (!pass_next_due_unit(pass))
		return;
	relation = linitial_oid(pass->relations);
	pass->relations = list_delete_first(pass->relations);
	ub_storage_recount_source(relation);
	pass->rows++;
}

static void
pack_step(UbPass *pass)
{
	UbPackGroup group;

	if (!pass->begun)
	{
		pass->done = !ub_pack_period(&pass->from, &pass->until);
		pass->begun = true;
		return;
	}
	if (!ub_pack_look(pass->after, pass->from, pass->until, &group))
	{
		ub_pack_done(pass->until);
		pass->done = true;
		return;
	}
	/* should these fail, the pass has gone on */
	if (pass->after != NULL)
		pfree(pass->after);
	pass->after = pass_copy_text(pass, group.last);
	if (group.scattered == NIL)
		return;
	pass->unit = MemoryContextStrdup(pass->context,
									 text_to_cstring(
										 linitial(group.scattered)));
	pass->rows += ub_pack_move(&group, pass->from, pass->until);
}

/*
 * Whether nobody else does this duty; nobody will until the transaction ends.
 * Folding needs no such turns: it has a lock for each account.
 */
static bool
duty_try_lock(UbDuty duty)
{
	LOCKTAG tag;

	if (duty == UB_DUTY_FOLD)
		return true;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, duty, UB_LOCK_DUTY);
	return LockAcquire(&tag, ExclusiveLock, false, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Does one step of the pass. A transaction is open and a snapshot active; what
 * is in the current memory context may go after the step. The caller then ends
 * the transaction or subtransaction and calls ub_pass_succeeded, or, where an
 * error came of it, undoes it and calls ub_pass_failed.
 */
void
ub_pass_step(UbPass *pass)
{
	pass->unit = NULL;
	if (!duty_try_lock(pass->duty))
	{
		/* nobody waits for who may take long */
		pass->done = true;
		return;
	}
	switch (pass->duty)
	{
		case UB_DUTY_FOLD:
			fold_step(pass);
			break;
		case UB_DUTY_PACK_HOURS:
			pack_step(pass);
			break;
		case UB_DUTY_STORAGE_RECOUNT:
			recount_step(pass);
			break;
		case UB_DUTY_STORAGE_REFRESH:
			refresh_step(pass);
			break;
		case UB_DUTY_VACUUM_DELTAS:
			/* takes transactions of its own: the worker's */
			pass->done = true;
			break;
	}
}

void
ub_pass_succeeded(UbPass *pass)
{
	if (pass->unit != NULL)
		setback_forget(pass->setbacks, pass->duty, pass->unit);
	if (pass->done)
	{
		setback_forget(pass->setbacks, pass->duty, NULL);
		pass->active = false;
	}
}

/* The error as maintenance_status shows it. */
static char *
pass_error_text(UbPass *pass, const ErrorData *error)
{
	StringInfoData line;
	int len;

	initStringInfo(&line);
	if (pass->unit != NULL)
		appendStringInfo(&line, "%s \"%s\": ", duties[pass->duty].unit,
						 pass->unit);
	appendStringInfo(&line, "%s (SQLSTATE %s)",
					 error->message ? error->message : "missing error text",
					 unpack_sql_state(error->sqlerrcode));
	len = pg_mbcliplen(line.data, line.len, 2000);
	line.data[len] = '\0';
	return line.data;
}

/* An error that says nothing about the unit that was worked on. */
static bool
error_is_general(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return true;
	}
	return false;
}

/*
 * The step was undone. Fills pass->error and pass->report, and decides whether
 * the pass goes on.
 */
void
ub_pass_failed(UbPass *pass, const ErrorData *error)
{
	bool is_lock = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	MemoryContext old = MemoryContextSwitchTo(pass->context);

	pass->done = false;
	pass->report = false;
	if (pass->duty == UB_DUTY_FOLD && pass->unit == NULL &&
		pass->singly == 0 && !error_is_general(error))
	{
		fold_go_singly(pass);
		MemoryContextSwitchTo(old);
		return;
	}

	ub_stats_add(UB_STAT_MAINTENANCE_ERRORS, 1);
	pass->error = pass_error_text(pass, error);
	pass->report = setback_add(pass->setbacks, pass->duty, pass->unit,
							   pass->error, is_lock);
	if (pass->unit == NULL)
		pass->active = false;
	else if (++pass->failures > PASS_FAILURES)
	{
		(void) setback_add(pass->setbacks, pass->duty, NULL, pass->error,
						   is_lock);
		pass->active = false;
	}
	MemoryContextSwitchTo(old);
}
