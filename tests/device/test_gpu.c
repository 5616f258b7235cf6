/*
 * The graphics adapter: pictures in every format out of scattered pages, part by part; cursor; the change
 * between it and a VGA; EDID; every error; bounded memory; saved state in mid-work.
 */
#include <stdlib.h>

#include "tests/device/virtio_board.h"
#include "vmm/virtio/gpu.h"

#define EDID	BIT(VIRTIO_GPU_F_EDID)
#define OK	VIRTIO_GPU_RESP_OK_NODATA
#define BAD(x)	VIRTIO_GPU_RESP_ERR_##x
#define BGRX	VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define BGRA	VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM
#define PAGES	(RAM_BASE + 0x200000)	/* what backs resources */

struct machine {
	struct board b;
	struct virtio_gpu gpu;
	struct display display;
	u64 out, in;		/* a command and its answer lie here */
	u32 answer[300];
};

static void machine_drive(struct machine *m, u64 features)
{
	drive(&m->b, features | EDID, 2);
	m->out = ram_alloc(&m->b.ram, 8192);
	m->in = ram_alloc(&m->b.ram, 2048);
}

static struct machine *machine_new(const struct gpu_options *o)
{
	struct machine *m = calloc(1, sizeof(*m));

	board_init(&m->b);
	assert_int_equal(virtio_gpu_init(&m->gpu, o, &m->b.ram.mem, &m->b.io, &m->b.err), 0);
	board_start(&m->b, &m->gpu.dev);
	assert_int_equal(display_init(&m->display), 0);
	display_set_overlay(&m->display, virtio_gpu_draw, &m->gpu);
	machine_drive(m, layouts[3]);
	return m;
}

static void machine_end(struct machine *m)
{
	board_stop(&m->b);
	virtio_gpu_destroy(&m->gpu);
	assert_int_equal(m->gpu.used, 0);
	display_destroy(&m->display);
	board_free(&m->b);
	free(m);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* Sends what lies at m->out; the answer's type. */
static u32 send(struct machine *m, unsigned queue, u32 len, u32 room)
{
	const struct piece p[] = { { m->out, len, false }, { m->in, room, true } };
	u64 top = m->b.ram.top;
	u32 n;

	memset(at(m->b.ram.bytes, m->in), 0xEE, 2048);
	n = transfer(&m->b, queue, p, room ? 2 : 1);
	m->b.ram.top = top;
	assert_true(n >= MIN(room, 24u) && n <= room);
	memcpy(m->answer, at(m->b.ram.bytes, m->in), sizeof(m->answer));
	return m->answer[0];
}

static u32 run(struct machine *m, unsigned queue, const void *cmd, u32 len)
{
	memcpy(at(m->b.ram.bytes, m->out), cmd, len);
	return send(m, queue, len, 2048);
}

static u32 create(struct machine *m, u32 id, u32 format, u32 width, u32 height)
{
	const struct virtio_gpu_resource_create_2d c = {
		{ .type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D }, id, format, width, height };

	return run(m, 0, &c, sizeof(c));
}

static u32 unref(struct machine *m, u32 id)
{
	const struct virtio_gpu_resource_unref c = { { .type = VIRTIO_GPU_CMD_RESOURCE_UNREF }, id, 0 };

	return run(m, 0, &c, sizeof(c));
}

static u32 attach(struct machine *m, u32 id, const struct virtio_gpu_mem_entry *entry, u32 claimed, u32 n)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry entry[256];
	} c = { { { .type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING }, id, claimed }, { { 0 } } };

	memcpy(c.entry, entry, n * sizeof(*entry));
	return run(m, 0, &c, sizeof(c.c) + n * sizeof(*entry));
}

static u32 attach_one(struct machine *m, u32 id, u64 addr, u32 len)
{
	const struct virtio_gpu_mem_entry e = { addr, len, 0 };

	return attach(m, id, &e, 1, 1);
}

static u32 detach(struct machine *m, u32 id)
{
	const struct virtio_gpu_resource_detach_backing c = {
		{ .type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING }, id, 0 };

	return run(m, 0, &c, sizeof(c));
}

static u32 scanout(struct machine *m, u32 number, u32 id, u32 x, u32 y, u32 width, u32 height)
{
	const struct virtio_gpu_set_scanout c = {
		{ .type = VIRTIO_GPU_CMD_SET_SCANOUT }, { x, y, width, height }, number, id };

	return run(m, 0, &c, sizeof(c));
}

static u32 move_in(struct machine *m, u32 id, u64 offset, u32 x, u32 y, u32 width, u32 height)
{
	const struct virtio_gpu_transfer_to_host_2d c = {
		{ .type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D }, { x, y, width, height }, offset, id, 0 };

	return run(m, 0, &c, sizeof(c));
}

