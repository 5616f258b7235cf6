/*
 * 32-bit segments as a fence: limits, segments that grow down, bases that wrap at 4 GiB, 16-bit
 * stacks; data, stack and code. SDM 3A 5.3.
 */
#include "hostile.h"

#define SEL_TEST	SEL_FREE
#define SEL_STACK	(SEL_FREE + 8)
#define SEL_CODE	(SEL_FREE + 16)
#define DATA		0x93
#define DATA_DOWN	0x97
#define DATA_RO		0x91
#define CODE_RX		0x9b
#define CODE_X		0x99

static u8 area[0x4000] PAGE_ALIGNED;

static void set_fs(u32 base, u32 limit, u8 type, u8 flags)
{
	gdt_set(SEL_TEST, descriptor(base, limit, type, flags));
	asm volatile("mov %w0, %%fs" :: "r"(SEL_TEST) : "memory");
}

static int load_at(u32 off, unsigned size)
{
	switch (size) {
	case 1: return catch(asm volatile("movb %%fs:(%0), %%al" :: "r"(off) : "eax", "memory"));
	case 2: return catch(asm volatile("movw %%fs:(%0), %%ax" :: "r"(off) : "eax", "memory"));
	default: return catch(asm volatile("movl %%fs:(%0), %%eax" :: "r"(off) : "eax", "memory"));
	}
}

static int store_at(u32 off, unsigned size)
{
	switch (size) {
	case 1: return catch(asm volatile("movb $0x5a, %%fs:(%0)" :: "r"(off) : "memory"));
	case 2: return catch(asm volatile("movw $0x5a5a, %%fs:(%0)" :: "r"(off) : "memory"));
	default: return catch(asm volatile("movl $0x5a5a5a5a, %%fs:(%0)" :: "r"(off) : "memory"));
	}
}

static bool area_clean(void)
{
	unsigned k;

	for (k = 0; k < sizeof(area); k++)
		if (area[k])
			return false;
	return true;
}

/* limit: the last byte, for a segment of 4 GiB - 1 at most. */
static void up(void)
{
	static const u32 limits[] = { 0, 1, 3, 0xfe, 0xfff, 0x1000, 0x1ffe, 0x2fff };
	unsigned k, size;
	u32 off;

	sweep("limits");
	for (k = 0; k < ARRAY_SIZE(limits); k++)
		for (size = 1; size <= 4; size *= 2)
			for (off = limits[k] > 6 ? limits[k] - 6 : 0; off < limits[k] + 6; off++) {
				bool in = off + size - 1 <= limits[k];

				set_fs((u32)area + 0x100, limits[k], DATA, 4);
				sweep_check(load_at(off, size) == (in ? NONE : GP), "load %x of %x",
					off, limits[k]);
				sweep_check(store_at(off, size) == (in ? NONE : GP), "store %x of %x",
					off, limits[k]);
				memset(area + 0x100, 0, limits[k] + 1);
			}
	sweep_check(area_clean(), "something beyond was written");
	sweep_check(load_at(0xffffffff, 4) == GP && load_at(0xfffffffe, 4) == GP, "the last bytes");
	sweep_end();
}

static void down(void)
{
	static const u32 limits[] = { 0, 0xfff, 0x1fff };
	unsigned k, size;
	u32 off;

	sweep("segments that grow down");
	for (k = 0; k < ARRAY_SIZE(limits); k++)
		for (size = 1; size <= 4; size *= 2)
			for (off = limits[k] > 6 ? limits[k] - 6 : 0; off < limits[k] + 6; off++) {
				bool in = off > limits[k];

				set_fs((u32)area + 0x100, limits[k], DATA_DOWN, 4);
				sweep_check(load_at(off, size) == (in ? NONE : GP), "load %x of %x",
					off, limits[k]);
				sweep_check(store_at(off, size) == (in ? NONE : GP), "store %x of %x",
					off, limits[k]);
				memset(area, 0, sizeof(area));
			}
	/* With B = 0 the top is 0xffff. */
	set_fs((u32)area, 0xfff, DATA_DOWN, 0);
	sweep_check(load_at(0x1000, 4) == NONE && load_at(0x10000, 1) == GP, "16 bits: above");
	sweep_check(load_at(0xfffd, 4) == GP, "16 bits: over the top");
	sweep_end();
}

static void kinds(void)
{
	sweep("kinds of segment");
	set_fs((u32)area, 0xfff, DATA_RO, 4);
	sweep_check(load_at(0, 4) == NONE && store_at(0, 4) == GP, "read-only");
	set_fs((u32)area, 0xfff, CODE_RX, 4);
	sweep_check(load_at(0, 4) == NONE && store_at(0, 4) == GP, "code");
	asm volatile("mov %w0, %%fs" :: "r"(0));
	sweep_check(load_at(0, 4) == GP && store_at(0, 4) == GP && load_at((u32)area, 1) == GP, "null");
	sweep_check(area_clean(), "something was written");
	sweep_end();
}

/* The base and the offset wrap at 4 GiB, not above. */
static void wrap(void)
{
	u32 k;

	sweep("bases that wrap");
	for (k = 0; k < 200; k++) {
		u32 base = 0xffffff00u - k * 0x1000, off = (u32)area + 0x800 - base, v;

		*(volatile u32 *)(area + 0x800) = k + 1;
		set_fs(base, 0xfffff, DATA, 12);
		asm volatile("movl %%fs:(%1), %0" : "=r"(v) : "r"(off) : "memory");
		sweep_check(v == k + 1, "base %x: %x", base, v);
		asm volatile("movl %0, %%fs:(%1)" :: "r"(~k), "r"(off) : "memory");
		sweep_check(*(volatile u32 *)(area + 0x800) == ~k, "base %x: store", base);
	}
	*(volatile u32 *)(area + 0x800) = 0;
	asm volatile("mov %w0, %%fs" :: "r"(0));
	sweep_end();
}

