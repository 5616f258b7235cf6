/* One byte string decoded by both decoders, operand by operand. */
#include <stdio.h>
#include <string.h>

#include "tests/insn/decode/decode.h"

#define DIFF(c, ...) (snprintf((c)->diff, sizeof((c)->diff), __VA_ARGS__), false)

static const ZydisDecoder *decoder_for(unsigned int code)
{
	static _Thread_local ZydisDecoder dec[3];
	static _Thread_local bool ready;
	static const ZydisMachineMode mode[] = {ZYDIS_MACHINE_MODE_REAL_16,
		ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
	static const ZydisStackWidth width[] = {
		ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32, ZYDIS_STACK_WIDTH_64};

	for (unsigned int i = 0; !ready && i < 3; i++) {
		/* In real mode there is no VEX; 16-bit protected mode has the same code size. */
		ZydisDecoderInit(
			&dec[i], i == 0 ? ZYDIS_MACHINE_MODE_LEGACY_16 : mode[i], width[i]);
		ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_TRUE);
		ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
		ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
		ZydisDecoderEnableMode(&dec[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
	}
	ready = true;
	return &dec[code == 2 ? 0 : code == 4 ? 1 : 2];
}

static const struct operand_info *info_at(const struct comparison *c, enum operand_place place)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(c->row->op) && c->row->op[k]; k++)
		if (operand_info[c->row->op[k]].place == place)
			return &operand_info[c->row->op[k]];
	return NULL;
}

/* The operand whose ModRM.rm it is. */
static const struct operand_info *info_rm(const struct comparison *c)
{
	static const u8 places[] = {PL_RM, PL_U, PL_M, PL_RMREG, PL_VSIB};
	const struct operand_info *o = NULL;

	for (unsigned int i = 0; i < sizeof(places) && !o; i++)
		o = info_at(c, places[i]);
	return o;
}

static unsigned int class_of(ZydisRegisterClass rc)
{
	switch (rc) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64: return CL_GPR;
	case ZYDIS_REGCLASS_XMM:
	case ZYDIS_REGCLASS_YMM:
	case ZYDIS_REGCLASS_ZMM: return CL_VEC;
	case ZYDIS_REGCLASS_MASK: return CL_MASK;
	case ZYDIS_REGCLASS_MMX: return CL_MMX;
	case ZYDIS_REGCLASS_X87: return CL_X87;
	case ZYDIS_REGCLASS_SEGMENT: return CL_SREG;
	case ZYDIS_REGCLASS_CONTROL: return CL_CR;
	case ZYDIS_REGCLASS_DEBUG: return CL_DR;
	default: return CL_NONE;
	}
}

/* Byte offset into v->r of a general register. */
static unsigned int gpr_of(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return (unsigned int)(reg - ZYDIS_REGISTER_AH) * 8 + 1;
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return (unsigned int)(reg - ZYDIS_REGISTER_SPL + 4) * 8;
	return (unsigned int)ZydisRegisterGetId(reg) * 8;
}

static unsigned int gpr_width(ZydisRegisterClass rc)
{
	switch (rc) {
	case ZYDIS_REGCLASS_GPR8: return 1;
	case ZYDIS_REGCLASS_GPR16: return 2;
	case ZYDIS_REGCLASS_GPR32: return 4;
	default: return 8;
	}
}

/* CRC32's destination has W's width, the row's operand size is the source's. */
static unsigned int register_bytes(const struct comparison *c, const struct operand_info *o)
{
	if (o->class == CL_GPR && o->size == SZ_0)
		return c->insn.flags & I_W ? 8 : 4;
	return operand_bytes(o->size, &c->insn);
}

