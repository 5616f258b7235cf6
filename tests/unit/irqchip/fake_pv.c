/* No vCPU of these tests has paravirtual interfaces. */
#include "tests/unit/irqchip/fake.h"

#include "hypervisor/irqchip/lapic.h"
#include "hypervisor/x86/hyperv.h"

bool hv_auto_eoi(const struct vcpu *v, u8 vector)
{
	return false;
}

bool hv_wants_ack(const struct vcpu *v, u8 vector)
{
	return false;
}

void hv_acked(struct vcpu *v, u8 vector)
{
}

int hv_sint_raise(struct vm *vm, u32 vp_index, u32 sint)
{
	return -1;
}

void hv_sint_set_gsi(struct vm *vm, u32 vp_index, u32 sint, u32 gsi)
{
}

void hv_tsc_page_update(struct vm *vm)
{
}

void lapic_pv_eoi_offer(struct lapic *l, u8 vector)
{
}

void lapic_pv_eoi_take(struct lapic *l)
{
}
