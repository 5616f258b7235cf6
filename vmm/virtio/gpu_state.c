/*
 * The graphics adapter's saved state. Behind the fields of its table come the cursor's picture, if one
 * shows, and the resources: each a table of its own, its list of pages and its picture.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/gpu.h"

struct gpu_state {
	u32 width, height, events, resources, scanout, cursor_shown;
	u32 view[4];
	s32 cursor_at[2];
};

static const struct state_field gpu_fields[] = {
	STATE_FIELD(struct gpu_state, width, 1),
	STATE_FIELD(struct gpu_state, height, 1),
	STATE_FIELD(struct gpu_state, events, 1),
	STATE_FIELD(struct gpu_state, resources, 1),
	STATE_FIELD(struct gpu_state, scanout, 1),
	STATE_FIELD(struct gpu_state, cursor_shown, 1),
	STATE_FIELD(struct gpu_state, view, 1),
	STATE_FIELD(struct gpu_state, cursor_at, 1),
};

static const struct state_table gpu_table = STATE_TABLE("virtio-gpu", struct gpu_state, 1, gpu_fields);

struct resource_state {
	u32 id, format, width, height, entries;
};

static const struct state_field resource_fields[] = {
	STATE_FIELD(struct resource_state, id, 1),
	STATE_FIELD(struct resource_state, format, 1),
	STATE_FIELD(struct resource_state, width, 1),
	STATE_FIELD(struct resource_state, height, 1),
	STATE_FIELD(struct resource_state, entries, 1),
};

static const struct state_table resource_table =
	STATE_TABLE("virtio-gpu-resource", struct resource_state, 1, resource_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

/* ---- saving ---------------------------------------------------------------------------------- */

static void verb_save(void *dev, void *state)
{
	struct virtio_gpu *g = dev;
	struct gpu_state *st = state;

	virtio_lock(&g->dev);
	*st = (struct gpu_state){
		.width = g->width, .height = g->height, .events = g->events,
		.resources = g->resources, .scanout = g->scanout,
		.view = { g->view.x, g->view.y, g->view.width, g->view.height },
		.cursor_shown = g->cursor.shown, .cursor_at = { g->cursor.x, g->cursor.y },
	};
	virtio_unlock(&g->dev);
}

/* What does not fit is not written, and *at says by its negative value. */
static void put(u8 *buf, size_t size, long *at, const void *data, size_t n)
{
	if (*at < 0 || n > size - *at) {
		*at = -ENOSPC;
		return;
	}
	memcpy(buf + *at, data, n);
	*at += n;
}

static void put_resource(u8 *buf, size_t size, long *at, const struct gpu_resource *r)
{
	const struct resource_state st = { r->id, r->format, r->width, r->height, r->entries };
	long n = *at < 0 ? *at : state_write(&resource_table, &st, buf + *at, size - *at);

	*at = n < 0 ? n : *at + n;
	if (r->entries)
		put(buf, size, at, r->entry, r->entries * sizeof(*r->entry));
	put(buf, size, at, r->pixel, (size_t)r->width * r->height * sizeof(u32));
}

static long verb_save_more(void *dev, void *buf, size_t size)
{
	struct virtio_gpu *g = dev;
	long at = 0;

	virtio_lock(&g->dev);
	if (g->cursor.shown)
		put(buf, size, &at, g->cursor.pixel, sizeof(g->cursor.pixel));
	for (unsigned i = 0; i < GPU_BUCKETS; i++)
		for (const struct gpu_resource *r = g->bucket[i]; r; r = r->next)
			put_resource(buf, size, &at, r);
	virtio_unlock(&g->dev);
	return at;
}

/* ---- loading --------------------------------------------------------------------------------- */

struct source {
	const u8 *at;
	size_t left;
};

static const void *get(struct source *s, u64 n)
{
	const u8 *p = s->at;

	if (n > s->left)
		return NULL;
	s->at += n;
	s->left -= n;
	return p;
}

