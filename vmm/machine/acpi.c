/*
 * ACPI tables (ACPI 6.4, chapter 5): RSDP, RSDT and XSDT, FADT, FACS, MADT, MCFG. They say exactly what
 * pc.c wires up; the DSDT is dsdt.c's.
 */
#include <errno.h>
#include <string.h>

#include "vmm/hw/acpi_pm.h"
#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/aml.h"
#include "vmm/machine/pc.h"

#define LATENCY_NO_C2	101
#define LATENCY_NO_C3	1001

struct acpi_facs {
	char signature[4];
	u32 length, hardware_signature, waking_vector, global_lock, flags;
	u64 x_waking_vector;
	u8 version, reserved[31];
} PACKED;
_Static_assert(sizeof(struct acpi_facs) == 64, "ACPI 6.4 table 5.12");

struct madt_lapic {
	u8 type, length, uid, apic_id;
	u32 flags;
} PACKED;
struct madt_ioapic {
	u8 type, length, id, reserved;
	u32 address, gsi_base;
} PACKED;
struct madt_override {
	u8 type, length, bus, source;
	u32 gsi;
	u16 flags;
} PACKED;
struct madt_nmi {
	u8 type, length, uid;
	u16 flags;
	u8 lint;
} PACKED;
_Static_assert(sizeof(struct madt_lapic) == 8 && sizeof(struct madt_ioapic) == 12 &&
		       sizeof(struct madt_override) == 10 && sizeof(struct madt_nmi) == 6,
	"ACPI 6.4, 5.2.12");

#define MADT_PCAT_COMPAT	BIT(0)
#define MADT_LEVEL_HIGH		0x000D
#define MADT_ALL_CPUS		0xFF

/* ---- what is built --------------------------------------------------------------------------- */

void *table_alloc(struct acpi_tables *t, u32 size, u32 align)
{
	u32 at = ALIGN_UP(t->used, align);

	if (size > t->size || at > t->size - size)
		return NULL;
	memset(t->base + at, 0, size);
	t->used = at + size;
	return t->base + at;
}

/* field (4 or 8 bytes) holds the offset of target from now on: an address once the tables lie somewhere. */
static void table_pointer(struct acpi_tables *t, void *field, u8 size, const void *target)
{
	u64 offset = (const u8 *)target - t->base;

	memcpy(field, &offset, size);
	t->pointer[t->pointers++] =
		(struct acpi_pointer){ .at = (u8 *)field - t->base, .size = size };
}

u8 firmware_checksum(const void *data, size_t n)
{
	const u8 *p = data;
	u8 sum = 0;

	while (n--)
		sum += *p++;
	return -sum;
}

/* The checksum is for later: pointers change. */
void table_finish(
	struct acpi_tables *t, struct acpi_header *h, const char *signature, u8 revision, u32 length)
{
	memcpy(h->signature, signature, 4);
	h->length = length;
	h->revision = revision;
	memcpy(h->oem, "QUMRA ", 6);
	memcpy(h->oem_table, "QUMRAPC ", 8);
	h->oem_revision = 1;
	memcpy(h->creator, "QMRA", 4);
	h->creator_revision = 1;
	t->sum[t->sums++] = (struct acpi_sum){ .start = (u8 *)h - t->base, .length = length };
}

