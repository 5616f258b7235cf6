/*
 * Every virtio device against a hostile driver. The input: a byte for the device, one for the layout and
 * features, then operations: messages of the device's own form with bytes of the input in them, raw
 * ones, bytes written into the rings, configuration, resets, saving and loading in mid-work. What must
 * hold: memory outside of the guest's RAM is not touched (the sanitizer's to see), nothing is in flight
 * when a device was paused, what was saved can be loaded, and after a reset the device works.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/device/virtio_driver.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/gpu.h"
#include "vmm/virtio/input.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/p9.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/scsi.h"
#include "vmm/virtio/vsock.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define QUEUES	6
#define SIZE	8
#define DATA	(RAM_BASE + 0x10000)	/* messages lie here, one over the other */

struct fuzz {
	const u8 *in, *end;
	struct guest_ram ram;
	struct io_thread io;
	struct virtio_device *dev;
	const struct kind *kind;
	struct driver_queue q[QUEUES];
	u64 features;
	char folder[32];
	union {
		struct virtio_rng rng;
		struct virtio_blk blk;
		struct virtio_scsi scsi;
		struct virtio_net net;
		struct virtio_console console;
		struct virtio_balloon balloon;
		struct virtio_p9 p9;
		struct virtio_vsock vsock;
		struct virtio_gpu gpu;
		struct virtio_input input;
	} u;
	struct display display;
};

static u8 take(struct fuzz *f)
{
	return f->in < f->end ? *f->in++ : 0;
}

/* ---- the devices: made, ended, and the form of their messages -------------------------------- */

struct kind {
	int (*make)(struct fuzz *f, struct error *err);
	void (*end)(struct fuzz *f);
	const struct device_ops *own;
	/* A message's head for a queue: its length. */
	u32 (*head)(struct fuzz *f, unsigned queue, u8 *to);
};

static int make_rng(struct fuzz *f, struct error *err)
{
	f->dev = &f->u.rng.dev;
	return virtio_rng_init(&f->u.rng, &f->ram.mem, &f->io, err);
}

static void end_rng(struct fuzz *f)
{
	virtio_destroy(f->dev);
}

static int make_blk(struct fuzz *f, struct error *err)
{
	const struct blk_options o = { .queues = 2 };
	struct block *b;

	f->dev = &f->u.blk.dev;
	return block_open(&b, NULL, NULL, err) ?: virtio_blk_init(&f->u.blk, b, &o, &f->ram.mem, &f->io, err);
}

static void end_blk(struct fuzz *f)
{
	virtio_blk_destroy(&f->u.blk);
}

static u32 head_blk(struct fuzz *f, unsigned queue, u8 *to)
{
	memset(to, 0, 16);
	to[0] = take(f) % 16;
	to[8] = take(f);
	to[9] = take(f) % 8;
	return 16;
}

static int make_scsi(struct fuzz *f, struct error *err)
{
	struct block *b;
	int ret = virtio_scsi_init(&f->u.scsi, 2, &f->ram.mem, &f->io, err);

	f->dev = &f->u.scsi.dev;
	for (int i = 0; i < 2 && ret == 0; i++) {
		block_open(&b, NULL, NULL, err);
		virtio_scsi_add(&f->u.scsi, i ? SCSI_CD : SCSI_DISK, b, i ? NULL : "serial");
	}
	return ret;
}

static void end_scsi(struct fuzz *f)
{
	virtio_scsi_destroy(&f->u.scsi);
}

