/*
 * The interpreter's loop in pieces, for the engine that falls back on it (dbt/).
 */
#ifndef QUMRA_HYPERVISOR_INSN_INTERP_H
#define QUMRA_HYPERVISOR_INSN_INTERP_H

#include "hypervisor/insn/code.h"

/* One block of decoded instructions, or with v->step one instruction. Unwinds as handlers do. */
void interp_once(struct vcpu *v);
/* One instruction, with what belongs to it in step mode. */
void interp_insn(struct vcpu *v);
/* Nothing asks the engine to come back. To be called after an instruction only. */
bool interp_go_on(const struct vcpu *v);
/* After UNWIND_RESTART in step mode: the boundary inside a repeated string instruction. */
void interp_restart_in_step(struct vcpu *v);
/* The instruction wrote into decoded code or did I/O: its log of accesses is done with. */
void interp_end_boundary(struct vcpu *v);

#endif
