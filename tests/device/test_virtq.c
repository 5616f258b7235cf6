/* Virtqueues against a driver of the test's own: both layouts, all their features, and rings that no
 * driver should make. */
#include "tests/device/fixture.h"
#include "tests/device/virtio_driver.h"

struct pair {
	struct guest_ram ram;
	struct driver_queue drv;
	struct virtq dev;
	u8 flags;
};

static void pair_init(struct pair *p, u16 size, u8 flags)
{
	struct virtq_config config;

	memset(p, 0, sizeof(*p));
	ram_init(&p->ram);
	p->flags = flags;
	driver_init(&p->drv, &p->ram, size, flags & VIRTQ_F_PACKED, flags & VIRTQ_F_EVENT_IDX);
	config = driver_config(&p->drv);
	assert_int_equal(virtq_start(&p->dev, &p->ram.mem, &config, flags), 0);
}

static void pair_free(struct pair *p)
{
	free(p->ram.bytes);
}

static bool give_back(struct pair *p, const struct virtq_chain *c, u32 len)
{
	const struct virtq_used used = { c->id, c->slots, len };

	return virtq_push(&p->dev, &used, 1);
}

/* Every combination of features. */
static void each(void (*fn)(struct pair *p), u16 size)
{
	for (u8 flags = 0; flags < 8; flags++) {
		struct pair p;

		pair_init(&p, size, flags);
		fn(&p);
		pair_free(&p);
	}
}

/* ---- what goes right ------------------------------------------------------------------------- */

static void one_buffer(struct pair *p)
{
	struct virtq_chain c;
	u64 buf = ram_alloc(&p->ram, 300), table = ram_alloc(&p->ram, 64);
	const struct piece pieces[] = { { buf, 100, false }, { buf + 100, 0, false },
					{ buf + 100, 150, true }, { buf + 250, 50, true } };
	u16 id;
	u32 len;

	for (int i = 0; i < 50; i++) {
		bool indirect = p->flags & VIRTQ_F_INDIRECT && i & 1;
		int want = driver_submit(&p->drv, pieces, 4, indirect ? table : 0);

		assert_true(want >= 0);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		assert_int_equal(c.id, want);
		assert_int_equal(c.slots, indirect || !p->drv.packed ? 1 : 4);
		assert_int_equal(c.outs, 1);
		assert_int_equal(c.ins, 2);
		assert_int_equal(c.out_bytes, 100);
		assert_int_equal(c.in_bytes, 200);
		assert_ptr_equal(c.iov[2].iov_base, at(p->ram.bytes, buf + 250));
		assert_int_equal(virtq_pop(&p->dev, &c), 0);
		assert_false(driver_take(&p->drv, &id, &len));
		c.id = want;
		give_back(p, &c, 77 + i);
		assert_true(driver_take(&p->drv, &id, &len));
		assert_int_equal(id, want);
		assert_int_equal(len, 77 + i);
		assert_false(driver_take(&p->drv, &id, &len));
	}
	assert_int_equal(p->dev.in_flight, 0);
}

static void test_one_buffer(void **state)
{
	each(one_buffer, 8);
}

static void test_odd_sizes(void **state)
{
	struct virtq_config config;
	struct pair p;

	pair_init(&p, 7, VIRTQ_F_PACKED);
	one_buffer(&p);
	config = driver_config(&p.drv);
	assert_int_equal(virtq_start(&p.dev, &p.ram.mem, &config, 0), -EINVAL);
	pair_free(&p);
}

