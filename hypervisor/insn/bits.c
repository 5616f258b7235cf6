/*
 * Bits: BT family, scans and counts, byte swaps, BMI1, BMI2, ADX, CRC32, random numbers. SDM 2, APM
 * 3. One host instruction each: a guest is offered only what the host has (x86/cpuid.c).
 */
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"

/* ---- BT, BTS, BTR, BTC ----------------------------------------------------------------------- */

static __always_inline_ void flags_set_cf(struct vcpu *v, bool cf)
{
	v->rflags = (v->rflags & ~RFLAGS_CF) | cf;
}

#define BIT_NEW(op, d, bit) \
	((op) == 's' ? (d) | (bit) : (op) == 'r' ? (d) & ~(bit) : (op) == 'c' ? (d) ^ (bit) : (d))

#define BIT_ATOMIC(op, p, bit)							\
	((op) == 's' ? __atomic_fetch_or(p, bit, __ATOMIC_SEQ_CST) :		\
	(op) == 'r' ? __atomic_fetch_and(p, (__typeof__(*(p)))~(bit), __ATOMIC_SEQ_CST) : \
	__atomic_fetch_xor(p, bit, __ATOMIC_SEQ_CST))

/* The operand at ea: bit n of it, changed by op (0: tested only). */
#define DEFINE_BT_AT(size, T, sfx, name, op)					\
static void name##_at##size(struct vcpu *v, const struct insn *i, u64 ea, unsigned int n)	\
{										\
	T bit = (T)((T)1 << n);							\
	T *p;									\
	T d;									\
										\
	if (!op) {								\
		flags_set_cf(v, mem_read(v, i->seg, ea, size) >> n & 1);	\
		return;								\
	}									\
	p = rmw_ptr(v, i, ea, size, i->flags & I_LOCK);				\
	if (unlikely(!p)) {							\
		struct mem_rmw m;						\
										\
		p = mem_rmw_begin(v, &m, i->seg, ea, size, i->flags & I_LOCK);	\
		d = BIT_ATOMIC(op, p, bit);					\
		mem_rmw_end(v, &m);						\
	} else if (i->flags & I_LOCK) {						\
		d = BIT_ATOMIC(op, p, bit);					\
	} else {								\
		d = (T)mem_load(p, size);					\
		mem_store(p, size, (T)BIT_NEW(op, d, bit));			\
	}									\
	flags_set_cf(v, d >> n & 1);						\
}

/*
 * A register index reaches outside the operand: it selects the word as well. SDM 2A BT, table 3-2
 */
#define DEFINE_BT(size, T, sfx, name, op)					\
DEFINE_BT_AT(size, T, sfx, name, op)						\
static void name##_reg##size(struct vcpu *v, const struct insn *i, unsigned int n)	\
{										\
	T d = (T)gpr_get(v, i->rm, size);					\
	T bit = (T)((T)1 << n);							\
										\
	if (op)									\
		gpr_set(v, i->rm, size, (T)BIT_NEW(op, d, bit));		\
	flags_set_cf(v, d >> n & 1);						\
}										\
static void name##_EG_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	name##_reg##size(v, i, gpr_get(v, i->reg, size) & (8 * size - 1));	\
}										\
static void name##_EI_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	name##_reg##size(v, i, i->imm & (8 * size - 1));			\
}										\
static void name##_EG_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 n = gpr_get(v, i->reg, size);					\
	s64 sn = (s64)(n << (64 - 8 * size)) >> (64 - 8 * size);		\
	u64 ea = insn_ea(v, i) + (u64)((sn >> __builtin_ctz(8 * size)) * size);	\
										\
	if (i->asize != 8)							\
		ea = i->asize == 4 ? (u32)ea : (u16)ea;				\
	name##_at##size(v, i, ea, n & (8 * size - 1));				\
}										\
static void name##_EI_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	name##_at##size(v, i, insn_ea(v, i), i->imm & (8 * size - 1));		\
}
#define BIT_TEST(name, op)							\
EACH_WIDE(DEFINE_BT, name, op)							\
const struct exec_set x_##name##_EG = SET_WIDE(name##_EG);			\
const struct exec_set x_##name##_EI = SET_WIDE(name##_EI);

