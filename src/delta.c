/*
 * delta.c
 *		What a statement appends to usage_delta.
 *
 * Rows are written directly, not by a query: this runs once in every call, and
 * usage_delta has nothing that a query would add.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "access/tableam.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "delta.h"
#include "errors.h"
#include "roster.h"

/* The first sum's column in usage_hourly, which is UB_SUM_AMOUNT. */
#define HOURLY_SUMS 4

typedef struct DeltaEntry
{
	UbDelta *delta;
	uint32 hash;
	char status;
} DeltaEntry;

static bool
delta_key_equal(const UbDeltaKey *a, const UbDeltaKey *b)
{
	return a->hour == b->hour && a->kind == b->kind &&
		ub_slices_equal(a->billing_id, b->billing_id) &&
		ub_slices_equal(a->source, b->source);
}

static uint32
delta_key_hash(const UbDeltaKey *key)
{
	uint32 hash = murmurhash32((uint32) (key->hour / USECS_PER_HOUR) ^
							   key->kind);

	hash = hash_combine(hash,
						hash_bytes((const unsigned char *) key->billing_id.data,
								   key->billing_id.len));
	return hash_combine(hash,
						hash_bytes((const unsigned char *) key->source.data,
								   key->source.len));
}

#define SH_PREFIX			 delta_table
#define SH_ELEMENT_TYPE		 DeltaEntry
#define SH_KEY_TYPE			 UbDelta *
#define SH_KEY				 delta
#define SH_HASH_KEY(tb, key) delta_key_hash(&(key)->key)
#define SH_EQUAL(tb, a, b)	 delta_key_equal(&(a)->key, &(b)->key)
#define SH_SCOPE			 static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct UbDeltaSet
{
	MemoryContext context;
	delta_table_hash *table;
	UbDelta *last; /* the one found last, often found again */
};

/* Makes an empty set in the current memory context. */
UbDeltaSet *
ub_deltas_new(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "usage_billing deltas",
												  ALLOCSET_SMALL_SIZES);
	UbDeltaSet *set = MemoryContextAlloc(context, sizeof(UbDeltaSet));

	set->context = context;
	set->table = delta_table_create(context, 16, NULL);
	set->last = NULL;
	return set;
}

static UbSlice
slice_copy(UbSlice slice)
{
	char *copy = palloc(slice.len + 1);

	memcpy(copy, slice.data, slice.len);
	slice.data = copy;
	return slice;
}

/* Returns the set's delta with this key, made with sums of zero if new. */
UbDelta *
ub_deltas_at(UbDeltaSet *set, const UbDeltaKey *key)
{
	UbDelta wanted;
	DeltaEntry *entry;
	bool found;

	if (set->last != NULL && delta_key_equal(&set->last->key, key))
		return set->last;

	wanted.key = *key;
	entry = delta_table_insert(set->table, &wanted, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(set->context);

		entry->delta = palloc0(sizeof(UbDelta));
		entry->delta->key = *key;
		entry->delta->key.billing_id = slice_copy(key->billing_id);
		entry->delta->key.source = slice_copy(key->source);
		MemoryContextSwitchTo(old);
	}
	set->last = entry->delta;
	return entry->delta;
}

int
ub_deltas_count(UbDeltaSet *set)
{
	return set->table->members;
}

static int
delta_compare(const ListCell *a, const ListCell *b)
{
	const UbDeltaKey *x = &((UbDelta *) lfirst(a))->key;
	const UbDeltaKey *y = &((UbDelta *) lfirst(b))->key;
	int order = ub_slices_compare(x->billing_id, y->billing_id);

	if (order == 0)
		order = x->hour < y->hour ? -1 : x->hour > y->hour;
	if (order == 0)
		order = ub_slices_compare(x->source, y->source);
	if (order == 0)
		order = (int) x->kind - (int) y->kind;
	return order;
}

/* The set's deltas in the one order of keys that all writers keep. */
List *
ub_deltas_sorted(UbDeltaSet *set)
{
	List *deltas = NIL;
	delta_table_iterator it;
	DeltaEntry *entry;

	delta_table_start_iterate(set->table, &it);
	while ((entry = delta_table_iterate(set->table, &it)) != NULL)
		deltas = lappend(deltas, entry->delta);
	list_sort(deltas, delta_compare);
	return deltas;
}

void
ub_deltas_free(UbDeltaSet *set)
{
	MemoryContextDelete(set->context);
}

static const char *const sum_names[UB_SUMS] = {
	"the change of the balance", "the sum of the debits", "the sum of the amounts", "the number of events",
	"the sum of viewing_seconds", "the sum of viewing_bytes",
	"the sum of egress_seconds", "the sum of egress_seconds_additional_targets",
	"the sum of egress_bytes"};