/* Random buffers, given back in random order; each is told by its length. */
static void many(struct pair *p)
{
	struct virtq_chain c[64];
	u32 want[VIRTQ_SIZE_MAX];
	unsigned held = 0;
	u64 buf = ram_alloc(&p->ram, 65536), tables = ram_alloc(&p->ram, 64 * 16 * 8);
	u64 taken = 0;
	u32 len;
	u16 id;

	srand(p->flags + 1);
	memset(want, 0xFF, sizeof(want));
	for (int i = 0; i < 20000; i++) {
		struct piece pieces[8];
		unsigned n = 1 + rand() % 5, u;
		bool indirect = p->flags & VIRTQ_F_INDIRECT && rand() % 2;

		for (unsigned k = 0; k < n; k++)
			pieces[k] = (struct piece){ buf + rand() % 1000, 1 + rand() % 500, k > n / 2 };
		switch (rand() % 3) {
		case 0: {
			/* A table of its own for each buffer in flight: by its place in the ring. */
			int got = driver_submit(&p->drv, pieces, n,
				indirect ? tables + (p->drv.avail % 64) * 128 : 0);

			if (got >= 0) {
				assert_int_equal(want[got], ~0u);
				want[got] = 0;
				for (unsigned k = 0; k < n; k++)
					want[got] += pieces[k].len;
			}
			break;
		}
		case 1:
			if (held < ARRAY_SIZE(c) && virtq_pop(&p->dev, &c[held]) > 0) {
				assert_int_equal(c[held].out_bytes + c[held].in_bytes, want[c[held].id]);
				held++;
			}
			break;
		default:
			if (!held)
				break;
			u = rand() % held;
			give_back(p, &c[u], c[u].id * 3);
			c[u] = c[--held];
			assert_true(driver_take(&p->drv, &id, &len));
			assert_int_equal(len, id * 3);
			assert_int_not_equal(want[id], ~0u);
			want[id] = ~0u;
			taken++;
		}
		assert_false(p->dev.broken);
	}
	assert_true(taken > 1000);
}

static void test_many(void **state)
{
	each(many, 32);
	each(many, 2);
}

/* Several at once: the driver sees none of them before all. */
static void together(struct pair *p)
{
	struct virtq_chain c[3];
	u64 buf = ram_alloc(&p->ram, 64);
	const struct piece piece = { buf, 64, true };
	struct virtq_used used[3];
	u16 id;
	u32 len;

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 3; i++) {
			assert_true(driver_submit(&p->drv, &piece, 1, 0) >= 0);
			assert_int_equal(virtq_pop(&p->dev, &c[i]), 1);
			used[i] = (struct virtq_used){ c[i].id, c[i].slots, i };
		}
		virtq_push(&p->dev, used, 3);
		for (u32 i = 0; i < 3; i++) {
			assert_true(driver_take(&p->drv, &id, &len));
			assert_int_equal(len, i);
		}
		assert_false(driver_take(&p->drv, &id, &len));
	}
}

static void test_together(void **state)
{
	each(together, 4);
}

static void unpop(struct pair *p)
{
	struct virtq_chain c, again;
	u64 buf = ram_alloc(&p->ram, 64);
	const struct piece pieces[] = { { buf, 8, false }, { buf, 8, true }, { buf, 8, true } };
	u16 id;
	u32 len;

	for (int i = 0; i < 30; i++) {
		driver_submit(&p->drv, pieces, 1 + i % 3, 0);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		virtq_unpop(&p->dev, &c);
		assert_int_equal(virtq_pop(&p->dev, &again), 1);
		assert_int_equal(again.id, c.id);
		assert_int_equal(again.slots, c.slots);
		give_back(p, &again, 1);
		assert_true(driver_take(&p->drv, &id, &len));
	}
}

static void test_unpop(void **state)
{
	each(unpop, 4);
}

/* ---- who is told when ------------------------------------------------------------------------ */

