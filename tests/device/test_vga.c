/* The VGA: registers, planes and latches, pictures of each kind of mode, memory slots, the screen's views. */
#include <stdlib.h>

#include "tests/device/fixture.h"
#include "tests/device/real_vm.h"
#include "vmm/hw/vga.h"
#include "vmm/pci/bus.h"

#define CF8(devfn, reg) (0x80000000u | (devfn) << 8 | (reg))
#define DEVFN	PCI_DEVFN(2, 0)
#define BAR0	0xC0000000u
#define BAR2	0xD0000000u
#define ROM	0xD1000000u
#define SLOT	32

struct board {
	struct io_map pio, mmio;
	struct pci_host host;
	struct display display;
	struct display_view view;
	struct vga vga;
	struct kvm kvm;
};

/* ---- a hypervisor that keeps account of slots ------------------------------------------------- */

static struct kvm_userspace_memory_region slot[2];
static u64 slot_dirty[2][VGA_PAGES / 64];
static bool slot_refused;

static long fake_ioctl(int fd, unsigned long request, unsigned long arg)
{
	(void)fd;
	if (request == KVM_SET_USER_MEMORY_REGION) {
		const struct kvm_userspace_memory_region *r = (void *)arg;

		if (slot_refused && r->memory_size)
			return -EEXIST;
		assert_in_range(r->slot, SLOT, SLOT + 1);
		/* A slot is made anew only after it was removed. */
		assert_int_not_equal(!!slot[r->slot - SLOT].memory_size, !!r->memory_size);
		slot[r->slot - SLOT] = *r;
		memset(slot_dirty[r->slot - SLOT], 0, sizeof(slot_dirty[0]));
		return 0;
	}
	if (request == KVM_GET_DIRTY_LOG) {
		const struct kvm_dirty_log *log = (void *)arg;
		unsigned i = log->slot - SLOT;

		assert_true(slot[i].memory_size);
		memcpy(log->dirty_bitmap, slot_dirty[i], slot[i].memory_size / VGA_PAGE / 8);
		memset(slot_dirty[i], 0, sizeof(slot_dirty[i]));
		return 0;
	}
	return -EINVAL;
}

static const struct kvm_backend fake_backend = { .name = "fake", .ioctl = fake_ioctl };

/* ---- surroundings ---------------------------------------------------------------------------- */

static const u8 rom_data[3000] = { 0x55, 0xAA, 6, [2999] = 0x77 };

static void out(struct board *b, u16 port, u32 value, unsigned size)
{
	io_map_write(&b->pio, port, &value, size);
}

static u32 in(struct board *b, u16 port, unsigned size)
{
	u32 value = 0;

	io_map_read(&b->pio, port, &value, size);
	return value;
}

static void config_out(struct board *b, unsigned reg, u32 value)
{
	out(b, 0xCF8, CF8(DEVFN, reg), 4);
	out(b, 0xCFC, value, 4);
}

static u32 config_in(struct board *b, unsigned reg)
{
	out(b, 0xCF8, CF8(DEVFN, reg), 4);
	return in(b, 0xCFC, 4);
}

static u32 mem_in(struct board *b, u64 at, unsigned size)
{
	u32 value = 0;

	io_map_read(&b->mmio, at, &value, size);
	return value;
}

static void mem_out(struct board *b, u64 at, u32 value, unsigned size)
{
	io_map_write(&b->mmio, at, &value, size);
}

static void seq(struct board *b, u8 index, u8 value)
{
	out(b, 0x3C4, index | value << 8, 2);
}

static void gfx(struct board *b, u8 index, u8 value)
{
	out(b, 0x3CE, index | value << 8, 2);
}

static void crtc(struct board *b, u8 index, u8 value)
{
	out(b, 0x3D4, index | value << 8, 2);
}

static void attr(struct board *b, u8 index, u8 value)
{
	in(b, 0x3DA, 1);
	out(b, 0x3C0, index, 1);
	out(b, 0x3C0, value, 1);
}

static void attr_on(struct board *b)
{
	in(b, 0x3DA, 1);
	out(b, 0x3C0, 0x20, 1);
}

static void dac(struct board *b, u8 index, u8 r, u8 g, u8 bl)
{
	out(b, 0x3C8, index, 1);
	out(b, 0x3C9, r, 1);
	out(b, 0x3C9, g, 1);
	out(b, 0x3C9, bl, 1);
}

static void vbe(struct board *b, u16 index, u16 value)
{
	out(b, 0x1CE, index, 2);
	out(b, 0x1CF, value, 2);
}

static u16 vbe_in(struct board *b, u16 index)
{
	out(b, 0x1CE, index, 2);
	return in(b, 0x1CF, 2);
}

static void vbe_mode(struct board *b, u16 width, u16 height, u16 bpp)
{
	vbe(b, VBE_ENABLE, 0);
	vbe(b, VBE_XRES, width);
	vbe(b, VBE_YRES, height);
	vbe(b, VBE_BPP, bpp);
	vbe(b, VBE_ENABLE, 0x41);
	attr_on(b);
}

