/*
 * TLB shootdown: one CPU changes a page table entry, tells the others by IPI, and none of them may
 * use the old translation after it has answered. SDM 3A 4.10.5
 */
#include "paging.h"
#include "smp.h"

#define CPUS 4
#define VEC_SHOOT 0x71

static u32 answered, stop;
static ulong shoot_va;
static u64 *pages[2];

static void on_shoot(struct trap_frame *f)
{
	invlpg((void *)LOAD(shoot_va));
	__atomic_fetch_add(&answered, 1, __ATOMIC_ACQ_REL);
	lapic_eoi();
}

static void shoot(ulong va)
{
	STORE(answered, 0);
	STORE(shoot_va, va);
	invlpg((void *)va);
	lapic_write(LAPIC_ICR, ICR_OTHERS | ICR_ASSERT | VEC_SHOOT);
	while (LOAD(answered) < CPUS - 1)
		pause_cpu();
}

/* Reads and writes all the time. What it writes carries its number. */
static void hammer(u32 cpu, ulong va)
{
	u64 *p = (u64 *)va;

	sti();
	while (!LOAD(stop)) {
		(void)*(volatile u64 *)&p[0];
		((volatile u64 *)p)[cpu]++;
	}
	cli();
}

/* The page moves between two frames; no CPU may touch the frame it has left. */
static void moves(u32 rounds)
{
	u32 cpu, i, j;

	page_map(TEST_VA, (ulong)pages[0], PTE_P | PTE_W);
	STORE(stop, 0);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_call(cpu, hammer, TEST_VA);
	sweep("a page moved under three CPUs that write to it");
	for (i = 0; i < rounds; i++) {
		u64 *left = pages[i & 1], now[CPUS];

		*page_entry(TEST_VA, 1) = (ulong)pages[~i & 1] | PTE_P | PTE_W;
		shoot(TEST_VA);
		for (cpu = 1; cpu < CPUS; cpu++)
			now[cpu] = LOAD(left[cpu]);
		for (j = 0; j < 200; j++)
			pause_cpu();
		for (cpu = 1; cpu < CPUS; cpu++)
			sweep_check(LOAD(left[cpu]) == now[cpu], "round %u: CPU %u still writes", i, cpu);
	}
	sweep_end();
	STORE(stop, 1);
	for (cpu = 1; cpu < CPUS; cpu++) {
		smp_wait(cpu);
		check(pages[0][cpu] && pages[1][cpu], "CPU %u wrote to both", cpu);
	}
}

/* One CPU catches what the others took away from it. */
static u32 phase;
static int got[4];

static void victim(u32 cpu, ulong va)
{
	volatile u64 *p = (u64 *)va;

	(void)*p;
	*p = 1;
	STORE(phase, 1);
	sti();
	while (LOAD(phase) < 2)
		pause_cpu();
	cli();
	got[0] = catch(*p = 2);			/* write-protected */
	got[1] = catch((void)*p);
	STORE(phase, 3);
	sti();
	while (LOAD(phase) < 4)
		pause_cpu();
	cli();
	got[2] = catch((void)*p);		/* gone */
	STORE(phase, 5);
}

static void rights(u32 rounds)
{
	u32 i;

	sweep("rights taken away by another CPU");
	for (i = 0; i < rounds; i++) {
		STORE(phase, 0);
		page_map(TEST_VA, (ulong)pages[0], PTE_P | PTE_W);
		smp_call(1 + i % 3, victim, TEST_VA);
		while (LOAD(phase) < 1)
			pause_cpu();
		*page_entry(TEST_VA, 1) = (ulong)pages[0] | PTE_P;
		shoot_va = TEST_VA;
		STORE(answered, 0);
		invlpg((void *)TEST_VA);
		smp_ipi(1 + i % 3, ICR_ASSERT | VEC_SHOOT);
		while (!LOAD(answered))
			pause_cpu();
		STORE(phase, 2);
		while (LOAD(phase) < 3)
			pause_cpu();
		*page_entry(TEST_VA, 1) = 0;
		STORE(answered, 0);
		smp_ipi(1 + i % 3, ICR_ASSERT | VEC_SHOOT);
		while (!LOAD(answered))
			pause_cpu();
		STORE(phase, 4);
		while (LOAD(phase) < 5)
			pause_cpu();
		smp_wait(1 + i % 3);
		sweep_check(got[0] == PF && got[1] == NONE && got[2] == PF, "round %u: %d %d %d", i, got[0],
			    got[1], got[2]);
	}
	sweep_end();
}

static void set_wp(u32 cpu, ulong arg)
{
	write_cr0(read_cr0() | CR0_WP);
}

/* Accessed and dirty bits set by all at once: none of the entry's other bits may get lost. */
static u64 *entry;
static u32 go;

static void touch(u32 cpu, ulong rounds)
{
	ulong i;

	for (i = 0; i < rounds; i++) {
		while (LOAD(go) <= i)
			pause_cpu();
		invlpg((void *)TEST_VA);
		*(volatile u8 *)(TEST_VA + cpu) = i;
		__atomic_fetch_or(entry, BIT(52 + cpu), __ATOMIC_ACQ_REL);
		smp_meet(CPUS);
	}
}

static void dirty_bits(u32 rounds)
{
	u64 want = (ulong)pages[0] | PTE_P | PTE_W | BIT(5) | BIT(6) | BIT(52) | BIT(53) | BIT(54) | BIT(55);
	u32 cpu, i;

	page_map(TEST_VA, (ulong)pages[0], PTE_P | PTE_W);
	entry = page_entry(TEST_VA, 1);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_call(cpu, touch, rounds);
	sweep("accessed and dirty bits beside software bits");
	for (i = 0; i < rounds; i++) {
		*entry = (ulong)pages[0] | PTE_P | PTE_W;
		STORE(go, i + 1);
		invlpg((void *)TEST_VA);
		*(volatile u8 *)TEST_VA = i;
		__atomic_fetch_or(entry, BIT(52), __ATOMIC_ACQ_REL);
		smp_meet(CPUS);
		sweep_check(*entry == want, "round %u: %lx", i, *entry);
	}
	sweep_end();
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_wait(cpu);
}

void guest_main(void)
{
	trap_handle(VEC_SHOOT, on_shoot);
	pages[0] = page_alloc();
	pages[1] = page_alloc();
	smp_start(CPUS);
	smp_all(CPUS, set_wp, 0);
	moves(200);
	rights(50);
	dirty_bits(100);
}
