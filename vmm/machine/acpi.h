/* ACPI tables and the MP table of the machine, written into guest memory. */
#ifndef QUMRA_VMM_MACHINE_ACPI_H
#define QUMRA_VMM_MACHINE_ACPI_H

#include "lib/error.h"
#include "vmm/cpus/topology.h"
#include "vmm/memory/guest_memory.h"

/* Both areas are reserved in the memory map. */
#define ACPI_AREA	0xE0000
#define ACPI_AREA_SIZE	0x10000
#define MP_AREA		0xF0000
#define MP_AREA_SIZE	0x10000

#define APIC_DEFAULT_BASE	0xFEE00000
#define IOAPIC_DEFAULT_BASE	0xFEC00000

/* The RSDP lies at ACPI_AREA. 0, or -ENOMEM when guest memory has no such addresses. */
int acpi_write_tables(const struct guest_memory *mem, const struct cpu_topology *cpus);
int mp_write_table(const struct guest_memory *mem, const struct cpu_topology *cpus);

/* What makes all bytes of an area sum up to zero. */
u8 firmware_checksum(const void *data, size_t n);

#endif
