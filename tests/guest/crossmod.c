/*
 * Cross-modifying code: CPUs rewrite functions that others run. After the writer has said so, by a flag
 * (then the reader serializes) or by an interrupt, the old code must not run any more. SDM 3A 8.1.3
 */
#include "paging.h"
#include "smp.h"

#define CPUS 4
#define VEC_SYNC 0x73

static u8 *page;	/* page, and the one behind it */

/* mov $v, %eax; ret - the immediate aligned, so that a write of it is one. */
static void put_function(u8 *at, u32 v)
{
	at[3] = 0xb8;
	*(volatile u32 *)(at + 4) = v;
	at[8] = 0xc3;
}

static u32 call_function(u8 *at)
{
	ulong v;

	asm volatile("call *%1" : "=a"(v) : "r"(at + 3) : "memory", "rcx", "rdx", "rsi", "rdi", "cc");
	return v;
}

/* Several ways to write four bytes. */
static void put_value(u8 *at, u32 v)
{
	volatile u32 *p = (volatile u32 *)(at + 4);
	u32 t = v;

	switch (v % 6) {
	case 0:
	case 1:
		*p = v;
		break;
	case 2:
		asm volatile("xchgl %0, %1" : "+r"(t), "+m"(*p) :: "memory");
		break;
	case 3:
		asm volatile("lock cmpxchgl %2, %0" : "+m"(*p) , "+a"(*(u32[]){ *p }) : "r"(v) : "memory", "cc");
		break;
	case 4: {
		void *d = (void *)p;
		const void *s = &t;
		ulong n = 1;

		asm volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(n) :: "memory");
		break;
	}
	case 5:
		asm volatile("lock addl %1, %0" : "+m"(*p) : "r"(v - *p) : "memory", "cc");
		break;
	}
}

/* ---- with a flag, taking turns ---- */

struct turns {
	u8 *at;
	u32 rounds, written, run, wrong;
};

static void turns_write(u32 cpu, ulong arg)
{
	struct turns *t = (struct turns *)arg;
	u32 i;

	for (i = 1; i <= t->rounds; i++) {
		put_value(t->at, i);
		STORE(t->written, i);
		while (LOAD(t->run) < i)
			pause_cpu();
	}
}

static void turns_run(struct turns *t)
{
	u32 i;

	for (i = 1; i <= t->rounds; i++) {
		while (LOAD(t->written) < i)
			pause_cpu();
		cpuid(0, 0);
		if (call_function(t->at) != i)
			t->wrong++;
		STORE(t->run, i);
	}
}

static void take_turns(const char *name, u8 *at, u32 rounds)
{
	struct turns t = { .at = at, .rounds = rounds };

	put_function(at, 0);
	smp_call(1, turns_write, (ulong)&t);
	turns_run(&t);
	smp_wait(1);
	check(!t.wrong, "%s: old code %u times of %u", name, t.wrong, rounds);
}

/* ---- with a flag, not waiting ---- */

struct stream {
	u8 *at;
	u32 rounds, published, done, wrong, calls, fresh;
};

static void stream_write(u32 cpu, ulong arg)
{
	struct stream *s = (struct stream *)arg;
	u32 i;

	/* Until the readers have called often enough, and seen enough versions. */
	for (i = 1; LOAD(s->calls) < s->rounds || LOAD(s->fresh) < 50; i++) {
		put_value(s->at, i);
		STORE(s->published, i);
		pause_cpu();
	}
	STORE(s->done, 1);
}

static void stream_run(u32 cpu, ulong arg)
{
	struct stream *s = (struct stream *)arg;
	u32 last = 0;

	while (!LOAD(s->published))
		pause_cpu();
	while (!LOAD(s->done)) {
		u32 least = LOAD(s->published), got;

		cpuid(0, 0);
		got = call_function(s->at);
		if (got < least)
			__atomic_fetch_add(&s->wrong, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&s->calls, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&s->fresh, got != last, __ATOMIC_RELAXED);
		last = got;
	}
}