static u32 flush(struct machine *m, u32 id, u32 x, u32 y, u32 width, u32 height)
{
	const struct virtio_gpu_resource_flush c = {
		{ .type = VIRTIO_GPU_CMD_RESOURCE_FLUSH }, { x, y, width, height }, id, 0 };

	return run(m, 0, &c, sizeof(c));
}

static u32 cursor(struct machine *m, u32 type, u32 number, u32 id, s32 x, s32 y)
{
	const struct virtio_gpu_update_cursor c = { { .type = type }, { number, x, y, 0 }, id, 0, 0, 0 };

	return run(m, 1, &c, sizeof(c));
}

/* ---- pictures -------------------------------------------------------------------------------- */

static u32 pattern(u32 x, u32 y)
{
	return (x * 7 + y * 13) % 251 << 16 | (x * 3 + y) % 241 << 8 | (x ^ y) % 239;
}

/* 0xRRGGBB as a format has it, written out from the names. */
static u32 in_format(u32 format, u32 c, u8 alpha)
{
	const u8 r = c >> 16, g = c >> 8, b = c;
	u8 bytes[4];

	switch (format) {
	case VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM:
	case VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM:
		memcpy(bytes, (u8[]){ b, g, r, alpha }, 4);
		break;
	case VIRTIO_GPU_FORMAT_A8R8G8B8_UNORM:
	case VIRTIO_GPU_FORMAT_X8R8G8B8_UNORM:
		memcpy(bytes, (u8[]){ alpha, r, g, b }, 4);
		break;
	case VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM:
	case VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM:
		memcpy(bytes, (u8[]){ r, g, b, alpha }, 4);
		break;
	default:
		memcpy(bytes, (u8[]){ alpha, b, g, r }, 4);
	}
	return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (u32)bytes[3] << 24;
}

/* Backing in pieces of all sizes, back to front in memory; its bytes behind each other in *flat. */
struct scattered {
	struct virtio_gpu_mem_entry entry[100];
	u32 n, size;
};

static void scatter(struct scattered *s, u32 size)
{
	u64 top = PAGES + 0x100000;

	*s = (struct scattered){ .size = size };
	for (u32 left = size; left; s->n++) {
		u32 len = MIN(left, 1 + s->n * 37 % 500);

		top -= len + 5;
		s->entry[s->n] = (struct virtio_gpu_mem_entry){ top, len, 0 };
		left -= len;
	}
}

static void scatter_write(struct machine *m, const struct scattered *s, const void *data)
{
	const u8 *from = data;

	for (u32 i = 0; i < s->n; from += s->entry[i++].length)
		memcpy(at(m->b.ram.bytes, s->entry[i].addr), from, s->entry[i].length);
}

static u32 shown(struct machine *m, u32 x, u32 y)
{
	return m->display.pixel[y * m->display.width + x];
}

static void expect_pattern(struct machine *m, u32 x0, u32 y0, u32 width, u32 height)
{
	display_refresh(&m->display);
	assert_int_equal(m->display.width, width);
	assert_int_equal(m->display.height, height);
	for (u32 y = 0; y < height; y++)
		for (u32 x = 0; x < width; x++)
			assert_int_equal(shown(m, x, y), pattern(x0 + x, y0 + y));
}

static void test_formats(void **state)
{
	static const u32 formats[] = { 1, 2, 3, 4, 67, 68, 121, 134 };
	enum { W = 70, H = 50 };
	static u32 picture[W * H];
	struct machine *m = machine_new(&(struct gpu_options){ 0 });

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		struct scattered s;

		machine_drive(m, layouts[i % 4]);
		scatter(&s, sizeof(picture));
		for (u32 n = 0; n < W * H; n++)
			picture[n] = in_format(formats[i], pattern(n % W, n / W), n);
		scatter_write(m, &s, picture);
		assert_int_equal(create(m, 9, formats[i], W, H), OK);
		assert_int_equal(attach(m, 9, s.entry, s.n, s.n), OK);
		assert_int_equal(move_in(m, 9, 0, 0, 0, W, H), OK);
		assert_int_equal(scanout(m, 0, 9, 0, 0, W, H), OK);
		assert_int_equal(flush(m, 9, 0, 0, W, H), OK);
		expect_pattern(m, 0, 0, W, H);
		/* A part of it. */
		assert_int_equal(scanout(m, 0, 9, 11, 7, 33, 20), OK);
		expect_pattern(m, 11, 7, 33, 20);
		/* What was taken in stays when the pages go. */
		assert_int_equal(detach(m, 9), OK);
		memset(picture, 0, sizeof(picture));
		scatter_write(m, &s, picture);
		assert_int_equal(scanout(m, 0, 9, 1, 1, W - 1, H - 1), OK);
		expect_pattern(m, 1, 1, W - 1, H - 1);
	}
	machine_end(m);
}

