/*
 * Groups: memory accesses of a fragment by the same, unchanged register share one check. The first
 * one checks the whole range that they touch: one page, one TLB entry, one kind of access; and puts
 * the addend into a slot, where the others find it.
 *
 * What makes this right: a fragment is straight-line code, so the first access comes before the
 * others. The translation cannot change in between: whatever changes one is an instruction that
 * ends the fragment or a call of the interpreter's handler (which ends all groups), and other vCPUs'
 * requests are served between fragments. A slow access in between runs only itself; where it writes
 * into translated code, the fragment is left.
 *
 * Where the check fails (a range across two pages, a miss, a device), the fragment's twin goes on
 * from there: the same code without groups.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"

#define RANGE_MAX	1024
#define DISP_MAX	(1 << 29)	/* sums of two, and a page, are s32 */

/* ---- what an instruction accesses ---- */

struct access {
	u8 base, index;		/* guest registers; base: or R_RIP; index: or R_ZERO */
	u8 scale;
	bool write;
	s32 disp;
	unsigned int size;
};

static bool stack_access(const struct trans *t, unsigned int k, struct access *a)
{
	const struct insn *i = &t->insn[k];

	*a = (struct access){ .base = R_RSP, .index = R_ZERO, .size = 8 };
	switch (t->form[k]->kind) {
	case FORM_PUSH: case FORM_PUSH_IMM: case FORM_CALL:
		a->write = true;
		a->disp = -8;
		break;
	case FORM_POP: case FORM_RET:
		break;
	case FORM_LEAVE:
		a->base = R_RBP;
		break;
	default:
		return false;
	}
	return i->opsize == 8 && !(i->flags & I_MEM);
}

static bool operand_grouped(unsigned int kind)
{
	return kind == FORM_GENERIC || kind == FORM_SHIFT_CL || kind == FORM_VECTOR ||
		kind == FORM_X87 || kind == FORM_MULDIV || kind == FORM_CMPXCHG ||
		kind == FORM_MOV_IMM || kind == FORM_JMP_IND || kind == FORM_CALL_IND;
}

/*
 * One register in memory at most: there is one scratch register for it. Beside an index none, but
 * in loops (groups_drop()).
 */
static bool registers_grouped(const struct trans *t, const struct insn *i)
{
	if (i->base == R_RIP)
		return i->index == R_ZERO;
	if (i->base >= 16)
		return false;
	return i->index == R_ZERO || host_of(t, i->base) != H_NONE ||
		host_of(t, i->index) != H_NONE;
}

static bool operand_access(const struct trans *t, unsigned int k, struct access *a)
{
	const struct insn *i = &t->insn[k];

	if (!operand_grouped(t->form[k]->kind) || !(i->flags & I_MEM) || i->asize != 8)
		return false;
	if (i->seg == SEG_FS || i->seg == SEG_GS || !registers_grouped(t, i) ||
		i->disp < -DISP_MAX || i->disp > DISP_MAX)
		return false;
	*a = (struct access){ .base = i->base, .index = i->index, .scale = i->scale,
		.disp = i->base == R_RIP ? i->disp + t->off[k] : i->disp,
		.write = mem_written(t, k), .size = mem_size(t, k) };
	return a->size && a->size <= 64;
}

/* ---- what it does to registers ---- */

struct track {
	u32 value[16];	/* a number for what the register holds, ... */
	s32 delta[16];	/* ... less this */
	u32 next;	/* unused number */
};
#define NO_VALUE	(~0u)
#define VALUE_RIP	16	/* of the page that runs; registers begin as 0 to 15 */

static void track_begin(struct track *r)
{
	for (unsigned int g = 0; g < 16; g++) {
		r->value[g] = g;
		r->delta[g] = 0;
	}
	r->next = VALUE_RIP + 1;
}

static void track_write(struct track *r, unsigned int guest)
{
	r->value[guest] = r->next++;
	r->delta[guest] = 0;
}

static void track_all(struct track *r)
{
	for (unsigned int g = 0; g < 16; g++)
		track_write(r, g);
}

