/* Mouse: see ps2_mouse.h. Motion that finds no room in the queue adds up until there is. */
#include <errno.h>
#include <string.h>

#include "vmm/hw/ps2_mouse.h"

enum {
	MOUSE_SCALE_1 = 0xE6, MOUSE_SCALE_2 = 0xE7, MOUSE_RESOLUTION = 0xE8, MOUSE_STATUS = 0xE9,
	MOUSE_STREAM = 0xEA, MOUSE_READ = 0xEB, MOUSE_END_WRAP = 0xEC, MOUSE_WRAP = 0xEE,
	MOUSE_REMOTE = 0xF0, MOUSE_ID = 0xF2, MOUSE_RATE = 0xF3, MOUSE_ENABLE = 0xF4,
	MOUSE_DISABLE = 0xF5, MOUSE_DEFAULTS = 0xF6, MOUSE_RESEND = 0xFE, MOUSE_RESET = 0xFF,
};

#define STATUS_SCALE_2	BIT(4)
#define STATUS_ENABLED	BIT(5)
#define STATUS_REMOTE	BIT(6)
#define PACKET_ALWAYS	BIT(3)
#define PACKET_X_SIGN	BIT(4)
#define PACKET_Y_SIGN	BIT(5)
#define PACKET_MAX	4
#define RATE_DEFAULT	100
#define MOTION_MAX	(1 << 16)	/* what adds up unread */
#define BUTTONS		7
#define ID_WHEEL	3
#define ID_FIVE		4

static s32 clamp(s32 value, s32 limit)
{
	return MAX(-limit, MIN(value, limit));
}

/* Takes out of *value what a packet holds. */
static s32 packet_part(s32 *value, s32 limit)
{
	s32 part = clamp(*value, limit);

	*value -= part;
	return part;
}

static unsigned packet_make(struct ps2_mouse *m, u8 *out)
{
	s32 dx = packet_part(&m->dx, 255), dy = packet_part(&m->dy, 255);

	out[0] = m->buttons | PACKET_ALWAYS | (dx < 0 ? PACKET_X_SIGN : 0) | (dy < 0 ? PACKET_Y_SIGN : 0);
	out[1] = dx;
	out[2] = dy;
	m->reported = m->buttons;
	if (m->id == 0)
		return 3;
	out[3] = packet_part(&m->wheel, 7) & (m->id == ID_FIVE ? 0x0F : 0xFF);
	return 4;
}

static bool mouse_has_news(const struct ps2_mouse *m)
{
	return m->dx || m->dy || (m->id && m->wheel) || m->buttons != m->reported;
}

static bool mouse_streams(const struct ps2_mouse *m)
{
	return m->status & STATUS_ENABLED && !(m->status & STATUS_REMOTE) && !m->wrap;
}

static void mouse_report(struct ps2_mouse *m)
{
	u8 packet[PACKET_MAX];

	/* Room for two: an answer finds a place, too. */
	while (mouse_streams(m) && mouse_has_news(m) && ps2_room(&m->ps2) >= 2 * PACKET_MAX)
		ps2_send(&m->ps2, packet, packet_make(m, packet));
}

static void mouse_sent(struct ps2_device *dev)
{
	mouse_report(container_of(dev, struct ps2_mouse, ps2));
}

void ps2_mouse_motion(void *arg, const struct input_motion *motion)
{
	struct ps2_mouse *m = arg;

	if (!(m->status & STATUS_ENABLED))
		return;
	m->dx = clamp(m->dx + clamp(motion->dx, MOTION_MAX), MOTION_MAX);
	m->dy = clamp(m->dy - clamp(motion->dy, MOTION_MAX), MOTION_MAX);
	m->wheel = clamp(m->wheel + clamp(motion->wheel, MOTION_MAX), MOTION_MAX);
	m->buttons = motion->buttons & BUTTONS;
	mouse_report(m);
	ps2_ready(&m->ps2);
}

/* ---- commands -------------------------------------------------------------------------------- */

static void mouse_forget(struct ps2_mouse *m)
{
	m->dx = m->dy = m->wheel = 0;
	m->reported = m->buttons;
	ps2_clear(&m->ps2);
}

