/* Connections of the socket device and the Unix sockets at their other ends: see vsock.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/virtio/sg.h"
#include "vmm/virtio/vsock.h"

#define HOST_PORTS 0x40000000u	/* the first that connections from the host have */

struct vsock_connection *vsock_find(struct virtio_vsock *v, u32 local_port, u32 peer_port)
{
	for (struct vsock_connection *c = v->first; c; c = c->next)
		if (c->state != VSOCK_LINE_WANTED && c->local_port == local_port &&
		    c->peer_port == peer_port)
			return c;
	return NULL;
}

static struct vsock_connection *connection_new(struct virtio_vsock *v, int fd, enum vsock_state state)
{
	struct vsock_connection *c = NULL;
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET };

	if (v->connections < VSOCK_CONNECTIONS_MAX)
		c = malloc(sizeof(*c));
	if (!c) {
		close(fd);
		return NULL;
	}
	memset(c, 0, offsetof(struct vsock_connection, buffer));
	c->v = v;
	c->fd = fd;
	c->state = state;
	e.data.ptr = c;
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &e) < 0) {
		close(fd);
		free(c);
		return NULL;
	}
	c->next = v->first;
	v->first = c;
	v->connections++;
	return c;
}

void vsock_close(struct vsock_connection *c)
{
	struct virtio_vsock *v = c->v;

	for (struct vsock_connection **p = &v->first; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	v->connections--;
	close(c->fd);
	free(c);
}

void vsock_close_all(struct virtio_vsock *v)
{
	while (v->first)
		vsock_close(v->first);
}

struct vsock_connection *vsock_connect(struct virtio_vsock *v, u32 local_port, u32 peer_port)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct vsock_connection *c;
	int fd;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s_%u", v->path, local_port);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return NULL;
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		return NULL;
	}
	c = connection_new(v, fd, VSOCK_OPEN);
	if (c) {
		c->local_port = local_port;
		c->peer_port = peer_port;
		c->tell = VSOCK_TELL_RESPONSE;
	}
	return c;
}

void vsock_reset(struct vsock_connection *c)
{
	c->state = VSOCK_DEAD;
	c->tell = VSOCK_TELL_RESET;
}

/* ---- from the guest to the socket ------------------------------------------------------------ */

/* Nobody reads it any more; what was written the other way still goes to the guest. */
static void sink_broken(struct vsock_connection *c)
{
	c->taken = c->received;
	c->broken = true;
	if (c->ended)
		vsock_reset(c);
}

void vsock_flush(struct vsock_connection *c)
{
	while (c->received != c->taken && c->writable) {
		u32 at = c->taken % VSOCK_BUFFER, n = MIN(c->received - c->taken, VSOCK_BUFFER - at);
		ssize_t sent = send(c->fd, c->buffer + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			c->writable = false;
		else if (sent < 0)
			sink_broken(c);
		else
			c->taken += sent;
	}
	/* Half of the buffer free again, and the guest does not know. */
	if (c->taken - c->told >= VSOCK_BUFFER / 2)
		c->tell |= VSOCK_TELL_CREDIT;
	if (c->received == c->taken && c->peer_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->fd, SHUT_WR);
}

bool vsock_receive(struct vsock_connection *c, const struct iovec *iov, unsigned iovs, u64 offset, u32 n)
{
	if (n > VSOCK_BUFFER - (c->received - c->taken))
		return false;
	while (n) {
		u32 at = c->received % VSOCK_BUFFER, piece = MIN(n, VSOCK_BUFFER - at);

		sg_read(iov, iovs, offset, c->buffer + at, piece);
		c->received += piece;
		offset += piece;
		n -= piece;
	}
	vsock_flush(c);
	return true;
}

/* ---- from the host --------------------------------------------------------------------------- */

void vsock_accepted(struct vsock_connection *c)
{
	char line[VSOCK_LINE];
	int n = snprintf(line, sizeof(line), "OK %u\n", c->local_port);
	ssize_t sent = send(c->fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT);

	(void)sent;	/* the first bytes of a socket have room */
	c->state = VSOCK_OPEN;
}

static u32 port_new(struct virtio_vsock *v, u32 peer_port)
{
	do {
		v->next_port = v->next_port + 1 < HOST_PORTS ? HOST_PORTS : v->next_port + 1;
	} while (vsock_find(v, v->next_port, peer_port));
	return v->next_port;
}

/* "CONNECT PORT\n"; false: it is something else. */
static bool line_take(struct vsock_connection *c)
{
	unsigned port;
	int end = 0;

	c->line[c->line_len] = 0;
	if (sscanf(c->line, "CONNECT %10u%n", &port, &end) != 1 || c->line[end])
		return false;
	c->peer_port = port;
	c->local_port = port_new(c->v, port);
	c->state = VSOCK_ASKED;
	c->tell = VSOCK_TELL_REQUEST;
	return true;
}

/* Byte by byte, so that what comes behind the line stays in the socket. */
static void line_read(struct vsock_connection *c)
{
	while (c->state == VSOCK_LINE_WANTED) {
		char byte;
		ssize_t n = recv(c->fd, &byte, 1, MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n == 1 && byte != '\n' && c->line_len < VSOCK_LINE - 1) {
			c->line[c->line_len++] = byte;
			continue;
		}
		if (n <= 0 || byte != '\n' || !line_take(c)) {
			vsock_close(c);
			return;
		}
	}
}

static void accept_all(struct virtio_vsock *v)
{
	int fd;

	while ((fd = accept4(v->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct vsock_connection *c = connection_new(v, fd, VSOCK_LINE_WANTED);

		if (c)
			c->from_host = true;
	}
}

void vsock_poll(struct virtio_vsock *v)
{
	struct epoll_event e[64];
	int n = epoll_wait(v->epoll, e, ARRAY_SIZE(e), 0);

	for (int i = 0; i < n; i++) {
		struct vsock_connection *c = e[i].data.ptr;

		if (!c) {
			accept_all(v);
			continue;
		}
		c->readable |= e[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR);
		c->writable |= e[i].events & (EPOLLOUT | EPOLLHUP | EPOLLERR);
		if (c->state == VSOCK_LINE_WANTED)
			line_read(c);
		else
			vsock_flush(c);
	}
}

int vsock_listen(struct virtio_vsock *v, struct error *err)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct epoll_event e = { .events = EPOLLIN };

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", v->path);
	v->epoll = epoll_create1(EPOLL_CLOEXEC);
	v->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (v->epoll < 0 || v->listener < 0)
		return error_set(err, errno, "vsock: %s", strerror(errno));
	if (bind(v->listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(v->listener, 64) < 0) {
		int why = errno;

		close(v->listener);
		v->listener = -1;
		return error_set(err, why, "%s: cannot listen there: %s", v->path, strerror(why));
	}
	if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, v->listener, &e) < 0)
		return error_set(err, errno, "vsock: %s", strerror(errno));
	return 0;
}
