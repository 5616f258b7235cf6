/*
 * Decoded code: blocks of instructions, per vCPU, keyed by guest physical address and mode; the
 * lookup from linear address to block; and what makes blocks stale.
 *
 * A block is a run of instructions inside one page that ends at the first transfer of control, at
 * an instruction that may change the mode or let an interrupt in, or at the page's end. It is valid
 * while its page's generation (core/code_page.h, which has the rules for several vCPUs) is the one
 * it was decoded under. Three things raise a generation:
 *  - a guest write into a decoded 64-byte chunk: such pages have no fast write translation, so the
 *    write comes through mem_slow_write and code_note_write;
 *  - a difference found when the page is entered anew (a fresh fetch translation): user space may
 *    have written it, by DMA. The decoded chunks' hash tells;
 *  - a flush of everything (slots changed, arena full).
 */
#ifndef QUMRA_HYPERVISOR_INSN_CODE_H
#define QUMRA_HYPERVISOR_INSN_CODE_H

#include "hypervisor/core/vm.h"
#include "hypervisor/insn/insn.h"

struct block {
	struct block *next;	/* in its hash bucket */
	u64 key;		/* guest physical address and decoding mode */
	struct code_page *page;
	u32 gen;		/* of the page, when decoded */
	u16 n;			/* instructions, at least 1 */
	u16 bytes;
	struct insn insn[];
};

/* Where instruction bytes come from: the last fetch translation of a page. */
struct fetch_entry {
	u64 tag;		/* linear page | context */
	u64 epoch;
	u64 gpa;
	const u8 *host;
	const struct memslot *slot;
};

struct lookup_entry {
	u64 la;
	u64 ctx;
	struct block *block;
};

#define FETCH_ENTRIES	256
#define LOOKUP_SETS	64	/* by linear page, so that INVLPG clears one set */
/* By offset in the page. A kernel's boot misses 11 % with 64, 1.3 % with 512. */
#define LOOKUP_WAYS	512
#define BLOCK_BUCKETS	8192

#define INSN_MAX	15u	/* bytes. SDM 2A 2.3.11 */

struct code_cache {
	/* entries of another epoch are void; in bits 63:16 of a lookup's ctx */
	u64 epoch;
	struct lookup_entry lookup[LOOKUP_SETS][LOOKUP_WAYS];
	struct fetch_entry fetch[FETCH_ENTRIES];
	struct block *bucket[BLOCK_BUCKETS];
	u8 *arena;
	size_t used;
	/* What code_fetch() decoded last: one that leaves for user space is fetched again at once. */
	struct {
		u8 code_bytes;	/* 0: nothing */
		u8 bytes[INSN_MAX];
		struct insn insn;
	} last;
};

int code_create(struct vcpu *v);	/* 0 or -ENOMEM */
void code_destroy(struct vcpu *v);
void code_flush(struct vcpu *v);	/* every block */

/* Linear addresses may lead elsewhere now: all of them, or those in one page. Blocks stay. */
void code_flush_lookup(struct vcpu *v);
void code_flush_lookup_page(struct vcpu *v, u64 la);

/*
 * The block at CS:RIP, decoded if need be. Raises fetch faults. NULL: the instruction there lies in
 * two pages or reaches over the segment's limit: use code_fetch.
 */
struct block *code_find(struct vcpu *v);

/* Decodes the one instruction at CS:RIP, outside the cache; faults are raised. */
void code_fetch(struct vcpu *v, struct insn *out);

/* Linear address of CS:RIP. */
static __always_inline_ u64 code_linear(const struct vcpu *v)
{
	u64 la = v->ebase[SEG_CS] + v->r[R_RIP];

	return v->code_bytes == 8 ? la : (u32)la;
}

/*
 * What beside the linear address decides which block it is: address space, privilege, mode, epoch.
 */
static __always_inline_ u64 code_context(const struct vcpu *v)
{
	return v->tlb_ctx | (u64)v->code_bytes << 12 | v->code->epoch << 16;
}

static __always_inline_ struct lookup_entry *code_lookup_entry(struct vcpu *v, u64 la)
{
	return &v->code->lookup[(la >> 12) & (LOOKUP_SETS - 1)][(la ^ la >> 9) & (LOOKUP_WAYS - 1)];
}

#endif
