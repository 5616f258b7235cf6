/* Resources of the graphics adapter: pictures of ours and the guest's pages behind them. See gpu.h. */
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/gpu.h"

static u64 picture_bytes(u32 width, u32 height)
{
	return (u64)width * height * sizeof(u32);
}

static u64 list_bytes(u32 entries)
{
	return (u64)entries * sizeof(struct virtio_gpu_mem_entry);
}

struct gpu_resource *gpu_resource_find(const struct virtio_gpu *g, u32 id)
{
	struct gpu_resource *r = g->bucket[id % GPU_BUCKETS];

	while (r && r->id != id)
		r = r->next;
	return r;
}

u32 gpu_resource_create(struct virtio_gpu *g, u32 id, u32 format, u32 width, u32 height,
			struct gpu_resource **out)
{
	struct gpu_resource *r, **end = &g->bucket[id % GPU_BUCKETS];

	if (!id || gpu_resource_find(g, id))
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	if (!gpu_format_valid(format) || !width || !height || width > GPU_SIDE_MAX ||
	    height > GPU_SIDE_MAX)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (g->resources == GPU_RESOURCES_MAX || picture_bytes(width, height) > GPU_MEMORY_MAX - g->used)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	r = malloc(sizeof(*r));
	if (!r)
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	*r = (struct gpu_resource){ .id = id, .format = format, .width = width, .height = height,
				    .pixel = calloc((size_t)width * height, sizeof(u32)) };
	if (!r->pixel) {
		free(r);
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	/* At the end, so that a saved state which is loaded has the same order. */
	while (*end)
		end = &(*end)->next;
	*end = r;
	g->resources++;
	g->used += picture_bytes(width, height);
	*out = r;
	return VIRTIO_GPU_RESP_OK_NODATA;
}

void gpu_resource_free(struct virtio_gpu *g, struct gpu_resource *r)
{
	struct gpu_resource **at = &g->bucket[r->id % GPU_BUCKETS];

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	gpu_resource_detach(g, r);
	g->resources--;
	g->used -= picture_bytes(r->width, r->height);
	if (g->scanout == r->id)
		g->scanout = 0;
	free(r->pixel);
	free(r);
}

void gpu_resources_free(struct virtio_gpu *g)
{
	for (unsigned i = 0; i < GPU_BUCKETS; i++)
		while (g->bucket[i])
			gpu_resource_free(g, g->bucket[i]);
}

/* ---- backing --------------------------------------------------------------------------------- */

static bool list_valid(const struct virtio_gpu *g, const struct virtio_gpu_mem_entry *entry, u32 entries,
		       u64 *bytes)
{
	*bytes = 0;
	for (u32 i = 0; i < entries; i++) {
		if (!guest_memory_at(g->dev.mem, entry[i].addr, entry[i].length))
			return false;
		*bytes += entry[i].length;
	}
	return true;
}

u32 gpu_resource_attach(struct virtio_gpu *g, struct gpu_resource *r,
			struct virtio_gpu_mem_entry *entry, u32 entries)
{
	u32 answer = VIRTIO_GPU_RESP_OK_NODATA;
	u64 bytes;

	if (r->entries)
		answer = VIRTIO_GPU_RESP_ERR_UNSPEC;
	else if (list_bytes(entries) > GPU_MEMORY_MAX - g->used)
		answer = VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	else if (!entries || !list_valid(g, entry, entries, &bytes))
		answer = VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (answer != VIRTIO_GPU_RESP_OK_NODATA) {
		free(entry);
		return answer;
	}
	r->entry = entry;
	r->entries = entries;
	r->backed = bytes;
	g->used += list_bytes(entries);
	return answer;
}

void gpu_resource_detach(struct virtio_gpu *g, struct gpu_resource *r)
{
	g->used -= list_bytes(r->entries);
	free(r->entry);
	r->entry = NULL;
	r->entries = 0;
	r->backed = 0;
}

/* ---- transfers ------------------------------------------------------------------------------- */

/* A place in a resource's backing that only moves forward. */
struct backing {
	const struct gpu_resource *r;
	u32 entry;
	u64 before;	/* bytes in the entries before this one */
};

/* offset + len is within the backing, and offset not below that of an earlier call's entry. */
static void backing_read(const struct virtio_gpu *g, struct backing *b, u64 offset, void *to, u64 len)
{
	u8 *out = to;

	while (len) {
		const struct virtio_gpu_mem_entry *e = &b->r->entry[b->entry];
		u64 at = offset - b->before, piece;

		if (at >= e->length) {
			b->before += e->length;
			b->entry++;
			continue;
		}
		piece = MIN(e->length - at, len);
		memcpy(out, guest_memory_at(g->dev.mem, e->addr + at, piece), piece);
		out += piece;
		offset += piece;
		len -= piece;
	}
}

bool gpu_rect_valid(const struct virtio_gpu_rect *rect, u32 width, u32 height)
{
	return rect->width && rect->height && rect->width <= width && rect->height <= height &&
	       rect->x <= width - rect->width && rect->y <= height - rect->height;
}

u32 gpu_resource_transfer(struct virtio_gpu *g, struct gpu_resource *r,
			  const struct virtio_gpu_rect *rect, u64 offset)
{
	u64 row = (u64)rect->width * sizeof(u32), stride = (u64)r->width * sizeof(u32), needs;
	struct backing b = { .r = r };

	if (!gpu_rect_valid(rect, r->width, r->height))
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	if (!r->entries)
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	needs = (rect->height - 1) * stride + row;
	if (needs > r->backed || offset > r->backed - needs)
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	for (u32 y = 0; y < rect->height; y++)
		backing_read(g, &b, offset + y * stride,
			r->pixel + (size_t)(rect->y + y) * r->width + rect->x, row);
	g->copied += rect->height * row;
	return VIRTIO_GPU_RESP_OK_NODATA;
}
