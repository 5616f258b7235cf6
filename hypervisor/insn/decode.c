/*
 * The instruction decoder: bytes to struct insn, by the opcode table. SDM 2 chapter 2, APM 3
 * chapter 1.
 *
 * One pass, no allocation, no bounds check at each byte: an instruction longer than what is there
 * is decoded from a zero-padded copy, and what was consumed is compared with what there was at
 * the end.
 *
 * Where vendors differ we follow AMD: 66 makes near branches in 64-bit mode 16 bits wide (APM 3
 * JMP; Intel ignores it, SDM 2A JMP). LOCK MOV CR0 is MOV CR8 (APM 3 MOV CRn), outside 64-bit
 * mode as well.
 *
 * What depends on more than the code size is left to the caller and the handlers: vector
 * instructions that real or virtual-8086 mode lacks, group 6 there, CPL, features.
 */
#include "hypervisor/insn/opcode_table.h"

#define INSN_MAX	15
/*
 * Prefixes up to the limit, and what the decoder may read beyond it before it looks: VEX or 0F38,
 * ModRM, SIB, disp, imm.
 */
_Static_assert(DECODE_ROOM >= INSN_MAX + 4 + 2 + 4 + 10, "reads without a test each");

#define REX_B		1
#define REX_X		2
#define REX_R		4
#define REX_W		8
/* EVEX: bit 4 of register numbers. */
#define HIGH_RM		REX_B
#define HIGH_VVVV	REX_X	/* or of the vector index */
#define HIGH_REG	REX_R
#define NO_SEG		0xff

struct decoder {
	const u8 *p;		/* the next byte */
	const u8 *start;
	struct insn *i;
	unsigned int map, cell;	/* of the row: rows[cell * 4 + column] of the map's table */
	u8 code;		/* 2, 4, 8 */
	u8 opcode;
	u8 rex;			/* low four bits of REX, or of VEX in that order */
	u8 high;		/* HIGH_* */
	u8 rep;			/* 0xf2, 0xf3 or 0 */
	u8 col;			/* enum opcode_pfx */
	u8 seg;			/* override or NO_SEG */
	u8 modrm;
	u8 vsize;		/* 2, 4, 8: operand size by prefixes, mode and row */
	u8 vvvv;		/* as encoded, inverted; i->vvvv is without bit 3 outside 64-bit mode */
	bool has_modrm, opsz, adsz, lock, vex, evex, rip, width_known;
};

static const struct opcode *const maps[NR_OPCODE_MAPS] = {
	[MAP_1] = opcodes_1[0], [MAP_0F] = opcodes_0f[0], [MAP_0F38] = opcodes_0f38[0],
	[MAP_0F3A] = opcodes_0f3a[0], [MAP_VEX1] = opcodes_vex1[0], [MAP_VEX2] = opcodes_vex2[0],
	[MAP_VEX3] = opcodes_vex3[0], [MAP_EVEX1] = opcodes_evex1[0],
	[MAP_EVEX2] = opcodes_evex2[0], [MAP_EVEX3] = opcodes_evex3[0],
	[MAP_GROUPS] = opcodes_group[0], [MAP_MASK] = opcodes_mask[0],
};

static inline u64 fetch(struct decoder *d, unsigned int size)
{
	u64 v = 0;

	switch (size) {
	case 1: v = *d->p; break;
	case 2: __builtin_memcpy(&v, d->p, 2); break;
	case 4: __builtin_memcpy(&v, d->p, 4); break;
	case 8: __builtin_memcpy(&v, d->p, 8); break;
	}
	d->p += size;
	return v;
}

static inline s64 fetch_signed(struct decoder *d, unsigned int size)
{
	u64 v = fetch(d, size);

	switch (size) {
	case 1: return (s8)v;
	case 2: return (s16)v;
	case 4: return (s32)v;
	default: return (s64)v;
	}
}

/* ---- prefixes -------------------------------------------------------------------------------- */

enum prefix { P_NONE, P_OPSZ, P_ADSZ, P_LOCK, P_REP, P_SEG, P_REX };

