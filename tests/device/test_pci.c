/* The PCI core: configuration space, BARs, bridges, pins, MSI-X and the chipset, without a guest. */
#include <unistd.h>

#include "tests/device/fixture.h"
#include "vmm/pci/lpc.h"
#include "vmm/pci/mch.h"
#include "vmm/pci/root_port.h"

#define CF8(bus, devfn, reg) (0x80000000u | (bus) << 16 | (devfn) << 8 | (reg))
#define MEMORY_AND_MASTER 6

struct thing {
	struct pci_device pci;
	u64 moved;
	u32 reg;
	unsigned resets;
};

struct board {
	struct fixture f;
	struct io_map pio, mmio;
	struct pci_host host;
	struct mch mch;
	struct acpi_pm pm;
	struct lpc lpc;
	struct root_port port;
	struct thing a, b;
	u8 pam[MCH_PAMS];
	unsigned pam_calls;
	u64 sent;	/* address of the last message, and its data in the high half */
	unsigned sends, connects, disconnects;
};

/* ---- surroundings ---------------------------------------------------------------------------- */

static void msi_send(void *arg, u64 address, u32 data)
{
	struct board *b = arg;

	b->sent = address | (u64)data << 32;
	b->sends++;
}

static int msi_connect(void *arg, int fd, u64 address, u32 data)
{
	(void)fd;
	(void)address;
	(void)data;
	return ((struct board *)arg)->connects++;
}

static void msi_disconnect(void *arg, int fd, int route)
{
	struct board *b = arg;

	(void)fd;
	assert_in_range(route, 0, b->connects - 1);
	b->disconnects++;
}

static const struct pci_msi_ops msi_ops = { msi_send, msi_connect, msi_disconnect };

static void on_pam(void *arg, const u8 pam[MCH_PAMS])
{
	struct board *b = arg;

	memcpy(b->pam, pam, MCH_PAMS);
	b->pam_calls++;
}

static u64 thing_read(void *arg, u64 offset, unsigned size)
{
	(void)size;
	return ((struct thing *)arg)->reg + offset;
}

static void thing_write(void *arg, u64 offset, u64 value, unsigned size)
{
	(void)offset;
	(void)size;
	((struct thing *)arg)->reg = value;
}

static const struct io_ops thing_bar_ops = {
	.read = thing_read, .write = thing_write, .width = 4};

static void thing_moved(struct pci_device *d, unsigned bar, u64 base)
{
	if (bar == 0)
		((struct thing *)d->self)->moved = base;
}

static void thing_reset(struct pci_device *d)
{
	((struct thing *)d->self)->resets++;
}

static const struct pci_ops thing_ops = { .bar_moved = thing_moved, .reset = thing_reset };

static void thing_init(struct thing *t, u16 device)
{
	const struct pci_id id = { .vendor = 0x1AF4, .device = device, .class = 0x020000 };

	*t = (struct thing){ .reg = device, .moved = PCI_UNMAPPED };
	pci_init(&t->pci, &thing_ops, t, &id);
	pci_set_pin(&t->pci, 1);
	pci_add_bar(&t->pci, 0, PCI_BAR_MEM64_PREFETCH, 0x4000, &thing_bar_ops, t);
	pci_add_bar(&t->pci, 2, PCI_BAR_IO, 32, &thing_bar_ops, t);
	assert_int_equal(pci_add_msix(&t->pci, 3, 70), 0);
}

static u32 config_in(struct board *b, u32 address, unsigned size)
{
	u32 value = 0, at = address & ~3u;

	io_map_write(&b->pio, 0xCF8, &at, 4);
	io_map_read(&b->pio, 0xCFC + (address & 3), &value, size);
	return value;
}

static void config_out(struct board *b, u32 address, u32 value, unsigned size)
{
	u32 at = address & ~3u;

	io_map_write(&b->pio, 0xCF8, &at, 4);
	io_map_write(&b->pio, 0xCFC + (address & 3), &value, size);
}

static u32 mem_in(struct board *b, u64 at)
{
	u32 value = 0;

	io_map_read(&b->mmio, at, &value, 4);
	return value;
}

static void mem_out(struct board *b, u64 at, u32 value)
{
	io_map_write(&b->mmio, at, &value, 4);
}

