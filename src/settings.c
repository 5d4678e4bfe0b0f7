/*
 * settings.c
 *		What a superuser can set, in alphabetical order.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "settings.h"

bool ub_escrow = true;
int ub_escrow_accounts = 8192;
int ub_fold_interval = 1000;
bool ub_maintenance_worker = true;
int ub_max_batch_size = 10000;
int ub_max_future = 300;
char *ub_org_claim = NULL;
bool ub_restoring = false;
bool ub_revert_once = true;
char *ub_service_role = NULL;
int ub_storage_recount_interval = 86400;
int ub_storage_refresh_interval = 60;

/*
 * Defines every setting. Called once, when the library is loaded.
 */
void
ub_settings_init(void)
{
	DefineCustomBoolVariable("usage_billing.escrow",
							 "Admit usage by counters in shared memory, without any queue.",
							 "It takes shared_preload_libraries to have them. When off, admissions to one account take turns.",
							 &ub_escrow, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable(
		"usage_billing.escrow_accounts",
		"How many accounts can have a counter at the same time.",
		"Those used longest ago make room for others.", &ub_escrow_accounts,
		8192, 8, 10000000,
		/* the server allows it only while it starts */
		process_shared_preload_libraries_in_progress ? PGC_POSTMASTER :
													   PGC_SIGHUP,
		0, NULL, NULL, NULL);

	DefineCustomIntVariable("usage_billing.fold_interval",
							"How long after one pass of folding the next one begins.",
							NULL, &ub_fold_interval, 1000, 10, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	DefineCustomBoolVariable("usage_billing.maintenance_worker",
							 "Have a background worker maintain the database.",
							 "It takes shared_preload_libraries to have one. ALTER DATABASE can turn it off for one database.",
							 &ub_maintenance_worker, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);

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

	DefineCustomIntVariable(
		"usage_billing.storage_recount_interval",
		"How long after a count a tracked table is counted anew.", NULL,
		&ub_storage_recount_interval, 86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S,
		NULL, NULL, NULL);

	DefineCustomIntVariable(
		"usage_billing.storage_refresh_interval",
		"How often organisations with storage changes are refreshed.", NULL,
		&ub_storage_refresh_interval, 60, 1, 24 * 3600, PGC_SIGHUP, GUC_UNIT_S,
		NULL, NULL, NULL);

	MarkGUCPrefixReserved("usage_billing");
}
