/*
 * Keyboard and tablet: what they say of themselves, events and their order, drivers that give no
 * buffers, what goes to the i8042's devices, lamps, saved state.
 */
#include <linux/input.h>
#include <stdlib.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/input.h"

struct machine {
	struct board b;
	struct virtio_input dev;
	struct input input;
	u64 buffer[QUEUE_SIZE];
	u16 of_id[VIRTQ_SIZE_MAX];	/* which buffer */
	unsigned keys, motions;		/* that came to the i8042's devices */
};

static void ps2_key(void *arg, unsigned code, bool down)
{
	((struct machine *)arg)->keys++;
}

static void ps2_motion(void *arg, const struct input_motion *motion)
{
	((struct machine *)arg)->motions++;
}

static struct machine *machine_new(const struct input_kind *kind)
{
	struct machine *m = calloc(1, sizeof(*m));

	board_init(&m->b);
	assert_int_equal(virtio_input_init(&m->dev, kind, &m->b.ram.mem, &m->b.io, &m->b.err), 0);
	board_start(&m->b, &m->dev.dev);
	m->input = (struct input){ .key = ps2_key, .key_arg = m, .motion = ps2_motion, .motion_arg = m };
	virtio_input_attach(&m->dev, &m->input);
	return m;
}

static void machine_end(struct machine *m)
{
	board_stop(&m->b);
	virtio_input_destroy(&m->dev);
	board_free(&m->b);
	free(m);
}

static void give(struct machine *m, unsigned i)
{
	const struct piece p = { m->buffer[i], 8, true };
	int id = driver_submit(&m->b.q[0], &p, 1, 0);

	assert_true(id >= 0);
	m->of_id[id] = i;
}

static void machine_drive(struct machine *m, u64 features, unsigned buffers)
{
	drive(&m->b, features, 2);
	for (unsigned i = 0; i < QUEUE_SIZE; i++)
		m->buffer[i] = ram_alloc(&m->b.ram, 8);
	for (unsigned i = 0; i < buffers; i++)
		give(m, i);
	kick(&m->b, 0);
}

/* The next event; its buffer goes back. */
static struct virtio_input_event next(struct machine *m)
{
	struct virtio_input_event e;
	u16 id;

	assert_int_equal(wait_used(&m->b, 0, &id), sizeof(e));
	memcpy(&e, at(m->b.ram.bytes, m->buffer[m->of_id[id]]), sizeof(e));
	give(m, m->of_id[id]);
	kick(&m->b, 0);
	return e;
}

static void expect(struct machine *m, u16 type, u16 code, u32 value)
{
	struct virtio_input_event e = next(m);

	if (e.type != type || e.code != code || e.value != value)
		fail_msg("event %u %u %d, not %u %u %d", e.type, e.code, (int)e.value, type, code, (int)value);
}

static void expect_key(struct machine *m, u16 code, u32 value)
{
	expect(m, EV_KEY, code, value);
	expect(m, EV_SYN, SYN_REPORT, 0);
}

static bool queue_empty(struct machine *m)
{
	u32 len;
	u16 id;

	return !driver_take(&m->b.q[0], &id, &len);
}

/* ---- configuration --------------------------------------------------------------------------- */

static u8 config(struct machine *m, u8 select, u8 subsel, u8 *data)
{
	config_out(&m->b, 0, select);
	config_out(&m->b, 1, subsel);
	for (unsigned i = 0; i < 128; i++)
		data[i] = config_in(&m->b, 8 + i);
	return config_in(&m->b, 2);
}

static bool has(const u8 *map, unsigned bit)
{
	return map[bit / 8] >> bit % 8 & 1;
}

