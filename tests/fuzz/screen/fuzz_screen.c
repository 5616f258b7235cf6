/*
 * Fuzz target of what a guest reaches of screen, keyboard and mouse: VGA's ports, dispi, the window, the
 * i8042, BARs moved about, keys and motion in between, and pictures drawn of whatever that makes. The
 * input is a list of accesses. Whatever they are: nothing is read or written out of bounds (memory
 * has guards, and ASan looks), slots stay inside of video memory, and the state of each device can be
 * saved and loaded again.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/hw/i8042.h"
#include "vmm/hw/ps2_keyboard.h"
#include "vmm/hw/ps2_mouse.h"
#include "vmm/hw/vga.h"
#include "vmm/pci/bus.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define BAR0		0xC0000000u
#define BAR2		0xD0000000u
#define DRAWS_MAX	16

struct machine {
	struct io_map pio, mmio;
	struct pci_host host;
	struct display display;
	struct display_view view;
	struct vga vga;
	struct kvm kvm;
	struct i8042 i8042;
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
	struct device device[4];
	unsigned draws;
	bool level[24];
};

static struct machine m;

static long on_ioctl(int fd, unsigned long request, unsigned long arg)
{
	const struct kvm_userspace_memory_region *r = (void *)arg;

	(void)fd;
	if (request == KVM_SET_USER_MEMORY_REGION && r->memory_size) {
		CHECK(r->userspace_addr >= (uintptr_t)m.vga.memory);
		CHECK(r->userspace_addr + r->memory_size <= (uintptr_t)m.vga.memory + VGA_MEMORY_SIZE);
		/* Some are refused. */
		return r->guest_phys_addr & 0x1000000 ? -17 : 0;
	}
	return 0;
}

static const struct kvm_backend backend = { .name = "fuzz", .ioctl = on_ioctl };

static void set_irq(void *arg, unsigned gsi, bool level)
{
	(void)arg;
	CHECK(m.level[gsi] != level);
	m.level[gsi] = level;
}

static void no_call(void *arg)
{
	(void)arg;
}

static void machine_start(void)
{
	const struct vga_env env = { .kvm = &m.kvm, .pio = &m.pio, .mmio = &m.mmio, .display = &m.display };
	struct irq_line kbd = { .set = set_irq, .gsi = 1 }, aux = { .set = set_irq, .gsi = 12 };

	memset(&m, 0, sizeof(m));
	m.kvm.backend = &backend;
	pci_host_init(&m.host, &m.pio, &m.mmio);
	CHECK(display_init(&m.display) == 0 && vga_init(&m.vga, &env) == 0);
	CHECK(display_attach(&m.display, &m.view) == 0);
	CHECK(pci_attach(&m.host.root, 8, &m.vga.pci) == 0);
	i8042_init(&m.i8042, &kbd, &aux, no_call, NULL);
	ps2_keyboard_init(&m.keyboard);
	ps2_mouse_init(&m.mouse);
	i8042_plug(&m.i8042, &m.keyboard.ps2, &m.mouse.ps2);
	io_map_add(&m.pio, &(struct io_range){ 0x60, 1, &i8042_data_ops, &m.i8042, "i8042" });
	io_map_add(&m.pio, &(struct io_range){ 0x64, 1, &i8042_command_ops, &m.i8042, "i8042" });
	m.device[0] = (struct device){ &vga_device_ops, &m.vga };
	m.device[1] = (struct device){ &i8042_device_ops, &m.i8042 };
	m.device[2] = (struct device){ &ps2_keyboard_device_ops, &m.keyboard };
	m.device[3] = (struct device){ &ps2_mouse_device_ops, &m.mouse };
	pci_config_write(&m.vga.pci, PCI_BAR0, BAR0, 4);
	pci_config_write(&m.vga.pci, PCI_BAR0 + 8, BAR2, 4);
	pci_config_write(&m.vga.pci, PCI_COMMAND, 3, 2);
}

static void machine_end(void)
{
	pci_detach(&m.vga.pci);
	vga_destroy(&m.vga);
	display_destroy(&m.display);
}

static void draw(void)
{
	struct display_rect r;

	if (m.draws++ >= DRAWS_MAX)
		return;
	display_refresh(&m.display);
	while (display_view_next(&m.view, &r))
		CHECK(r.width && r.height && r.x + r.width <= m.display.width &&
		      r.y + r.height <= m.display.height);
}

static void save_and_load(unsigned n, u8 scribble)
{
	static u8 buf[VGA_MEMORY_SIZE + 65536];
	struct device *d = &m.device[n & 3];
	long size = device_save(d, buf, sizeof(buf));

	CHECK(size > 0);
	CHECK(device_load(d, buf, size) == size);
	/* A state that somebody tampered with is refused or taken, and both are safe. */
	if (scribble) {
		buf[(scribble * 131u) % size] ^= scribble;
		device_load(d, buf, size);
	}
}

/* Eight bytes each: what, where, value. */
static void step(const u8 *p)
{
	u32 at = p[1] | p[2] << 8 | p[3] << 16, value, in = 0;
	unsigned size = 1 << (p[0] >> 4 & 3);
	struct input_motion motion;

	memcpy(&value, p + 4, 4);
	motion = (struct input_motion){ (s32)value, (s8)p[1], (s8)p[2], p[3] };
	switch (p[0] & 15) {
	case 0 ... 3:
		io_map_write(&m.pio, 0x3B0 + at % 0x30, &value, MIN(size, 4u));
		break;
	case 4:
		io_map_read(&m.pio, 0x3B0 + at % 0x30, &in, MIN(size, 4u));
		break;
	case 5 ... 6:
		io_map_write(&m.pio, 0x1CE + at % 3, &value, 2);
		break;
	case 7:
		io_map_write(&m.mmio, 0xA0000 + at % 0x20000, p, size);
		break;
	case 8:
		io_map_read(&m.mmio, 0xA0000 + at % 0x20000, (u8[8]){ 0 }, size);
		break;
	case 9:
		io_map_write(&m.mmio, (at & 1 ? BAR0 + at : BAR2 + (at >> 1) % 0x700), p, size);
		break;
	case 10:
		pci_config_write(&m.vga.pci, at % 64 & ~3u, value, 4);
		break;
	case 11:
		io_map_write(&m.pio, at & 1 ? 0x60 : 0x64, &value, 1);
		break;
	case 12:
		io_map_read(&m.pio, at & 1 ? 0x60 : 0x64, &in, 1);
		break;
	case 13:
		ps2_keyboard_key(&m.keyboard, at, value & 1);
		ps2_mouse_motion(&m.mouse, &motion);
		break;
	case 14:
		save_and_load(at, value);
		break;
	case 15:
		draw();
		break;
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	machine_start();
	for (; size >= 8; data += 8, size -= 8)
		step(data);
	draw();
	for (unsigned i = 0; i < ARRAY_SIZE(m.device); i++) {
		save_and_load(i, 0);
		m.device[i].ops->reset(m.device[i].self);
	}
	machine_end();
	return 0;
}
