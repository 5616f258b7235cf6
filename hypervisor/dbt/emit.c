/* Encoding of host instructions: see dbt/emit.h. */
#include "hypervisor/dbt/emit.h"

/*
 * Bytes are put together in a register and stored at once: a store of a byte may be to anything, so
 * that after each the compiler reads everything again. More may be stored than is meant; what
 * comes next overwrites it, and behind the last piece of code there is room.
 */
struct bytes {
	u64 b;
	unsigned int n;		/* bits */
};

static __always_inline_ void add8(struct bytes *x, u8 b)
{
	x->b |= (u64)b << x->n;
	x->n += 8;
}

static __always_inline_ void add32(struct bytes *x, u32 v)
{
	x->b |= (u64)v << x->n;
	x->n += 32;
}

static __always_inline_ void put(struct emitter *e, const struct bytes *x)
{
	__builtin_memcpy(e->base + e->at, &x->b, 8);
	e->at += x->n / 8;
}

static __always_inline_ void add_rex(struct bytes *x, const struct hop *o, u8 reg, u8 index, u8 base)
{
	u8 rex = (u8)(o->w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1));

	if ((rex || o->force_rex) && !o->no_rex)
		add8(x, 0x40 | rex);
}

static u8 pp_of(const struct hop *o)
{
	return o->pfx == 0x66 ? 1 : o->pfx == 0xf3 ? 2 : o->pfx == 0xf2 ? 3 : 0;
}

/* SDM 2A 2.7.1 */
static void add_evex(struct bytes *x, const struct hop *o, u8 reg, u8 index, u8 base)
{
	add8(x, 0x62);
	add8(x, (u8)(!(reg >> 3 & 1) << 7 | !(index >> 3 & 1) << 6 | !(base >> 3 & 1) << 5 |
		!(reg >> 4) << 4 | o->map));
	add8(x, (u8)(o->w << 7 | (~o->vvvv & 15) << 3 | 4 | pp_of(o)));
	add8(x, (u8)(o->evex_last | !(o->vvvv >> 4) << 3));
	add8(x, o->op);
}

/* The three-byte form. SDM 2A 2.3.5 */
static void add_vex(struct bytes *x, const struct hop *o, u8 reg, u8 index, u8 base)
{
	if (o->evex) {
		add_evex(x, o, reg, index, base);
		return;
	}
	add8(x, 0xc4);
	add8(x, (u8)(!(reg >> 3 & 1) << 7 | !(index >> 3 & 1) << 6 | !(base >> 3 & 1) << 5 | o->map));
	add8(x, (u8)(o->w << 7 | (~o->vvvv & 15) << 3 | o->l << 2 | pp_of(o)));
	add8(x, o->op);
}

/* At most 6 bytes. */
static __always_inline_ void add_opcode(struct bytes *x, const struct hop *o, u8 reg, u8 index, u8 base)
{
	static const u8 second[] = { 0, 0, 0x38, 0x3a };

	if (unlikely(o->vex)) {
		add_vex(x, o, reg, index, base);
		return;
	}
	if (o->opsize16)
		add8(x, 0x66);
	if (o->pfx && !(o->pfx == 0x66 && o->opsize16))
		add8(x, o->pfx);
	add_rex(x, o, reg, index, base);
	if (o->map)
		add8(x, 0x0f);
	if (o->map > 1)
		add8(x, second[o->map]);
	add8(x, o->op);
}

