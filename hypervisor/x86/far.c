/*
 * Far JMP, CALL, RET and IRET in every mode. SDM 2A CALL, JMP, RET, IRET pseudo-code; SDM 3A 5.8,
 * 6.12.1, 20.2. Gates and tasks are in gate.c and task.c.
 */
#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/segment.h"

static u64 opsize_mask(unsigned int opsize)
{
	return opsize == 8 ? ~0ULL : opsize == 4 ? 0xffffffff : 0xffff;
}

static bool real_addressing(const struct vcpu *v)
{
	return vcpu_real(v) || vcpu_v86(v);
}

/* ---- JMP and CALL ---- */

static void real_transfer(struct vcpu *v, u16 sel, u64 rip)
{
	segment_set_real(v, SEG_CS, sel);
	v->r[R_RIP] = rip;
	vcpu_update_mode(v);
}

static void push_return(struct vcpu *v, unsigned int opsize, u64 next)
{
	u64 sp = v->r[R_RSP];

	stack_write(v, sp - opsize, opsize, v->seg[SEG_CS].sel);
	stack_write(v, sp - 2 * opsize, opsize, next);
	stack_set(v, sp - 2 * opsize);
}

/* The descriptor of a direct transfer or of a gate; privilege of code segments checked. */
static u64 target_read(struct vcpu *v, u16 sel)
{
	u64 desc;

	if (sel_null(sel))
		raise_gp(v, 0);
	desc = descriptor_read(v, sel, VEC_GP);
	if (desc_system(desc))
		return desc;
	if (!desc_code(desc))
		raise_gp(v, SEL_ERROR(sel));
	if (desc_conforming(desc) ? desc_dpl(desc) > v->cpl :
	    sel_rpl(sel) > v->cpl || desc_dpl(desc) != v->cpl)
		raise_gp(v, SEL_ERROR(sel));
	return desc;
}

void far_jump(struct vcpu *v, u16 sel, u64 off, unsigned int opsize, u64 next)
{
	struct segment cs;
	u64 desc;

	off &= opsize_mask(opsize);
	if (real_addressing(v)) {
		far_check_rip(v, &v->seg[SEG_CS], off);
		real_transfer(v, sel, off);
		return;
	}
	desc = target_read(v, sel);
	if (desc_system(desc)) {
		gate_enter(v, sel, desc, false, next);
		return;
	}
	far_read_code(v, &cs, sel, desc, v->cpl);
	far_check_rip(v, &cs, off);
	far_commit(v, &cs, off);
}

void far_call(struct vcpu *v, u16 sel, u64 off, unsigned int opsize, u64 next)
{
	struct segment cs;
	u64 desc;

	off &= opsize_mask(opsize);
	if (real_addressing(v)) {
		far_check_rip(v, &v->seg[SEG_CS], off);
		push_return(v, opsize, next);
		real_transfer(v, sel, off);
		return;
	}
	desc = target_read(v, sel);
	if (desc_system(desc)) {
		gate_enter(v, sel, desc, true, next);
		return;
	}
	far_read_code(v, &cs, sel, desc, v->cpl);
	far_check_rip(v, &cs, off);
	push_return(v, opsize, next);
	far_commit(v, &cs, off);
}

/* ---- returns ---- */

/* What RET or IRET took from the stack. */
struct far_frame {
	u64 rip, rflags, rsp;
	u16 cs, ss;
	unsigned int opsize;
};

static void frame_check_code(struct vcpu *v, struct segment *cs, const struct far_frame *f)
{
	unsigned int rpl = sel_rpl(f->cs);
	u64 desc;

	if (sel_null(f->cs))
		raise_gp(v, 0);
	desc = descriptor_read(v, f->cs, VEC_GP);
	if (!desc_code(desc) || rpl < v->cpl)
		raise_gp(v, SEL_ERROR(f->cs));
	if (desc_conforming(desc) ? desc_dpl(desc) > rpl : desc_dpl(desc) != rpl)
		raise_gp(v, SEL_ERROR(f->cs));
	far_read_code(v, cs, f->cs, desc, rpl);
	far_check_rip(v, cs, f->rip);
}

