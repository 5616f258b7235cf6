/* Fork, exec, pipes, signals, faults. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

/* ---- fork ------------------------------------------------------------------------------------ */

#define COPY (64 << 10)

static int fork_child(uint8_t *copy, uint64_t seed)
{
	if (!filled(copy, COPY, seed))
		return 1;
	for (size_t k = 0; k < COPY; k += 4096)
		copy[k + seed % 4096]++;
	return compute_integer(seed) == compute_integer(seed) ? (int)(seed & 63) + 10 : 2;
}

bool round_fork(uint64_t seed)
{
	uint8_t *copy = mmap(NULL, COPY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = true;
	pid_t pid[4];
	int status;

	if (copy == MAP_FAILED)
		return true;
	fill(copy, COPY, seed);
	for (unsigned int k = 0; k < 4; k++) {
		pid[k] = fork();
		if (!pid[k])
			_exit(fork_child(copy, seed));
	}
	for (unsigned int k = 0; k < 4; k++) {
		if (pid[k] < 0)
			continue;
		if (waitpid(pid[k], &status, 0) != pid[k] || !WIFEXITED(status) ||
		    WEXITSTATUS(status) != (int)(seed & 63) + 10)
			ok = wrong("child ended with %x", status);
	}
	if (!filled(copy, COPY, seed))
		ok = wrong("a child wrote into its parent's memory");
	munmap(copy, COPY);
	return ok;
}

/* ---- exec ------------------------------------------------------------------------------------ */

int exec_child(const char *seed)
{
	printf("%llx", (unsigned long long)compute_integer(strtoull(seed, NULL, 16)));
	return fflush(stdout) ? 1 : 42;
}

bool round_exec(uint64_t seed)
{
	char text[32], answer[64];
	int fd[2], status;
	ssize_t n, at = 0;
	pid_t pid;

	snprintf(text, sizeof(text), "%llx", (unsigned long long)seed);
	if (pipe(fd))
		return wrong("no pipe");
	pid = fork();
	if (!pid) {
		dup2(fd[1], 1);
		execl("/proc/self/exe", "stress", "child", text, NULL);
		_exit(99);
	}
	close(fd[1]);
	while ((n = read(fd[0], answer + at, sizeof(answer) - 1 - (size_t)at)) > 0)
		at += n;
	answer[at] = 0;
	close(fd[0]);
	if (pid < 0)
		return true;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 42)
		return wrong("ended with %x", status);
	if (strtoull(answer, NULL, 16) != compute_integer(seed))
		return wrong("answered %s", answer);
	return true;
}

/* ---- pipes ----------------------------------------------------------------------------------- */

static void echo(int fd)
{
	char buf[3000];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t k = 0; k < n; k++)
			buf[k] ^= 0x5a;
		for (ssize_t at = 0, m; at < n; at += m) {
			m = write(fd, buf + at, (size_t)(n - at));
			if (m <= 0)
				_exit(1);
		}
	}
	_exit(0);
}

bool round_pipe(uint64_t seed)
{
	uint8_t out[2048], back[2048];
	bool ok = true;
	int fd[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd))
		return wrong("no sockets");
	pid = fork();
	if (!pid) {
		close(fd[0]);
		echo(fd[1]);
	}
	close(fd[1]);
	for (unsigned int k = 0; ok && pid > 0 && k < 50; k++) {
		size_t n = 8 + mix(seed + k) % 2040, at = 0;

		fill(out, sizeof(out), seed + k);
		if (write(fd[0], out, n) != (ssize_t)n)
			ok = wrong("short write");
		while (ok && at < n) {
			ssize_t m = read(fd[0], back + at, n - at);

			if (m <= 0)
				ok = wrong("the other end is gone");
			else
				at += (size_t)m;
		}
		for (size_t j = 0; ok && j < n; j++)
			if ((back[j] ^ out[j]) != 0x5a)
				ok = wrong("byte %zu of %zu", j, n);
	}
	close(fd[0]);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return ok;
}

