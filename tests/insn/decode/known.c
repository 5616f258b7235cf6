/* Where the two decoders disagree, and which manual decides. */
#include <string.h>

#include "tests/insn/decode/decode.h"

static bool rejected(const struct comparison *c)
{
	return c->result != DECODE_OK && c->zydis_ok;
}

static bool named(const struct comparison *c, const char *name)
{
	return c->row && !strcmp(c->row->name, name);
}

/* Extensions that x86/cpuid.c never offers: without the feature they are #UD. */
static bool not_offered(const struct comparison *c)
{
	static const u8 ext[] = {
		ZYDIS_ISA_EXT_AMD3DNOW, ZYDIS_ISA_EXT_AMD_INVLPGB, ZYDIS_ISA_EXT_AMX_BF16, ZYDIS_ISA_EXT_AMX_INT8,
		ZYDIS_ISA_EXT_AMX_TILE, ZYDIS_ISA_EXT_AVX_VNNI,
		ZYDIS_ISA_EXT_CET, ZYDIS_ISA_EXT_ENQCMD, ZYDIS_ISA_EXT_FMA4, ZYDIS_ISA_EXT_HRESET,
		ZYDIS_ISA_EXT_KEYLOCKER, ZYDIS_ISA_EXT_KEYLOCKER_WIDE, ZYDIS_ISA_EXT_KNC, ZYDIS_ISA_EXT_KNCE,
		ZYDIS_ISA_EXT_KNCV, ZYDIS_ISA_EXT_MCOMMIT, ZYDIS_ISA_EXT_MONITORX, ZYDIS_ISA_EXT_MOVDIR,
		ZYDIS_ISA_EXT_PADLOCK, ZYDIS_ISA_EXT_PCONFIG, ZYDIS_ISA_EXT_PKU, ZYDIS_ISA_EXT_PT, ZYDIS_ISA_EXT_RDPRU,
		ZYDIS_ISA_EXT_RTM, ZYDIS_ISA_EXT_SERIALIZE, ZYDIS_ISA_EXT_SGX, ZYDIS_ISA_EXT_SGX_ENCLV,
		ZYDIS_ISA_EXT_SMX, ZYDIS_ISA_EXT_SNP, ZYDIS_ISA_EXT_SVM, ZYDIS_ISA_EXT_TBM, ZYDIS_ISA_EXT_TDX,
		ZYDIS_ISA_EXT_TSX_LDTRK, ZYDIS_ISA_EXT_UINTR, ZYDIS_ISA_EXT_VMFUNC, ZYDIS_ISA_EXT_VTX,
		ZYDIS_ISA_EXT_WAITPKG, ZYDIS_ISA_EXT_XOP,
	};

	return rejected(c) && memchr(ext, c->zi.meta.isa_ext, sizeof(ext));
}

/* Parts of AVX-512 that x86/cpuid.c never offers. */
static bool avx512_not_offered(const struct comparison *c)
{
	static const char *const part[] = {
		"AVX512ER_", "AVX512PF_", "AVX512_4FMAPS_", "AVX512_4VNNIW_", "AVX512_FP16_",
		"AVX512_VP2INTERSECT_",
	};
	const char *set = c->zydis_ok ? ZydisISASetGetString(c->zi.meta.isa_set) : "";

	for (unsigned int k = 0; k < ARRAY_SIZE(part); k++)
		if (rejected(c) && !strncmp(set, part[k], strlen(part[k])))
			return true;
	return false;
}

static bool hint_or_ud(const struct comparison *c)
{
	bool hint = named(c, "nop") || (c->row && !strncmp(c->row->name, "prefetch", 8));

	return c->result == DECODE_OK && c->zydis_ok && c->insn.len == c->zi.length &&
		(hint || named(c, "ud0") || named(c, "ud1"));
}

static bool prefetch_register(const struct comparison *c)
{
	return rejected(c) && c->zi.opcode_map == ZYDIS_OPCODE_MAP_0F && c->zi.opcode == 0x0d &&
		c->zi.raw.modrm.mod == 3;
}

static bool vpextrq_32(const struct comparison *c)
{
	return rejected(c) && c->code != 8 && c->zi.raw.vex.W &&
		(c->zi.mnemonic == ZYDIS_MNEMONIC_VPEXTRD || c->zi.mnemonic == ZYDIS_MNEMONIC_VPINSRD);
}

static bool evex_si2sd_w(const struct comparison *c)
{
	return c->code != 8 && c->insn.flags & I_EVEX && c->insn.evex & EVEX_B && !c->zydis_ok &&
		(named(c, "vcvtsi2sd") || named(c, "vcvtusi2sd"));
}

static bool movmsk_w(const struct comparison *c)
{
	return c->zydis_ok && c->insn.flags & I_W && strstr(c->diff, "reg: width 4") && c->row->op[0] == OP_Gd &&
		c->row->op[1] == OP_Ux;
}

static bool lar_source(const struct comparison *c)
{
	return (named(c, "lar") || named(c, "lsl")) && strstr(c->diff, "rm: width 2");
}

static bool cache_line(const struct comparison *c)
{
	return c->row && (!strncmp(c->row->name, "clflush", 7) || named(c, "clwb")) && strstr(c->diff, "512 bits");
}

static bool branch_66(const struct comparison *c)
{
	return c->code == 8 && c->insn.flags & I_66 && c->zydis_ok && (named(c, "call") || named(c, "jmp")) &&
		strstr(c->diff, "2, Zydis has");
}

