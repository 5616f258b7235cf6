/* The two i8259: priorities, masks, end of interrupt, spurious interrupts, modes. 8259A data sheet. */
#include "chips.h"

#define VEC(irq)	(PIC_BASE + (irq))

/* Printing moves the UART's line: while it is a source of interrupts, results wait. */
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


static void wait_request(int irq)
{
	u64 end = rdtsc() + 1000000ull * tsc_per_us();

	while (!(pic_irr() >> irq & 1) && rdtsc() < end)
		pause_cpu();
}

static void pit_pulse(void)
{
	pit_set(0, 0, 50);		/* mode 0: low until the count ends, then high */
	wait_request(0);
}

static void uart_raise(void)
{
	outb(0x3f8 + 4, 0x0b);		/* OUT2 lets the interrupt through */
	outb(0x3f8 + 1, 2);		/* transmitter empty */
}

static void uart_lower(void)
{
	outb(0x3f8 + 1, 0);
	inb(0x3f8 + 2);
}

static void rtc_raise(void)
{
	outb(0x70, 0x0a);
	outb(0x71, 0x26);		/* divider on, 1024 Hz */
	outb(0x70, 0x0b);
	outb(0x71, 0x42);		/* periodic interrupt, 24 hours */
	wait_request(8);
}

static void rtc_lower(void)
{
	outb(0x70, 0x0b);
	outb(0x71, 0x02);
	outb(0x70, 0x0c);
	inb(0x71);
}

static void open_window(void)
{
	sti();
	delay_us(50);
	cli();
}

static void registers(void)
{
	group("registers");
	pic_mask(0xa55a);
	expect("IMR of the first", inb(PIC1 + 1), 0x5a);
	expect("IMR of the second", inb(PIC2 + 1), 0xa5);
	pic_mask(0xffff);
	expect("ISR at rest", pic_isr(), 0);
}

static void requests(void)
{
	group("requests");
	pit_pulse();
	check(pic_irr() & 1, "a masked request is in IRR");
	expect("it is not in service", pic_isr() & 1, 0);
	irq_reset();
	irq_expect(VEC(0), EOI_NONE);
	open_window();
	expect("masked: not delivered", irq_count[VEC(0)], 0);
	pic_mask(0xfffe);
	open_window();
	expect("unmasked: delivered", irq_count[VEC(0)], 1);
	expect("in service until EOI", pic_isr() & 1, 1);
	pit_pulse();
	open_window();
	expect("not again before EOI", irq_count[VEC(0)], 1);
	pic_eoi(0);
	open_window();
	expect("again after EOI", irq_count[VEC(0)], 2);
	pic_eoi(0);
	expect("nothing in service", pic_isr(), 0);
	pic_mask(0xffff);
}

static void priorities(void)
{
	group("priorities");
	irq_reset();
	irq_expect(VEC(0), EOI_NONE);
	irq_expect(VEC(4), EOI_NONE);
	uart_raise();
	pit_pulse();
	pic_mask(0xffee);
	open_window();
	note("IRQ 0 first", irq_order[0], VEC(0));
	note("IRQ 4 waits for its EOI", irq_order_len, 1);
	pic_eoi(0);
	open_window();
	note("then IRQ 4", irq_order[1], VEC(4));
	pit_pulse();
	open_window();
	note("IRQ 0 interrupts IRQ 4's service", irq_count[VEC(0)], 2);
	note("both in service", pic_isr() & 0x11, 0x11);
	outb(PIC1, 0x20);
	note("a plain EOI ends the higher one", pic_isr() & 0x11, 0x10);
	uart_lower();
	outb(PIC1, 0x64);		/* specific EOI of IRQ 4 */
	note("a specific EOI", pic_isr() & 0x11, 0);
	outb(PIC1, 0xc4);		/* priority: 4 is the lowest, 5 the highest */
	irq_reset();
	uart_raise();
	pit_pulse();
	open_window();
	note("rotated: IRQ 0 before IRQ 4 still", irq_order[0], VEC(0));
	outb(PIC1, 0x60);
	uart_lower();
	outb(PIC1, 0xc0);		/* 0 is the lowest now */
	irq_reset();
	uart_raise();
	pit_pulse();
	open_window();
	note("rotated: IRQ 4 before IRQ 0", irq_order[0], VEC(4));
	uart_lower();
	outb(PIC1, 0x64);
	open_window();
	note("then IRQ 0", irq_order[1], VEC(0));
	outb(PIC1, 0x60);
	outb(PIC1, 0xc7);		/* as after initialization */
	pic_mask(0xffff);
	notes_print();
}

