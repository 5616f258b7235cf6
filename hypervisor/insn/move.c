/*
 * Moves, conversions, flag bits, decimal adjustments. SDM 2. Decimal adjustments follow the
 * manual's pseudo-code: they do not exist in 64-bit mode, so the host cannot run them for us.
 */
#include "hypervisor/core/vm.h"
#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/flags.h"
#include "hypervisor/x86/system.h"

/* ---- MOV, LEA -------------------------------------------------------------------------------- */

#define DEFINE_MOV(size, T, sfx, unused)					\
static void mov_EG_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->rm, size, gpr_get(v, i->reg, size));			\
}										\
static void mov_EG_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	insn_store(v, i, size, gpr_get(v, i->reg, size));			\
}										\
static void mov_GE_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->reg, size, gpr_get(v, i->rm, size));			\
}										\
static void mov_GE_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->reg, size, insn_load(v, i, size));			\
}										\
static void mov_EI_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->rm, size, i->imm);					\
}										\
static void mov_EI_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	insn_store(v, i, size, i->imm);						\
}										\
static void mov_AO_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, R_RAX * 8, size, mem_read(v, i->seg, i->imm, size));		\
}										\
static void mov_OA_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	mem_write(v, i->seg, i->imm, size, gpr_get(v, R_RAX * 8, size));	\
}										\
static void lea_m##size(struct vcpu *v, const struct insn *i)			\
{										\
	gpr_set(v, i->reg, size, insn_ea(v, i));				\
}
EACH_SIZE(DEFINE_MOV, 0)
const struct exec_set x_mov_EG = SET_ALL(mov_EG);
const struct exec_set x_mov_GE = SET_ALL(mov_GE);
const struct exec_set x_mov_EI = SET_ALL(mov_EI);
const struct exec_set x_mov_AO = SET_MEM(mov_AO);
const struct exec_set x_mov_OA = SET_MEM(mov_OA);
const struct exec_set x_lea_G = SET_MEM(lea);

/* ---- MOVZX, MOVSX, MOVSXD -------------------------------------------------------------------- */

#define DEFINE_EXTEND(size, T, sfx, name, S, from)				\
static void name##_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->reg, size, (u64)(s64)(S)gpr_get(v, i->rm, from));		\
}										\
static void name##_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	gpr_set(v, i->reg, size, (u64)(s64)(S)insn_load(v, i, from));		\
}
EACH_WIDE(DEFINE_EXTEND, movzxb, u8, 1)
EACH_WIDE(DEFINE_EXTEND, movzxw, u16, 2)
EACH_WIDE(DEFINE_EXTEND, movsxb, s8, 1)
EACH_WIDE(DEFINE_EXTEND, movsxw, s16, 2)
DEFINE_EXTEND(4, u32, "l", movsxd, s32, 4)
DEFINE_EXTEND(8, u64, "q", movsxd, s32, 4)
/*
 * MOVSXD to a 16-bit register reads 32 bits of memory on AMD (APM 3 MOVSXD), 16 on Intel (SDM 2B).
 */
DEFINE_EXTEND(2, u16, "w", movsxd, s32, 4)
const struct exec_set x_movzxb_GE = SET_WIDE(movzxb), x_movzxw_GE = SET_WIDE(movzxw);
const struct exec_set x_movsxb_GE = SET_WIDE(movsxb), x_movsxw_GE = SET_WIDE(movsxw);
const struct exec_set x_movsxd_GE = SET_WIDE(movsxd);

/* ---- CMOVcc, SETcc --------------------------------------------------------------------------- */

/* The source is read, and a 32-bit destination's upper half cleared, whatever the condition. */
#define DEFINE_CMOV_SIZE(size, cc)						\
static void cmov##cc##_r##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 d = gpr_get(v, flags_test(v->rflags, cc) ? i->rm : i->reg, size);	\
										\
	gpr_set(v, i->reg, size, d);						\
}										\
static void cmov##cc##_m##size(struct vcpu *v, const struct insn *i)		\
{										\
	u64 s = insn_load(v, i, size);						\
										\
	gpr_set(v, i->reg, size, flags_test(v->rflags, cc) ? s : gpr_get(v, i->reg, size));	\
}
#define DEFINE_CC(cc)								\
DEFINE_CMOV_SIZE(2, cc)								\
DEFINE_CMOV_SIZE(4, cc)								\
DEFINE_CMOV_SIZE(8, cc)								\
static void set##cc##_r1(struct vcpu *v, const struct insn *i)			\
{										\
	gpr_set(v, i->rm, 1, flags_test(v->rflags, cc));			\
}										\
static void set##cc##_m1(struct vcpu *v, const struct insn *i)			\
{										\
	insn_store(v, i, 1, flags_test(v->rflags, cc));				\
}
EACH_CC(DEFINE_CC)
#define CMOV_ROW(cc)	SET_WIDE(cmov##cc),
#define SET_ROW(cc)	{ { set##cc##_r1, NULL, NULL, NULL, set##cc##_m1 } },
const struct exec_set x_cmov_GE[16] = { EACH_CC(CMOV_ROW) };
const struct exec_set x_set_E[16] = { EACH_CC(SET_ROW) };

