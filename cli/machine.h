/* --machine and what belongs to it. */
#ifndef QUMRA_CLI_MACHINE_H
#define QUMRA_CLI_MACHINE_H

#include "cli/options.h"

int machine_parse(struct run_options *o, const char *value, struct error *err);
int memory_parse(struct run_options *o, const char *value, struct error *err);
int numa_parse(struct run_options *o, const char *value, struct error *err);
/* As on the command line. */
const char *machine_name(enum machine_kind kind);
/* All options are there: do they go together? Fills in what follows from the board. */
int machine_settle(struct run_options *o, struct error *err);

#endif
