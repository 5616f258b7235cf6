/* KVM's paravirtual clock: the page is consistent and agrees with the other clocks. KVM's cpuid.rst, msr.rst. */
#include "chips.h"

#define MSR_KVM_WALL_CLOCK_NEW	0x4b564d00
#define MSR_KVM_SYSTEM_TIME_NEW	0x4b564d01

static volatile struct pvclock {
	u32 version, pad;
	u64 tsc_timestamp, system_time;
	u32 mul;
	signed char shift;
	u8 flags, pad2[2];
} clock __attribute__((aligned(64)));

static volatile struct { u32 version, sec, nsec; } wall __attribute__((aligned(64)));

static u64 now(void)
{
	u32 version;
	u64 t;

	do {
		u64 delta;
		unsigned __int128 wide;

		version = clock.version;
		asm volatile("lfence" ::: "memory");
		delta = rdtsc() - clock.tsc_timestamp;
		delta = clock.shift >= 0 ? delta << clock.shift : delta >> -clock.shift;
		wide = (unsigned __int128)delta * clock.mul;
		t = clock.system_time + (u64)(wide >> 32);
		asm volatile("lfence" ::: "memory");
	} while (version & 1 || version != clock.version);
	return t;
}

void guest_main(void)
{
	u64 last, t;
	u32 i, pm0, pm1;

	if (!(cpuid(1, 0).ecx & BIT(31)) || cpuid(0x40000000, 0).ebx != 0x4b4d564b) {
		skip("kvmclock", "not on KVM");
		check(true, "nothing to test");
		return;
	}
	check(cpuid(0x40000001, 0).eax & BIT(3), "shown in CPUID");
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (ulong)&clock | 1);
	expect("the MSR reads back", rdmsr(MSR_KVM_SYSTEM_TIME_NEW), (ulong)&clock | 1);
	check(clock.version && !(clock.version & 1), "an even version: %u", clock.version);
	check(clock.mul, "a multiplier");
	sweep("never goes back");
	last = now();
	for (i = 0; i < 5000; i++) {
		t = now();
		sweep_check(t >= last, "%llu after %llu", (unsigned long long)t, (unsigned long long)last);
		last = t;
	}
	sweep_end();
	t = now();
	pm0 = inl(PM_TIMER);
	while (((inl(PM_TIMER) - pm0) & 0xffffff) < 357954)	/* 100 ms */
		;
	pm1 = inl(PM_TIMER);
	{
		u32 us = (u32)((now() - t) / 1000), want = ((pm1 - pm0) & 0xffffff) * 100u / 358u;

		check(us > want - want / 10 && us < want + want, "agrees with the PM timer: %u us, %u by the other", us,
		      want);
	}
	wrmsr(MSR_KVM_WALL_CLOCK_NEW, (ulong)&wall);
	check(!(wall.version & 1) && wall.sec > 1700000000, "wall clock at boot: %u", wall.sec);
	wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}
