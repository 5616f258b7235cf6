/*
 * The network device (virtio 1.2, 5.1). Queues: receive and transmit of each pair, then control.
 * A frame for the guest goes to the pair whose driver's CPU last sent in its flow.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/net.h"
#include "vmm/virtio/sg.h"

#define NET_QUEUE_SIZE	256
#define NET_MERGE_MAX	64	/* buffers for one frame: 64 KiB in the smallest that drivers use */
#define ETHERNET_MIN	14

static struct virtio_net *to_net(struct virtio_device *d)
{
	return container_of(d, struct virtio_net, dev);
}

/* ---- flows ----------------------------------------------------------------------------------- */

/* The same for both directions of a connection: addresses and ports enter by their sum. */
static u8 flow_of(const u8 *f, size_t len)
{
	u32 hash = 0;

	if (len >= 38 && f[12] == 0x08 && f[13] == 0x00) {		/* IPv4, no options */
		for (int i = 26; i < 34; i += 2)
			hash += f[i] << 8 | f[i + 1];
		hash += f[23] == 6 || f[23] == 17 ?
			(f[34] << 8 | f[35]) + (f[36] << 8 | f[37]) : 0;
	} else if (len >= 58 && f[12] == 0x86 && f[13] == 0xDD) {	/* IPv6 */
		for (int i = 22; i < 54; i += 2)
			hash += f[i] << 8 | f[i + 1];
		hash += f[20] == 6 || f[20] == 17 ?
			(f[54] << 8 | f[55]) + (f[56] << 8 | f[57]) : 0;
	}
	return hash ^ hash >> 8 ^ hash >> 16;
}

/* ---- from the guest -------------------------------------------------------------------------- */

static bool net_transmit(struct virtio_device *d, unsigned queue, struct virtq_chain *c)
{
	struct virtio_net *net = to_net(d);
	struct iovec part[VIRTQ_SIZE_MAX];
	struct virtio_net_hdr_v1 h;
	u8 head[64];
	u64 len;
	unsigned n;

	if (sg_read(c->iov, c->outs, 0, &h, sizeof(h)) < sizeof(h)) {
		virtio_fail(d);
		return true;
	}
	len = c->out_bytes - sizeof(h);
	n = sg_slice(c->iov, c->outs, sizeof(h), len, part);
	/* A frame that no wire carries is dropped, like one while the cable is out. */
	if (len >= ETHERNET_MIN && len <= NET_FRAME_MAX && !net->link_down) {
		/* Before it is sent: the user network may answer at once. */
		if (net->control.pairs > 1)
			net->flow[flow_of(head, sg_read(part, n, 0, head, sizeof(head)))] = queue / 2;
		if (!net->backend->ops->send(net->backend, &h, part, n, len))
			return false;
		net_pcap_frame(&net->pcap, part, n, len);
	}
	virtio_done(d, queue, c, 0);
	return true;
}

static void net_drained(void *arg)
{
	struct virtio_net *net = arg;

	for (unsigned i = 0; i < net->pairs; i++)
		virtio_queue_kick(&net->dev, 2 * i + 1);
}

/* ---- to the guest ---------------------------------------------------------------------------- */

/* Buffers taken for one frame. */
struct net_buffers {
	struct virtq_used used[NET_MERGE_MAX];
	unsigned n;
	u64 bytes;		/* room in them */
};

/* Puts header and frame, from offset on, into a buffer. */
static u32 buffer_fill(const struct virtq_chain *c, u64 offset, const struct virtio_net_hdr_v1 *h,
		       const u8 *frame, size_t len)
{
	const struct iovec *in = c->iov + c->outs;
	u32 head = 0;

	if (!offset)
		head = sg_write(in, c->ins, 0, h, sizeof(*h));
	else
		offset -= sizeof(*h);
	return head + sg_write(in, c->ins, head, frame + offset, len - offset);
}

static void buffers_undo(struct virtio_net *net, unsigned queue, const struct net_buffers *b)
{
	struct virtq_chain c;

	for (unsigned i = b->n; i-- > 0;) {
		c.slots = b->used[i].slots;
		virtq_unpop(&net->dev.queue[queue].vq, &c);
	}
}

/*
 * Writes the frame into as many buffers as it takes. The number of them stands in the first, so it is
 * written last; first keeps that buffer.
 */
static bool buffers_take(struct virtio_net *net, unsigned queue, const struct virtio_net_hdr_v1 *h,
			 const u8 *frame, size_t len, struct virtq_chain *first,
			 struct net_buffers *b)
{
	unsigned most = virtio_has(&net->dev, VIRTIO_NET_F_MRG_RXBUF) ? NET_MERGE_MAX : 1;
	u64 total = sizeof(*h) + len;
	struct virtq_chain next;

