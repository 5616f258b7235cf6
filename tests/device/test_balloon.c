/*
 * The balloon: pages really go back to the host and stay mapped, unused ones too; statistics; saved
 * state; drivers that name memory which is none.
 */
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/balloon.h"

#define STATS		BIT(VIRTIO_BALLOON_F_STATS_VQ)
#define REPORTING	BIT(VIRTIO_BALLOON_F_REPORTING)
#define POISON		BIT(VIRTIO_BALLOON_F_PAGE_POISON)
#define PAGE		4096

struct machine {
	struct board b;
	struct virtio_balloon balloon;
};

/* RAM of whole pages of its own, that the host can be asked about. */
static void machine_init(struct machine *m, const struct balloon_options *o)
{
	board_init(&m->b);
	free(m->b.ram.bytes);
	m->b.ram.bytes = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	m->b.ram.mem.region[0].host = m->b.ram.bytes;
	assert_int_equal(virtio_balloon_init(&m->balloon, o, &m->b.ram.mem, &m->b.io, &m->b.err), 0);
	board_start(&m->b, &m->balloon.dev);
}

static void machine_free(struct machine *m)
{
	board_stop(&m->b);
	virtio_balloon_destroy(&m->balloon);
	munmap(m->b.ram.bytes, RAM_SIZE);
	m->b.ram.bytes = NULL;
	board_free(&m->b);
}

static bool resident(struct machine *m, u64 gpa)
{
	unsigned char seen;

	assert_int_equal(mincore(at(m->b.ram.bytes, gpa), PAGE, &seen), 0);
	return seen & 1;
}

static u8 *touch(struct machine *m, u64 gpa, u8 value, u64 len)
{
	return memset(at(m->b.ram.bytes, gpa), value, len);
}

static void send_frames(struct machine *m, unsigned queue, const u32 *pfn, unsigned n)
{
	u64 top = m->b.ram.top, list = ram_alloc(&m->b.ram, 4 * n);
	const struct piece p = { list, 4 * n, false };

	memcpy(at(m->b.ram.bytes, list), pfn, 4 * n);
	assert_int_equal(transfer(&m->b, queue, &p, 1), 0);
	m->b.ram.top = top;
}

static void test_pages(void **state)
{
	const struct balloon_options o = { .taken = 64 * PAGE, .deflate_on_oom = true };

	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		u64 base = RAM_BASE + 0x200000;
		struct machine m;
		u32 pfn[600];
		u8 *bytes;

		machine_init(&m, &o);
		assert_true(offered(&m.b) & BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM));
		assert_false(offered(&m.b) & REPORTING);
		drive(&m.b, layouts[l] | STATS, 3);
		assert_int_equal(in(&m.b, VIRTIO_MMIO_CONFIG), 64);
		bytes = touch(&m, base, 0x5A, 300 * PAGE);
		/* Every second page up, then down; some as neighbours. */
		for (int i = 0; i < 50; i++) {
			pfn[i] = (base >> 12) + 2 * i;
			pfn[50 + i] = (base >> 12) + 298 - 2 * i;
			pfn[100 + i] = (base >> 12) + 150 - i;
		}
		send_frames(&m, 0, pfn, 150);
		for (u32 i = 0; i < 300; i++) {
			bool gone = false;

			for (int k = 0; k < 150; k++)
				gone |= pfn[k] == (base >> 12) + i;
			assert_int_equal(resident(&m, base + i * PAGE), !gone);
		}
		/* They are still there to be used. */
		assert_int_equal(bytes[0], 0);
		assert_int_equal(bytes[PAGE], 0x5A);
		bytes[2 * PAGE] = 7;
		send_frames(&m, 1, pfn, 150);
		assert_int_equal(bytes[2 * PAGE], 7);
		out(&m.b, VIRTIO_MMIO_CONFIG + 4, 61);
		assert_int_equal(m.balloon.actual, 61);
		machine_free(&m);
	}
}