static void test_config(void **state)
{
	for (int tablet = 0; tablet < 2; tablet++) {
		struct machine *m = machine_new(tablet ? &virtio_tablet : &virtio_keyboard);
		struct virtio_input_absinfo info;
		u8 d[128], size;

		machine_drive(m, layouts[0], 1);
		size = config(m, VIRTIO_INPUT_CFG_ID_NAME, 0, d);
		assert_int_equal(size, strlen(tablet ? "Qumra virtio tablet" : "Qumra virtio keyboard"));
		assert_memory_equal(d, tablet ? "Qumra virtio tablet" : "Qumra virtio keyboard", size);
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_ID_DEVIDS, 0, d), 8);
		assert_int_equal(d[0] | d[1] << 8, BUS_VIRTUAL);
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_EV_BITS, EV_KEY, d), tablet ? 35 : 32);
		assert_int_equal(has(d, KEY_A), !tablet);
		assert_int_equal(has(d, KEY_ESC), !tablet);
		assert_int_equal(has(d, KEY_VOLUMEUP), !tablet);
		assert_int_equal(has(d, BTN_LEFT), tablet);
		assert_int_equal(has(d, BTN_MIDDLE), tablet);
		assert_false(has(d, 0) || has(d, BTN_SIDE) || has(d, BTN_TOUCH));
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_EV_BITS, EV_LED, d), !tablet);
		assert_int_equal(d[0], tablet ? 0 : 7);
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_EV_BITS, EV_REP, d), !tablet);
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_EV_BITS, EV_REL, d), tablet ? 2 : 0);
		assert_int_equal(has(d, REL_WHEEL), tablet);
		assert_false(has(d, REL_X));
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_EV_BITS, EV_ABS, d), tablet);
		assert_int_equal(d[0], tablet ? 3 : 0);
		for (u8 axis = 0; axis < 3; axis++) {
			bool there = tablet && axis < 2;

			assert_int_equal(config(m, VIRTIO_INPUT_CFG_ABS_INFO, axis, d), there ? 20 : 0);
			memcpy(&info, d, sizeof(info));
			assert_int_equal(info.max, there ? 32767 : 0);
			assert_int_equal(info.min, 0);
		}
		/* The rest of it is nothing, and nothing is left over from before. */
		for (unsigned select = 0; select < 256; select++) {
			static const u8 nothing[128];

			if (select == 1 || select == 3 || select == 0x11 || select == 0x12)
				continue;
			assert_int_equal(config(m, select, 0, d), 0);
			assert_memory_equal(d, nothing, 128);
		}
		assert_int_equal(config(m, VIRTIO_INPUT_CFG_ID_NAME, 1, d), 0);
		/* Other bytes are not the driver's. */
		config_out(&m->b, 2, 99);
		config_out(&m->b, 8, 99);
		config(m, VIRTIO_INPUT_CFG_ID_NAME, 0, d);
		assert_int_equal(d[0], 'Q');
		machine_end(m);
	}
}

/* ---- events ---------------------------------------------------------------------------------- */

static void test_keys(void **state)
{
	for (size_t l = 0; l < ARRAY_SIZE(layouts); l++) {
		struct machine *m = machine_new(&virtio_keyboard);

		/* Before a driver listens the i8042's keyboard has it, and what was pressed there ends there. */
		input_key(&m->input, KEY_A, true);
		assert_int_equal(m->keys, 1);
		machine_drive(m, layouts[l], QUEUE_SIZE);
		input_key(&m->input, KEY_A, false);
		assert_int_equal(m->keys, 2);
		for (unsigned key = KEY_ESC; key <= KEY_MICMUTE; key++) {
			input_key(&m->input, key, true);
			expect_key(m, key, 1);
			input_key(&m->input, key, false);
			expect_key(m, key, 0);
		}
		/* A repetition is the driver's business. */
		input_key(&m->input, KEY_B, true);
		input_key(&m->input, KEY_B, true);
		input_key(&m->input, KEY_LEFTSHIFT, true);
		expect_key(m, KEY_B, 1);
		expect_key(m, KEY_LEFTSHIFT, 1);
		assert_int_equal(m->keys, 2);
		input_key(&m->input, BTN_LEFT, true);
		input_key(&m->input, 100000, true);
		assert_int_equal(m->keys, 4);
		assert_true(queue_empty(m));
		/* A new driver begins with nothing held. */
		machine_drive(m, layouts[l], QUEUE_SIZE);
		assert_true(queue_empty(m));
		input_key(&m->input, KEY_B, false);
		assert_int_equal(m->keys, 5);
		machine_end(m);
	}
}