static void on(struct board *b)
{
	config_out(b, PCI_BAR0, BAR0);
	config_out(b, PCI_BAR0 + 8, BAR2);
	config_out(b, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
}

static int setup(void **state)
{
	static struct board b;
	struct vga_env env = {
		.kvm = &b.kvm, .pio = &b.pio, .mmio = &b.mmio, .display = &b.display, .slot = SLOT,
		.rom = { rom_data, sizeof(rom_data) },
	};

	memset(&b, 0, sizeof(b));
	memset(slot, 0, sizeof(slot));
	memset(slot_dirty, 0, sizeof(slot_dirty));
	slot_refused = false;
	b.kvm.backend = &fake_backend;
	pci_host_init(&b.host, &b.pio, &b.mmio);
	io_map_add(&b.pio, &(struct io_range){ 0xCF8, 8, &pci_ports_ops, &b.host, "pci" });
	assert_int_equal(display_init(&b.display), 0);
	assert_int_equal(vga_init(&b.vga, &env), 0);
	assert_int_equal(pci_attach(&b.host.root, DEVFN, &b.vga.pci), 0);
	*state = &b;
	return 0;
}

static int setup_on(void **state)
{
	setup(state);
	on(*state);
	return 0;
}

static int teardown(void **state)
{
	struct board *b = *state;

	display_detach(&b->view);
	pci_detach(&b->vga.pci);
	vga_destroy(&b->vga);
	display_destroy(&b->display);
	return 0;
}

static u32 pixel(struct board *b, u32 x, u32 y)
{
	assert_true(x < b->display.width && y < b->display.height);
	return b->display.pixel[y * b->display.width + x];
}

static void check_size(struct board *b, u32 width, u32 height)
{
	display_refresh(&b->display);
	assert_int_equal(b->display.width, width);
	assert_int_equal(b->display.height, height);
}

/* ---- the bus --------------------------------------------------------------------------------- */

static void test_bus(void **state)
{
	struct board *b = *state;

	assert_int_equal(config_in(b, 0), 0x11111234);
	assert_int_equal(config_in(b, 8), 0x03000002);
	config_out(b, PCI_BAR0, ~0u);
	assert_int_equal(config_in(b, PCI_BAR0), 0xFF000000);
	config_out(b, PCI_BAR0 + 8, ~0u);
	assert_int_equal(config_in(b, PCI_BAR0 + 8), 0xFFFFF000);
	/* Nobody answers before the command register allows it. */
	assert_int_equal(in(b, 0x3CC, 1), 0xFF);
	assert_int_equal(mem_in(b, 0xA0000, 1), 0xFF);
	on(b);
	assert_int_equal(in(b, 0x3CC, 1), 3);
	assert_int_equal(mem_in(b, 0xA0000, 1), 0);
	config_out(b, PCI_ROM_BAR, ROM | 1);
	assert_int_equal(mem_in(b, ROM, 2), 0xAA55);
	assert_int_equal(mem_in(b, ROM + 2999, 1), 0x77);
	assert_int_equal(mem_in(b, ROM + 3000, 1), 0xFF);
	config_out(b, PCI_COMMAND, 0);
	assert_int_equal(in(b, 0x3CC, 1), 0xFF);
	assert_int_equal(mem_in(b, ROM, 2), 0xFFFF);
	/* Registers as memory. */
	on(b);
	mem_out(b, BAR2 + 0x500 + 2 * VBE_XRES, 640, 2);
	assert_int_equal(vbe_in(b, VBE_XRES), 640);
	assert_int_equal(mem_in(b, BAR2 + 0x500, 2), 0xB0C5);
	mem_out(b, BAR2 + 0x404, 0x0F02, 2);
	seq(b, 0, 0);
	out(b, 0x3C4, 2, 1);
	assert_int_equal(mem_in(b, BAR2 + 0x405, 1), 0x0F);
	assert_int_equal(mem_in(b, BAR2 + 0x800, 4), 0);
}

/* ---- registers ------------------------------------------------------------------------------- */

static void test_registers(void **state)
{
	struct board *b = *state;

	crtc(b, 0x00, 0x5F);
	crtc(b, 0x11, 0x80);
	crtc(b, 0x00, 0x11);
	crtc(b, 0x07, 0xFF);
	out(b, 0x3D4, 0, 1);
	assert_int_equal(in(b, 0x3D5, 1), 0x5F);
	out(b, 0x3D4, 7, 1);
	assert_int_equal(in(b, 0x3D5, 1), 0x10);	/* line compare alone */
	crtc(b, 0xFF, 0x55);
	assert_int_equal(in(b, 0x3D5, 1), 0);
	attr(b, 0x10, 0xFF);
	in(b, 0x3DA, 1);
	out(b, 0x3C0, 0x10, 1);
	assert_int_equal(in(b, 0x3C1, 1), 0xEF);
	attr(b, 0x1F, 0xFF);
	seq(b, 4, 0xFF);
	assert_int_equal(in(b, 0x3C5, 1), 0x0E);
	gfx(b, 200, 1);
	assert_int_equal(in(b, 0x3CF, 1), 0);
	/* Whoever waits for a retrace sees it come and go. */
	assert_int_not_equal(in(b, 0x3DA, 1) & 8, in(b, 0x3DA, 1) & 8);
	dac(b, 5, 1, 2, 3);
	dac(b, 6, 4, 5, 6);
	out(b, 0x3C7, 5, 1);
	assert_int_equal(in(b, 0x3C7, 1), 3);
	for (u8 i = 1; i <= 6; i++)
		assert_int_equal(in(b, 0x3C9, 1), i);
	/* Monochrome: the CRTC moves. */
	out(b, 0x3C2, 0x02, 1);
	assert_int_equal(in(b, 0x3D4, 1), 0xFF);
	out(b, 0x3B4, 0, 1);
	assert_int_equal(in(b, 0x3B5, 1), 0x5F);
}

static void test_dispi(void **state)
{
	struct board *b = *state;

	assert_int_equal(vbe_in(b, VBE_ID), 0xB0C5);
	vbe(b, VBE_ID, 0xB0C4);
	vbe(b, VBE_ID, 0x1234);
	assert_int_equal(vbe_in(b, VBE_ID), 0xB0C4);
	assert_int_equal(vbe_in(b, VBE_MEMORY), 256);
	vbe_mode(b, 1024, 768, 32);
	assert_int_equal(vbe_in(b, VBE_VIRT_WIDTH), 1024);
	assert_int_equal(vbe_in(b, VBE_VIRT_HEIGHT), 4096);
	vbe(b, VBE_XRES, 800);
	assert_int_equal(vbe_in(b, VBE_XRES), 1024);
	vbe(b, VBE_VIRT_WIDTH, 2048);
	assert_int_equal(vbe_in(b, VBE_VIRT_HEIGHT), 2048);
	vbe(b, VBE_ENABLE, 0x43);
	assert_int_equal(vbe_in(b, VBE_BPP), 32);
	assert_true(vbe_in(b, VBE_XRES) > 1024);
	assert_int_equal(vbe_in(b, 77), 0);
}

/* ---- planes and latches ---------------------------------------------------------------------- */

static void planar(struct board *b)
{
	seq(b, 2, 0x0F);
	seq(b, 4, 0x06);
	gfx(b, 0, 0);
	gfx(b, 1, 0);
	gfx(b, 3, 0);
	gfx(b, 5, 0);
	gfx(b, 6, 0x05);
	gfx(b, 8, 0xFF);
}

static u32 doubleword(struct board *b, u32 at)
{
	u32 value;

	memcpy(&value, b->vga.memory + 4 * at, 4);
	return value;
}

static void test_write_modes(void **state)
{
	struct board *b = *state;

	planar(b);
	seq(b, 2, 0x05);
	mem_out(b, 0xA0010, 0xA5, 1);
	assert_int_equal(doubleword(b, 0x10), 0x00A500A5);
	seq(b, 2, 0x0F);
	gfx(b, 3, 4);	/* rotate by 4 */
	mem_out(b, 0xA0011, 0xA5, 1);
	assert_int_equal(doubleword(b, 0x11), 0x5A5A5A5A);
	gfx(b, 3, 0);
	/* Set and reset: planes 0 and 3 come from the register. */
	gfx(b, 0, 0x01);
	gfx(b, 1, 0x09);
	mem_out(b, 0xA0012, 0x3C, 1);
	assert_int_equal(doubleword(b, 0x12), 0x003C3CFF);
	gfx(b, 1, 0);
	/* Bits outside of the mask come from the latch, and so do functions' other operands. */
	mem_in(b, 0xA0010, 1);
	gfx(b, 8, 0x0F);
	mem_out(b, 0xA0013, 0xFF, 1);
	assert_int_equal(doubleword(b, 0x13), 0x0FAF0FAF);
	gfx(b, 8, 0xFF);
	gfx(b, 3, 0x18);
	mem_out(b, 0xA0014, 0xFF, 1);
	assert_int_equal(doubleword(b, 0x14), 0xFF5AFF5A);
	gfx(b, 3, 0x08);
	mem_out(b, 0xA0014, 0x0F, 1);
	assert_int_equal(doubleword(b, 0x14), 0x00050005);
	gfx(b, 3, 0x10);
	mem_out(b, 0xA0014, 0x0F, 1);
	assert_int_equal(doubleword(b, 0x14), 0x0FAF0FAF);
	gfx(b, 3, 0);
	gfx(b, 5, 1);	/* write mode 1: the latch alone */
	mem_out(b, 0xA0015, 0x77, 1);
	assert_int_equal(doubleword(b, 0x15), 0x00A500A5);
	gfx(b, 5, 2);	/* a colour */
	gfx(b, 8, 0x80);
	mem_out(b, 0xA0016, 0x06, 1);
	assert_int_equal(doubleword(b, 0x16), 0x00A58025);
	gfx(b, 5, 3);	/* the byte is a mask */
	gfx(b, 8, 0xF0);
	gfx(b, 0, 0x02);
	mem_out(b, 0xA0017, 0x3F, 1);
	assert_int_equal(doubleword(b, 0x17), 0x00853085);
}

static void test_read_modes(void **state)
{
	struct board *b = *state;

	planar(b);
	mem_out(b, 0xA0000, 0, 1);
	for (u8 plane = 0; plane < 4; plane++) {
		seq(b, 2, 1 << plane);
		mem_out(b, 0xA0000, 0x11 << plane, 1);
	}
	for (u8 plane = 0; plane < 4; plane++) {
		gfx(b, 4, plane);
		assert_int_equal(mem_in(b, 0xA0000, 1), 0x11 << plane);
	}
	gfx(b, 5, 8);
	gfx(b, 2, 0x02);
	gfx(b, 7, 0x0F);
	assert_int_equal(mem_in(b, 0xA0000, 1), 0x22);
	gfx(b, 7, 0x00);
	assert_int_equal(mem_in(b, 0xA0000, 1), 0xFF);
	/* The other maps of the window. */
	gfx(b, 6, 0x0D);
	assert_int_equal(mem_in(b, 0xA0000, 1), 0xFF);
	gfx(b, 5, 0);
	gfx(b, 4, 0);
	assert_int_equal(mem_in(b, 0xB8000, 1), 0x11);
	gfx(b, 6, 0x09);
	assert_int_equal(mem_in(b, 0xB0000, 1), 0x11);
	assert_int_equal(mem_in(b, 0xB8000, 1), 0xFF);
	out(b, 0x3C2, 0x01, 1);
	assert_int_equal(mem_in(b, 0xB0000, 1), 0xFF);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static void text_mode(struct board *b)
{
	planar(b);
	/* The font is plane 2: 'A' has its first dot on in row 0, 0xC4 its last. */
	seq(b, 2, 0x04);
	mem_out(b, 0xA0000 + 'A' * 32, 0x80, 1);
	mem_out(b, 0xA0000 + 0xC4 * 32, 0x01, 1);
	seq(b, 2, 0x03);
	seq(b, 4, 0x02);
	gfx(b, 5, 0x10);
	gfx(b, 6, 0x0E);
	crtc(b, 0x11, 0);
	crtc(b, 0x01, 79);
	crtc(b, 0x07, 0x1F);
	crtc(b, 0x09, 0x4F);
	crtc(b, 0x0A, 0x20);
	crtc(b, 0x12, 0x8F);
	crtc(b, 0x13, 40);
	crtc(b, 0x17, 0xA3);
	crtc(b, 0x18, 0xFF);
	for (u8 i = 0; i < 16; i++)
		attr(b, i, i);
	attr(b, 0x10, 0x0C);
	attr(b, 0x12, 0x0F);
	dac(b, 1, 0, 0, 63);
	dac(b, 7, 42, 42, 42);
	dac(b, 14, 63, 63, 21);
	attr_on(b);
}

static void test_text(void **state)
{
	struct board *b = *state;

	text_mode(b);
	mem_out(b, 0xB8000, 0x1E41, 2);			/* yellow on blue */
	mem_out(b, 0xB8000 + 2 * 81, 0x07C4, 2);	/* second row, second column */
	check_size(b, 720, 400);
	assert_int_equal(pixel(b, 0, 0), 0xFFFF55);
	assert_int_equal(pixel(b, 1, 0), 0x0000FF);
	assert_int_equal(pixel(b, 8, 0), 0x0000FF);
	assert_int_equal(pixel(b, 0, 1), 0x0000FF);
	assert_int_equal(pixel(b, 9 + 7, 16), 0xAAAAAA);
	assert_int_equal(pixel(b, 9 + 8, 16), 0xAAAAAA);	/* the ninth dot of a line's character */
	assert_int_equal(pixel(b, 9 + 6, 16), 0);
	/* The cursor. */
	crtc(b, 0x0A, 0x0D);
	crtc(b, 0x0B, 0x0E);
	crtc(b, 0x0F, 1);
	mem_out(b, 0xB8002, 0x0700, 2);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 9, 12), 0);
	assert_int_equal(pixel(b, 9, 13), 0xAAAAAA);
	assert_int_equal(pixel(b, 9, 15), 0);
	/* Scrolled by a row; a split at line 8 shows the beginning again. */
	crtc(b, 0x0D, 80);
	crtc(b, 0x09, 0x0F);
	crtc(b, 0x07, 0x0F);
	crtc(b, 0x18, 7);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 9 + 7, 0), 0xAAAAAA);
	assert_int_equal(pixel(b, 0, 8), 0xFFFF55);
	/* Another font, from 8 KiB on, for bright characters alone. */
	crtc(b, 0x0D, 0);
	seq(b, 2, 0x04);
	seq(b, 4, 0x06);
	gfx(b, 5, 0x00);
	gfx(b, 6, 0x05);
	mem_out(b, 0xA2000 + 'A' * 32, 0x40, 1);
	gfx(b, 5, 0x10);
	gfx(b, 6, 0x0E);
	seq(b, 3, 0x20);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 0, 0), 0x0000FF);
	assert_int_equal(pixel(b, 1, 0), 0xFFFF55);
	seq(b, 3, 0x10);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 0, 0), 0xFFFF55);
	/* Eight dots. */
	seq(b, 1, 1);
	check_size(b, 640, 400);
	/* Off. */
	seq(b, 1, 0x21);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 0, 8), 0);
}