	for (b->n = 0, b->bytes = 0; b->bytes < total; b->n++) {
		struct virtq_chain *c = b->n ? &next : first;

		if (b->n == most || !virtio_pop_or_wait(&net->dev, queue, c)) {
			buffers_undo(net, queue, b);
			return false;
		}
		b->used[b->n] = (struct virtq_used){ c->id, c->slots, 0 };
		/* 5.1.6.3.1: every buffer holds at least the header. */
		if (c->in_bytes < sizeof(*h) || (most == 1 && c->in_bytes < total)) {
			b->n++;
			buffers_undo(net, queue, b);
			virtio_fail(&net->dev);
			return false;
		}
		b->used[b->n].len = buffer_fill(c, b->bytes, h, frame, len);
		b->bytes += c->in_bytes;
	}
	return true;
}

static bool net_receive(void *arg, const struct virtio_net_hdr_v1 *from, const u8 *frame, size_t len)
{
	struct virtio_net *net = arg;
	struct virtio_net_hdr_v1 h = *from;
	const struct iovec all = { (void *)frame, len };
	struct virtq_chain first;
	struct net_buffers b;
	unsigned queue = 0;
	u16 n;

	if (!virtio_running(&net->dev))
		return !(net->dev.status & VIRTIO_CONFIG_S_DRIVER_OK);
	if (len < ETHERNET_MIN || net->link_down || !net_control_accepts(net, frame))
		return true;
	if (net->control.pairs > 1)
		queue = 2 * (net->flow[flow_of(frame, len)] % net->control.pairs);
	if (!virtio_has(&net->dev, VIRTIO_NET_F_GUEST_CSUM))
		h.flags = 0;
	h.num_buffers = 1;
	if (!net->dev.queue[queue].vq.ready ||
	    !buffers_take(net, queue, &h, frame, len, &first, &b))
		return false;
	n = b.n;
	sg_write(first.iov + first.outs, first.ins,
		offsetof(struct virtio_net_hdr_v1, num_buffers), &n, sizeof(n));
	virtio_push(&net->dev, queue, b.used, b.n);
	net_pcap_frame(&net->pcap, &all, 1, len);
	return true;
}

/* 5.1.2: behind all pairs, or behind the one that a driver of one knows. */
static unsigned control_queue(const struct virtio_device *d)
{
	return virtio_has(d, VIRTIO_NET_F_MQ) ? d->queues - 1 : 2;
}

static void net_kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_net *net = to_net(d);
	struct net_backend *b = net->backend;

	if (queue == control_queue(d)) {
		virtio_queue_run(d, queue, net_control_take);
	} else if (queue & 1) {
		virtio_queue_run(d, queue, net_transmit);
		if (b->ops->flush)
			b->ops->flush(b);
	} else if (b->ops->resume) {
		b->ops->resume(b);
	}
}

/* ---- the device ------------------------------------------------------------------------------ */

void net_apply_offloads(struct virtio_net *net, u64 features)
{
	struct net_backend *b = net->backend;

	if (b->ops->set_guest_offloads)
		b->ops->set_guest_offloads(b, net_offloads_of(features) & b->brings);
}

static void net_start(struct virtio_device *d)
{
	struct virtio_net *net = to_net(d);

	net_apply_offloads(net, d->features);
	if (net->backend->ops->resume)
		net->backend->ops->resume(net->backend);
}

static void net_stop(struct virtio_device *d)
{
	struct virtio_net *net = to_net(d);

	net_control_reset(net);
	memset(net->flow, 0, sizeof(net->flow));
	if (net->backend)
		net_apply_offloads(net, 0);
}

/* 5.1.3.1: which features stand on which. */
static bool net_features_valid(struct virtio_device *d, u64 f)
{
	u64 guest = BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6);
	u64 host = BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6);
	u64 control = BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
		      BIT(VIRTIO_NET_F_MQ) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);

	return !(f & guest && !(f & BIT(VIRTIO_NET_F_GUEST_CSUM))) &&
	       !(f & host && !(f & BIT(VIRTIO_NET_F_CSUM))) &&
	       !(f & control && !(f & BIT(VIRTIO_NET_F_CTRL_VQ)));
}

static void net_config_read(struct virtio_device *d, u32 offset, void *data, u32 len)
{
	const struct virtio_net *net = to_net(d);
	struct virtio_net_config c = {
		.status = net->link_down ? 0 : VIRTIO_NET_S_LINK_UP,
		.max_virtqueue_pairs = net->pairs,
	};

	memcpy(c.mac, net->mac, 6);
	memcpy(data, (const u8 *)&c + offset, len);
}

void virtio_net_set_link(struct virtio_net *net, bool up)
{
	if (net->link_down == !up)
		return;
	net->link_down = !up;
	virtio_config_changed(&net->dev);
}

static const struct virtio_device_ops net_ops = {
	.name = "virtio-net", .id = VIRTIO_ID_NET, .kick = net_kick, .start = net_start,
	.stop = net_stop, .config_read = net_config_read, .features_valid = net_features_valid,
};

/* ---- the five verbs, of what is its own ------------------------------------------------------ */