static const u8 prefix_kind[256] = {
	[0x66] = P_OPSZ, [0x67] = P_ADSZ, [0xf0] = P_LOCK, [0xf2] = P_REP, [0xf3] = P_REP,
	[0x26] = P_SEG, [0x2e] = P_SEG, [0x36] = P_SEG, [0x3e] = P_SEG,
	[0x64] = P_SEG, [0x65] = P_SEG,
	[0x40 ... 0x4f] = P_REX,
};

/* The overrides of ES, CS, SS and DS do nothing in 64-bit mode. SDM 1 3.4.4 */
static void prefix_segment(struct decoder *d, u8 b)
{
	if (b >= 0x64)
		d->seg = b == 0x64 ? SEG_FS : SEG_GS;
	else if (d->code != 8)
		d->seg = (b >> 3) & 3;
}

/* Leaves d->p at the opcode. REX counts only right before it. SDM 2A 2.2.1 */
static void decode_prefixes(struct decoder *d)
{
	u8 rex = 0;

	for (unsigned int n = 0; n < INSN_MAX; n++, d->p++) {
		u8 b = *d->p, kind = prefix_kind[b];

		if (likely(kind == P_NONE) || (kind == P_REX && d->code != 8))
			break;
		if (kind == P_REX) {
			rex = b;
			continue;
		}
		rex = 0;
		switch (kind) {
		case P_OPSZ: d->opsz = true; break;
		case P_ADSZ: d->adsz = true; break;
		case P_LOCK: d->lock = true; break;
		case P_REP: d->rep = b; break;
		case P_SEG: prefix_segment(d, b); break;
		}
	}
	d->rex = rex & 15;
	d->i->flags = (u16)((d->lock ? I_LOCK : 0) | (d->rep == 0xf3 ? I_REP : 0) |
		(d->rep == 0xf2 ? I_REPNE : 0) | (d->opsz ? I_66 : 0) | (rex ? I_REX : 0) |
		(rex & REX_W ? I_W : 0));
	d->i->asize = d->code == 8 ? (d->adsz ? 4 : 8) : (d->code == 4) == !d->adsz ? 4 : 2;
	d->col = d->rep == 0xf3 ? OPC_F3 : d->rep == 0xf2 ? OPC_F2 : d->opsz ? OPC_66 : OPC_NP;
}

/* ---- opcode to row --------------------------------------------------------------------------- */

static u8 modrm_get(struct decoder *d)
{
	if (!d->has_modrm) {
		d->has_modrm = true;
		d->modrm = *d->p++;
	}
	return d->modrm;
}

/*
 * VEX and EVEX. In 64-bit mode C4, C5 and 62 are always that, elsewhere if the next byte would be a
 * register form of LES, LDS and BOUND. SDM 2A 2.3.5, 2.7.1
 */
static bool vex_starts(const struct decoder *d, u8 b)
{
	return (b == 0xc4 || b == 0xc5 || b == 0x62) && (d->code == 8 || d->p[0] >= 0xc0);
}

static const u8 pp_column[] = { OPC_NP, OPC_66, OPC_F3, OPC_F2 };

/* SDM 2A 2.7.1. False: #UD. */
static bool decode_evex(struct decoder *d)
{
	bool bad = d->opsz || d->rep || d->lock || d->i->flags & I_REX;
	u8 p0 = *d->p++, p1 = *d->p++, p2 = *d->p++;

	d->vex = d->evex = true;
	d->rex = (u8)(~p0 >> 5 & (REX_R | REX_X | REX_B)) | (p1 & 0x80 ? REX_W : 0);
	d->high = (u8)((~p0 & 0x10 ? HIGH_REG : 0) | (~p0 & 0x40 ? HIGH_RM : 0) |
		(~p2 & 8 ? HIGH_VVVV : 0));
	d->vvvv = (u8)((~p1 >> 3 & 15) | (~p2 & 8) << 1);
	d->i->vvvv = d->vvvv;
	d->i->evex = p2 & (EVEX_K | EVEX_B | EVEX_LL | EVEX_Z);
	if (d->code != 8) {
		bad |= d->high & HIGH_VVVV;
		d->i->vvvv &= 7;
		d->rex &= REX_W;
		d->high = 0;
	}
	d->i->flags |= I_VEX | I_EVEX | (d->rex & REX_W ? I_W : 0);
	d->col = pp_column[p1 & 3];
	d->map = MAP_EVEX1 + (p0 & 3) - 1;
	d->opcode = *d->p++;
	return !bad && (p0 & 15) >= 1 && (p0 & 15) <= 3 && p1 & 4;
}

