/*
 * A machine of one virtio device and the driver's side of it. A test's groups run once for each
 * transport (board_run_tests()); registers have the names of virtio-mmio's.
 */
#ifndef QUMRA_TESTS_DEVICE_VIRTIO_BOARD_H
#define QUMRA_TESTS_DEVICE_VIRTIO_BOARD_H

#include <linux/virtio_mmio.h>
#include <poll.h>
#include <unistd.h>

#include "tests/device/board_pci.h"
#include "tests/device/virtio_driver.h"
#include "vmm/virtio/mmio.h"

#define QUEUE_SIZE	16
#define PACKED		BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX	BIT(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT	BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define VERSION_1	BIT(VIRTIO_F_VERSION_1)
#define ALL_STATUS	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
			 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)

/* What the next boards have. */
enum board_transport { BOARD_MMIO, BOARD_PCI_PIN, BOARD_PCI_MESSAGES, BOARD_TRANSPORTS };
__attribute__((unused)) static enum board_transport board_transport;

#define BOARD_ALL	(BIT(BOARD_TRANSPORTS) - 1)

/* tests: an array of struct CMUnitTest; those: a bit for each transport. How many failed. */
#define board_run_tests(tests, those)                                                             \
	({                                                                                        \
		static const char *const name[] = { "mmio", "pci, pin", "pci, messages" };        \
		int bad = 0;                                                                      \
                                                                                                  \
		for (board_transport = 0; board_transport < BOARD_TRANSPORTS; board_transport++)  \
			if ((those) & BIT(board_transport))                                       \
				bad += cmocka_run_group_tests_name(name[board_transport], tests,  \
					NULL, NULL);                                              \
		bad;                                                                              \
	})

/* A machine of one device. */
struct board {
	struct guest_ram ram;
	struct io_thread io;
	bool on_pci;
	struct virtio_mmio mmio;
	struct board_pci pci;
	struct virtio_device *dev;
	struct driver_queue q[VIRTIO_QUEUES_MAX];
	u64 features;
	struct error err;
};

