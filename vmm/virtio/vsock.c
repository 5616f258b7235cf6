/*
 * The socket device (virtio 1.2, 5.10): packets and credit. Nothing is held for a buffer of the driver:
 * what it is to be sent are flags of connections and bytes that wait in the host's sockets, so a guest
 * that gives no buffers costs nothing. A saved state has no connections; the driver is told by an event.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/virtio/sg.h"
#include "vmm/virtio/vsock.h"

#define VSOCK_QUEUE_SIZE 128
#define HOST_CID	2
#define PACKET_MAX	65536	/* of payload, to the driver */

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };

_Static_assert(sizeof(struct virtio_vsock_hdr) == 44, "virtio 1.2 5.10.6");

static struct virtio_vsock *to_vsock(struct virtio_device *d)
{
	return container_of(d, struct virtio_vsock, dev);
}

/* ---- to the driver --------------------------------------------------------------------------- */

static void put_packet(struct virtio_vsock *v, const struct virtq_chain *c, struct virtio_vsock_hdr *h)
{
	h->src_cid = HOST_CID;
	h->dst_cid = v->cid;
	h->type = VIRTIO_VSOCK_TYPE_STREAM;
	sg_write(c->iov + c->outs, c->ins, 0, h, sizeof(*h));
	virtio_done(&v->dev, QUEUE_RX, c, sizeof(*h) + h->len);
}

static struct virtio_vsock_hdr header_of(struct vsock_connection *c, u16 op)
{
	c->told = c->taken;
	c->tell &= ~VSOCK_TELL_CREDIT;
	return (struct virtio_vsock_hdr){
		.src_port = c->local_port, .dst_port = c->peer_port, .op = op,
		.buf_alloc = VSOCK_BUFFER, .fwd_cnt = c->taken,
	};
}

static u32 credit(const struct vsock_connection *c)
{
	u32 ahead = c->sent - c->peer_taken;

	return ahead < c->peer_buffer ? c->peer_buffer - ahead : 0;
}

static bool has_data(const struct vsock_connection *c)
{
	return c->state == VSOCK_OPEN && c->readable && !c->ended &&
	       !(c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) && credit(c);
}

static bool has_news(const struct vsock_connection *c)
{
	return c->tell || has_data(c);
}

/* The end of what the socket has: the guest hears of it behind the last bytes. */
static void source_ended(struct vsock_connection *c)
{
	c->ended = true;
	if (c->broken)
		vsock_reset(c);
	else
		c->tell |= VSOCK_TELL_SHUTDOWN;
}

/* Bytes of the socket into the driver's buffer. False: there were none, the buffer is not used. */
static bool send_data(struct vsock_connection *c, const struct virtq_chain *chain)
{
	struct iovec part[VIRTQ_SIZE_MAX];
	struct virtio_vsock_hdr h;
	u64 room = MIN(chain->in_bytes - sizeof(h), (u64)MIN(credit(c), PACKET_MAX));
	unsigned n = sg_slice(chain->iov + chain->outs, chain->ins, sizeof(h), room, part);
	ssize_t got = readv(c->fd, part, n);

	if (got <= 0) {
		c->readable = false;
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			source_ended(c);
		else
			c->readable = errno == EINTR;
		return false;
	}
	h = header_of(c, VIRTIO_VSOCK_OP_RW);
	h.len = got;
	c->sent += got;
	put_packet(c->v, chain, &h);
	return true;
}

