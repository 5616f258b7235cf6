/*
 * x87, SSE and AVX state over everything that leaves the guest, and over interrupts: a hypervisor that
 * keeps it in registers of its own, or saves some of it, must lose nothing. SDM 1 13.6 (components in
 * their initial state are the shortcuts).
 */
#include "chips.h"

#define TIMER_VECTOR	0x41
#define SELF_VECTOR	0x42
#define NR_REGS		16

struct state {
	u8 fx[512] __attribute__((aligned(16)));
	u8 high[NR_REGS][16];
} __attribute__((aligned(64)));

static struct state before, after;
static u8 want_low[NR_REGS * 16], want_high[NR_REGS][16];
static bool avx;

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define PUT_HIGH(n)	"vinsertf128 $1, " #n "*16(%0), %%ymm" #n ", %%ymm" #n "\n"
#define GET_HIGH(n)	"vextractf128 $1, %%ymm" #n ", " #n "*16(%0)\n"
#define XRSTOR_X87	"xrstor (%0)"

/* ---- states --------------------------------------------------------------------------------------- */

static u8 x87_initial[1024] __attribute__((aligned(64)));	/* XSTATE_BV 0 */

/* In its initial state for the processor too, where that can be said. */
static void x87_unused(void)
{
	if (avx)
		asm volatile(XRSTOR_X87 :: "r"(x87_initial), "a"(1), "d"(0) : "memory");
	else
		asm volatile("fninit");
}

static void x87_used(void)
{
	asm volatile("fninit; fld1; fldpi; fldl2e");
}

/* Other control words than the hypervisor's own. */
static void x87_strange(void)
{
	const u16 fcw = 0x0f40;

	asm volatile("fninit; fldz; fld1; fldcw %0" :: "m"(fcw));
}

static void fill(u8 seed)
{
	for (unsigned int i = 0; i < sizeof(before.high); i++)
		((u8 *)before.high)[i] = seed + i * 7;
	for (unsigned int i = 0; i < NR_REGS * 16; i++)
		before.fx[160 + i] = seed - i * 5;
}

static void vectors_load(u8 seed)
{
	const u32 mxcsr = 0x5f80;

	asm volatile("fxsave64 (%0)" :: "r"(before.fx) : "memory");
	fill(seed);
	memcpy(want_low, before.fx + 160, sizeof(want_low));
	asm volatile("fxrstor64 (%0)" :: "r"(before.fx) : "memory");
	asm volatile("ldmxcsr %0" :: "m"(mxcsr));
}

static void high_load(void)
{
	memcpy(want_high, before.high, sizeof(want_high));
	if (avx)
		asm volatile(EACH(PUT_HIGH) :: "r"(before.high) : "memory");
}

static void high_clear(void)
{
	memset(want_high, 0, sizeof(want_high));
	if (avx)
		asm volatile("vzeroupper");
}

static void state_get(struct state *s)
{
	memset(s->fx, 0, sizeof(s->fx));
	asm volatile("fxsave64 (%0)" :: "r"(s->fx) : "memory");
	memset(s->high, 0, sizeof(s->high));
	if (avx)
		asm volatile(EACH(GET_HIGH) :: "r"(s->high) : "memory");
}

/* ---- what leaves the guest ------------------------------------------------------------------------ */

static u8 far_bytes[8192] __attribute__((aligned(4096)));

static void port_of_user(void) { inb(0x70); outb(0x80, 1); }
static void pic(void) { u8 mask = inb(0x21); outb(0x21, mask); inb(0xa1); }
static void pit(void) { pit_set(0, 2, 50); pit_read(0); pit_set(2, 0, 3000); pit_status(2); inb(0x61); }
static void ioapic(void) { ioapic_set(5, IOAPIC_MASKED); ioapic_pin(5); }
static void apic(void) { lapic_write(LAPIC_TPR, 0x20); lapic_read(LAPIC_TMCCT); lapic_write(LAPIC_TPR, 0); }
static void cpuids(void) { cpuid(0, 0); cpuid(0x40000001, 0); }
static void msrs(void) { wrmsr(MSR_TSC_AUX, rdmsr(MSR_TSC_AUX)); rdmsr(MSR_APIC_BASE); }
static void task_priority(void) { asm volatile("mov %0, %%cr8; mov %1, %%cr8" :: "r"(5ul), "r"(0ul)); }
static void faults(void) { (void)catch(asm volatile("ud2")); (void)catch((void)rdmsr(0xdeadbeef)); }
static void strings(void) { asm volatile("rep insb" :: "D"(far_bytes), "c"(64ul), "d"(0x70) : "memory"); }

