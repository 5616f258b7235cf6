/*
 * The guest's first process: mounts what is needed, runs all workers for the time that the kernel's
 * command line gives (seconds=N), reports, powers off. Lines beginning with CHECK are verdicts.
 * "stress reference" prints the results that a right CPU computes.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stress.h"

const struct worker workers[] = {
	{ "compute", round_compute, 1, 0 },
	{ "fork", round_fork, 0, 2 },
	{ "exec", round_exec, 0, 2 },
	{ "pipe", round_pipe, 0, 2 },
	{ "signal", round_signal, 1, 0 },
	{ "fault", round_fault, 1, 0 },
	{ "jit", round_jit, 1, 0 },
	{ "jit-alias", round_jit_alias, 0, 2 },
	{ "jit-threads", round_jit_threads, 0, 1 },
	{ "pages", round_pages, 1, 0 },
	{ "pressure", round_pressure, 0, 2 },
	{ "tmpfs", round_tmpfs, 0, 2 },
	{ "threads", round_threads, 0, 1 },
	{ "shootdown", round_shootdown, 0, 1 },
};
const unsigned int n_workers = sizeof(workers) / sizeof(workers[0]);

#define MAX_PROCESSES 256

/* What the processes share: who did how much, and what went wrong. */
struct board {
	struct {
		uint64_t rounds, wrong;
	} of[sizeof(workers) / sizeof(workers[0])];
};
static struct board *board;
static unsigned int self;

bool wrong(const char *format, ...)
{
	char text[200];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("WRONG %s: %s\n", workers[self].name, text);
	fflush(stdout);
	__atomic_fetch_add(&board->of[self].wrong, 1, __ATOMIC_RELAXED);
	return false;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the machine ------------------------------------------------------------------------------ */

static void set_up(void)
{
	mkdir("/proc", 0755);
	mkdir("/tmp", 01777);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("tmp", "/tmp", "tmpfs", 0, "size=25%");
	if (open("/dev/console", O_RDWR) == 0) {
		dup2(0, 1);
		dup2(0, 2);
	}
}

/* A number from the kernel's command line: name=N. */
static uint64_t parameter(const char *name, uint64_t otherwise, int base)
{
	char text[2048] = { 0 };
	size_t n = strlen(name);
	FILE *f = fopen("/proc/cmdline", "r");

	if (!f || !fgets(text, sizeof(text), f))
		return otherwise;
	fclose(f);
	for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n"))
		if (!strncmp(word, name, n) && word[n] == '=')
			return strtoull(word + n + 1, NULL, base);
	return otherwise;
}

static void print_kernel_log(void)
{
	static char text[1 << 20];
	int n = klogctl(3, text, sizeof(text));

	printf("DMESG BEGIN\n");
	if (n > 0)
		fwrite(text, 1, (size_t)n, stdout);
	printf("\nDMESG END\n");
}

/* ---- workers ---------------------------------------------------------------------------------- */

static void work(unsigned int worker, unsigned int instance, double end)
{
	uint64_t seed = mix(worker * 1000 + instance);

	self = worker;
	/* On a busy host the first turn of a process may come when time is up. */
	do {
		workers[worker].round(seed++);
		__atomic_fetch_add(&board->of[worker].rounds, 1, __ATOMIC_RELAXED);
	} while (now() < end);
	exit(0);
}

static unsigned int start_all(double end, pid_t *pids, unsigned int *of)
{
	unsigned int cpus = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN), n = 0;

	for (unsigned int w = 0; w < n_workers; w++)
		for (unsigned int k = 0; k < workers[w].per_cpu * cpus + workers[w].more; k++) {
			if (n == MAX_PROCESSES)
				return n;
			of[n] = w;
			pids[n] = fork();
			if (!pids[n])
				work(w, k, end);
			n++;
		}
	return n;
}

/* Workers end by themselves; whatever else ends here is a lost child of theirs. */
static void wait_all(const pid_t *pids, const unsigned int *of, unsigned int n)
{
	unsigned int left = n;
	int status;

	while (left) {
		pid_t pid = wait(&status);

		if (pid < 0)
			break;
		for (unsigned int k = 0; k < n; k++) {
			if (pids[k] != pid)
				continue;
			left--;
			self = of[k];
			if (status)
				wrong("the worker ended with status %x", (unsigned int)status);
		}
	}
}

static void run(double seconds)
{
	static pid_t pids[MAX_PROCESSES];
	static unsigned int of[MAX_PROCESSES];
	unsigned int n = start_all(now() + seconds, pids, of);

	printf("RUNNING %u processes for %.0f s on %ld CPUs\n", n, seconds,
		sysconf(_SC_NPROCESSORS_ONLN));
	fflush(stdout);
	wait_all(pids, of, n);
	for (unsigned int w = 0; w < n_workers; w++)
		printf("CHECK %s %s %llu rounds\n",
			board->of[w].wrong || !board->of[w].rounds ? "BAD" : "ok", workers[w].name,
			(unsigned long long)board->of[w].rounds);
}

static int run_guest(void)
{
	uint64_t want, cpus;
	struct utsname u;

	set_up();
	uname(&u);
	printf("INIT %s %s %.2f\n", u.release, u.machine, now());
	cpus = parameter("cpus", 1, 10);
	want = parameter("reference", 0, 16);
	printf("CHECK %s cpus %ld\n", sysconf(_SC_NPROCESSORS_ONLN) == (long)cpus ? "ok" : "BAD",
		sysconf(_SC_NPROCESSORS_ONLN));
	printf("CHECK %s reference %llx\n", compute_all() == want ? "ok" : "BAD",
		(unsigned long long)compute_all());
	fflush(stdout);
	run((double)parameter("seconds", 10, 10));
	printf("CHECK %s reference at the end\n", compute_all() == want ? "ok" : "BAD");
	print_kernel_log();
	printf("STRESS DONE\n");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}

int main(int argc, char **argv)
{
	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return 1;
	if (argc == 3 && !strcmp(argv[1], "child"))
		return exec_child(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "reference")) {
		printf("%llx\n", (unsigned long long)compute_all());
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "here") == 0) {
		run(5);
		return 0;
	}
	return run_guest();
}
