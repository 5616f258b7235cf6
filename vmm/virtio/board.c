/* Putting virtio devices together: see board.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/board.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/defaults.h"
#include "vmm/virtio/gpu.h"
#include "vmm/virtio/input.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/p9.h"
#include "vmm/virtio/pci.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/scsi.h"
#include "vmm/virtio/vhost.h"
#include "vmm/virtio/vsock.h"

/* At most one of vsock, balloon, gpu, keyboard, tablet, console and SCSI controller. */
#define PLAN_MAX (VIRTIO_DISKS_MAX + VIRTIO_NICS_MAX + VIRTIO_SHARES_MAX + VIRTIO_RNGS_MAX + 7)
#define SLOT_DEVICES 3	/* with the verbs: the transport, the device, what is its own */

/* One device with all that belongs to it. */
struct virtio_slot {
	struct io_thread io;
	struct virtio_device *dev;
	struct virtio_mmio mmio;	/* one of the two is used */
	struct virtio_pci pci;
	const void *options;		/* what it was made from, by its kind */
	unsigned root_port;		/* on PCI: behind which, from 1 on; 0: on the root bus */
	const char *rom_file;		/* option ROM for PCI; NULL: none */
	struct pci_rom rom;
	const struct device_ops *own;	/* of self; NULL: nothing of its own */
	void *self;			/* freed behind destroy */
	void (*destroy)(void *self);	/* the I/O thread has ended */
};

struct virtio_board {
	struct virtio_env env;
	struct virtio_options options;
	bool on_mmio;
	unsigned n;
	struct virtio_slot slot[VIRTIO_MMIO_MAX];
};

static unsigned scsi_units(const struct virtio_options *o)
{
	unsigned n = 0;

	for (unsigned i = 0; i < o->disks; i++)
		n += o->disk[i].scsi;
	return n;
}

/* Ports belong to one device, SCSI units as well. */
unsigned virtio_options_count(const struct virtio_options *o)
{
	unsigned units = scsi_units(o);

	return o->rngs + (o->disks - units) + o->nics + (o->ports ? 1 : 0) + (units ? 1 : 0) +
	       o->balloons + o->shares + o->vsocks + o->gpus + o->keyboards + o->tablets;
}

unsigned virtio_options_windows(const struct virtio_options *o)
{
	return o->mmio ? virtio_options_count(o) : 0;
}

bool virtio_options_shared(const struct virtio_options *o)
{
	bool any = false;

	for (unsigned i = 0; i < o->disks; i++)
		any |= o->disk[i].vhost;
	for (unsigned i = 0; i < o->nics; i++)
		any |= o->nic[i].kind == NET_VHOST;
	for (unsigned i = 0; i < o->shares; i++)
		any |= o->share[i].fs;
	return any;
}

/* ---- kinds ----------------------------------------------------------------------------------- */

static int rng_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
		      struct error *err)
{
	struct virtio_rng *rng = s->self;

	(void)options;
	s->dev = &rng->dev;
	return virtio_rng_init(rng, b->env.mem, &s->io, err);
}

static void rng_destroy(void *self)
{
	struct virtio_rng *rng = self;

	virtio_destroy(&rng->dev);
}

/* running: nothing that may take long, as the machine waits for it. */
static int disk_open(struct block **block, struct virtio_slot *s, const struct disk_options *o,
		     bool running, struct error *err)
{
	const struct block_options image = {
		.no_wait = running,
		.file = o->file, .format = o->format, .readonly = o->readonly,
		.snapshot = o->snapshot, .cache = o->cache, .aio = o->aio,
		.internal_snapshot = o->internal_snapshot, .throttle = o->throttle,
	};

	return block_open(block, &image, &s->io.loop, err);
}

static int disk_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
		       struct error *err)
{
	const struct disk_options *o = options;
	const struct blk_options disk = {
		.queues = virtio_disk_queues(o, b->env.cpus), .serial = o->serial };
	struct virtio_blk *blk = s->self;
	struct block *block;
	int ret = disk_open(&block, s, o, false, err);

