/*
 * Locked operations of four CPUs on one operand: aligned, across a cache line, across two pages, and on
 * a page with code that is being run. SDM 3A 8.1.2
 */
#include "paging.h"
#include "smp.h"

#define CPUS 4

static u8 *area;	/* three pages; the second one has code too */
static u32 rounds;

/* ---- what is counted ---- */

struct op {
	const char *name;
	u32 size;	/* bytes of the operand */
	u32 cost;	/* rounds are divided by this */
	void (*run)(void *p, u32 cpu, u32 n);
	/* The operand after total rounds of all CPUs together. */
	bool (*right)(const void *p, u32 total);
};

static void run_add(void *p, u32 cpu, u32 n)
{
	while (n--)
		asm volatile("lock addl $1, %0" : "+m"(*(u32 *)p) :: "cc");
}

static void run_inc64(void *p, u32 cpu, u32 n)
{
	while (n--)
		asm volatile("lock incq %0" : "+m"(*(u64 *)p) :: "cc");
}

static void run_xadd(void *p, u32 cpu, u32 n)
{
	while (n--) {
		u32 one = 1;

		asm volatile("lock xaddl %1, %0" : "+m"(*(u32 *)p), "+r"(one) :: "cc");
	}
}

static void run_cmpxchg(void *p, u32 cpu, u32 n)
{
	while (n--) {
		u64 old = *(volatile u64 *)p;
		bool done;

		do
			asm volatile("lock cmpxchgq %3, %0"
				     : "+m"(*(u64 *)p), "+a"(old), "=@ccz"(done) : "r"(old + 1) : "memory");
		while (!done);
	}
}

static void run_cmpxchg8b(void *p, u32 cpu, u32 n)
{
	while (n--) {
		u32 lo = *(volatile u32 *)p, hi = *(volatile u32 *)(p + 4);
		bool done;

		do {
			u64 next = ((u64)hi << 32 | lo) + 1;

			asm volatile("lock cmpxchg8b %0"
				     : "+m"(*(u64 *)p), "+a"(lo), "+d"(hi), "=@ccz"(done)
				     : "b"((u32)next), "c"((u32)(next >> 32)) : "memory");
		} while (!done);
	}
}

/* Both halves count. */
static void run_cmpxchg16b(void *p, u32 cpu, u32 n)
{
	while (n--) {
		u64 lo = *(volatile u64 *)p, hi = *(volatile u64 *)(p + 8);
		bool done;

		do
			asm volatile("lock cmpxchg16b %0"
				     : "+m"(*(unsigned __int128 *)p), "+a"(lo), "+d"(hi), "=@ccz"(done)
				     : "b"(lo + 1), "c"(hi - 1) : "memory");
		while (!done);
	}
}

/* A lock of its own in the first half; the second is changed under it by plain stores. */
static void run_xchg(void *p, u32 cpu, u32 n)
{
	while (n--) {
		u16 taken = 1;

		for (;;) {
			asm volatile("xchgw %1, %0" : "+m"(*(u16 *)p), "+r"(taken) :: "memory");
			if (!taken)
				break;
			pause_cpu();
		}
		*(volatile u16 *)(p + 2) += 1;
		asm volatile("xchgw %1, %0" : "+m"(*(u16 *)p), "+r"(taken) :: "memory");
	}
}

/* Each CPU has a bit of each byte, sets and clears it, and must find it as it left it. */
static u32 bit_lost[CPUS];

static void run_bits(void *p, u32 cpu, u32 n)
{
	u64 bit = cpu + 8 * (cpu + 2);
	bool was;

	while (n--) {
		asm volatile("lock btsq %2, %0" : "+m"(*(u64 *)p), "=@ccc"(was) : "r"(bit) : "memory");
		bit_lost[cpu] += was;
		asm volatile("lock btcq %2, %0" : "+m"(*(u64 *)p), "=@ccc"(was) : "r"(bit) : "memory");
		bit_lost[cpu] += !was;
		asm volatile("lock btrq %2, %0" : "+m"(*(u64 *)p), "=@ccc"(was) : "r"(bit) : "memory");
		bit_lost[cpu] += was;
	}
}

/* OR in, AND out, XOR twice, of a field for each CPU. */
static void run_logic(void *p, u32 cpu, u32 n)
{
	u32 field = 0xffu << (8 * cpu);

	while (n--) {
		asm volatile("lock orl %1, %0" : "+m"(*(u32 *)p) : "r"(field) : "cc");
		asm volatile("lock andl %1, %0" : "+m"(*(u32 *)p) : "r"(~field) : "cc");
		asm volatile("lock xorl %1, %0" : "+m"(*(u32 *)p) : "r"(field) : "cc");
		asm volatile("lock xorl %1, %0" : "+m"(*(u32 *)p) : "r"(field) : "cc");
	}
}