static void mouse_defaults(struct ps2_mouse *m)
{
	m->status = 0;
	m->resolution = 2;
	m->rate = RATE_DEFAULT;
	m->command = 0;
	m->wrap = false;
	mouse_forget(m);
}

static void answer(struct ps2_mouse *m, u8 value)
{
	ps2_send(&m->ps2, &value, 1);
}

/* 200, 100, 80 ask for a wheel, then 200, 200, 80 for five buttons. */
static void mouse_set_rate(struct ps2_mouse *m, u8 rate)
{
	if (rate == 80 && m->knock[1] == 200) {
		if (m->knock[0] == 100 && m->id == 0)
			m->id = ID_WHEEL;
		else if (m->knock[0] == 200 && m->id == ID_WHEEL)
			m->id = ID_FIVE;
	}
	m->knock[1] = m->knock[0];
	m->knock[0] = m->rate = rate;
}

static void mouse_argument(struct ps2_mouse *m, u8 value)
{
	if (m->command == MOUSE_RATE)
		mouse_set_rate(m, value);
	else
		m->resolution = value & 3;
	m->command = 0;
	answer(m, PS2_ACK);
}

static void mouse_status(struct ps2_mouse *m)
{
	/* Here the right button comes first. */
	static const u8 order[BUTTONS + 1] = { 0, 4, 1, 5, 2, 6, 3, 7 };

	answer(m, m->status | order[m->buttons & BUTTONS]);
	answer(m, m->resolution);
	answer(m, m->rate);
}

static void mouse_read(struct ps2_mouse *m)
{
	u8 packet[PACKET_MAX];

	ps2_send(&m->ps2, packet, packet_make(m, packet));
}

static void mouse_reset_command(struct ps2_mouse *m)
{
	mouse_defaults(m);
	m->id = 0;
	answer(m, PS2_ACK);
	answer(m, PS2_TEST_OK);
	answer(m, 0);
}

/* Those that only set something: the status bits to clear and to set. */
static const struct { u8 command, clear, set; } switches[] = {
	{ MOUSE_SCALE_1, STATUS_SCALE_2, 0 },
	{ MOUSE_SCALE_2, 0, STATUS_SCALE_2 },
	{ MOUSE_STREAM, STATUS_REMOTE, 0 },
	{ MOUSE_REMOTE, 0, STATUS_REMOTE },
	{ MOUSE_ENABLE, 0, STATUS_ENABLED },
	{ MOUSE_DISABLE, STATUS_ENABLED, 0 },
	{ MOUSE_END_WRAP, 0, 0 },
};

static bool mouse_switch(struct ps2_mouse *m, u8 value)
{
	for (size_t i = 0; i < ARRAY_SIZE(switches); i++) {
		if (switches[i].command != value)
			continue;
		m->status = (m->status & ~switches[i].clear) | switches[i].set;
		mouse_forget(m);
		answer(m, PS2_ACK);
		return true;
	}
	return false;
}

static void mouse_command(struct ps2_mouse *m, u8 value)
{
	if (mouse_switch(m, value))
		return;
	switch (value) {
	case MOUSE_RESOLUTION:
	case MOUSE_RATE:
		m->command = value;
		answer(m, PS2_ACK);
		break;
	case MOUSE_STATUS:
		answer(m, PS2_ACK);
		mouse_status(m);
		break;
	case MOUSE_READ:
		answer(m, PS2_ACK);
		mouse_read(m);
		break;
	case MOUSE_WRAP:
		m->wrap = true;
		answer(m, PS2_ACK);
		break;
	case MOUSE_ID:
		answer(m, PS2_ACK);
		answer(m, m->id);
		break;
	case MOUSE_DEFAULTS:
		mouse_defaults(m);
		answer(m, PS2_ACK);
		break;
	case MOUSE_RESEND:
		answer(m, m->ps2.last);
		break;
	case MOUSE_RESET:
		mouse_reset_command(m);
		break;
	default:
		answer(m, PS2_RESEND);
	}
}

static void mouse_write(struct ps2_device *dev, u8 value)
{
	struct ps2_mouse *m = container_of(dev, struct ps2_mouse, ps2);

	if (m->wrap && value != MOUSE_END_WRAP && value != MOUSE_RESET)
		answer(m, value);
	else if (m->command && value < MOUSE_SCALE_1)
		mouse_argument(m, value);
	else {
		m->wrap = false;
		m->command = 0;
		mouse_command(m, value);
	}
	ps2_ready(dev);
}

