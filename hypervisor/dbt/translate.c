/*
 * From guest bytes to a fragment: which instructions belong to it, their forms, and the code around
 * them. dbt/dbt.h says what translated code looks like.
 *
 * A fragment goes on past conditional branches and ends at any other transfer of control, at an
 * instruction that may change the mode or let an interrupt in, at the page's end, or when it is
 * long enough.
 */
#include "hypervisor/dbt/translate.h"

#include "hypervisor/insn/code.h"
#include "hypervisor/insn/exec.h"

/* ---- records ---- */

struct cold *cold_add(struct trans *t, enum cold_kind kind, u32 site)
{
	struct cold *c = &t->cold[t->n_cold++];

	*c = (struct cold){ .kind = kind, .fl = t->fl, .setter = t->setter,
		.insn = (u8)t->k, .ax_flags = t->e.ax_flags, .site = site };
	return c;
}

u32 rec_of(struct trans *t, unsigned int k)
{
	struct rec *r;

	if (t->rec[k])
		return t->rec[k];
	t->rec[k] = cache_rec(t->d, t->insn[k].len);
	r = rec_at(t->d, t->rec[k]);
	r->back = 0;
	r->off = t->off[k];
	r->mode = (u16)(t->mode - t->d->mode);
	r->shadow = t->shadow >> k & 1;
	r->len = t->insn[k].len;
	memcpy(r->code, insn_bytes(t, k), r->len);
	return t->rec[k];
}

u32 rec_to_r11(struct trans *t, unsigned int k)
{
	u32 rec = rec_of(t, k);

	PUT(&t->e, 0x41, 0xbb);			/* mov r11d, rec */
	put32(&t->e, rec);
	return rec;
}

/* ---- instructions without a translation ---- */

void helper_call(struct trans *t)
{
	flags_save(t);
	homes_leave(t);
	rec_to_r11(t, t->k);
	emit_call_to(&t->e, t->d->tramp.slow);
	homes_enter(t);
	t->fl = FL_BOTH;
	t->setter = NO_SETTER;
	t->helpers = true;
	groups_forget(t);
}

void leave_exec(struct trans *t)
{
	flags_save(t);
	homes_leave(t);
	rec_to_r11(t, t->k);
	emit_jmp(&t->e, t->d->tramp.go);
	t->done = true;
}

/* ---- what belongs to it ---- */

static bool insn_allowed(const struct vcpu *v, const struct insn *i)
{
	return opcode_in(v->guest_features, opcode_row(i->row), i);
}

static bool host_has(const struct dbt *d, enum cpu_feature f)
{
	return d->host_features[f >> 6] & BIT(f & 63);
}

/*
 * Not to be copied: the guest has instructions that the host lacks (the interpreter does BMI and
 * others by itself), and TZCNT and LZCNT are BSF and BSR there, or with a guest that has them not.
 */
static bool host_differs(const struct vcpu *v, const struct insn *i, const struct form *f)
{
	const struct opcode *row = opcode_row(i->row);
	const struct dbt *d = dbt_of(v);

	if (row->set == &x_tzcnt_GE)
		return !vcpu_has(v, F_BMI1) || !host_has(d, F_BMI1);
	if (row->set == &x_lzcnt_GE)
		return !vcpu_has(v, F_ABM) || !host_has(d, F_ABM);
	return f->kind != FORM_SYSTEM && !opcode_in(d->host_features, row, i);
}

static const struct form form_helper = { .kind = FORM_HELPER };

/* Its handler looks whether it locks the bus (mem_rmw_begin()). */
static bool may_lock_bus(const struct vcpu *v, const struct insn *i)
{
	if (likely(!READ_ONCE(v->vm->bus_lock_exits)) || !(i->flags & I_MEM))
		return false;
	return i->flags & I_LOCK || opcode_row(i->row)->set == &x_xchg_EG;
}

/* Where guest code comes from: bytes [first, end) of the page are in t->code already. */
struct source {
	const struct memslot *slot;
	u64 gpa;
	const u8 *host;
	unsigned int first, end;
};

/*
 * All that the decoder may look at at off, whatever the length turns out to be, in whole chunks:
 * watched before it is read, and read once.
 */
static void source_read(struct trans *t, struct source *s, unsigned int off)
{
	unsigned int need = MIN(off + INSN_MAX, 0x1000u), end;

	if (likely(need <= s->end))
		return;
	end = ALIGN_UP(need, CODE_CHUNK);
	code_cover(t->v, s->slot, s->gpa, s->end, end - s->end);
	memcpy(t->code + (s->end - s->first), s->host + s->end, end - s->end);
	s->end = end;
}

