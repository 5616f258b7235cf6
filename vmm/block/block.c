/*
 * Requests on their way: see block.h. A request is throttled, waits until nothing that it must not
 * meet is under way, and then goes one of two ways: straight to the host, where the layer can tell at
 * once where its bytes are, or to a thread, which does it by blocking calls.
 *
 * What must not meet: a request that may change where bytes are (the second way, unless it reads) has
 * its range for itself, widened to the image's granularity. So two writes never fill one new cluster,
 * and none goes to a cluster that a discard just gave away.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/block/block.h"
#include "vmm/block/layer.h"
#include "lib/clock.h"
#include "vmm/block/iov.h"
#include "vmm/loop/loop.h"

#define SECTOR 512

struct request_list {
	struct block_request *first, **last;
};

/* Of large requests each is answered while the next is copied; small ones are answered together. */
#define REAP_BYTES (64u << 10)

struct block {
	struct layer *top;
	struct aio *aio;
	struct loop *loop;
	int watch, timer_watch;		/* of the loop; -1: none */
	int timer_fd;
	unsigned in_flight;		/* submitted, not done */
	unsigned plugged;
	u64 plugged_bytes;	/* submitted since what was at hand was last reaped */
	unsigned exclusive;		/* of those under way */
	struct request_list under_way;	/* all of them; private fields link it both ways */
	struct request_list waiting;	/* for others' ranges */
	struct request_list throttled;
	struct throttle throttle;
	bool throttling, draining;
	bool readonly, ignore_discard, write_through;
};

