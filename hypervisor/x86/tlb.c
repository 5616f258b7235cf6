/*
 * The TLB's bookkeeping: what fills an entry, address-space identifiers, and what invalidates.
 * SDM 3A 4.10.
 *
 * One direct-mapped array serves all address spaces: an entry's tag holds an ASID of ours, 1 to
 * 511, handed out in order. A CR3 write that drops translations just takes a fresh one; when none
 * is left, all is flushed and counting starts again. Whatever else is cached by linear address
 * (insn/code.c) carries the same tag. With PCIDs, the slots table remembers which ASID stands for
 * which PCID, so that a CR3 write with bit 63 set finds its entries again. Global pages are no
 * exception (losing translations early is always allowed. SDM 3A 4.10.2.2).
 *
 * A large page is held as 4 KiB fragments. Each remembers the guest's page size, and the union of
 * all large pages seen since the last flush is kept as one aligned region, so that INVLPG scans for
 * fragments only when there may be some.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define PAGE_SHIFT	12
#define PAGE_SIZE	0x1000ULL
#define PAGE_MASK	(~(PAGE_SIZE - 1))
#define ASID_LAST	511
#define NO_LARGE	(~0ULL)	/* mmu.large_base: no large page seen */

#define INVPCID_ADDRESS	0u
#define INVPCID_CONTEXT	1u

/* ---- filling ---- */

static bool slot_page_dirty(const struct memslot *s, u64 gpa)
{
	u64 page = (gpa - s->gpa) >> PAGE_SHIFT;

	return READ_ONCE(s->dirty[page / 64]) & BIT(page % 64);
}

/* May writes to this page go unseen from now on? A first write is logged now. */
static bool fill_writable(const struct memslot *s, u64 gpa, enum mem_access acc)
{
	if (!s->dirty || slot_page_dirty(s, gpa))
		return true;
	if (acc != MEM_WRITE)
		return false;
	memslot_mark_dirty(s, gpa);
	return true;
}

static void fill_device(struct tlb_entry *e, u64 tag, bool writable)
{
	e->gpa |= TLB_MMIO;
	e->addend = 0;
	e->tag_r = tag | TLB_SLOW;
	e->tag_w = writable ? tag | TLB_SLOW : TLB_INVALID;
}

static void fill_memory(struct vcpu *v, struct tlb_entry *e, u64 la, u64 tag,
	const struct memslot *s, bool writable, enum mem_access acc)
{
	u64 gpa = tlb_gpa(e);

	e->addend = (u64)memslot_host(s, gpa) - (la & PAGE_MASK);
	if (debug_watches_page(v, la)) {
		e->gpa |= TLB_WATCH;
		tag |= TLB_SLOW;
	}
	e->tag_r = tag;
	e->tag_w = TLB_INVALID;
	if (!writable)
		return;
	if (s->flags & KVM_MEM_READONLY) {
		e->gpa |= TLB_ROM;
		e->tag_w = tag | TLB_SLOW;
		return;
	}
	if (!fill_writable(s, gpa, acc))
		return;
	e->tag_w = tag;
	if (READ_ONCE(memslot_code(s, gpa)->mask)) {
		e->gpa |= TLB_CODE;
		e->tag_w |= TLB_SLOW;
	}
}

struct tlb_entry *tlb_fill(struct vcpu *v, u64 la, enum mem_access acc, enum mmu_index idx)
{
	struct tlb_entry *e = tlb_entry(v, la);
	const struct memslot *s = NULL;
	struct mmu_map map;
	u32 error;
	u64 tag;

	if (mmu_walk(v, la, acc, idx, &map, &error) < 0)
		vcpu_raise_pf(v, la, error);
	if (map.page_size > PAGE_SIZE)
		tlb_note_large(v, la, map.page_size);
	tag = (la & PAGE_MASK) | tlb_ctx_of(v->tlb_ctx, idx);
	e->gpa = map.gpa & PAGE_MASK;
	if (!v->lapic || !lapic_owns(v, e->gpa))
		s = memslot_find(v->vm, e->gpa);
	if (s)
		fill_memory(v, e, la, tag, s, map.writable, acc);
	else
		fill_device(e, tag, map.writable);
	e->gpa |= (u64)__builtin_ctzll(map.page_size) << TLB_SIZE_SHIFT;
	v->stat.tlb_fills++;
	return e;
}

/* ---- invalidation ---- */

static void entry_clear(struct tlb_entry *e)
{
	e->tag_r = TLB_INVALID;
	e->tag_w = TLB_INVALID;
}

static u64 entry_page_size(const struct tlb_entry *e)
{
	return BIT((e->gpa & TLB_SIZE) >> TLB_SIZE_SHIFT);
}

static bool may_be_large(const struct vcpu *v, u64 la)
{
	return v->mmu.large_base != NO_LARGE && !((v->mmu.large_base ^ la) & v->mmu.large_mask);
}

