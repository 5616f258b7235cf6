/*
 * The TLB of one address space: what fills an entry and what empties it. SDM 3A 4.10.
 *
 * An entry is one linear page's; its tags say for which accesses a walk proved the right, so the
 * same page may be known to user and kernel at once. Whichever walk finds the page elsewhere, or
 * with other properties, takes the entry for itself. Losing translations early is always allowed.
 * SDM 3A 4.10.2.2
 *
 * Two lists, of entries filled for global pages and for others, make emptying cost what filling
 * did. An entry may stand in both: it stays in its lists until these are emptied.
 *
 * A large page is held as 4 KiB fragments, each of which remembers the guest's page size. A set of
 * large pages seen (struct large_set) tells INVLPG whether there may be some.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/irqchip/irqchip.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define PAGE_SHIFT	12
#define PAGE_SIZE	0x1000ULL
#define PAGE_MASK	(~(PAGE_SIZE - 1))
#define LARGE_SHIFT	21	/* the smallest large page */

#define TLB_IN_LISTS	(TLB_IN_LOCAL | TLB_IN_GLOBAL)

/* ---- large pages ---- */

static unsigned int large_hash(u64 base)
{
	u64 n = base >> LARGE_SHIFT;

	return (unsigned int)(n ^ n >> LARGE_BITS ^ n >> 2 * LARGE_BITS) & ((1u << LARGE_BITS) - 1);
}

void large_add(struct large_set *l, u64 la, u64 page_size)
{
	unsigned int h = large_hash(la & ~(page_size - 1));

	l->sizes |= page_size;
	l->bits[h / 64] |= BIT(h % 64);
}

bool large_find(const struct large_set *l, u64 la, u64 *size)
{
	bool found = false;
	unsigned int h;
	u64 sizes, one;

	for (sizes = l->sizes; sizes; sizes &= sizes - 1) {
		one = sizes & -sizes;
		h = large_hash(la & ~(one - 1));
		if (l->bits[h / 64] & BIT(h % 64)) {
			*size = one;
			found = true;
		}
	}
	return found;
}

static void large_clear(struct large_set *l)
{
	if (l->sizes)
		memset(l, 0, sizeof(*l));
}

/* ---- entries ---- */

/* The entry's linear page; the last one there is, if it has none. */
static u64 entry_page(const struct tlb_entry *e)
{
	return e->tag[0][0] & e->tag[0][1] & e->tag[1][0] & e->tag[1][1] & e->tag[2][0] &
		e->tag[2][1] & PAGE_MASK;
}

static void entry_clear(struct tlb_entry *e)
{
	memset(e->tag, 0xff, sizeof(e->tag));
}

static bool entry_large(const struct tlb_entry *e)
{
	return (e->gpa & TLB_SIZE) > (u64)PAGE_SHIFT << TLB_SIZE_SHIFT;
}

/* Its list must hold e, which is filled for a page with these properties. */
static void entry_list(struct space *s, struct tlb_entry *e, u64 gpa)
{
	struct tlb_list *l = gpa & TLB_GLOBAL ? &s->global : &s->local;
	u64 in = gpa & TLB_GLOBAL ? TLB_IN_GLOBAL : TLB_IN_LOCAL;

	if (e->gpa & in)
		return;
	e->gpa |= in;
	l->index[l->n++] = (u16)(e - s->tlb);
}

static u32 page_hash(u64 gpa)
{
	return (u32)(gpa >> PAGE_SHIFT) * 0x9e3779b1u >> (32 - PAGE_SET_BITS);
}

static void page_set_add(struct page_set *p, u64 gpa)
{
	u32 h = page_hash(gpa);

	p->bits[h / 64] |= BIT(h % 64);
}

static bool page_set_has(const struct page_set *p, u64 gpa)
{
	u32 h = page_hash(gpa);

	return p->bits[h / 64] & BIT(h % 64);
}

/* ---- filling ---- */

/* What a fill is about to put into an entry. */
struct fill {
	u64 addend, gpa;
	u64 tag[2];
};