/* ---- segment registers ----------------------------------------------------------------------- */

/* To memory always 16 bits; to a register zero-extended to its width. */
void exec_mov_from_sreg(struct vcpu *v, const struct insn *i)
{
	u16 sel = v->seg[i->reg].sel;

	if (i->flags & I_MEM)
		insn_store(v, i, 2, sel);
	else
		gpr_set(v, i->rm, i->opsize, sel);
}

void exec_mov_to_sreg(struct vcpu *v, const struct insn *i)
{
	u16 sel = (u16)(i->flags & I_MEM ? insn_load(v, i, 2) : gpr_get(v, i->rm, 2));

	segment_load(v, i->reg, sel);
	if (i->reg == SEG_SS) {
		v->irq_shadow = true;
		v->mov_ss_shadow = true;
	}
	vcpu_update_mode(v);
}

static void load_far_pointer(struct vcpu *v, const struct insn *i, enum segreg s)
{
	struct far_pointer p = far_pointer_load(v, i);

	segment_load(v, s, p.sel);
	gpr_set(v, i->reg, p.opsize, p.off);
	vcpu_update_mode(v);
}

void exec_les(struct vcpu *v, const struct insn *i)
{
	load_far_pointer(v, i, SEG_ES);
}

void exec_lds(struct vcpu *v, const struct insn *i)
{
	load_far_pointer(v, i, SEG_DS);
}

void exec_lss(struct vcpu *v, const struct insn *i)
{
	load_far_pointer(v, i, SEG_SS);
}

void exec_lfs(struct vcpu *v, const struct insn *i)
{
	load_far_pointer(v, i, SEG_FS);
}

void exec_lgs(struct vcpu *v, const struct insn *i)
{
	load_far_pointer(v, i, SEG_GS);
}

/* ---- accumulator, flags ---------------------------------------------------------------------- */

void exec_cbw(struct vcpu *v, const struct insn *i)
{
	unsigned int half = 4 * i->opsize;
	u64 a = v->r[R_RAX] << (64 - half);

	gpr_set(v, R_RAX * 8, i->opsize, (u64)((s64)a >> (64 - half)));
}

void exec_cwd(struct vcpu *v, const struct insn *i)
{
	u64 a = v->r[R_RAX] << (64 - 8 * i->opsize);

	gpr_set(v, R_RDX * 8, i->opsize, (u64)((s64)a >> 63));
}

void exec_xlat(struct vcpu *v, const struct insn *i)
{
	u64 ea = v->r[R_RBX] + (u8)v->r[R_RAX];

	if (i->asize != 8)
		ea = i->asize == 4 ? (u32)ea : (u16)ea;
	gpr_set(v, 0, 1, mem_read(v, i->seg, ea, 1));
}

void exec_lahf(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, 1, 1, (v->rflags & 0xd5) | RFLAGS_FIXED);
}

void exec_sahf(struct vcpu *v, const struct insn *i)
{
	v->rflags = (v->rflags & ~0xd5ULL) | (gpr_get(v, 1, 1) & 0xd5);
}

void exec_salc(struct vcpu *v, const struct insn *i)
{
	gpr_set(v, 0, 1, v->rflags & RFLAGS_CF ? 0xff : 0);
}

void exec_clc(struct vcpu *v, const struct insn *i)
{
	v->rflags &= ~RFLAGS_CF;
}

void exec_stc(struct vcpu *v, const struct insn *i)
{
	v->rflags |= RFLAGS_CF;
}

void exec_cmc(struct vcpu *v, const struct insn *i)
{
	v->rflags ^= RFLAGS_CF;
}

