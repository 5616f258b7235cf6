/* Keyboard and mouse on an i8042: scan codes in both sets, translation, packets, commands, saving in between. */
#include <linux/input-event-codes.h>

#include "tests/device/fixture.h"
#include "vmm/hw/i8042.h"
#include "vmm/hw/ps2_keyboard.h"
#include "vmm/hw/ps2_mouse.h"

struct kbc {
	struct fixture f;
	struct i8042 k;
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
};

static void no_reset(void *arg)
{
	(void)arg;
}

static int setup(void **state)
{
	static struct kbc b;
	struct irq_line kbd, aux;

	memset(&b, 0, sizeof(b));
	fixture_init(&b.f);
	kbd = fixture_irq(&b.f, 1);
	aux = fixture_irq(&b.f, 12);
	i8042_init(&b.k, &kbd, &aux, no_reset, &b);
	ps2_keyboard_init(&b.keyboard);
	ps2_mouse_init(&b.mouse);
	i8042_plug(&b.k, &b.keyboard.ps2, &b.mouse.ps2);
	*state = &b;
	return 0;
}

static u8 status(struct kbc *b)
{
	return i8042_command_ops.read(&b->k, 0, 1);
}

static void command(struct kbc *b, u8 value)
{
	i8042_command_ops.write(&b->k, 0, value, 1);
}

static void send(struct kbc *b, u8 value)
{
	i8042_data_ops.write(&b->k, 0, value, 1);
}

static void send_mouse(struct kbc *b, u8 value)
{
	command(b, 0xD4);
	send(b, value);
}

static void set_config(struct kbc *b, u8 value)
{
	command(b, 0x60);
	send(b, value);
}

/* All of them, from the given port, and nothing behind. */
static void check_bytes(struct kbc *b, bool mouse, const u8 *bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(status(b) & 0x21, mouse ? 0x21 : 0x01);
		assert_true(b->f.level[mouse ? 12 : 1]);
		assert_int_equal(i8042_data_ops.read(&b->k, 0, 1), bytes[i]);
	}
	assert_int_equal(status(b) & 1, 0);
	assert_false(b->f.level[1] || b->f.level[12]);
}

#define keyboard_says(b, ...) \
	check_bytes(b, false, (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))
#define mouse_says(b, ...) \
	check_bytes(b, true, (const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}))

static void type(struct kbc *b, unsigned key)
{
	ps2_keyboard_key(&b->keyboard, key, true);
	ps2_keyboard_key(&b->keyboard, key, false);
}

static void move(struct kbc *b, s32 dx, s32 dy, s32 wheel, u32 buttons)
{
	const struct input_motion m = { dx, dy, wheel, buttons };

	ps2_mouse_motion(&b->mouse, &m);
}

static void test_translated(void **state)
{
	struct kbc *b = *state;

	type(b, KEY_A);
	keyboard_says(b, 0x1E, 0x9E);
	type(b, KEY_F7);
	keyboard_says(b, 0x41, 0xC1);
	type(b, KEY_102ND);
	keyboard_says(b, 0x56, 0xD6);
	type(b, KEY_UP);
	keyboard_says(b, 0xE0, 0x48, 0xE0, 0xC8);
	type(b, KEY_PAUSE);
	keyboard_says(b, 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5);
	type(b, KEY_MICMUTE);
	assert_int_equal(status(b) & 1, 0);
	/* Every key of the AT is itself. */
	for (unsigned key = KEY_ESC; key <= KEY_KPDOT; key++) {
		type(b, key);
		keyboard_says(b, key, key | 0x80);
	}
	assert_true(b->f.edges[1] > 160);
}

static void test_raw_sets(void **state)
{
	struct kbc *b = *state;

	set_config(b, 0x03);	/* no translation */
	type(b, KEY_A);
	keyboard_says(b, 0x1C, 0xF0, 0x1C);
	type(b, KEY_F7);
	keyboard_says(b, 0x83, 0xF0, 0x83);
	type(b, KEY_RIGHTALT);
	keyboard_says(b, 0xE0, 0x11, 0xE0, 0xF0, 0x11);
	type(b, KEY_PAUSE);
	keyboard_says(b, 0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77);
	send(b, 0xF0);
	keyboard_says(b, 0xFA);
	send(b, 1);
	keyboard_says(b, 0xFA);
	type(b, KEY_A);
	keyboard_says(b, 0x1E, 0x9E);
	send(b, 0xF0);
	keyboard_says(b, 0xFA);
	send(b, 0);
	keyboard_says(b, 0xFA, 1);
	send(b, 0xF0);
	keyboard_says(b, 0xFA);
	send(b, 3);
	keyboard_says(b, 0xFE);
}

