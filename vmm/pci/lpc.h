/* The ICH9's LPC bridge, function 00:1f.0: power management block, interrupt routing. */
#ifndef QUMRA_VMM_PCI_LPC_H
#define QUMRA_VMM_PCI_LPC_H

#include "vmm/hw/acpi_pm.h"
#include "vmm/machine/irq_line.h"
#include "vmm/pci/bus.h"

#define PORT_APM	0xB2	/* APM_CNT, APM_STS */
#define PORT_PM_BASE	0x600	/* where firmware for q35 puts it, and the FADT says */
#define PM_BLOCK_SIZE	128
#define RCBA_BASE	0xFED1C000ULL
#define LPC_PIRQ_A	0x60	/* routing registers in configuration space: B to D follow, E at 0x68 */
#define PIRQ_GSI	16	/* PIRQ A; B to H follow */

struct lpc {
	struct pci_device pci;
	struct pci_host *host;
	struct acpi_pm *pm;
	struct irq_line isa[16];	/* what PIRQs are routed to */
	struct irq_line ioapic[PCI_PIRQS];
	bool pirq[PCI_PIRQS];
	u64 pm_base, rcba;	/* where they are decoded, or PCI_UNMAPPED */
	u8 apm_control, apm_status;
};

/* line: a template whose gsi is filled in. */
void lpc_init(struct lpc *lpc, struct pci_host *host, struct acpi_pm *pm,
	      const struct irq_line *line);
/* What firmware would write: everything at its usual place, PIRQs on IRQ 10 and 11. */
void lpc_play_firmware(struct lpc *lpc);

extern const struct io_ops lpc_apm_ops;
extern const struct device_ops lpc_device_ops;

#endif
