/*
 * virtio graphics adapter, its 2D part (virtio 1.2, 5.7), with one scanout.
 *
 * A resource is a picture of ours that the guest fills from its own memory: TRANSFER_TO_HOST_2D copies
 * out of the pages that are attached to it. All of that goes on in the device's thread; what the
 * scanout shows gets to the display when somebody looks (virtio_gpu_draw()), with the cursor drawn
 * into it. Host memory for resources is bounded.
 */
#ifndef QUMRA_VMM_VIRTIO_GPU_H
#define QUMRA_VMM_VIRTIO_GPU_H

#include <linux/virtio_gpu.h>

#include "vmm/display/display.h"
#include "vmm/virtio/options.h"
#include "vmm/virtio/virtio.h"

#define GPU_MEMORY_MAX		(256ULL << 20)	/* of all resources: pictures and lists of pages */
#define GPU_RESOURCES_MAX	4096
#define GPU_SIDE_MAX		16384		/* of a resource */
#define GPU_ENTRIES_MAX		65536		/* of its backing: 256 MiB in single pages */
#define GPU_CURSOR_SIDE		64
#define GPU_BUCKETS		64
#define GPU_WIDTH		1280		/* what a driver is told to take, unless told otherwise */
#define GPU_HEIGHT		800
/* An EDID's detailed timing has 12 bits for each. */
#define GPU_MODE_MIN		64
#define GPU_MODE_MAX		4095
#define GPU_EDID_SIZE		128

struct gpu_resource {
	struct gpu_resource *next;	/* in its bucket */
	u32 id, format, width, height;
	u32 *pixel;			/* as in the guest: rows follow each other without gaps */
	u32 entries;			/* 0: no backing */
	struct virtio_gpu_mem_entry *entry;	/* all of them RAM */
	u64 backed;			/* bytes in them */
};

struct gpu_cursor {
	bool shown;
	s32 x, y;			/* its upper left corner in the picture */
	u32 pixel[GPU_CURSOR_SIDE * GPU_CURSOR_SIDE];	/* ARGB, colours multiplied by alpha */
};

struct virtio_gpu {
	struct virtio_device dev;
	u32 width, height;		/* what the driver is told to take */
	u32 events;			/* VIRTIO_GPU_EVENT_* that it has not cleared */
	struct gpu_resource *bucket[GPU_BUCKETS];
	u32 resources;
	u64 used;			/* of GPU_MEMORY_MAX */
	u32 scanout;			/* the resource that shows; 0: none */
	struct virtio_gpu_rect view;	/* the part of it */
	struct gpu_cursor cursor;
	u32 dirty_from, dirty_to;	/* rows of the view to be drawn anew */
	u64 copied;			/* bytes, since others last had a turn */
	u32 line[DISPLAY_WIDTH_MAX];	/* a row while it is drawn */
};

int virtio_gpu_init(struct virtio_gpu *g, const struct gpu_options *o, const struct guest_memory *mem,
		    struct io_thread *io, struct error *err);
void virtio_gpu_destroy(struct virtio_gpu *g);
/* Draws what has changed; false: nothing is to be shown. arg: the gpu. Under the machine's lock. */
bool virtio_gpu_draw(void *arg, struct display *d);
/*
 * Asks the driver to take another size, within GPU_MODE_*. Under the device's lock. For front ends that
 * have a wish of their own; VNC's is not asked yet.
 */
void virtio_gpu_set_mode(struct virtio_gpu *g, u32 width, u32 height);

extern const struct device_ops virtio_gpu_device_ops;	/* self: a struct virtio_gpu */

/* ---- between gpu*.c; what returns u32 returns VIRTIO_GPU_RESP_* ------------------------------- */

/* gpu_resource.c */
struct gpu_resource *gpu_resource_find(const struct virtio_gpu *g, u32 id);
/* In the new one, *out, the picture is black. */
u32 gpu_resource_create(struct virtio_gpu *g, u32 id, u32 format, u32 width, u32 height,
			struct gpu_resource **out);
void gpu_resource_free(struct virtio_gpu *g, struct gpu_resource *r);
void gpu_resources_free(struct virtio_gpu *g);
/* Takes the list, which was malloc()ed, over in any case. */
u32 gpu_resource_attach(struct virtio_gpu *g, struct gpu_resource *r,
			struct virtio_gpu_mem_entry *entry, u32 entries);
void gpu_resource_detach(struct virtio_gpu *g, struct gpu_resource *r);
/* From offset in its backing on; rows lie as far apart as they do in the whole picture. */
u32 gpu_resource_transfer(struct virtio_gpu *g, struct gpu_resource *r,
			  const struct virtio_gpu_rect *rect, u64 offset);
/* Is it inside, and not empty? */
bool gpu_rect_valid(const struct virtio_gpu_rect *rect, u32 width, u32 height);

/* gpu_draw.c */
bool gpu_format_valid(u32 format);
/* Could this part of the resource be shown? */
bool gpu_view_valid(const struct gpu_resource *r, const struct virtio_gpu_rect *view);
/* A part of a resource is to be shown as it is now. */
void gpu_flush(struct virtio_gpu *g, const struct gpu_resource *r, const struct virtio_gpu_rect *rect);
void gpu_dirty_all(struct virtio_gpu *g);
void gpu_cursor_load(struct virtio_gpu *g, const struct gpu_resource *r);
void gpu_cursor_place(struct virtio_gpu *g, bool shown, s32 x, s32 y);

/* gpu_edid.c */
void gpu_edid_make(u8 edid[GPU_EDID_SIZE], u32 width, u32 height);

#endif
