/* The q35 chipset's memory controller hub, function 00:00.0: ECAM and the shadow of firmware. */
#ifndef QUMRA_VMM_PCI_MCH_H
#define QUMRA_VMM_PCI_MCH_H

#include "vmm/pci/bus.h"

#define MCH_PAM		0x90	/* seven registers */
#define MCH_PAMS	7
#define MCH_PCIEXBAR	0x60
#define ECAM_BASE	0xB0000000ULL	/* where firmware for q35 puts it, and 256 buses from there */
#define ECAM_SIZE	0x10000000ULL

struct mch {
	struct pci_device pci;
	struct pci_host *host;
	/* The seven PAM registers changed (or may have); NULL: nobody shadows. */
	void (*set_pam)(void *arg, const u8 pam[MCH_PAMS]);
	void *arg;
};

void mch_init(struct mch *mch, struct pci_host *host,
	      void (*set_pam)(void *arg, const u8 pam[MCH_PAMS]), void *arg);

#endif
