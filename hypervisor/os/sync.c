/*
 * The seam's locks, events and signal masks, straight on the futex and signal system calls: the
 * kernel keeps the vector registers over a system call, the C library need not. This file is
 * compiled with -mgeneral-regs-only.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "hypervisor/os/os.h"
#include "hypervisor/os/syscall.h"

static void futex_wake_one(u32 *word)
{
	sys6(SYS_futex, (unsigned long)word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

static void cpu_pause(void)
{
	__asm__ volatile("pause");
}

/* ---- mutex -------------------------------------------------------------------------------- */

enum { FREE, LOCKED, CONTENDED };
#define MUTEX_SPINS 100 /* about a microsecond: our sections are mostly shorter than a sleep */

void os_mutex_init(struct os_mutex *m)
{
	m->state = FREE;
}

void os_mutex_destroy(struct os_mutex *m)
{
}

bool os_mutex_trylock(struct os_mutex *m)
{
	u32 expect = FREE;

	return __atomic_compare_exchange_n(&m->state, &expect, LOCKED, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

void os_mutex_lock(struct os_mutex *m)
{
	unsigned int i;

	for (i = 0; i < MUTEX_SPINS; i++) {
		if (READ_ONCE(m->state) == FREE && os_mutex_trylock(m))
			return;
		cpu_pause();
	}
	while (__atomic_exchange_n(&m->state, CONTENDED, __ATOMIC_ACQUIRE) != FREE)
		sys6(SYS_futex, (unsigned long)&m->state, FUTEX_WAIT_PRIVATE, CONTENDED, 0, 0, 0);
}

void os_mutex_unlock(struct os_mutex *m)
{
	if (__atomic_exchange_n(&m->state, FREE, __ATOMIC_RELEASE) == CONTENDED)
		futex_wake_one(&m->state);
}

/* ---- event -------------------------------------------------------------------------------- */

enum { QUIET, SIGNALLED, SLEEPING };

/* Where the kernel cannot wait on two words at once (before Linux 5.16), *stop is looked at this
 * often. */
#define STOP_POLL_NS 2000000ULL

void os_event_init(struct os_event *e)
{
	e->state = QUIET;
}

void os_event_signal(struct os_event *e)
{
	if (__atomic_exchange_n(&e->state, SIGNALLED, __ATOMIC_SEQ_CST) == SLEEPING)
		futex_wake_one(&e->state);
}

/* From one state to another, if it was in the first. */
static bool event_change(struct os_event *e, u32 from, u32 to)
{
	return __atomic_compare_exchange_n(&e->state, &from, to, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

static bool event_take(struct os_event *e)
{
	return event_change(e, SIGNALLED, QUIET);
}

static struct timespec deadline_spec(u64 ns)
{
	/* Never no timeout at all: without one, a wait is restarted behind an SA_RESTART handler's
	 * back. */
	if (ns == OS_FOREVER)
		return (struct timespec){ .tv_sec = 1LL << 40 };
	return (struct timespec){ .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
}

static long event_sleep_one(struct os_event *e, u64 deadline_ns)
{
	struct timespec ts = deadline_spec(deadline_ns);

	return sys6(SYS_futex, (unsigned long)&e->state, FUTEX_WAIT_BITSET_PRIVATE, SLEEPING,
		    (unsigned long)&ts, 0, FUTEX_BITSET_MATCH_ANY);
}

/* Sleeps on e and on the word around *stop, so that a change of either before the sleep prevents
 * it. */
static long event_sleep_both(struct os_event *e, u64 deadline_ns, const volatile u8 *stop)
{
	const u32 *word = (const u32 *)((uintptr_t)stop & ~3UL);
	struct timespec ts = deadline_spec(deadline_ns);
	struct futex_waitv w[2] = {
		{ .val = SLEEPING, .uaddr = (uintptr_t)&e->state },
		{ .val = READ_ONCE(*word), .uaddr = (uintptr_t)word },
	};

	if (*stop)
		return -EINTR;
	w[0].flags = w[1].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
	return sys6(SYS_futex_waitv, (unsigned long)w, 2, 0, (unsigned long)&ts, CLOCK_MONOTONIC,
		    0);
}

static long event_sleep(struct os_event *e, u64 deadline_ns, const volatile u8 *stop)
{
	long ret;
	u64 slice;

	if (!stop)
		return event_sleep_one(e, deadline_ns);
	ret = event_sleep_both(e, deadline_ns, stop);
	if (ret != -ENOSYS && ret != -EPERM)
		return ret;
	slice = MIN(deadline_ns, os_clock_ns() + STOP_POLL_NS);
	ret = event_sleep_one(e, slice);
	return ret == -ETIMEDOUT && slice != deadline_ns ? -EAGAIN : ret;
}

int os_event_wait(struct os_event *e, u64 deadline_ns, const volatile u8 *stop)
{
	long ret;

	for (;;) {
		if (event_take(e))
			return 0;
		if (stop && *stop)
			return -EINTR;
		if (!event_change(e, QUIET, SLEEPING))
			continue;
		ret = event_sleep(e, deadline_ns, stop);
		event_change(e, SLEEPING, QUIET);
		if (ret == -ETIMEDOUT || ret == -EINTR)
			return event_take(e) ? 0 : ret;
	}
}

bool os_event_poll(struct os_event *e, u64 ns, const volatile u8 *stop)
{
	u64 start = os_clock_ns();

	do {
		if ((READ_ONCE(e->state) == SIGNALLED && event_take(e)) || *stop || os_run_caught())
			return true;
		cpu_pause();
	} while (os_clock_ns() - start < ns);
	return false;
}

void os_yield(void)
{
	sys6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* ---- signals ------------------------------------------------------------------------------ */

u64 os_signals_pending(void)
{
	u64 set = 0;

	sys6(SYS_rt_sigpending, (unsigned long)&set, sizeof(set), 0, 0, 0, 0);
	return set;
}

u64 os_signals_block(u64 mask)
{
	u64 before = 0;

	sys6(SYS_rt_sigprocmask, SIG_SETMASK, (unsigned long)&mask, (unsigned long)&before,
		sizeof(mask), 0, 0);
	return before;
}

u64 os_signals_hold(u64 mask)
{
	static const u64 faults = BIT(SIGSEGV - 1) | BIT(SIGBUS - 1) | BIT(SIGFPE - 1) | BIT(SIGILL - 1);
	u64 before = 0;

	mask &= ~faults;
	sys6(SYS_rt_sigprocmask, SIG_BLOCK, (unsigned long)&mask, (unsigned long)&before,
		sizeof(mask), 0, 0);
	return before;
}

static __thread struct run_thread {
	void *run;
	bool caught;		/* atomic */
} self __attribute__((tls_model("initial-exec")));

void os_run_set(void *run)
{
	*(void *volatile *)&self.run = run;
}

void *os_run_get(void)
{
	return *(void *volatile *)&self.run;
}

void os_run_catch(bool caught)
{
	*(volatile bool *)&self.caught = caught;
}

bool os_run_caught(void)
{
	return *(volatile bool *)&self.caught;
}

void *os_run_thread(void)
{
	return &self;
}

void os_run_catch_thread(void *thread)
{
	struct run_thread *t = thread;

	__atomic_store_n(&t->caught, true, __ATOMIC_SEQ_CST);
}
