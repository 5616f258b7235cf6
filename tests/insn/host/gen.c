/*
 * Random sequences of valid user-mode instructions, made from the opcode table's rows. Whatever an
 * instruction needs so that it does something (addresses in the scratch area, a divisor, a sane
 * control word) is prepared by instructions before it; so no register has a fixed role.
 */
#include <string.h>

#include "hypervisor/insn/exec.h"
#include "tests/insn/host/gen.h"

/* ---- rows ---------------------------------------------------------------------------------- */

static u32 rows[4096];
static unsigned int n_rows;

/* Beyond ATTR_USER: what depends on XCR0 too, which is the same on both sides. */
static bool row_wanted(const struct opcode *row)
{
	return (row->attr & ATTR_USER) || row->run == exec_xsave || row->run == exec_xsavec ||
		row->run == exec_xsaveopt || row->run == exec_xrstor;
}

/* What the guests have not got. */
static bool avx512(u32 row)
{
	unsigned int map = row >> ROW_MAP_SHIFT;

	return (map >= MAP_EVEX1 && map <= MAP_EVEX3) || map == MAP_MASK || opcode_row(row)->evex;
}

static bool row_there(u32 row)
{
	return xstate_components & XCR0_AVX512 || !avx512(row);
}

void gen_setup(void)
{
	xstate_setup();
	for (u32 k = 0; k < opcode_rows(); k++)
		if (opcode_row(k) && row_wanted(opcode_row(k)) && row_there(k))
			rows[n_rows++] = k;
}

unsigned int gen_rows(void)
{
	return n_rows;
}

u32 gen_row_at(unsigned int k)
{
	return rows[k];
}

void gen_drop_row(u32 row)
{
	for (unsigned int k = 0; k < n_rows; k++)
		if (rows[k] == row)
			rows[k--] = rows[--n_rows];
}

/* ---- one instruction in the making --------------------------------------------------------- */

static void put8(struct gen *g, u8 b)
{
	if (g->len < sizeof(g->buf))
		g->buf[g->len++] = b;
}

static void put(struct gen *g, u64 val, unsigned int n)
{
	for (; n--; val >>= 8)
		put8(g, (u8)val);
}

static struct prep *prep_new(struct gen *g)
{
	struct prep *p = &g->prep[g->n_prep++];

	p->len = 0;
	p->target = -1;
	return p;
}

static void prep_bytes(struct prep *p, u64 val, unsigned int n)
{
	for (; n--; val >>= 8)
		p->bytes[p->len++] = (u8)val;
}

/* mov r32, imm32 */
static void prep_reg(struct gen *g, unsigned int reg, u32 val)
{
	struct prep *p = prep_new(g);

	if (reg >= 8)
		prep_bytes(p, 0x41, 1);
	prep_bytes(p, 0xb8 | (reg & 7), 1);
	prep_bytes(p, val, 4);
	g->busy |= 1 << reg;
	g->known[reg] = val;
}

/* An instruction with its operand at an absolute address. op: opcode bytes, first one lowest. */
static struct prep *prep_abs(struct gen *g, u32 op, unsigned int n, unsigned int ext, u64 addr)
{
	struct prep *p = prep_new(g);

	prep_bytes(p, op, n);
	prep_bytes(p, (g->bits == 64 ? 4 : 5) | (ext & 7) << 3, 1);
	if (g->bits == 64)
		prep_bytes(p, 0x25, 1);
	prep_bytes(p, addr, 4);
	return p;
}

/* mov dword [addr], val */
static struct prep *prep_store(struct gen *g, u64 addr, u32 val)
{
	struct prep *p = prep_abs(g, 0xc7, 1, 0, addr);

	prep_bytes(p, val, 4);
	return p;
}

/* push imm32 */
static struct prep *prep_push(struct gen *g, u32 val)
{
	struct prep *p = prep_new(g);

	prep_bytes(p, 0x68, 1);
	prep_bytes(p, val, 4);
	return p;
}

static u32 random_reg(struct gen *g)
{
	return rnd_below(g->r, g->bits == 64 ? 16 : 8);
}

static u32 random_vector(struct gen *g)
{
	return rnd_below(g->r, g->bits == 64 ? (g->evex ? 32 : 16) : 8);
}

/* A register for an address: not one that is prepared already. */
static u8 free_reg(struct gen *g, bool no_rsp)
{
	for (;;) {
		u8 k = (u8)random_reg(g);

		if (!(g->busy & (1 << k)) && !(no_rsp && k == R_RSP))
			return k;
	}
}

static bool row_has(const struct gen *g, enum operand_place place)
{
	for (unsigned int k = 0; k < 4; k++)
		if (g->row->op[k] && operand_info[g->row->op[k]].place == place)
			return true;
	return false;
}

static bool is_set(const struct gen *g, const struct exec_set *s)
{
	return g->row->set == s;
}

static bool is_run(const struct gen *g, insn_fn *f)
{
	return g->row->run == f;
}

/* ---- addresses ----------------------------------------------------------------------------- */

/* Room for what an instruction may touch around its address: bit strings, gathers, XSAVE areas. */
#define MARGIN 1024
#define SEG_PREFIX_FS 0x64	/* 65: GS */

