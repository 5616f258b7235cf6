/* High precision event timers (IA-PC HPET Specification 1.0a). */
#include "tests/device/fixture.h"
#include "vmm/hw/hpet.h"

enum { CAP = 0, CONF = 0x10, STATUS = 0x20, COUNTER = 0xF0, T0 = 0x100, T1 = 0x120, T2 = 0x140, COMPARE = 8 };
enum { ENABLE = 1, LEGACY = 2 };
enum { LEVEL = 2, ON = 4, PERIODIC = 8, SET = 0x40, WIDTH32 = 0x100 };

#define ROUTE(n)	((n) << 9)
#define TICK		10	/* ns */

struct bench {
	struct fixture f;
	struct hpet hpet;
	bool legacy;
	unsigned changes;
};

static void set_legacy(void *arg, bool on)
{
	struct bench *b = arg;

	b->legacy = on;
	b->changes++;
}

static void bench_init(struct bench *b)
{
	struct irq_line line;

	memset(b, 0, sizeof(*b));
	fixture_init(&b->f);
	line = fixture_irq(&b->f, 0);
	hpet_init(&b->hpet, &b->f.timers, &line, set_legacy, b);
}

static u64 get(struct bench *b, unsigned reg)
{
	return hpet_io_ops.read(&b->hpet, reg, 8);
}

static void set(struct bench *b, unsigned reg, u64 value)
{
	hpet_io_ops.write(&b->hpet, reg, value, 8);
}

static void ticks(struct bench *b, u64 n)
{
	fixture_advance(&b->f, n * TICK);
}

static void test_counter(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	assert_int_equal(get(&b, CAP) >> 32, 10000000);
	assert_int_equal(get(&b, CAP) & 0xFFFFFFFF, HPET_ID);
	assert_int_equal(hpet_io_ops.read(&b.hpet, 4, 4), 10000000);
	ticks(&b, 100);
	assert_int_equal(get(&b, COUNTER), 0);
	set(&b, COUNTER, 0x1FFFFFFF0ULL);
	set(&b, CONF, ENABLE);
	ticks(&b, 0x20);
	assert_true(get(&b, COUNTER) == 0x200000010ULL);
	assert_int_equal(hpet_io_ops.read(&b.hpet, COUNTER + 4, 4), 2);
	set(&b, COUNTER, 5);	/* not while it runs */
	assert_true(get(&b, COUNTER) == 0x200000010ULL);
	set(&b, CONF, 0);
	ticks(&b, 1000);
	assert_true(get(&b, COUNTER) == 0x200000010ULL);
	/* Halves, and what is no access. */
	hpet_io_ops.write(&b.hpet, COUNTER + 4, 7, 4);
	assert_true(get(&b, COUNTER) == 0x700000010ULL);
	hpet_io_ops.write(&b.hpet, COUNTER, 1, 4);
	hpet_io_ops.write(&b.hpet, COUNTER, 9, 2);
	hpet_io_ops.write(&b.hpet, COUNTER + 2, 9, 4);
	assert_true(get(&b, COUNTER) == 0x700000001ULL);
}

static void test_one_shot(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	assert_int_equal(get(&b, T0) >> 32, 0xF00000);
	set(&b, T0, ON | ROUTE(20));
	set(&b, T0 + COMPARE, 1000);
	set(&b, CONF, ENABLE);
	ticks(&b, 999);
	assert_int_equal(b.f.edges[20], 0);
	ticks(&b, 1);
	assert_int_equal(b.f.edges[20], 1);
	assert_false(b.f.level[20]);
	ticks(&b, 100000);
	assert_int_equal(b.f.edges[20], 1);
	/* What has passed waits for the counter to come around; equal is now. */
	set(&b, T0 + COMPARE, get(&b, COUNTER) - 1);
	ticks(&b, 1000);
	assert_int_equal(b.f.edges[20], 1);
	set(&b, T0 + COMPARE, get(&b, COUNTER));
	ticks(&b, 0);
	assert_int_equal(b.f.edges[20], 2);
	/* A half that is written leaves the other's ones: centuries from now. */
	hpet_io_ops.write(&b.hpet, T2, ON | ROUTE(23), 4);
	hpet_io_ops.write(&b.hpet, T2 + COMPARE, 0x1000, 4);
	assert_true(get(&b, T2 + COMPARE) == 0xFFFFFFFF00001000ULL);
	ticks(&b, 100000);
	assert_int_equal(b.f.edges[23], 0);
	/* Disabled: silent; a route that it cannot have: silent too. */
	set(&b, T0, ROUTE(20));
	set(&b, T0 + COMPARE, get(&b, COUNTER) + 10);
	set(&b, T1, ON | ROUTE(5));
	set(&b, T1 + COMPARE, get(&b, COUNTER) + 10);
	ticks(&b, 20);
	assert_int_equal(b.f.edges[20] + b.f.edges[5], 2);
}

