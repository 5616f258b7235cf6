/*
 * Bochs's display interface, by which the VGA BIOS and drivers set linear modes: 16-bit registers
 * behind an index (the "VBE Display API" document of the LGPL VGABIOS, and QEMU's
 * docs/specs/standard-vga). See vga.h.
 */
#include <string.h>

#include "vmm/hw/vga.h"

#define ID_FIRST	0xB0C0
#define ID_LAST		0xB0C5

static bool bpp_is_known(unsigned bpp)
{
	return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Of width pixels. With 4 bits a pixel it is doublewords: a byte in each plane. */
static u32 row_size(u32 width, u32 bpp)
{
	return bpp == 4 ? width / 8 : width * ((bpp + 7) / 8);
}

static u32 memory_of(u32 bpp)
{
	return bpp == 4 ? VGA_MEMORY_SIZE / 4 : VGA_MEMORY_SIZE;
}

bool vga_vbe_mode(const struct vga *v, struct vga_vbe_mode *m)
{
	const u16 *reg = v->r.vbe;
	u64 start, end;

	*m = (struct vga_vbe_mode){ .width = reg[VBE_XRES], .height = reg[VBE_YRES], .bpp = reg[VBE_BPP] };
	if (!vga_vbe_on(v) || !bpp_is_known(m->bpp) || m->width % 8 || !m->width || !m->height ||
	    m->width > DISPLAY_WIDTH_MAX || m->height > DISPLAY_HEIGHT_MAX)
		return false;
	m->stride = row_size(MAX(reg[VBE_VIRT_WIDTH], reg[VBE_XRES]), m->bpp);
	start = (u64)reg[VBE_Y_OFFSET] * m->stride + row_size(reg[VBE_X_OFFSET], m->bpp);
	end = start + (u64)m->stride * (m->height - 1) + row_size(m->width, m->bpp);
	m->start = start;
	return end <= memory_of(m->bpp);
}

/* How many rows there is room for. */
static u16 virtual_height(const u16 *reg)
{
	u32 stride = bpp_is_known(reg[VBE_BPP]) ? row_size(reg[VBE_VIRT_WIDTH], reg[VBE_BPP]) : 0;

	return stride ? MIN(memory_of(reg[VBE_BPP]) / stride, 0xFFFFU) : 0;
}

static void vbe_enable(struct vga *v, u16 value)
{
	u16 *reg = v->r.vbe, before = reg[VBE_ENABLE];
	struct vga_vbe_mode mode;

	reg[VBE_ENABLE] = value & ~(u16)VBE_KEEP_MEMORY;
	if (!(value & VBE_ENABLED) || before & VBE_ENABLED)
		return;
	reg[VBE_VIRT_WIDTH] = reg[VBE_XRES];
	reg[VBE_VIRT_HEIGHT] = virtual_height(reg);
	reg[VBE_X_OFFSET] = reg[VBE_Y_OFFSET] = reg[VBE_BANK] = 0;
	if (value & VBE_KEEP_MEMORY || !vga_vbe_mode(v, &mode))
		return;
	if (mode.bpp == 4)
		mode.stride *= 4;
	memset(v->memory, 0, mode.stride * mode.height);
	vga_dirty_add(v, 0, mode.stride * mode.height);
}

static void vbe_set_virtual_width(struct vga *v, u16 value)
{
	u16 *reg = v->r.vbe;

	reg[VBE_VIRT_WIDTH] = MAX(value, reg[VBE_XRES]);
	reg[VBE_VIRT_HEIGHT] = virtual_height(reg);
}

/* The mode's shape changes only while it is off. */
static void vbe_set_shape(struct vga *v, unsigned index, u16 value)
{
	if (!vga_vbe_on(v))
		v->r.vbe[index] = value;
}

void vga_vbe_write(struct vga *v, unsigned index, u16 value)
{
	v->redraw = true;
	switch (index) {
	case VBE_ID:
		if (value >= ID_FIRST && value <= ID_LAST)
			v->r.vbe[VBE_ID] = value;
		break;
	case VBE_XRES:
	case VBE_YRES:
	case VBE_BPP:
		/* 0 bits a pixel stood for 8 in the first version. */
		vbe_set_shape(v, index, index == VBE_BPP && !value ? 8 : value);
		break;
	case VBE_ENABLE:
		vbe_enable(v, value);
		break;
	case VBE_VIRT_WIDTH:
		vbe_set_virtual_width(v, value);
		break;
	case VBE_BANK:
	case VBE_X_OFFSET:
	case VBE_Y_OFFSET:
		v->r.vbe[index] = value;
		break;
	}
	vga_window_update(v);
}

u16 vga_vbe_read(const struct vga *v, unsigned index)
{
	bool caps = v->r.vbe[VBE_ENABLE] & VBE_GETCAPS;

	switch (index) {
	case VBE_XRES:
		return caps ? DISPLAY_WIDTH_MAX : v->r.vbe[index];
	case VBE_YRES:
		return caps ? DISPLAY_HEIGHT_MAX : v->r.vbe[index];
	case VBE_BPP:
		return caps ? 32 : v->r.vbe[index];
	case VBE_MEMORY:
		return VGA_MEMORY_SIZE >> 16;
	}
	return index < VBE_REGS ? v->r.vbe[index] : 0;
}

/* Port 0x1CE is the index; data is at 0x1CF, and at 0x1D0 for who wants it aligned. */
static u64 vbe_port_read(void *dev, u64 offset, unsigned size)
{
	const struct vga *v = dev;

	(void)size;
	return offset ? vga_vbe_read(v, v->r.vbe_index) : v->r.vbe_index;
}

static void vbe_port_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct vga *v = dev;

	(void)size;
	if (offset)
		vga_vbe_write(v, v->r.vbe_index, value);
	else
		v->r.vbe_index = value;
}

const struct io_ops vga_vbe_ops = { .read = vbe_port_read, .write = vbe_port_write, .width = 2 };
