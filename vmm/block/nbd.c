/*
 * Images on NBD servers, through libnbd. The connection belongs to a thread of its own: it takes
 * commands from a queue, hands them to libnbd and tells whoever waits. Everybody else only touches the
 * queue.
 *
 * A connection that is lost stays lost: all requests fail with -EIO, in order and at once.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/block/iov.h"
#include "vmm/block/nbd_library.h"
#include "vmm/block/proto.h"

/* A server must take this much (NBD protocol, "Block size constraints"). */
#define NBD_BYTES_MAX (32U << 20)
/* What has no data may be longer. */
#define NBD_RANGE_MAX (1U << 30)

enum nbd_op { NBD_READ, NBD_WRITE, NBD_FLUSH, NBD_TRIM, NBD_ZERO };

struct nbd_command {
	enum nbd_op op;
	void *buf;
	u64 offset, bytes;
	u32 flags;
	/* Guarded by the lock of the connection. */
	struct nbd_command *next;
	struct nbd *nbd;
	int result;
	bool done;
};

struct nbd {
	struct proto proto;
	struct nbd_library lib;
	struct nbd_handle *handle;
	u64 size;
	bool no_flush, can_flush, can_fua, can_trim, can_zero;
	int wake_fd;
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t finished;
	struct nbd_command *first, **last;
	unsigned under_way;		/* in libnbd; the thread's own */
	bool stop;
};

static struct nbd *nbd_of(struct proto *p)
{
	return container_of(p, struct nbd, proto);
}

static void command_finish(struct nbd_command *c, int result)
{
	struct nbd *n = c->nbd;

	pthread_mutex_lock(&n->lock);
	c->result = result;
	c->done = true;
	pthread_cond_broadcast(&n->finished);
	pthread_mutex_unlock(&n->lock);
}

/* libnbd's word that a command is done, in the thread. It wants 1: nothing more to be told. */
static int command_completed(void *user, int *error)
{
	struct nbd_command *c = user;

	c->nbd->under_way--;
	command_finish(c, *error ? -*error : 0);
	return 1;
}

static s64 command_issue(struct nbd *n, struct nbd_command *c)
{
	nbd_completion_callback done = { .callback = command_completed, .user_data = c };
	struct nbd_handle *h = n->handle;

	switch (c->op) {
	case NBD_READ: return n->lib.aio_pread(h, c->buf, c->bytes, c->offset, done, 0);
	case NBD_WRITE: return n->lib.aio_pwrite(h, c->buf, c->bytes, c->offset, done, c->flags);
	case NBD_FLUSH: return n->lib.aio_flush(h, done, 0);
	case NBD_TRIM: return n->lib.aio_trim(h, c->bytes, c->offset, done, 0);
	case NBD_ZERO: return n->lib.aio_zero(h, c->bytes, c->offset, done, c->flags);
	}
	return -1;
}

/* All that is queued, to libnbd; false: the end was asked for, and nothing is left. */
static bool nbd_take(struct nbd *n)
{
	struct nbd_command *c, *next;
	bool stop;

	pthread_mutex_lock(&n->lock);
	c = n->first;
	n->first = NULL;
	n->last = &n->first;
	stop = n->stop;
	pthread_mutex_unlock(&n->lock);
	if (!c && stop && !n->under_way)
		return false;
	for (; c; c = next) {
		next = c->next;
		n->under_way++;
		if (command_issue(n, c) < 0) {
			n->under_way--;
			command_finish(c, -EIO);
		}
	}
	return true;
}

static void nbd_wait(struct nbd *n)
{
	unsigned direction = n->lib.aio_get_direction(n->handle);
	bool alive = !n->lib.aio_is_dead(n->handle) && !n->lib.aio_is_closed(n->handle);
	struct pollfd pfd[2] = {
		{ .fd = n->wake_fd, .events = POLLIN },
		{ .fd = alive ? n->lib.aio_get_fd(n->handle) : -1 },
	};
	u64 count;
	ssize_t got;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		pfd[1].events |= POLLIN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		pfd[1].events |= POLLOUT;
	if (poll(pfd, 2, -1) < 0)
		return;
	if (pfd[0].revents) {
		got = read(n->wake_fd, &count, sizeof(count));
		(void)got;
	}
	/* What goes wrong here is told to the commands. */
	if (pfd[1].revents & POLLIN || pfd[1].revents & (POLLHUP | POLLERR))
		n->lib.aio_notify_read(n->handle);
	else if (pfd[1].revents & POLLOUT)
		n->lib.aio_notify_write(n->handle);
}

static void *nbd_thread(void *arg)
{
	struct nbd *n = arg;

	while (nbd_take(n))
		nbd_wait(n);
	return NULL;
}

static void nbd_wake(struct nbd *n)
{
	u64 one = 1;
	ssize_t got = write(n->wake_fd, &one, sizeof(one));

	(void)got;
}

