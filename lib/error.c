/* The error object: see error.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "lib/error.h"

static void error_fill(struct error *err, enum error_kind kind, const char *fmt, va_list ap)
{
	if (!err || err->kind != ERROR_NONE)
		return;
	err->kind = kind;
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	/* One error is one line, whatever bytes a file name holds. */
	for (char *c = err->text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

int error_set(struct error *err, int errnum, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_fill(err, ERROR_FAILURE, fmt, ap);
	va_end(ap);
	return -errnum;
}

int error_usage(struct error *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	error_fill(err, ERROR_USAGE, fmt, ap);
	va_end(ap);
	return -EINVAL;
}