static void cascade(void)
{
	group("cascade");
	irq_reset();
	irq_expect(VEC(8), EOI_NONE);
	rtc_raise();
	pic_mask(0xfeff);		/* IRQ 8 open, IRQ 2 closed */
	open_window();
	note("IRQ 2 masked closes the second chip", irq_count[VEC(8)], 0);
	pic_mask(0xfefb);
	open_window();
	note("delivered through IRQ 2", irq_count[VEC(8)], 1);
	note("both chips in service", pic_isr(), 0x104);
	rtc_lower();
	outb(PIC2, 0x20);
	note("EOI of the second only", pic_isr(), 0x004);
	outb(PIC1, 0x20);
	note("EOI of the first", pic_isr(), 0);
	pic_mask(0xffff);
	notes_print();
}

static void spurious(void)
{
	group("spurious");
	/* A level request that goes away between its INTR and the acknowledge cannot be timed here; poll mode can. */
	uart_raise();
	pic_mask(0xffef);
	outb(PIC1, 0x0c);		/* poll */
	note("poll tells the request", inb(PIC1), 0x84);
	note("and puts it in service", pic_isr() & 0x10, 0x10);
	uart_lower();
	outb(PIC1, 0x64);
	outb(PIC1, 0x0c);
	note("poll without a request", inb(PIC1) & 0x80, 0);
	pic_mask(0xffff);
	notes_print();
}

static void modes(void)
{
	group("modes");
	pic_init(PIC_BASE, 3);		/* automatic EOI */
	irq_reset();
	irq_expect(VEC(0), EOI_NONE);
	pit_pulse();
	pic_mask(0xfffe);
	open_window();
	note("automatic EOI: delivered", irq_count[VEC(0)], 1);
	note("automatic EOI: nothing in service", pic_isr(), 0);
	pic_init(0x50, 1);
	irq_reset();
	irq_expect(0x54, EOI_NONE);
	uart_raise();
	pic_mask(0xffef);
	open_window();
	note("another vector base", irq_count[0x54], 1);
	uart_lower();
	outb(PIC1, 0x64);
	pic_init(PIC_BASE, 1);
	notes_print();
	/* Special mask mode: a masked level in service does not hold back lower ones. */
	irq_reset();
	irq_expect(VEC(4), EOI_NONE);
	pit_pulse();
	pic_mask(0xfffe);
	open_window();
	note("IRQ 0 in service", pic_isr() & 1, 1);
	outb(PIC1, 0x68);		/* set special mask mode */
	pic_mask(0xffef);
	uart_raise();
	open_window();
	note("special mask mode: IRQ 4 passes", irq_count[VEC(4)], 1);
	outb(PIC1, 0x48);
	uart_lower();
	outb(PIC1, 0x60);
	outb(PIC1, 0x64);
	pic_mask(0xffff);
	notes_print();
}

static void level_edge(void)
{
	group("edge and level");
	irq_reset();
	irq_expect(VEC(4), EOI_NONE);
	note("ELCR can be read back", (outb(0x4d0, 0x20), inb(0x4d0)), 0x20);
	outb(0x4d0, 0);
	outb(0x4d0, 0x07);
	note("ELCR bits 0-2 are fixed", inb(0x4d0) & 7, 0);
	uart_raise();
	pic_mask(0xffef);
	open_window();
	note("edge: delivered once", irq_count[VEC(4)], 1);
	outb(PIC1, 0x64);
	open_window();
	note("edge: not again while the line stays up", irq_count[VEC(4)], 1);
	uart_lower();
	uart_raise();
	open_window();
	note("edge: again after a new edge", irq_count[VEC(4)], 2);
	outb(PIC1, 0x64);
	uart_lower();
	outb(0x4d0, 0x10);
	uart_raise();
	open_window();
	note("level: delivered while the line is up", irq_count[VEC(4)], 3);
	outb(PIC1, 0x64);
	open_window();
	note("level: and again", irq_count[VEC(4)], 4);
	uart_lower();
	outb(PIC1, 0x64);
	open_window();
	note("level: no more once it is down", irq_count[VEC(4)], 4);
	outb(0x4d0, 0);
	pic_mask(0xffff);
	notes_print();
}

static void gating(void)
{
	int vector;

	group("LINT0");
	irq_reset();
	irq_expect(VEC(0), EOI_PIC);
	lapic_write(LAPIC_LVT0, 0x700 | LVT_MASKED);
	pit_pulse();
	pic_mask(0xfffe);
	open_window();
	note("masked in the LAPIC", irq_count[VEC(0)], 0);
	lapic_write(LAPIC_LVT0, 0x700);
	open_window();
	note("unmasked in the LAPIC", irq_count[VEC(0)], 1);
	/* IF clear holds it; HLT with IF set takes it. */
	pit_pulse();
	vector = catch(asm volatile("nop"));
	note("held back while IF is clear", vector, NONE);
	sti_hlt_cli();
	note("taken by sti; hlt", irq_count[VEC(0)], 2);
	pic_mask(0xffff);
	notes_print();
}

void guest_main(void)
{
	registers();
	requests();
	priorities();
	cascade();
	spurious();
	modes();
	level_edge();
	gating();
}
