/*
 * The seam's waiters: a thread with an epoll set of eventfds. epoll(7), eventfd(2).
 *
 * The set holds the program's own descriptors, not copies, because a copy would keep the eventfd
 * alive: so an eventfd whose last descriptor is closed leaves the set by itself. Nothing else here
 * holds it either. The price is that a descriptor may have become another file by the time that we
 * take its counter back to zero: counter_take() makes sure that it has not.
 *
 * Items are edge-triggered: each write to the eventfd is an event, whether or not the counter could
 * be taken, and a write that comes while fn runs is the next event. Nothing is lost.
 *
 * An item stays in the set when its descriptor was closed but others of the eventfd are open, and
 * then cannot be removed by anyone. So events carry a token, not an address: token_wait() knows
 * those that are over.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hypervisor/os/eventfd.h"
#include "hypervisor/os/os.h"

#define BATCH		64
#define TOKEN_STOP	~0ULL
#define COPY_FROM	512u	/* within the program's limit, but not among its numbers */

struct os_waiter {
	struct os_mutex lock;	/* the table, and while a fn runs */
	struct os_wait **wait;	/* by the lower half of the token */
	u32 n, size;
	u32 serial;		/* the upper half of the next one's */
	int ep, stop;		/* ours, as is */
	int copy;		/* the number of counter_take()'s; a copy of stop otherwise */
	pid_t pid;		/* whose thread it is: not a child's by fork */
	bool started;
	pthread_t thread;
};

/* ---- the table. Locked. ------------------------------------------------------------------- */

static struct os_wait *token_wait(const struct os_waiter *w, u64 token)
{
	u32 i = (u32)token;

	return i < w->n && w->wait[i] && w->wait[i]->token == token ? w->wait[i] : NULL;
}

static int table_enter(struct os_waiter *waiter, struct os_wait *w)
{
	u32 i = 0;

	while (i < waiter->n && waiter->wait[i])
		i++;
	if (i == waiter->size) {
		u32 size = MAX(2 * waiter->size, 16u);
		struct os_wait **grown = reallocarray(waiter->wait, size, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		waiter->wait = grown;
		waiter->size = size;
	}
	waiter->n = MAX(waiter->n, i + 1);
	waiter->wait[i] = w;
	/* Never the upper half of TOKEN_STOP. */
	waiter->serial = (waiter->serial + 1) & 0x7fffffff;
	w->token = (u64)waiter->serial << 32 | i;
	w->waiter = waiter;
	return 0;
}

/* ---- the counter -------------------------------------------------------------------------- */

static int item_set(const struct os_waiter *waiter, int op, int fd, u64 token)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = token };

	return epoll_ctl(waiter->ep, op, fd, &ev) ? -errno : 0;
}

/* Does not wait where others took it first. Before Linux 5.8 the counter just grows. */
static void counter_read(int fd)
{
	u64 count;
	struct iovec to = { .iov_base = &count, .iov_len = sizeof(count) };

	if (preadv2(fd, &to, 1, -1, RWF_NOWAIT) < 0)
		return;
}

/* The limit holds for dup3() as well: the number may be beyond one that was lowered since. */
static int copy_set(const struct os_waiter *waiter, int fd)
{
	int ret = dup3(fd, waiter->copy, O_CLOEXEC);
	struct rlimit old;

	if (ret >= 0)
		return ret;
	fd_limit_raise(&old);
	ret = dup3(fd, waiter->copy, O_CLOEXEC);
	fd_limit_restore(&old);
	return ret;
}

/*
 * To zero, as if each signal had been ours alone. What we read is a copy, for which the epoll set
 * has vouched: an item can be changed only by the very file and number that it was made with.
 */
static void counter_take(const struct os_waiter *waiter, const struct os_wait *w)
{
	if (copy_set(waiter, w->fd) < 0)
		return;
	if (!item_set(waiter, EPOLL_CTL_MOD, w->fd, w->token))
		counter_read(waiter->copy);
	copy_set(waiter, waiter->stop);
}

/* ---- the thread --------------------------------------------------------------------------- */

static void wait_serve(struct os_waiter *waiter, const struct epoll_event *ev)
{
	struct os_wait *w;

	os_mutex_lock(&waiter->lock);
	w = token_wait(waiter, ev->data.u64);
	if (w && ev->events & EPOLLIN) {
		counter_take(waiter, w);
		w->fn(w);
	}
	os_mutex_unlock(&waiter->lock);
}

static void *waiter_thread(void *arg)
{
	struct os_waiter *waiter = arg;
	struct epoll_event ev[BATCH];
	int i, n;

	prctl(PR_SET_NAME, "qumra-irqfd", 0, 0, 0);
	for (;;) {
		n = epoll_wait(waiter->ep, ev, BATCH, -1);
		/* A program that closes descriptors which are not its own has no more interrupts. */
		if (n < 0 && errno != EINTR)
			return NULL;
		for (i = 0; i < n; i++) {
			if (ev[i].data.u64 == TOKEN_STOP)
				return NULL;
			wait_serve(waiter, &ev[i]);
		}
	}
}