	s->dev = &blk->dev;
	return ret < 0 ? ret : virtio_blk_init(blk, block, &disk, b->env.mem, &s->io, err);
}

static void disk_destroy(void *self)
{
	virtio_blk_destroy(self);
}

_Static_assert(SCSI_UNITS_MAX >= VIRTIO_DISKS_MAX, "each may be a SCSI unit");

static int scsi_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
		       struct error *err)
{
	const struct virtio_options *o = options;
	struct virtio_scsi *scsi = s->self;
	struct block *block;
	int ret = virtio_scsi_init(scsi, MIN(b->env.cpus, SCSI_QUEUES_MAX), b->env.mem, &s->io, err);

	s->dev = &scsi->dev;
	s->own = &virtio_scsi_device_ops;
	for (unsigned i = 0; i < o->disks && ret == 0; i++) {
		const struct disk_options *d = &o->disk[i];

		if (!d->scsi)
			continue;
		ret = disk_open(&block, s, d, false, err);
		if (ret == 0)
			virtio_scsi_add(scsi, d->cdrom ? SCSI_CD : SCSI_DISK, block, d->serial);
	}
	return ret;
}

static void scsi_destroy(void *self)
{
	virtio_scsi_destroy(self);
}

static int nic_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
		      struct error *err)
{
	struct virtio_net *net = s->self;

	s->dev = &net->dev;
	s->own = &virtio_net_device_ops;
	s->rom_file = virtio_nic_rom(options, b->env.firmware);
	return virtio_net_init(net, options, MIN(b->env.cpus, NET_PAIRS_MAX), b->env.mem, &s->io, err);
}

static void nic_destroy(void *self)
{
	virtio_net_destroy(self);
}

static int balloon_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			  struct error *err)
{
	struct virtio_balloon *balloon = s->self;

	s->dev = &balloon->dev;
	s->own = &virtio_balloon_device_ops;
	return virtio_balloon_init(balloon, options, b->env.mem, &s->io, err);
}

static void balloon_destroy(void *self)
{
	virtio_balloon_destroy(self);
}

static int share_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			struct error *err)
{
	struct virtio_p9 *p = s->self;

	s->dev = &p->dev;
	s->own = &virtio_p9_device_ops;
	return virtio_p9_init(p, options, b->env.mem, &s->io, err);
}

static void share_destroy(void *self)
{
	virtio_p9_destroy(self);
}

static int vsock_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			struct error *err)
{
	struct virtio_vsock *v = s->self;

	s->dev = &v->dev;
	s->own = &virtio_vsock_device_ops;
	return virtio_vsock_init(v, options, b->env.mem, &s->io, err);
}

static void vsock_destroy(void *self)
{
	virtio_vsock_destroy(self);
}

static int vhost_create(struct virtio_board *b, struct virtio_slot *s, const struct vhost_options *o,
			struct error *err)
{
	struct virtio_vhost *v = s->self;

	s->dev = &v->dev;
	s->own = &virtio_vhost_device_ops;
	return virtio_vhost_init(v, o, b->env.mem, &s->io, err);
}

static int vhost_share_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			      struct error *err)
{
	struct vhost_options o;

	vhost_options_share(&o, options);
	return vhost_create(b, s, &o, err);
}

static int vhost_nic_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			    struct error *err)
{
	struct vhost_options o;

	vhost_options_nic(&o, options);
	s->rom_file = virtio_nic_rom(options, b->env.firmware);
	return vhost_create(b, s, &o, err);
}

static int vhost_vsock_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			      struct error *err)
{
	struct vhost_options o;

	vhost_options_vsock(&o, options);
	return vhost_create(b, s, &o, err);
}

static int vhost_disk_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			     struct error *err)
{
	struct vhost_options o;

	vhost_options_disk(&o, options, virtio_disk_queues(options, b->env.cpus));
	return vhost_create(b, s, &o, err);
}

static void vhost_destroy(void *self)
{
	virtio_vhost_destroy(self);
}

