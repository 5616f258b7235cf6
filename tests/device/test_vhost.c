/*
 * Devices whose queues another program serves: frames through a back end and back, in each layout, over
 * pauses, resets and saved states; configuration; and back ends that lie, stall or go away, at any
 * message: the device needs a reset, and nothing else happens.
 */
#include <dirent.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <stdlib.h>

#include "tests/device/vhost_back.h"
#include "tests/device/virtio_board.h"
#include "vmm/virtio/vhost.h"

#define PROTOCOL_MQ	BIT(0)
#define PROTOCOL_CONFIG	BIT(9)
#define F_PROTOCOL	BIT(30)
#define HEAD		12
#define FRAME		400

static const struct memory_backing shared = { .share = true };

struct side {
	struct board b;
	struct vu_back back;
	struct virtio_vhost v;
	struct guest_memory mem;
	u64 in, out;
	unsigned turn;
};

static struct side *side_new(void)
{
	struct side *s = calloc(1, sizeof(*s));
	struct guest_ram *r = &s->b.ram;

	board_init(&s->b);
	free(r->bytes);
	assert_int_equal(guest_memory_create(&s->mem, RAM_BASE + RAM_SIZE, &shared, &s->b.err), 0);
	r->bytes = guest_memory_at(&s->mem, RAM_BASE, RAM_SIZE);
	assert_non_null(r->bytes);
	r->mem = s->mem;
	s->back.features = VERSION_1 | PACKED | EVENT_IDX | INDIRECT | F_PROTOCOL |
			   BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM);
	return s;
}

static int side_open_as(struct side *s, const struct vhost_options *o)
{
	struct vhost_options with = *o;

	vu_begin(&s->back);
	with.socket = s->back.path;
	return virtio_vhost_init(&s->v, &with, &s->b.ram.mem, &s->b.io, &s->b.err);
}

static int side_open(struct side *s)
{
	const struct nic_options nic = { .mac = { 2, 0, 0, 1, 2, 3 } };
	struct vhost_options o;

	vhost_options_nic(&o, &nic);
	return side_open_as(s, &o);
}

static struct side *side_start(void)
{
	struct side *s = side_new();

	assert_int_equal(side_open(s), 0);
	board_start(&s->b, &s->v.dev);
	return s;
}

/* Of one that has never been started, too. */
static void side_free(struct side *s)
{
	if (s->b.dev)
		board_stop(&s->b);
	virtio_vhost_destroy(&s->v);
	vu_end(&s->back);
	s->b.ram.bytes = NULL;
	board_free(&s->b);
	guest_memory_destroy(&s->mem);
	free(s);
}

static void side_drive(struct side *s, u64 features)
{
	drive(&s->b, features, 2);
	s->in = ram_alloc(&s->b.ram, HEAD + FRAME);
	s->out = ram_alloc(&s->b.ram, HEAD + FRAME);
}

/* A frame out, and the same one in. */
static void echo(struct side *s)
{
	const struct piece rx[] = { { s->in, HEAD + FRAME, true } };
	const struct piece tx[] = { { s->out, HEAD + FRAME, false } };
	u8 *out = at(s->b.ram.bytes, s->out);
	u16 id;

	memset(out, ++s->turn, HEAD + FRAME);
	assert_true(driver_submit(&s->b.q[0], rx, 1, 0) >= 0);
	assert_true(driver_submit(&s->b.q[1], tx, 1, 0) >= 0);
	kick(&s->b, 0);
	kick(&s->b, 1);
	assert_int_equal(wait_used(&s->b, 1, &id), 0);
	assert_int_equal(wait_used(&s->b, 0, &id), HEAD + FRAME);
	assert_memory_equal(at(s->b.ram.bytes, s->in), out, HEAD + FRAME);
}

/* ---- what works ------------------------------------------------------------------------------- */

static void test_frames(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct side *s = side_start();

		assert_int_equal(offered(&s->b), (s->back.features & ~F_PROTOCOL) |
			BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS));
		side_drive(s, layouts[i]);
		/* More than once around the ring. */
		for (int k = 0; k < 40; k++)
			echo(s);
		assert_int_equal(s->back.agreed, layouts[i] | F_PROTOCOL);
		side_free(s);
	}
}

