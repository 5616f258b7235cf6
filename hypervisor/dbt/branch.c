/*
 * Transfers of control, and the code that lies out of line. SDM 2 Jcc, JMP, CALL, RET, LOOP.
 *
 * A direct branch inside the page becomes a jump to the other fragment, patched in once that
 * exists. One to another page changes hot.page and jumps through a cell of the space. An indirect
 * one looks its target up in the space's jump table, which holds canonical addresses only: a miss
 * leaves for the interpreter before anything was changed. Near calls and returns: see dbt/dbt.h.
 */
#include "hypervisor/dbt/translate.h"

static bool branch_wide(const struct trans *t)
{
	return insn_now(t)->opsize == t->mode->code_bytes;
}

/* ---- direct ---- */

/* Target of a relative branch, as an offset from the start of this page. */
static s64 branch_target(const struct trans *t)
{
	return (s64)off_next(t) + (s64)insn_now(t)->imm;
}

static u32 exit_new(struct trans *t, s64 to, unsigned int fl, unsigned int from)
{
	u32 n = cache_exit(t->d);

	if (!t->f->n_exits++)
		t->f->exits = n;
	t->d->exit[n] = (struct exit){ .pages = (s32)(to >> 12), .off = (u16)(to & 0xfff),
		.from = (u16)from, .kind = to >> 12 ? EXIT_CELL : EXIT_DIRECT, .fl = (u8)fl,
		.page = t->f->page };
	return n;
}

static void leave(struct trans *t, unsigned int fl, u32 why)
{
	PUT(&t->e, 0x41, 0xbb);			/* mov r11d, why */
	put32(&t->e, why);
	emit_jmp(&t->e, fl == FL_HOST ? t->d->tramp.exit_host : t->d->tramp.exit_saved);
}

static void emit_stub(struct trans *t, u32 exit)
{
	t->d->exit[exit].stub = t->e.at;
	leave(t, t->d->exit[exit].fl, exit << LEAVE_BITS | LEAVE_LINK);
}

/* hot.page := that of the target. */
static void emit_page_move(struct trans *t, s32 pages, unsigned int fl)
{
	if (fl == FL_SAVED && long_mode(t)) {
		emit_alu_mem_imm(&t->e, true, ALU_ADD, HOT(hot.page), (s32)((u32)pages << 12));
		return;
	}
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.page));
	emit_rm(&t->e, long_mode(t), OP_LEA, H_AX, at_base(H_AX, (s32)((u32)pages << 12)));
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.page));
}

static struct place cell_place(u32 cell)
{
	return at_gs((u32)offsetof(struct space, cell) + 8 * cell);
}

/* The jump through a cell; the stub follows at once. */
static void emit_cell_jump(struct trans *t, u32 exit)
{
	struct exit *x = &t->d->exit[exit];
	u32 site;

	x->site = cache_cell(t->v);
	if (x->site) {
		emit_jmp_mem(&t->e, cell_place(x->site));
		site = t->e.at;
		emit_stub(t, exit);
		cache_cell_set(t->v, x->site, code_rx(t->d, site));
	} else {
		emit_stub(t, exit);
	}
}

/* The unconditional end of a fragment. */
static void goto_target(struct trans *t, s64 to)
{
	u32 exit;

	t->done = true;
	if (loop_target(t, to)) {
		loop_flags(t);
		loop_jump(t, emit_jmp(&t->e, TO_LATER));
		return;
	}
	if (t->fl == FL_LOST)
		flags_need(t);
	emit_flags_store(&t->e);
	exit = exit_new(t, to, t->fl, t->off[t->k]);
	if (t->d->exit[exit].kind == EXIT_CELL) {
		homes_leave(t);
		emit_page_move(t, t->d->exit[exit].pages, t->d->exit[exit].fl);
		emit_cell_jump(t, exit);
		return;
	}
	t->d->exit[exit].site = emit_jmp(&t->e, TO_LATER);
	cold_add(t, COLD_LINK, t->d->exit[exit].site)->arg = exit;
}

/* To the code proper of a fragment in two pages, which follows. */
void branch_own_cell(struct trans *t)
{
	u32 own = exit_new(t, t->off[0], FL_SAVED, t->off[0]);

	t->d->cross[t->f->cross].own = own;
	t->d->exit[own].kind = EXIT_CELL;
	emit_cell_jump(t, own);
}

void branch_next(struct trans *t)
{
	goto_target(t, off_next(t));
}

void branch_fallthrough(struct trans *t)
{
	t->k = t->n - 1;
	branch_next(t);
}

static bool target_far(s64 to)
{
	s64 pages = to >> 12;

	return pages >= 1 << 19 || pages < -(1 << 19);
}

