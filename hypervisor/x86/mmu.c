/*
 * The page walk: 32-bit paging with PSE and PSE-36, PAE, 4-level with 2 MiB and 1 GiB pages;
 * rights, reserved bits, accessed and dirty bits. SDM 3A 4.3 to 4.8.
 *
 * A walk reads every entry first, decides, and only then sets A and D, each with a compare and
 * exchange; when one of these loses against another CPU, the walk starts again. So an access that
 * faults changes no entry (SDM allows A to be set, nobody may rely on it).
 *
 * Paging-structure entries outside all memory slots read as all ones, as from an empty bus: at the
 * first level this usually is a reserved-bit fault. In read-only slots A and D stay as they are.
 *
 * Where vendors differ we follow Intel: bit 8 of a non-leaf entry is ignored (AMD reserves it in the
 * upper two levels, APM 2 5.3.3), and PAE's directory pointers are loaded with CR3.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#include <linux/errno.h>

#define PTE_P		BIT(0)
#define PTE_W		BIT(1)
#define PTE_U		BIT(2)
#define PTE_A		BIT(5)
#define PTE_D		BIT(6)
#define PTE_PS		BIT(7)
#define PTE_G		BIT(8)
#define PTE_NX		BIT(63)
#define PTE_ADDR64	MASK(51, 12)
#define PTE_ADDR32	MASK(31, 12)

#define PAGE_SHIFT	12
#define PAGE_SIZE	0x1000ULL

/* One of the three formats. SDM 3A table 4-1 */
struct paging {
	u8 levels;	/* of tables in memory: PAE's PDPTEs are registers */
	u8 entry;	/* bytes */
	u8 index_bits;
};

static const struct paging paging_32bit = { 2, 4, 10 };
static const struct paging paging_pae = { 2, 8, 9 };
static const struct paging paging_4level = { 4, 8, 9 };

static const struct paging *paging_of(const struct vcpu *v)
{
	if (v->efer & EFER_LMA)
		return &paging_4level;
	return v->cr4 & CR4_PAE ? &paging_pae : &paging_32bit;
}

/* An entry that the walk used. */
struct walk_step {
	void *host;	/* NULL: not in writable memory */
	const struct memslot *slot;
	u64 gpa;
	u64 val;
};

struct walk {
	struct walk_step step[4];
	unsigned int n;		/* step[n - 1] is the leaf */
	unsigned int entry;	/* bytes of each */
	u64 rights;		/* PTE_W and PTE_U of all levels ANDed, PTE_NX ORed */
	u64 gpa, page_size;
	bool global;
};

enum walk_result { WALK_OK, WALK_ABSENT, WALK_RESERVED };

/* ---- entries ---- */

static void entry_read(struct vcpu *v, u64 gpa, unsigned int bytes, struct walk_step *step)
{
	const struct memslot *slot;
	const void *host;

	gpa |= v->mem_space;
	slot = memslot_find(v->vm, gpa);
	step->gpa = gpa;
	step->slot = slot;
	step->host = NULL;
	if (!slot) {
		step->val = bytes == 4 ? ~0U : ~0ULL;
		return;
	}
	host = memslot_host(slot, gpa);
	step->val = mem_load(host, bytes);
	if (!(slot->flags & KVM_MEM_READONLY))
		step->host = (void *)host;
}

