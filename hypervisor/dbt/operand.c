/*
 * Operands: the check of each memory access against the TLB.
 *
 *	lea r11d, [address]		which entry
 *	shr r11d, 6
 *	and r11d, 0x3ffc0
 *	lea rax, [address + size - 1]	the page of the last byte must be the one in the tag: so an
 *	and rax, -4096			access that straddles pages never hits
 *	cmp rax, gs:[r11 + tag]
 *	jne slow
 *	mov r11, gs:[r11 + addend]
 *	op reg, [r11 + address]
 *
 * Accesses by the stack pointer compare with the page of the last such access instead, which needs
 * no entry: the address bits below the access's size take part, so that only aligned ones hit,
 * which cannot straddle.
 */
#include "hypervisor/dbt/translate.h"

u8 reg_use(struct trans *t, unsigned int guest, u8 scratch)
{
	u8 h = host_of(t, guest);

	if (h != H_NONE)
		return h;
	emit_rm(&t->e, true, OP_LOAD, scratch, home_place(t, guest));
	return scratch;
}

/* ---- effective addresses ---- */

struct address {
	u8 base, index, scale;	/* host registers or H_NONE */
	s32 disp;
	bool rip;		/* base is hot.page */
	u8 mem_base, mem_index;	/* guest registers in memory, or 0xff */
	bool wide;		/* 64-bit arithmetic */
	u8 seg;			/* whose base is to be added, or 0xff */
};
#define NO_REG	0xff

static void address_base(const struct trans *t, struct address *a, unsigned int guest)
{
	if (guest == R_ZERO)
		return;
	if (guest == R_RIP)
		a->rip = true;
	else if (host_of(t, guest) == H_NONE)
		a->mem_base = (u8)guest;
	else
		a->base = host_of(t, guest);
}

static void address_index(const struct trans *t, struct address *a, unsigned int guest)
{
	if (guest == R_ZERO)
		return;
	if (host_of(t, guest) == H_NONE)
		a->mem_index = (u8)guest;
	else
		a->index = host_of(t, guest);
}

static u8 segment_needed(const struct trans *t, unsigned int seg)
{
	/* Outside 64-bit mode nothing is written through CS. */
	if (seg == SEG_FS || seg == SEG_GS || (seg == SEG_CS && !long_mode(t)))
		return (u8)seg;
	return t->mode->flat ? NO_REG : (u8)seg;
}

/* False: not to be done here. */
static bool address_of(const struct trans *t, struct address *a)
{
	const struct insn *i = insn_now(t);
	s64 disp = i->disp;

	*a = (struct address){ .base = H_NONE, .index = H_NONE, .scale = i->scale,
		.mem_base = NO_REG, .mem_index = NO_REG, .wide = i->asize == 8,
		.seg = segment_needed(t, i->seg) };
	if (i->asize == 2 || i->base == R_TEMP)
		return false;
	address_base(t, a, i->base);
	address_index(t, a, i->index);
	if (a->rip && (!a->wide || a->index != H_NONE || a->mem_index != NO_REG))
		return false;
	if (a->rip)
		disp += t->off[t->k];
	a->disp = (s32)disp;
	return disp == a->disp && disp + 64 < 0x7fffffff;
}

bool operand_encodable(const struct trans *t)
{
	struct address a;

	return address_of(t, &a);
}

static bool both_in_memory(const struct address *a)
{
	return a->mem_base != NO_REG && a->mem_index != NO_REG;
}

/* What is in memory goes to AX, and R11 if need be, so that one LEA does the rest. */
static void address_load(struct trans *t, const struct address *a, struct place *p)
{
	*p = (struct place){ .base = a->base, .index = a->index, .scale = a->scale,
		.disp = a->disp };
	if (a->rip) {
		emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.page));
		p->base = H_AX;
	} else if (a->mem_base != NO_REG) {
		emit_rm(&t->e, true, OP_LOAD, H_AX, home_place(t, a->mem_base));
		p->base = H_AX;
	} else if (a->mem_index != NO_REG) {
		emit_rm(&t->e, true, OP_LOAD, H_AX, home_place(t, a->mem_index));
		p->index = H_AX;
	}
	if (both_in_memory(a)) {
		emit_rm(&t->e, true, OP_LOAD, H_11, home_place(t, a->mem_index));
		p->index = H_11;
	}
}

void operand_address(struct trans *t, bool wide, u8 to)
{
	struct address a;
	struct place p;

	address_of(t, &a);
	address_load(t, &a, &p);
	emit_rm(&t->e, wide && a.wide, OP_LEA, to, p);
}

/* ---- the check ---- */

static struct place tlb_field(const struct trans *t, u32 field)
{
	return at_gs_index(H_11, offsetof(struct space, tlb) + field);
}

static u32 tag_field(const struct trans *t, bool write)
{
	return offsetof(struct tlb_entry, tag) + t->mode->idx * 16u + (write ? 8 : 0);
}

/* R11 (any of the page's address bits) and AX (the last byte's address) to R11: the addend. */
static void check_tail(struct trans *t, bool write, enum cold_kind kind)
{
	struct emitter *e = &t->e;
	u32 site;

	emit_alu_imm(e, true, ALU_AND, H_AX, -4096);
	emit_rm(e, true, OP_CMP, H_AX, tlb_field(t, tag_field(t, write)));
	site = emit_jcc(e, CC_NZ, TO_LATER);
	cold_add(t, kind, site);
	emit_rm(e, true, OP_LOAD, H_11, tlb_field(t, offsetof(struct tlb_entry, addend)));
}

void address_check(struct trans *t, bool write)
{
	emit_tlb_index(&t->e);
	check_tail(t, write, COLD_SLOW);
}

