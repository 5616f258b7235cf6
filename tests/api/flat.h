/*
 * Single instructions of a guest in 32-bit protected mode without paging, at CPL 0 and without an IDT: a
 * fault is a shutdown. For MSRs and hypercalls, which say more by their effects than by code around them.
 */
#ifndef QUMRA_TESTS_API_FLAT_H
#define QUMRA_TESTS_API_FLAT_H

#include "tests/api/api.h"

/* The last word of RAM that flat_insn() does not use begins here. */
#define FLAT_DATA	0x4000

/*
 * Runs an instruction with these registers (rip and rsp are set here), then OUT to port 0x10. Returns the
 * exit: KVM_EXIT_IO when all went well; *r is what the registers are then.
 */
u32 flat_insn(struct machine *m, const u8 *insn, size_t size, struct kvm_regs *r);
/* On with a program that left for another reason, to its OUT. */
u32 flat_go_on(struct machine *m, struct kvm_regs *r);
u32 flat_wrmsr(struct machine *m, u32 index, u64 val);
u32 flat_rdmsr(struct machine *m, u32 index, u64 *val);
/* KVM_HC_*: EAX, EBX, ECX, EDX, ESI. Returns EAX. */
s32 flat_hypercall(struct machine *m, u32 nr, u32 b, u32 c, u32 d, u32 s);

/* By user space; how many were written or read. */
long msr_put(int vcpu, u32 index, u64 val);
long msr_get(int vcpu, u32 index, u64 *val);

/* The supported CPUID, KVM's leaves at 0x40000000 + at; with Hyper-V's (all that are offered) at zero. */
void cpuid_with(struct machine *m, u32 at, bool hyperv);
/* Is the vector requested at this local APIC? */
bool lapic_requested(int vcpu, u8 vector);
/* As firmware leaves it: enabled by software. */
void lapic_enable(int vcpu);

#endif
