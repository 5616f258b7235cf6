/* Debug console: bytes written to a port appear on our standard error. */
#ifndef QUMRA_VMM_HW_DEBUGCON_H
#define QUMRA_VMM_HW_DEBUGCON_H

#include "vmm/machine/io_map.h"

struct debugcon {
	char line[256];
	unsigned len;
};

extern const struct io_ops debugcon_io_ops;

/* Writes out an unfinished line. */
void debugcon_flush(struct debugcon *d);

#endif