/* Decodes the next instruction. False: it is not part of the fragment. */
static bool insn_collect(struct trans *t, const u8 *code, unsigned int avail, unsigned int off)
{
	struct insn *i = &t->insn[t->n];
	const struct form *f;

	if (insn_decode(code, avail, t->mode->code_bytes, i) != DECODE_OK)
		return false;
	f = form_of(t->d, i);
	if (unlikely(f->conditional)) {
		if (!insn_allowed(t->v, i))
			return false;
		if (host_differs(t->v, i, f))
			f = &form_helper;
	}
	if (unlikely(may_lock_bus(t->v, i)))
		f = &form_helper;
	t->off[t->n] = (u16)off;
	t->form[t->n++] = f;
	t->v->stat.decodes++;
	return true;
}

static bool ends_fragment(const struct insn *i, const struct form *f)
{
	return i->flags & (I_BRANCH | I_END) && f->kind != FORM_JCC && f->kind != FORM_LOOP &&
		f->kind != FORM_JCXZ && f->kind != FORM_SYSTEM;
}

static void collect(struct trans *t, struct source *s)
{
	unsigned int off = s->first;

	do {
		unsigned int room = 0x1000 - off;

		source_read(t, s, off);
		/* t->code goes on behind the page's end. */
		if (!insn_collect(t, t->code + (off - s->first),
			room < INSN_MAX ? room : DECODE_ROOM, off))
			return;
		off += t->insn[t->n - 1].len;
	} while (!ends_fragment(&t->insn[t->n - 1], t->form[t->n - 1]) && t->n < MAX_INSNS &&
		off < 0x1000);
}

/* ---- one instruction ---- */

static bool form_emit(struct trans *t)
{
	switch (form_now(t)->kind) {
	case FORM_GENERIC: return emit_generic(t);
	case FORM_SHIFT_CL: return emit_shift_cl(t);
	case FORM_VECTOR: return emit_vector(t);
	case FORM_X87: return emit_x87(t);
	case FORM_SAHF: return emit_sahf(t);
	case FORM_LAHF: return emit_lahf(t);
	case FORM_NOP: return true;
	case FORM_LEA: return emit_lea(t);
	case FORM_PUSH: return emit_push(t);
	case FORM_POP: return emit_pop(t);
	case FORM_PUSH_IMM: return emit_push_imm(t);
	case FORM_LEAVE: return emit_leave(t);
	case FORM_MULDIV: return emit_muldiv(t);
	case FORM_CMPXCHG: return emit_cmpxchg(t);
	case FORM_CBW: return emit_cbw(t);
	case FORM_CWD: return emit_cwd(t);
	case FORM_MOV_IMM: return emit_mov_imm_form(t);
	case FORM_SYSTEM: return emit_system(t);
	default: return false;
	}
}

/* Does R11 keep its value across this one, as far as the emitter sees what changes it? */
static bool keeps_r11(const struct trans *t, unsigned int first_cold)
{
	if (!loop_plain(form_now(t)->kind))
		return false;
	for (unsigned int k = first_cold; k < t->n_cold; k++)
		if (t->cold[k].kind == COLD_SLOW || t->cold[k].kind == COLD_STACK)
			return false;
	return true;
}

/* Are all its uses of AX the emitter's to see? */
static bool spares_ax_flags(unsigned int kind)
{
	return kind == FORM_GENERIC || kind == FORM_VECTOR || kind == FORM_SHIFT_CL ||
		kind == FORM_LEA || kind == FORM_MOV_IMM || kind == FORM_NOP || kind == FORM_JCC;
}

static void insn_emit(struct trans *t)
{
	const struct insn *i = insn_now(t);
	unsigned int first_cold = t->n_cold;

	if (!spares_ax_flags(form_now(t)->kind))
		emit_flags_store(&t->e);
	if (!(t->shadow >> t->k & 1))
		poll_emit(t);
	room_emit(t);
	if (i->flags & (I_BRANCH | I_END)) {
		if (!(i->flags & I_BRANCH ? emit_branch(t) : form_emit(t)))
			leave_exec(t);
	} else if (!form_emit(t)) {
		helper_call(t);
	}
	if (!keeps_r11(t, first_cold))
		t->e.r11 = 0;
	t->end_of[t->k] = t->e.at;
	if (form_now(t)->kind == FORM_X87)
		emit_x87_notes(t);
}

/* ---- entries ---- */

/* Does the first thing that concerns flags save them? */
static bool begins_saved(const struct trans *t)
{
	for (unsigned int k = 0; k < t->n; k++) {
		const struct insn *i = &t->insn[k];
		const struct opcode *row = opcode_row(i->row);
		unsigned int kind = t->form[k]->kind;

		if (kind == FORM_HELPER || kind == FORM_PUSH || kind == FORM_POP ||
			kind == FORM_PUSH_IMM || kind == FORM_CALL || kind == FORM_RET ||
			kind == FORM_LEAVE || kind == FORM_JMP_IND || kind == FORM_CALL_IND ||
			kind == FORM_SYSTEM || kind == FORM_TERMINAL)
			return true;
		if (i->flags & I_MEM && kind != FORM_LEA && kind != FORM_NOP)
			return true;
		if ((row->f_read | row->f_write | row->f_undef) & RFLAGS_ARITH)
			return false;
	}
	return false;
}

