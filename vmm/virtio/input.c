/* Keyboard and tablet on their queues: see input.h. */
#include <errno.h>
#include <string.h>

#include "vmm/virtio/input.h"
#include "vmm/virtio/sg.h"

#define INPUT_QUEUES		2
#define INPUT_QUEUE_SIZE	64
#define REPORT_MAX		8	/* events; both axes, three buttons, the wheel and SYN_REPORT are 7 */
#define STATUS_MAX		64	/* events in a buffer of the driver's */
#define PUSH_MAX		32	/* buffers given back at once */

enum { QUEUE_EVENT, QUEUE_STATUS };

_Static_assert(sizeof(struct virtio_input_config) == 136, "virtio 1.2 5.8.4");
_Static_assert(sizeof(struct virtio_input_event) == 8, "virtio 1.2 5.8.6");

static struct virtio_input *to_input(struct virtio_device *d)
{
	return container_of(d, struct virtio_input, dev);
}

/* ---- reports --------------------------------------------------------------------------------- */

struct report {
	unsigned n;
	struct virtio_input_event event[REPORT_MAX];
};

static void report_add(struct report *r, u16 type, u16 code, u32 value)
{
	r->event[r->n++] = (struct virtio_input_event){ type, code, value };
}

static bool key_get(const u8 *down, unsigned code)
{
	return down[code / 8] >> code % 8 & 1;
}

static void key_set(u8 *down, unsigned code, bool on)
{
	if (on)
		down[code / 8] |= 1 << code % 8;
	else
		down[code / 8] &= ~(1 << code % 8);
}

/*
 * All that has changed since the last report, as far as it fits into one. A wheel has no state: its turn
 * is given, and lost where there is no room.
 */
static void report_changes(struct virtio_input *v, struct report *r, s32 wheel)
{
	for (unsigned i = 0; v->kind->axes && i < INPUT_AXES; i++) {
		if (v->now.abs[i] == v->told.abs[i])
			continue;
		report_add(r, EV_ABS, ABS_X + i, v->now.abs[i]);
		v->told.abs[i] = v->now.abs[i];
	}
	if (wheel)
		report_add(r, EV_REL, REL_WHEEL, wheel);
	for (unsigned key = v->kind->first; key <= v->kind->last && r->n < REPORT_MAX - 1; key++) {
		bool down = key_get(v->now.down, key);

		if (down == key_get(v->told.down, key))
			continue;
		report_add(r, EV_KEY, key, down);
		key_set(v->told.down, key, down);
	}
	if (r->n)
		report_add(r, EV_SYN, SYN_REPORT, 0);
}

/* False: there was nothing to say, or there is no room. */
static bool report_queue(struct virtio_input *v, s32 wheel)
{
	struct report r = { 0 };

	if (v->events + REPORT_MAX > INPUT_WAITING)
		return false;
	report_changes(v, &r, wheel);
	memcpy(v->event + v->events, r.event, r.n * sizeof(r.event[0]));
	v->events += r.n;
	return r.n;
}

/* ---- the event queue ------------------------------------------------------------------------- */

/* As many events as there are buffers, at most PUSH_MAX; returns how many. */
static unsigned events_put(struct virtio_input *v)
{
	struct virtio_device *d = &v->dev;
	struct virtq_used used[PUSH_MAX];
	struct virtq_chain c;
	unsigned n = 0;

	while (n < PUSH_MAX && n < v->events && virtio_pop_or_wait(d, QUEUE_EVENT, &c)) {
		if (c.outs || sg_write(c.iov, c.ins, 0, &v->event[n], sizeof(v->event[n])) <
				      sizeof(v->event[n])) {
			virtio_fail(d);
			break;
		}
		used[n++] = (struct virtq_used){ c.id, c.slots, sizeof(v->event[0]) };
	}
	if (n)
		virtio_push(d, QUEUE_EVENT, used, n);
	v->events -= n;
	memmove(v->event, v->event + n, v->events * sizeof(v->event[0]));
	return n;
}

