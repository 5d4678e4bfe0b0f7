/*
 * access.c
 *		Who is asking, for which organisation, and which account is meant.
 *
 * A request is what PostgREST makes of a token: request.jwt.claims is set.
 * Without claims it is plain SQL, trusted as far as its grants go.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "access.h"
#include "catalog.h"
#include "compat.h"
#include "errors.h"
#include "settings.h"

/* Of how many accounts a session remembers where it found them. */
#define ACCESS_KNOWN_PLACES 256

typedef struct KnownPlace
{
	Oid file; /* of the table then; invalid: nothing is known */
	ItemPointerData tid;
} KnownPlace;

PG_FUNCTION_INFO_V1(ub_request_accounts);
PG_FUNCTION_INFO_V1(ub_request_org);

/* What is looked for in the claims while they are parsed. */
typedef struct ClaimSearch
{
	JsonLexContext *lex;
	int depth;
	bool is_object;
	bool wanted; /* the next scalar is the claim's */
	bool seen;
	char *found;
} ClaimSearch;

static UB_JSON_ACTION
claim_object_start(void *state)
{
	ClaimSearch *search = state;

	if (search->depth++ == 0)
		search->is_object = true;
	UB_JSON_ACTION_RETURN;
}

static UB_JSON_ACTION
claim_object_end(void *state)
{
	((ClaimSearch *) state)->depth--;
	UB_JSON_ACTION_RETURN;
}

static UB_JSON_ACTION
claim_array_start(void *state)
{
	((ClaimSearch *) state)->depth++;
	UB_JSON_ACTION_RETURN;
}

static UB_JSON_ACTION
claim_array_end(void *state)
{
	((ClaimSearch *) state)->depth--;
	UB_JSON_ACTION_RETURN;
}

static UB_JSON_ACTION
claim_field_start(void *state, char *name, bool isnull)
{
	ClaimSearch *search = state;

	if (search->depth == 1)
	{
		search->wanted = strcmp(name, ub_org_claim) == 0;
		search->seen = search->seen || search->wanted;
		/* of two claims with one name the last one holds, as in jsonb */
		if (search->wanted)
			search->found = NULL;
	}
	UB_JSON_ACTION_RETURN;
}

static UB_JSON_ACTION
claim_scalar(void *state, char *token, JsonTokenType type)
{
	ClaimSearch *search = state;

	if (search->wanted && search->depth == 1)
	{
		if (type == JSON_TOKEN_STRING && token[0] != '\0')
			search->found = token;
		search->wanted = false;
	}
	UB_JSON_ACTION_RETURN;
}

/*
 * Reads the organisation out of the claims, null if they name none. Claims
 * that are no JSON object are refused.
 */
static char *
access_claim(const char *claims)
{
	JsonSemAction actions = {0};
	ClaimSearch search = {0};

	search.lex = ub_json_lexer(unconstify(char *, claims), strlen(claims),
							   true);
	actions.semstate = &search;
	actions.object_start = claim_object_start;
	actions.object_end = claim_object_end;
	actions.array_start = claim_array_start;
	actions.array_end = claim_array_end;
	actions.object_field_start = claim_field_start;
	actions.scalar = claim_scalar;

	if (pg_parse_json(search.lex, &actions) != JSON_SUCCESS ||
		!search.is_object)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("token claims are not a JSON object"),
				 errdetail("request.jwt.claims must hold an object, as PostgREST sets it."),
				 errhint("Set it to the token's claims, or to an empty string for plain SQL.")));
	/* a claim that is there means a scope, so it must not open everything */
	if (search.seen && search.found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("token names no organisation"),
				 errdetail("The claim set by usage_billing.org_claim is there, but it is not a non-empty string."),
				 errhint("Put the organisation's id into the token, or leave the claim out.")));
	return search.found;
}

/* Whether the role that makes the request may do without an organisation. */
static bool
access_is_service(void)
{
	Oid service;

	if (ub_service_role == NULL || ub_service_role[0] == '\0')
		return false;
	service = get_role_oid(ub_service_role, true);
	/* a superuser is not a member by being one: the token decides */
	return OidIsValid(service) &&
		is_member_of_role_nosuper(GetOuterUserId(), service);
}

/*
 * Returns the organisation that the request is scoped to, null if it may see
 * all. Raises 42501 for a token that names none and has no right to that.
 */