static void requests_init(struct request_list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static void requests_add(struct request_list *list, struct block_request *req)
{
	req->next = NULL;
	req->link = list->last;
	*list->last = req;
	list->last = &req->next;
}

static void requests_remove(struct request_list *list, struct block_request *req)
{
	*req->link = req->next;
	if (req->next)
		req->next->link = req->link;
	else
		list->last = req->link;
}

static bool changes_data(const struct block_request *req)
{
	return req->op == BLOCK_WRITE || req->op == BLOCK_DISCARD || req->op == BLOCK_WRITE_ZEROES;
}

static bool needs_fua(const struct block_request *req)
{
	return (req->fua || req->block->write_through) && changes_data(req) &&
	       req->op != BLOCK_DISCARD;
}

/* --- under way --- */

static int request_do(struct block_request *req)
{
	struct layer *img = req->block->top;

	switch (req->op) {
	case BLOCK_READ: return img->ops->readv(img, req->iov, req->iovs, req->offset);
	case BLOCK_WRITE:
		return img->ops->writev(img, req->iov, req->iovs, req->offset, needs_fua(req));
	case BLOCK_FLUSH: return img->ops->flush(img);
	case BLOCK_DISCARD: return img->ops->discard(img, req->offset, req->bytes);
	case BLOCK_WRITE_ZEROES:
		return img->ops->zero(img, req->offset, req->bytes,
			req->unmap && !req->block->ignore_discard);
	}
	return -EINVAL;
}

static int request_work(struct aio_task *task)
{
	struct block_request *req = container_of(task, struct block_request, task);
	int ret = request_do(req);

	if (!ret && req->op == BLOCK_WRITE_ZEROES && needs_fua(req))
		ret = req->block->top->ops->flush(req->block->top);
	return ret;
}

static bool requests_meet(const struct block_request *a, const struct block_request *b)
{
	return a->first <= b->last && b->first <= a->last;
}

static bool request_meets(const struct block_request *req, const struct request_list *list,
	bool exclusive_only)
{
	for (const struct block_request *r = list->first; r; r = r->next)
		if ((r->exclusive || !exclusive_only) && requests_meet(req, r))
			return true;
	return false;
}

/* Straight to the host; false: not this one. */
static bool request_start_direct(struct block *b, struct block_request *req)
{
	bool write = req->op == BLOCK_WRITE;
	struct layer_extent e;

	if ((req->op != BLOCK_READ && !write) ||
	    b->top->ops->map(b->top, write, req->offset, req->bytes, &e) < 0 ||
	    e.bytes < req->bytes || (write && needs_fua(req) && !b->top->plain))
		return false;
	if (e.proto)
		return e.proto->ops->start(e.proto, b->aio, &req->task, write, req->iov, req->iovs,
			e.offset, req->bytes, needs_fua(req));
	iov_zero(req->iov, req->iovs, 0, req->bytes);
	aio_finish(b->aio, &req->task, 0);
	return true;
}

/* Under way, or waiting. */
static void request_start(struct block *b, struct block_request *req)
{
	u64 grain = b->top->granularity;

	req->first = ALIGN_DOWN(req->offset, grain);
	req->last = ALIGN_UP(req->offset + req->bytes, grain) - 1;
	req->exclusive = false;
	if (req->op != BLOCK_FLUSH) {
		if (request_meets(req, &b->waiting, false) ||
		    (b->exclusive && request_meets(req, &b->under_way, true))) {
			requests_add(&b->waiting, req);
			return;
		}
		if (request_start_direct(b, req)) {
			requests_add(&b->under_way, req);
			return;
		}
		req->exclusive = changes_data(req);
		if (req->exclusive && request_meets(req, &b->under_way, false)) {
			requests_add(&b->waiting, req);
			return;
		}
	}
	b->exclusive += req->exclusive;
	requests_add(&b->under_way, req);
	aio_run(b->aio, &req->task);
}

static void requests_restart(struct block *b)
{
	struct block_request *req = b->waiting.first, *next;

	requests_init(&b->waiting);
	for (; req; req = next) {
		next = req->next;
		request_start(b, req);
	}
}

static void request_done(struct aio_task *task, int result)
{
	struct block_request *req = container_of(task, struct block_request, task);
	struct block *b = req->block;

	requests_remove(&b->under_way, req);
	b->exclusive -= req->exclusive;
	if (b->waiting.first)
		requests_restart(b);
	b->in_flight--;
	req->done(req, result);
}

/* --- throttling --- */

static bool is_throttled(const struct block_request *req)
{
	return req->op != BLOCK_FLUSH && req->op != BLOCK_DISCARD;
}

static void throttle_arm(struct block *b, u64 wait)
{
	struct itimerspec it = { .it_value = { wait / 1000000000, wait % 1000000000 } };

	timerfd_settime(b->timer_fd, 0, &it, NULL);
}

/* Starts what may start, in order; the timer for the rest. */
static void throttle_run(struct block *b)
{
	while (b->throttled.first) {
		struct block_request *req = b->throttled.first;
		bool write = changes_data(req);
		u64 wait = b->draining ? 0 : throttle_wait(&b->throttle, write, clock_monotonic_ns());

		if (wait) {
			throttle_arm(b, wait);
			return;
		}
		requests_remove(&b->throttled, req);
		/* Zeroes written are an operation, not bytes moved. */
		throttle_account(&b->throttle, write,
			req->op == BLOCK_WRITE_ZEROES ? 0 : req->bytes);
		request_start(b, req);
	}
}

static void throttle_expired(void *arg, u32 events)
{
	struct block *b = arg;
	u64 count;
	ssize_t n = read(b->timer_fd, &count, sizeof(count));

	(void)n;
	(void)events;
	block_plug(b);
	throttle_run(b);
	block_unplug(b);
}

static int block_start_throttle(struct block *b, const struct block_options *o, struct error *err)
{
	int ret = 0;

	requests_init(&b->throttled);
	b->throttling = throttle_wanted(&o->throttle);
	if (!b->throttling)
		return 0;
	throttle_init(&b->throttle, &o->throttle, clock_monotonic_ns());
	b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (b->timer_fd < 0)
		return error_set(err, errno, "cannot make a timer: %s", strerror(errno));
	if (b->loop)
		ret = b->timer_watch = loop_add(b->loop, b->timer_fd, EPOLLIN, throttle_expired, b);
	return ret < 0 ? error_set(err, -ret, "too many disks for one event loop") : 0;
}

/* --- the calls --- */

static int request_check(const struct block *b, const struct block_request *req)
{
	u64 size = b->top->size;

	if (req->op == BLOCK_FLUSH)
		return 0;
	if (req->offset > size || req->bytes > size - req->offset)
		return -EINVAL;
	if (changes_data(req) && b->readonly)
		return -EPERM;
	if (req->op == BLOCK_READ || req->op == BLOCK_WRITE)
		return iov_bytes(req->iov, req->iovs) == req->bytes ? 0 : -EINVAL;
	return req->op <= BLOCK_WRITE_ZEROES ? 0 : -EINVAL;
}

void block_submit(struct block *b, struct block_request *req)
{
	int ret = request_check(b, req);

	req->block = b;
	req->task = (struct aio_task){ .work = request_work, .done = request_done };
	b->in_flight++;
	if (ret < 0 || (!req->bytes && req->op != BLOCK_FLUSH) ||
	    (req->op == BLOCK_DISCARD && b->ignore_discard)) {
		req->exclusive = false;
		req->first = 1;		/* an empty range meets none */
		req->last = 0;
		requests_add(&b->under_way, req);
		aio_finish(b->aio, &req->task, ret);
	} else if (b->throttling && is_throttled(req)) {
		requests_add(&b->throttled, req);
		if (b->throttled.first == req)
			throttle_run(b);
	} else {
		request_start(b, req);
	}
	b->plugged_bytes += req->bytes;
	if (!b->plugged)
		aio_kick(b->aio);
}

void block_plug(struct block *b)
{
	b->plugged++;
}

/* What the host had at hand is done by now: it takes no turn of the loop. */
static void block_reap(struct block *b)
{
	b->plugged_bytes = 0;
	aio_reap(b->aio);
}

void block_plugged_turn(struct block *b)
{
	if (b->plugged == 1 && b->plugged_bytes >= REAP_BYTES)
		block_reap(b);
}

void block_unplug(struct block *b)
{
	if (b->plugged == 1)
		block_reap(b);
	if (!--b->plugged)
		aio_kick(b->aio);
}

static void block_poll(struct block *b, bool wait)
{
	block_plug(b);
	aio_poll(b->aio, wait);
	block_unplug(b);
}

static void block_ready(void *arg, u32 events)
{
	(void)events;
	block_poll(arg, false);
}

void block_drain(struct block *b)
{
	b->draining = true;
	throttle_run(b);
	while (b->in_flight)
		block_poll(b, true);
	b->draining = false;
}

void block_get_info(struct block *b, struct block_info *info)
{
	*info = (struct block_info){
		.size = b->top->size,
		.align = 1,
		.physical = MAX(b->top->file->align, 512U),
		.readonly = b->readonly,
		.discard = !b->readonly && !b->ignore_discard,
		.write_zeroes = !b->readonly,
		.write_cache = !b->write_through,
	};
}

bool block_measure(struct block *b)
{
	s64 size;

	if (!b->top->ops->measure)
		return false;
	block_drain(b);
	size = b->top->ops->measure(b->top);
	if (size <= 0 || (u64)size == b->top->size)
		return false;
	b->top->size = size;
	return true;
}

/* The size now, also where nobody has looked since somebody else changed it. */
static u64 block_size_now(const struct block *b)
{
	s64 size = b->top->ops->measure ? b->top->ops->measure(b->top) : 0;

	return MAX(b->top->size, (u64)MAX(size, 0));
}

int block_resize(struct block *b, u64 size, struct error *err)
{
	const char *name = b->top->file->name;
	u64 now;

	if (b->readonly)
		return error_set(err, EPERM, "%s is only read: its size is fixed", name);
	if (size % SECTOR || size > INT64_MAX)
		return error_usage(err, "a disk's size is a multiple of %d bytes", SECTOR);
	block_drain(b);
	now = block_size_now(b);
	if (size < now)
		return error_usage(err, "%s has %" PRIu64 " bytes and cannot be made smaller", name, now);
	return size == b->top->size ? 0 : b->top->ops->resize(b->top, size, err);
}

/* --- opening --- */

struct cache_mode {
	const char *name;
	bool direct, write_through, no_flush;
};

static const struct cache_mode cache_modes[] = {
	{ "writeback", false, false, false },
	{ "writethrough", false, true, false },
	{ "none", true, false, false },
	{ "directsync", true, true, false },
	{ "unsafe", false, false, true },
};

static const struct cache_mode *cache_find(const char *name, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++)
		if (!name || !strcmp(name, cache_modes[i].name))
			return &cache_modes[i];
	error_usage(err, "cache=%s: it is writeback, writethrough, none, directsync or unsafe", name);
	return NULL;
}

