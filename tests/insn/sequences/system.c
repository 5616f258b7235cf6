/*
 * System programs on all engines in lockstep: after each exit every machine must be in the same
 * state and ask for the same; all get the same answer, made from the program's seed.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/x86/regs.h"
#include "tests/insn/sequences/privileged.h"
#include "tests/insn/sequences/sequences.h"

#define EXITS_MAX	150
#define BUDGET		100
#define COMPARED	0xb0000		/* of the RAM */

static struct trial {
	u64 seed, run_seed;
	struct sequence q;
	struct state start;
	struct start how;
	u8 code[CODE_SIZE], control[4096];
	unsigned int bad, exits;
	const char *what;		/* differs */
	struct side {
		struct state s;
		struct kvm_sregs sr;
		struct kvm_debugregs dr;
		struct kvm_vcpu_events ev;
		struct exit {
			u32 reason, size, count, write;
			u64 addr;
			u8 data[64];
		} exit;
	} side[MAX_MACHINES];
} t;

/* ---- a program ------------------------------------------------------------------------------- */

static void choose_machine(struct random *r, enum mode first)
{
	t.how = (struct start){ .cs = mode_info[first].cs, .ss = mode_info[first].ss,
		.idt = AT_IDT, .fs_base = 0x40, .gs_base = 0x80,
		.cr3 = rnd_chance(r, 50) ? AT_PML4 : AT_PML4_B };
	if (rnd_chance(r, 50))
		t.how.cr0 |= CR0_WP;
	if (rnd_chance(r, 50))
		t.how.cr4 |= CR4_PGE;
	if (rnd_chance(r, 50))
		t.start.rflags |= RFLAGS_IF;
	if (rnd_chance(r, 30))
		t.start.rflags |= RFLAGS_IOPL;
	if (rnd_chance(r, 5))
		t.start.rflags |= RFLAGS_TF;
}

static void make(u64 seed)
{
	struct random r = { .s = seed };
	enum mode first;

	memset((void *)AREA_CODE, 0xcc, CODE_SIZE);
	memset((void *)AT_CONTROL, 0, 4096);
	t.seed = seed;
	first = privileged_make(&t.q, &r);
	gen_state(&t.start, &r, &t.q);
	choose_machine(&r, first);
	memcpy(t.code, (void *)AREA_CODE, CODE_SIZE);
	memcpy(t.control, (void *)AT_CONTROL, 4096);
	t.run_seed = rnd(&r);
}

/* ---- running it ------------------------------------------------------------------------------ */

static void put32(struct machine *m, u64 addr, u32 val)
{
	memcpy(machine_at(m, addr), &val, 4);
}

/* Some interrupt gates use the stack that there is: from CPL 0 whatever RSP says. */
static void choose_stacks(struct machine *m, u64 bits)
{
	static const u8 vectors[] = { VEC_UD, VEC_GP, VEC_PF, VEC_DE, VECTOR_RESUME, 0x20, 0x21, 0x22 };

	for (size_t k = 0; k < ARRAY_SIZE(vectors); k++)
		if ((bits >> k * 3 & 7) == 0)
			*(u8 *)machine_at(m, AT_IDT + vectors[k] * 16 + 4) = 0;
}

static void put_data(struct machine *m, u64 seed)
{
	struct random r = { .s = seed };
	u64 *p = machine_at(m, AREA_DATA);

	for (unsigned int k = 0; k < DATA_SIZE / 8; k += 4) {
		u64 v = rnd(&r);

		p[k] = v;
		p[k + 1] = v >> 60;
		p[k + 2] = (u32)v;
		p[k + 3] = (u64)(s64)(s8)v;
	}
	memcpy(machine_at(m, AT_FRAMES), machine_at(m, AREA_DATA), 0x4000);
	memcpy(machine_at(m, AT_LAZY), machine_at(m, AREA_DATA), 0x1000);
}

