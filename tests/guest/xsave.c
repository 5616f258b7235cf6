/* FXSAVE, XSAVE and their relatives; CR0.TS and EM; XCR0. SDM 1 chapter 13, 1 10.5. */
#include "guest.h"

static u8 area[4096] __attribute__((aligned(64))), other[4096] __attribute__((aligned(64)));
static u8 image[16] __attribute__((aligned(16))), back[16] __attribute__((aligned(16)));

static void load_xmm(u8 seed)
{
	int i;

	for (i = 0; i < 16; i++)
		image[i] = seed + i;
	asm volatile("movdqa (%0), %%xmm3" :: "r"(image));
}

static bool xmm_is(u8 seed)
{
	int i;

	asm volatile("movdqa %%xmm3, (%0)" :: "r"(back) : "memory");
	for (i = 0; i < 16; i++)
		if (back[i] != (u8)(seed + i))
			return false;
	return true;
}

static void fxsave(void)
{
	u32 mask;

	group("FXSAVE");
	memset(area, 0xee, 512);
	asm volatile("fninit; fld1; fldpi" :::);
	load_xmm(0x10);
	asm volatile("fxsave64 (%0)" :: "r"(area) : "memory");
	expect("FCW", *(u16 *)area, 0x37f);
	expect("TOP in FSW", *(u16 *)(area + 2) >> 11 & 7, 6);
	expect("abridged tag word", area[4], 0xc0);
	mask = *(u32 *)(area + 28);
	check(mask == 0xffff || mask == 0x2ffff, "MXCSR_MASK %x", mask);
	expect("MXCSR", *(u32 *)(area + 24), 0x1f80);
	expect("ST0 is pi", *(u64 *)(area + 32), 0xc90fdaa22168c235ull);
	expect("XMM3", area[160 + 48 + 5], 0x15);
	expect("bytes 464 to 511 are the program's", area[464] << 8 | area[511], 0xeeee);
	load_xmm(0x70);
	asm volatile("fninit; fxrstor64 (%0)" :: "r"(area) : "memory");
	check(xmm_is(0x10), "FXRSTOR brings XMM3 back");
	asm volatile("fnsave (%0)" :: "r"(other) : "memory");
	expect("and the x87 stack", *(u16 *)(other + 4) >> 11 & 7, 6);
	expect_fault("misaligned", GP, 0, asm volatile("fxsave (%0)" :: "r"(area + 8) : "memory"));
	expect_fault("misaligned restore", GP, 0, asm volatile("fxrstor (%0)" :: "r"(area + 4) : "memory"));
	*(u32 *)(area + 24) = 0x10000;
	expect_fault("reserved MXCSR bits", GP, 0, asm volatile("fxrstor (%0)" :: "r"(area) : "memory"));
	*(u32 *)(area + 24) = 0x1f80;
	write_cr0(read_cr0() | CR0_TS);
	expect_fault("under TS", NM, 0, asm volatile("fxsave (%0)" :: "r"(area) : "memory"));
	expect_fault("restore under TS", NM, 0, asm volatile("fxrstor (%0)" :: "r"(area) : "memory"));
	write_cr0((read_cr0() & ~CR0_TS) | CR0_EM);
	expect_fault("under EM", NM, 0, asm volatile("fxsave (%0)" :: "r"(area) : "memory"));
	write_cr0(read_cr0() & ~CR0_EM);
}

static int xsetbv(u32 index, u64 v)
{
	return catch(asm volatile("xsetbv" :: "c"(index), "a"((u32)v), "d"((u32)(v >> 32))));
}

static u64 xgetbv(void)
{
	u32 lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (u64)hi << 32 | lo;
}

static void xcr0(void)
{
	u64 all = cpuid(0xd, 0).eax;

	group("XCR0");
	expect_fault("xgetbv without OSXSAVE", UD, 0, xgetbv());
	expect_fault("xsave without OSXSAVE", UD, 0, asm volatile("xsave (%0)" :: "r"(area), "a"(0), "d"(0) : "memory"));
	write_cr4(read_cr4() | CR4_OSXSAVE);
	expect("at reset", xgetbv(), 1);
	expect_vector("x87 cleared", xsetbv(0, 2), GP, 0);
	expect_vector("AVX without SSE", xsetbv(0, 5), GP, 0);
	expect_vector("unknown bits", xsetbv(0, 3 | BIT(60)), GP, 0);
	expect_vector("XCR1", xsetbv(1, 1), GP, 0);
	expect_vector("all that CPUID shows", xsetbv(0, all), NONE, 0);
	expect("reads back", xgetbv(), all);
	if (all & 4)
		expect_ok("AVX works", asm volatile("vxorps %ymm1, %ymm1, %ymm1"));
	xsetbv(0, 3);
	expect_fault("AVX without its XCR0 bit", UD, 0, asm volatile("vxorps %ymm1, %ymm1, %ymm1"));
	expect_fault("VEX of 128 bits too", UD, 0, asm volatile("vxorps %xmm1, %xmm1, %xmm1"));
	expect_ok("SSE is not touched", asm volatile("xorps %xmm1, %xmm1"));
	xsetbv(0, all);
	expect_fault("xgetbv of 2", GP, 0, asm volatile("xgetbv" :: "c"(2) : "rax", "rdx"));
}

