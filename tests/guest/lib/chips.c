/* i8259, i8254, LAPIC, IOAPIC. */
#include "chips.h"

#define LAPIC_MMIO	0xfee00000ul
#define IOAPIC_MMIO	0xfec00000ul

void pic_init(u8 vector, u8 icw4)
{
	outb(PIC1, 0x11);
	outb(PIC1 + 1, vector);
	outb(PIC1 + 1, 4);
	outb(PIC1 + 1, icw4);
	outb(PIC2, 0x11);
	outb(PIC2 + 1, vector + 8);
	outb(PIC2 + 1, 2);
	outb(PIC2 + 1, icw4 & ~2);
	pic_mask(0xffff);
}

void pic_mask(u16 mask)
{
	outb(PIC1 + 1, mask);
	outb(PIC2 + 1, mask >> 8);
}

static u16 pic_ocw3(u8 command)
{
	outb(PIC1, command);
	outb(PIC2, command);
	return inb(PIC1) | inb(PIC2) << 8;
}

u16 pic_irr(void)
{
	return pic_ocw3(0x0a);
}

u16 pic_isr(void)
{
	return pic_ocw3(0x0b);
}

void pic_eoi(int irq)
{
	if (irq >= 8)
		outb(PIC2, 0x20);
	outb(PIC1, 0x20);
}

void pit_set(int channel, int mode, u16 count)
{
	outb(0x43, channel << 6 | 0x30 | mode << 1);
	outb(0x40 + channel, count);
	outb(0x40 + channel, count >> 8);
}

u16 pit_read(int channel)
{
	u8 low;

	outb(0x43, channel << 6);
	low = inb(0x40 + channel);
	return low | inb(0x40 + channel) << 8;
}

u8 pit_status(int channel)
{
	outb(0x43, 0xe0 | 2 << channel);
	return inb(0x40 + channel);
}

bool lapic_x2apic(void)
{
	return rdmsr(MSR_APIC_BASE) & BIT(10);
}

u32 lapic_read(u32 reg)
{
	if (lapic_x2apic())
		return rdmsr(0x800 + reg / 16);
	return *(volatile u32 *)(LAPIC_MMIO + reg);
}

void lapic_write(u32 reg, u32 v)
{
	if (lapic_x2apic())
		wrmsr(0x800 + reg / 16, v);
	else
		*(volatile u32 *)(LAPIC_MMIO + reg) = v;
}

bool lapic_bit(u32 base, int vector)
{
	return lapic_read(base + vector / 32 * 16) >> vector % 32 & 1;
}

void lapic_eoi(void)
{
	lapic_write(LAPIC_EOI, 0);
}

u32 ioapic_read(u8 reg)
{
	*(volatile u32 *)IOAPIC_MMIO = reg;
	return *(volatile u32 *)(IOAPIC_MMIO + 16);
}

void ioapic_write(u8 reg, u32 v)
{
	*(volatile u32 *)IOAPIC_MMIO = reg;
	*(volatile u32 *)(IOAPIC_MMIO + 16) = v;
}

u64 ioapic_pin(int pin)
{
	return ioapic_read(0x10 + pin * 2) | (u64)ioapic_read(0x11 + pin * 2) << 32;
}

void ioapic_set(int pin, u64 entry)
{
	ioapic_write(0x10 + pin * 2, IOAPIC_MASKED);
	ioapic_write(0x11 + pin * 2, entry >> 32);
	ioapic_write(0x10 + pin * 2, entry);
}

static void apics_quiet(void)
{
	int i;

	if (!(cpuid(1, 0).edx & BIT(9)))
		return;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(11));
	lapic_write(LAPIC_SVR, 0x1ff);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_LVTT, LVT_MASKED);
	lapic_write(LAPIC_LVT0, 0x700);		/* ExtINT: the PICs */
	lapic_write(LAPIC_LVT1, LVT_MASKED);
	lapic_write(LAPIC_LVTERR, LVT_MASKED);
	lapic_write(LAPIC_TMICT, 0);
	for (i = 0; i < 24; i++)
		ioapic_set(i, IOAPIC_MASKED);
}

void chips_quiet(void)
{
	pic_init(PIC_BASE, 1);
	apics_quiet();
}

volatile u32 irq_count[256];
volatile u8 irq_order[64];
volatile u32 irq_order_len;
static enum eoi irq_eoi[256];

static void irq_taken(struct trap_frame *f)
{
	irq_count[f->vector]++;
	if (irq_order_len < ARRAY_SIZE(irq_order))
		irq_order[irq_order_len++] = f->vector;
	if (irq_eoi[f->vector] == EOI_PIC)
		pic_eoi(f->vector - PIC_BASE);
	else if (irq_eoi[f->vector] == EOI_LAPIC)
		lapic_eoi();
}

void irq_expect(int vector, enum eoi eoi)
{
	irq_eoi[vector] = eoi;
	trap_handle(vector, irq_taken);
}

void irq_reset(void)
{
	int i;

	for (i = 0; i < 256; i++)
		irq_count[i] = 0;
	irq_order_len = 0;
}

static u32 pm_ticks(u32 since)
{
	return (inl(PM_TIMER) - since) & 0xffffff;
}

/* PM timer and TSC at one time: of several readings the one that was least disturbed. */
u64 clock_pair(u32 *pm)
{
	u64 best = ~0ull, tsc = 0;
	int i;

	for (i = 0; i < 10; i++) {
		u64 before = rdtsc();
		u32 now = inl(PM_TIMER);
		u64 after = rdtsc();

		if (after - before < best) {
			best = after - before;
			*pm = now;
			tsc = before + best / 2;
		}
	}
	return tsc;
}

u32 tsc_per_us(void)
{
	static u32 cached;
	u32 start, end;
	u64 tsc;

	if (cached)
		return cached;
	tsc = clock_pair(&start);
	while (pm_ticks(start) < 71590)		/* 20 ms */
		pause_cpu();
	tsc = clock_pair(&end) - tsc;
	/* PM ticks at 3.579545 MHz; 32-bit guests divide 32 bits. */
	cached = (u32)tsc / (((end - start) & 0xffffff) * 1000u / 3580u);
	return cached;
}

void delay_us(u32 us)
{
	u64 end = rdtsc() + (u64)us * tsc_per_us();

	while (rdtsc() < end)
		pause_cpu();
}

bool irq_wait(int vector, u32 n, u32 us)
{
	u64 end = rdtsc() + (u64)us * tsc_per_us();

	sti();
	while (irq_count[vector] < n && rdtsc() < end)
		pause_cpu();
	cli();
	return irq_count[vector] >= n;
}
