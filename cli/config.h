/*
 * Options in a file: one on each line, "NAME VALUE" or "NAME=VALUE", as on the command line without the
 * dashes. Blank lines, and those that begin with #, say nothing. --dry-run prints such a file.
 */
#ifndef QUMRA_CLI_CONFIG_H
#define QUMRA_CLI_CONFIG_H

#include "cli/options.h"
#include "vmm/kvm/accel.h"

/* No value begins or ends with one. */
#define CONFIG_BLANKS " \t\r"

/*
 * Calls take for each line that says something, without blanks around it; the text lives as long as the
 * options. A failure's message gets the file and the line before it.
 */
int config_read(struct run_options *o, const char *file,
	int (*take)(struct run_options *o, char *line, void *arg, struct error *err), void *arg,
	struct error *err);

/* What follows a name: without the blanks, and the first '=', before it. */
const char *config_value(const char *text);

/*
 * dry_run.c: the machine, with all that is decided where nothing was said, and, in comments, what no option
 * says: what runs it, firmware's files, what is where on PCI. Fails where a file cannot say a value.
 */
int config_print(const struct run_options *o, const struct accel_choice *choice, struct error *err);

#endif
