/*
 * The VM's interrupt chips, shared by their files. All of it is under irqchip->lock but for the two
 * words that vCPU threads look at on their way: pic.output and ioapic.handled.
 */
#ifndef QUMRA_HYPERVISOR_IRQCHIP_CHIPS_H
#define QUMRA_HYPERVISOR_IRQCHIP_CHIPS_H

#include "hypervisor/irqchip/irqchip.h"

#define NR_GSI		4096u	/* KVM_CAP_IRQ_ROUTING */
#define PIC_PINS	16
#define IOAPIC_PINS	KVM_IOAPIC_NUM_PINS

/* ---- i8259.c --------------------------------------------------------------------------------- */

/* One 8259A. Bits are lines: bit 0 is IR0. */
struct i8259 {
	u8 irr, imr, isr;
	u8 last;		/* levels seen, for edge detection */
	u8 elcr, elcr_mask;	/* level-triggered lines */
	u8 top;			/* line of the highest priority: 0 at first, moved by rotation */
	u8 base;		/* vector of IR0 */
	u8 init_step;		/* ICW expected next: 0 none, 1 ICW2, 2 ICW3, 3 ICW4 */
	bool icw4, single;	/* of ICW1 */
	bool read_isr, poll, special_mask, auto_eoi, rotate_auto_eoi, fully_nested;
};

struct pic {
	struct io_device ports, elcr;
	struct i8259 chip[2];	/* master, slave */
	u64 sources[PIC_PINS];	/* who drives the line */
	u32 output;		/* the master's INT; read without the lock */
};

int pic_create(struct irqchip *ic);
int pic_set_line(struct irqchip *ic, unsigned int pin, u32 source, int level); /* as irqchip_line */
bool pic_output(const struct irqchip *ic);	/* any thread */
int pic_ack(struct irqchip *ic);		/* the INTA cycle: takes the lock. Vector or -1. */
void pic_get(const struct irqchip *ic, unsigned int chip, struct kvm_pic_state *s);
void pic_set(struct irqchip *ic, unsigned int chip, const struct kvm_pic_state *s);

/* ---- ioapic.c -------------------------------------------------------------------------------- */

#define IOAPIC_BASE	0xfec00000ULL

struct ioapic {
	struct io_device dev;
	u64 base;
	u32 select, id;
	u32 irr;		/* lines asserted, or edges not yet delivered */
	u32 delivered;		/* edges among irr that were */
	u64 entry[IOAPIC_PINS];
	u64 sources[IOAPIC_PINS];
	u64 handled[4]; /* vectors whose EOI the chip wants to hear of; read without the lock */
};

int ioapic_create(struct irqchip *ic);
int ioapic_set_line(struct irqchip *ic, unsigned int pin, u32 source, int level);
bool ioapic_handles(const struct irqchip *ic, u8 vector);	/* any thread */
void ioapic_eoi(struct irqchip *ic, u8 vector, bool level);	/* takes the lock */
void ioapic_update_handled(struct irqchip *ic);
void ioapic_get(const struct irqchip *ic, struct kvm_ioapic_state *s);
void ioapic_set(struct irqchip *ic, const struct kvm_ioapic_state *s);

/* ---- i8254.c --------------------------------------------------------------------------------- */

struct pit;
void pit_destroy(struct irqchip *ic);
void pit_acked(struct irqchip *ic);		/* the guest acknowledged GSI 0 */
void pit_unmasked(struct irqchip *ic);		/* GSI 0 was unmasked at a chip */
bool pit_wants_ack(const struct irqchip *ic);

/* ---- routing.c ------------------------------------------------------------------------------- */

struct route {
	u32 gsi;
	u8 type;		/* KVM_IRQ_ROUTING_IRQCHIP, _MSI or _HV_SINT (vCPU, SINT: addr_lo, data) */
	u8 chip, pin;		/* pin 0 to 15 at the PICs */
	u32 addr_lo, addr_hi, data;
};

/* Routes sorted by GSI: those of g are route[first[g]] to route[first[g + 1] - 1]. */
struct routing {
	s16 gsi_of[3][IOAPIC_PINS];	/* by KVM_IRQCHIP_*, -1: none; slave pins count from 0 */
	u32 first[NR_GSI + 1];
	struct route route[];
};

struct routing *routing_default(void);
/* Lock held. As irqchip_line's *delivered. */
int routing_set_line(struct irqchip *ic, u32 source, u32 gsi, int level);
struct apic_msg;
struct apic_msg msi_message(const struct vm *vm, u32 addr_lo, u32 addr_hi, u32 data);
int msi_deliver(struct vm *vm, u32 addr_lo, u32 addr_hi, u32 data);
struct routing *routing_empty(void);

/* ---- split.c --------------------------------------------------------------------------------- */

/* Sets the bits of vectors whose EOI user space's IOAPIC may wait for. Lock held. */
void split_handled(const struct irqchip *ic, u64 handled[4]);

/* ---- irqchip.c ------------------------------------------------------------------------------- */

struct irqchip {
	struct os_mutex lock;
	struct vm *vm;
	struct pic pic;
	struct ioapic ioapic;
	struct pit *pit;
	struct routing *routing;
	struct irq_ack *acks;
	u32 reserved;		/* split: GSIs that are pins of user space's IOAPIC */
};

/* Lock held. chip: KVM_IRQCHIP_*; slave pins count from 0. */
void irqchip_acked(struct irqchip *ic, unsigned int chip, unsigned int pin);
void irqchip_unmasked(struct irqchip *ic, unsigned int chip, unsigned int pin);
bool irqchip_wants_ack(const struct irqchip *ic, unsigned int chip, unsigned int pin);

/* The level of a line that several drive. */
static inline bool line_level(u64 *sources, u32 source, int level)
{
	if (level)
		*sources |= BIT(source);
	else
		*sources &= ~BIT(source);
	return *sources;
}

#endif
