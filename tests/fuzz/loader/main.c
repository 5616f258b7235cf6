/*
 * The fuzz target without libFuzzer: good kernels, spoiled at random from a seed; or files given by
 * name. fuzz-loader-plain [inputs [seed]] | fuzz-loader-plain FILE...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/types.h"
#include "tests/device/kernels.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 rng;

static u32 next(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 32;
}

/* Values on which arithmetic goes wrong. */
static u64 nasty(void)
{
	static const u64 values[] = {
		0,
		1,
		0xFF,
		0x1000,
		0x9FFFF,
		0xA0000,
		0xC0000,
		0x100000,
		0x7FFFFFFF,
		0x80000000,
		0xBFFFFFFF,
		0xFFFFFFFF,
		0x100000000,
		0x7FFFFFFFFFFFFFFF,
		0x8000000000000000,
		~0ULL,
		~0ULL - 4095,
	};

	return values[next() % ARRAY_SIZE(values)] + (next() & 1 ? next() % 17 - 8ULL : 0);
}

static size_t make_input(u8 *buf)
{
	size_t size, headers;
	struct elf_file elf;

	buf[0] = next();
	buf[1] = next() & 1 ? next() : 0;
	if (next() & 1) {
		make_elf(&elf);
		memcpy(buf + 2, &elf, sizeof(elf));
		size = sizeof(elf);
		headers = offsetof(struct elf_file, text);
	} else {
		size = make_bzimage(buf + 2, next() % 8, 0x200 + next() % 16, next() & 1);
		headers = 0x280;
	}
	for (u32 n = next() % 6; n; n--) {
		u64 value = next() & 1 ? nasty() : next();
		size_t at = next() % headers;

		memcpy(buf + 2 + at, &value, 1u << next() % 4);
	}
	return 2 + (next() % 4 ? size : next() % size);
}

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
	static u8 buf[32768];
	char *end = NULL;
	u64 inputs = argc > 1 ? strtoull(argv[1], &end, 0) : 200000;

	if (end && *end) {
		int ret = 0;

		for (int i = 1; i < argc; i++)
			ret |= run_file(argv[i]);
		return ret;
	}
	rng = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	printf("seed %llu, %llu inputs\n", (unsigned long long)rng, (unsigned long long)inputs);
	for (u64 n = 0; n < inputs; n++) {
		size_t size = make_input(buf);

		LLVMFuzzerTestOneInput(buf, size);
	}
	return 0;
}
