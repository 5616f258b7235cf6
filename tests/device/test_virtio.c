/*
 * Devices behind each transport's registers, driven by the test's own driver: negotiation, every kind of
 * device at work, in both layouts; resets, saved state and hostile drivers in mid-work.
 */
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_console.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "tests/device/virtio_board.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/rng.h"

/* ---- the transport --------------------------------------------------------------------------- */

static void rng_board(struct board *b, struct virtio_rng *rng)
{
	board_init(b);
	assert_int_equal(virtio_rng_init(rng, &b->ram.mem, &b->io, &b->err), 0);
	board_start(b, &rng->dev);
}

static void rng_end(struct board *b, struct virtio_rng *rng)
{
	board_stop(b);
	virtio_destroy(&rng->dev);
	board_free(b);
}

static void check_mmio_identity(struct board *b)
{
	assert_int_equal(in(b, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	assert_int_equal(in(b, VIRTIO_MMIO_VERSION), 2);
	assert_int_equal(in(b, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_RNG);
	assert_int_equal(in(b, VIRTIO_MMIO_SHM_LEN_LOW), ~0u);
	/* Registers are read and written whole. */
	assert_int_equal(virtio_mmio_io_ops.read(&b->mmio, 0, 2), 0);
	virtio_mmio_io_ops.write(&b->mmio, VIRTIO_MMIO_STATUS, 1, 1);
	assert_int_equal(in(b, VIRTIO_MMIO_STATUS), 0);
}

static void check_pci_identity(struct board *b)
{
	assert_int_equal(board_pci_config_in(&b->pci, PCI_VENDOR, 4), 0x1AF4 | (0x1040 + VIRTIO_ID_RNG) << 16);
	assert_int_equal(board_pci_in(&b->pci, VIRTIO_PCI_COMMON_NUMQ, 2), 1);
	/* Fields are written whole. */
	virtio_pci_io_ops.write(&b->pci.t, VIRTIO_PCI_COMMON_STATUS, 1, 4);
	assert_int_equal(in(b, VIRTIO_MMIO_STATUS), 0);
}

static void test_registers(void **state)
{
	struct virtio_rng rng;
	struct board b;

	rng_board(&b, &rng);
	if (b.on_pci)
		check_pci_identity(&b);
	else
		check_mmio_identity(&b);
	assert_true(offered(&b) & VERSION_1);
	/* A queue that is not there. */
	out(&b, VIRTIO_MMIO_QUEUE_SEL, 1);
	assert_int_equal(in(&b, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
	out(&b, VIRTIO_MMIO_QUEUE_READY, 1);
	out(&b, VIRTIO_MMIO_QUEUE_NOTIFY, 77);
	out(&b, VIRTIO_MMIO_QUEUE_SEL, ~0u);
	assert_int_equal(in(&b, VIRTIO_MMIO_QUEUE_READY), 0);
	/* Features that are not offered, or without version 1, are not agreed to. */
	out(&b, VIRTIO_MMIO_STATUS, 3);
	agree(&b, VERSION_1 | BIT(40));
	assert_int_equal(in(&b, VIRTIO_MMIO_STATUS), 3);
	agree(&b, 0);
	assert_int_equal(in(&b, VIRTIO_MMIO_STATUS), 3);
	out(&b, VIRTIO_MMIO_STATUS, ALL_STATUS);
	assert_int_equal(in(&b, VIRTIO_MMIO_STATUS), 3);
	rng_end(&b, &rng);
}

static void test_bad_queue_setup(void **state)
{
	static const struct { u32 reg, value; } bad[] = {
		{ VIRTIO_MMIO_QUEUE_NUM, 3 }, { VIRTIO_MMIO_QUEUE_NUM, 0 },
		{ VIRTIO_MMIO_QUEUE_NUM, 0x10008 }, { VIRTIO_MMIO_QUEUE_NUM, 16 },
		{ VIRTIO_MMIO_QUEUE_DESC_HIGH, 1 }, { VIRTIO_MMIO_QUEUE_AVAIL_LOW, 1 },
		{ VIRTIO_MMIO_QUEUE_USED_HIGH, ~0u },
	};
	struct virtio_rng rng;
	struct board b;

	rng_board(&b, &rng);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (b.on_pci && bad[i].value == 0x10008)
			continue;	/* a register of 16 bits */
		out(&b, VIRTIO_MMIO_STATUS, 0);
		out(&b, VIRTIO_MMIO_STATUS, 3);
		agree(&b, VERSION_1);
		out(&b, VIRTIO_MMIO_QUEUE_SEL, 0);
		out(&b, VIRTIO_MMIO_QUEUE_NUM, 8);
		out(&b, VIRTIO_MMIO_QUEUE_DESC_LOW, RAM_BASE);
		out(&b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RAM_BASE + 0x1000);
		out(&b, VIRTIO_MMIO_QUEUE_USED_LOW, RAM_BASE + 0x2000);
		out(&b, bad[i].reg, bad[i].value);
		out(&b, VIRTIO_MMIO_QUEUE_READY, 1);
		assert_true(in(&b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
		assert_int_equal(in(&b, VIRTIO_MMIO_QUEUE_READY), 0);
		/* Told when the driver goes on nevertheless. */
		out(&b, VIRTIO_MMIO_STATUS, ALL_STATUS);
		assert_true(wait_interrupt(&b) & VIRTIO_MMIO_INT_CONFIG);
	}
	drive(&b, layouts[0], 0);
	rng_end(&b, &rng);
}

static void test_rng(void **state)
{
	struct virtio_rng rng;
	struct board b;

	rng_board(&b, &rng);
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		out(&b, VIRTIO_MMIO_STATUS, 0);
		/* The queue is smaller than the other devices'. */
		b.features = layouts[l];
		out(&b, VIRTIO_MMIO_STATUS, 3);
		agree(&b, layouts[l]);
		b.ram.top = RAM_BASE;
		driver_init(&b.q[0], &b.ram, 8, layouts[l] & PACKED, layouts[l] & EVENT_IDX);
		board_set_vector(&b, 0);
		out(&b, VIRTIO_MMIO_QUEUE_NUM, 8);
		out(&b, VIRTIO_MMIO_QUEUE_DESC_LOW, b.q[0].desc);
		out(&b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, b.q[0].driver);
		out(&b, VIRTIO_MMIO_QUEUE_USED_LOW, b.q[0].device);
		out(&b, VIRTIO_MMIO_QUEUE_READY, 1);
		out(&b, VIRTIO_MMIO_STATUS, ALL_STATUS);
		for (int i = 0; i < 200; i++) {
			u64 buf = ram_alloc(&b.ram, 64);
			const struct piece p[] = { { buf, 32, true }, { buf + 32, 31, true } };
			u8 zero[64] = { 0 };

			assert_int_equal(transfer(&b, 0, p, 2), 63);
			assert_memory_not_equal(at(b.ram.bytes, buf), zero, 32);
			assert_memory_not_equal(at(b.ram.bytes, buf + 32), zero, 31);
			assert_int_equal(((u8 *)at(b.ram.bytes, buf))[63], 0);
		}
	}
	rng_end(&b, &rng);
}

/* ---- blk ------------------------------------------------------------------------------------- */

#define DISK_SIZE (1 << 20)

struct disk {
	struct board b;
	struct virtio_blk blk;
	char file[32];
};

static void disk_open(struct disk *d, bool readonly)
{
	const struct block_options image = { .file = d->file, .format = "raw",
					     .readonly = readonly };
	const struct blk_options o = { .queues = 2, .serial = "disk-serial-0123456789abc" };
	struct block *block;

	board_init(&d->b);
	assert_int_equal(block_open(&block, &image, &d->b.io.loop, &d->b.err), 0);
	assert_int_equal(virtio_blk_init(&d->blk, block, &o, &d->b.ram.mem, &d->b.io, &d->b.err), 0);
	board_start(&d->b, &d->blk.dev);
}

static void disk_init(struct disk *d, bool readonly)
{
	int fd;

	memset(d, 0, sizeof(*d));
	strcpy(d->file, "/tmp/qumra-blk-XXXXXX");
	fd = mkstemp(d->file);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
	close(fd);
	disk_open(d, readonly);
}

static void disk_free(struct disk *d)
{
	board_stop(&d->b);
	virtio_blk_destroy(&d->blk);
	board_free(&d->b);
	unlink(d->file);
}

/* One request: n bytes of data at gpa. Returns the status; *used: what the device says it wrote. */
static u8 disk_request(struct disk *d, unsigned queue, u32 type, u64 sector, u64 gpa, u32 n,
		       u32 *used)
{
	const struct virtio_blk_outhdr h = { .type = type, .sector = sector };
	u64 head = ram_alloc(&d->b.ram, sizeof(h)), status = ram_alloc(&d->b.ram, 1);
	bool read = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	const struct piece p[] = { { head, sizeof(h), false }, { gpa, n, read }, { status, 1, true } };
	const struct piece q[] = { p[0], p[2] };
	u32 len;

	memcpy(at(d->b.ram.bytes, head), &h, sizeof(h));
	*(u8 *)at(d->b.ram.bytes, status) = 0xEE;
	len = n ? transfer(&d->b, queue, p, 3) : transfer(&d->b, queue, q, 2);
	if (used)
		*used = len;
	return *(u8 *)at(d->b.ram.bytes, status);
}

static void disk_work(struct disk *d)
{
	u64 a = ram_alloc(&d->b.ram, 4096), c = ram_alloc(&d->b.ram, 4096);
	u32 used;

	for (unsigned i = 0; i < 100; i++) {
		u64 sector = (i * 37) % (DISK_SIZE / 512 - 8);

		memset(at(d->b.ram.bytes, a), i + 1, 4096);
		assert_int_equal(disk_request(d, i % 2, VIRTIO_BLK_T_OUT, sector, a, 4096, &used), 0);
		assert_int_equal(used, 1);
		assert_int_equal(disk_request(d, i % 2, VIRTIO_BLK_T_FLUSH, 0, 0, 0, &used), 0);
		assert_int_equal(disk_request(d, 1, VIRTIO_BLK_T_IN, sector, c, 4096, &used), 0);
		assert_int_equal(used, 4097);
		assert_memory_equal(at(d->b.ram.bytes, a), at(d->b.ram.bytes, c), 4096);
	}
}

static void test_blk(void **state)
{
	struct disk d;
	u8 text[24] = { 0 };
	u64 buf;
	u32 used;

	disk_init(&d, false);
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		drive(&d.b, layouts[l] | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_MQ) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_DISCARD), 2);
		assert_int_equal(in(&d.b, VIRTIO_MMIO_CONFIG), DISK_SIZE / 512);
		disk_work(&d);
		buf = ram_alloc(&d.b.ram, 64);
		assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_GET_ID, 0, buf, 20, &used), 0);
		assert_int_equal(used, 21);
		memcpy(text, at(d.b.ram.bytes, buf), 20);
		assert_string_equal(text, "disk-serial-01234567");
	}
	disk_free(&d);
}