static bool compare_register(struct comparison *c, const char *what, const struct operand_info *o,
	ZydisRegister reg, unsigned int ours)
{
	ZydisRegisterClass rc = ZydisRegisterGetClass(reg);
	unsigned int theirs =
		class_of(rc) == CL_GPR ? gpr_of(reg) : (unsigned int)ZydisRegisterGetId(reg);

	if (!o)
		return DIFF(c, "%s: the row has no such operand", what);
	if (class_of(rc) != o->class)
		return DIFF(c, "%s: class %u, Zydis has %s", what, o->class,
			ZydisRegisterGetString(reg));
	if (ours != theirs)
		return DIFF(c, "%s: register %u, Zydis has %s", what, ours,
			ZydisRegisterGetString(reg));
	if (o->class == CL_GPR && gpr_width(rc) != register_bytes(c, o))
		return DIFF(c, "%s: width %u, Zydis has %s", what, register_bytes(c, o),
			ZydisRegisterGetString(reg));
	return true;
}

/* R_* number of a base or index; vector registers by their number. */
static unsigned int address_register(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_INVALID: return R_ZERO;
	case ZYDIS_REGCLASS_IP: return R_RIP;
	default: return (unsigned int)ZydisRegisterGetId(reg);
	}
}

static unsigned int segment_of(ZydisRegister reg)
{
	return (unsigned int)ZydisRegisterGetId(reg);
}

static s64 expected_disp(const struct comparison *c, const ZydisDecodedOperand *z)
{
	s64 disp = z->mem.disp.has_displacement ? z->mem.disp.value : 0;

	if (c->insn.base == R_RIP && disp + c->insn.len <= INT32_MAX)
		disp += c->insn.len;
	return disp;
}

static unsigned int scale_shift(unsigned int scale)
{
	return scale ? (unsigned int)__builtin_ctz(scale) : 0;
}

static bool compare_address(struct comparison *c, const ZydisDecodedOperand *z)
{
	const struct insn *i = &c->insn;

	if (i->base != address_register(z->mem.base) || i->index != address_register(z->mem.index))
		return DIFF(c, "base %u index %u, Zydis has %s %s", i->base, i->index,
			ZydisRegisterGetString(z->mem.base), ZydisRegisterGetString(z->mem.index));
	if (z->mem.index != ZYDIS_REGISTER_NONE && i->scale != scale_shift(z->mem.scale))
		return DIFF(c, "scale %u, Zydis has %u", i->scale, z->mem.scale);
	if (i->disp != expected_disp(c, z))
		return DIFF(c, "disp %d, Zydis has %lld", i->disp, (long long)expected_disp(c, z));
	return true;
}

static bool compare_memory(struct comparison *c, const ZydisDecodedOperand *z)
{
	const struct operand_info *o = info_rm(c);
	unsigned int size = o ? operand_mem_bytes(o->msize, &c->insn) : 0;

	if (!o || !(c->insn.flags & I_MEM))
		return DIFF(c, "Zydis has a memory operand");
	if (z->mem.type != ZYDIS_MEMOP_TYPE_AGEN && c->insn.seg != segment_of(z->mem.segment))
		return DIFF(c, "segment %u, Zydis has %s", c->insn.seg,
			ZydisRegisterGetString(z->mem.segment));
	if (size && z->mem.type == ZYDIS_MEMOP_TYPE_MEM && size * 8 != z->size)
		return DIFF(c, "memory size %u, Zydis has %u bits", size, z->size);
	return compare_address(c, z);
}

static bool compare_moffs(struct comparison *c, const ZydisDecodedOperand *z)
{
	u64 mask = c->insn.asize == 8 ? ~0ULL : BIT(c->insn.asize * 8) - 1;
	const struct operand_info *o = info_at(c, PL_MOFFS);

	if (!o)
		return DIFF(c, "Zydis has a moffs");
	if (c->insn.imm != ((u64)z->mem.disp.value & mask) ||
		c->insn.seg != segment_of(z->mem.segment))
		return DIFF(c, "moffs %llx segment %u, Zydis has %llx %s",
			(unsigned long long)c->insn.imm, c->insn.seg,
			(unsigned long long)z->mem.disp.value,
			ZydisRegisterGetString(z->mem.segment));
	if (operand_bytes(o->msize, &c->insn) * 8 != z->size)
		return DIFF(c, "moffs width, Zydis has %u bits", z->size);
	return true;
}

