/*
 * KVM_IRQFD: eventfds whose signals are interrupts. Linux Documentation/virt/kvm/api.rst 4.75.
 *
 * A signal raises the GSI's line for a moment or, with resampling, until the guest acknowledges the
 * interrupt: then the line is lowered and a second eventfd signalled, so that a device whose
 * condition persists can signal again. Where a GSI leads is looked up at each signal, so routes may
 * change at any time.
 *
 * Locking: the list belongs to vm->lock. irqfd_signalled() runs on the waiter's thread with the
 * waiter's lock, which is outside irqchip->lock and inside vm->lock; irqfd_acked() runs with
 * irqchip->lock.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/irqchip.h"

_Static_assert(sizeof(struct kvm_irqfd) == 32, "ABI");

#define FLAGS (KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE)

struct irqfd {
	struct irqfd *next;
	struct vm *vm;
	u32 gsi;
	struct os_wait wait;
	struct os_eventfd *resample;	/* NULL: a pulse */
	struct irq_ack ack;
};

struct irqfds {
	struct os_waiter *waiter;
	struct irqfd *list;
	u32 n;
	u32 look_at;	/* how many there are when those whose eventfd is gone are looked for */
};

#define LOOK_FIRST 64

/* ---- interrupts --------------------------------------------------------------------------- */

static void irqfd_signalled(struct os_wait *w)
{
	struct irqfd *i = container_of(w, struct irqfd, wait);

	vm_user_wrote(i->vm);
	if (i->resample) {
		irqchip_line(i->vm, IRQ_SOURCE_RESAMPLE, i->gsi, 1, NULL);
		return;
	}
	irqchip_line(i->vm, IRQ_SOURCE_USER, i->gsi, 1, NULL);
	irqchip_line(i->vm, IRQ_SOURCE_USER, i->gsi, 0, NULL);
}

static void irqfd_acked(struct irq_ack *a)
{
	os_eventfd_signal(container_of(a, struct irqfd, ack)->resample);
}

/* ---- the list ----------------------------------------------------------------------------- */

static int irqfds_create(struct vm *vm)
{
	struct irqfds *s;
	int ret;

	if (vm->irqfds)
		return 0;
	s = os_alloc(sizeof(*s));
	if (!s)
		return -ENOMEM;
	ret = os_waiter_create(&s->waiter);
	if (ret) {
		os_free(s);
		return ret;
	}
	s->look_at = LOOK_FIRST;
	vm->irqfds = s;
	return 0;
}

/* Does another one hold the line that this one has shared? */
static bool resample_shared(const struct irqfds *s, const struct irqfd *i)
{
	const struct irqfd *other;

	for (other = s->list; other; other = other->next)
		if (other != i && other->resample && other->gsi == i->gsi)
			return true;
	return false;
}

/* No signal of its eventfd comes any more. Not in the list. */
static void irqfd_destroy(struct irqfds *s, struct irqfd *i)
{
	if (i->resample) {
		irqchip_remove_ack(i->vm, &i->ack);
		if (!resample_shared(s, i))
			irqchip_line(i->vm, IRQ_SOURCE_RESAMPLE, i->gsi, 0, NULL);
		os_eventfd_put(i->resample);
	}
	os_free(i);
}

static void irqfd_unlink(struct irqfds *s, struct irqfd **at)
{
	struct irqfd *i = *at;

	*at = i->next;
	s->n--;
	os_wait_remove(&i->wait);
	irqfd_destroy(s, i);
}

static struct irqfd **irqfd_find(struct irqfds *s, u64 id)
{
	struct irqfd **at = &s->list;

	while (*at && (*at)->wait.id != id)
		at = &(*at)->next;
	return at;
}

/*
 * An eventfd that is closed takes its irqfd along. Nobody misses that at once, as it will never be
 * signalled again, but its number may be given to the next eventfd.
 */
static void irqfds_drop_closed(struct irqfds *s)
{
	struct irqfd **at = &s->list;

	os_waiter_look(s->waiter);
	while (*at)
		if (os_wait_closed(&(*at)->wait))
			irqfd_unlink(s, at);
		else
			at = &(*at)->next;
	s->look_at = MAX(2 * s->n, (u32)LOOK_FIRST);
}

/* -EBUSY: the eventfd is one of the VM's irqfds already. */
static int irqfds_check(struct irqfds *s, u64 id)
{
	if (*irqfd_find(s, id) || s->n >= s->look_at)
		irqfds_drop_closed(s);
	return *irqfd_find(s, id) ? -EBUSY : 0;
}

/* ---- KVM_IRQFD ---------------------------------------------------------------------------- */

/* The line must be acknowledged to us from the first signal on. */
static int irqfd_start(struct irqfds *s, struct irqfd *i, int fd)
{
	int ret;

	i->wait.fn = irqfd_signalled;
	if (i->resample) {
		i->ack = (struct irq_ack){
			.gsi = i->gsi, .source = IRQ_SOURCE_RESAMPLE, .fn = irqfd_acked };
		irqchip_add_ack(i->vm, &i->ack);
	}
	ret = os_wait_add(s->waiter, &i->wait, fd);
	if (ret)
		return ret;
	i->next = s->list;
	s->list = i;
	s->n++;
	return 0;
}

static int irqfd_assign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct os_eventfd *resample = NULL;
	struct irqfd *i;
	int ret;
	u64 id;

	ret = os_eventfd_id((int)args->fd, &id);
	if (!ret && args->flags & KVM_IRQFD_FLAG_RESAMPLE)
		ret = os_eventfd_get((int)args->resamplefd, &resample);
	if (ret)
		return ret;
	ret = irqfds_create(vm);
	if (!ret)
		ret = irqfds_check(vm->irqfds, id);
	i = ret ? NULL : os_alloc(sizeof(*i));
	if (!i) {
		if (resample)
			os_eventfd_put(resample);
		return ret ? ret : -ENOMEM;
	}
	i->vm = vm;
	i->gsi = args->gsi;
	i->resample = resample;
	ret = irqfd_start(vm->irqfds, i, (int)args->fd);
	if (ret)
		irqfd_destroy(vm->irqfds, i);
	return ret;
}

static int irqfd_deassign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct irqfd **at;
	u64 id;
	int ret = os_eventfd_id((int)args->fd, &id);

	if (ret || !vm->irqfds)
		return ret;
	at = irqfd_find(vm->irqfds, id);
	if (*at && (*at)->gsi == args->gsi)
		irqfd_unlink(vm->irqfds, at);
	return 0;
}

int irqfd_set(struct vm *vm, const struct kvm_irqfd *args)
{
	if (args->flags & ~FLAGS)
		return -EINVAL;
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		return irqfd_deassign(vm, args);
	/* Acknowledgements are seen by the chips, not by those of user space. */
	if (!vm->irqchip || (args->flags & KVM_IRQFD_FLAG_RESAMPLE && vm->split_irqchip))
		return -EINVAL;
	return irqfd_assign(vm, args);
}

void irqfds_free(struct vm *vm)
{
	struct irqfds *s = vm->irqfds;
	struct irqfd *i;

	if (!s)
		return;
	/* First the thread: then nothing is left to be removed one by one. */
	os_waiter_destroy(s->waiter);
	while ((i = s->list)) {
		s->list = i->next;
		irqfd_destroy(s, i);
	}
	os_free(s);
	vm->irqfds = NULL;
}