static void stream(const char *name, u8 *at, u32 readers, u32 rounds)
{
	struct stream s = { .at = at, .rounds = rounds };
	u32 cpu;

	put_function(at, 0);
	for (cpu = 2; cpu < 2 + readers - 1; cpu++)
		smp_call(cpu, stream_run, (ulong)&s);
	smp_call(1, stream_write, (ulong)&s);
	stream_run(0, (ulong)&s);
	for (cpu = 1; cpu < 2 + readers - 1; cpu++)
		smp_wait(cpu);
	check(!s.wrong, "%s: old code %u times of %u", name, s.wrong, s.calls);
	print("%u times another version than before\n", s.fresh);
}

/* ---- by interrupt: the readers do nothing about it but return from the handler ---- */

static u32 synced;

static void on_sync(struct trap_frame *f)
{
	__atomic_fetch_add(&synced, 1, __ATOMIC_ACQ_REL);
	lapic_eoi();
}

static struct stream forced;

static void forced_run(u32 cpu, ulong arg)
{
	sti();
	while (!LOAD(forced.done)) {
		u32 least = LOAD(forced.published);

		if (call_function(forced.at) < least)
			__atomic_fetch_add(&forced.wrong, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&forced.calls, 1, __ATOMIC_RELAXED);
	}
	cli();
}

static void by_interrupt(u8 *at, u32 rounds)
{
	u32 cpu, i;

	forced = (struct stream){ .at = at };
	put_function(at, 0);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_call(cpu, forced_run, 0);
	for (i = 1; i <= rounds; i++) {
		put_value(at, i);
		STORE(synced, 0);
		lapic_write(LAPIC_ICR, ICR_OTHERS | ICR_ASSERT | VEC_SYNC);
		while (LOAD(synced) < CPUS - 1)
			pause_cpu();
		/* Whoever sees this has returned from the handler, or calls after it. */
		STORE(forced.published, i);
	}
	STORE(forced.done, 1);
	for (cpu = 1; cpu < CPUS; cpu++)
		smp_wait(cpu);
	check(!forced.wrong, "by interrupt, three readers: old code %u times of %u", forced.wrong, forced.calls);
}

/* ---- everybody rewrites and runs functions of its own on one page ---- */

static u32 own_wrong[CPUS];

static void own_code(u32 cpu, ulong rounds)
{
	u8 *at = page + 512 + cpu * 64;
	u32 i;

	put_function(at, 0);
	smp_meet(CPUS);
	for (i = 1; i <= rounds; i++) {
		put_value(at, i);
		if (call_function(at) != i)
			own_wrong[cpu]++;
	}
}

static void each_its_own(u32 rounds)
{
	smp_all(CPUS, own_code, rounds);
	expect("each CPU its own function on one page", own_wrong[0] + own_wrong[1] + own_wrong[2] +
	       own_wrong[3], 0);
}

/* Two streams on neighbouring functions: the writers race for the same page's state. */
static void two_streams(u32 rounds)
{
	struct stream a = { .at = page + 1024, .rounds = rounds }, b = { .at = page + 1088, .rounds = rounds };

	put_function(a.at, 0);
	put_function(b.at, 0);
	smp_call(1, stream_write, (ulong)&a);
	smp_call(2, stream_write, (ulong)&b);
	smp_call(3, stream_run, (ulong)&a);
	stream_run(0, (ulong)&b);
	smp_wait(1);
	smp_wait(2);
	smp_wait(3);
	check(!a.wrong && !b.wrong, "two functions of one page: old code %u and %u times of %u", a.wrong, b.wrong,
	      a.calls + b.calls);
}

void guest_main(void)
{
	static u8 code[5 * 4096] PAGE_ALIGNED;
	u32 i;

	page = code;
	trap_handle(VEC_SYNC, on_sync);
	smp_start(CPUS);
	take_turns("flag and CPUID", page + 64, 1000);
	take_turns("a function in two pages", page + 4096 - 8, 500);
	take_turns("an instruction in two pages", page + 4096 - 4, 500);
	/* The writer reaches the page by another address than the reader. */
	for (i = 0; i < 2; i++)
		page_map(TEST_VA + i * 4096, (ulong)page + i * 4096, PTE_P | PTE_W);
	take_turns("through another mapping", (u8 *)TEST_VA + 128, 500);
	stream("not waiting", page + 192, 1, 5000);
	stream("not waiting, three readers", page + 256, 3, 5000);
	by_interrupt(page + 320, 100);
	each_its_own(2000);
	two_streams(3000);
}