static bool slot_page_dirty(const struct memslot *s, u64 gpa)
{
	u64 page = (gpa - s->gpa) >> PAGE_SHIFT;

	return READ_ONCE(s->dirty[page / 64]) & BIT(page % 64);
}

/* May writes to this page go unseen from now on? A first write is logged now. */
static bool fill_writable(struct vcpu *v, const struct memslot *s, u64 gpa, enum mem_access acc)
{
	if (!s->dirty || slot_page_dirty(s, gpa))
		return true;
	if (acc != MEM_WRITE)
		return false;
	dirty_ring_make_room(v);
	memslot_mark_dirty(v->vm, v, s, gpa);
	return true;
}

static void fill_device(struct fill *f, u64 page, bool writable)
{
	f->gpa |= TLB_MMIO;
	f->tag[0] = page | TLB_SLOW;
	f->tag[1] = writable ? page | TLB_SLOW : TLB_INVALID;
}

/* Does the page hold code? If not, writes to it may be fast from here on: core/code_page.h. */
static bool fill_code(struct vcpu *v, const struct memslot *s, u64 gpa, bool writable)
{
	struct code_page *p = memslot_code(s, gpa);

	if (READ_ONCE(p->mask))
		return true;
	if (writable)
		code_page_add_writer(v, p);
	return load_acquire(&p->mask);
}

/* The properties do not depend on the right to write: all columns share them. */
static void fill_memory(struct vcpu *v, struct fill *f, u64 page, const struct memslot *s,
	bool writable, enum mem_access acc)
{
	u64 gpa = f->gpa & PAGE_MASK;
	u64 slow = 0;

	f->addend = (u64)memslot_host(s, gpa) - page;
	if (debug_watches_page(v, page)) {
		f->gpa |= TLB_WATCH;
		slow = TLB_SLOW;
	}
	f->tag[0] = page | slow;
	if (s->flags & KVM_MEM_READONLY) {
		f->gpa |= TLB_ROM;
		slow = TLB_SLOW;
	} else if (fill_code(v, s, gpa, writable)) {
		f->gpa |= TLB_CODE;
		slow = TLB_SLOW;
	}
	if (writable && (s->flags & KVM_MEM_READONLY || fill_writable(v, s, gpa, acc)))
		f->tag[1] = page | slow;
}

static void fill_find(struct vcpu *v, struct fill *f, u64 la, enum mem_access acc,
	const struct mmu_map *map)
{
	const struct memslot *s = NULL;
	u64 page = la & PAGE_MASK;

	*f = (struct fill) { .gpa = map->gpa & PAGE_MASK, .tag = { TLB_INVALID, TLB_INVALID } };
	if (!v->lapic || !lapic_owns(v, f->gpa & GPA_ADDRESS))
		s = memslot_find(v->vm, f->gpa);
	if (s)
		fill_memory(v, f, page, s, map->writable, acc);
	else
		fill_device(f, page, map->writable);
	f->gpa |= (u64)__builtin_ctzll(map->page_size) << TLB_SIZE_SHIFT;
	if (map->global && v->cr4 & CR4_PGE)
		f->gpa |= TLB_GLOBAL;
}

void tlb_fill(struct vcpu *v, u64 la, enum mem_access acc, enum mmu_index idx)
{
	struct tlb_entry *e = tlb_entry(v, la);
	struct mmu_map map;
	struct fill f;
	u32 error;

	if (mmu_walk(v, la, acc, idx, &map, &error) < 0)
		vcpu_raise_pf(v, la, error);
	if (map.page_size > PAGE_SIZE)
		large_add(&v->space->large_data, la, map.page_size);
	fill_find(v, &f, la, acc, &map);
	if (entry_page(e) != (la & PAGE_MASK) || (e->gpa & ~TLB_IN_LISTS) != f.gpa)
		entry_clear(e);
	entry_list(v->space, e, f.gpa);
	page_set_add(&v->space->pages, f.gpa & PAGE_MASK);
	e->gpa = f.gpa | (e->gpa & TLB_IN_LISTS);
	e->addend = f.addend;
	e->tag[idx][0] = f.tag[0];
	e->tag[idx][1] = f.tag[1];
	v->stat.tlb_fills++;
}

