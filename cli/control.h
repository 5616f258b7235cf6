/* The command `qumra control`: one command to the control socket of a machine that runs. */
#ifndef QUMRA_CLI_CONTROL_H
#define QUMRA_CLI_CONTROL_H

#include "lib/error.h"

/* Returns the exit status; a failure with err filled in. */
int control_command(int argc, char *const argv[], struct error *err);

#endif
