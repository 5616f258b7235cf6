/* The IOAPIC: edge and level, polarity, masks, remote IRR, delivery and destination modes. 82093AA. */
#include "chips.h"

#define UART_PIN	4
#define PIT_PIN		2
#define VEC		0x71

static void open_window(void)
{
	asm volatile("sti; nop; nop; cli" ::: "memory");
}

/* Printing moves the UART's line: results wait until it is down. */
static struct { const char *name; u64 got, want; } notes[32];
static u32 note_count;

static void note(const char *name, u64 got, u64 want)
{
	notes[note_count].name = name;
	notes[note_count].got = got;
	notes[note_count++].want = want;
}

static void notes_print(void)
{
	u32 i;

	for (i = 0; i < note_count; i++)
		expect(notes[i].name, notes[i].got, notes[i].want);
	note_count = 0;
}

static void uart_raise(void)
{
	outb(0x3f8 + 4, 0x0b);
	outb(0x3f8 + 1, 2);
}

static void uart_lower(void)
{
	outb(0x3f8 + 1, 0);
	inb(0x3f8 + 2);
}

static void registers(void)
{
	int i;
	u32 version = ioapic_read(1);

	group("registers");
	expect("24 pins", version >> 16 & 0xff, 23);
	check((version & 0xff) == 0x11 || (version & 0xff) == 0x20, "version %x", version & 0xff);
	ioapic_write(0, 0x05000000);
	expect("ID", ioapic_read(0) & 0x0f000000, 0x05000000);
	ioapic_write(0, 0);
	sweep("redirection entries read back");
	for (i = 0; i < 24; i++) {
		ioapic_set(i, IOAPIC_MASKED | 0x60 | i | (u64)i << 56 | 1 << 11);
		sweep_check(ioapic_pin(i) == (IOAPIC_MASKED | 0x60 | i | (u64)i << 56 | 1 << 11), "pin %d: %llx", i,
			    (unsigned long long)ioapic_pin(i));
		ioapic_set(i, IOAPIC_MASKED);
	}
	sweep_end();
	ioapic_set(3, IOAPIC_MASKED | IOAPIC_RIRR | 1 << 12);
	expect("delivery status and remote IRR are read-only", ioapic_pin(3) & (IOAPIC_RIRR | 1 << 12), 0);
}

static void edge(void)
{
	group("edge");
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	ioapic_set(UART_PIN, VEC);
	uart_raise();
	open_window();
	note("delivered", irq_count[VEC], 1);
	note("no remote IRR", ioapic_pin(UART_PIN) & IOAPIC_RIRR, 0);
	open_window();
	note("not again while the line stays up", irq_count[VEC], 1);
	uart_lower();
	uart_raise();
	open_window();
	note("a new edge", irq_count[VEC], 2);
	uart_lower();
	ioapic_set(UART_PIN, VEC | IOAPIC_MASKED);
	uart_raise();
	open_window();
	note("masked", irq_count[VEC], 2);
	uart_lower();
	ioapic_set(UART_PIN, IOAPIC_MASKED);
	notes_print();
}

static void level(void)
{
	group("level");
	irq_reset();
	irq_expect(VEC, EOI_NONE);
	ioapic_set(UART_PIN, VEC | IOAPIC_LEVEL);
	uart_raise();
	open_window();
	note("delivered", irq_count[VEC], 1);
	note("remote IRR until EOI", ioapic_pin(UART_PIN) & IOAPIC_RIRR, IOAPIC_RIRR);
	note("TMR set", lapic_bit(LAPIC_TMR, VEC), 1);
	open_window();
	note("not again before EOI", irq_count[VEC], 1);
	lapic_eoi();
	open_window();
	note("again after EOI: the line is up", irq_count[VEC], 2);
	uart_lower();
	lapic_eoi();
	open_window();
	note("no more once it is down", irq_count[VEC], 2);
	note("remote IRR clear", ioapic_pin(UART_PIN) & IOAPIC_RIRR, 0);
	ioapic_set(UART_PIN, VEC | IOAPIC_LEVEL | IOAPIC_MASKED);
	uart_raise();
	open_window();
	note("masked", irq_count[VEC], 2);
	ioapic_write(0x10 + UART_PIN * 2, VEC | IOAPIC_LEVEL);
	open_window();
	note("unmasked with the line up", irq_count[VEC], 3);
	uart_lower();
	lapic_eoi();
	ioapic_set(UART_PIN, IOAPIC_MASKED);
	notes_print();
}

static void destinations(void)
{
	group("destinations");
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	ioapic_set(UART_PIN, VEC | (u64)7 << 56);
	uart_raise();
	open_window();
	note("physical, nobody", irq_count[VEC], 0);
	uart_lower();
	ioapic_set(UART_PIN, VEC | (u64)0xff << 56);
	uart_raise();
	open_window();
	note("physical, all", irq_count[VEC], 1);
	uart_lower();
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 0x04000000);
	ioapic_set(UART_PIN, VEC | 1 << 11 | (u64)4 << 56);
	uart_raise();
	open_window();
	note("logical, ours", irq_count[VEC], 2);
	uart_lower();
	ioapic_set(UART_PIN, VEC | 1 << 11 | (u64)3 << 56);
	uart_raise();
	open_window();
	note("logical, others", irq_count[VEC], 2);
	uart_lower();
	ioapic_set(UART_PIN, VEC | 1 << 11 | 1 << 8 | (u64)0xff << 56);
	uart_raise();
	open_window();
	note("lowest priority", irq_count[VEC], 3);
	uart_lower();
	ioapic_set(UART_PIN, IOAPIC_MASKED);
	notes_print();
}

static volatile u32 nmis;

static void nmi_seen(struct trap_frame *f)
{
	nmis++;
}

static void modes(void)
{
	u32 i;

	group("delivery modes");
	trap_handle(NMI, nmi_seen);
	ioapic_set(UART_PIN, 4 << 8);
	uart_raise();
	asm volatile("nop; nop" ::: "memory");
	note("NMI", nmis, 1);
	uart_lower();
	ioapic_set(UART_PIN, IOAPIC_MASKED);
	trap_handle(NMI, NULL);
	notes_print();
	irq_reset();
	irq_expect(VEC, EOI_LAPIC);
	ioapic_set(PIT_PIN, VEC);
	pit_set(0, 2, 1193);
	check(irq_wait(VEC, 5, 1000000), "the PIT on pin 2");
	pit_set(0, 0, 0);
	ioapic_set(PIT_PIN, IOAPIC_MASKED);
	for (i = 0; i < 3; i++)
		open_window();
}


void guest_main(void)
{
	registers();
	edge();
	level();
	destinations();
	modes();
}