/* Puts a delta into a virtual slot of usage_delta's shape. */
static void
delta_store(const UbDelta *delta, TupleTableSlot *slot)
{
	Datum *values = slot->tts_values;
	bool *isnull = slot->tts_isnull;

	ExecClearTuple(slot);
	memset(isnull, false, UB_DELTA_COLUMNS);
	values[UB_DELTA_BILLING_ID] = PointerGetDatum(
		ub_value_text(delta->key.billing_id));
	values[UB_DELTA_HOUR] = TimestampTzGetDatum(delta->key.hour);
	values[UB_DELTA_SOURCE] = PointerGetDatum(ub_value_text(delta->key.source));
	isnull[UB_DELTA_TYPE] = delta->key.kind == UB_KIND_GRANT;
	values[UB_DELTA_TYPE] =
		ObjectIdGetDatum(delta->key.kind == UB_KIND_FEATURE ?
							 ub_catalog()->usage_type_feature :
							 ub_catalog()->usage_type_credit);
	values[UB_DELTA_XACT] = FullTransactionIdGetDatum(
		GetTopFullTransactionId());
	for (int i = 0; i < UB_SUMS; i++)
	{
		if (!ub_sum_fits(delta->sums[i]))
			ub_error_sum_range(sum_names[i]);
		values[UB_DELTA_SUMS + i] = Int64GetDatum((int64) delta->sums[i]);
		isnull[UB_DELTA_SUMS + i] = delta->sums[i] == 0;
	}
	ExecStoreVirtualTuple(slot);
}

/*
 * Prepares to append to usage_delta: takes every lock that it needs, in the
 * current memory context.
 */
void
ub_deltas_append_begin(UbDeltaAppend *append)
{
	append->rel = table_open(ub_catalog()->usage_delta, RowExclusiveLock);
	append->estate = CreateExecutorState();
	append->info = makeNode(ResultRelInfo);
	append->slot = MakeSingleTupleTableSlot(RelationGetDescr(append->rel),
											&TTSOpsVirtual);
	InitResultRelInfo(append->info, append->rel, 1, NULL, 0);
	ExecOpenIndices(append->info, false);
}

/*
 * Appends deltas, as of the current command. Raises 22003 if a sum does not
 * fit.
 */
void
ub_deltas_append_rows(UbDeltaAppend *append, List *deltas)
{
	CommandId command = GetCurrentCommandId(true);
	ListCell *cell;

	foreach (cell, deltas)
	{
		MemoryContext old = MemoryContextSwitchTo(
			GetPerTupleMemoryContext(append->estate));

		delta_store(lfirst(cell), append->slot);
		table_tuple_insert(append->rel, append->slot, command, 0, NULL);
		MemoryContextSwitchTo(old);
		ub_insert_index_tuples(append->info, append->slot, append->estate);
		ExecClearTuple(append->slot);
		ResetPerTupleExprContext(append->estate);
	}
	ub_roster_posted(list_length(deltas));
}

void
ub_deltas_append_end(UbDeltaAppend *append)
{
	ExecCloseIndices(append->info);
	ExecDropSingleTupleTableSlot(append->slot);
	FreeExecutorState(append->estate);
	table_close(append->rel, NoLock);
}

/*
 * Reads the row in slot, of usage_delta's shape, into delta. Its texts point
 * into the slot.
 */
void
ub_delta_load(TupleTableSlot *slot, UbDelta *delta)
{
	slot_getallattrs(slot);
	delta->key.billing_id = ub_value_slice(
		DatumGetTextPP(slot->tts_values[UB_DELTA_BILLING_ID]));
	delta->key.source = ub_value_slice(
		DatumGetTextPP(slot->tts_values[UB_DELTA_SOURCE]));
	delta->key.hour = DatumGetTimestampTz(slot->tts_values[UB_DELTA_HOUR]);
	if (slot->tts_isnull[UB_DELTA_TYPE])
		delta->key.kind = UB_KIND_GRANT;
	else if (DatumGetObjectId(slot->tts_values[UB_DELTA_TYPE]) ==
			 ub_catalog()->usage_type_feature)
		delta->key.kind = UB_KIND_FEATURE;
	else
		delta->key.kind = UB_KIND_CREDIT;
	for (int i = 0; i < UB_SUMS; i++)
		delta->sums[i] = slot->tts_isnull[UB_DELTA_SUMS + i] ?
			0 :
			DatumGetInt64(slot->tts_values[UB_DELTA_SUMS + i]);
}

/* Reads only what moves the balance; that takes a third of the columns. */
void
ub_delta_load_credits(TupleTableSlot *slot, int64 *credits, int64 *debited)
{
	const int credits_at = UB_DELTA_SUMS + UB_SUM_CREDITS;
	const int debited_at = UB_DELTA_SUMS + UB_SUM_DEBITED;

	slot_getsomeattrs(slot, debited_at + 1);
	*credits = slot->tts_isnull[credits_at] ?
		0 :
		DatumGetInt64(slot->tts_values[credits_at]);
	*debited = slot->tts_isnull[debited_at] ?
		0 :
		DatumGetInt64(slot->tts_values[debited_at]);
}

