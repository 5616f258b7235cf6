/*
 * The time-stamp counter: the host's times a ratio plus an offset. SDM 3B 18.17, SDM 3C 25.6.5
 *
 * Deadlines are converted relative to "now", so no error adds up between the two clocks.
 */
#include <linux/errno.h>

#include "hypervisor/x86/system.h"

#include "hypervisor/x86/muldiv.h"

#define KHZ_NS	1000000u	/* ns in a period of 1 kHz */

u64 tsc_host(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (u64)hi << 32;
}

u64 tsc_scale(const struct vcpu *v, u64 host)
{
	if (likely(v->tsc_ratio == TSC_RATIO_ONE))
		return host;
	return (u64)((u128)host * v->tsc_ratio >> TSC_RATIO_SHIFT);
}

u64 tsc_read(struct vcpu *v)
{
	return tsc_scale(v, tsc_host()) + v->tsc_offset;
}

u32 vcpu_tsc_khz(const struct vcpu *v)
{
	return v->tsc_ratio == TSC_RATIO_ONE ? os_tsc_khz() : v->tsc_khz;
}

/* Within 250 ppm, as KVM's tolerance is, the host's rate will do. */
static bool tsc_khz_close(u32 host, u32 khz)
{
	u32 off = khz > host ? khz - host : host - khz;

	return off * 4000ULL <= host;
}

int tsc_set_khz(struct vcpu *v, u32 khz)
{
	u32 host = os_tsc_khz();
	u64 ratio = TSC_RATIO_ONE;

	if (khz && !tsc_khz_close(host, khz))
		ratio = mul_div(TSC_RATIO_ONE, khz, host);
	if (!ratio || khz >= TSC_KHZ_MAX)
		return -EINVAL;
	v->tsc_khz = khz ? khz : host;
	if (ratio != v->tsc_ratio)
		vcpu_request(v, REQ_CODE_FLUSH);	/* RDTSC is translated for one or the other */
	v->tsc_ratio = ratio;
	return 0;
}

/* Ticks of the host's. All ones when it does not fit. */
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
	ns = mul_div_up(guest_tsc - tsc, KHZ_NS, vcpu_tsc_khz(v));
	return ns > OS_FOREVER - now ? OS_FOREVER : now + ns;
}
