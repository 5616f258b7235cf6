/*
 * Byte strings to decode: wholly random, random behind a random opcode, and encodings of a random
 * row.
 */
#include <pthread.h>
#include <string.h>

#include "tests/insn/decode/decode.h"

static u16 rows[1 << 14];
static unsigned int nr_rows;
static struct opcode_where where[1 << 14];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void rows_collect(void)
{
	for (unsigned int i = 0; i < opcode_rows(); i++)
		if (opcode_row(i) && opcode_where(i, &where[nr_rows]))
			rows[nr_rows++] = (u16)i;
}

static unsigned int pick(u64 *rng, unsigned int n)
{
	return (unsigned int)((random_next(rng) >> 33) % n);
}

static void bytes_random(u64 *rng, u8 *p)
{
	for (unsigned int i = 0; i < STRING_SIZE; i += 8) {
		u64 x = random_next(rng);

		memcpy(p + i, &x, 8);
	}
}

static u8 *put_prefixes(u64 *rng, unsigned int code, u8 *p)
{
	static const u8 legacy[] = {
		0x66, 0x66, 0x67, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0};
	unsigned int n = pick(rng, 8);

	for (n = n < 4 ? 0 : n < 6 ? 1 : n - 5; n; n--)
		*p++ = legacy[pick(rng, sizeof(legacy))];
	if (code == 8 && pick(rng, 2))
		*p++ = (u8)(0x40 + pick(rng, 16));
	return p;
}

static void opcode_random(u64 *rng, unsigned int code, u8 *p)
{
	p = put_prefixes(rng, code, p);
	switch (pick(rng, 8)) {
	case 0: *p++ = 0x0f; break;
	case 1:
		*p++ = 0x0f;
		*p++ = 0x38;
		break;
	case 2:
		*p++ = 0x0f;
		*p++ = 0x3a;
		break;
	case 3: *p++ = 0xc5; break;
	case 4:
		*p++ = 0xc4;
		p[0] = (u8)((p[0] & 0xe0) | (1 + pick(rng, 3)));
		break;
	case 5:
		*p++ = 0x62;
		p[0] = (u8)((p[0] & 0xf0) | (1 + pick(rng, 3)));
		p[1] |= 4;
		break;
	}
}

static bool uses_vvvv(const struct opcode *row)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->op); k++)
		if (row->op[k] && operand_info[row->op[k]].place == PL_VVVV)
			return true;
	return false;
}

static u8 *put_vex(
	u64 *rng, unsigned int code, const struct opcode *row, const struct opcode_where *w, u8 *p)
{
	unsigned int map = w->map - MAP_VEX1 + 1;
	u8 vvvv = uses_vvvv(row) ? (u8)pick(rng, 16) : 15;
	u8 wbit = w->w >= 0 ? (u8)w->w : row->attr & ATTR_W0 ? 0 : row->attr & ATTR_W1 ? 1 : (u8)pick(rng, 2);
	u8 lbit = row->attr & ATTR_L0 ? 0 : row->attr & ATTR_L1 ? 1 : (u8)pick(rng, 2);
	u8 last = (u8)(vvvv << 3 | lbit << 2 | w->pfx);
	u8 rxb = code == 8 ? (u8)pick(rng, 8) : 7;

	/* OPC_F3 and OPC_F2 are 2 and 3 in VEX.pp as well. */
	if (map == 1 && !wbit && pick(rng, 2)) {
		*p++ = 0xc5;
		*p++ = (u8)(last | (rxb & 4 ? 0x80 : 0) | (code == 8 ? 0 : 0xc0));
		return p;
	}
	*p++ = 0xc4;
	*p++ = (u8)(rxb << 5 | map);
	*p++ = (u8)(last | wbit << 7);
	return p;
}

/* Mostly what the row allows: prefix bytes with a field that is wrong are for opcode_random(). */
static u8 *put_evex(
	u64 *rng, unsigned int code, const struct opcode *row, const struct opcode_where *w, u8 *p)
{
	u8 vvvv = uses_vvvv(row) ? (u8)pick(rng, 32) : 31;
	u8 k = row->evex & EV_NOK ? 0 : pick(rng, 4) ? (u8)pick(rng, 8) : 0;
	bool mask = row->op[0] == OP_KG, gpr = operand_info[row->op[0]].class == CL_GPR;
	u8 rxb = code == 8 ? (u8)pick(rng, 16) : 0x0d | (u8)pick(rng, 4);

	if (code != 8)
		vvvv |= 16;
	if (mask || (gpr && pick(rng, 2)))
		rxb |= 9;
	*p++ = 0x62;
	*p++ = (u8)(rxb << 4 | (w->map - MAP_EVEX1 + 1));
	*p++ = (u8)(w->w << 7 | (vvvv & 15) << 3 | 4 | w->pfx);
	*p++ = (u8)((k && pick(rng, 2)) << 7 | pick(rng, 3) << 5 | !pick(rng, 4) << 4 |
		(vvvv & 16) >> 1 | k);
	return p;
}

static u8 *put_legacy(u64 *rng, unsigned int code, const struct opcode_where *w, u8 *p)
{
	static const u8 mandatory[] = {0, 0x66, 0xf3, 0xf2};

	if (w->pfx)
		*p++ = mandatory[w->pfx];
	if (code == 8 && pick(rng, 2))
		*p++ = (u8)(0x40 + pick(rng, 16));
	if (w->map != MAP_1)
		*p++ = 0x0f;
	if (w->map == MAP_0F38 || w->map == MAP_0F3A)
		*p++ = w->map == MAP_0F38 ? 0x38 : 0x3a;
	return p;
}

/* The bytes behind stay random: ModRM with its extension bits, displacement, immediate. */
static void row_random(u64 *rng, unsigned int code, u8 *p)
{
	static const u8 harmless[] = {0x66, 0x67, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0};
	unsigned int n = pick(rng, nr_rows);
	const struct opcode_where *w = &where[n];
	const struct opcode *row = opcode_row(rows[n]);

	if (!pick(rng, 4))
		*p++ = harmless[pick(rng, sizeof(harmless))];
	if (w->map >= MAP_EVEX1)
		p = put_evex(rng, code, row, w, p);
	else if (w->map >= MAP_VEX1)
		p = put_vex(rng, code, row, w, p);
	else
		p = put_legacy(rng, code, w, p);
	*p++ = w->opcode;
	if (w->ext >= 0)
		*p = (u8)((*p & 0xc7) | w->ext << 3);
	if (w->rm >= 0)
		*p = (u8)((*p & 0xf8) | w->rm);
	if (w->mod == 3)
		*p |= 0xc0;
	else if (w->mod == 0 && *p >= 0xc0)
		*p &= (u8)(0x3f | pick(rng, 2) << 7);
}

void generate(u64 *rng, unsigned int code, u8 *bytes)
{
	pthread_once(&once, rows_collect);
	bytes_random(rng, bytes);
	switch (pick(rng, 4)) {
	case 0: break;
	case 1: opcode_random(rng, code, bytes); break;
	default: row_random(rng, code, bytes); break;
	}
}