static int console_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			  struct error *err)
{
	const struct virtio_options *o = options;
	struct virtio_console *con = s->self;
	int ret = virtio_console_init(con, o->ports, b->env.mem, &s->io, err);

	s->dev = &con->dev;
	s->own = &virtio_console_device_ops;
	for (unsigned i = 0; i < o->ports && ret == 0; i++)
		ret = virtio_console_open(con, i, o->port[i].where, o->port[i].name, err);
	return ret;
}

static void console_destroy(void *self)
{
	virtio_console_destroy(self);
}

static int gpu_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
		      struct error *err)
{
	struct virtio_gpu *g = s->self;

	s->dev = &g->dev;
	s->own = &virtio_gpu_device_ops;
	return virtio_gpu_init(g, options, b->env.mem, &s->io, err);
}

static void gpu_destroy(void *self)
{
	virtio_gpu_destroy(self);
}

static int input_create(struct virtio_board *b, struct virtio_slot *s, const void *options,
			struct error *err)
{
	struct virtio_input *v = s->self;

	s->dev = &v->dev;
	s->own = &virtio_input_device_ops;
	return virtio_input_init(v, options, b->env.mem, &s->io, err);
}

static void input_destroy(void *self)
{
	virtio_input_destroy(self);
}

static const struct kind {
	const char *name;
	size_t size;
	int (*create)(struct virtio_board *b, struct virtio_slot *s, const void *options,
		      struct error *err);
	/* The I/O thread has ended. Also after a create that failed. */
	void (*destroy)(void *self);
} kind_rng = { "virtio-rng", sizeof(struct virtio_rng), rng_create, rng_destroy },
  kind_disk = { "virtio-blk", sizeof(struct virtio_blk), disk_create, disk_destroy },
  kind_scsi = { "virtio-scsi", sizeof(struct virtio_scsi), scsi_create, scsi_destroy },
  kind_balloon = { "virtio-balloon", sizeof(struct virtio_balloon), balloon_create, balloon_destroy },
  kind_share = { "virtio-9p", sizeof(struct virtio_p9), share_create, share_destroy },
  kind_vhost_share = { "virtio-fs", sizeof(struct virtio_vhost), vhost_share_create, vhost_destroy },
  kind_vhost_nic = { "virtio-net", sizeof(struct virtio_vhost), vhost_nic_create, vhost_destroy },
  kind_vhost_disk = { "virtio-blk", sizeof(struct virtio_vhost), vhost_disk_create, vhost_destroy },
  kind_vhost_vsock = { "virtio-vsock", sizeof(struct virtio_vhost), vhost_vsock_create, vhost_destroy },
  kind_vsock = { "virtio-vsock", sizeof(struct virtio_vsock), vsock_create, vsock_destroy },
  kind_gpu = { "virtio-gpu", sizeof(struct virtio_gpu), gpu_create, gpu_destroy },
  kind_input = { "virtio-input", sizeof(struct virtio_input), input_create, input_destroy },
  kind_nic = { "virtio-net", sizeof(struct virtio_net), nic_create, nic_destroy },
  kind_console = { "virtio-console", sizeof(struct virtio_console), console_create, console_destroy };