static void graphics_timing(struct board *b, u8 row_height)
{
	crtc(b, 0x11, 0);
	crtc(b, 0x01, 79);
	crtc(b, 0x07, 0x1F);
	crtc(b, 0x09, row_height);
	crtc(b, 0x12, 0x8F);
	crtc(b, 0x13, 40);
	crtc(b, 0x17, 0xE3);
	crtc(b, 0x18, 0xFF);
	seq(b, 1, 1);
	attr(b, 0x12, 0x0F);
	for (u8 i = 0; i < 16; i++)
		attr(b, i, i);
	attr_on(b);
}

static void test_mode_12(void **state)
{
	struct board *b = *state;

	planar(b);
	graphics_timing(b, 0x40);
	crtc(b, 0x12, 0xDF);
	dac(b, 9, 10, 20, 30);
	dac(b, 1, 63, 0, 0);
	seq(b, 2, 0x09);
	mem_out(b, 0xA0000 + 80 * 479 + 79, 0x01, 1);
	check_size(b, 640, 480);
	assert_int_equal(pixel(b, 639, 479), 0x285179);
	assert_int_equal(pixel(b, 638, 479), 0);
	/* Plane 3 may be switched off. */
	attr(b, 0x12, 0x07);
	attr_on(b);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 639, 479), 0xFF0000);
}

