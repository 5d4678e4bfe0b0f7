/*
 * source.h
 *		Tables that are tracked for storage usage.
 */
#ifndef UB_SOURCE_H
#define UB_SOURCE_H

#include "nodes/pg_list.h"

#include "query.h"
#include "utils/uuid.h"

/* A tracked table: a row of storage_source. */
typedef struct UbSource
{
	Oid relation;
	pg_uuid_t id;
	char *org_column;
	char *bytes_column;
	char *kind;			   /* null where kind_column is given, or neither */
	char *kind_column;	   /* may be null */
	char *duration_column; /* may be null */
} UbSource;

extern List *ub_sources(void);
extern bool ub_source_find(Oid relation, UbSource *source);
extern bool ub_source_lock(const UbSource *source);
extern void ub_source_count(const UbSource *source, const char *org_id,
							Snapshot snapshot, UbRows *rows, bool quote);

#endif /* UB_SOURCE_H */
