/* Interrupts between CPUs: ping-pong of halted CPUs, broadcasts, NMI, lowest priority, none lost. SDM 3A 10.6 */
#include "smp.h"

#define CPUS 4
#define VEC_PING 0x61
#define VEC_ALL 0x62

static u32 pings[CPUS], alls[CPUS], nmis[CPUS];

static void on_ping(struct trap_frame *f)
{
	__atomic_fetch_add(&pings[smp_self()], 1, __ATOMIC_RELAXED);
	lapic_eoi();
}

static void on_all(struct trap_frame *f)
{
	__atomic_fetch_add(&alls[smp_self()], 1, __ATOMIC_RELAXED);
	lapic_eoi();
}

static void on_nmi(struct trap_frame *f)
{
	__atomic_fetch_add(&nmis[smp_self()], 1, __ATOMIC_RELAXED);
}

/* Each answers a ping with one to its partner, asleep in between. */
static void pong(u32 cpu, ulong rounds)
{
	u32 n;

	for (n = 1; n <= rounds; n++) {
		cli();
		while (LOAD(pings[cpu]) < n)
			sti_hlt_cli();
		smp_ipi(cpu ^ 1, ICR_ASSERT | VEC_PING);
	}
}

static void ping_pong(u32 rounds)
{
	u64 start = rdtsc(), us;

	smp_call(1, pong, rounds);
	smp_ipi(1, ICR_ASSERT | VEC_PING);
	pong(0, rounds - 1);
	cli();
	while (LOAD(pings[0]) < rounds)
		sti_hlt_cli();
	smp_wait(1);
	us = (rdtsc() - start) / tsc_per_us();
	expect("pings at CPU 0", pings[0], rounds);
	expect("pings at CPU 1", pings[1], rounds);
	/* Two sleeps and two IPIs a round; a busy host takes some hundred microseconds. */
	check(us < rounds * 20000ull, "rounds between sleeping CPUs in bounded time");
	print("a round took %u us\n", (u32)(us / rounds));
}

static void idle_open(u32 cpu, ulong until)
{
	cli();
	while (LOAD(alls[cpu]) < until)
		sti_hlt_cli();
}

static void broadcasts(u32 rounds)
{
	u32 cpu, i;

	for (cpu = 1; cpu < CPUS; cpu++)
		smp_call(cpu, idle_open, rounds);
	sweep("one to all others");
	for (i = 1; i <= rounds; i++) {
		lapic_write(LAPIC_ICR, ICR_OTHERS | ICR_ASSERT | VEC_ALL);
		for (cpu = 1; cpu < CPUS; cpu++)
			while (LOAD(alls[cpu]) < i)
				pause_cpu();
		sweep_check(alls[1] == i && alls[2] == i && alls[3] == i, "round %u: %u %u %u", i, alls[1],
			    alls[2], alls[3]);
	}
	sweep_end();
	expect("none to the sender", alls[0], 0);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_wait(cpu);
}

static void spin_cli(u32 cpu, ulong flag)
{
	while (!LOAD(*(u32 *)flag))
		pause_cpu();
}

/* NMI reaches a CPU with interrupts off. */
static void nmi(void)
{
	static u32 release;
	u32 i;

	smp_call(2, spin_cli, (ulong)&release);
	for (i = 1; i <= 100; i++) {
		smp_ipi(2, ICR_NMI | ICR_ASSERT);
		while (LOAD(nmis[2]) < i)
			pause_cpu();
	}
	expect("NMIs to a CPU with IF clear", nmis[2], 100);
	/* A fixed one waits for IF, and is there then. */
	smp_ipi(2, ICR_ASSERT | VEC_PING);
	delay_us(2000);
	expect("a fixed interrupt waits for IF", pings[2], 0);
	STORE(release, 1);
	smp_wait(2);
	while (!LOAD(pings[2]))
		pause_cpu();
	expect("and comes with it", pings[2], 1);
}

/* Logical destinations, flat model. */
static void set_logical(u32 cpu, ulong arg)
{
	lapic_write(LAPIC_DFR, 0xffffffff);
	lapic_write(LAPIC_LDR, 1u << (24 + cpu));
}

static void logical(void)
{
	u32 total, i;

	smp_all(CPUS, set_logical, 0);
	for (i = 0; i < CPUS; i++)
		pings[i] = 0;
	lapic_write(LAPIC_ICR2, 0x0au << 24);
	lapic_write(LAPIC_ICR, BIT(11) | ICR_ASSERT | VEC_PING);
	while (!LOAD(pings[1]) || !LOAD(pings[3]))
		pause_cpu();
	expect("a logical one to CPUs 1 and 3 only", pings[0] | pings[2], 0);
	for (i = 0; i < CPUS; i++)
		pings[i] = 0;
	for (i = 1; i <= 50; i++) {
		lapic_write(LAPIC_ICR2, 0x0eu << 24);
		lapic_write(LAPIC_ICR, BIT(11) | 0x100 | ICR_ASSERT | VEC_PING);
		do {
			total = LOAD(pings[1]) + LOAD(pings[2]) + LOAD(pings[3]);
			pause_cpu();
		} while (total < i);
	}
	delay_us(2000);
	expect("lowest priority: one CPU each", pings[0] + pings[1] + pings[2] + pings[3], 50);
}

static void spam(u32 cpu, ulong rounds)
{
	ulong i;

	sti();
	for (i = 0; i < rounds; i++) {
		u32 before = LOAD(pings[cpu]);

		smp_ipi(cpu, ICR_ASSERT | VEC_PING);
		while (LOAD(pings[cpu]) == before)
			pause_cpu();
	}
	cli();
}

void guest_main(void)
{
	trap_handle(VEC_PING, on_ping);
	trap_handle(VEC_ALL, on_all);
	trap_handle(NMI, on_nmi);
	smp_start(CPUS);
	ping_pong(2000);
	broadcasts(1000);
	nmi();
	logical();
	memset(pings, 0, sizeof(pings));
	smp_all(CPUS, spam, 2000);
	expect("CPUs that interrupt themselves", pings[0] + pings[1] + pings[2] + pings[3], CPUS * 2000);
}