static void interrupts(struct pair *p)
{
	u64 buf = ram_alloc(&p->ram, 64);
	const struct piece piece = { buf, 64, true };
	struct virtq_chain c;
	u16 id;
	u32 len;

	for (int i = 0; i < 100; i++) {
		bool wanted = i % 3, told;

		driver_interrupts(&p->drv, wanted);
		driver_submit(&p->drv, &piece, 1, 0);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		told = give_back(p, &c, 0);
		/* The first with event indexes is told in any case. */
		if (i)
			assert_int_equal(told, wanted);
		assert_true(driver_take(&p->drv, &id, &len));
	}
	if (!(p->flags & VIRTQ_F_EVENT_IDX))
		return;
	/* One wish for the third buffer from now. */
	if (p->drv.packed) {
		u16 slot = p->drv.used + 2;
		bool wrap = p->drv.used_wrap ^ (slot >= p->drv.size);

		put16(&p->drv, p->drv.driver, slot % p->drv.size | wrap << 15);
		put16(&p->drv, p->drv.driver + 2, 2);
	} else {
		put16(&p->drv, p->drv.driver + 4 + 2 * p->drv.size, p->drv.used + 2);
	}
	for (int i = 0; i < 5; i++) {
		driver_submit(&p->drv, &piece, 1, 0);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		assert_int_equal(give_back(p, &c, 0), i == 2);
		assert_true(driver_take(&p->drv, &id, &len));
	}
}

static void test_interrupts(void **state)
{
	each(interrupts, 8);
}

static void kicks(struct pair *p)
{
	u64 buf = ram_alloc(&p->ram, 64);
	const struct piece piece = { buf, 64, true };
	struct virtq_chain c;
	u16 id;
	u32 len;

	for (int i = 0; i < 100; i++) {
		assert_false(virtq_kicks_on(&p->dev));
		driver_submit(&p->drv, &piece, 1, 0);
		assert_true(driver_needs_kick(&p->drv));
		virtq_kicks_off(&p->dev);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		driver_submit(&p->drv, &piece, 1, 0);
		assert_false(driver_needs_kick(&p->drv));
		/* Seen when kicks are wanted again, so it is not lost. */
		assert_true(virtq_kicks_on(&p->dev));
		give_back(p, &c, 0);
		assert_int_equal(virtq_pop(&p->dev, &c), 1);
		give_back(p, &c, 0);
		while (driver_take(&p->drv, &id, &len))
			;
	}
}

static void test_kicks(void **state)
{
	each(kicks, 8);
}

/* A queue goes on elsewhere from its position. */
static void moves(struct pair *p)
{
	struct virtq_config config = driver_config(&p->drv);

	one_buffer(p);
	for (int i = 0; i < 5; i++) {
		struct virtq_position pos = p->dev.at;

		virtq_stop(&p->dev);
		assert_int_equal(virtq_start(&p->dev, &p->ram.mem, &config, p->flags), 0);
		assert_int_equal(virtq_seek(&p->dev, &pos), 0);
		unpop(p);
	}
}

static void test_moves(void **state)
{
	struct virtq_position bad = { .avail = 8, .used = 8, .avail_wrap = 1, .used_wrap = 1 };
	const struct virtq_config config = { .size = 8 };

	each(moves, 8);
	assert_false(virtq_position_valid(&config, VIRTQ_F_PACKED, &bad));
	assert_true(virtq_position_valid(&config, 0, &bad));
	bad = (struct virtq_position){ .avail = 1, .used = 0 };
	assert_false(virtq_position_valid(&config, 0, &bad));
}

/* ---- what goes wrong ------------------------------------------------------------------------- */

/* The queue breaks once, and stays so. */
static void assert_breaks(struct pair *p)
{
	struct virtq_chain c;
	const struct virtq_used used = { 0, 1, 0 };

	assert_int_equal(virtq_pop(&p->dev, &c), -EPROTO);
	assert_true(p->dev.broken);
	assert_int_equal(virtq_pop(&p->dev, &c), 0);
	assert_false(virtq_kicks_on(&p->dev));
	assert_false(virtq_push(&p->dev, &used, 1));
	pair_free(p);
}