static void test_mode_13(void **state)
{
	struct board *b = *state;

	seq(b, 2, 0x0F);
	seq(b, 4, 0x0E);
	gfx(b, 5, 0x40);
	gfx(b, 6, 0x05);
	graphics_timing(b, 0x41);
	dac(b, 200, 63, 0, 63);
	mem_out(b, 0xA0000 + 320 * 199 + 318, 200, 1);
	check_size(b, 640, 400);
	assert_int_equal(pixel(b, 636, 398), 0xFF00FF);
	assert_int_equal(pixel(b, 637, 399), 0xFF00FF);
	assert_int_equal(pixel(b, 638, 399), 0);
	assert_int_equal(pixel(b, 636, 397), 0);
	/* Without the chain: four pixels an address. */
	seq(b, 4, 0x06);
	seq(b, 2, 0x08);
	mem_out(b, 0xA0000 + 1, 200, 1);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 14, 0), 0xFF00FF);
	assert_int_equal(pixel(b, 12, 0), 0);
}

static void test_cga(void **state)
{
	struct board *b = *state;

	/* Mode 4: two bits a pixel, odd lines 8 KiB on. */
	seq(b, 2, 0x03);
	seq(b, 4, 0x02);
	gfx(b, 1, 0);
	gfx(b, 5, 0x30);
	gfx(b, 6, 0x0F);
	gfx(b, 8, 0xFF);
	graphics_timing(b, 0xC1);
	crtc(b, 0x01, 39);
	crtc(b, 0x13, 20);
	crtc(b, 0x17, 0xA2);
	seq(b, 1, 9);
	dac(b, 3, 63, 63, 63);
	mem_out(b, 0xB8000, 0x03, 1);
	mem_out(b, 0xB8001, 0xC0, 1);
	mem_out(b, 0xBA000, 0x0C, 1);
	check_size(b, 640, 400);
	assert_int_equal(pixel(b, 6, 0), 0xFFFFFF);
	assert_int_equal(pixel(b, 8, 1), 0xFFFFFF);
	assert_int_equal(pixel(b, 10, 0), 0);
	assert_int_equal(pixel(b, 4, 2), 0xFFFFFF);
	assert_int_equal(pixel(b, 6, 2), 0);
}

