/*
 * Between what all performance counters share (x86/pmu.c) and the registers of AMD's (pmu_amd.c) and
 * Intel's (pmu_intel.c).
 */
#ifndef QUMRA_HYPERVISOR_X86_PMU_KIND_H
#define QUMRA_HYPERVISOR_X86_PMU_KIND_H

#include <linux/errno.h>

#include "hypervisor/x86/msr_row.h"

/* PERF_CTL, IA32_PERFEVTSELx. APM 2 13.2.1, SDM 3B 20.2.1.1 */
#define SEL_EVENT	(MASK(35, 32) | MASK(7, 0))
#define SEL_UNIT	MASK(15, 8)
#define SEL_USR		BIT(16)
#define SEL_OS		BIT(17)
#define SEL_EDGE	BIT(18)
#define SEL_INT		BIT(20)
#define SEL_EN		BIT(22)
#define SEL_INV		BIT(23)
#define SEL_CMASK	MASK(31, 24)

#define RDPMC_LOW	BIT(31)	/* the lower half only */
#define RDPMC_FIXED	BIT(30)	/* Intel's */
#define RDPMC_FLAGS	MASK(31, 30)

enum pmu_kind { PMU_NONE, PMU_AMD, PMU_INTEL };
enum pmu_event { PMU_NOTHING, PMU_CYCLES, PMU_INSNS, PMU_BRANCHES };

/* What a PERF_CTL or IA32_PERFEVTSELx counts. */
enum pmu_event pmu_amd_event(u64 select);
enum pmu_event pmu_intel_event(const struct pmu *p, u64 select);
/* Of the CPUID that the guest has now: p->kind and what follows it. */
void pmu_amd_setup(struct vcpu *v);
void pmu_intel_setup(struct vcpu *v);
/* IA32_PERF_GLOBAL_STATUS. */
void pmu_intel_overflowed(struct pmu *p);

u64 pmu_counter_get(struct vcpu *v, u32 k);
void pmu_counter_set(struct vcpu *v, u32 k, u64 val);
/* After pmu_settle() and a change of p->select or p->enabled. */
void pmu_selected(struct vcpu *v);

#endif
