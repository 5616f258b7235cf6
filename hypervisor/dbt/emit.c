/* Encoding of host instructions: see dbt/emit.h. */
#include "hypervisor/dbt/emit.h"

static void put_rex(struct emitter *e, const struct hop *o, u8 reg, u8 index, u8 base)
{
	u8 rex = (u8)(o->w << 3 | (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (base >> 3 & 1));

	if ((rex || o->force_rex) && !o->no_rex)
		put8(e, 0x40 | rex);
}

/* The three-byte form. SDM 2A 2.3.5 */
static void put_vex(struct emitter *e, const struct hop *o, u8 reg, u8 index, u8 base)
{
	u8 pp = o->pfx == 0x66 ? 1 : o->pfx == 0xf3 ? 2 : o->pfx == 0xf2 ? 3 : 0;

	put8(e, 0xc4);
	put8(e, (u8)(!(reg >> 3 & 1) << 7 | !(index >> 3 & 1) << 6 | !(base >> 3 & 1) << 5 | o->map));
	put8(e, (u8)(o->w << 7 | (~o->vvvv & 15) << 3 | o->l << 2 | pp));
	put8(e, o->op);
}

static void put_opcode(struct emitter *e, const struct hop *o, u8 reg, u8 index, u8 base)
{
	static const u8 second[] = { 0, 0, 0x38, 0x3a };

	if (o->vex) {
		put_vex(e, o, reg, index, base);
		return;
	}
	if (o->opsize16)
		put8(e, 0x66);
	if (o->pfx && !(o->pfx == 0x66 && o->opsize16))
		put8(e, o->pfx);
	put_rex(e, o, reg, index, base);
	if (o->map)
		put8(e, 0x0f);
	if (o->map > 1)
		put8(e, second[o->map]);
	put8(e, o->op);
}

static void put_modrm_mem(struct emitter *e, u8 reg, const struct place *m)
{
	u8 r = (u8)((reg & 7) << 3);
	bool small = m->disp >= -128 && m->disp < 128;
	u8 mod = !m->disp && (m->base & 7) != H_BP ? 0 : small ? 0x40 : 0x80;
	bool sib = m->index != H_NONE || (m->base & 7) == H_SP;

	if (m->base == H_NONE) {	/* absolute, or index and disp32 */
		PUT(e, r | 4, (u8)(m->scale << 6 | (m->index == H_NONE ? 4 : m->index & 7) << 3 | 5));
		put32(e, (u32)m->disp);
		return;
	}
	put8(e, mod | r | (sib ? 4 : m->base & 7));
	if (sib)
		put8(e, (u8)(m->scale << 6 | (m->index == H_NONE ? 4 : m->index & 7) << 3 |
			(m->base & 7)));
	if (mod == 0x40)
		put8(e, (u8)m->disp);
	else if (mod == 0x80)
		put32(e, (u32)m->disp);
}

void emit_op(struct emitter *e, const struct hop *o, u8 reg, const struct place *mem, u8 rm)
{
	if (o->lock)
		put8(e, 0xf0);
	if (!mem) {
		put_opcode(e, o, reg, 0, rm);
		put8(e, (u8)(0xc0 | (reg & 7) << 3 | (rm & 7)));
		return;
	}
	if (mem->gs)
		put8(e, 0x65);
	put_opcode(e, o, reg, mem->index == H_NONE ? 0 : mem->index,
		mem->base == H_NONE ? 0 : mem->base);
	put_modrm_mem(e, reg, mem);
}

void emit_plain(struct emitter *e, const struct hop *o)
{
	put_opcode(e, o, 0, 0, 0);
}

void emit_rr(struct emitter *e, bool w, u8 op, u8 reg, u8 rm)
{
	emit_op(e, &(struct hop){ .w = w, .op = op }, reg, NULL, rm);
}

void emit_rm(struct emitter *e, bool w, u8 op, u8 reg, struct place mem)
{
	emit_op(e, &(struct hop){ .w = w, .op = op }, reg, &mem, 0);
}

void emit_alu_imm(struct emitter *e, bool w, u8 ext, u8 rm, s32 imm)
{
	bool small = imm >= -128 && imm < 128;

	emit_rr(e, w, small ? 0x83 : 0x81, ext, rm);
	if (small)
		put8(e, (u8)imm);
	else
		put32(e, (u32)imm);
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

static u32 put_rel(struct emitter *e, u32 target)
{
	u32 site = e->at;

	put32(e, target - (site + 4));
	return site;
}

u32 emit_jmp(struct emitter *e, u32 target)
{
	put8(e, 0xe9);
	return put_rel(e, target);
}

void emit_call_to(struct emitter *e, u32 target)
{
	put8(e, 0xe8);
	put_rel(e, target);
}

u32 emit_jcc(struct emitter *e, u8 cc, u32 target)
{
	PUT(e, 0x0f, 0x80 | cc);
	return put_rel(e, target);
}

void emit_jmp_mem(struct emitter *e, struct place mem)
{
	emit_rm(e, false, 0xff, 4, mem);
}

void emit_align(struct emitter *e, u32 n)
{
	while (e->at & (n - 1))
		put8(e, 0xcc);
}

void emit_tlb_index(struct emitter *e)
{
	emit_shr(e, false, H_11, 6);
	emit_alu_imm(e, false, ALU_AND, H_11, (TLB_ENTRIES - 1) << 6);
}

/* lahf; seto al; mov gs:[flags], eax */
void emit_flags_save(struct emitter *e)
{
	PUT(e, 0x9f, 0x0f, 0x90, 0xc0);
	emit_rm(e, false, OP_STORE, H_AX, HOT(hot.flags));
}

/* mov eax, gs:[flags]; add al, 0x7f (OF := bit 0); sahf */
void emit_flags_restore(struct emitter *e)
{
	emit_rm(e, false, OP_LOAD, H_AX, HOT(hot.flags));
	PUT(e, 0x04, 0x7f, 0x9e);
}
