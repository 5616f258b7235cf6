/*
 * Instructions on general registers and memory, and those on vector registers: encoded again with
 * their registers and their memory operand replaced. SDM 2.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"

/* The operands of one instruction as they will be encoded. */
struct plan {
	struct hop op;
	u8 reg, rm;
	bool mem;
	unsigned int size;	/* of the memory operand */
	bool write;
	/* guest registers that work in scratch: to be loaded before, stored behind */
	struct { u8 guest, host; bool load, store; } copy[2];
	unsigned int n_copies;
	bool home;		/* the register operand rm is where it lives in memory */
	struct place home_at;
	bool high;		/* AH to BH take part */
	bool flags_in;
};

static bool is_high(u8 off)
{
	return off & 7;
}

/* ---- flags ---- */

static bool count_is_zero(const struct insn *i)
{
	return !(i->imm & (i->opsize == 8 ? 63 : 31));
}

bool reads_flags(const struct insn *i, const struct opcode *row, bool count_in_cl)
{
	u64 set = (row->f_write | row->f_undef) & RFLAGS_ARITH;

	if (row->f_read & RFLAGS_ARITH)
		return true;
	if (set && set != RFLAGS_ARITH)
		return true;
	return row->attr & ATTR_COUNT && (count_in_cl || count_is_zero(i));
}

bool writes_flags(const struct opcode *row)
{
	return (row->f_write | row->f_undef) & RFLAGS_ARITH;
}

/* ---- registers ---- */

/* What an instruction does with a register operand. */
enum use { USE_READ = 1, USE_WRITE = 2 };

/* A register in memory, or RAX beside a high byte: a copy in scratch. False: there is none left. */
static bool plan_copy(struct plan *p, unsigned int guest, unsigned int use, u8 *host)
{
	static const u8 scratch[] = { H_AX, H_11 };
	unsigned int k;

	for (k = 0; k < p->n_copies; k++)
		if (p->copy[k].guest == guest)
			break;
	if (k == (p->mem ? 1 : 2))
		return false;
	if (k == p->n_copies) {
		p->copy[k].guest = (u8)guest;
		p->copy[k].host = scratch[k];
		p->copy[k].load = p->copy[k].store = false;
		p->n_copies++;
	}
	p->copy[k].load |= use & USE_READ;
	p->copy[k].store |= use & USE_WRITE;
	*host = p->copy[k].host;
	return true;
}

/* off: byte offset into v->r. */
static bool plan_gpr(struct plan *p, const struct trans *t, u8 off, unsigned int size,
	unsigned int use, u8 *out)
{
	unsigned int guest = off >> 3;
	u8 host = host_of(t, guest);

	if (p->high && (guest == R_RSP || guest >= 8))
		return false;
	if (host == H_NONE || (p->high && guest == R_RAX)) {
		if (!plan_copy(p, guest, use, &host))
			return false;
	}
	if (p->high && host >= 8)
		return false;
	if (is_high(off)) {
		host += 4;
	} else if (size == 1 && host >= H_SP && host <= H_DI) {
		if (p->high)
			return false;
		p->op.force_rex = true;
	}
	*out = host;
	return true;
}

static unsigned int gpr_operand_size(const struct operand_info *o, const struct insn *i)
{
	return o->size == SZ_B ? 1 : i->opsize;
}

/* MULX has two destinations. */
static unsigned int operand_use(const struct opcode *row, unsigned int k, unsigned int size)
{
	if (row->set == &x_xchg_EG || row->set == &x_xadd_EG)
		return USE_READ | USE_WRITE;
	if (k && !(k == 1 && row->set == &x_mulx_GVE))
		return USE_READ;
	if (row->attr & ATTR_RO)
		return USE_READ;
	return row->attr & ATTR_RW || size < 4 ? USE_READ | USE_WRITE : USE_WRITE;
}

/* Memory forms that differ from the register's: bit strings, and XCHG locks the bus. */
static bool home_differs(const struct opcode *row)
{
	const struct exec_set *s = row->set;

	return s == &x_xchg_EG || s == &x_xadd_EG || s == &x_bt_EG || s == &x_bts_EG ||
		s == &x_btr_EG || s == &x_btc_EG;
}

/*
 * A register that lives in memory may be the instruction's memory operand. Not as a destination of
 * 32 bits, which would leave the upper half as it was.
 */
