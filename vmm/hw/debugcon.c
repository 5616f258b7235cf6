/*
 * The debug console of Bochs (port 0xE9) and of SeaBIOS and OVMF under QEMU (port 0x402): reading
 * it gives 0xE9, which is how guests find it. It has no state that a guest could see.
 */
#include <poll.h>
#include <unistd.h>

#include "vmm/hw/debugcon.h"

#define DEBUGCON_PRESENT 0xE9

void debugcon_flush(struct debugcon *d)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;

	/* A guest must not be able to stop us by filling a pipe that nobody reads. */
	if (d->len && poll(&p, 1, 0) == 1 && p.revents & POLLOUT) {
		n = write(STDERR_FILENO, d->line, d->len);
		(void)n;
	}
	d->len = 0;
}

static void debugcon_write(void *dev, u64 offset, u64 value, unsigned size)
{
	struct debugcon *d = dev;

	(void)offset;
	(void)size;
	if (value == '\n' && isatty(STDERR_FILENO))
		d->line[d->len++] = '\r';
	d->line[d->len++] = value;
	if (value == '\n' || d->len >= sizeof(d->line) - 2)
		debugcon_flush(d);
}

static u64 debugcon_read(void *dev, u64 offset, unsigned size)
{
	(void)dev;
	(void)offset;
	(void)size;
	return DEBUGCON_PRESENT;
}

const struct io_ops debugcon_io_ops = {.read = debugcon_read, .write = debugcon_write, .width = 1};
