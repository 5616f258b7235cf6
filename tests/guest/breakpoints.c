/*
 * Debug registers: code, data and port breakpoints, DR6, general detect, RF, and what MOV SS
 * delays. SDM 3B 17.2, 17.3.
 */
#include "guest.h"

#ifdef __x86_64__
#define REG64	1
#else
#define REG64	0
#endif

#define DR6_BD	BIT(13)
#define DR6_BS	BIT(14)
#define DR6_BITS	(15 | DR6_BD | DR6_BS | BIT(15))
#define DR7_GD	BIT(13)
enum { BP_EXEC = 0, BP_WRITE = 1, BP_IO = 2, BP_ACCESS = 3 };
enum { LEN1 = 0, LEN2 = 1, LEN8 = 2, LEN4 = 3 };

/* What the handler saw. */
static volatile unsigned hits;
static volatile ulong hit_ip, hit_dr6, hit_dr7, hit_flags, hit_ax;
static volatile bool disarm;

static void on_debug(struct trap_frame *f)
{
	hits++;
	hit_ip = f->ip;
	hit_flags = f->flags;
	hit_ax = f->ax;
	hit_dr6 = read_dr6();
	hit_dr7 = read_dr7();
	write_dr6(0);
	f->flags &= ~FL_TF;
	f->flags |= FL_RF;
	if (disarm)
		write_dr7(0x400);
}

static void arm(int n, const void *addr, int kind, int len)
{
	switch (n) {
	case 0: write_dr0((ulong)addr); break;
	case 1: write_dr1((ulong)addr); break;
	case 2: write_dr2((ulong)addr); break;
	case 3: write_dr3((ulong)addr); break;
	}
	write_dr7(read_dr7() | 2ul << (2 * n) | (ulong)(kind | len << 2) << (16 + 4 * n));
}

static void reset(void)
{
	write_dr7(0x400);
	write_dr6(0);
	hits = 0;
	hit_ip = hit_dr6 = 0;
	disarm = false;
}

static void expect_hit(const char *name, ulong dr6)
{
	if (hits != 1 || (hit_dr6 & DR6_BITS) != dr6)
		check(false, "%s: %u hits, DR6 %lx, want %lx", name, hits, hit_dr6, dr6);
	else if (dr6 && hit_ip != mark)
		check(false, "%s: IP %lx, want %lx", name, hit_ip, mark);
	else
		check(true, "%s", name);
	reset();
}

static void expect_quiet(const char *name)
{
	check(!hits, "%s: %u hits, DR6 %lx", name, hits, hit_dr6);
	reset();
}

/* ---- registers ---- */

static void registers(void)
{
	group("debug registers");
	reset();
	expect("DR6 after 0", read_dr6(), 0xffff0ff0);
	expect("DR7 at rest", read_dr7(), 0x400);
	write_dr6(0xf00f);
	expect("DR6 keeps what exists", read_dr6(), 0xffffeffful);
	write_dr7(0xffffd7ff);
	expect("DR7 keeps what exists", read_dr7() & ~0x800ul, 0xffff07ff & ~0x800ul);
	reset();
	write_dr3(0x12345678);
	expect("DR3", read_dr3(), 0x12345678);
	write_cr4(read_cr4() & ~CR4_DE);
	asm volatile("mov %0, %%db6" :: "r"(1ul));
	{
		ulong v = 0;

		expect_ok("DR4 without CR4.DE", asm volatile(".byte 0x0f, 0x21, 0xe0" : "=a"(v)));
		expect("is DR6", v, 0xffff0ff1);
		write_cr4(read_cr4() | CR4_DE);
		expect_fault_at("DR4 with CR4.DE", UD, 0,
			asm volatile(AT(".byte 0x0f, 0x21, 0xe0") : "=a"(v)));
	}
#if REG64
	expect_fault_at("upper half of DR7", GP, 0,
		asm volatile(AT("mov %0, %%db7") :: "r"(1ul << 32)));
	expect_fault_at("upper half of DR6", GP, 0,
		asm volatile(AT("mov %0, %%db6") :: "r"(1ul << 32)));
#endif
	reset();
}

static void general_detect(void)
{
	ulong v = 0;

	group("general detect");
	disarm = true;
	write_dr7(0x400 | DR7_GD);
	asm volatile(AT("mov %%db0, %0") : "=r"(v));
	expect("GD is clear in the handler", hit_dr7 & DR7_GD, 0);
	expect_hit("read of DR0", DR6_BD);
}

/* ---- code ---- */

static volatile ulong sink;
static u8 snippet[] = { 0x90, 0x90, 0xc3 };	/* nop; nop; ret */

static void run_snippet(void)
{
	((void (*)(void))snippet)();
}

