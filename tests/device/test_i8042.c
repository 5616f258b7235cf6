/* i8042 with nothing plugged in: self-test, configuration, absent devices, interrupts, both ways to reset. */
#include "tests/device/fixture.h"
#include "vmm/hw/i8042.h"

struct kbc {
	struct fixture f;
	struct i8042 k;
	unsigned resets;
};

static void on_reset(void *arg)
{
	((struct kbc *)arg)->resets++;
}

static u8 status(struct kbc *b)
{
	return i8042_command_ops.read(&b->k, 0, 1);
}

static u8 data(struct kbc *b)
{
	return i8042_data_ops.read(&b->k, 0, 1);
}

static void command(struct kbc *b, u8 value)
{
	i8042_command_ops.write(&b->k, 0, value, 1);
}

static void send(struct kbc *b, u8 value)
{
	i8042_data_ops.write(&b->k, 0, value, 1);
}

static int setup(void **state)
{
	static struct kbc b;
	struct irq_line kbd, aux;

	memset(&b, 0, sizeof(b));
	fixture_init(&b.f);
	kbd = fixture_irq(&b.f, 1);
	aux = fixture_irq(&b.f, 12);
	i8042_init(&b.k, &kbd, &aux, on_reset, &b);
	*state = &b;
	return 0;
}

static u8 ask(struct kbc *b, u8 cmd)
{
	command(b, cmd);
	assert_int_equal(status(b) & 1, 1);
	return data(b);
}

static void test_tests(void **state)
{
	struct kbc *b = *state;

	assert_int_equal(status(b) & 1, 0);
	assert_int_equal(ask(b, 0xAA), 0x55);
	assert_int_equal(status(b) & 5, 4);
	assert_int_equal(ask(b, 0xAB), 0x00);
	assert_int_equal(ask(b, 0xA9), 0x00);
}

static void test_config(void **state)
{
	struct kbc *b = *state;

	command(b, 0x60);
	send(b, 0x70);
	assert_int_equal(ask(b, 0x20), 0x70);
	command(b, 0xAE);
	command(b, 0xA8);
	assert_int_equal(ask(b, 0x20), 0x40);
	command(b, 0xA7);
	assert_int_equal(ask(b, 0x20), 0x60);
	command(b, 0xAD);
	assert_int_equal(ask(b, 0x20), 0x70);
	command(b, 0x7F);
	send(b, 0x5A);
	assert_int_equal(ask(b, 0x3F), 0x5A);
}

static void test_absent_devices(void **state)
{
	struct kbc *b = *state;

	send(b, 0xF2);
	assert_int_equal(status(b) & 0x61, 0x41);
	assert_true(b->f.level[1]);
	assert_int_equal(data(b), 0xFE);
	assert_false(b->f.level[1]);
	command(b, 0xD4);
	send(b, 0xF2);
	assert_int_equal(status(b) & 0x61, 0x61);
	assert_true(b->f.level[12]);
	assert_int_equal(data(b), 0xFE);
	assert_int_equal(b->f.edges[1], 1);
	assert_int_equal(b->f.edges[12], 1);
}

static void test_loopback(void **state)
{
	struct kbc *b = *state;

	command(b, 0xD3);
	send(b, 0xA5);
	assert_int_equal(status(b) & 0x21, 0x21);
	assert_int_equal(data(b), 0xA5);
	command(b, 0xD2);
	send(b, 0x5A);
	assert_int_equal(status(b) & 0x21, 0x01);
	assert_int_equal(data(b), 0x5A);
	/* Masked: no line. */
	command(b, 0x60);
	send(b, 0x00);
	command(b, 0xD2);
	send(b, 0x01);
	assert_false(b->f.level[1]);
}

static void test_reset_and_a20(void **state)
{
	struct kbc *b = *state;

	assert_int_equal(ask(b, 0xD0) & 3, 3);
	command(b, 0xD1);
	send(b, 0x01);
	assert_int_equal(ask(b, 0xD0) & 3, 1);
	assert_int_equal(b->resets, 0);
	command(b, 0xFF);
	command(b, 0xFD);
	assert_int_equal(b->resets, 0);
	command(b, 0xFE);
	assert_int_equal(b->resets, 1);
	command(b, 0xD1);
	send(b, 0x02);
	assert_int_equal(b->resets, 2);
}

static void test_round_trip(void **state)
{
	struct kbc *b = *state;
	struct i8042_state st;

	command(b, 0x61);
	send(b, 0x12);
	command(b, 0xD3);
	send(b, 0x77);
	check_round_trip(&i8042_device_ops, &b->k);
	assert_true(b->f.level[12]);
	assert_int_equal(data(b), 0x77);
	i8042_device_ops.save(&b->k, &st);
	st.output_flags = 0x80;
	assert_int_equal(i8042_device_ops.load(&b->k, &st), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_tests, setup),
		cmocka_unit_test_setup(test_config, setup),
		cmocka_unit_test_setup(test_absent_devices, setup),
		cmocka_unit_test_setup(test_loopback, setup),
		cmocka_unit_test_setup(test_reset_and_a20, setup),
		cmocka_unit_test_setup(test_round_trip, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
