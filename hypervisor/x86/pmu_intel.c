/*
 * Intel's architectural performance monitoring, version 2: counters that events are chosen for, three
 * fixed ones (instructions, cycles, reference cycles), global control and status, and with
 * IA32_PERF_CAPABILITIES.FW_WRITE counters that are written in full. SDM 3B 20.2.
 *
 * The guest's CPUID leaf 0xA says how many there are, at most as many as KVM_GET_SUPPORTED_CPUID
 * says (cpuid.c: leaf_pmu()). As in KVM, without counters the first two pairs of registers read as
 * zero and drop writes, and user space finds zeros in all of them.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/pmu_kind.h"

#define GLOBAL_FIXED_SHIFT	32
#define GLOBAL_OVF_OTHER	(BIT(62) | BIT(63))	/* OVF_BUF, COND_CHGD */
#define SEL_RESERVED		(MASK(63, 32) | BIT(21))	/* AnyThread: not there from version 2 on */

/* IA32_FIXED_CTR_CTRL: four bits for each. */
#define FIXED_OS		BIT(0)
#define FIXED_USR		BIT(1)
#define FIXED_INT		BIT(3)
#define FIXED_DEFINED		(FIXED_OS | FIXED_USR | FIXED_INT)

/* Events of leaf 0xA EBX, and reference cycles under the number of their fixed counter. */
static const struct arch_event {
	u16 select;
	s8 bit;		/* in EBX: not available; -1: always is */
	u8 event;	/* enum pmu_event */
} arch_events[] = {
	{ 0x003c, 0, PMU_CYCLES },
	{ 0x00c0, 1, PMU_INSNS },
	{ 0x013c, 2, PMU_CYCLES },
	{ 0x00c4, 5, PMU_BRANCHES },
	{ 0x0300, -1, PMU_CYCLES },
};

static const u16 fixed_events[PMU_NR_FIXED] = { 0x00c0, 0x003c, 0x0300 };

enum pmu_event pmu_intel_event(const struct pmu *p, u64 select)
{
	for (u32 i = 0; i < ARRAY_SIZE(arch_events); i++) {
		const struct arch_event *e = &arch_events[i];

		if (e->select == (select & (SEL_EVENT | SEL_UNIT)))
			return e->bit >= 0 && p->unavailable & BIT(e->bit) ? PMU_NOTHING : e->event;
	}
	return PMU_NOTHING;
}

/* ---- what the guest has ------------------------------------------------------------------------ */

static const struct kvm_cpuid_entry2 *leaf_pmu(const struct vcpu *v)
{
	for (u32 n = 0; n < v->cpuid_n; n++)
		if (v->cpuid[n].function == 0xa)
			return &v->cpuid[n];
	return NULL;
}

static u64 counter_mask(u32 width)
{
	width = MIN(width, PMU_INTEL_WIDTH);
	return width ? MASK(width - 1, 0) : 0;
}

static u64 global_ctrl_bits(const struct pmu *p)
{
	return (BIT(p->gp) - 1) | (BIT(p->fixed) - 1) << GLOBAL_FIXED_SHIFT;
}

static void enabled_update(struct pmu *p)
{
	u64 on = p->version > 1 ? p->global_ctrl : ~0ULL;

	on &= global_ctrl_bits(p);
	p->enabled = (u16)(on | on >> GLOBAL_FIXED_SHIFT << PMU_FIXED);
}

static void fixed_update(struct pmu *p)
{
	for (u32 k = 0; k < PMU_NR_FIXED; k++) {
		u64 ctrl = p->fixed_ctrl >> 4 * k;

		p->select[PMU_FIXED + k] = fixed_events[k] |
			(ctrl & (FIXED_OS | FIXED_USR) ? SEL_EN : 0) |
			(ctrl & FIXED_OS ? SEL_OS : 0) | (ctrl & FIXED_USR ? SEL_USR : 0) |
			(ctrl & FIXED_INT ? SEL_INT : 0);
	}
}

void pmu_intel_setup(struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = leaf_pmu(v);
	struct pmu *p = &v->pmu;

	if (!e || !(e->eax & 0xff))
		return;
	p->kind = PMU_INTEL;
	p->version = e->eax & 0xff;
	p->gp = (u8)MIN(e->eax >> 8 & 0xff, PMU_INTEL_GP);
	p->gp_mask = counter_mask(e->eax >> 16 & 0xff);
	p->unavailable = (u8)(e->ebx | ~(BIT(MIN(e->eax >> 24, 7u)) - 1));
	p->fixed = p->version > 1 ? (u8)MIN(e->edx & 0x1f, PMU_NR_FIXED) : 0;
	p->fixed_mask = counter_mask(e->edx >> 5 & 0xff);
	p->global_ctrl &= global_ctrl_bits(p);
	fixed_update(p);
	enabled_update(p);
}

void pmu_intel_overflowed(struct pmu *p)
{
	u64 fixed = (u64)p->overflowed >> PMU_FIXED;

	p->global_status |= (p->overflowed & (BIT(PMU_FIXED) - 1)) | fixed << GLOBAL_FIXED_SHIFT;
}