static void test_blk_ranges(void **state)
{
	struct virtio_blk_discard_write_zeroes s = { .sector = 8, .num_sectors = 8 };
	struct disk d;
	u64 a, c, zero[512] = { 0 };

	disk_init(&d, false);
	drive(&d.b, layouts[3] | BIT(VIRTIO_BLK_F_WRITE_ZEROES) | BIT(VIRTIO_BLK_F_DISCARD), 2);
	a = ram_alloc(&d.b.ram, 8192);
	c = ram_alloc(&d.b.ram, 64);
	memset(at(d.b.ram.bytes, a), 0x55, 8192);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_OUT, 0, a, 8192, NULL), 0);
	memcpy(at(d.b.ram.bytes, c), &s, sizeof(s));
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, c, 16, NULL), 0);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_IN, 0, a, 8192, NULL), 0);
	assert_int_equal(((u8 *)at(d.b.ram.bytes, a))[4095], 0x55);
	assert_memory_equal(at(d.b.ram.bytes, a + 4096), zero, 4096);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_DISCARD, 0, c, 16, NULL), 0);
	/* Flags, lengths and places that cannot be. */
	s.flags = 2;
	memcpy(at(d.b.ram.bytes, c), &s, sizeof(s));
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, c, 16, NULL), 2);
	s.flags = 1;
	memcpy(at(d.b.ram.bytes, c), &s, sizeof(s));
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_DISCARD, 0, c, 16, NULL), 2);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_DISCARD, 0, c, 32, NULL), 1);
	s = (struct virtio_blk_discard_write_zeroes){ .sector = ~0ULL, .num_sectors = 8 };
	memcpy(at(d.b.ram.bytes, c), &s, sizeof(s));
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, c, 16, NULL), 1);
	disk_free(&d);
}

