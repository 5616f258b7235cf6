/* What exits.c and its guest agree on. */
#ifndef QUMRA_BENCH_EXITS_H
#define QUMRA_BENCH_EXITS_H

#define PORT_USER	0x70
#define PORT_EVENT	0x71
#define PORT_DONE	0x7f

#define COUNTER		0x500
#define STOP		0x540
#define GDT_AT		0x2000
#define IDT_AT		0x3000
#define PAGES_AT	0x4000		/* the page directory */
#define STACK_TOP	0x8000		/* of CPU 0; CPU 1's is 0x1000 above */
#define GUEST_CODE	0x10000
#define USER_DEVICE	0xd0000000
#define EVENT_DEVICE	0xd0001000
#define IOAPIC		0xfec00000
#define LAPIC		0xfee00000
#define VECTOR		0x40

#endif