#define XSAVE(insn, p, mask) asm volatile(insn " (%0)" :: "r"(p), "a"((u32)(mask)), "d"(0) : "memory")

static void xsave(void)
{
	u64 all = xgetbv();
	u64 *header = (u64 *)(area + 512);

	group("XSAVE");
	memset(area, 0, sizeof(area));
	load_xmm(0x20);
	XSAVE("xsave64", area, 7);
	expect("XSTATE_BV", header[0] & 2, 2);
	expect("XMM3", area[160 + 48 + 1], 0x21);
	load_xmm(0x60);
	XSAVE("xrstor64", area, 7);
	check(xmm_is(0x20), "XRSTOR brings XMM3 back");
	load_xmm(0x60);
	XSAVE("xrstor64", area, 1);
	check(xmm_is(0x60), "a component not asked for stays");
	header[0] = 0;
	XSAVE("xrstor64", area, 2);
	{
		static const u8 zero[16];

		asm volatile("movdqa %%xmm3, (%0)" :: "r"(back) : "memory");
		check(!memcmp(back, zero, 16), "a clear XSTATE_BV bit initializes");
	}
	header[0] = 3;
	memset(area + 512 + 8, 0, 56);
	header[0] |= BIT(40);
	expect_fault("XSTATE_BV beyond XCR0", GP, 0, XSAVE("xrstor64", area, 7));
	header[0] = 3;
	header[2] = 1;
	expect_fault("reserved header bytes", GP, 0, XSAVE("xrstor64", area, 7));
	header[2] = 0;
	header[1] = 1;
	expect_fault("XCOMP_BV without bit 63", GP, 0, XSAVE("xrstor64", area, 7));
	header[1] = 0;
	expect_fault("misaligned", GP, 0, XSAVE("xsave", area + 16, 7));
	if (all & 4) {
		u32 off = cpuid(0xd, 2).ebx;

		asm volatile("vpcmpeqd %ymm3, %ymm3, %ymm3");
		XSAVE("xsave64", area, 7);
		expect("XSTATE_BV with AVX", header[0] & 4, 4);
		expect("upper half of YMM3", *(u64 *)(area + off + 48), -1ull);
		asm volatile("vzeroall");
		XSAVE("xrstor64", area, 4);
		asm volatile("vextracti128 $1, %%ymm3, %%xmm4; movdqa %%xmm4, (%0)" :: "r"(back) : "memory");
		expect("restored", *(u64 *)back, -1ull);
		asm volatile("vpcmpeqd %ymm3, %ymm3, %ymm3; vpxor %xmm3, %xmm3, %xmm3;");
		asm volatile("vextracti128 $1, %%ymm3, %%xmm4; movdqa %%xmm4, (%0)" :: "r"(back) : "memory");
		expect("VEX of 128 bits clears the upper half", *(u64 *)back, 0);
		asm volatile("vpcmpeqd %ymm3, %ymm3, %ymm3; pxor %xmm3, %xmm3");
		asm volatile("vextracti128 $1, %%ymm3, %%xmm4; movdqa %%xmm4, (%0)" :: "r"(back) : "memory");
		expect("SSE keeps the upper half", *(u64 *)back, -1ull);
		asm volatile("vzeroupper");
	}
	write_cr0(read_cr0() | CR0_TS);
	expect_fault("under TS", NM, 0, XSAVE("xsave", area, 7));
	if (all & 4)
		expect_fault("AVX under TS", NM, 0, asm volatile("vxorps %xmm1, %xmm1, %xmm1"));
	write_cr0(read_cr0() & ~CR0_TS);
	if (cpuid(0xd, 1).eax & BIT(1)) {
		memset(area, 0, sizeof(area));
		asm volatile("vzeroall");
		load_xmm(0x40);
		XSAVE("xsavec64", area, 7);
		expect("XSAVEC: compact format", header[1] >> 63, 1);
		expect("XSAVEC: what is in its initial state is left out", header[0] & 4, 0);
		load_xmm(0x60);
		XSAVE("xrstor64", area, 7);
		check(xmm_is(0x40), "XRSTOR of the compact format");
	} else {
		skip("XSAVEC", "not in CPUID");
	}
}