/* to := the value that is what, plus by. */
static void track_set(struct track *r, unsigned int to, u32 what, s64 by)
{
	if (by < -DISP_MAX || by > DISP_MAX) {
		track_write(r, to);
		return;
	}
	r->value[to] = what;
	r->delta[to] = (s32)by;
}

static void track_move(struct track *r, unsigned int guest, s64 by)
{
	track_set(r, guest, r->value[guest], r->delta[guest] + by);
}

/* Every register operand that may be a destination. */
static void track_operands(struct track *r, const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);
	bool both = row->set == &x_xchg_EG || row->set == &x_xadd_EG || i->flags & I_VEX;

	if (row->attr & ATTR_RO)
		return;
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++) {
		const struct operand_info *o = &operand_info[row->op[k]];

		if (o->class != CL_GPR || (k && !both))
			continue;
		if (o->place == PL_REG || o->place == PL_ACCREG)
			track_write(r, i->reg >> 3);
		else if (o->place == PL_VVVV)
			track_write(r, i->vvvv >> 3);
		else if (!(i->flags & I_MEM))
			track_write(r, i->rm >> 3);
	}
}

static bool moves_by_imm(const struct insn *i, const struct opcode *row)
{
	return (row->set == &x_add_EI || row->set == &x_sub_EI) && i->opsize == 8 &&
		!(i->flags & I_MEM);
}

static bool copies(const struct insn *i, const struct opcode *row, unsigned int *to,
	unsigned int *from)
{
	bool store = row->set == &x_mov_EG;

	if ((!store && row->set != &x_mov_GE) || i->opsize != 8 || i->flags & I_MEM)
		return false;
	*to = (store ? i->rm : i->reg) >> 3;
	*from = (store ? i->reg : i->rm) >> 3;
	return true;
}

static void track_generic(struct track *r, const struct insn *i)
{
	const struct opcode *row = opcode_row(i->row);
	unsigned int to, from;

	if (row->attr & ATTR_IMPLICIT)
		track_write(r, R_RCX);
	if (moves_by_imm(i, row))
		track_move(r, i->rm >> 3, row->set == &x_add_EI ? (s64)i->imm : -(s64)i->imm);
	else if (copies(i, row, &to, &from))
		track_set(r, to, r->value[from], r->delta[from]);
	else
		track_operands(r, i);
}

static void track_lea(struct track *r, const struct insn *i, unsigned int off)
{
	unsigned int to = i->reg >> 3;

	if (i->index != R_ZERO || i->asize != 8 || i->opsize != 8)
		track_write(r, to);
	else if (i->base == R_RIP)
		track_set(r, to, VALUE_RIP, (s64)i->disp + off);
	else if (i->base < 16)
		track_set(r, to, r->value[i->base], (s64)r->delta[i->base] + i->disp);
	else
		track_write(r, to);
}

static void track_pop(struct track *r, const struct insn *i)
{
	track_move(r, R_RSP, 8);
	track_write(r, i->rm >> 3);
}

static void track_insn(struct track *r, const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];

	switch (t->form[k]->kind) {
	case FORM_GENERIC: case FORM_SHIFT_CL: case FORM_VECTOR: case FORM_MOV_IMM:
		track_generic(r, i);
		break;
	case FORM_LEA: track_lea(r, i, t->off[k]); break;
	case FORM_PUSH: case FORM_PUSH_IMM: track_move(r, R_RSP, -8); break;
	case FORM_POP: track_pop(r, i); break;
	case FORM_MULDIV: case FORM_CWD: case FORM_CBW:
		track_write(r, R_RAX);
		track_write(r, R_RDX);
		break;
	case FORM_CMPXCHG:
		track_write(r, R_RAX);
		track_operands(r, i);
		break;
	case FORM_LOOP: track_write(r, R_RCX); break;
	case FORM_X87:
		if (x87_stores_ax(i))
			track_write(r, R_RAX);
		break;
	case FORM_LAHF: track_write(r, R_RAX); break;
	case FORM_NOP: case FORM_SAHF: case FORM_JCC: case FORM_JCXZ: break;
	default: track_all(r); break;
	}
}

