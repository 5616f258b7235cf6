/*
 * A VGA on PCI: IBM's VGA with Bochs's display interface (dispi), known to guests as "standard VGA",
 * 1234:1111.
 *
 *   BAR 0   16 MiB   video memory
 *   BAR 2   4 KiB    0x400: ports 0x3C0 to 0x3DF as memory, 0x500: dispi's registers
 *   ROM              the VGA BIOS
 *   ports   0x3B0 to 0x3DF, and 0x1CE to 0x1D0 for dispi
 *   memory  0xA0000 to 0xBFFFF, the classic window
 *
 * Video memory is the hypervisor's where the guest sees it as it is: BAR 0 always, the window in 256
 * colours and in dispi's modes. What was written there is known from the dirty log. All else of the
 * window is planes and latches, an access at a time.
 *
 * Byte p of doubleword n is byte n of plane p. Odd/even and chain-4 addressing reach doublewords one
 * after the other, so that what the CRTC shows is always doubleword start + n: its byte, word and
 * doubleword modes are not told apart. Programs that switch between them over the same picture see
 * another one than on IBM's.
 */
#ifndef QUMRA_VMM_HW_VGA_H
#define QUMRA_VMM_HW_VGA_H

#include "vmm/display/display.h"
#include "vmm/kvm/kvm.h"
#include "vmm/pci/pci.h"

#define VGA_VENDOR	0x1234
#define VGA_DEVICE	0x1111
#define VGA_MEMORY_SIZE	(16U << 20)
#define VGA_PAGE	4096U
#define VGA_PAGES	(VGA_MEMORY_SIZE / VGA_PAGE)
#define VGA_PLANES_SIZE	0x40000U	/* what planes reach: 64 KiB each */
#define VGA_WINDOW	0xA0000ULL
#define VGA_WINDOW_SIZE	0x20000U
#define VGA_PORTS	0x3B0
#define VGA_PORTS_SIZE	0x30
#define VGA_VBE_PORTS	0x1CE
#define VGA_REGS_SIZE	4096U		/* BAR 2 */

enum { VGA_SEQ_REGS = 5, VGA_GFX_REGS = 9, VGA_ATTR_REGS = 21, VGA_CRTC_REGS = 25 };

/* Sequencer, graphics controller, attribute controller and CRTC registers by index. */
enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_FONT, SEQ_MEMORY };
enum {
	GFX_SET_RESET, GFX_ENABLE_SET_RESET, GFX_COMPARE, GFX_ROTATE, GFX_READ_MAP, GFX_MODE,
	GFX_MISC, GFX_DONT_CARE, GFX_BIT_MASK,
};
enum { ATTR_MODE = 0x10, ATTR_OVERSCAN, ATTR_PLANES, ATTR_PANNING, ATTR_COLOR };
enum {
	CRTC_WIDTH = 0x01, CRTC_OVERFLOW = 0x07, CRTC_ROW_HEIGHT = 0x09, CRTC_CURSOR_START = 0x0A,
	CRTC_CURSOR_END = 0x0B, CRTC_START_HIGH = 0x0C, CRTC_START_LOW = 0x0D,
	CRTC_CURSOR_HIGH = 0x0E, CRTC_CURSOR_LOW = 0x0F, CRTC_VSYNC_END = 0x11,
	CRTC_HEIGHT = 0x12, CRTC_OFFSET = 0x13, CRTC_MODE = 0x17, CRTC_LINE_COMPARE = 0x18,
};
/* Dispi's registers by index. */
enum {
	VBE_ID, VBE_XRES, VBE_YRES, VBE_BPP, VBE_ENABLE, VBE_BANK, VBE_VIRT_WIDTH, VBE_VIRT_HEIGHT,
	VBE_X_OFFSET, VBE_Y_OFFSET, VBE_MEMORY, VBE_REGS,
};

