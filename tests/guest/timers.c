/* Timers: i8254, LAPIC timer in three modes, RTC, ACPI PM timer, TSC, and sleep in HLT. */
#include "chips.h"

#define VEC	0x51

static u32 pm_since(u32 start)
{
	return (inl(PM_TIMER) - start) & 0xffffff;
}

/* Within lenient bounds: a loaded host may stretch the time that passes, never shrink it. */
static bool is_about(u64 got, u64 want)
{
	return got >= want - want / 8 && got <= want * 16;
}

static void about(const char *name, u64 got, u64 want)
{
	check(is_about(got, want), "%s", name);
	if (!is_about(got, want))
		print("  got %llu, want %llu\n", (unsigned long long)got, (unsigned long long)want);
}

static void pit_modes(void)
{
	u64 end;
	u16 a, b;

	group("i8254");
	pit_set(0, 0, 0xffff);
	expect("mode 0: OUT is low while it counts", pit_status(0) >> 7, 0);
	expect("mode in the status", pit_status(0) & 0x3f, 0x30);
	a = pit_read(0);
	delay_us(1000);
	b = pit_read(0);
	check((u16)(a - b) > 1000, "it counts down: %u", (u16)(a - b));
	pit_set(0, 0, 100);
	for (end = rdtsc() + 1000000ull * tsc_per_us(); !(pit_status(0) & 0x80) && rdtsc() < end;)
		;
	expect("mode 0: OUT is high at the end", pit_status(0) >> 7, 1);
	pit_set(0, 2, 1000);
	expect("mode 2 in the status", pit_status(0) & 0x0e, 4);
	sweep("mode 2 stays within its period");
	for (a = 0; a < 200; a++) {
		b = pit_read(0);
		sweep_check(b >= 1 && b <= 1000, "%u", b);
	}
	sweep_end();
	pit_set(0, 3, 1000);
	sweep("mode 3 counts even numbers");
	for (a = 0; a < 200; a++) {
		b = pit_read(0);
		sweep_check(b <= 1000 && !(b & 1), "%u", b);
	}
	sweep_end();
	outb(0x43, 0x34);		/* mode 2, low then high byte */
	outb(0x40, 0x00);
	expect("null count until both bytes are written", pit_status(0) >> 6 & 1, 1);
	outb(0x40, 0x80);
	outb(0x43, 0x14);		/* mode 2, low byte only */
	outb(0x40, 200);
	outb(0x43, 0x14 | 0);
	outb(0x40, 100);
	b = inb(0x40);
	check(b <= 100, "low byte only: %u", b);
	outb(0x43, 0xd2);		/* read back: latch count of channel 0 */
	pit_set(0, 0, 0);
}

static void speaker(void)
{
	u64 end;
	u32 changes = 0;
	u8 last, now;

	group("port 0x61");
	outb(0x61, 0);
	outb(0x61, 1);
	pit_set(2, 0, 2000);
	expect("OUT of channel 2 is low", inb(0x61) & 0x20, 0);
	for (end = rdtsc() + 1000000ull * tsc_per_us(); !(inb(0x61) & 0x20) && rdtsc() < end;)
		;
	expect("and high at the end", inb(0x61) & 0x20, 0x20);
	expect("gate and speaker bits read back", inb(0x61) & 3, 1);
	pit_set(2, 0, 0x4000);
	outb(0x61, 0);
	{
		u16 a = pit_read(2), b;

		delay_us(200);
		b = pit_read(2);
		expect("the gate stops the count", a, b);
	}
	outb(0x61, 3);
	expect("speaker on", inb(0x61) & 3, 3);
	outb(0x61, 0);
	last = inb(0x61) & 0x10;
	for (end = rdtsc() + 100000ull * tsc_per_us(); changes < 20 && rdtsc() < end;) {
		now = inb(0x61) & 0x10;
		changes += now != last;
		last = now;
	}
	expect("the refresh bit toggles", changes >= 20, 1);
}

