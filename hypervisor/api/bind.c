/* What qkvm.h offers to those who bind whole programs: descriptors with several numbers, signals,
 * fork, names. */
#include "hypervisor/api/api.h"
#include "hypervisor/api/qkvm.h"

_Static_assert(QKVM_SYSTEM == (int)HANDLE_SYSTEM && QKVM_VM == (int)HANDLE_VM &&
		QKVM_VCPU == (int)HANDLE_VCPU, "the same, seen from outside");

bool qkvm_owns(int fd)
{
	return os_fd_present(fd);
}

int qkvm_kind(int fd)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	int kind;

	if (!h)
		return -EBADF;
	kind = h->kind;
	handle_release(h);
	return kind;
}

int qkvm_dup(int fd, int copy)
{
	return os_fd_share(fd, copy, handle_hold);
}

int qkvm_forget(int fd)
{
	struct handle *h = os_fd_forget(fd);

	if (!h)
		return -EBADF;
	handle_release(h);
	return 0;
}

void qkvm_interrupt(bool caught)
{
	struct vcpu *v = os_run_get();

	os_run_catch(caught);
	if (caught && v)
		vcpu_kick(v);
}

void *qkvm_thread(void)
{
	return os_run_thread();
}

void qkvm_interrupt_thread(void *thread, int fd)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	struct vcpu *v = h ? load_acquire(&h->vcpu) : NULL;

	os_run_catch_thread(thread);
	if (v && !h->foreign)
		vcpu_kick(v);
	if (h)
		handle_release(h);
}

/* ---- fork ------------------------------------------------------------------------------------ */

void qkvm_fork_begin(void)
{
	os_fork_begin();
}

static void handle_abandon(void *obj)
{
	struct handle *h = obj;

	h->foreign = h->kind != HANDLE_SYSTEM;
}

void qkvm_fork_end(bool child)
{
	os_fork_end(child);
	if (child)
		os_fd_each(handle_abandon);
}

/* ---- names and figures ----------------------------------------------------------------------- */

const char *qkvm_request_name(enum qkvm_kind kind, unsigned long request)
{
	const struct ioctl_class *class = ioctl_classes[kind];

	for (u32 i = 0; i < class->n; i++)
		if (class->rows[i].request == (u32)request)
			return class->rows[i].name;
	return NULL;
}

const void *qkvm_vcpu_run_area(int fd)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	struct vcpu *v = h ? load_acquire(&h->vcpu) : NULL;

	if (h)
		handle_release(h);
	return v ? v->run : NULL;
}

int qkvm_vcpu_stats(int fd, void (*fn)(void *arg, const char *name, uint64_t value), void *arg)
{
	struct handle *h = os_fd_object(fd, handle_hold);
	struct vcpu *v = h ? load_acquire(&h->vcpu) : NULL;

	if (v && !h->foreign)
		vcpu_stats_each(v, fn, arg);
	if (h)
		handle_release(h);
	return v ? 0 : -EBADF;
}