static void no_power_off(void *arg)
{
	(void)arg;
}

static int setup(void **state)
{
	static struct board b;
	struct irq_line line, sci;

	memset(&b, 0, sizeof(b));
	fixture_init(&b.f);
	line = fixture_irq(&b.f, 0);
	sci = fixture_irq(&b.f, 9);
	pci_host_init(&b.host, &b.pio, &b.mmio);
	b.host.msi = &msi_ops;
	b.host.msi_arg = &b;
	io_map_add(&b.pio, &(struct io_range){ 0xCF8, 8, &pci_ports_ops, &b.host, "pci" });
	acpi_pm_init(&b.pm, &b.f.timers, &sci, no_power_off, &b);
	mch_init(&b.mch, &b.host, on_pam, &b);
	lpc_init(&b.lpc, &b.host, &b.pm, &line);
	root_port_init(&b.port, &b.host, 1);
	thing_init(&b.a, 0x1041);
	thing_init(&b.b, 0x1042);
	assert_int_equal(pci_attach(&b.host.root, PCI_DEVFN(0, 0), &b.mch.pci), 0);
	assert_int_equal(pci_attach(&b.host.root, PCI_DEVFN(31, 0), &b.lpc.pci), 0);
	assert_int_equal(pci_attach(&b.host.root, PCI_DEVFN(3, 0), &b.port.pci), 0);
	assert_int_equal(pci_attach(&b.host.root, PCI_DEVFN(2, 0), &b.a.pci), 0);
	assert_int_equal(pci_attach(&b.port.bus, PCI_DEVFN(0, 0), &b.b.pci), 0);
	*state = &b;
	return 0;
}

static int teardown(void **state)
{
	struct board *b = *state;

	pci_detach(&b->a.pci);
	pci_detach(&b->b.pci);
	return 0;
}

/* ---- configuration --------------------------------------------------------------------------- */

static void test_mechanisms(void **state)
{
	struct board *b = *state;

	assert_int_equal(config_in(b, CF8(0, 0, 0), 4), 0x29C08086);
	assert_int_equal(config_in(b, CF8(0, PCI_DEVFN(31, 0), 0), 4), 0x29188086);
	assert_int_equal(config_in(b, CF8(0, PCI_DEVFN(31, 0), 2), 2), 0x2918);
	assert_int_equal(config_in(b, CF8(0, PCI_DEVFN(31, 0), 0xB), 1), 0x06);
	assert_int_equal(config_in(b, CF8(0, PCI_DEVFN(5, 0), 0), 4), ~0u);
	assert_int_equal(config_in(b, CF8(7, PCI_DEVFN(2, 0), 0), 4), ~0u);
	assert_int_equal(config_in(b, CF8(0, PCI_DEVFN(2, 0), 0) & ~0x80000000, 4), ~0u);
	/* ECAM is where PCIEXBAR says, and may move. */
	assert_int_equal(mem_in(b, ECAM_BASE), ~0u);
	config_out(b, CF8(0, 0, MCH_PCIEXBAR), ECAM_BASE | 1, 4);
	assert_int_equal(mem_in(b, ECAM_BASE + (PCI_DEVFN(2, 0) << 12)), 0x10411AF4);
	assert_int_equal(mem_in(b, ECAM_BASE + (PCI_DEVFN(2, 0) << 12) + 0x100), 0);
	assert_int_equal(mem_in(b, ECAM_BASE + (PCI_DEVFN(4, 0) << 12)), ~0u);
	mem_out(b, ECAM_BASE + MCH_PCIEXBAR, 0xE0000001);
	assert_int_equal(mem_in(b, ECAM_BASE), ~0u);
	assert_int_equal(mem_in(b, 0xE0000000), 0x29C08086);
	assert_int_equal(config_in(b, CF8(0, 0, MCH_PCIEXBAR), 4), 0xE0000001);
	mem_out(b, 0xE0000000 + MCH_PCIEXBAR, 0);
	assert_int_equal(mem_in(b, 0xE0000000), ~0u);
}

