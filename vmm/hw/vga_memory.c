/*
 * VGA's memory as the CPU sees it: the classic window with planes and latches (PS/2 Hardware
 * Interface Technical Reference, "Graphics Controller"), and the parts that are memory slots. See
 * vga.h.
 */
#include <string.h>

#include "vmm/hw/vga.h"

/* ---- what was written ------------------------------------------------------------------------ */

void vga_dirty_add(struct vga *v, u32 offset, u32 size)
{
	if (!size)
		return;
	for (u32 page = offset / VGA_PAGE; page <= (offset + size - 1) / VGA_PAGE && page < VGA_PAGES; page++)
		v->dirty[page / 64] |= BIT(page % 64);
}

bool vga_is_dirty(const struct vga *v, u32 offset, u32 size)
{
	u32 last = MIN((offset + size - 1) / VGA_PAGE, VGA_PAGES - 1);

	for (u32 page = offset / VGA_PAGE; page <= last; page++)
		if (v->dirty[page / 64] & BIT(page % 64))
			return true;
	return false;
}

static void slot_collect(struct vga *v, const struct vga_slot *slot)
{
	u64 bits[VGA_PAGES / 64] = { 0 };
	struct kvm_dirty_log log = { .slot = slot->number, .dirty_bitmap = bits };
	u32 first = slot->offset / VGA_PAGE;

	if (slot->gpa == PCI_UNMAPPED)
		return;
	/* Unknown means all. */
	if (kvm_ioctl(v->kvm, v->kvm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0) {
		vga_dirty_add(v, slot->offset, slot->size);
		return;
	}
	for (u32 i = 0; i < slot->size / VGA_PAGE; i++)
		if (bits[i / 64] & BIT(i % 64))
			v->dirty[(first + i) / 64] |= BIT((first + i) % 64);
}

void vga_dirty_collect(struct vga *v)
{
	slot_collect(v, &v->linear);
	slot_collect(v, &v->window);
}

/* ---- slots ----------------------------------------------------------------------------------- */

static long slot_apply(const struct vga *v, const struct vga_slot *slot, u32 size)
{
	const struct kvm_userspace_memory_region region = {
		.slot = slot->number,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
		.guest_phys_addr = slot->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)(v->memory + slot->offset),
	};

	return kvm_ioctl(v->kvm, v->kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Where the hypervisor refuses, over RAM for one, accesses that arrive here are served one by one. */
void vga_slot_set(struct vga *v, struct vga_slot *slot, u64 gpa, u32 offset, u32 size)
{
	if (!v->kvm || (slot->gpa == gpa && slot->offset == offset && slot->size == size))
		return;
	if (slot->gpa != PCI_UNMAPPED) {
		slot_collect(v, slot);
		slot_apply(v, slot, 0);
	}
	slot->gpa = gpa;
	slot->offset = offset;
	slot->size = size;
	if (gpa != PCI_UNMAPPED && slot_apply(v, slot, size) < 0)
		slot->gpa = PCI_UNMAPPED;
}

/* ---- the window ------------------------------------------------------------------------------ */

/* GFX_MISC's memory map: where in the window memory is, and how much. */
static const struct { u32 start, size; } window_maps[] = {
	{ 0x00000, 0x20000 }, { 0x00000, 0x10000 }, { 0x10000, 0x8000 }, { 0x18000, 0x8000 },
};

/* Does the window show memory byte by byte? */
static bool window_is_linear(const struct vga *v)
{
	if (vga_vbe_on(v))
		return v->r.vbe[VBE_BPP] != 4;
	return v->r.seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4;
}

/* What offset 0 of the mapped part is in memory, or in each plane. */
static u32 window_bank(const struct vga *v)
{
	return vga_vbe_on(v) ? (u32)v->r.vbe[VBE_BANK] << 16 : 0;
}

static unsigned window_map(const struct vga *v)
{
	return vga_vbe_on(v) ? 1 : v->r.gfx[GFX_MISC] >> 2 & 3;
}

void vga_window_update(struct vga *v)
{
	unsigned map = window_map(v);
	u64 size = window_maps[map].size, bank = window_bank(v);
	bool direct = v->window_mapped && window_is_linear(v) && v->r.misc & MISC_MEMORY &&
		      bank + size <= VGA_MEMORY_SIZE &&
		      (vga_vbe_on(v) || v->r.seq[SEQ_MAP_MASK] == 0xF);

	if (direct)
		vga_slot_set(v, &v->window, VGA_WINDOW + window_maps[map].start, bank, size);
	else
		vga_slot_set(v, &v->window, PCI_UNMAPPED, 0, 0);
}

/* Offset in the window to offset in memory, or in each plane; false: nobody answers. */
static bool window_locate(const struct vga *v, u64 offset, u32 *at)
{
	unsigned map = window_map(v);
	u32 limit = window_is_linear(v) ? VGA_MEMORY_SIZE : VGA_MEMORY_SIZE / 4;

	if (!(v->r.misc & MISC_MEMORY) || offset < window_maps[map].start ||
	    offset - window_maps[map].start >= window_maps[map].size)
		return false;
	*at = offset - window_maps[map].start + window_bank(v);
	return *at < limit;
}

/* Bits 0 to 3 to all bits of bytes 0 to 3. */
static u32 planes(u8 bits)
{
	return ((bits & 0xF) * 0x00204081U & 0x01010101U) * 0xFF;
}

static u32 memory_load(const struct vga *v, u32 at)
{
	u32 value;

	memcpy(&value, v->memory + 4 * at, 4);
	return value;
}

/* Read mode 1: which pixels have the colour. */
static u8 window_compare(const struct vga *v)
{
	u32 differ = (v->r.latch ^ planes(v->r.gfx[GFX_COMPARE])) & planes(v->r.gfx[GFX_DONT_CARE]);

	differ |= differ >> 16;
	return ~(differ | differ >> 8);
}

static u8 window_read_byte(struct vga *v, u64 offset)
{
	unsigned plane = v->r.gfx[GFX_READ_MAP] & 3;
	u32 at;

	if (!window_locate(v, offset, &at))
		return 0xFF;
	if (window_is_linear(v))
		return v->memory[at];
	if (v->r.gfx[GFX_MODE] & GFX_MODE_ODD_EVEN) {
		plane = (plane & 2) | (at & 1);
		at >>= 1;
	}
	v->r.latch = memory_load(v, at);
	return v->r.gfx[GFX_MODE] & GFX_MODE_READ ? window_compare(v) : v->r.latch >> 8 * plane;
}

static u8 rotated(const struct vga *v, u8 value)
{
	unsigned n = v->r.gfx[GFX_ROTATE] & 7;

	return value >> n | value << (8 - n);
}

static u32 combined(const struct vga *v, u32 value)
{
	switch (v->r.gfx[GFX_ROTATE] >> 3) {
	case 1:
		return value & v->r.latch;
	case 2:
		return value | v->r.latch;
	case 3:
		return value ^ v->r.latch;
	}
	return value;
}

/* What the four write modes make of a byte, before the map mask. */
static u32 window_pixels(const struct vga *v, u8 byte)
{
	u32 mask = v->r.gfx[GFX_BIT_MASK] * 0x01010101U, value = 0;
	u32 set = planes(v->r.gfx[GFX_SET_RESET]), enable = planes(v->r.gfx[GFX_ENABLE_SET_RESET]);

	switch (v->r.gfx[GFX_MODE] & 3) {
	case 0:
		value = rotated(v, byte) * 0x01010101U;
		value = (value & ~enable) | (set & enable);
		break;
	case 1:
		return v->r.latch;
	case 2:
		value = planes(byte);
		break;
	case 3:
		mask &= rotated(v, byte) * 0x01010101U;
		value = set;
		break;
	}
	return (combined(v, value) & mask) | (v->r.latch & ~mask);
}

static void planes_write(struct vga *v, u32 at, u32 pixels, u8 map)
{
	u32 mask = planes(map), value = (memory_load(v, at) & ~mask) | (pixels & mask);

	memcpy(v->memory + 4 * at, &value, 4);
	vga_dirty_add(v, 4 * at, 4);
}

static void window_write_byte(struct vga *v, u64 offset, u8 byte)
{
	u8 map = v->r.seq[SEQ_MAP_MASK];
	u32 at;

	if (!window_locate(v, offset, &at))
		return;
	if (window_is_linear(v)) {
		if (!vga_vbe_on(v) && !(map & BIT(at & 3)))
			return;
		v->memory[at] = byte;
		vga_dirty_add(v, at, 1);
		return;
	}
	if (v->r.gfx[GFX_MODE] & GFX_MODE_ODD_EVEN) {
		map &= at & 1 ? 0xA : 0x5;
		at >>= 1;
	}
	planes_write(v, at, window_pixels(v, byte), map);
}

static u64 window_read(void *dev, u64 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)window_read_byte(dev, offset + i) << 8 * i;
	return value;
}

static void window_write(void *dev, u64 offset, u64 value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		window_write_byte(dev, offset + i, value >> 8 * i);
}

const struct io_ops vga_window_ops = { .read = window_read, .write = window_write, .width = 8 };

/* ---- BAR 0, where it is no slot -------------------------------------------------------------- */

static u64 linear_read(void *dev, u64 offset, unsigned size)
{
	const struct vga *v = dev;
	u64 value = 0;

	memcpy(&value, v->memory + offset, size);
	return value;
}

static void linear_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct vga *v = dev;

	memcpy(v->memory + offset, &value, size);
	vga_dirty_add(v, offset, size);
}

const struct io_ops vga_linear_ops = { .read = linear_read, .write = linear_write, .width = 8 };
