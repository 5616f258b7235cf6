/*
 * ioctls of a VM by which accesses and interrupts need no exit and no ioctl: irqfd, ioeventfd,
 * coalesced zones; and KVM_CREATE_DEVICE. Linux Documentation/virt/kvm/api.rst 4.59, 4.75, 4.79,
 * 4.116.
 */
#include "hypervisor/api/api.h"

_Static_assert(sizeof(struct kvm_create_device) == 12, "ABI");

static long locked(struct call *c, int (*fn)(struct vm *vm, const void *arg))
{
	long ret;

	os_mutex_lock(&c->vm->lock);
	ret = fn(c->vm, c->data);
	os_mutex_unlock(&c->vm->lock);
	return ret;
}

static int irqfd(struct vm *vm, const void *arg)
{
	return irqfd_set(vm, arg);
}

static int ioeventfd(struct vm *vm, const void *arg)
{
	return ioeventfd_set(vm, arg);
}

static int zone_register(struct vm *vm, const void *arg)
{
	return coalesced_register(vm, arg);
}

static int zone_unregister(struct vm *vm, const void *arg)
{
	return coalesced_unregister(vm, arg);
}

long vm_irqfd(struct call *c)
{
	return locked(c, irqfd);
}

long vm_ioeventfd(struct call *c)
{
	return locked(c, ioeventfd);
}

long vm_register_coalesced_mmio(struct call *c)
{
	return locked(c, zone_register);
}

long vm_unregister_coalesced_mmio(struct call *c)
{
	return locked(c, zone_unregister);
}

/*
 * Of x86's two kinds of device neither is here. KVM_DEV_TYPE_VFIO tells KVM of assigned devices,
 * for the sake of mediated ones and of caches that DMA passes by; VFIO does without it. A kernel
 * without VFIO answers the same.
 */
long vm_create_device(struct call *c)
{
	return -ENODEV;
}
