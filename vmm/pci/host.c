/*
 * How software reaches configuration space: mechanism 1, ports 0xCF8 and 0xCFC (PCI Local Bus 3.0,
 * 3.2.2.3.2), and ECAM, memory-mapped (PCI Express Base 4.0, 7.2.2).
 */
#include <errno.h>

#include "vmm/pci/bus.h"

#define CONFIG_ENABLE	BIT(31)

static u64 find_and_read(struct pci_host *h, u32 bdf, unsigned offset, unsigned size)
{
	struct pci_device *d = pci_find(h, bdf >> 8, bdf & 0xFF);

	return d ? pci_config_read(d, offset, size) : ~0ULL;
}

static void find_and_write(struct pci_host *h, u32 bdf, unsigned offset, u32 value, unsigned size)
{
	struct pci_device *d = pci_find(h, bdf >> 8, bdf & 0xFF);

	if (d)
		pci_config_write(d, offset, value, size);
}

static u64 ports_read(void *dev, u64 offset, unsigned size)
{
	struct pci_host *h = dev;

	if (offset < 4)
		return offset == 0 && size == 4 ? h->address : ~0U;
	if (!(h->address & CONFIG_ENABLE))
		return ~0U;
	return find_and_read(h, h->address >> 8 & 0xFFFF, (h->address & 0xFC) | (offset & 3), size);
}

/* The address register takes only whole doublewords: 0xCF9 is another device's. */
static void ports_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct pci_host *h = dev;

	if (offset == 0 && size == 4)
		h->address = value & ~0x7F000003ULL;
	else if (offset >= 4 && h->address & CONFIG_ENABLE)
		find_and_write(h, h->address >> 8 & 0xFFFF, (h->address & 0xFC) | (offset & 3),
			value, size);
}

const struct io_ops pci_ports_ops = { .read = ports_read, .write = ports_write, .width = 4 };

static u64 ecam_read(void *dev, u64 offset, unsigned size)
{
	return find_and_read(dev, offset >> 12, offset & 0xFFF, size);
}

static void ecam_write(void *dev, u64 offset, u64 value, unsigned size)
{
	find_and_write(dev, offset >> 12, offset & 0xFFF, value, size);
}

static const struct io_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .width = 4 };

void pci_set_ecam(struct pci_host *h, u64 base, u64 size)
{
	if (base == h->ecam && size == h->ecam_size)
		return;
	if (h->ecam != PCI_UNMAPPED)
		io_map_remove(h->mmio, h->ecam);
	h->ecam = PCI_UNMAPPED;
	h->ecam_size = size;
	if (base != PCI_UNMAPPED &&
		io_map_add(h->mmio, &(struct io_range){ base, size, &ecam_ops, h, "ecam" }) == 0)
		h->ecam = base;
}

/* ---- device ---------------------------------------------------------------------------------- */

struct host_state {
	u32 address;
};

static void host_reset(void *dev)
{
	((struct pci_host *)dev)->address = 0;
}

static void host_nop(void *dev)
{
	(void)dev;
}

static const struct state_field host_fields[] = { STATE_FIELD(struct host_state, address, 1) };

static const struct state_table host_table =
	STATE_TABLE("pci-host", struct host_state, 1, host_fields);

static void host_save(void *dev, void *state)
{
	((struct host_state *)state)->address = ((struct pci_host *)dev)->address;
}

static int host_load(void *dev, const void *state)
{
	u32 address = ((const struct host_state *)state)->address;

	if (address & 0x7F000003)
		return -EINVAL;
	((struct pci_host *)dev)->address = address;
	return 0;
}

const struct device_ops pci_host_device_ops = {
	.table = &host_table, .reset = host_reset, .pause = host_nop, .resume = host_nop,
	.save = host_save, .load = host_load,
};