static struct place segment_base(u8 seg)
{
	return at_gs(offsetof(struct vcpu, hit_base) + 8u * seg);
}

/* 64 bits wide, by base and displacement: no copy of the address is needed. */
void check_range(struct trans *t, struct place first, unsigned int size, bool write,
	enum cold_kind kind)
{
	if (first.index != H_NONE) {
		emit_rm(&t->e, true, OP_LEA, H_AX, first);
		first = at_base(H_AX, 0);
	}
	if (first.disp)
		emit_rm(&t->e, false, OP_LEA, H_11, first);
	else
		emit_rr(&t->e, false, OP_STORE, first.base, H_11);
	emit_tlb_index(&t->e);
	first.disp += (s32)size - 1;
	emit_rm(&t->e, true, OP_LEA, H_AX, first);
	check_tail(t, write, kind);
}

static void check_general(struct trans *t, const struct address *a, unsigned int size, bool write)
{
	struct place p;

	address_load(t, a, &p);
	emit_rm(&t->e, a->wide, OP_LEA, H_AX, p);
	if (both_in_memory(a))
		emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.slot[0]));
	if (a->seg != NO_REG)
		emit_rm(&t->e, true, OP_ADD, H_AX, segment_base(a->seg));
	emit_rr(&t->e, false, OP_STORE, H_AX, H_11);
	emit_tlb_index(&t->e);
	if (size > 1)
		emit_rm(&t->e, true, OP_LEA, H_AX, at_base(H_AX, (s32)size - 1));
	check_tail(t, write, COLD_SLOW);
	if (a->seg != NO_REG)
		emit_rm(&t->e, true, OP_ADD, H_11, segment_base(a->seg));
}

/* Addend in R11: the operand's place on the host, with AX where it must be. */
static void place_finish(struct trans *t, const struct address *a, bool need_ax, struct place *m)
{
	struct place p = at_base(H_AX, 0);

	if (both_in_memory(a))	/* check_general() kept it */
		emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.slot[0]));
	else
		address_load(t, a, &p);
	if (!a->wide || p.index != H_NONE || p.base == H_NONE) {
		emit_rm(&t->e, a->wide, OP_LEA, H_AX, p);
		p = at_base(H_AX, 0);
	}
	*m = (struct place){ .base = p.base, .index = H_11, .disp = p.disp };
	if (need_ax && p.base == H_AX) {
		emit_rm(&t->e, true, OP_LEA, H_11, *m);
		*m = at_base(H_11, 0);
	}
}

static bool stack_operand(const struct trans *t, unsigned int size)
{
	const struct insn *i = insn_now(t);

	return i->base == R_RSP && i->index == R_ZERO && i->seg == SEG_SS && size <= 8 &&
		!(size & (size - 1)) && t->mode->flat && i->asize == t->mode->code_bytes;
}

bool operand_check(struct trans *t, unsigned int size, bool write, bool need_ax, struct place *m)
{
	struct address a;
	struct place p;

	if (!address_of(t, &a))
		return false;
	if (group_access(t, a.disp, need_ax, m))
		return true;
	if (stack_operand(t, size)) {
		stack_check(t, a.disp, size, m);
		if (need_ax && m->base == H_AX) {
			emit_rm(&t->e, true, OP_LEA, H_11, *m);
			*m = at_base(H_11, 0);
		}
		return true;
	}
	flags_yield(t);
	p = (struct place){ .base = a.base, .index = H_NONE, .disp = a.disp };
	if (a.wide && a.base != H_NONE && a.index == H_NONE && a.mem_index == NO_REG &&
		a.seg == NO_REG)
		check_range(t, p, size, write, COLD_SLOW);
	else
		check_general(t, &a, size, write);
	place_finish(t, &a, need_ax, m);
	return true;
}

void base_check(struct trans *t, unsigned int guest, s32 disp, unsigned int size, bool write,
	struct place *m)
{
	bool wide = long_mode(t);
	struct place p = at_base(host_of(t, guest), disp);

	if (group_access(t, disp, false, m))
		return;
	flags_yield(t);
	emit_rm(&t->e, wide, OP_LEA, H_AX, p);
	emit_rr(&t->e, false, OP_STORE, H_AX, H_11);
	emit_tlb_index(&t->e);
	if (size > 1)
		emit_rm(&t->e, true, OP_LEA, H_AX, at_base(H_AX, (s32)size - 1));
	check_tail(t, write, COLD_SLOW);
	if (!wide) {
		emit_rm(&t->e, false, OP_LEA, H_AX, p);
		p = at_base(H_AX, 0);
	}
	*m = (struct place){ .base = p.base, .index = H_11, .disp = p.disp };
}

void stack_check(struct trans *t, s32 disp, unsigned int size, struct place *m)
{
	bool wide = long_mode(t);
	struct place p = at_base(H_15, disp);
	struct cold *c;
	u32 site;

	if (form_now(t)->kind != FORM_CALL_IND && group_access(t, disp, false, m))
		return;
	flags_yield(t);
	emit_rm(&t->e, wide, OP_LEA, H_AX, p);
	emit_alu_imm(&t->e, wide, ALU_AND, H_AX, -4096 | ((s32)size - 1));
	emit_rm(&t->e, true, OP_CMP, H_AX, HOT(hot.stack_tag));
	site = emit_jcc(&t->e, CC_NZ, TO_LATER);
	c = cold_add(t, COLD_STACK, site);
	c->arg = (u32)disp;
	emit_rm(&t->e, true, OP_LOAD, H_11, HOT(hot.stack_addend));
	c->back = t->e.at;
	if (!wide) {
		emit_rm(&t->e, false, OP_LEA, H_AX, p);
		p = at_base(H_AX, 0);
	}
	*m = (struct place){ .base = p.base, .index = H_11, .disp = p.disp };
}
