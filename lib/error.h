/*
 * An error on its way up: one line for the person, and whose fault it was. Deep code fills it in
 * and returns -errno; only main turns it into output and an exit status.
 */
#ifndef QUMRA_LIB_ERROR_H
#define QUMRA_LIB_ERROR_H

#include "lib/types.h"

enum error_kind {
	ERROR_NONE,
	ERROR_FAILURE,	/* the environment or we failed */
	ERROR_USAGE,	/* the caller asked for something that cannot be */
};

struct error {
	enum error_kind kind;
	char text[512];
};

#define ERROR_INIT { .kind = ERROR_NONE }

/* Both keep an earlier error, accept err == NULL, and return -errnum. The text has no final
 * newline. */
int error_set(struct error *err, int errnum, const char *fmt, ...) __printf_(3, 4);
int error_usage(struct error *err, const char *fmt, ...) __printf_(2, 3);

#endif
