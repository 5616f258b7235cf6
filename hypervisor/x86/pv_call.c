/* KVM's hypercalls. Linux Documentation/virt/kvm/x86/hypercalls.rst. */
#include "hypervisor/x86/pv.h"

#include <linux/errno.h>
#include <linux/kvm_para.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/system.h"

/* ---- wall time with its TSC --------------------------------------------------------------------- */

_Static_assert(sizeof(struct kvm_clock_pairing) == 64, "KVM's ABI");

#define PAIRING_TRIES		4
#define NS_PER_SEC		1000000000u

/* The tightest of several readings, as the thread may be interrupted between the two clocks. */
static u64 pair_clocks(struct vcpu *v, u64 *wall)
{
	u64 best = ~0ULL, tsc = 0;

	for (int i = 0; i < PAIRING_TRIES; i++) {
		u64 before = tsc_read(v), ns = os_wall_ns(), width = tsc_read(v) - before;

		if (width >= best)
			continue;
		best = width;
		tsc = before + width / 2;
		*wall = ns;
	}
	return tsc;
}

static s64 call_clock_pairing(struct vcpu *v, u64 gpa, u64 type)
{
	struct kvm_clock_pairing p;
	u64 wall = 0;

	if (type != KVM_CLOCK_PAIRING_WALLCLOCK)
		return -KVM_EOPNOTSUPP;
	memset(&p, 0, sizeof(p));
	p.tsc = pair_clocks(v, &wall);
	p.sec = wall / NS_PER_SEC;
	p.nsec = wall % NS_PER_SEC;
	return vm_write_guest(v->vm, gpa, &p, sizeof(p)) ? -KVM_EFAULT : 0;
}

/* ---- other vCPUs -------------------------------------------------------------------------------- */

static struct vcpu *vcpu_by_apic_id(const struct vm *vm, u32 apic_id)
{
	u32 n = load_acquire(&vm->nr_vcpus);

	for (u32 i = 0; i < n; i++) {
		const struct lapic *l = vm->vcpus[i]->lapic;

		if (l && lapic_hw_enabled(l) && lapic_physical_id(l) == apic_id)
			return vm->vcpus[i];
	}
	return NULL;
}

bool pv_take_unhalted(struct vcpu *v)
{
	return __atomic_exchange_n(&v->pv.unhalted, 0, __ATOMIC_ACQ_REL);
}

/* A hint: the host's own scheduler decides who is next. */
static void yield_to(struct vcpu *v, const struct vcpu *target)
{
	if (target && target != v)
		pv_yield(v);
}

static s64 call_kick(struct vcpu *v, u64 apic_id)
{
	struct vcpu *target = vcpu_by_apic_id(v->vm, (u32)apic_id);

	if (target) {
		__atomic_store_n(&target->pv.unhalted, 1, __ATOMIC_RELEASE);
		vcpu_request(target, REQ_EVENT);
	}
	yield_to(v, target);
	return 0;
}

#define ICR_FORBIDDEN	(MASK(19, 18) | BIT(11))	/* shorthand, logical destination */

/* a[0], a[1]: two words of a set of APIC ids that begins at a[2]; a[3]: the ICR. */
static s64 call_send_ipi(struct vcpu *v, const u64 a[4])
{
	struct apic_msg m = {
		.vector = (u8)a[3],
		.mode = a[3] >> 8 & 7,
		.level = a[3] & BIT(15),
		.assert = a[3] & BIT(14),
		.ipi = true,
	};

	if (a[3] & ICR_FORBIDDEN)
		return -KVM_EINVAL;
	return lapic_deliver_set(v->vm, a, vcpu_64bit(v) ? 64 : 32, (u32)a[2], &m);
}

/* ---- */

s64 pv_hypercall(struct vcpu *v)
{
	u64 mask = vcpu_64bit(v) ? ~0ULL : MASK(31, 0);
	const u64 a[4] = {
		v->r[R_RBX] & mask, v->r[R_RCX] & mask, v->r[R_RDX] & mask, v->r[R_RSI] & mask,
	};

	switch (v->r[R_RAX] & mask) {
	case KVM_HC_VAPIC_POLL_IRQ:
		return 0;
	case KVM_HC_KICK_CPU:
		return pv_has(v, KVM_FEATURE_PV_UNHALT) ? call_kick(v, a[1]) : -KVM_ENOSYS;
	case KVM_HC_CLOCK_PAIRING:
		return call_clock_pairing(v, a[0], a[1]);
	case KVM_HC_SEND_IPI:
		return pv_has(v, KVM_FEATURE_PV_SEND_IPI) ? call_send_ipi(v, a) : -KVM_ENOSYS;
	case KVM_HC_SCHED_YIELD:
		if (!pv_has(v, KVM_FEATURE_PV_SCHED_YIELD))
			return -KVM_ENOSYS;
		yield_to(v, vcpu_by_apic_id(v->vm, (u32)a[0]));
		return 0;
	case KVM_HC_MAP_GPA_RANGE:
		return io_map_gpa_range(v, vcpu_64bit(v));
	default:
		return -KVM_ENOSYS;
	}
}