static void pit_irq(void)
{
	u32 start;

	group("IRQ 0");
	irq_reset();
	irq_expect(PIC_BASE, EOI_PIC);
	pic_mask(0xfffe);
	pit_set(0, 2, 11932);		/* 10 ms */
	start = inl(PM_TIMER);
	check(irq_wait(PIC_BASE, 20, 10000000), "20 periods");
	about("take 200 ms", pm_since(start), 3579545 / 5 - 3579545 / 50);
	outb(0x43, 0x30);		/* mode 0 without a count: it waits, and what was late comes now */
	sti();
	delay_us(100);
	cli();
	irq_reset();
	pit_set(0, 0, 1193);
	irq_wait(PIC_BASE, 1, 1000000);
	delay_us(5000);
	sti();
	delay_us(1000);
	cli();
	expect("mode 0 fires once", irq_count[PIC_BASE], 1);
	pic_mask(0xffff);
}

/* LAPIC timer counts a millisecond with divider 1, by the PM timer. */
static u32 lapic_rate(void)
{
	u32 start, count;

	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_LVTT, LVT_MASKED);
	lapic_write(LAPIC_TMICT, 0xffffffff);
	start = inl(PM_TIMER);
	while (pm_since(start) < 35795)
		;
	count = 0xffffffff - lapic_read(LAPIC_TMCCT);
	lapic_write(LAPIC_TMICT, 0);
	return count / 10;
}

/* What the LAPIC timer counts in 300 us by the TSC. */
static u32 counted(u32 divider)
{
	u64 end;

	lapic_write(LAPIC_TDCR, divider);
	lapic_write(LAPIC_TMICT, 0xffffffff);
	end = rdtsc() + tsc_per_us() * 300ull;
	while (rdtsc() < end)
		;
	return 0xffffffff - lapic_read(LAPIC_TMCCT);
}

/* How long it took, in microseconds. */
static u64 one_shot_us(u32 count)
{
	u64 tsc;

	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	lapic_write(LAPIC_LVTT, VEC);
	tsc = rdtsc();
	lapic_write(LAPIC_TMICT, count);
	irq_wait(VEC, 1, 5000000);
	return (rdtsc() - tsc) / tsc_per_us();
}

static void lapic_timer(void)
{
	u32 rate, i, before;
	u64 tsc, us = 0;

	rate = lapic_rate();
	check(rate > 1000, "it counts: %u a millisecond", rate);
	/* A busy host may be late once, and once more. */
	for (i = 0; i < 5 && !is_about(us, 5000); i++)
		us = one_shot_us(rate * 5);
	check(irq_count[VEC] == 1, "one-shot fires");
	about("after 5 ms", us, 5000);
	expect("its count is 0", lapic_read(LAPIC_TMCCT), 0);
	delay_us(20000);
	sti();
	delay_us(100);
	cli();
	expect("once", irq_count[VEC], 1);

	irq_reset();
	lapic_write(LAPIC_LVTT, VEC | 1 << 17);
	tsc = rdtsc();
	lapic_write(LAPIC_TMICT, rate * 2);
	check(irq_wait(VEC, 10, 5000000), "periodic fires");
	about("10 times in 20 ms", (rdtsc() - tsc) / tsc_per_us(), 20000);
	before = lapic_read(LAPIC_TMCCT);
	check(before && before <= rate * 2, "periodic: the count runs");
	lapic_write(LAPIC_TMICT, 0);
	irq_reset();
	delay_us(6000);
	sti();
	delay_us(100);
	cli();
	check(irq_count[VEC] <= 1, "a zero count stops it");

	lapic_write(LAPIC_LVTT, LVT_MASKED);
	sweep("dividers");
	for (i = 0; i < 7; i++) {
		static const u8 code[] = { 0x0, 0x1, 0x2, 0x3, 0x8, 0x9, 0xa };	/* 2 to 128 */
		u32 tries = 20, want = 0, got = 0;

		/* A host that is busy may stretch one of the two measurements, not each of twenty. */
		while (tries-- && (!want || got < want - want / 5 || got > want + want / 5)) {
			want = counted(0xb) >> (i + 1);
			got = counted(code[i]);
		}
		sweep_check(got >= want - want / 5 && got <= want + want / 5, "divider %d: %u, want %u", 2 << i, got,
			    want);
	}
	sweep_end();
	lapic_write(LAPIC_TDCR, 0xb);
	lapic_write(LAPIC_TMICT, 0);
}

