/* The process that we are in: the moment when it first wants KVM, and its forks. */
#include <pthread.h>
#include <unistd.h>

#include "hypervisor/preload/preload.h"

static struct {
	pthread_once_t once;
	pid_t owner;		/* whose tables these are; atomic */
	bool attached;		/* atomic; set once */
} process = { .once = PTHREAD_ONCE_INIT };

bool process_attached(void)
{
	return load_acquire(&process.attached);
}

bool process_owns(void)
{
	return READ_ONCE(process.owner) == getpid();
}

static void fork_prepare(void)
{
	signals_fork_begin();
	cancel_fork_begin();
	qkvm_fork_begin();
}

static void fork_parent(void)
{
	qkvm_fork_end(false);
	cancel_fork_end(false);
	signals_fork_end(false);
}

static void fork_child(void)
{
	qkvm_fork_end(true);
	cancel_fork_end(true);
	signals_fork_end(true);
	WRITE_ONCE(process.owner, getpid());
}

static void attach(void)
{
	WRITE_ONCE(process.owner, getpid());
	pthread_atfork(fork_prepare, fork_parent, fork_child);
	trace_attach();
	stats_attach();
	cancel_attach();
	signals_attach();
	store_release(&process.attached, true);
}

void process_attach(void)
{
	pthread_once(&process.once, attach);
}
