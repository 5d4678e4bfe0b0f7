/*
 * storage.h
 *		Storage usage of organisations: refresh and recount.
 */
#ifndef UB_STORAGE_H
#define UB_STORAGE_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

extern List *ub_storage_changed_orgs(void);
extern void ub_storage_refresh_org(const char *org_id);
extern List *ub_storage_sources_due(TimestampTz before);
extern void ub_storage_count_source(Oid relation);
extern void ub_storage_recount_source(Oid relation);

#endif /* UB_STORAGE_H */