static u32 head_scsi(struct fuzz *f, unsigned queue, u8 *to)
{
	static const u8 ops[] = { 0x00, 0x03, 0x08, 0x0A, 0x12, 0x15, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x2A, 0x2E,
				  0x2F, 0x35, 0x41, 0x42, 0x43, 0x46, 0x4A, 0x51, 0x55, 0x5A, 0x88, 0x8A, 0x8F,
				  0x91, 0x93, 0x9E, 0xA0, 0xA8, 0xAA, 0xBB, 0xBD, 0xBE };
	unsigned n = take(f) % 16;

	memset(to, 0, 51);
	if (queue == 0) {
		to[4] = take(f) % 9;
		memcpy(to + 8, (u8[]){ 1, take(f) % 3, 0x40, take(f) % 2 }, 4);
		return 24;
	}
	memcpy(to, (u8[]){ 1, take(f) % 3, 0x40, take(f) % 8 == 7 }, 4);
	to[19] = ops[take(f) % ARRAY_SIZE(ops)];
	for (unsigned i = 0; i < n; i++)
		to[20 + take(f) % 15] = take(f);
	return 51;
}

static int make_net(struct fuzz *f, struct error *err)
{
	const struct nic_options o = { .kind = NET_USER };

	f->dev = &f->u.net.dev;
	return virtio_net_init(&f->u.net, &o, 2, &f->ram.mem, &f->io, err);
}

static void end_net(struct fuzz *f)
{
	virtio_net_destroy(&f->u.net);
}

static u32 head_net(struct fuzz *f, unsigned queue, u8 *to)
{
	memset(to, 0, 12);
	to[0] = take(f) % 6;
	to[1] = take(f) % 6;
	if (queue == 2 || queue == 4)
		return 2;
	for (int i = take(f) % 4; i > 0; i--)
		to[take(f) % 12] = take(f);
	return 12;
}

static int make_console(struct fuzz *f, struct error *err)
{
	f->dev = &f->u.console.dev;
	return virtio_console_init(&f->u.console, 2, &f->ram.mem, &f->io, err) ?:
	       virtio_console_open(&f->u.console, 0, "none", NULL, err) ?:
	       virtio_console_open(&f->u.console, 1, "none", "name", err);
}

static void end_console(struct fuzz *f)
{
	virtio_console_destroy(&f->u.console);
}

static u32 head_console(struct fuzz *f, unsigned queue, u8 *to)
{
	memset(to, 0, 8);
	to[0] = take(f) % 4;
	to[4] = take(f) % 9;
	to[6] = take(f) % 2;
	return 8;
}

static int make_balloon(struct fuzz *f, struct error *err)
{
	const struct balloon_options o = { .taken = 1 << 20, .reporting = true, .deflate_on_oom = true };

	f->dev = &f->u.balloon.dev;
	return virtio_balloon_init(&f->u.balloon, &o, &f->ram.mem, &f->io, err);
}

static void end_balloon(struct fuzz *f)
{
	virtio_balloon_destroy(&f->u.balloon);
}

/* Pages behind all that the test itself has there. */
static u32 head_balloon(struct fuzz *f, unsigned queue, u8 *to)
{
	u32 n = take(f) % 8;

	for (u32 i = 0; i < n; i++)
		memcpy(to + 4 * i, &(u32){ ((RAM_BASE + RAM_SIZE) >> 12) - 1 - take(f) }, 4);
	return 4 * n;
}

static int make_p9(struct fuzz *f, struct error *err)
{
	const struct share_options o = { .folder = f->folder, .tag = "t" };
	char name[64];

	strcpy(f->folder, "/tmp/qumra-fuzz-XXXXXX");
	assert(mkdtemp(f->folder));
	snprintf(name, sizeof(name), "%s/file", f->folder);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	f->dev = &f->u.p9.dev;
	return virtio_p9_init(&f->u.p9, &o, &f->ram.mem, &f->io, err);
}

static int remove_one(const char *name, const struct stat *st, int what, struct FTW *where)
{
	return remove(name);
}

