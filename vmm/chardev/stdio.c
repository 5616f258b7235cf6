/*
 * Standard input and output as a serial line: a raw terminal with an escape key, or pipes and
 * files.
 *
 * The descriptors are shared with the shell and whoever else has them, so O_NONBLOCK is never set
 * on them: output goes through a description of our own where the kernel gives us one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/chardev/chardev.h"

#define KEY_ESCAPE 0x01	/* Ctrl-A */

static const char stdio_help[] =
	"\r\n"
	"Ctrl-A x       end the virtual machine\r\n"
	"Ctrl-A b       send a break (Linux: magic SysRq)\r\n"
	"Ctrl-A s       take a screenshot\r\n"
	"Ctrl-A Ctrl-A  send Ctrl-A\r\n"
	"Ctrl-A h       this help\r\n";

static void stdio_screenshot(struct chardev *cd)
{
	char text[400], line[sizeof(text) + 8];
	int n;

	if (!cd->events.screenshot)
		return;
	cd->events.screenshot(cd->events.arg, text, sizeof(text));
	n = snprintf(line, sizeof(line), "\r\n%s\r\n", text);
	chardev_write(cd, (const u8 *)line, n);
}

/* True when key goes to the guest. */
static bool stdio_command(struct chardev *cd, u8 key)
{
	switch (key) {
	case KEY_ESCAPE:
	case 'a':
		return true;
	case 'x':
	case 'X':
		cd->events.quit(cd->events.arg);
		break;
	case 'b':
	case 'B':
		if (cd->front.line_break)
			cd->front.line_break(cd->front.arg);
		break;
	case 's':
	case 'S':
		stdio_screenshot(cd);
		break;
	case 'h':
	case 'H':
	case '?':
		chardev_write(cd, (const u8 *)stdio_help, strlen(stdio_help));
		break;
	}
	return false;
}

static size_t stdio_filter(struct chardev *cd, u8 *data, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		u8 c = data[i];

		if (cd->escape) {
			cd->escape = false;
			if (stdio_command(cd, c))
				data[kept++] = KEY_ESCAPE;
		} else if (c == KEY_ESCAPE) {
			cd->escape = true;
		} else {
			data[kept++] = c;
		}
	}
	return kept;
}

/* The end of the input is not the end of the machine. */
static void stdio_hangup(struct chardev *cd)
{
	if (cd->in_watch >= 0)
		loop_remove(cd->loop, cd->in_watch);
	cd->in_watch = -1;
	cd->in_fd = -1;
}

static void stdio_destroy(struct chardev *cd)
{
	terminal_restore(&cd->terminal);
	if (cd->out_fd > STDERR_FILENO)
		close(cd->out_fd);
}

static const struct chardev_ops stdio_ops = {
	.filter = stdio_filter, .hangup = stdio_hangup, .destroy = stdio_destroy,
};

static void stdio_open_output(struct chardev *cd)
{
	struct stat st;

	cd->out_fd = STDOUT_FILENO;
	cd->output = OUTPUT_POLL;
	if (fstat(STDOUT_FILENO, &st) < 0) {
		cd->out_fd = -1;	/* closed */
	} else if (S_ISSOCK(st.st_mode)) {
		cd->output = OUTPUT_SOCKET;
	} else if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) {
		cd->output = OUTPUT_NONBLOCK;	/* does not block anyway; keeps the shared offset */
	} else {
		int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

		if (fd >= 0) {
			cd->out_fd = fd;
			cd->output = OUTPUT_NONBLOCK;
		}
	}
	cd->connected = cd->out_fd >= 0;
}

int chardev_open_stdio(struct chardev *cd, const char *path, struct error *err)
{
	(void)path;
	cd->ops = &stdio_ops;
	stdio_open_output(cd);
	if (fcntl(STDIN_FILENO, F_GETFD) >= 0)
		cd->in_fd = STDIN_FILENO;
	if (cd->in_fd >= 0 && isatty(STDIN_FILENO)) {
		/* Keys beyond the buffer are lost, as on a real terminal: Ctrl-A x must always
		 * arrive. */
		cd->drop_input = true;
		if (terminal_make_raw(&cd->terminal, STDIN_FILENO, err) < 0)
			return -EIO;
	}
	return chardev_start(cd, err);
}
