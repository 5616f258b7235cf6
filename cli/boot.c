/* Options that say where firmware starts from: see devices.h. */
#include "cli/devices.h"

int boot_settle(const struct run_options *o, struct error *err)
{
	for (unsigned i = 0; i < o->virtio.nics; i++)
		if (o->virtio.nic[i].rom && o->virtio.mmio)
			return error_usage(err, "--net: rom belongs to --virtio pci");
	return 0;
}
