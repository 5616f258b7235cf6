/*
 * What the table says beyond encoding, against Zydis: RFLAGS bits, memory access, LOCK,
 * privilege.
 */
#include <stdio.h>
#include <string.h>

#include "tests/insn/decode/decode.h"

#define DIFF(c, ...) (snprintf((c)->diff, sizeof((c)->diff), __VA_ARGS__), false)

static bool compare_flags(struct comparison *c)
{
	static const ZydisAccessedFlags none;
	const ZydisAccessedFlags *z = c->zi.cpu_flags ? c->zi.cpu_flags : &none;
	u32 mask = RFLAGS_ARITH | RFLAGS_DF; /* Zydis counts IOPL checks and the like as reading */
	u32 read = c->row->f_read & mask, write = c->row->f_write & mask;
	u32 zwrite = (z->modified | z->set_0 | z->set_1) & mask;

	if (read != (z->tested & mask) || write != zwrite ||
		c->row->f_undef != (z->undefined & mask))
		return DIFF(c, "flags read %x write %x undefined %x, Zydis has %x %x %x", read,
			write, c->row->f_undef, (u32)(z->tested & mask), zwrite,
			(u32)(z->undefined & mask));
	return true;
}

static bool compare_access(struct comparison *c)
{
	unsigned int ours = opcode_mem_access(c->row), theirs = 0;

	for (unsigned int k = 0; k < c->zi.operand_count; k++) {
		const ZydisDecodedOperand *z = &c->zo[k];

		if (z->type != ZYDIS_OPERAND_TYPE_MEMORY || z->mem.type == ZYDIS_MEMOP_TYPE_AGEN ||
			(z->encoding == ZYDIS_OPERAND_ENCODING_NONE && c->insn.flags & I_MODRM))
			continue;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
			theirs |= OPC_MEM_READ;
		if (z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			theirs |= OPC_MEM_WRITE;
	}
	if (c->insn.flags & I_MEM && ours != theirs)
		return DIFF(c, "memory access %u, Zydis has %u", ours, theirs);
	return true;
}

static bool compare_privilege(struct comparison *c)
{
	bool theirs = c->zi.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED;

	return theirs == !!(c->row->attr & ATTR_PRIV) ||
	       DIFF(c, "privileged: Zydis has %d", theirs);
}

static void feature_add(u64 set[4], enum cpu_feature f)
{
	set[f >> 6] |= BIT(f & 63);
}

/* Zydis's sets are named by feature and length: AVX512BW_256. Lengths below 512 need AVX512VL. */
static bool compare_features(struct comparison *c)
{
	static const struct { const char *name; enum cpu_feature f; } sets[] = {
		{ "AVX512F_", F_AVX512F }, { "AVX512BW_", F_AVX512BW }, { "AVX512DQ_", F_AVX512DQ },
		{ "AVX512CD_", F_AVX512CD }, { "AVX512_IFMA_", F_AVX512_IFMA },
		{ "AVX512_VBMI_", F_AVX512_VBMI }, { "AVX512_VBMI2_", F_AVX512_VBMI2 },
		{ "AVX512_VNNI_", F_AVX512_VNNI }, { "AVX512_BITALG_", F_AVX512_BITALG },
		{ "AVX512_VPOPCNTDQ_", F_AVX512_VPOPCNTDQ }, { "AVX512_BF16_", F_AVX512_BF16 },
		{ "AVX512_VAES_", F_VAES }, { "AVX512_VPCLMULQDQ_", F_VPCLMULQDQ },
		{ "AVX512_GFNI_", F_GFNI },
	};
	const char *name = ZydisISASetGetString(c->zi.meta.isa_set);
	const char *length = strrchr(name, '_');
	enum cpu_feature first = F_NONE, second;
	u64 both[4] = { 0 }, one[4] = { 0 }, other[4] = { 0 };

	if (!(c->insn.flags & I_EVEX) && strncmp(name, "AVX512", 6))
		return true;
	for (unsigned int k = 0; k < ARRAY_SIZE(sets); k++)
		if (!strncmp(name, sets[k].name, strlen(sets[k].name)))
			first = sets[k].f;
	second = !strcmp(length, "_128") || !strcmp(length, "_256") ? F_AVX512VL : F_AVX512F;
	if (!(c->insn.flags & I_EVEX))
		second = first;
	feature_add(one, first);
	feature_add(other, second);
	feature_add(both, first);
	feature_add(both, second);
	if (!opcode_in(both, c->row, &c->insn) ||
		(first != second && (opcode_in(one, c->row, &c->insn) ||
			opcode_in(other, c->row, &c->insn))))
		return DIFF(c, "features, Zydis has %s", name);
	return true;
}

bool compare_attributes(struct comparison *c)
{
	return compare_flags(c) && compare_access(c) && compare_privilege(c) && compare_features(c);
}
