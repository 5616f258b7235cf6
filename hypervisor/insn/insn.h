/*
 * A decoded instruction and how it is executed.
 *
 * The decoder turns bytes into a struct insn once; the interpreter then only calls insn->exec(v,
 * insn). General-purpose register operands are stored as byte offsets into v->r (so AH is 1 and RBX
 * is 24): one add reaches any of them. Vector, segment, control and debug registers are plain
 * numbers. Base and index are indexes into v->r, with R_ZERO for "none" and R_RIP for RIP-relative
 * (the instruction's length is already in disp).
 *
 * The handler's contract:
 *  - v->r[R_RIP] is the address of this instruction. The interpreter adds insn->len after exec
 *    returns, except for rows with ATTR_BRANCH, whose handlers always set R_RIP themselves.
 *  - All accesses that can fault come before any change of architectural state; then a fault (which
 *    unwinds and never returns, x86/vcpu.h) leaves exactly the state before the instruction.
 *  - A repeated string instruction commits registers after each element (or run of elements), calls
 *    io_log_clear(v), and where it is to stop before RCX is zero (v->kick is set, or v->step: after
 *    one element), calls vcpu_unwind(v, UNWIND_RESTART) with R_RIP still at the instruction.
 *  - The CPUID feature, LOCK, and mode validity were checked by the decoder; a CPL or CR bit is
 *    checked by the handler.
 */
#ifndef QUMRA_HYPERVISOR_INSN_INSN_H
#define QUMRA_HYPERVISOR_INSN_INSN_H

#include "hypervisor/x86/mem.h"

struct insn;
typedef void insn_fn(struct vcpu *v, const struct insn *i);

/* insn.flags */
enum {
	I_MEM	= 1 << 0,	/* ModRM (or moffs, or string) operand is in memory */
	I_LOCK	= 1 << 1,
	I_REP	= 1 << 2,	/* F3, also where it is a mandatory prefix */
	I_REPNE	= 1 << 3,	/* F2, also where it is a mandatory prefix */
	I_66	= 1 << 4,	/* operand-size prefix was there */
	I_REX	= 1 << 5,	/* any REX prefix */
	I_W	= 1 << 6,	/* REX.W, VEX.W, EVEX.W */
	I_VEX	= 1 << 7,	/* EVEX, too */
	I_L	= 1 << 8,	/* VEX.L: 256 bits */
	I_SEG	= 1 << 9,	/* a segment override was given */
	I_MODRM	= 1 << 10,
	I_BRANCH = 1 << 11,	/* ATTR_BRANCH of the row: the handler sets RIP */
	I_END	= 1 << 12,	/* ends a block */
	I_NATIVE = 1 << 13,	/* runs in a stub on the host CPU (insn/native.c) */
	I_CROSS	= 1 << 14,	/* its bytes lie in two pages */
	I_EVEX	= 1 << 15,
};

/* insn.evex: the prefix's last byte without V'. SDM 2A figure 2-11 */
enum {
	EVEX_K	= 7,		/* the mask register, or 0: none */
	EVEX_B	= 1 << 4,	/* broadcast, rounding, SAE */
	EVEX_LL	= 3 << 5,	/* length, or rounding mode */
	EVEX_Z	= 1 << 7,	/* what is not selected becomes zero */
	EVEX_LL_SHIFT = 5,
};

struct insn {
	insn_fn *exec;
	/*
	 * Immediate, sign-extended; near branch: displacement; far pointer: offset, with the
	 * selector in imm2; moffs: the offset.
	 */
	u64 imm;
	s32 disp;
	u8 len;
	u8 reg;		/* ModRM.reg operand */
	/* ModRM.rm operand in register form; also the register of opcode & 7 forms */
	u8 rm;
	u8 vvvv;	/* VEX.vvvv: GPR byte offset for BMI rows, else a vector register number */
	u8 base, index, scale;	/* scale is a shift: 0 to 3 */
	u8 seg;		/* enum segreg of the memory operand, default resolved */
	u8 opsize;	/* 1, 2, 4, 8: width of the general-purpose operation */
	u8 asize;	/* 2, 4, 8 */
	u16 row;	/* opcode_row(row): the table row (insn/opcode.h) */
	u16 flags;	/* I_* */
	/* far pointer's selector, ENTER's level, second immediate of EXTRQ/INSERTQ */
	union { u16 imm2, evex; };
	/* I_NATIVE: the stub's offset, set when the instruction enters the code cache */
	u32 aux;
};
_Static_assert(sizeof(struct insn) == 40, "a decoded instruction is small");

/*
 * Handlers of one operation by operand width and place: fn[log2(size)] for a register operand,
 * fn[4 + log2(size)] for one in memory. NULL: no such form (#UD).
 */
