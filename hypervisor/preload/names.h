/* Names of <linux/kvm.h> for people. */
#ifndef QUMRA_HYPERVISOR_PRELOAD_NAMES_H
#define QUMRA_HYPERVISOR_PRELOAD_NAMES_H

#define NR_EXITS 64	/* exit reasons are below */

/* "KVM_EXIT_IO" and so on. */
const char *exit_name(unsigned int reason);

#endif
