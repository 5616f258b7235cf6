/*
 * softkvm --trace: what passes between the program and the hypervisor, a line each on standard error
 * or in a file. Kinds are named in SOFTKVM_TRACE, separated by commas.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "hypervisor/os/os.h"
#include "hypervisor/preload/names.h"
#include "hypervisor/preload/preload.h"

#define ALL_KINDS	"all"

static struct {
	const char *kinds;	/* NULL: nothing is traced */
	int fd;
	u64 start;
} trace;

static bool wanted(const char *kind)
{
	size_t n = strlen(kind);

	for (const char *p = trace.kinds; p && *p; p += strcspn(p, ","), p += *p == ',')
		if ((!strncmp(p, kind, n) && (!p[n] || p[n] == ',')) ||
			!strncmp(p, ALL_KINDS, strlen(ALL_KINDS)))
			return true;
	return false;
}

void trace_attach(void)
{
	const char *path = getenv("SOFTKVM_TRACE_FILE");

	trace.kinds = getenv("SOFTKVM_TRACE");
	if (!trace.kinds)
		return;
	trace.start = os_clock_ns();
	trace.fd = STDERR_FILENO;
	if (path)
		trace.fd = NEXT(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

void trace_line(const char *kind, const char *fmt, ...)
{
	u64 us = trace.kinds ? (os_clock_ns() - trace.start) / 1000 : 0;
	char line[400];
	va_list ap;
	int n;

	if (!wanted(kind))
		return;
	n = snprintf(line, sizeof(line), "softkvm: %6llu.%06llu %ld %s: ",
		(unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000),
		syscall(SYS_gettid), kind);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n = MIN(n, (int)sizeof(line) - 2);
	line[n++] = '\n';
	if (write(trace.fd, line, (size_t)n) < 0)
		trace.kinds = NULL;
}

/* ---- exits ----------------------------------------------------------------------------------- */

static u64 first_bytes(const void *p, u32 n)
{
	u64 value = 0;

	memcpy(&value, p, MIN(n, (u32)sizeof(value)));
	return value;
}

static void trace_io(int fd, const struct kvm_run *run)
{
	bool out = run->io.direction == KVM_EXIT_IO_OUT;
	const char *data = (const char *)run + run->io.data_offset;

	trace_line("exits", "vcpu fd %d: %s port %#x, %u bytes times %u%s%#llx", fd,
		out ? "out" : "in", run->io.port, run->io.size, run->io.count,
		out ? ": " : " at ", (unsigned long long)(out ?
		first_bytes(data, run->io.size) : run->io.data_offset));
}

static void trace_mmio(int fd, const struct kvm_run *run)
{
	if (run->mmio.is_write)
		trace_line("exits", "vcpu fd %d: write %#llx, %u bytes: %#llx", fd,
			(unsigned long long)run->mmio.phys_addr, run->mmio.len,
			(unsigned long long)first_bytes(run->mmio.data, run->mmio.len));
	else
		trace_line("exits", "vcpu fd %d: read %#llx, %u bytes", fd,
			(unsigned long long)run->mmio.phys_addr, run->mmio.len);
}

static void trace_exit(int fd, long ret)
{
	const struct kvm_run *run = qkvm_vcpu_run_area(fd);

	if (!run || ret < 0)
		trace_line("exits", "vcpu fd %d: %s", fd, ret < 0 ? strerrorname_np((int)-ret) : "?");
	else if (run->exit_reason == KVM_EXIT_IO)
		trace_io(fd, run);
	else if (run->exit_reason == KVM_EXIT_MMIO)
		trace_mmio(fd, run);
	else
		trace_line("exits", "vcpu fd %d: %s", fd, exit_name(run->exit_reason));
}

/* ---- requests -------------------------------------------------------------------------------- */

static void trace_argument(int fd, unsigned long request, unsigned long arg, long ret)
{
	const struct kvm_irq_level *line = (const void *)arg;
	const struct kvm_interrupt *irq = (const void *)arg;
	const struct kvm_msi *msi = (const void *)arg;
	const struct kvm_irqfd *irqfd = (const void *)arg;
	const struct kvm_userspace_memory_region *r = (const void *)arg;

	switch (request) {
	case KVM_IRQ_LINE:
	case KVM_IRQ_LINE_STATUS:
		trace_line("irq", "gsi %u = %u", line->irq, line->level);
		break;
	case KVM_SIGNAL_MSI:
		trace_line("irq", "msi address %#llx data %#x",
			(unsigned long long)msi->address_hi << 32 | msi->address_lo, msi->data);
		break;
	case KVM_INTERRUPT:
		trace_line("irq", "vcpu fd %d: vector %#x", fd, irq->irq);
		break;
	case KVM_NMI:
		trace_line("irq", "vcpu fd %d: NMI", fd);
		break;
	case KVM_SMI:
		trace_line("irq", "vcpu fd %d: SMI", fd);
		break;
	case KVM_IRQFD:
		trace_line("irq", "irqfd %d%s gsi %u flags %#x = %ld", (int)irqfd->fd,
			irqfd->flags & KVM_IRQFD_FLAG_DEASSIGN ? " no longer" : "",
			irqfd->gsi, irqfd->flags, ret);
		break;
	case KVM_SET_USER_MEMORY_REGION:
		trace_line("memory", "slot %u flags %u: %#llx, %#llx bytes at %#llx = %ld",
			r->slot, r->flags, (unsigned long long)r->guest_phys_addr,
			(unsigned long long)r->memory_size,
			(unsigned long long)r->userspace_addr, ret);
		break;
	}
}

void trace_ioctl(int fd, unsigned long request, unsigned long arg, long ret)
{
	int kind;
	const char *name;

	if (likely(!trace.kinds))
		return;
	request = (u32)request;
	kind = qkvm_kind(fd);
	name = kind < 0 ? NULL : qkvm_request_name((enum qkvm_kind)kind, request);
	if (request == KVM_RUN)
		trace_exit(fd, ret);
	else if (name && ret != -EFAULT)	/* else nobody has read the argument */
		trace_argument(fd, request, arg, ret);
	if (ret < 0)
		trace_line("ioctls", "fd %d: %s (%#lx), %#lx = %s", fd, name ? name : "unknown",
			request, arg, strerrorname_np((int)-ret));
	else if (request != KVM_RUN)
		trace_line("ioctls", "fd %d: %s, %#lx = %ld", fd, name, arg, ret);
}
