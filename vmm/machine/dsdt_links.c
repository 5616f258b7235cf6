/*
 * Interrupt links of the ICH9's PIRQ A to H (ACPI 6.4, 6.2.13; data sheet 13.1.17), for guests on
 * the i8259s, and the routing tables of PCI0 for either interrupt model. LPC's registers are the only state.
 */
#include "vmm/machine/dsdt.h"
#include "vmm/pci/lpc.h"

#define LEVEL_SHARED	0x09	/* of the extended interrupt descriptor: consumer, level, high, shared */

/*
 * OperationRegion (PIRQ, PCI_Config, 0x60, 12)
 * Field (PIRQ, ByteAcc, NoLock, Preserve) { PRQA, 8 … PRQD, 8, Offset (8), PRQE, 8 … PRQH, 8 }
 */
static void links_registers(struct aml *a)
{
	static const u8 terms[] = {
		0x5B, 0x80, 'P', 'I', 'R', 'Q', 0x02, 0x0A, LPC_PIRQ_A, 0x0A, 12,
		0x5B, 0x81, 0x30, 'P', 'I', 'R', 'Q', 0x01,
		'P', 'R', 'Q', 'A', 8, 'P', 'R', 'Q', 'B', 8, 'P', 'R', 'Q', 'C', 8, 'P', 'R', 'Q', 'D', 8,
		0x00, 32,
		'P', 'R', 'Q', 'E', 8, 'P', 'R', 'Q', 'F', 8, 'P', 'R', 'Q', 'G', 8, 'P', 'R', 'Q', 'H', 8,
	};

	aml_raw(a, terms, sizeof(terms));
}

/* Device (LNKx), x a letter: _STA, _DIS, _PRS, _CRS and _SRS over PRQx, bit 7 of which disables. */
static void link_device(struct aml *a, char x)
{
	const u8 name[] = { 'L', 'N', 'K', x, 0 };
	/* If (PRQx & 0x80) { Return (0x09) }  Return (0x0B) */
	const u8 status[] = {
		0xA0, 0x0C, 0x7B, 'P', 'R', 'Q', x, 0x0A, 0x80, 0x00, 0xA4, 0x0A, 0x09, 0xA4, 0x0A, 0x0B };
	/* PRQx |= 0x80 */
	const u8 disable[] = { 0x7D, 'P', 'R', 'Q', x, 0x0A, 0x80, 'P', 'R', 'Q', x };
	/* Name (_PRS, ResourceTemplate () { Interrupt (…) { 5, 10, 11 } }) */
	static const u8 possible[] = {
		0x08, '_', 'P', 'R', 'S', 0x11, 0x16, 0x0A, 19, 0x89, 14, 0, LEVEL_SHARED, 3,
		5, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0, 0x79, 0 };
	/*
	 * Name (PRR0, ResourceTemplate () { Interrupt (…) { 0 } })  CreateDWordField (PRR0, 5, PRRI)
	 * PRRI = PRQx & 0x0F  Return (PRR0)
	 */
	const u8 current[] = {
		0x08, 'P', 'R', 'R', '0', 0x11, 0x0E, 0x0A, 11, 0x89, 6, 0, LEVEL_SHARED, 1, 0, 0, 0, 0,
		0x79, 0, 0x8A, 'P', 'R', 'R', '0', 0x0A, 5, 'P', 'R', 'R', 'I',
		0x7B, 'P', 'R', 'Q', x, 0x0A, 0x0F, 'P', 'R', 'R', 'I', 0xA4, 'P', 'R', 'R', '0' };
	/* CreateDWordField (Arg0, 5, PRRI)  PRQx = PRRI */
	const u8 set[] = {
		0x8A, 0x68, 0x0A, 5, 'P', 'R', 'R', 'I', 0x70, 'P', 'R', 'R', 'I', 'P', 'R', 'Q', x };
	size_t dev = aml_device(a, (const char *)name);

	aml_name_eisaid(a, "_HID", "PNP0C0F");
	aml_name_int(a, "_UID", x - 'A');
	aml_method(a, "_STA", 0, status, sizeof(status));
	aml_method(a, "_DIS", AML_SERIALIZED, disable, sizeof(disable));
	aml_raw(a, possible, sizeof(possible));
	aml_method(a, "_CRS", AML_SERIALIZED, current, sizeof(current));
	aml_method(a, "_SRS", AML_SERIALIZED | 1, set, sizeof(set));
	aml_end(a, dev);
}

void dsdt_links(struct aml *a)
{
	links_registers(a);
	for (unsigned i = 0; i < PCI_PIRQS; i++)
		link_device(a, 'A' + i);
}

void dsdt_link_name(struct aml *a, unsigned pirq)
{
	const u8 name[] = { 0x2E, 'I', 'S', 'A', '_', 'L', 'N', 'K', 'A' + pirq };

	aml_raw(a, name, sizeof(name));
}

/* Name (PICM, 0)  Method (_PIC, 1) { PICM = Arg0 }: 0 is the i8259s, 1 the IOAPIC. */
void dsdt_interrupt_model(struct aml *a)
{
	static const u8 body[] = { 0x70, 0x68, 'P', 'I', 'C', 'M' };

	aml_name_int(a, "PICM", 0);
	aml_method(a, "_PIC", 1, body, sizeof(body));
}

void dsdt_prt_by_model(struct aml *a)
{
	/* If (PICM) { Return (PRTA) }  Return (PRTP) */
	static const u8 body[] = {
		0xA0, 0x0A, 'P', 'I', 'C', 'M', 0xA4, 'P', 'R', 'T', 'A', 0xA4, 'P', 'R', 'T', 'P' };

	dsdt_prt(a, "PRTA", false);
	dsdt_prt(a, "PRTP", true);
	aml_method(a, "_PRT", 0, body, sizeof(body));
}