static void emit_jcc_form(struct trans *t)
{
	const struct form *f = form_now(t);
	s64 to = branch_target(t);
	struct cold *c;
	u32 site;

	flags_need(t);
	if (loop_target(t, to)) {
		loop_flags(t);
		loop_jump(t, emit_jcc(&t->e, f->op & 15, TO_LATER));
		return;
	}
	site = emit_jcc(&t->e, f->op & 15, TO_LATER);
	c = cold_add(t, COLD_LINK, site);
	c->arg = exit_new(t, to, t->fl, t->off[t->k]);
}

/* LOOP, and JCXZ (by the counter's width). The jump around is short. */
static void emit_counted(struct trans *t, bool loop)
{
	const struct insn *i = insn_now(t);
	s64 to = branch_target(t);
	struct cold *c;
	u32 site;

	if (loop)
		emit_rm(&t->e, i->asize == 8, OP_LEA, H_CX, at_base(H_CX, -1));
	if (i->asize == 4)
		put8(&t->e, 0x67);
	if (loop)
		PUT(&t->e, 0xe3, 5);		/* jrcxz: over the jump */
	else
		PUT(&t->e, 0xe3, 2, 0xeb, 5);	/* jrcxz: to it; else over it */
	site = emit_jmp(&t->e, TO_LATER);
	c = cold_add(t, COLD_LINK, site);
	c->arg = exit_new(t, to, t->fl, t->off[t->k]);
}

/* ---- indirect: the target is in AX ---- */

static struct place jump_place(const struct trans *t, u32 field)
{
	return jump_field((unsigned int)(t->mode - t->d->mode), field);
}

/* R11: the entry. */
static void emit_jump_lookup(struct trans *t)
{
	emit_jump_index(&t->e);
	emit_rm(&t->e, true, OP_CMP, H_AX, jump_place(t, offsetof(struct jump_entry, la)));
	cold_add(t, COLD_EXEC, emit_jcc(&t->e, CC_NZ, TO_LATER));
}

/* hot.page := AX's. */
static void emit_page_set(struct trans *t)
{
	emit_alu_imm(&t->e, true, ALU_AND, H_AX, -4096);
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.page));
}

/* ---- calls and returns ---- */

static u32 ret_miss(const struct trans *t)
{
	return t->d->tramp.ret_miss[t->mode - t->d->mode];
}

/* By the jump table, as any indirect branch. */
static void emit_ret_jump(struct trans *t)
{
	const struct insn *i = insn_now(t);

	emit_jump_lookup(t);
	stack_move(t, i->opsize + (u16)i->imm);
	emit_page_set(t);
	emit_jmp_mem(&t->e, jump_place(t, offsetof(struct jump_entry, host)));
}

/* To the landing of the last call; R11: the record, in case that was another one's. */
static void emit_ret_predicted(struct trans *t)
{
	const struct insn *i = insn_now(t);

	rec_to_r11(t, t->k);
	stack_move(t, i->opsize + (u16)i->imm);
	emit_ret_host(&t->e);
}

static void emit_ret(struct trans *t)
{
	struct place m;

	flags_save(t);
	stack_check(t, 0, insn_now(t)->opsize, &m);
	t->fl = FL_SAVED;
	emit_rm(&t->e, long_mode(t), OP_LOAD, H_AX, m);
	site_access(t);
	if (t->returns)
		emit_ret_predicted(t);
	else
		emit_ret_jump(t);
	t->done = true;
}

/*
 * Is it a host call? Not that of the next instruction: so programs ask where they are, and nothing
 * returns there.
 */
static bool call_returns(const struct trans *t, unsigned int k)
{
	unsigned int kind = t->form[k]->kind;

	return t->returns && (kind == FORM_CALL_IND || (kind == FORM_CALL && t->insn[k].imm));
}

/* The host's stack takes one more call, or forgets all. Flags are saved. */
static void room_check(struct trans *t)
{
	u32 site;

	t->room = true;
	t->fl = FL_SAVED;
	emit_rm(&t->e, true, OP_CMP, H_SP, HOT(hot.ret_limit));
	site = emit_jcc(&t->e, CC_B, TO_LATER);
	cold_add(t, COLD_ROOM, site)->back = t->e.at;
}

/* Best where nobody wants the host's flags; at the call itself at the latest. */
void room_emit(struct trans *t)
{
	if (!t->room && t->fl == FL_SAVED && !t->loop && call_returns(t, t->n - 1))
		room_check(t);
}

/* Before anything that may fail. */
static void call_begin(struct trans *t)
{
	if (t->room)
		return;
	flags_save(t);
	room_check(t);
}

