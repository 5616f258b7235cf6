/*
 * hostile [--seed N] [--seconds N] [--closed] [--endless] [--cpus N] [--repeat] [--wait]
 *         guest ELF | fuzz | selftest
 *
 * Attacks the hypervisor from inside a guest. Status 0: it held; 1: it did not; 77: the engine that
 * QUMRA_ENGINE names is not there. To look into a failure: --repeat makes the seed's machine again
 * and again (a seed at which a machine begins), --wait leaves the process as it is for a debugger.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#include "hypervisor/api/qkvm.h"
#include "tests/hostile/hostile.h"

struct options options = { .seed = 1, .seconds = 10 };
__thread u64 current_seed;

static const char *engine(void)
{
	const char *name = getenv("QUMRA_ENGINE");

	return name ? name : "default";
}

/* The other threads go on: a vCPU that does not come out is seen where it is. */
static void wait_for_debugger(void)
{
	if (options.wait)
		signal(SIGALRM, SIG_IGN);	/* ticks_start()'s, which would stop them, too */
	while (options.wait)
		pause();
}

void fail(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FAIL hostile: engine %s, seed %llu%s: ", engine(),
		(unsigned long long)current_seed, options.closed ? ", closed" : "");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	wait_for_debugger();
	_exit(1);
}

static void on_crash(int sig)
{
	static const char text[] = "FAIL hostile: the process dies of a signal; seed ";
	char num[24];
	u64 v = current_seed;
	unsigned int n = sizeof(num);

	num[--n] = '\n';
	do
		num[--n] = (char)('0' + v % 10);
	while (v /= 10);
	if (write(2, text, sizeof(text) - 1) < 0 || write(2, num + n, sizeof(num) - n) < 0)
		_exit(1);
	wait_for_debugger();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Before the hypervisor's own handlers, which hand on what is not theirs. */
static void crash_handlers(void)
{
	static const int sigs[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP };
	size_t k;

	for (k = 0; k < ARRAY_SIZE(sigs); k++)
		signal(sigs[k], on_crash);
}

static bool engine_there(void)
{
	int sys = qkvm_open();
	long vm = sys < 0 ? sys : qkvm_ioctl(sys, KVM_CREATE_VM, 0);

	if (vm >= 0)
		qkvm_close((int)vm);
	if (sys >= 0)
		qkvm_close(sys);
	return vm != -ENOENT;
}

static int usage(void)
{
	fputs("usage: hostile [--seed N] [--seconds N] [--cpus N] [--closed] [--endless]"
	      " [--repeat] [--wait] guest ELF | fuzz | selftest\n", stderr);
	return 2;
}

static unsigned long number(char **argv, int *k)
{
	return argv[*k + 1] ? strtoul(argv[++*k], NULL, 0) : 0;
}

/* A seed stands for the same addresses of the host in each run. */
static void addresses_fixed(char **argv)
{
	int now = personality(0xffffffff);

	if (now >= 0 && !(now & ADDR_NO_RANDOMIZE) && personality((unsigned int)now | ADDR_NO_RANDOMIZE)
		>= 0 && personality(0xffffffff) & ADDR_NO_RANDOMIZE)
		execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
	unsigned int cpus = 1;
	int k;

	for (k = 1; k < argc && argv[k][0] == '-'; k++) {
		if (!strcmp(argv[k], "--seed"))
			options.seed = number(argv, &k);
		else if (!strcmp(argv[k], "--seconds"))
			options.seconds = (unsigned int)number(argv, &k);
		else if (!strcmp(argv[k], "--cpus"))
			cpus = (unsigned int)number(argv, &k);
		else if (!strcmp(argv[k], "--closed"))
			options.closed = true;
		else if (!strcmp(argv[k], "--endless"))
			options.endless = true;
		else if (!strcmp(argv[k], "--repeat"))
			options.repeat = true;
		else if (!strcmp(argv[k], "--wait"))
			options.wait = true;
		else
			return usage();
	}
	if (k >= argc || !cpus || cpus > VCPUS_MAX)
		return usage();
	addresses_fixed(argv);
	current_seed = options.seed;
	crash_handlers();
	if (!engine_there()) {
		fprintf(stderr, "SKIP no engine is called %s\n", engine());
		return 77;
	}
	canary_setup();
	if (!strcmp(argv[k], "selftest"))
		return selftest_run();
	if (!strcmp(argv[k], "fuzz"))
		return fuzz_run(cpus);
	if (!strcmp(argv[k], "guest") && k + 1 < argc)
		return guest_run(argv[k + 1], cpus);
	return usage();
}