/* From an instruction's aftermath nobody shall see what flags it left. */
static bool flags_undefined(u64 rip)
{
	u64 at = AREA_CODE + (rip & (CODE_SIZE - 1));

	if (rip - AREA_CODE >= AT_ALIAS + CODE_SIZE - AREA_CODE)
		return false;
	for (unsigned int k = 0; k < t.q.n; k++)
		if (t.q.insn[k].addr == at && t.q.insn[k].row == ROW_SKIPPED)
			return true;
	return false;
}

static void put_undefined(struct machine *m)
{
	u8 *bits = machine_at(m, AT_UNDEFINED);

	for (unsigned int k = 0; k < t.q.n; k++) {
		u64 off = t.q.insn[k].addr - AREA_CODE;

		if (t.q.insn[k].row == ROW_SKIPPED)
			bits[off / 8] |= (u8)(1 << off % 8);
	}
}

static bool put_machine(struct machine *m)
{
	struct random r = { .s = t.run_seed };

	machine_set_clean(m);
	put_data(m, t.run_seed);
	memcpy(machine_at(m, AREA_CODE), t.code, CODE_SIZE);
	memcpy(machine_at(m, AT_CONTROL), t.control, 4096);
	put32(m, VAR_BUDGET, BUDGET);
	put32(m, VAR_STEPS, STEPS);
	put32(m, VAR_RSP, AREA_DATA + 0x2000);
	put32(m, VAR_RESUME, (u32)t.q.end);
	put32(m, VAR_SEL, SEL_CODE64 | (u32)SEL_DATA << 16);
	put_undefined(m);
	choose_stacks(m, rnd(&r));
	return !machine_start(m, &t.how, &t.start);
}

static void take_exit(const struct machine *m, struct exit *e)
{
	const struct kvm_run *run = m->run;

	memset(e, 0, sizeof(*e));
	e->reason = m->late ? 63 : run->exit_reason;
	if (e->reason == KVM_EXIT_IO) {
		e->addr = run->io.port;
		e->size = run->io.size;
		e->count = run->io.count;
		e->write = run->io.direction == KVM_EXIT_IO_OUT;
		if (e->write && e->size * e->count <= sizeof(e->data))
			memcpy(e->data, (u8 *)run + run->io.data_offset, e->size * e->count);
	} else if (e->reason == KVM_EXIT_MMIO) {
		e->addr = run->mmio.phys_addr;
		e->size = run->mmio.len;
		e->write = run->mmio.is_write;
		if (e->write && e->size <= 8)
			memcpy(e->data, run->mmio.data, e->size);
	} else if (e->reason == KVM_EXIT_INTERNAL_ERROR) {
		e->addr = run->internal.suberror;
	}
}

static bool take_side(const struct machine *m, struct side *s)
{
	memset(s, 0, sizeof(*s));
	take_exit(m, &s->exit);
	return !machine_state(m, &s->s, &s->sr) && !machine_call(m, KVM_GET_DEBUGREGS, &s->dr) &&
	       !machine_call(m, KVM_GET_VCPU_EVENTS, &s->ev);
}

#define FLAGS_ALL (~0ULL)

static const char *side_differs(const struct side *a, const struct side *b)
{
	if (memcmp(&a->exit, &b->exit, sizeof(a->exit)))
		return "exit";
	if (a->exit.reason == 63)
		return NULL;
	if (!state_equal(&a->s, &b->s, flags_undefined(a->s.rip) ? ~RFLAGS_ARITH : FLAGS_ALL))
		return "registers";
	if (memcmp(&a->sr, &b->sr, sizeof(a->sr)))
		return "system registers";
	if (memcmp(&a->dr, &b->dr, sizeof(a->dr)))
		return "debug registers";
	return memcmp(&a->ev, &b->ev, sizeof(a->ev)) ? "events" : NULL;
}

static bool over(const struct exit *e)
{
	return e->reason == KVM_EXIT_SHUTDOWN || e->reason == KVM_EXIT_INTERNAL_ERROR ||
		e->reason == 63 || (e->reason == KVM_EXIT_IO && e->addr == PORT_END && e->write);
}

