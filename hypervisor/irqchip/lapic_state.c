/*
 * The local APIC in KVM's form: a kilobyte of the register page. Linux
 * Documentation/virt/kvm/api.rst 4.57, 4.58. In x2APIC mode the ID register holds the ID in bits
 * 31:24, or all of it with KVM_X2APIC_API_USE_32BIT_IDS; ICR's upper half is at ICR2 in either
 * mode.
 */
#include "hypervisor/irqchip/lapic.h"

#include <linux/errno.h>

#include "hypervisor/irqchip/chips.h"

_Static_assert(sizeof(struct kvm_lapic_state) == NR_LAPIC_REGS * 16, "one register each 16 bytes");

static u32 state_get(const struct kvm_lapic_state *s, unsigned int nr)
{
	u32 val;

	memcpy(&val, s->regs + nr * 16, sizeof(val));
	return val;
}

static void state_put(struct kvm_lapic_state *s, unsigned int nr, u32 val)
{
	memcpy(s->regs + nr * 16, &val, sizeof(val));
}

void lapic_get_state(struct vcpu *v, struct kvm_lapic_state *s)
{
	struct lapic *l = v->lapic;

	memset(s, 0, sizeof(*s));
	if (!l)
		return;
	lapic_timer_expired(v);
	for (unsigned int i = 0; i < NR_LAPIC_REGS; i++)
		state_put(s, i, READ_ONCE(l->reg[i]));
	state_put(s, LR_TMCCT, lapic_timer_count(l));
	if (lapic_x2apic(l) && !v->vm->x2apic_32bit_ids)
		state_put(s, LR_ID, v->id << 24);
}

/* Registers whose saved value is not taken over, or is checked first. */
static u32 state_sanitize(const struct lapic *l, unsigned int nr, u32 val)
{
	switch (nr) {
	case LR_VERSION:
		return l->reg[LR_VERSION];
	case LR_TPR:
		return val & 0xff;
	case LR_DFR:
		return val | 0x0fffffff;
	case LR_SVR:
		return val & 0x3ff;
	case LR_ICR:
		return val & ~(u32)BIT(12);
	case LR_TDCR:
		return val & 0xb;
	case LR_TMCCT:
	case LR_EOI:
	case LR_SELF_IPI:
		return 0;
	default:
		return val;
	}
}

static void state_restart_timer(struct lapic *l, u32 count)
{
	if ((l->reg[LR_LVT_TIMER] & LVT_TIMER_MODE) != LVT_TIMER_DEADLINE)
		lapic_timer_restore(l, count);
}

int lapic_set_state(struct vcpu *v, const struct kvm_lapic_state *s)
{
	struct lapic *l = v->lapic;
	u32 id = state_get(s, LR_ID);

	if (!l)
		return -EINVAL;
	if (lapic_x2apic(l) && v->vm->x2apic_32bit_ids && id != v->id)
		return -EINVAL;
	lapic_timer_stop(l);
	for (unsigned int i = 0; i < NR_LAPIC_REGS; i++)
		WRITE_ONCE(l->reg[i], state_sanitize(l, i, state_get(s, i)));
	if (lapic_x2apic(l))
		lapic_init_x2apic_id(l);
	v->cr8 = l->reg[LR_TPR] >> 4;
	state_restart_timer(l, state_get(s, LR_TMCCT));
	vcpu_request(v, REQ_EVENT);
	return 0;
}