BIT_TEST(bt, 0)
BIT_TEST(bts, 's')
BIT_TEST(btr, 'r')
BIT_TEST(btc, 'c')

/* ---- scans and counts ------------------------------------------------------------------------ */

/* The destination goes in as well: BSF and BSR of zero leave it. */
#define DEFINE_SCAN_FORM(size, T, sfx, fn, op, src)				\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T d = (T)gpr_get(v, i->reg, size);					\
	u32 ax;									\
										\
	__asm__(op sfx " %2, %0" FLAGS_TAKE : "+r"(d), "=&a"(ax) : "r"(s) : "cc");	\
	gpr_set(v, i->reg, size, d);						\
	flags_set(v, ax);							\
}
#define DEFINE_SCAN(size, T, sfx, name)						\
DEFINE_SCAN_FORM(size, T, sfx, name##_r##size, #name, gpr_get(v, i->rm, size))	\
DEFINE_SCAN_FORM(size, T, sfx, name##_m##size, #name, insn_load(v, i, size))
#define SCAN(name)								\
EACH_WIDE(DEFINE_SCAN, name)							\
const struct exec_set x_##name##_GE = SET_WIDE(name);
SCAN(tzcnt)
SCAN(lzcnt)
SCAN(popcnt)

/*
 * Of zero: the destination stays whole, upper half too (APM 3 BSF; every Intel CPU does the same).
 */
#define DEFINE_BS_FORM(size, T, sfx, fn, op, src)				\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T d = 0;								\
	u32 ax;									\
										\
	__asm__(op sfx " %2, %0" FLAGS_TAKE : "+r"(d), "=&a"(ax) : "r"(s) : "cc");	\
	if (s)									\
		gpr_set(v, i->reg, size, d);					\
	flags_set(v, ax);							\
}
#define DEFINE_BS(size, T, sfx, name)						\
DEFINE_BS_FORM(size, T, sfx, name##_r##size, #name, gpr_get(v, i->rm, size))	\
DEFINE_BS_FORM(size, T, sfx, name##_m##size, #name, insn_load(v, i, size))
EACH_WIDE(DEFINE_BS, bsf)
EACH_WIDE(DEFINE_BS, bsr)
const struct exec_set x_bsf_GE = SET_WIDE(bsf);
const struct exec_set x_bsr_GE = SET_WIDE(bsr);

/* ---- byte swaps ------------------------------------------------------------------------------ */

/* BSWAP of a 16-bit register is undefined; hardware gives zero. */
static void bswap_r2(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, i->rm, 2, 0);
}
static void bswap_r4(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, i->rm, 4, __builtin_bswap32((u32)gpr_get(v, i->rm, 4)));
}
static void bswap_r8(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, i->rm, 8, __builtin_bswap64(gpr_get(v, i->rm, 8)));
}
const struct exec_set x_bswap_E = SET_REG(bswap);

#define SWAP(size, x)	((x) = __builtin_bswap64(x) >> (64 - 8 * (size)))
#define DEFINE_MOVBE(size, T, sfx, unused)					\
static void movbe_GE_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 x = insn_load(v, i, size);						\
										\
	gpr_set(v, i->reg, size, SWAP(size, x));				\
}										\
static void movbe_EG_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 x = gpr_get(v, i->reg, size);					\
										\
	insn_store(v, i, size, SWAP(size, x));					\
}
EACH_WIDE(DEFINE_MOVBE, 0)
#define movbe_GE_m1 NULL
#define movbe_EG_m1 NULL
const struct exec_set x_movbe_GE = SET_MEM_WIDE(movbe_GE);
const struct exec_set x_movbe_EG = SET_MEM_WIDE(movbe_EG);

