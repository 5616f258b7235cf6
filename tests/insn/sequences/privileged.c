/* Makes system programs (privileged.h). */
#include <string.h>

#include "hypervisor/x86/regs.h"
#include "tests/insn/sequences/privileged.h"

const struct mode_info mode_info[NR_MODES] = {
	[KERNEL64] = { KSEL_CODE, KSEL_DATA, 64 },
	[KERNEL32] = { KSEL_CODE32, KSEL_DATA, 32 },
	[USER64] = { SEL_CODE64, SEL_DATA, 64 },
	[USER32] = { SEL_CODE32, SEL_DATA, 32 },
};

#define EAX	R_RAX
#define ECX	R_RCX
#define EDX	R_RDX

static u32 below(struct flow *f, u32 n)
{
	return rnd_below(f->g.r, n);
}

static bool chance(struct flow *f, u32 percent)
{
	return rnd_chance(f->g.r, percent);
}

static u32 data_at(struct flow *f)
{
	return (u32)AREA_DATA + 0x400 + below(f, DATA_SIZE - 0x800);
}

static void stack_here(struct flow *f)
{
	flow_mov(f, R_RSP, (u32)AREA_DATA + 0x1000 + below(f, 0x200) * 8, ROW_PREP);
}

/* ---- flags ----------------------------------------------------------------------------------- */

static void element_if_flag(struct flow *f)
{
	flow_bytes(f, chance(f, 60) ? 0xfb : 0xfa, 1, ROW_FLOW);	/* sti, cli */
}

static void element_popf(struct flow *f)
{
	u32 flags = 2 | ((u32)rnd(f->g.r) & (RFLAGS_ARITH | RFLAGS_DF | RFLAGS_IF));

	stack_here(f);
	if (chance(f, 3))
		flags |= RFLAGS_NT;
	if (chance(f, 5))
		flags |= RFLAGS_AC;
	flow_bytes(f, 0x68 | (u64)flags << 8, 5, ROW_FLOW);
	flow_bytes(f, 0x9d, 1, ROW_FLOW);
}

/* pushf; or dword [esp], TF; popf */
static void element_trace(struct flow *f)
{
	stack_here(f);
	flow_bytes(f, 0x9c, 1, ROW_FLOW);
	flow_bytes(f, 0x81 | 0x0cULL << 8 | 0x24ULL << 16 | (u64)RFLAGS_TF << 24, 7, ROW_FLOW);
	flow_bytes(f, 0x9d, 1, ROW_FLOW);
}

/* ---- control registers ----------------------------------------------------------------------- */

static void element_cr3(struct flow *f)
{
	flow_mov(f, EAX, chance(f, 50) ? AT_PML4 : AT_PML4_B, ROW_FIXED);
	flow_bytes(f, 0xd8220f, 3, ROW_FLOW);
}

/* mov eax, cr; and, or, xor eax, bit; mov cr, eax */
static void change_cr(struct flow *f, unsigned int cr, u32 bit)
{
	static const u8 ops[] = { 0x25, 0x0d, 0x35 };
	unsigned int op = below(f, 3);
	u32 val = op ? bit : ~bit;

	flow_bytes(f, 0x200f | (u64)(0xc0 | cr << 3) << 16, 3, ROW_FLOW);
	flow_bytes(f, ops[op] | (u64)val << 8, 5, ROW_FIXED);
	flow_bytes(f, 0x220f | (u64)(0xc0 | cr << 3) << 16, 3, ROW_FLOW);
}

static void element_cr0(struct flow *f)
{
	static const u32 bits[] = { CR0_WP, CR0_WP, CR0_TS, CR0_TS, CR0_MP, CR0_AM, CR0_NE };

	change_cr(f, 0, bits[below(f, ARRAY_SIZE(bits))]);
}

static void element_cr4(struct flow *f)
{
	static const u32 bits[] = { CR4_PGE, CR4_PGE, CR4_TSD, CR4_DE, CR4_UMIP, CR4_PCE, CR4_MCE,
		CR4_OSXSAVE, CR4_FSGSBASE };

	change_cr(f, 4, bits[below(f, ARRAY_SIZE(bits))]);
}

