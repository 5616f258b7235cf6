/*
 * The SCSI host (virtio 1.2, 5.6). A request is a header with the command, data to be written, room for
 * the answer and for data that are read. What a unit makes of the command is vmm/scsi/'s matter. The
 * sizes of command and sense data are the driver's choice, within bounds.
 */
#include <errno.h>
#include <linux/virtio_scsi.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/scsi.h"
#include "vmm/virtio/sg.h"

#define SCSI_QUEUE_SIZE	256
/* Header and answer take a descriptor each. */
#define SCSI_SEG_MAX	(SCSI_QUEUE_SIZE - 2)
#define SCSI_SECTORS_MAX 0xFFFF		/* of 512 bytes, in a request */
#define SENSE_SIZE_MAX	252		/* SPC-4 4.5.1 */
#define FUNCTION_COMPLETE VIRTIO_SCSI_S_OK	/* 5.6.6.2: the name of 0 there */
#define CDB_SIZE_MAX	260		/* SPC-4 4.2.1 */

enum { QUEUE_CONTROL, QUEUE_EVENT, QUEUE_REQUEST };

/* 5.6.6.1, without what the driver sizes. */
struct request_head {
	u8 lun[8];
	u64 tag;
	u8 task_attr, prio, crn;
} __attribute__((packed));

struct request_answer {
	u32 sense_len, resid;
	u16 status_qualifier;
	u8 status, response;
};

_Static_assert(sizeof(struct request_head) == 19, "virtio 1.2 5.6.6.1");
_Static_assert(sizeof(struct request_answer) == 12, "virtio 1.2 5.6.6.1");
_Static_assert(sizeof(struct virtio_scsi_config) == 36, "virtio 1.2 5.6.4");
_Static_assert(sizeof(struct virtio_scsi_event) == 16, "virtio 1.2 5.6.6.3");

struct scsi_request {
	struct virtio_scsi *scsi;
	struct scsi_task task;
	unsigned queue;
	u32 sense_size;			/* when it began */
	struct scsi_request *next;
	struct virtq_chain chain;
	struct iovec data[VIRTQ_SIZE_MAX];	/* the part of chain that is data */
};

static struct virtio_scsi *to_scsi(struct virtio_device *d)
{
	return container_of(d, struct virtio_scsi, dev);
}

/* 5.6.6.1: 1, target, LUN in flat or peripheral format. False: no such target. */
static bool lun_target(const struct virtio_scsi *s, const u8 *lun, unsigned *target)
{
	*target = lun[1];
	return lun[0] == 1 && lun[1] < s->units;
}

