/*
 * Frames over a stream socket, each behind its length as four bytes, the highest first: what passt, vde
 * and QEMU's stream network speak. We connect; the other side listens at a path, or is passt.c's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/loop/child.h"
#include "vmm/net/net.h"
#include "vmm/virtio/sg.h"

#define LENGTH_SIZE 4
#define PACKET_MAX (LENGTH_SIZE + NET_FRAME_MAX)

struct net_socket {
	struct net_backend b;
	struct child child;
	int fd, watch;
	u32 in_len, out_len, out_sent;
	u8 in[PACKET_MAX], out[PACKET_MAX];
};

static void socket_watch(struct net_socket *s, bool in)
{
	loop_change(s->b.loop, s->watch, (in ? EPOLLIN : 0) | (s->out_len ? EPOLLOUT : 0));
}

/* The other side has gone, or talks nonsense: the cable is out from here on. */
static void socket_hangup(struct net_socket *s, const char *why)
{
	log_line("--net: socket: %s", why);
	loop_remove(s->b.loop, s->watch);
	close(s->fd);
	s->fd = s->watch = -1;
	s->out_len = 0;
}

static void socket_flush(struct net_socket *s)
{
	ssize_t n = send(s->fd, s->out + s->out_sent, s->out_len - s->out_sent,
		MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0)
		s->out_sent += n;
	if (s->out_sent == s->out_len)
		s->out_len = s->out_sent = 0;
}

static bool socket_send(struct net_backend *b, const struct virtio_net_hdr_v1 *h,
			const struct iovec *iov, unsigned n, size_t len)
{
	struct net_socket *s = container_of(b, struct net_socket, b);
	u32 head = htonl(len);

	if (s->fd < 0 || len > NET_FRAME_MAX)
		return true;
	if (s->out_len)
		return false;
	memcpy(s->out, &head, LENGTH_SIZE);
	sg_read(iov, n, 0, s->out + LENGTH_SIZE, len);
	if (!net_checksum_fill(h, s->out + LENGTH_SIZE, len))
		return true;
	s->out_len = LENGTH_SIZE + len;
	socket_flush(s);
	if (s->out_len)
		loop_change(b->loop, s->watch, EPOLLIN | EPOLLOUT);
	return true;
}

/* Whole packets of in to the guest; false: it has no room, or the cable is out. */
static bool socket_deliver(struct net_socket *s)
{
	static const struct virtio_net_hdr_v1 none;
	u32 len;

	while (s->in_len >= LENGTH_SIZE) {
		memcpy(&len, s->in, LENGTH_SIZE);
		len = ntohl(len);
		if (len > NET_FRAME_MAX) {
			socket_hangup(s, "a frame is too long");
			return false;
		}
		if (s->in_len < LENGTH_SIZE + len)
			return true;
		if (!s->b.front.receive(s->b.front.arg, &none, s->in + LENGTH_SIZE, len))
			return false;
		s->in_len -= LENGTH_SIZE + len;
		memmove(s->in, s->in + LENGTH_SIZE + len, s->in_len);
	}
	return true;
}

static void socket_ready(void *arg, u32 events)
{
	struct net_socket *s = arg;
	bool room = true;
	ssize_t n;

	if (s->out_len && events & EPOLLOUT) {
		socket_flush(s);
		if (!s->out_len)
			s->b.front.drained(s->b.front.arg);
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(s->fd, s->in + s->in_len, sizeof(s->in) - s->in_len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
			socket_hangup(s, "the other side has gone");
			return;
		}
		s->in_len += n > 0 ? n : 0;
		room = socket_deliver(s);
	}
	if (s->fd >= 0)
		socket_watch(s, room);
}

static void socket_resume(struct net_backend *b)
{
	struct net_socket *s = container_of(b, struct net_socket, b);

	if (s->fd >= 0 && socket_deliver(s))
		socket_watch(s, true);
}

static void socket_destroy(struct net_backend *b)
{
	struct net_socket *s = container_of(b, struct net_socket, b);

	if (s->watch >= 0)
		loop_remove(b->loop, s->watch);
	if (s->fd >= 0)
		close(s->fd);
	child_end(&s->child);
	free(s);
}

static const struct net_backend_ops socket_ops = {
	.send = socket_send, .resume = socket_resume, .destroy = socket_destroy,
};

static int socket_connect(const char *path, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd, ret;

	if (strlen(path) >= sizeof(sa.sun_path))
		return error_usage(err, "--net: socket: %s: the path is too long", path);
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
		return fd;
	ret = error_set(err, errno, "--net: socket: %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ret;
}

int net_socket_adopt(struct net_backend **out, int fd, const struct child *c, struct loop *loop,
		     const struct net_front *front, struct error *err)
{
	struct net_socket *s = calloc(1, sizeof(*s));
	struct child child = *c;
	int ret;

	if (!s) {
		close(fd);
		child_end(&child);
		return error_set(err, ENOMEM, "out of memory");
	}
	s->fd = fd;
	s->child = child;
	s->b = (struct net_backend){
		.ops = &socket_ops, .front = *front, .loop = loop, .takes = NET_CAN_CSUM };
	s->watch = loop_add(loop, fd, EPOLLIN, socket_ready, s);
	*out = &s->b;
	if (s->watch >= 0)
		return 0;
	ret = error_set(err, -s->watch, "cannot watch a socket");
	socket_destroy(&s->b);
	*out = NULL;
	return ret;
}

int net_socket_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		    const struct net_front *front, struct error *err)
{
	const struct child nobody = { 0 };
	int fd = socket_connect(o->socket, err);

	return fd < 0 ? fd : net_socket_adopt(out, fd, &nobody, loop, front, err);
}
