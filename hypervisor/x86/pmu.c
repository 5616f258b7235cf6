/*
 * Performance counters: the four of K7, under their names of family 15h (PERFCTR_CORE) six, 48 bits
 * wide. APM 2 13.2; the processor programming reference of family 19h, 2.1.17.
 *
 * Three events are counted: cycles not in halt (ticks of the guest's TSC while its code runs),
 * retired instructions, and retired branches. Any other never happens here, so its counter stands
 * still; so it does where edges or a comparison with a count are asked for, which only hardware
 * sees.
 *
 * Counters are brought up to date when somebody looks, when the CPL changes and when the engine is
 * left. Cycles cost nothing meanwhile; instructions are counted by the interpreter, which runs for
 * as long as one that counts them is enabled for the present CPL (v->insns_counted). A timer looks
 * before a counter could overflow that is to interrupt: none counts faster than time passes.
 */
#include "hypervisor/x86/pmu.h"

#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/msr_row.h"
#include "hypervisor/x86/system.h"
#include "lib/search.h"

#define COUNTER_MASK	MASK(47, 0)
#define NR_LEGACY	4u

/* PERF_CTL. APM 2 13.2.1 */
#define SEL_EVENT	(MASK(35, 32) | MASK(7, 0))
#define SEL_UNIT	MASK(15, 8)
#define SEL_USR		BIT(16)
#define SEL_OS		BIT(17)
#define SEL_EDGE	BIT(18)
#define SEL_INT		BIT(20)
#define SEL_EN		BIT(22)
#define SEL_INV		BIT(23)
#define SEL_CMASK	MASK(31, 24)
#define SEL_DEFINED	(SEL_EVENT | SEL_UNIT | SEL_USR | SEL_OS | SEL_EDGE | SEL_INT | SEL_EN | SEL_INV | \
			 SEL_CMASK)

#define EVENT_CYCLES	0x76	/* not in halt */
#define EVENT_INSNS	0xc0	/* retired */
#define EVENT_BRANCHES	0xc2	/* retired */

#define RDPMC_LOW	BIT(31)	/* the lower half only */
#define RDPMC_FLAGS	MASK(31, 30)

/* ---- which counters there are ------------------------------------------------------------------ */

static bool pmu_present(const struct vcpu *v)
{
	return !v->vm->pmu_disabled && vcpu_amd(v);
}

static u32 pmu_counters(const struct vcpu *v)
{
	if (!pmu_present(v))
		return 0;
	return vcpu_has(v, F_PERFCTR_CORE) ? PMU_COUNTERS : NR_LEGACY;
}

/* ---- what counts ------------------------------------------------------------------------------- */

static bool filter_has(const struct pmu_filter *f, u64 event)
{
	u32 n = COUNT_UPTO(f->n, i, f->event[i], event);

	return n && f->event[n - 1] == event;
}

static bool event_allowed(const struct vcpu *v, u64 select)
{
	const struct pmu_filter *f = READ_ONCE(v->vm->pmu_filter);

	return !f || filter_has(f, select & (SEL_EVENT | SEL_UNIT)) == f->allow;
}

static bool select_counts(const struct vcpu *v, u64 select)
{
	return select & SEL_EN && !(select & (SEL_EDGE | SEL_INV | SEL_CMASK)) &&
		event_allowed(v, select);
}