/* The queues come back to us with their positions, and go there again. */
static void test_verbs(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(layouts); i++) {
		struct side *s = side_start();

		side_drive(s, layouts[i]);
		for (int k = 0; k < 25; k++)
			echo(s);
		virtio_device_ops.pause(&s->v.dev);
		assert_int_equal(s->back.seen[0], 0);
		virtio_device_ops.resume(&s->v.dev);
		echo(s);
		board_reload(&s->b, &virtio_vhost_device_ops, &s->v);
		for (int k = 0; k < 25; k++)
			echo(s);
		/* A driver that starts over. */
		side_drive(s, layouts[ARRAY_SIZE(layouts) - 1 - i]);
		for (int k = 0; k < 20; k++)
			echo(s);
		virtio_device_ops.pause(&s->v.dev);
		check_bad_states(&virtio_vhost_device_ops, &s->v, 64);
		side_free(s);
	}
}

/* What is put into a queue while the device is paused is found afterwards. */
static void test_kick_in_pause(void **state)
{
	struct side *s = side_start();
	const struct piece rx[] = { { 0, HEAD + FRAME, true } }, tx[] = { { 0, HEAD + FRAME, false } };
	struct piece in = rx[0], out = tx[0];
	u16 id;

	side_drive(s, VERSION_1);
	virtio_device_ops.pause(&s->v.dev);
	in.addr = s->in;
	out.addr = s->out;
	driver_submit(&s->b.q[0], &in, 1, 0);
	driver_submit(&s->b.q[1], &out, 1, 0);
	kick(&s->b, 0);
	kick(&s->b, 1);
	virtio_device_ops.resume(&s->v.dev);
	assert_int_equal(wait_used(&s->b, 0, &id), HEAD + FRAME);
	side_free(s);
}

/* A back end that knows neither protocol features nor new rings. */
static void test_plain(void **state)
{
	struct side *s = side_new();

	s->back.features = VERSION_1;
	for (int i = 0; i < 2; i++)
		s->back.ring[i].enabled = true;
	assert_int_equal(side_open(s), 0);
	board_start(&s->b, &s->v.dev);
	side_drive(s, ~0ULL);
	assert_int_equal(s->b.features, VERSION_1 | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS));
	for (int k = 0; k < 20; k++)
		echo(s);
	assert_int_equal(s->back.agreed, VERSION_1);
	side_free(s);
}

static void test_mac(void **state)
{
	struct side *s = side_start();
	u32 low = in(&s->b, VIRTIO_MMIO_CONFIG), high = in(&s->b, VIRTIO_MMIO_CONFIG + 4);

	assert_int_equal(low, 0x01000002);
	assert_int_equal(high, VIRTIO_NET_S_LINK_UP << 16 | 0x0302);
	assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG + 12), 0);
	side_free(s);
}

static struct side *disk_new(unsigned queues)
{
	struct side *s = side_new();
	struct virtio_blk_config c = { .capacity = 0x123456789AULL, .num_queues = queues };

	s->back.features = VERSION_1 | F_PROTOCOL | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_FLUSH) |
			   BIT(VIRTIO_BLK_F_CONFIG_WCE);
	s->back.protocol = PROTOCOL_MQ | PROTOCOL_CONFIG;
	s->back.queues = queues;
	memcpy(s->back.config, &c, sizeof(c));
	return s;
}

static int disk_open(struct side *s, unsigned queues)
{
	const struct disk_options disk = { .queues = queues };
	struct vhost_options o;

	vhost_options_disk(&o, &disk, queues);
	return side_open_as(s, &o);
}

