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

/* A thread that has been in KVM_RUN. Its own; others read with the lock, "atomic" without order. */
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

static void runner_remove(void *arg)
{
	struct runner **at = &runners;

	os_mutex_lock(&lock);
	while (*at && *at != arg)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	os_mutex_unlock(&lock);
	self.listed = false;
}

/* It leaves the list when the thread ends. */
static void runner_add(struct runner *r)
{
	if (!ready || pthread_setspecific(key, r))
		return;
	r->thread = pthread_self();
	r->mark = qkvm_thread();
	r->listed = true;
	os_mutex_lock(&lock);
	r->next = runners;
	runners = r;
	os_mutex_unlock(&lock);
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
 * The type too: a cancellation that was sent before looks at nothing else in some versions of the C
 * library.
 */
void cancel_hold(void)
{
	if (unlikely(self.async))
		NEXT(pthread_setcanceltype)(PTHREAD_CANCEL_DEFERRED, NULL);
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
	if (unlikely(!self.listed))
		runner_add(&self);
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

/* Without signals: it is not itself to be cancelled with the lock held. */
static void runners_cancel(pthread_t thread)
{
	u64 mask = os_signals_block(~0ULL);

	os_mutex_lock(&lock);
	for (struct runner *r = runners; r; r = r->next)
		if (pthread_equal(r->thread, thread))
			runner_cancel(r);
	os_mutex_unlock(&lock);
	os_signals_block(mask);
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