/* ---- signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t ticks;

/* Uses the units that the interrupted code uses. */
static void on_tick(int sig)
{
	volatile uint64_t x = compute_vector((uint64_t)sig) ^ compute_x87(3);

	ticks += x != 0;
}

bool round_signal(uint64_t seed)
{
	struct sigaction sa = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, 2000 }, { 0, 2000 } }, never = { { 0, 0 }, { 0, 0 } };
	uint64_t want[4] = { compute_integer(seed), compute_float(seed), compute_x87(seed),
		compute_vector(seed) };
	bool ok = true;

	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int k = 0; ok && k < 20; k++) {
		if (compute_integer(seed) != want[0] || compute_float(seed) != want[1] ||
		    compute_x87(seed) != want[2] || compute_vector(seed) != want[3])
			ok = wrong("another result under signals");
		raise(SIGUSR1);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	return ticks < 20 ? wrong("%d signals", (int)ticks) : ok;
}

/* ---- faults ---------------------------------------------------------------------------------- */

static volatile unsigned int faults;
static sigjmp_buf fault_jump;
static volatile uintptr_t fault_addr;

/* Opens the page; the instruction runs again. */
static void on_fault_open(int sig, siginfo_t *info, void *context)
{
	uintptr_t page = (uintptr_t)info->si_addr & ~4095UL;

	faults++;
	if (mprotect((void *)page, 4096, PROT_READ | PROT_WRITE))
		_exit(1);
}

static void on_fault_jump(int sig, siginfo_t *info, void *context)
{
	faults++;
	fault_addr = (uintptr_t)info->si_addr;
	siglongjmp(fault_jump, sig);
}

static void on(int sig, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_NODEFER };

	sa.sa_sigaction = handler;
	sigaction(sig, &sa, NULL);
}

static bool fault_each_page(uint8_t *p, size_t pages, uint64_t seed)
{
	faults = 0;
	on(SIGSEGV, on_fault_open);
	mprotect(p, pages * 4096, PROT_NONE);
	/* Each access lies in two pages: both fault, and then all of it happens. */
	for (size_t k = 1; k < pages; k++) {
		uint64_t x = mix(seed + k);

		memcpy(p + k * 4096 - 3, &x, 8);
	}
	if (faults != pages)
		return wrong("%u faults of %zu", faults, pages);
	for (size_t k = 1; k < pages; k++) {
		uint64_t x;

		memcpy(&x, p + k * 4096 - 3, 8);
		if (x != mix(seed + k))
			return wrong("a store across pages was lost");
	}
	return true;
}

static bool fault_kinds(uint8_t *p)
{
	volatile int zero = 0, one = 1;
	int sig;

	on(SIGSEGV, on_fault_jump);
	on(SIGFPE, on_fault_jump);
	on(SIGILL, on_fault_jump);
	mprotect(p, 4096, PROT_READ);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig)
		*(volatile uint8_t *)(p + 123) = 1;
	else if (sig != SIGSEGV || fault_addr != (uintptr_t)p + 123)
		return wrong("write: signal %d at %lx", sig, (unsigned long)fault_addr);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig)
		one = one / zero;
	else if (sig != SIGFPE)
		return wrong("division: signal %d", sig);
	sig = sigsetjmp(fault_jump, 1);
	if (!sig)
		__asm__ volatile("ud2");
	else if (sig != SIGILL)
		return wrong("UD2: signal %d", sig);
	return true;
}

bool round_fault(uint64_t seed)
{
	uint8_t *p = mmap(NULL, 16 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok;

	if (p == MAP_FAILED)
		return true;
	ok = fault_each_page(p, 16, seed) && fault_kinds(p);
	munmap(p, 16 * 4096);
	signal(SIGSEGV, SIG_DFL);
	signal(SIGFPE, SIG_DFL);
	signal(SIGILL, SIG_DFL);
	return ok;
}
