/* What firmware is to start from, in which order: fw_cfg's file "bootorder". */
#ifndef QUMRA_VMM_FIRMWARE_BOOT_ORDER_H
#define QUMRA_VMM_FIRMWARE_BOOT_ORDER_H

#include "lib/types.h"

#define BOOT_ORDER_MAX	16
#define BOOT_PATH_MAX	80
#define BOOT_TEXT_MAX	(BOOT_ORDER_MAX * BOOT_PATH_MAX)

struct boot_order {
	unsigned n;
	struct boot_entry_path {
		unsigned rank;		/* the lowest goes first */
		char path[BOOT_PATH_MAX];
	} entry[BOOT_ORDER_MAX];
};

struct pci_device;

/*
 * A function of the root bus, or behind one of its ports, in OpenFirmware's way of naming (IEEE 1275, PCI
 * bus binding 2.2): kind is what it is, such as "scsi"; below, what is behind it, such as "disk@0,0".
 * Beyond BOOT_ORDER_MAX nothing is added.
 */
void boot_order_add(struct boot_order *o, unsigned rank, const char *kind, const struct pci_device *d,
		    const char *below);
/* The file with its final NUL; first (or NULL) goes before all. Returns its size; 0: it is empty. */
size_t boot_order_text(const struct boot_order *o, const char *first, char text[BOOT_TEXT_MAX]);

#endif