static void end_p9(struct fuzz *f)
{
	virtio_p9_destroy(&f->u.p9);
	nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static u32 put_name(struct fuzz *f, u8 *to)
{
	static const char *const names[] = { "file", "dir", "..", "a", "b", "", "file/x", "link" };
	const char *name = names[take(f) % ARRAY_SIZE(names)];

	to[0] = strlen(name);
	to[1] = 0;
	memcpy(to + 2, name, to[0]);
	return 2 + to[0];
}

static u32 head_p9(struct fuzz *f, unsigned queue, u8 *to)
{
	static const u8 types[] = { 8, 12, 14, 16, 18, 22, 24, 26, 40, 50, 52, 54, 70, 72, 74, 76, 100, 104, 108,
				    110, 110, 116, 118, 120, 122 };
	u32 n = 7;

	memset(to, 0, 128);
	to[4] = types[take(f) % ARRAY_SIZE(types)];
	if (to[4] == 100) {
		memcpy(to + n, "\0\x20\0\0\x08\0" "9P2000.L", 14);
		n += 14;
	} else if (to[4] == 104) {
		memcpy(to + n, "\0\0\0\0\xFF\xFF\xFF\xFF\0\0\0\0\0\0\0\0", 16);
		n += 16;
	} else {
		to[n] = take(f) % 4;
		n += 4;
		if (to[4] == 110) {
			to[n] = take(f) % 4;
			to[n + 4] = take(f) % 3;
			n += 6;
		} else if (to[4] == 70) {
			n += 4;
		}
		for (int i = take(f) % 3; i > 0; i--)
			n += put_name(f, to + n);
		for (int i = take(f) % 32; i > 0; i--)
			to[n++] = take(f) % 4 ? 0 : take(f);
	}
	to[0] = n;
	return n;
}

static int make_vsock(struct fuzz *f, struct error *err)
{
	const struct vsock_options o = { .path = f->folder, .cid = 3 };

	snprintf(f->folder, sizeof(f->folder), "/tmp/qumra-fuzz-%d", getpid());
	unlink(f->folder);
	f->dev = &f->u.vsock.dev;
	return virtio_vsock_init(&f->u.vsock, &o, &f->ram.mem, &f->io, err);
}

static void end_vsock(struct fuzz *f)
{
	virtio_vsock_destroy(&f->u.vsock);
}

static u32 head_vsock(struct fuzz *f, unsigned queue, u8 *to)
{
	struct virtio_vsock_hdr h = {
		.src_cid = 3, .dst_cid = 2, .src_port = take(f) % 3, .dst_port = take(f) % 3, .type = 1,
		.op = take(f) % 9, .len = take(f) % 32, .flags = take(f) % 4, .buf_alloc = take(f) << 4,
		.fwd_cnt = take(f) };

	memcpy(to, &h, sizeof(h));
	return sizeof(h);
}

static int make_gpu(struct fuzz *f, struct error *err)
{
	const struct gpu_options o = { 0 };

	f->dev = &f->u.gpu.dev;
	display_init(&f->display);
	display_set_overlay(&f->display, virtio_gpu_draw, &f->u.gpu);
	return virtio_gpu_init(&f->u.gpu, &o, &f->ram.mem, &f->io, err);
}

static void end_gpu(struct fuzz *f)
{
	virtio_gpu_destroy(&f->u.gpu);
	assert(!f->u.gpu.used && !f->u.gpu.resources);
	display_destroy(&f->display);
}

static void put_words(u8 *to, const u32 *word, unsigned n)
{
	memcpy(to, word, n * sizeof(*word));
}

/* A number that is mostly small. */
static u32 some_number(struct fuzz *f)
{
	u8 n = take(f);

	return n < 0xF0 ? n % 24 : n < 0xF8 ? (u32)n << take(f) % 25 : ~0U - take(f) % 64;
}

/* Every command by its number; fields as they would be, and pages in RAM. */
static u32 head_gpu(struct fuzz *f, unsigned queue, u8 *to)
{
	static const u8 formats[] = { 1, 2, 3, 4, 67, 68, 121, 134, 0, 5 };
	u32 type = queue == 1 ? 0x300 + take(f) % 3 : 0x100 + take(f) % 12, n, entries = take(f) % 8;

	memset(to, 0, 256);
	to[4] = take(f) % 4;
	put_words(to, &type, 1);
	for (n = 24; n < 56; n += 4)
		put_words(to + n, &(u32){ some_number(f) }, 1);
	if (queue == 1 || type == 0x103)
		to[queue == 1 ? 24 : 40] = take(f) % 8 == 7;
	if (type == 0x101)
		put_words(to + 28, &(u32){ formats[take(f) % ARRAY_SIZE(formats)] }, 1);
	if (type == 0x105)
		put_words(to + 44, &(u32){ 0 }, 1);
	if (type != 0x106)
		return n;
	put_words(to + 28, &entries, 1);
	for (u32 i = 0; i < entries; i++)
		put_words(to + 32 + 16 * i, (u32[]){ RAM_BASE + 0x20000 + some_number(f), 0, some_number(f) * 16, 0 }, 4);
	return 32 + 16 * entries;
}

/* A command as it should be, of 64 bytes, done at once. */
static void gpu_send(struct fuzz *f, unsigned queue, u32 type, const u32 *word, unsigned n)
{
	const struct piece p[] = { { DATA, 64, false }, { DATA + 0x1000, 2048, true } };
	u8 *to = at(f->ram.bytes, DATA);
	u32 len;
	u16 id;

	if (!virtio_running(f->dev))
		return;
	memset(to, 0, 64);
	put_words(to, &type, 1);
	put_words(to + 24, word, n);
	while (driver_take(&f->q[queue], &id, &len))
		;
	driver_submit(&f->q[queue], p, 2, 0);
	f->dev->ops->kick(f->dev, queue);
}

/* What a driver does to have a picture, so that the input finds one to spoil. */
static void gpu_picture(struct fuzz *f, u32 id)
{
	u32 format = 1 + take(f) % 4, width = 1 + take(f) % 24, height = 1 + take(f) % 24;

	gpu_send(f, 0, 0x101, (u32[]){ id, format, width, height }, 4);
	gpu_send(f, 0, 0x106, (u32[]){ id, 2, RAM_BASE + take(f), 0, 1024, 0, RAM_BASE + 99, 0, 2048, 0 }, 10);
	gpu_send(f, 0, 0x105, (u32[]){ 0, 0, width, height, 0, 0, id }, 7);
	gpu_send(f, 0, 0x103, (u32[]){ 0, 0, width, height, 0, id }, 6);
	gpu_send(f, 0, 0x104, (u32[]){ 0, 0, width, height, id }, 5);
}

static void poke_gpu(struct fuzz *f)
{
	switch (take(f) % 4) {
	case 0:
		virtio_gpu_set_mode(&f->u.gpu, take(f) << 4, take(f) << 4);
		break;
	case 1:
		gpu_picture(f, 1 + take(f) % 3);
		break;
	case 2:
		gpu_send(f, 1, 0x300, (u32[]){ 0, (s8)take(f), (s8)take(f), 0, 1 + take(f) % 3 }, 5);
		break;
	}
	display_refresh(&f->display);
}

static int make_input(struct fuzz *f, struct error *err)
{
	f->dev = &f->u.input.dev;
	return virtio_input_init(&f->u.input, take(f) % 2 ? &virtio_keyboard : &virtio_tablet, &f->ram.mem, &f->io, err);
}

static void end_input(struct fuzz *f)
{
	virtio_input_destroy(&f->u.input);
}

static u32 head_input(struct fuzz *f, unsigned queue, u8 *to)
{
	u32 n = 1 + take(f) % 4;

	for (u32 i = 0; i < 2 * n; i++)
		put_words(to + 4 * i, &(u32){ i % 2 ? take(f) % 2 : 0x11 | (u32)take(f) % 24 << 16 }, 1);
	return 8 * n;
}

static void poke_input(struct fuzz *f)
{
	const struct input_place p = { take(f), take(f), take(f), take(f), (s8)take(f), take(f) };

	for (unsigned i = 0; i < 40; i++)
		if (f->u.input.kind->axes)
			virtio_input_place(&f->u.input, &(struct input_place){ p.x + i, p.y, p.width, p.height, p.wheel,
										p.buttons ^ i });
		else
			virtio_input_key(&f->u.input, p.x + i * p.y, i & 1);
	assert(f->u.input.events <= INPUT_WAITING);
}

static u32 head_none(struct fuzz *f, unsigned queue, u8 *to)
{
	return 0;
}

static const struct kind kinds[] = {
	{ make_rng, end_rng, NULL, head_none },
	{ make_blk, end_blk, NULL, head_blk },
	{ make_scsi, end_scsi, &virtio_scsi_device_ops, head_scsi },
	{ make_net, end_net, &virtio_net_device_ops, head_net },
	{ make_console, end_console, &virtio_console_device_ops, head_console },
	{ make_balloon, end_balloon, &virtio_balloon_device_ops, head_balloon },
	{ make_p9, end_p9, &virtio_p9_device_ops, head_p9 },
	{ make_vsock, end_vsock, &virtio_vsock_device_ops, head_vsock },
	{ make_gpu, end_gpu, &virtio_gpu_device_ops, head_gpu },
	{ make_input, end_input, &virtio_input_device_ops, head_input },
};

/* ---- operations ------------------------------------------------------------------------------ */

static void drive(struct fuzz *f)
{
	struct virtio_device *d = f->dev;

	virtio_set_status(d, 0);
	virtio_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	virtio_set_features(d, f->features & d->offered);
	virtio_set_status(d, 11);
	if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK)) {	/* a combination that cannot be */
		f->features = BIT(VIRTIO_F_VERSION_1);
		virtio_set_features(d, f->features);
		virtio_set_status(d, 11);
	}
	assert(d->status & VIRTIO_CONFIG_S_FEATURES_OK);
	f->ram.top = RAM_BASE;
	for (unsigned i = 0; i < MIN(d->queues, (unsigned)QUEUES); i++) {
		driver_init(&f->q[i], &f->ram, SIZE, d->features & BIT(VIRTIO_F_RING_PACKED),
			d->features & BIT(VIRTIO_RING_F_EVENT_IDX));
		d->queue[i].config = driver_config(&f->q[i]);
		virtio_queue_enable(d, i);
		assert(d->queue[i].vq.ready);
	}
	virtio_set_status(d, 15);
	assert(!(d->status & VIRTIO_CONFIG_S_NEEDS_RESET));
}