static void tsc_deadline(void)
{
	u64 t;

	if (!(cpuid(1, 0).ecx & BIT(24))) {
		skip("TSC deadline", "not in CPUID");
		return;
	}
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	lapic_write(LAPIC_LVTT, VEC | 2 << 17);
	t = rdtsc() + tsc_per_us() * 3000ull;
	wrmsr(MSR_TSC_DEADLINE, t);
	expect("TSC deadline reads back", rdmsr(MSR_TSC_DEADLINE), t);
	check(irq_wait(VEC, 1, 5000000), "TSC deadline fires");
	check(rdtsc() >= t, "not before its time");
	expect("the MSR is 0 then", rdmsr(MSR_TSC_DEADLINE), 0);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1);
	check(irq_wait(VEC, 2, 1000000), "a deadline in the past fires at once");
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + tsc_per_us() * 20000ull);
	wrmsr(MSR_TSC_DEADLINE, 0);
	delay_us(30000);
	sti();
	delay_us(100);
	cli();
	expect("0 disarms", irq_count[VEC], 2);
	lapic_write(LAPIC_TMICT, 1000);
	expect("the initial count is ignored in this mode", lapic_read(LAPIC_TMCCT), 0);
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + tsc_per_us() * 5000ull);
	lapic_write(LAPIC_LVTT, VEC);
	expect("changing the mode disarms", rdmsr(MSR_TSC_DEADLINE), 0);
	lapic_write(LAPIC_LVTT, LVT_MASKED);
}