/*
 * Behind a host call: RAX is where the guest's return leads. A return address in the next page may
 * be non-canonical: the jump table knows.
 */
static void emit_landing(struct trans *t)
{
	u32 exit, site;

	if (off_next(t) >> 12) {
		emit_jmp(&t->e, ret_miss(t));
		return;
	}
	emit_rm(&t->e, true, OP_CMP, H_AX, at_base(H_SP, 0));
	emit_jcc(&t->e, CC_NZ, ret_miss(t));
	emit_stack_pop(&t->e, H_AX);
	emit_page_set(t);
	exit = exit_new(t, off_next(t), FL_SAVED, t->off[t->k]);
	site = emit_jmp(&t->e, TO_LATER);
	cold_add(t, COLD_LINK, site)->arg = exit;
}

/* Pushes the return address, RAX then. */
static void emit_push_return(struct trans *t)
{
	s32 size = insn_now(t)->opsize;
	struct place m;

	stack_check(t, -size, (unsigned int)size, &m);
	if (m.base == H_AX) {
		emit_rm(&t->e, true, OP_LEA, H_11, m);
		m = at_base(H_11, 0);
	}
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.page));
	emit_rm(&t->e, long_mode(t), OP_LEA, H_AX, at_base(H_AX, (s32)off_next(t)));
	emit_rm(&t->e, long_mode(t), OP_STORE, H_AX, m);
	site_access(t);
	stack_move(t, -size);
}

/* As goto_target(), coming back. */
static void call_target(struct trans *t, s64 to)
{
	u32 n = exit_new(t, to, t->fl, t->off[t->k]), stub;
	struct exit *x = &t->d->exit[n];

	emit_stack_push(&t->e, H_AX);
	if (x->kind == EXIT_DIRECT) {
		x->site = emit_call_to(&t->e, TO_LATER);
		cold_add(t, COLD_LINK, x->site)->arg = n;
		emit_landing(t);
		return;
	}
	emit_page_move(t, x->pages, x->fl);
	x->site = cache_cell(t->v);
	if (x->site) {
		emit_call_mem(&t->e, cell_place(x->site));
		emit_landing(t);
	}
	stub = t->e.at;
	emit_stub(t, n);
	if (x->site)
		cache_cell_set(t->v, x->site, code_rx(t->d, stub));
}

static void emit_call(struct trans *t)
{
	s64 to = branch_target(t);
	bool returns = call_returns(t, t->k);

	if (returns)
		call_begin(t);
	emit_push_return(t);
	if (!returns) {
		goto_target(t, to);
		return;
	}
	call_target(t, to);
	t->done = true;
}

/* The operand of an indirect branch to AX. */
static bool target_load(struct trans *t)
{
	const struct insn *i = insn_now(t);
	struct place m;
	u8 h;

	if (i->flags & I_MEM) {
		if (!operand_encodable(t))
			return false;
		flags_save(t);
		operand_check(t, i->opsize, false, false, &m);
		emit_rm(&t->e, long_mode(t), OP_LOAD, H_AX, m);
		site_access(t);
	} else {
		flags_save(t);
		h = reg_use(t, i->rm >> 3, H_AX);
		if (h != H_AX)
			emit_rr(&t->e, long_mode(t), OP_STORE, h, H_AX);
	}
	t->fl = FL_SAVED;
	return true;
}

static bool emit_jmp_indirect(struct trans *t)
{
	if (!target_load(t))
		return false;
	emit_jump_lookup(t);
	emit_page_set(t);
	emit_jmp_mem(&t->e, jump_place(t, offsetof(struct jump_entry, host)));
	t->done = true;
	return true;
}

static bool emit_call_indirect(struct trans *t)
{
	if (insn_now(t)->flags & I_MEM && !operand_encodable(t))
		return false;
	if (t->returns)
		call_begin(t);
	target_load(t);
	emit_jump_lookup(t);
	emit_rm(&t->e, true, OP_STORE, H_AX, HOT(hot.arg));
	emit_rm(&t->e, true, OP_LOAD, H_11, jump_place(t, offsetof(struct jump_entry, host)));
	emit_rm(&t->e, true, OP_STORE, H_11, HOT(hot.slot[0]));
	emit_push_return(t);
	if (t->returns)
		emit_stack_push(&t->e, H_AX);
	emit_rm(&t->e, true, OP_LOAD, H_AX, HOT(hot.arg));
	emit_page_set(t);
	if (t->returns) {
		emit_call_mem(&t->e, HOT(hot.slot[0]));
		emit_landing(t);
	} else {
		emit_jmp_mem(&t->e, HOT(hot.slot[0]));
	}
	t->done = true;
	return true;
}

