/* The VGA on its bus: what is mapped where, and the five verbs. See vga.h. */
#include "vmm/hw/vga.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BAR_LINEAR	0
#define BAR_REGS	2
#define REGS_PORTS	0x400	/* 0x3C0 on */
#define REGS_PORTS_END	0x420
#define REGS_VBE	0x500
#define REGS_VBE_END	(REGS_VBE + 2 * VBE_REGS)
#define VBE_FIRST_ID	0xB0C5

_Static_assert(256 * 9 * 2 <= DISPLAY_WIDTH_MAX, "every picture of VGA's fits a line");

/* ---- BAR 2 ----------------------------------------------------------------------------------- */

static u8 regs_read_byte(struct vga *v, u64 offset)
{
	if (offset >= REGS_PORTS && offset < REGS_PORTS_END)
		return vga_port_read(v, 0x3C0 + (offset - REGS_PORTS));
	if (offset >= REGS_VBE && offset < REGS_VBE_END)
		return vga_vbe_read(v, (offset - REGS_VBE) / 2) >> 8 * (offset & 1);
	return 0;
}

static u64 regs_read(void *dev, u64 offset, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)regs_read_byte(dev, offset + i) << 8 * i;
	return value;
}

/* Dispi's registers are written whole. */
static void regs_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct vga *v = dev;

	if (offset >= REGS_VBE && offset < REGS_VBE_END && size >= 2 && !(offset & 1)) {
		for (unsigned i = 0; i < size; i += 2)
			vga_vbe_write(v, (offset + i - REGS_VBE) / 2, value >> 8 * i);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		if (offset + i >= REGS_PORTS && offset + i < REGS_PORTS_END)
			vga_port_write(v, 0x3C0 + (offset + i - REGS_PORTS), value >> 8 * i);
}

static const struct io_ops regs_ops = { .read = regs_read, .write = regs_write, .width = 8 };

/* ---- PCI ------------------------------------------------------------------------------------- */

static void vga_bar_moved(struct pci_device *d, unsigned bar, u64 base)
{
	struct vga *v = d->self;

	if (bar == BAR_LINEAR)
		vga_slot_set(v, &v->linear, base, 0, VGA_MEMORY_SIZE);
}

static void range_switch(struct io_map *map, const struct io_range *range, bool *mapped, bool on)
{
	if (on && !*mapped)
		*mapped = io_map_add(map, range) == 0;
	else if (!on && *mapped) {
		io_map_remove(map, range->base);
		*mapped = false;
	}
}

/* A VGA also answers at the addresses that it always had, as far as the command register lets it. */
static void vga_config_written(struct pci_device *d, unsigned offset, unsigned size)
{
	struct vga *v = d->self;
	const struct io_range ports = { VGA_PORTS, VGA_PORTS_SIZE, &vga_ports_ops, v, "vga" };
	const struct io_range window = { VGA_WINDOW, VGA_WINDOW_SIZE, &vga_window_ops, v, "vga" };

	if (offset > PCI_COMMAND || offset + size <= PCI_COMMAND)
		return;
	range_switch(v->pio, &ports, &v->ports_mapped, d->config[PCI_COMMAND] & PCI_COMMAND_IO);
	range_switch(v->mmio, &window, &v->window_mapped, d->config[PCI_COMMAND] & PCI_COMMAND_MEMORY);
	vga_window_update(v);
}

static const struct pci_ops vga_pci_ops = {
	.config_written = vga_config_written, .bar_moved = vga_bar_moved };

/* ---- the five verbs -------------------------------------------------------------------------- */

static void vga_reset(void *dev)
{
	struct vga *v = dev;

	memset(&v->r, 0, sizeof(v->r));
	v->r.vbe[VBE_ID] = VBE_FIRST_ID;
	v->r.dac_mask = 0xFF;
	v->r.gfx[GFX_BIT_MASK] = 0xFF;
	/* Everything answers at 0x3Dx, before any firmware. */
	v->r.misc = MISC_COLOR | MISC_MEMORY;
	/* Zeroes, and no host memory until somebody draws. */
	madvise(v->memory, VGA_MEMORY_SIZE, MADV_DONTNEED);
	v->redraw = true;
	vga_window_update(v);
}

static void vga_nop(void *dev)
{
	(void)dev;
}

