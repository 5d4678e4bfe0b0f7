/*
 * roster.h
 *		Which databases have a worker, in shared memory: how the launcher, the
 *		workers and the sessions that have work for them find each other.
 */
#ifndef UB_ROSTER_H
#define UB_ROSTER_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/latch.h"

/*
 * The life of a post. The launcher opens it and closes it; the worker that
 * takes it moves it on from there. "ended" is also what is left of a worker
 * that died.
 */
typedef enum UbPostState
{
	UB_POST_CLOSED,
	UB_POST_OPEN,	 /* a worker was asked for */
	UB_POST_TAKEN,	 /* it runs */
	UB_POST_SERVING, /* it found work to do in its database */
	UB_POST_ENDED
} UbPostState;

/* Why a worker ended. */
typedef enum UbPostEnd
{
	UB_END_DIED,
	UB_END_UNWANTED, /* its database has no use for a worker */
	UB_END_RELOAD,	 /* another one shall read the settings */
	UB_END_TURN		 /* others wait for their turn */
} UbPostEnd;

typedef struct UbPost
{
	Oid database;
	UbPostState state;
	UbPostEnd end;
	uint32 number; /* of the one worker that may take it */
	pid_t pid;
	Latch *latch;
	TimestampTz changed_at;
} UbPost;

extern void ub_roster_init(void);

/* For any session; without preloading they do nothing. */
extern void ub_roster_hint_at_commit(void);
extern void ub_roster_posted(int deltas);

/* For the launcher. */
extern void ub_roster_attach_launcher(void);
extern int ub_roster_size(void);
extern UbPost ub_roster_look(int post);
extern int ub_roster_open(Oid database);
extern void ub_roster_close(int post);
extern void ub_roster_stop(int post);
extern void ub_roster_set_crowded(bool crowded);
extern List *ub_roster_take_hints(bool *overflowed);

/* For a worker. */
extern Oid ub_roster_take(int post, uint32 number);
extern void ub_roster_serve(void);
extern void ub_roster_end(UbPostEnd end);
extern bool ub_roster_crowded(void);

#endif /* UB_ROSTER_H */