static void test_masks(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);

	config_out(b, a, 0xDEADBEEF, 4);
	assert_int_equal(config_in(b, a, 4), 0x10411AF4);
	config_out(b, a + PCI_COMMAND, 0xFFFF, 2);
	assert_int_equal(config_in(b, a + PCI_COMMAND, 2), 0x0547);
	config_out(b, a + PCI_INTERRUPT_LINE, 0x2B, 1);
	assert_int_equal(config_in(b, a + PCI_INTERRUPT_LINE, 2), 0x012B);
	/* The list of capabilities. */
	assert_true(config_in(b, a + PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES);
	assert_int_equal(config_in(b, a + PCI_CAPABILITIES, 1), 0x40);
	assert_int_equal(config_in(b, a + 0x40, 4), 69 << 16 | PCI_CAP_MSIX);
	pci_function_ops.reset(&b->a.pci);
	assert_int_equal(config_in(b, a + PCI_COMMAND, 2), 0);
	assert_int_equal(config_in(b, a + PCI_INTERRUPT_LINE, 1), 0);
	/* Sizes and offsets that no guest instruction makes, but a caller could. */
	assert_int_equal(pci_config_read(&b->a.pci, 0xFF, 4), 0);
	pci_config_write(&b->a.pci, 0xFFFFFFFF, ~0u, 4);
}

/* ---- BARs ------------------------------------------------------------------------------------ */

static void test_bars(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0), value;

	/* Sizing. */
	config_out(b, a + 0x10, ~0u, 4);
	config_out(b, a + 0x14, ~0u, 4);
	config_out(b, a + 0x18, ~0u, 4);
	assert_int_equal(config_in(b, a + 0x10, 4), 0xFFFFC00C);
	assert_int_equal(config_in(b, a + 0x14, 4), ~0u);
	assert_int_equal(config_in(b, a + 0x18, 4), 0xFFFFFFE1);
	assert_int_equal(config_in(b, a + 0x24, 4), 0);
	/* Nothing is decoded before the command register says so. */
	config_out(b, a + 0x10, 0xC0004000, 4);
	config_out(b, a + 0x14, 0x8, 4);
	config_out(b, a + 0x18, 0xC040, 4);
	assert_true(b->a.moved == PCI_UNMAPPED);
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_true(b->a.moved == 0x8C0004000);
	assert_int_equal(mem_in(b, 0x8C0004010), 0x1051);
	io_map_read(&b->pio, 0xC040, &value, 4);
	assert_int_equal(value, ~0u);
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_IO, 2);
	io_map_read(&b->pio, 0xC044, &value, 4);
	assert_int_equal(value, 0x1045);
	assert_int_equal(mem_in(b, 0x8C0004010), ~0u);
	assert_true(b->a.moved == PCI_UNMAPPED);
	/* The last bytes of the address space, and an I/O BAR beyond 64 KiB. */
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
	config_out(b, a + 0x10, ~0u, 4);
	config_out(b, a + 0x14, ~0u, 4);
	assert_true(b->a.moved == 0xFFFFFFFFFFFFC000);
	config_out(b, a + 0x18, 0x10040, 4);
	assert_true(b->a.pci.bar[2].base == PCI_UNMAPPED);
}

/* Where another range is, a BAR waits. */
static void test_overlap(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);

	config_out(b, CF8(0, 0, MCH_PCIEXBAR), ECAM_BASE | 1, 4);
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	config_out(b, a + 0x10, ECAM_BASE + 0x4000, 4);
	assert_true(b->a.moved == PCI_UNMAPPED);
	assert_int_equal(mem_in(b, ECAM_BASE), 0x29C08086);
	/* Over its own other BAR. */
	config_out(b, a + 0x1C, 0xC0000000, 4);
	config_out(b, a + 0x10, 0xC0000000, 4);
	assert_true(b->a.moved == PCI_UNMAPPED);
	config_out(b, a + 0x1C, 0xC1000000, 4);
	assert_true(b->a.moved == 0xC0000000);
}

