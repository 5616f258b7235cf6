/* Options that say where firmware starts from: see devices.h. */
#include <stdlib.h>

#include "cli/devices.h"

static int boot_index(unsigned *boot, const char *option, const char *value, struct error *err)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || n > BOOT_INDEX_MAX)
		return error_usage(err, "%s: bootindex: \"%s\" is not a number from 0 to %d", option, value,
			BOOT_INDEX_MAX);
	*boot = n + 1;
	return 0;
}

int boot_disk(void *out, const char *value, struct error *err)
{
	struct disk_options *d = out;

	return boot_index(&d->boot, d->cdrom ? "--cdrom" : "--disk", value, err);
}

int boot_nic(void *out, const char *value, struct error *err)
{
	return boot_index(&((struct nic_options *)out)->boot, "--net", value, err);
}

/* What has a place in the order; 0 if number i has none, or there are no more. */
static unsigned boot_of(const struct virtio_options *v, unsigned i)
{
	if (i < v->disks)
		return v->disk[i].boot;
	return i - v->disks < v->nics ? v->nic[i - v->disks].boot : 0;
}

static int boot_check_order(const struct run_options *o, struct error *err)
{
	const struct virtio_options *v = &o->virtio;

	for (unsigned i = 0; i < v->disks + v->nics; i++) {
		unsigned boot = boot_of(v, i);

		if (!boot)
			continue;
		if (!o->firmware || v->mmio)
			return error_usage(err, "bootindex: is for firmware, and for --virtio pci");
		for (unsigned k = 0; k < i; k++)
			if (boot_of(v, k) == boot)
				return error_usage(err, "bootindex: there are two of %u", boot - 1);
	}
	return 0;
}

int boot_settle(const struct run_options *o, struct error *err)
{
	for (unsigned i = 0; i < o->virtio.nics; i++)
		if (o->virtio.nic[i].rom && o->virtio.mmio)
			return error_usage(err, "--net: rom belongs to --virtio pci");
	return boot_check_order(o, err);
}
