/* What qumra says about itself. */
#ifndef QUMRA_CLI_HELP_H
#define QUMRA_CLI_HELP_H

#include <stdio.h>

void help_main(FILE *out);
void help_run(FILE *out);
void help_control(FILE *out);

#endif
