/* A machine of one virtio device behind virtio-mmio's registers, and the driver's side of it. */
#ifndef QUMRA_TESTS_DEVICE_VIRTIO_BOARD_H
#define QUMRA_TESTS_DEVICE_VIRTIO_BOARD_H

#include <linux/virtio_mmio.h>
#include <poll.h>
#include <unistd.h>

#include "tests/device/fixture.h"
#include "tests/device/virtio_driver.h"
#include "vmm/virtio/mmio.h"

#define QUEUE_SIZE	16
#define PACKED		BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX	BIT(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT	BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define VERSION_1	BIT(VIRTIO_F_VERSION_1)
#define ALL_STATUS	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* A machine of one device. */
struct board {
	struct guest_ram ram;
	struct io_thread io;
	struct virtio_mmio mmio;
	struct virtio_device *dev;
	struct driver_queue q[VIRTIO_QUEUES_MAX];
	u64 features;
	struct error err;
};

static inline u32 in(struct board *b, u32 reg)
{
	return virtio_mmio_io_ops.read(&b->mmio, reg, 4);
}

static inline void out(struct board *b, u32 reg, u32 value)
{
	virtio_mmio_io_ops.write(&b->mmio, reg, value, 4);
}

static inline void board_init(struct board *b)
{
	memset(b, 0, sizeof(*b));
	ram_init(&b->ram);
	assert_int_equal(io_thread_init(&b->io, &b->err), 0);
}

static inline void board_start(struct board *b, struct virtio_device *d)
{
	b->dev = d;
	assert_int_equal(virtio_mmio_init(&b->mmio, d, 0, NULL, NULL, &b->err), 0);
	assert_int_equal(io_thread_start(&b->io, &b->err), 0);
}

static inline void board_stop(struct board *b)
{
	io_thread_stop(&b->io);
	virtio_mmio_destroy(&b->mmio);
}

static inline void board_free(struct board *b)
{
	io_thread_destroy(&b->io);
	free(b->ram.bytes);
}

