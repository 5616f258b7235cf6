/* The microvm: the board that starts fastest. Its devices and where they are. */
#ifndef QUMRA_VMM_MACHINE_MICROVM_H
#define QUMRA_VMM_MACHINE_MICROVM_H

#include "vmm/chardev/chardev.h"
#include "vmm/cpus/topology.h"
#include "vmm/hw/debug_exit.h"
#include "vmm/hw/debugcon.h"
#include "vmm/hw/ged.h"
#include "vmm/hw/pvpanic.h"
#include "vmm/hw/rtc.h"
#include "vmm/hw/serial.h"
#include "vmm/hw/vmgenid.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/request.h"
#include "vmm/memory/guest_memory.h"

#define PORT_GED	0x600
#define IRQ_GED		9

struct microvm {
	struct io_map pio, mmio;
	struct machine_events events;
	struct device_list devices;

	struct serial com1;
	struct rtc rtc;			/* both on request: */
	struct pci_host pci;
	bool pcie;
	struct pci_device bridge;
	struct irq_line pirq[PCI_PIRQS];
	struct ged ged;
	struct vmgenid vmgenid;		/* where the options have it */
	struct debugcon debugcon;
	struct pvpanic pvpanic;
	struct debug_exit debug_exit;
};

struct microvm_config {
	struct board_config board;
	const struct machine_options *options;
};

/* The microvm must not move afterwards. Everything is called under the machine's lock. */
int microvm_init(struct microvm *m, const struct microvm_config *config);
/* The microvm as a machine. */
struct machine microvm_machine(struct microvm *m);

struct acpi_config;
/* What ACPI tables are to say. */
void microvm_acpi_config(struct acpi_config *c, const struct machine_options *o,
			 const struct guest_memory *mem, const struct cpu_topology *cpus);

#endif
