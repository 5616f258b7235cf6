/* Parts of a DSDT that boards share. */
#ifndef QUMRA_VMM_MACHINE_DSDT_H
#define QUMRA_VMM_MACHINE_DSDT_H

#include "vmm/machine/acpi.h"
#include "vmm/machine/aml.h"

void dsdt_cpus(struct aml *a, const struct acpi_config *c);
/* A device at a PC's fixed place, by its name in the namespace, such as "COM1". */
void dsdt_legacy(struct aml *a, const char *name);
void dsdt_pvpanic(struct aml *a);
/* PCI0, open: its interrupts follow, and aml_end(). */
size_t dsdt_pci_begin(struct aml *a, const struct acpi_config *c);
/* Each slot's four pins: which PIRQ, so which pin of the IOAPIC, or (links) which link device. */
void dsdt_prt(struct aml *a, const char *name, bool links);

/* dsdt_vmgenid.c: its device, if there is one, in \_SB; the event of fixed hardware, in the root. */
void dsdt_vmgenid(struct aml *a, const struct acpi_config *c);
void dsdt_vmgenid_event(struct aml *a, const struct acpi_config *c);

/* dsdt_links.c. In the root; in the LPC bridge; behind that, in PCI0. */
void dsdt_interrupt_model(struct aml *a);
void dsdt_links(struct aml *a);
void dsdt_prt_by_model(struct aml *a);
void dsdt_link_name(struct aml *a, unsigned pirq);

#endif
