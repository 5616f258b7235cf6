/*
 * Loops: a fragment that jumps back to its own beginning. It is emitted twice. The first copy runs
 * the first time round and checks what it accesses; its back edges lead to the second copy, and the
 * second copy's to itself. There a group (group.c) whose registers did not change needs no check, and
 * one whose registers only step along needs just a look whether it is still in the page it was in:
 *
 *	lea rax, [first byte]
 *	sub rax, gs:[slot_page]
 *	cmp rax, 4096 - length
 *	ja out of line			the whole check, and a new page
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

static bool back_edge(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	unsigned int kind = t->form[k]->kind;

	return (kind == FORM_JCC || kind == FORM_JMP) && i->opsize == t->mode->code_bytes &&
		(s64)t->off[k] + i->len + (s64)i->imm == t->off[0];
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

static void habits_find(struct habits *h, const struct trans *t)
{
	u32 wild;

	*h = (struct habits){ 0 };
	for (unsigned int k = 0; k <= t->loop_last; k++)
		h->changed |= insn_changes(t, k);
	do {
		wild = h->wild;
		for (unsigned int k = 0; k <= t->loop_last; k++)
			h->wild |= made_wild(t, k, h);
	} while (h->wild != wild);
}

static bool groups_carry(struct trans *t, const struct habits *h)
{
	bool any = false;

	for (struct group *g = t->group; g < t->group + t->n_groups; g++) {
		g->carried = g->lead <= t->loop_first && !has(h->wild, g->base) &&
			!has(h->wild, g->index);
		g->fixed = !has(h->changed, g->base) && !has(h->changed, g->index);
		any |= g->carried;
	}
	return any;
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
	if (!edges)
		return;
	habits_find(&h, t);
	t->loop = groups_carry(t, &h);
}

/* The first copy is there. False: the back edges lead to the fragment's entry, as there was a call. */
bool loop_again(struct trans *t)
{
	t->loop_head = t->e.at;
	if (t->helpers)
		t->loop_head = t->loop_fl == FL_SAVED ? fragment_saved(t->f) : fragment_host(t->f);
	for (unsigned int k = 0; k < t->n_loop_sites; k++)
		emit_patch(t->e.base, t->loop_site[k], t->loop_head);
	for (unsigned int k = 0; k < t->n_groups; k++)
		t->group[k].ready = t->group[k].carried && t->group[k].fixed;
	t->again = true;
	t->fl = t->loop_fl;
	t->setter = t->loop_setter;
	return !t->helpers;
}