/* One packet about the connection; false: the buffer is not used. c may be gone. */
static bool send_news(struct vsock_connection *c, const struct virtq_chain *chain)
{
	static const struct { u8 tell; u16 op; } order[] = {
		{ VSOCK_TELL_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
		{ VSOCK_TELL_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
		{ VSOCK_TELL_RESET, VIRTIO_VSOCK_OP_RST },
		{ VSOCK_TELL_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
		{ VSOCK_TELL_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
	};
	struct virtio_vsock_hdr h;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (!(c->tell & order[i].tell))
			continue;
		c->tell &= ~order[i].tell;
		h = header_of(c, order[i].op);
		/* The other direction still works, if the host's client only closed this one. */
		if (order[i].tell == VSOCK_TELL_SHUTDOWN)
			h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
		put_packet(c->v, chain, &h);
		if (order[i].tell == VSOCK_TELL_RESET)
			vsock_close(c);
		return true;
	}
	return send_data(c, chain);
}

static void send_reset(struct virtio_vsock *v, const struct virtq_chain *chain)
{
	const struct vsock_reset *r = &v->reset[--v->resets];
	struct virtio_vsock_hdr h = {
		.src_port = r->local_port, .dst_port = r->peer_port, .op = VIRTIO_VSOCK_OP_RST };

	put_packet(v, chain, &h);
}

static struct vsock_connection *next_news(struct virtio_vsock *v)
{
	for (struct vsock_connection **p = &v->first; *p; p = &(*p)->next) {
		struct vsock_connection *c = *p;

		if (!has_news(c))
			continue;
		/* To the end of the list: others have their turn before it comes again. */
		*p = c->next;
		while (*p)
			p = &(*p)->next;
		*p = c;
		c->next = NULL;
		return c;
	}
	return NULL;
}

static void rx_run(struct virtio_vsock *v)
{
	struct virtio_device *d = &v->dev;
	struct vsock_connection *c = NULL;
	struct virtq_chain chain;

	while (virtio_running(d) && (v->resets || (c = next_news(v))) &&
	       virtio_pop_or_wait(d, QUEUE_RX, &chain)) {
		if (chain.in_bytes < sizeof(struct virtio_vsock_hdr) + 1 || chain.outs)
			virtio_fail(d);
		else if (v->resets)
			send_reset(v, &chain);
		else if (!send_news(c, &chain))
			virtq_unpop(&d->queue[QUEUE_RX].vq, &chain);
	}
}

/* ---- from the driver ------------------------------------------------------------------------- */

static void reset_later(struct virtio_vsock *v, const struct virtio_vsock_hdr *h)
{
	/* Whoever floods us with packets for nobody is not answered each one. */
	if (h->op != VIRTIO_VSOCK_OP_RST && v->resets < VSOCK_RESETS_MAX)
		v->reset[v->resets++] = (struct vsock_reset){ h->dst_port, h->src_port };
}

static void take_shutdown(struct vsock_connection *c, u32 flags)
{
	const u8 both = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;

	c->peer_shut |= flags & both;
	vsock_flush(c);
	if (c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		shutdown(c->fd, SHUT_RD);
	/* 5.10.6.5: the one that hears of both ends it, once its bytes are out. */
	if (c->peer_shut == both && c->received == c->taken)
		vsock_reset(c);
}

/* A packet for a connection that there is. */
static void take_packet(struct vsock_connection *c, const struct virtio_vsock_hdr *h,
			const struct virtq_chain *chain)
{
	c->peer_buffer = h->buf_alloc;
	c->peer_taken = h->fwd_cnt;
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		if (c->state == VSOCK_ASKED && !(c->tell & VSOCK_TELL_REQUEST))
			vsock_accepted(c);
		else
			vsock_reset(c);
		break;
	case VIRTIO_VSOCK_OP_RST:
		vsock_close(c);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		take_shutdown(c, h->flags);
		break;
	case VIRTIO_VSOCK_OP_RW:
		if (c->state != VSOCK_OPEN || c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_SEND ||
		    !vsock_receive(c, chain->iov, chain->outs, sizeof(*h), h->len))
			vsock_reset(c);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->tell |= VSOCK_TELL_CREDIT;
		break;
	default:
		vsock_reset(c);
	}
}

static void take(struct virtio_vsock *v, const struct virtio_vsock_hdr *h,
		 const struct virtq_chain *chain)
{
	struct vsock_connection *c = vsock_find(v, h->dst_port, h->src_port);

	/* 5.10.6.4: not from the guest, not for the host: not for anybody. */
	if (h->src_cid != v->cid || h->dst_cid != HOST_CID)
		return;
	if (h->type != VIRTIO_VSOCK_TYPE_STREAM) {
		reset_later(v, h);
	} else if (c && c->state != VSOCK_DEAD) {
		take_packet(c, h, chain);
	} else if (!c && h->op == VIRTIO_VSOCK_OP_REQUEST) {
		c = vsock_connect(v, h->dst_port, h->src_port);
		if (!c) {
			reset_later(v, h);
			return;
		}
		c->peer_buffer = h->buf_alloc;
		c->peer_taken = h->fwd_cnt;
	} else if (!c) {
		reset_later(v, h);
	}
}

static bool tx_take(struct virtio_device *d, unsigned queue, struct virtq_chain *chain)
{
	struct virtio_vsock_hdr h;

	if (sg_read(chain->iov, chain->outs, 0, &h, sizeof(h)) != sizeof(h) ||
	    h.len > chain->out_bytes - sizeof(h)) {
		virtio_fail(d);
		return true;
	}
	take(to_vsock(d), &h, chain);
	virtio_done(d, queue, chain, 0);
	return true;
}

/* ---- the device ------------------------------------------------------------------------------ */

void vsock_send_event(struct virtio_device *d, unsigned queue, bool *due)
{
	const struct virtio_vsock_event e = { .id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
	struct virtq_chain c;

	if (!*due || !virtio_pop_or_wait(d, queue, &c))
		return;
	if (c.in_bytes < sizeof(e)) {
		virtio_fail(d);
		return;
	}
	*due = false;
	virtio_done(d, queue, &c, sg_write(c.iov + c.outs, c.ins, 0, &e, sizeof(e)));
}

static void vsock_kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_vsock *v = to_vsock(d);

	if (queue == QUEUE_EVENT)
		vsock_send_event(d, queue, &v->event_due);
	else if (queue == QUEUE_TX)
		virtio_queue_run(d, queue, tx_take);
	rx_run(v);
}

/* Connections whose guest has ended both directions, and whose bytes are out by now. */
static void finish_shut(struct virtio_vsock *v)
{
	for (struct vsock_connection *c = v->first; c; c = c->next)
		if (c->state == VSOCK_OPEN && c->peer_shut == 3 && c->received == c->taken)
			vsock_reset(c);
}

static void vsock_ready(void *arg, u32 events)
{
	struct virtio_vsock *v = arg;

	(void)events;
	vsock_poll(v);
	finish_shut(v);
	rx_run(v);
}

static void vsock_stop(struct virtio_device *d)
{
	struct virtio_vsock *v = to_vsock(d);

	vsock_close_all(v);
	v->resets = 0;
	v->event_due = false;
}

static void vsock_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_vsock_config c = { .guest_cid = to_vsock(d)->cid };

	memcpy(data, (const u8 *)&c + offset, len);
}

static const struct virtio_device_ops vsock_ops = {
	.name = "virtio-vsock", .id = VIRTIO_ID_VSOCK, .kick = vsock_kick, .stop = vsock_stop,
	.config_read = vsock_config_read,
};

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

struct vsock_state_saved {
	u8 connected;	/* there were connections, which do not move */
};

static const struct state_field vsock_fields[] = {
	STATE_FIELD(struct vsock_state_saved, connected, 1),
};

static const struct state_table vsock_table =
	STATE_TABLE("virtio-vsock", struct vsock_state_saved, 1, vsock_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	struct virtio_vsock *v = dev;
	struct vsock_state_saved *st = state;

	virtio_lock(&v->dev);
	st->connected = v->first || v->resets || v->event_due;
	virtio_unlock(&v->dev);
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_vsock *v = dev;
	const struct vsock_state_saved *st = state;

	if (st->connected > 1)
		return -EINVAL;
	virtio_lock(&v->dev);
	vsock_close_all(v);
	v->event_due = st->connected;
	virtio_unlock(&v->dev);
	return 0;
}

const struct device_ops virtio_vsock_device_ops = {
	.table = &vsock_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

int virtio_vsock_init(struct virtio_vsock *v, const struct vsock_options *o,
		      const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	int ret;

	*v = (struct virtio_vsock){ .cid = o->cid, .listener = -1, .epoll = -1, .watch = -1 };
	if (strlen(o->path) >= sizeof(v->path))
		return error_usage(err, "vsock: %s is too long for a socket's name", o->path);
	strcpy(v->path, o->path);
	ret = vsock_listen(v, err);
	if (ret == 0)
		ret = virtio_init(&v->dev, &vsock_ops, 0, QUEUES, VSOCK_QUEUE_SIZE,
			sizeof(struct virtio_vsock_config), mem, io, err);
	if (ret < 0)
		return ret;
	v->watch = loop_add(&io->loop, v->epoll, EPOLLIN, vsock_ready, v);
	return v->watch < 0 ? error_set(err, -v->watch, "vsock: too many watches") : 0;
}

void virtio_vsock_destroy(struct virtio_vsock *v)
{
	vsock_close_all(v);
	if (v->watch >= 0)
		loop_remove(&v->dev.io->loop, v->watch);
	virtio_destroy(&v->dev);
	if (v->listener >= 0) {
		close(v->listener);
		unlink(v->path);
	}
	if (v->epoll >= 0)
		close(v->epoll);
	v->listener = v->epoll = v->watch = -1;
}
