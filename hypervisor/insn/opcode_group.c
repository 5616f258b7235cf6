/*
 * Rows chosen by more than the opcode: ModRM.reg, ModRM.rm, mode, W. SDM 2 table A-6, APM 3
 * tables.
 */
#include "hypervisor/insn/opcode_evex.h"

/* Group 1 of E and an immediate kind. */
#define ARITH(g, e, i)										\
	GROUP(g, 0)[NP] = { "add", OPS(e, i), SET(x_add_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(0, OSZAPC, 0) },								\
	GROUP(g, 1)[NP] = { "or", OPS(e, i), SET(x_or_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 2)[NP] = { "adc", OPS(e, i), SET(x_adc_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(CF, OSZAPC, 0) },								\
	GROUP(g, 3)[NP] = { "sbb", OPS(e, i), SET(x_sbb_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(CF, OSZAPC, 0) },								\
	GROUP(g, 4)[NP] = { "and", OPS(e, i), SET(x_and_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 5)[NP] = { "sub", OPS(e, i), SET(x_sub_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(0, OSZAPC, 0) },								\
	GROUP(g, 6)[NP] = { "xor", OPS(e, i), SET(x_xor_EI), ATTR(LOCK | RW | USER | I_82(g)),	\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 7)[NP] = { "cmp", OPS(e, i), SET(x_cmp_EI), ATTR(RO | USER | I_82(g)),		\
		FL(0, OSZAPC, 0) }
#define I_82(g)	((g) == G1_82 ? I64 : 0)

/* Group 2 by E and count: an immediate (s = EI) or CL (s = EC). "sal" is the alias at /6. */
#define SHIFT(g, s, e, c)									\
	GROUP(g, 0)[NP] = { "rol", OPS(e, c), SET(x_rol_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OF | CF, 0) },								\
	GROUP(g, 1)[NP] = { "ror", OPS(e, c), SET(x_ror_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OF | CF, 0) },								\
	GROUP(g, 2)[NP] = { "rcl", OPS(e, c), SET(x_rcl_##s), ATTR(RW | COUNT | USER),		\
		FL(CF, OF | CF, 0) },								\
	GROUP(g, 3)[NP] = { "rcr", OPS(e, c), SET(x_rcr_##s), ATTR(RW | COUNT | USER),		\
		FL(CF, OF | CF, 0) },								\
	GROUP(g, 4)[NP] = { "shl", OPS(e, c), SET(x_shl_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 5)[NP] = { "shr", OPS(e, c), SET(x_shr_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 6)[NP] = { "sal", OPS(e, c), SET(x_shl_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 7)[NP] = { "sar", OPS(e, c), SET(x_sar_##s), ATTR(RW | COUNT | USER),		\
		FL(0, OSZPC, AF) }

#define UNARY(g, e, i)										\
	GROUP(g, 0)[NP] = { "test", OPS(e, i), SET(x_test_EI), ATTR(RO | USER),			\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 1)[NP] = { "test", OPS(e, i), SET(x_test_EI), ATTR(RO | USER),			\
		FL(0, OSZPC, AF) },								\
	GROUP(g, 2)[NP] = { "not", OPS(e), SET(x_not_E), ATTR(LOCK | RW | USER) },		\
	GROUP(g, 3)[NP] = { "neg", OPS(e), SET(x_neg_E), ATTR(LOCK | RW | USER),		\
		FL(0, OSZAPC, 0) },								\
	GROUP(g, 4)[NP] = { "mul", OPS(e), SET(x_mul_E), ATTR(RO | USER),			\
		FL(0, OF | CF, SF | ZF | AF | PF) },						\
	GROUP(g, 5)[NP] = { "imul", OPS(e), SET(x_imul_E), ATTR(RO | USER),			\
		FL(0, OF | CF, SF | ZF | AF | PF) },						\
	GROUP(g, 6)[NP] = { "div", OPS(e), SET(x_div_E), ATTR(RO | USER), FL(0, 0, OSZAPC) },	\
	GROUP(g, 7)[NP] = { "idiv", OPS(e), SET(x_idiv_E), ATTR(RO | USER), FL(0, 0, OSZAPC) }

#define BT_FLAGS	FL(0, CF, OF | SF | AF | PF)

/* Shifts by an immediate of MMX and XMM registers, with their VEX twins in group gv. */
#define VSHIFT(g, gv, reg, name)								\
	GROUP(g, reg)[NP] = { name, OPS(Nq, Ib), NAT(MMX, RW) },				\
	GROUP(g, reg)[P66] = { name, OPS(Ux, Ib), NAT(SSE2, RW) },				\
	GROUP(gv, reg)[P66] = { "v" name, OPS(Hx, Ux, Ib), NAT(AVX, I256) }

const struct opcode opcodes_group[NR_OPCODE_GROUPS * 8][NR_OPC_PFX] = {
	ARITH(G1_80, Eb, Ibs),
	ARITH(G1_81, Ev, Iz),
	ARITH(G1_82, Eb, Ibs),
	ARITH(G1_83, Ev, Ibs),
	GROUP(G1A, 0)[NP] = { "pop", OPS(Ev), SET(x_pop_E), ATTR(D64 | USER) },
	SHIFT(G2_C0, EI, Eb, Ib),
	SHIFT(G2_C1, EI, Ev, Ib),
	SHIFT(G2_D0, EI, Eb, I1),
	SHIFT(G2_D1, EI, Ev, I1),
	SHIFT(G2_D2, EC, Eb, CL),
	SHIFT(G2_D3, EC, Ev, CL),
	UNARY(G3_F6, Eb, Ibs),
	UNARY(G3_F7, Ev, Iz),

	GROUP(G4, 0)[NP] = { "inc", OPS(Eb), SET(x_inc_E), ATTR(LOCK | RW | USER),
		FL(0, OSZAP, 0) },
	GROUP(G4, 1)[NP] = { "dec", OPS(Eb), SET(x_dec_E), ATTR(LOCK | RW | USER),
		FL(0, OSZAP, 0) },
	GROUP(G5, 0)[NP] = { "inc", OPS(Ev), SET(x_inc_E), ATTR(LOCK | RW | USER),
		FL(0, OSZAP, 0) },
	GROUP(G5, 1)[NP] = { "dec", OPS(Ev), SET(x_dec_E), ATTR(LOCK | RW | USER),
		FL(0, OSZAP, 0) },
	GROUP(G5, 2)[NP] = { "call", OPS(Ev), SET(x_call_E), ATTR(D64 | BRANCH | RO | USER) },
	GROUP(G5, 3)[NP] = { "call", OPS(Mp), RUN(exec_call_far_mem), ATTR(BRANCH | RO) },
	GROUP(G5, 4)[NP] = { "jmp", OPS(Ev), SET(x_jmp_E), ATTR(D64 | BRANCH | RO | USER) },
	GROUP(G5, 5)[NP] = { "jmp", OPS(Mp), RUN(exec_jmp_far_mem), ATTR(BRANCH | RO) },
	GROUP(G5, 6)[NP] = { "push", OPS(Ev), SET(x_push_E), ATTR(D64 | RO | USER) },
	GROUP(G11_C6, 0)[NP] = { "mov", OPS(Eb, Ibs), SET(x_mov_EI), ATTR(USER) },
	GROUP(G11_C7, 0)[NP] = { "mov", OPS(Ev, Iz), SET(x_mov_EI), ATTR(USER) },

	/* 90: no operation but with REX.B, where it is an exchange of R8. SDM 2B XCHG */
	GROUP(G_NOP, 0)[NP] = { "nop", NO_OPS, RUN(exec_nop), ATTR(USER) },
	GROUP(G_NOP, 0)[PF3] = { "pause", NO_OPS, RUN(exec_pause), ATTR(USER) },
	GROUP(G_NOP, 1)[NP] = { "xchg", OPS(Zv, rAXg), SET(x_xchg_EG), ATTR(RW | USER) },
	GROUP(G_MOVSXD, 0)[NP] = { "arpl", OPS(Ew, Gw), RUN(exec_arpl), ATTR(RW | USER),
		FL(0, ZF, 0) },
	GROUP(G_MOVSXD, 1)[NP] = { "movsxd", OPS(Gv, Ed), SET(x_movsxd_GE), ATTR(USER) },

	GROUP(G6, 0)[NP] = { "sldt", OPS(RvMw), RUN(exec_sldt) },
	GROUP(G6, 1)[NP] = { "str", OPS(RvMw), RUN(exec_str) },
	GROUP(G6, 2)[NP] = { "lldt", OPS(Ew), RUN(exec_lldt), ATTR(RO | PRIV) },
	GROUP(G6, 3)[NP] = { "ltr", OPS(Ew), RUN(exec_ltr), ATTR(RO | PRIV) },
	GROUP(G6, 4)[NP] = { "verr", OPS(Ew), RUN(exec_verr), ATTR(RO), FL(0, ZF, 0) },
	GROUP(G6, 5)[NP] = { "verw", OPS(Ew), RUN(exec_verw), ATTR(RO), FL(0, ZF, 0) },

	GROUP(G7, 0)[NP] = { "sgdt", OPS(Ms), RUN(exec_sgdt) },
	GROUP(G7, 1)[NP] = { "sidt", OPS(Ms), RUN(exec_sidt) },
	GROUP(G7, 2)[NP] = { "lgdt", OPS(Ms), RUN(exec_lgdt), ATTR(END | RO | PRIV) },
	GROUP(G7, 3)[NP] = { "lidt", OPS(Ms), RUN(exec_lidt), ATTR(END | RO | PRIV) },
	GROUP(G7, 4)[NP] = { "smsw", OPS(RvMw), RUN(exec_smsw) },
	GROUP(G7, 6)[NP] = { "lmsw", OPS(Ew), RUN(exec_lmsw), ATTR(END | RO | PRIV) },
	GROUP(G7, 7)[NP] = { "invlpg", OPS(M), RUN(exec_invlpg), ATTR(END | RO | PRIV) },
	GROUP(G7_REG, 0)[NP] = LINK(RM, G7_VMX),
	GROUP(G7_REG, 1)[NP] = LINK(RM, G7_MWAIT),
	GROUP(G7_REG, 2)[NP] = LINK(RM, G7_XCR),
	GROUP(G7_REG, 3)[NP] = LINK(RM, G7_SVM),
	GROUP(G7_REG, 4)[NP] = { "smsw", OPS(RvMw), RUN(exec_smsw) },
	GROUP(G7_REG, 6)[NP] = { "lmsw", OPS(Ew), RUN(exec_lmsw), ATTR(END | RO | PRIV) },
	GROUP(G7_REG, 7)[NP] = LINK(RM, G7_SWAPGS),
	GROUP(G7_VMX, 1)[NP] = { "vmcall", NO_OPS, RUN(exec_vmcall), ATTR(END | STRICT) },
	GROUP(G7_MWAIT, 0)[NP] = { "monitor", NO_OPS, RUN(exec_monitor), ATTR(STRICT | PRIV) },
	GROUP(G7_MWAIT, 1)[NP] = { "mwait", NO_OPS, RUN(exec_mwait), ATTR(STRICT | END | PRIV) },
	GROUP(G7_MWAIT, 2)[NP] = { "clac", NO_OPS, RUN(exec_clac), ATTR(STRICT | PRIV),
		NEEDS(SMAP) },
	GROUP(G7_MWAIT, 3)[NP] = { "stac", NO_OPS, RUN(exec_stac), ATTR(STRICT | PRIV),
		NEEDS(SMAP) },
	GROUP(G7_XCR, 0)[NP] = { "xgetbv", NO_OPS, RUN(exec_xgetbv), ATTR(STRICT), NEEDS(XSAVE) },
	GROUP(G7_XCR, 1)[NP] = { "xsetbv", NO_OPS, RUN(exec_xsetbv), ATTR(STRICT | END | PRIV),
		NEEDS(XSAVE) },
	GROUP(G7_SVM, 1)[NP] = { "vmmcall", NO_OPS, RUN(exec_vmmcall), ATTR(END) },
	GROUP(G7_SWAPGS, 0)[NP] = { "swapgs", NO_OPS, RUN(exec_swapgs), ATTR(O64 | PRIV) },
	GROUP(G7_SWAPGS, 1)[NP] = { "rdtscp", NO_OPS, RUN(exec_rdtscp), NEEDS(RDTSCP) },
	GROUP(G7_SWAPGS, 4)[NP] = { "clzero", NO_OPS, RUN(exec_clzero), ATTR(USER), NEEDS(CLZERO) },

	GROUP(G8, 4)[NP] = { "bt", OPS(Ev, Ib), SET(x_bt_EI), ATTR(RO | USER), BT_FLAGS },
	GROUP(G8, 5)[NP] = { "bts", OPS(Ev, Ib), SET(x_bts_EI), ATTR(LOCK | RW | USER), BT_FLAGS },
	GROUP(G8, 6)[NP] = { "btr", OPS(Ev, Ib), SET(x_btr_EI), ATTR(LOCK | RW | USER), BT_FLAGS },
	GROUP(G8, 7)[NP] = { "btc", OPS(Ev, Ib), SET(x_btc_EI), ATTR(LOCK | RW | USER), BT_FLAGS },

	GROUP(G9, 1)[NP] = LINK(W, G9_C8),
	GROUP(G9, 3)[NP] = { "xrstors", OPS(M), RUN(exec_xrstors), ATTR(STRICT | RO | PRIV),
		NEEDS(XSAVES) },
	GROUP(G9, 4)[NP] = { "xsavec", OPS(M), RUN(exec_xsavec), ATTR(STRICT), NEEDS(XSAVEC) },
	GROUP(G9, 5)[NP] = { "xsaves", OPS(M), RUN(exec_xsaves), ATTR(STRICT | PRIV),
		NEEDS(XSAVES) },
	GROUP(G9_REG, 6)[NP] = { "rdrand", OPS(Rv), SET(x_rdrand_E), ATTR(NOREP), NEEDS(RDRAND),
		FL(0, OSZAPC, 0) },
	GROUP(G9_REG, 7)[NP] = { "rdseed", OPS(Rv), SET(x_rdseed_E), ATTR(NOREP), NEEDS(RDSEED),
		FL(0, OSZAPC, 0) },
	GROUP(G9_REG, 7)[PF3] = { "rdpid", OPS(Rq), RUN(exec_rdpid), NEEDS(RDPID) },
	GROUP(G9_C8, 0)[NP] = { "cmpxchg8b", OPS(Mc8), RUN(exec_cmpxchg8b), ATTR(LOCK | RW | USER),
		NEEDS(CX8), FL(0, ZF, 0) },
	GROUP(G9_C8, 1)[NP] = { "cmpxchg16b", OPS(Mc8), RUN(exec_cmpxchg16b),
		ATTR(LOCK | RW | USER),
		NEEDS(CX16), FL(0, ZF, 0) },

	VSHIFT(G12, GV12, 2, "psrlw"),
	VSHIFT(G12, GV12, 4, "psraw"),
	VSHIFT(G12, GV12, 6, "psllw"),
	VSHIFT(G13, GV13, 2, "psrld"),
	VSHIFT(G13, GV13, 4, "psrad"),
	VSHIFT(G13, GV13, 6, "pslld"),
	VSHIFT(G14, GV14, 2, "psrlq"),
	VSHIFT(G14, GV14, 6, "psllq"),
	GROUP(G14, 3)[P66] = { "psrldq", OPS(Ux, Ib), NAT(SSE2, RW) },
	GROUP(G14, 7)[P66] = { "pslldq", OPS(Ux, Ib), NAT(SSE2, RW) },
	GROUP(GV14, 3)[P66] = { "vpsrldq", OPS(Hx, Ux, Ib), NAT(AVX, I256) },
	GROUP(GV14, 7)[P66] = { "vpslldq", OPS(Hx, Ux, Ib), NAT(AVX, I256) },

	GROUP(G15, 0)[NP] = { "fxsave", OPS(Mfx), RUN(exec_fxsave), ATTR(STRICT | USER),
		NEEDS(FXSR) },
	GROUP(G15, 1)[NP] = { "fxrstor", OPS(Mfx), RUN(exec_fxrstor), ATTR(STRICT | RO | USER),
		NEEDS(FXSR) },
	GROUP(G15, 2)[NP] = { "ldmxcsr", OPS(Md), RUN(exec_ldmxcsr), ATTR(STRICT | RO | USER),
		NEEDS(SSE) },
	GROUP(G15, 3)[NP] = { "stmxcsr", OPS(Md), RUN(exec_stmxcsr), ATTR(STRICT | USER),
		NEEDS(SSE) },
	GROUP(G15, 4)[NP] = { "xsave", OPS(M), RUN(exec_xsave), ATTR(STRICT), NEEDS(XSAVE) },
	GROUP(G15, 5)[NP] = { "xrstor", OPS(M), RUN(exec_xrstor), ATTR(STRICT | RO), NEEDS(XSAVE) },
	GROUP(G15, 6)[NP] = { "xsaveopt", OPS(M), RUN(exec_xsaveopt), ATTR(STRICT),
		NEEDS(XSAVEOPT) },
	GROUP(G15, 6)[P66] = { "clwb", OPS(Mb), RUN(exec_clflush), ATTR(RO | USER), NEEDS(CLWB) },
	GROUP(G15, 7)[NP] = { "clflush", OPS(Mb), RUN(exec_clflush), ATTR(STRICT | RO | USER),
		NEEDS(CLFSH) },
	GROUP(G15, 7)[P66] = { "clflushopt", OPS(Mb), RUN(exec_clflush), ATTR(RO | USER),
		NEEDS(CLFLUSHOPT) },
	GROUP(G15_REG, 0)[PF3] = { "rdfsbase", OPS(Ry), RUN(exec_rdfsbase), ATTR(O64),
		NEEDS(FSGSBASE) },
	GROUP(G15_REG, 1)[PF3] = { "rdgsbase", OPS(Ry), RUN(exec_rdgsbase), ATTR(O64),
		NEEDS(FSGSBASE) },
	GROUP(G15_REG, 2)[PF3] = { "wrfsbase", OPS(Ry), RUN(exec_wrfsbase), ATTR(O64 | RO),
		NEEDS(FSGSBASE) },
	GROUP(G15_REG, 3)[PF3] = { "wrgsbase", OPS(Ry), RUN(exec_wrgsbase), ATTR(O64 | RO),
		NEEDS(FSGSBASE) },
	GROUP(G15_REG, 5)[NP] = { "lfence", NO_OPS, RUN(exec_fence), ATTR(STRICT | USER),
		NEEDS(SSE2) },
	GROUP(G15_REG, 6)[NP] = { "mfence", NO_OPS, RUN(exec_fence), ATTR(STRICT | USER),
		NEEDS(SSE2) },
	GROUP(G15_REG, 7)[NP] = { "sfence", NO_OPS, RUN(exec_fence), ATTR(STRICT | USER),
		NEEDS(SSE) },
	GROUP(GV15, 2)[NP] = { "vldmxcsr", OPS(Md), RUN(exec_ldmxcsr), ATTR(L0 | RO | USER),
		NEEDS(AVX) },
	GROUP(GV15, 3)[NP] = { "vstmxcsr", OPS(Md), RUN(exec_stmxcsr), ATTR(L0 | USER),
		NEEDS(AVX) },

	/*
	 * Hints: 0F 18 and 0F 0D; what is not assigned is a NOP too. 0F 0D has no register form
	 * with AMD, where it is a NOP with Intel. SDM 2B PREFETCHh, APM 3 PREFETCH
	 */
	GROUP(G16, 0)[NP] = { "prefetchnta", OPS(En), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(G16, 1)[NP] = { "prefetcht0", OPS(En), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(G16, 2)[NP] = { "prefetcht1", OPS(En), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(G16, 3)[NP] = { "prefetcht2", OPS(En), RUN(exec_nop), ATTR(RO | USER) },
	[G16 * 8 + 4 ... G16 * 8 + 7][NP] = { "nop", OPS(En), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(GP_0D, 0)[NP] = { "prefetch", OPS(M), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(GP_0D, 1)[NP] = { "prefetchw", OPS(M), RUN(exec_nop), ATTR(RO | USER) },
	GROUP(GP_0D, 2)[NP] = { "prefetchwt1", OPS(M), RUN(exec_nop), ATTR(RO | USER) },
	[GP_0D * 8 + 3 ... GP_0D * 8 + 7][NP] = { "prefetch", OPS(M), RUN(exec_nop),
		ATTR(RO | USER) },
	GROUP(G_SSE4A, 0)[P66] = { "extrq", OPS(Ux, Ib, Ib2), NAT(SSE4A, RW) },

	GROUP(G17, 1)[NP] = { "blsr", OPS(By, Ey), SET(x_blsr_VE), ATTR(L0 | USER | STRICT),
		NEEDS(BMI1),
		FL(0, OF | SF | ZF | CF, AF | PF) },
	GROUP(G17, 2)[NP] = { "blsmsk", OPS(By, Ey), SET(x_blsmsk_VE), ATTR(L0 | USER | STRICT),
		NEEDS(BMI1),
		FL(0, OF | SF | ZF | CF, AF | PF) },
	GROUP(G17, 3)[NP] = { "blsi", OPS(By, Ey), SET(x_blsi_VE), ATTR(L0 | USER | STRICT),
		NEEDS(BMI1),
		FL(0, OF | SF | ZF | CF, AF | PF) },
	GROUP(G_VZERO, 0)[NP] = { "vzeroupper", NO_OPS, NAT(AVX, 0) },
	GROUP(G_VZERO, 1)[NP] = { "vzeroall", NO_OPS, NAT(AVX, 0) },

	/* A merge between registers, a load or store else. SDM 2B MOVSS, MOVSD */
	GROUP(GV_MOVSS_L, 0)[PF3] = { "vmovss", OPS(Vx, Md), NAT(AVX, 0) },
	GROUP(GV_MOVSS_L, 1)[PF3] = { "vmovss", OPS(Vx, Hx, Ux), NAT(AVX, 0) },
	GROUP(GV_MOVSD_L, 0)[PF2] = { "vmovsd", OPS(Vx, Mq), NAT(AVX, 0) },
	GROUP(GV_MOVSD_L, 1)[PF2] = { "vmovsd", OPS(Vx, Hx, Ux), NAT(AVX, 0) },
	GROUP(GV_MOVSS_S, 0)[PF3] = { "vmovss", OPS(Md, Vx), NAT(AVX, 0) },
	GROUP(GV_MOVSS_S, 1)[PF3] = { "vmovss", OPS(Ux, Hx, Vx), NAT(AVX, 0) },
	GROUP(GV_MOVSD_S, 0)[PF2] = { "vmovsd", OPS(Mq, Vx), NAT(AVX, 0) },
	GROUP(GV_MOVSD_S, 1)[PF2] = { "vmovsd", OPS(Ux, Hx, Vx), NAT(AVX, 0) },
	/* From memory with AVX, from a register with AVX2. SDM 2C VBROADCAST */
	GROUP(GV_BCAST_SS, 0)[P66] = { "vbroadcastss", OPS(Vx, Md), NAT(AVX, W0) },
	GROUP(GV_BCAST_SS, 1)[P66] = { "vbroadcastss", OPS(Vx, Ux), NAT(AVX2, W0) },
	GROUP(GV_BCAST_SD, 0)[P66] = { "vbroadcastsd", OPS(Vx, Mq), NAT(AVX, L1 | W0) },
	GROUP(GV_BCAST_SD, 1)[P66] = { "vbroadcastsd", OPS(Vx, Ux), NAT(AVX2, L1 | W0) },

	/* EVEX: shifts and rotates by an immediate; loads, stores and merges of scalars. */
	GROUP(GE12, 2)[P66] = { "vpsrlw", OPS(Hx, Wx, Ib), EVEX(AVX512BW, E16) },
	GROUP(GE12, 4)[P66] = { "vpsraw", OPS(Hx, Wx, Ib), EVEX(AVX512BW, E16) },
	GROUP(GE12, 6)[P66] = { "vpsllw", OPS(Hx, Wx, Ib), EVEX(AVX512BW, E16) },
	GROUP(GE13_D, 0)[P66] = { "vprord", OPS(Hx, Wx, Ib), EVEX(AVX512F, E32 | BC) },
	GROUP(GE13_D, 1)[P66] = { "vprold", OPS(Hx, Wx, Ib), EVEX(AVX512F, E32 | BC) },
	GROUP(GE13_D, 2)[P66] = { "vpsrld", OPS(Hx, Wx, Ib), EVEX(AVX512F, E32 | BC) },
	GROUP(GE13_D, 4)[P66] = { "vpsrad", OPS(Hx, Wx, Ib), EVEX(AVX512F, E32 | BC) },
	GROUP(GE13_D, 6)[P66] = { "vpslld", OPS(Hx, Wx, Ib), EVEX(AVX512F, E32 | BC) },
	GROUP(GE13_Q, 0)[P66] = { "vprorq", OPS(Hx, Wx, Ib), EVEX(AVX512F, E64 | BC) },
	GROUP(GE13_Q, 1)[P66] = { "vprolq", OPS(Hx, Wx, Ib), EVEX(AVX512F, E64 | BC) },
	GROUP(GE13_Q, 4)[P66] = { "vpsraq", OPS(Hx, Wx, Ib), EVEX(AVX512F, E64 | BC) },
	GROUP(GE14_D, 3)[P66] = { "vpsrldq", OPS(Hx, Wx, Ib), EVEX(AVX512BW, NOK) },
	GROUP(GE14_D, 7)[P66] = { "vpslldq", OPS(Hx, Wx, Ib), EVEX(AVX512BW, NOK) },
	GROUP(GE14_Q, 2)[P66] = { "vpsrlq", OPS(Hx, Wx, Ib), EVEX(AVX512F, E64 | BC) },
	GROUP(GE14_Q, 3)[P66] = { "vpsrldq", OPS(Hx, Wx, Ib), EVEX(AVX512BW, NOK) },
	GROUP(GE14_Q, 6)[P66] = { "vpsllq", OPS(Hx, Wx, Ib), EVEX(AVX512F, E64 | BC) },
	GROUP(GE14_Q, 7)[P66] = { "vpslldq", OPS(Hx, Wx, Ib), EVEX(AVX512BW, NOK) },
	GROUP(GE_MOVSS_L, 0)[PF3] = { "vmovss", OPS(Vx, Md), EVEX(AVX512F, E32 | LIG) },
	GROUP(GE_MOVSS_L, 1)[PF3] = { "vmovss", OPS(Vx, Hx, Ux), EVEX(AVX512F, E32 | LIG) },
	GROUP(GE_MOVSD_L, 0)[PF2] = { "vmovsd", OPS(Vx, Mq), EVEX(AVX512F, E64 | LIG) },
	GROUP(GE_MOVSD_L, 1)[PF2] = { "vmovsd", OPS(Vx, Hx, Ux), EVEX(AVX512F, E64 | LIG) },
	GROUP(GE_MOVSS_S, 0)[PF3] = { "vmovss", OPS(Md, Vx), EVEX(AVX512F, E32 | LIG) },
	GROUP(GE_MOVSS_S, 1)[PF3] = { "vmovss", OPS(Ux, Hx, Vx), EVEX(AVX512F, E32 | LIG) },
	GROUP(GE_MOVSD_S, 0)[PF2] = { "vmovsd", OPS(Mq, Vx), EVEX(AVX512F, E64 | LIG) },
	GROUP(GE_MOVSD_S, 1)[PF2] = { "vmovsd", OPS(Ux, Hx, Vx), EVEX(AVX512F, E64 | LIG) },
};