static bool plan_home(struct plan *p, const struct trans *t, unsigned int use, unsigned int size)
{
	const struct insn *i = insn_now(t);
	const struct opcode *row = opcode_row(i->row);

	if (host_of(t, i->rm >> 3) != H_NONE || p->high ||
		!(i->flags & I_MODRM) || home_differs(row) || (use & USE_WRITE && size == 4))
		return false;
	if (form_now(t)->kind != FORM_GENERIC && form_now(t)->kind != FORM_SHIFT_CL)
		return false;
	p->home = true;
	p->home_at = home_place(t, i->rm >> 3);
	return true;
}

static bool plan_operand(struct plan *p, const struct trans *t, unsigned int k)
{
	const struct insn *i = insn_now(t);
	const struct opcode *row = opcode_row(i->row);
	const struct operand_info *o = &operand_info[row->op[k]];
	bool gpr = o->class == CL_GPR;
	unsigned int size = gpr_operand_size(o, i), use = operand_use(row, k, size);

	switch (o->place) {
	case PL_REG: case PL_ACCREG:
		p->reg = i->reg;
		return !gpr || plan_gpr(p, t, i->reg, size, use, &p->reg);
	case PL_RM: case PL_U: case PL_M:
		if (i->flags & I_MEM)
			return true;
		p->rm = i->rm;
		return !gpr || (o->place == PL_RM && plan_home(p, t, use, size)) ||
			plan_gpr(p, t, i->rm, size, use, &p->rm);
	case PL_OPC: case PL_ACC:
		return plan_gpr(p, t, i->rm, size, use, &p->rm);
	case PL_VVVV:
		p->op.vvvv = i->vvvv;
		return !gpr || plan_gpr(p, t, i->vvvv, size, use, &p->op.vvvv);
	default:
		return true;
	}
}

static bool operand_high(const struct operand_info *o, const struct insn *i)
{
	if (o->class != CL_GPR || o->size != SZ_B)
		return false;
	switch (o->place) {
	case PL_REG: return is_high(i->reg);
	case PL_RM: case PL_OPC: return !(i->flags & I_MEM) && is_high(i->rm);
	default: return false;
	}
}

static bool plan_operands(struct plan *p, const struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct opcode *row = opcode_row(i->row);
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(row->op); k++)
		p->high |= operand_high(&operand_info[row->op[k]], i);
	if (p->high && (p->mem || i->flags & I_VEX))
		return false;
	p->op.no_rex = p->high;
	for (k = 0; k < ARRAY_SIZE(row->op); k++)
		if (!plan_operand(p, t, k))
			return false;
	return true;
}

static void plan_evex(struct plan *p, const struct insn *i, const struct opcode *row)
{
	p->op.evex = true;
	p->op.evex_last = (u8)i->evex;
	if (p->mem)
		p->op.disp_shift = (u8)__builtin_ctz(opcode_disp_unit(row, i));
}

static bool plan_make(struct trans *t, struct plan *p, bool count_in_cl)
{
	const struct insn *i = insn_now(t);
	const struct form *f = form_now(t);
	const struct opcode *row = opcode_row(i->row);

	*p = (struct plan){ .op = { .pfx = f->pfx, .map = f->map, .op = f->op, .vex = f->vex,
		.w = i->flags & I_W, .l = i->flags & I_L, .lock = i->flags & I_LOCK } };
	p->op.opsize16 = !(row->attr & ATTR_NATIVE) && !f->vex && i->opsize == 2;
	p->mem = i->flags & I_MEM;
	if (p->mem) {
		p->size = mem_size(t, t->k);
		p->write = mem_written(t, t->k);
		if (!p->size || p->size > 64 || !operand_encodable(t))
			return false;
	}
	if (f->vex == 2)
		plan_evex(p, i, row);
	if (!plan_operands(p, t))
		return false;
	if (f->ext >= 0)
		p->reg = (u8)f->ext;
	if (f->rm >= 0)
		p->rm = (u8)f->rm;
	p->flags_in = reads_flags(i, row, count_in_cl);
	return true;
}

/* ---- emission ---- */

static void emit_imm(struct trans *t)
{
	const struct insn *i = insn_now(t);
	u8 n = form_now(t)->imm;

	if (n == IMM_Z)
		n = i->opsize == 2 ? 2 : 4;
	for (unsigned int k = 0; k < MIN(n, 4) && n != 2; k++)
		put8(&t->e, n == 1 || n == 4 ? (u8)(i->imm >> 8 * k) : 0);
	if (n != 2)
		return;
	put8(&t->e, (u8)i->imm);
	/* Two bytes: a word, or two immediates. */
	put8(&t->e, i->flags & I_NATIVE ? (u8)i->imm2 : (u8)(i->imm >> 8));
}

