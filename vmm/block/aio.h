/*
 * Asynchronous input and output for one image: io_uring where there is one, and a pool of threads for
 * what blocks. Results are handed out by aio_poll() and aio_reap() only, in the thread that calls them.
 *
 * Everything but the work() of a task is called under the image's lock (block.h).
 */
#ifndef QUMRA_VMM_BLOCK_AIO_H
#define QUMRA_VMM_BLOCK_AIO_H

#include <sys/uio.h>

#include "lib/error.h"
#include "lib/types.h"

struct aio;

struct aio_task {
	int (*work)(struct aio_task *task);	/* blocking; any thread, without locks; 0 or -errno */
	void (*done)(struct aio_task *task, int result);	/* from aio_poll() */
	struct aio_task *next;
	u64 expect;		/* bytes; io_uring: anything less is done again by work() */
	int result;
};

enum aio_kind { AIO_AUTO, AIO_THREADS, AIO_URING };

int aio_new(struct aio **out, enum aio_kind kind, struct error *err);
void aio_free(struct aio *aio);
/* Readable when aio_poll() has something to hand out. */
int aio_fd(const struct aio *aio);
bool aio_has_uring(const struct aio *aio);

/* work() in a thread of the pool. */
void aio_run(struct aio *aio, struct aio_task *task);
/* Nothing to do; the result is handed out as others are. */
void aio_finish(struct aio *aio, struct aio_task *task, int result);
/* The same for what was done in this thread: aio_kick() or aio_reap() is called soon. */
void aio_finish_here(struct aio *aio, struct aio_task *task, int result);
/*
 * A vectored read or write of a descriptor by io_uring; where that cannot be (no ring, ring full) or
 * comes out short or interrupted, work() does all of it instead.
 */
void aio_transfer(struct aio *aio, struct aio_task *task, int fd, bool write,
	const struct iovec *iov, unsigned iovs, u64 offset, int rw_flags);
/* To the kernel with what was queued, and makes what waits known; false: not all of it, call again. */
bool aio_kick(struct aio *aio);
/* Hands out results; with wait, sleeps until there is one. Returns how many. */
unsigned aio_poll(struct aio *aio, bool wait);
/* To the kernel with what was queued; hands out what needs no waiting for. */
void aio_reap(struct aio *aio);

#endif
