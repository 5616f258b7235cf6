/* --dry-run: the machine as a file for --config. See config.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/config.h"
#include "cli/machine.h"
#include "vmm/block/aio.h"
#include "vmm/block/layer.h"
#include "vmm/block/proto.h"
#include "vmm/display/vnc_listen.h"
#include "vmm/firmware/firmware.h"
#include "vmm/virtio/board.h"
#include "vmm/virtio/defaults.h"

/* ---- comments -------------------------------------------------------------------------------- */

static void print_firmware(const struct run_options *o)
{
	const char *code, *vars;

	if (!o->firmware || !firmware_files(o->firmware, &code, &vars))
		return;
	printf("# firmware: %s\n", code);
	if (vars)
		printf("# variables: %s as in %s\n",
			o->firmware_vars ? "a new file begins" : "each start begins", vars);
}

/* The port without an address is the first free one, so it may be another in a moment. */
static void print_vnc(const struct run_options *o)
{
	struct vnc_listener l;
	struct error err = ERROR_INIT;

	if (!o->screen.vnc || o->screen.vnc_address)
		return;
	if (vnc_listen(&l, NULL, &err) == 0)
		printf("# vnc: %s is free now\n", l.text);
	vnc_unlisten(&l);
}

static void print_slot(u32 *taken, int slot, const char *name)
{
	if (slot < 0)
		return;
	*taken |= BIT(slot);
	printf("# pci 00:%02x.0 %s\n", slot, name);
}

/* Behind a root port there is one slot, on a bus whose number is the firmware's or the kernel's choice. */
static void print_virtio(const struct virtio_options *o, u32 *taken)
{
	const char *name;
	unsigned port;

	for (unsigned i = 0; (name = virtio_options_name(o, i, &port)); i++) {
		if (port)
			printf("# pci root-port=%u %s\n", port, name);
		else
			print_slot(taken, machine_next_slot(*taken), name);
	}
}

static void print_slots(const struct run_options *o)
{
	u32 fixed = machine_fixed_slots(&o->machine), taken = fixed;

	if (o->machine.kind == MACHINE_MICROVM && !o->machine.pcie)
		return;
	if (screen_has_vga(&o->screen))
		print_slot(&taken, machine_next_slot(taken), "vga");
	if (!o->virtio.mmio)
		print_virtio(&o->virtio, &taken);
	for (int slot = 0; slot <= PCI_SLOT_LAST; slot++)
		if (fixed & BIT(slot))
			print_slot(&taken, slot, slot == 0 ? "host bridge" :
				slot == PCI_SLOT_LAST ? "LPC bridge" : "root port");
}

/* ---- values ---------------------------------------------------------------------------------- */

/* One '=' before a value is no part of it, so a value with one of its own needs it. */
static void print_value(const char *name, const char *value)
{
	printf("%s%s%s", name, *value && *value != '=' ? " " : "=", value);
}

static void print_line(const char *name, const char *value)
{
	if (value)
		print_value(name, value);
	else
		printf("%s", name);
	printf("\n");
}

static bool is_blank(char c)
{
	return c && strchr(CONFIG_BLANKS, c);
}

static int check_value(const char *name, const char *value, struct error *err)
{
	size_t n = strlen(value);

	if (strchr(value, '\n'))
		return error_usage(err, "--dry-run: a file cannot say --%s with a line's end in it", name);
	if (n && (is_blank(value[0]) || is_blank(value[n - 1])))
		return error_usage(err, "--dry-run: a file cannot say --%s with a blank at an end: \"%s\"",
			name, value);
	return 0;
}

static int check_values(const struct run_options *o, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < o->givens && ret == 0; i++)
		if (o->given[i].value)
			ret = check_value(run_option_name(o->given[i].option), o->given[i].value, err);
	return ret;
}

/* ---- devices --------------------------------------------------------------------------------- */

/*
 * The format to be said, or NULL, and a comment, where the image cannot be looked at or has none of ours. Raw
 * is not said, either: a guest that writes the header of another format into an image that is only taken
 * for raw is stopped (vmm/block/raw.c), and whoever says raw means that it may.
 */
static const char *disk_format(const char *name)
{
	u8 head[PROBE_BYTES] = { 0 };
	const char *file = strncmp(name, "file:", 5) == 0 ? name + 5 : name, *format;
	int fd, error;
	ssize_t n;

	if (file == name && proto_has_scheme(name))
		return NULL;
	fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	n = fd < 0 ? -1 : pread(fd, head, sizeof(head), 0);
	error = errno;
	if (fd >= 0)
		close(fd);
	format = n < 0 ? NULL : format_probe(head, n);
	if (format && strcmp(format, "raw") != 0 && format_exists(format))
		return format;
	printf("# %s: %s%s\n", file, format ? "its format seems to be " : "",
		format ? format : strerror(error));
	return NULL;
}

