/* The opcode table as a whole: rows by index, and what follows from a row. */
#include "hypervisor/insn/opcode_table.h"

#define OPERAND_INFO(name, pl, cl, sz, msz) \
	[OP_##name] = { .place = PL_##pl, .class = CL_##cl, .size = SZ_##sz, .msize = SZ_##msz },
const struct operand_info operand_info[NR_OPERANDS] = {
	OPERANDS(OPERAND_INFO)
};

const struct opcode_dir opcode_dir[NR_OPCODE_MAPS] = {
#define DIR(t)	{ (const struct opcode *)(t), sizeof(t) / sizeof(struct opcode) }
	[MAP_1] = DIR(opcodes_1),
	[MAP_0F] = DIR(opcodes_0f),
	[MAP_0F38] = DIR(opcodes_0f38),
	[MAP_0F3A] = DIR(opcodes_0f3a),
	[MAP_VEX1] = DIR(opcodes_vex1),
	[MAP_VEX2] = DIR(opcodes_vex2),
	[MAP_VEX3] = DIR(opcodes_vex3),
	[MAP_EVEX1] = DIR(opcodes_evex1),
	[MAP_EVEX2] = DIR(opcodes_evex2),
	[MAP_EVEX3] = DIR(opcodes_evex3),
	[MAP_GROUPS] = DIR(opcodes_group),
	[MAP_X87] = DIR(opcodes_x87),
	[MAP_MASK] = DIR(opcodes_mask),
#undef DIR
};

unsigned int opcode_rows(void)
{
	return NR_OPCODE_MAPS << ROW_MAP_SHIFT;
}

/* True if the link reaches this octet of the groups' table. */
static bool link_reaches(const struct opcode *link, unsigned int octet)
{
	if (link->sel == SEL_NONE || link->sel == SEL_X87 || link->sel == SEL_MASK)
		return false;
	return link->sub == octet || (link->sel == SEL_MODREG && link->sub + 1u == octet);
}

/*
 * The link to the octet of row *n, as an index of map and row; false if nothing leads there. Octets
 * from G17 on are reached with VEX or EVEX, and then from the same column: this is in the path of
 * vector instructions whose memory is not at hand.
 */
static bool link_find(unsigned int *map, unsigned int *n)
{
	unsigned int octet = *n / NR_OPC_PFX / 8, col = *n % NR_OPC_PFX;
	unsigned int first = octet < G17 ? MAP_1 : octet < GE_MOVSS_L ? MAP_VEX1 : MAP_EVEX1;
	unsigned int step = first == MAP_1 ? 1 : NR_OPC_PFX;

	for (*map = first; *map <= MAP_GROUPS; ++*map)
		for (*n = step == 1 ? 0 : col; *n < opcode_dir[*map].n; *n += step)
			if (link_reaches(&opcode_dir[*map].rows[*n], octet))
				return true;
	return false;
}

static bool row_has_place(const struct opcode *row, enum operand_place place)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(row->op); i++)
		if (row->op[i] && operand_info[row->op[i]].place == place)
			return true;
	return false;
}

/* Of row n of a map by opcode; the EVEX maps' second halves are those with W. */
static void opcode_byte(unsigned int map, unsigned int n, struct opcode_where *out)
{
	out->opcode = (u8)(n / NR_OPC_PFX);
	if (map >= MAP_EVEX1 && map <= MAP_EVEX3)
		out->w = n / NR_OPC_PFX > 0xff;
}

/* A row of the groups' table: follow the links back to the map that holds the opcode byte. */
static bool group_where(unsigned int n, const struct opcode *row, struct opcode_where *out)
{
	unsigned int map = MAP_GROUPS, slot, octet;

	while (map == MAP_GROUPS) {
		const struct opcode *link;

		slot = (n / NR_OPC_PFX) & 7;
		octet = n / NR_OPC_PFX / 8;
		if (!link_find(&map, &n))
			return false;
		link = &opcode_dir[map].rows[n];
		if (link->sel == SEL_RM)
			out->rm = (s8)slot;
		if (link->sel == SEL_MODREG)
			out->mod = link->sub == octet ? 0 : 3;
		if (link->sel == SEL_MOD)
			out->mod = slot ? 3 : 0;
		if (link->sel == SEL_REG || link->sel == SEL_MODREG)
			out->ext = (s8)slot;
	}
	out->map = (u8)map;
	opcode_byte(map, n, out);
	return true;
}

static bool mask_where(unsigned int n, struct opcode_where *out)
{
	unsigned int cell = n / NR_OPC_PFX;

	for (unsigned int map = MAP_VEX1; map <= MAP_VEX3; map++) {
		for (unsigned int k = n % NR_OPC_PFX; k < opcode_dir[map].n; k += NR_OPC_PFX) {
			const struct opcode *link = &opcode_dir[map].rows[k];

			if (link->sel != SEL_MASK || link->sub != cell / 2)
				continue;
			out->map = (u8)map;
			out->opcode = (u8)(k / NR_OPC_PFX);
			out->w = (s8)(cell % 2);
			return true;
		}
	}
	return false;
}

static void x87_where(unsigned int n, const struct opcode *row, struct opcode_where *out)
{
	unsigned int form = n % X87_ROWS;

	out->opcode = (u8)(0xd8 + n / X87_ROWS);
	out->pfx = OPC_NP;
	out->mod = form < 8 ? 0 : 3;
	out->ext = (s8)(form < 8 ? form : (form - 8) >> 3);
	if (form >= 8)
		out->rm = (s8)((form - 8) & 7);
}