static void test_blk_bad_requests(void **state)
{
	static const struct { u32 type; u64 sector; u32 n; u8 status; } bad[] = {
		{ VIRTIO_BLK_T_IN, DISK_SIZE / 512, 512, 1 },
		{ VIRTIO_BLK_T_IN, DISK_SIZE / 512 - 1, 1024, 1 },
		{ VIRTIO_BLK_T_OUT, ~0ULL, 512, 1 },
		{ VIRTIO_BLK_T_OUT, 0x80000000000000ULL, 512, 1 },
		{ VIRTIO_BLK_T_IN, 0, 511, 1 },
		{ VIRTIO_BLK_T_SCSI_CMD, 0, 512, 2 },
		{ 0x12345678, 0, 512, 2 },
		{ VIRTIO_BLK_T_DISCARD, 0, 16, 2 },	/* not negotiated */
	};
	struct disk d;
	u64 buf;
	u16 id;

	disk_init(&d, false);
	drive(&d.b, layouts[1], 2);
	buf = ram_alloc(&d.b.ram, 1024);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(disk_request(&d, 0, bad[i].type, bad[i].sector, buf, bad[i].n, NULL),
			bad[i].status);
	/* No room for a status, or for a header. */
	for (int i = 0; i < 2; i++) {
		const struct piece p = { buf, i ? 15 : 512, i };

		drive(&d.b, layouts[i], 2);
		driver_submit(&d.b.q[0], &p, 1, 0);
		kick(&d.b, 0);
		wait_needs_reset(&d.b);
		u32 len;
		assert_false(driver_take(&d.b.q[0], &id, &len));
	}
	drive(&d.b, layouts[0] | BIT(VIRTIO_BLK_F_FLUSH), 2);
	disk_work(&d);
	disk_free(&d);
}