static u8 *event_set(struct pmu *p, u64 select)
{
	switch (select & SEL_EVENT) {
	case EVENT_CYCLES: return &p->cycles_on;
	case EVENT_INSNS: return &p->insns_on;
	case EVENT_BRANCHES: return &p->branches_on;
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
	for (u32 k = 0; k < pmu_counters(v); k++) {
		u8 *set = event_set(p, p->select[k]);

		if (!set || !select_counts(v, p->select[k]))
			continue;
		p->active |= BIT(k);
		if (!(p->select[k] & ring))
			continue;
		*set |= BIT(k);
		if (set != &p->cycles_on)
			p->insns_left = MIN(p->insns_left, COUNTER_MASK + 1 - p->counter[k]);
	}
	v->insns_counted = p->insns_on | p->branches_on;
}

/* ---- counting ---------------------------------------------------------------------------------- */

/* True: it has overflowed, and is to interrupt. */
static bool counter_add(struct pmu *p, u32 k, u64 n)
{
	u64 sum = p->counter[k] + n;

	p->counter[k] = sum & COUNTER_MASK;
	return sum > COUNTER_MASK && p->select[k] & SEL_INT;
}

/* A stretch of guest code that lasted until now. */
static u64 cycles_take(struct vcpu *v)
{
	u64 since = v->pmu.since, now;

	if (!since)
		return 0;
	now = tsc_host();
	v->pmu.since = now;
	return now > since ? tsc_scale(v, now - since) : 0;
}

void pmu_settle(struct vcpu *v)
{
	struct pmu *p = &v->pmu;
	u64 cycles = cycles_take(v);
	bool overflow = false;

	for (u32 k = 0; k < PMU_COUNTERS; k++) {
		if (p->cycles_on & BIT(k))
			overflow |= counter_add(p, k, cycles);
		else if (p->insns_on & BIT(k))
			overflow |= counter_add(p, k, p->insns);
		else if (p->branches_on & BIT(k))
			overflow |= counter_add(p, k, p->branches);
	}
	p->insns = p->branches = 0;
	pmu_choose(v);
	if (overflow && v->lapic)
		lapic_local(v->lapic, LR_LVT_PERF);
}

void pmu_enter(struct vcpu *v)
{
	v->pmu.since = tsc_host();
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

	for (u32 k = 0; k < PMU_COUNTERS; k++)
		if (p->active & BIT(k) && p->select[k] & SEL_INT &&
			event_set(p, p->select[k]) == &p->cycles_on)
			left = MIN(left, COUNTER_MASK + 1 - p->counter[k]);
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

static void counter_set(struct vcpu *v, u32 k, u64 val)
{
	pmu_settle(v);
	v->pmu.counter[k] = val & COUNTER_MASK;
	pmu_choose(v);
	timer_set(v);
}

static void select_set(struct vcpu *v, u32 k, u64 val)
{
	pmu_settle(v);
	v->pmu.select[k] = val & SEL_DEFINED;
	pmu_choose(v);
	/* Counted from here on. */
	if (v->pmu.running && !v->pmu.since && v->pmu.active)
		v->pmu.since = tsc_host();
	timer_set(v);
}

static u64 counter_get(struct vcpu *v, u32 k)
{
	pmu_settle(v);
	return v->pmu.counter[k];
}

/*
 * K7_EVNTSEL0 to 3, K7_PERFCTR0 to 3: without counters, reads are zero and writes dropped, as Linux
 * expects.
 */
int pmu_get_k7(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = 0;
	if (!pmu_present(v))
		return 0;
	*val = n < NR_LEGACY ? v->pmu.select[n] : counter_get(v, n - NR_LEGACY);
	return 0;
}

int pmu_set_k7(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!pmu_present(v))
		return 0;
	if (n < NR_LEGACY)
		select_set(v, n, val);
	else
		counter_set(v, n - NR_LEGACY, val);
	return 0;
}

/* PERF_CTL0, PERF_CTR0, PERF_CTL1 ... User space finds zeros where there are none, as they are listed. */
int pmu_get_core(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = 0;
	if (pmu_counters(v) == PMU_COUNTERS)
		*val = n & 1 ? counter_get(v, n / 2) : v->pmu.select[n / 2];
	return 0;
}

int pmu_set_core(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (pmu_counters(v) != PMU_COUNTERS)
		return host && !val ? 0 : -EINVAL;
	if (n & 1)
		counter_set(v, n / 2, val);
	else
		select_set(v, n / 2, val);
	return 0;
}

bool pmu_read(struct vcpu *v, u32 index, u64 *val)
{
	u32 k = index & ~(u32)RDPMC_FLAGS;

	if (k >= pmu_counters(v))
		return false;
	*val = counter_get(v, k);
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
	pmu_choose(v);
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