/* ---- emptying ---- */

void tlb_init(struct space *s)
{
	os_pages_prepare(s->tlb, sizeof(s->tlb));
	memset(s->tlb, 0xff, sizeof(s->tlb));
	for (struct tlb_entry *e = s->tlb; e < s->tlb + TLB_ENTRIES; e++)
		e->gpa = 0;
}

void tlb_drop_local(struct space *s)
{
	struct tlb_entry *e;
	u32 n;

	for (n = 0; n < s->local.n; n++) {
		e = &s->tlb[s->local.index[n]];
		if (!(e->gpa & TLB_GLOBAL))
			entry_clear(e);
		e->gpa &= ~TLB_IN_LOCAL;
	}
	s->local.n = 0;
}

void tlb_drop_all(struct space *s)
{
	struct tlb_entry *e;
	u32 n;

	tlb_drop_local(s);
	for (n = 0; n < s->global.n; n++) {
		e = &s->tlb[s->global.index[n]];
		entry_clear(e);
		e->gpa &= ~TLB_IN_GLOBAL;
	}
	s->global.n = 0;
	large_clear(&s->large_data);
	large_clear(&s->large_code);
}

static void drop_fragments(struct space *s, u64 base, u64 size)
{
	u64 page, end = base + MIN(size, TLB_ENTRIES * PAGE_SIZE);
	struct tlb_entry *e;

	for (page = base; page != end; page += PAGE_SIZE) {
		e = &s->tlb[(page >> PAGE_SHIFT) & (TLB_ENTRIES - 1)];
		if (entry_large(e) && !((entry_page(e) ^ base) & ~(size - 1)))
			entry_clear(e);
	}
}

void tlb_drop_page(struct space *s, u64 la)
{
	struct tlb_entry *e = &s->tlb[(la >> PAGE_SHIFT) & (TLB_ENTRIES - 1)];
	u64 size;

	if (entry_page(e) == (la & PAGE_MASK))
		entry_clear(e);
	if (large_find(&s->large_data, la, &size))
		drop_fragments(s, la & ~(size - 1), size);
}

static void list_drop_writes(struct space *s, const struct tlb_list *l, u64 gpa_page)
{
	struct tlb_entry *e;
	unsigned int idx;
	u32 n;

	for (n = 0; n < l->n; n++) {
		e = &s->tlb[l->index[n]];
		page_set_add(&s->pages, tlb_gpa(e));
		if (tlb_gpa(e) != gpa_page)
			continue;
		for (idx = 0; idx < NR_TLB_INDEXES; idx++)
			e->tag[idx][1] |= TLB_SLOW;	/* TLB_INVALID stays what it is */
		e->gpa |= TLB_CODE;
	}
}

static void list_drop_all_writes(struct space *s, const struct tlb_list *l)
{
	unsigned int idx;
	u32 n;

	for (n = 0; n < l->n; n++)
		for (idx = 0; idx < NR_TLB_INDEXES; idx++)
			s->tlb[l->index[n]].tag[idx][1] = TLB_INVALID;
}

void tlb_drop_all_writes(struct space *s)
{
	list_drop_all_writes(s, &s->local);
	list_drop_all_writes(s, &s->global);
}

/*
 * For each page that comes to hold code, in all spaces: most have no entry of it. Going through the
 * entries makes the set anew, without those that went since.
 */
void tlb_drop_writes(struct space *s, u64 gpa_page)
{
	if (!page_set_has(&s->pages, gpa_page))
		return;
	memset(&s->pages, 0, sizeof(s->pages));
	list_drop_writes(s, &s->local, gpa_page);
	list_drop_writes(s, &s->global, gpa_page);
}
