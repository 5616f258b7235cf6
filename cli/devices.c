/*
 * --disk FILE[,format=…,readonly,snapshot,bus=…,cache=…], --cdrom FILE,
 * --net user[,forward=…]|tap=…|passt|none, --device KIND[,…]: see devices.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/devices.h"
#include "cli/suboptions.h"
#include "lib/size.h"
#include "vmm/chardev/chardev.h"
#include "vmm/machine/pc.h"
#include "vmm/virtio/gpu.h"

char *run_options_keep(struct run_options *o, const char *text, struct error *err)
{
	char *copy = o->copies < RUN_COPIES_MAX ? strdup(text) : NULL;

	if (copy)
		o->copy[o->copies++] = copy;
	else
		error_usage(err, "there are too many devices");
	return copy;
}

/* ---- --disk ---------------------------------------------------------------------------------- */

static int disk_bus(void *out, const char *value, struct error *err)
{
	struct disk_options *d = out;

	d->scsi = strcmp(value, "scsi") == 0;
	d->vhost = strcmp(value, "vhost-user") == 0 && !d->cdrom;
	if (d->scsi || d->vhost || (strcmp(value, "virtio") == 0 && !d->cdrom))
		return 0;
	return error_usage(err, "--%s: bus: \"%s\" is unknown; there is %s",
		d->cdrom ? "cdrom" : "disk", value, d->cdrom ? "scsi" : "virtio, scsi, vhost-user");
}

#define RATE_MAX (1ULL << 50)
#define LIMIT(bucket) offsetof(struct disk_options, throttle.limit[bucket].average)

static const struct suboption disk_suboptions[] = {
	{ "format", SUB_TEXT, offsetof(struct disk_options, format), "raw|qcow2", NULL, 0, 0 },
	{ "readonly", SUB_FLAG, offsetof(struct disk_options, readonly), NULL, NULL, 0, 0 },
	{ "snapshot", SUB_FLAG, offsetof(struct disk_options, snapshot), NULL, NULL, 0, 0 },
	{ "bus", SUB_CALL, 0, NULL, disk_bus, 0, 0 },
	{ "cache", SUB_TEXT, offsetof(struct disk_options, cache),
		"writeback|writethrough|none|directsync|unsafe", NULL, 0, 0 },
	{ "aio", SUB_TEXT, offsetof(struct disk_options, aio), "io_uring|threads", NULL, 0, 0 },
	{ "serial", SUB_TEXT, offsetof(struct disk_options, serial), NULL, NULL, 0, 0 },
	{ "bootindex", SUB_INDEX, offsetof(struct disk_options, boot), NULL, NULL, 0, BOOT_INDEX_MAX },
	{ "queues", SUB_NUMBER, offsetof(struct disk_options, queues), NULL, NULL, 1, 16 },
	{ "root-port", SUB_NUMBER, offsetof(struct disk_options, root_port), NULL, NULL, 1,
		PC_ROOT_PORTS_MAX },
	{ "internal-snapshot", SUB_TEXT, offsetof(struct disk_options, internal_snapshot), NULL, NULL, 0, 0 },
	{ "bps", SUB_SIZE, LIMIT(THROTTLE_BPS), NULL, NULL, 1, RATE_MAX },
	{ "bps-read", SUB_SIZE, LIMIT(THROTTLE_BPS_READ), NULL, NULL, 1, RATE_MAX },
	{ "bps-write", SUB_SIZE, LIMIT(THROTTLE_BPS_WRITE), NULL, NULL, 1, RATE_MAX },
	{ "iops", SUB_NUMBER, LIMIT(THROTTLE_IOPS), NULL, NULL, 1, RATE_MAX },
	{ "iops-read", SUB_NUMBER, LIMIT(THROTTLE_IOPS_READ), NULL, NULL, 1, RATE_MAX },
	{ "iops-write", SUB_NUMBER, LIMIT(THROTTLE_IOPS_WRITE), NULL, NULL, 1, RATE_MAX },
};

/* A disk or CD-ROM drive with its file; rest: what follows. */
static int disk_begin(struct run_options *o, const char *option, const char *value,
		      struct disk_options **disk, char **rest, struct error *err)
{
	char *text = run_options_keep(o, value, err);

