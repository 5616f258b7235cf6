/*
 * Guest memory accesses that the TLB's fast compare did not serve: segment limits and types,
 * canonical addresses, alignment checks, page crossings, devices, pages with decoded code, watched
 * pages. SDM 3A 4.6, 5.3, 5.4, 6.15 (#SS, #GP, #AC).
 *
 * An access that touches two pages finds both before it has any effect, so a fault on the second
 * leaves the first untouched.
 *
 * Alignment checks (#AC) cover operands of 2, 4, 6, 8, 10, 16, 32 and 64 bytes with the alignments of
 * SDM 3A table 6-7; vectors are checked for 16 (as AMD does) where their instruction has no rule of
 * its own.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/code.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/segment.h"

#define PAGE_MASK	(~0xfffULL)

/* Whose access it is. */
struct access {
	enum mmu_index idx;
	u64 la_mask;	/* linear addresses wrap here */
};

/* One page's part of an operand. */
struct place {
	u8 *host;	/* NULL: a device serves it */
	u64 la, gpa;
	u64 flags;	/* TLB_*, those that concern this access */
};

/* ---- segments ---- */

__noreturn_ static void raise_segment(struct vcpu *v, unsigned int seg)
{
	vcpu_raise(v, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* SDM 3A 5.4.1. Real and V86 segments have no types worth the name. */
static bool segment_type_allows(u32 attr, enum mem_access acc)
{
	if (attr & SEG_UNUSABLE)
		return false;
	if (attr & SEG_TYPE_CODE)
		return acc == MEM_EXEC || (acc == MEM_READ && attr & SEG_TYPE_RW);
	return acc != MEM_WRITE || attr & SEG_TYPE_RW;
}

/* SDM 3A 5.3. off is below 4 GiB; a flat segment's end wraps silently. */
static bool segment_limit_allows(const struct segment *s, u64 off, unsigned int size)
{
	u64 last = off + size - 1;

	if ((s->attr & (SEG_TYPE_CODE | SEG_TYPE_EC)) == SEG_TYPE_EC)
		return off > s->limit && last <= (s->attr & SEG_DB ? 0xffffffffULL : 0xffff);
	return last <= s->limit || s->limit == 0xffffffff;
}

static void segment_check(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	enum mem_access acc)
{
	const struct segment *s = &v->seg[seg];

	if (vcpu_protected(v) && !vcpu_v86(v) && !segment_type_allows(s->attr, acc))
		raise_segment(v, seg);
	if (!segment_limit_allows(s, off, size))
		raise_segment(v, seg);
}

u64 mem_linear(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, enum mem_access acc)
{
	u64 la = v->ebase[seg] + off;

	if (vcpu_64bit(v)) {
		if (!linear_canonical(v, la) || !linear_canonical(v, la + size - 1))
			raise_segment(v, seg);
		return la;
	}
	if (v->hit_base[seg] == HIT_NEVER)
		segment_check(v, seg, (u32)off, size, acc);
	return (u32)la;
}

/* Before page faults: SDM 3A table 6-2 leaves the order open, AMD has it so. */
static void align_check(struct vcpu *v, u64 la, unsigned int size)
{
	static const u8 align[] = { [2] = 2, [4] = 4, [6] = 4, [8] = 8, [10] = 8, [16] = 16,
		[32] = 16, [64] = 16 };

	if (vcpu_align_checked(v) && size < ARRAY_SIZE(align) && align[size] &&
		la & (align[size] - 1u))
		vcpu_raise(v, VEC_AC, 0);
}

/* ---- places ---- */

static void place_find(struct vcpu *v, const struct access *a, u64 la, enum mem_access acc,
	struct place *p)
{
	struct tlb_entry *e = tlb_entry(v, la);
	u64 *tag = &e->tag[a->idx][acc == MEM_WRITE];

	if (unlikely((*tag & ~TLB_SLOW) != (la & PAGE_MASK)))
		tlb_fill(v, la, acc, a->idx);
	p->la = la;
	p->gpa = tlb_gpa(e) | (la & ~PAGE_MASK);
	p->host = (u8 *)(la + e->addend);
	p->flags = 0;
	if (likely(!(*tag & TLB_SLOW)))
		return;
	p->flags = e->gpa & (TLB_MMIO | TLB_WATCH);
	if (acc == MEM_WRITE)
		p->flags |= e->gpa & (TLB_ROM | TLB_CODE);
	if (p->flags & (TLB_MMIO | TLB_ROM))
		p->host = NULL;
}

static void device_read(struct vcpu *v, u64 gpa, u8 *buf, unsigned int n)
{
	unsigned int part;

	for (; n; n -= part, gpa += part, buf += part) {
		part = MIN(n, 8);
		mmio_read(v, gpa, buf, part);
	}
}

static void device_write(struct vcpu *v, u64 gpa, const u8 *buf, unsigned int n)
{
	unsigned int part;

	for (; n; n -= part, gpa += part, buf += part) {
		part = MIN(n, 8);
		mmio_write(v, gpa, buf, part);
	}
}

static void place_read(struct vcpu *v, const struct place *p, void *buf, unsigned int n)
{
	if (p->flags & TLB_WATCH)
		debug_data_access(v, p->la, n, false);
	if (p->host)
		memcpy(buf, p->host, n);
	else
		device_read(v, p->gpa, buf, n);
}

/* The slot whose page, which held code when the entry was filled, is written to; or NULL. */
static const struct memslot *place_code_slot(struct vcpu *v, const struct place *p)
{
	return p->flags & TLB_CODE ? memslot_find(v->vm, p->gpa) : NULL;
}

/* No decoded code is left on the page: writes may be fast again. */
static void place_release(struct vcpu *v, const struct place *p, const struct memslot *slot)
{
	struct code_page *c = memslot_code(slot, p->gpa);
	struct tlb_entry *e = tlb_entry(v, p->la);
	unsigned int idx;

	if (READ_ONCE(c->mask) || e->gpa & (TLB_WATCH | TLB_ROM))
		return;
	if (tlb_gpa(e) != (p->gpa & PAGE_MASK))
		return;
	code_page_add_writer(v, c);
	if (load_acquire(&c->mask))
		return;
	for (idx = 0; idx < NR_TLB_INDEXES; idx++)
		if (e->tag[idx][1] != TLB_INVALID)
			e->tag[idx][1] &= ~TLB_SLOW;
	e->gpa &= ~TLB_CODE;
}

static void place_store(const struct place *p, const void *buf, unsigned int n)
{
	u64 val = 0;

	if (n > 8 || n & (n - 1)) {
		memcpy(p->host, buf, n);
		return;
	}
	memcpy(&val, buf, n);
	mem_store(p->host, n, val);
}

static void place_write(struct vcpu *v, const struct place *p, const void *buf, unsigned int n)
{
	const struct memslot *slot;

	if (p->flags & TLB_WATCH)
		debug_data_access(v, p->la, n, true);
	if (!p->host) {
		device_write(v, p->gpa, buf, n);
		return;
	}
	place_store(p, buf, n);
	slot = place_code_slot(v, p);
	if (!slot)
		return;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	code_note_write(v, slot, p->gpa, n);
	place_release(v, p, slot);
}

/* ---- linear accesses ---- */

static unsigned int first_part(u64 la, unsigned int size)
{
	return MIN(size, 0x1000u - (unsigned int)(la & 0xfff));
}

/* Finds an operand's one or two pages; returns how many bytes lie in the first. */
static unsigned int span_find(struct vcpu *v, const struct access *a, u64 la, unsigned int size,
	enum mem_access acc, struct place p[2])
{
	unsigned int n = first_part(la, size);

	place_find(v, a, la, acc, &p[0]);
	if (n < size)
		place_find(v, a, (la + n) & a->la_mask, acc, &p[1]);
	return n;
}

static void linear_copy_in(struct vcpu *v, const struct access *a, u64 la, void *buf,
	unsigned int size)
{
	struct place p[2];
	unsigned int n = span_find(v, a, la, size, MEM_READ, p);

	place_read(v, &p[0], buf, n);
	if (n < size)
		place_read(v, &p[1], (u8 *)buf + n, size - n);
}

static void linear_copy_out(struct vcpu *v, const struct access *a, u64 la, const void *buf,
	unsigned int size)
{
	struct place p[2];
	unsigned int n = span_find(v, a, la, size, MEM_WRITE, p);

	place_write(v, &p[0], buf, n);
	if (n < size)
		place_write(v, &p[1], (const u8 *)buf + n, size - n);
}

static u64 linear_read(struct vcpu *v, const struct access *a, u64 la, unsigned int size)
{
	struct place p;
	u64 val = 0;

	if (unlikely(!mem_in_page(la, size))) {
		linear_copy_in(v, a, la, &val, size);
		return val;
	}
	place_find(v, a, la, MEM_READ, &p);
	if (likely(!p.flags))
		return mem_load(p.host, size);
	place_read(v, &p, &val, size);
	return val;
}

static void linear_write(struct vcpu *v, const struct access *a, u64 la, unsigned int size, u64 val)
{
	struct place p;

	if (unlikely(!mem_in_page(la, size))) {
		linear_copy_out(v, a, la, &val, size);
		return;
	}
	place_find(v, a, la, MEM_WRITE, &p);
	if (likely(!p.flags))
		mem_store(p.host, size, val);
	else
		place_write(v, &p, &val, size);
}

/* ---- an instruction's operands ---- */

static struct access access_data(const struct vcpu *v)
{
	return (struct access) { v->mmu_idx, vcpu_64bit(v) ? ~0ULL : 0xffffffff };
}

u64 mem_slow_read(struct vcpu *v, unsigned int seg, u64 off, unsigned int size)
{
	u64 la = mem_linear(v, seg, off, size, MEM_READ);
	struct access a = access_data(v);

	align_check(v, la, size);
	return linear_read(v, &a, la, size);
}

void mem_slow_write(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, u64 val)
{
	u64 la = mem_linear(v, seg, off, size, MEM_WRITE);
	struct access a = access_data(v);

	align_check(v, la, size);
	linear_write(v, &a, la, size, val);
}

void *mem_slow_ptr(struct vcpu *v, unsigned int seg, u64 off, unsigned int size,
	enum mem_access acc)
{
	u64 la = mem_linear(v, seg, off, size, acc);
	struct access a = access_data(v);
	const struct memslot *slot;
	struct place p;

	align_check(v, la, size);
	if (!mem_in_page(la, size))
		return NULL;
	place_find(v, &a, la, acc, &p);
	if (!p.host)
		return NULL;
	slot = place_code_slot(v, &p);
	if (slot && !code_write_blind(v, slot, p.gpa, size))
		return NULL;
	if (p.flags & TLB_WATCH)
		debug_data_access(v, la, size, acc == MEM_WRITE);
	return p.host;
}

u64 mem_plain_run(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, u64 n,
	enum mem_access acc)
{
	struct access a = access_data(v);
	struct place p;

	if (!mem_in_page(mem_linear(v, seg, off, size, acc), n * size))
		return 1;
	if (!vcpu_64bit(v) && !segment_limit_allows(&v->seg[seg], off, (unsigned int)(n * size)))
		return 1;
	place_find(v, &a, mem_linear(v, seg, off, size, acc), acc, &p);
	return p.host ? n : 1;
}

bool mem_is_io(struct vcpu *v, unsigned int seg, u64 off)
{
	u64 la = mem_linear(v, seg, off, 1, MEM_READ);
	struct access a = access_data(v);
	struct place p;

	place_find(v, &a, la, MEM_READ, &p);
	return !p.host;
}

void mem_probe(struct vcpu *v, unsigned int seg, u64 off, unsigned int size, enum mem_access acc)
{
	u64 la = mem_linear(v, seg, off, size, acc);
	struct access a = access_data(v);
	struct place p[2];

	align_check(v, la, size);
	span_find(v, &a, la, size, acc, p);
}

void mem_copy_in(struct vcpu *v, unsigned int seg, u64 off, void *buf, unsigned int size)
{
	u64 la = mem_linear(v, seg, off, size, MEM_READ);
	struct access a = access_data(v);

	align_check(v, la, size);
	linear_copy_in(v, &a, la, buf, size);
}

void mem_copy_out(struct vcpu *v, unsigned int seg, u64 off, const void *buf, unsigned int size)
{
	u64 la = mem_linear(v, seg, off, size, MEM_WRITE);
	struct access a = access_data(v);

	align_check(v, la, size);
	linear_copy_out(v, &a, la, buf, size);
}

/* ---- read-modify-write ---- */

/*
 * Across two pages of memory: no host instruction reaches both, so the other vCPUs stand still. The
 * pages are found again afterwards, since they may be others by then.
 */
static void rmw_begin_locked(struct vcpu *v, const struct access *a, u64 la, unsigned int size)
{
	struct place p[2];

	span_find(v, a, la, size, MEM_WRITE, p);
	if (p[0].host && p[1].host)
		vcpu_exclusive_begin(v);
}

#define CACHE_LINE	64u

/* Locked, and in two cache lines. SDM 3A 9.1.2.3; api.rst 7.22 */
static bool locks_bus(const struct vcpu *v, u64 la, unsigned int size)
{
	return READ_ONCE(v->vm->bus_lock_exits) && (la & (CACHE_LINE - 1)) + size > CACHE_LINE;
}

/* The vCPU leaves behind this instruction. */
static void bus_locked(struct vcpu *v)
{
	vcpu_request(v, REQ_BUS_LOCK);
	v->boundary = true;
}

void *mem_rmw_begin(struct vcpu *v, struct mem_rmw *m, unsigned int seg, u64 off, unsigned int size,
	bool lock)
{
	u64 la = mem_linear(v, seg, off, size, MEM_WRITE);
	struct access a = access_data(v);
	struct place p[2];

	align_check(v, la, size);
	*m = (struct mem_rmw) { .la = la, .size = size, .bus_lock = lock && locks_bus(v, la, size) };
	if (lock && !mem_in_page(la, size) && load_acquire(&v->vm->nr_vcpus) > 1)
		rmw_begin_locked(v, &a, la, size);
	m->first = span_find(v, &a, la, size, MEM_WRITE, p);
	if (m->first == size && p[0].host) {
		if (p[0].flags & TLB_WATCH)
			debug_data_access(v, la, size, true);
		m->slot = place_code_slot(v, &p[0]);
		m->gpa = p[0].gpa;
		return p[0].host;
	}
	m->copied = true;
	place_read(v, &p[0], m->copy, m->first);
	if (m->first < size)
		place_read(v, &p[1], (u8 *)m->copy + m->first, size - m->first);
	return m->copy;
}

void mem_rmw_end(struct vcpu *v, struct mem_rmw *m)
{
	struct access a = access_data(v);

	if (m->copied)
		linear_copy_out(v, &a, m->la, m->copy, m->size);
	else if (m->slot)
		code_note_write(v, m->slot, m->gpa, m->size);
	if (v->exclusive)
		vcpu_exclusive_end(v);
	if (unlikely(m->bus_lock))
		bus_locked(v);
}

/* ---- the processor's own accesses ---- */

/* With SMAP these never reach user pages, whatever RFLAGS.AC says. SDM 3A 4.6.1 */
static struct access access_system(struct vcpu *v, u64 la, unsigned int size)
{
	bool wide = vcpu_long_mode(v);

	if (wide && (!linear_canonical(v, la) || !linear_canonical(v, la + size - 1)))
		raise_gp(v, 0);
	return (struct access) {
		.idx = v->cr4 & CR4_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL,
		.la_mask = wide ? ~0ULL : 0xffffffff,
	};
}

u64 sys_read(struct vcpu *v, u64 la, unsigned int size)
{
	struct access a = access_system(v, la, size);

	return linear_read(v, &a, la & a.la_mask, size);
}

void sys_write(struct vcpu *v, u64 la, unsigned int size, u64 val)
{
	struct access a = access_system(v, la, size);

	linear_write(v, &a, la & a.la_mask, size, val);
}
