/*
 * A pseudo-terminal as a serial line. We keep the slave open ourselves, so that the master never
 * hangs up, and count its other users by inotify: with none of them, output is dropped, as on a
 * wire that ends nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/chardev/chardev.h"

static void pty_count(struct chardev *cd, u32 mask)
{
	if (mask & IN_OPEN)
		cd->users++;
	if (mask & (IN_CLOSE_WRITE | IN_CLOSE_NOWRITE) && cd->users)
		cd->users--;
	if (cd->connected != (cd->users > 0))
		chardev_set_connected(cd, cd->users > 0);
}

static void pty_users_event(void *arg, u32 events)
{
	struct chardev *cd = arg;
	char buf[1024] __attribute__((aligned(8)));
	ssize_t n = read(cd->side_fd, buf, sizeof(buf));

	(void)events;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const void *)(buf + at);

		pty_count(cd, ev->mask);
		at += sizeof(*ev) + ev->len;
	}
}

static void pty_destroy(struct chardev *cd)
{
	int fds[] = { cd->side_fd, cd->slave_fd, cd->in_fd };

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static const struct chardev_ops pty_ops = { .destroy = pty_destroy };

static int pty_open_pair(struct chardev *cd)
{
	struct termios tio;
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	cd->in_fd = cd->out_fd = fd;
	if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 ||
	    ptsname_r(fd, cd->path, sizeof(cd->path)) != 0)
		return -1;
	cd->slave_fd = open(cd->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (cd->slave_fd < 0 || tcgetattr(cd->slave_fd, &tio) < 0)
		return -1;
	cfmakeraw(&tio);
	if (tcsetattr(cd->slave_fd, TCSANOW, &tio) < 0)
		return -1;
	cd->side_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (cd->side_fd < 0)
		return -1;
	return inotify_add_watch(cd->side_fd, cd->path, IN_OPEN | IN_CLOSE);
}

int chardev_open_pty(struct chardev *cd, const char *path, struct error *err)
{
	(void)path;
	cd->ops = &pty_ops;
	if (pty_open_pair(cd) < 0)
		return error_set(err, errno, "%s%s: %s", cd->option, cd->spec, strerror(errno));
	cd->side_watch = loop_add(cd->loop, cd->side_fd, EPOLLIN, pty_users_event, cd);
	if (cd->side_watch < 0)
		return error_set(err, ENOSPC, "%s%s: too many descriptors", cd->option, cd->spec);
	log_line("%s%s is %s", cd->option, cd->spec, cd->path);
	return chardev_start(cd, err);
}
