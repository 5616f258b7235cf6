/*
 * The balloon (virtio 1.2, 5.5). Which queue is which follows from the features that were agreed on:
 * queues that are not used have no number (as Linux's driver and all devices that it meets count).
 *
 * The buffer with statistics stays in the queue. It is looked at when the driver puts it there, and
 * given back to ask for new ones, so nothing is held and nothing of it needs to be saved.
 */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <string.h>

#include "vmm/virtio/balloon.h"
#include "vmm/virtio/sg.h"

#define BALLOON_QUEUE_SIZE	128
#define PAGE_SHIFT		VIRTIO_BALLOON_PFN_SHIFT
#define PAGE			(1ULL << PAGE_SHIFT)
/* Of one buffer; Linux sends 256. What is more would hold the thread for long. */
#define PAGES_MAX		16384
#define STATS_BYTES_MAX		1024

enum role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORT, ROLE_NONE };

_Static_assert(sizeof(struct virtio_balloon_stat) == 10, "virtio 1.2 5.5.6.3");
_Static_assert(sizeof(struct virtio_balloon_config) == 16, "virtio 1.2 5.5.4");
_Static_assert(BALLOON_STATS == VIRTIO_BALLOON_S_NR, "virtio 1.2 5.5.6.3.1");

static struct virtio_balloon *to_balloon(struct virtio_device *d)
{
	return container_of(d, struct virtio_balloon, dev);
}

