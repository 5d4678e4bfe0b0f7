/*
 * launcher.h
 *		The process that finds databases and starts a worker for each.
 */
#ifndef UB_LAUNCHER_H
#define UB_LAUNCHER_H

extern void ub_launcher_init(void);

#endif /* UB_LAUNCHER_H */