static int get_backing(struct virtio_gpu *g, struct gpu_resource *r, u32 entries, struct source *s)
{
	size_t bytes = (size_t)entries * sizeof(struct virtio_gpu_mem_entry);
	const void *list = entries <= GPU_ENTRIES_MAX ? get(s, bytes) : NULL;
	struct virtio_gpu_mem_entry *copy = list ? malloc(bytes) : NULL;

	if (!copy)
		return list ? -ENOMEM : -EINVAL;
	memcpy(copy, list, bytes);
	return gpu_resource_attach(g, r, copy, entries) == VIRTIO_GPU_RESP_OK_NODATA ? 0 : -EINVAL;
}

static int get_resource(struct virtio_gpu *g, struct source *s)
{
	struct resource_state st;
	struct gpu_resource *r;
	const void *picture;
	long n = state_read(&resource_table, &st, s->at, s->left);

	if (n < 0)
		return n;
	get(s, n);
	if (gpu_resource_create(g, st.id, st.format, st.width, st.height, &r) !=
	    VIRTIO_GPU_RESP_OK_NODATA)
		return -EINVAL;
	if (st.entries) {
		int ret = get_backing(g, r, st.entries, s);

		if (ret < 0)
			return ret;
	}
	picture = get(s, (u64)r->width * r->height * sizeof(u32));
	if (!picture)
		return -EINVAL;
	memcpy(r->pixel, picture, (size_t)r->width * r->height * sizeof(u32));
	return 0;
}

static bool mode_valid(u32 n)
{
	return n >= GPU_MODE_MIN && n <= GPU_MODE_MAX;
}

/* The scanout's resource is among those that were loaded. */
static bool scanout_valid(const struct virtio_gpu *g, const struct gpu_state *st)
{
	const struct virtio_gpu_rect view = { st->view[0], st->view[1], st->view[2], st->view[3] };
	const struct gpu_resource *r = gpu_resource_find(g, st->scanout);

	return st->scanout ? r && gpu_view_valid(r, &view) : true;
}

static int load_fresh(struct virtio_gpu *fresh, const struct gpu_state *st, struct source *s)
{
	const void *cursor = NULL;

	if (!mode_valid(st->width) || !mode_valid(st->height) || st->events & ~VIRTIO_GPU_EVENT_DISPLAY ||
	    st->cursor_shown > 1)
		return -EINVAL;
	if (st->cursor_shown && !(cursor = get(s, sizeof(fresh->cursor.pixel))))
		return -EINVAL;
	if (cursor)
		memcpy(fresh->cursor.pixel, cursor, sizeof(fresh->cursor.pixel));
	for (u32 i = 0; i < st->resources; i++) {
		int ret = get_resource(fresh, s);

		if (ret < 0)
			return ret;
	}
	return scanout_valid(fresh, st) ? 0 : -EINVAL;
}

/* Everything was checked: the old resources go, the fresh ones take their place. */
static void take_over(struct virtio_gpu *g, struct virtio_gpu *fresh, const struct gpu_state *st)
{
	gpu_resources_free(g);
	memcpy(g->bucket, fresh->bucket, sizeof(g->bucket));
	g->resources = fresh->resources;
	g->used = fresh->used;
	g->cursor = fresh->cursor;
	memset(fresh->bucket, 0, sizeof(fresh->bucket));
	g->width = st->width;
	g->height = st->height;
	g->events = st->events;
	g->scanout = st->scanout;
	g->view = (struct virtio_gpu_rect){ st->view[0], st->view[1], st->view[2], st->view[3] };
	g->cursor.shown = st->cursor_shown;
	g->cursor.x = st->cursor_at[0];
	g->cursor.y = st->cursor_at[1];
	gpu_dirty_all(g);
}

static long verb_load_more(void *dev, const void *state, const void *buf, size_t size)
{
	struct virtio_gpu *g = dev, *fresh = calloc(1, sizeof(*fresh));
	struct source s = { buf, size };
	int ret;

	if (!fresh)
		return -ENOMEM;
	fresh->dev.mem = g->dev.mem;
	ret = load_fresh(fresh, state, &s);
	if (ret == 0) {
		virtio_lock(&g->dev);
		take_over(g, fresh, state);
		virtio_unlock(&g->dev);
	}
	gpu_resources_free(fresh);
	free(fresh);
	return ret < 0 ? ret : (long)(size - s.left);
}

const struct device_ops virtio_gpu_device_ops = {
	.table = &gpu_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .save_more = verb_save_more, .load_more = verb_load_more,
};
