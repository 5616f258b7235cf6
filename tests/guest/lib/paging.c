/* Builds page tables on demand beneath the boot PML4. */
#include "paging.h"

#ifdef __x86_64__
static u8 pool[64][4096] PAGE_ALIGNED;
static u32 pool_used;
extern u64 boot_pml4[512];

void *page_alloc(void)
{
	if (pool_used == ARRAY_SIZE(pool)) {
		print("FAIL the guest's page pool is empty\n");
		guest_exit(0x12);
	}
	return pool[pool_used++];
}

u64 *page_entry(ulong va, int level)
{
	u64 *table = boot_pml4;
	int l;

	for (l = 4; l > level; l--) {
		u64 *e = &table[va >> (3 + 9 * l) & 511];

		if (!(*e & PTE_P))
			*e = (ulong)page_alloc() | PTE_P | PTE_W | PTE_U;
		table = (u64 *)(*e & PTE_ADDR);
	}
	return &table[va >> (3 + 9 * level) & 511];
}

void page_map(ulong va, u64 pa, u64 flags)
{
	*page_entry(va, 1) = pa | flags;
	invlpg((void *)va);
}
#endif
