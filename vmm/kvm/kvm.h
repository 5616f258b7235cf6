/*
 * The VMM's one way into a hypervisor: KVM's file descriptors, by four calls. A backend binds them
 * to the system calls on /dev/kvm or to the hypervisor inside this process. Nothing else in vmm/
 * knows which of the two it runs on, and no other file includes a header of hypervisor/.
 */
#ifndef QUMRA_VMM_KVM_KVM_H
#define QUMRA_VMM_KVM_KVM_H

#include <linux/kvm.h>

#include "hypervisor/api/qkvm.h"
#include "lib/error.h"
#include "lib/types.h"

/* All return -errno on failure and leave errno alone. */
struct kvm_backend {
	const char *name;
	int (*open)(void);
	long (*ioctl)(int fd, unsigned long request, unsigned long arg);
	int (*mmap)(int fd, unsigned long size, void **addr);
	int (*close)(int fd);
};

extern const struct kvm_backend kvm_backend_host;
extern const struct kvm_backend kvm_backend_soft;

/* An open hypervisor and the one VM made on it. */
struct kvm {
	const struct kvm_backend *backend;
	int fd;		/* the system descriptor */
	int vm_fd;	/* -1 until kvm_create_vm() */
	u32 run_size;	/* bytes of struct kvm_run's mapping */
};

int kvm_open(struct kvm *kvm, const struct kvm_backend *backend, struct error *err);
int kvm_create_vm(struct kvm *kvm, struct error *err);
void kvm_close(struct kvm *kvm);

static inline long kvm_ioctl(const struct kvm *kvm, int fd, unsigned long request, const void *arg)
{
	return kvm->backend->ioctl(fd, request, (unsigned long)arg);
}

static inline long kvm_ioctl_num(const struct kvm *kvm, int fd, unsigned long request, u64 arg)
{
	return kvm->backend->ioctl(fd, request, arg);
}

/* The value of KVM_CHECK_EXTENSION, 0 when unknown. */
int kvm_capability(const struct kvm *kvm, int cap);

#endif