static bool cr8_lock(const struct comparison *c)
{
	return !c->zydis_ok && c->insn.flags & I_LOCK && named(c, "mov") && c->insn.reg == 8;
}

static bool sib_r13(const struct comparison *c)
{
	return c->zydis_ok && c->insn.asize == 4 && c->code == 8 && c->insn.base == R_ZERO &&
		strstr(c->diff, "has r13d");
}

static bool movsxd_16(const struct comparison *c)
{
	return named(c, "movsxd") && c->insn.opsize == 2 && strstr(c->diff, "rm: width 4");
}

static bool flags_differ(const struct comparison *c)
{
	return !strncmp(c->diff, "flags", 5);
}

static bool shift_of(const struct comparison *c)
{
	const struct opcode *row = c->row;

	return flags_differ(c) && row->attr & ATTR_COUNT && row->f_read == c->zi.cpu_flags->tested &&
		row->f_write == (c->zi.cpu_flags->modified | RFLAGS_OF) &&
		(row->f_undef | RFLAGS_OF) == c->zi.cpu_flags->undefined;
}

static bool rep_zf(const struct comparison *c)
{
	return flags_differ(c) && (named(c, "cmps") || named(c, "scas"));
}

static bool sbb_af(const struct comparison *c)
{
	return flags_differ(c) && named(c, "sbb");
}

static bool vtest_clear(const struct comparison *c)
{
	return flags_differ(c) && (named(c, "vptest") || named(c, "vtestps") || named(c, "vtestpd"));
}

static bool bextr_clear(const struct comparison *c)
{
	return flags_differ(c) && named(c, "bextr");
}

static bool flags_saved(const struct comparison *c)
{
	return flags_differ(c) && c->row->attr & (ATTR_BRANCH | ATTR_END) && !(c->row->attr & ATTR_USER);
}

static bool whole_area(const struct comparison *c)
{
	return !strncmp(c->diff, "memory access 0", 15) && c->row->op[0] == OP_M &&
		(strstr(c->row->name, "xsave") || strstr(c->row->name, "xrstor") || named(c, "invlpg"));
}

static bool lgdt_cpl(const struct comparison *c)
{
	return named(c, "lgdt") && !strncmp(c->diff, "privileged", 10);
}

static const struct known {
	bool (*match)(const struct comparison *c);
	const char *why;
} known[] = {
	{ not_offered, "extension without its CPUID bit: #UD (SDM 1 chapter 21, APM 3 appendix D)" },
	{ avx512_not_offered, "a part of AVX-512 without its CPUID bit: #UD (SDM 1 15.4)" },
	{ hint_or_ud, "operands of hints and of UD0, UD1 are never looked at (SDM 2B NOP, PREFETCHh, UD)" },
	{ prefetch_register, "0F 0D has no register form with AMD (APM 3 PREFETCHlevel: #UD)" },
	{ vpextrq_32, "VPEXTRQ, VPINSRQ exist in 64-bit mode only: V/I (SDM 2B PEXTRB, PINSRB), and measured" },
	{ evex_si2sd_w, "VCVTSI2SD from 32 bits ignores EVEX.b, with W outside 64-bit mode as well (SDM 2C), and measured" },
	{ movmsk_w, "MOVMSKPx, PMOVMSKB: the upper half is zero with and without REX.W (SDM 2B MOVMSKPS)" },
	{ lar_source, "LAR, LSL look at 16 bits of a register source (SDM 2A LAR, LSL)" },
	{ cache_line, "the operand of CLFLUSH and CLWB is m8; the line is what it names (SDM 2A CLFLUSH)" },
	{ branch_66, "AMD: 66 makes indirect near branches 16 bits wide too (APM 3 CALL, JMP)" },
	{ cr8_lock, "LOCK MOV CR0 is MOV CR8 (APM 3 MOV CRn, AltMovCr8)" },
	{ movsxd_16, "AMD: MOVSXD to 16 bits has a 32-bit source (APM 3 MOVSXD; 16 with Intel, SDM 2B)" },
	{ shift_of, "shifts: OF is defined for a count of 1, which ATTR_COUNT says (SDM 2B SAL/SAR/SHL/SHR)" },
	{ rep_zf, "REPE, REPNE look at the ZF that the comparison made (SDM 2B REP)" },
	{ sbb_af, "SBB sets AF (SDM 2B SBB)" },
	{ vtest_clear, "VPTEST, VTESTPx clear OF, AF, PF, SF (SDM 2B PTEST, 2C VTESTPD)" },
	{ bextr_clear, "BEXTR clears CF and OF (SDM 2A BEXTR)" },
	{ flags_saved, "interrupts, system calls, VM exits save and load flags (SDM 2A INT n, SYSCALL)" },
	{ whole_area, "XSAVE areas have no fixed size, INVLPG only an address (SDM 2B INVLPG, 2D XSAVE)" },
	{ lgdt_cpl, "LGDT is privileged (SDM 2A LGDT)" },
	{ sib_r13, "SIB base 101b with mod 0 is disp32 without base, REX.B or not (SDM 2A table 2-5)" },
};

unsigned int known_count(void)
{
	return ARRAY_SIZE(known);
}

const char *known_reason(unsigned int n)
{
	return known[n].why;
}

int known_match(const struct comparison *c)
{
	for (unsigned int n = 0; n < known_count(); n++)
		if (known[n].match(c))
			return (int)n;
	return -1;
}