/*
 * push and pop, or call, at ESP in the segment. A trap would use the same stack, so the kernel only
 * tries what works.
 */
static void stack_at(u32 esp, bool call)
{
	if (!call)
		asm volatile("mov %%esp, %%ebx; mov %%ss, %%ecx; mov %w0, %%ss; mov %1, %%esp;"
			"push %%eax; pop %%edx; mov %%cx, %%ss; mov %%ebx, %%esp"
			:: "r"(SEL_STACK), "r"(esp), "a"(0x57ac57ac) : "ebx", "ecx", "edx", "memory");
	else
		asm volatile("mov %%esp, %%ebx; mov %%ss, %%ecx; mov %w0, %%ss; mov %1, %%esp;"
			"call 1f; 1: mov %%cx, %%ss; mov %%ebx, %%esp"
			:: "r"(SEL_STACK), "r"(esp) : "ebx", "ecx", "memory");
}

static void stacks(void)
{
	u32 k;

	sweep("a stack with a base");
	for (k = 4; k < 64; k++) {
		gdt_set(SEL_STACK, descriptor((u32)area + k, 0xfff, DATA, 4));
		stack_at(0x800, k & 1);
		sweep_check(*(u32 *)(area + k + 0x7fc) != 0, "base %u", k);
		*(u32 *)(area + k + 0x7fc) = 0;
	}
	/* The base and ESP wrap to the area. */
	gdt_set(SEL_STACK, descriptor(0xfffff000, 0xfffff, DATA, 12));
	stack_at((u32)area + 0x1000 + 0x100, 0);
	sweep_check(*(u32 *)(area + 0xfc) == 0x57ac57ac, "wrapped");
	*(u32 *)(area + 0xfc) = 0;
	/* 16 bits: SP 0 pushes to 0xfffc; the upper half of ESP says nothing. */
	gdt_set(SEL_STACK, descriptor((u32)area - 0xe000, 0xffff, DATA, 0));
	stack_at(0xabcd0000, 0);
	sweep_check(*(u32 *)(area + 0x1ffc) == 0x57ac57ac, "SP wraps");
	*(u32 *)(area + 0x1ffc) = 0;
	stack_at(0xabcdf000, 0);
	sweep_check(*(u32 *)(area + 0xffc) == 0x57ac57ac, "SP's upper half");
	*(u32 *)(area + 0xffc) = 0;
	sweep_check(area_clean(), "something else was written");
	sweep_end();
}

USER_DATA static u32 user_area[64] = { 1 };

USER_TEXT static ulong user_stack_edge(ulong esp)
{
	asm volatile("mov %%esp, %%ebx; mov %%ss, %%ecx; mov %w0, %%ss; mov %1, %%esp;"
		"push %%eax; mov %%cx, %%ss; mov %%ebx, %%esp"
		:: "r"((SEL_STACK) | 3), "r"(esp) : "ebx", "ecx", "memory");
	return 0;
}

/* From user mode the trap has a stack of its own, so the edges can be tried. */
static void user_edges(void)
{
	u32 off;

	gdt_set(SEL_STACK, descriptor((u32)user_area, 0x7f, 0xf3, 4));
	sweep("a user stack's limit");
	for (off = 0; off < 0xa0; off++) {
		bool in = off >= 4 && off <= 0x80;
		int v = user_call(user_stack_edge, off);

		sweep_check(v == (in ? NONE : SS), "ESP %x: %d", off, v);
	}
	sweep_check(user_area[32] == 0 && user_area[33] == 0, "beyond it was written");
	sweep_end();
}

/* Code that runs or jumps over its segment's limit. */
static void code_limit(void)
{
	static struct { u32 off; u16 sel; } __attribute__((packed)) far;
	u32 off;
	int v;

	memset(area, 0x90, 0x1000);
	area[0x7f0] = 0xcb;		/* lret */
	far.sel = SEL_CODE;
	gdt_set(SEL_CODE, descriptor((u32)area, 0x7ff, CODE_RX, 4));
	sweep("a code segment's limit");
	for (off = 0x7e0; off < 0x820; off++) {
		far.off = off;
		v = catch(asm volatile("lcall *%0" :: "m"(far) : "memory", "eax"));
		sweep_check(v == (off <= 0x7f0 ? NONE : GP), "%x: %d", off, v);
	}
	area[0x100] = 0xe9;		/* jmp to beyond */
	*(u32 *)(area + 0x101) = 0x800 - 0x105;
	far.off = 0x100;
	v = catch(asm volatile("lcall *%0" :: "m"(far) : "memory", "eax"));
	sweep_check(v == GP, "a jump out: %d", v);
	area[0x100] = 0xeb;		/* backwards, below zero */
	area[0x101] = 0x80;
	area[0x000] = 0xeb;
	area[0x001] = 0x80;
	far.off = 0;
	v = catch(asm volatile("lcall *%0" :: "m"(far) : "memory", "eax"));
	sweep_check(v == GP, "a jump below zero: %d", v);
	sweep_end();
	memset(area, 0, 0x1000);
}

void guest_main(void)
{
	group("segments as a fence");
	up();
	down();
	kinds();
	wrap();
	stacks();
	user_edges();
	code_limit();
}
