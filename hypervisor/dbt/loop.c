/*
 * Loops: a fragment that jumps back to its own beginning. It is emitted twice. The first copy runs
 * the first time round and checks what it accesses; its back edges lead to the second copy, and the
 * second copy's to itself. There a group (group.c) whose registers did not change needs no check, and
 * one whose registers only step along needs just a look whether it is still in the page it was in:
 *
 *	lea r11, [first byte]		where one register steps one way:
 *	sub r11, gs:[slot_page]
 *	cmp r11, 4096 - length		cmp reg, gs:[its last value in the page]
 *	ja out of line			jg (or jl): the whole check, and a new page
 *	mov r11, gs:[slot]
 *
 * What makes this right is what makes groups right: from one turn to the next nothing runs but these
 * instructions, or the handler of one of them. Whatever changes a translation is not among them
 * (loop_plain()), and requests of other vCPUs are seen by the poll in each turn, which leaves.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"

/* ---- back edges ---- */

bool loop_target(const struct trans *t, s64 to)
{
	return t->loop && to == t->off[0];
}

/* Flags as the second copy's beginning expects them. */
void loop_flags(struct trans *t)
{
	if (t->loop_fl == FL_SAVED)
		flags_save(t);
	else if (t->loop_fl == FL_HOST)
		flags_need(t);
}

/* site: the rel32 of a back edge. */
void loop_jump(struct trans *t, u32 site)
{
	if (t->again)
		emit_patch(t->e.base, site, t->loop_head);
	else
		t->loop_site[t->n_loop_sites++] = site;
}

/* Does instruction k jump to instruction "to"? */
static bool jumps_to(const struct trans *t, unsigned int k, unsigned int to)
{
	const struct insn *i = &t->insn[k];
	unsigned int kind = t->form[k]->kind;

	return (kind == FORM_JCC || kind == FORM_JMP) && i->opsize == t->mode->code_bytes &&
		(s64)t->off[k] + i->len + (s64)i->imm == t->off[to];
}

static bool back_edge(const struct trans *t, unsigned int k)
{
	return jumps_to(t, k, 0);
}

/* ---- what its registers do ---- */

/* Instructions that change nothing but registers, flags and memory. */
bool loop_plain(unsigned int kind)
{
	switch (kind) {
	case FORM_GENERIC: case FORM_SHIFT_CL: case FORM_VECTOR: case FORM_X87: case FORM_NOP:
	case FORM_LEA: case FORM_PUSH: case FORM_POP: case FORM_PUSH_IMM: case FORM_MULDIV:
	case FORM_CMPXCHG: case FORM_CBW: case FORM_CWD: case FORM_MOV_IMM: case FORM_JCC:
		return true;
	default:
		return false;
	}
}

struct habits {
	u32 changed;		/* registers, by bit */
	u32 wild;		/* of these: not by adding what stays the same */
	u32 up, down;		/* of these: by adding numbers above 0 only, below 0 only */
	u8 made[16];		/* of those up: behind this instruction only (it is a sum), or 0 */
};

/* The register that this adds to or subtracts from; what: another one, or R_ZERO. */
static unsigned int step_of(const struct trans *t, unsigned int k, unsigned int *what)
{
	const struct insn *i = &t->insn[k];
	const struct exec_set *s = opcode_row(i->row)->set;

	*what = R_ZERO;
	if (t->form[k]->kind == FORM_LEA && i->base == i->reg >> 3 && i->index == R_ZERO)
		return i->base;
	if (t->form[k]->kind != FORM_GENERIC || i->flags & I_MEM || i->opsize < 4)
		return R_ZERO;
	if (s == &x_add_EI || s == &x_sub_EI || s == &x_inc_E || s == &x_dec_E)
		return i->rm >> 3;
	if (s == &x_add_EG || s == &x_sub_EG) {
		*what = i->reg >> 3;
		return i->rm >> 3;
	}
	if (s == &x_add_GE || s == &x_sub_GE) {
		*what = i->rm >> 3;
		return i->reg >> 3;
	}
	return R_ZERO;
}

/* Registers that a copy or a sum takes its value from, by bit; 0: it is another instruction. */
static u32 sum_of(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	const struct exec_set *s = opcode_row(i->row)->set;

	if (t->form[k]->kind == FORM_LEA)
		return (i->base < 16 ? (u32)BIT(i->base) : 0) |
			(i->index < 16 ? (u32)BIT(i->index) : 0);
	if (t->form[k]->kind != FORM_GENERIC || i->flags & I_MEM || i->opsize != 8)
		return 0;
	return s == &x_mov_EG ? (u32)BIT(i->reg >> 3) : s == &x_mov_GE ? (u32)BIT(i->rm >> 3) : 0;
}