/* ---- all of them ---- */

static bool stack_branch(unsigned int kind)
{
	return kind == FORM_CALL || kind == FORM_RET || kind == FORM_CALL_IND;
}

static bool direct_branch(unsigned int kind)
{
	return kind == FORM_JCC || kind == FORM_JMP || kind == FORM_CALL || kind == FORM_LOOP ||
		kind == FORM_JCXZ;
}

/* False: leave for the interpreter. */
bool emit_branch(struct trans *t)
{
	unsigned int kind = form_now(t)->kind;

	if (kind < FORM_JCC || !branch_wide(t))
		return false;
	if (stack_branch(kind) && !(t->mode->flat && t->mode->stack_wide))
		return false;
	if (direct_branch(kind) && target_far(branch_target(t)))
		return false;
	switch (kind) {
	case FORM_JCC: emit_jcc_form(t); return true;
	case FORM_JMP: goto_target(t, branch_target(t)); return true;
	case FORM_CALL: emit_call(t); return true;
	case FORM_RET: emit_ret(t); return true;
	case FORM_JMP_IND: return emit_jmp_indirect(t);
	case FORM_CALL_IND: return emit_call_indirect(t);
	default:
		/* A target that cannot be is found before RCX changes only if it is in the page. */
		if (insn_now(t)->asize == 2 || branch_target(t) >> 12)
			return false;
		emit_counted(t, kind == FORM_LOOP);
		return true;
	}
}

/* ---- the kick ---- */

/*
 * Forward jumps of so many bytes can go around 4 GiB before the cache is full. (In 64-bit mode the
 * hole of non-canonical addresses is in the way.)
 */
#define AROUND	0x8000

static bool may_loop(const struct trans *t, unsigned int k)
{
	unsigned int kind = t->form[k]->kind;

	if (direct_branch(kind))
		return (s64)t->insn[k].imm < 0 ||
			(!long_mode(t) && (s64)t->insn[k].imm >= AROUND);
	return kind == FORM_RET || kind == FORM_JMP_IND || kind == FORM_CALL_IND;
}

void poll_find(struct trans *t)
{
	t->poll_end = t->n;
	while (t->poll_end && !may_loop(t, t->poll_end - 1))
		t->poll_end--;
}

static bool setter_reg(const struct trans *t, u8 off)
{
	return !(off & 7) && host_of(t, off >> 3) != H_NONE;
}

/* Sets all flags, from registers only: the check may stand before it in place of the old flags. */
static bool flags_setter(const struct trans *t, unsigned int k)
{
	const struct insn *i = &t->insn[k];
	const struct opcode *row = opcode_row(i->row);
	u64 set = (row->f_write | row->f_undef) & RFLAGS_ARITH;

	return t->form[k]->kind == FORM_GENERIC && !(i->flags & I_MEM) && set == RFLAGS_ARITH &&
		!(row->f_read & RFLAGS_ARITH) && !(row->attr & ATTR_COUNT) && !(i->flags & I_VEX) &&
		setter_reg(t, i->reg) && setter_reg(t, i->rm);
}

/*
 * Are the flags at its beginning of no interest to the fragment? A look at the kick comes behind the
 * instruction that sets them (COLD_POLL_COPY).
 */
bool flags_dead(const struct trans *t)
{
	for (unsigned int k = 0; k < t->n; k++) {
		const struct insn *i = &t->insn[k];

		if (flags_setter(t, k))
			return true;
		if (t->form[k]->kind != FORM_MOV_IMM || i->flags & I_MEM || i->opsize < 4)
			return false;
	}
	return false;
}

void poll_emit(struct trans *t)
{
	bool copy;
	u32 site;

	if (t->polled || t->k >= t->poll_end)
		return;
	copy = t->fl == FL_HOST && flags_setter(t, t->k) && !may_loop(t, t->k);
	if (t->fl == FL_HOST && !copy && !may_loop(t, t->k))
		return;
	t->polled = true;
	if (!copy)
		flags_yield_to_ax(t);
	emit_alu_mem_imm(&t->e, false, ALU_CMP, HOT(kick), 0);
	site = emit_jcc(&t->e, CC_NZ, TO_LATER);
	cold_add(t, copy ? COLD_POLL_COPY : COLD_POLL, site);
}

/* ---- out of line ---- */

