/*
 * An address space of the guest as a vCPU caches it: data translations, and for the translator
 * (dbt/) where code at linear addresses was translated to.
 *
 * A vCPU has NR_SPACES of these, one for each PCID in recent use: Linux has six, a guest without
 * PCIDs uses the first. A CR3 write that keeps translations only chooses another; one that drops them empties
 * the space, but for global pages. So no tag holds an address-space number, and a hit is one
 * compare. While translated code runs, GS base is v->space: the first page is the vCPU's own first
 * page once more (v->r[] and all that stands before hot_end), the rest is private to the space.
 *
 * Only the vCPU's thread touches it.
 */
#ifndef QUMRA_HYPERVISOR_X86_SPACE_H
#define QUMRA_HYPERVISOR_X86_SPACE_H

#include "lib/types.h"

/*
 * TLB entries, found by linear page. tag[enum mmu_index][0: read, 1: write] holds the linear page
 * where that access is plain memory. TLB_SLOW set in a stored tag makes the fast compare fail while
 * the entry is still known to the slow path (MMIO, code pages, watched pages). Size: a kernel's
 * boot with its decompressor fills 4.2 million entries of a TLB with 10 bits, 0.5 million with 12
 * (a tenth of the boot's time in the interpreter). 13 halves the misses of random access over
 * 32 MiB; 14 would cost a MiB for each space in use.
 */
#define TLB_BITS	13
#define TLB_ENTRIES	(1u << TLB_BITS)
#define TLB_SLOW	1ULL
#define TLB_INVALID	(~0ULL)
#define NR_TLB_INDEXES	3	/* MMU_KERNEL, MMU_USER, MMU_KERNEL_SMAP */
struct tlb_entry {
	u64 tag[NR_TLB_INDEXES][2];
	u64 addend;	/* host address = linear address + addend */
	u64 gpa;	/* of the page; TLB_* flags of x86/mmu.h in bits 11:0 */
};
_Static_assert(sizeof(struct tlb_entry) == 64, "a cache line; translated code shifts by 6");

/* Where an indirect branch to la goes. Filled by dbt/, which see for free entries. */
#define JUMP_BITS	14
#define JUMP_ENTRIES	(1u << JUMP_BITS)
#define NR_JUMP_MODES	8
struct jump_entry {
	u64 la;
	u64 host;	/* address in the code cache */
};

/*
 * Large pages in use, cached as 4 KiB fragments: may a linear address lie in one? A set of hashes
 * of large pages' bases, which may say yes in error.
 */
#define LARGE_BITS	12
struct large_set {
	u64 sizes;		/* of pages, ORed */
	u64 bits[(1u << LARGE_BITS) / 64];
};

/* Indexes of TLB entries. */
struct tlb_list {
	u32 n;
	u16 index[TLB_ENTRIES];
};

/* May an entry be of this guest physical page? A set of hashes, which may say yes in error. */
#define PAGE_SET_BITS	15
struct page_set {
	u64 bits[(1u << PAGE_SET_BITS) / 64];
};

#define NR_SPACES	8
#define NR_CELLS	(1u << 18)

struct space {
	u8 hot[4096];
	struct tlb_entry tlb[TLB_ENTRIES];
	struct jump_entry jump[NR_JUMP_MODES][JUMP_ENTRIES];
	/* Where direct branches to other pages go: a host address by number of the branch. */
	u64 cell[NR_CELLS];

	/* ---- bookkeeping, not reached by translated code ---- */
	u64 key;		/* PCID, with in_use */
	u16 asid;		/* its number in v->tlb_ctx, new whenever something is dropped */
	bool in_use;
	bool code_used;		/* jump[] or cell[] or the engine's lists hold something */
	struct large_set large_data, large_code;	/* data in the TLB; pages fetched from */
	/* Entries filled since the space was emptied, those of global pages apart. */
	struct tlb_list local, global;
	struct page_set pages;	/* of all entries, and of some that are no more */
};

#define SPACE_SIZE	ALIGN_UP(sizeof(struct space), 4096UL)

#endif
