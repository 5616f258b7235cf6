/*
 * What the benchmark's workloads share. A workload does a fixed amount of work; setup() is not timed,
 * run() is, and returns a checksum, which must be the same on every machine.
 */
#ifndef WORK_H
#define WORK_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;

struct workload {
	const char *name;
	void (*setup)(void);	/* may be NULL */
	u64 (*run)(void);
};

extern const struct workload integer_workloads[], float_workloads[], memory_workloads[],
	system_workloads[], rsa_workloads[], thread_workloads[];

_Noreturn void die(const char *what);
u64 clock_ns(void);
u64 hash_bytes(u64 hash, const void *bytes, size_t size);
/* Zeroed memory of small pages, so that a kernel's policy for large ones does not matter. */
void *buffer_make(size_t size);

/* A generator of numbers, the same on every machine (xorshift). */
static inline u64 random_next(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#endif