/* Who serves the queues: this program, another one, or the kernel. */
static const struct kind *nic_kind(const struct nic_options *o)
{
	bool kernel = false;

	if (o->kind == NET_TAP && o->vhost)
		kernel = strcmp(o->vhost, "on") == 0 ||
			 (strcmp(o->vhost, "auto") == 0 && !o->pcap && vhost_net_there());
	return kernel || o->kind == NET_VHOST ? &kind_vhost_nic : &kind_nic;
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* A slot with a device and an I/O thread that does not run yet. port: the root port, or 0. */
static int slot_open(struct virtio_board *b, const struct kind *kind, const void *options,
		     unsigned port, struct error *err)
{
	struct virtio_slot *s = &b->slot[b->n];
	int ret;

	if (b->n == VIRTIO_MMIO_MAX)
		return error_usage(err, "there are more than %d virtio devices", VIRTIO_MMIO_MAX);
	s->self = calloc(1, kind->size);
	if (!s->self)
		return error_set(err, ENOMEM, "out of memory");
	ret = io_thread_init(&s->io, err);
	if (ret < 0) {
		free(s->self);
		return ret;
	}
	b->n++;
	s->destroy = kind->destroy;
	s->options = options;
	s->root_port = port;
	return kind->create(b, s, options, err);
}

static int slot_set_rom(struct virtio_slot *s, struct error *err)
{
	struct pci_device *d = &s->pci.pci;
	int ret = 0;

	if (s->rom_file)
		ret = pci_rom_open(&s->rom, s->rom_file, pci_get_u16(d->config, PCI_VENDOR),
			pci_get_u16(d->config, PCI_DEVICE), err);
	if (s->rom.size)
		pci_set_rom(d, &s->rom);
	return ret;
}

static int slot_attach_behind(const struct machine *m, struct virtio_slot *s, struct error *err)
{
	int ret = m->ops->add_behind ? m->ops->add_behind(m->self, s->root_port, &s->pci.pci,
			&virtio_pci_device_ops, &s->pci) : -ENODEV;

	return ret < 0 ? error_set(err, -ret, "%s cannot be behind root port %u: %s", s->dev->ops->name,
		s->root_port, strerror(-ret)) : 0;
}

static int slot_attach_pci(struct virtio_board *b, struct virtio_slot *s, struct error *err)
{
	const struct machine *m = b->env.machine;
	int ret = virtio_pci_init(&s->pci, s->dev, b->env.kvm, b->env.loop, err);

	if (ret == 0)
		ret = slot_set_rom(s, err);
	if (ret < 0)
		return ret;
	if (s->root_port)
		return slot_attach_behind(m, s, err);
	ret = m->ops->add_pci(m->self, PCI_SLOT_ANY, &s->pci.pci, &virtio_pci_device_ops, &s->pci);
	return ret < 0 ? error_set(err, -ret, "there is no PCI slot for %s", s->dev->ops->name) : 0;
}

static int slot_start(struct virtio_board *b, struct virtio_slot *s, struct error *err)
{
	int ret;

	if (b->on_mmio)
		ret = virtio_mmio_init(&s->mmio, s->dev, s - b->slot, b->env.kvm, b->env.machine->mmio, err);
	else
		ret = slot_attach_pci(b, s, err);
	return ret < 0 ? ret : io_thread_start(&s->io, err);
}

static void slot_close(struct virtio_slot *s)
{
	io_thread_stop(&s->io);
	virtio_mmio_destroy(&s->mmio);
	virtio_pci_destroy(&s->pci);
	pci_rom_close(&s->rom);
	s->destroy(s->self);
	free(s->self);
	io_thread_destroy(&s->io);
}

/* ---- the board ------------------------------------------------------------------------------- */

/* What the options make, in the order in which it gets slots. */
struct board_plan {
	unsigned n;
	struct { const struct kind *kind; const void *options; unsigned port; } item[PLAN_MAX];
};

/* port: the root port that it is behind, or 0. */
static void plan_add_behind(struct board_plan *p, const struct kind *kind, const void *options,
			    unsigned port)
{
	p->item[p->n].kind = kind;
	p->item[p->n].port = port;
	p->item[p->n++].options = options;
}

static void plan_add(struct board_plan *p, const struct kind *kind, const void *options)
{
	plan_add_behind(p, kind, options, 0);
}

static void plan_add_others(struct board_plan *p, const struct virtio_options *o)
{
	if (o->vsocks)
		plan_add(p, o->vsock.path ? &kind_vsock : &kind_vhost_vsock, &o->vsock);
	if (o->balloons)
		plan_add(p, &kind_balloon, &o->balloon);
	if (o->gpus)
		plan_add(p, &kind_gpu, &o->gpu);
	if (o->keyboards)
		plan_add(p, &kind_input, &virtio_keyboard);
	if (o->tablets)
		plan_add(p, &kind_input, &virtio_tablet);
	for (unsigned i = 0; i < o->rngs; i++)
		plan_add(p, &kind_rng, o);
}

static void plan_make(struct board_plan *p, const struct virtio_options *o)
{
	p->n = 0;
	for (unsigned i = 0; i < o->disks; i++)
		if (!o->disk[i].scsi)
			plan_add_behind(p, o->disk[i].vhost ? &kind_vhost_disk : &kind_disk,
				&o->disk[i], o->disk[i].root_port);
	if (scsi_units(o))
		plan_add(p, &kind_scsi, o);
	for (unsigned i = 0; i < o->nics; i++)
		plan_add_behind(p, nic_kind(&o->nic[i]), &o->nic[i], o->nic[i].root_port);
	if (o->ports)
		plan_add(p, &kind_console, o);
	for (unsigned i = 0; i < o->shares; i++)
		plan_add_behind(p, o->share[i].fs ? &kind_vhost_share : &kind_share, &o->share[i],
			o->share[i].root_port);
	plan_add_others(p, o);
}

const char *virtio_options_name(const struct virtio_options *o, unsigned i, unsigned *port)
{
	struct board_plan p;

	plan_make(&p, o);
	*port = i < p.n ? p.item[i].port : 0;
	return i < p.n ? p.item[i].kind->name : NULL;
}

static int board_fill(struct virtio_board *b, const struct virtio_options *o, struct error *err)
{
	struct board_plan p;
	int ret = 0;

	plan_make(&p, o);
	for (unsigned i = 0; i < p.n && ret == 0; i++)
		ret = slot_open(b, p.item[i].kind, p.item[i].options, p.item[i].port, err);
	for (unsigned i = 0; i < b->n && ret == 0; i++)
		ret = slot_start(b, &b->slot[i], err);
	return ret;
}

int virtio_board_create(struct virtio_board **out, const struct virtio_options *o,
			const struct virtio_env *env, struct error *err)
{
	struct virtio_board *b;
	int ret;

	*out = NULL;
	if (!virtio_options_count(o))
		return 0;
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, ENOMEM, "out of memory");
	b->env = *env;
	b->options = *o;
	b->on_mmio = o->mmio;
	virtio_nic_macs(&b->options);
	ret = board_fill(b, &b->options, err);
	if (ret < 0)
		virtio_board_destroy(b);
	else
		*out = b;
	return ret;
}

