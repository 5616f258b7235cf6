/*
 * Fuzz target of what a guest reaches of the machine without a driver: PCI configuration by both
 * mechanisms, BARs wherever they are moved, MSI-X tables, chipset registers, fw_cfg with DMA, flash
 * memory, a VGA with memory slots. The input is a list of accesses, which reach RAM and slots before
 * devices, as in a hypervisor. Whatever they are: ranges stay sorted and apart, BARs are mapped where
 * their registers say or not at all, also over RAM, where a slot is refused and is made once it may be;
 * memory outside what DMA may reach keeps its guard, and the state of every device can be saved and
 * loaded again.
 */
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/firmware.h"
#include "vmm/hw/vga.h"
#include "vmm/memory/slots.h"
#include "vmm/pci/lpc.h"
#include "vmm/pci/mch.h"
#include "vmm/pci/root_port.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define CHECK(c)	do { if (!(c)) __builtin_trap(); } while (0)
#define MEMORY		(20ULL << 20)	/* a BAR of VGA's may lie over the last 4 MiB */
#define SLOTS		(SLOT_DEVICES + 2)
#define FLASH_AT	0xFFC00000ULL
#define FLASH_SIZE	0x4000

struct thing {
	struct pci_device pci;
	u8 regs[64];
};

struct machine {
	struct io_map pio, mmio;
	struct timer_queue timers;
	struct guest_memory mem;
	struct pci_host host;
	struct mch mch;
	struct acpi_pm pm;
	struct lpc lpc;
	struct root_port port[2];
	struct thing thing[3];
	struct display display;
	struct vga vga;
	struct kvm kvm;
	struct kvm_userspace_memory_region slot[SLOTS];
	struct fw_cfg cfg;
	struct pflash flash;
	u8 flash_data[FLASH_SIZE];
	struct device device[16];
	unsigned devices;
	bool level[24];
	int routes;
};

static struct machine m;
static u8 *ram;	/* with a page of guard behind */

static u64 no_clock(void *arg)
{
	(void)arg;
	return 1000000000;
}

static void no_program(void *arg, u64 deadline)
{
	(void)arg;
	(void)deadline;
}

static void set_irq(void *arg, unsigned gsi, bool level)
{
	(void)arg;
	CHECK(gsi < 24 && m.level[gsi] != level);
	m.level[gsi] = level;
}

static void no_send(void *arg, u64 address, u32 data)
{
	(void)arg;
	(void)address;
	(void)data;
}

static int on_connect(void *arg, int fd, u64 address, u32 data)
{
	(void)arg;
	(void)fd;
	(void)address;
	(void)data;
	return m.routes++ % 7 ? m.routes : -1;
}

static void on_disconnect(void *arg, int fd, int route)
{
	(void)arg;
	(void)fd;
	CHECK(route >= 0 && route <= m.routes);
}

static const struct pci_msi_ops msi_ops = { no_send, on_connect, on_disconnect };

/* Slots as KVM has them: none over another one; RAM stays for good. */
static bool slots_overlap(const struct kvm_userspace_memory_region *a,
			  const struct kvm_userspace_memory_region *b)
{
	return a->memory_size && b->memory_size && a->guest_phys_addr < b->guest_phys_addr + b->memory_size &&
	       b->guest_phys_addr < a->guest_phys_addr + a->memory_size;
}

static long on_ioctl(int fd, unsigned long request, unsigned long arg)
{
	const struct kvm_userspace_memory_region *r = (void *)arg;

	if (request != KVM_SET_USER_MEMORY_REGION)
		return -1;
	CHECK(r->slot < SLOTS && (r->slot >= SLOT_DEVICES || !m.slot[r->slot].memory_size));
	CHECK(!!r->memory_size != !!m.slot[r->slot].memory_size);
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots_overlap(r, &m.slot[i]))
			return -17;
	m.slot[r->slot] = *r;
	return 0;
}

static const struct kvm_backend backend = { .name = "fuzz", .ioctl = on_ioctl };

static void no_call(void *arg)
{
	(void)arg;
}

static void no_direct(void *arg, bool direct)
{
	(void)arg;
	(void)direct;
}

static u64 thing_read(void *arg, u64 offset, unsigned size)
{
	u64 value = 0;

	memcpy(&value, ((struct thing *)arg)->regs + offset % 57, size);
	return value;
}

