/*
 * System management mode. SDM 3C chapter 31, APM 2 chapter 10; the state save area is AMD's, in the
 * form that KVM 6.1 writes. On the vCPU's thread; nothing here unwinds.
 */
#ifndef QUMRA_HYPERVISOR_X86_SMM_H
#define QUMRA_HYPERVISOR_X86_SMM_H

#include "hypervisor/x86/vcpu.h"

/* Takes the pending SMI: saves the state, then the handler at SMBASE + 0x8000 is next. */
void smm_enter(struct vcpu *v);

/*
 * RSM, for a vCPU in SMM. 0; -EINVAL: the saved state is impossible, the processor shuts down;
 * -EFAULT: there is no memory at the save area (nothing has changed).
 */
int smm_leave(struct vcpu *v);

/* In or out of the mode without anything else: which memory slots there are, and who is told. */
void smm_set(struct vcpu *v, bool smm);

#endif
