/*
 * work run NAME, work time NAME COMMAND...: runs a workload of this program, or a command; prints
 *
 *	BENCH begin NAME
 *	BENCH end NAME NANOSECONDS CPU
 *	BENCH sum NAME CHECKSUM
 *
 * by CLOCK_MONOTONIC, and as time of the CPU, children included. The reader's clock checks that of
 * the guest by the moments when the lines come. A command's checksum is that of its standard output.
 *
 * work data FILE BYTES: writes text that compresses like text, always the same.
 * work cpus: prints how many CPUs it may use.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define OUTPUT "/tmp/output"

static const struct workload *const groups[] = {
	integer_workloads, float_workloads, memory_workloads,
	system_workloads, rsa_workloads, thread_workloads,
};

void die(const char *what)
{
	perror(what);
	exit(1);
}

u64 clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* FNV-1a. */
u64 hash_bytes(u64 hash, const void *bytes, size_t size)
{
	const unsigned char *p = bytes;

	hash ^= 0xcbf29ce484222325;
	while (size--)
		hash = (hash ^ *p++) * 0x100000001b3;
	return hash;
}

void *buffer_make(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, size, MADV_NOHUGEPAGE);
	memset(p, 0, size);
	return p;
}

static void say_begin(const char *name)
{
	printf("BENCH begin %s\n", name);
	fflush(stdout);
}

static u64 usage_ns(int who)
{
	struct rusage u;
	u64 seconds, us;

	getrusage(who, &u);
	seconds = u.ru_utime.tv_sec + u.ru_stime.tv_sec;
	us = u.ru_utime.tv_usec + u.ru_stime.tv_usec;
	return seconds * 1000000000ull + us * 1000;
}

static u64 cpu_ns(void)
{
	return usage_ns(RUSAGE_SELF) + usage_ns(RUSAGE_CHILDREN);
}

static void say_end(const char *name, u64 ns, u64 cpu)
{
	printf("BENCH end %s %llu %llu\n", name, (unsigned long long)ns, (unsigned long long)cpu);
	fflush(stdout);
}

static void say_sum(const char *name, u64 sum)
{
	printf("BENCH sum %s %llx\n", name, (unsigned long long)sum);
	fflush(stdout);
}

static const struct workload *workload_find(const char *name)
{
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		for (const struct workload *w = groups[i]; w->name; w++) {
			if (!strcmp(w->name, name))
				return w;
		}
	}
	fprintf(stderr, "work: no workload %s\n", name);
	exit(2);
}

static int work_run(const char *name)
{
	const struct workload *w = workload_find(name);
	u64 cpu, start, end, sum;

	if (w->setup)
		w->setup();
	say_begin(name);
	cpu = cpu_ns();
	start = clock_ns();
	sum = w->run();
	end = clock_ns();
	say_end(name, end - start, cpu_ns() - cpu);
	say_sum(name, sum);
	return 0;
}

/* Runs the command with its output in a file; false if it fails. */
static int command_run(char **command)
{
	int status, fd;
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (!pid) {
		fd = open(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || dup2(fd, 1) < 0)
			die(OUTPUT);
		execvp(command[0], command);
		die(command[0]);
	}
	if (waitpid(pid, &status, 0) < 0)
		die("waitpid");
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

static u64 file_hash(const char *path)
{
	static char bytes[65536];
	int fd = open(path, O_RDONLY);
	ssize_t n;
	u64 hash = 0;

	if (fd < 0)
		die(path);
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		hash = hash_bytes(hash, bytes, n);
	close(fd);
	return hash;
}

static int work_time(const char *name, char **command)
{
	u64 cpu, start, end;

	say_begin(name);
	cpu = cpu_ns();
	start = clock_ns();
	if (!command_run(command)) {
		printf("BENCH failed %s\n", name);
		return 1;
	}
	end = clock_ns();
	say_end(name, end - start, cpu_ns() - cpu);
	say_sum(name, file_hash(OUTPUT));
	unlink(OUTPUT);
	return 0;
}

/* Words of a small made-up vocabulary, short ones oftener, with numbers between. */
static int work_data(const char *path, size_t size)
{
	static const char *const sounds[] = {"ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "za"};
	u64 state = 88172645463325252ull;
	FILE *f = fopen(path, "w");

	if (!f)
		die(path);
	for (size_t n = 0, word = 0; n < size; word++) {
		u64 r = random_next(&state);
		u32 pick = (r & 0xfff) * (r >> 12 & 0xfff) >> 12;

		if (!(r >> 24 & 7))
			n += fprintf(f, "%u", (u32)(r >> 32) & 0xfffff);
		for (; pick; pick /= 10)
			n += fprintf(f, "%s", sounds[pick % 10]);
		fputc(word % 9 == 8 ? '\n' : ' ', f);
		n++;
	}
	if (fclose(f) || truncate(path, size))
		die(path);
	return 0;
}

static int work_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		die("sched_getaffinity");
	printf("BENCH cpus %d\n", CPU_COUNT(&set));
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "run"))
		return work_run(argv[2]);
	if (argc >= 4 && !strcmp(argv[1], "time"))
		return work_time(argv[2], argv + 3);
	if (argc == 4 && !strcmp(argv[1], "data"))
		return work_data(argv[2], strtoul(argv[3], NULL, 0));
	if (argc == 2 && !strcmp(argv[1], "cpus"))
		return work_cpus();
	fprintf(stderr, "usage: work run NAME | time NAME COMMAND... | data FILE BYTES | cpus\n");
	return 2;
}
