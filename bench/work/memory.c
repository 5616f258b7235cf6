/* Copying, page faults, mapping and unmapping. */
#include <string.h>
#include <sys/mman.h>

#include "work.h"

enum {
	COPY_SIZE = 4 << 20, COPY_TOTAL = 256 << 20,
	FAULT_SIZE = 16 << 20, FAULT_ROUNDS = 8,
	CHURN_ROUNDS = 5000, CHURN_PAGES = 8,
	PAGE = 4096,
};

static char *from, *to;

static void copy_setup(void)
{
	from = buffer_make(COPY_SIZE);
	to = buffer_make(COPY_SIZE);
	for (u32 i = 0; i < COPY_SIZE; i++)
		from[i] = i * 7 >> 3;
}

/* The C library's memcpy: a third each of 256 bytes, 16 KiB and 4 MiB at a time. */
static u64 memcpy_run(void)
{
	static const u32 sizes[] = {256, 16 << 10, COPY_SIZE};

	for (int k = 0; k < 3; k++) {
		u32 size = sizes[k], at = 0, window = size == COPY_SIZE ? COPY_SIZE : 1 << 16;

		for (u32 done = 0; done < COPY_TOTAL / 3; done += size) {
			memcpy(to + at, from + at, size);
			asm volatile("" ::: "memory");
			at = (at + size) % window;
		}
	}
	return hash_bytes(0, to, 65536);
}

static char *map(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	madvise(p, size, MADV_NOHUGEPAGE);
	return p;
}

static u64 faults_run(void)
{
	u64 sum = 0;

	for (int round = 0; round < FAULT_ROUNDS; round++) {
		char *p = map(FAULT_SIZE);

		for (u32 i = 0; i < FAULT_SIZE; i += PAGE)
			sum += ++p[i];
		munmap(p, FAULT_SIZE);
	}
	return sum;
}

/* Small mappings come, change their protection and go. */
static u64 churn_run(void)
{
	u64 sum = 0;

	for (int round = 0; round < CHURN_ROUNDS; round++) {
		char *p = map(CHURN_PAGES * PAGE);

		sum += ++p[0] + ++p[3 * PAGE];
		if (mprotect(p, PAGE, PROT_READ) || munmap(p + 4 * PAGE, PAGE) || munmap(p, CHURN_PAGES * PAGE))
			die("mprotect or munmap");
	}
	return sum;
}

const struct workload memory_workloads[] = {
	{"memcpy", copy_setup, memcpy_run},
	{"faults", NULL, faults_run},
	{"mmap", NULL, churn_run},
	{NULL, NULL, NULL},
};