/* A device that does everything from inside an access. */
static void thing_write(void *arg, u64 offset, u64 value, unsigned size)
{
	struct thing *t = arg;

	memcpy(t->regs + offset % 57, &value, size);
	pci_set_intx(&t->pci, value & 1);
	pci_msix_notify(&t->pci, value >> 1 & 15);
	if (value & 32)
		pci_msix_eventfd(&t->pci, value >> 8 & 3);
}

static const struct io_ops thing_ops = { .read = thing_read, .write = thing_write, .width = 8 };

static void thing_moved(struct pci_device *d, unsigned bar, u64 base)
{
	CHECK(d->bar[bar].base == base);
}

static const struct pci_ops thing_pci_ops = { .bar_moved = thing_moved };

static void add_device(const struct device_ops *ops, void *self)
{
	m.device[m.devices++] = (struct device){ .ops = ops, .self = self };
}

static void add_function(struct pci_bus *bus, u8 devfn, struct pci_device *d)
{
	CHECK(pci_attach(bus, devfn, d) == 0);
	add_device(&pci_function_ops, d);
}

static void thing_init(struct thing *t, u16 number)
{
	static const u8 rom[] = { 0x55, 0xAA, 1 };
	static const struct pci_rom image = { rom, sizeof(rom) };
	const struct pci_id id = { .vendor = 0x1AF4, .device = number, .class = 0x020000 };

	pci_init(&t->pci, &thing_pci_ops, t, &id);
	pci_set_pin(&t->pci, 1 + number % 4);
	pci_add_bar(&t->pci, 0, PCI_BAR_MEM64_PREFETCH, 0x4000, &thing_ops, t);
	pci_add_bar(&t->pci, 2, PCI_BAR_IO, 64, &thing_ops, t);
	CHECK(pci_add_msix(&t->pci, 3, 9) == 0);
	pci_add_bar(&t->pci, 4, PCI_BAR_MEM64, 0x1000, &thing_ops, t);
	pci_set_rom(&t->pci, &image);
	pci_add_pm(&t->pci);
	pci_add_express(&t->pci, PCI_EXPRESS_ENDPOINT);
}

static void machine_init_pci(void)
{
	const struct irq_line line = { .set = set_irq };
	struct irq_line sci = { .set = set_irq, .gsi = 9 };

	pci_host_init(&m.host, &m.pio, &m.mmio);
	m.host.msi = &msi_ops;
	io_map_add(&m.pio, &(struct io_range){ 0xCF8, 8, &pci_ports_ops, &m.host, "pci" });
	acpi_pm_init(&m.pm, &m.timers, &sci, no_call, NULL);
	mch_init(&m.mch, &m.host, NULL, NULL);
	lpc_init(&m.lpc, &m.host, &m.pm, &line);
	add_device(&pci_host_device_ops, &m.host);
	add_function(&m.host.root, PCI_DEVFN(0, 0), &m.mch.pci);
	add_function(&m.host.root, PCI_DEVFN(31, 0), &m.lpc.pci);
	for (unsigned i = 0; i < 2; i++)
		root_port_init(&m.port[i], &m.host, i + 1);
	add_function(&m.host.root, PCI_DEVFN(1, 0), &m.port[0].pci);
	add_function(&m.port[0].bus, PCI_DEVFN(0, 0), &m.port[1].pci);
	for (unsigned i = 0; i < 3; i++)
		thing_init(&m.thing[i], i);
	add_function(&m.host.root, PCI_DEVFN(2, 0), &m.thing[0].pci);
	add_function(&m.port[0].bus, PCI_DEVFN(1, 0), &m.thing[1].pci);
	add_function(&m.port[1].bus, PCI_DEVFN(0, 0), &m.thing[2].pci);
}

static void machine_init_vga(void)
{
	const struct vga_env env = { .kvm = &m.kvm, .pio = &m.pio, .mmio = &m.mmio, .display = &m.display,
				     .slot = SLOT_DEVICES };

	CHECK(display_init(&m.display) == 0 && vga_init(&m.vga, &env) == 0);
	/* Its own state is fuzz-screen's: 16 MiB each time. */
	add_function(&m.host.root, PCI_DEVFN(3, 0), &m.vga.pci);
}

