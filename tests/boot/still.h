/*
 * A machine that stands still whenever it is told to: at each byte on descriptor 3, until its end or
 * a q.
 */
#ifndef QUMRA_TESTS_BOOT_STILL_H
#define QUMRA_TESTS_BOOT_STILL_H

#include "vmm/vmm.h"

/*
 * Runs the machine until the guest powers it off. still() is called with its lock held and its vCPUs
 * parked. Whoever commands has closed the descriptor, or said q, when the guest ends. A status for
 * exit(3); what went wrong is told on standard error, behind the name.
 */
int still_run(const char *name, const struct vmm_config *config, void (*still)(struct vmm *vmm));

/* Saves and loads, as in a copy of the machine. */
void still_reload(const struct device *dev);

#endif
