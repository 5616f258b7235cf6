/*
 * Text of an instruction, from its opcode row: disasm.h. Names are the rows' (SDM 2), but where one
 * row is several instructions by width or form: those are in a table here. Syntax of NASM.
 *
 * What struct insn does not tell is not shown: prefixes without effect, and how long an
 * immediate, a displacement or a register number was encoded.
 */
#include "hypervisor/insn/disasm.h"

#include "hypervisor/insn/exec.h"
#include "hypervisor/insn/opcode.h"

struct text {
	char *buf;
	size_t n;
	u32 len;	/* of the whole; more than n may be wanted */
};

static void put_char(struct text *t, char c)
{
	if (t->len + 1 < t->n)
		t->buf[t->len] = c;
	t->len++;
}

static void put_str(struct text *t, const char *s)
{
	while (*s)
		put_char(t, *s++);
}

static void put_hex(struct text *t, u64 value)
{
	u32 digits = 1;

	while (digits < 16 && value >> (4 * digits))
		digits++;
	put_str(t, "0x");
	while (digits--)
		put_char(t, "0123456789abcdef"[value >> (4 * digits) & 15]);
}

static void put_number(struct text *t, u32 value)
{
	if (value >= 10)
		put_char(t, (char)('0' + value / 10 % 10));
	put_char(t, (char)('0' + value % 10));
}

static u64 size_mask(u32 bytes)
{
	return bytes >= 8 ? ~0ULL : BIT(bytes * 8) - 1;
}

static bool text_equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* ---- names ---------------------------------------------------------------------------------- */

enum { BY_OPSIZE, BY_ASIZE, BY_W, BY_FORM };

/*
 * Rows that are several instructions. BY_OPSIZE, BY_ASIZE: for 2, 4, 8 bytes. BY_W: without and
 * with it. BY_FORM: in memory, between registers.
 */
static const struct {
	const char *row;
	u8 by;
	const char *name[3];
} renamed[] = {
	{ "cbw", BY_OPSIZE, { "cbw", "cwde", "cdqe" } },
	{ "cwd", BY_OPSIZE, { "cwd", "cdq", "cqo" } },
	{ "pushf", BY_OPSIZE, { "pushfw", "pushfd", "pushfq" } },
	{ "popf", BY_OPSIZE, { "popfw", "popfd", "popfq" } },
	{ "pusha", BY_OPSIZE, { "pushaw", "pushad", "pushad" } },
	{ "popa", BY_OPSIZE, { "popaw", "popad", "popad" } },
	{ "iret", BY_OPSIZE, { "iretw", "iretd", "iretq" } },
	{ "retf", BY_OPSIZE, { "retfw", "retfd", "retfq" } },
	{ "jcxz", BY_ASIZE, { "jcxz", "jecxz", "jrcxz" } },
	{ "sysret", BY_W, { "sysret", "o64 sysret" } },
	{ "sysexit", BY_W, { "sysexit", "o64 sysexit" } },
	{ "cmpxchg8b", BY_W, { "cmpxchg8b", "cmpxchg16b" } },
	{ "movd", BY_W, { "movd", "movq" } },
	{ "vmovd", BY_W, { "vmovd", "vmovq" } },
	{ "pinsrd", BY_W, { "pinsrd", "pinsrq" } },
	{ "vpinsrd", BY_W, { "vpinsrd", "vpinsrq" } },
	{ "pextrd", BY_W, { "pextrd", "pextrq" } },
	{ "vpextrd", BY_W, { "vpextrd", "vpextrq" } },
	{ "fxsave", BY_W, { "fxsave", "fxsave64" } },
	{ "fxrstor", BY_W, { "fxrstor", "fxrstor64" } },
	{ "xsave", BY_W, { "xsave", "xsave64" } },
	{ "xrstor", BY_W, { "xrstor", "xrstor64" } },
	{ "xsaveopt", BY_W, { "xsaveopt", "xsaveopt64" } },
	{ "xsavec", BY_W, { "xsavec", "xsavec64" } },
	{ "movlps", BY_FORM, { "movlps", "movhlps" } },
	{ "movhps", BY_FORM, { "movhps", "movlhps" } },
	{ "vmovlps", BY_FORM, { "vmovlps", "vmovhlps" } },
	{ "vmovhps", BY_FORM, { "vmovhps", "vmovlhps" } },
};

static u32 name_variant(u8 by, const struct insn *i)
{
	switch (by) {
	case BY_OPSIZE: return i->opsize == 2 ? 0 : i->opsize == 8 ? 2 : 1;
	case BY_ASIZE: return i->asize == 2 ? 0 : i->asize == 8 ? 2 : 1;
	case BY_W: return !!(i->flags & I_W);
	default: return !(i->flags & I_MEM);
	}
}