void table_list(struct acpi_tables *t, const void *table)
{
	t->list[t->count++] = (const u8 *)table - t->base;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static struct acpi_header *write_dsdt(struct acpi_tables *t, const struct acpi_config *c)
{
	struct acpi_header *h = table_alloc(t, sizeof(*h), 16);
	struct aml a = { 0 };

	if (!h)
		return NULL;
	a.buf = (u8 *)(h + 1);
	a.size = t->size - t->used;
	c->board->dsdt(&a, c);
	if (a.overrun)
		return NULL;
	t->used += a.len;
	if (a.vmgenid)
		t->vmgenid = (u8 *)(h + 1) + a.vmgenid - t->base;
	table_finish(t, h, "DSDT", 2, sizeof(*h) + a.len);
	return h;
}

static void pc_fadt(struct acpi_fadt *f, const struct acpi_config *c)
{
	(void)c;
	*f = (struct acpi_fadt){
		.pm_profile = 1, /* desktop */
		.sci_int = IRQ_SCI,
		.pm1a_evt = PORT_PM_BASE + ACPI_PM1_EVT,
		.pm1a_cnt = PORT_PM_BASE + ACPI_PM1_CNT,
		.pm_tmr = PORT_PM_BASE + ACPI_PM_TMR,
		.gpe0 = PORT_PM_BASE + ACPI_GPE0,
		.gpe0_len = ACPI_GPE0_SIZE,
		.pm1_evt_len = 4,
		.pm1_cnt_len = 2,
		.pm_tmr_len = 4,
		.lvl2_lat = LATENCY_NO_C2,
		.lvl3_lat = LATENCY_NO_C3,
		.century = 0x32,
		.boot_arch = BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA | BOOT_NO_ASPM,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC |
			 FADT_TMR_VAL_EXT | FADT_RESET_REG_SUP,
		.x_pm1a_evt = io_address(PORT_PM_BASE + ACPI_PM1_EVT, 32, ACCESS_WORD),
		.x_pm1a_cnt = io_address(PORT_PM_BASE + ACPI_PM1_CNT, 16, ACCESS_WORD),
		.x_pm_tmr = io_address(PORT_PM_BASE + ACPI_PM_TMR, 32, ACCESS_DWORD),
		.x_gpe0 = io_address(PORT_PM_BASE + ACPI_GPE0, 8 * ACPI_GPE0_SIZE, ACCESS_BYTE),
	};
}

const struct acpi_board acpi_board_pc = {
	.fadt = pc_fadt, .dsdt = dsdt_build, .fixed_hardware = true,
	.reset_port = PORT_RESET_CONTROL, .reset_value = 0x06 };

static struct acpi_facs *write_facs(struct acpi_tables *t)
{
	struct acpi_facs *facs = table_alloc(t, sizeof(*facs), 64);

	if (facs)
		*facs = (struct acpi_facs){
			.signature = "FACS", .length = sizeof(*facs), .version = 2 };
	return facs;
}

static int write_fadt(struct acpi_tables *t, const struct acpi_config *c)
{
	struct acpi_fadt *f = table_alloc(t, sizeof(*f), 16);
	struct acpi_facs *facs = c->board->fixed_hardware ? write_facs(t) : NULL;
	struct acpi_header *dsdt = write_dsdt(t, c);

	if (!f || (c->board->fixed_hardware && !facs) || !dsdt)
		return -ENOMEM;
	c->board->fadt(f, c);
	f->reset_reg = io_address(c->board->reset_port, 8, ACCESS_BYTE);
	f->reset_value = c->board->reset_value;
	if (facs)
		table_pointer(t, &f->facs, 4, facs);
	table_pointer(t, &f->dsdt, 4, dsdt);
	table_pointer(t, &f->x_dsdt, 8, dsdt);
	table_finish(t, &f->h, "FACP", 5, sizeof(*f));
	table_list(t, f);
	return 0;
}

static int write_madt(struct acpi_tables *t, const struct acpi_config *c)
{
	const struct cpu_topology *cpus = c->cpus;
	bool sci = c->board->fixed_hardware;
	unsigned n = topology_cpus(cpus);
	u32 size = sizeof(struct acpi_header) + 8 + n * sizeof(struct madt_lapic) +
		   sizeof(struct madt_ioapic) + (1 + sci) * sizeof(struct madt_override) +
		   sizeof(struct madt_nmi);
	u8 *p = table_alloc(t, size, 16), *at;
	const u32 head[2] = { APIC_DEFAULT_BASE, MADT_PCAT_COMPAT };

	if (!p)
		return -ENOMEM;
	at = mempcpy(p + sizeof(struct acpi_header), head, sizeof(head));
	for (unsigned i = 0; i < n; i++) {
		u8 id = topology_apic_id(cpus, i);

		at = mempcpy(at, &(struct madt_lapic){ 0, 8, i, id, 1 }, sizeof(struct madt_lapic));
	}
	at = mempcpy(at, &(struct madt_ioapic){ 1, 12, 0, 0, IOAPIC_DEFAULT_BASE, 0 },
		     sizeof(struct madt_ioapic));
	/* The i8254 is wired to pin 2; the SCI is a level that is active high. */
	at = mempcpy(at, &(struct madt_override){2, 10, 0, 0, 2, 0}, sizeof(struct madt_override));
	if (sci)
		at = mempcpy(at, &(struct madt_override){ 2, 10, 0, IRQ_SCI, IRQ_SCI, MADT_LEVEL_HIGH },
			     sizeof(struct madt_override));
	memcpy(at, &(struct madt_nmi){ 4, 6, MADT_ALL_CPUS, 0, 1 }, sizeof(struct madt_nmi));
	table_finish(t, (struct acpi_header *)p, "APIC", 3, size);
	table_list(t, p);
	return 0;
}

struct acpi_mcfg {
	struct acpi_header h;
	u64 reserved;
	u64 base;
	u16 segment;
	u8 first_bus, last_bus;
	u32 reserved2;
} PACKED;
_Static_assert(sizeof(struct acpi_mcfg) == 60, "PCI Firmware 3.2 table 4-2 and 4-3");

static int write_mcfg(struct acpi_tables *t, const struct acpi_config *c)
{
	struct acpi_mcfg *m = table_alloc(t, sizeof(*m), 16);

	if (!m)
		return -ENOMEM;
	m->base = c->ecam;
	m->last_bus = (c->ecam_size >> 20) - 1;
	table_finish(t, &m->h, "MCFG", 1, sizeof(*m));
	table_list(t, m);
	return 0;
}

/* RSDT and XSDT list the same tables with 4 and 8 bytes each; returns the list, or NULL. */
static u8 *write_root(struct acpi_tables *t, const char *signature, unsigned width)
{
	u32 size = sizeof(struct acpi_header) + t->count * width;
	u8 *p = table_alloc(t, size, 16);

	if (!p)
		return NULL;
	for (unsigned i = 0; i < t->count; i++)
		table_pointer(t, p + sizeof(struct acpi_header) + i * width, width,
			      t->base + t->list[i]);
	table_finish(t, (struct acpi_header *)p, signature, 1, size);
	return p;
}

int acpi_build(struct acpi_tables *t, const struct acpi_config *c)
{
	u8 *rsdt, *xsdt;

	if (write_fadt(t, c) < 0 || write_madt(t, c) < 0 ||
	    (c->ecam_size && write_mcfg(t, c) < 0) ||
	    (c->options && c->options->hpet && acpi_write_hpet(t) < 0) ||
	    (c->options && c->options->numa.nodes && acpi_write_numa(t, c) < 0))
		return -ENOMEM;
	rsdt = write_root(t, "RSDT", 4);
	xsdt = write_root(t, "XSDT", 8);
	if (!rsdt || !xsdt)
		return -ENOMEM;
	t->rsdt = rsdt - t->base;
	t->xsdt = xsdt - t->base;
	return 0;
}

void acpi_rsdp(struct acpi_rsdp *rsdp, u32 rsdt, u64 xsdt)
{
	*rsdp = (struct acpi_rsdp){ .revision = 2, .length = sizeof(*rsdp) };
	memcpy(rsdp->signature, "RSD PTR ", 8);
	memcpy(rsdp->oem, "QUMRA ", 6);
	rsdp->rsdt = rsdt;
	rsdp->xsdt = xsdt;
	rsdp->checksum = firmware_checksum(rsdp, 20);
	rsdp->extended_checksum = firmware_checksum(rsdp, sizeof(*rsdp));
}

/* ---- into guest memory ----------------------------------------------------------------------- */

static void tables_settle(struct acpi_tables *t, u32 address)
{
	for (unsigned i = 0; i < t->pointers; i++) {
		u8 *field = t->base + t->pointer[i].at;
		u64 value = 0;

		memcpy(&value, field, t->pointer[i].size);
		value += address;
		memcpy(field, &value, t->pointer[i].size);
	}
	for (unsigned i = 0; i < t->sums; i++) {
		u8 *table = t->base + t->sum[i].start;

		table[ACPI_CHECKSUM] = firmware_checksum(table, t->sum[i].length);
	}
}

int acpi_write_tables(const struct guest_memory *mem, const struct acpi_config *c)
{
	struct acpi_rsdp *rsdp = guest_memory_at(mem, ACPI_AREA, ACPI_AREA_SIZE);
	struct acpi_tables t = { .size = VMGENID_PAGE - ACPI_AREA - 64 };

	if (!rsdp)
		return -ENOMEM;
	t.base = (u8 *)rsdp + 64;
	if (acpi_build(&t, c) < 0)
		return -ENOMEM;
	tables_settle(&t, ACPI_AREA + 64);
	acpi_rsdp(rsdp, ACPI_AREA + 64 + t.rsdt, ACPI_AREA + 64 + t.xsdt);
	return 0;
}