#define MISC_COLOR		BIT(0)	/* CRTC at 0x3Dx, not 0x3Bx */
#define MISC_MEMORY		BIT(1)
#define SEQ_CLOCKING_8		BIT(0)	/* characters are 8 dots wide, not 9 */
#define SEQ_CLOCKING_HALF	BIT(3)
#define SEQ_CLOCKING_OFF	BIT(5)
#define SEQ_MEMORY_CHAIN4	BIT(3)
#define GFX_MODE_READ		BIT(3)
#define GFX_MODE_ODD_EVEN	BIT(4)
#define GFX_MODE_INTERLEAVED	BIT(5)
#define GFX_MODE_256		BIT(6)
#define GFX_MISC_GRAPHICS	BIT(0)
#define ATTR_INDEX_ON		BIT(5)	/* of the index: the picture shows */
#define VBE_ENABLED		BIT(0)
#define VBE_GETCAPS		BIT(1)
#define VBE_8BIT_DAC		BIT(5)
#define VBE_KEEP_MEMORY		BIT(7)

/* What is saved, with memory behind it: all that the guest can set. */
struct vga_registers {
	u8 misc, feature, status1;
	u8 seq_index, seq[VGA_SEQ_REGS];
	u8 gfx_index, gfx[VGA_GFX_REGS];
	u8 attr_index, attr_data, attr[VGA_ATTR_REGS];	/* attr_data: 0x3C0 takes data next */
	u8 crtc_index, crtc[VGA_CRTC_REGS];
	u8 dac_mask, dac_index, dac_component, dac_writing, dac_cache[3], dac[768];
	u32 latch;
	u16 vbe_index, vbe[VBE_REGS];
};

/* A part of video memory that is a memory slot now. */
struct vga_slot {
	u32 number;
	u64 gpa;	/* PCI_UNMAPPED: none */
	u32 offset, size;
};

struct vga {
	struct pci_device pci;
	struct pci_rom rom;
	const struct kvm *kvm;	/* NULL: no slots */
	struct io_map *pio, *mmio;
	struct display *display;
	bool ports_mapped, window_mapped;
	struct vga_registers r;
	u8 *memory;
	struct vga_slot linear, window;
	u64 dirty[VGA_PAGES / 64];
	bool redraw;		/* more than memory has changed */
	u32 *line;		/* one row while it is drawn */
};

struct vga_env {
	const struct kvm *kvm;
	struct io_map *pio, *mmio;
	struct display *display;
	u32 slot;		/* the first of two memory slots */
	struct pci_rom rom;	/* size 0: none; the data must stay */
};

/* It must not move afterwards. 0 or -ENOMEM. */
int vga_init(struct vga *v, const struct vga_env *env);
void vga_destroy(struct vga *v);

extern const struct device_ops vga_device_ops;

/* Between vga*.c. */

/* vga_ports.c: a port from VGA_PORTS on; vga_vbe.c: dispi. */
u8 vga_port_read(struct vga *v, unsigned port);
void vga_port_write(struct vga *v, unsigned port, u8 value);
u16 vga_vbe_read(const struct vga *v, unsigned index);
void vga_vbe_write(struct vga *v, unsigned index, u16 value);
extern const struct io_ops vga_ports_ops, vga_vbe_ops;

/* A mode of dispi, checked: all of it is inside of memory. */
struct vga_vbe_mode {
	u32 width, height, bpp;
	u32 start, stride;	/* bytes; with 4 bits a pixel doublewords */
};

static inline bool vga_vbe_on(const struct vga *v)
{
	return v->r.vbe[VBE_ENABLE] & VBE_ENABLED;
}

/* False: what the registers say is no mode. */
bool vga_vbe_mode(const struct vga *v, struct vga_vbe_mode *mode);

/* vga_memory.c */
extern const struct io_ops vga_window_ops, vga_linear_ops;
/* Registers have changed: is the window a slot, and of what? */
void vga_window_update(struct vga *v);
void vga_slot_set(struct vga *v, struct vga_slot *slot, u64 gpa, u32 offset, u32 size);
/* Gathers what was written through the slots into v->dirty. */
void vga_dirty_collect(struct vga *v);
void vga_dirty_add(struct vga *v, u32 offset, u32 size);
bool vga_is_dirty(const struct vga *v, u32 offset, u32 size);

/* vga_state.c: memory behind the registers of a saved state. As save_more(); bytes read or -EINVAL. */
long vga_save_memory(void *dev, void *buf, size_t size);
long vga_load_memory(struct vga *v, const void *buf, size_t size);

/* vga_draw.c: the display's update. arg is the vga. */
void vga_draw(void *arg);

#endif
