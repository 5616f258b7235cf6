/*
 * The PC's interrupt chips as KVM has them in the kernel: two i8259, IOAPIC, i8254, a local APIC
 * per vCPU, and the GSI routing between them.
 *
 * Locking: irqchip->lock covers PIC, IOAPIC, PIT and routing; each local APIC's request bits are
 * atomic, the rest of it belongs to its vCPU's thread (or to whoever stopped it). The only effect
 * on another vCPU is vcpu_request(REQ_EVENT) or a kick.
 */
#ifndef QUMRA_HYPERVISOR_IRQCHIP_IRQCHIP_H
#define QUMRA_HYPERVISOR_IRQCHIP_IRQCHIP_H

#include "hypervisor/core/vm.h"

struct irqchip;

/* Who drives a line: it is high while any of them drives it high. Others take their own numbers. */
enum irq_source {
	IRQ_SOURCE_USER, IRQ_SOURCE_RESAMPLE, IRQ_SOURCE_PIT, IRQ_SOURCE_FERR, NR_IRQ_SOURCES = 64,
};

/*
 * Told when the guest acknowledges a GSI (EOI at the PIC or IOAPIC): KVM_IRQFD_FLAG_RESAMPLE. First
 * the line that `source` drives is lowered, then fn runs, with irqchip->lock held: it may signal,
 * not call back.
 */
struct irq_ack {
	u32 gsi, source;
	void (*fn)(struct irq_ack *a);
	struct irq_ack *next;	/* ours */
};

/* ---- VM side. 0 or -errno. ------------------------------------------------------------------- */
int irqchip_create(struct vm *vm);	/* KVM_CREATE_IRQCHIP: registers PIC, ELCR, IOAPIC */
void irqchip_destroy(struct vm *vm);
/*
 * KVM_CAP_SPLIT_IRQCHIP: local APICs and routing here, PIC, IOAPIC and PIT in user space. The first
 * so many GSIs are that IOAPIC's pins.
 */
int irqchip_create_split(struct vm *vm, u64 pins);
/* Is there a PIC (with it IOAPIC and ELCR) in the irqchip? */
static inline bool irqchip_has_pic(const struct vm *vm)
{
	return vm->irqchip && !vm->split_irqchip;
}
int irqchip_create_pit(struct vm *vm, const struct kvm_pit_config *cfg);
/* KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS: level 0 or 1; *delivered: 1 delivered, 0 coalesced, -1 masked;
 * may be NULL. source: who drives the line (levels of several are ORed); 0 is user space. */
int irqchip_line(struct vm *vm, u32 source, u32 gsi, int level, int *delivered);
int irqchip_set_routing(struct vm *vm, const struct kvm_irq_routing_entry *e, u32 n);
void irqchip_add_ack(struct vm *vm, struct irq_ack *a);
void irqchip_remove_ack(struct vm *vm, struct irq_ack *a);
void irqchip_gsi_acked(struct vm *vm, u32 gsi);	/* by other means than a chip's EOI */
int irqchip_signal_msi(struct vm *vm, const struct kvm_msi *msi); /* >0 delivered, 0 blocked, <0 */
int irqchip_get(struct vm *vm, struct kvm_irqchip *chip);	/* KVM_GET_IRQCHIP */
int irqchip_set(struct vm *vm, const struct kvm_irqchip *chip);
int pit_get(struct vm *vm, struct kvm_pit_state2 *ps);
int pit_set(struct vm *vm, const struct kvm_pit_state2 *ps);
int pit_reinject(struct vm *vm, bool reinject);

/* ---- vCPU side, on its own thread ------------------------------------------------------------ */
int lapic_create(struct vcpu *v);		/* v->lapic; 0 or -ENOMEM */
void lapic_destroy(struct vcpu *v);
void lapic_reset(struct vcpu *v, bool init);
/* The entry of the corrected machine-check interrupt comes or goes; it arrives. (lapic_cmci.c) */
void lapic_cmci_set(struct vcpu *v, bool there);
void lapic_cmci(struct vcpu *v);
/* The vector to inject now, taken (IRR to ISR, or the PIC's INTA cycle done), or -1. Called only
 * when the guest can take it. */
int irqchip_ack_interrupt(struct vcpu *v);
/* Is there one, whatever IF and shadows say? */
bool irqchip_has_interrupt(struct vcpu *v);
void lapic_timer_expired(struct vcpu *v);	/* REQ_APIC_TIMER */
/* Split: can KVM_INTERRUPT's vector be taken and will it reach the processor? */
bool irqchip_user_pic_ready(const struct vcpu *v);
/* Split: the next vector whose EOI user space's IOAPIC waits for (REQ_IOAPIC_EOI), or -1. */
int irqchip_user_eoi(struct vcpu *v);
/* NMI, SMI, INIT, SIPI that arrived since the last call: served by the run loop on REQ_EVENT. */
void lapic_accept_events(struct vcpu *v);
void lapic_accept_nmi(struct vcpu *v);	/* NMI and SMI only */
/* INIT that has come and was not accepted yet (in SMM it waits): KVM_GET_VCPU_EVENTS and _SET_. */
bool lapic_init_latched(const struct vcpu *v);
void lapic_latch_init(struct vcpu *v, bool latched);
void lapic_start(struct vcpu *v, u8 vector);	/* as if a SIPI came */

/* vapic.c: KVM_SET_VAPIC_ADDR (-EINVAL: no memory there), KVM_TPR_ACCESS_REPORTING; around each run
 * of the engine. */
int lapic_set_vapic(struct vcpu *v, u64 addr);
void lapic_report_tpr(struct vcpu *v, bool on);
void vapic_enter(struct vcpu *v);
void vapic_leave(struct vcpu *v);

/* Before the registers are looked at: has the guest ended the interrupt in memory? (lapic_pv.c) */
void lapic_pv_eoi_take(struct lapic *l);
static inline void lapic_pv_eoi_sync(struct vcpu *v)
{
	if (unlikely(v->pv.eoi_offered))
		lapic_pv_eoi_take(v->lapic);
}

u64 lapic_get_base(const struct vcpu *v);
int lapic_set_base(struct vcpu *v, u64 val, bool host);	/* MSR_IA32_APICBASE; -EINVAL: #GP */
/* x2APIC MSRs 0x800 to 0x8ff; -EINVAL: #GP. */
int lapic_msr_read(struct vcpu *v, u32 index, u64 *val);
int lapic_msr_write(struct vcpu *v, u32 index, u64 val);
/* Hyper-V's synthetic MSRs of the APIC; nr: LR_EOI, LR_ICR, LR_TPR of lapic.h. -EINVAL: #GP. */
int lapic_hv_read(struct vcpu *v, unsigned int nr, u64 *val);
int lapic_hv_write(struct vcpu *v, unsigned int nr, u64 val);
/* xAPIC page; called by the MMIO path when gpa lies in this vCPU's enabled APIC page. */
bool lapic_owns(const struct vcpu *v, u64 gpa);
void lapic_mmio_read(struct vcpu *v, u32 off, unsigned int len, void *data);
void lapic_mmio_write(struct vcpu *v, u32 off, unsigned int len, const void *data);
u64 lapic_get_cr8(const struct vcpu *v);
void lapic_set_cr8(struct vcpu *v, u64 cr8);
u64 lapic_get_tsc_deadline(const struct vcpu *v);
void lapic_set_tsc_deadline(struct vcpu *v, u64 val);
void lapic_get_state(struct vcpu *v, struct kvm_lapic_state *s);
int lapic_set_state(struct vcpu *v, const struct kvm_lapic_state *s);

#endif
