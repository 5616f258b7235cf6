/*
 * Names of all instruction handlers, as the opcode table uses them.
 *
 * x_<mnemonic>_<operands> is a set by width and place (struct exec_set), exec_<mnemonic> a single
 * handler that looks at insn->opsize itself. Operand letters: E ModRM.rm, G ModRM.reg, I immediate,
 * C the CL register, O a moffs, A the accumulator; the first is the destination. Short forms use
 * the general one: "add AL, imm8" is x_add_EI with rm = AL in register form, "inc r16" is x_inc_E,
 * "shl E, 1" is x_shl_EI with imm = 1, "push r64" is x_push_E.
 */
#ifndef QUMRA_HYPERVISOR_INSN_EXEC_H
#define QUMRA_HYPERVISOR_INSN_EXEC_H

#include "hypervisor/insn/insn.h"

/* ---- alu.c: add or adc sbb and sub xor cmp test, one operand, bits --------------------------- */
#define DECLARE_ALU(op) extern const struct exec_set x_##op##_EG, x_##op##_GE, x_##op##_EI
DECLARE_ALU(add);
DECLARE_ALU(or);
DECLARE_ALU(adc);
DECLARE_ALU(sbb);
DECLARE_ALU(and);
DECLARE_ALU(sub);
DECLARE_ALU(xor);
DECLARE_ALU(cmp);
extern const struct exec_set x_test_EG, x_test_EI;
extern const struct exec_set x_inc_E, x_dec_E, x_not_E, x_neg_E;
extern const struct exec_set x_mul_E, x_imul_E, x_div_E, x_idiv_E;
extern const struct exec_set x_imul_GE, x_imul_GEI;
extern const struct exec_set x_xadd_EG, x_cmpxchg_EG, x_xchg_EG;
insn_fn exec_cmpxchg8b, exec_cmpxchg16b;

/* ---- shift.c --------------------------------------------------------------------------------- */
#define DECLARE_SHIFT(op) extern const struct exec_set x_##op##_EI, x_##op##_EC
DECLARE_SHIFT(rol);
DECLARE_SHIFT(ror);
DECLARE_SHIFT(rcl);
DECLARE_SHIFT(rcr);
DECLARE_SHIFT(shl);
DECLARE_SHIFT(shr);
DECLARE_SHIFT(sar);
extern const struct exec_set x_shld_EGI, x_shld_EGC, x_shrd_EGI, x_shrd_EGC;

/* ---- bits.c: bit tests, counts, BMI, ADX, CRC32, MOVBE (inline asm on the host's units) ------ */
extern const struct exec_set x_bt_EG, x_bts_EG, x_btr_EG, x_btc_EG;
extern const struct exec_set x_bt_EI, x_bts_EI, x_btr_EI, x_btc_EI;
extern const struct exec_set x_bsf_GE, x_bsr_GE, x_tzcnt_GE, x_lzcnt_GE, x_popcnt_GE;
extern const struct exec_set x_bswap_E, x_movbe_GE, x_movbe_EG;
/* By the source's width (opsize = source); reg is written as 4 bytes, or 8 with I_W. */
extern const struct exec_set x_crc32_GE;
extern const struct exec_set x_adcx_GE, x_adox_GE;	/* widths 4 and 8 from here on */
extern const struct exec_set x_andn_GVE, x_bextr_GEV, x_bzhi_GEV, x_mulx_GVE;
extern const struct exec_set x_pdep_GVE, x_pext_GVE;
extern const struct exec_set x_rorx_GEI, x_sarx_GEV, x_shlx_GEV, x_shrx_GEV;
extern const struct exec_set x_blsi_VE, x_blsmsk_VE, x_blsr_VE;
extern const struct exec_set x_rdrand_E, x_rdseed_E;

/* ---- move.c ---------------------------------------------------------------------------------- */
extern const struct exec_set x_mov_EG, x_mov_GE, x_mov_EI, x_mov_AO, x_mov_OA;
extern const struct exec_set x_lea_G;		/* fn[4 ..], by the width of reg */
/* by dest */
extern const struct exec_set x_movzxb_GE, x_movzxw_GE, x_movsxb_GE, x_movsxw_GE, x_movsxd_GE;
extern const struct exec_set x_cmov_GE[16], x_set_E[16];	/* by condition code */
/* insn->reg: segment number; END after a load of SS */
insn_fn exec_mov_from_sreg, exec_mov_to_sreg;
insn_fn exec_les, exec_lds, exec_lss, exec_lfs, exec_lgs;
insn_fn exec_cbw, exec_cwd;			/* by opsize: CBW CWDE CDQE, CWD CDQ CQO */
insn_fn exec_xlat, exec_lahf, exec_sahf, exec_salc;
insn_fn exec_clc, exec_stc, exec_cmc, exec_cld, exec_std;
insn_fn exec_aaa, exec_aas, exec_aad, exec_aam, exec_daa, exec_das;
insn_fn exec_nop, exec_pause, exec_fence;
insn_fn exec_ud;				/* raises #UD */