	if (!text)
		return -EINVAL;
	if (o->virtio.disks == VIRTIO_DISKS_MAX)
		return error_usage(err, "%s: there are more than %d disks", option, VIRTIO_DISKS_MAX);
	*disk = &o->virtio.disk[o->virtio.disks];
	(*disk)->file = suboption_cut(text, rest);
	if (!*(*disk)->file)
		return error_usage(err, "%s: which file? %s FILE[,format=...,...]", option, option);
	o->virtio.disks++;
	return 0;
}

int devices_parse_disk(struct run_options *o, const char *value, struct error *err)
{
	struct disk_options *d;
	char *rest;
	int ret = disk_begin(o, "--disk", value, &d, &rest, err);

	if (ret == 0)
		ret = suboptions_parse("--disk", rest, disk_suboptions, ARRAY_SIZE(disk_suboptions), d,
			err);
	if (ret == 0 && d->scsi && d->queues)
		return error_usage(err, "--disk: queues belongs to bus=virtio");
	if (ret == 0 && d->scsi && d->root_port)
		return error_usage(err, "--disk: root-port belongs to bus=virtio");
	/* A back end opens the image. */
	if (ret == 0 && d->vhost && (d->format || d->cache || d->aio || d->serial || d->readonly ||
				     d->snapshot || d->internal_snapshot || throttle_wanted(&d->throttle)))
		return error_usage(err, "--disk: with bus=vhost-user there is only queues and root-port");
	return ret;
}

static const struct suboption cdrom_suboptions[] = {
	{ "format", SUB_TEXT, offsetof(struct disk_options, format), "raw|qcow2", NULL, 0, 0 },
	{ "bus", SUB_CALL, 0, NULL, disk_bus, 0, 0 },
	{ "cache", SUB_TEXT, offsetof(struct disk_options, cache),
		"writeback|writethrough|none|directsync|unsafe", NULL, 0, 0 },
	{ "aio", SUB_TEXT, offsetof(struct disk_options, aio), "io_uring|threads", NULL, 0, 0 },
	{ "serial", SUB_TEXT, offsetof(struct disk_options, serial), NULL, NULL, 0, 0 },
	{ "bootindex", SUB_INDEX, offsetof(struct disk_options, boot), NULL, NULL, 0, BOOT_INDEX_MAX },
};

int devices_parse_cdrom(struct run_options *o, const char *value, struct error *err)
{
	struct disk_options *d;
	char *rest;
	int ret = disk_begin(o, "--cdrom", value, &d, &rest, err);

	if (ret < 0)
		return ret;
	d->cdrom = d->scsi = d->readonly = true;
	return suboptions_parse("--cdrom", rest, cdrom_suboptions, ARRAY_SIZE(cdrom_suboptions), d, err);
}

int devices_parse_virtio(struct run_options *o, const char *value, struct error *err)
{
	o->virtio_named = true;
	o->virtio.mmio = strcmp(value, "mmio") == 0;
	if (o->virtio.mmio || strcmp(value, "pci") == 0)
		return 0;
	return error_usage(err, "--virtio: \"%s\" is none of pci, mmio", value);
}

/* ---- --net ----------------------------------------------------------------------------------- */

static int net_mac(void *out, const char *value, struct error *err)
{
	struct nic_options *n = out;
	unsigned b[6];
	int end = 0;

	if (sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		    &end) != 6 || value[end])
		return error_usage(err, "--net: mac: \"%s\" is not like 52:54:00:12:34:56", value);
	for (int i = 0; i < 6; i++)
		n->mac[i] = b[i];
	if (b[0] & 1)
		return error_usage(err, "--net: mac: %s is a group's address", value);
	return 0;
}

