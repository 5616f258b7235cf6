/*
 * Performance counters: what all kinds of them share. pmu_amd.c and pmu_intel.c have their
 * registers.
 *
 * Three things are counted: cycles not in halt (ticks of the guest's TSC while its code runs on a
 * processor of the host), retired instructions, and retired branches. Any other event never happens
 * here, so its counter stands still; so it does where edges or a comparison with a count are asked
 * for, which only hardware sees.
 *
 * Counters are brought up to date when somebody looks, when the CPL changes and when the engine is
 * left. Cycles cost nothing meanwhile; instructions are counted by the interpreter, which runs for
 * as long as one that counts them is enabled for the present CPL (v->insns_counted). A timer looks
 * before a counter could overflow that is to interrupt: none counts faster than time passes.
 */
#include "hypervisor/x86/pmu_kind.h"

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/system.h"
#include "lib/search.h"

/*
 * Guests divide one by the other. The interpreter takes some 30 cycles of the host for an
 * instruction, the processor that the guest believes in does not: while instructions are counted,
 * no more cycles pass than these.
 */
#define CYCLES_PER_INSN	2

/* A thread that the host takes its processor from misses more than this. */
#define LONG_STRETCH_US	200

/* ---- what counts ------------------------------------------------------------------------------- */

static u64 slot_mask(const struct pmu *p, u32 k)
{
	return k < PMU_FIXED ? p->gp_mask : p->fixed_mask;
}

static bool filter_has(const struct pmu_filter *f, u64 event)
{
	u32 n = COUNT_UPTO(f->n, i, f->event[i], event);

	return n && f->event[n - 1] == event;
}

static bool slot_allowed(const struct vcpu *v, u32 k)
{
	const struct pmu_filter *f = READ_ONCE(v->vm->pmu_filter);

	if (!f)
		return true;
	if (k >= PMU_FIXED)
		return !!(f->fixed & BIT(k - PMU_FIXED)) == f->allow;
	return filter_has(f, v->pmu.select[k] & (SEL_EVENT | SEL_UNIT)) == f->allow;
}

static bool slot_counts(const struct vcpu *v, u32 k)
{
	u64 select = v->pmu.select[k];

	return v->pmu.enabled & BIT(k) && select & SEL_EN &&
		!(select & (SEL_EDGE | SEL_INV | SEL_CMASK)) && slot_allowed(v, k);
}

static u16 *slot_set(struct pmu *p, u32 k)
{
	enum pmu_event event = p->kind == PMU_AMD ? pmu_amd_event(p->select[k])
		: pmu_intel_event(p, p->select[k]);

	switch (event) {
	case PMU_CYCLES: return &p->cycles_on;
	case PMU_INSNS: return &p->insns_on;
	case PMU_BRANCHES: return &p->branches_on;
	default: return NULL;
	}
}

/* After changes of what is selected, of a counter, and of the CPL. */
static void pmu_choose(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	u64 ring = v->cpl == 0 ? SEL_OS : SEL_USR;

	p->active = p->cycles_on = p->insns_on = p->branches_on = 0;
	p->insns_left = ~0ULL;
	for (u32 k = 0; p->enabled >> k; k++) {
		u16 *set;

		if (!slot_counts(v, k))
			continue;
		set = slot_set(p, k);
		if (!set)
			continue;
		p->active |= BIT(k);
		if (!(p->select[k] & ring))
			continue;
		*set |= BIT(k);
		if (set != &p->cycles_on)
			p->insns_left = MIN(p->insns_left, slot_mask(p, k) + 1 - p->counter[k]);
	}
	v->insns_counted = p->insns_on | p->branches_on;
}

/* ---- counting ---------------------------------------------------------------------------------- */

static void counter_add(struct pmu *p, u32 k, u64 n)
{
	u64 sum = p->counter[k] + n;

	p->counter[k] = sum & slot_mask(p, k);
	if (sum > slot_mask(p, k))
		p->overflowed |= BIT(k);
}

/* Intel's local APIC masks the entry as it takes the interrupt. SDM 3A 11.5.1 */
static void pmu_interrupt(struct vcpu *v)
{
	u32 lvt;

	if (!v->lapic)
		return;
	lvt = READ_ONCE(v->lapic->reg[LR_LVT_PERF]);
	lapic_local(v->lapic, LR_LVT_PERF);
	if (!vcpu_amd(v))
		WRITE_ONCE(v->lapic->reg[LR_LVT_PERF], lvt | LVT_MASKED);
}

static void pmu_overflow(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	bool interrupt = false;

	for (u32 k = 0; p->overflowed >> k; k++)
		interrupt |= p->overflowed & BIT(k) && p->select[k] & SEL_INT;
	pmu_intel_overflowed(p);
	p->overflowed = 0;
	if (interrupt)
		pmu_interrupt(v);
}

static void cycles_start(struct pmu *p)
{
	p->since = tsc_host();
	p->thread_ns = os_thread_ns();
	p->asked_ticks = 0;
}

/*
 * The host may have run something else for a part of that. It is asked for only where a stretch is
 * long enough, since it takes a system call.
 */
static u64 ticks_had(struct pmu *p, u64 ticks)
{
	u64 ns = os_thread_ns(), had = (ns - p->thread_ns) * os_tsc_khz() / 1000000;

	ticks = MIN(ticks, had > p->asked_ticks ? had - p->asked_ticks : 0);
	p->thread_ns = ns;
	p->asked_ticks = 0;
	return ticks;
}

