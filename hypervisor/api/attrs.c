/*
 * Device attributes of descriptors that are no devices: a vCPU's TSC offset, and what the system can
 * offer. Linux Documentation/virt/kvm/api.rst 4.80, 4.81; devices/vcpu.rst 4 (KVM_VCPU_TSC_CTRL).
 */
#include "hypervisor/api/api.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/system.h"

_Static_assert(sizeof(struct kvm_device_attr) == 24, "ABI");

static const struct kvm_device_attr *attr_of(const struct call *c)
{
	return c->data;
}

/* ---- vCPU ---------------------------------------------------------------------------------- */

static bool vcpu_attr_known(const struct kvm_device_attr *a)
{
	return a->group == KVM_VCPU_TSC_CTRL && a->attr == KVM_VCPU_TSC_OFFSET;
}

long vcpu_has_attr(struct call *c)
{
	return vcpu_attr_known(attr_of(c)) ? 0 : -ENXIO;
}

long vcpu_get_attr(struct call *c)
{
	const struct kvm_device_attr *a = attr_of(c);

	if (!vcpu_attr_known(a))
		return -ENXIO;
	return os_user_write(a->addr, &c->v->tsc_offset, sizeof(c->v->tsc_offset));
}

long vcpu_set_attr(struct call *c)
{
	const struct kvm_device_attr *a = attr_of(c);
	u64 offset;

	if (!vcpu_attr_known(a))
		return -ENXIO;
	if (os_user_read(&offset, a->addr, sizeof(offset)))
		return -EFAULT;
	WRITE_ONCE(c->v->tsc_offset, offset);
	tsc_changed(c->v);
	return 0;
}

/* ---- system -------------------------------------------------------------------------------- */

#define MAX_ENTRIES	ARRAY_SIZE(((struct vcpu *)0)->cpuid)
#define LEAF_XSTATE	0xdu

static bool sys_attr_known(const struct kvm_device_attr *a)
{
	return !a->group && a->attr == KVM_X86_XCOMP_GUEST_SUPP;
}

static u64 xcr0_supported(const struct kvm_cpuid_entry2 *e, int n)
{
	for (; n > 0; n--, e++)
		if (e->function == LEAF_XSTATE && !e->index)
			return e->eax | (u64)e->edx << 32;
	return 0;
}

long sys_has_attr(struct call *c)
{
	return sys_attr_known(attr_of(c)) ? 0 : -ENXIO;
}

long sys_get_attr(struct call *c)
{
	const struct kvm_device_attr *a = attr_of(c);
	struct kvm_cpuid_entry2 *e;
	u64 xcr0;

	if (!sys_attr_known(a))
		return -ENXIO;
	e = os_alloc(MAX_ENTRIES * sizeof(*e));
	if (!e)
		return -ENOMEM;
	xcr0 = xcr0_supported(e, cpuid_supported(e, MAX_ENTRIES));
	os_free(e);
	return os_user_write(a->addr, &xcr0, sizeof(xcr0));
}
