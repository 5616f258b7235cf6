/*
 * LPC interface bridge of the ICH9 (Intel I/O Controller Hub 9 data sheet, chapter 13): the power
 * management I/O block at PMBASE, the interrupt routing of PIRQ A to H, the root complex' registers
 * at RCBA, and the APM ports. No SMI can be made here; SMI_EN says that APM's is on already, so
 * that firmware does not set up system management mode.
 */
#include <errno.h>

#include "vmm/pci/lpc.h"

enum {
	PMBASE = 0x40, ACPI_CNTL = 0x44, PIRQ_A = LPC_PIRQ_A, SERIRQ = 0x64, PIRQ_E = 0x68,
	LPC_IO = 0x80, LPC_EN = 0x82, GEN_PMCON_1 = 0xA0, GEN_PMCON_3 = 0xA4, RCBA = 0xF0,
};

#define PMBASE_IO	BIT(0)
#define PMBASE_MASK	0xFF80
#define ACPI_EN		BIT(7)
#define PIRQ_OFF	BIT(7)
#define PIRQ_WRITABLE	0x8F
#define RCBA_EN		BIT(0)
#define RCBA_SIZE	0x4000

/* In the power management block (13.8.3). */
enum { SMI_EN = 0x30 };
#define SMI_GBL_EN	BIT(0)
#define SMI_APMC_EN	BIT(5)

/* In the root complex' registers (10.1.45 on): D31IR to D25IR. */
enum { D31IR = 0x3140, D25IR = 0x3150 };
#define DIR_DEFAULT	0x3210

/* ---- power management block ------------------------------------------------------------------ */

static bool pm_block_is_acpi(u64 offset, unsigned size)
{
	return offset + size <= ACPI_PM_SIZE ||
	       (offset >= ACPI_GPE0 && offset + size <= ACPI_GPE0 + ACPI_GPE0_SIZE);
}

static u64 pm_block_read(void *dev, u64 offset, unsigned size)
{
	struct lpc *lpc = dev;

	if (pm_block_is_acpi(offset, size))
		return acpi_pm_io_ops.read(lpc->pm, offset, size);
	if (offset >= SMI_EN && offset < SMI_EN + 4)
		return (SMI_GBL_EN | SMI_APMC_EN) >> (offset - SMI_EN) * 8;
	return 0;
}

static void pm_block_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct lpc *lpc = dev;

	if (pm_block_is_acpi(offset, size))
		acpi_pm_io_ops.write(lpc->pm, offset, value, size);
}

static const struct io_ops pm_block_ops = {
	.read = pm_block_read, .write = pm_block_write, .width = 4};

static u64 apm_read(void *dev, u64 offset, unsigned size)
{
	const struct lpc *lpc = dev;

	(void)size;
	return offset ? lpc->apm_status : lpc->apm_control;
}

static void apm_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct lpc *lpc = dev;

	(void)size;
	*(offset ? &lpc->apm_status : &lpc->apm_control) = value;
}

const struct io_ops lpc_apm_ops = { .read = apm_read, .write = apm_write, .width = 1 };

/* ---- root complex' registers: all as after a reset ------------------------------------------- */

static u64 rcba_read(void *dev, u64 offset, unsigned size)
{
	(void)dev;
	(void)size;
	if (offset >= D31IR && offset < D25IR + 2)
		return DIR_DEFAULT >> (offset & 1) * 8;
	return 0;
}

static const struct io_ops rcba_ops = { .read = rcba_read, .width = 2 };

/* ---- what registers place -------------------------------------------------------------------- */

static void place(struct io_map *map, u64 *at, u64 base, u64 size, const struct io_ops *ops,
		  struct lpc *lpc, const char *name)
{
	const struct io_range range = { base, size, ops, lpc, name };

	if (*at == base)
		return;
	if (*at != PCI_UNMAPPED)
		io_map_remove(map, *at);
	*at = base != PCI_UNMAPPED && io_map_add(map, &range) == 0 ? base : PCI_UNMAPPED;
}

static void lpc_place_blocks(struct lpc *lpc)
{
	const u8 *c = lpc->pci.config;
	u32 pm = pci_get_u32(c, PMBASE) & PMBASE_MASK, rcba = pci_get_u32(c, RCBA);

	place(lpc->host->pio, &lpc->pm_base, pm && c[ACPI_CNTL] & ACPI_EN ? pm : PCI_UNMAPPED,
	      PM_BLOCK_SIZE, &pm_block_ops, lpc, "acpi-pm");
	place(lpc->host->mmio, &lpc->rcba,
	      rcba & RCBA_EN ? rcba & ~(RCBA_SIZE - 1) : PCI_UNMAPPED, RCBA_SIZE, &rcba_ops, lpc,
	      "rcba");
}

/* ---- interrupts ------------------------------------------------------------------------------ */

static u8 pirq_route(const struct lpc *lpc, unsigned pirq)
{
	return lpc->pci.config[pirq < 4 ? PIRQ_A + pirq : PIRQ_E + pirq - 4];
}

