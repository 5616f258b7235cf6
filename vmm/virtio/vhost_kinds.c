/* The kinds of devices that back ends serve (virtio 1.2, 5.1, 5.2, 5.10, 5.11): see vhost.h. */
#include <linux/virtio_blk.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "vmm/virtio/vhost.h"
#include "vmm/virtio/vsock.h"

#define TAG_SIZE sizeof(((struct virtio_fs_config *)0)->tag)
_Static_assert(SHARE_TAG_MAX < TAG_SIZE, "virtio 1.2 5.11.4");

/* ---- fs: the queue for urgent requests, and one for others ------------------------------------ */

const struct vhost_kind vhost_fs = {
	.ops = { .name = "virtio-fs", .id = VIRTIO_ID_FS, VHOST_OPS },
	.config_size = sizeof(struct virtio_fs_config), .keeps_state = true,
	.queues_fixed = 2, .queues_max = 2,
};

void vhost_options_share(struct vhost_options *v, const struct share_options *o)
{
	struct virtio_fs_config c = { .num_request_queues = 1 };

	_Static_assert(sizeof(c) <= VHOST_CONFIG_MAX, "it fits");
	memcpy(c.tag, o->tag, strlen(o->tag));
	*v = (struct vhost_options){ .kind = &vhost_fs, .option = o->folder ? "--share" : "--device fs",
				     .socket = o->socket, .folder = o->folder };
	memcpy(v->config, &c, sizeof(c));
}

/* ---- net: one pair of queues, for more of them need a control queue, which is the front end's -- */

#define NET_CONFIG_SIZE offsetof(struct virtio_net_config, mtu)

const struct vhost_kind vhost_net = {
	.ops = { .name = "virtio-net", .id = VIRTIO_ID_NET, VHOST_OPS },
	.features = BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
		    BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) |
		    BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_HOST_TSO4) |
		    BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
		    BIT(VIRTIO_NET_F_HOST_UFO) | BIT(VIRTIO_NET_F_MRG_RXBUF),
	.own_features = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS),
	.config_size = NET_CONFIG_SIZE, .queues_fixed = 2, .queues_max = 2,
};

/* Checksums and segments are the interface's, which is ours: tap.c. */
const struct vhost_kind vhost_tap = {
	.ops = { .name = "virtio-net", .id = VIRTIO_ID_NET, VHOST_OPS },
	.features = BIT(VIRTIO_NET_F_MRG_RXBUF),
	.own_features = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) | BIT(VIRTIO_NET_F_CSUM) |
			BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
			BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
			BIT(VIRTIO_NET_F_GUEST_TSO6),
	.config_size = NET_CONFIG_SIZE, .queues_fixed = 2, .queues_max = 2, .open = vhost_tap_open,
};

void vhost_options_nic(struct vhost_options *v, const struct nic_options *o)
{
	struct virtio_net_config c = { .status = VIRTIO_NET_S_LINK_UP, .max_virtqueue_pairs = 1 };

	memcpy(c.mac, o->mac, 6);
	*v = (struct vhost_options){ .kind = o->kind == NET_TAP ? &vhost_tap : &vhost_net,
				     .option = "--net", .socket = o->socket, .tap = o->tap };
	memcpy(v->config, &c, NET_CONFIG_SIZE);
}

/* ---- vsock: the kernel serves packets, events are ours ---------------------------------------- */

#define VSOCK_QUEUE_EVENT 2

static void vsock_kick(struct virtio_device *d, unsigned queue)
{
	struct virtio_vhost *v = container_of(d, struct virtio_vhost, dev);

	if (queue == VSOCK_QUEUE_EVENT)
		vsock_send_event(d, queue, &v->event_due);
}

static void vsock_stop(struct virtio_device *d)
{
	container_of(d, struct virtio_vhost, dev)->event_due = false;
	vhost_stop(d);
}

/* Connections are the kernel's and stay with the machine that had them. */
static void vsock_loaded(struct virtio_vhost *v)
{
	v->event_due = v->dev.status & VIRTIO_CONFIG_S_DRIVER_OK;
}

const struct vhost_kind vhost_vsock = {
	.ops = { .name = "virtio-vsock", .id = VIRTIO_ID_VSOCK, .kick = vsock_kick,
		 .start = vhost_start, .stop = vsock_stop, .pause = vhost_stop,
		 .resume = vhost_resume, .config_read = vhost_config_read,
		 .rewired = vhost_rewired },
	.features = BIT(VIRTIO_VSOCK_F_SEQPACKET),
	.config_size = sizeof(struct virtio_vsock_config),
	.queues_fixed = 3, .queues_max = 3, .queues_own = 1, .open = vhost_vsock_open,
	.loaded = vsock_loaded,
};

void vhost_options_vsock(struct vhost_options *v, const struct vsock_options *o)
{
	const struct virtio_vsock_config c = { .guest_cid = o->cid };

	*v = (struct vhost_options){ .kind = &vhost_vsock, .option = "--device vhost-vsock",
				     .cid = o->cid };
	memcpy(v->config, &c, sizeof(c));
}

/* ---- blk: all of its configuration is the back end's ------------------------------------------ */

#define BLK_CONFIG_SIZE 60
_Static_assert(offsetof(struct virtio_blk_config, write_zeroes_may_unmap) < BLK_CONFIG_SIZE &&
	       BLK_CONFIG_SIZE <= VHOST_CONFIG_MAX, "virtio 1.2 5.2.4");

static void blk_settle(struct virtio_vhost *v)
{
	struct virtio_blk_config c;

	memcpy(&c, v->config, BLK_CONFIG_SIZE);
	c.num_queues = v->dev.queues;
	memcpy(v->config, &c, BLK_CONFIG_SIZE);
	if (v->dev.queues == 1)
		v->dev.offered &= ~BIT(VIRTIO_BLK_F_MQ);
}

const struct vhost_kind vhost_blk = {
	.ops = { .name = "virtio-blk", .id = VIRTIO_ID_BLOCK, VHOST_OPS },
	.features = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) |
		    BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
		    BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_FLUSH) |
		    BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES),
	.config_size = BLK_CONFIG_SIZE, .ask_config = true,
	.queues_fixed = 1, .queues_max = 16, .settle = blk_settle,
};

void vhost_options_disk(struct vhost_options *v, const struct disk_options *o, unsigned queues)
{
	*v = (struct vhost_options){ .kind = &vhost_blk, .option = "--disk", .socket = o->file,
				     .queues = queues };
}