static void test_blk_readonly(void **state)
{
	struct disk d;
	u64 buf;

	disk_init(&d, true);
	drive(&d.b, ~(PACKED | BIT(VIRTIO_RING_F_INDIRECT_DESC)), 2);
	assert_true(offered(&d.b) & BIT(VIRTIO_BLK_F_RO));
	buf = ram_alloc(&d.b.ram, 512);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_OUT, 0, buf, 512, NULL), 1);
	assert_int_equal(disk_request(&d, 0, VIRTIO_BLK_T_IN, 0, buf, 512, NULL), 0);
	disk_free(&d);
}

/* Puts n writes of 4 KiB into the queue without waiting for them. */
static void disk_burst(struct disk *d, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const struct virtio_blk_outhdr h = { .type = VIRTIO_BLK_T_OUT, .sector = i * 8 };
		u64 head = ram_alloc(&d->b.ram, sizeof(h)), buf = ram_alloc(&d->b.ram, 4096);
		const struct piece p[] = { { head, sizeof(h), false }, { buf, 4096, false },
					   { ram_alloc(&d->b.ram, 1), 1, true } };

		memcpy(at(d->b.ram.bytes, head), &h, sizeof(h));
		assert_true(driver_submit(&d->b.q[0], p, 3, ram_alloc(&d->b.ram, 48)) >= 0);
	}
	kick(&d->b, 0);
}

/* ASan sees what a reset would leak or use too late. */
static void test_blk_reset_in_work(void **state)
{
	struct disk d;

	disk_init(&d, false);
	for (int i = 0; i < 200; i++) {
		drive(&d.b, layouts[i & 1 ? 3 : 1], 2);
		disk_burst(&d, QUEUE_SIZE);
		if (i % 3 == 0)
			virtio_device_ops.reset(&d.blk.dev);
	}
	drive(&d.b, layouts[1], 2);
	disk_work(&d);
	disk_free(&d);
}

/* Paused in mid-work, saved, loaded into another machine with the same memory, and gone on there. */
static void test_blk_moves(void **state)
{
	for (size_t l = 1; l < ARRAY_SIZE(layouts); l += 2) {
		struct disk d;
		static struct board_state s;
		struct guest_ram ram;
		struct driver_queue q[2];
		unsigned done = 0;
		u16 id;
		u32 len;

		disk_init(&d, false);
		drive(&d.b, layouts[l], 2);
		disk_burst(&d, QUEUE_SIZE - 2);
		board_state_init(&s, &d.b, NULL, NULL);
		board_save(&s);
		assert_int_equal(d.blk.in_flight, 0);
		/* The old one goes, but for its memory and its driver. */
		ram = d.b.ram;
		memcpy(q, d.b.q, sizeof(q));
		d.b.ram.bytes = NULL;
		board_stop(&d.b);
		virtio_blk_destroy(&d.blk);
		board_free(&d.b);
		disk_open(&d, false);
		free(d.b.ram.bytes);
		d.b.ram = ram;
		d.blk.dev.mem = &d.b.ram.mem;
		memcpy(d.b.q, q, sizeof(q));
		d.b.features = layouts[l];
		board_state_init(&s, &d.b, NULL, NULL);
		virtio_device_ops.pause(&d.blk.dev);
		board_load(&s);
		for (; done < QUEUE_SIZE - 2; done++)
			wait_used(&d.b, 0, &id);
		assert_false(driver_take(&d.b.q[0], &id, &len));
		disk_work(&d);
		virtio_device_ops.pause(&d.blk.dev);
		check_round_trip(s.dev[0].ops, s.dev[0].self);
		disk_free(&d);
	}
}

static void test_bad_state(void **state)
{
	static u8 saved[8192], bad[8192];
	struct virtio_rng rng;
	struct device dev;
	struct board b;
	long n;
	unsigned refused = 0;

	rng_board(&b, &rng);
	dev = (struct device){ &virtio_device_ops, &rng.dev };
	out(&b, VIRTIO_MMIO_STATUS, 3);
	agree(&b, VERSION_1);
	n = device_save(&dev, saved, sizeof(saved));
	/* Any byte may be anything: refused or taken, never a crash; and the good one loads again. */
	for (long i = 0; i < n; i++) {
		memcpy(bad, saved, n);
		bad[i] ^= 0x81;
		refused += device_load(&dev, bad, n) < 0;
		assert_true(device_load(&dev, bad, i) < 0);
	}
	assert_true(refused > 20);
	assert_int_equal(device_load(&dev, saved, n), n);
	rng_end(&b, &rng);
}

