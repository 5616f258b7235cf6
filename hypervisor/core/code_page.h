/*
 * What is known of a guest physical page that holds decoded or translated code: which parts of it,
 * since when, who may write to it unseen. Shared by all vCPUs of a VM; core/code_page.c.
 *
 * The rule. When vCPU B has written to code and then tells vCPU A so inside the guest (a flag in
 * memory, or an IPI; SDM 3A 8.1.3), A never runs what was decoded from the old bytes. A write of
 * B's own is seen by B at once (SMC).
 *
 * 1. A page's 64-byte chunks that were decoded are set in its mask, and the mask is set BEFORE the
 *    bytes are read (code_cover). A write that goes through the slow path stores its bytes, then a
 *    full barrier, then looks at the mask (code_note_write). One of the two sees the other: either
 *    the decoder reads the new bytes, or the writer finds the chunk covered and makes the page
 *    stale. B's signal to A comes after that in B's program order.
 *
 * 2. Stale: gen is raised, then readers, hash and mask are cleared, then gen is raised again. It is
 *    odd only in between; code decoded under an odd number would not be watched, so
 *    code_page_gen() waits. The interpreter compares gen before each block. An engine that does not
 *    (ops->code_check) gets REQ_CODE_STALE on each vCPU in readers, before anything else changes;
 *    it is served at the next boundary, before interrupts. A boundary follows each serializing
 *    instruction, because it ends a block.
 *    A vCPU that writes to such a page and finds itself no reader any more may be running what
 *    another one has just made stale, so that instruction is followed by a boundary too.
 *
 * 3. Fast writes (TLB tags) look at no mask. Bit n of "writers" is set by vCPU n before it looks
 *    whether the page holds code and makes a fast tag, or hands out a pointer; only n itself clears
 *    it, when it has dropped these tags. The decoder, mask set, asks all other writers to drop them
 *    and waits until each has, or is out of the guest (it serves requests before it goes on). Only
 *    then are bytes read. While it waits the decoder serves the same requests itself, so two that
 *    wait for each other both go on; no lock is held meanwhile. A page that nobody else wrote since
 *    costs nothing, one vCPU alone never waits.
 *
 * 4. User space writes unseen (DMA). The hash over the covered chunks is computed when they are
 *    covered, before they are decoded, and compared when a page is entered through a fresh
 *    translation (code_check_page). Translations end where paging says so, at a kernel's CPUID,
 *    WBINVD and INVD, at exits (core/run.c: with paging on, of code only), and at interrupts behind
 *    an exit of any vCPU or an interrupt that user space sent. At the latter two, pages that are so few
 *    that each can be compared (code_check_entered) keep their translations.
 *
 * vm->code_lock guards changes of mask, hash, gen and readers; it is a leaf, held for a
 * microsecond.
 */
#ifndef QUMRA_HYPERVISOR_CORE_CODE_PAGE_H
#define QUMRA_HYPERVISOR_CORE_CODE_PAGE_H

#include "lib/types.h"

struct vcpu;
struct memslot;

#define CODE_CHUNK	64u	/* bytes watched together */
struct code_page {
	u64 mask;	/* which of its 64 chunks were decoded; atomic */
	u64 writers;	/* by vCPU index: may have fast write tags; atomic */
	u64 readers;	/* by vCPU index: decoded some of it under the present gen */
	u32 gen;	/* atomic */
	u32 hash;	/* of the chunks in mask, when decoded */
};
_Static_assert(sizeof(struct code_page) == 32, "two share a cache line");

/* Of a thread that is torn out of here by a fault (x86/unwind.c); nothing, if it has not got the lock. */
void code_unlock(struct vcpu *v);

/* The number that code decoded from now on is valid under. */
u32 code_page_gen(struct vcpu *v, const struct code_page *p);

/*
 * size bytes at gpa, in one page of slot s, were written, with a full barrier since. Makes the code
 * of the page stale if some of them were decoded.
 */
void code_note_write(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int size);

/*
 * The bytes [off, off + size) of the page at gpa are about to be decoded. May wait for other vCPUs;
 * at an instruction boundary only.
 */
void code_cover(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int off,
	unsigned int size);

/* Before the code of a page is entered in a new place: stales what user space has written over. */
void code_check_page(struct vcpu *v, const struct memslot *s, u64 gpa);

/*
 * Those that this vCPU has entered since it forgot them are few, and each is checked: true. At a boundary.
 * Pages whose memory went away are left for who fetches from them.
 */
bool code_check_entered(struct vcpu *v);

/* All that leads to code has been dropped: each page will be entered anew. */
void code_forget_entered(struct vcpu *v);

/* Are they so few that code_check_entered() will do? */
bool code_entered_few(const struct vcpu *v);

/* This vCPU is about to make a fast write tag. Before it looks whether the page holds code. */
void code_page_add_writer(struct vcpu *v, struct code_page *p);

/*
 * May these bytes be written by pointer, unseen, until the end of the instruction? False: they are
 * decoded.
 */
bool code_write_blind(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int size);

/* REQ_TLB_PROTECT_CODE, at an instruction boundary: drops the write tags that others ask for. */
void code_protect_serve(struct vcpu *v);

#endif
