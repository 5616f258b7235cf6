/*
 * A PCI Express root port (PCI Express Base 4.0, 7.5.1.3 and 7.5.3; PCI-to-PCI Bridge 1.2), by the
 * numbers of QEMU's generic one. Its windows decide what of the devices behind it is decoded.
 */
#include "vmm/pci/root_port.h"

#define WINDOW_64	1
#define CONTROL_RESET	BIT(6)
#define CONTROL_WRITABLE	0x5F	/* parity, SERR, ISA, VGA, VGA16, reset; no master abort mode */

/* What a window register holds is bits 31:20 (memory) or 15:12 (I/O) of an address. */
static bool window_has(u64 base, u64 limit, u64 at, u64 size)
{
	return base <= limit && at >= base && at + size - 1 <= limit;
}

static bool io_window_has(const u8 *c, u64 at, u64 size)
{
	return window_has((c[BRIDGE_IO_BASE] & 0xF0) << 8, (c[BRIDGE_IO_LIMIT] & 0xF0) << 8 | 0xFFF,
		at, size);
}

static bool memory_window_has(const u8 *c, u64 at, u64 size)
{
	return window_has((u64)(pci_get_u16(c, BRIDGE_MEMORY_BASE) & 0xFFF0) << 16,
		(u64)(pci_get_u16(c, BRIDGE_MEMORY_LIMIT) & 0xFFF0) << 16 | 0xFFFFF, at, size);
}

static bool prefetch_window_has(const u8 *c, u64 at, u64 size)
{
	u64 base = (u64)(pci_get_u16(c, BRIDGE_PREFETCH_BASE) & 0xFFF0) << 16;
	u64 limit = (u64)(pci_get_u16(c, BRIDGE_PREFETCH_LIMIT) & 0xFFF0) << 16 | 0xFFFFF;

	return window_has(base | (u64)pci_get_u32(c, BRIDGE_PREFETCH_BASE_HIGH) << 32,
		limit | (u64)pci_get_u32(c, BRIDGE_PREFETCH_LIMIT_HIGH) << 32, at, size);
}

bool pci_bridge_forwards(const struct pci_device *bridge, const struct pci_bar *bar, u64 base)
{
	const u8 *c = bridge->config;

	if (bar->kind == PCI_BAR_IO)
		return c[PCI_COMMAND] & PCI_COMMAND_IO && io_window_has(c, base, bar->size);
	return c[PCI_COMMAND] & PCI_COMMAND_MEMORY &&
	       (memory_window_has(c, base, bar->size) || prefetch_window_has(c, base, bar->size));
}

static void port_config_written(struct pci_device *d, unsigned offset, unsigned size)
{
	struct root_port *p = d->self;
	bool reset = pci_get_u16(d->config, BRIDGE_CONTROL) & CONTROL_RESET;

	(void)offset;
	(void)size;
	if (reset && !p->in_reset)
		pci_bus_reset(&p->bus);
	p->in_reset = reset;
}

static const struct pci_ops port_ops = { .config_written = port_config_written };

static void port_init_windows(struct pci_device *d)
{
	for (unsigned i = BRIDGE_PRIMARY; i <= BRIDGE_SUBORDINATE; i++)
		d->writable[i] = 0xFF;
	d->writable[BRIDGE_IO_BASE] = d->writable[BRIDGE_IO_LIMIT] = 0xF0;
	for (unsigned i = BRIDGE_MEMORY_BASE; i <= BRIDGE_PREFETCH_LIMIT; i += 2)
		pci_put_u16(d->writable, i, 0xFFF0);
	d->config[BRIDGE_PREFETCH_BASE] = d->config[BRIDGE_PREFETCH_LIMIT] = WINDOW_64;
	pci_put_u32(d->writable, BRIDGE_PREFETCH_BASE_HIGH, ~0U);
	pci_put_u32(d->writable, BRIDGE_PREFETCH_LIMIT_HIGH, ~0U);
	pci_put_u16(d->writable, BRIDGE_CONTROL, CONTROL_WRITABLE);
}

/* PCIe 4.0, 7.5.3.9 and 7.5.3.12 (root control). */
static void port_init_express(struct root_port *p, unsigned number)
{
	enum { LINK_CAP = 0x0C, ROOT_CONTROL = 0x1C, ROOT_WRITABLE = 0x0F };
	struct pci_device *d = &p->pci;

	p->express = pci_add_express(d, PCI_EXPRESS_ROOT_PORT);
	d->config[p->express + LINK_CAP + 3] = number;
	pci_put_u16(d->writable, p->express + ROOT_CONTROL, ROOT_WRITABLE);
}

void root_port_init(struct root_port *p, struct pci_host *host, unsigned number)
{
	static const struct pci_id id = { .vendor = 0x1B36, .device = 0x000C, .class = 0x060400 };
	struct pci_device *d = &p->pci;

	*p = (struct root_port){ 0 };
	pci_init(d, &port_ops, p, &id);
	/* A bridge's registers are where another function's subsystem is. */
	d->config[PCI_HEADER_TYPE] = PCI_HEADER_BRIDGE;
	port_init_windows(d);
	pci_set_pin(d, 1);
	port_init_express(p, number);
	pci_add_pm(d);
	pci_bus_init(&p->bus, host, d);
	d->secondary = &p->bus;
}

void root_port_play_firmware(struct root_port *p, unsigned bus)
{
	struct pci_device *d = &p->pci;

	pci_config_write(d, BRIDGE_SECONDARY, bus, 1);
	pci_config_write(d, BRIDGE_SUBORDINATE, bus, 1);
	/* A base above its limit. */
	pci_config_write(d, BRIDGE_IO_BASE, 0x00F0, 2);
	pci_config_write(d, BRIDGE_MEMORY_BASE, 0x0000FFF0, 4);
	pci_config_write(d, BRIDGE_PREFETCH_BASE, 0x0000FFF0, 4);
}
