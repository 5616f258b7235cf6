/*
 * Performance counters, as AMD's processors have them (x86/pmu.c). A vCPU with none enabled pays
 * nothing for them but a look at v->pmu.active where its mode changes and where the engine is
 * entered.
 */
#ifndef QUMRA_HYPERVISOR_X86_PMU_H
#define QUMRA_HYPERVISOR_X86_PMU_H

#include "hypervisor/os/os.h"
#include "lib/types.h"

struct vcpu;
struct vm;
struct insn;
struct kvm_pmu_event_filter;

#define PMU_COUNTERS	6	/* with PERFCTR_CORE; else four */

/* Its thread only, but for the timer. */
struct pmu {
	u64 select[PMU_COUNTERS], counter[PMU_COUNTERS];
	/* What guest code has done since the counters were last brought up to date. */
	u64 since;		/* the host's TSC then; 0: no guest code runs */
	u64 insns, branches;	/* while v->insns_counted */
	u64 insns_left;		/* when to look at the counters again */
	bool running;		/* guest code runs */
	u8 active;		/* counters that are enabled; a bit each, as below */
	u8 cycles_on, insns_on, branches_on;	/* that count at the present CPL, and what */
	struct os_timer timer;	/* before the first overflow of a counter that interrupts */
};

void pmu_init(struct vcpu *v);
void pmu_destroy(struct vcpu *v);
void pmu_reset(struct vcpu *v);
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
	u32 n;
	u64 event[];		/* sorted */
};
void pmu_filter_set(struct vm *vm, struct pmu_filter *filter);

#endif
