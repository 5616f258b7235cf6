/* Screenshots: see screenshot.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"
#include "vmm/display/png.h"
#include "vmm/display/screenshot.h"

#define NS_PER_S 1000000000ULL

static int write_all(int fd, const u8 *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		data += n;
		size -= n;
	}
	return 0;
}

/* Beside the file, so that it can take its place. Returns a descriptor; *name is allocated. */
static int temporary_open(const char *file, char **name)
{
	int fd;

	if (asprintf(name, "%s.%d", file, getpid()) < 0) {
		*name = NULL;
		return -ENOMEM;
	}
	fd = open(*name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
	return fd < 0 ? -errno : fd;
}

static int file_replace(const char *file, const u8 *data, size_t size)
{
	char *name;
	int fd = temporary_open(file, &name), ret = fd < 0 ? fd : write_all(fd, data, size);

	if (fd >= 0 && close(fd) < 0 && ret == 0)
		ret = -errno;
	if (ret == 0 && rename(name, file) < 0)
		ret = -errno;
	if (fd >= 0 && ret < 0)
		unlink(name);
	free(name);
	return ret;
}

int screenshot_save(struct display *d, const char *file, struct error *err)
{
	u8 *png;
	size_t size;
	int ret;

	display_refresh(d);
	ret = png_make(d->pixel, d->width, d->height, &png, &size);
	if (ret < 0)
		return error_set(err, -ret, "screenshot: out of memory");
	ret = file_replace(file, png, size);
	free(png);
	return ret < 0 ? error_set(err, -ret, "screenshot %s: %s", file, strerror(-ret)) : 0;
}

int screenshot_take(struct screenshot *s, struct error *err)
{
	return screenshot_save(s->display, s->file, err);
}

static void screenshot_due(void *arg)
{
	struct screenshot *s = arg;
	struct error err = ERROR_INIT;

	/* A full disk may have room later. */
	if (screenshot_take(s, &err) < 0)
		log_line("%s", err.text);
	timer_arm(&s->timer, timer_queue_now(s->timer.queue) + s->every);
}

int screenshot_init(struct screenshot *s, struct display *d, struct timer_queue *timers,
		    const char *file, u64 seconds, struct error *err)
{
	struct stat st;
	char *name;
	int fd;

	*s = (struct screenshot){ .display = d, .file = file, .every = seconds * NS_PER_S };
	timer_init(&s->timer, timers, screenshot_due, s);
	if (stat(file, &st) == 0 && !S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "--screenshot: %s is not a regular file", file);
	fd = temporary_open(file, &name);
	if (fd >= 0) {
		close(fd);
		unlink(name);
	}
	free(name);
	if (fd < 0)
		return error_set(err, -fd, "--screenshot: %s: %s", file, strerror(-fd));
	if (s->every)
		timer_arm(&s->timer, timer_queue_now(timers) + s->every);
	return 0;
}

void screenshot_destroy(struct screenshot *s)
{
	if (s->timer.queue)
		timer_cancel(&s->timer);
}
