/* The commands of the control socket, apart from how they come in. */
#ifndef QUMRA_VMM_CONTROL_COMMANDS_H
#define QUMRA_VMM_CONTROL_COMMANDS_H

#include <jansson.h>

#include "vmm/vmm.h"

/*
 * What "return" says (a new reference), or NULL with err, ERROR_USAGE when there is no such command.
 * arguments: an object, or NULL.
 */
json_t *command_run(struct vmm *vmm, const char *name, json_t *arguments, struct error *err);

/* The greeting's version. */
json_t *command_version(void);

#endif
