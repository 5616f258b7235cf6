/*
 * What ACPI says of the microvm: hardware-reduced (ACPI 6.4, 4.1), so no fixed registers, no SCI and no
 * legacy interrupt controllers to set up. It says exactly what microvm.c wires up; virtio's windows have
 * a table of their own (virtio/mmio_acpi.c).
 */
#include "vmm/machine/acpi_tables.h"
#include "vmm/machine/dsdt.h"
#include "vmm/machine/microvm.h"
#include "vmm/machine/pc.h"

static void microvm_fadt(struct acpi_fadt *f, const struct acpi_config *c)
{
	*f = (struct acpi_fadt){
		.pm_profile = 0, /* unspecified */
		.boot_arch = BOOT_NO_VGA | BOOT_NO_ASPM | (c->options->rtc ? 0 : BOOT_NO_CMOS_RTC),
		.flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP |
			 FADT_HW_REDUCED,
		.century = c->options->rtc ? 0x32 : 0,
		.minor_version = 1,
		.sleep_control = io_address(PORT_GED + GED_SLEEP_CONTROL, 8, ACCESS_BYTE),
		.sleep_status = io_address(PORT_GED + GED_SLEEP_STATUS, 8, ACCESS_BYTE),
	};
}

/* PNP0C0C, the power button that the event device tells of. */
static void dsdt_power_button(struct aml *a)
{
	size_t dev = aml_device(a, "PWRB");

	aml_name_eisaid(a, "_HID", "PNP0C0C");
	aml_name_int(a, "_UID", 0);
	aml_end(a, dev);
}

/*
 * OperationRegion (EREG, SystemIO, PORT_GED, 4)  Field (EREG, DWordAcc, NoLock, WriteAsZeros) { EVNT, 32 }
 * Method (_EVT, 1) { Local0 = EVNT  If (Local0 & GED_EVENT_POWER_BUTTON) { Notify (PWRB, 0x80) }
 *	If (Local0 & GED_EVENT_VMGENID) { Notify (VGEN, 0x80) } }, the last where there is one
 */
static void dsdt_events(struct aml *a, const struct acpi_config *c)
{
	static const u8 region[] = {
		0x5B, 0x80, 'E', 'R', 'E', 'G', 0x01, 0x0B, PORT_GED & 0xFF, PORT_GED >> 8, 0x0A, 4,
		0x5B, 0x81, 0x0B, 'E', 'R', 'E', 'G', 0x43, 'E', 'V', 'N', 'T', 0x20,
	};
	static const u8 body[] = {
		0x70, 'E', 'V', 'N', 'T', 0x60,
		0xA0, 0x0D, 0x7B, 0x60, 0x0A, GED_EVENT_POWER_BUTTON, 0x00,
		0x86, 'P', 'W', 'R', 'B', 0x0A, 0x80,
		0xA0, 0x0D, 0x7B, 0x60, 0x0A, GED_EVENT_VMGENID, 0x00,
		0x86, 'V', 'G', 'E', 'N', 0x0A, 0x80,
	};
	size_t size = sizeof(body) - (c->options->vmgenid.there ? 0 : 14);
	size_t dev = aml_device(a, "GED_"), crs;

	aml_name_string(a, "_HID", "ACPI0013");
	aml_name_int(a, "_UID", 0);
	crs = aml_crs(a);
	aml_crs_interrupt(a, IRQ_GED);
	aml_crs_end(a, crs);
	aml_raw(a, region, sizeof(region));
	aml_method(a, "_EVT", 1, body, size);
	aml_end(a, dev);
}

/* What nobody may hand out to others. */
static void dsdt_reserved(struct aml *a, const struct acpi_config *c)
{
	size_t dev = aml_device(a, "MBRD"), crs;

	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 1);
	crs = aml_crs(a);
	aml_crs_io(a, PORT_GED, GED_SIZE);
	if (c->ecam_size)
		aml_crs_mem32(a, c->ecam, c->ecam_size);
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

static void microvm_dsdt(struct aml *a, const struct acpi_config *c)
{
	static const u8 s5[] = { GED_SLP_TYP_S5, 0, 0, 0 };
	size_t scope, pci;

	aml_name_package(a, "_S5_", s5, sizeof(s5));
	scope = aml_scope(a, "_SB_");
	dsdt_cpus(a, c);
	dsdt_reserved(a, c);
	dsdt_legacy(a, "COM1");
	if (c->options->rtc)
		dsdt_legacy(a, "RTC_");
	dsdt_pvpanic(a);
	dsdt_power_button(a);
	dsdt_vmgenid(a, c);
	dsdt_events(a, c);
	if (c->options->pcie) {
		pci = dsdt_pci_begin(a, c);
		dsdt_prt(a, "_PRT", false);
		aml_end(a, pci);
	}
	aml_end(a, scope);
}

const struct acpi_board acpi_board_microvm = {
	.fadt = microvm_fadt, .dsdt = microvm_dsdt,
	.reset_port = PORT_GED + GED_RESET, .reset_value = GED_RESET_VALUE };

void microvm_acpi_config(struct acpi_config *c, const struct machine_options *o,
			 const struct guest_memory *mem, const struct cpu_topology *cpus)
{
	pc_acpi_config(c, NULL, o, mem, cpus);
	c->board = &acpi_board_microvm;
	if (!o->pcie)
		c->ecam_size = 0;
}
