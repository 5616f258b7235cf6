/*
 * AMD's performance counters: the four of K7, under their names of family 15h (PERFCTR_CORE) six, 48
 * bits wide. APM 2 13.2; the processor programming reference of family 19h, 2.1.17.
 */
#include "hypervisor/x86/pmu_kind.h"

#define NR_LEGACY	4u
#define NR_CORE		6u
#define SEL_DEFINED	(SEL_EVENT | SEL_UNIT | SEL_USR | SEL_OS | SEL_EDGE | SEL_INT | SEL_EN | SEL_INV | \
			 SEL_CMASK)

enum pmu_event pmu_amd_event(u64 select)
{
	switch (select & SEL_EVENT) {
	case 0x76: return PMU_CYCLES;	/* not in halt */
	case 0xc0: return PMU_INSNS;
	case 0xc2: return PMU_BRANCHES;
	default: return PMU_NOTHING;
	}
}

void pmu_amd_setup(struct vcpu *v)
{
	struct pmu *p = &v->pmu;

	p->kind = PMU_AMD;
	p->gp = vcpu_has(v, F_PERFCTR_CORE) ? NR_CORE : NR_LEGACY;
	p->gp_mask = MASK(47, 0);
	p->enabled = (u16)(BIT(p->gp) - 1);
}

static void select_set(struct vcpu *v, u32 k, u64 val)
{
	pmu_settle(v);
	v->pmu.select[k] = val & SEL_DEFINED;
	pmu_selected(v);
}

/*
 * K7_EVNTSEL0 to 3, K7_PERFCTR0 to 3: without counters, reads are zero and writes dropped, as Linux
 * expects.
 */
int pmu_get_k7(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = 0;
	if (v->pmu.kind == PMU_AMD)
		*val = n < NR_LEGACY ? v->pmu.select[n] : pmu_counter_get(v, n - NR_LEGACY);
	return 0;
}

int pmu_set_k7(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (v->pmu.kind != PMU_AMD)
		return 0;
	if (n < NR_LEGACY)
		select_set(v, n, val);
	else
		pmu_counter_set(v, n - NR_LEGACY, val);
	return 0;
}

/* PERF_CTL0, PERF_CTR0, PERF_CTL1 ... User space finds zeros where there are none, as they are listed. */
static bool core_counters(const struct vcpu *v)
{
	return v->pmu.kind == PMU_AMD && v->pmu.gp == NR_CORE;
}

int pmu_get_core(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = 0;
	if (core_counters(v))
		*val = n & 1 ? pmu_counter_get(v, n / 2) : v->pmu.select[n / 2];
	return 0;
}

int pmu_set_core(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!core_counters(v))
		return host && !val ? 0 : -EINVAL;
	if (n & 1)
		pmu_counter_set(v, n / 2, val);
	else
		select_set(v, n / 2, val);
	return 0;
}
