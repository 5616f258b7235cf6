/* The five verbs of what the PCI core keeps of a function: configuration space, MSI-X, the pin. */
#include <errno.h>
#include <string.h>

#include "vmm/pci/bus.h"

struct function_state {
	u8 config[PCI_CONFIG_SIZE];
	u8 intx;
	u16 vectors;
	struct { u64 address; u32 data; u8 masked, pending, reserved[2]; } vector[PCI_MSIX_VECTORS_MAX];
};

_Static_assert(sizeof(struct function_state) <= DEVICE_STATE_MAX, "a saved state has a limit");

static void function_reset(void *dev)
{
	struct pci_device *d = dev;

	memcpy(d->config, d->initial, sizeof(d->config));
	d->intx = false;
	pci_update_intx(d);
	pci_msix_reset(d);
	if (d->bus)
		pci_remap(d->bus->host);
	/* A device that has more to say about its registers. */
	if (d->ops && d->ops->config_written)
		d->ops->config_written(d, 0, PCI_CONFIG_SIZE);
}

static void function_nop(void *dev)
{
	(void)dev;
}

static const struct state_field function_fields[] = {
	STATE_FIELD(struct function_state, config, 1),
	STATE_FIELD(struct function_state, intx, 1),
	STATE_FIELD(struct function_state, vectors, 1),
	STATE_FIELD(struct function_state, vector, 1),
};

static const struct state_table function_table =
	STATE_TABLE("pci-function", struct function_state, 1, function_fields);

static void function_save(void *dev, void *state)
{
	struct pci_device *d = dev;
	struct function_state *st = state;

	memcpy(st->config, d->config, sizeof(st->config));
	st->intx = d->intx;
	st->vectors = d->vectors;
	for (unsigned i = 0; i < d->vectors; i++) {
		st->vector[i].address = d->vector[i].address;
		st->vector[i].data = d->vector[i].data;
		st->vector[i].masked = d->vector[i].control;
		st->vector[i].pending = pci_msix_pending(d, i);
	}
}

/* Bits that are neither the guest's nor a device's status are what the same device always has. */
static bool function_fits(const struct pci_device *d, const struct function_state *st)
{
	if (st->intx > 1 || st->vectors != d->vectors)
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (st->config[PCI_VENDOR + i] != d->config[PCI_VENDOR + i])
			return false;
	for (unsigned i = PCI_REVISION; i < PCI_CONFIG_SIZE; i++)
		if ((st->config[i] ^ d->initial[i]) &
			~(d->writable[i] | d->clearable[i] | d->status[i]))
			return false;
	for (unsigned i = 0; i < st->vectors; i++)
		if (st->vector[i].masked > 1 || st->vector[i].pending > 1 ||
			st->vector[i].address & 3)
			return false;
	return true;
}

static int function_load(void *dev, const void *state)
{
	struct pci_device *d = dev;
	const struct function_state *st = state;

	if (!function_fits(d, st))
		return -EINVAL;
	pci_msix_reset(d);
	memcpy(d->config, st->config, sizeof(d->config));
	d->intx = st->intx;
	pci_update_intx(d);
	for (unsigned i = 0; i < d->vectors; i++) {
		d->vector[i].address = st->vector[i].address;
		d->vector[i].data = st->vector[i].data;
		d->vector[i].control = st->vector[i].masked;
		d->vector[i].pending = st->vector[i].pending;
	}
	if (d->bus)
		pci_remap(d->bus->host);
	pci_msix_update(d);
	if (d->ops && d->ops->config_written)
		d->ops->config_written(d, 0, PCI_CONFIG_SIZE);
	return 0;
}

const struct device_ops pci_function_ops = {
	.table = &function_table, .reset = function_reset, .pause = function_nop,
	.resume = function_nop, .save = function_save, .load = function_load,
};
