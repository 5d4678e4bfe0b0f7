/*
 * fact.c
 *		What the triggers of the fact tables have in common.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "compat.h"
#include "document.h"
#include "errors.h"
#include "fact.h"
#include "settings.h"

/* How many accounts a statement remembers to be there. */
#define FACT_KNOWN_ACCOUNTS 256

typedef struct KnownAccounts
{
	struct
	{
		int len;
		char id[UB_ID_BYTES];
	} entries[FACT_KNOWN_ACCOUNTS];
} KnownAccounts;

PG_FUNCTION_INFO_V1(ub_check_ids);
PG_FUNCTION_INFO_V1(ub_fact_is_append_only);

/* The depth of triggers at which facts may be moved; 0: nowhere. */
static int moving_depth = 0;

int
ub_trigger_depth(void)
{
	return DatumGetInt32(DirectFunctionCall1(pg_trigger_depth, (Datum) 0));
}

/*
 * Lets the caller's next statement move facts: its own triggers, and none that
 * fire within them, find that they are being moved. Returns what the caller
 * gives to ub_facts_moved, whatever comes of the statement.
 */
int
ub_facts_move(void)
{
	int before = moving_depth;

	moving_depth = ub_trigger_depth() + 1;
	return before;
}

void
ub_facts_moved(int before)
{
	moving_depth = before;
}

/* Whether the statement that fired the trigger at hand moves facts. */
bool
ub_facts_are_moving(void)
{
	return moving_depth != 0 && moving_depth == ub_trigger_depth();
}

/* Checks that function runs as a BEFORE INSERT row trigger of relid. */
TriggerData *
ub_fact_before_row(FunctionCallInfo fcinfo, Oid relid, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		RelationGetRelid(trigger->tg_relation) != relid)
		ub_error_not_trigger(function);
	return trigger;
}

/*
 * Checks that function runs as an AFTER INSERT statement trigger of relid and
 * begins to read the rows that were stored.
 */
void
ub_stored_begin(UbStored *stored, FunctionCallInfo fcinfo, Oid relid,
				const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		trigger->tg_newtable == NULL ||
		RelationGetRelid(trigger->tg_relation) != relid)
		ub_error_not_trigger(function);
	stored->store = trigger->tg_newtable;
	stored->pointer = tuplestore_alloc_read_pointer(stored->store,
													EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(stored->store, stored->pointer);
	tuplestore_rescan(stored->store);
	stored->slot = MakeSingleTupleTableSlot(RelationGetDescr(
												trigger->tg_relation),
											&TTSOpsMinimalTuple);
}

bool
ub_stored_next(UbStored *stored)
{
	CHECK_FOR_INTERRUPTS();
	return tuplestore_gettupleslot(stored->store, true, false, stored->slot);
}

void
ub_stored_end(UbStored *stored)
{
	ExecDropSingleTupleTableSlot(stored->slot);
}

/* The tuple that a BEFORE trigger returns for completed values. */
HeapTuple
ub_fact_tuple(TriggerData *trigger, Datum *values, bool *nulls)
{
	return heap_form_tuple(RelationGetDescr(trigger->tg_relation), values,
						   nulls);
}

UbSlice
ub_fact_text(Datum *values, bool *nulls, int column)
{
	return ub_value_slice(nulls[column] ? NULL :
										  DatumGetTextPP(values[column]));
}

/* Adds field to the list of fields that differ, if it does. */
const char *
ub_fact_differs(const char *so_far, bool differs, const char *field)
{
	if (!differs)
		return so_far;
	return so_far == NULL ? field : psprintf("%s, %s", so_far, field);
}

void
ub_fact_empty_is_null(Datum *values, bool *nulls, int column)
{
	nulls[column] = ub_fact_text(values, nulls, column).len == 0;
}

void
ub_fact_default_now(Datum *values, bool *nulls, int column)
{
	if (nulls[column])
		values[column] = TimestampTzGetDatum(
			GetCurrentTransactionStartTimestamp());
	nulls[column] = false;
}

void
ub_fact_default_metadata(Datum *values, bool *nulls, int column)
{
	if (nulls[column])
		values[column] = JsonbPGetDatum(ub_document_empty());
	nulls[column] = false;
}