static void test_keyboard_commands(void **state)
{
	struct kbc *b = *state;

	send(b, 0xFF);
	keyboard_says(b, 0xFA, 0xAA);
	send(b, 0xF2);
	keyboard_says(b, 0xFA, 0xAB, 0x41);	/* 0x83, translated */
	send(b, 0xEE);
	keyboard_says(b, 0xEE);
	send(b, 0xED);
	keyboard_says(b, 0xFA);
	send(b, 2);
	keyboard_says(b, 0xFA);
	assert_int_equal(b->keyboard.leds, 2);
	/* A command in place of the argument. */
	send(b, 0xF3);
	keyboard_says(b, 0xFA);
	send(b, 0xF5);
	keyboard_says(b, 0xFA);
	type(b, KEY_A);
	assert_int_equal(status(b) & 1, 0);
	send(b, 0xF4);
	keyboard_says(b, 0xFA);
	type(b, KEY_B);
	keyboard_says(b, 0x30, 0xB0);
	/* The last byte again, and that is the second of the release. */
	send(b, 0xFE);
	keyboard_says(b, 0x30);
	send(b, 0x01);
	keyboard_says(b, 0xFE);
}

/* More keys than there is room for: the last byte says so, and it goes on afterwards. */
static void test_overrun(void **state)
{
	struct kbc *b = *state;
	unsigned n = 0;
	u8 last = 0;

	for (unsigned i = 0; i < 40; i++)
		type(b, KEY_A);
	while (status(b) & 1) {
		last = i8042_data_ops.read(&b->k, 0, 1);
		n++;
	}
	assert_in_range(n, 16, PS2_QUEUE);
	assert_int_equal(last, 0xFF);
	type(b, KEY_B);
	keyboard_says(b, 0x30, 0xB0);
}

static void test_ports(void **state)
{
	struct kbc *b = *state;

	/* Off, a device keeps what it has. */
	command(b, 0xAD);
	type(b, KEY_A);
	assert_int_equal(status(b) & 1, 0);
	command(b, 0xAE);
	keyboard_says(b, 0x1E, 0x9E);
	/* The controller's answer comes first; the key is not lost. */
	type(b, KEY_A);
	command(b, 0x20);
	keyboard_says(b, 0x47, 0x1E, 0x9E);
	ps2_keyboard_key(&b->keyboard, KEY_B, false);
	command(b, 0xAA);
	keyboard_says(b, 0x55, 0xB0);
	/* No interrupt where it is masked. */
	set_config(b, 0x44);
	ps2_keyboard_key(&b->keyboard, KEY_A, true);
	assert_int_equal(status(b) & 1, 1);
	assert_false(b->f.level[1]);
	set_config(b, 0x45);
	keyboard_says(b, 0x1E);
}

static void test_mouse(void **state)
{
	struct kbc *b = *state;

	move(b, 5, 5, 0, 0);
	assert_int_equal(status(b) & 1, 0);	/* not before it is told to */
	send_mouse(b, 0xFF);
	mouse_says(b, 0xFA, 0xAA, 0x00);
	send_mouse(b, 0xF4);
	mouse_says(b, 0xFA);
	move(b, 3, -4, 0, 0);
	mouse_says(b, 0x08, 3, 4);
	move(b, -3, 4, 0, INPUT_LEFT | INPUT_MIDDLE);
	mouse_says(b, 0x3D, 0xFD, 0xFC);
	move(b, 0, 0, 0, INPUT_LEFT | INPUT_MIDDLE);
	assert_int_equal(status(b) & 1, 0);
	move(b, 300, 0, 1, INPUT_RIGHT);
	mouse_says(b, 0x0A, 255, 0, 0x0A, 45, 0);
	send_mouse(b, 0xE9);
	mouse_says(b, 0xFA, 0x21, 2, 100);
	/* Remote: only when asked. */
	send_mouse(b, 0xF0);
	mouse_says(b, 0xFA);
	move(b, 1, 0, 0, 0);
	assert_int_equal(status(b) & 1, 0);
	send_mouse(b, 0xEB);
	mouse_says(b, 0xFA, 0x08, 1, 0);
	send_mouse(b, 0xEE);
	mouse_says(b, 0xFA);
	send_mouse(b, 0xE9);
	mouse_says(b, 0xE9);
	send_mouse(b, 0xEC);
	mouse_says(b, 0xFA);
	send_mouse(b, 0x12);
	mouse_says(b, 0xFE);
}

static void set_rate(struct kbc *b, u8 rate)
{
	send_mouse(b, 0xF3);
	mouse_says(b, 0xFA);
	send_mouse(b, rate);
	mouse_says(b, 0xFA);
}

static void check_id(struct kbc *b, u8 id)
{
	send_mouse(b, 0xF2);
	mouse_says(b, 0xFA, id);
}

static void test_wheel(void **state)
{
	struct kbc *b = *state;

	set_rate(b, 200);
	set_rate(b, 200);
	set_rate(b, 80);
	check_id(b, 0);
	set_rate(b, 200);
	set_rate(b, 100);
	set_rate(b, 80);
	check_id(b, 3);
	send_mouse(b, 0xF4);
	mouse_says(b, 0xFA);
	move(b, 0, 0, -1, 0);
	mouse_says(b, 0x08, 0, 0, 0xFF);
	send_mouse(b, 0xF5);
	mouse_says(b, 0xFA);
	set_rate(b, 200);
	set_rate(b, 200);
	set_rate(b, 80);
	check_id(b, 4);
	send_mouse(b, 0xF4);
	mouse_says(b, 0xFA);
	move(b, 0, 0, -1, 0);
	mouse_says(b, 0x08, 0, 0, 0x0F);
}