static u64 data_address(struct gen *g, bool align)
{
	u64 off = MARGIN + rnd_below(g->r, DATA_SIZE - 2 * MARGIN);
	u32 how = rnd_below(g->r, 100);
	u64 other = g->place ? g->place(g) : 0;

	if (other)
		return other;
	if (how < 12)	/* around a page's end */
		off = 0x1000 * (1 + rnd_below(g->r, 3)) - rnd_below(g->r, g->evex ? 68 : 36);
	else if (how < 13 && rnd_chance(g->r, g->evex & EVEX_K ? 100 : 30))
		off = DATA_SIZE - rnd_below(g->r, g->evex ? 72 : 40);	/* to what is not there */
	if (align && !rnd_chance(g->r, 2))
		off &= ~63ULL;
	return AREA_DATA + off;
}

static bool wants_alignment(const struct gen *g)
{
	insn_fn *f = g->row->run;

	return (g->row->attr & ATTR_NATIVE) || f == exec_fxsave || f == exec_fxrstor ||
	       f == exec_xsave || f == exec_xsavec || f == exec_xsaveopt || f == exec_xrstor ||
	       f == exec_cmpxchg16b || f == exec_maskmov;
}

static bool wants_64_alignment(const struct gen *g)
{
	insn_fn *f = g->row->run;

	return f == exec_xsave || f == exec_xsavec || f == exec_xsaveopt || f == exec_xrstor;
}

/*
 * XSAVEC does not write what is in its initial state, which the processor may notice or not (SDM 1
 * 13.6). On cleared memory that makes no difference for the vector registers. XSAVEOPT leaves out
 * as well what has not changed since an XRSTOR from there: it gets an XSAVE before.
 */
static bool leaves_gaps(const struct gen *g)
{
	return g->row->run == exec_xsavec;
}

/* All components, or some. */
static u32 xsave_mask(struct gen *g)
{
	return (u32)xstate_components & (rnd_chance(g->r, 60) ? ~0u : (u32)rnd(g->r));
}

/* An area with AVX-512 reaches further than other operands. */
static u64 xsave_room(u64 ea)
{
	const u64 last = AREA_DATA + DATA_SIZE - FPU_AREA;

	return ea > last && ea < AREA_DATA + DATA_SIZE ? last & ~63ULL : ea;
}

static void choose_ea(struct gen *g)
{
	g->ea = data_address(
		g, wants_alignment(g) && rnd_chance(g->r, g->at.map >= MAP_VEX1 ? 30 : 100));
	if ((g->row->attr & ATTR_NATIVE) && !rnd_chance(g->r, 50))
		g->ea &= ~15ULL;
	if ((wants_64_alignment(g) || (g->evex && g->row->attr & ATTR_ALIGN)) &&
		rnd_chance(g->r, 98))
		g->ea &= ~63ULL;
	if (wants_64_alignment(g) && rnd_chance(g->r, 95))
		g->ea = xsave_room(g->ea);
}

/* The memory operand's offset in its segment. */
static u32 operand_offset(const struct gen *g)
{
	return (u32)g->ea - (g->segment ? g->seg_base[g->segment - SEG_PREFIX_FS] : 0);
}

struct address {
	u8 modrm, sib;
	bool has_sib;
	u8 disp_size;
	u32 disp;
	u8 rex;		/* X, B bits */
	bool index_high;	/* EVEX.V' */
};

static void set_disp8(struct gen *g, struct address *a)
{
	a->modrm |= 0x40;
	a->disp_size = 1;
	a->disp = (u32)((s32)(s8)rnd(g->r) * g->disp_unit);
}

static u32 small_disp(struct gen *g, struct address *a)
{
	switch (rnd_below(g->r, 3)) {
	case 0:
		return 0;
	case 1:
		set_disp8(g, a);
		break;
	default:
		a->modrm |= 0x80;
		a->disp_size = 4;
		a->disp = (u32)rnd(g->r) & 0xfffff;
		break;
	}
	return a->disp;
}

static void address_plain(struct gen *g, struct address *a)
{
	u8 base = free_reg(g, row_has(g, PL_NONE));

	if ((base & 7) == 4) {
		a->has_sib = true;
		a->sib = 0x24;
		a->modrm |= 4;
	} else {
		a->modrm |= base & 7;
	}
	if ((base & 7) == 5) {
		set_disp8(g, a);
	} else {
		small_disp(g, a);
	}
	a->rex |= base >> 3;
	prep_reg(g, base, operand_offset(g) - a->disp);
}

/* By a register that holds an address already: what compiled code mostly does. */
static bool address_known(struct gen *g, struct address *a)
{
	u8 k = (u8)random_reg(g);
	s32 disp = (s32)(operand_offset(g) - g->known[k]);
	bool small;

	if (!g->known[k] || g->busy & (1 << k))
		return false;
	small = disp % g->disp_unit == 0 && disp / g->disp_unit == (s8)(disp / g->disp_unit);
	a->modrm |= small ? 0x40 : 0x80;
	a->disp_size = small ? 1 : 4;
	a->disp = (u32)disp;
	if ((k & 7) == 4) {
		a->has_sib = true;
		a->sib = 0x24;
	}
	a->modrm |= k & 7;
	a->rex |= k >> 3;
	return true;
}