void
ub_fact_check_metadata(UbPlace place, Datum *values, bool *nulls, int column)
{
	if (!nulls[column])
		ub_value_check_metadata(place, &DatumGetJsonbP(values[column])->root);
}

void
ub_fact_check_time(UbPlace place, const char *field,
				   Datum *values, bool *nulls, int column)
{
	if (!nulls[column] &&
		TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(values[column])))
		ub_value_error(place, field, ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not finite", NULL);
}

/*
 * Compares one column of an arriving row with the stored one. Where a time was
 * not given, whatever is stored will do.
 */
const char *
ub_fact_column_differs(const char *so_far, TupleTableSlot *stored,
					   Datum *values, bool *nulls, int column)
{
	Form_pg_attribute attribute = TupleDescAttr(stored->tts_tupleDescriptor,
												column);
	Datum known = stored->tts_values[column];
	bool differs = nulls[column] != stored->tts_isnull[column];

	if (attribute->atttypid == TIMESTAMPTZOID && nulls[column])
		return so_far;
	if (!differs && !nulls[column])
	{
		if (attribute->atttypid == JSONBOID)
			differs = compareJsonbContainers(&DatumGetJsonbP(values[column])
												  ->root,
											 &DatumGetJsonbP(known)->root) != 0;
		else
			differs = !datum_image_eq(values[column], known,
									  attribute->attbyval, attribute->attlen);
	}
	return ub_fact_differs(so_far, differs, NameStr(attribute->attname));
}

static bool
account_table_is_empty(Snapshot snapshot)
{
	Relation rel = table_open(ub_catalog()->billing_account, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool found = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, NoLock);
	return !found;
}

/*
 * Raises 23503 if there is no such account. While billing_account is empty, or
 * with usage_billing.restoring on, every account is accepted.
 */
static void
fact_check_account_now(UbSlice billing_id)
{
	text *id = ub_value_text(billing_id);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool found = ub_account_find(id, snapshot, NULL);

	if (!found && !account_table_is_empty(snapshot))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("fact of an unknown billing account"),
				 errdetail("billing_id \"%s\" is not in billing_account.",
						   ub_clip(billing_id.data, billing_id.len)),
				 errhint("Load the account first; a superuser restoring a backup may set usage_billing.restoring.")));
	UnregisterSnapshot(snapshot);
	pfree(id);
}

/*
 * Checks that the account of a fact is there, once for each of a statement's
 * accounts: a found account stays, because removing one waits for the
 * statements that store facts.
 */
void
ub_fact_check_account(FunctionCallInfo fcinfo, UbSlice billing_id)
{
	KnownAccounts *known = fcinfo->flinfo->fn_extra;
	uint32 slot = hash_bytes((const unsigned char *) billing_id.data,
							 billing_id.len) %
		FACT_KNOWN_ACCOUNTS;

	if (ub_restoring)
		return;
	if (known == NULL)
	{
		known = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
									   sizeof(KnownAccounts));
		fcinfo->flinfo->fn_extra = known;
	}
	if (known->entries[slot].len == billing_id.len &&
		memcmp(known->entries[slot].id, billing_id.data, billing_id.len) == 0)
		return;
	fact_check_account_now(billing_id);
	known->entries[slot].len = billing_id.len;
	memcpy(known->entries[slot].id, billing_id.data, billing_id.len);
}

/* Whether some session waits for this transaction to end. */
bool
ub_fact_is_waited_for(void)
{
	LOCKTAG tag;
	TransactionId top = GetTopTransactionIdIfAny();
	TransactionId current = GetCurrentTransactionIdIfAny();

	if (!TransactionIdIsValid(top))
		return false;
	SET_LOCKTAG_TRANSACTION(tag, top);
	if (LockHasWaiters(&tag, ExclusiveLock, false))
		return true;
	if (!TransactionIdIsValid(current) || current == top)
		return false;
	SET_LOCKTAG_TRANSACTION(tag, current);
	return LockHasWaiters(&tag, ExclusiveLock, false);
}

