/*
 * pack.h
 *		Putting an account's hours close together on disk.
 */
#ifndef UB_PACK_H
#define UB_PACK_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* Some accounts that follow each other, and those of them that are scattered. */
typedef struct UbPackGroup
{
	text *last;
	List *scattered; /* text * */
} UbPackGroup;

extern bool ub_pack_period(TimestampTz *from, TimestampTz *until);
extern bool ub_pack_look(text *after, TimestampTz from, TimestampTz until,
						 UbPackGroup *group);
extern uint64 ub_pack_move(const UbPackGroup *group, TimestampTz from,
						   TimestampTz until);
extern void ub_pack_done(TimestampTz until);

#endif /* UB_PACK_H */