/* ---- CRC32, ADCX, ADOX ----------------------------------------------------------------------- */

#define DEFINE_CRC_FORM(size, T, sfx, fn, src)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	u64 d = (u32)gpr_get(v, i->reg, 4);					\
										\
	if (size == 8)								\
		__asm__("crc32q %1, %0" : "+r"(d) : "r"((u64)s));		\
	else									\
		__asm__("crc32" sfx " %1, %k0" : "+r"(d) : "q"(s));		\
	gpr_set(v, i->reg, i->flags & I_W ? 8 : 4, d);				\
}
#define DEFINE_CRC(size, T, sfx, unused)					\
DEFINE_CRC_FORM(size, T, sfx, crc32_r##size, gpr_get(v, i->rm, size))		\
DEFINE_CRC_FORM(size, T, sfx, crc32_m##size, insn_load(v, i, size))
EACH_SIZE(DEFINE_CRC, 0)
const struct exec_set x_crc32_GE = SET_ALL(crc32);

#define EACH_48(X, ...)	X(4, u32, __VA_ARGS__) X(8, u64, __VA_ARGS__)

#define DEFINE_ADCX_FORM(size, T, fn, flag, src)				\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T d = (T)gpr_get(v, i->reg, size);					\
	T sum;									\
	bool c1 = __builtin_add_overflow(d, s, &sum);				\
	bool c2 = __builtin_add_overflow(sum, (T)((v->rflags & flag) != 0), &sum);	\
										\
	gpr_set(v, i->reg, size, sum);						\
	v->rflags = (v->rflags & ~flag) | (c1 || c2 ? flag : 0);		\
}
#define DEFINE_ADCX(size, T, name, flag)					\
DEFINE_ADCX_FORM(size, T, name##_r##size, flag, gpr_get(v, i->rm, size))	\
DEFINE_ADCX_FORM(size, T, name##_m##size, flag, insn_load(v, i, size))
EACH_48(DEFINE_ADCX, adcx, RFLAGS_CF)
EACH_48(DEFINE_ADCX, adox, RFLAGS_OF)
const struct exec_set x_adcx_GE = SET_48(adcx);
const struct exec_set x_adox_GE = SET_48(adox);

/* ---- BMI1, BMI2 ------------------------------------------------------------------------------ */

/* dst = op(a, b) with flags; operand order as in the AT&T form "op b, a, dst". */
#define DEFINE_BMI3(size, T, fn, op, dst, a_, b_, set)				\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T a = (T)(a_);								\
	T b = (T)(b_);								\
	T d;									\
	u32 ax;									\
										\
	__asm__(op " %3, %2, %0" FLAGS_TAKE : "=&r"(d), "=&a"(ax) : "r"(a), "r"(b) : "cc");	\
	gpr_set(v, dst, size, d);						\
	set(v, ax);								\
}
#define VVVV(size)	gpr_get(v, i->vvvv, size)
#define RM(size)	gpr_get(v, i->rm, size)
#define MEM(size)	insn_load(v, i, size)

/* rm is the last source: ANDN, PDEP, PEXT. */
#define DEFINE_GVE(size, T, name, set)						\
DEFINE_BMI3(size, T, name##_r##size, #name, i->reg, VVVV(size), RM(size), set)	\
DEFINE_BMI3(size, T, name##_m##size, #name, i->reg, VVVV(size), MEM(size), set)
/* rm is the first source: BEXTR, BZHI, SARX, SHLX, SHRX. */
#define DEFINE_GEV(size, T, name, set)						\
DEFINE_BMI3(size, T, name##_r##size, #name, i->reg, RM(size), VVVV(size), set)	\
DEFINE_BMI3(size, T, name##_m##size, #name, i->reg, MEM(size), VVVV(size), set)
EACH_48(DEFINE_GVE, andn, flags_set)
EACH_48(DEFINE_GVE, pdep, flags_leave)
EACH_48(DEFINE_GVE, pext, flags_leave)
EACH_48(DEFINE_GEV, bextr, flags_set)
EACH_48(DEFINE_GEV, bzhi, flags_set)
EACH_48(DEFINE_GEV, sarx, flags_leave)
EACH_48(DEFINE_GEV, shlx, flags_leave)
EACH_48(DEFINE_GEV, shrx, flags_leave)
const struct exec_set x_andn_GVE = SET_48(andn);
const struct exec_set x_pdep_GVE = SET_48(pdep), x_pext_GVE = SET_48(pext);
const struct exec_set x_bextr_GEV = SET_48(bextr), x_bzhi_GEV = SET_48(bzhi);
const struct exec_set x_sarx_GEV = SET_48(sarx), x_shlx_GEV = SET_48(shlx);
const struct exec_set x_shrx_GEV = SET_48(shrx);

#define DEFINE_BMI2_FORM(size, T, fn, op, src)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	T s = (T)(src);								\
	T d;									\
	u32 ax;									\
										\
	__asm__(op " %2, %0" FLAGS_TAKE : "=&r"(d), "=&a"(ax) : "r"(s) : "cc");	\
	gpr_set(v, i->vvvv, size, d);						\
	flags_set(v, ax);							\
}
#define DEFINE_VE(size, T, name)						\
DEFINE_BMI2_FORM(size, T, name##_r##size, #name, RM(size))			\
DEFINE_BMI2_FORM(size, T, name##_m##size, #name, MEM(size))
EACH_48(DEFINE_VE, blsi)
EACH_48(DEFINE_VE, blsmsk)
EACH_48(DEFINE_VE, blsr)
const struct exec_set x_blsi_VE = SET_48(blsi), x_blsmsk_VE = SET_48(blsmsk);
const struct exec_set x_blsr_VE = SET_48(blsr);

/* High half to reg, low half to vvvv first: when they are the same register the high half stays. */
#define DEFINE_MULX_FORM(size, T, fn, src)					\
static void fn(struct vcpu *v, const struct insn *i)				\
{										\
	u128 prod = (u128)(T)v->r[R_RDX] * (T)(src);				\
										\
	gpr_set(v, i->vvvv, size, (T)prod);					\
	gpr_set(v, i->reg, size, (T)(prod >> (8 * size)));			\
}
#define DEFINE_MULX(size, T, unused)						\
DEFINE_MULX_FORM(size, T, mulx_r##size, RM(size))				\
DEFINE_MULX_FORM(size, T, mulx_m##size, MEM(size))				\
static void rorx_do##size(struct vcpu *v, const struct insn *i, T s)		\
{										\
	unsigned int n = i->imm & (8 * size - 1);				\
										\
	gpr_set(v, i->reg, size, n ? (T)(s >> n | s << (8 * size - n)) : s);	\
}										\
static void rorx_r##size(struct vcpu *v, const struct insn *i)			\
{										\
	rorx_do##size(v, i, (T)RM(size));					\
}										\
static void rorx_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	rorx_do##size(v, i, (T)MEM(size));					\
}
EACH_48(DEFINE_MULX, 0)
const struct exec_set x_mulx_GVE = SET_48(mulx), x_rorx_GEI = SET_48(rorx);

/* ---- RDRAND, RDSEED: CF says whether a number was there -------------------------------------- */

#define DEFINE_RANDOM(size, T, sfx, name)					\
static void name##_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	T d;									\
	u8 cf;									\
										\
	__asm__ volatile(#name " %0" : "=r"(d), "=@ccc"(cf));			\
	gpr_set(v, i->rm, size, d);						\
	v->rflags = (v->rflags & ~RFLAGS_ARITH) | cf;				\
}
EACH_WIDE(DEFINE_RANDOM, rdrand)
EACH_WIDE(DEFINE_RANDOM, rdseed)
const struct exec_set x_rdrand_E = SET_REG(rdrand);
const struct exec_set x_rdseed_E = SET_REG(rdseed);
