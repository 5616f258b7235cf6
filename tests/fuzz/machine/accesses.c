/* Random accesses for the plain fuzz target, half of them near what there is. */
#include <string.h>

#include "tests/fuzz/accesses.h"

/* The VGA is on, or its memory is placed: over RAM, where devices are, or at the end of both. */
static void place_vga(u8 *p)
{
	static const u32 bases[] = { 0x1000000, 0xC0000000, 0xFF000000 };
	u32 value = next() % 3 ? bases[next() % ARRAY_SIZE(bases)] : 7;

	memcpy(p, (u8[]){ 0, 2, 0x18, value == 7 ? 0x04 : 0x10 }, 4);
	memcpy(p + 4, &value, 4);
}

/* Registers of consequence, and values that place things. */
void make_access(u8 *p)
{
	static const u8 registers[] = { 0x04, 0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x28, 0x2C, 0x30,
		0x3E, 0x40, 0x42, 0x44, 0x60, 0x64, 0x68, 0x90, 0xF0 };
	static const u8 slots[] = { 0x00, 0x08, 0x10, 0x18, 0xF8 };
	static const u32 values[] = { 0, ~0U, 0x7, 0xB0000001, 0xC0000000, 0xC0004000, 0xE0000001,
		0xFFC00000, 0x601, 0x80, 0x00060100, 0x00020201, 0xC010C010, 0x8000, 0xC000, 0xCF8, 0x200000 };
	u32 value = next() & 1 ? values[next() % ARRAY_SIZE(values)] : next();

	for (unsigned i = 0; i < 4; i++)
		p[i] = next();
	if ((p[0] & 7) < 2 && next() & 1) {
		p[2] = slots[next() % ARRAY_SIZE(slots)];
		p[3] = registers[next() % ARRAY_SIZE(registers)];
		p[1] |= 2;
	}
	memcpy(p + 4, &value, 4);
	if (next() % 16 == 0)
		place_vga(p);
}