static int net_forward(void *out, const char *value, struct error *err)
{
	struct nic_options *n = out;
	unsigned host, guest;
	char kind[4];
	int end = 0;

	if (sscanf(value, "%3[a-z]:%5u:%5u%n", kind, &host, &guest, &end) != 3 || value[end] ||
	    (strcmp(kind, "tcp") && strcmp(kind, "udp")) || !host || host > 65535 || !guest ||
	    guest > 65535)
		return error_usage(err, "--net: forward: \"%s\" is not like tcp:8080:80, "
			"the host's port and the guest's", value);
	if (n->kind != NET_USER && n->kind != NET_PASST)
		return error_usage(err, "--net: forward belongs to user and passt");
	if (n->forwards == NET_FORWARDS_MAX)
		return error_usage(err, "--net: there are more than %d forwards", NET_FORWARDS_MAX);
	n->forward[n->forwards++] = (struct net_forward){ !strcmp(kind, "udp"), host, guest };
	return 0;
}

/* Text that only the network of this program has a use for. */
static int net_user_text(
	struct nic_options *n, const char *name, const char *value, const char **text, struct error *err)
{
	if (n->kind != NET_USER)
		return error_usage(err, "--net: %s belongs to user", name);
	if (!*value)
		return error_usage(err, "--net: %s: the value is empty", name);
	*text = value;
	return 0;
}

static int net_tftp(void *out, const char *value, struct error *err)
{
	struct nic_options *n = out;
	struct stat st;
	int ret = net_user_text(n, "tftp", value, &n->tftp, err);

	if (ret == 0 && (stat(value, &st) < 0 || !S_ISDIR(st.st_mode)))
		return error_usage(err, "--net: tftp: there is no folder %s", value);
	return ret;
}

static int net_bootfile(void *out, const char *value, struct error *err)
{
	struct nic_options *n = out;

	return net_user_text(n, "bootfile", value, &n->bootfile, err);
}

static const struct suboption net_suboptions[] = {
	{ "forward", SUB_CALL, 0, NULL, net_forward, 0, 0 },
	{ "mac", SUB_CALL, 0, NULL, net_mac, 0, 0 },
	{ "pcap", SUB_TEXT, offsetof(struct nic_options, pcap), NULL, NULL, 0, 0 },
	{ "tftp", SUB_CALL, 0, NULL, net_tftp, 0, 0 },
	{ "vhost", SUB_TEXT, offsetof(struct nic_options, vhost), "on|off|auto", NULL, 0, 0 },
	{ "bootfile", SUB_CALL, 0, NULL, net_bootfile, 0, 0 },
	{ "bootindex", SUB_INDEX, offsetof(struct nic_options, boot), NULL, NULL, 0, BOOT_INDEX_MAX },
	{ "rom", SUB_TEXT, offsetof(struct nic_options, rom), NULL, NULL, 0, 0 },
	{ "root-port", SUB_NUMBER, offsetof(struct nic_options, root_port), NULL, NULL, 1,
		PC_ROOT_PORTS_MAX },
};

static int net_kind(struct nic_options *n, const char *kind, struct error *err)
{
	if (strcmp(kind, "user") == 0)
		n->kind = NET_USER;
	else if (strncmp(kind, "tap=", 4) == 0 && kind[4])
		*n = (struct nic_options){ .kind = NET_TAP, .tap = kind + 4 };
	else if (strncmp(kind, "socket=", 7) == 0 && kind[7])
		*n = (struct nic_options){ .kind = NET_SOCKET, .socket = kind + 7 };
	else if (strcmp(kind, "passt") == 0)
		n->kind = NET_PASST;
	else if (strncmp(kind, "vhost-user=", 11) == 0 && kind[11])
		*n = (struct nic_options){ .kind = NET_VHOST, .socket = kind + 11 };
	else
		return error_usage(err, "--net: \"%s\" is none of user, tap=INTERFACE, passt, socket=PATH, "
			"vhost-user=PATH, none", kind);
	return 0;
}

/* What does not go together. */
static int net_check(const struct nic_options *n, struct error *err)
{
	if (n->vhost && n->kind != NET_TAP)
		return error_usage(err, "--net: vhost belongs to tap");
	if (n->pcap && (n->kind == NET_VHOST || (n->vhost && strcmp(n->vhost, "on") == 0)))
		return error_usage(err, "--net: pcap: frames of %s do not come by here",
			n->kind == NET_VHOST ? "vhost-user" : "vhost=on");
	return 0;
}