/* A driver that is half way, with registers that no queue could have, and what no driver can come to. */
static void test_half_way(void **state)
{
	const struct { u8 status; bool ready; u64 features; } bad[] = {
		{ VIRTIO_CONFIG_S_DRIVER_OK, false, ~0ULL }, { VIRTIO_CONFIG_S_DRIVER, true, VERSION_1 } };
	struct virtio_rng rng;
	struct board b;

	rng_board(&b, &rng);
	out(&b, VIRTIO_MMIO_STATUS, 3);
	agree(&b, VERSION_1);
	out(&b, VIRTIO_MMIO_QUEUE_SEL, 0);
	out(&b, VIRTIO_MMIO_QUEUE_NUM, 0xFFFF);
	out(&b, VIRTIO_MMIO_QUEUE_USED_HIGH, ~0u);
	board_reload(&b, NULL, NULL);
	out(&b, VIRTIO_MMIO_QUEUE_NUM, 8);
	out(&b, VIRTIO_MMIO_QUEUE_DESC_LOW, RAM_BASE);
	out(&b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, RAM_BASE + 0x1000);
	out(&b, VIRTIO_MMIO_QUEUE_USED_LOW, RAM_BASE + 0x2000);
	out(&b, VIRTIO_MMIO_QUEUE_USED_HIGH, 0);
	out(&b, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(in(&b, VIRTIO_MMIO_QUEUE_READY), 1);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct device dev = { &virtio_device_ops, &rng.dev };
		struct virtio_device good = rng.dev;
		u8 saved[4096];
		long n;

		rng.dev.status = bad[i].status;
		rng.dev.features = bad[i].features;
		rng.dev.queue[0].vq.ready = bad[i].ready;
		n = device_save(&dev, saved, sizeof(saved));
		rng.dev = good;
		assert_int_equal(device_load(&dev, saved, n), -EINVAL);
	}
	rng_end(&b, &rng);
}

/* ---- console --------------------------------------------------------------------------------- */

struct con {
	struct board b;
	struct virtio_console con;
	char path[40];
	int fd;		/* the host's end of port 1 */
};

static void con_init(struct con *c)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char where[64];

	memset(c, 0, sizeof(*c));
	snprintf(c->path, sizeof(c->path), "/tmp/qumra-con-%d", getpid());
	snprintf(where, sizeof(where), "unix:%s", c->path);
	unlink(c->path);
	board_init(&c->b);
	assert_int_equal(virtio_console_init(&c->con, 2, &c->b.ram.mem, &c->b.io, &c->b.err), 0);
	assert_int_equal(virtio_console_open(&c->con, 0, "none", NULL, &c->b.err), 0);
	assert_int_equal(virtio_console_open(&c->con, 1, where, "port.1", &c->b.err), 0);
	board_start(&c->b, &c->con.dev);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(sa.sun_path, c->path);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
}

static void con_free(struct con *c)
{
	close(c->fd);
	board_stop(&c->b);
	virtio_console_destroy(&c->con);
	board_free(&c->b);
	unlink(c->path);
}

static void con_control(struct con *c, u32 id, u16 event, u16 value)
{
	const struct virtio_console_control m = { id, event, value };
	u64 buf = ram_alloc(&c->b.ram, sizeof(m));
	const struct piece p = { buf, sizeof(m), false };

	memcpy(at(c->b.ram.bytes, buf), &m, sizeof(m));
	transfer(&c->b, 3, &p, 1);
}

/* The next message to the driver; text behind it, if any. */
static struct virtio_console_control con_message(struct con *c, char *text)
{
	struct virtio_console_control m;
	u64 buf = ram_alloc(&c->b.ram, 64);
	const struct piece p = { buf, 64, true };
	u32 len = transfer(&c->b, 2, &p, 1);

	assert_in_range(len, sizeof(m), 64);
	memcpy(&m, at(c->b.ram.bytes, buf), sizeof(m));
	memcpy(text, at(c->b.ram.bytes, buf + sizeof(m)), len - sizeof(m));
	text[len - sizeof(m)] = 0;
	return m;
}

static void assert_message(struct con *c, u32 id, u16 event, const char *text)
{
	char got[64];
	struct virtio_console_control m = con_message(c, got);

	assert_int_equal(m.id, id);
	assert_int_equal(m.event, event);
	assert_int_equal(m.value, 1);
	assert_string_equal(got, text);
}

