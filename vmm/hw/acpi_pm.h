/* ACPI fixed hardware: PM1 event and control blocks, PM timer. */
#ifndef QUMRA_VMM_HW_ACPI_PM_H
#define QUMRA_VMM_HW_ACPI_PM_H

#include "vmm/loop/timer.h"
#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/migration/state.h"

/* Offsets in the block, which the FADT repeats. */
#define ACPI_PM1_EVT	0	/* status u16, enable u16 */
#define ACPI_PM1_CNT	4	/* u16 */
#define ACPI_PM_TMR	8	/* u32 */
#define ACPI_PM_SIZE	12
#define ACPI_GPE0	0x20	/* ICH9's place: status u64, enable u64 */
#define ACPI_GPE0_SIZE	16
#define GPE_VMGENID	5	/* events: their methods are in the DSDT */
/*
 * SLP_TYP of the DSDT's \_S5 package. SeaBIOS and OVMF turn off with type 0, which on this board
 * means the same.
 */
#define ACPI_SLP_TYP_S5	5
#define ACPI_SLP_TYP_OFF 0

struct acpi_pm {
	struct irq_line sci;
	struct timer overflow;
	void (*power_off)(void *arg);
	void *arg;

	u16 status, enable, control;
	u64 gpe_status, gpe_enable;
	u64 timer_seen;	/* PM timer, all bits, up to which TMR_STS is accounted for */
};

struct acpi_pm_state {
	u16 status, enable, control;
	u64 gpe_status, gpe_enable;
};

extern const struct io_ops acpi_pm_io_ops;
extern const struct device_ops acpi_pm_device_ops;

void acpi_pm_init(struct acpi_pm *pm, struct timer_queue *timers, const struct irq_line *sci,
		  void (*power_off)(void *arg), void *arg);
void acpi_pm_power_button(struct acpi_pm *pm);
/* A general-purpose event happened: one of GPE_*. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned event);

#endif