/* Strings are named by their width and have no operands. */
static bool is_string(const struct opcode *row)
{
	return row->attr & ATTR_REP || text_equal(row->name, "xlat");
}

/* "vfmadd132ps/d" ends in d instead of s with W. */
static void put_row_name(struct text *t, const char *name, bool w)
{
	for (; *name && *name != '/'; name++)
		put_char(t, w && name[1] == '/' ? name[2] : *name);
}

static void put_name(struct text *t, const struct opcode *row, const struct insn *i)
{
	for (u32 k = 0; k < ARRAY_SIZE(renamed); k++) {
		if (text_equal(row->name, renamed[k].row)) {
			put_str(t, renamed[k].name[name_variant(renamed[k].by, i)]);
			return;
		}
	}
	put_row_name(t, row->name, i->flags & I_W);
	if (is_string(row))
		put_char(t, "_bw_d___q"[opcode_mem_size(row, i)]);
}

static const char *const segment_name[] = { "es", "cs", "ss", "ds", "fs", "gs" };

static void put_prefixes(struct text *t, const struct opcode *row, const struct insn *i)
{
	bool compares = row->f_write;

	if (i->flags & I_LOCK)
		put_str(t, "lock ");
	if (!is_string(row))
		return;
	if (row->attr & ATTR_REP && i->flags & I_REP)
		put_str(t, compares ? "repe " : "rep ");
	else if (row->attr & ATTR_REP && i->flags & I_REPNE)
		put_str(t, compares ? "repne " : "rep ");
	if (i->flags & I_SEG) {
		put_str(t, segment_name[i->seg]);
		put_char(t, ' ');
	}
}

/* ---- registers ------------------------------------------------------------------------------ */

/* number: R_RAX to R_R15. */
static void put_gpr(struct text *t, u32 number, u32 bytes)
{
	static const char low[8][4] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };

	if (number >= 8) {
		put_char(t, 'r');
		put_number(t, number);
		put_str(t, bytes == 1 ? "b" : bytes == 2 ? "w" : bytes == 4 ? "d" : "");
	} else if (bytes == 1) {
		put_char(t, low[number][0]);
		put_str(t, number < 4 ? "l" : low[number] + 1);
		put_str(t, number < 4 ? "" : "l");
	} else {
		put_str(t, bytes == 8 ? "r" : bytes == 4 ? "e" : "");
		put_str(t, low[number]);
	}
}

/* off: into v->r; 1 above a multiple of 8: AH, CH, DH, BH. */
static void put_gpr_at(struct text *t, u32 off, u32 bytes)
{
	if (off & 7) {
		put_char(t, "acdb"[off / 8 & 3]);
		put_char(t, 'h');
	} else {
		put_gpr(t, off / 8, bytes);
	}
}

static void put_vector(struct text *t, u32 number, u32 bytes)
{
	put_str(t, bytes == 64 ? "zmm" : bytes == 32 ? "ymm" : "xmm");
	put_number(t, number);
}

/* Names end so: VADDSS, VFMADD132SS/D. VEX.L means nothing to them. */
static bool is_scalar(const struct opcode *row, const struct insn *i)
{
	const char *name = row->name, *end = name;

	if (i->flags & I_EVEX)
		return row->evex & EV_LIG;
	if (name[1] == 'b' || name[1] == 'p')		/* VBROADCASTSx, VPABSD */
		return false;
	while (*end && *end != '/')
		end++;
	return end - name > 2 && end[-2] == 's' && (end[-1] == 's' || end[-1] == 'd');
}

/* Operands that are half as wide as the table says: results of what narrows, registers spread. */
static bool is_half(const struct opcode *row, u32 k)
{
	static const struct { const char *name; u8 op; } half[] = {
		{ "vcvtpd2ps", 0 }, { "vcvtpd2dq", 0 }, { "vcvttpd2dq", 0 },
		{ "vcvtpd2udq", 0 }, { "vcvttpd2udq", 0 }, { "vcvtqq2ps", 0 }, { "vcvtuqq2ps", 0 },
		{ "vcvtneps2bf16", 0 }, { "vpgatherqd", 0 }, { "vgatherqps", 0 },
		{ "vpscatterqd", 1 }, { "vscatterqps", 1 },
		{ "vbroadcastss", 1 }, { "vbroadcastsd", 1 },
	};

	for (u32 n = 0; n < ARRAY_SIZE(half); n++)
		if (half[n].op == k && text_equal(row->name, half[n].name))
			return true;
	return false;
}

