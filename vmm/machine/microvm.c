/*
 * The microvm's wiring, in the shape of QEMU's machine of that name: a serial port, virtio devices
 * in memory-mapped windows, and ACPI without fixed hardware. Nothing has to be probed, so nothing is
 * waited for. No firmware: the kernel is loaded directly. Interrupt controllers, i8254 and the local
 * APIC are the hypervisor's.
 *
 *   0x064        nothing but the keyboard controller's reset line
 *   0x070        MC146818, CMOS, on request     0x3F8  COM1, 16550A
 *   0x0E9        debug console                  0x505  pvpanic
 *   0x0F4        debug exit, on request         0x600  events, sleep, reset (hw/ged.c)
 *
 * PCI, on request: a host bridge that is not configurable, ECAM at q35's place, configuration ports,
 * PIRQ A to H on the IOAPIC's pins from 16 on. virtio's windows are where virtio/mmio.h says.
 */
#include <errno.h>

#include "vmm/machine/acpi.h"
#include "vmm/machine/microvm.h"
#include "vmm/machine/pc.h"

#define KBC_RESET	0xFE	/* i8042: pulse output bit 0 */

static struct irq_line microvm_irq(const struct microvm_config *c, unsigned gsi)
{
	return (struct irq_line){ .set = c->board.set_irq, .arg = c->board.irq_arg, .gsi = gsi };
}

/*
 * The way to reset that a kernel without ACPI takes. It reads as an empty place, so that nobody
 * looks for a keyboard.
 */
static u64 kbc_read(void *dev, u64 offset, unsigned size)
{
	(void)dev;
	(void)offset;
	(void)size;
	return ~0ULL;
}

static void kbc_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct microvm *m = dev;

	(void)offset;
	(void)size;
	if (value == KBC_RESET)
		m->events.request(m->events.arg, MACHINE_RESET, 0);
}

static const struct io_ops kbc_ops = { .read = kbc_read, .write = kbc_write, .width = 1 };

static void microvm_init_devices(struct microvm *m, const struct microvm_config *c)
{
	struct irq_line com1 = microvm_irq(c, IRQ_COM1), rtc = microvm_irq(c, IRQ_RTC),
			ged = microvm_irq(c, IRQ_GED);

	serial_init(&m->com1, c->board.serial, c->board.timers, &com1);
	ged_init(&m->ged, &ged, &c->board.events);
	m->pvpanic.events = c->board.events;
	m->debug_exit.events = c->board.events;
	devices_add(&m->devices, &serial_device_ops, &m->com1);
	devices_add(&m->devices, &ged_device_ops, &m->ged);
	if (!c->options->rtc)
		return;
	rtc_init(&m->rtc, c->board.timers, &rtc, NULL, NULL);
	rtc_set_memory(
		&m->rtc, guest_memory_low_end(c->board.memory), guest_memory_high_size(c->board.memory));
	devices_add(&m->devices, &rtc_device_ops, &m->rtc);
}

static void microvm_notify_vmgenid(void *arg)
{
	struct microvm *m = arg;

	ged_vmgenid(&m->ged);
}

static int microvm_init_vmgenid(struct microvm *m, const struct microvm_config *c)
{
	const struct vmgenid_options *o = &c->options->vmgenid;
	int ret = o->there ? vmgenid_init(&m->vmgenid, o, c->board.memory, microvm_notify_vmgenid, m) : 0;

	if (ret < 0 || !o->there)
		return ret;
	vmgenid_place(&m->vmgenid, VMGENID_PAGE);
	return devices_add(&m->devices, &vmgenid_device_ops, &m->vmgenid);
}

/* ---- PCI ------------------------------------------------------------------------------------- */

static void microvm_set_pirq(void *arg, unsigned pirq, bool level)
{
	struct microvm *m = arg;

	irq_line_set(&m->pirq[pirq], level);
}

