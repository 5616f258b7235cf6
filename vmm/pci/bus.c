/*
 * PCI buses: where functions are, what bridges forward (PCI-to-PCI Bridge 1.2, chapter 4), how
 * interrupt pins travel to the chipset (the same, 9.1), and which BARs are decoded.
 */
#include <errno.h>

#include "vmm/pci/bus.h"
#include "vmm/pci/root_port.h"

void pci_host_init(struct pci_host *h, struct io_map *pio, struct io_map *mmio)
{
	*h = (struct pci_host){ .pio = pio, .mmio = mmio, .ecam = PCI_UNMAPPED };
	pci_bus_init(&h->root, h, NULL);
}

void pci_bus_init(struct pci_bus *bus, struct pci_host *host, struct pci_device *bridge)
{
	*bus = (struct pci_bus){ .host = host, .bridge = bridge };
}

unsigned pci_bus_number(const struct pci_bus *bus)
{
	return bus->bridge ? bus->bridge->config[BRIDGE_SECONDARY] : 0;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* The bus of that number at or below bus, by the numbers that the guest gave. */
static struct pci_bus *bus_find(struct pci_bus *bus, unsigned number, unsigned depth)
{
	if (pci_bus_number(bus) == number)
		return bus;
	for (unsigned i = 0; i < 256; i++) {
		struct pci_device *d = bus->device[i];

		if (!d || !d->secondary || depth == 0)
			continue;
		/* A bridge that nobody configured has secondary bus 0, which is the root. */
		if (d->config[BRIDGE_SECONDARY] == 0 || number < d->config[BRIDGE_SECONDARY] ||
			number > d->config[BRIDGE_SUBORDINATE])
			continue;
		return bus_find(d->secondary, number, depth - 1);
	}
	return NULL;
}

struct pci_device *pci_find(struct pci_host *h, unsigned number, unsigned devfn)
{
	struct pci_bus *bus = number < 256 ? bus_find(&h->root, number, 8) : NULL;

	return bus && devfn < 256 ? bus->device[devfn] : NULL;
}

/* ---- decoding -------------------------------------------------------------------------------- */

typedef void bar_fn(struct pci_host *h, struct pci_bar *bar);

static void bus_each_bar(struct pci_bus *bus, bar_fn *fn)
{
	for (unsigned i = 0; i < 256; i++) {
		struct pci_device *d = bus->device[i];

		if (!d)
			continue;
		for (unsigned b = 0; b < ARRAY_SIZE(d->bar); b++)
			if (d->bar[b].size)
				fn(bus->host, &d->bar[b]);
		if (d->secondary)
			bus_each_bar(d->secondary, fn);
	}
}

static void bar_leave(struct pci_host *h, struct pci_bar *bar)
{
	if (bar->base != PCI_UNMAPPED && bar->base != pci_bar_wanted(bar))
		pci_map_bar(h, bar, PCI_UNMAPPED);
}

static void bar_enter(struct pci_host *h, struct pci_bar *bar)
{
	u64 wanted = bar->base == PCI_UNMAPPED ? pci_bar_wanted(bar) : PCI_UNMAPPED;

	if (wanted != PCI_UNMAPPED)
		pci_map_bar(h, bar, wanted);
}

/* First all that leave, so that two may change places in any order. */
void pci_remap(struct pci_host *h)
{
	bus_each_bar(&h->root, bar_leave);
	bus_each_bar(&h->root, bar_enter);
}

/* ---- pins ------------------------------------------------------------------------------------ */

/*
 * Slots 0 to 24 go to PIRQ E to H, turned by the slot; 25 to 31 to A to D as their interrupt route
 * registers have it at reset (Intel ICH9 data sheet, 10.1.45 on; what firmware for q35 expects).
 */
unsigned pci_root_pirq(unsigned slot, unsigned pin)
{
	return slot < 25 ? 4 + (pin + slot) % 4 : pin;
}

unsigned pci_pirq(const struct pci_device *d, unsigned pin)
{
	unsigned n = pin - 1;

	for (; d->bus->bridge; d = d->bus->bridge)
		n = (n + PCI_SLOT(d->devfn)) % 4;
	return pci_root_pirq(PCI_SLOT(d->devfn), n);
}

void pci_update_intx(struct pci_device *d)
{
	bool level = d->intx && !(pci_get_u16(d->config, PCI_COMMAND) & PCI_COMMAND_INTX_OFF);
	struct pci_host *h = d->bus ? d->bus->host : NULL;
	unsigned pirq, pin = d->config[PCI_INTERRUPT_PIN];

	d->config[PCI_STATUS] = (d->config[PCI_STATUS] & ~PCI_STATUS_INTX) |
				(d->intx ? PCI_STATUS_INTX : 0);
	if (level == d->intx_wired || !h || !pin)
		return;
	d->intx_wired = level;
	pirq = pci_pirq(d, pin);
	h->pirq_count[pirq] += level ? 1 : -1;
	if (h->pirq_count[pirq] == level && h->set_pirq)
		h->set_pirq(h->pirq_arg, pirq, level);
}

void pci_set_intx(struct pci_device *d, bool level)
{
	d->intx = level;
	pci_update_intx(d);
}

/* ---- coming and going ------------------------------------------------------------------------ */

int pci_attach(struct pci_bus *bus, u8 devfn, struct pci_device *d)
{
	if (bus->device[devfn] || d->bus)
		return -EBUSY;
	d->bus = bus;
	d->devfn = devfn;
	__builtin_memcpy(d->initial, d->config, sizeof(d->initial));
	bus->device[devfn] = d;
	return 0;
}

void pci_detach(struct pci_device *d)
{
	struct pci_bus *bus = d->bus;

	if (!bus) {
		pci_msix_release(d);
		return;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(d->bar); i++)
		if (d->bar[i].base != PCI_UNMAPPED)
			pci_map_bar(bus->host, &d->bar[i], PCI_UNMAPPED);
	pci_set_intx(d, false);
	pci_msix_release(d);
	bus->device[d->devfn] = NULL;
	d->bus = NULL;
	pci_remap(bus->host);	/* what it stood in the way of */
}

void pci_bus_reset(struct pci_bus *bus)
{
	for (unsigned i = 0; i < 256; i++) {
		struct pci_device *d = bus->device[i];

		if (!d)
			continue;
		pci_function_ops.reset(d);
		if (d->ops && d->ops->reset)
			d->ops->reset(d);
		if (d->secondary)
			pci_bus_reset(d->secondary);
	}
}
