/*
 * A machine as the rest of the program sees it, whichever board it is: where the CPUs' accesses go,
 * and the verbs of all its devices together. Each board has its own file for its wiring (pc.c,
 * microvm.c) and one for what ACPI says of it (dsdt.c, microvm_acpi.c).
 */
#ifndef QUMRA_VMM_MACHINE_MACHINE_H
#define QUMRA_VMM_MACHINE_MACHINE_H

#include "lib/error.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/options.h"
#include "vmm/machine/request.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/migration/state.h"
#include "vmm/pci/bus.h"

struct chardev;
struct timer_queue;

#define DEVICES_MAX	160
#define PCI_SLOT_ANY	(-1)
#define PCI_SLOT_LAST	31	/* never handed out: the chipset's */

/* What every board stands on; it all outlives the board. */
struct board_config {
	struct chardev *serial;
	struct timer_queue *timers;
	const struct guest_memory *memory;
	struct machine_events events;
	void (*set_irq)(void *arg, unsigned gsi, bool level);
	void *irq_arg;
	const struct pci_msi_ops *msi;
	void *msi_arg;
	bool debug_exit;
};

/* What has the verbs. */
struct device_list {
	struct device device[DEVICES_MAX];
	unsigned count;
};

int devices_add(struct device_list *l, const struct device_ops *ops, void *self);
/*
 * A PCI function on a bus, with its verbs; ops may be NULL. devfn, or PCI_SLOT_ANY for the next free
 * slot. Returns devfn, -EBUSY or -ENOSPC.
 */
int devices_add_pci(struct device_list *l, struct pci_bus *bus, int devfn, struct pci_device *d,
		    const struct device_ops *ops, void *self);
/* The slot that is handed out next, or -ENOSPC; those that the board itself has: a bit each. */
int machine_next_slot(u32 taken);
u32 machine_fixed_slots(const struct machine_options *o);
void devices_reset(struct device_list *l);
void devices_pause(struct device_list *l);
void devices_resume(struct device_list *l);

/* All under the machine's lock. */
struct machine_ops {
	void (*reset)(void *self);
	void (*pause)(void *self);
	void (*resume)(void *self);
	/* Before the end: what is still buffered. */
	void (*flush)(void *self);
	void (*destroy)(void *self);
	/* As pc_add_pci(); -ENODEV where there is no PCI. */
	int (*add_pci)(void *self, int devfn, struct pci_device *d, const struct device_ops *ops,
		       void *dev);
	/*
	 * Behind a root port, from 1 on: -EBUSY if there is something already, -ENODEV if there is no such
	 * port. NULL: there are none.
	 */
	int (*add_behind)(void *self, unsigned port, struct pci_device *d, const struct device_ops *ops,
			  void *dev);
};

struct machine {
	const struct machine_ops *ops;	/* NULL: there is none yet */
	void *self;
	struct io_map *pio, *mmio;
};

/* Firmware's work for a kernel that is loaded directly: the tables in guest memory. */
int machine_write_tables(const struct machine_options *o, const struct guest_memory *mem,
			 const struct cpu_topology *cpus, struct error *err);

#endif