static unsigned some_queue(struct fuzz *f)
{
	return take(f) % MIN(f->dev->queues, (unsigned)QUEUES);
}

static void op_submit(struct fuzz *f)
{
	static const u32 lengths[] = { 1, 11, 44, 64, 108, 512, 2048, 4096 };
	unsigned queue = some_queue(f), outs = 0, n;
	u8 *to = at(f->ram.bytes, DATA);
	u32 len = take(f) % 8 ? f->kind->head(f, queue, to) : 0, more = take(f) % 64;
	struct piece p[6];

	for (u32 i = 0; i < more; i++)
		to[len + i] = take(f);
	len += more;
	if (len && take(f) % 4) {
		u32 cut = take(f) % 2 ? take(f) % len : 0;

		if (cut)
			p[outs++] = (struct piece){ DATA, cut, false };
		p[outs++] = (struct piece){ DATA + cut, len - cut, false };
	}
	n = outs;
	for (int i = take(f) % 4; i > 0; i--, n++)
		p[n] = (struct piece){ DATA + 0x1000 * (1 + n), lengths[take(f) % ARRAY_SIZE(lengths)], true };
	if (n)
		driver_submit(&f->q[queue], p, n, 0);
}

static void op_kick(struct fuzz *f)
{
	unsigned i = some_queue(f);

	if (virtio_running(f->dev) && f->dev->queue[i].vq.ready && f->dev->ops->kick)
		f->dev->ops->kick(f->dev, i);
}