/* disp8 counts in units of 2 to shift. */
static __always_inline_ void put_modrm_mem(struct emitter *e, u8 reg, const struct place *m,
	unsigned int shift)
{
	u8 r = (u8)((reg & 7) << 3), base = m->base & 7;
	s32 disp = m->disp >> shift;
	bool small = disp >= -128 && disp < 128 && (s32)((u32)disp << shift) == m->disp;
	u8 mod = !m->disp && base != H_BP ? 0 : small ? 0x40 : 0x80;
	u8 index = m->index == H_NONE ? 4 : m->index & 7;
	struct bytes x = { 0 };

	if (m->base == H_NONE) {	/* absolute, or index and disp32 */
		add8(&x, r | 4);
		add8(&x, (u8)(m->scale << 6 | index << 3 | 5));
		add32(&x, (u32)m->disp);
		put(e, &x);
		return;
	}
	if (m->index != H_NONE || base == H_SP) {
		add8(&x, mod | r | 4);
		add8(&x, (u8)(m->scale << 6 | index << 3 | base));
	} else {
		add8(&x, mod | r | base);
	}
	if (mod == 0x40)
		add8(&x, (u8)disp);
	else if (mod == 0x80)
		add32(&x, (u32)m->disp);
	put(e, &x);
}

static __always_inline_ bool uses_ax(const struct hop *o, u8 reg, const struct place *mem, u8 rm)
{
	return reg == H_AX || (o->vex && o->vvvv == H_AX) ||
		(mem ? mem->base == H_AX || mem->index == H_AX : rm == H_AX);
}

static __always_inline_ void op_put(struct emitter *e, const struct hop *o, u8 reg,
	const struct place *mem, u8 rm)
{
	struct bytes x = { 0 };

	if (unlikely(e->ax_flags) && uses_ax(o, reg, mem, rm))
		emit_flags_store(e);
	e->last = e->at;
	if (reg == H_11 || (!mem && rm == H_11))	/* it may be changed */
		e->r11 = 0;
	if (o->lock)
		add8(&x, 0xf0);
	if (!mem) {
		add_opcode(&x, o, reg, rm >> 4 << 3, rm);	/* EVEX.X has bit 4 */
		add8(&x, (u8)(0xc0 | (reg & 7) << 3 | (rm & 7)));
		put(e, &x);
		return;
	}
	if (mem->gs)
		add8(&x, 0x65);
	add_opcode(&x, o, reg, mem->index == H_NONE ? 0 : mem->index,
		mem->base == H_NONE ? 0 : mem->base);
	put(e, &x);
	put_modrm_mem(e, reg, mem, o->disp_shift);
}

void emit_op(struct emitter *e, const struct hop *o, u8 reg, const struct place *mem, u8 rm)
{
	op_put(e, o, reg, mem, rm);
}

void emit_plain(struct emitter *e, const struct hop *o)
{
	struct bytes x = { 0 };

	add_opcode(&x, o, 0, 0, 0);
	put(e, &x);
}

void emit_rr(struct emitter *e, bool w, u8 op, u8 reg, u8 rm)
{
	op_put(e, &(struct hop){ .w = w, .op = op }, reg, NULL, rm);
}

void emit_rm(struct emitter *e, bool w, u8 op, u8 reg, struct place mem)
{
	op_put(e, &(struct hop){ .w = w, .op = op }, reg, &mem, 0);
}

void emit_alu_imm(struct emitter *e, bool w, u8 ext, u8 rm, s32 imm)
{
	bool small = imm >= -128 && imm < 128;
	struct bytes x = { 0 };

	add_rex(&x, &(struct hop){ .w = w }, 0, 0, rm);
	add8(&x, small ? 0x83 : 0x81);
	add8(&x, (u8)(0xc0 | ext << 3 | (rm & 7)));
	if (small)
		add8(&x, (u8)imm);
	else
		add32(&x, (u32)imm);
	put(e, &x);
}

void emit_alu_mem_imm(struct emitter *e, bool w, u8 ext, struct place mem, s32 imm)
{
	bool small = imm >= -128 && imm < 128;

	emit_rm(e, w, small ? 0x83 : 0x81, ext, mem);
	if (small)
		put8(e, (u8)imm);
	else
		put32(e, (u32)imm);
}

void emit_shr(struct emitter *e, bool w, u8 rm, u8 count)
{
	emit_rr(e, w, 0xc1, 5, rm);
	put8(e, count);
}