/* Nobody reads: it adds up, and nothing of it is lost. */
static void test_backlog(void **state)
{
	struct kbc *b = *state;
	s32 x = 0, y = 0;

	send_mouse(b, 0xF4);
	mouse_says(b, 0xFA);
	for (unsigned i = 0; i < 100; i++)
		move(b, 7, -3, 0, 0);
	while (status(b) & 1) {
		u8 p[3];

		for (unsigned i = 0; i < 3; i++)
			p[i] = i8042_data_ops.read(&b->k, 0, 1);
		x += p[1] - (p[0] & 0x10 ? 256 : 0);
		y += p[2] - (p[0] & 0x20 ? 256 : 0);
	}
	assert_int_equal(x, 700);
	assert_int_equal(y, 300);
	move(b, INT32_MIN, INT32_MAX, INT32_MIN, ~0u);
	assert_int_equal(status(b) & 0x21, 0x21);
}

/* In the middle of a release, of a command and of a packet. */
static void test_round_trip(void **state)
{
	struct kbc *b = *state;
	u8 saved[3][512];
	const struct device dev[] = { { &i8042_device_ops, &b->k },
		{ &ps2_keyboard_device_ops, &b->keyboard }, { &ps2_mouse_device_ops, &b->mouse } };
	struct ps2_keyboard_state ks;
	struct ps2_mouse_state ms;
	long n;

	send_mouse(b, 0xF4);
	mouse_says(b, 0xFA);
	ps2_keyboard_key(&b->keyboard, KEY_A, false);
	type(b, KEY_UP);
	move(b, 1, 2, 0, INPUT_LEFT);
	b->keyboard.command = 0xED;
	for (unsigned i = 0; i < 3; i++) {
		n = device_save(&dev[i], saved[i], sizeof(saved[i]));
		assert_true(n > 0);
		check_round_trip(dev[i].ops, dev[i].self);
	}
	for (unsigned i = 0; i < 3; i++)
		dev[i].ops->reset(dev[i].self);
	for (unsigned i = 0; i < 3; i++)
		assert_true(device_load(&dev[i], saved[i], sizeof(saved[i])) > 0);
	send(b, 4);
	assert_int_equal(b->keyboard.leds, 4);
	for (unsigned i = 0; i < 6; i++) {
		static const u8 bytes[] = { 0x9E, 0xE0, 0x48, 0xE0, 0xC8, 0xFA };

		assert_int_equal(status(b) & 0x21, 1);
		assert_int_equal(i8042_data_ops.read(&b->k, 0, 1), bytes[i]);
	}
	mouse_says(b, 0x29, 1, 0xFE);
	ps2_keyboard_device_ops.save(&b->keyboard, &ks);
	ks.len = PS2_QUEUE + 1;
	assert_int_equal(ps2_keyboard_device_ops.load(&b->keyboard, &ks), -EINVAL);
	ps2_mouse_device_ops.save(&b->mouse, &ms);
	ms.dx = INT32_MIN;
	assert_int_equal(ps2_mouse_device_ops.load(&b->mouse, &ms), -EINVAL);
}

static void test_keysyms(void **state)
{
	(void)state;
	assert_int_equal(keysym_to_key('a'), KEY_A);
	assert_int_equal(keysym_to_key('A'), KEY_A);
	assert_int_equal(keysym_to_key('~'), KEY_GRAVE);
	assert_int_equal(keysym_to_key('|'), KEY_BACKSLASH);
	assert_int_equal(keysym_to_key('_'), KEY_MINUS);
	assert_int_equal(keysym_to_key('\''), KEY_APOSTROPHE);
	assert_int_equal(keysym_to_key(0xFF0D), KEY_ENTER);
	assert_int_equal(keysym_to_key(0xFFC9), KEY_F12);
	assert_int_equal(keysym_to_key(0x7F), 0);
	assert_int_equal(keysym_to_key(0xFFFFFFFF), 0);
	assert_int_equal(keysym_to_key(0x1FF0D), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_translated, setup),
		cmocka_unit_test_setup(test_raw_sets, setup),
		cmocka_unit_test_setup(test_keyboard_commands, setup),
		cmocka_unit_test_setup(test_overrun, setup),
		cmocka_unit_test_setup(test_ports, setup),
		cmocka_unit_test_setup(test_mouse, setup),
		cmocka_unit_test_setup(test_wheel, setup),
		cmocka_unit_test_setup(test_backlog, setup),
		cmocka_unit_test_setup(test_round_trip, setup),
		cmocka_unit_test(test_keysyms),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
