/*
 * Addresses that a translation cache could take for one another: equal modulo its size, modulo
 * 2^32, at the ends of the address space, and where segment bases wrap.
 */
#include "hostile.h"

#define PLACE	TEST_VA
#define PAGES	12

static const ulong apart[PAGES] = { 0, 1ul << 12, 1ul << 20, 1ul << 24, 1ul << 25, 1ul << 31, 1ul << 32,
	1ul << 33, (1ul << 32) + (1ul << 24), 1ul << 40, 1ul << 44, 1ul << 46 };
static u8 *frames[PAGES];

static ulong page_of(unsigned k)
{
	return PLACE + apart[k];
}

static void same_entry(void)
{
	unsigned n, k;

	sweep("pages that share an entry");
	for (n = 0; n < 200; n++)
		for (k = 0; k < PAGES; k++) {
			ulong at = page_of(k) + (n * 8 & 0xfff);

			sweep_check(load64(at) == k, "read %u", k);
			store64(at, k + 100);
			sweep_check(*(u64 *)(frames[k] + (n * 8 & 0xfff)) == k + 100, "write %u", k);
			store64(at, k);
		}
	sweep_end();
}

/* Over a page's end: each page alone, then both. */
static void straddle(void)
{
	ulong a = PLACE + 0x100000000000ul;
	u8 *one = page_alloc(), *two = page_alloc();
	unsigned n, size;

	page_map(a, (ulong)one, PTE_P | PTE_W);
	page_map(a + 0x1000, (ulong)two, PTE_P | PTE_W);
	memset(one, 0x11, 4096);
	memset(two, 0x22, 4096);
	sweep("over a page's end");
	for (n = 1; n < 8; n++) {
		u64 want = 0x2222222222222222ul << (n * 8) | 0x1111111111111111ul >> (64 - n * 8);

		sweep_check(load64(a + 0x1000 - n) == want, "%u bytes before: %lx", n,
			load64(a + 0x1000 - n));
	}
	page_map(a + 0x1000, 0, 0);
	for (n = 1; n < 8; n++) {
		sweep_check(catch(load64(a + 0x1000 - n)) == PF && fault.cr2 == a + 0x1000,
			"read into nothing: CR2 %lx", fault.cr2);
		sweep_check(catch(store64(a + 0x1000 - n, ~0ul)) == PF, "write into nothing");
	}
	for (size = 0; size < 4096; size++)
		sweep_check(one[size] == 0x11, "half a write at %x", size);
	page_map(a + 0x1000, (ulong)two, PTE_P);
	sweep_check(catch(store64(a + 0xffc, ~0ul)) == PF || !(read_cr0() & CR0_WP), "read-only");
	sweep_end();
	page_map(a + 0x1000, ROM_SLOT, PTE_P | PTE_W);
	store64(a + 0xffc, ~0ul);
	check(*(u32 *)(one + 0xffc) == ~0u, "half into ROM: memory's half is written");
	page_map(a + 0x1000, NOTHING_THERE, PTE_P | PTE_W);
	store64(a + 0xffc, 0);
	check(*(u32 *)(one + 0xffc) == 0, "half into a device: memory's half is written");
	expect("half from a device", load64(a + 0xffc), 0xffffffff00000000ul);
	page_map(a, 0, 0);
	page_map(a + 0x1000, 0, 0);
}

static void ends(void)
{
	u8 *frame = page_alloc();
	ulong top = ~0xffful, last = 0x7ffffffff000ul, first = 0xffff800000000000ul;

	page_map(top, (ulong)frame, PTE_P | PTE_W);
	page_map(last, (ulong)frame, PTE_P | PTE_W);
	page_map(first, (ulong)frame, PTE_P | PTE_W);
	store64((ulong)frame + 0xff8, 0x8877665544332211ul);
	expect("the last bytes of all", load64(~7ul), 0x8877665544332211ul);
	expect("... of the lower half", load64(last + 0xff8), 0x8877665544332211ul);
	sweep("over the ends");
	sweep_check(catch(load64(last + 0xff9)) == GP, "into the hole");
	sweep_check(catch(store64(last + 0xffc, 0)) == GP, "a write into the hole");
	sweep_check(catch(load64(first - 1)) == GP, "out of the hole");
	sweep_check(catch(load64(0x8000000000000000ul)) == GP, "2^63");
	sweep_check(catch(load64(0x0001000000000000ul)) == GP, "2^48");
	sweep_check(load64((ulong)frame + 0xff8) == 0x8877665544332211ul, "a byte was written");
	/* From -4 over the end to 0. */
	sweep_check((u32)load64(~3ul) == 0x88776655, "around the top: %lx", load64(~3ul));
	sweep_end();
	page_map(top, 0, 0);
	page_map(last, 0, 0);
	page_map(first, 0, 0);
}

