/*
 * The opcode table: what each instruction of the machine is. One row serves decoder, interpreter,
 * stub generator, flag liveness, tests and later the translator. SDM 2 appendix A, APM 3 appendix
 * A.
 *
 * Shape. Each map is rows[256][4]: the second index is the mandatory prefix (enum opcode_pfx).
 * Where ModRM, the mode or VEX.W choose further, a row is a link (sel, sub) into the table of
 * groups, whose octets have the same four columns. A column that is empty falls back on OPC_NP if
 * that row is neither ATTR_NATIVE nor ATTR_STRICT; then 66 is the operand size and F2/F3 mean
 * nothing. In a present F2 or F3 column, 66 is still the operand size.
 *
 * For the stub generator (insn/native.c): struct insn and its row say all that is needed to
 * encode the instruction again. opcode_where(insn->row) gives map, opcode byte, mandatory prefix
 * and what ModRM bits extend the opcode; row->op[] says what insn->reg, rm, vvvv are: byte
 * offsets into v->r for class CL_GPR, plain numbers for all others. I_L, I_W, imm come from the
 * insn.
 */
#ifndef QUMRA_HYPERVISOR_INSN_OPCODE_H
#define QUMRA_HYPERVISOR_INSN_OPCODE_H

#include "hypervisor/insn/insn.h"
#include "hypervisor/x86/cpuid.h"

/* Where an operand is encoded. */
enum operand_place {
	PL_NONE,	/* implied: nothing in struct insn */
	PL_REG,		/* ModRM.reg -> insn->reg */
	PL_RM,		/* ModRM.rm -> insn->rm, or memory (I_MEM) */
	PL_RMREG,	/* ModRM.rm -> insn->rm; mod is ignored (MOV CR/DR) */
	PL_U,		/* ModRM.rm -> insn->rm; memory form is #UD */
	PL_M,		/* memory; register form is #UD */
	PL_VSIB,	/* memory with a vector index: insn->index is a vector register's number */
	PL_VVVV,	/* VEX.vvvv -> insn->vvvv */
	PL_IS4,		/* vector register in imm[7:4] (stays in insn->imm) */
	PL_OPC,		/* opcode & 7 with REX.B -> insn->rm */
	PL_ACC,		/* insn->rm = AL, AX, EAX, RAX */
	PL_ACCREG,	/* insn->reg = the accumulator */
	PL_SEG,		/* insn->reg = the segment's number, by operand kind */
	PL_MOFFS,	/* memory at insn->imm */
	PL_SRC,		/* memory at seg:rSI (XLAT: seg:rBX) */
	PL_DST,		/* memory at ES:rDI */
	PL_IMM,		/* insn->imm, sign-extended unless the kind says otherwise */
	PL_IMMU,	/* insn->imm, zero-extended */
	PL_IMM2,	/* insn->imm2: a second byte */
	PL_REL,		/* insn->imm: displacement from the next instruction */
	PL_FAR,		/* insn->imm: offset, insn->imm2: selector */
	PL_ONE,		/* insn->imm = 1 */
};

enum operand_class {
	CL_NONE, CL_GPR, CL_VEC, CL_MMX, CL_X87, CL_SREG, CL_CR, CL_DR, CL_MEM, CL_IMM, CL_MASK,
};

/* Sizes; opcode_mem_size() turns them into bytes. */
enum operand_size {
	SZ_0,		/* none, or variable (XSAVE area) */
	SZ_B, SZ_W, SZ_D, SZ_Q, SZ_DQ, SZ_QQ,	/* 1 2 4 8 16 32 */
	SZ_T,		/* 10 */
	SZ_V,		/* 2, 4, 8: the operand size */
	SZ_Z,		/* 2, 4: the same, at most 4 */
	SZ_Y,		/* 4, 8: by W */
	SZ_M,		/* 4, 8: by the mode (MOV CR) */
	SZ_X,		/* 16, 32, 64: insn_vector_bytes() */
	SZ_XH, SZ_XQ, SZ_XE,	/* half, quarter, eighth of SZ_X */
	SZ_XD,		/* MOVDDUP: SZ_X, but 8 where that is 16 */
	SZ_F,		/* 4, 8: FMA scalars, by VEX.W */
	SZ_P,		/* far pointer: operand size + 2 */
	SZ_S,		/* descriptor-table register: 6, 10 */
	SZ_A,		/* BOUND: twice the operand size */
	SZ_C8,		/* CMPXCHG8B/16B */
	SZ_ENV,		/* x87 environment: 14, 28 */
	SZ_SAVE,	/* x87 state: 94, 108 */
	SZ_FX,		/* 512 */
};

