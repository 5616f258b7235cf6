/* One translation in progress: private to translate.c, operand.c, integer.c, branch.c, vector.c. */
#ifndef QUMRA_HYPERVISOR_DBT_TRANSLATE_H
#define QUMRA_HYPERVISOR_DBT_TRANSLATE_H

#include "hypervisor/dbt/dbt.h"

#define MAX_INSNS	48	/* also bounds how late a kick is seen */
#define MAX_COLD	256
#define INSN_MAX	15u
#define CODE_ROOM	(MAX_INSNS * INSN_MAX + CODE_CHUNK + DECODE_ROOM)

/* Code out of the straight line, emitted behind it. */
enum cold_kind {
	COLD_SLOW,	/* call the interpreter for the instruction, go on at back */
	COLD_EXEC,	/* leave: the interpreter runs the instruction */
	COLD_LINK,	/* leave, or go to, another fragment: an exit */
	COLD_POLL,	/* leave: v->kick */
	COLD_POLL_COPY,	/* the same, after a copy of the instruction that sets the flags */
	COLD_PAGE,	/* check a group's page as a whole, go on at back */
	COLD_TWIN,	/* go on in the fragment's twin, which has no groups */
	COLD_ROOM,	/* forget the calls on the host's stack, go on at back */
	COLD_STACK,	/* find the stack's page, go on at back; else COLD_SLOW */
};
struct cold {
	u8 kind;
	u8 fl, setter;	/* as in struct trans */
	u8 insn;	/* which one */
	bool ax_flags;	/* as in struct emitter */
	u32 site;	/* rel32 that leads here */
	u32 back;
	u32 arg;	/* exit; displacement; group */
	s32 pages;	/* COLD_LINK: to the target's page */
};

/* Accesses that share a check: group.c. */
struct group {
	u8 base, index;	/* of the first: guest registers; or R_RIP; or R_ZERO */
	u8 scale;
	bool write;
	bool ready;	/* its slot is set in the code emitted so far */
	bool carried;	/* a loop's next turn uses the slot again (loop.c) ... */
	bool fixed;	/* ... for the same address */
	u8 step;	/* ... or where this register alone changes, in one direction; or R_ZERO */
	bool down;
	u8 folded;	/* the slot has this register's value added, and its scale; or R_ZERO */
	u8 lead;	/* the first instruction */
	u8 members;
	u32 value, index_value;	/* what their addresses are made of: numbers of group.c */
	s32 lo, hi;	/* displacements from these values */
};
#define NO_SETTER	0xff
#define MAX_GROUPS	15	/* hot.slot[0] is an indirect call's */

struct trans {
	struct emitter e;
	struct vcpu *v;
	struct dbt *d;
	const struct mode *mode;
	u32 frag;
	struct fragment *f;
	struct insn insn[MAX_INSNS];
	const struct form *form[MAX_INSNS];
	u16 off[MAX_INSNS];
	u8 code[CODE_ROOM];	/* the bytes of all, as decoded */
	u32 rec[MAX_INSNS];	/* made on demand */
	u32 end_of[MAX_INSNS];	/* host code of each ends here */
	unsigned int n, k;	/* instructions; the present one */
	u8 fl;			/* enum flags_place */
	u8 setter;		/* the instruction whose flags the present ones are, or NO_SETTER */
	bool x87_page;		/* hot.x87_page is this fragment's */
	u8 x87_seg;		/* 1 + hot.x87_seg, or 0 */
	bool polled;
	unsigned int poll_end;	/* instructions up to the last that may be a loop's end */
	bool room;		/* the host's stack has some for a call */
	u64 shadow;		/* instructions behind STI, by bit: no look at the kick there */
	bool done;		/* the fragment ended */
	bool helpers;		/* it calls the interpreter in its straight line */
	u32 body, line_end;	/* host code behind the entries; out of line */
	bool twin;		/* no groups */
	bool returns;		/* mode_returns() */
	struct cold cold[MAX_COLD];
	unsigned int n_cold;
	struct group group[MAX_GROUPS];
	unsigned int n_groups;
	u8 group_of[MAX_INSNS];	/* number + 1 */
	/* loop.c */
	bool loop;		/* it jumps back to its beginning, and is emitted twice: */
	bool again;		/* the second copy */
	u8 loop_first, loop_last;	/* the instructions that jump back */
	u8 loop_fl, loop_setter;	/* as fl and setter where the second copy begins ... */
	u32 loop_head;		/* ... which is here */
	u32 loop_site[8], n_loop_sites;	/* back edges of the first copy */
	/* home.c */
	u8 home[16];		/* of guest registers, as host_of() tells */
	u8 lender[HOME_BORROWERS];	/* or R_ZERO */
	bool borrowed;
	/* site.c: the last site's */
	u32 site_host, site_homes;
	u16 site_off;
	u8 site_setter;
	/* Of an access in a group: its registers, and what they hold above the group's values. */
	struct { u8 base, index, scale; } regs[MAX_INSNS];
	s32 delta[MAX_INSNS];
};