static void address_indexed(struct gen *g, struct address *a)
{
	u8 base = free_reg(g, false), index, scale = (u8)rnd_below(g->r, 4);
	u32 by = (u32)rnd(g->r) & 0xffff;

	g->busy |= 1 << base;
	index = free_reg(g, true);
	a->has_sib = true;
	a->sib = (u8)(scale << 6 | (index & 7) << 3 | (base & 7));
	a->modrm |= 4;
	a->rex |= (index >> 3) << 1 | base >> 3;
	if ((base & 7) == 5) {
		a->modrm |= 0x80;
		a->disp_size = 4;
		a->disp = (u32)rnd(g->r) & 0xfffff;
	} else {
		small_disp(g, a);
	}
	prep_reg(g, base, operand_offset(g) - a->disp - (by << scale));
	prep_reg(g, index, by);
}

static void address_absolute(struct gen *g, struct address *a)
{
	a->disp_size = 4;
	a->disp = operand_offset(g);
	if (g->bits == 32 && rnd_chance(g->r, 70)) {
		a->modrm |= 5;
		return;
	}
	a->modrm |= 4;
	a->has_sib = true;
	a->sib = 0x25;
}

/* An instruction with its ModRM.reg operand and memory at an absolute address, from reg on. */
static void prep_modrm_abs(struct gen *g, struct prep *p, unsigned int reg, u64 from)
{
	prep_bytes(p, (g->bits == 64 ? 4 : 5) | (reg & 7) << 3, 1);
	if (g->bits == 64)
		prep_bytes(p, 0x25, 1);
	prep_bytes(p, from, 4);
}

/* Index vector n from the constants: vmovdqu ymm, or vmovdqu32 zmm, [abs] */
static void prep_index(struct gen *g, unsigned int n, u64 from)
{
	struct prep *p = prep_new(g);

	if (!g->evex)
		prep_bytes(p, 0xc5 | (u64)((n < 8 ? 0x80 : 0) | 0x7e) << 8 | 0x6f << 16, 3);
	else
		prep_bytes(p, 0x62 | (u64)(0x61 | (n & 8 ? 0 : 0x80) | (n & 16 ? 0 : 0x10)) << 8 |
			0x7eULL << 16 | 0x48ULL << 24 | 0x6fULL << 32, 5);
	prep_modrm_abs(g, p, n, from);
}

/* Elements of 8 bytes for odd opcodes. */
static void address_vsib(struct gen *g, struct address *a)
{
	u8 n = (u8)(g->evex ? random_vector(g) : random_reg(g)), base = free_reg(g, false);
	u8 scale = (u8)rnd_below(g->r, 4);
	bool wide = g->at.opcode & 1;

	prep_index(g, n, AREA_CONST + (wide ? 1024 + 8 * rnd_below(g->r, 64) : 4 * rnd_below(g->r, 128)));
	a->has_sib = true;
	a->modrm |= 4;
	a->sib = (u8)(scale << 6 | (n & 7) << 3 | (base & 7));
	a->rex |= (n >> 3 & 1) << 1 | base >> 3;
	a->index_high = n >> 4;
	set_disp8(g, a);
	prep_reg(g, base, operand_offset(g) - a->disp);
}

/* Instructions without preparation in memory. */
static bool may_address16(const struct gen *g)
{
	if (g->bits != 32 || is_set(g, &x_call_E) || is_set(g, &x_jmp_E) || row_has(g, PL_VSIB))
		return false;
	return g->row->set || is_run(g, exec_native) || is_run(g, exec_native_flags);
}

/*
 * No memory can be where 16 bits reach: that the same address faults shows how it was computed, and
 * LEA shows it without.
 */
static void address_16(struct gen *g, struct address *a)
{
	u8 mod = (u8)rnd_below(g->r, 3), rm = (u8)rnd_below(g->r, 8);

	g->addr16 = true;
	a->modrm = mod << 6 | rm;
	a->disp_size = mod == 0 && rm == 6 ? 2 : mod;
	a->disp = (u32)rnd(g->r);
}

static void choose_address(struct gen *g, struct address *a)
{
	choose_ea(g);
	if (may_address16(g) && rnd_chance(g->r, is_set(g, &x_lea_G) ? 50 : 2)) {
		address_16(g, a);
		return;
	}
	if (row_has(g, PL_VSIB)) {
		address_vsib(g, a);
		return;
	}
	for (int k = 0; g->reuse && k < 4; k++)
		if (address_known(g, a))
			return;
	switch (rnd_below(g->r, 8)) {
	case 0: case 1: case 2: case 3:
		address_plain(g, a);
		break;
	case 4: case 5:
		address_indexed(g, a);
		break;
	case 6:
		address_absolute(g, a);
		break;
	default:
		if (g->bits == 32) {
			address_plain(g, a);
			break;
		}
		a->modrm |= 5;		/* RIP-relative: filled in when the place is known */
		a->disp_size = 4;
		g->rip_disp = 0;
		break;
	}
}

