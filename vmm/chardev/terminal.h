/*
 * The terminal in raw mode, and its way back. A small child process holds the saved settings and
 * one end of a pipe: however this process ends, SIGKILL too, the pipe closes and the child restores
 * the terminal. On an ordinary end we restore it ourselves and tell the child that there is no
 * need.
 */
#ifndef QUMRA_VMM_CHARDEV_TERMINAL_H
#define QUMRA_VMM_CHARDEV_TERMINAL_H

#include <sys/types.h>
#include <termios.h>

#include "lib/error.h"
#include "lib/types.h"

struct terminal {
	bool raw;
	int fd;
	int guard_fd;	/* our end of the pipe */
	pid_t guard;
	struct termios saved, settings;
};

/* Before any thread starts: it forks. */
int terminal_make_raw(struct terminal *t, int fd, struct error *err);
/* After a stop and continue, when the shell has set the terminal to its own liking. */
void terminal_renew(struct terminal *t);
void terminal_restore(struct terminal *t);

#endif
