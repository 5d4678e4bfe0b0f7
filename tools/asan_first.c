/*
 * asan_first.c
 *		Starts AddressSanitizer before anything else.
 *
 * It starts with the first call of malloc. In the server's program that comes
 * from a library's initializer, within gettext and under its lock, which
 * starting then waits for. This is preloaded beside the sanitizer's runtime and
 * linked with -z initfirst, so that its constructor is the first of all.
 */
#include <stdlib.h>

static void __attribute__((constructor))
first(void)
{
	void *volatile memory = malloc(1);

	free(memory);
}
