/*
 * Coalesced MMIO and PIO: writes to a zone wait in a ring that user space empties when it next
 * comes by. Linux Documentation/virt/kvm/api.rst 4.116, 8 (KVM_CAP_COALESCED_PIO).
 *
 * The ring is one page for the VM, shared with user space, which moves "first" on and may write
 * anything anywhere in it: each index is checked when it is used. One entry always stays free. A
 * write that finds no room leaves to user space as any other.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"

#define RING_SIZE	4096
#define RING_ENTRIES	((RING_SIZE - sizeof(struct kvm_coalesced_mmio_ring)) / \
			 sizeof(struct kvm_coalesced_mmio))

_Static_assert(sizeof(struct kvm_coalesced_mmio_zone) == 16, "ABI");
_Static_assert(sizeof(struct kvm_coalesced_mmio) == 24, "ABI");
_Static_assert(sizeof(struct kvm_coalesced_mmio_ring) == 8 && RING_ENTRIES == 170, "ABI");

struct coalesced_zone {
	struct coalesced_zone *next;
	struct io_device dev;
	struct kvm_coalesced_mmio_zone zone;
};

int coalesced_init(struct vm *vm)
{
	os_mutex_init(&vm->coalesced.lock);
	vm->coalesced.ring = os_pages_alloc_shared(RING_SIZE);
	return vm->coalesced.ring ? 0 : -ENOMEM;
}

static void zone_destroy(struct vm *vm, struct coalesced_zone *z)
{
	bus_unregister(vm, z->zone.pio ? BUS_PIO : BUS_MMIO, &z->dev);
	os_free(z);
}

void coalesced_free(struct vm *vm)
{
	struct coalesced_zone *z;

	while ((z = vm->coalesced.zones)) {
		vm->coalesced.zones = z->next;
		zone_destroy(vm, z);
	}
	os_pages_free(vm->coalesced.ring, RING_SIZE);
	os_mutex_destroy(&vm->coalesced.lock);
}

/* ---- writes ------------------------------------------------------------------------------- */

static void entry_fill(struct kvm_coalesced_mmio *e, u64 addr, u32 len, u32 pio, const void *data)
{
	e->phys_addr = addr;
	e->len = len;
	e->pio = pio;
	memcpy(e->data, data, len);
}

static int ring_put(struct kvm_coalesced_mmio_ring *ring, u64 addr, u32 len, u32 pio,
	const void *data)
{
	u32 last = READ_ONCE(ring->last), next = (last + 1) % RING_ENTRIES;

	if (last >= RING_ENTRIES || next == load_acquire(&ring->first))
		return -EOPNOTSUPP;
	entry_fill(&ring->coalesced_mmio[last], addr, len, pio, data);
	store_release(&ring->last, next);
	return 0;
}

static int zone_write(struct vcpu *v, struct io_device *d, u64 addr, unsigned int len,
	const void *data)
{
	const struct coalesced_zone *z = container_of(d, struct coalesced_zone, dev);
	struct coalesced *c = &v->vm->coalesced;
	int ret;

	os_mutex_lock(&c->lock);
	ret = ring_put(c->ring, addr, len, z->zone.pio, data);
	os_mutex_unlock(&c->lock);
	return ret;
}

static const struct io_device_ops zone_ops = { .write = zone_write };

/* ---- KVM_REGISTER_COALESCED_MMIO ---------------------------------------------------------- */

/* A zone that no access can lie in is kept, but not on the bus. */
static bool zone_empty(const struct kvm_coalesced_mmio_zone *zone)
{
	return !zone->size || zone->addr + zone->size < zone->addr;
}

int coalesced_register(struct vm *vm, const struct kvm_coalesced_mmio_zone *zone)
{
	struct coalesced_zone *z;
	int ret = 0;

	if (zone->pio > 1)
		return -EINVAL;
	z = os_alloc(sizeof(*z));
	if (!z)
		return -ENOMEM;
	z->dev.ops = &zone_ops;
	z->zone = *zone;
	if (!zone_empty(zone))
		ret = bus_register(vm, zone->pio ? BUS_PIO : BUS_MMIO, zone->addr, zone->size,
			&z->dev);
	if (ret) {
		os_free(z);
		return ret;
	}
	z->next = vm->coalesced.zones;
	vm->coalesced.zones = z;
	return 0;
}

/* Does all of b lie in a? */
static bool zone_holds(const struct kvm_coalesced_mmio_zone *a,
	const struct kvm_coalesced_mmio_zone *b)
{
	u64 end = b->addr + (s32)b->size;

	/* KVM takes the size as a signed number here. */
	return a->pio == b->pio && (s32)b->size >= 0 && end >= b->addr && b->addr >= a->addr &&
	       end <= a->addr + a->size;
}

int coalesced_unregister(struct vm *vm, const struct kvm_coalesced_mmio_zone *zone)
{
	struct coalesced_zone **at = &vm->coalesced.zones, *z;

	if (zone->pio > 1)
		return -EINVAL;
	while ((z = *at)) {
		if (!zone_holds(&z->zone, zone)) {
			at = &z->next;
			continue;
		}
		*at = z->next;
		zone_destroy(vm, z);
	}
	return 0;
}
