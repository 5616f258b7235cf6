/*
 * The PC's wiring. Interrupt controllers, i8254 and the local APIC are the hypervisor's; all other
 * ports are here.
 *
 *   0x060 0x064  i8042                   0x3F8  COM1, 16550A
 *   0x070        MC146818, CMOS          0x402  debug console (firmware)
 *   0x080        POST codes: ignored     0x505  pvpanic
 *   0x092        system control port A   0x600  ACPI PM1 and PM timer (the LPC bridge's)
 *   0x0B2        APM control and status  0xCF8  PCI configuration
 *   0x0E9        debug console           0xCF9  reset control
 *   0x0F4        debug exit, on request  0x510  fw_cfg (firmware.c)
 *
 * PCI is q35's: 00:00.0 memory controller hub, 00:1f.0 LPC bridge, the rest from slot 1 on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/pc.h"

int pc_add_device(struct pc *pc, const struct device_ops *ops, void *self)
{
	return devices_add(&pc->devices, ops, self);
}

int pc_add_pci(struct pc *pc, int devfn, struct pci_device *d, const struct device_ops *ops,
	       void *self)
{
	return devices_add_pci(&pc->devices, &pc->pci.root, devfn, d, ops, self);
}

static struct irq_line pc_irq(const struct pc_config *c, unsigned gsi)
{
	return (struct irq_line){ .set = c->board.set_irq, .arg = c->board.irq_arg, .gsi = gsi };
}

static void pc_request_reset(void *arg)
{
	struct pc *pc = arg;

	pc->events.request(pc->events.arg, MACHINE_RESET, 0);
}

static void pc_request_power_off(void *arg)
{
	struct pc *pc = arg;

	pc->events.request(pc->events.arg, MACHINE_POWER_OFF, 0);
}

/* ---- HPET ------------------------------------------------------------------------------------ */

/* Legacy replacement: the RTC's line is the HPET's then, which drives the same one by itself. */
static void pc_update_irq8(struct pc *pc)
{
	irq_line_set(&pc->irq8, pc->rtc_level && !hpet_is_legacy(&pc->hpet));
}

static void pc_set_rtc_line(void *arg, unsigned gsi, bool level)
{
	struct pc *pc = arg;

	(void)gsi;
	pc->rtc_level = level;
	pc_update_irq8(pc);
}

static void pc_set_legacy(void *arg, bool on)
{
	struct pc *pc = arg;

	pc->set_pit(pc->pit_arg, !on);
	pc_update_irq8(pc);
}

/* Returns the line for the RTC. */
static struct irq_line pc_init_hpet(struct pc *pc, const struct pc_config *c)
{
	const struct irq_line line = pc_irq(c, 0);

	pc->irq8 = pc_irq(c, IRQ_RTC);
	if (!c->hpet)
		return pc->irq8;
	pc->hpet_there = true;
	pc->set_pit = c->set_pit;
	pc->pit_arg = c->pit_arg;
	hpet_init(&pc->hpet, c->board.timers, &line, pc_set_legacy, pc);
	pc_add_device(pc, &hpet_device_ops, &pc->hpet);
	return (struct irq_line){ .set = pc_set_rtc_line, .arg = pc, .gsi = IRQ_RTC };
}

/* ---- vmgenid --------------------------------------------------------------------------------- */

static void pc_notify_vmgenid(void *arg)
{
	struct pc *pc = arg;

	acpi_pm_gpe(&pc->pm, GPE_VMGENID);
}

