/* Who has which of the hypervisor's memory slots. */
#ifndef QUMRA_VMM_MEMORY_SLOTS_H
#define QUMRA_VMM_MEMORY_SLOTS_H

enum {
	SLOT_RAM = 0,		/* guest_memory.c's regions */
	SLOT_SHADOW = 8,	/* 13 segments: shadow.c */
	SLOT_ROM = 24,
	SLOT_FLASH = 25,
	SLOT_DEVICES = 32,	/* from here on: memory of PCI devices */
};

#endif
