/*
 * A hostile guest kernel: random code, mostly system instructions, in every processor mode, with
 * random but plausible descriptor tables, TSS, page tables and segment registers.
 *
 * vcpu-fuzz [seed [machines]]
 *
 * Machine n has seed + n, so that each can be had alone. What must hold: KVM_RUN comes back with an
 * exit that makes sense (run it under ASan and UBSan), and what KVM_GET_SREGS then says is a state
 * that a processor can be in.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

#include <linux/kvm.h>

#include "hypervisor/api/qkvm.h"
#include "hypervisor/x86/regs.h"

#define RAM_SIZE	(1u << 20)
#define GDT_AT		0x1000
#define IDT_AT		0x2000
#define TSS_AT		0x3000
#define TABLES_AT	0x8000	/* PML4 or PDPT or PD, and what hangs below */
#define CODE_AT		0x20000
#define CODE_SIZE	0x4000
#define GDT_ENTRIES	64
#define EXITS_MAX	200	/* of one machine */

static u64 rng, current_seed;
static volatile sig_atomic_t ticks;
static struct kvm_run *volatile running;

/* xorshift64* */
static u64 rnd(void)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * 2685821657736338717ULL;
}

static u32 below(u32 n)
{
	return (u32)(rnd() >> 33) % n;
}

static bool chance(u32 percent)
{
	return below(100) < percent;
}

static void fail(const char *what, long value)
{
	fprintf(stderr, "vcpu-fuzz: seed %llu: %s: %ld\n", (unsigned long long)current_seed, what,
		value);
	exit(1);
}

/*
 * However the process dies, it says with which seed. Of the sanitizers' runtime, where there is
 * one.
 */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void on_death(void)
{
	fprintf(stderr, "vcpu-fuzz: seed %llu\n", (unsigned long long)current_seed);
}

static void on_crash(int sig)
{
	on_death();
	signal(sig, SIG_DFL);
	raise(sig);
}

static long call(int fd, unsigned long request, const void *arg)
{
	return qkvm_ioctl(fd, request, (unsigned long)arg);
}

static long must(long r, const char *what)
{
	if (r < 0)
		fail(what, r);
	return r;
}

