/*
 * A fuzz target without libFuzzer: inputs of random accesses from a seed. NAME-plain [inputs [seed]]
 * Of the target, from its meson.build: INPUTS, how many by default.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/accesses.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 rng;

u32 next(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 32;
}

int main(int argc, char **argv)
{
	static u8 buf[8 * 256];
	u64 inputs = argc > 1 ? strtoull(argv[1], NULL, 0) : INPUTS;

	rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	printf("seed %llu, %llu inputs\n", (unsigned long long)rng, (unsigned long long)inputs);
	for (u64 n = 0; n < inputs; n++) {
		unsigned accesses = 1 + next() % 256;

		for (unsigned i = 0; i < accesses; i++)
			make_access(buf + 8 * i);
		LLVMFuzzerTestOneInput(buf, 8 * accesses);
	}
	return 0;
}
