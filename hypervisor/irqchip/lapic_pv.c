/*
 * EOI without a register: the guest ends an interrupt by clearing a bit in its memory. Linux
 * Documentation/virt/kvm/x86/msr.rst (MSR_KVM_PV_EOI_EN); Hyper-V's TLFS 9.3.5 (APIC assist page).
 *
 * The bit is set when an interrupt goes into service that nothing depends on: none waits behind it,
 * none is in service beneath it, and nobody else is to hear of its end. Whatever looks at the APIC's
 * registers takes the answer first, so the offer stands for guest code only.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/chips.h"
#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/hyperv.h"

#define PV_EOI_ENABLED	BIT(0)
#define PV_EOI_ADDRESS	(~3ULL)
#define PV_EOI_OFFER	1u

static u64 pv_eoi_gpa(const struct vcpu *v)
{
	return v->msr.kvm_pv_eoi & PV_EOI_ADDRESS;
}

int lapic_pv_eoi_set(struct vcpu *v, u64 val)
{
	if (val & ~PV_EOI_ENABLED & ~PV_EOI_ADDRESS)
		return -EINVAL;
	if (val & PV_EOI_ENABLED && !memslot_find(v->vm, val & PV_EOI_ADDRESS))
		return -EINVAL;
	lapic_pv_eoi_sync(v);
	v->msr.kvm_pv_eoi = val;
	return 0;
}

/* Is vector alone in service? */
static bool alone(const struct lapic *l, u8 vector)
{
	for (unsigned int i = 0; i < 8; i++) {
		u32 mine = vector >> 5 == (int)i ? 1u << (vector & 31) : 0;

		if (READ_ONCE(l->reg[LR_ISR + i]) != mine)
			return false;
	}
	return true;
}

void lapic_pv_eoi_offer(struct lapic *l, u8 vector)
{
	struct vcpu *v = l->vcpu;
	const struct irqchip *ic = v->vm->irqchip;
	const u8 offer = PV_EOI_OFFER;

	if (lapic_highest(l, LR_IRR) >= 0 || !alone(l, vector) || lapic_test(l, LR_TMR, vector))
		return;
	if ((ic && ioapic_handles(ic, vector)) || (v->hv && hv_wants_ack(v, vector)))
		return;
	if (!vm_write_guest(v->vm, pv_eoi_gpa(v), &offer, sizeof(offer)))
		v->pv.eoi_offered = true;
}

void lapic_pv_eoi_take(struct lapic *l)
{
	struct vcpu *v = l->vcpu;
	u64 gpa = pv_eoi_gpa(v);
	u8 val = 0;

	v->pv.eoi_offered = false;
	vm_read_guest(v->vm, gpa, &val, sizeof(val));
	if (!(val & PV_EOI_OFFER)) {
		lapic_eoi(l);
		return;
	}
	/* Not yet over: the guest is to say so in the register. */
	val = 0;
	vm_write_guest(v->vm, gpa, &val, sizeof(val));
}
