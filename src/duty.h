/*
 * duty.h
 *		The duties that keep derived state small and fresh, cut into steps that
 *		are a transaction (or subtransaction) each.
 */
#ifndef UB_DUTY_H
#define UB_DUTY_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "delta.h"

/* In alphabetical order, as maintenance_status shows them. */
typedef enum UbDuty
{
	UB_DUTY_FOLD,
	UB_DUTY_PACK_HOURS,
	UB_DUTY_STORAGE_RECOUNT,
	UB_DUTY_STORAGE_REFRESH,
	UB_DUTY_VACUUM_DELTAS
} UbDuty;

#define UB_DUTIES (UB_DUTY_VACUUM_DELTAS + 1)

/* What failed and when it is tried again; all of it lives in context. */
typedef struct UbSetbacks
{
	MemoryContext context;
	List *list;
} UbSetbacks;

/*
 * One pass of a duty. A step works on one unit (an account, an organisation, a
 * table), or on the duty as a whole where unit is null.
 */
typedef struct UbPass
{
	UbDuty duty;
	UbSetbacks *setbacks;
	MemoryContext context; /* of what the pass remembers from step to step */
	bool active;
	bool done; /* the last step had nothing left */
	TimestampTz started;
	uint64 rows;
	int failures;
	char *unit;
	char *error; /* what failed last, for the status; null: nothing did */
	bool report; /* it isn't known yet: log it */

	/* where the next step goes on */
	bool begun;
	List *units;
	List *relations; /* of the units, if they are tables */
	UbFoldCursor cursor;
	int singly; /* accounts to be folded one by one */
	text *after;
	TimestampTz from;
	TimestampTz until;
} UbPass;

extern const char *ub_duty_name(UbDuty duty);

extern bool ub_setbacks_due(UbSetbacks *setbacks, UbDuty duty,
							const char *unit, TimestampTz now);

extern void ub_pass_begin(UbPass *pass, UbDuty duty, UbSetbacks *setbacks,
						  MemoryContext context);
extern void ub_pass_step(UbPass *pass);
extern void ub_pass_succeeded(UbPass *pass);
extern void ub_pass_failed(UbPass *pass, const ErrorData *error);

#endif /* UB_DUTY_H */