static void element_xsetbv(struct flow *f)
{
	static const u8 values[] = { 7, 7, 3, 1, 5, 0 };

	flow_mov(f, ECX, 0, ROW_FIXED);
	flow_mov(f, EDX, 0, ROW_FIXED);
	flow_mov(f, EAX, values[below(f, ARRAY_SIZE(values))], ROW_FIXED);
	flow_bytes(f, 0xd1010f, 3, ROW_FLOW);
}

/* ---- page tables ----------------------------------------------------------------------------- */

static void invlpg(struct flow *f, u64 addr)
{
	flow_abs(f, 0x010f, 2, 7, addr, ROW_FIXED);
}

static void element_invlpg(struct flow *f)
{
	static const u64 pages[] = { AREA_CODE, AREA_CODE + 0x1000, AREA_DATA, AT_WINDOW, AT_CONTROL,
		AT_ALIAS, AT_MMIO, AT_VAR };

	invlpg(f, pages[below(f, ARRAY_SIZE(pages))] + below(f, 4096));
}

/*
 * An entry of one of the two page tables gets another frame or other rights; whoever used the old
 * one must not find it any more.
 */
static void element_remap(struct flow *f)
{
	static const struct { u64 page, frame; } choice[] = {
		{ AREA_DATA, AREA_DATA }, { AREA_DATA + 0x1000, AREA_DATA + 0x1000 },
		{ AREA_DATA + 0x1000, AREA_DATA + 0x3000 }, { AREA_DATA + 0x3000, AREA_DATA + 0x3000 },
		{ AT_WINDOW, AT_FRAMES },
		{ AT_WINDOW, AT_FRAMES + 0x1000 }, { AT_WINDOW + 0x1000, AT_FRAMES + 0x2000 },
		{ AT_WINDOW, AREA_CODE }, { AT_WINDOW + 0x1000, AREA_CODE + 0x1000 },
		{ AT_LAZY, AT_LAZY }, { AT_LAZY + 0x1000, AT_LAZY + 0x1000 },
		{ AT_ALIAS, AREA_CODE }, { AT_ALIAS + 0x1000, AREA_CODE }, { AT_MMIO, AT_FRAMES },
		{ AT_MMIO, GPA_MMIO },
	};
	unsigned int k = below(f, ARRAY_SIZE(choice));
	u64 pt = chance(f, 50) ? AT_PT : AT_PT_B, page = choice[k].page;
	u32 bits = chance(f, 60) ? 7 : below(f, 8);

	if (chance(f, 30))
		bits |= 0x60;		/* accessed, dirty */
	flow_store(f, pt + (page - BASE) / 4096 * 8, (u32)choice[k].frame | bits, ROW_FIXED);
	invlpg(f, page);
}

/* ---- debug registers ------------------------------------------------------------------------- */

/* A watchpoint on data, on an I/O port (with DE), or a breakpoint on what comes next. */
static void element_debug(struct flow *f)
{
	unsigned int n = below(f, 4), rw = below(f, 4), len = below(f, 4);
	u8 *at;

	if (chance(f, 40))
		rw = len = 0;
	flow_mov(f, EAX, data_at(f), ROW_FIXED);
	at = f->g.p;
	flow_bytes(f, 0x230f | (u64)(0xc0 | n << 3) << 16, 3, ROW_FIXED);	/* mov dr_n, eax */
	flow_mov(f, EAX, 0x400 | 2u << n * 2 | rw << (16 + n * 4) | len << (18 + n * 4), ROW_FIXED);
	flow_bytes(f, 0xf8230f, 3, ROW_FLOW);					/* mov dr7, eax */
	if (!rw) {
		flow_unit(f);
		flow_patch_abs(f, at);
		if (chance(f, 50))
			flow_unit(f);
	}
}

