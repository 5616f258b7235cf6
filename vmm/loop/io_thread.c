/* I/O threads: see io_thread.h. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "lib/log.h"
#include "lib/poll_time.h"
#include "vmm/loop/io_thread.h"

static void io_thread_woken(void *arg)
{
	(void)arg;
}

static void *io_thread_run(void *arg)
{
	struct io_thread *io = arg;
	struct error err = ERROR_INIT;

	pthread_setname_np(pthread_self(), "qumra-io");
	if (loop_run(&io->loop, io_thread_woken, io, &err) < 0)
		log_line("an I/O thread ends: %s", err.text);
	return NULL;
}

int io_thread_init(struct io_thread *io, struct error *err)
{
	cpu_set_t cpus;
	int ret;

	*io = (struct io_thread){ 0 };
	pthread_mutex_init(&io->lock, NULL);
	ret = loop_init(&io->loop, &io->lock, err);
	/* One CPU: whoever wakes the thread could not run while it looks. */
	io->loop.poll_max_ns = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 &&
		CPU_COUNT(&cpus) > 1 ? POLL_TIME_MAX_NS : 0;
	if (ret < 0)
		loop_destroy(&io->loop);
	return ret;
}

int io_thread_start(struct io_thread *io, struct error *err)
{
	int ret = pthread_create(&io->thread, NULL, io_thread_run, io);

	if (ret)
		return error_set(err, ret, "cannot start an I/O thread: %s", strerror(ret));
	io->started = true;
	return 0;
}

void io_thread_stop(struct io_thread *io)
{
	if (!io->started)
		return;
	pthread_mutex_lock(&io->lock);
	loop_stop(&io->loop);
	pthread_mutex_unlock(&io->lock);
	pthread_join(io->thread, NULL);
	io->started = false;
}

void io_thread_destroy(struct io_thread *io)
{
	io_thread_stop(io);
	loop_destroy(&io->loop);
}