static inline const struct insn *insn_now(const struct trans *t) { return &t->insn[t->k]; }
static inline const u8 *insn_bytes(const struct trans *t, unsigned int k)
{
	return t->code + (t->off[k] - t->off[0]);
}
static inline unsigned int mem_size(const struct trans *t, unsigned int k)
{
	return operand_mem_bytes(t->form[k]->mem_kind, &t->insn[k]);
}
static inline bool mem_written(const struct trans *t, unsigned int k)
{
	return t->form[k]->mem_access & OPC_MEM_WRITE;
}
static inline const struct form *form_now(const struct trans *t) { return t->form[t->k]; }
static inline unsigned int off_next(const struct trans *t)
{
	return t->off[t->k] + t->insn[t->k].len;
}
/* General operations are 64 bits wide by nature in 64-bit mode only. */
static inline bool long_mode(const struct trans *t) { return t->mode->code_bytes == 8; }

/* ---- translate.c ---- */
struct cold *cold_add(struct trans *t, enum cold_kind kind, u32 site);
u32 rec_of(struct trans *t, unsigned int k);
u32 rec_to_r11(struct trans *t, unsigned int k);
void helper_call(struct trans *t);	/* the interpreter does this instruction, here */
void leave_exec(struct trans *t);	/* ... and translated code ends */

/* ---- site.c ---- */
void sites_begin(struct trans *t);
void sites_end(struct trans *t);
/* The host instruction that comes next may fault for this one of the guest's. */
void site_now(struct trans *t);
void site_access(struct trans *t);	/* the one just emitted, an access of guest memory */
void site_string(struct trans *t, bool movs);	/* the next one, a STOS or MOVS */

/* ---- dump.c ---- */
void fragment_dump(const struct trans *t);	/* to os_dump() */

/* ---- flags.c ---- */
void flags_save(struct trans *t);	/* a copy in hot.flags: the host's may be clobbered then */
void flags_need(struct trans *t);	/* in the host's RFLAGS; AX is lost */
void flags_written(struct trans *t);	/* the instruction has just set all of them */
/* The host's may be clobbered, by a check whose code out of line calls flags_found(). */
void flags_yield(struct trans *t);
void flags_yield_to_ax(struct trans *t);	/* ... which leaves AX alone, too */
/* Out of line: the flags are lost there, and are wanted. In the host; with "save" in hot.flags. */
void flags_found(struct trans *t, const struct cold *c, bool save);
u8 loop_setter(struct trans *t);

u32 setter_inputs(const struct trans *t, u8 setter);	/* registers that its recipe takes */

/* ---- home.c ---- */
void homes_begin(struct trans *t);
u8 host_of(const struct trans *t, unsigned int guest);	/* H_NONE: in memory, ... */
struct place home_place(const struct trans *t, unsigned int guest);	/* ... here */
/* For a loop: who borrows; not from the registers of keep, by bit. */
void homes_choose(struct trans *t, u32 keep);
void homes_enter(struct trans *t);
void homes_leave(struct trans *t);	/* both emit nothing where nobody borrows, and spare flags */
u16 homes_word(const struct trans *t);	/* for struct site */

/* ---- operand.c ---- */
/*
 * Checks an access to the instruction's memory operand and says where it is. Saves the flags where
 * it clobbers them. AX and R11 hold parts of the address; with need_ax only R11 does.
 */
bool operand_check(struct trans *t, unsigned int size, bool write, bool need_ax, struct place *m);
/* The same for [RSP + disp]. */
void stack_check(struct trans *t, s32 disp, unsigned int size, struct place *m);
/* For [base], base being a guest register in a host register; no stack window. */
void base_check(struct trans *t, unsigned int guest, s32 disp, unsigned int size, bool write,
	struct place *m);