struct exec_set {
	insn_fn *fn[8];
};

enum decode_result {
	DECODE_OK,
	DECODE_MORE = -1,	/* the bytes end before the instruction does */
	DECODE_UD = -2,		/* #UD; insn->len is still right where it can be known, else 1 */
	DECODE_LONG = -3,	/* over 15 bytes: #GP(0). SDM 2A 2.3.11 */
};

/*
 * Decodes one instruction from bytes[0 .. avail). code_bytes: 2, 4, 8 as v->code_bytes. No guest
 * state is looked at: rows that exist for the mode decode whatever CPUID says. The caller then
 * compares the row's feature with v->guest_features.
 */
#define DECODE_ROOM	48	/* with so many bytes or more nothing is copied */
enum decode_result insn_decode(const u8 *bytes, unsigned int avail, unsigned int code_bytes,
	struct insn *out);

/* Length of its vectors: 16, 32, 64. Rounding and SAE are there with 64 only. SDM 2A table 2-36 */
static inline unsigned int insn_vector_bytes(const struct insn *i)
{
	if (likely(!(i->flags & I_EVEX)))
		return i->flags & I_L ? 32 : 16;
	if (i->evex & EVEX_B && !(i->flags & I_MEM))
		return 64;
	return 16u << (i->evex >> EVEX_LL_SHIFT & 3);
}

/* ---- operand access, for handlers ------------------------------------------------------------ */

static __always_inline_ u64 insn_ea(const struct vcpu *v, const struct insn *i)
{
	u64 ea = v->r[i->base] + (v->r[i->index] << i->scale) + (u64)(s64)i->disp;

	if (i->asize == 8)
		return ea;
	return i->asize == 4 ? (u32)ea : (u16)ea;
}

static __always_inline_ void *gpr_ptr(struct vcpu *v, unsigned int off)
{
	return (char *)v->r + off;
}

/* Zero-extended value of a register operand; size is a constant at most call sites. */
static __always_inline_ u64 gpr_get(struct vcpu *v, unsigned int off, unsigned int size)
{
	const char *p = (const char *)v->r + off;

	switch (size) {
	case 1: return *(const u8 *)p;
	case 2: return *(const u16 *)p;
	case 4: return *(const u32 *)p;
	default: return *(const u64 *)p;
	}
}

/* As the CPU writes: 1 and 2 bytes keep the rest, 4 bytes clear the upper half. SDM 1 3.4.1.1 */
static __always_inline_ void gpr_set(struct vcpu *v, unsigned int off, unsigned int size, u64 val)
{
	char *p = (char *)v->r + off;

	switch (size) {
	case 1: *(u8 *)p = (u8)val; break;
	case 2: *(u16 *)p = (u16)val; break;
	case 4: *(u64 *)p = (u32)val; break;
	default: *(u64 *)p = val; break;
	}
}

/* The instruction's memory operand. */
static __always_inline_ u64 insn_load(struct vcpu *v, const struct insn *i, unsigned int size)
{
	return mem_read(v, i->seg, insn_ea(v, i), size);
}

static __always_inline_ void insn_store(struct vcpu *v, const struct insn *i, unsigned int size,
	u64 val)
{
	mem_write(v, i->seg, insn_ea(v, i), size, val);
}

/* far.c: the memory operand of a far CALL or JMP, LDS and its kin; opsize of the offset, as it is there. */
struct far_pointer {
	u64 off;
	u16 sel;
	unsigned int opsize;
};
struct far_pointer far_pointer_load(struct vcpu *v, const struct insn *i);

/* SS:[RSP - n], SS:[RSP + n] with the stack's width. */
static __always_inline_ u64 stack_read(struct vcpu *v, u64 sp, unsigned int size)
{
	return mem_read(v, SEG_SS, sp & v->stack_mask, size);
}

static __always_inline_ void stack_write(struct vcpu *v, u64 sp, unsigned int size, u64 val)
{
	mem_write(v, SEG_SS, sp & v->stack_mask, size, val);
}

/* RSP, ESP or SP := sp; the bits above the stack's width stay. */
static __always_inline_ void stack_set(struct vcpu *v, u64 sp)
{
	v->r[R_RSP] = (v->r[R_RSP] & ~v->stack_mask) | (sp & v->stack_mask);
}

/* The accesses made so far are final: a restart begins after them. */
static __always_inline_ void io_log_clear(struct vcpu *v)
{
	v->io.done = 0;
	v->io.next = 0;
}

/*
 * A taken near branch: checks the limit or canonicality (#GP(0)), then sets RIP. The last thing a
 * handler does. insn/control.c
 */
void branch_to(struct vcpu *v, u64 rip);

#endif