static void element_read_debug(struct flow *f)
{
	flow_bytes(f, 0x210f | (u64)(0xc0 | below(f, 8) << 3 | below(f, 3)) << 16, 3, ROW_FLOW);
}

/* ---- traps ----------------------------------------------------------------------------------- */

static void element_trap(struct flow *f)
{
	switch (below(f, 10)) {
	case 0: flow_bytes(f, 0xcc, 1, ROW_FLOW); break;
	case 1: flow_bytes(f, 0xf1, 1, ROW_FLOW); break;
	case 2: flow_bytes(f, 0x0b0f, 2, ROW_FLOW); break;
	case 3: flow_bytes(f, 0x050f, 2, ROW_FLOW); break;
	case 4: flow_bytes(f, 0x340f, 2, ROW_FLOW); break;
	case 5: flow_bytes(f, 0xcd | (u64)below(f, 256) << 8, 2, ROW_FLOW); break;
	default: flow_bytes(f, 0xcd | (u64)(0xf0 + below(f, 16)) << 8, 2, ROW_FLOW); break;
	}
	gen_forget(&f->g);
}

/* MOV SS: the next instruction is in its shadow. */
static void element_mov_ss(struct flow *f)
{
	flow_bytes(f, 0xd08c, 2, ROW_FIXED);	/* mov eax, ss */
	flow_bytes(f, 0xd08e, 2, ROW_FLOW);	/* mov ss, eax */
	f->g.known[EAX] = 0;
	if (chance(f, 50))
		element_if_flag(f);
}

/* ---- input and output ------------------------------------------------------------------------ */

static void element_port(struct flow *f)
{
	static const u8 ops[] = { 0xec, 0xed, 0xee, 0xef };	/* in, out; al, eax; by dx */

	if (chance(f, 40)) {
		flow_bytes(f, 0xe4 | below(f, 4) | (u64)(0x90 + below(f, 16)) << 8, 2, ROW_FLOW);
	} else {
		flow_mov(f, EDX, 0x90 + below(f, 0x1000), ROW_FIXED);
		flow_bytes(f, ops[below(f, 4)], 1, ROW_FLOW);
	}
	f->g.known[EAX] = f->g.known[EDX] = 0;
}

static void element_port_string(struct flow *f)
{
	flow_mov(f, EDX, 0x90 + below(f, 0x1000), ROW_FIXED);
	flow_mov(f, ECX, below(f, 6), ROW_FIXED);
	flow_mov(f, R_RSI, data_at(f), ROW_FIXED);
	flow_mov(f, R_RDI, data_at(f), ROW_FIXED);
	if (chance(f, 60))
		flow_bytes(f, 0xf3 | (u64)(0x6c + below(f, 4)) << 8, 2, ROW_FLOW);
	else
		flow_bytes(f, 0x6c + below(f, 4), 1, ROW_FLOW);
	f->g.known[ECX] = f->g.known[R_RSI] = f->g.known[R_RDI] = 0;
}

/* ---- other registers ------------------------------------------------------------------------- */

static void element_msr(struct flow *f)
{
	static const u32 readable[] = { 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000100, 0xc0000101,
		0xc0000102, 0xc0000103, 0x1b, 0x277, 0x174, 0x175, 0x176, 0x2ff, 0x12345678 };
	static const u32 writable[] = { 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0000100 };
	bool write = chance(f, 50);

	flow_mov(f, ECX, write ? writable[below(f, ARRAY_SIZE(writable))]
			       : readable[below(f, ARRAY_SIZE(readable))], ROW_FIXED);
	if (write) {
		flow_mov(f, EDX, chance(f, 5) ? (u32)rnd(f->g.r) : 0, ROW_FIXED);
		flow_mov(f, EAX, below(f, 0x200), ROW_FIXED);
	}
	flow_bytes(f, write ? 0x300f : 0x320f, 2, ROW_FLOW);
	f->g.known[EAX] = f->g.known[EDX] = 0;
}

