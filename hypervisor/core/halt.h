/* HLT, as steps of KVM_RUN: 1 (go on), 0 (exit to user space) or -errno. The vCPU's own thread. */
#ifndef QUMRA_HYPERVISOR_CORE_HALT_H
#define QUMRA_HYPERVISOR_CORE_HALT_H

#include "hypervisor/core/vm.h"

/* The guest has executed HLT. */
int vcpu_halt(struct vcpu *v);
/* In any other state than KVM_MP_STATE_RUNNABLE: sleeps until there is something to look at. */
int vcpu_wait(struct vcpu *v);

/* Is there an event that the guest takes now? That ends HLT (core/run.c). */
bool vcpu_event_waits(struct vcpu *v);

#endif