static void frame_check_stack(struct vcpu *v, struct segment *ss, const struct segment *cs,
	const struct far_frame *f)
{
	unsigned int rpl = sel_rpl(f->cs);

	if (!sel_null(f->ss)) {
		segment_read_stack(v, ss, f->ss, rpl, VEC_GP);
		return;
	}
	if (!segment_is_64bit(v, cs) || rpl == 3 || sel_rpl(f->ss) != rpl)
		raise_gp(v, 0);
	segment_set_null(ss, f->ss);
}

/* The outer level must not inherit segments that it could not have loaded. SDM 3A 5.8.6 */
static void drop_inner_segments(struct vcpu *v)
{
	static const u8 data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned int n;

	for (n = 0; n < ARRAY_SIZE(data); n++) {
		struct segment *s = &v->seg[data[n]];
		bool conforming = s->attr & SEG_TYPE_CODE && s->attr & SEG_TYPE_EC;

		/*
		 * Null selectors lose their RPL, as processors do it. FS and GS keep their bases, which
		 * 64-bit code goes on using: this is no load of a null selector.
		 */
		if (s->attr & SEG_UNUSABLE)
			s->sel = 0;
		else if (!conforming && SEG_DPL(s->attr) < v->cpl)
			segment_drop(s);
	}
}

/* CS, SS, RSP and RIP become the frame's. */
static void frame_commit_outer(struct vcpu *v, const struct segment *cs, const struct segment *ss,
	const struct far_frame *f)
{
	bool outer = sel_rpl(f->cs) != v->cpl;

	v->seg[SEG_SS] = *ss;
	far_commit(v, cs, f->rip);
	/* A 16-bit stack loads SP alone; a 32-bit one must not see what a 64-bit RSP had above. */
	if (v->stack_bytes == 2)
		stack_set(v, f->rsp);
	else
		v->r[R_RSP] = f->rsp & v->stack_mask;
	if (outer) {
		drop_inner_segments(v);
		vcpu_update_mode(v);
	}
}

void far_return(struct vcpu *v, unsigned int opsize, u16 pop_bytes)
{
	u64 sp = v->r[R_RSP];
	struct far_frame f = { .opsize = opsize };
	struct segment cs, ss;

	f.rip = stack_read(v, sp, opsize);
	f.cs = (u16)stack_read(v, sp + opsize, opsize);
	sp += 2 * opsize + pop_bytes;
	if (real_addressing(v)) {
		far_check_rip(v, &v->seg[SEG_CS], f.rip);
		stack_set(v, sp);
		real_transfer(v, f.cs, f.rip);
		return;
	}
	frame_check_code(v, &cs, &f);
	if (sel_rpl(f.cs) == v->cpl) {
		stack_set(v, sp);
		far_commit(v, &cs, f.rip);
		return;
	}
	f.rsp = stack_read(v, sp, opsize) + pop_bytes;
	f.ss = (u16)stack_read(v, sp + opsize, opsize);
	frame_check_stack(v, &ss, &cs, &f);
	frame_commit_outer(v, &cs, &ss, &f);
}

/* ---- IRET ---- */

#define IRET_FLAGS	(RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define IRET_FLAGS32	(RFLAGS_RF | RFLAGS_AC | RFLAGS_ID)

/* Flags that this privilege may load. SDM 2A IRET */
static void iret_flags(struct vcpu *v, const struct far_frame *f, unsigned int cpl,
	unsigned int iopl)
{
	u64 mask = IRET_FLAGS;

	if (f->opsize > 2)
		mask |= IRET_FLAGS32;
	if (cpl <= iopl)
		mask |= RFLAGS_IF;
	if (cpl == 0)
		mask |= RFLAGS_IOPL | (f->opsize > 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);
	v->rflags = (v->rflags & ~mask) | (f->rflags & mask) | RFLAGS_FIXED;
	if (mask & RFLAGS_RF)
		v->rf_keep = true;
}

