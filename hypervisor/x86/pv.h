/*
 * KVM's paravirtual interfaces, what a guest finds by CPUID leaf 0x40000001: MSRs (x86/pv.c),
 * hypercalls (x86/pv_call.c), steal time (x86/pv_steal.c), EOI in memory (irqchip/lapic_pv.c), clock
 * (x86/kvmclock.c). Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.
 */
#ifndef QUMRA_HYPERVISOR_X86_PV_H
#define QUMRA_HYPERVISOR_X86_PV_H

#include "hypervisor/os/os.h"

struct vcpu;
struct vm;

struct pv_state {
	u32 features;		/* EAX of KVM's feature leaf, as user space gave it */
	bool enforce;		/* KVM_CAP_ENFORCE_PV_FEATURE_CPUID: nothing but these */
	bool watch;		/* pv_run() has something to do at each turn of the run loop */
	bool guest_stopped;	/* KVM_KVMCLOCK_CTRL since the clock page was last written */
	bool eoi_offered;	/* the guest may end the interrupt in service in memory */
	bool apf_wake_all;	/* "all pages are ready" is still to be said */
	u8 unhalted;		/* KVM_HC_KICK_CPU; any thread, atomic */
	bool steal_due;		/* look now, however short ago the last time was */
	u64 steal_tsc;		/* host TSC when steal time was last looked at */
	u64 steal_seen;		/* the thread's waiting time that the guest has been told of, ns */
	u64 steal_thread;	/* whose; 0: nobody's */
	struct os_delay delay;
};

/* A KVM_FEATURE_* that the guest may use: all of them, unless CPUID is enforced. */
bool pv_has(const struct vcpu *v, unsigned int feature);
void pv_cpuid_changed(struct vcpu *v);
void pv_reset(struct vcpu *v);		/* power-up and INIT */
void pv_destroy(struct vcpu *v);
/* While pv.watch: before each entry into the guest. */
void pv_run(struct vcpu *v);
/* KVM_RUN begins. */
void pv_enter(struct vcpu *v);
int pv_enable_enforce(struct vcpu *v, bool on);

/* ---- pv_steal.c --------------------------------------------------------------------------------- */

/* Told to the guest at most this often: reading it is a system call. */
#define STEAL_TURN_NS	1000000u	/* while the vCPU runs */
#define STEAL_ENTER_NS	200000u		/* when user space lets it run again */
void steal_update(struct vcpu *v, u64 interval_ns);
/*
 * Gives the host's processor away for a moment, marked as preempted meanwhile. True: translations
 * were flushed, as another vCPU had asked for in that time.
 */
bool pv_yield(struct vcpu *v);

/* ---- pv_call.c ---------------------------------------------------------------------------------- */

/* A hypercall at CPL 0 with the registers of the present mode. */
s64 pv_hypercall(struct vcpu *v);
/* The kick has come; clears it. */
bool pv_take_unhalted(struct vcpu *v);
static inline bool pv_unhalted(const struct pv_state *pv)
{
	return __atomic_load_n(&pv->unhalted, __ATOMIC_ACQUIRE);
}

#endif
