/* The fuzz target without libFuzzer: random accesses, most of them at registers that matter. screen-plain [inputs [seed]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u64 rng;

static u32 next(void)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return rng >> 32;
}

/* Index and value of a register in one write. */
static void make_register(u8 *p)
{
	static const u8 ports[] = { 0xC4 - 0xB0, 0xCE - 0xB0, 0xD4 - 0xB0 };
	static const u8 registers[] = { 5, 9, 25 };
	unsigned n = next() % 3;

	p[0] = 0x10;
	p[1] = ports[n];
	p[2] = p[3] = 0;
	p[4] = next() % registers[n];
}

/* Dispi: an index, then a value that makes a mode now and then. */
static void make_dispi(u8 *p)
{
	static const u16 values[] = { 0, 1, 0x41, 0xC1, 4, 8, 16, 24, 32, 640, 800, 1024, 2048, 0xFFFF, 600, 8192 };
	u16 value = next() & 3 ? values[next() % ARRAY_SIZE(values)] : next();

	p[0] = 5;
	p[1] = next() & 1;
	p[2] = p[3] = 0;
	if (!p[1])
		value = next() % 12;
	memcpy(p + 4, &value, 2);
}

static void make_access(u8 *p)
{
	for (unsigned i = 0; i < 8; i++)
		p[i] = next();
	switch (next() % 5) {
	case 0:
		make_register(p);
		break;
	case 1:
		make_dispi(p);
		break;
	case 2:	/* the picture on */
		p[0] = 0;
		p[1] = 0xC0 - 0xB0;
		p[2] = p[3] = 0;
		p[4] |= 0x20;
		break;
	}
}

int main(int argc, char **argv)
{
	static u8 buf[8 * 256];
	u64 inputs = argc > 1 ? strtoull(argv[1], NULL, 0) : 2000;

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
