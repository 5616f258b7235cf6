/*
 * The translator: guest code to host code, fragment by fragment. docs/architecture.md has the whole
 * picture; this header the structures that its files share.
 *
 * While translated code runs
 *  - guest registers are in host registers (host_of[] in translate.c): the same ones, but RAX in
 *    R10, RSP in R15, and R10, R11, R15 in memory. RAX and R11 belong to the translator, RSP is the
 *    host's stack.
 *  - GS base is v->space: gs:[offset] reaches the hot part of struct vcpu and the space's tables.
 *  - x87, SSE and AVX state is the guest's (v->fpu_live).
 *  - arithmetic flags are in the host's RFLAGS (FL_HOST) or in v->hot.flags (FL_SAVED); the other
 *    bits of RFLAGS are in v->rflags only.
 *
 * A fragment is a run of guest instructions within one page. Its key is the page's guest physical
 * address, the offset in the page and the mode; linear addresses do not appear in its code (RIP is
 * v->hot.page plus an offset), so it serves all mappings of the page. It has two entries: with
 * flags in the host, and with flags saved.
 *
 * A guest's call is a host call, with the guest's return address beneath the host's on the host's
 * stack; its return is a host return, which the host's CPU predicts. It comes to the *landing* behind
 * the call, which compares the address that the guest has loaded with the one that it pushed: equal,
 * and it goes on behind the call; else through the jump table, as other indirect branches. So landings
 * rest on the fragment, the mode, the space and the mapping in which the call was made: whatever
 * changes one of these sets hot.ret_void, and nothing returns to translated code before the stack is
 * emptied then. Its last entry is hot.ret_base, the landing of calls that nobody has made.
 *
 * An access that is not a TLB hit, and every instruction without a translation, calls the
 * interpreter's handler for that one instruction with all state in v (slow.c), and goes on behind.
 * So faults and exits unwind from there as in the interpreter. Such an instruction has a record with
 * its bytes, and is decoded again when it comes to that.
 *
 * Everything here belongs to the vCPU's thread.
 */
#ifndef QUMRA_HYPERVISOR_DBT_DBT_H
#define QUMRA_HYPERVISOR_DBT_DBT_H

#include "hypervisor/core/vm.h"
#include "hypervisor/dbt/emit.h"
#include "hypervisor/insn/insn.h"
#include "hypervisor/insn/opcode.h"

/* Where the arithmetic flags are. */
enum flags_place {
	FL_HOST = 1,	/* in the host's RFLAGS */
	FL_SAVED = 2,	/* in hot.flags */
	FL_BOTH = 3,
	FL_LOST = 4,	/* to be computed again: flags.c. Not between fragments. */
};

#define NONE		0	/* no index: entry 0 of each pool is not used */
#define NR_SLABS	8
#define NR_MODES	NR_JUMP_MODES
#define TWIN		NR_MODES	/* fragment.mode: without groups (group.c) */

/* What translated code depends on beside its bytes. */
struct mode {
	u32 key;		/* mode_key(), or 0 in a free entry */
	u8 code_bytes;		/* 4, 8 */
	u8 idx;			/* enum mmu_index */
	u8 fp_trap;
	bool flat;		/* ES, SS, DS: base 0 and no limit (always in 64-bit mode) */
	bool stack_wide;	/* the stack pointer is as wide as code_bytes */
};

/*
 * An instruction that may leave translated code for C: its bytes as they were translated, decoded
 * again when it does. Memory may hold others by then. In units of REC_UNIT: rec_at().
 */
struct rec {
	u32 back;		/* where a slow access goes on */
	u16 off : 12;		/* in the page */
	u16 mode : 3;		/* of its fragment */
	u16 shadow : 1;		/* behind an STI that set IF */
	u8 len;
	u8 code[];
};
#define REC_UNIT	4u
_Static_assert(NR_MODES <= 8, "rec.mode");
/* Records whose instruction is at hand decoded. */
#define DECODED		1024u
struct decoded {
	u32 rec;
	struct insn insn;
};

enum fragment_state { FRAG_FREE, FRAG_LIVE, FRAG_DEAD };

