/*
 * EVEX instructions on memory that is not plain, where only the elements that a mask selects may be
 * touched; VGATHER and VSCATTER. All others are a stub's (native.h). SDM 2A 2.7, 2.8; 2C.
 */
#include "hypervisor/insn/native.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

/* ---- under a mask -------------------------------------------------------------------------- */

/* The memory operand's elements and which of them are accessed. */
struct elements {
	unsigned int size;
	u64 selected;
};

static u64 low_bits(unsigned int n)
{
	return n >= 64 ? ~0ULL : BIT(n) - 1;
}

/* Hosts whose masks have no 64 bits count as without AVX-512 (x86/fpu.h). */
static u64 mask_live(unsigned int k)
{
	u64 mask = ~0ULL;

#define READ(n)	case n: __asm__ volatile("kmovq %%k" #n ", %0" : "=r"(mask)); break
	switch (k) {
	READ(1);
	READ(2);
	READ(3);
	READ(4);
	READ(5);
	READ(6);
	READ(7);
	}
#undef READ
	return mask;
}

/* The instruction's mask for n elements. */
static u64 mask_of(const struct vcpu *v, const struct insn *i, unsigned int n)
{
	unsigned int k = i->evex & EVEX_K;

	if (v->fpu_live || !k)
		return mask_live(k) & low_bits(n);
	return mask_get(v->fpu, k) & low_bits(n);
}

/* Bit j of the result: one of the bits j, j + n, j + 2n ... */
static u64 mask_fold(u64 mask, unsigned int n)
{
	u64 any = 0;

	for (; mask; mask = n < 64 ? mask >> n : 0)
		any |= mask & low_bits(n);
	return any;
}

static struct elements elements_of(const struct vcpu *v, const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);
	unsigned int size = 1u << (row->evex & EV_ESIZE), mem = opcode_mem_size(row, i);
	unsigned int n = row->evex & EV_LIG ? 1 : insn_vector_bytes(i) / size;
	u64 mask = mask_of(v, i, n);

	if (row->evex & EV_NF)			/* VEXTRACT: of the destination */
		return (struct elements){ size, mask & low_bits(mem / size) };
	if (i->evex & EVEX_B)
		return (struct elements){ mem, !!mask };
	if (row->evex & EV_PACK)
		return (struct elements){ size, low_bits(bits_set(mask)) };
	if (row->evex & EV_REPEAT)
		return (struct elements){ size, mask_fold(mask, mem / size) };
	return (struct elements){ mem / n, mask };
}

bool evex_selects(const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);
	bool write = opcode_mem_access(row) & OPC_MEM_WRITE;

	if (row->evex & EV_PACK && write)
		return true;		/* aligned by element, even all of them */
	return i->evex & EVEX_K && (write || !(row->evex & EV_NF));
}

/*
 * The next selected elements in a row, from *at on; returns how many bytes they are, 0 for no more.
 * Elements are checked for alignment, one by one, not what they are part of.
 */
static unsigned int run_next(const struct vcpu *v, struct elements *e, unsigned int *at)
{
	unsigned int first, n;

	if (!e->selected)
		return 0;
	first = (unsigned int)__builtin_ctzll(e->selected);
	n = ~(e->selected >> first) ? (unsigned int)__builtin_ctzll(~(e->selected >> first)) : 64;
	if (vcpu_align_checked(v))
		n = 1;
	e->selected &= ~(low_bits(n) << first);
	*at = first * e->size;
	return n * e->size;
}

static void selected_in(struct vcpu *v, const struct insn *i, u64 ea, struct elements e, u8 *buf)
{
	unsigned int at, n;

	while ((n = run_next(v, &e, &at)))
		mem_copy_in(v, i->seg, ea + at, buf + at, n);
}

static void selected_probe(struct vcpu *v, const struct insn *i, u64 ea, struct elements e)
{
	const struct opcode *row = opcode_row(i->row);
	unsigned int at, n;

	if (row->evex & EV_NF)
		mem_probe(v, i->seg, ea, opcode_mem_size(row, i), MEM_WRITE);
	while ((n = run_next(v, &e, &at)))
		mem_probe(v, i->seg, ea + at, n, MEM_WRITE);
}

static void selected_out(struct vcpu *v, const struct insn *i, u64 ea, struct elements e,
	const u8 *buf)
{
	unsigned int at, n;

	while ((n = run_next(v, &e, &at)))
		mem_copy_out(v, i->seg, ea + at, buf + at, n);
}

