/* The kernel's side: system calls, two processes that talk by pipes, fork, fork with exec. */
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

enum { CALLS = 400000, PINGS = 15000, FORKS = 500, EXECS = 120 };

static int zero_fd;

static void calls_setup(void)
{
	zero_fd = open("/dev/zero", O_RDONLY);
	if (zero_fd < 0)
		die("/dev/zero");
}

/* Cheap calls: the process's id (always a system call), and one byte of /dev/zero. */
static u64 calls_run(void)
{
	u64 sum = 0;
	char c = 1;

	for (int i = 0; i < CALLS; i++) {
		sum += syscall(SYS_getppid) > 0;
		if (i % 4 == 0)
			sum += read(zero_fd, &c, 1);
	}
	return sum + c;
}

static void pipe_echo(int in, int out)
{
	char c;

	while (read(in, &c, 1) == 1) {
		c++;
		if (write(out, &c, 1) != 1)
			break;
	}
	_exit(0);
}

static u64 pipe_run(void)
{
	int there[2], back[2];
	char c = 0;
	pid_t pid;

	if (pipe(there) || pipe(back))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		close(there[1]);
		pipe_echo(there[0], back[1]);
	}
	for (int i = 0; i < PINGS; i++) {
		if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
			die("ping-pong");
	}
	close(there[1]);
	waitpid(pid, NULL, 0);
	return (unsigned char)c;
}

static u64 fork_run(void)
{
	u64 sum = 0;

	for (int i = 0; i < FORKS; i++) {
		int status;
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid)
			_exit(i & 0x3f);
		waitpid(pid, &status, 0);
		sum += WEXITSTATUS(status);
	}
	return sum;
}

/* A program with a dynamic linker's work, as most are. */
static u64 exec_run(void)
{
	u64 sum = 0;

	for (int i = 0; i < EXECS; i++) {
		int status;
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid) {
			execl("/bin/true", "true", NULL);
			_exit(127);
		}
		waitpid(pid, &status, 0);
		sum += WEXITSTATUS(status) + 1;
	}
	return sum;
}

const struct workload system_workloads[] = {
	{"syscalls", calls_setup, calls_run},
	{"pipe", NULL, pipe_run},
	{"fork", NULL, fork_run},
	{"fork+exec", NULL, exec_run},
	{NULL, NULL, NULL},
};
