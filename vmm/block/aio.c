/* The pool of threads and the list of results: see aio.h. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/block/aio.h"
#include "vmm/block/uring.h"

/* Enough to keep a queue of depth 32 busy on a disk; they are started as they are needed. */
#define AIO_THREADS_MAX 16
/* When the kernel was short of memory for a ring's requests. */
#define URING_RETRY_MS	10

struct aio_list {
	struct aio_task *first, **last;
};

struct aio {
	int event_fd;
	struct uring *uring;		/* NULL: none */
	struct aio_list here;		/* aio_finish_here()'s; not locked */
	pthread_mutex_t lock;		/* guards all that follows */
	pthread_cond_t wake;
	struct aio_list todo, done;
	unsigned threads, idle, queued;
	bool stop;
	pthread_t thread[AIO_THREADS_MAX];
};

static void list_init(struct aio_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static void list_add(struct aio_list *list, struct aio_task *task)
{
	task->next = NULL;
	*list->last = task;
	list->last = &task->next;
}

static struct aio_task *list_take(struct aio_list *list)
{
	struct aio_task *task = list->first;

	list->first = task->next;
	if (!list->first)
		list->last = &list->first;
	return task;
}

static void aio_signal(struct aio *aio)
{
	u64 one = 1;
	ssize_t n = write(aio->event_fd, &one, sizeof(one));

	(void)n;	/* full means that it is readable already */
}

/* Under aio->lock. */
static void aio_give(struct aio *aio, struct aio_task *task, int result)
{
	bool first = !aio->done.first;

	task->result = result;
	list_add(&aio->done, task);
	if (first)
		aio_signal(aio);
}

static void *aio_thread(void *arg)
{
	struct aio *aio = arg;

	pthread_mutex_lock(&aio->lock);
	for (;;) {
		struct aio_task *task;
		int result;

		while (!aio->todo.first && !aio->stop) {
			aio->idle++;
			pthread_cond_wait(&aio->wake, &aio->lock);
			aio->idle--;
		}
		if (!aio->todo.first)
			break;
		task = list_take(&aio->todo);
		aio->queued--;
		pthread_mutex_unlock(&aio->lock);
		result = task->work(task);
		pthread_mutex_lock(&aio->lock);
		aio_give(aio, task, result);
	}
	pthread_mutex_unlock(&aio->lock);
	return NULL;
}

/* Threads of the pool take no signals: those are the main thread's and the vCPUs'. */
static int aio_start_thread(struct aio *aio)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&aio->thread[aio->threads], NULL, aio_thread, aio);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!ret)
		aio->threads++;
	return -ret;
}

int aio_new(struct aio **out, enum aio_kind kind, struct error *err)
{
	struct aio *aio = calloc(1, sizeof(*aio));
	int ret = 0;

	if (!aio)
		return error_set(err, ENOMEM, "out of memory");
	list_init(&aio->todo);
	list_init(&aio->done);
	list_init(&aio->here);
	pthread_mutex_init(&aio->lock, NULL);
	pthread_cond_init(&aio->wake, NULL);
	aio->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (aio->event_fd < 0)
		ret = error_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
	else if (kind != AIO_THREADS)
		ret = uring_new(&aio->uring, aio->event_fd);
	if (ret < 0 && kind == AIO_URING)
		error_set(err, -ret, "this host has no io_uring: %s", strerror(-ret));
	if (ret < 0 && (kind == AIO_URING || aio->event_fd < 0)) {
		aio_free(aio);
		return ret;
	}
	*out = aio;
	return 0;
}

void aio_free(struct aio *aio)
{
	if (!aio)
		return;
	pthread_mutex_lock(&aio->lock);
	aio->stop = true;
	pthread_cond_broadcast(&aio->wake);
	pthread_mutex_unlock(&aio->lock);
	for (unsigned i = 0; i < aio->threads; i++)
		pthread_join(aio->thread[i], NULL);
	uring_free(aio->uring);
	if (aio->event_fd >= 0)
		close(aio->event_fd);
	pthread_cond_destroy(&aio->wake);
	pthread_mutex_destroy(&aio->lock);
	free(aio);
}

