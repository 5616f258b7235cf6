/*
 * The VM generation ID in the DSDT. Systems know it by its _CID: that of Microsoft's paper, the same in
 * ACPI's letters, as Linux compares it, and a shorter one.
 */
#include "vmm/hw/acpi_pm.h"
#include "vmm/hw/vmgenid.h"
#include "vmm/machine/dsdt.h"

/* 0x80: the number is another one. */
#define NOTIFY_CHANGED	0x80

static void vmgenid_cid(struct aml *a)
{
	static const u8 names[] =
		"\x0DVM_Gen_Counter\0" "\x0DVM_GEN_COUNTER\0" "\x0DVMGENCTR";
	size_t package = aml_name_begin_package(a, "_CID", 3);

	aml_raw(a, names, sizeof(names));
	aml_end(a, package);
}

/* Name (VGIA, DWORD): where the page is. Always four bytes, which firmware replaces. */
static void vmgenid_address(struct aml *a, u32 page)
{
	const u8 name[] = { 0x08, 'V', 'G', 'I', 'A', 0x0C, page, page >> 8, page >> 16, page >> 24 };

	aml_raw(a, name, sizeof(name));
	a->vmgenid = a->len - 4;
}

void dsdt_vmgenid(struct aml *a, const struct acpi_config *c)
{
	/* If (VGIA == 0) { Return (0) }  Return (0x0F) */
	static const u8 sta[] = {
		0xA0, 0x09, 0x93, 'V', 'G', 'I', 'A', 0x00, 0xA4, 0x00, 0xA4, 0x0A, 0x0F,
	};
	/* Local0 = Package (2) {}  Local0[0] = VGIA + VMGENID_OFFSET  Local0[1] = 0  Return (Local0) */
	static const u8 addr[] = {
		0x70, 0x12, 0x02, 0x02, 0x60,
		0x72, 'V', 'G', 'I', 'A', 0x0A, VMGENID_OFFSET, 0x88, 0x60, 0x00, 0x00,
		0x70, 0x00, 0x88, 0x60, 0x01, 0x00,
		0xA4, 0x60,
	};
	size_t dev;

	if (!c->options || !c->options->vmgenid.there)
		return;
	dev = aml_device(a, "VGEN");
	aml_name_string(a, "_HID", "QMRA0001");
	vmgenid_cid(a);
	aml_name_string(a, "_DDN", "VM_Gen_Counter");
	vmgenid_address(a, c->vmgenid_page);
	aml_method(a, "_STA", 0, sta, sizeof(sta));
	aml_method(a, "ADDR", AML_SERIALIZED, addr, sizeof(addr));
	aml_end(a, dev);
}

/* Scope (\_GPE) { Method (_E05, 0) { Notify (\_SB.VGEN, 0x80) } } */
void dsdt_vmgenid_event(struct aml *a, const struct acpi_config *c)
{
	static const u8 body[] = {
		0x86, '\\', 0x2E, '_', 'S', 'B', '_', 'V', 'G', 'E', 'N', 0x0A, NOTIFY_CHANGED,
	};
	size_t scope;

	if (!c->options || !c->options->vmgenid.there)
		return;
	scope = aml_scope(a, "_GPE");
	_Static_assert(GPE_VMGENID == 5, "the method's name is of this number");
	aml_method(a, "_E05", 0, body, sizeof(body));
	aml_end(a, scope);
}