static void machine_init(void)
{
	static struct image image;
	static u8 file[5000];
	struct error err = ERROR_INIT;

	memset(&m, 0, sizeof(m));
	m.kvm.backend = &backend;
	if (!ram)
		ram = malloc(MEMORY + 4096);
	CHECK(ram);
	memset(ram + MEMORY, 0xA5, 4096);
	memset(ram + 0xA0000, 0xA5, 0x20000);
	m.mem.size = MEMORY;
	guest_memory_layout(&m.mem, ram);
	m.timers = (struct timer_queue){ .clock = no_clock, .program = no_program };
	CHECK(guest_memory_register(&m.mem, &m.kvm, false, &err) == 0);
	machine_init_pci();
	machine_init_vga();
	fw_cfg_init(&m.cfg, &m.mem);
	image_from_bytes(&image, "file", file, sizeof(file));
	fw_cfg_add_image(&m.cfg, FW_CFG_KERNEL_DATA, &image, 100, 4900);
	fw_cfg_add_file(&m.cfg, "etc/file", file, 4096);
	io_map_add(&m.pio, &(struct io_range){ 0x510, 2, &fw_cfg_io_ops, &m.cfg, "fw" });
	io_map_add(&m.pio, &(struct io_range){ 0x514, 8, &fw_cfg_dma_ops, &m.cfg, "fw-dma" });
	add_device(&fw_cfg_device_ops, &m.cfg);
	pflash_init(&m.flash, m.flash_data, FLASH_SIZE, false, no_direct, NULL);
	io_map_add(&m.mmio,
		&(struct io_range){ FLASH_AT, FLASH_SIZE, &pflash_io_ops, &m.flash, "flash" });
	add_device(&pflash_device_ops, &m.flash);
}

/* ---- what must hold -------------------------------------------------------------------------- */

static void check_map(const struct io_map *map)
{
	for (unsigned i = 1; i < map->count; i++)
		CHECK(map->range[i - 1].base + (map->range[i - 1].size - 1) < map->range[i].base);
}

static void check_bars(struct pci_device *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(d->bar); i++) {
		const struct pci_bar *bar = &d->bar[i];
		const struct io_map *map = bar->kind == PCI_BAR_IO ? &m.pio : &m.mmio;
		const struct io_range *r;

		if (bar->base == PCI_UNMAPPED)
			continue;
		CHECK(bar->base == pci_bar_wanted(bar) && bar->base % bar->size == 0);
		r = io_map_find(map, bar->base);
		CHECK(r && r->base == bar->base && r->size == bar->size && r->dev == bar->arg);
	}
}

/* A slot is there exactly where BAR 0 is decoded and no RAM is. */
static void check_slots(void)
{
	const struct kvm_userspace_memory_region *linear = &m.slot[SLOT_DEVICES];
	u64 base = m.vga.pci.bar[0].base;
	bool over_ram = guest_memory_at(&m.mem, base, 1) != NULL;

	CHECK(m.vga.linear.gpa == (over_ram ? PCI_UNMAPPED : base));
	CHECK(!!linear->memory_size == (m.vga.linear.gpa != PCI_UNMAPPED));
	CHECK(!linear->memory_size || linear->guest_phys_addr == base);
}

static void check_machine(void)
{
	check_map(&m.pio);
	check_map(&m.mmio);
	for (unsigned i = 0; i < 3; i++)
		check_bars(&m.thing[i].pci);
	check_bars(&m.vga.pci);
	for (unsigned i = 0; i < 4096; i++)
		CHECK(ram[MEMORY + i] == 0xA5);
	for (unsigned i = 0; i < 0x20000; i += 64)
		CHECK(ram[0xA0000 + i] == 0xA5);
}

static void check_state(const struct device *dev)
{
	static u8 first[16384], second[16384];
	long n = device_save(dev, first, sizeof(first));

	CHECK(n > 0);
	CHECK(device_load(dev, first, n) == n);
	CHECK(device_save(dev, second, sizeof(second)) == n);
	CHECK(memcmp(first, second, n) == 0);
}

/* ---- accesses -------------------------------------------------------------------------------- */

/* The hypervisor's part: NULL where it has nothing and a device is asked. */
static u8 *memory_at(u64 at, unsigned size)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		const struct kvm_userspace_memory_region *r = &m.slot[i];

		if (at >= r->guest_phys_addr && at - r->guest_phys_addr < r->memory_size &&
			size <= r->memory_size - (at - r->guest_phys_addr))
			return (u8 *)(uintptr_t)r->userspace_addr + (at - r->guest_phys_addr);
	}
	return NULL;
}

