/*
 * KVM's paravirtual MSRs. Linux Documentation/virt/kvm/x86/msr.rst.
 *
 * Async page faults: guest memory is never taken away from under a vCPU here, a host fault is served
 * by the host, so "page not present" is never sent. What remains of the interface is whole: a guest
 * that enables it is sent "all pages are ready", which is what a guest needs that comes from another
 * host with tasks asleep on pages.
 */
#include "hypervisor/x86/pv.h"

#include <linux/errno.h>
#include <linux/kvm_para.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/system.h"

/* ---- CPUID -------------------------------------------------------------------------------------- */

#define LEAF_FIRST	0x40000000u
#define LEAF_LAST	0x4000ff00u
#define LEAF_STEP	0x100u

/* Beside another hypervisor's leaves, KVM's begin at a later multiple of 0x100. */
static u32 kvm_leaf(struct vcpu *v)
{
	static const char signature[12] = "KVMKVMKVM\0\0";
	u32 base, out[4];

	for (base = LEAF_FIRST; base <= LEAF_LAST; base += LEAF_STEP) {
		cpuid_read(v, base, 0, out);
		if (!memcmp(&out[1], signature, sizeof(signature)))
			return base;
	}
	return 0;
}

void pv_cpuid_changed(struct vcpu *v)
{
	u32 base = kvm_leaf(v), out[4];

	v->pv.features = 0;
	if (!base)
		return;
	cpuid_read(v, base + 1, 0, out);
	v->pv.features = out[0];
}

bool pv_has(const struct vcpu *v, unsigned int feature)
{
	return !v->pv.enforce || v->pv.features & BIT(feature);
}

int pv_enable_enforce(struct vcpu *v, bool on)
{
	v->pv.enforce = on;
	return 0;
}

/* ---- async page faults -------------------------------------------------------------------------- */

#define APF_ENABLED	KVM_ASYNC_PF_ENABLED
#define APF_AS_VMEXIT	KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT
#define APF_AS_INT	KVM_ASYNC_PF_DELIVERY_AS_INT
#define APF_RESERVED	MASK(5, 4)
#define APF_ADDRESS	(~0x3fULL)
#define APF_TOKEN	4		/* offset in struct kvm_vcpu_pv_apf_data */
#define APF_TOKEN_ALL	0xffffffffu

static bool apf_enabled(const struct vcpu *v)
{
	return (v->msr.kvm_async_pf_en & (APF_ENABLED | APF_AS_INT)) == (APF_ENABLED | APF_AS_INT);
}

static void watch_update(struct vcpu *v)
{
	v->pv.watch = v->pv.apf_wake_all || v->msr.kvm_steal_time & 1;
}

static int set_async_pf(struct vcpu *v, u64 val, bool host)
{
	if (val & APF_RESERVED)
		return -EINVAL;
	if (val & APF_AS_VMEXIT && !pv_has(v, KVM_FEATURE_ASYNC_PF_VMEXIT))
		return -EINVAL;
	if (val & APF_AS_INT && !pv_has(v, KVM_FEATURE_ASYNC_PF_INT))
		return -EINVAL;
	if (!v->lapic)
		return val ? -EINVAL : 0;
	v->msr.kvm_async_pf_en = val;
	if (!apf_enabled(v)) {
		v->pv.apf_wake_all = false;
	} else {
		if (!memslot_find(v->vm, val & APF_ADDRESS))
			return -EINVAL;
		v->pv.apf_wake_all = true;
		vcpu_request(v, REQ_EVENT);
	}
	watch_update(v);
	return 0;
}

static int set_async_pf_int(struct vcpu *v, u64 val, bool host)
{
	if (val >> 8)
		return -EINVAL;
	/* Unlike KVM, user space may write the zero back that it has read. */
	if (!v->lapic)
		return val || !host ? -EINVAL : 0;
	v->msr.kvm_async_pf_int = val;
	return 0;
}

/* The guest is done with the last token: room for the next. */
static int set_async_pf_ack(struct vcpu *v, u64 val, bool host)
{
	if (val & 1)
		vcpu_request(v, REQ_EVENT);
	return 0;
}

/* One token at a time: the guest clears it, then acknowledges. */
static void apf_deliver(struct vcpu *v)
{
	u64 at = (v->msr.kvm_async_pf_en & APF_ADDRESS) + APF_TOKEN;
	u32 token, all = APF_TOKEN_ALL;

	if (!lapic_sw_enabled(v->lapic) || vm_read_guest(v->vm, at, &token, sizeof(token)) || token)
		return;
	v->pv.apf_wake_all = false;
	watch_update(v);
	if (!vm_write_guest(v->vm, at, &all, sizeof(all)))
		lapic_accept_vector(v->lapic, (u8)v->msr.kvm_async_pf_int, false);
}

