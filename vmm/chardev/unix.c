/*
 * A listening Unix socket as a serial line: one client at a time, the next may come when it has
 * left. Without a client output is dropped.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/unix_listen.h"
#include "vmm/chardev/chardev.h"

static void unix_accept(void *arg, u32 events)
{
	struct chardev *cd = arg;
	int fd = accept4(cd->side_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	cd->in_fd = cd->out_fd = fd;
	cd->output = OUTPUT_SOCKET;
	if (chardev_start(cd, NULL) < 0) {
		close(fd);
		cd->in_fd = cd->out_fd = -1;
		return;
	}
	chardev_set_connected(cd, true);
	loop_change(cd->loop, cd->side_watch, 0);	/* the next client waits */
}

static void unix_hangup(struct chardev *cd)
{
	if (cd->in_fd < 0)
		return;
	chardev_set_connected(cd, false);
	chardev_stop(cd);
	close(cd->in_fd);
	cd->in_fd = cd->out_fd = -1;
	loop_change(cd->loop, cd->side_watch, EPOLLIN);
}

static void unix_destroy(struct chardev *cd)
{
	if (cd->in_fd >= 0)
		close(cd->in_fd);
	if (cd->side_fd >= 0)
		close(cd->side_fd);
	if (cd->path[0])
		unlink(cd->path);
}

static const struct chardev_ops unix_ops = { .hangup = unix_hangup, .destroy = unix_destroy };

int chardev_open_unix(struct chardev *cd, const char *path, struct error *err)
{
	char what[64];

	snprintf(what, sizeof(what), "%sunix:", cd->option);
	cd->ops = &unix_ops;
	cd->side_fd = unix_listen(what, path, 1, false, err);
	if (cd->side_fd < 0)
		return cd->side_fd;
	snprintf(cd->path, sizeof(cd->path), "%s", path);
	cd->side_watch = loop_add(cd->loop, cd->side_fd, EPOLLIN, unix_accept, cd);
	if (cd->side_watch < 0)
		return error_set(err, ENOSPC, "%s%s: too many descriptors", cd->option, cd->spec);
	return 0;
}