int aio_fd(const struct aio *aio)
{
	return aio->event_fd;
}

bool aio_has_uring(const struct aio *aio)
{
	return aio->uring;
}

void aio_run(struct aio *aio, struct aio_task *task)
{
	pthread_mutex_lock(&aio->lock);
	list_add(&aio->todo, task);
	aio->queued++;
	/* A thread more than there are tasks waiting, unless there are enough. */
	if (aio->idle < aio->queued && aio->threads < AIO_THREADS_MAX &&
	    aio_start_thread(aio) < 0 && !aio->threads) {
		/* Not one thread to be had: what is queued is this task alone. */
		list_take(&aio->todo);
		aio->queued--;
		aio_give(aio, task, -EAGAIN);
	}
	pthread_cond_signal(&aio->wake);
	pthread_mutex_unlock(&aio->lock);
}

void aio_finish(struct aio *aio, struct aio_task *task, int result)
{
	pthread_mutex_lock(&aio->lock);
	aio_give(aio, task, result);
	pthread_mutex_unlock(&aio->lock);
}

void aio_finish_here(struct aio *aio, struct aio_task *task, int result)
{
	task->result = result;
	list_add(&aio->here, task);
}

void aio_transfer(struct aio *aio, struct aio_task *task, int fd, bool write,
	const struct iovec *iov, unsigned iovs, u64 offset, int rw_flags)
{
	if (!aio->uring || !uring_add(aio->uring, task, fd, write, iov, iovs, offset, rw_flags))
		aio_run(aio, task);
}

bool aio_kick(struct aio *aio)
{
	if (aio->here.first)
		aio_signal(aio);
	return !aio->uring || uring_kick(aio->uring);
}

/* What the kernel would not do by a ring, or not now, a thread does. */
static bool uring_again(int result)
{
	return result == -EAGAIN || result == -EINTR || result == -ECANCELED || result == -EINVAL ||
	       result == -EOPNOTSUPP;
}

static unsigned aio_poll_uring(struct aio *aio)
{
	struct aio_task *task;
	unsigned n = 0;
	int result;

	while (aio->uring && uring_take(aio->uring, &task, &result)) {
		if (result < 0 ? uring_again(result) : (u64)result < task->expect) {
			aio_run(aio, task);
			continue;
		}
		task->done(task, result < 0 ? result : 0);
		n++;
	}
	return n;
}

/* One at a time: done() may call aio_poll() itself. */
static struct aio_task *aio_take(struct aio *aio)
{
	struct aio_task *task = NULL;

	pthread_mutex_lock(&aio->lock);
	if (aio->done.first)
		task = list_take(&aio->done);
	pthread_mutex_unlock(&aio->lock);
	return task;
}

static unsigned aio_poll_list(struct aio *aio)
{
	struct aio_task *task;
	unsigned n = 0;

	for (; (task = aio_take(aio)); n++)
		task->done(task, task->result);
	return n;
}

static unsigned aio_poll_here(struct aio *aio)
{
	unsigned n = 0;

	for (; aio->here.first; n++) {
		struct aio_task *task = list_take(&aio->here);

		task->done(task, task->result);
	}
	return n;
}

void aio_reap(struct aio *aio)
{
	do {
		if (aio->uring)
			uring_kick(aio->uring);
	} while (aio_poll_here(aio) + aio_poll_uring(aio));
}

unsigned aio_poll(struct aio *aio, bool wait)
{
	struct pollfd pfd = { .fd = aio->event_fd, .events = POLLIN };
	u64 count;
	ssize_t got;

	if (wait)
		while (poll(&pfd, 1, aio_kick(aio) ? -1 : URING_RETRY_MS) < 0 && errno == EINTR)
			;
	/* First the signal, then what it is about: nothing is overlooked. */
	got = read(aio->event_fd, &count, sizeof(count));
	(void)got;
	return aio_poll_here(aio) + aio_poll_uring(aio) + aio_poll_list(aio);
}
