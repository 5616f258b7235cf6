/*
 * A network that needs no privilege: libslirp plays the router, with DHCP, DNS and NAT to the host's
 * own sockets. The guest is 10.0.2.15, the host 10.0.2.2, the name server 10.0.2.3.
 *
 * libslirp wants poll(); its descriptors hang in an epoll set of their own, which is one descriptor of
 * the I/O thread's loop. A segment larger than the MTU goes in as one large packet: nothing between
 * here and the host's socket minds.
 */
#include <errno.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/net/fragments.h"
#include "vmm/virtio/sg.h"

#define USER_FDS_MAX		1024
#define USER_BACKLOG_MAX	512	/* frames for a guest that has no room: beyond, they are lost */

struct user_frame {
	struct user_frame *next;
	size_t len;
	u8 data[];
};

struct user_fd {
	int fd;
	u32 events;
};

struct net_user {
	struct net_backend b;
	Slirp *slirp;
	int epoll_fd, watch;
	struct timer timeout;
	struct pollfd poll[USER_FDS_MAX];
	unsigned polls;
	struct user_fd fd[USER_FDS_MAX];	/* in the epoll set */
	unsigned fds;
	struct user_frame *first, **last;
	unsigned backlog;
	u8 frame[NET_FRAME_MAX];
	struct net_fragments fragments;	/* of the guest */
};

/* ---- what libslirp calls --------------------------------------------------------------------- */

static bool user_deliver(struct net_user *u, const u8 *frame, size_t len)
{
	static const struct virtio_net_hdr_v1 checked = { .flags = VIRTIO_NET_HDR_F_DATA_VALID };

	return u->b.front.receive(u->b.front.arg, &checked, frame, len);
}

static void user_queue(struct net_user *u, const void *frame, size_t len)
{
	struct user_frame *f = NULL;

	if (u->backlog < USER_BACKLOG_MAX)
		f = malloc(sizeof(*f) + len);
	if (!f)
		return;
	f->next = NULL;
	f->len = len;
	memcpy(f->data, frame, len);
	*u->last = f;
	u->last = &f->next;
	u->backlog++;
}

static ssize_t user_send_packet(const void *frame, size_t len, void *opaque)
{
	struct net_user *u = opaque;

	if (u->first || !user_deliver(u, frame, len))
		user_queue(u, frame, len);
	return len;
}

static void user_guest_error(const char *msg, void *opaque)
{
	(void)msg;	/* the guest's affair */
	(void)opaque;
}

