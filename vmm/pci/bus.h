/*
 * PCI buses and the host side of them: who answers a configuration access, where interrupt pins
 * end, and what MSIs are made of. Devices need vmm/pci/pci.h only.
 */
#ifndef QUMRA_VMM_PCI_BUS_H
#define QUMRA_VMM_PCI_BUS_H

#include "vmm/pci/pci.h"

struct pci_bus {
	struct pci_host *host;
	struct pci_device *bridge;	/* NULL: the root bus, number 0 */
	struct pci_device *device[256];	/* by devfn */
};

/* The way to the interrupt controllers. */
struct pci_msi_ops {
	void (*send)(void *arg, u64 address, u32 data);
	/* Joins an eventfd to a message; returns a route for disconnect, or -errno. */
	int (*connect)(void *arg, int fd, u64 address, u32 data);
	void (*disconnect)(void *arg, int fd, int route);
};

#define PCI_PIRQS 8

struct pci_host {
	struct pci_bus root;
	struct io_map *pio, *mmio;
	const struct pci_msi_ops *msi;
	void *msi_arg;
	/* Chipset: the level of PIRQ A (0) to H (7). */
	void (*set_pirq)(void *arg, unsigned pirq, bool level);
	void *pirq_arg;
	unsigned pirq_count[PCI_PIRQS];	/* functions that hold it up */
	u32 address;			/* of configuration mechanism 1 */
	u64 ecam;			/* where ECAM is decoded, or PCI_UNMAPPED */
	u64 ecam_size;
};

void pci_host_init(struct pci_host *h, struct io_map *pio, struct io_map *mmio);
void pci_bus_init(struct pci_bus *bus, struct pci_host *host, struct pci_device *bridge);
/* NULL when there is none. */
struct pci_device *pci_find(struct pci_host *h, unsigned bus, unsigned devfn);
/* The number that the guest gave the bus. */
unsigned pci_bus_number(const struct pci_bus *bus);
/* Which of PIRQ A to H a function's pin (1 to 4) ends at. */
unsigned pci_pirq(const struct pci_device *d, unsigned pin);
/* The same for a slot and pin (0 to 3) of the root bus. */
unsigned pci_root_pirq(unsigned slot, unsigned pin);
/* Decoding may have changed anywhere: maps and unmaps BARs. */
void pci_remap(struct pci_host *h);
/* Everything on a bus and below, as a bridge's secondary bus reset does. */
void pci_bus_reset(struct pci_bus *bus);
/* Moves ECAM; PCI_UNMAPPED turns it off. */
void pci_set_ecam(struct pci_host *h, u64 base, u64 size);

/* Configuration mechanism 1: eight ports from 0xCF8. dev is the struct pci_host. */
extern const struct io_ops pci_ports_ops;
extern const struct device_ops pci_host_device_ops;

/* Between the files of vmm/pci/. */
bool pci_bridge_forwards(const struct pci_device *bridge, const struct pci_bar *bar, u64 base);
void pci_msix_update(struct pci_device *d);
void pci_msix_reset(struct pci_device *d);
void pci_msix_release(struct pci_device *d);
void pci_update_intx(struct pci_device *d);
void pci_map_bar(struct pci_host *h, struct pci_bar *bar, u64 base);
u64 pci_bar_wanted(const struct pci_bar *bar);

#endif
