/* MC146818: time in both encodings, setting it, alarm, periodic and update interrupts, CMOS. */
#include "tests/device/fixture.h"
#include "vmm/hw/rtc.h"

#define RTC_IRQ 8
#define NS 1000000000ULL

enum {
	SEC,
	SEC_ALARM,
	MIN_,
	MIN_ALARM,
	HOUR,
	HOUR_ALARM,
	WDAY,
	DAY,
	MONTH,
	YEAR,
	A,
	B,
	C,
	D,
	CENTURY = 0x32
};

/* 2024-02-29 23:59:58 UTC, a Thursday. */
#define START 1709251198ULL

struct clock {
	struct fixture f;
	struct rtc rtc;
};

/* The wall clock follows the fixture's. */
static u64 wall(void *arg)
{
	struct clock *c = arg;

	return START * NS + (c->f.now - NS);
}

static u8 get(struct clock *c, u8 reg)
{
	rtc_io_ops.write(&c->rtc, 0, reg, 1);
	return rtc_io_ops.read(&c->rtc, 1, 1);
}

static void set(struct clock *c, u8 reg, u8 value)
{
	rtc_io_ops.write(&c->rtc, 0, reg, 1);
	rtc_io_ops.write(&c->rtc, 1, value, 1);
}

static int setup(void **state)
{
	static struct clock c;
	struct irq_line irq;

	memset(&c, 0, sizeof(c));
	fixture_init(&c.f);
	irq = fixture_irq(&c.f, RTC_IRQ);
	rtc_init(&c.rtc, &c.f.timers, &irq, wall, &c);
	*state = &c;
	return 0;
}

static void check_time(struct clock *c, const u8 expect[8])
{
	static const u8 regs[] = { SEC, MIN_, HOUR, WDAY, DAY, MONTH, YEAR, CENTURY };

	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		assert_int_equal(get(c, regs[i]), expect[i]);
}

static void test_bcd_and_leap_day(void **state)
{
	struct clock *c = *state;

	check_time(c, (const u8[]){ 0x58, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20 });
	fixture_advance(&c->f, 2 * NS);
	check_time(c, (const u8[]){ 0x00, 0x00, 0x00, 6, 0x01, 0x03, 0x24, 0x20 });
}

static void test_binary_and_12_hours(void **state)
{
	struct clock *c = *state;

	set(c, B, 0x06);
	check_time(c, (const u8[]){ 58, 59, 23, 5, 29, 2, 24, 20 });
	set(c, B, 0x00);
	assert_int_equal(get(c, HOUR), 0x91);	/* 11 pm */
	set(c, B, 0x04);
	assert_int_equal(get(c, HOUR), 0x80 | 11);
	fixture_advance(&c->f, 2 * NS);
	assert_int_equal(get(c, HOUR), 12);	/* midnight is 12 am */
}

static void test_set_time(void **state)
{
	struct clock *c = *state;
	static const u8 regs[] = { SEC, MIN_, HOUR, DAY, MONTH, YEAR, CENTURY };
	static const u8 values[] = { 0x30, 0x45, 0x12, 0x31, 0x12, 0x99, 0x19 };

	set(c, B, 0x82);
	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		set(c, regs[i], values[i]);
	/* The clock stands still meanwhile. */
	fixture_advance(&c->f, 5 * NS);
	assert_int_equal(get(c, SEC), 0x30);
	set(c, B, 0x02);
	fixture_advance(&c->f, 40 * NS);
	check_time(c, (const u8[]){ 0x10, 0x46, 0x12, 6, 0x31, 0x12, 0x99, 0x19 });
}

static void test_uip(void **state)
{
	struct clock *c = *state;

	assert_int_equal(get(c, A), 0x26);
	fixture_advance(&c->f, NS - 244000 - 1);
	assert_int_equal(get(c, A), 0x26);
	fixture_advance(&c->f, 1);
	assert_int_equal(get(c, A), 0xA6);
	fixture_advance(&c->f, 244000);
	assert_int_equal(get(c, A), 0x26);
}

static void test_periodic(void **state)
{
	struct clock *c = *state;

	set(c, B, 0x42);
	for (int i = 1; i <= 10; i++) {
		fixture_advance(&c->f, NS / 1024 + 1);
		assert_int_equal(c->f.edges[RTC_IRQ], i);
		assert_int_equal(get(c, C), 0xC0);
		assert_false(c->f.level[RTC_IRQ]);
	}
	/* Unread, it stays one interrupt. */
	fixture_advance(&c->f, NS);
	assert_int_equal(c->f.edges[RTC_IRQ], 11);
	set(c, B, 0x02);
	get(c, C);
	fixture_advance(&c->f, NS);
	assert_int_equal(c->f.edges[RTC_IRQ], 11);
	/* Rate 3 is 8192 Hz, rate 0 is off. */
	set(c, A, 0x23);
	set(c, B, 0x42);
	fixture_advance(&c->f, NS / 8192 + 1);
	assert_int_equal(c->f.edges[RTC_IRQ], 12);
	get(c, C);
	set(c, A, 0x20);
	fixture_advance(&c->f, NS);
	assert_int_equal(c->f.edges[RTC_IRQ], 12);
}

static void test_flags_without_interrupts(void **state)
{
	struct clock *c = *state;

	assert_int_equal(get(c, C), 0);
	fixture_advance(&c->f, NS);
	assert_int_equal(get(c, C), 0x50);	/* UF, PF; no IRQF */
	assert_int_equal(get(c, C), 0);
	assert_int_equal(c->f.edges[RTC_IRQ], 0);
	assert_true(c->f.wake == TIMER_NEVER);
}