static bool has(u32 set, unsigned int reg)
{
	return reg < 16 && set >> reg & 1;
}

/* Registers that go anywhere by instruction k, as far as it is known. */
static u32 made_wild(const struct trans *t, unsigned int k, const struct habits *h)
{
	unsigned int what, reg = step_of(t, k, &what);
	u32 set = insn_changes(t, k), from = sum_of(t, k);

	if (reg < 16 && !has(h->changed, what))
		set &= ~(u32)BIT(reg);
	return from && !(from & h->wild) ? 0 : set;
}

/* The number that instruction k adds to a register, which step_of() names; or 0. */
static s64 step_by(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	const struct exec_set *s = opcode_row(i->row)->set;

	if (i->opsize != 8)
		return 0;
	if (t->form[k]->kind == FORM_LEA)
		return i->asize == 8 ? i->disp : 0;
	return s == &x_add_EI ? (s64)i->imm : s == &x_sub_EI ? -(s64)i->imm :
		s == &x_inc_E ? 1 : s == &x_dec_E ? -1 : 0;
}

static void habits_add(struct habits *h, const struct trans *t, unsigned int k)
{
	unsigned int what, reg = step_of(t, k, &what);
	u32 set = insn_changes(t, k), one = reg < 16 ? (u32)BIT(reg) : 0;
	s64 by = one && what == R_ZERO ? step_by(t, k) : 0;

	h->changed |= set;
	h->up &= ~(by > 0 ? set & ~one : set);
	h->down &= ~(by < 0 ? set & ~one : set);
}

static bool changed_once(const struct trans *t, unsigned int reg)
{
	unsigned int n = 0;

	for (unsigned int k = 0; k <= t->loop_last; k++)
		n += insn_changes(t, k) >> reg & 1;
	return n == 1;
}

/* A sum of registers that stay and others that go up goes up, too, from where it is made. */
static void habits_derive(struct habits *h, const struct trans *t)
{
	u32 steady = h->up | ~h->changed;

	for (unsigned int k = 0; k <= t->loop_last; k++) {
		u32 set = insn_changes(t, k), from = sum_of(t, k);
		unsigned int reg = t->insn[k].reg >> 3;

		if (opcode_row(t->insn[k].row)->set == &x_mov_EG)
			reg = t->insn[k].rm >> 3;
		if (!from || from & ~steady || set != (u32)BIT(reg) || from & set ||
			t->insn[k].opsize != 8 || !changed_once(t, reg) ||
			(t->form[k]->kind == FORM_LEA && t->insn[k].asize != 8))
			continue;
		h->up |= set;
		h->made[reg] = (u8)(k + 1);
	}
}

static void habits_find(struct habits *h, const struct trans *t)
{
	u32 wild;

	*h = (struct habits){ .up = 0xffff, .down = 0xffff };
	for (unsigned int k = 0; k <= t->loop_last; k++)
		habits_add(h, t, k);
	h->up &= h->changed;
	habits_derive(h, t);
	do {
		wild = h->wild;
		for (unsigned int k = 0; k <= t->loop_last; k++)
			h->wild |= made_wild(t, k, h);
	} while (h->wild != wild);
}

/*
 * Which register may be kept in the slot's sum: one of two, the same for all members. Not one that is
 * both: the sum would have it scaled, and the access would add it scaled once more.
 */
static unsigned int group_fixed_part(const struct trans *t, const struct group *g,
	const struct habits *h)
{
	unsigned int k, number = (unsigned int)(g - t->group) + 1;

	if (g->index == R_ZERO || g->base == g->index)
		return R_ZERO;
	for (k = 0; k < t->n; k++)
		if (t->group_of[k] == number &&
			(t->regs[k].base != g->base || t->regs[k].index != g->index))
			return R_ZERO;
	return !has(h->changed, g->base) ? g->base : !has(h->changed, g->index) ? g->index : R_ZERO;
}