struct fragment {
	u32 hash_next, page_next;	/* fragments */
	u32 incoming;		/* exits that jump here */
	u32 exits;		/* its own: the first */
	u32 start;		/* of its code, which is its first entry */
	u32 n_exits : 8;
	u32 cross : 24;		/* struct cross, or NONE */
	u16 page;
	u16 off;
	u16 size;		/* of its code */
	u8 entry2;		/* from start to the second entry */
	u8 mode : 4;
	u8 state : 2;
	u8 body_saved : 1;	/* its code begins with flags saved: the first entry saves them */
};
_Static_assert(sizeof(struct fragment) == 32, "a lookup costs one cache line for each");

/* The only instruction of its fragment lies in two pages. */
struct cross {
	u32 page2;		/* of the rest of it */
	u32 next;		/* fragment that ends in page2 as well */
	u32 own;		/* the exit whose cell leads to the code proper ... */
	u32 body;		/* ... which is here, with flags saved */
};

enum exit_kind { EXIT_DIRECT, EXIT_CELL };

/* A direct branch out of a fragment. */
struct exit {
	u32 target;		/* fragment linked to, or NONE (EXIT_DIRECT) */
	u32 next_in;		/* in the target's list */
	u32 site;		/* of the rel32; EXIT_CELL: the cell's number */
	u32 stub;		/* where it goes while not linked */
	s32 pages : 20;		/* from the branch's page to the target's */
	u32 off : 12;		/* of the target in its page */
	u32 from : 12;		/* of the branch */
	u32 kind : 1;
	u32 fl : 2;		/* enum flags_place at the branch */
	u32 twin : 1;		/* to the twin of what is at the target */
	u32 dead : 1;		/* its fragment is not live any more */
	u32 page : 15;		/* fpage that the branch lies in */
};
_Static_assert(sizeof(struct exit) == 24, "there are many");

/* Host code that may fault: which guest instruction it is and where the state before it is. site.c */
struct site {
	u32 homes;		/* which registers are elsewhere: homes_word() */
	u16 off;		/* in the page */
	bool shadow;		/* behind an STI that set IF */
	bool stos, movs;	/* RDI has the addend added, and RSI hot.slot[0] */
	/* Flags are in hot.flags; or in RAX; or to be had again; or in the host's RFLAGS. */
	bool saved, ax;
	const u8 *setter;	/* code of the instruction that set those to be had again, or NULL */
};

/* A guest page with fragments. */
struct fpage {
	u64 gpa;
	struct code_page *code;
	u32 gen;		/* of the page when they were made */
	u32 frags;
	u32 next;		/* in its hash bucket */
	u32 crossing;		/* fragments whose instruction ends in this page */
	u32 sweep;		/* the last eviction that went through its lists */
	/* where it runs in each space: linear page, valid in that epoch */
	struct { u64 la, epoch; } where[NR_SPACES];	/* la: bit 0: a global page */
};

struct exec_entry {
	u64 tag;		/* linear page | 1 for user mode */
	u64 epoch;		/* of local or global pages, as the page is */
	u32 page;		/* fpage */
	bool global;
};
#define EXEC_ENTRIES	512
#define USED_MAX	32768
#define USED_GLOBAL	BIT(31)
struct dspace {
	u64 epoch[2];		/* change when linear addresses lead elsewhere; [1]: global pages */
	bool ready;		/* its cells are written */
	bool overflow;		/* more used than the lists hold */
	bool entered;		/* something is known, since all was dropped */
	u32 n_cells, n_jumps;
	/* in use: numbers, mode << JUMP_BITS | index; with USED_GLOBAL where global pages are meant */
	u32 cells[USED_MAX], jumps[USED_MAX];
	u64 listed[2][(NR_JUMP_MODES << JUMP_BITS) / 64];	/* in jumps[], local and global */
	u64 filter[2][64];	/* pages entered: bit by linear page modulo 4096; [1]: global ones */
	u32 halves;		/* of the address space where global pages were: bits by la >> 63 */
	struct exec_entry exec[EXEC_ENTRIES];
};

/* A piece of each pool, emptied as a whole, the oldest first. */
struct pool_part {
	u32 start, end, at;
};
struct slab {
	struct pool_part code, frags, crosses, exits, recs, sites;
};

