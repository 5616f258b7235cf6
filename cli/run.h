/* The command `qumra run`. */
#ifndef QUMRA_CLI_RUN_H
#define QUMRA_CLI_RUN_H

#include "lib/error.h"

/* What a process may end with. */
enum exit_status {
	STATUS_OK = 0,
	STATUS_FAILURE = 1,
	STATUS_USAGE = 2,
	STATUS_CRASHED = 3,
};

/*
 * Runs a VM. Returns the exit status; a failure with err filled in. *signal: the signal that ended
 * it, by which the caller ends as well, or 0. start_ns: monotonic time of the program's start.
 */
int run_command(
	int argc, char *const argv[], unsigned long long start_ns, int *signal, struct error *err);

#endif
