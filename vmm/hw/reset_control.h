/* The chipset's reset control register and system control port A. */
#ifndef QUMRA_VMM_HW_RESET_CONTROL_H
#define QUMRA_VMM_HW_RESET_CONTROL_H

#include "vmm/machine/io_map.h"
#include "vmm/machine/request.h"
#include "vmm/migration/state.h"

struct reset_control {
	struct machine_events events;
	u8 control;	/* port 0xCF9 */
	u8 port_a;	/* port 0x92 */
};

struct reset_control_state {
	u8 control, port_a;
};

extern const struct io_ops reset_control_io_ops, reset_port_a_io_ops;
extern const struct device_ops reset_control_device_ops;

void reset_control_init(struct reset_control *r, const struct machine_events *events);

#endif
