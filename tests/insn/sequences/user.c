/*
 * User-mode programs on the host CPU and in every engine, from the same state at the same linear
 * addresses.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "tests/insn/sequences/sequences.h"

/* What a program may write, in guest and host alike. */
static const struct area {
	u64 addr, size;
	int prot;
} areas[] = {
	{ AREA_DATA, DATA_SIZE, PROT_READ | PROT_WRITE },
	{ AREA_CODE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC },
	{ AT_CONTROL, 4096, PROT_READ | PROT_WRITE },
	{ AT_RO - 4096, 4096, PROT_READ | PROT_WRITE },
	{ AT_LAZY - 4096, 4096, PROT_READ | PROT_WRITE },
	{ AT_MMIO - 4096, 4096, PROT_READ | PROT_WRITE },
	{ AREA_CONST, CONST_SIZE, PROT_READ | PROT_WRITE },
	{ AT_RO, 4096, PROT_READ },
};
#define N_WRITTEN (ARRAY_SIZE(areas) - 1)	/* without the last one */

/* One comparison. */
static struct trial {
	u64 seed;
	struct sequence q;
	struct state start, host, guest[MAX_MACHINES];
	u8 code[CODE_SIZE], control[4096];
	unsigned int image;
	unsigned int bad;	/* the machine that differs, or n_machines */
} t;

/* Memory to start with: a few images are enough, since programs choose where they look. */
#define IMAGES 16
static u8 *images[IMAGES];
static u8 const_image[CONST_SIZE];

/* ---- setting up ------------------------------------------------------------------------------ */

/*
 * System calls of a program that went astray must not reach the kernel: all code that may make
 * them lies above. Linux Documentation/admin-guide/syscall-user-dispatch.rst
 */
static void forbid_syscalls(void)
{
	static char allowed;
	struct sigaction sa;

	sigaction(SIGSEGV, NULL, &sa);
	sigaction(SIGSYS, &sa, NULL);
	prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, AREA_BASE + AREA_SIZE,
		0x7fffffffffff - AREA_BASE - AREA_SIZE, &allowed);
	allowed = 1;	/* SYSCALL_DISPATCH_FILTER_BLOCK */
}

/* Rows that this CPU does not have, by its own #UD. */
static void drop_missing_rows(void)
{
	u32 missing[512], n = 0;

	for (unsigned int k = 0; k < gen_rows(); k++) {
		bool there = false;

		for (unsigned int bits = 32; bits <= 64 && !there; bits += 32) {
			struct random r = { .s = k };

			gen_sequence(&t.q, &r, bits, 1, gen_row_at(k));
			gen_state(&t.host, &r, &t.q);
			native_go(&t.host);
			there = t.host.vector != VEC_UD;
		}
		if (!there && n < ARRAY_SIZE(missing))
			missing[n++] = gen_row_at(k);
	}
	while (n)
		gen_drop_row(missing[--n]);
}

int user_setup(void)
{
	struct random r = { .s = 1 };

	for (unsigned int k = 0; k < IMAGES; k++) {
		images[k] = malloc(DATA_SIZE);
		if (!images[k])
			return -1;
		gen_memory(&r);
		memcpy(images[k], (void *)AREA_DATA, DATA_SIZE);
	}
	memcpy(const_image, (void *)AREA_CONST, CONST_SIZE);
	drop_missing_rows();
	memcpy((void *)AREA_CONST, const_image, CONST_SIZE);
	memset((void *)AREA_DATA, 0, AREA_SIZE - (AREA_DATA - AREA_BASE));
	mprotect((void *)AREA_BASE, AREA_SIZE, PROT_NONE);
	for (size_t k = 0; k < ARRAY_SIZE(areas); k++)
		mprotect((void *)areas[k].addr, areas[k].size, areas[k].prot);
	for (unsigned int k = 0; k < n_machines; k++)
		machines[k].clean = false;
	forbid_syscalls();
	return 0;
}

/* ---- a program ------------------------------------------------------------------------------- */

/* Rarely: pages that are not there, end, or may not be written; and the neighbourhood of code. */
static u64 place(struct gen *g)
{
	static const u64 edges[] = { AREA_DATA + DATA_SIZE, AREA_DATA, AT_RO, AT_RO + 4096, AT_LAZY };
	u32 how = rnd_below(g->r, 1000);

	if (how < 6)
		return edges[rnd_below(g->r, ARRAY_SIZE(edges))] + 8 - rnd_below(g->r, 40);
	if (how < 14 && g->q->start > AREA_CODE + 256 && !(g->row->attr & ATTR_NATIVE) &&
	    g->row->set)
		return g->q->start - 256 + rnd_below(g->r, 128);
	return 0;
}

