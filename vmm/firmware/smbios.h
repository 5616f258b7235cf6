/* SMBIOS structures, as firmware takes them from the VMM. */
#ifndef QUMRA_VMM_FIRMWARE_SMBIOS_H
#define QUMRA_VMM_FIRMWARE_SMBIOS_H

#include "lib/types.h"
#include "vmm/cpus/topology.h"
#include "vmm/memory/guest_memory.h"

/* SMBIOS 3.6, 5.2.1. */
struct smbios_anchor {
	char anchor[4];
	u8 checksum, length, major, minor;
	u16 max_size;
	u8 revision, formatted[5];
	char dmi[5];
	u8 dmi_checksum;
	u16 table_length;
	u32 table;	/* firmware fills it in */
	u16 count;
	u8 bcd;
} __attribute__((packed));
_Static_assert(sizeof(struct smbios_anchor) == 31, "SMBIOS 3.6, 5.2.1");

#define SMBIOS_SIZE 4096

struct smbios {
	struct smbios_anchor anchor;
	u8 table[SMBIOS_SIZE];
	u32 used;
	u16 handle;
};

void smbios_build(struct smbios *s, const struct guest_memory *mem, const struct cpu_topology *cpus);

#endif
