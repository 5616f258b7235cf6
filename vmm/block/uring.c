/* io_uring: see uring.h. Operations used: READV and WRITEV, which every kernel with io_uring has. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#include "vmm/block/uring.h"

#define URING_ENTRIES 256

struct uring {
	struct io_uring ring;
	unsigned in_flight, unsubmitted;
};

int uring_new(struct uring **out, int event_fd)
{
	struct uring *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return -ENOMEM;
	ret = io_uring_queue_init(URING_ENTRIES, &u->ring, 0);
	if (ret < 0) {
		free(u);
		return ret;
	}
	ret = io_uring_register_eventfd(&u->ring, event_fd);
	if (ret < 0) {
		uring_free(u);
		return ret;
	}
	*out = u;
	return 0;
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	io_uring_queue_exit(&u->ring);
	free(u);
}

bool uring_add(struct uring *u, struct aio_task *task, int fd, bool write, const struct iovec *iov,
	unsigned iovs, u64 offset, int rw_flags)
{
	struct io_uring_sqe *sqe;

	/* Completions never overflow: no more are under way than fit the completion queue. */
	if (u->in_flight >= 2 * URING_ENTRIES)
		return false;
	sqe = io_uring_get_sqe(&u->ring);
	if (!sqe) {
		uring_kick(u);
		sqe = io_uring_get_sqe(&u->ring);
	}
	if (!sqe)
		return false;
	if (write)
		io_uring_prep_writev2(sqe, fd, iov, iovs, offset, rw_flags);
	else
		io_uring_prep_readv2(sqe, fd, iov, iovs, offset, rw_flags);
	io_uring_sqe_set_data(sqe, task);
	u->in_flight++;
	u->unsubmitted++;
	return true;
}

bool uring_kick(struct uring *u)
{
	while (u->unsubmitted) {
		int n = io_uring_submit(&u->ring);

		if (n > 0)
			u->unsubmitted -= MIN(u->unsubmitted, (unsigned)n);
		else if (n != -EINTR)
			break;	/* short of memory; the next kick tries again */
	}
	return !u->unsubmitted;
}

bool uring_take(struct uring *u, struct aio_task **task, int *result)
{
	struct io_uring_cqe *cqe;

	if (io_uring_peek_cqe(&u->ring, &cqe) < 0 || !cqe)
		return false;
	*task = io_uring_cqe_get_data(cqe);
	*result = cqe->res;
	io_uring_cqe_seen(&u->ring, cqe);
	u->in_flight--;
	return true;
}