static int pc_init_vmgenid(struct pc *pc, const struct pc_config *c)
{
	int ret;

	if (!c->vmgenid || !c->vmgenid->there)
		return 0;
	ret = vmgenid_init(&pc->vmgenid, c->vmgenid, c->board.memory, pc_notify_vmgenid, pc);
	return ret < 0 ? ret : pc_add_device(pc, &vmgenid_device_ops, &pc->vmgenid);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void pc_init_devices(struct pc *pc, const struct pc_config *c)
{
	struct irq_line com1 = pc_irq(c, IRQ_COM1), rtc = pc_init_hpet(pc, c),
			sci = pc_irq(c, IRQ_SCI);
	struct irq_line kbd = pc_irq(c, IRQ_KBD), aux = pc_irq(c, IRQ_AUX);

	serial_init(&pc->com1, c->board.serial, c->board.timers, &com1);
	rtc_init(&pc->rtc, c->board.timers, &rtc, NULL, NULL);
	rtc_set_memory(
		&pc->rtc, guest_memory_low_end(c->board.memory), guest_memory_high_size(c->board.memory));
	i8042_init(&pc->i8042, &kbd, &aux, pc_request_reset, pc);
	acpi_pm_init(&pc->pm, c->board.timers, &sci, pc_request_power_off, pc);
	reset_control_init(&pc->reset, &c->board.events);
	pc->pvpanic.events = c->board.events;
	pc->debug_exit.events = c->board.events;

	pc_add_device(pc, &serial_device_ops, &pc->com1);
	pc_add_device(pc, &rtc_device_ops, &pc->rtc);
	pc_add_device(pc, &i8042_device_ops, &pc->i8042);
	pc_add_device(pc, &acpi_pm_device_ops, &pc->pm);
	pc_add_device(pc, &reset_control_device_ops, &pc->reset);
}

static void pc_init_input(struct pc *pc, struct input *input)
{
	if (!input)
		return;
	ps2_keyboard_init(&pc->keyboard);
	ps2_mouse_init(&pc->mouse);
	i8042_plug(&pc->i8042, &pc->keyboard.ps2, &pc->mouse.ps2);
	*input = (struct input){
		.key = ps2_keyboard_key, .key_arg = &pc->keyboard,
		.motion = ps2_mouse_motion, .motion_arg = &pc->mouse,
	};
	pc_add_device(pc, &ps2_keyboard_device_ops, &pc->keyboard);
	pc_add_device(pc, &ps2_mouse_device_ops, &pc->mouse);
}

static void pc_init_pci(struct pc *pc, const struct pc_config *c)
{
	const struct irq_line line = pc_irq(c, 0);

	pci_host_init(&pc->pci, &pc->pio, &pc->mmio);
	pc->pci.msi = c->board.msi;
	pc->pci.msi_arg = c->board.msi_arg;
	mch_init(&pc->mch, &pc->pci, c->set_pam, c->pam_arg);
	lpc_init(&pc->lpc, &pc->pci, &pc->pm, &line);
	pc_add_device(pc, &pci_host_device_ops, &pc->pci);
	pc_add_pci(pc, PCI_DEVFN(0, 0), &pc->mch.pci, NULL, NULL);
	pc_add_pci(pc, PCI_DEVFN(PC_SLOT_LPC, 0), &pc->lpc.pci, &lpc_device_ops, &pc->lpc);
}

static int pc_init_ports(struct pc *pc, const struct pc_config *c)
{
	if (!c->root_ports)
		return 0;
	pc->port = calloc(c->root_ports, sizeof(*pc->port));
	if (!pc->port)
		return -ENOMEM;
	for (unsigned i = 0; i < c->root_ports; i++) {
		root_port_init(&pc->port[i], &pc->pci, i + 1);
		pc_add_pci(pc, PCI_DEVFN(PC_SLOT_PORTS + i, 0), &pc->port[i].pci, NULL, NULL);
	}
	pc->ports = c->root_ports;
	return 0;
}

void pc_destroy(struct pc *pc)
{
	free(pc->port);
	pc->port = NULL;
	pc->ports = 0;
}

/* PCI configuration owns the doubleword at 0xCF8, the chipset's reset the byte inside it. */
static u64 pc_cf8_read(void *dev, u64 offset, unsigned size)
{
	struct pc *pc = dev;

	if (offset == 1 && size == 1)
		return reset_control_io_ops.read(&pc->reset, 0, 1);
	return pci_ports_ops.read(&pc->pci, offset, size);
}

static void pc_cf8_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct pc *pc = dev;

	if (offset == 1 && size == 1)
		reset_control_io_ops.write(&pc->reset, 0, value, 1);
	else
		pci_ports_ops.write(&pc->pci, offset, value, size);
}

static const struct io_ops pc_cf8_ops = { .read = pc_cf8_read, .write = pc_cf8_write, .width = 4 };

/* A kernel that is loaded directly finds the chipset as firmware leaves it. BARs are its own work. */
static void pc_play_firmware(struct pc *pc)
{
	pci_config_write(&pc->mch.pci, MCH_PCIEXBAR, ECAM_BASE | 1, 4);
	lpc_play_firmware(&pc->lpc);
	for (unsigned i = 0; i < pc->ports; i++)
		root_port_play_firmware(&pc->port[i], i + 1);
	if (pc->vmgenid.mem)
		vmgenid_place(&pc->vmgenid, VMGENID_PAGE);
}