/* Each PIRQ has a pin of the IOAPIC for itself, and by its register one of the i8259s'. */
static void lpc_update_lines(struct lpc *lpc)
{
	u32 isa = 0;

	for (unsigned i = 0; i < PCI_PIRQS; i++) {
		u8 route = pirq_route(lpc, i);

		if (lpc->pirq[i] && !(route & PIRQ_OFF))
			isa |= 1u << (route & 15);
		irq_line_set(&lpc->ioapic[i], lpc->pirq[i]);
	}
	/* ICH9 13.1.17: 0, 1, 2, 8 and 13 are reserved. */
	for (unsigned irq = 3; irq < 16; irq++)
		if (irq != 8 && irq != 13)
			irq_line_set(&lpc->isa[irq], isa >> irq & 1);
}

static void lpc_set_pirq(void *arg, unsigned pirq, bool level)
{
	struct lpc *lpc = arg;

	lpc->pirq[pirq] = level;
	lpc_update_lines(lpc);
}

static void lpc_config_written(struct pci_device *d, unsigned offset, unsigned size)
{
	struct lpc *lpc = d->self;

	(void)offset;
	(void)size;
	lpc_place_blocks(lpc);
	lpc_update_lines(lpc);
}

static const struct pci_ops lpc_ops = { .config_written = lpc_config_written };

/* ---- device ---------------------------------------------------------------------------------- */

struct lpc_state {
	u8 apm_control, apm_status;
};

static void lpc_reset(void *dev)
{
	struct lpc *lpc = dev;

	lpc->apm_control = lpc->apm_status = 0;
}

static void lpc_nop(void *dev)
{
	(void)dev;
}

static const struct state_field lpc_fields[] = {
	STATE_FIELD(struct lpc_state, apm_control, 1),
	STATE_FIELD(struct lpc_state, apm_status, 1),
};

static const struct state_table lpc_table = STATE_TABLE("lpc", struct lpc_state, 1, lpc_fields);

static void lpc_save(void *dev, void *state)
{
	const struct lpc *lpc = dev;

	*(struct lpc_state *)state = (struct lpc_state){
		.apm_control = lpc->apm_control, .apm_status = lpc->apm_status};
}

static int lpc_load(void *dev, const void *state)
{
	const struct lpc_state *st = state;
	struct lpc *lpc = dev;

	lpc->apm_control = st->apm_control;
	lpc->apm_status = st->apm_status;
	return 0;
}

const struct device_ops lpc_device_ops = {
	.table = &lpc_table, .reset = lpc_reset, .pause = lpc_nop, .resume = lpc_nop,
	.save = lpc_save, .load = lpc_load,
};

static void lpc_init_registers(struct pci_device *d)
{
	d->config[PCI_HEADER_TYPE] = PCI_HEADER_MULTI;
	/* The bridge decodes I/O and memory always (13.1.3). */
	d->config[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	d->writable[PCI_COMMAND] &= ~d->config[PCI_COMMAND];
	d->config[PMBASE] = PMBASE_IO;
	pci_put_u16(d->writable, PMBASE, PMBASE_MASK);
	d->writable[ACPI_CNTL] = ACPI_EN;
	for (unsigned i = 0; i < 4; i++) {
		d->config[PIRQ_A + i] = d->config[PIRQ_E + i] = PIRQ_OFF;
		d->writable[PIRQ_A + i] = d->writable[PIRQ_E + i] = PIRQ_WRITABLE;
	}
	d->config[SERIRQ] = 0x10;
	d->writable[SERIRQ] = 0xC3;
	pci_put_u16(d->writable, LPC_IO, 0x1377);
	pci_put_u16(d->writable, LPC_EN, 0x3F0F);
	pci_put_u16(d->writable, GEN_PMCON_1, 0x1FB3);
	d->writable[GEN_PMCON_3] = 0xC9;
	pci_put_u32(d->writable, RCBA, ~(RCBA_SIZE - 1u) | RCBA_EN);
}

void lpc_init(struct lpc *lpc, struct pci_host *host, struct acpi_pm *pm,
	      const struct irq_line *line)
{
	static const struct pci_id id = {
		.vendor = 0x8086, .device = 0x2918, .subsystem_vendor = 0x1AF4,
		.subsystem = 0x1100, .class = 0x060100, .revision = 2,
	};

	*lpc = (struct lpc){
		.host = host, .pm = pm, .pm_base = PCI_UNMAPPED, .rcba = PCI_UNMAPPED};
	for (unsigned i = 0; i < 16; i++) {
		lpc->isa[i] = *line;
		lpc->isa[i].gsi = i;
	}
	for (unsigned i = 0; i < PCI_PIRQS; i++) {
		lpc->ioapic[i] = *line;
		lpc->ioapic[i].gsi = PIRQ_GSI + i;
	}
	pci_init(&lpc->pci, &lpc_ops, lpc, &id);
	lpc_init_registers(&lpc->pci);
	host->set_pirq = lpc_set_pirq;
	host->pirq_arg = lpc;
}

void lpc_play_firmware(struct lpc *lpc)
{
	struct pci_device *d = &lpc->pci;

	pci_config_write(d, PMBASE, PORT_PM_BASE | PMBASE_IO, 4);
	pci_config_write(d, ACPI_CNTL, ACPI_EN, 1);
	pci_config_write(d, RCBA, RCBA_BASE | RCBA_EN, 4);
	for (unsigned i = 0; i < 4; i++) {
		pci_config_write(d, PIRQ_A + i, i & 1 ? 11 : 10, 1);
		pci_config_write(d, PIRQ_E + i, i & 1 ? 11 : 10, 1);
	}
}