static void test_bridge(void **state)
{
	struct board *b = *state;
	u32 port = CF8(0, PCI_DEVFN(3, 0), 0), behind = CF8(5, 0, 0);

	assert_int_equal(config_in(b, port + PCI_HEADER_TYPE, 1), 1);
	assert_int_equal(config_in(b, behind, 4), ~0u);
	config_out(b, port + BRIDGE_PRIMARY, 0x00060500, 4);
	assert_int_equal(config_in(b, behind, 4), 0x10421AF4);
	assert_int_equal(config_in(b, CF8(6, 0, 0), 4), ~0u);
	config_out(b, behind + 0x10, 0xC0104000, 4);
	config_out(b, behind + PCI_COMMAND, MEMORY_AND_MASTER, 2);
	assert_true(b->b.moved == PCI_UNMAPPED);
	config_out(b, port + BRIDGE_MEMORY_BASE, 0xC010C010, 4);
	assert_true(b->b.moved == PCI_UNMAPPED);
	config_out(b, port + PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	assert_true(b->b.moved == 0xC0104000);
	config_out(b, port + BRIDGE_MEMORY_BASE, 0xC000C010, 4);
	assert_true(b->b.moved == PCI_UNMAPPED);
	/* The prefetchable window, above 4 GiB. */
	config_out(b, behind + 0x14, 0x2, 4);
	config_out(b, port + BRIDGE_PREFETCH_BASE, 0xC021C021, 4);
	config_out(b, port + BRIDGE_PREFETCH_BASE_HIGH, 2, 4);
	config_out(b, port + BRIDGE_PREFETCH_LIMIT_HIGH, 2, 4);
	assert_true(b->b.moved == PCI_UNMAPPED);
	config_out(b, behind + 0x10, 0xC0204000, 4);
	assert_true(b->b.moved == 0x2C0204000);
	/* A secondary bus reset. */
	config_out(b, port + BRIDGE_CONTROL, 0x40, 2);
	assert_int_equal(b->b.resets, 1);
	assert_int_equal(b->a.resets, 0);
	assert_true(b->b.moved == PCI_UNMAPPED);
	assert_int_equal(config_in(b, behind + PCI_COMMAND, 2), 0);
	/* Numbers that run in a circle end. */
	config_out(b, port + BRIDGE_PRIMARY, 0x00FF0000, 4);
	assert_int_equal(config_in(b, behind, 4), ~0u);
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static void test_pins(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);

	/* Slot 2, INTA: PIRQ G. Behind the port in slot 3: PIRQ H. */
	pci_set_intx(&b->a.pci, true);
	assert_true(b->f.level[22]);
	assert_true(config_in(b, a + PCI_STATUS, 2) & PCI_STATUS_INTX);
	pci_set_intx(&b->b.pci, true);
	assert_true(b->f.level[23]);
	assert_false(b->f.level[10]);
	config_out(b, CF8(0, PCI_DEVFN(31, 0), 0x68), 0x0A0A0B80, 4);
	assert_true(b->f.level[10]);
	assert_false(b->f.level[11]);
	pci_set_intx(&b->b.pci, false);
	assert_true(b->f.level[10]);
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_INTX_OFF, 2);
	assert_false(b->f.level[22]);
	assert_false(b->f.level[10]);
	assert_true(config_in(b, a + PCI_STATUS, 2) & PCI_STATUS_INTX);
	config_out(b, a + PCI_COMMAND, 0, 2);
	assert_true(b->f.level[22]);
	pci_function_ops.reset(&b->a.pci);
	assert_false(b->f.level[22]);
	/* Not routed, whatever the number says. */
	pci_set_intx(&b->a.pci, true);
	config_out(b, CF8(0, PCI_DEVFN(31, 0), 0x68), 0x0A0A0A0A, 4);
	assert_true(b->f.level[10]);
	config_out(b, CF8(0, PCI_DEVFN(31, 0), 0x68), 0x8A8A8A8A, 4);
	assert_false(b->f.level[10]);
	/* Each bridge turns the pins by the slot behind it: slot 2 behind slot 3, INTA is PIRQ F. */
	assert_int_equal(pci_pirq(&(struct pci_device){ .bus = &b->port.bus,
					  .devfn = PCI_DEVFN(2, 0) }, 1), 5);
	pci_set_intx(&b->a.pci, false);
	/* Reserved lines are never driven. */
	config_out(b, CF8(0, PCI_DEVFN(31, 0), 0x68), 0x02020202, 4);
	pci_set_intx(&b->a.pci, true);
	assert_false(b->f.level[2]);
}

#define MSIX_BAR 0xC1000000ULL

