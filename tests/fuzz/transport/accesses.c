/* Random accesses for the plain fuzz target: registers of consequence, values that mean something. */
#include <string.h>

#include "tests/fuzz/accesses.h"

void make_access(u8 *p)
{
	static const u8 status[] = { 0, 1, 3, 11, 15, 0x80, 0x8F, 4 };
	static const u8 common[] = { 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x16, 0x18, 0x1A, 0x1C, 0x20,
		0x24, 0x28, 0x2C, 0x30, 0x34 };
	static const u8 widths[] = { 2, 2, 2, 2, 1, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2 };
	static const u8 mmio[] = { 0x10, 0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80,
		0x84, 0x90, 0x94, 0xA0, 0xA4, 0xFC };
	u32 value = next() & 1 ? next() % 5 : next(), i;

	for (i = 0; i < 4; i++)
		p[i] = next();
	if ((p[0] & 15) > 10 && next() & 3) {
		i = next() % ARRAY_SIZE(common);
		p[2] = p[0] & 32 ? common[i] : mmio[next() % ARRAY_SIZE(mmio)];
		p[1] = p[0] & 32 ? widths[i] : 2;
		p[3] = 0;
		if (p[2] == 0x14 || p[2] == 0x70)
			value = status[next() % ARRAY_SIZE(status)];
	}
	memcpy(p + 4, &value, 4);
}
