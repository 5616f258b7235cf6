/*
 * ioctls of paravirtual interfaces: KVM's own and Hyper-V's. api.rst 4.86 (KVM_KVMCLOCK_CTRL), 4.113
 * (KVM_HYPERV_EVENTFD), 4.118 (KVM_GET_SUPPORTED_HV_CPUID), 6.30 and section 8 (capabilities).
 */
#include "hypervisor/api/api.h"
#include "hypervisor/x86/hyperv.h"

_Static_assert(sizeof(struct kvm_hyperv_eventfd) == 24, "ABI");

/* The count goes out with the head, when there was room. */
static long hv_cpuid_out(struct call *c, bool lapic)
{
	struct kvm_cpuid_entry2 e[HV_CPUID_LEAVES];
	struct kvm_cpuid2 *head = c->data;

	if (head->nent < HV_CPUID_LEAVES)
		return -E2BIG;
	head->nent = HV_CPUID_LEAVES;
	hv_cpuid_supported(lapic, e);
	return os_user_write(c->arg + sizeof(*head), e, sizeof(e));
}

long sys_get_hv_cpuid(struct call *c)
{
	return hv_cpuid_out(c, true);
}

long vcpu_get_hv_cpuid(struct call *c)
{
	return hv_cpuid_out(c, c->v->lapic);
}

long vm_hyperv_eventfd(struct call *c)
{
	return hv_eventfd(c->vm, c->data);
}

long vcpu_kvmclock_ctrl(struct call *c)
{
	if (!(c->v->msr.kvm_system_time & 1))
		return -EINVAL;
	c->v->pv.guest_stopped = true;
	vcpu_request(c->v, REQ_CLOCK_UPDATE);
	return 0;
}

static int enable_synic(struct vcpu *v, bool keep_pages)
{
	return v->lapic ? hv_enable_synic(v, keep_pages) : -EINVAL;
}

int pv_enable_cap(struct vcpu *v, const struct kvm_enable_cap *cap)
{
	switch (cap->cap) {
	case KVM_CAP_HYPERV_SYNIC2:
		return cap->args[0] ? -EINVAL : enable_synic(v, true);
	case KVM_CAP_HYPERV_SYNIC:
		return enable_synic(v, false);
	case KVM_CAP_HYPERV_ENFORCE_CPUID:
		return hv_enable_enforce(v, cap->args[0]);
	case KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
		return pv_enable_enforce(v, cap->args[0]);
	case KVM_CAP_HYPERV_ENLIGHTENED_VMCS:
	case KVM_CAP_HYPERV_DIRECT_TLBFLUSH:
		return -ENOTTY;	/* for a nested hypervisor */
	default:
		return -EINVAL;
	}
}