static void make(u64 seed)
{
	struct random r = { .s = seed };
	static struct flow f;

	memset((void *)AREA_CODE, 0xcc, CODE_SIZE);
	memset((void *)AT_CONTROL, 0, 4096);
	t.seed = seed;
	t.q.n = 0;
	t.q.bits = rnd_chance(&r, 75) ? 64 : 32;
	flow_init(&f, &t.q, &r, t.q.bits);
	f.g.place = place;
	t.q.start = AREA_CODE + rnd_below(&r, CODE_SIZE / 4);
	f.g.p = (u8 *)t.q.start;
	gen_prologue(&f.g);
	flow_functions(&f);
	while (!flow_full(&f))
		flow_body(&f, 1);
	t.q.end = (u64)f.g.p;
	*f.g.p = 0xcc;
	gen_state(&t.start, &r, &t.q);
	t.image = rnd_below(&r, IMAGES);
	memcpy(t.code, (void *)AREA_CODE, CODE_SIZE);
	memcpy(t.control, (void *)AT_CONTROL, 4096);
}

/* ---- running it ------------------------------------------------------------------------------ */

static void put_memory(u8 *ram)
{
	memset(ram + (AT_RO - 4096 - BASE), 0, 4096);
	memset(ram + (AT_LAZY - 4096 - BASE), 0, 4096);
	memset(ram + (AT_MMIO - 4096 - BASE), 0, 4096);
	memcpy(ram + (AREA_CODE - BASE), t.code, CODE_SIZE);
	memcpy(ram + (AREA_DATA - BASE), images[t.image], DATA_SIZE);
	memcpy(ram + (AT_CONTROL - BASE), t.control, 4096);
	/* A program that went astray may have written there on the host alone. */
	memcpy(ram + (AREA_CONST - BASE), const_image, CONST_SIZE);
}

static bool run_machine(unsigned int k)
{
	static const struct start kinds[2] = {
		{ .cs = SEL_CODE32, .ss = SEL_DATA, .idt = AT_STOP_IDT, .cr3 = AT_PML4 },
		{ .cs = SEL_CODE64, .ss = SEL_DATA, .idt = AT_STOP_IDT, .cr3 = AT_PML4 },
	};
	struct machine *m = &machines[k];
	struct state s = t.start;

	if (!m->clean)
		machine_set_clean(m);
	put_memory(m->ram);
	s.rflags |= RFLAGS_IF | RFLAGS_FIXED;
	if (machine_start(m, &kinds[t.q.bits == 64], &s) || machine_run(m))
		return false;
	if (m->late) {
		machine_state(m, &t.guest[k], &(struct kvm_sregs){ 0 });
		t.guest[k].vector = VECTOR_LATE;
		return true;
	}
	if (m->run->exit_reason != KVM_EXIT_IO || m->run->io.port != PORT_STOP)
		return false;
	return !machine_stopped_state(m, &t.guest[k]);
}

/* Linux tells user space that its own pages are there: those of its half, and the last one below it. */
#define KERNEL_FROM ((1ULL << 47) - 4096)

static void hide_kernel_pages(struct state *s)
{
	if (s->vector == VEC_PF && s->cr2 >= KERNEL_FROM)
		s->error &= ~(u32)PF_P;
}

static void run_host(void)
{
	put_memory((u8 *)AREA_BASE);
	t.host = t.start;
	native_go(&t.host);
	hide_kernel_pages(&t.host);
	if (t.host.vector != VEC_PF)
		t.host.cr2 = 0;
}

/* DIV, IDIV and AAM leave all flags undefined, also when they fault. SDM 2A DIV */
static u64 flags_compared(void)
{
	u64 f = RFLAGS_ARITH | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_TF;

	return t.host.vector == VEC_DE ? f & ~RFLAGS_ARITH : f;
}

static bool machine_equal(unsigned int k)
{
	if (!state_equal(&t.host, &t.guest[k], flags_compared()))
		return false;
	for (size_t n = 0; n < N_WRITTEN; n++)
		if (memcmp((void *)areas[n].addr, machine_at(&machines[k], areas[n].addr),
			    areas[n].size))
			return false;
	return true;
}

