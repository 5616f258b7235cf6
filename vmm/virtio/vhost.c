/*
 * A virtio device in front of a back end: status, features and configuration are served here, queues
 * there. See vhost.h.
 *
 * The back end is given the eventfd of each queue's kicks, which nobody here reads, and that of its
 * interrupt: a message's own where the transport has one, else one of ours that the I/O thread passes
 * on. Queues go to it when the driver is there and come back, with their positions, when the device is
 * paused or reset.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/virtio/vhost.h"

static struct virtio_vhost *to_vhost(struct virtio_device *d)
{
	return container_of(d, struct virtio_vhost, dev);
}

static void unwatch(struct virtio_vhost *v, int *watch)
{
	if (*watch >= 0)
		loop_remove(&v->dev.io->loop, *watch);
	*watch = -1;
}

/* From now on there is no back end, but where it stays for the driver's next try. */
static void back_lost(struct virtio_vhost *v, const char *why)
{
	v->running = false;
	v->started = 0;
	unwatch(v, &v->watch);
	if (v->back.ops->halt)
		v->back.ops->halt(&v->back);
	else
		v->back.ops->close(&v->back);
	if (!v->told)
		log_line("%s: %s", v->dev.ops->name, v->back.why ? v->back.why : why);
	v->told = true;
	virtio_fail(&v->dev);
}

/* What another program may have emptied or made blocking: read without waiting. */
static void eventfd_clear(int fd)
{
	u64 count;
	struct iovec to = { &count, sizeof(count) };
	ssize_t n = preadv2(fd, &to, 1, -1, RWF_NOWAIT);

	(void)n;
}

static void socket_ready(void *arg, u32 events)
{
	struct virtio_vhost *v = arg;

	(void)events;
	/* An answer may have been taken since. */
	if (!v->back.ops->check(&v->back))
		back_lost(v, "the back end has gone");
}

static void error_ready(void *arg, u32 events)
{
	struct virtio_vhost *v = arg;

	(void)events;
	eventfd_clear(v->error_fd);
	if (v->running)
		back_lost(v, "the back end found a queue that cannot be");
}

static void call_ready(void *arg, u32 events)
{
	const struct virtio_vhost_call *c = arg;
	struct virtio_device *d = &c->v->dev;

	(void)events;
	eventfd_clear(c->v->call_fd[c->queue]);
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && d->transport.interrupt)
		d->transport.interrupt(d->transport.transport, c->queue);
}

/* ---- queues there and back ------------------------------------------------------------------- */

static int call_of(struct virtio_vhost *v, unsigned queue)
{
	const struct virtio_transport *t = &v->dev.transport;
	int fd = t->call_fd ? t->call_fd(t->transport, queue) : -1;

	return fd >= 0 ? fd : v->call_fd[queue];
}

/* As SET_VRING_BASE has it: split, the next available; packed, that and the next used, with wrap bits. */
static u32 base_of(const struct virtq *q)
{
	if (!(q->flags & VIRTQ_F_PACKED))
		return q->at.avail;
	return (q->at.avail | q->at.avail_wrap << 15) |
	       (u32)(q->at.used | q->at.used_wrap << 15) << 16;
}

static int base_take(struct virtq *q, u32 base)
{
	struct virtq_position at = { .avail = base, .used = base, .avail_wrap = 1, .used_wrap = 1 };

	if (!(q->flags & VIRTQ_F_PACKED))
		return base > 0xFFFF ? -EINVAL : virtq_seek(q, &at);
	at = (struct virtq_position){ base & 0x7FFF, base >> 16 & 0x7FFF, base >> 15 & 1, base >> 31 };
	return virtq_seek(q, &at);
}

/* Those that the back end serves. */
static unsigned queues_there(const struct virtio_vhost *v)
{
	return v->dev.queues - v->kind->queues_own;
}

static int queue_give(struct virtio_vhost *v, unsigned i)
{
	const struct virtq *q = &v->dev.queue[i].vq;
	const struct vhost_ring ring = {
		.size = q->config.size, .base = base_of(q), .desc = (uintptr_t)q->desc,
		.driver = (uintptr_t)q->driver, .device = (uintptr_t)q->device,
		.kick_fd = v->dev.queue[i].kick_fd, .call_fd = call_of(v, i),
		.error_fd = v->error_fd,
	};

	return v->back.ops->start_ring(&v->back, i, &ring);
}

