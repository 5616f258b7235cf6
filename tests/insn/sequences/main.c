/*
 * Runs the sequences (sequences.h): user-mode programs against the host CPU, system programs among
 * the engines.
 *
 *	sequences [--seed N] [--insns N] [--engines A,B] [--user | --system] [--one uN | sN] [--list] [--verbose]
 *
 * A failure prints a name like u123 or s123 for --one, and the program as small as it could be
 * made. --list prints the program of --one without running it. Seeds are numbers of programs:
 * program k of a run has seed + k.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "hypervisor/core/vm.h"
#include "tests/insn/sequences/sequences.h"

struct machine machines[MAX_MACHINES];
unsigned int n_machines;
struct totals totals;
bool verbose;

struct wish {
	u64 seed, insns;
	const char *one;
	char engines[64];
	bool user, system, list;
	unsigned int failures;
};

/* Ends what does not end: the host's program, or KVM_RUN. */
static void on_tick(int sig, siginfo_t *info, void *ctx)
{
	struct machine *m = machine_running;

	native_tick(sig, info, ctx);
	if (!m || ++m->ticks < 4)
		return;
	m->late = true;
	m->run->immediate_exit = 1;
	m->inside->kick = 1;
}

static void watchdog(void)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct itimerval every = { { 0, 100000 }, { 0, 100000 } };

	sa.sa_sigaction = on_tick;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}

static int make_machines(struct wish *w)
{
	for (char *name = strtok(w->engines, ","); name; name = strtok(NULL, ",")) {
		if (n_machines == MAX_MACHINES || machine_new(&machines[n_machines], name))
			return -1;
		n_machines++;
	}
	return n_machines ? 0 : -1;
}

static int setup(struct wish *w)
{
	gen_setup();
	if (native_setup() || make_machines(w) || user_setup())
		return -1;
	flow_setup();
	watchdog();
	return 0;
}

/* Not every engine counts; a program of one that does not is taken for a hundred. */
static u64 insns(void)
{
	u64 most = totals.programs * 100;

	for (unsigned int k = 0; k < n_machines; k++)
		if (machine_insns(&machines[k]) > most)
			most = machine_insns(&machines[k]);
	return most;
}

static void report(const struct wish *w, u64 n, double seconds)
{
	printf("%llu instructions, %llu programs, %.1f s (%.2f million a second), %llu late, %llu flaky\n",
		(unsigned long long)n, (unsigned long long)totals.programs, seconds,
		(double)n / seconds / 1e6, (unsigned long long)totals.late,
		(unsigned long long)totals.flaky);
	printf("user ends:");
	for (unsigned int k = 0; k < 256; k++)
		if (totals.ends[k])
			printf(" %u:%llu", k, (unsigned long long)totals.ends[k]);
	printf("\nsystem exits:");
	for (unsigned int k = 0; k < 64; k++)
		if (totals.exits[k])
			printf(" %u:%llu", k, (unsigned long long)totals.exits[k]);
	printf("\nsystem events:");
	for (unsigned int k = 0; k < 256; k++)
		if (totals.events[k])
			printf(" %u:%llu", k, (unsigned long long)totals.events[k]);
	printf("\n%u failures\n", w->failures);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool run_one(const struct wish *w)
{
	u64 seed = strtoull(w->one + 1, NULL, 0);

	if (w->list) {
		(*w->one == 's' ? system_show : user_show)(seed);
		return true;
	}
	return *w->one == 's' ? system_compare(seed) : user_compare(seed);
}

/* Both kinds get about the same number of instructions. Those of endless loops are not counted. */
static void run_many(struct wish *w)
{
	double start = now();
	u64 done[2] = { 0 };

	for (u64 k = 0; done[0] + done[1] < w->insns && w->failures < 5; k++) {
		bool system = w->system && (!w->user || done[1] <= done[0]);
		u64 at = insns(), late = totals.late;

		if (!(system ? system_compare : user_compare)(w->seed + k))
			w->failures++;
		totals.programs++;
		at = insns() - at;
		if (late == totals.late)
			done[system] += at;
	}
	report(w, done[0] + done[1], now() - start);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "insns", required_argument, NULL, 'n' },
		{ "one", required_argument, NULL, '1' }, { "engines", required_argument, NULL, 'e' },
		{ "user", no_argument, NULL, 'u' }, { "system", no_argument, NULL, 'y' },
		{ "verbose", no_argument, NULL, 'v' }, { "list", no_argument, NULL, 'l' }, { 0 },
	};
	struct wish w = { .seed = (u64)time(NULL) << 20, .insns = 20000000 };
	int c;

	strcpy(w.engines, engine_by_name("dbt") ? "interp,dbt" : "interp,interp");
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': w.seed = strtoull(optarg, NULL, 0); break;
		case 'n': w.insns = strtoull(optarg, NULL, 0); break;
		case '1': w.one = optarg; break;
		case 'e': snprintf(w.engines, sizeof(w.engines), "%s", optarg); break;
		case 'u': w.user = true; break;
		case 'y': w.system = true; break;
		case 'v': verbose = true; break;
		case 'l': w.list = true; break;
		default: return 2;
		}
	}
	if (!w.user && !w.system)
		w.user = w.system = true;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (setup(&w)) {
		printf("setup failed\n");
		return 1;
	}
	if (w.one)
		return !run_one(&w);
	printf("seed %llu, engines %s", (unsigned long long)w.seed, machines[0].engine);
	for (unsigned int k = 1; k < n_machines; k++)
		printf(" %s", machines[k].engine);
	printf("\n");
	run_many(&w);
	return w.failures != 0;
}
