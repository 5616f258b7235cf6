/*
 * Commands of the graphics adapter (virtio 1.2, 5.7.6): see gpu.h. Each is done when its buffer goes back,
 * so a fence is reached with its command's answer.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/gpu.h"
#include "vmm/virtio/sg.h"

#define GPU_QUEUES		2
#define GPU_CONTROL_SIZE	128
#define GPU_TURN_BYTES		(64U << 20)	/* copied before others of the thread have a turn */

enum { QUEUE_CONTROL, QUEUE_CURSOR };

_Static_assert(sizeof(struct virtio_gpu_ctrl_hdr) == 24, "virtio 1.2 5.7.6.7");
_Static_assert(sizeof(struct virtio_gpu_resp_display_info) == 24 + 16 * 24, "virtio 1.2 5.7.6.8");
_Static_assert(sizeof(struct virtio_gpu_resp_edid) == 24 + 8 + 1024, "virtio 1.2 5.7.6.8");
_Static_assert(sizeof(struct virtio_gpu_update_cursor) == 56, "virtio 1.2 5.7.6.10");
_Static_assert(sizeof(struct virtio_gpu_transfer_to_host_2d) == 56, "virtio 1.2 5.7.6.8");
_Static_assert(sizeof(struct virtio_gpu_mem_entry) == 16, "virtio 1.2 5.7.6.8");
_Static_assert(sizeof(struct virtio_gpu_config) == 16, "virtio 1.2 5.7.4");

static struct virtio_gpu *to_gpu(struct virtio_device *d)
{
	return container_of(d, struct virtio_gpu, dev);
}

/* A command on its way: copied, so that it does not change under us. */
struct request {
	const struct virtq_chain *chain;
	union {
		struct virtio_gpu_ctrl_hdr hdr;
		struct virtio_gpu_resource_create_2d create;
		struct virtio_gpu_resource_unref unref;
		struct virtio_gpu_set_scanout scanout;
		struct virtio_gpu_resource_flush flush;
		struct virtio_gpu_transfer_to_host_2d transfer;
		struct virtio_gpu_resource_attach_backing attach;
		struct virtio_gpu_resource_detach_backing detach;
		struct virtio_gpu_cmd_get_edid edid;
		struct virtio_gpu_update_cursor cursor;
	} cmd;
	union {
		struct virtio_gpu_ctrl_hdr hdr;
		struct virtio_gpu_resp_display_info info;
		struct virtio_gpu_resp_edid edid;
	} answer;
};

/* ---- commands: each returns VIRTIO_GPU_RESP_* ------------------------------------------------- */

static u32 get_display_info(struct virtio_gpu *g, struct request *q)
{
	q->answer.info.pmodes[0].r = (struct virtio_gpu_rect){ 0, 0, g->width, g->height };
	q->answer.info.pmodes[0].enabled = 1;
	return VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
}

static u32 get_edid(struct virtio_gpu *g, struct request *q)
{
	if (!virtio_has(&g->dev, VIRTIO_GPU_F_EDID))
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	if (q->cmd.edid.scanout)
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	q->answer.edid.size = GPU_EDID_SIZE;
	gpu_edid_make(q->answer.edid.edid, g->width, g->height);
	return VIRTIO_GPU_RESP_OK_EDID;
}

static u32 resource_create(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_resource_create_2d *c = &q->cmd.create;
	struct gpu_resource *r;

	return gpu_resource_create(g, c->resource_id, c->format, c->width, c->height, &r);
}

