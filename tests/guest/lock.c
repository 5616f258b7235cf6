/* LOCK: where it is allowed; CMPXCHG8B and 16B; atomic operations at odd addresses. SDM 2, LOCK. */
#include "paging.h"

static u8 buf[64] __attribute__((aligned(64)));

#define TRY(want, name, bytes) do { \
	int v_ = catch(asm volatile(bytes :: "b"(buf), "a"(0), "c"(0), "d"(0) : "memory", "cc")); \
	sweep_check(v_ == (want), "%s: %d", name, v_); } while (0)

static void allowed(void)
{
	sweep("LOCK where it is allowed");
	TRY(NONE, "add", "lock addl $1, (%%rbx)");
	TRY(NONE, "or", "lock orl $1, (%%rbx)");
	TRY(NONE, "adc", "lock adcl $1, (%%rbx)");
	TRY(NONE, "sbb", "lock sbbl $1, (%%rbx)");
	TRY(NONE, "and", "lock andl $1, (%%rbx)");
	TRY(NONE, "sub", "lock subl $1, (%%rbx)");
	TRY(NONE, "xor", "lock xorl $1, (%%rbx)");
	TRY(NONE, "add r8", "lock addb %%cl, (%%rbx)");
	TRY(NONE, "not", "lock notl (%%rbx)");
	TRY(NONE, "neg", "lock negl (%%rbx)");
	TRY(NONE, "inc", "lock incl (%%rbx)");
	TRY(NONE, "dec", "lock decb (%%rbx)");
	TRY(NONE, "bts", "lock btsl $3, (%%rbx)");
	TRY(NONE, "btr", "lock btrl %%ecx, (%%rbx)");
	TRY(NONE, "btc", "lock btcq $3, (%%rbx)");
	TRY(NONE, "xchg", "lock xchgl %%ecx, (%%rbx)");
	TRY(NONE, "xadd", "lock xaddl %%ecx, (%%rbx)");
	TRY(NONE, "cmpxchg", "lock cmpxchgl %%ecx, (%%rbx)");
	TRY(NONE, "cmpxchg8b", "lock cmpxchg8b (%%rbx)");
	TRY(NONE, "cmpxchg16b", "lock cmpxchg16b (%%rbx)");
	sweep_end();
}

static void forbidden(void)
{
	sweep("LOCK where it is not: #UD");
	TRY(UD, "add to a register", ".byte 0xf0, 0x01, 0xc8");
	TRY(UD, "add from memory", ".byte 0xf0, 0x03, 0x0b");
	TRY(UD, "cmp", ".byte 0xf0, 0x39, 0x0b");
	TRY(UD, "cmp immediate", ".byte 0xf0, 0x83, 0x3b, 0x01");
	TRY(UD, "test", ".byte 0xf0, 0x85, 0x0b");
	TRY(UD, "mov", ".byte 0xf0, 0x89, 0x0b");
	TRY(UD, "xchg of registers", ".byte 0xf0, 0x87, 0xc8");
	TRY(UD, "bt", ".byte 0xf0, 0x0f, 0xa3, 0x0b");
	TRY(UD, "bt immediate", ".byte 0xf0, 0x0f, 0xba, 0x23, 0x01");
	TRY(UD, "inc of a register", ".byte 0xf0, 0xff, 0xc1");
	TRY(UD, "push", ".byte 0xf0, 0x50");
	TRY(UD, "shl", ".byte 0xf0, 0xd1, 0x23");
	TRY(UD, "mul", ".byte 0xf0, 0xf7, 0x23");
	TRY(UD, "movs", ".byte 0xf0, 0xa4");
	TRY(UD, "lea", ".byte 0xf0, 0x8d, 0x0b");
	TRY(UD, "imul", ".byte 0xf0, 0x0f, 0xaf, 0x0b");
	TRY(UD, "cli", ".byte 0xf0, 0xfa");
	TRY(UD, "movaps", ".byte 0xf0, 0x0f, 0x28, 0x03");
	sweep_end();
}

static bool cx16(u64 *p, u64 lo, u64 hi, u64 nlo, u64 nhi)
{
	bool ok;

	asm volatile("lock cmpxchg16b (%5); setz %0" : "=q"(ok), "+a"(lo), "+d"(hi) : "b"(nlo), "c"(nhi), "r"(p)
		     : "memory", "cc");
	return ok;
}

