/*
 * From VGA's memory and registers to pixels: text, 16 and 256 colours, CGA's modes, dispi's linear
 * ones. See vga.h. Nothing blinks: the cursor stands, and blinking characters are always on, so that
 * a picture depends on nothing but what the guest did.
 */
#include <string.h>

#include "vmm/hw/vga.h"

#define DOUBLE_SCAN	BIT(7)	/* CRTC_ROW_HEIGHT */
#define ROWS		0x1F
#define CURSOR_OFF	BIT(5)
#define MODE_ROW0	BIT(0)	/* CRTC_MODE: clear: row scan bit 0 is address bit 13 */
#define MODE_BYTES	BIT(6)
#define ATTR_LINE_GRAPHICS BIT(2)
#define ATTR_BLINK	BIT(3)
#define ATTR_PALETTE_54	BIT(7)
#define FONT_GLYPH	32	/* bytes in plane 2, 8 KiB a font */
#define DOUBLEWORDS	(VGA_MEMORY_SIZE / 4)

/* The picture's shape and where it begins; in doublewords but for dispi's modes. */
struct vga_picture {
	u32 width, height;
	u32 row_height;	/* scan lines that show the same, or a character's */
	u32 start, stride, compare;
	bool half;	/* each dot is two wide */
};

static u32 color_6_to_8(u8 value)
{
	return (value & 0x3F) << 2 | (value >> 4 & 3);
}

static u32 dac_color(const struct vga *v, u8 index)
{
	const u8 *c = &v->r.dac[3 * (index & v->r.dac_mask)];

	if (v->r.vbe[VBE_ENABLE] & VBE_8BIT_DAC && vga_vbe_on(v))
		return c[0] << 16 | c[1] << 8 | c[2];
	return color_6_to_8(c[0]) << 16 | color_6_to_8(c[1]) << 8 | color_6_to_8(c[2]);
}

/* Through the attribute controller's palette, as text and 16 colours go. */
static u32 attr_color(const struct vga *v, u8 index)
{
	u8 value = v->r.attr[index & 15], select = v->r.attr[ATTR_COLOR];

	if (v->r.attr[ATTR_MODE] & ATTR_PALETTE_54)
		value = (value & 0x0F) | (select & 3) << 4;
	return dac_color(v, value | (select & 0x0C) << 4);
}

static void attr_colors(const struct vga *v, u32 color[16])
{
	for (unsigned i = 0; i < 16; i++)
		color[i] = attr_color(v, i);
}

static void picture_read(const struct vga *v, struct vga_picture *p)
{
	const u8 *crtc = v->r.crtc;
	u8 over = crtc[CRTC_OVERFLOW];

	*p = (struct vga_picture){
		.height = (crtc[CRTC_HEIGHT] | (over & 0x02) << 7 | (over & 0x40) << 3) + 1,
		.row_height = (crtc[CRTC_ROW_HEIGHT] & ROWS) + 1,
		.start = crtc[CRTC_START_HIGH] << 8 | crtc[CRTC_START_LOW],
		.stride = crtc[CRTC_OFFSET] * 2,
		.compare = crtc[CRTC_LINE_COMPARE] | (over & 0x10) << 4 |
			   (crtc[CRTC_ROW_HEIGHT] & 0x40) << 3,
		.half = v->r.seq[SEQ_CLOCKING] & SEQ_CLOCKING_HALF,
	};
}

/* False: there is no picture this time. */
static bool picture_fit(struct vga *v, u32 width, u32 height)
{
	struct display *d = v->display;

	if (d->width == width && d->height == height)
		return true;
	v->redraw = true;
	return display_resize(d, width, height) == 0;
}

static u32 memory_load(const struct vga *v, u32 doubleword)
{
	u32 value;

	memcpy(&value, v->memory + 4 * (doubleword % DOUBLEWORDS), 4);
	return value;
}

/* ---- text ------------------------------------------------------------------------------------ */

/* Where the attribute's bit 3 selects a font (PS/2 Video Subsystem, character map select). */
static u32 font_start(const struct vga *v, bool second)
{
	u8 map = v->r.seq[SEQ_FONT];
	unsigned n = second ? (map >> 2 & 3) | (map >> 3 & 4) : (map & 3) | (map >> 2 & 4);

	return (n & 3) * 0x4000 + (n >> 2) * 0x2000;
}

struct text {
	struct vga_picture p;
	u32 color[16], font[2];
	u32 columns, dots;
	u32 cursor;	/* doubleword */
	u8 cursor_from, cursor_to;
	bool blink, line_graphics;
};