/* The region grows by halving its mask until both lie in it. */
void tlb_note_large(struct vcpu *v, u64 la, u64 page_size)
{
	struct mmu_state *m = &v->mmu;

	if (m->large_base == NO_LARGE) {
		m->large_mask = ~(page_size - 1);
		m->large_base = la & m->large_mask;
		return;
	}
	m->large_mask &= ~(page_size - 1);
	while ((m->large_base ^ la) & m->large_mask)
		m->large_mask <<= 1;
	m->large_base &= m->large_mask;
}

/* All fragments of the large page at la, in any address space. */
static void flush_fragments(struct vcpu *v, u64 la)
{
	struct tlb_entry *e;

	for (e = v->tlb; e < v->tlb + TLB_ENTRIES; e++)
		if (e->tag_r != TLB_INVALID &&
			!((e->tag_r ^ la) & ~(entry_page_size(e) - 1) & PAGE_MASK))
			entry_clear(e);
}

void mmu_flush_page(struct vcpu *v, u64 la)
{
	if (!vcpu_long_mode(v))
		la = (u32)la;
	entry_clear(tlb_entry(v, la));
	if (may_be_large(v, la)) {
		flush_fragments(v, la);
		code_flush_lookup(v);
	} else {
		code_flush_lookup_page(v, la);
	}
}

void mmu_flush_writes(struct vcpu *v, u64 gpa_page)
{
	struct tlb_entry *e;

	for (e = v->tlb; e < v->tlb + TLB_ENTRIES; e++) {
		if (tlb_gpa(e) != gpa_page || e->tag_r == TLB_INVALID)
			continue;
		e->tag_w |= TLB_SLOW;
		e->gpa |= TLB_CODE;
	}
}

/* ---- address-space identifiers ---- */

static u64 asid_key(const struct vcpu *v)
{
	return v->cr4 & CR4_PCIDE ? v->cr3 & CR3_PCID : 0;
}

static void asid_remember(struct vcpu *v, u64 key, u16 asid)
{
	struct mmu_state *m = &v->mmu;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(m->slots); i++)
		if (m->slots[i].asid && m->slots[i].key == key)
			break;
	if (i == ARRAY_SIZE(m->slots)) {
		i = m->slot_next;
		m->slot_next = (u16)((i + 1) % ARRAY_SIZE(m->slots));
	}
	m->slots[i].key = key;
	m->slots[i].asid = asid;
}

static u16 asid_recall(const struct vcpu *v, u64 key)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(v->mmu.slots); i++)
		if (v->mmu.slots[i].asid && v->mmu.slots[i].key == key)
			return v->mmu.slots[i].asid;
	return 0;
}

static void asid_forget(struct vcpu *v, u64 key)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(v->mmu.slots); i++)
		if (v->mmu.slots[i].key == key)
			v->mmu.slots[i].asid = 0;
}

void mmu_flush_all(struct vcpu *v)
{
	struct mmu_state *m = &v->mmu;

	memset(v->tlb, 0xff, sizeof(v->tlb));
	memset(m->slots, 0, sizeof(m->slots));
	m->slot_next = 0;
	m->asid = 1;
	m->asid_next = 2;
	m->large_base = NO_LARGE;
	m->large_mask = 0;
	asid_remember(v, asid_key(v), m->asid);
	v->tlb_ctx = mmu_context(v);
	code_flush_lookup(v);
}

/* The present address space begins empty. */
static void asid_renew(struct vcpu *v)
{
	struct mmu_state *m = &v->mmu;

	if (m->asid_next > ASID_LAST) {
		mmu_flush_all(v);
		return;
	}
	m->asid = m->asid_next++;
	asid_remember(v, asid_key(v), m->asid);
}

void mmu_set_cr3(struct vcpu *v, bool keep)
{
	u16 asid = keep && v->cr4 & CR4_PCIDE ? asid_recall(v, asid_key(v)) : 0;

	if (asid)
		v->mmu.asid = asid;
	else
		asid_renew(v);
	v->tlb_ctx = mmu_context(v);
}

/* SDM 2A INVPCID. The type and the descriptor's reserved bits were checked. */
void mmu_invpcid(struct vcpu *v, unsigned int type, u64 pcid, u64 la)
{
	if (type == INVPCID_ADDRESS) {
		mmu_flush_page(v, la);
	} else if (type == INVPCID_CONTEXT && pcid != asid_key(v)) {
		asid_forget(v, pcid);
	} else if (type == INVPCID_CONTEXT) {
		mmu_set_cr3(v, false);
	} else {
		mmu_flush_all(v);
	}
}

u64 mmu_context(const struct vcpu *v)
{
	return tlb_ctx_of((u64)v->mmu.asid << TLB_CTX_ASID_SHIFT,
		vcpu_align_checked(v) ? MMU_NEVER : v->mmu_idx);
}

void mmu_init(struct vcpu *v)
{
	if (!v->maxphyaddr) {
		v->maxphyaddr = 36;	/* what CPUID's absence means. SDM 3A 4.1.4 */
		v->mmu.maxphyaddr_mask = MASK(51, 36);
	}
	mmu_flush_all(v);
}
