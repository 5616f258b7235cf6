/* isa-debug-exit: a guest under test ends the VMM with a status. */
#ifndef QUMRA_VMM_HW_DEBUG_EXIT_H
#define QUMRA_VMM_HW_DEBUG_EXIT_H

#include "vmm/machine/io_map.h"
#include "vmm/machine/request.h"

struct debug_exit {
	struct machine_events events;
};

extern const struct io_ops debug_exit_io_ops;

#endif
