/* pvpanic: the guest tells that its kernel panicked. */
#ifndef QUMRA_VMM_HW_PVPANIC_H
#define QUMRA_VMM_HW_PVPANIC_H

#include "vmm/machine/io_map.h"
#include "vmm/machine/request.h"

struct pvpanic {
	struct machine_events events;
};

extern const struct io_ops pvpanic_io_ops;

#endif