static void emit_planned(struct trans *t, const struct plan *p, const struct place *m)
{
	unsigned int k;

	for (k = 0; k < p->n_copies; k++) {
		u8 h = host_of(t, p->copy[k].guest);

		if (!p->copy[k].load)
			continue;
		if (h == H_NONE)
			emit_rm(&t->e, true, OP_LOAD, p->copy[k].host, home_place(t, p->copy[k].guest));
		else
			emit_rr(&t->e, true, OP_STORE, h, p->copy[k].host);
	}
	if (insn_now(t)->flags & I_NATIVE)
		site_now(t);
	if (insn_now(t)->flags & I_NATIVE && !(insn_now(t)->flags & I_MODRM))
		emit_plain(&t->e, &p->op);
	else
		emit_op(&t->e, &p->op, p->reg, p->home ? &p->home_at : m, p->rm);
	if (p->mem && !(insn_now(t)->flags & I_NATIVE))
		site_access(t);
	emit_imm(t);
	for (k = 0; k < p->n_copies; k++) {
		u8 h = host_of(t, p->copy[k].guest);

		if (!p->copy[k].store)
			continue;
		if (h == H_NONE)
			emit_rm(&t->e, true, OP_STORE, p->copy[k].host, home_place(t, p->copy[k].guest));
		else
			emit_rr(&t->e, true, OP_STORE, p->copy[k].host, h);
	}
}

/* VEX with a 16-bit immediate or more is not there; EXTRQ and INSERTQ have two bytes. */
static bool emit_operation(struct trans *t, bool count_in_cl)
{
	const struct opcode *row = opcode_row(insn_now(t)->row);
	struct place m;
	struct plan p;

	if (!plan_make(t, &p, count_in_cl))
		return false;
	if (p.mem) {
		operand_check(t, p.size, p.write, p.n_copies || p.flags_in, &m);
	}
	if (p.flags_in)
		flags_need(t);
	emit_planned(t, &p, p.mem ? &m : NULL);
	if (writes_flags(row))
		flags_written(t);
	return true;
}

/* Without operands, or with the register in the opcode. */
static bool emit_short(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct form *f = form_now(t);
	u8 h;

	if (f->map == 0) {			/* CLC, STC, CMC */
		flags_need(t);
		put8(&t->e, f->op);
		flags_written(t);
		return true;
	}
	if (i->opsize == 2)			/* BSWAP */
		return false;
	h = reg_use(t, i->rm >> 3, H_AX);
	PUT(&t->e, (u8)(0x40 | (i->flags & I_W ? 8 : 0) | h >> 3), 0x0f, 0xc8 | (h & 7));
	if (h == H_AX)
		emit_rm(&t->e, true, OP_STORE, H_AX, home_place(t, i->rm >> 3));
	return true;
}

bool emit_generic(struct trans *t)
{
	const struct form *f = form_now(t);

	if (!(insn_now(t)->flags & I_MODRM) && f->ext < 0 && f->op >= (f->map ? 0xc8 : 0xf5))
		return emit_short(t);
	return emit_operation(t, false);
}

bool emit_shift_cl(struct trans *t)
{
	return emit_operation(t, true);
}

/* PCMPxSTRx: RCX, RDX and XMM0 are their own; lengths in RAX only for the explicit ones. */
static bool emit_strings(struct trans *t)
{
	struct place m;
	struct plan p;

	if (!long_mode(t) || !plan_make(t, &p, false))
		return false;
	if (p.mem)
		operand_check(t, p.size, false, true, &m);
	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	emit_planned(t, &p, p.mem ? &m : NULL);
	flags_written(t);
	return true;
}

bool emit_vector(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct form *f = form_now(t);

	if (t->mode->fp_trap & f->fp)
		return false;
	if (opcode_row(i->row)->attr & ATTR_IMPLICIT)
		return emit_strings(t);
	return emit_operation(t, false);
}

bool emit_lea(struct trans *t)
{
	const struct insn *i = insn_now(t);
	u8 h = host_of(t, i->reg >> 3), to = h == H_NONE ? H_AX : h;

	if (i->opsize == 2 || !operand_encodable(t))
		return false;
	operand_address(t, i->opsize == 8, to);
	if (h == H_NONE)
		emit_rm(&t->e, true, OP_STORE, H_AX, home_place(t, i->reg >> 3));
	return true;
}

/* ---- moves of immediates ---- */