static void test_update_ended(void **state)
{
	struct clock *c = *state;

	fixture_advance(&c->f, NS / 2);
	set(c, B, 0x12);
	fixture_advance(&c->f, NS / 2 - 1000);
	assert_false(c->f.level[RTC_IRQ]);
	fixture_advance(&c->f, 1000);
	assert_true(c->f.level[RTC_IRQ]);
	assert_int_equal(get(c, C) & 0x90, 0x90);
	fixture_advance(&c->f, NS);
	assert_int_equal(c->f.edges[RTC_IRQ], 2);
}

static void test_alarm(void **state)
{
	struct clock *c = *state;

	set(c, SEC_ALARM, 0x03);
	set(c, MIN_ALARM, 0x00);
	set(c, HOUR_ALARM, 0x00);
	set(c, B, 0x22);
	get(c, C);
	fixture_advance(&c->f, 5 * NS - 1);	/* 23:59:58 to just before 00:00:03 */
	assert_false(c->f.level[RTC_IRQ]);
	fixture_advance(&c->f, 1);
	assert_true(c->f.level[RTC_IRQ]);
	assert_int_equal(get(c, C) & 0xA0, 0xA0);
	/* Wildcards: every minute at 10 seconds. */
	set(c, SEC_ALARM, 0x10);
	set(c, MIN_ALARM, 0xFF);
	set(c, HOUR_ALARM, 0xC0);
	fixture_advance(&c->f, 7 * NS);
	assert_true(c->f.level[RTC_IRQ]);
	get(c, C);
	fixture_advance(&c->f, 60 * NS);
	assert_int_equal(c->f.edges[RTC_IRQ], 3);
	/* One that never matches costs nothing. */
	get(c, C);
	set(c, SEC_ALARM, 0x77);
	assert_true(c->f.wake == TIMER_NEVER);
}

static void test_read_only_registers(void **state)
{
	struct clock *c = *state;

	set(c, C, 0xFF);
	set(c, D, 0x00);
	set(c, A, 0xA6);
	assert_int_equal(get(c, C), 0);
	assert_int_equal(get(c, D), 0x80);
	assert_int_equal(get(c, A), 0x26);
	assert_int_equal(rtc_io_ops.read(&c->rtc, 0, 1), 0xFF);
}

static void test_cmos(void **state)
{
	struct clock *c = *state;

	rtc_set_memory(&c->rtc, 3ULL << 30, 5ULL << 30);
	assert_int_equal(get(c, 0x15) | get(c, 0x16) << 8, 640);
	assert_int_equal(get(c, 0x17) | get(c, 0x18) << 8, 0xFC00);
	assert_int_equal(get(c, 0x34) | get(c, 0x35) << 8, ((3ULL << 30) - (16 << 20)) >> 16);
	assert_int_equal(get(c, 0x5B) | get(c, 0x5C) << 8 | get(c, 0x5D) << 16, (5ULL << 30) >> 16);
	set(c, 0x7F, 0x42);
	assert_int_equal(get(c, 0x7F), 0x42);
	assert_int_equal(get(c, 0xFF), 0x42);	/* bit 7 is the NMI mask */
	set(c, B, 0x72);
	rtc_device_ops.reset(&c->rtc);
	assert_int_equal(get(c, B), 0x02);
	assert_int_equal(get(c, 0x7F), 0x42);
}

static void test_round_trip(void **state)
{
	struct clock *c = *state;
	struct rtc_state st;

	set(c, 0x40, 0x99);
	set(c, HOUR, 0x01);
	set(c, B, 0x32);
	check_round_trip(&rtc_device_ops, &c->rtc);
	assert_int_equal(get(c, HOUR), 0x01);
	assert_int_equal(get(c, B), 0x32);
	rtc_device_ops.save(&c->rtc, &st);
	st.offset = INT64_MAX;
	assert_int_equal(rtc_device_ops.load(&c->rtc, &st), -EINVAL);
	st.offset = 0;
	st.index = 128;
	assert_int_equal(rtc_device_ops.load(&c->rtc, &st), -EINVAL);
}

/* Whatever a guest writes, the device answers and time goes on. */
static void test_garbage(void **state)
{
	struct clock *c = *state;
	u32 seed = 1;

	for (int i = 0; i < 20000; i++) {
		seed = seed * 1664525 + 1013904223;
		if (seed & 0x80000000)
			set(c, seed >> 8 & 0x3F, seed >> 16);
		else
			get(c, seed >> 8 & 0x3F);
		if ((seed >> 20 & 63) == 0)
			fixture_advance(&c->f, NS / 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_bcd_and_leap_day, setup),
		cmocka_unit_test_setup(test_binary_and_12_hours, setup),
		cmocka_unit_test_setup(test_set_time, setup),
		cmocka_unit_test_setup(test_uip, setup),
		cmocka_unit_test_setup(test_periodic, setup),
		cmocka_unit_test_setup(test_flags_without_interrupts, setup),
		cmocka_unit_test_setup(test_update_ended, setup),
		cmocka_unit_test_setup(test_alarm, setup),
		cmocka_unit_test_setup(test_read_only_registers, setup),
		cmocka_unit_test_setup(test_cmos, setup),
		cmocka_unit_test_setup(test_round_trip, setup),
		cmocka_unit_test_setup(test_garbage, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
