/*
 * A machine without CPUs for the interrupt chips: time that stands still until it is told to go on,
 * timers that fire when it passes them, and vCPUs that only collect their requests.
 */
#ifndef QUMRA_TESTS_UNIT_IRQCHIP_FAKE_H
#define QUMRA_TESTS_UNIT_IRQCHIP_FAKE_H

#include <setjmp.h>
#include <stdlib.h>

#include <errno.h>
#include <stdarg.h>

#include <cmocka.h>

#include "hypervisor/irqchip/chips.h"
#include "hypervisor/irqchip/lapic.h"

#define FAKE_TSC_PER_NS	2	/* the guest's TSC runs at 2 GHz */

struct machine {
	struct vm vm;
	struct vcpu *cpu[4];
	u32 resets, inits;
};

extern u64 fake_now;		/* ns */
extern unsigned int fake_arms;	/* os_timer_arm calls */

/* With interrupt chips, PIT with speaker, and n vCPUs whose local APICs are enabled. */
struct machine *machine_new(unsigned int n);
void machine_free(struct machine *m);
int machine_setup(void **state);	/* one vCPU */
int machine_setup_smp(void **state);	/* four */
int machine_teardown(void **state);

/* Time passes; timers fire in order, and every vCPU serves its requests after each. */
void fake_advance(struct machine *m, u64 ns);
void fake_serve(struct machine *m);
/* A timer is armed for this very moment. */
bool fake_armed(u64 deadline);

u8 in8(struct machine *m, u16 port);
void out8(struct machine *m, u16 port, u8 val);
u32 io_read(struct machine *m, u8 reg);	/* IOAPIC, through its window */
void io_write(struct machine *m, u8 reg, u32 val);
void io_entry(struct machine *m, unsigned int pin, u64 entry);
u32 apic_read(struct vcpu *v, unsigned int nr);	/* through the xAPIC page */
void apic_write(struct vcpu *v, unsigned int nr, u32 val);
void apic_enable(struct vcpu *v);

/* A pulse, or a level, of a user-space line. */
int line(struct machine *m, u32 gsi, int level);
/* The vector the guest would take now; taken. */
int take(struct vcpu *v);

#endif