/* ---- preparation by instruction ------------------------------------------------------------ */

static u32 stack_address(struct gen *g)
{
	u32 a = (u32)AREA_DATA + 0x1000 + rnd_below(g->r, 0x2000);

	return rnd_chance(g->r, 90) ? a & ~7u : a;
}

static bool uses_stack(const struct gen *g)
{
	static insn_fn *const runs[] = {exec_pusha, exec_popa, exec_pushf, exec_popf, exec_enter,
		exec_leave, exec_call_rel, exec_ret, exec_push_sreg, exec_pop_sreg};

	for (size_t k = 0; k < ARRAY_SIZE(runs); k++)
		if (is_run(g, runs[k]))
			return true;
	return is_set(g, &x_push_E) || is_set(g, &x_pop_E) || is_set(g, &x_push_I) ||
	       is_set(g, &x_call_E);
}

static bool is_string(const struct gen *g)
{
	return g->row->attr & ATTR_REP;
}

static bool is_bit_string(const struct gen *g)
{
	return is_set(g, &x_bt_EG) || is_set(g, &x_bts_EG) || is_set(g, &x_btr_EG) ||
	       is_set(g, &x_btc_EG);
}

/* Before addresses are chosen: registers that must hold something certain. */
/* kmovq k, [abs] */
static void prep_mask(struct gen *g, unsigned int k)
{
	struct prep *p = prep_new(g);

	prep_bytes(p, 0x90f8e1c4, 4);
	prep_modrm_abs(g, p, k, AREA_MASKS + 8 * rnd_below(g->r, CONST_MASKS));
}

static void prepare_registers(struct gen *g)
{
	if (uses_stack(g))
		prep_reg(g, R_RSP, stack_address(g));
	if (is_run(g, exec_leave) || is_run(g, exec_enter))
		prep_reg(g, R_RBP, stack_address(g));
	if (is_string(g)) {
		prep_reg(g, R_RCX, rnd_below(g->r, 24));
		prep_reg(g, R_RSI, (u32)data_address(g, false));
		prep_reg(g, R_RDI, (u32)data_address(g, false));
	}
	if (is_run(g, exec_clzero))
		prep_reg(g, R_RAX, (u32)data_address(g, true));
	if (is_run(g, exec_maskmov))
		prep_reg(g, R_RDI, (u32)data_address(g, rnd_chance(g->r, 50)));
	if (is_run(g, exec_xlat))
		prep_reg(g, R_RBX, (u32)data_address(g, false));
	if ((is_run(g, exec_jcxz) || is_run(g, exec_loop) || is_run(g, exec_loope) ||
		    is_run(g, exec_loopne)) &&
		rnd_chance(g->r, 50))
		prep_reg(g, R_RCX, rnd_below(g->r, 3));
	if ((is_set(g, &x_div_E) || is_set(g, &x_idiv_E)) && rnd_chance(g->r, 97)) {
		prep_reg(g, R_RDX, 0);
		prep_reg(g, R_RAX, (u32)rnd(g->r) & (rnd_chance(g->r, 50) ? 0x7f : 0x7fff));
	}
	if (leaves_gaps(g))
		g->busy |= 1 << R_RDI | 1 << R_RCX;
	if (wants_64_alignment(g)) {
		prep_reg(g, R_RAX, xsave_mask(g));
		prep_reg(g, R_RDX, 0);
	}
}

static u32 sane_fcw(struct gen *g)
{
	u32 cw = 0x7f | ((u32)rnd(g->r) & 0xf00);

	return rnd_chance(g->r, 4) ? cw & ~(1u << rnd_below(g->r, 6)) : cw;
}

static u32 sane_mxcsr(struct gen *g)
{
	u32 m = 0x1f80 | ((u32)rnd(g->r) & 0xe07f);

	if (rnd_chance(g->r, 1))
		return m | 1u << (16 + rnd_below(g->r, 16));
	return rnd_chance(g->r, 4) ? m & ~(0x80u << rnd_below(g->r, 6)) : m;
}

