/*
 * State components beyond AVX: which there are, and where they lie in an XSAVE image (the guests' images
 * have the host's layout). SDM 1 13.5
 */
#include <cpuid.h>
#include <stddef.h>
#include <string.h>

#include "tests/insn/host/host.h"

u64 xstate_components = XCR0_X87 | XCR0_SSE | XCR0_AVX;

static u32 offset[8];

void xstate_setup(void)
{
	u32 a, b, c, d;

	__cpuid_count(7, 0, a, b, c, d);
	if (!(b & BIT(16)) || !(b & BIT(30)))
		return;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	if ((a & XCR0_AVX512) != XCR0_AVX512)
		return;
	for (u32 k = XSTATE_OPMASK; k <= XSTATE_HI16_ZMM; k++)
		__cpuid_count(0xd, k, a, offset[k], c, d);
	xstate_components |= XCR0_AVX512;
}

void xstate_put(void *area, const struct state *s)
{
	/* By bytes: in a signal's frame it need not lie as the type would have it. */
	memcpy((u8 *)area + offsetof(struct xsave_image, ymmh), s->x.ymmh, sizeof(s->x.ymmh));
	memcpy((u8 *)area + offsetof(struct xsave_image, xstate_bv), &xstate_components,
		sizeof(xstate_components));
	if (!(xstate_components & XCR0_AVX512))
		return;
	memcpy((u8 *)area + offset[XSTATE_OPMASK], s->k, sizeof(s->k));
	memcpy((u8 *)area + offset[XSTATE_ZMM_HI256], s->zmmh, sizeof(s->zmmh));
	memcpy((u8 *)area + offset[XSTATE_HI16_ZMM], s->zmm16, sizeof(s->zmm16));
}

void xstate_get(const void *area, struct state *s)
{
	memcpy(&s->x, area, sizeof(s->x));
	memset(s->k, 0, sizeof(s->k));
	memset(s->zmmh, 0, sizeof(s->zmmh));
	memset(s->zmm16, 0, sizeof(s->zmm16));
	if (!(xstate_components & XCR0_AVX512))
		return;
	memcpy(s->k, (const u8 *)area + offset[XSTATE_OPMASK], sizeof(s->k));
	memcpy(s->zmmh, (const u8 *)area + offset[XSTATE_ZMM_HI256], sizeof(s->zmmh));
	memcpy(s->zmm16, (const u8 *)area + offset[XSTATE_HI16_ZMM], sizeof(s->zmm16));
}

bool xstate_equal(const struct state *a, const struct state *b, unsigned int n)
{
	return !memcmp(a->x.fx.xmm, b->x.fx.xmm, n * 16) && !memcmp(a->x.ymmh, b->x.ymmh, n * 16) &&
		!memcmp(a->zmmh, b->zmmh, n * 32) && !memcmp(a->zmm16, b->zmm16, sizeof(a->zmm16)) &&
		!memcmp(a->k, b->k, sizeof(a->k));
}

void xstate_differences(const struct state *a, const struct state *b, unsigned int n,
	void (*show)(void *arg, const char *name, unsigned int k, const u8 *a, const u8 *b,
		unsigned int bytes), void *arg)
{
	for (unsigned int k = 0; k < n; k++) {
		show(arg, "xmm", k, a->x.fx.xmm[k], b->x.fx.xmm[k], 16);
		show(arg, "ymmh", k, a->x.ymmh[k], b->x.ymmh[k], 16);
		show(arg, "zmmh", k, a->zmmh[k], b->zmmh[k], 32);
	}
	for (unsigned int k = 0; k < 16; k++)
		show(arg, "zmm", k + 16, a->zmm16[k], b->zmm16[k], 64);
	for (unsigned int k = 0; k < 8; k++)
		show(arg, "k", k, (const u8 *)&a->k[k], (const u8 *)&b->k[k], 8);
}
