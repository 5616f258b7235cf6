/*
 * 0xC0000 to 0xFFFFF, where option ROMs and the BIOS lie: for each segment the chipset's PAM
 * registers say whether reads and writes reach RAM, or the flash memory (reads above 0xE0000) and
 * nothing. Only a machine with firmware has it; else all of it is RAM.
 */
#ifndef QUMRA_VMM_MEMORY_SHADOW_H
#define QUMRA_VMM_MEMORY_SHADOW_H

#include "vmm/kvm/kvm.h"
#include "vmm/machine/io_map.h"
#include "vmm/memory/guest_memory.h"
#include "vmm/pci/mch.h"

#define SHADOW_START	0xC0000ULL
#define SHADOW_ROM	0xE0000ULL	/* the end of the flash memory shows from here on */
#define SHADOW_END	0x100000ULL
#define SHADOW_SEGMENTS	13

struct shadow {
	const struct kvm *kvm;
	u8 *ram;		/* at SHADOW_START */
	const u8 *rom;		/* at SHADOW_ROM: 128 KiB */
	u8 access[SHADOW_SEGMENTS];	/* bit 0: reads, bit 1: writes go to RAM */
};

/* Guest memory has a region at SHADOW_START, and was registered without that part. */
int shadow_init(struct shadow *s, const struct kvm *kvm, const struct guest_memory *mem,
		const u8 *rom, struct error *err);
/* As struct mch's; arg is the shadow. */
void shadow_set_pam(void *arg, const u8 pam[MCH_PAMS]);

/* What the hypervisor does not serve, from SHADOW_START on. */
extern const struct io_ops shadow_io_ops;

#endif