static void entries_emit(struct trans *t)
{
	t->f->start = t->e.at;
	t->f->body_saved = begins_saved(t);
	if (t->f->body_saved)
		emit_flags_save(&t->e);
	else if (flags_dead(t))
		PUT(&t->e, 0x0f, 0x1f, 0x44, 0, 0);	/* nop: room for entry_kill() */
	else
		emit_flags_restore(&t->e);
	t->f->entry2 = (u8)(t->e.at - t->f->start);
	t->fl = t->f->body_saved ? FL_SAVED : FL_HOST;
	t->setter = NO_SETTER;
}

/* ---- the whole ---- */

static void line_emit(struct trans *t)
{
	t->body = t->e.at;
	t->n_cold = 0;
	t->e.r11 = 0;
	t->e.ax_flags = false;
	t->polled = t->room = t->done = t->x87_page = false;
	t->x87_seg = 0;
	memset(t->rec, 0, sizeof(t->rec));
	for (t->k = 0; t->k < t->n && !t->done; t->k++)
		insn_emit(t);
	if (!t->done)
		branch_fallthrough(t);
	t->line_end = t->e.at;
	cold_emit(t);
	if (unlikely(os_dump_wanted()))
		fragment_dump(t);
}

/* What is known before anything is written. */
static void body_find(struct trans *t)
{
	loop_find(t);
	poll_find(t);
	t->loop_fl = FL_HOST;
	t->loop_setter = t->loop ? loop_setter(t) : NO_SETTER;
	if (t->loop_setter != NO_SETTER)
		t->loop_fl = FL_LOST;
	if (t->loop)
		homes_choose(t, setter_inputs(t, t->loop_setter));
}

static void body_emit(struct trans *t)
{
	homes_enter(t);
	line_emit(t);
	if (t->loop && loop_again(t))
		line_emit(t);
	emit_align(&t->e, 16);
}

static void fragment_begin(struct trans *t, u32 page, unsigned int off)
{
	struct dbt *d = t->d;
	struct slab *s = &d->slab[d->cur];

	t->frag = cache_frag(d);
	t->f = &d->frag[t->frag];
	*t->f = (struct fragment){ .page = (u16)page, .off = (u16)off,
		.mode = (u8)(d->cur_mode | (t->twin ? TWIN : 0)) };
	t->e = (struct emitter){ .base = d->rw, .at = s->code.at };
	sites_begin(t);
}

static void fragment_end(struct trans *t)
{
	struct dbt *d = t->d;

	if (t->e.at > d->slab[d->cur].code.end)
		os_panic("a fragment is too long");
	d->slab[d->cur].code.at = t->e.at;
	t->f->size = (u16)(t->e.at - t->f->start);
	sites_end(t);
	t->v->stat.code_bytes += t->f->size;
	fragment_publish(d, t->frag);
	t->v->stat.fragments++;
	t->v->stat.fragment_insns += t->n;
}

static void trans_begin(struct trans *t, struct vcpu *v)
{
	t->v = v;
	t->d = dbt_of(v);
	t->mode = &t->d->mode[t->d->cur_mode];
	t->returns = mode_returns(t->d, t->mode);
	t->n = t->k = 0;
	t->helpers = t->twin = false;
	homes_begin(t);
	t->shadow = 0;
}

u32 translate(struct vcpu *v, u32 page, unsigned int off, const u8 *host,
	const struct memslot *slot, bool twin)
{
	struct source s = { .slot = slot, .host = host, .first = off, .end = off };
	struct trans t;

	trans_begin(&t, v);
	t.twin = twin;
	s.gpa = t.d->page[page].gpa;
	collect(&t, &s);
	if (!t.n)
		return NONE;
	loop_split(&t);
	fragment_begin(&t, page, off);
	body_find(&t);
	entries_emit(&t);
	body_emit(&t);
	fragment_end(&t);
	return t.frag;
}

/* All entries lead to the cell, with flags saved. */
static void crossing_entries_emit(struct trans *t)
{
	t->f->start = t->e.at;
	t->f->body_saved = true;
	emit_flags_save(&t->e);
	t->f->entry2 = (u8)(t->e.at - t->f->start);
	branch_own_cell(t);
	t->d->cross[t->f->cross].body = t->e.at;
	t->fl = FL_SAVED;
	t->setter = NO_SETTER;
}

u32 translate_crossing(struct vcpu *v, u32 page, u32 page2, unsigned int off, const u8 *code)
{
	struct trans t;

	trans_begin(&t, v);
	memcpy(t.code, code, INSN_MAX);
	if (!insn_collect(&t, t.code, INSN_MAX, off))
		return NONE;
	fragment_begin(&t, page, off);
	t.f->cross = cache_cross(t.d);
	t.d->cross[t.f->cross].page2 = page2;
	body_find(&t);
	crossing_entries_emit(&t);
	body_emit(&t);
	fragment_end(&t);
	if (!t.d->exit[t.d->cross[t.f->cross].own].site)	/* no cell was free */
		return NONE;
	return t.frag;
}
