/* What the graphics adapter shows: the scanout's picture with the cursor in it. See gpu.h. */
#include <string.h>

#include "vmm/virtio/gpu.h"

/* 5.7.6.8: a format's name says its bytes in memory; here where they lie in a word. */
struct format {
	u8 r, g, b, a;	/* the lowest bit */
	bool known;
};

static const struct format *format_of(u32 format)
{
	static const struct format formats[] = {
		[VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM] = { 16, 8, 0, 24, true },
		[VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM] = { 16, 8, 0, 24, true },
		[VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM] = { 8, 16, 24, 0, true },
		[VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM] = { 8, 16, 24, 0, true },
		[VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM] = { 0, 8, 16, 24, true },
		[VIRTIO_GPU_FORMAT_X8B8G8R8_UNORM] = { 24, 16, 8, 0, true },
		[VIRTIO_GPU_FORMAT_A8B8G8R8_UNORM] = { 24, 16, 8, 0, true },
		[VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM] = { 0, 8, 16, 24, true },
	};

	return format < ARRAY_SIZE(formats) && formats[format].known ? &formats[format] : NULL;
}

bool gpu_format_valid(u32 format)
{
	return format_of(format);
}

static u32 byte_of(u32 pixel, u8 shift)
{
	return pixel >> shift & 0xFF;
}

/* 0x00RRGGBB */
static u32 color_of(const struct format *f, u32 pixel)
{
	return byte_of(pixel, f->r) << 16 | byte_of(pixel, f->g) << 8 | byte_of(pixel, f->b);
}

/* ---- what is to be drawn anew ---------------------------------------------------------------- */

/* Rows of the view; what lies outside is cut off. */
static void dirty_add(struct virtio_gpu *g, s64 from, s64 to)
{
	from = MAX(from, 0);
	to = MIN(to, (s64)g->view.height);
	if (!g->scanout || from >= to)
		return;
	if (g->dirty_from >= g->dirty_to) {
		g->dirty_from = from;
		g->dirty_to = to;
		return;
	}
	g->dirty_from = MIN(g->dirty_from, (u32)from);
	g->dirty_to = MAX(g->dirty_to, (u32)to);
}

void gpu_dirty_all(struct virtio_gpu *g)
{
	g->dirty_from = g->dirty_to = 0;
	dirty_add(g, 0, g->view.height);
}

void gpu_flush(struct virtio_gpu *g, const struct gpu_resource *r, const struct virtio_gpu_rect *rect)
{
	if (r->id == g->scanout)
		dirty_add(g, (s64)rect->y - g->view.y, (s64)rect->y + rect->height - g->view.y);
}

bool gpu_view_valid(const struct gpu_resource *r, const struct virtio_gpu_rect *view)
{
	return gpu_rect_valid(view, r->width, r->height) && view->width <= DISPLAY_WIDTH_MAX &&
	       view->height <= DISPLAY_HEIGHT_MAX;
}

/* ---- the cursor ------------------------------------------------------------------------------ */

/*
 * 5.7.6.10: drivers give 64 by 64; of another size what there is. There is alpha whatever the format says:
 * Linux makes cursors of buffers that have an X in their format's name.
 */
void gpu_cursor_load(struct virtio_gpu *g, const struct gpu_resource *r)
{
	const struct format *f = format_of(r->format);

	memset(g->cursor.pixel, 0, sizeof(g->cursor.pixel));
	for (u32 y = 0; y < MIN(r->height, (u32)GPU_CURSOR_SIDE); y++)
		for (u32 x = 0; x < MIN(r->width, (u32)GPU_CURSOR_SIDE); x++) {
			u32 pixel = r->pixel[(size_t)y * r->width + x];

			g->cursor.pixel[y * GPU_CURSOR_SIDE + x] =
				byte_of(pixel, f->a) << 24 | color_of(f, pixel);
		}
}

static void cursor_dirty(struct virtio_gpu *g)
{
	if (g->cursor.shown)
		dirty_add(g, g->cursor.y, (s64)g->cursor.y + GPU_CURSOR_SIDE);
}

void gpu_cursor_place(struct virtio_gpu *g, bool shown, s32 x, s32 y)
{
	cursor_dirty(g);
	g->cursor.shown = shown;
	g->cursor.x = x;
	g->cursor.y = y;
	cursor_dirty(g);
}

/* Colours of the cursor are multiplied by its alpha already, as Linux has them. */
static u32 blend(u32 under, u32 over)
{
	u32 rest = 255 - (over >> 24), result = 0;

	for (unsigned shift = 0; shift < 24; shift += 8) {
		u32 c = byte_of(over, shift) + (byte_of(under, shift) * rest + 127) / 255;

		result |= MIN(c, 255u) << shift;
	}
	return result;
}

static void cursor_draw(struct virtio_gpu *g, u32 y)
{
	s64 row = (s64)y - g->cursor.y;

	if (!g->cursor.shown || row < 0 || row >= GPU_CURSOR_SIDE)
		return;
	for (s64 i = 0; i < GPU_CURSOR_SIDE; i++) {
		s64 x = g->cursor.x + i;

		if (x >= 0 && x < g->view.width)
			g->line[x] = blend(g->line[x], g->cursor.pixel[row * GPU_CURSOR_SIDE + i]);
	}
}

/* ---- the picture ----------------------------------------------------------------------------- */

static void line_make(struct virtio_gpu *g, const struct gpu_resource *r, u32 y)
{
	const u32 *in = r->pixel + (size_t)(g->view.y + y) * r->width + g->view.x;
	const struct format *f = format_of(r->format);

	for (u32 x = 0; x < g->view.width; x++)
		g->line[x] = color_of(f, in[x]);
	cursor_draw(g, y);
}

static bool draw_locked(struct virtio_gpu *g, struct display *d)
{
	const struct gpu_resource *r = g->scanout ? gpu_resource_find(g, g->scanout) : NULL;
	bool fits = d->width == g->view.width && d->height == g->view.height;

	if (!r || (!fits && display_resize(d, g->view.width, g->view.height) < 0))
		return false;
	if (!fits || !d->overlaid)
		gpu_dirty_all(g);
	for (u32 y = g->dirty_from; y < g->dirty_to; y++) {
		line_make(g, r, y);
		display_put_row(d, y, g->line);
	}
	g->dirty_from = g->dirty_to = 0;
	return true;
}

bool virtio_gpu_draw(void *arg, struct display *d)
{
	struct virtio_gpu *g = arg;
	bool shows;

	virtio_lock(&g->dev);
	shows = draw_locked(g, d);
	virtio_unlock(&g->dev);
	return shows;
}