static void test_linear(void **state)
{
	struct board *b = *state;

	slot_refused = true;	/* each access by itself */
	config_out(b, PCI_BAR0, BAR0 + VGA_MEMORY_SIZE);
	vbe_mode(b, 800, 600, 32);
	mem_out(b, BAR0 + VGA_MEMORY_SIZE + 4 * (800 * 599 + 799), 0xFF123456, 4);
	check_size(b, 800, 600);
	assert_int_equal(pixel(b, 799, 599), 0x123456);
	vbe(b, VBE_Y_OFFSET, 1);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 799, 598), 0x123456);
	vbe_mode(b, 640, 480, 16);
	mem_out(b, BAR0 + VGA_MEMORY_SIZE + 2, 0xF81F, 2);
	check_size(b, 640, 480);
	assert_int_equal(pixel(b, 1, 0), 0xFF00FF);
	vbe_mode(b, 640, 480, 15);
	mem_out(b, BAR0 + VGA_MEMORY_SIZE + 2, 0x7C00, 2);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 1, 0), 0xFF0000);
	vbe_mode(b, 640, 480, 24);
	mem_out(b, BAR0 + VGA_MEMORY_SIZE + 3, 0x123456, 4);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 1, 0), 0x123456);
	vbe_mode(b, 640, 480, 8);
	dac(b, 77, 63, 32, 0);
	mem_out(b, 0xA0000, 77, 1);
	vbe(b, VBE_BANK, 1);
	mem_out(b, 0xA0000, 77, 1);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 0, 0), 0xFF8200);
	assert_int_equal(pixel(b, 65536 % 640, 65536 / 640), 0xFF8200);
	vbe(b, VBE_ENABLE, 0xE1);
	dac(b, 77, 1, 2, 3);
	display_refresh(&b->display);
	assert_int_equal(pixel(b, 0, 0), 0x010203);
	/* 16 colours in planes. */
	vbe_mode(b, 800, 600, 4);
	planar(b);
	for (u8 i = 0; i < 16; i++)
		attr(b, i, i);
	attr(b, 0x12, 0x0F);
	attr_on(b);
	dac(b, 15, 63, 63, 63);
	mem_out(b, 0xA0000 + 100 * 599 + 99, 1, 1);
	check_size(b, 800, 600);
	assert_int_equal(pixel(b, 799, 599), 0xFFFFFF);
}

