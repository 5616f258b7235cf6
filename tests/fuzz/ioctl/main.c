/*
 * The fuzz target without libFuzzer: ioctl-fuzz [--seconds N] [--seed S] [--inputs N] [--report]. Input n follows from seed S + n
 * alone, but what threads make of it follows from their timing, too.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/ioctl/fuzz.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static volatile u64 current;

/* However the process dies, it says with which seed. */
static void on_crash(int sig)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "ioctl-fuzz: signal %d, seed %llu\n", sig, (unsigned long long)current);

	if (write(2, text, (size_t)n) < 0)
		_exit(2);
	signal(sig, SIG_DFL);
	raise(sig);
}

void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void on_death(void)
{
	fprintf(stderr, "ioctl-fuzz: seed %llu\n", (unsigned long long)current);
}

static u64 next(u64 *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 24;
}

static void input(u64 seed)
{
	static u8 data[1024];
	u64 rng = seed * 0x9e3779b97f4a7c15ULL | 1;
	size_t size = 64 + next(&rng) % (sizeof(data) - 64);

	for (size_t i = 0; i < size; i++)
		data[i] = (u8)next(&rng);
	current = seed;
	LLVMFuzzerTestOneInput(data, size);
}

int main(int argc, char **argv)
{
	u64 seconds = ~0ULL, seed = 1, inputs = ~0ULL, n;
	time_t start = time(NULL);
	bool report = false;

	for (int i = 1; i < argc; i += 2) {
		u64 v = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;

		if (!strcmp(argv[i], "--seconds"))
			seconds = v;
		else if (!strcmp(argv[i], "--seed"))
			seed = v;
		else if (!strcmp(argv[i], "--inputs"))
			inputs = v;
		else if (!strcmp(argv[i], "--report"))
			report = true;
	}
	if (seconds == ~0ULL && inputs == ~0ULL)
		inputs = 1000;
	signal(SIGABRT, on_crash);
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(on_death);
	else
		signal(SIGSEGV, on_crash);
	for (n = 0; n < inputs && (u64)(time(NULL) - start) < seconds; n++)
		input(seed + n);
	if (report)
		fuzz_report();
	printf("seed %llu, %llu inputs\n", (unsigned long long)seed, (unsigned long long)n);
	return 0;
}