/* After decoding: memory that must hold something certain. */
static void prepare_memory(struct gen *g)
{
	bool small = g->insn.opsize == 2;

	if (is_run(g, exec_fldenv)) {
		if (small)
			prep_abs(g, 0xd966, 2, 6, g->ea);
		else
			prep_abs(g, 0xd9, 1, 6, g->ea);
	}
	if (is_run(g, exec_frstor)) {
		if (small)
			prep_abs(g, 0xdd66, 2, 6, g->ea);
		else
			prep_abs(g, 0xdd, 1, 6, g->ea);
	}
	if (is_run(g, exec_fxrstor) && rnd_chance(g->r, 95))
		prep_abs(g, 0xae0f, 2, 0, g->ea);
	if (is_run(g, exec_xrstor) && rnd_chance(g->r, 97)) {
		prep_store(g, g->ea + 512, xsave_mask(g));
		for (unsigned int k = 4; k < 24; k += 4)
			prep_store(g, g->ea + 512 + k, 0);
		prep_store(g, g->ea + 24, sane_mxcsr(g));
		prep_store(g, g->ea, 0x37f);
	}
	if (leaves_gaps(g)) {
		prep_bytes(prep_new(g), 0xfc, 1);		/* cld */
		prep_reg(g, R_RDI, (u32)g->ea + 160);
		prep_reg(g, R_RCX, (FPU_AREA - 160) / 4);
		prep_reg(g, R_RAX, 0);
		prep_bytes(prep_new(g), 0xabf3, 2);		/* rep stosd */
		prep_reg(g, R_RAX, xsave_mask(g));
	}
	if (is_run(g, exec_xsaveopt)) {
		prep_reg(g, R_RAX, (u32)xstate_components);
		prep_abs(g, 0xae0f, 2, 4, g->ea);
	}
	if (is_run(g, exec_popf))
		prep_push(g, 2 | ((u32)rnd(g->r) & (RFLAGS_ARITH | RFLAGS_DF)) |
			(rnd_chance(g->r, 1) ? RFLAGS_AC : 0));
	if (is_run(g, exec_ldmxcsr) && rnd_chance(g->r, 98))
		prep_store(g, g->ea, sane_mxcsr(g));
	if (is_run(g, exec_x87) && !strcmp(g->row->name, "fldcw"))
		prep_store(g, g->ea, sane_fcw(g));
	if (is_run(g, exec_bound) && rnd_chance(g->r, 90)) {
		prep_store(g, g->ea, 0x80000000);
		prep_store(g, g->ea + 4, 0x7fffffff);
	}
	if (is_bit_string(g) && (g->insn.flags & I_MEM))
		prep_reg(g, g->insn.reg / 8, rnd_below(g->r, 512));
}

/* Indirect branches go to the instruction after the filler. */
static void prepare_target(struct gen *g)
{
	struct prep *p;

	if (is_run(g, exec_ret)) {
		p = prep_push(g, 0);
		p->target = 1;
	}
	if (!is_set(g, &x_call_E) && !is_set(g, &x_jmp_E))
		return;
	if (g->insn.flags & I_MEM) {
		p = prep_store(g, g->ea, 0);
		p->target = (s8)(p->len - 4);
		if (g->bits == 64)
			prep_store(g, g->ea + 4, 0);
		return;
	}
	prep_reg(g, g->insn.rm / 8, 0);
	p = &g->prep[g->n_prep - 1];
	p->target = (s8)(p->len - 4);
}

/* ---- encoding ------------------------------------------------------------------------------ */

static bool is_vex(const struct gen *g)
{
	return g->at.map >= MAP_VEX1 && g->at.map <= MAP_VEX3;
}

static bool is_evex(const struct gen *g)
{
	return g->at.map >= MAP_EVEX1 && g->at.map <= MAP_EVEX3;
}

static bool needs_modrm(const struct gen *g)
{
	return g->at.ext >= 0 || g->at.rm >= 0 || row_has(g, PL_REG) || row_has(g, PL_RM) ||
		row_has(g, PL_RMREG) || row_has(g, PL_U) || row_has(g, PL_M) || row_has(g, PL_VSIB);
}

static void put_prefixes(struct gen *g, bool mem)
{
	static const u8 pfx[] = { [OPC_66] = 0x66, [OPC_F3] = 0xf3, [OPC_F2] = 0xf2 };
	static const u8 segs[] = { 0x26, 0x36, 0x3e };
	bool branch = g->row->attr & ATTR_BRANCH;

	if (g->segment)
		put8(g, g->segment);
	else if ((mem || is_string(g)) && rnd_chance(g->r, 4))
		put8(g, segs[rnd_below(g->r, 3)]);
	if (g->addr16 || (g->bits == 64 && (mem || is_string(g)) && rnd_chance(g->r, 4)))
		put8(g, 0x67);
	if ((g->row->attr & ATTR_LOCK) && mem && rnd_chance(g->r, 20))
		put8(g, 0xf0);
	if (is_string(g) && rnd_chance(g->r, 60))
		put8(g, rnd_chance(g->r, 50) ? 0xf3 : 0xf2);
	if (is_vex(g) || is_evex(g))
		return;
	if (g->at.pfx != OPC_66 && !branch && rnd_chance(g->r, 12))
		put8(g, 0x66);
	if (g->at.pfx != OPC_NP)
		put8(g, pfx[g->at.pfx]);
}

static void put_vex(struct gen *g, u8 rxb)
{
	static const u8 pp[] = { [OPC_NP] = 0, [OPC_66] = 1, [OPC_F3] = 2, [OPC_F2] = 3 };
	u8 vvvv = row_has(g, PL_VVVV) ? (u8)random_reg(g) : 0;
	u8 w = g->at.w >= 0 ? (u8)g->at.w : rnd_chance(g->r, 50), l = rnd_chance(g->r, 50);
	u8 last = (u8)((~vvvv & 15) << 3 | l << 2 | pp[g->at.pfx]);

	if (g->at.map == MAP_VEX1 && !(rxb & 3) && !w && rnd_chance(g->r, 50)) {
		put8(g, 0xc5);
		put8(g, (rxb & 4 ? 0 : 0x80) | last);
	} else {
		put8(g, 0xc4);
		put8(g, (u8)((~rxb & 7) << 5 | (g->at.map - MAP_VEX1 + 1)));
		put8(g, w << 7 | last);
	}
	put8(g, g->at.opcode);
}

