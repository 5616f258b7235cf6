/* An io_uring through liburing, with its completions signalled on an eventfd. Not locked: see aio.h. */
#ifndef QUMRA_VMM_BLOCK_URING_H
#define QUMRA_VMM_BLOCK_URING_H

#include <sys/uio.h>

#include "lib/types.h"

struct aio_task;
struct uring;

/* -errno where the kernel has none, or may not be asked. */
int uring_new(struct uring **out, int event_fd);
void uring_free(struct uring *u);
/* False: the ring is full. */
bool uring_add(struct uring *u, struct aio_task *task, int fd, bool write, const struct iovec *iov,
	unsigned iovs, u64 offset, int rw_flags);
/* False: the kernel took not all of it. */
bool uring_kick(struct uring *u);
/* One completion: bytes or -errno. */
bool uring_take(struct uring *u, struct aio_task **task, int *result);

#endif
