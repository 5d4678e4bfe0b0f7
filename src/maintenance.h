/*
 * maintenance.h
 *		One pass of the duties that keep derived state small.
 */
#ifndef UB_MAINTENANCE_H
#define UB_MAINTENANCE_H

extern uint64 ub_maintenance_fold(uint64 limit);

#endif /* UB_MAINTENANCE_H */