static bool lun_is_unit(const u8 *lun)
{
	static const u8 none[4];

	return !(lun[2] & 0x3F) && !lun[3] && memcmp(lun + 4, none, 4) == 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

static struct scsi_request *request_get(struct virtio_scsi *s)
{
	struct scsi_request *r = s->free;

	if (r)
		s->free = r->next;
	else
		r = malloc(sizeof(*r));
	if (r)
		r->scsi = s;
	return r;
}

static void request_finish(struct scsi_request *r, u8 response)
{
	const struct scsi_task *t = &r->task;
	const struct virtq_chain *c = &r->chain;
	u64 asked = t->out_bytes + t->in_bytes;
	struct request_answer a = { .status = t->status, .response = response };
	u8 sense[SENSE_SIZE_MAX] = { 0 };

	if (t->overrun)
		a.response = VIRTIO_SCSI_S_OVERRUN;
	if (a.response == VIRTIO_SCSI_S_OK) {
		a.sense_len = MIN(t->sense_len, r->sense_size);
		a.resid = asked - t->moved;
		memcpy(sense, t->sense, a.sense_len);
	}
	sg_write(c->iov + c->outs, c->ins, 0, &a, sizeof(a));
	sg_write(c->iov + c->outs, c->ins, sizeof(a), sense, r->sense_size);
	virtio_done(&r->scsi->dev, r->queue, c,
		sizeof(a) + r->sense_size + (t->in_bytes ? t->moved : 0));
	r->next = r->scsi->free;
	r->scsi->free = r;
}

static void request_done(struct scsi_task *t)
{
	request_finish(container_of(t, struct scsi_request, task), VIRTIO_SCSI_S_OK);
}

static void request_start(struct scsi_request *r, u32 cdb_size)
{
	struct virtq_chain *c = &r->chain;
	struct scsi_task *t = &r->task;
	struct request_head h;
	unsigned target, n;

	sg_read(c->iov, c->outs, 0, &h, sizeof(h));
	sg_read(c->iov, c->outs, sizeof(h), t->cdb, MIN(cdb_size, sizeof(t->cdb)));
	t->out_bytes = c->out_bytes - sizeof(h) - cdb_size;
	t->in_bytes = c->in_bytes - sizeof(struct request_answer) - r->sense_size;
	/* Both ways at once: no command of ours does it, and INOUT is not offered. */
	if (t->out_bytes && t->in_bytes) {
		request_finish(r, VIRTIO_SCSI_S_FAILURE);
		return;
	}
	if (!lun_target(r->scsi, h.lun, &target)) {
		request_finish(r, VIRTIO_SCSI_S_BAD_TARGET);
		return;
	}
	if (t->out_bytes)
		n = sg_slice(c->iov, c->outs, sizeof(h) + cdb_size, t->out_bytes, r->data);
	else
		n = sg_slice(c->iov + c->outs, c->ins, sizeof(struct request_answer) + r->sense_size,
			t->in_bytes, r->data);
	t->out = t->in = r->data;
	t->outs = t->out_bytes ? n : 0;
	t->ins = t->out_bytes ? 0 : n;
	t->unit = lun_is_unit(h.lun) ? &r->scsi->unit[target] : NULL;
	t->done = request_done;
	scsi_submit(t);
}

static bool request_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_scsi *s = to_scsi(d);
	struct scsi_request *r;

	if (c->out_bytes < sizeof(struct request_head) + s->cdb_size ||
	    c->in_bytes < sizeof(struct request_answer) + s->sense_size) {
		virtio_fail(d);
		return true;
	}
	r = request_get(s);
	if (!r)		/* one that is in flight will bring us back */
		return false;
	r->queue = queue;
	r->sense_size = s->sense_size;
	r->task = (struct scsi_task){ 0 };
	memcpy(&r->chain, c, offsetof(struct virtq_chain, iov));
	memcpy(r->chain.iov, c->iov, (c->outs + c->ins) * sizeof(c->iov[0]));
	request_start(r, s->cdb_size);
	for (unsigned i = 0; i < s->units; i++)
		if (s->unit[i].block)
			block_plugged_turn(s->unit[i].block);
	return true;
}

static void requests_run(struct virtio_device *d, unsigned queue)
{
	struct virtio_scsi *s = to_scsi(d);

	for (unsigned i = 0; i < s->units; i++)
		if (s->unit[i].block)
			block_plug(s->unit[i].block);
	virtio_queue_run(d, queue, request_take);
	for (unsigned i = 0; i < s->units; i++)
		if (s->unit[i].block)
			block_unplug(s->unit[i].block);
}

static void scsi_drain(struct virtio_device *d)
{
	struct virtio_scsi *s = to_scsi(d);

	for (unsigned i = 0; i < s->units; i++)
		scsi_unit_drain(&s->unit[i]);
}

/* ---- the control queue ----------------------------------------------------------------------- */

/*
 * Nothing can be taken back from the host, so whatever is to be aborted is waited for: when we answer
 * there is no such task any more (SAM-5 7).
 */