/* ---- AVX-512 ---- */

#define OPMASK		BIT(5)
#define ZMM_HI256	BIT(6)
#define HI16_ZMM	BIT(7)
#define AVX512		(OPMASK | ZMM_HI256 | HI16_ZMM)

static u32 offset_of(u32 component) { return cpuid(0xd, component).ebx; }

/* Components of the compacted form before this one. */
static u32 compact_offset(u64 components, u32 component)
{
	u32 at = 576, i;

	for (i = 2; i < component; i++)
		if (components & BIT(i))
			at += cpuid(0xd, i).eax;
	return at;
}

static void zmm_load(u64 seed)
{
	asm volatile("vpbroadcastq %0, %%zmm3; vpbroadcastq %1, %%zmm17; kmovq %2, %%k5"
		:: "r"(seed), "r"(seed + 1), "r"(seed + 2));
}

/* All there is of the three. */
static bool zmm_is(u64 three, u64 seventeen, u64 mask)
{
	static u64 v[2][8] __attribute__((aligned(64)));
	u64 k;
	int i;

	asm volatile("vmovdqu64 %%zmm3, %0; vmovdqu64 %%zmm17, %1; kmovq %%k5, %2" : "=m"(v[0]), "=m"(v[1]), "=r"(k));
	for (i = 0; i < 8; i++)
		if (v[0][i] != three || v[1][i] != seventeen)
			return false;
	return k == mask;
}

static void avx512_xcr0(u64 all)
{
	static const u8 parts[] = { 0xc7, 0xa7, 0x67, 0x27, 0x47, 0x87, 0xe3, 0xe1, 0xe5 };
	u32 i;

	group("XCR0 with AVX-512");
	sweep("in parts, or without what lies below");
	for (i = 0; i < sizeof(parts); i++)
		sweep_check(xsetbv(0, parts[i]) == GP, "%x", parts[i]);
	sweep_end();
	xsetbv(0, 7);
	expect("size of an area without", cpuid(0xd, 0).ebx, 832);
	expect_fault("EVEX without XCR0's bits", UD, 0, asm volatile("vpord %xmm1, %xmm1, %xmm1"));
	expect_fault("masks without XCR0's bits", UD, 0, asm volatile("kxorw %k1, %k1, %k1"));
	expect_ok("AVX is not touched", asm volatile("vxorps %ymm1, %ymm1, %ymm1"));
	expect_vector("all", xsetbv(0, all), NONE, 0);
	expect("size of an area with", cpuid(0xd, 0).ebx, offset_of(7) + 1024);
	expect("size in the compacted form", cpuid(0xd, 1).ebx, compact_offset(all, 8));
	expect_ok("EVEX", asm volatile("vpord %xmm1, %xmm1, %xmm1"));
	expect_ok("masks", asm volatile("kxorw %k1, %k1, %k1"));
	write_cr0(read_cr0() | CR0_TS);
	expect_fault("EVEX under TS", NM, 0, asm volatile("vpord %zmm1, %zmm1, %zmm1"));
	expect_fault("masks under TS", NM, 0, asm volatile("kxorw %k1, %k1, %k1"));
	write_cr0(read_cr0() & ~CR0_TS);
}

/* Where the three are, by an area of either form. */
static void expect_in_area(u64 seed, u64 compact)
{
	u32 at;

	at = compact ? compact_offset(compact, 5) : offset_of(5);
	expect("K5", *(u64 *)(area + at + 5 * 8), seed + 2);
	at = compact ? compact_offset(compact, 6) : offset_of(6);
	expect("upper half of ZMM3", *(u64 *)(area + at + 3 * 32 + 24), seed);
	at = compact ? compact_offset(compact, 7) : offset_of(7);
	expect("ZMM17", *(u64 *)(area + at + 64), seed + 1);
}