u32 insn_changes(const struct trans *t, unsigned int k)
{
	struct track r;
	u32 set = 0;

	track_begin(&r);
	track_insn(&r, t, k);
	for (unsigned int g = 0; g < 16; g++)
		if (r.value[g] != g || r.delta[g])
			set |= (u32)BIT(g);
	return set;
}

/* ---- grouping ---- */

static bool range_fits(const struct group *g, s32 lo, s32 hi)
{
	return MAX(g->hi, hi) - MIN(g->lo, lo) <= RANGE_MAX;
}

/* Does the fragment go on to instruction k whenever it came to the group's first access? */
static bool always_reached(const struct trans *t, const struct group *g, unsigned int k)
{
	for (unsigned int n = g->lead; n < k; n++)
		if (t->insn[n].flags & I_BRANCH)
			return false;
	return true;
}

/*
 * What may be written may be read. So reads join writes before them; a write joins reads if it comes
 * in any case: else pages that are only read would fail the check.
 */
static bool rights_fit(const struct trans *t, const struct group *g, bool write, unsigned int k)
{
	return g->write || !write || always_reached(t, g, k);
}

static struct group *group_for(struct trans *t, unsigned int k, const struct group *key)
{
	struct group *g;

	for (g = t->group; g < t->group + t->n_groups; g++)
		if (g->value == key->value && g->index_value == key->index_value &&
			g->scale == key->scale &&
			rights_fit(t, g, key->write, k) && range_fits(g, key->lo, key->hi))
			return g;
	if (t->n_groups == MAX_GROUPS)
		return NULL;
	t->n_groups++;
	*g = *key;
	return g;
}

static void group_add(struct trans *t, unsigned int k, const struct access *a,
	const struct track *r)
{
	struct group *g, key = { .base = a->base, .index = a->index, .value = VALUE_RIP,
		.index_value = NO_VALUE, .write = a->write, .lead = (u8)k, .step = R_ZERO,
		.folded = R_ZERO };
	s64 delta = 0, disp;

	if (a->base != R_RIP) {
		delta = r->delta[a->base];
		key.value = r->value[a->base];
	}
	if (a->index != R_ZERO) {
		delta += (s64)r->delta[a->index] * (1 << a->scale);
		key.index_value = r->value[a->index];
		key.scale = a->scale;
	}
	disp = a->disp + delta;
	if (disp < -DISP_MAX || disp > DISP_MAX)
		return;
	key.lo = (s32)disp;
	key.hi = (s32)disp + (s32)a->size;
	g = group_for(t, k, &key);
	if (!g)
		return;
	g->lo = MIN(g->lo, key.lo);
	g->hi = MAX(g->hi, key.hi);
	g->write |= a->write;
	g->members++;
	t->group_of[k] = (u8)(g - t->group + 1);
	t->delta[k] = (s32)delta;
	t->regs[k].base = a->base;
	t->regs[k].index = a->index;
	t->regs[k].scale = a->scale;
}

void groups_find(struct trans *t)
{
	struct track r;
	struct access a;

	track_begin(&r);
	t->n_groups = 0;
	memset(t->group_of, 0, sizeof(t->group_of));
	if (!long_mode(t) || t->twin)
		return;
	for (unsigned int k = 0; k < t->n; k++) {
		if (stack_access(t, k, &a) || operand_access(t, k, &a))
			group_add(t, k, &a, &r);
		track_insn(&r, t, k);
	}
}

void groups_forget(struct trans *t)
{
	for (unsigned int k = 0; k < t->n_groups; k++)
		t->group[k].ready = false;
}

/* ---- emission ---- */

static u8 group_number(const struct trans *t, const struct group *g)
{
	return (u8)(g - t->group + 1);
}

static struct place group_slot(const struct trans *t, const struct group *g)
{
	return HOT(hot.slot[group_number(t, g)]);
}

