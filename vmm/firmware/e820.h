/* The memory map that firmware would report (ACPI 6.4, chapter 15). */
#ifndef QUMRA_VMM_FIRMWARE_E820_H
#define QUMRA_VMM_FIRMWARE_E820_H

#include "vmm/memory/guest_memory.h"

enum { E820_USABLE = 1, E820_FIRMWARE = 2 };

#define E820_MAX 8

struct e820 {
	unsigned count;
	struct { u64 addr, size; u32 type; } entry[E820_MAX];
};

/* Where the extended BIOS data area would begin: the end of conventional memory. */
#define E820_EBDA	0x9FC00
/* Four pages that KVM on VT-x may need for itself: identity map and TSS. */
#define E820_KVM_PAGES		0xFEFFC000
#define E820_KVM_PAGES_SIZE	0x4000

void e820_build(struct e820 *map, const struct guest_memory *mem);

#endif
