/*
 * errors.c
 *		The errors that several subjects raise, one function each.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "errors.h"
#include "stats.h"

/* How much of a caller's text a detail quotes, in bytes. */
#define UB_QUOTED_BYTES 64

/*
 * Returns text (len bytes, not necessarily terminated) shortened to what a
 * detail quotes, in the current memory context.
 */
const char *
ub_clip(const char *text, int len)
{
	int kept = len;

	if (len > UB_QUOTED_BYTES)
		kept = pg_mbcliplen(text, len, UB_QUOTED_BYTES);
	return psprintf("%.*s%s", kept, text, kept < len ? "..." : "");
}

void
ub_error_parameter(const char *parameter, const char *found)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid parameter"),
			 errdetail("%s %s.", parameter, found)));
}

/*
 * The same for what belongs to somebody else and for what doesn't exist, so
 * that a token can't be used to find out which it is.
 */
void
ub_error_forbidden(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("not permitted for this token"),
			 errdetail("The account, organisation or project is not one of the token's organisation."),
			 errhint("Ask for what belongs to the organisation that the token names.")));
}

void
ub_error_no_account(const char *field, const char *found)
{
	ereport(ERROR,
			(errcode(UB_ERRCODE_NOT_FOUND),
			 errmsg("billing account not found"),
			 errdetail("%s \"%s\" has no billing account.", field,
					   ub_clip(found, strlen(found))),
			 errhint("Create it with create_billing_account, or check the id.")));
}

void
ub_error_closed(const char *billing_id)
{
	ereport(ERROR,
			(errcode(UB_ERRCODE_ACCOUNT_CLOSED),
			 errmsg("billing account is closed"),
			 errdetail("Account \"%s\" takes nothing new; reverts and repeated calls still work.",
					   billing_id),
			 errhint("Use another account, or set this one's state to active again.")));
}

/* in_flight: what others have taken and not committed yet; null if nothing. */
void
ub_error_credits(const char *billing_id, const char *balance,
				 const char *in_flight, const char *asked, int64 credit_min)
{
	ub_stats_add(UB_STAT_REFUSED, 1);
	ereport(ERROR,
			(errcode(UB_ERRCODE_INSUFFICIENT_CREDITS),
			 errmsg("insufficient credits"),
			 in_flight == NULL ?
				 errdetail("Account \"%s\" has a balance of %s; the call takes %s and may not leave less than " INT64_FORMAT ".",
						   billing_id, balance, asked, credit_min) :
				 errdetail("Account \"%s\" has a balance of %s, of which other calls are taking %s; the call takes %s and may not leave less than " INT64_FORMAT ".",
						   billing_id, balance, in_flight, asked, credit_min),
			 errhint("Grant credits to the account, or lower its credit_min.")));
}

void
ub_error_not_trigger(const char *function)
{
	ereport(ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("function was not called as the trigger that it is"),
			 errdetail("%s belongs to the triggers of the extension's own tables.", function)));
}

/*
 * element: where the second payload stands ("usages[3]"), or null.
 */
void
ub_error_reused(const char *element, const char *id, const char *fields)
{
	ub_stats_add(UB_STAT_CONFLICTS, 1);
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("id was used before with another payload"),
			 errdetail("%s%sid %s is stored with another %s.",
					   element ? element : "", element ? ": " : "", id, fields),
			 errhint("Repeat a call with exactly the same payload, or use a new id.")));
}

void
ub_error_sum_range(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("sum out of range"),
			 errdetail("%s would leave the range of bigint.", what),
			 errhint("Use a smaller amount, or another account.")));
}
