/*
 * Configuration space of a PCI function: registers with masks of what the guest may write or clear,
 * and the list of capabilities (PCI Local Bus 3.0, chapter 6; PCI Express Base 4.0, 7.5).
 */
#include <assert.h>
#include <string.h>

#include "vmm/pci/bus.h"

#define COMMAND_WRITABLE \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | \
	 PCI_COMMAND_SERR | PCI_COMMAND_INTX_OFF)
#define FIRST_CAPABILITY 0x40

void pci_init(struct pci_device *d, const struct pci_ops *ops, void *self, const struct pci_id *id)
{
	*d = (struct pci_device){ .ops = ops, .self = self, .next_capability = FIRST_CAPABILITY };
	pci_put_u16(d->config, PCI_VENDOR, id->vendor);
	pci_put_u16(d->config, PCI_DEVICE, id->device);
	d->config[PCI_REVISION] = id->revision;
	d->config[PCI_CLASS] = id->class;
	pci_put_u16(d->config, PCI_CLASS + 1, id->class >> 8);
	pci_put_u16(d->config, PCI_SUBSYSTEM_VENDOR, id->subsystem_vendor);
	pci_put_u16(d->config, PCI_SUBSYSTEM, id->subsystem);
	pci_put_u16(d->writable, PCI_COMMAND, COMMAND_WRITABLE);
	d->writable[PCI_CACHE_LINE] = 0xFF;
	d->writable[PCI_INTERRUPT_LINE] = 0xFF;
	for (unsigned i = 0; i < ARRAY_SIZE(d->bar); i++) {
		d->bar[i].dev = d;
		d->bar[i].index = i;
		d->bar[i].base = PCI_UNMAPPED;
	}
}

void pci_set_pin(struct pci_device *d, unsigned pin)
{
	assert(pin <= 4);
	d->config[PCI_INTERRUPT_PIN] = pin;
}

/* ---- capabilities ---------------------------------------------------------------------------- */

unsigned pci_add_capability(struct pci_device *d, u8 id, unsigned size)
{
	unsigned at = d->next_capability;

	assert(at + size <= PCI_CONFIG_SIZE);
	d->config[at] = id;
	if (d->last_capability)
		d->config[d->last_capability + 1] = at;
	else
		d->config[PCI_CAPABILITIES] = at;
	d->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	d->last_capability = at;
	d->next_capability = ALIGN_UP(at + size, 4u);
	return at;
}

unsigned pci_add_vendor_capability(struct pci_device *d, const void *capability, unsigned size)
{
	unsigned at = pci_add_capability(d, PCI_CAP_VENDOR, size);

	memcpy(d->config + at + 2, (const u8 *)capability + 2, size - 2);
	d->config[at + 2] = size;
	return at;
}

/* PCI Power Management 1.2, 3.2: D0 and D3hot, no PME. A soft reset on the way back is not done. */
unsigned pci_add_pm(struct pci_device *d)
{
	enum { CAPABILITIES = 2, CONTROL = 4, VERSION = 3, NO_SOFT_RESET = BIT(3), STATE = 3 };
	unsigned at = pci_add_capability(d, PCI_CAP_PM, 8);

	pci_put_u16(d->config, at + CAPABILITIES, VERSION);
	pci_put_u16(d->config, at + CONTROL, NO_SOFT_RESET);
	pci_put_u16(d->writable, at + CONTROL, STATE);
	return at;
}

/* PCI Express Base 4.0, 7.5.3; version 2 of the structure. */
enum {
	EXP_CAPABILITIES = 0x02, EXP_DEVICE_CAP = 0x04, EXP_DEVICE_CONTROL = 0x08,
	EXP_DEVICE_STATUS = 0x0A, EXP_LINK_CAP = 0x0C, EXP_LINK_CONTROL = 0x10,
	EXP_LINK_STATUS = 0x12, EXP_SIZE = 0x3C,
};
#define EXP_VERSION		2
#define EXP_DEVICE_ROLE_ERRORS	BIT(15)
#define EXP_DEVICE_WRITABLE	0x7FEF	/* all but the function level reset */
#define EXP_DEVICE_DETECTED	0x000F
#define EXP_LINK_2_5GT_X1	0x11
#define EXP_LINK_WRITABLE	0x00C3

unsigned pci_add_express(struct pci_device *d, unsigned type)
{
	unsigned at = pci_add_capability(d, PCI_CAP_EXPRESS, EXP_SIZE);

	pci_put_u16(d->config, at + EXP_CAPABILITIES, EXP_VERSION | type << 4);
	pci_put_u32(d->config, at + EXP_DEVICE_CAP, EXP_DEVICE_ROLE_ERRORS);
	pci_put_u16(d->writable, at + EXP_DEVICE_CONTROL, EXP_DEVICE_WRITABLE);
	pci_put_u16(d->clearable, at + EXP_DEVICE_STATUS, EXP_DEVICE_DETECTED);
	/* What is part of the root complex has no link. */
	if (type == PCI_EXPRESS_INTEGRATED)
		return at;
	pci_put_u32(d->config, at + EXP_LINK_CAP, EXP_LINK_2_5GT_X1);
	pci_put_u16(d->config, at + EXP_LINK_STATUS, EXP_LINK_2_5GT_X1);
	pci_put_u16(d->writable, at + EXP_LINK_CONTROL, EXP_LINK_WRITABLE);
	return at;
}

/* ---- accesses -------------------------------------------------------------------------------- */

u32 pci_config_read(struct pci_device *d, unsigned offset, unsigned size)
{
	u32 value = 0;

	if (offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
		return 0;
	if (d->ops && d->ops->config_read)
		d->ops->config_read(d, offset, size);
	memcpy(&value, d->config + offset, size);
	return value;
}

static bool touches(unsigned offset, unsigned size, unsigned at, unsigned len)
{
	return offset < at + len && at < offset + size;
}

/* What the core derives from registers. */
static void config_changed(struct pci_device *d, unsigned offset, unsigned size)
{
	if (touches(offset, size, PCI_COMMAND, 2)) {
		pci_update_intx(d);
		pci_msix_update(d);
	} else if (d->msix && touches(offset, size, d->msix, 4)) {
		pci_msix_update(d);
	}
	/* Command, BARs, and a bridge's windows. */
	if (d->bus && (touches(offset, size, PCI_COMMAND, 2) ||
			      touches(offset, size, PCI_BAR0, PCI_INTERRUPT_LINE - PCI_BAR0)))
		pci_remap(d->bus->host);
}

void pci_config_write(struct pci_device *d, unsigned offset, u32 value, unsigned size)
{
	if (offset >= PCI_CONFIG_SIZE || size > PCI_CONFIG_SIZE - offset)
		return;
	for (unsigned i = 0; i < size; i++) {
		u8 byte = value >> 8 * i, *reg = &d->config[offset + i];
		u8 mask = d->writable[offset + i];

		*reg = (*reg & ~mask) | (byte & mask);
		*reg &= ~(byte & d->clearable[offset + i]);
	}
	config_changed(d, offset, size);
	if (d->ops && d->ops->config_written)
		d->ops->config_written(d, offset, size);
}