static void con_handshake(struct con *c)
{
	con_control(c, ~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	assert_message(c, 0, VIRTIO_CONSOLE_PORT_ADD, "");
	assert_message(c, 1, VIRTIO_CONSOLE_PORT_ADD, "");
	con_control(c, 0, VIRTIO_CONSOLE_PORT_READY, 1);
	con_control(c, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	assert_message(c, 0, VIRTIO_CONSOLE_CONSOLE_PORT, "");
	assert_message(c, 0, VIRTIO_CONSOLE_PORT_OPEN, "");
	assert_message(c, 1, VIRTIO_CONSOLE_PORT_NAME, "port.1");
	assert_message(c, 1, VIRTIO_CONSOLE_PORT_OPEN, "");
	con_control(c, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* What is not a port, and no message. */
	con_control(c, 2, VIRTIO_CONSOLE_PORT_OPEN, 1);
	con_control(c, ~0u, 99, 1);
}

static void test_console(void **state)
{
	u8 data[5000], got[5000];

	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct con c;
		size_t n = 0;
		u64 buf;
		u16 id;

		con_init(&c);
		drive(&c.b, layouts[l] | BIT(VIRTIO_CONSOLE_F_MULTIPORT), 6);
		con_handshake(&c);
		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = i * 7 + l;
		buf = ram_alloc(&c.b.ram, sizeof(data));
		memcpy(at(c.b.ram.bytes, buf), data, sizeof(data));
		/* Out, in two pieces. */
		const struct piece p[] = { { buf, 3000, false }, { buf + 3000, 2000, false } };

		transfer(&c.b, 5, p, 2);
		while (n < sizeof(got)) {
			ssize_t r = read(c.fd, got + n, sizeof(got) - n);

			assert_true(r > 0);
			n += r;
		}
		assert_memory_equal(data, got, sizeof(data));
		/* In, into buffers of 100 bytes, some of them given later. */
		assert_int_equal(write(c.fd, data, 1000), 1000);
		for (n = 0; n < 1000;) {
			const struct piece r = { buf, 100, true };
			u32 len = transfer(&c.b, 4, &r, 1);

			assert_in_range(len, 1, 100);
			assert_memory_equal(at(c.b.ram.bytes, buf), data + n, len);
			n += len;
		}
		check_round_trip(&virtio_console_device_ops, &c.con);
		(void)id;
		con_free(&c);
	}
}

/* ---- net ------------------------------------------------------------------------------------- */

#define NET_COMMON (BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX))

struct nic {
	struct board b;
	struct virtio_net net;
	char path[40];
	int fd;		/* the wire's other end: frames behind their length */
};

static void nic_init(struct nic *n)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct nic_options o = { .kind = NET_SOCKET, .socket = n->path,
				 .mac = { 0x52, 0x54, 0, 1, 2, 3 } };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memset(n, 0, sizeof(*n));
	snprintf(n->path, sizeof(n->path), "/tmp/qumra-net-%d", getpid());
	unlink(n->path);
	strcpy(sa.sun_path, n->path);
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(listener, 1), 0);
	board_init(&n->b);
	assert_int_equal(virtio_net_init(&n->net, &o, 2, &n->b.ram.mem, &n->b.io, &n->b.err), 0);
	n->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	assert_true(n->fd >= 0);
	close(listener);
	board_start(&n->b, &n->net.dev);
}

static void nic_free(struct nic *n)
{
	close(n->fd);
	board_stop(&n->b);
	virtio_net_destroy(&n->net);
	board_free(&n->b);
	unlink(n->path);
}

static void wire_read(struct nic *n, u8 *data, size_t len)
{
	while (len) {
		ssize_t r = read(n->fd, data, len);

		assert_true(r > 0);
		data += r;
		len -= r;
	}
}

static void wire_send(struct nic *n, const u8 *frame, u32 len)
{
	u8 head[4] = { len >> 24, len >> 16, len >> 8, len };

	assert_int_equal(write(n->fd, head, 4), 4);
	assert_int_equal(write(n->fd, frame, len), len);
}

static u8 nic_command(struct nic *n, unsigned queue, u8 class, u8 cmd, const void *data, u32 len)
{
	u64 buf = ram_alloc(&n->b.ram, 2 + len), ack = ram_alloc(&n->b.ram, 1);
	const struct piece p[] = { { buf, 2 + len, false }, { ack, 1, true } };
	u8 *b = at(n->b.ram.bytes, buf);

	b[0] = class;
	b[1] = cmd;
	memcpy(b + 2, data, len);
	*(u8 *)at(n->b.ram.bytes, ack) = 0xEE;
	transfer(&n->b, queue, p, 2);
	return *(u8 *)at(n->b.ram.bytes, ack);
}

static void make_frame(u8 *f, u32 len, u8 seed)
{
	static const u8 dst[6] = { 0x52, 0x54, 0, 1, 2, 3 };

	for (u32 i = 0; i < len; i++)
		f[i] = i * 13 + seed;
	memcpy(f, dst, 6);
}