static u64 load_fs(ulong off)
{
	u64 v;

	asm volatile("mov %%fs:(%1), %0" : "=r"(v) : "r"(off) : "memory");
	return v;
}

static u64 load_fs32(u32 off)
{
	u64 v;

	asm volatile("mov %%fs:(%k1), %0" : "=r"(v) : "r"(off) : "memory");
	return v;
}

static u64 load_gs(ulong off)
{
	u64 v;

	asm volatile("mov %%gs:(%1), %0" : "=r"(v) : "r"(off) : "memory");
	return v;
}

static void bases(void)
{
	static const ulong tries[] = { 0, 1, 0xfff, PLACE, 0xffff800000000000ul, ~0xffful, ~0ul,
		0x7fffffffffff, 0x80000000, 0xffffffff, 0x200040000000ul };
	unsigned k;

	sweep("FS and GS with any base");
	for (k = 0; k < ARRAY_SIZE(tries); k++) {
		wrmsr(MSR_FS_BASE, tries[k]);
		wrmsr(MSR_GS_BASE, tries[k]);
		sweep_check(rdmsr(MSR_GS_BASE) == tries[k], "the base reads back");
		sweep_check(load_fs(page_of(3) - tries[k]) == 3, "FS %lx", tries[k]);
		sweep_check(load_gs(page_of(6) - tries[k]) == 6, "GS %lx", tries[k]);
	}
	/* The offset of a 32-bit address is cut before the base is added. */
	wrmsr(MSR_FS_BASE, page_of(6) - 0xfffff000ul);
	sweep_check(load_fs32(0xfffff000) == 6, "32-bit offset, 64-bit base");
	wrmsr(MSR_FS_BASE, 0xffff800000000000ul);
	sweep_check(catch(load_fs(0x7fffffffffff + 0ul - 0xfff)) == PF, "base and offset");
	sweep_check(catch(load_fs(0x1000000000000ul)) == GP || fault.vector == PF, "a carry");
	sweep_check(catch(load_fs(0x8000000000000000ul)) == GP, "2^63 more");
	sweep_end();
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

/* Host addresses as guest addresses: they are nothing, then they are guest memory. */
static void host_addresses(void)
{
	ulong host = host_pointer() & ~0xffful;
	u8 *frame = page_alloc();
	ulong k;

	sweep("the host's addresses");
	for (k = 0; k < 64; k++) {
		sweep_check(catch(load64(host + k * 0x1000)) == PF, "read");
		sweep_check(catch(store64(host + k * 0x1000, 0)) == PF, "write");
	}
	page_map(host, (ulong)frame, PTE_P | PTE_W);
	store64(host, 0x1234);
	sweep_check(*(u64 *)frame == 0x1234, "mapped, it is the guest's own");
	page_map(host, 0, 0);
	sweep_check(catch(load64(host)) == PF, "and gone again");
	sweep_end();
}

void guest_main(void)
{
	unsigned k, n;

	for (k = 0; k < PAGES; k++) {
		frames[k] = page_alloc();
		for (n = 0; n < 512; n++)
			((u64 *)frames[k])[n] = k;
		page_map(page_of(k), (ulong)frames[k], PTE_P | PTE_W);
	}
	write_cr0(read_cr0() | CR0_WP);
	group("aliases");
	same_entry();
	straddle();
	ends();
	bases();
	host_addresses();
	host_call(HOST_CHECK, 0, 0, 0);
}
