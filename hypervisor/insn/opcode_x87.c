/*
 * x87, D8 to DF: eight memory forms by ModRM.reg, 64 register forms by the low six bits of ModRM.
 * SDM 2 tables, APM 3 table A-15. The aliases that no manual of today names (FSTP1,
 * FXCH4 ...) still work on every CPU.
 */
#include "hypervisor/insn/opcode_table.h"

#define MEM(op, reg)		[((op) - 0xd8) * X87_ROWS + (reg)]
#define REG(op, modrm)		[((op) - 0xd8) * X87_ROWS + 8 + (modrm) - 0xc0]
/* Eight registers ST(0) to ST(7), from modrm on. */
#define REGS(op, modrm)		[((op) - 0xd8) * X87_ROWS + 8 + (modrm) - 0xc0 ...		\
				((op) - 0xd8) * X87_ROWS + 15 + (modrm) - 0xc0]

/* The eight arithmetic operations on ST(0) and memory. */
#define ARITH_M(op, i, m)									\
	MEM(op, 0) = { "f" i "add", OPS(ST0, m), X87(FPU, RW) },				\
	MEM(op, 1) = { "f" i "mul", OPS(ST0, m), X87(FPU, RW) },				\
	MEM(op, 2) = { "f" i "com", OPS(ST0, m), X87(FPU, RO) },				\
	MEM(op, 3) = { "f" i "comp", OPS(ST0, m), X87(FPU, RO) },				\
	MEM(op, 4) = { "f" i "sub", OPS(ST0, m), X87(FPU, RW) },				\
	MEM(op, 5) = { "f" i "subr", OPS(ST0, m), X87(FPU, RW) },				\
	MEM(op, 6) = { "f" i "div", OPS(ST0, m), X87(FPU, RW) },				\
	MEM(op, 7) = { "f" i "divr", OPS(ST0, m), X87(FPU, RW) }

#define OP0(op, modrm, name)	REG(op, modrm) = { name, OPS(ST0), X87(FPU, RW) }
#define FCMOV(op, modrm, name, f) REGS(op, modrm) = { name, OPS(ST0, STi), X87(CMOV, RW),	\
		FL(f, 0, 0) }
#define FCOMI(op, modrm, name)	REGS(op, modrm) = { name, OPS(ST0, STi), X87(CMOV, RO),		\
		FL(0, OSZAPC, 0) }

