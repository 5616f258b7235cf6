/* Programs that serve devices: see child.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/loop/child.h"

#define CHILD_PATIENCE_MS 2000

extern char **environ;

/* No signals are blocked, and those of the terminal are not for it. */
static int attributes_set(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawnattr_init(attr))
		return -1;
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	posix_spawnattr_setpgroup(attr, 0);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
		POSIX_SPAWN_SETPGROUP);
	return 0;
}

/* Dup2 of a descriptor to itself takes its close-on-exec flag away (POSIX, posix_spawn). */
static int files_set(posix_spawn_file_actions_t *files, int fd)
{
	if (posix_spawn_file_actions_init(files))
		return -1;
	posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(files, fd, fd);
	return 0;
}

int child_start(struct child *c, const char *const *argv, int fd, struct error *err)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	int ret;

	c->pid = 0;
	if (attributes_set(&attr) < 0)
		return error_set(err, ENOMEM, "out of memory");
	if (files_set(&files, fd) < 0) {
		posix_spawnattr_destroy(&attr);
		return error_set(err, ENOMEM, "out of memory");
	}
	ret = posix_spawnp(&c->pid, argv[0], &files, &attr, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	if (!ret)
		return 0;
	c->pid = 0;
	return error_set(err, ret, "cannot start %s: %s", argv[0], strerror(ret));
}

void child_end(struct child *c)
{
	struct pollfd p = { .fd = -1, .events = POLLIN };

	if (!c->pid)
		return;
	p.fd = syscall(SYS_pidfd_open, c->pid, 0);
	if (p.fd < 0 || poll(&p, 1, CHILD_PATIENCE_MS) != 1)
		kill(c->pid, SIGKILL);
	if (p.fd >= 0)
		close(p.fd);
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
	c->pid = 0;
}