/* The guest may loop for ever: a tick asks for the end of the run. */
static void on_tick(int sig)
{
	ticks++;
	if (running)
		running->immediate_exit = 1;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static u64 random_descriptor(void)
{
	static const u8 types[] = {0x9b, 0x93, 0xfb, 0xf3, 0x9f, 0x97, 0x82, 0x89, 0x8b, 0x8c,
		0x84, 0x85,
				   0x81, 0x83, 0xec, 0xe5, 0xb3, 0xbb, 0x91, 0x99, 0x1b, 0x13};
	u64 base = chance(70) ? 0 : below(RAM_SIZE);
	u64 limit = chance(70) ? 0xfffff : below(0x10000);
	u8 type = types[below(sizeof(types))], flags = (u8)below(16);

	if (chance(5))
		return rnd();
	if (type == 0x89 || type == 0x8b || type == 0x81 || type == 0x83) {
		base = TSS_AT + 0x200 * below(4);
		limit = 0x67 + below(3) * 0x80;
		flags = 0;
	}
	/* A gate: its fields lie elsewhere. */
	if (!(type & 0x10) && (type & 7) >= 4)
		return (u64)((CODE_AT + below(CODE_SIZE)) & 0xffff) |
			(u64)(below(GDT_ENTRIES) * 8) << 16 |
			(u64)type << 40 | (u64)below(32) << 32 | (u64)(CODE_AT >> 16) << 48;
	return (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)type << 40 |
		(limit >> 16 & 15) << 48 |
		(u64)flags << 52 | (base >> 24) << 56;
}

static void fill_tables(u8 *ram, bool wide)
{
	u64 *gdt = (u64 *)(ram + GDT_AT), *idt = (u64 *)(ram + IDT_AT);
	static const u8 gates[] = {0x8e, 0x8f, 0xee, 0xef, 0x86, 0x85, 0xe7};
	unsigned int i;

	for (i = 1; i < GDT_ENTRIES; i++)
		gdt[i] = random_descriptor();
	gdt[1] = wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff;
	gdt[2] = 0x00cf93000000ffff;
	gdt[3] = wide ? 0x00affb000000ffff : 0x00cffb000000ffff;
	gdt[4] = 0x00cff3000000ffff;
	for (i = 0; i < 512; i++) {
		u64 off = CODE_AT + below(CODE_SIZE);
		u8 type = chance(80) ? 0x8e : gates[below(sizeof(gates))];
		u16 sel = (u16)(chance(80) ? 8 : below(GDT_ENTRIES) * 8);

		idt[i] = (off & 0xffff) | (u64)sel << 16 | (u64)(chance(90) ? 0 : below(8)) << 32 |
			(u64)type << 40 | off >> 16 << 48;
		if (wide && i & 1)
			idt[i] = chance(95) ? 0 : rnd();
	}
	for (i = 0; i < 0x1000; i += 4) {
		u32 v = chance(50) ? below(RAM_SIZE) : chance(50) ? below(GDT_ENTRIES) * 8 : 0;

		memcpy(ram + TSS_AT + i, &v, 4);
	}
}

/* Identity maps of the first megabytes with holes, user and read-only pages. */
static void fill_pages(u8 *ram, bool wide, bool pae)
{
	u64 *t = (u64 *)(ram + TABLES_AT);
	u32 *t32 = (u32 *)(ram + TABLES_AT);
	unsigned int i;

	memset(t, 0, 0x4000);
	if (wide) {
		t[0] = (TABLES_AT + 0x1000) | 7;
		t[511] = t[0];
		t[512] = (TABLES_AT + 0x2000) | 7;
		t[1024] = (TABLES_AT + 0x3000) | 7;
		t[1025] = 0x87;
	} else if (pae) {
		t[0] = (TABLES_AT + 0x2000) | 1;
		t[1024] = (TABLES_AT + 0x3000) | 7;
	} else {
		t32[0] = (TABLES_AT + 0x3000) | 7;
		t32[1] = 0x87;
	}
	for (i = 0; i < 256; i++) {
		u64 e = (u64)i << 12 | (chance(90) ? 7 : below(8));

		if (wide || pae)
			t[512 * 3 + i] = chance(3) ? rnd() : e;
		else
			t32[1024 * 3 + i] = (u32)e;
	}
}

static void fill_code(u8 *ram)
{
	static const u8 starts[][4] = {
		{0x0f, 0x01}, {0x0f, 0x00}, {0x0f, 0x20}, {0x0f, 0x22}, {0x0f, 0x21}, {0x0f, 0x23},
		{0x0f, 0x30}, {0x0f, 0x32}, {0x0f, 0x05}, {0x0f, 0x07}, {0x0f, 0x34}, {0x0f, 0x35},
		{0x0f, 0x02}, {0x0f, 0x03}, {0x0f, 0xa2}, {0x0f, 0x06}, {0x0f, 0xae}, {0x0f, 0xc7},
		{0x48, 0x0f, 0x01}, {0x48, 0xcf}, {0x48, 0xcb}, {0xcf}, {0xcb}, {0xca}, {0xcd},
		{0xcc}, {0xf1},
		{0x8e}, {0x8c}, {0xff}, {0xea}, {0x9a}, {0x9d}, {0x9c}, {0xfa}, {0xfb}, {0xe4},
		{0xee}, {0x6d},
		{0x6e}, {0xf3, 0xa4}, {0xf2, 0xae}, {0x17}, {0x07}, {0x1f}, {0xc5}, {0xc4},
		{0x63}, {0x62},
		{0xc8}, {0xc9}, {0x60}, {0x61}, {0x66}, {0x67}, {0x0f, 0xb2}, {0x0f, 0xa1},
		{0xf3, 0x0f, 0xae},
		{0x66, 0x0f, 0x38, 0x82}, {0x0f, 0x08}, {0x0f, 0x09}, {0xb8}, {0x05}, {0x31},
		{0x89}, {0x8b},
		{0xeb, 0x02}, {0x70, 0x01}, {0x50}, {0x58}, {0x68}, {0x6a},
	};
	unsigned int at = 0, n;

	for (n = 0; n < CODE_SIZE; n++)
		ram[CODE_AT + n] = (u8)rnd();
	while (at + 8 < CODE_SIZE) {
		const u8 *s = starts[below(ARRAY_SIZE(starts))];

		for (n = 0; n < 4 && (s[n] || n == 0); n++)
			ram[CODE_AT + at + n] = s[n];
		at += n + below(4);
	}
}

/* ---- processor ------------------------------------------------------------------------------- */

enum mode { REAL, PROT16, PROT32, PAGED32, PAE, LONG64, COMPAT, V86, NR_MODES };

static void set_flat(struct kvm_segment *s, u16 sel, u8 type, unsigned int dpl, bool db, bool l)
{
	*s = (struct kvm_segment){.limit = 0xffffffff, .selector = sel, .type = type, .present = 1,
		.dpl = (u8)dpl, .db = db, .s = 1, .l = l, .g = 1};
}

static void set_segments(struct kvm_sregs *s, enum mode m, unsigned int cpl)
{
	struct kvm_segment *all[] = {&s->ds, &s->es, &s->fs, &s->gs, &s->ss, &s->cs};
	u16 rpl = (u16)cpl;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if (m == REAL || m == V86)
			*all[i] = (struct kvm_segment){.limit = 0xffff, .type = 3, .present = 1,
			.s = 1,
				.dpl = m == V86 ? 3 : 0};
		else
			set_flat(all[i], (u16)((cpl ? 0x20 : 0x10) | rpl), 3, cpl, m != PROT16,
			false);
	}
	if (m == REAL || m == V86) {
		s->cs.base = CODE_AT;
		s->cs.selector = CODE_AT >> 4;
	} else {
		set_flat(&s->cs, (u16)((cpl ? 0x18 : 8) | rpl), 11, cpl, m != PROT16 &&
			m != LONG64, m == LONG64);
	}
	s->tr = (struct kvm_segment){.base = TSS_AT, .limit = 0x67, .selector = 0x38, .type = 11,
		.present = 1};
	s->ldt = (struct kvm_segment){.base = GDT_AT, .limit = 0xff, .selector = 0x30, .type = 2,
		.present = 1};
	if (m == PROT16 && chance(50))
		s->tr.type = 3;
}