static int64_t user_clock(void *opaque)
{
	struct timespec ts;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

struct user_timer {
	struct timer timer;
	SlirpTimerCb fn;
	void *arg;
};

static void user_timer_fired(void *arg)
{
	struct user_timer *t = arg;

	t->fn(t->arg);
}

static void *user_timer_new(SlirpTimerCb fn, void *arg, void *opaque)
{
	struct net_user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fn = fn;
	t->arg = arg;
	timer_init(&t->timer, &u->b.loop->timers, user_timer_fired, t);
	return t;
}

static void user_timer_free(void *timer, void *opaque)
{
	struct user_timer *t = timer;

	(void)opaque;
	if (t)
		timer_cancel(&t->timer);
	free(t);
}

static void user_timer_mod(void *timer, int64_t ms, void *opaque)
{
	struct user_timer *t = timer;
	int64_t ns = ms * 1000000 - user_clock(opaque);

	if (t)
		timer_arm(&t->timer, timer_queue_now(t->timer.queue) + MAX(ns, 0));
}

static void user_register_fd(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

/* Before fd is closed: its number may come back as another socket. */
static void user_unregister_fd(int fd, void *opaque)
{
	struct net_user *u = opaque;

	for (unsigned i = 0; i < u->fds; i++) {
		if (u->fd[i].fd != fd)
			continue;
		epoll_ctl(u->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		u->fd[i] = u->fd[--u->fds];
		return;
	}
}

static void user_notify(void *opaque)
{
	(void)opaque;	/* all happens on one thread, and ends with user_update() */
}

static const SlirpCb user_callbacks = {
	.send_packet = user_send_packet, .guest_error = user_guest_error,
	.clock_get_ns = user_clock, .timer_new = user_timer_new, .timer_free = user_timer_free,
	.timer_mod = user_timer_mod, .register_poll_fd = user_register_fd,
	.unregister_poll_fd = user_unregister_fd, .notify = user_notify,
};

/* ---- polling --------------------------------------------------------------------------------- */

static int user_add_poll(int fd, int events, void *opaque)
{
	struct net_user *u = opaque;
	short want = 0;

	if (u->polls == USER_FDS_MAX)
		return -1;
	want |= events & SLIRP_POLL_IN ? POLLIN : 0;
	want |= events & SLIRP_POLL_OUT ? POLLOUT : 0;
	want |= events & SLIRP_POLL_PRI ? POLLPRI : 0;
	u->poll[u->polls] = (struct pollfd){ .fd = fd, .events = want };
	return u->polls++;
}

static int user_get_revents(int idx, void *opaque)
{
	struct net_user *u = opaque;
	short got = idx >= 0 && (unsigned)idx < u->polls ? u->poll[idx].revents : 0;

	return (got & POLLIN ? SLIRP_POLL_IN : 0) | (got & POLLOUT ? SLIRP_POLL_OUT : 0) |
	       (got & POLLPRI ? SLIRP_POLL_PRI : 0) | (got & POLLERR ? SLIRP_POLL_ERR : 0) |
	       (got & POLLHUP ? SLIRP_POLL_HUP : 0);
}

/* poll()'s events are epoll's by value. */
_Static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLPRI == EPOLLPRI, "Linux");

static void user_epoll_set(struct net_user *u, const struct pollfd *p)
{
	struct epoll_event ev = { .events = (u32)p->events, .data.fd = p->fd };
	unsigned i;

	for (i = 0; i < u->fds && u->fd[i].fd != p->fd; i++)
		;
	if (i == USER_FDS_MAX || (i < u->fds && u->fd[i].events == ev.events))
		return;
	if (epoll_ctl(u->epoll_fd, i < u->fds ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, p->fd, &ev) < 0)
		return;
	u->fd[i] = (struct user_fd){ p->fd, ev.events };
	if (i == u->fds)
		u->fds++;
}

/* What nobody polls any more must not wake us. */
static void user_epoll_trim(struct net_user *u)
{
	for (unsigned i = u->fds; i-- > 0;) {
		unsigned k;

		for (k = 0; k < u->polls && u->poll[k].fd != u->fd[i].fd; k++)
			;
		if (k == u->polls)
			user_unregister_fd(u->fd[i].fd, u);
	}
}

/* After anything that libslirp did: what does it wait for now? */
static void user_update(struct net_user *u)
{
	u32 timeout = UINT32_MAX;

	u->polls = 0;
	slirp_pollfds_fill(u->slirp, &timeout, user_add_poll, u);
	for (unsigned i = 0; i < u->polls; i++)
		user_epoll_set(u, &u->poll[i]);
	user_epoll_trim(u);
	if (timeout == UINT32_MAX)
		timer_cancel(&u->timeout);
	else
		timer_arm(&u->timeout, timer_queue_now(u->timeout.queue) + timeout * 1000000ULL);
}

static void user_poll(struct net_user *u)
{
	int n = poll(u->poll, u->polls, 0);

	slirp_pollfds_poll(u->slirp, n < 0, user_get_revents, u);
	user_update(u);
}

static void user_ready(void *arg, u32 events)
{
	(void)events;
	user_poll(arg);
}

static void user_timeout(void *arg)
{
	user_poll(arg);
}

/* ---- the backend ----------------------------------------------------------------------------- */

static bool user_send(struct net_backend *b, const struct virtio_net_hdr_v1 *h,
		      const struct iovec *iov, unsigned n, size_t len)
{
	struct net_user *u = container_of(b, struct net_user, b);

	if (len > sizeof(u->frame))
		return true;
	sg_read(iov, n, 0, u->frame, len);
	if (net_checksum_fill(h, u->frame, len))
		len = net_reassemble(&u->fragments, u->frame, len);
	else
		len = 0;
	if (len)
		slirp_input(u->slirp, u->frame, len);
	return true;
}

static void user_flush(struct net_backend *b)
{
	user_update(container_of(b, struct net_user, b));
}

static void user_resume(struct net_backend *b)
{
	struct net_user *u = container_of(b, struct net_user, b);
	struct user_frame *f;

	while ((f = u->first) && user_deliver(u, f->data, f->len)) {
		u->first = f->next;
		u->backlog--;
		free(f);
	}
	if (!u->first)
		u->last = &u->first;
}

static void user_destroy(struct net_backend *b)
{
	struct net_user *u = container_of(b, struct net_user, b);
	struct user_frame *f;

	if (u->slirp)
		slirp_cleanup(u->slirp);
	timer_cancel(&u->timeout);
	if (u->watch >= 0)
		loop_remove(b->loop, u->watch);
	if (u->epoll_fd >= 0)
		close(u->epoll_fd);
	while ((f = u->first)) {
		u->first = f->next;
		free(f);
	}
	free(u);
}

static const struct net_backend_ops user_ops = {
	.send = user_send, .flush = user_flush, .resume = user_resume, .destroy = user_destroy,
};

static struct in_addr address(u32 host_order)
{
	return (struct in_addr){ htonl(host_order) };
}

#define NETWORK 0x0A000200	/* 10.0.2.0/24 */

static int user_forward(struct net_user *u, const struct net_forward *f, struct error *err)
{
	if (slirp_add_hostfwd(u->slirp, f->udp, address(INADDR_LOOPBACK), f->host,
		    address(NETWORK + 15), f->guest) == 0)
		return 0;
	return error_set(err, errno, "--net: forward: cannot listen on %s port %u of 127.0.0.1: %s",
		f->udp ? "UDP" : "TCP", f->host, strerror(errno));
}

static int user_start(struct net_user *u, const struct nic_options *o, struct error *err)
{
	const SlirpConfig config = {
		.version = 4, .in_enabled = true, .vnetwork = address(NETWORK),
		.vnetmask = address(0xFFFFFF00), .vhost = address(NETWORK + 2),
		.vdhcp_start = address(NETWORK + 15), .vnameserver = address(NETWORK + 3),
		.vhostname = "qumra", .tftp_path = o->tftp, .bootfile = o->bootfile,
	};
	int ret = 0;

	u->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (u->epoll_fd < 0)
		return error_set(err, errno, "epoll: %s", strerror(errno));
	u->watch = loop_add(u->b.loop, u->epoll_fd, EPOLLIN, user_ready, u);
	if (u->watch < 0)
		return error_set(err, -u->watch, "cannot watch the user network");
	u->slirp = slirp_new(&config, &user_callbacks, u);
	if (!u->slirp)
		return error_set(err, ENOMEM, "libslirp does not start");
	for (unsigned i = 0; i < o->forwards && ret == 0; i++)
		ret = user_forward(u, &o->forward[i], err);
	if (ret == 0)
		user_update(u);
	return ret;
}

int net_user_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		  const struct net_front *front, struct error *err)
{
	struct net_user *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return error_set(err, ENOMEM, "out of memory");
	u->watch = u->epoll_fd = -1;
	u->last = &u->first;
	u->b = (struct net_backend){ .ops = &user_ops, .front = *front, .loop = loop,
				     .takes = NET_CAN_CSUM | NET_CAN_TSO4 };
	timer_init(&u->timeout, &loop->timers, user_timeout, u);
	ret = user_start(u, o, err);
	if (ret < 0)
		user_destroy(&u->b);
	else
		*out = &u->b;
	return ret;
}
