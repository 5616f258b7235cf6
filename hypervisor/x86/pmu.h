/*
 * Performance counters, as AMD's and Intel's processors have them (x86/pmu.c). A vCPU with none
 * enabled pays nothing for them but a look at v->pmu.active where its mode changes and where the
 * engine is entered.
 */
#ifndef QUMRA_HYPERVISOR_X86_PMU_H
#define QUMRA_HYPERVISOR_X86_PMU_H

#include "hypervisor/os/os.h"
#include "lib/types.h"

struct vcpu;
struct vm;
struct insn;
struct kvm_pmu_event_filter;

/* Slots: counters that events are chosen for, then Intel's fixed ones. */
#define PMU_FIXED	8
#define PMU_NR_FIXED	3u
#define PMU_SLOTS	(PMU_FIXED + PMU_NR_FIXED)
/* What Intel guests are offered at most: leaf 0xA. */
#define PMU_INTEL_GP	4u
#define PMU_INTEL_WIDTH	48u

/* Its thread only, but for the timer. Sets of slots have a bit each. */
struct pmu {
	u64 select[PMU_SLOTS], counter[PMU_SLOTS];
	/* What guest code has done since the counters were last brought up to date. */
	u64 since;		/* the host's TSC then; 0: no guest code runs */
	u64 thread_ns;		/* the thread's time when it was last asked for */
	u64 asked_ticks;	/* of the host's TSC that were counted since */
	u64 insns, branches;	/* while v->insns_counted */
	u64 insns_left;		/* when to look at the counters again */
	bool running;		/* guest code runs */
	u16 active;		/* counters that are enabled and count something */
	u16 cycles_on, insns_on, branches_on;	/* that count at the present CPL, and what */
	u16 overflowed;		/* since pmu_overflow() */
	/* By the guest's CPUID: */
	u8 kind;		/* enum pmu_kind */
	u8 gp, fixed;		/* how many */
	u8 version;		/* Intel's */
	u8 unavailable;		/* architectural events, by their bit in leaf 0xA EBX */
	u64 gp_mask, fixed_mask;
	u16 enabled;		/* slots that there are and that no global control stops */
	u64 fixed_ctrl, global_ctrl, global_status;	/* Intel's registers */
	struct os_timer timer;	/* before the first overflow of a counter that interrupts */
};

void pmu_init(struct vcpu *v);
void pmu_destroy(struct vcpu *v);
void pmu_reset(struct vcpu *v);
void pmu_cpuid_changed(struct vcpu *v);
/* Guest code begins to run, and has run. With v->pmu.active. */
void pmu_enter(struct vcpu *v);
void pmu_leave(struct vcpu *v);
/* v->cpl is another than that guest code ran with until now. With v->pmu.active. */
void pmu_mode_changed(struct vcpu *v, u8 old_cpl);
/* Brings counters up to date; interrupts for what has overflowed. */
void pmu_settle(struct vcpu *v);
/* REQ_PMU. */
void pmu_serve(struct vcpu *v);
/* RDPMC: false is #GP. */
bool pmu_read(struct vcpu *v, u32 index, u64 *val);

/* KVM_SET_PMU_EVENT_FILTER: takes filter over, whose events are n. vm->lock held. */
struct pmu_filter {
	bool allow;		/* those listed, and no others; else all but those */
	u32 fixed;		/* of Intel's fixed counters */
	u32 n;
	u64 event[];		/* sorted */
};
void pmu_filter_set(struct vm *vm, struct pmu_filter *filter);

#endif
