/* --machine BOARD[,…]: see machine.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"
#include "cli/machine.h"
#include "cli/suboptions.h"
#include "vmm/machine/pc.h"

static int machine_root_ports(void *out, const char *value, struct error *err)
{
	struct machine_options *m = out;
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (end == value || *end || *value == '-' || n > PC_ROOT_PORTS_MAX)
		return error_usage(err, "--machine: root-ports: \"%s\" is not 0 to %d", value,
			PC_ROOT_PORTS_MAX);
	m->root_ports = n;
	return 0;
}

static const struct suboption q35_suboptions[] = {
	{ "root-ports", SUB_CALL, 0, NULL, machine_root_ports, 0, 0 },
	{ "hpet", SUB_SWITCH, offsetof(struct machine_options, hpet), NULL, NULL, 0, 0 },
};

static const struct suboption microvm_suboptions[] = {
	{ "rtc", SUB_SWITCH, offsetof(struct machine_options, rtc), NULL, NULL, 0, 0 },
	{ "pcie", SUB_SWITCH, offsetof(struct machine_options, pcie), NULL, NULL, 0, 0 },
};

static const struct machine_name {
	const char *name;
	enum machine_kind kind;
	const struct suboption *suboption;
	size_t suboptions;
} machine_names[] = {
	{ "q35", MACHINE_Q35, q35_suboptions, ARRAY_SIZE(q35_suboptions) },
	{ "microvm", MACHINE_MICROVM, microvm_suboptions, ARRAY_SIZE(microvm_suboptions) },
};

const char *machine_name(enum machine_kind kind)
{
	size_t i = 0;

	while (machine_names[i].kind != kind)
		i++;
	return machine_names[i].name;
}

/* name and rest are taken apart in place. */
static int machine_take(
	struct machine_options *o, const char *name, char *rest, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(machine_names); i++) {
		const struct machine_name *m = &machine_names[i];

		if (strcmp(name, m->name) != 0)
			continue;
		o->kind = m->kind;
		return suboptions_parse(
			"--machine", rest, m->suboption, m->suboptions, o, err);
	}
	return error_usage(err, "--machine: \"%s\" is unknown; there are "
		"q35[,root-ports=N][,hpet=on], microvm[,rtc=on][,pcie=on]", name);
}

int machine_parse(struct run_options *o, const char *value, struct error *err)
{
	char *text = strdup(value), *rest;
	int ret;

	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	suboption_cut(text, &rest);
	ret = machine_take(&o->machine, text, rest, err);
	free(text);
	return ret;
}

/* Which port number i of disks, networks and folders is behind; 0: none. */
static unsigned port_of(const struct virtio_options *v, unsigned i)
{
	if (i < v->disks)
		return v->disk[i].root_port;
	i -= v->disks;
	if (i < v->nics)
		return v->nic[i].root_port;
	return v->share[i - v->nics].root_port;
}

/* A port has one slot. */
static int ports_check(const struct run_options *o, struct error *err)
{
	const struct virtio_options *v = &o->virtio;
	unsigned used = 0;

	for (unsigned i = 0; i < v->disks + v->nics + v->shares; i++) {
		unsigned port = port_of(v, i);

		if (!port)
			continue;
		if (v->mmio)
			return error_usage(err, "root-port: is for --virtio pci");
		if (port > o->machine.root_ports)
			return error_usage(err, "root-port: %u is not there; --machine q35,root-ports=N "
				"makes them", port);
		if (used & BIT(port))
			return error_usage(err, "root-port: there are two devices behind %u", port);
		used |= BIT(port);
	}
	return 0;
}

static int microvm_settle(struct run_options *o, struct error *err)
{
	if (o->firmware)
		return error_usage(err, "--firmware: a microvm has none; it loads its kernel directly");
	if (screen_has_vga(&o->screen))
		return error_usage(err, "--machine microvm has no VGA: --display and --screenshot take "
			"--device gpu there");
	/* Windows cost the guest no search. */
	if (!o->virtio_named)
		o->virtio.mmio = true;
	if (!o->virtio.mmio && !o->machine.pcie)
		return error_usage(err, "--virtio pci: a microvm has PCI with --machine microvm,pcie=on");
	return 0;
}

int machine_settle(struct run_options *o, struct error *err)
{
	int ret = numa_check(&o->machine.numa, &o->cpus, o->memory, err);

	if (ret == 0 && o->virtio.balloon.taken > o->memory)
		return error_usage(err, "--device balloon: taken: the machine has %llu MiB only",
			(unsigned long long)o->memory >> 20);
	if (ret == 0 && o->machine.kind == MACHINE_MICROVM)
		ret = microvm_settle(o, err);
	return ret < 0 ? ret : ports_check(o, err);
}
