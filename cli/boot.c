/* Options that say where firmware starts from: see devices.h. */
#include "cli/devices.h"

/* What has a place in the order; 0 if number i has none, or there are no more. */
static u64 boot_of(const struct virtio_options *v, unsigned i)
{
	if (i < v->disks)
		return v->disk[i].boot;
	return i - v->disks < v->nics ? v->nic[i - v->disks].boot : 0;
}

static int boot_check_order(const struct run_options *o, struct error *err)
{
	const struct virtio_options *v = &o->virtio;

	for (unsigned i = 0; i < v->disks + v->nics; i++) {
		u64 boot = boot_of(v, i);

		if (!boot)
			continue;
		if (!o->firmware || v->mmio)
			return error_usage(err, "bootindex: is for firmware, and for --virtio pci");
		for (unsigned k = 0; k < i; k++)
			if (boot_of(v, k) == boot)
				return error_usage(err, "bootindex: there are two of %llu",
					(unsigned long long)boot - 1);
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
