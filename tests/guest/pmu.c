/*
 * Performance counters of AMD's kind: what they count, at which CPL, how they are read, and the interrupt when one
 * overflows. APM 2 13.2
 */
#include "chips.h"

#define EVNTSEL(n)	(0xc0010000 + (n))
#define PERFCTR(n)	(0xc0010004 + (n))
#define CORE_CTL(n)	(0xc0010200 + 2 * (n))
#define CORE_CTR(n)	(0xc0010201 + 2 * (n))

#define CYCLES		0x76
#define INSNS		0xc0
#define BRANCHES	0xc2
#define USR		(1u << 16)
#define OS		(1u << 17)
#define INT		(1u << 20)
#define EN		(1u << 22)

#define MASK48		((1ull << 48) - 1)
#define PMI		0x55
#define LOOPS		1000u

static void count(int n, u64 select, u64 from)
{
	wrmsr(EVNTSEL(n), 0);
	wrmsr(PERFCTR(n), from);
	wrmsr(EVNTSEL(n), select);
}

/* What counter n has counted between two RDPMC: the first, three moves and LOOPS times LOOP. */
#define COUNTED_INSNS (LOOPS + 4)
static u32 counted(u32 n)
{
	u32 got, before, high, index = n;

	asm volatile("rdpmc; mov %%eax, %1; mov %4, %%ecx; 1: loop 1b; mov %5, %%ecx; rdpmc; sub %1, %%eax"
		     : "=&a"(got), "=&r"(before), "=&d"(high), "+c"(index) : "i"(LOOPS), "m"(n) : "memory", "cc");
	return got;
}

static void events(void)
{
	group("events");
	count(0, INSNS | EN | OS, 0);
	expect("instructions", counted(0), COUNTED_INSNS);
	count(1, BRANCHES | EN | OS, 0);
	expect("branches", counted(1), LOOPS);
	expect("instructions, beside branches", counted(0), COUNTED_INSNS);
	count(0, CYCLES | EN | OS | USR, 0);
	check(counted(0) > 0, "cycles pass");
	count(0, INSNS | EN | USR, 0);
	expect("instructions of CPL 3 at CPL 0", counted(0), 0);
	count(0, INSNS | OS, 0);
	expect("not enabled", counted(0), 0);
	count(0, 0xff | EN | OS | USR, 0);
	expect("an event that never happens", counted(0), 0);
	count(0, 0, 0);
	count(1, 0, 0);
}

/* The WRMSR that starts the counter is one of them, the one that stops it is not. */
static void start_and_stop(void)
{
	u32 low = (u32)(INSNS | EN | OS);

	group("start and stop");
	count(0, 0, 0);
	asm volatile("wrmsr; nop; nop; xor %%eax, %%eax; wrmsr" : "+a"(low) : "c"(EVNTSEL(0)), "d"(0) : "cc");
	expect("instructions", rdmsr(PERFCTR(0)), 4);
}

/* A fault is not a retired instruction; what handles it is some. */
static void faults(void)
{
	u64 before;

	group("faults");
	count(0, INSNS | EN | OS, 0);
	before = rdmsr(PERFCTR(0));
	expect("read again", rdmsr(PERFCTR(0)) - before < 20, 1);
	expect_vector("a fault", catch(asm volatile("ud2")), UD, 0);
	check(rdmsr(PERFCTR(0)) - before < 2000, "few instructions");
	count(0, 0, 0);
}

static void registers(void)
{
	bool core = cpuid(0x80000001, 0).ecx & BIT(23);

	group("registers");
	wrmsr(EVNTSEL(2), ~0ull & ~(u64)EN);
	expect("what of EVNTSEL is defined", rdmsr(EVNTSEL(2)), 0xf00000000ull | (0xffd7ffffull & ~(u64)EN));
	wrmsr(EVNTSEL(2), 0);
	wrmsr(PERFCTR(2), ~0ull);
	expect("48 bits", rdmsr(PERFCTR(2)), MASK48);
	if (core) {
		expect("K7's are family 15h's", rdmsr(CORE_CTR(2)), MASK48);
		wrmsr(CORE_CTR(5), 0x123456789abull);
		expect("six", rdmsr(CORE_CTR(5)), 0x123456789abull);
		expect_ok("RDPMC 5", asm volatile("rdpmc" :: "c"(5) : "eax", "edx"));
		wrmsr(CORE_CTR(5), 0);
	}
	expect_fault("RDPMC 6", GP, 0, asm volatile("rdpmc" :: "c"(6) : "eax", "edx"));
	wrmsr(PERFCTR(2), 0);
}

static void overflow(const char *name, u64 event, u64 period)
{
	u64 left;

	irq_reset();
	count(3, event | EN | OS | INT, -period & MASK48);
	check(irq_wait(PMI, 1, 1000000), "%s: interrupt", name);
	left = rdmsr(PERFCTR(3));
	check(left < MASK48 / 2, "%s: went round", name);
	expect("no second one", irq_count[PMI], 1);
	/* Without INT none comes. */
	count(3, event | EN | OS, -period & MASK48);
	irq_wait(PMI, 2, 3000);
	expect("not asked for", irq_count[PMI], 1);
	count(3, 0, 0);
}

static void overflows(void)
{
	group("overflow");
	chips_quiet();
	irq_expect(PMI, EOI_LAPIC);
	lapic_write(LAPIC_LVTPC, PMI);
	overflow("instructions", INSNS, 20000);
	overflow("branches", BRANCHES, 5000);
	overflow("cycles", CYCLES, 3000000);
	lapic_write(LAPIC_LVTPC, LVT_MASKED);
	irq_reset();
	count(3, INSNS | EN | OS | INT, -1000ull & MASK48);
	irq_wait(PMI, 1, 3000);
	expect("masked", irq_count[PMI], 0);
	count(3, 0, 0);
}

/* Cycles go on through HLT as little as a processor's. */
static void halted(void)
{
	u64 start, time, cycles;

	group("HLT");
	irq_expect(PIC_BASE, EOI_PIC);
	pic_mask(0xfffe);
	count(0, CYCLES | EN | OS, 0);
	start = rdtsc();
	for (int k = 0; k < 5; k++) {
		pit_set(0, 0, 23864);
		sti_hlt_cli();
	}
	cycles = rdmsr(PERFCTR(0));
	time = rdtsc() - start;
	check(cycles < time / 2, "cycles do not count");
	count(0, 0, 0);
	pic_mask(0xffff);
}

void guest_main(void)
{
	if (cpuid(0, 0).ecx != 0x444d4163) {	/* ...cAMD */
		print("SKIP: counters are AMD's\n");
		return;
	}
	events();
	start_and_stop();
	faults();
	registers();
	overflows();
	halted();
}
