/*
 * The local APIC's entry for corrected machine-check interrupts, which is there where IA32_MCG_CAP
 * says CMCI_P (x86/mce.c), and counted in the version register. SDM 3A 11.5.1, 3B 16.5.1
 */
#include "hypervisor/irqchip/lapic.h"

void lapic_cmci_set(struct vcpu *v, bool there)
{
	struct lapic *l = v->lapic;

	if (!l || lapic_has_cmci(l) == there)
		return;
	WRITE_ONCE(l->reg[LR_LVT_CMCI], LVT_MASKED);
	WRITE_ONCE(l->reg[LR_VERSION], there ? LAPIC_VERSION_CMCI : LAPIC_VERSION);
}

void lapic_cmci(struct vcpu *v)
{
	if (v->lapic && lapic_has_cmci(v->lapic))
		lapic_local(v->lapic, LR_LVT_CMCI);
}
