/* KVM_SET_PMU_EVENT_FILTER. Linux Documentation/virt/kvm/api.rst 4.120 */
#include <linux/errno.h>

#include "hypervisor/api/api.h"
#include "hypervisor/x86/pmu.h"

#define MAX_EVENTS 300	/* KVM's */

/* The largest child of the heap [0, n) goes down from k. */
static void heap_sink(u64 *e, u32 k, u32 n)
{
	for (u32 child; (child = 2 * k + 1) < n; k = child) {
		u64 parent = e[k];

		if (child + 1 < n && e[child + 1] > e[child])
			child++;
		if (parent >= e[child])
			return;
		e[k] = e[child];
		e[child] = parent;
	}
}

static void events_sort(u64 *e, u32 n)
{
	for (u32 k = n / 2; k-- > 0;)
		heap_sink(e, k, n);
	while (n-- > 1) {
		u64 largest = e[0];

		e[0] = e[n];
		e[n] = largest;
		heap_sink(e, 0, n);
	}
}

long vm_set_pmu_event_filter(struct call *c)
{
	const struct kvm_pmu_event_filter *in = c->data;
	struct pmu_filter *f;

	if ((in->action != KVM_PMU_EVENT_ALLOW && in->action != KVM_PMU_EVENT_DENY) || in->flags)
		return -EINVAL;
	if (in->nevents > MAX_EVENTS)
		return -E2BIG;
	f = os_alloc(sizeof(*f) + in->nevents * sizeof(f->event[0]));
	if (!f)
		return -ENOMEM;
	f->allow = in->action == KVM_PMU_EVENT_ALLOW;
	f->fixed = in->fixed_counter_bitmap;
	f->n = in->nevents;
	if (os_user_read(f->event, c->arg + sizeof(*in), in->nevents * sizeof(f->event[0]))) {
		os_free(f);
		return -EFAULT;
	}
	events_sort(f->event, f->n);
	os_mutex_lock(&c->vm->lock);
	pmu_filter_set(c->vm, f);
	os_mutex_unlock(&c->vm->lock);
	return 0;
}