/* Values that fit nothing: the picture stays what it was. */
static void test_bad_modes(void **state)
{
	static const u16 modes[][3] = { { 0, 600, 32 }, { 800, 0, 32 }, { 803, 600, 32 }, { 800, 600, 7 },
		{ 8192, 8192, 32 }, { 65528, 65535, 32 }, { 800, 65535, 8 }, { 8000, 8000, 4 } };
	struct board *b = *state;

	vbe_mode(b, 800, 600, 32);
	check_size(b, 800, 600);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		vbe_mode(b, modes[i][0], modes[i][1], modes[i][2]);
		check_size(b, 800, 600);
		vbe(b, VBE_X_OFFSET, 0xFFFF);
		vbe(b, VBE_Y_OFFSET, 0xFFFF);
		vbe(b, VBE_VIRT_WIDTH, 0xFFFF);
		vbe(b, VBE_BANK, 0xFFFF);
		mem_out(b, 0xA0000, 0x1234, 4);
		mem_in(b, 0xAFFFF, 1);
		check_size(b, 800, 600);
	}
}

/* ---- slots and what has changed -------------------------------------------------------------- */

static void test_slots(void **state)
{
	struct board *b = *state;
	struct vga_registers r;

	assert_int_equal(slot[0].guest_phys_addr, BAR0);
	assert_int_equal(slot[0].memory_size, VGA_MEMORY_SIZE);
	assert_int_equal(slot[0].flags, KVM_MEM_LOG_DIRTY_PAGES);
	assert_int_equal(slot[1].memory_size, 0);
	config_out(b, PCI_BAR0, BAR0 - VGA_MEMORY_SIZE);
	assert_int_equal(slot[0].guest_phys_addr, BAR0 - VGA_MEMORY_SIZE);
	/* 256 colours: the window, too; planes take it away. */
	seq(b, 2, 0x0F);
	gfx(b, 6, 0x05);
	seq(b, 4, 0x0E);
	assert_int_equal(slot[1].guest_phys_addr, 0xA0000);
	assert_int_equal(slot[1].memory_size, 0x10000);
	seq(b, 2, 0x01);
	assert_int_equal(slot[1].memory_size, 0);
	vbe_mode(b, 640, 480, 8);
	vbe(b, VBE_BANK, 3);
	assert_int_equal(slot[1].userspace_addr, (uintptr_t)b->vga.memory + 0x30000);
	vbe(b, VBE_BANK, 256);
	assert_int_equal(slot[1].memory_size, 0);
	vbe(b, VBE_BANK, 2);
	vga_device_ops.save(&b->vga, &r);
	vga_device_ops.reset(&b->vga);
	assert_int_equal(slot[1].memory_size, 0);
	assert_int_equal(vga_device_ops.load_more(&b->vga, &r, &(u32){ 0 }, 4), 4);
	assert_int_equal(slot[1].memory_size, 0x10000);
	assert_int_equal(slot[1].userspace_addr, (uintptr_t)b->vga.memory + 0x20000);
	vga_device_ops.reset(&b->vga);
	config_out(b, PCI_COMMAND, 0);
	assert_int_equal(slot[0].memory_size, 0);
}

static void check_rect(struct board *b, u32 x, u32 y, u32 width, u32 height)
{
	struct display_rect r;

	assert_true(display_view_next(&b->view, &r));
	assert_int_equal(r.x, x);
	assert_int_equal(r.y, y);
	assert_int_equal(r.width, width);
	assert_int_equal(r.height, height);
}

