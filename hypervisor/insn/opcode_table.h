/* Short names for the tables of the opcode_*.c files only. */
#ifndef QUMRA_HYPERVISOR_INSN_OPCODE_TABLE_H
#define QUMRA_HYPERVISOR_INSN_OPCODE_TABLE_H

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

/* OPS(Eb, Gb): the operand kinds of a row. */
#define OPS1(a)			{ OP_##a }
#define OPS2(a, b)		{ OP_##a, OP_##b }
#define OPS3(a, b, c)		{ OP_##a, OP_##b, OP_##c }
#define OPS4(a, b, c, d)	{ OP_##a, OP_##b, OP_##c, OP_##d }
#define OPS_PICK(a, b, c, d, n, ...) n
#define OPS(...)		OPS_PICK(__VA_ARGS__, OPS4, OPS3, OPS2, OPS1)(__VA_ARGS__)
#define NO_OPS			{ OP_NONE }

#define SET(s)			.set = &(s)
#define RUN(f)			.run = (f)
#define ATTR(a)			.attr = (a)
#define NEEDS(f)		.feature = F_##f
#define LINK(how, group)	{ .sel = SEL_##how, .sub = (group) }

/* On the host's units; NATG: with general-purpose registers or RFLAGS. a: further attributes. */
#define NAT(f, a)		RUN(exec_native), NEEDS(f), ATTR(ATTR_NATIVE | USER | (a))
#define NATG(f, a)		RUN(exec_native_flags), NEEDS(f), ATTR(ATTR_NATIVE | USER | (a))
#define X87(f, a)		RUN(exec_x87), NEEDS(f), ATTR(ATTR_NATIVE | USER | (a))

/* Flags: read, written, left undefined. */
#define FL(r, w, u)		.f_read = (r), .f_write = (w), .f_undef = (u)

enum {
	LOCK = ATTR_LOCK, D64 = ATTR_D64, I64 = ATTR_I64, O64 = ATTR_O64, BRANCH = ATTR_BRANCH,
	END = ATTR_END, STRICT = ATTR_STRICT, REP = ATTR_REP, L0 = ATTR_L0, L1 = ATTR_L1, W0 = ATTR_W0,
	W1 = ATTR_W1, I256 = ATTR_I256, RW = ATTR_RW, RO = ATTR_RO, PRIV = ATTR_PRIV, USER = ATTR_USER,
	COUNT = ATTR_COUNT, ALIGN = ATTR_ALIGN, NOREP = ATTR_NOREP, W64 = ATTR_W64,
	CF = RFLAGS_CF, PF = RFLAGS_PF, AF = RFLAGS_AF, ZF = RFLAGS_ZF, SF = RFLAGS_SF,
	OF = RFLAGS_OF, DF = RFLAGS_DF, OSZAPC = RFLAGS_ARITH, SZAPC = SF | ZF | AF | PF | CF,
	OSZPC = OF | SF | ZF | PF | CF,
	OSZAP = OF | SF | ZF | AF | PF,
	/* PUSHF, POPF and what saves or loads all of them. */
	RFLAGS_ALL = RFLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | DF | RFLAGS_IOPL | RFLAGS_NT,
};

enum { NP = OPC_NP, P66 = OPC_66, PF3 = OPC_F3, PF2 = OPC_F2 };

/* Octets of rows in the groups' table. SDM 2 A.4 for the numbered ones. */
enum opcode_group {
	G1_80, G1_81, G1_82, G1_83, G1A, G2_C0, G2_C1, G2_D0, G2_D1, G2_D2, G2_D3, G3_F6, G3_F7, G4, G5,
	G11_C6, G11_C7,
	G6, G7, G7_REG, G7_VMX, G7_MWAIT, G7_XCR, G7_SVM, G7_SER, G7_SWAPGS,
	G8, G9, G9_REG, G9_C8, G12, G13, G14, G15, G15_REG, G16, GP_0D, G_SSE4A,
	G_NOP, G_MOVSXD, G_ENDBR,
	G17, GV12, GV13, GV14, GV15, G_VZERO,
	GV_MOVSS_L, GV_MOVSD_L, GV_MOVSS_S, GV_MOVSD_S, GV_BCAST_SS, GV_BCAST_SD,
	GE_MOVSS_L, GE_MOVSD_L, GE_MOVSS_S, GE_MOVSD_S, GE12, GE13_D, GE13_Q, GE14_D, GE14_Q,
	NR_OPCODE_GROUPS,
};
_Static_assert(NR_OPCODE_GROUPS * 8 * NR_OPC_PFX <= 1 << ROW_MAP_SHIFT, "a row index fits its map");

#define GROUP(g, reg)		[(g) * 8 + (reg)]

extern const struct opcode opcodes_1[256][NR_OPC_PFX], opcodes_0f[256][NR_OPC_PFX];
extern const struct opcode opcodes_0f38[256][NR_OPC_PFX], opcodes_0f3a[256][NR_OPC_PFX];
extern const struct opcode opcodes_vex1[256][NR_OPC_PFX], opcodes_vex2[256][NR_OPC_PFX];
extern const struct opcode opcodes_vex3[256][NR_OPC_PFX];
extern const struct opcode opcodes_evex1[512][NR_OPC_PFX], opcodes_evex2[512][NR_OPC_PFX];
extern const struct opcode opcodes_evex3[512][NR_OPC_PFX];
extern const struct opcode opcodes_group[NR_OPCODE_GROUPS * 8][NR_OPC_PFX];

/* D8 to DF: 8 memory forms by ModRM.reg, then 64 register forms by ModRM & 63. */
#define X87_ROWS		72
extern const struct opcode opcodes_x87[8 * X87_ROWS];

/* Opmask instructions: cells by opcode and VEX.W. */
enum opcode_mask {
	K_AND, K_ANDN, K_NOT, K_OR, K_XNOR, K_XOR, K_ADD, K_UNPCK, K_LOAD, K_STORE, K_FROM_GPR,
	K_TO_GPR, K_ORTEST, K_TEST, K_SHR_BW, K_SHR_DQ, K_SHL_BW, K_SHL_DQ,
	NR_OPCODE_MASKS,
};
extern const struct opcode opcodes_mask[NR_OPCODE_MASKS * 2][NR_OPC_PFX];

#endif
