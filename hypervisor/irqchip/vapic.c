/*
 * The local APIC's task priority for 32-bit guests that are patched by user space: a word of guest
 * memory in its place (KVM_SET_VAPIC_ADDR), and exits that tell where the guest uses the register
 * (KVM_TPR_ACCESS_REPORTING). api.rst 4.36, 4.37
 *
 * The word: bits 7:0 task priority, 15:8 the class in service, 31:24 the highest vector requested.
 * Both sides may change the priority while the vCPU is in the engine, so the guest's word counts
 * only where it is no longer what we wrote.
 */
#include <linux/errno.h>

#include "hypervisor/core/vm.h"
#include "hypervisor/irqchip/lapic.h"

int lapic_set_vapic(struct vcpu *v, u64 addr)
{
	struct vapic *a = &v->lapic->vapic;
	u32 word;

	if (addr && vm_read_guest(v->vm, addr, &word, sizeof(word)))
		return -EINVAL;
	a->addr = addr;
	a->on = addr;
	return 0;
}

void lapic_report_tpr(struct vcpu *v, bool on)
{
	v->lapic->vapic.report = on;
}

/* The access is complete when user space hears of it. */
void vapic_tpr_accessed(struct lapic *l, bool write)
{
	struct vcpu *v = l->vcpu;

	if (!l->vapic.report)
		return;
	v->run->tpr_access.rip = v->r[R_RIP];
	v->run->tpr_access.is_write = write;
	vcpu_request(v, REQ_TPR_ACCESS);
}

static u32 vapic_word(const struct lapic *l)
{
	u32 irr = (u32)MAX(lapic_highest(l, LR_IRR), 0), isr = (u32)MAX(lapic_highest(l, LR_ISR), 0);

	return (l->reg[LR_TPR] & 0xff) | (isr & 0xf0) << 8 | irr << 24;
}

void vapic_enter(struct vcpu *v)
{
	struct vapic *a = &v->lapic->vapic;

	if (likely(!a->on))
		return;
	a->written = vapic_word(v->lapic);
	vm_write_guest(v->vm, a->addr, &a->written, sizeof(a->written));
}

void vapic_leave(struct vcpu *v)
{
	struct vapic *a = &v->lapic->vapic;
	u32 word;

	if (likely(!a->on) || vm_read_guest(v->vm, a->addr, &word, sizeof(word)))
		return;
	if ((u8)word != (u8)a->written)
		lapic_set_tpr(v->lapic, (u8)word);
}
