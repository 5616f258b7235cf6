/*
 * A virtual machine of one engine that sequences run in: its memory has the layout of layout.h, its
 * one vCPU is set anew for each program.
 */
#ifndef QUMRA_TESTS_INSN_SEQUENCES_MACHINE_H
#define QUMRA_TESTS_INSN_SEQUENCES_MACHINE_H

#include <linux/kvm.h>

#include "tests/insn/host/host.h"
#include "tests/insn/sequences/layout.h"

struct machine {
	const char *engine;
	int sys, vm, vcpu;
	struct kvm_run *run;
	u8 *ram;		/* RAM_SIZE bytes, guest physical from BASE */
	struct kvm_sregs sregs;	/* as at the start of a 64-bit program at CPL 0 */
	struct vcpu *inside;	/* for the count of instructions */
	volatile unsigned int ticks;	/* of the watchdog in this run */
	bool late;		/* the last run did not end by itself */
	bool clean;		/* memory and MSRs were not touched by a system program */
};

/* Where in a mode's start state programs differ. */
struct start {
	u16 cs, ss;
	u64 idt;
	u64 cr0, cr4;	/* bits to set beside the usual ones */
	u64 cr3;
	u64 fs_base, gs_base;
};

extern struct machine *machine_running;	/* or NULL: for the watchdog */

/* 0, or -errno with a message printed. */
int machine_new(struct machine *m, const char *engine);
void machine_set_clean(struct machine *m);	/* memory and MSRs as after machine_new() */
int machine_start(struct machine *m, const struct start *how, const struct state *s);
/* KVM_RUN once. Returns what it returned, but 0 where the watchdog ended it (m->late). */
long machine_run(struct machine *m);
int machine_state(const struct machine *m, struct state *s, struct kvm_sregs *sr);
/* After a stop (AT_STOP): the state of the program that was stopped. */
int machine_stopped_state(const struct machine *m, struct state *s);
u64 machine_insns(const struct machine *m);
long machine_call(const struct machine *m, unsigned long request, void *arg);

static inline void *machine_at(const struct machine *m, u64 addr)
{
	return m->ram + (addr - BASE);
}

#endif