static void test_bad_buffers(void **state)
{
	static const struct { struct piece p[3]; unsigned n; } bad[] = {
		{ { { 0, 4, false } }, 1 },				/* below RAM */
		{ { { RAM_BASE + RAM_SIZE - 3, 4, true } }, 1 },	/* over its end */
		{ { { RAM_BASE + RAM_SIZE, 1, true } }, 1 },
		{ { { RAM_BASE, 0xFFFFFFFF, false } }, 1 },		/* far over it */
		{ { { ~0ULL - 1, 16, true } }, 1 },			/* around */
		{ { { RAM_BASE, 4, true }, { RAM_BASE, 4, false } }, 2 },	/* in before out */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		for (u8 flags = 0; flags < 8; flags++) {
			struct pair p;
			u64 table;

			pair_init(&p, 8, flags);
			table = flags & VIRTQ_F_INDIRECT ? ram_alloc(&p.ram, 64) : 0;
			driver_submit(&p.drv, bad[i].p, bad[i].n, table);
			assert_breaks(&p);
		}
}

/* More than 4 GiB in all, of pieces that are there. */
static void test_huge_total(void **state)
{
	struct pair p;
	struct piece pieces[VIRTQ_SIZE_MAX];
	struct virtq_chain c;

	pair_init(&p, 256, VIRTQ_F_INDIRECT);
	for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++)
		pieces[i] = (struct piece){ RAM_BASE, RAM_SIZE, true };
	driver_submit(&p.drv, pieces, 200, 0);
	assert_int_equal(virtq_pop(&p.dev, &c), 1);	/* 800 MiB */
	p.ram.mem.region[0].size = 64 << 20;
	pieces[0].len = 64 << 20;
	for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++)
		pieces[i].len = 64 << 20;
	driver_submit(&p.drv, pieces, 256, ram_alloc(&p.ram, 4096));
	p.ram.mem.region[0].size = RAM_SIZE;
	assert_breaks(&p);
}

static void test_split_rings(void **state)
{
	struct virtq_chain c;
	struct pair p;

	/* A head outside the table. */
	pair_init(&p, 8, 0);
	put16(&p.drv, p.drv.driver + 4, 8);
	put16(&p.drv, p.drv.driver + 2, 1);
	assert_breaks(&p);
	/* A loop. */
	pair_init(&p, 8, 0);
	put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 4, 1, 1);
	put_desc(&p.drv, p.drv.desc, 1, RAM_BASE, 4, 1, 0);
	put16(&p.drv, p.drv.driver + 2, 1);
	assert_breaks(&p);
	/* One of nothing, which no limit of bytes or buffers ends. */
	pair_init(&p, 8, 0);
	put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 0, 1, 1);
	put_desc(&p.drv, p.drv.desc, 1, RAM_BASE, 0, 1, 0);
	put16(&p.drv, p.drv.driver + 2, 1);
	assert_breaks(&p);
	/* Out of the table. */
	pair_init(&p, 8, 0);
	put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 4, 1, 0xFFFF);
	put16(&p.drv, p.drv.driver + 2, 1);
	assert_breaks(&p);
	/* An index that has gone back, and one that has run away. */
	for (int i = 0; i < 2; i++) {
		pair_init(&p, 8, 0);
		put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 4, 0, 0);
		put16(&p.drv, p.drv.driver + 2, 2);
		assert_int_equal(virtq_pop(&p.dev, &c), 1);
		assert_int_equal(virtq_pop(&p.dev, &c), 1);
		put16(&p.drv, p.drv.driver + 2, i ? 1 : 2 + 9);
		assert_breaks(&p);
	}
	/* More in flight than the ring has. */
	pair_init(&p, 2, 0);
	put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 4, 0, 0);
	put16(&p.drv, p.drv.driver + 2, 2);
	assert_int_equal(virtq_pop(&p.dev, &c), 1);
	assert_int_equal(virtq_pop(&p.dev, &c), 1);
	put16(&p.drv, p.drv.driver + 2, 3);
	assert_breaks(&p);
}

static void put_indirect(struct pair *p, u64 table, u32 len, u16 flags)
{
	if (p->drv.packed) {
		put_desc(&p->drv, p->drv.desc, 0, table, len, 0, flags | 1 << 7);
	} else {
		put_desc(&p->drv, p->drv.desc, 0, table, len, flags, 1);
		put16(&p->drv, p->drv.driver + 2, 1);
	}
}

