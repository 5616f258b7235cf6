/* The state of the hypervisor's chips: two i8259, IOAPIC, i8254. */
#ifndef QUMRA_VMM_MACHINE_CHIP_STATE_H
#define QUMRA_VMM_MACHINE_CHIP_STATE_H

#include "vmm/kvm/kvm.h"

struct chip_state;

/* Creates them, with the addresses that KVM wants to know before. */
int chips_create(const struct kvm *kvm, struct error *err);
/* Allocates; free with free(). */
int chips_get(const struct kvm *kvm, struct chip_state **state, struct error *err);
/* May the i8254 use its line? An HPET with legacy replacement has it otherwise. */
int chips_set_pit_line(const struct kvm *kvm, bool on);
/* In the state: the i8259s let nothing through, as firmware leaves them. */
void chips_mask_pics(struct chip_state *state);
int chips_set(const struct kvm *kvm, const struct chip_state *state, struct error *err);

#endif
