/* What all character devices share: buffers, watches, the table of kinds. See chardev.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/chardev/chardev.h"

static const struct chardev_kind {
	const char *name;	/* a colon at the end: a path follows */
	int (*open)(struct chardev *cd, const char *path, struct error *err);
} chardev_kinds[] = {
	{ "stdio", chardev_open_stdio },
	{ "none", chardev_open_none },
	{ "file:", chardev_open_file },
	{ "pty", chardev_open_pty },
	{ "unix:", chardev_open_unix },
};

static const struct chardev_kind *chardev_kind_find(const char *spec, const char **path)
{
	for (size_t i = 0; i < ARRAY_SIZE(chardev_kinds); i++) {
		const char *name = chardev_kinds[i].name;
		size_t len = strlen(name);
		bool with_path = name[len - 1] == ':';

		if (with_path ? strncmp(spec, name, len) == 0 && spec[len]
			      : strcmp(spec, name) == 0) {
			*path = spec + len;
			return &chardev_kinds[i];
		}
	}
	return NULL;
}

int chardev_check(const char *option, const char *spec, struct error *err)
{
	const char *path;

	if (chardev_kind_find(spec, &path))
		return 0;
	return error_usage(
		err, "%s: \"%s\" is none of stdio, none, file:PATH, pty, unix:PATH", option, spec);
}

int chardev_open(struct chardev *cd, const char *option, const char *spec, struct loop *loop,
		 const struct chardev_events *events, struct error *err)
{
	const char *path = "";
	const struct chardev_kind *kind = chardev_kind_find(spec, &path);
	int ret;

	*cd = (struct chardev){.loop = loop,
		.option = option,
		.spec = spec,
		.events = *events,
		.in_fd = -1,
		.out_fd = -1,
		.in_watch = -1,
		.out_watch = -1,
		.side_fd = -1,
		.side_watch = -1,
		.slave_fd = -1};
	if (!kind)
		return error_usage(err, "%s%s: is none of stdio, none, file:PATH, pty, unix:PATH",
			option, spec);
	cd->out = malloc(CHARDEV_OUT_SIZE);
	if (!cd->out)
		return error_set(err, ENOMEM, "out of memory");
	ret = kind->open(cd, path, err);
	if (ret < 0)
		chardev_destroy(cd);
	return ret;
}

void chardev_destroy(struct chardev *cd)
{
	if (!cd->out)
		return;
	chardev_stop(cd);
	if (cd->side_watch >= 0)
		loop_remove(cd->loop, cd->side_watch);
	if (cd->ops && cd->ops->destroy)
		cd->ops->destroy(cd);
	free(cd->out);
	cd->out = NULL;
}

void chardev_attach(struct chardev *cd, const struct chardev_front *front)
{
	cd->front = *front;
}

/* ---- watches --------------------------------------------------------------------------------- */

static bool chardev_wants_input(const struct chardev *cd)
{
	return cd->in_fd >= 0 && (cd->drop_input || cd->in_len < CHARDEV_IN_SIZE);
}

static void chardev_in_event(void *arg, u32 events);

static void chardev_watch_update(struct chardev *cd)
{
	u32 in = chardev_wants_input(cd) ? EPOLLIN : 0;
	u32 out = cd->out_len ? EPOLLOUT : 0;

	if (cd->in_parked && in && cd->in_watch < 0) {
		int watch = loop_add(cd->loop, cd->in_fd, EPOLLIN, chardev_in_event, cd);

		cd->in_parked = false;
		cd->in_watch = watch < 0 ? -1 : watch;
	}
	if (cd->in_watch >= 0)
		loop_change(cd->loop, cd->in_watch, cd->in_watch == cd->out_watch ? in | out : in);
	if (cd->out_watch >= 0 && cd->out_watch != cd->in_watch)
		loop_change(cd->loop, cd->out_watch, out);
}

/* ---- input ----------------------------------------------------------------------------------- */

void chardev_accept_input(struct chardev *cd)
{
	size_t room, n;

	if (!cd->front.room)
		return;
	room = cd->front.room(cd->front.arg);
	n = MIN(room, cd->in_len);
	if (n) {
		u8 data[64];

		n = MIN(n, sizeof(data));
		memcpy(data, cd->in, n);
		cd->in_len -= n;
		memmove(cd->in, cd->in + n, cd->in_len);
		cd->front.receive(cd->front.arg, data, n);
	}
	chardev_watch_update(cd);
}

void chardev_unread(struct chardev *cd, const u8 *data, size_t n)
{
	/* What does not fit is lost, like any byte that comes when there is no room. */
	n = MIN(n, CHARDEV_IN_SIZE - cd->in_len);
	memmove(cd->in + n, cd->in, cd->in_len);
	memcpy(cd->in, data, n);
	cd->in_len += n;
}

static void chardev_hangup(struct chardev *cd)
{
	if (cd->ops->hangup)
		cd->ops->hangup(cd);
}

static void chardev_read(struct chardev *cd)
{
	u8 data[512];
	size_t space = CHARDEV_IN_SIZE - cd->in_len;
	size_t want = cd->drop_input ? sizeof(data) : MIN(space, sizeof(data));
	ssize_t n;

	if (!want)
		return;
	n = read(cd->in_fd, data, want);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		chardev_hangup(cd);
		return;
	}
	if (n < 0)
		return;
	if (cd->ops->filter)
		n = cd->ops->filter(cd, data, n);
	n = MIN((size_t)n, space);
	memcpy(cd->in + cd->in_len, data, n);
	cd->in_len += n;
	chardev_accept_input(cd);
}

/* ---- output ---------------------------------------------------------------------------------- */