static bool point(struct machine *m, u32 x, u32 y, s32 wheel, u32 buttons)
{
	const struct input_place p = { .x = x, .y = y, .width = 641, .height = 480, .wheel = wheel,
				       .buttons = buttons };

	return input_place(&m->input, &p);
}

static void test_places(void **state)
{
	struct machine *m = machine_new(&virtio_tablet);

	assert_false(point(m, 1, 1, 0, 0));
	machine_drive(m, layouts[1], QUEUE_SIZE);
	assert_true(point(m, 320, 479, 0, 0));
	expect(m, EV_ABS, ABS_X, 32767 / 2);
	expect(m, EV_ABS, ABS_Y, 32767);
	expect(m, EV_SYN, SYN_REPORT, 0);
	assert_true(point(m, 320, 0, 0, INPUT_LEFT | INPUT_MIDDLE));
	expect(m, EV_ABS, ABS_Y, 0);
	expect(m, EV_KEY, BTN_LEFT, 1);
	expect(m, EV_KEY, BTN_MIDDLE, 1);
	expect(m, EV_SYN, SYN_REPORT, 0);
	assert_true(point(m, 640, 0, 2, INPUT_RIGHT));
	expect(m, EV_ABS, ABS_X, 32767);
	expect(m, EV_REL, REL_WHEEL, -2);
	expect(m, EV_KEY, BTN_LEFT, 0);
	expect(m, EV_KEY, BTN_RIGHT, 1);
	expect(m, EV_KEY, BTN_MIDDLE, 0);
	expect(m, EV_SYN, SYN_REPORT, 0);
	/* Beyond the edge is the edge; what changes nothing says nothing. */
	assert_true(point(m, 5000, 0, 0, INPUT_RIGHT));
	assert_true(queue_empty(m));
	assert_int_equal(m->motions, 0);
	machine_end(m);
}

/* Has the device nothing more to say than what it has put into the queue? */
static bool all_told(struct machine *m)
{
	bool told;

	virtio_lock(&m->dev.dev);
	told = !m->dev.events && !memcmp(&m->dev.now, &m->dev.told, sizeof(m->dev.now));
	virtio_unlock(&m->dev.dev);
	return told;
}

/* A driver that gives no buffers for long: nothing is stuck, and what fits is told in order. */
static void test_overrun(void **state)
{
	struct machine *m = machine_new(&virtio_keyboard);
	bool down[KEY_CNT] = { false };
	unsigned held = 0, events = 0;

	machine_drive(m, layouts[3], 0);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned key = KEY_ESC; key < KEY_ESC + 100; key++) {
			input_key(&m->input, key, true);
			if (key != KEY_Q)
				input_key(&m->input, key, false);
		}
	input_key(&m->input, KEY_Q, false);
	input_key(&m->input, KEY_F12, true);
	assert_int_equal(m->keys, 0);
	assert_true(m->dev.events <= INPUT_WAITING && m->dev.events > INPUT_WAITING - 8);
	for (unsigned i = 0; i < QUEUE_SIZE; i++)
		give(m, i);
	kick(&m->b, 0);
	/* Until all is told. */
	while (!all_told(m) || held != 1 || !down[KEY_F12]) {
		struct virtio_input_event e = next(m);

		events++;
		if (e.type == EV_SYN)
			continue;
		assert_int_equal(e.type, EV_KEY);
		assert_true(down[e.code] != e.value);
		down[e.code] = e.value;
		held += e.value ? 1 : -1;
	}
	assert_true(events >= INPUT_WAITING - 8);
	assert_true(down[KEY_F12] && !down[KEY_Q]);
	machine_end(m);
}

static void test_lamps(void **state)
{
	const struct virtio_input_event e[] = {
		{ EV_LED, LED_CAPSL, 1 }, { EV_LED, LED_NUML, 1 }, { EV_LED, LED_CAPSL, 0 },
		{ EV_LED, LED_MAIL, 1 }, { EV_LED, 0xFFFF, 1 }, { EV_SYN, 0, 0 }, { EV_REP, 0, 250 } };
	struct machine *m = machine_new(&virtio_keyboard);
	struct piece p;

	machine_drive(m, layouts[2], 1);
	p = (struct piece){ ram_alloc(&m->b.ram, sizeof(e)), 8, false };
	memcpy(at(m->b.ram.bytes, p.addr), e, sizeof(e));
	assert_int_equal(transfer(&m->b, 1, &p, 1), 0);
	assert_int_equal(m->dev.leds, BIT(LED_CAPSL));
	p.len = sizeof(e);
	assert_int_equal(transfer(&m->b, 1, &p, 1), 0);
	assert_int_equal(m->dev.leds, BIT(LED_NUML));
	machine_end(m);
}

