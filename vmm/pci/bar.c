/*
 * Base address registers (PCI Local Bus 3.0, 6.2.5): what a guest finds when it sizes them, and the
 * ranges of the machine's I/O maps that they stand for. A range that another one holds already is
 * not decoded until that one moves away; RAM is the hypervisor's, which comes first.
 */
#include <assert.h>

#include "vmm/pci/bus.h"

#define BAR_IO		0x1
#define BAR_MEM64	0x4
#define BAR_PREFETCH	0x8
#define ROM_ENABLE	0x1

static unsigned bar_register(const struct pci_bar *bar)
{
	if (bar->index != PCI_ROM)
		return PCI_BAR0 + 4 * bar->index;
	return bar->dev->config[PCI_HEADER_TYPE] & PCI_HEADER_BRIDGE ? 0x38 : PCI_ROM_BAR;
}

static bool bar_is_wide(const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_MEM64 || bar->kind == PCI_BAR_MEM64_PREFETCH;
}

void pci_add_bar(struct pci_device *d, unsigned index, enum pci_bar_kind kind, u64 size,
		 const struct io_ops *ops, void *arg)
{
	static const u8 flags[] = {
		[PCI_BAR_IO] = BAR_IO,
		[PCI_BAR_MEM32] = 0,
		[PCI_BAR_MEM64] = BAR_MEM64,
		[PCI_BAR_MEM64_PREFETCH] = BAR_MEM64 | BAR_PREFETCH,
	};
	struct pci_bar *bar = &d->bar[index];
	unsigned reg;

	assert(index <= PCI_ROM && !bar->size && size >= (kind == PCI_BAR_IO ? 4 : 16) &&
	       (size & (size - 1)) == 0);
	bar->kind = kind;
	bar->size = size;
	bar->ops = ops;
	bar->arg = arg;
	reg = bar_register(bar);
	d->config[reg] = flags[kind];
	pci_put_u32(d->writable, reg, ~(size - 1));
	if (bar_is_wide(bar)) {
		assert(index < PCI_BARS - 1 && !d->bar[index + 1].size);
		pci_put_u32(d->writable, reg + 4, ~(size - 1) >> 32);
	}
}

static u64 rom_read(void *arg, u64 offset, unsigned size)
{
	const struct pci_rom *rom = arg;
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)(offset + i < rom->size ? rom->data[offset + i] : 0xFF) << 8 * i;
	return value;
}

static const struct io_ops rom_ops = { .read = rom_read, .width = 8 };

void pci_set_rom(struct pci_device *d, const struct pci_rom *rom)
{
	u64 size = 2048;

	while (size < rom->size)
		size *= 2;
	pci_add_bar(d, PCI_ROM, PCI_BAR_MEM32, size, &rom_ops, (void *)rom);
	d->writable[bar_register(&d->bar[PCI_ROM])] |= ROM_ENABLE;
}

/* ---- mapping --------------------------------------------------------------------------------- */

static bool bar_forwarded(const struct pci_bar *bar, u64 base)
{
	const struct pci_bus *bus = bar->dev->bus;

	for (; bus->bridge; bus = bus->bridge->bus)
		if (!pci_bridge_forwards(bus->bridge, bar, base))
			return false;
	return true;
}

/* Where the registers say that the BAR is. Zero means that nobody placed it. */
u64 pci_bar_wanted(const struct pci_bar *bar)
{
	const struct pci_device *d = bar->dev;
	unsigned reg = bar_register(bar);
	u64 base = pci_get_u32(d->config, reg), limit = bar->kind == PCI_BAR_IO ? BIT(16) : BIT(32);

	if (!bar->size || !(d->config[PCI_COMMAND] &
				  (bar->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return PCI_UNMAPPED;
	if (bar->index == PCI_ROM && !(base & ROM_ENABLE))
		return PCI_UNMAPPED;
	if (bar_is_wide(bar)) {
		base |= (u64)pci_get_u32(d->config, reg + 4) << 32;
		limit = 0;	/* 2^64: wraps are caught below */
	}
	base &= ~(bar->size - 1);
	if (!base || base + bar->size - 1 > limit - 1 || base + bar->size - 1 < base)
		return PCI_UNMAPPED;
	return bar_forwarded(bar, base) ? base : PCI_UNMAPPED;
}

/* Moves it; stays unmapped where something else is. */
void pci_map_bar(struct pci_host *h, struct pci_bar *bar, u64 base)
{
	struct io_map *map = bar->kind == PCI_BAR_IO ? h->pio : h->mmio;
	struct io_range range = {
		.base = base, .size = bar->size, .ops = bar->ops, .dev = bar->arg, .name = "pci"};
	u64 before = bar->base;

	if (before != PCI_UNMAPPED)
		io_map_remove(map, before);
	bar->base = base != PCI_UNMAPPED && io_map_add(map, &range) == 0 ? base : PCI_UNMAPPED;
	if (bar->base != before && bar->dev->ops && bar->dev->ops->bar_moved)
		bar->dev->ops->bar_moved(bar->dev, bar->index, bar->base);
}
