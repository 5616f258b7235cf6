/*
 * reload KERNEL INITRD BOARD FIRMWARE: a machine with a VM generation ID on standard input and output.
 * Whenever it stands still (still.h) its generation ID is saved and loaded. FIRMWARE is bios, uefi or
 * none.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/boot/still.h"

static struct device *find(struct device_list *l)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->device[i].ops == &vmgenid_device_ops)
			return &l->device[i];
	return NULL;
}

static void reload(struct vmm *vmm)
{
	struct device *dev = find(vmm->config.machine.kind == MACHINE_MICROVM ?
				  &vmm->microvm.devices : &vmm->pc.devices);

	if (!dev)
		abort();
	vmm->machine.ops->pause(vmm->machine.self);
	still_reload(dev);
	vmm->machine.ops->resume(vmm->machine.self);
}

int main(int argc, char **argv)
{
	struct vmm_config config = {
		.cmdline = "console=ttyS0 panic=-1", .serial = "stdio", .memory = 256 << 20,
		.topology = { 1, 1, 1 }, .no_reboot = true,
		.machine = { .vmgenid = { .there = true } },
	};
	struct accel_choice choice;
	struct error err = ERROR_INIT;

	if (argc != 5 || accel_choose(ACCEL_SOFT, &choice, &err) < 0)
		return 2;
	config.backend = choice.backend;
	config.kernel = argv[1];
	config.initrd = argv[2];
	config.machine.kind = strcmp(argv[3], "microvm") == 0 ? MACHINE_MICROVM : MACHINE_Q35;
	config.firmware = strcmp(argv[4], "none") == 0 ? NULL : argv[4];
	return still_run("reload", &config, reload);
}