int devices_parse_net(struct run_options *o, const char *value, struct error *err)
{
	char *text, *rest, *kind;
	struct nic_options *n = &o->virtio.nic[o->virtio.nics];
	int ret;

	if (strcmp(value, "none") == 0)
		return 0;
	text = run_options_keep(o, value, err);
	if (!text)
		return -EINVAL;
	if (o->virtio.nics == VIRTIO_NICS_MAX)
		return error_usage(err, "--net: there are more than %d", VIRTIO_NICS_MAX);
	kind = suboption_cut(text, &rest);
	ret = net_kind(n, kind, err);
	if (ret == 0)
		o->virtio.nics++;
	if (ret == 0)
		ret = suboptions_parse("--net", rest, net_suboptions, ARRAY_SIZE(net_suboptions), n, err);
	return ret < 0 ? ret : net_check(n, err);
}

/* ---- --share --------------------------------------------------------------------------------- */

static int share_bus(void *out, const char *value, struct error *err)
{
	struct share_options *s = out;

	s->fs = strcmp(value, "fs") == 0;
	if (s->fs || strcmp(value, "9p") == 0)
		return 0;
	return error_usage(err, "--share: bus: \"%s\" is unknown; there is 9p, fs", value);
}

static const struct suboption share_suboptions[] = {
	{ "readonly", SUB_FLAG, offsetof(struct share_options, readonly), NULL, NULL, 0, 0 },
	{ "bus", SUB_CALL, 0, NULL, share_bus, 0, 0 },
	{ "root-port", SUB_NUMBER, offsetof(struct share_options, root_port), NULL, NULL, 1,
		PC_ROOT_PORTS_MAX },
};

static int share_tag(struct run_options *o, const char *option, const char *tag, struct error *err)
{
	if (strlen(tag) > SHARE_TAG_MAX)
		return error_usage(err, "%s: the tag \"%s\" has more than %d characters", option, tag,
			SHARE_TAG_MAX);
	for (unsigned i = 0; i < o->virtio.shares; i++)
		if (strcmp(o->virtio.share[i].tag, tag) == 0)
			return error_usage(err, "%s: there are two with the tag \"%s\"", option, tag);
	return 0;
}

int devices_parse_share(struct run_options *o, const char *value, struct error *err)
{
	struct share_options *s = &o->virtio.share[o->virtio.shares];
	char *text = run_options_keep(o, value, err), *rest, *tag;
	int ret;

	if (!text)
		return -EINVAL;
	if (o->virtio.shares == VIRTIO_SHARES_MAX)
		return error_usage(err, "--share: there are more than %d", VIRTIO_SHARES_MAX);
	s->folder = suboption_cut(text, &rest);
	tag = strrchr(text, ':');
	if (!tag || tag == text || !tag[1])
		return error_usage(err, "--share: \"%s\" is not like FOLDER:TAG", text);
	*tag++ = 0;
	ret = share_tag(o, "--share", tag, err);
	if (ret < 0)
		return ret;
	s->tag = tag;
	o->virtio.shares++;
	ret = suboptions_parse("--share", rest, share_suboptions, ARRAY_SIZE(share_suboptions), s, err);
	if (ret == 0 && s->fs && s->readonly)
		return error_usage(err, "--share: readonly belongs to bus=9p");
	return ret;
}

/* ---- --device -------------------------------------------------------------------------------- */

static const struct suboption console_suboptions[] = {
	{ "name", SUB_TEXT, offsetof(struct port_options, name), NULL, NULL, 0, 0 },
};

static int device_console(struct run_options *o, const char *where, char *rest, struct error *err)
{
	struct port_options *p = &o->virtio.port[o->virtio.ports];
	int ret = chardev_check("--device console", where, err);

	if (ret < 0)
		return ret;
	if (strcmp(where, "stdio") == 0)
		return error_usage(err, "--device console: stdio belongs to --serial");
	if (o->virtio.ports == VIRTIO_PORTS_MAX)
		return error_usage(err, "--device console: there are more than %d", VIRTIO_PORTS_MAX);
	p->where = where;
	o->virtio.ports++;
	return suboptions_parse("--device console", rest, console_suboptions,
		ARRAY_SIZE(console_suboptions), p, err);
}