static u8 manage(struct virtio_scsi *s, const struct virtio_scsi_ctrl_tmf_req *req)
{
	unsigned target;

	if (!lun_target(s, req->lun, &target))
		return VIRTIO_SCSI_S_BAD_TARGET;
	if (!lun_is_unit(req->lun) && req->subtype != VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET)
		return VIRTIO_SCSI_S_INCORRECT_LUN;
	switch (req->subtype) {
	case VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET:
	case VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET:
		scsi_unit_drain(&s->unit[target]);
		scsi_unit_reset(&s->unit[target]);
		return FUNCTION_COMPLETE;
	case VIRTIO_SCSI_T_TMF_ABORT_TASK:
	case VIRTIO_SCSI_T_TMF_ABORT_TASK_SET:
	case VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET:
	case VIRTIO_SCSI_T_TMF_QUERY_TASK:
	case VIRTIO_SCSI_T_TMF_QUERY_TASK_SET:
		scsi_unit_drain(&s->unit[target]);
		return FUNCTION_COMPLETE;
	default:
		return VIRTIO_SCSI_S_FUNCTION_REJECTED;
	}
}

static void control_manage(struct virtio_scsi *s, unsigned queue, const struct virtq_chain *c)
{
	struct virtio_scsi_ctrl_tmf_req req;
	u8 response;

	if (sg_read(c->iov, c->outs, 0, &req, sizeof(req)) != sizeof(req) || !c->in_bytes) {
		virtio_fail(&s->dev);
		return;
	}
	response = manage(s, &req);
	virtio_done(&s->dev, queue, c, sg_write(c->iov + c->outs, c->ins, 0, &response, 1));
}

/* Asynchronous notification: no unit has any. */
static void control_notify(struct virtio_scsi *s, unsigned queue, const struct virtq_chain *c)
{
	struct virtio_scsi_ctrl_an_resp resp = { .response = VIRTIO_SCSI_S_OK };
	struct virtio_scsi_ctrl_an_req req;
	unsigned target;

	if (sg_read(c->iov, c->outs, 0, &req, sizeof(req)) != sizeof(req) ||
	    c->in_bytes < sizeof(resp)) {
		virtio_fail(&s->dev);
		return;
	}
	if (!lun_target(s, req.lun, &target))
		resp.response = VIRTIO_SCSI_S_BAD_TARGET;
	virtio_done(&s->dev, queue, c, sg_write(c->iov + c->outs, c->ins, 0, &resp, sizeof(resp)));
}

static bool control_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_scsi *s = to_scsi(d);
	u32 type;

	if (sg_read(c->iov, c->outs, 0, &type, sizeof(type)) != sizeof(type))
		virtio_fail(d);
	else if (type == VIRTIO_SCSI_T_TMF)
		control_manage(s, queue, c);
	else if (type == VIRTIO_SCSI_T_AN_QUERY || type == VIRTIO_SCSI_T_AN_SUBSCRIBE)
		control_notify(s, queue, c);
	else
		virtio_done(d, queue, c, 0);
	return true;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void event_send(struct virtio_scsi *s, const struct virtio_scsi_event *event)
{
	struct virtio_scsi_event e = *event;
	struct virtq_chain c;

	if (!virtio_pop_or_wait(&s->dev, QUEUE_EVENT, &c)) {
		s->events_missed |= e.event != 0;
		return;
	}
	if (c.in_bytes < sizeof(e)) {
		virtio_fail(&s->dev);
		return;
	}
	e.event |= s->events_missed ? VIRTIO_SCSI_T_EVENTS_MISSED : 0;
	s->events_missed = false;
	virtio_done(&s->dev, QUEUE_EVENT, &c, sg_write(c.iov + c.outs, c.ins, 0, &e, sizeof(e)));
}