/* False: #UD. */
static bool decode_vex(struct decoder *d, u8 lead)
{
	bool bad = d->opsz || d->rep || d->lock || d->i->flags & I_REX;
	u8 b = *d->p++, map = 1;

	d->vex = true;
	d->rex = (~b >> 5) & REX_R;
	if (lead == 0xc4) {
		map = b & 31;
		d->rex = (u8)(((~b >> 5) & REX_R) | ((~b >> 5) & REX_X) | ((~b >> 5) & REX_B));
		b = *d->p++;
		if (b & 0x80)
			d->rex |= REX_W;
	}
	d->vvvv = (~b >> 3) & 15;
	d->i->vvvv = d->code == 8 ? d->vvvv : d->vvvv & 7;
	if (d->code != 8)
		d->rex &= REX_W;
	d->i->flags |= I_VEX | (b & 4 ? I_L : 0) | (d->rex & REX_W ? I_W : 0);
	d->col = pp_column[b & 3];
	d->map = MAP_VEX1 + map - 1;
	d->opcode = *d->p++;
	return !bad && map >= 1 && map <= 3;
}

/* Map and opcode byte. False: #UD. */
static bool decode_opcode(struct decoder *d)
{
	u8 b = *d->p++;

	d->map = MAP_1;
	if (unlikely(vex_starts(d, b)))
		return b == 0x62 ? decode_evex(d) : decode_vex(d, b);
	if (b == 0x0f) {
		b = *d->p++;
		d->map = MAP_0F;
		if (b == 0x38 || b == 0x3a) {
			d->map = b == 0x38 ? MAP_0F38 : MAP_0F3A;
			b = *d->p++;
		}
	}
	d->opcode = b;
	return true;
}

static bool row_present(const struct opcode *row)
{
	return row->name || row->sel;
}

/* The row of a cell by mandatory prefix; d->col becomes the column taken. NULL: none. */
static const struct opcode *cell_row(struct decoder *d)
{
	const struct opcode *rows = &maps[d->map][d->cell * NR_OPC_PFX];
	u32 refused = ATTR_NATIVE | ATTR_STRICT | (d->col == OPC_66 ? 0 : ATTR_NOREP);

	if (row_present(&rows[d->col]))
		return &rows[d->col];
	if (d->vex || !row_present(rows) || rows->attr & refused)
		return NULL;
	return rows;
}

static const struct opcode *x87_row(struct decoder *d)
{
	u8 m = modrm_get(d);

	d->map = MAP_X87;
	d->i->imm = (u64)d->opcode << 8 | m;	/* for FOP */
	d->cell = (d->opcode & 7u) * X87_ROWS + (m >= 0xc0 ? 8 + (m & 63u) : (m >> 3) & 7u);
	return opcodes_x87[d->cell].name ? &opcodes_x87[d->cell] : NULL;
}

/* Where a link leads: the row's number in the groups' table. */
static unsigned int link_cell(struct decoder *d, const struct opcode *link)
{
	unsigned int octet = link->sub * 8u;
	u8 m;

	switch (link->sel) {
	case SEL_REG: return octet + ((modrm_get(d) >> 3) & 7);
	case SEL_MODREG:
		m = modrm_get(d);
		return octet + (m >= 0xc0 ? 8 : 0) + ((m >> 3) & 7);
	case SEL_RM: return octet + (modrm_get(d) & 7);
	case SEL_MOD: return octet + (modrm_get(d) >= 0xc0);
	case SEL_MODE: return octet + (d->code == 8);
	case SEL_REXB: return octet + (d->rex & REX_B);
	case SEL_W: return octet + !!(d->i->flags & I_W);
	case SEL_L: return octet + !!(d->i->flags & I_L);
	}
	return octet;
}