static int balloon_taken(void *out, const char *value, struct error *err)
{
	struct balloon_options *b = out;

	if (size_parse(value, &b->taken) == 0)
		return 0;
	return error_usage(err, "--device balloon: taken: \"%s\" is not a size, such as 128M", value);
}

static const struct suboption balloon_suboptions[] = {
	{ "taken", SUB_CALL, 0, NULL, balloon_taken, 0, 0 },
	{ "deflate-on-oom", SUB_FLAG, offsetof(struct balloon_options, deflate_on_oom), NULL, NULL, 0, 0 },
	{ "reporting", SUB_FLAG, offsetof(struct balloon_options, reporting), NULL, NULL, 0, 0 },
	{ "stats", SUB_NUMBER, offsetof(struct balloon_options, stats), NULL, NULL, 1, 86400 },
};

static int device_balloon(struct run_options *o, char *rest, struct error *err)
{
	if (o->virtio.balloons)
		return error_usage(err, "--device balloon: there is one already");
	o->virtio.balloons = 1;
	return suboptions_parse("--device balloon", rest, balloon_suboptions,
		ARRAY_SIZE(balloon_suboptions), &o->virtio.balloon, err);
}

#define VSOCK_CID_MIN 3	/* those below have a meaning */

static const struct suboption vsock_suboptions[] = {
	{ "cid", SUB_NUMBER, offsetof(struct vsock_options, cid), NULL, NULL, VSOCK_CID_MIN, 0xFFFFFFFE },
};

static int device_vsock(struct run_options *o, struct vsock_options first, char *rest,
			struct error *err)
{
	const char *option = first.path ? "--device vsock" : "--device vhost-vsock";
	struct vsock_options *v = &o->virtio.vsock;
	int ret;

	if (o->virtio.vsocks)
		return error_usage(err, "%s: there is one already", option);
	if (first.path && !*first.path)
		return error_usage(err, "--device vsock: which socket? vsock=PATH[,cid=N]");
	o->virtio.vsocks = 1;
	*v = first;
	ret = suboptions_parse(option, rest, vsock_suboptions, ARRAY_SIZE(vsock_suboptions), v,
		err);
	/* Addresses of the kernel's are the whole host's. */
	if (ret == 0 && !v->cid)
		return error_usage(err, "%s: which address? vhost-vsock,cid=N", option);
	return ret;
}

/* A GUID as text has its first three fields big-endian; in memory they are little-endian. */
static int vmgenid_guid(void *out, const char *value, struct error *err)
{
	static const u8 place[VMGENID_SIZE] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct vmgenid_options *v = out;
	unsigned byte[VMGENID_SIZE];
	int end = 0;

	if (strlen(value) != 36 || strspn(value, "0123456789abcdefABCDEF-") != 36 ||
	    sscanf(value, "%2x%2x%2x%2x-%2x%2x-%2x%2x-%2x%2x-%2x%2x%2x%2x%2x%2x%n", &byte[0], &byte[1],
		   &byte[2], &byte[3], &byte[4], &byte[5], &byte[6], &byte[7], &byte[8], &byte[9],
		   &byte[10], &byte[11], &byte[12], &byte[13], &byte[14], &byte[15], &end) != 16 ||
	    end != 36)
		return error_usage(err, "--device vmgenid: guid: \"%s\" is not like "
			"324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87", value);
	for (unsigned i = 0; i < VMGENID_SIZE; i++)
		v->guid[place[i]] = byte[i];
	v->fixed = true;
	return 0;
}

static const struct suboption vmgenid_suboptions[] = {
	{ "guid", SUB_CALL, 0, NULL, vmgenid_guid, 0, 0 },
};

static int device_vmgenid(struct run_options *o, char *rest, struct error *err)
{
	struct vmgenid_options *v = &o->machine.vmgenid;

	if (v->there)
		return error_usage(err, "--device vmgenid: there is one already");
	v->there = true;
	return suboptions_parse("--device vmgenid", rest, vmgenid_suboptions,
		ARRAY_SIZE(vmgenid_suboptions), v, err);
}