static u32 resource_unref(struct virtio_gpu *g, struct request *q)
{
	struct gpu_resource *r = gpu_resource_find(g, q->cmd.unref.resource_id);

	if (!r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	gpu_resource_free(g, r);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static u32 set_scanout(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_set_scanout *c = &q->cmd.scanout;
	const struct gpu_resource *r = gpu_resource_find(g, c->resource_id);

	if (c->scanout_id)
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	if (c->resource_id && !r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (r && !gpu_view_valid(r, &c->r))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	g->scanout = c->resource_id;
	g->view = r ? c->r : (struct virtio_gpu_rect){ 0 };
	gpu_dirty_all(g);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static u32 resource_flush(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_resource_flush *c = &q->cmd.flush;
	const struct gpu_resource *r = gpu_resource_find(g, c->resource_id);

	if (!r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!gpu_rect_valid(&c->r, r->width, r->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	gpu_flush(g, r, &c->r);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static u32 transfer_to_host(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_transfer_to_host_2d *c = &q->cmd.transfer;
	struct gpu_resource *r = gpu_resource_find(g, c->resource_id);

	return r ? gpu_resource_transfer(g, r, &c->r, c->offset)
		 : VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
}

static u32 attach_backing(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_resource_attach_backing *c = &q->cmd.attach;
	struct gpu_resource *r = gpu_resource_find(g, c->resource_id);
	u64 bytes = (u64)c->nr_entries * sizeof(struct virtio_gpu_mem_entry);
	struct virtio_gpu_mem_entry *entry;

	if (!r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!c->nr_entries || c->nr_entries > GPU_ENTRIES_MAX || bytes > q->chain->out_bytes - sizeof(*c))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	entry = malloc(bytes);
	if (!entry)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	sg_read(q->chain->iov, q->chain->outs, sizeof(*c), entry, bytes);
	g->copied += bytes;
	return gpu_resource_attach(g, r, entry, c->nr_entries);
}

static u32 detach_backing(struct virtio_gpu *g, struct request *q)
{
	struct gpu_resource *r = gpu_resource_find(g, q->cmd.detach.resource_id);

	if (!r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!r->entries)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	gpu_resource_detach(g, r);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static u32 update_cursor(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_update_cursor *c = &q->cmd.cursor;
	const struct gpu_resource *r = gpu_resource_find(g, c->resource_id);

	if (c->pos.scanout_id)
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	if (c->resource_id && !r)
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (r)
		gpu_cursor_load(g, r);
	gpu_cursor_place(g, r, c->pos.x, c->pos.y);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static u32 move_cursor(struct virtio_gpu *g, struct request *q)
{
	const struct virtio_gpu_cursor_pos *pos = &q->cmd.cursor.pos;

	if (pos->scanout_id)
		return VIRTIO_GPU_RESP_ERR_INVALID_SCANOUT_ID;
	gpu_cursor_place(g, g->cursor.shown, pos->x, pos->y);
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static const struct command {
	u32 type, size;
	u32 (*run)(struct virtio_gpu *g, struct request *q);
} control_commands[] = {
	{ VIRTIO_GPU_CMD_GET_DISPLAY_INFO, sizeof(struct virtio_gpu_ctrl_hdr), get_display_info },
	{ VIRTIO_GPU_CMD_RESOURCE_CREATE_2D, sizeof(struct virtio_gpu_resource_create_2d), resource_create },
	{ VIRTIO_GPU_CMD_RESOURCE_UNREF, sizeof(struct virtio_gpu_resource_unref), resource_unref },
	{ VIRTIO_GPU_CMD_SET_SCANOUT, sizeof(struct virtio_gpu_set_scanout), set_scanout },
	{ VIRTIO_GPU_CMD_RESOURCE_FLUSH, sizeof(struct virtio_gpu_resource_flush), resource_flush },
	{ VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D, sizeof(struct virtio_gpu_transfer_to_host_2d),
		transfer_to_host },
	{ VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING, sizeof(struct virtio_gpu_resource_attach_backing),
		attach_backing },
	{ VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING, sizeof(struct virtio_gpu_resource_detach_backing),
		detach_backing },
	{ VIRTIO_GPU_CMD_GET_EDID, sizeof(struct virtio_gpu_cmd_get_edid), get_edid },
}, cursor_commands[] = {
	{ VIRTIO_GPU_CMD_UPDATE_CURSOR, sizeof(struct virtio_gpu_update_cursor), update_cursor },
	{ VIRTIO_GPU_CMD_MOVE_CURSOR, sizeof(struct virtio_gpu_update_cursor), move_cursor },
};

/* ---- queues ---------------------------------------------------------------------------------- */

/* Returns the answer's type; what is no command of this queue is answered, too. */
static u32 command_run(struct virtio_gpu *g, struct request *q, const struct command *table, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (table[i].type != q->cmd.hdr.type)
			continue;
		return q->chain->out_bytes < table[i].size ? VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER
							   : table[i].run(g, q);
	}
	return VIRTIO_GPU_RESP_ERR_UNSPEC;
}

static u32 answer_size(u32 type)
{
	if (type == VIRTIO_GPU_RESP_OK_DISPLAY_INFO)
		return sizeof(struct virtio_gpu_resp_display_info);
	return type == VIRTIO_GPU_RESP_OK_EDID ? sizeof(struct virtio_gpu_resp_edid)
					       : sizeof(struct virtio_gpu_ctrl_hdr);
}

static void request_answer(struct virtio_gpu *g, unsigned queue, struct request *q, u32 type)
{
	const struct virtq_chain *c = q->chain;

	if (answer_size(type) > c->in_bytes)
		type = VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	q->answer.hdr.type = type;
	if (q->cmd.hdr.flags & VIRTIO_GPU_FLAG_FENCE) {
		q->answer.hdr.flags = VIRTIO_GPU_FLAG_FENCE;
		q->answer.hdr.fence_id = q->cmd.hdr.fence_id;
		q->answer.hdr.ctx_id = q->cmd.hdr.ctx_id;
	}
	virtio_done(&g->dev, queue, c,
		sg_write(c->iov + c->outs, c->ins, 0, &q->answer, MIN((u64)answer_size(type), c->in_bytes)));
}

/* 5.7.6.7: each request has a header, and in the control queue room for an answer. */
static bool gpu_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_gpu *g = to_gpu(d);
	struct request q = { .chain = c };
	u32 type;

	if (g->copied >= GPU_TURN_BYTES) {
		g->copied = 0;
		virtio_queue_kick(d, queue);
		return false;
	}
	if (sg_read(c->iov, c->outs, 0, &q.cmd, sizeof(q.cmd)) < sizeof(q.cmd.hdr) ||
	    (queue == QUEUE_CONTROL && c->in_bytes < sizeof(q.answer.hdr))) {
		virtio_fail(d);
		return true;
	}
	if (queue == QUEUE_CONTROL)
		type = command_run(g, &q, control_commands, ARRAY_SIZE(control_commands));
	else
		type = command_run(g, &q, cursor_commands, ARRAY_SIZE(cursor_commands));
	/* Cursors are moved often: their drivers leave the answer out. */
	if (c->in_bytes >= sizeof(q.answer.hdr))
		request_answer(g, queue, &q, type);
	else
		virtio_done(d, queue, c, 0);
	return true;
}

static void gpu_kick(struct virtio_device *d, unsigned queue)
{
	virtio_queue_run(d, queue, gpu_take);
}

/* ---- the device ------------------------------------------------------------------------------ */

static void gpu_stop(struct virtio_device *d)
{
	struct virtio_gpu *g = to_gpu(d);

	gpu_resources_free(g);
	g->scanout = 0;
	g->view = (struct virtio_gpu_rect){ 0 };
	memset(&g->cursor, 0, sizeof(g->cursor));
	gpu_dirty_all(g);
	g->events = 0;
	g->copied = 0;
}

static void gpu_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_gpu *g = to_gpu(d);
	const struct virtio_gpu_config c = { .events_read = g->events, .num_scanouts = 1 };

	memcpy(data, (const u8 *)&c + offset, len);
}

static void gpu_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	struct virtio_gpu *g = to_gpu(d);
	u32 clear;

	if (offset != offsetof(struct virtio_gpu_config, events_clear) || len != sizeof(clear))
		return;
	memcpy(&clear, data, sizeof(clear));
	g->events &= ~clear;
}

static const struct virtio_device_ops gpu_ops = {
	.name = "virtio-gpu", .id = VIRTIO_ID_GPU, .kick = gpu_kick, .stop = gpu_stop,
	.config_read = gpu_config_read, .config_write = gpu_config_write,
};

void virtio_gpu_set_mode(struct virtio_gpu *g, u32 width, u32 height)
{
	g->width = MIN(MAX(width, (u32)GPU_MODE_MIN), (u32)GPU_MODE_MAX);
	g->height = MIN(MAX(height, (u32)GPU_MODE_MIN), (u32)GPU_MODE_MAX);
	g->events |= VIRTIO_GPU_EVENT_DISPLAY;
	virtio_config_changed(&g->dev);
}

int virtio_gpu_init(struct virtio_gpu *g, const struct gpu_options *o, const struct guest_memory *mem,
		    struct io_thread *io, struct error *err)
{
	memset(g, 0, sizeof(*g));
	g->width = o->width ? o->width : GPU_WIDTH;
	g->height = o->height ? o->height : GPU_HEIGHT;
	return virtio_init(&g->dev, &gpu_ops, BIT(VIRTIO_GPU_F_EDID), GPU_QUEUES, GPU_CONTROL_SIZE,
		sizeof(struct virtio_gpu_config), mem, io, err);
}

void virtio_gpu_destroy(struct virtio_gpu *g)
{
	virtio_destroy(&g->dev);
	gpu_resources_free(g);
}