static void resized_send(struct virtio_scsi *s)
{
	while (s->resized && virtio_has(&s->dev, VIRTIO_SCSI_F_CHANGE)) {
		unsigned unit = __builtin_ctz(s->resized);
		/* The unit as REPORT LUNS has it, so that Linux knows it again. */
		const struct virtio_scsi_event event = {
			.event = VIRTIO_SCSI_T_PARAM_CHANGE, .lun = { 1, unit },
			.reason = 0x2A | 0x09 << 8,	/* the capacity has changed: ASC and ASCQ */
		};

		s->resized &= s->resized - 1;
		event_send(s, &event);
	}
}

/* One that is paused tells it when it goes on: then its event queue is kicked. */
void virtio_scsi_resized(struct virtio_scsi *s, unsigned unit)
{
	scsi_unit_resized(&s->unit[unit]);
	s->resized |= 1u << unit;
	if (virtio_running(&s->dev))
		resized_send(s);
}

static void scsi_kick(struct virtio_device *d, unsigned queue)
{
	static const struct virtio_scsi_event missed;

	if (queue == QUEUE_CONTROL)
		virtio_queue_run(d, queue, control_take);
	else if (queue != QUEUE_EVENT)
		requests_run(d, queue);
	else
		resized_send(to_scsi(d));
	if (queue == QUEUE_EVENT && to_scsi(d)->events_missed)
		event_send(to_scsi(d), &missed);
}

/* ---- configuration and status ---------------------------------------------------------------- */

static void scsi_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_scsi *s = to_scsi(d);
	const struct virtio_scsi_config c = {
		.num_queues = d->queues - QUEUE_REQUEST,
		.seg_max = SCSI_SEG_MAX,
		.max_sectors = SCSI_SECTORS_MAX,
		.cmd_per_lun = 128,
		.event_info_size = sizeof(struct virtio_scsi_event),
		.sense_size = s->sense_size,
		.cdb_size = s->cdb_size,
		.max_target = s->units ? s->units - 1 : 0,
	};

	memcpy(data, (const u8 *)&c + offset, len);
}

static bool sizes_valid(u32 sense_size, u32 cdb_size)
{
	return sense_size <= SENSE_SIZE_MAX && cdb_size && cdb_size <= CDB_SIZE_MAX;
}

/* 5.6.4: two fields can be written. */
static void scsi_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	struct virtio_scsi *s = to_scsi(d);
	u32 value, sense_size = s->sense_size, cdb_size = s->cdb_size;

	if (len != sizeof(value))
		return;
	memcpy(&value, data, sizeof(value));
	if (offset == offsetof(struct virtio_scsi_config, sense_size))
		sense_size = value;
	else if (offset == offsetof(struct virtio_scsi_config, cdb_size))
		cdb_size = value;
	if (!sizes_valid(sense_size, cdb_size)) {
		virtio_fail(d);
		return;
	}
	s->sense_size = sense_size;
	s->cdb_size = cdb_size;
}

static void scsi_stop(struct virtio_device *d)
{
	struct virtio_scsi *s = to_scsi(d);

	scsi_drain(d);
	for (unsigned i = 0; i < s->units; i++)
		scsi_unit_reset(&s->unit[i]);
	s->events_missed = false;
	s->resized = 0;
	s->sense_size = VIRTIO_SCSI_SENSE_DEFAULT_SIZE;
	s->cdb_size = VIRTIO_SCSI_CDB_DEFAULT_SIZE;
}

static const struct virtio_device_ops scsi_ops = {
	.name = "virtio-scsi", .id = VIRTIO_ID_SCSI, .kick = scsi_kick, .stop = scsi_stop,
	.pause = scsi_drain, .config_read = scsi_config_read, .config_write = scsi_config_write,
};

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct scsi_state {
	u32 sense_size, cdb_size;
	u8 events_missed;
	u8 attention[SCSI_UNITS_MAX], media_event[SCSI_UNITS_MAX], flags[SCSI_UNITS_MAX];
};

enum { UNIT_LOCKED = 1, UNIT_OPEN = 2 };

