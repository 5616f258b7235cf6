/* The chips that live in the hypervisor: see chip_state.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/e820.h"
#include "vmm/machine/chip_state.h"

struct chip_state {
	struct kvm_irqchip chip[KVM_NR_IRQCHIPS];
	struct kvm_pit_state2 pit;
};

static int chips_error(struct error *err, long ret, const char *what)
{
	return error_set(err, -ret, "the hypervisor refuses %s: %s", what, strerror(-ret));
}

#define PC_GSIS		24
#define PC_PIC_IRQS	16

static void route(struct kvm_irq_routing *r, u32 gsi, u32 chip, u32 pin)
{
	r->entries[r->nr++] = (struct kvm_irq_routing_entry){.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* KVM's default, but for the PIT: GSI 0 is the IOAPIC's pin 2, as MADT and MP table say. */
static long chips_route(const struct kvm *kvm)
{
	struct kvm_irq_routing *r =
		calloc(1, sizeof(*r) + (PC_PIC_IRQS + PC_GSIS) * sizeof(r->entries[0]));
	long ret;

	if (!r)
		return -ENOMEM;
	for (u32 i = 0; i < PC_PIC_IRQS; i++)
		route(r, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % 8);
	for (u32 i = 0; i < PC_GSIS; i++)
		if (i != 2)
			route(r, i, KVM_IRQCHIP_IOAPIC, i ? i : 2);
	ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_GSI_ROUTING, r);
	free(r);
	return ret;
}

int chips_create(const struct kvm *kvm, struct error *err)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	u64 identity = E820_KVM_PAGES;
	long ret;

	/* Needed on VT-x only, and harmless elsewhere. */
	ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (ret < 0)
		return chips_error(err, ret, "KVM_SET_IDENTITY_MAP_ADDR");
	ret = kvm_ioctl_num(kvm, kvm->vm_fd, KVM_SET_TSS_ADDR, E820_KVM_PAGES + 0x1000);
	if (ret < 0)
		return chips_error(err, ret, "KVM_SET_TSS_ADDR");
	ret = kvm_ioctl_num(kvm, kvm->vm_fd, KVM_CREATE_IRQCHIP, 0);
	if (ret < 0)
		return chips_error(err, ret, "KVM_CREATE_IRQCHIP");
	ret = chips_route(kvm);
	if (ret < 0)
		return chips_error(err, ret, "KVM_SET_GSI_ROUTING");
	ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_CREATE_PIT2, &pit);
	if (ret < 0)
		return chips_error(err, ret, "KVM_CREATE_PIT2");
	return 0;
}

int chips_get(const struct kvm *kvm, struct chip_state **state, struct error *err)
{
	struct chip_state *s = calloc(1, sizeof(*s));
	long ret = 0;

	*state = s;
	if (!s)
		return error_set(err, ENOMEM, "out of memory");
	for (unsigned i = 0; i < KVM_NR_IRQCHIPS && ret >= 0; i++) {
		s->chip[i].chip_id = i;
		ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_GET_IRQCHIP, &s->chip[i]);
	}
	if (ret >= 0)
		ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_GET_PIT2, &s->pit);
	return ret < 0 ? chips_error(err, ret, "to show its interrupt controllers") : 0;
}

int chips_set(const struct kvm *kvm, const struct chip_state *s, struct error *err)
{
	long ret = 0;

	for (unsigned i = 0; i < KVM_NR_IRQCHIPS && ret >= 0; i++)
		ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_IRQCHIP, &s->chip[i]);
	if (ret >= 0)
		ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_PIT2, &s->pit);
	return ret < 0 ? chips_error(err, ret, "to reset its interrupt controllers") : 0;
}

void chips_set_irq(const struct kvm *kvm, unsigned gsi, bool level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	kvm_ioctl(kvm, kvm->vm_fd, KVM_IRQ_LINE, &irq);
}
