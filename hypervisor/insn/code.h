/*
 * Decoded code: blocks of instructions, per vCPU, keyed by guest physical address and mode; the
 * lookup from linear address to block; and what makes blocks stale.
 */
#ifndef QUMRA_HYPERVISOR_INSN_CODE_H
#define QUMRA_HYPERVISOR_INSN_CODE_H

#include "hypervisor/core/vm.h"
#include "hypervisor/insn/insn.h"

int code_create(struct vcpu *v);	/* 0 or -ENOMEM */
void code_destroy(struct vcpu *v);
void code_flush(struct vcpu *v);	/* every block */

/* Linear addresses may lead elsewhere now: all of them, or those in one page. Blocks stay. */
void code_flush_lookup(struct vcpu *v);
void code_flush_lookup_page(struct vcpu *v, u64 la);

/*
 * size bytes at gpa, in one page of slot s, are about to be written (or were: the order does not matter to the
 * caller's thread) and the page holds decoded code. Stales the blocks concerned.
 */
void code_note_write(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int size);

#endif
