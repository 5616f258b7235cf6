/* PCI configuration mechanism 1. */
#ifndef QUMRA_VMM_HW_PCI_CONFIG_H
#define QUMRA_VMM_HW_PCI_CONFIG_H

#include "vmm/machine/io_map.h"
#include "vmm/migration/state.h"

struct pci_config {
	u32 address;
};

struct pci_config_state {
	u32 address;
};

extern const struct io_ops pci_config_io_ops;
extern const struct device_ops pci_config_device_ops;

void pci_config_init(struct pci_config *p);

#endif