/* At a page that only guests have. */
static bool astray(const struct state *s)
{
	u64 page = (s->cr2 - BASE) >> 12, pte;

	if (s->vector != VEC_PF || s->error & PF_P || page >= 512)
		return false;
	memcpy(&pte, machine_at(&machines[0], AT_PT + 8 * page), 8);
	return pte & 1;
}

/*
 * A CPU has #GP for such an address. Linux has #PF, where it stores for a program what UMIP forbids
 * (SGDT and its kind, which code that modifies itself can come to be): arch/x86/kernel/umip.c.
 */
static bool linux_stored(const struct state *s)
{
	return s->vector == VEC_PF && (u64)((s64)(s->cr2 << 16) >> 16) != s->cr2;
}

/* At a page that only the host has, such as a sanitizer's shadow. */
static bool astray_on_host(const struct state *s)
{
	unsigned char in_core;

	return s->vector == VEC_PF && !(s->error & PF_P) && (s->cr2 - BASE) >> 12 >= 512 &&
		!mincore((void *)(s->cr2 & ~0xfffULL), 4096, &in_core);
}

/*
 * An operand across the end of 4 GiB "may or may not" exceed a limit of ffffffffh; where it does
 * not, its first page is missing. SDM 3A 5.3
 */
static bool wraps(const struct state *s)
{
	return t.q.bits == 32 && s->vector == VEC_PF &&
		(t.host.vector == VEC_GP || t.host.vector == VEC_SS) &&
		s->cr2 > 0xffffffff - 64;
}

/* The present program everywhere. A host that ran away shows nothing. */
static bool run_all(void)
{
	t.bad = n_machines;
	run_host();
	if (t.host.vector == VECTOR_LATE) {
		totals.late++;
		if (verbose)
			printf("seed u%llu is late\n", (unsigned long long)t.seed);
		return true;
	}
	if (astray(&t.host) || linux_stored(&t.host))
		return true;
	for (unsigned int k = 0; k < n_machines; k++)
		if (!run_machine(k) || !(machine_equal(k) || wraps(&t.guest[k]) ||
			    astray_on_host(&t.guest[k]))) {
			t.bad = k;
			return false;
		}
	return true;
}

/* ---- when it fails --------------------------------------------------------------------------- */

static unsigned int culprit;

/* Three times, and by the same engine; with the data segments loaded, as they are on the host. */
static bool fails(void)
{
	const u8 *prologue = t.code + (t.q.start - AREA_CODE);

	if (prologue[0] != 0xb8 || prologue[5] != 0x8e || prologue[7] != 0x8e)
		return false;
	for (unsigned int k = 0; k < 3; k++)
		if (run_all() || t.bad != culprit)
			return false;
	return true;
}

static void show(u64 seed)
{
	struct sides s = { "host", machines[t.bad].engine, flags_compared() };
	struct machine *m = &machines[t.bad];

	printf("  run it again with: --one u%llu\n", (unsigned long long)seed);
	sequence_show(&t.q, t.code);
	state_show("start", &t.start);
	state_show("host's end", &t.host);
	printf("  exit %u of %s, vector %u of the host\n", m->run->exit_reason, m->engine,
		t.host.vector);
	state_show_difference(&t.host, &t.guest[t.bad], &s);
	for (size_t n = 0; n < N_WRITTEN; n++)
		memory_show_difference((void *)areas[n].addr, machine_at(m, areas[n].addr),
			areas[n].size, areas[n].addr, &s);
}

/* The second time engines find their code again; the state is another. */
static bool run_twice(u64 seed)
{
	struct random r = { .s = ~seed };

	if (!run_all())
		return false;
	totals.ends[t.host.vector & 255]++;
	gen_state(&t.start, &r, &t.q);
	t.image = rnd_below(&r, IMAGES);
	return run_all();
}

bool user_compare(u64 seed)
{
	char *text;

	make(seed);
	if (run_twice(seed))
		return true;
	culprit = t.bad;
	report_begin();
	show(seed);
	text = report_end();
	if (!fails()) {
		totals.flaky++;
		/* The host forgets the x87 pointers when it switches tasks: FNSTENV shows it. */
		printf("seed u%llu: differed once only\n%s", (unsigned long long)seed,
			verbose ? text : "");
		free(text);
		return true;
	}
	free(text);
	printf("\nFAIL seed u%llu: %s differs from the host\n", (unsigned long long)seed,
		machines[t.bad].engine);
	sequence_minimize(&t.q, t.code, fails);
	run_all();
	show(seed);
	return false;
}

void user_show(u64 seed)
{
	make(seed);
	sequence_show(&t.q, t.code);
	state_show("start", &t.start);
}