static void test_configuration(void **state)
{
	static const struct { unsigned has, wants, gets; } row[] = {
		{ 1, 4, 1 }, { 4, 2, 2 }, { 4, 4, 4 }, { 16, 16, 16 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct side *s = disk_new(row[i].has);

		assert_int_equal(disk_open(s, row[i].wants), 0);
		board_start(&s->b, &s->v.dev);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG), 0x3456789A);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG + 4), 0x12);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG + 32) >> 16, row[i].gets);
		assert_int_equal(s->v.dev.queues, row[i].gets);
		assert_int_equal(offered(&s->b), VERSION_1 | BIT(VIRTIO_BLK_F_FLUSH) |
			(row[i].gets > 1 ? BIT(VIRTIO_BLK_F_MQ) : 0));
		assert_int_equal(s->back.config_asked, 60);
		side_free(s);
	}
}

/* What a file server remembers is not in the rings: it can be saved before a driver comes, only. */
static void test_obstacle(void **state)
{
	struct side *s = side_new();
	const struct share_options share = { .tag = "tag", .fs = true };
	const struct device dev = { &virtio_vhost_device_ops, &s->v };
	struct vhost_options o;
	u8 saved[1024];
	long n;

	vhost_options_share(&o, &share);
	assert_int_equal(side_open_as(s, &o), 0);
	board_start(&s->b, &s->v.dev);
	n = device_save(&dev, saved, sizeof(saved));
	assert_true(n > 0);
	assert_int_equal(device_load(&dev, saved, n), n);
	assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG), 0x00676174);	/* "tag" */
	assert_int_equal(in(&s->b, VIRTIO_MMIO_CONFIG + 36), 1);
	side_drive(s, VERSION_1);
	assert_int_equal(device_save(&dev, saved, sizeof(saved)), -EOPNOTSUPP);
	assert_non_null(strstr(virtio_vhost_device_ops.obstacle(&s->v),
		"vhost-user device is in use whose back end cannot save"));
	out(&s->b, VIRTIO_MMIO_STATUS, 0);
	assert_null(virtio_vhost_device_ops.obstacle(&s->v));
	assert_true(device_save(&dev, saved, sizeof(saved)) > 0);
	side_free(s);
}

/* The descriptor and the offset lead to the same bytes, and the file keeps its size. */
static void test_memory(void **state)
{
	struct guest_memory mem, private;
	struct error err = ERROR_INIT;
	u64 offset;
	u32 word;

	assert_int_equal(guest_memory_create(&mem, 3ULL << 30, &shared, &err), 0);
	assert_int_equal(mem.count, 3);
	for (unsigned i = 0; i < mem.count; i++) {
		int fd = guest_memory_file(&mem, mem.region[i].host + 4096, &offset);

		word = 0x600D0000 + i;
		memcpy(mem.region[i].host + 4096, &word, 4);
		assert_true(fd >= 0);
		assert_int_equal(pread(fd, &word, 4, offset), 4);
		assert_int_equal(word, 0x600D0000 + i);
		assert_int_equal(ftruncate(fd, 0), -1);
		guest_memory_discard(mem.region[i].host + 4096, 4096);
		assert_int_equal(mem.region[i].host[4096], 0);
	}
	guest_memory_destroy(&mem);
	assert_int_equal(guest_memory_create(&private, 64 << 20, NULL, &err), 0);
	assert_int_equal(guest_memory_file(&private, private.region[0].host, &offset), -1);
	guest_memory_destroy(&private);
}

/* ---- what does not ---------------------------------------------------------------------------- */

static unsigned descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* At each question of the opening. */
static void test_lies_at_open(void **state)
{
	static const u32 question[] = { VU_GET_FEATURES, VU_GET_PROTOCOL, VU_GET_QUEUE_NUM, VU_GET_CONFIG };
	static const struct { enum vu_trick trick; u32 value; } lie[] = {
		{ VU_HANG_UP, 0 }, { VU_HALF, 0 }, { VU_SIZE, 0 }, { VU_SIZE, 7 },
		{ VU_SIZE, 0xFFFFFFFF }, { VU_REQUEST, 0 }, { VU_FLAGS, 1 }, { VU_FLAGS, 6 },
	};

	for (size_t q = 0; q < ARRAY_SIZE(question); q++) {
		for (size_t i = 0; i < ARRAY_SIZE(lie); i++) {
			struct side *s = disk_new(4);

			s->back.at = question[q];
			s->back.trick = lie[i].trick;
			s->back.value = lie[i].value;
			assert_int_equal(disk_open(s, 4), -EIO);
			assert_int_equal(s->b.err.kind, ERROR_FAILURE);
			assert_true(strlen(s->b.err.text) > 10);
			side_free(s);
		}
	}
}

