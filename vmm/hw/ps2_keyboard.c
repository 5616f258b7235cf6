/*
 * Keyboard: see ps2_keyboard.h. A key's code in set 1 is what the controller's translation makes of
 * its code in set 2, so one of the two is computed. Keys repeat when the front end says so: people's
 * keyboards do that already.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <string.h>

#include "vmm/hw/ps2_keyboard.h"

#define EXTENDED	0xE0
#define RELEASE_2	0xF0	/* set 2: before the code */
#define RELEASE_1	0x80	/* set 1: in the code */
#define OVERRUN_1	0xFF
#define OVERRUN_2	0x00
#define RATE_DEFAULT	0x2B	/* 10.9 characters a second after 500 ms */

enum {
	KBD_SET_LEDS = 0xED, KBD_ECHO = 0xEE, KBD_SCAN_SET = 0xF0, KBD_ID = 0xF2, KBD_RATE = 0xF3,
	KBD_ENABLE = 0xF4, KBD_DISABLE = 0xF5, KBD_DEFAULTS = 0xF6, KBD_ALL_KEYS = 0xF7,
	KBD_KEY_TYPES_LAST = 0xFA, KBD_RESEND = 0xFE, KBD_RESET = 0xFF,
};

/* The i8042's table, by the byte of set 2; what is not here stays. */
static const u8 translation[] = {
	0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
	0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
	0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
	0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
	0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
	0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
	0x80, 0x81, 0x82, 0x41, 0x54,
};

u8 ps2_translate(u8 value)
{
	return value < sizeof(translation) ? translation[value] : value;
}

/* Set 1's code of a key: Linux's own for the 84 keys of the AT and those that came right after. */
static u8 key_code(unsigned key, bool *extended)
{
	static const struct { u8 key, code; } more[] = {
		{ KEY_KPENTER, 0x1C }, { KEY_RIGHTCTRL, 0x1D }, { KEY_KPSLASH, 0x35 },
		{ KEY_SYSRQ, 0x37 }, { KEY_RIGHTALT, 0x38 }, { KEY_HOME, 0x47 }, { KEY_UP, 0x48 },
		{ KEY_PAGEUP, 0x49 }, { KEY_LEFT, 0x4B }, { KEY_RIGHT, 0x4D }, { KEY_END, 0x4F },
		{ KEY_DOWN, 0x50 }, { KEY_PAGEDOWN, 0x51 }, { KEY_INSERT, 0x52 },
		{ KEY_DELETE, 0x53 }, { KEY_LEFTMETA, 0x5B }, { KEY_RIGHTMETA, 0x5C },
		{ KEY_COMPOSE, 0x5D },
	};

	*extended = false;
	if ((key >= KEY_ESC && key <= KEY_KPDOT) || (key >= KEY_102ND && key <= KEY_F12))
		return key;
	*extended = true;
	for (size_t i = 0; i < ARRAY_SIZE(more); i++)
		if (more[i].key == key)
			return more[i].code;
	return 0;
}

static u8 untranslate(u8 code)
{
	/* 0x83 is F7 and 0x84 Alt and SysRq; 0x02 and 0x7F stand for keys that nobody has. */
	for (unsigned i = sizeof(translation); i-- > 1;)
		if (translation[i] == code && i != 0x02 && i != 0x7F)
			return i;
	return 0;
}

static unsigned make_set_1(u8 code, bool extended, bool down, u8 *out)
{
	unsigned n = 0;

	if (extended)
		out[n++] = EXTENDED;
	out[n++] = down ? code : code | RELEASE_1;
	return n;
}

static unsigned make_set_2(u8 code, bool extended, bool down, u8 *out)
{
	unsigned n = 0;

	if (extended)
		out[n++] = EXTENDED;
	if (!down)
		out[n++] = RELEASE_2;
	out[n++] = untranslate(code);
	return n;
}

/* It has no release: all comes at once. */
static unsigned make_pause(u8 set, u8 *out)
{
	static const u8 set_1[] = { 0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5 };
	static const u8 set_2[] = { 0xE1, 0x14, 0x77, 0xE1, 0xF0, 0x14, 0xF0, 0x77 };

	memcpy(out, set == 1 ? set_1 : set_2, set == 1 ? sizeof(set_1) : sizeof(set_2));
	return set == 1 ? sizeof(set_1) : sizeof(set_2);
}

static void keyboard_send(struct ps2_keyboard *k, const u8 *data, unsigned n)
{
	const u8 lost = k->set == 1 ? OVERRUN_1 : OVERRUN_2;

	/* One place is kept for the byte that says that there was no more. */
	if (n < ps2_room(&k->ps2)) {
		k->overrun = false;
		ps2_send(&k->ps2, data, n);
	} else if (!k->overrun) {
		k->overrun = ps2_send(&k->ps2, &lost, 1);
	}
	ps2_ready(&k->ps2);
}