/* A stretch of guest code that lasted until now. */
static u64 cycles_take(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	u64 now, ticks;

	if (!p->since)
		return 0;
	now = tsc_host();
	ticks = now > p->since ? now - p->since : 0;
	p->since = now;
	if (ticks > os_tsc_khz() / 1000 * LONG_STRETCH_US)
		ticks = ticks_had(p, ticks);
	else
		p->asked_ticks += ticks;
	return tsc_scale(v, ticks);
}

void pmu_settle(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	u64 cycles = cycles_take(v);

	if (v->insns_counted)
		cycles = MIN(cycles, p->insns * CYCLES_PER_INSN);
	for (u32 k = 0; p->active >> k; k++) {
		if (p->cycles_on & BIT(k))
			counter_add(p, k, cycles);
		else if (p->insns_on & BIT(k))
			counter_add(p, k, p->insns);
		else if (p->branches_on & BIT(k))
			counter_add(p, k, p->branches);
	}
	p->insns = p->branches = 0;
	if (unlikely(p->overflowed))
		pmu_overflow(v);
	pmu_choose(v);
}

void pmu_enter(struct vcpu *v)
{
	cycles_start(&v->pmu);
}

void pmu_leave(struct vcpu *v)
{
	pmu_settle(v);
	v->pmu.since = 0;
}

void pmu_mode_changed(struct vcpu *v, u8 old_cpl)
{
	if (v->cpl != old_cpl)
		pmu_settle(v);
}

/* ---- overflow ---------------------------------------------------------------------------------- */

static void timer_fired(void *arg)
{
	vcpu_request_lazy(arg, REQ_PMU);
}

/* Of the cycles that are left until the first interrupt, none of which passes while the vCPU sleeps. */
static void timer_set(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	u64 left = ~0ULL;

	for (u32 k = 0; p->active >> k; k++)
		if (p->active & BIT(k) && p->select[k] & SEL_INT && slot_set(p, k) == &p->cycles_on)
			left = MIN(left, slot_mask(p, k) + 1 - p->counter[k]);
	fpu_put(v);
	if (left == ~0ULL)
		return;
	os_timer_arm(&p->timer, os_clock_ns() + tsc_to_ns(v, left) + 1);
}

void pmu_serve(struct vcpu *v)
{
	pmu_settle(v);
	timer_set(v);
}

/* ---- registers --------------------------------------------------------------------------------- */

void pmu_counter_set(struct vcpu *v, u32 k, u64 val)
{
	pmu_settle(v);
	v->pmu.counter[k] = val & slot_mask(&v->pmu, k);
	pmu_choose(v);
	timer_set(v);
}

u64 pmu_counter_get(struct vcpu *v, u32 k)
{
	pmu_settle(v);
	return v->pmu.counter[k];
}

void pmu_selected(struct vcpu *v)
{
	pmu_choose(v);
	/* Counted from here on. */
	if (v->pmu.running && !v->pmu.since && v->pmu.active)
		cycles_start(&v->pmu);
	timer_set(v);
}

bool pmu_read(struct vcpu *v, u32 index, u64 *val)
{
	u32 k = index & ~(u32)RDPMC_FLAGS;
	bool fixed = v->pmu.kind == PMU_INTEL && index & RDPMC_FIXED;

	if (k >= (fixed ? v->pmu.fixed : v->pmu.gp))
		return false;
	*val = pmu_counter_get(v, fixed ? PMU_FIXED + k : k);
	if (index & RDPMC_LOW)
		*val = (u32)*val;
	return true;
}

/* ---- life -------------------------------------------------------------------------------------- */

void pmu_init(struct vcpu *v)
{
	os_timer_init(&v->pmu.timer, timer_fired, v);
}

void pmu_destroy(struct vcpu *v)
{
	os_timer_destroy(&v->pmu.timer);
}

void pmu_reset(struct vcpu *v)
{
	memset(v->pmu.select, 0, sizeof(v->pmu.select));
	memset(v->pmu.counter, 0, sizeof(v->pmu.counter));
	v->pmu.insns = v->pmu.branches = 0;
	v->pmu.fixed_ctrl = v->pmu.global_ctrl = v->pmu.global_status = 0;
	pmu_cpuid_changed(v);
}

/* Before KVM_SET_CPUID2 the guest has none. */
void pmu_cpuid_changed(struct vcpu *v)
{
	struct pmu *p = &v->pmu;

	pmu_settle(v);
	p->kind = PMU_NONE;
	p->gp = p->fixed = p->version = 0;
	p->enabled = 0;
	if (v->vm->pmu_disabled || !v->cpuid_n)
		;
	else if (vcpu_amd(v))
		pmu_amd_setup(v);
	else
		pmu_intel_setup(v);
	pmu_selected(v);
}

void pmu_filter_set(struct vm *vm, struct pmu_filter *filter)
{
	struct pmu_filter *old;

	vm_stop_vcpus(vm);
	old = vm->pmu_filter;
	WRITE_ONCE(vm->pmu_filter, filter);
	vm_start_vcpus(vm);
	os_free(old);
	vm_request_all(vm, REQ_PMU);
}