static u8 operand_class(const struct gen *g, enum operand_place place)
{
	for (unsigned int k = 0; k < 4; k++)
		if (g->row->op[k] && operand_info[g->row->op[k]].place == place)
			return operand_info[g->row->op[k]].class;
	return CL_NONE;
}

/*
 * The mask, mostly with a value that is its own; lengths that there are, broadcast and rounding where
 * they may be; and with these what disp8 counts in.
 */
static void choose_evex(struct gen *g, bool mem)
{
	static const u16 missing[] = { EV_NO128, EV_NO256, EV_NO512, 0 };
	struct insn i = { .flags = I_EVEX | (mem ? I_MEM : 0) | (g->at.w == 1 ? I_W : 0) };
	u16 ev = g->row->evex;
	bool b = ev & (mem ? EV_BCAST : EV_RC | EV_SAE) && rnd_chance(g->r, 40);
	bool mask_to = operand_class(g, PL_REG) == CL_MASK;
	u8 ll, k = 0;

	do
		ll = (u8)rnd_below(g->r, b && !mem ? 4 : 3);
	while (ev & missing[ll] && !(b && !mem));
	if (ev & EV_KREQ || (!(ev & EV_NOK) && rnd_chance(g->r, 70)))
		k = (u8)(1 + rnd_below(g->r, 7));
	i.evex = (u16)(b << 4 | ll << EVEX_LL_SHIFT | k);
	g->disp_unit = (u8)(ev & EV_PACK ? 1u << (ev & EV_ESIZE) : opcode_mem_size(g->row, &i));
	if (k && !mask_to && !(ev & EV_KREQ) && rnd_chance(g->r, 50) &&
		!(mem && opcode_mem_access(g->row) & OPC_MEM_WRITE))
		i.evex |= EVEX_Z;
	g->evex = (u8)(i.evex | 8);
	if (k && rnd_chance(g->r, 60))
		prep_mask(g, k);
}

static void put_evex(struct gen *g, u8 rxb, u8 reg, u8 rm, const struct address *a)
{
	static const u8 pp[] = { [OPC_NP] = 0, [OPC_66] = 1, [OPC_F3] = 2, [OPC_F2] = 3 };
	u8 vvvv = row_has(g, PL_VVVV) ? (u8)random_vector(g) : 0, x = rxb & 2;
	bool high = operand_class(g, PL_REG) == CL_VEC && reg >= 16;

	if ((a->modrm & 0xc0) == 0xc0 && rm >= 16)
		x = 2;
	put8(g, 0x62);
	put8(g, (u8)((~((rxb & 5) | x) & 7) << 5 | !high << 4 | (g->at.map - MAP_EVEX1 + 1)));
	put8(g, (u8)(g->at.w << 7 | (~vvvv & 15) << 3 | 4 | pp[g->at.pfx]));
	put8(g, (u8)(g->evex ^ (vvvv >= 16 || a->index_high ? 8 : 0)));
	put8(g, g->at.opcode);
}

static void put_opcode(struct gen *g, u8 rxb)
{
	if (is_vex(g)) {
		put_vex(g, rxb);
		return;
	}
	if (g->bits == 64 && (rxb || rnd_chance(g->r, 40)))
		put8(g, 0x40 | rxb | (rnd_chance(g->r, 40) ? 8 : 0));
	if (g->at.map != MAP_1)
		put8(g, 0x0f);
	if (g->at.map == MAP_0F38)
		put8(g, 0x38);
	if (g->at.map == MAP_0F3A)
		put8(g, 0x3a);
	put8(g, g->at.opcode);
}

/* Size of a V or Z immediate with the prefixes chosen so far. */
static unsigned int immediate_size(struct gen *g, unsigned int size)
{
	bool p66 = false, w = false;

	for (unsigned int k = 0; k < g->len; k++) {
		p66 |= g->buf[k] == 0x66;
		if (g->bits == 64 && (g->buf[k] & 0xf0) == 0x40) {
			w = g->buf[k] & 8;
			break;
		}
		if (g->buf[k] == g->at.opcode)
			break;
	}
	if (size == SZ_V)
		return w ? 8 : p66 ? 2 : 4;
	return !w && p66 ? 2 : 4;
}

static u32 enter_bytes(struct gen *g)
{
	return rnd_below(g->r, 256);
}

static void put_immediate(struct gen *g, const struct operand_info *o)
{
	unsigned int n;

	switch (o->place) {
	case PL_IMM: case PL_IMMU:
		n = o->size == SZ_B ? 1 : o->size == SZ_W ? 2 : immediate_size(g, o->size);
		put(g, is_run(g, exec_enter) || is_run(g, exec_ret) ? enter_bytes(g) : rnd(g->r),
			n);
		break;
	case PL_IMM2: case PL_IS4:
		put8(g, is_run(g, exec_enter) ? (u8)rnd_below(g->r, 4) : (u8)rnd(g->r));
		break;
	case PL_REL:
		put(g, g->filler, o->size == SZ_B ? 1 : 4);
		break;
	case PL_MOFFS:
		choose_ea(g);
		put(g, operand_offset(g), g->bits == 64 && g->buf[0] != 0x67 && g->buf[1] != 0x67 ? 8 : 4);
		break;
	}
}

