/* a * b / c with a 128-bit intermediate: time scaling without a libgcc helper. */
#ifndef QUMRA_HYPERVISOR_X86_MULDIV_H
#define QUMRA_HYPERVISOR_X86_MULDIV_H

#include "lib/types.h"

/* All ones when the quotient does not fit or c is zero. */
static inline u64 mul_div(u64 a, u64 b, u64 c)
{
	u128 product = (u128)a * b;
	u64 hi = (u64)(product >> 64), quot, rem;

	if (hi >= c)
		return ~0ULL;
	__asm__("divq %4" : "=a"(quot), "=d"(rem) : "0"((u64)product), "1"(hi), "r"(c) : "cc");
	return quot;
}

/* Rounded up. */
static inline u64 mul_div_up(u64 a, u64 b, u64 c)
{
	u128 product = (u128)a * b;
	u64 hi = (u64)(product >> 64), quot, rem;

	if (hi >= c)
		return ~0ULL;
	__asm__("divq %4" : "=a"(quot), "=d"(rem) : "0"((u64)product), "1"(hi), "r"(c) : "cc");
	return quot + (rem && quot != ~0ULL);
}

#endif