/* Rectangles come from their offset, and show when they are flushed. */
static void test_parts(void **state)
{
	enum { W = 64, H = 40 };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	u32 *ram = at(m->b.ram.bytes, PAGES);
	struct display_view view;
	struct display_rect rect;

	assert_int_equal(create(m, 1, BGRX, W, H), OK);
	assert_int_equal(attach_one(m, 1, PAGES, W * H * 4), OK);
	assert_int_equal(scanout(m, 0, 1, 0, 0, W, H), OK);
	display_refresh(&m->display);
	assert_int_equal(display_attach(&m->display, &view), 0);
	while (display_view_next(&view, &rect))
		;
	for (u32 i = 0; i < W * H; i++)
		ram[i] = 0xFF000000 | i;
	assert_int_equal(move_in(m, 1, (5 * W + 10) * 4, 10, 5, 20, 8), OK);
	display_refresh(&m->display);
	assert_false(display_view_next(&view, &rect));
	assert_int_equal(flush(m, 1, 10, 5, 20, 8), OK);
	display_refresh(&m->display);
	assert_true(display_view_next(&view, &rect));
	assert_true(rect.x == 10 && rect.y == 5 && rect.width == 20 && rect.height == 8);
	assert_false(display_view_next(&view, &rect));
	for (u32 y = 0; y < H; y++)
		for (u32 x = 0; x < W; x++)
			assert_int_equal(shown(m, x, y),
				x >= 10 && x < 30 && y >= 5 && y < 13 ? y * W + x : 0);
	/* The last row may end where the backing ends, and no later. */
	assert_int_equal(move_in(m, 1, 4 * W * (H - 1) + 4, 0, 0, W - 1, 1), OK);
	assert_int_equal(move_in(m, 1, 4 * W * (H - 1) + 8, 0, 0, W - 1, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(move_in(m, 1, ~0ULL - 3, 0, 0, 1, 1), BAD(INVALID_PARAMETER));
	display_detach(&view);
	machine_end(m);
}

/* ---- beside a VGA ---------------------------------------------------------------------------- */

static void vga_update(void *arg)
{
	struct display *d = arg;
	u32 line[640];

	if (d->width != 640)
		display_resize(d, 640, 480);
	for (u32 x = 0; x < 640; x++)
		line[x] = 0x112233;
	for (u32 y = 0; d->overlaid && y < 480; y++)
		display_put_row(d, y, line);
}

static void test_overlay(void **state)
{
	for (int vga = 0; vga < 2; vga++) {
		struct machine *m = machine_new(&(struct gpu_options){ 0 });
		u32 *ram = at(m->b.ram.bytes, PAGES);
		u32 under = vga ? 0x112233 : 0;

		if (vga)
			display_set_source(&m->display, vga_update, &m->display);
		display_refresh(&m->display);
		assert_false(m->display.overlaid);
		ram[0] = 0xABCDEF;
		/* Of the VGA's own size: it must notice all the same. */
		assert_int_equal(create(m, 1, BGRX, 640, 480), OK);
		assert_int_equal(attach_one(m, 1, PAGES, 640 * 480 * 4), OK);
		assert_int_equal(move_in(m, 1, 0, 0, 0, 640, 480), OK);
		for (int end = 0; end < 3; end++) {
			assert_int_equal(scanout(m, 0, 1, 0, 0, 640, 480), OK);
			display_refresh(&m->display);
			assert_true(m->display.overlaid);
			assert_int_equal(shown(m, 0, 0), 0xABCDEF);
			assert_int_equal(shown(m, 639, 479), 0);
			/* Whoever drew in between. */
			display_set_overlay(&m->display, NULL, NULL);
			display_refresh(&m->display);
			assert_int_equal(shown(m, 0, 0), under);
			display_set_overlay(&m->display, virtio_gpu_draw, &m->gpu);
			display_refresh(&m->display);
			assert_int_equal(shown(m, 0, 0), 0xABCDEF);
			/* It ends by the driver's word, with the resource, by a reset. */
			if (end == 0)
				assert_int_equal(scanout(m, 0, 0, 0, 0, 0, 0), OK);
			else if (end == 1)
				assert_int_equal(unref(m, 1), OK);
			else
				machine_drive(m, layouts[1]);
			display_refresh(&m->display);
			assert_false(m->display.overlaid);
			assert_int_equal(shown(m, 0, 0), under);
			assert_int_equal(shown(m, 639, 479), under);
			if (end == 1) {
				assert_int_equal(create(m, 1, BGRX, 640, 480), OK);
				assert_int_equal(attach_one(m, 1, PAGES, 640 * 480 * 4), OK);
				assert_int_equal(move_in(m, 1, 0, 0, 0, 640, 480), OK);
				/* It is another one, though of the same name. */
				display_refresh(&m->display);
				assert_false(m->display.overlaid);
			}
		}
		assert_int_equal(m->gpu.resources, 0);
		assert_int_equal(m->gpu.used, 0);
		machine_end(m);
	}
}

/* ---- the cursor ------------------------------------------------------------------------------ */

static void cursor_make(struct machine *m, u32 id, u32 format, u32 pixel)
{
	u32 *ram = at(m->b.ram.bytes, PAGES + 0x100000);

	for (u32 i = 0; i < 64 * 64; i++)
		ram[i] = pixel;
	ram[0] = 0;	/* one that lets everything through */
	assert_int_equal(create(m, id, format, 64, 64), OK);
	assert_int_equal(attach_one(m, id, PAGES + 0x100000, 64 * 64 * 4), OK);
	assert_int_equal(move_in(m, id, 0, 0, 0, 64, 64), OK);
}

static void expect_cursor(struct machine *m, s32 at_x, s32 at_y, u32 color)
{
	display_refresh(&m->display);
	for (s32 y = 0; y < 120; y++)
		for (s32 x = 0; x < 200; x++) {
			bool over = x >= at_x && x < at_x + 64 && y >= at_y && y < at_y + 64 &&
				    !(x == at_x && y == at_y);

			assert_int_equal(shown(m, x, y), over ? color : 0x804020);
		}
}

/* Resource 1, all of one color, is on the screen. */
static void plain_picture(struct machine *m, u32 *ram)
{
	for (u32 i = 0; i < 200 * 120; i++)
		ram[i] = 0x804020;
	assert_int_equal(create(m, 1, BGRX, 200, 120), OK);
	assert_int_equal(attach_one(m, 1, PAGES, 200 * 120 * 4), OK);
	assert_int_equal(move_in(m, 1, 0, 0, 0, 200, 120), OK);
	assert_int_equal(scanout(m, 0, 1, 0, 0, 200, 120), OK);
}

static void test_cursor(void **state)
{
	static const s32 places[][2] = { { 30, 20 }, { -10, -60 }, { 190, 100 }, { 199, 119 }, { -64, 0 },
					 { 0, -64 }, { 1000, 5 }, { INT32_MAX, INT32_MIN }, { 100, 50 } };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	u32 *ram = at(m->b.ram.bytes, PAGES);

	plain_picture(m, ram);
	cursor_make(m, 2, BGRA, 0x80102030);	/* half of what is below, and this */
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 2, 5, 5), OK);
	/* It is a copy. */
	assert_int_equal(unref(m, 2), OK);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		assert_int_equal(cursor(m, VIRTIO_GPU_CMD_MOVE_CURSOR, 0, 77, places[i][0], places[i][1]), OK);
		expect_cursor(m, places[i][0], places[i][1], 0x504040);
	}
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 0, 100, 50), OK);
	expect_cursor(m, -100, 0, 0);
	/* A format without alpha has it all the same, as Linux counts on; colours never wrap. */
	cursor_make(m, 2, BGRX, 0x01FFFFFF);
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 2, 100, 50), OK);
	expect_cursor(m, 100, 50, 0xFFFFFF);
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 1, 2, 0, 0), BAD(INVALID_SCANOUT_ID));
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_MOVE_CURSOR, 1, 2, 0, 0), BAD(INVALID_SCANOUT_ID));
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 3, 0, 0), BAD(INVALID_RESOURCE_ID));
	expect_cursor(m, 100, 50, 0xFFFFFF);
	/* As Linux does it: no room for an answer. */
	memcpy(at(m->b.ram.bytes, m->out),
		&(struct virtio_gpu_update_cursor){ { .type = VIRTIO_GPU_CMD_MOVE_CURSOR }, { 0, 3, 4, 0 }, 0, 0, 0, 0 }, 56);
	send(m, 1, 56, 0);
	expect_cursor(m, 3, 4, 0xFFFFFF);
	machine_end(m);
}

