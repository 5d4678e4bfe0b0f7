/*
 * errors.h
 *		The SQLSTATEs of the contract and the errors that several subjects
 *		raise. Messages are constant text: what a caller sent goes into the
 *		detail only.
 */
#ifndef UB_ERRORS_H
#define UB_ERRORS_H

#include "compat.h"

#define UB_ERRCODE_INSUFFICIENT_CREDITS MAKE_SQLSTATE('U', 'B', '0', '0', '1')
#define UB_ERRCODE_REVERT_EXCEEDS		MAKE_SQLSTATE('U', 'B', '0', '0', '2')
#define UB_ERRCODE_ACCOUNT_CLOSED		MAKE_SQLSTATE('U', 'B', '0', '0', '3')
#define UB_ERRCODE_APPEND_ONLY			MAKE_SQLSTATE('U', 'B', '0', '0', '4')
#define UB_ERRCODE_NOT_FOUND			MAKE_SQLSTATE('P', 'T', '4', '0', '4')

extern const char *ub_clip(const char *text, int len);

UB_NORETURN extern void ub_error_parameter(const char *parameter,
										   const char *found);
UB_NORETURN extern void ub_error_forbidden(void);
UB_NORETURN extern void ub_error_no_account(const char *field,
											const char *found);
UB_NORETURN extern void ub_error_closed(const char *billing_id);
UB_NORETURN extern void ub_error_credits(const char *billing_id,
										 const char *balance,
										 const char *in_flight,
										 const char *asked, int64 credit_min);
UB_NORETURN extern void ub_error_not_trigger(const char *function);
UB_NORETURN extern void ub_error_reused(const char *element, const char *id,
										const char *fields);
UB_NORETURN extern void ub_error_sum_range(const char *what);

#endif /* UB_ERRORS_H */
