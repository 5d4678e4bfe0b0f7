/*
 * settings.h
 *		What a superuser can set, in alphabetical order.
 */
#ifndef UB_SETTINGS_H
#define UB_SETTINGS_H

extern bool ub_escrow;
extern int ub_escrow_accounts;
extern int ub_fold_interval; /* milliseconds */
extern bool ub_maintenance_worker;
extern int ub_max_batch_size;
extern int ub_max_future; /* seconds */
extern char *ub_org_claim;
extern bool ub_restoring;
extern bool ub_revert_once;
extern char *ub_service_role;
extern int ub_storage_recount_interval; /* seconds */
extern int ub_storage_refresh_interval; /* seconds */

extern void ub_settings_init(void);

#endif /* UB_SETTINGS_H */