static void test_net_transmit(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		u8 frame[2000], got[2004];
		struct nic n;
		u64 buf;

		nic_init(&n);
		drive(&n.b, layouts[l] | NET_COMMON | BIT(VIRTIO_NET_F_CSUM), 3);
		buf = ram_alloc(&n.b.ram, 4096);
		for (u32 len = 14; len < 2000; len += 97) {
			struct virtio_net_hdr_v1 h = { 0 };
			const struct piece p[] = { { buf, 12, false }, { buf + 12, len, false } };

			make_frame(frame, len, len);
			memcpy(at(n.b.ram.bytes, buf), &h, 12);
			memcpy(at(n.b.ram.bytes, buf + 12), frame, len);
			transfer(&n.b, 1, p, 2);
			wire_read(&n, got, 4 + len);
			assert_int_equal(got[2] << 8 | got[3], len);
			assert_memory_equal(got + 4, frame, len);
		}
		/* A checksum for us to fill in: the field holds 0, the words sum to 0x0102 + 0x0304. */
		struct virtio_net_hdr_v1 h = { .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 14,
					       .csum_offset = 4 };
		const u8 payload[] = { 1, 2, 3, 4, 0, 0 };
		const struct piece p = { buf, 12 + 20, false };

		memcpy(at(n.b.ram.bytes, buf), &h, 12);
		memcpy(at(n.b.ram.bytes, buf + 26), payload, 6);
		transfer(&n.b, 1, &p, 1);
		wire_read(&n, got, 24);
		assert_int_equal(got[4 + 18] << 8 | got[4 + 19], 0xFFFF - 0x0406);
		/* One that lies outside the frame: dropped, and the next frame comes. */
		h.csum_start = 0xFFFF;
		memcpy(at(n.b.ram.bytes, buf), &h, 12);
		transfer(&n.b, 1, &p, 1);
		h.flags = 0;
		memcpy(at(n.b.ram.bytes, buf), &h, 12);
		transfer(&n.b, 1, &p, 1);
		wire_read(&n, got, 24);
		nic_free(&n);
	}
}

static void test_net_receive(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++)
		for (int merge = 0; merge < 2; merge++) {
			u8 frame[3000];
			struct nic n;
			u64 buf[QUEUE_SIZE];
			u64 of[QUEUE_SIZE];
			u16 id, buffers;

			nic_init(&n);
			drive(&n.b, layouts[l] | NET_COMMON |
				(merge ? BIT(VIRTIO_NET_F_MRG_RXBUF) : 0), 3);
			/* Some of the frames wait for buffers. */
			for (u32 len = 60; len < 3000; len += 490) {
				make_frame(frame, len, len);
				wire_send(&n, frame, len);
			}
			for (u32 i = 0; i < QUEUE_SIZE; i++)
				buf[i] = ram_alloc(&n.b.ram, 4096);
			u32 size = merge ? 512 : 4096, seen = 0, len, at_ = 0, total;
			unsigned free_ = QUEUE_SIZE;

			for (u32 want = 60; want < 3000; want += 490) {
				while (free_) {
					const struct piece p = { buf[--free_], size, true };
					int got = driver_submit(&n.b.q[0], &p, 1, 0);

					assert_true(got >= 0);
					of[got] = buf[free_];
				}
				kick(&n.b, 0);
				len = wait_used(&n.b, 0, &id);
				memcpy(&buffers, at(n.b.ram.bytes, of[id] + 10), 2);
				total = 12 + want;
				assert_int_equal(buffers, merge ? (total + 511) / 512 : 1);
				make_frame(frame, want, want);
				assert_memory_equal(at(n.b.ram.bytes, of[id] + 12), frame, len - 12);
				buf[free_++] = of[id];
				for (at_ = len - 12; --buffers; at_ += len) {
					/* All of a frame is there at once. */
					assert_true(driver_take(&n.b.q[0], &id, &len));
					assert_memory_equal(at(n.b.ram.bytes, of[id]), frame + at_, len);
					buf[free_++] = of[id];
				}
				assert_int_equal(at_, want);
				seen++;
			}
			assert_int_equal(seen, 6);
			nic_free(&n);
		}
}