/* How a row is translated; made on first use. */
struct form {
	u8 kind;		/* enum form_kind; 0: not looked at yet */
	u8 map, pfx, op;	/* as in struct hop */
	s8 ext, rm;		/* fixed ModRM fields or -1 */
	u8 fp;			/* FP_* it needs */
	u8 acc;			/* had its operand in the opcode: ModRM form instead */
	u8 imm;			/* bytes of immediate; IMM_Z, IMM_V: by operand size */
	u8 vex;			/* 2: EVEX */
	u8 mem_kind, mem_access;	/* opcode_mem_kind(), opcode_mem_access() */
	bool conditional;	/* a CPUID feature, the guest's or the host's, says more */
};

/* Offsets of code that all fragments share. */
struct trampolines {
	u32 enter, exit_host, exit_saved, slow, slow_back, go, dead_host, dead_saved, fault;
	u32 go_ret, ret_slow, flags_save;
	/* by mode: a landing that found another address; hot.ret_base */
	u32 ret_miss[NR_MODES], ret_base[NR_MODES];
	u32 stack[NR_TLB_INDEXES];
	u32 end;
};

#define HASH_SIZE	(1u << 18)
#define PAGE_HASH	4096
#define MAX_PAGES	8192
_Static_assert(MAX_PAGES <= 1 << 15, "fragment.page, exit.page");

struct dbt {
	u8 *rw;			/* the code area as data */
	u64 rx;			/* the same, to execute */
	u32 size;
	struct trampolines tramp;
	struct slab slab[NR_SLABS];
	u32 cur;
	u32 prepared;		/* end of the code area's part that can be written without a fault */
	struct fragment *frag;
	struct cross *cross;
	struct exit *exit;
	u8 *rec;
	u8 *site;		/* site.c; where those of each fragment begin: */
	u32 *sites_of;
	struct fpage *page;
	size_t frag_bytes, cross_bytes, exit_bytes, rec_bytes, site_bytes, sites_of_bytes,
		page_bytes;
	u32 hash[HASH_SIZE];
	u32 page_hash[PAGE_HASH];
	u32 n_pages, page_free;
	struct mode mode[NR_MODES];
	u32 cur_mode;
	u32 mode_key;		/* of cur_mode */
	u32 ret_mode;		/* whose calls are on the host's stack */
	bool kernel_returns;	/* returns of the guest's kernel are the host's, too */
	u32 n_cells, cell_free;	/* free ones are linked through cell_stub[] */
	u64 cell_stub[NR_CELLS];
	struct space *gs;	/* what GS base is set to */
	u64 host_gs;
	bool stale;		/* fragments went dead during a slow call */
	bool over;		/* UNWIND_RESTART comes from behind an instruction, not from inside */
	u32 calls;		/* of dbt_slow() */
	u32 sweeps;		/* evictions of a slab */
	u32 era;		/* changes when numbers of fragments and exits do */
	struct dspace space[NR_SPACES];
	struct form *form;	/* by row */
	size_t form_bytes;
	u64 host_features[4];	/* cpuid_host_features() */
	struct decoded decoded[DECODED];
};

static inline struct dbt *dbt_of(const struct vcpu *v)
{
	return v->engine_state;
}
static inline u64 code_rx(const struct dbt *d, u32 off)
{
	return d->rx + off;
}
static inline struct rec *rec_at(const struct dbt *d, u32 n)
{
	return (struct rec *)(d->rec + (size_t)n * REC_UNIT);
}
/* Are its calls and returns the host's? docs/threat-model.md, transient execution. */
static inline bool mode_returns(const struct dbt *d, const struct mode *m)
{
	return m->idx == MMU_USER || d->kernel_returns;
}
static inline unsigned int space_index(const struct vcpu *v, const struct space *s)
{
	return (unsigned int)(((u8 *)s - (u8 *)v->spaces) / SPACE_SIZE);
}

/* ---- how translated code was left: hot.exit, kind in the low bits, an index above ---- */
enum leave {
	LEAVE_LINK,	/* exit: not linked yet */
	LEAVE_DONE,	/* dbt_go() found no fragment; v is up to date */
	LEAVE_POLL,	/* off in the page: v->kick is set */
	LEAVE_DEAD,	/* host offset behind the call that replaced an entry */
	LEAVE_FAULT,	/* the host CPU raised hot.fault_vector at hot.fault_rip */
};
#define LEAVE_BITS	3