static void test_damage(void **state)
{
	struct board *b = *state;
	struct display_rect r;
	u32 *memory = (u32 *)b->vga.memory;

	assert_int_equal(display_attach(&b->display, &b->view), 0);
	vbe_mode(b, 1024, 768, 32);
	display_refresh(&b->display);
	assert_true(display_view_resized(&b->view));
	assert_false(display_view_resized(&b->view));
	check_rect(b, 0, 0, 1024, 768);
	assert_false(display_view_next(&b->view, &r));
	/* Drawn behind our back: only what the log says is looked at. */
	memory[1024 * 5 + 7] = memory[1024 * 6 + 9] = memory[1024 * 700] = 1;
	slot_dirty[0][0] = BIT(5) | BIT(6);
	display_refresh(&b->display);
	check_rect(b, 7, 5, 3, 2);
	assert_false(display_view_next(&b->view, &r));
	/* The log is not lost when the slot goes. */
	slot_dirty[0][700 / 64] = BIT(700 % 64);
	config_out(b, PCI_BAR0, BAR0 - VGA_MEMORY_SIZE);
	display_refresh(&b->display);
	check_rect(b, 0, 700, 1, 1);
	/* Nothing happened, nothing is drawn. */
	memory[0] = 1;
	display_refresh(&b->display);
	assert_false(display_view_next(&b->view, &r));
}

/* ---- save and load --------------------------------------------------------------------------- */

/* The form without video memory is refused as such, and changes nothing. buf: of the form of today. */
static void check_old_form(struct board *b, const struct device *dev, u8 *buf, long n)
{
	u8 *version = buf + sizeof("vga"), first = b->vga.memory[0];

	assert_int_equal(*version, 2);
	*version = 1;
	b->vga.memory[0] = 0xA5;
	assert_int_equal(device_load(dev, buf, n), -ENOTSUP);
	assert_int_equal(b->vga.memory[0], 0xA5);
	b->vga.memory[0] = first;
	*version = 2;
}

static void test_round_trip(void **state)
{
	struct board *b = *state;
	static u8 memory[65536], buf[65536];
	struct device dev = { &vga_device_ops, &b->vga };
	struct vga_registers r;
	u32 *before;
	long n, more;

	text_mode(b);
	mem_out(b, 0xB8000, 0x1E41, 2);
	display_refresh(&b->display);
	before = malloc(720 * 400 * 4);
	memcpy(before, b->display.pixel, 720 * 400 * 4);
	memcpy(memory, b->vga.memory, sizeof(memory));
	/* In the middle of a palette entry and of an attribute. */
	out(b, 0x3C8, 9, 1);
	out(b, 0x3C9, 11, 1);
	out(b, 0x3C9, 12, 1);
	in(b, 0x3DA, 1);
	out(b, 0x3C0, 0x33, 1);
	n = device_save(&dev, buf, sizeof(buf));
	assert_true(n > 0);
	vga_device_ops.reset(&b->vga);
	display_refresh(&b->display);
	assert_int_equal(b->vga.memory[0], 0);
	b->vga.memory[VGA_MEMORY_SIZE - 1] = 0x55;	/* what another machine had */
	assert_int_equal(device_load(&dev, buf, n), n);
	assert_memory_equal(b->vga.memory, memory, sizeof(memory));
	assert_int_equal(b->vga.memory[VGA_MEMORY_SIZE - 1], 0);
	check_old_form(b, &dev, buf, n);
	out(b, 0x3C9, 13, 1);
	out(b, 0x3C0, 0x0A, 1);
	out(b, 0x3C7, 9, 1);
	for (u8 i = 11; i <= 13; i++)
		assert_int_equal(in(b, 0x3C9, 1), i);
	assert_int_equal(b->vga.r.attr[0x13], 0x0A);
	check_size(b, 720, 400);
	assert_memory_equal(b->display.pixel, before, 720 * 400 * 4);
	free(before);
	check_round_trip(&vga_device_ops, &b->vga);
	vga_device_ops.save(&b->vga, &r);
	more = vga_device_ops.save_more(&b->vga, buf, sizeof(buf));
	r.dac_component = 3;
	assert_int_equal(vga_device_ops.load_more(&b->vga, &r, buf, more), -EINVAL);
	/* Whatever else is in it must not get out of bounds. */
	memset(&r, 0xFF, sizeof(r));
	r.dac_component = r.dac_writing = r.attr_data = 1;
	r.attr_index = 0x3F;
	for (unsigned i = 0; i < 4; i++) {
		r.vbe[VBE_ENABLE] = i & 1 ? 1 : 0;
		r.gfx[GFX_MISC] = i & 2 ? 0xFF : 0xFE;
		r.seq[SEQ_CLOCKING] = 0x08;
		assert_int_equal(vga_device_ops.load_more(&b->vga, &r, buf, more), more);
		display_refresh(&b->display);
		for (u32 at = 0xA0000; at < 0xC0000; at += 0xFFF) {
			mem_out(b, at, ~0u, 1);
			mem_in(b, at, 1);
		}
		for (unsigned port = 0x3B0; port < 0x3E0; port++)
			in(b, port, 1);
	}
}

