/* Reading and writing everything that a vCPU is, through the KVM API. */
#ifndef QUMRA_VMM_CPUS_CPU_STATE_H
#define QUMRA_VMM_CPUS_CPU_STATE_H

#include "vmm/firmware/boot.h"
#include "vmm/kvm/kvm.h"

struct cpu_state;

/* The vCPU must not run. cpu_state_get allocates; free with free(). */
int cpu_state_get(const struct kvm *kvm, int fd, struct cpu_state **state, struct error *err);
int cpu_state_set(const struct kvm *kvm, int fd, const struct cpu_state *state, struct error *err);
/* Registers for a kernel's first instruction, over a power-on state. */
int cpu_state_set_boot(
	const struct kvm *kvm, int fd, const struct boot_entry *entry, struct error *err);
/* The CPUID that the guest sees. */
int cpu_cpuid_set(const struct kvm *kvm, int fd, unsigned index, struct error *err);

#endif