static const struct state_field net_fields[] = {
	STATE_FIELD(struct net_control, promisc, 1),
	STATE_FIELD(struct net_control, allmulti, 1),
	STATE_FIELD(struct net_control, alluni, 1),
	STATE_FIELD(struct net_control, nomulti, 1),
	STATE_FIELD(struct net_control, nouni, 1),
	STATE_FIELD(struct net_control, nobcast, 1),
	STATE_FIELD(struct net_control, unicast_all, 1),
	STATE_FIELD(struct net_control, multicast_all, 1),
	STATE_FIELD(struct net_control, pairs, 1),
	STATE_FIELD(struct net_control, unicasts, 1),
	STATE_FIELD(struct net_control, multicasts, 1),
	STATE_FIELD(struct net_control, mac, 1),
	STATE_FIELD(struct net_control, unicast, 1),
	STATE_FIELD(struct net_control, multicast, 1),
	STATE_FIELD(struct net_control, offloads, 2),
	STATE_FIELD(struct net_control, offloads_set, 2),
};

static const struct state_table net_table =
	STATE_TABLE("virtio-net", struct net_control, 2, net_fields);

static void verb_nothing(void *dev)
{
	(void)dev;	/* the device's part does it */
}

static void verb_save(void *dev, void *state)
{
	const struct virtio_net *net = dev;

	memcpy(state, &net->control, sizeof(net->control));
}

static int verb_load(void *dev, const void *state)
{
	struct virtio_net *net = dev;
	const struct net_control *st = state;

	if (!st->pairs || st->pairs > net->pairs || st->unicasts > NET_MACS_MAX ||
	    st->multicasts > NET_MACS_MAX || st->offloads_set > 1 ||
	    (st->offloads_set && st->offloads & ~net->dev.features))
		return -EINVAL;
	virtio_lock(&net->dev);
	net->control = *st;
	/* The device's part, loaded before, has told the backend of all that was agreed on. */
	if (st->offloads_set)
		net_apply_offloads(net, st->offloads);
	virtio_unlock(&net->dev);
	return 0;
}

const struct device_ops virtio_net_device_ops = {
	.table = &net_table, .reset = verb_nothing, .pause = verb_nothing, .resume = verb_nothing,
	.save = verb_save, .load = verb_load,
};

/* ---- life ------------------------------------------------------------------------------------ */

static u64 net_features(const struct net_backend *b, unsigned pairs)
{
	static const struct { u8 can, sends, receives; } offload[] = {
		{ NET_CAN_CSUM, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM },
		{ NET_CAN_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4 },
		{ NET_CAN_TSO6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6 },
	};
	u64 f = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
		BIT(VIRTIO_NET_F_CTRL_VQ) | BIT(VIRTIO_NET_F_CTRL_RX) |
		BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
		BIT(VIRTIO_NET_F_GUEST_CSUM);

	for (size_t i = 0; i < ARRAY_SIZE(offload); i++) {
		f |= b->takes & offload[i].can ? BIT(offload[i].sends) : 0;
		f |= b->brings & offload[i].can ? BIT(offload[i].receives) : 0;
	}
	if (b->brings)
		f |= BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	return pairs > 1 ? f | BIT(VIRTIO_NET_F_MQ) : f;
}

static int net_open_backend(struct virtio_net *net, const struct nic_options *o, struct loop *loop,
			    struct error *err)
{
	const struct net_front front = { net_receive, net_drained, net };

	switch (o->kind) {
	case NET_TAP:
		return net_tap_open(&net->backend, o, loop, &front, err);
	case NET_SOCKET:
		return net_socket_open(&net->backend, o, loop, &front, err);
	case NET_PASST:
		return net_passt_open(&net->backend, o, loop, &front, err);
	case NET_USER:
	case NET_VHOST:		/* not a backend's: vhost.c */
		break;
	}
	return net_user_open(&net->backend, o, loop, &front, err);
}

int virtio_net_init(struct virtio_net *net, const struct nic_options *o, unsigned pairs,
		    const struct guest_memory *mem, struct io_thread *io, struct error *err)
{
	int ret;

	*net = (struct virtio_net){ .pairs = pairs, .pcap.fd = -1 };
	memcpy(net->mac, o->mac, sizeof(net->mac));
	net_control_reset(net);
	ret = o->pcap ? net_pcap_open(&net->pcap, o->pcap, err) : 0;
	if (ret == 0)
		ret = net_open_backend(net, o, &io->loop, err);
	if (ret == 0)
		ret = virtio_init(&net->dev, &net_ops, net_features(net->backend, pairs),
			2 * pairs + 1, NET_QUEUE_SIZE, sizeof(struct virtio_net_config), mem, io, err);
	if (ret < 0)
		virtio_net_destroy(net);
	return ret;
}

void virtio_net_destroy(struct virtio_net *net)
{
	virtio_destroy(&net->dev);
	if (net->backend)
		net->backend->ops->destroy(net->backend);
	net->backend = NULL;
	net_pcap_close(&net->pcap);
}
