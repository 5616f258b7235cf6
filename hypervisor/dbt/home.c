/*
 * Where guest registers are. R10, R11 and R15 have no host register: two serve checks, one is the
 * host's stack pointer. In a loop (loop.c) they borrow registers that the loop uses less: what these
 * hold is put away in hot.away on the way in and comes back on every way out.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"

static const u8 hosts[16] = {
	H_10, H_CX, H_DX, H_BX, H_15, H_BP, H_SI, H_DI, H_8, H_9, H_NONE, H_NONE, H_12, H_13, H_14,
	H_NONE,
};

static const u8 borrowers[HOME_BORROWERS] = { R_R10, R_R11, R_R15 };

void homes_begin(struct trans *t)
{
	memcpy(t->home, hosts, sizeof(hosts));
	for (unsigned int k = 0; k < HOME_BORROWERS; k++)
		t->lender[k] = R_ZERO;
	t->borrowed = false;
}

u8 host_of(const struct trans *t, unsigned int guest)
{
	return guest < 16 ? t->home[guest] : H_NONE;
}

static struct place away_place(unsigned int k)
{
	return at_gs((u32)(offsetof(struct vcpu, hot.away) + 8 * k));
}

struct place home_place(const struct trans *t, unsigned int guest)
{
	for (unsigned int k = 0; k < HOME_BORROWERS; k++)
		if (t->lender[k] == guest)
			return away_place(k);
	return HOT_REG(guest);
}

/* ---- who borrows from whom ---- */

#define NEVER	1000u	/* as good as used everywhere */

/* What each register is worth in a host register. */
struct uses {
	u32 of[16];
};

static void use_add(struct uses *u, unsigned int guest, u32 by)
{
	if (guest < 16)
		u->of[guest] += by;
}

/* A register that a loop's slot has in its sum is not needed for the access. */
static bool folded(const struct trans *t, unsigned int k, unsigned int guest)
{
	const struct group *g;

	if (!t->group_of[k])
		return false;
	g = &t->group[t->group_of[k] - 1];
	return g->carried && g->folded == guest;
}

/* There is one scratch register for an address: beside an index a base must be in the host's. */
static void address_uses(struct uses *u, const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];

	if (!(i->flags & I_MEM))
		return;
	if (!folded(t, k, i->base))
		use_add(u, i->base, i->index == R_ZERO && i->base != R_RSP ? 2 : NEVER);
	if (i->index != R_ZERO && !folded(t, k, i->index))
		use_add(u, i->index, NEVER);
}

static unsigned int operand_register(const struct insn *i, unsigned int place)
{
	switch (place) {
	case PL_REG: case PL_ACCREG: return i->reg >> 3;
	case PL_VVVV: return i->vvvv >> 3;
	case PL_RM: case PL_OPC: case PL_ACC: return i->flags & I_MEM ? R_ZERO : i->rm >> 3;
	default: return R_ZERO;
	}
}

/*
 * CMPXCHG wants its operands in registers, and byte operands of MUL and DIV are where they always
 * are.
 */
static void operand_uses(struct uses *u, const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	const struct opcode *row = opcode_row(i->row);
	unsigned int kind = t->form[k]->kind;
	u32 by = kind == FORM_CMPXCHG || (kind == FORM_MULDIV && i->opsize == 1) ? NEVER : 1;

	for (unsigned int n = 0; n < ARRAY_SIZE(row->op); n++)
		if (operand_info[row->op[n]].class == CL_GPR)
			use_add(u, operand_register(i, operand_info[row->op[n]].place), by);
}

static bool stack_form(unsigned int kind)
{
	return kind == FORM_PUSH || kind == FORM_POP || kind == FORM_PUSH_IMM;
}

static void uses_count(struct uses *u, const struct trans *t)
{
	*u = (struct uses){ { 0 } };
	/* Many instructions have these without naming them. */
	u->of[R_RAX] = u->of[R_RCX] = u->of[R_RDX] = NEVER;
	for (unsigned int k = 0; k < t->n; k++) {
		u32 set = insn_changes(t, k);

		for (unsigned int g = 0; g < 16; g++)
			u->of[g] += set >> g & 1 ? 2 : 0;
		address_uses(u, t, k);
		operand_uses(u, t, k);
		if (stack_form(t->form[k]->kind))
			u->of[R_RSP] = NEVER;
	}
}

static unsigned int least_used(const struct trans *t, const struct uses *u)
{
	unsigned int best = R_ZERO;

	for (unsigned int g = 0; g < 16; g++)
		if (t->home[g] != H_NONE && hosts[g] == t->home[g] &&
			(best == R_ZERO || u->of[g] < u->of[best]))
			best = g;
	return best;
}

static void lend(struct trans *t, unsigned int k, unsigned int lender)
{
	t->lender[k] = (u8)lender;
	t->home[borrowers[k]] = hosts[lender];
	t->home[lender] = H_NONE;
	t->borrowed = true;
}

void homes_choose(struct trans *t, u32 keep)
{
	struct uses u;

	uses_count(&u, t);
	for (unsigned int g = 0; g < 16; g++)
		if (keep & BIT(g))
			u.of[g] += NEVER;
	for (unsigned int k = 0; k < HOME_BORROWERS; k++) {
		unsigned int lender = least_used(t, &u);

		if (lender == R_ZERO || u.of[lender] >= NEVER)
			return;
		if (u.of[borrowers[k]] > u.of[lender] + 2)
			lend(t, k, lender);
	}
}

/* ---- the ways in and out ---- */

void homes_enter(struct trans *t)
{
	for (unsigned int k = 0; k < HOME_BORROWERS; k++) {
		if (t->lender[k] == R_ZERO)
			continue;
		emit_rm(&t->e, true, OP_STORE, hosts[t->lender[k]], away_place(k));
		emit_rm(&t->e, true, OP_LOAD, hosts[t->lender[k]], HOT_REG(borrowers[k]));
	}
}

void homes_leave(struct trans *t)
{
	for (unsigned int k = 0; k < HOME_BORROWERS; k++) {
		if (t->lender[k] == R_ZERO)
			continue;
		emit_rm(&t->e, true, OP_STORE, hosts[t->lender[k]], HOT_REG(borrowers[k]));
		emit_rm(&t->e, true, OP_LOAD, hosts[t->lender[k]], away_place(k));
	}
}

/* ---- a fault of the host CPU in there ---- */

u16 homes_word(const struct trans *t)
{
	u16 word = 0;

	if (!t->borrowed)
		return 0;
	for (unsigned int k = 0; k < HOME_BORROWERS; k++)
		if (t->lender[k] != R_ZERO)
			word |= (u16)((t->lender[k] + 1u) << 5 * k);
	return word;
}

void homes_restore(struct vcpu *v, u16 word)
{
	for (unsigned int k = 0; k < HOME_BORROWERS; k++) {
		unsigned int lender = word >> 5 * k & 31;

		if (!lender)
			continue;
		v->r[borrowers[k]] = v->r[lender - 1];
		v->r[lender - 1] = v->hot.away[k];
	}
}