/* ---- stack.c --------------------------------------------------------------------------------- */
extern const struct exec_set x_push_E, x_pop_E, x_push_I;	/* by opsize: 2, 4, 8 */
insn_fn exec_push_sreg, exec_pop_sreg;		/* insn->reg: segment number */
insn_fn exec_pusha, exec_popa, exec_pushf, exec_popf, exec_enter, exec_leave;

/* ---- control.c: near transfers; all BRANCH but exec_bound ------------------------------------ */
extern insn_fn *const exec_jcc[16];		/* by condition code */
insn_fn exec_jmp_rel, exec_call_rel, exec_ret;	/* ret: imm bytes popped as well */
extern const struct exec_set x_jmp_E, x_call_E;
insn_fn exec_loop, exec_loope, exec_loopne, exec_jcxz;
insn_fn exec_bound;

/* ---- string.c: fn[4 ..] by element width; seg is the source's segment; imm unused ------------ */
extern const struct exec_set x_movs, x_cmps, x_scas, x_lods, x_stos, x_ins, x_outs;

/* ---- "far": insn/far.c (calls x86/far.c); all BRANCH ----------------------------------------- */
insn_fn exec_jmp_far_ptr, exec_call_far_ptr;	/* imm: offset, imm2: selector */
insn_fn exec_jmp_far_mem, exec_call_far_mem, exec_ret_far, exec_iret;
insn_fn exec_int, exec_int3, exec_into, exec_int1;
insn_fn exec_syscall, exec_sysret, exec_sysenter, exec_sysexit, exec_rsm;

/* ---- "system": insn/system.c and neighbours; END where the row says so ----------------------- */
insn_fn exec_mov_from_cr, exec_mov_to_cr;	/* insn->reg: number; insn->rm: GPR */
insn_fn exec_mov_from_dr, exec_mov_to_dr;
insn_fn exec_clts, exec_lmsw, exec_smsw;
insn_fn exec_lgdt, exec_lidt, exec_sgdt, exec_sidt, exec_lldt, exec_ltr, exec_sldt, exec_str;
insn_fn exec_lar, exec_lsl, exec_verr, exec_verw, exec_arpl;
insn_fn exec_invlpg, exec_invpcid, exec_invd, exec_wbinvd;
insn_fn exec_hlt, exec_cli, exec_sti, exec_clac, exec_stac;
/* port: imm (row has I) or DX; width by opsize; see row */
insn_fn exec_in, exec_out;
insn_fn exec_in_dx, exec_out_dx;
insn_fn exec_rdmsr, exec_wrmsr, exec_rdtsc, exec_rdtscp, exec_rdpmc, exec_rdpid, exec_cpuid;
insn_fn exec_swapgs, exec_rdfsbase, exec_rdgsbase, exec_wrfsbase, exec_wrgsbase;
insn_fn exec_xgetbv, exec_xsetbv, exec_monitor, exec_mwait;
insn_fn exec_vmcall, exec_vmmcall;
insn_fn exec_clflush;				/* CLFLUSH, CLFLUSHOPT, CLWB */
insn_fn exec_clzero;

/* ---- native.c, simd.c, x87.c, xsave.c -------------------------------------------------------- */
insn_fn exec_native;				/* SSE, AVX, MMX, crypto; needs insn->aux */
/* the same with GPRs or flags: COMISS, PTEST, CVTxS2SI ... */
insn_fn exec_native_flags;
insn_fn exec_x87;				/* x87 but those below: keeps FOP, FIP, FDP too */
insn_fn exec_fwait;
insn_fn exec_fldenv, exec_fnstenv, exec_fnsave, exec_frstor;
insn_fn exec_fxsave, exec_fxrstor;
insn_fn exec_xsave, exec_xsaveopt, exec_xsavec, exec_xsaves, exec_xrstor, exec_xrstors;
insn_fn exec_ldmxcsr, exec_stmxcsr;		/* VEX forms too */
insn_fn exec_maskmov;				/* MASKMOVQ, (V)MASKMOVDQU */
insn_fn exec_vmaskmov;				/* VMASKMOVPS/PD, VPMASKMOVD/Q, loads and stores */
insn_fn exec_gather;				/* VGATHER*, VPGATHER* */
insn_fn exec_evex_gather, exec_evex_scatter;	/* the same with EVEX, and VSCATTER*, VPSCATTER* */

#endif