static inline u64 offered(struct board *b)
{
	u64 f;

	out(b, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	f = (u64)in(b, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	out(b, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return f | in(b, VIRTIO_MMIO_DEVICE_FEATURES);
}

static inline void agree(struct board *b, u64 features)
{
	out(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES, features);
	out(b, VIRTIO_MMIO_STATUS, ALL_STATUS & ~VIRTIO_CONFIG_S_DRIVER_OK);
}

static inline void setup_queue(struct board *b, unsigned i)
{
	struct driver_queue *q = &b->q[i];

	driver_init(q, &b->ram, QUEUE_SIZE, b->features & PACKED, b->features & EVENT_IDX);
	out(b, VIRTIO_MMIO_QUEUE_SEL, i);
	assert_int_equal(in(b, VIRTIO_MMIO_QUEUE_READY), 0);
	assert_true(in(b, VIRTIO_MMIO_QUEUE_NUM_MAX) >= 8);
	out(b, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
	out(b, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
	out(b, VIRTIO_MMIO_QUEUE_DESC_HIGH, q->desc >> 32);
	out(b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->driver);
	out(b, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, q->driver >> 32);
	out(b, VIRTIO_MMIO_QUEUE_USED_LOW, q->device);
	out(b, VIRTIO_MMIO_QUEUE_USED_HIGH, q->device >> 32);
	out(b, VIRTIO_MMIO_QUEUE_READY, 1);
	assert_int_equal(in(b, VIRTIO_MMIO_QUEUE_READY), 1);
}

/* 3.1.1 from beginning to end, with features of those that are offered. */
static inline void drive(struct board *b, u64 features, unsigned queues)
{
	out(b, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(in(b, VIRTIO_MMIO_STATUS), 0);
	out(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	out(b, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	b->features = features & offered(b);
	agree(b, b->features);
	assert_true(in(b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_FEATURES_OK);
	b->ram.top = RAM_BASE;
	for (unsigned i = 0; i < queues; i++)
		setup_queue(b, i);
	out(b, VIRTIO_MMIO_STATUS, ALL_STATUS);
	assert_int_equal(in(b, VIRTIO_MMIO_STATUS), ALL_STATUS);
}

static inline void kick(struct board *b, unsigned queue)
{
	if (driver_needs_kick(&b->q[queue]))
		out(b, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

/* Until the device interrupts; the status of it, acknowledged. */
static inline u32 wait_interrupt(struct board *b)
{
	struct pollfd p = { .fd = b->mmio.irq_fd, .events = POLLIN };
	u64 count;
	u32 status;

	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(read(b->mmio.irq_fd, &count, 8), 8);
	status = in(b, VIRTIO_MMIO_INTERRUPT_STATUS);
	out(b, VIRTIO_MMIO_INTERRUPT_ACK, status);
	return status;
}

/* Until a buffer comes back; its length. */
static inline u32 wait_used(struct board *b, unsigned queue, u16 *id)
{
	u32 len;

	while (!driver_take(&b->q[queue], id, &len)) {
		driver_interrupts(&b->q[queue], true);
		if (driver_take(&b->q[queue], id, &len))
			break;
		wait_interrupt(b);
	}
	return len;
}

static inline u32 transfer(struct board *b, unsigned queue, const struct piece *p, unsigned n)
{
	u64 table = b->features & INDIRECT && n > 1 ? ram_alloc(&b->ram, 16 * n) : 0;
	u16 id;

	assert_true(driver_submit(&b->q[queue], p, n, table) >= 0);
	kick(b, queue);
	return wait_used(b, queue, &id);
}

/* Until the device says that it needs a reset. */
static inline void wait_needs_reset(struct board *b)
{
	while (!(in(b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET))
		wait_interrupt(b);
}

__attribute__((unused)) static const u64 layouts[] = {
	VERSION_1, VERSION_1 | EVENT_IDX | INDIRECT, VERSION_1 | PACKED,
	VERSION_1 | PACKED | EVENT_IDX | INDIRECT,
};

/*
 * Pauses, saves, resets and loads again what it is made of, as another machine with the same memory
 * would, and goes on. own may be NULL.
 */
static inline void board_reload(struct board *b, const struct device_ops *own, void *self)
{
	static u8 saved[3][16384];
	const struct device dev[] = {
		{ &virtio_mmio_device_ops, &b->mmio }, { &virtio_device_ops, b->dev }, { own, self } };
	long n[3] = { 0 };

	for (int i = 2; i >= 0; i--)
		if (dev[i].ops)
			dev[i].ops->pause(dev[i].self);
	for (int i = 0; i < 3; i++) {
		n[i] = dev[i].ops ? device_save(&dev[i], saved[i], sizeof(saved[i])) : 0;
		assert_true(n[i] > 0 || !dev[i].ops);
	}
	for (int i = 0; i < 3; i++)
		if (dev[i].ops)
			dev[i].ops->reset(dev[i].self);
	assert_int_equal(in(b, VIRTIO_MMIO_STATUS), 0);
	for (int i = 0; i < 3; i++)
		if (dev[i].ops)
			assert_int_equal(device_load(&dev[i], saved[i], n[i]), n[i]);
	for (int i = 0; i < 3; i++)
		if (dev[i].ops)
			dev[i].ops->resume(dev[i].self);
}

/* Any byte of a saved state may be anything: refused or taken, never a crash; the good one loads. */
static inline void check_bad_states(const struct device_ops *ops, void *self, unsigned at_least)
{
	static u8 saved[16384], bad[16384];
	const struct device dev = { ops, self };
	long n = device_save(&dev, saved, sizeof(saved));
	unsigned refused = 0;

	assert_true(n > 0);
	for (long i = 0; i < n; i++) {
		memcpy(bad, saved, n);
		bad[i] ^= 0x81;
		refused += device_load(&dev, bad, n) < 0;
		assert_true(device_load(&dev, bad, i) < 0);
	}
	assert_true(refused >= at_least);
	assert_int_equal(device_load(&dev, saved, n), n);
}

#endif