static void put_imm(struct trans *t, unsigned int size, u64 imm)
{
	for (unsigned int k = 0; k < MIN(size, 4u); k++)
		put8(&t->e, (u8)(imm >> 8 * k));
}

static bool mov_imm_mem(struct trans *t)
{
	const struct insn *i = insn_now(t);
	struct hop o = { .op = i->opsize == 1 ? 0xc6 : 0xc7, .w = i->opsize == 8,
		.opsize16 = i->opsize == 2 };
	struct place m;

	if (!operand_encodable(t))
		return false;
	operand_check(t, i->opsize, true, false, &m);
	emit_op(&t->e, &o, 0, &m, 0);
	site_access(t);
	put_imm(t, i->opsize, i->imm);
	return true;
}

bool emit_mov_imm_form(struct trans *t)
{
	const struct insn *i = insn_now(t);
	unsigned int guest = i->rm >> 3;
	u8 h = host_of(t, guest);
	struct hop o = { .op = i->opsize == 1 ? 0xc6 : 0xc7, .opsize16 = i->opsize == 2 };

	if (i->flags & I_MEM)
		return mov_imm_mem(t);
	if (i->opsize >= 4) {
		emit_mov_imm(&t->e, h == H_NONE ? H_AX : h, i->opsize == 4 ? (u32)i->imm : i->imm);
		if (h == H_NONE)
			emit_rm(&t->e, true, OP_STORE, H_AX, home_place(t, guest));
		return true;
	}
	if (is_high(i->rm) || h == H_NONE)
		return false;
	o.force_rex = i->opsize == 1 && h >= H_SP && h <= H_DI;
	emit_op(&t->e, &o, 0, NULL, h);
	put_imm(t, i->opsize, i->imm);
	return true;
}

/* ---- accumulator and its extension ---- */

bool emit_cbw(struct trans *t)
{
	switch (insn_now(t)->opsize) {
	case 2: PUT(&t->e, 0x66, 0x45, 0x0f, 0xbe, 0xd2); break;	/* movsx r10w, r10b */
	case 4: PUT(&t->e, 0x45, 0x0f, 0xbf, 0xd2); break;		/* movsx r10d, r10w */
	default: PUT(&t->e, 0x4d, 0x63, 0xd2); break;			/* movsxd r10, r10d */
	}
	return true;
}

bool emit_cwd(struct trans *t)
{
	unsigned int size = insn_now(t)->opsize;

	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	if (size == 2)
		put8(&t->e, 0x66);
	if (size == 8)
		put8(&t->e, 0x48);
	put8(&t->e, 0x99);
	return true;
}

bool emit_sahf(struct trans *t)
{
	flags_need(t);
	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	put8(&t->e, 0x9e);
	flags_written(t);
	return true;
}

bool emit_lahf(struct trans *t)
{
	flags_need(t);
	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	put8(&t->e, 0x9f);
	emit_rr(&t->e, true, OP_STORE, H_AX, H_10);
	return true;
}

/* RAX is in AX for one instruction; m: its memory operand, which does not use AX, or NULL. */
static void with_rax(struct trans *t, const struct hop *o, u8 reg, const struct place *m, u8 rm)
{
	emit_rr(&t->e, true, OP_STORE, H_10, H_AX);
	site_now(t);
	emit_op(&t->e, o, reg, m, rm);
	emit_rr(&t->e, true, OP_STORE, H_AX, H_10);
	flags_written(t);
}

/* The register of a byte operation: AH to BH are 4 to 7 without REX. False: it has none. */
static bool byte_reg(struct hop *o, u8 off, u8 *h)
{
	if (is_high(off)) {
		*h = (u8)((off >> 3) + 4);
		o->no_rex = true;
	} else {
		o->force_rex = *h >= H_SP && *h <= H_DI;
	}
	return true;
}

bool emit_muldiv(struct trans *t)
{
	const struct insn *i = insn_now(t);
	const struct form *f = form_now(t);
	struct hop o = { .op = f->op, .w = i->opsize == 8, .opsize16 = i->opsize == 2 };
	unsigned int guest = i->rm >> 3;
	u8 h = guest == R_RAX ? H_AX : host_of(t, guest);
	struct place m = home_place(t, guest);

	if (i->flags & I_MEM) {
		if (!operand_encodable(t))
			return false;
		operand_check(t, i->opsize, false, true, &m);
		with_rax(t, &o, (u8)f->ext, &m, 0);
		return true;
	}
	if (i->opsize == 1)
		byte_reg(&o, i->rm, &h);
	with_rax(t, &o, (u8)f->ext, h == H_NONE ? &m : NULL, h);
	return true;
}