static bool compare_immediate(
	struct comparison *c, const ZydisDecodedOperand *z, unsigned int *nr_imm)
{
	u64 theirs = z->imm.value.u, ours = (*nr_imm)++ ? c->insn.imm2 : c->insn.imm;
	const struct operand_info *o = info_at(c, PL_IMM);

	/*
	 * Zydis extends by its own notion of sign; both sides are cut to the width of the
	 * operation.
	 */
	if (o && o->size != SZ_B && c->insn.opsize < 8) {
		u64 mask = BIT(c->insn.opsize * 8) - 1;

		theirs &= mask;
		ours &= mask;
	}
	if (ours != theirs)
		return DIFF(c, "immediate %llx, Zydis has %llx", (unsigned long long)ours,
			(unsigned long long)theirs);
	return true;
}

static bool compare_pointer(struct comparison *c, const ZydisDecodedOperand *z)
{
	if (!info_at(c, PL_FAR) || c->insn.imm != z->ptr.offset || c->insn.imm2 != z->ptr.segment)
		return DIFF(c, "far pointer, Zydis has %x:%x", z->ptr.segment, z->ptr.offset);
	return true;
}

static bool compare_operand(
	struct comparison *c, const ZydisDecodedOperand *z, unsigned int *nr_imm)
{
	const struct insn *i = &c->insn;

