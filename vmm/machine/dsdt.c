/*
 * The DSDT: S5, the CPUs, and PCI0 with what lies on it (ACPI 6.4, chapter 6; PCI Firmware 3.2,
 * chapter 4). It says exactly what pc.c wires up.
 */
#include <string.h>

#include "vmm/machine/dsdt.h"
#include "vmm/machine/pc.h"

static const struct dsdt_device {
	const char *name, *id;
	u8 uid;
	struct { u16 base; u8 len; } io[4];
	u8 irq;	/* 0: none */
} dsdt_devices[] = {
	{ "RTC_", "PNP0B00", 0, { { PORT_RTC, 2 } }, IRQ_RTC },
	{ "KBD_", "PNP0303", 0, { { PORT_I8042_DATA, 1 }, { PORT_I8042_COMMAND, 1 } }, IRQ_KBD },
	{ "MOU_", "PNP0F13", 0, { { 0, 0 } }, IRQ_AUX },
	{ "COM1", "PNP0501", 1, { { PORT_COM1, 8 } }, IRQ_COM1 },
};

static void dsdt_device(struct aml *a, const struct dsdt_device *d)
{
	size_t dev = aml_device(a, d->name), crs;

	aml_name_eisaid(a, "_HID", d->id);
	if (d->uid)
		aml_name_int(a, "_UID", d->uid);
	aml_name_int(a, "_STA", 0x0F);
	crs = aml_crs(a);
	for (unsigned i = 0; i < ARRAY_SIZE(d->io) && d->io[i].len; i++)
		aml_crs_io(a, d->io[i].base, d->io[i].len);
	if (d->irq)
		aml_crs_irq(a, d->irq);
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

void dsdt_legacy(struct aml *a, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(dsdt_devices); i++)
		if (strcmp(dsdt_devices[i].name, name) == 0)
			dsdt_device(a, &dsdt_devices[i]);
}

static void dsdt_cpu(struct aml *a, unsigned cpu)
{
	char name[5] = { 'C', 'P', '0' + cpu / 10 % 10, '0' + cpu % 10 };
	size_t dev = aml_device(a, name);

	aml_name_string(a, "_HID", "ACPI0007");
	aml_name_int(a, "_UID", cpu);
	aml_end(a, dev);
}

void dsdt_cpus(struct aml *a, const struct acpi_config *c)
{
	for (unsigned i = 0; i < topology_cpus(c->cpus); i++)
		dsdt_cpu(a, i);
}

/* The guest's pvpanic driver binds by this _HID. */
void dsdt_pvpanic(struct aml *a)
{
	size_t dev = aml_device(a, "PEVT"), crs;

	aml_name_string(a, "_HID", "QEMU0001");
	aml_name_int(a, "_STA", 0x0F);
	crs = aml_crs(a);
	aml_crs_io(a, PORT_PVPANIC, 1);
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

/* What nobody may hand out to others. */
static void dsdt_board(struct aml *a, const struct acpi_config *c)
{
	size_t dev = aml_device(a, "MBRD"), crs;

	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 1);
	crs = aml_crs(a);
	aml_crs_io(a, PORT_PM_BASE, PM_BLOCK_SIZE);
	aml_crs_io(a, PORT_DEBUGCON_BIOS, 1);
	if (c->ecam_size)
		aml_crs_mem32(a, c->ecam, c->ecam_size);
	aml_crs_mem32(a, RCBA_BASE, 0x4000);
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

/* ---- PCI0 ------------------------------------------------------------------------------------ */

static void dsdt_pci_crs(struct aml *a, const struct acpi_config *c)
{
	size_t crs = aml_crs(a);

	aml_crs_space(a, AML_BUS, 0, 255);
	aml_crs_io(a, PORT_PCI_CONFIG, 8);
	aml_crs_space(a, AML_IO, 0, PORT_PCI_CONFIG - 1);
	aml_crs_space(a, AML_IO, PORT_PCI_CONFIG + 8, 0xFFFF);
	aml_crs_space(a, AML_MEMORY, GUEST_VGA_START, GUEST_VGA_END - 1);
	/* ECAM may lie inside. */
	if (c->ecam_size && c->ecam > c->pci32 && c->ecam < IOAPIC_DEFAULT_BASE) {
		aml_crs_space(a, AML_MEMORY, c->pci32, c->ecam - 1);
		aml_crs_space(a, AML_MEMORY, c->ecam + c->ecam_size, IOAPIC_DEFAULT_BASE - 1);
	} else {
		aml_crs_space(a, AML_MEMORY, c->pci32, IOAPIC_DEFAULT_BASE - 1);
	}
	aml_crs_space(a, AML_MEMORY, c->pci64, BIT(GUEST_PHYS_BITS) - 1);
	aml_crs_end(a, crs);
}

void dsdt_prt(struct aml *a, const char *name, bool links)
{
	size_t prt = aml_name_begin_package(a, name, PCI_SLOTS * 4);

	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < 4; pin++) {
			size_t entry = aml_package(a, 4);

			aml_int(a, slot << 16 | 0xFFFF);
			aml_int(a, pin);
			if (links)
				dsdt_link_name(a, pci_root_pirq(slot, pin));
			else
				aml_int(a, 0);
			aml_int(a, links ? 0 : PIRQ_GSI + pci_root_pirq(slot, pin));
			aml_end(a, entry);
		}
	}
	aml_end(a, prt);
}

