/*
 * A TAP interface of the host (Linux Documentation/networking/tuntap.rst), with virtio's header in
 * front of each frame: checksums and segmentation pass through to the host's stack.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/net/net.h"
#include "vmm/virtio/virtq.h"

#define TAP_BURST 64	/* frames that are read before others of the thread have a turn */

struct net_tap {
	struct net_backend b;
	int fd, watch;
	size_t held;	/* bytes of buf that the guest had no room for */
	u8 buf[NET_HEADER_SIZE + NET_FRAME_MAX];
};

static bool tap_deliver(struct net_tap *t)
{
	struct virtio_net_hdr_v1 h;

	memcpy(&h, t->buf, sizeof(h));
	if (!t->b.front.receive(t->b.front.arg, &h, t->buf + sizeof(h), t->held - sizeof(h)))
		return false;
	t->held = 0;
	return true;
}

static void tap_readable(void *arg, u32 events)
{
	struct net_tap *t = arg;

	(void)events;
	for (unsigned i = 0; i < TAP_BURST && !t->held; i++) {
		ssize_t n = read(t->fd, t->buf, sizeof(t->buf));

		if (n < (ssize_t)NET_HEADER_SIZE)
			return;
		t->held = n;
		if (!tap_deliver(t))
			loop_change(t->b.loop, t->watch, 0);
	}
}

static void tap_resume(struct net_backend *b)
{
	struct net_tap *t = container_of(b, struct net_tap, b);

	if (!t->held || tap_deliver(t))
		loop_change(b->loop, t->watch, EPOLLIN);
}

/* A full queue drops the frame, as a wire does. */
static bool tap_send(struct net_backend *b, const struct virtio_net_hdr_v1 *h,
		     const struct iovec *iov, unsigned n, size_t len)
{
	struct net_tap *t = container_of(b, struct net_tap, b);
	struct iovec all[VIRTQ_SIZE_MAX + 1];
	ssize_t done;

	(void)len;
	all[0] = (struct iovec){ (void *)h, sizeof(*h) };
	memcpy(all + 1, iov, n * sizeof(*iov));
	done = writev(t->fd, all, n + 1);
	(void)done;
	return true;
}

void net_tap_set_offloads(int fd, u32 can)
{
	unsigned long flags = can & NET_CAN_CSUM ? TUN_F_CSUM : 0;

	if (flags && can & NET_CAN_TSO4)
		flags |= TUN_F_TSO4;
	if (flags && can & NET_CAN_TSO6)
		flags |= TUN_F_TSO6;
	ioctl(fd, TUNSETOFFLOAD, flags);
}

static void tap_set_guest_offloads(struct net_backend *b, u32 can)
{
	net_tap_set_offloads(container_of(b, struct net_tap, b)->fd, can);
}

static void tap_destroy(struct net_backend *b)
{
	struct net_tap *t = container_of(b, struct net_tap, b);

	if (t->watch >= 0)
		loop_remove(b->loop, t->watch);
	if (t->fd >= 0)
		close(t->fd);
	free(t);
}

static const struct net_backend_ops tap_ops = {
	.send = tap_send, .resume = tap_resume, .set_guest_offloads = tap_set_guest_offloads,
	.destroy = tap_destroy,
};

int net_tap_attach(const char *name, struct error *err)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int size = NET_HEADER_SIZE, fd, ret;

	if (strlen(name) >= sizeof(ifr.ifr_name))
		return error_usage(err, "--net: tap: \"%s\" is too long for an interface's name", name);
	strcpy(ifr.ifr_name, name);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, errno, "--net: tap: /dev/net/tun: %s", strerror(errno));
	if (ioctl(fd, TUNSETIFF, &ifr) == 0 && ioctl(fd, TUNSETVNETHDRSZ, &size) == 0)
		return fd;
	ret = error_set(err, errno, "--net: tap=%s: %s", name, strerror(errno));
	close(fd);
	return ret;
}

static int tap_plug(struct net_tap *t, const char *name, struct error *err)
{
	t->fd = net_tap_attach(name, err);
	if (t->fd < 0)
		return t->fd;
	t->watch = loop_add(t->b.loop, t->fd, EPOLLIN, tap_readable, t);
	return t->watch < 0 ? error_set(err, -t->watch, "cannot watch a TAP interface") : 0;
}

int net_tap_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		 const struct net_front *front, struct error *err)
{
	struct net_tap *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return error_set(err, ENOMEM, "out of memory");
	t->fd = t->watch = -1;
	t->b = (struct net_backend){
		.ops = &tap_ops, .front = *front, .loop = loop,
		.takes = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6,
		.brings = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6,
	};
	ret = tap_plug(t, o->tap, err);
	if (ret < 0)
		tap_destroy(&t->b);
	else
		*out = &t->b;
	return ret;
}
