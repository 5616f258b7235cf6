/* QEMU's isa-debug-exit: a write of v ends the process with status (v << 1) | 1. */
#include "vmm/hw/debug_exit.h"

static u64 debug_exit_read(void *dev, u64 offset, unsigned size)
{
	(void)dev;
	(void)offset;
	(void)size;
	return 0;
}

static void debug_exit_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct debug_exit *d = dev;

	(void)offset;
	(void)size;
	d->events.request(d->events.arg, MACHINE_EXIT, (int)((value << 1 | 1) & 0xFF));
}

const struct io_ops debug_exit_io_ops = {
	.read = debug_exit_read, .write = debug_exit_write, .width = 4};