/*
 * Method (_OSC, 4) { CreateDWordField (Arg3, 8, CDW3)  CDW3 &= 0x1D  Return (Arg3) }: the guest may
 * have native hot-plug, power management events, errors and the capability structure, not SHPC.
 */
static void dsdt_osc(struct aml *a)
{
	static const u8 body[] = {
		0x8A, 0x6B, 0x0A, 0x08, 'C', 'D', 'W', '3', 0x7B, 'C', 'D', 'W', '3', 0x0A, 0x1D,
		'C', 'D', 'W', '3', 0xA4, 0x6B,
	};

	aml_method(a, "_OSC", 4, body, sizeof(body));
}

static void dsdt_hpet(struct aml *a)
{
	size_t dev = aml_device(a, "HPET"), crs;

	aml_name_eisaid(a, "_HID", "PNP0103");
	aml_name_int(a, "_UID", 0);
	crs = aml_crs(a);
	aml_crs_mem32(a, HPET_BASE, HPET_SIZE);
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

static void dsdt_isa(struct aml *a)
{
	size_t isa = aml_device(a, "ISA_");

	aml_name_int(a, "_ADR", PC_SLOT_LPC << 16);
	for (size_t i = 0; i < ARRAY_SIZE(dsdt_devices); i++)
		dsdt_device(a, &dsdt_devices[i]);
	dsdt_pvpanic(a);
	dsdt_links(a);
	aml_end(a, isa);
}

size_t dsdt_pci_begin(struct aml *a, const struct acpi_config *c)
{
	size_t pci = aml_device(a, "PCI0");

	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_BBN", 0);
	dsdt_pci_crs(a, c);
	dsdt_osc(a);
	return pci;
}

void dsdt_build(struct aml *a, const struct acpi_config *c)
{
	static const u8 s5[] = { ACPI_SLP_TYP_S5, 0, 0, 0 };
	size_t scope, pci;

	aml_name_package(a, "_S5_", s5, sizeof(s5));
	dsdt_interrupt_model(a);
	scope = aml_scope(a, "_SB_");
	dsdt_cpus(a, c);
	dsdt_board(a, c);
	if (c->options && c->options->hpet)
		dsdt_hpet(a);
	dsdt_vmgenid(a, c);
	pci = dsdt_pci_begin(a, c);
	dsdt_isa(a);
	dsdt_prt_by_model(a);
	aml_end(a, pci);
	aml_end(a, scope);
	dsdt_vmgenid_event(a, c);
}
