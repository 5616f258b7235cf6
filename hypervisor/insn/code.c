/* The cache of decoded instructions: see insn/code.h for the rules of validity. */
#include <linux/errno.h>

#include "hypervisor/insn/code.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/native.h"
#include "hypervisor/insn/opcode.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/mmu.h"
#include "hypervisor/x86/system.h"

/*
 * When the arena is full everything is dropped and decoding starts again: some 30 ms of 18 s. A
 * boot of Debian's cloud kernel through SeaBIOS does that 9 times with 6 MiB and 12 times with 5,
 * which keeps the program under 16 MiB.
 */
#define ARENA_SIZE	(5u << 20)
/* Instructions. Measured blocks average 9; this bounds how late a kick is seen. */
#define BLOCK_MAX	48

int code_create(struct vcpu *v)
{
	struct code_cache *c = os_pages_alloc(ALIGN_UP(sizeof(*c), 4096));

	if (!c)
		return -ENOMEM;
	c->arena = os_pages_alloc(ARENA_SIZE);
	if (!c->arena) {
		os_pages_free(c, ALIGN_UP(sizeof(*c), 4096));
		return -ENOMEM;
	}
	c->epoch = 1;
	v->code = c;
	return 0;
}

void code_destroy(struct vcpu *v)
{
	struct code_cache *c = v->code;

	if (!c)
		return;
	os_pages_free(c->arena, ARENA_SIZE);
	os_pages_free(c, ALIGN_UP(sizeof(*c), 4096));
	v->code = NULL;
}

void code_flush(struct vcpu *v)
{
	struct code_cache *c = v->code;

	memset(c->bucket, 0, sizeof(c->bucket));
	c->used = 0;
	c->epoch++;
	c->last.code_bytes = 0;
	native_reset(v);
	v->stat.code_flushes++;
}

void code_flush_lookup(struct vcpu *v)
{
	if (v->code)
		v->code->epoch++;
}

void code_flush_lookup_page(struct vcpu *v, u64 la)
{
	struct code_cache *c = v->code;

	if (!c)
		return;
	memset(c->lookup[(la >> 12) & (LOOKUP_SETS - 1)], 0, sizeof(c->lookup[0]));
	c->fetch[(la >> 12) & (FETCH_ENTRIES - 1)].epoch = 0;
}

/* ---- fetching -------------------------------------------------------------------------------- */

static struct fetch_entry *fetch_fill(struct vcpu *v, u64 la, struct fetch_entry *f)
{
	u64 gpa = mmu_fetch_page(v, la, NULL);
	const struct memslot *s = memslot_find(v->vm, gpa);

	if (!s)
		emulation_failed(v);	/* code in no memory slot: KVM cannot run it either */
	code_check_page(v, s, gpa);	/* it may unwind, and then nothing leads there */
	f->tag = (la & ~0xfffULL) | v->tlb_ctx;
	f->epoch = v->code->epoch;
	f->gpa = gpa;
	f->slot = s;
	f->host = memslot_host(s, gpa);
	return f;
}

static struct fetch_entry *fetch_page(struct vcpu *v, u64 la)
{
	struct fetch_entry *f = &v->code->fetch[(la >> 12) & (FETCH_ENTRIES - 1)];

	if (likely(f->tag == ((la & ~0xfffULL) | v->tlb_ctx) && f->epoch == v->code->epoch))
		return f;
	return fetch_fill(v, la, f);
}

/*
 * #GP(0) where RIP cannot be fetched from at all. Returns how many bytes the segment has from
 * there.
 */
static u64 fetch_limit(struct vcpu *v)
{
	u64 rip = v->r[R_RIP];

	if (v->code_bytes == 8) {
		if (unlikely((u64)((s64)(rip << 16) >> 16) != rip))
			raise_gp(v, 0);
		return ~0ULL;
	}
	if (unlikely(rip > v->seg[SEG_CS].limit))
		raise_gp(v, 0);
	return (u64)v->seg[SEG_CS].limit - rip + 1;
}

static void exec_too_long(struct vcpu *v, const struct insn *i)
{
	raise_gp(v, 0);
}

/* Turns what the decoder could not make an instruction of into one that raises the fault. */
static void insn_invalid(struct insn *i, insn_fn *fn)
{
	u8 len = i->len;

	memset(i, 0, sizeof(*i));
	i->len = len ? len : 1;
	i->exec = fn;
	i->flags = I_END;
}

/* What decoding alone cannot know: the guest's CPUID, the stub. -ENOSPC: no room for a stub. */
static int insn_finish(struct vcpu *v, struct insn *i)
{
	if (!opcode_in(v->guest_features, opcode_row(i->row), i)) {
		insn_invalid(i, exec_ud);
		return 0;
	}
	return i->flags & I_NATIVE ? native_prepare(v, i) : 0;
}

/* Are these the bytes decoded last, or do they begin with them? Stubs come and go, they are not kept. */
static bool last_take(const struct vcpu *v, const u8 *bytes, unsigned int n, struct insn *out)
{
	const struct code_cache *c = v->code;

	if (c->last.code_bytes != v->code_bytes || c->last.insn.len > n ||
		memcmp(c->last.bytes, bytes, c->last.insn.len))
		return false;
	*out = c->last.insn;
	return true;
}