void virtio_board_destroy(struct virtio_board *board)
{
	if (!board)
		return;
	for (unsigned i = 0; i < board->n; i++)
		slot_close(&board->slot[i]);
	free(board);
}

bool virtio_board_device(struct virtio_board *board, unsigned i, struct device *dev)
{
	struct virtio_slot *s;

	if (!board || i >= board->n * SLOT_DEVICES)
		return false;
	s = &board->slot[i / SLOT_DEVICES];
	/* The machine has those of PCI itself. */
	*dev = (struct device){ board->on_mmio ? &virtio_mmio_device_ops : NULL, &s->mmio };
	if (i % SLOT_DEVICES == 1)
		*dev = (struct device){ &virtio_device_ops, s->dev };
	else if (i % SLOT_DEVICES == 2)
		*dev = (struct device){ s->own, s->self };
	return true;
}

void virtio_board_reset(struct virtio_board *board)
{
	struct device dev;

	for (unsigned i = 0; virtio_board_device(board, i, &dev); i++)
		if (dev.ops)
			dev.ops->reset(dev.self);
}

/* SCSI units are targets in the order of their options: scsi_create(). */
static void slot_boot_order(const struct virtio_slot *s, struct boot_order *order)
{
	const struct virtio_options *o = s->options;
	const struct disk_options *disk = s->options;
	const struct nic_options *nic = s->options;
	const struct pci_device *d = &s->pci.pci;
	unsigned target = 0;
	char unit[40];

	if (s->dev->ops->id == VIRTIO_ID_BLOCK && disk->boot)
		boot_order_add(order, disk->boot, "scsi", d, "disk@0,0");
	if (s->dev->ops->id == VIRTIO_ID_NET && nic->boot)
		boot_order_add(order, nic->boot, "ethernet", d, "ethernet-phy@0");
	for (unsigned i = 0; s->dev->ops->id == VIRTIO_ID_SCSI && i < o->disks; i++) {
		if (!o->disk[i].scsi)
			continue;
		snprintf(unit, sizeof(unit), "channel@0/disk@%x,0", target++);
		if (o->disk[i].boot)
			boot_order_add(order, o->disk[i].boot, "scsi", d, unit);
	}
}

