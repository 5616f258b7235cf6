/*
 * Call gates, the stacks of inner privilege levels, and the checks that end every far transfer. SDM
 * 3A 6.8.3 to 6.8.6, 6.14, 8.6; SDM 2A CALL, JMP. A stack that is being entered is filled through
 * struct new_stack while SS:RSP still are the old ones, so that a fault finds them unchanged.
 */
#include "hypervisor/x86/segment.h"

/* ---- stacks ---- */

/*
 * Offsets in the TSS of the stack pointer of level 0 and the step to the next. SDM 3A 8.2.1, 8.6,
 * 8.7
 */
#define TSS32_ESP0	4
#define TSS32_STEP	8
#define TSS16_SP0	2
#define TSS16_STEP	4
#define TSS64_RSP0	4
#define TSS64_STEP	8
#define TSS64_IST1	0x24

static u64 tss_read(struct vcpu *v, u32 off, unsigned int size)
{
	return sys_read(v, v->seg[SEG_TR].base + off, size);
}

static void tss_check(struct vcpu *v, u32 last)
{
	if (last > v->seg[SEG_TR].limit)
		vcpu_raise(v, VEC_TS, SEL_ERROR(v->seg[SEG_TR].sel));
}

static void stack_new_flat(struct vcpu *v, struct new_stack *st, u32 tss_off, unsigned int cpl)
{
	tss_check(v, tss_off + 7);
	segment_set_null(&st->ss, (u16)cpl);
	st->sp = tss_read(v, tss_off, 8);
	st->mask = ~0ULL;
	st->cpl = cpl;
	st->flat = true;
	st->user = cpl == 3;
	if (!linear_canonical(v, st->sp))
		vcpu_raise(v, VEC_SS, 0);
}

void stack_new_ist(struct vcpu *v, struct new_stack *st, unsigned int ist, unsigned int cpl)
{
	stack_new_flat(v, st, TSS64_IST1 + (ist - 1) * TSS64_STEP, cpl);
}

void stack_new_inner(struct vcpu *v, struct new_stack *st, unsigned int cpl)
{
	bool wide = v->seg[SEG_TR].attr & SYS_32;
	u32 off;
	u16 sel;

	if (vcpu_long_mode(v)) {
		stack_new_flat(v, st, TSS64_RSP0 + cpl * TSS64_STEP, cpl);
		return;
	}
	off = wide ? TSS32_ESP0 + cpl * TSS32_STEP : TSS16_SP0 + cpl * TSS16_STEP;
	tss_check(v, off + (wide ? 5 : 3));
	st->sp = tss_read(v, off, wide ? 4 : 2);
	sel = (u16)tss_read(v, off + (wide ? 4 : 2), 2);
	if (sel_null(sel))
		vcpu_raise(v, VEC_TS, SEL_ERROR(sel));
	segment_read_stack(v, &st->ss, sel, cpl, VEC_TS);
	st->mask = st->ss.attr & SEG_DB ? 0xffffffff : 0xffff;
	st->cpl = cpl;
	st->flat = false;
	st->user = false;
}

void stack_new_current(struct vcpu *v, struct new_stack *st)
{
	st->ss = v->seg[SEG_SS];
	st->sp = v->r[R_RSP];
	/* An event in compatibility mode goes to 64-bit code: RSP counts in full. SDM 3A 6.14.2 */
	st->flat = vcpu_long_mode(v);
	st->mask = st->flat ? ~0ULL : v->stack_mask;
	st->cpl = v->cpl;
	st->user = v->cpl == 3;
}

/* Data segment limits, expand-down ones too. SDM 3A 5.3 */
static bool stack_in_limit(const struct new_stack *st, u32 off, unsigned int size)
{
	u32 last = off + size - 1;
	u32 top = st->ss.attr & SEG_DB ? 0xffffffff : 0xffff;

	if (last < off)
		return false;
	if (st->ss.attr & SEG_TYPE_EC)
		return off > st->ss.limit && last <= top;
	return last <= st->ss.limit;
}

/*
 * A stack of the present privilege is pushed to as the guest would (in user mode with user rights);
 * an inner one with supervisor rights. The error code names SS only where it is a new one.
 */
void stack_push(struct vcpu *v, struct new_stack *st, unsigned int size, u64 val)
{
	u64 sp = (st->sp & ~st->mask) | ((st->sp - size) & st->mask);
	u64 off = sp & st->mask;

	if (st->flat) {
		if (!linear_canonical(v, off))
			vcpu_raise(v, VEC_SS, 0);
		/* Conforming code at CPL 3; SS has no base once that is 64-bit code. */
		if (st->user)
			mem_write(v, SEG_SS, off - v->ebase[SEG_SS], size, val);
		else
			sys_write(v, off, size, val);
	} else if (st->user || st->cpl == v->cpl) {
		mem_write(v, SEG_SS, off, size, val);
	} else {
		if (!stack_in_limit(st, (u32)off, size))
			vcpu_raise(v, VEC_SS, SEL_ERROR(st->ss.sel));
		sys_write(v, (u32)(st->ss.base + off), size, val);
	}
	st->sp = sp;
}

void stack_commit(struct vcpu *v, const struct new_stack *st, bool load_ss)
{
	if (load_ss)
		v->seg[SEG_SS] = st->ss;
	v->r[R_RSP] = st->sp;
}

/* ---- code segments ---- */