/* ---- what the driver is told ----------------------------------------------------------------- */

static void check_edid(const u8 *e, u32 width, u32 height)
{
	u8 sum = 0;
	u32 clock = e[54] | e[55] << 8, across = width + (e[57] | (e[58] & 15) << 8),
	    down = height + (e[60] | (e[61] & 15) << 8), rate = clock * 10000ULL / across / down;

	assert_memory_equal(e, "\0\xFF\xFF\xFF\xFF\xFF\xFF\0", 8);
	for (int i = 0; i < 128; i++)
		sum += e[i];
	assert_int_equal(sum, 0);
	assert_int_equal(e[56] | e[58] >> 4 << 8, width);
	assert_int_equal(e[59] | e[61] >> 4 << 8, height);
	assert_true(rate <= 60 && (rate >= 58 || clock == 65535));
	assert_int_equal(e[126], 0);
	assert_memory_equal(e + 72, "\0\0\0\xFC\0Qumra\n", 11);
}

static void test_monitor(void **state)
{
	const struct virtio_gpu_ctrl_hdr info = { .type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO };
	struct virtio_gpu_cmd_get_edid edid = { { .type = VIRTIO_GPU_CMD_GET_EDID }, 0, 0 };
	static const u32 modes[][2] = { { 1280, 800 }, { 64, 64 }, { 4095, 4095 }, { 1920, 1080 } };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });

	assert_int_equal(in(&m->b, VIRTIO_MMIO_CONFIG + 8), 1);
	assert_int_equal(in(&m->b, VIRTIO_MMIO_CONFIG + 12), 0);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		if (i) {
			virtio_lock(&m->gpu.dev);
			virtio_gpu_set_mode(&m->gpu, modes[i][0], modes[i][1]);
			virtio_unlock(&m->gpu.dev);
			assert_int_equal(wait_interrupt(&m->b) & VIRTIO_MMIO_INT_CONFIG,
				VIRTIO_MMIO_INT_CONFIG);
			assert_int_equal(in(&m->b, VIRTIO_MMIO_CONFIG), VIRTIO_GPU_EVENT_DISPLAY);
			out(&m->b, VIRTIO_MMIO_CONFIG, 0);
			assert_int_equal(in(&m->b, VIRTIO_MMIO_CONFIG), VIRTIO_GPU_EVENT_DISPLAY);
			out(&m->b, VIRTIO_MMIO_CONFIG + 4, VIRTIO_GPU_EVENT_DISPLAY);
		}
		assert_int_equal(in(&m->b, VIRTIO_MMIO_CONFIG), 0);
		assert_int_equal(run(m, 0, &info, sizeof(info)), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
		assert_memory_equal(m->answer + 6, ((u32[]){ 0, 0, modes[i][0], modes[i][1], 1, 0 }), 24);
		for (int n = 12; n < 6 + 16 * 6; n++)
			assert_int_equal(m->answer[n], 0);
		assert_int_equal(run(m, 0, &edid, sizeof(edid)), VIRTIO_GPU_RESP_OK_EDID);
		assert_int_equal(m->answer[6], 128);
		check_edid((u8 *)(m->answer + 8), modes[i][0], modes[i][1]);
	}
	edid.scanout = 1;
	assert_int_equal(run(m, 0, &edid, sizeof(edid)), BAD(INVALID_SCANOUT_ID));
	drive(&m->b, layouts[0], 2);
	m->out = ram_alloc(&m->b.ram, 8192);
	m->in = ram_alloc(&m->b.ram, 2048);
	edid.scanout = 0;
	assert_int_equal(run(m, 0, &edid, sizeof(edid)), BAD(UNSPEC));
	machine_end(m);
	m = machine_new(&(struct gpu_options){ .width = 800, .height = 600 });
	assert_int_equal(run(m, 0, &info, sizeof(info)), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	assert_memory_equal(m->answer + 6, ((u32[]){ 0, 0, 800, 600, 1, 0 }), 24);
	machine_end(m);
}

