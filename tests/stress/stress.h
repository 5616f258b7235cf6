/*
 * The stress guest: one static program that is the guest's first process and all the others too.
 * Workers run side by side until the time is over; each checks what it computes, and says so when
 * something is wrong. docs: tests/stress/suite.py
 */
#ifndef QUMRA_TESTS_STRESS_STRESS_H
#define QUMRA_TESTS_STRESS_STRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker {
	const char *name;
	/* One round, some milliseconds long; false: a wrong result, wrong() was called. */
	bool (*round)(uint64_t seed);
	/* Processes of it at a time, for each CPU and besides. */
	unsigned int per_cpu, more;
};

extern const struct worker workers[];
extern const unsigned int n_workers;

/* Says what is wrong, with the present worker's name. Returns false. */
bool wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t mix(uint64_t x);			/* a hash of 64 bits */
uint64_t sum(const void *p, size_t n);		/* of a memory area */
void fill(void *p, size_t n, uint64_t seed);	/* with what depends on the seed */
bool filled(const void *p, size_t n, uint64_t seed);

/* Results of the computing kernels for a seed; the host's own are given on the command line. */
uint64_t compute_integer(uint64_t seed);
uint64_t compute_float(uint64_t seed);
uint64_t compute_x87(uint64_t seed);
uint64_t compute_vector(uint64_t seed);
uint64_t compute_all(void);			/* over some seeds */

/* What the program does as "stress child SEED": prints a number that the parent knows. */
int exec_child(const char *seed);

/* Rounds, by file. */
bool round_compute(uint64_t seed);
bool round_fork(uint64_t seed);
bool round_exec(uint64_t seed);
bool round_pipe(uint64_t seed);
bool round_signal(uint64_t seed);
bool round_fault(uint64_t seed);
bool round_jit(uint64_t seed);
bool round_jit_alias(uint64_t seed);
bool round_jit_threads(uint64_t seed);
bool round_pages(uint64_t seed);
bool round_pressure(uint64_t seed);
bool round_tmpfs(uint64_t seed);
bool round_threads(uint64_t seed);
bool round_shootdown(uint64_t seed);

#endif