static void msix_start(struct board *b)
{
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);

	config_out(b, a + 0x1C, MSIX_BAR, 4);
	config_out(b, a + PCI_COMMAND, MEMORY_AND_MASTER, 2);
	config_out(b, a + 0x42, 0x8000, 2);
	mem_out(b, MSIX_BAR + 16, 0xFEE01000);
	mem_out(b, MSIX_BAR + 24, 0x4041);
}

static void test_msix(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);

	pci_msix_notify(&b->a.pci, 1);
	msix_start(b);
	assert_int_equal(b->sends, 0);
	assert_int_equal(mem_in(b, MSIX_BAR + 28), 1);
	pci_msix_notify(&b->a.pci, 1);
	assert_int_equal(b->sends, 0);
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 2);
	mem_out(b, MSIX_BAR + 28, 0);
	assert_int_equal(b->sends, 1);
	assert_true(b->sent == (0xFEE01000 | 0x4041ULL << 32));
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 0);
	pci_msix_notify(&b->a.pci, 1);
	assert_int_equal(b->sends, 2);
	config_out(b, a + 0x42, 0xC000, 2);
	pci_msix_notify(&b->a.pci, 1);
	assert_int_equal(b->sends, 2);
	config_out(b, a + 0x42, 0x8000, 2);
	assert_int_equal(b->sends, 3);
	/* Not a bus master: no message leaves. */
	config_out(b, a + PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	pci_msix_notify(&b->a.pci, 1);
	assert_int_equal(b->sends, 3);
	config_out(b, a + PCI_COMMAND, MEMORY_AND_MASTER, 2);
	assert_int_equal(b->sends, 4);
	pci_msix_notify(&b->a.pci, 70);
	pci_msix_notify(&b->a.pci, ~0u);
	/* Beyond table and pending bits. */
	assert_int_equal(mem_in(b, MSIX_BAR + 70 * 16), 0);
	mem_out(b, MSIX_BAR + 70 * 16, ~0u);
	mem_out(b, MSIX_BAR + 2048, ~0u);
	assert_int_equal(mem_in(b, MSIX_BAR + 4092), 0);
	assert_int_equal(b->sends, 4);
}

static void test_msix_eventfd(void **state)
{
	struct board *b = *state;
	int fd = pci_msix_eventfd(&b->a.pci, 1);
	u64 one = 1;

	assert_true(fd >= 0);
	assert_int_equal(pci_msix_eventfd(&b->a.pci, 1), fd);
	assert_int_equal(pci_msix_eventfd(&b->a.pci, 70), -EINVAL);
	msix_start(b);
	assert_int_equal(b->connects, 0);
	/* Masked, it stays in the eventfd, where the hypervisor finds it. */
	assert_int_equal(write(fd, &one, 8), 8);
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 2);
	mem_out(b, MSIX_BAR + 28, 0);
	assert_int_equal(b->connects, 1);
	/* Another address: joined anew. */
	mem_out(b, MSIX_BAR + 16, 0xFEE02000);
	assert_int_equal(b->connects, 2);
	assert_int_equal(b->disconnects, 1);
	pci_function_ops.reset(&b->a.pci);
	assert_int_equal(b->disconnects, 2);
	assert_int_equal(read(fd, &one, 8), -1);
}

/* The message itself while it may go, with the address that is joined; else the eventfd counts. */
static void test_msix_signal(void **state)
{
	struct board *b = *state;
	int fd = pci_msix_eventfd(&b->a.pci, 1);
	u64 count;

	msix_start(b);
	pci_msix_signal(&b->a.pci, 1);
	assert_int_equal(b->sends, 0);
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 2);
	mem_out(b, MSIX_BAR + 28, 0);
	assert_int_equal(read(fd, &count, 8), 8);	/* the hypervisor's part */
	pci_msix_signal(&b->a.pci, 1);
	assert_int_equal(b->sends, 1);
	assert_true(b->sent == (0xFEE01000 | 0x4041ULL << 32));
	assert_int_equal(read(fd, &count, 8), -1);
	mem_out(b, MSIX_BAR + 16, 0xFEE02000);
	pci_msix_signal(&b->a.pci, 1);
	assert_int_equal(b->sends, 2);
	assert_true(b->sent == (0xFEE02000 | 0x4041ULL << 32));
	mem_out(b, MSIX_BAR + 28, 1);
	pci_msix_signal(&b->a.pci, 1);
	assert_int_equal(b->sends, 2);
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 2);
	pci_function_ops.reset(&b->a.pci);
	pci_msix_signal(&b->a.pci, 1);
	assert_int_equal(b->sends, 2);
}

