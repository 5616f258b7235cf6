/*
 * Where the guest's arithmetic flags are while a fragment is translated: in the host's RFLAGS, saved
 * in hot.flags, or nowhere (FL_LOST), where they can be had again from the operands of the
 * instruction that set them, as long as these are what they were. Checks of memory accesses clobber
 * flags and are everywhere; who asks for flags behind one is, but for a conditional branch, only a
 * fault. So most are lost and never asked for: only code out of line computes them again.
 *
 *	CMP, TEST		once more
 *	ADD, SUB		their result tells the first operand: undone, and once more
 *	AND, OR, XOR		TEST of the result with itself
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/exec.h"

enum recipe { RECIPE_NONE, RECIPE_AGAIN, RECIPE_ADD, RECIPE_SUB, RECIPE_LOGIC };

static const struct {
	const struct exec_set *set;
	u8 recipe;
} recipes[] = {
#define EACH_FORM(op, how) { &x_##op##_EG, how }, { &x_##op##_GE, how }, { &x_##op##_EI, how }
	EACH_FORM(cmp, RECIPE_AGAIN),
	{ &x_test_EG, RECIPE_AGAIN }, { &x_test_EI, RECIPE_AGAIN },
	EACH_FORM(add, RECIPE_ADD), EACH_FORM(sub, RECIPE_SUB),
	EACH_FORM(and, RECIPE_LOGIC), EACH_FORM(or, RECIPE_LOGIC), EACH_FORM(xor, RECIPE_LOGIC),
#undef EACH_FORM
};

static enum recipe row_recipe(const struct exec_set *set)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(recipes); k++)
		if (recipes[k].set == set)
			return recipes[k].recipe;
	return RECIPE_NONE;
}

/* Operands of two-operand forms, guest registers; src: or R_ZERO for an immediate. */
struct operands {
	unsigned int dst, src;
};

static struct operands operands_of(const struct insn *i, const struct exec_set *set)
{
	bool imm = set == &x_cmp_EI || set == &x_test_EI || set == &x_add_EI || set == &x_sub_EI ||
		set == &x_and_EI || set == &x_or_EI || set == &x_xor_EI;
	bool from_rm = set == &x_cmp_GE || set == &x_add_GE || set == &x_sub_GE ||
		set == &x_and_GE || set == &x_or_GE || set == &x_xor_GE;

	if (imm)
		return (struct operands){ i->rm >> 3, R_ZERO };
	if (from_rm)
		return (struct operands){ i->reg >> 3, i->rm >> 3 };
	return (struct operands){ i->rm >> 3, i->reg >> 3 };
}

static bool in_host(const struct trans *t, unsigned int guest)
{
	return guest == R_ZERO || host_of(t, guest) != H_NONE;
}

/* How to have the flags of instruction k again; *inputs: of what registers, by bit. */
static enum recipe insn_recipe(const struct trans *t, unsigned int k, u32 *inputs)
{
	const struct insn *i = &t->insn[k];
	const struct exec_set *set = opcode_row(i->row)->set;
	enum recipe r = t->form[k]->kind == FORM_GENERIC ? row_recipe(set) : RECIPE_NONE;
	struct operands o;

	if (r == RECIPE_NONE || i->flags & I_MEM)
		return RECIPE_NONE;
	o = operands_of(i, set);
	if (i->rm & 7 || (o.src != R_ZERO && i->reg & 7))	/* AH to BH */
		return RECIPE_NONE;
	*inputs = (u32)BIT(o.dst);
	if (r == RECIPE_LOGIC)
		return in_host(t, o.dst) && i->opsize >= 4 ? r : RECIPE_NONE;
	if (o.src != R_ZERO)
		*inputs |= (u32)BIT(o.src);
	if (r == RECIPE_AGAIN)
		return r;
	/* Twice a register: its upper bit is gone. */
	if (i->opsize < 4 || !in_host(t, o.dst) || !in_host(t, o.src) ||
		(r == RECIPE_ADD && o.dst == o.src) || (s64)i->imm == -0x80000000LL)
		return RECIPE_NONE;
	return r;
}

/* ---- for how long ---- */

enum flags_use { FLAGS_KEEP, FLAGS_READ, FLAGS_SET, FLAGS_UNKNOWN };

