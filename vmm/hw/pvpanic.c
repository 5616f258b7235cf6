/* The pvpanic device of QEMU's docs/specs/pvpanic: one port of event bits, read to learn which
 * exist. */
#include "vmm/hw/pvpanic.h"

#define PVPANIC_PANICKED	BIT(0)
#define PVPANIC_CRASH_LOADED	BIT(1)	/* a crash kernel takes over: not the end yet */

static u64 pvpanic_read(void *dev, u64 offset, unsigned size)
{
	(void)dev;
	(void)offset;
	(void)size;
	return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void pvpanic_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct pvpanic *p = dev;

	(void)offset;
	(void)size;
	if (value & PVPANIC_PANICKED)
		p->events.request(p->events.arg, MACHINE_PANIC, 0);
}

const struct io_ops pvpanic_io_ops = { .read = pvpanic_read, .write = pvpanic_write, .width = 1 };
