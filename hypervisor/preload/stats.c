/*
 * softkvm --stats: how often the program called what, how its KVM_RUNs ended, and the counters of
 * its vCPUs, "key value" a line on standard error when the program ends.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "hypervisor/os/os.h"
#include "hypervisor/preload/names.h"
#include "hypervisor/preload/preload.h"

#define NR_REQUESTS	256	/* the low byte of an ioctl's number */
#define NR_COUNTERS	96

static struct {
	bool on;
	pid_t pid;
	u64 calls[NR_REQUESTS];		/* atomic, like all numbers here */
	const char *name[NR_REQUESTS];
	u64 exits[NR_EXITS];
	u64 interrupted, failed;
	struct os_mutex lock;		/* of what follows */
	struct { const char *name; u64 value; } counter[NR_COUNTERS];
	u64 vcpus;
} stats;

static void count(u64 *n)
{
	__atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}

static void count_run(int fd, long ret)
{
	const struct kvm_run *run = qkvm_vcpu_run_area(fd);

	if (ret == -EINTR)
		count(&stats.interrupted);
	else if (ret < 0)
		count(&stats.failed);
	else if (run)
		count(&stats.exits[run->exit_reason % NR_EXITS]);
}

void stats_ioctl(int fd, unsigned long request, long ret)
{
	u32 nr = request & (NR_REQUESTS - 1);

	if (likely(!stats.on))
		return;
	count(&stats.calls[nr]);
	if ((u32)request == KVM_RUN)
		count_run(fd, ret);
	if (!READ_ONCE(stats.name[nr])) {
		int kind = qkvm_kind(fd);

		if (kind >= 0)
			WRITE_ONCE(stats.name[nr], qkvm_request_name((enum qkvm_kind)kind, request));
	}
}

/* ---- counters of vCPUs ----------------------------------------------------------------------- */

static void add_counter(void *arg, const char *name, u64 value)
{
	for (u32 i = 0; i < NR_COUNTERS; i++) {
		if (!stats.counter[i].name)
			stats.counter[i].name = name;
		if (strcmp(stats.counter[i].name, name))
			continue;
		stats.counter[i].value += value;
		return;
	}
}

/* The last that is seen of a vCPU. One with several descriptors is counted once. */
static void add_vcpu(int fd)
{
	os_mutex_lock(&stats.lock);
	if (!qkvm_vcpu_stats(fd, add_counter, NULL))
		stats.vcpus++;
	os_mutex_unlock(&stats.lock);
}

void stats_close(int fd)
{
	if (unlikely(stats.on) && qkvm_kind(fd) == QKVM_VCPU)
		add_vcpu(fd);
}

/* ---- the report ------------------------------------------------------------------------------ */

static void print(const char *key, u64 value)
{
	if (value)
		fprintf(stderr, "%s %llu\n", key, (unsigned long long)value);
}

static void stats_print(void)
{
	print("vcpus", stats.vcpus);
	for (u32 i = 0; i < NR_REQUESTS; i++)
		if (stats.name[i])
			print(stats.name[i], stats.calls[i]);
	for (u32 i = 0; i < NR_EXITS; i++)
		print(exit_name(i), stats.exits[i]);
	print("EINTR", stats.interrupted);
	print("failed_runs", stats.failed);
	for (u32 i = 0; i < NR_COUNTERS && stats.counter[i].name; i++)
		print(stats.counter[i].name, stats.counter[i].value);
}

/* Not in children that end: the figures are the parent's. */
static void __attribute__((destructor)) stats_end(void)
{
	if (!stats.on || stats.pid != getpid())
		return;
	for (int fd = 0; fd < NR_FDS; fd++)
		if (qkvm_owns(fd))
			stats_close(fd);
	stats_print();
}

void stats_attach(void)
{
	const char *on = getenv("SOFTKVM_STATS");

	os_mutex_init(&stats.lock);
	stats.pid = getpid();
	stats.on = on && *on && *on != '0';
}
