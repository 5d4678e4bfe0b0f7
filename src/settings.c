/*
 * settings.c
 *		What a superuser can set, in alphabetical order.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "settings.h"

int ub_max_batch_size = 10000;
int ub_max_future = 300;
char *ub_org_claim = NULL;
bool ub_restoring = false;
bool ub_revert_once = true;
char *ub_service_role = NULL;

/*
 * Defines every setting. Called once, when the library is loaded.
 */
void
ub_settings_init(void)
{
	DefineCustomIntVariable("usage_billing.max_batch_size",
							"Most elements that one create_usage call may carry.",
							NULL, &ub_max_batch_size, 10000, 1, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("usage_billing.max_future",
							"How far ahead of the server's clock a usage may have happened.",
							NULL, &ub_max_future, 300, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	DefineCustomStringVariable("usage_billing.org_claim",
							   "Name of the token's claim that holds the organisation's id.",
							   NULL, &ub_org_claim, "org_id",
							   PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable("usage_billing.restoring",
							 "Accept facts of accounts that are not there yet.",
							 NULL, &ub_restoring, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomBoolVariable("usage_billing.revert_once",
							 "Let revert_usage revert a usage only once.",
							 NULL, &ub_revert_once, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);

	DefineCustomStringVariable("usage_billing.service_role",
							   "Role whose members may use tokens without an organisation.",
							   NULL, &ub_service_role, "",
							   PGC_SUSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("usage_billing");
}