/* NULL: #UD. */
static const struct opcode *decode_row(struct decoder *d)
{
	const struct opcode *row;

	d->cell = d->opcode + (d->evex && d->rex & REX_W ? 256u : 0);
	row = cell_row(d);
	while (row && row->sel) {
		if (row->sel == SEL_X87) {
			row = x87_row(d);
		} else if (row->sel == SEL_MASK) {
			d->cell = row->sub * 2u + !!(d->i->flags & I_W);
			d->map = MAP_MASK;
			row = cell_row(d);
		} else {
			d->cell = link_cell(d, row);
			d->map = MAP_GROUPS;
			row = cell_row(d);
		}
	}
	if (!row)
		return NULL;
	d->i->row = (u16)(d->map << ROW_MAP_SHIFT);
	if (d->map == MAP_X87)
		d->i->row += (u16)d->cell;
	else
		d->i->row += (u16)(row - maps[d->map]);
	return row;
}

/* Operand size. SDM 1 table 3-4; in 64-bit mode 2.2.1.7 of SDM 2A for D64. */
static u8 operand_size(const struct decoder *d, const struct opcode *row)
{
	/* 66 that chose the row is not an operand size. */
	bool opsz = d->opsz && (d->map == MAP_X87 || !(d->i->row % NR_OPC_PFX == OPC_66));

	if (d->code != 8)
		return (d->code == 4) == !opsz ? 4 : 2;
	if (d->rex & REX_W)
		return 8;
	if (opsz)
		return 2;
	return row->attr & ATTR_D64 ? 8 : 4;
}

/* ---- ModRM memory forms ---------------------------------------------------------------------- */

/* SDM 2A table 2-1 */
static void decode_mem16(struct decoder *d)
{
	static const u8 base[8] = { R_RBX, R_RBX, R_RBP, R_RBP, R_RSI, R_RDI, R_RBP, R_RBX };
	static const u8 index[8] = { R_RSI, R_RDI, R_RSI, R_RDI, R_ZERO, R_ZERO, R_ZERO, R_ZERO };
	unsigned int mod = d->modrm >> 6, rm = d->modrm & 7;
	struct insn *i = d->i;

	if (mod == 0 && rm == 6) {
		i->disp = (s32)fetch_signed(d, 2);
		return;
	}
	i->base = base[rm];
	i->index = index[rm];
	if (i->base == R_RBP && d->seg == NO_SEG)
		i->seg = SEG_SS;
	if (mod)
		i->disp = (s32)fetch_signed(d, mod);
}

static void decode_sib(struct decoder *d, unsigned int mod)
{
	u8 sib = *d->p++;
	struct insn *i = d->i;
	u8 index = (u8)(((sib >> 3) & 7) | (d->rex & REX_X ? 8 : 0));
	u8 base = sib & 7;

	i->scale = sib >> 6;
	if (index != R_RSP)
		i->index = index;
	else
		i->scale = 0;
	if (base == R_RBP && mod == 0) {
		i->disp = (s32)fetch_signed(d, 4);
		return;
	}
	i->base = (u8)(base | (d->rex & REX_B ? 8 : 0));
}

/* SDM 2A tables 2-2 and 2-3, 2.2.1.6 */
static void decode_mem32(struct decoder *d)
{
	unsigned int mod = d->modrm >> 6, rm = d->modrm & 7;
	struct insn *i = d->i;

	if (rm == 4) {
		decode_sib(d, mod);
	} else if (rm == 5 && mod == 0) {
		i->disp = (s32)fetch_signed(d, 4);
		if (d->code == 8) {
			i->base = R_RIP;
			d->rip = true;
		}
	} else {
		i->base = (u8)(rm | (d->rex & REX_B ? 8 : 0));
	}
	if (mod)
		i->disp = (s32)fetch_signed(d, mod == 1 ? 1 : 4);
	if ((i->base == R_RSP || i->base == R_RBP) && d->seg == NO_SEG)
		i->seg = SEG_SS;
}

static void decode_mem(struct decoder *d)
{
	d->i->flags |= I_MEM;
	if (d->i->asize == 2)
		decode_mem16(d);
	else
		decode_mem32(d);
}

/*
 * A vector index needs a SIB byte; index 4 is a register like others. SDM 2A 2.3.12. Registers of
 * gathers must differ, with EVEX there is no VEX.vvvv (2.7.3).
 */
static bool decode_vsib(struct decoder *d)
{
	struct insn *i = d->i;
	u8 sib = *d->p;

	if (d->modrm >= 0xc0 || (d->modrm & 7) != 4 || i->asize == 2)
		return false;
	decode_mem(d);
	i->index = (u8)(((sib >> 3) & 7) | (d->rex & REX_X ? 8 : 0) |
		(d->high & HIGH_VVVV ? 16 : 0));
	i->scale = sib >> 6;
	if (d->evex)
		return true;
	return i->index != i->reg && i->index != i->vvvv && i->reg != i->vvvv;
}

