/* A PCI Express root port: a bridge on the root bus with one slot behind it. */
#ifndef QUMRA_VMM_PCI_ROOT_PORT_H
#define QUMRA_VMM_PCI_ROOT_PORT_H

#include "vmm/pci/bus.h"

/* Registers of a type 1 header (PCI-to-PCI Bridge 1.2, 3.2). */
enum {
	BRIDGE_PRIMARY = 0x18, BRIDGE_SECONDARY = 0x19, BRIDGE_SUBORDINATE = 0x1A,
	BRIDGE_IO_BASE = 0x1C, BRIDGE_IO_LIMIT = 0x1D, BRIDGE_SECONDARY_STATUS = 0x1E,
	BRIDGE_MEMORY_BASE = 0x20, BRIDGE_MEMORY_LIMIT = 0x22, BRIDGE_PREFETCH_BASE = 0x24,
	BRIDGE_PREFETCH_LIMIT = 0x26, BRIDGE_PREFETCH_BASE_HIGH = 0x28,
	BRIDGE_PREFETCH_LIMIT_HIGH = 0x2C, BRIDGE_CONTROL = 0x3E,
};

struct root_port {
	struct pci_device pci;
	struct pci_bus bus;	/* behind it: one function's worth of slots, 0 */
	unsigned express;	/* the capability's offset */
	bool in_reset;		/* the secondary bus is held in reset */
};

/* number: of the physical slot, from 1 on. Attach it to host's root bus afterwards. */
void root_port_init(struct root_port *p, struct pci_host *host, unsigned number);
/* As firmware leaves it: bus is its own, and there is nothing behind it, so its windows are closed. */
void root_port_play_firmware(struct root_port *p, unsigned bus);

#endif
