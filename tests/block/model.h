/* A disk in memory, and the same operations on it and on an image. */
#ifndef QUMRA_TESTS_BLOCK_MODEL_H
#define QUMRA_TESTS_BLOCK_MODEL_H

#include "tests/block/fixture.h"

struct model {
	u8 *data, *buf;
	bool *undefined;	/* by sectors of 512: discarded, not written since */
	u64 size, seed;
};

void model_init(struct model *m, u64 size, u64 seed);
void model_free(struct model *m);
/* The image's contents, as they are when it is first opened. */
void model_load(struct model *m, struct block *b);
/* Random operations with checks. */
void model_run(struct model *m, struct block *b, int rounds);
/* All of it is the same; what is undefined is taken over. */
void model_check(struct model *m, struct block *b);
/* The disk becomes larger; what is new are zeroes. */
void model_grow(struct model *m, u64 size);
/* Into a raw file. */
void model_save(const struct model *m, const char *name);

#endif
