/* A NOR flash memory: firmware's store of variables. */
#ifndef QUMRA_VMM_HW_PFLASH_H
#define QUMRA_VMM_HW_PFLASH_H

#include "lib/error.h"
#include "vmm/machine/io_map.h"
#include "vmm/migration/state.h"

#define PFLASH_BLOCK 4096

struct pflash {
	u8 *data;	/* size bytes, the owner's */
	u64 size;
	bool readonly;
	/* Whether reads reach data directly, without coming here. */
	void (*set_direct)(void *arg, bool direct);
	void *arg;

	u8 command;	/* read array, or what reads show and the next write completes */
	u8 cycle;	/* writes still to come for the command */
	u8 status;
	u64 block;	/* where a buffered write goes */
	u16 count;	/* of its bytes to come */
	u64 dirty_start, dirty_end;	/* what was changed; the owner sets both to 0 */
};

extern const struct io_ops pflash_io_ops;
extern const struct device_ops pflash_device_ops;

/* size: whole blocks. */
void pflash_init(struct pflash *f, u8 *data, u64 size, bool readonly,
		 void (*set_direct)(void *arg, bool direct), void *arg);

#endif