int pc_init(struct pc *pc, const struct pc_config *c)
{
	*pc = (struct pc){ .events = c->board.events, .direct_boot = !c->set_pam };
	pc_init_devices(pc, c);
	pc_init_input(pc, c->input);
	pc_init_pci(pc, c);

	const struct io_range ports[] = {
		{ PORT_I8042_DATA, 1, &i8042_data_ops, &pc->i8042, "i8042" },
		{ PORT_I8042_COMMAND, 1, &i8042_command_ops, &pc->i8042, "i8042" },
		{ PORT_RTC, 2, &rtc_io_ops, &pc->rtc, "rtc" },
		{ PORT_SYSTEM_A, 1, &reset_port_a_io_ops, &pc->reset, "port-a" },
		{ PORT_DEBUGCON, 1, &debugcon_io_ops, &pc->debugcon, "debugcon" },
		{ PORT_COM1, 8, &serial_io_ops, &pc->com1, "serial" },
		{ PORT_DEBUGCON_BIOS, 1, &debugcon_io_ops, &pc->debugcon_bios, "debugcon" },
		{ PORT_PVPANIC, 1, &pvpanic_io_ops, &pc->pvpanic, "pvpanic" },
		{ PORT_APM, 2, &lpc_apm_ops, &pc->lpc, "apm" },
		{ PORT_PCI_CONFIG, 8, &pc_cf8_ops, pc, "pci-config" },
		{ PORT_DEBUG_EXIT, 4, &debug_exit_io_ops, &pc->debug_exit, "debug-exit" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		bool there = (ports[i].dev != &pc->debug_exit || c->board.debug_exit) &&
			     (ports[i].dev != &pc->debugcon_bios || c->firmware_log);
		int ret = there ? io_map_add(&pc->pio, &ports[i]) : 0;

		if (ret < 0)
			return ret;
	}
	if (pc->hpet_there &&
	    io_map_add(&pc->mmio, &(struct io_range){
			HPET_BASE, HPET_SIZE, &hpet_io_ops, &pc->hpet, "hpet" }) < 0)
		return -EEXIST;
	if (pc_init_ports(pc, c) < 0)
		return -ENOMEM;
	if (pc_init_vmgenid(pc, c) < 0)
		return -EIO;
	if (pc->direct_boot)
		pc_play_firmware(pc);
	return 0;
}

void pc_reset(struct pc *pc)
{
	devices_reset(&pc->devices);
	if (pc->direct_boot)
		pc_play_firmware(pc);
}

void pc_flush(struct pc *pc)
{
	debugcon_flush(&pc->debugcon);
	debugcon_flush(&pc->debugcon_bios);
}

void pc_acpi_config(struct acpi_config *c, const struct pc *pc, const struct machine_options *o,
		    const struct guest_memory *mem, const struct cpu_topology *cpus)
{
	*c = (struct acpi_config){
		.board = &acpi_board_pc,
		.options = o,
		.ram_low = guest_memory_low_end(mem),
		.cpus = cpus,
		.ecam = ECAM_BASE,
		.ecam_size = ECAM_SIZE,
		.pci32 = ECAM_BASE + ECAM_SIZE,
		.pci64 = ALIGN_UP(GUEST_HOLE_END + guest_memory_high_size(mem), BIT(30)),
	};
	if (!pc)
		return;
	c->ecam = pc->pci.ecam;
	c->ecam_size = c->ecam == PCI_UNMAPPED ? 0 : pc->pci.ecam_size;
	/* Where firmware did not take the usual place. */
	if (c->ecam != ECAM_BASE)
		c->pci32 = ALIGN_UP(guest_memory_low_end(mem), BIT(28));
}

/* ---- as a machine ---------------------------------------------------------------------------- */

static void machine_reset(void *self)
{
	pc_reset(self);
}

static void machine_pause(void *self)
{
	devices_pause(&((struct pc *)self)->devices);
}

static void machine_resume(void *self)
{
	devices_resume(&((struct pc *)self)->devices);
}

static void machine_flush(void *self)
{
	pc_flush(self);
}

static void machine_destroy(void *self)
{
	pc_destroy(self);
}

static int machine_add_pci(void *self, int devfn, struct pci_device *d,
			   const struct device_ops *ops, void *dev)
{
	return pc_add_pci(self, devfn, d, ops, dev);
}

/* A link leads to one device, 0 (PCIe 4.0, 7.3.1). */
static int machine_add_behind(void *self, unsigned port, struct pci_device *d,
			      const struct device_ops *ops, void *dev)
{
	struct pc *pc = self;

	if (!port || port > pc->ports)
		return -ENODEV;
	return devices_add_pci(&pc->devices, &pc->port[port - 1].bus, PCI_DEVFN(0, 0), d, ops, dev);
}

struct machine pc_machine(struct pc *pc)
{
	static const struct machine_ops ops = {
		.reset = machine_reset, .pause = machine_pause, .resume = machine_resume,
		.flush = machine_flush, .destroy = machine_destroy, .add_pci = machine_add_pci,
		.add_behind = machine_add_behind,
	};

	return (struct machine){ .ops = &ops, .self = pc, .pio = &pc->pio, .mmio = &pc->mmio };
}