const char *
ub_access_scope(void)
{
	static char *last_claims = NULL;
	static char *last_claim = NULL;
	static char *last_org = NULL;
	const char *claims = GetConfigOption("request.jwt.claims", true, false);

	if (claims == NULL || claims[0] == '\0')
		return NULL;

	if (last_claims == NULL || strcmp(last_claims, claims) != 0 ||
		strcmp(last_claim, ub_org_claim) != 0)
	{
		char *org = access_claim(claims);
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		if (last_claims != NULL)
		{
			pfree(last_claims);
			pfree(last_claim);
			if (last_org != NULL)
				pfree(last_org);
		}
		last_claims = NULL;
		last_org = org ? pstrdup(org) : NULL;
		last_claim = pstrdup(ub_org_claim);
		last_claims = pstrdup(claims);
		MemoryContextSwitchTo(old);
	}

	if (last_org == NULL && !access_is_service())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("token names no organisation"),
				 errdetail("The claim set by usage_billing.org_claim is missing, and the role is not a service role."),
				 errhint("Put the organisation's id into the token, or make the role a member of usage_billing.service_role.")));
	return last_org ? pstrdup(last_org) : NULL;
}

/* Raises 42501 if the request is scoped to an organisation. */
void
ub_access_require_unscoped(void)
{
	if (ub_access_scope() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("not permitted for this token"),
				 errdetail("This function works on all organisations; the token names one."),
				 errhint("Call it with a service role's token, or over plain SQL.")));
}

static char *
slice_string(UbSlice slice)
{
	return pnstrdup(slice.data, slice.len);
}

/*
 * Returns the organisation that a function with only an org_id works for:
 * the one given, or the token's.
 */
char *
ub_access_org(UbSlice org_id)
{
	const char *scope = ub_access_scope();

	if (org_id.len == 0)
	{
		if (scope == NULL)
			ub_value_error(UB_PLACE_PARAMETER, "org_id",
						   ERRCODE_INVALID_PARAMETER_VALUE, "is missing",
						   "Give org_id, or use a token that names the organisation.");
		return pstrdup(scope);
	}
	ub_value_check_length(UB_PLACE_PARAMETER, "org_id", org_id, UB_ID_BYTES);
	if (scope != NULL && !ub_slice_is(org_id, scope))
		ub_error_forbidden();
	return slice_string(org_id);
}

/* The transaction that wrote the row in slot. */
static TransactionId
account_writer(TupleTableSlot *slot)
{
	bool isnull;

	return DatumGetTransactionId(
		slot_getsysattr(slot, MinTransactionIdAttributeNumber, &isnull));
}

/* Fills account from the row that scan found. */
static void
account_fill(TupleTableSlot *slot, UbAccount *account)
{
	text *state;

	slot_getallattrs(slot);
	account->billing_id = DatumGetTextPCopy(slot->tts_values[0]);
	account->id = text_to_cstring(account->billing_id);
	account->org_id = TextDatumGetCString(slot->tts_values[1]);
	account->is_default = DatumGetBool(slot->tts_values[2]);
	account->credit_min = DatumGetInt64(slot->tts_values[3]);
	state = DatumGetTextPP(slot->tts_values[4]);
	account->closed = ub_slice_is(ub_value_slice(state), "closed");
	account->has_last_billed_at = !slot->tts_isnull[5];
	account->last_billed_at = account->has_last_billed_at ?
		DatumGetTimestampTz(slot->tts_values[5]) :
		0;
	account->created_at = DatumGetTimestampTz(slot->tts_values[7]);
	account->tid = slot->tts_tid;
	account->xmin = account_writer(slot);
}

static bool
account_lookup(Oid index, Datum value, Snapshot snapshot, UbAccount *account)
{
	UbScan scan;
	ScanKeyData key;
	bool found;

	ub_scan_key_text(&key, 1, value);
	ub_scan_begin(&scan, ub_catalog()->billing_account, index, snapshot, &key,
				  1);
	found = ub_scan_next(&scan);
	if (found && account != NULL)
		account_fill(scan.slot, account);
	ub_scan_end(&scan);
	return found;
}

/*
 * Looks for an account where it was before. False if it isn't there; then it may
 * be elsewhere.
 */