/* ---- cache.c ---- */
int cache_create(struct vcpu *v, u32 size);
void cache_destroy(struct vcpu *v);
void cache_flush(struct vcpu *v);			/* everything but the modes */
/* Room for one more fragment; may evict the oldest ones. */
void cache_reserve(struct vcpu *v);
/*
 * Bytes of code, at most: a loop of 48 instructions, twice, with 190 in line (PUSH of an operand with a
 * segment and two registers in memory) and 80 out of line (two misses, flags had again) for each.
 */
#define FRAGMENT_ROOM	(32u << 10)
u32 cache_frag(struct dbt *d);
u32 cache_cross(struct dbt *d);
u32 cache_exit(struct dbt *d);
u32 cache_rec(struct dbt *d, unsigned int len);	/* of an instruction so long */
u32 cache_cell(struct vcpu *v);	/* a cell for a new exit; NONE: none is free */
void cache_cell_set(struct vcpu *v, u32 cell, u64 stub);
u32 fragment_find(struct dbt *d, u32 page, unsigned int off, unsigned int mode);
/* The next one with the same key: another page2. */
u32 fragment_find_next(struct dbt *d, u32 frag);
void fragment_publish(struct dbt *d, u32 frag);
void fragment_link(struct dbt *d, u32 exit, u32 frag);
/* Entries: with flags in the host, with flags saved. */
static inline u32 fragment_host(const struct fragment *f)
{
	return f->start + (f->body_saved ? 0 : f->entry2);
}
static inline u32 fragment_saved(const struct fragment *f)
{
	return f->start + (f->body_saved ? f->entry2 : 0);
}
/* The entry that suits the flags at a branch. */
static inline u32 fragment_entry(const struct fragment *f, unsigned int fl)
{
	if (fl == FL_BOTH)
		return f->start + f->entry2;
	return fl == FL_SAVED ? fragment_saved(f) : fragment_host(f);
}
void page_kill(struct vcpu *v, u32 page);	/* its fragments are stale */
u32 page_find(struct dbt *d, u64 gpa);
u32 page_get(struct vcpu *v, u64 gpa, struct code_page *code);
/* The fragment whose code holds this offset, or NONE. */
u32 fragment_at(struct dbt *d, u32 host);

/* ---- space.c ---- */
/* The page at CS:RIP, with its rights checked (raises #PF). */
u32 exec_page(struct vcpu *v, u64 la);
void space_ready(struct vcpu *v, struct space *s);
void space_drop_code(struct vcpu *v, struct space *s);
void space_drop_all(struct vcpu *v);		/* jump tables and cells of every space */
void spaces_look(struct vcpu *v);		/* the same, but not where there is nothing */
/* The code at these offsets is not to be entered any more. */
void space_drop_range(struct vcpu *v, struct space *s, u32 from, u32 to);
/* to: offset in the code area. False: the exit's page is not known to run where it did. */
bool space_set_cell(struct vcpu *v, u32 exit, u32 to);
void space_set_jump(struct vcpu *v, u64 la, u32 frag);
u64 space_jump(struct vcpu *v, u64 la);		/* where the jump table leads, or 0 */
void dbt_space_drop(struct vcpu *v, struct space *s, bool global);
void dbt_space_drop_page(struct vcpu *v, struct space *s, u64 la);

/* ---- the jump table, in code: RAX has an address ---- */
#define NO_TARGET	BIT(63)	/* in no entry, pushed by no call */
/* Which entry: the upper bits of a product (Knuth 3, 6.4), as both bits of a page and offsets differ. */
#define JUMP_FACTOR	0x9e3779b1u
static inline unsigned int jump_index(u64 la)
{
	return (u32)la * JUMP_FACTOR >> (32 - JUMP_BITS);
}
/* R11: the offset of its entry; flags are lost. */
static inline void emit_jump_index(struct emitter *e)
{
	emit_rr(e, false, 0x69, H_11, H_AX);		/* imul r11d, eax, JUMP_FACTOR */
	put32(e, JUMP_FACTOR);
	emit_shr(e, false, H_11, 32 - JUMP_BITS - 4);
	emit_alu_imm(e, false, ALU_AND, H_11, (JUMP_ENTRIES - 1) << 4);
}
_Static_assert(sizeof(struct jump_entry) == 1 << 4, "emit_jump_index");
static inline struct place jump_field(unsigned int mode, u32 field)
{
	return at_gs_index(H_11, (u32)offsetof(struct space, jump) +
		mode * (u32)sizeof(((struct space *)0)->jump[0]) + field);
}

