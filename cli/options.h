/* The options of `qumra run`. */
#ifndef QUMRA_CLI_OPTIONS_H
#define QUMRA_CLI_OPTIONS_H

#include "lib/error.h"
#include "vmm/cpus/topology.h"
#include "vmm/display/options.h"
#include "vmm/kvm/accel.h"
#include "vmm/machine/options.h"
#include "vmm/memory/backing.h"
#include "vmm/virtio/options.h"

#define RUN_COPIES_MAX 32
#define RUN_GIVEN_MAX 128

struct run_options {
	const char *kernel, *initrd, *append, *serial, *engine;
	char firmware_text[4096];	/* what these two point into; options must not move */
	const char *firmware, *firmware_vars;
	enum accel accel;
	u64 memory;
	struct memory_backing backing;
	u64 code_cache;	/* bytes; 0: the default */
	struct cpu_topology cpus;
	struct machine_options machine;
	bool no_reboot, debug_exit, stats, help, firmware_log;
	struct virtio_options virtio;
	struct screen_options screen;
	const char *control;	/* path of a socket, or NULL */
	bool virtio_named;	/* --virtio was given */
	char *copy[RUN_COPIES_MAX];	/* of values that were taken apart */
	unsigned copies;
	char *config_text;	/* of --config, taken apart */
	bool dry_run;
	/* What was given, in order, by index of the option; value: NULL where it takes none. */
	struct run_given {
		unsigned option;
		const char *value;
	} given[RUN_GIVEN_MAX];
	unsigned givens;
};

/* argv without the program's and the command's name. A usage error is one line. */
int run_options_parse(struct run_options *o, int argc, char *const argv[], struct error *err);
/* Also after a parse that failed. */
void run_options_free(struct run_options *o);

/* The name in names (n of them) most like word, or NULL when none is near. */
const char *nearest_name(const char *word, const char *const *names, size_t n);

/* One line for an option in the help: "--kernel FILE" and what it does. NULL behind the last. */
const char *run_option_help(unsigned index, char *buf, size_t size);
/* An option's name by its index; NULL behind the last. */
const char *run_option_name(unsigned index);

#endif
