/*
 * KVM_IOEVENTFD: writes to an address that signal an eventfd instead of leaving to user space. Linux
 * Documentation/virt/kvm/api.rst 4.59.
 *
 * The VM's ioeventfds are one table, sorted by bus, address, length and value, that never changes:
 * vCPUs search it without a lock, and whoever replaces it stops them first. Two that a single write
 * could match are refused, so an entry that takes any length or any value stands alone among its
 * like and one binary search is enough (entry_compare).
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"

_Static_assert(sizeof(struct kvm_ioeventfd) == 64, "ABI");

/* Nothing writes to s390's channel bus here, but its ioeventfds are kept as any other. */
#define BUS_CCW	NR_BUSES

#define FLAGS	((1u << kvm_ioeventfd_flag_nr_max) - 1)

struct ioeventfd {
	u64 addr, data;
	struct os_eventfd *eventfd;	/* ours to put */
	u32 len;			/* 0: any */
	u8 bus;				/* enum bus_kind or BUS_CCW */
	bool any_data;
};

struct ioeventfds {
	u32 n;
	struct ioeventfd e[];
};

/* ---- writes ------------------------------------------------------------------------------- */

/* Where the entry stands to a write; 0: it takes it. */
static int entry_compare(const struct ioeventfd *e, unsigned int bus, u64 addr, u32 len, u64 data)
{
	if (e->bus != bus)
		return e->bus < bus ? -1 : 1;
	if (e->addr != addr)
		return e->addr < addr ? -1 : 1;
	if (!e->len)
		return 0;
	if (e->len != len)
		return e->len < len ? -1 : 1;
	if (e->any_data || e->data == data)
		return 0;
	return e->data < data ? -1 : 1;
}

bool ioeventfd_match(const struct ioeventfds *t, enum bus_kind bus, u64 addr, unsigned int len,
	const void *data)
{
	u32 low = 0, high = t->n;
	u64 val = 0;

	memcpy(&val, data, len);
	while (low < high) {
		u32 mid = (low + high) / 2;
		int order = entry_compare(&t->e[mid], bus, addr, len, val);

		if (!order) {
			os_eventfd_signal(t->e[mid].eventfd);
			return true;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/* ---- the table ---------------------------------------------------------------------------- */

/* Takes the new table; NULL: none is left. */
static void table_replace(struct vm *vm, struct ioeventfds *t)
{
	struct ioeventfds *old = vm->ioeventfds;

	vm_stop_vcpus(vm);
	vm->ioeventfds = t;
	vm_start_vcpus(vm);
	os_free(old);
}

static struct ioeventfds *table_alloc(u32 n)
{
	struct ioeventfds *t = os_alloc(sizeof(*t) + n * sizeof(t->e[0]));

	if (t)
		t->n = n;
	return t;
}

/* The old table with room for one more at "at". */
static struct ioeventfds *table_grown(const struct ioeventfds *old, u32 at)
{
	u32 n = old ? old->n : 0;
	struct ioeventfds *t = table_alloc(n + 1);

	if (t && old) {
		memcpy(t->e, old->e, at * sizeof(t->e[0]));
		memcpy(&t->e[at + 1], &old->e[at], (n - at) * sizeof(t->e[0]));
	}
	return t;
}

/* In place, as taking away must not fail. */
static void table_remove(struct vm *vm, u32 at)
{
	struct ioeventfds *t = vm->ioeventfds;
	struct os_eventfd *eventfd = t->e[at].eventfd;

	if (t->n == 1) {
		table_replace(vm, NULL);
	} else {
		vm_stop_vcpus(vm);
		memmove(&t->e[at], &t->e[at + 1], (t->n - at - 1) * sizeof(t->e[0]));
		t->n--;
		vm_start_vcpus(vm);
	}
	os_eventfd_put(eventfd);
}

/* ---- KVM_IOEVENTFD ------------------------------------------------------------------------ */

static unsigned int flags_bus(u32 flags)
{
	if (flags & KVM_IOEVENTFD_FLAG_PIO)
		return BUS_PIO;
	return flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY ? BUS_CCW : BUS_MMIO;
}

static struct ioeventfd entry_of(const struct kvm_ioeventfd *args)
{
	return (struct ioeventfd) {
		.addr = args->addr, .data = args->datamatch, .len = args->len,
		.bus = (u8)flags_bus(args->flags),
		.any_data = !(args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH),
	};
}

/* Is there a write that both would take? */
static bool entries_collide(const struct ioeventfd *a, const struct ioeventfd *b)
{
	if (a->bus != b->bus || a->addr != b->addr)
		return false;
	if (!a->len || !b->len)
		return true;
	return a->len == b->len && (a->any_data || b->any_data || a->data == b->data);
}

static int args_check(const struct kvm_ioeventfd *args)
{
	if (args->len > 8 || args->len & (args->len - 1))
		return -EINVAL;
	if (args->addr + args->len < args->addr || args->flags & ~FLAGS)
		return -EINVAL;
	return !args->len && args->flags & KVM_IOEVENTFD_FLAG_DATAMATCH ? -EINVAL : 0;
}

static int assign(struct vm *vm, struct ioeventfd *e)
{
	const struct ioeventfds *old = vm->ioeventfds;
	struct ioeventfds *t;
	u32 i, at = 0;

	for (i = 0; old && i < old->n; i++) {
		if (entries_collide(&old->e[i], e))
			return -EEXIST;
		if (entry_compare(&old->e[i], e->bus, e->addr, e->len, e->data) < 0)
			at = i + 1;
	}
	t = table_grown(old, at);
	if (!t)
		return -ENOMEM;
	t->e[at] = *e;
	table_replace(vm, t);
	return 0;
}

static int deassign(struct vm *vm, const struct ioeventfd *e)
{
	const struct ioeventfds *t = vm->ioeventfds;
	u32 i;

	for (i = 0; t && i < t->n; i++) {
		const struct ioeventfd *have = &t->e[i];

		if (have->eventfd != e->eventfd || have->bus != e->bus || have->addr != e->addr ||
			have->len != e->len || have->any_data != e->any_data)
			continue;
		if (!e->any_data && have->data != e->data)
			continue;
		table_remove(vm, i);
		return 0;
	}
	return -ENOENT;
}

int ioeventfd_set(struct vm *vm, const struct kvm_ioeventfd *args)
{
	bool gone = args->flags & KVM_IOEVENTFD_FLAG_DEASSIGN;
	struct ioeventfd e = entry_of(args);
	int ret = gone ? 0 : args_check(args);

	if (!ret)
		ret = os_eventfd_get(args->fd, &e.eventfd);
	if (ret)
		return ret;
	ret = gone ? deassign(vm, &e) : assign(vm, &e);
	/* The table keeps the reference of one that was added. */
	if (gone || ret)
		os_eventfd_put(e.eventfd);
	return ret;
}

void ioeventfds_free(struct vm *vm)
{
	struct ioeventfds *t = vm->ioeventfds;
	u32 i;

	for (i = 0; t && i < t->n; i++)
		os_eventfd_put(t->e[i].eventfd);
	os_free(t);
	vm->ioeventfds = NULL;
}
