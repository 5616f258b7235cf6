/*
 * An I/O thread: an event loop on a thread of its own, with a lock of its own. What runs in its
 * callbacks holds that lock. The machine's lock may be held when it is taken, never the other way
 * round.
 */
#ifndef QUMRA_VMM_LOOP_IO_THREAD_H
#define QUMRA_VMM_LOOP_IO_THREAD_H

#include "vmm/loop/loop.h"

struct io_thread {
	pthread_mutex_t lock;
	struct loop loop;
	pthread_t thread;
	bool started;
};

/* The loop exists, watches may be added; nothing runs. */
int io_thread_init(struct io_thread *io, struct error *err);
int io_thread_start(struct io_thread *io, struct error *err);
/* Ends the thread, if it runs; the loop stays. */
void io_thread_stop(struct io_thread *io);
void io_thread_destroy(struct io_thread *io);

#endif
