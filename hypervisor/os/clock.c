/*
 * The seam's clocks. The kernel builds its vDSO without vector instructions, so these calls keep
 * the vector registers; this file is compiled with -mgeneral-regs-only, and tests/api checks it.
 */
#include <cpuid.h>
#include <time.h>

#include "hypervisor/os/os.h"

#define NS_PER_SEC 1000000000ULL

static u64 clock_read(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

u64 os_clock_ns(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

u64 os_thread_ns(void)
{
	return clock_read(CLOCK_THREAD_CPUTIME_ID);
}

u64 os_wall_ns(void)
{
	return clock_read(CLOCK_REALTIME);
}

static u64 read_tsc(void)
{
	u32 lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return lo | (u64)hi << 32;
}

/* ---- TSC frequency ------------------------------------------------------------------------ */

/* SDM 2A CPUID leaf 15H: crystal frequency (ECX) times EBX / EAX. */
static u32 khz_from_cpuid(void)
{
	u32 a, b, c, d;

	if (!__get_cpuid(0x15, &a, &b, &c, &d) || !a || !b || !c)
		return 0;
	return (u64)c * b / a / 1000;
}

struct tsc_sample {
	u64 tsc, ns, width;
};

/* The tightest of several readings of both clocks. MONOTONIC_RAW: NTP does not bend it. */
static struct tsc_sample sample_clocks(void)
{
	struct tsc_sample best = { .width = ~0ULL };
	int i;

	for (i = 0; i < 16; i++) {
		u64 before = read_tsc(), ns = clock_read(CLOCK_MONOTONIC_RAW), after = read_tsc();

		if (after - before < best.width)
			best = (struct tsc_sample){
				before + (after - before) / 2, ns, after - before};
	}
	return best;
}

/*
 * The first sample is taken when the program is loaded, so that by the time somebody asks enough
 * time has usually gone by: start-up does not wait. (perf_event_open could tell the kernel's own
 * figure, but its first use after a while patches kernel code: 10 ms measured.) Five milliseconds
 * give about four parts in a million.
 */
#define MEASURE_NS 5000000ULL

static struct tsc_sample first_sample;

__attribute__((constructor)) static void clock_start(void)
{
	first_sample = sample_clocks();
}

static u32 khz_measured(void)
{
	struct tsc_sample now;

	while (clock_read(CLOCK_MONOTONIC_RAW) - first_sample.ns < MEASURE_NS)
		;
	now = sample_clocks();
	return (u128)(now.tsc - first_sample.tsc) * 1000000 / (now.ns - first_sample.ns);
}

u32 os_tsc_khz(void)
{
	static u32 known;
	u32 khz = READ_ONCE(known), unknown = 0;

	if (khz)
		return khz;
	khz = khz_from_cpuid();
	if (!khz)
		khz = khz_measured();
	/* Every caller gets one and the same figure. */
	if (!__atomic_compare_exchange_n(
		    &known, &unknown, khz, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		khz = unknown;
	return khz;
}
