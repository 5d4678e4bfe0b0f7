/*
 * statement.c
 *		An account's statement: what moved its credits, newest first.
 *
 * A cursor is the place of a row in that order: its time, kind and id. So a
 * page costs what it shows, however far back it lies, and rows that arrive in
 * between neither shift nor repeat any.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "errors.h"
#include "query.h"

#define STATEMENT_COLUMNS 10

/* How many rows of a page are in memory at once. */
#define STATEMENT_STEP 100

/*
 * $1 account, $2 from, $3 to, $4 rows, $5 … $7 the last row's time, kind, id.
 * Each branch reads its index backwards and stops at the page's length.
 */
#define STATEMENT_BRANCH(kind, type, source, table, condition) \
	"(SELECT id, '" kind "' AS kind, '" type "' AS type, amount, " source " AS source," \
	" description, user_id, metadata, created_at" \
	" FROM usage_billing." table \
	" WHERE billing_id = $1 AND created_at >= $2 AND created_at < $3" \
	" AND created_at <= $5 AND (created_at < $5 OR ('" kind "' COLLATE \"C\", id) < ($6, $7))" \
	" AND " condition \
	" ORDER BY created_at DESC, id DESC LIMIT $4)"

static UbQuery statement_page = {
	.text = "SELECT id, kind, type, amount, source, description, user_id, metadata, created_at"
			" FROM (" STATEMENT_BRANCH("usage", "debit", "source", "usage", "type = 'credit' AND amount > 0") " UNION ALL " STATEMENT_BRANCH("revert", "credit", "usage_source", "usage_revert",
																																			 "usage_type = 'credit'") " UNION ALL " STATEMENT_BRANCH("grant", "credit", "source", "credit_grant", "true") ") AS entries ORDER BY created_at DESC, kind COLLATE \"C\" DESC, id DESC LIMIT $4",
	.nargs = 7,
	.custom = true,
	.argtypes = {TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
				 TIMESTAMPTZOID, TEXTOID, UUIDOID}};

PG_FUNCTION_INFO_V1(ub_account_transactions);

/* Where a page begins: after the row with this time, kind and id. */
typedef struct StatementCursor
{
	TimestampTz at;
	char kind[8];
	pg_uuid_t id;
} StatementCursor;

static const char *
cursor_text(TimestampTz at, const char *kind, const pg_uuid_t *id)
{
	return psprintf(INT64_FORMAT "-%s-%s", at, kind, ub_value_uuid_text(id));
}

/* Reads a cursor that an earlier page gave; 22023 if it is none. */
static void
cursor_read(UbSlice text, StatementCursor *cursor)
{
	char *copy = pnstrdup(text.data, text.len);
	char *kind = copy + 1 < copy + text.len ? strchr(copy + 1, '-') : NULL;
	char *id = kind ? strchr(kind + 1, '-') : NULL;
	UbSlice at_text = {copy, kind ? kind - copy : 0};
	UbSlice id_text = {id ? id + 1 : NULL, id ? (int) strlen(id + 1) : 0};
	bool malformed;

	if (id != NULL && id - kind - 1 < (int) sizeof(cursor->kind))
	{
		strlcpy(cursor->kind, kind + 1, id - kind);
		if (ub_value_decimal(at_text, &cursor->at, &malformed) &&
			ub_value_uuid(id_text, &cursor->id) &&
			(strcmp(cursor->kind, "usage") == 0 || strcmp(cursor->kind, "revert") == 0 ||
			 strcmp(cursor->kind, "grant") == 0))
			return;
	}
	ub_value_error(UB_PLACE_PARAMETER, "before", ERRCODE_INVALID_PARAMETER_VALUE,
				   "is not a cursor", "Pass the cursor column of an earlier page's last row.");
}

static TimestampTz
statement_time(FunctionCallInfo fcinfo, int n, TimestampTz otherwise)
{
	return PG_ARGISNULL(n) ? otherwise : PG_GETARG_TIMESTAMPTZ(n);
}

/* Puts the rows that were fetched into the function's result. */
static void
statement_return(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleDesc page = SPI_tuptable->tupdesc;

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		Datum values[STATEMENT_COLUMNS];
		bool nulls[STATEMENT_COLUMNS];

		heap_deform_tuple(SPI_tuptable->vals[row], page, values, nulls);
		values[STATEMENT_COLUMNS - 1] =
			CStringGetTextDatum(cursor_text(DatumGetTimestampTz(values[8]),
											TextDatumGetCString(values[1]),
											DatumGetUUIDP(values[0])));
		nulls[STATEMENT_COLUMNS - 1] = false;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/*
 * SQL: account_transactions("from", "to", max_rows, before, billing_id, org_id,
 * project_id)
 */
Datum
ub_account_transactions(PG_FUNCTION_ARGS)
{
	UbChoice choice = ub_access_choice(fcinfo, 4);
	UbSlice before = ub_access_text_arg(fcinfo, 3);
	int32 max_rows = PG_ARGISNULL(2) ? 100 : PG_GETARG_INT32(2);
	StatementCursor cursor = {.at = DT_NOEND};
	UbAccount account;
	Datum values[7];
	Portal page;

	InitMaterializedSRF(fcinfo, 0);
	ub_access_account(&choice, GetActiveSnapshot(), &account);
	if (max_rows <= 0)
		ub_value_error(UB_PLACE_PARAMETER, "max_rows", ERRCODE_INVALID_PARAMETER_VALUE,
					   psprintf("is %d; it must be positive", max_rows), NULL);
	if (before.len > 0)
		cursor_read(before, &cursor);

	values[0] = PointerGetDatum(account.billing_id);
	values[1] = TimestampTzGetDatum(statement_time(fcinfo, 0, DT_NOBEGIN));
	values[2] = TimestampTzGetDatum(statement_time(fcinfo, 1, DT_NOEND));
	values[3] = Int64GetDatum(max_rows);
	values[4] = TimestampTzGetDatum(cursor.at);
	values[5] = CStringGetTextDatum(cursor.kind);
	values[6] = UUIDPGetDatum(&cursor.id);

	SPI_connect();
	page = ub_query_open(&statement_page, values);
	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(page, true, STATEMENT_STEP);
		statement_return(fcinfo);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed == STATEMENT_STEP);
	SPI_cursor_close(page);
	SPI_finish();
	return (Datum) 0;
}