void far_check_rip(struct vcpu *v, const struct segment *cs, u64 rip)
{
	if (segment_is_64bit(v, cs) ? !linear_canonical(v, rip) : rip > cs->limit)
		raise_gp(v, 0);
}

void far_read_code(struct vcpu *v, struct segment *cs, u16 sel, u64 desc, unsigned int cpl)
{
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	if (vcpu_long_mode(v) && (desc_attr(desc) & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB))
		raise_gp(v, SEL_ERROR(sel));
	descriptor_accessed(v, sel, &desc);
	segment_unpack(cs, (u16)((sel & ~SEL_RPL) | cpl), desc);
}

void far_commit(struct vcpu *v, const struct segment *cs, u64 rip)
{
	v->seg[SEG_CS] = *cs;
	v->r[R_RIP] = rip;
	vcpu_update_mode(v);
}

/* ---- call gates ---- */

struct call_gate {
	u16 sel;		/* of the code segment */
	u64 desc;		/* its descriptor */
	u64 rip;
	unsigned int size;	/* of what is pushed: 2, 4, 8 */
	unsigned int params;
};

static void gate_decode(struct vcpu *v, struct call_gate *g, u16 gate_sel, u64 gate)
{
	g->sel = gate_selector(gate);
	g->rip = gate_offset(gate);
	g->params = (unsigned int)(gate >> 32) & 0x1f;
	g->size = desc_type(gate) == SYS_CALL16 ? 2 : 4;
	if (vcpu_long_mode(v)) {
		g->rip |= descriptor_read_high(v, gate_sel, VEC_GP) << 32;
		g->size = 8;
		g->params = 0;
	} else if (g->size == 2) {
		g->rip &= 0xffff;
	}
	if (sel_null(g->sel))
		raise_gp(v, 0);
	g->desc = descriptor_read(v, g->sel, VEC_GP);
	if (!desc_code(g->desc) || desc_dpl(g->desc) > v->cpl)
		raise_gp(v, SEL_ERROR(g->sel));
	if (vcpu_long_mode(v) && (desc_attr(g->desc) & (SEG_L | SEG_DB)) != SEG_L)
		raise_gp(v, SEL_ERROR(g->sel));
}

static void gate_jump(struct vcpu *v, const struct call_gate *g)
{
	struct segment cs;

	if (!desc_conforming(g->desc) && desc_dpl(g->desc) != v->cpl)
		raise_gp(v, SEL_ERROR(g->sel));
	far_read_code(v, &cs, g->sel, g->desc, v->cpl);
	far_check_rip(v, &cs, g->rip);
	far_commit(v, &cs, g->rip);
}

static void gate_call_inner(struct vcpu *v, const struct call_gate *g, u64 next)
{
	struct new_stack st;
	struct segment cs;
	unsigned int n;
	u64 old = v->r[R_RSP];

	far_read_code(v, &cs, g->sel, g->desc, desc_dpl(g->desc));
	stack_new_inner(v, &st, desc_dpl(g->desc));
	stack_push(v, &st, g->size, v->seg[SEG_SS].sel);
	stack_push(v, &st, g->size, old);
	for (n = g->params; n > 0; n--)
		stack_push(v, &st, g->size,
			mem_read(v, SEG_SS, (old + (n - 1) * g->size) & v->stack_mask, g->size));
	stack_push(v, &st, g->size, v->seg[SEG_CS].sel);
	stack_push(v, &st, g->size, next);
	far_check_rip(v, &cs, g->rip);
	stack_commit(v, &st, true);
	far_commit(v, &cs, g->rip);
}

static void gate_call_same(struct vcpu *v, const struct call_gate *g, u64 next)
{
	struct new_stack st;
	struct segment cs;

	far_read_code(v, &cs, g->sel, g->desc, v->cpl);
	far_check_rip(v, &cs, g->rip);
	stack_new_current(v, &st);
	stack_push(v, &st, g->size, v->seg[SEG_CS].sel);
	stack_push(v, &st, g->size, next);
	stack_commit(v, &st, false);
	far_commit(v, &cs, g->rip);
}

static void gate_transfer(struct vcpu *v, u16 sel, u64 desc, bool call, u64 next)
{
	struct call_gate g;

	gate_decode(v, &g, sel, desc);
	if (!call)
		gate_jump(v, &g);
	else if (!desc_conforming(g.desc) && desc_dpl(g.desc) < v->cpl)
		gate_call_inner(v, &g, next);
	else
		gate_call_same(v, &g, next);
}

void gate_enter(struct vcpu *v, u16 sel, u64 desc, bool call, u64 next)
{
	unsigned int type = desc_type(desc);
	enum task_reason why = call ? TASK_CALL : TASK_JUMP;

	if (vcpu_long_mode(v) && type != SYS_CALL32)
		raise_gp(v, SEL_ERROR(sel));
	if (type != SYS_CALL16 && type != SYS_CALL32 && type != SYS_TASK && type != SYS_TSS16 &&
	    type != SYS_TSS32)
		raise_gp(v, SEL_ERROR(sel));
	if (desc_dpl(desc) < v->cpl || desc_dpl(desc) < sel_rpl(sel))
		raise_gp(v, SEL_ERROR(sel));
	if (!desc_present(desc))
		vcpu_raise(v, VEC_NP, SEL_ERROR(sel));
	if (type == SYS_CALL16 || type == SYS_CALL32) {
		gate_transfer(v, sel, desc, call, next);
		return;
	}
	task_switch(v, type == SYS_TASK ? gate_selector(desc) : sel, why, false, 0, next);
	debug_take_pending(v);
}