/* ---- the five verbs -------------------------------------------------------------------------- */

static void mouse_reset(void *dev)
{
	struct ps2_mouse *m = dev;

	m->buttons = 0;
	mouse_defaults(m);
	m->id = 0;
	m->knock[0] = m->knock[1] = 0;
	m->ps2.last = 0;
}

static void mouse_nop(void *dev)
{
	(void)dev;
}

static const struct state_field mouse_fields[] = {
	STATE_FIELD(struct ps2_mouse_state, id, 1),
	STATE_FIELD(struct ps2_mouse_state, status, 1),
	STATE_FIELD(struct ps2_mouse_state, resolution, 1),
	STATE_FIELD(struct ps2_mouse_state, rate, 1),
	STATE_FIELD(struct ps2_mouse_state, knock, 1),
	STATE_FIELD(struct ps2_mouse_state, command, 1),
	STATE_FIELD(struct ps2_mouse_state, wrap, 1),
	STATE_FIELD(struct ps2_mouse_state, buttons, 1),
	STATE_FIELD(struct ps2_mouse_state, reported, 1),
	STATE_FIELD(struct ps2_mouse_state, last, 1),
	STATE_FIELD(struct ps2_mouse_state, len, 1),
	STATE_FIELD(struct ps2_mouse_state, dx, 1),
	STATE_FIELD(struct ps2_mouse_state, dy, 1),
	STATE_FIELD(struct ps2_mouse_state, wheel, 1),
	STATE_FIELD(struct ps2_mouse_state, queue, 1),
};

static const struct state_table mouse_table =
	STATE_TABLE("ps2-mouse", struct ps2_mouse_state, 1, mouse_fields);

static void mouse_save(void *dev, void *state)
{
	const struct ps2_mouse *m = dev;
	struct ps2_mouse_state *st = state;

	*st = (struct ps2_mouse_state){
		.id = m->id, .status = m->status, .resolution = m->resolution, .rate = m->rate,
		.knock = { m->knock[0], m->knock[1] }, .command = m->command, .wrap = m->wrap,
		.buttons = m->buttons, .reported = m->reported, .last = m->ps2.last,
		.len = m->ps2.queue.len, .dx = m->dx, .dy = m->dy, .wheel = m->wheel,
	};
	memcpy(st->queue, m->ps2.queue.data, m->ps2.queue.len);
}

static bool motion_fits(s32 value)
{
	return value >= -MOTION_MAX && value <= MOTION_MAX;
}

static int mouse_load(void *dev, const void *state)
{
	struct ps2_mouse *m = dev;
	const struct ps2_mouse_state *st = state;

	if ((st->id && st->id != ID_WHEEL && st->id != ID_FIVE) || st->resolution > 3 || st->wrap > 1 ||
	    st->buttons > BUTTONS || st->reported > BUTTONS || st->len > PS2_QUEUE ||
	    !motion_fits(st->dx) || !motion_fits(st->dy) || !motion_fits(st->wheel))
		return -EINVAL;
	m->id = st->id;
	m->status = st->status;
	m->resolution = st->resolution;
	m->rate = st->rate;
	memcpy(m->knock, st->knock, sizeof(m->knock));
	m->command = st->command;
	m->wrap = st->wrap;
	m->buttons = st->buttons;
	m->reported = st->reported;
	m->dx = st->dx;
	m->dy = st->dy;
	m->wheel = st->wheel;
	m->ps2.last = st->last;
	m->ps2.queue.len = st->len;
	memcpy(m->ps2.queue.data, st->queue, sizeof(st->queue));
	return 0;
}

const struct device_ops ps2_mouse_device_ops = {
	.table = &mouse_table, .reset = mouse_reset, .pause = mouse_nop, .resume = mouse_nop,
	.save = mouse_save, .load = mouse_load,
};

void ps2_mouse_init(struct ps2_mouse *m)
{
	*m = (struct ps2_mouse){ .ps2.write = mouse_write, .ps2.sent = mouse_sent };
	mouse_reset(m);
}