static int waiter_start(struct os_waiter *waiter)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int ret;

	if (waiter->started)
		return 0;
	/* No signal of the program is ever handled on this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	ret = pthread_create(&waiter->thread, &attr, waiter_thread, waiter);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	waiter->started = !ret;
	return -ret;
}

/* ---- interface ---------------------------------------------------------------------------- */

/* Moves a new descriptor aside. */
static int set_aside(int fd)
{
	int aside = fd < 0 ? -EMFILE : fd_dup_aside(fd);

	if (fd >= 0)
		close(fd);
	return aside;
}

static int waiter_open(struct os_waiter *w)
{
	struct rlimit old;
	int ep, stop;

	fd_limit_raise(&old);
	ep = epoll_create1(EPOLL_CLOEXEC);
	stop = eventfd(0, EFD_CLOEXEC);
	fd_limit_restore(&old);
	w->ep = set_aside(ep);
	w->stop = set_aside(stop);
	if (w->ep < 0 || w->stop < 0)
		return -EMFILE;
	w->copy = fcntl(w->stop, F_DUPFD_CLOEXEC, (int)MIN(old.rlim_cur / 2, COPY_FROM));
	if (w->copy < 0)
		w->copy = fd_dup_aside(w->stop);
	return w->copy < 0 ? w->copy : item_set(w, EPOLL_CTL_ADD, w->stop, TOKEN_STOP);
}

int os_waiter_create(struct os_waiter **out)
{
	struct os_waiter *w = os_alloc(sizeof(*w));
	int ret;

	if (!w)
		return -ENOMEM;
	os_mutex_init(&w->lock);
	w->pid = getpid();
	w->ep = w->stop = w->copy = -1;
	ret = waiter_open(w);
	if (ret) {
		os_waiter_destroy(w);
		return ret;
	}
	*out = w;
	return 0;
}

void os_waiter_destroy(struct os_waiter *w)
{
	u64 one = 1;

	/* In a child, the thread and what the descriptors lead to are the parent's. */
	if (w->started && w->pid == getpid()) {
		while (write(w->stop, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		pthread_join(w->thread, NULL);
	}
	if (w->copy >= 0)
		close(w->copy);
	if (w->stop >= 0)
		close(w->stop);
	if (w->ep >= 0)
		close(w->ep);
	os_mutex_destroy(&w->lock);
	free(w->wait);
	os_free(w);
}

int os_wait_add(struct os_waiter *waiter, struct os_wait *w, int fd)
{
	int ret = os_eventfd_id(fd, &w->id);

	if (!ret && waiter->pid != getpid())
		ret = -EIO;
	if (ret)
		return ret;
	w->fd = fd;
	w->closed = false;
	os_mutex_lock(&waiter->lock);
	ret = waiter_start(waiter);
	if (!ret)
		ret = table_enter(waiter, w);
	if (!ret) {
		ret = item_set(waiter, EPOLL_CTL_ADD, fd, w->token);
		/* An item that could not be removed. */
		if (ret == -EEXIST)
			ret = item_set(waiter, EPOLL_CTL_MOD, fd, w->token);
		if (ret)
			waiter->wait[(u32)w->token] = NULL;
	}
	os_mutex_unlock(&waiter->lock);
	return ret;
}

void os_wait_remove(struct os_wait *w)
{
	struct os_waiter *waiter = w->waiter;
	u64 id;

	/* In a child, the lock may be held for ever and the set is the parent's. */
	if (waiter->pid != getpid()) {
		waiter->wait[(u32)w->token] = NULL;
		return;
	}
	os_mutex_lock(&waiter->lock);
	waiter->wait[(u32)w->token] = NULL;
	/* The number may be another eventfd's by now, which is waited for as well. */
	if (!w->closed && !os_eventfd_id(w->fd, &id) && id == w->id) {
		counter_take(waiter, w);
		epoll_ctl(waiter->ep, EPOLL_CTL_DEL, w->fd, NULL);
	}
	os_mutex_unlock(&waiter->lock);
}

/* ---- eventfds that are gone --------------------------------------------------------------- */

/* Marks what the set's fdinfo lists ("tfd: 5 events: 80000001 data: 100000003 ..."). True if it
 * lists the stop item, which is there for certain. */
static bool look_through(struct os_waiter *waiter, FILE *f)
{
	unsigned long long token;
	bool complete = false;
	struct os_wait *w;
	char line[256];

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "tfd: %*d events: %*x data: %llx", &token) != 1)
			continue;
		complete |= token == TOKEN_STOP;
		w = token_wait(waiter, token);
		if (w)
			w->closed = false;
	}
	return complete;
}

void os_waiter_look(struct os_waiter *waiter)
{
	int info = fd_info_open(waiter->ep);
	FILE *f = info < 0 ? NULL : fdopen(info, "r");
	bool complete;
	u32 i;

	if (!f) {
		if (info >= 0)
			close(info);
		return;
	}
	os_mutex_lock(&waiter->lock);
	for (i = 0; i < waiter->n; i++)
		if (waiter->wait[i])
			waiter->wait[i]->closed = true;
	complete = look_through(waiter, f);
	for (i = 0; !complete && i < waiter->n; i++)
		if (waiter->wait[i])
			waiter->wait[i]->closed = false;
	os_mutex_unlock(&waiter->lock);
	fclose(f);
}
