/*
 * settings.h
 *		What a superuser can set, in alphabetical order.
 */
#ifndef UB_SETTINGS_H
#define UB_SETTINGS_H

extern int ub_max_batch_size;
extern int ub_max_future; /* seconds */
extern char *ub_org_claim;
extern bool ub_restoring;
extern bool ub_revert_once;
extern char *ub_service_role;

extern void ub_settings_init(void);

#endif /* UB_SETTINGS_H */