/* +3 -1 with all that can carry: 2 a round. */
static void run_mixed(void *p, u32 cpu, u32 n)
{
	while (n--) {
		asm volatile("lock subl $-3, %0" : "+m"(*(u32 *)p) :: "cc");
		asm volatile("stc; lock sbbl $0, %0" : "+m"(*(u32 *)p) :: "cc");
		asm volatile("stc; lock adcl $0, %0" : "+m"(*(u32 *)p) :: "cc");
		asm volatile("lock decl %0" : "+m"(*(u32 *)p) :: "cc");
	}
}

/* An even number of all CPUs together leaves it; none may be lost. */
static void run_not(void *p, u32 cpu, u32 n)
{
	for (n *= 2; n; n--)
		asm volatile("lock notl %0" : "+m"(*(u32 *)p) :: "cc");
}

static bool right_u32(const void *p, u32 total) { return *(const u32 *)p == total; }
static bool right_u64(const void *p, u32 total) { return *(const u64 *)p == total; }
static bool right_twice(const void *p, u32 total) { return *(const u32 *)p == 2 * total; }
static bool right_zero(const void *p, u32 total) { return *(const u32 *)p == 0; }
static bool right_xchg(const void *p, u32 total) { return *(const u32 *)p == total << 16; }

static bool right_bits(const void *p, u32 total)
{
	return *(const u64 *)p == 0 && !(bit_lost[0] | bit_lost[1] | bit_lost[2] | bit_lost[3]);
}

static bool right_16(const void *p, u32 total)
{
	const u64 *q = p;

	return q[0] == total && q[1] == -(u64)total;
}

static const struct op ops[] = {
	{ "add", 4, 1, run_add, right_u32 },
	{ "inc of 8 bytes", 8, 1, run_inc64, right_u64 },
	{ "xadd", 4, 1, run_xadd, right_u32 },
	{ "cmpxchg", 8, 1, run_cmpxchg, right_u64 },
	{ "cmpxchg8b", 8, 1, run_cmpxchg8b, right_u64 },
	{ "cmpxchg16b", 16, 1, run_cmpxchg16b, right_16 },
	{ "xchg", 4, 2, run_xchg, right_xchg },
	{ "bts, btr, btc", 8, 2, run_bits, right_bits },
	{ "or, and, xor", 4, 2, run_logic, right_zero },
	{ "sub, sbb, adc, dec", 4, 2, run_mixed, right_twice },
	{ "not", 4, 2, run_not, right_zero },
};

/* ---- where ---- */

static void call_code(void *p)
{
	ulong v;

	asm volatile("call *%1" : "=a"(v) : "r"(p) : "memory", "rcx", "rdx", "rsi", "rdi", "cc");
}

/* Code on the page, run by every CPU between its operations: it stays decoded beside the operand. */
static void *code_beside;

static void count(u32 cpu, ulong arg)
{
	const struct op *op = (const struct op *)arg;
	void *p = *(void *volatile *)&area;
	u32 n = rounds / op->cost, every = code_beside ? 2 : n, part;

	smp_meet(CPUS);
	while (n) {
		part = n < every ? n : every;
		op->run(p, cpu, part);
		n -= part;
		if (code_beside)
			call_code(code_beside);
	}
}

static void try(const char *where, u8 *at, u32 n, u32 align)
{
	u8 *base = area;
	u32 i;

	sweep(where);
	rounds = n;
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		const struct op *op = &ops[i];

		/* 16 bytes are aligned always. */
		if (align && op->size == 16)
			continue;
		memset(bit_lost, 0, sizeof(bit_lost));
		memset(at, 0, op->size);
		area = at;
		smp_all(CPUS, count, (ulong)op);
		area = base;
		sweep_check(op->right(at, CPUS * (n / op->cost)), "%s: %lx %lx", op->name, *(u64 *)at,
			    *(u64 *)(at + 8));
	}
	sweep_end();
}

void guest_main(void)
{
	/* mov $1, %eax; ret */
	static const u8 code[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
	u32 i;

	for (i = 0; i < 3; i++)
		page_map(TEST_VA + i * 4096, (ulong)page_alloc(), PTE_P | PTE_W);
	area = (u8 *)TEST_VA;
	smp_start(CPUS);
	try("aligned", area + 64, 20000, 0);
	try("across cache lines", area + 63, 1000, 1);
	try("across pages", area + 4095, 1000, 1);
	try("across pages, the other way", area + 4096 - 3, 1000, 1);
	memcpy(area + 4096 + 1024, code, sizeof(code));
	code_beside = area + 4096 + 1024;
	try("on a page with code", area + 4096 + 2048, 500, 0);
	try("beside code", area + 4096 + 1024 + 16, 3000, 0);
	try("across a cache line of code", area + 4096 + 1024 + 63, 300, 1);
	try("across pages, one with code", area + 4095, 100, 1);
}