static void code(void)
{
	group("code breakpoints");
	run_snippet();
	mark = (ulong)snippet;
	arm(0, snippet, BP_EXEC, LEN1);
	run_snippet();
	check(!(hit_flags & FL_RF), "the saved flags have no RF");
	expect_hit("before the first instruction", 1);
	mark = (ulong)snippet + 1;
	arm(1, snippet + 1, BP_EXEC, LEN1);
	run_snippet();
	expect_hit("before the second", 2);
	arm(2, snippet + 1, BP_EXEC, LEN1);
	run_snippet();
	run_snippet();
	check(hits == 2, "each time it is reached: %u", hits);
	reset();
	write_dr0((ulong)snippet);
	run_snippet();
	expect_quiet("disabled");
	arm(0, snippet + 2, BP_EXEC, LEN1);
	sink = snippet[2];
	expect_quiet("a read of the instruction");
}

/* ---- data ---- */

static volatile u64 cell __attribute__((aligned(64)));
static volatile u64 other[512] PAGE_ALIGNED;

#ifdef __x86_64__
#define AXN "rax"
#else
#define AXN "eax"
#endif
#define DATA(insn, ...) asm volatile(AFTER(insn) : "+m"(cell) : __VA_ARGS__ : "memory", "cc", "eax")

static void data(void)
{
	group("data breakpoints");
	arm(0, (void *)&cell, BP_WRITE, LEN4);
	DATA("movl $1, %0");
	expect_hit("write", 1);
	arm(0, (void *)&cell, BP_WRITE, LEN4);
	DATA("movl %0, %%eax");
	expect_quiet("read of a write breakpoint");
	arm(3, (void *)&cell, BP_ACCESS, LEN4);
	DATA("movl %0, %%eax");
	expect_hit("read of an access breakpoint", 8);
	arm(0, (void *)&cell, BP_ACCESS, LEN4);
	DATA("movb 4+%0, %%al; movb -1+%0, %%al");
	expect_quiet("bytes beside it");
	arm(0, (void *)&cell, BP_ACCESS, LEN1);
	DATA("movw -1+%0, %%ax");
	expect_hit("a word that overlaps one byte", 1);
	arm(0, (char *)&cell + 3, BP_ACCESS, LEN4);
	DATA("movb %0, %%al");
	expect_hit("low bits of the address are ignored", 1);
	arm(0, (void *)&cell, BP_WRITE, LEN4);
	arm(1, (void *)&cell, BP_ACCESS, LEN2);
	DATA("addl $1, %0");
	expect_hit("two at once", 3);
	arm(0, (void *)&cell, BP_WRITE, LEN4);
	DATA("push $7; pop %0");
	expect_hit("pop", 1);
	arm(0, (void *)&cell, BP_WRITE, LEN4);
	DATA("call 1f; 1: pop %%" AXN);
	expect_quiet("other memory");
	arm(0, (void *)&other[511], BP_WRITE, LEN4);
	{
		void *p = (void *)&other[500];
		ulong n = 16;

		asm volatile(AT("rep stosl") : "+D"(p), "+c"(n) : "a"(0) : "memory");
		/* 23 dwords to the watched one: not reached. */
	}
	expect_quiet("rep stos that stops before it");
	arm(0, (void *)&other[505], BP_WRITE, LEN4);
	{
		void *p = (void *)&other[500];
		ulong n = 16;

		asm volatile(AT("rep stosl") : "+D"(p), "+c"(n) : "a"(0) : "memory");
		check(n == 0, "rep stos goes on after the trap");
	}
	expect_hit("rep stos: trap between two elements", 1);
}

static void ports(void)
{
	group("port breakpoints");
	arm(0, (void *)0x80, BP_IO, LEN1);
	asm volatile(AFTER("outb %%al, $0x80") ::: "memory");
	expect_hit("out", 1);
	arm(1, (void *)0x80, BP_IO, LEN1);
	asm volatile(AFTER("inb $0x80, %%al") ::: "memory", "eax");
	expect_hit("in", 2);
	arm(1, (void *)0x80, BP_IO, LEN1);
	asm volatile("inb $0x84, %%al" ::: "memory", "eax");
	sink = *(volatile u8 *)0x80;
	expect_quiet("another port, and memory");
}

/* ---- what else leads to #DB, and RF ---- */

static void flags(void)
{
	group("flags");
	catch(asm volatile("ud2"));
	check(fault.f.flags & FL_RF, "a fault saves RF");
	catch(asm volatile("int $0x42"));
	check(!(fault.f.flags & FL_RF), "a software interrupt does not");
	write_dr6(0);
	asm volatile(AFTER(".byte 0xf1") ::: "memory");
	expect_hit("int1 leaves DR6 alone", 0);
}

/* ---- single-step ---- */

static volatile ulong steps[32];
volatile unsigned nr_steps;

static void on_step(struct trap_frame *f)
{
	if (nr_steps < ARRAY_SIZE(steps))
		steps[nr_steps++] = f->ip;
	hit_dr6 = read_dr6();
	write_dr6(0);
}

static u8 buffer[64];