static void element_cpuid(struct flow *f)
{
	static const u32 leaves[] = { 0, 1, 2, 4, 7, 0xb, 0xd, 0x40000000, 0x80000000, 0x80000001,
		0x80000008, 0x8000001e, 0x33333333 };

	flow_mov(f, EAX, leaves[below(f, ARRAY_SIZE(leaves))], ROW_FIXED);
	flow_mov(f, ECX, below(f, 4), ROW_FIXED);
	flow_bytes(f, 0xa20f, 2, ROW_FLOW);
	gen_forget(&f->g);
}

/* Loads the table registers with what they hold. */
static void element_tables(struct flow *f)
{
	u64 slot = flow_slot(f, 16), base = chance(f, 50) ? AT_IDT : AT_GDT;
	u16 limit = base == AT_IDT ? 0xfff : 0x4f;

	memcpy((void *)slot, &limit, 2);
	memcpy((void *)(slot + 2), &base, 8);
	flow_abs(f, 0x010f, 2, base == AT_IDT ? 3 : 2, slot, ROW_FLOW);
}

/* Instructions without operands, or with a register and a memory operand that do no harm. */
static void element_other(struct flow *f)
{
	static const struct { u32 bytes; u8 n; } alone[] = {
		{ 0x060f, 2 },		/* clts */
		{ 0xf8010f, 3 },	/* swapgs */
		{ 0xf4, 1 },		/* hlt */
		{ 0x090f, 2 },		/* wbinvd */
		{ 0xd0010f, 3 },	/* xgetbv */
		{ 0xe0010f, 3 },	/* smsw eax */
		{ 0xca010f, 3 }, { 0xcb010f, 3 },	/* clac, stac */
		{ 0xc0000f, 3 }, { 0xc8000f, 3 },	/* sldt, str eax */
		{ 0xc1020f, 3 }, { 0xc1030f, 3 },	/* lar, lsl eax, ecx */
		{ 0xe1000f, 3 }, { 0xe9000f, 3 },	/* verr, verw cx */
		{ 0xd98e, 2 }, { 0xc18e, 2 },	/* mov ds, ecx; mov es, ecx */
		{ 0xe08e, 2 },		/* mov fs, eax */
	};
	static const struct { u32 op; u8 ext; } memory[] = {
		{ 0x010f, 0 }, { 0x010f, 1 }, { 0x010f, 4 }, { 0x010f, 6 }, { 0x000f, 0 }, { 0x000f, 1 },
	};
	unsigned int k = below(f, ARRAY_SIZE(alone) + 4);

	if (k < ARRAY_SIZE(alone)) {
		if (f->g.bits == 32 && alone[k].bytes == 0xf8010f)
			return;
		flow_bytes(f, alone[k].bytes, alone[k].n, ROW_FLOW);
	} else {
		k = below(f, ARRAY_SIZE(memory));
		flow_abs(f, memory[k].op, 2, memory[k].ext, data_at(f), ROW_FLOW);
	}
	f->g.known[EAX] = 0;
}

static void element_segments(struct flow *f)
{
	gen_prologue(&f->g);
	f->g.known[EAX] = 0;
}

/* rdfsbase, rdgsbase, wrfsbase, wrgsbase */
static void element_fsgs(struct flow *f)
{
	unsigned int n = below(f, 4);

	if (f->g.bits == 32)
		return;
	if (n > 1)
		flow_mov(f, EAX, below(f, 0x200), ROW_FIXED);
	flow_bytes(f, 0xf3 | 0x48ULL << 8 | 0x0fULL << 16 | 0xaeULL << 24 |
		(u64)(0xc0 | n << 3) << 32, 5, ROW_FLOW);
	f->g.known[EAX] = 0;
}

static void system_element(struct flow *f)
{
	static void (*const all[])(struct flow *f) = {
		element_if_flag, element_if_flag, element_if_flag, element_popf, element_popf,
		element_trace, element_cr3, element_cr3, element_cr0, element_cr4, element_xsetbv,
		element_invlpg, element_invlpg, element_remap, element_remap, element_remap,
		element_debug, element_read_debug, element_trap, element_trap, element_mov_ss,
		element_port, element_port, element_port_string, element_msr, element_cpuid,
		element_tables, element_other, element_other, element_segments, element_fsgs,
	};

	if (f->left)
		f->left--;
	all[below(f, ARRAY_SIZE(all))](f);
}

