/*
 * Two CPUs and one page table. The second reads, writes, pushes and calls through a page; the first
 * takes the page away, waits until the second has said that its TLB is clean, and gives the frame
 * to someone else: no access of the second may reach it from then on. And a slot that comes and
 * goes under the accesses of both.
 */
#include "hostile.h"

#define PLACE		TEST_VA
#define SPARE_VA	(TEST_VA + 0x80000000ul)
#define PATTERN		0xa5a5a5a5a5a5a5a5ul

static u8 ap_stack[8192] PAGE_ALIGNED;
static u8 *frames[2];
static volatile u32 asked, done, ap_rounds, ap_bad, quit;

static void ap_touch(void)
{
	volatile u64 *p = (volatile u64 *)PLACE;
	ulong sp = PLACE + 0xf00, v;
	unsigned k;

	for (k = 0; k < 40; k++)
		p[k] = ap_rounds;
	asm volatile("mov %%rsp, %%rcx; mov %1, %%rsp; push %2; push %2; pop %0; pop %0; mov %%rcx, %%rsp"
		: "=&r"(v) : "r"(sp), "r"((ulong)ap_rounds) : "rcx", "memory");
	asm volatile("call *%0" :: "r"(PLACE + 0x800) : "rax", "memory");
	(void)p[0];
}

/* Where the second CPU begins. It has interrupts off: it looks for requests itself. */
static void ap_begin(ulong arg)
{
	for (;;) {
		ap_touch();
		*(volatile u64 *)SPARE_VA;
		*(volatile u64 *)(SPARE_VA + 8) = ap_rounds;
		ap_rounds++;
		if (asked != done) {
			invlpg((void *)PLACE);
			__atomic_store_n(&done, asked, __ATOMIC_SEQ_CST);
		}
	}
}

static void wait_ap(u32 more)
{
	u32 from = ap_rounds;

	while (ap_rounds - from < more)
		pause_cpu();
}

static void prepare(u8 *f)
{
	memset(f, 0, 4096);
	put_return(f + 0x800, 1);
}

static bool untouched(const u8 *f)
{
	const u64 *p = (const u64 *)f;
	unsigned k;

	for (k = 0; k < 512; k++)
		if (p[k] != PATTERN)
			return false;
	return true;
}

static void shootdown(unsigned n)
{
	u8 *old = frames[n & 1], *new = frames[!(n & 1)];

	prepare(new);
	*page_entry(PLACE, 1) = (ulong)new | PTE_P | PTE_W;
	asked++;
	while (done != asked)
		pause_cpu();
	memset(old, 0xa5, 4096);
	wait_ap(20);
	sweep_check(untouched(old), "round %u: the old frame was written", n);
	sweep_check(*(volatile u64 *)new != 0, "round %u: the new one was not", n);
}

void guest_main(void)
{
	unsigned n = 0, k;

	frames[0] = page_alloc();
	frames[1] = page_alloc();
	prepare(frames[0]);
	page_map(PLACE, (ulong)frames[0], PTE_P | PTE_W);
	page_map(SPARE_VA, SPARE_SLOT, PTE_P | PTE_W);
	group("shootdown");
	host_call(HOST_START_CPU, (ulong)ap_begin, (ulong)ap_stack + sizeof(ap_stack) - 8, 0);
	wait_ap(1);
	sweep("a page taken from under another CPU");
	while (n < 20 || !time_over())
		shootdown(n++);
	sweep_end();
	host_call(HOST_CHURN, 0, 0, 0);
	sweep("a slot that comes and goes");
	for (n = 0; n < 200; n++) {
		for (k = 0; k < 1000; k++)
			store64(SPARE_VA + 0x100 + k % 8 * 8, k);
		load64(SPARE_VA + 0x100);
		sweep_check(true, "survived");
	}
	sweep_end();
	host_call(HOST_QUIET, 0, 0, 0);
}