static enum flags_use flags_use(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	const struct opcode *row = opcode_row(i->row);
	unsigned int kind = t->form[k]->kind;

	switch (kind) {
	case FORM_GENERIC: case FORM_VECTOR: case FORM_X87: case FORM_SHIFT_CL:
		if (reads_flags(i, row, kind == FORM_SHIFT_CL))
			return FLAGS_READ;
		return writes_flags(row) ? FLAGS_SET : FLAGS_KEEP;
	case FORM_JCC: case FORM_LAHF: case FORM_SAHF:
		return FLAGS_READ;
	case FORM_MULDIV: case FORM_CMPXCHG:
		return FLAGS_SET;
	case FORM_LEA: case FORM_MOV_IMM: case FORM_NOP: case FORM_PUSH: case FORM_PUSH_IMM:
	case FORM_POP: case FORM_CBW: case FORM_CWD:
		return FLAGS_KEEP;
	default:
		return FLAGS_UNKNOWN;
	}
}

/* Translated for certain, without a call of the interpreter, which may be left from? */
static bool surely_inline(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];

	switch (t->form[k]->kind) {
	case FORM_GENERIC: case FORM_SHIFT_CL: case FORM_MOV_IMM:
		return !(i->flags & (I_MEM | I_VEX)) && i->opsize >= 4 && !(i->rm & 7) &&
			!(i->reg & 7);	/* AH to BH */
	case FORM_LEA:
		return i->opsize >= 4 && i->asize >= 4;
	default:
		return t->form[k]->kind == FORM_JCC || t->form[k]->kind == FORM_NOP ||
			t->form[k]->kind == FORM_CBW || t->form[k]->kind == FORM_CWD;
	}
}

/* May a fault, or code out of line, want the flags as they are before instruction k? */
static bool flags_wanted(const struct trans *t, unsigned int k)
{
	return (!t->polled && k < t->poll_end) || !surely_inline(t, k);
}

static bool unchanged(const struct trans *t, unsigned int from, unsigned int to, u32 inputs)
{
	for (unsigned int k = from; k < to; k++)
		if (insn_changes(t, k) & inputs)
			return false;
	return true;
}

/* Are the inputs there whenever the flags are wanted, until others are set or these are computed? */
static bool inputs_last(const struct trans *t, unsigned int from, u32 inputs)
{
	bool there = true;

	for (unsigned int k = from; k < t->n; k++) {
		enum flags_use use = flags_use(t, k);

		if (use == FLAGS_UNKNOWN)
			return false;
		if (!there && (use == FLAGS_READ || flags_wanted(t, k)))
			return false;
		if (use != FLAGS_KEEP)
			return true;
		there = there && !(insn_changes(t, k) & inputs);
	}
	return false;
}

static bool recipe_lasts(const struct trans *t)
{
	u32 inputs;

	/* The setter is behind only where it ran in a loop's last turn. */
	return t->setter < t->k && insn_recipe(t, t->setter, &inputs) &&
		unchanged(t, t->setter + 1u, t->k, inputs) && inputs_last(t, t->k, inputs);
}

/* The last instruction before k that sets flags, or NO_SETTER. */
static u8 setter_before(const struct trans *t, unsigned int k)
{
	while (k--) {
		enum flags_use use = flags_use(t, k);

		if (use == FLAGS_SET)
			return (u8)k;
		if (use == FLAGS_UNKNOWN || (use == FLAGS_READ && t->form[k]->kind != FORM_JCC))
			return NO_SETTER;
	}
	return NO_SETTER;
}

/*
 * A loop's setter: whose flags are lost where a turn begins, with the branch back (one, conditional)
 * behind it.
 */
u8 loop_setter(struct trans *t)
{
	u8 s = setter_before(t, t->loop_last);
	u32 inputs;

	t->polled = true;	/* each turn begins with it */
	if (s == NO_SETTER || t->loop_first != t->loop_last ||
		t->form[t->loop_last]->kind != FORM_JCC || !insn_recipe(t, s, &inputs) ||
		!unchanged(t, s + 1u, t->loop_last, inputs) || !inputs_last(t, 0, inputs))
		return NO_SETTER;
	return s;
}

u32 setter_inputs(const struct trans *t, u8 setter)
{
	u32 inputs = 0;

	if (setter != NO_SETTER)
		insn_recipe(t, setter, &inputs);
	return inputs;
}

/* ---- once more ---- */

