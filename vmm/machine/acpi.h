/* ACPI tables and the MP table of the machine, written into guest memory. */
#ifndef QUMRA_VMM_MACHINE_ACPI_H
#define QUMRA_VMM_MACHINE_ACPI_H

#include "lib/error.h"
#include "vmm/cpus/topology.h"
#include "vmm/machine/options.h"
#include "vmm/memory/guest_memory.h"

/* Both areas are reserved in the memory map. */
#define ACPI_AREA	0xE0000
#define ACPI_AREA_SIZE	0x10000
#define VMGENID_PAGE	(ACPI_AREA + ACPI_AREA_SIZE - 0x3000)	/* the tables end there */
#define MP_AREA		0xF0000
#define MP_AREA_SIZE	0x10000
#define RESET_VECTOR	0xFFFF0	/* in the MP table's area, far behind it */

#define APIC_DEFAULT_BASE	0xFEE00000
#define IOAPIC_DEFAULT_BASE	0xFEC00000

struct acpi_board;

/* What the tables depend on. */
struct acpi_config {
	const struct acpi_board *board;
	const struct machine_options *options;
	const struct cpu_topology *cpus;
	u32 vmgenid_page;		/* 0: firmware places it */
	u64 ram_low;			/* RAM below 4 GiB, for NUMA */
	u64 ecam, ecam_size;	/* size 0: there is none */
	u64 pci32;		/* BARs may lie from here to the IOAPIC, */
	u64 pci64;		/* and from here to the end of guest physical space */
};

struct acpi_rsdp {
	char signature[8];
	u8 checksum;
	char oem[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 extended_checksum;
	u8 reserved[3];
} __attribute__((packed));
_Static_assert(sizeof(struct acpi_rsdp) == 36, "ACPI 6.4 table 5.3");

#define ACPI_POINTERS_MAX 64
#define ACPI_CHECKSUM	9	/* offset of a table's checksum */

/*
 * Tables before it is known where they lie: a pointer holds the offset of what it points to, and no
 * checksum is there yet. Either the caller puts them somewhere, or firmware does.
 */
struct acpi_tables {
	u8 *base;
	u32 size, used;
	u32 rsdt, xsdt;	/* offsets */
	u32 vmgenid;	/* of the doubleword that is to hold its page's address; 0: there is none */
	struct acpi_pointer { u32 at; u8 size; } pointer[ACPI_POINTERS_MAX];
	unsigned pointers;
	struct acpi_sum { u32 start, length; } sum[ACPI_POINTERS_MAX];
	unsigned sums;
	u32 list[16];
	unsigned count;
};

struct aml;

/* base and size filled in, the rest zero. 0 or -ENOMEM. */
int acpi_build(struct acpi_tables *t, const struct acpi_config *c);
void acpi_rsdp(struct acpi_rsdp *rsdp, u32 rsdt, u64 xsdt);
void dsdt_build(struct aml *a, const struct acpi_config *c);
/* The RSDP lies at ACPI_AREA. 0, or -ENOMEM when guest memory has no such addresses. */
int acpi_write_tables(const struct guest_memory *mem, const struct acpi_config *c);
int mp_write_table(const struct guest_memory *mem, const struct cpu_topology *cpus);

/* What makes all bytes of an area sum up to zero. */
u8 firmware_checksum(const void *data, size_t n);

#endif
