/* Can libsoftkvm.so go into a program? */
#ifndef QUMRA_CLI_PROGRAM_H
#define QUMRA_CLI_PROGRAM_H

#include <limits.h>

#include "lib/error.h"

/* As the shell has them. */
enum { PROGRAM_OK = 0, PROGRAM_UNFIT = 126, PROGRAM_MISSING = 127 };

/*
 * Finds name as execvp(3) does, and looks whether the dynamic linker would preload a library into
 * it. Fills in path; else answers PROGRAM_UNFIT or PROGRAM_MISSING with one line that says what to
 * do.
 */
int program_find(const char *name, char path[PATH_MAX], struct error *err);

#endif
