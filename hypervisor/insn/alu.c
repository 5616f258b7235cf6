/*
 * Integer arithmetic and logic: two-operand and one-operand groups, multiply, divide, exchange. SDM
 * 2. Each operation is one host instruction (insn/flags.h). A plain memory operand is changed in
 * place, with the guest's own LOCK prefix; anything else (MMIO, page crossing, decoded code) is
 * loaded, changed and stored.
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"

/* ---- add or adc sbb and sub xor -------------------------------------------------------------- */

#define BIN_ON_REG(op, pre, sfx, d, s)						\
	({ u32 ax_;								\
	__asm__(pre op sfx " %[s_], %[d_]" FLAGS_TAKE				\
		: [d_] "+q"(d), "=&a"(ax_) : [s_] "q"(s), [f] "r"(v->rflags) : "cc");	\
	ax_; })

#define BIN_ON_MEM(op, pre, lock, sfx, p, s)					\
	({ u32 ax_;								\
	__asm__ volatile(pre lock op sfx " %[s_], %[d_]" FLAGS_TAKE		\
		: [d_] "+m"(*(p)), "=&a"(ax_) : [s_] "q"(s), [f] "r"(v->rflags) : "cc", "memory"); \
	ax_; })

/* Destination in memory; src is the T-typed source expression. */
#define DEFINE_BIN_M(size, T, sfx, fn, op, pre, src)				\
static void fn##_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	T s = (T)(src);								\
	T *p = rmw_ptr(v, i, insn_ea(v, i), size, i->flags & I_LOCK);		\
	u32 ax;									\
										\
	if (unlikely(!p)) {							\
		struct mem_rmw m;						\
										\
		p = rmw_begin(v, i, &m, size);					\
		ax = BIN_ON_MEM(op, pre, "lock ", sfx, p, s);			\
		mem_rmw_end(v, &m);						\
	} else if (i->flags & I_LOCK) {						\
		ax = BIN_ON_MEM(op, pre, "lock ", sfx, p, s);			\
	} else {								\
		ax = BIN_ON_MEM(op, pre, "", sfx, p, s);			\
	}									\
	flags_set(v, ax);							\
}

#define DEFINE_BIN_R(size, T, sfx, fn, op, pre, dst, src)			\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T d = (T)gpr_get(v, dst, size);						\
	u32 ax = BIN_ON_REG(op, pre, sfx, d, s);				\
										\
	gpr_set(v, dst, size, d);						\
	flags_set(v, ax);							\
}