void virtio_board_boot_order(const struct virtio_board *board, struct boot_order *order)
{
	for (unsigned i = 0; board && !board->on_mmio && i < board->n; i++)
		slot_boot_order(&board->slot[i], order);
}

void virtio_board_attach_screen(struct virtio_board *board, struct display *display,
				struct input *input)
{
	for (unsigned i = 0; board && i < board->n; i++) {
		struct virtio_slot *s = &board->slot[i];

		if (s->dev->ops->id == VIRTIO_ID_GPU)
			display_set_overlay(display, virtio_gpu_draw, s->self);
		if (s->dev->ops->id == VIRTIO_ID_INPUT)
			virtio_input_attach(s->self, input);
	}
}

static void slot_measure(struct virtio_slot *s)
{
	struct virtio_blk *blk = s->self;
	struct virtio_scsi *scsi = s->self;

	if (s->destroy == disk_destroy && block_measure(blk->block))
		virtio_blk_resized(blk);
	for (unsigned i = 0; s->dev->ops->id == VIRTIO_ID_SCSI && i < scsi->units; i++)
		if (scsi->unit[i].block && block_measure(scsi->unit[i].block))
			virtio_scsi_resized(scsi, i);
}

void virtio_board_measure(struct virtio_board *board)
{
	for (unsigned i = 0; board && i < board->n; i++) {
		virtio_lock(board->slot[i].dev);
		slot_measure(&board->slot[i]);
		virtio_unlock(board->slot[i].dev);
	}
}

/* A disk of the options, where it is. */
struct disk_place {
	const struct disk_options *options;
	struct virtio_slot *slot;
	unsigned unit;		/* of a SCSI controller */
};

static struct virtio_slot *disk_slot(struct virtio_board *b, const struct disk_options *o)
{
	const void *options = o->scsi ? (const void *)&b->options : o;
	struct virtio_slot *s = b->slot;

	while (s->options != options || (o->scsi && s->dev->ops->id != VIRTIO_ID_SCSI))
		s++;
	return s;
}

static int disk_find(struct virtio_board *b, const char *name, struct disk_place *place,
		     struct error *err)
{
	unsigned number[2] = { 0 }, units = 0;
	char text[32];

	for (unsigned i = 0; b && i < b->options.disks; i++) {
		const struct disk_options *o = &b->options.disk[i];

		snprintf(text, sizeof(text), "%s%u", o->cdrom ? "cdrom" : "disk", number[o->cdrom]++);
		if (strcmp(text, name) == 0) {
			*place = (struct disk_place){ o, disk_slot(b, o), units };
			return 0;
		}
		units += o->scsi;
	}
	return error_set(err, ENOENT, "there is no disk \"%s\"", name);
}

static int disk_resize(const struct disk_place *p, u64 size, struct error *err)
{
	struct virtio_blk *blk = p->slot->self;
	struct virtio_scsi *scsi = p->slot->self;
	int ret = block_resize(p->options->scsi ? scsi->unit[p->unit].block : blk->block, size, err);

	if (ret == 0 && p->options->scsi)
		virtio_scsi_resized(scsi, p->unit);
	else if (ret == 0)
		virtio_blk_resized(blk);
	return ret;
}

int virtio_board_resize(struct virtio_board *board, const char *disk, u64 size, struct error *err)
{
	struct disk_place p = { 0 };
	int ret = disk_find(board, disk, &p, err);

	if (ret < 0)
		return ret;
	if (p.options->vhost)
		return error_set(err, ENOTSUP, "%s belongs to another program", disk);
	virtio_lock(p.slot->dev);
	ret = disk_resize(&p, size, err);
	virtio_unlock(p.slot->dev);
	return ret;
}