static void op_take(struct fuzz *f)
{
	unsigned i = some_queue(f);
	u16 id;
	u32 len;

	/* The driver's own sanity is not what is tested: it looks only while its ring is whole. */
	if (!(f->dev->status & VIRTIO_CONFIG_S_NEEDS_RESET))
		while (driver_take(&f->q[i], &id, &len))
			;
}

static void settle(struct fuzz *f)
{
	if (f->dev->ops->pause)
		f->dev->ops->pause(f->dev);
}

/* Bytes into a ring: after it nothing is taken back until a reset. */
static void op_scribble(struct fuzz *f)
{
	unsigned i = some_queue(f);
	u64 where = f->q[i].desc + take(f) % (16 * SIZE);

	*(u8 *)at(f->ram.bytes, where) = take(f);
	*(u8 *)at(f->ram.bytes, f->q[i].driver + take(f) % 20) += take(f) % 4;
	settle(f);
	for (int k = 0; k < 3; k++)
		op_kick(f);
	settle(f);
	drive(f);
}

static void op_config(struct fuzz *f)
{
	u32 offset = take(f) % 64, len = 1 << take(f) % 4;
	u8 data[8] = { take(f), take(f), take(f) };

	if (take(f) % 2)
		virtio_config_read(f->dev, offset, data, len);
	else
		virtio_config_write(f->dev, offset, data, len);
}