void ps2_keyboard_key(void *arg, unsigned key, bool down)
{
	struct ps2_keyboard *k = arg;
	bool extended;
	u8 code = key_code(key, &extended), bytes[8];
	unsigned n = 0;

	if (!k->scanning)
		return;
	if (key == KEY_PAUSE)
		n = down ? make_pause(k->set, bytes) : 0;
	else if (code && k->set == 1)
		n = make_set_1(code, extended, down, bytes);
	else if (code)
		n = make_set_2(code, extended, down, bytes);
	if (n)
		keyboard_send(k, bytes, n);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void keyboard_defaults(struct ps2_keyboard *k)
{
	k->rate = RATE_DEFAULT;
	k->set = 2;
	k->command = 0;
	k->overrun = false;
	ps2_clear(&k->ps2);
}

static void answer(struct ps2_keyboard *k, u8 value)
{
	ps2_send(&k->ps2, &value, 1);
}

static void keyboard_argument(struct ps2_keyboard *k, u8 value)
{
	u8 command = k->command;

	k->command = 0;
	answer(k, command == KBD_SCAN_SET && value > 2 ? PS2_RESEND : PS2_ACK);
	switch (command) {
	case KBD_SET_LEDS:
		k->leds = value & 7;
		break;
	case KBD_RATE:
		k->rate = value & 0x7F;
		break;
	case KBD_SCAN_SET:
		if (!value)
			answer(k, k->set);
		else if (value <= 2)
			k->set = value;
		break;
	}
}

static void keyboard_reset_command(struct ps2_keyboard *k)
{
	keyboard_defaults(k);
	k->leds = 0;
	k->scanning = true;
	answer(k, PS2_ACK);
	answer(k, PS2_TEST_OK);
}

static void keyboard_command(struct ps2_keyboard *k, u8 value)
{
	switch (value) {
	case KBD_ECHO:
		answer(k, KBD_ECHO);
		break;
	case KBD_SET_LEDS:
	case KBD_SCAN_SET:
	case KBD_RATE:
		k->command = value;
		answer(k, PS2_ACK);
		break;
	case KBD_ID:
		answer(k, PS2_ACK);
		answer(k, 0xAB);
		answer(k, 0x83);
		break;
	case KBD_ENABLE:
		ps2_clear(&k->ps2);
		k->scanning = true;
		answer(k, PS2_ACK);
		break;
	case KBD_DISABLE:
	case KBD_DEFAULTS:
		keyboard_defaults(k);
		k->scanning = value == KBD_DEFAULTS;
		answer(k, PS2_ACK);
		break;
	case KBD_ALL_KEYS ... KBD_KEY_TYPES_LAST:	/* of set 3, which we lack */
		answer(k, PS2_ACK);
		break;
	case KBD_RESEND:
		answer(k, k->ps2.last);
		break;
	case KBD_RESET:
		keyboard_reset_command(k);
		break;
	default:
		answer(k, PS2_RESEND);
	}
}

static void keyboard_write(struct ps2_device *dev, u8 value)
{
	struct ps2_keyboard *k = container_of(dev, struct ps2_keyboard, ps2);

	/* A command in place of an argument is a command. */
	if (k->command && value < KBD_SET_LEDS)
		keyboard_argument(k, value);
	else {
		k->command = 0;
		keyboard_command(k, value);
	}
	ps2_ready(dev);
}

/* ---- the five verbs -------------------------------------------------------------------------- */

static void keyboard_reset(void *dev)
{
	struct ps2_keyboard *k = dev;

	keyboard_defaults(k);
	k->leds = 0;
	k->ps2.last = 0;
	k->scanning = true;
}

static void keyboard_nop(void *dev)
{
	(void)dev;
}

static const struct state_field keyboard_fields[] = {
	STATE_FIELD(struct ps2_keyboard_state, scanning, 1),
	STATE_FIELD(struct ps2_keyboard_state, set, 1),
	STATE_FIELD(struct ps2_keyboard_state, leds, 1),
	STATE_FIELD(struct ps2_keyboard_state, rate, 1),
	STATE_FIELD(struct ps2_keyboard_state, command, 1),
	STATE_FIELD(struct ps2_keyboard_state, overrun, 1),
	STATE_FIELD(struct ps2_keyboard_state, last, 1),
	STATE_FIELD(struct ps2_keyboard_state, len, 1),
	STATE_FIELD(struct ps2_keyboard_state, queue, 1),
};

static const struct state_table keyboard_table =
	STATE_TABLE("ps2-keyboard", struct ps2_keyboard_state, 1, keyboard_fields);

static void keyboard_save(void *dev, void *state)
{
	const struct ps2_keyboard *k = dev;
	struct ps2_keyboard_state *st = state;

	*st = (struct ps2_keyboard_state){
		.scanning = k->scanning, .set = k->set, .leds = k->leds, .rate = k->rate,
		.command = k->command, .overrun = k->overrun, .last = k->ps2.last,
		.len = k->ps2.queue.len,
	};
	memcpy(st->queue, k->ps2.queue.data, k->ps2.queue.len);
}

static int keyboard_load(void *dev, const void *state)
{
	struct ps2_keyboard *k = dev;
	const struct ps2_keyboard_state *st = state;

	if (st->scanning > 1 || st->set < 1 || st->set > 2 || st->overrun > 1 || st->len > PS2_QUEUE)
		return -EINVAL;
	k->scanning = st->scanning;
	k->set = st->set;
	k->leds = st->leds;
	k->rate = st->rate;
	k->command = st->command;
	k->overrun = st->overrun;
	k->ps2.last = st->last;
	k->ps2.queue.len = st->len;
	memcpy(k->ps2.queue.data, st->queue, sizeof(st->queue));
	return 0;
}

const struct device_ops ps2_keyboard_device_ops = {
	.table = &keyboard_table, .reset = keyboard_reset, .pause = keyboard_nop,
	.resume = keyboard_nop, .save = keyboard_save, .load = keyboard_load,
};

void ps2_keyboard_init(struct ps2_keyboard *k)
{
	*k = (struct ps2_keyboard){ .ps2.write = keyboard_write };
	keyboard_reset(k);
}
