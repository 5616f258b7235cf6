/*
 * Spinning with PAUSE where the host has fewer CPUs than the guest: a ticket lock and barriers still go on,
 * whoever the host runs at the moment.
 */
#include "smp.h"

#define CPUS 4

static u32 next, serving, shared, order_wrong;

static void ticket_lock(void)
{
	u32 mine = __atomic_fetch_add(&next, 1, __ATOMIC_ACQ_REL);

	while (LOAD(serving) != mine)
		pause_cpu();
}

static void ticket_unlock(void)
{
	STORE(serving, serving + 1);
}

static void contend(u32 cpu, ulong rounds)
{
	while (rounds--) {
		u32 before;

		ticket_lock();
		before = LOAD(shared);
		pause_cpu();
		if (LOAD(shared) != before)
			order_wrong++;
		STORE(shared, before + 1);
		ticket_unlock();
	}
}

static void meet_often(u32 cpu, ulong rounds)
{
	while (rounds--)
		smp_meet(CPUS);
}

/* One works, the others wait for it all the time. */
static u32 work_done;

static void wait_for_work(u32 cpu, ulong arg)
{
	volatile u32 i;

	if (cpu == 2) {
		for (i = 0; i < 500000; i++)
			;
		STORE(work_done, 1);
	}
	while (!LOAD(work_done))
		pause_cpu();
}

static u32 ms_since(u64 start)
{
	return (rdtsc() - start) / tsc_per_us() / 1000;
}

void guest_main(void)
{
	u64 start;
	u32 ms;

	smp_start(CPUS);
	start = rdtsc();
	smp_all(CPUS, contend, 500);
	ms = ms_since(start);
	expect("a ticket lock taken by all in turn", shared, CPUS * 500);
	expect("by one at a time", order_wrong, 0);
	check(ms < 20000, "in bounded time");
	print("2000 rounds of the lock took %u ms\n", ms);
	start = rdtsc();
	smp_all(CPUS, meet_often, 500);
	ms = ms_since(start);
	check(ms < 20000, "500 barriers in bounded time");
	print("they took %u ms\n", ms);
	start = rdtsc();
	smp_all(CPUS, wait_for_work, 0);
	ms = ms_since(start);
	check(ms < 20000, "three wait for one");
	print("it took %u ms\n", ms);
}