/* [first, first + size) by one TLB entry; R11: the addend. What happens else: kind. */
void check_range(struct trans *t, struct place first, unsigned int size, bool write,
	enum cold_kind kind);
/*
 * The same for an address in registers: AX its last byte's, R11 what has the bits of its page.
 */
void address_check(struct trans *t, bool write);
bool operand_encodable(const struct trans *t);
/* The address itself into a host register: LEA. */
void operand_address(struct trans *t, bool wide, u8 to);
/* A guest register's full value in a host register: its own, or a copy in scratch. */
u8 reg_use(struct trans *t, unsigned int guest, u8 scratch);

/* ---- group.c ---- */
void groups_find(struct trans *t);
void groups_forget(struct trans *t);	/* behind a call of the interpreter */
/* The place of the present instruction's access if it belongs to a group. */
bool group_access(struct trans *t, s32 disp, bool need_ax, struct place *m);

/* COLD_PAGE: group g's slot for the page that the present instruction accesses. */
void group_page(struct trans *t, struct group *g);
/* Its first byte, from the present access's registers; scratch may take part. */
struct place group_first(struct trans *t, const struct group *g, u8 scratch);
/* Where a loop keeps the page, or the register's last value in it. */
struct place group_slot_page(const struct trans *t, const struct group *g);
/* General registers that an instruction may change, by bit. */
u32 insn_changes(const struct trans *t, unsigned int k);

/* ---- loop.c ---- */
bool loop_plain(unsigned int kind);	/* changes nothing but registers, flags and memory */
void loop_split(struct trans *t);	/* before loop_find() */
void loop_find(struct trans *t);
/* Has the present access to look where it is, in a later turn? */
bool loop_stays(const struct trans *t, const struct group *g);
/* Behind a whole check for the group, AX: the page. How far its register may go. AX is lost. */
void loop_limit(struct trans *t, const struct group *g);
u32 loop_look(struct trans *t, const struct group *g);	/* to the jump to COLD_PAGE */
bool loop_again(struct trans *t);
bool loop_target(const struct trans *t, s64 to);	/* is a branch there a back edge? */
void loop_flags(struct trans *t);
void loop_jump(struct trans *t, u32 site);

/* ---- integer.c ---- */
/* Does it read flags, or leave some of them as they are? */
bool reads_flags(const struct insn *i, const struct opcode *row, bool count_in_cl);
bool writes_flags(const struct opcode *row);

/* ---- integer.c, vector.c: false: not this form, take helper_call() ---- */
bool emit_generic(struct trans *t);
bool emit_shift_cl(struct trans *t);
bool emit_vector(struct trans *t);
bool emit_lea(struct trans *t);
bool emit_push(struct trans *t);
bool emit_push_imm(struct trans *t);
bool emit_pop(struct trans *t);
bool emit_leave(struct trans *t);
bool emit_muldiv(struct trans *t);
bool emit_cmpxchg(struct trans *t);
bool emit_cbw(struct trans *t);
bool emit_cwd(struct trans *t);
bool emit_sahf(struct trans *t);
bool emit_lahf(struct trans *t);
bool emit_mov_imm_form(struct trans *t);

/* ---- x87.c ---- */
bool emit_x87(struct trans *t);
bool x87_stores_ax(const struct insn *i);
void emit_x87_notes(struct trans *t);	/* behind it, and behind its slow path */

/* ---- system.c: FORM_SYSTEM. False: neither, take helper_call() or leave_exec() ---- */
bool emit_system(struct trans *t);

/* RSP += by, with the stack's width. */
void stack_move(struct trans *t, s32 by);

/* ---- branch.c ---- */
bool emit_branch(struct trans *t);
void branch_own_cell(struct trans *t);
void branch_fallthrough(struct trans *t);	/* the fragment ends behind the last instruction */
void branch_next(struct trans *t);		/* ... behind the present one */
void cold_emit(struct trans *t);
/* The kick is looked at once in each fragment that may be part of a loop. */
void poll_emit(struct trans *t);
void poll_find(struct trans *t);
bool flags_dead(const struct trans *t);
void room_emit(struct trans *t);	/* room for a call on the host's stack, before it */

#endif