static const struct state_field vga_fields[] = {
	STATE_FIELD(struct vga_registers, misc, 1),
	STATE_FIELD(struct vga_registers, feature, 1),
	STATE_FIELD(struct vga_registers, status1, 1),
	STATE_FIELD(struct vga_registers, seq_index, 1),
	STATE_FIELD(struct vga_registers, seq, 1),
	STATE_FIELD(struct vga_registers, gfx_index, 1),
	STATE_FIELD(struct vga_registers, gfx, 1),
	STATE_FIELD(struct vga_registers, attr_index, 1),
	STATE_FIELD(struct vga_registers, attr_data, 1),
	STATE_FIELD(struct vga_registers, attr, 1),
	STATE_FIELD(struct vga_registers, crtc_index, 1),
	STATE_FIELD(struct vga_registers, crtc, 1),
	STATE_FIELD(struct vga_registers, dac_mask, 1),
	STATE_FIELD(struct vga_registers, dac_index, 1),
	STATE_FIELD(struct vga_registers, dac_component, 1),
	STATE_FIELD(struct vga_registers, dac_writing, 1),
	STATE_FIELD(struct vga_registers, dac_cache, 1),
	STATE_FIELD(struct vga_registers, dac, 1),
	STATE_FIELD(struct vga_registers, latch, 1),
	STATE_FIELD(struct vga_registers, vbe_index, 1),
	STATE_FIELD(struct vga_registers, vbe, 1),
};

/* Version 1 had no video memory behind it: the next device's state would be taken for that. */
static const struct state_table vga_table =
	STATE_TABLE_FROM("vga", struct vga_registers, 2, 2, vga_fields);
_Static_assert(sizeof(struct vga_registers) <= DEVICE_STATE_MAX, "a saved state has a limit");

static void vga_save(void *dev, void *state)
{
	const struct vga *v = dev;

	memcpy(state, &v->r, sizeof(v->r));
}

/* All else is an index that each use checks. */
static long vga_load(void *dev, const void *state, const void *buf, size_t size)
{
	struct vga *v = dev;
	const struct vga_registers *r = state;
	long n;

	if (r->dac_component > 2 || r->dac_writing > 1 || r->attr_data > 1 || r->attr_index > 0x3F)
		return -EINVAL;
	n = vga_load_memory(v, buf, size);
	if (n < 0)
		return n;
	v->r = *r;
	v->redraw = true;
	vga_window_update(v);
	return n;
}

const struct device_ops vga_device_ops = {
	.table = &vga_table, .reset = vga_reset, .pause = vga_nop, .resume = vga_nop,
	.save = vga_save, .save_more = vga_save_memory, .load_more = vga_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

static int vga_allocate(struct vga *v)
{
	v->line = calloc(DISPLAY_WIDTH_MAX, sizeof(*v->line));
	v->memory = mmap(NULL, VGA_MEMORY_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->memory == MAP_FAILED)
		v->memory = NULL;
	return v->line && v->memory ? 0 : -ENOMEM;
}

int vga_init(struct vga *v, const struct vga_env *env)
{
	const struct pci_id id = {
		.vendor = VGA_VENDOR, .device = VGA_DEVICE, .subsystem_vendor = 0x1AF4, .subsystem = 0x1100,
		.class = 0x030000, .revision = 2,
	};

	*v = (struct vga){
		.kvm = env->kvm, .pio = env->pio, .mmio = env->mmio, .display = env->display,
		.rom = env->rom,
		.linear = { .number = env->slot, .gpa = PCI_UNMAPPED },
		.window = { .number = env->slot + 1, .gpa = PCI_UNMAPPED },
	};
	if (vga_allocate(v) < 0) {
		vga_destroy(v);
		return -ENOMEM;
	}
	pci_init(&v->pci, &vga_pci_ops, v, &id);
	pci_add_bar(&v->pci, BAR_LINEAR, PCI_BAR_MEM32, VGA_MEMORY_SIZE, &vga_linear_ops, v);
	pci_add_bar(&v->pci, BAR_REGS, PCI_BAR_MEM32, VGA_REGS_SIZE, &regs_ops, v);
	if (v->rom.size)
		pci_set_rom(&v->pci, &v->rom);
	vga_reset(v);
	display_set_source(v->display, vga_draw, v);
	return io_map_add(v->pio, &(struct io_range){ VGA_VBE_PORTS, 3, &vga_vbe_ops, v, "vga-vbe" });
}

void vga_destroy(struct vga *v)
{
	/* Others leave the bus after it, and look at who is still there. */
	if (v->pci.bus)
		pci_detach(&v->pci);
	if (v->memory)
		munmap(v->memory, VGA_MEMORY_SIZE);
	free(v->line);
	v->memory = NULL;
	v->line = NULL;
}