/*
 * Operand kinds: KIND(name, place, class, size as register, size in memory). Letters as in the
 * manuals' appendix A: E/G/R/Z general, V/H/W/U vector, P/Q/N MMX, M memory, I immediate, J
 * relative, O moffs, X/Y string, S/C/D segment, control, debug registers, K opmask registers.
 */
#define OPERANDS(KIND) \
	KIND(Eb, RM, GPR, B, B) KIND(Ew, RM, GPR, W, W) KIND(Ed, RM, GPR, D, D) \
	KIND(Ev, RM, GPR, V, V) KIND(Ey, RM, GPR, Y, Y) KIND(En, RM, GPR, V, 0) \
	KIND(RvMw, RM, GPR, V, W) KIND(RdMb, RM, GPR, D, B) KIND(RdMw, RM, GPR, D, W) \
	KIND(Rv, U, GPR, V, 0) KIND(Ry, U, GPR, Y, 0) KIND(Rm, RMREG, GPR, M, 0) \
	KIND(Rq, U, GPR, M, 0) KIND(Gb, REG, GPR, B, 0) KIND(Gw, REG, GPR, W, 0) \
	KIND(Gd, REG, GPR, D, 0) KIND(Gv, REG, GPR, V, 0) KIND(Gy, REG, GPR, Y, 0) \
	KIND(Gm, REG, GPR, M, 0) KIND(Gcrc, REG, GPR, 0, 0) KIND(By, VVVV, GPR, Y, 0) \
	KIND(Zb, OPC, GPR, B, 0) KIND(Zv, OPC, GPR, V, 0) KIND(AL, ACC, GPR, B, 0) \
	KIND(AX, ACC, GPR, W, 0) KIND(rAX, ACC, GPR, V, 0) KIND(eAX, ACC, GPR, Z, 0) \
	KIND(rAXg, ACCREG, GPR, V, 0) KIND(CL, NONE, NONE, 0, 0) KIND(DX, NONE, NONE, 0, 0) \
	KIND(M, M, MEM, 0, 0) KIND(Mb, M, MEM, B, B) KIND(Mw, M, MEM, W, W) \
	KIND(Md, M, MEM, D, D) KIND(Mq, M, MEM, Q, Q) KIND(Mt, M, MEM, T, T) \
	KIND(Mdq, M, MEM, DQ, DQ) KIND(Mqq, M, MEM, QQ, QQ) KIND(Mx, M, MEM, X, X) \
	KIND(Mv, M, GPR, V, V) KIND(My, M, GPR, Y, Y) KIND(Mp, M, MEM, P, P) \
	KIND(Ms, M, MEM, S, S) KIND(Ma, M, MEM, A, A) KIND(Mc8, M, MEM, C8, C8) \
	KIND(Menv, M, MEM, ENV, ENV) KIND(Msave, M, MEM, SAVE, SAVE) KIND(Mfx, M, MEM, FX, FX) \
	KIND(Mvsib, VSIB, MEM, 0, 0) KIND(Ib, IMMU, IMM, B, 0) KIND(Ibs, IMM, IMM, B, 0) \
	KIND(Iw, IMMU, IMM, W, 0) KIND(Iz, IMM, IMM, Z, 0) KIND(Iv, IMM, IMM, V, 0) \
	KIND(I1, ONE, IMM, 0, 0) KIND(Ib2, IMM2, IMM, B, 0) KIND(Jb, REL, IMM, B, 0) \
	KIND(Jz, REL, IMM, Z, 0) KIND(Ap, FAR, IMM, P, 0) KIND(Ob, MOFFS, GPR, B, B) \
	KIND(Ov, MOFFS, GPR, V, V) KIND(Xb, SRC, GPR, B, B) KIND(Xv, SRC, GPR, V, V) \
	KIND(Xz, SRC, GPR, Z, Z) KIND(Yb, DST, GPR, B, B) KIND(Yv, DST, GPR, V, V) \
	KIND(Yz, DST, GPR, Z, Z) KIND(Sw, REG, SREG, W, 0) KIND(ES, SEG, SREG, W, 0) \
	KIND(CS, SEG, SREG, W, 0) KIND(SS, SEG, SREG, W, 0) KIND(DS, SEG, SREG, W, 0) \
	KIND(FS, SEG, SREG, W, 0) KIND(GS, SEG, SREG, W, 0) KIND(Cd, REG, CR, M, 0) \
	KIND(Dd, REG, DR, M, 0) KIND(Vx, REG, VEC, X, 0) KIND(Hx, VVVV, VEC, X, 0) \
	KIND(Ux, U, VEC, X, 0) KIND(Lx, IS4, VEC, X, 0) KIND(XMM0, NONE, NONE, 0, 0) \
	KIND(Wx, RM, VEC, X, X) KIND(Wh, RM, VEC, X, XH) KIND(Wqt, RM, VEC, X, XQ) \
	KIND(Wet, RM, VEC, X, XE) KIND(Wdup, RM, VEC, X, XD) KIND(Wb, RM, VEC, X, B) \
	KIND(Ww, RM, VEC, X, W) KIND(Wd, RM, VEC, X, D) KIND(Wq, RM, VEC, X, Q) \
	KIND(Wdq, RM, VEC, DQ, DQ) KIND(Wf, RM, VEC, X, F) KIND(Pq, REG, MMX, Q, 0) \
	KIND(Qd, RM, MMX, Q, D) KIND(Qq, RM, MMX, Q, Q) KIND(Nq, U, MMX, Q, 0) \
	KIND(ST0, NONE, NONE, 0, 0) KIND(STi, U, X87, T, 0) KIND(Rd, U, GPR, D, 0) \
	KIND(Wqq, RM, VEC, QQ, QQ) KIND(Mvd, VSIB, MEM, D, D) KIND(Mvq, VSIB, MEM, Q, Q) \
	KIND(KG, REG, MASK, Q, 0) KIND(KB, VVVV, MASK, Q, 0) KIND(KR, U, MASK, Q, 0) \
	KIND(KEb, RM, MASK, Q, B) KIND(KEw, RM, MASK, Q, W) KIND(KEd, RM, MASK, Q, D) \
	KIND(KEq, RM, MASK, Q, Q)