static void avx512_forms(u64 all)
{
	u64 *header = (u64 *)(area + 512);

	memset(area, 0, sizeof(area));
	zmm_load(0x1111);
	XSAVE("xsave64", area, all);
	expect("XSTATE_BV", header[0] & AVX512, AVX512);
	expect_in_area(0x1111, 0);
	zmm_load(0x2222);
	XSAVE("xrstor64", area, all);
	check(zmm_is(0x1111, 0x1112, 0x1113), "XRSTOR brings it back");
	zmm_load(0x3333);
	XSAVE("xrstor64", area, OPMASK);
	check(zmm_is(0x3333, 0x3334, 0x1113), "masks alone");
	XSAVE("xrstor64", area, HI16_ZMM);
	check(zmm_is(0x3333, 0x1112, 0x1113), "ZMM16 to ZMM31 alone");
	header[0] = 2;
	XSAVE("xrstor64", area, HI16_ZMM | OPMASK);
	check(zmm_is(0x3333, 0, 0), "clear bits initialize");
	if (!(cpuid(0xd, 1).eax & BIT(1))) {
		skip("XSAVEC with AVX-512", "not in CPUID");
		return;
	}
	memset(area, 0, sizeof(area));
	zmm_load(0x4444);
	XSAVE("xsavec64", area, AVX512);
	expect("XSAVEC: XCOMP_BV", header[1], BIT(63) | AVX512);
	expect_in_area(0x4444, AVX512);
	zmm_load(0x5555);
	XSAVE("xrstor64", area, AVX512 | 6);
	asm volatile("vpxor %%ymm4, %%ymm4, %%ymm4; vinserti32x4 $0, %%xmm4, %%zmm3, %%zmm3; "
		     "vpbroadcastq %0, %%ymm5; vinserti64x4 $0, %%ymm5, %%zmm3, %%zmm3" :: "r"(0x4444ul));
	check(zmm_is(0x4444, 0x4445, 0x4446), "back from the compacted form");
	if (cpuid(0xd, 1).eax & BIT(2)) {
		u32 lo, hi;

		asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
		expect("XINUSE", lo & AVX512, AVX512);
	}
}

/* The hypervisor moves the rest by other instructions then. */
static void x87_init(void)
{
	memset(area, 0, sizeof(area));
	XSAVE("xrstor64", area, 1);
}

static void avx512_faults(bool x87)
{
	u32 i;

	for (i = 0; i < 50; i++) {
		u64 seed = i * 0x0101010101010101ul;

		zmm_load(seed);
		if (x87)
			asm volatile("fninit; fldz");
		catch(asm volatile("ud2"));
		sweep_check(zmm_is(seed, seed + 1, seed + 2), "round %u, x87 %u", i, x87);
	}
}

static void avx512(void)
{
	u64 all = cpuid(0xd, 0).eax;

	if ((all & AVX512) != AVX512 || !(cpuid(7, 0).ebx & BIT(16))) {
		skip("AVX-512 state", "not in CPUID");
		return;
	}
	avx512_xcr0(all);
	group("XSAVE with AVX-512");
	asm volatile("fninit; fld1");
	avx512_forms(all);
	x87_init();
	group("with x87 in its initial state");
	avx512_forms(all);
	zmm_load(0x6666);
	asm volatile("vzeroupper");
	check(zmm_is(0x6666, 0x6667, 0x6668) == false, "VZEROUPPER does clear");
	asm volatile("vpbroadcastq %0, %%zmm3" :: "r"(0x6666ul));
	check(zmm_is(0x6666, 0x6667, 0x6668), "VZEROUPPER leaves ZMM17 and K5");
	asm volatile("vzeroall");
	check(zmm_is(0, 0x6667, 0x6668), "VZEROALL leaves ZMM17 and K5");
	sweep("AVX-512 state survives faults");
	avx512_faults(false);
	avx512_faults(true);
	sweep_end();
}

USER_TEXT static ulong user_xsetbv(ulong a) { asm volatile("xsetbv" :: "c"(0), "a"(3), "d"(0)); return a; }

static void many(void)
{
	u32 i;

	group("");
	sweep("state survives faults and interrupts");
	for (i = 0; i < 50; i++) {
		load_xmm(i);
		asm volatile("fninit; fldz; fld1");
		catch(asm volatile("ud2"));
		sweep_check(xmm_is(i), "round %u", i);
	}
	sweep_end();
	expect_vector("xsetbv at CPL 3", user_call(user_xsetbv, 0), GP, 0);
}

void guest_main(void)
{
	write_cr0((read_cr0() | CR0_MP | CR0_NE) & ~CR0_EM & ~CR0_TS);
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	fxsave();
	if (!(cpuid(1, 0).ecx & BIT(26))) {
		skip("XSAVE", "not in CPUID");
		return;
	}
	xcr0();
	xsave();
	avx512();
	many();
}