/* The devices' answers, and interrupts. */
static void answer(struct machine *m, struct random *r)
{
	struct kvm_run *run = m->run;
	u64 val = rnd(r);
	u32 what = rnd_below(r, 100);
	struct kvm_interrupt irq = { .irq = 0x20 + rnd_below(r, 4) };

	if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
		memcpy(run->mmio.data, &val, 8);
	if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
		for (unsigned int k = 0; k < run->io.size * run->io.count; k++)
			((u8 *)run + run->io.data_offset)[k] = (u8)(val >> k % 8 * 8);
	if (what < 30)
		machine_call(m, KVM_INTERRUPT, &irq);
	/* In the middle of an instruction that also traps, how soon it comes is the engine's choice. */
	else if (what < 36 && run->exit_reason != KVM_EXIT_MMIO && run->exit_reason != KVM_EXIT_IO)
		machine_call(m, KVM_NMI, NULL);
	run->request_interrupt_window = rnd_chance(r, 20);
}

static bool differs(unsigned int k, const char *what)
{
	t.bad = k;
	t.what = what;
	return true;
}

static bool memory_differs(void)
{
	for (unsigned int k = 1; k < n_machines; k++)
		if (memcmp(machines[0].ram, machines[k].ram, COMPARED))
			return differs(k, "memory");
	return false;
}

static void show_exit(const struct machine *m, const struct side *s)
{
	const struct exit *e = &s->exit;

	printf("  exit of %s: reason %u %s addr %llx size %u count %u data", m->engine, e->reason,
		e->write ? "write" : "", (unsigned long long)e->addr, e->size, e->count);
	for (unsigned int k = 0; k < 8; k++)
		printf(" %02x", e->data[k]);
	printf("; at %llx cs %x flags %llx\n", (unsigned long long)s->s.rip, s->s.cs,
		(unsigned long long)s->s.rflags);
}

static bool tracing;

/* One exit of all machines; true when they differ. */
static bool step_differs(void)
{
	for (unsigned int k = 0; k < n_machines; k++)
		if (machine_run(&machines[k]) || !take_side(&machines[k], &t.side[k]))
			return differs(k ? k : 1, "KVM_RUN");
	if (tracing)
		for (unsigned int k = 0; k < n_machines; k++)
			show_exit(&machines[k], &t.side[k]);
	for (unsigned int k = 1; k < n_machines; k++) {
		const char *what = side_differs(&t.side[0], &t.side[k]);

		if (what)
			return differs(k, what);
	}
	return false;
}

static void count(void)
{
	const struct exit *e = &t.side[0].exit;

	totals.exits[e->reason & 63]++;
	totals.late += e->reason == 63;
}

static bool run_all_differ(void)
{
	for (unsigned int k = 0; k < n_machines; k++) {
		struct random r = { .s = t.run_seed };

		if (!put_machine(&machines[k]))
			return differs(k ? k : 1, "start");
		machines[k].run->exit_reason = KVM_EXIT_UNKNOWN;
		answer(&machines[k], &r);
	}
	for (t.exits = 0; t.exits < EXITS_MAX; t.exits++) {
		if (step_differs())
			return true;
		count();
		if (over(&t.side[0].exit))
			break;
		for (unsigned int k = 0; k < n_machines; k++) {
			struct random r = { .s = t.run_seed + t.exits + 1 };

			answer(&machines[k], &r);
		}
	}
	return t.side[0].exit.reason != 63 && memory_differs();
}

/* ---- when it fails --------------------------------------------------------------------------- */

static const char *wanted;

static bool fails(void)
{
	return run_all_differ() && run_all_differ();
}