/* Where the traps are to come; the bodies fill it in. */
#ifdef __x86_64__
#define SPN "rsp"
#else
#define SPN "esp"
#endif
ulong step_labels[8];
static void expect_steps(const char *name, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		if (i >= nr_steps || steps[i] != step_labels[i]) {
			check(false, "%s: step %u of %u at %lx, want %lx", name, i, nr_steps,
				steps[i], step_labels[i]);
			return;
		}
	}
	check(true, "%s", name);
}

static void stepping(void)
{
	group("single-step");
	trap_handle(DB, on_step);
	asm volatile(
		"mov" WORD_SUFFIX " $11f, step_labels\n"
		"mov" WORD_SUFFIX " $12f, step_labels + %c0\n"
		"mov" WORD_SUFFIX " $13f, step_labels + 2 * %c0\n"
		"movl $0, nr_steps\n"
		"pushf; or" WORD_SUFFIX " $0x100, (%%" SPN "); popf\n"
		"nop\n"			/* TF set by POPF traps after this one */
		"11: jmp 12f\n"
		"nop\n"
		"12: nop\n"
		"13: pushf; and" WORD_SUFFIX " $~0x100, (%%" SPN "); popf\n"
		:: "i"(sizeof(ulong)) : "memory", "cc");
	expect_steps("after each instruction", 3);
	expect("DR6", hit_dr6 & DR6_BITS, DR6_BS);
	asm volatile(
		"mov" WORD_SUFFIX " $11f, step_labels\n"
		"mov" WORD_SUFFIX " $12f, step_labels + %c0\n"
		"movl $0, nr_steps\n"
		"mov %%ss, %%ecx\n"
		"pushf; or" WORD_SUFFIX " $0x100, (%%" SPN "); popf\n"
		"nop\n"
		"11: mov %%ecx, %%ss\n"	/* no trap after it */
		"nop\n"
		"12: pushf; and" WORD_SUFFIX " $~0x100, (%%" SPN "); popf\n"
		:: "i"(sizeof(ulong)) : "memory", "cc", "ecx");
	expect_steps("MOV SS holds the trap back", 2);
	asm volatile(
		"mov" WORD_SUFFIX " $11f, step_labels\n"
		"mov" WORD_SUFFIX " $11f, step_labels + %c0\n"
		"mov" WORD_SUFFIX " $11f, step_labels + 2 * %c0\n"
		"mov" WORD_SUFFIX " $12f, step_labels + 3 * %c0\n"
		"movl $0, nr_steps\n"
		"pushf; or" WORD_SUFFIX " $0x100, (%%" SPN "); popf\n"
		"nop\n"
		"11: rep stosb\n"
		"12: pushf; and" WORD_SUFFIX " $~0x100, (%%" SPN "); popf\n"
		:: "i"(sizeof(ulong)), "D"(buffer), "c"(3) : "memory", "cc");
	expect_steps("after each element of rep", 4);
	asm volatile(
		"mov" WORD_SUFFIX " $11f, step_labels\n"
		"mov" WORD_SUFFIX " $12f, step_labels + %c0\n"
		"movl $0, nr_steps\n"
		"pushf; or" WORD_SUFFIX " $0x100, (%%" SPN "); popf\n"
		"nop\n"
		"11: int $0x59\n"	/* the handler runs free; the next trap is after the NOP */
		"nop\n"
		"12: pushf; and" WORD_SUFFIX " $~0x100, (%%" SPN "); popf\n"
		:: "i"(sizeof(ulong)) : "memory", "cc");
	expect_steps("an interrupt's handler is not stepped", 2);
	trap_handle(DB, on_debug);
}

static void nothing(struct trap_frame *f)
{
}

/* A data breakpoint that MOV SS meets waits for the next instruction's end. */
static void held_back(void)
{
	static u16 selector;

	group("MOV SS");
	asm volatile("mov %%ss, %0" : "=m"(selector));
	arm(0, &selector, BP_ACCESS, LEN2);
	asm volatile("mov" WORD_SUFFIX " $771f, mark\n mov %0, %%ss\n nop\n 771:"
		:: "m"(selector) : "memory");
	expect_hit("holds back its own breakpoint", 1);
	arm(0, &selector, BP_ACCESS, LEN2);
	asm volatile("mov" WORD_SUFFIX " $771f, mark\n mov %0, %%ss\n .byte 0xf1\n 771:"
		:: "m"(selector) : "memory");
	expect_hit("and int1 takes it along", 1);
	arm(0, &selector, BP_ACCESS, LEN2);
	catch(asm volatile("mov %0, %%ss\n ud2" :: "m"(selector) : "memory"));
	expect("#UD behind it", fault.vector, UD);
	reset();
}

void guest_main(void)
{
	write_cr4(read_cr4() | CR4_DE);
	trap_handle(DB, on_debug);
	trap_handle(0x59, nothing);
	registers();
	general_detect();
	code();
	data();
	ports();
	flags();
	held_back();
	stepping();
}
