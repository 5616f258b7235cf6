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

/* Only a socket that nobody serves any more may be replaced. */
static int unix_clear_path(const struct sockaddr_un *addr, struct error *err)
{
	struct stat st;
	int fd, ret;

	if (lstat(addr->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, EEXIST,
			"--serial unix:%s: there is a file there that is no socket",
			addr->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ret = connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	if (fd >= 0)
		close(fd);
	if (ret == 0 || errno == EAGAIN)
		return error_set(err, EADDRINUSE, "--serial unix:%s: in use by another process",
				 addr->sun_path);
	unlink(addr->sun_path);
	return 0;
}

int chardev_open_unix(struct chardev *cd, const char *path, struct error *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int ret;

	cd->ops = &unix_ops;
	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(err, ENAMETOOLONG,
			"--serial unix:%s: a socket's path has at most %zu bytes", path,
			sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	ret = unix_clear_path(&addr, err);
	if (ret < 0)
		return ret;
	cd->side_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (cd->side_fd < 0 || bind(cd->side_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return error_set(err, errno, "--serial unix:%s: %s", path, strerror(errno));
	strcpy(cd->path, path);
	if (listen(cd->side_fd, 1) < 0)
		return error_set(err, errno, "--serial unix:%s: %s", path, strerror(errno));
	cd->side_watch = loop_add(cd->loop, cd->side_fd, EPOLLIN, unix_accept, cd);
	if (cd->side_watch < 0)
		return error_set(err, ENOSPC, "--serial unix:%s: too many descriptors", path);
	return 0;
}
