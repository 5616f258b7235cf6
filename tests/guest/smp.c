/*
 * Starting the other CPUs: INIT and SIPI, their first state, APIC ids, topology as CPUID tells it.
 * SDM 3A 8.4, 8.9, table 9-1
 */
#include "smp.h"

#define CPUS 4

static struct seen {
	u32 apic_id, cpuid_id, x2_id, ran;
	u64 apic_base, tsc;
	u32 package, extended_id, cores;
	ulong cr0, cr4, efer;
} seen[CPUS];

static void look(u32 cpu, ulong arg)
{
	struct seen *s = &seen[cpu];

	s->apic_id = smp_self();
	s->cpuid_id = cpuid(1, 0).ebx >> 24;
	s->x2_id = cpuid(0xb, 0).edx;
	s->package = cpuid(1, 0).ebx >> 16 & 0xff;
	s->extended_id = cpuid(0x80000000, 0).eax >= 0x8000001e ? cpuid(0x8000001e, 0).eax : cpu;
	s->cores = (cpuid(0x80000008, 0).ecx & 0xff) + 1;
	s->apic_base = rdmsr(MSR_APIC_BASE);
	s->cr0 = read_cr0();
	s->cr4 = read_cr4();
	s->efer = rdmsr(MSR_EFER);
	s->tsc = rdtsc();
	s->ran++;
}

static void identities(void)
{
	bool amd = cpuid(0, 0).ebx == 0x68747541;
	u32 cpu;

	sweep("each CPU knows itself");
	for (cpu = 0; cpu < CPUS; cpu++) {
		const struct seen *s = &seen[cpu];

		sweep_check(s->apic_id == cpu, "CPU %u: APIC id %u", cpu, s->apic_id);
		sweep_check(s->cpuid_id == cpu, "CPU %u: leaf 1 says %u", cpu, s->cpuid_id);
		sweep_check(s->x2_id == cpu, "CPU %u: leaf 0xb says %u", cpu, s->x2_id);
		sweep_check(!amd || s->extended_id == cpu, "CPU %u: leaf 0x8000001e says %u", cpu,
			    s->extended_id);
		sweep_check(!(s->apic_base & BIT(8)) == !!cpu, "CPU %u: BSP flag", cpu);
		sweep_check(s->ran == 1, "CPU %u ran %u times", cpu, s->ran);
	}
	sweep_end();
	sweep("and the others");
	for (cpu = 0; cpu < CPUS; cpu++) {
		const struct seen *s = &seen[cpu];

		sweep_check(s->package == CPUS, "CPU %u: %u in the package", cpu, s->package);
		sweep_check(!amd || s->cores == CPUS, "CPU %u: %u cores", cpu, s->cores);
	}
	sweep_check(cpuid(1, 0).edx & BIT(28), "HTT");
	sweep_check((cpuid(0xb, 0).ebx & 0xffff) == 1, "one thread a core");
	sweep_check((cpuid(0xb, 1).ebx & 0xffff) == CPUS, "CPUs by leaf 0xb");
	sweep_check((cpuid(0xb, 1).eax & 31) == 2, "bits of a core's number");
	sweep_check((cpuid(0xb, 1).ecx >> 8 & 0xff) == 2, "the level is cores");
	sweep_end();
}

static void states(void)
{
	u32 cpu;

	for (cpu = 1; cpu < CPUS; cpu++)
		if (seen[cpu].cr0 != 0x80000031 || seen[cpu].cr4 != CR4_PAE ||
		    (seen[cpu].efer & (EFER_LME | EFER_LMA)) != (EFER_LME | EFER_LMA))
			check(false, "CPU %u: cr0 %lx cr4 %lx efer %lx", cpu, seen[cpu].cr0,
			      seen[cpu].cr4, seen[cpu].efer);
}

/* A flag goes around; each CPU notes its clock, which must not go back. */
static u64 clock_at;
static u32 turn, backwards;

static void clock_round(u32 cpu, ulong rounds)
{
	ulong i;

	for (i = 0; i < rounds; i++) {
		u64 now;

		while (LOAD(turn) % CPUS != cpu)
			pause_cpu();
		now = rdtsc();
		if (now < clock_at)
			backwards++;
		clock_at = now;
		STORE(turn, turn + 1);
	}
}

/* INIT puts a running CPU back to waiting; a second SIPI to a running one is ignored. */
static volatile u32 beats[CPUS];

static void beat(u32 cpu, ulong arg)
{
	for (;;)
		STORE(beats[cpu], beats[cpu] + 1);
}

static bool beating(u32 cpu)
{
	u32 before = LOAD(beats[cpu]);

	delay_us(20000);
	return LOAD(beats[cpu]) != before;
}

static void init_stops(void)
{
	smp_call(3, beat, 0);
	while (!LOAD(beats[3]))
		pause_cpu();
	smp_ipi(3, ICR_STARTUP | ICR_ASSERT | 9);
	check(beating(3), "a SIPI to a running CPU is ignored");
	smp_ipi(3, ICR_INIT | ICR_ASSERT | BIT(15));
	/* A thread of a busy host may be late; one that never stops runs out of turns. */
	for (int i = 0; i < 100 && beating(3); i++)
		;
	check(!beating(3), "INIT stops a CPU");
}

void guest_main(void)
{
	u32 cpu;

	check(smp_start(CPUS) == CPUS, "INIT and SIPI start the others");
	smp_all(CPUS, look, 0);
	identities();
	states();
	smp_all(CPUS, clock_round, 1000);
	check(!backwards, "clocks of different CPUs in order: %u of %u not", backwards, turn);
	init_stops();
	for (cpu = 0; cpu < CPUS - 1; cpu++)
		check(seen[cpu].ran == 1, "CPU %u is as it was", cpu);
}