static void queues_give(struct virtio_vhost *v)
{
	struct virtio_device *d = &v->dev;
	int ret;

	if (v->running || v->back.fd < 0) {
		if (v->back.fd < 0)
			virtio_fail(d);
		return;
	}
	ret = v->back.ops->set_features(&v->back, d->features);
	if (ret == 0)
		ret = v->back.ops->set_memory(&v->back, d->mem);
	for (unsigned i = 0; i < queues_there(v) && ret == 0; i++) {
		if (!d->queue[i].vq.ready)
			continue;
		ret = queue_give(v, i);
		v->started |= 1u << i;
	}
	if (ret == 0 && v->back.ops->run)
		ret = v->back.ops->run(&v->back, v->started);
	v->running = ret == 0;
	if (ret < 0)
		back_lost(v, "the back end has gone");
}

static void queues_take(struct virtio_vhost *v)
{
	u32 base, started = v->started;

	if (v->running && v->back.ops->halt)
		v->back.ops->halt(&v->back);
	for (unsigned i = 0; i < queues_there(v) && v->running; i++) {
		if (!(started & 1u << i))
			continue;
		if (v->back.ops->stop_ring(&v->back, i, &base) < 0)
			back_lost(v, "the back end has gone");
		else if (base_take(&v->dev.queue[i].vq, base) < 0)
			back_lost(v, "the back end's position in a queue cannot be");
	}
	v->running = false;
	v->started = 0;
}

/* ---- the device ------------------------------------------------------------------------------ */

void vhost_start(struct virtio_device *d)
{
	/* A loaded one goes on at resume. */
	if (!d->paused)
		queues_give(to_vhost(d));
}

void vhost_stop(struct virtio_device *d)
{
	queues_take(to_vhost(d));
}

void vhost_resume(struct virtio_device *d)
{
	if (virtio_running(d))
		queues_give(to_vhost(d));
}

void vhost_rewired(struct virtio_device *d, unsigned queue)
{
	struct virtio_vhost *v = to_vhost(d);

	if (v->running && v->started & 1u << queue &&
	    v->back.ops->set_call(&v->back, queue, call_of(v, queue)) < 0)
		back_lost(v, "the back end has gone");
}

void vhost_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	memcpy(data, to_vhost(d)->config + offset, len);
}

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

/* Queues are the device's part; of the back end there is only what it must be alike in. */
struct vhost_state {
	u64 features;
	u8 config[VHOST_CONFIG_MAX];
};

static const struct state_field vhost_fields[] = {
	STATE_FIELD(struct vhost_state, features, 1),
	STATE_FIELD(struct vhost_state, config, 1),
};

static const struct state_table vhost_table =
	STATE_TABLE("virtio-vhost", struct vhost_state, 1, vhost_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_vhost *v = dev;
	struct vhost_state *st = state;

	virtio_lock(&v->dev);
	st->features = v->dev.offered;
	memcpy(st->config, v->config, sizeof(st->config));
	virtio_unlock(&v->dev);
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_vhost *v = dev;
	const struct vhost_state *st = state;

	if (st->features != v->dev.offered || memcmp(st->config, v->config, sizeof(st->config)))
		return -EINVAL;
	virtio_lock(&v->dev);
	if (v->kind->loaded)
		v->kind->loaded(v);
	virtio_unlock(&v->dev);
	return 0;
}

static const char *verb_obstacle(void *dev)
{
	struct virtio_vhost *v = dev;
	bool lives;

	virtio_lock(&v->dev);
	lives = v->dev.status & VIRTIO_CONFIG_S_DRIVER_OK;
	virtio_unlock(&v->dev);
	return v->kind->keeps_state && lives ?
		"a vhost-user device is in use whose back end cannot save what it remembers" : NULL;
}

const struct device_ops virtio_vhost_device_ops = {
	.table = &vhost_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load, .obstacle = verb_obstacle,
};

/* ---- life ------------------------------------------------------------------------------------ */