static void last_keep(const struct vcpu *v, const u8 *bytes, const struct insn *i)
{
	struct code_cache *c = v->code;

	c->last.code_bytes = i->flags & (I_NATIVE | I_CROSS) ? 0 : v->code_bytes;
	memcpy(c->last.bytes, bytes, i->len);
	c->last.insn = *i;
}

void code_fetch(struct vcpu *v, struct insn *out)
{
	u64 room = fetch_limit(v);
	u64 la = code_linear(v);
	unsigned int in_page = 0x1000 - (la & 0xfff);
	u8 buf[INSN_MAX];
	unsigned int n = (unsigned int)MIN(MIN(in_page, INSN_MAX), room);
	enum decode_result r;

	memcpy(buf, fetch_page(v, la)->host + (la & 0xfff), n);
	if (last_take(v, buf, n, out))
		return;
	r = insn_decode(buf, n, v->code_bytes, out);
	if (r == DECODE_MORE && n < INSN_MAX && n < room) {
		unsigned int all = (unsigned int)MIN(INSN_MAX, room);
		u64 second = v->code_bytes == 8 ? la + n : (u32)(la + n);

		memcpy(buf + n, fetch_page(v, second)->host, all - n);
		n = all;
		r = insn_decode(buf, n, v->code_bytes, out);
		out->flags |= I_CROSS;
	}
	if (r == DECODE_MORE || r == DECODE_LONG)	/* over the limit, or over 15 bytes */
		raise_gp(v, 0);
	if (r == DECODE_UD)
		raise_ud(v);
	v->stat.decodes++;
	if (insn_finish(v, out) == 0) {
		last_keep(v, buf, out);
		return;
	}
	code_flush(v);
	if (insn_finish(v, out)) {
		fpu_put(v);
		vm_kill(v->vm, "no room for a single native stub");
		vcpu_unwind(v, UNWIND_EXIT);
	}
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static unsigned int block_hash(u64 key)
{
	return (unsigned int)((key * 0x9e3779b97f4a7c15ULL) >> (64 - __builtin_ctz(BLOCK_BUCKETS)));
}

/*
 * Decodes instruction n of b at an offset in the page. 0: done, go on; 1: it ends the block; <0: it
 * is not part of it.
 */
static int block_append(struct vcpu *v, struct block *b, const struct fetch_entry *f,
	unsigned int at)
{
	struct insn *i = &b->insn[b->n];
	unsigned int avail = 0x1000 - at;
	enum decode_result r;

	/* All that the decoder may look at, whatever the length turns out to be. */
	code_cover(v, f->slot, f->gpa, at, MIN(INSN_MAX, avail));
	r = insn_decode(f->host + at, avail, v->code_bytes, i);
	if (r == DECODE_MORE)
		return -EAGAIN;
	if (r == DECODE_OK) {
		if (insn_finish(v, i))
			return -ENOSPC;
	} else {
		insn_invalid(i, r == DECODE_UD ? exec_ud : exec_too_long);
	}
	b->n++;
	b->bytes = (u16)(b->bytes + i->len);
	v->stat.decodes++;
	return !!(i->flags & (I_BRANCH | I_END));
}

static struct block *block_alloc(struct vcpu *v)
{
	struct code_cache *c = v->code;

	if (ARENA_SIZE - c->used < sizeof(struct block) + BLOCK_MAX * sizeof(struct insn))
		code_flush(v);
	return (struct block *)(c->arena + c->used);
}

static struct block *block_decode(struct vcpu *v, struct fetch_entry *f, unsigned int off, u64 key)
{
	struct code_cache *c = v->code;
	struct block *b = block_alloc(v);
	int r = 0;

	b->n = 0;
	b->bytes = 0;
	b->page = memslot_code(f->slot, f->gpa);
	b->gen = code_page_gen(v, b->page);
	while (b->n < BLOCK_MAX && off + b->bytes < 0x1000 && r == 0) {
		r = block_append(v, b, f, off + b->bytes);
		if (r == -ENOSPC) {
			code_flush(v);
			return block_decode(v, f, off, key);
		}
	}
	if (!b->n)
		return NULL;
	b->key = key;
	b->next = c->bucket[block_hash(key)];
	c->bucket[block_hash(key)] = b;
	c->used += sizeof(*b) + b->n * sizeof(struct insn);
	v->stat.blocks++;
	return b;
}

/* Finds a valid block by its physical address, or decodes it. Stale ones leave the bucket here. */
static struct block *block_get(struct vcpu *v, struct fetch_entry *f, unsigned int off)
{
	u64 key = (f->gpa + off) | (u64)v->code_bytes << 56;
	struct block **link = &v->code->bucket[block_hash(key)];

	while (*link) {
		struct block *b = *link;

		if (b->gen != load_acquire(&b->page->gen))
			*link = b->next;
		else if (b->key == key)
			return b;
		else
			link = &b->next;
	}
	return block_decode(v, f, off, key);
}

struct block *code_find(struct vcpu *v)
{
	u64 room = fetch_limit(v);
	u64 la = code_linear(v);
	struct fetch_entry *f = fetch_page(v, la);
	struct block *b = block_get(v, f, la & 0xfff);
	struct lookup_entry *e;

	if (!b || b->bytes > room)
		return NULL;
	e = code_lookup_entry(v, la);
	e->la = la;
	e->ctx = code_context(v);
	e->block = b;
	return b;
}
