/*
 * The seam's one-shot timers: a pairing heap of armed timers and one service thread, started with
 * the first timer that is made, that sleeps until the earliest deadline. Arming and cancelling keep
 * the vector registers, as guests do that by device registers.
 *
 * Pairing heap: each timer has a first child, a next sibling, and prev, which is the previous
 * sibling, or the parent for a first child. Insert is constant time, removal amortized logarithmic,
 * and no memory is allocated, so arming cannot fail.
 */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "hypervisor/os/native.h"
#include "hypervisor/os/os.h"
#include "hypervisor/os/syscall.h"

struct timer {
	void (*fn)(void *arg);
	void *arg;
	u64 deadline;
	struct timer *child, *next, *prev;
	bool armed;
	u32 cancelling;		/* callers of os_timer_cancel(): the function's own arming is void */
};
_Static_assert(sizeof(struct timer) <= sizeof(struct os_timer), "struct os_timer has room");

static struct timer_service {
	struct os_mutex lock;
	u32 calls;		/* of functions that have returned; whoever cancels one waits for it */
	pthread_once_t once;
	struct os_event wake;	/* the earliest deadline changed */
	struct timer *root;
	struct timer *running;	/* its fn is being called */
} service = {
	.once = PTHREAD_ONCE_INIT,
};

static struct timer *timer_of(struct os_timer *t)
{
	return (struct timer *)t->opaque;
}

/* ---- heap --------------------------------------------------------------------------------- */

static struct timer *heap_meld(struct timer *a, struct timer *b)
{
	struct timer *top, *sub;

	if (!a || !b)
		return a ? a : b;
	top = b->deadline < a->deadline ? b : a;
	sub = top == a ? b : a;
	sub->next = top->child;
	if (sub->next)
		sub->next->prev = sub;
	sub->prev = top;
	top->child = sub;
	top->next = top->prev = NULL;
	return top;
}

/* Makes one heap of a list of siblings: in pairs from the left, then all from the right. */
static struct timer *heap_merge_pairs(struct timer *list)
{
	struct timer *pairs = NULL, *heap = NULL;

	while (list) {
		struct timer *a = list, *b = a->next, *pair;

		list = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		pair = heap_meld(a, b);
		pair->next = pairs;
		pairs = pair;
	}
	while (pairs) {
		struct timer *rest = pairs->next;

		pairs->next = NULL;
		heap = heap_meld(heap, pairs);
		pairs = rest;
	}
	return heap;
}

static struct timer *heap_remove(struct timer *root, struct timer *t)
{
	struct timer *sub = heap_merge_pairs(t->child);

	t->child = NULL;
	if (t == root)
		return sub;
	if (t->prev->child == t)
		t->prev->child = t->next;
	else
		t->prev->next = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->next = t->prev = NULL;
	return heap_meld(root, sub);
}

/* ---- service ------------------------------------------------------------------------------ */

static void timer_disarm(struct timer *t)
{
	if (!t->armed)
		return;
	service.root = heap_remove(service.root, t);
	t->armed = false;
}

/* Until another call of a timer's function is over. Locked, but not during the wait. */
static void service_wait(void)
{
	u32 calls = service.calls;

	os_mutex_unlock(&service.lock);
	sys6(SYS_futex, (unsigned long)&service.calls, FUTEX_WAIT_PRIVATE, calls, 0, 0, 0);
	os_mutex_lock(&service.lock);
}

/* Calls what is due; returns the next deadline. Locked, but not during the calls. */
static u64 service_run_due(void)
{
	struct timer *t;

	while ((t = service.root) && t->deadline <= os_clock_ns()) {
		timer_disarm(t);
		service.running = t;
		os_mutex_unlock(&service.lock);
		t->fn(t->arg);
		os_mutex_lock(&service.lock);
		service.running = NULL;
		__atomic_store_n(&service.calls, service.calls + 1, __ATOMIC_RELEASE);
		sys6(SYS_futex, (unsigned long)&service.calls, FUTEX_WAKE_PRIVATE, INT_MAX, 0, 0, 0);
	}
	return t ? t->deadline : OS_FOREVER;
}

static void *service_thread(void *arg)
{
	u64 deadline;

	/* The default slack of 50 us would be added to every deadline. */
	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	prctl(PR_SET_NAME, "qumra-timer", 0, 0, 0);
	for (;;) {
		os_mutex_lock(&service.lock);
		deadline = service_run_due();
		os_mutex_unlock(&service.lock);
		os_event_wait(&service.wake, deadline, NULL);
	}
	return arg;
}

static void service_start(void)
{
	sigset_t all, old;
	pthread_attr_t attr;
	pthread_t thread;

	/* No signal of the program is ever handled on this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 << 10);
	if (pthread_create(&thread, &attr, service_thread, NULL))
		os_panic("cannot start the timer thread");
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* ---- interface ---------------------------------------------------------------------------- */

void os_timer_init(struct os_timer *ot, void (*fn)(void *arg), void *arg)
{
	pthread_once(&service.once, service_start);
	*timer_of(ot) = (struct timer){ .fn = fn, .arg = arg };
}

void os_timer_arm(struct os_timer *ot, u64 deadline_ns)
{
	struct timer *t = timer_of(ot);
	bool first;

	os_mutex_lock(&service.lock);
	timer_disarm(t);
	if (!t->cancelling) {
		t->deadline = deadline_ns;
		t->armed = true;
		service.root = heap_meld(service.root, t);
	}
	first = service.root == t;
	os_mutex_unlock(&service.lock);
	if (first)
		os_event_signal(&service.wake);
}

void os_timer_cancel(struct os_timer *ot)
{
	struct timer *t = timer_of(ot);

	os_mutex_lock(&service.lock);
	t->cancelling++;
	timer_disarm(t);
	while (service.running == t)
		service_wait();
	t->cancelling--;
	os_mutex_unlock(&service.lock);
}

void os_timer_destroy(struct os_timer *ot)
{
	os_timer_cancel(ot);
}

/* Its thread is in the parent, and so is whoever armed a timer. */
void timer_fork_child(void)
{
	service = (struct timer_service){ .once = PTHREAD_ONCE_INIT };
}