/* A register of virtio-mmio in the PCI transport's BAR (4.1.4.3); its width, 0 where there is none. */
static inline unsigned board_register(u32 *reg)
{
	static const struct { u16 mmio, pci, width; } row[] = {
		{ VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_PCI_COMMON_DF, 4 },
		{ VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_PCI_COMMON_DFSELECT, 4 },
		{ VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_PCI_COMMON_GF, 4 },
		{ VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_PCI_COMMON_GFSELECT, 4 },
		{ VIRTIO_MMIO_QUEUE_SEL, VIRTIO_PCI_COMMON_Q_SELECT, 2 },
		{ VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_PCI_COMMON_Q_SIZE, 2 },
		{ VIRTIO_MMIO_QUEUE_NUM, VIRTIO_PCI_COMMON_Q_SIZE, 2 },
		{ VIRTIO_MMIO_QUEUE_READY, VIRTIO_PCI_COMMON_Q_ENABLE, 2 },
		{ VIRTIO_MMIO_STATUS, VIRTIO_PCI_COMMON_STATUS, 1 },
		{ VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_PCI_COMMON_CFGGENERATION, 1 },
		{ VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_PCI_COMMON_Q_DESCLO, 4 },
		{ VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_PCI_COMMON_Q_DESCHI, 4 },
		{ VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_PCI_COMMON_Q_AVAILLO, 4 },
		{ VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_PCI_COMMON_Q_AVAILHI, 4 },
		{ VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_PCI_COMMON_Q_USEDLO, 4 },
		{ VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_PCI_COMMON_Q_USEDHI, 4 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		if (row[i].mmio == *reg) {
			*reg = row[i].pci;
			return row[i].width;
		}
	return 0;
}

static inline u32 in(struct board *b, u32 reg)
{
	unsigned width = b->on_pci ? board_register(&reg) : 0;

	if (!b->on_pci)
		return virtio_mmio_io_ops.read(&b->mmio, reg, 4);
	if (reg >= VIRTIO_MMIO_CONFIG && !width)
		return board_pci_in(&b->pci, VIRTIO_PCI_DEVICE + reg - VIRTIO_MMIO_CONFIG, 4);
	assert_true(width);
	return board_pci_in(&b->pci, VIRTIO_PCI_COMMON + reg, width);
}

static inline void out(struct board *b, u32 reg, u32 value)
{
	unsigned width = b->on_pci ? board_register(&reg) : 0;

	if (!b->on_pci)
		virtio_mmio_io_ops.write(&b->mmio, reg, value, 4);
	else if (reg == VIRTIO_MMIO_QUEUE_NOTIFY)
		board_pci_out(&b->pci, VIRTIO_PCI_NOTIFY + 4 * value, value, 2);
	else if (width)
		board_pci_out(&b->pci, VIRTIO_PCI_COMMON + reg, value, width);
	else if (reg >= VIRTIO_MMIO_CONFIG)
		board_pci_out(&b->pci, VIRTIO_PCI_DEVICE + reg - VIRTIO_MMIO_CONFIG, value, 4);
	else
		fail();
}

/* Bytes of the configuration, one at a time. */
static inline u8 config_in(struct board *b, u32 offset)
{
	return b->on_pci ? board_pci_in(&b->pci, VIRTIO_PCI_DEVICE + offset, 1)
			 : virtio_mmio_io_ops.read(&b->mmio, VIRTIO_MMIO_CONFIG + offset, 1);
}

static inline void config_out(struct board *b, u32 offset, u8 value)
{
	if (b->on_pci)
		board_pci_out(&b->pci, VIRTIO_PCI_DEVICE + offset, value, 1);
	else
		virtio_mmio_io_ops.write(&b->mmio, VIRTIO_MMIO_CONFIG + offset, value, 1);
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
	b->on_pci = board_transport != BOARD_MMIO;
	if (b->on_pci)
		board_pci_start(&b->pci, d, NULL, board_transport == BOARD_PCI_MESSAGES, &b->err);
	else
		assert_int_equal(virtio_mmio_init(&b->mmio, d, 0, NULL, NULL, &b->err), 0);
	assert_int_equal(io_thread_start(&b->io, &b->err), 0);
}

static inline void board_stop(struct board *b)
{
	io_thread_stop(&b->io);
	if (b->on_pci)
		board_pci_stop(&b->pci);
	else
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

/* Each queue has its vector, the configuration the last one (4.1.5.1.2). */
static inline void board_set_vector(struct board *b, int queue)
{
	unsigned vector = queue == VIRTIO_CONFIG ? b->pci.t.pci.vectors - 1 : (unsigned)queue;
	unsigned reg = queue == VIRTIO_CONFIG ? VIRTIO_PCI_COMMON_MSIX : VIRTIO_PCI_COMMON_Q_MSIX;

	if (queue != VIRTIO_CONFIG)
		out(b, VIRTIO_MMIO_QUEUE_SEL, queue);
	if (!b->on_pci || !b->pci.msix)
		return;
	board_pci_out(&b->pci, VIRTIO_PCI_COMMON + reg, vector, 2);
	assert_int_equal(board_pci_in(&b->pci, VIRTIO_PCI_COMMON + reg, 2), vector);
}

static inline void agree(struct board *b, u64 features)
{
	out(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	out(b, VIRTIO_MMIO_DRIVER_FEATURES, features);
	out(b, VIRTIO_MMIO_STATUS, ALL_STATUS & ~VIRTIO_CONFIG_S_DRIVER_OK);
	board_set_vector(b, VIRTIO_CONFIG);
}

static inline void setup_queue(struct board *b, unsigned i)
{
	struct driver_queue *q = &b->q[i];

	driver_init(q, &b->ram, QUEUE_SIZE, b->features & PACKED, b->features & EVENT_IDX);
	board_set_vector(b, i);
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

	if (b->on_pci)
		return board_pci_wait(&b->pci);
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

/* What a machine has of the board, in the order of saving and loading. own may be NULL. */
struct board_state {
	struct device dev[4];
	unsigned n;
	u8 bytes[4][16384];
	long len[4];
	bool own;
};

static inline void board_state_init(struct board_state *s, struct board *b, const struct device_ops *own,
				    void *self)
{
	s->n = 0;
	if (b->on_pci) {
		s->dev[s->n++] = (struct device){ &pci_function_ops, &b->pci.t.pci };
		s->dev[s->n++] = (struct device){ &virtio_pci_device_ops, &b->pci.t };
	} else {
		s->dev[s->n++] = (struct device){ &virtio_mmio_device_ops, &b->mmio };
	}
	s->dev[s->n++] = (struct device){ &virtio_device_ops, b->dev };
	s->own = own;
	if (own)
		s->dev[s->n++] = (struct device){ own, self };
}

/* Pauses and saves. */
static inline void board_save(struct board_state *s)
{
	for (unsigned i = s->n; i-- > 0; )
		s->dev[i].ops->pause(s->dev[i].self);
	for (unsigned i = 0; i < s->n; i++) {
		s->len[i] = device_save(&s->dev[i], s->bytes[i], sizeof(s->bytes[i]));
		assert_true(s->len[i] > 0);
	}
}

/* Loads, and what is saved then is the same, but for the order of lists in the device's own part; goes on. */
static inline void board_load(struct board_state *s)
{
	static u8 again[16384];

	for (unsigned i = 0; i < s->n; i++)
		assert_int_equal(device_load(&s->dev[i], s->bytes[i], s->len[i]), s->len[i]);
	for (unsigned i = 0; i < s->n; i++) {
		assert_int_equal(device_save(&s->dev[i], again, sizeof(again)), s->len[i]);
		if (!s->own || i + 1 < s->n)
			assert_memory_equal(again, s->bytes[i], s->len[i]);
	}
	for (unsigned i = 0; i < s->n; i++)
		s->dev[i].ops->resume(s->dev[i].self);
}

/*
 * Pauses, saves, resets and loads again what it is made of, as another machine with the same memory
 * would, and goes on.
 */
static inline void board_reload(struct board *b, const struct device_ops *own, void *self)
{
	static struct board_state s;

	board_state_init(&s, b, own, self);
	board_save(&s);
	for (unsigned i = 0; i < s.n; i++)
		s.dev[i].ops->reset(s.dev[i].self);
	assert_int_equal(b->dev->status, 0);
	assert_int_equal(b->pci.joins, 0);
	board_load(&s);
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