static void test_net_control(void **state)
{
	static const u8 other[6] = { 0x52, 0x54, 0, 9, 9, 9 }, group[6] = { 1, 0, 0x5E, 0, 0, 1 };
	u8 table[4 + 6 + 4 + 6] = { 1 }, huge[8] = { 0xFF, 0xFF, 0xFF, 0xFF };
	struct nic n;
	u8 on = 1;
	u16 pairs;

	nic_init(&n);
	drive(&n.b, layouts[3] | NET_COMMON | BIT(VIRTIO_NET_F_MQ) |
		BIT(VIRTIO_NET_F_CTRL_MAC_ADDR), 5);
	assert_false(net_control_accepts(&n.net, other));
	assert_false(net_control_accepts(&n.net, group));
	memcpy(table + 4, other, 6);
	table[10] = 1;
	memcpy(table + 14, group, 6);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MAC, 0, table, sizeof(table)), 0);
	assert_true(net_control_accepts(&n.net, other) && net_control_accepts(&n.net, group));
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MAC, 0, huge, sizeof(huge)), 1);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MAC, 0, table, 3), 1);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MAC, 1, group, 6), 0);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_RX, 0, &on, 1), 0);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_RX, 77, &on, 1), 1);
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_RX, 0, &on, 0), 1);
	assert_int_equal(nic_command(&n, 4, 99, 0, &on, 1), 1);
	pairs = 2;
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), 0);
	assert_int_equal(n.net.control.pairs, 2);
	pairs = 3;
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), 1);
	pairs = 0;
	assert_int_equal(nic_command(&n, 4, VIRTIO_NET_CTRL_MQ, 0, &pairs, 2), 1);
	/* The filter is state of its own. */
	struct device dev = { &virtio_net_device_ops, &n.net };
	static u8 saved[2][4096];
	long len = device_save(&dev, saved[0], sizeof(saved[0]));

	assert_true(len > 0);
	out(&n.b, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(n.net.control.pairs, 1);
	assert_int_equal(device_load(&dev, saved[0], len), len);
	assert_int_equal(n.net.control.pairs, 2);
	assert_int_equal(device_save(&dev, saved[1], sizeof(saved[1])), len);
	assert_memory_equal(saved[0], saved[1], len);
	nic_free(&n);
}

static u32 told_offloads;

static void remember_offloads(struct net_backend *b, u32 can)
{
	told_offloads = can;
}

/* What the driver set stays set, over a saved state, and is over when it resets the device. */
static void test_net_offloads(void **state)
{
	const u64 features = BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
			     BIT(VIRTIO_NET_F_GUEST_TSO6);
	struct net_backend_ops ops;
	struct nic n;
	u64 only = BIT(VIRTIO_NET_F_GUEST_CSUM), more = BIT(VIRTIO_NET_F_GUEST_UFO);

	nic_init(&n);
	ops = *n.net.backend->ops;
	ops.set_guest_offloads = remember_offloads;
	n.net.backend->ops = &ops;
	n.net.backend->brings = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6;
	n.net.dev.offered |= features | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	drive(&n.b, layouts[3] | NET_COMMON | features | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), 3);
	assert_int_equal(told_offloads, n.net.backend->brings);
	board_reload(&n.b, &virtio_net_device_ops, &n.net);
	assert_int_equal(told_offloads, n.net.backend->brings);
	assert_int_equal(nic_command(&n, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &more, 8), 1);
	assert_int_equal(nic_command(&n, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &only, 8), 0);
	assert_int_equal(told_offloads, NET_CAN_CSUM);
	board_reload(&n.b, &virtio_net_device_ops, &n.net);
	assert_int_equal(told_offloads, NET_CAN_CSUM);
	only = 0;
	assert_int_equal(nic_command(&n, 2, VIRTIO_NET_CTRL_GUEST_OFFLOADS, 0, &only, 8), 0);
	board_reload(&n.b, &virtio_net_device_ops, &n.net);
	assert_int_equal(told_offloads, 0);
	drive(&n.b, layouts[3] | NET_COMMON | features | BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS), 3);
	assert_int_equal(told_offloads, n.net.backend->brings);
	nic_free(&n);
}

/* Buffers that no frame fits into, and a transmit without a header. */
static void test_net_bad_drivers(void **state)
{
	u8 frame[100];
	struct nic n;

	nic_init(&n);
	for (int i = 0; i < 3; i++) {
		const struct piece small = { RAM_BASE + 0x10000, i ? 11 : 50, true };
		const struct piece head = { RAM_BASE + 0x10000, 11, false };

		drive(&n.b, layouts[i] | NET_COMMON | (i == 1 ? BIT(VIRTIO_NET_F_MRG_RXBUF) : 0), 3);
		driver_submit(&n.b.q[i == 2], i == 2 ? &head : &small, 1, 0);
		kick(&n.b, i == 2);
		make_frame(frame, 100, 0);
		if (i < 2)
			wire_send(&n, frame, 100);
		wait_needs_reset(&n.b);
	}
	nic_free(&n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers), cmocka_unit_test(test_bad_queue_setup),
		cmocka_unit_test(test_rng), cmocka_unit_test(test_blk),
		cmocka_unit_test(test_blk_ranges), cmocka_unit_test(test_blk_bad_requests),
		cmocka_unit_test(test_blk_readonly), cmocka_unit_test(test_blk_reset_in_work),
		cmocka_unit_test(test_blk_moves), cmocka_unit_test(test_bad_state), cmocka_unit_test(test_half_way),
		cmocka_unit_test(test_console), cmocka_unit_test(test_net_transmit),
		cmocka_unit_test(test_net_receive), cmocka_unit_test(test_net_control),
		cmocka_unit_test(test_net_bad_drivers), cmocka_unit_test(test_net_offloads),
	};

	return board_run_tests(tests, BOARD_ALL);
}
