/*
 * Near transfers of control. SDM 2 Jcc, JMP, CALL, RET, LOOP. All of them set RIP; the target is
 * checked before anything is written.
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"

/* #GP(0) for a RIP that cannot be fetched from. */
static __always_inline_ void check_target(struct vcpu *v, u64 rip)
{
	if (vcpu_64bit(v)) {
		if (unlikely((u64)((s64)(rip << 16) >> 16) != rip))
			raise_gp(v, 0);
	} else if (unlikely(rip > v->seg[SEG_CS].limit)) {
		raise_gp(v, 0);
	}
}

void branch_to(struct vcpu *v, u64 rip)
{
	check_target(v, rip);
	v->r[R_RIP] = rip;
}

static __always_inline_ u64 rip_cut(const struct insn *i, u64 rip)
{
	if (likely(i->opsize == 8))
		return rip;
	return i->opsize == 4 ? (u32)rip : (u16)rip;
}

static __always_inline_ u64 rip_next(const struct vcpu *v, const struct insn *i)
{
	return (v->r[R_RIP] + i->len) & v->rip_mask;
}

static __always_inline_ void branch_if(struct vcpu *v, const struct insn *i, bool taken)
{
	if (taken)
		branch_to(v, rip_cut(i, v->r[R_RIP] + i->len + i->imm));
	else
		v->r[R_RIP] = rip_next(v, i);
}

#define DEFINE_JCC(cc)								\
static void jcc##cc(struct vcpu *v, const struct insn *i)			\
{										\
	branch_if(v, i, flags_test(v->rflags, cc));				\
}
EACH_CC(DEFINE_JCC)
#define JCC_ROW(cc)	jcc##cc,
insn_fn *const exec_jcc[16] = { EACH_CC(JCC_ROW) };

void exec_jmp_rel(struct vcpu *v, const struct insn *i)
{
	branch_if(v, i, true);
}

static __always_inline_ void call_to(struct vcpu *v, const struct insn *i, u64 rip)
{
	u64 sp = v->r[R_RSP] - i->opsize;

	check_target(v, rip);
	stack_write(v, sp, i->opsize, v->r[R_RIP] + i->len);
	stack_set(v, sp);
	v->r[R_RIP] = rip;
}

void exec_call_rel(struct vcpu *v, const struct insn *i)
{
	call_to(v, i, rip_cut(i, v->r[R_RIP] + i->len + i->imm));
}

void exec_ret(struct vcpu *v, const struct insn *i)
{
	u64 rip = stack_read(v, v->r[R_RSP], i->opsize);

	check_target(v, rip);
	stack_set(v, v->r[R_RSP] + i->opsize + (u16)i->imm);
	v->r[R_RIP] = rip;
}

#define DEFINE_INDIRECT(size, T, sfx, unused)					\
static void jmp_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	branch_to(v, gpr_get(v, i->rm, size));					\
}										\
static void jmp_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	branch_to(v, insn_load(v, i, size));					\
}										\
static void call_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	call_to(v, i, gpr_get(v, i->rm, size));					\
}										\
static void call_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	call_to(v, i, insn_load(v, i, size));					\
}
EACH_WIDE(DEFINE_INDIRECT, 0)
const struct exec_set x_jmp_E = SET_WIDE(jmp);
const struct exec_set x_call_E = SET_WIDE(call);

/* ---- LOOP, JCXZ: the counter's width is the address size ------------------------------------- */

static void loop_if(struct vcpu *v, const struct insn *i, bool more)
{
	u64 n = gpr_get(v, R_RCX * 8, i->asize) - 1;
	u64 old = v->r[R_RCX];

	gpr_set(v, R_RCX * 8, i->asize, n);
	if (!more || !gpr_get(v, R_RCX * 8, i->asize)) {
		v->r[R_RIP] = rip_next(v, i);
		return;
	}
	n = v->r[R_RCX];
	v->r[R_RCX] = old;	/* in case the target faults */
	check_target(v, rip_cut(i, v->r[R_RIP] + i->len + i->imm));
	v->r[R_RCX] = n;
	v->r[R_RIP] = rip_cut(i, v->r[R_RIP] + i->len + i->imm);
}

void exec_loop(struct vcpu *v, const struct insn *i)
{
	loop_if(v, i, true);
}

void exec_loope(struct vcpu *v, const struct insn *i)
{
	loop_if(v, i, v->rflags & RFLAGS_ZF);
}

void exec_loopne(struct vcpu *v, const struct insn *i)
{
	loop_if(v, i, !(v->rflags & RFLAGS_ZF));
}

void exec_jcxz(struct vcpu *v, const struct insn *i)
{
	branch_if(v, i, !gpr_get(v, R_RCX * 8, i->asize));
}

/* Signed comparison with the two bounds in memory. */
void exec_bound(struct vcpu *v, const struct insn *i)
{
	unsigned int cut = 64 - 8 * i->opsize;
	u64 ea = insn_ea(v, i);
	s64 low = (s64)(mem_read(v, i->seg, ea, i->opsize) << cut) >> cut;
	s64 high = (s64)(mem_read(v, i->seg, mem_wrap(v, ea + i->opsize), i->opsize) << cut) >> cut;
	s64 x = (s64)(gpr_get(v, i->reg, i->opsize) << cut) >> cut;

	if (x < low || x > high)
		vcpu_raise(v, VEC_BR, 0);
}
