/* ACPI PM1 block and timer; reset control rides along. */
#include "tests/device/fixture.h"
#include "vmm/hw/acpi_pm.h"
#include "vmm/hw/reset_control.h"

#define SCI 9
#define NS 1000000000ULL

struct board {
	struct fixture f;
	struct acpi_pm pm;
	struct reset_control reset;
	unsigned power_offs, resets;
};

static void on_power_off(void *arg)
{
	((struct board *)arg)->power_offs++;
}

static void on_request(void *arg, enum machine_request what, int st)
{
	(void)st;
	assert_int_equal(what, MACHINE_RESET);
	((struct board *)arg)->resets++;
}

static u32 in(struct board *b, u64 reg, unsigned size)
{
	return acpi_pm_io_ops.read(&b->pm, reg, size);
}

static void out(struct board *b, u64 reg, u32 value, unsigned size)
{
	acpi_pm_io_ops.write(&b->pm, reg, value, size);
}

static int setup(void **state)
{
	static struct board b;
	struct machine_events events = { .request = on_request, .arg = &b };
	struct irq_line sci;

	memset(&b, 0, sizeof(b));
	fixture_init(&b.f);
	sci = fixture_irq(&b.f, SCI);
	acpi_pm_init(&b.pm, &b.f.timers, &sci, on_power_off, &b);
	reset_control_init(&b.reset, &events);
	*state = &b;
	return 0;
}

static void test_timer_rate(void **state)
{
	struct board *b = *state;
	u32 before = in(b, ACPI_PM_TMR, 4);

	fixture_advance(&b->f, NS);
	assert_in_range(in(b, ACPI_PM_TMR, 4) - before, 3579544, 3579546);
	fixture_advance(&b->f, NS / 1000);
	assert_in_range(in(b, ACPI_PM_TMR, 4) - before, 3583123, 3583126);
}

static void test_timer_overflow(void **state)
{
	struct board *b = *state;
	u64 half = (1ULL << 31) * NS / 3579545;

	out(b, ACPI_PM1_EVT + 2, 1, 2);
	fixture_advance(&b->f, half - 2 * NS);
	assert_int_equal(in(b, ACPI_PM1_EVT, 2) & 1, 0);
	assert_false(b->f.level[SCI]);
	fixture_advance(&b->f, 2 * NS);
	assert_true(b->f.level[SCI]);
	assert_int_equal(in(b, ACPI_PM1_EVT, 2) & 1, 1);
	out(b, ACPI_PM1_EVT, 1, 2);
	assert_false(b->f.level[SCI]);
	fixture_advance(&b->f, half);
	assert_int_equal(b->f.edges[SCI], 2);
	/* Polled, without the interrupt. */
	out(b, ACPI_PM1_EVT + 2, 0, 2);
	out(b, ACPI_PM1_EVT, 1, 2);
	fixture_advance(&b->f, half);
	assert_int_equal(in(b, ACPI_PM1_EVT, 2) & 1, 1);
	assert_false(b->f.level[SCI]);
}

static void test_power_off(void **state)
{
	struct board *b = *state;

	assert_int_equal(in(b, ACPI_PM1_CNT, 2), 1);	/* SCI_EN, always */
	out(b, ACPI_PM1_CNT, ACPI_SLP_TYP_S5 << 10, 2);
	out(b, ACPI_PM1_CNT, 3 << 10 | 1 << 13, 2);
	assert_int_equal(b->power_offs, 0);
	out(b, ACPI_PM1_CNT, ACPI_SLP_TYP_S5 << 10 | 1 << 13, 2);
	assert_int_equal(b->power_offs, 1);
	/* By halves, as a byte-wise writer does. */
	out(b, ACPI_PM1_CNT + 1, (ACPI_SLP_TYP_S5 << 10 | 1 << 13) >> 8, 1);
	assert_int_equal(b->power_offs, 2);
}

static void test_power_button(void **state)
{
	struct board *b = *state;

	acpi_pm_power_button(&b->pm);
	assert_false(b->f.level[SCI]);
	out(b, ACPI_PM1_EVT + 2, 0x100, 2);
	assert_true(b->f.level[SCI]);
	assert_int_equal(in(b, ACPI_PM1_EVT, 4), 0x01000100);
	/* Byte access to the status clears only its own half. */
	out(b, ACPI_PM1_EVT, 0xFF, 1);
	assert_true(b->f.level[SCI]);
	out(b, ACPI_PM1_EVT + 1, 0x01, 1);
	assert_false(b->f.level[SCI]);
}

static void test_reset_control(void **state)
{
	struct board *b = *state;

	reset_control_io_ops.write(&b->reset, 0, 0x02, 1);
	assert_int_equal(reset_control_io_ops.read(&b->reset, 0, 1), 0x02);
	assert_int_equal(b->resets, 0);
	reset_control_io_ops.write(&b->reset, 0, 0x06, 1);
	assert_int_equal(b->resets, 1);
	reset_port_a_io_ops.write(&b->reset, 0, 0x02, 1);
	assert_int_equal(b->resets, 1);
	reset_port_a_io_ops.write(&b->reset, 0, 0x03, 1);
	assert_int_equal(b->resets, 2);
	check_round_trip(&reset_control_device_ops, &b->reset);
}

static void test_round_trip(void **state)
{
	struct board *b = *state;
	struct acpi_pm_state st;

	out(b, ACPI_PM1_EVT + 2, 0x120, 2);
	out(b, ACPI_PM1_CNT, 0x1400, 2);
	acpi_pm_power_button(&b->pm);
	check_round_trip(&acpi_pm_device_ops, &b->pm);
	assert_true(b->f.level[SCI]);
	acpi_pm_device_ops.save(&b->pm, &st);
	st.enable = 0x8000;
	assert_int_equal(acpi_pm_device_ops.load(&b->pm, &st), -EINVAL);
}

/* Guest time stands still while paused, and nothing fires. */
static void test_paused_time(void **state)
{
	struct board *b = *state;
	u32 before;

	timer_queue_pause(&b->f.timers);
	before = in(b, ACPI_PM_TMR, 4);
	fixture_advance(&b->f, 100 * NS);
	assert_int_equal(in(b, ACPI_PM_TMR, 4), before);
	timer_queue_resume(&b->f.timers);
	assert_int_equal(in(b, ACPI_PM_TMR, 4), before);
	fixture_advance(&b->f, NS);
	assert_in_range(in(b, ACPI_PM_TMR, 4) - before, 3579544, 3579546);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_timer_rate, setup),
		cmocka_unit_test_setup(test_timer_overflow, setup),
		cmocka_unit_test_setup(test_power_off, setup),
		cmocka_unit_test_setup(test_power_button, setup),
		cmocka_unit_test_setup(test_reset_control, setup),
		cmocka_unit_test_setup(test_round_trip, setup),
		cmocka_unit_test_setup(test_paused_time, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
