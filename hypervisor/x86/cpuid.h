/*
 * CPUID: one table (x86/cpuid.c) accounts for every feature bit: passed on when the host has it,
 * emulated, or left out for a written reason. SDM 2A CPUID, APM 3 appendix E, Linux
 * Documentation/virt/kvm/x86/cpuid.rst for leaves 0x40000000 on.
 */
#ifndef QUMRA_HYPERVISOR_X86_CPUID_H
#define QUMRA_HYPERVISOR_X86_CPUID_H

#include "hypervisor/x86/vcpu.h"

/* Features that opcode rows and handlers ask about; bit numbers in v->guest_features. */
enum cpu_feature {
	F_NONE,			/* always there */
	F_FPU, F_TSC, F_MSR, F_CX8, F_SEP, F_CMOV, F_CLFSH, F_MMX, F_FXSR, F_SSE, F_SSE2, F_SSE3,
	F_PCLMULQDQ, F_MONITOR, F_SSSE3, F_FMA, F_CX16, F_SSE41, F_SSE42, F_MOVBE, F_POPCNT, F_AES,
	F_XSAVE, F_AVX, F_F16C, F_RDRAND, F_SYSCALL, F_RDTSCP, F_LM, F_LAHF64, F_ABM, F_SSE4A,
	F_PREFETCHW, F_FSGSBASE, F_BMI1, F_AVX2, F_SMEP, F_BMI2, F_ERMS, F_INVPCID, F_RDSEED, F_ADX,
	F_SMAP, F_CLFLUSHOPT, F_CLWB, F_SHA, F_UMIP, F_PKU, F_RDPID, F_VAES, F_VPCLMULQDQ, F_GFNI,
	F_CLZERO, F_XSAVEOPT, F_XSAVEC, F_XGETBV1, F_XSAVES, F_PCID, F_PSE, F_PAE, F_PGE, F_PSE36,
	F_NX, F_PDPE1GB, F_X2APIC, F_TSCDEADLINE, F_MTRR, F_PAT, F_DE, F_VME, F_MCE, F_FSRM,
	F_3DNOW, F_MOVDIRI, F_MOVDIR64B, F_SERIALIZE, F_WAITPKG, F_RDPRU, F_MCOMMIT, F_WBNOINVD,
	F_XOP, F_FMA4, F_TBM, F_LWP, F_CET, F_SVM, F_VMX, F_SMX, F_SGX, F_AVXVNNI, F_HLE, F_RTM,
	F_MPX, F_CLDEMOTE, F_PTWRITE, F_ENQCMD, F_HRESET, F_UINTR, F_INVLPGB, F_SNP, F_CMPCCXADD,
	F_RAOINT, F_AVXNECONVERT, F_AVXIFMA, F_AVXVNNIINT8, F_PREFETCHI, F_WRMSRNS, F_MSRLIST,
	F_KEYLOCKER, F_TDX, F_PCONFIG, F_FRED, F_LKGS, F_AMX, F_TSC_ADJUST, F_AUTOIBRS,
	F_ARCHCAP, F_FFXSR, F_OSVW, F_INVTSC, F_ARAT, F_KVM_CLOCK_OLD, F_KVM_CLOCK, F_KVM_ASYNC_PF,
	F_KVM_ASYNC_PF_INT, F_KVM_STEAL_TIME, F_KVM_PV_EOI, F_KVM_POLL_CONTROL, F_KVM_MIGRATION,
	F_PERFCTR_CORE, F_PDCM,
	/* AVX-512: there only together with its state (x86/fpu.h) */
	F_AVX512F, F_AVX512VL, F_AVX512BW, F_AVX512DQ, F_AVX512CD, F_AVX512_IFMA, F_AVX512_VBMI,
	F_AVX512_VBMI2, F_AVX512_VNNI, F_AVX512_BITALG, F_AVX512_VPOPCNTDQ, F_AVX512_BF16,
	NR_CPU_FEATURES,
};
_Static_assert(NR_CPU_FEATURES <= 256, "v->guest_features has room");

static inline bool vcpu_has(const struct vcpu *v, enum cpu_feature f)
{
	return v->guest_features[f >> 6] & BIT(f & 63);
}

/* Fills at most n entries; returns how many there are (more than n: too small). */
int cpuid_supported(struct kvm_cpuid_entry2 *out, int n);
/*
 * KVM_SET_CPUID2: takes the table over and derives features, address widths, MMU masks. 0 or
 * -errno.
 */
int cpuid_set(struct vcpu *v, const struct kvm_cpuid_entry2 *in, unsigned int n);
/* The CPUID instruction with the dynamic bits (OSXSAVE, APIC enable, XSAVE sizes). No fault. */
void cpuid_read(struct vcpu *v, u32 leaf, u32 sub, u32 out[4]);
/* Again after CR4 or XCR0 or APIC base changed what depends on them. */
void cpuid_update(struct vcpu *v);
/* What the host's own CPU has, as v->guest_features: a guest may have more, done by our code. */
void cpuid_host_features(u64 features[4]);
/* Is a RET of the host free of what guests hear that they are free of: BTC_NO and SRSO_NO? */
bool cpuid_host_returns_safe(void);
/* QUMRA_PLAIN_HOST=1, for tests: nothing of the host is used that x86-64-v2 lacks. */
bool cpuid_host_plain(void);
/* XCR0 bits that this guest may set, and whether it may set these together. SDM 1 13.3 */
u64 cpuid_xcr0(const struct vcpu *v);
bool xcr0_valid(const struct vcpu *v, u64 val);

#endif
