/*
 * reload-vhost KERNEL INITRD ACCEL: a machine on standard input and output with a network, tap0, and
 * sockets, address 9, that the kernel's vhost serves. Whenever it stands still (still.h) the states of
 * the virtio devices and of their PCI functions are saved and loaded.
 */
#include <stdlib.h>

#include "tests/boot/still.h"
#include "vmm/virtio/pci.h"

/* The function is first, then its transport. */
static unsigned reload_functions(struct device_list *l)
{
	unsigned transports = 0;

	for (unsigned i = 0; i < l->count; i++) {
		if (l->device[i].ops == &virtio_pci_device_ops)
			transports++;
		else if (l->device[i].ops != &pci_function_ops)
			continue;
		still_reload(&l->device[i]);
	}
	return transports;
}

static void reload(struct vmm *vmm)
{
	struct device dev;

	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			dev.ops->pause(dev.self);
	vmm->machine.ops->pause(vmm->machine.self);
	if (reload_functions(&vmm->pc.devices) != 2)
		abort();
	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			still_reload(&dev);
	vmm->machine.ops->resume(vmm->machine.self);
	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			dev.ops->resume(dev.self);
}

int main(int argc, char **argv)
{
	struct vmm_config config = {
		.cmdline = "console=ttyS0 panic=-1 mitigations=off", .serial = "stdio",
		.memory = 256 << 20,
		.topology = { 1, 1, 1 }, .no_reboot = true,
		.virtio = {
			.nics = 1, .nic = { { .kind = NET_TAP, .tap = "tap0", .vhost = "on" } },
			.vsocks = 1, .vsock = { .cid = 9 },
		},
	};
	struct accel_choice choice;
	struct error err = ERROR_INIT;
	enum accel accel;

	if (argc != 4 || accel_parse(argv[3], &accel) < 0 || accel_choose(accel, &choice, &err) < 0)
		return 2;
	config.backend = choice.backend;
	config.kernel = argv[1];
	config.initrd = argv[2];
	return still_run("reload-vhost", &config, reload);
}
