/*
 * A fuzz target without libFuzzer: random inputs from a seed. fuzz-NAME-plain [inputs [seed]]
 * Of the target, from its meson.build: INPUTS, how many by default; INPUT_MAX, bytes of the longest.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int main(int argc, char **argv)
{
	u64 inputs = argc > 1 ? strtoull(argv[1], NULL, 0) : INPUTS;
	u64 rng = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1) * 2 + 1;
	u8 data[INPUT_MAX];

	for (u64 i = 0; i < inputs; i++) {
		for (size_t k = 0; k < sizeof(data); k++) {
			rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
			data[k] = rng >> 40;
		}
		LLVMFuzzerTestOneInput(data, 20 + (rng >> 33) % (sizeof(data) - 20));
	}
	printf("%llu inputs\n", (unsigned long long)inputs);
	return 0;
}