static const struct suboption gpu_suboptions[] = {
	{ "width", SUB_NUMBER, offsetof(struct gpu_options, width), NULL, NULL, GPU_MODE_MIN,
		GPU_MODE_MAX },
	{ "height", SUB_NUMBER, offsetof(struct gpu_options, height), NULL, NULL, GPU_MODE_MIN,
		GPU_MODE_MAX },
};

static int device_gpu(struct run_options *o, char *rest, struct error *err)
{
	if (o->virtio.gpus)
		return error_usage(err, "--device gpu: there is one already");
	o->virtio.gpus = 1;
	o->screen.gpu = true;
	return suboptions_parse("--device gpu", rest, gpu_suboptions, ARRAY_SIZE(gpu_suboptions),
		&o->virtio.gpu, err);
}

static const struct suboption fs_suboptions[] = {
	{ "tag", SUB_TEXT, offsetof(struct share_options, tag), NULL, NULL, 0, 0 },
	{ "root-port", SUB_NUMBER, offsetof(struct share_options, root_port), NULL, NULL, 1,
		PC_ROOT_PORTS_MAX },
};

/* A folder, too, by a virtiofsd that runs already. */
static int device_fs(struct run_options *o, const char *path, char *rest, struct error *err)
{
	struct share_options *s = &o->virtio.share[o->virtio.shares];
	int ret;

	if (!*path)
		return error_usage(err, "--device fs: which socket? fs=PATH,tag=TAG");
	if (o->virtio.shares == VIRTIO_SHARES_MAX)
		return error_usage(err, "--device fs: there are more than %d folders", VIRTIO_SHARES_MAX);
	*s = (struct share_options){ .fs = true, .socket = path };
	ret = suboptions_parse("--device fs", rest, fs_suboptions, ARRAY_SIZE(fs_suboptions), s, err);
	if (ret < 0)
		return ret;
	if (!s->tag)
		return error_usage(err, "--device fs: which tag? fs=PATH,tag=TAG");
	ret = share_tag(o, "--device fs", s->tag, err);
	o->virtio.shares += ret == 0;
	return ret;
}

int devices_parse_device(struct run_options *o, const char *value, struct error *err)
{
	char *text = run_options_keep(o, value, err), *rest;
	char *kind;

	if (!text)
		return -EINVAL;
	kind = suboption_cut(text, &rest);
	if (strncmp(kind, "console=", 8) == 0)
		return device_console(o, kind + 8, rest, err);
	if (strncmp(kind, "fs=", 3) == 0)
		return device_fs(o, kind + 3, rest, err);
	if (strncmp(kind, "vsock=", 6) == 0)
		return device_vsock(o, (struct vsock_options){ .path = kind + 6, .cid = VSOCK_CID_MIN },
			rest, err);
	if (strcmp(kind, "vhost-vsock") == 0)
		return device_vsock(o, (struct vsock_options){ 0 }, rest, err);
	if (strcmp(kind, "balloon") == 0)
		return device_balloon(o, rest, err);
	if (strcmp(kind, "vmgenid") == 0)
		return device_vmgenid(o, rest, err);
	if (strcmp(kind, "gpu") == 0)
		return device_gpu(o, rest, err);
	if (rest)
		return error_usage(err, "--device %s: takes nothing behind it", kind);
	if (strcmp(kind, "rng") == 0)
		o->virtio.rngs = 1;
	else if (strcmp(kind, "vga") == 0)
		o->screen.vga = true;
	else if (strcmp(kind, "keyboard") == 0)
		o->virtio.keyboards = 1;
	else if (strcmp(kind, "tablet") == 0)
		o->virtio.tablets = 1;
	else
		return error_usage(err, "--device: \"%s\" is none of rng, vga, gpu[,...], keyboard, tablet, "
			"console=WHERE[,name=NAME], balloon[,...], vsock=PATH[,cid=N], "
			"vhost-vsock,cid=N, fs=PATH,tag=TAG, vmgenid[,guid=GUID]", kind);
	return 0;
}

void run_options_free(struct run_options *o)
{
	for (unsigned i = 0; i < o->copies; i++)
		free(o->copy[i]);
	o->copies = 0;
	free(o->config_text);
	o->config_text = NULL;
}