static void test_target(void **state)
{
	const struct balloon_options o = { 0 };
	struct machine m;
	u32 generation;

	machine_init(&m, &o);
	drive(&m.b, layouts[3] | STATS, 3);
	generation = in(&m.b, VIRTIO_MMIO_CONFIG_GENERATION);
	virtio_lock(&m.balloon.dev);
	virtio_balloon_set(&m.balloon, 77 * PAGE);
	virtio_unlock(&m.balloon.dev);
	assert_true(wait_interrupt(&m.b) & VIRTIO_MMIO_INT_CONFIG);
	assert_int_not_equal(in(&m.b, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	assert_int_equal(in(&m.b, VIRTIO_MMIO_CONFIG), 77);
	out(&m.b, VIRTIO_MMIO_CONFIG, 5);	/* not the driver's */
	assert_int_equal(in(&m.b, VIRTIO_MMIO_CONFIG), 77);
	machine_free(&m);
}

static void report(struct machine *m, unsigned queue, u64 gpa, u32 len)
{
	const struct piece p = { gpa, len, true };

	assert_int_equal(transfer(&m->b, queue, &p, 1), 0);
}

static void test_reporting(void **state)
{
	const struct balloon_options o = { .reporting = true };
	u64 base = RAM_BASE + 0x200000;

	for (int stats = 0; stats < 2; stats++) {
		unsigned queue = 2 + stats;
		struct machine m;

		machine_init(&m, &o);
		drive(&m.b, layouts[3] | REPORTING | POISON | (stats ? STATS : 0), queue + 1);
		touch(&m, base, 1, 16 * PAGE);
		report(&m, queue, base + 4 * PAGE, 8 * PAGE);
		for (int i = 0; i < 16; i++)
			assert_int_equal(resident(&m, base + i * PAGE), i < 4 || i >= 12);
		assert_int_equal(m.balloon.reported, 8 * PAGE);
		/* What is not whole pages stays. */
		touch(&m, base, 1, 16 * PAGE);
		report(&m, queue, base + 100, 2 * PAGE);
		assert_true(resident(&m, base) && !resident(&m, base + PAGE) && resident(&m, base + 2 * PAGE));
		assert_int_equal(*(u8 *)at(m.b.ram.bytes, base + 99), 1);
		/* A driver whose free pages have a pattern keeps them. */
		out(&m.b, VIRTIO_MMIO_CONFIG + 12, 0xAAAAAAAA);
		touch(&m, base, 0xAA, PAGE);
		report(&m, queue, base, PAGE);
		assert_true(resident(&m, base));
		machine_free(&m);
	}
}

static void put_stat(struct machine *m, u64 buf, unsigned i, u16 tag, u64 value)
{
	const struct virtio_balloon_stat s = { tag, value };

	memcpy(at(m->b.ram.bytes, buf + i * sizeof(s)), &s, sizeof(s));
}

static u64 stat_of(struct machine *m, unsigned tag)
{
	u64 value;

	virtio_lock(&m->balloon.dev);
	value = m->balloon.stat[tag];
	virtio_unlock(&m->balloon.dev);
	return value;
}

/* The buffer waits in the queue, over a saved state too, and comes back when new ones are wanted. */
static void test_statistics(void **state)
{
	const struct balloon_options o = { .stats = 1 };
	struct machine m;
	u64 buf;
	u16 id;

	machine_init(&m, &o);
	drive(&m.b, layouts[1] | STATS, 3);
	buf = ram_alloc(&m.b.ram, 64);
	for (u64 round = 1; round < 3; round++) {
		const struct piece p = { buf, 30, false };

		put_stat(&m, buf, 0, VIRTIO_BALLOON_S_MEMFREE, 1000 * round);
		put_stat(&m, buf, 1, 99, 5);	/* not known yet */
		put_stat(&m, buf, 2, VIRTIO_BALLOON_S_MEMTOT, 2000 * round);
		driver_submit(&m.b.q[2], &p, 1, 0);
		kick(&m.b, 2);
		if (round == 2)
			board_reload(&m.b, &virtio_balloon_device_ops, &m.balloon);
		wait_used(&m.b, 2, &id);
		assert_int_equal(stat_of(&m, VIRTIO_BALLOON_S_MEMFREE), 1000 * round);
		assert_int_equal(stat_of(&m, VIRTIO_BALLOON_S_MEMTOT), 2000 * round);
		assert_int_equal(stat_of(&m, VIRTIO_BALLOON_S_CACHES), BALLOON_UNKNOWN);
	}
	assert_string_equal(virtio_balloon_stat_name(VIRTIO_BALLOON_S_MEMFREE), "free");
	assert_null(virtio_balloon_stat_name(BALLOON_STATS));
	machine_free(&m);
}

/* Its own state as a board's, in mid-work. */
static void test_moves(void **state)
{
	const struct balloon_options o = { .taken = 8 * PAGE, .reporting = true };
	u64 base = RAM_BASE + 0x200000;
	struct machine m;
	u32 pfn = base >> 12;
	u16 id;

	machine_init(&m, &o);
	drive(&m.b, layouts[3] | STATS | REPORTING, 4);
	out(&m.b, VIRTIO_MMIO_CONFIG + 4, 3);
	for (int i = 0; i < 20; i++) {
		u64 list = ram_alloc(&m.b.ram, 4);
		const struct piece p = { list, 4, false }, r = { base + 2 * PAGE, PAGE, true };

		memcpy(at(m.b.ram.bytes, list), &pfn, 4);
		touch(&m, base, 1, 4 * PAGE);
		driver_submit(&m.b.q[0], &p, 1, 0);
		driver_submit(&m.b.q[3], &r, 1, 0);
		kick(&m.b, 0);
		kick(&m.b, 3);
		board_reload(&m.b, &virtio_balloon_device_ops, &m.balloon);
		wait_used(&m.b, 0, &id);
		wait_used(&m.b, 3, &id);
		assert_true(!resident(&m, base) && resident(&m, base + PAGE) && !resident(&m, base + 2 * PAGE));
		assert_int_equal(in(&m.b, VIRTIO_MMIO_CONFIG + 4), 3);
	}
	check_round_trip(&virtio_balloon_device_ops, &m.balloon);
	check_bad_states(&virtio_balloon_device_ops, &m.balloon, 2);
	machine_free(&m);
}

static void test_bad_drivers(void **state)
{
	const struct { unsigned queue; u32 len; bool in; u32 pfn; } bad[] = {
		{ 0, 4, false, 0xFFFFFFFF }, { 0, 4, false, (RAM_BASE + RAM_SIZE) >> 12 },
		{ 0, 4, false, (RAM_BASE >> 12) - 1 }, { 0, 3, false, 0 }, { 0, 4, true, 0 },
		{ 0, 4 * 16385, false, RAM_BASE >> 12 }, { 1, 2, false, 0 }, { 1, 8, true, 0 },
		{ 2, 10, true, 0 }, { 3, 4096, false, 0 },
	};
	const struct balloon_options o = { .reporting = true };
	struct machine m;

	machine_init(&m, &o);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		u64 buf = RAM_BASE + 0x100000;
		const struct piece p = { buf, bad[i].len, bad[i].in };

		drive(&m.b, layouts[i & 3] | STATS | REPORTING, 4);
		memcpy(at(m.b.ram.bytes, buf), &bad[i].pfn, 4);
		driver_submit(&m.b.q[bad[i].queue], &p, 1, 0);
		kick(&m.b, bad[i].queue);
		wait_needs_reset(&m.b);
	}
	drive(&m.b, layouts[0] | STATS, 3);
	machine_free(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages), cmocka_unit_test(test_target),
		cmocka_unit_test(test_reporting), cmocka_unit_test(test_statistics),
		cmocka_unit_test(test_moves), cmocka_unit_test(test_bad_drivers),
	};

	return board_run_tests(tests, BOARD_ALL);
}