/* ---- trampoline.c ---- */
void trampolines_emit(struct vcpu *v);

/* ---- engine.c ---- */
/* dbt_last(), and then: where translated code goes on, executable address; 0: leave. */
u64 dbt_go(struct vcpu *v, u32 rec);

/* ---- slow.c ---- */
/* The instruction of a record, decoded; until the next call. */
const struct insn *rec_insn(struct dbt *d, u32 rec);

/* ---- site.c ---- */
/* Bytes of sites, at most: a loop of 48 instructions, twice, with two accesses and marks for each. */
#define SITES_ROOM	6144u
/* False: the instruction at this offset of the host's code has none. */
bool site_find(const struct dbt *d, u32 frag, u32 host, struct site *s);

/* ---- flags.c ---- */
void homes_restore(struct vcpu *v, u16 word);	/* of a site: all registers to v->r */
/* v->rflags as behind an instruction that has a recipe, when its inputs are as they were. */
void flags_from_recipe(struct vcpu *v, const struct insn *setter);

/* ---- form.c ---- */
enum form_kind {
	FORM_UNKNOWN, FORM_HELPER, FORM_TERMINAL, FORM_GENERIC, FORM_SHIFT_CL, FORM_VECTOR, FORM_X87,
	FORM_NOP, FORM_LEA, FORM_PUSH, FORM_POP, FORM_PUSH_IMM, FORM_LEAVE, FORM_MULDIV,
	FORM_CMPXCHG, FORM_CBW, FORM_CWD, FORM_MOV_IMM,
	FORM_SAHF, FORM_LAHF, FORM_SYSTEM,
	FORM_JCC, FORM_JMP, FORM_CALL, FORM_RET, FORM_JMP_IND, FORM_CALL_IND, FORM_LOOP, FORM_JCXZ,
};
void form_fill(struct form *f, const struct insn *i);
static inline const struct form *form_of(struct dbt *d, const struct insn *i)
{
	struct form *f = &d->form[i->row];

	if (unlikely(f->kind == FORM_UNKNOWN))
		form_fill(f, i);
	return f;
}
#define IMM_Z	0x10	/* 2 or 4 bytes by operand size */

/* ---- system.c ---- */
bool form_is_system(const struct opcode *row);

/* ---- translate.c ---- */
/* Translates at offset off of page; NONE: the first instruction does not lie in the page. */
u32 translate(struct vcpu *v, u32 page, unsigned int off, const u8 *host,
	const struct memslot *slot, bool twin);
/*
 * The instruction at off of page that goes on in page2; code: its bytes. Which page follows is a
 * matter of the space: the code proper is entered through a cell, that of exit *own.
 */
u32 translate_crossing(struct vcpu *v, u32 page, u32 page2, unsigned int off, const u8 *code);

/* ---- name.c ---- */
void fragment_name(struct vcpu *v, u32 frag, u64 la);
/* value as that many hexadecimal digits; returns how many. */
u32 hex_put(char *p, u64 value, u32 digits);

/* ---- x87.c ---- */
/* What translated code noted of the last x87 instruction goes to v->fpu. */
void x87_pointers_fold(struct vcpu *v);
static inline void x87_pointers(struct vcpu *v)
{
	if (unlikely(v->hot.x87_last))
		x87_pointers_fold(v);
}
#define X87_NO_DATA	BIT(62)	/* no address that an access succeeds at */

/* ---- slow.c ---- */
/* Returns where a slow access goes on, executable address. */
u64 dbt_slow(struct vcpu *v, u32 rec);
/* Runs the instruction that ends a fragment, and is over with it. */
void dbt_last(struct vcpu *v, u32 rec);
/* dbt_go() for a near return that has moved RSP already. */
u64 dbt_go_ret(struct vcpu *v, u32 rec);
void dbt_leave(struct vcpu *v, u32 exit);
void flags_in(struct vcpu *v);	/* hot.flags to v->rflags */
void flags_out(struct vcpu *v);	/* v->rflags to hot.flags */
u32 mode_key(const struct vcpu *v);

#endif