const char *virtio_balloon_stat_name(unsigned tag)
{
	static const char *const names[] = {
		[VIRTIO_BALLOON_S_SWAP_IN] = "swap_in",
		[VIRTIO_BALLOON_S_SWAP_OUT] = "swap_out",
		[VIRTIO_BALLOON_S_MAJFLT] = "major_faults",
		[VIRTIO_BALLOON_S_MINFLT] = "minor_faults",
		[VIRTIO_BALLOON_S_MEMFREE] = "free",
		[VIRTIO_BALLOON_S_MEMTOT] = "total",
		[VIRTIO_BALLOON_S_AVAIL] = "available",
		[VIRTIO_BALLOON_S_CACHES] = "caches",
		[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "hugetlb_allocations",
		[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "hugetlb_failures",
	};

	return tag < ARRAY_SIZE(names) ? names[tag] : NULL;
}

static enum role queue_role(const struct virtio_device *d, unsigned queue)
{
	bool stats = virtio_has(d, VIRTIO_BALLOON_F_STATS_VQ);

	if (queue < 2)
		return queue;
	if (stats && queue == 2)
		return ROLE_STATS;
	return queue == 2u + stats && virtio_has(d, VIRTIO_BALLOON_F_REPORTING) ? ROLE_REPORT : ROLE_NONE;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/* Neighbours, collected before they are given back. */
struct run {
	u8 *start;
	u64 len;
};

static void run_add(struct run *r, u8 *page)
{
	if (r->len && page == r->start + r->len) {
		r->len += PAGE;
		return;
	}
	if (r->len && page + PAGE == r->start) {
		r->start = page;
		r->len += PAGE;
		return;
	}
	guest_memory_discard(r->start, r->len);
	*r = (struct run){ page, PAGE };
}

/* Frame numbers, each of a page of guest memory that the guest will not touch. False: one is none. */
static bool pages_take(struct virtio_balloon *b, const struct virtq_chain *c)
{
	struct run run = { 0 };
	bool ok = true;
	u32 pfn[256];
	u64 at = 0;

	while (ok && at < c->out_bytes) {
		size_t n = sg_read(c->iov, c->outs, at, pfn, sizeof(pfn)) / sizeof(pfn[0]);

		for (size_t i = 0; i < n && ok; i++) {
			u8 *page = guest_memory_at(b->dev.mem, (u64)pfn[i] << PAGE_SHIFT, PAGE);

			ok = page;
			if (ok)
				run_add(&run, page);
		}
		at += n * sizeof(pfn[0]);
	}
	guest_memory_discard(run.start, run.len);
	return ok;
}

static bool list_valid(const struct virtq_chain *c)
{
	return c->out_bytes && c->out_bytes % 4 == 0 && c->out_bytes / 4 <= PAGES_MAX && !c->ins;
}

static bool balloon_inflate(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	if (!list_valid(c) || !pages_take(to_balloon(d), c))
		virtio_fail(d);
	else
		virtio_done(d, queue, c, 0);
	return true;
}

/* The pages come back by being touched. */
static bool balloon_deflate(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	if (!list_valid(c))
		virtio_fail(d);
	else
		virtio_done(d, queue, c, 0);
	return true;
}

/* 5.5.6.6: the buffers are the unused memory itself. */
static bool balloon_report(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_balloon *b = to_balloon(d);
	/* The driver counts on its pattern, and a fresh page has none. */
	bool keep = virtio_has(d, VIRTIO_BALLOON_F_PAGE_POISON) && b->poison;

	if (!c->ins || c->outs) {
		virtio_fail(d);
		return true;
	}
	for (unsigned i = 0; i < c->ins && !keep; i++) {
		guest_memory_discard(c->iov[i].iov_base, c->iov[i].iov_len);
		b->reported += c->iov[i].iov_len;
	}
	virtio_done(d, queue, c, 0);
	return true;
}

/* ---- statistics ------------------------------------------------------------------------------ */

static void stats_read(struct virtio_balloon *b, const struct virtq_chain *c)
{
	struct virtio_balloon_stat s;

	for (u64 at = 0; at < MIN(c->out_bytes, (u64)STATS_BYTES_MAX); at += sizeof(s))
		if (sg_read(c->iov, c->outs, at, &s, sizeof(s)) == sizeof(s) && s.tag < BALLOON_STATS)
			b->stat[s.tag] = s.val;
}

/* The driver has put its buffer there: looked at, and left where it is. */
static void stats_look(struct virtio_device *d, unsigned queue)
{
	struct virtq_chain c;

	if (!virtio_pop(d, queue, &c))
		return;
	if (c.ins)
		virtio_fail(d);
	else
		stats_read(to_balloon(d), &c);
	virtq_unpop(&d->queue[queue].vq, &c);
}

static void stats_ask(void *arg)
{
	struct virtio_balloon *b = arg;
	struct virtio_device *d = &b->dev;
	struct virtq_chain c;

	if (b->interval)
		timer_arm(&b->timer, timer_queue_now(b->timer.queue) + b->interval);
	if (virtio_running(d) && virtio_has(d, VIRTIO_BALLOON_F_STATS_VQ) && virtio_pop(d, 2, &c))
		virtio_done(d, 2, &c, 0);
}

/* ---- the device ------------------------------------------------------------------------------ */

static void balloon_kick(struct virtio_device *d, unsigned queue)
{
	switch (queue_role(d, queue)) {
	case ROLE_INFLATE:
		virtio_queue_run(d, queue, balloon_inflate);
		break;
	case ROLE_DEFLATE:
		virtio_queue_run(d, queue, balloon_deflate);
		break;
	case ROLE_STATS:
		stats_look(d, queue);
		break;
	case ROLE_REPORT:
		virtio_queue_run(d, queue, balloon_report);
		break;
	case ROLE_NONE:
		break;
	}
}

static void stats_forget(struct virtio_balloon *b)
{
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		b->stat[i] = BALLOON_UNKNOWN;
}

static void balloon_start(struct virtio_device *d)
{
	struct virtio_balloon *b = to_balloon(d);

	if (b->interval)
		timer_arm(&b->timer, timer_queue_now(b->timer.queue) + b->interval);
}

static void balloon_stop(struct virtio_device *d)
{
	struct virtio_balloon *b = to_balloon(d);

	timer_cancel(&b->timer);
	b->actual = b->poison = 0;
}

static void balloon_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_balloon *b = to_balloon(d);
	const struct virtio_balloon_config c = {
		.num_pages = b->target, .actual = b->actual, .poison_val = b->poison };

	memcpy(data, (const u8 *)&c + offset, len);
}

static void balloon_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	struct virtio_balloon *b = to_balloon(d);

	if (len != 4)
		return;
	if (offset == offsetof(struct virtio_balloon_config, actual)) {
		memcpy(&b->actual, data, 4);
		b->most = MAX(b->most, b->actual);
	}
	if (offset == offsetof(struct virtio_balloon_config, poison_val))
		memcpy(&b->poison, data, 4);
}

static const struct virtio_device_ops balloon_ops = {
	.name = "virtio-balloon", .id = VIRTIO_ID_BALLOON, .kick = balloon_kick,
	.start = balloon_start, .stop = balloon_stop, .config_read = balloon_config_read,
	.config_write = balloon_config_write,
};

void virtio_balloon_set(struct virtio_balloon *b, u64 bytes)
{
	b->target = MIN(bytes, b->dev.mem->size) >> PAGE_SHIFT;
	virtio_config_changed(&b->dev);
}

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct balloon_state {
	u32 target, actual, poison;
	u64 stat[BALLOON_STATS], reported;
};

static const struct state_field balloon_fields[] = {
	STATE_FIELD(struct balloon_state, target, 1),
	STATE_FIELD(struct balloon_state, actual, 1),
	STATE_FIELD(struct balloon_state, poison, 1),
	STATE_FIELD(struct balloon_state, stat, 1),
	STATE_FIELD(struct balloon_state, reported, 1),
};

static const struct state_table balloon_table =
	STATE_TABLE("virtio-balloon", struct balloon_state, 1, balloon_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_balloon *b = dev;
	struct balloon_state *st = state;

	virtio_lock(&b->dev);
	*st = (struct balloon_state){ .target = b->target, .actual = b->actual, .poison = b->poison,
				      .reported = b->reported };
	memcpy(st->stat, b->stat, sizeof(st->stat));
	virtio_unlock(&b->dev);
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_balloon *b = dev;
	const struct balloon_state *st = state;

	if (st->target > b->dev.mem->size >> PAGE_SHIFT)
		return -EINVAL;
	virtio_lock(&b->dev);
	b->target = st->target;
	b->actual = st->actual;
	b->poison = st->poison;
	b->reported = st->reported;
	memcpy(b->stat, st->stat, sizeof(b->stat));
	virtio_unlock(&b->dev);
	return 0;
}

const struct device_ops virtio_balloon_device_ops = {
	.table = &balloon_table, .reset = verb_nothing, .pause = verb_nothing,
	.resume = verb_nothing, .save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_balloon_init(struct virtio_balloon *b, const struct balloon_options *o,
			const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	u64 features = BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_PAGE_POISON);

	if (o->deflate_on_oom)
		features |= BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	if (o->reporting)
		features |= BIT(VIRTIO_BALLOON_F_REPORTING);
	*b = (struct virtio_balloon){
		.target = MIN(o->taken, mem->size) >> PAGE_SHIFT, .interval = o->stats * 1000000000 };
	stats_forget(b);
	timer_init(&b->timer, &io->loop.timers, stats_ask, b);
	return virtio_init(&b->dev, &balloon_ops, features, 4, BALLOON_QUEUE_SIZE,
		sizeof(struct virtio_balloon_config), mem, io, err);
}

void virtio_balloon_destroy(struct virtio_balloon *b)
{
	if (b->timer.queue)
		timer_cancel(&b->timer);
	virtio_destroy(&b->dev);
}
