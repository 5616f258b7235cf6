/*
 * KVM's paravirtual clock: a page from which the guest turns its TSC into time. Linux
 * Documentation/virt/kvm/x86/msr.rst (MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW) and
 * pvclock's ABI.
 *
 * All pages of a VM are derived from one pair (host TSC, host time) that is taken once. So vCPUs
 * agree to the tick, and the guest may use the page of any of them: PVCLOCK_TSC_STABLE. The clock
 * then runs at the TSC's rate and is not slewed with the host's.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/hyperv.h"
#include "hypervisor/x86/muldiv.h"
#include "hypervisor/x86/system.h"

#define NS_PER_SEC	1000000000u
#define SYSTEM_TIME_ENABLE	BIT(0)
#define PVCLOCK_TSC_STABLE	BIT(0)
#define PVCLOCK_GUEST_STOPPED	BIT(1)

struct pvclock_time {
	u32 version;		/* odd while it is being written */
	u32 pad0;
	u64 tsc_timestamp;	/* guest TSC at system_time */
	u64 system_time;	/* ns */
	u32 mul;		/* ns = (ticks << shift) * mul >> 32 */
	s8 shift;
	u8 flags;
	u8 pad[2];
};
_Static_assert(sizeof(struct pvclock_time) == 32, "pvclock ABI");
_Static_assert(offsetof(struct pvclock_time, mul) == 24, "pvclock ABI");

struct pvclock_wall {
	u32 version;
	u32 sec, nsec;		/* wall time when system_time was zero */
};
_Static_assert(sizeof(struct pvclock_wall) == 12, "pvclock ABI");

/* ---- the VM's reference ---------------------------------------------------------------------- */

enum { REF_NONE, REF_BUSY, REF_READY };

/* Taken by whoever comes first. */
static const struct clock_ref *clock_ref(struct vm *vm)
{
	struct clock_ref *ref = &vm->clock_ref;
	u32 none = REF_NONE;

	if (load_acquire(&ref->state) == REF_READY)
		return ref;
	if (__atomic_compare_exchange_n(&ref->state, &none, REF_BUSY, false, __ATOMIC_ACQ_REL,
			__ATOMIC_ACQUIRE)) {
		ref->ns = os_clock_ns();
		ref->tsc = tsc_host();
		store_release(&ref->state, REF_READY);
	}
	while (load_acquire(&ref->state) != REF_READY)
		os_yield();
	return ref;
}

/* ---- scaling --------------------------------------------------------------------------------- */

struct clock_scale {
	u32 mul;
	s8 shift;
};

/* mul in [2^31, 2^32), so that all its bits count: mul = 10^9 / hz * 2^(32 - shift). */
static struct clock_scale clock_scale(u64 hz)
{
	for (int shift = -31; shift < 32; shift++) {
		u64 mul = mul_div(NS_PER_SEC, BIT(32 - shift), hz);

		if (mul < BIT(32))
			return (struct clock_scale){ (u32)mul, (s8)shift };
	}
	return (struct clock_scale){ 0, 0 };
}

/* As the guest does it. */
static u64 scale_ticks(struct clock_scale s, u64 ticks)
{
	ticks = s.shift < 0 ? ticks >> -s.shift : ticks << s.shift;
	return (u64)((u128)ticks * s.mul >> 32);
}

static struct clock_scale host_scale(void)
{
	return clock_scale(os_tsc_khz() * 1000ULL);
}

u64 kvmclock_now(struct vm *vm)
{
	const struct clock_ref *ref = clock_ref(vm);

	return ref->ns + (u64)READ_ONCE(vm->clock_offset) +
	       scale_ticks(host_scale(), tsc_host() - ref->tsc);
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* With one offset for all, any page is good for any vCPU. */
static bool offsets_agree(const struct vcpu *v)
{
	u32 n = load_acquire(&v->vm->nr_vcpus);

	for (u32 i = 0; i < n; i++) {
		const struct vcpu *other = v->vm->vcpus[i];

		if (other && (READ_ONCE(other->tsc_offset) != v->tsc_offset ||
			      READ_ONCE(other->tsc_ratio) != v->tsc_ratio))
			return false;
	}
	return true;
}

static u32 next_version(struct vm *vm, u64 gpa)
{
	u32 version = 0;

	vm_read_guest(vm, gpa, &version, sizeof(version));
	return (version | 1) + 2;	/* odd, and not the one that is there */
}

static void version_barrier(void)
{
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

/* Odd version, content, even version: a reader on another vCPU sees old or new, or tries again. */
static void page_write(struct vm *vm, u64 gpa, void *page, size_t size)
{
	u32 version = next_version(vm, gpa);

	if (vm_write_guest(vm, gpa, &version, sizeof(version)))
		return;
	version_barrier();
	vm_write_guest(
		vm, gpa + sizeof(version), (char *)page + sizeof(version), size - sizeof(version));
	version_barrier();
	version++;
	vm_write_guest(vm, gpa, &version, sizeof(version));
}

bool kvmclock_params(const struct vcpu *v, struct kvmclock_params *p)
{
	const struct clock_ref *ref = clock_ref(v->vm);
	struct clock_scale scale = clock_scale(vcpu_tsc_khz(v) * 1000ULL);

	p->stamp = tsc_scale(v, ref->tsc) + v->tsc_offset;
	p->base = ref->ns + (u64)READ_ONCE(v->vm->clock_offset);
	p->mul = scale.mul;
	p->shift = scale.shift;
	return offsets_agree(v);
}

/* "The guest was stopped" stays until the guest has seen it. api.rst 4.86 (KVM_KVMCLOCK_CTRL) */
static u8 stopped_flag(struct vcpu *v, u64 gpa)
{
	struct pvclock_time old;
	bool stopped = v->pv.guest_stopped;

	v->pv.guest_stopped = false;
	if (!stopped && !vm_read_guest(v->vm, gpa, &old, sizeof(old)))
		stopped = old.flags & PVCLOCK_GUEST_STOPPED;
	return stopped ? PVCLOCK_GUEST_STOPPED : 0;
}

void kvmclock_update(struct vcpu *v)
{
	u64 gpa = v->msr.kvm_system_time & ~SYSTEM_TIME_ENABLE;
	struct kvmclock_params p;
	struct pvclock_time t;
	bool stable;

	hv_tsc_page_update(v->vm);
	if (!(v->msr.kvm_system_time & SYSTEM_TIME_ENABLE))
		return;
	stable = kvmclock_params(v, &p);
	t = (struct pvclock_time) {
		.tsc_timestamp = p.stamp,
		.system_time = p.base,
		.mul = p.mul,
		.shift = p.shift,
		.flags = (stable ? PVCLOCK_TSC_STABLE : 0) | stopped_flag(v, gpa),
	};
	page_write(v->vm, gpa, &t, sizeof(t));
}

/* Zero is what the MSR holds after reset, and what user space writes back then: no page. */
void kvmclock_write_wall(struct vcpu *v, u64 gpa)
{
	struct pvclock_wall wall;
	u64 boot;

	if (!gpa)
		return;
	boot = os_wall_ns() - kvmclock_now(v->vm);
	wall = (struct pvclock_wall) {
		.sec = (u32)(boot / NS_PER_SEC),
		.nsec = (u32)(boot % NS_PER_SEC),
	};
	page_write(v->vm, gpa, &wall, sizeof(wall));
}