static void set_state(int vcpu, enum mode m)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	bool user = chance(40);
	unsigned int cpl = m == REAL ? 0 : m == V86 ? 3 : user ? 3 : 0;
	bool wide = m == LONG64 || m == COMPAT;
	u64 *regs = (u64 *)&r;
	unsigned int i;

	must(call(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	set_segments(&s, m, cpl);
	s.gdt.base = GDT_AT;
	s.gdt.limit = GDT_ENTRIES * 8 - 1;
	s.idt.base = IDT_AT;
	s.idt.limit = wide ? 0xfff : 0x7ff;
	s.cr0 = CR0_ET | CR0_NE | (m == REAL ? 0 : CR0_PE) | (m >= PAGED32 &&
		m <= COMPAT ? CR0_PG : 0) |
		(chance(50) ? CR0_WP : 0) | (chance(20) ? CR0_AM : 0);
	s.cr3 = TABLES_AT;
	s.cr4 = CR4_PSE | (m == PAE || wide ? CR4_PAE : 0) | (chance(50) ? CR4_OSFXSR : 0) |
		(chance(30) ? CR4_OSXSAVE : 0) | (chance(30) ? CR4_UMIP : 0) |
		(chance(30) ? CR4_DE : 0);
	s.efer = (wide ? EFER_LME | EFER_LMA : 0) | (chance(70) ? EFER_SCE : 0);
	must(call(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	for (i = 0; i < 16; i++)
		regs[i] = chance(60) ? below(RAM_SIZE) :
			chance(50) ? below(GDT_ENTRIES) * 8 : rnd();
	r.rsp = 0x8000 - below(0x800) * 2;
	r.rip = (m == REAL || m == V86 ? 0 : CODE_AT) + below(CODE_SIZE);
	r.rflags = 2 | (rnd() & 0x47fd5) | (m == V86 ? RFLAGS_VM : 0);
	if (chance(90))
		r.rflags &= ~(RFLAGS_TF | RFLAGS_NT);
	must(call(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

/* Every component that there is, or some, and any of their bytes. */
static void set_xstate(int sys, int vcpu)
{
	static struct kvm_xsave x;
	u64 all, *words = (u64 *)x.region;
	struct kvm_device_attr attr = { .attr = KVM_X86_XCOMP_GUEST_SUPP, .addr = (u64)&all };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	must(call(sys, KVM_GET_DEVICE_ATTR, &attr), "KVM_X86_XCOMP_GUEST_SUPP");
	xcrs.xcrs[0].value = chance(70) ? all : all & (XCR0_X87 | XCR0_SSE | XCR0_AVX);
	must(call(vcpu, KVM_SET_XCRS, &xcrs), "KVM_SET_XCRS");
	must(call(vcpu, KVM_GET_XSAVE, &x), "KVM_GET_XSAVE");
	for (unsigned int n = below(400); n; n--)
		words[20 + below(ARRAY_SIZE(x.region) / 2 - 20)] = rnd();
	memset(words + 64, 0, 64);
	words[64] = rnd() & all;
	must(call(vcpu, KVM_SET_XSAVE, &x), "KVM_SET_XSAVE");
}

/* ---- what must hold -------------------------------------------------------------------------- */

static void check_state(int vcpu)
{
	struct kvm_sregs s;
	struct kvm_regs r;
	bool prot, v86;

	must(call(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	must(call(vcpu, KVM_GET_REGS, &r), "KVM_GET_REGS");
	prot = s.cr0 & CR0_PE;
	v86 = prot && r.rflags & RFLAGS_VM;
	if (!(r.rflags & RFLAGS_FIXED) || r.rflags & 0xffffffffffc08028ULL)
		fail("RFLAGS", (long)r.rflags);
	if (s.cr0 & CR0_PG && !prot)
		fail("PG without PE", (long)s.cr0);
	if (!!(s.efer & EFER_LMA) != (s.efer & EFER_LME && s.cr0 & CR0_PG))
		fail("EFER.LMA", (long)s.efer);
	if (s.efer & EFER_LMA && (!(s.cr4 & CR4_PAE) || v86))
		fail("long mode", (long)s.cr4);
	if (s.efer & EFER_LMA && s.cs.l && s.cs.db)
		fail("L and D", s.cs.selector);
	if (v86 && (s.ss.dpl != 3 || s.cs.base != (u64)s.cs.selector << 4))
		fail("virtual-8086 segments", s.cs.selector);
}

static bool exit_is_known(const struct kvm_run *run)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
	case KVM_EXIT_MMIO:
	case KVM_EXIT_HLT:
	case KVM_EXIT_SHUTDOWN:
	case KVM_EXIT_INTR:
	case KVM_EXIT_DEBUG:
	case KVM_EXIT_INTERNAL_ERROR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SYSTEM_EVENT:
		return true;
	default:
		return false;
	}
}

static bool run_once(int vcpu, struct kvm_run *run)
{
	long r;

	running = run;
	r = qkvm_ioctl(vcpu, KVM_RUN, 0);
	running = NULL;
	run->immediate_exit = 0;
	if (r == -EINTR)
		return false;
	must(r, "KVM_RUN");
	if (!exit_is_known(run))
		fail("exit reason", run->exit_reason);
	if (run->exit_reason == KVM_EXIT_MMIO && !run->mmio.is_write)
		memset(run->mmio.data, (int)rnd(), 8);
	if (chance(5)) {
		struct kvm_interrupt irq = {.irq = below(256)};

		call(vcpu, chance(50) ? KVM_NMI : KVM_INTERRUPT, &irq);
	}
	return run->exit_reason != KVM_EXIT_SHUTDOWN && run->exit_reason != KVM_EXIT_INTERNAL_ERROR;
}

static void set_debug(int vcpu)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE};

	if (chance(50))
		d.control |= KVM_GUESTDBG_SINGLESTEP;
	if (chance(50)) {
		d.control |= KVM_GUESTDBG_USE_HW_BP;
		d.arch.debugreg[0] = CODE_AT + below(CODE_SIZE);
		d.arch.debugreg[1] = TSS_AT + below(0x1000);
		d.arch.debugreg[7] = 0x400 | 0xa | 3 << 20;
	}
	must(call(vcpu, KVM_SET_GUEST_DEBUG, &d), "KVM_SET_GUEST_DEBUG");
}

struct machine {
	int sys, vm, vcpu;
	struct kvm_run *run;
	u8 *ram;
};

static void set_cpuid(struct machine *m)
{
	static struct { struct kvm_cpuid2 h; struct kvm_cpuid_entry2 e[128]; } c;

	c.h.nent = 128;
	must(call(m->sys, KVM_GET_SUPPORTED_CPUID, &c), "KVM_GET_SUPPORTED_CPUID");
	/* Intel and AMD differ in what exists in which mode. */
	if (chance(50))
		memcpy(&c.h.entries[0].ebx, "Genu", 4);
	must(call(m->vcpu, KVM_SET_CPUID2, &c), "KVM_SET_CPUID2");
}

static void machine_new(struct machine *m)
{
	struct kvm_userspace_memory_region slot = {.memory_size = RAM_SIZE};
	void *run;

	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->sys = (int)must(qkvm_open(), "open");
	m->vm = (int)must(qkvm_ioctl(m->sys, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	slot.userspace_addr = (u64)m->ram;
	must(call(m->vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	m->vcpu = (int)must(qkvm_ioctl(m->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	must(qkvm_mmap(m->vcpu, 12288, &run), "mmap");
	m->run = run;
	set_cpuid(m);
}

static void machine_free(struct machine *m)
{
	munmap(m->run, 12288);
	qkvm_close(m->vcpu);
	qkvm_close(m->vm);
	qkvm_close(m->sys);
	munmap(m->ram, RAM_SIZE);
}

static void fuzz_one(struct machine *m)
{
	enum mode mode = below(NR_MODES);
	unsigned int n;
	sig_atomic_t before = ticks;

	fill_tables(m->ram, mode == LONG64 || mode == COMPAT);
	fill_pages(m->ram, mode == LONG64 || mode == COMPAT, mode == PAE);
	fill_code(m->ram);
	set_state(m->vcpu, mode);
	if (chance(20))
		set_debug(m->vcpu);
	if (chance(50))
		set_xstate(m->sys, m->vcpu);
	for (n = 0; n < EXITS_MAX && ticks - before < 2; n++) {
		if (!run_once(m->vcpu, m->run))
			break;
	}
	check_state(m->vcpu);
}

int main(int argc, char **argv)
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
	u32 machines = argc > 2 ? (u32)strtoul(argv[2], NULL, 0) : 3000;
	struct itimerval tick = {.it_interval = {0, 5000}, .it_value = {0, 5000}};
	struct sigaction act = {.sa_handler = on_tick};
	u32 n;

	sigaction(SIGALRM, &act, NULL);
	signal(SIGABRT, on_crash);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(on_death);
	else
		signal(SIGSEGV, on_crash);
	setitimer(ITIMER_REAL, &tick, NULL);
	for (n = 0; n < machines; n++) {
		struct machine m;

		current_seed = seed + n;
		rng = current_seed * 0x9e3779b97f4a7c15ULL | 1;
		machine_new(&m);
		fuzz_one(&m);
		machine_free(&m);
	}
	printf("seed %llu, %u machines\n", (unsigned long long)seed, machines);
	return 0;
}