static bool
account_fetch(UbSlice billing_id, const ItemPointerData *tid, Snapshot snapshot,
			  Relation rel, UbAccount *account)
{
	ItemPointerData at = *tid;
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool found = table_tuple_fetch_row_version(rel, &at, snapshot, slot);

	if (found)
	{
		slot_getsomeattrs(slot, 1);
		found = ub_slices_equal(ub_value_slice(DatumGetTextPP(
									slot->tts_values[0])),
								billing_id);
	}
	if (found)
		account_fill(slot, account);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* Where this session found an account last; for any account that hashes to it. */
static KnownPlace *
account_known_place(UbSlice billing_id)
{
	static KnownPlace places[ACCESS_KNOWN_PLACES];

	return &places[hash_bytes((const unsigned char *) billing_id.data,
							  billing_id.len) %
				   ACCESS_KNOWN_PLACES];
}

/* Finds an account; account may be null if only its existence matters. */
bool
ub_account_find(text *billing_id, Snapshot snapshot, UbAccount *account)
{
	UbSlice id = ub_value_slice(billing_id);
	KnownPlace *place = account_known_place(id);
	Relation rel;
	bool found;

	if (account == NULL)
		return account_lookup(ub_catalog()->billing_account_pkey,
							  PointerGetDatum(billing_id), snapshot, NULL);

	/* a row that wasn't changed since is where it was, in the same file */
	rel = table_open(ub_catalog()->billing_account, AccessShareLock);
	found = place->file == rel->rd_rel->relfilenode &&
		ItemPointerGetBlockNumber(&place->tid) <
			RelationGetNumberOfBlocks(rel) &&
		account_fetch(id, &place->tid, snapshot, rel, account);
	if (!found)
	{
		found = account_lookup(ub_catalog()->billing_account_pkey,
							   PointerGetDatum(billing_id), snapshot, account);
		if (found)
		{
			place->file = rel->rd_rel->relfilenode;
			place->tid = account->tid;
		}
	}
	table_close(rel, NoLock);
	return found;
}

/* Finds an account that has to be there and open. */
void
ub_account_require_open(text *billing_id, Snapshot snapshot, UbAccount *account)
{
	if (!ub_account_find(billing_id, snapshot, account))
		ub_error_no_account("billing_id", text_to_cstring(billing_id));
	if (account->closed)
		ub_error_closed(account->id);
}

/*
 * Reads an account that was found before in this transaction as another snapshot
 * sees it; it has to be there and open. A row that was not changed is where it
 * was, written by the same transaction.
 */
void
ub_account_look_again(UbAccount *account, Snapshot snapshot)
{
	Relation rel = table_open(ub_catalog()->billing_account, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData at = account->tid;
	bool same = table_tuple_fetch_row_version(rel, &at, snapshot, slot) &&
		account_writer(slot) == account->xmin;

	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	if (!same)
		ub_account_require_open(account->billing_id, snapshot, account);
	else if (account->closed)
		ub_error_closed(account->id);
}

/* Finds an organisation's default account. */
bool
ub_account_of_org(const char *org_id, Snapshot snapshot, UbAccount *account)
{
	return account_lookup(ub_catalog()->billing_account_default,
						  CStringGetTextDatum(org_id), snapshot, account);
}

/* Returns a project's organisation, null if there is no such project. */
static char *
project_org(UbSlice project_id, Snapshot snapshot)
{
	UbScan scan;
	ScanKeyData key;
	char *org_id = NULL;

	ub_scan_key_text(&key, 1, PointerGetDatum(ub_value_text(project_id)));
	ub_scan_begin(&scan, ub_catalog()->project, ub_catalog()->project_pkey,
				  snapshot, &key, 1);
	if (ub_scan_next(&scan))
	{
		slot_getallattrs(scan.slot);
		org_id = TextDatumGetCString(scan.slot->tts_values[1]);
	}
	ub_scan_end(&scan);
	return org_id;
}

/*
 * Returns the organisation that org_id or project_id of the choice names, null
 * if it names none.
 */
static char *
choice_org(const UbChoice *choice, const char *scope, Snapshot snapshot)
{
	char *org_id = NULL;

	if (choice->org_id.len > 0)
		org_id = slice_string(choice->org_id);
	else if (choice->project_id.len > 0)
	{
		org_id = project_org(choice->project_id, snapshot);
		if (org_id == NULL && scope == NULL)
			ereport(ERROR,
					(errcode(UB_ERRCODE_NOT_FOUND), errmsg("project not found"),
					 errdetail("project_id \"%s\" is unknown.",
							   ub_clip(choice->project_id.data,
									   choice->project_id.len)),
					 errhint(
						 "Create it with create_project, or check the id.")));
		if (org_id == NULL)
			ub_error_forbidden();
	}
	if (org_id != NULL && scope != NULL && strcmp(org_id, scope) != 0)
		ub_error_forbidden();
	return org_id;
}

/*
 * Finds the account that a call means, by the contract's rules of account
 * choice, and refuses what the request's token doesn't cover.
 */
static void
choice_account(const UbChoice *choice, Snapshot snapshot, UbAccount *account)
{
	const char *scope = ub_access_scope();
	char *org_id;

	ub_value_check_length(UB_PLACE_PARAMETER, "billing_id", choice->billing_id, UB_ID_BYTES);
	ub_value_check_length(UB_PLACE_PARAMETER, "org_id", choice->org_id, UB_ID_BYTES);
	ub_value_check_length(UB_PLACE_PARAMETER, "project_id", choice->project_id, UB_ID_BYTES);
	if (choice->org_id.len > 0 && choice->project_id.len > 0)
		ub_value_error(UB_PLACE_PARAMETER, "project_id",
					   ERRCODE_INVALID_PARAMETER_VALUE, "stands beside org_id",
					   "Give billing_id, or org_id, or project_id.");
	org_id = choice_org(choice, scope, snapshot);

	if (choice->billing_id.len > 0)
	{
		if (!ub_account_find(ub_value_text(choice->billing_id), snapshot,
							 account))
		{
			if (scope != NULL)
				ub_error_forbidden();
			ub_error_no_account("billing_id", slice_string(choice->billing_id));
		}
		if (scope != NULL && strcmp(account->org_id, scope) != 0)
			ub_error_forbidden();
		if (org_id != NULL && strcmp(account->org_id, org_id) != 0)
			ub_value_error(UB_PLACE_PARAMETER, "billing_id",
						   ERRCODE_INVALID_PARAMETER_VALUE,
						   choice->org_id.len > 0 ?
							   "does not belong to org_id" :
							   "does not belong to the organisation of project_id",
						   "Give only one of them.");
		return;
	}

	if (org_id == NULL && scope == NULL)
		ub_value_error(UB_PLACE_PARAMETER, "billing_id",
					   ERRCODE_INVALID_PARAMETER_VALUE,
					   "is missing, and so are org_id and project_id",
					   "Give one of them, or use a token that names the organisation.");
	if (org_id == NULL)
		org_id = pstrdup(scope);
	if (!ub_account_of_org(org_id, snapshot, account))
		ub_error_no_account("org_id", org_id);
}

/* The same, holding on to the snapshot while it is used. */
void
ub_access_account(const UbChoice *choice, Snapshot snapshot, UbAccount *account)
{
	Snapshot held = RegisterSnapshot(snapshot);

	choice_account(choice, held, account);
	UnregisterSnapshot(held);
}

UbSlice
ub_access_text_arg(FunctionCallInfo fcinfo, int n)
{
	return ub_value_slice(PG_ARGISNULL(n) ? NULL : PG_GETARG_TEXT_PP(n));
}

/* The parameters billing_id, org_id, project_id, beginning with number first. */
UbChoice
ub_access_choice(FunctionCallInfo fcinfo, int first)
{
	UbChoice choice;

	choice.billing_id = ub_access_text_arg(fcinfo, first);
	choice.org_id = ub_access_text_arg(fcinfo, first + 1);
	choice.project_id = ub_access_text_arg(fcinfo, first + 2);
	return choice;
}

/* An argument of type timestamptz, null if it is null. */
const TimestampTz *
ub_access_time_arg(FunctionCallInfo fcinfo, int n)
{
	TimestampTz *result;

	if (PG_ARGISNULL(n))
		return NULL;
	result = palloc(sizeof(TimestampTz));
	*result = PG_GETARG_TIMESTAMPTZ(n);
	return result;
}

/*
 * SQL: request_org(), for the row-level security policies: the organisation
 * that the request is scoped to, null if it may see all.
 */
Datum
ub_request_org(PG_FUNCTION_ARGS)
{
	const char *scope = ub_access_scope();

	if (scope == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(scope));
}

/*
 * SQL: request_accounts(), likewise: the accounts of that organisation, null
 * if the request may see all.
 */
Datum
ub_request_accounts(PG_FUNCTION_ARGS)
{
	const char *scope = ub_access_scope();
	ArrayBuildState *accounts;
	UbScan scan;
	ScanKeyData key;

	if (scope == NULL)
		PG_RETURN_NULL();
	accounts = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	ub_scan_key_text(&key, 1, CStringGetTextDatum(scope));
	ub_scan_begin(&scan, ub_catalog()->billing_account,
				  ub_catalog()->billing_account_org, GetActiveSnapshot(), &key,
				  1);
	while (ub_scan_next(&scan))
	{
		slot_getsomeattrs(scan.slot, 1);
		accounts = accumArrayResult(accounts, scan.slot->tts_values[0], false,
									TEXTOID, CurrentMemoryContext);
	}
	ub_scan_end(&scan);
	PG_RETURN_DATUM(makeArrayResult(accounts, CurrentMemoryContext));
}
