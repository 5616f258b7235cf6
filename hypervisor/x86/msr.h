/*
 * Model-specific registers: one table (x86/msr.c), a row each. SDM 4, APM 2 appendix A, Linux
 * Documentation/virt/kvm/x86/msr.rst for KVM's own.
 */
#ifndef QUMRA_HYPERVISOR_X86_MSR_H
#define QUMRA_HYPERVISOR_X86_MSR_H

#include "hypervisor/x86/vcpu.h"

struct msr_filter;

/*
 * host: the access comes from user space (KVM_GET_MSRS, KVM_SET_MSRS), which may also write what
 * the guest may only read. 0, -EINVAL, or -ENOENT for a register that is not known at all: #GP for
 * a guest, stop for the ioctl. No unwinding.
 */
int msr_read(struct vcpu *v, u32 index, u64 *val, bool host);
int msr_write(struct vcpu *v, u32 index, u64 val, bool host);

/* RDMSR and WRMSR, after the filter; what fails goes to user space or is #GP. May unwind. */
u64 msr_guest_read(struct vcpu *v, u32 index);
void msr_guest_write(struct vcpu *v, u32 index, u64 val);

/* KVM_X86_SET_MSR_FILTER. vm->lock held. 0 or -errno. */
int msr_filter_set(struct vm *vm, const struct kvm_msr_filter *in);
void msr_filter_free(struct msr_filter *f);	/* may be NULL */

/* KVM_GET_MSR_INDEX_LIST, KVM_GET_MSR_FEATURE_INDEX_LIST: returns the count, fills at most n. */
unsigned int msr_list(u32 *out, unsigned int n);
unsigned int msr_feature_list(u32 *out, unsigned int n);
int msr_feature_read(u32 index, u64 *val);

/* CPUID faults outside CPL 0: where PLATFORM_INFO says so, MISC_FEATURES_ENABLES may ask. SDM 4 */
#define PLATFORM_CPUID_FAULT	BIT(31)
#define MISC_CPUID_FAULT	BIT(0)

/* mce.c: KVM_X86_SETUP_MCE, KVM_X86_SET_MCE. 0 or -EINVAL. */
#define MCE_MAX_BANKS	32
#define MCG_CTL_P	BIT(8)
#define MCG_CMCI_P	BIT(10)
#define MCG_SER_P	BIT(24)
#define MCE_SUPPORTED	(MCG_CTL_P | MCG_CMCI_P | MCG_SER_P)
int mce_setup(struct vcpu *v, u64 cap);
int mce_inject(struct vcpu *v, const struct kvm_x86_mce *m);

void msr_reset(struct vcpu *v, bool init);

#endif