/* ---- the others --------------------------------------------------------------------------------- */

#define STEAL_RESERVED	MASK(5, 1)

static int set_steal_time(struct vcpu *v, u64 val, bool host)
{
	if (val & STEAL_RESERVED)
		return -EINVAL;
	v->msr.kvm_steal_time = val;
	watch_update(v);
	if (!(val & 1))
		return 0;
	/* User space may write this before it has filled memory in. */
	v->pv.steal_due = true;
	if (!host)
		steal_update(v, 0);
	return 0;
}

static int set_pv_eoi(struct vcpu *v, u64 val, bool host)
{
	return lapic_pv_eoi_set(v, val);
}

static int set_poll_control(struct vcpu *v, u64 val, bool host)
{
	if (val >> 1)
		return -EINVAL;
	v->msr.kvm_poll_control = val;
	return 0;
}

static int set_system_time(struct vcpu *v, u64 val, bool host)
{
	v->msr.kvm_system_time = val;
	vcpu_request(v, REQ_CLOCK_UPDATE);
	return 0;
}

static int set_wall_clock(struct vcpu *v, u64 val, bool host)
{
	v->msr.kvm_wall_clock = val;
	kvmclock_write_wall(v, val);
	return 0;
}

static const struct pv_msr {
	u32 index;
	u8 feature;	/* KVM_FEATURE_* */
	int (*set)(struct vcpu *v, u64 val, bool host);
} pv_msrs[] = {
	{ MSR_KVM_WALL_CLOCK, KVM_FEATURE_CLOCKSOURCE, set_wall_clock },
	{ MSR_KVM_SYSTEM_TIME, KVM_FEATURE_CLOCKSOURCE, set_system_time },
	{ MSR_KVM_WALL_CLOCK_NEW, KVM_FEATURE_CLOCKSOURCE2, set_wall_clock },
	{ MSR_KVM_SYSTEM_TIME_NEW, KVM_FEATURE_CLOCKSOURCE2, set_system_time },
	{ MSR_KVM_ASYNC_PF_EN, KVM_FEATURE_ASYNC_PF, set_async_pf },
	{ MSR_KVM_STEAL_TIME, KVM_FEATURE_STEAL_TIME, set_steal_time },
	{ MSR_KVM_PV_EOI_EN, KVM_FEATURE_PV_EOI, set_pv_eoi },
	{ MSR_KVM_POLL_CONTROL, KVM_FEATURE_POLL_CONTROL, set_poll_control },
	{ MSR_KVM_ASYNC_PF_INT, KVM_FEATURE_ASYNC_PF_INT, set_async_pf_int },
	{ MSR_KVM_ASYNC_PF_ACK, KVM_FEATURE_ASYNC_PF_INT, set_async_pf_ack },
};

static const struct pv_msr *pv_msr_find(u32 index)
{
	const struct pv_msr *m = pv_msrs;

	while (m->index != index)
		m++;
	return m;
}

bool pv_msr_accessible(const struct vcpu *v, u32 index)
{
	return pv_has(v, pv_msr_find(index)->feature);
}

/* User space may read those that its guest does not have, and write what it has read. */
int msr_get_pv(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	bool has = pv_msr_accessible(v, row->first);

	*val = has && row->field ? *msr_field(v, row, n) : 0;
	return 0;
}

int msr_set_pv(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	const struct pv_msr *m = pv_msr_find(row->first);

	if (!pv_has(v, m->feature))
		return val ? -EINVAL : 0;
	fpu_put(v);
	return m->set(v, val, host);
}

/* ---- the run loop ------------------------------------------------------------------------------- */

void pv_run(struct vcpu *v)
{
	if (v->pv.apf_wake_all)
		apf_deliver(v);
	if (v->msr.kvm_steal_time & 1)
		steal_update(v, v->pv.steal_due ? 0 : STEAL_TURN_NS);
}

void pv_enter(struct vcpu *v)
{
	if (v->msr.kvm_steal_time & 1)
		steal_update(v, v->pv.steal_due ? 0 : STEAL_ENTER_NS);
}

void pv_reset(struct vcpu *v)
{
	v->msr.kvm_system_time = 0;
	v->msr.kvm_steal_time = 0;
	v->msr.kvm_async_pf_en = v->msr.kvm_async_pf_int = 0;
	v->msr.kvm_pv_eoi = 0;
	v->pv.eoi_offered = v->pv.apf_wake_all = v->pv.watch = false;
	__atomic_store_n(&v->pv.unhalted, 0, __ATOMIC_RELAXED);
}

void pv_destroy(struct vcpu *v)
{
	os_delay_close(&v->pv.delay);
}
