/* The I/O buses: which in-kernel device answers at a port or a physical address. */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"

int bus_register(struct vm *vm, enum bus_kind kind, u64 addr, u64 len, struct io_device *dev)
{
	struct io_bus *bus = &vm->bus[kind];
	u32 i;

	for (i = 0; i < bus->n; i++)
		if (addr < bus->range[i].addr + bus->range[i].len &&
			bus->range[i].addr < addr + len)
			return -EEXIST;
	if (bus->n == MAX_IO_RANGES)
		return -ENOSPC;
	bus->range[bus->n++] = (struct io_range){ .addr = addr, .len = len, .dev = dev };
	return 0;
}

void bus_unregister(struct vm *vm, enum bus_kind kind, struct io_device *dev)
{
	struct io_bus *bus = &vm->bus[kind];
	u32 i, kept = 0;

	for (i = 0; i < bus->n; i++)
		if (bus->range[i].dev != dev)
			bus->range[kept++] = bus->range[i];
	bus->n = kept;
}

/* The device in whose range the whole access lies. */
static struct io_device *bus_find(const struct io_bus *bus, u64 addr, unsigned int len)
{
	u32 i;

	for (i = 0; i < bus->n; i++) {
		const struct io_range *r = &bus->range[i];

		if (addr >= r->addr && addr - r->addr < r->len && len <= r->len - (addr - r->addr))
			return r->dev;
	}
	return NULL;
}

int bus_read(struct vcpu *v, enum bus_kind kind, u64 addr, unsigned int len, void *data)
{
	struct io_device *d = bus_find(&v->vm->bus[kind], addr, len);

	return d ? d->ops->read(v, d, addr, len, data) : -EOPNOTSUPP;
}

int bus_write(struct vcpu *v, enum bus_kind kind, u64 addr, unsigned int len, const void *data)
{
	struct io_device *d = bus_find(&v->vm->bus[kind], addr, len);

	return d ? d->ops->write(v, d, addr, len, data) : -EOPNOTSUPP;
}