bool opcode_where(unsigned int index, struct opcode_where *out)
{
	const struct opcode *row = opcode_row(index);
	unsigned int map = index >> ROW_MAP_SHIFT, n = index & ((1u << ROW_MAP_SHIFT) - 1);

	if (!row)
		return false;
	*out = (struct opcode_where){ .map = (u8)map, .pfx = n % NR_OPC_PFX, .ext = -1, .rm = -1,
		.mod = -1, .w = -1 };
	opcode_byte(map, n, out);
	if (map == MAP_GROUPS && !group_where(n, row, out))
		return false;
	if (map == MAP_MASK && !mask_where(n, out))
		return false;
	if (map == MAP_X87) {
		out->map = MAP_1;
		x87_where(n, row, out);
	}
	if (row_has_place(row, PL_M) || row_has_place(row, PL_VSIB))
		out->mod = 0;
	else if (row_has_place(row, PL_U))
		out->mod = 3;
	return true;
}

enum cpu_feature opcode_feature(const struct opcode *row, const struct insn *i)
{
	if (!(row->attr & ATTR_I256) || !(i->flags & I_L))
		return row->feature;
	switch (row->feature) {
	case F_AES: return F_VAES;
	case F_PCLMULQDQ: return F_VPCLMULQDQ;
	default: return F_AVX2;
	}
}

static bool has(const u64 features[4], enum cpu_feature f)
{
	return features[f >> 6] & BIT(f & 63);
}

/* Scalars, and what there is with 128 bits only, came with AVX512F. SDM 1 15.2, 15.4 */
static bool needs_vl(const struct opcode *row, const struct insn *i)
{
	return insn_vector_bytes(i) < 64 && !(row->evex & EV_LIG) && !(row->evex & EV_NO256);
}

bool opcode_in(const u64 features[4], const struct opcode *row, const struct insn *i)
{
	if (!has(features, opcode_feature(row, i)))
		return false;
	if (likely(!(i->flags & I_EVEX)))
		return true;
	return has(features, needs_vl(row, i) ? F_AVX512VL : F_AVX512F);
}

unsigned int operand_bytes(enum operand_size size, const struct insn *i)
{
	unsigned int vec = insn_vector_bytes(i);

	switch (size) {
	case SZ_0: return 0;
	case SZ_B: return 1;
	case SZ_W: return 2;
	case SZ_D: return 4;
	case SZ_Q: return 8;
	case SZ_DQ: return 16;
	case SZ_QQ: return 32;
	case SZ_T: return 10;
	case SZ_V: return i->opsize;
	case SZ_Z: return i->opsize == 2 ? 2 : 4;
	case SZ_Y: return i->opsize == 8 ? 8 : 4;
	case SZ_M: return i->opsize;
	case SZ_X: return vec;
	case SZ_XH: return vec / 2;
	case SZ_XQ: return vec / 4;
	case SZ_XE: return vec / 8;
	case SZ_XD: return vec == 16 ? 8 : vec;
	case SZ_F: return i->flags & I_W ? 8 : 4;
	case SZ_P: return i->opsize + 2u;
	case SZ_S: return i->opsize == 8 ? 10 : 6;
	case SZ_A: return i->opsize * 2u;
	case SZ_C8: return i->flags & I_W ? 16 : 8;
	case SZ_ENV: return i->opsize == 2 ? 14 : 28;
	case SZ_SAVE: return i->opsize == 2 ? 94 : 108;
	case SZ_FX: return 512;
	}
	return 0;
}

unsigned int operand_mem_bytes(enum operand_size size, const struct insn *i)
{
	if (unlikely(i->flags & I_EVEX) && i->evex & EVEX_B)
		return i->flags & I_W ? 8 : 4;
	return operand_bytes(size, i);
}

static bool place_is_memory(unsigned int place)
{
	return place == PL_RM || place == PL_M || place == PL_MOFFS || place == PL_SRC ||
		place == PL_DST || place == PL_VSIB;
}

enum operand_size opcode_mem_kind(const struct opcode *row)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (row->op[k] && place_is_memory(o->place))
			return o->msize;
	}
	return SZ_0;
}

unsigned int opcode_mem_size(const struct opcode *row, const struct insn *i)
{
	return operand_mem_bytes(opcode_mem_kind(row), i);
}

unsigned int opcode_disp_unit(const struct opcode *row, const struct insn *i)
{
	return row->evex & EV_PACK ? 1u << (row->evex & EV_ESIZE) : opcode_mem_size(row, i);
}

bool opcode_aligned(const struct opcode *row, const struct insn *i)
{
	if (i->flags & I_VEX)
		return row->attr & ATTR_ALIGN;
	return (row->attr & (ATTR_NATIVE | ATTR_ALIGN)) == ATTR_NATIVE &&
		opcode_mem_size(row, i) == 16;
}

unsigned int opcode_mem_access(const struct opcode *row)
{
	unsigned int acc = 0;

	for (unsigned int k = 0; k < ARRAY_SIZE(row->op) && row->op[k]; k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (!place_is_memory(o->place) || (o->msize == SZ_0 && o->place != PL_VSIB))
			continue;
		if (k > 0 || row->attr & ATTR_RO)
			acc |= OPC_MEM_READ;
		else
			acc |= row->attr & ATTR_RW ? OPC_MEM_READ | OPC_MEM_WRITE : OPC_MEM_WRITE;
	}
	return acc;
}
