/* CPUID: each feature that is shown works, each that is not shown gives #UD; the leaves agree. SDM 2, CPUID. */
#include "guest.h"

static u8 mem[128] __attribute__((aligned(64)));

enum reg { A, B, C, D };

static bool bit(u32 leaf, u32 sub, enum reg r, int n)
{
	struct cpuid c = cpuid(leaf, sub);
	u32 v[] = { c.eax, c.ebx, c.ecx, c.edx };

	return v[r] >> n & 1;
}

#define INSN(name, ...) static void i_##name(void) { asm volatile(__VA_ARGS__); }
#define CLOBBER : "memory", "cc", "rax", "rbx", "rcx", "rdx"
INSN(fpu, "fninit; fld1; fstp %%st(0)" :::)
INSN(tsc, "rdtsc" ::CLOBBER)
INSN(cx8, "cmpxchg8b (%0)" :: "r"(mem) CLOBBER)
INSN(cmov, "cmovz %%eax, %%eax" ::CLOBBER)
INSN(clflush, "clflush (%0)" :: "r"(mem))
INSN(mmx, "pxor %%mm0, %%mm0; emms" :::)
INSN(fxsr, "fxsave (%0)" :: "r"(mem) : "memory")
INSN(sse, "addps %%xmm0, %%xmm0" :::)
INSN(sse2, "addpd %%xmm0, %%xmm0" :::)
INSN(sse3, "addsubps %%xmm0, %%xmm0" :::)
INSN(pclmul, "pclmulqdq $0, %%xmm0, %%xmm0" :::)
INSN(monitor, "monitor" :: "a"(mem), "c"(0), "d"(0))
INSN(ssse3, "pabsb %%xmm0, %%xmm0" :::)
INSN(fma, "vfmadd132ps %%xmm0, %%xmm0, %%xmm0" :::)
INSN(cx16, "cmpxchg16b (%0)" :: "r"(mem) CLOBBER)
INSN(sse41, "pmulld %%xmm0, %%xmm0" :::)
INSN(sse42, "pcmpgtq %%xmm0, %%xmm0" :::)
INSN(movbe, "movbe (%0), %%eax" :: "r"(mem) : "rax")
INSN(popcnt, "popcnt %%eax, %%eax" ::CLOBBER)
INSN(aes, "aesenc %%xmm0, %%xmm0" :::)
INSN(xsave, "xgetbv" :: "c"(0) : "rax", "rdx")
INSN(avx, "vaddps %%ymm0, %%ymm0, %%ymm0" :::)
INSN(f16c, "vcvtph2ps %%xmm0, %%xmm0" :::)
INSN(rdrand, "rdrand %%eax" ::CLOBBER)
INSN(fsgsbase, "rdfsbase %%rax" ::CLOBBER)
INSN(bmi1, "andn %%eax, %%eax, %%eax" ::CLOBBER)
INSN(avx2, "vpaddd %%ymm0, %%ymm0, %%ymm0" :::)
INSN(bmi2, "pdep %%eax, %%eax, %%eax" ::CLOBBER)
INSN(invpcid, "invpcid (%0), %1" :: "r"(mem), "r"(2ul) : "memory")
INSN(rdseed, "rdseed %%eax" ::CLOBBER)
INSN(adx, "adcx %%eax, %%eax; adox %%eax, %%eax" ::CLOBBER)
INSN(smap, "clac" :::)
INSN(clflushopt, "clflushopt (%0)" :: "r"(mem))
INSN(clwb, "clwb (%0)" :: "r"(mem))
INSN(sha, "sha1msg1 %%xmm0, %%xmm0" :::)
INSN(avx512f, "vaddps %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512vl, "vaddps %%xmm16, %%xmm16, %%xmm16" :::)
INSN(avx512bw, "vpaddb %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512dq, "vpmullq %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512cd, "vplzcntd %%zmm0, %%zmm0" :::)
INSN(avx512_ifma, "vpmadd52luq %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512_vbmi, "vpermb %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512_vbmi2, "vpcompressb %%zmm0, %%zmm0" :::)
INSN(avx512_vnni, "vpdpbusd %%zmm0, %%zmm0, %%zmm0" :::)
INSN(avx512_bitalg, "vpopcntb %%zmm0, %%zmm0" :::)
INSN(avx512_vpopcntdq, "vpopcntd %%zmm0, %%zmm0" :::)
INSN(avx512_bf16, "vdpbf16ps %%zmm0, %%zmm0, %%zmm0" :::)
INSN(rdpid, ".byte 0xf3, 0x0f, 0xc7, 0xf8" ::CLOBBER)
INSN(gfni, ".byte 0x66, 0x0f, 0x38, 0xcf, 0xc0" :::)
INSN(vaes, ".byte 0xc4, 0xe2, 0x7d, 0xdc, 0xc0" :::)			/* vaesenc ymm0 */
INSN(vpclmul, ".byte 0xc4, 0xe3, 0x7d, 0x44, 0xc0, 0x00" :::)
INSN(movdiri, ".byte 0x0f, 0x38, 0xf9, 0x03" :: "b"(mem), "a"(0) : "memory")
INSN(serialize, ".byte 0x0f, 0x01, 0xe8" :::)
INSN(rdpkru, ".byte 0x0f, 0x01, 0xee" :: "c"(0) : "rax", "rdx")
INSN(syscall, "call 1f; 1: pop %%rax; syscall" ::CLOBBER)
INSN(rdtscp, "rdtscp" ::CLOBBER)
INSN(lahf, "lahf" ::CLOBBER)
INSN(lzcnt, "lzcnt %%eax, %%eax" ::CLOBBER)
INSN(sse4a, ".byte 0x66, 0x0f, 0x79, 0xc0" :::)				/* extrq xmm0, xmm0 */
INSN(prefetchw, "prefetchw (%0)" :: "r"(mem))
INSN(xop, ".byte 0x8f, 0xe9, 0x78, 0xe1, 0xc0" :::)
INSN(fma4, ".byte 0xc4, 0xe3, 0x79, 0x68, 0xc0, 0x00" :::)
INSN(tbm, ".byte 0x8f, 0xe9, 0x78, 0x01, 0xc8" ::CLOBBER)
INSN(clzero, ".byte 0x0f, 0x01, 0xfc" :: "a"(mem) : "memory")
INSN(rdpru, ".byte 0x0f, 0x01, 0xfd" :: "c"(0) : "rax", "rdx")
INSN(xsaveopt, "xsaveopt (%0)" :: "r"(mem), "a"(0), "d"(0) : "memory")
INSN(xgetbv1, "xgetbv" :: "c"(1) : "rax", "rdx")

/* strict: CPUs without the bit give #UD. Where they do not (LZCNT runs as BSR), the bit is only a promise. */
static const struct feature {
	const char *name;
	u32 leaf, sub;
	enum reg reg;
	int bit;
	void (*run)(void);
	bool strict;
} features[] = {
	{ "FPU", 1, 0, D, 0, i_fpu, 0 }, { "TSC", 1, 0, D, 4, i_tsc, 0 }, { "CX8", 1, 0, D, 8, i_cx8, 1 },
	{ "CMOV", 1, 0, D, 15, i_cmov, 1 }, { "CLFSH", 1, 0, D, 19, i_clflush, 1 }, { "MMX", 1, 0, D, 23, i_mmx, 1 },
	{ "FXSR", 1, 0, D, 24, i_fxsr, 1 }, { "SSE", 1, 0, D, 25, i_sse, 1 }, { "SSE2", 1, 0, D, 26, i_sse2, 1 },
	{ "SSE3", 1, 0, C, 0, i_sse3, 1 }, { "PCLMULQDQ", 1, 0, C, 1, i_pclmul, 1 },
	/* KVM runs MONITOR also where it is not shown: KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS */
	{ "MONITOR", 1, 0, C, 3, i_monitor, 0 }, { "SSSE3", 1, 0, C, 9, i_ssse3, 1 }, { "FMA", 1, 0, C, 12, i_fma, 1 },
	{ "CX16", 1, 0, C, 13, i_cx16, 1 }, { "SSE4.1", 1, 0, C, 19, i_sse41, 1 }, { "SSE4.2", 1, 0, C, 20, i_sse42, 1 },
	{ "MOVBE", 1, 0, C, 22, i_movbe, 1 }, { "POPCNT", 1, 0, C, 23, i_popcnt, 1 }, { "AES", 1, 0, C, 25, i_aes, 1 },
	{ "XSAVE", 1, 0, C, 26, i_xsave, 1 }, { "AVX", 1, 0, C, 28, i_avx, 1 }, { "F16C", 1, 0, C, 29, i_f16c, 1 },
	{ "RDRAND", 1, 0, C, 30, i_rdrand, 1 }, { "FSGSBASE", 7, 0, B, 0, i_fsgsbase, 1 },
	{ "BMI1", 7, 0, B, 3, i_bmi1, 1 }, { "AVX2", 7, 0, B, 5, i_avx2, 1 }, { "BMI2", 7, 0, B, 8, i_bmi2, 1 },
	{ "INVPCID", 7, 0, B, 10, i_invpcid, 1 }, { "RDSEED", 7, 0, B, 18, i_rdseed, 1 },
	{ "ADX", 7, 0, B, 19, i_adx, 1 }, { "SMAP", 7, 0, B, 20, i_smap, 1 },
	{ "CLFLUSHOPT", 7, 0, B, 23, i_clflushopt, 1 }, { "CLWB", 7, 0, B, 24, i_clwb, 1 },
	{ "SHA", 7, 0, B, 29, i_sha, 1 }, { "RDPID", 7, 0, C, 22, i_rdpid, 1 },
	{ "AVX512F", 7, 0, B, 16, i_avx512f, 1 }, { "AVX512VL", 7, 0, B, 31, i_avx512vl, 1 },
	{ "AVX512BW", 7, 0, B, 30, i_avx512bw, 1 }, { "AVX512DQ", 7, 0, B, 17, i_avx512dq, 1 },
	{ "AVX512CD", 7, 0, B, 28, i_avx512cd, 1 }, { "AVX512_IFMA", 7, 0, B, 21, i_avx512_ifma, 1 },
	{ "AVX512_VBMI", 7, 0, C, 1, i_avx512_vbmi, 1 }, { "AVX512_VBMI2", 7, 0, C, 6, i_avx512_vbmi2, 1 },
	{ "AVX512_VNNI", 7, 0, C, 11, i_avx512_vnni, 1 }, { "AVX512_BITALG", 7, 0, C, 12, i_avx512_bitalg, 1 },
	{ "AVX512_VPOPCNTDQ", 7, 0, C, 14, i_avx512_vpopcntdq, 1 },
	{ "AVX512_BF16", 7, 1, A, 5, i_avx512_bf16, 1 },
	{ "GFNI", 7, 0, C, 8, i_gfni, 1 }, { "VAES", 7, 0, C, 9, i_vaes, 1 }, { "VPCLMULQDQ", 7, 0, C, 10, i_vpclmul, 1 },
	{ "MOVDIRI", 7, 0, C, 27, i_movdiri, 1 }, { "SERIALIZE", 7, 0, D, 14, i_serialize, 1 },
	{ "OSPKE", 7, 0, C, 4, i_rdpkru, 1 }, { "RDTSCP", 0x80000001, 0, D, 27, i_rdtscp, 1 },
	{ "LAHF", 0x80000001, 0, C, 0, i_lahf, 1 }, { "LZCNT", 0x80000001, 0, C, 5, i_lzcnt, 0 },
	{ "SSE4A", 0x80000001, 0, C, 6, i_sse4a, 1 }, { "PREFETCHW", 0x80000001, 0, C, 8, i_prefetchw, 0 },
	{ "XOP", 0x80000001, 0, C, 11, i_xop, 1 }, { "FMA4", 0x80000001, 0, C, 16, i_fma4, 1 },
	{ "TBM", 0x80000001, 0, C, 21, i_tbm, 1 }, { "CLZERO", 0x80000008, 0, B, 0, i_clzero, 1 },
	{ "RDPRU", 0x80000008, 0, B, 4, i_rdpru, 1 }, { "XSAVEOPT", 0xd, 1, A, 0, i_xsaveopt, 1 },
	{ "XGETBV with 1", 0xd, 1, A, 2, i_xgetbv1, 0 },
};

static void enable(void)
{
	ulong cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE * bit(7, 0, B, 0) | CR4_OSXSAVE * bit(1, 0, C, 26);

	write_cr0((read_cr0() | CR0_MP | CR0_NE) & ~CR0_EM & ~CR0_TS);
	write_cr4(read_cr4() | cr4);
	if (bit(1, 0, C, 26) && bit(1, 0, C, 28))
		asm volatile("xsetbv" :: "c"(0), "a"(cpuid(0xd, 0).eax & 0xe7), "d"(0));
}

static void each(void)
{
	unsigned i;

	sweep("each feature shown works, each not shown gives #UD");
	for (i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		bool shown = bit(f->leaf, f->sub, f->reg, f->bit);
		int v = catch(f->run());

		if (shown)
			sweep_check(v == NONE, "%s is shown: %d", f->name, v);
		else if (f->strict)
			sweep_check(v == UD, "%s is not shown: %d", f->name, v);
	}
	sweep_end();
}

static void leaves(void)
{
	struct cpuid c0 = cpuid(0, 0), c1 = cpuid(1, 0), x = cpuid(0x80000000, 0), c;
	u32 i, size = 576;

	group("leaves");
	check(c0.eax >= 0xd, "highest basic leaf %x", c0.eax);
	check(x.eax >= 0x80000008, "highest extended leaf %x", x.eax);
	c = cpuid(c0.eax + 0x100, 0);
	check(c1.edx & BIT(9), "APIC");
	expect("initial APIC ID", c1.ebx >> 24, 0);
	expect("OSXSAVE follows CR4", c1.ecx >> 27 & 1, !!(read_cr4() & CR4_OSXSAVE));
	expect("SYSCALL in 64-bit mode", bit(0x80000001, 0, D, 11), 1);
	expect("long mode", bit(0x80000001, 0, D, 29), 1);
	c = cpuid(0x80000008, 0);
	check((c.eax & 0xff) >= 36 && (c.eax & 0xff) <= 52, "physical address bits %u", c.eax & 0xff);
	check((c.eax >> 8 & 0xff) == 48 || (c.eax >> 8 & 0xff) == 57, "linear address bits %u", c.eax >> 8 & 0xff);
	if (!(c1.ecx & BIT(26)))
		return;
	c = cpuid(0xd, 0);
	check((c.eax & 3) == 3, "XSAVE: x87 and SSE");
	for (i = 2; i < 32; i++)
		if (c.eax >> i & 1) {
			struct cpuid s = cpuid(0xd, i);

			if (s.eax + s.ebx > size)
				size = s.eax + s.ebx;
			check(s.eax && s.ebx >= 576, "XSAVE component %u: %u bytes at %u", i, s.eax, s.ebx);
		}
	expect("XSAVE area for all", c.ecx, size);
	asm volatile("xsetbv" :: "c"(0), "a"(1), "d"(0));
	expect("XSAVE area for XCR0 of x87 alone", cpuid(0xd, 0).ebx, 576);
	asm volatile("xsetbv" :: "c"(0), "a"(3), "d"(0));
	expect("XSAVE area for XCR0 of x87 and SSE", cpuid(0xd, 0).ebx, 576);
}

static void hypervisor(void)
{
	struct cpuid c;

	group("hypervisor");
	if (!bit(1, 0, C, 31)) {
		skip("leaves", "no hypervisor bit");
		return;
	}
	c = cpuid(0x40000000, 0);
	if (c.ebx == 0x54474354) {		/* TCGT: QEMU has its own */
		skip("leaves", "not KVM's");
		return;
	}
	check(c.ebx == 0x4b4d564b && c.ecx == 0x564b4d56 && c.edx == 0x4d, "KVM's signature");
	check(c.eax >= 0x40000001 || c.eax == 0, "highest leaf %x", c.eax);
	c = cpuid(0x40000001, 0);
	check(c.eax & BIT(3), "clock source 2");
}

void guest_main(void)
{
	enable();
	(void)i_syscall;
	each();
	leaves();
	hypervisor();
}