static void group_find_step(struct group *g, const struct habits *h)
{
	bool base = has(h->changed, g->base), index = has(h->changed, g->index);
	unsigned int reg = base ? g->base : g->index;

	if (base == index || !has(h->up | h->down, reg) || (h->made[reg] && h->made[reg] > g->lead))
		return;
	g->step = (u8)reg;
	g->down = !has(h->up, reg);
}

static bool groups_carry(struct trans *t, const struct habits *h)
{
	bool any = false;

	for (struct group *g = t->group; g < t->group + t->n_groups; g++) {
		g->carried = g->lead <= t->loop_first && !has(h->wild, g->base) &&
			!has(h->wild, g->index);
		g->fixed = !has(h->changed, g->base) && !has(h->changed, g->index);
		any |= g->carried;
		if (!g->carried)
			continue;
		g->folded = (u8)group_fixed_part(t, g, h);
		if (!g->fixed)
			group_find_step(g, h);
	}
	return any;
}

/* By base and index, one of them in memory: only where the slot has that one in its sum. */
static void groups_drop(struct trans *t)
{
	for (unsigned int k = 0; k < t->n; k++) {
		struct group *g;
		bool base, index;

		if (!t->group_of[k] || t->regs[k].index == R_ZERO)
			continue;
		g = &t->group[t->group_of[k] - 1];
		base = host_of(t, t->regs[k].base) == H_NONE;
		index = host_of(t, t->regs[k].index) == H_NONE;
		if ((!base && !index) || (t->loop && g->carried && base != index &&
			g->folded == (base ? t->regs[k].base : t->regs[k].index)))
			continue;
		g->members--;
		t->group_of[k] = 0;
	}
}

/* ---- steps ---- */

/*
 * The limit is for the register as it is at the group's first access. It is compared as a signed
 * number, which must not come around: behind a limit of 2^62 there is room for all steps of a turn.
 * A base alone is an address, which is below 2^48 or above -2^48.
 */
bool loop_stays(const struct trans *t, const struct group *g)
{
	return t->again && g->carried && (g->step == R_ZERO || t->k == g->lead);
}

u32 loop_look(struct trans *t, const struct group *g)
{
	struct emitter *e = &t->e;

	if (g->step != R_ZERO) {
		emit_rm(e, true, OP_CMP, reg_use(t, g->step, H_11), group_slot_page(t, g));
		return emit_jcc(e, g->down ? CC_L : CC_G, TO_LATER);
	}
	emit_rm(e, true, OP_LEA, H_11, group_first(t, g, H_11));
	emit_rm(e, true, OP_SUB, H_11, group_slot_page(t, g));
	emit_alu_imm(e, true, ALU_CMP, H_11, 4096 - (g->hi - g->lo));
	return emit_jcc(e, CC_A, TO_LATER);
}

/* The sum's other register, which stays, goes from AX. */
static void limit_less(struct trans *t, unsigned int guest)
{
	u8 h = host_of(t, guest);

	if (h != H_NONE)
		emit_rr(&t->e, true, 0x29, h, H_AX);		/* sub */
	else
		emit_rm(&t->e, true, OP_SUB, H_AX, home_place(t, guest));
}

/*
 * AX, the page, to the register's last value in there, where the index is scaled. R11 is put away in
 * the limit's own place.
 */
static void limit_scaled(struct trans *t, const struct group *g, s32 room)
{
	struct emitter *e = &t->e;

	emit_rm(e, true, OP_STORE, H_11, group_slot_page(t, g));
	emit_rm(e, true, OP_LEA, H_11, group_first(t, g, H_11));
	if (g->down) {
		emit_rr(e, true, 0x29, H_AX, H_11);
		emit_rr(e, true, OP_STORE, H_11, H_AX);
	} else {
		emit_rm(e, true, OP_LEA, H_AX, at_base(H_AX, room));
		emit_rr(e, true, 0x29, H_11, H_AX);
	}
	if (g->step == g->index)
		emit_shr(e, false, H_AX, g->scale);
	if (g->down)
		emit_rr(e, true, 0xf7, 3, H_AX);		/* neg */
	emit_rm(e, true, OP_LOAD, H_11, group_slot_page(t, g));
	if (host_of(t, g->step) != H_NONE)
		emit_rr(e, true, 0x01, host_of(t, g->step), H_AX);	/* add */
	else
		emit_rm(e, true, OP_ADD, H_AX, home_place(t, g->step));
}

