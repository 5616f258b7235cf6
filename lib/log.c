/* Messages: see log.h. */
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/log.h"

void log_line(const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* The terminal may be raw, where a newline alone does not return to the left. One write:
	 * lines of several threads do not mix. */
	dprintf(STDERR_FILENO, "qumra: %s%s", text, isatty(STDERR_FILENO) ? "\r\n" : "\n");
}