/* What waits goes out, and what had no room to wait. */
static void events_run(struct virtio_input *v)
{
	do {
		while (virtio_running(&v->dev) && v->dev.queue[QUEUE_EVENT].vq.ready && events_put(v))
			;
	} while (report_queue(v, 0));
}

/* ---- the status queue ------------------------------------------------------------------------ */

static void status_event(struct virtio_input *v, const struct virtio_input_event *e)
{
	if (e->type != EV_LED || e->code >= 32 || !(v->kind->leds & BIT(e->code)))
		return;
	if (e->value)
		v->leds |= BIT(e->code);
	else
		v->leds &= ~BIT(e->code);
}

static bool status_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_input_event e;

	if (c->ins || !c->out_bytes || c->out_bytes % sizeof(e) || c->out_bytes > STATUS_MAX * sizeof(e)) {
		virtio_fail(d);
		return true;
	}
	for (u64 at = 0; at < c->out_bytes; at += sizeof(e))
		if (sg_read(c->iov, c->outs, at, &e, sizeof(e)) == sizeof(e))
			status_event(to_input(d), &e);
	virtio_done(d, queue, c, 0);
	return true;
}

static void input_kick(struct virtio_device *d, unsigned queue)
{
	if (queue == QUEUE_STATUS)
		virtio_queue_run(d, queue, status_take);
	else
		events_run(to_input(d));
}

/* ---- configuration and status ---------------------------------------------------------------- */

static void input_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_input *v = to_input(d);
	struct virtio_input_config c = { .select = v->select, .subsel = v->subsel };

	c.size = input_config_make(v->kind, v->select, v->subsel, c.u.bitmap);
	memcpy(data, (const u8 *)&c + offset, len);
}

/* 5.8.5.1: two bytes can be written. */
static void input_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	struct virtio_input *v = to_input(d);
	const u8 *byte = data;

	for (u32 i = 0; i < len; i++) {
		if (offset + i == offsetof(struct virtio_input_config, select))
			v->select = byte[i];
		else if (offset + i == offsetof(struct virtio_input_config, subsel))
			v->subsel = byte[i];
	}
}

/* A new driver knows nothing of what is held down, and is told nothing: it has not seen it pressed. */
static void input_stop(struct virtio_device *d)
{
	struct virtio_input *v = to_input(d);

	v->select = v->subsel = 0;
	v->leds = 0;
	v->events = 0;
	v->now = v->told = (struct input_now){ 0 };
}

static const struct virtio_device_ops input_ops = {
	.name = "virtio-input", .id = VIRTIO_ID_INPUT, .kick = input_kick, .stop = input_stop,
	.config_read = input_config_read, .config_write = input_config_write,
};

/* ---- from the front end ---------------------------------------------------------------------- */