/* ---- chipset --------------------------------------------------------------------------------- */

static void test_chipset(void **state)
{
	struct board *b = *state;
	u32 lpc = CF8(0, PCI_DEVFN(31, 0), 0), value = 0;
	static const u8 open[MCH_PAMS] = { 0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33 };

	for (unsigned i = 0; i < MCH_PAMS; i++)
		config_out(b, CF8(0, 0, MCH_PAM + i), 0xFF, 1);
	assert_int_equal(b->pam_calls, MCH_PAMS);
	assert_memory_equal(b->pam, open, MCH_PAMS);
	assert_int_equal(config_in(b, CF8(0, 0, 0x9D), 1), 0x12);
	config_out(b, CF8(0, 0, 0x9D), 0x4A, 1);
	assert_int_equal(config_in(b, CF8(0, 0, 0x9D), 1), 0x12);
	/* The power management block, where PMBASE says. */
	config_out(b, lpc + 0x40, 0xB001, 4);
	io_map_read(&b->pio, 0xB004, &value, 2);
	assert_int_equal(value, 0xFFFF);
	config_out(b, lpc + 0x44, 0x80, 1);
	io_map_read(&b->pio, 0xB004, &value, 2);
	assert_int_equal(value, 1);
	io_map_read(&b->pio, 0xB030, &value, 4);
	assert_int_equal(value, 0x21);
	value = 0x100;
	io_map_write(&b->pio, 0xB002, &value, 2);
	acpi_pm_power_button(&b->pm);
	assert_true(b->f.level[9]);
	lpc_play_firmware(&b->lpc);
	io_map_read(&b->pio, PORT_PM_BASE, &value, 4);
	assert_int_equal(value, 0x1000100);
	assert_int_equal(mem_in(b, RCBA_BASE + 0x3140), 0x32103210);
	assert_int_equal(config_in(b, lpc + 0xF0, 4), RCBA_BASE | 1);
}

/* ---- state ----------------------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
	struct board *b = *state;
	u32 a = CF8(0, PCI_DEVFN(2, 0), 0);
	struct device dev = { .ops = &pci_function_ops, .self = &b->a.pci };
	u8 saved[8192];
	long n;

	msix_start(b);
	config_out(b, a + 0x10, 0xC0004000, 4);
	pci_msix_notify(&b->a.pci, 1);
	pci_set_intx(&b->a.pci, true);
	check_round_trip(&pci_function_ops, &b->a.pci);
	assert_true(b->a.moved == 0xC0004000);
	assert_true(b->f.level[22]);
	assert_int_equal(mem_in(b, MSIX_BAR + 2048), 2);
	n = device_save(&dev, saved, sizeof(saved));
	pci_function_ops.reset(&b->a.pci);
	assert_false(b->f.level[22]);
	assert_int_equal(device_load(&dev, saved, n), n);
	mem_out(b, MSIX_BAR + 28, 0);
	assert_int_equal(b->sends, 1);
	/* Another device's state is refused. */
	dev.self = &b->b.pci;
	assert_int_equal(device_load(&dev, saved, n), -EINVAL);
	config_out(b, CF8(0, 0, MCH_PCIEXBAR), ECAM_BASE | 1, 4);
	check_round_trip(&pci_function_ops, &b->mch.pci);
	assert_int_equal(mem_in(b, ECAM_BASE), 0x29C08086);
	lpc_play_firmware(&b->lpc);
	check_round_trip(&pci_function_ops, &b->lpc.pci);
	assert_int_equal(b->lpc.pm_base, PORT_PM_BASE);
	lpc_apm_ops.write(&b->lpc, 1, 0x5A, 1);
	check_round_trip(&lpc_device_ops, &b->lpc);
	assert_int_equal(lpc_apm_ops.read(&b->lpc, 1, 1), 0x5A);
	check_round_trip(&pci_host_device_ops, &b->host);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mechanisms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_masks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bars, setup, teardown),
		cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bridge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix_eventfd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_msix_signal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chipset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