/* Reads the row in slot, of usage_hourly's shape, into hour. */
void
ub_hour_load(TupleTableSlot *slot, UbDelta *hour)
{
	slot_getallattrs(slot);
	hour->key.billing_id = ub_value_slice(
		DatumGetTextPP(slot->tts_values[UB_DELTA_BILLING_ID]));
	hour->key.source = ub_value_slice(
		DatumGetTextPP(slot->tts_values[UB_DELTA_SOURCE]));
	hour->key.hour = DatumGetTimestampTz(slot->tts_values[UB_DELTA_HOUR]);
	hour->key.kind = DatumGetObjectId(slot->tts_values[UB_DELTA_TYPE]) ==
			ub_catalog()->usage_type_feature ?
		UB_KIND_FEATURE :
		UB_KIND_CREDIT;
	hour->sums[UB_SUM_CREDITS] = hour->sums[UB_SUM_DEBITED] = 0;
	for (int i = UB_SUM_AMOUNT; i < UB_SUMS; i++)
		hour->sums[i] = DatumGetInt64(
			slot->tts_values[HOURLY_SUMS + i - UB_SUM_AMOUNT]);
}

/*
 * Returns the transaction from which on an account's deltas have to be read,
 * by its row in credit_balance.
 */
uint64
ub_balance_floor(TupleTableSlot *slot)
{
	FullTransactionId folded_by = DatumGetFullTransactionId(
		slot->tts_values[UB_BALANCE_FOLDED_BY]);
	bool isnull;
	TransactionId xmin = DatumGetTransactionId(slot_getsysattr(
		slot, MinTransactionIdAttributeNumber, &isnull));

	/* of another cluster's transactions, see the table */
	if (xmin != XidFromFullTransactionId(folded_by))
		return 0;
	return U64FromFullTransactionId(DatumGetFullTransactionId(
		slot->tts_values[UB_BALANCE_FOLDED_BELOW]));
}

/* The same for an account, as a snapshot sees it. */
uint64
ub_deltas_floor(text *billing_id, Snapshot snapshot)
{
	UbScan scan;
	ScanKeyData key;
	uint64 from = 0;

	ub_scan_key_text(&key, 1, PointerGetDatum(billing_id));
	ub_scan_begin(&scan, ub_catalog()->credit_balance,
				  ub_catalog()->credit_balance_pkey, snapshot, &key, 1);
	if (ub_scan_next(&scan))
	{
		slot_getallattrs(scan.slot);
		from = ub_balance_floor(scan.slot);
	}
	ub_scan_end(&scan);
	return from;
}

/* Begins to read an account's deltas of the transaction "from" and later. */
void
ub_deltas_scan(UbScan *scan, text *billing_id, uint64 from, Snapshot snapshot)
{
	ScanKeyData keys[2];

	ub_scan_key_text(&keys[0], 1, PointerGetDatum(billing_id));
	ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_XID8GE,
				FullTransactionIdGetDatum(FullTransactionIdFromU64(from)));
	ub_scan_begin(scan, ub_catalog()->usage_delta,
				  ub_catalog()->usage_delta_key, snapshot, keys, 2);
}

/*
 * Calls visitor for each pending delta of the account that snapshot sees; from
 * is the account's floor in the same snapshot.
 */
void
ub_deltas_visit(text *billing_id, uint64 from, Snapshot snapshot,
				UbDeltaVisitor visitor, void *state)
{
	UbScan scan;
	UbDelta delta;

	ub_deltas_scan(&scan, billing_id, from, snapshot);
	while (ub_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		ub_delta_load(scan.slot, &delta);
		visitor(state, &delta);
	}
	ub_scan_end(&scan);
}

bool
ub_sum_fits(int128 sum)
{
	return sum >= PG_INT64_MIN && sum <= PG_INT64_MAX;
}

const char *
ub_sum_text(int128 sum)
{
	char digits[48];
	char *at = digits + sizeof(digits);
	uint128 rest = sum < 0 ? -(uint128) sum : (uint128) sum;

	*--at = '\0';
	do
	{
		*--at = '0' + (int) (rest % 10);
		rest /= 10;
	} while (rest > 0);
	if (sum < 0)
		*--at = '-';
	return pstrdup(at);
}

Datum
ub_sum_numeric(int128 sum)
{
	if (ub_sum_fits(sum))
		return NumericGetDatum(int64_to_numeric((int64) sum));
	return DirectFunctionCall3(numeric_in, CStringGetDatum(ub_sum_text(sum)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* The integer in a numeric of ours. */
int128
ub_sum_of_numeric(Datum number)
{
	int64 small;
	bool fraction;
	char *digits;
	bool negative;
	int128 sum = 0;

	if (ub_value_number(DatumGetNumeric(number), &small, &fraction))
		return small;
	digits = DatumGetCString(DirectFunctionCall1(numeric_out, number));
	negative = *digits == '-';
	for (digits += negative; *digits >= '0' && *digits <= '9'; digits++)
		sum = sum * 10 + (*digits - '0');
	return negative ? -sum : sum;
}
