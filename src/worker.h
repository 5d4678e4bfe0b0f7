/*
 * worker.h
 *		The process that maintains one database.
 */
#ifndef UB_WORKER_H
#define UB_WORKER_H

#include "postmaster/bgworker.h"

extern bool ub_worker_start(int post, uint32 number,
							BackgroundWorkerHandle **handle);

#endif /* UB_WORKER_H */