enum operand {
	OP_NONE,
#define OPERAND_ENUM(name, place, class, size, msize) OP_##name,
	OPERANDS(OPERAND_ENUM)
#undef OPERAND_ENUM
	NR_OPERANDS,
};

struct operand_info {
	u8 place, class, size, msize;
};
extern const struct operand_info operand_info[NR_OPERANDS];

enum {
	ATTR_LOCK	= 1 << 0,	/* LOCK is allowed with a memory destination */
	ATTR_D64	= 1 << 1,	/* 64-bit mode: operand size is 8, or 2 with 66 */
	ATTR_I64	= 1 << 2,	/* #UD in 64-bit mode */
	ATTR_O64	= 1 << 3,	/* #UD outside 64-bit mode */
	ATTR_BRANCH	= 1 << 4,	/* the handler sets RIP */
	ATTR_END	= 1 << 5,	/* ends a block */
	ATTR_NATIVE	= 1 << 6,	/* runs on the host's units (insn/native.c) */
	ATTR_STRICT	= 1 << 7,	/* 66, F2 or F3 without a row of their own: #UD */
	ATTR_REP	= 1 << 8,	/* string instruction */
	ATTR_L0		= 1 << 9,	/* VEX.L must be 0 */
	ATTR_L1		= 1 << 10,	/* VEX.L must be 1 */
	ATTR_W0		= 1 << 11,	/* VEX.W must be 0 */
	ATTR_W1		= 1 << 12,	/* VEX.W must be 1 */
	ATTR_I256	= 1 << 13,	/* with VEX.L: AVX2, VAES, VPCLMULQDQ needed */
	ATTR_RW		= 1 << 14,	/* operand 0 is read and written; else only written ... */
	ATTR_RO		= 1 << 15,	/* ... or, with this, only read */
	ATTR_PRIV	= 1 << 16,	/* CPL 0 only (for readers: the handler checks) */
	ATTR_USER	= 1 << 17,	/* user mode may run it, and the result depends on registers and
					 * memory only: the comparison with the host covers it */
	ATTR_COUNT	= 1 << 18,	/* flags as given only for a masked count of 1: 0 changes none,
					 * others leave OF undefined as well, and SHL/SHR by the width
					 * or more CF */
	ATTR_JCC	= 1 << 19,	/* the handler is exec_jcc[opcode & 15] */
	ATTR_IMPLICIT	= 1 << 20,	/* PCMPxSTRx: also EAX/EDX (by W) in or ECX out, by name */
	ATTR_ALIGN	= 1 << 21,	/* exception from the rule of opcode_aligned() */
	ATTR_NOREP	= 1 << 22,	/* as ATTR_STRICT, for F2 and F3 only */
	ATTR_W64	= 1 << 23,	/* VEX.W must be 0 outside 64-bit mode */
};