static void text_read(const struct vga *v, struct text *t)
{
	const u8 *crtc = v->r.crtc;

	picture_read(v, &t->p);
	attr_colors(v, t->color);
	t->font[0] = font_start(v, false);
	t->font[1] = font_start(v, true);
	t->dots = v->r.seq[SEQ_CLOCKING] & SEQ_CLOCKING_8 ? 8 : 9;
	t->columns = crtc[CRTC_WIDTH] + 1;
	t->cursor = crtc[CRTC_CURSOR_HIGH] << 8 | crtc[CRTC_CURSOR_LOW];
	t->cursor_from = crtc[CRTC_CURSOR_START] & ROWS;
	t->cursor_to = crtc[CRTC_CURSOR_START] & CURSOR_OFF ? 0 : (crtc[CRTC_CURSOR_END] & ROWS) + 1;
	t->blink = v->r.attr[ATTR_MODE] & ATTR_BLINK;
	t->line_graphics = v->r.attr[ATTR_MODE] & ATTR_LINE_GRAPHICS;
}

/* The nine dots of a character's row, the leftmost in bit 8. */
static unsigned text_dots(const struct vga *v, const struct text *t, u32 at, u32 row)
{
	u32 cell = memory_load(v, at);
	u8 character = cell, attribute = cell >> 8;
	u32 glyph = t->font[attribute >> 3 & 1] + character * FONT_GLYPH;
	unsigned dots = memory_load(v, glyph + row) >> 16 & 0xFF;

	if (at == t->cursor && row >= t->cursor_from && row < t->cursor_to)
		return 0x1FF;
	dots <<= 1;
	if (t->line_graphics && (character & 0xE0) == 0xC0)
		dots |= dots >> 1 & 1;
	return dots;
}

static void text_row(struct vga *v, const struct text *t, u32 start, u32 row)
{
	u32 *out = v->line, wide = t->p.half ? 2 : 1;

	for (u32 x = 0; x < t->columns; x++) {
		u8 attribute = memory_load(v, start + x) >> 8;
		u32 ink = t->color[attribute & 15];
		u32 paper = t->color[attribute >> 4 & (t->blink ? 7 : 15)];
		unsigned dots = text_dots(v, t, start + x, row);

		for (u32 i = 0; i < t->dots; i++)
			for (u32 w = 0; w < wide; w++)
				*out++ = dots & 0x100 >> i ? ink : paper;
	}
}

static void draw_text(struct vga *v)
{
	struct text t;
	u32 start, y0 = 0;

	text_read(v, &t);
	if (!picture_fit(v, t.columns * t.dots * (t.p.half ? 2 : 1), t.p.height))
		return;
	start = t.p.start;
	for (u32 y = 0; y < t.p.height; y++) {
		if (y == t.p.compare + 1) {
			start = 0;
			y0 = y;
		}
		text_row(v, &t, start + (y - y0) / t.p.row_height * t.p.stride,
			 (y - y0) % t.p.row_height);
		display_put_row(v->display, y, v->line);
	}
}

/* ---- graphics of VGA -------------------------------------------------------------------------- */

/* Eight pixels of a doubleword, by the way that they are packed. Returns how many. */
static u32 pixels_planar(u32 value, u8 pixel[8])
{
	for (unsigned i = 0; i < 8; i++) {
		pixel[i] = 0;
		for (unsigned p = 0; p < 4; p++)
			pixel[i] |= (value >> (8 * p + 7 - i) & 1) << p;
	}
	return 8;
}

/* CGA's four colours: planes 0 and 1 one after the other hold two bits, 2 and 3 the upper two. */
static u32 pixels_interleaved(u32 value, u8 pixel[8])
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned shift = 6 - 2 * (i & 3), plane = i / 4;

		pixel[i] = (value >> (8 * plane + shift) & 3) |
			   (value >> (8 * (plane + 2) + shift) & 3) << 2;
	}
	return 8;
}

static u32 pixels_256(u32 value, u8 pixel[8])
{
	for (unsigned i = 0; i < 4; i++)
		pixel[i] = value >> 8 * i;
	return 4;
}

struct graphics {
	struct vga_picture p;
	u32 (*unpack)(u32 value, u8 pixel[8]);
	bool colors_256;
	u32 color[16];
	u32 wide;	/* dots that a pixel has */
};

static void graphics_read(const struct vga *v, struct graphics *g)
{
	u8 mode = v->r.gfx[GFX_MODE];

	picture_read(v, &g->p);
	attr_colors(v, g->color);
	g->colors_256 = mode & GFX_MODE_256;
	if (g->colors_256)
		g->unpack = pixels_256;
	else
		g->unpack = mode & GFX_MODE_INTERLEAVED ? pixels_interleaved : pixels_planar;
	/* Two clocks put eight bits together. */
	g->wide = (g->p.half ? 2 : 1) * (g->colors_256 ? 2 : 1);
	g->p.width = (v->r.crtc[CRTC_WIDTH] + 1) * 8 * (g->p.half ? 2 : 1);
}

