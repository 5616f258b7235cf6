/*
 * VGA's registers (IBM PS/2 Hardware Interface Technical Reference, Video Subsystem; the names are
 * its own), see vga.h.
 */
#include "vmm/hw/vga.h"

#define STATUS1_BLANK	BIT(0)
#define STATUS1_RETRACE	BIT(3)
#define VSYNC_PROTECT	BIT(7)	/* CRTC 0 to 7 are read-only */
#define OVERFLOW_COMPARE BIT(4)	/* but for this bit */
#define NO_ANSWER	0xFF

/* ---- attribute controller -------------------------------------------------------------------- */

static void attr_write(struct vga *v, u8 value)
{
	static const u8 mask[VGA_ATTR_REGS] = {
		0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F, 0x3F,
		0x3F, 0x3F, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F,
	};
	unsigned index = v->r.attr_index & 0x1F;

	if (!v->r.attr_data)
		v->r.attr_index = value & 0x3F;
	else if (index < VGA_ATTR_REGS)
		v->r.attr[index] = value & mask[index];
	v->r.attr_data = !v->r.attr_data;
}

static u8 attr_read(const struct vga *v)
{
	unsigned index = v->r.attr_index & 0x1F;

	return index < VGA_ATTR_REGS ? v->r.attr[index] : 0;
}

/* ---- palette --------------------------------------------------------------------------------- */

static void dac_write(struct vga *v, u8 value)
{
	struct vga_registers *r = &v->r;

	r->dac_cache[r->dac_component++] = value;
	if (r->dac_component < 3)
		return;
	for (unsigned i = 0; i < 3; i++)
		r->dac[3 * r->dac_index + i] = r->dac_cache[i];
	r->dac_component = 0;
	r->dac_index++;
}

static u8 dac_read(struct vga *v)
{
	struct vga_registers *r = &v->r;
	u8 value = r->dac[3 * r->dac_index + r->dac_component++];

	if (r->dac_component == 3) {
		r->dac_component = 0;
		r->dac_index++;
	}
	return value;
}

static void dac_start(struct vga *v, u8 index, bool writing)
{
	v->r.dac_index = index;
	v->r.dac_component = 0;
	v->r.dac_writing = writing;
}

/* ---- CRTC ------------------------------------------------------------------------------------ */

static void crtc_write(struct vga *v, u8 value)
{
	unsigned index = v->r.crtc_index;
	u8 *reg = v->r.crtc;

	if (index >= VGA_CRTC_REGS)
		return;
	if (index > CRTC_OVERFLOW || !(reg[CRTC_VSYNC_END] & VSYNC_PROTECT))
		reg[index] = value;
	else if (index == CRTC_OVERFLOW)
		reg[index] = (reg[index] & ~OVERFLOW_COMPARE) | (value & OVERFLOW_COMPARE);
}

/*
 * Whoever polls it waits for a beginning or an end: both come with the next reads. The attribute
 * controller takes an index next.
 */
static u8 status1_read(struct vga *v)
{
	v->r.attr_data = 0;
	v->r.status1 ^= STATUS1_BLANK | STATUS1_RETRACE;
	return v->r.status1;
}

/* ---- ports ----------------------------------------------------------------------------------- */

/* 0x3B0 to 0x3BF and 0x3D0 to 0x3DF hold the same; one of the two answers. */
static bool port_is_off(const struct vga *v, unsigned port)
{
	bool color = v->r.misc & MISC_COLOR;

	return (port < 0x3C0 && color) || (port >= 0x3D0 && !color);
}

static u8 crtc_port_read(struct vga *v, unsigned port)
{
	switch (port & 0xF) {
	case 0x4:
		return v->r.crtc_index;
	case 0x5:
		return v->r.crtc_index < VGA_CRTC_REGS ? v->r.crtc[v->r.crtc_index] : 0;
	case 0xA:
		return status1_read(v);
	}
	return NO_ANSWER;
}

u8 vga_port_read(struct vga *v, unsigned port)
{
	const struct vga_registers *r = &v->r;

	if (port_is_off(v, port))
		return NO_ANSWER;
	switch (port) {
	case 0x3C0:
		return r->attr_data ? 0 : r->attr_index;
	case 0x3C1:
		return attr_read(v);
	case 0x3C2:
		return 0;	/* status 0: no interrupt, the monitor's switch is open */
	case 0x3C4:
		return r->seq_index;
	case 0x3C5:
		return r->seq_index < VGA_SEQ_REGS ? r->seq[r->seq_index] : 0;
	case 0x3C6:
		return r->dac_mask;
	case 0x3C7:
		return r->dac_writing ? 0 : 3;
	case 0x3C8:
		return r->dac_index;
	case 0x3C9:
		return dac_read(v);
	case 0x3CA:
		return r->feature;
	case 0x3CC:
		return r->misc;
	case 0x3CE:
		return r->gfx_index;
	case 0x3CF:
		return r->gfx_index < VGA_GFX_REGS ? r->gfx[r->gfx_index] : 0;
	}
	return port < 0x3C0 || port >= 0x3D0 ? crtc_port_read(v, port) : NO_ANSWER;
}

static void crtc_port_write(struct vga *v, unsigned port, u8 value)
{
	switch (port & 0xF) {
	case 0x4:
		v->r.crtc_index = value;
		break;
	case 0x5:
		crtc_write(v, value);
		break;
	case 0xA:
		v->r.feature = value & 0x10;
		break;
	}
}

static void seq_write(struct vga *v, u8 value)
{
	static const u8 mask[VGA_SEQ_REGS] = { 0x03, 0x3D, 0x0F, 0x3F, 0x0E };

	if (v->r.seq_index < VGA_SEQ_REGS)
		v->r.seq[v->r.seq_index] = value & mask[v->r.seq_index];
	vga_window_update(v);
}

static void gfx_write(struct vga *v, u8 value)
{
	static const u8 mask[VGA_GFX_REGS] = { 0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF };

	if (v->r.gfx_index < VGA_GFX_REGS)
		v->r.gfx[v->r.gfx_index] = value & mask[v->r.gfx_index];
	vga_window_update(v);
}

void vga_port_write(struct vga *v, unsigned port, u8 value)
{
	if (port_is_off(v, port))
		return;
	v->redraw = true;
	switch (port) {
	case 0x3C0:
		attr_write(v, value);
		break;
	case 0x3C2:
		v->r.misc = value & ~0x10;
		vga_window_update(v);
		break;
	case 0x3C4:
		v->r.seq_index = value;
		break;
	case 0x3C5:
		seq_write(v, value);
		break;
	case 0x3C6:
		v->r.dac_mask = value;
		break;
	case 0x3C7:
		dac_start(v, value, false);
		break;
	case 0x3C8:
		dac_start(v, value, true);
		break;
	case 0x3C9:
		dac_write(v, value);
		break;
	case 0x3CE:
		v->r.gfx_index = value;
		break;
	case 0x3CF:
		gfx_write(v, value);
		break;
	default:
		if (port < 0x3C0 || port >= 0x3D0)
			crtc_port_write(v, port, value);
	}
}

static u64 ports_read(void *dev, u64 offset, unsigned size)
{
	(void)size;
	return vga_port_read(dev, VGA_PORTS + offset);
}

static void ports_write(void *dev, u64 offset, u64 value, unsigned size)
{
	(void)size;
	vga_port_write(dev, VGA_PORTS + offset, value);
}

const struct io_ops vga_ports_ops = { .read = ports_read, .write = ports_write, .width = 1 };