/* The stub works on a copy, at the same offset from a cache line, of what is selected. */
void evex_bounced(struct vcpu *v, const struct insn *i, const struct native_stub *s)
{
	u8 buf[128] __attribute__((aligned(64))) = { 0 };
	u64 ea = insn_ea(v, i), la = v->ebase[i->seg] + ea, err;
	u8 *p = buf + (la & 63);
	struct elements e = elements_of(v, i);

	/* No element, no fault: so has AMD it. (A host that checks even then faults in the stub.) */
	if (e.selected && la & (s->size - 1u) && opcode_aligned(opcode_row(i->row), i))
		raise_gp(v, 0);
	if (s->access & OPC_MEM_WRITE)
		selected_probe(v, i, ea, e);
	else
		selected_in(v, i, ea, e, p);
	fpu_get(v);
	err = s->run(p, v->r);
	fpu_done(v);
	if (unlikely(err))
		native_fault(v, err - 1);
	if (s->access & OPC_MEM_WRITE)
		selected_out(v, i, ea, e, p);
}

/* ---- VGATHER*, VPGATHER*, VSCATTER*, VPSCATTER* -------------------------------------------- */

/* Opcodes in pairs: with indexes of 4 bytes, of 8. */
static unsigned int index_size(const struct insn *i)
{
	return (i->row / NR_OPC_PFX) & 1 ? 8 : 4;
}

static u64 element_address(struct vcpu *v, const struct insn *i, const u8 *index, unsigned int k)
{
	unsigned int size = index_size(i);
	u64 at = mem_load(index + k * size, size);

	if (size == 4)
		at = (u64)(s64)(s32)at;
	return v->r[i->base] + (at << i->scale) + (u64)(s64)i->disp;
}

/* What both begin with. */
struct vsib {
	unsigned int size, n;	/* of an element, in bytes; elements */
	unsigned int reg;	/* the mask register, and those still to come, with what lies above */
	u64 mask;
	u8 index[64];
};

static void vsib_begin(struct vcpu *v, const struct insn *i, struct vsib *s)
{
	fp_gate(v, FP_AVX512);
	fpu_put(v);
	s->size = 1u << (opcode_row(i->row)->evex & EV_ESIZE);
	s->n = insn_vector_bytes(i) / MAX(s->size, index_size(i));
	s->reg = i->evex & EVEX_K;
	s->mask = mask_get(v->fpu, s->reg);
	vec_get(v->fpu, i->index, s->index);
}

/* A fault or an exit at a later element resumes there. */
static void element_done(struct vcpu *v, struct vsib *s, unsigned int k)
{
	s->mask &= ~BIT(k);
	mask_put(v->fpu, s->reg, s->mask);
	io_log_clear(v);
}

/* All selected elements, where they are plain memory at hand: nothing can stop between two. */
static bool gather_at_once(struct vcpu *v, const struct insn *i, const struct vsib *s, u8 *dst)
{
	for (u64 mask = s->mask & low_bits(s->n); mask; mask &= mask - 1) {
		unsigned int k = (unsigned int)__builtin_ctzll(mask);
		u64 ea = element_address(v, i, s->index, k) & address_mask(i);
		const void *p = mem_hit(v, i->seg, ea, s->size, false);

		if (!p)
			return false;
		mem_store(dst + k * s->size, s->size, mem_load(p, s->size));
	}
	return true;
}

/*
 * Element after element; each one done is final (its bit of the mask is clear, and what lies above
 * the vector's length is zero, as AMD has it).
 */
void exec_evex_gather(struct vcpu *v, const struct insn *i)
{
	struct vsib s;
	u8 dst[64];

	vsib_begin(v, i, &s);
	vec_get(v->fpu, i->reg, dst);
	if (gather_at_once(v, i, &s, dst))
		s.mask = 0;
	for (unsigned int k = 0; k < s.n; k++) {
		if (!(s.mask & BIT(k)))
			continue;
		mem_store(dst + k * s.size, s.size,
			element_read(v, i, element_address(v, i, s.index, k), s.size));
		vec_put(v->fpu, i->reg, dst, insn_vector_bytes(i));
		element_done(v, &s, k);
	}
	vec_put(v->fpu, i->reg, dst, s.n * s.size);
	mask_put(v->fpu, s.reg, 0);
}

void exec_evex_scatter(struct vcpu *v, const struct insn *i)
{
	struct vsib s;
	u8 data[64];

	vsib_begin(v, i, &s);
	vec_get(v->fpu, i->reg, data);
	for (unsigned int k = 0; k < s.n; k++) {
		if (!(s.mask & BIT(k)))
			continue;
		element_write(v, i, element_address(v, i, s.index, k), s.size,
			mem_load(data + k * s.size, s.size));
		element_done(v, &s, k);
	}
	mask_put(v->fpu, s.reg, 0);
}
