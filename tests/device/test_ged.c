/* The event device of hardware-reduced ACPI: events, sleep, reset (ACPI 6.4, 4.8.3 and 5.6.9). */
#include "tests/device/fixture.h"
#include "vmm/hw/ged.h"

#define IRQ 9

struct bench {
	struct fixture f;
	struct ged ged;
	unsigned requests[4];
};

static void on_request(void *arg, enum machine_request what, int status)
{
	struct bench *b = arg;

	(void)status;
	b->requests[what]++;
}

static void bench_init(struct bench *b)
{
	struct irq_line irq;

	memset(b, 0, sizeof(*b));
	fixture_init(&b->f);
	irq = fixture_irq(&b->f, IRQ);
	ged_init(&b->ged, &irq, &(struct machine_events){ on_request, b });
}

static u64 get(struct bench *b, unsigned reg, unsigned size)
{
	return ged_io_ops.read(&b->ged, reg, size);
}

static void set(struct bench *b, unsigned reg, u64 value)
{
	ged_io_ops.write(&b->ged, reg, value, 1);
}

static void test_events(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	assert_int_equal(get(&b, GED_EVENTS, 4), 0);
	ged_power_button(&b.ged);
	assert_int_equal(b.f.edges[IRQ], 1);
	assert_true(b.f.level[IRQ]);
	/* Only the whole register tells, so a byte does not lose the event. */
	assert_int_equal(get(&b, GED_EVENTS, 1), 0);
	ged_power_button(&b.ged);
	assert_int_equal(b.f.edges[IRQ], 1);
	assert_int_equal(get(&b, GED_EVENTS, 4), GED_EVENT_POWER_BUTTON);
	assert_false(b.f.level[IRQ]);
	assert_int_equal(get(&b, GED_EVENTS, 4), 0);
	ged_power_button(&b.ged);
	assert_int_equal(b.f.edges[IRQ], 2);
}

static void test_power(void **state)
{
	struct bench b;

	(void)state;
	bench_init(&b);
	set(&b, GED_SLEEP_CONTROL, GED_SLP_TYP_S5 << 2);
	assert_int_equal(b.requests[MACHINE_POWER_OFF], 0);
	assert_int_equal(get(&b, GED_SLEEP_CONTROL, 1), GED_SLP_TYP_S5 << 2);
	set(&b, GED_SLEEP_CONTROL, 1 << 2 | 0x20);
	assert_int_equal(b.requests[MACHINE_POWER_OFF], 0);
	set(&b, GED_SLEEP_CONTROL, GED_SLP_TYP_S5 << 2 | 0x20);
	assert_int_equal(b.requests[MACHINE_POWER_OFF], 1);
	assert_int_equal(get(&b, GED_SLEEP_STATUS, 1), 0);
	set(&b, GED_RESET, 0x41);
	assert_int_equal(b.requests[MACHINE_RESET], 0);
	set(&b, GED_RESET, GED_RESET_VALUE);
	assert_int_equal(b.requests[MACHINE_RESET], 1);
}

/* In mid-work: an event that nobody read yet, a sleep type that waits for its enable bit. */
static void test_state(void **state)
{
	struct device dev = { .ops = &ged_device_ops };
	struct ged_state bad = { .pending = 4 };
	struct bench b, other;
	u8 buf[256];
	long n;

	(void)state;
	bench_init(&b);
	bench_init(&other);
	ged_power_button(&b.ged);
	set(&b, GED_SLEEP_CONTROL, GED_SLP_TYP_S5 << 2);
	ged_device_ops.pause(&b.ged);
	dev.self = &b.ged;
	n = device_save(&dev, buf, sizeof(buf));
	assert_true(n > 0);
	dev.self = &other.ged;
	assert_int_equal(device_load(&dev, buf, n), n);
	ged_device_ops.resume(&other.ged);
	assert_true(other.f.level[IRQ]);
	assert_int_equal(get(&other, GED_SLEEP_CONTROL, 1), GED_SLP_TYP_S5 << 2);
	assert_int_equal(get(&other, GED_EVENTS, 4), GED_EVENT_POWER_BUTTON);
	check_round_trip(&ged_device_ops, &b.ged);
	assert_int_equal(ged_device_ops.load(&b.ged, &bad), -EINVAL);
	bad = (struct ged_state){ .control = 0x20 };
	assert_int_equal(ged_device_ops.load(&b.ged, &bad), -EINVAL);
	ged_device_ops.reset(&b.ged);
	assert_false(b.f.level[IRQ]);
	assert_int_equal(get(&b, GED_EVENTS, 4), 0);
	assert_int_equal(get(&b, GED_SLEEP_CONTROL, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_power),
		cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
