/* ioctl(2): the calls into the hypervisor. */
#include <stdarg.h>
#include <sys/ioctl.h>

#include <linux/kvm.h>

#include "hypervisor/preload/preload.h"

static __thread enum call_kind now __attribute__((tls_model("initial-exec")));

enum call_kind call_now(void)
{
	return *(volatile enum call_kind *)&now;
}

/* Not twice: what a handler of ours does inside a call is part of it. */
void call_begin(enum call_kind kind)
{
	cancel_hold();
	if (kind == CALL_RUN)
		qkvm_interrupt(false);
	*(volatile enum call_kind *)&now = kind;
}

void call_end(void)
{
	*(volatile enum call_kind *)&now = CALL_NONE;
	signals_release();
	cancel_release();
}

static int call_ioctl(int fd, unsigned long request, unsigned long arg)
{
	bool run = (u32)request == KVM_RUN;
	long ret;

	call_begin(run ? CALL_RUN : CALL_SHORT);
	if (run)
		cancel_run(fd);
	ret = qkvm_ioctl(fd, request, arg);
	stats_ioctl(fd, request, ret);
	trace_ioctl(fd, request, arg, ret);
	call_end();
	return (int)answer(ret);
}

/* Those that a kernel answers for every file, before it asks KVM. */
static bool is_of_any_file(u32 request)
{
	return request == FIOCLEX || request == FIONCLEX || request == FIONBIO || request == FIOASYNC;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	if (!qkvm_owns(fd) || is_of_any_file((u32)request))
		return NEXT(ioctl)(fd, request, arg);
	return call_ioctl(fd, request, arg);
}
