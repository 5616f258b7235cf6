/* Hostile code and values for the fuzzer. */
#ifndef QUMRA_TESTS_HOSTILE_GEN_H
#define QUMRA_TESTS_HOSTILE_GEN_H

#include "tests/hostile/hostile.h"

/* Linear addresses of the guest that mean something. */
struct places {
	u64 page[64];
	unsigned int n;
	u64 edge[16];	/* pages at the end of their slot */
	unsigned int n_edges;
	u64 code;
	u32 code_size;
};

struct code {
	u8 *p;
	unsigned int len, size;
	unsigned int bits;	/* 16, 32 or 64 */
	struct random *r;
	const struct places *places;
};

void gen_setup(void);
void gen_code(struct code *c);
u64 hostile_value(struct random *r, const struct places *p);

#endif
