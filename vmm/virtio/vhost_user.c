/*
 * The front end's side of vhost-user (QEMU, docs/interop/vhost-user.rst): messages over a Unix stream
 * socket, descriptors beside them. Of the protocol's features we agree on MQ and CONFIG; what needs
 * another channel (SLAVE_REQ), a log, or reconnecting is left out.
 *
 * An answer must be the one asked for, in type and size, and come in time; else the socket is closed.
 * Descriptors that a back end sends are never taken. Each wait is bounded, for it may be a CPU's thread
 * that waits.
 */
#include <errno.h>
#include <linux/vhost_types.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/virtio/vhost.h"

#define PATIENCE_MS	10000	/* to finish what a back end has begun when its queues are stopped */
#define REGIONS_MAX	8
#define CONFIG_MAX	256

enum {
	GET_FEATURES = 1, SET_FEATURES = 2, SET_OWNER = 3, SET_MEM_TABLE = 5, SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9, SET_VRING_BASE = 10, GET_VRING_BASE = 11, SET_VRING_KICK = 12,
	SET_VRING_CALL = 13, SET_VRING_ERR = 14, GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16, GET_QUEUE_NUM = 17, SET_VRING_ENABLE = 18, GET_CONFIG = 24,
};

#define F_PROTOCOL	BIT(30)		/* of the features: there are protocol features */
#define PROTOCOL_MQ	BIT(0)
#define PROTOCOL_CONFIG	BIT(9)
#define FLAGS_VERSION	1
#define FLAGS_MASK	7		/* version and reply; above: what a sender may wish */
#define FLAGS_REPLY	BIT(2)

struct region {
	u64 gpa, size, user, offset;
};

struct message {
	u32 request, flags, size;
	union {
		u64 number;
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct {
			u32 count, padding;
			struct region region[REGIONS_MAX];
		} memory;
		struct {
			u32 offset, size, flags;
			u8 data[CONFIG_MAX];
		} config;
		u8 bytes[272];
	};
} __attribute__((packed));

#define HEAD offsetof(struct message, number)
_Static_assert(HEAD == 12, "vhost-user, Message Specification");
_Static_assert(sizeof(struct vhost_vring_addr) == 40, "vhost-user, A vring address description");
_Static_assert(sizeof(struct region) == 32, "vhost-user, Memory region description");

static void user_close(struct vhost_back *b)
{
	if (b->fd >= 0)
		close(b->fd);
	b->fd = -1;
}