static void memory_write(u64 at, const void *data, unsigned size)
{
	u8 *host = memory_at(at, size);

	if (host)
		memcpy(host, data, size);
	else
		io_map_write(&m.mmio, at, data, size);
}

static void memory_read(u64 at, void *data, unsigned size)
{
	const u8 *host = memory_at(at, size);

	if (host)
		memcpy(data, host, size);
	else
		io_map_read(&m.mmio, at, data, size);
}

/* Eight bytes: what, size, where, value. */
static void access_one(const u8 *p)
{
	static const u64 windows[] = { ECAM_BASE, 0xC0000000, 0xE0000000, 0x100000000, FLASH_AT,
		0xA0000, 0xFEE00000, 0x1000000 };
	struct pci_device *d;
	u8 size = 1 << (p[1] & 3);
	u32 value, address;
	u64 wide, at;

	memcpy(&value, p + 4, 4);
	wide = value | (u64)value << 29;
	switch (p[0] & 7) {
	case 0:	/* configuration: bus 0 to 3, slots that there are, any register */
	case 1:
		address = 0x80000000 | (p[1] >> 2 & 3) << 16 | (p[2] & 0xFF) << 8 | (p[3] & 0xFC);
		io_map_write(&m.pio, 0xCF8, &address, 4);
		if (p[0] & 8)
			io_map_read(&m.pio, 0xCFC + (p[3] & 3), &wide, size & 7 ? size : 4);
		else
			io_map_write(&m.pio, 0xCFC + (p[3] & 3), &wide, size & 7 ? size : 4);
		break;
	case 2:	/* any port */
		if (p[0] & 8)
			io_map_read(&m.pio, p[2] | p[3] << 8, &wide, size & 7 ? size : 4);
		else
			io_map_write(&m.pio, p[2] | p[3] << 8, &wide, size & 7 ? size : 4);
		break;
	case 3:	/* fw_cfg's */
		io_map_write(&m.pio, 0x510 + p[2] % 12, &wide, size);
		io_map_read(&m.pio, 0x510 + p[3] % 12, &wide, size);
		break;
	case 4:	/* a DMA command in memory, and its start */
		memcpy(ram + 0x2000, p, 8);
		memcpy(ram + 0x2008, p, 8);
		address = __builtin_bswap32(0x2000);
		io_map_write(&m.pio, 0x518, &address, 4);
		break;
	case 5:	/* a function's BAR, where it is now */
		d = p[2] & 8 ? &m.vga.pci : &m.thing[p[2] % 3].pci;
		at = d->bar[p[2] >> 4 & 7 ? (p[2] >> 4) % 7 : 0].base + (p[3] << 4);
		memory_write(at, &wide, size);
		memory_read(at + 4, &wide, size);
		break;
	case 6:	/* memory */
		at = windows[p[2] & 7] + (p[2] >> 3) * 0x1008ULL + p[3];
		if (p[0] & 8)
			memory_read(at, &wide, size);
		else
			memory_write(at, &wide, size);
		break;
	case 7:
		if (p[1] & 4)
			m.device[p[2] % m.devices].ops->reset(m.device[p[2] % m.devices].self);
		else
			check_state(&m.device[p[2] % m.devices]);
		break;
	}
}

/* Bytes of an input as saved state: refused, or good. */
static void load_noise(const u8 *data, size_t size)
{
	for (unsigned i = 0; i < m.devices; i++)
		if (device_load(&m.device[i], data, size) >= 0)
			check_state(&m.device[i]);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	machine_init();
	if (size && data[0] == 0xFF)
		load_noise(data + 1, size - 1);
	for (size_t i = 0; i + 8 <= size; i += 8) {
		access_one(data + i);
		check_slots();
	}
	check_machine();
	pci_detach(&m.vga.pci);
	vga_destroy(&m.vga);
	display_destroy(&m.display);
	for (unsigned i = 0; i < 3; i++)
		pci_detach(&m.thing[i].pci);
	for (unsigned i = 0; i < 3; i++)
		CHECK(!m.thing[i].pci.intx_wired);
	check_map(&m.mmio);
	return 0;
}
