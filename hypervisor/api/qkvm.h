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

#include <stdbool.h>
#include <stdint.h>

/* Opens the system descriptor, as open("/dev/kvm", O_RDWR | O_CLOEXEC) does. */
int qkvm_open(void);

/* Pointers in arg are addresses of the caller. Returns what the ioctl returns, or -errno. */
long qkvm_ioctl(int fd, unsigned long request, unsigned long arg);

/* Maps size bytes of a vCPU descriptor (KVM_GET_VCPU_MMAP_SIZE). Returns 0 and *addr, or -errno.
 * Unmap with munmap(2). */
int qkvm_mmap(int fd, unsigned long size, void **addr);

int qkvm_close(int fd);

/*
 * For those who bind whole programs to us (preload/), whose descriptors are known by more than one
 * number, are replaced, and go through fork(2).
 */
enum qkvm_kind { QKVM_SYSTEM, QKVM_VM, QKVM_VCPU };
/* Is fd a descriptor of ours? Never waits; in signal handlers too. */
bool qkvm_owns(int fd);
/* Its enum qkvm_kind, or -EBADF. */
int qkvm_kind(int fd);
/* The caller has mapped size bytes of a vCPU's fd from offset at addr by mmap(2): completes it. 0 or
 * -errno. */
int qkvm_mapped(int fd, void *addr, unsigned long size, unsigned long offset);
/* copy is a duplicate of fd, made by dup(2) or the like: it is ours from now on. 0 or -errno. */
int qkvm_dup(int fd, int copy);
/* fd's number is about to be given to another file: as qkvm_close(), but the number stays open. */
int qkvm_forget(int fd);
/*
 * Async-signal-safe: a signal was caught for this thread, so its KVM_RUN, in progress or about to
 * begin, returns -EINTR. caught false takes it back.
 */
void qkvm_interrupt(bool caught);
/* The same from another thread, for one whose qkvm_thread() that was, and that is in KVM_RUN of fd. */
void *qkvm_thread(void);
void qkvm_interrupt_thread(void *thread, int fd);
/* As pthread_atfork(3) has them. In the child, VMs and vCPUs answer -EIO, as with the kernel's. */
void qkvm_fork_begin(void);
void qkvm_fork_end(bool child);
/* The name of a request as in <linux/kvm.h>, or NULL. */
const char *qkvm_request_name(enum qkvm_kind kind, unsigned long request);
/* A vCPU's struct kvm_run, while the descriptor is open; NULL: it is none. */
const void *qkvm_vcpu_run_area(int fd);
/* Calls fn for each counter of a vCPU, as it is just now. -EBADF: it is none. */
int qkvm_vcpu_stats(int fd, void (*fn)(void *arg, const char *name, uint64_t value), void *arg);

#endif
