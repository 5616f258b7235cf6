/*
 * Counters of a vCPU, as its hypervisor counts: whichever it has, by its own names. KVM's binary
 * statistics, api.rst 4.130.
 */
#ifndef QUMRA_VMM_KVM_STATS_H
#define QUMRA_VMM_KVM_STATS_H

#include "vmm/kvm/kvm.h"

struct kvm_stat {
	char name[48];
	u64 value;
};

/* Zero is an empty one. Histograms are left out. */
struct kvm_stats {
	unsigned n;
	struct kvm_stat *stat;
};

/* fd: the vCPU's. 0, or -errno and *s empty: the hypervisor may have none. */
int kvm_stats_read(const struct kvm *kvm, int fd, struct kvm_stats *s);
/* Adds from to sum by name; what sum does not have yet is appended. 0 or -ENOMEM. */
int kvm_stats_add(struct kvm_stats *sum, const struct kvm_stats *from);
void kvm_stats_free(struct kvm_stats *s);

#endif
