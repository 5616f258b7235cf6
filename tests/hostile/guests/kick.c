/*
 * Loops without an instruction that looks like one: the host must get the vCPU out of each. Which
 * one is the seed. Run with --endless.
 */
#include "hostile.h"

static u8 area[16][4096] PAGE_ALIGNED;
static u32 dir[1024] PAGE_ALIGNED;
static u32 tables[8][1024] PAGE_ALIGNED;
static unsigned used;

static void map32(u32 la, void *frame)
{
	u32 *e = &dir[la >> 22];

	if (!(*e & 1) || *e & 0x80)
		*e = (u32)tables[used++] | 7;
	((u32 *)(*e & ~0xfffu))[la >> 12 & 1023] = (u32)frame | 7;
}

static void paging_on(void)
{
	unsigned k;

	for (k = 0; k < 8; k++)
		dir[k] = k << 22 | 0x83;
	write_cr4(read_cr4() | CR4_PSE);
	write_cr3((u32)dir);
	write_cr0(read_cr0() | CR0_PG);
}

/* op with a 32-bit displacement to to, at from. */
static void put_rel(u8 *p, const char *op, unsigned n, u32 from, u32 to)
{
	memcpy(p, op, n);
	*(u32 *)(p + n) = to - (from + n + 4);
}

/* Three transfers forward go around 4 GiB. */
static void around(const char *op, unsigned n)
{
	static const u32 at[] = { 0x40000000, 0x90000000, 0xe0000000 };
	unsigned k;

	for (k = 0; k < 3; k++) {
		map32(at[k], area[k]);
		put_rel(area[k], op, n, at[k], at[(k + 1) % 3]);
	}
	paging_on();
	asm volatile("xor %%eax, %%eax; mov $0x500000, %%ebp; jmp *%0" :: "r"(at[0]) : "eax");
}

/* Code that falls from the last byte of the address space to the first. */
static void over_the_top(void)
{
	unsigned k;

	for (k = 0; k < 2; k++)
		memset(area[k], 0x90, 4096);
	map32(0xfffff000, area[0]);
	paging_on();
	*(u32 *)area[15] = 0;
	/* Page 0: a jump forward to the top's page. */
	asm volatile("movb $0xe9, 0; movl %0, 1; jmp *%1" :: "r"(0xfffff000u - 5), "r"(0xfffff000));
}

static void strings(void)
{
	static const char movs[] = { 0xf3, 0xa4, 0xeb, 0xfc };

	memcpy(area[0], movs, 4);
	for (;;)
		asm volatile("mov $-1, %%ecx; mov $0x600000, %%esi; mov %%esi, %%edi; rep movsb"
			::: "ecx", "esi", "edi", "memory");
}

static void on_trap(struct trap_frame *f)
{
}

static void faults(void)
{
	trap_handle(UD, on_trap);
	asm volatile("ud2");
}

static void self_modifying(void)
{
	/* mov $0x90, %al; mov %al, 2f; 2: nop; jmp back */
	asm volatile("1: movb $0x90, 2f; 2: nop; jmp 1b" ::: "memory");
}

static void spin(void)
{
	asm volatile("1: jmp 1b");
}

static void loop_itself(void)
{
	asm volatile("1: mov $-1, %%ecx; 2: loop 2b; jmp 1b" ::: "ecx");
}

static void returns(void)
{
	static u32 stack[4];

	stack[0] = stack[1] = stack[2] = stack[3] = (u32)&&again;
again:
	asm volatile("mov %0, %%esp; ret" :: "r"(stack));
}

static void in_a_device(void)
{
	for (;;)
		*(volatile u32 *)NOTHING_THERE;
}

void guest_main(void)
{
	u32 which = inl(HOST_PORT + 4);

	print("loop %u\n", which);
	switch (which) {
	case 1: around("\xe9", 1); break;		/* jmp */
	case 2: around("\x0f\x84", 2); break;	/* jz, after xor eax, eax */
	case 3: around("\x58\xe8", 2); break;	/* pop %eax; call */
	case 4: over_the_top(); break;
	case 5: strings(); break;
	case 6: faults(); break;
	case 7: self_modifying(); break;
	case 8: spin(); break;
	case 9: loop_itself(); break;
	case 10: returns(); break;
	case 11: in_a_device(); break;
	}
	finish();
}