static int aio_find(const char *name, enum aio_kind *kind, struct error *err)
{
	*kind = AIO_AUTO;
	if (!name)
		return 0;
	*kind = strcmp(name, "threads") ? AIO_URING : AIO_THREADS;
	if (*kind == AIO_URING && strcmp(name, "io_uring"))
		return error_usage(err, "aio=%s: it is io_uring or threads", name);
	return 0;
}

static int block_open_layers(struct block *b, const struct block_options *o,
	const struct cache_mode *mode, struct error *err)
{
	/* Under an overlay, and at an internal snapshot, the image is only read. */
	bool only_read = o->readonly || o->snapshot || o->internal_snapshot;
	struct layer_options io = {
		.format = o->format,
		.internal_snapshot = o->internal_snapshot,
		.ignore_discard = o->ignore_discard,
		.proto = {
			.readonly = only_read,
			.no_lock = o->no_lock, .no_wait = o->no_wait,
			.share_write = o->share,
			.direct = mode->direct,
			.write_through = mode->write_through,
			.no_flush = mode->no_flush,
		},
	};
	int ret;

	if (o->format && !format_exists(o->format))
		return error_usage(err, "format=%s: it is raw or qcow2", o->format);
	ret = layer_open(&b->top, o->file, &io, err);
	if (!ret && o->snapshot)
		ret = layer_add_overlay(&b->top, err);
	b->readonly = o->readonly || (o->internal_snapshot && !o->snapshot);
	b->write_through = mode->write_through && !o->snapshot;
	return ret;
}