static void microvm_init_pci(struct microvm *m, const struct microvm_config *c)
{
	/* Red Hat's number for a generic PCI Express host. */
	static const struct pci_id id = {
		.vendor = 0x1B36, .device = 0x0008, .subsystem_vendor = 0x1AF4,
		.subsystem = 0x1100, .class = 0x060000,
	};

	m->pcie = true;
	pci_host_init(&m->pci, &m->pio, &m->mmio);
	m->pci.msi = c->board.msi;
	m->pci.msi_arg = c->board.msi_arg;
	m->pci.set_pirq = microvm_set_pirq;
	m->pci.pirq_arg = m;
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		m->pirq[i] = microvm_irq(c, PIRQ_GSI + i);
	pci_set_ecam(&m->pci, ECAM_BASE, ECAM_SIZE);
	pci_init(&m->bridge, NULL, m, &id);
	devices_add(&m->devices, &pci_host_device_ops, &m->pci);
	devices_add_pci(&m->devices, &m->pci.root, PCI_DEVFN(0, 0), &m->bridge, NULL, NULL);
}

/* ---- the machine ----------------------------------------------------------------------------- */

int microvm_init(struct microvm *m, const struct microvm_config *c)
{
	const struct io_range ports[] = {
		{ PORT_I8042_COMMAND, 1, &kbc_ops, m, "reset-line" },
		{ PORT_DEBUGCON, 1, &debugcon_io_ops, &m->debugcon, "debugcon" },
		{ PORT_COM1, 8, &serial_io_ops, &m->com1, "serial" },
		{ PORT_PVPANIC, 1, &pvpanic_io_ops, &m->pvpanic, "pvpanic" },
		{ PORT_GED, GED_SIZE, &ged_io_ops, &m->ged, "ged" },
		{ c->options->rtc ? PORT_RTC : 0, 2, &rtc_io_ops, &m->rtc, "rtc" },
		{ c->options->pcie ? PORT_PCI_CONFIG : 0, 8, &pci_ports_ops, &m->pci, "pci-config" },
		{ c->board.debug_exit ? PORT_DEBUG_EXIT : 0, 4, &debug_exit_io_ops, &m->debug_exit,
		  "debug-exit" },
	};

	*m = (struct microvm){ .events = c->board.events };
	microvm_init_devices(m, c);
	if (c->options->pcie)
		microvm_init_pci(m, c);
	for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
		int ret = ports[i].base ? io_map_add(&m->pio, &ports[i]) : 0;

		if (ret < 0)
			return ret;
	}
	return microvm_init_vmgenid(m, c);
}

static void microvm_reset(void *self)
{
	struct microvm *m = self;

	devices_reset(&m->devices);
	if (m->vmgenid.mem)
		vmgenid_place(&m->vmgenid, VMGENID_PAGE);
}

static void microvm_pause(void *self)
{
	devices_pause(&((struct microvm *)self)->devices);
}

static void microvm_resume(void *self)
{
	devices_resume(&((struct microvm *)self)->devices);
}

static void microvm_flush(void *self)
{
	debugcon_flush(&((struct microvm *)self)->debugcon);
}

static void microvm_destroy(void *self)
{
	(void)self;
}

static int microvm_add_pci(void *self, int devfn, struct pci_device *d,
			   const struct device_ops *ops, void *dev)
{
	struct microvm *m = self;

	return m->pcie ? devices_add_pci(&m->devices, &m->pci.root, devfn, d, ops, dev) : -ENODEV;
}

struct machine microvm_machine(struct microvm *m)
{
	static const struct machine_ops ops = {
		.reset = microvm_reset, .pause = microvm_pause, .resume = microvm_resume,
		.flush = microvm_flush, .destroy = microvm_destroy, .add_pci = microvm_add_pci,
	};

	return (struct machine){ .ops = &ops, .self = m, .pio = &m->pio, .mmio = &m->mmio };
}