/* The interpreter's turn, the host's calls and returns in step with the guest's. */
static void cold_branch(struct trans *t, struct cold *c)
{
	const struct insn *i = &t->insn[c->insn];

	if (t->returns && t->form[c->insn]->kind == FORM_RET) {
		emit_rm(&t->e, long_mode(t), OP_LEA, H_15, at_base(H_15, i->opsize + (u16)i->imm));
		emit_jmp(&t->e, t->d->tramp.ret_slow);
	} else if (call_returns(t, c->insn)) {
		emit_stack_push(&t->e, H_11);
		emit_call_to(&t->e, t->d->tramp.go);
		emit_jmp(&t->e, ret_miss(t));
	} else {
		emit_jmp(&t->e, t->d->tramp.go);
	}
}

static void cold_slow(struct trans *t, struct cold *c)
{
	u32 rec;

	flags_found(t, c, true);
	homes_leave(t);
	rec = rec_to_r11(t, c->insn);

	if (t->insn[c->insn].flags & I_BRANCH || c->kind == COLD_EXEC) {
		cold_branch(t, c);
		return;
	}
	rec_at(t->d, rec)->back = t->end_of[c->insn];
	emit_jmp(&t->e, t->d->tramp.slow_back);
	if (!t->borrowed)
		return;
	rec_at(t->d, rec)->back = t->e.at;
	homes_enter(t);
	emit_jmp(&t->e, t->end_of[c->insn]);
}

static void cold_stack(struct trans *t, struct cold *c)
{
	bool wide = t->mode->code_bytes == 8;
	u32 miss;

	emit_rm(&t->e, wide, OP_LEA, H_AX, at_base(H_15, (s32)c->arg));
	emit_call_to(&t->e, t->d->tramp.stack[t->mode->idx]);
	miss = emit_jcc(&t->e, CC_NZ, TO_LATER);
	emit_jmp(&t->e, c->back);
	emit_patch(t->e.base, miss, t->e.at);
	cold_slow(t, c);
}

static void cold_room(struct trans *t, struct cold *c)
{
	emit_rm(&t->e, true, OP_LOAD, H_SP, HOT(hot.host_rsp));
	emit_jmp(&t->e, c->back);
}

static void cold_link(struct trans *t, struct cold *c)
{
	struct exit *x = &t->d->exit[c->arg];

	homes_leave(t);
	if (x->kind == EXIT_CELL) {
		emit_page_move(t, x->pages, x->fl);
		emit_cell_jump(t, c->arg);
		return;
	}
	x->site = t->borrowed ? emit_jmp(&t->e, t->e.at + JMP_BYTES) : c->site;
	emit_stub(t, c->arg);
}

static void cold_twin(struct trans *t, struct cold *c)
{
	u32 exit = exit_new(t, t->off[c->insn], FL_SAVED, t->off[c->insn]);

	t->d->exit[exit].twin = true;
	t->d->exit[exit].site = c->site;
	flags_found(t, c, true);
	homes_leave(t);
	if (c->fl == FL_LOST || t->borrowed)
		t->d->exit[exit].site = emit_jmp(&t->e, t->e.at + JMP_BYTES);
	emit_stub(t, exit);
}

static void cold_page(struct trans *t, struct cold *c)
{
	t->k = c->insn;
	t->fl = c->fl;
	t->setter = c->setter;
	group_page(t, &t->group[c->arg]);
	if (c->ax_flags)
		emit_flags_load(&t->e);
	t->e.ax_flags = false;
	emit_jmp(&t->e, c->back);
}

static void cold_poll(struct trans *t, struct cold *c)
{
	unsigned int off = t->off[c->insn];
	u8 fl = c->fl;

	if (c->kind == COLD_POLL_COPY) {
		t->k = c->insn;
		emit_generic(t);
		off = off_next(t);
		fl = FL_HOST;
	} else if (fl == FL_LOST) {
		flags_found(t, c, false);
		fl = FL_HOST;
	}
	homes_leave(t);
	leave(t, fl, off << LEAVE_BITS | LEAVE_POLL);
}

void cold_emit(struct trans *t)
{
	for (unsigned int k = 0; k < t->n_cold; k++) {
		struct cold *c = &t->cold[k];

		emit_patch(t->e.base, c->site, t->e.at);
		t->e.ax_flags = c->ax_flags;
		emit_flags_store(&t->e);
		switch (c->kind) {
		case COLD_STACK: cold_stack(t, c); break;
		case COLD_ROOM: cold_room(t, c); break;
		case COLD_LINK: cold_link(t, c); break;
		case COLD_PAGE: cold_page(t, c); break;
		case COLD_TWIN: cold_twin(t, c); break;
		case COLD_POLL: case COLD_POLL_COPY: cold_poll(t, c); break;
		default: cold_slow(t, c); break;
		}
	}
}
