/*
 * Address translation: the page walk and the TLB's bookkeeping. SDM 3A chapter 4.
 * All of it runs on the vCPU's thread with v->in_guest set (so that slots stay put).
 */
#ifndef QUMRA_HYPERVISOR_X86_MMU_H
#define QUMRA_HYPERVISOR_X86_MMU_H

#include "hypervisor/x86/mem.h"

struct memslot;

/*
 * What a TLB entry says about its page besides the address, in bits 11:0 of tlb_entry.gpa. An entry
 * with any of the first four has TLB_SLOW in the tags concerned.
 */
#define TLB_MMIO	BIT(0)	/* no memory there: reads and writes leave to a device */
#define TLB_ROM		BIT(1)	/* read-only slot: writes leave to user space */
#define TLB_WATCH	BIT(2)	/* a data breakpoint lies on the page */
#define TLB_CODE	BIT(3)	/* holds decoded code: writes are noted */
#define TLB_SIZE	MASK(8, 4) /* log2 of the guest's page size */
#define TLB_SIZE_SHIFT	4
#define TLB_GLOBAL	BIT(9)	/* outlives CR3. SDM 3A 4.10.2.4 */
/* The entry stands in the space's list of that name. */
#define TLB_IN_LOCAL	BIT(10)
#define TLB_IN_GLOBAL	BIT(11)

/* A finished walk. */
struct mmu_map {
	u64 gpa;		/* of the byte; with v->mem_space, as all gpa here */
	u64 page_size;		/* 4 KiB, 2 MiB, 4 MiB, 1 GiB */
	bool writable;		/* for this mmu_index, D already set (or set by this walk) */
	bool global;
};

/*
 * Walks for one access. Sets A and D as the access demands (atomically: other vCPUs walk too).
 * Returns 0, or -EFAULT with *error the #PF error code (nothing raised).
 */
int mmu_walk(struct vcpu *v, u64 la, enum mem_access acc, enum mmu_index idx, struct mmu_map *map,
	u32 *error);

/*
 * A walk without side effects for KVM_TRANSLATE, the debugger and tests. -EFAULT when not mapped.
 */
int mmu_translate(struct vcpu *v, u64 la, u64 *gpa);

/*
 * For instruction fetch: translates the page of la for execution at the current privilege and
 * returns its gpa (page), raising #PF as a fetch. Not cached here: see insn/code.c.
 */
u64 mmu_fetch_page(struct vcpu *v, u64 la, bool *global);	/* global: may be NULL */

/* ---- x86/tlb.c: the entries of one space ---- */

/*
 * Walks for a data access (la is canonical, or below 4 GiB outside long mode) and puts the page
 * into the TLB of the present space. Raises #PF. The tag for idx and acc in tlb_entry(v, la) then
 * matches la, TLB_SLOW aside.
 */
void tlb_fill(struct vcpu *v, u64 la, enum mem_access acc, enum mmu_index idx);
void tlb_init(struct space *s);			/* of a space never used */
void tlb_drop_all(struct space *s);
void tlb_drop_local(struct space *s);		/* all but global pages */
void tlb_drop_page(struct space *s, u64 la);	/* all of it, when it is a large one */
void tlb_drop_writes(struct space *s, u64 gpa_page);
void tlb_drop_all_writes(struct space *s);

/* A large page is in use at la. */
void large_add(struct large_set *l, u64 la, u64 page_size);
/* May la lie in one? Then, *size is the largest it may have. */
bool large_find(const struct large_set *l, u64 la, u64 *size);

/* ---- x86/space.c: all spaces ---- */

void mmu_init(struct vcpu *v);	/* v->spaces is there */
void mmu_flush_all(struct vcpu *v);		/* everything, global pages too */
void mmu_flush_page(struct vcpu *v, u64 la);	/* INVLPG: every address space, to be safe */
void mmu_flush_writes(struct vcpu *v, u64 gpa_page);	/* no fast write to this page any more */
void mmu_flush_all_writes(struct vcpu *v);		/* nor to any other */
/* After v->cr3 changed. keep: PCID with bit 63 set, so cached translations stay valid. */
void mmu_set_cr3(struct vcpu *v, bool keep);
void mmu_invpcid(struct vcpu *v, unsigned int type, u64 pcid, u64 la);
/* PAE: (re)loads v->pdpte from CR3. False: a reserved bit is set (#GP by the caller). */
bool mmu_load_pdptes(struct vcpu *v);
/* After v->space or v->mmu_idx changed, or whether #AC may come: what depends on these. */
void space_update_mode(struct vcpu *v);

/* The stack's page may be another, or have other rights. */
static inline void space_stack_forget(struct vcpu *v)
{
	v->hot.stack_tag = TLB_INVALID;
}

static inline u64 tlb_gpa(const struct tlb_entry *e)
{
	return e->gpa & ~0xfffULL;
}

#endif