static int lost(struct vhost_back *b, const char *why)
{
	if (!b->why)
		b->why = why;
	user_close(b);
	return -EIO;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static u64 now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Until the socket is ready or the time is over. */
static int wait_ready(struct vhost_back *b, short events, u64 end)
{
	struct pollfd p = { .fd = b->fd, .events = events };
	u64 now = now_ms();
	int n;

	do
		n = now < end ? poll(&p, 1, end - now) : 0;
	while (n < 0 && errno == EINTR && (now = now_ms()) < end);
	return n > 0 ? 0 : lost(b, "the back end does not answer");
}

static int send_all(struct vhost_back *b, const struct message *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr align;
		u8 bytes[CMSG_SPACE(sizeof(int) * REGIONS_MAX)];
	} control = { 0 };
	struct iovec iov = { (void *)m, HEAD + m->size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	u64 end = now_ms() + PATIENCE_MS;

	if (n) {
		h.msg_control = &control;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		control.align = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
						  .cmsg_len = CMSG_LEN(sizeof(int) * n) };
		memcpy(CMSG_DATA(&control.align), fds, sizeof(int) * n);
	}
	while (iov.iov_len) {
		ssize_t done = sendmsg(b->fd, &h, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (done < 0 && errno != EAGAIN && errno != EINTR)
			return lost(b, "the back end has gone");
		if (done < 0) {
			if (wait_ready(b, POLLOUT, end) < 0)
				return -EIO;
			continue;
		}
		iov.iov_base = (u8 *)iov.iov_base + done;
		iov.iov_len -= done;
		/* Descriptors go with the first byte. */
		h.msg_control = NULL;
		h.msg_controllen = 0;
	}
	return 0;
}

static int receive_all(struct vhost_back *b, void *data, size_t len, u64 end)
{
	u8 *to = data;

	while (len) {
		ssize_t n = recv(b->fd, to, len, MSG_DONTWAIT);

		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			return lost(b, "the back end has gone");
		if (n < 0) {
			if (wait_ready(b, POLLIN, end) < 0)
				return -EIO;
			continue;
		}
		to += n;
		len -= n;
	}
	return 0;
}

static bool user_check(struct vhost_back *b)
{
	u8 byte;
	ssize_t n;

	if (b->fd < 0)
		return false;
	n = recv(b->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		lost(b, "the back end speaks without being asked");
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		lost(b, "the back end has gone");
	return b->fd >= 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

static int tell(struct vhost_back *b, struct message *m, u32 request, u32 size, const int *fds,
		unsigned n)
{
	if (b->fd < 0)
		return -EIO;
	m->request = request;
	m->flags = FLAGS_VERSION;
	m->size = size;
	return send_all(b, m, fds, n);
}

static int ask(struct vhost_back *b, struct message *m, u32 request, u32 size, u32 answer)
{
	u64 end = now_ms() + PATIENCE_MS;
	int ret = tell(b, m, request, size, NULL, 0);

	if (ret == 0)
		ret = receive_all(b, m, HEAD, end);
	if (ret < 0)
		return ret;
	if (m->request != request || (m->flags & FLAGS_MASK) != (FLAGS_VERSION | FLAGS_REPLY) ||
	    m->size != answer)
		return lost(b, "the back end's answer is none to what was asked");
	return receive_all(b, m->bytes, answer, end);
}

static int tell_number(struct vhost_back *b, u32 request, u64 number)
{
	struct message m = { .number = number };

	return tell(b, &m, request, sizeof(m.number), NULL, 0);
}

static int ask_number(struct vhost_back *b, u32 request, u64 *number)
{
	struct message m = { 0 };
	int ret = ask(b, &m, request, 0, sizeof(m.number));

	*number = m.number;
	return ret;
}

static int tell_state(struct vhost_back *b, u32 request, unsigned i, u32 value)
{
	struct message m = { .state = { .index = i, .num = value } };

	return tell(b, &m, request, sizeof(m.state), NULL, 0);
}

static int tell_fd(struct vhost_back *b, u32 request, unsigned i, int fd)
{
	struct message m = { .number = i };

	return tell(b, &m, request, sizeof(m.number), &fd, 1);
}

/* ---- for vhost.c ----------------------------------------------------------------------------- */

static int user_get_config(struct vhost_back *b, void *data, u32 len)
{
	struct message m = { .config = { .size = len } };
	u32 head = offsetof(struct message, config.data) - HEAD;
	int ret;

	if (!(b->protocol & PROTOCOL_CONFIG))
		return lost(b, "the back end has no configuration");
	ret = ask(b, &m, GET_CONFIG, head + len, head + len);
	if (ret < 0)
		return ret;
	if (m.config.offset || m.config.size != len)
		return lost(b, "the back end's configuration has another size");
	memcpy(data, m.config.data, len);
	return 0;
}

static int user_set_features(struct vhost_back *b, u64 features)
{
	return tell_number(b, SET_FEATURES, (features | F_PROTOCOL) & b->features);
}

static int user_set_memory(struct vhost_back *b, const struct guest_memory *mem)
{
	struct message m = { .memory = { .count = 0 } };
	struct region all[REGIONS_MAX];
	unsigned n = 0;
	int fds[REGIONS_MAX];

	_Static_assert(GUEST_REGIONS_MAX <= REGIONS_MAX, "vhost-user, SET_MEM_TABLE");
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];
		u64 offset;

		/* Joined over the hole of the VGA, which is in the file: back ends map from an offset, which
		 * has to be a multiple of their size in a file of huge pages. */
		if (n && (uintptr_t)r->host - all[n - 1].user == r->gpa - all[n - 1].gpa) {
			all[n - 1].size = r->gpa + r->size - all[n - 1].gpa;
			continue;
		}
		fds[n] = guest_memory_file(mem, r->host, &offset);
		if (fds[n] < 0)
			return lost(b, "guest memory is private");
		all[n++] = (struct region){ r->gpa, r->size, (uintptr_t)r->host, offset };
	}
	m.memory.count = n;
	memcpy(m.memory.region, all, n * sizeof(*all));
	return tell(b, &m, SET_MEM_TABLE, 8 + n * sizeof(struct region), fds, n);
}

static int user_set_call(struct vhost_back *b, unsigned i, int fd)
{
	return tell_fd(b, SET_VRING_CALL, i, fd);
}

static int user_start_ring(struct vhost_back *b, unsigned i, const struct vhost_ring *r)
{
	struct message m = { .addr = { .index = i, .desc_user_addr = r->desc,
		.avail_user_addr = r->driver, .used_user_addr = r->device } };
	int ret;

	if ((ret = tell_state(b, SET_VRING_NUM, i, r->size)) < 0 ||
	    (ret = tell_state(b, SET_VRING_BASE, i, r->base)) < 0 ||
	    (ret = tell(b, &m, SET_VRING_ADDR, sizeof(m.addr), NULL, 0)) < 0 ||
	    (ret = user_set_call(b, i, r->call_fd)) < 0 ||
	    (ret = tell_fd(b, SET_VRING_ERR, i, r->error_fd)) < 0 ||
	    (ret = tell_fd(b, SET_VRING_KICK, i, r->kick_fd)) < 0)
		return ret;
	/* Without protocol features they begin enabled. */
	return b->features & F_PROTOCOL ? tell_state(b, SET_VRING_ENABLE, i, 1) : 0;
}

static int user_stop_ring(struct vhost_back *b, unsigned i, u32 *base)
{
	struct message m = { .state = { .index = i } };
	int ret = ask(b, &m, GET_VRING_BASE, sizeof(m.state), sizeof(m.state));

	if (ret == 0 && m.state.index != i)
		ret = lost(b, "the back end stopped another queue");
	*base = m.state.num;
	return ret;
}

static int own(struct vhost_back *b)
{
	struct message m = { 0 };

	return tell(b, &m, SET_OWNER, 0, NULL, 0);
}

static int agree(struct vhost_back *b)
{
	u64 n;
	int ret = ask_number(b, GET_FEATURES, &b->features);

	if (ret < 0 || !(b->features & F_PROTOCOL))
		return ret < 0 ? ret : own(b);
	ret = ask_number(b, GET_PROTOCOL_FEATURES, &n);
	b->protocol = n & (PROTOCOL_MQ | PROTOCOL_CONFIG);
	if (ret == 0)
		ret = tell_number(b, SET_PROTOCOL_FEATURES, b->protocol);
	if (ret == 0 && b->protocol & PROTOCOL_MQ) {
		ret = ask_number(b, GET_QUEUE_NUM, &n);
		b->queues = MIN(n, VIRTIO_QUEUES_MAX);
		if (ret == 0 && !n)
			ret = lost(b, "the back end has no queues");
	}
	return ret < 0 ? ret : own(b);
}

static const struct vhost_back_ops user_ops = {
	.close = user_close, .check = user_check, .get_config = user_get_config,
	.set_features = user_set_features, .set_memory = user_set_memory,
	.start_ring = user_start_ring, .set_call = user_set_call, .stop_ring = user_stop_ring,
};

int vhost_user_open(struct vhost_back *b, int fd)
{
	*b = (struct vhost_back){ .ops = &user_ops, .fd = fd };
	return agree(b);
}
