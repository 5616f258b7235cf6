/*
 * The hypervisor's only way in: the KVM API as functions.
 *
 * The four calls mirror open("/dev/kvm"), ioctl, mmap and close on KVM's file descriptors, with the
 * request numbers and structures of <linux/kvm.h>. Descriptors are real ones of this process (so
 * that they can be polled, passed to dup and seen in /proc/self/fd), but only these functions give
 * them their meaning.
 *
 * Errors: a negative errno value; errno itself is not touched.
 * Locking: as in the kernel, vCPU ioctls on one vCPU exclude each other; all else may be
 * concurrent.
 */
#ifndef QUMRA_HYPERVISOR_API_QKVM_H
#define QUMRA_HYPERVISOR_API_QKVM_H

/* Opens the system descriptor, as open("/dev/kvm", O_RDWR | O_CLOEXEC) does. */
int qkvm_open(void);

/* Pointers in arg are addresses of the caller. Returns what the ioctl returns, or -errno. */
long qkvm_ioctl(int fd, unsigned long request, unsigned long arg);

/* Maps size bytes of a vCPU descriptor (KVM_GET_VCPU_MMAP_SIZE). Returns 0 and *addr, or -errno.
 * Unmap with munmap(2). */
int qkvm_mmap(int fd, unsigned long size, void **addr);

int qkvm_close(int fd);

#endif
