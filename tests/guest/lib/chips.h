/* The interrupt controllers and timers of the PC, as a test sees them. */
#ifndef GUEST_CHIPS_H
#define GUEST_CHIPS_H

#include "guest.h"

/* Everything masked, nothing pending, LAPIC on, the PICs behind its LINT0. */
void chips_quiet(void);

/* ---- i8259 pair: vectors 0x20-0x2f (8259A) ---- */
#define PIC_BASE	0x20
#define PIC1		0x20
#define PIC2		0xa0
void pic_init(u8 vector, u8 icw4);
void pic_mask(u16 mask);
u16 pic_irr(void);
u16 pic_isr(void);
void pic_eoi(int irq);

/* ---- i8254 ---- */
#define PIT_HZ		1193182
void pit_set(int channel, int mode, u16 count);
u16 pit_read(int channel);
u8 pit_status(int channel);

/* ---- LAPIC (SDM 3A chapter 10) and IOAPIC (82093AA) ---- */
enum { LAPIC_ID = 0x20, LAPIC_VER = 0x30, LAPIC_TPR = 0x80, LAPIC_PPR = 0xa0, LAPIC_EOI = 0xb0,
       LAPIC_LDR = 0xd0, LAPIC_DFR = 0xe0, LAPIC_SVR = 0xf0, LAPIC_ISR = 0x100, LAPIC_TMR = 0x180,
       LAPIC_IRR = 0x200, LAPIC_ESR = 0x280, LAPIC_ICR = 0x300, LAPIC_ICR2 = 0x310, LAPIC_LVTT = 0x320,
       LAPIC_LVTTHMR = 0x330, LAPIC_LVTPC = 0x340, LAPIC_LVT0 = 0x350, LAPIC_LVT1 = 0x360,
       LAPIC_LVTERR = 0x370, LAPIC_TMICT = 0x380, LAPIC_TMCCT = 0x390, LAPIC_TDCR = 0x3e0 };
#define LVT_MASKED	BIT(16)
#define ICR_SELF	(1u << 18)
#define ICR_ASSERT	(1u << 14)
u32 lapic_read(u32 reg);
void lapic_write(u32 reg, u32 v);
bool lapic_bit(u32 base, int vector);
bool lapic_x2apic(void);
void lapic_eoi(void);

#define IOAPIC_MASKED	BIT(16)
#define IOAPIC_LEVEL	BIT(15)
#define IOAPIC_LOW	BIT(13)
#define IOAPIC_RIRR	BIT(14)
u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 v);
u64 ioapic_pin(int pin);
void ioapic_set(int pin, u64 entry);

/* ---- counting interrupts ---- */
extern volatile u32 irq_count[256];
extern volatile u8 irq_order[64];
extern volatile u32 irq_order_len;
/* Count this vector and acknowledge it so; order is kept for the first 64. */
enum eoi { EOI_NONE, EOI_PIC, EOI_LAPIC };
void irq_expect(int vector, enum eoi eoi);
void irq_reset(void);

/* TSC cycles a microsecond, by the ACPI PM timer at 0x608. */
#define PM_TIMER	0x608
u64 clock_pair(u32 *pm);
u32 tsc_per_us(void);
void delay_us(u32 us);
/* Interrupts on until irq_count[vector] reaches n or the time is over. */
bool irq_wait(int vector, u32 n, u32 us);

#endif
