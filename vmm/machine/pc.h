/* The machine: a PC, its devices and where they are. */
#ifndef QUMRA_VMM_MACHINE_PC_H
#define QUMRA_VMM_MACHINE_PC_H

#include "vmm/chardev/chardev.h"
#include "vmm/cpus/topology.h"
#include "vmm/hw/acpi_pm.h"
#include "vmm/hw/debug_exit.h"
#include "vmm/hw/debugcon.h"
#include "vmm/hw/hpet.h"
#include "vmm/hw/i8042.h"
#include "vmm/hw/ps2_keyboard.h"
#include "vmm/hw/ps2_mouse.h"
#include "vmm/hw/pvpanic.h"
#include "vmm/hw/reset_control.h"
#include "vmm/hw/rtc.h"
#include "vmm/hw/serial.h"
#include "vmm/hw/vmgenid.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/machine.h"
#include "vmm/machine/request.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/pci/lpc.h"
#include "vmm/pci/mch.h"
#include "vmm/pci/root_port.h"

#define PORT_I8042_DATA		0x60
#define PORT_I8042_COMMAND	0x64
#define PORT_RTC		0x70
#define PORT_SYSTEM_A		0x92
#define PORT_DEBUGCON		0xE9
#define PORT_DEBUG_EXIT		0xF4
#define PORT_COM1		0x3F8
#define PORT_DEBUGCON_BIOS	0x402
#define PORT_PVPANIC		0x505
#define PORT_PCI_CONFIG		0xCF8
#define PORT_RESET_CONTROL	0xCF9
#define PORT_PCI_DATA		0xCFC

#define IRQ_KBD		1
#define IRQ_COM1	4
#define IRQ_RTC		8
#define IRQ_SCI		9
#define IRQ_AUX		12

#define PC_SLOT_ANY	PCI_SLOT_ANY
#define PC_SLOT_LPC	31
#define PC_SLOT_PORTS	16	/* the first root port */
#define PC_ROOT_PORTS_MAX 15

struct pc {
	struct io_map pio, mmio;
	struct machine_events events;
	struct device_list devices;

	struct serial com1;
	struct rtc rtc;
	struct hpet hpet;		/* with hpet_there */
	bool hpet_there;
	struct irq_line irq8;		/* the RTC's, but where the HPET took it */
	bool rtc_level;
	void (*set_pit)(void *arg, bool on);
	void *pit_arg;
	struct i8042 i8042;
	struct ps2_keyboard keyboard;	/* these two only beside a screen */
	struct ps2_mouse mouse;
	struct acpi_pm pm;
	struct vmgenid vmgenid;		/* where the options have it */
	struct reset_control reset;
	struct pci_host pci;
	struct mch mch;
	struct lpc lpc;
	struct root_port *port;	/* ports of them */
	unsigned ports;
	bool direct_boot;
	struct debugcon debugcon, debugcon_bios;
	struct pvpanic pvpanic;
	struct debug_exit debug_exit;
};

struct pc_config {
	struct board_config board;
	/* With firmware: what reads and writes of its shadow reach. NULL: no firmware runs. */
	void (*set_pam)(void *arg, const u8 pam[MCH_PAMS]);
	void *pam_arg;
	struct input *input;	/* gets a keyboard and a mouse; NULL: the machine has none */
	/* With an HPET: may the i8254 use IRQ 0? */
	bool hpet;
	void (*set_pit)(void *arg, bool on);
	void *pit_arg;
	const struct vmgenid_options *vmgenid;	/* NULL: there is none */
	unsigned root_ports;	/* at most PC_ROOT_PORTS_MAX */
	bool firmware_log;	/* there is a debug console at the port that firmware uses */
};

/* The pc must not move afterwards. Everything is called under the machine's lock. */
int pc_init(struct pc *pc, const struct pc_config *config);
void pc_destroy(struct pc *pc);
/*
 * A PCI function on the root bus: devfn, or PC_SLOT_ANY for the next free slot; with its verbs, ops
 * may be NULL. After pc_init(), before the machine runs. Returns devfn, -EBUSY or -ENOSPC.
 */
int pc_add_pci(struct pc *pc, int devfn, struct pci_device *d, const struct device_ops *ops,
	       void *self);
/* A device that is not on PCI, for its verbs. */
int pc_add_device(struct pc *pc, const struct device_ops *ops, void *self);
void pc_reset(struct pc *pc);
/* Before the end: what is still buffered. */
void pc_flush(struct pc *pc);
/* The pc as a machine. */
struct machine pc_machine(struct pc *pc);
struct acpi_config;
/* What ACPI tables are to say; pc may be NULL: as a kernel that is loaded directly finds it. */
void pc_acpi_config(struct acpi_config *c, const struct pc *pc, const struct machine_options *o,
		    const struct guest_memory *mem, const struct cpu_topology *cpus);

#endif
