/* Status, features and queues of a virtio device: see virtio.h. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/virtio/virtio.h"

/* Buffers taken from a queue before others of the thread have a turn. */
#define QUEUE_TURN 256

#define DRIVER_STATUS                                                                       \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK | \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)

void virtio_lock(struct virtio_device *d)
{
	loop_enter(&d->io->loop);
}

void virtio_unlock(struct virtio_device *d)
{
	pthread_mutex_unlock(&d->io->lock);
}

static void interrupt(struct virtio_device *d, int queue)
{
	if (d->transport.interrupt)
		d->transport.interrupt(d->transport.transport, queue);
}

bool virtio_running(const struct virtio_device *d)
{
	return d->status & VIRTIO_CONFIG_S_DRIVER_OK && !(d->status & VIRTIO_CONFIG_S_NEEDS_RESET) &&
	       !d->paused;
}

void virtio_fail(struct virtio_device *d)
{
	if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	/* 2.1.2: a driver that is at work is told. */
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_config_changed(d);
}

void virtio_config_changed(struct virtio_device *d)
{
	d->config_generation++;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(d, VIRTIO_CONFIG);
}

/* ---- queues ---------------------------------------------------------------------------------- */

void virtio_queue_kick(struct virtio_device *d, unsigned queue)
{
	u64 one = 1;
	ssize_t n = write(d->queue[queue].kick_fd, &one, sizeof(one));

	(void)n;	/* full: it is kicked already */
}

static void queue_kicked(void *arg, u32 events)
{
	struct virtio_queue *q = arg;
	struct virtio_device *d = q->dev;
	u64 count;
	ssize_t n = read(q->kick_fd, &count, sizeof(count));

	(void)n;
	(void)events;
	/* What comes while paused is found when all queues are kicked at the end of it. */
	if (virtio_running(d) && q->vq.ready && d->ops->kick)
		d->ops->kick(d, q - d->queue);
}

static u8 queue_flags(u64 features)
{
	return (features & BIT(VIRTIO_RING_F_INDIRECT_DESC) ? VIRTQ_F_INDIRECT : 0) |
	       (features & BIT(VIRTIO_RING_F_EVENT_IDX) ? VIRTQ_F_EVENT_IDX : 0) |
	       (features & BIT(VIRTIO_F_RING_PACKED) ? VIRTQ_F_PACKED : 0);
}

void virtio_queue_enable(struct virtio_device *d, unsigned queue)
{
	struct virtio_queue *q = &d->queue[queue];

	if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK) || q->vq.ready)
		return;
	if (q->config.size > q->size_max ||
	    virtq_start(&q->vq, d->mem, &q->config, queue_flags(d->features)) < 0)
		virtio_fail(d);
	else if (virtio_running(d))
		virtio_queue_kick(d, queue);
}

static void kick_all(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queues; i++)
		if (d->queue[i].vq.ready)
			virtio_queue_kick(d, i);
}

bool virtio_pop(struct virtio_device *d, unsigned queue, struct virtq_chain *chain)
{
	int ret = virtq_pop(&d->queue[queue].vq, chain);

	if (ret < 0)
		virtio_fail(d);
	return ret > 0;
}

bool virtio_pop_or_wait(struct virtio_device *d, unsigned queue, struct virtq_chain *chain)
{
	do {
		if (virtio_pop(d, queue, chain))
			return true;
	} while (virtio_running(d) && virtq_kicks_on(&d->queue[queue].vq));
	return false;
}

void virtio_push(struct virtio_device *d, unsigned queue, const struct virtq_used *used, unsigned n)
{
	if (virtq_push(&d->queue[queue].vq, used, n))
		interrupt(d, queue);
}

void virtio_done(struct virtio_device *d, unsigned queue, const struct virtq_chain *chain, u32 len)
{
	const struct virtq_used used = { chain->id, chain->slots, len };

	virtio_push(d, queue, &used, 1);
}

void virtio_queue_run(struct virtio_device *d, unsigned queue,
		      bool (*fn)(struct virtio_device *d, unsigned queue, struct virtq_chain *chain))
{
	struct virtq *q = &d->queue[queue].vq;
	struct virtq_chain chain;
	unsigned turn = 0;

	do {
		virtq_kicks_off(q);
		while (virtio_running(d) && virtio_pop(d, queue, &chain)) {
			if (!fn(d, queue, &chain)) {
				virtq_unpop(q, &chain);
				return;
			}
			if (++turn == QUEUE_TURN) {
				virtio_queue_kick(d, queue);
				return;
			}
		}
	} while (virtio_running(d) && virtq_kicks_on(q));
}

/* ---- status ---------------------------------------------------------------------------------- */