/*
 * opcode.evex: what a row of the EVEX maps allows. SDM 2A 2.7. The tuple type (tables 2-34, 2-35) is
 * the memory operand's size: disp8 counts in it, or in elements with EVEX.b, and in EV_PACK rows.
 */
enum {
	EV_ESIZE	= 3,		/* log2 of the size of the elements that a mask selects */
	EV_BCAST	= 1 << 2,	/* EVEX.b in memory forms: broadcast of 4 bytes, with W of 8 */
	EV_RC		= 1 << 3,	/* EVEX.b in register forms: rounding by L'L ... */
	EV_SAE		= 1 << 4,	/* ... or no exceptions only */
	EV_NOK		= 1 << 5,	/* no mask */
	EV_KREQ		= 1 << 6,	/* a mask, k1 to k7 */
	EV_LIG		= 1 << 7,	/* scalars: L'L means nothing, and needs no AVX512VL */
	EV_NO128	= 1 << 8,	/* lengths that there are not */
	EV_NO256	= 1 << 9,
	EV_NO512	= 1 << 10,
	EV_NF		= 1 << 11,	/* the mask keeps no element of memory from faulting */
	EV_PACK		= 1 << 12,	/* VCOMPRESS, VEXPAND: selected elements one behind the other */
	EV_REPEAT	= 1 << 13,	/* VBROADCAST: memory holds fewer elements than the register */
};

/* How a link chooses its row in the groups' table, from octet sub on. */
enum opcode_sel {
	SEL_NONE,	/* not a link */
	SEL_REG,	/* by ModRM.reg */
	SEL_MODREG,	/* by ModRM.reg; register forms in the next octet */
	SEL_RM,		/* by ModRM.rm */
	SEL_MOD,	/* 0: memory, 1: register form */
	SEL_MODE,	/* 0: 16- and 32-bit mode, 1: 64-bit mode */
	SEL_REXB,	/* by REX.B */
	SEL_W,		/* by REX.W or VEX.W */
	SEL_L,		/* by VEX.L */
	SEL_X87,	/* into the x87 map */
	SEL_MASK,	/* into the opmask map: cell sub * 2 + VEX.W */
};

enum opcode_pfx { OPC_NP, OPC_66, OPC_F3, OPC_F2, NR_OPC_PFX };

