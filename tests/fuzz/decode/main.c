/*
 * The fuzz target without libFuzzer: random inputs from a seed. fuzz-decode-plain [inputs [seed]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 next(u64 *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 24;
}

int main(int argc, char **argv)
{
	static const u8 starts[] = {0x0f, 0xc4, 0xc5, 0x66, 0xf2, 0xf3, 0x67, 0xf0, 0x48};
	u64 inputs = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
	u64 rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	u8 buf[64];

	printf("seed %llu, %llu inputs\n", (unsigned long long)rng, (unsigned long long)inputs);
	for (u64 n = 0; n < inputs; n++) {
		size_t size = next(&rng) % sizeof(buf);

		for (size_t k = 0; k < sizeof(buf); k++)
			buf[k] = (u8)next(&rng);
		for (size_t k = 1; k < 4 && next(&rng) % 2; k++)
			buf[k] = starts[next(&rng) % sizeof(starts)];
		LLVMFuzzerTestOneInput(buf, size);
	}
	return 0;
}
