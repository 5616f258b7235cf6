/*
 * Arithmetic flags. An operation runs on the host's ALU and its flags are taken from there,
 * undefined ones too, so that a guest sees what this CPU would give. LAHF and SETO are one cheap
 * operation each; PUSHF costs nine on Zen.
 */
#ifndef QUMRA_HYPERVISOR_INSN_FLAGS_H
#define QUMRA_HYPERVISOR_INSN_FLAGS_H

#include "hypervisor/core/vm.h"
#include "hypervisor/insn/insn.h"

/* Follows an instruction in an asm statement whose eax output is early-clobbered. */
#define FLAGS_TAKE	"\n\tlahf\n\tseto %%al"
/* Before one: the host's CF := bit 0 of operand f; all arithmetic flags from f (through AX). */
#define FLAGS_GIVE_CF	"btl $0, %k[f]\n\t"

static __always_inline_ u64 flags_from_ax(u32 ax)
{
	return ((ax >> 8) & 0xd5) | ((u64)(ax & 1) << 11);
}

static __always_inline_ void flags_set(struct vcpu *v, u32 ax)
{
	v->rflags = (v->rflags & ~RFLAGS_ARITH) | flags_from_ax(ax);
}

/* INC and DEC leave CF. */
static __always_inline_ void flags_set_but_cf(struct vcpu *v, u32 ax)
{
	u64 keep = ~RFLAGS_ARITH | RFLAGS_CF;

	v->rflags = (v->rflags & keep) | (flags_from_ax(ax) & ~keep);
}

/* For an operation that leaves the flags alone. */
static __always_inline_ void flags_leave(struct vcpu *v, u32 ax)
{
}

static __always_inline_ void flags_set_zf(struct vcpu *v, bool zf)
{
	v->rflags = (v->rflags & ~RFLAGS_ZF) | (zf ? RFLAGS_ZF : 0);
}

/* X(cc) for each condition code. */
#define EACH_CC(X)								\
	X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)					\
	X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* Condition codes by their encoding. SDM 1 appendix B. Folds to a test when cc is constant. */
static __always_inline_ bool flags_test(u64 fl, unsigned int cc)
{
	bool less = ((fl >> 7) ^ (fl >> 11)) & 1;
	bool r;

	switch (cc >> 1) {
	case 0: r = fl & RFLAGS_OF; break;
	case 1: r = fl & RFLAGS_CF; break;
	case 2: r = fl & RFLAGS_ZF; break;
	case 3: r = fl & (RFLAGS_CF | RFLAGS_ZF); break;
	case 4: r = fl & RFLAGS_SF; break;
	case 5: r = fl & RFLAGS_PF; break;
	case 6: r = less; break;
	default: r = less || (fl & RFLAGS_ZF); break;
	}
	return r ^ (cc & 1);
}

/*
 * Read-modify-write of a memory operand that is not plain memory in one page. The write is probed
 * first, so that the read has no effect where the write would fault.
 */
static inline u64 rmw_slow_load(struct vcpu *v, const struct insn *i, unsigned int size)
{
	mem_probe(v, i->seg, insn_ea(v, i), size, MEM_WRITE);
	return insn_load(v, i, size);
}

/* The operand at ea, or NULL: then rmw_begin(), which for one that is locked looks at cache lines, too. */
static inline void *rmw_ptr(struct vcpu *v, const struct insn *i, u64 ea, unsigned int size, bool lock)
{
	if (unlikely(lock && READ_ONCE(v->vm->bus_lock_exits)))
		return NULL;
	return mem_ptr(v, i->seg, ea, size, MEM_WRITE);
}

/* The same by pointer, for one host instruction on it; then mem_rmw_end(). */
static inline void *rmw_begin(struct vcpu *v, const struct insn *i, struct mem_rmw *m,
	unsigned int size)
{
	return mem_rmw_begin(v, m, i->seg, insn_ea(v, i), size, i->flags & I_LOCK);
}

/* X(size, type, suffix) for each operand width. */
#define EACH_SIZE(X, ...)		\
	X(1, u8, "b", __VA_ARGS__)	\
	X(2, u16, "w", __VA_ARGS__)	\
	X(4, u32, "l", __VA_ARGS__)	\
	X(8, u64, "q", __VA_ARGS__)
#define EACH_WIDE(X, ...)		\
	X(2, u16, "w", __VA_ARGS__)	\
	X(4, u32, "l", __VA_ARGS__)	\
	X(8, u64, "q", __VA_ARGS__)

/* { reg 1 2 4 8, mem 1 2 4 8 } of handlers named n_r1 ... n_m8. */
#define SET_ALL(n)	{ { n##_r1, n##_r2, n##_r4, n##_r8, n##_m1, n##_m2, n##_m4, n##_m8 } }
#define SET_WIDE(n)	{ { NULL, n##_r2, n##_r4, n##_r8, NULL, n##_m2, n##_m4, n##_m8 } }
#define SET_48(n)	{ { NULL, NULL, n##_r4, n##_r8, NULL, NULL, n##_m4, n##_m8 } }
#define SET_REG(n)	{ { NULL, n##_r2, n##_r4, n##_r8 } }
#define SET_MEM(n)	{ { NULL, NULL, NULL, NULL, n##_m1, n##_m2, n##_m4, n##_m8 } }
#define SET_MEM_WIDE(n)	{ { NULL, NULL, NULL, NULL, NULL, n##_m2, n##_m4, n##_m8 } }

#endif
