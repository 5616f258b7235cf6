/* Pages that hold decoded code, and their writers: see code_page.h for the rules. */
#include "hypervisor/core/vm.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

#define CHUNK_SHIFT	6
_Static_assert(1u << CHUNK_SHIFT == CODE_CHUNK, "a bit of the mask each");
#define PAGE_MASK	(~0xfffULL)

_Static_assert(MAX_VCPUS <= 64, "a bit for each in writers and readers");

static u64 own_bit(const struct vcpu *v)
{
	return BIT(v->index);
}

static u64 chunk_mask(unsigned int off, unsigned int size)
{
	unsigned int first = off >> CHUNK_SHIFT;
	unsigned int last = (off + size - 1) >> CHUNK_SHIFT;

	return MASK(last, first);
}

static u64 mixed(u64 a, u64 b)
{
	u128 m = (u128)a * b;

	return (u64)m ^ (u64)(m >> 64);
}

/* Four products that do not wait for each other: 5 ns. A hash in a row of eight took 15. */
static u32 chunk_hash(const u8 *host, unsigned int chunk)
{
	const u64 *p = (const u64 *)(host + (chunk << CHUNK_SHIFT));
	u64 h = mixed(p[0] ^ 0x9e3779b97f4a7c15, p[1] ^ 0xc2b2ae3d27d4eb4f) ^
		mixed(p[2] ^ 0xd6e8feb86659fd93, p[3] ^ 0xa0761d6478bd642f) ^
		mixed(p[4] ^ 0xe7037ed1a0b428db, p[5] ^ 0x8ebc6af09c88c6e3) ^
		mixed(p[6] ^ 0x589965cc75374cc3, p[7] ^ 0x1d8e4e27c47d124f);

	h = mixed(h ^ (chunk + 1), 0xeb44accab455d165);
	return (u32)(h ^ h >> 32);
}

static u32 chunks_hash(const u8 *host, u64 mask)
{
	u32 h = 0;

	for (; mask; mask &= mask - 1)
		h ^= chunk_hash(host, (unsigned int)__builtin_ctzll(mask));
	return h;
}

static void code_lock(struct vcpu *v)
{
	os_mutex_lock(&v->vm->code_lock);
	v->code_locked = true;
}

void code_unlock(struct vcpu *v)
{
	if (!v->code_locked)
		return;
	v->code_locked = false;
	os_mutex_unlock(&v->vm->code_lock);
}

u32 code_page_gen(struct vcpu *v, const struct code_page *p)
{
	u32 gen = load_acquire(&p->gen);

	while (unlikely(gen & 1)) {
		code_lock(v);
		code_unlock(v);
		gen = load_acquire(&p->gen);
	}
	return gen;
}

/* ---- stale ----------------------------------------------------------------------------------- */

static void readers_tell(struct vcpu *v, u64 readers)
{
	if (!v->engine || !v->engine->code_check)
		return;
	for (readers &= ~own_bit(v); readers; readers &= readers - 1)
		vcpu_request_lazy(v->vm->vcpus[__builtin_ctzll(readers)], REQ_CODE_STALE);
}

/* Under code_lock. */
static void page_stale(struct vcpu *v, struct code_page *p)
{
	u32 gen = p->gen;

	store_release(&p->gen, gen + 1);
	readers_tell(v, p->readers);
	p->readers = 0;
	p->hash = 0;
	store_release(&p->mask, 0);
	store_release(&p->gen, gen + 2);
}

static void own_stale(struct vcpu *v, u64 gpa)
{
	if (v->engine && v->engine->code_stale)
		v->engine->code_stale(v, gpa & PAGE_MASK);
}

/* ---- writes ---------------------------------------------------------------------------------- */

void code_page_add_writer(struct vcpu *v, struct code_page *p)
{
	if (!(READ_ONCE(p->writers) & own_bit(v)))
		__atomic_fetch_or(&p->writers, own_bit(v), __ATOMIC_SEQ_CST);
}

/* After a look at the mask. */
static void reader_check(struct vcpu *v, const struct code_page *p)
{
	if (!(READ_ONCE(p->readers) & own_bit(v)))
		v->boundary = true;
}

bool code_write_blind(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int size)
{
	struct code_page *p = memslot_code(s, gpa);

	code_page_add_writer(v, p);
	if (load_acquire(&p->mask) & chunk_mask(gpa & 0xfff, size))
		return false;
	reader_check(v, p);
	return true;
}

void code_note_write(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int size)
{
	struct code_page *p = memslot_code(s, gpa);
	u64 chunks = chunk_mask(gpa & 0xfff, size);

	if (!(load_acquire(&p->mask) & chunks)) {
		reader_check(v, p);
		return;
	}
	code_lock(v);
	if (p->mask & chunks)
		page_stale(v, p);
	code_unlock(v);
	own_stale(v, gpa);
	v->boundary = true;
}

static void page_check(struct vcpu *v, const struct memslot *s, u64 gpa)
{
	struct code_page *p = memslot_code(s, gpa);
	const u8 *host = memslot_host(s, gpa & PAGE_MASK);
	u64 mask = load_acquire(&p->mask);
	bool stale;

	/* A glance without the lock may see halves of a change, but then it sees a difference. */
	if (!mask || chunks_hash(host, mask) == READ_ONCE(p->hash))
		return;
	code_lock(v);
	stale = p->mask && chunks_hash(host, p->mask) != p->hash;
	if (stale)
		page_stale(v, p);
	code_unlock(v);
	if (!stale)
		return;
	v->look_paid = 0;
	own_stale(v, gpa);
}