bool emit_cmpxchg(struct trans *t)
{
	const struct insn *i = insn_now(t);
	struct hop o = { .map = 1, .op = form_now(t)->op, .w = i->opsize == 8,
		.opsize16 = i->opsize == 2, .lock = i->flags & I_LOCK };
	u8 reg = i->reg >> 3 == R_RAX ? H_AX : host_of(t, i->reg >> 3);
	u8 rm = i->rm >> 3 == R_RAX ? H_AX : host_of(t, i->rm >> 3);
	struct place m;

	if (reg == H_NONE || is_high(i->reg))
		return false;
	if (!(i->flags & I_MEM) && (rm == H_NONE || is_high(i->rm)))
		return false;
	if (i->opsize == 1)
		o.force_rex = (reg >= H_SP && reg <= H_DI) ||
			(!(i->flags & I_MEM) && rm >= H_SP && rm <= H_DI);
	if (!(i->flags & I_MEM)) {
		with_rax(t, &o, reg, NULL, rm);
		return true;
	}
	if (!operand_encodable(t))
		return false;
	operand_check(t, i->opsize, true, true, &m);
	with_rax(t, &o, reg, &m, 0);
	return true;
}

/* ---- the stack ---- */

static bool stack_usable(const struct trans *t)
{
	return t->mode->flat && t->mode->stack_wide && insn_now(t)->opsize == t->mode->code_bytes;
}

void stack_move(struct trans *t, s32 by)
{
	emit_rm(&t->e, long_mode(t), OP_LEA, H_15, at_base(H_15, by));
}

static bool push_mem(struct trans *t)
{
	s32 size = insn_now(t)->opsize;
	struct place m;

	if (!operand_encodable(t))
		return false;
	operand_check(t, (unsigned int)size, false, false, &m);
	emit_rm(&t->e, size == 8, OP_LOAD, H_AX, m);
	site_access(t);
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.slot[0]));
	stack_check(t, -size, (unsigned int)size, &m);
	if (m.base == H_AX) {
		emit_rm(&t->e, true, OP_LEA, H_11, m);
		m = at_base(H_11, 0);
	}
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.slot[0]));
	emit_rm(&t->e, size == 8, OP_STORE, H_AX, m);
	site_access(t);
	stack_move(t, -size);
	return true;
}

bool emit_push(struct trans *t)
{
	const struct insn *i = insn_now(t);
	s32 size = i->opsize;
	struct place m;
	u8 h;

	if (!stack_usable(t))
		return false;
	if (i->flags & I_MEM)
		return push_mem(t);
	stack_check(t, -size, (unsigned int)size, &m);
	h = reg_use(t, i->rm >> 3, H_AX);
	emit_rm(&t->e, size == 8, OP_STORE, h, m);
	site_access(t);
	stack_move(t, -size);
	return true;
}

bool emit_push_imm(struct trans *t)
{
	const struct insn *i = insn_now(t);
	s32 size = i->opsize;
	struct place m;

	if (!stack_usable(t))
		return false;
	stack_check(t, -size, (unsigned int)size, &m);
	emit_rm(&t->e, size == 8, 0xc7, 0, m);
	site_access(t);
	put32(&t->e, (u32)i->imm);
	stack_move(t, -size);
	return true;
}

bool emit_pop(struct trans *t)
{
	const struct insn *i = insn_now(t);
	s32 size = i->opsize;
	u8 h = host_of(t, i->rm >> 3);
	struct place m;

	if (!stack_usable(t) || i->flags & I_MEM)
		return false;
	stack_check(t, 0, (unsigned int)size, &m);
	emit_rm(&t->e, size == 8, OP_LOAD, h == H_NONE ? H_AX : h, m);
	site_access(t);
	if (i->rm >> 3 != R_RSP)
		stack_move(t, size);
	if (h == H_NONE)
		emit_rm(&t->e, true, OP_STORE, H_AX, home_place(t, i->rm >> 3));
	return true;
}

bool emit_leave(struct trans *t)
{
	s32 size = insn_now(t)->opsize;
	struct place m;

	if (!stack_usable(t))
		return false;
	base_check(t, R_RBP, 0, (unsigned int)size, false, &m);
	emit_rm(&t->e, size == 8, OP_LOAD, H_AX, m);
	site_access(t);
	emit_rm(&t->e, size == 8, OP_LEA, H_15, at_base(H_BP, size));
	emit_rr(&t->e, size == 8, OP_STORE, H_AX, H_BP);
	return true;
}
