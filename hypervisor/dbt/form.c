/*
 * Which opcode rows have a translation, and how each is encoded again. A row that is not named here
 * goes to the interpreter: nothing is copied into host code that was not looked at.
 */
#include "hypervisor/dbt/dbt.h"
#include "hypervisor/insn/exec.h"

struct set_form {
	const struct exec_set *set;
	u8 kind;
};

static const struct set_form sets[] = {
#define ALU(op) { &x_##op##_EG, FORM_GENERIC }, { &x_##op##_GE, FORM_GENERIC }, \
	{ &x_##op##_EI, FORM_GENERIC }
	ALU(add), ALU(or), ALU(adc), ALU(sbb), ALU(and), ALU(sub), ALU(xor), ALU(cmp),
#undef ALU
	{ &x_test_EG, FORM_GENERIC }, { &x_test_EI, FORM_GENERIC },
	{ &x_inc_E, FORM_GENERIC }, { &x_dec_E, FORM_GENERIC },
	{ &x_not_E, FORM_GENERIC }, { &x_neg_E, FORM_GENERIC },
	{ &x_imul_GE, FORM_GENERIC }, { &x_imul_GEI, FORM_GENERIC },
	{ &x_xadd_EG, FORM_GENERIC }, { &x_xchg_EG, FORM_GENERIC },
	{ &x_mov_EG, FORM_GENERIC }, { &x_mov_GE, FORM_GENERIC }, { &x_mov_EI, FORM_MOV_IMM },
	{ &x_movzxb_GE, FORM_GENERIC }, { &x_movzxw_GE, FORM_GENERIC },
	{ &x_movsxb_GE, FORM_GENERIC }, { &x_movsxw_GE, FORM_GENERIC },
	{ &x_movsxd_GE, FORM_GENERIC }, { &x_lea_G, FORM_LEA },
	{ &x_rol_EI, FORM_GENERIC }, { &x_ror_EI, FORM_GENERIC }, { &x_rcl_EI, FORM_GENERIC },
	{ &x_rcr_EI, FORM_GENERIC }, { &x_shl_EI, FORM_GENERIC }, { &x_shr_EI, FORM_GENERIC },
	{ &x_sar_EI, FORM_GENERIC },
	{ &x_rol_EC, FORM_SHIFT_CL }, { &x_ror_EC, FORM_SHIFT_CL }, { &x_rcl_EC, FORM_SHIFT_CL },
	{ &x_rcr_EC, FORM_SHIFT_CL }, { &x_shl_EC, FORM_SHIFT_CL }, { &x_shr_EC, FORM_SHIFT_CL },
	{ &x_sar_EC, FORM_SHIFT_CL },
	{ &x_shld_EGI, FORM_GENERIC }, { &x_shrd_EGI, FORM_GENERIC },
	{ &x_shld_EGC, FORM_SHIFT_CL }, { &x_shrd_EGC, FORM_SHIFT_CL },
	{ &x_bt_EI, FORM_GENERIC }, { &x_bts_EI, FORM_GENERIC }, { &x_btr_EI, FORM_GENERIC },
	{ &x_btc_EI, FORM_GENERIC },
	{ &x_bsf_GE, FORM_GENERIC }, { &x_bsr_GE, FORM_GENERIC },
	{ &x_popcnt_GE, FORM_GENERIC }, { &x_bswap_E, FORM_GENERIC },
	{ &x_tzcnt_GE, FORM_GENERIC }, { &x_lzcnt_GE, FORM_GENERIC },
	{ &x_movbe_GE, FORM_GENERIC }, { &x_movbe_EG, FORM_GENERIC },
	{ &x_crc32_GE, FORM_GENERIC },
	{ &x_adcx_GE, FORM_GENERIC }, { &x_adox_GE, FORM_GENERIC },
	{ &x_andn_GVE, FORM_GENERIC }, { &x_bextr_GEV, FORM_GENERIC },
	{ &x_bzhi_GEV, FORM_GENERIC }, { &x_mulx_GVE, FORM_GENERIC },
	{ &x_pdep_GVE, FORM_GENERIC }, { &x_pext_GVE, FORM_GENERIC },
	{ &x_rorx_GEI, FORM_GENERIC }, { &x_sarx_GEV, FORM_GENERIC },
	{ &x_shlx_GEV, FORM_GENERIC }, { &x_shrx_GEV, FORM_GENERIC },
	{ &x_blsi_VE, FORM_GENERIC }, { &x_blsmsk_VE, FORM_GENERIC },
	{ &x_blsr_VE, FORM_GENERIC },
	{ &x_mul_E, FORM_MULDIV }, { &x_imul_E, FORM_MULDIV }, { &x_div_E, FORM_MULDIV },
	{ &x_idiv_E, FORM_MULDIV }, { &x_cmpxchg_EG, FORM_CMPXCHG },
	{ &x_push_E, FORM_PUSH }, { &x_pop_E, FORM_POP }, { &x_push_I, FORM_PUSH_IMM },
	{ &x_jmp_E, FORM_JMP_IND }, { &x_call_E, FORM_CALL_IND },
};

struct run_form {
	insn_fn *run;
	u8 kind;
};

static const struct run_form runs[] = {
	{ exec_nop, FORM_NOP }, { exec_leave, FORM_LEAVE },
	{ exec_cbw, FORM_CBW }, { exec_cwd, FORM_CWD },
	{ exec_clc, FORM_GENERIC }, { exec_stc, FORM_GENERIC }, { exec_cmc, FORM_GENERIC },
	{ exec_jmp_rel, FORM_JMP }, { exec_call_rel, FORM_CALL }, { exec_ret, FORM_RET },
	{ exec_loop, FORM_LOOP }, { exec_jcxz, FORM_JCXZ },
	{ exec_x87, FORM_X87 }, { exec_fwait, FORM_X87 },
	{ exec_sahf, FORM_SAHF }, { exec_lahf, FORM_LAHF },
	{ exec_native, FORM_VECTOR }, { exec_native_flags, FORM_VECTOR },
};

static u8 kind_of(const struct opcode *row)
{
	unsigned int k;

	for (k = 0; row->set && k < ARRAY_SIZE(sets); k++)
		if (sets[k].set == row->set)
			return sets[k].kind;
	for (k = 0; row->set && k < 16; k++)
		if (row->set == &x_cmov_GE[k] || row->set == &x_set_E[k])
			return FORM_GENERIC;
	for (k = 0; row->run && k < ARRAY_SIZE(runs); k++)
		if (runs[k].run == row->run)
			return runs[k].kind;
	if (row->attr & ATTR_JCC)
		return FORM_JCC;
	if (form_is_system(row))
		return FORM_SYSTEM;
	return row->attr & (ATTR_BRANCH | ATTR_END) ? FORM_TERMINAL : FORM_HELPER;
}

/* Bytes of immediate behind ModRM. */
static u8 form_imm(const struct opcode *row)
{
	unsigned int n = 0;

	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (o->place == PL_IMM || o->place == PL_IMMU)
			n = o->size == SZ_B ? 1 : o->size == SZ_W ? 2 : IMM_Z;
		else if (o->place == PL_IMM2 || o->place == PL_IS4)
			n++;
	}
	return (u8)n;
}