static bool entry_exchange(struct walk_step *step, unsigned int bytes, u64 val)
{
	u32 old32 = (u32)step->val;

	if (bytes == 4)
		return __atomic_compare_exchange_n((u32 *)step->host, &old32, (u32)val, false,
			__ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	return __atomic_compare_exchange_n((u64 *)step->host, &step->val, val, false,
		__ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* False: the entry changed under us. */
static bool entry_set(struct vcpu *v, struct walk_step *step, unsigned int bytes, u64 bits)
{
	u64 val = step->val | bits;

	if (val == step->val || !step->host)
		return true;
	if (!entry_exchange(step, bytes, val))
		return false;
	step->val = val;
	if (step->slot->dirty)
		memslot_mark_dirty(v->vm, v, step->slot, step->gpa);
	if (READ_ONCE(memslot_code(step->slot, step->gpa)->mask))
		code_note_write(v, step->slot, step->gpa, bytes);
	return true;
}

/* ---- reserved bits. SDM 3A 4.3 table 4-3, 4.4.2, 4.5 ---- */

/* PSE-36 puts address bits 39:32 into bits 20:13 of a 4 MiB entry; 21 is always reserved. */
static u64 reserved_32bit(const struct vcpu *v, bool large)
{
	unsigned int width = MIN(v->maxphyaddr, 40);

	if (!large)
		return 0;
	if (!vcpu_has(v, F_PSE36) || width <= 32)
		return MASK(21, 13);
	return MASK(21, width - 19);
}

static u64 reserved_64bit(const struct vcpu *v, unsigned int level, u64 entry)
{
	u64 mask = v->mmu.maxphyaddr_mask;

	if (!(v->efer & EFER_NX))
		mask |= PTE_NX;
	if (!(v->efer & EFER_LMA))
		mask |= MASK(62, 52);
	if (!level || !(entry & PTE_PS))
		return mask;
	if (level == 1)
		return mask | MASK(20, 13);
	if (level == 2 && vcpu_has(v, F_PDPE1GB))
		return mask | MASK(29, 13);
	return mask | PTE_PS;
}

static bool entry_large(const struct vcpu *v, const struct paging *p, unsigned int level, u64 entry)
{
	return level && entry & PTE_PS && (p->entry == 8 || v->cr4 & CR4_PSE);
}

static bool entry_reserved(const struct vcpu *v, const struct paging *p, unsigned int level,
	u64 entry)
{
	u64 mask = p->entry == 8 ? reserved_64bit(v, level, entry) :
		reserved_32bit(v, entry_large(v, p, level, entry));

	return entry & mask;
}

/* ---- the walk ---- */

static u64 leaf_address(const struct paging *p, unsigned int level, u64 entry)
{
	u64 size = PAGE_SIZE << (level * p->index_bits);

	if (p->entry == 8)
		return entry & PTE_ADDR64 & ~(size - 1);
	if (level)
		return (entry & MASK(31, 22)) | (entry & MASK(20, 13)) << 19;
	return entry & PTE_ADDR32;
}

static void walk_leaf(struct walk *w, const struct paging *p, unsigned int level, u64 la)
{
	u64 entry = w->step[w->n - 1].val;

	w->page_size = PAGE_SIZE << (level * p->index_bits);
	w->gpa = leaf_address(p, level, entry) | (la & (w->page_size - 1));
	w->global = entry & PTE_G;
}

/* Where the walk begins; false: PAE's directory pointer is not present. */
static bool walk_root(const struct vcpu *v, const struct paging *p, u64 la, u64 *table)
{
	u64 pdpte;

	if (p == &paging_4level)
		*table = v->cr3 & PTE_ADDR64;
	else if (p == &paging_32bit)
		*table = v->cr3 & PTE_ADDR32;
	else {
		pdpte = v->pdpte[la >> 30 & 3];
		*table = pdpte & PTE_ADDR64;
		return pdpte & PTE_P;
	}
	return true;
}

static enum walk_result walk_tables(struct vcpu *v, u64 la, struct walk *w)
{
	const struct paging *p = paging_of(v);
	unsigned int level = p->levels;
	u64 table, index, entry;

	w->n = 0;
	w->entry = p->entry;
	w->rights = PTE_W | PTE_U;
	if (!walk_root(v, p, la, &table))
		return WALK_ABSENT;
	while (level--) {
		index = la >> (PAGE_SHIFT + level * p->index_bits) & (BIT(p->index_bits) - 1);
		entry_read(v, table + index * p->entry, p->entry, &w->step[w->n]);
		entry = w->step[w->n++].val;
		if (!(entry & PTE_P))
			return WALK_ABSENT;
		if (entry_reserved(v, p, level, entry))
			return WALK_RESERVED;
		w->rights = (w->rights & (entry | PTE_NX)) | (entry & PTE_NX);
		if (entry_large(v, p, level, entry))
			break;
		if (level)
			table = entry & (p->entry == 8 ? PTE_ADDR64 : PTE_ADDR32);
		else
			break;
	}
	walk_leaf(w, p, level, la);
	return WALK_OK;
}

/* ---- rights. SDM 3A 4.6 ---- */

static bool walk_may_write(const struct vcpu *v, const struct walk *w, enum mmu_index idx)
{
	return w->rights & PTE_W || (idx != MMU_USER && !(v->cr0 & CR0_WP));
}

static bool walk_allows(const struct vcpu *v, const struct walk *w, enum mem_access acc,
	enum mmu_index idx)
{
	bool user_page = w->rights & PTE_U;

	if (idx == MMU_USER && !user_page)
		return false;
	if (acc == MEM_EXEC) {
		if (idx != MMU_USER && user_page && v->cr4 & CR4_SMEP)
			return false;
		return !(w->rights & PTE_NX);
	}
	if (idx == MMU_KERNEL_SMAP && user_page)
		return false;
	return acc != MEM_WRITE || walk_may_write(v, w, idx);
}

/* SDM 3A 4.7: I only where fetches can be told apart. */
static u32 fault_error(const struct vcpu *v, enum mem_access acc, enum mmu_index idx)
{
	u32 error = 0;

	if (acc == MEM_WRITE)
		error |= PF_W;
	if (idx == MMU_USER)
		error |= PF_U;
	if (acc == MEM_EXEC && (v->cr4 & CR4_SMEP || (v->cr4 & CR4_PAE && v->efer & EFER_NX)))
		error |= PF_I;
	return error;
}

static bool walk_set_accessed(struct vcpu *v, struct walk *w, enum mem_access acc)
{
	unsigned int i;
	u64 bits;

	for (i = 0; i < w->n; i++) {
		bits = i == w->n - 1 && acc == MEM_WRITE ? PTE_A | PTE_D : PTE_A;
		if (!entry_set(v, &w->step[i], w->entry, bits))
			return false;
	}
	return true;
}

static void map_unpaged(u64 space, u64 la, struct mmu_map *map)
{
	*map = (struct mmu_map) { .gpa = space | la, .page_size = PAGE_SIZE, .writable = true };
}

int mmu_walk(struct vcpu *v, u64 la, enum mem_access acc, enum mmu_index idx, struct mmu_map *map,
	u32 *error)
{
	enum walk_result r;
	struct walk w;

	if (!(v->cr0 & CR0_PG)) {
		map_unpaged(v->mem_space, la, map);
		return 0;
	}
	do {
		r = walk_tables(v, la, &w);
		if (r != WALK_OK || !walk_allows(v, &w, acc, idx)) {
			*error = fault_error(v, acc, idx);
			if (r != WALK_ABSENT)
				*error |= PF_P;
			if (r == WALK_RESERVED)
				*error |= PF_RSVD;
			return -EFAULT;
		}
	} while (!walk_set_accessed(v, &w, acc));
	map->gpa = v->mem_space | w.gpa;
	map->page_size = w.page_size;
	map->global = w.global;
	map->writable = walk_may_write(v, &w, idx) &&
		(acc == MEM_WRITE || w.step[w.n - 1].val & PTE_D);
	return 0;
}

int mmu_translate(struct vcpu *v, u64 la, u64 *gpa)
{
	struct walk w;

	if (!vcpu_long_mode(v))
		la = (u32)la;
	else if ((u64)((s64)(la << 16) >> 16) != la)
		return -EFAULT;
	if (!(v->cr0 & CR0_PG)) {
		*gpa = la;
		return 0;
	}
	if (walk_tables(v, la, &w) != WALK_OK)
		return -EFAULT;
	*gpa = w.gpa;
	return 0;
}

/* Code is about to be read in places that must not unwind: if its memory is gone, then here. */
static void fetch_touch(struct vcpu *v, u64 gpa)
{
	const struct memslot *s = memslot_find(v->vm, gpa);

	if (s)
		READ_ONCE(*(u8 *)memslot_host(s, gpa));
}

u64 mmu_fetch_page(struct vcpu *v, u64 la, bool *global)
{
	enum mmu_index idx = v->cpl == 3 ? MMU_USER : MMU_KERNEL;
	struct mmu_map map;
	u32 error;

	if (!vcpu_64bit(v))
		la = (u32)la;
	else if ((u64)((s64)(la << 16) >> 16) != la)
		raise_gp(v, 0);
	if (mmu_walk(v, la, MEM_EXEC, idx, &map, &error) < 0)
		vcpu_raise_pf(v, la, error);
	if (map.page_size > PAGE_SIZE)
		large_add(&v->space->large_code, la, map.page_size);
	if (global)
		*global = map.global && v->cr4 & CR4_PGE;
	fetch_touch(v, map.gpa);
	return map.gpa & ~(PAGE_SIZE - 1);
}

/* ---- PAE's page-directory-pointer registers. SDM 3A 4.4.1 ---- */

bool mmu_load_pdptes(struct vcpu *v)
{
	const u64 reserved = MASK(2, 1) | MASK(8, 5) | v->mmu.maxphyaddr_mask | MASK(63, 52);
	u64 pdpte[4];
	unsigned int i;

	if (vm_read_guest(v->vm, v->mem_space | (v->cr3 & MASK(31, 5)), pdpte, sizeof(pdpte)) < 0)
		return false;
	for (i = 0; i < 4; i++)
		if (pdpte[i] & PTE_P && pdpte[i] & reserved)
			return false;
	memcpy(v->pdpte, pdpte, sizeof(pdpte));
	return true;
}