static void test_32_bits(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	set(&b, COUNTER, 0xFFFFFF00);
	set(&b, T0, ON | WIDTH32 | ROUTE(21));
	set(&b, T0 + COMPARE, 0xABCD00000100ULL);
	assert_int_equal(get(&b, T0 + COMPARE), 0x100);
	set(&b, CONF, ENABLE);
	ticks(&b, 0x1FF);
	assert_int_equal(b.f.edges[21], 0);
	ticks(&b, 1);
	assert_int_equal(b.f.edges[21], 1);
	/* And once more when they come around. */
	ticks(&b, 0xFFFFFFFF);
	assert_int_equal(b.f.edges[21], 1);
	ticks(&b, 1);
	assert_int_equal(b.f.edges[21], 2);
}

/* As Linux programs it. */
static void test_periodic(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	set(&b, CONF, ENABLE | LEGACY);
	assert_true(b.legacy);
	set(&b, T0, ON | PERIODIC | SET | WIDTH32);
	set(&b, T0 + COMPARE, 500);
	assert_int_equal(get(&b, T0) & SET, 0);
	ticks(&b, 100);
	set(&b, T0 + COMPARE, 1000);
	assert_int_equal(get(&b, T0 + COMPARE), 500);
	ticks(&b, 399);
	assert_int_equal(b.f.edges[0], 0);
	ticks(&b, 1);
	assert_int_equal(b.f.edges[0], 1);
	assert_int_equal(get(&b, T0 + COMPARE), 1500);
	ticks(&b, 10000);
	assert_int_equal(b.f.edges[0], 11);
	/* Late: those missed are one, and the phase stays. */
	b.f.now += 3700 * TICK;
	fixture_advance(&b.f, 0);
	assert_int_equal(b.f.edges[0], 12);
	assert_int_equal(get(&b, T0 + COMPARE), 14500);
	/* A period of zero is none. */
	set(&b, T0 + COMPARE, 0);
	ticks(&b, 100000);
	assert_int_equal(b.f.edges[0], 13);
	set(&b, CONF, ENABLE);
	assert_false(b.legacy);
	assert_int_equal(b.changes, 2);
}

static void test_level(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	set(&b, T2, ON | LEVEL | ROUTE(22));
	set(&b, T2 + COMPARE, 50);
	set(&b, CONF, ENABLE);
	ticks(&b, 60);
	assert_true(b.f.level[22]);
	assert_int_equal(get(&b, STATUS), 4);
	hpet_io_ops.write(&b.hpet, STATUS + 4, 0xFFFFFFFF, 4);
	assert_true(b.f.level[22]);
	set(&b, STATUS, 3);
	assert_true(b.f.level[22]);
	/* Whoever shares the line by edges takes nothing away. */
	set(&b, T1, ON | ROUTE(22));
	set(&b, T1 + COMPARE, get(&b, COUNTER) + 5);
	ticks(&b, 10);
	assert_true(b.f.level[22]);
	set(&b, STATUS, 4);
	assert_false(b.f.level[22]);
	assert_int_equal(get(&b, STATUS), 0);
}

/* Another machine, whose guest time is another: the counter and what is due go on. */
static void test_state(void **state)
{
	struct device dev = { .ops = &hpet_device_ops };
	struct hpet_state st, good;
	struct bench b, other;
	u8 buf[1024];
	long n;

	(void)state;
	bench_init(&b);
	bench_init(&other);
	other.f.now += 123456789;
	set(&b, CONF, ENABLE | LEGACY);
	set(&b, T0, ON | PERIODIC | SET);
	set(&b, T0 + COMPARE, 1000);
	set(&b, T2, ON | LEVEL | ROUTE(23));
	set(&b, T2 + COMPARE, 1100);
	set(&b, T1, ON);
	set(&b, T1 + COMPARE, 5000);
	ticks(&b, 1250);
	timer_queue_pause(&b.f.timers);
	dev.self = &b.hpet;
	n = device_save(&dev, buf, sizeof(buf));
	assert_true(n > 0);
	check_round_trip(&hpet_device_ops, &b.hpet);
	dev.self = &other.hpet;
	assert_int_equal(device_load(&dev, buf, n), n);
	assert_true(other.legacy);
	assert_true(other.f.level[23]);
	assert_int_equal(get(&other, COUNTER), 1250);
	ticks(&other, 749);
	assert_int_equal(other.f.edges[0], 0);
	ticks(&other, 1);
	assert_int_equal(other.f.edges[0], 1);
	ticks(&other, 3000);
	assert_int_equal(other.f.edges[0], 4);
	assert_int_equal(other.f.edges[8], 1);
	hpet_device_ops.save(&other.hpet, &good);
	st = good;
	st.config = 4;
	assert_int_equal(hpet_device_ops.load(&other.hpet, &st), -EINVAL);
	st = good;
	st.timer_config[1] = 1;
	assert_int_equal(hpet_device_ops.load(&other.hpet, &st), -EINVAL);
	st = good;
	st.status = 8;
	assert_int_equal(hpet_device_ops.load(&other.hpet, &st), -EINVAL);
	assert_int_equal(get(&other, STATUS), 4);
	hpet_device_ops.reset(&other.hpet);
	assert_false(other.f.level[23]);
	assert_false(other.legacy);
	assert_int_equal(get(&other, COUNTER), 0);
	ticks(&other, 100000);
	assert_int_equal(other.f.edges[0], 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counter),
		cmocka_unit_test(test_one_shot),
		cmocka_unit_test(test_32_bits),
		cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
