/*
 * The stack: PUSH, POP and their kin, ENTER, LEAVE. SDM 2, SDM 1 6.2. A push stores first and moves
 * RSP after, so that a fault leaves RSP alone.
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"
#include "hypervisor/x86/system.h"

static __always_inline_ void push(struct vcpu *v, unsigned int size, u64 val)
{
	u64 sp = v->r[R_RSP] - size;

	stack_write(v, sp, size, val);
	stack_set(v, sp);
}

/* POP to memory computes its address with RSP already moved. SDM 2B POP */
#define DEFINE_STACK(size, T, sfx, unused)					\
static void push_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	push(v, size, gpr_get(v, i->rm, size));					\
}										\
static void push_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	push(v, size, insn_load(v, i, size));					\
}										\
static void pushi_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	push(v, size, i->imm);							\
}										\
static void pop_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	u64 val = stack_read(v, v->r[R_RSP], size);				\
										\
	stack_set(v, v->r[R_RSP] + size);					\
	gpr_set(v, i->rm, size, val);						\
}										\
static void pop_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	u64 rsp = v->r[R_RSP];							\
	u64 val = stack_read(v, rsp, size);					\
	u64 ea;									\
										\
	stack_set(v, rsp + size);						\
	ea = insn_ea(v, i);							\
	v->r[R_RSP] = rsp;							\
	mem_write(v, i->seg, ea, size, val);					\
	stack_set(v, rsp + size);						\
}
EACH_WIDE(DEFINE_STACK, 0)
const struct exec_set x_push_E = SET_WIDE(push);
const struct exec_set x_pop_E = SET_WIDE(pop);
const struct exec_set x_push_I = SET_REG(pushi);

void exec_push_sreg(struct vcpu *v, const struct insn *i)
{
	push(v, i->opsize, v->seg[i->reg].sel);
}

void exec_pop_sreg(struct vcpu *v, const struct insn *i)
{
	u64 rsp = v->r[R_RSP];
	u64 mask = v->stack_mask;
	u16 sel = (u16)stack_read(v, rsp, i->opsize);

	segment_load(v, i->reg, sel);
	v->r[R_RSP] = (rsp & ~mask) | ((rsp + i->opsize) & mask);
	if (i->reg == SEG_SS) {
		v->irq_shadow = true;
		v->mov_ss_shadow = true;
	}
	vcpu_update_mode(v);
}

void exec_pusha(struct vcpu *v, const struct insn *i)
{
	unsigned int n = i->opsize;
	u64 sp = v->r[R_RSP];

	/*
	 * All of it must be writable before any is written; the span may wrap, so probe by element.
	 */
	for (unsigned int k = 1; k <= 8; k++)
		mem_probe(v, SEG_SS, (sp - k * n) & v->stack_mask, n, MEM_WRITE);
	for (unsigned int k = 0; k < 8; k++)
		stack_write(v, sp - (k + 1) * n, n, gpr_get(v, k * 8, n));
	stack_set(v, sp - 8 * n);
}

void exec_popa(struct vcpu *v, const struct insn *i)
{
	unsigned int n = i->opsize;
	u64 sp = v->r[R_RSP];
	u64 val[8];

	for (unsigned int k = 0; k < 8; k++)
		val[k] = stack_read(v, sp + k * n, n);
	for (unsigned int k = 0; k < 8; k++)
		if (7 - k != R_RSP)
			gpr_set(v, (7 - k) * 8, n, val[k]);
	stack_set(v, sp + 8 * n);
}

static unsigned int iopl(const struct vcpu *v)
{
	return (v->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
}

void exec_pushf(struct vcpu *v, const struct insn *i)
{
	if (vcpu_v86(v) && iopl(v) < 3)
		raise_gp(v, 0);
	push(v, i->opsize, v->rflags & ~(RFLAGS_VM | RFLAGS_RF));
}

/* What POPF may change by privilege. SDM 2B table 4-15 */
void exec_popf(struct vcpu *v, const struct insn *i)
{
	u64 can = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
	u64 val;

	if (vcpu_v86(v) && iopl(v) < 3)
		raise_gp(v, 0);
	if (i->opsize != 2)
		can |= RFLAGS_AC | RFLAGS_ID;
	if (v->cpl <= iopl(v) || vcpu_real(v))
		can |= RFLAGS_IF;
	if (v->cpl == 0 && !vcpu_v86(v))
		can |= RFLAGS_IOPL;
	val = stack_read(v, v->r[R_RSP], i->opsize);
	stack_set(v, v->r[R_RSP] + i->opsize);
	if (i->opsize != 2)
		v->rflags &= ~RFLAGS_RF;
	v->rflags = (v->rflags & ~can) | (val & can) | RFLAGS_FIXED;
	vcpu_update_mode(v);
}

/*
 * SDM 2A ENTER. The frame pointer's width follows the stack's. A fault halfway leaves what was pushed
 * below RSP, as on the CPU; run again, it is written again.
 */
void exec_enter(struct vcpu *v, const struct insn *i)
{
	unsigned int n = i->opsize;
	unsigned int level = i->imm2 & 31;
	u64 sp = v->r[R_RSP] - n;
	u64 frame = sp;
	u64 bp = v->r[R_RBP];
	u64 size = (u16)i->imm;

	stack_write(v, sp, n, bp);
	/* Old and new frame may overlap: each link is read after the one before was written. */
	for (unsigned int k = 1; k < level; k++) {
		sp -= n;
		stack_write(v, sp, n, stack_read(v, bp - k * n, n));
	}
	if (level) {
		sp -= n;
		stack_write(v, sp, n, frame & v->stack_mask);
	}
	/* The new top of the stack must be writable too. */
	mem_probe(v, SEG_SS, (sp - size) & v->stack_mask, n, MEM_WRITE);
	gpr_set(v, R_RBP * 8, n, frame);
	stack_set(v, sp - size);
}

void exec_leave(struct vcpu *v, const struct insn *i)
{
	u64 bp = v->r[R_RBP];
	u64 val = stack_read(v, bp, i->opsize);

	stack_set(v, bp + i->opsize);
	gpr_set(v, R_RBP * 8, i->opsize, val);
}