static const char *aio_usual(void)
{
	struct error err = ERROR_INIT;
	struct aio *aio;
	bool uring;

	if (aio_new(&aio, AIO_AUTO, &err) < 0)
		return "threads";
	uring = aio_has_uring(aio);
	aio_free(aio);
	return uring ? "io_uring" : "threads";
}

static void print_disk(const struct run_options *o, unsigned i, const char *name, const char *value)
{
	const struct disk_options *d = &o->virtio.disk[i];
	const char *format = d->format || d->vhost ? NULL : disk_format(d->file);

	print_value(name, value);
	if (format)
		printf(",format=%s", format);
	if (!d->vhost && !d->cache)
		printf(",cache=writeback");
	if (!d->vhost && !d->aio)
		printf(",aio=%s", aio_usual());
	if (!d->scsi && !d->queues)
		printf(",queues=%u", virtio_disk_queues(d, topology_cpus(&o->cpus)));
	printf("\n");
}

static void print_net(const struct run_options *o, unsigned i, const char *value, const u8 mac[6])
{
	static const u8 none[6];
	const struct nic_options *n = &o->virtio.nic[i];
	const char *rom = virtio_nic_rom(n, o->firmware);

	print_value("net", value);
	if (memcmp(n->mac, none, 6) == 0)
		printf(",mac=%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
			mac[5]);
	if (!n->rom && !o->virtio.mmio)
		printf(",rom=%s", rom ? rom : "off");
	printf("\n");
}

/* ---- options --------------------------------------------------------------------------------- */

/* What adds a device is printed in the order it was given in, as that is the order of the devices. */
static bool is_device(const char *name)
{
	static const char *const names[] = { "disk", "cdrom", "net", "share", "device" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

static void print_devices(const struct run_options *o)
{
	struct virtio_options full = o->virtio;
	unsigned disks = 0, nics = 0;

	virtio_nic_macs(&full);
	for (unsigned i = 0; i < o->givens; i++) {
		const char *name = run_option_name(o->given[i].option), *value = o->given[i].value;

		if (strcmp(name, "disk") == 0 || strcmp(name, "cdrom") == 0)
			print_disk(o, disks++, name, value);
		else if (strcmp(name, "net") == 0 && strcmp(value, "none") != 0) {
			print_net(o, nics, value, full.nic[nics].mac);
			nics++;
		}
		else if (is_device(name))
			print_line(name, value);
	}
}

#define DEFAULT_MAX 64

/* What is so without being said. NULL: nothing. */
static const char *default_of(const struct run_options *o, const char *name,
	char buf[DEFAULT_MAX])
{
	if (strcmp(name, "memory") == 0) {
		snprintf(buf, DEFAULT_MAX, "%lluM", (unsigned long long)o->memory >> 20);
		return buf;
	}
	if (strcmp(name, "machine") == 0)
		return machine_name(o->machine.kind);
	if (strcmp(name, "serial") == 0)
		return o->serial;
	if (strcmp(name, "virtio") == 0)
		return o->virtio.mmio ? "mmio" : "pci";
	return NULL;
}

static void print_cpus(const struct run_options *o)
{
	printf("cpus %u,sockets=%u,cores=%u,threads=%u\n", topology_cpus(&o->cpus), o->cpus.sockets,
		o->cpus.cores, o->cpus.threads);
}

static void print_option(const struct run_options *o, unsigned option, const char *name)
{
	char buf[DEFAULT_MAX];
	const char *value = default_of(o, name, buf);
	bool any = false;

	for (unsigned i = 0; i < o->givens; i++) {
		if (o->given[i].option != option)
			continue;
		print_line(name, o->given[i].value);
		any = true;
	}
	if (!any && value)
		print_line(name, value);
}

int config_print(const struct run_options *o, const struct accel_choice *choice, struct error *err)
{
	const char *name;
	int ret = check_values(o, err);

	if (ret < 0)
		return ret;
	printf("# runs on: %s (%s: %s)\n", choice->backend->name,
		accel_reason_name(choice->reason), choice->detail);
	print_firmware(o);
	print_vnc(o);
	print_slots(o);
	for (unsigned i = 0; (name = run_option_name(i)); i++) {
		if (strcmp(name, "cpus") == 0)
			print_cpus(o);
		else if (strcmp(name, "disk") == 0)
			print_devices(o);
		else if (!is_device(name) && strcmp(name, "dry-run") != 0)
			print_option(o, i, name);
	}
	return 0;
}
