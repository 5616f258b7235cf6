/*
 * 32-bit code in a 64-bit address space: its addresses wrap at 4 GiB, although the pages above are
 * mapped and have just been used by 64-bit code.
 */
#include "hostile.h"

#define SEL_TEST	SEL_FREE
#define ABOVE		0x100001000ul	/* what 0xfffff000 + 0x2000 must not be */
#define BELOW		0x1000ul

extern u8 compat_load[], compat_store[], compat_push[];
asm(".pushsection .text\n.code32\n"
	"compat_load: mov %fs:(%esi), %eax; lret\n"
	"compat_store: mov %eax, %fs:(%esi); lret\n"
	"compat_push: mov %esp, %ebx; mov %esi, %esp; push %eax; mov %ebx, %esp; lret\n"
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
		: "rbx", "r15", "memory", "cc");
	return out;
}

static void set_fs(u32 base)
{
	gdt_set(SEL_TEST, descriptor(base, 0xfffff, 0x93, 12));
	asm volatile("mov %w0, %%fs" :: "r"(SEL_TEST) : "memory");
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
}