static u8 rtc(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void rtc_set(u8 reg, u8 v)
{
	outb(0x70, reg);
	outb(0x71, v);
}

static void real_time_clock(void)
{
	unsigned i;
	u8 second;
	u64 end;

	group("RTC");
	check(rtc(0x0d) & 0x80, "RAM and time valid");
	rtc_set(0x0b, 0x02);
	second = rtc(0);
	check((second & 0xf) < 10 && second < 0x60, "BCD seconds: %x", second);
	check(rtc(8) >= 1 && rtc(8) <= 0x12 && rtc(7) >= 1 && rtc(7) <= 0x31, "a date: %x-%x", rtc(8), rtc(7));
	for (end = rdtsc() + 5000000ull * tsc_per_us(); rtc(0) == second && rdtsc() < end;)
		;
	check(rtc(0) != second, "the second passes");
	rtc_set(0x40, 0x5a);
	rtc_set(0x41, 0xa5);
	expect("RAM", rtc(0x40) << 8 | rtc(0x41), 0x5aa5);
	irq_reset();
	irq_expect(PIC_BASE + 8, EOI_NONE);
	rtc(0x0c);
	rtc_set(0x0a, 0x26);
	rtc_set(0x0b, 0x42);
	pic_mask(0xfefb);
	check(irq_wait(PIC_BASE + 8, 1, 3000000), "periodic interrupt");
	check((rtc(0x0c) & 0xc0) == 0xc0, "PF and IRQF in register C");
	pic_eoi(8);
	check(irq_wait(PIC_BASE + 8, 2, 3000000), "again after register C was read");
	rtc_set(0x0b, 0x02);
	rtc(0x0c);
	pic_eoi(8);
	/* PF goes on rising 1024 times a second, and a slow host may lie a while between two reads. */
	for (i = 0; i < 20 && rtc(0x0c) & 0xf0; i++)
		;
	check(i < 20, "register C clears");
	pic_mask(0xffff);
}

static void clocks(void)
{
	u64 last = rdtsc(), now;
	u32 i, pm, pm2;

	group("clocks");
	sweep("the TSC never goes back");
	for (i = 0; i < 5000; i++) {
		now = rdtsc();
		if (!sweep_check(now > last, "%llx after %llx", (unsigned long long)now, (unsigned long long)last))
			break;
		last = now;
	}
	sweep_end();
	sweep("the PM timer never goes back");
	pm = inl(PM_TIMER);
	for (i = 0; i < 5000; i++) {
		pm2 = inl(PM_TIMER);
		if (!sweep_check(((pm2 - pm) & 0xffffff) < 0x400000, "%x after %x", pm2, pm))
			break;
		pm = pm2;
	}
	sweep_end();
	{
		u32 start, end, us, want;
		u64 t = clock_pair(&start);

		while (pm_since(start) < 357954)	/* 100 ms */
			;
		us = (u32)((clock_pair(&end) - t) / tsc_per_us());
		want = ((end - start) & 0xffffff) * 1000u / 3580u;
		check(us > want - want / 20 && us < want + want / 20, "TSC and PM timer agree");
	}
	last = rdtsc();
	wrmsr(MSR_TSC, 0x123456789abcull);
	now = rdtsc();
	check(now >= 0x123456789abcull && now < 0x123556789abcull, "TSC written");
	if (cpuid(7, 0).ebx & BIT(1)) {
		u64 adjust = rdmsr(0x3b);

		wrmsr(0x3b, adjust + 0x1000000000ull);
		now = rdtsc();
		check(now >= 0x124456789abcull && now < 0x124556789abcull, "TSC_ADJUST moves the TSC");
		wrmsr(0x3b, adjust);
	}
	wrmsr(MSR_TSC, last);
	if (cpuid(0x80000001, 0).edx & BIT(27)) {
		u32 aux;

		wrmsr(MSR_TSC_AUX, 0x1234);
		asm volatile("rdtscp" : "=c"(aux) :: "eax", "edx");
		expect("RDTSCP gives TSC_AUX", aux, 0x1234);
	}
	write_cr4(read_cr4() | CR4_TSD);
	expect_ok("RDTSC at CPL 0 under TSD", asm volatile("rdtsc" ::: "eax", "edx"));
}

USER_TEXT static ulong user_rdtsc(ulong a) { asm volatile("rdtsc" ::: "eax", "edx"); return a; }
USER_TEXT static ulong user_rdtscp(ulong a) { asm volatile("rdtscp" ::: "eax", "edx", "ecx"); return a; }

static void user_clock(void)
{
	expect_vector("RDTSC at CPL 3 under TSD", user_call(user_rdtsc, 0), GP, 0);
	if (cpuid(0x80000001, 0).edx & BIT(27))
		expect_vector("RDTSCP at CPL 3 under TSD", user_call(user_rdtscp, 0), GP, 0);
	write_cr4(read_cr4() & ~CR4_TSD);
	expect_vector("RDTSC at CPL 3", user_call(user_rdtsc, 0), NONE, 0);
}

static void sleep(void)
{
	u32 rate, start;
	u64 t;

	group("HLT");
	rate = lapic_rate();
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	lapic_write(LAPIC_LVTT, VEC);
	t = rdtsc();
	start = inl(PM_TIMER);
	lapic_write(LAPIC_TMICT, rate * 50);
	sti_hlt_cli();
	expect("woken by the LAPIC timer", irq_count[VEC], 1);
	about("after 50 ms", pm_since(start), 178977);
	check((rdtsc() - t) / tsc_per_us() > 40000, "the TSC ran on");
	lapic_write(LAPIC_TMICT, rate / 100);
	delay_us(2000);
	sti_hlt_cli();
	expect("a pending interrupt wakes at once", irq_count[VEC], 2);
	irq_expect(PIC_BASE, EOI_PIC);
	pit_set(0, 0, 2000);
	pic_mask(0xfffe);
	sti_hlt_cli();
	expect("woken by the PIT", irq_count[PIC_BASE], 1);
	pic_mask(0xffff);
}

static void shadows(void)
{
	group("interrupt shadow");
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | VEC);
	asm volatile("sti; cli" ::: "memory");
	expect("sti; cli opens no window", irq_count[VEC], 0);
	asm volatile("sti; nop; cli" ::: "memory");
	expect("sti; nop does", irq_count[VEC], 1);
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | VEC);
	asm volatile("pushf; orl $0x200, (%%rsp); mov %%ss, %%eax; popf; cli" ::: "memory", "eax");
	check(irq_count[VEC] == 2, "popf has no shadow");
	if (irq_count[VEC] == 1)
		asm volatile("sti; nop; cli" ::: "memory");
	lapic_write(LAPIC_ICR, ICR_SELF | ICR_ASSERT | VEC);
	{
		u32 inside;

		asm volatile("mov %%ss, %%ecx; sti; mov %%ecx, %%ss; mov %1, %0; cli"
			     : "=r"(inside) : "m"(irq_count[VEC]) : "memory", "ecx");
		check(inside == 2 || inside == 3, "after mov to SS behind sti: %u", inside);
	}
}

void guest_main(void)
{
	pit_modes();
	speaker();
	pit_irq();
	group("LAPIC timer");
	lapic_timer();
	tsc_deadline();
	real_time_clock();
	clocks();
	user_clock();
	sleep();
	shadows();
}
