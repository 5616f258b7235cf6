/* A row of the MSR table (x86/msr_table.c), and what the rows point to. */
#ifndef QUMRA_HYPERVISOR_X86_MSR_ROW_H
#define QUMRA_HYPERVISOR_X86_MSR_ROW_H

#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/msr.h"

enum {
	MSR_SAVE	= 1 << 0,	/* listed by KVM_GET_MSR_INDEX_LIST */
	MSR_FEATURE	= 1 << 1,	/* listed by KVM_GET_MSR_FEATURE_INDEX_LIST */
	MSR_READONLY	= 1 << 2,	/* for the guest: a write is #GP */
	MSR_IGNORE	= 1 << 3,	/* the guest's writes are dropped */
	MSR_HOST_ONLY	= 1 << 4,	/* the guest gets #GP */
	MSR_PV		= 1 << 5,	/* KVM's: its CPUID may decide (x86/pv.c) */
	MSR_HYPERV	= 1 << 6,	/* Hyper-V's: its CPUID decides (x86/hyperv_msr.c) */
	MSR_PMU		= 1 << 7,	/* Intel's counters: leaf 0xA decides (x86/pmu_intel.c) */
};

struct msr_row;
/* n: index within the row. 0 or -EINVAL. No unwinding. */
typedef int msr_get_fn(struct vcpu *v, const struct msr_row *row, u32 n, u64 *val);
typedef int msr_set_fn(struct vcpu *v, const struct msr_row *row, u32 n, u64 val, bool host);

struct msr_row {
	const char *name;
	u32 first;
	u16 count;
	u32 field;		/* offset of the first one in struct vcpu; 0: reads as reset */
	u16 flags;		/* MSR_* */
	u8 feature;		/* enum cpu_feature that the guest must have, or F_NONE */
	u64 writable;		/* with a field and no set(): other bits are #GP */
	u64 reset;		/* at power-up; INIT changes no MSR */
	msr_get_fn *get;	/* instead of the field */
	msr_set_fn *set;
};

/* Sorted by first. */
extern const struct msr_row msr_rows[];
extern const unsigned int nr_msr_rows;

static inline u64 *msr_field(struct vcpu *v, const struct msr_row *row, u32 n)
{
	return (u64 *)((char *)v + row->field) + n;
}

/* mtrr.c */
#define MTRR_VARIABLE		8	/* register pairs */
#define MTRRCAP_FIXED		BIT(8)
#define MTRRCAP_WC		BIT(10)
msr_get_fn mtrr_get_variable;
msr_set_fn mtrr_set_fixed, mtrr_set_variable, mtrr_set_default, pat_set;

/* mce.c */
#define MCE_DEFAULT_CAP		MCE_MAX_BANKS	/* user space changes it with KVM_X86_SETUP_MCE */
msr_get_fn mce_get_bank;
msr_set_fn mce_set_bank, mce_set_ctl;
#define MSR_MC_CTL2		0x280
msr_get_fn mce_get_ctl2;
msr_set_fn mce_set_ctl2;

/* pv.c */
msr_get_fn msr_get_pv;
msr_set_fn msr_set_pv;
bool pv_msr_accessible(const struct vcpu *v, u32 index);	/* by the guest */

/* hyperv_msr.c */
msr_get_fn msr_get_hv;
msr_set_fn msr_set_hv;
bool hv_msr_accessible(const struct vcpu *v, u32 index);	/* by the guest */

/* pmu_amd.c */
msr_get_fn pmu_get_k7, pmu_get_core;
msr_set_fn pmu_set_k7, pmu_set_core;

/* pmu_intel.c */
#define MSR_PERFCTR0		0xc1
#define MSR_PERFEVTSEL0		0x186
#define MSR_FIXED_CTR0		0x309
#define MSR_PMC0		0x4c1
#define PERF_CAP_FW_WRITES	BIT(13)	/* IA32_PERF_CAPABILITIES */
bool pmu_msr_accessible(const struct vcpu *v, const struct msr_row *row, u32 index);
msr_get_fn pmu_get_gp, pmu_get_select, pmu_get_fixed, pmu_get_global;
msr_set_fn pmu_set_gp, pmu_set_full, pmu_set_select, pmu_set_fixed, pmu_set_global,
	pmu_set_capabilities;

/* msr.c */
msr_get_fn msr_get_tsc, msr_get_apic_base, msr_get_deadline, msr_get_x2apic, msr_get_microcode,
	msr_get_efer, msr_get_fs_base, msr_get_gs_base, msr_get_xss;
msr_set_fn msr_set_platform_info, msr_set_misc_features;
#define MISC_ENABLE_PERFMON	BIT(7)
#define MISC_NO_BTS		BIT(11)
#define MISC_NO_PEBS		BIT(12)
#define MISC_ENABLE_MWAIT	BIT(18)
msr_set_fn msr_set_misc_enable;
msr_set_fn msr_set_tsc, msr_set_tsc_adjust, msr_set_apic_base, msr_set_deadline, msr_set_x2apic,
	msr_set_efer, msr_set_address, msr_set_fs_base, msr_set_gs_base, msr_set_xss;

#endif