struct opcode {
	const char *name;		/* NULL: no such row, or a link */
	u8 op[4];			/* enum operand; destination first */
	u32 attr;			/* ATTR_* */
	insn_fn *run;			/* handler, or NULL: */
	const struct exec_set *set;	/* by operand size and place */
	/*
	 * RFLAGS bits read, given a defined value, left undefined. A repeated CMPS or SCAS with a
	 * count of zero, and ATTR_COUNT rows with one, leave them all.
	 */
	u16 f_read, f_write, f_undef;
	u8 feature;			/* enum cpu_feature; see opcode_feature() */
	u8 sel, sub;			/* enum opcode_sel, enum opcode_group: a link */
	u16 evex;			/* EV_* */
};
_Static_assert(sizeof(struct opcode) == 48, "there are many, with holes");

/* Maps, in the order of row indexes. */
enum opcode_map {
	MAP_1, MAP_0F, MAP_0F38, MAP_0F3A, MAP_VEX1, MAP_VEX2, MAP_VEX3,
	MAP_EVEX1, MAP_EVEX2, MAP_EVEX3,	/* rows[512][4]: with EVEX.W from row 256 on */
	MAP_GROUPS, MAP_X87, MAP_MASK,
	NR_OPCODE_MAPS,
};

/* Row indexes run from 0 to opcode_rows() - 1, with holes: opcode_row() gives NULL there. */
#define ROW_MAP_SHIFT	12
unsigned int opcode_rows(void);
struct opcode_dir {
	const struct opcode *rows;
	unsigned int n;
};
extern const struct opcode_dir opcode_dir[NR_OPCODE_MAPS];

static inline const struct opcode *opcode_row(unsigned int index)
{
	unsigned int map = index >> ROW_MAP_SHIFT, n = index & ((1u << ROW_MAP_SHIFT) - 1);
	const struct opcode *row;

	if (map >= NR_OPCODE_MAPS || n >= opcode_dir[map].n)
		return NULL;
	row = &opcode_dir[map].rows[n];
	return row->name ? row : NULL;
}

/* How a row is encoded. */
struct opcode_where {
	u8 map;		/* MAP_1 to MAP_EVEX3: that of the opcode byte (x87: MAP_1) */
	u8 opcode;
	u8 pfx;		/* enum opcode_pfx */
	s8 ext;		/* ModRM.reg as opcode extension, or -1 */
	s8 rm;		/* ModRM.rm as opcode extension, ST(i) of x87 register forms, or -1 */
	s8 mod;		/* 0: memory forms only; 3: register forms only; -1: either */
	s8 w;		/* VEX.W or EVEX.W where the row is found by it, else -1 */
};
/*
 * False if there is no such row. Walks the tables: for stub generation and tests, not for each
 * instruction.
 */
bool opcode_where(unsigned int index, struct opcode_where *out);

/* The CPU feature that this instruction needs, VEX.L considered; of EVEX forms the first of two. */
enum cpu_feature opcode_feature(const struct opcode *row, const struct insn *i);
/* Are all that it needs among these (v->guest_features)? */
bool opcode_in(const u64 features[4], const struct opcode *row, const struct insn *i);

/*
 * Bytes of a size in this instruction; of its memory operand (0: none, address only, or
 * variable). operand_mem_bytes(): with EVEX.b the element.
 */
unsigned int operand_bytes(enum operand_size size, const struct insn *i);
unsigned int operand_mem_bytes(enum operand_size size, const struct insn *i);
unsigned int opcode_mem_size(const struct opcode *row, const struct insn *i);
/* What disp8 of an EVEX instruction with a memory operand counts in. SDM 2A 2.7.5 */
unsigned int opcode_disp_unit(const struct opcode *row, const struct insn *i);
enum operand_size opcode_mem_kind(const struct opcode *row);	/* what it is of the row */

/*
 * True if the memory operand must be aligned to its size (#GP(0)): 16-byte operands of legacy SSE
 * but for MOVUPS and the like, and with VEX only those of VMOVAPS and the like. SDM 1 14.9
 */
bool opcode_aligned(const struct opcode *row, const struct insn *i);

/*
 * Bits: 1 the memory operand is read, 2 written. 0: none, of variable size, or only its address
 * is used.
 */
#define OPC_MEM_READ	1
#define OPC_MEM_WRITE	2
unsigned int opcode_mem_access(const struct opcode *row);

#endif