static void test_refused(void **state)
{
	struct side *s = disk_new(0);	/* no queues */

	assert_int_equal(disk_open(s, 1), -EIO);
	side_free(s);
	s = disk_new(1);
	s->back.protocol = PROTOCOL_MQ;	/* no configuration */
	assert_int_equal(disk_open(s, 1), -EIO);
	side_free(s);
	s = disk_new(1);
	s->back.features &= ~VERSION_1;
	assert_int_equal(disk_open(s, 1), -EIO);
	side_free(s);
	s = side_new();
	s->back.protocol = PROTOCOL_MQ;
	s->back.queues = 1;		/* a network device has two */
	assert_int_equal(side_open(s), -EIO);
	side_free(s);
}

/* Descriptors that come with an answer are not ours to keep; numbers may be any. */
static void test_odd_answers(void **state)
{
	struct side *s = disk_new(1);
	unsigned before;

	s->back.queues = ~0ULL;
	assert_int_equal(disk_open(s, 16), 0);
	assert_int_equal(s->v.dev.queues, 16);
	side_free(s);
	before = descriptors();
	s = disk_new(1);
	s->back.at = VU_GET_FEATURES;
	s->back.trick = VU_FDS;
	assert_int_equal(disk_open(s, 1), 0);
	side_free(s);
	assert_int_equal(descriptors(), before);
}

