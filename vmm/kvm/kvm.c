/* The two bindings of the KVM API, and the opening of a hypervisor: see kvm.h. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/kvm/kvm.h"

static int host_open(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static long host_ioctl(int fd, unsigned long request, unsigned long arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

static int host_mmap(int fd, unsigned long size, void **addr)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*addr = p;
	return 0;
}

static int host_close(int fd)
{
	return close(fd) < 0 ? -errno : 0;
}

const struct kvm_backend kvm_backend_host = {
	.name = "kvm",
	.open = host_open,
	.ioctl = host_ioctl,
	.mmap = host_mmap,
	.close = host_close,
};

const struct kvm_backend kvm_backend_soft = {
	.name = "soft",
	.open = qkvm_open,
	.ioctl = qkvm_ioctl,
	.mmap = qkvm_mmap,
	.close = qkvm_close,
};

int kvm_open(struct kvm *kvm, const struct kvm_backend *backend, struct error *err)
{
	long size;
	int fd = backend->open();

	*kvm = (struct kvm){ .backend = backend, .fd = fd, .vm_fd = -1 };
	if (fd < 0)
		return error_set(err, -fd, "cannot open the %s hypervisor: %s", backend->name,
			strerror(-fd));
	size = kvm_ioctl_num(kvm, fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (long)sizeof(struct kvm_run)) {
		kvm_close(kvm);
		return error_set(err, EPROTO, "the %s hypervisor reports a vCPU area of %ld bytes",
				 backend->name, size);
	}
	kvm->run_size = size;
	return 0;
}

int kvm_create_vm(struct kvm *kvm, struct error *err)
{
	long fd = kvm_ioctl_num(kvm, kvm->fd, KVM_CREATE_VM, 0);

	if (fd < 0)
		return error_set(err, -fd, "cannot create a virtual machine: %s", strerror(-fd));
	kvm->vm_fd = fd;
	return 0;
}

void kvm_close(struct kvm *kvm)
{
	if (kvm->vm_fd >= 0)
		kvm->backend->close(kvm->vm_fd);
	if (kvm->fd >= 0)
		kvm->backend->close(kvm->fd);
	kvm->vm_fd = kvm->fd = -1;
}

int kvm_capability(const struct kvm *kvm, int cap)
{
	long ret = kvm_ioctl_num(kvm, kvm->fd, KVM_CHECK_EXTENSION, cap);

	return ret < 0 ? 0 : ret;
}
