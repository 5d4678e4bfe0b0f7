/*
 * access.h
 *		Who is asking, for which organisation, and which account is meant.
 */
#ifndef UB_ACCESS_H
#define UB_ACCESS_H

#include "fmgr.h"
#include "storage/itemptr.h"
#include "utils/snapshot.h"

#include "value.h"

/* What a function was told about the account that it works on. */
typedef struct UbChoice
{
	UbSlice billing_id;
	UbSlice org_id;
	UbSlice project_id;
} UbChoice;

/* A billing account as one snapshot sees it. */
typedef struct UbAccount
{
	text *billing_id;
	char *id; /* the same, as a C string for details */
	char *org_id;
	int64 credit_min;
	bool closed;
	bool is_default;
	bool has_last_billed_at;
	TimestampTz last_billed_at;
	TimestampTz created_at;
	ItemPointerData tid; /* where the row was */
	TransactionId xmin;	 /* and who wrote it */
} UbAccount;

extern const char *ub_access_scope(void);
extern void ub_access_require_unscoped(void);
extern char *ub_access_org(UbSlice org_id);

extern bool ub_account_find(text *billing_id, Snapshot snapshot,
							UbAccount *account);
extern void ub_account_require_open(text *billing_id, Snapshot snapshot,
									UbAccount *account);
extern void ub_account_look_again(UbAccount *account, Snapshot snapshot);
extern bool ub_account_of_org(const char *org_id, Snapshot snapshot,
							  UbAccount *account);
extern void ub_access_account(const UbChoice *choice, Snapshot snapshot,
							  UbAccount *account);
extern UbChoice ub_access_choice(FunctionCallInfo fcinfo, int first);

/* Arguments; a text is none if it is null or empty. */
extern UbSlice ub_access_text_arg(FunctionCallInfo fcinfo, int n);
extern const TimestampTz *ub_access_time_arg(FunctionCallInfo fcinfo, int n);

#endif /* UB_ACCESS_H */