/* ---- operands -------------------------------------------------------------------------------- */

static unsigned int gpr_size(const struct decoder *d, unsigned int size)
{
	switch (size) {
	case SZ_B: return 1;
	case SZ_W: return 2;
	case SZ_D: return 4;
	case SZ_Z: return d->vsize == 2 ? 2 : 4;
	case SZ_Y: return d->rex & REX_W && d->code == 8 ? 8 : 4;
	case SZ_M: return d->code == 8 ? 8 : 4;
	case SZ_S: return d->code == 8 ? 8 : d->vsize;
	default: return d->vsize;
	}
}

/* Byte offset into v->r. Without REX, byte registers 4 to 7 are AH, CH, DH, BH. SDM 2A table 3-1 */
static u8 gpr_offset(const struct decoder *d, unsigned int reg, unsigned int size)
{
	if (size == SZ_B && reg >= 4 && reg < 8 && !(d->i->flags & I_REX))
		return (u8)((reg - 4) * 8 + 1);
	return (u8)(reg * 8);
}

static u8 operand_reg(const struct decoder *d, const struct operand_info *o, unsigned int low,
	unsigned int ext)
{
	switch (o->class) {
	case CL_GPR: return gpr_offset(d, low | (d->rex & ext ? 8 : 0), o->size);
	case CL_MMX:
	case CL_X87:
	case CL_SREG:
	case CL_MASK: return (u8)low;
	default: return (u8)(low | (d->rex & ext ? 8 : 0) | (d->high & ext ? 16 : 0));
	}
}
_Static_assert(HIGH_RM == REX_B && HIGH_REG == REX_R, "operand_reg");

static void operand_width(struct decoder *d, const struct operand_info *o)
{
	bool counts = o->class == CL_GPR || o->class == CL_CR || o->size == SZ_S;

	if (!counts || o->size == SZ_0 || d->width_known)
		return;
	d->width_known = true;
	d->i->opsize = (u8)gpr_size(d, o->size);
	/* Outside 64-bit mode VEX.W says nothing about general registers. SDM 2A 2.3.5.5 */
	if (o->size == SZ_Y && d->code != 8)
		d->i->flags &= (u16)~I_W;
}

/* ModRM.rm in its places. False: #UD. */
static bool operand_rm(struct decoder *d, const struct operand_info *o)
{
	u8 m = modrm_get(d);

	if (o->place == PL_VSIB)
		return decode_vsib(d);
	if (m >= 0xc0 || o->place == PL_RMREG) {
		d->i->rm = operand_reg(d, o, m & 7, REX_B);
		return o->place != PL_M;
	}
	decode_mem(d);
	return o->place != PL_U;
}

static void operand_imm(struct decoder *d, const struct operand_info *o)
{
	unsigned int size = gpr_size(d, o->size);
	struct insn *i = d->i;

	switch (o->place) {
	case PL_IMM:
	case PL_REL: i->imm = (u64)fetch_signed(d, size); break;
	case PL_IMMU: i->imm = fetch(d, size); break;
	case PL_IMM2: i->imm2 = (u16)fetch(d, 1); break;
	case PL_IS4: i->imm = fetch(d, 1) & (d->code == 8 ? 0xff : 0x7f); break;
	case PL_ONE: i->imm = 1; break;
	case PL_MOFFS:
		i->imm = fetch(d, i->asize);
		i->flags |= I_MEM;
		break;
	case PL_FAR:
		i->imm = fetch(d, d->vsize);
		i->imm2 = (u16)fetch(d, 2);
		break;
	}
}