static int block_start_aio(struct block *b, const struct block_options *o, struct error *err)
{
	enum aio_kind kind;
	int ret = aio_find(o->aio, &kind, err);

	if (!ret)
		ret = aio_new(&b->aio, kind, err);
	if (ret < 0 || !b->loop)
		return ret;
	b->watch = loop_add(b->loop, aio_fd(b->aio), EPOLLIN, block_ready, b);
	return b->watch < 0 ? error_set(err, -b->watch, "too many disks for one event loop") : 0;
}

int block_open(struct block **out, const struct block_options *opts, struct loop *loop,
	struct error *err)
{
	const struct cache_mode *mode = cache_find(opts->cache, err);
	struct block *b;
	int ret;

	if (!mode)
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, ENOMEM, "out of memory");
	b->loop = loop;
	b->watch = b->timer_watch = b->timer_fd = -1;
	b->ignore_discard = opts->ignore_discard;
	requests_init(&b->under_way);
	requests_init(&b->waiting);
	ret = block_start_throttle(b, opts, err);
	if (!ret)
		ret = block_start_aio(b, opts, err);
	if (!ret)
		ret = block_open_layers(b, opts, mode, err);
	if (ret < 0) {
		block_close(b);
		return ret;
	}
	*out = b;
	return 0;
}

int block_close(struct block *b)
{
	int ret;

	if (!b)
		return 0;
	if (b->aio)
		block_drain(b);
	ret = layer_close(b->top);
	if (b->watch >= 0)
		loop_remove(b->loop, b->watch);
	if (b->timer_watch >= 0)
		loop_remove(b->loop, b->timer_watch);
	if (b->timer_fd >= 0)
		close(b->timer_fd);
	aio_free(b->aio);
	free(b);
	return ret;
}
