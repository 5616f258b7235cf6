/*
 * reload KERNEL INITRD BOARD FIRMWARE: a machine with a VM generation ID on standard input and output. At each
 * byte on descriptor 3 it stands still, its generation ID is saved and loaded, as in a copy of the machine, and
 * it goes on. FIRMWARE is bios, uefi or none.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define COMMANDS 3

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
	u8 state[512];
	long n;

	pthread_mutex_lock(&vmm->lock);
	cpu_control_pause(&vmm->control, vmm->cpu, vmm->cpus);
	cpu_control_wait_parked(&vmm->control, vmm->cpus);
	vmm->machine.ops->pause(vmm->machine.self);
	n = dev ? device_save(dev, state, sizeof(state)) : -1;
	if (n < 0 || device_load(dev, state, n) != n)
		abort();
	vmm->machine.ops->resume(vmm->machine.self);
	cpu_control_resume(&vmm->control);
	pthread_mutex_unlock(&vmm->lock);
}

static void *commands(void *arg)
{
	char byte;

	while (read(COMMANDS, &byte, 1) == 1)
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
	/* Whoever commands has closed the descriptor. */
	pthread_join(thread, NULL);
	vmm_destroy(vmm);
	return ret < 0 || vmm->outcome.end != VMM_POWERED_OFF ? -1 : 0;
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
	struct vmm *vmm = calloc(1, sizeof(*vmm));
	int ret;

	if (argc != 5 || !vmm || accel_choose(ACCEL_SOFT, &choice, &err) < 0)
		return 2;
	config.backend = choice.backend;
	config.kernel = argv[1];
	config.initrd = argv[2];
	config.machine.kind = strcmp(argv[3], "microvm") == 0 ? MACHINE_MICROVM : MACHINE_Q35;
	config.firmware = strcmp(argv[4], "none") == 0 ? NULL : argv[4];
	ret = run(vmm, &config, &err);
	if (ret < 0)
		fprintf(stderr, "reload: %s\n", err.text);
	free(vmm);
	return ret < 0;
}