static void test_indirect_tables(void **state)
{
	for (int packed = 0; packed < 2; packed++) {
		u8 layout = packed ? VIRTQ_F_PACKED : 0;
		struct pair p;
		u64 table;

		/* Not negotiated. */
		pair_init(&p, 8, layout);
		put_indirect(&p, RAM_BASE, 16, 4);
		assert_breaks(&p);
		/* Of no length, of half a descriptor, too long, elsewhere. */
		static const struct { u64 addr; u32 len; } bad[] = {
			{ RAM_BASE, 0 }, { RAM_BASE, 24 }, { RAM_BASE, 257 * 16 },
			{ RAM_BASE, 0xFFFFFFF0 }, { 0, 16 }, { RAM_BASE + RAM_SIZE - 8, 16 },
		};
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			pair_init(&p, 8, layout | VIRTQ_F_INDIRECT);
			put_indirect(&p, bad[i].addr, bad[i].len, 4);
			assert_breaks(&p);
		}
		/* With NEXT. */
		pair_init(&p, 8, layout | VIRTQ_F_INDIRECT);
		table = ram_alloc(&p.ram, 64);
		put_desc(&p.drv, table, 0, RAM_BASE, 4, 0, 0);
		put_indirect(&p, table, 16, 4 | 1);
		assert_breaks(&p);
		/* A table within a table. */
		pair_init(&p, 8, layout | VIRTQ_F_INDIRECT);
		table = ram_alloc(&p.ram, 64);
		put_desc(&p.drv, table, 0, table, 16, packed ? 0 : 4, packed ? 4 : 0);
		put_indirect(&p, table, 16, 4);
		assert_breaks(&p);
	}
}

static void test_packed_rings(void **state)
{
	struct pair p;

	/* A chain that never ends: every slot is NEXT. */
	pair_init(&p, 8, VIRTQ_F_PACKED);
	for (unsigned i = 0; i < 8; i++)
		put_desc(&p.drv, p.drv.desc, i, RAM_BASE, 4, 0, 1 << 7 | 1);
	assert_breaks(&p);
	/* An indirect one behind another. */
	pair_init(&p, 8, VIRTQ_F_PACKED | VIRTQ_F_INDIRECT);
	put_desc(&p.drv, p.drv.desc, 0, RAM_BASE, 4, 0, 1 << 7 | 1);
	put_desc(&p.drv, p.drv.desc, 1, RAM_BASE, 16, 0, 1 << 7 | 4);
	assert_breaks(&p);
}

static void test_bad_areas(void **state)
{
	struct guest_ram ram;
	struct virtq q;

	ram_init(&ram);
	const u64 ok = RAM_BASE, end = RAM_BASE + RAM_SIZE;
	const struct virtq_config bad[] = {
		{ 0, ok, ok, 8 }, { ok, 0, ok, 8 }, { ok, ok, 0, 8 }, { ok + 8, ok, ok, 8 },
		{ ok, ok + 1, ok, 8 }, { ok, ok, ok + 2, 8 }, { end - 16, ok, ok, 8 },
		{ ok, end - 16, ok, 8 }, { ok, ok, end - 32, 8 }, { ~15ULL, ok, ok, 8 },
		{ ok, ok, ok, 0 }, { ok, ok, ok, 512 }, { ok, ok, ok, 0xFFFF },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(virtq_start(&q, &ram.mem, &bad[i], 0), -EINVAL);
		assert_false(q.ready);
	}
	free(ram.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_buffer), cmocka_unit_test(test_odd_sizes),
		cmocka_unit_test(test_many), cmocka_unit_test(test_together),
		cmocka_unit_test(test_unpop), cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_kicks), cmocka_unit_test(test_moves),
		cmocka_unit_test(test_bad_buffers), cmocka_unit_test(test_huge_total),
		cmocka_unit_test(test_split_rings), cmocka_unit_test(test_indirect_tables),
		cmocka_unit_test(test_packed_rings), cmocka_unit_test(test_bad_areas),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
