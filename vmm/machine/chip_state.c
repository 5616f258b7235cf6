/* The chips that live in the hypervisor: see chip_state.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/firmware/e820.h"
#include "vmm/machine/chip_state.h"
#include "vmm/machine/irq_router.h"

struct chip_state {
	struct kvm_irqchip chip[KVM_NR_IRQCHIPS];
	struct kvm_pit_state2 pit;
};

static int chips_error(struct error *err, long ret, const char *what)
{
	return error_set(err, -ret, "the hypervisor refuses %s: %s", what, strerror(-ret));
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
	ret = irq_router_program(&(struct irq_router){ .kvm = kvm });
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

int chips_set_pit_line(const struct kvm *kvm, bool on)
{
	struct kvm_pit_state2 pit = { .flags = 0 };
	long ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_GET_PIT2, &pit);

	if (ret < 0)
		return ret;
	pit.flags &= ~KVM_PIT_FLAGS_HPET_LEGACY;
	if (!on)
		pit.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
	ret = kvm_ioctl(kvm, kvm->vm_fd, KVM_SET_PIT2, &pit);
	return ret < 0 ? ret : 0;
}

void chips_mask_pics(struct chip_state *s)
{
	s->chip[KVM_IRQCHIP_PIC_MASTER].chip.pic.imr = 0xFF;
	s->chip[KVM_IRQCHIP_PIC_SLAVE].chip.pic.imr = 0xFF;
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
