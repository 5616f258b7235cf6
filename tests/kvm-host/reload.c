/*
 * reload-vhost KERNEL INITRD ACCEL: a machine on standard input and output with a network, tap0, and
 * sockets, address 9, that the kernel's vhost serves. At each byte on descriptor 3 it stands still, the
 * virtio devices' states are saved and loaded, and it goes on; a q is the last one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define COMMANDS 3

static void device_reload(const struct device *dev)
{
	static u8 state[DEVICE_STATE_MAX + 4096];
	long n = device_save(dev, state, sizeof(state));

	if (n < 0 || device_load(dev, state, n) != n)
		abort();
}

static void reload(struct vmm *vmm)
{
	struct device dev;

	pthread_mutex_lock(&vmm->lock);
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	cpu_control_wait_parked(&vmm->control, vmm->cpus);
	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			dev.ops->pause(dev.self);
	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			device_reload(&dev);
	for (unsigned i = 0; virtio_board_device(vmm->virtio, i, &dev); i++)
		if (dev.ops)
			dev.ops->resume(dev.self);
	cpu_control_resume(&vmm->control);
	pthread_mutex_unlock(&vmm->lock);
}

static void *commands(void *arg)
{
	char byte;

	while (read(COMMANDS, &byte, 1) == 1 && byte != 'q')
		reload(arg);
	return NULL;
}

static int run(struct vmm *vmm, const struct vmm_config *config, struct error *err)
{
	pthread_t thread;
	int ret = vmm_create(vmm, config, err);

	if (ret < 0)
		return ret;
	if (pthread_create(&thread, NULL, commands, vmm))
		return -1;
	ret = vmm_run(vmm, err);
	pthread_join(thread, NULL);
	vmm_destroy(vmm);
	return ret < 0 || vmm->outcome.end != VMM_POWERED_OFF ? -1 : 0;
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
	struct vmm *vmm = calloc(1, sizeof(*vmm));
	enum accel accel;
	int ret;

	if (argc != 4 || !vmm || accel_parse(argv[3], &accel) < 0 ||
	    accel_choose(accel, &choice, &err) < 0)
		return 2;
	config.backend = choice.backend;
	config.kernel = argv[1];
	config.initrd = argv[2];
	ret = run(vmm, &config, &err);
	if (ret < 0)
		fprintf(stderr, "reload-vhost: %s\n", err.text);
	free(vmm);
	return ret < 0;
}
