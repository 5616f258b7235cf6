/*
 * Steal time: how long this vCPU was ready to run and did not, as its thread waited for a processor
 * of the host; and the flag "preempted" beside it. Linux Documentation/virt/kvm/x86/msr.rst
 * (MSR_KVM_STEAL_TIME), cpuid.rst (KVM_FEATURE_PV_TLB_FLUSH).
 *
 * The host's scheduler has the figure. It changes only while the thread is off its processor, but a
 * thread is not told; so it is asked for now and then: when user space lets the vCPU run, and at
 * turns of the run loop, which any interrupt is one of, a guest's own clock tick too.
 *
 * Nor can a thread say that it is preempted when it is. What it can say is that it gives its
 * processor away (pv_yield): a guest's kernel then spares an IPI and leaves the request "flush",
 * which is served before the vCPU runs another instruction.
 */
#include "hypervisor/x86/pv.h"

#include <linux/kvm_para.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

_Static_assert(sizeof(struct kvm_steal_time) == 64, "KVM's ABI");
_Static_assert(offsetof(struct kvm_steal_time, preempted) == 16, "KVM's ABI");

/* The guest's structure, which lies in one page; NULL where no writable memory is. */
static struct kvm_steal_time *steal_at(struct vcpu *v, const struct memslot **slot, u64 *gpa)
{
	const struct memslot *s;

	*gpa = v->msr.kvm_steal_time & ~(sizeof(struct kvm_steal_time) - 1);
	*slot = s = memslot_find(v->vm, *gpa);
	return s && !(s->flags & KVM_MEM_READONLY) ? memslot_host(s, *gpa) : NULL;
}

/* Runs again: what was asked for meanwhile is done now. True: translations were flushed. */
static bool preempted_end(struct vcpu *v, struct kvm_steal_time *st)
{
	u8 was = __atomic_exchange_n(&st->preempted, 0, __ATOMIC_SEQ_CST);

	if (!(was & KVM_VCPU_FLUSH_TLB) || !pv_has(v, KVM_FEATURE_PV_TLB_FLUSH))
		return false;
	mmu_flush_all(v);
	return true;
}

/* Since the last look; nothing for a thread that is new here. */
static u64 steal_since(struct vcpu *v)
{
	u64 self = os_thread_self(), seen = v->pv.steal_seen, now;

	if (os_delay_read(&v->pv.delay, &now))
		return 0;
	v->pv.steal_seen = now;
	if (v->pv.steal_thread == self)
		return now - seen;
	v->pv.steal_thread = self;
	return 0;
}

static void steal_write(struct kvm_steal_time *st, u64 more)
{
	u32 version = READ_ONCE(st->version);

	version += 1 + (version & 1);	/* odd, also after random content */
	WRITE_ONCE(st->version, version);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	WRITE_ONCE(st->steal, st->steal + more);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	WRITE_ONCE(st->version, version + 1);
}

void steal_update(struct vcpu *v, u64 interval_ns)
{
	const struct memslot *slot;
	struct kvm_steal_time *st;
	u64 tsc = tsc_host(), gpa;

	if (interval_ns && tsc - v->pv.steal_tsc < interval_ns * os_tsc_khz() / 1000000)
		return;
	v->pv.steal_tsc = tsc;
	v->pv.steal_due = false;
	st = steal_at(v, &slot, &gpa);
	if (!st)
		return;
	preempted_end(v, st);
	steal_write(st, steal_since(v));
	memslot_mark_dirty(v->vm, v, slot, gpa);
}

bool pv_yield(struct vcpu *v)
{
	const struct memslot *slot;
	struct kvm_steal_time *st = NULL;
	bool flushed = false;
	u64 gpa;

	if (v->msr.kvm_steal_time & KVM_MSR_ENABLED)
		st = steal_at(v, &slot, &gpa);
	if (st)
		__atomic_store_n(&st->preempted, KVM_VCPU_PREEMPTED, __ATOMIC_SEQ_CST);
	os_yield();
	if (st) {
		flushed = preempted_end(v, st);
		memslot_mark_dirty(v->vm, v, slot, gpa);
	}
	return flushed;
}
