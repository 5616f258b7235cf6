/*
 * Shifts and rotates. SDM 2B SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD. The count is masked to 5
 * bits, 6 with a 64-bit operand; a count of zero changes no flag. Results and flags that the manual
 * leaves undefined (counts beyond the width) are those of the host.
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"

#define ROT_FLAGS	(RFLAGS_CF | RFLAGS_OF)

static __always_inline_ void flags_set_some(struct vcpu *v, u32 ax, u64 some)
{
	v->rflags = (v->rflags & ~some) | (flags_from_ax(ax) & some);
}

#define SHIFT_REG(op, pre, sfx, d, n)						\
	({ u32 ax_;								\
	__asm__(pre op sfx " %%cl, %[d_]" FLAGS_TAKE				\
		: [d_] "+q"(d), "=&a"(ax_) : "c"(n), [f] "r"(v->rflags) : "cc");	\
	ax_; })

#define DEFINE_SHIFT_FORM(size, T, sfx, fn, op, pre, some, count)		\
static void fn##_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	u8 n = (u8)(count) & (size == 8 ? 63 : 31);				\
	T d = (T)gpr_get(v, i->rm, size);					\
										\
	if (n)									\
		flags_set_some(v, SHIFT_REG(op, pre, sfx, d, n), some);		\
	gpr_set(v, i->rm, size, d);						\
}										\
static void fn##_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	u8 n = (u8)(count) & (size == 8 ? 63 : 31);				\
	void *p = mem_ptr(v, i->seg, insn_ea(v, i), size, MEM_WRITE);		\
	T d = (T)(p ? mem_load(p, size) : rmw_slow_load(v, i, size));		\
	u32 ax = 0;								\
										\
	if (n)									\
		ax = SHIFT_REG(op, pre, sfx, d, n);				\
	if (likely(p))								\
		mem_store(p, size, d);						\
	else									\
		insn_store(v, i, size, d);					\
	if (n)									\
		flags_set_some(v, ax, some);					\
}
#define DEFINE_SHIFT(size, T, sfx, name, pre, some)				\
DEFINE_SHIFT_FORM(size, T, sfx, name##_EI, #name, pre, some, i->imm)		\
DEFINE_SHIFT_FORM(size, T, sfx, name##_EC, #name, pre, some, v->r[R_RCX])
#define SHIFT(name, pre, some)							\
EACH_SIZE(DEFINE_SHIFT, name, pre, some)					\
const struct exec_set x_##name##_EI = SET_ALL(name##_EI);			\
const struct exec_set x_##name##_EC = SET_ALL(name##_EC);

SHIFT(rol, "", ROT_FLAGS)
SHIFT(ror, "", ROT_FLAGS)
SHIFT(rcl, FLAGS_GIVE_CF, ROT_FLAGS)
SHIFT(rcr, FLAGS_GIVE_CF, ROT_FLAGS)
SHIFT(shl, "", RFLAGS_ARITH)
SHIFT(shr, "", RFLAGS_ARITH)
SHIFT(sar, "", RFLAGS_ARITH)

/* ---- SHLD, SHRD ------------------------------------------------------------------------------ */

#define DOUBLE_REG(op, sfx, d, s, n)						\
	({ u32 ax_;								\
	__asm__(op sfx " %%cl, %[s_], %[d_]" FLAGS_TAKE				\
		: [d_] "+r"(d), "=&a"(ax_) : [s_] "r"(s), "c"(n) : "cc");	\
	ax_; })

#define DEFINE_DOUBLE_FORM(size, T, sfx, fn, op, count)				\
static void fn##_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	u8 n = (u8)(count) & (size == 8 ? 63 : 31);				\
	T s = (T)gpr_get(v, i->reg, size);					\
	T d = (T)gpr_get(v, i->rm, size);					\
										\
	if (n)									\
		flags_set(v, DOUBLE_REG(op, sfx, d, s, n));			\
	gpr_set(v, i->rm, size, d);						\
}										\
static void fn##_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	u8 n = (u8)(count) & (size == 8 ? 63 : 31);				\
	T s = (T)gpr_get(v, i->reg, size);					\
	void *p = mem_ptr(v, i->seg, insn_ea(v, i), size, MEM_WRITE);		\
	T d = (T)(p ? mem_load(p, size) : rmw_slow_load(v, i, size));		\
	u32 ax = 0;								\
										\
	if (n)									\
		ax = DOUBLE_REG(op, sfx, d, s, n);				\
	if (likely(p))								\
		mem_store(p, size, d);						\
	else									\
		insn_store(v, i, size, d);					\
	if (n)									\
		flags_set(v, ax);						\
}
#define DEFINE_DOUBLE(size, T, sfx, name)					\
DEFINE_DOUBLE_FORM(size, T, sfx, name##_EGI, #name, i->imm)			\
DEFINE_DOUBLE_FORM(size, T, sfx, name##_EGC, #name, v->r[R_RCX])
EACH_WIDE(DEFINE_DOUBLE, shld)
EACH_WIDE(DEFINE_DOUBLE, shrd)
const struct exec_set x_shld_EGI = SET_WIDE(shld_EGI);
const struct exec_set x_shld_EGC = SET_WIDE(shld_EGC);
const struct exec_set x_shrd_EGI = SET_WIDE(shrd_EGI);
const struct exec_set x_shrd_EGC = SET_WIDE(shrd_EGC);
