/*
 * 32-bit code in a 64-bit address space: its addresses wrap at 4 GiB, although the pages above are
 * mapped and have just been used by 64-bit code.
 */
#include "hostile.h"

#define SEL_TEST	SEL_FREE
#define ABOVE		0x100001000ul	/* what 0xfffff000 + 0x2000 must not be */
#define BELOW		0x1000ul

extern u8 compat_load[], compat_store[], compat_push[], compat_bound[];
extern u8 compat_fxsave[], compat_fxrstor[], compat_xsave[], compat_xrstor[];
asm(".pushsection .text\n.code32\n"
	"compat_load: mov %fs:(%esi), %eax; lret\n"
	"compat_store: mov %eax, %fs:(%esi); lret\n"
	"compat_push: mov %esp, %ebx; mov %esi, %esp; push %eax; mov %ebx, %esp; lret\n"
	"compat_bound: xor %edx, %edx; bound %edx, (%esi); lret\n"
	"compat_fxsave: fxsave (%esi); lret\n"
	"compat_fxrstor: fxrstor (%esi); lret\n"
	"compat_xsave: xor %edx, %edx; xsave (%esi); lret\n"
	"compat_xrstor: xor %edx, %edx; xrstor (%esi); lret\n"
	".code64\n.popsection\n");

static u8 stack[4096] PAGE_ALIGNED;

/* At CPL 0, with a stack below 4 GiB. */
static u32 compat(u8 *code, u32 off, u32 val)
{
	static struct { u32 off; u16 sel; } __attribute__((packed)) far;
	u32 out;

	far.off = (u32)(ulong)code;
	far.sel = SEL_KCODE32;
	asm volatile("mov %%rsp, %%r15; mov %3, %%rsp; lcall *%1; mov %%r15, %%rsp"
		: "=a"(out) : "m"(far), "S"(off), "r"(stack + sizeof(stack)), "a"(val)
		: "rbx", "rdx", "r15", "memory", "cc");
	return out;
}

static void set_fs(u32 base)
{
	gdt_set(SEL_TEST, descriptor(base, 0xfffff, 0x93, 12));
	asm volatile("mov %w0, %%fs" :: "r"(SEL_TEST) : "memory");
}

/* ---- areas that begin below 4 GiB and go on at 0 ---- */

#define FXSAVE_AT	0xffffff60u		/* what lies at 0 begins with XMM0 */
#define XSAVE_AT	0xffffffc0u

static u64 xmm3(void)
{
	u64 val;

	asm volatile("movq %%xmm3, %0" : "=r"(val));
	return val;
}

/* above: what is at 4 GiB. */
static void area(u8 *save, u8 *restore, u32 at, u8 *above, ulong zero, u32 n)
{
	static u8 pattern[4096];
	ulong xmm3_at = zero + (u32)(at + 160 + 3 * 16);

	memset(pattern, 0x5a, sizeof(pattern));
	memcpy(above, pattern, sizeof(pattern));
	asm volatile("movq %0, %%xmm3" :: "r"(0x12340000ul + n));
	store64(0x100000000ul, load64(0x100000000ul));		/* at hand for both */
	compat(save, at, 3);
	sweep_check(!memcmp(above, pattern, sizeof(pattern)), "the page above was written");
	sweep_check(load64(xmm3_at) == 0x12340000 + n, "saved at 0");
	store64(xmm3_at, 0x56780000 + n);
	compat(restore, at, 3);
	sweep_check(xmm3() == 0x56780000 + n, "restored from 0");
}

static void areas(u8 *above)
{
	static u8 below[4096] PAGE_ALIGNED;
	ulong zero = 0;
	u32 n;

	asm("" : "+r"(zero));
	*page_entry(0xfffff000, 2) = 0;		/* a large page */
	page_map(0xfffff000, (ulong)below, PTE_P | PTE_W);
	write_cr0(read_cr0() & ~(CR0_EM | CR0_TS));
	write_cr4(read_cr4() | CR4_OSFXSR);
	sweep("FXSAVE and BOUND over 4 GiB");
	for (n = 0; n < 40; n++) {
		area(compat_fxsave, compat_fxrstor, FXSAVE_AT, above, zero, n);
		store64(zero, n);		/* the upper bound */
		store64(0x100000000ul, ~0ul);
		store64(0xfffffff8, 0);
		sweep_check(catch(compat(compat_bound, 0xfffffffc, 0)) == NONE, "bound");
	}
	sweep_end();
	if (!(cpuid(1, 0).ecx & BIT(26)))
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	asm volatile("xsetbv" :: "c"(0), "a"(3), "d"(0));
	sweep("XSAVE over 4 GiB");
	for (n = 0; n < 40; n++) {
		memset(below, 0, sizeof(below));
		memset((u8 *)zero + 64, 0, 1024);
		area(compat_xsave, compat_xrstor, XSAVE_AT, above, zero, n);
	}
	sweep_end();
}

void guest_main(void)
{
	u8 *above = page_alloc();
	unsigned n;

	page_map(ABOVE, (ulong)above, PTE_P | PTE_W);
	page_map(0x100000000ul, (ulong)above, PTE_P | PTE_W);
	group("32-bit code below 4 GiB");
	sweep("base and offset wrap");
	for (n = 0; n < 200; n++) {
		store64(ABOVE + 8, 0xbad);
		store64(BELOW + 8, 0x600d0000 + n);
		set_fs(0xfffff000);
		sweep_check(load64(ABOVE + 8) == 0xbad, "the page above");
		sweep_check(compat(compat_load, 0x2008, 0) == 0x600d0000 + n, "load %u", n);
		compat(compat_store, 0x2008, n);
		sweep_check(load64(ABOVE + 8) == 0xbad, "the page above was written: %lx",
			load64(ABOVE + 8));
		sweep_check((u32)load64(BELOW + 8) == n, "store %u", n);
		/* As thread-local storage has it: a negative offset. */
		set_fs((u32)(ulong)stack + 0x100);
		*(u32 *)(stack + 0x100 - 4) = n;
		sweep_check(compat(compat_load, 0xfffffffc, 0) == n, "negative offset");
	}
	sweep_end();
	sweep("over 4 GiB");
	for (n = 0; n < 100; n++) {
		store64(0x100000000ul, 0);
		set_fs(0);
		catch(compat(compat_store, 0xfffffffe, ~0u));
		sweep_check(load64(0x100000000ul) == 0, "the page above was written");
		/* ESP 0 pushes to the top of 4 GiB, not below zero in 64 bits. */
		compat(compat_push, (u32)(ulong)stack + 0x800, n);
		sweep_check(*(u32 *)(stack + 0x7fc) == n, "push");
	}
	sweep_end();
	asm volatile("mov %w0, %%fs" :: "r"(0));
	areas(above);
}