static const struct state_field scsi_fields[] = {
	STATE_FIELD(struct scsi_state, sense_size, 1),
	STATE_FIELD(struct scsi_state, cdb_size, 1),
	STATE_FIELD(struct scsi_state, events_missed, 1),
	STATE_FIELD(struct scsi_state, attention, 1),
	STATE_FIELD(struct scsi_state, media_event, 1),
	STATE_FIELD(struct scsi_state, flags, 1),
};

static const struct state_table scsi_table =
	STATE_TABLE("virtio-scsi", struct scsi_state, 1, scsi_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_scsi *s = dev;
	struct scsi_state *st = state;

	virtio_lock(&s->dev);
	st->sense_size = s->sense_size;
	st->cdb_size = s->cdb_size;
	st->events_missed = s->events_missed || s->resized;
	for (unsigned i = 0; i < s->units; i++) {
		const struct scsi_unit *u = &s->unit[i];

		st->attention[i] = u->attention;
		st->media_event[i] = u->media_event;
		st->flags[i] = (u->locked ? UNIT_LOCKED : 0) | (u->open ? UNIT_OPEN : 0);
	}
	virtio_unlock(&s->dev);
}

static bool state_valid(const struct virtio_scsi *s, const struct scsi_state *st)
{
	if (!sizes_valid(st->sense_size, st->cdb_size) || st->events_missed > 1)
		return false;
	for (unsigned i = 0; i < s->units; i++)
		if (st->attention[i] & ~SCSI_ATTENTION_ALL || st->media_event[i] > 3 ||
		    st->flags[i] & ~(UNIT_LOCKED | UNIT_OPEN) ||
		    (st->flags[i] & UNIT_OPEN && s->unit[i].kind != SCSI_CD))
			return false;
	return true;
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_scsi *s = dev;
	const struct scsi_state *st = state;

	if (!state_valid(s, st))
		return -EINVAL;
	virtio_lock(&s->dev);
	s->sense_size = st->sense_size;
	s->cdb_size = st->cdb_size;
	s->events_missed = st->events_missed;
	for (unsigned i = 0; i < s->units; i++) {
		struct scsi_unit *u = &s->unit[i];

		u->attention = st->attention[i];
		u->media_event = st->media_event[i];
		u->locked = st->flags[i] & UNIT_LOCKED;
		u->open = st->flags[i] & UNIT_OPEN;
	}
	virtio_unlock(&s->dev);
	return 0;
}

const struct device_ops virtio_scsi_device_ops = {
	.table = &scsi_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_scsi_init(struct virtio_scsi *s, unsigned queues, const struct guest_memory *mem,
		     struct io_thread *io, struct error *err)
{
	/* Units do not come and go, but without HOTPLUG Linux gives no buffers for events at all. */
	u64 features = BIT(VIRTIO_SCSI_F_CHANGE) | BIT(VIRTIO_SCSI_F_HOTPLUG);

	*s = (struct virtio_scsi){
		.sense_size = VIRTIO_SCSI_SENSE_DEFAULT_SIZE,
		.cdb_size = VIRTIO_SCSI_CDB_DEFAULT_SIZE,
	};
	return virtio_init(&s->dev, &scsi_ops, features, QUEUE_REQUEST + queues, SCSI_QUEUE_SIZE,
		sizeof(struct virtio_scsi_config), mem, io, err);
}

void virtio_scsi_add(struct virtio_scsi *s, enum scsi_kind kind, struct block *block,
		     const char *serial)
{
	scsi_unit_init(&s->unit[s->units++], kind, block, serial);
}

void virtio_scsi_destroy(struct virtio_scsi *s)
{
	struct scsi_request *r;

	virtio_destroy(&s->dev);
	for (unsigned i = 0; i < s->units; i++)
		scsi_unit_destroy(&s->unit[i]);
	s->units = 0;
	while ((r = s->free)) {
		s->free = r->next;
		free(r);
	}
}