static int drive_find(struct virtio_board *b, const char *name, struct disk_place *place,
		      struct scsi_unit **unit, struct error *err)
{
	int ret = disk_find(b, name, place, err);
	struct virtio_scsi *scsi;

	if (ret < 0)
		return ret;
	if (!place->options->cdrom)
		return error_set(err, ENOTSUP, "%s has no tray: it is no CD-ROM drive", name);
	scsi = place->slot->self;
	*unit = &scsi->unit[place->unit];
	return 0;
}

static int drive_eject(struct scsi_unit *u, const char *name, bool force, struct error *err)
{
	int ret = scsi_cd_eject(u, force);

	return ret == 0 ? 0 : error_set(err, -ret, "the guest has locked %s and was asked to open it; "
					"try again, or with force", name);
}

int virtio_board_eject(struct virtio_board *board, const char *drive, bool force, struct error *err)
{
	struct scsi_unit *u = NULL;
	struct disk_place p = { 0 };
	int ret = drive_find(board, drive, &p, &u, err);

	if (ret < 0)
		return ret;
	virtio_lock(p.slot->dev);
	ret = drive_eject(u, drive, force, err);
	if (ret == 0)
		scsi_cd_remove(u);
	virtio_unlock(p.slot->dev);
	return ret;
}

int virtio_board_change(struct virtio_board *board, const char *drive, const char *file, const char *format,
			bool force, struct error *err)
{
	struct scsi_unit *u = NULL;
	struct disk_place p = { 0 };
	struct disk_options o;
	struct block *block = NULL;
	int ret = drive_find(board, drive, &p, &u, err);

	if (ret < 0)
		return ret;
	o = *p.options;
	o.file = file;
	o.format = format;
	virtio_lock(p.slot->dev);
	ret = disk_open(&block, p.slot, &o, true, err);
	if (ret == 0)
		ret = drive_eject(u, drive, force, err);
	if (ret == 0)
		scsi_cd_load(u, block);
	else
		block_close(block);
	virtio_unlock(p.slot->dev);
	return ret;
}

static struct virtio_balloon *board_balloon(struct virtio_board *board)
{
	for (unsigned i = 0; board && i < board->n; i++)
		if (board->slot[i].own == &virtio_balloon_device_ops)
			return board->slot[i].self;
	return NULL;
}

bool virtio_board_balloon(struct virtio_board *board, struct balloon_figures *f)
{
	struct virtio_balloon *b = board_balloon(board);

	if (!b)
		return false;
	virtio_lock(&b->dev);
	f->now = (u64)b->actual << 12;
	f->taken = (u64)b->most << 12;
	f->reported = b->reported;
	memcpy(f->stat, b->stat, sizeof(f->stat));
	virtio_unlock(&b->dev);
	return true;
}

void virtio_board_set_balloon(struct virtio_board *board, u64 bytes)
{
	struct virtio_balloon *b = board_balloon(board);

	if (!b)
		return;
	virtio_lock(&b->dev);
	virtio_balloon_set(b, bytes);
	virtio_unlock(&b->dev);
}

/* ---- what a kernel is told ------------------------------------------------------------------- */

static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = text; (p = strstr(p, word)); p += len)
		if ((p == text || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	return false;
}

char *virtio_kernel_cmdline(const struct virtio_options *o, const char *cmdline)
{
	enum { window_max = 64 };
	unsigned n = has_word(cmdline, "acpi=off") ? virtio_options_windows(o) : 0;
	size_t len = strlen(cmdline), size = len + n * window_max + 1;
	char *text = malloc(size);

	if (!text)
		return NULL;
	memcpy(text, cmdline, len + 1);
	for (unsigned i = 0; i < n; i++)
		len += virtio_mmio_cmdline(i, text + len, size - len);
	return text;
}

int virtio_write_tables(const struct virtio_options *o, const struct guest_memory *mem)
{
	return virtio_mmio_write_acpi(mem, virtio_options_windows(o));
}
