/*
 * usage_billing.c
 *		The door of the library: what is set up when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "escrow.h"
#include "launcher.h"
#include "roster.h"
#include "settings.h"
#include "stats.h"

UB_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	ub_settings_init();
	/* pg_upgrade wants nobody to write */
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		ub_escrow_init();
		ub_roster_init();
		ub_launcher_init();
		ub_stats_init();
	}
}
