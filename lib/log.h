/* Lines for the person at the terminal, on standard error, each begun with "qumra: ". */
#ifndef QUMRA_LIB_LOG_H
#define QUMRA_LIB_LOG_H

#include "lib/types.h"

/* One line; the text has no newline. Any thread. */
void log_line(const char *fmt, ...) __printf_(1, 2);

#endif
