/* Raw terminal with a guardian: see terminal.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/chardev/terminal.h"

/* Leaves open only what the guardian needs, so that nobody waits for its end of some pipe. */
static void guard_close_others(int a, int b)
{
	int lo = MIN(a, b), hi = MAX(a, b);

	if (lo > 0)
		close_range(0, lo - 1, 0);
	if (hi - lo > 1)
		close_range(lo + 1, hi - 1, 0);
	close_range(hi + 1, ~0U, 0);
}

/* The guardian: a byte means that all is well, the end of the pipe that it must act. */
static void guard_run(int tty, int pipe_fd, const struct termios *saved)
{
	sigset_t all;
	char byte;
	ssize_t n;

	/* Only SIGKILL ends it early: signals for the terminal's processes do not concern it. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "qumra-tty");
	guard_close_others(tty, pipe_fd);
	do {
		n = read(pipe_fd, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		tcsetattr(tty, TCSANOW, saved);
	_exit(0);
}

static int guard_start(struct terminal *t, struct error *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_set(err, errno, "cannot make a pipe: %s", strerror(errno));
	t->guard = fork();
	if (t->guard < 0) {
		int ret = error_set(
			err, errno, "cannot start the terminal's guardian: %s", strerror(errno));

		close(fds[0]);
		close(fds[1]);
		return ret;
	}
	if (t->guard == 0) {
		close(fds[1]);
		guard_run(t->fd, fds[0], &t->saved);
	}
	close(fds[0]);
	t->guard_fd = fds[1];
	return 0;
}

static void guard_dismiss(struct terminal *t)
{
	ssize_t n = write(t->guard_fd, "q", 1);

	(void)n;	/* gone already: then there is nothing to dismiss */
	close(t->guard_fd);
	while (waitpid(t->guard, NULL, 0) < 0 && errno == EINTR)
		;
}

int terminal_make_raw(struct terminal *t, int fd, struct error *err)
{
	int ret;

	*t = (struct terminal){ .fd = fd };
	if (tcgetattr(fd, &t->saved) < 0)
		return error_set(
			err, errno, "cannot read the terminal's settings: %s", strerror(errno));
	t->settings = t->saved;
	cfmakeraw(&t->settings);
	t->settings.c_cc[VMIN] = 1;
	t->settings.c_cc[VTIME] = 0;
	ret = guard_start(t, err);
	if (ret < 0)
		return ret;
	if (tcsetattr(fd, TCSADRAIN, &t->settings) < 0) {
		ret = error_set(err, errno, "cannot make the terminal raw: %s", strerror(errno));
		guard_dismiss(t);
		return ret;
	}
	t->raw = true;
	return 0;
}

void terminal_renew(struct terminal *t)
{
	if (t->raw)
		tcsetattr(t->fd, TCSADRAIN, &t->settings);
}

void terminal_restore(struct terminal *t)
{
	if (!t->raw)
		return;
	t->raw = false;
	tcsetattr(t->fd, TCSADRAIN, &t->saved);
	guard_dismiss(t);
}
