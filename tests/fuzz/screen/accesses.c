/* Random accesses for the plain fuzz target, most of them at registers that matter. */
#include <string.h>

#include "tests/fuzz/accesses.h"

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

void make_access(u8 *p)
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