/* What a poll for output promises to take: PIPE_BUF for a pipe; little for a terminal. */
#define POLL_CHUNK 64

static ssize_t chardev_write_poll(struct chardev *cd, const u8 *data, size_t n)
{
	struct pollfd p = { .fd = cd->out_fd, .events = POLLOUT };

	if (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP))) {
		errno = EAGAIN;
		return -1;
	}
	return write(cd->out_fd, data, MIN(n, POLL_CHUNK));
}

static ssize_t chardev_write_fd(struct chardev *cd, const u8 *data, size_t n)
{
	switch (cd->output) {
	case OUTPUT_SOCKET:
		return send(cd->out_fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	case OUTPUT_POLL:
		return chardev_write_poll(cd, data, n);
	default:
		return write(cd->out_fd, data, n);
	}
}

/* Writes what it can of the ring. */
static void chardev_drain(struct chardev *cd)
{
	while (cd->out_len) {
		u32 n = MIN(cd->out_len, CHARDEV_OUT_SIZE - cd->out_head);
		ssize_t done = chardev_write_fd(cd, cd->out + cd->out_head, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0 && errno == EAGAIN)
			break;
		if (done < 0) {
			/* The reader has gone for good, or for now. */
			chardev_set_connected(cd, false);
			chardev_hangup(cd);
			return;
		}
		cd->out_head = (cd->out_head + done) % CHARDEV_OUT_SIZE;
		cd->out_len -= done;
	}
	chardev_watch_update(cd);
	if (cd->stalled && cd->out_len < CHARDEV_OUT_SIZE / 2) {
		cd->stalled = false;
		if (cd->front.drained)
			cd->front.drained(cd->front.arg);
	}
}

size_t chardev_write(struct chardev *cd, const u8 *data, size_t n)
{
	size_t taken = cd->connected ? MIN(n, CHARDEV_OUT_SIZE - cd->out_len) : n;
	bool idle = cd->out_len == 0;

	if (cd->events.output)
		cd->events.output(cd->events.arg, data, taken);
	if (!cd->connected)
		return n;
	for (size_t i = 0; i < taken; i++)
		cd->out[(cd->out_head + cd->out_len + i) % CHARDEV_OUT_SIZE] = data[i];
	cd->out_len += taken;
	if (taken < n)
		cd->stalled = true;
	/* Otherwise the descriptor is full, and the loop waits for it. */
	if (idle)
		chardev_drain(cd);
	return taken;
}

void chardev_set_connected(struct chardev *cd, bool connected)
{
	cd->connected = connected;
	if (connected)
		return;
	cd->out_len = 0;
	chardev_watch_update(cd);
	if (cd->stalled) {
		cd->stalled = false;
		if (cd->front.drained)
			cd->front.drained(cd->front.arg);
	}
}

static s64 clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (s64)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void chardev_flush(struct chardev *cd, int timeout_ms)
{
	s64 end = clock_ms() + timeout_ms;

	while (cd->out && cd->out_len && cd->out_fd >= 0) {
		struct pollfd p = { .fd = cd->out_fd, .events = POLLOUT };
		s64 left = end - clock_ms();

		if (left <= 0 || poll(&p, 1, left) == 0)
			break;
		chardev_drain(cd);
	}
}

/* ---- binding to descriptors ------------------------------------------------------------------ */

static void chardev_event(void *arg, u32 events)
{
	struct chardev *cd = arg;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && cd->in_fd >= 0)
		chardev_read(cd);
	/* The read may have closed it all. */
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && cd->out_fd >= 0)
		chardev_drain(cd);
}

static void chardev_out_event(void *arg, u32 events)
{
	struct chardev *cd = arg;

	/* An idle pipe whose reader left reports an error for ever: find out by hand. */
	if (events & EPOLLERR && !cd->out_len) {
		chardev_set_connected(cd, false);
		loop_remove(cd->loop, cd->out_watch);
		cd->out_watch = -1;
		return;
	}
	chardev_drain(cd);
}

static void chardev_in_event(void *arg, u32 events)
{
	struct chardev *cd = arg;

	if (events & EPOLLIN || chardev_wants_input(cd)) {
		chardev_read(cd);
		return;
	}
	/* Hung up with unread data and no room for it: come back when the guest has read. */
	loop_remove(cd->loop, cd->in_watch);
	cd->in_watch = -1;
	cd->in_parked = true;
}

int chardev_start(struct chardev *cd, struct error *err)
{
	bool one = cd->in_fd >= 0 && cd->in_fd == cd->out_fd;
	int ret = 0;

	if (cd->in_fd >= 0) {
		ret = loop_add(
			cd->loop, cd->in_fd, EPOLLIN, one ? chardev_event : chardev_in_event, cd);
		cd->in_watch = ret < 0 ? -1 : ret;
	}
	if (one)
		cd->out_watch = cd->in_watch;
	else if (ret >= 0 && cd->out_fd >= 0) {
		ret = loop_add(cd->loop, cd->out_fd, 0, chardev_out_event, cd);
		cd->out_watch = ret < 0 ? -1 : ret;
	}
	if (ret < 0)
		return error_set(err, -ret, "%s%s: cannot watch the descriptor: %s", cd->option,
			cd->spec, strerror(-ret));
	return 0;
}

void chardev_stop(struct chardev *cd)
{
	if (cd->in_watch >= 0)
		loop_remove(cd->loop, cd->in_watch);
	if (cd->out_watch >= 0 && cd->out_watch != cd->in_watch)
		loop_remove(cd->loop, cd->out_watch);
	cd->in_watch = cd->out_watch = -1;
}