static void show_log(const struct machine *m)
{
	u32 n;

	memcpy(&n, machine_at(m, VAR_INDEX), 4);
	printf("  log of %s, %u events:\n", m->engine, n);
	for (u32 k = n > 20 ? (n < 64 ? n : 64) - 20 : 0; k < n && k < 64; k++) {
		const u64 *e = machine_at(m, AT_LOG + k * 64);

		printf("    %3llu error %llx at %02llx:%08llx flags %05llx sp %02llx:%llx cr2 %llx\n",
			(unsigned long long)e[0], (unsigned long long)e[1],
			(unsigned long long)e[3], (unsigned long long)e[2],
			(unsigned long long)e[4], (unsigned long long)e[6],
			(unsigned long long)e[5], (unsigned long long)e[7]);
	}
}

static void show_sregs(const struct side *a, const struct side *b, const struct sides *s)
{
	static const struct { const char *name; size_t at; } fields[] = {
#define F(f) { #f, offsetof(struct kvm_sregs, f) }
		F(cr0), F(cr2), F(cr3), F(cr4), F(cr8), F(efer), F(apic_base), F(cs.base), F(ss.base),
		F(fs.base), F(gs.base), F(ds.base), F(es.base), F(gdt.base), F(idt.base),
#undef F
	};

	for (size_t k = 0; k < ARRAY_SIZE(fields); k++) {
		u64 x, y;

		memcpy(&x, (u8 *)&a->sr + fields[k].at, 8);
		memcpy(&y, (u8 *)&b->sr + fields[k].at, 8);
		if (x != y)
			printf("  %-9s %s %016llx %s %016llx\n", fields[k].name, s->a,
				(unsigned long long)x, s->b, (unsigned long long)y);
	}
	if (a->dr.dr6 != b->dr.dr6 || a->dr.dr7 != b->dr.dr7)
		printf("  dr6 %llx %llx dr7 %llx %llx\n", (unsigned long long)a->dr.dr6,
			(unsigned long long)b->dr.dr6, (unsigned long long)a->dr.dr7,
			(unsigned long long)b->dr.dr7);
}

static void show(void)
{
	const struct machine *a = &machines[0], *b = &machines[t.bad];
	const struct side *x = &t.side[0], *y = &t.side[t.bad];
	struct sides s = { a->engine, b->engine, FLAGS_ALL };

	printf("  run it again with: --one s%llu\n", (unsigned long long)t.seed);
	sequence_show(&t.q, t.code);
	state_show("start", &t.start);
	printf("  cs %x cr3 %llx cr0 %llx cr4 %llx\n  after %u exits: %s\n", t.how.cs,
		(unsigned long long)t.how.cr3, (unsigned long long)t.how.cr0,
		(unsigned long long)t.how.cr4, t.exits, t.what);
	show_log(a);
	show_log(b);
	state_show_difference(&x->s, &y->s, &s);
	show_sregs(x, y, &s);
	memory_show_difference(a->ram, b->ram, COMPARED, BASE, &s);
}

static void count_events(void)
{
	u32 n;

	memcpy(&n, machine_at(&machines[0], VAR_INDEX), 4);
	for (u32 k = 0; k < n && k < 64; k++)
		totals.events[*(u8 *)machine_at(&machines[0], AT_LOG + k * 64)]++;
}

bool system_compare(u64 seed)
{
	char *text;

	make(seed);
	if (!run_all_differ()) {
		count_events();
		return true;
	}
	wanted = t.what;
	report_begin();
	show();
	text = report_end();
	if (!fails()) {
		totals.flaky++;
		printf("\nseed s%llu: differed once only: %s\n%s", (unsigned long long)seed, wanted,
			text);
		free(text);
		return true;
	}
	free(text);
	printf("\nFAIL seed s%llu: %s differs from %s: %s\n", (unsigned long long)seed,
		machines[t.bad].engine, machines[0].engine, t.what);
	sequence_minimize(&t.q, t.code, fails);
	tracing = true;
	run_all_differ();
	tracing = false;
	show();
	return false;
}

void system_show(u64 seed)
{
	make(seed);
	sequence_show(&t.q, t.code);
	state_show("start", &t.start);
}
