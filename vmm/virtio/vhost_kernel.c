/*
 * Back ends that the kernel has: vhost_net in front of a TAP interface, vhost_vsock in front of the
 * host's AF_VSOCK (Linux, include/uapi/linux/vhost.h). A thread of the kernel serves the queues in the
 * address space of this process, so guest memory may be private; what the rings say is the kernel's to
 * check.
 *
 * The kernel keeps its word and stays, so a refusal is no loss: queues come back, and the driver's
 * next reset is another try. Its error eventfds are left alone, as vhost_net also signals frames there
 * that a TAP interface does not take.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/net/net.h"
#include "vmm/virtio/vhost.h"

#define NET_NODE	"/dev/vhost-net"
#define VSOCK_NODE	"/dev/vhost-vsock"

/* ---- what both have -------------------------------------------------------------------------- */

static int refused(struct vhost_back *b, const char *why)
{
	b->why = why;
	return -EIO;
}

static void kernel_close(struct vhost_back *b)
{
	if (b->fd >= 0)
		close(b->fd);
	if (b->fd >= 0 && b->tap >= 0)
		close(b->tap);
	b->fd = b->tap = -1;
}

static int kernel_set_features(struct vhost_back *b, u64 features)
{
	features &= b->features;
	return ioctl(b->fd, VHOST_SET_FEATURES, &features) < 0 ?
		refused(b, "the kernel's vhost refuses features") : 0;
}

static int kernel_set_memory(struct vhost_back *b, const struct guest_memory *mem)
{
	union {
		struct vhost_memory table;
		u8 bytes[sizeof(struct vhost_memory) +
			 GUEST_REGIONS_MAX * sizeof(struct vhost_memory_region)];
	} m = { .table = { .nregions = mem->count } };

	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];

		m.table.regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = r->gpa, .memory_size = r->size,
			.userspace_addr = (uintptr_t)r->host };
	}
	return ioctl(b->fd, VHOST_SET_MEM_TABLE, &m) < 0 ?
		refused(b, "the kernel's vhost refuses guest memory") : 0;
}

static int set_file(struct vhost_back *b, unsigned long request, unsigned i, int fd)
{
	struct vhost_vring_file f = { .index = i, .fd = fd };

	return ioctl(b->fd, request, &f) < 0 ?
		refused(b, "the kernel's vhost refuses an eventfd") : 0;
}

static int kernel_set_call(struct vhost_back *b, unsigned i, int fd)
{
	return set_file(b, VHOST_SET_VRING_CALL, i, fd);
}

/* The ring rests until run(). */
static int kernel_start_ring(struct vhost_back *b, unsigned i, const struct vhost_ring *r)
{
	struct vhost_vring_state num = { .index = i, .num = r->size };
	struct vhost_vring_state base = { .index = i, .num = r->base };
	struct vhost_vring_addr addr = { .index = i, .desc_user_addr = r->desc,
		.avail_user_addr = r->driver, .used_user_addr = r->device };
	int ret;

	if (ioctl(b->fd, VHOST_SET_VRING_NUM, &num) < 0 ||
	    ioctl(b->fd, VHOST_SET_VRING_BASE, &base) < 0 ||
	    ioctl(b->fd, VHOST_SET_VRING_ADDR, &addr) < 0)
		return refused(b, "the kernel's vhost refuses a queue");
	ret = kernel_set_call(b, i, r->call_fd);
	return ret < 0 ? ret : set_file(b, VHOST_SET_VRING_KICK, i, r->kick_fd);
}

static int kernel_stop_ring(struct vhost_back *b, unsigned i, u32 *base)
{
	struct vhost_vring_state s = { .index = i };

	if (ioctl(b->fd, VHOST_GET_VRING_BASE, &s) < 0)
		return refused(b, "the kernel's vhost does not give a queue back");
	*base = s.num;
	return 0;
}