/* False: #UD. */
static bool decode_operand(struct decoder *d, unsigned int kind)
{
	const struct operand_info *o = &operand_info[kind];
	struct insn *i = d->i;

	operand_width(d, o);
	switch (o->place) {
	case PL_NONE: return true;
	case PL_REG:
		i->reg = operand_reg(d, o, (modrm_get(d) >> 3) & 7, REX_R);
		return true;
	case PL_RM:
	case PL_RMREG:
	case PL_U:
	case PL_M:
	case PL_VSIB: return operand_rm(d, o);
	case PL_VVVV:
		if (o->class == CL_GPR)
			i->vvvv = (u8)(i->vvvv * 8);
		return true;
	case PL_OPC: i->rm = operand_reg(d, o, d->opcode & 7, REX_B); return true;
	case PL_ACC: i->rm = R_RAX * 8; return true;
	case PL_ACCREG: i->reg = R_RAX * 8; return true;
	case PL_SEG: i->reg = (u8)(kind - OP_ES + SEG_ES); return true;
	case PL_SRC:
	case PL_DST: i->flags |= I_MEM; return true;
	default: operand_imm(d, o); return true;
	}
}

/* Registers that do not exist. SDM 2B MOV (three pages), 2A 2.2.1.4 */
static bool special_register_ok(struct decoder *d, const struct opcode *row)
{
	u8 kind = row->op[0] == OP_Rm || row->op[0] == OP_RvMw ? row->op[1] : row->op[0];
	struct insn *i = d->i;

	switch (kind) {
	case OP_Cd:
		if (d->lock && i->reg == 0)
			i->reg = 8;
		return BIT(i->reg) & (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(8));
	case OP_Dd: return i->reg < 8;
	case OP_Sw: return i->reg <= SEG_GS && !(row->op[0] == OP_Sw && i->reg == SEG_CS);
	default: return true;
	}
}

/* A word for the operands of a row that has no more than two. */
#define KEY(a, b)	((u32)OP_##a | (u32)OP_##b << 8)

static u32 operands_key(const struct opcode *row)
{
	u32 key;

	__builtin_memcpy(&key, row->op, sizeof(key));
	return key;
}
_Static_assert(sizeof(((struct opcode *)0)->op) == sizeof(u32), "operands_key");

/* ModRM with registers as wide as the operation, or bytes. */
static void modrm_gpr(struct decoder *d, bool reg, unsigned int rm_size)
{
	u8 m = modrm_get(d);

	if (reg)
		d->i->reg = (u8)((((m >> 3) & 7) | (d->rex & REX_R ? 8 : 0)) * 8);
	if (m >= 0xc0)
		d->i->rm = gpr_offset(d, (m & 7u) | (d->rex & REX_B ? 8 : 0), rm_size);
	else
		decode_mem(d);
}

/*
 * The operands that most instructions have, without a look at each. What decode_operand() would
 * do with them. False: others.
 */
static bool decode_usual(struct decoder *d, const struct opcode *row)
{
	struct insn *i = d->i;

	switch (operands_key(row)) {
	case KEY(NONE, NONE): return true;
	case KEY(Ev, Gv): case KEY(Gv, Ev):
		modrm_gpr(d, true, SZ_V);
		return true;
	case KEY(Gv, Eb):
		modrm_gpr(d, true, SZ_B);
		return true;
	case KEY(Gv, M):
		if (modrm_get(d) >= 0xc0)
			return false;
		modrm_gpr(d, true, SZ_V);
		return true;
	case KEY(Ev, NONE):
		modrm_gpr(d, false, SZ_V);
		return true;
	case KEY(Ev, Ibs):
		modrm_gpr(d, false, SZ_V);
		i->imm = (u64)fetch_signed(d, 1);
		return true;
	case KEY(Ev, Iz):
		modrm_gpr(d, false, SZ_V);
		i->imm = (u64)fetch_signed(d, d->vsize == 2 ? 2 : 4);
		return true;
	case KEY(Zv, NONE):
		i->rm = (u8)(((d->opcode & 7) | (d->rex & REX_B ? 8 : 0)) * 8);
		return true;
	case KEY(Jb, NONE):
		i->imm = (u64)fetch_signed(d, 1);
		return true;
	case KEY(Jz, NONE):
		i->imm = (u64)fetch_signed(d, d->vsize == 2 ? 2 : 4);
		return true;
	default: return false;
	}
}

static bool decode_operands(struct decoder *d, const struct opcode *row)
{
	bool ok = true;

	if (decode_usual(d, row))
		return true;

	for (unsigned int k = 0; k < ARRAY_SIZE(row->op) && row->op[k]; k++)
		ok &= decode_operand(d, row->op[k]);
	return ok;
}