static void op_reset(struct fuzz *f)
{
	f->features ^= (u64)take(f) << (take(f) % 40);
	f->features |= BIT(VIRTIO_F_VERSION_1);
	drive(f);
}

/* The person at the screen, where there is one. */
static void op_poke(struct fuzz *f)
{
	if (f->kind->own == &virtio_gpu_device_ops)
		poke_gpu(f);
	else if (f->kind->own == &virtio_input_device_ops)
		poke_input(f);
}

static void op_move(struct fuzz *f)
{
	static u8 saved[2][1 << 20];
	const struct device dev[] = { { &virtio_device_ops, f->dev }, { f->kind->own, &f->u } };
	long n[2] = { 0 };

	dev[0].ops->pause(dev[0].self);
	for (unsigned i = 0; i < f->dev->queues; i++)
		assert(!f->dev->queue[i].vq.in_flight ||
		       f->dev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
	for (int i = 0; i < 2; i++)
		if (dev[i].ops)
			n[i] = device_save(&dev[i], saved[i], sizeof(saved[i]));
	if (n[1] < 0) {	/* large pictures */
		assert(f->kind->own == &virtio_gpu_device_ops && n[1] == -ENOSPC);
		dev[0].ops->resume(dev[0].self);
		return;
	}
	dev[0].ops->reset(dev[0].self);
	for (int i = 0; i < 2; i++)
		if (dev[i].ops)
			assert(device_load(&dev[i], saved[i], n[i]) == n[i]);
	/* And what somebody else made of it. */
	if (dev[1].ops && n[1] > 40) {
		saved[1][take(f) * 64 % n[1]] ^= take(f);
		device_load(&dev[1], saved[1], n[1]);
	}
	dev[0].ops->resume(dev[0].self);
}

static void (*const ops[])(struct fuzz *f) = {
	op_submit, op_submit, op_submit, op_submit, op_kick, op_kick, op_kick, op_take, op_take, op_scribble,
	op_config, op_reset, op_move, op_poke, settle,
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct fuzz *f = calloc(1, sizeof(*f));
	struct error err = ERROR_INIT;

	f->in = data;
	f->end = data + size;
	ram_init(&f->ram);
	assert(io_thread_init(&f->io, &err) == 0);
	f->kind = &kinds[take(f) % ARRAY_SIZE(kinds)];
	f->features = BIT(VIRTIO_F_VERSION_1) | (u64)(take(f) & 1) << VIRTIO_F_RING_PACKED |
		      (u64)(take(f) & 3) << VIRTIO_RING_F_INDIRECT_DESC | (u64)take(f) << 16 | 0x3F;
	if (f->kind->make(f, &err) == 0) {
		drive(f);
		while (f->in < f->end)
			ops[take(f) % ARRAY_SIZE(ops)](f);
		settle(f);
		virtio_set_status(f->dev, 0);
	}
	f->kind->end(f);
	io_thread_destroy(&f->io);
	free(f->ram.bytes);
	free(f);
	return 0;
}
