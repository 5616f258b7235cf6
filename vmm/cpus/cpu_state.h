/* Reading and writing everything that a vCPU is, through the KVM API. */
#ifndef QUMRA_VMM_CPUS_CPU_STATE_H
#define QUMRA_VMM_CPUS_CPU_STATE_H

#include "vmm/cpus/topology.h"
#include "vmm/firmware/boot.h"
#include "vmm/kvm/kvm.h"

struct cpu_state;

/* The vCPU must not run. cpu_state_get allocates; free with free(). */
int cpu_state_get(const struct kvm *kvm, int fd, struct cpu_state **state, struct error *err);
int cpu_state_set(const struct kvm *kvm, int fd, const struct cpu_state *state, struct error *err);
/* What firmware does on each CPU, over a power-on state. */
void cpu_state_set_firmware(const struct kvm *kvm, int fd);
/* Registers of the boot CPU for a kernel's first instruction. */
int cpu_state_set_boot(
	const struct kvm *kvm, int fd, const struct boot_entry *entry, struct error *err);
/* The CPUID that the guest sees on CPU index. */
int cpu_cpuid_set(const struct kvm *kvm, int fd, const struct cpu_topology *t, unsigned index,
	struct error *err);

#endif