/* The present access's registers and a displacement. scratch may take part: one is in memory at most. */
static struct place access_place(struct trans *t, s32 disp, u8 scratch)
{
	struct place p = at_base(scratch, disp);

	if (t->regs[t->k].base == R_RIP)
		emit_rm(&t->e, true, OP_LOAD, scratch, HOT(hot.page));
	else
		p.base = reg_use(t, t->regs[t->k].base, scratch);
	if (t->regs[t->k].index != R_ZERO) {
		p.index = reg_use(t, t->regs[t->k].index, scratch);
		p.scale = t->regs[t->k].scale;
	}
	return p;
}

struct place group_first(struct trans *t, const struct group *g, u8 scratch)
{
	return access_place(t, g->lo - t->delta[t->k], scratch);
}

struct place group_slot_page(const struct trans *t, const struct group *g)
{
	return HOT(hot.slot_page[group_number(t, g)]);
}

/* R11 += what the loop does not change. AX may be lost. */
static void group_fold(struct trans *t, const struct group *g)
{
	struct place sum = at_base(H_11, 0);

	if (g->folded == R_ZERO)
		return;
	sum.index = reg_use(t, g->folded, H_AX);
	sum.scale = g->folded == g->index ? g->scale : 0;
	emit_rm(&t->e, true, OP_LEA, H_11, sum);
}

/* The whole check; R11: the addend. */
void group_page(struct trans *t, struct group *g)
{
	struct place first = group_first(t, g, H_AX);
	bool moves = t->loop && g->carried && !g->fixed;

	check_range(t, first, (unsigned int)(g->hi - g->lo), g->write, COLD_TWIN);
	if (moves)		/* AX is the page */
		loop_limit(t, g);
	group_fold(t, g);
	emit_rm(&t->e, true, OP_STORE, H_11, group_slot(t, g));
}

static void group_lead(struct trans *t, struct group *g)
{
	flags_yield(t);
	group_page(t, g);
	g->ready = true;
}

/* In a loop's later turns: is it in the page where it was? */
static void group_stays(struct trans *t, struct group *g)
{
	struct cold *c;

	flags_yield_to_ax(t);
	c = cold_add(t, COLD_PAGE, loop_look(t, g));
	c->arg = (u32)(g - t->group);
	emit_rm(&t->e, true, OP_LOAD, H_11, group_slot(t, g));
	c->back = t->e.at;
	g->ready = true;
}

/* By base and index, which are in host registers: AX has no part in it. */
static void indexed_place(struct trans *t, const struct group *g, s32 disp, struct place *m)
{
	u8 base = host_of(t, t->regs[t->k].base);

	*m = at_base(H_11, disp);
	if (g->folded != g->base && g->folded == g->index) {
		m->index = base;
		return;
	}
	if (g->folded != g->base)
		emit_rm(&t->e, true, OP_LEA, H_11, (struct place){ .base = base, .index = H_11 });
	m->index = host_of(t, t->regs[t->k].index);
	m->scale = t->regs[t->k].scale;
}

bool group_access(struct trans *t, s32 disp, bool need_ax, struct place *m)
{
	struct group *g;

	if (!t->group_of[t->k])
		return false;
	g = &t->group[t->group_of[t->k] - 1];
	if (g->members < 2 && !(t->loop && g->carried))
		return false;
	if (!g->ready && loop_stays(t, g))
		group_stays(t, g);
	else if (!g->ready)
		group_lead(t, g);
	else if (t->e.r11 != group_number(t, g))
		emit_rm(&t->e, true, OP_LOAD, H_11, group_slot(t, g));
	t->e.r11 = group_number(t, g);
	if (t->regs[t->k].index != R_ZERO) {
		indexed_place(t, g, disp, m);
		return true;
	}
	*m = access_place(t, disp, H_AX);
	m->index = H_11;
	m->scale = 0;
	if (need_ax && m->base == H_AX) {
		emit_rm(&t->e, true, OP_LEA, H_11, *m);
		*m = at_base(H_11, 0);
	}
	return true;
}