static void test_fences(void **state)
{
	struct virtio_gpu_ctrl_hdr c = { .type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
					 .fence_id = 0x123456789ABCDEF0, .ctx_id = 5 };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	struct virtio_gpu_ctrl_hdr answer;

	for (int fence = 0; fence < 2; fence++) {
		for (int bad = 0; bad < 2; bad++) {
			c.flags = fence ? VIRTIO_GPU_FLAG_FENCE : 0;
			c.type = bad ? 0x7777 : VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
			run(m, 0, &c, sizeof(c));
			memcpy(&answer, m->answer, sizeof(answer));
			assert_int_equal(answer.type, bad ? BAD(UNSPEC) : VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
			assert_int_equal(answer.flags, c.flags);
			assert_int_equal(answer.fence_id, fence ? c.fence_id : 0);
			assert_int_equal(answer.ctx_id, fence ? c.ctx_id : 0);
		}
	}
	machine_end(m);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void test_errors(void **state)
{
	const struct virtio_gpu_mem_entry outside = { RAM_BASE + RAM_SIZE - 16, 17, 0 };
	const struct virtio_gpu_ctrl_hdr info = { .type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });

	assert_int_equal(create(m, 0, BGRX, 8, 8), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(create(m, 1, BGRX, 8, 8), OK);
	assert_int_equal(create(m, 1, BGRX, 8, 8), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(create(m, 2, 0, 8, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, 5, 8, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, 135, 8, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, ~0U, 8, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, BGRX, 0, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, BGRX, 8, 0), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, BGRX, ~0U, ~0U), BAD(INVALID_PARAMETER));
	assert_int_equal(create(m, 2, BGRX, 16384, 16384), BAD(OUT_OF_MEMORY));
	assert_int_equal(unref(m, 2), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(unref(m, 1 + GPU_BUCKETS), BAD(INVALID_RESOURCE_ID));
	/* backing */
	assert_int_equal(attach_one(m, 2, PAGES, 256), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(attach(m, 1, &outside, 1, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(attach_one(m, 1, RAM_BASE - 1, 256), BAD(INVALID_PARAMETER));
	assert_int_equal(attach_one(m, 1, ~0ULL, ~0U), BAD(INVALID_PARAMETER));
	assert_int_equal(attach(m, 1, &outside, 0, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(attach(m, 1, &outside, 2, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(attach(m, 1, &outside, ~0U, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(move_in(m, 1, 0, 0, 0, 8, 8), BAD(UNSPEC));
	assert_int_equal(detach(m, 1), BAD(UNSPEC));
	assert_int_equal(detach(m, 2), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(attach_one(m, 1, PAGES, 255), OK);
	assert_int_equal(attach_one(m, 1, PAGES, 256), BAD(UNSPEC));
	/* rectangles */
	assert_int_equal(move_in(m, 2, 0, 0, 0, 8, 8), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(move_in(m, 1, 0, 0, 0, 8, 8), BAD(INVALID_PARAMETER));	/* a byte too few */
	assert_int_equal(move_in(m, 1, 0, 0, 0, 8, 7), OK);
	assert_int_equal(move_in(m, 1, 0, 1, 0, 8, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(move_in(m, 1, 0, 0, 1, 1, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(move_in(m, 1, 0, ~0U, 0, 2, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(move_in(m, 1, 0, 0, 0, 0, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(flush(m, 2, 0, 0, 8, 8), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(flush(m, 1, 0, 0, 9, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(flush(m, 1, 4, ~0U, 4, 8), BAD(INVALID_PARAMETER));
	assert_int_equal(scanout(m, 1, 1, 0, 0, 8, 8), BAD(INVALID_SCANOUT_ID));
	assert_int_equal(scanout(m, 16, 0, 0, 0, 0, 0), BAD(INVALID_SCANOUT_ID));
	assert_int_equal(scanout(m, 0, 2, 0, 0, 8, 8), BAD(INVALID_RESOURCE_ID));
	assert_int_equal(scanout(m, 0, 1, 0, 0, 8, 9), BAD(INVALID_PARAMETER));
	assert_int_equal(scanout(m, 0, 1, 8, 0, 1, 1), BAD(INVALID_PARAMETER));
	assert_int_equal(scanout(m, 0, 1, 0, 0, 0, 0), BAD(INVALID_PARAMETER));
	/* A resource may be wider than a screen. */
	assert_int_equal(create(m, 3, BGRX, 8193, 2), OK);
	assert_int_equal(scanout(m, 0, 3, 0, 0, 8193, 2), BAD(INVALID_PARAMETER));
	assert_int_equal(scanout(m, 0, 3, 1, 0, 8192, 2), OK);
	/* Commands that there are not, that are cut off, in the wrong queue, without room for the answer. */
	for (u32 type = 0; type < 0x1300; type += type == 0x110 ? 0xF0 : type == 0x210 ? 0xF0 : 1) {
		const struct virtio_gpu_ctrl_hdr c = { .type = type };
		u32 answer = run(m, 0, &c, sizeof(c));
		bool known = type >= 0x100 && type <= 0x10A && type != 0x108 && type != 0x109;

		assert_int_equal(answer, type == 0x100 ? VIRTIO_GPU_RESP_OK_DISPLAY_INFO :
			known ? BAD(INVALID_PARAMETER) : BAD(UNSPEC));
	}
	assert_int_equal(run(m, 1, &info, sizeof(info)), BAD(UNSPEC));
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_RESOURCE_UNREF, 0, 0, 0, 0), BAD(UNSPEC));
	memcpy(at(m->b.ram.bytes, m->out), &info, sizeof(info));
	assert_int_equal(send(m, 0, sizeof(info), 407), BAD(INVALID_PARAMETER));
	assert_int_equal(send(m, 0, sizeof(info), 408), VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	assert_int_equal(in(&m->b, VIRTIO_MMIO_STATUS), ALL_STATUS);
	machine_end(m);
}

static void test_bounded(void **state)
{
	struct machine *m = machine_new(&(struct gpu_options){ 0 });

	assert_int_equal(create(m, 1, BGRX, 16384, 4095), OK);
	assert_int_equal(create(m, 2, BGRX, 16384, 2), BAD(OUT_OF_MEMORY));
	assert_int_equal(create(m, 2, BGRX, 16384, 1), OK);
	assert_int_equal(m->gpu.used, GPU_MEMORY_MAX);
	assert_int_equal(attach_one(m, 2, PAGES, 4), BAD(OUT_OF_MEMORY));
	assert_int_equal(create(m, 3, BGRX, 1, 1), BAD(OUT_OF_MEMORY));
	assert_int_equal(unref(m, 1), OK);
	assert_int_equal(attach_one(m, 2, PAGES, 4), OK);
	assert_int_equal(unref(m, 2), OK);
	assert_int_equal(m->gpu.used, 0);
	for (u32 i = 1; i <= GPU_RESOURCES_MAX; i++)
		assert_int_equal(create(m, i * 3, BGRX, 1, 1), OK);
	assert_int_equal(create(m, 1, BGRX, 1, 1), BAD(OUT_OF_MEMORY));
	for (u32 i = 1; i <= GPU_RESOURCES_MAX; i += 2)
		assert_int_equal(unref(m, i * 3), OK);
	assert_int_equal(m->gpu.resources, GPU_RESOURCES_MAX / 2);
	machine_drive(m, layouts[0]);
	assert_int_equal(m->gpu.resources, 0);
	machine_end(m);
}

static void test_bad_drivers(void **state)
{
	const struct { unsigned queue; u32 len, room; } bad[] = {
		{ 0, 24, 0 }, { 0, 24, 23 }, { 0, 23, 64 }, { 0, 0, 64 }, { 1, 23, 0 }, { 1, 1, 64 },
	};
	struct machine *m = machine_new(&(struct gpu_options){ 0 });

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct piece p[2];
		unsigned n = 0;

		machine_drive(m, layouts[i % 4]);
		memset(at(m->b.ram.bytes, m->out), 0, 64);
		if (bad[i].len)
			p[n++] = (struct piece){ m->out, bad[i].len, false };
		if (bad[i].room)
			p[n++] = (struct piece){ m->in, bad[i].room, true };
		driver_submit(&m->b.q[bad[i].queue], p, n, 0);
		kick(&m->b, bad[i].queue);
		wait_needs_reset(&m->b);
	}
	machine_drive(m, layouts[2]);
	assert_int_equal(create(m, 1, BGRX, 8, 8), OK);
	machine_end(m);
}

/* A driver that copies for ever does not keep its device from anybody. */
static void test_turns(void **state)
{
	struct virtio_gpu_transfer_to_host_2d c = {
		{ .type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D }, { 0, 0, 1024, 1024 }, 0, 1, 0 };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	unsigned done = 0;

	assert_int_equal(create(m, 1, BGRX, 1024, 1024), OK);
	/* The same page over and over, as far as a message of ours reaches. */
	static struct virtio_gpu_mem_entry entry[256];
	for (int i = 0; i < 256; i++)
		entry[i] = (struct virtio_gpu_mem_entry){ PAGES, 16384, 0 };
	assert_int_equal(attach(m, 1, entry, 256, 256), OK);
	memcpy(at(m->b.ram.bytes, m->out), &c, sizeof(c));
	for (int i = 0; i < 60; i++) {
		const struct piece p[] = { { m->out, sizeof(c), false }, { m->in, 24, true } };
		u32 len;
		u16 id;

		while (driver_submit(&m->b.q[0], p, 2, 0) < 0) {
			wait_used(&m->b, 0, &id);
			done++;
		}
		kick(&m->b, 0);
		while (driver_take(&m->b.q[0], &id, &len))
			done++;
	}
	while (done < 60) {
		u16 id;

		wait_used(&m->b, 0, &id);
		done++;
	}
	/* It was set back on the way, which is when others have their turn. */
	assert_true(m->gpu.copied <= 68U << 20);
	machine_end(m);
}

/* ---- saved state ----------------------------------------------------------------------------- */

static void test_moves(void **state)
{
	enum { W = 20, H = 10 };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	u32 *ram = at(m->b.ram.bytes, PAGES);

	for (u32 i = 0; i < W * H; i++)
		ram[i] = pattern(i % W, i / W);
	for (int round = 0; round < 8; round++) {
		const struct virtio_gpu_transfer_to_host_2d c = {
			{ .type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D }, { 0, 0, W, H }, 0, 1, 0 };
		const struct piece p[] = { { m->out, sizeof(c), false }, { m->in, 24, true } };
		u16 id;

		machine_drive(m, layouts[round % 4]);
		assert_int_equal(create(m, 1, BGRX, W, H), OK);
		assert_int_equal(create(m, 1 + GPU_BUCKETS, BGRA, 3, 3), OK);
		assert_int_equal(attach_one(m, 1, PAGES, W * H * 4), OK);
		assert_int_equal(scanout(m, 0, 1, 0, 0, W, H), OK);
		/* A command is under way; its pages and the scanout are known on the other side. */
		memcpy(at(m->b.ram.bytes, m->out), &c, sizeof(c));
		driver_submit(&m->b.q[0], p, 2, 0);
		kick(&m->b, 0);
		board_reload(&m->b, &virtio_gpu_device_ops, &m->gpu);
		wait_used(&m->b, 0, &id);
		expect_pattern(m, 0, 0, W, H);
		/* So are pictures, without their pages. */
		assert_int_equal(detach(m, 1), OK);
		board_reload(&m->b, &virtio_gpu_device_ops, &m->gpu);
		assert_int_equal(m->gpu.resources, 2);
		expect_pattern(m, 0, 0, W, H);
	}
	assert_int_equal(attach_one(m, 1, PAGES, 77), OK);
	virtio_gpu_set_mode(&m->gpu, 1000, 700);
	check_round_trip(&virtio_gpu_device_ops, &m->gpu);
	check_bad_states(&virtio_gpu_device_ops, &m->gpu, 200);
	expect_pattern(m, 0, 0, W, H);
	assert_int_equal(m->gpu.width, 1000);
	assert_int_equal(unref(m, 1), OK);
	assert_int_equal(unref(m, 1 + GPU_BUCKETS), OK);
	assert_int_equal(m->gpu.used, 0);
	machine_end(m);
}

/* The state with another word in a field, by the field's name. */
static void expect_refused(struct machine *m, const u8 *saved, long n, const char *field, unsigned word, u32 value)
{
	const struct device own = { &virtio_gpu_device_ops, &m->gpu };
	u8 *bad = malloc(n), *at_field;

	memcpy(bad, saved, n);
	at_field = memmem(bad, n, field, strlen(field) + 1);
	assert_non_null(at_field);
	memcpy(at_field + strlen(field) + 1 + 2 + 4 * word, &value, 4);
	if (device_load(&own, bad, n) >= 0)
		fail_msg("%s[%u] = %u was taken", field, word, value);
	free(bad);
}

static void test_bad_states(void **state)
{
	static const struct { const char *field; u32 word, value; } bad[] = {
		{ "scanout", 0, 3 }, { "view", 0, 1 }, { "view", 2, 9 }, { "view", 2, 0 }, { "view", 3, ~0U },
		{ "cursor_shown", 0, 1 }, { "events", 0, 2 }, { "resources", 0, 3 }, { "resources", 0, ~0U },
		{ "id", 0, 0 }, { "id", 0, 2 }, { "format", 0, 5 }, { "width", 0, 63 }, { "height", 0, 4096 },
		{ "entries", 0, 2 }, { "entries", 0, GPU_ENTRIES_MAX + 1 }, { "entries", 0, ~0U },
	};
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	const struct device own = { &virtio_gpu_device_ops, &m->gpu };
	static u8 saved[4096];
	long n;

	assert_int_equal(create(m, 1, BGRX, 8, 8), OK);
	assert_int_equal(create(m, 2, BGRX, 2, 2), OK);
	assert_int_equal(attach_one(m, 1, PAGES, 77), OK);
	assert_int_equal(scanout(m, 0, 1, 0, 0, 8, 8), OK);
	n = device_save(&own, saved, sizeof(saved));
	assert_true(n > 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect_refused(m, saved, n, bad[i].field, bad[i].word, bad[i].value);
	/* Nothing has changed. */
	assert_int_equal(m->gpu.resources, 2);
	assert_int_equal(m->gpu.scanout, 1);
	assert_int_equal(m->gpu.used, 8 * 8 * 4 + 2 * 2 * 4 + 16);
	assert_int_equal(device_load(&own, saved, n), n);
	machine_end(m);
}

/* The cursor's picture moves as well; what does not fit says so. */
static void test_cursor_moves(void **state)
{
	const struct device dev = { &virtio_gpu_device_ops, NULL };
	struct machine *m = machine_new(&(struct gpu_options){ 0 });
	struct device own = { dev.ops, &m->gpu };
	u32 *ram = at(m->b.ram.bytes, PAGES);
	static u8 saved[200000];
	long n;

	plain_picture(m, ram);
	cursor_make(m, 2, BGRA, 0x80102030);
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 2, 50, -5), OK);
	n = device_save(&own, saved, sizeof(saved));
	assert_true(n > 200 * 120 * 4 + 64 * 64 * 4);
	for (long i = 0; i < n; i += 1 + i / 7)
		assert_int_equal(device_save(&own, saved, i), -ENOSPC);
	assert_int_equal(device_save(&own, saved, n), n);
	assert_int_equal(cursor(m, VIRTIO_GPU_CMD_UPDATE_CURSOR, 0, 0, 0, 0), OK);
	memset(ram, 0, 200 * 120 * 4);
	assert_int_equal(move_in(m, 1, 0, 0, 0, 200, 120), OK);
	assert_int_equal(flush(m, 1, 0, 0, 200, 120), OK);
	display_refresh(&m->display);
	assert_int_equal(shown(m, 100, 100), 0);
	assert_int_equal(device_load(&own, saved, n), n);
	expect_cursor(m, 50, -5, 0x504040);
	assert_int_equal(unref(m, 1), OK);
	assert_int_equal(device_load(&own, saved, n), n);
	expect_cursor(m, 50, -5, 0x504040);
	machine_end(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats), cmocka_unit_test(test_parts), cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_cursor), cmocka_unit_test(test_monitor), cmocka_unit_test(test_fences),
		cmocka_unit_test(test_errors), cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_bad_drivers), cmocka_unit_test(test_turns),
		cmocka_unit_test(test_moves), cmocka_unit_test(test_bad_states),
		cmocka_unit_test(test_cursor_moves),
	};

	return board_run_tests(tests, BOARD_ALL);
}