static int nbd_do(struct nbd *n, struct nbd_command *c)
{
	c->nbd = n;
	c->next = NULL;
	c->done = false;
	pthread_mutex_lock(&n->lock);
	*n->last = c;
	n->last = &c->next;
	nbd_wake(n);
	while (!c->done)
		pthread_cond_wait(&n->finished, &n->lock);
	pthread_mutex_unlock(&n->lock);
	return c->result;
}

/* --- the operations --- */

static int nbd_piece(struct nbd *n, const struct iovec *iov, unsigned iovs, u64 skip, u64 bytes,
	struct nbd_command *c, void *buf)
{
	int ret;

	c->bytes = bytes;
	/* libnbd wants one buffer; often it is one. */
	c->buf = iovs == 1 ? (u8 *)iov->iov_base + skip : buf;
	if (c->op == NBD_WRITE && c->buf == buf)
		iov_to_buffer(buf, iov, iovs, skip, bytes);
	ret = nbd_do(n, c);
	if (!ret && c->op == NBD_READ && c->buf == buf)
		iov_from_buffer(iov, iovs, skip, buf, bytes);
	return ret;
}

static int nbd_transfer(struct nbd *n, enum nbd_op op, const struct iovec *iov, unsigned iovs,
	u64 offset, u32 flags)
{
	u64 total = iov_bytes(iov, iovs), bytes;
	void *buf = iovs == 1 ? NULL : malloc(MIN(total, NBD_BYTES_MAX) ?: 1);
	int ret = iovs == 1 || buf ? 0 : -ENOMEM;

	for (u64 done = 0; !ret && done < total; done += bytes) {
		struct nbd_command c = { .op = op, .offset = offset + done, .flags = flags };

		bytes = MIN(total - done, NBD_BYTES_MAX);
		ret = nbd_piece(n, iov, iovs, done, bytes, &c, buf);
	}
	free(buf);
	return ret;
}

static int nbd_readv(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset)
{
	struct nbd *n = nbd_of(p);
	u64 total = iov_bytes(iov, iovs), there = offset < n->size ? MIN(total, n->size - offset) : 0;
	struct iovec *part;
	int ret;

	if (there == total)
		return nbd_transfer(n, NBD_READ, iov, iovs, offset, 0);
	iov_zero(iov, iovs, there, total - there);
	part = malloc(iovs * sizeof(*part));
	ret = part ? nbd_transfer(n, NBD_READ, part, iov_cut(part, iov, iovs, 0, there), offset, 0) :
		     -ENOMEM;
	free(part);
	return ret;
}

static int nbd_flush_server(struct proto *p)
{
	struct nbd_command c = { .op = NBD_FLUSH };
	struct nbd *n = nbd_of(p);

	return n->no_flush || !n->can_flush ? 0 : nbd_do(n, &c);
}

static int nbd_writev(struct proto *p, const struct iovec *iov, unsigned iovs, u64 offset, bool fua)
{
	struct nbd *n = nbd_of(p);
	int ret;

	fua = (fua || p->write_through) && !n->no_flush;
	ret = nbd_transfer(n, NBD_WRITE, iov, iovs, offset,
		fua && n->can_fua ? LIBNBD_CMD_FLAG_FUA : 0);
	return ret || !fua || n->can_fua ? ret : nbd_flush_server(p);
}

static int nbd_range(struct nbd *n, enum nbd_op op, u64 offset, u64 bytes, u32 flags)
{
	int ret = 0;

	while (!ret && bytes) {
		struct nbd_command c = { .op = op, .offset = offset, .flags = flags,
			.bytes = MIN(bytes, NBD_RANGE_MAX) };

		ret = nbd_do(n, &c);
		offset += c.bytes;
		bytes -= c.bytes;
	}
	return ret;
}

static int nbd_discard(struct proto *p, u64 offset, u64 bytes)
{
	struct nbd *n = nbd_of(p);

	return n->can_trim ? nbd_range(n, NBD_TRIM, offset, bytes, 0) : 0;
}

static int nbd_zero_by_writing(struct proto *p, u64 offset, u64 bytes)
{
	struct iovec iov = { calloc(1, MIN(bytes, 1ULL << 20) ?: 1), 0 };
	int ret = iov.iov_base ? 0 : -ENOMEM;

	while (!ret && bytes) {
		iov.iov_len = MIN(bytes, 1ULL << 20);
		ret = nbd_writev(p, &iov, 1, offset, false);
		offset += iov.iov_len;
		bytes -= iov.iov_len;
	}
	free(iov.iov_base);
	return ret;
}