/* ---- what a row demands ---------------------------------------------------------------------- */

/*
 * Numbers that opmask and general registers do not have; VEX.vvvv where it is not used. (AMD
 * ignores VEX.R of opmask registers.) SDM 2A 2.7.11, 2.8 (class K20)
 */
static bool vex_registers_ok(const struct decoder *d, const struct opcode *row)
{
	bool vvvv_free = false;

	for (unsigned int k = 0; k < ARRAY_SIZE(row->op) && row->op[k]; k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (o->place == PL_REG && o->class != CL_VEC && d->high & HIGH_REG)
			return false;
		if (o->place == PL_REG && o->class == CL_MASK && d->rex & REX_R)
			return false;
		if (o->place == PL_VVVV && o->class == CL_MASK && d->vvvv & 8 && d->code == 8)
			return false;
		vvvv_free |= o->place == PL_VVVV;
	}
	return vvvv_free || d->vvvv == 0;
}

/* VEX.L, VEX.W. SDM 2A 2.3.6 and the instructions' pages */
static bool vex_ok(const struct decoder *d, const struct opcode *row)
{
	u32 flags = d->i->flags, attr = row->attr;

	if ((attr & ATTR_L0 && flags & I_L) || (attr & ATTR_L1 && !(flags & I_L)))
		return false;
	if ((attr & ATTR_W0 && flags & I_W) || (attr & ATTR_W1 && !(flags & I_W)))
		return false;
	if (attr & ATTR_W64 && d->code != 8 && d->rex & REX_W)
		return false;
	return vex_registers_ok(d, row);
}

/* The mask and zeroing. SDM 2A 2.7.4 and the instructions' pages */
static bool evex_mask_ok(const struct decoder *d, const struct opcode *row)
{
	const struct operand_info *to = &operand_info[row->op[0]];
	bool z = d->i->evex & EVEX_Z, mem = d->i->flags & I_MEM;

	if (!(d->i->evex & EVEX_K))
		return !z && !(row->evex & EV_KREQ);
	if (row->evex & EV_NOK)
		return false;
	return !z || !(row->evex & EV_KREQ || to->class == CL_MASK ||
		(mem && (to->place == PL_RM || to->place == PL_M)));
}

/* Broadcast, rounding, lengths. SDM 2A 2.7.8 to 2.7.11. (AMD ignores EVEX.b with registers.) */
static bool evex_length_ok(const struct decoder *d, const struct opcode *row)
{
	static const u16 missing[] = { EV_NO128, EV_NO256, EV_NO512 };
	unsigned int ll = d->i->evex >> EVEX_LL_SHIFT & 3;
	bool b = d->i->evex & EVEX_B;

	if (b && !(d->i->flags & I_MEM))
		return row->evex & (EV_RC | EV_SAE);
	if (b && !(row->evex & EV_BCAST))
		return false;
	return ll < ARRAY_SIZE(missing) && !(row->evex & missing[ll]);
}

static bool evex_ok(struct decoder *d, const struct opcode *row)
{
	const struct insn *i = d->i;

	if (row->op[1] == OP_Mvd || row->op[1] == OP_Mvq) {
		if (i->index == i->reg)
			return false;
	}
	if (operand_info[row->op[0]].place == PL_VSIB || operand_info[row->op[1]].place == PL_VSIB)
		d->vvvv &= 15;		/* V' belongs to the index */
	return evex_mask_ok(d, row) && evex_length_ok(d, row) && vex_registers_ok(d, row);
}

static void evex_scale(struct decoder *d, const struct opcode *row)
{
	struct insn *i = d->i;

	if (i->flags & I_MEM && d->modrm >> 6 == 1)
		i->disp *= (s32)opcode_disp_unit(row, i);
}

/* LOCK: only with a memory destination of rows that allow it. SDM 2A LOCK */
static bool lock_ok(const struct decoder *d, const struct opcode *row)
{
	if (row->attr & ATTR_LOCK)
		return d->i->flags & I_MEM;
	return (row->op[0] == OP_Cd || row->op[1] == OP_Cd) && d->i->reg == 0;
}

static bool row_ok(struct decoder *d, const struct opcode *row)
{
	if (row->attr & (d->code == 8 ? ATTR_I64 : ATTR_O64))
		return false;
	if (unlikely(d->lock) && !lock_ok(d, row))
		return false;
	if (d->evex ? !evex_ok(d, row) : d->vex && !vex_ok(d, row))
		return false;
	return special_register_ok(d, row);
}