#define DEFINE_BIN(size, T, sfx, name, op, pre)					\
DEFINE_BIN_R(size, T, sfx, name##_EG_r##size, op, pre, i->rm, gpr_get(v, i->reg, size))	\
DEFINE_BIN_R(size, T, sfx, name##_EI_r##size, op, pre, i->rm, i->imm)		\
DEFINE_BIN_R(size, T, sfx, name##_GE_r##size, op, pre, i->reg, gpr_get(v, i->rm, size))	\
DEFINE_BIN_R(size, T, sfx, name##_GE_m##size, op, pre, i->reg, insn_load(v, i, size))	\
DEFINE_BIN_M(size, T, sfx, name##_EG, op, pre, gpr_get(v, i->reg, size))	\
DEFINE_BIN_M(size, T, sfx, name##_EI, op, pre, i->imm)

#define BINARY(name, pre)							\
EACH_SIZE(DEFINE_BIN, name, #name, pre)						\
const struct exec_set x_##name##_EG = SET_ALL(name##_EG);			\
const struct exec_set x_##name##_GE = SET_ALL(name##_GE);			\
const struct exec_set x_##name##_EI = SET_ALL(name##_EI);

BINARY(add, "")
BINARY(or, "")
BINARY(adc, FLAGS_GIVE_CF)
BINARY(sbb, FLAGS_GIVE_CF)
BINARY(and, "")
BINARY(sub, "")
BINARY(xor, "")

/* ---- cmp, test ------------------------------------------------------------------------------- */

#define DEFINE_CMP(size, T, sfx, fn, op, a, b)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T d = (T)(a);								\
	T s = (T)(b);								\
	u32 ax;									\
										\
	__asm__(op sfx " %2, %1" FLAGS_TAKE : "=&a"(ax) : "q"(d), "q"(s) : "cc");	\
	flags_set(v, ax);							\
}

#define DEFINE_COMPARE(size, T, sfx, name, op)					\
DEFINE_CMP(size, T, sfx, name##_EG_r##size, op,					\
	gpr_get(v, i->rm, size), gpr_get(v, i->reg, size))			\
DEFINE_CMP(size, T, sfx, name##_EG_m##size, op,					\
	insn_load(v, i, size), gpr_get(v, i->reg, size))			\
DEFINE_CMP(size, T, sfx, name##_EI_r##size, op, gpr_get(v, i->rm, size), i->imm)	\
DEFINE_CMP(size, T, sfx, name##_EI_m##size, op, insn_load(v, i, size), i->imm)

EACH_SIZE(DEFINE_COMPARE, cmp, "cmp")
EACH_SIZE(DEFINE_COMPARE, test, "test")
#define DEFINE_CMP_GE(size, T, sfx, unused)					\
DEFINE_CMP(size, T, sfx, cmp_GE_r##size, "cmp",					\
	gpr_get(v, i->reg, size), gpr_get(v, i->rm, size))			\
DEFINE_CMP(size, T, sfx, cmp_GE_m##size, "cmp", gpr_get(v, i->reg, size), insn_load(v, i, size))
EACH_SIZE(DEFINE_CMP_GE, 0)

const struct exec_set x_cmp_EG = SET_ALL(cmp_EG);
const struct exec_set x_cmp_GE = SET_ALL(cmp_GE);
const struct exec_set x_cmp_EI = SET_ALL(cmp_EI);
const struct exec_set x_test_EG = SET_ALL(test_EG);
const struct exec_set x_test_EI = SET_ALL(test_EI);

/* ---- inc dec not neg ------------------------------------------------------------------------- */

#define DEFINE_UNARY(size, T, sfx, name, op, take)				\
static void name##_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	T d = (T)gpr_get(v, i->rm, size);					\
	u32 ax;									\
										\
	__asm__(op sfx " %0" FLAGS_TAKE : "+q"(d), "=&a"(ax) : : "cc");		\
	gpr_set(v, i->rm, size, d);						\
	take(v, ax);								\
}										\
static void name##_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	T *p = rmw_ptr(v, i, insn_ea(v, i), size, i->flags & I_LOCK);		\
	u32 ax;									\
										\
	if (unlikely(!p)) {							\
		struct mem_rmw m;						\
										\
		p = rmw_begin(v, i, &m, size);					\
		__asm__ volatile("lock " op sfx " %0" FLAGS_TAKE		\
			: "+m"(*p), "=&a"(ax) : : "cc", "memory");		\
		mem_rmw_end(v, &m);						\
	} else if (i->flags & I_LOCK) {						\
		__asm__ volatile("lock " op sfx " %0" FLAGS_TAKE		\
			: "+m"(*p), "=&a"(ax) : : "cc", "memory");		\
	} else {								\
		__asm__ volatile(op sfx " %0" FLAGS_TAKE			\
			: "+m"(*p), "=&a"(ax) : : "cc", "memory");		\
	}									\
	take(v, ax);								\
}

EACH_SIZE(DEFINE_UNARY, inc, "inc", flags_set_but_cf)
EACH_SIZE(DEFINE_UNARY, dec, "dec", flags_set_but_cf)
EACH_SIZE(DEFINE_UNARY, neg, "neg", flags_set)
EACH_SIZE(DEFINE_UNARY, not, "not", flags_leave)
const struct exec_set x_inc_E = SET_ALL(inc);
const struct exec_set x_dec_E = SET_ALL(dec);
const struct exec_set x_neg_E = SET_ALL(neg);
const struct exec_set x_not_E = SET_ALL(not);

/* ---- mul, imul ------------------------------------------------------------------------------- */

/* The 8-bit form puts the product in AX, the others in rDX:rAX. */
#define DEFINE_MUL8(fn, op, src)						\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	u8 s = (u8)(src);							\
	u16 prod = (u8)v->r[R_RAX];						\
	u16 fl;									\
										\
	__asm__(op "b %2\n\tmovw %%ax, %1" "\n\tlahf\n\tseto %%al\n\txchgw %%ax, %1"	\
		: "+a"(prod), "=&r"(fl) : "q"(s) : "cc");			\
	gpr_set(v, 0, 2, prod);							\
	flags_set(v, fl);							\
}
DEFINE_MUL8(mul_r1, "mul", gpr_get(v, i->rm, 1))
DEFINE_MUL8(mul_m1, "mul", insn_load(v, i, 1))
DEFINE_MUL8(imul_r1, "imul", gpr_get(v, i->rm, 1))
DEFINE_MUL8(imul_m1, "imul", insn_load(v, i, 1))

#define DEFINE_MULW(size, T, sfx, fn, op, src)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T lo = (T)v->r[R_RAX];							\
	T hi;									\
	u8 cf;									\
										\
	__asm__(op sfx " %3" : "+a"(lo), "=d"(hi), "=@ccc"(cf) : "r"(s));	\
	gpr_set(v, R_RAX * 8, size, lo);					\
	gpr_set(v, R_RDX * 8, size, hi);					\
	v->rflags = (v->rflags & ~(RFLAGS_CF | RFLAGS_OF)) | (cf ? RFLAGS_CF | RFLAGS_OF : 0);	\
}
#define DEFINE_MULS(size, T, sfx, name)						\
DEFINE_MULW(size, T, sfx, name##_r##size, #name, gpr_get(v, i->rm, size))	\
DEFINE_MULW(size, T, sfx, name##_m##size, #name, insn_load(v, i, size))
EACH_WIDE(DEFINE_MULS, mul)
EACH_WIDE(DEFINE_MULS, imul)
const struct exec_set x_mul_E = SET_ALL(mul);
const struct exec_set x_imul_E = SET_ALL(imul);

#define DEFINE_IMUL2(size, T, sfx, fn, a, b)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T d = (T)(a);								\
	T s = (T)(b);								\
	u8 cf;									\
										\
	__asm__("imul" sfx " %2, %0" : "+r"(d), "=@ccc"(cf) : "r"(s));		\
	gpr_set(v, i->reg, size, d);						\
	v->rflags = (v->rflags & ~(RFLAGS_CF | RFLAGS_OF)) | (cf ? RFLAGS_CF | RFLAGS_OF : 0);	\
}
#define DEFINE_IMULS(size, T, sfx, unused)					\
DEFINE_IMUL2(size, T, sfx, imul_GE_r##size, gpr_get(v, i->reg, size), gpr_get(v, i->rm, size))	\
DEFINE_IMUL2(size, T, sfx, imul_GE_m##size, gpr_get(v, i->reg, size), insn_load(v, i, size))	\
DEFINE_IMUL2(size, T, sfx, imul_GEI_r##size, gpr_get(v, i->rm, size), i->imm)	\
DEFINE_IMUL2(size, T, sfx, imul_GEI_m##size, insn_load(v, i, size), i->imm)
EACH_WIDE(DEFINE_IMULS, 0)
const struct exec_set x_imul_GE = SET_WIDE(imul_GE);
const struct exec_set x_imul_GEI = SET_WIDE(imul_GEI);

/* ---- div, idiv ------------------------------------------------------------------------------- */

/* hi:lo / d in bits of 8 * size, or #DE. Nothing was written before. */
static __always_inline_ void div_unsigned(struct vcpu *v, u64 hi, u64 lo, u64 d, unsigned int size,
	u64 *quot, u64 *rem)
{
	if (unlikely(hi >= d))	/* also d == 0: the quotient does not fit */
		vcpu_raise(v, VEC_DE, 0);
	if (size == 8) {
		__asm__("divq %4" : "=a"(*quot), "=d"(*rem) : "0"(lo), "1"(hi), "r"(d) : "cc");
	} else {
		u64 n = (hi << (8 * size)) | lo;

		*quot = n / d;
		*rem = n % d;
	}
}

static __always_inline_ void div_signed(struct vcpu *v, u64 hi, u64 lo, u64 d, unsigned int size,
	u64 *quot, u64 *rem)
{
	unsigned int bits = 8 * size;
	u64 mask = size == 8 ? ~0ULL : BIT(bits) - 1;
	bool nneg = (hi >> (bits - 1)) & 1;
	bool dneg = (d >> (bits - 1)) & 1;
	u64 limit;

	if (nneg) {	/* hi:lo = -hi:lo */
		lo = -lo & mask;
		hi = (~hi + (lo == 0)) & mask;
	}
	if (dneg)
		d = -d & mask;
	div_unsigned(v, hi, lo, d, size, quot, rem);
	limit = BIT(bits - 1) - (nneg == dneg);
	if (unlikely(*quot > limit))
		vcpu_raise(v, VEC_DE, 0);
	if (nneg != dneg)
		*quot = -*quot;
	if (nneg)
		*rem = -*rem;
}

#define DEFINE_DIV8(fn, kind, src)						\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	u64 s = (u8)(src);							\
	u64 q, r;								\
										\
	kind(v, (u8)(v->r[R_RAX] >> 8), (u8)v->r[R_RAX], s, 1, &q, &r);		\
	gpr_set(v, 0, 2, (q & 0xff) | (r & 0xff) << 8);				\
}
#define DEFINE_DIVW(size, T, fn, kind, src)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	u64 s = (T)(src);							\
	u64 q, r;								\
										\
	kind(v, (T)v->r[R_RDX], (T)v->r[R_RAX], s, size, &q, &r);		\
	gpr_set(v, R_RAX * 8, size, q);						\
	gpr_set(v, R_RDX * 8, size, r);						\
}
#define DEFINE_DIVS(size, T, sfx, name, kind)					\
DEFINE_DIVW(size, T, name##_r##size, kind, gpr_get(v, i->rm, size))		\
DEFINE_DIVW(size, T, name##_m##size, kind, insn_load(v, i, size))
DEFINE_DIV8(div_r1, div_unsigned, gpr_get(v, i->rm, 1))
DEFINE_DIV8(div_m1, div_unsigned, insn_load(v, i, 1))
DEFINE_DIV8(idiv_r1, div_signed, gpr_get(v, i->rm, 1))
DEFINE_DIV8(idiv_m1, div_signed, insn_load(v, i, 1))
EACH_WIDE(DEFINE_DIVS, div, div_unsigned)
EACH_WIDE(DEFINE_DIVS, idiv, div_signed)
const struct exec_set x_div_E = SET_ALL(div);
const struct exec_set x_idiv_E = SET_ALL(idiv);

/* ---- xchg, xadd, cmpxchg --------------------------------------------------------------------- */

/* With memory XCHG is locked, prefix or not. */
#define DEFINE_XCHG(size, T, sfx, unused)					\
static void xchg_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	u64 a = gpr_get(v, i->rm, size);					\
	u64 b = gpr_get(v, i->reg, size);					\
										\
	gpr_set(v, i->rm, size, b);						\
	gpr_set(v, i->reg, size, a);						\
}										\
static void xchg_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	T s = (T)gpr_get(v, i->reg, size);					\
	T *p = rmw_ptr(v, i, insn_ea(v, i), size, true);			\
										\
	if (likely(p)) {							\
		__asm__ volatile("xchg" sfx " %0, %1" : "+m"(*p), "+q"(s) : : "memory");	\
	} else {								\
		struct mem_rmw m;						\
										\
		p = mem_rmw_begin(v, &m, i->seg, insn_ea(v, i), size, true);	\
		__asm__ volatile("xchg" sfx " %0, %1" : "+m"(*p), "+q"(s) : : "memory");	\
		mem_rmw_end(v, &m);						\
	}									\
	gpr_set(v, i->reg, size, s);						\
}
EACH_SIZE(DEFINE_XCHG, 0)
const struct exec_set x_xchg_EG = SET_ALL(xchg);

#define DEFINE_XADD(size, T, sfx, unused)					\
static void xadd_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	T s = (T)gpr_get(v, i->reg, size);					\
	T d = (T)gpr_get(v, i->rm, size);					\
	T old = d;								\
	u32 ax = BIN_ON_REG("add", "", sfx, d, s);				\
										\
	gpr_set(v, i->reg, size, old);						\
	gpr_set(v, i->rm, size, d);						\
	flags_set(v, ax);							\
}										\
static void xadd_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	T s = (T)gpr_get(v, i->reg, size);					\
	T *p = rmw_ptr(v, i, insn_ea(v, i), size, i->flags & I_LOCK);		\
	u32 ax;									\
										\
	if (unlikely(!p)) {							\
		struct mem_rmw m;						\
										\
		p = rmw_begin(v, i, &m, size);					\
		__asm__ volatile("lock xadd" sfx " %1, %0" FLAGS_TAKE		\
			: "+m"(*p), "+q"(s), "=&a"(ax) : : "cc", "memory");	\
		mem_rmw_end(v, &m);						\
	} else if (i->flags & I_LOCK) {						\
		__asm__ volatile("lock xadd" sfx " %1, %0" FLAGS_TAKE		\
			: "+m"(*p), "+q"(s), "=&a"(ax) : : "cc", "memory");	\
	} else {								\
		__asm__ volatile("xadd" sfx " %1, %0" FLAGS_TAKE		\
			: "+m"(*p), "+q"(s), "=&a"(ax) : : "cc", "memory");	\
	}									\
	gpr_set(v, i->reg, size, s);						\
	flags_set(v, ax);							\
}
EACH_SIZE(DEFINE_XADD, 0)
const struct exec_set x_xadd_EG = SET_ALL(xadd);

/*
 * The comparison is of the accumulator with the destination. A failed one writes the destination's
 * value to the accumulator (with 32 bits and success RAX keeps its upper half; with failure it is
 * cleared).
 */
#define DEFINE_CMPXCHG(size, T, sfx, unused)					\
static void cmpxchg_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	T a = (T)v->r[R_RAX];							\
	T s = (T)gpr_get(v, i->reg, size);					\
	T d = (T)gpr_get(v, i->rm, size);					\
	u32 ax;									\
										\
	__asm__("cmp" sfx " %2, %1" FLAGS_TAKE : "=&a"(ax) : "q"(a), "q"(d) : "cc");	\
	if (a == d)								\
		gpr_set(v, i->rm, size, s);					\
	else									\
		gpr_set(v, R_RAX * 8, size, d);					\
	flags_set(v, ax);							\
}										\
static void cmpxchg_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	T a = (T)v->r[R_RAX];							\
	T s = (T)gpr_get(v, i->reg, size);					\
	T *p = rmw_ptr(v, i, insn_ea(v, i), size, i->flags & I_LOCK);		\
	T d = a;								\
	u32 ax;									\
										\
	if (unlikely(!p)) {							\
		struct mem_rmw m;						\
										\
		p = rmw_begin(v, i, &m, size);					\
		__asm__ volatile("lock cmpxchg" sfx " %2, %0"			\
			: "+m"(*p), "+a"(d) : "q"(s) : "cc", "memory");		\
		mem_rmw_end(v, &m);						\
	} else if (i->flags & I_LOCK) {						\
		__asm__ volatile("lock cmpxchg" sfx " %2, %0"			\
			: "+m"(*p), "+a"(d) : "q"(s) : "cc", "memory");		\
	} else {								\
		__asm__ volatile("cmpxchg" sfx " %2, %0"			\
			: "+m"(*p), "+a"(d) : "q"(s) : "cc", "memory");		\
	}									\
	__asm__("cmp" sfx " %2, %1" FLAGS_TAKE : "=&a"(ax) : "q"(a), "q"(d) : "cc");	\
	if (a != d)								\
		gpr_set(v, R_RAX * 8, size, d);					\
	flags_set(v, ax);							\
}
EACH_SIZE(DEFINE_CMPXCHG, 0)
const struct exec_set x_cmpxchg_EG = SET_ALL(cmpxchg);

static u64 cmpxchg8b_at(u64 *p, u64 have, u64 put)
{
	__asm__ volatile("lock cmpxchgq %2, %0" : "+m"(*p), "+a"(have) : "r"(put) : "cc", "memory");
	return have;
}

void exec_cmpxchg8b(struct vcpu *v, const struct insn *i)
{
	u64 *p = rmw_ptr(v, i, insn_ea(v, i), 8, i->flags & I_LOCK);
	u64 want = (u32)v->r[R_RAX] | v->r[R_RDX] << 32;
	u64 put = (u32)v->r[R_RBX] | v->r[R_RCX] << 32;
	u64 have;

	if (likely(p)) {
		have = cmpxchg8b_at(p, want, put);
	} else {
		struct mem_rmw m;

		p = rmw_begin(v, i, &m, 8);
		have = cmpxchg8b_at(p, want, put);
		mem_rmw_end(v, &m);
	}
	if (have != want) {
		v->r[R_RAX] = (u32)have;
		v->r[R_RDX] = have >> 32;
	}
	flags_set_zf(v, have == want);
}

/* Compares with have[], which takes what was there. */
static bool cmpxchg16b_at(struct vcpu *v, void *p, u64 have[2])
{
	bool zf;

	__asm__ volatile("lock cmpxchg16b %0"
		: "+m"(*(u128 *)p), "+a"(have[0]), "+d"(have[1]), "=@ccz"(zf)
		: "b"(v->r[R_RBX]), "c"(v->r[R_RCX]) : "memory");
	return zf;
}

void exec_cmpxchg16b(struct vcpu *v, const struct insn *i)
{
	u64 ea = insn_ea(v, i);
	u64 have[2] = { v->r[R_RAX], v->r[R_RDX] };
	void *p;
	bool zf;

	if ((v->ebase[i->seg] + ea) & 15)
		raise_gp(v, 0);
	p = mem_ptr(v, i->seg, ea, 16, MEM_WRITE);
	if (likely(p)) {
		zf = cmpxchg16b_at(v, p, have);
	} else {
		struct mem_rmw m;

		p = rmw_begin(v, i, &m, 16);
		zf = cmpxchg16b_at(v, p, have);
		mem_rmw_end(v, &m);
	}
	if (!zf) {
		v->r[R_RAX] = have[0];
		v->r[R_RDX] = have[1];
	}
	flags_set_zf(v, zf);
}