	switch (z->type) {
	case ZYDIS_OPERAND_TYPE_POINTER: return compare_pointer(c, z);
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return z->encoding == ZYDIS_OPERAND_ENCODING_NONE ||
		       compare_immediate(c, z, nr_imm);
	case ZYDIS_OPERAND_TYPE_MEMORY:
		if (z->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
			return compare_memory(c, z);
		return z->encoding != ZYDIS_OPERAND_ENCODING_DISP16_32_64 || compare_moffs(c, z);
	default: break;
	}
	switch (z->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		return compare_register(c, "reg", info_at(c, PL_REG), z->reg.value, i->reg);
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		return compare_register(c, "rm", info_rm(c), z->reg.value, i->rm);
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		return compare_register(c, "vvvv", info_at(c, PL_VVVV), z->reg.value, i->vvvv);
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		return compare_register(c, "opcode", info_at(c, PL_OPC), z->reg.value, i->rm);
	case ZYDIS_OPERAND_ENCODING_MASK:
		return ZydisRegisterGetId(z->reg.value) == (i->evex & EVEX_K) ||
		       DIFF(c, "mask k%u, Zydis has %s", i->evex & EVEX_K,
			       ZydisRegisterGetString(z->reg.value));
	case ZYDIS_OPERAND_ENCODING_IS4:
		return compare_register(c, "is4", info_at(c, PL_IS4), z->reg.value,
			(unsigned int)(i->imm >> 4) & (c->code == 8 ? 15 : 7));
	default: return true;
	}
}

/* A string instruction's source: segment and width. */
static bool compare_string(struct comparison *c)
{
	for (unsigned int k = 0; k < c->zi.operand_count; k++) {
		const ZydisDecodedOperand *z = &c->zo[k];

		if (z->type != ZYDIS_OPERAND_TYPE_MEMORY ||
			z->encoding != ZYDIS_OPERAND_ENCODING_NONE)
			continue;
		if (z->mem.segment != ZYDIS_REGISTER_ES &&
			c->insn.seg != segment_of(z->mem.segment) && info_at(c, PL_SRC))
			return DIFF(c, "string segment %u, Zydis has %s", c->insn.seg,
				ZydisRegisterGetString(z->mem.segment));
		if (z->size != opcode_mem_size(c->row, &c->insn) * 8)
			return DIFF(c, "string width, Zydis has %u bits", z->size);
	}
	return true;
}

static bool has_zydis_operand(const struct comparison *c, bool memory, ZydisOperandEncoding enc)
{
	for (unsigned int k = 0; k < c->zi.operand_count; k++)
		if (c->zo[k].encoding == enc &&
			(c->zo[k].type == ZYDIS_OPERAND_TYPE_MEMORY) == memory)
			return true;
	return false;
}

/* What the row names and Zydis lacks. */
static bool compare_missing(struct comparison *c)
{
	const struct operand_info *rm = info_rm(c);

	if (rm && !has_zydis_operand(c, c->insn.flags & I_MEM, ZYDIS_OPERAND_ENCODING_MODRM_RM))
		return DIFF(c, "Zydis has no operand in ModRM.rm");
	if (info_at(c, PL_REG) && !has_zydis_operand(c, false, ZYDIS_OPERAND_ENCODING_MODRM_REG))
		return DIFF(c, "Zydis has no operand in ModRM.reg");
	if (info_at(c, PL_VVVV) && !has_zydis_operand(c, false, ZYDIS_OPERAND_ENCODING_NDSNDD))
		return DIFF(c, "Zydis has no operand in VEX.vvvv");
	return true;
}

static bool compare_operands(struct comparison *c)
{
	unsigned int nr_imm = 0;

	for (unsigned int k = 0; k < c->zi.operand_count; k++)
		if (!compare_operand(c, &c->zo[k], &nr_imm))
			return false;
	if ((info_at(c, PL_SRC) || info_at(c, PL_DST)) && !compare_string(c))
		return false;
	return compare_missing(c);
}

/* What EVEX has beside the operands. */
static bool compare_evex(struct comparison *c)
{
	unsigned int length = insn_vector_bytes(&c->insn) * 8;
	bool b = c->insn.evex & EVEX_B, z = c->insn.evex & EVEX_Z, mem = c->insn.flags & I_MEM;
	bool mask_to = operand_info[c->row->op[0]].class == CL_MASK;	/* always zeroing */
	unsigned int ll = c->insn.evex >> EVEX_LL_SHIFT & 3;
	bool other = c->zi.avx.broadcast.mode && !c->zi.avx.broadcast.is_static;

	if (!(c->row->evex & EV_LIG) && length != c->zi.avx.vector_length)
		return DIFF(c, "vectors of %u bits, Zydis has %u", length, c->zi.avx.vector_length);
	if (mem && b != other)
		return DIFF(c, "broadcast %d, Zydis has %d", b, other);
	if (z != (c->zi.avx.mask.mode == ZYDIS_MASK_MODE_ZEROING ||
		c->zi.avx.mask.mode == ZYDIS_MASK_MODE_CONTROL_ZEROING) && !mask_to)
		return DIFF(c, "zeroing %d, Zydis has mode %d", z, c->zi.avx.mask.mode);
	if (!b && (c->zi.avx.rounding.mode || c->zi.avx.has_sae))
		return DIFF(c, "no rounding, Zydis has %d", c->zi.avx.rounding.mode);
	if (c->zi.avx.rounding.mode && c->zi.avx.rounding.mode != ZYDIS_ROUNDING_MODE_RN + ll)
		return DIFF(c, "rounding %u, Zydis has %d", ll, c->zi.avx.rounding.mode);
	return true;
}

bool compare(struct comparison *c)
{
	c->diff[0] = 0;
	c->result = insn_decode(c->bytes, STRING_SIZE, c->code, &c->insn);
	c->row = c->result == DECODE_OK ? opcode_row(c->insn.row) : NULL;
	c->zydis_ok = ZYAN_SUCCESS(ZydisDecoderDecodeFull(
		decoder_for(c->code), c->bytes, ZYDIS_MAX_INSTRUCTION_LENGTH, &c->zi, c->zo));
	if (!c->zydis_ok)
		return c->result != DECODE_OK || DIFF(c, "Zydis rejects %s", c->row->name);
	if (c->result != DECODE_OK)
		return DIFF(c, "rejected, Zydis has %s", ZydisMnemonicGetString(c->zi.mnemonic));
	if (c->insn.len != c->zi.length)
		return DIFF(c, "length %u, Zydis has %u", c->insn.len, c->zi.length);
	return compare_operands(c) && (!(c->insn.flags & I_EVEX) || compare_evex(c));
}