static void test_bad_drivers(void **state)
{
	const struct { unsigned queue; u32 len; bool in; } bad[] = {
		{ 1, 7, false }, { 1, 9, false }, { 1, 8, true }, { 1, 8 * 65, false },
		{ 0, 7, true }, { 0, 8, false },
	};
	struct machine *m = machine_new(&virtio_keyboard);

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct piece p = { RAM_BASE + 0x100000, bad[i].len, bad[i].in };

		machine_drive(m, layouts[i % 4], 0);
		driver_submit(&m->b.q[bad[i].queue], &p, 1, 0);
		kick(&m->b, bad[i].queue);
		input_key(&m->input, KEY_A, true);
		wait_needs_reset(&m->b);
		/* Nobody listens any more. */
		m->keys = 0;
		input_key(&m->input, KEY_C, true);
		assert_int_equal(m->keys, 1);
	}
	machine_drive(m, layouts[0], QUEUE_SIZE);
	input_key(&m->input, KEY_C, true);
	expect_key(m, KEY_C, 1);
	machine_end(m);
}

/* ---- saved state ----------------------------------------------------------------------------- */

static void test_moves(void **state)
{
	struct machine *m = machine_new(&virtio_tablet);

	for (int i = 0; i < 8; i++) {
		/* Events wait for buffers, a button is held, and it all comes out on the other side. */
		machine_drive(m, layouts[i % 4], 0);
		assert_true(point(m, 640, 0, 0, INPUT_LEFT));
		assert_true(point(m, 640, 479, 1, 0));
		board_reload(&m->b, &virtio_input_device_ops, &m->dev);
		assert_true(point(m, 0, 479, 0, 0));
		for (unsigned n = 0; n < QUEUE_SIZE; n++)
			give(m, n);
		kick(&m->b, 0);
		expect(m, EV_ABS, ABS_X, 32767);
		expect(m, EV_KEY, BTN_LEFT, 1);
		expect(m, EV_SYN, SYN_REPORT, 0);
		board_reload(&m->b, &virtio_input_device_ops, &m->dev);
		expect(m, EV_ABS, ABS_Y, 32767);
		expect(m, EV_REL, REL_WHEEL, -1);
		expect(m, EV_KEY, BTN_LEFT, 0);
		expect(m, EV_SYN, SYN_REPORT, 0);
		expect(m, EV_ABS, ABS_X, 0);
		expect(m, EV_SYN, SYN_REPORT, 0);
	}
	machine_drive(m, layouts[1], 0);
	point(m, 100, 100, 0, INPUT_RIGHT);
	check_round_trip(&virtio_input_device_ops, &m->dev);
	check_bad_states(&virtio_input_device_ops, &m->dev, 100);
	machine_end(m);
}

/* While the machine is paused events wait, and nothing of it reaches the guest's memory. */
static void test_pause(void **state)
{
	struct machine *m = machine_new(&virtio_keyboard);

	machine_drive(m, layouts[0], QUEUE_SIZE);
	virtio_device_ops.pause(&m->dev.dev);
	input_key(&m->input, KEY_A, true);
	input_key(&m->input, KEY_A, false);
	assert_int_equal(m->keys, 0);
	assert_int_equal(m->dev.events, 4);
	assert_true(queue_empty(m));
	virtio_device_ops.resume(&m->dev.dev);
	expect_key(m, KEY_A, 1);
	expect_key(m, KEY_A, 0);
	machine_end(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_keys), cmocka_unit_test(test_places),
		cmocka_unit_test(test_overrun), cmocka_unit_test(test_lamps),
		cmocka_unit_test(test_bad_drivers), cmocka_unit_test(test_moves), cmocka_unit_test(test_pause),
	};

	return board_run_tests(tests, BOARD_ALL);
}
