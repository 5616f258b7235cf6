/*
 * The table behind x86/cpuid.c: what becomes of every bit of every feature register.
 */
#ifndef QUMRA_HYPERVISOR_X86_CPUID_TABLE_H
#define QUMRA_HYPERVISOR_X86_CPUID_TABLE_H

#include "hypervisor/x86/cpuid.h"

enum cpuid_output { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* Registers whose bits are features. */
enum cpuid_reg {
	C_1_ECX, C_1_EDX, C_6_EAX, C_7_EBX, C_7_ECX, C_7_EDX,
	C_71_EAX, C_71_EBX, C_71_ECX, C_71_EDX, C_D1_EAX,
	C_KVM_EAX, C_E1_ECX, C_E1_EDX, C_E7_EDX, C_E8_EBX, C_E21_EAX, C_E21_ECX,
	NR_CPUID_REGS,
};

struct cpuid_place {
	u32 leaf, sub;
	enum cpuid_output out;
};

enum cpuid_policy {
	CPUID_PASS,		/* there when the host has it: it runs on the host's units */
	CPUID_EMULATE,		/* there on any host: our own code does it */
	CPUID_EMULATE_AMD,	/* the same, where the vendor is AMD (else the bit means nothing) */
	CPUID_EMULATE_INTEL,
	CPUID_EMULATE_SCHED,	/* there where the host counts how long a thread waits */
	CPUID_SETTABLE,		/* not in KVM_GET_SUPPORTED_CPUID, but user space may set it */
	CPUID_DYNAMIC,		/* follows the guest's state */
	CPUID_DYNAMIC_ON,	/* the same, and user space learns that it is there */
	CPUID_DYNAMIC_AMD,	/* the same on AMD's */
	CPUID_LEFT_OUT,		/* why says why */
};

struct cpuid_bit {
	u8 reg;			/* enum cpuid_reg */
	u8 low, high;		/* a range only for reserved bits */
	u8 policy;		/* enum cpuid_policy */
	u8 feature;		/* enum cpu_feature, or F_NONE: nobody asks */
	const char *name;
	const char *why;
};

extern const struct cpuid_place cpuid_places[NR_CPUID_REGS];
extern const struct cpuid_bit cpuid_bits[];
extern const unsigned int nr_cpuid_bits;

#endif
