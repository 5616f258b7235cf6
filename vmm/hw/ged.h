/* ACPI's generic event device with sleep and reset registers: a machine without fixed hardware. */
#ifndef QUMRA_VMM_HW_GED_H
#define QUMRA_VMM_HW_GED_H

#include "vmm/machine/io_map.h"
#include "vmm/machine/irq_line.h"
#include "vmm/machine/request.h"
#include "vmm/migration/state.h"

/* Offsets in the block of ports, which FADT and DSDT repeat. */
#define GED_EVENTS		0	/* u32: what happened; reading clears */
#define GED_SLEEP_CONTROL	4
#define GED_SLEEP_STATUS	5
#define GED_RESET		6
#define GED_SIZE		7

#define GED_EVENT_POWER_BUTTON	0x01
#define GED_EVENT_VMGENID	0x02
#define GED_RESET_VALUE		0x42
#define GED_SLP_TYP_S5		5	/* SLP_TYP of the DSDT's \_S5 package */

struct ged {
	struct irq_line irq;
	struct machine_events events;
	u32 pending;
	u8 control;
};

struct ged_state {
	u32 pending;
	u8 control;
};

extern const struct io_ops ged_io_ops;
extern const struct device_ops ged_device_ops;

void ged_init(struct ged *g, const struct irq_line *irq, const struct machine_events *events);
void ged_power_button(struct ged *g);
/* Another VM generation ID. */
void ged_vmgenid(struct ged *g);

#endif
