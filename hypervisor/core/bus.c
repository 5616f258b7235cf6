/*
 * The I/O buses: which in-kernel device answers at a port or a physical address.
 *
 * A bus is a table that never changes: vCPUs read it without a lock, and whoever replaces it stops
 * them first. Sorted by address; "reach" is the last address of any range up to this one, so a
 * search from the last range that begins early enough knows when to give up.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "lib/search.h"

struct io_bus {
	u32 n;
	struct io_range {
		u64 addr, last, reach;
		struct io_device *dev;
	} range[];
};

static struct io_bus *bus_alloc(u32 n)
{
	struct io_bus *bus = os_alloc(sizeof(*bus) + n * sizeof(bus->range[0]));

	if (bus)
		bus->n = n;
	return bus;
}

static void bus_replace(struct vm *vm, enum bus_kind kind, struct io_bus *bus)
{
	struct io_bus *old = vm->bus[kind];
	u32 i;

	for (i = 0; bus && i < bus->n; i++)
		bus->range[i].reach =
			MAX(bus->range[i].last, i ? bus->range[i - 1].reach : 0);
	vm_stop_vcpus(vm);
	vm->bus[kind] = bus;
	vm_start_vcpus(vm);
	os_free(old);
}

/* How many ranges begin at addr or before. */
static u32 bus_before(const struct io_bus *bus, u64 addr)
{
	return COUNT_UPTO(bus->n, i, bus->range[i].addr, addr);
}

int bus_register(struct vm *vm, enum bus_kind kind, u64 addr, u64 len, struct io_device *dev)
{
	const struct io_bus *old = vm->bus[kind];
	u32 n = old ? old->n : 0, at = old ? bus_before(old, addr) : 0;
	struct io_bus *bus;

	if (!len || addr + len - 1 < addr)
		return -EINVAL;
	if (n == MAX_IO_RANGES)
		return -ENOSPC;
	bus = bus_alloc(n + 1);
	if (!bus)
		return -ENOMEM;
	if (old) {
		memcpy(bus->range, old->range, at * sizeof(bus->range[0]));
		memcpy(&bus->range[at + 1], &old->range[at], (n - at) * sizeof(bus->range[0]));
	}
	bus->range[at] = (struct io_range){ .addr = addr, .last = addr + len - 1, .dev = dev };
	bus_replace(vm, kind, bus);
	return 0;
}

static u32 bus_count(const struct io_bus *bus, const struct io_device *dev)
{
	u32 i, n = 0;

	for (i = 0; i < bus->n; i++)
		n += bus->range[i].dev == dev;
	return n;
}

/* In place when there is no memory for another table: nobody looks while the vCPUs stand still. */
static void bus_compact(struct vm *vm, struct io_bus *bus, const struct io_device *dev)
{
	u32 i, kept = 0;

	vm_stop_vcpus(vm);
	for (i = 0; i < bus->n; i++)
		if (bus->range[i].dev != dev)
			bus->range[kept++] = bus->range[i];
	bus->n = kept;
	vm_start_vcpus(vm);
}

void bus_unregister(struct vm *vm, enum bus_kind kind, struct io_device *dev)
{
	struct io_bus *bus = vm->bus[kind];

	if (!bus || !bus_count(bus, dev))
		return;
	bus_compact(vm, bus, dev);
	if (!bus->n)
		bus_replace(vm, kind, NULL);
}

/* ---- accesses ----------------------------------------------------------------------------- */

/*
 * The next device in whose range the whole access lies; *at: ranges that are still to be looked at,
 * backwards.
 */
static struct io_device *bus_next(const struct io_bus *bus, u32 *at, u64 last)
{
	while (*at && bus->range[*at - 1].reach >= last) {
		const struct io_range *r = &bus->range[--*at];

		if (last <= r->last)
			return r->dev;
	}
	return NULL;
}

int bus_read(struct vcpu *v, enum bus_kind kind, u64 addr, unsigned int len, void *data)
{
	const struct io_bus *bus = v->vm->bus[kind];
	u32 at = bus ? bus_before(bus, addr) : 0;
	struct io_device *d;

	while (at && (d = bus_next(bus, &at, addr + len - 1)))
		if (d->ops->read && !d->ops->read(v, d, addr, len, data))
			return 0;
	return -EOPNOTSUPP;
}

int bus_write(struct vcpu *v, enum bus_kind kind, u64 addr, unsigned int len, const void *data)
{
	const struct io_bus *bus = v->vm->bus[kind];
	u32 at = bus ? bus_before(bus, addr) : 0;
	struct io_device *d;

	while (at && (d = bus_next(bus, &at, addr + len - 1)))
		if (d->ops->write && !d->ops->write(v, d, addr, len, data))
			return 0;
	return -EOPNOTSUPP;
}
