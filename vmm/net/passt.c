/*
 * passt(1), started for one machine: the guest's network leaves through sockets of that program, as an
 * ordinary user's, with the host's own addresses. It gets one end of a pair of sockets and ends when
 * the other one is closed. Frames are socket.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/loop/child.h"
#include "vmm/net/net.h"

#define PASST_WORDS 6	/* before those of forwards, which take two each */
#define FORWARD_TEXT 32

static int passt_start(struct child *c, const struct nic_options *o, int fd, struct error *err)
{
	/* --stderr: where there is no syslog nobody would learn why it ends. */
	const char *argv[PASST_WORDS + 2 * NET_FORWARDS_MAX + 1] = {
		"passt", "--quiet", "--stderr", "--foreground", "--fd" };
	char number[16], text[NET_FORWARDS_MAX][FORWARD_TEXT];
	unsigned n = PASST_WORDS;

	snprintf(number, sizeof(number), "%d", fd);
	argv[n - 1] = number;
	for (unsigned i = 0; i < o->forwards; i++) {
		const struct net_forward *f = &o->forward[i];

		snprintf(text[i], FORWARD_TEXT, "127.0.0.1/%u:%u", f->host, f->guest);
		argv[n++] = f->udp ? "-u" : "-t";
		argv[n++] = text[i];
	}
	return child_start(c, argv, fd, err);
}

int net_passt_open(struct net_backend **out, const struct nic_options *o, struct loop *loop,
		   const struct net_front *front, struct error *err)
{
	struct child c;
	int fd[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return error_set(err, errno, "--net: passt: socketpair: %s", strerror(errno));
	ret = passt_start(&c, o, fd[1], err);
	close(fd[1]);
	if (ret == 0)
		return net_socket_adopt(out, fd[0], &c, loop, front, err);
	close(fd[0]);
	return ret;
}