static void apic_timer(void)
{
	lapic_write(LAPIC_LVTT, TIMER_VECTOR);
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_TMICT, 20000);
	irq_wait(TIMER_VECTOR, irq_count[TIMER_VECTOR] + 1, 1000000);
	lapic_write(LAPIC_LVTT, LVT_MASKED);
}

static void deadline(void)
{
	if (!(cpuid(1, 0).ecx & BIT(24)))
		return;
	lapic_write(LAPIC_LVTT, TIMER_VECTOR | 2 << 17);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 100000);
	sti_hlt_cli();
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000000000ull);
	wrmsr(MSR_TSC_DEADLINE, 0);
	lapic_write(LAPIC_LVTT, LVT_MASKED);
}

static void self_ipi(void)
{
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | SELF_VECTOR);
	irq_wait(SELF_VECTOR, irq_count[SELF_VECTOR] + 1, 1000);
}

static const struct way {
	const char *name;
	void (*go)(void);
} ways[] = {
	{ "ports of user space", port_of_user }, { "PIC", pic }, { "PIT", pit }, { "IOAPIC", ioapic },
	{ "local APIC", apic }, { "APIC timer", apic_timer }, { "deadline timer and HLT", deadline },
	{ "IPI to itself", self_ipi }, { "CPUID", cpuids }, { "MSRs", msrs }, { "CR8", task_priority },
	{ "faults", faults }, { "INS", strings },
};

/* ---- the checks ----------------------------------------------------------------------------------- */

/* x87's pointers are left out: AMD keeps them only with an error, and INS and OUT do not touch them. */
static bool same(void)
{
	memset(before.fx + 6, 0, 18);
	memset(after.fx + 6, 0, 18);
	return !memcmp(before.fx, after.fx, 160) && !memcmp(after.fx + 160, want_low, sizeof(want_low)) &&
		(!avx || !memcmp(after.high, want_high, sizeof(want_high)));
}

static void one(const struct way *w, void (*x87)(void), bool high, u8 seed)
{
	x87();
	vectors_load(seed);
	if (high)
		high_load();
	else
		high_clear();
	state_get(&before);
	w->go();
	state_get(&after);
}

static void each_way(const char *name, void (*x87)(void))
{
	group(name);
	for (unsigned int k = 0; k < ARRAY_SIZE(ways); k++) {
		unsigned int bad = 0;

		for (u8 seed = 1; seed < 40; seed++) {
			one(&ways[k], x87, seed & 1, seed);
			bad += !same();
		}
		expect(ways[k].name, bad, 0);
	}
}

/* FXRSTOR would make x87 used: the vectors alone, by moves. */
static void each_way_unused(void)
{
	group("x87 unused");
	for (unsigned int k = 0; k < ARRAY_SIZE(ways); k++) {
		unsigned int bad = 0;

		for (u8 seed = 1; seed < 40; seed++) {
			vectors_load(seed);
			x87_unused();
			if (seed & 1)
				high_load();
			else
				high_clear();
			state_get(&before);
			ways[k].go();
			state_get(&after);
			bad += !same();
		}
		expect(ways[k].name, bad, 0);
	}
}

void guest_main(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	avx = cpuid(1, 0).ecx & BIT(28);
	if (avx) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		asm volatile("xsetbv" :: "c"(0), "a"(7), "d"(0));
	}
	irq_expect(TIMER_VECTOR, EOI_LAPIC);
	irq_expect(SELF_VECTOR, EOI_LAPIC);
	asm volatile("fninit");
	each_way_unused();
	each_way("x87 used", x87_used);
	each_way("strange control words", x87_strange);
	finish();
}