static unsigned int iopl_of(const struct vcpu *v)
{
	return (v->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
}

/* Last step of every IRET: NMIs may come again, and IF may have been set. SDM 3A 6.7.1 */
static void iret_done(struct vcpu *v)
{
	v->nmi_blocked = false;
	event_unmasked(v);
}

static void iret_real(struct vcpu *v, const struct far_frame *f)
{
	u64 sp = v->r[R_RSP] + 3 * f->opsize;

	far_check_rip(v, &v->seg[SEG_CS], f->rip);
	stack_set(v, sp);
	if (vcpu_v86(v)) {
		u64 iopl = v->rflags & RFLAGS_IOPL;

		iret_flags(v, f, 0, 3);
		v->rflags = (v->rflags & ~(RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP)) | iopl;
	} else {
		iret_flags(v, f, 0, 3);
	}
	real_transfer(v, f->cs, f->rip);
	iret_done(v);
}

static void iret_to_v86(struct vcpu *v, const struct far_frame *f)
{
	/* In the order of the frame, above SS:ESP. */
	static const u8 order[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	u64 sp = v->r[R_RSP] + 3 * 4;
	u16 sel[ARRAY_SIZE(order)], ss;
	unsigned int n;
	u32 esp;

	esp = (u32)stack_read(v, sp, 4);
	ss = (u16)stack_read(v, sp + 4, 4);
	for (n = 0; n < ARRAY_SIZE(order); n++)
		sel[n] = (u16)stack_read(v, sp + 8 + 4 * n, 4);
	if ((u32)f->rip > 0xffff)
		raise_gp(v, 0);
	iret_flags(v, f, 0, 3);
	v->rflags |= RFLAGS_VM;
	for (n = 0; n < ARRAY_SIZE(order); n++)
		segment_set_v86(&v->seg[order[n]], sel[n]);
	segment_set_v86(&v->seg[SEG_CS], f->cs);
	segment_set_v86(&v->seg[SEG_SS], ss);
	v->r[R_RSP] = esp;
	v->r[R_RIP] = f->rip;
	vcpu_update_mode(v);
	iret_done(v);
}

static void iret_task(struct vcpu *v, u64 next)
{
	u16 link = (u16)sys_read(v, v->seg[SEG_TR].base, 2);

	if (vcpu_long_mode(v))
		raise_gp(v, 0);
	task_switch(v, link, TASK_IRET, false, 0, next);
	iret_done(v);
	debug_take_pending(v);
}

static void iret_protected(struct vcpu *v, struct far_frame *f)
{
	unsigned int cpl = v->cpl, iopl = iopl_of(v);
	u64 sp = v->r[R_RSP] + 3 * f->opsize;
	struct segment cs, ss;
	/* 64-bit mode always pops SS:RSP. SDM 3A 6.14.3 */
	bool stack = vcpu_64bit(v) || sel_rpl(f->cs) > cpl;

	frame_check_code(v, &cs, f);
	if (stack) {
		f->rsp = stack_read(v, sp, f->opsize);
		f->ss = (u16)stack_read(v, sp + f->opsize, f->opsize);
		frame_check_stack(v, &ss, &cs, f);
	}
	iret_flags(v, f, cpl, iopl);
	if (stack) {
		frame_commit_outer(v, &cs, &ss, f);
	} else {
		stack_set(v, sp);
		far_commit(v, &cs, f->rip);
	}
	iret_done(v);
}

void far_iret(struct vcpu *v, unsigned int opsize, u64 next)
{
	u64 sp = v->r[R_RSP];
	struct far_frame f = { .opsize = opsize };

	if (vcpu_v86(v) && iopl_of(v) < 3)
		raise_gp(v, 0);
	if (!real_addressing(v) && v->rflags & RFLAGS_NT) {
		iret_task(v, next);
		return;
	}
	f.rip = stack_read(v, sp, opsize);
	f.cs = (u16)stack_read(v, sp + opsize, opsize);
	f.rflags = stack_read(v, sp + 2 * opsize, opsize);
	if (real_addressing(v))
		iret_real(v, &f);
	else if (opsize == 4 && f.rflags & RFLAGS_VM && v->cpl == 0 && !vcpu_long_mode(v))
		iret_to_v86(v, &f);
	else
		iret_protected(v, &f);
}
