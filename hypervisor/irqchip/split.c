/*
 * The split irqchip: local APICs and routing here, PIC, IOAPIC and PIT in user space. Linux
 * Documentation/virt/kvm/api.rst 7.5 (KVM_CAP_SPLIT_IRQCHIP), 5 (KVM_EXIT_IOAPIC_EOI).
 *
 * User space turns each redirection entry into the message route of the GSI with the pin's number.
 * Of level-triggered ones it must hear the end: an EOI that such a route's message could have led
 * to becomes an exit.
 */
#include "hypervisor/irqchip/chips.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/lapic.h"

int irqchip_create_split(struct vm *vm, u64 pins)
{
	struct irqchip *ic;

	if (pins > NR_GSI)
		return -EINVAL;
	if (vm->irqchip || vm->nr_vcpus)
		return -EEXIST;
	ic = os_alloc(sizeof(*ic));
	if (!ic)
		return -ENOMEM;
	ic->routing = routing_empty();
	if (!ic->routing) {
		os_free(ic);
		return -ENOMEM;
	}
	os_mutex_init(&ic->lock);
	ic->vm = vm;
	ic->reserved = (u32)pins;
	vm->split_irqchip = true;
	store_release(&vm->irqchip, ic);
	return 0;
}

/* ---- the end of a level-triggered interrupt -------------------------------------------------- */

static struct apic_msg route_message(const struct irqchip *ic, const struct route *r)
{
	return msi_message(ic->vm, r->addr_lo, r->addr_hi, r->data);
}

void split_handled(const struct irqchip *ic, u64 handled[4])
{
	const struct routing *rt = ic->routing;
	u32 i;

	for (i = 0; i < rt->first[ic->reserved]; i++) {
		struct apic_msg m = route_message(ic, &rt->route[i]);

		if (m.level)
			handled[m.vector >> 6] |= BIT(m.vector & 63);
	}
}

/* Lock held. */
static bool handles(const struct irqchip *ic, const struct lapic *l, u8 vector)
{
	const struct routing *rt = ic->routing;
	u32 i;

	for (i = 0; i < rt->first[ic->reserved]; i++) {
		struct apic_msg m = route_message(ic, &rt->route[i]);

		if (m.level && m.vector == vector && lapic_is_dest(l, &m))
			return true;
	}
	return false;
}

void split_eoi(struct lapic *l, u8 vector)
{
	struct irqchip *ic = l->vcpu->vm->irqchip;
	bool wanted;

	if (!ioapic_handles(ic, vector))
		return;
	os_mutex_lock(&ic->lock);
	wanted = handles(ic, l, vector);
	os_mutex_unlock(&ic->lock);
	if (!wanted)
		return;
	l->user_eoi[vector >> 6] |= BIT(vector & 63);
	/* Before the guest's next instruction. */
	l->vcpu->boundary = true;
	vcpu_request(l->vcpu, REQ_IOAPIC_EOI);
}

int irqchip_user_eoi(struct vcpu *v)
{
	struct lapic *l = v->lapic;
	unsigned int i, vector;

	for (i = 0; i < 4; i++) {
		if (!l->user_eoi[i])
			continue;
		vector = i * 64 + (unsigned int)__builtin_ctzll(l->user_eoi[i]);
		l->user_eoi[i] &= l->user_eoi[i] - 1;
		/* There may be more. */
		vcpu_request(v, REQ_IOAPIC_EOI);
		return (int)vector;
	}
	return -1;
}
