/*
 * How a guest learns of virtio-mmio windows: an SSDT (ACPI 6.4, 5.2.11.2) with a device LNRO0005 for
 * each, which Linux's virtio_mmio binds to. The table goes into the upper part of the ACPI area, with
 * longer copies of the root tables that list it.
 */
#include <errno.h>
#include <string.h>

#include "vmm/machine/acpi.h"
#include "vmm/machine/aml.h"
#include "vmm/virtio/mmio.h"

#define SSDT_AREA	(ACPI_AREA + ACPI_AREA_SIZE - 0x2000)
#define SSDT_AREA_SIZE	0x1000
#define ROOT_AREA	(SSDT_AREA + SSDT_AREA_SIZE)
#define ROOT_SIZE_MAX	0x200

#define HEADER_SIZE	36	/* ACPI 6.4 table 5.4 */
#define HEADER_LENGTH	4
#define HEADER_REVISION	8
#define HEADER_CHECKSUM	9
#define RSDP_SIZE	sizeof(struct acpi_rsdp)
#define RSDP_RSDT	16
#define RSDP_XSDT	24
#define RSDP_CHECKSUM	8
#define RSDP_CHECKSUM2	32
#define RSDP_SIZE1	20	/* what the first checksum covers */

static u32 get32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static void put32(u8 *p, u32 v)
{
	memcpy(p, &v, 4);
}

static void table_seal(u8 *table, u32 length)
{
	put32(table + HEADER_LENGTH, length);
	table[HEADER_CHECKSUM] = 0;
	table[HEADER_CHECKSUM] = firmware_checksum(table, length);
}

static void ssdt_device(struct aml *a, unsigned index)
{
	char name[5] = { 'V', 'M', '0' + index / 10, '0' + index % 10 };
	size_t dev = aml_device(a, name), crs;

	aml_name_string(a, "_HID", "LNRO0005");
	aml_name_int(a, "_UID", index);
	aml_name_int(a, "_CCA", 1);
	aml_name_int(a, "_STA", 0x0F);
	crs = aml_crs(a);
	aml_crs_mem32(a, VIRTIO_MMIO_BASE + index * VIRTIO_MMIO_STRIDE, VIRTIO_MMIO_SIZE);
	aml_crs_interrupt_shared(a, virtio_mmio_gsi(index));
	aml_crs_end(a, crs);
	aml_end(a, dev);
}

/* header: of a table of ours, for who made it. */
static int ssdt_write(u8 *table, const u8 *header, unsigned n)
{
	struct aml a = { .buf = table + HEADER_SIZE, .size = SSDT_AREA_SIZE - HEADER_SIZE };
	size_t scope = aml_scope(&a, "_SB_");

	for (unsigned i = 0; i < n; i++)
		ssdt_device(&a, i);
	aml_end(&a, scope);
	if (a.overrun)
		return -ENOMEM;
	memcpy(table, header, HEADER_SIZE);
	memcpy(table, "SSDT", 4);
	table[HEADER_REVISION] = 2;
	table_seal(table, HEADER_SIZE + a.len);
	return 0;
}

/* A copy of the root table at from, with one more entry of width bytes; 0: it does not fit. */
static u32 root_copy(const struct guest_memory *mem, u32 from, u32 to, unsigned width)
{
	const u8 *old = guest_memory_at(mem, from, HEADER_SIZE);
	u32 length = old ? get32(old + HEADER_LENGTH) : 0;
	u8 *copy = guest_memory_at(mem, to, ROOT_SIZE_MAX);

	if (length < HEADER_SIZE || length + width > ROOT_SIZE_MAX || !copy ||
	    !guest_memory_at(mem, from, length))
		return 0;
	memcpy(copy, old, length);
	memset(copy + length, 0, width);
	put32(copy + length, SSDT_AREA);
	table_seal(copy, length + width);
	return to;
}

int virtio_mmio_write_acpi(const struct guest_memory *mem, unsigned n)
{
	u8 *rsdp = guest_memory_at(mem, ACPI_AREA, RSDP_SIZE);
	u8 *ssdt = guest_memory_at(mem, SSDT_AREA, SSDT_AREA_SIZE);
	const u8 *header;
	u32 rsdt, xsdt;

	if (!n)
		return 0;
	if (!rsdp || !ssdt)
		return -ENOMEM;
	rsdt = root_copy(mem, get32(rsdp + RSDP_RSDT), ROOT_AREA, 4);
	xsdt = root_copy(mem, get32(rsdp + RSDP_XSDT), ROOT_AREA + ROOT_SIZE_MAX, 8);
	header = guest_memory_at(mem, rsdt, HEADER_SIZE);
	if (!rsdt || !xsdt || !header || ssdt_write(ssdt, header, n) < 0)
		return -ENOMEM;
	put32(rsdp + RSDP_RSDT, rsdt);
	put32(rsdp + RSDP_XSDT, xsdt);
	rsdp[RSDP_CHECKSUM] = rsdp[RSDP_CHECKSUM2] = 0;
	rsdp[RSDP_CHECKSUM] = firmware_checksum(rsdp, RSDP_SIZE1);
	rsdp[RSDP_CHECKSUM2] = firmware_checksum(rsdp, RSDP_SIZE);
	return 0;
}
