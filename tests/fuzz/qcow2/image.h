/* Inputs of the qcow2 fuzz target: operations, then an image file. */
#ifndef QUMRA_TESTS_FUZZ_QCOW2_IMAGE_H
#define QUMRA_TESTS_FUZZ_QCOW2_IMAGE_H

#include "lib/types.h"

#define OPERATIONS 32		/* bytes of input; 3 an operation, after the first byte */
#define INPUT_MOST 6144

/* A good image, or one with a few fields spoiled. Steps the seed. */
size_t make_input(u8 *buf, u64 *seed, bool *good);

/* Set for an input that is known to be good. */
extern bool input_is_good;

#endif
