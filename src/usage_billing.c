/*
 * usage_billing.c
 *		The door of the library: what is set up when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"

#include "compat.h"
#include "settings.h"

UB_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	ub_settings_init();
}