/* A scalar or part of a vector stands in XMM whatever the length is, or in YMM beside ZMM. */
static u32 vector_bytes(const struct opcode *row, u32 k, const struct insn *i)
{
	const struct operand_info *o = &operand_info[row->op[k]];
	u32 bytes = insn_vector_bytes(i);

	if (o->size != SZ_X)
		return operand_bytes(o->size, i);
	if (is_scalar(row, i))
		return 16;
	if (o->place == PL_RM && o->msize != SZ_X && o->msize != SZ_XD)
		bytes = operand_bytes(o->msize, i);
	return MAX(is_half(row, k) ? bytes / 2 : bytes, 16);
}

static void put_register(
	struct text *t, const struct opcode *row, u32 k, u32 number, const struct insn *i)
{
	const struct operand_info *o = &operand_info[row->op[k]];
	u32 bytes = operand_bytes(o->size, i);

	switch (o->class) {
	case CL_VEC: put_vector(t, number, vector_bytes(row, k, i)); return;
	case CL_SREG: put_str(t, segment_name[number % ARRAY_SIZE(segment_name)]); return;
	case CL_MMX: put_str(t, "mm"); break;
	case CL_X87: put_str(t, "st"); break;
	case CL_CR: put_str(t, "cr"); break;
	case CL_DR: put_str(t, "dr"); break;
	case CL_MASK: put_char(t, 'k'); break;
	default:
		/* CRC32's destination: by W. */
		put_gpr_at(t, number, bytes ? bytes : i->flags & I_W ? 8 : 4);
		return;
	}
	put_number(t, number);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void put_size(struct text *t, u32 bytes)
{
	static const struct {
		u8 bytes;
		const char *name;
	} sizes[] = {
		{ 1, "byte " }, { 2, "word " }, { 4, "dword " }, { 6, "fword " }, { 8, "qword " },
		{ 10, "tword " }, { 16, "oword " }, { 32, "yword " },
		{ 64, "zword " },
	};

	for (u32 k = 0; k < ARRAY_SIZE(sizes); k++)
		if (sizes[k].bytes == bytes)
			put_str(t, sizes[k].name);
}

/* The elements of a gather and their indexes, by its name: V[P]GATHER{D,Q}x. SDM 2C */
static u32 gather_index_bytes(const struct opcode *row, const struct insn *i)
{
	const char *p = row->name;
	u32 bytes = insn_vector_bytes(i);
	bool dwords;

	while (*p && !(p[0] == 'e' && p[1] == 'r'))
		p++;
	dwords = *p && p[2] == 'd';
	return MAX(dwords && i->flags & I_W ? bytes / 2 : bytes, 16u);
}

static void put_disp(struct text *t, s64 disp, bool first)
{
	if (disp < 0)
		put_char(t, '-');
	else if (!first)
		put_char(t, '+');
	put_hex(t, disp < 0 ? -(u64)disp : (u64)disp);
}

static bool put_base_index(
	struct text *t, const struct opcode *row, const struct insn *i, bool vsib)
{
	bool base = i->base != R_ZERO, index = vsib || i->index != R_ZERO;

	if (base)
		put_gpr(t, i->base, i->asize);
	if (base && index)
		put_char(t, '+');
	if (vsib)
		put_vector(t, i->index, gather_index_bytes(row, i));
	else if (index)
		put_gpr(t, i->index, i->asize);
	if (index && i->scale) {
		put_char(t, '*');
		put_number(t, 1u << i->scale);
	}
	return base || index;
}

/* {1to16} */
static void put_broadcast(struct text *t, const struct operand_info *o, const struct insn *i)
{
	if (!(i->flags & I_EVEX) || !(i->evex & EVEX_B))
		return;
	put_str(t, "{1to");
	put_number(t, operand_bytes(o->msize, i) / operand_mem_bytes(o->msize, i));
	put_char(t, '}');
}

/* {k1}{z}, behind the first operand */
static void put_mask(struct text *t, const struct insn *i)
{
	if (!(i->flags & I_EVEX) || !(i->evex & EVEX_K))
		return;
	put_str(t, "{k");
	put_number(t, i->evex & EVEX_K);
	put_str(t, i->evex & EVEX_Z ? "}{z}" : "}");
}

/* Behind the last vector. */
static void put_rounding(struct text *t, const struct opcode *row, const struct insn *i)
{
	static const char mode[4][4] = { "rn", "rd", "ru", "rz" };

	if (!(i->flags & I_EVEX) || !(i->evex & EVEX_B) || i->flags & I_MEM)
		return;
	put_str(t, ", {");
	if (row->evex & EV_RC) {
		put_str(t, mode[i->evex >> EVEX_LL_SHIFT & 3]);
		put_char(t, '-');
	}
	put_str(t, "sae}");
}

static void put_memory(struct text *t, const struct opcode *row, const struct operand_info *o,
	const struct insn *i, u64 rip)
{
	bool some;

	if (o->msize != SZ_P && o->msize != SZ_S && o->place != PL_VSIB)
		put_size(t, operand_mem_bytes(o->msize, i));
	else if (row->attr & ATTR_BRANCH)
		put_str(t, i->opsize == 2 ? "word far " : i->opsize == 8 ? "qword far " : "dword far ");
	put_char(t, '[');
	if (i->base == R_RIP)
		put_str(t, "rel ");
	if (i->flags & I_SEG) {
		put_str(t, segment_name[i->seg]);
		put_char(t, ':');
	}
	if (o->place == PL_MOFFS) {
		put_hex(t, i->imm);
	} else if (i->base == R_RIP) {
		put_hex(t, (rip + (u64)(s64)i->disp) & size_mask(i->asize));
	} else {
		some = put_base_index(t, row, i, o->place == PL_VSIB);
		if (!some)
			put_hex(t, (u64)(s64)i->disp & size_mask(i->asize));
		else if (i->disp)
			put_disp(t, i->disp, false);
	}
	put_char(t, ']');
	put_broadcast(t, o, i);
}

/* ---- operands ------------------------------------------------------------------------------- */

/* Small negative numbers as such, else the bits that count. */
static void put_immediate(struct text *t, u64 imm, u32 bytes)
{
	s64 value = (s64)imm;

	if (value < 0 && value >= -0x8000)
		put_disp(t, value, true);
	else
		put_hex(t, imm & size_mask(bytes));
}

static const char *implied_name(u32 kind)
{
	switch (kind) {
	case OP_CL: return "cl";
	case OP_DX: return "dx";
	case OP_XMM0: return "xmm0";
	default: return "st0";
	}
}

static void put_operand(
	struct text *t, const struct opcode *row, u32 k, const struct insn *i, u64 rip)
{
	const struct operand_info *o = &operand_info[row->op[k]];

