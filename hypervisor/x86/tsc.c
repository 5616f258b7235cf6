/*
 * The time-stamp counter: the host's plus an offset, at the host's frequency. SDM 3B 18.17
 *
 * Deadlines are converted relative to "now", so no error adds up between the two clocks.
 */
#include "hypervisor/x86/system.h"

#include "hypervisor/x86/muldiv.h"

#define KHZ_NS	1000000u	/* ns in a period of 1 kHz */

u64 tsc_host(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (u64)hi << 32;
}

u64 tsc_read(struct vcpu *v)
{
	return tsc_host() + v->tsc_offset;
}

/* All ones when it does not fit. */
u64 tsc_to_ns(struct vcpu *v, u64 ticks)
{
	return mul_div_up(ticks, KHZ_NS, os_tsc_khz());
}

/* A deadline past the clock's range is the far future. */
u64 tsc_deadline_ns(struct vcpu *v, u64 guest_tsc)
{
	u64 now = os_clock_ns(), tsc = tsc_read(v), ns;

	if (guest_tsc <= tsc)
		return now;
	ns = tsc_to_ns(v, guest_tsc - tsc);
	return ns > OS_FOREVER - now ? OS_FOREVER : now + ns;
}