static bool features_valid(struct virtio_device *d, u64 features)
{
	/* 2.2.2, 6.1: no more than is offered, and nothing before version 1. */
	return !(features & ~d->offered) && features & BIT(VIRTIO_F_VERSION_1) &&
	       (!d->ops->features_valid || d->ops->features_valid(d, features));
}

void virtio_set_features(struct virtio_device *d, u64 features)
{
	if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK))
		d->features = features;
}

/* All but the transport's registers. */
static void device_reset(struct virtio_device *d)
{
	if (d->ops->stop)
		d->ops->stop(d);
	for (unsigned i = 0; i < d->queues; i++) {
		virtq_stop(&d->queue[i].vq);
		d->queue[i].config = (struct virtq_config){ .size = d->queue[i].size_max };
	}
	d->features = 0;
	d->status = 0;
}

static void virtio_reset(struct virtio_device *d)
{
	device_reset(d);
	if (d->transport.reset)
		d->transport.reset(d->transport.transport);
}

void virtio_set_status(struct virtio_device *d, u8 status)
{
	u8 fresh = status & DRIVER_STATUS & ~d->status;

	if (!status) {
		virtio_reset(d);
		return;
	}
	/* 3.1.1: the driver reads FEATURES_OK again to see whether we agree. */
	if (fresh & VIRTIO_CONFIG_S_FEATURES_OK && !features_valid(d, d->features))
		fresh &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((d->status | fresh) & VIRTIO_CONFIG_S_FEATURES_OK))
		fresh &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	d->status |= fresh;
	if (!(fresh & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET) {
		virtio_config_changed(d);
		return;
	}
	if (d->ops->start)
		d->ops->start(d);
	kick_all(d);
}

/* ---- configuration --------------------------------------------------------------------------- */

void virtio_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	memset(data, 0, len);
	if (offset < d->config_size && d->ops->config_read)
		d->ops->config_read(d, offset, data, MIN(len, d->config_size - offset));
}

void virtio_config_write(struct virtio_device *d, u32 offset, const void *data, u32 len)
{
	if (offset < d->config_size && len <= d->config_size - offset && d->ops->config_write)
		d->ops->config_write(d, offset, data, len);
}

/* ---- the five verbs -------------------------------------------------------------------------- */

static void verb_reset(void *dev)
{
	struct virtio_device *d = dev;

	virtio_lock(d);
	virtio_reset(d);
	virtio_unlock(d);
}

static void verb_pause(void *dev)
{
	struct virtio_device *d = dev;

	virtio_lock(d);
	d->paused = true;
	if (d->ops->pause)
		d->ops->pause(d);
	virtio_unlock(d);
}

static void verb_resume(void *dev)
{
	struct virtio_device *d = dev;

	virtio_lock(d);
	d->paused = false;
	if (d->ops->resume)
		d->ops->resume(d);
	/* Kicks and interrupts may have been lost on the way here; one too many does no harm. */
	kick_all(d);
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		for (unsigned i = 0; i < d->queues; i++)
			if (d->queue[i].vq.ready)
				interrupt(d, i);
	virtio_unlock(d);
}

struct virtio_state {
	u64 features;
	u64 desc[VIRTIO_QUEUES_MAX], driver[VIRTIO_QUEUES_MAX], device[VIRTIO_QUEUES_MAX];
	u16 size[VIRTIO_QUEUES_MAX], position[VIRTIO_QUEUES_MAX];
	u8 ready[VIRTIO_QUEUES_MAX], wrap[VIRTIO_QUEUES_MAX], broken[VIRTIO_QUEUES_MAX];
	u32 config_generation;
	u8 status;
};

static const struct state_field virtio_fields[] = {
	STATE_FIELD(struct virtio_state, features, 1),
	STATE_FIELD(struct virtio_state, desc, 1),
	STATE_FIELD(struct virtio_state, driver, 1),
	STATE_FIELD(struct virtio_state, device, 1),
	STATE_FIELD(struct virtio_state, size, 1),
	STATE_FIELD(struct virtio_state, position, 1),
	STATE_FIELD(struct virtio_state, ready, 1),
	STATE_FIELD(struct virtio_state, wrap, 1),
	STATE_FIELD(struct virtio_state, broken, 1),
	STATE_FIELD(struct virtio_state, config_generation, 1),
	STATE_FIELD(struct virtio_state, status, 1),
};

static const struct state_table virtio_table =
	STATE_TABLE("virtio", struct virtio_state, 1, virtio_fields);