	switch (o->place) {
	case PL_NONE: put_str(t, implied_name(row->op[k])); break;
	case PL_REG: case PL_SEG: case PL_ACCREG: put_register(t, row, k, i->reg, i); break;
	case PL_VVVV: put_register(t, row, k, i->vvvv, i); break;
	case PL_IS4: put_register(t, row, k, i->imm >> 4 & 15, i); break;
	case PL_RMREG: case PL_U: case PL_OPC: case PL_ACC: put_register(t, row, k, i->rm, i); break;
	case PL_RM:
		if (i->flags & I_MEM)
			put_memory(t, row, o, i, rip);
		else
			put_register(t, row, k, i->rm, i);
		break;
	case PL_M: case PL_VSIB: case PL_MOFFS: put_memory(t, row, o, i, rip); break;
	case PL_IMM: put_immediate(t, i->imm, i->opsize); break;
	case PL_IMMU: case PL_ONE: put_hex(t, i->imm); break;
	case PL_IMM2: put_hex(t, i->imm2); break;
	case PL_REL: put_hex(t, (rip + i->len + i->imm) & size_mask(i->opsize)); break;
	case PL_FAR:
		put_hex(t, i->imm2);
		put_char(t, ':');
		put_hex(t, i->imm);
		break;
	}
}

/*
 * ST(0) is written only where it is calculated with and there is another register: not in FADD
 * dword [..], FCHS, FLD st1. The accumulator of CBW and CWD is in their names.
 */
static bool operand_shown(const struct opcode *row, u32 k, const struct insn *i)
{
	if (is_string(row) || row->run == exec_cbw || row->run == exec_cwd)
		return false;
	if (row->op[k] != OP_ST0)
		return row->op[k];
	return !(i->flags & I_MEM) && row->op[1] && row->attr & (ATTR_RW | ATTR_RO);
}

/* Is operand k the last vector? */
static bool vector_last(const struct opcode *row, u32 k)
{
	if (operand_info[row->op[k]].class != CL_VEC)
		return false;
	while (++k < ARRAY_SIZE(row->op))
		if (operand_info[row->op[k]].class == CL_VEC)
			return false;
	return true;
}

int insn_format(char *buf, size_t n, const struct insn *i, u64 rip)
{
	const struct opcode *row = opcode_row(i->row);
	struct text t = { .buf = buf, .n = n };
	const char *between = " ";

	if (row) {
		put_prefixes(&t, row, i);
		put_name(&t, row, i);
		for (u32 k = 0; k < ARRAY_SIZE(row->op); k++) {
			if (!operand_shown(row, k, i))
				continue;
			put_str(&t, between);
			put_operand(&t, row, k, i, rip);
			if (k == 0)
				put_mask(&t, i);
			if (vector_last(row, k))
				put_rounding(&t, row, i);
			between = ", ";
		}
	} else {
		put_str(&t, "(bad)");
	}
	if (n)
		buf[MIN(t.len, n - 1)] = 0;
	return (int)t.len;
}
