/*
 * Where state components lie, in layouts other than this host's, and single vector registers in them. SDM 1 13.4;
 * Intel's offsets are those of processors with MPX.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/x86/cpuid.h"
#include "hypervisor/x86/fpu.h"
#include "hypervisor/x86/regs.h"

#define ALL	(XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512)

static const struct xsave_layout intel = {
	.offset = { [XSTATE_SSE] = 160, [XSTATE_AVX] = 576, [XSTATE_OPMASK] = 1088, [XSTATE_ZMM_HI256] = 1152,
		[XSTATE_HI16_ZMM] = 1664 },
	.size = { [XSTATE_SSE] = 256, [XSTATE_AVX] = 256, [XSTATE_OPMASK] = 64, [XSTATE_ZMM_HI256] = 512,
		[XSTATE_HI16_ZMM] = 1024 },
};

static void standard_form(void **state)
{
	assert_int_equal(xsave_size(&intel, 0, false), 576);
	assert_int_equal(xsave_size(&intel, XCR0_X87 | XCR0_SSE, false), 576);
	assert_int_equal(xsave_size(&intel, XCR0_AVX, false), 832);
	assert_int_equal(xsave_size(&intel, XCR0_OPMASK, false), 1152);
	assert_int_equal(xsave_size(&intel, ALL, false), FPU_AREA);
	assert_int_equal(xsave_offset(&intel, XSTATE_HI16_ZMM, 0), 1664);
}

static void compacted_form(void **state)
{
	assert_int_equal(xsave_size(&intel, 0, true), 576);
	assert_int_equal(xsave_size(&intel, ALL, true), 576 + 256 + 64 + 512 + 1024);
	assert_int_equal(xsave_size(&intel, XCR0_HI16_ZMM, true), 576 + 1024);
	assert_int_equal(xsave_offset(&intel, XSTATE_HI16_ZMM, XCR0_HI16_ZMM | XCR0_OPMASK), 576 + 64);
	/* What a component lies at does not depend on those behind it. */
	assert_int_equal(xsave_offset(&intel, XSTATE_OPMASK, ALL), 576 + 256);
}

/* Of a layout with odd sizes, the component is put at the next 64 bytes only if it is to be aligned. */
static void alignment(void **state)
{
	struct xsave_layout l = intel;

	l.size[XSTATE_OPMASK] = 40;
	assert_int_equal(xsave_offset(&l, XSTATE_ZMM_HI256, ALL), 576 + 256 + 40);
	l.aligned = XCR0_ZMM_HI256;
	assert_int_equal(xsave_offset(&l, XSTATE_ZMM_HI256, ALL), 576 + 256 + 64);
	assert_int_equal(xsave_size(&l, XCR0_OPMASK | XCR0_ZMM_HI256, true), 576 + 64 + 512);
	/* One that is not there aligns nothing. */
	assert_int_equal(xsave_offset(&l, XSTATE_HI16_ZMM, XCR0_OPMASK | XCR0_HI16_ZMM), 576 + 40);
}

/* Of this process: what the kernel has turned on, where the processor says. */
static void host(void **state)
{
	struct xsave_layout l;
	u32 r[4];

	xsave_layout_read(&l, fpu_host_xcr0());
	if (!(fpu_host_xcr0() & XCR0_AVX512))
		skip();
	for (unsigned int k = XSTATE_AVX; k < NR_XSTATES; k++) {
		if (!(ALL >> k & 1))
			continue;
		os_cpuid(0xd, k, r);
		assert_int_equal(l.size[k], r[0]);
		assert_int_equal(l.offset[k], r[1]);
	}
}

static struct fpu *fpu_new(void)
{
	struct fpu *f = aligned_alloc(64, ALIGN_UP(sizeof(*f), (size_t)64));

	assert_non_null(f);
	memset(f, 0, sizeof(*f));
	f->layout = intel;
	return f;
}

static void pattern(u8 out[64], unsigned int n)
{
	for (unsigned int k = 0; k < 64; k++)
		out[k] = (u8)(n * 64 + k * 5 + 1);
}

static void registers(void **state)
{
	struct fpu *f = fpu_new();
	u8 in[64], out[64], zero[64] = { 0 };

	for (unsigned int n = 0; n < 32; n++) {
		pattern(in, n);
		vec_put(f, n, in, 64);
	}
	for (unsigned int n = 0; n < 8; n++)
		mask_put(f, n, 0x0123456789abcdefULL * (n + 1));
	for (unsigned int n = 0; n < 32; n++) {
		pattern(in, n);
		vec_get(f, n, out);
		assert_memory_equal(in, out, 64);
	}
	for (unsigned int n = 0; n < 8; n++)
		assert_true(mask_get(f, n) == 0x0123456789abcdefULL * (n + 1));
	pattern(in, 3);
	assert_memory_equal(f->area + 160 + 48, in, 16);
	assert_memory_equal(f->area + 576 + 48, in + 16, 16);
	assert_memory_equal(f->area + 1152 + 96, in + 32, 32);
	pattern(in, 19);
	assert_memory_equal(f->area + 1664 + 3 * 64, in, 64);
	/* Shorter ones clear the rest. */
	for (unsigned int bytes = 16; bytes < 64; bytes += 16) {
		vec_put(f, 3, in, bytes);
		vec_put(f, 19, in, bytes);
		vec_get(f, 3, out);
		assert_memory_equal(out, in, bytes);
		assert_memory_equal(out + bytes, zero, 64 - bytes);
		vec_get(f, 19, out);
		assert_memory_equal(out, in, bytes);
		assert_memory_equal(out + bytes, zero, 64 - bytes);
	}
	free(f);
}

/* XINUSE: only of what was written. */
static void in_use(void **state)
{
	struct fpu *f = fpu_new();
	u8 in[64];

	pattern(in, 1);
	vec_put(f, 1, in, 32);
	assert_int_equal(f->image.xstate_bv, XCR0_SSE | XCR0_AVX);
	mask_put(f, 1, 1);
	assert_int_equal(f->image.xstate_bv, XCR0_SSE | XCR0_AVX | XCR0_OPMASK);
	vec_put(f, 1, in, 64);
	assert_int_equal(f->image.xstate_bv, XCR0_SSE | XCR0_AVX | XCR0_OPMASK | XCR0_ZMM_HI256);
	vec_put(f, 16, in, 16);
	assert_int_equal(f->image.xstate_bv, ALL & ~XCR0_X87);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(standard_form), cmocka_unit_test(compacted_form), cmocka_unit_test(alignment),
		cmocka_unit_test(host), cmocka_unit_test(registers), cmocka_unit_test(in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
