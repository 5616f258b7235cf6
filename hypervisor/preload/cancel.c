/*
 * pthread_cancel(3) of a thread that is in a call of ours.
 *
 * To the C library an ioctl is no cancellation point: a thread of the deferred type stays in the
 * kernel's KVM_RUN, one of the asynchronous type dies there at once, and the kernel lets go of what
 * it held. We hold locks, and call functions that are cancellation points. So cancellation is off
 * in each call of ours, and the thread dies, if it is to, where its state is restored at the end.
 * The C library announces nothing to a thread that holds cancellation off, so whoever cancels one
 * of the asynchronous type that is in KVM_RUN interrupts that. pthreads(7), pthread_setcanceltype(3)
 */
#include <pthread.h>

#include "hypervisor/os/os.h"
#include "hypervisor/preload/preload.h"

/*
 * A thread that was in a call with the asynchronous type. Its own; others read with the lock, "atomic"
 * without order.
 */
struct runner {
	struct runner *next;
	pthread_t thread;
	void *mark;		/* qkvm_thread() */
	int fd;			/* atomic: of its last KVM_RUN */
	bool listed;
	bool running;		/* atomic */
	bool cancelled;		/* atomic; stays */
	bool async;		/* atomic: of the asynchronous type, by the program's wish */
	int state;		/* outside of the call, in it */
};

static __thread struct runner self __attribute__((tls_model("initial-exec")));

static struct os_mutex lock;
static struct runner *runners;	/* under lock */
static pthread_key_t key;
static bool ready;		/* there is a key */

/* ---- who is in KVM_RUN ----------------------------------------------------------------------- */

/*
 * Without signals: a handler may cancel a thread, and the thread is not to be cancelled itself with the
 * lock held. Returns what was blocked before.
 */
static u64 list_lock(void)
{
	u64 mask = os_signals_block(~0ULL);

	os_mutex_lock(&lock);
	return mask;
}

static void list_unlock(u64 mask)
{
	os_mutex_unlock(&lock);
	os_signals_block(mask);
}

static void runner_remove(void *arg)
{
	struct runner **at = &runners;
	u64 mask = list_lock();

	while (*at && *at != arg)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	list_unlock(mask);
	self.listed = false;
}

/* It leaves the list when the thread ends. */
static void runner_add(struct runner *r)
{
	u64 mask;

	if (!ready || pthread_setspecific(key, r))
		return;
	r->thread = pthread_self();
	r->mark = qkvm_thread();
	r->listed = true;
	mask = list_lock();
	r->next = runners;
	runners = r;
	list_unlock(mask);
}

void cancel_attach(void)
{
	os_mutex_init(&lock);
	ready = !pthread_key_create(&key, runner_remove);
}

void cancel_fork_begin(void)
{
	os_mutex_lock(&lock);
}

/* In the child there is this thread alone. */
void cancel_fork_end(bool child)
{
	if (child) {
		runners = self.listed ? &self : NULL;
		self.next = NULL;
	}
	os_mutex_unlock(&lock);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/*
 * What was sent before may come now, a signal, and that of glibc 2.36 looks at the type alone, which is
 * asynchronous again in each function that is a cancellation point: close(2), with a lock of ours
 * held. Such a function waits at its end for what was sent. So one that does nothing comes first.
 * The thread may die in there, or behind it: of what was sent before it was in the list.
 * glibc nptl/cancellation.c __pthread_disable_asynccancel()
 */
static void async_hold(void)
{
	int saved = errno;

	NEXT(pthread_setcanceltype)(PTHREAD_CANCEL_DEFERRED, NULL);
	if (unlikely(!self.listed))
		runner_add(&self);
	NEXT(close)(-1);
	pthread_testcancel();
	errno = saved;
}

void cancel_hold(void)
{
	if (unlikely(self.async))
		async_hold();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &self.state);
}

/*
 * The thread may end here: with the type, as glibc 2.36 forgets to say PTHREAD_CANCELED where it
 * ends one for its state.
 */
void cancel_release(void)
{
	WRITE_ONCE(self.running, false);
	if (self.state == PTHREAD_CANCEL_ENABLE)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	if (unlikely(self.async))
		NEXT(pthread_setcanceltype)(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
}

static bool self_cancelled(void)
{
	return __atomic_load_n(&self.cancelled, __ATOMIC_SEQ_CST) && self.async &&
		self.state == PTHREAD_CANCEL_ENABLE;
}

/*
 * With cancellation held: a KVM_RUN begins, and nothing of before interrupts it. Who cancels the thread
 * now sees that it runs, or is seen.
 */
void cancel_run(int fd)
{
	WRITE_ONCE(self.fd, fd);
	if (unlikely(self.async)) {
		__atomic_store_n(&self.running, true, __ATOMIC_SEQ_CST);
		if (self_cancelled())
			qkvm_interrupt(true);
	}
}

/* ---- the program's own calls ----------------------------------------------------------------- */

static void runner_cancel(struct runner *r)
{
	__atomic_store_n(&r->cancelled, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&r->running, __ATOMIC_SEQ_CST) && r->state == PTHREAD_CANCEL_ENABLE)
		qkvm_interrupt_thread(r->mark, READ_ONCE(r->fd));
}

static void runners_cancel(pthread_t thread)
{
	u64 mask = list_lock();

	for (struct runner *r = runners; r; r = r->next)
		if (pthread_equal(r->thread, thread))
			runner_cancel(r);
	list_unlock(mask);
}

EXPORT int pthread_cancel(pthread_t thread)
{
	int ret = NEXT(pthread_cancel)(thread);

	if (!ret && process_attached() && process_owns())
		runners_cancel(thread);
	return ret;
}

EXPORT int pthread_setcanceltype(int type, int *old)
{
	if (type == PTHREAD_CANCEL_ASYNCHRONOUS || type == PTHREAD_CANCEL_DEFERRED)
		WRITE_ONCE(self.async, type == PTHREAD_CANCEL_ASYNCHRONOUS);
	return NEXT(pthread_setcanceltype)(type, old);
}