/* The device is dead: it takes a reset, and says so again when it is driven. */
static void check_dead(struct side *s)
{
	wait_needs_reset(&s->b);
	for (int i = 0; i < 2; i++) {
		out(&s->b, VIRTIO_MMIO_STATUS, 0);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_STATUS), 0);
		agree(&s->b, VERSION_1);
		s->b.ram.top = RAM_BASE;
		for (unsigned q = 0; q < 2; q++)
			setup_queue(&s->b, q);
		out(&s->b, VIRTIO_MMIO_STATUS, ALL_STATUS);
		assert_int_equal(in(&s->b, VIRTIO_MMIO_STATUS),
			ALL_STATUS | VIRTIO_CONFIG_S_NEEDS_RESET);
	}
	virtio_device_ops.pause(&s->v.dev);
	virtio_device_ops.resume(&s->v.dev);
	board_reload(&s->b, &virtio_vhost_device_ops, &s->v);
	assert_true(in(&s->b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* The driver's part, with a back end that may go meanwhile. */
static void drive_lost(struct side *s)
{
	out(&s->b, VIRTIO_MMIO_STATUS, 0);
	agree(&s->b, VERSION_1);
	s->b.features = VERSION_1;
	s->b.ram.top = RAM_BASE;
	for (unsigned q = 0; q < 2; q++)
		setup_queue(&s->b, q);
	out(&s->b, VIRTIO_MMIO_STATUS, ALL_STATUS);
}

static void test_goes_away(void **state)
{
	static const u32 message[] = { VU_SET_FEATURES, VU_SET_MEM_TABLE, VU_SET_VRING_NUM,
		VU_SET_VRING_ADDR, VU_SET_VRING_KICK, VU_SET_VRING_CALL, VU_SET_VRING_ENABLE };
	static const enum vu_trick trick[] = { VU_HANG_UP, VU_UNASKED };

	for (size_t i = 0; i < ARRAY_SIZE(message); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(trick); k++) {
			struct side *s = side_start();

			s->back.trick = trick[k];
			s->back.at = message[i];
			drive_lost(s);
			check_dead(s);
			side_free(s);
		}
	}
}

/* In the middle of work, by an eventfd that says so. */
static void test_broken_ring(void **state)
{
	struct side *s = side_new();

	s->back.trick = VU_ERROR;
	s->back.at = VU_SET_VRING_ENABLE;
	s->back.nth = 1;
	assert_int_equal(side_open(s), 0);
	board_start(&s->b, &s->v.dev);
	drive_lost(s);
	check_dead(s);
	side_free(s);
}

/* When it is to give queues back. */
static void test_lies_at_stop(void **state)
{
	static const struct { enum vu_trick trick; u32 nth, value; u64 features; } lie[] = {
		{ VU_HANG_UP, 0, 0, VERSION_1 }, { VU_HALF, 1, 0, VERSION_1 },
		{ VU_SIZE, 0, 4, VERSION_1 }, { VU_REQUEST, 1, 0, VERSION_1 },
		{ VU_FLAGS, 0, 0, VERSION_1 }, { VU_VALUE, 0, 0x10000, VERSION_1 },
		{ VU_VALUE, 1, 0x7FFF7FFF, VERSION_1 | PACKED },
		{ VU_VALUE, 1, 0x80018002, VERSION_1 | PACKED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(lie); i++) {
		struct side *s = side_new();

		s->back.trick = lie[i].trick;
		s->back.at = VU_GET_VRING_BASE;
		s->back.nth = lie[i].nth;
		s->back.value = lie[i].value;
		assert_int_equal(side_open(s), 0);
		board_start(&s->b, &s->v.dev);
		side_drive(s, lie[i].features);
		echo(s);
		virtio_device_ops.pause(&s->v.dev);
		assert_true(in(&s->b, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
		virtio_device_ops.resume(&s->v.dev);
		check_dead(s);
		side_free(s);
	}
}

/* The kernel's, on a machine that has none. */
static void test_no_node(void **state)
{
	const struct nic_options nic = { .kind = NET_TAP, .tap = "tap0", .vhost = "on" };
	const struct vsock_options vsock = { .cid = 42 };
	struct vhost_options o[2];

	vhost_options_nic(&o[0], &nic);
	vhost_options_vsock(&o[1], &vsock);
	for (int i = 0; i < 2; i++) {
		const char *node = i ? "/dev/vhost-vsock" : "/dev/vhost-net";
		struct side *s;

		if (access(node, F_OK) == 0)
			continue;
		s = side_new();
		assert_int_equal(-ENOENT,
			virtio_vhost_init(&s->v, &o[i], &s->b.ram.mem, &s->b.io, &s->b.err));
		assert_non_null(strstr(s->b.err.text, node));
		assert_null(strchr(s->b.err.text, '\n'));
		virtio_vhost_destroy(&s->v);
		s->b.ram.bytes = NULL;
		board_free(&s->b);
		guest_memory_destroy(&s->mem);
		free(s);
	}
}

/* A back end that says nothing more is not waited for for ever. */
static void test_silent(void **state)
{
	struct side *s = side_new();

	s->back.trick = VU_SILENT;
	s->back.at = VU_GET_VRING_BASE;
	assert_int_equal(side_open(s), 0);
	board_start(&s->b, &s->v.dev);
	side_drive(s, VERSION_1);
	out(&s->b, VIRTIO_MMIO_STATUS, 0);
	assert_int_equal(in(&s->b, VIRTIO_MMIO_STATUS), 0);
	drive_lost(s);
	check_dead(s);
	side_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames), cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_kick_in_pause), cmocka_unit_test(test_plain),
		cmocka_unit_test(test_mac), cmocka_unit_test(test_configuration),
		cmocka_unit_test(test_obstacle), cmocka_unit_test(test_memory),
		cmocka_unit_test(test_lies_at_open), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_odd_answers), cmocka_unit_test(test_goes_away),
		cmocka_unit_test(test_broken_ring), cmocka_unit_test(test_lies_at_stop),
		cmocka_unit_test(test_silent), cmocka_unit_test(test_no_node),
	};

	return board_run_tests(tests, BIT(BOARD_MMIO) | BIT(BOARD_PCI_MESSAGES));
}