static bool has_gp(const struct vcpu *v, u32 n)
{
	return v->pmu.kind == PMU_INTEL && n < v->pmu.gp;
}

static bool has_full_writes(const struct vcpu *v)
{
	return vcpu_has(v, F_PDCM) && v->msr.perf_capabilities & PERF_CAP_FW_WRITES;
}

/* By the guest; user space may look at all. */
bool pmu_msr_accessible(const struct vcpu *v, const struct msr_row *row, u32 index)
{
	u32 n = index - row->first;

	switch (row->first) {
	case MSR_PERFCTR0:
	case MSR_PERFEVTSEL0:
		return n < 2 || has_gp(v, n);
	case MSR_PMC0:
		return has_gp(v, n) && has_full_writes(v);
	case MSR_FIXED_CTR0:
		return v->pmu.kind == PMU_INTEL && n < v->pmu.fixed;
	default:
		return v->pmu.kind == PMU_INTEL && v->pmu.version > 1;
	}
}

/* ---- registers --------------------------------------------------------------------------------- */

int pmu_get_gp(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = has_gp(v, n) ? pmu_counter_get(v, n) : 0;
	return 0;
}

/* Under the old name the guest writes 32 bits, which are sign-extended. SDM 3B 20.2.8 */
int pmu_set_gp(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!has_gp(v, n))
		return n < 2 || !val ? 0 : -EINVAL;
	pmu_counter_set(v, n, host ? val : (u64)(s64)(s32)val);
	return 0;
}

int pmu_set_full(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!has_gp(v, n) || !has_full_writes(v) || val & ~v->pmu.gp_mask)
		return -EINVAL;
	pmu_counter_set(v, n, val);
	return 0;
}

int pmu_get_select(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = has_gp(v, n) ? v->pmu.select[n] : 0;
	return 0;
}

int pmu_set_select(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (!has_gp(v, n))
		return n < 2 || !val ? 0 : -EINVAL;
	if (val & SEL_RESERVED)
		return -EINVAL;
	pmu_settle(v);
	v->pmu.select[n] = val;
	pmu_selected(v);
	return 0;
}

int pmu_get_fixed(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	*val = v->pmu.kind == PMU_INTEL && n < v->pmu.fixed ? pmu_counter_get(v, PMU_FIXED + n) : 0;
	return 0;
}

int pmu_set_fixed(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	if (v->pmu.kind != PMU_INTEL || n >= v->pmu.fixed)
		return val ? -EINVAL : 0;
	pmu_counter_set(v, PMU_FIXED + n, val);
	return 0;
}

/* IA32_FIXED_CTR_CTRL, IA32_PERF_GLOBAL_STATUS, _CTRL, _OVF_CTRL: a row. */
enum { GLOBAL_FIXED_CTRL, GLOBAL_STATUS, GLOBAL_CTRL, GLOBAL_OVF_CTRL };

int pmu_get_global(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val)
{
	pmu_settle(v);
	switch (n) {
	case GLOBAL_FIXED_CTRL:
		*val = v->pmu.fixed_ctrl;
		return 0;
	case GLOBAL_STATUS:
		*val = v->pmu.global_status;
		return 0;
	case GLOBAL_CTRL:
		*val = v->pmu.global_ctrl;
		return 0;
	default:
		*val = 0;
		return 0;
	}
}

static u64 fixed_ctrl_bits(const struct pmu *p)
{
	u64 bits = 0;

	for (u32 k = 0; k < p->fixed; k++)
		bits |= FIXED_DEFINED << 4 * k;
	return bits;
}

static bool global_valid(const struct pmu *p, u32 n, u64 val, bool host)
{
	switch (n) {
	case GLOBAL_FIXED_CTRL:
		return !(val & ~fixed_ctrl_bits(p));
	case GLOBAL_STATUS:
		return host;
	case GLOBAL_CTRL:
		return !(val & ~global_ctrl_bits(p));
	default:
		return !(val & ~(global_ctrl_bits(p) | GLOBAL_OVF_OTHER));
	}
}

int pmu_set_global(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	struct pmu *p = &v->pmu;

	if (p->kind != PMU_INTEL || p->version < 2)
		return val ? -EINVAL : 0;
	if (!global_valid(p, n, val, host))
		return -EINVAL;
	pmu_settle(v);
	if (n == GLOBAL_FIXED_CTRL)
		p->fixed_ctrl = val;
	else if (n == GLOBAL_STATUS)
		p->global_status = val;
	else if (n == GLOBAL_CTRL)
		p->global_ctrl = val;
	else if (!host)
		p->global_status &= ~val;
	fixed_update(p);
	enabled_update(p);
	pmu_selected(v);
	return 0;
}

/* Whatever the vendor: user space copies what it is told is supported. */
int pmu_set_capabilities(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host)
{
	const struct kvm_cpuid_entry2 *e = leaf_pmu(v);
	bool counters = e && e->eax & 0xff && !v->vm->pmu_disabled;

	if (val & ~PERF_CAP_FW_WRITES || (val && !counters))
		return -EINVAL;
	v->msr.perf_capabilities = val;
	return 0;
}