static int nbd_zero_range(struct proto *p, u64 offset, u64 bytes, bool unmap)
{
	struct nbd *n = nbd_of(p);

	if (!n->can_zero)
		return nbd_zero_by_writing(p, offset, bytes);
	return nbd_range(n, NBD_ZERO, offset, bytes, unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
}

static s64 nbd_size(struct proto *p)
{
	return nbd_of(p)->size;
}

/* The threads of aio.h wait for us, so many requests are under way at once. */
static bool nbd_start(struct proto *p, struct aio *aio, struct aio_task *task, bool write,
	const struct iovec *iov, unsigned iovs, u64 offset, u64 bytes, bool fua)
{
	(void)p, (void)write, (void)iov, (void)iovs, (void)offset, (void)bytes, (void)fua;
	aio_run(aio, task);
	return true;
}

static void nbd_close_server(struct proto *p)
{
	struct nbd *n = nbd_of(p);

	if (n->has_thread) {
		pthread_mutex_lock(&n->lock);
		n->stop = true;
		pthread_mutex_unlock(&n->lock);
		nbd_wake(n);
		pthread_join(n->thread, NULL);
		n->lib.shutdown(n->handle, 0);
	}
	if (n->handle)
		n->lib.close(n->handle);
	nbd_library_close(&n->lib);
	if (n->wake_fd >= 0)
		close(n->wake_fd);
	pthread_mutex_destroy(&n->lock);
	pthread_cond_destroy(&n->finished);
	free(n);
}

static const struct proto_ops nbd_ops = {
	.readv = nbd_readv,
	.writev = nbd_writev,
	.flush = nbd_flush_server,
	.zero = nbd_zero_range,
	.discard = nbd_discard,
	.size = nbd_size,
	.start = nbd_start,
	.close = nbd_close_server,
};

/* --- opening --- */

static int nbd_error_line(const struct nbd *n, const char *name, struct error *err)
{
	return error_set(err, n->lib.get_errno() ?: EIO, "%s: %s", name, n->lib.get_error());
}

/* QEMU's older names: nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME]. */
static int nbd_connect_old_name(struct nbd *n, const char *name)
{
	char *text = strdup(name + strlen("nbd:")), *export, *port;
	int ret = -1;

	if (!text)
		return -1;
	export = strstr(text, ":exportname=");
	if (export) {
		*export = 0;
		n->lib.set_export_name(n->handle, export + strlen(":exportname="));
	}
	port = strrchr(text, ':');
	if (!strncmp(text, "unix:", 5))
		ret = n->lib.connect_unix(n->handle, text + 5);
	else if (port) {
		*port = 0;
		ret = n->lib.connect_tcp(n->handle, text, port + 1);
	}
	free(text);
	return ret;
}

static int nbd_connect(struct nbd *n, const char *name, struct error *err)
{
	bool uri = strstr(name, "://");
	int ret = nbd_library_open(&n->lib, name, err);

	if (ret)
		return ret;
	n->handle = n->lib.create();
	if (!n->handle)
		return nbd_error_line(n, name, err);
	/* Only what was asked for; files on this host are no servers. */
	n->lib.set_uri_allow_local_file(n->handle, false);
	ret = uri ? n->lib.connect_uri(n->handle, name) : nbd_connect_old_name(n, name);
	return ret < 0 ? nbd_error_line(n, name, err) : 0;
}

static int nbd_learn(struct nbd *n, const struct proto_options *o, struct error *err)
{
	s64 size = n->lib.get_size(n->handle), block;

	if (size < 0)
		return nbd_error_line(n, n->proto.name, err);
	if (n->lib.is_read_only(n->handle) > 0 && !o->readonly)
		return error_usage(err, "%s: the server lets it be read only (readonly)", n->proto.name);
	n->size = size;
	n->can_flush = n->lib.can_flush(n->handle) > 0;
	n->can_fua = n->lib.can_fua(n->handle) > 0;
	n->can_trim = n->lib.can_trim(n->handle) > 0;
	n->can_zero = n->lib.can_zero(n->handle) > 0;
	block = n->lib.get_block_size(n->handle, LIBNBD_SIZE_MINIMUM);
	if (block > 512)
		return error_usage(err, "%s: the server wants blocks of more than 512 bytes", n->proto.name);
	return 0;
}

static int nbd_start_thread(struct nbd *n, struct error *err)
{
	sigset_t all, old;
	int ret;

	n->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (n->wake_fd < 0)
		return error_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&n->thread, NULL, nbd_thread, n);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	n->has_thread = !ret;
	return ret ? error_set(err, ret, "cannot start a thread: %s", strerror(ret)) : 0;
}

int nbd_open(struct proto **out, const char *name, const struct proto_options *o, struct error *err)
{
	struct nbd *n = calloc(1, sizeof(*n));
	int ret;

	if (!n)
		return error_set(err, ENOMEM, "out of memory");
	n->proto = (struct proto){ .ops = &nbd_ops, .name = strdup(name), .align = 1,
		.readonly = o->readonly, .write_through = o->write_through };
	n->no_flush = o->no_flush;
	n->wake_fd = -1;
	n->last = &n->first;
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->finished, NULL);
	ret = nbd_connect(n, name, err);
	if (!ret)
		ret = nbd_learn(n, o, err);
	if (!ret)
		ret = nbd_start_thread(n, err);
	if (ret < 0) {
		proto_close(&n->proto);
		return ret;
	}
	*out = &n->proto;
	return 0;
}
