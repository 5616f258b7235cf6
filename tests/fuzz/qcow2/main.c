/*
 * The fuzz target without libFuzzer: good images of 512-byte clusters, spoiled at random from a seed;
 * or files given by name. fuzz-qcow2-plain [inputs [seed]] | fuzz-qcow2-plain FILE...
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/qcow2/image.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	u8 *data = malloc(1 << 24);
	size_t n = f && data ? fread(data, 1, 1 << 24, f) : 0;

	if (f)
		fclose(f);
	LLVMFuzzerTestOneInput(data, n);
	free(data);
	return f ? 0 : 1;
}

int main(int argc, char **argv)
{
	static u8 buf[INPUT_MOST] __attribute__((aligned(8)));
	char *end = NULL;
	u64 inputs = argc > 1 ? strtoull(argv[1], &end, 0) : 100000;
	u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	const char *keep = getenv("FUZZ_KEEP");	/* a file for the input under way */

	if (end && *end) {
		int ret = 0;

		for (int i = 1; i < argc; i++)
			ret |= run_file(argv[i]);
		return ret;
	}
	printf("seed %llu, %llu inputs\n", (unsigned long long)seed, (unsigned long long)inputs);
	for (u64 n = 0; n < inputs; n++) {
		size_t size = make_input(buf, &seed, &input_is_good);
		FILE *f = keep ? fopen(keep, "wb") : NULL;

		if (f) {
			fwrite(buf, 1, size, f);
			fclose(f);
		}
		LLVMFuzzerTestOneInput(buf, size);
	}
	return 0;
}