/* The twin, where the register is no number to be compared as a signed one. */
static void limit_sane(struct trans *t, const struct group *g)
{
	u8 reg = reg_use(t, g->step, H_AX);

	if (reg != H_AX)
		emit_rr(&t->e, true, OP_STORE, reg, H_AX);
	emit_rr(&t->e, true, 0x01, H_AX, H_AX);
	cold_add(t, COLD_TWIN, emit_jcc(&t->e, CC_O, TO_LATER));
}

static void limit_step(struct trans *t, const struct group *g)
{
	s32 room = g->down ? 0 : 4096 - (g->hi - g->lo);

	if (g->index != R_ZERO && g->scale) {
		limit_scaled(t, g, room);
		return;
	}
	emit_rm(&t->e, true, OP_LEA, H_AX, at_base(H_AX, t->delta[t->k] - g->lo + room));
	if (g->index != R_ZERO)
		limit_less(t, g->step == g->base ? g->index : g->base);
}

void loop_limit(struct trans *t, const struct group *g)
{
	bool step = g->step != R_ZERO;

	if (step && t->k != g->lead) {	/* the next turn checks again */
		emit_mov_imm(&t->e, H_AX, g->down ? ~0ULL >> 1 : 1ULL << 63);
		step = false;
	} else if (step) {
		limit_step(t, g);
	}
	emit_rm(&t->e, true, OP_STORE, H_AX, group_slot_page(t, g));
	if (step && g->index != R_ZERO)
		limit_sane(t, g);
}

/* ---- the two copies ---- */

static bool edges_find(struct trans *t)
{
	unsigned int k, n = 0;

	for (k = 0; k < t->n; k++) {
		if (back_edge(t, k)) {
			if (!n++)
				t->loop_first = (u8)k;
			t->loop_last = (u8)k;
		} else if (!loop_plain(t->form[k]->kind)) {
			break;
		}
	}
	return n && n <= ARRAY_SIZE(t->loop_site);
}

/* Plain instructions, with an access among them: worth two copies. */
static bool loop_like(const struct trans *t, unsigned int from, unsigned int to)
{
	bool access = false;

	for (unsigned int k = from; k < to; k++) {
		if (!loop_plain(t->form[k]->kind))
			return false;
		access = access || (t->insn[k].flags & I_MEM && mem_size(t, k));
	}
	return access;
}

/*
 * A loop that begins in the midst is left to a fragment of its own: else its first turn is here, with
 * checks of its own, its second one is that fragment's first copy, and only the third gains by it.
 */
void loop_split(struct trans *t)
{
	if (!long_mode(t) || t->twin)
		return;
	for (unsigned int k = 1; k < t->n; k++) {
		if (t->form[k]->kind != FORM_JCC || (s64)t->insn[k].imm >= 0)
			continue;
		for (unsigned int to = k; --to;) {
			if (!jumps_to(t, k, to))
				continue;
			if (loop_like(t, to, k)) {
				t->n = to;
				return;
			}
		}
	}
}

/* Finds groups, too. What follows the last back edge is left to another fragment. */
void loop_find(struct trans *t)
{
	bool edges = long_mode(t) && !t->twin && !t->f->cross && edges_find(t);
	struct habits h;

	t->loop = t->again = false;
	t->n_loop_sites = 0;
	if (edges)
		t->n = t->loop_last + 1u;
	groups_find(t);
	if (!edges) {
		groups_drop(t);
		return;
	}
	habits_find(&h, t);
	t->loop = groups_carry(t, &h);
	groups_drop(t);
}

/*
 * The first copy called the interpreter: which registers are where is forgotten with its groups, and
 * each turn begins at the fragment's entry.
 */
static u32 turn_anew(struct trans *t)
{
	u32 at = t->e.at;

	homes_leave(t);
	emit_jmp(&t->e, t->loop_fl == FL_SAVED ? fragment_saved(t->f) : fragment_host(t->f));
	return at;
}

/* The first copy is there. False: there is no second one, as there was a call. */
bool loop_again(struct trans *t)
{
	u32 enter = t->helpers ? turn_anew(t) : t->e.at;

	t->loop_head = enter;
	for (unsigned int k = 0; k < t->n_loop_sites; k++)
		emit_patch(t->e.base, t->loop_site[k], enter);
	for (unsigned int k = 0; k < t->n_groups; k++)
		t->group[k].ready = t->group[k].carried && t->group[k].fixed;
	t->again = true;
	t->fl = t->loop_fl;
	t->setter = t->loop_setter;
	return !t->helpers;
}