/*
 * Waits for the transaction that is writing a fact with our key.
 *
 * A load writes its rows in any order, so it and a call could come to wait for
 * each other. Calls must never fail by that, so the load gives way: it looks
 * on at first without a lock, and raises 40P01 itself if somebody waits for
 * it meanwhile. Only then it waits as everybody does.
 */
static void
fact_give_way(TransactionId xid)
{
	int polite = 2 * DeadlockTimeout;
	TimestampTz started = GetCurrentTimestamp();

	while (TransactionIdIsInProgress(xid))
	{
		TimestampTz now = GetCurrentTimestamp();

		CHECK_FOR_INTERRUPTS();
		if (TimestampDifferenceExceeds(started, now, DeadlockTimeout / 4) &&
			ub_fact_is_waited_for())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
					 errmsg("the same fact is being written by another session"),
					 errdetail("The other session, or one behind it, waits for this one."),
					 errhint("Repeat the statement; nothing is stored twice.")));
		if (TimestampDifferenceExceeds(started, now, polite))
			break;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 PG_WAIT_LOCK);
		ResetLatch(MyLatch);
	}
}

static TupleTableSlot *
fact_find(Relation heap, Oid index_id, ScanKey keys, int nkeys, bool gives_way)
{
	Relation index = index_open(index_id, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	bool found = false;

	for (;;)
	{
		SnapshotData dirty;
		IndexScanDesc scan;
		TransactionId writer = InvalidTransactionId;

		InitDirtySnapshot(dirty);
		scan = ub_index_beginscan(heap, index, &dirty, nkeys);
		index_rescan(scan, keys, nkeys, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			found = true;
			writer = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		}
		index_endscan(scan);
		if (!TransactionIdIsValid(writer))
			break;
		found = false;
		ExecClearTuple(slot);
		if (gives_way)
			fact_give_way(writer);
		XactLockTableWait(writer, NULL, NULL, XLTW_None);
	}
	index_close(index, NoLock);
	if (found)
		return slot;
	ExecDropSingleTupleTableSlot(slot);
	return NULL;
}

/*
 * Finds the fact with the given key, whether committed or of this transaction;
 * waits for a transaction that is writing one, and gives way to others as a load
 * does. Returns a slot that the caller drops, null if there is none.
 */
TupleTableSlot *
ub_fact_find(Relation heap, Oid index_id, ScanKey keys, int nkeys)
{
	return fact_find(heap, index_id, keys, nkeys, true);
}

/* The same for a call of one fact, which doesn't give way. */
TupleTableSlot *
ub_fact_find_for_call(Relation heap, Oid index_id, ScanKey keys, int nkeys)
{
	return fact_find(heap, index_id, keys, nkeys, false);
}

/* Trigger: facts are append-only, but for those that prune_usage moves. */
Datum
ub_fact_is_append_only(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ub_error_not_trigger("fact_is_append_only()");
	if (ub_facts_are_moving())
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(UB_ERRCODE_APPEND_ONLY),
			 errmsg("billing facts are append-only"),
			 errdetail("Rows of \"%s\" can't be changed or removed.",
					   RelationGetRelationName(trigger->tg_relation)),
			 errhint("Use revert_usage to take a usage back, and grant_credits to correct a balance.")));
}

/* Trigger, before each row: the text columns named in its arguments are ids. */
Datum
ub_check_ids(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot;
	TupleDesc desc;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ub_error_not_trigger("check_ids()");
	desc = RelationGetDescr(trigger->tg_relation);
	slot = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newslot :
														trigger->tg_trigslot;
	slot_getallattrs(slot);
	for (int i = 0; i < trigger->tg_trigger->tgnargs; i++)
	{
		const char *column = trigger->tg_trigger->tgargs[i];
		int n = get_attnum(RelationGetRelid(trigger->tg_relation), column) - 1;

		if (n < 0 || TupleDescAttr(desc, n)->atttypid != TEXTOID)
			ub_error_not_trigger("check_ids()");
		/* the server itself refuses null */
		if (!slot->tts_isnull[n])
			ub_value_check_id(
				UB_PLACE_TABLE(RelationGetRelationName(trigger->tg_relation)),
				column, ub_fact_text(slot->tts_values, slot->tts_isnull, n));
	}
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
							   trigger->tg_newtuple :
							   trigger->tg_trigtuple);
}