/* Is there a driver? While the machine is paused events wait. */
static bool listens(const struct virtio_input *v)
{
	return v->dev.status & VIRTIO_CONFIG_S_DRIVER_OK &&
	       !(v->dev.status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

bool virtio_input_key(void *arg, unsigned code, bool down)
{
	struct virtio_input *v = arg;
	bool taken = false;

	if (code < v->kind->first || code > v->kind->last)
		return false;
	virtio_lock(&v->dev);
	/* What was pressed elsewhere is released there. */
	if (listens(v) && (down || key_get(v->now.down, code))) {
		key_set(v->now.down, code, down);
		report_queue(v, 0);
		events_run(v);
		taken = true;
	}
	virtio_unlock(&v->dev);
	return taken;
}

static u32 place_scale(u32 at, u32 size)
{
	return size < 2 ? 0 : (u64)MIN(at, size - 1) * INPUT_ABS_MAX / (size - 1);
}

bool virtio_input_place(void *arg, const struct input_place *place)
{
	struct virtio_input *v = arg;
	bool taken;

	virtio_lock(&v->dev);
	taken = listens(v);
	if (taken) {
		v->now.abs[0] = place_scale(place->x, place->width);
		v->now.abs[1] = place_scale(place->y, place->height);
		key_set(v->now.down, BTN_LEFT, place->buttons & INPUT_LEFT);
		key_set(v->now.down, BTN_RIGHT, place->buttons & INPUT_RIGHT);
		key_set(v->now.down, BTN_MIDDLE, place->buttons & INPUT_MIDDLE);
		report_queue(v, -place->wheel);	/* REL_WHEEL counts away from the person */
		events_run(v);
	}
	virtio_unlock(&v->dev);
	return taken;
}

void virtio_input_attach(struct virtio_input *v, struct input *input)
{
	if (v->kind->axes) {
		input->place = virtio_input_place;
		input->place_arg = v;
	} else {
		input->key_first = virtio_input_key;
		input->key_first_arg = v;
	}
}

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct input_state {
	u8 select, subsel;
	u32 leds;
	u8 down[INPUT_KEY_BYTES], told_down[INPUT_KEY_BYTES];
	u32 abs[INPUT_AXES], told_abs[INPUT_AXES];
	u32 events;
	struct virtio_input_event event[INPUT_WAITING];
};

static const struct state_field input_fields[] = {
	STATE_FIELD(struct input_state, select, 1),
	STATE_FIELD(struct input_state, subsel, 1),
	STATE_FIELD(struct input_state, leds, 1),
	STATE_FIELD(struct input_state, down, 1),
	STATE_FIELD(struct input_state, told_down, 1),
	STATE_FIELD(struct input_state, abs, 1),
	STATE_FIELD(struct input_state, told_abs, 1),
	STATE_FIELD(struct input_state, events, 1),
	STATE_FIELD(struct input_state, event, 1),
};

static const struct state_table input_table =
	STATE_TABLE("virtio-input", struct input_state, 1, input_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_input *v = dev;
	struct input_state *st = state;

	virtio_lock(&v->dev);
	*st = (struct input_state){ .select = v->select, .subsel = v->subsel, .leds = v->leds,
				    .events = v->events };
	memcpy(st->down, v->now.down, sizeof(st->down));
	memcpy(st->told_down, v->told.down, sizeof(st->told_down));
	memcpy(st->abs, v->now.abs, sizeof(st->abs));
	memcpy(st->told_abs, v->told.abs, sizeof(st->told_abs));
	memcpy(st->event, v->event, v->events * sizeof(v->event[0]));
	virtio_unlock(&v->dev);
}

static bool now_valid(const struct input_kind *kind, const u8 *down, const u32 *abs)
{
	for (unsigned key = 0; key <= KEY_MAX; key++)
		if (key_get(down, key) && (key < kind->first || key > kind->last))
			return false;
	for (unsigned i = 0; i < INPUT_AXES; i++)
		if (abs[i] > (kind->axes ? INPUT_ABS_MAX : 0))
			return false;
	return true;
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_input *v = dev;
	const struct input_state *st = state;

	if (st->events > INPUT_WAITING || st->leds & ~v->kind->leds ||
	    !now_valid(v->kind, st->down, st->abs) || !now_valid(v->kind, st->told_down, st->told_abs))
		return -EINVAL;
	virtio_lock(&v->dev);
	v->select = st->select;
	v->subsel = st->subsel;
	v->leds = st->leds;
	v->events = st->events;
	memcpy(v->now.down, st->down, sizeof(st->down));
	memcpy(v->told.down, st->told_down, sizeof(st->told_down));
	memcpy(v->now.abs, st->abs, sizeof(st->abs));
	memcpy(v->told.abs, st->told_abs, sizeof(st->told_abs));
	memcpy(v->event, st->event, st->events * sizeof(v->event[0]));
	virtio_unlock(&v->dev);
	return 0;
}

const struct device_ops virtio_input_device_ops = {
	.table = &input_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_input_init(struct virtio_input *v, const struct input_kind *kind,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	*v = (struct virtio_input){ .kind = kind };
	return virtio_init(&v->dev, &input_ops, 0, INPUT_QUEUES, INPUT_QUEUE_SIZE,
		sizeof(struct virtio_input_config), mem, io, err);
}

void virtio_input_destroy(struct virtio_input *v)
{
	virtio_destroy(&v->dev);
}