/* The doubleword that a scan line begins with. */
static u32 graphics_line(const struct vga *v, const struct graphics *g, u32 start, u32 y)
{
	u8 mode = v->r.crtc[CRTC_MODE];
	u32 row, shown = y;

	if (v->r.crtc[CRTC_ROW_HEIGHT] & DOUBLE_SCAN)
		shown /= 2;
	row = shown / g->p.row_height;
	start += row * g->p.stride;
	if (!(mode & MODE_ROW0)) {
		u32 bit = mode & MODE_BYTES ? 0x2000 : 0x1000;

		start = (start & ~bit) | (shown % g->p.row_height & 1 ? bit : 0);
	}
	return start;
}

static void graphics_row(struct vga *v, const struct graphics *g, u32 at)
{
	u8 pixel[8], enabled = v->r.attr[ATTR_PLANES];
	u32 x = 0;

	while (x < g->p.width) {
		u32 n = g->unpack(memory_load(v, at++), pixel);

		for (u32 i = 0; i < n; i++) {
			u32 c = g->colors_256 ? dac_color(v, pixel[i]) : g->color[pixel[i] & enabled];

			for (u32 w = 0; w < g->wide && x < g->p.width; w++)
				v->line[x++] = c;
		}
	}
}

static void draw_graphics(struct vga *v)
{
	struct graphics g;
	u32 start, y0 = 0;

	graphics_read(v, &g);
	if (!picture_fit(v, g.p.width, g.p.height))
		return;
	start = g.p.start;
	for (u32 y = 0; y < g.p.height; y++) {
		if (y == g.p.compare + 1) {
			start = 0;
			y0 = y;
		}
		graphics_row(v, &g, graphics_line(v, &g, start, y - y0));
		display_put_row(v->display, y, v->line);
	}
}

/* ---- dispi's modes --------------------------------------------------------------------------- */

static u32 color_15(u16 c)
{
	u32 r = c >> 10 & 31, g = c >> 5 & 31, b = c & 31;

	return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

static u32 color_16(u16 c)
{
	u32 r = c >> 11, g = c >> 5 & 63, b = c & 31;

	return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

static void linear_row(struct vga *v, const struct vga_vbe_mode *m, const u8 *in)
{
	u32 bytes = (m->bpp + 7) / 8;

	for (u32 x = 0; x < m->width; x++, in += bytes) {
		u32 c = 0;

		memcpy(&c, in, bytes);
		if (m->bpp == 8)
			c = dac_color(v, c);
		else if (m->bpp == 15)
			c = color_15(c);
		else if (m->bpp == 16)
			c = color_16(c);
		v->line[x] = c & 0xFFFFFF;
	}
}

static void draw_linear(struct vga *v, const struct vga_vbe_mode *m)
{
	u32 used = m->width * ((m->bpp + 7) / 8);

	for (u32 y = 0; y < m->height; y++) {
		u32 at = m->start + y * m->stride;

		if (!v->redraw && !vga_is_dirty(v, at, used))
			continue;
		linear_row(v, m, v->memory + at);
		display_put_row(v->display, y, v->line);
	}
}

static void draw_vbe_planes(struct vga *v, const struct vga_vbe_mode *m)
{
	struct graphics g = { .unpack = pixels_planar, .p = { .width = m->width }, .wide = 1 };

	attr_colors(v, g.color);
	for (u32 y = 0; y < m->height; y++) {
		graphics_row(v, &g, m->start + y * m->stride);
		display_put_row(v->display, y, v->line);
	}
}

static void draw_vbe(struct vga *v)
{
	struct vga_vbe_mode mode;

	if (!vga_vbe_mode(v, &mode) || !picture_fit(v, mode.width, mode.height))
		return;
	if (mode.bpp == 4)
		draw_vbe_planes(v, &mode);
	else
		draw_linear(v, &mode);
}

/* ---- all ------------------------------------------------------------------------------------- */

static void draw_nothing(struct vga *v)
{
	memset(v->line, 0, v->display->width * sizeof(*v->line));
	for (u32 y = 0; y < v->display->height; y++)
		display_put_row(v->display, y, v->line);
}

/* Between reset and the first mode, and while somebody programs one, the screen is dark. */
static bool picture_shows(const struct vga *v)
{
	return v->r.attr_index & ATTR_INDEX_ON && !(v->r.seq[SEQ_CLOCKING] & SEQ_CLOCKING_OFF);
}

static bool memory_changed(const struct vga *v)
{
	for (u32 i = 0; i < ARRAY_SIZE(v->dirty); i++)
		if (v->dirty[i])
			return true;
	return false;
}

void vga_draw(void *arg)
{
	struct vga *v = arg;

	vga_dirty_collect(v);
	v->redraw |= v->display->overlaid;
	if (!v->redraw && !memory_changed(v))
		return;
	if (!picture_shows(v))
		draw_nothing(v);
	else if (vga_vbe_on(v))
		draw_vbe(v);
	else if (v->r.gfx[GFX_MISC] & GFX_MISC_GRAPHICS)
		draw_graphics(v);
	else
		draw_text(v);
	memset(v->dirty, 0, sizeof(v->dirty));
	v->redraw = false;
}
