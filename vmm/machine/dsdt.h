/* Parts of a DSDT that boards share. */
#ifndef QUMRA_VMM_MACHINE_DSDT_H
#define QUMRA_VMM_MACHINE_DSDT_H

#include "vmm/machine/acpi.h"
#include "vmm/machine/aml.h"

void dsdt_cpus(struct aml *a, const struct acpi_config *c);
/* A device at a PC's fixed place, by its name in the namespace, such as "COM1". */
void dsdt_legacy(struct aml *a, const char *name);
void dsdt_pvpanic(struct aml *a);
/* PCI0, open: aml_end() goes with it. */
size_t dsdt_pci_begin(struct aml *a, const struct acpi_config *c);

#endif
