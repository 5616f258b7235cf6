/*
 * The machine's interrupts on their way to the hypervisor: 24 lines of i8259s and IOAPIC, each of
 * which several devices may hold up, and messages (MSI), sent at once or joined to an eventfd.
 */
#ifndef QUMRA_VMM_MACHINE_IRQ_ROUTER_H
#define QUMRA_VMM_MACHINE_IRQ_ROUTER_H

#include "lib/error.h"
#include "vmm/kvm/kvm.h"
#include "vmm/pci/bus.h"

#define IRQ_LINES	24
#define IRQ_MESSAGES_MAX 2048

struct irq_router {
	const struct kvm *kvm;
	unsigned holders[IRQ_LINES];	/* who holds the line up */
	unsigned messages;		/* slots of the table that were ever used */
	struct irq_message { u64 address; u32 data; bool used; } *message; /* GSI IRQ_LINES + index */
};

/* The VM has its interrupt controllers. */
void irq_router_init(struct irq_router *r, const struct kvm *kvm);
void irq_router_destroy(struct irq_router *r);
/* As struct irq_line's set, arg is the router: one call for each change of a holder's level. */
void irq_router_set_line(void *arg, unsigned gsi, bool level);
/* The controllers were reset: they forgot the lines that are up. */
void irq_router_renew(struct irq_router *r);
/* The lines' routes, and those of all messages, into the hypervisor. */
long irq_router_program(const struct irq_router *r);

/* For PCI; arg is the router. */
extern const struct pci_msi_ops irq_router_msi_ops;

#endif