void exec_cld(struct vcpu *v, const struct insn *i)
{
	v->rflags &= ~RFLAGS_DF;
}

void exec_std(struct vcpu *v, const struct insn *i)
{
	v->rflags |= RFLAGS_DF;
}

/* ---- decimal and ASCII adjustments ----------------------------------------------------------- */

/* SF, ZF and PF of AL, with CF and AF as given; OF as the host leaves it after OR: clear. */
static void flags_of_al(struct vcpu *v, bool cf, bool af)
{
	u8 al = (u8)v->r[R_RAX];
	u32 ax;

	__asm__("orb %1, %1" FLAGS_TAKE : "=&a"(ax) : "q"(al) : "cc");
	flags_set(v, ax);
	v->rflags &= ~(RFLAGS_CF | RFLAGS_AF);
	v->rflags |= (cf ? RFLAGS_CF : 0) | (af ? RFLAGS_AF : 0);
}

static void ascii_adjust(struct vcpu *v, int sign)
{
	u16 ax = (u16)v->r[R_RAX];
	bool adjust = (ax & 15) > 9 || (v->rflags & RFLAGS_AF);

	if (adjust)
		ax = (u16)(ax + sign * 0x106);
	gpr_set(v, 0, 2, ax & 0xff0f);
	flags_of_al(v, adjust, adjust);
}

void exec_aaa(struct vcpu *v, const struct insn *i)
{
	ascii_adjust(v, 1);
}

void exec_aas(struct vcpu *v, const struct insn *i)
{
	ascii_adjust(v, -1);
}

void exec_aam(struct vcpu *v, const struct insn *i)
{
	u8 base = (u8)i->imm;
	u8 al = (u8)v->r[R_RAX];

	if (!base)
		vcpu_raise(v, VEC_DE, 0);
	gpr_set(v, 0, 2, (u16)((al / base) << 8 | al % base));
	flags_of_al(v, false, false);
}

void exec_aad(struct vcpu *v, const struct insn *i)
{
	u16 ax = (u16)v->r[R_RAX];

	gpr_set(v, 0, 2, (u8)((ax & 0xff) + (ax >> 8) * (u8)i->imm));
	flags_of_al(v, false, false);
}

static void decimal_adjust(struct vcpu *v, bool sub)
{
	u8 old = (u8)v->r[R_RAX];
	u8 al = old;
	bool af = (old & 15) > 9 || (v->rflags & RFLAGS_AF);
	bool cf = old > 0x99 || (v->rflags & RFLAGS_CF);
	bool carry = cf;

	if (af) {
		/* DAS: a borrow of this step alone sets CF too. SDM 2A DAS */
		carry = carry || (sub && old < 6);
		al = (u8)(sub ? al - 6 : al + 6);
	}
	if (cf)
		al = (u8)(sub ? al - 0x60 : al + 0x60);
	gpr_set(v, 0, 1, al);
	flags_of_al(v, carry, af);
}

void exec_daa(struct vcpu *v, const struct insn *i)
{
	decimal_adjust(v, false);
}

void exec_das(struct vcpu *v, const struct insn *i)
{
	decimal_adjust(v, true);
}

/* ---- nothing --------------------------------------------------------------------------------- */

void exec_nop(struct vcpu *v, const struct insn *i)
{
}

/*
 * Whoever the guest waits for may be another vCPU that this host has no CPU for at the moment. 500
 * barriers of four vCPUs on two busy host CPUs take 5 s without yielding, 100 ms with 1024, 40 ms
 * with 128, 15 ms with 32. That many take about 2 us, a yield to nobody 0.3 us.
 */
#define PAUSES_PER_YIELD	32

void exec_pause(struct vcpu *v, const struct insn *i)
{
	__asm__ volatile("pause");
	if (++v->pauses % PAUSES_PER_YIELD || load_acquire(&v->vm->nr_vcpus) == 1)
		return;
	/* Behind flushed translations nothing goes on that was compared with them: once more. */
	if (pv_yield(v))
		vcpu_unwind(v, UNWIND_RESTART);
}

/* RDTSC behind LFENCE waits for what came before it, as no locked instruction makes it do. SDM 2B LFENCE */
void exec_fence(struct vcpu *v, const struct insn *i)
{
	__asm__ volatile("mfence; lfence" ::: "memory");
}

void exec_ud(struct vcpu *v, const struct insn *i)
{
	raise_ud(v);
}