static void wide(void)
{
	u64 *p = (u64 *)buf;
	ulong ax, dx;

	group("CMPXCHG16B");
	p[0] = 1;
	p[1] = 2;
	check(cx16(p, 1, 2, 3, 4) && p[0] == 3 && p[1] == 4, "equal: stores");
	check(!cx16(p, 1, 2, 5, 6) && p[0] == 3 && p[1] == 4, "different: leaves");
	check(!cx16(p, 3, 2, 5, 6), "half equal is different");
	asm volatile("lock cmpxchg16b (%2)" : "=a"(ax), "=d"(dx) : "r"(p), "a"(0), "d"(0), "b"(0ul), "c"(0ul) : "memory", "cc");
	expect("different: loads RAX", ax, 3);
	expect("different: loads RDX", dx, 4);
	expect_fault("misaligned", GP, 0, cx16((u64 *)(buf + 8), 0, 0, 0, 0));
	expect_fault("misaligned, without LOCK", GP, 0,
		asm volatile("cmpxchg16b (%0)" :: "r"(buf + 8), "a"(0), "b"(0), "c"(0), "d"(0) : "memory", "cc"));
	group("CMPXCHG8B");
	p[0] = 0x1111111122222222ull;
	asm volatile("lock cmpxchg8b (%4); setz %%sil" : "=a"(ax), "=d"(dx) : "a"(0), "d"(0), "r"(p), "b"(5), "c"(6)
		     : "memory", "cc", "rsi");
	expect("different: EDX:EAX", (u64)dx << 32 | ax, 0x1111111122222222ull);
	expect_ok("misaligned is fine",
		asm volatile("lock cmpxchg8b (%0)" :: "r"(buf + 3), "a"(0), "b"(0), "c"(0), "d"(0) : "memory", "cc"));
}

static void odd(void)
{
	volatile u32 *p = (u32 *)(buf + 3);

	group("odd addresses");
	*p = 0x1000;
	asm volatile("lock addl $0x234, %0" : "+m"(*p));
	expect("lock add", *p, 0x1234);
	asm volatile("lock xaddl %%eax, %0" : "+m"(*p) : "a"(1));
	expect("lock xadd", *p, 0x1235);
	p = (u32 *)(buf + 62 - 0);	/* over a cache line, still inside the page's data */
	{
		static u8 line[192] __attribute__((aligned(64)));

		p = (u32 *)(line + 62);
		*p = 5;
		asm volatile("lock incl %0" : "+m"(*p));
		expect("over a cache line", *p, 6);
	}
}

static void bit_strings(void)
{
	u64 words[4] = { 0 };

	group("bit strings");
	asm volatile("btsq %1, %0" : "+m"(words[1]) : "r"(-1l) : "memory", "cc");
	expect("a negative bit offset", words[0], BIT(63));
	asm volatile("lock btsq %1, %0" : "+m"(words[0]) : "r"(130l) : "memory", "cc");
	expect("a far bit offset", words[2], 4);
	asm volatile("btsl $33, %0" : "+m"(words[3]) :: "memory", "cc");
	expect("an immediate wraps at 32", words[3], 2);
}

static void read_only(void)
{
	u8 *frame = page_alloc();
	volatile u32 *p = (u32 *)TEST_VA;

	group("read-only memory");
	write_cr0(read_cr0() | CR0_WP);
	page_map(TEST_VA, (ulong)frame, PTE_P);
	expect_fault("add faults as a write", PF, 3, asm volatile("lock addl $0, (%0)" :: "r"(p) : "memory"));
	expect_fault("cmpxchg that would not store faults too", PF, 3,
		asm volatile("lock cmpxchgl %%ecx, (%0)" :: "r"(p), "a"(1), "c"(1) : "memory", "cc"));
	expect_fault("cmpxchg16b too", PF, 3, cx16((u64 *)p, 1, 1, 1, 1));
	expect_ok("cmp and test only read", asm volatile("cmpl $0, (%0); testl $1, (%0)" :: "r"(p) : "cc"));
	write_cr0(read_cr0() & ~CR0_WP);
}

void guest_main(void)
{
	allowed();
	forbidden();
	wide();
	odd();
	bit_strings();
	read_only();
}
