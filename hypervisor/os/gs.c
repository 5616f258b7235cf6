/*
 * The base of the GS segment, which engines use for the vCPU that this thread runs: by RDGSBASE and
 * WRGSBASE where the kernel allows them (Linux 5.9 and later), else by arch_prctl(2). glibc leaves
 * GS alone on x86-64. SDM 3A 3.4.4.1
 */
#include <asm/prctl.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/os/os.h"

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE	2
#endif

enum { GS_UNKNOWN, GS_FAST, GS_SLOW };

/* QUMRA_NO_FSGSBASE=1 takes the other way, for tests. */
static int gs_probe(void)
{
	const char *no = getenv("QUMRA_NO_FSGSBASE");

	if (no && *no && *no != '0')
		return GS_SLOW;
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE ? GS_FAST : GS_SLOW;
}

bool os_gs_fast(void)
{
	static int known = GS_UNKNOWN;	/* atomic; any thread finds the same */
	int way = READ_ONCE(known);

	if (unlikely(way == GS_UNKNOWN)) {
		way = gs_probe();
		WRITE_ONCE(known, way);
	}
	return way == GS_FAST;
}

u64 os_gs_get(void)
{
	u64 base = 0;

	if (os_gs_fast())
		__asm__ volatile("rdgsbase %0" : "=r"(base));
	else
		syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
	return base;
}

void os_gs_set(u64 base)
{
	if (os_gs_fast())
		__asm__ volatile("wrgsbase %0" : : "r"(base) : "memory");
	else
		syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}
