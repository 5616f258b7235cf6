/* Random numbers, and random states of registers and memory for the sequences of gen.c. */
#include <string.h>

#include "tests/insn/host/host.h"

u64 rnd(struct random *r)
{
	u64 z = (r->s += 0x9e3779b97f4a7c15ULL);	/* SplitMix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static u64 random_value(struct random *r)
{
	u64 v = rnd(r);

	switch (rnd_below(r, 8)) {
	case 0: return v & 0xff;
	case 1: return (u64)(s64)(s8)v;
	case 2: return v & 0xffffffff;
	case 3: return 1ULL << (v & 63);
	case 4: return v & 1 ? 0 : ~0ULL;
	default: return v;
	}
}

/* Doubles and floats of every kind, as bit patterns. */
static u64 random_float_bits(struct random *r)
{
	static const u64 special[] = {0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000,
		0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000001, 0x7ff0000000000001, 1,
		0x000fffffffffffff, 0x3f8000003f800000, 0x7f8000007fc00001, 0xff8000007f800001,
		0x0000000100800000};
	u64 v = rnd(r);

	switch (rnd_below(r, 6)) {
	case 0: return special[rnd_below(r, ARRAY_SIZE(special))];
	case 1: return (v & 0x800fffffffffffff) | (u64)(0x3f0 + rnd_below(r, 32)) << 52;
	case 2: return (v & 0x807fffff807fffff) | (u64)(0x78 + rnd_below(r, 16)) << 55 |
		(u64)(0x78 + rnd_below(r, 16)) << 23;
	case 3: return random_value(r);
	default: return v;
	}
}

static void random_fill(void *p, size_t n, struct random *r)
{
	for (size_t k = 0; k < n; k += 8) {
		u64 v = rnd_chance(r, 60) ? random_float_bits(r) : random_value(r);

		memcpy((u8 *)p + k, &v, 8);
	}
}

static void random_st(u8 st[16], struct random *r)
{
	u64 frac = rnd(r) | BIT(63);
	u16 exp = (u16)(0x3fff - 40 + rnd_below(r, 80));

	memset(st, 0, 16);
	switch (rnd_below(r, 12)) {
	case 0: exp = 0; break;
	case 1: exp = 0x7fff; frac &= MASK(63, 62); break;
	case 2: frac = random_value(r); exp = (u16)rnd(r) & 0x7fff; break;
	case 3: exp = 0; frac = 0; break;
	}
	exp |= (u16)(rnd(r) & 0x8000);
	memcpy(st, &frac, 8);
	memcpy(st + 8, &exp, 2);
}

/* Some bits, all up to one, a byte's ... */
static u64 random_mask(struct random *r)
{
	u64 v = rnd(r);

	switch (rnd_below(r, 6)) {
	case 0: return v & rnd(r) & rnd(r);
	case 1: return BIT(v & 63) - 1;
	case 2: return v & 0xff;
	case 3: return random_value(r);
	default: return v;
	}
}

void gen_state(struct state *s, struct random *r, const struct sequence *q)
{
	struct fxsave_image *fx = &s->x.fx;

	memset(s, 0, sizeof(*s));
	for (int k = 0; k < 16; k++)
		s->r[k] = q->bits == 32 && k >= 8
				  ? 0
				  : random_value(r) & (q->bits == 32 ? 0xffffffff : ~0ULL);
	s->rip = q->start;
	s->cs = q->bits == 32 ? SEL_CODE32 : SEL_CODE64;
	s->rflags = 2 | (rnd(r) & (RFLAGS_ARITH | (rnd_chance(r, 20) ? RFLAGS_DF : 0)));
	fx->fcw = (u16)(0x7f | (rnd(r) & 0xf00));
	fx->fsw = (u16)(rnd(r) & 0x7f7f);
	fx->ftw = rnd_chance(r, 30) ? (u8)rnd(r) : 0;
	fx->mxcsr = 0x1f80 | ((u32)rnd(r) & 0xe07f);
	if (rnd_chance(r, 60))
		fx->mxcsr &= ~0xe040u;
	for (int k = 0; k < 8; k++)
		random_st(fx->st[k], r);
	random_fill(fx->xmm, sizeof(fx->xmm), r);
	random_fill(s->x.ymmh, sizeof(s->x.ymmh), r);
	s->x.xstate_bv = xstate_components;
	if (!(xstate_components & XCR0_AVX512))
		return;
	for (int k = 0; k < 8; k++)
		s->k[k] = random_mask(r);
	random_fill(s->zmmh, sizeof(s->zmmh), r);
	random_fill(s->zmm16, sizeof(s->zmm16), r);
}

void gen_memory(struct random *r)
{
	u32 *d = (u32 *)AREA_CONST;
	u64 *w = (u64 *)(AREA_CONST + 1024);

	for (int k = 0; k < 160; k++)
		d[k] = (u32)(rnd_below(r, 65) - 32);
	for (int k = 0; k < 80; k++)
		w[k] = (u64)(s64)(s32)(rnd_below(r, 65) - 32);
	for (int k = 0; k < CONST_MASKS; k++)
		((u64 *)AREA_MASKS)[k] = random_mask(r);
	random_fill((void *)AREA_DATA, DATA_SIZE, r);
}
