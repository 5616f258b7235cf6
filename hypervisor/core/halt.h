/* HLT, as steps of KVM_RUN: 1 (go on), 0 (exit to user space) or -errno. The vCPU's own thread. */
#ifndef QUMRA_HYPERVISOR_CORE_HALT_H
#define QUMRA_HYPERVISOR_CORE_HALT_H

#include "hypervisor/core/vm.h"

/* The guest has executed HLT. */
int vcpu_halt(struct vcpu *v);

/* Waits as after HLT. The second is a state of SEV-ES guests, and behaves so. */
static inline bool mp_state_halted(u32 state)
{
	return state == KVM_MP_STATE_HALTED || state == KVM_MP_STATE_AP_RESET_HOLD;
}

/*
 * Takes INIT and SIPI that came. False: it waits for its first INIT still. Else KVM_RUN, which found it
 * waiting, ends with -EAGAIN: user space may want to see its registers, and calls again.
 */
bool vcpu_born(struct vcpu *v);
/* In any other state than KVM_MP_STATE_RUNNABLE: sleeps until there is something to look at. */
int vcpu_wait(struct vcpu *v);

/* Is there an event that the guest takes now? That ends HLT (core/run.c). */
bool vcpu_event_waits(struct vcpu *v);

#endif