void code_check_page(struct vcpu *v, const struct memslot *s, u64 gpa)
{
	u64 page = gpa & PAGE_MASK;

	page_check(v, s, gpa);
	if (!code_entered_few(v))
		return;
	for (u32 k = 0; k < v->entered_pages; k++)
		if (v->entered_page[k] == page)
			return;
	if (v->entered_pages < ARRAY_SIZE(v->entered_page))
		v->entered_page[v->entered_pages] = page;
	v->entered_pages++;
}

bool code_entered_few(const struct vcpu *v)
{
	return v->entered_pages <= ARRAY_SIZE(v->entered_page);
}

void code_forget_entered(struct vcpu *v)
{
	v->entered_pages = 0;
}

static void entered_check(struct vcpu *v)
{
	const struct memslot *s;

	for (u32 k = 0; k < v->entered_pages; k++) {
		s = memslot_find(v->vm, v->entered_page[k]);
		if (s)
			page_check(v, s, v->entered_page[k]);
	}
}

bool code_check_entered(struct vcpu *v)
{
	if (!code_entered_few(v))
		return false;
	if (vcpu_guarded(v, entered_check) == UNWIND_NONE)
		return true;
	v->memory_lost = false;
	return false;
}

/* ---- writers --------------------------------------------------------------------------------- */

#define PROTECT_VALID	1ULL
#define PROTECT_ALL	(~0ULL)

/* Spins before the processor is given away: the one waited for may need it. */
#define WAIT_SPINS	50

static void writer_leave(struct vcpu *v, u64 gpa)
{
	const struct memslot *s = memslot_find(v->vm, gpa);

	mmu_flush_writes(v, gpa);
	if (s)
		__atomic_fetch_and(&memslot_code(s, gpa)->writers, ~own_bit(v), __ATOMIC_SEQ_CST);
}

void code_protect_serve(struct vcpu *v)
{
	struct vcpu_protect *c = &v->protect;
	u32 asked = __atomic_load_n(&c->asked, __ATOMIC_SEQ_CST);
	u64 page;

	if (asked == c->done)
		return;
	page = __atomic_exchange_n(&c->page, 0, __ATOMIC_SEQ_CST);
	if (page == PROTECT_ALL)
		mmu_flush_all_writes(v);
	else if (page)
		writer_leave(v, page & PAGE_MASK);
	__atomic_store_n(&c->done, asked, __ATOMIC_SEQ_CST);
}

/* Returns the number of the request. A second page while one is unserved: then all pages. */
static u32 protect_ask(struct vcpu *t, u64 gpa)
{
	struct vcpu_protect *c = &t->protect;
	u64 want = gpa | PROTECT_VALID, old = READ_ONCE(c->page), put;
	u32 number;

	do
		put = !old || old == want ? want : PROTECT_ALL;
	while (!__atomic_compare_exchange_n(&c->page, &old, put, false, __ATOMIC_SEQ_CST,
		__ATOMIC_SEQ_CST));
	number = __atomic_add_fetch(&c->asked, 1, __ATOMIC_SEQ_CST);
	vcpu_request_lazy(t, REQ_TLB_PROTECT_CODE);
	return number;
}

static bool protect_done(const struct vcpu *t, u32 number)
{
	return !__atomic_load_n(&t->in_guest, __ATOMIC_SEQ_CST) ||
	       (s32)(__atomic_load_n(&t->protect.done, __ATOMIC_SEQ_CST) - number) >= 0;
}

static void protect_wait(struct vcpu *v, const struct vcpu *t, u32 number)
{
	u32 spins = 0;

	while (!protect_done(t, number)) {
		code_protect_serve(v);
		if (++spins % WAIT_SPINS)
			__asm__ volatile("pause");
		else
			os_yield();
	}
}

static void writers_stop(struct vcpu *v, u64 writers, u64 gpa)
{
	u32 number[MAX_VCPUS];
	u64 rest;

	if (writers & own_bit(v))
		writer_leave(v, gpa);
	writers &= ~own_bit(v);
	for (rest = writers; rest; rest &= rest - 1) {
		unsigned int k = (unsigned int)__builtin_ctzll(rest);

		number[k] = protect_ask(v->vm->vcpus[k], gpa);
	}
	for (rest = writers; rest; rest &= rest - 1) {
		unsigned int k = (unsigned int)__builtin_ctzll(rest);

		protect_wait(v, v->vm->vcpus[k], number[k]);
	}
}

void code_cover(struct vcpu *v, const struct memslot *s, u64 gpa, unsigned int off,
	unsigned int size)
{
	struct code_page *p = memslot_code(s, gpa);
	u64 chunks = chunk_mask(off, size);
	const u8 *host = memslot_host(s, gpa & PAGE_MASK);
	u64 writers, fresh;
	u32 gen, hash;

	if (!(chunks & ~load_acquire(&p->mask)) && READ_ONCE(p->readers) & own_bit(v) &&
		!READ_ONCE(p->writers))
		return;
	/* The mask first: from now on no writer gets a fast tag for this page. */
	code_lock(v);
	gen = p->gen;
	fresh = chunks & ~p->mask;
	hash = chunks_hash(host, fresh);
	p->hash ^= hash;
	p->readers |= own_bit(v);
	__atomic_fetch_or(&p->mask, chunks, __ATOMIC_SEQ_CST);
	code_unlock(v);
	writers = __atomic_load_n(&p->writers, __ATOMIC_SEQ_CST);
	if (likely(!writers))
		return;
	writers_stop(v, writers, gpa & PAGE_MASK);
	/* What they wrote before they stopped is nothing that user space wrote. */
	code_lock(v);
	if (p->gen == gen)
		p->hash ^= hash ^ chunks_hash(host, fresh);
	code_unlock(v);
}
