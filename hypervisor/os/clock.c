/*
 * The seam's clocks. The kernel builds its vDSO without vector instructions, so these calls keep the
 * vector registers; this file is compiled with -mgeneral-regs-only, and tests/api checks it.
 */
#include <cpuid.h>
#include <linux/perf_event.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

/* ---- TSC frequency ---------------------------------------------------------------------------- */

/* The kernel's own figure: perf's user page tells how it turns TSC ticks into time. 0: not to be had. */
static u32 khz_from_perf(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY,
		.exclude_kernel = 1, .exclude_hv = 1, .disabled = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	struct perf_event_mmap_page *page;
	u32 khz = 0;

	if (fd < 0)
		return 0;
	page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return 0;
	/* ns = ticks * time_mult >> time_shift */
	if (page->cap_user_time && page->time_mult)
		khz = (((u128)1000000 << page->time_shift) + page->time_mult / 2) / page->time_mult;
	munmap(page, 4096);
	return khz;
}

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

/* The tightest of several readings of both clocks. */
static struct tsc_sample sample_clocks(void)
{
	struct tsc_sample best = { .width = ~0ULL };
	int i;

	for (i = 0; i < 16; i++) {
		u64 before = read_tsc(), ns = os_clock_ns(), after = read_tsc();

		if (after - before < best.width)
			best = (struct tsc_sample){ before + (after - before) / 2, ns, after - before };
	}
	return best;
}

/* Four milliseconds give about five parts in a million. */
static u32 khz_measured(void)
{
	struct tsc_sample a = sample_clocks(), b;

	while (os_clock_ns() - a.ns < 4000000)
		;
	b = sample_clocks();
	return (u128)(b.tsc - a.tsc) * 1000000 / (b.ns - a.ns);
}

u32 os_tsc_khz(void)
{
	static u32 known;
	u32 khz = READ_ONCE(known);

	if (khz)
		return khz;
	khz = khz_from_perf();
	if (!khz)
		khz = khz_from_cpuid();
	if (!khz)
		khz = khz_measured();
	WRITE_ONCE(known, khz);
	return khz;
}
