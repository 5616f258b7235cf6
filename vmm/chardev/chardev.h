/*
 * Character devices: the host's side of a serial port. A stream of bytes each way between a front
 * end (the UART) and a descriptor, with a bounded buffer each way. Everything runs under the
 * machine's lock and nothing blocks: a full output buffer is told to the front end, which tells the
 * guest (THRE stays clear); a full input buffer stops the reading.
 */
#ifndef QUMRA_VMM_CHARDEV_CHARDEV_H
#define QUMRA_VMM_CHARDEV_CHARDEV_H

#include "lib/error.h"
#include "lib/types.h"
#include "vmm/chardev/terminal.h"
#include "vmm/loop/loop.h"

#define CHARDEV_IN_SIZE		4096
#define CHARDEV_OUT_SIZE	(256 * 1024)

/* What the front end answers. Only receive may be called with n up to room. */
struct chardev_front {
	size_t (*room)(void *arg);
	void (*receive)(void *arg, const u8 *data, size_t n);
	void (*drained)(void *arg);	/* there is room for output again */
	void (*line_break)(void *arg);
	void *arg;
};

/* What the machine's owner wants to hear. */
struct chardev_events {
	void (*quit)(void *arg);	/* the person asked to leave */
	void (*output)(void *arg, const u8 *data, size_t n);	/* the guest wrote; may be NULL */
	/* The person wants a picture of the screen; a line about it in text. May be NULL. */
	void (*screenshot)(void *arg, char *text, size_t size);
	void *arg;
};

struct chardev;

struct chardev_ops {
	/* Filters n bytes of fresh input in place; returns how many remain. May be NULL. */
	size_t (*filter)(struct chardev *cd, u8 *data, size_t n);
	/* The stream ended or failed. */
	void (*hangup)(struct chardev *cd);
	void (*destroy)(struct chardev *cd);
};

enum chardev_output {
	OUTPUT_NONBLOCK,	/* the descriptor is our own and O_NONBLOCK */
	OUTPUT_SOCKET,		/* send with MSG_DONTWAIT */
	OUTPUT_POLL,		/* shared with others: poll, then write little */
};

struct chardev {
	const struct chardev_ops *ops;
	struct loop *loop;
	const char *option, *spec;	/* what messages begin with: "--serial ", "pty" */
	struct chardev_front front;
	struct chardev_events events;
	int in_fd, out_fd;		/* -1: none. May be equal. */
	int in_watch, out_watch;	/* -1: none. Equal when the descriptors are. */
	enum chardev_output output;
	bool connected;			/* somebody listens: else output is dropped */
	bool stalled;			/* the front end was told that there is no room */
	bool in_parked;	 /* hung up with unread data: watched again when there is room */
	bool drop_input; /* full input buffer: drop rather than stop reading (a keyboard) */
	u32 in_len;
	u32 out_head, out_len;
	u8 in[CHARDEV_IN_SIZE];
	u8 *out;			/* ring of CHARDEV_OUT_SIZE */

	/* One backend's own. */
	struct terminal terminal;	/* stdio */
	bool escape;			/* stdio: Ctrl-A was seen */
	int side_fd, side_watch;	/* unix: the listener; pty: inotify */
	int slave_fd;			/* pty */
	unsigned users;			/* pty: openers of the slave */
	char path[128];			/* pty, unix */
};

/* "stdio", "none", "file:PATH", "pty", "unix:PATH": is it one? A usage error begins with option. */
int chardev_check(const char *option, const char *spec, struct error *err);
/*
 * With spec checked. The chardev must not move afterwards, and both texts live as long. option: what spec
 * stands behind on the command line, up to it: "--serial ".
 */
int chardev_open(struct chardev *cd, const char *option, const char *spec, struct loop *loop,
		 const struct chardev_events *events, struct error *err);
void chardev_destroy(struct chardev *cd);
void chardev_attach(struct chardev *cd, const struct chardev_front *front);

/* Returns how many bytes were taken; fewer than n means: wait for `drained`. */
size_t chardev_write(struct chardev *cd, const u8 *data, size_t n);
/* Takes back the newest n bytes that the front end has received but its guest has not read. */
void chardev_unread(struct chardev *cd, const u8 *data, size_t n);
/* The front end has room for input again. */
void chardev_accept_input(struct chardev *cd);
/* Before the end: tries to get buffered output out, for at most timeout_ms. */
void chardev_flush(struct chardev *cd, int timeout_ms);

/* For the backends. */
int chardev_start(struct chardev *cd, struct error *err);	/* watches in_fd and out_fd */
void chardev_stop(struct chardev *cd);				/* stops watching them */
void chardev_set_connected(struct chardev *cd, bool connected);
int chardev_open_stdio(struct chardev *cd, const char *path, struct error *err);
int chardev_open_none(struct chardev *cd, const char *path, struct error *err);
int chardev_open_file(struct chardev *cd, const char *path, struct error *err);
int chardev_open_pty(struct chardev *cd, const char *path, struct error *err);
int chardev_open_unix(struct chardev *cd, const char *path, struct error *err);

#endif