static bool has_class(const struct opcode *row, unsigned int class)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++)
		if (operand_info[row->op[k]].class == class)
			return true;
	return false;
}

/* Vector state it needs, as insn/native.c has it. */
static u8 form_fp(const struct opcode *row, const struct opcode_where *at)
{
	u8 fp = 0;

	if (row->feature == F_FPU || (at->map == MAP_1 && at->opcode >= 0xd8 && at->opcode <= 0xdf))
		return FP_X87;
	if (at->map >= MAP_EVEX1 || has_class(row, CL_MASK))
		return FP_AVX512;
	if (at->map >= MAP_VEX1)
		return FP_AVX;
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (o->class == CL_VEC)
			fp |= FP_SSE;
		if (o->class == CL_MMX)
			fp |= FP_MMX;
	}
	if (!fp && row->feature == F_MMX)
		fp = FP_MMX;
	return fp;
}

static bool has_place(const struct opcode *row, unsigned int place)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++)
		if (operand_info[row->op[k]].place == place)
			return true;
	return false;
}

/*
 * Forms with the register in the opcode, or the accumulator implied, become those with ModRM: 04 is
 * 80 /0, 40 is FF /0, 90 is 87, A8 is F6 /0, D1 is as it was.
 */
static void form_modrm(struct form *f, const struct opcode *row)
{
	bool acc = has_place(row, PL_ACC), opc = has_place(row, PL_OPC);

	if (f->map == 0 && f->op == 0x82)	/* 80, outside 64-bit mode */
		f->op = 0x80;
	if (f->map != 0 || !(acc || opc))
		return;
	if (f->op < 0x40 && (f->op & 7) >= 4) {
		f->ext = (s8)(f->op >> 3);
		f->op = f->op & 1 ? 0x81 : 0x80;
	} else if (f->op >= 0x40 && f->op < 0x50) {
		f->ext = (s8)(f->op >> 3 & 1);
		f->op = 0xff;
	} else if (f->op >= 0x90 && f->op < 0x98) {
		f->op = 0x87;
	} else if (f->op == 0xa8 || f->op == 0xa9) {
		f->ext = 0;
		f->op = f->op & 1 ? 0xf7 : 0xf6;
	}
}

void form_fill(struct form *f, const struct insn *i)
{
	static const u8 pfx[] = { [OPC_66] = 0x66, [OPC_F3] = 0xf3, [OPC_F2] = 0xf2 };
	const struct opcode *row = opcode_row(i->row);
	struct opcode_where at;
	u8 kind;

	if (!row || !opcode_where(i->row, &at)) {
		f->kind = FORM_HELPER;
		return;
	}
	kind = kind_of(row);
	f->conditional = row->feature != F_NONE || row->attr & ATTR_I256 ||
		row->set == &x_tzcnt_GE || row->set == &x_lzcnt_GE;
	f->mem_kind = (u8)opcode_mem_kind(row);
	f->mem_access = (u8)opcode_mem_access(row);
	f->map = at.map;
	f->vex = at.map >= MAP_EVEX1 ? 2 : at.map >= MAP_VEX1;
	if (f->vex)
		f->map = (u8)(at.map - (f->vex == 2 ? MAP_EVEX1 : MAP_VEX1) + 1);
	f->pfx = pfx[at.pfx];
	f->op = at.opcode;
	f->ext = at.ext;
	f->rm = at.rm;
	f->imm = form_imm(row);
	if (kind == FORM_VECTOR)
		f->fp = form_fp(row, &at);
	form_modrm(f, row);
	f->kind = kind;
}
