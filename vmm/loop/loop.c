/* The event loop: see loop.h. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/poll_time.h"
#include "vmm/loop/loop.h"

/* epoll data: the slot, and who used it. */
#define TAG_WAKE	LOOP_WATCHES_MAX
#define TAG_TIMER	(LOOP_WATCHES_MAX + 1)

static u64 loop_clock(void *arg)
{
	(void)arg;
	return clock_monotonic_ns();
}

static void loop_program(void *arg, u64 deadline)
{
	struct loop *loop = arg;
	struct itimerspec it = { 0 };

	if (deadline != TIMER_NEVER) {
		it.it_value.tv_sec = deadline / 1000000000;
		it.it_value.tv_nsec = deadline % 1000000000;
		if (!deadline)
			it.it_value.tv_nsec = 1;	/* zero would disarm */
	}
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &it, NULL);
}

static int loop_epoll_add(struct loop *loop, int fd, u32 events, u64 tag)
{
	struct epoll_event ev = { .events = events, .data.u64 = tag };

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int loop_init(struct loop *loop, pthread_mutex_t *lock, struct error *err)
{
	*loop = (struct loop){ .lock = lock, .epoll_fd = -1, .timer_fd = -1, .wake_fd = -1,
			       .let_in = PTHREAD_COND_INITIALIZER };
	for (int i = 0; i < LOOP_WATCHES_MAX; i++)
		loop->watch[i].fd = -1;
	loop->timers =
		(struct timer_queue){.clock = loop_clock, .program = loop_program, .arg = loop};
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->timer_fd < 0 || loop->wake_fd < 0 ||
	    loop_epoll_add(loop, loop->wake_fd, EPOLLIN, TAG_WAKE) < 0 ||
	    loop_epoll_add(loop, loop->timer_fd, EPOLLIN, TAG_TIMER) < 0)
		return error_set(err, errno, "cannot make an event loop: %s", strerror(errno));
	return 0;
}

void loop_destroy(struct loop *loop)
{
	int fds[] = { loop->epoll_fd, loop->timer_fd, loop->wake_fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	loop->epoll_fd = loop->timer_fd = loop->wake_fd = -1;
}

static u64 watch_tag(const struct loop *loop, int watch)
{
	return (u64)loop->watch[watch].generation << 32 | watch;
}

int loop_add(struct loop *loop, int fd, u32 events, void (*fn)(void *arg, u32 events), void *arg)
{
	struct loop_watch *w;
	int i, ret;

	for (i = 0; i < LOOP_WATCHES_MAX && loop->watch[i].fd >= 0; i++)
		;
	if (i == LOOP_WATCHES_MAX)
		return -ENOSPC;
	w = &loop->watch[i];
	*w = (struct loop_watch){ .fd = fd, .events = events, .fn = fn, .arg = arg };
	w->generation = ++loop->generation;
	ret = loop_epoll_add(loop, fd, events, watch_tag(loop, i));
	if (ret == -EPERM) {
		w->always = true;
		loop_wake(loop);
	} else if (ret < 0) {
		w->fd = -1;
		return ret;
	}
	return i;
}

void loop_change(struct loop *loop, int watch, u32 events)
{
	struct loop_watch *w = &loop->watch[watch];
	struct epoll_event ev = { .events = events, .data.u64 = watch_tag(loop, watch) };

	if (w->events == events)
		return;
	w->events = events;
	if (w->always)
		loop_wake(loop);	/* it may be asleep without a time limit */
	else
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev);
}

void loop_remove(struct loop *loop, int watch)
{
	struct loop_watch *w = &loop->watch[watch];

	if (!w->always)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->fd = -1;
}

void loop_wake(struct loop *loop)
{
	u64 one = 1;
	ssize_t n = write(loop->wake_fd, &one, sizeof(one));

	(void)n;	/* full means that it is awake already */
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
	loop_wake(loop);
}

static void loop_drain(int fd)
{
	u64 count;
	ssize_t n = read(fd, &count, sizeof(count));

	(void)n;
}

static void loop_dispatch(
	struct loop *loop, const struct epoll_event *ev, void (*on_wake)(void *), void *arg)
{
	u32 slot = (u32)ev->data.u64;
	struct loop_watch *w;

	if (slot == TAG_WAKE) {
		loop_drain(loop->wake_fd);
		on_wake(arg);
	} else if (slot == TAG_TIMER) {
		loop_drain(loop->timer_fd);
		timer_queue_run(&loop->timers);
	} else {
		w = &loop->watch[slot];
		if (w->fd >= 0 && w->generation == ev->data.u64 >> 32)
			w->fn(w->arg, ev->events);
	}
}

static bool loop_has_always(const struct loop *loop)
{
	for (int i = 0; i < LOOP_WATCHES_MAX; i++)
		if (loop->watch[i].fd >= 0 && loop->watch[i].always && loop->watch[i].events)
			return true;
	return false;
}

static void loop_run_always(struct loop *loop)
{
	for (int i = 0; i < LOOP_WATCHES_MAX; i++) {
		struct loop_watch *w = &loop->watch[i];

		if (w->fd >= 0 && w->always && w->events)
			w->fn(w->arg, w->events);
	}
}

/* Not locked. As epoll_wait() without an end, but it stays awake for a while. */
static int loop_wait(struct loop *loop, struct epoll_event *ev, int max)
{
	u64 start = clock_monotonic_ns();
	int n = 0;

	if (loop->poll_ns)
		do
			n = epoll_wait(loop->epoll_fd, ev, max, 0);
		while (!n && clock_monotonic_ns() - start < loop->poll_ns);
	if (!n)
		n = epoll_wait(loop->epoll_fd, ev, max, -1);
	loop->poll_ns = poll_time_next(
		loop->poll_ns, clock_monotonic_ns() - start, loop->poll_max_ns);
	return n;
}

void loop_enter(struct loop *loop)
{
	if (pthread_mutex_trylock(loop->lock) == 0)
		return;
	__atomic_fetch_add(&loop->waiting, 1, __ATOMIC_RELAXED);
	pthread_mutex_lock(loop->lock);
	__atomic_fetch_sub(&loop->waiting, 1, __ATOMIC_RELAXED);
	loop->entered++;
	pthread_cond_signal(&loop->let_in);
}

/* The lock for the next turn, behind one of those who wait for it. */
static void loop_take_turn(struct loop *loop)
{
	unsigned before;

	pthread_mutex_lock(loop->lock);
	before = loop->entered;
	while (__atomic_load_n(&loop->waiting, __ATOMIC_RELAXED) && loop->entered == before)
		pthread_cond_wait(&loop->let_in, loop->lock);
}

int loop_run(struct loop *loop, void (*on_wake)(void *arg), void *arg, struct error *err)
{
	struct epoll_event ev[8];
	int n, ret = 0;

	pthread_mutex_lock(loop->lock);
	while (!loop->stop) {
		bool always = loop_has_always(loop);

		pthread_mutex_unlock(loop->lock);
		if (always)
			n = epoll_wait(loop->epoll_fd, ev, ARRAY_SIZE(ev), 0);
		else
			n = loop_wait(loop, ev, ARRAY_SIZE(ev));
		loop_take_turn(loop);
		if (n < 0 && errno != EINTR) {
			ret = error_set(err, errno, "the event loop failed: %s", strerror(errno));
			break;
		}
		for (int i = 0; i < n && !loop->stop; i++)
			loop_dispatch(loop, &ev[i], on_wake, arg);
		if (always && !loop->stop)
			loop_run_always(loop);
	}
	pthread_mutex_unlock(loop->lock);
	return ret;
}