/* What user code may do without a fault. */
static void user_element(struct flow *f)
{
	static void (*const all[])(struct flow *f) = {
		element_popf, element_trace, element_trap, element_trap, element_cpuid, element_other,
		element_segments, element_fsgs, element_mov_ss, element_if_flag, element_port,
	};

	if (chance(f, 5)) {
		system_element(f);
		return;
	}
	if (f->left)
		f->left--;
	all[below(f, ARRAY_SIZE(all))](f);
}

/* ---- operands -------------------------------------------------------------------------------- */

static bool leaves_flags_undefined(const struct opcode *row)
{
	return row->f_undef || row->attr & ATTR_COUNT;
}

/*
 * Places with a character of their own, and their edges. After an access to a device an interrupt
 * may come, and nobody may see undefined flags.
 */
static u64 place(struct gen *g)
{
	static const u64 odd[] = { AT_MMIO, AT_MMIO, AT_MMIO, AT_MMIO + 0x1000, AT_WINDOW, AT_WINDOW,
		AT_WINDOW + 0x1000, AT_LAZY, AT_LAZY + 0x1000, AT_LAZY + 0x2000, AT_LAZY_END, AT_RO,
		AT_RO + 0x1000, AT_KDATA, AT_KDATA + 0x1000, AREA_DATA, AREA_DATA + DATA_SIZE,
		AT_ALIAS, AREA_CODE + CODE_SIZE };
	u32 how = rnd_below(g->r, 100);

	if (leaves_flags_undefined(g->row))
		return 0;
	if (how < 6)
		return odd[rnd_below(g->r, ARRAY_SIZE(odd))] + 16 - rnd_below(g->r, 48);
	if (how < 14)
		return odd[rnd_below(g->r, 10)] + rnd_below(g->r, 0xc00);
	if (how < 16 && g->q->start > AREA_CODE + 256 && !(g->row->attr & ATTR_NATIVE) && g->row->set)
		return g->q->start - 256 + rnd_below(g->r, 128) +
		       (rnd_chance(g->r, 50) ? AT_ALIAS - AREA_CODE : 0);
	return 0;
}

/* ---- from one mode to the next --------------------------------------------------------------- */

static void far_pointer(struct flow *f, u64 to, u16 cs)
{
	u64 slot = flow_slot(f, 8);
	u32 at = (u32)to;

	memcpy((void *)slot, &at, 4);
	memcpy((void *)(slot + 4), &cs, 2);
	flow_abs(f, 0xff, 1, 5, slot, ROW_FIXED);
}

/* push ss, rsp, rflags, cs, rip; iretq. From 32-bit code SS and ESP stay on the stack at CPL 0. */
static u8 *iret(struct flow *f, const struct mode_info *to)
{
	u32 flags = 2 | (chance(f, 70) ? (u32)RFLAGS_IF : 0) | (chance(f, 10) ? (u32)RFLAGS_TF : 0);
	u8 *at;

	stack_here(f);
	flow_bytes(f, 0x68 | (u64)to->ss << 8, 5, ROW_FIXED);
	flow_bytes(f, 0x68 | ((u64)AREA_DATA + 0x2800) << 8, 5, ROW_FIXED);
	flow_bytes(f, 0x68 | (u64)flags << 8, 5, ROW_FIXED);
	flow_bytes(f, 0x68 | (u64)to->cs << 8, 5, ROW_FIXED);
	flow_bytes(f, 0x68, 5, ROW_FIXED);
	at = f->g.p;
	if (f->g.bits == 64)
		flow_bytes(f, 0xcf48, 2, ROW_FIXED);
	else
		flow_bytes(f, 0xcf, 1, ROW_FIXED);
	return at;
}