/* Register forms of 0F 0D: undefined on AMD, no operation on Intel. APM 3 PREFETCH, SDM 2 A-3 */
static bool memory_only(const struct gen *g)
{
	return g->at.map == MAP_0F && g->at.opcode == 0x0d;
}

/* A register's number where the row has an operand. */
static u8 random_operand(struct gen *g, enum operand_place place)
{
	bool more = is_evex(g) && operand_class(g, place) == CL_VEC && g->bits == 64;

	if (operand_class(g, place) == CL_MASK)
		return (u8)rnd_below(g->r, 8);
	return (u8)(more ? rnd_below(g->r, 32) : random_reg(g));
}

static enum operand_place place_rm(const struct gen *g)
{
	return row_has(g, PL_U) ? PL_U : PL_RM;
}

/* Random operands for the row; false: not an encoding of it after all. */
static bool encode_once(struct gen *g)
{
	bool modrm = needs_modrm(g);
	bool mem = modrm && (g->at.mod == 0 || (g->at.mod < 0 && rnd_chance(g->r, 55)));
	u8 reg = g->at.ext >= 0 ? (u8)g->at.ext : random_operand(g, PL_REG);
	u8 rm = g->at.rm >= 0 ? (u8)g->at.rm : random_operand(g, mem ? PL_M : place_rm(g));
	struct address a = { 0 };

	if (memory_only(g))
		mem = modrm;
	g->len = g->n_prep = 0;
	g->busy = 0;
	g->rip_disp = -1;
	g->evex = 0;
	g->disp_unit = 1;
	g->addr16 = false;
	g->segment = mem && g->seg_base[0] && rnd_chance(g->r, 8) ?
		(u8)(SEG_PREFIX_FS + rnd_below(g->r, 2)) : 0;
	g->filler = g->row->attr & ATTR_BRANCH ? 5 * rnd_below(g->r, 3) : 0;
	prepare_registers(g);
	if (is_evex(g))
		choose_evex(g, mem);
	if (modrm && !row_has(g, PL_RM) && !row_has(g, PL_M) && !row_has(g, PL_VSIB) &&
		g->at.mod != 0)
		mem = false;
	if (mem) {
		if (is_bit_string(g))
			g->busy |= 1 << reg;
		choose_address(g, &a);
	} else {
		a.modrm = 0xc0 | (rm & 7);
		a.rex = rm >> 3 & 1;
	}
	a.modrm |= (reg & 7) << 3;
	a.rex |= (reg >> 3 & 1) << 2;
	put_prefixes(g, mem);
	if (is_evex(g))
		put_evex(g, a.rex, reg, rm, &a);
	else
		put_opcode(g, modrm || row_has(g, PL_OPC) ? a.rex : 0);
	if (modrm)
		put8(g, a.modrm);
	if (a.has_sib)
		put8(g, a.sib);
	if (g->rip_disp == 0)
		g->rip_disp = (int)g->len;
	put(g, a.disp_size == 1 && !g->addr16 ? (u32)((s32)a.disp / g->disp_unit) : a.disp, a.disp_size);
	for (unsigned int k = 0; k < 4; k++)
		if (g->row->op[k])
			put_immediate(g, &operand_info[g->row->op[k]]);
	/* The target's address would be the stack's as well: into the code. */
	if (is_set(g, &x_call_E) && !mem && (a.modrm & 7) == 4 && !(a.rex & 1))
		return false;
	return g->len < 16 && insn_decode(g->buf, g->len, g->bits / 8, &g->insn) == DECODE_OK &&
		g->insn.row == g->row_index && g->insn.len == g->len;
}

static bool encode(struct gen *g, u32 row)
{
	u32 before[16];

	memcpy(before, g->known, sizeof(before));
	g->row_index = row;
	g->row = opcode_row(row);
	if (!opcode_where(row, &g->at))
		return false;
	for (int k = 0; k < 60; k++) {
		if (encode_once(g))
			return true;
		memcpy(g->known, before, sizeof(before));
	}
	return false;
}

/* ---- sequences ----------------------------------------------------------------------------- */

void gen_item(struct gen *g, const void *bytes, unsigned int n, u32 row)
{
	g->q->insn[g->q->n].addr = (u64)g->p;
	g->q->insn[g->q->n++].row = row;
	memcpy(g->p, bytes, n);
	g->p += n;
}

static unsigned int prep_total(const struct gen *g)
{
	unsigned int n = 0;

	for (unsigned int k = 0; k < g->n_prep; k++)
		n += g->prep[k].len;
	return n;
}

/*
 * After an instruction that leaves flags undefined: stores the defined ones, where they are
 * compared, and then gives all of them a value:
 *	mov esp, address; pushf; and dword [rsp], defined; cmp al, 0
 */