#define KERNEL_OPS                                                                              \
	.close = kernel_close, .set_memory = kernel_set_memory, .start_ring = kernel_start_ring, \
	.set_call = kernel_set_call, .stop_ring = kernel_stop_ring

static int kernel_open(struct vhost_back *b, const struct vhost_back_ops *ops, const char *node,
		       const char *option, struct error *err)
{
	int ret;

	*b = (struct vhost_back){ .ops = ops, .tap = -1, .queues = 2 };
	b->fd = open(node, O_RDWR | O_CLOEXEC);
	if (b->fd < 0)
		return error_set(err, errno, "%s: %s: %s", option, node, strerror(errno));
	if (ioctl(b->fd, VHOST_SET_OWNER) == 0 &&
	    ioctl(b->fd, VHOST_GET_FEATURES, &b->features) == 0)
		return 0;
	ret = error_set(err, errno, "%s: %s: no vhost: %s", option, node, strerror(errno));
	kernel_close(b);
	return ret;
}

/* ---- vhost_net: each queue is plugged into the interface ------------------------------------- */

static int tap_plug(struct vhost_back *b, int fd, u32 queues)
{
	int ret = 0;

	for (unsigned i = 0; i < 2; i++) {
		struct vhost_vring_file f = { .index = i, .fd = fd };

		if (queues & 1u << i && ioctl(b->fd, VHOST_NET_SET_BACKEND, &f) < 0)
			ret = refused(b, "the kernel's vhost refuses a TAP interface");
	}
	return ret;
}

static int tap_run(struct vhost_back *b, u32 queues)
{
	return tap_plug(b, b->tap, queues);
}

static void tap_halt(struct vhost_back *b)
{
	tap_plug(b, -1, 3);
}

static int tap_set_features(struct vhost_back *b, u64 features)
{
	net_tap_set_offloads(b->tap, net_offloads_of(features));
	return kernel_set_features(b, features);
}

static const struct vhost_back_ops tap_ops = {
	KERNEL_OPS, .set_features = tap_set_features, .run = tap_run, .halt = tap_halt,
};

bool vhost_net_there(void)
{
	int fd = open(NET_NODE, O_RDWR | O_CLOEXEC);	/* a node may have no module behind it */

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int vhost_tap_open(struct vhost_back *b, const struct vhost_options *o, struct error *err)
{
	int ret = kernel_open(b, &tap_ops, NET_NODE, "--net: vhost=on", err);

	if (ret < 0)
		return ret;
	b->tap = net_tap_attach(o->tap, err);
	if (b->tap < 0) {
		ret = b->tap;
		kernel_close(b);
	}
	return ret;
}

/* ---- vhost_vsock ----------------------------------------------------------------------------- */

static int vsock_set_running(struct vhost_back *b, int on)
{
	return ioctl(b->fd, VHOST_VSOCK_SET_RUNNING, &on) < 0 ?
		refused(b, "the kernel's vhost does not start") : 0;
}

static int vsock_run(struct vhost_back *b, u32 queues)
{
	/* Else the kernel would take up a queue that it had before a reset. */
	if (queues != 3)
		return refused(b, "the driver has set up half of the queues");
	return vsock_set_running(b, 1);
}

static void vsock_halt(struct vhost_back *b)
{
	vsock_set_running(b, 0);
}

static const struct vhost_back_ops vsock_ops = {
	KERNEL_OPS, .set_features = kernel_set_features, .run = vsock_run, .halt = vsock_halt,
};

int vhost_vsock_open(struct vhost_back *b, const struct vhost_options *o, struct error *err)
{
	int ret = kernel_open(b, &vsock_ops, VSOCK_NODE, o->option, err);

	if (ret < 0 || ioctl(b->fd, VHOST_VSOCK_SET_GUEST_CID, &o->cid) == 0)
		return ret;
	ret = error_set(err, errno, "%s: cid=%llu: %s", o->option, (unsigned long long)o->cid,
		errno == EADDRINUSE ? "another machine of this host has it" : strerror(errno));
	kernel_close(b);
	return ret;
}