void emit_shl(struct emitter *e, bool w, u8 rm, u8 count)
{
	emit_rr(e, w, 0xc1, 4, rm);
	put8(e, count);
}

void emit_mov_imm(struct emitter *e, u8 reg, u64 imm)
{
	if (reg == H_AX)
		emit_flags_store(e);
	if (imm == (u64)(s64)(s32)imm && imm >> 31) {	/* sign-extended */
		emit_rr(e, true, 0xc7, 0, reg);
		put32(e, (u32)imm);
		return;
	}
	if (reg >= 8 || imm >> 32)
		put8(e, (u8)(0x40 | (imm >> 32 ? 8 : 0) | reg >> 3));
	put8(e, 0xb8 | (reg & 7));
	if (imm >> 32)
		put64(e, imm);
	else
		put32(e, (u32)imm);
}

/* Jumps and calls: a rel32 behind n bytes. */
static __always_inline_ u32 put_rel(struct emitter *e, u32 op, unsigned int n, u32 target)
{
	struct bytes x = { .b = op, .n = n * 8 };
	u32 site = e->at + n;

	add32(&x, target - (site + 4));
	put(e, &x);
	return site;
}

u32 emit_jmp(struct emitter *e, u32 target)
{
	return put_rel(e, 0xe9, 1, target);
}

u32 emit_call_to(struct emitter *e, u32 target)
{
	e->r11 = 0;
	return put_rel(e, 0xe8, 1, target);
}

u32 emit_jcc(struct emitter *e, u8 cc, u32 target)
{
	return put_rel(e, 0x0f | (0x80u | cc) << 8, 2, target);
}

void emit_jmp_mem(struct emitter *e, struct place mem)
{
	emit_rm(e, false, 0xff, 4, mem);
}

void emit_call_mem(struct emitter *e, struct place mem)
{
	emit_rm(e, false, 0xff, 2, mem);
}

void emit_stack_push(struct emitter *e, u8 reg)
{
	if (reg >= 8)
		put8(e, 0x41);
	put8(e, 0x50 | (reg & 7));
}

void emit_stack_pop(struct emitter *e, u8 reg)
{
	if (reg >= 8)
		put8(e, 0x41);
	put8(e, 0x58 | (reg & 7));
}

void emit_ret_host(struct emitter *e)
{
	put8(e, 0xc3);
}

void emit_align(struct emitter *e, u32 n)
{
	while (e->at & (n - 1))
		put8(e, 0xcc);
}

void emit_tlb_index(struct emitter *e)
{
	PUT(e, 0x41, 0xc1, 0xeb, 6, 0x41, 0x81, 0xe3);	/* shr r11d, 6; and r11d, ... */
	put32(e, (TLB_ENTRIES - 1) << 6);
}

void emit_flags_take(struct emitter *e)
{
	PUT(e, 0x9f, 0x0f, 0x90, 0xc0);		/* lahf; seto al */
	e->ax_flags = true;
}

void emit_flags_store(struct emitter *e)
{
	if (!e->ax_flags)
		return;
	e->ax_flags = false;
	PUT(e, 0x65, OP_STORE, 0x04, 0x25);	/* mov gs:[flags], eax */
	put32(e, (u32)offsetof(struct vcpu, hot.flags));
}

void emit_flags_load(struct emitter *e)
{
	PUT(e, 0x65, OP_LOAD, 0x04, 0x25);	/* mov eax, gs:[flags] */
	put32(e, (u32)offsetof(struct vcpu, hot.flags));
	e->ax_flags = true;
}

void emit_flags_save(struct emitter *e)
{
	emit_flags_take(e);
	emit_flags_store(e);
}

void emit_flags_restore(struct emitter *e)
{
	if (!e->ax_flags)
		emit_flags_load(e);
	e->ax_flags = false;
	PUT(e, 0x04, 0x7f, 0x9e);		/* add al, 0x7f (OF := bit 0); sahf */
}