/* mov ecx, rip; mov r11d, flags; sysretq or sysretd */
static u8 *sysret(struct flow *f, const struct mode_info *to)
{
	u8 *at;

	flow_mov(f, ECX, 0, ROW_FIXED);
	at = f->g.p;
	flow_mov(f, R_R11, 2 | (chance(f, 70) ? (u32)RFLAGS_IF : 0), ROW_FIXED);
	if (to->bits == 64)
		flow_bytes(f, 0x070f48, 3, ROW_FIXED);
	else
		flow_bytes(f, 0x070f, 2, ROW_FIXED);
	return at;
}

/* Returns the place of the address to be filled in, or NULL. */
static u8 *transition(struct flow *f, enum mode from, enum mode to)
{
	const struct mode_info *a = &mode_info[from], *b = &mode_info[to];
	bool kernel = !(a->cs & 3), same_level = (a->cs & 3) == (b->cs & 3);

	if (from == to && chance(f, 60))
		return NULL;
	switch (below(f, 4)) {
	case 0:
		if (kernel)
			return iret(f, b);
		break;
	case 1:
		if (from == KERNEL64 && (b->cs & 3))
			return sysret(f, b);
		break;
	case 2:
		if (!same_level)
			break;
		/* The address is that of what follows. */
		far_pointer(f, flow_here(f) + (f->g.bits == 64 ? 7 : 6), b->cs);
		return NULL;
	}
	flow_bytes(f, from == USER64 && !(b->cs & 3) && chance(f, 30) ? 0x050f :
		0xcd | (u64)VECTOR_RESUME << 8, 2, ROW_FIXED);
	return NULL;
}

/* ---- a program ------------------------------------------------------------------------------- */

static void set_resume(struct flow *f, enum mode next, u8 **resume_at)
{
	flow_store(f, VAR_RESUME, 0, ROW_PREP);
	*resume_at = f->g.p;
	flow_store(f, VAR_SEL, mode_info[next].cs | (u32)mode_info[next].ss << 16, ROW_PREP);
}

static void piece(struct flow *f, enum mode mode, enum mode next, u8 **resume_at, u8 **enter_at)
{
	f->g.bits = mode_info[mode].bits;
	f->g.seg_base[0] = f->g.bits == 64 ? 0x40 : 0;
	f->g.seg_base[1] = f->g.bits == 64 ? 0x80 : 0;
	f->extra = mode_info[mode].cs & 3 ? user_element : system_element;
	f->extra_chance = (u8)below(f, 60);
	f->n_functions = 0;
	f->left = 1 + below(f, 12);
	gen_forget(&f->g);
	gen_prologue(&f->g);
	set_resume(f, next, resume_at);
	if (chance(f, 30))
		flow_functions(f);
	while (!flow_full(f))
		flow_body(f, 1);
	*enter_at = transition(f, mode, next);
}

enum mode privileged_make(struct sequence *q, struct random *r)
{
	static struct flow f;
	enum mode first = rnd_below(r, NR_MODES), mode = first, next;
	u8 *resume_at, *enter_at;

	q->n = 0;
	q->bits = mode_info[first].bits;
	flow_init(&f, q, r, q->bits);
	f.alias = AT_ALIAS - AREA_CODE;
	f.g.place = place;
	q->start = AREA_CODE + rnd_below(r, CODE_SIZE / 4);
	f.g.p = (u8 *)q->start;
	for (unsigned int n = 1 + rnd_below(r, 6); n; n--, mode = next) {
		next = rnd_chance(r, 40) ? mode : rnd_below(r, NR_MODES);
		piece(&f, mode, next, &resume_at, &enter_at);
		flow_patch_abs(&f, resume_at);
		if (enter_at)
			flow_patch_abs(&f, enter_at);
		f.left = 1;
		if (flow_full(&f))
			break;
	}
	q->end = (u64)f.g.p;
	f.g.p[0] = 0xcd;
	f.g.p[1] = VECTOR_END;
	return first;
}