static void settle_flags(struct gen *g)
{
	u16 undef = g->row->f_undef;
	u32 keep;

	if (g->row->attr & ATTR_COUNT)
		undef |= RFLAGS_OF | RFLAGS_CF;
	if (!undef)
		return;
	keep = RFLAGS_ARITH & ~(u32)undef;
	g->n_prep = 0;
	if (g->reuse && rnd_chance(g->r, 60)) {
		gen_item(g, (u8[]){ 0x3c, (u8)rnd(g->r) }, 2, ROW_SKIPPED);
		return;
	}
	prep_reg(g, R_RSP, (u32)AREA_DATA + 0x1000);
	gen_item(g, g->prep[0].bytes, g->prep[0].len, ROW_SKIPPED);
	gen_item(g, (u8[]){ 0x9c }, 1, ROW_SKIPPED);
	gen_item(g, (u8[]){ 0x81, 0x24, 0x24, (u8)keep, (u8)(keep >> 8), 0, 0 }, 7, ROW_SKIPPED);
	gen_item(g, (u8[]){ 0x3c, 0 }, 2, ROW_SKIPPED);
}

static bool writes_registers(const struct gen *g, unsigned int k)
{
	const struct operand_info *o = &operand_info[g->row->op[k]];

	return o->class == CL_GPR && (k || !(g->row->attr & ATTR_RO));
}

/* Too much rather than too little; a wrong address would do no harm but to end the sequence. */
static void forget_written(struct gen *g)
{
	if (!(g->row->attr & ATTR_NATIVE) && (g->row->run || is_set(g, &x_mul_E) ||
		is_set(g, &x_imul_E) || is_set(g, &x_div_E) || is_set(g, &x_idiv_E)))
		memset(g->known, 0, 8 * sizeof(g->known[0]));
	if (g->filler)
		memset(g->known, 0, 8 * sizeof(g->known[0]));
	g->known[R_RSP] = 0;
	for (unsigned int k = 0; k < 4; k++) {
		if (!writes_registers(g, k))
			continue;
		g->known[g->insn.reg / 8 & 15] = 0;
		g->known[g->insn.vvvv / 8 & 15] = 0;
		if (!(g->insn.flags & I_MEM))
			g->known[g->insn.rm / 8 & 15] = 0;
	}
}

static void emit_insn(struct gen *g)
{
	u64 next;
	u32 disp;

	prepare_memory(g);
	prepare_target(g);
	next = (u64)g->p + prep_total(g) + g->len;
	for (unsigned int k = 0; k < g->n_prep; k++) {
		struct prep *p = &g->prep[k];
		u32 target = (u32)(next + g->filler);

		if (p->target >= 0)
			memcpy(p->bytes + p->target, &target, 4);
		gen_item(g, p->bytes, p->len, ROW_PREP);
	}
	if (g->rip_disp > 0) {
		disp = operand_offset(g) - (u32)next;
		memcpy(g->buf + g->rip_disp, &disp, 4);
	}
	gen_item(g, g->buf, g->len, g->row_index);
	/* Skipped or not: mov r32, imm32 */
	for (unsigned int k = 0; k < g->filler; k += 5) {
		u8 b[5] = { 0xb8 | (rnd(g->r) & 7) };
		u32 val = (u32)rnd(g->r);

		memcpy(b + 1, &val, 4);
		gen_item(g, b, 5, ROW_SKIPPED);
	}
	settle_flags(g);
	/* XSTATE_BV in memory shows what the host knows to be in its initial state, which it may
	 * forget. */
	if (is_run(g, exec_xsave) || is_run(g, exec_xsavec) || is_run(g, exec_xsaveopt)) {
		g->n_prep = 0;
		prep_store(g, g->ea + 512, 0);
		gen_item(g, g->prep[0].bytes, g->prep[0].len, ROW_SKIPPED);
	}
}

bool gen_unit(struct gen *g, u32 row)
{
	if (!encode(g, row))
		return false;
	emit_insn(g);
	forget_written(g);
	return true;
}

void gen_forget(struct gen *g)
{
	memset(g->known, 0, sizeof(g->known));
}

/* Data segments as the mode needs them: mov eax, sel; mov ds, eax; mov es, eax */
void gen_prologue(struct gen *g)
{
	u8 b[5] = { 0xb8, g->bits == 32 ? SEL_DATA : 0 };

	gen_item(g, b, 5, ROW_PREP);
	gen_item(g, (u8[]){ 0x8e, 0xd8 }, 2, ROW_PREP);
	gen_item(g, (u8[]){ 0x8e, 0xc0 }, 2, ROW_PREP);
}

void gen_sequence(struct sequence *q, struct random *r, unsigned int bits, unsigned int n, u32 only)
{
	struct gen g = { .r = r, .q = q, .bits = bits };

	q->n = 0;
	q->bits = bits;
	q->start = AREA_CODE + rnd_below(r, CODE_SIZE / 4);
	g.p = (u8 *)q->start;
	gen_prologue(&g);
	for (unsigned int k = 0; k < n; k++) {
		if (q->n + UNIT_ITEMS > SEQ_MAX || (u64)g.p + UNIT_BYTES > AREA_CODE + CODE_SIZE)
			break;
		gen_unit(&g, only != ROW_PREP ? only : rows[rnd_below(r, n_rows)]);
	}
	q->end = (u64)g.p;
	*g.p = 0xcc;
}