/* Paused, so nothing is in flight: one position tells where both sides are. */
static void verb_save(void *dev, void *state)
{
	struct virtio_device *d = dev;
	struct virtio_state *st = state;

	virtio_lock(d);
	st->features = d->features;
	st->status = d->status;
	st->config_generation = d->config_generation;
	for (unsigned i = 0; i < d->queues; i++) {
		const struct virtio_queue *q = &d->queue[i];

		st->desc[i] = q->config.desc;
		st->driver[i] = q->config.driver;
		st->device[i] = q->config.device;
		st->size[i] = q->config.size;
		st->ready[i] = q->vq.ready;
		st->broken[i] = q->vq.broken;
		st->position[i] = q->vq.at.used;
		st->wrap[i] = q->vq.at.used_wrap;
	}
	virtio_unlock(d);
}

static int load_queue(struct virtio_device *d, unsigned i, const struct virtio_state *st,
		      struct virtq *vq, struct virtq_config *config)
{
	const struct virtq_position at = { .avail = st->position[i], .used = st->position[i],
					   .avail_wrap = st->wrap[i], .used_wrap = st->wrap[i] };

	*config = (struct virtq_config){ st->desc[i], st->driver[i], st->device[i], st->size[i] };
	*vq = (struct virtq){ 0 };
	if (st->ready[i] > 1 || st->broken[i] > 1)
		return -EINVAL;
	/* What a driver has written may be anything until it enables the queue. */
	if (!st->ready[i])
		return 0;
	if (!(st->status & VIRTIO_CONFIG_S_FEATURES_OK) || config->size > d->queue[i].size_max ||
	    virtq_start(vq, d->mem, config, queue_flags(st->features)) < 0 ||
	    virtq_seek(vq, &at) < 0)
		return -EINVAL;
	vq->broken = st->broken[i];
	return 0;
}

static int load_locked(struct virtio_device *d, const struct virtio_state *st)
{
	struct virtq vq[VIRTIO_QUEUES_MAX];
	struct virtq_config config[VIRTIO_QUEUES_MAX];

	if (st->status & ~(DRIVER_STATUS | VIRTIO_CONFIG_S_NEEDS_RESET))
		return -EINVAL;
	if (st->status & VIRTIO_CONFIG_S_FEATURES_OK ? !features_valid(d, st->features)
						     : st->status & VIRTIO_CONFIG_S_DRIVER_OK)
		return -EINVAL;
	for (unsigned i = 0; i < d->queues; i++)
		if (load_queue(d, i, st, &vq[i], &config[i]) < 0)
			return -EINVAL;
	device_reset(d);
	d->features = st->features;
	d->status = st->status;
	d->config_generation = st->config_generation;
	for (unsigned i = 0; i < d->queues; i++) {
		d->queue[i].vq = vq[i];
		d->queue[i].config = config[i];
	}
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && d->ops->start)
		d->ops->start(d);
	return 0;
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_device *d = dev;
	int ret;

	virtio_lock(d);
	ret = load_locked(d, state);
	virtio_unlock(d);
	return ret;
}

const struct device_ops virtio_device_ops = {
	.table = &virtio_table, .reset = verb_reset, .pause = verb_pause, .resume = verb_resume,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

static int queue_init(struct virtio_device *d, unsigned i, u16 size_max, struct error *err)
{
	struct virtio_queue *q = &d->queue[i];

	q->dev = d;
	q->size_max = q->config.size = size_max;
	q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->kick_fd < 0)
		return error_set(err, errno, "%s: eventfd: %s", d->ops->name, strerror(errno));
	q->watch = loop_add(&d->io->loop, q->kick_fd, EPOLLIN, queue_kicked, q);
	if (q->watch < 0)
		return error_set(err, -q->watch, "%s: too many queues for an I/O thread",
			d->ops->name);
	return 0;
}

int virtio_init(struct virtio_device *d, const struct virtio_device_ops *ops, u64 features,
		unsigned queues, u16 size_max, u32 config_size, const struct guest_memory *mem,
		struct io_thread *io, struct error *err)
{
	int ret = 0;

	*d = (struct virtio_device){
		.ops = ops, .mem = mem, .io = io, .offered = features | VIRTIO_FEATURES,
		.config_size = config_size, .queues = queues,
	};
	for (unsigned i = 0; i < queues; i++)
		d->queue[i].kick_fd = d->queue[i].watch = -1;
	for (unsigned i = 0; i < queues && ret == 0; i++)
		ret = queue_init(d, i, size_max, err);
	if (ret < 0)
		virtio_destroy(d);
	return ret;
}

void virtio_destroy(struct virtio_device *d)
{
	for (unsigned i = 0; i < d->queues; i++) {
		if (d->queue[i].watch >= 0)
			loop_remove(&d->io->loop, d->queue[i].watch);
		if (d->queue[i].kick_fd >= 0)
			close(d->queue[i].kick_fd);
	}
	d->queues = 0;
}