const struct opcode opcodes_x87[8 * X87_ROWS] = {
	ARITH_M(0xd8, "", Md),
	REGS(0xd8, 0xc0) = { "fadd", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xd8, 0xc8) = { "fmul", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xd8, 0xd0) = { "fcom", OPS(ST0, STi), X87(FPU, RO) },
	REGS(0xd8, 0xd8) = { "fcomp", OPS(ST0, STi), X87(FPU, RO) },
	REGS(0xd8, 0xe0) = { "fsub", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xd8, 0xe8) = { "fsubr", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xd8, 0xf0) = { "fdiv", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xd8, 0xf8) = { "fdivr", OPS(ST0, STi), X87(FPU, RW) },

	MEM(0xd9, 0) = { "fld", OPS(ST0, Md), X87(FPU, 0) },
	MEM(0xd9, 2) = { "fst", OPS(Md, ST0), X87(FPU, 0) },
	MEM(0xd9, 3) = { "fstp", OPS(Md, ST0), X87(FPU, 0) },
	MEM(0xd9, 4) = { "fldenv", OPS(Menv), RUN(exec_fldenv), ATTR(RO | USER), NEEDS(FPU) },
	MEM(0xd9, 5) = { "fldcw", OPS(Mw), X87(FPU, RO) },
	MEM(0xd9, 6) = { "fnstenv", OPS(Menv), RUN(exec_fnstenv), ATTR(USER), NEEDS(FPU) },
	MEM(0xd9, 7) = { "fnstcw", OPS(Mw), X87(FPU, 0) },
	REGS(0xd9, 0xc0) = { "fld", OPS(ST0, STi), X87(FPU, 0) },
	REGS(0xd9, 0xc8) = { "fxch", OPS(ST0, STi), X87(FPU, RW) },
	REG(0xd9, 0xd0) = { "fnop", NO_OPS, X87(FPU, 0) },
	REGS(0xd9, 0xd8) = { "fstp1", OPS(STi, ST0), X87(FPU, 0) },
	OP0(0xd9, 0xe0, "fchs"),
	OP0(0xd9, 0xe1, "fabs"),
	REG(0xd9, 0xe4) = { "ftst", OPS(ST0), X87(FPU, RO) },
	REG(0xd9, 0xe5) = { "fxam", OPS(ST0), X87(FPU, RO) },
	OP0(0xd9, 0xe8, "fld1"),
	OP0(0xd9, 0xe9, "fldl2t"),
	OP0(0xd9, 0xea, "fldl2e"),
	OP0(0xd9, 0xeb, "fldpi"),
	OP0(0xd9, 0xec, "fldlg2"),
	OP0(0xd9, 0xed, "fldln2"),
	OP0(0xd9, 0xee, "fldz"),
	OP0(0xd9, 0xf0, "f2xm1"),
	OP0(0xd9, 0xf1, "fyl2x"),
	OP0(0xd9, 0xf2, "fptan"),
	OP0(0xd9, 0xf3, "fpatan"),
	OP0(0xd9, 0xf4, "fxtract"),
	OP0(0xd9, 0xf5, "fprem1"),
	OP0(0xd9, 0xf6, "fdecstp"),
	OP0(0xd9, 0xf7, "fincstp"),
	OP0(0xd9, 0xf8, "fprem"),
	OP0(0xd9, 0xf9, "fyl2xp1"),
	OP0(0xd9, 0xfa, "fsqrt"),
	OP0(0xd9, 0xfb, "fsincos"),
	OP0(0xd9, 0xfc, "frndint"),
	OP0(0xd9, 0xfd, "fscale"),
	OP0(0xd9, 0xfe, "fsin"),
	OP0(0xd9, 0xff, "fcos"),

	ARITH_M(0xda, "i", Md),
	FCMOV(0xda, 0xc0, "fcmovb", CF),
	FCMOV(0xda, 0xc8, "fcmove", ZF),
	FCMOV(0xda, 0xd0, "fcmovbe", CF | ZF),
	FCMOV(0xda, 0xd8, "fcmovu", PF),
	REG(0xda, 0xe9) = { "fucompp", OPS(ST0), X87(FPU, RO) },

	MEM(0xdb, 0) = { "fild", OPS(ST0, Md), X87(FPU, 0) },
	MEM(0xdb, 1) = { "fisttp", OPS(Md, ST0), X87(SSE3, 0) },
	MEM(0xdb, 2) = { "fist", OPS(Md, ST0), X87(FPU, 0) },
	MEM(0xdb, 3) = { "fistp", OPS(Md, ST0), X87(FPU, 0) },
	MEM(0xdb, 5) = { "fld", OPS(ST0, Mt), X87(FPU, 0) },
	MEM(0xdb, 7) = { "fstp", OPS(Mt, ST0), X87(FPU, 0) },
	FCMOV(0xdb, 0xc0, "fcmovnb", CF),
	FCMOV(0xdb, 0xc8, "fcmovne", ZF),
	FCMOV(0xdb, 0xd0, "fcmovnbe", CF | ZF),
	FCMOV(0xdb, 0xd8, "fcmovnu", PF),
	/* 8087 and 287 only, without effect since. SDM 3B, architecture compatibility: x87 FPU */
	REG(0xdb, 0xe0) = { "fneni", NO_OPS, X87(FPU, 0) },
	REG(0xdb, 0xe1) = { "fndisi", NO_OPS, X87(FPU, 0) },
	REG(0xdb, 0xe2) = { "fnclex", NO_OPS, X87(FPU, 0) },
	REG(0xdb, 0xe3) = { "fninit", NO_OPS, X87(FPU, 0) },
	REG(0xdb, 0xe4) = { "fnsetpm", NO_OPS, X87(FPU, 0) },
	FCOMI(0xdb, 0xe8, "fucomi"),
	FCOMI(0xdb, 0xf0, "fcomi"),

	ARITH_M(0xdc, "", Mq),
	REGS(0xdc, 0xc0) = { "fadd", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xdc, 0xc8) = { "fmul", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xdc, 0xd0) = { "fcom2", OPS(ST0, STi), X87(FPU, RO) },
	REGS(0xdc, 0xd8) = { "fcomp3", OPS(ST0, STi), X87(FPU, RO) },
	REGS(0xdc, 0xe0) = { "fsubr", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xdc, 0xe8) = { "fsub", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xdc, 0xf0) = { "fdivr", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xdc, 0xf8) = { "fdiv", OPS(STi, ST0), X87(FPU, RW) },

	MEM(0xdd, 0) = { "fld", OPS(ST0, Mq), X87(FPU, 0) },
	MEM(0xdd, 1) = { "fisttp", OPS(Mq, ST0), X87(SSE3, 0) },
	MEM(0xdd, 2) = { "fst", OPS(Mq, ST0), X87(FPU, 0) },
	MEM(0xdd, 3) = { "fstp", OPS(Mq, ST0), X87(FPU, 0) },
	MEM(0xdd, 4) = { "frstor", OPS(Msave), RUN(exec_frstor), ATTR(RO | USER), NEEDS(FPU) },
	MEM(0xdd, 6) = { "fnsave", OPS(Msave), RUN(exec_fnsave), ATTR(USER), NEEDS(FPU) },
	MEM(0xdd, 7) = { "fnstsw", OPS(Mw), X87(FPU, 0) },
	REGS(0xdd, 0xc0) = { "ffree", OPS(STi), X87(FPU, 0) },
	REGS(0xdd, 0xc8) = { "fxch4", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xdd, 0xd0) = { "fst", OPS(STi, ST0), X87(FPU, 0) },
	REGS(0xdd, 0xd8) = { "fstp", OPS(STi, ST0), X87(FPU, 0) },
	REGS(0xdd, 0xe0) = { "fucom", OPS(ST0, STi), X87(FPU, RO) },
	REGS(0xdd, 0xe8) = { "fucomp", OPS(ST0, STi), X87(FPU, RO) },

	ARITH_M(0xde, "i", Mw),
	REGS(0xde, 0xc0) = { "faddp", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xde, 0xc8) = { "fmulp", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xde, 0xd0) = { "fcomp5", OPS(ST0, STi), X87(FPU, RO) },
	REG(0xde, 0xd9) = { "fcompp", OPS(ST0), X87(FPU, RO) },
	REGS(0xde, 0xe0) = { "fsubrp", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xde, 0xe8) = { "fsubp", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xde, 0xf0) = { "fdivrp", OPS(STi, ST0), X87(FPU, RW) },
	REGS(0xde, 0xf8) = { "fdivp", OPS(STi, ST0), X87(FPU, RW) },

	MEM(0xdf, 0) = { "fild", OPS(ST0, Mw), X87(FPU, 0) },
	MEM(0xdf, 1) = { "fisttp", OPS(Mw, ST0), X87(SSE3, 0) },
	MEM(0xdf, 2) = { "fist", OPS(Mw, ST0), X87(FPU, 0) },
	MEM(0xdf, 3) = { "fistp", OPS(Mw, ST0), X87(FPU, 0) },
	MEM(0xdf, 4) = { "fbld", OPS(ST0, Mt), X87(FPU, 0) },
	MEM(0xdf, 5) = { "fild", OPS(ST0, Mq), X87(FPU, 0) },
	MEM(0xdf, 6) = { "fbstp", OPS(Mt, ST0), X87(FPU, 0) },
	MEM(0xdf, 7) = { "fistp", OPS(Mq, ST0), X87(FPU, 0) },
	REGS(0xdf, 0xc0) = { "ffreep", OPS(STi), X87(FPU, 0) },
	REGS(0xdf, 0xc8) = { "fxch7", OPS(ST0, STi), X87(FPU, RW) },
	REGS(0xdf, 0xd0) = { "fstp8", OPS(STi, ST0), X87(FPU, 0) },
	REGS(0xdf, 0xd8) = { "fstp9", OPS(STi, ST0), X87(FPU, 0) },
	REG(0xdf, 0xe0) = { "fnstsw", OPS(AX), X87(FPU, 0) },
	FCOMI(0xdf, 0xe8, "fucomip"),
	FCOMI(0xdf, 0xf0, "fcomip"),
};