/* All of memory; what does not fit, and pages that cannot be, are refused and change nothing. */
static void test_memory_state(void **state)
{
	enum { PAGE = 4 + VGA_PAGE, ALL = 4 + VGA_PAGES * PAGE };
	static const u32 bad[][2] = { { 0, VGA_PAGES + 1 }, { 0, ~0u }, { 4, VGA_PAGES }, { 4, 2 },
				      { 4 + PAGE, 0 }, { 4 + PAGE, ~0u } };
	struct board *b = *state;
	u8 *buf = malloc(ALL), *want = malloc(VGA_MEMORY_SIZE);
	struct vga_registers r;
	long n;

	for (u32 i = 0; i < VGA_MEMORY_SIZE; i += 4)
		memcpy(want + i, &(u32){ (i + 1) * 2654435761u }, 4);
	memcpy(b->vga.memory, want, VGA_MEMORY_SIZE);
	vga_device_ops.save(&b->vga, &r);
	assert_int_equal(vga_device_ops.save_more(&b->vga, buf, ALL - 1), -ENOSPC);
	assert_int_equal(vga_device_ops.save_more(&b->vga, buf, 3), -ENOSPC);
	assert_int_equal(vga_device_ops.save_more(&b->vga, buf, ALL), ALL);
	vga_device_ops.reset(&b->vga);
	assert_int_equal(vga_device_ops.load_more(&b->vga, &r, buf, ALL), ALL);
	assert_memory_equal(b->vga.memory, want, VGA_MEMORY_SIZE);
	/* Two pages, and each by itself. */
	memset(b->vga.memory, 0, VGA_MEMORY_SIZE);
	b->vga.memory[VGA_PAGE] = b->vga.memory[VGA_MEMORY_SIZE - 1] = 1;
	n = vga_device_ops.save_more(&b->vga, buf, ALL);
	assert_int_equal(n, 4 + 2 * PAGE);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		u32 good;

		memcpy(&good, buf + bad[i][0], 4);
		memcpy(buf + bad[i][0], &bad[i][1], 4);
		if (bad[i][1] == 2)	/* as large as the second: not ascending */
			memcpy(buf + 4, buf + 4 + PAGE, 4);
		assert_int_equal(vga_device_ops.load_more(&b->vga, &r, buf, n), -EINVAL);
		memcpy(buf + bad[i][0], &good, 4);
		assert_int_equal(b->vga.memory[VGA_PAGE] + b->vga.memory[VGA_MEMORY_SIZE - 1], 2);
	}
	assert_int_equal(vga_device_ops.load_more(&b->vga, &r, buf, n), n);
	assert_int_equal(b->vga.memory[VGA_PAGE] + b->vga.memory[VGA_MEMORY_SIZE - 1], 2);
	free(buf);
	free(want);
}

/* The hypervisor itself: RAM stays, where it ends accesses are served, and the slot is there once it may be. */
static void test_over_ram(void **state)
{
	struct board *b = *state;
	const u64 over = 16 << 20, end = REAL_VM_RAM;
	struct real_vm vm;

	real_vm_init(&vm);
	b->kvm = vm.kvm;
	*real_vm_ram(&vm, over) = 100;
	*(u16 *)b->vga.memory = 200;
	*(u16 *)(b->vga.memory + (end - over)) = 300;
	config_out(b, PCI_BAR0, over);
	config_out(b, PCI_BAR0 + 8, BAR2);
	config_out(b, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	assert_true(b->vga.pci.bar[0].base == over && b->vga.linear.gpa == PCI_UNMAPPED);
	assert_int_equal(real_vm_increment(&vm, &b->mmio, over), 0);
	assert_int_equal(*real_vm_ram(&vm, over), 101);
	assert_int_equal(*(u16 *)b->vga.memory, 200);
	assert_int_equal(real_vm_increment(&vm, &b->mmio, end), 2);
	assert_int_equal(*(u16 *)(b->vga.memory + (end - over)), 301);
	assert_true(vga_is_dirty(&b->vga, end - over, 2));
	config_out(b, PCI_BAR0, BAR0);
	assert_true(b->vga.linear.gpa == BAR0);
	assert_int_equal(real_vm_increment(&vm, &b->mmio, BAR0), 0);
	assert_int_equal(*(u16 *)b->vga.memory, 201);
	assert_false(vga_is_dirty(&b->vga, 0, 2));
	vga_dirty_collect(&b->vga);
	assert_true(vga_is_dirty(&b->vga, 0, 2));
	config_out(b, PCI_BAR0, over);
	assert_int_equal(real_vm_increment(&vm, &b->mmio, BAR0), 2);
	assert_int_equal(real_vm_increment(&vm, &b->mmio, over), 0);
	assert_int_equal(*real_vm_ram(&vm, over), 102);
	config_out(b, PCI_COMMAND, 0);
	real_vm_destroy(&vm);
	b->kvm.backend = &fake_backend;
}

int main(void)
{
#define TEST(name, start) cmocka_unit_test_setup_teardown(name, start, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_bus, setup), TEST(test_registers, setup_on), TEST(test_dispi, setup_on),
		TEST(test_write_modes, setup_on), TEST(test_read_modes, setup_on),
		TEST(test_text, setup_on), TEST(test_mode_12, setup_on), TEST(test_mode_13, setup_on),
		TEST(test_cga, setup_on), TEST(test_linear, setup_on), TEST(test_bad_modes, setup_on),
		TEST(test_slots, setup_on), TEST(test_damage, setup_on), TEST(test_round_trip, setup_on),
		TEST(test_over_ram, setup), TEST(test_memory_state, setup_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
