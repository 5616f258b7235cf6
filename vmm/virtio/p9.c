/*
 * The 9P transport: a message of the driver and room for the answer in each buffer. Messages are copied
 * before they are looked at. What is no message at all fails the device, what is a wrong one is answered.
 */
#include <errno.h>
#include <linux/virtio_9p.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/p9.h"
#include "vmm/virtio/sg.h"

#define P9_QUEUE_SIZE 128

static struct virtio_p9 *to_p9(struct virtio_device *d)
{
	return container_of(d, struct virtio_p9, dev);
}

static bool p9_take(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_p9 *p = to_p9(d);
	u32 n;

	if (c->out_bytes < P9_HEAD || c->out_bytes > P9_MSIZE_MAX || c->in_bytes < P9_ANSWER_MIN) {
		virtio_fail(d);
		return true;
	}
	sg_read(c->iov, c->outs, 0, p9_buffer(p->server), c->out_bytes);
	n = p9_serve(p->server, c->out_bytes, p->answer, MIN(c->in_bytes, (u64)P9_MSIZE_MAX));
	virtio_done(d, queue, c, sg_write(c->iov + c->outs, c->ins, 0, p->answer, n));
	return true;
}

static void p9_kick(struct virtio_device *d, unsigned queue)
{
	virtio_queue_run(d, queue, p9_take);
}

static void p9_stop(struct virtio_device *d)
{
	p9_reset(to_p9(d)->server);
}

static void p9_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_p9 *p = to_p9(d);
	u8 c[2 + SHARE_TAG_MAX] = { strlen(p->tag) };

	memcpy(c + 2, p->tag, strlen(p->tag));
	memcpy(data, c + offset, len);
}

static const struct virtio_device_ops p9_ops = {
	.name = "virtio-9p", .id = VIRTIO_ID_9P, .kick = p9_kick, .stop = p9_stop,
	.config_read = p9_config_read,
};

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct p9_state {
	u32 msize, len;
	u8 fids[P9_STATE_MAX];
};

static const struct state_field p9_fields[] = {
	STATE_FIELD(struct p9_state, msize, 1),
	STATE_FIELD(struct p9_state, len, 1),
	STATE_FIELD(struct p9_state, fids, 1),
};

static const struct state_table p9_table = STATE_TABLE("virtio-9p", struct p9_state, 1, p9_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_p9 *p = dev;
	struct p9_state *st = state;

	virtio_lock(&p->dev);
	*st = (struct p9_state){ 0 };
	st->len = p9_save(p->server, &st->msize, st->fids);
	virtio_unlock(&p->dev);
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_p9 *p = dev;
	const struct p9_state *st = state;
	int ret;

	virtio_lock(&p->dev);
	ret = p9_load(p->server, st->msize, st->fids, st->len);
	virtio_unlock(&p->dev);
	return ret;
}

const struct device_ops virtio_p9_device_ops = {
	.table = &p9_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_p9_init(struct virtio_p9 *p, const struct share_options *o,
		   const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	int ret;

	*p = (struct virtio_p9){ .answer = malloc(P9_MSIZE_MAX) };
	memcpy(p->tag, o->tag, strnlen(o->tag, SHARE_TAG_MAX));
	ret = p->answer ? p9_open(&p->server, o->folder, o->readonly, err) :
		error_set(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = virtio_init(&p->dev, &p9_ops, BIT(VIRTIO_9P_MOUNT_TAG), 1, P9_QUEUE_SIZE,
			2 + strlen(p->tag), mem, io, err);
	return ret;
}

void virtio_p9_destroy(struct virtio_p9 *p)
{
	virtio_destroy(&p->dev);
	p9_close(p->server);
	free(p->answer);
	p->server = NULL;
	p->answer = NULL;
}
