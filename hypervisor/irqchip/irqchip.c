/* The interrupt chips as one: creation, acknowledgements, saved state, messages of user space. */
#include "hypervisor/irqchip/irqchip.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/chips.h"

static void irqchip_unregister(struct irqchip *ic)
{
	bus_unregister(ic->vm, BUS_PIO, &ic->pic.ports);
	bus_unregister(ic->vm, BUS_PIO, &ic->pic.elcr);
	bus_unregister(ic->vm, BUS_MMIO, &ic->ioapic.dev);
}

int irqchip_create(struct vm *vm)
{
	struct irqchip *ic;
	int err = -ENOMEM;

	if (vm->irqchip)
		return -EEXIST;
	ic = os_alloc(sizeof(*ic));
	if (!ic)
		return -ENOMEM;
	os_mutex_init(&ic->lock);
	ic->vm = vm;
	ic->routing = routing_default();
	if (!ic->routing)
		goto out;
	err = pic_create(ic);
	if (!err)
		err = ioapic_create(ic);
	if (err)
		goto out;
	store_release(&vm->irqchip, ic);
	return 0;
out:
	irqchip_unregister(ic);
	os_free(ic->routing);
	os_mutex_destroy(&ic->lock);
	os_free(ic);
	return err;
}

void irqchip_destroy(struct vm *vm)
{
	struct irqchip *ic = vm->irqchip;

	if (!ic)
		return;
	pit_destroy(ic);
	irqchip_unregister(ic);
	vm->irqchip = NULL;
	os_free(ic->routing);
	os_mutex_destroy(&ic->lock);
	os_free(ic);
}

/* ---- acknowledgements ------------------------------------------------------------------------ */

void irqchip_add_ack(struct vm *vm, struct irq_ack *a)
{
	struct irqchip *ic = vm->irqchip;

	os_mutex_lock(&ic->lock);
	a->next = ic->acks;
	ic->acks = a;
	ioapic_update_handled(ic);
	os_mutex_unlock(&ic->lock);
}

void irqchip_remove_ack(struct vm *vm, struct irq_ack *a)
{
	struct irqchip *ic = vm->irqchip;

	os_mutex_lock(&ic->lock);
	for (struct irq_ack **p = &ic->acks; *p; p = &(*p)->next)
		if (*p == a) {
			*p = a->next;
			break;
		}
	ioapic_update_handled(ic);
	os_mutex_unlock(&ic->lock);
}

bool irqchip_wants_ack(const struct irqchip *ic, unsigned int chip, unsigned int pin)
{
	int gsi = ic->routing->gsi_of[chip][pin];

	if (gsi < 0)
		return false;
	if (gsi == 0 && pit_wants_ack(ic))
		return true;
	for (const struct irq_ack *a = ic->acks; a; a = a->next)
		if (a->gsi == (u32)gsi)
			return true;
	return false;
}

static void acks_tell(struct irqchip *ic, u32 gsi)
{
	for (struct irq_ack *a = ic->acks; a; a = a->next) {
		if (a->gsi != gsi)
			continue;
		routing_set_line(ic, a->source, a->gsi, 0);
		a->fn(a);
	}
}

void irqchip_acked(struct irqchip *ic, unsigned int chip, unsigned int pin)
{
	int gsi = ic->routing->gsi_of[chip][pin];

	if (gsi < 0)
		return;
	if (gsi == 0)
		pit_acked(ic);
	acks_tell(ic, (u32)gsi);
}

void irqchip_gsi_acked(struct vm *vm, u32 gsi)
{
	os_mutex_lock(&vm->irqchip->lock);
	acks_tell(vm->irqchip, gsi);
	os_mutex_unlock(&vm->irqchip->lock);
}

void irqchip_unmasked(struct irqchip *ic, unsigned int chip, unsigned int pin)
{
	if (ic->routing->gsi_of[chip][pin] == 0)
		pit_unmasked(ic);
}

/* ---- user space ------------------------------------------------------------------------------ */

int irqchip_signal_msi(struct vm *vm, const struct kvm_msi *msi)
{
	if (!vm->irqchip || msi->flags & ~KVM_MSI_VALID_DEVID)
		return -EINVAL;
	if (vm->x2apic_32bit_ids && msi->address_hi & 0xff)
		return -EINVAL;
	return msi_deliver(vm, msi->address_lo, msi->address_hi, msi->data);
}

int irqchip_get(struct vm *vm, struct kvm_irqchip *chip)
{
	struct irqchip *ic = vm->irqchip;
	int err = 0;

	if (!irqchip_has_pic(vm))
		return -ENXIO;
	memset(&chip->chip, 0, sizeof(chip->chip));
	os_mutex_lock(&ic->lock);
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_get(ic, chip->chip_id, &chip->chip.pic);
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_get(ic, &chip->chip.ioapic);
		break;
	default:
		err = -EINVAL;
	}
	os_mutex_unlock(&ic->lock);
	return err;
}

int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip)
{
	struct irqchip *ic = vm->irqchip;
	int err = 0;

	if (!irqchip_has_pic(vm))
		return -ENXIO;
	os_mutex_lock(&ic->lock);
	switch (chip->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		pic_set(ic, chip->chip_id, &chip->chip.pic);
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_set(ic, &chip->chip.ioapic);
		break;
	default:
		err = -EINVAL;
	}
	os_mutex_unlock(&ic->lock);
	return err;
}