static void undo_and_run(struct trans *t, const struct insn *i, struct operands o, bool add)
{
	bool w = i->opsize == 8;
	s32 imm = (s32)i->imm;
	u8 dst = host_of(t, o.dst), src = host_of(t, o.src);

	if (o.src == R_ZERO) {
		emit_rm(&t->e, w, OP_LEA, H_AX, at_base(dst, add ? -imm : imm));
		emit_alu_imm(&t->e, w, add ? ALU_ADD : ALU_CMP, H_AX, imm);
	} else if (add) {
		emit_rr(&t->e, w, OP_STORE, dst, H_AX);
		emit_rr(&t->e, w, 0x29, src, H_AX);		/* sub */
		emit_rr(&t->e, w, 0x01, src, H_AX);		/* add */
	} else {
		emit_rm(&t->e, w, OP_LEA, H_AX,
			(struct place){ .base = dst, .index = src });
		emit_rr(&t->e, w, 0x39, src, H_AX);		/* cmp */
	}
}

/* FL_LOST: into the host's RFLAGS. AX is lost. */
static void flags_again(struct trans *t)
{
	unsigned int k = t->k, s = t->setter;
	const struct insn *i = &t->insn[s];
	struct operands o = operands_of(i, opcode_row(i->row)->set);
	u32 inputs;
	enum recipe r = insn_recipe(t, s, &inputs);

	if (r == RECIPE_AGAIN) {
		t->k = s;
		emit_generic(t);
		t->k = k;
	} else if (r == RECIPE_LOGIC) {
		emit_rr(&t->e, i->opsize == 8, 0x85, host_of(t, o.dst), host_of(t, o.dst));	/* test */
	} else {
		undo_and_run(t, i, o, r == RECIPE_ADD);
	}
	t->fl = FL_HOST;
}

void flags_found(struct trans *t, const struct cold *c, bool save)
{
	if (c->fl != FL_LOST)
		return;
	t->k = c->insn;
	t->setter = c->setter;
	flags_again(t);
	if (save)
		emit_call_to(&t->e, t->d->tramp.flags_save);
}

/* ---- where they are ---- */

void flags_save(struct trans *t)
{
	if (t->fl == FL_LOST)
		flags_again(t);
	emit_flags_store(&t->e);
	if (t->fl != FL_HOST)
		return;
	emit_flags_save(&t->e);
	t->fl = FL_BOTH;
}

void flags_need(struct trans *t)
{
	if (t->fl == FL_LOST)
		flags_again(t);
	if (t->fl != FL_SAVED)
		return;
	t->fl = t->e.ax_flags ? FL_HOST : FL_BOTH;
	emit_flags_restore(&t->e);
}

void flags_written(struct trans *t)
{
	t->fl = FL_HOST;
	t->e.ax_flags = false;
	t->setter = (u8)t->k;
}

void flags_yield_to_ax(struct trans *t)
{
	if (t->fl == FL_LOST)
		return;
	if (t->fl == FL_HOST && recipe_lasts(t)) {
		t->fl = FL_LOST;
		return;
	}
	if (t->fl == FL_HOST)
		emit_flags_take(&t->e);
	t->fl = FL_SAVED;
}

void flags_yield(struct trans *t)
{
	flags_yield_to_ax(t);
	emit_flags_store(&t->e);
}

/* ---- a fault of the host CPU where they were lost ---- */

static void value_set(struct vcpu *v, unsigned int guest, unsigned int size, u64 x)
{
	v->r[guest] = size == 8 ? x : (u32)x;
}

void flags_from_recipe(struct vcpu *v, const struct insn *setter)
{
	const struct exec_set *set = opcode_row(setter->row)->set;
	struct operands o = operands_of(setter, set);
	unsigned int size = setter->opsize;
	u64 src = o.src == R_ZERO ? setter->imm : v->r[o.src];
	struct insn test = *setter;

	switch (row_recipe(set)) {
	case RECIPE_LOGIC:
		test.reg = test.rm = (u8)(o.dst << 3);
		x_test_EG.fn[size == 8 ? 3 : 2](v, &test);
		return;
	case RECIPE_ADD: value_set(v, o.dst, size, v->r[o.dst] - src); break;
	case RECIPE_SUB: value_set(v, o.dst, size, v->r[o.dst] + src); break;
	default: break;
	}
	setter->exec(v, setter);
}
