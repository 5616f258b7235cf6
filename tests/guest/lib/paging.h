/* Page tables of a 64-bit guest. SDM 3A 4.5. */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "guest.h"

#define PTE_P	BIT(0)
#define PTE_W	BIT(1)
#define PTE_U	BIT(2)
#define PTE_A	BIT(5)
#define PTE_D	BIT(6)
#define PTE_PS	BIT(7)
#define PTE_G	BIT(8)
#define PTE_NX	BIT(63)
#define PTE_ADDR	0x000ffffffffff000ul

#define PF_P	1
#define PF_W	2
#define PF_U	4
#define PF_RSVD	8
#define PF_I	16

/* Addresses from here on belong to the test. */
#define TEST_VA	0x8000000000ul

#ifdef __x86_64__
/* The entry that maps va at a level (1: PT, 2: PD, 3: PDPT, 4: PML4); tables above are made. */
u64 *page_entry(ulong va, int level);
/* Maps a 4 KiB page and forgets what the TLB knew of it. */
void page_map(ulong va, u64 pa, u64 flags);
/* A zeroed page of RAM that nothing else uses. */
void *page_alloc(void);
#endif
static inline void tlb_flush(void) { write_cr3(read_cr3()); }

#endif