/* The handler, or NULL: there is no such form. */
static insn_fn *row_handler(const struct opcode *row, const struct insn *i, u8 opcode)
{
	unsigned int n = (unsigned int)__builtin_ctz(i->opsize);

	if (row->run)
		return row->run;
	if (row->attr & ATTR_JCC)
		return exec_jcc[opcode & 15];
	return row->set->fn[i->flags & I_MEM ? 4 + n : n];
}

/*
 * VEX on general registers outside 64-bit mode. The code cache does not tell real and
 * virtual-8086 mode, which have no VEX, from protected mode; the vector rows' gate does
 * (x86/fpu.h). SDM 2A 2.3.1
 */
static void exec_vex_gpr(struct vcpu *v, const struct insn *i)
{
	if (vcpu_real(v) || vcpu_v86(v))
		raise_ud(v);
	row_handler(opcode_row(i->row), i, 0)(v, i);
}

/* ---- RIP-relative operands ------------------------------------------------------------------- */

/* Rare: disp32 plus the length does not fit in insn->disp. There disp is without it. */
static void exec_rip_far(struct vcpu *v, const struct insn *i)
{
	struct insn t = *i;

	v->r[R_TEMP] = v->r[R_RIP] + i->len;
	t.base = R_TEMP;
	t.exec = row_handler(opcode_row(i->row), &t, 0);
	t.exec(v, &t);
}

static void rip_finish(struct insn *i)
{
	s32 disp;

	if (__builtin_add_overflow(i->disp, (s32)i->len, &disp))
		i->exec = exec_rip_far;
	else
		i->disp = disp;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Everything but the length. False: #UD. */
static bool decode_body(struct decoder *d)
{
	const struct opcode *row;
	struct insn *i = d->i;
	bool ok;

	if (!decode_opcode(d))
		return false;
	row = decode_row(d);
	if (!row)
		return false;
	d->vsize = i->opsize = operand_size(d, row);
	ok = decode_operands(d, row);
	if (unlikely(d->evex))
		evex_scale(d, row);
	if (!row_ok(d, row) || !ok)
		return false;
	i->flags |= (u16)((d->has_modrm ? I_MODRM : 0) | (row->attr & ATTR_BRANCH ? I_BRANCH : 0) |
		(row->attr & ATTR_END ? I_END : 0) | (row->attr & ATTR_NATIVE ? I_NATIVE : 0));
	i->exec = row_handler(row, i, d->opcode);
	if (unlikely(d->vex && row->set && d->code != 8) && i->exec)
		i->exec = exec_vex_gpr;
	return i->exec;
}

static enum decode_result decode_padded(const u8 *bytes, unsigned int avail,
	unsigned int code_bytes, struct insn *out)
{
	struct decoder d = { .p = bytes, .start = bytes, .i = out, .code = (u8)code_bytes,
		.seg = NO_SEG };
	unsigned int len;
	bool ok;

	*out = (struct insn){ .base = R_ZERO, .index = R_ZERO, .seg = SEG_DS };
	decode_prefixes(&d);
	if (d.seg != NO_SEG) {
		out->seg = d.seg;
		out->flags |= I_SEG;
	}
	ok = decode_body(&d);
	len = (unsigned int)(d.p - d.start);
	if (unlikely(len > avail && avail < INSN_MAX))
		return DECODE_MORE;
	if (unlikely(len > INSN_MAX))
		return DECODE_LONG;
	out->len = (u8)len;
	if (!ok) {
		out->exec = exec_ud;
		return DECODE_UD;
	}
	if (d.rip)
		rip_finish(out);
	return DECODE_OK;
}

enum decode_result insn_decode(const u8 *bytes, unsigned int avail, unsigned int code_bytes,
	struct insn *out)
{
	u8 buf[DECODE_ROOM] = { 0 };

	if (likely(avail >= DECODE_ROOM))
		return decode_padded(bytes, avail, code_bytes, out);
	__builtin_memcpy(buf, bytes, MIN(avail, (unsigned int)INSN_MAX));
	return decode_padded(buf, avail, code_bytes, out);
}
