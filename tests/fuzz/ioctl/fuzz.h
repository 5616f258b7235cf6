/*
 * What the parts of the ioctl fuzzer share: the input as a source of choices, the descriptors that all threads work
 * on, and the memory of the guests.
 */
#ifndef QUMRA_TESTS_FUZZ_IOCTL_FUZZ_H
#define QUMRA_TESTS_FUZZ_IOCTL_FUZZ_H

#include <linux/kvm.h>
#include <pthread.h>

#include "lib/types.h"

/* fuzz.c: how often each row succeeded, and which exits there were. */
void fuzz_report(void);

/* ---- choices: the input's bytes while they last, then numbers that follow from them ---------- */

struct choices {
	const u8 *data;
	size_t left;
	u64 rng;
};
void choices_init(struct choices *c, const u8 *data, size_t n, u64 seed);
u32 below(struct choices *c, u32 n);
bool chance(struct choices *c, u32 percent);
/* Mostly small, single-bit and extreme numbers. */
u64 value(struct choices *c);

/* ---- descriptors ------------------------------------------------------------------------------ */

enum { NR_VMS = 2, NR_VCPUS = 6, NR_THREADS = 3, NR_MAPS = 64 };

/* -1: none. Any thread may exchange any of them at any time. */
struct pool {
	int sys;
	int vm[NR_VMS], vcpu[NR_VCPUS];
	int event[2];			/* eventfds */
	struct kvm_run *map[NR_MAPS];	/* stay until the input's end */
	u32 nr_maps;
};

/* ---- the guests' memory ----------------------------------------------------------------------- */

/*
 * Slots lie in [area, area + AREA_SIZE), whose protection changes; alias is the first AREA_RAM bytes once more,
 * always writable. The rest of the area is reserved and never accessible.
 */
#define AREA_SIZE	(64u << 20)
#define AREA_RAM	(2u << 20)
struct memory {
	u8 *area, *alias;
	int fd;
};
void memory_init(struct memory *m);
/* Code and tables for a new machine. */
void memory_program(struct memory *m, struct choices *c);
/* A change of protection, content or existence of some pages. */
void memory_disturb(struct memory *m, struct choices *c);
void memory_restore(struct memory *m);

/* ---- threads ---------------------------------------------------------------------------------- */

#define SCRATCH_SIZE	(64u << 10)

struct worker {
	struct choices c;
	struct pool *pool;
	struct memory *memory;
	u8 *scratch;		/* arguments; behind it a page that faults, then one that is read-only */
	pthread_t thread;
	const char *volatile doing;
	volatile u64 calls;
	volatile bool done;
};

/* args.c: an argument for the request: in the worker's scratch area, elsewhere, or a number. */
struct ioctl_row;
u64 arg_make(struct worker *w, const struct ioctl_row *row);
/* Registers of a mode that its code may run in. */
void arg_mode(struct worker *w, int vcpu);

#endif