static int watch_eventfd(struct virtio_vhost *v, int *fd, int *watch,
			 void (*fn)(void *arg, u32 events), void *arg, struct error *err)
{
	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*fd < 0)
		return error_set(err, errno, "%s: eventfd: %s", v->dev.ops->name, strerror(errno));
	*watch = loop_add(&v->dev.io->loop, *fd, EPOLLIN, fn, arg);
	return *watch < 0 ? error_set(err, -*watch, "%s: too many queues", v->dev.ops->name) : 0;
}

static int wire(struct virtio_vhost *v, struct error *err)
{
	int ret = watch_eventfd(v, &v->error_fd, &v->error_watch, error_ready, v, err);

	for (unsigned i = 0; i < queues_there(v) && ret == 0; i++) {
		v->call[i] = (struct virtio_vhost_call){ v, i };
		unwatch(v, &v->dev.queue[i].watch);
		ret = watch_eventfd(v, &v->call_fd[i], &v->call_watch[i], call_ready, &v->call[i], err);
	}
	if (ret < 0 || !v->back.ops->check)
		return ret;
	v->watch = loop_add(&v->dev.io->loop, v->back.fd, EPOLLIN, socket_ready, v);
	return v->watch < 0 ? error_set(err, -v->watch, "cannot watch a socket") : 0;
}

static int back_open(struct virtio_vhost *v, const struct vhost_options *o, struct error *err)
{
	int fd;

	if (v->kind->open)
		return v->kind->open(&v->back, o, err);
	fd = o->socket ? vhost_connect(o->option, o->socket, err) :
	     vhost_virtiofsd(&v->child, o->folder, err);
	if (fd < 0)
		return fd;
	if (vhost_user_open(&v->back, fd) < 0)
		return error_set(err, EIO, "%s: %s", o->option, v->back.why);
	if (v->kind->ask_config &&
	    v->back.ops->get_config(&v->back, v->config, v->kind->config_size) < 0)
		return error_set(err, EIO, "%s: %s", o->option, v->back.why);
	return 0;
}

/* Beyond those that are always there, as many as wanted, said and configured. */
static unsigned queues_of(const struct virtio_vhost *v, const struct vhost_options *o)
{
	unsigned n = MAX(o->queues, v->kind->queues_fixed);

	n = MIN(n, v->kind->queues_max);
	return v->back.queues ? MIN(n, v->back.queues + v->kind->queues_own) :
	       v->kind->queues_fixed;
}

int virtio_vhost_init(struct virtio_vhost *v, const struct vhost_options *o,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	unsigned queues;
	u64 features;
	int ret;

	*v = (struct virtio_vhost){ .kind = o->kind, .back.fd = -1, .watch = -1, .error_fd = -1,
				    .error_watch = -1 };
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		v->call_fd[i] = v->call_watch[i] = -1;
	memcpy(v->config, o->config, sizeof(v->config));
	ret = back_open(v, o, err);
	if (ret < 0)
		return ret;
	if (!(v->back.features & BIT(VIRTIO_F_VERSION_1)))
		return error_set(err, EIO, "%s: the back end is older than virtio 1", o->option);
	queues = queues_of(v, o);
	if (queues < v->kind->queues_fixed)
		return error_set(err, EIO, "%s: the back end has too few queues", o->option);
	features = ((VIRTIO_FEATURES | v->kind->features) & v->back.features) | v->kind->own_features;
	ret = virtio_init(&v->dev, &v->kind->ops, 0, queues, VIRTQ_SIZE_MAX, v->kind->config_size, mem,
		io, err);
	v->dev.offered = features;
	if (ret == 0 && v->kind->settle)
		v->kind->settle(v);
	return ret < 0 ? ret : wire(v, err);
}

void virtio_vhost_destroy(struct virtio_vhost *v)
{
	unwatch(v, &v->watch);
	unwatch(v, &v->error_watch);
	for (unsigned i = 0; i < v->dev.queues; i++) {
		unwatch(v, &v->call_watch[i]);
		if (v->call_fd[i] >= 0)
			close(v->call_fd[i]);
	}
	if (v->error_fd >= 0)
		close(v->error_fd);
	virtio_destroy(&v->dev);
	if (v->back.ops)
		v->back.ops->close(&v->back);
	child_end(&v->child);
}
